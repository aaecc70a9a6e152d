/* config.json -> fv_config. See config.h; keys: docs/model.md, section 8 and 9.2. */
#include "model/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"

enum {
    MAX_CONFIG_BYTES = 4 << 20,
    MAX_WIDTH = 1 << 16, /* of anything in the model */
    MAX_VOCAB = 1 << 22,
    MAX_POSITIONS = 1 << 22,
    MAX_IMAGE = 1 << 13
};

typedef struct reader {
    const fv_json *doc;
    const fv_json_value *root;
    fv_error *err;
} reader;

static fv_status get_int(const reader *r, const char *key, int64_t min, int64_t max, int *out)
{
    int64_t value;
    FV_TRY(fv_json_int(r->doc, r->root, key, min, max, &value, r->err));
    *out = (int)value;
    return FV_OK;
}

static fv_status opt_int(const reader *r, const char *key, int64_t min, int64_t max, int *out)
{
    int64_t value = *out;
    FV_TRY(fv_json_opt_int(r->doc, r->root, key, min, max, &value, r->err));
    *out = (int)value;
    return FV_OK;
}

/* A key that, where it is given, must have this value. */
static fv_status expect_text(const reader *r, const char *key, const char *wanted)
{
    const char *found = wanted;
    FV_TRY(fv_json_opt_string(r->doc, r->root, key, &found, r->err));
    if (strcmp(found, wanted))
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is \"%s\"; only \"%s\" is supported",
                       fv_json_name(r->doc), key, found, wanted);
    return FV_OK;
}

/* eos_token_id is a number or a list of numbers. */
static fv_status read_eos(const reader *r, fv_config *c)
{
    const fv_json_value *value = fv_json_member(r->root, "eos_token_id");
    int64_t ids[FV_MAX_EOS];
    size_t n = 0;
    if (!value || fv_json_type_of(value) == FV_JSON_NULL)
        return FV_OK;
    if (fv_json_type_of(value) == FV_JSON_ARRAY) {
        FV_TRY(fv_json_ints(r->doc, r->root, "eos_token_id", 0, MAX_VOCAB, 0, FV_MAX_EOS, ids, &n,
                            r->err));
    } else {
        FV_TRY(fv_json_int(r->doc, r->root, "eos_token_id", 0, MAX_VOCAB, &ids[0], r->err));
        n = 1;
    }
    for (size_t i = 0; i < n; i++)
        c->eos[c->n_eos++] = (int32_t)ids[i];
    return FV_OK;
}

/* The Qwen2 keys; r->root is config.json's root or its text_config. */
static fv_status read_decoder(const reader *r, fv_config *c)
{
    const fv_json_value *rope = NULL;
    bool sliding = false;
    FV_TRY(get_int(r, "hidden_size", 1, MAX_WIDTH, &c->d_model));
    FV_TRY(get_int(r, "intermediate_size", 1, MAX_WIDTH * 4, &c->d_ffn));
    FV_TRY(get_int(r, "num_hidden_layers", 1, 1024, &c->n_layers));
    FV_TRY(get_int(r, "num_attention_heads", 1, 1024, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    FV_TRY(opt_int(r, "num_key_value_heads", 1, 1024, &c->n_kv_heads));
    c->d_head = c->d_model / c->n_heads;
    FV_TRY(opt_int(r, "head_dim", 1, MAX_WIDTH, &c->d_head));
    if (c->d_head % 2 || c->d_head > 256 || c->d_head * c->n_heads != c->d_model ||
        c->n_heads % c->n_kv_heads || c->d_model % 2 || c->d_ffn % 2)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: hidden_size %d, intermediate_size %d, %d heads, %d key-value heads: "
                       "expected even sizes, "
                       "an even head width of at most 256 that divides hidden_size, and heads "
                       "divisible by key-value heads",
                       fv_json_name(r->doc), c->d_model, c->d_ffn, c->n_heads, c->n_kv_heads);
    FV_TRY(get_int(r, "vocab_size", 1, MAX_VOCAB, &c->n_vocab));
    int positions = 32768;
    FV_TRY(opt_int(r, "max_position_embeddings", 1, MAX_POSITIONS, &positions));
    c->max_context = positions;
    c->rope_theta = 10000.0;
    FV_TRY(fv_json_opt_object(r->doc, r->root, "rope_parameters", &rope, r->err));
    if (rope) {
        reader in_rope = { r->doc, rope, r->err };
        FV_TRY(expect_text(&in_rope, "rope_type", "default"));
        FV_TRY(fv_json_opt_number(r->doc, rope, "rope_theta", 1, 1e12, &c->rope_theta, r->err));
    }
    FV_TRY(fv_json_opt_number(r->doc, r->root, "rope_theta", 1, 1e12, &c->rope_theta, r->err));
    if (fv_json_type_of(fv_json_member(r->root, "rope_scaling")) != FV_JSON_NULL)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: rope_scaling is not supported",
                       fv_json_name(r->doc));
    c->rms_eps = 1e-6;
    FV_TRY(fv_json_opt_number(r->doc, r->root, "rms_norm_eps", 0, 1, &c->rms_eps, r->err));
    FV_TRY(expect_text(r, "hidden_act", "silu"));
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "use_sliding_window", &sliding, r->err));
    if (sliding)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: use_sliding_window is not supported",
                       fv_json_name(r->doc));
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "tie_word_embeddings", &c->tied, r->err));
    return read_eos(r, c);
}

