/* Rows out of directories, lists and images. See row_source.h. */
#include "batch/row_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_hash.h"
#include "base/number.h"
#include "base/outpart.h"
#include "base/sha256.h"
#include "base/sniff.h"
#include "base/utf8_text.h"
#include "batch/id_set.h"
#include "batch/line_reader.h"
#include "batch/tar_read.h"
#include "image/image_list.h"

typedef enum input_kind { INPUT_DIRECTORY, INPUT_IMAGE, INPUT_LIST, INPUT_TAR } input_kind;

typedef struct batch_input {
    const char *path;
    input_kind kind;
    bool is_regular;
    bool is_there; /* then these are its: */
    dev_t device;
    ino_t inode;
    uint64_t n_bytes;        /* of a regular file */
    char hash[FV_HASH_TEXT]; /* of a list that is one */
    fv_image_list images;    /* of a directory */
    bool skipped;            /* a tar file of another shard */
} batch_input;

struct fv_row_source {
    fv_row_source_options options;
    batch_input *inputs;
    size_t at;            /* the input that is being read */
    size_t image;         /* of it: the next image */
    fv_line_reader lines; /* of it: open while it is a list that is being read */
    bool lines_open;
    fv_tar_reader *tar; /* of it, likewise */
    fv_id_set keys;     /* of samples */
    fv_id_set requests; /* the custom_id of each */
    fv_id_set names;    /* of rows, when they are named */
    uint64_t n_rows;    /* so far, without those of other shards' tar files */
    /* Of them, those that are dealt one by one: not those of tar files, so that every shard counts
     * the same. */
    uint64_t n_dealt;
    bool mine;       /* is the last row the shard's? */
    uint64_t n_tars; /* among the inputs */
};

/* ---- looking at the inputs --------------------------------------------------------------- */

/* A POSIX or GNU header. */
static bool head_is_tar(const void *head, size_t n)
{
    enum { MAGIC = 257 };
    return n >= MAGIC + 5 && !memcmp((const char *)head + MAGIC, "ustar", 5);
}

/* A header, or a file that is called so. */
static bool input_is_tar(const batch_input *in, const uint8_t *head, size_t n)
{
    size_t length = strlen(in->path);
    return head_is_tar(head, n) || (length > 4 && fv_ascii_same(in->path + length - 4, ".tar"));
}

#define EXPECTED "an image, a directory of images, a list or a tar file"

/* Is it a list? n bytes from its beginning; cut: they may end within a character. The first line
 * tells, so that no binary data becomes hundreds of rows that fail. */
static fv_status list_check(const char *path, const char *head, size_t n, bool cut, fv_error *err)
{
    enum { MOST_CUT = 3 };
    const char *end = memchr(head, '\n', n);
    size_t n_line = end ? (size_t)(end - head) : n, bad;
    char what[FV_DESCRIPTION];
    FV_TRY(fv_refuse_foreign(head, n, path, FV_FILE_TEXT, EXPECTED, err));
    bool nul = memchr(head, 0, n_line) != NULL, text = fv_utf8_valid(head, n_line, &bad);
    if (!nul && (text || (cut && !end && n_line - bad <= MOST_CUT)))
        return FV_OK;
    fv_describe_bytes(what, head, n);
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   "%s: this is %s, and its first line %s; expected a list in UTF-8", path, what,
                   nul ? "has a NUL byte" : "is not UTF-8");
}

static fv_status input_sniff(batch_input *in, fv_error *err)
{
    uint8_t head[FV_SNIFF_BYTES];
    FV_TRY(fv_file_check(in->path, err));
    int fd = open(in->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head);
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot read: %s", in->path, strerror(why));
    if (input_is_tar(in, head, (size_t)n)) {
        in->kind = INPUT_TAR;
        return fv_tar_check(err);
    }
    size_t bom = n >= 3 && !memcmp(head, "\xef\xbb\xbf", 3) ? 3 : 0; /* a list may have one */
    fv_file_kind kind = fv_sniff_bytes(head + bom, (size_t)n - bom).kind;
    in->kind = fv_file_is_image(kind) || kind == FV_FILE_IMAGE ? INPUT_IMAGE : INPUT_LIST;
    return in->kind == INPUT_IMAGE ? FV_OK
                                   : list_check(in->path, (const char *)head + bom, (size_t)n - bom,
                                                (size_t)n == sizeof head, err);
}

