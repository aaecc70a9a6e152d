/* Rounding the decoder's layers with their inputs in view. See rounder.h. */
#include "pack/rounder.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/config_gguf.h"
#include "nn/decoder.h"
#include "pack/answers.h"
#include "pack/products.h"
#include "quant/quantize.h"
#include "base/report.h"

enum {
    N_SITES = 4, /* inputs of a layer: of q, k, v; of o; of gate, up; of down */
    N_MATRICES = 7
};

static const int site_of[N_MATRICES] = { 0, 0, 0, 1, 2, 2, 3 }, first_of[N_SITES] = { 0, 3, 4, 6 };

struct fv_rounder {
    const fv_config *c;
    fv_weights *w;
    const fv_kernels *k;
    fv_pool *pool;
    fv_type type;
    bool row_scales;
    fv_calibrate_options o;
    fv_ops ops;
    fv_decoder decoder;
    fv_sequence cache;              /* of the sequence at hand */
    fv_answers answers;             /* sequences of rows: what comes into the current layer */
    fv_input_groups sites[N_SITES]; /* n 0: not rounded */
    float *turned;                  /* [k, longest]: a sequence's inputs, transposed */
    float *x;                       /* [longest, d_model] */
    uint8_t *scratch; /* for each thread: rows of weights twice, then fv_quantize_compensated's */
    size_t scratch_bytes, scratch_rows_bytes;
    double *sums;                /* [3 tasks]: signal, noise, values that are not finite */
    uint8_t *data[N_MATRICES];   /* the current layer, rounded */
    float *scale[N_MATRICES];    /* with row_scales: of every row, */
    int32_t *offset[N_MATRICES]; /* and -128 times its sum */
    float sqnr[N_MATRICES];
    int layer; /* the current layer; -1: none yet */
};

static fv_mat *rounder_matrix(const fv_rounder *r, int layer, int i)
{
    fv_decoder_layer *l = &r->w->decoder.layer[layer];
    fv_mat *all[N_MATRICES] = { &l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down };
    return all[i];
}

static bool matrix_is_rounded(const fv_mat *m) { return m->k % FV_BLOCK == 0; }

static fv_status rounder_progress(const fv_rounder *r, double done, fv_error *err)
{
    return fv_progress(r->o.callbacks, "round", done, err);
}

/* ---- what a layer sees ------------------------------------------------------------------- */

/* fv_observe_fn */
static void site_see(void *user, const void *at, const void *x, fv_type type, size_t n, size_t c)
{
    assert(type == FV_TYPE_F32);
    (void)type;
    (void)c;
    fv_rounder *r = user;
    for (int i = 0; i < N_SITES; i++)
        if (at == rounder_matrix(r, r->layer, first_of[i]) && r->sites[i].n)
            fv_products_add(&r->sites[i], &r->ops, x, n, r->turned);
}

typedef struct factor_job {
    const fv_rounder *r;
    struct {
        const fv_input_groups *s;
        size_t g;
        bool good;
    } group[64];
    size_t n;
} factor_job;

static void factor_task(void *user, size_t task, unsigned worker)
{
    factor_job *j = user;
    fv_inputs in = fv_input_group(j->group[task].s, j->group[task].g);
    (void)worker;
    j->group[task].good = fv_inputs_factor(&in, j->r->k);
}

static fv_status factors_run(const fv_rounder *r, factor_job *j, fv_error *err)
{
    fv_pool_run(r->pool, j->n, factor_task, j);
    for (size_t i = 0; i < j->n; i++)
        if (!j->group[i].good)
            return fv_fail(
                err, FV_ERR_FORMAT, 0,
                "decoder layer %d: its input is NaN or infinite; fetch the checkpoint again",
                r->layer);
    j->n = 0;
    return FV_OK;
}

static fv_status factors_run_all(const fv_rounder *r, fv_error *err)
{
    factor_job j = { .r = r };
    for (int i = 0; i < N_SITES; i++) {
        for (size_t g = 0; g < r->sites[i].n; g++) {
            if (j.n == FV_COUNT(j.group))
                FV_TRY(factors_run(r, &j, err));
            j.group[j.n].s = &r->sites[i];
            j.group[j.n++].g = g;
        }
    }
    return factors_run(r, &j, err);
}

/* ---- rounding ---------------------------------------------------------------------------- */

typedef struct round_job {
    fv_rounder *r;
    const fv_mat *m;
    const fv_input_groups *s; /* NULL: only look for what is not finite */
    uint8_t *out;
    float *scale;    /* with row_scales */
    int32_t *offset; /* the same */
} round_job;

