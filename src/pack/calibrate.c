/* The encoder in int8: passes over the calibration set, and which layer groups stay in int8. See
 * calibrate.h; what becomes of one layer's ranges and weights is quant/int8.c's. */
#include "pack/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/region.h"
#include "model/config_gguf.h"
#include "nn/vision.h"
#include "quant/cosine.h"
#include "quant/int8.h"

enum {
    SAMPLE_ROWS = 256,       /* of every layer's input, spread over all images */
    JUDGED_IMAGES = 16,      /* up to, for the encoder as a whole, */
    JUDGED_PIXELS = 3 << 20, /* or until there are this many pixels; one at least */
    SEE_CHANNELS = 256       /* whose ranges a task widens */
};

/* The feature cosine that the encoder must reach. On held-out images it stays above 0.999. */
#define DEFAULT_COSINE 0.9992

typedef struct layer {
    fv_weight weight; /* its row of the table, slot: fv_mat or fv_dw as loaded */
    void *twin;       /* the same of the int8 encoder */
    bool depthwise;
    size_t n, k, taps; /* outputs; channels of the input; of a convolution, otherwise 1 */
    fv_int8_seen seen;
    fv_int8_layer int8;
} layer;

/* A layer group: in int8 as a whole or not at all. */
typedef struct group {
    fv_layer_loss loss;
    bool before_features; /* part of the encoder, not of the projector */
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
    fv_ops observed_ops; /* of the encoder in f32, whose layers' inputs are seen */
    fv_vision f32;
    fv_ops ops;
    fv_weights int8; /* the encoder to be: every layer in int8 or as loaded */
    judged judge[JUDGED_IMAGES];
    size_t n_judged, n_images, n_skipped, image;
    bool synthetic, has_cosines; /* has_cosines: those of the groups are known */
    double feature_cosine, token_cosine, token_sqnr;
};

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
    return in->low && in->high && in->rows && out->inv && out->w8 && out->mul && out->bias8;
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
        g->loss.int8 = true;
        g->loss.cosine = NAN;
        g->loss.sqnr = INFINITY;
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
    layer *l;
    const float *x;
    size_t n;
} see_job;

static void layer_see_task(void *user, size_t task, unsigned worker)
{
    see_job *j = user;
    size_t first = task * SEE_CHANNELS;
    (void)worker;
    fv_int8_see(&j->l->seen, j->x, j->n, first, FV_MIN(first + SEE_CHANNELS, j->l->k));
}

