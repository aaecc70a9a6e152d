/* config: the shapes and constants of a model, read from a checkpoint's config.json.
 *
 * Both layouts (docs/model.md, section 9) end in the same struct; nothing is fixed to one size
 * of model. What a value may be: config_rules.h. */
#ifndef FV_CONFIG_H
#define FV_CONFIG_H

#include "base/base.h"
#include "base/recipe.h"

typedef enum fv_layout { FV_LAYOUT_LLAVA_QWEN2, FV_LAYOUT_FAST_VLM } fv_layout;

enum {
    FV_MAX_STAGES = 8,
    FV_MAX_EOS = 16,
    FV_PATCH = 64,             /* pixels of a side that become one image token's side */
    FV_CONFIG_MAX_ID = 1 << 22 /* of a token */
};

typedef struct fv_vision_stage {
    int depth, width; /* blocks; channels */
    int hidden;       /* channels inside the FFN */
    bool attention;   /* attention blocks, otherwise RepMixer blocks */
    int cpe;          /* kernel of the positional convolution in front; 0: none */
} fv_vision_stage;

typedef struct fv_config {
    fv_layout layout;

    /* vision */
    int image_size; /* side of the square input the model was trained with */
    int n_stages;
    fv_vision_stage stage[FV_MAX_STAGES];
    int mixer_kernel, down_kernel; /* 3 and 7 */
    int n_features, n_squeeze;     /* channels of conv_exp; of its squeeze */
    int d_head_vision;             /* 32 */
    fv_recipe recipe;              /* from an image to the input, at image_size */

    /* decoder */
    int d_model, d_ffn, n_layers, n_heads, n_kv_heads, d_head;
    int n_vocab;     /* rows of the embedding */
    int max_context; /* rows of a conversation */
    double rope_theta, rms_eps;
    bool tied;               /* the output head is the embedding, whatever is stored */
    int32_t eos[FV_MAX_EOS]; /* from the files; the tokenizer's end tokens come on top */
    int n_eos;
    int32_t image_token; /* the id of "<image>" or -1 */
} fv_config;

/* Reads DIR/config.json, and for fast_vlm the three other files. */
fv_status fv_config_load(fv_config *out, const char *dir, fv_error *err);

/* The other files beside a config.json of llava_qwen2 are not followed, since its reference has
 * these settings in its code. What they state otherwise than *c, or than ends, the tokens that end
 * an answer, is logged as a warning. Nothing for fast_vlm. */
fv_status fv_config_check_unread(const fv_config *c, const char *dir, const int32_t *ends,
                                 int n_ends, const fv_callbacks *callbacks, fv_error *err);

/* A file's text; data is NULL where there is none. */
typedef struct fv_config_text {
    const void *data;
    size_t n;
} fv_config_text;

typedef struct fv_config_files {
    fv_config_text config;
    fv_config_text preprocessor, processor, generation; /* fast_vlm only: NAME_config.json */
} fv_config_files;

/* The same from memory; name is what messages call config.json. */
fv_status fv_config_parse(fv_config *out, const fv_config_files *files, const char *name,
                          fv_error *err);

/* The recipe for another fit (AUTO: its own) and another side of the input than image_size, to
 * which sizes in it are scaled. */
fv_recipe fv_config_recipe(const fv_config *c, fv_fit fit, int image_size);

static inline int fv_config_image_tokens(int image_size)
{
    return (image_size / FV_PATCH) * (image_size / FV_PATCH);
}

#endif
