/* Plans a download and carries it out: the calls of fastvlm_pull.h.
 *
 *     open    ask the hub, choose the files, look at what the folder holds
 *     run     check what is complete, fetch the rest in 64 MiB pieces over several connections,
 *             hash behind the first gap meanwhile, name what is right
 *
 * Pieces are given out from the front, so the hash is never far behind the last byte. */
#if defined(FASTVLM_PULL)
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/list.h"
#include "base/outpart.h"
#include "base/report.h"
#include "base/sized.h"
#include "fastvlm_pull.h"
#include "pull/http.h"
#include "pull/hub.h"
#include "pull/part.h"

#define PIECE_BYTES (UINT64_C(64) << 20)
enum { MAX_SLOTS = 16, RETRIES = 5, HASH_STEP = 16 << 20, TICK_MS = 100, SAVE_MS = 1000 };
#define FIRST_WAIT_MS          300.0
#define LONGEST_WAIT_MS        30000.0
#define LONGEST_RETRY_AFTER_MS 60000.0
#define PROGRESS_BYTES         (256 << 10) /* that count as the connection working */

typedef enum file_state { FILE_FETCH, FILE_CHECK, FILE_DONE } file_state;

typedef struct pull_file {
    fv_part part;
    file_state state;
    bool no_ranges;
    bool restarted;
    bool replaces; /* another file has its name, and that has been said */
} pull_file;

/* A piece on a connection. */
typedef struct slot {
    fv_http_job job;
    struct fv_pull *pull;
    pull_file *file;   /* NULL: free */
    uint64_t at, end;  /* still to come */
    uint64_t tried_at; /* `at` when the retries began to count */
    int tries;
    double not_before;
    bool running;
} slot;

struct fv_pull {
    char *repo, *revision, *dir, *endpoint;
    fv_http *http;
    fv_callbacks callbacks;
    int n_slots, retries;
    fv_hub_listing listing;
    pull_file *files;
    slot *slots;
    uint64_t received;
    const char *current; /* name of the file being worked on */
    double told, saved;
    uint32_t jitter;
    fv_error trouble; /* of a write inside a callback */
    bool troubled;
};

/* ---- reporting --------------------------------------------------------------------------- */

static double done_of(const fv_pull *p)
{
    uint64_t total = 0, done = 0;
    for (size_t i = 0; p->files && i < p->listing.n_files; i++) {
        const pull_file *f = &p->files[i];
        total += f->part.file->size;
        done += f->state != FILE_FETCH ? f->part.file->size : fv_part_have(&f->part);
    }
    return total ? (double)done / (double)total : 0;
}

/* Asks whether to go on, ten times a second at most; file is what is being worked on. */
static fv_status tick(fv_pull *p, const char *stage, const char *file, fv_error *err)
{
    double now = fv_now_ms();
    p->current = file;
    if (now - p->told < TICK_MS)
        return FV_OK;
    p->told = now;
    return fv_progress(&p->callbacks, stage, done_of(p), err) == FV_OK
               ? FV_OK
               : fv_fail(err, FV_ERR_CANCELLED, 0, "interrupted; the next run resumes from here");
}

/* How long to wait before try number n (from 1): doubling, a little apart, or what the server asked
 * for. */
static double wait_ms(fv_pull *p, int n, const fv_http_job *job)
{
    double ms = FIRST_WAIT_MS;
    for (int i = 1; i < n && ms < LONGEST_WAIT_MS; i++)
        ms *= 2;
    p->jitter = p->jitter * 1664525u + 1013904223u;
    ms = FV_MIN(ms, LONGEST_WAIT_MS) * (0.75 + (double)(p->jitter >> 8) / (double)(1 << 25));
    if (job->wait_s >= 0)
        ms = FV_MAX(ms, FV_MIN(job->wait_s * 1e3, LONGEST_RETRY_AFTER_MS));
    return ms;
}

static void log_wait(const fv_pull *p, const fv_http_job *job, double ms)
{
    fv_log(&p->callbacks, FV_LOG_INFO, "%s; retrying in %.1f s", job->message, ms / 1e3);
}

