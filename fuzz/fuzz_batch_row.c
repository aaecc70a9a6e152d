/* Bytes as a list of a batch: what a line asks must be whole, what it does not must say why. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8_text.h"
#include "batch/row.h"
#include "openai/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What stays of a request outlives the line: read all of it. */
static void check_request_row(const fv_row *row)
{
    const fv_request *r = row->request;
    size_t n = r->system ? strlen(r->system) : 0;
    for (size_t i = 0; i < r->answer.n_stop; i++)
        n += strlen(r->answer.stop[i]);
    if (r->doc || r->body || r->items || r->model || !row->id || !row->is_key ||
        (fv_request_schema(r) && (r->answer.n_stop || !*fv_request_schema(r))) || n > (64 << 20))
        abort();
}

static void check_row(const fv_row *row)
{
    size_t n_images = 0;
    if (row->status != FV_OK && (row->n_parts || !row->problem || !row->problem[0]))
        abort();
    if (row->status == FV_OK && (!row->n_parts || row->problem))
        abort();
    for (size_t i = 0; i < row->n_parts; i++) {
        const fv_row_part *part = &row->parts[i];
        if (strlen(part->text) != part->n)
            abort();
        if (part->kind == FV_ROW_IMAGE)
            n_images += part->n > 0 && part->n <= FV_ROW_MAX_PATH + sizeof "root";
        else if (!fv_utf8_valid(part->text, part->n, NULL) ||
                 (!row->request && strstr(part->text, "<image>")))
            abort();
    }
    if (n_images > FV_ROW_MAX_IMAGES || (n_images && !row->image && !row->request))
        abort();
    if (row->request)
        check_request_row(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *at = (const char *)data, *end = at + n_bytes;
    const fv_row_defaults defaults = {
        .root = "root", .prompt = "What?", .n_prompt = 5, .n_tokens = 1000, .grammar = true
    };
    for (uint64_t i = 0; at < end; i++) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((line_end ? line_end : end) - at);
        fv_row row = { .index = i };
        fv_error err = { 0 };
        if (fv_row_read_line(&row, at, n, &defaults, &err) == FV_OK)
            check_row(&row);
        else if (err.status != FV_ERR_MEMORY)
            abort();
        fv_row_free(&row);
        at = line_end ? line_end + 1 : end;
    }
    return 0;
}
