/* onnx_write: a graph -> NAME.onnx, with NAME.onnx_data beside it when it is too large for one
 * file. */
#ifndef FV_ONNX_WRITE_H
#define FV_ONNX_WRITE_H

#include "onnx/onnx_graph.h"
#include "model/model.h"

/* Into the folder dir, as NAME.onnx; what is said names shown, where the folder will be, instead.
 * external: weights always in NAME.onnx_data. *outside says whether they went there. */
fv_status fv_onnx_write(const fv_onnx_graph *g, const char *dir, const char *shown,
                        const char *name, bool external, const fv_kernels *kernels,
                        const fv_callbacks *callbacks, bool *outside, fv_error *err);

#endif
