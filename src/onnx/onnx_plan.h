/* onnx_plan: the graphs that an export writes: their files' names and what they are like. */
#ifndef FV_ONNX_PLAN_H
#define FV_ONNX_PLAN_H

#include "fastvlm_tools.h"
#include "graph/graph.h"

enum { FV_ONNX_PARTS = 3, FV_ONNX_FILE_NAME = 64 };

typedef struct fv_onnx_file {
    unsigned part;                /* FV_ONNX_VISION, _EMBED or _DECODER */
    char name[FV_ONNX_FILE_NAME]; /* the graph's; NAME.onnx is the file */
} fv_onnx_file;

typedef struct fv_onnx_plan {
    fv_onnx_options s;  /* with every default filled in */
    const char *folder; /* below the export's own; "": there */
    fv_graph_spec spec;
    fv_onnx_file file[FV_ONNX_PARTS];
    size_t n_files;
} fv_onnx_plan;

/* What needs no model; options may be NULL. Fails on values out of range. */
fv_status fv_onnx_plan_begin(fv_onnx_plan *p, const fv_onnx_options *options, fv_error *err);
/* The rest. n_tokens and image_token are the tokenizer's; they leave the signatures as they are. */
void fv_onnx_plan_end(fv_onnx_plan *p, const fv_config *c, int n_tokens, int image_token);
/* Builds the graph of one part; w outlives it. What fails is g's status. */
void fv_onnx_plan_graph(const fv_onnx_plan *p, fv_graph *g, unsigned part, const fv_config *c,
                        const fv_weights *w);

/* A value's dimensions in the order in which ONNX files have them: maps channels-first. */
void fv_onnx_dims(const fv_value *v, fv_dim out[FV_GRAPH_DIMS]);

#endif
