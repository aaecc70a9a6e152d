/* The endpoints, a row of the table for each; docs/server.md and docs/openapi.json describe them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/number.h"
#include "openai/base64.h"
#include "serve/ollama.h"
#include "serve/page.h"
#include "serve/server.h"

/* ---- health, models, metrics ---- */

static void route_health(serve *s, serve_call *call)
{
    fv_json_text j = { .compact = true };
    serve_state state = serve_scheduler_state(s->scheduler);
    fv_json_begin(&j, NULL, '{');
    fv_json_put_text(&j, "status",
                     state == SERVE_READY    ? "ok"
                     : state == SERVE_ENDING ? "shutting down"
                                             : "loading model");
    fv_json_end(&j);
    if (state != SERVE_READY)
        serve_header(call, "Retry-After", "1");
    serve_reply_json(call, state == SERVE_READY ? 200 : 503, &j);
}

/* False after answering that there is no model yet, or none any more. */
static bool server_ready(serve *s, serve_call *call)
{
    serve_state state = serve_scheduler_state(s->scheduler);
    if (state != SERVE_READY)
        serve_reply_error(call, 503, "unavailable",
                          state == SERVE_ENDING ? "the server is shutting down"
                                                : "the model is being loaded");
    return state == SERVE_READY;
}

/* An object; the widths of the model and what a request may hold. */
static void model_put(fv_json_text *j, const char *key, const serve *s)
{
    const fv_model_info *m = &s->info;
    fv_json_begin(j, key, '{');
    fv_json_put_text(j, "id", s->options.model);
    fv_json_put_text(j, "object", "model");
    fv_json_put_int(j, "created", s->created);
    fv_json_put_text(j, "owned_by", "fastvlm");
    fv_json_begin(j, "architecture", '{');
    fv_json_begin(j, "input_modalities", '[');
    fv_json_put_text(j, NULL, "text");
    fv_json_put_text(j, NULL, "image");
    fv_json_end(j);
    fv_json_begin(j, "output_modalities", '[');
    fv_json_put_text(j, NULL, "text");
    fv_json_end(j);
    fv_json_end(j);
    fv_json_begin(j, "meta", '{');
    fv_json_put_int(j, "n_ctx_train", m->max_context);
    fv_json_put_int(j, "n_ctx", s->options.max_context ? s->options.max_context : m->max_context);
    fv_json_put_int(j, "n_vocab", m->n_tokens);
    fv_json_put_int(j, "n_embd", m->d_model);
    fv_json_put_int(j, "n_params", (int64_t)m->n_parameters);
    fv_json_put_int(j, "size", (int64_t)m->weight_bytes);
    fv_json_put_int(j, "image_size", m->image_size);
    fv_json_put_int(j, "image_tokens", m->n_image_tokens);
    fv_json_put_text(j, "vision", m->vision_precision);
    fv_json_put_text(j, "decoder", m->decoder_precision);
    fv_json_end(j);
    fv_json_end(j);
}

static void route_models(serve *s, serve_call *call)
{
    fv_json_text j = { .compact = true };
    if (!server_ready(s, call))
        return;
    fv_json_begin(&j, NULL, '{');
    fv_json_put_text(&j, "object", "list");
    fv_json_begin(&j, "data", '[');
    model_put(&j, NULL, s);
    fv_json_end(&j);
    fv_json_end(&j);
    serve_reply_json(call, 200, &j);
}

/* Whether a request may name the model so; Ollama's clients add a tag. */
static bool model_is(const serve *s, const char *name)
{
    size_t n = strlen(s->options.model);
    return !name ||
           (!strncmp(name, s->options.model, n) && (!name[n] || !strcmp(name + n, ":latest")));
}

static bool model_is_served(serve *s, serve_call *call, const char *name)
{
    char message[320];
    if (model_is(s, name))
        return true;
    snprintf(message, sizeof message, "request: model: no such model; expected \"%s\"",
             s->options.model);
    serve_reply_error(call, 404, "model_not_found", message);
    return false;
}

