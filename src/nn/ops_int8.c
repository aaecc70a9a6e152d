/* The encoder's layers in 8 bits. Activations are u8 with a scale for each channel, which the
 * weights of the layer behind them hold; sums are i32; the map that blocks add to stays f32.
 *
 *    src f32 --quantise--> src8 --dw 7x7--> t u8 --fc1, GELU--> h u8 --fc2, scale, + src--> dst f32
 *
 * Weights are packed as they are used, like ops.c does it. */
#include "nn/ops_split.h"

enum {
    TALL_BYTES = 6 << 20,   /* packed weights beyond this do not stay in a shared cache */
    WIDE_BYTES = 512 << 10, /* and these stay in a core's own */
    TALL_ROWS = 96,
    QUANTISE_ROWS = 64,
    BLOCK_WIDTH = 64,
    BLOCK_PIXELS = 128 /* of an FFN's tile */
};

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

static size_t packed_bytes(const fv_kernels *k, size_t n, size_t depth)
{
    return round_up(fv_packed_u8_bytes(&k->gemm_u8, n, depth), 64);
}

/* ---- f32 -> u8 --------------------------------------------------------------------------- */

typedef struct quantise_job {
    const fv_ops *ops;
    uint8_t *dst;
    const float *src;
    size_t n, c;
    const fv_u8 *to;
} quantise_job;

static void quantise_task(void *user, size_t task, unsigned worker)
{
    quantise_job *j = user;
    size_t row = task * QUANTISE_ROWS;
    (void)worker;
    j->ops->k->quantize_u8(j->dst + row * j->c, j->c, j->src + row * j->c, j->c, j->to->inv,
                           j->to->zero, FV_MIN((size_t)QUANTISE_ROWS, j->n - row), j->c);
}

void fv_quantise_run(const fv_ops *ops, uint8_t *dst, const float *src, size_t n, size_t c,
                     const fv_u8 *to)
{
    quantise_job j = { ops, dst, src, n, c, to };
    fv_pool_run(ops->pool, (n + QUANTISE_ROWS - 1) / QUANTISE_ROWS, quantise_task, &j);
}

/* ---- linear layers ----------------------------------------------------------------------- */

static fv_gemm_u8_args gemm_args(const fv_linear8 *l, const uint8_t *x, size_t ldx, size_t row,
                                 size_t m, size_t col, size_t n, const void *packed)
{
    return (fv_gemm_u8_args){
        .m = m,
        .n = n,
        .k = l->w->k,
        .a = x + row * ldx,
        .lda = ldx,
        .b = packed,
        .c = (uint8_t *)l->y + (row * l->ldy + col) * fv_type_size(l->y_type),
        .ldc = l->ldy,
        .c_type = l->y_type,
        .act = l->act,
        .bias = l->w->bias8 + col,
        .mul = l->w->mul + col,
        .scale = l->scale ? l->scale + col : NULL,
        .residual = l->residual ? l->residual + row * l->ldr + col : NULL,
        .ldr = l->ldr,
        .inv = l->to ? l->to->inv + col : NULL,
        .zero = l->to ? l->to->zero : 0,
    };
}

typedef struct pack_job {
    const fv_kernels *k;
    const fv_mat *w;
    uint8_t *dst;
} pack_job;

static void pack_columns(const fv_kernels *k, uint8_t *dst, const fv_mat *w, size_t col, size_t n)
{
    k->gemm_u8.pack(dst, (const int8_t *)w->data + col * w->k, w->k, n, w->k);
}

static void pack_task(void *user, size_t task, unsigned worker)
{
    pack_job *j = user;
    size_t nr = j->k->gemm_u8.nr, col = task * nr;
    (void)worker;
    pack_columns(j->k, j->dst + fv_packed_u8_bytes(&j->k->gemm_u8, col, j->w->k), j->w, col,
                 FV_MIN(nr, j->w->n - col));
}

static void pack_all(const fv_ops *ops, uint8_t *dst, const fv_mat *w)
{
    pack_job j = { ops->k, w, dst };
    fv_pool_run(ops->pool, (w->n + ops->k->gemm_u8.nr - 1) / ops->k->gemm_u8.nr, pack_task, &j);
}

typedef struct linear_job {
    const fv_ops *ops;
    const fv_linear8 *l;
    const uint8_t *x;
    size_t ldx, m, columns;
} linear_job;

static void wide_task(void *user, size_t task, unsigned worker)
{
    linear_job *j = user;
    size_t col = task * j->columns, n = FV_MIN(j->columns, j->l->w->n - col);
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    pack_columns(j->ops->k, packed, j->l->w, col, n);
    fv_gemm_u8_args args = gemm_args(j->l, j->x, j->ldx, 0, j->m, col, n, packed);
    j->ops->k->gemm_u8.run(&args);
}

