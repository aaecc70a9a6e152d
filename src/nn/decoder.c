/* sequence rows -> logits: the Qwen2 decoder, in the order in which it runs. docs/model.md,
 * section 6, from which the formulas below are. */
#include "nn/decoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    NORM_ROWS = 16 /* a task: 57 KB of x at a width of 896, a few microseconds */
};

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
                          fv_type act, fv_error *err)
{
    bool blocks = layers_have_blocks(c, w);
    *d = (fv_decoder){ .c = c,
                       .w = w,
                       .act = blocks ? FV_TYPE_F32 : act,
                       .blocks = blocks || fv_type_is_block(w->head.type) };
    size_t half = (size_t)c->d_head / 2;
    d->frequency = fv_alloc(half, sizeof *d->frequency);
    if (!d->frequency)
        return fv_fail_memory(err, half * sizeof *d->frequency, "the decoder's frequencies");
    /* f_m = rope_theta^(-2m/D), rounded to f32 as the reference keeps it */
    for (size_t m = 0; m < half; m++)
        d->frequency[m] = 1.0f /
                          (float)pow(c->rope_theta, (double)((float)(2 * m) / (float)c->d_head));
    return FV_OK;
}

void fv_decoder_free(fv_decoder *d)
{
    fv_free(d->frequency);
    fv_pages_free(d->memory, d->memory_bytes);
    *d = (fv_decoder){ 0 };
}

fv_status fv_sequence_init(fv_sequence *s, const fv_config *c, fv_type kv_type, fv_error *err)
{
    *s = (fv_sequence){ .logits = fv_alloc((size_t)c->n_vocab, sizeof *s->logits) };
    fv_kv_init(&s->kv, c, kv_type);
    return s->logits ? FV_OK
                     : fv_fail_memory(err, (size_t)c->n_vocab * sizeof *s->logits, "logits");
}

void fv_sequence_free(fv_sequence *s)
{
    fv_kv_free(&s->kv);
    fv_free(s->logits);
    *s = (fv_sequence){ 0 };
}

/* Values of a row of queries, and of keys or values. */
static size_t width_of_queries(const fv_config *c)
{
    return (size_t)c->n_heads * (size_t)c->d_head;
}
static size_t width_of_keys(const fv_config *c)
{
    return (size_t)c->n_kv_heads * (size_t)c->d_head;
}

static void buffers_take(fv_decoder *d, size_t rows, fv_arena *a)
{
    const fv_config *c = d->c;
    size_t dm = (size_t)c->d_model, hd = width_of_queries(c), hd_kv = width_of_keys(c);
    d->x = fv_arena_take(a, rows * dm, sizeof *d->x);
    d->h = fv_arena_take(a, rows * FV_MAX(dm, hd), sizeof(float));
    d->q = fv_arena_take(a, rows * hd, sizeof *d->q);
    d->k = fv_arena_take(a, rows * hd_kv, sizeof *d->k);
    d->v = fv_arena_take(a, rows * hd_kv, sizeof *d->v);
    d->ffn = fv_arena_take(a, rows * (size_t)c->d_ffn, sizeof(float));
    d->rope = fv_arena_take(a, rows * (size_t)c->d_head, sizeof *d->rope);
}

/* Scratch of the operations below, for m rows. */
static fv_ops_need decoder_need(const fv_decoder *d, const fv_ops *ops, size_t m)
{
    const fv_config *c = d->c;
    size_t dm = (size_t)c->d_model, hd = width_of_queries(c), hd_kv = width_of_keys(c),
           f = (size_t)c->d_ffn;
    fv_ops_need need = fv_linear_need(ops->k, ops->n_workers, hd, dm, m, d->act);
    need = fv_ops_max(need, fv_linear_need(ops->k, ops->n_workers, hd_kv, dm, m, d->act));
    need = fv_ops_max(need, fv_linear_need(ops->k, ops->n_workers, dm, hd, m, d->act));
    need = fv_ops_max(need, fv_gated_need(ops->k, f, dm, m, d->act));
    need = fv_ops_max(need, fv_linear_need(ops->k, ops->n_workers, dm, f, m, d->act));
    if (d->blocks) {
        need = fv_ops_max(need, fv_quant_need(ops->k, ops->n_workers, f, dm, m));
        need = fv_ops_max(need, fv_quant_need(ops->k, ops->n_workers, dm, FV_MAX(hd, f), m));
    }
    return need;
}

