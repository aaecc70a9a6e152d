/* config.json -> fv_config. See config.h; keys: docs/model.md, section 8 and 9.2. */
#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "base/sniff.h"
#include "io/json.h"
#include "io/settings.h"
#include "model/config_rules.h"
#include "model/processor.h"

enum {
    MAX_CONFIG_BYTES = 4 << 20,
    MAX_CONTEXT_FAST_VLM = 8192, /* as Qwen2's tokenizers of the other layout state it */
    DEFAULT_POSITIONS = 32768,
    DEFAULT_IMAGE = 1024
};

/* An object of a file, and what the file as a whole is. */
typedef struct reader {
    const fv_json *doc;
    const fv_json_value *root;
    fv_config_source source;
    fv_error *err;
} reader;

static reader reader_into(const reader *r, const fv_json_value *object)
{
    return (reader){ r->doc, object, r->source, r->err };
}

static fv_status reader_ints(const reader *r, const fv_config_field *f, size_t n, fv_config *c)
{
    for (size_t i = 0; i < n; i++) {
        const char *key = f[i].name[r->source];
        int64_t value = *fv_config_member(&f[i], c);
        if (!key)
            continue;
        FV_TRY(f[i].optional
                   ? fv_json_opt_int(r->doc, r->root, key, f[i].min, f[i].max, &value, r->err)
                   : fv_json_int(r->doc, r->root, key, f[i].min, f[i].max, &value, r->err));
        *fv_config_member(&f[i], c) = (int)value;
    }
    return FV_OK;
}

static fv_status reader_eps(const reader *r, fv_config *c)
{
    const fv_config_real *f = &fv_config_reals[FV_CONFIG_RMS_EPS];
    return fv_json_opt_number(r->doc, r->root, f->name[r->source], f->min, f->max, &c->rms_eps,
                              r->err);
}

/* ---- the decoder: Qwen2's keys; r->root is config.json's root or its text_config ---- */

/* eos_token_id is a number or a list of numbers; what is read replaces what is there. */
static fv_status read_eos(const reader *r, fv_config *c)
{
    const fv_json_value *value = fv_json_member(r->root, "eos_token_id");
    int64_t ids[FV_MAX_EOS];
    size_t n = 0;
    if (!value || fv_json_type_of(value) == FV_JSON_NULL)
        return FV_OK;
    if (fv_json_type_of(value) == FV_JSON_ARRAY) {
        FV_TRY(fv_json_ints(r->doc, r->root, "eos_token_id", 0, FV_CONFIG_MAX_ID, 0, FV_MAX_EOS,
                            ids, &n, r->err));
    } else {
        FV_TRY(fv_json_int(r->doc, r->root, "eos_token_id", 0, FV_CONFIG_MAX_ID, &ids[0], r->err));
        n = 1;
    }
    c->n_eos = (int)n;
    for (size_t i = 0; i < n; i++)
        c->eos[i] = (int32_t)ids[i];
    return FV_OK;
}

/* The kind of scaling under its new and its old key. Only "default", none, is what the decoder
 * computes. Kinds for each type of layer, as other models have them, are objects inside. */
static fv_status read_rope_object(const reader *r, const fv_json_value *rope, double *theta)
{
    const fv_config_real *f = &fv_config_reals[FV_CONFIG_ROPE_THETA];
    const fv_json_value *value;
    const char *key;
    void *iter = NULL;
    while (fv_json_next(rope, &iter, &key, &value))
        if (fv_json_type_of(value) == FV_JSON_OBJECT)
            return fv_json_unexpected(r->doc, rope, key,
                                      "rope_type and rope_theta beside each other", r->err);
    FV_TRY(fv_settings_check(FV_SETTINGS_ROPE, r->doc, rope, r->err));
    return fv_json_opt_number(r->doc, rope, f->name[r->source], f->min, f->max, theta, r->err);
}

/* rope_scaling, the old key, goes before rope_parameters; an empty one counts as none. The angle's
 * base inside them goes before the one beside them, except in llava_qwen2, whose reference knows
 * only the latter. [transformers modeling_rope_utils, convert_rope_params_to_dict] */
