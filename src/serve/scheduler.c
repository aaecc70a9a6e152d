/* Who computes what, and when. See scheduler.h. */
#include "serve/scheduler.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cond.h"
#include "base/list.h"

enum {
    WORKER_STACK_BYTES = 8 << 20,
    MAX_PARALLEL = 256,
    /* Of prompts that go together, about: what the engine takes through the model at once. With
     * more the first would wait for the last and gain nothing. */
    PROMPT_ROWS = 512,
    TURN_ROWS = 8, /* control tokens around an item, about */
    GONE_MS = 200  /* between two looks at whether the client of a job that waits is there */
};

enum { PLACE_NONE, PLACE_QUEUED, PLACE_RUNNING, PLACE_DONE };

typedef struct job_queue {
    serve_job *first, **end;
} job_queue;

/* A session and the conversation that it holds. */
typedef struct slot {
    fv_session *session;                  /* NULL: none yet */
    char *system;                         /* NULL: the default one */
    uint8_t (*keys)[FV_SHA256_BYTES + 1]; /* [n_keys], of its items: digest and kind */
    size_t n_keys, keys_capacity;
    serve_job *job; /* NULL: idle */
    uint64_t used;  /* higher: later */
} slot;

struct serve_scheduler {
    serve_scheduler_options options;
    fv_engine *engine;
    serve_cache *cache;
    pthread_t encoder, prompter, decoder;
    int n_threads;
    pthread_mutex_t lock;   /* of everything below, and of jobs' results until they are done */
    pthread_cond_t changed; /* queues, sessions, n_jobs: what the threads wait for */
    job_queue to_encode, to_prompt;
    slot *slots;                      /* [n_parallel] */
    serve_job *running[MAX_PARALLEL]; /* those that decode */
    slot *running_slot[MAX_PARALLEL];
    size_t n_running;
    size_t n_jobs; /* not done */
    uint64_t clock;
    bool draining, stopping, cancel_all;
    serve_counters counters;
};

static void queue_push(job_queue *q, serve_job *job)
{
    job->next = NULL;
    *(q->end ? q->end : &q->first) = job;
    q->end = &job->next;
}

static bool queue_remove(job_queue *q, serve_job *job)
{
    serve_job **at = &q->first;
    while (*at && *at != job)
        at = &(*at)->next;
    if (!*at)
        return false;
    *at = job->next;
    if (q->end == &job->next)
        q->end = at;
    return true;
}

/* ---- jobs ---- */

/* Whether to stop working on it. */
static bool job_is_dropped(const serve_job *job)
{
    serve_scheduler *s = job->scheduler;
    pthread_mutex_lock(&s->lock);
    bool dropped = job->leaving || s->cancel_all;
    pthread_mutex_unlock(&s->lock);
    return dropped || job->gone(job->client);
}

static fv_status job_fail_gone(fv_error *err)
{
    return fv_fail(err, FV_ERR_CANCELLED, 0, "the client has closed the connection");
}

/* Why it was dropped: its client may be there and read this. */
static fv_status job_fail_dropped(const serve_job *job, fv_error *err)
{
    serve_scheduler *s = job->scheduler;
    pthread_mutex_lock(&s->lock);
    bool ends = s->cancel_all && !job->leaving;
    pthread_mutex_unlock(&s->lock);
    return ends ? fv_fail(err, FV_ERR_CANCELLED, 0, "the server is shutting down")
                : job_fail_gone(err);
}

/* With the lock. */
static void job_finish(serve_job *job, fv_status status, const fv_error *err)
{
    serve_scheduler *s = job->scheduler;
    serve_counters *c = &s->counters;
    c->queued -= job->place == PLACE_QUEUED;
    c->running -= job->place == PLACE_RUNNING;
    job->place = PLACE_DONE;
    job->status = status;
    if (status != FV_OK && err)
        job->err = *err;
    job->timings.total = fv_now_ms() - job->arrived_ms;
    c->done += status == FV_OK;
    c->cancelled += status == FV_ERR_CANCELLED;
    c->failed += status != FV_OK && status != FV_ERR_CANCELLED;
    if (status == FV_OK)
        serve_observe(&c->total, job->timings.total);
    s->n_jobs--;
    pthread_cond_broadcast(&s->changed);
    pthread_cond_broadcast(&job->changed);
}

