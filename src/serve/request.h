/* request: what a client asks for, read from JSON with every number in its range.
 *
 *     body --serve_chat_read (OpenAI), serve_ollama_read (Ollama)--> serve_request --> scheduler
 *
 * The conversation is a flat list of items in the order in which a session gets them. Images are
 * data: URLs only: nothing is fetched, no file is opened. Text is borrowed from the document that
 * the request owns. What cannot be honoured is refused, never ignored, where ignoring it would
 * change the answer. */
#ifndef FV_SERVE_REQUEST_H
#define FV_SERVE_REQUEST_H

#include "base/base.h"
#include "base/sha256.h"
#include "io/json.h"

typedef enum serve_item_kind { SERVE_TEXT, SERVE_IMAGE, SERVE_ANSWER } serve_item_kind;

typedef struct serve_item {
    serve_item_kind kind;
    const char *text; /* [n_bytes], of TEXT and ANSWER */
    size_t n_bytes;
    uint8_t *image; /* [n_image], the file's bytes; owned */
    size_t n_image;
    uint8_t digest[FV_SHA256_BYTES]; /* of the image's bytes, or of the text */
    char place[48];                  /* in the request: "messages[0].content[1]" */
} serve_item;

typedef enum serve_format_kind {
    SERVE_FORMAT_TEXT,
    SERVE_FORMAT_JSON,  /* any JSON object */
    SERVE_FORMAT_SCHEMA /* what schema_text says */
} serve_format_kind;

enum { SERVE_MAX_STOP = 16, SERVE_MAX_BIAS = 300 };

typedef struct serve_request {
    const char *model;  /* NULL: not said */
    const char *system; /* NULL: the model's default */
    serve_item *items;
    size_t n_items, items_capacity, n_images;
    fv_answer_options answer; /* how it is chosen, but for what constrains it to a format */
    bool random_seed;         /* none was given */
    bool stream, include_usage, logprobs;
    int n_top_logprobs;
    serve_format_kind format;
    char *schema_text; /* JSON; owned */
    bool base64;       /* embeddings: as base64 instead of numbers */
    const char *stop[SERVE_MAX_STOP];
    fv_logit_bias *bias;
    fv_json *doc;
    char *joined; /* several system messages as one */
} serve_request;

typedef struct serve_limits {
    size_t max_images; /* of one request */
    size_t n_tokens;   /* ids of the vocabulary */
} serve_limits;

/* POST /v1/chat/completions, /v1/embeddings. On failure there is nothing to free. */
fv_status serve_chat_read(serve_request *out, const char *body, size_t n_body,
                          const serve_limits *limits, fv_error *err);
fv_status serve_embeddings_read(serve_request *out, const char *body, size_t n_body,
                                const serve_limits *limits, fv_error *err);
void serve_request_free(serve_request *request);

/* ---- for readers of other dialects ---- */

/* The document, and an empty request that owns it. */
fv_status serve_request_open(serve_request *out, const char *body, size_t n_body, fv_error *err);
fv_status serve_add_text(serve_request *request, const char *text, const char *place,
                         fv_error *err);
fv_status serve_add_answer(serve_request *request, const char *text, const char *place,
                           fv_error *err);
fv_status serve_add_system(serve_request *request, const char *text, const char *place,
                           fv_error *err);
/* base64: the file's bytes. */
fv_status serve_add_image(serve_request *request, const char *base64, size_t n, const char *place,
                          const serve_limits *limits, fv_error *err);
/* A user's message begins: text behind an earlier one of the same turn is on a line of its own. */
fv_status serve_begin_user(serve_request *request, const char *place, fv_error *err);
/* temperature, top_p, top_k, min_p, seed and stop, which all dialects have; of options. */
fv_status serve_read_sampling(serve_request *request, const fv_json_value *options, fv_error *err);
/* A schema to hold the answer to. */
fv_status serve_set_schema(serve_request *request, const fv_json_value *schema, fv_error *err);
/* The conversation is complete: it must end with the user's turn. */
fv_status serve_request_check(const serve_request *request, fv_error *err);

#endif
