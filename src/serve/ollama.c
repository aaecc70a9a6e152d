/* Ollama's /api/chat and /api/generate: requests into the form of request.h, answers as lines of
 * JSON. */
#include "serve/ollama.h"

#include <stdio.h>
#include <string.h>

/* ---- requests ---- */

static fv_status ollama_options_read(fv_request *r, const fv_json_value *root, fv_error *err)
{
    const fv_json_value *options = NULL;
    int64_t n = 0;
    FV_TRY(fv_json_opt_object(r->doc, root, "options", &options, err));
    FV_TRY(fv_request_read_sampling(r, options, err));
    FV_TRY(fv_json_opt_int(r->doc, options, "num_predict", -2, INT32_MAX, &n, err));
    r->answer.max_new_tokens = n > 0 ? (int)n : 0; /* -1, -2: as much as fits */
    return fv_request_refuse(r, options, "num_ctx", "none: the context is the server's", err);
}

/* "json", or a schema. */
static fv_status ollama_format_read(fv_request *r, const fv_json_value *root, fv_error *err)
{
    const fv_json_value *format = fv_json_member(root, "format");
    const char *name;
    if (fv_json_type_of(format) == FV_JSON_OBJECT)
        return fv_request_set_schema(r, format, err);
    if (fv_json_type_of(format) == FV_JSON_NULL)
        return FV_OK;
    if (!fv_json_as_string(format, &name) || (*name && strcmp(name, "json") != 0))
        return fv_json_unexpected(r->doc, root, "format", "\"json\" or a JSON schema", err);
    r->format = *name ? FV_REQUEST_FORMAT_JSON : FV_REQUEST_FORMAT_TEXT;
    return FV_OK;
}

/* Files in base64, before the text that they come with. */
static fv_status ollama_images_read(fv_request *r, const fv_json_value *holder, const char *at,
                                    const fv_request_limits *limits, fv_error *err)
{
    const fv_json_value *images = NULL;
    FV_TRY(fv_json_opt_array(r->doc, holder, "images", &images, err));
    for (size_t i = 0; i < fv_json_count(images); i++) {
        const char *text;
        char place[48];
        snprintf(place, sizeof place, "%simages[%zu]", at, i);
        if (!fv_json_as_string(fv_json_at(images, i), &text))
            return fv_fail(err, FV_ERR_FORMAT, 0, "request: %s: expected base64, found %s", place,
                           fv_json_type_name(fv_json_at(images, i)));
        FV_TRY(fv_request_add_image(r, text, strlen(text), place, limits, err));
    }
    return FV_OK;
}

static fv_status ollama_message_read(fv_request *r, const fv_json_value *message, size_t index,
                                     const fv_request_limits *limits, fv_error *err)
{
    const char *role, *content = "";
    char place[32];
    snprintf(place, sizeof place, "messages[%zu].", index);
    if (fv_json_type_of(message) != FV_JSON_OBJECT)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "request: messages[%zu]: expected an object, found %s", index,
                       fv_json_type_name(message));
    FV_TRY(fv_json_string(r->doc, message, "role", &role, err));
    FV_TRY(fv_json_opt_string(r->doc, message, "content", &content, err));
    FV_TRY(fv_request_refuse(r, message, "tool_calls", "none: there are no tools here", err));
    if (!strcmp(role, "user")) {
        FV_TRY(fv_request_begin_user(r, place, err));
        FV_TRY(ollama_images_read(r, message, place, limits, err));
        return fv_request_add_text(r, content, place, err);
    }
    FV_TRY(fv_request_refuse(r, message, "images", "none: only a user's message has images", err));
    if (!strcmp(role, "assistant"))
        return fv_request_add_answer(r, content, place, err);
    if (!strcmp(role, "system"))
        return fv_request_add_system(r, content, place, err);
    return fv_json_unexpected(r->doc, message, "role", "\"user\", \"assistant\" or \"system\"",
                              err);
}

static fv_status ollama_common_read(fv_request *r, fv_error *err)
{
    const fv_json_value *root = r->body;
    r->stream = true;
    FV_TRY(fv_json_opt_string(r->doc, root, "model", &r->model, err));
    FV_TRY(fv_json_opt_bool(r->doc, root, "stream", &r->stream, err));
    FV_TRY(fv_request_refuse(r, root, "think", "none: the model does not think aloud", err));
    FV_TRY(ollama_format_read(r, root, err));
    return ollama_options_read(r, root, err);
}

