/* fv_config <-> metadata. config_rules.h names the whole numbers; the rest is written out. */
#include "model/config_gguf.h"
#include "model/config_rules.h"

#include <string.h>

#define STAGE_ATTENTION FV_ARCHITECTURE ".vision.stage.attention"

/* What an image's bytes are shifted and divided by: FastVLM's encoder takes them as they are, in
 * [0, 1]. */
static const float mean[3] = { 0, 0, 0 }, deviation[3] = { 1, 1, 1 };

static const char *layout_name(fv_layout layout)
{
    return layout == FV_LAYOUT_FAST_VLM ? "fast_vlm" : "llava_qwen2";
}

/* ---- writing ---- */

static void put_fields(fv_gguf_writer *w, const fv_config_field *f, size_t n, const fv_config *c)
{
    for (size_t i = 0; i < n; i++)
        fv_gguf_put_u32(w, f[i].name[FV_SOURCE_GGUF],
                        (uint32_t) * (const int *)((const char *)c + f[i].offset));
}

static void config_put_stages(fv_gguf_writer *w, const fv_config *c)
{
    int32_t list[FV_MAX_STAGES];
    for (size_t i = 0; i < FV_CONFIG_STAGE_FIELDS; i++) {
        const fv_config_field *f = &fv_config_stage_fields[i];
        for (int s = 0; s < c->n_stages; s++)
            list[s] = *(const int *)((const char *)&c->stage[s] + f->offset);
        fv_gguf_put_array(w, f->name[FV_SOURCE_GGUF], FV_GGUF_I32, list, (size_t)c->n_stages);
    }
    for (int s = 0; s < c->n_stages; s++)
        list[s] = c->stage[s].attention;
    fv_gguf_put_array(w, STAGE_ATTENTION, FV_GGUF_I32, list, (size_t)c->n_stages);
}

/* The order of keys is part of the file's bytes: the side of images comes before the kernels. */
void fv_config_write_gguf(const fv_config *c, fv_gguf_writer *w)
{
    const fv_config_field *derived = fv_config_derived_fields;
    fv_gguf_put_u32(w, FV_ARCHITECTURE ".format_version", FV_FORMAT_VERSION);
    fv_gguf_put_string(w, FV_ARCHITECTURE ".layout", layout_name(c->layout),
                       strlen(layout_name(c->layout)));
    put_fields(w, fv_config_decoder_fields, FV_CONFIG_DECODER_FIELDS, c);
    put_fields(w, derived, 1, c);
    put_fields(w, fv_config_kernel_fields, FV_CONFIG_KERNEL_FIELDS, c);
    put_fields(w, derived + 1, FV_CONFIG_DERIVED_FIELDS - 1, c);
    for (size_t i = 0; i < FV_CONFIG_REALS; i++) {
        const fv_config_real *f = &fv_config_reals[i];
        fv_gguf_put_f64(w, f->name[FV_SOURCE_GGUF], *(const double *)((const char *)c + f->offset));
    }
    fv_gguf_put_bool(w, FV_ARCHITECTURE ".tied_head", c->tied);
    fv_gguf_put_array(w, FV_ARCHITECTURE ".end_tokens", FV_GGUF_I32, c->eos, (size_t)c->n_eos);
    fv_gguf_put_i32(w, FV_ARCHITECTURE ".image_token", c->image_token);
    config_put_stages(w, c);
    const char *fit = c->crop ? "crop" : "pad";
    fv_gguf_put_string(w, FV_ARCHITECTURE ".image.fit", fit, strlen(fit));
    fv_gguf_put_array(w, FV_ARCHITECTURE ".image.mean", FV_GGUF_F32, mean, 3);
    fv_gguf_put_array(w, FV_ARCHITECTURE ".image.std", FV_GGUF_F32, deviation, 3);
}

/* ---- reading ---- */

static fv_status get_fields(const fv_gguf *g, const fv_config_field *f, size_t n, fv_config *c,
                            fv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        int64_t found = 0;
        FV_TRY(fv_gguf_int(g, f[i].name[FV_SOURCE_GGUF], f[i].min, f[i].max, &found, err));
        *fv_config_member(&f[i], c) = (int)found;
    }
    return FV_OK;
}

static fv_status get_reals(const fv_gguf *g, fv_config *c, fv_error *err)
{
    for (size_t i = 0; i < FV_CONFIG_REALS; i++) {
        const fv_config_real *f = &fv_config_reals[i];
        FV_TRY(fv_gguf_number(g, f->name[FV_SOURCE_GGUF], f->min, f->max,
                              (double *)((char *)c + f->offset), err));
    }
    return FV_OK;
}

