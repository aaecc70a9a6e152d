/* Matrix products, convolutions and attention, split over the pool. See ops.h.
 *
 * A matrix product packs its weights as it goes. Two splits:
 *   wide  every task packs a few panels of columns into its own scratch and runs all rows over
 *         them: for few rows and many weights (prefill, the last stages of the encoder);
 *   tall  all panels are packed first, into the shared scratch, then every task runs a block of
 *         rows over all of them: for many rows and few weights (the first stages). */
#include "nn/ops.h"

#include <assert.h>
#include <string.h>

#include "nn/ops_split.h"

enum {
    TALL_PACKED_BYTES = 6 << 20,   /* packed weights beyond this do not stay in a shared cache */
    WIDE_PACKED_BYTES = 640 << 10, /* and these stay in a core's own */
    ROWS_PER_TASK = 96
};

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

fv_status fv_ops_init(fv_ops *ops, const fv_kernels *k, fv_pool *pool, fv_error *err)
{
    *ops = (fv_ops){ .k = k, .pool = pool, .n_workers = fv_pool_threads(pool) };
    return fv_ops_reserve(ops, &(fv_ops_need){ fv_attn_scratch_bytes(), 64 }, err);
}

void fv_ops_free(fv_ops *ops)
{
    fv_pages_free(ops->worker_scratch, ops->worker_bytes * ops->n_workers);
    fv_pages_free(ops->shared, ops->shared_bytes);
    *ops = (fv_ops){ 0 };
}

static fv_status grow(uint8_t **block, size_t *have, size_t n_blocks, size_t need, fv_error *err)
{
    if (*have >= need)
        return FV_OK;
    need = round_up(need, 4096);
    uint8_t *fresh = fv_pages_alloc(need * n_blocks);
    if (!fresh)
        return fv_fail_memory(err, need * n_blocks, "working memory");
    fv_pages_free(*block, *have * n_blocks);
    *block = fresh;
    *have = need;
    return FV_OK;
}

fv_status fv_ops_reserve(fv_ops *ops, const fv_ops_need *need, fv_error *err)
{
    FV_TRY(grow(&ops->worker_scratch, &ops->worker_bytes, ops->n_workers, need->worker_bytes, err));
    return grow(&ops->shared, &ops->shared_bytes, 1, need->shared_bytes, err);
}

/* ---- packing ----------------------------------------------------------------------------- */

static size_t packed_bytes(const fv_gemm_kernel *g, size_t n, size_t k)
{
    return round_up(fv_packed_elems(g, n, k) * fv_type_size(g->type), 64);
}

typedef struct pack_job {
    const fv_gemm_kernel *g;
    const fv_mat *w;
    uint8_t *dst;
    size_t columns; /* a task */
} pack_job;

static void pack_columns(const fv_gemm_kernel *g, uint8_t *dst, const fv_mat *w, size_t first,
                         size_t n)
{
    g->pack[w->type](dst, fv_mat_row(w, first), w->k, n, w->k);
}

static void pack_task(void *user, size_t task, unsigned worker)
{
    pack_job *j = user;
    size_t first = task * j->columns, n = FV_MIN(j->columns, j->w->n - first);
    (void)worker;
    pack_columns(j->g, j->dst + fv_packed_elems(j->g, first, j->w->k) * fv_type_size(j->g->type),
                 j->w, first, n);
}

static void pack_all(const fv_ops *ops, const fv_gemm_kernel *g, uint8_t *dst, const fv_mat *w)
{
    pack_job j = { g, w, dst, g->nr };
    fv_pool_run(ops->pool, (w->n + j.columns - 1) / j.columns, pack_task, &j);
}

/* ---- linear layers ----------------------------------------------------------------------- */

typedef struct linear_job {
    const fv_ops *ops;
    const fv_gemm_kernel *g;
    const fv_linear *layer;
    size_t n_layers, m, rows, columns; /* rows or columns a task */
    const void *x;
    size_t ldx;
} linear_job;