static fv_status read_rope(const reader *r, fv_config *c)
{
    static const char *const keys[] = { "rope_scaling", "rope_parameters" };
    double inside = 0, beside = 0;
    bool found = false;
    for (size_t i = 0; i < FV_COUNT(keys); i++) {
        const fv_json_value *rope = NULL;
        double theta = 0;
        FV_TRY(fv_json_opt_object(r->doc, r->root, keys[i], &rope, r->err));
        if (!rope || fv_json_count(rope) == 0)
            continue;
        FV_TRY(read_rope_object(r, rope, &theta));
        if (!found)
            inside = theta;
        found = true;
    }
    FV_TRY(fv_json_opt_number(r->doc, r->root, "rope_theta",
                              fv_config_reals[FV_CONFIG_ROPE_THETA].min,
                              fv_config_reals[FV_CONFIG_ROPE_THETA].max, &beside, r->err));
    bool first = inside > 0 && (r->source == FV_SOURCE_FAST_VLM || !(beside > 0));
    if (first || beside > 0)
        c->rope_theta = first ? inside : beside;
    return FV_OK;
}

/* Layers that see only the last sliding_window rows. Without effect where the window holds a whole
 * conversation. [transformers configuration_qwen2] */
static fv_status read_window(const reader *r, const fv_config *c)
{
    const fv_json_value *types = NULL;
    int64_t window = -1, first = 28;
    bool use = false, windowed = false;
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "use_sliding_window", &use, r->err));
    FV_TRY(fv_json_opt_int(r->doc, r->root, "sliding_window", 0, INT64_MAX, &window, r->err));
    FV_TRY(fv_json_opt_int(r->doc, r->root, "max_window_layers", 0, INT64_MAX, &first, r->err));
    FV_TRY(fv_json_opt_array(r->doc, r->root, "layer_types", &types, r->err));
    for (size_t i = 0; i < fv_json_count(types); i++) {
        const char *type = "";
        fv_json_as_string(fv_json_at(types, i), &type);
        windowed = windowed || !strcmp(type, "sliding_attention");
        if (strcmp(type, "full_attention") && strcmp(type, "sliding_attention"))
            return fv_json_unexpected(r->doc, r->root, "layer_types", "all \"full_attention\"",
                                      r->err);
    }
    if (types && fv_json_count(types) != (size_t)c->n_layers)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: layer_types has %zu elements; expected num_hidden_layers, %d",
                       fv_json_name(r->doc), fv_json_count(types), c->n_layers);
    if (!types)
        windowed = use && window >= 0 && first < c->n_layers;
    if (!windowed || (use && window >= c->max_context))
        return FV_OK;
    if (types)
        return fv_json_unexpected(r->doc, r->root, "layer_types", "all \"full_attention\"", r->err);
    return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                   "%s: use_sliding_window is true, with a window of %" PRId64
                   " tokens; expected false, or a window of the context length, %d",
                   fv_json_name(r->doc), window, c->max_context);
}

static fv_status config_read_decoder(const reader *r, fv_config *c)
{
    c->max_context = DEFAULT_POSITIONS;
    c->rope_theta = 10000.0;
    c->rms_eps = 1e-6;
    FV_TRY(reader_ints(r, fv_config_decoder_fields, FV_CONFIG_DECODER_FIELDS, c));
    if (!c->n_kv_heads)
        c->n_kv_heads = c->n_heads;
    if (!c->d_head)
        c->d_head = c->d_model / c->n_heads;
    FV_TRY(reader_eps(r, c));
    FV_TRY(read_rope(r, c));
    FV_TRY(fv_settings_check(FV_SETTINGS_DECODER, r->doc, r->root, r->err));
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "tie_word_embeddings", &c->tied, r->err));
    return read_eos(r, c);
}

/* ---- the vision encoder ---- */

static void stages_default(fv_config *c)
{
    static const int depth[5] = { 2, 12, 24, 4, 2 }, width[5] = { 96, 192, 384, 768, 1536 };
    c->n_stages = 5;
    for (int i = 0; i < 5; i++)
        c->stage[i] = (fv_vision_stage){ .depth = depth[i],
                                         .width = width[i],
                                         .hidden = 4 * width[i],
                                         .attention = i >= 3,
                                         .cpe = i >= 3 ? 7 : 0 };
    c->mixer_kernel = 3;
    c->down_kernel = 7;
    c->d_head_vision = 32;
}

/* The list of one value a stage, or NULL when the key is absent. */
static fv_status stage_list(const reader *r, const fv_config *c, const char *key,
                            const fv_json_value **list)
{
    *list = NULL;
    FV_TRY(fv_json_opt_array(r->doc, r->root, key, list, r->err));
    if (*list && fv_json_count(*list) != (size_t)c->n_stages)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s has %zu elements; expected %d",
                       fv_json_name(r->doc), key, fv_json_count(*list), c->n_stages);
    return FV_OK;
}