static fv_status fail_refused(const fv_pull *p, const fv_http_job *job, const char *file,
                              fv_error *err)
{
    const char *name = job->code_name;
    bool gated = !strcmp(name, "GatedRepo");
    if (job->code == 403 || gated)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: access denied (%d); accept its licence at %s/%s and set HF_TOKEN to a "
                       "token of that account with read access",
                       p->repo, job->code, p->endpoint, p->repo);
    if (job->code == 401)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: access denied (401): the name is wrong, the repository is private or "
                       "gated, or HF_TOKEN is missing or invalid",
                       p->repo);
    if (file)
        return fv_fail(err, FV_ERR_IO, 0, "%s: %s: %s", p->repo, file, job->message);
    if (!strcmp(name, "RevisionNotFound"))
        return fv_fail(err, FV_ERR_IO, 0, "%s: no revision \"%s\" (404); see %s/%s/commits/main",
                       p->repo, p->revision, p->endpoint, p->repo);
    return fv_fail(err, FV_ERR_IO, 0,
                   "%s: no such repository%s (404); is the name right? FastVLM is at "
                   "apple/FastVLM-0.5B, -1.5B, -7B",
                   p->repo, strcmp(p->revision, "main") ? " or revision" : "");
}

/* ---- asking the hub ---------------------------------------------------------------------- */

typedef struct text_sink {
    uint8_t *data;
    size_t n, capacity;
} text_sink;

static bool take_text(void *user, const uint8_t *data, size_t n_bytes)
{
    text_sink *sink = user;
    if (n_bytes > FV_HUB_MAX_BYTES - sink->n)
        return false;
    if (FV_LIST_ROOM(sink->data, sink->n, sink->capacity, n_bytes, NULL) != FV_OK)
        return false;
    memcpy(sink->data + sink->n, data, n_bytes);
    sink->n += n_bytes;
    return true;
}

static fv_status one_request(fv_pull *p, fv_http_job *job, fv_error *err)
{
    FV_TRY(fv_http_start(p->http, job, err));
    while (!fv_http_wait(p->http, TICK_MS))
        if (tick(p, "hub", "", err) != FV_OK) {
            fv_http_drop(p->http, job);
            return FV_ERR_CANCELLED;
        }
    return FV_OK;
}

static fv_status pause_for(fv_pull *p, double ms, fv_error *err)
{
    for (double until = fv_now_ms() + ms; fv_now_ms() < until;) {
        usleep(50000);
        FV_TRY(tick(p, "hub", "", err));
    }
    return FV_OK;
}

static fv_status ask_hub(fv_pull *p, fv_http_job *job, text_sink *sink, fv_error *err)
{
    char revision[1024];
    if (!fv_http_escape(revision, sizeof revision, p->revision, false))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "the revision's name is too long");
    for (int n = 1;; n++) {
        *job = (fv_http_job){ .take = take_text, .user = sink };
        snprintf(job->url, sizeof job->url, "%s/api/models/%s/revision/%s?blobs=true", p->endpoint,
                 p->repo, revision);
        sink->n = 0;
        FV_TRY(one_request(p, job, err));
        if (job->outcome == FV_HTTP_OK)
            return FV_OK;
        if (job->outcome == FV_HTTP_REFUSED)
            return fail_refused(p, job, NULL, err);
        if (job->outcome == FV_HTTP_FAILED && sink->n > 0)
            return fv_fail(err, FV_ERR_LIMIT, 0, "%s: the hub's answer exceeds %d bytes", p->repo,
                           FV_HUB_MAX_BYTES);
        /* a wrong name: at once */
        if (job->outcome != FV_HTTP_AGAIN || job->unknown || (n > p->retries && n == 1))
            return fv_fail(err, FV_ERR_IO, 0, "%s: %s", p->repo, job->message);
        if (n > p->retries)
            return fv_fail(err, FV_ERR_IO, 0, "%s: %s; gave up after %d attempts", p->repo,
                           job->message, n);
        double ms = wait_ms(p, n, job);
        log_wait(p, job, ms);
        FV_TRY(pause_for(p, ms, err));
    }
}

/* ---- the plan ---------------------------------------------------------------------------- */

