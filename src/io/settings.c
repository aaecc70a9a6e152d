/* The table of keys that must have one value. See settings.h. */
#include "io/settings.h"

#include <string.h>

/* A value as JSON; several with " or " between them. "all X": a list with nothing but X. */
static const struct setting {
    fv_settings of;
    const char *key, *expected;
} settings[] = {
    { FV_SETTINGS_DECODER, "hidden_act", "\"silu\" or \"swish\"" },
    { FV_SETTINGS_DECODER, "quantization_config", "null" },

    { FV_SETTINGS_ROPE, "rope_type", "\"default\"" },
    { FV_SETTINGS_ROPE, "type", "\"default\"" },
    { FV_SETTINGS_TEXT, "model_type", "\"qwen2\"" },

    { FV_SETTINGS_LLAVA, "mm_projector_type", "\"mlp2x_gelu\"" },
    { FV_SETTINGS_LLAVA, "mm_use_im_start_end", "false" },
    { FV_SETTINGS_LLAVA, "mm_use_im_patch_token", "false" },

    { FV_SETTINGS_LLAVA_VISION, "cls_ratio", "2" },
    { FV_SETTINGS_LLAVA_VISION, "down_stride", "2" },
    { FV_SETTINGS_LLAVA_VISION, "downsamples", "all true" },
    { FV_SETTINGS_LLAVA_VISION, "se_downsamples", "all false" },
    { FV_SETTINGS_LLAVA_VISION, "lkc_use_act", "true" },
    { FV_SETTINGS_LLAVA_VISION, "patch_size", "64" },

    { FV_SETTINGS_FAST_VLM, "projector_hidden_act", "\"gelu\" or \"gelu_python\"" },
    { FV_SETTINGS_FAST_VLM, "multimodal_projector_bias", "true" },
    { FV_SETTINGS_FAST_VLM, "vision_feature_layer", "-1" },
    { FV_SETTINGS_FAST_VLM, "vision_feature_select_strategy", "\"full\"" },
    { FV_SETTINGS_FAST_VLM, "quantization_config", "null" },

    { FV_SETTINGS_TIMM, "model_type", "\"timm_wrapper\"" },
    { FV_SETTINGS_TIMM, "architecture", "\"fastvit_mci3\"" },

    { FV_SETTINGS_TIMM_ARGS, "in_chans", "3" },
    { FV_SETTINGS_TIMM_ARGS, "cls_ratio", "2" },
    { FV_SETTINGS_TIMM_ARGS, "down_patch_size", "7" },
    { FV_SETTINGS_TIMM_ARGS, "down_stride", "2" },
    { FV_SETTINGS_TIMM_ARGS, "repmixer_kernel_size", "3" },
    { FV_SETTINGS_TIMM_ARGS, "downsamples", "[false, true, true, true, true]" },
    { FV_SETTINGS_TIMM_ARGS, "se_downsamples", "all false" },
    { FV_SETTINGS_TIMM_ARGS, "lkc_use_act", "true" },
    { FV_SETTINGS_TIMM_ARGS, "fork_feat", "false" },
    { FV_SETTINGS_TIMM_ARGS, "features_only", "false" },

    { FV_SETTINGS_IMAGE_PROCESSOR, "image_processor_type",
      "\"CLIPImageProcessor\" or \"CLIPImageProcessorFast\" or \"CLIPImageProcessorPil\"" },
    { FV_SETTINGS_IMAGE_PROCESSOR, "feature_extractor_type",
      "\"CLIPFeatureExtractor\" or \"CLIPImageProcessor\"" },
    { FV_SETTINGS_IMAGE_PROCESSOR, "do_convert_rgb", "true" },
    { FV_SETTINGS_IMAGE_PROCESSOR, "do_pad", "false" },
    { FV_SETTINGS_IMAGE_PROCESSOR, "use_square_size", "false" },

    { FV_SETTINGS_PROCESSOR, "processor_class", "\"LlavaProcessor\"" },
    { FV_SETTINGS_PROCESSOR, "patch_size", "64" },
    { FV_SETTINGS_PROCESSOR, "num_additional_image_tokens", "0" },
    { FV_SETTINGS_PROCESSOR, "vision_feature_select_strategy", "\"full\"" },

    /* what would change a greedy answer and is nothing that a caller can ask for */
    { FV_SETTINGS_GENERATION, "num_beams", "1" },
    { FV_SETTINGS_GENERATION, "penalty_alpha", "0" },
    { FV_SETTINGS_GENERATION, "guidance_scale", "1" },
    { FV_SETTINGS_GENERATION, "encoder_repetition_penalty", "1" },
    { FV_SETTINGS_GENERATION, "no_repeat_ngram_size", "0" },
    { FV_SETTINGS_GENERATION, "encoder_no_repeat_ngram_size", "0" },
    { FV_SETTINGS_GENERATION, "min_length", "0" },
    { FV_SETTINGS_GENERATION, "min_new_tokens", "0" },
    { FV_SETTINGS_GENERATION, "bad_words_ids", "null or []" },
    { FV_SETTINGS_GENERATION, "force_words_ids", "null or []" },
    { FV_SETTINGS_GENERATION, "constraints", "null or []" },
    { FV_SETTINGS_GENERATION, "suppress_tokens", "null or []" },
    { FV_SETTINGS_GENERATION, "begin_suppress_tokens", "null or []" },
    { FV_SETTINGS_GENERATION, "forced_bos_token_id", "null" },
    { FV_SETTINGS_GENERATION, "forced_eos_token_id", "null" },
    { FV_SETTINGS_GENERATION, "sequence_bias", "null" },
    { FV_SETTINGS_GENERATION, "exponential_decay_length_penalty", "null" },
    { FV_SETTINGS_GENERATION, "stop_strings", "null or []" },
    { FV_SETTINGS_GENERATION, "watermarking_config", "null" },
    { FV_SETTINGS_GENERATION, "dola_layers", "null" },

    { FV_SETTINGS_TOKENIZER_CONFIG, "add_bos_token", "false" },
    { FV_SETTINGS_TOKENIZER_CONFIG, "add_eos_token", "false" },
    { FV_SETTINGS_TOKENIZER_CONFIG, "add_prefix_space", "false" },
    { FV_SETTINGS_TOKENIZER_CONFIG, "split_special_tokens", "false" },
    { FV_SETTINGS_TOKENIZER_CONFIG, "errors", "\"replace\"" },

    { FV_SETTINGS_TOKENIZER_MODEL, "type", "\"BPE\"" },
    { FV_SETTINGS_TOKENIZER_MODEL, "dropout", "0" },
    { FV_SETTINGS_TOKENIZER_MODEL, "continuing_subword_prefix", "\"\"" },
    { FV_SETTINGS_TOKENIZER_MODEL, "end_of_word_suffix", "\"\"" },
    { FV_SETTINGS_TOKENIZER_MODEL, "ignore_merges", "false" },

    { FV_SETTINGS_ADDED_TOKEN, "lstrip", "false" },
    { FV_SETTINGS_ADDED_TOKEN, "rstrip", "false" },
    { FV_SETTINGS_ADDED_TOKEN, "single_word", "false" },

    { FV_SETTINGS_SPLIT, "behavior", "\"Isolated\"" },
    { FV_SETTINGS_SPLIT, "invert", "false" },

    { FV_SETTINGS_BYTE_LEVEL, "add_prefix_space", "false" },
    { FV_SETTINGS_BYTE_LEVEL, "use_regex", "false" },
};