static fv_status stage_fail(const reader *r, const char *key, int i, const fv_json_value *found,
                            const char *expected)
{
    const char *text = NULL;
    if (fv_json_as_string(found, &text))
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s[%d] is \"%s\"; expected %s",
                       fv_json_name(r->doc), key, i, text, expected);
    return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s[%d]: expected %s, found %s",
                   fv_json_name(r->doc), key, i, expected, fv_json_type_name(found));
}

/* Depths and widths, which come together. */
static fv_status read_stage_sizes(const reader *r, fv_config *c)
{
    int64_t list[FV_MAX_STAGES];
    size_t n;
    if (!fv_json_member(r->root, "layers") && !fv_json_member(r->root, "embed_dims"))
        return FV_OK;
    for (size_t i = 0; i < 2; i++) {
        const fv_config_field *f = &fv_config_stage_fields[i];
        FV_TRY(fv_json_ints(r->doc, r->root, f->name[r->source], f->min, f->max,
                            (size_t)c->n_stages, (size_t)c->n_stages, list, &n, r->err));
        for (int s = 0; s < c->n_stages; s++)
            *fv_config_member(f, &c->stage[s]) = (int)list[s];
    }
    for (int s = 0; s < c->n_stages; s++)
        c->stage[s].hidden = 4 * c->stage[s].width;
    return FV_OK;
}

static fv_status read_stage_ratios(const reader *r, fv_config *c)
{
    const fv_json_value *list;
    FV_TRY(stage_list(r, c, "mlp_ratios", &list));
    for (int i = 0; list && i < c->n_stages; i++) {
        int64_t ratio = 0;
        double real = 0;
        bool whole = fv_json_as_number(fv_json_at(list, (size_t)i), &real) && real > -1001 &&
                     real < 1001 && real == (double)(int)real; /* 4.0, too */
        if (!fv_json_as_int(fv_json_at(list, (size_t)i), &ratio) && !whole)
            return stage_fail(r, "mlp_ratios", i, fv_json_at(list, (size_t)i), "an integer");
        ratio = whole ? (int64_t)real : ratio;
        ratio = FV_MAX((int64_t)-1000, FV_MIN(ratio, (int64_t)1000)); /* the rules refuse both */
        c->stage[i].hidden = (int)ratio * c->stage[i].width;
    }
    return FV_OK;
}

static fv_status read_stage_mixers(const reader *r, fv_config *c)
{
    const fv_json_value *list;
    FV_TRY(stage_list(r, c, "token_mixers", &list));
    for (int i = 0; list && i < c->n_stages; i++) {
        const char *mixer = "";
        if (!fv_json_as_string(fv_json_at(list, (size_t)i), &mixer) ||
            (strcmp(mixer, "attention") && strcmp(mixer, "repmixer")))
            return stage_fail(r, "token_mixers", i, fv_json_at(list, (size_t)i),
                              "\"repmixer\" or \"attention\"");
        c->stage[i].attention = *mixer == 'a';
    }
    return FV_OK;
}

/* null, or the kernel [k, k]. */
static fv_status read_stage_positions(const reader *r, fv_config *c)
{
    const fv_json_value *list;
    FV_TRY(stage_list(r, c, "pos_embs_shapes", &list));
    for (int i = 0; list && i < c->n_stages; i++) {
        const fv_json_value *shape = fv_json_at(list, (size_t)i);
        int64_t k = 0, other = 0;
        if (fv_json_type_of(shape) != FV_JSON_NULL &&
            (fv_json_count(shape) != 2 || !fv_json_as_int(fv_json_at(shape, 0), &k) ||
             !fv_json_as_int(fv_json_at(shape, 1), &other) || k != other || (k != 3 && k != 7)))
            return stage_fail(r, "pos_embs_shapes", i, shape, "null, [7, 7] or [3, 3]");
        c->stage[i].cpe = (int)k;
    }
    return FV_OK;
}

/* Lists of one value a stage; absent ones keep FastViTHD's pattern. */
static fv_status read_stages(const reader *r, fv_config *c)
{
    FV_TRY(read_stage_sizes(r, c));
    FV_TRY(read_stage_ratios(r, c));
    FV_TRY(read_stage_mixers(r, c));
    return read_stage_positions(r, c);
}