static void route_model(serve *s, serve_call *call)
{
    fv_json_text j = { .compact = true };
    if (!server_ready(s, call) || !model_is_served(s, call, call->path + strlen("/v1/models/")))
        return;
    model_put(&j, NULL, s);
    serve_reply_json(call, 200, &j);
}

static void route_metrics(serve *s, serve_call *call)
{
    static const char *const outcome[] = { "gone", "1xx", "2xx", "3xx", "4xx", "5xx" };
    serve_text t = { 0 };
    serve_counters counters;
    serve_cache_counts cache;
    serve_scheduler_count(s->scheduler, &counters, &cache);
    serve_text_add(&t, "# HELP fastvlm_http_requests_total Requests by class of status.\n"
                       "# TYPE fastvlm_http_requests_total counter\n");
    for (size_t i = 0; i < FV_COUNT(outcome); i++)
        serve_text_add(&t, "fastvlm_http_requests_total{status=\"%s\"} %llu\n", outcome[i],
                       atomic_load(&s->n_status[i]));
    serve_write_counter(&t, "http_connections", "Connections that are open.", "gauge",
                        serve_http_connections(call->http));
    serve_write_counters(&t, &counters);
    serve_write_counter(&t, "cache_images", "Encoded images that are kept.", "gauge",
                        cache.n_images);
    serve_write_counter(&t, "cache_bytes", "Memory that they take.", "gauge", cache.n_bytes);
    if (t.failed)
        serve_reply_error(call, 503, "unavailable", "out of memory");
    else
        serve_reply(call, 200, "text/plain; version=0.0.4; charset=utf-8", t.text, t.n);
    fv_free(t.text);
}

extern const unsigned char serve_openapi_begin[], serve_openapi_end[]; /* openapi.S */

static void route_openapi(serve *s, serve_call *call)
{
    (void)s;
    serve_reply(call, 200, "application/json", serve_openapi_begin,
                (uintptr_t)serve_openapi_end - (uintptr_t)serve_openapi_begin);
}

/* ---- chat ---- */

static void answer_name(serve *s, serve_answer *a)
{
    uint64_t bits = 0;
    (void)!getentropy(&bits, sizeof bits);
    snprintf(a->id, sizeof a->id, "chatcmpl-%016" PRIx64 "%llu", bits,
             atomic_fetch_add(&s->n_answers, 1));
    a->created = (int64_t)time(NULL);
}

/* The engine's grammar, opened when it is first asked for. What is missing is this machine's
 * business: the client learns that something is. */
static fv_status grammar_take(serve *s, fv_grammar **out, fv_error *err)
{
    pthread_mutex_lock(&s->grammar_lock);
    fv_status status = s->grammar ? FV_OK : fv_grammar_open(&s->grammar, s->engine, err);
    *out = s->grammar;
    pthread_mutex_unlock(&s->grammar_lock);
    if (status == FV_OK || status == FV_ERR_MEMORY)
        return status;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "request: response_format: this server has no llguidance, which answers in JSON "
                   "need; expected \"text\"");
}

static fv_status constraint_ask(void *constraint, fv_error *err)
{
    fv_error why;
    return fv_constraint_check(constraint, &why) == FV_OK ? FV_OK
                                                          : fv_request_refuse_schema(&why, err);
}

/* What holds the answer to its format. What cannot be enforced is refused: an answer in another
 * format than the one that was asked for is worse than none. */
static fv_status format_apply(serve *s, serve_answer *a, fv_error *err)
{
    const char *schema = fv_request_schema(&a->request);
    fv_answer_options options;
    fv_grammar *grammar;
    fv_error why;
    if (!schema)
        return FV_OK;
    FV_TRY(fv_request_check_json(&a->request, err));
    FV_TRY(grammar_take(s, &grammar, err));
    if (fv_constraint_new(&a->constraint, grammar, schema, strlen(schema), &why) != FV_OK)
        return fv_request_refuse_schema(&why, err);
    fv_answer_options_default(&options);
    fv_constraint_apply(a->constraint, &options);
    a->job.mask = options.mask;
    a->job.chosen = options.chosen;
    a->job.mask_user = options.mask_user;
    a->job.mask_check = constraint_ask;
    return FV_OK;
}

