/* settings: keys of a checkpoint's JSON files that change what the reference computes and that this
 * program computes for one value only.
 *
 * A file may leave such a key out, or say null; another value than the expected one is refused by
 * name, as it would silently give other answers. Keys whose values are carried out are read where
 * they are used (model/config.c, model/processor.c, text/tokenizer_files.c). All of them, with
 * those that have no effect, are listed in docs/model.md, section 8, and docs/tokenizer.md. */
#ifndef FV_SETTINGS_H
#define FV_SETTINGS_H

#include "io/json.h"

/* Objects of the files. */
typedef enum fv_settings {
    FV_SETTINGS_DECODER,         /* config.json, or its text_config in the layout fast_vlm */
    FV_SETTINGS_ROPE,            /* rope_parameters or rope_scaling inside it */
    FV_SETTINGS_TEXT,            /* text_config alone */
    FV_SETTINGS_LLAVA,           /* config.json, layout llava_qwen2 */
    FV_SETTINGS_LLAVA_VISION,    /* its vision_config */
    FV_SETTINGS_FAST_VLM,        /* config.json, layout fast_vlm */
    FV_SETTINGS_TIMM,            /* its vision_config */
    FV_SETTINGS_TIMM_ARGS,       /* vision_config.model_args */
    FV_SETTINGS_IMAGE_PROCESSOR, /* preprocessor_config.json, or image_processor inside the next */
    FV_SETTINGS_PROCESSOR,       /* processor_config.json */
    FV_SETTINGS_GENERATION,      /* generation_config.json, layout fast_vlm */
    FV_SETTINGS_TOKENIZER_CONFIG,
    FV_SETTINGS_TOKENIZER_MODEL, /* "model" of tokenizer.json */
    FV_SETTINGS_ADDED_TOKEN,     /* an element of its added_tokens */
    FV_SETTINGS_SPLIT,           /* a pre-tokenizer */
    FV_SETTINGS_BYTE_LEVEL       /* a pre-tokenizer */
} fv_settings;

/* Every key of the table. FV_ERR_UNSUPPORTED: "config.json: text_config.hidden_act is "gelu";
 * expected "silu" or "swish"". */
fv_status fv_settings_check(fv_settings which, const fv_json *doc, const fv_json_value *object,
                            fv_error *err);

#endif