/* ---- the layout llava_qwen2 ---- */

/* "mobileclip_l_1024" -> 1024 */
static fv_status image_size_of_tower(const reader *r, fv_config *c)
{
    const char *tower;
    FV_TRY(fv_json_string(r->doc, r->root, "mm_vision_tower", &tower, r->err));
    const char *digits = strrchr(tower, '_');
    char *end = NULL;
    long size = digits ? strtol(digits + 1, &end, 10) : 0;
    if (!digits || end == digits + 1 || *end)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: mm_vision_tower is \"%s\"; expected a name that ends in _SIZE, such as "
                       "mobileclip_l_1024",
                       fv_json_name(r->doc), tower);
    c->image_size = (int)FV_MAX(-1L, FV_MIN(size, (long)INT32_MAX));
    return FV_OK;
}

static fv_status read_llava_vision(const reader *r, fv_config *c)
{
    const fv_json_value *vision = NULL;
    const fv_config_field *features = &fv_config_derived_fields[1];
    int64_t side = c->image_size;
    stages_default(c);
    FV_TRY(fv_json_opt_object(r->doc, r->root, "vision_config", &vision, r->err));
    if (vision) {
        reader in_vision = reader_into(r, vision);
        FV_TRY(read_stages(&in_vision, c));
        FV_TRY(reader_ints(&in_vision, fv_config_kernel_fields, FV_CONFIG_KERNEL_FIELDS, c));
        FV_TRY(fv_settings_check(FV_SETTINGS_LLAVA_VISION, r->doc, vision, r->err));
        FV_TRY(fv_json_opt_int(r->doc, vision, "image_size", 1, INT32_MAX, &side, r->err));
        if (side != c->image_size)
            return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                           "%s: vision_config.image_size is %d; expected the size in "
                           "mm_vision_tower, %d",
                           fv_json_name(r->doc), (int)side, c->image_size);
    }
    c->n_features = 2 * c->stage[c->n_stages - 1].width;
    return reader_ints(r, features, 1, c);
}

/* Rows of a conversation. Python cuts there with a slice, which any integer serves. */
static fv_status read_limit(const reader *r, fv_config *c)
{
    static const char key[] = "tokenizer_model_max_length";
    const fv_json_value *value = fv_json_member(r->root, key);
    int64_t limit = INT32_MAX;
    double number = 0;
    if (fv_json_type_of(value) != FV_JSON_INT || fv_json_as_int(value, &limit) ||
        !fv_json_as_number(value, &number) || number < 0)
        FV_TRY(fv_json_opt_int(r->doc, r->root, key, 1, INT64_MAX, &limit, r->err));
    c->max_context = (int)FV_MIN((int64_t)c->max_context, limit);
    return FV_OK;
}

static fv_status read_llava(const reader *r, fv_config *c)
{
    const char *aspect = ""; /* without one the reference crops */
    FV_TRY(config_read_decoder(r, c));
    FV_TRY(fv_settings_check(FV_SETTINGS_LLAVA, r->doc, r->root, r->err));
    FV_TRY(read_limit(r, c));
    FV_TRY(read_window(r, c));
    FV_TRY(fv_json_opt_string(r->doc, r->root, "image_aspect_ratio", &aspect, r->err));
    if (!strncmp(aspect, "anyres", 6))
        return fv_json_unexpected(r->doc, r->root, "image_aspect_ratio", "\"pad\" or \"square\"",
                                  r->err);
    c->recipe.fit = strcmp(aspect, "pad") ? FV_FIT_CROP : FV_FIT_PAD;
    FV_TRY(image_size_of_tower(r, c));
    return read_llava_vision(r, c);
}

/* ---- the layout fast_vlm ---- */

