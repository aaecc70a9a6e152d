/* Layers in 8 or 16 bits by measurement. See npu_mixed.h. */
#include "npu/npu_mixed.h"

#include <math.h>
#include <string.h>

#include "base/report.h"
#include "npu/npu_simulate.h"
#include "quant/cosine.h"

/* A layer and the GELU that alone reads it. */
typedef struct unit {
    size_t value, gelu; /* by index; gelu SIZE_MAX: none */
    double macs, loss;
    bool narrow;
} unit;

typedef struct chooser {
    fv_npu_vision *v;
    const float *pixels;
    size_t n;
    float *want, *got; /* tokens: of all images in f32; of one */
    unit *units;
    size_t n_units;
    fv_npu_rounded rounded;
    fv_graph graph; /* of the rounded weights */
    fv_error *err;
} chooser;

/* ---- simulation -------------------------------------------------------------------------- */

/* fv_graph_observer.change */
static void value_round(void *user, const fv_value *v, float *x)
{
    const chooser *c = user;
    if (c->v->plan.width[v->index] == FV_NPU_NARROW)
        fv_npu_round_values(x, fv_value_elems(v), c->v->plan.of[v->index].u8);
}

/* fv_graph_observer.read: what is wide but for this layer */
static void read_round(void *user, const fv_node *n, float *x)
{
    const chooser *c = user;
    const fv_npu_plan *p = &c->v->plan;
    const fv_value *v = n->in[0];
    if (p->width[n->out->index] == FV_NPU_NARROW && p->width[v->index] == FV_NPU_WIDE)
        fv_npu_round_values(x, fv_value_elems(v), p->of[v->index].u8);
}

static fv_status graph_apply(chooser *c, const fv_graph *g, const float *pixels, float *tokens,
                             bool rounding)
{
    fv_run_input in = { g->input[0]->name, pixels };
    fv_run_output out = { g->output[0]->output, tokens };
    fv_graph_observer o = { .user = c,
                            .change = rounding ? value_round : NULL,
                            .read = rounding ? read_round : NULL };
    return fv_graph_run(g, &c->v->ops, &(fv_graph_io){ &in, 1, &out, 1 }, &o, c->err);
}

/* 1 - the mean cosine over the first n images with the plan's widths as they are. */
static fv_status widths_measure(chooser *c, const fv_graph *g, size_t n, double *loss)
{
    size_t pixels = fv_npu_vision_pixels(c->v), tokens = fv_npu_vision_tokens(c->v);
    *loss = 1;
    for (size_t i = 0; i < n; i++) {
        FV_TRY(graph_apply(c, g, c->pixels + i * pixels, c->got, true));
        *loss -= fv_cosine(c->want + i * tokens, c->got, tokens) / (double)n;
    }
    return FV_OK;
}

/* ---- units ------------------------------------------------------------------------------- */

static void unit_set(const chooser *c, const unit *u, bool narrow)
{
    uint8_t width = narrow ? FV_NPU_NARROW : FV_NPU_WIDE;
    c->v->plan.width[u->value] = width;
    if (u->gelu != SIZE_MAX)
        c->v->plan.width[u->gelu] = width;
}

/* A gate's few values stay wide; attention, norms and sums are no units. */
static bool node_is_unit(const fv_node *n)
{
    bool layer = n->op == FV_OP_CONV || n->op == FV_OP_DEPTHWISE || n->op == FV_OP_LINEAR;
    return layer && fv_value_rows(n->out) > 1;
}

static void units_list(chooser *c)
{
    const fv_graph *g = &c->v->graph;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const fv_node *n = g->node[i], *next = n->out->last_use;
        if (!node_is_unit(n))
            continue;
        bool gelu = next && n->out->n_uses == 1 && next->op == FV_OP_GELU;
        c->units[c->n_units++] = (unit){ .value = n->out->index,
                                         .gelu = gelu ? next->out->index : SIZE_MAX,
                                         .macs = fv_npu_macs(n) };
    }
    for (size_t i = 0; i < c->n_units; i++)
        unit_set(c, &c->units[i], false);
}

