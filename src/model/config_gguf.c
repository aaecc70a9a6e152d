/* fv_config <-> metadata. config_rules.h names the whole numbers; the rest is written out. */
#include "model/config_gguf.h"
#include "model/config_rules.h"

#include <math.h>
#include <string.h>

#define STAGE_ATTENTION FV_ARCHITECTURE ".vision.stage.attention"

static const char *const fit_names[] = {
    [FV_FIT_PAD] = "pad", [FV_FIT_CROP] = "crop", [FV_FIT_STRETCH] = "stretch"
};
static const char *const filter_names[FV_FILTER_COUNT] = {
    [FV_FILTER_BICUBIC] = "bicubic", [FV_FILTER_NEAREST] = "nearest",
    [FV_FILTER_BOX] = "box",         [FV_FILTER_BILINEAR] = "bilinear",
    [FV_FILTER_HAMMING] = "hamming", [FV_FILTER_LANCZOS] = "lanczos",
};

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

static void gguf_put_text(fv_gguf_writer *w, const char *key, const char *text)
{
    fv_gguf_put_string(w, key, text, strlen(text));
}

/* Whether a reader of version 1 would make other numbers of an image. Means and deviations it
 * knows, and refuses. */
static bool recipe_is_newer(const fv_recipe *r)
{
    return r->filter != FV_FILTER_BICUBIC || r->n_scale || r->rescale != 1.0 / 255;
}

static void config_put_recipe(fv_gguf_writer *w, const fv_recipe *r)
{
    gguf_put_text(w, FV_ARCHITECTURE ".image.fit", fit_names[r->fit]);
    fv_gguf_put_array(w, FV_ARCHITECTURE ".image.mean", FV_GGUF_F32, r->mean, 3);
    fv_gguf_put_array(w, FV_ARCHITECTURE ".image.std", FV_GGUF_F32, r->std, 3);
    if (!recipe_is_newer(r))
        return;
    gguf_put_text(w, FV_ARCHITECTURE ".image.filter", filter_names[r->filter]);
    fv_gguf_put_array(w, FV_ARCHITECTURE ".image.scale", FV_GGUF_I32, r->scale, (size_t)r->n_scale);
    fv_gguf_put_f64(w, FV_ARCHITECTURE ".image.rescale", r->rescale);
}

/* The order of keys is part of the file's bytes: the side of images comes before the kernels. */
void fv_config_write_gguf(const fv_config *c, fv_gguf_writer *w)
{
    const fv_config_field *derived = fv_config_derived_fields;
    fv_gguf_put_u32(w, FV_ARCHITECTURE ".format_version",
                    recipe_is_newer(&c->recipe) ? FV_FORMAT_VERSION_2 : FV_FORMAT_VERSION);
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
    config_put_recipe(w, &c->recipe);
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

/* Three finite numbers, none of them 0 where they divide. */
static fv_status get_three(const fv_gguf *g, const char *key, bool divides, float out[3],
                           fv_error *err)
{
    const fv_gguf_value *v;
    FV_TRY(fv_gguf_array(g, key, FV_GGUF_F32, &v, err));
    if (v->n != 3)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s has %" PRIu64 " elements; expected 3",
                       fv_gguf_name(g), key, v->n);
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *at = v->data + 4 * i;
        uint32_t bits = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
                        (uint32_t)at[3] << 24;
        memcpy(&out[i], &bits, sizeof bits);
        if (!isfinite(out[i]) || (divides && out[i] == 0))
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s[%zu] is %g; expected a number%s",
                           fv_gguf_name(g), key, i, (double)out[i], divides ? " other than 0" : "");
    }
    return FV_OK;
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

/* The place of a text in a list of names; those that are NULL are no choice. */
static fv_status get_name(const fv_gguf *g, const char *key, const char *const *names, int n_names,
                          const char *expected, int *out, fv_error *err)
{
    const char *text;
    size_t n;
    FV_TRY(fv_gguf_string(g, key, &text, &n, err));
    for (*out = 0; *out < n_names; ++*out)
        if (names[*out] && fv_gguf_string_is(g, key, names[*out]))
            return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s is \"%.*s\"; expected %s", fv_gguf_name(g),
                   key, (int)FV_MIN(n, (size_t)40), text, expected);
}

/* The keys of version 2. */
static fv_status get_newer(const fv_gguf *g, fv_recipe *r, fv_error *err)
{
    int64_t scale[2];
    size_t n = 0;
    int filter;
    FV_TRY(get_name(g, FV_ARCHITECTURE ".image.filter", filter_names, FV_FILTER_COUNT,
                    "\"bicubic\", \"bilinear\", \"lanczos\", \"box\", \"hamming\" or \"nearest\"",
                    &filter, err));
    r->filter = (fv_filter)filter;
    FV_TRY(fv_gguf_ints(g, FV_ARCHITECTURE ".image.scale", 0, 1 << 24, 0, 2, scale, &n, err));
    r->n_scale = (int)n;
    for (size_t i = 0; i < n; i++)
        r->scale[i] = (int)scale[i];
    if ((n == 1 && !scale[0]) || (n == 2 && !scale[0] != !scale[1]))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: " FV_ARCHITECTURE ".image.scale holds a 0; expected sizes, or two",
                       fv_gguf_name(g));
    return fv_gguf_number(g, FV_ARCHITECTURE ".image.rescale", 0, 1e9, &r->rescale, err);
}

static fv_status get_recipe(const fv_gguf *g, fv_recipe *r, fv_error *err)
{
    int64_t version = 0;
    int fit;
    *r = *FV_RECIPE(FV_FIT_PAD);
    FV_TRY(get_name(g, FV_ARCHITECTURE ".image.fit", fit_names, FV_COUNT(fit_names),
                    "\"pad\", \"crop\" or \"stretch\"", &fit, err));
    r->fit = (fv_fit)fit;
    FV_TRY(get_three(g, FV_ARCHITECTURE ".image.mean", false, r->mean, err));
    FV_TRY(get_three(g, FV_ARCHITECTURE ".image.std", true, r->std, err));
    FV_TRY(fv_gguf_int(g, FV_ARCHITECTURE ".format_version", 0, INT32_MAX, &version, err));
    return version == FV_FORMAT_VERSION_2 ? get_newer(g, r, err) : FV_OK;
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
    if (version < FV_FORMAT_VERSION || version > FV_FORMAT_VERSION_2)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: " FV_ARCHITECTURE ".format_version is %" PRId64 ", expected %d or %d",
                       fv_gguf_name(g), version, FV_FORMAT_VERSION, FV_FORMAT_VERSION_2);
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
    FV_TRY(get_recipe(g, &c->recipe, err));
    return fv_config_check(c, FV_SOURCE_GGUF, fv_gguf_name(g), err);
}
