/* The encoder in int8: passes over the calibration set, and which layer groups stay in int8. See
 * calibrate.h; what becomes of one layer's ranges and weights is quant/int8.c's. */
#include "pack/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/region.h"
#include "base/report.h"
#include "model/config_gguf.h"
#include "nn/vision.h"
#include "pack/products.h"
#include "quant/cosine.h"
#include "quant/int8.h"

enum {
    SAMPLE_ROWS = 256,       /* of every layer's input, spread over all images */
    PRODUCT_ROWS = 8192,     /* of a matrix's input for its products, spread over all images, */
    IMAGE_ROWS = 1024,       /* at most so many of one */
    JUDGED_IMAGES = 16,      /* up to, for the encoder as a whole, */
    JUDGED_PIXELS = 3 << 20, /* or until there are this many pixels; one at least */
    PROBED_IMAGES = 2,       /* of these, up to, for each group by itself */
    SEE_CHANNELS = 256,      /* whose ranges a task widens */
    SOLVED_AT_ONCE = 8       /* layers for each thread, before progress is told */
};

/* The feature cosine that the encoder must reach. On held-out images it stays above 0.999. */
#define DEFAULT_COSINE 0.9993

typedef struct layer {
    fv_weight weight; /* its row of the table, slot: fv_mat or fv_dw as loaded */
    void *twin;       /* the same of the int8 encoder */
    bool depthwise;
    size_t n, k, taps; /* outputs; channels of the input; of a convolution, otherwise 1 */
    fv_int8_seen seen;
    fv_int8_layer int8;
    fv_int8_layer fine; /* of a matrix: with rows of 16 bits, once layers_solve_fine has run */
    int32_t zero16;     /* fine.zero as the file has it */
} layer;

/* What a group may be in, from the fastest on. */
typedef enum choice { CHOICE_INT8, CHOICE_FINE, CHOICE_BF16, N_CHOICES } choice;

/* Mean cosines to the encoder in f32. */
typedef struct kept {
    double features, tokens;
} kept;

/* A layer group: all of it is in the same. */
typedef struct group {
    fv_layer_loss loss;
    choice choice;
    fv_vision_step step;     /* of the encoder, in which it runs */
    kept alone[CHOICE_BF16]; /* with this group in int8 or w8a16 and the others as loaded */
    bool before_features;    /* part of the encoder, not of the projector */
    double macs; /* millions of multiplications for an image: what int8 saves grows with it */
} group;

/* An image that the int8 encoder is compared over, and what the f32 encoder makes of it. */
typedef struct judged {
    float *pixels, *features, *tokens; /* [S, S, 3]; [T, n_features]; [T, d_model] */
} judged;

struct fv_calibration {
    const fv_config *c;
    fv_weights *w;
    const fv_kernels *k;
    fv_pool *pool;
    fv_calibrate_options o;
    fv_region region; /* what the layers point to */
    layer *layers;
    size_t n_layers, capacity;
    group *groups;
    size_t n_groups;
    fv_ops observed_ops; /* of an encoder in floats, whose layers' inputs are seen */
    fv_vision f32, fast; /* fast: in bf16, only where that is faster */
    fv_ops ops;
    float *picked, *turned; /* [IMAGE_ROWS, most k] rows for the products; the same transposed */
    fv_weights int8;        /* the encoder to be: every layer in int8 or as loaded */
    judged judge[JUDGED_IMAGES];
    size_t n_judged, n_images, n_skipped, image;
    bool synthetic, has_cosines; /* has_cosines: those of the groups are known, and what is fine */
    double feature_cosine, token_cosine, token_sqnr;
    double spent; /* of the time, for progress: see work_done */
};

/* ---- how far it is ------------------------------------------------------------------------ */

/* What takes time, in runs of the observed encoder over an image at the model's size, as measured
 * at 1024 x 1024. How often the whole is measured is not known before: about so. */
#define WORK_SEEN     1.0
#define WORK_MEASURED 0.35
#define WORK_SOLVED   1.3  /* every layer once */
#define WORK_PROBED   0.02 /* a group in one form, over an image */
#define WORK_PRODUCTS 2.0  /* over all images, */
#define WORK_ROUNDED  2.0  /* and every layer once, both only where rounding is compensated */
enum { TIMES_MEASURED = 4 };

static size_t judged_most(const fv_calibration *q)
{
    const size_t side = (size_t)q->c->image_size;
    return FV_MIN((size_t)JUDGED_IMAGES, FV_MAX((size_t)JUDGED_PIXELS / (side * side), (size_t)1));
}

/* Of an image. */
static double work_seen(const fv_calibration *q)
{
    return WORK_SEEN +
           (q->o.compensate ? WORK_PRODUCTS / (double)FV_MAX(q->n_images, (size_t)1) : 0);
}

static double work_solved(const fv_calibration *q)
{
    return WORK_SOLVED + (q->o.compensate ? WORK_ROUNDED : 0);
}

