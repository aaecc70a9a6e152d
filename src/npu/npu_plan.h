/* npu_plan: in which type every value of a graph is on the NPU.
 *
 *     graph, ranges over a calibration set -> width of every node: 8, 16, or 32 bits for floats
 *                                          -> scale and offset of every value, in 8 and in 16 bits
 *
 * A node reads all its operands and writes its result in one width, as the NPU's convolutions
 * demand; where a value is read in another width than it was written in, the backend converts it.
 * Weights have 8 bits wherever activations have 8 or 16. */
#ifndef FV_NPU_PLAN_H
#define FV_NPU_PLAN_H

#include "fastvlm_npu.h"
#include "graph/graph_ranges.h"
#include "npu/npu_weights.h"
#include "npu/qnn_abi.h"

enum { FV_NPU_NARROW = 8, FV_NPU_WIDE = 16, FV_NPU_FLOAT = 32 };

/* A value in both widths. */
typedef struct fv_npu_formats {
    fv_qnn_encoding u8, u16;
} fv_npu_formats;

/* Channels' means over the calibration set: of the value, of it in 8 bits, of it in 8 bits made
 * from operands in 8 bits (a GELU). NULL: not known. */
typedef struct fv_npu_value_means {
    float *exact, *narrow, *made;
} fv_npu_value_means;

/* How a plan's 8 bits are fitted to the calibration set. What is best depends on the model: where
 * errors of layers in front hide a rounding error, correcting it only adds another one. */
typedef struct fv_npu_fit {
    double
        exponent;   /* of an error in the sum that a range makes least; 0: least to largest value */
    bool corrected; /* biases make up for what rounding adds to the mean of a layer's input */
} fv_npu_fit;

typedef struct fv_npu_plan {
    const fv_graph *g;
    fv_npu_fit fit;
    uint8_t *width;            /* by index of the value: of the node that makes it */
    fv_npu_formats *of;        /* by index of the value; NULL: a graph in floats */
    fv_npu_formats (*part)[3]; /* q, k, v in a value that self_attention reads */
    fv_npu_value_means *mean;  /* of what layers read, by index of the value; NULL: not known */
    size_t n_values;
} fv_npu_plan;

/* ranges: with histograms, inner values and sampled rows; NULL: a plan in floats. MIXED begins with
 * the multiplications in 8 bits, W8A16 and W8A8 have one width throughout. */
fv_status fv_npu_plan_make(fv_npu_plan *p, const fv_graph *g, const fv_ranges *ranges,
                           fv_npu_precision precision, const fv_kernels *k, fv_error *err);
void fv_npu_plan_free(fv_npu_plan *p); /* zero is fine */
/* Encodings and means of another fit; fv_npu_plan_make's is { 2, false }, of W8A16 { 0, false }.
 * Widths stay. */
fv_status fv_npu_plan_refit(fv_npu_plan *p, const fv_ranges *ranges, fv_npu_fit fit,
                            const fv_kernels *k, fv_error *err);

/* The means of what a layer reads, as its bias is corrected with them. */
fv_status fv_npu_plan_means(fv_npu_means *out, const fv_npu_plan *p, const fv_node *layer,
                            fv_error *err);
/* Of those, which of the plan's it reads as rounded. */
const float *fv_npu_plan_read_as(const fv_npu_plan *p, const fv_node *layer);

/* Multiply-accumulates of a node for one call; 0 where there are no products of matrices. */
double fv_npu_macs(const fv_node *n);
/* Of those of all nodes, the share in 8 bits by 8. */
double fv_npu_plan_share(const fv_npu_plan *p);

/* ---- encodings ---- */

/* What a decoder's row may not see gets a score so far below all others: a share of e^-16. */
#define FV_NPU_ABSENT 16.0f

/* The encoding of [low, high], widened to hold 0, in unsigned integers up to most. */
fv_qnn_encoding fv_npu_encode_range(float low, float high, unsigned most);
/* Of [-reach, reach] with 0 in the middle, as the second operand of a product in 16 bits has it. */
fv_qnn_encoding fv_npu_encode_middle(float reach);
/* In 16 bits what e is in 8: the same range, every value of it exactly. */
fv_qnn_encoding fv_npu_encode_widened(fv_qnn_encoding e);

#endif
