/* npu_equalize: the same encoder with its channels evened out, for 8 bits.
 *
 * Between two linear layers a channel may be divided by any number in front, if its weights behind
 * are multiplied with it: the model stays the same. So a channel with large values need not cost
 * the others their steps, nor a column of large weights the rest of its row. [SmoothQuant, arXiv
 * 2211.10438]
 *
 *     FFN         7x7 depthwise         -> fc1
 *     attention   LayerNorm's weights   -> qkv
 *                 v of qkv              -> proj
 *     stage of RepMixer blocks: its whole stream
 */
#ifndef FV_NPU_EQUALIZE_H
#define FV_NPU_EQUALIZE_H

#include "base/region.h"
#include "graph/graph_ranges.h"

typedef struct fv_npu_even {
    fv_weights w; /* the encoder's alone */
    fv_region memory;
} fv_npu_even;

/* ranges: of the graph of w. w outlives *out. */
fv_status fv_npu_equalize(fv_npu_even *out, const fv_weights *w, const fv_config *c,
                          const fv_ranges *ranges, const fv_kernels *k, fv_error *err);
void fv_npu_even_free(fv_npu_even *e); /* zero is fine */

#endif