static fv_status work_done(fv_calibration *q, double work, fv_error *err)
{
    const double in_all = (double)q->n_images * work_seen(q) + 2 * work_solved(q) +
                          (double)(q->n_groups * 2 * PROBED_IMAGES) * WORK_PROBED +
                          (double)(TIMES_MEASURED * judged_most(q)) * WORK_MEASURED;
    q->spent += work;
    return fv_progress(q->o.callbacks, "calibrate", FV_MIN(q->spent / in_all, 1.0), err);
}

/* fv_progress_fn, of the calibration set: this is only a part of the whole. `done` is a fraction of
 * fewer than n_images when some were skipped since the last one was seen. */
static bool calibration_relay(void *user, const char *stage, double done)
{
    fv_calibration *q = user;
    (void)stage;
    (void)done;
    return work_done(q, (double)q->image * work_seen(q) - q->spent, NULL) != FV_OK;
}

static void calibration_log(void *user, fv_log_level level, const char *message)
{
    const fv_calibration *q = user;
    fv_log(q->o.callbacks, level, "%s", message);
}

/* ---- the layers -------------------------------------------------------------------------- */

static fv_status layer_count(void *user, const fv_weight *t, fv_error *err)
{
    fv_calibration *q = user;
    (void)err;
    q->capacity += t->group >= 0;
    return FV_OK;
}

static bool layer_take_memory(layer *l, fv_region *r)
{
    fv_int8_seen *in = &l->seen;
    fv_int8_layer *out = &l->int8;
    in->k = l->k;
    in->low = fv_region_take(r, l->k, sizeof *in->low);
    in->high = fv_region_take(r, l->k, sizeof *in->high);
    in->rows = fv_region_take(r, SAMPLE_ROWS * l->k, sizeof *in->rows);
    out->inv = fv_region_take(r, l->k, sizeof *out->inv);
    out->w8 = fv_region_take(r, l->depthwise ? l->taps * l->n : l->n * l->k, 1);
    out->mul = fv_region_take(r, l->n, sizeof *out->mul);
    out->bias8 = fv_region_take(r, l->n, sizeof *out->bias8);
    out->bias = fv_region_take(r, l->n, sizeof *out->bias);
    return in->low && in->high && in->rows && out->inv && out->w8 && out->mul && out->bias8 &&
           out->bias;
}

static void group_set(group *g, choice c)
{
    static const char *const names[N_CHOICES] = { "int8", "w8a16", "bf16" };
    g->choice = c;
    g->loss.int8 = c == CHOICE_INT8;
    g->loss.choice = names[c];
}

/* A group is named for its first layer. */
static fv_status layer_add(void *user, const fv_weight *t, fv_error *err)
{
    fv_calibration *q = user;
    if (t->group < 0)
        return FV_OK;
    layer *l = &q->layers[q->n_layers++];
    *l = (layer){ .weight = *t,
                  .depthwise = fv_weight_is_depthwise(t),
                  .n = t->n,
                  .k = t->k,
                  .taps = (size_t)t->kernel * t->kernel };
    if ((size_t)t->group == q->n_groups) {
        group *g = &q->groups[q->n_groups++];
        char name[FV_PACKED_NAME];
        fv_weight_packed_name(name, t, "");
        snprintf(g->loss.name, sizeof g->loss.name, "%.63s", name);
        g->loss.size = sizeof g->loss;
        group_set(g, CHOICE_INT8);
        g->loss.cosine = g->loss.w8a16_cosine = NAN;
        g->loss.sqnr = INFINITY;
        g->step = t->step;
        g->before_features = t->part == FV_PART_VISION;
    }
    if (!layer_take_memory(l, &q->region))
        return fv_fail_memory(err, SAMPLE_ROWS * l->k * sizeof *l->seen.rows,
                              "the calibration of a layer");
    return FV_OK;
}

static fv_status layer_find_twin(void *user, const fv_weight *t, fv_error *err)
{
    fv_calibration *q = user;
    (void)err;
    for (size_t i = 0; i < q->n_layers; i++)
        if (q->layers[i].weight.index == t->index)
            q->layers[i].twin = t->slot;
    return FV_OK;
}

static layer *layer_at(fv_calibration *q, const void *slot)
{
    for (size_t i = 0; i < q->n_layers; i++)
        if (q->layers[i].weight.slot == slot)
            return &q->layers[i];
    return NULL;
}

static group *layer_group(const fv_calibration *q, const layer *l)
{
    return &q->groups[l->weight.group];
}

/* ---- what flows through the encoder in f32 ----------------------------------------------- */

typedef struct see_job {
    const fv_kernels *kernels;
    layer *l;
    const void *x; /* [n, l->k] */
    fv_type type;
    size_t n;
} see_job;

static void layer_see_task(void *user, size_t task, unsigned worker)
{
    const see_job *j = user;
    const size_t k = j->l->k, first = task * SEE_CHANNELS, last = FV_MIN(first + SEE_CHANNELS, k);
    float row[SEE_CHANNELS];
    (void)worker;
    if (j->type == FV_TYPE_F32) {
        fv_int8_see(&j->l->seen, (const float *)j->x + first, k, j->n, first, last);
        return;
    }
    for (size_t i = 0; i < j->n; i++) {
        j->kernels->convert[FV_TYPE_F32][j->type](
            row, (const uint8_t *)j->x + (i * k + first) * fv_type_size(j->type), last - first);
        fv_int8_see(&j->l->seen, row, 0, 1, first, last);
    }
}

