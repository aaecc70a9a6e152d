/* Post-training quantisation of the encoder. See calibrate.h.
 *
 * A layer's input x becomes q = round(x inv[c]) + zero with inv[c] = 1 / (s[c] step). s evens out
 * channels of different size (s = |x|max^alpha) and is absorbed by the layer's weights, so the
 * product stays one of u8 with i8: outlier channels do not cost the others their steps.
 * [SmoothQuant, arXiv 2211.10438] alpha and the clipping of the range are those with the least
 * error of the layer's output on sample rows. Depthwise convolutions have a scale for each channel
 * of input and weights anyway. */
#include "pack/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config_gguf.h"
#include "nn/vision.h"

enum {
    SAMPLE_ROWS = 256, /* of every layer's input, over all pictures */
    JUDGED_ROWS = 64,  /* of them, for the choice of scales */
    JUDGED_OUTPUTS = 48,
    JUDGED_IMAGES = 16,      /* at most, for the encoder as a whole: */
    JUDGED_PIXELS = 3 << 20, /* pictures until there are so many pixels */
};

static const float alphas[] = { 0, 0.25f, 0.5f, 0.75f, 1 };
static const float clips[] = { 1, 0.95f, 0.9f, 0.8f, 0.7f, 0.6f, 0.5f };

/* A layer in int8. */
typedef struct layer {
    fv_weight weight; /* its row of the table, slot: fv_mat or fv_dw */
    void *twin;       /* its slot in the int8 encoder */
    bool depthwise;
    size_t n, k; /* outputs; channels of the input */
    unsigned taps;
    size_t unit;
    float *low, *high; /* [k] of the input */
    float *rows;       /* [SAMPLE_ROWS, k] */
    size_t n_rows;
    double macs; /* of a picture, in millions */
    float *inv;  /* [k] */
    int zero;
    int8_t *w8;     /* [n, k] or [taps, n] */
    float *mul;     /* [n] */
    int32_t *bias8; /* [n], matrices */
    double sqnr;
    float alpha, clip;
} layer;

typedef struct judged {
    float *pixels, *features, *tokens;
} judged;

struct fv_calibration {
    const fv_config *c;
    fv_weights *w;
    const fv_kernels *k;
    fv_pool *pool;
    fv_calibrate_options o;
    layer *layers;
    size_t n_layers, capacity;
    fv_layer_loss *units;
    size_t n_units;
    fv_ops ops;
    fv_ops seen_ops; /* observed */
    fv_vision seen;  /* in f32 */
    judged judge[JUDGED_IMAGES];
    size_t n_judged, n_images, n_skipped, image;
    bool synthetic, measured; /* measured: the units' cosines are */
    fv_weights int8;          /* the encoder as it will be: layers in int8 or as loaded */
    double feature_cosine, token_cosine, token_sqnr;
};

/* ---- the layers -------------------------------------------------------------------------- */

static fv_status count_layer(void *user, const fv_weight *t, fv_error *err)
{
    fv_calibration *q = user;
    (void)err;
    q->capacity += t->group >= 0;
    return FV_OK;
}

static void name_unit(fv_layer_loss *unit, const fv_weight *t)
{
    char name[FV_PACKED_NAME];
    fv_weight_packed_name(name, t, "");
    snprintf(unit->name, sizeof unit->name, "%.63s", name);
}

