/* Configurations: every field out of its range, of the wrong type and against the others, in both
 * layouts of config.json and in a packed file, each with the part of the message it must give; and
 * right ones with values that are unusual. */
#include "support/cm.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/config_gguf.h"
#include "model/config_rules.h"
#include "support/golden.h"

/* ---- config.json: a base text and one edit ---- */

static const char llava_text[] =
    "{\"model_type\": \"llava_qwen2\", \"hidden_size\": 64, \"intermediate_size\": 176,"
    " \"num_hidden_layers\": 3, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"vocab_size\": 512, \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-06,"
    " \"rope_theta\": 1000000.0, \"hidden_act\": \"silu\", \"use_sliding_window\": false,"
    " \"tie_word_embeddings\": false, \"eos_token_id\": 471, \"mm_hidden_size\": 256,"
    " \"mm_projector_type\": \"mlp2x_gelu\", \"mm_vision_tower\": \"mobileclip_l_256\","
    " \"image_aspect_ratio\": \"pad\", \"tokenizer_model_max_length\": 512,"
    " \"vision_config\": {\"layers\": [1, 2, 2, 1, 1], \"embed_dims\": [8, 16, 32, 64, 128],"
    " \"mlp_ratios\": [4, 4, 4, 4, 4], \"down_patch_size\": 7, \"repmixer_kernel_size\": 3,"
    " \"token_mixers\": [\"repmixer\", \"repmixer\", \"repmixer\", \"attention\", \"attention\"],"
    " \"pos_embs_shapes\": [null, null, null, [7, 7], [7, 7]], \"cls_ratio\": 2.0}}";

static const char fast_text[] =
    "{\"model_type\": \"fast_vlm\", \"image_token_index\": 283, \"projector_hidden_act\": \"gelu\","
    " \"tie_word_embeddings\": true, \"text_config\": {\"model_type\": \"qwen2\","
    " \"hidden_size\": 64, \"intermediate_size\": 64, \"num_hidden_layers\": 2,"
    " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 320,"
    " \"max_position_embeddings\": 2048, \"hidden_act\": \"silu\", \"eos_token_id\": [282],"
    " \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1000000.0}},"
    " \"vision_config\": {\"architecture\": \"fastvit_mci3\", \"model_args\": {"
    " \"layers\": [1, 1, 1, 1, 1], \"embed_dims\": [4, 8, 16, 32, 64]}}}";

static const char processor_text[] = "{\"crop_size\": {\"height\": 256, \"width\": 256}}";

/* Sets the member at path ("vision_config.layers") to a JSON value; NULL removes it. */
static char *edited(const char *text, const char *path, const char *value)
{
    json_error_t why;
    json_t *root = json_loads(text, 0, &why), *object = root;
    char key[128];
    const char *dot;
    assert_non_null(root);
    for (; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
        object = json_object_get(object, key);
        assert_non_null(object);
    }
    if (value) {
        json_t *new = json_loads(value, JSON_DECODE_ANY, &why);
        if (!new)
            fail_msg("%s: %s", value, why.text);
        json_object_set_new(object, path, new);
    } else if (*path) {
        assert_int_equal(json_object_del(object, path), 0);
    }
    char *out = json_dumps(root, JSON_REAL_PRECISION(17));
    json_decref(root);
    return out;
}

/* In which text the edit is made. */
typedef enum where { LLAVA, FAST, PROCESSOR } where;

static fv_status parse_edited(fv_config *c, where w, const char *path, const char *value,
                              fv_error *err)
{
    char *config = edited(w == LLAVA ? llava_text : fast_text, w == PROCESSOR ? "" : path,
                          w == PROCESSOR ? NULL : value);
    char *processor = edited(processor_text, w == PROCESSOR ? path : "",
                             w == PROCESSOR ? value : NULL);
    fv_status status = fv_config_parse(c, config, strlen(config), "config.json", processor,
                                       strlen(processor), err);
    free(config);
    free(processor);
    return status;
}