/* A row of x, drawn at random, in f32. */
static void row_draw(const see_job *j, uint64_t *state, float *to)
{
    const size_t k = j->l->k;
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    j->kernels->convert[FV_TYPE_F32][j->type](
        to, (const uint8_t *)j->x + (*state >> 33) % j->n * k * fv_type_size(j->type), k);
}

/* fv_observe_fn: ranges, and this image's share of the sample rows and of the products, drawn from
 * all rows. */
static void layer_see(void *user, const void *site, const void *x, fv_type type, size_t n, size_t c)
{
    fv_calibration *q = user;
    layer *l = layer_at(q, site);
    if (!l)
        return;
    see_job j = { q->k, l, x, type, n };
    fv_pool_run(q->pool, (c + SEE_CHANNELS - 1) / SEE_CHANNELS, layer_see_task, &j);
    if (q->image == 0)
        layer_group(q, l)->macs += (double)n * (double)l->n *
                                   (double)(l->depthwise ? l->taps : l->k) * 1e-6;
    size_t end = SAMPLE_ROWS * (q->image + 1) / q->n_images;
    uint64_t state = q->image * 977 + 1;
    for (; l->seen.n_rows < end; l->seen.n_rows++)
        row_draw(&j, &state, l->seen.rows + l->seen.n_rows * c);
    if (!l->seen.products.n)
        return;
    const size_t picked = FV_MIN(FV_MIN(n, (size_t)IMAGE_ROWS), PRODUCT_ROWS / q->n_images + 1);
    for (size_t i = 0; i < picked; i++)
        row_draw(&j, &state, q->picked + i * c);
    fv_products_add(&l->seen.products, &q->ops, q->picked, picked, q->turned);
}

static fv_status judged_keep(fv_calibration *q, const float *pixels, fv_error *err)
{
    size_t s = (size_t)q->c->image_size, t = (size_t)fv_config_image_tokens(q->c->image_size);
    size_t f = t * (size_t)q->c->n_features, d = t * (size_t)q->c->d_model;
    judged *j = &q->judge[q->n_judged];
    j->pixels = fv_alloc(s * s * 3 + f + d, sizeof *j->pixels);
    if (!j->pixels)
        return fv_fail_memory(err, (s * s * 3 + f + d) * sizeof *j->pixels, "a judged image");
    q->n_judged++;
    j->features = j->pixels + s * s * 3;
    j->tokens = j->features + f;
    memcpy(j->pixels, pixels, s * s * 3 * sizeof *pixels);
    memcpy(j->features, q->f32.features, f * sizeof *pixels);
    return FV_OK;
}

/* fv_calibrate_fn: the at-th image of n goes through; judged ones are spread over all. The others
 * go through in bf16 where that is fast: it moves a range by less than 1 %, an image by more. */
static fv_status image_see(void *user, const float *pixels, size_t at, size_t n, fv_error *err)
{
    fv_calibration *q = user;
    const fv_watch watch = { 0 };
    const size_t n_tokens = (size_t)fv_config_image_tokens(q->c->image_size) *
                            (size_t)q->c->d_model,
                 most = judged_most(q);
    q->image = at;
    q->n_images = n;
    const bool judge = q->n_judged < most && q->image >= q->n_judged * q->n_images / most;
    fv_vision *v = judge || !q->k->fast_bf16 ? &q->f32 : &q->fast;
    FV_TRY(fv_vision_run(v, &q->observed_ops, pixels, &watch, err));
    if (judge)
        FV_TRY(judged_keep(q, pixels, err));
    float *tokens = judge ? q->judge[q->n_judged - 1].tokens : fv_alloc(n_tokens, sizeof *tokens);
    if (!tokens)
        return fv_fail_memory(err, n_tokens * sizeof *tokens, "image tokens");
    fv_status status = fv_projector_run(v, &q->observed_ops, tokens, &watch, err);
    if (!judge)
        fv_free(tokens);
    q->image++;
    return status;
}

/* ---- every layer in int8, side by side ---------------------------------------------------- */

typedef struct solve_job {
    fv_calibration *q;
    uint8_t *scratch; /* [workers, each] */
    size_t each;
    size_t first; /* layer */
    bool fine;    /* matrices for rows of 16 bits */
} solve_job;

static void layer_solve_task(void *user, size_t task, unsigned worker)
{
    solve_job *j = user;
    layer *l = &j->q->layers[j->first + task];
    const fv_mat *m = l->weight.slot;
    const fv_dw *dw = l->weight.slot;
    if (!l->depthwise)
        fv_int8_matrix(j->fine ? &l->fine : &l->int8, &l->seen, m->data, m->type, l->n, m->bias,
                       j->q->k, j->scratch + worker * j->each);
    else if (!j->fine)
        fv_int8_depthwise(&l->int8, &l->seen, dw->w, dw->bias, l->taps, dw->mult);
    l->zero16 = 256 * l->fine.zero;
}

