/* Bytes as the body of a request, the first of them choosing the protocol: refused with a reason,
 * or a conversation that a session can be given. */
#include <stdlib.h>
#include <string.h>

#include "serve/guard.h"
#include "serve/ollama.h"
#include "openai/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static fv_status (*const readers[])(fv_request *out, const char *body, size_t n_body,
                                    const fv_request_limits *limits, fv_error *err) = {
    fv_request_read_chat, fv_request_read_embeddings, serve_ollama_chat_read,
    serve_ollama_generate_read
};

/* What the scheduler takes for granted. */
static void check_request(const fv_request *r, const fv_request_limits *limits)
{
    size_t n_images = 0;
    const fv_answer_options *a = &r->answer;
    for (size_t i = 0; i < r->n_items; i++) {
        const fv_request_item *item = &r->items[i];
        n_images += item->kind == FV_REQUEST_IMAGE;
        if (item->kind == FV_REQUEST_IMAGE ? !item->image || !item->n_image
                                           : !item->text || strlen(item->text) != item->n_bytes)
            abort();
        if (item->kind == FV_REQUEST_ANSWER &&
            (i == 0 || r->items[i - 1].kind == FV_REQUEST_ANSWER))
            abort();
    }
    if (n_images != r->n_images || n_images > limits->max_images || a->n_stop > FV_REQUEST_MAX_STOP)
        abort();
    if (!(a->temperature >= 0 && a->temperature <= 2) || !(a->top_p >= 0 && a->top_p <= 1) ||
        !(a->min_p >= 0 && a->min_p <= 1) || a->top_k < 0 || a->max_new_tokens < 0 ||
        a->n_logprobs < 0 || a->n_logprobs > 20 ||
        (a->repetition_penalty != 0 && !(a->repetition_penalty >= 0.009f)))
        abort();
    for (size_t i = 0; i < a->n_bias; i++)
        if (a->bias[i].id < 0 || (size_t)a->bias[i].id >= limits->n_tokens)
            abort();
    if (r->format == FV_REQUEST_FORMAT_SCHEMA && !r->schema_text)
        abort();
}

/* The same bytes as headers. */
static void check_headers(const uint8_t *data, size_t n_bytes)
{
    static const char *const names[] = { "example.org" };
    char *text = malloc(n_bytes + 1);
    if (!text)
        abort();
    memcpy(text, data, n_bytes);
    text[n_bytes] = 0;
    serve_host_allowed(text, names, 1);
    serve_origin_allowed(text, text);
    if (serve_key_allowed(text, names, 1) !=
            (!strncmp(text, "Bearer ", 7) && !strcmp(text + 7, *names)) &&
        !strncmp(text, "Bearer ", 7))
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const fv_request_limits limits = { .max_images = 4, .n_tokens = 1000 };
    static fv_request r;
    fv_error err = { 0 };
    if (!n_bytes)
        return 0;
    size_t reader = data[0] % (sizeof readers / sizeof *readers);
    fv_status status = readers[reader](&r, (const char *)data + 1, n_bytes - 1, &limits, &err);
    if (status == FV_OK) {
        check_request(&r, &limits);
        fv_request_free(&r);
    } else if (err.status != status || !err.message[0]) {
        abort();
    }
    check_headers(data + 1, n_bytes - 1);
    return 0;
}
