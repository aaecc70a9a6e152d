/* checkpoint -> vision encoder, embedding and decoder as ONNX files. */
#include <stdio.h>
#include <string.h>

#include "base/outfile.h"
#include "onnx/onnx_model.h"
#include "onnx/onnx_write.h"

enum { ALL_PARTS = FV_ONNX_VISION | FV_ONNX_EMBED | FV_ONNX_DECODER };
enum {
    MIN_OPSET = 13,
    MAX_OPSET = 24,
    PRIMITIVE_OPSET = 14,
    FUSED_OPSET = 23,
    MAX_SIZE = 4096,
    MAX_LEN = 1 << 17
};

void fv_onnx_settings_default(fv_onnx_settings *s) { *s = (fv_onnx_settings){ 0 }; }

static fv_status check_range(const char *what, int value, int min, int max, fv_error *err)
{
    if (value >= min && value <= max)
        return FV_OK;
    return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s is %d; expected %d to %d", what, value, min, max);
}

/* Fills in defaults; what needs no model is checked before one is opened. */
static fv_status settle(fv_onnx_settings *s, fv_error *err)
{
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
        return fv_fail(
            err, FV_ERR_ARGUMENT, 0,
            "the quantised encoder is an export for generic, in f32 beside its int8 layers");
    FV_TRY(check_range("opset", s->opset, MIN_OPSET, MAX_OPSET, err));
    FV_TRY(check_range("seq_len", s->seq_len, 1, MAX_LEN, err));
    FV_TRY(check_range("step_len", s->step_len, 1, 4096, err));
    FV_TRY(check_range("cache_len", s->cache_len, 1, MAX_LEN, err));
    if (s->image_size < 0 || s->image_size % FV_PATCH || s->image_size > MAX_SIZE)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of %d up to %d", s->image_size,
                       FV_PATCH, MAX_SIZE);
    return FV_OK;
}

typedef struct job {
    const fv_onnx_settings *s;
    fv_model model;
    fv_onnx_shape shape;
    fv_type real;
    char dir[4096], shown[4096]; /* the folder being filled; where it will be */
    const fv_export_options *options;
    unsigned outside; /* the parts whose weights are in a file of their own */
} job;

static fv_status write_part(job *j, unsigned part, const char *name, fv_error *err)
{
    fv_onnx_graph g;
    const fv_weights *w = &j->model.weights;
    if (!(j->s->parts & part))
        return FV_OK;
    fv_onnx_begin(&g, name, j->real, j->s->opset, j->s->ops == FV_ONNX_FUSED, err);
    g.qdq = j->s->qdq;
    switch (part) {
    case FV_ONNX_VISION: fv_onnx_vision(&g, &j->model.config, &w->vision, &j->shape); break;
    case FV_ONNX_EMBED: fv_onnx_embed(&g, &j->model.config, &w->decoder, &j->shape); break;
    default: fv_onnx_decoder(&g, &j->model.config, &w->decoder, &j->shape);
    }
    bool outside = false;
    fv_status status = fv_onnx_write(&g, j->dir, j->shown, name, j->s->external_data,
                                     &j->model.kernels, j->options, &outside, err);
    j->outside |= outside ? part : 0;
    fv_onnx_end(&g);
    return status;
}

static fv_status write_parts(job *j, fv_error *err)
{
    static const char *const decoder[] = { "decoder_fixed_kv", "decoder_npu",
                                           "decoder_model_merged" };
    bool js = j->s->target == FV_ONNX_TRANSFORMERS_JS, f16 = j->real == FV_TYPE_F16;
    const char *suffix = f16 ? "_fp16" : js ? "" : "_fp32";
    char name[64];
    snprintf(name, sizeof name, "vision_encoder%s", j->s->qdq ? "_qdq" : suffix);
    FV_TRY(write_part(j, FV_ONNX_VISION, name, err));
    snprintf(name, sizeof name, "embed_tokens%s", suffix);
    FV_TRY(write_part(j, FV_ONNX_EMBED, name, err));
    snprintf(name, sizeof name, "%s%s", decoder[j->s->target], suffix);
    return write_part(j, FV_ONNX_DECODER, name, err);
}

fv_status fv_export_onnx(const char *model, const fv_onnx_settings *settings, const char *dir,
                         const fv_export_options *options, fv_error *err)
{
    fv_onnx_settings s;
    fv_outdir out = { 0 };
    fv_status status = FV_OK;
    fv_onnx_settings_default(&s);
    if (settings)
        s = *settings;
    FV_TRY(settle(&s, err));
    job j = { .s = &s, .options = options };
    bool js = s.target == FV_ONNX_TRANSFORMERS_JS;
    FV_TRY(fv_export_open(&j.model, model, FV_MODEL_STORED, options, err));
    if (s.qdq && !fv_vision_has_int8(&j.model.config, &j.model.weights.vision)) {
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "%s: the encoder is not in int8; qdq needs one that is", model);
        goto fail;
    }
    j.real = s.precision == FV_PRECISION_F16 ? FV_TYPE_F16 : FV_TYPE_F32;
    j.shape = (fv_onnx_shape){ .free_batch = js,
                               .npu = s.target == FV_ONNX_NPU,
                               .io = js ? FV_TYPE_F32 : j.real,
                               .image_size = s.image_size ? s.image_size
                                                          : j.model.config.image_size,
                               .seq_len = s.seq_len,
                               .step_len = s.step_len,
                               .cache_len = s.cache_len };
    if (js) {
        j.shape.n_tokens = fv_tokenizer_size(j.model.tokenizer);
        j.shape.image_token = fv_onnx_js_image_token(&j.model);
    }
    FV_TRY_GOTO(fv_export_dir(&out, dir, options, err));
    if (js)
        FV_TRY_GOTO(fv_outdir_sub(&out, "onnx", err));
    snprintf(j.shown, sizeof j.shown, "%s%s", out.place, js ? "/onnx" : "");
    if (snprintf(j.dir, sizeof j.dir, "%s%s", out.stage, js ? "/onnx" : "") >= (int)sizeof j.dir) {
        status = fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", dir);
        goto fail;
    }
    FV_TRY_GOTO(write_parts(&j, err));
    if (js && s.parts == ALL_PARTS)
        FV_TRY_GOTO(fv_onnx_js_files(&j.model, j.real == FV_TYPE_F16, j.outside, out.stage, err));
    FV_TRY_GOTO(fv_outdir_commit(&out, err));
    if (js && s.parts == ALL_PARTS)
        fv_export_log(options, FV_LOG_INFO,
                      "%s: config.json, generation_config.json, tokenizer and processor files",
                      dir);
fail:
    fv_outdir_abandon(&out);
    fv_model_close(&j.model);
    return status;
}