static fv_status request_take(serve *s, serve_answer *a, const serve_call *call, serve_reader *read,
                              fv_error *err)
{
    const fv_request_limits limits = { .max_images = (size_t)s->options.max_images,
                                       .n_tokens = (size_t)s->info.n_tokens };
    return read(&a->request, call->body, call->n_body, &limits, err);
}

/* The answer's first token is waited for before anything is sent, so that a request that fails has
 * a status that says so. */
static fv_status chat_begin(serve *s, serve_answer *a, const serve_call *call, fv_error *err)
{
    a->job.request = &a->request;
    a->job.gone = serve_call_gone;
    a->job.client = call;
    a->job.embed = !a->dialect->piece;
    FV_TRY(serve_job_submit(s->scheduler, &a->job, err));
    if (a->job.embed || !serve_job_next(&a->job, NULL))
        serve_job_wait(&a->job);
    else if (!a->request.stream)
        serve_job_wait(&a->job);
    else
        return FV_OK;
    *err = a->job.err;
    return a->job.status;
}

/* The queue alone is full or closed when a job is not taken at all. */
static void submit_refuse(serve_call *call, const serve_answer *a, const fv_error *err)
{
    if (err->status == FV_ERR_CANCELLED && serve_call_gone(call))
        return; /* nobody to answer: counted as gone */
    if (!a->job.scheduler && err->status == FV_ERR_LIMIT)
        serve_reply_error(call, 503, "queue_full", err->message);
    else
        serve_reply_failure(call, err);
}

void serve_route_chat(serve *s, serve_call *call, serve_reader *read, const serve_dialect *dialect,
                      bool generate)
{
    fv_error err;
    if (!server_ready(s, call))
        return;
    serve_answer *a = fv_alloc_zero(1, sizeof *a);
    if (!a) {
        serve_reply_error(call, 503, "unavailable", "out of memory");
        return;
    }
    a->dialect = dialect;
    a->generate = generate;
    a->engine = s->engine;
    a->model = s->options.model;
    a->out.compact = true;
    call->job = a; /* freed when the call ends */
    answer_name(s, a);
    if (request_take(s, a, call, read, &err) != FV_OK) {
        serve_reply_failure(call, &err);
    } else if (!model_is_served(s, call, a->request.model)) {
        return;
    } else if (!a->request.n_items) { /* nothing is asked */
        dialect->whole(a);
        serve_reply_json(call, 200, &a->out);
    } else {
        fv_status status = format_apply(s, a, &err);
        if (status == FV_OK)
            status = chat_begin(s, a, call, &err);
        if (status != FV_OK) {
            submit_refuse(call, a, &err);
        } else if (a->request.stream) {
            serve_stream(call, dialect->stream_type, serve_answer_read, a);
        } else {
            dialect->whole(a);
            serve_reply_json(call, 200, &a->out);
        }
    }
}

static void route_chat(serve *s, serve_call *call)
{
    serve_route_chat(s, call, fv_request_read_chat, &serve_openai, false);
}

/* ---- embeddings ---- */

/* The mean of an image's rows [d_model]; NULL: memory is out. */
static float *features_mean(const fv_features *features, size_t *d_model)
{
    size_t n_rows;
    const float *rows = fv_features_rows(features, &n_rows, d_model);
    float *mean = fv_alloc_zero(*d_model, sizeof *mean);
    for (size_t j = 0; mean && j < *d_model; j++) {
        double sum = 0;
        for (size_t i = 0; i < n_rows; i++)
            sum += (double)rows[i * *d_model + j];
        mean[j] = (float)(sum / (double)n_rows);
    }
    return mean;
}