static fv_status layers_solve_as(fv_calibration *q, bool fine, fv_error *err)
{
    const size_t workers = fv_pool_threads(q->pool), at_once = SOLVED_AT_ONCE * workers;
    fv_status status = FV_OK;
    solve_job j = { .q = q, .fine = fine };
    for (size_t i = 0; i < q->n_layers; i++)
        j.each = FV_MAX(j.each, fv_int8_scratch(&q->layers[i].seen, q->k));
    j.scratch = fv_alloc(workers, j.each);
    if (!j.scratch)
        return fv_fail_memory(err, workers * j.each, "calibration");
    for (; j.first < q->n_layers && status == FV_OK; j.first += at_once) {
        const size_t n = FV_MIN(at_once, q->n_layers - j.first);
        fv_pool_run(q->pool, n, layer_solve_task, &j);
        status = work_done(q, work_solved(q) * (double)n / (double)q->n_layers, err);
    }
    fv_free(j.scratch);
    return status;
}

static fv_status layers_solve(fv_calibration *q, fv_error *err)
{
    FV_TRY(layers_solve_as(q, false, err));
    for (size_t i = 0; i < q->n_layers; i++) {
        fv_layer_loss *loss = &layer_group(q, &q->layers[i])->loss;
        loss->sqnr = fmin(loss->sqnr, q->layers[i].int8.sqnr);
    }
    return FV_OK;
}

/* Every matrix with rows of 16 bits, too: only where int8 does not do for all. */
static fv_status layers_solve_fine(fv_calibration *q, fv_error *err)
{
    for (size_t i = 0; i < q->n_layers; i++) {
        layer *l = &q->layers[i];
        fv_int8_layer *s = &l->fine;
        if (l->depthwise)
            continue;
        s->fine = true;
        s->inv = fv_region_take(&q->region, l->k, sizeof *s->inv);
        s->w8 = fv_region_take(&q->region, l->n * l->k, 1);
        s->mul = fv_region_take(&q->region, l->n, sizeof *s->mul);
        s->bias8 = fv_region_take(&q->region, l->n, sizeof *s->bias8);
        if (!s->inv || !s->w8 || !s->mul || !s->bias8)
            return fv_fail_memory(err, l->n * l->k, "the calibration of a layer");
    }
    return layers_solve_as(q, true, err);
}

/* The layer of the int8 encoder, as its group has it. */
static void layer_assemble(const fv_calibration *q, const layer *l)
{
    const choice c = layer_group(q, l)->choice;
    const fv_int8_layer *s = c == CHOICE_FINE ? &l->fine : &l->int8;
    const bool int8 = c == CHOICE_INT8 || (c == CHOICE_FINE && !l->depthwise);
    const fv_u8 in = { .inv = s->inv, .zero = s->zero, .fine = c == CHOICE_FINE };
    if (l->depthwise) {
        const fv_dw *dw = l->weight.slot;
        *(fv_dw *)l->twin = int8 ? (fv_dw){ .bias = s->bias,
                                            .channels = dw->channels,
                                            .mult = dw->mult,
                                            .kernel = dw->kernel,
                                            .w8 = s->w8,
                                            .mul = s->mul,
                                            .in = in }
                                 : *dw;
    } else {
        *(fv_mat *)l->twin = int8 ? (fv_mat){ .data = s->w8,
                                              .type = FV_TYPE_I8,
                                              .n = l->n,
                                              .k = l->k,
                                              .bias8 = s->bias8,
                                              .mul = s->mul,
                                              .in = in }
                                  : *(const fv_mat *)l->weight.slot;
    }
}

/* ---- what the encoder loses ---------------------------------------------------------------- */

typedef struct loss {
    double features, tokens, sqnr; /* mean cosine of both; of the tokens, dB */
} loss;

/* The encoder as its groups are now, over the judged images, against f32. */
static fv_status loss_measure(fv_calibration *q, loss *out, fv_error *err)
{
    const fv_watch watch = { 0 };
    const size_t n = q->n_judged;
    fv_vision v = { 0 };
    size_t t = (size_t)fv_config_image_tokens(q->c->image_size), d = (size_t)q->c->d_model,
           f = (size_t)q->c->n_features;
    fv_status status = FV_OK;
    double signal = 0, noise = 0;
    *out = (loss){ 0 };
    for (size_t i = 0; i < q->n_layers; i++)
        layer_assemble(q, &q->layers[i]);
    float *tokens = fv_alloc(t * d, sizeof *tokens);
    if (!tokens)
        return fv_fail_memory(err, t * d * sizeof *tokens, "image tokens");
    FV_TRY_GOTO(
        fv_vision_init(&v, q->c, &q->int8.vision, q->c->image_size, FV_TYPE_I8, &q->ops, err));
    for (size_t i = 0; i < n; i++) {
        const judged *j = &q->judge[i];
        FV_TRY_GOTO(work_done(q, WORK_MEASURED, err));
        FV_TRY_GOTO(fv_vision_run(&v, &q->ops, j->pixels, &watch, err));
        FV_TRY_GOTO(fv_projector_run(&v, &q->ops, tokens, &watch, err));
        out->features += fv_cosine(v.features, j->features, t * f) / (double)n;
        out->tokens += fv_cosine(tokens, j->tokens, t * d) / (double)n;
        for (size_t x = 0; x < t * d; x++) {
            signal += (double)j->tokens[x] * (double)j->tokens[x];
            noise += (double)(tokens[x] - j->tokens[x]) * (double)(tokens[x] - j->tokens[x]);
        }
    }
    out->sqnr = noise > 0 ? 10 * log10(signal / noise) : INFINITY;
fail:
    fv_vision_free(&v);
    fv_free(tokens);
    return status;
}