/* fv_observe_fn: ranges, and this image's share of the sample rows, drawn from all rows. */
static void layer_see(void *user, const void *site, const float *x, size_t n, size_t c)
{
    fv_calibration *q = user;
    layer *l = layer_at(q, site);
    if (!l)
        return;
    see_job j = { l, x, n };
    fv_pool_run(q->pool, (c + SEE_CHANNELS - 1) / SEE_CHANNELS, layer_see_task, &j);
    if (q->image == 0)
        layer_group(q, l)->macs += (double)n * (double)l->n *
                                   (double)(l->depthwise ? l->taps : l->k) * 1e-6;
    size_t end = SAMPLE_ROWS * (q->image + 1) / q->n_images;
    uint64_t state = q->image * 977 + 1;
    for (; l->seen.n_rows < end; l->seen.n_rows++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(l->seen.rows + l->seen.n_rows * c, x + (state >> 33) % n * c, c * sizeof *x);
    }
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

/* fv_calibrate_fn: the at-th image of n goes through; judged ones are spread over all. */
static fv_status image_see(void *user, const float *pixels, size_t at, size_t n, fv_error *err)
{
    fv_calibration *q = user;
    const fv_watch watch = { 0 };
    size_t n_tokens = (size_t)fv_config_image_tokens(q->c->image_size) * (size_t)q->c->d_model;
    size_t side = (size_t)q->c->image_size,
           most = FV_MIN((size_t)JUDGED_IMAGES,
                         FV_MAX((size_t)JUDGED_PIXELS / (side * side), (size_t)1));
    q->image = at;
    q->n_images = n;
    bool judge = q->n_judged < most && q->image >= q->n_judged * q->n_images / most;
    FV_TRY(fv_vision_run(&q->f32, &q->observed_ops, pixels, &watch, err));
    if (judge)
        FV_TRY(judged_keep(q, pixels, err));
    float *tokens = judge ? q->judge[q->n_judged - 1].tokens : fv_alloc(n_tokens, sizeof *tokens);
    if (!tokens)
        return fv_fail_memory(err, n_tokens * sizeof *tokens, "image tokens");
    fv_status status = fv_projector_run(&q->f32, &q->observed_ops, tokens, &watch, err);
    if (!judge)
        fv_free(tokens);
    q->image++;
    return status;
}

/* ---- every layer in int8, side by side ---------------------------------------------------- */

typedef struct solve_job {
    fv_calibration *q;
    float *scratch; /* [workers, each] */
    size_t each;
} solve_job;

static void layer_solve_task(void *user, size_t task, unsigned worker)
{
    solve_job *j = user;
    layer *l = &j->q->layers[task];
    const fv_mat *m = l->weight.slot;
    const fv_dw *dw = l->weight.slot;
    if (l->depthwise)
        fv_int8_depthwise(&l->int8, &l->seen, dw->w, l->taps, dw->mult);
    else
        fv_int8_matrix(&l->int8, &l->seen, m->data, m->type, l->n, m->bias, j->q->k,
                       j->scratch + worker * j->each);
}

static fv_status layers_solve(fv_calibration *q, fv_error *err)
{
    size_t k = 1, workers = fv_pool_threads(q->pool);
    for (size_t i = 0; i < q->n_layers; i++)
        k = FV_MAX(k, q->layers[i].k);
    solve_job j = { .q = q, .each = fv_int8_scratch_elems(k) };
    j.scratch = fv_alloc(workers * j.each, sizeof *j.scratch);
    if (!j.scratch)
        return fv_fail_memory(err, workers * j.each * sizeof *j.scratch, "calibration");
    fv_pool_run(q->pool, q->n_layers, layer_solve_task, &j);
    for (size_t i = 0; i < q->n_layers; i++) {
        fv_layer_loss *loss = &layer_group(q, &q->layers[i])->loss;
        loss->sqnr = fmin(loss->sqnr, q->layers[i].int8.sqnr);
    }
    fv_free(j.scratch);
    return FV_OK;
}

/* The layer of the int8 encoder, as its group has it. */
static void layer_assemble(const fv_calibration *q, const layer *l)
{
    const fv_int8_layer *s = &l->int8;
    const bool int8 = layer_group(q, l)->loss.int8;
    const fv_u8 in = { .inv = s->inv, .zero = s->zero };
    if (l->depthwise) {
        const fv_dw *dw = l->weight.slot;
        *(fv_dw *)l->twin = int8 ? (fv_dw){ .bias = dw->bias,
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

/* ---- which groups stay in int8 ------------------------------------------------------------ */

typedef struct loss {
    double features, tokens, sqnr; /* mean cosine of both; of the tokens, dB */
} loss;

/* The encoder as its groups are now, over the first n judged images, against f32. */
static fv_status loss_measure(fv_calibration *q, size_t n, loss *out, fv_error *err)
{
    const fv_watch watch = { .callbacks = q->o.callbacks };
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

static size_t groups_count_int8(const fv_calibration *q)
{
    size_t n = 0;
    for (size_t i = 0; i < q->n_groups; i++)
        n += q->groups[i].loss.int8;
    return n;
}

fv_status fv_calibrate_groups(fv_calibration *q, fv_error *err)
{
    if (q->has_cosines)
        return FV_OK;
    q->has_cosines = true;
    bool *keep = fv_alloc(q->n_groups, sizeof *keep);
    fv_status status = keep ? FV_OK : fv_fail_memory(err, q->n_groups, "layer groups");
    for (size_t i = 0; keep && i < q->n_groups; i++) {
        keep[i] = q->groups[i].loss.int8;
        q->groups[i].loss.int8 = false;
    }
    for (size_t i = 0; status == FV_OK && i < q->n_groups; i++) {
        fv_layer_loss *g = &q->groups[i].loss;
        loss l = { 0 };
        g->int8 = true;
        status = loss_measure(q, 1, &l, err);
        g->int8 = false;
        g->cosine = fmin(l.features, l.tokens);
    }
    for (size_t i = 0; keep && i < q->n_groups; i++)
        q->groups[i].loss.int8 = keep[i];
    fv_free(keep);
    return status;
}

/* Whether taking this group out of int8 can help: any, or, while image tokens are close enough,
 * those before the features. */
static bool group_counts(const group *g, bool features_only)
{
    return g->loss.int8 && (g->before_features || !features_only);
}

/* The one of them that loses most for the time that it saves. */
static group *groups_find_worst(const fv_calibration *q, bool features_only)
{
    group *worst = q->groups;
    double most = -INFINITY;
    for (size_t i = 0; i < q->n_groups; i++) {
        group *g = &q->groups[i];
        double lost = (1 - g->loss.cosine) / (g->macs + 1e-9);
        if (group_counts(g, features_only) && !(lost <= most)) {
            most = lost;
            worst = g;
        }
    }
    return worst;
}

/* Groups go back to a wider type, those first that lose most for the time they save, until the
 * encoder is at least as close to f32 as was asked for. Losses nearly add up, so it is measured
 * again when their sum says that it may be. */
static fv_status groups_choose(fv_calibration *q, fv_error *err)
{
    double goal = 1 - (q->o.min_cosine > 0 ? q->o.min_cosine : DEFAULT_COSINE);
    for (;;) {
        loss l;
        FV_TRY(loss_measure(q, q->n_judged, &l, err));
        q->feature_cosine = l.features;
        q->token_cosine = l.tokens;
        q->token_sqnr = l.sqnr;
        if (!isfinite(l.features) || !isfinite(l.tokens))
            return fv_fail(
                err, FV_ERR_FORMAT, 0,
                "the encoder's features are NaN or infinite; fetch the checkpoint again");
        double lost = 1 - fmin(l.features, l.tokens), sum = 0;
        if (lost <= goal || !groups_count_int8(q))
            return FV_OK;
        FV_TRY(fv_calibrate_groups(q, err));
        size_t n_left = 0;
        const bool features_only = 1 - l.tokens <= goal;
        for (size_t i = 0; i < q->n_groups; i++) {
            const group *g = &q->groups[i];
            sum += group_counts(g, features_only) ? 1 - g->loss.cosine : 0;
            n_left += group_counts(g, features_only);
        }
        double left = sum;
        /* one at least, so that this ends: features that are not close have a group in int8 before
         * them */
        do {
            group *g = groups_find_worst(q, features_only);
            g->loss.int8 = false;
            left -= 1 - g->loss.cosine;
        } while (--n_left > 0 && left > sum * goal / lost);
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

/* All images through the encoder in f32, observed; its memory is not needed afterwards. */
static fv_status calibration_see_images(fv_calibration *q, fv_error *err)
{
    fv_seen seen;
    FV_TRY(fv_ops_init(&q->observed_ops, q->k, q->pool, err));
    q->observed_ops.observe = layer_see;
    q->observed_ops.observe_user = q;
    FV_TRY(fv_vision_init(&q->f32, q->c, &q->w->vision, q->c->image_size, FV_TYPE_F32,
                          &q->observed_ops, err));
    FV_TRY(fv_calibrate_images(&seen, &q->o, FV_CALIBRATE_IMAGES, FV_CALIBRATE_SCENES, q->c, q->k,
                               q->pool, image_see, q, err));
    q->n_skipped = seen.n_skipped;
    q->synthetic = seen.synthetic;
    fv_vision_free(&q->f32);
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
    FV_TRY_GOTO(calibration_see_images(q, err));
    FV_TRY_GOTO(layers_solve(q, err));
    FV_TRY_GOTO(fv_ops_init(&q->ops, k, pool, err));
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
    fv_ops_free(&q->observed_ops);
    fv_ops_free(&q->ops);
    fv_weights_free(&q->int8);
    fv_region_free(&q->region);
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
    r->n_wide = q->n_groups - groups_count_int8(q);
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
    if (!l || !layer_group(q, l)->loss.int8)
        return FV_OK;
    const fv_int8_layer *s = &l->int8;
    size_t rows = l->depthwise ? l->taps : l->n, columns = l->depthwise ? l->n : l->k;
    const void *bias = l->depthwise ? (const void *)((const fv_dw *)t->slot)->bias : s->bias8;
    fv_type bias_type = l->depthwise ? FV_TYPE_F32 : FV_TYPE_I32;
    const fv_pack_part parts[5] = {
        { ".weight", FV_TYPE_I8, 2, { rows, columns }, s->w8, (float)s->sqnr },
        { ".scale", FV_TYPE_F32, 1, { l->n, 0 }, s->mul, INFINITY },
        { ".bias", bias_type, 1, { l->n, 0 }, bias, INFINITY },
        { ".inv", FV_TYPE_F32, 1, { l->k, 0 }, s->inv, INFINITY },
        { ".zero", FV_TYPE_I32, 1, { 1, 0 }, &s->zero, INFINITY },
    };
    memcpy(list, parts, sizeof parts);
    *n = FV_COUNT(parts);
    return FV_OK;
}

#define KEY(name) FV_ARCHITECTURE ".calibration." name

static void calibration_describe(void *user, fv_gguf_writer *w)
{
    fv_calibration *q = user;
    const char *method = q->synthetic ? "W8A8, synthetic scenes" : "W8A8, pictures";
    fv_gguf_put_string(w, KEY("method"), method, strlen(method));
    fv_gguf_put_u32(w, KEY("image_count"), (uint32_t)q->image);
    fv_gguf_put_f64(w, KEY("feature_cosine"), q->feature_cosine);
    fv_gguf_put_f64(w, KEY("token_cosine"), q->token_cosine);
    fv_gguf_put_strings(w, KEY("wide"), q->n_groups - groups_count_int8(q));
    for (size_t i = 0; i < q->n_groups; i++) {
        const fv_layer_loss *g = &q->groups[i].loss;
        if (!g->int8)
            fv_gguf_put_item(w, g->name, strlen(g->name));
    }
}

fv_pack_hook fv_calibration_hook(fv_calibration *q)
{
    return (fv_pack_hook){ .user = q, .parts = layer_parts, .describe = calibration_describe };
}