/* The address of a page is taken for its repository. */
static fv_status take_repo(fv_pull *p, const char *repo, fv_error *err)
{
    size_t n = strlen(p->endpoint);
    if (!strncmp(repo, p->endpoint, n) && repo[n] == '/')
        repo += n + 1;
    if (!fv_hub_repo_ok(repo))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "\"%s\" is not the name of a repository: expected OWNER/NAME, such as "
                       "apple/FastVLM-0.5B",
                       repo);
    p->repo = fv_strdup(repo);
    return p->repo ? FV_OK : fv_fail_memory(err, strlen(repo) + 1, "a name");
}

static fv_status take_options(fv_pull *p, const fv_pull_options *o, fv_error *err)
{
    const char *endpoint = o->endpoint && *o->endpoint ? o->endpoint : "https://huggingface.co";
    const char *revision = o->revision && *o->revision ? o->revision : "main";
    if (!o->repo)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "no repository given");
    if (o->connections < 0 || o->connections > MAX_SLOTS || o->retries < -1 || o->retries > 20)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "connections is %d and retries %d; expected up to %d and -1 to 20",
                       o->connections, o->retries, MAX_SLOTS);
    if (strlen(endpoint) > 1024 || strlen(revision) > 250)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "the hub's address or the revision's name is too long");
    p->endpoint = fv_strdup(endpoint);
    p->revision = fv_strdup(revision);
    if (!p->endpoint || !p->revision)
        return fv_fail_memory(err, 1, "a name");
    for (size_t n = strlen(p->endpoint); n > 0 && p->endpoint[n - 1] == '/'; n--)
        p->endpoint[n - 1] = 0;
    FV_TRY(take_repo(p, o->repo, err));
    const char *slash = strrchr(p->repo, '/');
    p->dir = fv_strdup(o->dir && *o->dir ? o->dir : slash ? slash + 1 : p->repo);
    p->n_slots = o->connections ? o->connections : 4;
    p->retries = o->retries < 0 ? 0 : o->retries ? o->retries : RETRIES;
    p->callbacks = *o->callbacks;
    p->current = "";
    p->jitter = (uint32_t)fv_now_ms();
    p->slots = fv_alloc_zero((size_t)p->n_slots, sizeof *p->slots);
    return p->dir && p->slots ? FV_OK : fv_fail_memory(err, sizeof *p->slots, "the download");
}

static fv_status look_at_folder(fv_pull *p, fv_error *err)
{
    size_t n = p->listing.n_files;
    p->files = fv_alloc_zero(n, sizeof *p->files);
    if (!p->files)
        return fv_fail_memory(err, n * sizeof *p->files, "the plan");
    for (size_t i = 0; i < n; i++)
        p->files[i].part.fd = -1;
    for (size_t i = 0; i < n; i++) {
        pull_file *f = &p->files[i];
        struct stat st;
        FV_TRY(fv_part_init(&f->part, p->dir, &p->listing.files[i], err));
        if (stat(f->part.final, &st) == 0 && S_ISREG(st.st_mode) &&
            (uint64_t)st.st_size == f->part.file->size)
            f->state = FILE_CHECK;
        else
            fv_part_look(&f->part);
    }
    return FV_OK;
}

