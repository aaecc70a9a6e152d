/* sequence rows -> logits: the Qwen2 decoder, in the order in which it runs. docs/model.md,
 * section 6. */
#include "nn/decoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { KV_STEP = 1024 };

static size_t kv_row_bytes(const fv_kv_cache *kv) { return fv_kv_row_bytes(kv->type, kv->d_head); }

/* which: 0 keys, 1 values */
static uint8_t *kv_at(const fv_kv_cache *kv, size_t layer, size_t which, size_t head)
{
    return kv->data + ((layer * 2 + which) * kv->n_heads + head) * kv->capacity * kv_row_bytes(kv);
}

static fv_status kv_reserve(fv_kv_cache *kv, size_t n, fv_error *err)
{
    if (n <= kv->capacity)
        return FV_OK;
    fv_kv_cache fresh = *kv;
    fresh.capacity = FV_MAX(kv->capacity * 2, (n + KV_STEP - 1) / KV_STEP * KV_STEP);
    fresh.data_bytes = kv->n_layers * 2 * kv->n_heads * fresh.capacity * kv_row_bytes(kv);
    fresh.data = fv_alloc(fresh.data_bytes, 1);
    if (!fresh.data)
        return fv_fail_memory(err, fresh.data_bytes, "the KV cache");
    for (size_t i = 0; i < kv->n_layers * 2 * kv->n_heads && kv->n; i++)
        memcpy(fresh.data + i * fresh.capacity * kv_row_bytes(kv),
               kv->data + i * kv->capacity * kv_row_bytes(kv), kv->n * kv_row_bytes(kv));
    fv_free(kv->data);
    *kv = fresh;
    return FV_OK;
}

static bool layers_have_blocks(const fv_config *c, const fv_decoder_weights *w)
{
    bool any = false;
    for (int i = 0; i < c->n_layers; i++) {
        const fv_decoder_layer *l = &w->layer[i];
        const fv_mat *mats[] = { &l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down };
        for (size_t m = 0; m < FV_COUNT(mats); m++)
            any = any || fv_type_is_block(mats[m]->type);
    }
    return any;
}

fv_status fv_decoder_init(fv_decoder *d, const fv_config *c, const fv_decoder_weights *w,
                          fv_type act, fv_type kv_type, fv_error *err)
{
    bool blocks = layers_have_blocks(c, w);
    *d = (fv_decoder){ .c = c,
                       .w = w,
                       .act = blocks ? FV_TYPE_F32 : act,
                       .blocks = blocks || fv_type_is_block(w->head.type) };
    d->kv = (fv_kv_cache){ .type = kv_type,
                           .n_layers = (size_t)c->n_layers,
                           .n_heads = (size_t)c->n_kv_heads,
                           .d_head = (size_t)c->d_head };
    size_t half = (size_t)c->d_head / 2;
    d->frequency = fv_alloc(half, sizeof *d->frequency);
    d->logits = fv_alloc((size_t)c->n_vocab, sizeof *d->logits);
    if (!d->frequency || !d->logits)
        return fv_fail_memory(err, (size_t)c->n_vocab * sizeof *d->logits, "logits");
    /* f_m = theta^(-2m/d), rounded to f32 as the reference keeps it */
    for (size_t m = 0; m < half; m++)
        d->frequency[m] = 1.0f /
                          (float)pow(c->rope_theta, (double)((float)(2 * m) / (float)c->d_head));
    return FV_OK;
}

void fv_decoder_free(fv_decoder *d)
{
    fv_free(d->kv.data);
    fv_free(d->frequency);
    fv_free(d->logits);
    fv_pages_free(d->memory, d->memory_bytes);
    *d = (fv_decoder){ 0 };
}

static void layout(fv_decoder *d, size_t rows, fv_arena *a)
{
    const fv_config *c = d->c;
    size_t d_model = (size_t)c->d_model, d_head = (size_t)c->d_head;
    d->x = fv_arena_take(a, rows * d_model, sizeof *d->x);
    d->h = fv_arena_take(a, rows * d_model, sizeof(float));
    d->q = fv_arena_take(a, rows * (size_t)c->n_heads * d_head, sizeof *d->q);
    d->k = fv_arena_take(a, rows * (size_t)c->n_kv_heads * d_head, sizeof *d->k);
    d->v = fv_arena_take(a, rows * (size_t)c->n_kv_heads * d_head, sizeof *d->v);
    d->ffn = fv_arena_take(a, rows * (size_t)c->d_ffn, sizeof(float));
    d->rope = fv_arena_take(a, rows * d_head, sizeof *d->rope);
}

