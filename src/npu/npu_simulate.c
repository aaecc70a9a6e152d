/* Weights and values rounded to 8 bits. See npu_simulate.h. */
#include "npu/npu_simulate.h"

#include <math.h>
#include <string.h>

#include "npu/npu_weights.h"

typedef struct rounder {
    fv_npu_rounded *out;
    const fv_kernels *k;
    fv_error *err;
} rounder;

/* Columns of w [rows, n] as what their 8 bits stand for. */
static fv_status columns_round(float *w, size_t rows, size_t n, fv_error *err)
{
    int8_t *w8 = fv_alloc(rows * n, 1);
    float *scale = fv_alloc(n, sizeof *scale);
    if (w8 && scale) {
        fv_npu_quantize(w, rows, n, NULL, 1, w8, scale);
        for (size_t i = 0; i < rows * n; i++)
            w[i] = w8[i] * scale[i % n];
    }
    fv_status status = w8 && scale ? FV_OK : fv_fail_memory(err, rows * n, "rounded weights");
    fv_free(w8);
    fv_free(scale);
    return status;
}

static fv_status mat_round(rounder *r, fv_mat *m)
{
    float *columns = fv_alloc(m->n * m->k, sizeof *columns);
    float *w = fv_region_take(&r->out->memory, m->n * m->k, sizeof *w),
          *bias = fv_region_take(&r->out->memory, m->n, sizeof *bias);
    fv_status status = columns && w && bias
                           ? fv_npu_columns(columns, bias, m, 0, m->n, NULL, 1, r->k, r->err)
                           : fv_fail_memory(r->err, m->n * m->k * sizeof *w, "rounded weights");
    if (status == FV_OK)
        status = columns_round(columns, m->k, m->n, r->err);
    for (size_t i = 0; status == FV_OK && i < m->k; i++)
        for (size_t o = 0; o < m->n; o++)
            w[o * m->k + i] = columns[i * m->n + o];
    fv_free(columns);
    *m = (fv_mat){ .data = w, .type = FV_TYPE_F32, .n = m->n, .k = m->k, .bias = bias };
    return status;
}

static fv_status dw_round(rounder *r, fv_dw *d)
{
    size_t n = d->channels * d->mult, taps = (size_t)d->kernel * d->kernel;
    float *w = fv_region_take(&r->out->memory, taps * n, sizeof *w);
    if (!w)
        return fv_fail_memory(r->err, taps * n * sizeof *w, "rounded weights");
    fv_graph_dw_taps(d, w);
    *d = (fv_dw){
        .w = w, .bias = d->bias, .channels = d->channels, .mult = d->mult, .kernel = d->kernel
    };
    return columns_round(w, taps, n, r->err);
}

/* fv_weight_fn */
static fv_status weight_round(void *user, const fv_weight *t, fv_error *err)
{
    rounder *r = user;
    (void)err;
    return fv_weight_is_depthwise(t) ? dw_round(r, t->slot)
           : fv_weight_is_matrix(t)  ? mat_round(r, t->slot)
                                     : FV_OK;
}

fv_status fv_npu_round(fv_npu_rounded *out, const fv_weights *w, const fv_config *c,
                       const fv_kernels *k, fv_error *err)
{
    rounder r = { out, k, err };
    *out = (fv_npu_rounded){ 0 };
    FV_TRY(fv_weights_share_vision(&out->w, w, c, err));
    fv_status status = fv_weights_walk(&out->w, c, weight_round, &r, err);
    if (status != FV_OK)
        fv_npu_rounded_free(out);
    return status;
}

void fv_npu_rounded_free(fv_npu_rounded *r)
{
    fv_weights_free(&r->w);
    fv_region_free(&r->memory);
    *r = (fv_npu_rounded){ 0 };
}

void fv_npu_round_values(float *x, size_t n, fv_qnn_encoding e)
{
    float back = 1 / e.scale, low = (float)e.offset, high = low + 255;
    for (size_t i = 0; i < n; i++)
        x[i] = fmaxf(low, fminf(high, rintf(x[i] * back))) * e.scale;
}

