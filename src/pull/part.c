/* A file on its way, and its record. See part.h. */
#include "pull/part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER "fastvlm part 1\n"
enum { READ_BYTES = 1 << 20 };

static fv_status fail_errno(fv_error *err, const char *path, const char *verb)
{
    if (errno == ENOSPC || errno == EDQUOT)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: the disk is full; free some space and run the same command again to "
                       "resume",
                       path);
    return fv_fail(err, FV_ERR_IO, 0, "%s: cannot %s: %s", path, verb, strerror(errno));
}

fv_status fv_part_init(fv_part *part, const char *dir, const fv_hub_file *file, fv_error *err)
{
    char name[sizeof file->name + 8];
    *part = (fv_part){ .file = file, .fd = -1 };
    snprintf(name, sizeof name, "%s.part", file->name);
    part->path = fv_path_join(dir, name);
    part->final = fv_path_join(dir, file->name);
    fv_part_hash_begin(part);
    return part->path && part->final ? FV_OK
                                     : fv_fail_memory(err, strlen(dir) + sizeof name, "a path");
}

/* ---- ranges ------------------------------------------------------------------------------ */

static bool add_range(fv_part *part, uint64_t begin, uint64_t end)
{
    fv_range *r = part->have;
    size_t at = 0, last;
    while (at < part->n_have && r[at].end < begin)
        at++;
    for (last = at; last < part->n_have && r[last].begin <= end; last++)
        ;
    if (last > at) { /* swallow what touches */
        r[at].begin = FV_MIN(r[at].begin, begin);
        r[at].end = FV_MAX(r[last - 1].end, end);
        memmove(r + at + 1, r + last, (part->n_have - last) * sizeof *r);
        part->n_have -= last - at - 1;
        return true;
    }
    if (part->n_have == FV_PART_RANGES)
        return false;
    memmove(r + at + 1, r + at, (part->n_have - at) * sizeof *r);
    r[at] = (fv_range){ begin, end };
    part->n_have++;
    return true;
}

uint64_t fv_part_have(const fv_part *part)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < part->n_have; i++)
        sum += part->have[i].end - part->have[i].begin;
    return sum;
}

bool fv_part_gap(const fv_part *part, uint64_t from, fv_range *out)
{
    size_t i = 0;
    for (; i < part->n_have && part->have[i].begin <= from; i++)
        from = FV_MAX(from, part->have[i].end);
    *out = (fv_range){ from, i < part->n_have ? part->have[i].begin : part->file->size };
    return from < part->file->size;
}

/* ---- the record -------------------------------------------------------------------------- */

static size_t write_record(const fv_part *part, char text[FV_PART_RECORD])
{
    uint8_t digest[FV_SHA256_BYTES];
    char hex[65];
    fv_sha256 s;
    memset(text, 0, FV_PART_RECORD);
    size_t n = (size_t)snprintf(text, FV_PART_RECORD, HEADER "%s %" PRIu64 "\n", part->file->hash,
                                part->file->size);
    for (size_t i = 0; i < part->n_have; i++) /* 64 ranges of at most 34 characters */
        n += (size_t)snprintf(text + n, FV_PART_RECORD - n, "%" PRIu64 " %" PRIu64 "\n",
                              part->have[i].begin, part->have[i].end);
    fv_sha256_begin(&s);
    fv_sha256_add(&s, text, n);
    fv_sha256_end(&s, digest);
    fv_hex(hex, digest, sizeof digest);
    return n + (size_t)snprintf(text + n, FV_PART_RECORD - n, "sum %s\n", hex);
}

/* Only text that write_record would have written for these ranges is taken. */
static bool read_record(fv_part *part, const char text[FV_PART_RECORD + 1])
{
    char again[FV_PART_RECORD];
    const char *at = text;
    char *end;
    for (int line = 0; line < 2; line++) {
        at = strchr(at, '\n');
        if (!at++)
            return false;
    }
    while (*at >= '0' && *at <= '9') {
        uint64_t begin = strtoull(at, &end, 10), stop = strtoull(end, &end, 10);
        if (*end != '\n' || begin >= stop || stop > part->file->size ||
            !add_range(part, begin, stop))
            return false;
        at = end + 1;
    }
    write_record(part, again);
    return !memcmp(again, text, FV_PART_RECORD);
}

