/* compensate: a matrix rounded with its inputs in view: GPTQ's method [arXiv 2210.17323], in the
 * form of error feedback [QuIP, arXiv 2307.13304].
 *
 * Over inputs x the outputs of a row w rounded to v are off by (w - v) H (w - v)^T in square, H =
 * sum x x^T. With H = R R^T, R upper triangular, that is the sum over columns l of
 *
 *     R[l][l]^2 (w[l] + sum_{i < l} (w[i] - v[i]) R[i][l] / R[l][l] - v[l])^2
 *
 * so rounding from the first column to the last, each to the nearest of w[l] plus its share of the
 * errors before, leaves of each term only what this one rounding costs. R[l][l]^2 is what an error
 * in column l costs: the search for a scale weighs with it. Deterministic. */
#ifndef FV_COMPENSATE_H
#define FV_COMPENSATE_H

#include "base/base.h"
#include "base/types.h"
#include "kernels/kernels.h"

enum {
    FV_COMPENSATED_ROWS = 64,
    FV_COMPENSATED_COLUMNS = FV_BLOCK, /* rounded one by one before the others hear of it */
    /* Columns of one H: 4 MB, and Cholesky's cube stays small. Wider inputs (4864 in the 0.5B
     * model's MLP) are cut into independent groups. */
    FV_INPUTS_MOST = 1024
};

#define FV_DAMPING \
    0.01 /* of H's mean diagonal, added to the diagonal: columns that never had an input stay put */

/* What comes into a group of a matrix's columns. */
typedef struct fv_inputs {
    size_t n;
    /* [n, n] in: H, both halves; factored: R[i][l] / R[l][l] above the diagonal, mirrored below */
    float *h;
    float *importance; /* [n] factored: R[l][l]^2, their mean 1 */
} fv_inputs;

/* What comes into all columns, in groups that know nothing of each other. */
typedef struct fv_input_groups {
    size_t k, width, n; /* columns; of a group (the last may have fewer); groups */
    float *h;           /* [k, width]: a square for each group */
    float *importance;  /* [k] */
} fv_input_groups;

/* k, width and n for k columns. A group is a multiple of FV_BLOCK wide where k is. */
fv_input_groups fv_input_groups_of(size_t k);
fv_inputs fv_input_group(const fv_input_groups *all, size_t g);

/* false when H holds NaN or infinity on its diagonal. */
bool fv_inputs_factor(fv_inputs *in, const fv_kernels *k);

/* The columns of a row that are rounded next. */
typedef struct fv_round_columns {
    size_t row, at, n;       /* columns at .. at + n of the group, n <= FV_COMPENSATED_COLUMNS */
    const float *w;          /* [n] as they were */
    const float *x;          /* [n] with their shares of the errors before */
    const float *importance; /* [n] */
    const float *share;      /* of column i's error, share[i ld + l] is column l's, l > i */
    size_t ld;
} fv_round_columns;

/* Rounds them to v by whatever grid it has; off: [n] w - v. */
typedef void fv_round_fn(void *user, const fv_round_columns *c, float *off);

/* For a grid of multiples of scale, lo <= q <= hi: rounds one after the other, each error handed on
 * to the columns behind it. Returns what it costs; infinity, and q and off are not finished, once
 * that is `most`. */
double fv_round_in_order(const fv_round_columns *c, float scale, float lo, float hi, double most,
                         float q[FV_COMPENSATED_COLUMNS], float off[FV_COMPENSATED_COLUMNS]);

/* Has rows <= FV_COMPENSATED_ROWS rows of in->n finite weights w, ld apart, rounded by fn, from the
 * first column to the last. scratch: fv_compensated_scratch bytes, 64-byte aligned. */
size_t fv_compensated_scratch(const fv_kernels *k, size_t n);
void fv_compensate(const fv_inputs *in, const float *w, size_t ld, size_t rows, fv_round_fn *fn,
                   void *user, const fv_kernels *k, void *scratch);

#endif