static const struct wrong_json {
    where where;
    const char *path, *value;
    fv_status status;
    const char *message; /* part of it */
} wrong_json[] = {
    /* the layout */
    { LLAVA, "model_type", NULL, FV_ERR_FORMAT, "model_type is missing, expected a string" },
    { LLAVA, "model_type", "\"llava\"", FV_ERR_UNSUPPORTED,
      "model_type is \"llava\"; expected \"llava_qwen2\"" },
    { FAST, "text_config", NULL, FV_ERR_FORMAT, "text_config is missing, expected an object" },
    { FAST, "text_config.model_type", "\"llama\"", FV_ERR_UNSUPPORTED,
      "model_type is \"llama\"; expected \"qwen2\"" },

    /* the decoder: every whole number, missing, of another type, below, above, between */
    { LLAVA, "hidden_size", NULL, FV_ERR_FORMAT,
      "hidden_size is missing, expected an integer in [2, 65536]" },
    { LLAVA, "hidden_size", "\"64\"", FV_ERR_FORMAT,
      "hidden_size: expected an integer in [2, 65536], found a string" },
    { LLAVA, "hidden_size", "0", FV_ERR_FORMAT, "[2, 65536], found 0" },
    { LLAVA, "hidden_size", "65538", FV_ERR_FORMAT, "[2, 65536], found 65538" },
    { LLAVA, "hidden_size", "63", FV_ERR_UNSUPPORTED,
      "hidden_size is 63; expected an even number from 2 to 65536" },
    { LLAVA, "hidden_size", "66", FV_ERR_UNSUPPORTED,
      "head_dim is 16; expected hidden_size / num_attention_heads, 66 / 4" },
    { FAST, "text_config.hidden_size", "64.0", FV_ERR_FORMAT,
      "text_config.hidden_size: expected an integer in [2, 65536], found a real number" },
    { LLAVA, "intermediate_size", "0", FV_ERR_FORMAT, "intermediate_size: expected an integer" },
    { LLAVA, "intermediate_size", "262146", FV_ERR_FORMAT, "[2, 262144], found 262146" },
    { FAST, "text_config.intermediate_size", "177", FV_ERR_UNSUPPORTED,
      "intermediate_size is 177; expected an even number from 2 to 262144" },
    { LLAVA, "num_hidden_layers", "0", FV_ERR_FORMAT,
      "num_hidden_layers: expected an integer in [1, 1024], found 0" },
    { FAST, "text_config.num_hidden_layers", "1025", FV_ERR_FORMAT, "[1, 1024], found 1025" },
    { LLAVA, "num_attention_heads", "0", FV_ERR_FORMAT,
      "num_attention_heads: expected an integer in [1, 1024], found 0" },
    { LLAVA, "num_attention_heads", "-4", FV_ERR_FORMAT, "found -4" },
    { LLAVA, "num_attention_heads", "5", FV_ERR_UNSUPPORTED,
      "head_dim is 12; expected hidden_size / num_attention_heads, 64 / 5" },
    { LLAVA, "num_key_value_heads", "0", FV_ERR_FORMAT, "num_key_value_heads: expected" },
    { LLAVA, "num_key_value_heads", "3", FV_ERR_UNSUPPORTED,
      "num_key_value_heads is 3; expected a divisor of num_attention_heads, 4" },
    { FAST, "text_config.num_key_value_heads", "8", FV_ERR_UNSUPPORTED,
      "num_key_value_heads is 8; expected a divisor of num_attention_heads, 4" },
    { LLAVA, "head_dim", "15", FV_ERR_UNSUPPORTED,
      "head_dim is 15; expected an even number from 2 to 256" },
    { LLAVA, "head_dim", "32", FV_ERR_UNSUPPORTED,
      "head_dim is 32; expected hidden_size / num_attention_heads, 64 / 4" },
    { LLAVA, "head_dim", "512", FV_ERR_FORMAT,
      "head_dim: expected an integer in [2, 256], found 512" },
    { LLAVA, "hidden_size", "2048", FV_ERR_UNSUPPORTED,
      "head_dim is 512; expected an even number from 2 to 256" },
    { LLAVA, "vocab_size", "0", FV_ERR_FORMAT, "vocab_size: expected an integer in [1, 4194304]" },
    { LLAVA, "vocab_size", "4194305", FV_ERR_FORMAT, "found 4194305" },
    { LLAVA, "max_position_embeddings", "0", FV_ERR_FORMAT, "max_position_embeddings: expected" },
    { LLAVA, "max_position_embeddings", "\"2048\"", FV_ERR_FORMAT,
      "expected an integer in [1, 4194304], found a string" },
    { LLAVA, "tokenizer_model_max_length", "0", FV_ERR_FORMAT,
      "tokenizer_model_max_length: expected an integer in [1, " },
    { LLAVA, "rms_norm_eps", "-1e-6", FV_ERR_FORMAT,
      "rms_norm_eps: expected a number in [0, 1], found -1e-06" },
    { LLAVA, "rms_norm_eps", "\"1e-6\"", FV_ERR_FORMAT, "found a string" },
    { LLAVA, "rope_theta", "0.5", FV_ERR_FORMAT,
      "rope_theta: expected a number in [1, 1e+12], found 0.5" },
    { FAST, "text_config.rope_parameters.rope_theta", "1e13", FV_ERR_FORMAT,
      "rope_theta: expected a number in [1, 1e+12], found 1e+13" },
    { FAST, "text_config.rope_parameters.rope_type", "\"yarn\"", FV_ERR_UNSUPPORTED,
      "rope_type is \"yarn\"; expected \"default\"" },
    { FAST, "text_config.rope_parameters", "{\"type\": \"linear\", \"factor\": 4.0}",
      FV_ERR_UNSUPPORTED, "type is \"linear\"; expected \"default\"" },
    { LLAVA, "rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2.0}", FV_ERR_UNSUPPORTED,
      "type is \"dynamic\"; expected \"default\"" },
    { LLAVA, "rope_scaling", "2.0", FV_ERR_FORMAT, "rope_scaling: expected an object" },
    { LLAVA, "hidden_act", "\"gelu\"", FV_ERR_UNSUPPORTED,
      "hidden_act is \"gelu\"; expected \"silu\"" },
    { LLAVA, "use_sliding_window", "true", FV_ERR_UNSUPPORTED,
      "use_sliding_window is true; expected false" },
    { LLAVA, "use_sliding_window", "1", FV_ERR_FORMAT, "expected true or false, found an integer" },
    { LLAVA, "tie_word_embeddings", "\"yes\"", FV_ERR_FORMAT, "tie_word_embeddings: expected" },
    { LLAVA, "eos_token_id", "-1", FV_ERR_FORMAT, "eos_token_id: expected an integer in [0, " },
    { LLAVA, "eos_token_id", "[1, 2, 3, 4, 5]", FV_ERR_FORMAT, "0 to 4 integers" },
    { LLAVA, "eos_token_id", "[1, \"2\"]", FV_ERR_FORMAT, "found a string" },

    /* images */
    { LLAVA, "mm_vision_tower", NULL, FV_ERR_FORMAT, "mm_vision_tower is missing" },
    { LLAVA, "mm_vision_tower", "\"mobileclip\"", FV_ERR_UNSUPPORTED,
      "mm_vision_tower is \"mobileclip\"; expected a name that ends in _SIZE" },
    { LLAVA, "mm_vision_tower", "\"mobileclip_l\"", FV_ERR_UNSUPPORTED, "ends in _SIZE" },
    { LLAVA, "mm_vision_tower", "\"mobileclip_l_100\"", FV_ERR_UNSUPPORTED,
      "the size in mm_vision_tower is 100; expected a multiple of 64 from 64 to 8192" },
    { LLAVA, "mm_vision_tower", "\"mobileclip_l_0\"", FV_ERR_UNSUPPORTED,
      "mm_vision_tower is 0; expected" },
    { LLAVA, "mm_vision_tower", "\"mobileclip_l_99999999999\"", FV_ERR_UNSUPPORTED,
      "expected a multiple of 64" },
    { LLAVA, "mm_vision_tower", "\"mobileclip_l_2048\"", FV_ERR_UNSUPPORTED,
      "is 2048; the 1024 image tokens of it do not fit the model's context length, 512" },
    { LLAVA, "image_aspect_ratio", "\"anyres\"", FV_ERR_UNSUPPORTED,
      "image_aspect_ratio is \"anyres\"; expected \"pad\" or \"square\"" },
    { PROCESSOR, "crop_size", "{\"height\": 256, \"width\": 512}", FV_ERR_UNSUPPORTED,
      "crop_size is 512 x 256; expected a square" },
    { PROCESSOR, "crop_size", "100", FV_ERR_UNSUPPORTED,
      "crop_size is 100; expected a multiple of 64 from 64 to 8192" },
    { PROCESSOR, "crop_size", "\"256\"", FV_ERR_FORMAT,
      "crop_size: expected an object, found a string" },
    { PROCESSOR, "crop_size", "{\"height\": 0}", FV_ERR_FORMAT,
      "crop_size.height: expected an integer in [64, 8192], found 0" },
    { PROCESSOR, "crop_size", "3072", FV_ERR_UNSUPPORTED,
      "crop_size is 3072; the 2304 image tokens of it do not fit the model's context length, "
      "2048" },
    { FAST, "image_token_index", "-1", FV_ERR_FORMAT, "image_token_index: expected an integer" },

    /* the vision encoder */
    { LLAVA, "mm_projector_type", "\"linear\"", FV_ERR_UNSUPPORTED,
      "mm_projector_type is \"linear\"; expected \"mlp2x_gelu\"" },
    { FAST, "projector_hidden_act", "\"relu\"", FV_ERR_UNSUPPORTED,
      "projector_hidden_act is \"relu\"; expected \"gelu\"" },
    { FAST, "vision_config.architecture", "\"fastvit_mci2\"", FV_ERR_UNSUPPORTED,
      "architecture is \"fastvit_mci2\"; expected \"fastvit_mci3\"" },
    { LLAVA, "mm_hidden_size", "255", FV_ERR_UNSUPPORTED,
      "mm_hidden_size is 255; expected 256, twice the width of the last stage" },
    { LLAVA, "mm_hidden_size", "0", FV_ERR_FORMAT, "mm_hidden_size: expected an integer" },
    { LLAVA, "vision_config.layers", NULL, FV_ERR_FORMAT, "vision_config.layers is missing" },
    { LLAVA, "vision_config.layers", "[1, 2, 2, 1]", FV_ERR_FORMAT, "found 4 values" },
    { LLAVA, "vision_config.layers", "[1, 2, 2, 1, 0]", FV_ERR_FORMAT, "[1, 256], found 0" },
    { FAST, "vision_config.model_args.layers", "[1, 2, 2, 1, 257]", FV_ERR_FORMAT, "found 257" },
    { LLAVA, "vision_config.embed_dims", "[7, 14, 28, 56, 112]", FV_ERR_UNSUPPORTED,
      "embed_dims[0] is 7; expected an even number from 2 to 65536" },
    { LLAVA, "vision_config.embed_dims", "[8, 16, 32, 64, 64]", FV_ERR_UNSUPPORTED,
      "embed_dims[4] is 64; expected 128, twice the one before" },
    { FAST, "vision_config.model_args.embed_dims", "[6, 12, 24, 48, 96]", FV_ERR_UNSUPPORTED,
      "embed_dims[3] is 48; expected a multiple of 32, the width of an attention head" },
    { LLAVA, "vision_config.mlp_ratios", "[4, 4, 4, 4]", FV_ERR_UNSUPPORTED,
      "mlp_ratios has 4 elements; expected 5" },
    { LLAVA, "vision_config.mlp_ratios", "[4, 4, 0, 4, 4]", FV_ERR_UNSUPPORTED,
      "mlp_ratios[2] is 0; expected 1 to 16" },
    { LLAVA, "vision_config.mlp_ratios", "[4, 4, 4, 4, 17]", FV_ERR_UNSUPPORTED,
      "mlp_ratios[4] is 17; expected 1 to 16" },
    { LLAVA, "vision_config.mlp_ratios", "[4, 4, 4, 4, 4.5]", FV_ERR_UNSUPPORTED,
      "mlp_ratios[4]: expected an integer, found a real number" },
    { LLAVA, "vision_config.token_mixers", "[1]", FV_ERR_UNSUPPORTED,
      "token_mixers has 1 elements; expected 5" },
    { LLAVA, "vision_config.token_mixers",
      "[\"repmixer\", \"pool\", \"repmixer\", \"attention\", \"attention\"]", FV_ERR_UNSUPPORTED,
      "token_mixers[1] is \"pool\"; expected \"repmixer\" or \"attention\"" },
    { LLAVA, "vision_config.pos_embs_shapes", "[null, null, null, [5, 5], [7, 7]]",
      FV_ERR_UNSUPPORTED, "pos_embs_shapes[3]: expected null, [7, 7] or [3, 3], found an array" },
    { LLAVA, "vision_config.pos_embs_shapes", "[null, null, null, [7, 3], [7, 7]]",
      FV_ERR_UNSUPPORTED, "pos_embs_shapes[3]: expected null" },
    { LLAVA, "vision_config.repmixer_kernel_size", "5", FV_ERR_UNSUPPORTED,
      "repmixer_kernel_size is 5; expected 3 or 7" },
    { LLAVA, "vision_config.down_patch_size", "9", FV_ERR_FORMAT,
      "down_patch_size: expected an integer in [3, 7], found 9" },
    { LLAVA, "vision_config.cls_ratio", "1.0", FV_ERR_FORMAT, "cls_ratio: expected a number" },
    { LLAVA, "vision_config", "[]", FV_ERR_FORMAT, "vision_config: expected an object" },
};

