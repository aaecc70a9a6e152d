/* What a run has finished. See journal.h. */
#include "batch/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/outfile.h"
#include "base/outpart.h"
#include "io/json.h"

/* The first line of every journal: one without it is of a run that has finished or not begun. */
#define HEADER "{\"fastvlm_batch\": 1}\n"

#define MANIFEST_END "\n}\n"

enum { SYNC_MS = 5000, MANIFEST_BYTES = 64 << 20, HEADER_BYTES = sizeof HEADER - 1 };

/* ---- the manifest ------------------------------------------------------------------------ */

/* The first member that differs, for the message; inputs are long, and come last. */
static fv_status manifest_refuse(const fv_journal *j, const fv_json *was, const fv_json *is,
                                 fv_error *err)
{
    const char *key;
    const fv_json_value *value;
    for (void *at = NULL; fv_json_next(fv_json_root(is), &at, &key, &value);) {
        const fv_json_value *old = fv_json_member(fv_json_root(was), key);
        char before[FV_JSON_SHOWN], now[FV_JSON_SHOWN];
        if (!strcmp(key, "inputs") || fv_json_same(old, value))
            continue;
        fv_json_show(old, before);
        fv_json_show(value, now);
        if (!strcmp(before, now))
            return fv_fail(err, FV_ERR_STATE, 0, "%s: made with another %s: both begin %s",
                           j->manifest, key, now);
        return fv_fail(err, FV_ERR_STATE, 0, "%s: made with another %s: it was %s, and is %s now",
                       j->manifest, key, before, now);
    }
    return fv_fail(err, FV_ERR_STATE, 0, "%s: made with other inputs", j->manifest);
}

static fv_status manifest_compare(const fv_journal *j, const char *text, size_t n, fv_error *err)
{
    fv_json *was = NULL, *is = NULL;
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_json_open(&was, j->manifest, MANIFEST_BYTES, err));
    FV_TRY_GOTO(fv_json_parse(&is, text, n, "the manifest", err));
    status = manifest_refuse(j, was, is, err);
fail:
    fv_json_free(was);
    fv_json_free(is);
    return status;
}

/* The file of the output whose size counts, to fv_free; NULL when memory is out. */
static char *output_file(const fv_journal *j)
{
    return fv_is_dir(j->output) ? fv_path_join(j->output, FV_JOURNAL_ROWS) : fv_strdup(j->output);
}

fv_status fv_journal_output_size(const fv_journal *j, uint64_t *n_bytes, fv_error *err)
{
    struct stat st;
    char *path = output_file(j);
    if (!path)
        return fv_fail_memory(err, strlen(j->output), "a path");
    *n_bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
    fv_free(path);
    return FV_OK;
}

/* What it says about an output that is complete. Older ones say nothing: *n_bytes stays. */
static fv_status manifest_read_output(fv_journal *j, const fv_json *doc, int64_t *n_bytes,
                                      fv_error *err)
{
    const fv_json_value *output = NULL;
    int64_t n_rows = 0, n_failed = 0;
    FV_TRY(fv_json_opt_object(doc, fv_json_root(doc), "output", &output, err));
    if (!output)
        return FV_OK;
    FV_TRY(fv_json_int(doc, output, "rows", 0, INT64_MAX, &n_rows, err));
    FV_TRY(fv_json_int(doc, output, "failed", 0, n_rows, &n_failed, err));
    FV_TRY(fv_json_int(doc, output, "bytes", 0, INT64_MAX, n_bytes, err));
    j->n_rows = (uint64_t)n_rows;
    j->n_failed = (uint64_t)n_failed;
    return FV_OK;
}

/* An output that is complete: how much it has, and whether that is still there. */
static fv_status journal_check_output(fv_journal *j, fv_error *err)
{
    fv_json *doc;
    int64_t n_bytes = -1;
    FV_TRY(fv_json_open(&doc, j->manifest, MANIFEST_BYTES, err));
    fv_status status = manifest_read_output(j, doc, &n_bytes, err);
    fv_json_free(doc);
    if (status != FV_OK || n_bytes < 0)
        return status;
    uint64_t found;
    FV_TRY(fv_journal_output_size(j, &found, err));
    if (found != (uint64_t)n_bytes)
        return fv_fail(err, FV_ERR_STATE, 0,
                       "%s: was changed since it was complete: it has %" PRIu64
                       " bytes; expected %" PRId64,
                       j->output, found, n_bytes);
    return FV_OK;
}

