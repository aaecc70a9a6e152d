/* fv_config <-> metadata. One table names the whole numbers; the rest is written out. */
#include "model/config_gguf.h"

#include <string.h>

enum { MAX_WIDTH = 1 << 16, MAX_VOCAB = 1 << 22, MAX_POSITIONS = 1 << 22, MAX_IMAGE = 1 << 13 };

#define VISION FV_ARCHITECTURE ".vision."

static const struct field {
    const char *key;
    size_t offset; /* of an int in fv_config */
    int min, max;
} fields[] = {
    { FV_ARCHITECTURE ".embedding_length", offsetof(fv_config, d_model), 2, MAX_WIDTH },
    { FV_ARCHITECTURE ".feed_forward_length", offsetof(fv_config, d_ffn), 2, 4 * MAX_WIDTH },
    { FV_ARCHITECTURE ".block_count", offsetof(fv_config, n_layers), 1, 1024 },
    { FV_ARCHITECTURE ".attention.head_count", offsetof(fv_config, n_heads), 1, 1024 },
    { FV_ARCHITECTURE ".attention.head_count_kv", offsetof(fv_config, n_kv_heads), 1, 1024 },
    { FV_ARCHITECTURE ".attention.key_length", offsetof(fv_config, d_head), 2, 256 },
    { FV_ARCHITECTURE ".vocab_size", offsetof(fv_config, n_vocab), 1, MAX_VOCAB },
    { FV_ARCHITECTURE ".context_length", offsetof(fv_config, max_context), 1, MAX_POSITIONS },
    { VISION "image_size", offsetof(fv_config, image_size), FV_PATCH, MAX_IMAGE },
    { VISION "mixer_kernel", offsetof(fv_config, mixer_kernel), 3, 7 },
    { VISION "down_kernel", offsetof(fv_config, down_kernel), 3, 7 },
    { VISION "feature_length", offsetof(fv_config, n_features), 1, 2 * MAX_WIDTH },
    { VISION "squeeze_length", offsetof(fv_config, n_squeeze), 1, 2 * MAX_WIDTH },
    { VISION "attention.key_length", offsetof(fv_config, d_head_vision), 2, 256 },
};

/* One value a stage. */
static const struct stage_field {
    const char *key;
    size_t offset; /* of an int in fv_vision_stage */
    int min, max;
} stage_fields[] = {
    { VISION "stage.block_count", offsetof(fv_vision_stage, depth), 1, 256 },
    { VISION "stage.width", offsetof(fv_vision_stage, width), 2, MAX_WIDTH },
    { VISION "stage.feed_forward_length", offsetof(fv_vision_stage, hidden), 2, 16 * MAX_WIDTH },
    { VISION "stage.position_kernel", offsetof(fv_vision_stage, cpe), 0, 7 },
};

/* What a picture's bytes are shifted and divided by: FastVLM's encoder takes them as they are, in
 * [0, 1]. */
static const float mean[3] = { 0, 0, 0 }, deviation[3] = { 1, 1, 1 };

static const char *layout_name(fv_layout layout)
{
    return layout == FV_LAYOUT_FAST_VLM ? "fast_vlm" : "llava_qwen2";
}

