/* Bytes as a saved session of the tiny model: refused, or a session that can be asked. The hash at
 * the end and the model's are made right first, so that what lies behind them is reached. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "fastvlm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { MODEL_AT = 8 };

static fv_session *session;
static uint8_t model[FV_SHA256_BYTES]; /* what a session of this model begins with */

typedef struct head {
    uint8_t bytes[MODEL_AT + FV_SHA256_BYTES];
    size_t n;
} head;

static fv_status keep_head(void *user, const void *data, size_t n)
{
    head *h = user;
    size_t room = sizeof h->bytes - h->n, m = n < room ? n : room;
    memcpy(h->bytes + h->n, data, m);
    h->n += m;
    return FV_OK;
}

static void load_tiny(void)
{
    fv_error err;
    fv_engine *engine;
    head h = { .n = 0 };
    fv_engine_options o = { .size = sizeof o, .n_threads = 1, .kv = FV_KV_F16 };

    /* Runs from the root of the repository, as tools/fuzz.sh and the replay do. */
    if (fv_engine_open(&engine, "tests/data/tiny/checkpoint", &o, &err) != FV_OK ||
        fv_session_new(&session, engine, NULL, &err) != FV_OK ||
        fv_session_save(session, keep_head, &h, &err) != FV_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    memcpy(model, h.bytes + MODEL_AT, sizeof model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_piece p = { .size = sizeof p };
    fv_sha256 sha;
    if (!session)
        load_tiny();
    uint8_t *bytes = malloc(n_bytes + FV_SHA256_BYTES);
    if (!bytes)
        abort();
    memcpy(bytes, data, n_bytes);
    if (n_bytes >= MODEL_AT + sizeof model)
        memcpy(bytes + MODEL_AT, model, sizeof model);
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, bytes, n_bytes);
    fv_sha256_end(&sha, bytes + n_bytes);
    if (fv_session_load(session, bytes, n_bytes + FV_SHA256_BYTES, NULL) == FV_OK &&
        fv_session_add_text(session, "Hi", 2, NULL) == FV_OK)
        fv_session_next(session, &p, NULL); /* NaN in the rows: no token can be chosen */
    fv_session_reset(session);
    free(bytes);
    return 0;
}
