/* config.json -> fv_config. See config.h; keys: docs/model.md, section 8 and 9.2. */
#include "model/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "model/config_rules.h"

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

/* A key that, where it is given, must have this value. */
static fv_status reader_expect_text(const reader *r, const char *key, const char *wanted)
{
    const char *found = wanted;
    FV_TRY(fv_json_opt_string(r->doc, r->root, key, &found, r->err));
    if (strcmp(found, wanted))
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is \"%s\"; expected \"%s\"",
                       fv_json_name(r->doc), key, found, wanted);
    return FV_OK;
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

static fv_status reader_reals(const reader *r, fv_config *c)
{
    for (size_t i = 0; i < FV_CONFIG_REALS; i++) {
        const fv_config_real *f = &fv_config_reals[i];
        FV_TRY(fv_json_opt_number(r->doc, r->root, f->name[r->source], f->min, f->max,
                                  (double *)((char *)c + f->offset), r->err));
    }
    return FV_OK;
}

/* ---- the decoder: Qwen2's keys; r->root is config.json's root or its text_config ---- */

/* eos_token_id is a number or a list of numbers. */
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
    for (size_t i = 0; i < n; i++)
        c->eos[c->n_eos++] = (int32_t)ids[i];
    return FV_OK;
}

/* Two keys, new and old, each with two keys for the kind of scaling. Only "default", none, is what
 * the decoder computes. */
static fv_status read_rope(const reader *r, fv_config *c)
{
    static const char *const keys[] = { "rope_parameters", "rope_scaling" };
    for (size_t i = 0; i < FV_COUNT(keys); i++) {
        const fv_json_value *rope = NULL;
        FV_TRY(fv_json_opt_object(r->doc, r->root, keys[i], &rope, r->err));
        if (!rope)
            continue;
        reader in_rope = reader_into(r, rope);
        FV_TRY(reader_expect_text(&in_rope, "rope_type", "default"));
        FV_TRY(reader_expect_text(&in_rope, "type", "default"));
        FV_TRY(reader_reals(&in_rope, c));
    }
    return FV_OK;
}

static fv_status config_read_decoder(const reader *r, fv_config *c)
{
    bool sliding = false;
    c->max_context = DEFAULT_POSITIONS;
    c->rope_theta = 10000.0;
    c->rms_eps = 1e-6;
    FV_TRY(reader_ints(r, fv_config_decoder_fields, FV_CONFIG_DECODER_FIELDS, c));
    if (!c->n_kv_heads)
        c->n_kv_heads = c->n_heads;
    if (!c->d_head)
        c->d_head = c->d_model / c->n_heads;
    FV_TRY(read_rope(r, c));
    FV_TRY(reader_reals(r, c));
    FV_TRY(reader_expect_text(r, "hidden_act", "silu"));
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "use_sliding_window", &sliding, r->err));
    if (sliding)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: use_sliding_window is true; expected false", fv_json_name(r->doc));
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
        if (!fv_json_as_int(fv_json_at(list, (size_t)i), &ratio))
            return stage_fail(r, "mlp_ratios", i, fv_json_at(list, (size_t)i), "an integer");
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
                       "%s: mm_vision_tower is \"%s\"; expected a name that ends in _SIZE",
                       fv_json_name(r->doc), tower);
    c->image_size = (int)FV_MAX(-1L, FV_MIN(size, (long)INT32_MAX));
    return FV_OK;
}

static fv_status read_llava_vision(const reader *r, fv_config *c)
{
    const fv_json_value *vision = NULL;
    const fv_config_field *features = &fv_config_derived_fields[1];
    double ratio = 2.0;
    stages_default(c);
    FV_TRY(fv_json_opt_object(r->doc, r->root, "vision_config", &vision, r->err));
    if (vision) {
        reader in_vision = reader_into(r, vision);
        FV_TRY(read_stages(&in_vision, c));
        FV_TRY(reader_ints(&in_vision, fv_config_kernel_fields, FV_CONFIG_KERNEL_FIELDS, c));
        FV_TRY(fv_json_opt_number(r->doc, vision, "cls_ratio", 2.0, 2.0, &ratio, r->err));
    }
    c->n_features = 2 * c->stage[c->n_stages - 1].width;
    return reader_ints(r, features, 1, c);
}

