/* Requests from JSON. See request.h. */
#include "openai/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/number.h"
#include "io/json_write.h"
#include "openai/base64.h"

#define DOC_NAME "request"

enum { MAX_SCHEMA_DEPTH = 24, MAX_TOP_LOGPROBS = 20 };

/* ---- the document ---- */

static fv_status request_parse(fv_json **doc, const char *text, size_t n_bytes, fv_error *err)
{
    *doc = NULL;
    if (!text || !n_bytes)
        return fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": the body is empty; expected JSON");
    return fv_json_parse_up_to(doc, text, n_bytes, FV_REQUEST_MAX_VALUES, DOC_NAME, err);
}

/* An empty request that owns the document. */
static fv_status request_adopt(fv_request *out, fv_json *doc, const fv_json_value *body,
                               fv_error *err)
{
    *out = (fv_request){ .random_seed = true, .doc = doc, .body = body };
    fv_answer_options_default(&out->answer);
    if (fv_json_type_of(body) == FV_JSON_OBJECT)
        return FV_OK;
    fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": expected an object, found %s",
            fv_json_type_name(body));
    fv_request_free(out);
    return FV_ERR_FORMAT;
}

fv_status fv_request_open(fv_request *out, const char *body, size_t n_body, fv_error *err)
{
    fv_json *doc;
    FV_TRY(request_parse(&doc, body, n_body, err));
    return request_adopt(out, doc, fv_json_root(doc), err);
}

static void request_free_items(fv_request *request)
{
    for (size_t i = 0; i < request->n_items; i++) {
        fv_free(request->items[i].joined);
        fv_free(request->items[i].image);
    }
    fv_free(request->items);
}

void fv_request_free(fv_request *request)
{
    request_free_items(request);
    fv_free(request->schema_text);
    fv_free(request->joined);
    fv_free(request->bias);
    fv_json_free(request->doc);
    *request = (fv_request){ 0 };
}

/* The text, copied to *to, which moves behind it. */
static const char *kept_copy(const char *text, char **to)
{
    size_t n = strlen(text) + 1;
    char *kept = memcpy(*to, text, n);
    *to += n;
    return kept;
}

fv_status fv_request_drop_conversation(fv_request *request, fv_error *err)
{
    size_t n = request->system ? strlen(request->system) + 1 : 0;
    for (size_t i = 0; i < request->answer.n_stop; i++)
        n += strlen(request->stop[i]) + 1;
    char *kept = fv_alloc(n + 1, 1), *at = kept;
    if (!kept)
        return fv_fail_memory(err, n, "a request");
    if (request->system)
        request->system = kept_copy(request->system, &at);
    for (size_t i = 0; i < request->answer.n_stop; i++)
        request->stop[i] = kept_copy(request->stop[i], &at);
    fv_free(request->joined);
    request->joined = kept;
    request_free_items(request);
    request->items = NULL;
    request->n_items = request->items_capacity = request->n_images = 0;
    fv_json_free(request->doc);
    request->doc = NULL;
    request->body = NULL;
    request->model = NULL;
    return FV_OK;
}

/* ---- what is refused ---- */

static const char no_tools[] = "none: there are no tools here";
static const char parts_only[] = "none: images are parts of a message's content";

fv_status fv_request_refuse(const fv_request *request, const fv_json_value *object, const char *key,
                            const char *expected, fv_error *err)
{
    const fv_json_value *value = fv_json_member(object, key);
    const char *text;
    bool flag;
    bool none = fv_json_type_of(value) == FV_JSON_NULL ||
                (fv_json_as_bool(value, &flag) && !flag) ||
                (fv_json_as_string(value, &text) && !*text) ||
                (fv_json_type_of(value) == FV_JSON_ARRAY && !fv_json_count(value));
    return none ? FV_OK : fv_json_unexpected(request->doc, object, key, expected, err);
}

/* A name, and the one number that changes nothing. */
typedef struct neutral_number {
    const char *key;
    double only;
} neutral_number;

static fv_status numbers_refuse(const fv_request *request, const fv_json_value *object,
                                const neutral_number *numbers, size_t n, fv_error *err)
{
    double value;
    for (size_t i = 0; i < n; i++)
        FV_TRY(fv_json_opt_number(request->doc, object, numbers[i].key, numbers[i].only,
                                  numbers[i].only, &value, err));
    return FV_OK;
}