static void test_wrong_json(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(wrong_json); i++) {
        const struct wrong_json *w = &wrong_json[i];
        fv_config c;
        fv_error err = { 0 };
        fv_status status = parse_edited(&c, w->where, w->path, w->value, &err);
        if (status != w->status || err.status != status || !strstr(err.message, w->message))
            fail_msg("%s = %s: status %s, \"%s\"; expected %s, \"%s\"", w->path,
                     w->value ? w->value : "(removed)", fv_status_name(status), err.message,
                     fv_status_name(w->status), w->message);
    }
}

/* ---- right ones ---- */

static fv_config right(where w, const char *path, const char *value)
{
    fv_config c;
    fv_error err = { 0 };
    if (parse_edited(&c, w, path, value, &err) != FV_OK)
        fail_msg("%s = %s: %s", path, value ? value : "(removed)", err.message);
    return c;
}

static void test_right_json(void **state)
{
    (void)state;
    fv_config c = right(LLAVA, "", NULL);
    assert_int_equal(c.layout, FV_LAYOUT_LLAVA_QWEN2);
    assert_int_equal(c.d_head, 16);
    assert_int_equal(c.max_context, 512); /* the tokenizer's limit */
    assert_int_equal(c.image_size, 256);
    assert_int_equal(c.n_features, 256);
    assert_int_equal(c.n_squeeze, 16);
    assert_int_equal(c.stage[3].hidden, 256);
    assert_int_equal(c.eos[0], 471);
    assert_int_equal(c.image_token, -1);
    assert_false(c.tied || c.crop);
    c = right(FAST, "", NULL);
    assert_int_equal(c.layout, FV_LAYOUT_FAST_VLM);
    assert_int_equal(c.image_token, 283);
    assert_int_equal(c.image_size, 256);
    assert_true(c.rope_theta == 1e6 && c.tied && c.crop);

    /* absent: defaults */
    assert_int_equal(right(LLAVA, "num_key_value_heads", NULL).n_kv_heads, 4);
    assert_int_equal(right(LLAVA, "num_key_value_heads", "null").n_kv_heads, 4);
    assert_true(right(LLAVA, "rope_theta", NULL).rope_theta == 10000);
    assert_true(right(LLAVA, "rms_norm_eps", NULL).rms_eps == 1e-6);
    assert_int_equal(right(LLAVA, "eos_token_id", NULL).n_eos, 0);
    assert_int_equal(right(LLAVA, "tokenizer_model_max_length", NULL).max_context, 2048);
    assert_int_equal(right(FAST, "text_config.max_position_embeddings", NULL).max_context, 8192);
    assert_int_equal(right(LLAVA, "mm_hidden_size", NULL).n_features, 256);
    assert_int_equal(right(PROCESSOR, "crop_size", NULL).image_size, 1024);
    c = right(FAST, "vision_config", NULL); /* FastViTHD itself */
    assert_int_equal(c.stage[4].width, 1536);
    assert_int_equal(c.n_features, 3072);

    /* unusual */
    assert_int_equal(right(LLAVA, "head_dim", "16").d_head, 16);
    assert_int_equal(right(LLAVA, "num_key_value_heads", "1").n_kv_heads, 1);
    assert_int_equal(right(LLAVA, "num_attention_heads", "32").d_head, 2);
    assert_int_equal(right(LLAVA, "vocab_size", "1").n_vocab, 1);
    assert_int_equal(right(LLAVA, "tokenizer_model_max_length", "1000000000000000000").max_context,
                     2048);
    assert_int_equal(right(LLAVA, "eos_token_id", "[1, 2, 3, 4]").n_eos, 4);
    assert_int_equal(right(LLAVA, "eos_token_id", "[]").n_eos, 0);
    assert_true(right(LLAVA, "rope_theta", "1").rope_theta == 1);
    assert_true(right(LLAVA, "rms_norm_eps", "0").rms_eps == 0);
    assert_true(right(LLAVA, "rope_scaling", "{\"type\": \"default\"}").rope_theta == 1e6);
    assert_true(right(LLAVA, "rope_scaling", "null").rope_theta == 1e6);
    assert_true(right(LLAVA, "image_aspect_ratio", "\"square\"").crop);
    assert_int_equal(right(LLAVA, "mm_vision_tower", "\"a_b_1344\"").image_size, 1344);
    assert_int_equal(right(LLAVA, "mm_vision_tower", "\"_64\"").image_size, 64);
    assert_int_equal(right(PROCESSOR, "crop_size", "512").image_size, 512);
    assert_int_equal(right(PROCESSOR, "size", "{\"shortest_edge\": 512}").image_size, 256);
    assert_int_equal(right(PROCESSOR, "image_processor", "{\"size\": 320}").image_size, 320);
    assert_int_equal(
        right(PROCESSOR, "image_processor", "{\"size\": {\"shortest_edge\": 448}}").image_size,
        448);
    assert_int_equal(right(LLAVA, "vision_config.repmixer_kernel_size", "7").mixer_kernel, 7);
    assert_int_equal(right(LLAVA, "vision_config.down_patch_size", "3").down_kernel, 3);
    assert_int_equal(right(LLAVA, "vision_config.mlp_ratios", "[1, 16, 3, 4, 4]").stage[2].hidden,
                     96);
    assert_int_equal(
        right(LLAVA, "vision_config.pos_embs_shapes", "[[3, 3], null, null, null, [7, 7]]")
            .stage[0]
            .cpe,
        3);
}

