/* WebDataset shards. See tar_read.h. */
#include "batch/tar_read.h"

#ifdef FASTVLM_TAR
#include <archive.h>
#include <archive_entry.h>
#include <pthread.h>
#include <string.h>

#include "base/dynlib.h"
#include "base/number.h"
#include "io/json.h"
#include "openai/request.h"

/* ---- the library ------------------------------------------------------------------------- */

typedef struct archive_functions {
    __typeof__(&archive_read_new) read_new;
    __typeof__(&archive_read_free) read_free;
    __typeof__(&archive_read_support_format_tar) format_tar;
    __typeof__(&archive_read_open_filename) open_filename;
    __typeof__(&archive_read_next_header) next_header;
    __typeof__(&archive_read_data) data;
    __typeof__(&archive_error_string) error_string;
    __typeof__(&archive_filter_bytes) filter_bytes;
    __typeof__(&archive_entry_pathname_utf8) pathname_utf8;
    __typeof__(&archive_entry_pathname) pathname;
    __typeof__(&archive_entry_size) size;
    __typeof__(&archive_entry_filetype) filetype;
} archive_functions;

static pthread_once_t archive_once = PTHREAD_ONCE_INIT;
static archive_functions lib;
static char archive_problem[FV_DYNLIB_PROBLEM]; /* empty: loaded */

#define FUNCTION(name, field)                           \
    {                                                   \
        name, offsetof(archive_functions, field), false \
    }

static void archive_load(void)
{
    static const char *const files[] = {
#if defined(__APPLE__)
        "libarchive.13.dylib",
        "/opt/homebrew/opt/libarchive/lib/libarchive.13.dylib",
#else
        "libarchive.so.13",
#endif
    };
    static const fv_dynlib_function functions[] = {
        FUNCTION("archive_read_new", read_new),
        FUNCTION("archive_read_free", read_free),
        FUNCTION("archive_read_support_format_tar", format_tar),
        FUNCTION("archive_read_open_filename", open_filename),
        FUNCTION("archive_read_next_header", next_header),
        FUNCTION("archive_read_data", data),
        FUNCTION("archive_error_string", error_string),
        FUNCTION("archive_filter_bytes", filter_bytes),
        FUNCTION("archive_entry_pathname_utf8", pathname_utf8),
        FUNCTION("archive_entry_pathname", pathname),
        FUNCTION("archive_entry_size", size),
        FUNCTION("archive_entry_filetype", filetype),
    };
    fv_dynlib_open(&lib, files, FV_COUNT(files), functions, FV_COUNT(functions), archive_problem);
}

fv_status fv_tar_check(fv_error *err)
{
    pthread_once(&archive_once, archive_load);
    if (archive_problem[0])
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "tar files need libarchive 3 (%s); install it (Debian, Ubuntu: "
                       "libarchive13)",
                       archive_problem);
    return FV_OK;
}

/* ---- members ----------------------------------------------------------------------------- */

struct fv_tar_reader {
    const char *path; /* borrowed */
    uint64_t n_bytes;
    struct archive *archive;
    struct archive_entry *entry; /* the member that comes next; NULL: none has been read ahead */
    char *name;                  /* of it */
    bool is_file;                /* is it one? or a link, a pipe, a device */
    bool ended;
    char *problem; /* why it ended before its end */
};

/* n of name are its key; *field is what follows, NULL: nothing does. */
static size_t member_key(const char *name, const char **field)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    const char *dot = strchr(base, '.');
    *field = dot && dot > base ? dot + 1 : NULL;
    return *field ? (size_t)(dot - name) : strlen(name);
}

static bool member_is_image(const char *field)
{
    static const char *const fields[] = { "jpg",  "jpeg", "png",  "webp", "gif", "bmp", "tif",
                                          "tiff", "heic", "heif", "avif", "ppm", "pgm", "pnm" };
    for (size_t i = 0; i < FV_COUNT(fields); i++)
        if (fv_ascii_same(field, fields[i]))
            return true;
    return false;
}

static bool member_leads_outside(const char *name)
{
    size_t n = strlen(name);
    return *name == '/' || !strncmp(name, "../", 3) || strstr(name, "/../") ||
           (n >= 3 && !strcmp(name + n - 3, "/.."));
}

static fv_status tar_end(fv_tar_reader *tar, fv_error *err)
{
    const char *why = lib.error_string(tar->archive);
    tar->ended = true;
    tar->problem = fv_strdup(why ? why : "unknown error");
    return tar->problem ? FV_OK : fv_fail_memory(err, 64, "a tar file");
}

