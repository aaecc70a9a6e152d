/* layer_clock: operations that say what they took (nn/ops.h), with names, for the caller who asked
 * for fv_layer_fn. */
#ifndef FV_LAYER_CLOCK_H
#define FV_LAYER_CLOCK_H

#include "model/model.h"
#include "nn/watch.h"

typedef struct fv_layer_name fv_layer_name;

/* All zero: nobody asked. */
typedef struct fv_layer_clock {
    fv_layer_fn *fn;
    void *user;
    fv_layer_name *names; /* [n], by the address of the weights */
    size_t n;
    char block[FV_PACKED_NAME]; /* where the last named layer lies */
} fv_layer_clock;

/* fn NULL: the clock stays zero. The weights of the model must stay where they are. */
fv_status fv_layer_clock_init(fv_layer_clock *c, const fv_model *model, fv_layer_fn *fn, void *user,
                              fv_error *err);
void fv_layer_clock_free(fv_layer_clock *c);

/* Has watch tell the clock of every operation. Nothing when nobody asked. */
void fv_layer_clock_watch(fv_layer_clock *c, fv_watch *watch);

#endif
