/* Bytes as what genie-t2t-run prints, in pieces, and as the profile that it writes. */
#include <stdlib.h>
#include <string.h>

#include "qairt/genie_answer.h"
#include "qairt/qairt_tool.h"
#include "qairt/run_output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What is shown on the way is the text, or its beginning when it has no end. */
static void answer_see(const char *data, size_t n, size_t step)
{
    fv_genie_answer a = { 0 };
    fv_error err = { 0 };
    const char *text;
    size_t n_text, n_shown = 0;
    char *shown = fv_alloc(n + 1, 1);
    if (!shown)
        return;
    for (size_t at = 0; at < n; at += step) {
        if (fv_genie_answer_add(&a, data + at, FV_MIN(step, n - at), &err) != FV_OK)
            break;
        while (fv_genie_answer_next(&a, &text, &n_text)) {
            if (!n_text || n_shown + n_text > n)
                abort();
            memcpy(shown + n_shown, text, n_text);
            n_shown += n_text;
        }
    }
    fv_status status = fv_genie_answer_end(&a, &text, &n_text, &err);
    if (n_text > n || n_shown > n_text || memcmp(shown, text, n_shown) != 0)
        abort();
    if (status == FV_OK ? n_shown != n_text : !err.message[0])
        abort();
    fv_genie_answer_free(&a);
    fv_free(shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    unsigned numbers[4];
    fv_error err = { 0 };
    fv_run_profile p = fv_run_profile_none();
    answer_see((const char *)data, n_bytes, 1 + (n_bytes ? data[0] % 7 : 0));
    fv_status status = fv_run_profile_parse(&p, data, n_bytes, "profile", &err);
    if (status != FV_OK && (err.status != status || !err.message[0]))
        abort();
    char *text = fv_run_profile_text(&p);
    if (!text || strlen(text) > 400)
        abort();
    fv_free(text);
    text = fv_alloc(n_bytes + 1, 1);
    if (!text)
        return 0;
    memcpy(text, data, n_bytes);
    text[n_bytes] = 0;
    fv_sdk_version_parse(text, numbers);
    fv_free(text);
    return 0;
}
