/* The rules of a configuration. See config_rules.h. */
#include "model/config_rules.h"

#include <stdio.h>
#include <string.h>

#include "model/config_gguf.h"

enum {
    MAX_WIDTH = 1 << 16, /* of anything in the model */
    MAX_VOCAB = FV_CONFIG_MAX_ID,
    MAX_POSITIONS = 1 << 22,
    MAX_IMAGE = 1 << 13,
    MAX_FFN_RATIO = 16,
    N_STAGES = 5 /* of FastViTHD */
};

/* ---- the tables ---- */

#define BOTH(json, gguf)                     \
    {                                        \
        json, json, FV_ARCHITECTURE "." gguf \
    }
#define EACH(llava, fast, gguf)               \
    {                                         \
        llava, fast, FV_ARCHITECTURE "." gguf \
    }
#define IN(member)       offsetof(fv_config, member)
#define IN_STAGE(member) offsetof(fv_vision_stage, member)

const fv_config_field fv_config_decoder_fields[FV_CONFIG_DECODER_FIELDS] = {
    { BOTH("hidden_size", "embedding_length"), IN(d_model), 2, MAX_WIDTH, 2, false },
    { BOTH("intermediate_size", "feed_forward_length"), IN(d_ffn), 2, 4 * MAX_WIDTH, 2, false },
    { BOTH("num_hidden_layers", "block_count"), IN(n_layers), 1, 1024, 1, false },
    { BOTH("num_attention_heads", "attention.head_count"), IN(n_heads), 1, 1024, 1, false },
    { BOTH("num_key_value_heads", "attention.head_count_kv"), IN(n_kv_heads), 1, 1024, 1, true },
    { BOTH("head_dim", "attention.key_length"), IN(d_head), 2, 256, 2, true },
    { BOTH("vocab_size", "vocab_size"), IN(n_vocab), 1, MAX_VOCAB, 1, false },
    { BOTH("max_position_embeddings", "context_length"), IN(max_context), 1, MAX_POSITIONS, 1,
      true },
};

const fv_config_real fv_config_reals[FV_CONFIG_REALS] = {
    { BOTH("rms_norm_eps", "attention.layer_norm_rms_epsilon"), IN(rms_eps), 0, 1 },
    { BOTH("rope_theta", "rope.freq_base"), IN(rope_theta), 1, 1e12 },
};

const fv_config_field fv_config_stage_fields[FV_CONFIG_STAGE_FIELDS] = {
    { BOTH("layers", "vision.stage.block_count"), IN_STAGE(depth), 1, 256, 1, true },
    { BOTH("embed_dims", "vision.stage.width"), IN_STAGE(width), 2, MAX_WIDTH, 2, true },
    { BOTH("mlp_ratios", "vision.stage.feed_forward_length"), IN_STAGE(hidden), 2,
      MAX_FFN_RATIO *MAX_WIDTH, 2, true },
    { BOTH("pos_embs_shapes", "vision.stage.position_kernel"), IN_STAGE(cpe), 0, 7, 1, true },
};

const fv_config_field fv_config_kernel_fields[FV_CONFIG_KERNEL_FIELDS] = {
    { EACH("repmixer_kernel_size", NULL, "vision.mixer_kernel"), IN(mixer_kernel), 3, 7, 4, true },
    { EACH("down_patch_size", NULL, "vision.down_kernel"), IN(down_kernel), 3, 7, 4, true },
};

const fv_config_field fv_config_derived_fields[FV_CONFIG_DERIVED_FIELDS] = {
    { EACH("the size in mm_vision_tower", "crop_size", "vision.image_size"), IN(image_size),
      FV_PATCH, MAX_IMAGE, FV_PATCH, true },
    { EACH("mm_hidden_size", "twice the last of embed_dims", "vision.feature_length"),
      IN(n_features), 1, 2 * MAX_WIDTH, 1, true },
    { BOTH("the squeeze of mm_hidden_size", "vision.squeeze_length"), IN(n_squeeze), 1,
      2 * MAX_WIDTH, 1, true },
    { BOTH("the width of a vision head", "vision.attention.key_length"), IN(d_head_vision), 2, 256,
      1, true },
};

/* places in the tables */
enum { D_MODEL, D_FFN, N_LAYERS, N_HEADS, N_KV_HEADS, D_HEAD, N_VOCAB, MAX_CONTEXT };
enum { DEPTH, WIDTH, HIDDEN, CPE };
enum { IMAGE_SIZE, N_FEATURES, N_SQUEEZE, D_HEAD_VISION };

/* ---- one value ---- */

typedef struct rules {
    const fv_config *c;
    fv_config_source source;
    const char *file;
    fv_error *err;
} rules;

static const char *rules_name(const rules *r, const fv_config_field *f)
{
    return f->name[r->source];
}

/* "an even number from 2 to 65536" */
static void field_range(const fv_config_field *f, char text[64])
{
    if (f->step == 1)
        snprintf(text, 64, "%d to %d", f->min, f->max);
    else if (f->max - f->min == f->step)
        snprintf(text, 64, "%d or %d", f->min, f->max);
    else if (f->step == 2)
        snprintf(text, 64, "an even number from %d to %d", f->min, f->max);
    else
        snprintf(text, 64, "a multiple of %d from %d to %d", f->step, f->min, f->max);
}

/* index: of the stage; -1: no array. */
static fv_status rules_check_field(const rules *r, const fv_config_field *f, const void *object,
                                   int index)
{
    int value = *(const int *)((const char *)object + f->offset);
    char range[64], at[16] = "";
    if (value >= f->min && value <= f->max && (value - f->min) % f->step == 0)
        return FV_OK;
    if (index >= 0)
        snprintf(at, sizeof at, "[%d]", index);
    field_range(f, range);
    return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s%s is %d; expected %s", r->file,
                   rules_name(r, f), at, value, range);
}

