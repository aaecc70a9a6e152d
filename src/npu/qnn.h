/* qnn: one of Qualcomm's backend libraries at work: a context with graphs, built and compiled, or
 * read from a context binary, and executed.
 *
 *     fv_qnn_open -> fv_qnn_graph_begin, _tensor, _node ..., _finalize -> fv_qnn_binary
 *     fv_qnn_open -> fv_qnn_load                                       -> fv_qnn_execute
 *
 * Only in a child process (qnn_child.h): the library prints on both standard streams, cannot be
 * interrupted and may end its process. One fv_qnn at a time, for the library's log has no place for
 * a pointer of ours. What the library said last about an error goes into the message; everything
 * it says goes to standard error, for the parent to collect. */
#ifndef FV_QNN_H
#define FV_QNN_H

#include "base/base.h"
#include "npu/qnn_find.h"
#include "npu/qnn_types.h"

typedef struct fv_qnn fv_qnn;

#define FV_QNN_HTP_LIBRARY "libQnnHtp.so"
#define FV_QNN_CPU_LIBRARY "libQnnCpu.so"

/* soc_model: Qualcomm's number of the SoC, 69 for SM8750; 0 for the CPU. FV_ERR_UNSUPPORTED with
 * what was found and expected when the interface is not the one of qnn_abi.h. */
fv_status fv_qnn_open(fv_qnn **out, const char *dir, const char *library, unsigned soc_model,
                      fv_error *err);
void fv_qnn_close(fv_qnn *q); /* NULL is fine */

bool fv_qnn_is_htp(const fv_qnn *q);
const char *fv_qnn_build(const fv_qnn *q); /* "v2.51.0.260929181845" */

/* ---- building ---- */

/* Graphs of the context to come hold equal weights once (HTP). */
void fv_qnn_share_weights(fv_qnn *q);
/* Begins a graph; several may follow one another in one context. f16: f32 tensors are computed with
 * in f16 (HTP). */
fv_status fv_qnn_graph_begin(fv_qnn *q, const char *name, bool f16, fv_error *err);
/* Creates the tensor in the current graph and writes its id. Data of a static one, names and
 * dimensions must stay until the graph is finalized. */
fv_status fv_qnn_tensor_create(fv_qnn *q, fv_qnn_tensor *t, fv_error *err);
/* Checked by the library first, whose refusal lists the types that it would take. */
fv_status fv_qnn_node_add(fv_qnn *q, const fv_qnn_op *op, fv_error *err);
fv_status fv_qnn_finalize(fv_qnn *q, fv_error *err);
/* The context as bytes to fv_free. */
fv_status fv_qnn_binary(fv_qnn *q, void **data, size_t *n_bytes, fv_error *err);

/* ---- running ---- */

/* The context of a binary, with the graph of that name as the current one; in place of building. */
fv_status fv_qnn_load(fv_qnn *q, const void *data, size_t n_bytes, const char *graph,
                      fv_error *err);
/* Another graph of the context becomes the current one. */
fv_status fv_qnn_switch(fv_qnn *q, const char *graph, fv_error *err);
/* The current graph: tensors as they were created or read, with their buffers. */
fv_status fv_qnn_execute(fv_qnn *q, const fv_qnn_tensor *in, size_t n_in, fv_qnn_tensor *out,
                         size_t n_out, fv_error *err);

#endif