/* A group is named for its first layer. */
static fv_status add_layer(void *user, const fv_weight *t, fv_error *err)
{
    fv_calibration *q = user;
    if (t->group < 0)
        return FV_OK;
    bool depthwise = fv_weight_is_depthwise(t);
    layer *l = &q->layers[q->n_layers];
    *l = (layer){
        .weight = *t, .depthwise = depthwise, .n = t->n, .k = t->k, .taps = t->kernel * t->kernel
    };
    l->unit = (size_t)t->group;
    if (l->unit == q->n_units)
        name_unit(&q->units[q->n_units++], t);
    q->units[l->unit].int8 = true;
    q->units[l->unit].cosine = NAN;
    q->n_layers++;
    l->low = fv_alloc(l->k, sizeof *l->low);
    l->high = fv_alloc(l->k, sizeof *l->high);
    l->inv = fv_alloc(l->k, sizeof *l->inv);
    l->rows = fv_alloc(SAMPLE_ROWS * l->k, sizeof *l->rows);
    l->w8 = fv_alloc(depthwise ? (size_t)l->taps * l->n : l->n * l->k, 1);
    l->mul = fv_alloc(l->n, sizeof *l->mul);
    l->bias8 = fv_alloc(l->n, sizeof *l->bias8);
    if (!l->low || !l->high || !l->inv || !l->rows || !l->w8 || !l->mul || !l->bias8)
        return fv_fail_memory(err, SAMPLE_ROWS * l->k * sizeof *l->rows,
                              "the calibration of a layer");
    for (size_t i = 0; i < l->k; i++) {
        l->low[i] = 0; /* the range holds 0, which padding and GELU need exactly */
        l->high[i] = 0;
    }
    return FV_OK;
}

/* Where the int8 encoder has a layer of the loaded one. */
static fv_status find_twin(void *user, const fv_weight *t, fv_error *err)
{
    fv_calibration *q = user;
    (void)err;
    for (size_t i = 0; i < q->n_layers; i++)
        if (q->layers[i].weight.index == t->index)
            q->layers[i].twin = t->slot;
    return FV_OK;
}

static layer *find(fv_calibration *q, const void *slot)
{
    for (size_t i = 0; i < q->n_layers; i++)
        if (q->layers[i].weight.slot == slot)
            return &q->layers[i];
    return NULL;
}

/* ---- what flows through ------------------------------------------------------------------ */

typedef struct range_job {
    layer *l;
    const float *x;
    size_t n;
} range_job;

enum { RANGE_COLUMNS = 256 };

static void range_task(void *user, size_t task, unsigned worker)
{
    range_job *j = user;
    layer *l = j->l;
    size_t first = task * RANGE_COLUMNS, last = FV_MIN(first + RANGE_COLUMNS, l->k);
    (void)worker;
    for (size_t i = 0; i < j->n; i++) {
        const float *row = j->x + i * l->k;
        for (size_t c = first; c < last; c++) {
            l->low[c] = row[c] < l->low[c] ? row[c] : l->low[c];
            l->high[c] = row[c] > l->high[c] ? row[c] : l->high[c];
        }
    }
}

static void observe(void *user, const void *site, const float *x, size_t n, size_t c)
{
    fv_calibration *q = user;
    layer *l = find(q, site);
    if (!l)
        return;
    l->macs = (double)n * (double)l->n * (double)(l->depthwise ? l->taps : l->k) * 1e-6;
    range_job j = { l, x, n };
    fv_pool_run(q->pool, (c + RANGE_COLUMNS - 1) / RANGE_COLUMNS, range_task, &j);
    size_t end = SAMPLE_ROWS * (q->image + 1) / q->n_images;
    uint64_t state = q->image * 977 + 1;
    for (; l->n_rows < end; l->n_rows++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(l->rows + l->n_rows * c, x + (state >> 33) % n * c, c * sizeof *x);
    }
}

/* ---- scales of a matrix ------------------------------------------------------------------ */

typedef struct worker_memory {
    float *w, *s, *wq; /* rows of weights, [JUDGED_OUTPUTS, k] twice; smoothing [k] */
    float *y, *xq;     /* [JUDGED_ROWS, JUDGED_OUTPUTS]; [k] */
} worker_memory;

static void weight_row(const fv_calibration *q, const layer *l, size_t row, float *out)
{
    const fv_mat *m = l->weight.slot;
    q->k->convert[FV_TYPE_F32][m->type](
        out, (const uint8_t *)m->data + row * fv_row_bytes(m->type, m->k), m->k);
}

static float dot(const float *a, const float *b, size_t n)
{
    float s[16] = { 0 };
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++)
            s[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    float sum = 0;
    for (size_t j = 0; j < 16; j++)
        sum += s[j];
    return sum;
}

/* How far channel c reaches on either side. */
static float reach(const layer *l, size_t c) { return fmaxf(-l->low[c], l->high[c]); }