/* Is the value, as JSON, one of the alternatives? */
static bool setting_matches(const fv_json_value *value, const char *expected)
{
    static const char between[] = " or ";
    char found[FV_JSON_SHOWN];

    fv_json_show(value, found);
    for (const char *at = expected, *end; at; at = end ? end + sizeof between - 1 : NULL) {
        end = strstr(at, between);
        size_t n = end ? (size_t)(end - at) : strlen(at);
        if (n == strlen(found) && !memcmp(found, at, n))
            return true;
    }
    return false;
}

static fv_status setting_check_all(const struct setting *s, const fv_json *doc,
                                   const fv_json_value *object, fv_error *err)
{
    const char *expected = s->expected + sizeof "all " - 1;
    const fv_json_value *list = fv_json_member(object, s->key);

    if (fv_json_type_of(list) != FV_JSON_ARRAY)
        return fv_json_unexpected(doc, object, s->key, "a list", err);
    for (size_t i = 0; i < fv_json_count(list); i++)
        if (!setting_matches(fv_json_at(list, i), expected))
            return fv_json_unexpected(doc, object, s->key, s->expected, err);
    return FV_OK;
}

fv_status fv_settings_check(fv_settings which, const fv_json *doc, const fv_json_value *object,
                            fv_error *err)
{
    for (size_t i = 0; i < FV_COUNT(settings); i++) {
        const struct setting *s = &settings[i];
        const fv_json_value *value = s->of == which ? fv_json_member(object, s->key) : NULL;
        if (fv_json_type_of(value) == FV_JSON_NULL)
            continue;
        if (!strncmp(s->expected, "all ", 4))
            FV_TRY(setting_check_all(s, doc, object, err));
        else if (!setting_matches(value, s->expected))
            return fv_json_unexpected(doc, object, s->key, s->expected, err);
    }
    return FV_OK;
}