/* Numbers, or their bytes as they lie in memory, little-endian, in base64. */
static void embedding_put(fv_json_text *j, const serve_answer *a, size_t index)
{
    size_t d_model;
    float *mean = features_mean(a->job.features[index], &d_model);
    size_t n_bytes = d_model * sizeof *mean;
    char *text = a->request.base64 ? fv_alloc((n_bytes + 2) / 3 * 4 + 1, 1) : NULL;
    j->failed = j->failed || !mean || (a->request.base64 && !text);
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "object", "embedding");
    fv_json_put_int(j, "index", (int64_t)index);
    if (text && mean) {
        fv_base64_write(text, (const uint8_t *)mean, n_bytes);
        fv_json_put_text(j, "embedding", text);
    } else {
        fv_json_begin(j, "embedding", '[');
        for (size_t i = 0; mean && i < d_model; i++)
            fv_json_put_real(j, NULL, (double)mean[i]);
        fv_json_end(j);
    }
    fv_json_end(j);
    fv_free(text);
    fv_free(mean);
}

static void embeddings_whole(serve_answer *a)
{
    fv_json_text *j = &a->out;
    size_t n_rows, n_all = 0;
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "object", "list");
    fv_json_begin(j, "data", '[');
    for (size_t i = 0; i < a->request.n_items; i++) {
        embedding_put(j, a, i);
        fv_features_rows(a->job.features[i], &n_rows, NULL);
        n_all += n_rows;
    }
    fv_json_end(j);
    fv_json_put_text(j, "model", a->model);
    fv_json_begin(j, "usage", '{');
    fv_json_put_int(j, "prompt_tokens", (int64_t)n_all);
    fv_json_put_int(j, "total_tokens", (int64_t)n_all);
    fv_json_end(j);
    fv_json_end(j);
}

static void route_embeddings(serve *s, serve_call *call)
{
    static const serve_dialect embeddings = { .whole = embeddings_whole };
    serve_route_chat(s, call, fv_request_read_embeddings, &embeddings, false);
}

/* ---- Ollama's ---- */

static void route_ollama_chat(serve *s, serve_call *call)
{
    serve_route_chat(s, call, serve_ollama_chat_read, &serve_ollama, false);
}

static void route_ollama_generate(serve *s, serve_call *call)
{
    serve_route_chat(s, call, serve_ollama_generate_read, &serve_ollama, true);
}

static void route_version(serve *s, serve_call *call)
{
    fv_json_text j = { .compact = true };
    (void)s;
    fv_json_begin(&j, NULL, '{');
    fv_json_put_text(&j, "version", FV_VERSION);
    fv_json_end(&j);
    serve_reply_json(call, 200, &j);
}

static void details_put(fv_json_text *j, const serve *s)
{
    char size[32];
    double n = (double)s->info.n_parameters;
    fv_format(size, sizeof size, n < 1e9 ? "%.1fM" : "%.1fB", n < 1e9 ? n / 1e6 : n / 1e9);
    fv_json_begin(j, "details", '{');
    fv_json_put_text(j, "parent_model", "");
    fv_json_put_text(j, "format", strcmp(s->info.format, "GGUF") ? "safetensors" : "gguf");
    fv_json_put_text(j, "family", "fastvlm");
    fv_json_begin(j, "families", '[');
    fv_json_put_text(j, NULL, "fastvlm");
    fv_json_end(j);
    fv_json_put_text(j, "parameter_size", size);
    fv_json_put_text(j, "quantization_level", s->info.decoder_precision);
    fv_json_end(j);
}

static void route_tags(serve *s, serve_call *call)
{
    fv_json_text j = { .compact = true };
    if (!server_ready(s, call))
        return;
    fv_json_begin(&j, NULL, '{');
    fv_json_begin(&j, "models", '[');
    fv_json_begin(&j, NULL, '{');
    fv_json_put_text(&j, "name", s->options.model);
    fv_json_put_text(&j, "model", s->options.model);
    serve_put_time(&j, "modified_at");
    fv_json_put_int(&j, "size", (int64_t)s->info.weight_bytes);
    details_put(&j, s);
    fv_json_end(&j);
    fv_json_end(&j);
    fv_json_end(&j);
    serve_reply_json(call, 200, &j);
}