static size_t groups_count(const fv_calibration *q, choice c)
{
    size_t n = 0;
    for (size_t i = 0; i < q->n_groups; i++)
        n += q->groups[i].choice == c;
    return n;
}

/* ---- what each group loses alone ---------------------------------------------------------- */

/* Losses of groups are only compared with each other: where runs at the model's size are long they
 * are measured at a smaller one. `base`, the encoder as loaded, goes from step to step, and a
 * step's groups are tried from where it stands: what lies in front of a group runs once for all. */
typedef struct probe {
    fv_calibration *q;
    int size;
    size_t n;                    /* images */
    size_t n_features, n_tokens; /* values of one */
    fv_vision base, trial;
    float *pixels;            /* [size, size, 3] */
    float *features, *tokens; /* in f32 */
    float *got;               /* tokens of base or trial */
    kept as_loaded;           /* what base keeps: where bf16 is fast it computes in bf16 */
} probe;

static void group_assemble(fv_calibration *q, group *g, choice c)
{
    group_set(g, c);
    for (size_t i = 0; i < q->n_layers; i++)
        if (layer_group(q, &q->layers[i]) == g)
            layer_assemble(q, &q->layers[i]);
}

/* Image tokens from v's features, and what both keep. */
static fv_status probe_compare(probe *p, fv_vision *v, kept *to, fv_error *err)
{
    const fv_watch watch = { 0 };
    FV_TRY(fv_projector_run(v, &p->q->ops, p->got, &watch, err));
    to->features += fv_cosine(v->features, p->features, p->n_features) / (double)p->n;
    to->tokens += fv_cosine(p->got, p->tokens, p->n_tokens) / (double)p->n;
    return FV_OK;
}

/* Step s and what follows it with the group in c, from what lies in front of s in base. */
static fv_status group_try(probe *p, group *g, choice c, fv_vision_step s, fv_error *err)
{
    fv_calibration *q = p->q;
    const size_t side = (size_t)p->size / s.reduction;
    group_assemble(q, g, c);
    if (s.kind == FV_VISION_PROJECTOR)
        memcpy(p->trial.features, p->base.features, p->n_features * sizeof(float));
    else
        memcpy(p->trial.map[0], p->base.map[0],
               side * side * (size_t)q->c->stage[s.stage].width * sizeof(float));
    do
        fv_vision_run_step(&p->trial, &q->ops, &s);
    while (fv_vision_walk(q->c, &s));
    const fv_status status = probe_compare(p, &p->trial, &g->alone[c], err);
    group_assemble(q, g, CHOICE_BF16);
    return status;
}

static bool step_is(const fv_vision_step *a, const fv_vision_step *b)
{
    return a->kind == b->kind && a->stage == b->stage && a->block == b->block;
}

static fv_status probe_image(probe *p, size_t image, fv_error *err)
{
    fv_calibration *q = p->q;
    const fv_watch watch = { 0 };
    fv_calibrate_shrink(p->pixels, (size_t)p->size, q->judge[image].pixels,
                        (size_t)q->c->image_size);
    fv_vision f32 = { 0 };
    fv_status status = fv_vision_init(&f32, q->c, &q->w->vision, p->size, FV_TYPE_F32, &q->ops,
                                      err);
    if (status == FV_OK)
        status = fv_vision_run(&f32, &q->ops, p->pixels, &watch, err);
    if (status == FV_OK)
        status = fv_projector_run(&f32, &q->ops, p->tokens, &watch, err);
    if (status == FV_OK)
        memcpy(p->features, f32.features, p->n_features * sizeof *p->features);
    fv_vision_free(&f32);
    FV_TRY(status);
    FV_TRY(fv_vision_run_stem(&p->base, &q->ops, p->pixels, &watch, err));
    for (fv_vision_step s = { 0 }; fv_vision_walk(q->c, &s);) {
        for (size_t i = 0; i < q->n_groups; i++) {
            group *g = &q->groups[i];
            if (!step_is(&g->step, &s))
                continue;
            FV_TRY(work_done(q, 2 * WORK_PROBED, err));
            FV_TRY(group_try(p, g, CHOICE_INT8, s, err));
            FV_TRY(group_try(p, g, CHOICE_FINE, s, err));
        }
        fv_vision_run_step(&p->base, &q->ops, &s);
    }
    return probe_compare(p, &p->base, &p->as_loaded, err);
}

/* Of `with`, of what as_loaded keeps. */
static double cosine_of(const kept *as_loaded, const kept *with)
{
    const double lost = fmax(as_loaded->features - with->features,
                             as_loaded->tokens - with->tokens);
    return 1 - fmax(lost, 0);
}

