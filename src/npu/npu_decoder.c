/* From a model to the plans of its decoder's two graphs. See npu_decoder.h. */
#include "npu/npu_decoder.h"

#include <math.h>
#include <string.h>

#include "base/report.h"
#include "pack/answers.h"

static fv_status decoder_graph_make(fv_npu_decoder *d, size_t i, int cache_len, fv_error *err)
{
    const fv_graph_spec spec = { .cache = FV_CACHE_HOST,
                                 .step_len = i ? FV_NPU_CHUNK : FV_NPU_STEP,
                                 .cache_len = cache_len,
                                 .cache_only = i > 0 };
    fv_graph_begin(&d->graph[i], i ? FV_NPU_CHUNK_GRAPH : FV_NPU_STEP_GRAPH, err);
    fv_graph_decoder(&d->graph[i], &d->model.config, &d->model.weights.decoder, &spec);
    return fv_graph_status(&d->graph[i]);
}

fv_status fv_npu_decoder_open(fv_npu_decoder *d, const char *model, int cache_len,
                              const fv_callbacks *callbacks, fv_error *err)
{
    const fv_model_options options = { .depth = FV_MODEL_STORED, .callbacks = callbacks };
    *d = (fv_npu_decoder){ 0 };
    fv_status status = fv_model_open(&d->model, model, &options, err);
    for (size_t i = 0; i < 2 && status == FV_OK; i++)
        status = decoder_graph_make(d, i, cache_len ? cache_len : FV_NPU_CACHE, err);
    if (status != FV_OK)
        fv_npu_decoder_close(d);
    return status;
}

void fv_npu_decoder_close(fv_npu_decoder *d)
{
    for (size_t i = 0; i < 2; i++) {
        fv_npu_plan_free(&d->plan[i]);
        fv_graph_end(&d->graph[i]);
    }
    fv_model_close(&d->model);
    *d = (fv_npu_decoder){ 0 };
}

/* ---- ranges ------------------------------------------------------------------------------ */

/* A conversation's rows through the graph without a cache. All runs have as many rows as the
 * longest: behind a shorter one's last row come copies of it, in its place, which show nothing
 * new. */
typedef struct range_rows {
    fv_graph graph;
    fv_ops ops;
    fv_ranges *ranges;
    float *x;           /* [n, d_model] */
    int64_t *positions; /* [n] */
    size_t n;
} range_rows;

static fv_status range_rows_run(range_rows *r, const fv_answer_rows *rows, size_t d, fv_error *err)
{
    for (size_t i = 0; i < r->n; i++) {
        size_t from = FV_MIN(i, rows->n - 1);
        memcpy(r->x + i * d, rows->x + from * d, d * sizeof *r->x);
        r->positions[i] = (int64_t)from;
    }
    const fv_run_input in[] = { { "inputs_embeds", r->x }, { "position_ids", r->positions } };
    return fv_ranges_run(r->ranges, &r->ops, &(fv_graph_io){ in, FV_COUNT(in), NULL, 0 }, err);
}

static fv_status range_rows_make(range_rows *r, fv_npu_decoder *d, const fv_answers *a,
                                 const fv_callbacks *callbacks, fv_error *err)
{
    const fv_graph_spec spec = { .cache = FV_CACHE_NONE, .step_len = (int)a->longest };
    const fv_ranges_options o = { .n_runs = a->n, .inner = true };
    size_t width = (size_t)d->model.config.d_model;
    r->n = a->longest;
    fv_graph_decoder(&r->graph, &d->model.config, &d->model.weights.decoder, &spec);
    FV_TRY(fv_graph_status(&r->graph));
    FV_TRY(fv_ops_init(&r->ops, &d->model.kernels, d->model.pool, err));
    FV_TRY(fv_ranges_new(&r->ranges, &r->graph, &o, err));
    r->x = fv_alloc(r->n * width, sizeof *r->x);
    r->positions = fv_alloc(r->n, sizeof *r->positions);
    if (!r->x || !r->positions)
        return fv_fail_memory(err, r->n * width * sizeof *r->x, "rows for calibration");
    for (size_t i = 0; i < a->n; i++) {
        FV_TRY(fv_progress(callbacks, "calibrate", (double)i / (double)a->n, err));
        FV_TRY(range_rows_run(r, &a->list[i], width, err));
    }
    return FV_OK;
}

static void range_rows_free(range_rows *r)
{
    fv_ranges_free(r->ranges);
    fv_ops_free(&r->ops);
    fv_graph_end(&r->graph);
    fv_free(r->x);
    fv_free(r->positions);
}

/* ---- encodings, all in 16 bits ----------------------------------------------------------- */

/* Other conversations reach further than those of the calibration set; 16 bits can afford it. */
#define MARGIN 2.0f

static float range_reach(const fv_value_range *r) { return fmaxf(-r->min, r->max); }