/* ---- the conversation ---- */

static fv_status item_add(fv_request *request, fv_request_item_kind kind, const char *place,
                          fv_request_item **out, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(request->items, request->n_items, request->items_capacity, 1, err));
    fv_request_item *item = *out = &request->items[request->n_items++];
    *item = (fv_request_item){ .kind = kind };
    snprintf(item->place, sizeof item->place, "%s", place);
    return FV_OK;
}

static void item_hash(fv_request_item *item, const void *bytes, size_t n)
{
    fv_sha256 sha;
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, bytes, n);
    fv_sha256_end(&sha, item->digest);
}

static fv_status item_add_text(fv_request *request, fv_request_item_kind kind, const char *text,
                               const char *place, fv_error *err)
{
    fv_request_item *item;
    FV_TRY(item_add(request, kind, place, &item, err));
    item->text = text;
    item->n_bytes = strlen(text);
    item_hash(item, text, item->n_bytes);
    return FV_OK;
}

fv_status fv_request_add_text(fv_request *request, const char *text, const char *place,
                              fv_error *err)
{
    return *text ? item_add_text(request, FV_REQUEST_TEXT, text, place, err) : FV_OK;
}

fv_status fv_request_begin_user(fv_request *request, const char *place, fv_error *err)
{
    bool turn_open = request->n_items &&
                     request->items[request->n_items - 1].kind != FV_REQUEST_ANSWER;
    return turn_open ? item_add_text(request, FV_REQUEST_TEXT, "\n", place, err) : FV_OK;
}

fv_status fv_request_add_answer(fv_request *request, const char *text, const char *place,
                                fv_error *err)
{
    if (!request->n_items || request->items[request->n_items - 1].kind == FV_REQUEST_ANSWER)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       DOC_NAME ": %s: an assistant's message follows a user's; there is none",
                       place);
    return item_add_text(request, FV_REQUEST_ANSWER, text, place, err);
}

fv_status fv_request_add_system(fv_request *request, const char *text, const char *place,
                                fv_error *err)
{
    if (request->n_items)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       DOC_NAME ": %s: system messages come before all others", place);
    if (!request->system) {
        request->system = text;
        return FV_OK;
    }
    size_t n = strlen(request->system) + strlen(text) + 2;
    char *joined = fv_alloc(n, 1);
    if (!joined)
        return fv_fail_memory(err, n, "the system prompt");
    snprintf(joined, n, "%s\n%s", request->system, text);
    fv_free(request->joined);
    request->system = request->joined = joined;
    return FV_OK;
}

fv_status fv_request_add_image(fv_request *request, const char *base64, size_t n, const char *place,
                               const fv_request_limits *limits, fv_error *err)
{
    fv_request_item *item;
    fv_error why;
    if (request->n_images == limits->max_images)
        return fv_fail(err, FV_ERR_LIMIT, 0, DOC_NAME ": %s: more than %zu images", place,
                       limits->max_images);
    FV_TRY(item_add(request, FV_REQUEST_IMAGE, place, &item, err));
    request->n_images++;
    if (fv_base64_read(base64, n, &item->image, &item->n_image, &why) != FV_OK)
        return fv_fail(err, why.status, why.at, DOC_NAME ": %s: %s", place, why.message);
    if (!item->n_image)
        return fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": %s: the image is empty", place);
    item_hash(item, item->image, item->n_image);
    return FV_OK;
}

fv_status fv_request_check(const fv_request *request, fv_error *err)
{
    if (!request->n_items)
        return fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": messages: expected a user's message");
    if (request->items[request->n_items - 1].kind == FV_REQUEST_ANSWER)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       DOC_NAME ": messages: the last one is the assistant's; expected the user's");
    return FV_OK;
}

/* "data:image/png;base64,..." */
static fv_status data_url_add(fv_request *request, const char *url, const char *place,
                              const fv_request_limits *limits, fv_error *err)
{
    const char *comma = fv_ascii_begins(url, "data:") ? strchr(url, ',') : NULL;
    if (!fv_ascii_begins(url, "data:"))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       DOC_NAME ": %s: expected a data: URL; no address is fetched and no file "
                                "opened",
                       place);
    if (!comma || comma - url < 12 || comma - url > 256 || strncmp(comma - 7, ";base64", 7) != 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       DOC_NAME ": %s: expected data:image/...;base64,... with an image", place);
    return fv_request_add_image(request, comma + 1, strlen(comma + 1), place, limits, err);
}

