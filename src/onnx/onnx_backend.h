/* onnx_backend: a graph (graph/graph.h) -> an ONNX graph. */
#ifndef FV_ONNX_BACKEND_H
#define FV_ONNX_BACKEND_H

#include "graph/graph.h"
#include "onnx/onnx_graph.h"

/* Adds all of a part to g, which has been begun. What fails is also g's status. */
fv_status fv_onnx_lower(fv_onnx_graph *g, const fv_graph *part);

#endif