static void fastvithd(fv_config *c)
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

/* Lists of one value a stage; absent ones keep FastViTHD's pattern. */
static fv_status read_stages(const reader *r, fv_config *c)
{
    int64_t depth[FV_MAX_STAGES], width[FV_MAX_STAGES];
    size_t n_depth, n_width;
    const fv_json_value *list = NULL;
    const char *file = fv_json_name(r->doc);
    if (!fv_json_member(r->root, "layers") && !fv_json_member(r->root, "embed_dims"))
        return FV_OK;
    FV_TRY(fv_json_ints(r->doc, r->root, "layers", 1, 256, 5, 5, depth, &n_depth, r->err));
    FV_TRY(
        fv_json_ints(r->doc, r->root, "embed_dims", 2, MAX_WIDTH, 5, 5, width, &n_width, r->err));
    for (int i = 0; i < c->n_stages; i++) {
        if (width[i] % 2 || (i && width[i] != 2 * width[i - 1]))
            return fv_fail(
                r->err, FV_ERR_UNSUPPORTED, 0,
                "%s: embed_dims[%d] is %d; expected an even number, twice the one before", file, i,
                (int)width[i]);
        c->stage[i].depth = (int)depth[i];
        c->stage[i].width = (int)width[i];
        c->stage[i].hidden = 4 * (int)width[i];
    }
    FV_TRY(fv_json_opt_array(r->doc, r->root, "mlp_ratios", &list, r->err));
    for (int i = 0; list && i < c->n_stages; i++) {
        int64_t ratio = 0;
        if (!fv_json_as_int(fv_json_at(list, (size_t)i), &ratio) || ratio < 1 || ratio > 16)
            return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                           "%s: mlp_ratios[%d]: expected an integer in [1, 16]", file, i);
        c->stage[i].hidden = (int)ratio * c->stage[i].width;
    }
    list = NULL;
    FV_TRY(fv_json_opt_array(r->doc, r->root, "token_mixers", &list, r->err));
    for (int i = 0; list && i < c->n_stages; i++) {
        const char *mixer = "";
        if (!fv_json_as_string(fv_json_at(list, (size_t)i), &mixer) ||
            (strcmp(mixer, "attention") && strcmp(mixer, "repmixer")))
            return fv_fail(
                r->err, FV_ERR_UNSUPPORTED, 0,
                "%s: token_mixers[%d]: expected \"repmixer\" or \"attention\", found \"%s\"", file,
                i, mixer);
        c->stage[i].attention = *mixer == 'a';
    }
    list = NULL;
    FV_TRY(fv_json_opt_array(r->doc, r->root, "pos_embs_shapes", &list, r->err));
    for (int i = 0; list && i < c->n_stages; i++) {
        const fv_json_value *shape = fv_json_at(list, (size_t)i);
        int64_t k = 0;
        if (fv_json_type_of(shape) != FV_JSON_NULL &&
            (!fv_json_as_int(fv_json_at(shape, 0), &k) || (k != 3 && k != 7)))
            return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                           "%s: pos_embs_shapes[%d]: expected null, [7, 7] or [3, 3]", file, i);
        c->stage[i].cpe = (int)k;
    }
    return FV_OK;
}

static fv_status finish_vision(const reader *r, fv_config *c)
{
    const char *file = fv_json_name(r->doc);
    for (int i = 0; i < c->n_stages; i++)
        if (c->stage[i].attention && c->stage[i].width % c->d_head_vision)
            return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                           "%s: width %d of attention stage %d is no multiple of %d", file,
                           c->stage[i].width, i, c->d_head_vision);
    if ((c->mixer_kernel != 3 && c->mixer_kernel != 7) ||
        (c->down_kernel != 3 && c->down_kernel != 7))
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: repmixer_kernel_size %d, down_patch_size %d: expected 3 or 7", file,
                       c->mixer_kernel, c->down_kernel);
    return FV_OK;
}