static fv_ops_need needs(const fv_decoder *d, const fv_ops *ops, size_t m)
{
    const fv_config *c = d->c;
    size_t dm = (size_t)c->d_model, kv = (size_t)c->n_kv_heads * (size_t)c->d_head,
           f = (size_t)c->d_ffn;
    fv_ops_need need = fv_linear_need(ops->k, ops->n_workers, dm, dm, m, d->act);
    need = fv_ops_max(need, fv_linear_need(ops->k, ops->n_workers, kv, dm, m, d->act));
    need = fv_ops_max(need, fv_gated_need(ops->k, f, dm, m, d->act));
    need = fv_ops_max(need, fv_linear_need(ops->k, ops->n_workers, dm, f, m, d->act));
    if (d->blocks) {
        need = fv_ops_max(need, fv_quant_need(ops->k, ops->n_workers, f, dm, m));
        need = fv_ops_max(need, fv_quant_need(ops->k, ops->n_workers, dm, f, m));
    }
    return need;
}

fv_status fv_decoder_reserve(fv_decoder *d, fv_ops *ops, size_t n_rows, size_t n_context,
                             fv_error *err)
{
    n_rows = FV_MIN(n_rows, (size_t)FV_PREFILL_ROWS);
    FV_TRY(kv_reserve(&d->kv, n_context, err));
    fv_ops_need need = needs(d, ops, n_rows);
    FV_TRY(fv_ops_reserve(ops, &need, err));
    if (n_rows <= d->rows)
        return FV_OK;
    fv_arena a = { 0 };
    fv_decoder fresh = *d;
    layout(&fresh, n_rows, &a);
    void *memory = a.overflow ? NULL : fv_pages_alloc(a.used);
    if (!memory)
        return fv_fail_memory(err, a.used, "the decoder's rows");
    fv_pages_free(d->memory, d->memory_bytes);
    d->memory = memory;
    d->memory_bytes = a.used;
    d->rows = n_rows;
    a = (fv_arena){ .base = memory, .capacity = a.used };
    layout(d, n_rows, &a);
    return FV_OK;
}

void fv_decoder_embed(const fv_decoder *d, const fv_ops *ops, float *x, const int32_t *ids,
                      size_t n)
{
    const fv_mat *e = &d->w->embed;
    for (size_t i = 0; i < n; i++)
        ops->k->convert[FV_TYPE_F32][e->type](
            x + i * e->k, (const uint8_t *)e->data + (size_t)ids[i] * fv_row_bytes(e->type, e->k),
            e->k);
}

/* ---- one layer --------------------------------------------------------------------------- */

typedef struct norm_job {
    const fv_decoder *d;
    const fv_ops *ops;
    const float *weight;
    fv_type act;
    size_t n;
} norm_job;

enum { NORM_ROWS = 16 /* a task */ };

static void norm_task(void *user, size_t task, unsigned worker)
{
    const norm_job *j = user;
    size_t dm = (size_t)j->d->c->d_model, row = task * NORM_ROWS;
    (void)worker;
    j->ops->k->rmsnorm((uint8_t *)j->d->h + row * dm * fv_type_size(j->act), j->act, dm,
                       j->d->x + row * dm, dm, j->weight, FV_MIN((size_t)NORM_ROWS, j->n - row), dm,
                       (float)j->d->c->rms_eps);
}

/* h = the norm of x's n rows */
static void norm(const fv_decoder *d, const fv_ops *ops, const float *weight, fv_type act, size_t n)
{
    norm_job j = { d, ops, weight, act, n };
    fv_pool_run(ops->pool, (n + NORM_ROWS - 1) / NORM_ROWS, norm_task, &j);
}

typedef struct head_job {
    fv_decoder *d;
    const fv_ops *ops;
    size_t n, past, layer;
    uint8_t *out;
    fv_type out_type;
} head_job;

/* One key-value head: rotate its keys and the queries that share it, append to the cache. */
static void rotate_task(void *user, size_t head, unsigned worker)
{
    head_job *j = user;
    fv_decoder *d = j->d;
    const fv_kernels *k = j->ops->k;
    size_t w = (size_t)d->c->d_head, heads = (size_t)d->c->n_heads,
           kv_heads = (size_t)d->c->n_kv_heads;
    size_t group = heads / kv_heads, row_bytes = kv_row_bytes(&d->kv);
    uint8_t *keys = kv_at(&d->kv, j->layer, 0, head) + j->past * row_bytes;
    uint8_t *values = kv_at(&d->kv, j->layer, 1, head) + j->past * row_bytes;
    (void)worker;
    for (size_t i = 0; i < j->n; i++) {
        const float *cosine = d->rope + i * w, *sine = cosine + w / 2;
        float *key = d->k + (i * kv_heads + head) * w;
        k->rope(d->q + (i * heads + head * group) * w, cosine, sine, group, w);
        k->rope(key, cosine, sine, 1, w);
        k->convert[d->kv.type][FV_TYPE_F32](keys + i * row_bytes, key, w);
        k->convert[d->kv.type][FV_TYPE_F32](values + i * row_bytes,
                                            d->v + (i * kv_heads + head) * w, w);
    }
}