static void tall_task(void *user, size_t task, unsigned worker)
{
    linear_job *j = user;
    size_t rows = round_up(TALL_ROWS, j->ops->k->gemm_u8.mr), row = task * rows;
    (void)worker;
    fv_gemm_u8_args args = gemm_args(j->l, j->x, j->ldx, row, FV_MIN(rows, j->m - row), 0,
                                     j->l->w->n, j->ops->shared);
    j->ops->k->gemm_u8.run(&args);
}

static bool is_tall(const fv_kernels *k, size_t n, size_t depth, size_t m, unsigned n_workers)
{
    return packed_bytes(k, n, depth) <= TALL_BYTES && m >= (size_t)TALL_ROWS * n_workers * 4;
}

static size_t wide_columns(const fv_kernels *k, size_t n, size_t depth, unsigned n_workers)
{
    size_t nr = k->gemm_u8.nr, most = WIDE_BYTES / packed_bytes(k, nr, depth),
           even = n / nr / (4 * n_workers);
    most = FV_MIN(FV_MAX(most, (size_t)1), FV_MAX(even, (size_t)1));
    return FV_MIN(most, (size_t)8) * nr;
}

void fv_linear8_run(const fv_ops *ops, const fv_linear8 *l, const uint8_t *x, size_t ldx, size_t m)
{
    linear_job j = { .ops = ops, .l = l, .x = x, .ldx = ldx, .m = m };
    if (is_tall(ops->k, l->w->n, l->w->k, m, ops->n_workers)) {
        size_t rows = round_up(TALL_ROWS, ops->k->gemm_u8.mr);
        pack_all(ops, ops->shared, l->w);
        fv_pool_run(ops->pool, (m + rows - 1) / rows, tall_task, &j);
        return;
    }
    j.columns = wide_columns(ops->k, l->w->n, l->w->k, ops->n_workers);
    fv_pool_run(ops->pool, (l->w->n + j.columns - 1) / j.columns, wide_task, &j);
}

fv_ops_need fv_linear8_need(const fv_kernels *k, unsigned n_workers, size_t n, size_t depth,
                            size_t m)
{
    return (fv_ops_need){ packed_bytes(k, wide_columns(k, n, depth, n_workers), depth),
                          is_tall(k, n, depth, m, n_workers) ? packed_bytes(k, n, depth) : 64 };
}

/* ---- depthwise convolutions -------------------------------------------------------------- */

typedef struct dw_job {
    const fv_ops *ops;
    float *dst;
    uint8_t *dst8;
    const fv_u8 *to;
    const float *src;
    const uint8_t *src8;
    fv_map_shape shape;
    const fv_dw *dw;
    unsigned stride;
    fv_act act;
} dw_job;

static void dw_u8_task(void *user, size_t y, unsigned worker)
{
    dw_job *j = user;
    size_t width = j->shape.width, c = j->dw->channels;
    float *row = j->dst + y * width * c;
    (void)worker;
    fv_dw_row(j->ops->k, row, c, FV_TYPE_F32, j->src, j->shape, j->dw, 1, FV_ACT_NONE, y, 0, width);
    j->ops->k->quantize_u8(j->dst8 + y * width * c, c, row, c, j->to->inv, j->to->zero, width, c);
}

void fv_dw_u8_run(const fv_ops *ops, float *dst, uint8_t *dst8, const fv_u8 *to, const float *src,
                  fv_map_shape shape, const fv_dw *dw)
{
    dw_job j = {
        .ops = ops, .dst = dst, .dst8 = dst8, .to = to, .src = src, .shape = shape, .dw = dw
    };
    fv_pool_run(ops->pool, shape.height, dw_u8_task, &j);
}