/* Of the names: a directory that gains or loses images is another input. */
static void images_hash(batch_input *in)
{
    uint8_t digest[FV_SHA256_BYTES];
    fv_sha256 sha;
    fv_sha256_begin(&sha);
    for (size_t i = 0; i < in->images.n; i++)
        fv_sha256_add(&sha, in->images.path[i], strlen(in->images.path[i]) + 1);
    fv_sha256_end(&sha, digest);
    fv_hex(in->hash, digest, sizeof digest);
}

static fv_status input_look(batch_input *in, const fv_callbacks *callbacks, fv_error *err)
{
    struct stat st;
    int why = stat(in->path, &st) == 0 ? 0 : errno;
    in->is_there = !why;
    if (in->is_there) {
        in->device = st.st_dev;
        in->inode = st.st_ino;
    }
    if (fv_image_name_is(in->path) && (why || !S_ISDIR(st.st_mode))) {
        in->kind = INPUT_IMAGE; /* what is wrong with it, its row says */
        return FV_OK;
    }
    FV_TRY(fv_path_check(in->path, err));
    if (why)
        return fv_fail(err, FV_ERR_IO, 0, "%s: %s", in->path,
                       why == ENOENT ? "no such file or directory" : strerror(why));
    in->is_regular = S_ISREG(st.st_mode);
    in->n_bytes = in->is_regular ? (uint64_t)st.st_size : 0;
    if (S_ISDIR(st.st_mode)) {
        in->kind = INPUT_DIRECTORY;
        FV_TRY(fv_image_list_collect(&in->images, &in->path, 1, err));
        images_hash(in);
        return FV_OK;
    }
    in->kind = INPUT_LIST; /* of a pipe nothing may be taken to find out */
    if (!in->is_regular)
        return FV_OK;
    FV_TRY(input_sniff(in, err));
    return in->kind == INPUT_LIST
               ? fv_file_hash(in->hash, &in->n_bytes, in->path, "read inputs", callbacks, err)
               : FV_OK;
}

fv_status fv_row_source_open(fv_row_source **out, const fv_row_source_options *options,
                             const fv_callbacks *callbacks, fv_error *err)
{
    fv_status status = FV_OK;
    fv_row_source *s = *out = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "the inputs");
    s->options = *options;
    s->options.n_shards = options->n_shards ? options->n_shards : 1;
    s->inputs = fv_alloc_zero(options->n_inputs, sizeof *s->inputs);
    if (!s->inputs)
        status = fv_fail_memory(err, sizeof *s->inputs, "the inputs");
    for (size_t i = 0; i < options->n_inputs && status == FV_OK; i++) {
        s->inputs[i].path = options->inputs[i];
        status = input_look(&s->inputs[i], callbacks, err);
        if (status == FV_OK && s->inputs[i].kind == INPUT_TAR)
            s->inputs[i].skipped = s->n_tars++ % s->options.n_shards != s->options.shard;
    }
    if (status != FV_OK) {
        fv_row_source_free(s);
        *out = NULL;
    }
    return status;
}

void fv_row_source_free(fv_row_source *s)
{
    if (!s)
        return;
    if (s->lines_open)
        fv_line_reader_close(&s->lines);
    fv_tar_close(s->tar);
    fv_id_set_free(&s->keys);
    fv_id_set_free(&s->requests);
    fv_id_set_free(&s->names);
    for (size_t i = 0; s->inputs && i < s->options.n_inputs; i++)
        fv_image_list_free(&s->inputs[i].images);
    fv_free(s->inputs);
    fv_free(s);
}

