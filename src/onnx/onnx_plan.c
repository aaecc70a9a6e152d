/* Options of an ONNX export -> graphs. See onnx_plan.h. */
#include "onnx/onnx_plan.h"

#include <stdio.h>

#include "base/sized.h"

enum { ALL_PARTS = FV_ONNX_VISION | FV_ONNX_EMBED | FV_ONNX_DECODER };
enum {
    MIN_OPSET = 13,
    MAX_OPSET = 24,
    PRIMITIVE_OPSET = 14,
    FUSED_OPSET = 23,
    MAX_SIZE = 4096,
    MAX_LEN = 1 << 17
};

static fv_status range_check(const char *what, int value, int min, int max, fv_error *err)
{
    if (value >= min && value <= max)
        return FV_OK;
    return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s is %d; expected %d to %d", what, value, min, max);
}

fv_status fv_onnx_plan_begin(fv_onnx_plan *p, const fv_onnx_options *options, fv_error *err)
{
    fv_onnx_options *s = &p->s;
    *p = (fv_onnx_plan){ 0 };
    FV_TRY(FV_OPTIONS_IN(s, fv_onnx_options, options, err));
    s->parts = s->parts ? s->parts : ALL_PARTS;
    s->opset = s->opset ? s->opset : s->ops == FV_ONNX_FUSED ? FUSED_OPSET : PRIMITIVE_OPSET;
    s->seq_len = s->seq_len ? s->seq_len : 512;
    s->step_len = s->step_len ? s->step_len : 1;
    s->cache_len = s->cache_len ? s->cache_len : s->target == FV_ONNX_NPU ? 1023 : 512;
    if (s->precision == FV_PRECISION_AUTO)
        s->precision = s->target == FV_ONNX_NPU ? FV_PRECISION_F16 : FV_PRECISION_F32;
    if (s->parts & ~(unsigned)ALL_PARTS || (unsigned)s->target > FV_ONNX_TRANSFORMERS_JS ||
        (unsigned)s->ops > FV_ONNX_FUSED)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "unknown part, target or kind of operators");
    if (s->precision != FV_PRECISION_F32 && s->precision != FV_PRECISION_F16)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "an ONNX export has precision f32 or f16");
    if (s->qdq && (s->target != FV_ONNX_GENERIC || s->precision != FV_PRECISION_F32))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "qdq is for the generic target with precision f32, which the layers beside "
                       "the int8 ones have");
    FV_TRY(range_check("opset", s->opset, MIN_OPSET, MAX_OPSET, err));
    FV_TRY(range_check("seq_len", s->seq_len, 1, MAX_LEN, err));
    FV_TRY(range_check("step_len", s->step_len, 1, 4096, err));
    FV_TRY(range_check("cache_len", s->cache_len, 1, MAX_LEN, err));
    if (s->image_size < 0 || s->image_size % FV_PATCH || s->image_size > MAX_SIZE)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of %d up to %d", s->image_size,
                       FV_PATCH, MAX_SIZE);
    return FV_OK;
}

static void file_add(fv_onnx_plan *p, unsigned part, const char *name, const char *suffix)
{
    if (!(p->s.parts & part))
        return;
    fv_onnx_file *f = &p->file[p->n_files++];
    f->part = part;
    snprintf(f->name, sizeof f->name, "%s%s", name, suffix);
}

void fv_onnx_plan_end(fv_onnx_plan *p, const fv_config *c, int n_tokens, int image_token)
{
    static const char *const decoder[] = {
        [FV_ONNX_GENERIC] = "decoder_fixed_kv",
        [FV_ONNX_NPU] = "decoder_npu",
        [FV_ONNX_TRANSFORMERS_JS] = "decoder_model_merged",
    };
    static const fv_cache_kind cache[] = {
        [FV_ONNX_GENERIC] = FV_CACHE_FIXED,
        [FV_ONNX_NPU] = FV_CACHE_HOST,
        [FV_ONNX_TRANSFORMERS_JS] = FV_CACHE_GROWING,
    };
    const fv_onnx_options *s = &p->s;
    bool js = s->target == FV_ONNX_TRANSFORMERS_JS, f16 = s->precision == FV_PRECISION_F16;
    const char *suffix = f16 ? "_fp16" : js ? "" : "_fp32";
    p->folder = js ? "onnx" : "";
    file_add(p, FV_ONNX_VISION, "vision_encoder", s->qdq ? "_qdq" : suffix);
    file_add(p, FV_ONNX_EMBED, "embed_tokens", suffix);
    file_add(p, FV_ONNX_DECODER, decoder[s->target], suffix);
    fv_type real = f16 ? FV_TYPE_F16 : FV_TYPE_F32;
    p->spec = (fv_graph_spec){ .real = real,
                               .io = js ? FV_TYPE_F32 : real,
                               .free_batch = js,
                               .image_size = s->image_size ? s->image_size : c->image_size,
                               .seq_len = s->seq_len,
                               .cache = cache[s->target],
                               .step_len = s->step_len,
                               .cache_len = s->cache_len,
                               .sink = js,
                               .n_tokens = js ? n_tokens : 0,
                               .image_token = js ? image_token : 0 };
}

void fv_onnx_plan_graph(const fv_onnx_plan *p, fv_graph *g, unsigned part, const fv_config *c,
                        const fv_weights *w)
{
    switch (part) {
    case FV_ONNX_VISION: fv_graph_vision(g, c, &w->vision, &p->spec); break;
    case FV_ONNX_EMBED: fv_graph_embed(g, c, &w->decoder, &p->spec); break;
    default: fv_graph_decoder(g, c, &w->decoder, &p->spec);
    }
}

void fv_onnx_dims(const fv_value *v, fv_dim out[FV_GRAPH_DIMS])
{
    static const int channels_first[FV_GRAPH_DIMS] = { 0, 3, 1, 2 };
    for (int i = 0; i < v->n_dims; i++)
        out[i] = v->dim[v->form == FV_FORM_MAP ? channels_first[i] : i];
}