fv_status fv_pull_open(fv_pull **out, const fv_pull_options *options, fv_error *err)
{
    fv_pull_options o;
    fv_callbacks callbacks;
    fv_status status;
    text_sink sink = { 0 };
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(options, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_pull_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    fv_pull *p = fv_alloc_zero(1, sizeof *p);
    fv_http_job *job = fv_alloc_zero(1, sizeof *job);
    if (!p || !job) {
        status = fv_fail_memory(err, sizeof *p, "the download");
        goto fail;
    }
    FV_TRY_GOTO(take_options(p, &o, err));
    FV_TRY_GOTO(fv_http_new(&p->http, p->endpoint, o.token, o.ca_file, err));
    FV_TRY_GOTO(ask_hub(p, job, &sink, err));
    FV_TRY_GOTO(fv_hub_parse(&p->listing, sink.data, sink.n, p->repo, err));
    FV_TRY_GOTO(look_at_folder(p, err));
    fv_free(sink.data);
    fv_free(job);
    *out = p;
    return FV_OK;

fail:
    fv_free(sink.data);
    fv_free(job);
    fv_pull_free(p);
    return status;
}

void fv_pull_free(fv_pull *p)
{
    if (!p)
        return;
    fv_http_free(p->http);
    for (size_t i = 0; p->files && i < p->listing.n_files; i++)
        fv_part_close(&p->files[i].part);
    fv_hub_free(&p->listing);
    fv_free(p->files);
    fv_free(p->slots);
    fv_free(p->repo);
    fv_free(p->revision);
    fv_free(p->dir);
    fv_free(p->endpoint);
    fv_free(p);
}

/* ---- folder and space -------------------------------------------------------------------- */

static fv_status check_space(const fv_pull *p, fv_error *err)
{
    struct statvfs fs;
    uint64_t need = 0;
    for (size_t i = 0; i < p->listing.n_files; i++) {
        const fv_part *part = &p->files[i].part;
        uint64_t there = fv_part_disk(part);
        if (p->files[i].state == FILE_FETCH && part->file->size > there)
            need += part->file->size - there;
    }
    if (statvfs(p->dir, &fs) != 0)
        return FV_OK; /* then a failing write will say it */
    uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (need > available)
        return fv_fail(err, FV_ERR_IO, 0, "%s: not enough disk space: %.1f MB needed, %.1f MB free",
                       p->dir, (double)need / 1e6, (double)available / 1e6);
    return FV_OK;
}

/* ---- files that are there ---------------------------------------------------------------- */

/* A file that is not the hub's and has the name of one is replaced in the end: says so, once. A
 * directory cannot be. */
static fv_status tell_replaced(fv_pull *p, pull_file *f, fv_error *err)
{
    struct stat st;
    if (f->replaces || f->state != FILE_FETCH || lstat(f->part.final, &st) != 0)
        return FV_OK;
    if (S_ISDIR(st.st_mode))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a directory, expected a file or nothing",
                       f->part.final);
    f->replaces = true;
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size != f->part.file->size)
        fv_log(&p->callbacks, FV_LOG_INFO,
               "%s differs from the hub's (%" PRIu64 " bytes, not %" PRIu64
               "); fetching it again, it will be replaced",
               f->part.final, (uint64_t)st.st_size, f->part.file->size);
    else
        fv_log(&p->callbacks, FV_LOG_INFO,
               "%s differs from the hub's%s; fetching it again, it will be replaced", f->part.final,
               S_ISREG(st.st_mode) ? "" : " (it is not a regular file)");
    return FV_OK;
}