/* ---- a packed file: the configuration written with one member changed ---- */

#define IN(member)          offsetof(fv_config, member)
#define IN_STAGE(i, member) (offsetof(fv_config, stage[i]) + offsetof(fv_vision_stage, member))

static const struct wrong_gguf {
    size_t offset; /* of an int in fv_config */
    int value;
    const char *message;
} wrong_gguf[] = {
    { IN(d_model), 0, "fastvlm.embedding_length is 0, expected an integer in [2, 65536]" },
    { IN(d_model), 63, "fastvlm.embedding_length is 63; expected an even number" },
    { IN(d_model), 66,
      "fastvlm.attention.key_length is 16; expected fastvlm.embedding_length / "
      "fastvlm.attention.head_count, 66 / 4" },
    { IN(d_ffn), 177, "fastvlm.feed_forward_length is 177; expected an even number" },
    { IN(d_ffn), 262146, "fastvlm.feed_forward_length is 262146, expected" },
    { IN(n_layers), 0, "fastvlm.block_count is 0, expected an integer in [1, 1024]" },
    { IN(n_heads), 0, "fastvlm.attention.head_count is 0" },
    { IN(n_heads), 8, "fastvlm.attention.key_length is 16; expected" },
    { IN(n_kv_heads), 3, "head_count_kv is 3; expected a divisor of" },
    { IN(n_kv_heads), 0, "head_count_kv is 0" },
    { IN(d_head), 15, "fastvlm.attention.key_length is 15; expected an even number" },
    { IN(d_head), 258, "fastvlm.attention.key_length is 258" },
    { IN(n_vocab), 0, "fastvlm.vocab_size is 0" },
    { IN(max_context), 0, "fastvlm.context_length is 0" },
    { IN(max_context), 16,
      "fastvlm.vision.image_size is 256; the 16 image tokens of it do not fit "
      "the model's context length, 16" },
    { IN(image_size), 100, "fastvlm.vision.image_size is 100; expected a multiple of 64" },
    { IN(image_size), 16384, "fastvlm.vision.image_size is 16384, expected" },
    { IN(mixer_kernel), 4, "fastvlm.vision.mixer_kernel is 4; expected 3 or 7" },
    { IN(mixer_kernel), 9, "fastvlm.vision.mixer_kernel is 9, expected" },
    { IN(down_kernel), 5, "fastvlm.vision.down_kernel is 5; expected 3 or 7" },
    { IN(n_features), 254, "fastvlm.vision.feature_length is 254; expected 256" },
    { IN(n_squeeze), 0, "fastvlm.vision.squeeze_length is 0" },
    { IN(n_squeeze), 257, "squeeze_length is 257; expected up to fastvlm.vision.feature_length" },
    { IN(d_head_vision), 1, "fastvlm.vision.attention.key_length is 1" },
    { IN(d_head_vision), 48, "stage.width[3] is 64; expected a multiple of 48" },
    { IN(n_stages), 4, "fastvlm.vision.stage.block_count has 4 elements; expected 5" },
    { IN(n_stages), 6, "has 6 elements; expected 5" },
    { IN(eos[0]), -1, "fastvlm.end_tokens[0] is -1" },
    { IN(image_token), -2, "fastvlm.image_token is -2" },
    { IN_STAGE(1, depth), 0, "fastvlm.vision.stage.block_count[1] is 0" },
    { IN_STAGE(0, width), 7, "fastvlm.vision.stage.width[0] is 7; expected an even number" },
    { IN_STAGE(2, width), 64, "fastvlm.vision.stage.width[2] is 64; expected 32, twice" },
    { IN_STAGE(1, hidden), 40, "feed_forward_length[1] is 40; expected 1 to 16 times the width" },
    { IN_STAGE(1, hidden), 272, "feed_forward_length[1] is 272; expected 1 to 16 times" },
    { IN_STAGE(3, cpe), 5, "fastvlm.vision.stage.position_kernel[3] is 5; expected 0, 3 or 7" },
};

