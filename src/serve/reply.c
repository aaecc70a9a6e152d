/* Answers and errors as OpenAI's protocol has them. See reply.h. */
#include "serve/reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "openai/completion.h"
#include "openai/failure.h"

void serve_put_time(fv_json_text *j, const char *key)
{
    char text[40];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
    fv_json_put_text(j, key, text);
}

void serve_reply_json(serve_call *call, int status, fv_json_text *j)
{
    static const char no_memory[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,"
        "\"code\":\"unavailable\"}}\n";
    if (fv_json_done(j, NULL) == FV_OK)
        serve_reply(call, status, "application/json", j->text, j->n);
    else
        serve_reply(call, 503, "application/json", no_memory, sizeof no_memory - 1);
    fv_json_text_free(j);
}

void serve_reply_error(serve_call *call, int status, const char *code, const char *message)
{
    fv_json_text j = { .compact = true };
    if (!strncmp(call->path, "/api/", 5)) {
        fv_json_begin(&j, NULL, '{');
        fv_json_put_text(&j, "error", message);
        fv_json_end(&j);
    } else {
        fv_openai_put_error(&j, NULL, status, code, message);
    }
    if (status == 503 || status == 429)
        serve_header(call, "Retry-After", "1");
    serve_reply_json(call, status, &j);
}

void serve_reply_failure(serve_call *call, const fv_error *err)
{
    const char *code;
    int status = fv_openai_status(err, &code);
    serve_reply_error(call, status, code, err->message);
}

/* ---- answers ---- */

void serve_answer_free(serve_answer *a)
{
    if (!a)
        return;
    serve_job_leave(&a->job);
    fv_constraint_free(a->constraint);
    fv_request_free(&a->request);
    fv_json_text_free(&a->out);
    fv_free(a);
}

char *serve_answer_text(const serve_answer *a, size_t *n)
{
    *n = 0;
    for (const serve_piece *p = a->job.first; p; p = p->next)
        *n += p->n_bytes;
    char *text = fv_alloc(*n + 1, 1), *at = text;
    for (const serve_piece *p = a->job.first; text && p; p = p->next) {
        memcpy(at, p->text, p->n_bytes);
        at += p->n_bytes;
    }
    if (text)
        *at = 0;
    return text;
}

size_t serve_answer_read(void *user, char *to, size_t capacity)
{
    serve_answer *a = user;
    while (a->n_taken == a->out.n && !a->over) {
        a->out.n = a->n_taken = 0;
        const serve_piece *piece = serve_job_next(&a->job, a->last);
        if (piece) {
            a->dialect->piece(a, piece);
            a->last = piece;
        } else {
            a->dialect->end(a);
            a->over = true;
        }
        if (a->out.failed)
            return 0; /* cut off: what follows would not fit what was sent */
    }
    size_t n = FV_MIN(a->out.n - a->n_taken, capacity);
    memcpy(to, a->out.text + a->n_taken, n);
    a->n_taken += n;
    return n;
}

/* ---- OpenAI's objects ---- */

static double to_microseconds(double ms) { return round(ms * 1e3) / 1e3; }

static void rate_put(fv_json_text *j, const char *prefix, int n, double ms)
{
    char key[40];
    snprintf(key, sizeof key, "%s_n", prefix);
    fv_json_put_int(j, key, n);
    snprintf(key, sizeof key, "%s_ms", prefix);
    fv_json_put_real(j, key, to_microseconds(ms));
    snprintf(key, sizeof key, "%s_per_token_ms", prefix);
    fv_json_put_real(j, key, n > 0 ? to_microseconds(ms / n) : 0);
    snprintf(key, sizeof key, "%s_per_second", prefix);
    fv_json_put_real(j, key, ms > 0 ? to_microseconds(n / ms * 1e3) : 0);
}

/* The first ten as llama.cpp's server has them, then what an image costs. */
static void timings_put(fv_json_text *j, const serve_answer *a)
{
    const fv_stats *s = &a->job.stats;
    const serve_timings *t = &a->job.timings;
    fv_json_begin(j, "timings", '{');
    fv_json_put_int(j, "cache_n", s->reused_tokens);
    rate_put(j, "prompt", s->prompt_tokens - s->reused_tokens, s->prefill_ms);
    rate_put(j, "predicted", s->new_tokens, s->decode_ms);
    fv_json_put_int(j, "images_n", (int64_t)t->n_images);
    fv_json_put_int(j, "images_cached_n", (int64_t)t->n_cached);
    fv_json_put_real(j, "queue_ms", to_microseconds(t->queue));
    fv_json_put_real(j, "image_ms", to_microseconds(t->image));
    fv_json_put_real(j, "vision_ms", to_microseconds(t->vision));
    fv_json_put_real(j, "first_token_ms", to_microseconds(t->first_token));
    fv_json_put_real(j, "total_ms", to_microseconds(t->total));
    fv_json_end(j);
}

/* A token that ends inside a character has bytes that are not text alone. */
static void token_put(fv_json_text *j, const serve_answer *a, int32_t id, double logprob)
{
    size_t n = 0;
    const char *text = fv_engine_token_text(a->engine, id, &n);
    fv_json_put_bytes(j, "token", text ? text : "", text ? n : 0);
    /* forbidden: OpenAI's smallest */
    fv_json_put_real(j, "logprob", logprob > -9999 ? logprob : -9999);
    fv_json_begin(j, "bytes", '[');
    for (size_t i = 0; text && i < n; i++)
        fv_json_put_int(j, NULL, (uint8_t)text[i]);
    fv_json_end(j);
}

static void logprobs_put_piece(fv_json_text *j, const serve_answer *a, const serve_piece *p)
{
    if (p->id < 0 || isnan(p->logprob))
        return;
    fv_json_begin(j, NULL, '{');
    token_put(j, a, p->id, (double)p->logprob);
    fv_json_begin(j, "top_logprobs", '[');
    for (size_t i = 0; i < p->n_top && i < (size_t)a->request.n_top_logprobs; i++) {
        fv_json_begin(j, NULL, '{');
        token_put(j, a, p->top[i].id, (double)p->top[i].logprob);
        fv_json_end(j);
    }
    fv_json_end(j);
    fv_json_end(j);
}

/* Pieces from first up to, and with, last. */
static void logprobs_put(fv_json_text *j, const serve_answer *a, const serve_piece *first,
                         const serve_piece *last)
{
    if (!a->request.logprobs) {
        fv_json_put_text(j, "logprobs", NULL);
        return;
    }
    fv_json_begin(j, "logprobs", '{');
    fv_json_begin(j, "content", '[');
    for (const serve_piece *p = first; p; p = p == last ? NULL : p->next)
        logprobs_put_piece(j, a, p);
    fv_json_end(j);
    fv_json_put_text(j, "refusal", NULL);
    fv_json_end(j);
}

/* ---- a stream: server-sent events ---- */

static void text_put(fv_json_text *j, const char *text) { fv_json_line(j, text, strlen(text)); }

/* "data: {"; usage is null in all chunks but its own, when it was asked for. */
static void chunk_begin(serve_answer *a, bool usage)
{
    fv_json_text *j = &a->out;
    fv_json_put_json(j, NULL, "data: ", 6);
    fv_json_begin(j, NULL, '{');
    fv_openai_put_head(j, "chat.completion.chunk", a->id, a->created, a->model);
    if (a->request.include_usage && !usage)
        fv_json_put_text(j, "usage", NULL);
}

static void chunk_end(serve_answer *a)
{
    fv_json_end(&a->out);
    text_put(&a->out, "\n");
}

static void choice_begin(serve_answer *a)
{
    fv_json_begin(&a->out, "choices", '[');
    fv_json_begin(&a->out, NULL, '{');
    fv_json_put_int(&a->out, "index", 0);
}

static void choice_end(serve_answer *a, const char *finish)
{
    fv_json_put_text(&a->out, "finish_reason", finish);
    fv_json_end(&a->out);
    fv_json_end(&a->out);
}

static void delta_write(serve_answer *a, const char *role, const serve_piece *piece)
{
    fv_json_text *j = &a->out;
    chunk_begin(a, false);
    choice_begin(a);
    fv_json_begin(j, "delta", '{');
    if (role)
        fv_json_put_text(j, "role", role);
    fv_json_put_bytes(j, "content", piece ? piece->text : "", piece ? piece->n_bytes : 0);
    fv_json_end(j);
    if (piece)
        logprobs_put(j, a, piece, piece);
    choice_end(a, NULL);
    chunk_end(a);
}

static void openai_piece(serve_answer *a, const serve_piece *piece)
{
    if (!a->begun)
        delta_write(a, "assistant", NULL);
    a->begun = true;
    if (piece->n_bytes || (a->request.logprobs && piece->id >= 0))
        delta_write(a, NULL, piece);
}

static void openai_end(serve_answer *a)
{
    fv_json_text *j = &a->out;
    if (a->job.status != FV_OK) {
        const char *code;
        int status = fv_openai_status(&a->job.err, &code);
        fv_json_put_json(j, NULL, "data: ", 6);
        fv_openai_put_error(j, NULL, status, code, a->job.err.message);
        text_put(j, "\n");
    } else {
        chunk_begin(a, false);
        choice_begin(a);
        fv_json_begin(j, "delta", '{');
        fv_json_end(j);
        choice_end(a, fv_openai_finish(a->job.finish));
        timings_put(j, a);
        chunk_end(a);
        if (a->request.include_usage) {
            chunk_begin(a, true);
            fv_json_begin(j, "choices", '[');
            fv_json_end(j);
            fv_openai_put_usage(j, &a->job.stats);
            chunk_end(a);
        }
    }
    text_put(j, "data: [DONE]\n");
}

/* ---- one object ---- */

static void openai_whole(serve_answer *a)
{
    fv_json_text *j = &a->out;
    size_t n = 0;
    char *text = serve_answer_text(a, &n);
    j->failed = j->failed || !text;
    fv_json_begin(j, NULL, '{');
    fv_openai_put_head(j, "chat.completion", a->id, a->created, a->model);
    choice_begin(a);
    fv_openai_put_message(j, text ? text : "", n);
    logprobs_put(j, a, a->job.first, NULL);
    choice_end(a, fv_openai_finish(a->job.finish));
    fv_openai_put_usage(j, &a->job.stats);
    timings_put(j, a);
    fv_json_end(j);
    fv_free(text);
}

const serve_dialect serve_openai = { "text/event-stream", openai_piece, openai_end, openai_whole };
