/* A model over HTTP: opening and closing, what every request must pass, the access log. See
 * serve.h. */
#include "serve/server.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "serve/guard.h"
#if defined(FASTVLM_SERVE)
#include "serve/microhttpd_load.h"
#endif

enum { CLOSE_MS = 5000, LOGGED_BYTES = 4096 };

#if defined(FASTVLM_SERVE)

/* ---- the access log ---- */

/* What was asked, the last turn of it, and what was answered. */
static void words_put(fv_json_text *j, const serve_answer *a)
{
    size_t n;
    const fv_request *r = &a->request;
    for (size_t i = r->n_items; i-- > 0;)
        if (r->items[i].kind == FV_REQUEST_TEXT) {
            fv_json_put_bytes(j, "prompt", r->items[i].text,
                              FV_MIN(r->items[i].n_bytes, (size_t)LOGGED_BYTES));
            break;
        }
    char *text = serve_answer_text(a, &n);
    if (text)
        fv_json_put_bytes(j, "answer", text, FV_MIN(n, (size_t)LOGGED_BYTES));
    fv_free(text);
}

static void job_put(fv_json_text *j, const serve *s, const serve_answer *a)
{
    const fv_stats *stats = &a->job.stats;
    if (!a->job.scheduler)
        return; /* refused */
    fv_json_put_text(j, "outcome", fv_status_name(a->job.status));
    fv_json_put_int(j, "images", (int64_t)a->job.timings.n_images);
    fv_json_put_int(j, "images_cached", (int64_t)a->job.timings.n_cached);
    fv_json_put_int(j, "prompt_tokens", stats->prompt_tokens);
    fv_json_put_int(j, "reused_tokens", stats->reused_tokens);
    fv_json_put_int(j, "new_tokens", stats->new_tokens);
    fv_json_put_int(j, "first_token_ms", (int64_t)a->job.timings.first_token);
    if (s->options.log_prompts)
        words_put(j, a);
}

void serve_log_call(const serve *s, const serve_call *call)
{
    fv_json_text j = { .compact = true };
    if (!s->options.log)
        return;
    fv_json_begin(&j, NULL, '{');
    serve_put_time(&j, "time");
    fv_json_put_bytes(&j, "method", call->method, FV_MIN(strlen(call->method), (size_t)16));
    fv_json_put_bytes(&j, "path", call->path, FV_MIN(strlen(call->path), (size_t)256));
    fv_json_put_int(&j, "status", call->status);
    fv_json_put_int(&j, "ms", (int64_t)(fv_now_ms() - call->began_ms));
    fv_json_put_int(&j, "bytes_in", (int64_t)call->n_body);
    fv_json_put_int(&j, "bytes_out", (int64_t)call->n_sent);
    if (call->job)
        job_put(&j, s, call->job);
    fv_json_end(&j);
    if (!j.failed)
        s->options.log(s->options.log_user, j.text, j.n);
    fv_json_text_free(&j);
}

/* ---- what every request must pass ---- */

static void call_check(void *user, serve_call *call)
{
    serve *s = user;
    const serve_options *o = &s->options;
    const char *allow;
    char message[160];
    const serve_route *route = serve_route_find(call->method, call->path, &allow);
    if (!serve_host_allowed(call->host, o->hosts, o->n_hosts)) {
        serve_reply_error(call, 403, "host_not_allowed",
                          "Host: this server does not go by that name; expected an address or "
                          "localhost");
    } else if (!serve_origin_allowed(call->origin, call->host)) {
        serve_reply_error(call, 403, "origin_not_allowed",
                          "Origin: pages of other sites may not use this server");
    } else if (!route && allow) {
        serve_header(call, "Allow", allow);
        serve_reply_error(call, 405, "method_not_allowed", "the path has other methods: see Allow");
    } else if (!route) {
        serve_reply_error(call, 404, "not_found", "there is no such path");
    } else if (o->n_keys && !route->open &&
               !serve_key_allowed(call->authorization, o->keys, o->n_keys)) {
        serve_header(call, "WWW-Authenticate", "Bearer");
        serve_reply_error(call, 401, "invalid_api_key",
                          "Authorization: expected Bearer and a key of this server");
    } else if (serve_call_over(call) && !route->open) {
        snprintf(message, sizeof message, "more than %d connections", o->max_connections);
        serve_reply_error(call, 429, "too_many_connections", message);
    } else if (call->over_limit) {
        snprintf(message, sizeof message, "the body is longer than %d MB", o->max_body_mb);
        serve_reply_error(call, 413, "too_large", message);
    }
}