/* ---- OpenAI's messages ---- */

/* image_url is {"url": ...}, or the address itself as some clients write it. */
static fv_status image_part_read(fv_request *request, const fv_json_value *part, const char *place,
                                 const fv_request_limits *limits, fv_error *err)
{
    const fv_json_value *image = NULL;
    const char *url = NULL;
    if (!fv_json_as_string(fv_json_member(part, "image_url"), &url)) {
        FV_TRY(fv_json_object(request->doc, part, "image_url", &image, err));
        FV_TRY(fv_json_string(request->doc, image, "url", &url, err));
    }
    return data_url_add(request, url, place, limits, err);
}

static fv_status part_read(fv_request *request, const fv_json_value *part, const char *place,
                           const fv_request_limits *limits, const char **text, fv_error *err)
{
    const char *type;
    *text = NULL;
    if (fv_json_type_of(part) != FV_JSON_OBJECT)
        return fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": %s: expected an object, found %s", place,
                       fv_json_type_name(part));
    FV_TRY(fv_json_string(request->doc, part, "type", &type, err));
    if (!strcmp(type, "text"))
        return fv_json_string(request->doc, part, "text", text, err);
    if (!strcmp(type, "image_url") && limits)
        return image_part_read(request, part, place, limits, err);
    return fv_json_unexpected(request->doc, part, "type",
                              limits ? "\"text\" or \"image_url\"" : "\"text\"", err);
}

typedef enum speaker { SPEAKER_USER, SPEAKER_ASSISTANT, SPEAKER_SYSTEM } speaker;

static fv_status words_add(fv_request *request, speaker who, const char *text, const char *place,
                           fv_error *err)
{
    return who == SPEAKER_USER        ? fv_request_add_text(request, text, place, err)
           : who == SPEAKER_ASSISTANT ? fv_request_add_answer(request, text, place, err)
                                      : fv_request_add_system(request, text, place, err);
}

/* The parts of an answer, one behind the other, are one text. */
static fv_status answer_parts_read(fv_request *request, const fv_json_value *parts, size_t index,
                                   fv_error *err)
{
    char *joined = NULL, place[48];
    const char *text;
    size_t n = 0, capacity = 0;
    fv_status status = FV_OK;
    for (size_t i = 0; status == FV_OK && i < fv_json_count(parts); i++) {
        snprintf(place, sizeof place, "messages[%zu].content[%zu]", index, i);
        status = part_read(request, fv_json_at(parts, i), place, NULL, &text, err);
        size_t n_text = status == FV_OK ? strlen(text) : 0;
        if (status == FV_OK)
            status = FV_LIST_ROOM(joined, n, capacity, n_text + 1, err);
        if (status == FV_OK)
            memcpy(joined + n, text, n_text + 1);
        n += n_text;
    }
    snprintf(place, sizeof place, "messages[%zu].content", index);
    if (status == FV_OK)
        status = fv_request_add_answer(request, joined, place, err);
    if (status == FV_OK)
        request->items[request->n_items - 1].joined = joined;
    else
        fv_free(joined);
    return status;
}

/* content: a text, or parts of which only a user's may be images. */
static fv_status content_read(fv_request *request, const fv_json_value *message, speaker who,
                              size_t index, const fv_request_limits *limits, fv_error *err)
{
    const fv_json_value *content = fv_json_member(message, "content");
    const char *text;
    char place[48];
    snprintf(place, sizeof place, "messages[%zu].content", index);
    if (fv_json_as_string(content, &text))
        return words_add(request, who, text, place, err);
    if (fv_json_type_of(content) == FV_JSON_STRING) /* one with a NUL: the reason */
        return fv_json_string(request->doc, message, "content", &text, err);
    if (fv_json_type_of(content) == FV_JSON_NULL && who == SPEAKER_ASSISTANT)
        return words_add(request, who, "", place, err);
    if (fv_json_type_of(content) != FV_JSON_ARRAY)
        return fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": %s: expected text or parts, found %s",
                       place, fv_json_type_name(content));
    if (!fv_json_count(content))
        return fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": %s: 0 parts; expected 1 or more", place);
    if (who == SPEAKER_ASSISTANT)
        return answer_parts_read(request, content, index, err);
    for (size_t i = 0; i < fv_json_count(content); i++) {
        snprintf(place, sizeof place, "messages[%zu].content[%zu]", index, i);
        FV_TRY(part_read(request, fv_json_at(content, i), place,
                         who == SPEAKER_USER ? limits : NULL, &text, err));
        if (text)
            FV_TRY(words_add(request, who, text, place, err));
    }
    return FV_OK;
}

