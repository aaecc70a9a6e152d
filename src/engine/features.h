/* features: an encoded image [n_rows, d_model] as a value. Immutable; counted references. */
#ifndef FV_FEATURES_H
#define FV_FEATURES_H

#include <stdatomic.h>

#include "base/base.h"

/* Milliseconds that making them took, for fv_stats. */
typedef struct fv_encode_times {
    double image, preprocess, vision, projector;
} fv_encode_times;

struct fv_features {
    atomic_size_t refs;
    size_t n_rows, d_model;
    fv_encode_times times; /* zero: computed elsewhere */
    float rows[];          /* [n_rows, d_model] */
};

/* Not filled yet; one reference. */
fv_status fv_features_alloc(fv_features **out, size_t n_rows, size_t d_model, fv_error *err);
/* The same image, by identity or by every byte. */
bool fv_features_equal(const fv_features *a, const fv_features *b);

#endif