static fv_gguf *reread(const fv_config *c, char **path)
{
    fv_gguf_writer *w;
    fv_gguf *g = NULL;
    fv_error err = { 0 };
    char *dir = temp_dir();
    *path = fv_path_join(dir, "config.gguf");
    fv_status status = fv_gguf_writer_new(&w, *path, &err);
    if (status == FV_OK) {
        fv_gguf_put_string(w, "general.architecture", "fastvlm", 7);
        fv_config_write_gguf(c, w);
        status = fv_gguf_begin_data(w, &err);
    }
    if (status != FV_OK || fv_gguf_finish(w, &err) != FV_OK ||
        fv_gguf_open(&g, *path, &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_gguf_writer_free(w);
    temp_remove(dir);
    return g;
}

static void refuses_gguf(const fv_gguf *g, fv_status wanted, const char *message)
{
    fv_config c;
    fv_error err = { 0 };
    fv_status status = fv_config_read_gguf(&c, g, &err);
    if (status == FV_OK || (wanted && status != wanted) || !strstr(err.message, message))
        fail_msg("status %s, \"%s\"; expected \"%s\"", fv_status_name(status), err.message,
                 message);
}

static void test_wrong_gguf(void **state)
{
    (void)state;
    const fv_config base = right(LLAVA, "", NULL);
    char *path;
    for (size_t i = 0; i < FV_COUNT(wrong_gguf); i++) {
        fv_config c = base;
        *(int *)((char *)&c + wrong_gguf[i].offset) = wrong_gguf[i].value;
        if (c.n_stages > 5)
            c.stage[5] = c.stage[4];
        fv_gguf *g = reread(&c, &path);
        refuses_gguf(g, FV_OK, wrong_gguf[i].message);
        fv_gguf_free(g);
        fv_free(path);
    }
    fv_config c = base;
    c.rms_eps = -1;
    fv_gguf *g = reread(&c, &path);
    refuses_gguf(g, FV_ERR_FORMAT, "layer_norm_rms_epsilon is -1, expected a number in [0, 1]");
    fv_gguf_free(g);
    fv_free(path);
    c = base;
    c.rope_theta = 1e13;
    g = reread(&c, &path);
    refuses_gguf(g, FV_ERR_FORMAT, "fastvlm.rope.freq_base is 1e+13, expected a number in");
    fv_gguf_free(g);
    fv_free(path);
}

/* Keys that are missing, and texts: bytes of a right file changed. */
static const struct changed {
    const char *find, *put; /* of the same length */
    const char *message;
} changed[] = {
    { "general.architecture", "general.architectura", "general.architecture is missing" },
    { "fastvlm.layout", "fastvlm.layouz", "fastvlm.layout is missing, expected a string" },
    { "llava_qwen2", "llava_qwen3",
      "fastvlm.layout is \"llava_qwen3\"; expected \"llava_qwen2\" or \"fast_vlm\"" },
    { "fastvlm.embedding_length", "fastvlm.embedding_lengtx", "embedding_length is missing" },
    { "fastvlm.context_length", "fastvlm.context_lengtx", "context_length is missing" },
    { "fastvlm.vision.image_size", "fastvlm.vision.image_sizx", "image_size is missing" },
    { "fastvlm.vision.stage.width", "fastvlm.vision.stage.widtx", "stage.width is missing" },
    { "fastvlm.vision.stage.attention", "fastvlm.vision.stage.attentiox",
      "stage.attention is missing" },
    { "fastvlm.rope.freq_base", "fastvlm.rope.freq_basx", "freq_base is missing" },
    { "fastvlm.end_tokens", "fastvlm.end_tokenx", "end_tokens is missing" },
    { "fastvlm.image.fit", "fastvlm.image.fix", "fastvlm.image.fit is missing" },
    { "fastvlm.image.mean", "fastvlm.image.meax", "fastvlm.image.mean is missing" },
    { "fastvlm.image.std", "fastvlm.image.stx", "fastvlm.image.std is missing" },
    { "fastvlm.format_version", "fastvlm.format_versiox", "format_version is missing" },
};

static void test_changed_gguf(void **state)
{
    (void)state;
    const fv_config base = right(LLAVA, "", NULL);
    char *path;
    fv_error err = { 0 };
    fv_gguf *g = reread(&base, &path);
    size_t n, data_at;
    const uint8_t *bytes = fv_gguf_bytes(g, &n, &data_at);
    for (size_t i = 0; i < FV_COUNT(changed); i++) {
        uint8_t *copy = fv_alloc(n, 1);
        fv_gguf *other = NULL;
        assert_non_null(copy);
        memcpy(copy, bytes, n);
        uint8_t *at = memmem(copy, n, changed[i].find, strlen(changed[i].find));
        assert_non_null(at);
        assert_int_equal(strlen(changed[i].find), strlen(changed[i].put));
        memcpy(at, changed[i].put, strlen(changed[i].put));
        if (fv_gguf_read(&other, copy, n, "changed.gguf", &err) != FV_OK)
            fail_msg("%s", err.message);
        refuses_gguf(other, FV_OK, changed[i].message);
        fv_gguf_free(other);
        fv_free(copy);
    }
    fv_gguf_free(g);
    fv_free(path);
}

/* The text behind a key: its type and length come between. */
static void test_fit_gguf(void **state)
{
    (void)state;
    static const char key[] = "fastvlm.image.fit";
    const fv_config base = right(LLAVA, "", NULL);
    char *path;
    size_t n, data_at;
    fv_gguf *g = reread(&base, &path), *other = NULL;
    const uint8_t *bytes = fv_gguf_bytes(g, &n, &data_at);
    uint8_t *copy = fv_alloc(n, 1);
    fv_error err = { 0 };
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    uint8_t *at = (uint8_t *)memmem(copy, n, key, strlen(key)) + strlen(key) + 4 + 8;
    assert_memory_equal(at, "pad", 3);
    memcpy(at, "cut", 3);
    assert_int_equal(fv_gguf_read(&other, copy, n, "changed.gguf", &err), FV_OK);
    refuses_gguf(other, FV_ERR_UNSUPPORTED,
                 "fastvlm.image.fit is \"cut\"; expected \"pad\" or \"crop\"");
    fv_gguf_free(other);
    fv_gguf_free(g);
    fv_free(copy);
    fv_free(path);
}

static void same_after_gguf(const fv_config *c)
{
    char *path;
    fv_config again;
    fv_error err = { 0 };
    fv_gguf *g = reread(c, &path);
    if (fv_config_read_gguf(&again, g, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(again.layout, c->layout);
    for (size_t i = 0; i < FV_CONFIG_DECODER_FIELDS; i++)
        assert_int_equal(*fv_config_member(&fv_config_decoder_fields[i], &again),
                         *(const int *)((const char *)c + fv_config_decoder_fields[i].offset));
    for (size_t i = 0; i < FV_CONFIG_DERIVED_FIELDS; i++)
        assert_int_equal(*fv_config_member(&fv_config_derived_fields[i], &again),
                         *(const int *)((const char *)c + fv_config_derived_fields[i].offset));
    for (int s = 0; s < c->n_stages; s++)
        assert_memory_equal(&again.stage[s], &c->stage[s], sizeof c->stage[s]);
    assert_true(again.mixer_kernel == c->mixer_kernel && again.down_kernel == c->down_kernel);
    assert_true(again.rope_theta == c->rope_theta && again.rms_eps == c->rms_eps);
    assert_true(again.tied == c->tied && again.crop == c->crop && again.n_eos == c->n_eos);
    assert_memory_equal(again.eos, c->eos, sizeof c->eos);
    assert_int_equal(again.image_token, c->image_token);
    fv_gguf_free(g);
    fv_free(path);
}

static void test_right_gguf(void **state)
{
    (void)state;
    fv_config c = right(LLAVA, "eos_token_id", "[1, 2, 3, 4]");
    same_after_gguf(&c);
    c = right(FAST, "", NULL);
    same_after_gguf(&c);
    c = right(FAST, "vision_config", NULL);
    same_after_gguf(&c);
    c = right(LLAVA, "vision_config.mlp_ratios", "[1, 16, 3, 4, 4]");
    c.mixer_kernel = 7;
    c.down_kernel = 3;
    c.n_eos = 0;
    memset(c.eos, 0, sizeof c.eos);
    same_after_gguf(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_json), cmocka_unit_test(test_right_json),
        cmocka_unit_test(test_wrong_gguf), cmocka_unit_test(test_changed_gguf),
        cmocka_unit_test(test_fit_gguf),   cmocka_unit_test(test_right_gguf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