static fv_status message_read(fv_request *request, const fv_json_value *message, size_t index,
                              const fv_request_limits *limits, fv_error *err)
{
    const char *role;
    char place[48];
    snprintf(place, sizeof place, "messages[%zu]", index);
    if (fv_json_type_of(message) != FV_JSON_OBJECT)
        return fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": %s: expected an object, found %s", place,
                       fv_json_type_name(message));
    FV_TRY(fv_json_string(request->doc, message, "role", &role, err));
    FV_TRY(fv_request_refuse(request, message, "tool_calls", no_tools, err));
    FV_TRY(fv_request_refuse(request, message, "images", parts_only, err));
    if (!strcmp(role, "assistant"))
        return content_read(request, message, SPEAKER_ASSISTANT, index, limits, err);
    if (!strcmp(role, "system") || !strcmp(role, "developer"))
        return content_read(request, message, SPEAKER_SYSTEM, index, limits, err);
    if (strcmp(role, "user") != 0)
        return fv_json_unexpected(request->doc, message, "role",
                                  "\"user\", \"assistant\", \"system\" or \"developer\"", err);
    FV_TRY(fv_request_begin_user(request, place, err));
    return content_read(request, message, SPEAKER_USER, index, limits, err);
}

/* ---- how the answer is chosen ---- */

static fv_status real_read(const fv_request *request, const fv_json_value *options, const char *key,
                           double min, double max, float *out, fv_error *err)
{
    double value = (double)*out;
    FV_TRY(fv_json_opt_number(request->doc, options, key, min, max, &value, err));
    *out = (float)value;
    return FV_OK;
}

static fv_status stop_read(fv_request *request, const fv_json_value *options, fv_error *err)
{
    const fv_json_value *stop = fv_json_member(options, "stop");
    size_t n = fv_json_type_of(stop) == FV_JSON_ARRAY ? fv_json_count(stop) : 1;
    if (fv_json_type_of(stop) == FV_JSON_NULL)
        return FV_OK;
    if (n > FV_REQUEST_MAX_STOP)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, DOC_NAME ": stop: %zu strings; expected up to %d",
                       n, FV_REQUEST_MAX_STOP);
    for (size_t i = 0; i < n; i++) {
        const fv_json_value *one = fv_json_type_of(stop) == FV_JSON_ARRAY ? fv_json_at(stop, i)
                                                                          : stop;
        if (!fv_json_as_string(one, &request->stop[i]) || !*request->stop[i])
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           DOC_NAME ": stop: expected text that is not empty, or a list of such");
    }
    request->answer.stop = request->stop;
    request->answer.n_stop = n;
    return FV_OK;
}

/* The penalty here is over all tokens before, which others call the last -1. */
static fv_status penalty_read(fv_request *request, const fv_json_value *options, fv_error *err)
{
    static const neutral_number span = { "repeat_last_n", -1 };
    float *penalty = &request->answer.repetition_penalty;
    FV_TRY(real_read(request, options, "repeat_penalty", 0.01, 100, penalty, err));
    FV_TRY(real_read(request, options, "repetition_penalty", 0.01, 100, penalty, err));
    bool off = *penalty == 0 || *penalty == 1;
    return off ? FV_OK : numbers_refuse(request, options, &span, 1, err);
}

