/* openai_row: rows of OpenAI's batch files, and their results.
 *
 *     {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
 *     {"id":"batch_req_0","custom_id":"a","response":{"status_code":200,...},"error":null}
 *
 * The body is read by the server's reader, and the response's body is what the server answers, but
 * for what differs from run to run: "created" is 0, and no token counts as cached. */
#ifndef FV_OPENAI_ROW_H
#define FV_OPENAI_ROW_H

#include "batch/batch_run.h"
#include "io/json.h"

/* Is this line such a row? */
bool fv_openai_row_is(const fv_json_value *root);
/* Into a row that is zero but for its index. Takes doc, the line. */
fv_status fv_openai_row_read(fv_row *row, fv_json *doc, const fv_row_defaults *defaults,
                             fv_error *err);

/* The beginning of the result, and the rest; text: n bytes of UTF-8. model: where the row names
 * none. */
void fv_openai_row_put_head(const fv_row *row, fv_json_text *j);
void fv_openai_row_put_answer(const fv_slot *slot, const char *text, size_t n, const char *model,
                              fv_json_text *j);
void fv_openai_row_put_failure(const fv_row *row, fv_json_text *j);

#endif
