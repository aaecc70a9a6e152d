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

static const char processor_text[] =
    "{\"crop_size\": {\"height\": 256, \"width\": 256}, \"size\": {\"shortest_edge\": 256},"
    " \"image_mean\": [0.0, 0.0, 0.0], \"image_std\": [1.0, 1.0, 1.0],"
    " \"rescale_factor\": 0.00392156862745098, \"resample\": 3, \"do_resize\": true,"
    " \"do_center_crop\": true, \"do_rescale\": true, \"do_normalize\": true,"
    " \"do_convert_rgb\": true, \"image_processor_type\": \"CLIPImageProcessor\"}";

/* processor_config.json and generation_config.json, of which a model has both */
static const char llava_processor_text[] =
    "{\"processor_class\": \"LlavaProcessor\", \"patch_size\": 64, \"image_token\": \"<image>\","
    " \"num_additional_image_tokens\": 0, \"vision_feature_select_strategy\": \"full\"}";
static const char generation_text[] = "{\"bos_token_id\": 280, \"do_sample\": false}";

#define RAW "@raw@"

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
        json_object_set_new(object, path, new ? new : json_string(RAW));
    } else if (*path) {
        assert_int_equal(json_object_del(object, path), 0);
    }
    char *out = json_dumps(root, JSON_REAL_PRECISION(17)), *raw = strstr(out, "\"" RAW "\"");
    json_decref(root);
    if (raw) { /* a value that jansson does not read */
        char *with = NULL;
        assert_true(
            asprintf(&with, "%.*s%s%s", (int)(raw - out), out, value, raw + strlen(RAW) + 2) > 0);
        free(out);
        out = with;
    }
    return out;
}

/* In which text the edit is made. */
typedef enum where { LLAVA, FAST, PROCESSOR, LLAVA_PROCESSOR, GENERATION, N_TEXTS } where;