/* Columns [x0, x1) of `rows` output rows (1 or 2) from y on; dst [rows, x1 - x0, channels]. */
static void dw8_rows(const fv_ops *ops, uint8_t *dst, const fv_u8 *to, const uint8_t *src,
                     fv_map_shape shape, const fv_dw *dw, const void *packed, unsigned stride,
                     fv_act act, size_t y, unsigned rows, size_t x0, size_t x1, void *scratch)
{
    size_t n_out = dw->channels * dw->mult;
    fv_dwconv_u8_args args = { .rows = rows,
                               .width = shape.width,
                               .src_ld = dw->channels,
                               .channels = dw->channels,
                               .k = dw->kernel,
                               .stride = stride,
                               .mult = dw->mult,
                               .src_zero = dw->in.zero,
                               .weight = packed,
                               .mul = dw->mul,
                               .bias = dw->bias,
                               .act = act,
                               .x0 = x0,
                               .x1 = x1,
                               .dst = dst,
                               .dst_ld = n_out,
                               .dst_row = (x1 - x0) * n_out,
                               .inv = to->inv,
                               .zero = to->zero,
                               .scratch = scratch };
    for (unsigned i = 0; i < dw->kernel + (rows - 1) * stride; i++) {
        size_t at = y * stride + i; /* row + kernel / 2 */
        if (at >= dw->kernel / 2 && at - dw->kernel / 2 < shape.height)
            args.src[i] = src + (at - dw->kernel / 2) * shape.width * dw->channels;
    }
    ops->k->dwconv_u8.run(&args);
}

static size_t dw_packed_bytes(const fv_kernels *k, const fv_dw *dw)
{
    return round_up(k->dwconv_u8.packed_bytes(dw->channels, dw->kernel, dw->mult), 64);
}

static void dw8_task(void *user, size_t task, unsigned worker)
{
    dw_job *j = user;
    size_t width = j->shape.width / j->stride, height = j->shape.height / j->stride, y = 2 * task;
    dw8_rows(j->ops, j->dst8 + y * width * j->dw->channels * j->dw->mult, j->to, j->src8, j->shape,
             j->dw, j->ops->shared, j->stride, j->act, y, y + 1 < height ? 2 : 1, 0, width,
             fv_ops_worker(j->ops, worker));
}

void fv_dw8_run(const fv_ops *ops, uint8_t *dst, const fv_u8 *to, const uint8_t *src,
                fv_map_shape shape, const fv_dw *dw, unsigned stride, fv_act act)
{
    dw_job j = { .ops = ops,
                 .dst8 = dst,
                 .to = to,
                 .src8 = src,
                 .shape = shape,
                 .dw = dw,
                 .stride = stride,
                 .act = act };
    ops->k->dwconv_u8.pack(ops->shared, dw->w8, dw->channels, dw->kernel, dw->mult);
    fv_pool_run(ops->pool, (shape.height / stride + 1) / 2, dw8_task, &j);
}

fv_ops_need fv_dw8_need(const fv_kernels *k, const fv_dw *dw)
{
    return (fv_ops_need){ fv_dwconv_u8_scratch_bytes(), dw_packed_bytes(k, dw) };
}

/* ---- FFN --------------------------------------------------------------------------------- */

typedef struct ffn_plan {
    bool fused;           /* all weights packed in shared, tiles of pixels through all layers */
    size_t width, height; /* of a tile */
    size_t packed_dw, packed1, packed2;
    size_t t_bytes, h_bytes;
} ffn_plan;

static ffn_plan plan_ffn(const fv_kernels *k, unsigned n_workers, const fv_ffn *f,
                         fv_map_shape shape)
{
    size_t c = f->dw.channels, hidden = f->fc1.n, n = shape.width * shape.height;
    ffn_plan p = { .packed_dw = dw_packed_bytes(k, &f->dw),
                   .packed1 = packed_bytes(k, hidden, c),
                   .packed2 = packed_bytes(k, c, hidden) };
    p.width = FV_MIN(shape.width, (size_t)BLOCK_WIDTH);
    p.height = FV_MIN(round_up(FV_MAX(BLOCK_PIXELS / p.width, (size_t)2), 2), (size_t)8);
    p.fused = p.packed1 + p.packed2 <= TALL_BYTES && n >= 2 * p.width * p.height * n_workers;
    size_t rows = p.fused ? p.width * p.height : n;
    p.t_bytes = round_up(rows * c, 64);
    p.h_bytes = round_up(rows * hidden, 64);
    return p;
}

typedef struct ffn_job {
    const fv_ops *ops;
    ffn_plan plan;
    float *dst;
    const float *src;
    const uint8_t *src8;
    fv_map_shape shape;
    const fv_ffn *ffn;
} ffn_job;