static float largest_reach(const layer *l)
{
    float most = 0;
    for (size_t c = 0; c < l->k; c++)
        most = fmaxf(most, reach(l, c));
    return most;
}

static void smoothing(const layer *l, float alpha, float *s)
{
    float floor = 1e-4f * largest_reach(l) + 1e-20f;
    for (size_t c = 0; c < l->k; c++)
        s[c] = powf(fmaxf(reach(l, c), floor), alpha);
}

/* Step and zero of u8 for the smoothed range times clip. */
static float step_of(const layer *l, const float *s, float clip, int *zero)
{
    float low = 0, high = 0;
    for (size_t c = 0; c < l->k; c++) {
        low = fminf(low, l->low[c] / s[c]);
        high = fmaxf(high, l->high[c] / s[c]);
    }
    float step = fmaxf((high - low) * clip / 255, 1e-20f);
    *zero = (int)FV_MIN(255.0f, FV_MAX(0.0f, rintf(-low * clip / step)));
    return step;
}

/* A row of weights times s as i8: the scale with the least squared error. Returns the scale; out
 * holds the values that the i8 stand for, w8 (may be NULL) the i8. */
static float round_row(const float *w, const float *s, size_t k, float *out, int8_t *w8)
{
    static const float shrink[] = { 1, 0.95f, 0.9f, 0.85f, 0.8f };
    float most = 0, best = 0;
    double least = INFINITY;
    for (size_t c = 0; c < k; c++)
        most = fmaxf(most, fabsf(w[c] * s[c]));
    if (most == 0)
        most = 1e-20f;
    for (size_t i = 0; i < FV_COUNT(shrink); i++) {
        float scale = most * shrink[i] / 127, inverse = 1 / scale, error[8] = { 0 };
        for (size_t c = 0; c < k; c++) {
            float x = w[c] * s[c], q = rintf(fminf(fmaxf(x * inverse, -127), 127)),
                  lost = x - q * scale;
            error[c & 7] += lost * lost;
        }
        double sum = 0;
        for (size_t j = 0; j < 8; j++)
            sum += (double)error[j];
        if (sum < least) {
            least = sum;
            best = scale;
        }
    }
    for (size_t c = 0; c < k; c++) {
        float q = rintf(fminf(fmaxf(w[c] * s[c] / best, -127), 127));
        out[c] = q * best;
        if (w8)
            w8[c] = (int8_t)q;
    }
    return best;
}

/* Squared error of the judged outputs with these scales; *signal: their own squares. */
static double judge_scales(const layer *l, const worker_memory *m, const float *s, float step,
                           int zero, size_t rows, size_t outputs, double *signal)
{
    double error = 0;
    *signal = 0;
    for (size_t i = 0; i < rows; i++) {
        const float *x = l->rows + i * l->n_rows / rows * l->k;
        for (size_t c = 0; c < l->k; c++) {
            float v = rintf(x[c] / (s[c] * step)) + (float)zero;
            m->xq[c] = (fminf(fmaxf(v, 0), 255) - (float)zero) * step;
        }
        for (size_t j = 0; j < outputs; j++) {
            double y = (double)m->y[i * JUDGED_OUTPUTS + j],
                   lost = y - (double)dot(m->xq, m->wq + j * l->k, l->k);
            error += lost * lost;
            *signal += y * y;
        }
    }
    return error;
}