static fv_status read_llava(const reader *r, fv_config *c)
{
    const char *aspect = "pad";
    int64_t limit = INT32_MAX;
    FV_TRY(config_read_decoder(r, c));
    FV_TRY(reader_expect_text(r, "mm_projector_type", "mlp2x_gelu"));
    FV_TRY(fv_json_opt_int(r->doc, r->root, "tokenizer_model_max_length", 1, INT64_MAX, &limit,
                           r->err));
    c->max_context = (int)FV_MIN((int64_t)c->max_context, limit);
    FV_TRY(fv_json_opt_string(r->doc, r->root, "image_aspect_ratio", &aspect, r->err));
    if (!strcmp(aspect, "anyres"))
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: image_aspect_ratio is \"anyres\"; expected \"pad\" or \"square\"",
                       fv_json_name(r->doc));
    c->crop = strcmp(aspect, "pad") != 0;
    FV_TRY(image_size_of_tower(r, c));
    return read_llava_vision(r, c);
}

/* ---- the layout fast_vlm ---- */

/* The side of the square: a number, {"height", "width"} or {"shortest_edge"}. */
static fv_status read_side(const fv_json *doc, const fv_json_value *root, const char *key,
                           int *side, fv_error *err)
{
    const fv_config_field *f = &fv_config_derived_fields[0]; /* image_size */
    const fv_json_value *object = fv_json_member(root, key);
    int64_t height = *side, width;
    if (!object || fv_json_type_of(object) == FV_JSON_NULL)
        return FV_OK;
    if (fv_json_type_of(object) == FV_JSON_INT) {
        FV_TRY(fv_json_int(doc, root, key, f->min, f->max, &height, err));
    } else {
        FV_TRY(fv_json_object(doc, root, key, &object, err));
        FV_TRY(fv_json_opt_int(doc, object, "shortest_edge", f->min, f->max, &height, err));
        FV_TRY(fv_json_opt_int(doc, object, "height", f->min, f->max, &height, err));
        width = height;
        FV_TRY(fv_json_opt_int(doc, object, "width", f->min, f->max, &width, err));
        if (width != height)
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %d x %d; expected a square",
                           fv_json_name(doc), key, (int)width, (int)height);
    }
    *side = (int)height;
    return FV_OK;
}

/* preprocessor_config.json, or processor_config.json with an "image_processor" inside. */
static fv_status read_processor(const void *text, size_t n, const char *name, fv_config *c,
                                fv_error *err)
{
    fv_json *doc = NULL;
    fv_status status = FV_OK;
    const fv_json_value *inner = NULL;
    FV_TRY(fv_json_parse(&doc, text, n, name, err));
    FV_TRY_GOTO(fv_json_opt_object(doc, fv_json_root(doc), "image_processor", &inner, err));
    const fv_json_value *root = inner ? inner : fv_json_root(doc);
    FV_TRY_GOTO(read_side(doc, root, "size", &c->image_size, err));
    FV_TRY_GOTO(read_side(doc, root, "crop_size", &c->image_size, err));
fail:
    fv_json_free(doc);
    return status;
}

static fv_status read_fast_vlm_vision(const reader *r, fv_config *c)
{
    const fv_json_value *vision = NULL, *args = NULL;
    stages_default(c);
    FV_TRY(fv_json_opt_object(r->doc, r->root, "vision_config", &vision, r->err));
    if (vision) {
        reader in_vision = reader_into(r, vision);
        FV_TRY(reader_expect_text(&in_vision, "architecture", "fastvit_mci3"));
        FV_TRY(fv_json_opt_object(r->doc, vision, "model_args", &args, r->err));
        if (args) {
            reader in_args = reader_into(r, args);
            FV_TRY(read_stages(&in_args, c));
        }
    }
    c->n_features = 2 * c->stage[c->n_stages - 1].width;
    return FV_OK;
}