/* Many rows: one query head and a block of rows a task. One row: the query heads of a key-value
 * head are the rows. */
static void attend_task(void *user, size_t task, unsigned worker)
{
    head_job *j = user;
    const fv_decoder *d = j->d;
    size_t w = (size_t)d->c->d_head, heads = (size_t)d->c->n_heads,
           group = heads / (size_t)d->c->n_kv_heads;
    size_t ld = d->kv.type == FV_TYPE_I8 ? kv_row_bytes(&d->kv) : w;
    fv_attn_args a = { .n_kv = j->past + j->n,
                       .ldk = ld,
                       .ldv = ld,
                       .kv_type = d->kv.type,
                       .d = w,
                       .scale = 1.0f / sqrtf((float)w),
                       .out_type = j->out_type,
                       .scratch = fv_ops_worker(j->ops, worker) };
    size_t head, at;
    if (j->n == 1) {
        size_t parts = (group + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q,
               part = task % parts * FV_ATTN_MAX_Q;
        head = task / parts;
        at = (head * group + part) * w;
        a.n_q = FV_MIN((size_t)FV_ATTN_MAX_Q, group - part);
        a.ldq = a.ldo = w;
    } else {
        size_t blocks = (j->n + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q,
               row = task % blocks * FV_ATTN_MAX_Q;
        head = task / blocks / group;
        at = row * heads * w + task / blocks * w;
        a.n_q = FV_MIN((size_t)FV_ATTN_MAX_Q, j->n - row);
        a.ldq = a.ldo = heads * w;
        a.causal = true;
        a.n_visible = j->past + row + 1;
    }
    a.k = kv_at(&d->kv, j->layer, 0, head);
    a.v = kv_at(&d->kv, j->layer, 1, head);
    a.q = d->q + at;
    a.out = j->out + at * fv_type_size(j->out_type);
    j->ops->k->attn(&a);
}

static void run_attention(fv_decoder *d, const fv_ops *ops, size_t layer, size_t n, size_t past,
                          fv_type act)
{
    size_t heads = (size_t)d->c->n_heads, kv_heads = (size_t)d->c->n_kv_heads;
    head_job j = { d, ops, n, past, layer, d->h, act };
    fv_pool_run(ops->pool, kv_heads, rotate_task, &j);
    size_t tasks = n == 1 ? kv_heads * ((heads / kv_heads + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q)
                          : heads * ((n + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q);
    fv_pool_run(ops->pool, tasks, attend_task, &j);
}

static void run_layer(fv_decoder *d, const fv_ops *ops, size_t layer, size_t n, size_t past,
                      const fv_watch *watch)
{
    const fv_decoder_layer *w = &d->w->layer[layer];
    size_t dm = (size_t)d->c->d_model, q = (size_t)d->c->n_heads * (size_t)d->c->d_head;
    size_t kv = (size_t)d->c->n_kv_heads * (size_t)d->c->d_head;
    fv_type act = n == 1 ? FV_TYPE_F32 : d->act;
    norm(d, ops, w->norm1, act, n);
    fv_watch_observe(watch, &w->q, d->h, n, dm); /* k and v have the same input */
    fv_linear qkv[3] = { { .w = &w->q, .y = d->q, .ldy = q },
                         { .w = &w->k, .y = d->k, .ldy = kv },
                         { .w = &w->v, .y = d->v, .ldy = kv } };
    fv_linear_run(ops, qkv, 3, d->h, act, dm, n);
    run_attention(d, ops, layer, n, past, act);
    fv_watch_observe(watch, &w->o, d->h, n, q);
    fv_linear o = { .w = &w->o, .y = d->x, .ldy = dm, .residual = d->x, .ldr = dm };
    fv_linear_run(ops, &o, 1, d->h, act, q, n);
    norm(d, ops, w->norm2, act, n);
    fv_watch_observe(watch, &w->gate, d->h, n, dm); /* as up's */
    fv_gated_run(ops, &w->gate, &w->up, d->ffn, act, d->h, act, n);
    fv_watch_observe(watch, &w->down, d->ffn, n, (size_t)d->c->d_ffn);
    fv_linear down = { .w = &w->down, .y = d->x, .ldy = dm, .residual = d->x, .ldr = dm };
    fv_linear_run(ops, &down, 1, d->ffn, act, (size_t)d->c->d_ffn, n);
}

static void set_positions(fv_decoder *d, size_t n, size_t past)
{
    size_t half = (size_t)d->c->d_head / 2;
    for (size_t i = 0; i < n; i++) {
        for (size_t m = 0; m < half; m++) {
            float angle = (float)(past + i) * d->frequency[m];
            d->rope[i * 2 * half + m] = cosf(angle);
            d->rope[i * 2 * half + half + m] = sinf(angle);
        }
    }
}

static void head(fv_decoder *d, const fv_ops *ops, const float *normed, float *logits)
{
    fv_linear to_logits = { .w = &d->w->head, .y = logits, .ldy = d->w->head.n };
    fv_linear_run(ops, &to_logits, 1, normed, FV_TYPE_F32, d->w->head.k, 1);
}

/* The final norm of a prompt's rows, and in files the logits of every row. */
static fv_status dump_all_rows(fv_decoder *d, const fv_ops *ops, size_t n, const fv_watch *watch,
                               fv_error *err)
{
    size_t dm = (size_t)d->c->d_model, v = (size_t)d->c->n_vocab;
    fv_status status = FV_OK;
    float *normed = fv_alloc(n * dm, sizeof *normed),
          *logits = fv_watch_dumps(watch) ? fv_alloc(n * v, sizeof *logits) : NULL;
    if (!normed || (!logits && fv_watch_dumps(watch))) {
        status = fv_fail_memory(err, n * v * sizeof *logits, "a dump");
        goto fail;
    }
    ops->k->rmsnorm(normed, FV_TYPE_F32, dm, d->x, dm, d->w->norm, n, dm, (float)d->c->rms_eps);
    FV_TRY_GOTO(fv_watch_rows(watch, "decoder.norm", normed, n, dm, err));
    if (!logits)
        goto fail;
    for (size_t i = 0; i < n; i++)
        head(d, ops, normed + i * dm, logits + i * v);
    FV_TRY_GOTO(fv_watch_rows(watch, "logits_prefill", logits, n, v, err));
fail:
    fv_free(normed);
    fv_free(logits);
    return status;
}

static fv_status run_rows(fv_decoder *d, const fv_ops *ops, const float *x, size_t n,
                          const fv_watch *watch, double done, double share, fv_error *err)
{
    size_t dm = (size_t)d->c->d_model, layers = (size_t)d->c->n_layers, past = d->kv.n;
    char name[64];
    memcpy(d->x, x, n * dm * sizeof *d->x);
    set_positions(d, n, past);
    for (size_t i = 0; i < layers; i++) {
        if (n > 1)
            FV_TRY(fv_watch_step(watch, "prefill", done + share * (double)i / (double)layers, err));
        run_layer(d, ops, i, n, past, watch);
        if (n > 1 && fv_watch_taps(watch)) {
            snprintf(name, sizeof name, "decoder.layer.%zu", i);
            FV_TRY(fv_watch_rows(watch, name, d->x, n, dm, err));
        }
    }
    if (n > 1 && fv_watch_taps(watch))
        FV_TRY(dump_all_rows(d, ops, n, watch, err));
    d->kv.n = past + n;
    return FV_OK;
}

fv_status fv_decoder_run(fv_decoder *d, const fv_ops *ops, const float *x, size_t n,
                         const fv_watch *watch, fv_error *err)
{
    size_t dm = (size_t)d->c->d_model, before = d->kv.n, m = 0;
    for (size_t i = 0; i < n; i += m) {
        m = FV_MIN(n - i, d->rows);
        fv_status status = run_rows(d, ops, x + i * dm, m, watch, (double)i / (double)n,
                                    (double)m / (double)n, err);
        if (status != FV_OK) {
            d->kv.n = before;
            return status;
        }
    }
    float *normed = d->q; /* [d_model]; the queries are not needed any more */
    ops->k->rmsnorm(normed, FV_TYPE_F32, dm, d->x + (m - 1) * dm, dm, d->w->norm, 1, dm,
                    (float)d->c->rms_eps);
    head(d, ops, normed, d->logits);
    return FV_OK;
}

void fv_decoder_run_layer(fv_decoder *d, const fv_ops *ops, size_t layer, float *x, size_t n,
                          const fv_watch *watch)
{
    size_t dm = (size_t)d->c->d_model, m;
    for (size_t i = 0; i < n; i += m) {
        m = FV_MIN(n - i, d->rows);
        memcpy(d->x, x + i * dm, m * dm * sizeof *x);
        set_positions(d, m, i);
        run_layer(d, ops, layer, m, i, watch);
        memcpy(x + i * dm, d->x, m * dm * sizeof *x);
    }
}