static fv_status probe_open(probe *p, fv_calibration *q, fv_error *err)
{
    const int size = fv_calibrate_small_size(q->c->image_size);
    const size_t t = (size_t)fv_config_image_tokens(size),
                 n_pixels = (size_t)size * (size_t)size * 3;
    *p = (probe){ .q = q,
                  .size = size,
                  .n = FV_MIN(q->n_judged, (size_t)PROBED_IMAGES),
                  .n_features = t * (size_t)q->c->n_features,
                  .n_tokens = t * (size_t)q->c->d_model };
    const size_t n = n_pixels + p->n_features + 2 * p->n_tokens;
    p->pixels = fv_alloc(n, sizeof *p->pixels);
    if (!p->pixels)
        return fv_fail_memory(err, n * sizeof *p->pixels, "the search for sensitive layers");
    p->features = p->pixels + n_pixels;
    p->tokens = p->features + p->n_features;
    p->got = p->tokens + p->n_tokens;
    /* memory for every layer in each of its forms; the last one's maps stay: int8's are most */
    for (int c = N_CHOICES; c-- > 0;) {
        for (size_t i = 0; i < q->n_groups; i++)
            group_assemble(q, &q->groups[i], (choice)c);
        fv_vision_free(&p->trial);
        FV_TRY(fv_vision_init(&p->trial, q->c, &q->int8.vision, size, FV_TYPE_I8, &q->ops, err));
    }
    for (size_t i = 0; i < q->n_groups; i++) {
        group_assemble(q, &q->groups[i], CHOICE_BF16);
        memset(q->groups[i].alone, 0, sizeof q->groups[i].alone);
    }
    return fv_vision_init(&p->base, q->c, &q->w->vision, size, FV_TYPE_I8, &q->ops, err);
}

static fv_status groups_probe(fv_calibration *q, fv_error *err)
{
    probe p;
    fv_status status = probe_open(&p, q, err);
    for (size_t i = 0; i < p.n && status == FV_OK; i++)
        status = probe_image(&p, i, err);
    for (size_t i = 0; i < q->n_groups; i++) {
        group *g = &q->groups[i];
        g->loss.cosine = cosine_of(&p.as_loaded, &g->alone[CHOICE_INT8]);
        g->loss.w8a16_cosine = cosine_of(&p.as_loaded, &g->alone[CHOICE_FINE]);
    }
    fv_vision_free(&p.trial);
    fv_vision_free(&p.base);
    fv_free(p.pixels);
    return status;
}

fv_status fv_calibrate_groups(fv_calibration *q, fv_error *err)
{
    if (q->has_cosines)
        return FV_OK;
    choice *keep = fv_alloc(q->n_groups, sizeof *keep);
    if (!keep)
        return fv_fail_memory(err, q->n_groups * sizeof *keep, "layer groups");
    for (size_t i = 0; i < q->n_groups; i++)
        keep[i] = q->groups[i].choice;
    fv_status status = layers_solve_fine(q, err);
    if (status == FV_OK)
        status = groups_probe(q, err);
    for (size_t i = 0; i < q->n_groups; i++)
        group_set(&q->groups[i], keep[i]);
    q->has_cosines = status == FV_OK;
    fv_free(keep);
    return status;
}

/* ---- which groups stay in int8 ------------------------------------------------------------ */

/* What a group loses as it is, alone. */
static double group_lost(const group *g)
{
    return g->choice == CHOICE_INT8   ? 1 - g->loss.cosine
           : g->choice == CHOICE_FINE ? 1 - g->loss.w8a16_cosine
                                      : 0;
}

/* Whether taking this group out of 8 bits can help: any, or, while image tokens are close enough,
 * those before the features. */
static bool group_counts(const group *g, bool features_only)
{
    return g->choice != CHOICE_BF16 && (g->before_features || !features_only);
}

/* A group that goes to something wider. */
typedef struct move {
    group *group; /* NULL: none is left */
    choice to;
    double gain; /* of the cosine, by what the group loses alone */
} move;

/* The move that gains most for the time that it costs. Time is in products of int8: rows of 16 bits
 * take two; bf16 takes two where it is fast, and where it is not, f32 four or five. */
static move moves_best(const fv_calibration *q, bool features_only)
{
    static const double time[N_CHOICES] = { 1, 2, 5 };
    move best = { 0 };
    double most = -INFINITY;
    for (size_t i = 0; i < q->n_groups; i++) {
        group *g = &q->groups[i];
        if (!group_counts(g, features_only))
            continue;
        for (choice to = g->choice + 1; to < N_CHOICES; to++) {
            const double after = to == CHOICE_FINE ? 1 - g->loss.w8a16_cosine : 0,
                         gain = group_lost(g) - after,
                         worth = gain / ((time[to] - time[g->choice]) * (g->macs + 1e-9));
            if (!(worth <= most)) {
                most = worth;
                best = (move){ g, to, gain };
            }
        }
    }
    return best;
}

/* Groups go to rows of 16 bits, or back to bf16, those first that gain most for the time it costs,
 * until the encoder is at least as close to f32 as was asked for. Losses nearly add up, so it is
 * measured again when their sum says that it may be. */
