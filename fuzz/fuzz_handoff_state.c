/* Bytes as the manifest of a handoff: what is read must stay below its directory, what is not must
 * say why. */
#include <stdlib.h>
#include <string.h>

#include "handoff/handoff_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_handoff_state s;
    fv_error err = { 0 };
    fv_json_text j = { 0 };

    fv_status status = fv_handoff_state_parse(&s, data, n_bytes, &err);
    if (status != FV_OK && (err.status != status || !err.message[0]))
        abort();
    for (int i = 0; i < FV_HANDOFF_STEPS; i++) {
        const fv_handoff_record *r = &s.step[i];
        if ((status != FV_OK || !r->there) && r->n)
            abort();
        for (size_t k = 0; k < r->n; k++) {
            const char *path = r->entry[k].path;
            if (!r->key || !r->way || *path == '/' || strstr(path + 3, "../") ||
                (!r->entry[k].sha256 && !r->entry[k].reason))
                abort();
        }
    }
    fv_json_begin(&j, NULL, '{');
    fv_handoff_put_steps(&j, &s);
    fv_json_end(&j);
    if (fv_json_done(&j, NULL) == FV_OK && status == FV_OK) {
        fv_handoff_state again;
        if (fv_handoff_state_parse(&again, j.text, j.n, NULL) != FV_OK)
            abort();
        fv_handoff_state_free(&again);
    }
    fv_json_text_free(&j);
    fv_handoff_state_free(&s);
    return 0;
}