static void call_handle(void *user, serve_call *call)
{
    serve *s = user;
    const char *allow;
    char message[160];
    if (call->over_limit) {
        snprintf(message, sizeof message, "the body is longer than %d MB", s->options.max_body_mb);
        serve_reply_error(call, 413, "too_large", message);
    } else if (call->no_memory) {
        serve_reply_error(call, 503, "unavailable", "too many bytes of requests at once");
    } else {
        serve_route_find(call->method, call->path, &allow)->handle(s, call);
    }
}

static void call_over(void *user, serve_call *call)
{
    serve *s = user;
    if (call->job) /* a client that has gone leaves a job at work, whose results are to be logged */
        serve_job_cancel(&((serve_answer *)call->job)->job);
    serve_log_call(s, call);
    atomic_fetch_add(&s->n_status[call->status / 100 % 6], 1);
    serve_answer_free(call->job);
    call->job = NULL;
}

/* ---- opening and closing ---- */

fv_status serve_check(fv_error *err)
{
    const serve_mhd *mhd;
    return serve_mhd_load(&mhd, err);
}

fv_status serve_open(serve **out, const serve_options *options, int *port, fv_error *err)
{
    serve *s = *out = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "the server");
    s->options = *options;
    pthread_mutex_init(&s->grammar_lock, NULL);
    s->created = (int64_t)time(NULL);
    const serve_scheduler_options scheduler = {
        .n_parallel = options->n_parallel,
        .max_context = options->max_context,
        .max_new_tokens = options->max_new_tokens,
        .max_queued = (size_t)options->max_queued,
        .cache_bytes = (size_t)options->cache_mb << 20,
        .max_pixels = (uint64_t)options->max_megapixels * 1000000,
    };
    const serve_http_options http = {
        .max_connections = (size_t)options->max_connections,
        .max_body_bytes = (size_t)options->max_body_mb << 20,
        .max_bodies_bytes = (size_t)options->max_body_mb << 23, /* eight of the longest */
        .header_s = options->header_s,
        .body_s = options->body_s,
        .send_s = options->send_s,
        .check = call_check,
        .handle = call_handle,
        .end = call_over,
        .user = s,
    };
    *port = options->port;
    fv_status status = serve_scheduler_new(&s->scheduler, &scheduler, err);
    if (status == FV_OK)
        status = serve_http_open(&s->http, options->host, port, &http, err);
    if (status != FV_OK) {
        serve_close(s, 0);
        *out = NULL;
    }
    return status;
}

fv_status serve_start(serve *s, fv_engine *engine, fv_error *err)
{
    s->info.size = sizeof s->info;
    fv_engine_info(engine, &s->info);
    if (s->options.max_context > s->info.max_context)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "a context of %d tokens; expected at most %d, the model's limit",
                       s->options.max_context, s->info.max_context);
    s->engine = engine; /* seen by those who have asked whether the scheduler is ready */
    return serve_scheduler_start(s->scheduler, engine, err);
}

void serve_close(serve *s, double drain_ms)
{
    if (!s)
        return;
    if (s->http)
        serve_http_quiesce(s->http);
    if (s->scheduler)
        serve_scheduler_drain(s->scheduler, drain_ms);
    /* Answers that are complete still have to reach their clients. */
    for (double until = fv_now_ms() + FV_MIN(drain_ms, CLOSE_MS);
         s->http && serve_http_calls(s->http) && fv_now_ms() < until;)
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    serve_http_close(s->http);
    serve_scheduler_free(s->scheduler);
    fv_grammar_free(s->grammar);
    pthread_mutex_destroy(&s->grammar_lock);
    fv_free(s);
}

#else

fv_status serve_check(fv_error *err)
{
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "this program was built without a server (libmicrohttpd's header was missing, "
                   "or the program is static)");
}

fv_status serve_open(serve **out, const serve_options *options, int *port, fv_error *err)
{
    (void)options;
    (void)port;
    *out = NULL;
    return serve_check(err);
}

fv_status serve_start(serve *s, fv_engine *engine, fv_error *err)
{
    (void)s;
    (void)engine;
    return fv_fail(err, FV_ERR_STATE, 0, "there is no server");
}

void serve_close(serve *s, double drain_ms)
{
    (void)s;
    (void)drain_ms;
}
#endif