static fv_status check_file(fv_pull *p, pull_file *f, fv_error *err)
{
    char hex[65];
    bool done = false;
    fv_status status = FV_OK;
    int fd = open(f->part.final, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot open: %s", f->part.final, strerror(errno));
    fv_part_hash_begin(&f->part);
    do {
        status = fv_part_hash(&f->part, fd, HASH_STEP, &done, err);
        if (status == FV_OK)
            status = tick(p, "check", f->part.file->name, err);
    } while (status == FV_OK && !done);
    close(fd);
    FV_TRY(status);
    fv_part_digest(&f->part, hex);
    fv_part_hash_begin(&f->part);
    f->state = strcmp(hex, f->part.file->hash) ? FILE_FETCH : FILE_DONE;
    if (f->state == FILE_FETCH)
        fv_part_look(&f->part);
    return FV_OK;
}

/* ---- pieces ------------------------------------------------------------------------------ */

static bool take_bytes(void *user, const uint8_t *data, size_t n_bytes)
{
    slot *s = user;
    fv_pull *p = s->pull;
    if (fv_part_write(&s->file->part, s->at, data, n_bytes, &p->trouble) != FV_OK) {
        p->troubled = true;
        return false;
    }
    s->at += n_bytes;
    p->received += n_bytes;
    return true;
}

/* The next bytes of f that are neither there nor on a connection. */
static bool next_piece(const fv_pull *p, const pull_file *f, fv_range *out)
{
    uint64_t from = 0;
    while (fv_part_gap(&f->part, from, out)) {
        const slot *in = NULL;
        for (int i = 0; i < p->n_slots; i++) {
            const slot *s = &p->slots[i];
            if (s->file != f)
                continue;
            if (s->at <= out->begin && out->begin < s->end)
                in = s;
            else if (s->at > out->begin)
                out->end = FV_MIN(out->end, s->at);
        }
        if (!in) {
            out->end = FV_MIN(out->end, out->begin + PIECE_BYTES);
            return true;
        }
        from = in->end;
    }
    return false;
}

static bool is_busy(const fv_pull *p, const pull_file *f)
{
    for (int i = 0; i < p->n_slots; i++)
        if (p->slots[i].file == f)
            return true;
    return false;
}

static bool find_work(fv_pull *p, slot *s, fv_error *err, fv_status *status)
{
    fv_range piece;
    for (size_t i = 0; i < p->listing.n_files; i++) {
        pull_file *f = &p->files[i];
        if (f->state != FILE_FETCH || (f->no_ranges && is_busy(p, f)))
            continue;
        if ((*status = fv_part_open(&f->part, err)) != FV_OK)
            return false;
        if (!next_piece(p, f, &piece))
            continue;
        if (f->no_ranges) { /* all or nothing */
            fv_part_restart(&f->part);
            piece = (fv_range){ 0, f->part.file->size };
        }
        *s = (slot){
            .pull = p, .file = f, .at = piece.begin, .end = piece.end, .tried_at = piece.begin
        };
        return true;
    }
    return false;
}

static fv_status start_piece(fv_pull *p, slot *s, fv_error *err)
{
    char name[800];
    const fv_hub_file *file = s->file->part.file;
    s->job = (fv_http_job){
        .begin = s->at, .end = s->end, .size = file->size, .take = take_bytes, .user = s
    };
    if (!fv_http_escape(name, sizeof name, file->name, false))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the name is too long", file->name);
    snprintf(s->job.url, sizeof s->job.url, "%s/%s/resolve/%s/%s", p->endpoint, p->repo,
             p->listing.commit, name);
    FV_TRY(fv_http_start(p->http, &s->job, err));
    s->running = true;
    return FV_OK;
}

static fv_status start_pieces(fv_pull *p, fv_error *err)
{
    fv_status status = FV_OK;
    for (int i = 0; i < p->n_slots; i++) {
        slot *s = &p->slots[i];
        if (!s->file && !find_work(p, s, err, &status)) {
            FV_TRY(status);
            continue;
        }
        if (!s->running && fv_now_ms() >= s->not_before)
            FV_TRY(start_piece(p, s, err));
    }
    return FV_OK;
}

/* A connection has ended: the piece is done, waits for another try, or the download fails. */
static fv_status settle_piece(fv_pull *p, slot *s, fv_error *err)
{
    const fv_http_job *job = &s->job;
    const char *name = s->file->part.file->name;
    s->running = false;
    if (p->troubled) {
        *err = p->trouble;
        return p->trouble.status;
    }
    fv_http_outcome outcome = job->outcome;
    if (outcome == FV_HTTP_REFUSED && job->code == 416 && !s->file->no_ranges)
        outcome = FV_HTTP_NO_RANGES; /* of what it has, this range is no part: all of it anew */
    switch (outcome) {
    case FV_HTTP_OK: s->file = NULL; return FV_OK;
    case FV_HTTP_REFUSED: return fail_refused(p, job, name, err);
    case FV_HTTP_NO_RANGES:
        if (!s->file->no_ranges)
            fv_log(&p->callbacks, FV_LOG_INFO,
                   job->code == 416
                       ? "%s: the server refuses the range (416); starting the file over"
                       : "%s: the server does not support ranges; fetching the file in one piece",
                   name);
        s->file->no_ranges = true;
        for (int i = 0; i < p->n_slots; i++)
            if (p->slots[i].file == s->file && &p->slots[i] != s) {
                fv_http_drop(p->http, &p->slots[i].job);
                p->slots[i] = (slot){ 0 };
            }
        fv_part_restart(&s->file->part);
        s->file = NULL;
        return FV_OK;
    case FV_HTTP_AGAIN: break;
    default: return fv_fail(err, FV_ERR_IO, 0, "%s: %s: %s", p->repo, name, job->message);
    }
    if (s->at - s->tried_at >= PROGRESS_BYTES || s->file->no_ranges) {
        s->tries = s->file->no_ranges ? s->tries : 0;
        s->tried_at = s->at;
    }
    if (++s->tries > p->retries)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: %s: %s; gave up after %d attempts, the next run resumes from here",
                       p->repo, name, job->message, s->tries);
    double ms = wait_ms(p, s->tries, job);
    s->not_before = fv_now_ms() + ms;
    if (s->file->no_ranges) { /* from the front */
        fv_part_restart(&s->file->part);
        s->at = s->tried_at = 0;
        s->end = s->file->part.file->size;
    }
    log_wait(p, job, ms);
    return FV_OK;
}