/* Is it this one, but for the output that it may tell of behind the last member? */
static fv_status manifest_is(const fv_journal *j, const char *text, size_t n, bool *same,
                             fv_error *err)
{
    static const char output[] = ",\n  \"output\": ";
    uint8_t *found;
    size_t n_found, n_same = n - strlen(MANIFEST_END), n_output = sizeof output - 1;
    FV_TRY(fv_read_file(&found, &n_found, j->manifest, MANIFEST_BYTES, err));
    *same = n_found >= n && !memcmp(found, text, n_same) &&
            ((n_found == n && !memcmp(found + n_same, text + n_same, n - n_same)) ||
             (n_found - n_same > n_output && !memcmp(found + n_same, output, n_output)));
    fv_free(found);
    return FV_OK;
}

/* ---- opening ----------------------------------------------------------------------------- */

static bool journal_fd_is_path(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* The file of that name, locked. A process that has just finished may remove it in between. */
static fv_status journal_lock(fv_journal *j, fv_error *err)
{
    for (int i = 0; i < 100; i++) {
        j->fd = open(j->partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (j->fd < 0)
            return fv_out_errno(err, j->partial, "create");
        if (flock(j->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            close(j->fd); /* the other's: closing the journal would remove it while it is empty */
            j->fd = -1;
            return fv_fail(err, FV_ERR_STATE, 0, "%s: another process is writing this output",
                           j->output);
        }
        if (journal_fd_is_path(j->fd, j->partial))
            return FV_OK;
        close(j->fd);
        j->fd = -1;
    }
    return fv_fail(err, FV_ERR_STATE, 0, "%s: other processes keep writing this output", j->output);
}

static fv_status journal_begin_again(fv_journal *j, const char *manifest, size_t n, fv_error *err)
{
    if (ftruncate(j->fd, 0) != 0) /* first: rows never stand beside a manifest of others */
        return fv_out_errno(err, j->partial, "write");
    j->n_bytes = 0;
    FV_TRY(fv_journal_append(j, HEADER, HEADER_BYTES, err));
    FV_TRY(fv_journal_sync(j, err)); /* nor after a power cut */
    return fv_outfile_put(j->manifest, manifest, n, err);
}

/* Maps the rows that are there. */
static fv_status journal_continue(fv_journal *j, const char *manifest, size_t n, fv_error *err)
{
    FV_TRY(fv_map_open_fd(&j->map, j->fd, 0, 0, j->partial, err));
    if (j->map.size < HEADER_BYTES || memcmp(j->map.data, HEADER, HEADER_BYTES) != 0) {
        fv_map_close(&j->map);
        j->map = (fv_map){ 0 };
        return journal_begin_again(j, manifest, n, err);
    }
    j->at = j->n_bytes = HEADER_BYTES;
    return FV_OK;
}

/* An output without a manifest; an empty directory will do. */
static fv_status journal_refuse_output(const fv_journal *j, fv_error *err)
{
    fv_outdir d;
    if (!fv_is_dir(j->output))
        return fv_fail(err, FV_ERR_IO, 0, "%s: there is such a file already", j->output);
    FV_TRY(fv_outdir_open(&d, j->output, false, NULL, err));
    fv_outdir_abandon(&d);
    return FV_OK;
}

/* What is there, and what it means for this run. */
static fv_status journal_decide(fv_journal *j, const char *manifest, size_t n, bool force,
                                fv_error *err)
{
    struct stat st;
    bool same = false, has_output = fv_is_there(j->output), has_manifest = fv_is_there(j->manifest);
    if (fstat(j->fd, &st) != 0)
        return fv_out_errno(err, j->partial, "read");
    if (has_manifest)
        FV_TRY(manifest_is(j, manifest, n, &same, err));
    if (same && !(has_output && st.st_size == 0))
        return journal_continue(j, manifest, n, err);
    if (same && !force) {
        j->complete = true;
        return journal_check_output(j, err);
    }
    if (!force && has_manifest && (has_output || st.st_size > HEADER_BYTES)) /* or none is lost */
        return manifest_compare(j, manifest, n, err);
    if (!force && has_output)
        FV_TRY(journal_refuse_output(j, err));
    if (!force && st.st_size > HEADER_BYTES)
        return fv_fail(err, FV_ERR_STATE, 0, "%s: rows of a run whose manifest is missing",
                       j->partial);
    return journal_begin_again(j, manifest, n, err);
}

fv_status fv_journal_open(fv_journal *j, const char *output, const char *manifest, size_t n,
                          bool force, const fv_callbacks *callbacks, fv_error *err)
{
    fv_status status = FV_OK;
    *j = (fv_journal){ .fd = -1,
                       .output = fv_out_path(output, ""),
                       .partial = fv_out_path(output, ".partial"),
                       .manifest = fv_out_path(output, ".manifest.json") };
    if (!j->output || !j->partial || !j->manifest)
        status = fv_fail_memory(err, strlen(output), "a path");
    if (status == FV_OK)
        status = journal_lock(j, err);
    if (status == FV_OK) {
        fv_outfile_leftovers(j->output, callbacks);
        fv_outfile_leftovers(j->manifest, callbacks);
    }
    if (status == FV_OK)
        status = journal_decide(j, manifest, n, force, err);
    j->synced_ms = fv_now_ms();
    if (status != FV_OK)
        fv_journal_close(j);
    return status;
}

/* A journal without rows is not left behind. */
void fv_journal_close(fv_journal *j)
{
    struct stat st;
    fv_map_close(&j->map);
    if (j->fd >= 0 && fstat(j->fd, &st) == 0 && st.st_size == 0 && st.st_nlink == 1 &&
        journal_fd_is_path(j->fd, j->partial))
        unlink(j->partial);
    if (j->fd >= 0)
        close(j->fd);
    fv_free(j->output);
    fv_free(j->partial);
    fv_free(j->manifest);
    *j = (fv_journal){ .fd = -1 };
}

/* ---- rows that are there ----------------------------------------------------------------- */

/* The length of the whole line at j->at; 0: there is none. */
static size_t journal_line(const fv_journal *j)
{
    const char *from = (const char *)j->map.data + j->at;
    size_t left = j->map.size - j->at;
    const char *end = left ? memchr(from, '\n', left) : NULL;
    size_t n = end ? (size_t)(end - from) : 0;
    return n && from[n - 1] == '}' && !memchr(from, 0, n) ? n : 0;
}

fv_status fv_journal_next(fv_journal *j, const char *head, size_t n_head, const char **line,
                          size_t *n, fv_error *err)
{
    *line = NULL;
    *n = 0;
    if (!j->map.data)
        return FV_OK;
    *n = journal_line(j);
    if (!*n) { /* what is behind was never finished */
        j->n_bytes = j->at;
        if (j->map.size > j->at && ftruncate(j->fd, (off_t)j->at) != 0)
            return fv_out_errno(err, j->partial, "write");
        fv_map_close(&j->map);
        j->map = (fv_map){ 0 };
        j->at = 0;
        return FV_OK;
    }
    const char *found = (const char *)j->map.data + j->at;
    if (*n < n_head || memcmp(found, head, n_head) != 0)
        return fv_fail(err, FV_ERR_STATE, j->at,
                       "%s: the inputs have changed: the row at byte %zu begins %.*s, and the "
                       "inputs have %.*s",
                       j->partial, j->at, (int)FV_MIN(*n, (size_t)120), found,
                       (int)FV_MIN(n_head, (size_t)120), head);
    *line = found;
    j->at += *n + 1;
    j->n_bytes = j->at;
    return FV_OK;
}

fv_status fv_journal_end(fv_journal *j, fv_error *err)
{
    const char *line;
    size_t n;
    if (!j->map.data)
        return FV_OK;
    if (journal_line(j))
        return fv_fail(err, FV_ERR_STATE, j->at,
                       "%s: the inputs have changed: they have fewer rows than there are here",
                       j->partial);
    return fv_journal_next(j, "", 0, &line, &n, err);
}

/* ---- rows that come ---------------------------------------------------------------------- */

fv_status fv_journal_append(fv_journal *j, const char *line, size_t n, fv_error *err)
{
    while (n > 0) {
        ssize_t done = pwrite(j->fd, line, n, (off_t)j->n_bytes);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done ? errno : ENOSPC;
            return fv_out_errno(err, j->partial, "write");
        }
        line += done;
        n -= (size_t)done;
        j->n_bytes += (uint64_t)done;
    }
    return fv_now_ms() - j->synced_ms < SYNC_MS ? FV_OK : fv_journal_sync(j, err);
}

fv_status fv_journal_sync(fv_journal *j, fv_error *err)
{
    j->synced_ms = fv_now_ms();
    if (fsync(j->fd) != 0 && errno != EINVAL && errno != EROFS)
        return fv_out_errno(err, j->partial, "write");
    return FV_OK;
}

fv_status fv_journal_map(const fv_journal *j, fv_map *map, fv_error *err)
{
    *map = (fv_map){ 0 };
    if (j->n_bytes == HEADER_BYTES)
        return FV_OK;
    return fv_map_open_fd(map, j->fd, HEADER_BYTES, j->n_bytes - HEADER_BYTES, j->partial, err);
}

fv_status fv_journal_finish(fv_journal *j, const char *manifest, size_t n, fv_error *err)
{
    FV_TRY(fv_outfile_put(j->manifest, manifest, n, err));
    return unlink(j->partial) == 0 ? FV_OK : fv_out_errno(err, j->partial, "remove");
}