void fv_row_source_describe(const fv_row_source *s, fv_json_text *j)
{
    static const char *const kinds[] = { "directory", "image", "list", "tar" };
    fv_json_begin(j, "inputs", '[');
    for (size_t i = 0; i < s->options.n_inputs; i++) {
        const batch_input *in = &s->inputs[i];
        fv_json_begin_row(j, NULL, '{');
        fv_json_put_text(j, "path", in->path);
        fv_json_put_text(j, "kind", kinds[in->kind]);
        if (in->hash[0])
            fv_json_put_text(j, "sha256", in->hash);
        if (in->kind == INPUT_TAR) /* too large to be hashed */
            fv_json_put_int(j, "bytes", (int64_t)in->n_bytes);
        fv_json_end(j);
    }
    fv_json_end(j);
}

/* ---- what the output may not replace ----------------------------------------------------- */

static fv_status output_refuse(const char *output, const char *input, fv_error *err)
{
    return fv_fail(err, FV_ERR_ARGUMENT, 0,
                   "%s: would replace the input %s; expected an output of another name", output,
                   input);
}

/* A file that is there and will be replaced. */
static fv_status source_check_file(const fv_row_source *s, const char *output, fv_error *err)
{
    struct stat out, st;
    if (stat(output, &out) != 0)
        return FV_OK;
    for (size_t i = 0; i < s->options.n_inputs; i++) {
        const batch_input *in = &s->inputs[i];
        if (in->is_there && in->device == out.st_dev && in->inode == out.st_ino)
            return output_refuse(output, in->path, err);
        for (size_t k = 0; k < in->images.n; k++)
            if (stat(in->images.path[k], &st) == 0 && st.st_dev == out.st_dev &&
                st.st_ino == out.st_ino)
                return output_refuse(output, in->images.path[k], err);
    }
    return FV_OK;
}

/* Where the last part of a path is, without links on the way; from malloc, NULL: nowhere. */
static char *path_folder(const char *path)
{
    char *folder, *name, *real = fv_out_split(path, &folder, &name) ? realpath(folder, NULL) : NULL;
    fv_free(folder);
    fv_free(name);
    return real;
}

/* Is the input one of the files that a directory of texts may get? folder: without links. */
static bool input_is_text_in(const batch_input *in, const char *folder)
{
    size_t n = strlen(folder), length = strlen(in->path);
    const char *slash = strrchr(in->path, '/'), *name = slash ? slash + 1 : in->path;
    char *where = in->is_regular ? path_folder(in->path) : NULL;
    bool there = where && !strcmp(where, folder);
    bool below = where && !strncmp(where, folder, n) && (where[n] == '/' || folder[n - 1] == '/');
    free(where);
    return (there && !strcmp(name, "rows.jsonl")) ||
           ((there || below) && length > 4 && !strcmp(in->path + length - 4, ".txt"));
}

static fv_status source_check_texts(const fv_row_source *s, const char *output, fv_error *err)
{
    fv_status status = FV_OK;
    char *folder = realpath(output, NULL);
    for (size_t i = 0; folder && i < s->options.n_inputs && status == FV_OK; i++)
        if (input_is_text_in(&s->inputs[i], folder))
            status = output_refuse(output, s->inputs[i].path, err);
    free(folder);
    return status;
}

fv_status fv_row_source_check_output(const fv_row_source *s, const char *output, bool texts,
                                     fv_error *err)
{
    static const char *const endings[] = { "", ".partial", ".manifest.json" };
    for (size_t i = texts; i < FV_COUNT(endings); i++) {
        char *path = fv_out_path(output, endings[i]);
        fv_status status = path ? source_check_file(s, path, err)
                                : fv_fail_memory(err, strlen(output), "a path");
        fv_free(path);
        FV_TRY(status);
    }
    return texts ? source_check_texts(s, output, err) : FV_OK;
}

