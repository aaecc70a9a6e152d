/* Layers in 8 or 16 bits by measurement. See npu_mixed.h. */
#include "npu/npu_mixed.h"

#include <math.h>
#include <string.h>

#include "base/report.h"
#include "npu/npu_simulate.h"
#include "pack/calibrate.h"
#include "quant/cosine.h"

/* A layer and the GELU that alone reads it, or attention. */
typedef struct unit {
    size_t value, gelu; /* by index; gelu SIZE_MAX: none */
    double macs, loss;
    bool narrow, tried; /* tried: once more */
} unit;

/* The images at one size, and their tokens in f32. */
typedef struct judged_set {
    int image_size;
    size_t n_pixels, n_tokens; /* of one */
    float *pixels, *tokens;
} judged_set;

typedef struct chooser {
    fv_npu_vision *v;
    size_t n; /* images */
    /* What is only compared with its like is measured at a smaller size where runs are long. */
    judged_set whole, shrunk, *small, *now; /* small: one of the two */
    float *got;                             /* tokens of one image */
    unit *units;
    size_t n_units;
    fv_npu_simulation simulation;
    double floor;          /* what is lost with all values in 16 bits */
    double spent, in_full; /* numbers of images that went through, in all: about */
    const fv_callbacks *callbacks;
    fv_error *err;
} chooser;

static fv_status set_use(chooser *c, judged_set *s)
{
    c->now = s;
    return fv_npu_simulation_resize(&c->simulation, s->image_size, c->err);
}