fv_status fv_request_read_sampling(fv_request *request, const fv_json_value *options, fv_error *err)
{
    /* llama.cpp's and Ollama's ways to sample that do not exist here, off */
    static const neutral_number neutral[] = {
        { "presence_penalty", 0 },
        { "frequency_penalty", 0 },
        { "mirostat", 0 },
        { "typical_p", 1 },
        { "tfs_z", 1 },
        { "top_n_sigma", -1 },
        { "dynatemp_range", 0 },
        { "dry_multiplier", 0 },
        { "xtc_probability", 0 },
    };
    const fv_json *doc = request->doc;
    fv_answer_options *a = &request->answer;
    int64_t top_k = 0, seed = INT64_MIN;
    float top_p = 1;
    FV_TRY(numbers_refuse(request, options, neutral, FV_COUNT(neutral), err));
    FV_TRY(real_read(request, options, "temperature", 0, 2, &a->temperature, err));
    FV_TRY(real_read(request, options, "top_p", 0, 1, &top_p, err));
    FV_TRY(real_read(request, options, "min_p", 0, 1, &a->min_p, err));
    FV_TRY(penalty_read(request, options, err));
    FV_TRY(fv_json_opt_int(doc, options, "top_k", -1, INT32_MAX, &top_k, err));
    FV_TRY(fv_json_opt_int(doc, options, "seed", INT64_MIN, INT64_MAX, &seed, err));
    a->top_p = top_p > 0 ? top_p : 1e-6f; /* 0 is "the best alone", to the library "off" */
    a->top_k = top_k > 0 ? (int)top_k : 0;
    if (fv_json_type_of(fv_json_member(options, "seed")) == FV_JSON_INT) {
        a->seed = (uint64_t)seed;
        request->random_seed = false;
    }
    return stop_read(request, options, err);
}

/* An integer at least 1, by the first of two names that is there. */
static fv_status max_tokens_read(fv_request *request, const fv_json_value *root, fv_error *err)
{
    int64_t n = 0;
    FV_TRY(fv_json_opt_int(request->doc, root, "max_tokens", 1, INT32_MAX, &n, err));
    FV_TRY(fv_json_opt_int(request->doc, root, "max_completion_tokens", 1, INT32_MAX, &n, err));
    request->answer.max_new_tokens = (int)n;
    return FV_OK;
}

static fv_status logprobs_read(fv_request *request, const fv_json_value *root, fv_error *err)
{
    int64_t n = 0;
    FV_TRY(fv_json_opt_bool(request->doc, root, "logprobs", &request->logprobs, err));
    FV_TRY(fv_json_opt_int(request->doc, root, "top_logprobs", 0, MAX_TOP_LOGPROBS, &n, err));
    if (n && !request->logprobs)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       DOC_NAME ": top_logprobs: expected logprobs to be true");
    request->n_top_logprobs = (int)n;
    request->answer.n_logprobs = request->logprobs ? FV_MAX((int)n, 1) : 0;
    return FV_OK;
}

/* {"123": -100, ...}: ids as keys. */
static fv_status bias_read(fv_request *request, const fv_json_value *root,
                           const fv_request_limits *limits, fv_error *err)
{
    const fv_json_value *map = NULL, *value;
    const char *key;
    void *iter = NULL;
    FV_TRY(fv_json_opt_object(request->doc, root, "logit_bias", &map, err));
    size_t n = fv_json_count(map), at = 0;
    if (!n)
        return FV_OK;
    if (n > FV_REQUEST_MAX_BIAS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, DOC_NAME ": logit_bias: %zu ids; expected up to %d",
                       n, FV_REQUEST_MAX_BIAS);
    request->bias = fv_alloc(n, sizeof *request->bias);
    if (!request->bias)
        return fv_fail_memory(err, n * sizeof *request->bias, "logit_bias");
    while (fv_json_next(map, &iter, &key, &value)) {
        size_t digits = strspn(key, "0123456789");
        unsigned long id = digits && digits < 10 ? strtoul(key, NULL, 10) : limits->n_tokens;
        double bias;
        if (key[digits] || id >= limits->n_tokens)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           DOC_NAME ": logit_bias: expected ids below %zu as keys",
                           limits->n_tokens);
        if (!fv_json_as_number(value, &bias) || !(bias >= -100 && bias <= 100))
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           DOC_NAME ": logit_bias: expected numbers in [-100, 100]");
        /* -100 is a ban in OpenAI's words */
        request->bias[at++] = (fv_logit_bias){ .id = (int32_t)id,
                                               .bias = bias > -100 ? (float)bias : -INFINITY };
    }
    request->answer.bias = request->bias;
    request->answer.n_bias = n;
    return FV_OK;
}

/* ---- the format of the answer ---- */