static fv_gemm_args gemm_args(const fv_linear *l, const void *x, size_t ldx, size_t row, size_t m,
                              size_t col, size_t n, const void *packed)
{
    return (fv_gemm_args){
        .m = m,
        .n = n,
        .k = l->w->k,
        .a = x,
        .lda = ldx,
        .b = packed,
        .c = (uint8_t *)l->y + (row * l->ldy + col) * fv_type_size(l->y_type),
        .ldc = l->ldy,
        .c_type = l->y_type,
        .act = l->act,
        .bias = l->w->bias ? l->w->bias + col : NULL,
        .scale = l->scale ? l->scale + col : NULL,
        .residual = l->residual ? l->residual + row * l->ldr + col : NULL,
        .ldr = l->ldr,
    };
}

const fv_linear *fv_find_columns(const fv_linear *layers, size_t n_layers, size_t columns,
                                 size_t task, size_t *col)
{
    for (size_t i = 0; i < n_layers; i++) {
        size_t here = (layers[i].w->n + columns - 1) / columns;
        if (task < here) {
            *col = task * columns;
            return &layers[i];
        }
        task -= here;
    }
    return NULL;
}

size_t fv_count_columns(const fv_linear *layers, size_t n_layers, size_t columns)
{
    size_t n = 0;
    for (size_t i = 0; i < n_layers; i++)
        n += (layers[i].w->n + columns - 1) / columns;
    return n;
}

static void wide_task(void *user, size_t task, unsigned worker)
{
    linear_job *j = user;
    size_t col;
    const fv_linear *l = fv_find_columns(j->layer, j->n_layers, j->columns, task, &col);
    size_t n = FV_MIN(j->columns, l->w->n - col);
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    pack_columns(j->g, packed, l->w, col, n);
    fv_gemm_args args = gemm_args(l, j->x, j->ldx, 0, j->m, col, n, packed);
    j->g->run(&args);
}

static void tall_task(void *user, size_t task, unsigned worker)
{
    linear_job *j = user;
    size_t row = task * j->rows, m = FV_MIN(j->rows, j->m - row);
    (void)worker;
    fv_gemm_args args = gemm_args(j->layer,
                                  (const uint8_t *)j->x + row * j->ldx * fv_type_size(j->g->type),
                                  j->ldx, row, m, 0, j->layer->w->n, j->ops->shared);
    j->g->run(&args);
}

/* Columns of a wide task: whole panels, at most WIDE_PACKED_BYTES, several tasks a thread. */
static size_t wide_columns(const fv_gemm_kernel *g, size_t n, size_t k, unsigned n_workers)
{
    size_t most = WIDE_PACKED_BYTES / packed_bytes(g, g->nr, k), even = n / g->nr / (4 * n_workers);
    most = FV_MIN(FV_MAX(most, (size_t)1), FV_MAX(even, (size_t)1));
    return FV_MIN(most, (size_t)8) * g->nr;
}

typedef struct widen_job {
    const fv_kernels *k;
    float *dst;
    const uint8_t *src;
    fv_type from;
    size_t m, cols, ld;
} widen_job;

static void widen_task(void *user, size_t task, unsigned worker)
{
    widen_job *j = user;
    (void)worker;
    for (size_t row = task * ROWS_PER_TASK; row < FV_MIN(j->m, (task + 1) * ROWS_PER_TASK); row++)
        j->k->convert[FV_TYPE_F32][j->from](j->dst + row * j->cols,
                                            j->src + row * j->ld * fv_type_size(j->from), j->cols);
}

/* Operands in the kernel's type: x itself, or a copy behind the packed weights in shared. */
static const void *operands(const fv_ops *ops, const fv_gemm_kernel *g, const void *x,
                            fv_type x_type, size_t *ldx, size_t m, size_t k, size_t packed)
{
    if (x_type == g->type)
        return x;
    widen_job j = { ops->k, (float *)(ops->shared + packed), x, x_type, m, k, *ldx };
    fv_pool_run(ops->pool, (m + ROWS_PER_TASK - 1) / ROWS_PER_TASK, widen_task, &j);
    *ldx = k;
    return j.dst;
}