/* Those that wait for nobody. With the lock. */
static void queue_prune(job_queue *q)
{
    for (serve_job *job = q->first, *next; job; job = next) {
        next = job->next;
        if (!job->gone(job->client))
            continue;
        fv_error err;
        queue_remove(q, job);
        job_finish(job, job_fail_gone(&err), &err);
    }
}

fv_status serve_job_submit(serve_scheduler *s, serve_job *job, fv_error *err)
{
    bool all = true;
    size_t n = job->request->n_items;
    job->arrived_ms = fv_now_ms();
    job->features = fv_alloc_zero(n, sizeof *job->features);
    if (!job->features)
        return fv_fail_memory(err, n * sizeof *job->features, "a request");
    for (size_t i = 0; i < n; i++) {
        const fv_request_item *item = &job->request->items[i];
        if (item->kind != FV_REQUEST_IMAGE)
            continue;
        job->features[i] = serve_cache_find(s->cache, item->digest);
        all = all && job->features[i];
        job->timings.n_cached += job->features[i] != NULL;
        job->timings.n_images++;
    }
    pthread_mutex_lock(&s->lock);
    fv_status status = FV_OK;
    const size_t most = (size_t)s->options.n_parallel + s->options.max_queued;
    if (s->n_jobs >= most) {
        queue_prune(&s->to_encode);
        queue_prune(&s->to_prompt);
    }
    if (!s->engine || s->draining)
        status = fv_fail(err, FV_ERR_STATE, 0,
                         s->draining ? "the server is shutting down" : "the model is being loaded");
    else if (s->n_jobs >= most)
        status = fv_fail(err, FV_ERR_LIMIT, 0,
                         "%zu requests are under way or waiting, as many as may be", s->n_jobs);
    if (status == FV_OK) {
        job->scheduler = s;
        fv_cond_init(&job->changed);
        job->place = PLACE_QUEUED;
        s->n_jobs++;
        s->counters.taken++;
        s->counters.queued++;
        queue_push(all && !job->embed ? &s->to_prompt : &s->to_encode, job);
        pthread_cond_broadcast(&s->changed);
    } else {
        s->counters.refused++;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* For the job to change. One that has not begun leaves when its client has. With the lock. */
static void job_watch(serve_job *job)
{
    serve_scheduler *s = job->scheduler;
    fv_error err;
    fv_cond_wait_until(&job->changed, &s->lock, fv_now_ms() + GONE_MS);
    if (job->place == PLACE_QUEUED && job->gone(job->client) &&
        (queue_remove(&s->to_encode, job) || queue_remove(&s->to_prompt, job)))
        job_finish(job, job_fail_gone(&err), &err);
}

const serve_piece *serve_job_next(serve_job *job, const serve_piece *last)
{
    serve_scheduler *s = job->scheduler;
    pthread_mutex_lock(&s->lock);
    while (job->place != PLACE_DONE && !(last ? last->next : job->first))
        job_watch(job);
    const serve_piece *piece = last ? last->next : job->first;
    pthread_mutex_unlock(&s->lock);
    return piece;
}

void serve_job_wait(serve_job *job)
{
    serve_scheduler *s = job->scheduler;
    pthread_mutex_lock(&s->lock);
    while (job->place != PLACE_DONE)
        job_watch(job);
    pthread_mutex_unlock(&s->lock);
}

void serve_job_cancel(serve_job *job)
{
    serve_scheduler *s = job->scheduler;
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    job->leaving = true;
    if (job->place == PLACE_QUEUED &&
        (queue_remove(&s->to_encode, job) || queue_remove(&s->to_prompt, job))) {
        fv_error err;
        job_finish(job, job_fail_gone(&err), &err);
    }
    while (job->place != PLACE_DONE)
        pthread_cond_wait(&job->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

void serve_job_leave(serve_job *job)
{
    serve_job_cancel(job);
    if (job->scheduler)
        pthread_cond_destroy(&job->changed);
    for (size_t i = 0; job->features && i < job->request->n_items; i++)
        fv_features_free(job->features[i]);
    fv_free(job->features);
    for (serve_piece *piece = job->first, *next; piece; piece = next) {
        next = piece->next;
        fv_free(piece);
    }
    *job = (serve_job){ 0 };
}

/* What the session has chosen, copied behind the pieces that are there. */
static fv_status job_add_piece(serve_job *job, const fv_piece *from, fv_error *err)
{
    serve_scheduler *s = job->scheduler;
    if (job->mask_check)
        FV_TRY(job->mask_check(job->mask_user, err));
    size_t top_bytes = from->n_top * sizeof *from->top;
    serve_piece *piece = fv_alloc(1, sizeof *piece + top_bytes + from->n_bytes);
    if (!piece)
        return fv_fail_memory(err, sizeof *piece + top_bytes + from->n_bytes, "a piece of text");
    bool end_token = from->done && from->finish == FV_FINISH_STOP; /* no part of the text */
    fv_token_logprob *top = (void *)(piece + 1);
    char *text = (char *)top + top_bytes;
    *piece = (serve_piece){ .id = end_token ? -1 : from->id,
                            .logprob = from->logprob,
                            .top = top,
                            .n_top = from->n_top,
                            .n_bytes = from->n_bytes,
                            .text = text };
    if (top_bytes)
        memcpy(top, from->top, top_bytes);
    if (from->n_bytes)
        memcpy(text, from->text, from->n_bytes);
    pthread_mutex_lock(&s->lock);
    if (!job->first) {
        job->timings.first_token = fv_now_ms() - job->arrived_ms;
        serve_observe(&s->counters.first_token, job->timings.first_token);
    }
    *(job->last ? &job->last->next : &job->first) = piece;
    job->last = piece;
    s->counters.new_tokens += from->id >= 0;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&s->lock);
    return FV_OK;
}

/* The job leaves its queue and runs. With the lock. */
static void job_unqueue(serve_job *job, job_queue *from)
{
    serve_scheduler *s = job->scheduler;
    queue_remove(from, job);
    if (job->timings.queue == 0) {
        job->timings.queue = fv_now_ms() - job->arrived_ms;
        serve_observe(&s->counters.queue, job->timings.queue);
    }
    s->counters.queued--;
    s->counters.running++;
    job->place = PLACE_RUNNING;
}

/* ---- the encoder ---- */

static bool encode_progress(void *user, const char *stage, double done)
{
    (void)stage;
    (void)done;
    return job_is_dropped(user);
}

/* A message that names the image by its place in the request, and nothing of this machine; what the
 * client cannot change is not advised. */
static fv_status image_fail(const fv_request_item *item, const fv_error *why, fv_error *err)
{
    static const char in_memory[] = "image in memory: ";
    const char *message = why->message;
    if (!strncmp(message, in_memory, sizeof in_memory - 1))
        message += sizeof in_memory - 1;
    const char *advice = strstr(message, " or raise max_pixels");
    int n = advice ? (int)(advice - message) : (int)strlen(message);
    return fv_fail(err, why->status, why->at, "request: %s: %.*s", item->place, n, message);
}

static fv_status item_encode(serve_scheduler *s, serve_job *job, const fv_request_item *item,
                             fv_features **out, fv_error *err)
{
    fv_image_options image_options;
    fv_encode_options options;
    fv_image *image;
    fv_error why;
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = encode_progress, .user = job };
    fv_image_options_default(&image_options);
    fv_encode_options_default(&options);
    image_options.max_pixels = s->options.max_pixels;
    options.callbacks = &callbacks;
    double start = fv_now_ms();
    if (fv_image_read(&image, item->image, item->n_image, &image_options, &why) != FV_OK)
        return image_fail(item, &why, err);
    double read = fv_now_ms();
    fv_status status = fv_encode(s->engine, image, &options, out, &why);
    fv_image_free(image);
    if (status == FV_ERR_CANCELLED)
        return job_fail_dropped(job, err);
    if (status != FV_OK)
        return image_fail(item, &why, err);
    double end = fv_now_ms();
    serve_cache_add(s->cache, item->digest, *out);
    job->timings.image += read - start;
    job->timings.vision += end - read;
    pthread_mutex_lock(&s->lock);
    s->counters.images_encoded++;
    serve_observe(&s->counters.image, read - start);
    serve_observe(&s->counters.vision, end - read);
    pthread_mutex_unlock(&s->lock);
    return FV_OK;
}

static fv_status images_encode(serve_scheduler *s, serve_job *job, fv_error *err)
{
    for (size_t i = 0; i < job->request->n_items; i++) {
        const fv_request_item *item = &job->request->items[i];
        if (item->kind != FV_REQUEST_IMAGE || job->features[i])
            continue;
        if (job_is_dropped(job))
            return job_fail_dropped(job, err);
        job->features[i] = serve_cache_find(s->cache, item->digest); /* since it was submitted */
        if (job->features[i])
            job->timings.n_cached++;
        else
            FV_TRY(item_encode(s, job, item, &job->features[i], err));
    }
    return FV_OK;
}

/* The first that has images to encode; NULL: the scheduler stops. With the lock. */
static serve_job *encode_wait(serve_scheduler *s)
{
    while (!s->stopping && !s->to_encode.first)
        pthread_cond_wait(&s->changed, &s->lock);
    return s->stopping ? NULL : s->to_encode.first;
}

static void *encoder_run(void *user)
{
    serve_scheduler *s = user;
    serve_job *job;
    pthread_mutex_lock(&s->lock);
    while ((job = encode_wait(s))) {
        job_unqueue(job, &s->to_encode);
        pthread_mutex_unlock(&s->lock);
        fv_error err;
        fv_status status = images_encode(s, job, &err);
        pthread_mutex_lock(&s->lock);
        s->counters.images_cached += job->embed ? job->timings.n_cached : 0;
        if (status != FV_OK || job->embed) {
            job_finish(job, status, &err);
            continue;
        }
        s->counters.running--;
        s->counters.queued++;
        job->place = PLACE_QUEUED;
        queue_push(&s->to_prompt, job);
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- sessions ---- */

static bool slot_progress(void *user, const char *stage, double done)
{
    const slot *at = user;
    (void)done;
    return strcmp(stage, "decode") != 0 && at->job && job_is_dropped(at->job);
}

static void slot_forget(slot *at)
{
    fv_session_free(at->session);
    fv_free(at->system);
    at->session = NULL;
    at->system = NULL;
    at->n_keys = 0;
}

static bool slot_has_system(const slot *at, const char *system)
{
    return at->session && (!system ? !at->system : at->system && !strcmp(at->system, system));
}

static void key_of_item(const fv_request_item *item, uint8_t key[FV_SHA256_BYTES + 1])
{
    memcpy(key, item->digest, FV_SHA256_BYTES);
    key[FV_SHA256_BYTES] = (uint8_t)item->kind;
}

/* Items from the start on that both conversations have. */
static size_t slot_common(const slot *at, const fv_request *request)
{
    size_t n = 0;
    uint8_t key[FV_SHA256_BYTES + 1];
    for (; n < at->n_keys && n < request->n_items; n++) {
        key_of_item(&request->items[n], key);
        if (memcmp(key, at->keys[n], sizeof key) != 0)
            break;
    }
    return n;
}

/* The idle session that holds most of the conversation already; of several, and of those that hold
 * nothing of it, an empty one before the one that was used longest ago. With the lock. */
static slot *slot_choose(serve_scheduler *s, const fv_request *request)
{
    slot *best = NULL;
    size_t best_common = 0;
    for (int i = 0; i < s->options.n_parallel; i++) {
        slot *at = &s->slots[i];
        size_t common = slot_has_system(at, request->system) ? slot_common(at, request) : 0;
        if (!at->job &&
            (!best || common > best_common || (common == best_common && at->used < best->used))) {
            best = at;
            best_common = common;
        }
    }
    return best;
}

static fv_status slot_prepare(serve_scheduler *s, slot *at, const char *system, fv_error *err)
{
    fv_session_options options;
    if (slot_has_system(at, system))
        return FV_OK;
    slot_forget(at);
    at->system = system ? fv_strdup(system) : NULL;
    if (system && !at->system)
        return fv_fail_memory(err, strlen(system), "the system prompt");
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = slot_progress, .user = at };
    fv_session_options_default(&options);
    options.max_context = s->options.max_context;
    options.system = at->system;
    options.n_system_bytes = system ? strlen(system) : 0;
    options.exact_reuse = true; /* the same answer, whatever was asked before */
    options.callbacks = &callbacks;
    return fv_session_new(&at->session, s->engine, &options, err);
}

static fv_status slot_write(slot *at, const serve_job *job, fv_error *err)
{
    const fv_request *request = job->request;
    fv_session_reset(at->session);
    at->n_keys = 0;
    FV_TRY(FV_LIST_ROOM(at->keys, 0, at->keys_capacity, request->n_items, err));
    for (size_t i = 0; i < request->n_items; i++) {
        const fv_request_item *item = &request->items[i];
        fv_status status = item->kind == FV_REQUEST_IMAGE
                               ? fv_session_add_features(at->session, job->features[i], err)
                           : item->kind == FV_REQUEST_ANSWER
                               ? fv_session_add_answer(at->session, item->text, item->n_bytes, err)
                               : fv_session_add_text(at->session, item->text, item->n_bytes, err);
        if (status != FV_OK)
            return status;
        key_of_item(item, at->keys[at->n_keys++]);
    }
    return FV_OK;
}

static fv_status slot_begin(serve_scheduler *s, slot *at, const serve_job *job, fv_error *err)
{
    fv_answer_options options = job->request->answer;
    if (job->request->random_seed)
        (void)!getentropy(&options.seed, sizeof options.seed);
    if (s->options.max_new_tokens &&
        (!options.max_new_tokens || options.max_new_tokens > s->options.max_new_tokens))
        options.max_new_tokens = s->options.max_new_tokens;
    options.mask = job->mask;
    options.chosen = job->chosen;
    options.mask_user = job->mask_user;
    return fv_session_begin(at->session, &options, err);
}

/* The job is over, its session idle. */
static void slot_end(serve_scheduler *s, slot *at, fv_status status, const fv_error *err)
{
    serve_job *job = at->job;
    fv_stats stats = { .size = sizeof stats };
    pthread_mutex_lock(&s->lock);
    if (job->first) { /* before, the session's are another answer's */
        fv_session_stats(at->session, &stats);
        s->counters.prompt_tokens += (uint64_t)stats.prompt_tokens;
        s->counters.reused_tokens += (uint64_t)stats.reused_tokens;
    }
    job->stats = stats;
    at->job = NULL;
    at->used = ++s->clock;
    job_finish(job, status, err);
    pthread_mutex_unlock(&s->lock);
}

/* ---- prompts ---- */

/* Items from the start on that both requests have, of conversations with the same system prompt. */
static size_t request_common(const fv_request *a, const fv_request *b)
{
    size_t n = 0;
    if (!a->system != !b->system || (a->system && strcmp(a->system, b->system) != 0))
        return 0;
    while (n < a->n_items && n < b->n_items && a->items[n].kind == b->items[n].kind &&
           !memcmp(a->items[n].digest, b->items[n].digest, FV_SHA256_BYTES))
        n++;
    return n;
}

/* About how many rows of a prompt are to be run, in this session and beside those of n others. */
static size_t prompt_rows(const slot *at, const serve_job *job, slot *const *others, size_t n)
{
    const fv_request *request = job->request;
    size_t common = slot_has_system(at, request->system) ? slot_common(at, request) : 0;
    size_t rows = TURN_ROWS, n_image;
    for (size_t i = 0; i < n; i++)
        common = FV_MAX(common, request_common(others[i]->job->request, request));
    for (size_t i = common; i < request->n_items; i++) {
        n_image = 0;
        if (request->items[i].kind == FV_REQUEST_IMAGE)
            fv_features_rows(job->features[i], &n_image, NULL);
        rows += TURN_ROWS + n_image + request->items[i].n_bytes / 4;
    }
    return rows;
}

/* Jobs that wait and fit a pass together, each with a session; one alone if it is longer. The first
 * session, whose buffers all use, is the lowest, so that few grow large ones. Returns how many.
 * With the lock. */
static size_t prompts_take(serve_scheduler *s, slot **slots)
{
    size_t n = 0, rows = 0;
    serve_job *job;
    slot *at;
    while ((job = s->to_prompt.first) && (at = slot_choose(s, job->request))) {
        rows += prompt_rows(at, job, slots, n);
        if (n && rows > PROMPT_ROWS)
            break;
        job_unqueue(job, &s->to_prompt);
        at->job = job;
        s->counters.images_cached += job->timings.n_cached;
        slots[n++] = at;
        if (at < slots[0]) {
            slots[n - 1] = slots[0];
            slots[0] = at;
        }
    }
    return n;
}

/* The conversation is written, its answer may begin. */
static fv_status slot_pose(serve_scheduler *s, slot *at, fv_error *err)
{
    serve_job *job = at->job;
    if (job_is_dropped(job))
        return job_fail_dropped(job, err);
    FV_TRY(slot_prepare(s, at, job->request->system, err));
    FV_TRY(slot_write(at, job, err));
    return slot_begin(s, at, job, err);
}

/* What went wrong with one of n prompts, in its own words. err is about one of them: where there
 * are several, a prompt that is too long is asked again by itself, which runs nothing and says
 * so. */
static void prompt_explain(serve_scheduler *s, slot *at, fv_status status, size_t n, fv_error *err)
{
    fv_piece piece = { .size = sizeof piece };
    if (status == FV_ERR_CANCELLED)
        (void)job_fail_dropped(at->job, err);
    else if (status == FV_ERR_LIMIT && n > 1 && slot_pose(s, at, err) == FV_OK)
        (void)fv_session_next(at->session, &piece, err);
    if (err->status != status)
        (void)fv_fail(err, status, 0, "the answer ended: %s", fv_status_name(status));
}

/* Their first tokens are there, or they have failed: answers that go on are decoded from now on. */
static void prompt_end(serve_scheduler *s, slot *at, const fv_piece *piece, fv_status status,
                       fv_error *err)
{
    serve_job *job = at->job;
    if (status == FV_OK)
        status = job_add_piece(job, piece, err);
    if (status != FV_OK || piece->done) {
        job->finish = piece->finish;
        slot_end(s, at, status, err);
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->running[s->n_running] = job;
    s->running_slot[s->n_running++] = at;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void prompts_run(serve_scheduler *s, slot **slots, size_t n_slots)
{
    fv_session *sessions[MAX_PARALLEL];
    fv_piece pieces[MAX_PARALLEL];
    fv_status statuses[MAX_PARALLEL];
    fv_error err, own;
    size_t n = 0;
    for (size_t i = 0; i < n_slots; i++) {
        fv_status status = slot_pose(s, slots[i], &own);
        if (status != FV_OK) {
            slot_end(s, slots[i], status, &own);
            continue;
        }
        sessions[n] = slots[i]->session;
        pieces[n] = (fv_piece){ .size = sizeof *pieces };
        slots[n++] = slots[i];
    }
    if (!n)
        return;
    (void)fv_sessions_next(sessions, n, pieces, statuses, &err); /* how each fared is in statuses */
    pthread_mutex_lock(&s->lock);
    s->counters.prompt_batches++;
    s->counters.prompts += n;
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < n; i++) {
        own = err;
        if (statuses[i] != FV_OK)
            prompt_explain(s, slots[i], statuses[i], n, &own);
        prompt_end(s, slots[i], &pieces[i], statuses[i], &own);
    }
}

static void *prompter_run(void *user)
{
    serve_scheduler *s = user;
    slot *slots[MAX_PARALLEL];
    pthread_mutex_lock(&s->lock);
    while (!s->stopping) {
        size_t n = prompts_take(s, slots);
        if (!n) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        prompts_run(s, slots, n);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- decoding ---- */

/* Those that are over leave; the rest move up. With the lock. */
static void running_remove(serve_scheduler *s, const slot *at)
{
    for (size_t i = 0; i < s->n_running; i++)
        if (s->running_slot[i] == at) {
            s->running[i] = s->running[--s->n_running];
            s->running_slot[i] = s->running_slot[s->n_running];
            return;
        }
}

static void decode_end(serve_scheduler *s, slot *at, fv_status status, const fv_error *err)
{
    pthread_mutex_lock(&s->lock);
    running_remove(s, at);
    pthread_mutex_unlock(&s->lock);
    slot_end(s, at, status, err);
}

/* A token for each of n sessions. What ends one of them is found by itself: its own message. */
static void decode_step(serve_scheduler *s, slot **slots, size_t n)
{
    fv_session *sessions[MAX_PARALLEL];
    fv_piece pieces[MAX_PARALLEL];
    fv_status statuses[MAX_PARALLEL];
    fv_error err;
    double start = fv_now_ms();
    for (size_t i = 0; i < n; i++) {
        sessions[i] = slots[i]->session;
        pieces[i] = (fv_piece){ .size = sizeof *pieces };
        statuses[i] = FV_OK;
    }
    fv_status status = fv_sessions_next(sessions, n, pieces, statuses, &err);
    pthread_mutex_lock(&s->lock);
    s->counters.decode_steps++;
    s->counters.decode_rows += n;
    serve_observe(&s->counters.decode, fv_now_ms() - start);
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < n; i++) {
        fv_error own = err;
        if (status == FV_OK && statuses[i] != FV_OK)
            fv_fail(&own, statuses[i], 0, "the answer ended: %s", fv_status_name(statuses[i]));
        fv_status result = statuses[i] != FV_OK ? statuses[i]
                                                : job_add_piece(slots[i]->job, &pieces[i], &own);
        if (result == FV_OK && !pieces[i].done)
            continue;
        slots[i]->job->finish = pieces[i].finish;
        decode_end(s, slots[i], result, &own);
    }
}

static void *decoder_thread(void *user)
{
    serve_scheduler *s = user;
    for (;;) {
        slot *slots[MAX_PARALLEL];
        pthread_mutex_lock(&s->lock);
        while (!s->n_running && !s->stopping)
            pthread_cond_wait(&s->changed, &s->lock);
        size_t n = s->n_running, kept = 0;
        memcpy(slots, s->running_slot, n * sizeof *slots);
        pthread_mutex_unlock(&s->lock);
        if (!n)
            return NULL;
        for (size_t i = 0; i < n; i++) {
            fv_error err;
            if (job_is_dropped(slots[i]->job))
                decode_end(s, slots[i], job_fail_dropped(slots[i]->job, &err), &err);
            else
                slots[kept++] = slots[i];
        }
        if (kept)
            decode_step(s, slots, kept);
    }
}

/* ---- the scheduler ---- */

fv_status serve_scheduler_new(serve_scheduler **out, const serve_scheduler_options *options,
                              fv_error *err)
{
    serve_scheduler *s = *out = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "the scheduler");
    s->options = *options;
    s->options.n_parallel = FV_MIN(FV_MAX(options->n_parallel, 1), MAX_PARALLEL);
    pthread_mutex_init(&s->lock, NULL);
    fv_cond_init(&s->changed);
    s->slots = fv_alloc_zero((size_t)s->options.n_parallel, sizeof *s->slots);
    fv_status status = s->slots ? serve_cache_new(&s->cache, options->cache_bytes, err)
                                : fv_fail_memory(err, sizeof *s->slots, "sessions");
    if (status != FV_OK) {
        serve_scheduler_free(s);
        *out = NULL;
    }
    return status;
}

fv_status serve_scheduler_start(serve_scheduler *s, fv_engine *engine, fv_error *err)
{
    pthread_attr_t attributes;
    struct worker {
        pthread_t *thread;
        void *(*run)(void *user);
    } workers[] = { { &s->encoder, encoder_run },
                    { &s->prompter, prompter_run },
                    { &s->decoder, decoder_thread } };
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, WORKER_STACK_BYTES);
    while (s->n_threads < (int)FV_COUNT(workers) &&
           pthread_create(workers[s->n_threads].thread, &attributes, workers[s->n_threads].run,
                          s) == 0)
        s->n_threads++;
    pthread_attr_destroy(&attributes);
    if (s->n_threads < (int)FV_COUNT(workers))
        return fv_fail(err, FV_ERR_MEMORY, 0, "the system gives no more threads");
    pthread_mutex_lock(&s->lock);
    s->engine = engine;
    pthread_mutex_unlock(&s->lock);
    return FV_OK;
}

serve_state serve_scheduler_state(serve_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    serve_state state = s->draining ? SERVE_ENDING : s->engine ? SERVE_READY : SERVE_LOADING;
    pthread_mutex_unlock(&s->lock);
    return state;
}

void serve_scheduler_drain(serve_scheduler *s, double wait_ms)
{
    double until = fv_now_ms() + wait_ms;
    pthread_mutex_lock(&s->lock);
    s->draining = true;
    while (s->n_jobs && fv_cond_wait_until(&s->changed, &s->lock, until))
        ;
    s->cancel_all = true;
    while (s->n_jobs)
        pthread_cond_wait(&s->changed, &s->lock);
    s->stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void serve_scheduler_free(serve_scheduler *s)
{
    if (!s)
        return;
    pthread_t *threads[] = { &s->encoder, &s->prompter, &s->decoder };
    for (int i = 0; i < s->n_threads; i++)
        pthread_join(*threads[i], NULL);
    for (int i = 0; s->slots && i < s->options.n_parallel; i++) {
        slot_forget(&s->slots[i]);
        fv_free(s->slots[i].keys);
    }
    fv_free(s->slots);
    serve_cache_free(s->cache);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    fv_free(s);
}

void serve_scheduler_count(serve_scheduler *s, serve_counters *out, serve_cache_counts *cache)
{
    pthread_mutex_lock(&s->lock);
    *out = s->counters;
    pthread_mutex_unlock(&s->lock);
    *cache = serve_cache_count(s->cache);
}