static fv_status parse_edited(fv_config *c, where w, const char *path, const char *value,
                              fv_error *err)
{
    static const char *const texts[N_TEXTS] = { llava_text, fast_text, processor_text,
                                                llava_processor_text, generation_text };
    char *text[N_TEXTS];
    for (int i = 0; i < N_TEXTS; i++)
        text[i] = edited(texts[i], i == (int)w ? path : "", i == (int)w ? value : NULL);
    const char *config = text[w == LLAVA ? LLAVA : FAST];
    fv_config_files files = {
        .config = { config, strlen(config) },
        .preprocessor = { text[PROCESSOR], strlen(text[PROCESSOR]) },
        .processor = { text[LLAVA_PROCESSOR], strlen(text[LLAVA_PROCESSOR]) },
        .generation = { text[GENERATION], strlen(text[GENERATION]) },
    };
    fv_status status = fv_config_parse(c, &files, "config.json", err);
    for (int i = 0; i < N_TEXTS; i++)
        free(text[i]);
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
    { LLAVA, "rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8.0}", FV_ERR_UNSUPPORTED,
      "rope_scaling.rope_type is \"llama3\"; expected \"default\"" },
    { LLAVA, "rope_parameters",
      "{\"type\": \"linear\", \"factor\": 4.0, \"rope_theta\": 1000000.0}", FV_ERR_UNSUPPORTED,
      "rope_parameters.type is \"linear\"; expected \"default\"" },
    { FAST, "text_config.rope_parameters",
      "{\"full_attention\": {\"rope_type\": \"default\", \"rope_theta\": 1000000.0}}",
      FV_ERR_UNSUPPORTED,
      "text_config.rope_parameters.full_attention is {...}; expected rope_type" },
    { FAST, "text_config.rope_scaling", "{\"type\": \"mrope\", \"mrope_section\": [16, 24, 24]}",
      FV_ERR_UNSUPPORTED, "text_config.rope_scaling.type is \"mrope\"; expected \"default\"" },
    { FAST, "text_config.layer_types", "[\"full_attention\", \"sliding_attention\"]",
      FV_ERR_UNSUPPORTED,
      "text_config.layer_types is [\"full_attention\", \"sliding_attention\"]; expected all "
      "\"full_attention\"" },
    { FAST, "text_config.layer_types", "[\"full_attention\", \"linear_attention\"]",
      FV_ERR_UNSUPPORTED, "expected all \"full_attention\"" },
    { FAST, "text_config.layer_types", "[\"full_attention\"]", FV_ERR_UNSUPPORTED,
      "layer_types has 1 elements; expected num_hidden_layers, 2" },
    { LLAVA, "quantization_config", "{\"quant_method\": \"gptq\"}", FV_ERR_UNSUPPORTED,
      "quantization_config is {...}; expected null" },
    { FAST, "text_config.quantization_config", "{\"quant_method\": \"fp8\"}", FV_ERR_UNSUPPORTED,
      "text_config.quantization_config is {...}; expected null" },
    { FAST, "quantization_config", "{}", FV_ERR_UNSUPPORTED, "quantization_config is {}" },
    { LLAVA, "hidden_act", "\"gelu\"", FV_ERR_UNSUPPORTED,
      "hidden_act is \"gelu\"; expected \"silu\"" },
    { FAST, "text_config.hidden_act", "\"relu\"", FV_ERR_UNSUPPORTED,
      "text_config.hidden_act is \"relu\"; expected \"silu\" or \"swish\"" },
    { LLAVA, "hidden_act", "3", FV_ERR_UNSUPPORTED, "hidden_act is 3; expected \"silu\"" },
    { LLAVA, "use_sliding_window", "1", FV_ERR_FORMAT, "expected true or false, found an integer" },
    { LLAVA, "tie_word_embeddings", "\"yes\"", FV_ERR_FORMAT, "tie_word_embeddings: expected" },
    { LLAVA, "eos_token_id", "-1", FV_ERR_FORMAT, "eos_token_id: expected an integer in [0, " },
    { LLAVA, "eos_token_id", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]",
      FV_ERR_FORMAT, "up to 16 integers in" },
    { LLAVA, "eos_token_id", "4611686018427387904", FV_ERR_FORMAT, "found 4611686018427387904" },
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
    { LLAVA, "image_aspect_ratio", "\"anyres_max_9\"", FV_ERR_UNSUPPORTED,
      "image_aspect_ratio is \"anyres_max_9\"; expected \"pad\"" },
    { LLAVA, "mm_use_im_start_end", "true", FV_ERR_UNSUPPORTED,
      "mm_use_im_start_end is true; expected false" },
    { LLAVA, "mm_use_im_patch_token", "true", FV_ERR_UNSUPPORTED,
      "mm_use_im_patch_token is true; expected false" },
    { LLAVA, "vision_config.image_size", "1024", FV_ERR_UNSUPPORTED,
      "vision_config.image_size is 1024; expected the size in mm_vision_tower, 256" },
    { PROCESSOR, "crop_size", "{\"height\": 256, \"width\": 512}", FV_ERR_UNSUPPORTED,
      "crop_size is 512 x 256; expected a square" },
    { PROCESSOR, "crop_size", "100", FV_ERR_UNSUPPORTED,
      "preprocessor_config.json: crop_size is 100; expected a multiple of 64" },
    { PROCESSOR, "crop_size", "\"256\"", FV_ERR_FORMAT,
      "crop_size: expected an integer in [1, 65536], found a string" },
    { PROCESSOR, "crop_size", "{\"height\": 0}", FV_ERR_FORMAT,
      "crop_size.height: expected an integer in [1, 65536], found 0" },
    { PROCESSOR, "crop_size", "{\"height\": 256}", FV_ERR_FORMAT, "crop_size.width is missing" },
    { PROCESSOR, "crop_size", "[256]", FV_ERR_FORMAT, "crop_size: expected 2 integers in [" },
    { PROCESSOR, "crop_size", "{\"shortest_edge\": 256}", FV_ERR_UNSUPPORTED,
      "crop_size is 0 x 0; expected a square" },
    { PROCESSOR, "crop_size", NULL, FV_ERR_UNSUPPORTED, /* CLIP's own */
      "crop_size is 224; expected a multiple of 64" },
    { PROCESSOR, "size", "{\"shortest_edge\": 256, \"longest_edge\": 512}", FV_ERR_UNSUPPORTED,
      "size.longest_edge is 512; expected null, and shortest_edge" },
    { PROCESSOR, "size", "{\"max_height\": 256, \"max_width\": 512}", FV_ERR_UNSUPPORTED,
      "size.max_height is 256; expected null" },
    { PROCESSOR, "size", "{}", FV_ERR_FORMAT, "size.height is missing" },
    { PROCESSOR, "do_center_crop", "false", FV_ERR_UNSUPPORTED,
      "do_center_crop is false; expected true, or a size with height and width" },
    { PROCESSOR, "do_center_crop", "1", FV_ERR_FORMAT, "do_center_crop: expected true or false" },
    { PROCESSOR, "image_mean", "null", FV_ERR_UNSUPPORTED,
      "image_mean is null; expected a number" },
    { PROCESSOR, "size", "null", FV_ERR_UNSUPPORTED, "size is null; expected a size" },
    { PROCESSOR, "crop_size", "null", FV_ERR_UNSUPPORTED, "crop_size is null; expected a size" },
    { PROCESSOR, "resample", "null", FV_ERR_UNSUPPORTED,
      "resample is null; expected a number from" },
    { PROCESSOR, "resample", "6", FV_ERR_FORMAT,
      "resample: expected an integer in [0, 5], found 6" },
    { PROCESSOR, "rescale_factor", "Infinity", FV_ERR_FORMAT,
      "rescale_factor: expected a number in [1e-09, 1e+09], found Infinity" },
    { PROCESSOR, "image_mean", "[0.5, 0.5]", FV_ERR_UNSUPPORTED,
      "image_mean is [0.5, 0.5]; expected a number, or three" },
    { PROCESSOR, "image_mean", "[0.5, NaN, 0.5]", FV_ERR_UNSUPPORTED,
      "image_mean is [0.5, NaN, 0.5]; expected a number, or three" },
    { PROCESSOR, "image_std", "[1, 0, 1]", FV_ERR_UNSUPPORTED,
      "image_std is [1, 0, 1]; expected numbers other than 0" },
    { PROCESSOR, "image_std", "\"1\"", FV_ERR_UNSUPPORTED,
      "image_std is \"1\"; expected a number" },
    { PROCESSOR, "do_convert_rgb", "false", FV_ERR_UNSUPPORTED,
      "preprocessor_config.json: do_convert_rgb is false; expected true" },
    { PROCESSOR, "do_pad", "true", FV_ERR_UNSUPPORTED, "do_pad is true; expected false" },
    { PROCESSOR, "image_processor_type", "\"LlavaImageProcessor\"", FV_ERR_UNSUPPORTED,
      "image_processor_type is \"LlavaImageProcessor\"; expected \"CLIPImageProcessor\"" },
    { LLAVA_PROCESSOR, "patch_size", "14", FV_ERR_UNSUPPORTED,
      "processor_config.json: patch_size is 14; expected 64" },
    { LLAVA_PROCESSOR, "num_additional_image_tokens", "1", FV_ERR_UNSUPPORTED,
      "num_additional_image_tokens is 1; expected 0" },
    { LLAVA_PROCESSOR, "vision_feature_select_strategy", "\"default\"", FV_ERR_UNSUPPORTED,
      "vision_feature_select_strategy is \"default\"; expected \"full\"" },
    { LLAVA_PROCESSOR, "processor_class", "\"LlavaNextProcessor\"", FV_ERR_UNSUPPORTED,
      "processor_class is \"LlavaNextProcessor\"" },
    { LLAVA_PROCESSOR, "image_processor", "{\"crop_size\": 256, \"size\": 256, \"do_pad\": true}",
      FV_ERR_UNSUPPORTED, "processor_config.json: image_processor.do_pad is true; expected false" },
    { GENERATION, "num_beams", "4", FV_ERR_UNSUPPORTED,
      "generation_config.json: num_beams is 4; expected 1" },
    { GENERATION, "no_repeat_ngram_size", "3", FV_ERR_UNSUPPORTED, "no_repeat_ngram_size is 3" },
    { GENERATION, "suppress_tokens", "[7]", FV_ERR_UNSUPPORTED,
      "suppress_tokens is [7]; expected null or []" },
    { GENERATION, "min_new_tokens", "8", FV_ERR_UNSUPPORTED, "min_new_tokens is 8; expected 0" },
    { GENERATION, "eos_token_id", "\"<|im_end|>\"", FV_ERR_FORMAT,
      "generation_config.json: eos_token_id: expected an integer" },
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
    { LLAVA, "vision_config.cls_ratio", "1.0", FV_ERR_UNSUPPORTED,
      "vision_config.cls_ratio is 1; expected 2" },
    { LLAVA, "vision_config.downsamples", "[true, true, false, true, true]", FV_ERR_UNSUPPORTED,
      "vision_config.downsamples is [true, true, false, true, true]; expected all true" },
    { LLAVA, "vision_config.patch_size", "32", FV_ERR_UNSUPPORTED,
      "patch_size is 32; expected 64" },
    { FAST, "vision_config.model_args.in_chans", "4", FV_ERR_UNSUPPORTED,
      "vision_config.model_args.in_chans is 4; expected 3" },
    { FAST, "vision_config.model_args.act_layer", "\"relu\"", FV_ERR_UNSUPPORTED,
      "vision_config.model_args.act_layer is \"relu\"; expected no such argument" },
    { FAST, "vision_config.hidden_size", "3072", FV_ERR_UNSUPPORTED,
      "vision_config.hidden_size is 3072; expected 128, twice the width" },
    { FAST, "vision_config.model_type", "\"clip_vision_model\"", FV_ERR_UNSUPPORTED,
      "vision_config.model_type is \"clip_vision_model\"; expected \"timm_wrapper\"" },
    { FAST, "multimodal_projector_bias", "false", FV_ERR_UNSUPPORTED,
      "multimodal_projector_bias is false; expected true" },
    { FAST, "vision_feature_layer", "-2", FV_ERR_UNSUPPORTED,
      "vision_feature_layer is -2; expected -1" },
    { FAST, "vision_feature_select_strategy", "\"default\"", FV_ERR_UNSUPPORTED,
      "vision_feature_select_strategy is \"default\"; expected \"full\"" },
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