static void show_write(serve *s, fv_json_text *j)
{
    fv_json_begin(j, NULL, '{');
    details_put(j, s);
    fv_json_begin(j, "model_info", '{');
    fv_json_put_text(j, "general.architecture", "fastvlm");
    fv_json_put_int(j, "general.parameter_count", (int64_t)s->info.n_parameters);
    fv_json_put_int(j, "fastvlm.context_length", s->info.max_context);
    fv_json_put_int(j, "fastvlm.embedding_length", s->info.d_model);
    fv_json_put_int(j, "fastvlm.vision.image_size", s->info.image_size);
    fv_json_end(j);
    fv_json_begin(j, "capabilities", '[');
    fv_json_put_text(j, NULL, "completion");
    fv_json_put_text(j, NULL, "vision");
    fv_json_end(j);
    fv_json_end(j);
}

/* {"model": NAME}; older clients say name. */
static void route_show(serve *s, serve_call *call)
{
    fv_json_text j = { .compact = true };
    fv_request request;
    fv_error err;
    const char *name = NULL;
    if (!server_ready(s, call))
        return;
    if (fv_request_open(&request, call->body, call->n_body, &err) != FV_OK) {
        serve_reply_failure(call, &err);
        return;
    }
    const fv_json_value *root = fv_json_root(request.doc);
    fv_status status = fv_json_opt_string(request.doc, root, "name", &name, &err);
    if (status == FV_OK)
        status = fv_json_opt_string(request.doc, root, "model", &name, &err);
    if (status != FV_OK) {
        serve_reply_failure(call, &err);
    } else if (model_is_served(s, call, name)) {
        show_write(s, &j);
        serve_reply_json(call, 200, &j);
    }
    fv_request_free(&request);
}

/* ---- the page ---- */

static void route_page(serve *s, serve_call *call)
{
    const serve_page_file *file = serve_page_find(call->path);
    (void)s;
    serve_header(call, "Content-Security-Policy", SERVE_PAGE_POLICY);
    serve_header(call, "Referrer-Policy", "no-referrer");
    serve_reply(call, 200, file->type, file->begin, (size_t)(file->end - file->begin));
}

/* ---- the table ---- */

static const serve_route routes[] = {
    { "GET", "/", route_page, true },
    { "GET", "/page.css", route_page, true },
    { "GET", "/page.js", route_page, true },
    { "GET", "/health", route_health, true },
    { "GET", "/v1/models", route_models, false },
    { "GET", "/v1/models/*", route_model, false },
    { "POST", "/v1/chat/completions", route_chat, false },
    { "POST", "/v1/embeddings", route_embeddings, false },
    { "GET", "/metrics", route_metrics, false },
    { "GET", "/openapi.json", route_openapi, true },
    { "POST", "/api/chat", route_ollama_chat, false },
    { "POST", "/api/generate", route_ollama_generate, false },
    { "GET", "/api/tags", route_tags, false },
    { "POST", "/api/show", route_show, false },
    { "GET", "/api/version", route_version, true },
};

static bool route_matches(const serve_route *route, const char *path)
{
    size_t n = strlen(route->path);
    return route->path[n - 1] == '*' ? !strncmp(path, route->path, n - 1) && path[n - 1]
                                     : !strcmp(path, route->path);
}

const serve_route *serve_route_find(const char *method, const char *path, const char **allow)
{
    bool head = !strcmp(method, "HEAD"); /* as GET, without the body */
    *allow = NULL;
    for (size_t i = 0; i < FV_COUNT(routes); i++) {
        if (!route_matches(&routes[i], path))
            continue;
        if (!strcmp(routes[i].method, head ? "GET" : method))
            return &routes[i];
        *allow = !strcmp(routes[i].method, "GET") ? "GET, HEAD" : routes[i].method;
    }
    return NULL;
}