static void matrix_round_task(void *user, size_t task, unsigned worker)
{
    round_job *j = user;
    fv_rounder *r = j->r;
    size_t k = j->m->k, first = task * FV_COMPENSATED_ROWS,
           rows = FV_MIN((size_t)FV_COMPENSATED_ROWS, j->m->n - first);
    size_t row_bytes = fv_row_bytes(r->type, k);
    uint8_t *scratch = r->scratch + worker * r->scratch_bytes, *out = j->out + first * row_bytes;
    float *w = (float *)(void *)scratch, *back = w + rows * k;
    double *sum = r->sums + 3 * task;
    r->k->convert[FV_TYPE_F32][j->m->type](
        w, (const uint8_t *)j->m->data + first * fv_row_bytes(j->m->type, k), rows * k);
    sum[0] = sum[1] = sum[2] = 0;
    for (size_t i = 0; i < rows * k; i++)
        sum[2] += isfinite(w[i]) ? 0 : 1;
    if (sum[2] > 0 || !j->s)
        return;
    for (size_t i = 0; r->row_scales && i < rows; i++)
        fv_quantize_row(out + i * row_bytes, w + i * k, k); /* for its scale */
    for (size_t g = 0; g < j->s->n; g++) {
        fv_inputs in = fv_input_group(j->s, g);
        uint8_t *columns = out + fv_row_bytes(r->type, g * j->s->width);
        (r->row_scales ? fv_quantize_row_compensated : fv_quantize_compensated)(
            r->type, columns, row_bytes, w + g * j->s->width, k, rows, &in, r->k,
            scratch + r->scratch_rows_bytes);
    }
    for (size_t i = 0; r->row_scales && i < rows; i++)
        fv_row_scale_read(out + i * row_bytes, k, &j->scale[first + i], &j->offset[first + i]);
    for (size_t i = 0; i < rows; i++)
        fv_dequantize_weights(r->type, back + i * k, out + i * row_bytes, k);
    for (size_t i = 0; i < rows * k; i++) {
        double lost = (double)w[i] - (double)back[i];
        sum[0] += (double)w[i] * (double)w[i];
        sum[1] += lost * lost;
    }
}

/* sum: signal, noise, values that are not finite; added in the order of the rows, whoever computed
 * them. */
static void matrix_round(fv_rounder *r, int i, bool rounding, double sum[3])
{
    const fv_mat *m = rounder_matrix(r, r->layer, i);
    size_t tasks = (m->n + FV_COMPENSATED_ROWS - 1) / FV_COMPENSATED_ROWS;
    round_job j = { r,          m,           rounding ? &r->sites[site_of[i]] : NULL,
                    r->data[i], r->scale[i], r->offset[i] };
    fv_pool_run(r->pool, tasks, matrix_round_task, &j);
    sum[0] = sum[1] = sum[2] = 0;
    for (size_t t = 0; t < 3 * tasks; t++)
        sum[t % 3] += r->sums[t];
}

static fv_status layer_check_finite(fv_rounder *r, const fv_weight *q, fv_error *err)
{
    static const char *const names[N_MATRICES] = { "self_attn.q_proj", "self_attn.k_proj",
                                                   "self_attn.v_proj", "self_attn.o_proj",
                                                   "mlp.gate_proj",    "mlp.up_proj",
                                                   "mlp.down_proj" };
    char name[FV_PACKED_NAME];
    fv_weight_packed_name(name, q, "");
    char *end = strstr(name, names[0]);
    for (int i = 0; i < N_MATRICES; i++) {
        double sum[3];
        matrix_round(r, i, false, sum);
        if (sum[2] > 0)
            return fv_fail(
                err, FV_ERR_FORMAT, 0,
                "%.*s%s.weight: %.0f weights are NaN or infinite; fetch the checkpoint again",
                end ? (int)(end - name) : 0, name, names[i], sum[2]);
    }
    return FV_OK;
}

static fv_status sequences_run(fv_rounder *r, bool seeing, double done, fv_error *err)
{
    fv_ops ops = r->ops;
    ops.observe = seeing ? site_see : NULL;
    ops.observe_user = r;
    const size_t n = r->answers.n;
    for (size_t i = 0; i < n; i++) {
        const fv_answer_rows *s = &r->answers.list[i];
        float *x = seeing ? r->x : s->x;
        FV_TRY(rounder_progress(r, (r->layer + done + 0.3 * (double)i / (double)n) / r->c->n_layers,
                                err));
        if (seeing)
            memcpy(x, s->x, s->n * (size_t)r->c->d_model * sizeof *x);
        fv_decoder_run_layer(&r->decoder, &ops, &r->cache, (size_t)r->layer, x, s->n);
    }
    return FV_OK;
}