/* The angle's base: inside rope_scaling or rope_parameters and beside them, 4e4 and 2e4, in both
 * layouts. The values for fast_vlm are transformers 5.24's Qwen2Config(**text_config); those for
 * llava_qwen2 transformers 4.48's, which knows rope_theta alone, and where that is missing 5.24's.
 * */
static void test_rope(void **state)
{
    (void)state;
    static const struct rope {
        const char *scaling, *parameters, *beside;
        double llava, fast;
    } table[] = {
        { NULL, NULL, NULL, 10000, 10000 },
        { NULL, NULL, "2e4", 2e4, 2e4 },
        { NULL, "{\"rope_type\": \"default\", \"rope_theta\": 4e4}", NULL, 4e4, 4e4 },
        { NULL, "{\"rope_type\": \"default\", \"rope_theta\": 4e4}", "2e4", 2e4, 4e4 },
        { NULL, "{\"rope_theta\": 4e4}", NULL, 4e4, 4e4 },
        { "{\"type\": \"default\"}", NULL, "2e4", 2e4, 2e4 },
        { "{\"rope_type\": \"default\"}", "{\"rope_theta\": 4e4}", NULL, 10000, 10000 },
        { "{\"type\": \"default\", \"rope_theta\": 3e4}", "{\"rope_theta\": 4e4}", NULL, 3e4, 3e4 },
        { "{}", "{\"rope_theta\": 4e4}", NULL, 4e4, 4e4 },
        { "null", "{\"rope_theta\": 4e4}", "null", 4e4, 4e4 },
        { "null", "null", "20000", 2e4, 2e4 },
        { NULL, "{\"rope_type\": \"default\", \"factor\": 8, \"rope_theta\": 4e4}", NULL, 4e4,
          4e4 },
    };
    for (size_t i = 0; i < FV_COUNT(table); i++)
        for (int fast = 0; fast < 2; fast++) {
            char *text = edited(fast ? fast_text : llava_text,
                                fast ? "text_config.rope_parameters" : "rope_theta", NULL);
            const char *values[] = { table[i].scaling, table[i].parameters, table[i].beside };
            static const char *const keys[2][3] = {
                { "rope_scaling", "rope_parameters", "rope_theta" },
                { "text_config.rope_scaling", "text_config.rope_parameters",
                  "text_config.rope_theta" }
            };
            for (int k = 0; k < 3; k++)
                if (values[k]) {
                    char *next = edited(text, keys[fast][k], values[k]);
                    free(text);
                    text = next;
                }
            fv_config c;
            fv_error err = { 0 };
            fv_config_files files = { .config = { text, strlen(text) } };
            if (fv_config_parse(&c, &files, "config.json", &err) != FV_OK)
                fail_msg("row %zu: %s", i, err.message);
            if (c.rope_theta != (fast ? table[i].fast : table[i].llava))
                fail_msg("row %zu, %s: %g", i, fast ? "fast_vlm" : "llava_qwen2", c.rope_theta);
            free(text);
        }
}

