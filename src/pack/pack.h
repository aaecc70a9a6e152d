/* pack: a checkpoint as a packed file; what fv_pack and the quantisers that it asks share. */
#ifndef FV_PACK_H
#define FV_PACK_H

#include "fastvlm_tools.h"
#include "io/gguf.h"
#include "model/weights.h"

enum { FV_PACK_PARTS = 6 };

/* One of the tensors that a weight is stored as. */
typedef struct fv_pack_part {
    const char *suffix; /* ".weight", ".scale"; "" for a vector */
    fv_type type;
    int n_dims;
    uint64_t shape[2];
    const void *data; /* row-major, in type; valid until the next call */
    float sqnr;       /* dB; INFINITY when nothing was lost */
} fv_pack_part;

/* Writes weights in a way of its own, such as calibrated int8. The first hook that wants a weight
 * gets it. */
typedef struct fv_pack_hook {
    void *user;
    /* The tensors that this weight is stored as, in order; *n = 0: as the options say. t->slot
     * holds the bound weight (const float *, fv_mat or fv_dw). Called twice, in the same order of
     * weights: to list the tensors (data and sqnr are not looked at) and to write them. */
    fv_status (*parts)(void *user, const fv_weight *t, fv_pack_part list[FV_PACK_PARTS], size_t *n,
                       fv_error *err);
    /* Called before a weight is written. NULL: nothing to do. */
    fv_status (*prepare)(void *user, const fv_weight *t, fv_error *err);
    /* Adds metadata: how it was done. NULL: none. */
    void (*describe)(void *user, fv_gguf_writer *w);
} fv_pack_hook;

#endif
