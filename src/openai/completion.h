/* completion: the parts of an answer in OpenAI's words.
 *
 *     {HEAD, "choices": [{"index": 0, MESSAGE, "finish_reason": FINISH}], USAGE} */
#ifndef FV_OPENAI_COMPLETION_H
#define FV_OPENAI_COMPLETION_H

#include "base/base.h"
#include "io/json_write.h"

/* "id", "object", "created" (seconds since 1970), "model", "system_fingerprint". */
void fv_openai_put_head(fv_json_text *j, const char *object, const char *id, int64_t created,
                        const char *model);
/* "message", of n bytes of UTF-8. */
void fv_openai_put_message(fv_json_text *j, const char *text, size_t n);
/* "usage". */
void fv_openai_put_usage(fv_json_text *j, const fv_stats *stats);
/* For "finish_reason". */
const char *fv_openai_finish(fv_finish finish);

#endif