static fv_status groups_choose(fv_calibration *q, fv_error *err)
{
    double goal = 1 - (q->o.min_cosine > 0 ? q->o.min_cosine : DEFAULT_COSINE);
    for (;;) {
        loss l;
        FV_TRY(loss_measure(q, &l, err));
        q->feature_cosine = l.features;
        q->token_cosine = l.tokens;
        q->token_sqnr = l.sqnr;
        if (!isfinite(l.features) || !isfinite(l.tokens))
            return fv_fail(
                err, FV_ERR_FORMAT, 0,
                "the encoder's features are NaN or infinite; fetch the checkpoint again");
        double lost = 1 - fmin(l.features, l.tokens), sum = 0;
        if (lost <= goal || groups_count(q, CHOICE_BF16) == q->n_groups)
            return FV_OK;
        FV_TRY(fv_calibrate_groups(q, err));
        const bool features_only = 1 - l.tokens <= goal;
        for (size_t i = 0; i < q->n_groups; i++)
            sum += group_counts(&q->groups[i], features_only) ? group_lost(&q->groups[i]) : 0;
        double left = sum;
        move m = moves_best(q, features_only);
        if (!m.group) /* bf16 itself is not closer: what is left is the projector */
            m = moves_best(q, false);
        while (m.group) { /* one at least, so that this ends */
            group_set(m.group, m.to);
            left -= m.gain;
            if (left <= sum * goal / lost)
                break;
            m = moves_best(q, features_only);
        }
    }
}

/* ---- whole ------------------------------------------------------------------------------- */

static fv_status calibration_list_layers(fv_calibration *q, fv_error *err)
{
    FV_TRY(fv_weights_walk(q->w, q->c, layer_count, q, err));
    q->layers = fv_alloc_zero(q->capacity, sizeof *q->layers);
    q->groups = fv_alloc_zero(q->capacity, sizeof *q->groups);
    if (!q->layers || !q->groups)
        return fv_fail_memory(err, q->capacity * sizeof *q->layers, "calibration");
    FV_TRY(fv_weights_walk(q->w, q->c, layer_add, q, err));
    FV_TRY(fv_weights_share_vision(&q->int8, q->w, q->c, err));
    return fv_weights_walk(&q->int8, q->c, layer_find_twin, q, err);
}

/* What every matrix's inputs have in common is summed up, too. */
static fv_status products_take_memory(fv_calibration *q, fv_error *err)
{
    size_t most = 1;
    for (size_t i = 0; i < q->n_layers; i++) {
        layer *l = &q->layers[i];
        if (l->depthwise)
            continue;
        most = FV_MAX(most, l->k);
        FV_TRY(fv_products_init(&l->seen.products, l->k, err));
        const fv_ops_need need = fv_products_need(&q->ops, &l->seen.products, IMAGE_ROWS);
        FV_TRY(fv_ops_reserve(&q->ops, &need, err));
    }
    q->picked = fv_alloc(IMAGE_ROWS * most, sizeof *q->picked);
    q->turned = fv_alloc(IMAGE_ROWS * most, sizeof *q->turned);
    if (!q->picked || !q->turned)
        return fv_fail_memory(err, IMAGE_ROWS * most * sizeof *q->picked,
                              "rows of a layer's input");
    return FV_OK;
}

/* All images through the encoder in f32, observed; its memory is not needed afterwards. */
static fv_status calibration_see_images(fv_calibration *q, fv_error *err)
{
    const fv_callbacks relayed = {
        .size = sizeof relayed, .log = calibration_log, .progress = calibration_relay, .user = q
    };
    fv_calibrate_options o = q->o;
    fv_seen seen;
    o.callbacks = &relayed;
    FV_TRY(fv_ops_init(&q->observed_ops, q->k, q->pool, err));
    q->observed_ops.observe = layer_see;
    q->observed_ops.observe_user = q;
    FV_TRY(fv_vision_init(&q->f32, q->c, &q->w->vision, q->c->image_size, FV_TYPE_F32,
                          &q->observed_ops, err));
    if (q->k->fast_bf16)
        FV_TRY(fv_vision_init(&q->fast, q->c, &q->w->vision, q->c->image_size, FV_TYPE_BF16,
                              &q->observed_ops, err));
    FV_TRY(fv_calibrate_images(&seen, &o, FV_CALIBRATE_IMAGES, FV_CALIBRATE_SCENES, q->c, q->k,
                               q->pool, image_see, q, err));
    q->n_skipped = seen.n_skipped;
    q->synthetic = seen.synthetic;
    fv_vision_free(&q->f32);
    fv_vision_free(&q->fast);
    fv_ops_free(&q->observed_ops);
    return FV_OK;
}

fv_status fv_calibrate(fv_calibration **out, const fv_config *c, fv_weights *w, const fv_kernels *k,
                       fv_pool *pool, const fv_calibrate_options *options, fv_error *err)
{
    fv_calibration *q = fv_alloc_zero(1, sizeof *q);
    fv_status status;
    *out = NULL;
    if (!q)
        return fv_fail_memory(err, sizeof *q, "calibration");
    *q = (fv_calibration){ .c = c, .w = w, .k = k, .pool = pool, .o = *options };
    FV_TRY_GOTO(calibration_list_layers(q, err));
    FV_TRY_GOTO(fv_ops_init(&q->ops, k, pool, err));
    if (q->o.compensate)
        FV_TRY_GOTO(products_take_memory(q, err));
    FV_TRY_GOTO(calibration_see_images(q, err));
    FV_TRY_GOTO(layers_solve(q, err));
    FV_TRY_GOTO(groups_choose(q, err));
    *out = q;
    return FV_OK;
fail:
    fv_calibration_free(q);
    return status;
}