static void solve_matrix(const fv_calibration *q, layer *l, const worker_memory *m)
{
    const fv_mat *mat = l->weight.slot;
    size_t rows = FV_MIN((size_t)JUDGED_ROWS, l->n_rows),
           outputs = FV_MIN((size_t)JUDGED_OUTPUTS, l->n);
    double best = INFINITY, signal = 0;
    float step = 1;
    for (size_t j = 0; j < outputs; j++)
        weight_row(q, l, j * l->n / outputs, m->w + j * l->k);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < outputs; j++)
            m->y[i * JUDGED_OUTPUTS + j] = dot(l->rows + i * l->n_rows / rows * l->k,
                                               m->w + j * l->k, l->k);
    for (size_t a = 0; a < FV_COUNT(alphas); a++) {
        smoothing(l, alphas[a], m->s);
        for (size_t j = 0; j < outputs; j++)
            round_row(m->w + j * l->k, m->s, l->k, m->wq + j * l->k, NULL);
        for (size_t i = 0; i < FV_COUNT(clips); i++) {
            int zero;
            float trial = step_of(l, m->s, clips[i], &zero);
            double error = judge_scales(l, m, m->s, trial, zero, rows, outputs, &signal);
            if (error < best) {
                best = error;
                l->alpha = alphas[a];
                l->clip = clips[i];
            }
        }
    }
    l->sqnr = best > 0 ? 10 * log10(signal / best) : 200;
    smoothing(l, l->alpha, m->s);
    step = step_of(l, m->s, l->clip, &l->zero);
    for (size_t c = 0; c < l->k; c++)
        l->inv[c] = 1 / (m->s[c] * step);
    for (size_t j = 0; j < l->n; j++) {
        int8_t *w8 = l->w8 + j * l->k;
        int32_t sum = 0;
        weight_row(q, l, j, m->w);
        float scale = round_row(m->w, m->s, l->k, m->wq, w8) * step,
              bias = mat->bias ? mat->bias[j] : 0;
        for (size_t c = 0; c < l->k; c++)
            sum += w8[c];
        /* rows of zeros, too, have a bias that fits */
        l->mul[j] = fmaxf(scale, fabsf(bias) * 0x1p-28f);
        l->bias8[j] = (int32_t)rintf(bias / l->mul[j]) - l->zero * sum;
    }
}

/* ---- scales of a depthwise convolution --------------------------------------------------- */

static void solve_depthwise(layer *l)
{
    const fv_dw *dw = l->weight.slot;
    double signal = 0, noise = 0;
    float floor = 1e-4f * largest_reach(l) + 1e-20f;
    l->zero = 128;
    for (size_t c = 0; c < l->k; c++) {
        float range = fmaxf(reach(l, c), floor), step = range / 127;
        double best = INFINITY, here = 0;
        for (size_t i = 0; i < FV_COUNT(clips); i++) {
            float trial = range * clips[i] / 127;
            double error = 0;
            here = 0;
            for (size_t r = 0; r < l->n_rows; r++) {
                float x = l->rows[r * l->k + c],
                      v = rintf(fminf(fmaxf(x / trial, -128), 127)) * trial;
                error += (double)(x - v) * (double)(x - v);
                here += (double)x * (double)x;
            }
            if (error < best) {
                best = error;
                step = trial;
            }
        }
        l->inv[c] = 1 / step;
        signal += here;
        noise += best;
    }
    l->sqnr = noise > 0 ? 10 * log10(signal / noise) : 200;
    for (size_t o = 0; o < l->n; o++) {
        float most = 0;
        for (size_t t = 0; t < l->taps; t++)
            most = fmaxf(most, fabsf(dw->w[t * l->n + o]));
        float scale = fmaxf(most / 127, 1e-20f);
        for (size_t t = 0; t < l->taps; t++)
            l->w8[t * l->n + o] = (int8_t)rintf(dw->w[t * l->n + o] / scale);
        l->mul[o] = scale / l->inv[o / dw->mult];
    }
}

/* ---- all layers, side by side ------------------------------------------------------------ */

typedef struct solve_job {
    fv_calibration *q;
    worker_memory *memory; /* by worker */
} solve_job;

static void solve_task(void *user, size_t task, unsigned worker)
{
    solve_job *j = user;
    layer *l = &j->q->layers[task];
    if (l->depthwise)
        solve_depthwise(l);
    else
        solve_matrix(j->q, l, &j->memory[worker]);
}