static bool is_tall(const fv_gemm_kernel *g, size_t n, size_t k, size_t m, unsigned n_workers)
{
    return packed_bytes(g, n, k) <= TALL_PACKED_BYTES && m >= (size_t)ROWS_PER_TASK * n_workers * 4;
}

void fv_linear_run(const fv_ops *ops, const fv_linear *layers, size_t n_layers, const void *x,
                   fv_type x_type, size_t ldx, size_t m)
{
    if (m == 1 && x_type == FV_TYPE_F32 && layers->y_type == FV_TYPE_F32 && !layers->scale &&
        !layers->act) {
        fv_linear_run_each(ops, layers, n_layers, x, ldx, 1);
        return;
    }
    if (fv_has_blocks(layers, n_layers)) {
        assert(x_type == FV_TYPE_F32);
        fv_linear_run_quant(ops, layers, n_layers, x, ldx, m);
        return;
    }
    linear_job j = { .ops = ops,
                     .g = fv_gemm_of(ops->k, x_type),
                     .layer = layers,
                     .n_layers = n_layers,
                     .m = m,
                     .x = x,
                     .ldx = ldx };
    size_t n = layers->w->n, k = layers->w->k;
    bool tall = n_layers == 1 && is_tall(j.g, n, k, m, ops->n_workers);
    j.x = operands(ops, j.g, x, x_type, &j.ldx, m, k, tall ? packed_bytes(j.g, n, k) : 0);
    if (tall) {
        pack_all(ops, j.g, ops->shared, layers->w);
        j.rows = round_up(ROWS_PER_TASK, j.g->mr);
        fv_pool_run(ops->pool, (m + j.rows - 1) / j.rows, tall_task, &j);
    } else {
        j.columns = wide_columns(j.g, n, k, ops->n_workers);
        fv_pool_run(ops->pool, fv_count_columns(layers, n_layers, j.columns), wide_task, &j);
    }
}

fv_ops_need fv_linear_need(const fv_kernels *kernels, unsigned n_workers, size_t n, size_t k,
                           size_t m, fv_type x_type)
{
    const fv_gemm_kernel *g = fv_gemm_of(kernels, x_type);
    fv_ops_need need = { packed_bytes(g, wide_columns(g, n, k, n_workers), k), 64 };
    need.worker_bytes = FV_MAX(need.worker_bytes, (size_t)FV_VECTOR_BYTES);
    if (is_tall(g, n, k, m, n_workers))
        need.shared_bytes = packed_bytes(g, n, k);
    if (x_type != g->type)
        need.shared_bytes += round_up(m * k * sizeof(float), 64);
    return need;
}

/* ---- gated layer ------------------------------------------------------------------------- */

typedef struct gated_job {
    const fv_ops *ops;
    const fv_gemm_kernel *g;
    const fv_mat *gate, *up;
    void *y;
    fv_type y_type;
    const void *x;
    size_t ldx, m, columns;
} gated_job;

/* A run of columns: the gate's values for all rows stay in scratch, the up product uses them. */
static void gated_task(void *user, size_t task, unsigned worker)
{
    gated_job *j = user;
    size_t col = task * j->columns, n = FV_MIN(j->columns, j->gate->n - col), ldy = j->gate->n;
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    float *gate = (float *)(packed + packed_bytes(j->g, j->columns, j->gate->k));
    fv_gemm_args args = { .m = j->m,
                          .n = n,
                          .k = j->gate->k,
                          .a = j->x,
                          .lda = j->ldx,
                          .b = packed,
                          .c = gate,
                          .ldc = j->columns,
                          .c_type = FV_TYPE_F32 };
    pack_columns(j->g, packed, j->gate, col, n);
    j->g->run(&args);
    args.c = (uint8_t *)j->y + col * fv_type_size(j->y_type);
    args.ldc = ldy;
    args.c_type = j->y_type;
    args.gate = gate;
    args.ldg = j->columns;
    pack_columns(j->g, packed, j->up, col, n);
    j->g->run(&args);
}