void fv_calibration_free(fv_calibration *q)
{
    if (!q)
        return;
    for (size_t i = 0; i < q->n_judged; i++)
        fv_free(q->judge[i].pixels);
    fv_vision_free(&q->f32);
    fv_vision_free(&q->fast);
    fv_ops_free(&q->observed_ops);
    fv_ops_free(&q->ops);
    fv_weights_free(&q->int8);
    fv_region_free(&q->region);
    for (size_t i = 0; i < q->n_layers; i++)
        fv_products_free(&q->layers[i].seen.products);
    fv_free(q->picked);
    fv_free(q->turned);
    fv_free(q->layers);
    fv_free(q->groups);
    fv_free(q);
}

size_t fv_calibration_group_count(const fv_calibration *q) { return q->n_groups; }

const fv_layer_loss *fv_calibration_group(const fv_calibration *q, size_t i)
{
    return &q->groups[i].loss;
}

void fv_calibration_report(const fv_calibration *q, fv_pack_report *r)
{
    r->n_images = q->image;
    r->n_skipped = q->n_skipped;
    r->synthetic_images = q->synthetic;
    r->feature_cosine = q->feature_cosine;
    r->token_cosine = q->token_cosine;
    r->token_sqnr = q->token_sqnr;
    r->n_groups = q->n_groups;
    r->n_wide = groups_count(q, CHOICE_BF16);
    r->n_w8a16 = groups_count(q, CHOICE_FINE);
}

/* ---- into the file ----------------------------------------------------------------------- */

/* fv_pack_hook: the tensors of an int8 layer, as weights_bind.c reads them. */
static fv_status layer_parts(void *user, const fv_weight *t, fv_pack_part list[FV_PACK_PARTS],
                             size_t *n, fv_error *err)
{
    fv_calibration *q = user;
    const layer *l = layer_at(q, t->slot);
    (void)err;
    *n = 0;
    const choice c = l ? layer_group(q, l)->choice : CHOICE_BF16;
    const bool fine = c == CHOICE_FINE;
    if (c == CHOICE_BF16 || (fine && l->depthwise))
        return FV_OK;
    const fv_int8_layer *s = fine ? &l->fine : &l->int8;
    size_t rows = l->depthwise ? l->taps : l->n, columns = l->depthwise ? l->n : l->k;
    const void *bias = l->depthwise ? (const void *)s->bias : s->bias8;
    fv_type bias_type = l->depthwise ? FV_TYPE_F32 : FV_TYPE_I32;
    const fv_pack_part parts[5] = {
        { ".weight", FV_TYPE_I8, 2, { rows, columns }, s->w8, (float)s->sqnr },
        { ".scale", FV_TYPE_F32, 1, { l->n, 0 }, s->mul, INFINITY },
        { ".bias", bias_type, 1, { l->n, 0 }, bias, INFINITY },
        { ".inv", FV_TYPE_F32, 1, { l->k, 0 }, s->inv, INFINITY },
        { fine ? ".zero16" : ".zero",
          FV_TYPE_I32,
          1,
          { 1, 0 },
          fine ? &l->zero16 : &s->zero,
          INFINITY },
    };
    memcpy(list, parts, sizeof parts);
    *n = FV_COUNT(parts);
    return FV_OK;
}

#define KEY(name) FV_ARCHITECTURE ".calibration." name

/* The names of the groups in c. */
static void describe_groups(const fv_calibration *q, fv_gguf_writer *w, const char *key, choice c)
{
    fv_gguf_put_strings(w, key, groups_count(q, c));
    for (size_t i = 0; i < q->n_groups; i++) {
        const group *g = &q->groups[i];
        if (g->choice == c)
            fv_gguf_put_item(w, g->loss.name, strlen(g->loss.name));
    }
}

static void calibration_describe(void *user, fv_gguf_writer *w)
{
    fv_calibration *q = user;
    const char *method = q->synthetic ? "W8A8, synthetic scenes" : "W8A8, pictures";
    fv_gguf_put_string(w, KEY("method"), method, strlen(method));
    if (q->o.compensate)
        fv_gguf_put_string(w, KEY("rounding"), "compensated", strlen("compensated"));
    fv_gguf_put_u32(w, KEY("image_count"), (uint32_t)q->image);
    fv_gguf_put_f64(w, KEY("feature_cosine"), q->feature_cosine);
    fv_gguf_put_f64(w, KEY("token_cosine"), q->token_cosine);
    if (groups_count(q, CHOICE_FINE))
        describe_groups(q, w, KEY("w8a16"), CHOICE_FINE);
    describe_groups(q, w, KEY("wide"), CHOICE_BF16);
}

fv_pack_hook fv_calibration_hook(fv_calibration *q)
{
    return (fv_pack_hook){ .user = q, .parts = layer_parts, .describe = calibration_describe };
}
