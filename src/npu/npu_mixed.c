/* Layers in 8 or 16 bits by measurement. See npu_mixed.h. */
#include "npu/npu_mixed.h"

#include <math.h>
#include <string.h>

#include "base/report.h"
#include "npu/npu_simulate.h"
#include "quant/cosine.h"

/* A layer and the GELU that alone reads it, or attention. */
typedef struct unit {
    size_t value, gelu; /* by index; gelu SIZE_MAX: none */
    double macs, loss;
    bool narrow, tried; /* tried: once more */
} unit;

typedef struct chooser {
    fv_npu_vision *v;
    const float *pixels;
    size_t n;
    float *want, *got; /* tokens: of all images in f32; of one */
    unit *units;
    size_t n_units;
    fv_npu_simulation simulation;
    fv_error *err;
} chooser;

/* 1 - the mean cosine over the first n images with the plan's widths as they are. */
static fv_status widths_measure(chooser *c, bool round_weights, size_t n, double *loss)
{
    size_t pixels = fv_npu_vision_pixels(c->v), tokens = fv_npu_vision_tokens(c->v);
    *loss = 1;
    for (size_t i = 0; i < n; i++) {
        FV_TRY(fv_npu_simulation_run(&c->simulation, c->pixels + i * pixels, c->got, round_weights,
                                     c->err));
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

/* What multiplies. A gate's few values stay wide; norms and sums are no units. */
static bool node_is_unit(const fv_node *n)
{
    bool layer = n->op == FV_OP_CONV || n->op == FV_OP_DEPTHWISE || n->op == FV_OP_LINEAR;
    return n->op == FV_OP_SELF_ATTENTION || (layer && fv_value_rows(n->out) > 1);
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

/* What each costs alone, over the first image or a few small ones: there are a hundred units. */
enum { UNIT_IMAGES = 4, UNIT_VALUES = 1 << 20 };

static fv_status units_measure(chooser *c, size_t n, const fv_callbacks *callbacks)
{
    for (size_t i = 0; i < c->n_units; i++) {
        unit *u = &c->units[i];
        FV_TRY(fv_progress(callbacks, "layers", (double)i / (double)c->n_units, c->err));
        unit_set(c, u, true);
        FV_TRY(widths_measure(c, false, n, &u->loss));
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
        FV_TRY(widths_measure(c, true, c->n, &loss));
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

/* Units that are wide again in 8 bits where that is not too much, those first that cost least for
 * the multiplications they save: losses did not quite add up. */
static fv_status units_retry(chooser *c, double goal)
{
    enum { TRIES = 16 };
    for (int i = 0; i < TRIES; i++) {
        unit *best = NULL;
        double loss;
        for (size_t j = 0; j < c->n_units; j++) {
            unit *u = &c->units[j];
            if (!u->narrow && !u->tried && (!best || u->loss * best->macs < best->loss * u->macs))
                best = u;
        }
        if (!best)
            break;
        best->tried = true;
        unit_set(c, best, true);
        FV_TRY(widths_measure(c, true, c->n, &loss));
        best->narrow = loss <= goal;
        unit_set(c, best, best->narrow);
    }
    return FV_OK;
}

/* ---- fits -------------------------------------------------------------------------------- */

static fv_status fit_set(chooser *c, fv_npu_fit fit)
{
    fv_npu_vision *v = c->v;
    FV_TRY(fv_npu_plan_refit(&v->plan, v->ranges, fit, &v->model.kernels, c->err));
    return fv_npu_simulation_learn(&c->simulation, c->err);
}

/* The fit that loses least with the widths as they are. */
static fv_status fits_try(chooser *c, const fv_callbacks *callbacks)
{
    static const fv_npu_fit fits[] = { { 2, true },    { 1.6, false }, { 1.6, true },
                                       { 1.3, false }, { 1, false },   { 1, true } };
    fv_npu_fit best = c->v->plan.fit;
    double least, loss;
    FV_TRY(widths_measure(c, true, c->n, &least));
    for (size_t i = 0; i < FV_COUNT(fits); i++) {
        FV_TRY(fv_progress(callbacks, "ranges", (double)i / FV_COUNT(fits), c->err));
        FV_TRY(fit_set(c, fits[i]));
        FV_TRY(widths_measure(c, true, c->n, &loss));
        if (loss < least) {
            least = loss;
            best = fits[i];
        }
    }
    return fit_set(c, best);
}

/* ---- the whole --------------------------------------------------------------------------- */

static fv_status chooser_open(chooser *c, fv_npu_vision *v, const float *pixels, size_t n,
                              fv_error *err)
{
    size_t n_pixels = fv_npu_vision_pixels(v), n_tokens = fv_npu_vision_tokens(v);
    *c = (chooser){ .v = v, .pixels = pixels, .n = n, .err = err };
    c->want = fv_alloc((n + 1) * n_tokens, sizeof *c->want);
    c->units = fv_alloc(v->graph.n_nodes, sizeof *c->units);
    if (!c->want || !c->units)
        return fv_fail_memory(err, (n + 1) * n_tokens * sizeof *c->want, "image tokens");
    c->got = c->want + n * n_tokens;
    for (size_t i = 0; i < n; i++)
        FV_TRY(fv_npu_vision_run(v, pixels + i * n_pixels, c->want + i * n_tokens, NULL, err));
    return fv_npu_simulation_open(&c->simulation, &v->plan, &v->even.w, &v->config, &v->ops,
                                  &v->model.kernels, err);
}

static void chooser_close(chooser *c)
{
    fv_npu_simulation_close(&c->simulation);
    fv_free(c->want);
    fv_free(c->units);
}

fv_status fv_npu_fit_choose(fv_npu_vision *v, const float *pixels, size_t n,
                            const fv_callbacks *callbacks, fv_error *err)
{
    chooser c;
    fv_status status = chooser_open(&c, v, pixels, n, err);
    if (status == FV_OK)
        status = fits_try(&c, callbacks);
    chooser_close(&c);
    return status;
}

static fv_status widths_choose(chooser *c, double goal, const fv_callbacks *callbacks)
{
    const size_t few = FV_MAX(UNIT_VALUES / fv_npu_vision_pixels(c->v), (size_t)1);
    units_list(c);
    FV_TRY(units_measure(c, FV_MIN(c->n, FV_MIN(few, (size_t)UNIT_IMAGES)), callbacks));
    FV_TRY(units_choose(c, goal));
    FV_TRY(fits_try(c, callbacks));
    return units_retry(c, goal);
}

fv_status fv_npu_mixed_choose(fv_npu_vision *v, const float *pixels, size_t n, double min_cosine,
                              const fv_callbacks *callbacks, fv_error *err)
{
    chooser c;
    fv_status status = chooser_open(&c, v, pixels, n, err);
    if (status == FV_OK)
        status = widths_choose(&c, 1 - min_cosine, callbacks);
    chooser_close(&c);
    return status;
}