/* What the writer cannot write as it was read. */
typedef struct schema_faults {
    bool too_deep;
    bool lost; /* text with a NUL or half a surrogate pair, a number out of range */
} schema_faults;

static void value_write(fv_json_text *j, const char *key, const fv_json_value *value, int depth,
                        schema_faults *faults)
{
    const fv_json_value *member;
    const char *text, *name;
    int64_t integer;
    double real;
    bool flag;
    void *iter = NULL;
    bool object = fv_json_type_of(value) == FV_JSON_OBJECT;
    if (object || fv_json_type_of(value) == FV_JSON_ARRAY) {
        faults->too_deep = faults->too_deep || depth == MAX_SCHEMA_DEPTH;
        if (faults->too_deep)
            return;
        fv_json_begin(j, key, object ? '{' : '[');
        while (object && fv_json_next(value, &iter, &name, &member))
            value_write(j, name, member, depth + 1, faults);
        for (size_t i = 0; !object && i < fv_json_count(value); i++)
            value_write(j, NULL, fv_json_at(value, i), depth + 1, faults);
        fv_json_end(j);
    } else if (fv_json_as_string(value, &text)) {
        fv_json_put_text(j, key, text);
    } else if (fv_json_as_int(value, &integer)) {
        fv_json_put_int(j, key, integer);
    } else if (fv_json_type_of(value) == FV_JSON_REAL && fv_json_as_number(value, &real) &&
               isfinite(real)) {
        fv_json_put_real(j, key, real);
    } else if (fv_json_as_bool(value, &flag)) {
        fv_json_put_bool(j, key, flag);
    } else {
        faults->lost = faults->lost || fv_json_type_of(value) != FV_JSON_NULL;
        fv_json_put_text(j, key, NULL);
    }
}

fv_status fv_request_set_schema(fv_request *request, const fv_json_value *schema, fv_error *err)
{
    fv_json_text j = { .compact = true };
    schema_faults faults = { 0 };
    value_write(&j, NULL, schema, 0, &faults);
    fv_status status = fv_json_done(&j, err);
    if (faults.too_deep)
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         DOC_NAME ": response_format: the schema is more than %d levels deep",
                         MAX_SCHEMA_DEPTH);
    else if (faults.lost)
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         DOC_NAME
                         ": response_format: the schema holds a text or number that cannot "
                         "be taken as it is: NUL, half a surrogate pair, beyond the range "
                         "of numbers");
    if (status != FV_OK) {
        fv_json_text_free(&j);
        return status;
    }
    fv_free(request->schema_text);
    request->schema_text = j.text;
    request->format = FV_REQUEST_FORMAT_SCHEMA;
    return FV_OK;
}

const char *fv_request_schema(const fv_request *request)
{
    return request->format == FV_REQUEST_FORMAT_TEXT     ? NULL
           : request->format == FV_REQUEST_FORMAT_SCHEMA ? request->schema_text
                                                         : "{\"type\":\"object\"}";
}

fv_status fv_request_check_json(const fv_request *request, fv_error *err)
{
    return request->answer.n_stop
               ? fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         DOC_NAME ": stop: would cut off the JSON that is asked for")
               : FV_OK;
}

fv_status fv_request_refuse_schema(const fv_error *why, fv_error *err)
{
    fv_error own = *why;
    if (own.status == FV_ERR_MEMORY && err)
        *err = own;
    return own.status == FV_ERR_MEMORY
               ? own.status
               : fv_fail(err, FV_ERR_UNSUPPORTED, 0, DOC_NAME ": response_format: %s", own.message);
}

/* OpenAI nests a schema in response_format.json_schema.schema; llama.cpp's server takes it in
 * response_format.schema, too, or as json_schema beside response_format. */