static void ffn_task(void *user, size_t task, unsigned worker)
{
    ffn_job *j = user;
    const fv_ffn *f = j->ffn;
    const ffn_plan *p = &j->plan;
    size_t c = f->dw.channels, hidden = f->fc1.n,
           across = (j->shape.width + p->width - 1) / p->width;
    size_t x0 = task % across * p->width, y0 = task / across * p->height;
    size_t width = FV_MIN(p->width, j->shape.width - x0),
           height = FV_MIN(p->height, j->shape.height - y0);
    uint8_t *scratch = fv_ops_worker(j->ops, worker), *t = scratch + fv_dwconv_u8_scratch_bytes(),
            *h = t + p->t_bytes;
    const uint8_t *packed1 = j->ops->shared + p->packed_dw, *packed2 = packed1 + p->packed1;

    for (size_t y = 0; y < height; y += 2)
        dw8_rows(j->ops, t + y * width * c, &f->fc1.in, j->src8, j->shape, &f->dw, j->ops->shared,
                 1, FV_ACT_NONE, y0 + y, y + 1 < height ? 2 : 1, x0, x0 + width, scratch);
    fv_linear8 up = { .w = &f->fc1,
                      .y = h,
                      .ldy = hidden,
                      .y_type = FV_TYPE_U8,
                      .to = &f->fc2.in,
                      .act = FV_ACT_GELU };
    fv_gemm_u8_args args = gemm_args(&up, t, c, 0, width * height, 0, hidden, packed1);
    j->ops->k->gemm_u8.run(&args);
    bool whole = width == j->shape.width;
    /* rows of a tile lie apart in the map */
    for (size_t y = 0; y < height; y += whole ? height : 1) {
        size_t at = ((y0 + y) * j->shape.width + x0) * c;
        fv_linear8 down = { .w = &f->fc2,
                            .y = j->dst + at,
                            .ldy = c,
                            .y_type = FV_TYPE_F32,
                            .scale = f->scale,
                            .residual = j->src + at,
                            .ldr = c };
        args = gemm_args(&down, h + y * width * hidden, hidden, 0, whole ? width * height : width,
                         0, c, packed2);
        j->ops->k->gemm_u8.run(&args);
    }
}

void fv_ffn8_run(const fv_ops *ops, float *dst, const float *src, const uint8_t *src8,
                 fv_map_shape shape, const fv_ffn *f)
{
    size_t c = f->dw.channels, hidden = f->fc1.n, n = shape.width * shape.height;
    ffn_job j = { ops, plan_ffn(ops->k, ops->n_workers, f, shape), dst, src, src8, shape, f };
    const ffn_plan *p = &j.plan;
    if (p->fused) {
        ops->k->dwconv_u8.pack(ops->shared, f->dw.w8, c, f->dw.kernel, f->dw.mult);
        pack_all(ops, ops->shared + p->packed_dw, &f->fc1);
        pack_all(ops, ops->shared + p->packed_dw + p->packed1, &f->fc2);
        fv_pool_run(ops->pool,
                    (shape.width + p->width - 1) / p->width *
                        ((shape.height + p->height - 1) / p->height),
                    ffn_task, &j);
        return;
    }
    /* Whole maps, behind what the three layers need of the shared scratch. */
    fv_ops_need need = fv_ops_max(
        fv_dw8_need(ops->k, &f->dw),
        fv_ops_max(fv_linear8_need(ops->k, ops->n_workers, hidden, c, n),
                   fv_linear8_need(ops->k, ops->n_workers, c, hidden, n)));
    uint8_t *t = ops->shared + round_up(need.shared_bytes, 64), *h = t + p->t_bytes;
    fv_dw8_run(ops, t, &f->fc1.in, src8, shape, &f->dw, 1, FV_ACT_NONE);
    fv_linear8 up = { .w = &f->fc1,
                      .y = h,
                      .ldy = hidden,
                      .y_type = FV_TYPE_U8,
                      .to = &f->fc2.in,
                      .act = FV_ACT_GELU };
    fv_linear8_run(ops, &up, t, c, n);
    fv_linear8 down = { .w = &f->fc2,
                        .y = dst,
                        .ldy = c,
                        .y_type = FV_TYPE_F32,
                        .scale = f->scale,
                        .residual = src,
                        .ldr = c };
    fv_linear8_run(ops, &down, h, hidden, n);
}

fv_ops_need fv_ffn8_need(const fv_kernels *k, unsigned n_workers, const fv_ffn *f,
                         fv_map_shape shape)
{
    size_t c = f->dw.channels, hidden = f->fc1.n, n = shape.width * shape.height;
    ffn_plan p = plan_ffn(k, n_workers, f, shape);
    if (p.fused)
        return (fv_ops_need){ fv_dwconv_u8_scratch_bytes() + p.t_bytes + p.h_bytes,
                              p.packed_dw + p.packed1 + p.packed2 };
    fv_ops_need need = fv_ops_max(fv_dw8_need(k, &f->dw),
                                  fv_ops_max(fv_linear8_need(k, n_workers, hidden, c, n),
                                             fv_linear8_need(k, n_workers, c, hidden, n)));
    need.shared_bytes = round_up(need.shared_bytes, 64) + p.t_bytes + p.h_bytes;
    return need;
}
