/* graph_ranges: what every activation of a graph is like over a calibration set: its range, those
 * of its channels, a histogram; and rows of what goes into layers.
 *
 *     fv_ranges_new(&r, graph, &options, err);
 *     for each image: fv_ranges_run(r, ops, &io, err);
 *     fv_ranges_of_weight(r, &block->ffn.fc1)         of what a layer reads
 *     fv_ranges_find(r, "vision.network.7.0.token_mixer.attention.scores")
 *
 * Values are graph_run's, so those of the engine in f32. */
#ifndef FV_GRAPH_RANGES_H
#define FV_GRAPH_RANGES_H

#include "graph/graph_run.h"

enum { FV_RANGE_BINS = 2048 };

typedef struct fv_ranges_options {
    size_t n_runs;      /* how many there will be; over them sampled rows are spread */
    size_t sample_rows; /* kept of everything that a layer with weights or a GELU reads; 0: none */
    bool histograms;
    bool inner; /* attention's scores and weights, too */
} fv_ranges_options;

typedef struct fv_value_range {
    const fv_value *value;
    uint64_t n;        /* elements seen; 0: none, then nothing below holds */
    float min, max;    /* of all elements */
    float *low, *high; /* [n_channels] of each entry of the last dimension */
    size_t n_channels;
    uint64_t *bins; /* [FV_RANGE_BINS] elements in equal parts of [-reach, reach); or NULL */
    float reach;    /* a power of two */
    float *rows;    /* [n_rows, n_channels] drawn from all runs; NULL when no such node reads it */
    size_t n_rows;
} fv_value_range;

typedef struct fv_ranges fv_ranges;

/* g outlives *out. */
fv_status fv_ranges_new(fv_ranges **out, const fv_graph *g, const fv_ranges_options *options,
                        fv_error *err);
void fv_ranges_free(fv_ranges *r); /* NULL is fine */

/* Runs the graph once more; the outputs that io asks for are filled as by fv_graph_run. Fails on
 * values that are NaN or infinite, by name. */
fv_status fv_ranges_run(fv_ranges *r, fv_ops *ops, const fv_graph_io *io, fv_error *err);

/* By value, by name or alias, by the weight (fv_mat or fv_dw) that reads it or that makes it; NULL:
 * none. */
const fv_value_range *fv_ranges_of(const fv_ranges *r, const fv_value *v);
const fv_value_range *fv_ranges_find(const fv_ranges *r, const char *name);
const fv_value_range *fv_ranges_of_weight(const fv_ranges *r, const void *weight);
const fv_value_range *fv_ranges_of_result(const fv_ranges *r, const void *weight);

/* Ends of the range that leaves out at most this share of the elements at each side, to a bin of
 * the histogram; share 0: min and max. */
void fv_value_range_percentile(const fv_value_range *r, double share, float *low, float *high);
/* The share of the elements outside [low, high], to a bin: what such a range would clip of them. */
double fv_value_range_outside(const fv_value_range *r, float low, float high);

#endif
