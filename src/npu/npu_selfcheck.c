/* One layer through a library and through our own kernels. See npu_selfcheck.h. */
#include "npu/npu_selfcheck.h"

#include <math.h>

enum { SIDE = 192, CHANNELS = 32, KERNEL = 7, OUTPUTS = 2 * CHANNELS };

/* Relative: f16 gives 0.001, the fault 0.9. */
#define MOST_ERROR 0.01

typedef struct selfcheck {
    float x[SIDE * SIDE * CHANNELS], y[SIDE / 2 * SIDE / 2 * OUTPUTS];
    float w[KERNEL * KERNEL * OUTPUTS], bias[OUTPUTS];
} selfcheck;

static void noise_fill(float *x, size_t n, float scale, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = ((float)(seed >> 8) * 0x1p-24f - 0.5f) * 2 * scale;
    }
}

static double error_of(const float *want, const float *got, size_t n)
{
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)want[i] - (double)got[i];
        off += d * d;
        all += (double)want[i] * (double)want[i];
    }
    return sqrt(off / (all + 1e-300));
}

static void selfcheck_describe(fv_graph *g, const fv_dw *w, fv_error *err)
{
    const fv_dim dims[] = { FV_DIM(1), FV_DIM(SIDE), FV_DIM(SIDE), FV_DIM(CHANNELS) };
    fv_graph_begin(g, "selfcheck", err);
    fv_graph_scope(g, "selfcheck", "%s", "");
    fv_value *x = fv_graph_input(g, "x", FV_TYPE_F32, FV_FORM_MAP, dims, 4);
    fv_graph_output(g, fv_graph_depthwise(g, x, "conv", w, 2), "y");
}

static fv_status selfcheck_run(selfcheck *s, const fv_graph *g, const char *qnn_dir,
                               const fv_npu_soc_info *soc, fv_ops *ops,
                               const fv_callbacks *callbacks, fv_error *err)
{
    fv_run_input in = { "x", s->x };
    fv_run_output out = { "y", s->y };
    fv_npu_plan plan;
    fv_qnn_outcome made;
    FV_TRY(fv_graph_run(g, ops, &(fv_graph_io){ &in, 1, &out, 1 }, NULL, err));
    FV_TRY(fv_npu_plan_make(&plan, g, NULL, FV_NPU_F16, NULL, err));
    const fv_npu_plan *plans[] = { &plan };
    fv_qnn_job job = { .dir = qnn_dir,
                       .library = FV_QNN_HTP_LIBRARY,
                       .soc_model = soc->soc_model,
                       .title = "self-check",
                       .stage = "self-check",
                       .callbacks = callbacks,
                       .plans = plans,
                       .n_plans = 1,
                       .kernels = ops->k,
                       .model = { .f16 = true },
                       .input = s->x,
                       .n_runs = 1 };
    fv_status status = fv_qnn_job_run(&made, &job, err);
    fv_npu_plan_free(&plan);
    FV_TRY(status);
    double error = made.n_values == FV_COUNT(s->y) ? error_of(s->y, made.values, made.n_values)
                                                   : INFINITY;
    if (!(error <= MOST_ERROR))
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "QNN %s computes a grouped convolution wrongly for %s: relative error "
                         "%.3f, at most %g is expected; use another release",
                         made.library, soc->name, error, MOST_ERROR);
    fv_qnn_outcome_free(&made);
    return status;
}

fv_status fv_npu_selfcheck(const char *qnn_dir, const fv_npu_soc_info *soc, fv_ops *ops,
                           const fv_callbacks *callbacks, fv_error *err)
{
    selfcheck *s = fv_alloc(1, sizeof *s);
    fv_graph g;
    if (!s)
        return fv_fail_memory(err, sizeof *s, "the self-check");
    noise_fill(s->x, FV_COUNT(s->x), 1, 1);
    noise_fill(s->w, FV_COUNT(s->w), 0.2f, 2);
    noise_fill(s->bias, FV_COUNT(s->bias), 0.1f, 3);
    const fv_dw w = {
        .w = s->w, .bias = s->bias, .channels = CHANNELS, .mult = 2, .kernel = KERNEL
    };
    selfcheck_describe(&g, &w, err);
    fv_status status = fv_graph_status(&g);
    if (status == FV_OK)
        status = selfcheck_run(s, &g, qnn_dir, soc, ops, callbacks, err);
    fv_graph_end(&g);
    fv_free(s);
    return status;
}