static fv_qnn_encoding value_encode(const fv_value *v, const fv_value_range *r)
{
    const fv_node *n = v->from;
    switch (n->op) {
    case FV_OP_COS:
    case FV_OP_SIN: return fv_npu_encode_range(-1, 1, 65535);
    case FV_OP_CONSTANT: return fv_npu_encode_range(r->min, r->max, 65535);
    case FV_OP_ATTENTION:
        if (v == n->attention.weights)
            return fv_npu_encode_range(0, 1, 65535);
        if (v == n->out) /* a convolution reads a product, see npu_plan.c */
            return fv_npu_encode_middle(MARGIN * range_reach(r));
        break;
    default: break;
    }
    return fv_npu_encode_range(MARGIN * r->min, MARGIN * r->max, 65535);
}

/* What a value that only moved was before, the newest rows where there are others. */
static const fv_value *value_root(const fv_value *v)
{
    while (fv_op_moves(v->from->op))
        v = v->from->in[v->from->op == FV_OP_CONCAT ? 1 : 0];
    return v;
}

/* The encoding of v and of all that it consists of. */
static void value_join(fv_npu_plan *p, const fv_value *v, fv_qnn_encoding e)
{
    p->of[v->index].u16 = e;
    for (size_t i = 0; i < v->from->n_in && fv_op_moves(v->from->op); i++)
        value_join(p, v->from->in[i], e);
}

/* Keys and values, old and new ones alike: a product in 16 bits wants 0 in the middle of its second
 * operand. */
static void cache_join(fv_npu_plan *p, const fv_ranges *ranges, const fv_value *v)
{
    const fv_value_range *r = fv_ranges_find(ranges, value_root(v)->name);
    value_join(p, v, fv_npu_encode_middle(MARGIN * range_reach(r)));
}

/* The bias takes a score below all others of any layer. */
static fv_qnn_encoding bias_encode(const fv_npu_plan *p)
{
    float most = 0;
    for (size_t i = 0; i < p->g->n_nodes; i++)
        if (p->g->node[i]->op == FV_OP_ATTENTION)
            most = fmaxf(most, p->of[p->g->node[i]->attention.scores->index].u16.scale * 65535);
    return fv_npu_encode_range(-(most + FV_NPU_ABSENT), 0, 65535);
}

static fv_status decoder_encode(fv_npu_plan *p, const fv_ranges *ranges, fv_error *err)
{
    const fv_graph *g = p->g;
    if (!(p->of = fv_alloc_zero(g->n_values, sizeof *p->of)))
        return fv_fail_memory(err, g->n_values * sizeof *p->of, "encodings");
    for (size_t i = 0; i < g->n_values; i++) {
        const fv_value *v = g->value[i];
        const fv_value_range *r = fv_ranges_find(ranges, v->name);
        p->width[i] = FV_NPU_WIDE;
        if (fv_op_moves(v->from->op))
            p->of[i] = p->of[v->from->in[0]->index];
        else if (r && r->n)
            p->of[i].u16 = value_encode(v, r);
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const fv_node *n = g->node[i];
        for (size_t k = 1; n->op == FV_OP_ATTENTION && k < 3; k++)
            cache_join(p, ranges, n->in[k]);
        if (n->op == FV_OP_MASK)
            p->of[n->out->index].u16 = bias_encode(p);
    }
    for (size_t i = 0; i < g->n_outputs; i++)
        if (strcmp(g->output[i]->output, "logits") != 0)
            cache_join(p, ranges, g->output[i]);
    return FV_OK;
}

/* ---- plans ------------------------------------------------------------------------------- */

static fv_status wide_plans(fv_npu_decoder *d, const fv_answers *a, const fv_callbacks *callbacks,
                            fv_error *err)
{
    range_rows r = { 0 };
    fv_graph_begin(&r.graph, "decoder", err);
    fv_status status = range_rows_make(&r, d, a, callbacks, err);
    for (size_t i = 0; i < 2 && status == FV_OK; i++)
        status = decoder_encode(&d->plan[i], r.ranges, err);
    range_rows_free(&r);
    return status;
}

fv_status fv_npu_decoder_plan(fv_npu_decoder *d, fv_npu_precision precision,
                              const fv_calibrate_options *calibrate, fv_error *err)
{
    const fv_model *m = &d->model;
    fv_answers answers;
    for (size_t i = 0; i < 2; i++)
        FV_TRY(fv_npu_plan_make(&d->plan[i], &d->graph[i], NULL, FV_NPU_F16, NULL, err));
    if (precision == FV_NPU_F16)
        return FV_OK;
    fv_status status = fv_answers_collect(&answers, &m->config, &m->weights, m->tokenizer,
                                          &m->kernels, m->pool, calibrate, err);
    if (status == FV_OK)
        status = wide_plans(d, &answers, calibrate->callbacks, err);
    d->seen = answers.seen;
    d->n_rows = answers.n_rows;
    fv_answers_free(&answers);
    return status;
}