/* A list of three that must be this one. */
static fv_status get_three(const fv_gguf *g, const char *key, const float want[3], fv_error *err)
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
    if (v->n != 3)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s has %" PRIu64 " elements; expected 3",
                       fv_gguf_name(g), key, v->n);
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s is [%g, %g, %g]; expected [%g, %g, %g]",
                   fv_gguf_name(g), key, (double)found[0], (double)found[1], (double)found[2],
                   (double)want[0], (double)want[1], (double)want[2]);
}

static fv_status get_stages(const fv_gguf *g, fv_config *c, fv_error *err)
{
    int64_t list[FV_MAX_STAGES];
    size_t n = 0, found;
    FV_TRY(fv_gguf_ints(g, STAGE_ATTENTION, 0, 1, 1, FV_MAX_STAGES, list, &n, err));
    c->n_stages = (int)n;
    for (size_t s = 0; s < n; s++)
        c->stage[s].attention = list[s] != 0;
    for (size_t i = 0; i < FV_CONFIG_STAGE_FIELDS; i++) {
        const fv_config_field *f = &fv_config_stage_fields[i];
        FV_TRY(fv_gguf_ints(g, f->name[FV_SOURCE_GGUF], f->min, f->max, n, n, list, &found, err));
        for (size_t s = 0; s < n; s++)
            *fv_config_member(f, &c->stage[s]) = (int)list[s];
    }
    return FV_OK;
}

static fv_status get_layout(const fv_gguf *g, fv_config *c, fv_error *err)
{
    static const char key[] = FV_ARCHITECTURE ".layout";
    const char *text;
    size_t n;
    FV_TRY(fv_gguf_string(g, key, &text, &n, err));
    for (int i = FV_LAYOUT_LLAVA_QWEN2; i <= FV_LAYOUT_FAST_VLM; i++) {
        c->layout = (fv_layout)i;
        if (fv_gguf_string_is(g, key, layout_name(c->layout)))
            return FV_OK;
    }
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "%s: %s is \"%.*s\"; expected \"llava_qwen2\" or \"fast_vlm\"", fv_gguf_name(g),
                   key, (int)FV_MIN(n, (size_t)40), text);
}

static fv_status get_end_tokens(const fv_gguf *g, fv_config *c, fv_error *err)
{
    int64_t eos[FV_MAX_EOS];
    size_t n = 0;
    FV_TRY(fv_gguf_ints(g, FV_ARCHITECTURE ".end_tokens", 0, FV_CONFIG_MAX_ID, 0, FV_MAX_EOS, eos,
                        &n, err));
    for (; (size_t)c->n_eos < n; c->n_eos++)
        c->eos[c->n_eos] = (int32_t)eos[c->n_eos];
    return FV_OK;
}

static fv_status get_fit(const fv_gguf *g, fv_config *c, fv_error *err)
{
    static const char key[] = FV_ARCHITECTURE ".image.fit";
    const char *text;
    size_t n;
    FV_TRY(fv_gguf_string(g, key, &text, &n, err));
    c->crop = fv_gguf_string_is(g, key, "crop");
    if (!c->crop && !fv_gguf_string_is(g, key, "pad"))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s is \"%.*s\"; expected \"pad\" or \"crop\"", fv_gguf_name(g), key,
                       (int)FV_MIN(n, (size_t)40), text);
    FV_TRY(get_three(g, FV_ARCHITECTURE ".image.mean", mean, err));
    return get_three(g, FV_ARCHITECTURE ".image.std", deviation, err);
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
    int64_t image_token = -1;
    *c = (fv_config){ 0 };
    FV_TRY(check_architecture(g, err));
    FV_TRY(get_layout(g, c, err));
    FV_TRY(get_fields(g, fv_config_decoder_fields, FV_CONFIG_DECODER_FIELDS, c, err));
    FV_TRY(get_fields(g, fv_config_kernel_fields, FV_CONFIG_KERNEL_FIELDS, c, err));
    FV_TRY(get_fields(g, fv_config_derived_fields, FV_CONFIG_DERIVED_FIELDS, c, err));
    FV_TRY(get_reals(g, c, err));
    FV_TRY(fv_gguf_opt_bool(g, FV_ARCHITECTURE ".tied_head", &c->tied, err));
    FV_TRY(get_end_tokens(g, c, err));
    FV_TRY(fv_gguf_opt_int(g, FV_ARCHITECTURE ".image_token", -1, FV_CONFIG_MAX_ID, &image_token,
                           err));
    c->image_token = (int32_t)image_token;
    FV_TRY(get_stages(g, c, err));
    FV_TRY(get_fit(g, c, err));
    return fv_config_check(c, FV_SOURCE_GGUF, fv_gguf_name(g), err);
}