void fv_gated_run(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, void *y, fv_type y_type,
                  const void *x, fv_type x_type, size_t m)
{
    if (m == 1 && x_type == FV_TYPE_F32 && y_type == FV_TYPE_F32) {
        fv_gated_run_each(ops, gate, up, y, x, 1);
        return;
    }
    if (fv_type_is_block(gate->type) || fv_type_is_block(up->type)) {
        assert(x_type == FV_TYPE_F32 && y_type == FV_TYPE_F32);
        fv_gated_run_quant(ops, gate, up, y, x, m);
        return;
    }
    gated_job j = { .ops = ops,
                    .g = fv_gemm_of(ops->k, x_type),
                    .gate = gate,
                    .up = up,
                    .y = y,
                    .y_type = y_type,
                    .x = x,
                    .ldx = gate->k,
                    .m = m };
    j.x = operands(ops, j.g, x, x_type, &j.ldx, m, gate->k, 0);
    j.columns = wide_columns(j.g, gate->n, gate->k, ops->n_workers);
    fv_pool_run(ops->pool, (gate->n + j.columns - 1) / j.columns, gated_task, &j);
}

fv_ops_need fv_gated_need(const fv_kernels *kernels, size_t n, size_t k, size_t m, fv_type x_type)
{
    const fv_gemm_kernel *g = fv_gemm_of(kernels, x_type);
    size_t columns = wide_columns(g, n, k, 1);
    fv_ops_need need = { packed_bytes(g, columns, k) + m * columns * sizeof(float), 64 };
    need.worker_bytes = FV_MAX(need.worker_bytes, (size_t)FV_VECTOR_BYTES);
    if (x_type != g->type)
        need.shared_bytes += round_up(m * k * sizeof(float), 64);
    return need;
}

/* ---- depthwise convolution --------------------------------------------------------------- */

void fv_dw_row(const fv_kernels *k, void *dst, size_t dst_ld, fv_type dst_type, const float *src,
               fv_map_shape shape, const fv_dw *dw, unsigned stride, fv_act act, size_t y,
               size_t x0, size_t x1)
{
    fv_dwconv_args args = { .width = shape.width,
                            .src_ld = dw->channels,
                            .channels = dw->channels,
                            .k = dw->kernel,
                            .stride = stride,
                            .mult = dw->mult,
                            .weight = dw->w,
                            .bias = dw->bias,
                            .act = act,
                            .x0 = x0,
                            .x1 = x1,
                            .dst = dst,
                            .dst_ld = dst_ld,
                            .dst_type = dst_type };
    for (unsigned dy = 0; dy < dw->kernel; dy++) {
        size_t at = y * stride + dy; /* row + kernel / 2 */
        if (at >= dw->kernel / 2 && at - dw->kernel / 2 < shape.height)
            args.src[dy] = src + (at - dw->kernel / 2) * shape.width * dw->channels;
    }
    k->dwconv(&args);
}

typedef struct dw_job {
    const fv_ops *ops;
    uint8_t *dst;
    fv_type dst_type;
    const float *src;
    fv_map_shape shape;
    const fv_dw *dw;
    unsigned stride;
    fv_act act;
} dw_job;

static void dw_task(void *user, size_t task, unsigned worker)
{
    dw_job *j = user;
    size_t width = j->shape.width / j->stride, n_out = j->dw->channels * j->dw->mult;
    (void)worker;
    fv_dw_row(j->ops->k, j->dst + task * width * n_out * fv_type_size(j->dst_type), n_out,
              j->dst_type, j->src, j->shape, j->dw, j->stride, j->act, task, 0, width);
}

void fv_dw_run(const fv_ops *ops, void *dst, fv_type dst_type, const float *src, fv_map_shape shape,
               const fv_dw *dw, unsigned stride, fv_act act)
{
    dw_job j = { ops, dst, dst_type, src, shape, dw, stride, act };
    fv_pool_run(ops->pool, shape.height / stride, dw_task, &j);
}

/* ---- fused FFN --------------------------------------------------------------------------- */

typedef struct ffn_plan {
    bool fused;   /* both weights packed in shared, pixels in blocks */
    size_t block; /* pixels */
    size_t packed1, packed2;
    /* a block after dw; the hidden block; the larger of both widened to f32 */
    size_t t_bytes, h_bytes, wide_bytes;
} ffn_plan;