void fv_part_look(fv_part *part)
{
    char text[FV_PART_RECORD + 1] = { 0 };
    struct stat st;
    int fd = open(part->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    part->n_have = 0;
    if (fd < 0)
        return;
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
              (uint64_t)st.st_size == part->file->size + FV_PART_RECORD &&
              pread(fd, text, FV_PART_RECORD, (off_t)part->file->size) == FV_PART_RECORD &&
              read_record(part, text);
    close(fd);
    if (!ok)
        part->n_have = 0;
    part->resumed = part->n_have > 0;
}

uint64_t fv_part_disk(const fv_part *part)
{
    struct stat st;
    return lstat(part->path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : 0;
}

static fv_status write_all(fv_part *part, uint64_t at, const void *data, size_t n_bytes,
                           fv_error *err)
{
    const uint8_t *p = data;
    while (n_bytes > 0) {
        ssize_t n = pwrite(part->fd, p, n_bytes, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_errno(err, part->path, "write");
        p += n;
        at += (uint64_t)n;
        n_bytes -= (size_t)n;
    }
    return FV_OK;
}

fv_status fv_part_save(fv_part *part, fv_error *err)
{
    char text[FV_PART_RECORD];
    if (part->fd < 0 || !part->dirty)
        return FV_OK;
    write_record(part, text);
    FV_TRY(write_all(part, part->file->size, text, sizeof text, err));
    part->dirty = false;
    return FV_OK;
}

fv_status fv_part_open(fv_part *part, fv_error *err)
{
    struct stat st;
    if (part->fd >= 0)
        return FV_OK;
    part->fd = open(part->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (part->fd < 0)
        return fail_errno(err, part->path, "open");
    if (fstat(part->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return fv_fail(err, FV_ERR_IO, 0, "%s: not a regular file; move it away", part->path);
    off_t length = (off_t)(part->file->size + FV_PART_RECORD);
    if (part->n_have == 0 && ftruncate(part->fd, 0) != 0)
        return fail_errno(err, part->path, "empty");
#if defined(__linux__)
    /* A full disk shows now, not after an hour. File systems that cannot reserve say so, and go
     * without. */
    if (fallocate(part->fd, 0, 0, length) != 0 && errno != EOPNOTSUPP && errno != ENOSYS &&
        errno != EINTR)
        return fail_errno(err, part->path, "reserve the space");
#endif
    if (ftruncate(part->fd, length) != 0)
        return fail_errno(err, part->path, "size");
    part->dirty = true;
    return fv_part_save(part, err);
}

fv_status fv_part_write(fv_part *part, uint64_t at, const void *data, size_t n_bytes, fv_error *err)
{
    FV_TRY(write_all(part, at, data, n_bytes, err));
    if (!add_range(part, at, at + n_bytes))
        return fv_fail(err, FV_ERR_STATE, 0, "%s: more than %d pieces", part->path, FV_PART_RANGES);
    part->dirty = true;
    return FV_OK;
}

void fv_part_restart(fv_part *part)
{
    part->n_have = 0;
    part->resumed = false;
    part->dirty = true;
    fv_part_hash_begin(part);
}

/* ---- the hash ---------------------------------------------------------------------------- */

/* Git hashes "blob SIZE", a NUL and the bytes. */
void fv_part_hash_begin(fv_part *part)
{
    char head[32];
    int n = snprintf(head, sizeof head, "blob %" PRIu64, part->file->size);
    part->n_hashed = 0;
    fv_sha256_begin(&part->sha256);
    fv_sha1_begin(&part->sha1);
    fv_sha1_add(&part->sha1, head, (size_t)n + 1);
}

fv_status fv_part_hash(fv_part *part, int fd, uint64_t max_bytes, bool *done, fv_error *err)
{
    bool whole = fd >= 0; /* a finished file: all of it is there */
    uint64_t end = whole                                      ? part->file->size
                   : part->n_have && part->have[0].begin == 0 ? part->have[0].end
                                                              : 0;
    const char *path = whole ? part->final : part->path;
    fv_status status = FV_OK;
    uint8_t *buffer = NULL;

    end = FV_MIN(end, part->n_hashed + max_bytes);
    if (end > part->n_hashed && !(buffer = fv_alloc(READ_BYTES, 1)))
        return fv_fail_memory(err, READ_BYTES, "a buffer");
    while (part->n_hashed < end) {
        ssize_t n = pread(whole ? fd : part->fd, buffer,
                          (size_t)FV_MIN(end - part->n_hashed, READ_BYTES), (off_t)part->n_hashed);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            status = n < 0 ? fail_errno(err, path, "read")
                           : fv_fail(err, FV_ERR_IO, part->n_hashed, "%s: the file was truncated",
                                     path);
            break;
        }
        if (part->file->sha256)
            fv_sha256_add(&part->sha256, buffer, (size_t)n);
        else
            fv_sha1_add(&part->sha1, buffer, (size_t)n);
        part->n_hashed += (uint64_t)n;
    }
    fv_free(buffer);
    *done = status == FV_OK && part->n_hashed == part->file->size;
    return status;
}

void fv_part_digest(fv_part *part, char hex[65])
{
    uint8_t digest[FV_SHA256_BYTES];
    if (part->file->sha256)
        fv_sha256_end(&part->sha256, digest);
    else
        fv_sha1_end(&part->sha1, digest);
    fv_hex(hex, digest, part->file->sha256 ? FV_SHA256_BYTES : FV_SHA1_BYTES);
}

/* ---- the end ----------------------------------------------------------------------------- */

fv_status fv_part_finish(fv_part *part, fv_error *err)
{
    struct stat st;
    if (lstat(part->final, &st) == 0 && S_ISDIR(st.st_mode))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a directory, expected a file or nothing",
                       part->final);
    if (ftruncate(part->fd, (off_t)part->file->size) != 0)
        return fail_errno(err, part->path, "cut");
    if (fsync(part->fd) != 0)
        return fail_errno(err, part->path, "write");
    if (rename(part->path, part->final) != 0)
        return fail_errno(err, part->final, "name");
    close(part->fd);
    part->fd = -1;
    part->dirty = false;
    return FV_OK;
}

void fv_part_remove(fv_part *part)
{
    if (part->fd >= 0)
        close(part->fd);
    part->fd = -1;
    part->n_have = 0;
    unlink(part->path);
}

void fv_part_close(fv_part *part)
{
    fv_error ignored;
    if (part->fd >= 0) {
        (void)fv_part_save(part, &ignored); /* at worst a second's bytes are fetched again */
        close(part->fd);
    }
    fv_free(part->path);
    fv_free(part->final);
    *part = (fv_part){ .fd = -1 };
}
