/* OpenAI's batch files. See openai_row.h. */
#include "batch/openai_row.h"

#include <stdio.h>
#include <string.h>

#include "openai/completion.h"
#include "openai/failure.h"
#include "openai/request.h"

#define URL "/v1/chat/completions"

/* ---- requests ---------------------------------------------------------------------------- */

/* Without a custom_id it is one that lacks it, unless it has what other rows have. */
bool fv_openai_row_is(const fv_json_value *root)
{
    return fv_json_member(root, "body") &&
           (fv_json_member(root, "custom_id") ||
            (!fv_json_member(root, "image") && !fv_json_member(root, "prompt")));
}

/* custom_id is text: OpenAI's service refuses numbers. Messages say "request", and the way from the
 * body on, as the server's do. */
static fv_status envelope_read(fv_row *row, fv_json *doc, const fv_json_value **body, fv_error *err)
{
    const fv_json_value *root = fv_json_root(doc);
    const char *id, *method = "POST", *url = URL;
    FV_TRY(fv_json_enter(doc, root, "request", err));
    FV_TRY(fv_json_string(doc, root, "custom_id", &id, err));
    if (!(row->id = fv_strdup(id)))
        return fv_fail_memory(err, strlen(id), "a row");
    row->is_key = true;
    FV_TRY(fv_json_opt_string(doc, root, "method", &method, err));
    FV_TRY(fv_json_opt_string(doc, root, "url", &url, err));
    if (method && strcmp(method, "POST") != 0)
        return fv_json_unexpected(doc, root, "method", "\"POST\"", err);
    if (url && strcmp(url, URL) != 0)
        return fv_json_unexpected(doc, root, "url", "\"" URL "\"", err);
    FV_TRY(fv_json_object(doc, root, "body", body, err));
    return fv_json_enter(doc, *body, "request", err);
}

/* What the server does and a batch does not. */
static fv_status request_check_batch(const fv_request *r, const fv_row_defaults *d, fv_error *err)
{
    if (r->stream)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "request: stream: answers of a batch come whole; expected false");
    if (r->logprobs)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "request: logprobs: a batch has none; expected false");
    if (fv_request_schema(r) && !d->grammar)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "request: response_format: this run has no grammar, which JSON answers "
                       "need; expected \"text\"");
    return fv_request_schema(r) || d->json ? fv_request_check_json(r, err) : FV_OK;
}

/* The conversation; images move over. */
static fv_status request_give_parts(fv_request *r, fv_row *row, fv_error *err)
{
    for (size_t i = 0; i < r->n_items; i++) {
        fv_request_item *item = &r->items[i];
        if (item->kind == FV_REQUEST_IMAGE) {
            FV_TRY(fv_row_add(row, FV_ROW_IMAGE, item->place, strlen(item->place), err));
            row->parts[row->n_parts - 1].data = item->image;
            row->parts[row->n_parts - 1].n_data = item->n_image;
            item->image = NULL;
        } else {
            FV_TRY(fv_row_add(row, item->kind == FV_REQUEST_TEXT ? FV_ROW_TEXT : FV_ROW_ANSWER,
                              item->text, item->n_bytes, err));
        }
    }
    return FV_OK;
}

fv_status fv_openai_row_read(fv_row *row, fv_json *doc, const fv_row_defaults *d, fv_error *err)
{
    const fv_request_limits limits = { .max_images = FV_ROW_MAX_IMAGES, .n_tokens = d->n_tokens };
    const fv_json_value *body = NULL;
    fv_request *r = fv_alloc_zero(1, sizeof *r);
    fv_status status = r ? envelope_read(row, doc, &body, err)
                         : fv_fail_memory(err, sizeof *r, "a request");
    if (status != FV_OK) {
        fv_json_free(doc);
        fv_free(r);
        return status;
    }
    status = fv_request_take_chat(r, doc, body, &limits, err);
    if (status != FV_OK) {
        fv_free(r);
        return status;
    }
    row->request = r; /* the row's from here on, also when it fails */
    FV_TRY(request_check_batch(r, d, err));
    if (r->model && !(row->model = fv_strdup(r->model)))
        return fv_fail_memory(err, strlen(r->model), "a row");
    FV_TRY(request_give_parts(r, row, err));
    return fv_request_drop_conversation(r, err); /* the row may wait for long */
}

/* ---- results ----------------------------------------------------------------------------- */

void fv_openai_row_put_head(const fv_row *row, fv_json_text *j)
{
    char id[40];
    snprintf(id, sizeof id, "batch_req_%" PRIu64, row->index);
    j->compact = true;
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "id", id);
    fv_json_put_text(j, "custom_id", row->id ? row->id : row->image);
}

static void response_begin(const fv_row *row, int status, fv_json_text *j)
{
    char id[40];
    snprintf(id, sizeof id, "req_%" PRIu64, row->index);
    fv_json_begin(j, "response", '{');
    fv_json_put_int(j, "status_code", status);
    fv_json_put_text(j, "request_id", id);
}

static void response_end(fv_json_text *j)
{
    fv_json_end(j);
    fv_json_put_text(j, "error", NULL);
    fv_json_end(j);
}

void fv_openai_row_put_answer(const fv_slot *slot, const char *text, size_t n, const char *model,
                              fv_json_text *j)
{
    const fv_stats stats = { .prompt_tokens = slot->prompt_tokens,
                             .image_tokens = slot->image_tokens,
                             .new_tokens = slot->new_tokens };
    char id[40];
    snprintf(id, sizeof id, "chatcmpl-%" PRIu64, slot->row.index);
    response_begin(&slot->row, 200, j);
    fv_json_begin(j, "body", '{');
    fv_openai_put_head(j, "chat.completion", id, 0, slot->row.model ? slot->row.model : model);
    fv_json_begin(j, "choices", '[');
    fv_json_begin(j, NULL, '{');
    fv_json_put_int(j, "index", 0);
    fv_openai_put_message(j, text, n);
    fv_json_put_text(j, "logprobs", NULL);
    fv_json_put_text(j, "finish_reason", fv_openai_finish(slot->finish));
    fv_json_end(j);
    fv_json_end(j);
    fv_openai_put_usage(j, &stats);
    fv_json_end(j);
    response_end(j);
}

void fv_openai_row_put_failure(const fv_row *row, fv_json_text *j)
{
    fv_error err;
    const char *code;
    (void)fv_fail(&err, row->status, 0, "%s", row->problem);
    int status = fv_openai_status(&err, &code);
    if (row->status == FV_ERR_LIMIT && row->begun) { /* nothing that was asked is too large */
        status = 400;
        code = NULL;
    } else if (row->status == FV_ERR_LIMIT && !row->too_long) {
        status = 413;
        code = "too_large";
    } else if (row->status == FV_ERR_IO) { /* of its image, which the asker named */
        status = 400;
    }
    response_begin(row, status, j);
    fv_openai_put_error(j, "body", status, code, err.message);
    response_end(j);
}