static fv_status ollama_chat_read(fv_request *r, const fv_request_limits *limits, fv_error *err)
{
    const fv_json_value *root = r->body, *messages = NULL;
    FV_TRY(ollama_common_read(r, err));
    FV_TRY(fv_request_refuse(r, root, "tools", "none: there are no tools here", err));
    FV_TRY(fv_json_opt_array(r->doc, root, "messages", &messages, err));
    for (size_t i = 0; i < fv_json_count(messages); i++)
        FV_TRY(ollama_message_read(r, fv_json_at(messages, i), i, limits, err));
    return fv_json_count(messages) ? fv_request_check(r, err) : FV_OK; /* none: "load it" */
}

static fv_status ollama_generate_read(fv_request *r, const fv_request_limits *limits, fv_error *err)
{
    static const char *const others[] = { "suffix", "template", "context", "raw" };
    const fv_json_value *root = r->body;
    const char *prompt = "", *system = "";
    FV_TRY(ollama_common_read(r, err));
    for (size_t i = 0; i < FV_COUNT(others); i++)
        FV_TRY(fv_request_refuse(r, root, others[i], "none: prompts have one form here", err));
    FV_TRY(fv_json_opt_string(r->doc, root, "system", &system, err));
    FV_TRY(fv_json_opt_string(r->doc, root, "prompt", &prompt, err));
    if (*system)
        FV_TRY(fv_request_add_system(r, system, "system", err));
    FV_TRY(ollama_images_read(r, root, "", limits, err));
    return fv_request_add_text(r, prompt, "prompt", err);
}

typedef fv_status ollama_reader(fv_request *r, const fv_request_limits *limits, fv_error *err);

static fv_status ollama_read(fv_request *out, const char *body, size_t n_body,
                             const fv_request_limits *limits, ollama_reader *read, fv_error *err)
{
    FV_TRY(fv_request_open(out, body, n_body, err));
    fv_status status = read(out, limits, err);
    if (status != FV_OK)
        fv_request_free(out);
    return status;
}

fv_status serve_ollama_chat_read(fv_request *out, const char *body, size_t n_body,
                                 const fv_request_limits *limits, fv_error *err)
{
    return ollama_read(out, body, n_body, limits, ollama_chat_read, err);
}

fv_status serve_ollama_generate_read(fv_request *out, const char *body, size_t n_body,
                                     const fv_request_limits *limits, fv_error *err)
{
    return ollama_read(out, body, n_body, limits, ollama_generate_read, err);
}

/* ---- answers ---- */

static void line_begin(serve_answer *a, const char *text, size_t n, bool done)
{
    fv_json_text *j = &a->out;
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "model", a->model);
    serve_put_time(j, "created_at");
    if (a->generate) {
        fv_json_put_bytes(j, "response", text, n);
    } else {
        fv_json_begin(j, "message", '{');
        fv_json_put_text(j, "role", "assistant");
        fv_json_put_bytes(j, "content", text, n);
        fv_json_end(j);
    }
    fv_json_put_bool(j, "done", done);
}

static void nanoseconds_put(fv_json_text *j, const char *key, double ms)
{
    fv_json_put_int(j, key, (int64_t)(ms * 1e6));
}

static void line_end(serve_answer *a)
{
    const fv_stats *s = &a->job.stats;
    const serve_timings *t = &a->job.timings;
    fv_json_text *j = &a->out;
    fv_json_put_text(j, "done_reason",
                     !a->request.n_items                 ? "load"
                     : a->job.finish == FV_FINISH_LENGTH ? "length"
                                                         : "stop");
    nanoseconds_put(j, "total_duration", t->total);
    nanoseconds_put(j, "load_duration", 0);
    fv_json_put_int(j, "prompt_eval_count", s->prompt_tokens);
    nanoseconds_put(j, "prompt_eval_duration", t->image + t->vision + s->prefill_ms);
    fv_json_put_int(j, "eval_count", s->new_tokens);
    nanoseconds_put(j, "eval_duration", s->decode_ms);
    fv_json_end(j);
}

static void ollama_piece(serve_answer *a, const serve_piece *piece)
{
    if (!piece->n_bytes)
        return;
    line_begin(a, piece->text, piece->n_bytes, false);
    fv_json_end(&a->out);
    fv_json_line(&a->out, "", 0);
}

static void ollama_end(serve_answer *a)
{
    if (a->job.status != FV_OK) {
        fv_json_begin(&a->out, NULL, '{');
        fv_json_put_text(&a->out, "error", a->job.err.message);
        fv_json_end(&a->out);
    } else {
        line_begin(a, "", 0, true);
        line_end(a);
    }
    fv_json_line(&a->out, "", 0);
}

static void ollama_whole(serve_answer *a)
{
    size_t n;
    char *text = serve_answer_text(a, &n);
    a->out.failed = a->out.failed || !text;
    line_begin(a, text ? text : "", n, true);
    line_end(a);
    fv_free(text);
}

const serve_dialect serve_ollama = { "application/x-ndjson", ollama_piece, ollama_end,
                                     ollama_whole };
