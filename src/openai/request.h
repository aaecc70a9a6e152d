/* request: what is asked of a model, read from JSON with every number in its range.
 *
 *     body --fv_request_read_chat (OpenAI's), readers of other dialects--> fv_request
 *
 * The conversation is a flat list of items in the order in which a session gets them. Images are
 * data: URLs only: nothing is fetched, no file is opened. Text is borrowed from the document that
 * the request owns. What cannot be honoured is refused, never ignored, where ignoring it would
 * change the answer. */
#ifndef FV_REQUEST_H
#define FV_REQUEST_H

#include "base/base.h"
#include "base/sha256.h"
#include "io/json.h"

typedef enum fv_request_item_kind {
    FV_REQUEST_TEXT,
    FV_REQUEST_IMAGE,
    FV_REQUEST_ANSWER
} fv_request_item_kind;

typedef struct fv_request_item {
    fv_request_item_kind kind;
    const char *text; /* [n_bytes], of TEXT and ANSWER */
    size_t n_bytes;
    char *joined;   /* text, of several parts; owned. NULL: text is borrowed */
    uint8_t *image; /* [n_image], the file's bytes; owned */
    size_t n_image;
    uint8_t digest[FV_SHA256_BYTES]; /* of the image's bytes, or of the text */
    char place[48];                  /* in the request: "messages[0].content[1]" */
} fv_request_item;

typedef enum fv_request_format {
    FV_REQUEST_FORMAT_TEXT,
    FV_REQUEST_FORMAT_JSON,  /* any JSON object */
    FV_REQUEST_FORMAT_SCHEMA /* what schema_text says */
} fv_request_format;

enum {
    FV_REQUEST_MAX_VALUES = 200000, /* of the JSON text */
    FV_REQUEST_MAX_STOP = 16,
    FV_REQUEST_MAX_BIAS = 300
};

typedef struct fv_request {
    const char *model;  /* NULL: not said */
    const char *system; /* NULL: the model's default */
    fv_request_item *items;
    size_t n_items, items_capacity, n_images;
    fv_answer_options answer; /* how it is chosen, but for what constrains it to a format */
    bool random_seed;         /* none was given */
    bool stream, include_usage, logprobs;
    int n_top_logprobs;
    fv_request_format format;
    char *schema_text; /* JSON; owned */
    bool base64;       /* embeddings: as base64 instead of numbers */
    const char *stop[FV_REQUEST_MAX_STOP];
    fv_logit_bias *bias;
    fv_json *doc;              /* owned */
    const fv_json_value *body; /* the object in it that was read */
    char *joined;              /* several system messages as one, or what outlives doc */
} fv_request;

typedef struct fv_request_limits {
    size_t max_images; /* of one request */
    size_t n_tokens;   /* ids of the vocabulary */
} fv_request_limits;

/* POST /v1/chat/completions, /v1/embeddings. On failure there is nothing to free. */
fv_status fv_request_read_chat(fv_request *out, const char *body, size_t n_body,
                               const fv_request_limits *limits, fv_error *err);
fv_status fv_request_read_embeddings(fv_request *out, const char *body, size_t n_body,
                                     const fv_request_limits *limits, fv_error *err);
void fv_request_free(fv_request *request);

/* A chat that is a value inside a document, such as a line of a batch. Takes doc, also on
 * failure. */
fv_status fv_request_take_chat(fv_request *out, fv_json *doc, const fv_json_value *body,
                               const fv_request_limits *limits, fv_error *err);
/* The conversation is no longer needed: frees items and doc, which may be large. What says how to
 * answer, system included, stays. After a failure all is as it was. */
fv_status fv_request_drop_conversation(fv_request *request, fv_error *err);

/* The JSON schema that the answer is to be held to; NULL: it may be any text. */
const char *fv_request_schema(const fv_request *request);
/* Refuses what would break the JSON that the answer is to be. */
fv_status fv_request_check_json(const fv_request *request, fv_error *err);
/* A schema's failure, as one of response_format: FV_ERR_UNSUPPORTED, whatever it was, but for
 * memory. */
fv_status fv_request_refuse_schema(const fv_error *why, fv_error *err);

/* ---- for readers of other dialects ---- */

/* The document, and an empty request that owns it. */
fv_status fv_request_open(fv_request *out, const char *body, size_t n_body, fv_error *err);
fv_status fv_request_add_text(fv_request *request, const char *text, const char *place,
                              fv_error *err);
fv_status fv_request_add_answer(fv_request *request, const char *text, const char *place,
                                fv_error *err);
fv_status fv_request_add_system(fv_request *request, const char *text, const char *place,
                                fv_error *err);
/* base64: the file's bytes. */
fv_status fv_request_add_image(fv_request *request, const char *base64, size_t n, const char *place,
                               const fv_request_limits *limits, fv_error *err);
/* A user's message begins: text behind an earlier one of the same turn is on a line of its own. */
fv_status fv_request_begin_user(fv_request *request, const char *place, fv_error *err);
/* What cannot be done is there: neither absent nor null, false, an empty text or list. expected:
 * "none: " and why. */
fv_status fv_request_refuse(const fv_request *request, const fv_json_value *object, const char *key,
                            const char *expected, fv_error *err);
/* temperature, top_p, top_k, min_p, repeat_penalty, seed and stop, which all dialects have; of
 * options. Other ways to sample are refused. */
fv_status fv_request_read_sampling(fv_request *request, const fv_json_value *options,
                                   fv_error *err);
/* A schema to hold the answer to. */
fv_status fv_request_set_schema(fv_request *request, const fv_json_value *schema, fv_error *err);
/* The conversation is complete: it must end with the user's turn. */
fv_status fv_request_check(const fv_request *request, fv_error *err);

#endif
