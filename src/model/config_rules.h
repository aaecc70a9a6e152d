/* config_rules: what a configuration must satisfy, whichever file it was read from.
 *
 * config.c and config_gguf.c only read: each value has the right type and fits an int. The tables
 * here say what each source calls each member of fv_config, and what values it may have;
 * fv_config_check applies them and the rules between members. After it no product of members
 * overflows, and the model is one that this build can run. */
#ifndef FV_CONFIG_RULES_H
#define FV_CONFIG_RULES_H

#include "model/config.h"

/* Where a configuration was read from: first the layouts of config.json, as in fv_layout. */
typedef enum fv_config_source {
    FV_SOURCE_LLAVA_QWEN2 = FV_LAYOUT_LLAVA_QWEN2,
    FV_SOURCE_FAST_VLM = FV_LAYOUT_FAST_VLM,
    FV_SOURCE_GGUF,
    FV_SOURCE_COUNT
} fv_config_source;

/* A whole number: min, min + step, ... up to max. */
typedef struct fv_config_field {
    const char *name[FV_SOURCE_COUNT]; /* what the source calls it */
    size_t offset; /* of an int in fv_config; stage fields: in fv_vision_stage */
    int min, max, step;
    bool optional; /* config.json may leave it out: the member keeps what it has */
} fv_config_field;

/* A real number in [min, max]; config.json may leave it out. */
typedef struct fv_config_real {
    const char *name[FV_SOURCE_COUNT];
    size_t offset; /* of a double in fv_config */
    double min, max;
} fv_config_real;

enum {
    FV_CONFIG_DECODER_FIELDS = 8,
    FV_CONFIG_REALS = 2,
    FV_CONFIG_RMS_EPS = 0, /* places in them */
    FV_CONFIG_ROPE_THETA = 1,
    FV_CONFIG_STAGE_FIELDS = 4,
    FV_CONFIG_KERNEL_FIELDS = 2,
    FV_CONFIG_DERIVED_FIELDS = 4
};

extern const fv_config_field fv_config_decoder_fields[FV_CONFIG_DECODER_FIELDS];
extern const fv_config_real fv_config_reals[FV_CONFIG_REALS];
/* One value a stage: arrays in both sources. config.json has a ratio for the third and a shape for
 * the fourth. */
extern const fv_config_field fv_config_stage_fields[FV_CONFIG_STAGE_FIELDS];
extern const fv_config_field fv_config_kernel_fields[FV_CONFIG_KERNEL_FIELDS];
/* Stated by a packed file; config.json has them in other words, or not at all. */
extern const fv_config_field fv_config_derived_fields[FV_CONFIG_DERIVED_FIELDS];

static inline int *fv_config_member(const fv_config_field *f, void *object)
{
    return (int *)((char *)object + f->offset);
}

/* Every rule; file is what messages call the source. FV_ERR_UNSUPPORTED says which field, what was
 * found and what is expected. */
fv_status fv_config_check(const fv_config *c, fv_config_source source, const char *file,
                          fv_error *err);

/* The rule between the side of images and the context, for another side than the model's own. name
 * is what messages call the side. */
fv_status fv_config_check_image(const fv_config *c, const char *file, const char *name,
                                int image_size, fv_error *err);

#endif