/* Members of model_args are arguments of timm's model: what is not known here may change it. */
static fv_status check_model_args(const reader *r)
{
    static const char *const known[] = {
        /* read or checked */
        "layers", "embed_dims", "mlp_ratios", "token_mixers", "in_chans", "cls_ratio",
        "down_patch_size", "down_stride", "repmixer_kernel_size", "downsamples", "se_downsamples",
        "lkc_use_act", "fork_feat", "features_only",
        /* without effect on features */
        "inference_mode", "num_classes", "global_pool", "drop_rate", "proj_drop_rate",
        "drop_path_rate", "layer_scale_init_value", "stem_use_scale_branch", "pretrained",
        "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable",
        "exportable", "no_jit"
    };
    const fv_json_value *value;
    const char *key;
    void *iter = NULL;
    FV_TRY(fv_settings_check(FV_SETTINGS_TIMM_ARGS, r->doc, r->root, r->err));
    while (fv_json_next(r->root, &iter, &key, &value)) {
        size_t i = 0;
        while (i < FV_COUNT(known) && strcmp(known[i], key))
            i++;
        if (i == FV_COUNT(known) && fv_json_type_of(value) != FV_JSON_NULL)
            return fv_json_unexpected(r->doc, r->root, key,
                                      "no such argument: what it does to the encoder is not known",
                                      r->err);
    }
    return FV_OK;
}

/* The projector takes features of this width. */
static fv_status check_feature_width(const reader *r, const fv_config *c)
{
    static const char *const keys[] = { "hidden_size", "num_features" };
    for (size_t i = 0; i < FV_COUNT(keys); i++) {
        int64_t n = c->n_features;
        FV_TRY(fv_json_opt_int(r->doc, r->root, keys[i], 1, INT32_MAX, &n, r->err));
        if (n != c->n_features)
            return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                           "%s: vision_config.%s is %d; expected %d, twice the width of the last "
                           "stage",
                           fv_json_name(r->doc), keys[i], (int)n, c->n_features);
    }
    return FV_OK;
}

static fv_status read_fast_vlm_vision(const reader *r, fv_config *c)
{
    const fv_json_value *vision = NULL, *args = NULL;
    stages_default(c);
    FV_TRY(fv_json_opt_object(r->doc, r->root, "vision_config", &vision, r->err));
    FV_TRY(fv_settings_check(FV_SETTINGS_TIMM, r->doc, vision, r->err));
    FV_TRY(fv_json_opt_object(r->doc, vision, "model_args", &args, r->err));
    if (args) {
        reader in_args = reader_into(r, args);
        FV_TRY(check_model_args(&in_args));
        FV_TRY(read_stages(&in_args, c));
    }
    c->n_features = 2 * c->stage[c->n_stages - 1].width;
    reader in_vision = reader_into(r, vision);
    return check_feature_width(&in_vision, c);
}

static fv_status read_fast_vlm(const reader *r, fv_config *c)
{
    static const char *const image_token[] = { "image_token_index", "image_token_id" };
    const fv_json_value *text;
    int64_t id = -1;
    bool tied_here = false;
    FV_TRY(fv_json_object(r->doc, r->root, "text_config", &text, r->err));
    reader in_text = reader_into(r, text);
    FV_TRY(fv_settings_check(FV_SETTINGS_TEXT, r->doc, text, r->err));
    FV_TRY(config_read_decoder(&in_text, c));
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "tie_word_embeddings", &tied_here, r->err));
    c->tied = c->tied || tied_here;
    FV_TRY(fv_settings_check(FV_SETTINGS_FAST_VLM, r->doc, r->root, r->err));
    c->max_context = FV_MIN(c->max_context, (int)MAX_CONTEXT_FAST_VLM);
    FV_TRY(read_window(&in_text, c));
    c->recipe.fit = FV_FIT_CROP;
    c->image_size = DEFAULT_IMAGE;
    for (size_t i = 0; i < FV_COUNT(image_token); i++)
        FV_TRY(fv_json_opt_int(r->doc, r->root, image_token[i], 0, FV_CONFIG_MAX_ID, &id, r->err));
    c->image_token = (int32_t)id;
    return read_fast_vlm_vision(r, c);
}

/* ---- either ---- */

static fv_status layout_of(const reader *r, fv_layout *layout)
{
    const char *type;
    FV_TRY(fv_json_string(r->doc, r->root, "model_type", &type, r->err));
    *layout = strcmp(type, "fast_vlm") ? FV_LAYOUT_LLAVA_QWEN2 : FV_LAYOUT_FAST_VLM;
    if (strcmp(type, "llava_qwen2") && strcmp(type, "fast_vlm"))
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: model_type is \"%s\"; expected \"llava_qwen2\" (apple/FastVLM) or "
                       "\"fast_vlm\" (transformers)",
                       fv_json_name(r->doc), type);
    return FV_OK;
}

/* ---- the other files of the layout fast_vlm ---- */

