/* failure: what went wrong, in OpenAI's words. */
#ifndef FV_OPENAI_FAILURE_H
#define FV_OPENAI_FAILURE_H

#include "base/base.h"
#include "io/json_write.h"

/* HTTP's status of a failure, and OpenAI's code of it (or NULL). */
int fv_openai_status(const fv_error *err, const char **code);
/* {"error": {"message", "type", "param", "code"}}. code may be NULL. */
void fv_openai_put_error(fv_json_text *j, const char *key, int status, const char *code,
                         const char *message);

#endif