static ffn_plan plan_ffn(const fv_gemm_kernel *g, unsigned n_workers, size_t c, size_t hidden,
                         size_t n_pixels, fv_type act)
{
    ffn_plan p = { .packed1 = packed_bytes(g, hidden, c), .packed2 = packed_bytes(g, c, hidden) };
    /* the hidden block stays in a core's cache */
    size_t wanted = (384u << 10) / (hidden * fv_type_size(g->type));
    p.block = round_up(FV_MAX(FV_MIN(wanted, (size_t)128), (size_t)32), g->mr);
    p.fused = p.packed1 + p.packed2 <= TALL_PACKED_BYTES && n_pixels >= p.block * n_workers;
    size_t rows = p.fused ? p.block : n_pixels;
    p.t_bytes = round_up(rows * c * fv_type_size(act), 64);
    p.h_bytes = round_up(rows * hidden * fv_type_size(act), 64);
    p.wide_bytes = act == g->type ? 0 : round_up(rows * FV_MAX(c, hidden) * sizeof(float), 64);
    return p;
}

typedef struct ffn_job {
    const fv_ops *ops;
    const fv_gemm_kernel *g;
    ffn_plan plan;
    float *dst;
    const float *src;
    fv_map_shape shape;
    const fv_ffn *ffn;
    fv_type act;
} ffn_job;

static const void *widen_block(const ffn_job *j, const void *x, float *wide, size_t n)
{
    if (j->act == j->g->type)
        return x;
    j->ops->k->convert[FV_TYPE_F32][j->act](wide, x, n);
    return wide;
}

static void ffn_task(void *user, size_t task, unsigned worker)
{
    ffn_job *j = user;
    const fv_ffn *f = j->ffn;
    size_t c = f->dw.channels, hidden = f->fc1.n, width = j->shape.width;
    size_t first = task * j->plan.block,
           last = FV_MIN(first + j->plan.block, j->shape.height * width);
    uint8_t *t = fv_ops_worker(j->ops, worker), *h = t + j->plan.t_bytes;
    float *wide = (float *)(h + j->plan.h_bytes);

    for (size_t p = first; p < last;) { /* the block's pieces of rows */
        size_t y = p / width, x0 = p % width, x1 = FV_MIN(width, x0 + (last - p));
        fv_dw_row(j->ops->k, t + (p - first) * c * fv_type_size(j->act), c, j->act, j->src,
                  j->shape, &f->dw, 1, FV_ACT_NONE, y, x0, x1);
        p += x1 - x0;
    }
    fv_gemm_args up = { .m = last - first,
                        .n = hidden,
                        .k = c,
                        .a = widen_block(j, t, wide, (last - first) * c),
                        .lda = c,
                        .b = j->ops->shared,
                        .c = h,
                        .ldc = hidden,
                        .c_type = j->act,
                        .act = FV_ACT_GELU,
                        .bias = f->fc1.bias };
    j->g->run(&up);
    fv_gemm_args down = { .m = last - first,
                          .n = c,
                          .k = hidden,
                          .a = widen_block(j, h, wide, (last - first) * hidden),
                          .lda = hidden,
                          .b = j->ops->shared + j->plan.packed1,
                          .c = j->dst + first * c,
                          .ldc = c,
                          .c_type = FV_TYPE_F32,
                          .bias = f->fc2.bias,
                          .scale = f->scale,
                          .residual = j->src + first * c,
                          .ldr = c };
    j->g->run(&down);
}

