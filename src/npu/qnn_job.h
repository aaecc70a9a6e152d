/* qnn_job: graphs compiled or a context binary loaded, and inputs run through it, in a child
 * process.
 *
 *     plans  -> compile -> context binary -> file          (fv_qnn_job.binary_path)
 *     plan or binary    -> run, once for every input       (fv_qnn_job.n_runs)
 */
#ifndef FV_QNN_JOB_H
#define FV_QNN_JOB_H

#include "npu/qnn_backend.h"

/* What a context binary's graph takes and gives, as a job needs it to run it. */
typedef struct fv_qnn_signature {
    const char *graph;
    fv_qnn_tensor in, out; /* names, dimensions, types and encodings; ids of the binary */
} fv_qnn_signature;

typedef struct fv_qnn_job {
    const char *dir, *library;
    unsigned soc_model;
    const char *title; /* in messages */
    const char *stage; /* of progress */
    const fv_callbacks *callbacks;

    /* either graphs that are compiled into one context ... */
    const fv_npu_plan *const *plans;
    size_t n_plans;
    const fv_kernels *kernels;
    fv_qnn_model_options model;
    bool share_weights;      /* between the graphs, on the HTP */
    const char *binary_path; /* where the context binary is written; NULL: nowhere */

    /* ... or a binary that is loaded */
    const void *binary;
    size_t n_binary_bytes;
    const fv_qnn_signature *signature;

    /* Runs of the first graph: f32 of its inputs, one after the other, run after run. */
    const float *input;
    size_t n_runs;
} fv_qnn_job;

typedef struct fv_qnn_outcome {
    double build_ms, compile_ms, run_ms; /* of all runs */
    size_t n_nodes, n_tensors, n_converts, n_transposes, n_floats;
    uint64_t binary_bytes, peak_bytes;
    char library[64]; /* its build */
    float *values;    /* [n_runs, n_values] the outputs one after the other, to fv_free */
    size_t n_values;
} fv_qnn_outcome;

/* What the library says is logged as warnings when it fails. On failure *out is zero. */
fv_status fv_qnn_job_run(fv_qnn_outcome *out, const fv_qnn_job *job, fv_error *err);
void fv_qnn_outcome_free(fv_qnn_outcome *out);

/* ---- a graph that stays loaded, in a child that runs it whenever it is asked ---- */

typedef struct fv_qnn_loaded fv_qnn_loaded;

/* job: plans or a binary, no runs; stage is kept, of the rest the child has a copy. The numbers
 * that the graph takes and gives in a run: other ones are an error. */
fv_status fv_qnn_loaded_open(fv_qnn_loaded **out, const fv_qnn_job *job, size_t n_input,
                             size_t n_output, fv_error *err);
/* input [n_input] -> output [n_output]; *ms of the run, may be NULL. */
fv_status fv_qnn_loaded_run(fv_qnn_loaded *l, const float *input, float *output, double *ms,
                            const fv_callbacks *callbacks, fv_error *err);
/* Its child is gone: every further run fails. */
bool fv_qnn_loaded_ended(fv_qnn_loaded *l);
void fv_qnn_loaded_close(fv_qnn_loaded *l); /* NULL is fine */

#endif