static fv_status layer_round(fv_rounder *r, int layer, const fv_weight *q, fv_error *err)
{
    fv_mat before[N_MATRICES];
    r->layer = layer;
    FV_TRY(layer_check_finite(r, q, err));
    for (int i = 0; i < N_SITES; i++)
        if (r->sites[i].n)
            memset(r->sites[i].h, 0, r->sites[i].k * r->sites[i].width * sizeof *r->sites[i].h);
    FV_TRY(sequences_run(r, true, 0, err));
    FV_TRY(factors_run_all(r, err));
    for (int i = 0; i < N_MATRICES; i++) {
        double sum[3];
        before[i] = *rounder_matrix(r, layer, i);
        if (!matrix_is_rounded(&before[i]))
            continue;
        FV_TRY(rounder_progress(r, (layer + 0.3 + 0.05 * i) / r->c->n_layers, err));
        matrix_round(r, i, true, sum);
        r->sqnr[i] = sum[1] > 0 ? (float)(10 * log10(sum[0] / sum[1])) : INFINITY;
    }
    for (int i = 0; i < N_MATRICES; i++)
        if (matrix_is_rounded(&before[i]))
            *rounder_matrix(r, layer, i) = (fv_mat){ .data = r->data[i],
                                                     .type = r->type,
                                                     .n = before[i].n,
                                                     .k = before[i].k,
                                                     .bias = before[i].bias,
                                                     .mul = r->scale[i],
                                                     .bias8 = r->offset[i] };
    fv_status status = layer + 1 < r->c->n_layers ? sequences_run(r, false, 0.7, err) : FV_OK;
    for (int i = 0; i < N_MATRICES; i++)
        *rounder_matrix(r, layer, i) = before[i];
    return status;
}

/* ---- memory ------------------------------------------------------------------------------ */

static fv_status site_take_memory(fv_rounder *r, fv_input_groups *s, size_t k, fv_error *err)
{
    if (k % FV_BLOCK)
        return FV_OK;
    FV_TRY(fv_products_init(s, k, err));
    r->scratch_bytes = FV_MAX(r->scratch_bytes, fv_compensated_scratch(r->k, s->width));
    const fv_ops_need need = fv_products_need(&r->ops, s, r->answers.longest);
    return fv_ops_reserve(&r->ops, &need, err);
}

static fv_status rounder_take_memory(fv_rounder *r, fv_error *err)
{
    size_t most_k = 0, most_n = 0, largest = 0;
    bool good = true;
    for (int i = 0; i < N_MATRICES; i++) {
        const fv_mat *m = rounder_matrix(r, 0, i);
        most_k = FV_MAX(most_k, m->k);
        most_n = FV_MAX(most_n, m->n);
        largest = FV_MAX(largest, m->n * m->k);
        r->data[i] = fv_alloc(matrix_is_rounded(m) ? fv_row_bytes(r->type, m->n * m->k) : 0, 1);
        good = good && r->data[i];
        if (r->row_scales) {
            r->scale[i] = fv_alloc(m->n, sizeof *r->scale[i]);
            r->offset[i] = fv_alloc(m->n, sizeof *r->offset[i]);
            good = good && r->scale[i] && r->offset[i];
        }
    }
    for (int i = 0; i < N_SITES; i++)
        FV_TRY(site_take_memory(r, &r->sites[i], rounder_matrix(r, 0, first_of[i])->k, err));
    r->scratch_rows_bytes = 2 * FV_COMPENSATED_ROWS * most_k * sizeof(float);
    r->scratch_bytes = (r->scratch_bytes + r->scratch_rows_bytes + 63) / 64 * 64;
    r->scratch = fv_alloc(r->ops.n_workers, r->scratch_bytes);
    r->sums = fv_alloc(3 * ((most_n + FV_COMPENSATED_ROWS - 1) / FV_COMPENSATED_ROWS),
                       sizeof *r->sums);
    r->turned = fv_alloc(most_k * r->answers.longest, sizeof *r->turned);
    r->x = fv_alloc(r->answers.longest * (size_t)r->c->d_model, sizeof *r->x);
    if (!good || !r->scratch || !r->sums || !r->turned || !r->x)
        return fv_fail_memory(err, largest, "the rounding of a layer");
    r->decoder.blocks = true; /* the rounded layer will be: room for its quantised rows */
    FV_TRY(fv_kv_reserve(&r->cache.kv, r->answers.longest, err));
    return fv_decoder_reserve(&r->decoder, &r->ops, r->answers.longest, err);
}

