/* Files sent to the phone. See device_push.h. */
#include "device/device_push.h"

#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/report.h"
#include "device/shell_text.h"

enum { MAX_FILES = 256, SENDS = 2 };
#define RESERVE_BYTES (UINT64_C(8) << 20) /* of the phone's space, that is left free */
#define HASH_BYTES    ((size_t)4 << 20)   /* between two looks whether to go on */

/* ---------------------------------------------------------------- the set */

static fv_status file_hash(fv_push_file *f, const fv_callbacks *callbacks, fv_error *err)
{
    uint8_t digest[FV_SHA256_BYTES];
    fv_sha256 sha;
    fv_map map;

    FV_TRY(fv_map_open(&map, f->local, err));
    fv_status status = FV_OK;
    fv_sha256_begin(&sha);
    for (size_t at = 0; at < map.size && status == FV_OK; at += HASH_BYTES) {
        fv_sha256_add(&sha, map.data + at, FV_MIN(HASH_BYTES, map.size - at));
        status = fv_progress(callbacks, "hash", (double)at / (double)map.size, err);
    }
    fv_sha256_end(&sha, digest);
    fv_hex(f->sha256, digest, sizeof digest);
    f->n_bytes = map.size;
    fv_map_close(&map);
    return status;
}

fv_status fv_push_add(fv_push_set *set, const char *local, const char *remote, bool program,
                      const fv_callbacks *callbacks, fv_error *err)
{
    if (set->n == MAX_FILES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "more than %d files for the phone", MAX_FILES);
    FV_TRY(FV_LIST_ROOM(set->list, set->n, set->capacity, 1, err));
    fv_push_file f = { .local = fv_strdup(local), .remote = fv_strdup(remote), .program = program };
    fv_status status = f.local && f.remote ? file_hash(&f, callbacks, err)
                                           : fv_fail_memory(err, strlen(local), "a path");
    if (status == FV_OK) {
        set->list[set->n++] = f;
    } else {
        fv_free(f.local);
        fv_free(f.remote);
    }
    return status;
}

void fv_push_set_free(fv_push_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        fv_free(set->list[i].local);
        fv_free(set->list[i].remote);
    }
    fv_free(set->list);
    *set = (fv_push_set){ 0 };
}

char *fv_push_name(const char *local)
{
    const char *slash = strrchr(local, '/');
    char *name = fv_strdup(slash ? slash + 1 : local);
    for (char *c = name; c && *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || *c == '.' || *c == '_' || (*c == '-' && c > name);
        *c = plain ? *c : '_';
    }
    return name;
}

/* ---------------------------------------------------------------- what is there */

/* What the phone says of a file: by its manifest, and by stat. */
typedef struct remote_file {
    bool entered, found;
    char sha256[2 * FV_SHA256_BYTES + 1];
    uint64_t entered_bytes, entered_time, found_bytes, found_time;
} remote_file;

static fv_push_file *file_find(const fv_push_set *set, const char *remote, size_t n, size_t *index)
{
    for (size_t i = 0; i < set->n; i++)
        if (strlen(set->list[i].remote) == n && memcmp(set->list[i].remote, remote, n) == 0) {
            *index = i;
            return &set->list[i];
        }
    return NULL;
}

/* A number and the blank behind it; false when it is none. */
static bool number_take(const char **at, const char *end, uint64_t *out)
{
    uint64_t value = 0;
    const char *begin = *at;
    for (; *at < end && **at >= '0' && **at <= '9' && *at - begin < 19; ++*at)
        value = value * 10 + (uint64_t)(**at - '0');
    *out = value;
    return *at > begin && *at < end && *(*at)++ == ' ';
}

static void manifest_line(remote_file *files, const fv_push_set *set, const char *at,
                          const char *end)
{
    const size_t digits = 2 * FV_SHA256_BYTES;
    uint64_t n_bytes, time;
    size_t index;

    if ((size_t)(end - at) < digits + 1 || at[digits] != ' ')
        return;
    const char *sha256 = at;
    at += digits + 1;
    if (!number_take(&at, end, &n_bytes) || !number_take(&at, end, &time) ||
        !file_find(set, at, (size_t)(end - at), &index))
        return;
    remote_file *f = &files[index];
    f->entered = true;
    memcpy(f->sha256, sha256, digits);
    f->sha256[digits] = '\0';
    f->entered_bytes = n_bytes;
    f->entered_time = time;
}

static void stat_line(remote_file *files, const fv_push_set *set, const char *at, const char *end)
{
    uint64_t n_bytes, time;
    size_t index;

    if (!number_take(&at, end, &n_bytes) || !number_take(&at, end, &time) ||
        !file_find(set, at, (size_t)(end - at), &index))
        return;
    files[index].found = true;
    files[index].found_bytes = n_bytes;
    files[index].found_time = time;
}

