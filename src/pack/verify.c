/* A packed file from end to end: hashes, every tensor, every value. */
#include <string.h>

#include "base/half.h"
#include "fastvlm_tools.h"
#include "io/gguf.h"
#include "model/config_gguf.h"
#include "model/weights.h"
#include "text/tokenizer_gguf.h"

/* Values that are NaN or infinite: of floats, or of the scales of blocks. */
static uint64_t count_odd(const fv_tensor *x)
{
    const uint8_t *p = x->data, *end = p + x->n_bytes;
    size_t step = fv_type_is_block(x->type) ? fv_row_bytes(x->type, FV_BLOCK)
                                            : fv_type_size(x->type);
    uint32_t mask = x->type == FV_TYPE_F32 ? 0x7f800000 : x->type == FV_TYPE_BF16 ? 0x7f80 : 0x7c00;
    uint64_t odd = 0;
    if (x->type == FV_TYPE_I8 || x->type == FV_TYPE_I32 || x->type == FV_TYPE_I64)
        return 0;
    for (; p < end; p += step) {
        uint32_t bits = (uint32_t)p[0] | (uint32_t)p[1] << 8;
        if (x->type == FV_TYPE_F32)
            bits |= (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        odd += (bits & mask) == mask;
    }
    return odd;
}

static fv_status check_values(const fv_gguf *g, fv_error *err)
{
    const fv_tensors *t = fv_gguf_tensors(g);
    for (size_t i = 0; i < fv_tensors_count(t); i++) {
        const fv_tensor *x = fv_tensors_at(t, i);
        uint64_t odd = count_odd(x);
        if (odd)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: tensor %s: %" PRIu64 " values are NaN or infinite", fv_gguf_name(g),
                           x->name, odd);
    }
    return FV_OK;
}

fv_status fv_verify(const char *file, fv_progress_fn *progress, void *progress_user, fv_error *err)
{
    fv_gguf *g = NULL;
    fv_config config;
    fv_tokenizer *tokenizer = NULL, *ready = NULL;
    fv_weights weights = { 0 };
    bool same = false;
    fv_status status = FV_OK;
    FV_TRY(fv_gguf_open(&g, file, err));
    FV_TRY_GOTO(fv_gguf_check_hashes(g, progress, progress_user, err));
    FV_TRY_GOTO(fv_config_read_gguf(&config, g, err));
    FV_TRY_GOTO(fv_tokenizer_read_gguf(&tokenizer, g, err));
    FV_TRY_GOTO(fv_tokenizer_open_gguf(&ready, g, err));
    FV_TRY_GOTO(fv_tokenizer_same(tokenizer, ready, &same, err));
    if (!same) {
        status = fv_fail(err, FV_ERR_FORMAT, 0,
                         "%s: the tensors tokenizer.* are not what tokenizer.ggml.* says", file);
        goto fail;
    }
    if (fv_tokenizer_size(tokenizer) > config.n_vocab) {
        status = fv_fail(err, FV_ERR_FORMAT, 0,
                         "%s: the tokenizer has %d tokens, the embedding %d rows", file,
                         (int)fv_tokenizer_size(tokenizer), config.n_vocab);
        goto fail;
    }
    FV_TRY_GOTO(fv_weights_bind(&weights, &config, fv_gguf_tensors(g), err));
    FV_TRY_GOTO(check_values(g, err));
fail:
    fv_weights_free(&weights);
    fv_tokenizer_free(tokenizer);
    fv_tokenizer_free(ready);
    fv_gguf_free(g);
    return status;
}
