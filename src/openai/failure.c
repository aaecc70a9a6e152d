/* Failures in OpenAI's words. See failure.h. */
#include "openai/failure.h"

#include <string.h>

int fv_openai_status(const fv_error *err, const char **code)
{
    static const char of_request[] = "request: ";
    bool request = !strncmp(err->message, of_request, sizeof of_request - 1);
    *code = NULL;
    switch (err->status) {
    case FV_ERR_ARGUMENT:
    case FV_ERR_FORMAT:
    case FV_ERR_UNSUPPORTED: return 400;
    case FV_ERR_LIMIT:
        *code = request ? "too_large" : "context_length_exceeded";
        return request ? 413 : 400;
    case FV_ERR_MEMORY:
    case FV_ERR_STATE:
    case FV_ERR_CANCELLED: *code = "unavailable"; return 503;
    default: return 500;
    }
}

/* The member that a message of the request's reader is about: "request: MEMBER: ..." or "request:
 * MEMBER is ...". */
static size_t message_param(const char *message, const char **param)
{
    static const char of_request[] = "request: ";
    if (strncmp(message, of_request, sizeof of_request - 1) != 0)
        return 0;
    *param = message + sizeof of_request - 1;
    size_t n = strcspn(*param, " :");
    bool about_body = n == 4 && !strncmp(*param, "this", 4); /* which is no JSON */
    return !about_body && ((*param)[n] == ':' || !strncmp(*param + n, " is ", 4)) ? n : 0;
}

void fv_openai_put_error(fv_json_text *j, const char *key, int status, const char *code,
                         const char *message)
{
    const char *param = NULL;
    size_t n_param = message_param(message, &param);
    fv_json_begin(j, key, '{');
    fv_json_begin(j, "error", '{');
    fv_json_put_text(j, "message", message);
    fv_json_put_text(j, "type",
                     status == 401   ? "authentication_error"
                     : status == 403 ? "permission_error"
                     : status == 404 ? "not_found_error"
                     : status == 429 ? "rate_limit_error"
                     : status >= 500 ? "server_error"
                                     : "invalid_request_error");
    if (n_param)
        fv_json_put_bytes(j, "param", param, n_param);
    else
        fv_json_put_text(j, "param", NULL);
    fv_json_put_text(j, "code", code);
    fv_json_end(j);
    fv_json_end(j);
}