void fv_ffn_run(const fv_ops *ops, float *dst, const float *src, fv_map_shape shape,
                const fv_ffn *ffn, fv_type act)
{
    const fv_gemm_kernel *g = fv_gemm_of(ops->k, act);
    size_t n_pixels = shape.height * shape.width, c = ffn->dw.channels, hidden = ffn->fc1.n;
    ffn_job j = { .ops = ops,
                  .g = g,
                  .plan = plan_ffn(g, ops->n_workers, c, hidden, n_pixels, act),
                  .dst = dst,
                  .src = src,
                  .shape = shape,
                  .ffn = ffn,
                  .act = act };
    if (j.plan.fused) {
        pack_all(ops, g, ops->shared, &ffn->fc1);
        pack_all(ops, g, ops->shared + j.plan.packed1, &ffn->fc2);
        fv_pool_run(ops->pool, (n_pixels + j.plan.block - 1) / j.plan.block, ffn_task, &j);
        return;
    }
    /* Whole maps, behind what the two products need of the shared scratch. */
    fv_ops_need need = fv_ops_max(fv_linear_need(ops->k, ops->n_workers, hidden, c, n_pixels, act),
                                  fv_linear_need(ops->k, ops->n_workers, c, hidden, n_pixels, act));
    uint8_t *t = ops->shared + round_up(need.shared_bytes, 64), *h = t + j.plan.t_bytes;
    fv_dw_run(ops, t, act, src, shape, &ffn->dw, 1, FV_ACT_NONE);
    fv_linear up = { .w = &ffn->fc1, .y = h, .ldy = hidden, .y_type = act, .act = FV_ACT_GELU };
    fv_linear_run(ops, &up, 1, t, act, c, n_pixels);
    fv_linear down = { .w = &ffn->fc2,
                       .y = dst,
                       .ldy = c,
                       .y_type = FV_TYPE_F32,
                       .scale = ffn->scale,
                       .residual = src,
                       .ldr = c };
    fv_linear_run(ops, &down, 1, h, act, hidden, n_pixels);
}

fv_ops_need fv_ffn_need(const fv_kernels *k, unsigned n_workers, size_t c, size_t hidden,
                        size_t n_pixels, fv_type act)
{
    const fv_gemm_kernel *g = fv_gemm_of(k, act);
    ffn_plan p = plan_ffn(g, n_workers, c, hidden, n_pixels, act);
    if (p.fused)
        return (fv_ops_need){ p.t_bytes + p.h_bytes + p.wide_bytes, p.packed1 + p.packed2 };
    fv_ops_need need = fv_ops_max(fv_linear_need(k, n_workers, hidden, c, n_pixels, act),
                                  fv_linear_need(k, n_workers, c, hidden, n_pixels, act));
    need.shared_bytes = round_up(need.shared_bytes, 64) + p.t_bytes + p.h_bytes;
    return need;
}

/* ---- attention --------------------------------------------------------------------------- */

typedef struct attention_job {
    const fv_ops *ops;
    uint8_t *out;
    fv_type out_type;
    const float *qkv;
    size_t n, c, d;
} attention_job;

/* One head and FV_ATTN_MAX_Q queries; the tasks of a head follow each other. */
static void attention_task(void *user, size_t task, unsigned worker)
{
    attention_job *j = user;
    size_t blocks = (j->n + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q;
    size_t head = task / blocks, row = task % blocks * FV_ATTN_MAX_Q, at = head * j->d;
    fv_attn_args a = { .q = j->qkv + row * 3 * j->c + at,
                       .n_q = FV_MIN((size_t)FV_ATTN_MAX_Q, j->n - row),
                       .ldq = 3 * j->c,
                       .k = j->qkv + j->c + at,
                       .v = j->qkv + 2 * j->c + at,
                       .n_kv = j->n,
                       .ldk = 3 * j->c,
                       .ldv = 3 * j->c,
                       .kv_type = FV_TYPE_F32,
                       .d = j->d,
                       .scale = 0,
                       .out = j->out + (row * j->c + at) * fv_type_size(j->out_type),
                       .ldo = j->c,
                       .out_type = j->out_type,
                       .scratch = fv_ops_worker(j->ops, worker) };
    a.scale = 1.0f / __builtin_sqrtf((float)j->d);
    j->ops->k->attn(&a);
}

void fv_attention_run(const fv_ops *ops, void *out, fv_type out_type, const float *qkv, size_t n,
                      size_t c, size_t d)
{
    attention_job j = { ops, out, out_type, qkv, n, c, d };
    fv_pool_run(ops->pool, c / d * ((n + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q), attention_task, &j);
}
