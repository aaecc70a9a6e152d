/* A packed file from end to end: hashes, every tensor, every value. */
#include <string.h>

#include "base/half.h"
#include "base/fpenv.h"
#include "base/sized.h"
#include "fastvlm_tools.h"
#include "model/model.h"
#include "text/tokenizer_gguf.h"

/* Values that are NaN or infinite: of floats, or of the scales of blocks. */
static uint64_t tensor_count_odd(const fv_tensor *x)
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

static fv_status verify_values(const fv_gguf *g, fv_error *err)
{
    const fv_tensors *t = fv_gguf_tensors(g);
    for (size_t i = 0; i < fv_tensors_count(t); i++) {
        const fv_tensor *x = fv_tensors_at(t, i);
        uint64_t odd = tensor_count_odd(x);
        if (odd)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: tensor %s: %" PRIu64 " values are NaN or infinite", fv_gguf_name(g),
                           x->name, odd);
    }
    return FV_OK;
}

/* The tables that make a tokenizer open at once against the keys they were made from. */
static fv_status verify_tokenizer(const fv_model *m, fv_error *err)
{
    fv_tokenizer *rebuilt = NULL;
    bool same = false;
    fv_status status = FV_OK;
    FV_TRY(fv_tokenizer_read_gguf(&rebuilt, m->packed, err));
    status = fv_tokenizer_same(rebuilt, m->tokenizer, &same, err);
    fv_tokenizer_free(rebuilt);
    if (status == FV_OK && !same)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the tensors tokenizer.* are not what tokenizer.ggml.* says", m->name);
    return status;
}

fv_status fv_verify(const char *file, const fv_verify_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_verify_options o;
    fv_callbacks callbacks;
    fv_gguf *g = NULL;
    fv_model m;
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_verify_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(fv_gguf_open(&g, file, err));
    fv_status status = fv_gguf_check_hashes(g, o.callbacks, err);
    if (status != FV_OK) {
        fv_gguf_free(g);
        return status;
    }
    FV_TRY(fv_model_open_packed(&m, g, &(fv_model_options){ .depth = FV_MODEL_STORED }, err));
    status = verify_tokenizer(&m, err);
    if (status == FV_OK)
        status = verify_values(m.packed, err);
    fv_model_close(&m);
    return status;
}
