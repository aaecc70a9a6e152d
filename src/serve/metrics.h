/* metrics: what a server has done, counted; written as Prometheus reads it. Not locked: the
 * scheduler guards its own. */
#ifndef FV_SERVE_METRICS_H
#define FV_SERVE_METRICS_H

#include "base/base.h"

enum { SERVE_BUCKETS = 12 };

/* Seconds, in buckets from 1 ms to 60 s. */
typedef struct serve_histogram {
    uint64_t bucket[SERVE_BUCKETS + 1]; /* the last: longer */
    double sum;
} serve_histogram;

void serve_observe(serve_histogram *h, double ms);

typedef struct serve_counters {
    /* jobs: all that were taken = done + failed + cancelled + those queued and running */
    uint64_t taken, done, failed, cancelled, refused;
    uint64_t prompt_tokens, reused_tokens, new_tokens;
    uint64_t images_encoded, images_cached;
    uint64_t prompt_batches, prompts;   /* prompts / batches: how many run together */
    uint64_t decode_steps, decode_rows; /* rows / steps: answers that decode together */
    size_t queued, running;
    serve_histogram queue, image, vision, first_token, decode, total;
} serve_counters;

/* Text in the exposition format, version 0.0.4. */
typedef struct serve_text {
    char *text;
    size_t n, capacity;
    bool failed; /* memory was out */
} serve_text;

void serve_text_add(serve_text *t, const char *format, ...) FV_PRINTF(2, 3);
void serve_write_counter(serve_text *t, const char *name, const char *help, const char *kind,
                         uint64_t value);
void serve_write_counters(serve_text *t, const serve_counters *c);

#endif