void fv_config_write_gguf(const fv_config *c, fv_gguf_writer *w)
{
    int32_t list[FV_MAX_STAGES];
    fv_gguf_put_u32(w, FV_ARCHITECTURE ".format_version", FV_FORMAT_VERSION);
    fv_gguf_put_string(w, FV_ARCHITECTURE ".layout", layout_name(c->layout),
                       strlen(layout_name(c->layout)));
    for (size_t i = 0; i < FV_COUNT(fields); i++)
        fv_gguf_put_u32(w, fields[i].key,
                        (uint32_t) * (const int *)((const char *)c + fields[i].offset));
    fv_gguf_put_f64(w, FV_ARCHITECTURE ".attention.layer_norm_rms_epsilon", c->rms_eps);
    fv_gguf_put_f64(w, FV_ARCHITECTURE ".rope.freq_base", c->rope_theta);
    fv_gguf_put_bool(w, FV_ARCHITECTURE ".tied_head", c->tied);
    fv_gguf_put_array(w, FV_ARCHITECTURE ".end_tokens", FV_GGUF_I32, c->eos, (size_t)c->n_eos);
    fv_gguf_put_i32(w, FV_ARCHITECTURE ".image_token", c->image_token);
    for (size_t i = 0; i < FV_COUNT(stage_fields); i++) {
        for (int s = 0; s < c->n_stages; s++)
            list[s] = *(const int *)((const char *)&c->stage[s] + stage_fields[i].offset);
        fv_gguf_put_array(w, stage_fields[i].key, FV_GGUF_I32, list, (size_t)c->n_stages);
    }
    for (int s = 0; s < c->n_stages; s++)
        list[s] = c->stage[s].attention;
    fv_gguf_put_array(w, VISION "stage.attention", FV_GGUF_I32, list, (size_t)c->n_stages);
    const char *fit = c->crop ? "crop" : "pad";
    fv_gguf_put_string(w, FV_ARCHITECTURE ".image.fit", fit, strlen(fit));
    fv_gguf_put_array(w, FV_ARCHITECTURE ".image.mean", FV_GGUF_F32, mean, 3);
    fv_gguf_put_array(w, FV_ARCHITECTURE ".image.std", FV_GGUF_F32, deviation, 3);
}

/* A list of three that must be this one. */
static fv_status expect_floats(const fv_gguf *g, const char *key, const float want[3],
                               fv_error *err)
{
    const fv_gguf_value *v;
    float found[3] = { 0 };
    FV_TRY(fv_gguf_array(g, key, FV_GGUF_F32, &v, err));
    for (size_t i = 0; i < 3 && v->n == 3; i++) {
        uint32_t bits = (uint32_t)v->data[4 * i] | (uint32_t)v->data[4 * i + 1] << 8 |
                        (uint32_t)v->data[4 * i + 2] << 16 | (uint32_t)v->data[4 * i + 3] << 24;
        memcpy(&found[i], &bits, sizeof bits);
    }
    if (v->n == 3 && !memcmp(found, want, sizeof found))
        return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s is not [%g, %g, %g], the only one supported",
                   fv_gguf_name(g), key, (double)want[0], (double)want[1], (double)want[2]);
}

static fv_status read_stages(fv_config *c, const fv_gguf *g, fv_error *err)
{
    int64_t list[FV_MAX_STAGES];
    size_t n = 0;
    FV_TRY(fv_gguf_ints(g, VISION "stage.attention", 0, 1, 1, FV_MAX_STAGES, list, &n, err));
    c->n_stages = (int)n;
    for (size_t s = 0; s < n; s++)
        c->stage[s].attention = list[s] != 0;
    for (size_t i = 0; i < FV_COUNT(stage_fields); i++) {
        const struct stage_field *f = &stage_fields[i];
        size_t found;
        FV_TRY(fv_gguf_ints(g, f->key, f->min, f->max, n, n, list, &found, err));
        for (size_t s = 0; s < n; s++)
            *(int *)((char *)&c->stage[s] + f->offset) = (int)list[s];
    }
    return FV_OK;
}

/* What the reader of config.json guarantees, too. */
static fv_status check(const fv_config *c, const char *name, fv_error *err)
{
    const fv_vision_stage *last = &c->stage[c->n_stages - 1];
    if (c->d_head % 2 || c->d_head * c->n_heads != c->d_model || c->n_heads % c->n_kv_heads ||
        c->d_ffn % 2)
        return fv_fail(
            err, FV_ERR_UNSUPPORTED, 0,
            "%s: width %d, feed-forward %d, %d heads of %d, %d key-value heads do not go "
            "together",
            name, c->d_model, c->d_ffn, c->n_heads, c->d_head, c->n_kv_heads);
    if (c->image_size % FV_PATCH)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: image_size is %d, expected a multiple of %d", name, c->image_size,
                       FV_PATCH);
    if (c->n_stages != 5)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %d vision stages, expected 5", name,
                       c->n_stages);
    if ((c->mixer_kernel != 3 && c->mixer_kernel != 7) ||
        (c->down_kernel != 3 && c->down_kernel != 7))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: kernels of %d and %d, expected 3 or 7",
                       name, c->mixer_kernel, c->down_kernel);
    for (int s = 0; s < c->n_stages; s++) {
        const fv_vision_stage *v = &c->stage[s];
        if (v->width % 2 || v->hidden % 2 || (s && v->width != 2 * c->stage[s - 1].width) ||
            v->hidden % v->width || v->hidden / v->width > 16 ||
            (v->cpe != 0 && v->cpe != 3 && v->cpe != 7) ||
            (v->attention && v->width % c->d_head_vision))
            return fv_fail(
                err, FV_ERR_UNSUPPORTED, 0,
                "%s: vision stage %d (width %d, feed-forward %d, position kernel %d) does "
                "not fit the others",
                name, s, v->width, v->hidden, v->cpe);
    }
    if (c->n_features != 2 * last->width || c->n_squeeze > c->n_features)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %d features and %d squeezed ones behind a stage of width %d", name,
                       c->n_features, c->n_squeeze, last->width);
    return FV_OK;
}