/* A window matters only where it is shorter than a conversation, in layers that have one. */
static void test_windows(void **state)
{
    (void)state;
    static const struct window {
        const char *use, *size, *first;
        bool ok;
    } table[] = {
        { "false", "64", "0", true },     { "true", "64", "0", false },
        { "true", "64", "2", false },     { "true", "64", "3", true }, /* of 3 layers */
        { "true", "511", "0", false },    { "true", "512", "0", true },
        { "true", "131072", "28", true }, { "true", "null", "0", true },
        { "null", "64", "0", true },      { "false", "null", "null", true },
    };
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        char *a = edited(llava_text, "use_sliding_window", table[i].use),
             *b = edited(a, "sliding_window", table[i].size),
             *text = edited(b, "max_window_layers", table[i].first);
        fv_config c;
        fv_error err = { 0 };
        fv_config_files files = { .config = { text, strlen(text) } };
        fv_status status = fv_config_parse(&c, &files, "config.json", &err);
        if (status != (table[i].ok ? FV_OK : FV_ERR_UNSUPPORTED) ||
            (!table[i].ok && !strstr(err.message, "use_sliding_window is true, with a window of")))
            fail_msg("row %zu: %s", i, err.message);
        free(a);
        free(b);
        free(text);
    }
}

/* What an image goes through. [transformers 5.24, CLIPImageProcessor: the values of its attributes]
 * */