static fv_status format_read(fv_request *request, const fv_json_value *root, fv_error *err)
{
    const fv_json *doc = request->doc;
    const fv_json_value *format = NULL, *outer = NULL, *schema = NULL;
    const char *type;
    FV_TRY(fv_json_opt_object(doc, root, "json_schema", &schema, err));
    if (schema)
        FV_TRY(fv_request_set_schema(request, schema, err));
    FV_TRY(fv_json_opt_object(doc, root, "response_format", &format, err));
    if (!format)
        return FV_OK;
    FV_TRY(fv_json_string(doc, format, "type", &type, err));
    if (!strcmp(type, "text"))
        return FV_OK;
    if (strcmp(type, "json_object") != 0 && strcmp(type, "json_schema") != 0)
        return fv_json_unexpected(doc, format, "type",
                                  "\"text\", \"json_object\" or \"json_schema\"", err);
    if (schema)
        return fv_json_unexpected(doc, root, "json_schema", "none beside response_format", err);
    request->format = FV_REQUEST_FORMAT_JSON;
    FV_TRY(fv_json_opt_object(doc, format, "json_schema", &outer, err));
    FV_TRY(fv_json_opt_object(doc, outer ? outer : format, "schema", &schema, err));
    if (schema)
        return fv_request_set_schema(request, schema, err);
    if (!strcmp(type, "json_object"))
        return FV_OK;
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   DOC_NAME ": response_format: expected json_schema.schema or schema");
}

/* ---- the whole request ---- */

/* "none" and "auto" leave nothing to do where there are no tools. */
static fv_status tool_choice_refuse(const fv_request *request, const fv_json_value *root,
                                    const char *key, fv_error *err)
{
    const char *choice;
    if (fv_json_as_string(fv_json_member(root, key), &choice) &&
        (!strcmp(choice, "none") || !strcmp(choice, "auto")))
        return FV_OK;
    return fv_request_refuse(request, root, key, no_tools, err);
}

/* What would change the answer and cannot be done: of OpenAI's names, and of those that llama.cpp,
 * vLLM and SGLang added. */
static fv_status unsupported_refuse(const fv_request *request, const fv_json_value *root,
                                    fv_error *err)
{
    static const neutral_number neutral[] = {
        { "n", 1 },          { "best_of", 1 },        { "n_predict", -1 },
        { "min_tokens", 0 }, { "length_penalty", 1 }, { "num_beams", 1 },
        { "top_a", 0 },
    };
    static const char *const always[] = { "add_generation_prompt", "skip_special_tokens" };
    static const char by_schema[] = "none: response_format takes a JSON schema";
    static const char not_here[] = "none: not supported";
    static const struct {
        const char *key, *expected;
    } others[] = {
        { "tools", no_tools },
        { "functions", no_tools },
        { "grammar", by_schema },
        { "guided_json", by_schema },
        { "guided_regex", by_schema },
        { "guided_choice", by_schema },
        { "guided_grammar", by_schema },
        { "structured_outputs", by_schema },
        { "regex", by_schema },
        { "ebnf", by_schema },
        { "samplers", not_here },
        { "ignore_eos", not_here },
        { "use_beam_search", not_here },
        { "bad_words", not_here },
        { "stop_token_ids", not_here },
        { "allowed_token_ids", not_here },
        { "continue_final_message", not_here },
        { "chat_template", "none: prompts have one form here" },
        { "include_stop_str_in_output", not_here },
        { "truncate_prompt_tokens", not_here },
        { "mm_processor_kwargs", not_here },
        { "logits_processors", not_here },
        { "n_probs", "none: logprobs and top_logprobs are supported" },
        { "images", parts_only },
        { "web_search_options", "none: nothing is fetched" },
    };
    FV_TRY(numbers_refuse(request, root, neutral, FV_COUNT(neutral), err));
    for (size_t i = 0; i < FV_COUNT(others); i++)
        FV_TRY(fv_request_refuse(request, root, others[i].key, others[i].expected, err));
    for (size_t i = 0; i < FV_COUNT(always); i++) {
        bool on = true;
        FV_TRY(fv_json_opt_bool(request->doc, root, always[i], &on, err));
        if (!on)
            return fv_json_unexpected(request->doc, root, always[i], "true", err);
    }
    FV_TRY(tool_choice_refuse(request, root, "tool_choice", err));
    FV_TRY(tool_choice_refuse(request, root, "function_call", err));
    const fv_json_value *modalities = fv_json_member(root, "modalities");
    const char *only = "";
    if (fv_json_type_of(modalities) != FV_JSON_NULL &&
        !(fv_json_count(modalities) == 1 && fv_json_as_string(fv_json_at(modalities, 0), &only) &&
          !strcmp(only, "text")))
        return fv_json_unexpected(request->doc, root, "modalities", "[\"text\"]", err);
    return FV_OK;
}