/* "mobileclip_l_1024" -> 1024 */
static fv_status image_size_of_tower(const reader *r, fv_config *c)
{
    const char *tower;
    FV_TRY(fv_json_string(r->doc, r->root, "mm_vision_tower", &tower, r->err));
    const char *digits = strrchr(tower, '_');
    char *end = NULL;
    long size = digits ? strtol(digits + 1, &end, 10) : 0;
    if (!digits || end == digits + 1 || *end || size < FV_PATCH || size > MAX_IMAGE ||
        size % FV_PATCH)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: mm_vision_tower is \"%s\"; expected a name that ends in _SIZE, a "
                       "multiple of %d up to %d",
                       fv_json_name(r->doc), tower, FV_PATCH, MAX_IMAGE);
    c->image_size = (int)size;
    return FV_OK;
}

static fv_status read_llava(const reader *r, fv_config *c)
{
    const fv_json_value *vision = NULL;
    const char *aspect = "pad";
    int limit = MAX_POSITIONS;
    FV_TRY(read_decoder(r, c));
    FV_TRY(expect_text(r, "mm_projector_type", "mlp2x_gelu"));
    FV_TRY(opt_int(r, "tokenizer_model_max_length", 1, INT32_MAX, &limit));
    c->max_context = FV_MIN(c->max_context, limit);
    FV_TRY(fv_json_opt_string(r->doc, r->root, "image_aspect_ratio", &aspect, r->err));
    if (!strcmp(aspect, "anyres"))
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: image_aspect_ratio \"anyres\" is not supported", fv_json_name(r->doc));
    c->crop = strcmp(aspect, "pad") != 0;
    FV_TRY(image_size_of_tower(r, c));
    fastvithd(c);
    double ratio = 2.0;
    FV_TRY(fv_json_opt_object(r->doc, r->root, "vision_config", &vision, r->err));
    if (vision) {
        reader in_vision = { r->doc, vision, r->err };
        FV_TRY(read_stages(&in_vision, c));
        FV_TRY(opt_int(&in_vision, "repmixer_kernel_size", 1, 31, &c->mixer_kernel));
        FV_TRY(opt_int(&in_vision, "down_patch_size", 1, 31, &c->down_kernel));
        FV_TRY(fv_json_opt_number(r->doc, vision, "cls_ratio", 2.0, 2.0, &ratio, r->err));
    }
    FV_TRY(finish_vision(r, c));
    c->n_features = (int)(ratio * c->stage[c->n_stages - 1].width);
    int stated = c->n_features;
    FV_TRY(opt_int(r, "mm_hidden_size", 1, MAX_WIDTH * 2, &stated));
    if (stated != c->n_features)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: mm_hidden_size is %d, the vision widths give %d", fv_json_name(r->doc),
                       stated, c->n_features);
    return FV_OK;
}

/* preprocessor_config.json, or processor_config.json with an "image_processor" inside. */
static fv_status read_processor(const void *text, size_t n, const char *dir_name, fv_config *c,
                                fv_error *err)
{
    fv_json *doc = NULL;
    fv_status status = FV_OK;
    const fv_json_value *inner = NULL, *crop = NULL, *size = NULL;
    int64_t side = 0;
    FV_TRY(fv_json_parse(&doc, text, n, dir_name, err));
    FV_TRY_GOTO(fv_json_opt_object(doc, fv_json_root(doc), "image_processor", &inner, err));
    const fv_json_value *root = inner ? inner : fv_json_root(doc);
    FV_TRY_GOTO(fv_json_opt_object(doc, root, "crop_size", &crop, err));
    FV_TRY_GOTO(fv_json_opt_object(doc, root, "size", &size, err));
    if (crop)
        FV_TRY_GOTO(fv_json_int(doc, crop, "height", FV_PATCH, MAX_IMAGE, &side, err));
    else if (size)
        FV_TRY_GOTO(fv_json_int(doc, size, "shortest_edge", FV_PATCH, MAX_IMAGE, &side, err));
    if (side % FV_PATCH)
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: crop_size %d is not a multiple of %d",
                         dir_name, (int)side, FV_PATCH);
    else if (side)
        c->image_size = (int)side;
fail:
    fv_json_free(doc);
    return status;
}