/* The next member with a key and a field that is no directory, read ahead; none at the end. */
static fv_status tar_peek(fv_tar_reader *tar, fv_error *err)
{
    while (!tar->ended && !tar->entry) {
        int code = lib.next_header(tar->archive, &tar->entry);
        if (code == ARCHIVE_EOF) {
            tar->ended = true;
            tar->entry = NULL;
        } else if (code != ARCHIVE_OK && code != ARCHIVE_WARN) {
            tar->entry = NULL;
            FV_TRY(tar_end(tar, err));
        } else {
            const char *name = lib.pathname_utf8(tar->entry), *field;
            name = name ? name : lib.pathname(tar->entry);
            if (!name || lib.filetype(tar->entry) == AE_IFDIR || !member_key(name, &field) ||
                !field) {
                tar->entry = NULL;
                continue;
            }
            tar->is_file = lib.filetype(tar->entry) == AE_IFREG;
            fv_free(tar->name);
            if (!(tar->name = fv_strdup(name)))
                return fv_fail_memory(err, strlen(name), "a tar file");
        }
    }
    return FV_OK;
}

/* All of the member that was read ahead. A file that ends in it has tar->problem. */
static fv_status tar_read(fv_tar_reader *tar, uint8_t **data, size_t *n, fv_error *err)
{
    int64_t size = lib.size(tar->entry);
    *data = NULL;
    *n = 0;
    if (size < 0 || size > FV_TAR_MAX_MEMBER)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: has %" PRId64 " bytes; expected up to %d",
                       tar->name, size, FV_TAR_MAX_MEMBER);
    if (!(*data = fv_alloc((size_t)size + 1, 1)))
        return fv_fail_memory(err, (size_t)size, "a member of a tar file");
    while (*n < (size_t)size) {
        la_ssize_t done = lib.data(tar->archive, *data + *n, (size_t)size - *n);
        if (done < 0)
            return tar_end(tar, err);
        if (done == 0)
            break;
        *n += (size_t)done;
    }
    return FV_OK;
}

/* ---- samples ----------------------------------------------------------------------------- */

typedef struct sample {
    char *prompt;
    bool has_json;
} sample;

static fv_status sample_add_image(fv_tar_reader *tar, fv_row *row, fv_error *err)
{
    uint8_t *data;
    size_t n;
    fv_status status = tar_read(tar, &data, &n, err);
    if (status == FV_OK)
        status = fv_row_add(row, FV_ROW_IMAGE, tar->name, strlen(tar->name), err);
    if (status == FV_OK) {
        row->parts[0].data = data;
        row->parts[0].n_data = n;
        row->image = fv_strdup(tar->name);
        return row->image ? FV_OK : fv_fail_memory(err, strlen(tar->name), "a row");
    }
    fv_free(data);
    return status;
}

static fv_status sample_read_json(fv_tar_reader *tar, sample *s, fv_error *err)
{
    const char *prompt = NULL;
    uint8_t *data;
    size_t n;
    fv_json *doc = NULL;
    fv_status status = FV_OK;
    FV_TRY_GOTO(tar_read(tar, &data, &n, err));
    if (tar->problem)
        goto fail;
    FV_TRY_GOTO(fv_json_parse_up_to(&doc, data, n, FV_REQUEST_MAX_VALUES, tar->name, err));
    if (fv_json_type_of(fv_json_root(doc)) == FV_JSON_OBJECT)
        FV_TRY_GOTO(fv_json_opt_string(doc, fv_json_root(doc), "prompt", &prompt, err));
    if (prompt && !(s->prompt = fv_strdup(prompt)))
        status = fv_fail_memory(err, strlen(prompt), "a row");
fail:
    fv_json_free(doc);
    fv_free(data);
    return status;
}

/* The member that was read ahead, into its sample. */
static fv_status sample_take(fv_tar_reader *tar, fv_row *row, sample *s, fv_error *err)
{
    const char *field;
    (void)member_key(tar->name, &field);
    if (member_leads_outside(tar->name))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the name leads out of the tar file", tar->name);
    bool image = member_is_image(field);
    if (image ? row->n_parts > 0 : strcmp(field, "json") != 0)
        return FV_OK;
    if (!tar->is_file)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: is a link, a pipe or a device in the tar file; expected a file",
                       tar->name);
    if (image)
        return sample_add_image(tar, row, err);
    if (s->has_json)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: comes twice in one sample", tar->name);
    s->has_json = true;
    return sample_read_json(tar, s, err);
}