/* ---- rows -------------------------------------------------------------------------------- */

/* A share of the current input as a share of all. */
static double source_share(const fv_row_source *s, double done)
{
    return ((double)s->at + done) / (double)s->options.n_inputs;
}

/* Numbers a row that is not of a tar file and deals it. */
static void source_deal(fv_row_source *s, fv_row *row)
{
    row->index = s->n_rows++;
    s->mine = s->n_dealt++ % s->options.n_shards == s->options.shard;
}

static fv_status source_next_image(fv_row_source *s, batch_input *in, fv_row *row, bool *found,
                                   fv_error *err)
{
    size_t n = in->kind == INPUT_DIRECTORY ? in->images.n : 1;
    *found = s->image < n;
    if (!*found)
        return FV_OK;
    const char *path = in->kind == INPUT_DIRECTORY ? in->images.path[s->image] : in->path;
    s->image++;
    source_deal(s, row);
    row->at = source_share(s, (double)s->image / (double)n);
    return s->mine ? fv_row_of_image(row, path, &s->options.defaults, err) : FV_OK;
}

static bool line_is_blank(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\v\f", line[i]) || !line[i])
            return false;
    return true;
}

static fv_status source_row_of_line(fv_row_source *s, const fv_line *line, fv_row *row,
                                    fv_error *err)
{
    if (!line->too_long)
        return fv_row_read_line(row, line->text, line->n, &s->options.defaults, err);
    fv_error own;
    (void)fv_fail(&own, FV_ERR_LIMIT, 0, "the line has more than %d MiB", FV_ROW_MAX_BYTES >> 20);
    if (fv_row_fail(row, &own) == FV_OK)
        return FV_OK;
    if (err)
        *err = own;
    return own.status;
}

/* With the first line: of a pipe nothing was known before. */
static fv_status source_check_list(const fv_row_source *s, const batch_input *in,
                                   const fv_line *line, fv_error *err)
{
    size_t n = (size_t)(s->lines.buffer + s->lines.end - line->text);
    char what[FV_DESCRIPTION];
    if (head_is_tar(line->text, n) || fv_file_is_image(fv_sniff_bytes(line->text, n).kind)) {
        fv_describe_bytes(what, line->text, n);
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: this is %s; expected a list, or the name of that file as an input",
                       in->path, what);
    }
    return list_check(in->path, line->text, n, false, err);
}

static fv_status source_next_line(fv_row_source *s, batch_input *in, fv_row *row, bool *found,
                                  fv_error *err)
{
    fv_line line;
    if (!s->lines_open) {
        FV_TRY(fv_line_reader_open(&s->lines, in->path, FV_ROW_MAX_BYTES, s->options.quiet, err));
        s->lines_open = true;
    }
    bool first = s->lines.n_read == 0;
    do {
        FV_TRY(fv_line_reader_next(&s->lines, &line, found, err));
        if (first && *found && !line.too_long)
            FV_TRY(source_check_list(s, in, &line, err));
        first = false;
    } while (*found && !line.too_long && line_is_blank(line.text, line.n));
    if (!*found) {
        fv_line_reader_close(&s->lines);
        s->lines_open = false;
        return FV_OK;
    }
    source_deal(s, row);
    row->at = source_share(
        s, in->n_bytes ? FV_MIN(1.0, (double)s->lines.n_read / (double)in->n_bytes) : 0);
    return s->mine ? source_row_of_line(s, &line, row, err) : FV_OK;
}

/* Answers are joined to rows by it, so a second one of the same name is none. */
static fv_status source_check_key(fv_row_source *s, const batch_input *in, fv_row *row,
                                  fv_error *err)
{
    bool is_new = true, tar = in->kind == INPUT_TAR;
    fv_error own;
    if (row->is_key)
        FV_TRY(fv_id_set_add(tar ? &s->keys : &s->requests, row->id, &is_new, err));
    if (is_new)
        return FV_OK;
    if (tar)
        (void)fv_fail(&own, FV_ERR_FORMAT, 0, "%s: the key %.200s comes a second time", in->path,
                      row->id);
    else
        (void)fv_fail(&own, FV_ERR_FORMAT, 0, "request: custom_id: %.200s comes a second time",
                      row->id);
    if (fv_row_fail(row, &own) == FV_OK)
        return FV_OK;
    if (err)
        *err = own;
    return own.status;
}