/* The manifest's lines, "--", lines of stat, "end". */
static bool answer_read(remote_file *files, const fv_push_set *set, const char *text,
                        size_t n_bytes)
{
    bool stats = false, whole = false;

    while (n_bytes > 0 && !whole) {
        const char *end = memchr(text, '\n', n_bytes);
        size_t n = end ? (size_t)(end - text) : n_bytes, step = n + (end != NULL);
        if (n == 2 && memcmp(text, "--", 2) == 0)
            stats = true;
        else if (n == 3 && memcmp(text, "end", 3) == 0)
            whole = true;
        else if (stats)
            stat_line(files, set, text, text + n);
        else
            manifest_line(files, set, text, text + n);
        text += step;
        n_bytes -= step;
    }
    return whole;
}

fv_status fv_push_answer_parse(fv_push_set *set, bool *unsure, const char *text, size_t n_bytes,
                               fv_error *err)
{
    remote_file *files = fv_alloc_zero(set->n + 1, sizeof *files);
    if (!files)
        return fv_fail_memory(err, set->n * sizeof *files, "the phone's files");
    bool whole = answer_read(files, set, text, n_bytes);
    for (size_t i = 0; i < set->n; i++) {
        const remote_file *r = &files[i];
        fv_push_file *f = &set->list[i];
        bool as_entered = r->found && r->entered && r->found_bytes == r->entered_bytes &&
                          r->found_time == r->entered_time;
        f->there = as_entered && r->found_bytes == f->n_bytes && strcmp(r->sha256, f->sha256) == 0;
        unsure[i] = !f->there && !as_entered && r->found && r->found_bytes == f->n_bytes;
    }
    fv_free(files);
    return whole ? FV_OK
                 : fv_fail(err, FV_ERR_FORMAT, 0,
                           "the phone's answer about its files is not complete");
}

/* A line for the manifest in place of an older one. $sum is what sha256sum said. */
static void text_enter(fv_shell_text *t, const fv_push_file *f)
{
    fv_shell_add(t,
                 "{ grep -v ' %s$' " FV_DEVICE_MANIFEST
                 " 2>/dev/null; echo \"${sum%%%% *} $(stat -c "
                 "'%%s %%Y' %s) %s\"; } >" FV_DEVICE_MANIFEST ".new && mv -f " FV_DEVICE_MANIFEST
                 ".new " FV_DEVICE_MANIFEST,
                 f->remote, f->remote, f->remote);
}

/* Those that are unsure, or with verify all that are there, hashed by the phone. */
static fv_status push_hash_there(fv_push_set *set, const bool *unsure, const fv_adb *adb,
                                 const char *dir, bool verify, fv_error *err)
{
    for (size_t i = 0; i < set->n; i++) {
        fv_push_file *f = &set->list[i];
        fv_shell_text text = { 0 };
        if (!unsure[i] && !(verify && f->there))
            continue;
        fv_shell_add(&text, "cd ");
        fv_shell_quote(&text, dir);
        fv_shell_add(&text, " && sum=$(sha256sum %s) && case \"$sum\" in %s*) ", f->remote,
                     f->sha256);
        if (!f->there)
            text_enter(&text, f);
        fv_shell_add(&text, "%secho same;; esac", f->there ? "" : " && ");
        fv_status status = fv_shell_done(&text, err);
        const fv_adb_call call = { .command = text.text };
        fv_spawn_result result = { 0 };
        if (status == FV_OK)
            status = fv_adb_shell(adb, &call, &result, err);
        f->there = status == FV_OK && result.out && strncmp(result.out, "same", 4) == 0;
        fv_spawn_result_free(&result);
        fv_shell_text_free(&text);
        FV_TRY(status);
    }
    return FV_OK;
}

fv_status fv_push_look(fv_push_set *set, const fv_adb *adb, const char *dir, bool verify,
                       fv_error *err)
{
    fv_shell_text text = { 0 };
    bool *unsure = fv_alloc_zero(set->n + 1, sizeof *unsure);
    char *answer = NULL;

    if (!unsure)
        return fv_fail_memory(err, set->n, "the phone's files");
    fv_shell_add(&text, "if cd ");
    fv_shell_quote(&text, dir);
    fv_shell_add(&text, " 2>/dev/null; then cat " FV_DEVICE_MANIFEST " 2>/dev/null; echo --");
    for (size_t i = 0; i < set->n; i++)
        fv_shell_add(&text, "; stat -c '%%s %%Y %%n' %s 2>/dev/null", set->list[i].remote);
    fv_shell_add(&text, "; fi; echo end");
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(adb, text.text, "its files cannot be listed", &answer, err);
    if (status == FV_OK)
        status = fv_push_answer_parse(set, unsure, answer, strlen(answer), err);
    if (status == FV_OK)
        status = push_hash_there(set, unsure, adb, dir, verify, err);
    fv_free(answer);
    fv_free(unsure);
    fv_shell_text_free(&text);
    return status;
}

