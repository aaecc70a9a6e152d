/* Answers in OpenAI's words. See completion.h. */
#include "openai/completion.h"

void fv_openai_put_head(fv_json_text *j, const char *object, const char *id, int64_t created,
                        const char *model)
{
    fv_json_put_text(j, "id", id);
    fv_json_put_text(j, "object", object);
    fv_json_put_int(j, "created", created);
    fv_json_put_text(j, "model", model);
    fv_json_put_text(j, "system_fingerprint", "fastvlm-" FV_VERSION);
}

void fv_openai_put_message(fv_json_text *j, const char *text, size_t n)
{
    fv_json_begin(j, "message", '{');
    fv_json_put_text(j, "role", "assistant");
    fv_json_put_bytes(j, "content", text, n);
    fv_json_put_text(j, "refusal", NULL);
    fv_json_end(j);
}

void fv_openai_put_usage(fv_json_text *j, const fv_stats *stats)
{
    fv_json_begin(j, "usage", '{');
    fv_json_put_int(j, "prompt_tokens", stats->prompt_tokens);
    fv_json_put_int(j, "completion_tokens", stats->new_tokens);
    fv_json_put_int(j, "total_tokens", stats->prompt_tokens + stats->new_tokens);
    fv_json_begin(j, "prompt_tokens_details", '{');
    fv_json_put_int(j, "cached_tokens", stats->reused_tokens);
    fv_json_put_int(j, "image_tokens", stats->image_tokens);
    fv_json_end(j);
    fv_json_end(j);
}

const char *fv_openai_finish(fv_finish finish)
{
    return finish == FV_FINISH_LENGTH ? "length" : "stop";
}
