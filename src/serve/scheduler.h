/* scheduler: who computes what, and when.
 *
 *     serve_job_submit --images not in the cache--> encoder thread   one image at a time
 *            |                                           |
 *            +--all of them cached, or none--------------+--> prompt thread   those that wait
 *                                                                |   together, each in the session
 *                                                                |   with the longest beginning
 *                                                                +--> decode thread   a token for
 *                                                                     all running answers at once
 *
 * The three share the engine's threads fairly, so that neither a long image nor a long prompt stops
 * other people's tokens. Before each token, encoder block and layer of a prompt a job whose client
 * has gone is dropped. Pieces of an answer are a list that only grows; its connection's thread
 * reads along. */
#ifndef FV_SERVE_SCHEDULER_H
#define FV_SERVE_SCHEDULER_H

#include <pthread.h>

#include "serve/features_cache.h"
#include "serve/metrics.h"
#include "openai/request.h"

typedef struct serve_scheduler serve_scheduler;

typedef struct serve_piece {
    struct serve_piece *next;
    int32_t id; /* -1: no token, the last of the text */
    float logprob;
    const fv_token_logprob *top;
    size_t n_top, n_bytes;
    const char *text; /* complete UTF-8, behind the struct */
} serve_piece;

/* Milliseconds. */
typedef struct serve_timings {
    double queue, image, vision, first_token, total; /* all but the first two: since arrival */
    size_t n_images, n_cached;
} serve_timings;

typedef struct serve_job serve_job;
struct serve_job {
    /* the caller's, before submit; they outlive the job */
    const fv_request *request;
    bool (*gone)(const void *client); /* whether the client has gone; any thread, until the end */
    const void *client;
    fv_mask_fn *mask; /* NULL: none */
    fv_chosen_fn *chosen;
    void *mask_user;
    /* Whether the masks could be computed, asked after each token; NULL: there are none. */
    fv_status (*mask_check)(void *mask_user, fv_error *err);
    bool embed; /* only features are wanted */
    /* results, when serve_job_next has given NULL */
    fv_status status;
    fv_error err;
    fv_finish finish;
    fv_stats stats;
    serve_timings timings;
    fv_features **features; /* [request->n_items]; NULL where there is no image */
    /* the scheduler's */
    serve_scheduler *scheduler;
    serve_job *next;
    serve_piece *first, *last;
    double arrived_ms;
    int place; /* where it is: in a queue, running, done */
    bool leaving;
    pthread_cond_t changed; /* a piece was added, or it is done */
};

typedef struct serve_scheduler_options {
    int n_parallel;      /* answers at once, each with a KV cache */
    int max_context;     /* of each; 0: the model's */
    int max_new_tokens;  /* of an answer; 0: what the context leaves */
    size_t max_queued;   /* jobs beyond those; 0: who cannot be answered now is refused */
    size_t cache_bytes;  /* of encoded images */
    uint64_t max_pixels; /* of an image */
} serve_scheduler_options;

fv_status serve_scheduler_new(serve_scheduler **out, const serve_scheduler_options *options,
                              fv_error *err);
/* From now on jobs are taken. The engine is borrowed. */
fv_status serve_scheduler_start(serve_scheduler *s, fv_engine *engine, fv_error *err);
typedef enum serve_state { SERVE_LOADING, SERVE_READY, SERVE_ENDING } serve_state;
serve_state serve_scheduler_state(serve_scheduler *s);
/* No new jobs. Waits up to wait_ms for those that there are, then cancels them. */
void serve_scheduler_drain(serve_scheduler *s, double wait_ms);
void serve_scheduler_free(serve_scheduler *s); /* after drain; NULL is fine */
void serve_scheduler_count(serve_scheduler *s, serve_counters *out, serve_cache_counts *cache);

/* FV_ERR_STATE: the model is being loaded, or the server ends; FV_ERR_LIMIT: the queue is full.
 * Either way serve_job_leave must follow. */
fv_status serve_job_submit(serve_scheduler *s, serve_job *job, fv_error *err);
/* The piece behind last (NULL: the first), waited for; NULL: the job is done. */
const serve_piece *serve_job_next(serve_job *job, const serve_piece *last);
/* Waits until it is done. */
void serve_job_wait(serve_job *job);
/* Cancels the job unless it is done, and waits until nobody works on it: then its results can be
 * read without the lock. */
void serve_job_cancel(serve_job *job);
/* The same, and frees what it holds. */
void serve_job_leave(serve_job *job);

#endif