/* Leaves *doc NULL when there is no such text. */
static fv_status config_parse_text(fv_json **doc, const fv_config_text *text, const char *name,
                                   fv_error *err)
{
    *doc = NULL;
    if (!text->data)
        return FV_OK;
    FV_TRY(fv_json_parse(doc, text->data, text->n, name, err));
    if (fv_json_type_of(fv_json_root(*doc)) == FV_JSON_OBJECT)
        return FV_OK;
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: expected an object, found an array", name);
}

/* Where generation_config.json states end tokens, they replace those of config.json. */
static fv_status read_generation(const fv_json *doc, fv_config *c, fv_error *err)
{
    reader r = { doc, fv_json_root(doc), FV_SOURCE_FAST_VLM, err };
    FV_TRY(fv_settings_check(FV_SETTINGS_GENERATION, doc, r.root, err));
    return read_eos(&r, c);
}

static fv_status read_others(const fv_config_files *files, fv_config *c, fv_error *err)
{
    fv_json *preprocessor = NULL, *processor = NULL, *generation = NULL;
    fv_status status = FV_OK;
    FV_TRY_GOTO(
        config_parse_text(&preprocessor, &files->preprocessor, "preprocessor_config.json", err));
    FV_TRY_GOTO(config_parse_text(&processor, &files->processor, "processor_config.json", err));
    FV_TRY_GOTO(fv_processor_read(c, preprocessor, processor, err));
    FV_TRY_GOTO(config_parse_text(&generation, &files->generation, "generation_config.json", err));
    if (generation)
        FV_TRY_GOTO(read_generation(generation, c, err));
fail:
    fv_json_free(preprocessor);
    fv_json_free(processor);
    fv_json_free(generation);
    return status;
}

fv_status fv_config_parse(fv_config *out, const fv_config_files *files, const char *name,
                          fv_error *err)
{
    fv_json *doc = NULL;
    fv_status status = FV_OK;
    *out = (fv_config){ .image_token = -1, .recipe = *FV_RECIPE(FV_FIT_PAD) };
    FV_TRY(fv_json_parse(&doc, files->config.data, files->config.n, name, err));
    reader r = { doc, fv_json_root(doc), FV_SOURCE_LLAVA_QWEN2, err };
    FV_TRY_GOTO(layout_of(&r, &out->layout));
    r.source = (fv_config_source)out->layout;
    if (out->layout == FV_LAYOUT_LLAVA_QWEN2) {
        FV_TRY_GOTO(read_llava(&r, out));
    } else {
        FV_TRY_GOTO(read_fast_vlm(&r, out));
        FV_TRY_GOTO(read_others(files, out, err));
    }
    out->n_squeeze = FV_MAX(1, (int)(out->n_features * 0.0625));
    FV_TRY_GOTO(fv_config_check(out, r.source, fv_json_name(doc), err));
fail:
    fv_json_free(doc);
    return status;
}

/* ---- from a directory ---- */

static fv_status config_read_file(const char *dir, const char *name, uint8_t **text,
                                  fv_config_text *out, fv_error *err)
{
    char *path = fv_path_join(dir, name);
    if (!path)
        return fv_fail_memory(err, strlen(dir), "a path");
    fv_status status = FV_OK;
    if (fv_is_there(path)) {
        status = fv_read_file(text, &out->n, path, MAX_CONFIG_BYTES, err);
        out->data = *text;
    }
    fv_free(path);
    return status;
}

fv_status fv_config_load(fv_config *out, const char *dir, fv_error *err)
{
    static const char *const names[] = { "config.json", "preprocessor_config.json",
                                         "processor_config.json", "generation_config.json" };
    fv_config_files files = { 0 };
    fv_config_text *const texts[] = { &files.config, &files.preprocessor, &files.processor,
                                      &files.generation };
    uint8_t *blocks[FV_COUNT(names)] = { 0 };
    fv_status status = FV_OK;
    char *path = fv_path_join(dir, "config.json");
    if (!path)
        return fv_fail_memory(err, strlen(dir), "a path");
    for (size_t i = 0; i < FV_COUNT(names); i++)
        FV_TRY_GOTO(config_read_file(dir, names[i], &blocks[i], texts[i], err));
    if (!files.config.data) {
        char image[256];
        status = fv_fail(
            err, FV_ERR_IO, 0,
            "%s: no config.json; expected a checkpoint directory such as apple/FastVLM-0.5B's%s",
            dir, fv_sniff_images(dir, image) ? ", found a directory of images" : "");
        goto fail;
    }
    FV_TRY_GOTO(fv_config_parse(out, &files, path, err));
fail:
    fv_free(path);
    for (size_t i = 0; i < FV_COUNT(blocks); i++)
        fv_free(blocks[i]);
    return status;
}