/* 1 - the mean cosine over the first n images with the plan's widths as they are. */
static fv_status widths_measure(chooser *c, bool round_weights, size_t n, double *loss)
{
    const judged_set *s = c->now;
    *loss = 1;
    for (size_t i = 0; i < n; i++) {
        FV_TRY(fv_progress(c->callbacks, "widths", FV_MIN(c->spent / c->in_full, 1.0), c->err));
        FV_TRY(fv_npu_simulation_run(&c->simulation, s->pixels + i * s->n_pixels, c->got,
                                     round_weights, c->err));
        *loss -= fv_cosine(s->tokens + i * s->n_tokens, c->got, s->n_tokens) / (double)n;
        c->spent += (double)s->n_pixels;
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

/* What each costs alone. There are two hundred units. */
static fv_status units_measure(chooser *c, size_t n)
{
    for (size_t i = 0; i < c->n_units; i++) {
        unit *u = &c->units[i];
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
 * measured. Where that is not so, half of the sum goes at a time in the end. */
static fv_status units_widen(chooser *c, double goal)
{
    enum { STEPS = 4 };
    for (int step = 0;; step++) {
        double loss, sum = 0;
        unit *u;
        FV_TRY(widths_measure(c, true, c->n, &loss));
        if (loss <= goal)
            return FV_OK;
        for (size_t i = 0; i < c->n_units; i++)
            sum += c->units[i].narrow ? c->units[i].loss : 0;
        double left = sum, share = (goal - c->floor) / (loss - c->floor);
        share = step < STEPS ? share : FV_MIN(share, 0.5);
        do {
            if (!(u = units_worst(c)))
                return FV_OK; /* all are wide */
            u->narrow = false;
            unit_set(c, u, false);
            left -= u->loss;
        } while (left > sum * share);
    }
}

static int retries(const chooser *c)
{
    enum { MOST = 16, LEAST = 4, VALUES = 12 << 20 };
    size_t n = VALUES / c->whole.n_pixels;
    return (int)FV_MAX(FV_MIN(n, (size_t)MOST), (size_t)LEAST);
}

/* Units that are wide again in 8 bits where that is not too much, those first that cost least for
 * the multiplications they save: losses did not quite add up. */
static fv_status units_retry(chooser *c, double goal)
{
    for (int i = 0; i < retries(c); i++) {
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

static const fv_npu_fit fits[] = { { 2, true },    { 1.6, false }, { 1.6, true },
                                   { 1.3, false }, { 1, false },   { 1, true } };

/* The fit that loses least with the widths as they are. */
static fv_status fits_try(chooser *c)
{
    fv_npu_fit best = c->v->plan.fit;
    double least, loss;
    FV_TRY(widths_measure(c, true, c->n, &least));
    for (size_t i = 0; i < FV_COUNT(fits); i++) {
        FV_TRY(fit_set(c, fits[i]));
        FV_TRY(widths_measure(c, true, c->n, &loss));
        if (loss < least) {
            least = loss;
            best = fits[i];
        }
    }
    return fit_set(c, best);
}

/* ---- the images -------------------------------------------------------------------------- */

static fv_status set_make(chooser *c, judged_set *s, int image_size, const float *pixels)
{
    size_t size = (size_t)image_size, whole = (size_t)c->v->config.image_size;
    s->image_size = image_size;
    FV_TRY(set_use(c, s));
    s->n_pixels = size * size * 3;
    s->n_tokens = fv_value_elems(c->simulation.graph[0].output[0]);
    s->pixels = fv_alloc(c->n * s->n_pixels, sizeof *s->pixels);
    s->tokens = fv_alloc(c->n * s->n_tokens, sizeof *s->tokens);
    if (!s->pixels || !s->tokens)
        return fv_fail_memory(c->err, c->n * (s->n_pixels + s->n_tokens) * sizeof *s->pixels,
                              "images and their tokens");
    for (size_t i = 0; i < c->n; i++) {
        float *at = s->pixels + i * s->n_pixels;
        FV_TRY(fv_progress(c->callbacks, "widths", 0, c->err));
        fv_calibrate_shrink(at, size, pixels + i * whole * whole * 3, whole);
        FV_TRY(fv_npu_simulation_exact(&c->simulation, at, s->tokens + i * s->n_tokens, c->err));
    }
    return FV_OK;
}

/* ---- the whole --------------------------------------------------------------------------- */

static fv_status chooser_open(chooser *c, fv_npu_vision *v, const float *pixels, size_t n,
                              const fv_callbacks *callbacks, fv_error *err)
{
    size_t n_tokens = fv_npu_vision_tokens(v);
    *c = (chooser){ .v = v, .n = n, .in_full = 1, .callbacks = callbacks, .err = err };
    c->got = fv_alloc(n_tokens, sizeof *c->got);
    c->units = fv_alloc(v->graph.n_nodes, sizeof *c->units);
    if (!c->got || !c->units)
        return fv_fail_memory(err, n_tokens * sizeof *c->got, "image tokens");
    FV_TRY(fv_npu_simulation_open(&c->simulation, &v->plan, &v->even.w, &v->config, &v->ops,
                                  &v->model.kernels, err));
    const int small = fv_calibrate_small_size(v->config.image_size);
    c->small = small < v->config.image_size ? &c->shrunk : &c->whole;
    FV_TRY(set_make(c, &c->whole, v->config.image_size, pixels));
    return c->small == &c->whole ? FV_OK : set_make(c, &c->shrunk, small, pixels);
}

static void chooser_close(chooser *c)
{
    judged_set *sets[] = { &c->whole, &c->shrunk };
    for (size_t i = 0; i < FV_COUNT(sets); i++) {
        fv_free(sets[i]->pixels);
        fv_free(sets[i]->tokens);
    }
    fv_npu_simulation_close(&c->simulation);
    fv_free(c->got);
    fv_free(c->units);
}

fv_status fv_npu_fit_choose(fv_npu_vision *v, const float *pixels, size_t n,
                            const fv_callbacks *callbacks, fv_error *err)
{
    chooser c;
    fv_status status = chooser_open(&c, v, pixels, n, callbacks, err);
    if (status == FV_OK) {
        c.in_full = (double)((1 + FV_COUNT(fits)) * n * c.small->n_pixels);
        status = fits_try(&c);
    }
    chooser_close(&c);
    return status;
}

/* By default what all values in 16 bits lose is no limit: half as much again is allowed. */
static double loss_allowed(const chooser *c, double min_cosine)
{
    double allowed = 1 - (min_cosine > 0 ? min_cosine : FV_NPU_MIXED_COSINE);
    if (min_cosine > 0 || c->floor * 1.5 <= allowed)
        return allowed;
    fv_log(c->callbacks, FV_LOG_WARNING,
           "weights in 8 bits alone leave a cosine of %.4f on the images that are judged; mixed "
           "goes down to %.4f",
           1 - c->floor, 1 - c->floor * 1.5);
    return c->floor * 1.5;
}

static fv_status widths_choose(chooser *c, double min_cosine)
{
    enum { UNIT_IMAGES = 4, WIDENINGS = 5 };
    const bool shrunk = c->small != &c->whole;
    const size_t few = FV_MIN(c->n, shrunk ? (size_t)2 : (size_t)UNIT_IMAGES);
    units_list(c);
    c->in_full = (double)(c->n_units * few + FV_COUNT(fits) * c->n) * (double)c->small->n_pixels +
                 (double)((WIDENINGS + (size_t)retries(c)) * c->n) * (double)c->whole.n_pixels;
    FV_TRY(set_use(c, &c->whole));
    FV_TRY(widths_measure(c, true, c->n, &c->floor));
    const double goal = loss_allowed(c, min_cosine);
    if (c->floor >= goal)
        return FV_OK; /* all are wide */
    FV_TRY(set_use(c, c->small));
    FV_TRY(units_measure(c, few));
    for (size_t i = 0; i < c->n_units; i++) {
        c->units[i].narrow = true;
        unit_set(c, &c->units[i], true);
    }
    FV_TRY(set_use(c, &c->whole));
    FV_TRY(units_widen(c, goal));
    FV_TRY(set_use(c, c->small));
    FV_TRY(fits_try(c));
    FV_TRY(set_use(c, &c->whole));
    if (shrunk) /* what was best there need not be good enough here */
        FV_TRY(units_widen(c, goal));
    return units_retry(c, goal);
}

fv_status fv_npu_mixed_choose(fv_npu_vision *v, const float *pixels, size_t n, double min_cosine,
                              const fv_callbacks *callbacks, fv_error *err)
{
    chooser c;
    fv_status status = chooser_open(&c, v, pixels, n, callbacks, err);
    if (status == FV_OK)
        status = widths_choose(&c, min_cosine);
    chooser_close(&c);
    return status;
}
