/* stages: two models' stages side by side. The reference's are kept while the test model catches
 * up. */
#ifndef FV_STAGES_H
#define FV_STAGES_H

#include "eval/measure.h"
#include "base/base.h"

enum { FV_STAGE_NAME = 48 };

/* Whose image tokens the test model sees. */
enum { FV_WITH_OWN, FV_WITH_REF, FV_WITH_BOTH };

typedef struct fv_stage_sum {
    char name[FV_STAGE_NAME];
    fv_distance with[FV_WITH_BOTH];
} fv_stage_sum;

typedef struct fv_kept_stage {
    char name[FV_STAGE_NAME];
    float *x;
    size_t n;
    bool compared[FV_WITH_BOTH];
} fv_kept_stage;

/* Zero-initialise; fv_stages_free when done. */
typedef struct fv_stages {
    fv_stage_sum *sum; /* in the order in which they came first */
    size_t n, capacity;
    fv_kept_stage *kept; /* of the current image */
    size_t n_kept, kept_capacity;
    /* what fv_stages_compare counts: FV_WITH_OWN, _REF, or _BOTH when the tokens are equal */
    int with;
    fv_distance features, tokens; /* of the current image: vision.features, image_tokens */
    fv_error error;               /* why a tap stopped its call */
} fv_stages;

/* Both are fv_tap_fn with an fv_stages. A stage that only one of the models shows is left out, and
 * so are pixels and logits, which are no stages. */
bool fv_stages_keep(void *stages, const char *name, const float *x, const size_t *shape,
                    int n_dims);
bool fv_stages_compare(void *stages, const char *name, const float *x, const size_t *shape,
                       int n_dims);
/* Forgets what is kept. */
void fv_stages_drop(fv_stages *s);
void fv_stages_free(fv_stages *s);

#endif