static fv_status chat_read(fv_request *request, const fv_request_limits *limits, fv_error *err)
{
    const fv_json *doc = request->doc;
    const fv_json_value *root = request->body, *messages, *stream_options = NULL;
    FV_TRY(fv_json_opt_string(doc, root, "model", &request->model, err));
    FV_TRY(fv_json_opt_bool(doc, root, "stream", &request->stream, err));
    FV_TRY(fv_json_opt_object(doc, root, "stream_options", &stream_options, err));
    FV_TRY(fv_json_opt_bool(doc, stream_options, "include_usage", &request->include_usage, err));
    FV_TRY(unsupported_refuse(request, root, err));
    FV_TRY(fv_request_read_sampling(request, root, err));
    FV_TRY(max_tokens_read(request, root, err));
    FV_TRY(logprobs_read(request, root, err));
    FV_TRY(bias_read(request, root, limits, err));
    FV_TRY(format_read(request, root, err));
    FV_TRY(fv_json_array(doc, root, "messages", &messages, err));
    for (size_t i = 0; i < fv_json_count(messages); i++)
        FV_TRY(message_read(request, fv_json_at(messages, i), i, limits, err));
    return fv_request_check(request, err);
}

fv_status fv_request_take_chat(fv_request *out, fv_json *doc, const fv_json_value *body,
                               const fv_request_limits *limits, fv_error *err)
{
    FV_TRY(request_adopt(out, doc, body, err));
    fv_status status = chat_read(out, limits, err);
    if (status != FV_OK)
        fv_request_free(out);
    return status;
}

fv_status fv_request_read_chat(fv_request *out, const char *body, size_t n_body,
                               const fv_request_limits *limits, fv_error *err)
{
    fv_json *doc;
    FV_TRY(request_parse(&doc, body, n_body, err));
    return fv_request_take_chat(out, doc, fv_json_root(doc), limits, err);
}

/* ---- images to embed ---- */

/* A data: URL, {"image": URL}, or a part of a message. */
static fv_status embedded_read(fv_request *request, const fv_json_value *input, const char *place,
                               const fv_request_limits *limits, fv_error *err)
{
    const char *url;
    if (fv_json_as_string(input, &url) || fv_json_as_string(fv_json_member(input, "image"), &url))
        return data_url_add(request, url, place, limits, err);
    if (fv_json_type_of(input) == FV_JSON_OBJECT)
        return image_part_read(request, input, place, limits, err);
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   DOC_NAME ": %s: expected a data: URL of an image, found %s", place,
                   fv_json_type_name(input));
}

static fv_status embeddings_read(fv_request *request, const fv_request_limits *limits,
                                 fv_error *err)
{
    const fv_json *doc = request->doc;
    const fv_json_value *root = request->body, *input = fv_json_member(root, "input");
    const char *encoding = "float";
    FV_TRY(fv_json_opt_string(doc, root, "model", &request->model, err));
    FV_TRY(fv_json_opt_string(doc, root, "encoding_format", &encoding, err));
    request->base64 = !strcmp(encoding, "base64");
    if (!request->base64 && strcmp(encoding, "float") != 0)
        return fv_json_unexpected(doc, root, "encoding_format", "\"float\" or \"base64\"", err);
    if (fv_json_type_of(fv_json_member(root, "dimensions")) != FV_JSON_NULL)
        return fv_json_unexpected(doc, root, "dimensions", "none: the width is the model's", err);
    if (fv_json_type_of(input) != FV_JSON_ARRAY)
        return embedded_read(request, input, "input", limits, err);
    for (size_t i = 0; i < fv_json_count(input); i++) {
        char place[48];
        snprintf(place, sizeof place, "input[%zu]", i);
        FV_TRY(embedded_read(request, fv_json_at(input, i), place, limits, err));
    }
    return request->n_items
               ? FV_OK
               : fv_fail(err, FV_ERR_FORMAT, 0, DOC_NAME ": input: expected an image or more");
}

fv_status fv_request_read_embeddings(fv_request *out, const char *body, size_t n_body,
                                     const fv_request_limits *limits, fv_error *err)
{
    FV_TRY(fv_request_open(out, body, n_body, err));
    fv_status status = embeddings_read(out, limits, err);
    if (status != FV_OK)
        fv_request_free(out);
    return status;
}