uint64_t fv_push_bytes(const fv_push_set *set, size_t *n_files)
{
    uint64_t n_bytes = 0;
    *n_files = 0;
    for (size_t i = 0; i < set->n; i++)
        if (!set->list[i].there) {
            n_bytes += set->list[i].n_bytes;
            ++*n_files;
        }
    return n_bytes;
}

/* ---------------------------------------------------------------- sending */

/* The directories of all files, and the phone's own. */
static fv_status push_make_dirs(const fv_push_set *set, const fv_adb *adb, const char *dir,
                                fv_error *err)
{
    fv_shell_text text = { 0 };

    fv_shell_add(&text, "mkdir -p ");
    fv_shell_quote(&text, dir);
    fv_shell_add(&text, " && cd ");
    fv_shell_quote(&text, dir);
    for (size_t i = 0; i < set->n; i++) {
        const char *slash = strrchr(set->list[i].remote, '/');
        if (slash)
            fv_shell_add(&text, " && mkdir -p %.*s", (int)(slash - set->list[i].remote),
                         set->list[i].remote);
    }
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(adb, text.text, "a directory cannot be made", NULL, err);
    fv_shell_text_free(&text);
    return status;
}

/* What was sent is compared there, takes its place and is entered; *same: it was what we have. */
static fv_status file_settle(const fv_push_file *f, const fv_adb *adb, const char *dir, bool *same,
                             fv_error *err)
{
    fv_shell_text text = { 0 };
    char *answer = NULL;

    fv_shell_add(&text, "cd ");
    fv_shell_quote(&text, dir);
    fv_shell_add(&text,
                 " && sum=$(sha256sum %s.part) && case \"$sum\" in\n"
                 "%s*) chmod %s %s.part && mv -f %s.part %s && ",
                 f->remote, f->sha256, f->program ? "755" : "644", f->remote, f->remote, f->remote);
    text_enter(&text, f);
    fv_shell_add(&text, " && echo same;;\n*) rm -f %s.part; echo differs;; esac", f->remote);
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(adb, text.text, f->remote, &answer, err);
    *same = status == FV_OK && strncmp(answer, "same", 4) == 0;
    fv_free(answer);
    fv_shell_text_free(&text);
    return status;
}

static fv_status file_send(const fv_push_file *f, const fv_adb *adb, const char *dir, fv_error *err)
{
    fv_shell_text part = { 0 };
    bool same = false;

    fv_shell_add(&part, "%s/%s.part", dir, f->remote);
    fv_status status = fv_shell_done(&part, err);
    for (int i = 0; i < SENDS && status == FV_OK && !same; i++) {
        if (i > 0)
            fv_log(adb->callbacks, FV_LOG_WARNING,
                   "%s: arrived on the phone with other bytes, sent again", f->local);
        status = fv_adb_push(adb, f->local, part.text, err);
        if (status == FV_OK)
            status = file_settle(f, adb, dir, &same, err);
    }
    if (status == FV_OK && !same)
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: %s: arrived with other bytes %d times (by SHA-256); check cable and "
                         "storage",
                         adb->serial, f->local, SENDS);
    fv_shell_text_free(&part);
    return status;
}

fv_status fv_push_send(fv_push_set *set, const fv_adb *adb, const char *dir, uint64_t free_bytes,
                       fv_error *err)
{
    size_t n_files;
    uint64_t n_bytes = fv_push_bytes(set, &n_files), done = 0;
    fv_adb sending = *adb;

    if (n_files == 0)
        return FV_OK;
    if (free_bytes && n_bytes + RESERVE_BYTES > free_bytes)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: %" PRIu64 " MB are to be sent, %" PRIu64 " MB are free in %s",
                       adb->serial, (n_bytes + 999999) / 1000000, free_bytes / 1000000, dir);
    sending.stage = "push";
    FV_TRY(push_make_dirs(set, &sending, dir, err));
    for (size_t i = 0; i < set->n; i++) {
        fv_push_file *f = &set->list[i];
        if (f->there)
            continue;
        sending.done = (double)done / (double)(n_bytes ? n_bytes : 1);
        FV_TRY(file_send(f, &sending, dir, err));
        f->there = true;
        done += f->n_bytes;
    }
    return FV_OK;
}