fv_status fv_decoder_reserve(fv_decoder *d, fv_ops *ops, size_t n_rows, fv_error *err)
{
    n_rows = FV_MIN(n_rows, (size_t)FV_PREFILL_ROWS);
    fv_ops_need need = decoder_need(d, ops, n_rows);
    FV_TRY(fv_ops_reserve(ops, &need, err));
    if (n_rows <= d->rows)
        return FV_OK;
    fv_arena a = { 0 };
    fv_decoder fresh = *d;
    buffers_take(&fresh, n_rows, &a);
    void *memory = a.overflow ? NULL : fv_pages_alloc(a.used);
    if (!memory)
        return fv_fail_memory(err, a.used, "the decoder's rows");
    fv_pages_free(d->memory, d->memory_bytes);
    d->memory = memory;
    d->memory_bytes = a.used;
    d->rows = n_rows;
    a = (fv_arena){ .base = memory, .capacity = a.used };
    buffers_take(d, n_rows, &a);
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

/* Rows [first, first + n) of every buffer: the next ones of a sequence. */
typedef struct row_part {
    fv_sequence *seq;
    size_t first, n;
    size_t past;       /* rows before them, which they see */
    size_t first_task; /* of attention */
} row_part;

/* What goes through the layers: parts that follow each other, each behind what its sequence's cache
 * holds. Parts of prompts have several rows, those of a step one each. */
typedef struct row_set {
    fv_decoder *d;
    const fv_ops *ops;
    row_part *part; /* [n_parts] */
    size_t n_parts, n;
    size_t n_tasks; /* of attention */
    bool each;      /* one row a part: rows get the bits that they have by themselves */
    fv_type act;    /* of d->h and d->ffn */
    size_t layer;
} row_set;

/* Of a prompt, where the layer's products are no more exact than in bf16 and the processor
 * multiplies bf16 faster than f32. */
static bool attends_in_bf16(const row_set *r)
{
    const fv_kernels *k = r->ops->k;
    const bool coarse = r->d->act == FV_TYPE_BF16 ||
                        fv_type_is_block(r->d->w->layer[r->layer].q.type);
    return coarse && !r->each && k->fast_bf16 && k->attn_bf16;
}

/* Tasks of attention for n rows of a sequence. Of a prompt: a query head and FV_ATTN_MAX_Q rows. Of
 * a step: the query heads that share a key-value head are the rows, so that its keys are read
 * once. */
static size_t part_tasks(const row_set *r, size_t n)
{
    size_t heads = (size_t)r->d->c->n_heads, kv_heads = (size_t)r->d->c->n_kv_heads;
    size_t rows = r->each ? heads / kv_heads : n;
    return (r->each ? kv_heads : heads) * ((rows + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q);
}

/* part: seq, n and past are given. */
static row_set row_set_of(fv_decoder *d, const fv_ops *ops, row_part *part, size_t n_parts,
                          bool each)
{
    row_set r = { .d = d,
                  .ops = ops,
                  .part = part,
                  .n_parts = n_parts,
                  .each = each,
                  .act = each ? FV_TYPE_F32 : d->act };
    for (size_t i = 0; i < n_parts; i++) {
        part[i].first = r.n;
        part[i].first_task = r.n_tasks;
        r.n += part[i].n;
        r.n_tasks += part_tasks(&r, part[i].n);
    }
    return r;
}

/* y = x W^T + bias (+ residual), x [n, width] of act. Rows of a step keep the bits that they have
 * alone; a prompt's rows share tiles, which sum in another order. */
static void rows_linear(const row_set *r, const fv_linear *layers, size_t n_layers, const void *x,
                        size_t width)
{
    if (r->each)
        fv_linear_run_each(r->ops, layers, n_layers, x, width, r->n);
    else
        fv_linear_run(r->ops, layers, n_layers, x, r->act, width, r->n);
}

typedef struct norm_job {
    const row_set *rows;
    const float *weight; /* [d_model] */
} norm_job;

static void norm_task(void *user, size_t task, unsigned worker)
{
    const norm_job *j = user;
    const row_set *r = j->rows;
    size_t dm = (size_t)r->d->c->d_model, row = task * NORM_ROWS;
    (void)worker;
    r->ops->k->rmsnorm((uint8_t *)r->d->h + row * dm * fv_type_size(r->act), r->act, dm,
                       r->d->x + row * dm, dm, j->weight, FV_MIN((size_t)NORM_ROWS, r->n - row), dm,
                       (float)r->d->c->rms_eps);
}

/* h = RMS(x, weight) = weight (x rsqrt(mean(x^2) + eps)) */
static void rows_norm(const row_set *r, const float *weight)
{
    const double start = fv_op_start(r->ops);
    norm_job j = { r, weight };
    fv_pool_run(r->ops->pool, (r->n + NORM_ROWS - 1) / NORM_ROWS, norm_task, &j);
    fv_op_end(r->ops, start, &(fv_op_time){ .kind = "norm", .site = { weight }, .n_rows = r->n });
}

/* A part and one of its key-value heads: rotates the head's keys and the queries that share it, and
 * appends keys and values to the cache. */
static void rotate_task(void *user, size_t task, unsigned worker)
{
    const row_set *r = user;
    const fv_decoder *d = r->d;
    const fv_kernels *k = r->ops->k;
    size_t w = (size_t)d->c->d_head, heads = (size_t)d->c->n_heads,
           kv_heads = (size_t)d->c->n_kv_heads, group = heads / kv_heads;
    const row_part *part = &r->part[task / kv_heads];
    size_t head = task % kv_heads;
    const fv_kv_cache *kv = &part->seq->kv;
    uint8_t *keys = fv_kv_rows(kv, r->layer, FV_KV_KEYS, head) + part->past * kv->row_bytes;
    uint8_t *values = fv_kv_rows(kv, r->layer, FV_KV_VALUES, head) + part->past * kv->row_bytes;
    (void)worker;
    for (size_t i = 0; i < part->n; i++) {
        size_t row = part->first + i;
        const float *cosine = d->rope + row * w, *sine = cosine + w / 2;
        float *key = d->k + (row * kv_heads + head) * w;
        k->rope(d->q + (row * heads + head * group) * w, cosine, sine, group, w);
        k->rope(key, cosine, sine, 1, w);
        k->convert[kv->type][FV_TYPE_F32](keys + i * kv->row_bytes, key, w);
        k->convert[kv->type][FV_TYPE_F32](values + i * kv->row_bytes,
                                          d->v + (row * kv_heads + head) * w, w);
    }
}

static void attend_task(void *user, size_t task, unsigned worker)
{
    const row_set *r = user;
    const fv_decoder *d = r->d;
    size_t w = (size_t)d->c->d_head, heads = (size_t)d->c->n_heads,
           group = heads / (size_t)d->c->n_kv_heads;
    const row_part *part = r->part + r->n_parts - 1;
    while (part->first_task > task)
        part--;
    const fv_kv_cache *kv = &part->seq->kv;
    size_t ld = kv->type == FV_TYPE_I8 ? kv->row_bytes : w;
    fv_attn_args a = { .n_kv = part->past + part->n,
                       .ldk = ld,
                       .ldv = ld,
                       .kv_type = kv->type,
                       .d = w,
                       .scale = 1.0f / sqrtf((float)w),
                       .out_type = r->act,
                       .scratch = fv_ops_worker(r->ops, worker) };
    size_t kv_head, at = part->first * heads * w; /* element of d->q and d->h */
    task -= part->first_task;
    if (r->each) {
        size_t runs = (group + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q,
               head = task % runs * FV_ATTN_MAX_Q;
        kv_head = task / runs;
        at += (kv_head * group + head) * w;
        a.n_q = FV_MIN((size_t)FV_ATTN_MAX_Q, group - head);
        a.ldq = a.ldo = w;
    } else {
        size_t blocks = (part->n + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q,
               row = task % blocks * FV_ATTN_MAX_Q;
        kv_head = task / blocks / group;
        at += (row * heads + task / blocks) * w;
        a.n_q = FV_MIN((size_t)FV_ATTN_MAX_Q, part->n - row);
        a.ldq = a.ldo = heads * w;
        a.causal = true;
        a.n_visible = part->past + row + 1;
    }
    a.k = fv_kv_rows(kv, r->layer, FV_KV_KEYS, kv_head);
    a.v = fv_kv_rows(kv, r->layer, FV_KV_VALUES, kv_head);
    a.q = d->q + at;
    a.out = (uint8_t *)d->h + at * fv_type_size(r->act);
    (attends_in_bf16(r) ? r->ops->k->attn_bf16 : r->ops->k->attn)(&a);
}

/* Row i of a sequence sees i + 1 rows and those before it; a sequence's cache is read once. */
static void attend_time(const row_set *r, double start)
{
    fv_op_time op = { .kind = "attention",
                      .type = attends_in_bf16(r) ? FV_TYPE_BF16 : FV_TYPE_F32,
                      .n_rows = r->n };
    const fv_config *c = r->d->c;
    for (size_t i = 0; i < r->n_parts; i++) {
        const fv_kv_cache *kv = &r->part[i].seq->kv;
        size_t n = r->part[i].n, past = r->part[i].past;
        double seen = (double)n * ((double)past + ((double)n + 1) / 2);
        op.macs += 2 * seen * (double)c->n_heads * (double)c->d_head;
        op.bytes += 2 * (double)(past + n) * (double)c->n_kv_heads * (double)kv->row_bytes;
    }
    fv_op_end(r->ops, start, &op);
}

/* The first half of layer r->layer: queries into q, keys and values into the caches. */
static void layer_project(row_set *r)
{
    fv_decoder *d = r->d;
    const fv_decoder_layer *w = &d->w->layer[r->layer];
    size_t dm = (size_t)d->c->d_model, hd = width_of_queries(d->c), hd_kv = width_of_keys(d->c);

    /* h = RMS(x, input_layernorm.weight)                      [n, dm] */
    rows_norm(r, w->norm1);

    /* q = h Wq^T + bq; k = h Wk^T + bk; v = h Wv^T + bv       [n, hd], [n, hd_kv] twice */
    fv_linear qkv[3] = { { .w = &w->q, .y = d->q, .ldy = hd },
                         { .w = &w->k, .y = d->k, .ldy = hd_kv },
                         { .w = &w->v, .y = d->v, .ldy = hd_kv } };
    rows_linear(r, qkv, 3, d->h, dm);

    /* q, k = rope(q), rope(k); k and v into the cache */
    double start = fv_op_start(r->ops);
    fv_pool_run(r->ops->pool, r->n_parts * (size_t)d->c->n_kv_heads, rotate_task, r);
    fv_op_end(r->ops, start, &(fv_op_time){ .kind = "rope", .n_rows = r->n });
}

/* The second half: x [n, d_model] in place, from q and the caches. */
static void layer_attend(row_set *r)
{
    fv_decoder *d = r->d;
    const fv_decoder_layer *w = &d->w->layer[r->layer];
    size_t dm = (size_t)d->c->d_model, hd = width_of_queries(d->c), f = (size_t)d->c->d_ffn,
           n = r->n;

    /* o_j = softmax(q_j K^T / sqrt(D) + causal) V             [n, hd], into h */
    double start = fv_op_start(r->ops);
    fv_pool_run(r->ops->pool, r->n_tasks, attend_task, r);
    attend_time(r, start);

    /* x = x + concat(o) Wo^T                                  [n, dm] */
    fv_linear o = { .w = &w->o, .y = d->x, .ldy = dm, .residual = d->x, .ldr = dm };
    rows_linear(r, &o, 1, d->h, hd);

    /* h = RMS(x, post_attention_layernorm.weight)             [n, dm] */
    rows_norm(r, w->norm2);

    /* ffn = SiLU(h Wgate^T) * (h Wup^T)                       [n, f] */
    if (r->each)
        fv_gated_run_each(r->ops, &w->gate, &w->up, d->ffn, d->h, n);
    else
        fv_gated_run(r->ops, &w->gate, &w->up, d->ffn, r->act, d->h, r->act, n);

    /* x = x + ffn Wdown^T                                     [n, dm] */
    fv_linear down = { .w = &w->down, .y = d->x, .ldy = dm, .residual = d->x, .ldr = dm };
    rows_linear(r, &down, 1, d->ffn, f);
}

static void layer_run(row_set *r)
{
    layer_project(r);
    layer_attend(r);
}

/* ---- all of it --------------------------------------------------------------------------- */

/* Cosines and sines of every row's position: angle = pos f_m. */
static void rows_place(const row_set *r)
{
    const fv_decoder *d = r->d;
    size_t half = (size_t)d->c->d_head / 2;
    for (const row_part *part = r->part; part < r->part + r->n_parts; part++) {
        for (size_t i = 0; i < part->n; i++) {
            float *cosine = d->rope + (part->first + i) * 2 * half, *sine = cosine + half;
            size_t position = part->past + i;
            for (size_t m = 0; m < half; m++) {
                float angle = (float)position * d->frequency[m];
                cosine[m] = cosf(angle);
                sine[m] = sinf(angle);
            }
        }
    }
}

/* logits = RMS(x, model.norm.weight) Whead^T of n rows of x; logits[i] [n_vocab]. The normed rows
 * lie in h. */
static void head_run(fv_decoder *d, const fv_ops *ops, const size_t *row, size_t n,
                     float *const *logits)
{
    const double start = fv_op_start(ops);
    size_t dm = (size_t)d->c->d_model;
    for (size_t i = 0; i < n; i++)
        ops->k->rmsnorm((float *)d->h + i * dm, FV_TYPE_F32, dm, d->x + row[i] * dm, dm, d->w->norm,
                        1, dm, (float)d->c->rms_eps);
    fv_op_end(ops, start, &(fv_op_time){ .kind = "norm", .site = { d->w->norm }, .n_rows = n });
    fv_linear to_logits = { .w = &d->w->head, .y_rows = logits };
    fv_linear_run_each(ops, &to_logits, 1, d->h, dm, n);
}

/* ---- prompts ----------------------------------------------------------------------------- */

/* A stretch of prompts that go through the layers together. */
typedef struct stretch {
    row_set rows;
    row_part part[FV_PREFILL_ROWS / 2];
    fv_decoder_prompt *of[FV_PREFILL_ROWS / 2]; /* whose part it is */
    bool tapped;                                /* somebody looks at all rows */
} stretch;

/* How many rows of a prompt come next where there is room for so many; 0: none now. No row goes, or
 * is left to go, by itself: it would have other bits than beside others of its prompt. */
static size_t prompt_take(const fv_decoder_prompt *p, size_t room, bool first)
{
    size_t left = p->n - p->done, m = FV_MIN(left, room);
    if (first)
        return left - m == 1 && m > 2 ? m - 1 : m;
    if (m >= 2 && left - m == 1)
        m--;
    return m >= 2 ? m : 0;
}

/* False: no prompt has rows left. */
static bool stretch_fill(stretch *st, fv_decoder *d, const fv_ops *ops, fv_decoder_prompt *first)
{
    size_t n = 0, n_parts = 0, m;
    for (fv_decoder_prompt *p = first; p && n_parts < FV_COUNT(st->part); p = p->next) {
        if (p->status != FV_OK || p->done == p->n)
            continue;
        const bool tapped = fv_watch_taps(p->watch);
        if ((n_parts && tapped != st->tapped) || !(m = prompt_take(p, d->rows - n, n == 0)))
            break;
        st->tapped = tapped;
        st->of[n_parts] = p;
        st->part[n_parts++] = (row_part){ .seq = p->s, .n = m, .past = p->s->kv.n };
        memcpy(d->x + n * (size_t)d->c->d_model, p->x + p->done * (size_t)d->c->d_model,
               m * (size_t)d->c->d_model * sizeof *d->x);
        n += m;
        if (m == 1)
            break;
    }
    st->rows = row_set_of(d, ops, st->part, n_parts, n == 1);
    return n_parts > 0;
}

/* A prompt fails: its sequence is what it was, and its rows leave the stretch. Between two layers
 * there is nothing of a row but x and its place. */
static void stretch_drop(stretch *st, size_t i, fv_status status)
{
    row_set *r = &st->rows;
    fv_decoder *d = r->d;
    size_t dm = (size_t)d->c->d_model, w = (size_t)d->c->d_head, layer = r->layer;
    size_t first = st->part[i].first, next = first + st->part[i].n, behind = r->n - next;
    st->of[i]->status = status;
    st->of[i]->s->kv.n -= st->of[i]->done;
    memmove(d->x + first * dm, d->x + next * dm, behind * dm * sizeof *d->x);
    memmove(d->rope + first * w, d->rope + next * w, behind * w * sizeof *d->rope);
    memmove(st->part + i, st->part + i + 1, (r->n_parts - i - 1) * sizeof *st->part);
    memmove(st->of + i, st->of + i + 1, (r->n_parts - i - 1) * sizeof *st->of);
    *r = row_set_of(d, r->ops, st->part, r->n_parts - 1, r->each);
    r->layer = layer;
}

/* For each prompt of the stretch what it does between layers; those that fail are dropped. */
static void stretch_visit(stretch *st, fv_status (*visit)(const stretch *st, size_t i))
{
    for (size_t i = 0; i < st->rows.n_parts;) {
        fv_status status = visit(st, i);
        if (status == FV_OK)
            i++;
        else
            stretch_drop(st, i, status);
    }
}

static fv_status stretch_ask(const stretch *st, size_t i)
{
    const row_set *r = &st->rows;
    fv_decoder_prompt *p = st->of[i];
    double layers = (double)r->layer / (double)r->d->c->n_layers;
    return fv_watch_step(p->watch, "prefill",
                         ((double)p->done + (double)st->part[i].n * layers) / (double)p->n,
                         &p->err);
}

static fv_status stretch_tap(const stretch *st, size_t i)
{
    const row_set *r = &st->rows;
    size_t dm = (size_t)r->d->c->d_model;
    char name[64];
    if (!fv_watch_taps(st->of[i]->watch))
        return FV_OK;
    snprintf(name, sizeof name, "decoder.layer.%zu", r->layer);
    return fv_watch_rows(st->of[i]->watch, name, r->d->x + st->part[i].first * dm, st->part[i].n,
                         dm, &st->of[i]->err);
}

/* The final norm of a prompt's rows and, where they are wanted, the logits of every row. */
static fv_status stretch_dump(const stretch *st, size_t at)
{
    const row_set *r = &st->rows;
    const fv_watch *watch = st->of[at]->watch;
    fv_error *err = &st->of[at]->err;
    fv_decoder *d = r->d;
    size_t dm = (size_t)d->c->d_model, v = (size_t)d->c->n_vocab, n = st->part[at].n;
    if (!fv_watch_taps(watch))
        return FV_OK;
    bool wants_logits = watch->all_logits;
    fv_status status = FV_OK;
    float *normed = fv_alloc(n * dm, sizeof *normed),
          *logits = wants_logits ? fv_alloc(n * v, sizeof *logits) : NULL;
    if (!normed || (wants_logits && !logits)) {
        status = fv_fail_memory(err, n * v * sizeof *logits, "a dump");
        goto fail;
    }
    r->ops->k->rmsnorm(normed, FV_TYPE_F32, dm, d->x + st->part[at].first * dm, dm, d->w->norm, n,
                       dm, (float)d->c->rms_eps);
    FV_TRY_GOTO(fv_watch_rows(watch, "decoder.norm", normed, n, dm, err));
    for (size_t i = 0; i < n && logits; i++) {
        size_t row = st->part[at].first + i;
        float *to = logits + i * v;
        head_run(d, r->ops, &row, 1, &to);
    }
    if (logits)
        FV_TRY_GOTO(fv_watch_rows(watch, "logits_prefill", logits, n, v, err));
fail:
    fv_free(normed);
    fv_free(logits);
    return status;
}

/* The prompts that end here, in order: row [n], their last rows. */
static size_t stretch_ends(const stretch *st, size_t *row, row_part *end)
{
    size_t n = 0;
    for (size_t i = 0; i < st->rows.n_parts; i++) {
        const row_part *part = &st->part[i];
        if (st->of[i]->done + part->n < st->of[i]->n)
            continue;
        row[n] = part->first + part->n - 1;
        end[n++] = (row_part){ .seq = part->seq, .n = 1, .past = part->past + part->n - 1 };
    }
    return n;
}

/* The second half of the last layer. Only logits come after it, so only the last row of a prompt
 * continues, alone, as in decoding. These rows are brought together at the front of x. */
static size_t ends_run(const stretch *st)
{
    const row_set *r = &st->rows;
    fv_decoder *d = r->d;
    const size_t dm = (size_t)d->c->d_model, hd = width_of_queries(d->c);
    row_part end[FV_PREFILL_ROWS / 2];
    size_t row[FV_PREFILL_ROWS / 2], n = stretch_ends(st, row, end);
    for (size_t i = 0; i < n; i++) { /* row[i] >= i */
        memmove(d->x + i * dm, d->x + row[i] * dm, dm * sizeof *d->x);
        memmove(d->q + i * hd, d->q + row[i] * hd, hd * sizeof *d->q);
    }
    if (n) {
        row_set ends = row_set_of(d, r->ops, end, n, true);
        ends.layer = r->layer;
        layer_attend(&ends);
    }
    return n;
}

/* The same where somebody looks: all rows go through, and then the last ones, which get the bits
 * that they have when nobody does. They are where they were. */
static fv_status all_rows_run(stretch *st)
{
    row_set *r = &st->rows;
    fv_decoder *d = r->d;
    const size_t dm = (size_t)d->c->d_model, hd = width_of_queries(d->c);
    row_part end[FV_PREFILL_ROWS / 2];
    size_t row[FV_PREFILL_ROWS / 2];
    float *x = fv_alloc(r->n * (dm + hd), sizeof *x), *q = x + r->n * dm;
    if (!x)
        return FV_ERR_MEMORY;
    memcpy(x, d->x, r->n * dm * sizeof *x);
    memcpy(q, d->q, r->n * hd * sizeof *q);
    layer_attend(r);
    for (size_t i = 0; i < r->n * dm; i++) {
        const float after = d->x[i];
        d->x[i] = x[i];
        x[i] = after;
    }
    memcpy(d->q, q, r->n * hd * sizeof *q);
    const size_t n = ends_run(st);
    stretch_ends(st, row, end);
    for (size_t i = 0; i < n; i++)
        memcpy(x + row[i] * dm, d->x + i * dm, dm * sizeof *x);
    memcpy(d->x, x, r->n * dm * sizeof *x);
    fv_free(x);
    return FV_OK;
}

/* Rows are in the caches; prompts that end here get their logits. */
static void stretch_settle(const stretch *st)
{
    const row_set *r = &st->rows;
    size_t row[FV_PREFILL_ROWS / 2], n = 0;
    float *logits[FV_PREFILL_ROWS / 2];
    for (size_t i = 0; i < r->n_parts; i++) {
        fv_decoder_prompt *p = st->of[i];
        p->s->kv.n += st->part[i].n;
        p->done += st->part[i].n;
        if (p->done < p->n)
            continue;
        row[n] = st->tapped ? st->part[i].first + st->part[i].n - 1 : n;
        logits[n++] = p->s->logits;
    }
    if (n)
        head_run(r->d, r->ops, row, n, logits);
}

static fv_status stretch_no_memory(const stretch *st, size_t i)
{
    const size_t n = st->rows.n *
                     ((size_t)st->rows.d->c->d_model + width_of_queries(st->rows.d->c));
    return fv_fail_memory(&st->of[i]->err, n * sizeof(float), "a dump");
}

static void stretch_run(stretch *st)
{
    row_set *r = &st->rows;
    const size_t last = (size_t)r->d->c->n_layers - 1;
    rows_place(r);
    for (r->layer = 0; r->layer <= last; r->layer++) {
        stretch_visit(st, stretch_ask);
        if (!r->n_parts)
            return;
        layer_project(r);
        if (r->layer < last)
            layer_attend(r);
        else if (!st->tapped)
            ends_run(st);
        else if (all_rows_run(st) != FV_OK)
            stretch_visit(st, stretch_no_memory);
        stretch_visit(st, stretch_tap);
    }
    stretch_visit(st, stretch_dump);
    stretch_settle(st);
}

void fv_decoder_run_prompts(fv_decoder *d, const fv_ops *ops, fv_decoder_prompt *first)
{
    stretch st;
    for (fv_decoder_prompt *p = first; p; p = p->next) {
        p->status = FV_OK;
        p->done = 0;
    }
    while (stretch_fill(&st, d, ops, first))
        stretch_run(&st);
}

fv_status fv_decoder_run(fv_decoder *d, const fv_ops *ops, fv_sequence *s, const float *x, size_t n,
                         const fv_watch *watch, fv_error *err)
{
    fv_decoder_prompt p = { .s = s, .x = x, .n = n, .watch = watch };
    fv_decoder_run_prompts(d, ops, &p);
    if (p.status != FV_OK && err)
        *err = p.err;
    return p.status;
}

/* ---- a step ------------------------------------------------------------------------------ */

void fv_decoder_step(fv_decoder *d, const fv_ops *ops, fv_sequence *const *s, const int32_t *ids,
                     size_t n)
{
    row_part part[FV_STEP_ROWS];
    size_t row[FV_STEP_ROWS];
    float *logits[FV_STEP_ROWS];
    for (size_t i = 0, m; i < n; i += m) {
        m = FV_MIN(n - i, FV_MIN(d->rows, (size_t)FV_STEP_ROWS));
        for (size_t j = 0; j < m; j++)
            part[j] = (row_part){ .seq = s[i + j], .n = 1, .past = s[i + j]->kv.n };
        row_set r = row_set_of(d, ops, part, m, true);
        fv_decoder_embed(d, ops, d->x, ids + i, m);
        rows_place(&r);
        for (r.layer = 0; r.layer < (size_t)d->c->n_layers; r.layer++)
            layer_run(&r);
        for (size_t j = 0; j < m; j++) {
            s[i + j]->kv.n++;
            row[j] = j;
            logits[j] = s[i + j]->logits;
        }
        head_run(d, ops, row, m, logits);
    }
}

void fv_decoder_run_layer(fv_decoder *d, const fv_ops *ops, fv_sequence *s, size_t layer, float *x,
                          size_t n)
{
    size_t dm = (size_t)d->c->d_model, m;
    for (size_t i = 0; i < n; i += m) {
        m = FV_MIN(n - i, d->rows);
        row_part part = { .seq = s, .n = m, .past = i };
        row_set r = row_set_of(d, ops, &part, 1, m == 1);
        r.layer = layer;
        memcpy(d->x, x + i * dm, m * dm * sizeof *x);
        rows_place(&r);
        layer_run(&r);
        memcpy(x + i * dm, d->x, m * dm * sizeof *x);
    }
}