/* ---- the other files of the layout llava_qwen2 ---- */

/* The first setting of images in which they differ; NULL: none. Padding is none of them: a
 * CLIPImageProcessor cannot do it, and Apple's own file says that images are cropped. */
static const char *processor_difference(const fv_config *c, const fv_config *other)
{
    const fv_recipe *a = &c->recipe, *b = &other->recipe;
    if (a->filter != b->filter)
        return "resample";
    if (fabs(a->rescale - b->rescale) > 1e-6 * a->rescale)
        return "rescale_factor";
    if (memcmp(a->mean, b->mean, sizeof a->mean) != 0)
        return "image_mean";
    if (memcmp(a->std, b->std, sizeof a->std) != 0)
        return "image_std";
    return c->image_size != other->image_size ? "crop_size" : b->n_scale ? "size" : NULL;
}

typedef struct unread_check {
    const fv_config *c;
    const int32_t *ends;
    int n_ends;
} unread_check;

static const char *end_difference(const unread_check *u, const fv_config *other)
{
    for (int i = 0; i < other->n_eos; i++) {
        int k = 0;
        while (k < u->n_ends && u->ends[k] != other->eos[i])
            k++;
        if (k == u->n_ends)
            return "eos_token_id";
    }
    return NULL;
}

enum { UNREAD_PREPROCESSOR, UNREAD_PROCESSOR, UNREAD_GENERATION, N_UNREAD };

/* What a file states otherwise; why is set when it states what cannot be carried out at all. */
static fv_status unread_difference(const unread_check *u, int kind, const fv_config_text *text,
                                   const char *name, const char **key, fv_error *why)
{
    fv_config other = *u->c;
    fv_json *doc = NULL;
    fv_status status = FV_OK;
    FV_TRY_GOTO(config_parse_text(&doc, text, name, why));
    if (doc && kind == UNREAD_GENERATION) {
        FV_TRY_GOTO(read_generation(doc, &other, why));
        *key = end_difference(u, &other);
    } else if (doc) {
        FV_TRY_GOTO(fv_processor_read(&other, kind == UNREAD_PREPROCESSOR ? doc : NULL,
                                      kind == UNREAD_PROCESSOR ? doc : NULL, why));
        *key = processor_difference(u->c, &other);
    }
fail:
    fv_json_free(doc);
    return status;
}

fv_status fv_config_check_unread(const fv_config *c, const char *dir, const int32_t *ends,
                                 int n_ends, const fv_callbacks *callbacks, fv_error *err)
{
    static const char *const names[N_UNREAD] = { "preprocessor_config.json",
                                                 "processor_config.json",
                                                 "generation_config.json" };
    const unread_check u = { c, ends, n_ends };
    for (int i = 0; i < N_UNREAD && c->layout == FV_LAYOUT_LLAVA_QWEN2; i++) {
        fv_config_text text = { 0 };
        uint8_t *block = NULL;
        const char *key = NULL;
        fv_error why = { 0 };
        fv_status status = config_read_file(dir, names[i], &block, &text, &why);
        if (status == FV_OK)
            status = unread_difference(&u, i, &text, names[i], &key, &why);
        fv_free(block);
        if (status == FV_ERR_MEMORY)
            return fv_fail(err, status, 0, "%s", why.message);
        if (status != FV_OK)
            fv_log(callbacks, FV_LOG_WARNING, "%s; the file is not followed, as in Apple's code",
                   why.message);
        else if (key)
            fv_log(callbacks, FV_LOG_WARNING,
                   "%s: %s differs from what is done in the layout llava_qwen2; the file is not "
                   "followed, as in Apple's code",
                   names[i], key);
    }
    return FV_OK;
}

/* ---- the recipe ---- */

fv_recipe fv_config_recipe(const fv_config *c, fv_fit fit, int image_size)
{
    fv_recipe r = c->recipe;
    if (fit != FV_FIT_AUTO && fit != r.fit) {
        r.fit = fit;
        r.n_scale = 0;
    }
    for (int i = 0; i < r.n_scale; i++)
        if (r.scale[i])
            r.scale[i] = FV_MAX(1, (int)((int64_t)r.scale[i] * image_size / c->image_size));
    return r;
}