/* ---- a plan at work ---------------------------------------------------------------------- */

/* Takes from a layer's result what corrected biases take. */
static void value_correct(const fv_npu_simulation *s, const fv_value *v, float *x)
{
    const fv_npu_plan *p = s->plan;
    const fv_node *layer = p->g->value[v->index]->from;
    if (!fv_node_weight(layer))
        return;
    const float *seen = fv_npu_plan_read_as(p, layer);
    const fv_npu_value_means *m = &p->mean[layer->in[0]->index];
    int as = seen == m->exact ? FV_NPU_EXACT : seen == m->narrow ? FV_NPU_ROUNDED : FV_NPU_MADE;
    const float *off = s->corrections[v->index].by[s->weights_rounded][as];
    for (size_t i = 0, n = fv_value_cols(v); off && i < fv_value_elems(v); i++)
        x[i] -= off[i % n];
}

/* q, k and v have encodings of their own; q is scaled first. */
static void parts_round(const fv_npu_plan *p, const fv_value *qkv, float *x)
{
    size_t c = fv_value_cols(qkv) / 3;
    double width = (double)qkv->last_use->self_attention.width;
    for (size_t i = 0; i < 3 * fv_value_rows(qkv); i++) {
        fv_qnn_encoding e = p->part[qkv->index][i % 3].u8;
        e.scale *= i % 3 ? 1 : (float)sqrt(width);
        fv_npu_round_values(x + i * c, c, e);
    }
}

/* fv_graph_observer.change */
static void value_round(void *user, const fv_value *v, float *x)
{
    const fv_npu_simulation *s = user;
    const fv_npu_plan *p = s->plan;
    value_correct(s, v, x);
    if (p->width[v->from->out->index] !=
        FV_NPU_NARROW) /* attention's inner values: as its result */
        return;
    if (v->last_use && v->last_use->op == FV_OP_SELF_ATTENTION)
        parts_round(p, v, x);
    else
        fv_npu_round_values(x, fv_value_elems(v), p->of[v->index].u8);
}

/* fv_graph_observer.inside */
static bool attention_is_narrow(void *user, const fv_node *n)
{
    const fv_npu_simulation *s = user;
    return s->plan->width[n->out->index] == FV_NPU_NARROW;
}

/* fv_graph_observer.read: what is wide but for this layer */
static void read_round(void *user, const fv_node *n, float *x)
{
    const fv_npu_simulation *s = user;
    const fv_npu_plan *p = s->plan;
    const fv_value *v = n->in[0];
    if (p->width[n->out->index] == FV_NPU_NARROW && p->width[v->index] == FV_NPU_WIDE)
        fv_npu_round_values(x, fv_value_elems(v), p->of[v->index].u8);
}

static fv_status image_run(fv_npu_simulation *s, bool round_weights, const float *pixels,
                           float *tokens, const fv_graph_observer *o, fv_error *err)
{
    const fv_graph *g = &s->graph[round_weights];
    fv_run_input in = { g->input[0]->name, pixels };
    fv_run_output out = { g->output[0]->output, tokens };
    return fv_graph_run(g, s->ops, &(fv_graph_io){ &in, 1, &out, 1 }, o, err);
}

fv_status fv_npu_simulation_run(fv_npu_simulation *s, const float *pixels, float *tokens,
                                bool round_weights, fv_error *err)
{
    fv_graph_observer o = {
        .user = s, .change = value_round, .inside = attention_is_narrow, .read = read_round
    };
    s->weights_rounded = round_weights;
    return image_run(s, round_weights, pixels, tokens, &o, err);
}

fv_status fv_npu_simulation_exact(fv_npu_simulation *s, const float *pixels, float *tokens,
                                  fv_error *err)
{
    return image_run(s, false, pixels, tokens, NULL, err);
}

