/* hf: what the exports of checkpoint files share. */
#ifndef FV_HF_H
#define FV_HF_H

#include "base/outfile.h"
#include "model/model.h"
#include "io/json_write.h"

typedef struct fv_hf_target {
    fv_layout layout;
    const char *dtype;   /* "bfloat16" */
    bool copy_config;    /* the source's own config.json is right */
    int rows;            /* of the embedding */
    int32_t image_token; /* fast_vlm: the id of "<image>" */
} fv_hf_target;

/* Every file but the weights, into the folder stage. hf_files.c */
fv_status fv_hf_write_files(const fv_model *s, const fv_hf_target *t, const char *stage,
                            fv_error *err);

#endif