static fv_status read_fast_vlm(const reader *r, const void *processor, size_t n_processor,
                               fv_config *c)
{
    const fv_json_value *text, *vision = NULL, *args = NULL;
    bool tied_here = false;
    FV_TRY(fv_json_object(r->doc, r->root, "text_config", &text, r->err));
    reader in_text = { r->doc, text, r->err };
    FV_TRY(expect_text(&in_text, "model_type", "qwen2"));
    FV_TRY(read_decoder(&in_text, c));
    FV_TRY(fv_json_opt_bool(r->doc, r->root, "tie_word_embeddings", &tied_here, r->err));
    c->tied = c->tied || tied_here;
    FV_TRY(expect_text(r, "projector_hidden_act", "gelu"));
    /* Qwen2's tokenizers stop at 8192 rows in the original layout; no such key exists here. */
    c->max_context = FV_MIN(c->max_context, 8192);
    c->crop = true;
    c->image_size = 1024;
    c->image_token = -1;
    FV_TRY(opt_int(r, "image_token_index", 0, MAX_VOCAB, &c->image_token));
    FV_TRY(opt_int(r, "image_token_id", 0, MAX_VOCAB, &c->image_token));
    fastvithd(c);
    FV_TRY(fv_json_opt_object(r->doc, r->root, "vision_config", &vision, r->err));
    if (vision) {
        reader in_vision = { r->doc, vision, r->err };
        FV_TRY(expect_text(&in_vision, "architecture", "fastvit_mci3"));
        FV_TRY(fv_json_opt_object(r->doc, vision, "model_args", &args, r->err));
        if (args) {
            reader in_args = { r->doc, args, r->err };
            FV_TRY(read_stages(&in_args, c));
        }
    }
    FV_TRY(finish_vision(r, c));
    c->n_features = 2 * c->stage[c->n_stages - 1].width;
    if (processor)
        FV_TRY(read_processor(processor, n_processor, "preprocessor_config.json", c, r->err));
    return FV_OK;
}

fv_status fv_config_parse(fv_config *out, const void *config, size_t n_config, const char *name,
                          const void *processor, size_t n_processor, fv_error *err)
{
    fv_json *doc = NULL;
    fv_status status = FV_OK;
    const char *type = "";
    *out = (fv_config){ .image_token = -1 };
    FV_TRY(fv_json_parse(&doc, config, n_config, name, err));
    reader r = { doc, fv_json_root(doc), err };
    FV_TRY_GOTO(fv_json_string(doc, r.root, "model_type", &type, err));
    if (!strcmp(type, "llava_qwen2")) {
        out->layout = FV_LAYOUT_LLAVA_QWEN2;
        FV_TRY_GOTO(read_llava(&r, out));
    } else if (!strcmp(type, "fast_vlm")) {
        out->layout = FV_LAYOUT_FAST_VLM;
        FV_TRY_GOTO(read_fast_vlm(&r, processor, n_processor, out));
    } else {
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "%s: model_type is \"%s\"; expected \"llava_qwen2\" (apple/FastVLM) or "
                         "\"fast_vlm\" (transformers)",
                         name, type);
        goto fail;
    }
    out->n_squeeze = (int)(out->n_features * 0.0625);
    if (out->n_squeeze < 1)
        out->n_squeeze = 1;
fail:
    fv_json_free(doc);
    return status;
}

/* The first of the files that exists, or NULL in *text. */
static fv_status read_first(const char *dir, const char *const *names, size_t n_names,
                            uint8_t **text, size_t *n, fv_error *err)
{
    *text = NULL;
    *n = 0;
    for (size_t i = 0; i < n_names && !*text; i++) {
        char *path = fv_path_join(dir, names[i]);
        if (!path)
            return fv_fail_memory(err, strlen(dir), "a path");
        fv_status status = fv_is_file(path) ? fv_read_file(text, n, path, MAX_CONFIG_BYTES, err)
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
    FV_TRY_GOTO(read_first(dir, config_name, 1, &config, &n_config, err));
    if (!config) {
        status = fv_fail(
            err, FV_ERR_IO, 0,
            "%s: no config.json; expected a checkpoint directory such as apple/FastVLM-0.5B's",
            dir);
        goto fail;
    }
    FV_TRY_GOTO(read_first(dir, processor_names, 2, &processor, &n_processor, err));
    FV_TRY_GOTO(fv_config_parse(out, config, n_config, path, processor, n_processor, err));
fail:
    fv_free(path);
    fv_free(config);
    fv_free(processor);
    return status;
}