/* ---- hashing behind the first gap -------------------------------------------------------- */

static fv_status judge_hash(fv_pull *p, pull_file *f, fv_error *err)
{
    char hex[65];
    fv_part_digest(&f->part, hex);
    if (!strcmp(hex, f->part.file->hash)) {
        FV_TRY(tell_replaced(p, f, err)); /* one that has come meanwhile */
        FV_TRY(fv_part_finish(&f->part, err));
        f->state = FILE_DONE;
        return FV_OK;
    }
    if (f->part.resumed && !f->restarted) {
        f->restarted = true;
        fv_part_restart(&f->part);
        fv_log(&p->callbacks, FV_LOG_INFO,
               "%s: the partial file of an earlier run does not match; starting over",
               f->part.path);
        return FV_OK;
    }
    fv_part_remove(&f->part);
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   "%s: %s does not have the %s that the hub states: expected %.16s..., found "
                   "%.16s...; the download was removed; try again, or without the proxy or "
                   "mirror in between",
                   p->repo, f->part.file->name, f->part.file->sha256 ? "SHA-256" : "git hash",
                   f->part.file->hash, hex);
}

/* *more: there is hashing to do at once. */
static fv_status hash_some(fv_pull *p, bool *more, fv_error *err)
{
    *more = false;
    for (size_t i = 0; i < p->listing.n_files; i++) {
        pull_file *f = &p->files[i];
        fv_range gap;
        bool done;
        if (f->state != FILE_FETCH || f->part.fd < 0)
            continue;
        uint64_t before = f->part.n_hashed;
        FV_TRY(fv_part_hash(&f->part, -1, HASH_STEP, &done, err));
        *more |= f->part.n_hashed - before == HASH_STEP;
        if (done && !fv_part_gap(&f->part, 0, &gap) && !is_busy(p, f)) {
            FV_TRY(judge_hash(p, f, err));
            *more = true;
        }
    }
    return FV_OK;
}

static fv_status save_records(fv_pull *p, fv_error *err)
{
    if (fv_now_ms() - p->saved < SAVE_MS)
        return FV_OK;
    p->saved = fv_now_ms();
    for (size_t i = 0; i < p->listing.n_files; i++)
        if (p->files[i].part.fd >= 0)
            FV_TRY(fv_part_save(&p->files[i].part, err));
    return FV_OK;
}

static const char *current_name(const fv_pull *p)
{
    for (int i = 0; i < p->n_slots; i++)
        if (p->slots[i].file)
            return p->slots[i].file->part.file->name;
    return "";
}

static bool all_done(const fv_pull *p)
{
    for (size_t i = 0; i < p->listing.n_files; i++)
        if (p->files[i].state != FILE_DONE)
            return false;
    return true;
}

static fv_status fetch_all(fv_pull *p, fv_error *err)
{
    bool more = false;
    while (!all_done(p)) {
        fv_http_job *job;
        FV_TRY(start_pieces(p, err));
        for (int wait = more ? 0 : TICK_MS; (job = fv_http_wait(p->http, wait)); wait = 0)
            FV_TRY(settle_piece(p, job->user, err));
        FV_TRY(hash_some(p, &more, err));
        FV_TRY(save_records(p, err));
        FV_TRY(tick(p, "fetch", current_name(p), err));
    }
    return FV_OK;
}

