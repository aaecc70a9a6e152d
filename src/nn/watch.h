/* watch: what looks on while the model runs: progress, cancelling, every named value, and the time
 * of every operation. */
#ifndef FV_WATCH_H
#define FV_WATCH_H

#include "base/base.h"
#include "base/types.h"

/* An operation that has run, for who wants to know what every layer takes (ops_time.c). */
typedef struct fv_op_time {
    const char *kind;    /* "linear", "attention": static */
    const void *site[3]; /* its fv_mats or fv_dws, of a norm the vector; NULL: none (any more) */
    fv_type type;        /* of the products: F32, BF16, I8; with weights in blocks theirs */
    bool fine;           /* I8: with rows of 16 bits, two products */
    size_t n_rows;       /* that it wrote */
    double macs;
    double bytes; /* of weights, and of the KV cache, read */
    double ms;
} fv_op_time;

typedef void fv_op_time_fn(void *user, const fv_op_time *op);

typedef struct fv_watch {
    const fv_callbacks *callbacks; /* NULL: none */
    fv_tap_fn *tap;                /* NULL: none */
    void *tap_user;
    bool all_logits;      /* the tap also wants the logits of every row of a prompt: a head a row */
    fv_op_time_fn *timed; /* NULL: nobody takes the time of operations */
    void *timed_user;
} fv_watch;

/* FV_ERR_CANCELLED when the caller wants to stop. */
fv_status fv_watch_step(const fv_watch *w, const char *stage, double done, fv_error *err);

/* Somebody wants the values. */
static inline bool fv_watch_taps(const fv_watch *w) { return w->tap != NULL; }

/* Each gives a value to the tap where there is one; FV_ERR_CANCELLED when it wants to stop. */

fv_status fv_watch_rows(const fv_watch *w, const char *name, const float *x, size_t rows,
                        size_t cols, fv_error *err);
/* A map [height * width, channels]; the tap sees [channels, height, width], as the reference. */
fv_status fv_watch_map(const fv_watch *w, const char *name, const float *x, size_t height,
                       size_t width, size_t channels, fv_error *err);
/* Bytes, as f32. */
fv_status fv_watch_bytes(const fv_watch *w, const char *name, const uint8_t *x, const size_t *shape,
                         int n_dims, fv_error *err);

#endif