/* What each costs alone, over the first image or a few small ones. */
static fv_status units_measure(chooser *c, size_t n, const fv_callbacks *callbacks)
{
    for (size_t i = 0; i < c->n_units; i++) {
        unit *u = &c->units[i];
        FV_TRY(fv_progress(callbacks, "layers", (double)i / (double)c->n_units, c->err));
        unit_set(c, u, true);
        FV_TRY(widths_measure(c, &c->v->graph, n, &u->loss));
        unit_set(c, u, false);
    }
    return FV_OK;
}

static unit *units_worst(const chooser *c)
{
    unit *worst = NULL;
    for (size_t i = 0; i < c->n_units; i++) {
        unit *u = &c->units[i];
        if (u->narrow && (!worst || u->loss * worst->macs > worst->loss * u->macs))
            worst = u;
    }
    return worst;
}

/* Losses nearly add up: units become wide until their sum says that the rest may do, then it is
 * measured. */
static fv_status units_choose(chooser *c, double goal)
{
    for (size_t i = 0; i < c->n_units; i++) {
        c->units[i].narrow = true;
        unit_set(c, &c->units[i], true);
    }
    for (;;) {
        double loss, sum = 0;
        unit *u;
        FV_TRY(widths_measure(c, &c->graph, c->n, &loss));
        if (loss <= goal)
            return FV_OK;
        for (size_t i = 0; i < c->n_units; i++)
            sum += c->units[i].narrow ? c->units[i].loss : 0;
        double left = sum;
        do {
            if (!(u = units_worst(c)))
                return FV_OK; /* all are wide: what is left is the weights' */
            u->narrow = false;
            unit_set(c, u, false);
            left -= u->loss;
        } while (left > sum * goal / loss);
    }
}

static fv_status chooser_run(chooser *c, double min_cosine, const fv_callbacks *callbacks)
{
    fv_npu_vision *v = c->v;
    const fv_kernels *k = &v->model.kernels;
    const fv_graph_spec spec = { .image_size = v->config.image_size };
    size_t pixels = fv_npu_vision_pixels(v), tokens = fv_npu_vision_tokens(v);
    for (size_t i = 0; i < c->n; i++)
        FV_TRY(graph_apply(c, &v->graph, c->pixels + i * pixels, c->want + i * tokens, false));
    FV_TRY(fv_npu_round(&c->rounded, &v->even.w, &v->config, k, c->err));
    fv_graph_vision(&c->graph, &v->config, &c->rounded.w.vision, &spec);
    FV_TRY(fv_graph_status(&c->graph));
    units_list(c);
    FV_TRY(units_measure(c, FV_MIN(c->n, (size_t)4), callbacks));
    return units_choose(c, 1 - min_cosine);
}

fv_status fv_npu_mixed_choose(fv_npu_vision *v, const float *pixels, size_t n, double min_cosine,
                              const fv_callbacks *callbacks, fv_error *err)
{
    chooser c = { .v = v, .pixels = pixels, .n = n, .err = err };
    size_t tokens = fv_npu_vision_tokens(v);
    c.want = fv_alloc((n + 1) * tokens, sizeof *c.want);
    c.units = fv_alloc(v->graph.n_nodes, sizeof *c.units);
    c.got = c.want + n * tokens;
    fv_graph_begin(&c.graph, "rounded", err);
    fv_status status = c.want && c.units
                           ? chooser_run(&c, min_cosine, callbacks)
                           : fv_fail_memory(err, (n + 1) * tokens * sizeof *c.want, "image tokens");
    fv_graph_end(&c.graph);
    fv_npu_rounded_free(&c.rounded);
    fv_free(c.want);
    fv_free(c.units);
    return status;
}