/* In the folder, which is locked. */
static fv_status pull_into_folder(fv_pull *p, fv_error *err)
{
    fv_status status = FV_OK;
    fv_error own;
    int lock = open(p->dir, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (lock < 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot open: %s", p->dir, strerror(errno));
    if (flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        status = fv_fail(err, FV_ERR_STATE, 0,
                         "%s: another download into this directory is running", p->dir);
        goto fail;
    }
    for (size_t i = 0; i < p->listing.n_files; i++)
        if (p->files[i].state == FILE_CHECK)
            FV_TRY_GOTO(check_file(p, &p->files[i], err));
    for (size_t i = 0; i < p->listing.n_files; i++)
        FV_TRY_GOTO(tell_replaced(p, &p->files[i], err));
    FV_TRY_GOTO(check_space(p, err));
    status = fetch_all(p, err);
    fsync(lock); /* the new names */

fail:
    for (int i = 0; i < p->n_slots; i++) {
        fv_http_drop(p->http, &p->slots[i].job);
        p->slots[i] = (slot){ 0 };
    }
    for (size_t i = 0; i < p->listing.n_files; i++) {
        fv_part *part = &p->files[i].part;
        if (part->fd >= 0 && fv_part_have(part) == 0)
            fv_part_remove(part); /* nothing to resume */
        else if (part->fd >= 0 && fv_part_save(part, &own) != FV_OK && status == FV_OK) {
            *err = own;
            status = own.status;
        } else if (status == FV_OK)
            fv_part_remove(part); /* of an earlier run, whose file has come another way since */
    }
    close(lock);
    return status;
}

fv_status fv_pull_run(fv_pull *pull, fv_error *err)
{
    size_t n_made;
    fv_error own;
    FV_REQUIRE(pull, err);
    err = err ? err : &own;
    char *inside = fv_path_join(pull->dir, ".");
    if (!inside)
        return fv_fail_memory(err, strlen(pull->dir), "a path");
    fv_status status = fv_out_make_parents(inside, &n_made, err);
    if (status == FV_OK)
        status = pull_into_folder(pull, err);
    if (status != FV_OK)
        fv_out_remove_parents(inside, n_made); /* as far as nothing is in them */
    fv_free(inside);
    return status;
}

/* ---- what a caller may know -------------------------------------------------------------- */

static fv_pull_file_info file_info(const pull_file *f)
{
    uint64_t size = f->part.file->size;
    return (fv_pull_file_info){ .name = f->part.file->name,
                                .n_bytes = size,
                                .have_bytes = f->state == FILE_FETCH ? fv_part_have(&f->part)
                                                                     : size,
                                .hash = f->part.file->hash,
                                .sha256 = f->part.file->sha256 };
}

bool fv_pull_file(const fv_pull *p, size_t index, fv_pull_file_info *out)
{
    if (!p || index >= p->listing.n_files)
        return false;
    fv_pull_file_info info = file_info(&p->files[index]);
    return fv_result_out(out, &info, sizeof info);
}

void fv_pull_describe(const fv_pull *p, fv_pull_info *out)
{
    if (!p)
        return;
    fv_pull_info info = { .repo = p->repo,
                          .revision = p->revision,
                          .dir = p->dir,
                          .commit = p->listing.commit,
                          .license = p->listing.license,
                          .license_file = p->listing.license_file,
                          .gated = p->listing.gated,
                          .n_files = p->listing.n_files,
                          .received_bytes = p->received,
                          .current = p->current };
    for (size_t i = 0; i < p->listing.n_files; i++) {
        fv_pull_file_info f = file_info(&p->files[i]);
        info.total_bytes += f.n_bytes;
        info.have_bytes += f.have_bytes;
    }
    fv_result_out(out, &info, sizeof info);
}
#else
/* A build without libcurl keeps the names and says what it is. */
#include "base/sized.h"
#include "fastvlm_pull.h"

fv_status fv_pull_open(fv_pull **out, const fv_pull_options *options, fv_error *err)
{
    (void)options;
    FV_REQUIRE(out, err);
    *out = NULL;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "this build cannot download: it was made with FASTVLM_PULL=OFF");
}

void fv_pull_free(fv_pull *pull) { (void)pull; }

fv_status fv_pull_run(fv_pull *pull, fv_error *err)
{
    (void)pull;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "this build cannot download: it was made with FASTVLM_PULL=OFF");
}

void fv_pull_describe(const fv_pull *pull, fv_pull_info *out)
{
    fv_pull_info nothing = { 0 };
    (void)pull;
    fv_result_out(out, &nothing, sizeof nothing);
}

bool fv_pull_file(const fv_pull *pull, size_t index, fv_pull_file_info *out)
{
    (void)pull;
    (void)index;
    (void)out;
    return false;
}
#endif
