/* Counters as Prometheus reads them. See metrics.h. */
#include "serve/metrics.h"

#include <stdio.h>

#include "base/list.h"
#include "base/number.h"

static const double bucket_s[SERVE_BUCKETS] = { 0.001, 0.005, 0.01, 0.05, 0.1, 0.25,
                                                0.5,   1,     2.5,  5,    10,  60 };

void serve_observe(serve_histogram *h, double ms)
{
    size_t i = 0;
    while (i < SERVE_BUCKETS && ms / 1e3 > bucket_s[i])
        i++;
    h->bucket[i]++;
    h->sum += ms / 1e3;
}

void serve_text_add(serve_text *t, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = fv_format_list(line, sizeof line, format, args);
    va_end(args);
    n = FV_MIN(n, (int)sizeof line - 1);
    t->failed = t->failed || FV_LIST_ROOM(t->text, t->n, t->capacity, (size_t)n, NULL) != FV_OK;
    for (int i = 0; i < n && !t->failed; i++)
        t->text[t->n++] = line[i];
}

static void metric_head(serve_text *t, const char *name, const char *help, const char *kind)
{
    serve_text_add(t, "# HELP fastvlm_%s %s\n# TYPE fastvlm_%s %s\n", name, help, name, kind);
}

void serve_write_counter(serve_text *t, const char *name, const char *help, const char *kind,
                         uint64_t value)
{
    metric_head(t, name, help, kind);
    serve_text_add(t, "fastvlm_%s %" PRIu64 "\n", name, value);
}

static void histogram_write(serve_text *t, const char *name, const char *help,
                            const serve_histogram *h)
{
    uint64_t sum = 0;
    metric_head(t, name, help, "histogram");
    for (size_t i = 0; i < SERVE_BUCKETS; i++) {
        sum += h->bucket[i];
        serve_text_add(t, "fastvlm_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bucket_s[i], sum);
    }
    sum += h->bucket[SERVE_BUCKETS];
    serve_text_add(t, "fastvlm_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, sum);
    serve_text_add(t, "fastvlm_%s_sum %.6f\nfastvlm_%s_count %" PRIu64 "\n", name, h->sum, name,
                   sum);
}

static void outcome_write(serve_text *t, const char *outcome, uint64_t value)
{
    serve_text_add(t, "fastvlm_jobs_total{outcome=\"%s\"} %" PRIu64 "\n", outcome, value);
}

void serve_write_counters(serve_text *t, const serve_counters *c)
{
    metric_head(t, "jobs_total", "Answers and embeddings by outcome.", "counter");
    outcome_write(t, "done", c->done);
    outcome_write(t, "failed", c->failed);
    outcome_write(t, "cancelled", c->cancelled);
    outcome_write(t, "refused", c->refused);
    serve_write_counter(t, "jobs_taken_total", "Answers and embeddings taken on.", "counter",
                        c->taken);
    serve_write_counter(t, "jobs_queued", "Waiting for the encoder or a session.", "gauge",
                        c->queued);
    serve_write_counter(t, "jobs_running", "In the encoder or answering.", "gauge", c->running);
    serve_write_counter(t, "prompt_tokens_total", "Rows of prompts, image tokens included.",
                        "counter", c->prompt_tokens);
    serve_write_counter(t, "reused_tokens_total", "Of them, found in a KV cache.", "counter",
                        c->reused_tokens);
    serve_write_counter(t, "new_tokens_total", "Tokens chosen.", "counter", c->new_tokens);
    serve_write_counter(t, "images_encoded_total", "Images that went through the encoder.",
                        "counter", c->images_encoded);
    serve_write_counter(t, "images_cached_total", "Images found in the cache.", "counter",
                        c->images_cached);
    serve_write_counter(t, "prompt_batches_total", "Runs of the decoder over prompts.", "counter",
                        c->prompt_batches);
    serve_write_counter(t, "prompts_total", "Prompts in them: prompts over batches run together.",
                        "counter", c->prompts);
    serve_write_counter(t, "decode_steps_total", "Passes over the decoder's weights.", "counter",
                        c->decode_steps);
    serve_write_counter(t, "decode_rows_total", "Answers in them: rows over steps decode together.",
                        "counter", c->decode_rows);
    histogram_write(t, "queue_seconds", "From a request's arrival to its first work.", &c->queue);
    histogram_write(t, "image_seconds", "Decoding of an image's file.", &c->image);
    histogram_write(t, "vision_seconds", "Encoding of an image.", &c->vision);
    histogram_write(t, "first_token_seconds", "From a request's arrival to its first token.",
                    &c->first_token);
    histogram_write(t, "decode_step_seconds", "A token of every running answer.", &c->decode);
    histogram_write(t, "request_seconds", "From a request's arrival to its last token.", &c->total);
}