static fv_status solve(fv_calibration *q, fv_error *err)
{
    size_t k = 1, workers = fv_pool_threads(q->pool), each;
    fv_status status = FV_OK;
    for (size_t i = 0; i < q->n_layers; i++)
        k = FV_MAX(k, q->layers[i].k);
    each = 2 * JUDGED_OUTPUTS * k + 2 * k + JUDGED_ROWS * JUDGED_OUTPUTS;
    float *memory = fv_alloc(workers * each, sizeof *memory);
    worker_memory *m = fv_alloc(workers, sizeof *m);
    if (!memory || !m) {
        status = fv_fail_memory(err, workers * each * sizeof *memory, "calibration");
        goto fail;
    }
    for (size_t i = 0; i < workers; i++) {
        float *at = memory + i * each;
        m[i] = (worker_memory){ .w = at,
                                .wq = at + JUDGED_OUTPUTS * k,
                                .s = at + 2 * JUDGED_OUTPUTS * k,
                                .xq = at + 2 * JUDGED_OUTPUTS * k + k,
                                .y = at + 2 * JUDGED_OUTPUTS * k + 2 * k };
    }
    solve_job j = { q, m };
    fv_pool_run(q->pool, q->n_layers, solve_task, &j);
    for (size_t i = 0; i < q->n_units; i++)
        q->units[i].sqnr = INFINITY;
    for (size_t i = 0; i < q->n_layers; i++) {
        fv_layer_loss *u = &q->units[q->layers[i].unit];
        u->sqnr = fmin(u->sqnr, q->layers[i].sqnr);
    }
fail:
    fv_free(memory);
    fv_free(m);
    return status;
}

/* ---- the encoder in int8 ----------------------------------------------------------------- */

/* Every layer in int8 or as loaded, as its group has it. */
static void assemble(fv_calibration *q)
{
    for (size_t i = 0; i < q->n_layers; i++) {
        const layer *l = &q->layers[i];
        const bool int8 = q->units[l->unit].int8;
        const fv_u8 in = { .inv = l->inv, .zero = l->zero };
        if (l->depthwise) {
            const fv_dw *dw = l->weight.slot;
            *(fv_dw *)l->twin = int8 ? (fv_dw){ .bias = dw->bias,
                                                .channels = dw->channels,
                                                .mult = dw->mult,
                                                .kernel = dw->kernel,
                                                .w8 = l->w8,
                                                .mul = l->mul,
                                                .in = in }
                                     : *dw;
        } else {
            *(fv_mat *)l->twin = int8 ? (fv_mat){ .data = l->w8,
                                                  .type = FV_TYPE_I8,
                                                  .n = l->n,
                                                  .k = l->k,
                                                  .bias8 = l->bias8,
                                                  .mul = l->mul,
                                                  .in = in }
                                      : *(const fv_mat *)l->weight.slot;
        }
    }
}

typedef struct loss {
    double features, tokens, sqnr; /* mean cosine of both; of the tokens, dB */
} loss;

static double cosine(const float *a, const float *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb + 1e-300);
}