static fv_status read_fast_vlm(const reader *r, fv_config *c)
{
    static const char *const image_token[] = { "image_token_index", "image_token_id" };
    const fv_json_value *text;
    int64_t id = -1;
    bool tied_here = false;
    FV_TRY(fv_json_object(r->doc, r->root, "text_config", &text, r->err));
    reader in_text = reader_into(r, text);
    FV_TRY(reader_expect_text(&in_text, "model_type", "qwen2"));
    FV_TRY(config_read_decoder(&in_text, c));
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "tie_word_embeddings", &tied_here, r->err));
    c->tied = c->tied || tied_here;
    FV_TRY(reader_expect_text(r, "projector_hidden_act", "gelu"));
    c->max_context = FV_MIN(c->max_context, (int)MAX_CONTEXT_FAST_VLM);
    c->crop = true;
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

fv_status fv_config_parse(fv_config *out, const void *config, size_t n_config, const char *name,
                          const void *processor, size_t n_processor, fv_error *err)
{
    fv_json *doc = NULL;
    fv_status status = FV_OK;
    *out = (fv_config){ .image_token = -1 };
    FV_TRY(fv_json_parse(&doc, config, n_config, name, err));
    reader r = { doc, fv_json_root(doc), FV_SOURCE_LLAVA_QWEN2, err };
    FV_TRY_GOTO(layout_of(&r, &out->layout));
    r.source = (fv_config_source)out->layout;
    if (out->layout == FV_LAYOUT_LLAVA_QWEN2)
        FV_TRY_GOTO(read_llava(&r, out));
    else
        FV_TRY_GOTO(read_fast_vlm(&r, out));
    if (processor && out->layout == FV_LAYOUT_FAST_VLM)
        FV_TRY_GOTO(read_processor(processor, n_processor, "preprocessor_config.json", out, err));
    out->n_squeeze = FV_MAX(1, (int)(out->n_features * 0.0625));
    FV_TRY_GOTO(fv_config_check(out, r.source, fv_json_name(doc), err));
fail:
    fv_json_free(doc);
    return status;
}

/* The first of the files that exists, or NULL in *text. */
static fv_status config_read_first(const char *dir, const char *const *names, size_t n_names,
                                   uint8_t **text, size_t *n, fv_error *err)
{
    *text = NULL;
    *n = 0;
    for (size_t i = 0; i < n_names && !*text; i++) {
        char *path = fv_path_join(dir, names[i]);
        if (!path)
            return fv_fail_memory(err, strlen(dir), "a path");
        fv_status status = fv_is_there(path) ? fv_read_file(text, n, path, MAX_CONFIG_BYTES, err)
                                             : FV_OK;
        fv_free(path);
        FV_TRY(status);
    }
    return FV_OK;
}

fv_status fv_config_load(fv_config *out, const char *dir, fv_error *err)
{
    static const char *const config_name[] = { "config.json" };
    static const char *const processor_names[] = { "preprocessor_config.json",
                                                   "processor_config.json" };
    uint8_t *config = NULL, *processor = NULL;
    size_t n_config, n_processor;
    fv_status status = FV_OK;
    char *path = fv_path_join(dir, "config.json");
    if (!path)
        return fv_fail_memory(err, strlen(dir), "a path");
    FV_TRY_GOTO(config_read_first(dir, config_name, 1, &config, &n_config, err));
    if (!config) {
        status = fv_fail(
            err, FV_ERR_IO, 0,
            "%s: no config.json; expected a checkpoint directory such as apple/FastVLM-0.5B's",
            dir);
        goto fail;
    }
    FV_TRY_GOTO(config_read_first(dir, processor_names, 2, &processor, &n_processor, err));
    FV_TRY_GOTO(fv_config_parse(out, config, n_config, path, processor, n_processor, err));
fail:
    fv_free(path);
    fv_free(config);
    fv_free(processor);
    return status;
}