fv_status fv_rounder_new(fv_rounder **out, const fv_config *c, fv_weights *w, const fv_tokenizer *t,
                         const fv_kernels *k, fv_pool *pool, fv_type type, bool row_scales,
                         const fv_calibrate_options *options, fv_error *err)
{
    fv_rounder *r = fv_alloc_zero(1, sizeof *r);
    fv_status status;
    *out = NULL;
    if (!r)
        return fv_fail_memory(err, sizeof *r, "a rounder");
    *r = (fv_rounder){ .c = c,
                       .w = w,
                       .k = k,
                       .pool = pool,
                       .type = type,
                       .row_scales = row_scales,
                       .o = *options,
                       .layer = -1 };
    FV_TRY_GOTO(fv_ops_init(&r->ops, k, pool, err));
    FV_TRY_GOTO(fv_decoder_init(&r->decoder, c, &w->decoder, FV_TYPE_F32, err));
    FV_TRY_GOTO(fv_sequence_init(&r->cache, c, FV_TYPE_F32, err));
    FV_TRY_GOTO(fv_answers_collect(&r->answers, c, w, t, k, pool, options, err));
    FV_TRY_GOTO(rounder_take_memory(r, err));
    *out = r;
    return FV_OK;
fail:
    fv_rounder_free(r);
    return status;
}

void fv_rounder_free(fv_rounder *r)
{
    if (!r)
        return;
    fv_answers_free(&r->answers);
    for (int i = 0; i < N_SITES; i++)
        fv_products_free(&r->sites[i]);
    for (int i = 0; i < N_MATRICES; i++) {
        fv_free(r->data[i]);
        fv_free(r->scale[i]);
        fv_free(r->offset[i]);
    }
    fv_decoder_free(&r->decoder);
    fv_sequence_free(&r->cache);
    fv_ops_free(&r->ops);
    fv_free(r->turned);
    fv_free(r->x);
    fv_free(r->scratch);
    fv_free(r->sums);
    fv_free(r);
}

void fv_rounder_report(const fv_rounder *r, fv_pack_report *report)
{
    report->n_rounding_rows = r->answers.n_rows;
    report->n_rounding_images = r->answers.seen.n;
    report->synthetic_images = r->answers.seen.synthetic;
    report->n_skipped = r->answers.seen.n_skipped;
}

/* ---- into the file ----------------------------------------------------------------------- */

/* Where a weight stands; false: not one of a layer's matrices. */
static bool rounder_find(const fv_rounder *r, const void *slot, int *layer, int *i)
{
    for (*layer = 0; *layer < r->c->n_layers; ++*layer)
        for (*i = 0; *i < N_MATRICES; ++*i)
            if (rounder_matrix(r, *layer, *i) == slot)
                return true;
    return false;
}

static fv_status rounder_prepare(void *user, const fv_weight *t, fv_error *err)
{
    fv_rounder *r = user;
    int layer, i;
    if (!rounder_find(r, t->slot, &layer, &i) || layer == r->layer)
        return FV_OK;
    assert(i == 0 && layer == r->layer + 1); /* layers in order, q first */
    return layer_round(r, layer, t, err);
}

static fv_status rounder_parts(void *user, const fv_weight *t, fv_pack_part list[FV_PACK_PARTS],
                               size_t *n, fv_error *err)
{
    fv_rounder *r = user;
    int layer, i;
    (void)err;
    *n = 0;
    if (!rounder_find(r, t->slot, &layer, &i) || !matrix_is_rounded(t->slot))
        return FV_OK;
    const fv_mat *m = t->slot;
    list[(*n)++] = (fv_pack_part){ ".weight", r->type, 2, { m->n, m->k }, r->data[i], r->sqnr[i] };
    if (m->bias)
        list[(*n)++] = (fv_pack_part){ ".bias", FV_TYPE_F32, 1, { m->n, 0 }, m->bias, INFINITY };
    if (r->row_scales) {
        list[(*n)++] =
            (fv_pack_part){ ".scale", FV_TYPE_F32, 1, { m->n, 0 }, r->scale[i], INFINITY };
        list[(*n)++] = (fv_pack_part){ ".offset",   FV_TYPE_I32,  1,
                                       { m->n, 0 }, r->offset[i], INFINITY };
    }
    return FV_OK;
}

#define KEY(name) FV_ARCHITECTURE ".rounding." name

static void rounder_describe(void *user, fv_gguf_writer *w)
{
    const fv_rounder *r = user;
    const char *method = r->answers.seen.synthetic ? "compensated, synthetic scenes"
                                                   : "compensated, pictures";
    fv_gguf_put_string(w, KEY("method"), method, strlen(method));
    fv_gguf_put_u32(w, KEY("image_count"), (uint32_t)r->answers.seen.n);
    fv_gguf_put_u32(w, KEY("row_count"), (uint32_t)r->answers.n_rows);
}

fv_pack_hook fv_rounder_hook(fv_rounder *r)
{
    return (fv_pack_hook){
        .user = r, .prepare = rounder_prepare, .parts = rounder_parts, .describe = rounder_describe
    };
}