static fv_status source_next_sample(fv_row_source *s, batch_input *in, fv_row *row, bool *found,
                                    fv_error *err)
{
    double share = 0;
    *found = false;
    if (in->skipped)
        return FV_OK;
    if (!s->tar)
        FV_TRY(fv_tar_open(&s->tar, in->path, in->n_bytes, err));
    FV_TRY(fv_tar_next(s->tar, row, &s->options.defaults, found, &share, err));
    if (*found) {
        row->index = s->n_rows++;
        s->mine = true; /* tar files are dealt as wholes */
        row->at = source_share(s, share);
        return FV_OK;
    }
    fv_tar_close(s->tar);
    s->tar = NULL;
    return FV_OK;
}

static fv_status source_next_of(fv_row_source *s, batch_input *in, fv_row *row, bool *found,
                                fv_error *err)
{
    switch (in->kind) {
    case INPUT_LIST: return source_next_line(s, in, row, found, err);
    case INPUT_TAR: return source_next_sample(s, in, row, found, err);
    default: return source_next_image(s, in, row, found, err);
    }
}

static fv_status source_name_row(fv_row_source *s, const fv_row *row, fv_error *err)
{
    char *name;
    bool is_new = true;
    FV_TRY(fv_row_name(&name, row->id, row->image, err));
    fv_status status = FV_OK;
    if (!name)
        status = fv_fail(err, FV_ERR_ARGUMENT, 0,
                         "no name for its file; expected an \"id\" or an \"image\"");
    else if (!fv_utf8_valid(name, strlen(name), NULL)) /* the journal would have another name */
        status = fv_fail(err, FV_ERR_ARGUMENT, 0,
                         "the name of its image is not UTF-8; expected an \"id\" for its file");
    else if (!fv_row_name_is_safe(name))
        status = fv_fail(err, FV_ERR_ARGUMENT, 0,
                         "%.200s: cannot be the name of a file of the output", name);
    else if (s->options.keyed && !fv_row_name_is_key(name))
        status = fv_fail(
            err, FV_ERR_ARGUMENT, 0,
            "%.200s: cannot be the key of a sample: it has a dot behind the last slash "
            "or begins with __",
            name);
    else
        status = fv_id_set_add(&s->names, name, &is_new, err);
    if (status == FV_OK && !is_new)
        status = fv_fail(err, FV_ERR_ARGUMENT, 0, "%.200s: an earlier row has this name", name);
    fv_free(name);
    return status;
}

/* A row whose name will not do cannot be answered. */
static fv_status source_check_name(fv_row_source *s, fv_row *row, fv_error *err)
{
    fv_error own = { 0 };
    if (!s->options.named || row->status != FV_OK || source_name_row(s, row, &own) == FV_OK ||
        fv_row_fail(row, &own) == FV_OK)
        return FV_OK;
    if (err)
        *err = own;
    return own.status;
}

fv_status fv_row_source_next(fv_row_source *s, fv_row *row, bool *more, fv_error *err)
{
    *more = false;
    while (s->at < s->options.n_inputs) {
        batch_input *in = &s->inputs[s->at];
        bool found;
        fv_status status = source_next_of(s, in, row, &found, err);
        if (status != FV_OK) {
            fv_row_free(row);
            return status;
        }
        if (!found) {
            s->at++;
            s->image = 0;
        } else if (s->mine) {
            *more = true;
            FV_TRY(source_check_key(s, in, row, err));
            return source_check_name(s, row, err);
        }
    }
    return FV_OK;
}
