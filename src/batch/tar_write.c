/* Tar files. See tar_write.h; the format is POSIX's, "pax Interchange Format". */
#include "batch/tar_write.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 512, SIZE_DIGITS = 11 };

typedef struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6],
        version[2], user[32], group[32], major[8], minor[8], prefix[155], zeros[12];
} tar_header;

_Static_assert(sizeof(tar_header) == BLOCK, "a header is a block");

static const uint64_t largest_size = ((uint64_t)1 << 3 * SIZE_DIGITS) - 1; /* in octal digits */

/* Where name is cut into prefix and name, at a slash; 0: as it is; -1: it does not fit. */
static ptrdiff_t name_cut(const char *name)
{
    const tar_header *h = NULL;
    size_t n = strlen(name);
    if (n <= sizeof h->name)
        return 0;
    for (size_t at = 1; at < n && at <= sizeof h->prefix; at++)
        if (name[at] == '/' && n - at - 1 <= sizeof h->name && n - at > 1)
            return (ptrdiff_t)at;
    return -1;
}

static bool name_is_ascii(const char *name)
{
    while (*name && (unsigned char)*name < 0x80)
        name++;
    return !*name;
}

static void tar_header_fill(tar_header *h, char type, const char *name, uint64_t n_bytes)
{
    ptrdiff_t cut = name_cut(name);
    const char *rest = cut > 0 ? name + cut + 1 : name;
    unsigned sum = 0;
    *h = (tar_header){ .mode = "0000644",
                       .uid = "0000000",
                       .gid = "0000000",
                       .mtime = "00000000000",
                       .type = type,
                       .magic = "ustar",
                       .version = { '0', '0' },
                       .major = "0000000",
                       .minor = "0000000" };
    if (cut > 0)
        memcpy(h->prefix, name, (size_t)cut);
    memcpy(h->name, rest, FV_MIN(strlen(rest), sizeof h->name)); /* the whole is in a pax header */
    snprintf(h->size, sizeof h->size, "%0*" PRIo64, SIZE_DIGITS, FV_MIN(n_bytes, largest_size));
    memset(h->sum, ' ', sizeof h->sum); /* as which it counts */
    for (size_t i = 0; i < sizeof *h; i++)
        sum += ((const unsigned char *)h)[i];
    snprintf(h->sum, sizeof h->sum, "%06o", sum); /* a NUL and the space behind it */
}

static fv_status tar_put(fv_outfile *f, char type, const char *name, const void *data,
                         uint64_t n_bytes, fv_error *err)
{
    static const char zeros[BLOCK];
    tar_header h;
    tar_header_fill(&h, type, name, n_bytes);
    FV_TRY(fv_outfile_write(f, &h, sizeof h, err));
    if (n_bytes)
        FV_TRY(fv_outfile_write(f, data, (size_t)n_bytes, err));
    return fv_outfile_write(f, zeros, (size_t)(-n_bytes % BLOCK), err);
}

/* "30 path=...\n": the length counts its own digits. */
static size_t pax_record(char *to, size_t size, const char *key, const char *value)
{
    size_t bare = strlen(key) + strlen(value) + 3, n = bare, digits;
    do {
        digits = (size_t)snprintf(NULL, 0, "%zu", n);
        n = bare + digits;
    } while ((size_t)snprintf(NULL, 0, "%zu", n) != digits);
    return (size_t)snprintf(to, size, "%zu %s=%s\n", n, key, value);
}

fv_status fv_tar_write_member(fv_outfile *f, const char *name, const void *data, size_t n_bytes,
                              fv_error *err)
{
    bool long_name = name_cut(name) < 0 || !name_is_ascii(name), large = n_bytes > largest_size;
    if (long_name || large) {
        char digits[24];
        size_t size = strlen(name) + 128, n = 0;
        char *records = fv_alloc(size, 1);
        if (!records)
            return fv_fail_memory(err, size, "the name of a member");
        snprintf(digits, sizeof digits, "%zu", n_bytes);
        if (long_name)
            n += pax_record(records, size, "path", name);
        if (large)
            n += pax_record(records + n, size - n, "size", digits);
        fv_status status = tar_put(f, 'x', "PaxHeaders/member", records, n, err);
        fv_free(records);
        FV_TRY(status);
    }
    return tar_put(f, '0', name, data, n_bytes, err);
}

fv_status fv_tar_write_end(fv_outfile *f, fv_error *err)
{
    static const char zeros[2 * BLOCK];
    return fv_outfile_write(f, zeros, sizeof zeros, err);
}