static void test_recipes(void **state)
{
    (void)state;
    static const struct recipe_case {
        const char *path, *value;
        fv_recipe want;
        int side;
    } table[] = {
        { "image_mean",
          "[0.48145466, 0.4578275, 0.40821073]",
          { FV_FIT_CROP,
            FV_FILTER_BICUBIC,
            0,
            { 256 },
            1.0 / 255,
            { 0.48145466f, 0.4578275f, 0.40821073f },
            { 1, 1, 1 } },
          256 },
        { "image_mean",
          "0.5",
          { FV_FIT_CROP,
            FV_FILTER_BICUBIC,
            0,
            { 256 },
            1.0 / 255,
            { 0.5f, 0.5f, 0.5f },
            { 1, 1, 1 } },
          256 },
        { "image_std",
          NULL, /* absent: CLIP's own */
          { FV_FIT_CROP,
            FV_FILTER_BICUBIC,
            0,
            { 256 },
            1.0 / 255,
            { 0 },
            { 0.26862954f, 0.26130258f, 0.27577711f } },
          256 },
        { "do_normalize",
          "false",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 0, { 256 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "rescale_factor",
          "0.5",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 0, { 256 }, 0.5, { 0 }, { 1, 1, 1 } },
          256 },
        { "rescale_factor",
          "1",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 0, { 256 }, 1, { 0 }, { 1, 1, 1 } },
          256 },
        { "do_rescale",
          "false",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 0, { 256 }, 0, { 0 }, { 1, 1, 1 } },
          256 },
        { "resample",
          "2",
          { FV_FIT_CROP, FV_FILTER_BILINEAR, 0, { 256 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "resample",
          "0",
          { FV_FIT_CROP, FV_FILTER_NEAREST, 0, { 256 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "size",
          "288",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 1, { 288 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "size",
          "{\"shortest_edge\": 200}",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 1, { 200 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "size",
          "{\"height\": 256, \"width\": 256}",
          { FV_FIT_STRETCH, FV_FILTER_BICUBIC, 0, { 0 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "size",
          "[300, 400]",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 2, { 400, 300 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "size",
          NULL, /* CLIP's own */
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 1, { 224 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "do_resize",
          "false",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 2, { 0, 0 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          256 },
        { "crop_size",
          "320",
          { FV_FIT_CROP, FV_FILTER_BICUBIC, 1, { 256 }, 1.0 / 255, { 0 }, { 1, 1, 1 } },
          320 },
    };
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        fv_config c = right(PROCESSOR, table[i].path, table[i].value);
        const fv_recipe *r = &c.recipe, *want = &table[i].want;
        bool same = r->fit == want->fit && r->filter == want->filter &&
                    r->n_scale == want->n_scale && r->rescale == want->rescale &&
                    !memcmp(r->scale, want->scale, (size_t)want->n_scale * sizeof *want->scale) &&
                    !memcmp(r->mean, want->mean, sizeof r->mean) &&
                    !memcmp(r->std, want->std, sizeof r->std) && c.image_size == table[i].side;
        if (!same)
            fail_msg("%s = %s", table[i].path, table[i].value ? table[i].value : "(removed)");
    }
    fv_config c = right(PROCESSOR, "size", "{\"shortest_edge\": 320}");
    assert_int_equal(fv_config_recipe(&c, FV_FIT_AUTO, 256).scale[0], 320);
    assert_int_equal(fv_config_recipe(&c, FV_FIT_AUTO, 512).scale[0], 640); /* with the side */
    assert_int_equal(fv_config_recipe(&c, FV_FIT_PAD, 512).n_scale, 0);
    assert_int_equal(fv_config_recipe(&c, FV_FIT_CROP, 512).n_scale, 1);
}

/* End tokens: those of generation_config.json go before config.json's, in the layout that reads it.
 * */
static void test_end_tokens(void **state)
{
    (void)state;
    fv_config c = right(GENERATION, "eos_token_id", "[282, 72]");
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[1], 72);
    c = right(GENERATION, "eos_token_id", "72");
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 72);
    c = right(GENERATION, "eos_token_id", "null");
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 282); /* config.json's */
    c = right(LLAVA, "", NULL);
    assert_int_equal(c.eos[0], 471);
    assert_int_equal(right(GENERATION, "repetition_penalty", "1.1").n_eos, 1); /* the caller's */
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
    assert_false(c.tied);
    assert_int_equal(c.recipe.fit, FV_FIT_PAD);
    c = right(FAST, "", NULL);
    assert_int_equal(c.layout, FV_LAYOUT_FAST_VLM);
    assert_int_equal(c.image_token, 283);
    assert_int_equal(c.image_size, 256);
    assert_true(c.rope_theta == 1e6 && c.tied);
    assert_int_equal(c.recipe.fit, FV_FIT_CROP);

    /* absent: defaults */
    assert_int_equal(right(LLAVA, "num_key_value_heads", NULL).n_kv_heads, 4);
    assert_int_equal(right(LLAVA, "num_key_value_heads", "null").n_kv_heads, 4);
    assert_true(right(LLAVA, "rope_theta", NULL).rope_theta == 10000);
    assert_true(right(LLAVA, "rms_norm_eps", NULL).rms_eps == 1e-6);
    assert_int_equal(right(LLAVA, "eos_token_id", NULL).n_eos, 0);
    assert_int_equal(right(LLAVA, "tokenizer_model_max_length", NULL).max_context, 2048);
    assert_int_equal(right(FAST, "text_config.max_position_embeddings", NULL).max_context, 8192);
    assert_int_equal(right(LLAVA, "mm_hidden_size", NULL).n_features, 256);
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
    assert_int_equal(right(LLAVA, "eos_token_id", "[1, 2, 3, 4, 5, 6]").n_eos, 6);
    assert_int_equal(right(LLAVA, "eos_token_id", "[]").n_eos, 0);
    assert_true(right(LLAVA, "rope_theta", "1").rope_theta == 1);
    assert_true(right(LLAVA, "rms_norm_eps", "0").rms_eps == 0);
    assert_true(right(LLAVA, "rope_scaling", "{\"type\": \"default\"}").rope_theta == 1e6);
    assert_true(right(LLAVA, "rope_scaling", "null").rope_theta == 1e6);
    assert_int_equal(right(LLAVA, "image_aspect_ratio", "\"square\"").recipe.fit, FV_FIT_CROP);
    /* the reference pads only where the key says so */
    assert_int_equal(right(LLAVA, "image_aspect_ratio", NULL).recipe.fit, FV_FIT_CROP);
    assert_int_equal(right(LLAVA, "image_aspect_ratio", "null").recipe.fit, FV_FIT_CROP);
    assert_int_equal(right(LLAVA, "mm_vision_tower", "\"a_b_1344\"").image_size, 1344);
    assert_int_equal(right(LLAVA, "mm_vision_tower", "\"_64\"").image_size, 64);
    assert_int_equal(right(PROCESSOR, "crop_size", "512").image_size, 512);
    assert_int_equal(right(PROCESSOR, "crop_size", "[320, 320]").image_size, 320);
    /* where processor_config.json has an image processor, it counts */
    assert_int_equal(right(LLAVA_PROCESSOR, "image_processor", "{\"crop_size\": 320}").image_size,
                     320);
    assert_int_equal(right(LLAVA_PROCESSOR, "image_processor", "null").image_size, 256);
    assert_int_equal(right(LLAVA, "hidden_act", "\"swish\"").d_model, 64);
    assert_int_equal(right(FAST, "projector_hidden_act", "\"gelu_python\"").d_model, 64);
    assert_int_equal(right(FAST, "vision_config.model_args.drop_path_rate", "0.1").n_stages, 5);
    assert_int_equal(right(LLAVA, "quantization_config", "null").d_model, 64);
    assert_int_equal(
        right(LLAVA, "vision_config.mlp_ratios", "[4.0, 4.0, 2.0, 4, 4]").stage[2].hidden, 64);
    assert_int_equal(right(LLAVA, "mm_projector_lr", "Infinity").d_model, 64);
    assert_int_equal(
        right(LLAVA, "vision_config.downsamples", "[true, true, true, true, true]").n_stages, 5);
    assert_int_equal(
        right(LLAVA, "tokenizer_model_max_length", "1000000000000000019884624838656").max_context,
        2048);
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
                 "fastvlm.image.fit is \"cut\"; expected \"pad\", \"crop\" or \"stretch\"");
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
    assert_true(again.tied == c->tied && again.n_eos == c->n_eos);
    assert_memory_equal(again.eos, c->eos, sizeof c->eos);
    assert_int_equal(again.image_token, c->image_token);
    assert_int_equal(again.recipe.fit, c->recipe.fit);
    assert_int_equal(again.recipe.filter, c->recipe.filter);
    assert_int_equal(again.recipe.n_scale, c->recipe.n_scale);
    for (int i = 0; i < c->recipe.n_scale; i++)
        assert_int_equal(again.recipe.scale[i], c->recipe.scale[i]);
    assert_true(again.recipe.rescale == c->recipe.rescale);
    assert_memory_equal(again.recipe.mean, c->recipe.mean, sizeof c->recipe.mean);
    assert_memory_equal(again.recipe.std, c->recipe.std, sizeof c->recipe.std);
    fv_gguf_free(g);
    fv_free(path);
}

static void test_right_gguf(void **state)
{
    (void)state;
    fv_config c = right(LLAVA, "eos_token_id", "[1, 2, 3, 4, 5, 6, 7, 8]");
    same_after_gguf(&c);
    c = right(FAST, "", NULL);
    same_after_gguf(&c);
    c = right(FAST, "vision_config", NULL);
    same_after_gguf(&c);
    c = right(PROCESSOR, "image_mean", "[0.48145466, 0.4578275, 0.40821073]");
    same_after_gguf(&c);
    c = right(PROCESSOR, "resample", "1");
    same_after_gguf(&c);
    c = right(PROCESSOR, "size", "[300, 400]");
    same_after_gguf(&c);
    c = right(PROCESSOR, "do_resize", "false");
    same_after_gguf(&c);
    c = right(PROCESSOR, "rescale_factor", "0.0078125");
    same_after_gguf(&c);
    c = right(PROCESSOR, "size", "{\"height\": 256, \"width\": 256}");
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
        cmocka_unit_test(test_rope),       cmocka_unit_test(test_windows),
        cmocka_unit_test(test_recipes),    cmocka_unit_test(test_end_tokens),
        cmocka_unit_test(test_wrong_gguf), cmocka_unit_test(test_changed_gguf),
        cmocka_unit_test(test_fit_gguf),   cmocka_unit_test(test_right_gguf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