static fv_status rules_check_fields(const rules *r, const fv_config_field *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        FV_TRY(rules_check_field(r, &f[i], r->c, -1));
    return FV_OK;
}

static fv_status rules_check_reals(const rules *r)
{
    for (size_t i = 0; i < FV_CONFIG_REALS; i++) {
        const fv_config_real *f = &fv_config_reals[i];
        double value = *(const double *)((const char *)r->c + f->offset);
        if (!(value >= f->min && value <= f->max))
            return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %g; expected %g to %g",
                           r->file, f->name[r->source], value, f->min, f->max);
    }
    return FV_OK;
}

/* ---- values between them ---- */

static fv_status rules_check_decoder(const rules *r)
{
    const fv_config *c = r->c;
    const fv_config_field *f = fv_config_decoder_fields;
    if (c->d_head * c->n_heads != c->d_model)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %d; expected %s / %s, %d / %d",
                       r->file, rules_name(r, &f[D_HEAD]), c->d_head, rules_name(r, &f[D_MODEL]),
                       rules_name(r, &f[N_HEADS]), c->d_model, c->n_heads);
    if (c->n_heads % c->n_kv_heads)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %d; expected a divisor of %s, %d",
                       r->file, rules_name(r, &f[N_KV_HEADS]), c->n_kv_heads,
                       rules_name(r, &f[N_HEADS]), c->n_heads);
    return FV_OK;
}

/* The channels inside the FFN, which config.json states as a ratio. */
static fv_status rules_check_hidden(const rules *r, int i)
{
    const fv_vision_stage *s = &r->c->stage[i];
    const fv_config_field *f = &fv_config_stage_fields[HIDDEN];
    if (s->hidden > 0 && s->hidden % s->width == 0 && s->hidden / s->width <= MAX_FFN_RATIO)
        return FV_OK;
    if (r->source == FV_SOURCE_GGUF)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s[%d] is %d; expected 1 to %d times the width, %d", r->file,
                       rules_name(r, f), i, s->hidden, MAX_FFN_RATIO, s->width);
    return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s[%d] is %d; expected 1 to %d", r->file,
                   rules_name(r, f), i, s->hidden / s->width, MAX_FFN_RATIO);
}

static fv_status rules_check_stage(const rules *r, int i)
{
    const fv_vision_stage *s = &r->c->stage[i];
    const fv_config_field *f = fv_config_stage_fields;
    FV_TRY(rules_check_field(r, &f[DEPTH], s, i));
    FV_TRY(rules_check_field(r, &f[WIDTH], s, i));
    if (i && s->width != 2 * s[-1].width)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s[%d] is %d; expected %d, twice the one before", r->file,
                       rules_name(r, &f[WIDTH]), i, s->width, 2 * s[-1].width);
    if (s->attention && s->width % r->c->d_head_vision)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s[%d] is %d; expected a multiple of %d, the width of an attention "
                       "head",
                       r->file, rules_name(r, &f[WIDTH]), i, s->width, r->c->d_head_vision);
    FV_TRY(rules_check_hidden(r, i));
    if (s->cpe != 0 && s->cpe != 3 && s->cpe != 7)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s[%d] is %d; expected 0, 3 or 7",
                       r->file, rules_name(r, &f[CPE]), i, s->cpe);
    return FV_OK;
}

static fv_status rules_check_vision(const rules *r)
{
    const fv_config *c = r->c;
    const fv_config_field *f = fv_config_derived_fields;
    int width = c->stage[c->n_stages - 1].width;
    if (c->n_features != 2 * width)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s is %d; expected %d, twice the width of the last stage", r->file,
                       rules_name(r, &f[N_FEATURES]), c->n_features, 2 * width);
    if (c->n_squeeze > c->n_features)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %d; expected up to %s, %d",
                       r->file, rules_name(r, &f[N_SQUEEZE]), c->n_squeeze,
                       rules_name(r, &f[N_FEATURES]), c->n_features);
    return FV_OK;
}

fv_status fv_config_check_image(const fv_config *c, const char *file, const char *name,
                                int image_size, fv_error *err)
{
    int n = fv_config_image_tokens(image_size);
    return n < c->max_context
               ? FV_OK
               : fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "%s: %s is %d; the %d image tokens of it do not fit the model's context "
                         "length, %d",
                         file, name, image_size, n, c->max_context);
}

fv_status fv_config_check(const fv_config *c, fv_config_source source, const char *file,
                          fv_error *err)
{
    rules r = { c, source, file, err };
    FV_TRY(rules_check_fields(&r, fv_config_decoder_fields, FV_CONFIG_DECODER_FIELDS));
    FV_TRY(rules_check_reals(&r));
    FV_TRY(rules_check_decoder(&r));
    if (c->n_stages != N_STAGES)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s has %d elements; expected %d", file,
                       rules_name(&r, &fv_config_stage_fields[DEPTH]), c->n_stages, N_STAGES);
    FV_TRY(rules_check_field(&r, &fv_config_derived_fields[D_HEAD_VISION], c, -1));
    for (int i = 0; i < c->n_stages; i++)
        FV_TRY(rules_check_stage(&r, i));
    FV_TRY(rules_check_fields(&r, fv_config_kernel_fields, FV_CONFIG_KERNEL_FIELDS));
    FV_TRY(rules_check_fields(&r, fv_config_derived_fields, FV_CONFIG_DERIVED_FIELDS));
    FV_TRY(rules_check_vision(&r));
    return fv_config_check_image(c, file, rules_name(&r, &fv_config_derived_fields[IMAGE_SIZE]),
                                 c->image_size, err);
}