static fv_status check_architecture(const fv_gguf *g, fv_error *err)
{
    const char *name = "", *fix = "";
    size_t n = 0;
    int64_t version;
    FV_TRY(fv_gguf_string(g, "general.architecture", &name, &n, err));
    if (!fv_gguf_string_is(g, "general.architecture", FV_ARCHITECTURE)) {
        if (n == 5 && !memcmp(name, "qwen2", 5))
            fix = " (a decoder without a vision encoder)";
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: general.architecture is \"%.*s\"%s; expected \"" FV_ARCHITECTURE "\"",
                       fv_gguf_name(g), (int)FV_MIN(n, (size_t)40), name, fix);
    }
    FV_TRY(fv_gguf_int(g, FV_ARCHITECTURE ".format_version", 0, INT32_MAX, &version, err));
    if (version != FV_FORMAT_VERSION)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: " FV_ARCHITECTURE ".format_version is %" PRId64 ", expected %d",
                       fv_gguf_name(g), version, FV_FORMAT_VERSION);
    return FV_OK;
}

fv_status fv_config_read_gguf(fv_config *c, const fv_gguf *g, fv_error *err)
{
    int64_t eos[FV_MAX_EOS], value = -1;
    size_t n = 0;
    *c = (fv_config){ 0 };
    FV_TRY(check_architecture(g, err));
    c->layout = fv_gguf_string_is(g, FV_ARCHITECTURE ".layout", "fast_vlm") ? FV_LAYOUT_FAST_VLM
                                                                            : FV_LAYOUT_LLAVA_QWEN2;
    for (size_t i = 0; i < FV_COUNT(fields); i++) {
        int64_t found = 0;
        FV_TRY(fv_gguf_int(g, fields[i].key, fields[i].min, fields[i].max, &found, err));
        *(int *)((char *)c + fields[i].offset) = (int)found;
    }
    FV_TRY(fv_gguf_number(g, FV_ARCHITECTURE ".attention.layer_norm_rms_epsilon", 0, 1, &c->rms_eps,
                          err));
    FV_TRY(fv_gguf_number(g, FV_ARCHITECTURE ".rope.freq_base", 1, 1e12, &c->rope_theta, err));
    FV_TRY(fv_gguf_opt_bool(g, FV_ARCHITECTURE ".tied_head", &c->tied, err));
    FV_TRY(
        fv_gguf_ints(g, FV_ARCHITECTURE ".end_tokens", 0, MAX_VOCAB, 0, FV_MAX_EOS, eos, &n, err));
    for (; (size_t)c->n_eos < n; c->n_eos++)
        c->eos[c->n_eos] = (int32_t)eos[c->n_eos];
    FV_TRY(fv_gguf_opt_int(g, FV_ARCHITECTURE ".image_token", -1, MAX_VOCAB, &value, err));
    c->image_token = (int32_t)value;
    FV_TRY(read_stages(c, g, err));
    c->crop = fv_gguf_string_is(g, FV_ARCHITECTURE ".image.fit", "crop");
    if (!c->crop && !fv_gguf_string_is(g, FV_ARCHITECTURE ".image.fit", "pad"))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: " FV_ARCHITECTURE ".image.fit is neither \"pad\" nor \"crop\"",
                       fv_gguf_name(g));
    FV_TRY(expect_floats(g, FV_ARCHITECTURE ".image.mean", mean, err));
    FV_TRY(expect_floats(g, FV_ARCHITECTURE ".image.std", deviation, err));
    return check(c, fv_gguf_name(g), err);
}