/* What a layer's weights make of a mean input, less what it should be. */
static fv_status correction_make(fv_npu_simulation *s, float **out, const fv_node *layer,
                                 const float *mean, const float *exact, fv_error *err)
{
    size_t n = fv_value_cols(layer->out);
    if (!(*out = fv_region_take(&s->region, n, sizeof **out)))
        return fv_fail_memory(err, n * sizeof **out, "corrections");
    FV_TRY(fv_npu_layer_apply(layer, mean, *out, NULL, s->k, err));
    for (size_t i = 0; i < n; i++)
        (*out)[i] -= exact[i];
    return FV_OK;
}

fv_status fv_npu_simulation_learn(fv_npu_simulation *s, fv_error *err)
{
    const fv_graph *g = &s->graph[false];
    fv_region_free(&s->region);
    memset(s->corrections, 0, g->n_values * sizeof *s->corrections);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const fv_node *layer = g->node[i];
        const fv_value *v = layer->out;
        if (!fv_node_weight(layer) || !s->plan->mean[layer->in[0]->index].exact)
            continue;
        const fv_npu_value_means *m = &s->plan->mean[layer->in[0]->index];
        const float *mean[FV_NPU_READ_AS] = { m->exact, m->narrow, m->made };
        float *exact = fv_region_take(&s->region, fv_value_cols(v), sizeof *exact);
        if (!exact)
            return fv_fail_memory(err, fv_value_cols(v) * sizeof *exact, "corrections");
        FV_TRY(fv_npu_layer_apply(layer, m->exact, exact, NULL, s->k, err));
        for (int rounded = 0; rounded < 2; rounded++)
            for (int as = 0; as < FV_NPU_READ_AS; as++)
                FV_TRY(correction_make(s, &s->corrections[v->index].by[rounded][as],
                                       s->graph[rounded].node[i], mean[as], exact, err));
    }
    return FV_OK;
}

static void graphs_end(fv_npu_simulation *s)
{
    for (int rounded = 0; rounded < 2; rounded++)
        fv_graph_end(&s->graph[rounded]);
}

fv_status fv_npu_simulation_resize(fv_npu_simulation *s, int image_size, fv_error *err)
{
    const fv_graph_spec spec = { .image_size = image_size };
    if (s->image_size == image_size)
        return FV_OK;
    graphs_end(s);
    s->image_size = 0;
    for (int rounded = 0; rounded < 2; rounded++) {
        fv_graph *g = &s->graph[rounded];
        fv_graph_begin(g, rounded ? "rounded" : "exact", err);
        fv_graph_vision(g, s->c, rounded ? &s->rounded.w.vision : &s->w->vision, &spec);
        FV_TRY(fv_graph_status(g));
    }
    s->image_size = image_size;
    return fv_npu_simulation_learn(s, err);
}

static fv_status simulation_make(fv_npu_simulation *s, fv_error *err)
{
    const fv_graph *g = s->plan->g;
    s->corrections = fv_alloc_zero(g->n_values, sizeof *s->corrections);
    if (!s->corrections)
        return fv_fail_memory(err, g->n_values * sizeof *s->corrections, "corrections");
    FV_TRY(fv_npu_round(&s->rounded, s->w, s->c, s->k, err));
    return fv_npu_simulation_resize(s, (int)g->input[0]->dim[1].n, err);
}

fv_status fv_npu_simulation_open(fv_npu_simulation *out, const fv_npu_plan *plan,
                                 const fv_weights *w, const fv_config *c, fv_ops *ops,
                                 const fv_kernels *k, fv_error *err)
{
    *out = (fv_npu_simulation){ .plan = plan, .w = w, .c = c, .ops = ops, .k = k };
    fv_status status = simulation_make(out, err);
    if (status != FV_OK)
        fv_npu_simulation_close(out);
    return status;
}

void fv_npu_simulation_close(fv_npu_simulation *s)
{
    graphs_end(s);
    fv_npu_rounded_free(&s->rounded);
    fv_free(s->corrections);
    fv_region_free(&s->region);
    *s = (fv_npu_simulation){ 0 };
}
