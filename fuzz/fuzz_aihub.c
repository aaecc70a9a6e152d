/* Bytes as a ledger of the AI Hub, as its client's configuration and as what the client prints:
 * what is found is what it says it is, and the secret is never in a message. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8_text.h"
#include "qairt/aihub_ledger.h"
#include "qairt/aihub_said.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define SECRET "s3cret"

static void id_see(const char *id, char letter)
{
    if (*id && !fv_aihub_is_id(id, letter))
        abort();
}

/* Text that goes into messages and ledgers. */
static void message_see(const char *text, size_t size)
{
    size_t n = strnlen(text, size);
    if (n == size || strstr(text, SECRET) || !fv_utf8_valid(text, n, NULL))
        abort();
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            abort();
}

static void ledger_see(char *text, size_t n_bytes)
{
    fv_aihub_ledger l = { .path = (char[]){ "ledger" }, .text = text, .n_bytes = n_bytes };
    fv_aihub_model m;
    fv_aihub_job j;
    fv_error err = { 0 };

    fv_status status = fv_aihub_model_find(&m, &l, "a", &err);
    if (status != FV_OK && (status != FV_ERR_FORMAT || !err.message[0]))
        abort();
    id_see(m.model_id, 'm');
    if (status == FV_OK && m.model_id[0] && !fv_aihub_ledger_has(&l, "a", m.model_id))
        abort();
    fv_aihub_job_find(&j, &l, "a");
    id_see(j.model_id, 'm');
    id_see(j.job_id, 'j');
    id_see(j.pending_model, 'm');
    if ((j.job_id[0] != 0) != (j.model_id[0] != 0) || strchr(j.file, '/') ||
        strnlen(j.message, sizeof j.message) == sizeof j.message)
        abort();
    fv_aihub_job_header(&j, &l);
}

static void line_see(fv_aihub_trace *trace, const char *line, size_t n)
{
    char id[FV_AIHUB_ID] = "";
    fv_aihub_said said;

    fv_aihub_upload_read(id, line, n);
    id_see(id, 'm');
    fv_aihub_said_read(&said, line, n, SECRET);
    id_see(said.model_id, 'm');
    id_see(said.job_id, 'j');
    message_see(said.message, sizeof said.message);
    message_see(said.url, sizeof said.url);
    message_see(said.error, sizeof said.error);
    fv_aihub_trace_take(trace, line, n, SECRET);
    message_see(trace->message, sizeof trace->message);
    message_see(trace->error, sizeof trace->error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    char *text = fv_alloc(n_bytes + 1, 1), small[16];
    fv_aihub_trace trace = { 0 };
    if (!text)
        return 0;
    memcpy(text, data, n_bytes);
    text[n_bytes] = '\0';
    ledger_see(text, n_bytes);
    fv_free(fv_aihub_config_value(text, "api_token"));
    for (size_t at = 0, n; at < n_bytes; at += n + 1) {
        const char *end = memchr(text + at, '\n', n_bytes - at);
        n = end ? (size_t)(end - text) - at : n_bytes - at;
        line_see(&trace, text + at, n);
    }
    fv_aihub_trouble_of(trace.error, trace.message);
    fv_aihub_clean(small, sizeof small, text, n_bytes, SECRET);
    message_see(small, sizeof small);
    fv_free(text);
    return 0;
}