/* The encoder as assembled, over the first n judged pictures, against f32. */
static fv_status measure(fv_calibration *q, size_t n, loss *out, fv_error *err)
{
    fv_watch watch = { .callbacks = q->o.callbacks };
    fv_vision v = { 0 };
    size_t t = (size_t)fv_config_image_tokens(q->c->image_size), d = (size_t)q->c->d_model,
           f = (size_t)q->c->n_features;
    fv_status status = FV_OK;
    double signal = 0, noise = 0;
    *out = (loss){ 0 };
    assemble(q);
    float *tokens = fv_alloc(t * d, sizeof *tokens);
    if (!tokens)
        return fv_fail_memory(err, t * d * sizeof *tokens, "image tokens");
    FV_TRY_GOTO(
        fv_vision_init(&v, q->c, &q->int8.vision, q->c->image_size, FV_TYPE_I8, &q->ops, err));
    for (size_t i = 0; i < n; i++) {
        const judged *j = &q->judge[i];
        FV_TRY_GOTO(fv_vision_run(&v, &q->ops, j->pixels, &watch, err));
        FV_TRY_GOTO(fv_projector_run(&v, &q->ops, tokens, &watch, err));
        out->features += cosine(v.features, j->features, t * f) / (double)n;
        out->tokens += cosine(tokens, j->tokens, t * d) / (double)n;
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

static size_t count_int8(const fv_calibration *q)
{
    size_t n = 0;
    for (size_t i = 0; i < q->n_units; i++)
        n += q->units[i].int8;
    return n;
}

fv_status fv_calibrate_layers(fv_calibration *q, fv_error *err)
{
    if (q->measured)
        return FV_OK;
    q->measured = true;
    bool *keep = fv_alloc(q->n_units, sizeof *keep);
    fv_status status = keep ? FV_OK : fv_fail_memory(err, q->n_units, "units");
    for (size_t i = 0; keep && i < q->n_units; i++) {
        keep[i] = q->units[i].int8;
        q->units[i].int8 = false;
    }
    for (size_t i = 0; status == FV_OK && i < q->n_units; i++) {
        loss l = { 0 };
        q->units[i].int8 = true;
        status = measure(q, 1, &l, err);
        q->units[i].int8 = false;
        q->units[i].cosine = fmin(l.features, l.tokens);
    }
    for (size_t i = 0; keep && i < q->n_units; i++)
        q->units[i].int8 = keep[i];
    fv_free(keep);
    return status;
}

static double unit_macs(const fv_calibration *q, size_t unit)
{
    double macs = 0;
    for (size_t i = 0; i < q->n_layers; i++)
        macs += q->layers[i].unit == unit ? q->layers[i].macs : 0;
    return macs;
}

/* Which units can bring the encoder closer: all, or, while image tokens are close enough, those
 * before the features. */
static bool counts(const fv_calibration *q, size_t unit, bool features_only)
{
    return q->units[unit].int8 &&
           !(features_only &&
             !strncmp(q->units[unit].name, "model.mm_projector", strlen("model.mm_projector")));
}

/* The one of them that loses most for the time that it saves. */
static size_t worst_unit(const fv_calibration *q, bool features_only)
{
    size_t worst = 0;
    double most = -INFINITY;
    for (size_t i = 0; i < q->n_units; i++) {
        double lost = (1 - q->units[i].cosine) / (unit_macs(q, i) + 1e-9);
        if (counts(q, i, features_only) && !(lost <= most)) {
            most = lost;
            worst = i;
        }
    }
    return worst;
}

/* Units go back to a wider type, those first that lose most for the time they save, until the
 * encoder is as close to f32 as is wanted. Losses nearly add up, so it is measured again when their
 * sum says it may do. */
static fv_status reach_target(fv_calibration *q, fv_error *err)
{
    double goal = 1 - (q->o.min_cosine > 0 ? q->o.min_cosine : 0.9992);
    for (;;) {
        loss l;
        FV_TRY(measure(q, q->n_judged, &l, err));
        q->feature_cosine = l.features;
        q->token_cosine = l.tokens;
        q->token_sqnr = l.sqnr;
        if (!isfinite(l.features) || !isfinite(l.tokens))
            return fv_fail(
                err, FV_ERR_FORMAT, 0,
                "the encoder's features are NaN or infinite; fetch the checkpoint again");
        double lost = 1 - fmin(l.features, l.tokens), sum = 0;
        if (lost <= goal || !count_int8(q))
            return FV_OK;
        FV_TRY(fv_calibrate_layers(q, err));
        size_t n_left = 0;
        const bool features_only = 1 - l.tokens <= goal;
        for (size_t i = 0; i < q->n_units; i++) {
            sum += counts(q, i, features_only) ? 1 - q->units[i].cosine : 0;
            n_left += counts(q, i, features_only);
        }
        double left = sum;
        /* one at least, so that this ends: features that are not close have one in int8 before
         * them */
        do {
            size_t unit = worst_unit(q, features_only);
            q->units[unit].int8 = false;
            left -= 1 - q->units[unit].cosine;
        } while (--n_left > 0 && left > sum * goal / lost);
    }
}

/* ---- pictures ---------------------------------------------------------------------------- */

static fv_status keep_for_judging(fv_calibration *q, const float *pixels, fv_error *err)
{
    size_t s = (size_t)q->c->image_size, t = (size_t)fv_config_image_tokens(q->c->image_size);
    size_t f = t * (size_t)q->c->n_features, d = t * (size_t)q->c->d_model;
    judged *j = &q->judge[q->n_judged];
    j->pixels = fv_alloc(s * s * 3 + f + d, sizeof *j->pixels);
    if (!j->pixels)
        return fv_fail_memory(err, (s * s * 3 + f + d) * sizeof *j->pixels, "a judged picture");
    q->n_judged++;
    j->features = j->pixels + s * s * 3;
    j->tokens = j->features + f;
    memcpy(j->pixels, pixels, s * s * 3 * sizeof *pixels);
    memcpy(j->features, q->seen.features, f * sizeof *pixels);
    return FV_OK;
}

static fv_status see(void *user, const float *pixels, size_t at, size_t n, fv_error *err)
{
    fv_calibration *q = user;
    fv_watch watch = { 0 };
    size_t n_tokens = (size_t)fv_config_image_tokens(q->c->image_size) * (size_t)q->c->d_model;
    size_t side = (size_t)q->c->image_size,
           most = FV_MIN((size_t)JUDGED_IMAGES,
                         FV_MAX((size_t)JUDGED_PIXELS / (side * side), (size_t)1));
    q->image = at;
    q->n_images = n;
    bool judge = q->n_judged < most && q->image >= q->n_judged * q->n_images / most;
    FV_TRY(fv_vision_run(&q->seen, &q->seen_ops, pixels, &watch, err));
    if (judge)
        FV_TRY(keep_for_judging(q, pixels, err));
    float *tokens = judge ? q->judge[q->n_judged - 1].tokens : fv_alloc(n_tokens, sizeof *tokens);
    if (!tokens)
        return fv_fail_memory(err, n_tokens * sizeof *tokens, "image tokens");
    fv_status status = fv_projector_run(&q->seen, &q->seen_ops, tokens, &watch, err);
    if (!judge)
        fv_free(tokens);
    q->image++;
    return status;
}

/* ---- whole ------------------------------------------------------------------------------- */

static fv_status run(fv_calibration *q, fv_error *err)
{
    fv_seen seen;
    FV_TRY(fv_weights_walk(q->w, q->c, count_layer, q, err));
    q->layers = fv_alloc_zero(q->capacity, sizeof *q->layers);
    q->units = fv_alloc_zero(q->capacity, sizeof *q->units);
    if (!q->layers || !q->units)
        return fv_fail_memory(err, q->capacity * sizeof *q->layers, "calibration");
    FV_TRY(fv_weights_walk(q->w, q->c, add_layer, q, err));
    FV_TRY(fv_weights_share_vision(&q->int8, q->w, q->c, err));
    FV_TRY(fv_weights_walk(&q->int8, q->c, find_twin, q, err));
    FV_TRY(fv_ops_init(&q->ops, q->k, q->pool, err));
    FV_TRY(fv_ops_init(&q->seen_ops, q->k, q->pool, err));
    q->seen_ops.observe = observe;
    q->seen_ops.observe_user = q;
    FV_TRY(fv_vision_init(&q->seen, q->c, &q->w->vision, q->c->image_size, FV_TYPE_F32,
                          &q->seen_ops, err));
    FV_TRY(fv_calibrate_pictures(&seen, &q->o, FV_CALIBRATE_IMAGES, FV_CALIBRATE_SCENES, q->c, q->k,
                                 q->pool, see, q, err));
    q->n_skipped = seen.n_skipped;
    q->synthetic = seen.synthetic;
    fv_vision_free(&q->seen);
    fv_ops_free(&q->seen_ops);
    FV_TRY(solve(q, err));
    return reach_target(q, err);
}

fv_status fv_calibrate(fv_calibration **out, const fv_config *c, fv_weights *w, const fv_kernels *k,
                       fv_pool *pool, const fv_calibrate_options *options, fv_error *err)
{
    fv_calibration *q = fv_alloc_zero(1, sizeof *q);
    *out = NULL;
    if (!q)
        return fv_fail_memory(err, sizeof *q, "calibration");
    q->c = c;
    q->w = w;
    q->k = k;
    q->pool = pool;
    q->o = *options;
    fv_status status = run(q, err);
    if (status != FV_OK) {
        fv_calibration_free(q);
        return status;
    }
    *out = q;
    return FV_OK;
}

void fv_calibration_free(fv_calibration *q)
{
    if (!q)
        return;
    for (size_t i = 0; i < q->n_layers; i++) {
        layer *l = &q->layers[i];
        fv_free(l->low);
        fv_free(l->high);
        fv_free(l->inv);
        fv_free(l->rows);
        fv_free(l->w8);
        fv_free(l->mul);
        fv_free(l->bias8);
    }
    for (size_t i = 0; i < JUDGED_IMAGES; i++)
        fv_free(q->judge[i].pixels);
    fv_vision_free(&q->seen);
    fv_ops_free(&q->seen_ops);
    fv_ops_free(&q->ops);
    fv_free(q->layers);
    fv_free(q->units);
    fv_weights_free(&q->int8);
    fv_free(q);
}

size_t fv_calibration_units(const fv_calibration *q) { return q->n_units; }
const fv_layer_loss *fv_calibration_unit(const fv_calibration *q, size_t i) { return &q->units[i]; }

void fv_calibration_report(const fv_calibration *q, fv_pack_report *r)
{
    r->n_images = q->image;
    r->n_skipped = q->n_skipped;
    r->synthetic_images = q->synthetic;
    r->feature_cosine = q->feature_cosine;
    r->token_cosine = q->token_cosine;
    r->token_sqnr = q->token_sqnr;
    r->n_groups = q->n_units;
    r->n_wide = q->n_units - count_int8(q);
}

/* ---- into the file ----------------------------------------------------------------------- */

static fv_status parts(void *user, const fv_weight *t, fv_pack_part list[FV_PACK_PARTS], size_t *n,
                       fv_error *err)
{
    fv_calibration *q = user;
    const layer *l = find(q, t->slot);
    (void)err;
    *n = 0;
    if (!l || !q->units[l->unit].int8)
        return FV_OK;
    size_t rows = l->depthwise ? l->taps : l->n, columns = l->depthwise ? l->n : l->k;
    const void *bias = l->depthwise ? (const void *)((const fv_dw *)t->slot)->bias : l->bias8;
    list[0] = (fv_pack_part){ ".weight", FV_TYPE_I8, 2, { rows, columns }, l->w8, (float)l->sqnr };
    list[1] = (fv_pack_part){ ".scale", FV_TYPE_F32, 1, { l->n, 0 }, l->mul, INFINITY };
    list[2] = (fv_pack_part){ ".bias", l->depthwise ? FV_TYPE_F32 : FV_TYPE_I32,
                              1,       { l->n, 0 },
                              bias,    INFINITY };
    list[3] = (fv_pack_part){ ".inv", FV_TYPE_F32, 1, { l->k, 0 }, l->inv, INFINITY };
    list[4] = (fv_pack_part){ ".zero", FV_TYPE_I32, 1, { 1, 0 }, &l->zero, INFINITY };
    *n = 5;
    return FV_OK;
}

#define KEY(name) FV_ARCHITECTURE ".calibration." name

static void describe(void *user, fv_gguf_writer *w)
{
    fv_calibration *q = user;
    const char *method = q->synthetic ? "W8A8, synthetic scenes" : "W8A8, pictures";
    fv_gguf_put_string(w, KEY("method"), method, strlen(method));
    fv_gguf_put_u32(w, KEY("image_count"), (uint32_t)q->image);
    fv_gguf_put_f64(w, KEY("feature_cosine"), q->feature_cosine);
    fv_gguf_put_f64(w, KEY("token_cosine"), q->token_cosine);
    fv_gguf_put_strings(w, KEY("wide"), q->n_units - count_int8(q));
    for (size_t i = 0; i < q->n_units; i++)
        if (!q->units[i].int8)
            fv_gguf_put_item(w, q->units[i].name, strlen(q->units[i].name));
}

fv_pack_hook fv_calibration_hook(fv_calibration *q)
{
    return (fv_pack_hook){ .user = q, .parts = parts, .describe = describe };
}