static fv_status sample_end(fv_tar_reader *tar, fv_row *row, const sample *s,
                            const fv_row_defaults *d, fv_error *err)
{
    if (tar->problem)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: damaged or cut off: libarchive reports \"%s\"",
                       tar->path, tar->problem);
    if (!row->n_parts)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: no image in the sample %s", tar->path, row->id);
    return s->prompt ? fv_row_add_prompt(row, 0, s->prompt, strlen(s->prompt), err)
                     : fv_row_add_prompt(row, 0, d->prompt, d->n_prompt, err);
}

/* Members up to the next key. What is wrong with one of them is the row's. */
static fv_status sample_read(fv_tar_reader *tar, fv_row *row, sample *s, fv_error *err)
{
    const char *field;
    size_t n_key = tar->entry ? member_key(tar->name, &field) : 0;
    if (tar->entry) {
        if (!(row->id = fv_alloc(n_key + 1, 1)))
            return fv_fail_memory(err, n_key, "a row");
        memcpy(row->id, tar->name, n_key);
        row->id[n_key] = 0;
        row->is_key = true;
    }
    while (tar->entry && !tar->problem && member_key(tar->name, &field) == n_key &&
           !memcmp(tar->name, row->id, n_key)) {
        fv_error own = { 0 };
        if (row->status == FV_OK && sample_take(tar, row, s, &own) != FV_OK &&
            fv_row_fail(row, &own) != FV_OK) {
            if (err)
                *err = own;
            return own.status;
        }
        tar->entry = NULL;
        FV_TRY(tar_peek(tar, err));
    }
    return FV_OK;
}

fv_status fv_tar_next(fv_tar_reader *tar, fv_row *row, const fv_row_defaults *d, bool *more,
                      double *share, fv_error *err)
{
    sample s = { 0 };
    fv_error own = { 0 };
    FV_TRY(tar_peek(tar, err));
    *more = tar->entry || tar->problem;
    if (!*more)
        return FV_OK;
    fv_status status = sample_read(tar, row, &s, err);
    bool fine = status == FV_OK && row->status == FV_OK;
    if (fine && sample_end(tar, row, &s, d, &own) != FV_OK &&
        (status = fv_row_fail(row, &own)) != FV_OK && err)
        *err = own;
    if (fine) { /* what it was has been said; otherwise the next row says it */
        fv_free(tar->problem);
        tar->problem = NULL;
    }
    fv_free(s.prompt);
    int64_t at = lib.filter_bytes(tar->archive, -1);
    *share = tar->n_bytes && at > 0 ? FV_MIN(1.0, (double)at / (double)tar->n_bytes) : 0;
    return status;
}

fv_status fv_tar_open(fv_tar_reader **out, const char *path, uint64_t n_bytes, fv_error *err)
{
    *out = NULL;
    FV_TRY(fv_tar_check(err));
    fv_tar_reader *tar = fv_alloc_zero(1, sizeof *tar);
    if (tar)
        *tar = (fv_tar_reader){ .path = path, .n_bytes = n_bytes, .archive = lib.read_new() };
    if (!tar || !tar->archive) {
        fv_free(tar);
        return fv_fail_memory(err, sizeof *tar, "a tar file");
    }
    fv_status status = FV_OK;
    if (lib.format_tar(tar->archive) != ARCHIVE_OK ||
        lib.open_filename(tar->archive, path, 1 << 16) != ARCHIVE_OK)
        status = tar_end(tar, err);
    if (status == FV_OK)
        *out = tar;
    else
        fv_tar_close(tar);
    return status;
}

void fv_tar_close(fv_tar_reader *tar)
{
    if (!tar)
        return;
    lib.read_free(tar->archive);
    fv_free(tar->name);
    fv_free(tar->problem);
    fv_free(tar);
}

#else

fv_status fv_tar_check(fv_error *err)
{
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "tar files need libarchive, and this build was made without it (FASTVLM_TAR)");
}

fv_status fv_tar_open(fv_tar_reader **out, const char *path, uint64_t n_bytes, fv_error *err)
{
    (void)path;
    (void)n_bytes;
    *out = NULL;
    return fv_tar_check(err);
}

fv_status fv_tar_next(fv_tar_reader *tar, fv_row *row, const fv_row_defaults *d, bool *more,
                      double *share, fv_error *err)
{
    (void)tar;
    (void)row;
    (void)d;
    (void)share;
    *more = false;
    return fv_tar_check(err);
}

void fv_tar_close(fv_tar_reader *tar) { (void)tar; }
#endif
