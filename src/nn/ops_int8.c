/* The encoder's layers with int8 weights: what ops.c and ops_map.c hand on to here. See ops.h.
 *
 * Rows in front of a layer are u8 with a scale for each channel, which the layer's weights hold;
 * sums are i32; the map that blocks add to stays f32.
 *
 *    x f32 --quantise--> x8 --dw 7x7--> t u8 --fc1, GELU--> h u8 --fc2, scale, + x--> y f32
 *
 * Layers that lose too much so have rows of 16 bits: one map of high bytes, one of low bytes behind
 * it, each multiplied by the same weights (kernels.h); convolutions between them are in f32.
 *
 * Weights are packed as they are used, and the two splits are ops.c's. */
#include <assert.h>

#include "nn/ops_split.h"

/* Chosen for, and measured on, the machine of docs/performance.md: Zen 4, 1 MB of L2 a core. */
enum {
    TALL_BYTES = 6 << 20,   /* packed weights beyond this do not stay in a shared cache */
    WIDE_BYTES = 512 << 10, /* and these, with the rows that pass over them, in a core's own */
    TALL_ROWS = 96,         /* a task: as in ops.c */
    QUANTISE_ROWS = 64,     /* a task */
    /* A tile of the fused FFN. Two-dimensional, unlike the float one's runs of pixels: a 7x7 kernel
     * reads 6 rows and columns around its outputs, and two output rows at a time share most of
     * them. 64 x 2 pixels of 384 channels are t 49 KB, h 196 KB: both stay in L2. */
    BLOCK_WIDTH = 64,
    BLOCK_PIXELS = 128,
    BLOCK_HEIGHT = 8, /* at most, of narrow maps */
    /* Rows and columns whose low sums are made, and then used: 128 KB. */
    FINE_ROWS = 128,
    FINE_COLUMNS = 256,
    /* A block of the fused FFN with 16-bit rows: its hidden layer in two bytes, 85 pixels of 1536
     * channels. */
    FINE_HIDDEN_BYTES = 256 << 10,
    FINE_LEAST_PIXELS = 32
};

/* Low sums of a block. */
enum { LOW_BYTES = FINE_ROWS * FINE_COLUMNS * sizeof(int32_t) };

/* Panels of n columns, depth deep; a multiple of 64. */
static size_t panel8_bytes(const fv_kernels *k, size_t n, size_t depth)
{
    return fv_round_up(fv_packed_u8_bytes(&k->gemm_u8, n, depth), 64);
}

/* ---- f32 -> u8 --------------------------------------------------------------------------- */

typedef struct quantise_job {
    const fv_ops *ops;
    uint8_t *dst;     /* [n, c]; of 16 bits: the high bytes, low ones behind them */
    const float *src; /* [n, c] */
    size_t n, c;
    const fv_u8 *to;
} quantise_job;

static void rows_quantise_task(void *user, size_t task, unsigned worker)
{
    quantise_job *j = user;
    size_t row = task * QUANTISE_ROWS, n = FV_MIN((size_t)QUANTISE_ROWS, j->n - row);
    uint8_t *dst = j->dst + row * j->c;
    const float *src = j->src + row * j->c;
    (void)worker;
    if (j->to->fine)
        j->ops->k->quantize_u16(dst, dst + j->n * j->c, j->c, src, j->c, j->to->inv, j->to->zero, n,
                                j->c);
    else
        j->ops->k->quantize_u8(dst, j->c, src, j->c, j->to->inv, j->to->zero, n, j->c);
}

void fv_quantise_run(const fv_ops *ops, uint8_t *dst, const float *src, size_t n, size_t c,
                     const fv_u8 *to)
{
    quantise_job j = { ops, dst, src, n, c, to };
    fv_pool_run(ops->pool, (n + QUANTISE_ROWS - 1) / QUANTISE_ROWS, rows_quantise_task, &j);
}

/* x as u8 (of 16 bits: two maps of it) for the layer with the input `in`: as it was written, or
 * quantised to `room`. */
static const uint8_t *rows_u8(const fv_ops *ops, fv_rows x, const fv_u8 *in, uint8_t *room,
                              size_t n, size_t c)
{
    assert(x.type == FV_TYPE_F32 || x.type == FV_TYPE_U8);
    assert(!x.to_int8 || x.to_int8 == in);
    assert(!in->fine || (x.type == FV_TYPE_F32 && !x.beside));
    if (x.type == FV_TYPE_U8)
        return x.data;
    if (x.beside)
        return x.beside;
    fv_quantise_run(ops, room, x.data, n, c, in);
    return room;
}

/* ---- linear layers ----------------------------------------------------------------------- */

/* Columns [col, col + n) of rows [row, row + m). */
static fv_gemm_u8_args linear8_args(const fv_linear *l, const uint8_t *x, size_t ldx, size_t row,
                                    size_t m, size_t col, size_t n, const void *packed)
{
    bool to_int8 = l->y_type == FV_TYPE_U8;
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
        .inv = to_int8 ? l->y_to_int8->inv + col : NULL,
        .zero = to_int8 ? l->y_to_int8->zero : 0,
    };
}

/* The product that high asks for, of rows of 16 bits whose low bytes lie `plane` bytes behind: at
 * most FINE_ROWS rows, FINE_COLUMNS columns; low: LOW_BYTES. */
static void product16(const fv_kernels *k, const fv_gemm_u8_args *high, size_t plane, int32_t *low)
{
    if (k->gemm_u8.run16) {
        fv_gemm_u8_args both = *high;
        both.a_low = high->a + plane;
        k->gemm_u8.run16(&both);
        return;
    }
    fv_gemm_u8_args g = { .m = high->m,
                          .n = high->n,
                          .k = high->k,
                          .a = high->a + plane,
                          .lda = high->lda,
                          .b = high->b,
                          .c = low,
                          .ldc = high->n,
                          .c_type = FV_TYPE_I32 };
    assert(g.m <= FINE_ROWS && g.n <= FINE_COLUMNS);
    k->gemm_u8.run(&g);
    g = *high;
    g.low = low;
    g.ldl = high->n;
    k->gemm_u8.run(&g);
}

/* Rows [row, row + m) of x [m, k], their low bytes `plane` bytes behind, over columns [col, col +
 * n). */
static void linear16_run(const fv_kernels *k, const fv_linear *l, const uint8_t *x, size_t plane,
                         size_t row, size_t m, size_t col, size_t n, const uint8_t *packed,
                         int32_t *low)
{
    for (size_t i = 0; i < m; i += FINE_ROWS) {
        for (size_t j = 0; j < n; j += FINE_COLUMNS) {
            const fv_gemm_u8_args high = linear8_args(
                l, x, l->w->k, row + i, FV_MIN((size_t)FINE_ROWS, m - i), col + j,
                FV_MIN((size_t)FINE_COLUMNS, n - j),
                packed + fv_packed_u8_bytes(&k->gemm_u8, j, l->w->k));
            product16(k, &high, plane, low);
        }
    }
}

/* Panels of nr columns, four values of k together: what one instruction multiplies (kernels.h). */
typedef struct panels8_job {
    const fv_kernels *k;
    const fv_mat *w; /* [n, k] */
    uint8_t *dst;    /* [n / nr, k / 4, nr, 4] */
} panels8_job;

static void panels8_pack(const fv_kernels *k, uint8_t *dst, const fv_mat *w, size_t col, size_t n)
{
    k->gemm_u8.pack(dst, (const int8_t *)w->data + col * w->k, w->k, n, w->k);
}

static void panels8_task(void *user, size_t task, unsigned worker)
{
    panels8_job *j = user;
    size_t nr = j->k->gemm_u8.nr, col = task * nr;
    (void)worker;
    panels8_pack(j->k, j->dst + fv_packed_u8_bytes(&j->k->gemm_u8, col, j->w->k), j->w, col,
                 FV_MIN(nr, j->w->n - col));
}

static void panels8_pack_all(const fv_ops *ops, uint8_t *dst, const fv_mat *w)
{
    panels8_job j = { ops->k, w, dst };
    fv_pool_run(ops->pool, (w->n + ops->k->gemm_u8.nr - 1) / ops->k->gemm_u8.nr, panels8_task, &j);
}

typedef struct linear8_job {
    const fv_ops *ops;
    const fv_linear *l;
    const uint8_t *x; /* [m, k], of 16 bits [2, m, k] */
    size_t m, columns;
} linear8_job;

/* Columns [col, col + n) of rows [row, row + m); low: LOW_BYTES where rows have 16 bits. */
static void linear8_block(const linear8_job *j, size_t row, size_t m, size_t col, size_t n,
                          const uint8_t *packed, void *low)
{
    const size_t k = j->l->w->k;
    if (j->l->w->in.fine) {
        linear16_run(j->ops->k, j->l, j->x, j->m * k, row, m, col, n, packed, low);
        return;
    }
    const fv_gemm_u8_args args = linear8_args(j->l, j->x, k, row, m, col, n, packed);
    j->ops->k->gemm_u8.run(&args);
}

/* All rows over columns [col, col + n). */
static void linear8_wide_task(void *user, size_t task, unsigned worker)
{
    linear8_job *j = user;
    size_t col = task * j->columns, n = FV_MIN(j->columns, j->l->w->n - col);
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    panels8_pack(j->ops->k, packed, j->l->w, col, n);
    linear8_block(j, 0, j->m, col, n, packed,
                  packed + panel8_bytes(j->ops->k, j->columns, j->l->w->k));
}

/* Rows [row, row + m) over all columns, whose panels are in shared. */
static void linear8_tall_task(void *user, size_t task, unsigned worker)
{
    linear8_job *j = user;
    size_t rows = fv_round_up(TALL_ROWS, j->ops->k->gemm_u8.mr), row = task * rows;
    linear8_block(j, row, FV_MIN(rows, j->m - row), 0, j->l->w->n, j->ops->shared,
                  fv_ops_worker(j->ops, worker));
}

static bool linear8_is_tall(const fv_kernels *k, size_t n, size_t depth, size_t m,
                            unsigned n_workers)
{
    return panel8_bytes(k, n, depth) <= TALL_BYTES && m >= (size_t)TALL_ROWS * n_workers * 4;
}

/* Columns of a wide task: whole panels, at most WIDE_BYTES, several tasks a thread. */
static size_t linear8_wide_columns(const fv_kernels *k, size_t n, size_t depth, unsigned n_workers)
{
    size_t nr = k->gemm_u8.nr, most = WIDE_BYTES / panel8_bytes(k, nr, depth),
           even = n / nr / (4 * n_workers);
    most = FV_MIN(FV_MAX(most, (size_t)1), FV_MAX(even, (size_t)1));
    return FV_MIN(most, (size_t)8) * nr;
}

/* Bytes of shared in front of the input's copy as u8. */
static size_t linear8_shared_bytes(const fv_kernels *k, size_t n, size_t depth, size_t m,
                                   unsigned n_workers)
{
    return linear8_is_tall(k, n, depth, m, n_workers) ? panel8_bytes(k, n, depth) : 0;
}

void fv_linear_run_int8(const fv_ops *ops, const fv_linear *l, const void *x, fv_type x_type,
                        size_t m)
{
    size_t n = l->w->n, depth = l->w->k;
    size_t packed = linear8_shared_bytes(ops->k, n, depth, m, ops->n_workers);
    fv_rows rows = { .data = (void *)x, .type = x_type };
    linear8_job j = { .ops = ops, .l = l, .m = m };
    j.x = rows_u8(ops, rows, &l->w->in, ops->shared + packed, m, depth);
    if (packed) {
        size_t block = fv_round_up(TALL_ROWS, ops->k->gemm_u8.mr);
        panels8_pack_all(ops, ops->shared, l->w);
        fv_pool_run(ops->pool, (m + block - 1) / block, linear8_tall_task, &j);
        return;
    }
    j.columns = linear8_wide_columns(ops->k, n, depth, ops->n_workers);
    fv_pool_run(ops->pool, (n + j.columns - 1) / j.columns, linear8_wide_task, &j);
}

fv_ops_need fv_linear_need_int8(const fv_kernels *k, unsigned n_workers, const fv_mat *w, size_t m)
{
    const size_t n = w->n, depth = w->k;
    return (fv_ops_need){ panel8_bytes(k, linear8_wide_columns(k, n, depth, n_workers), depth) +
                              (w->in.fine ? LOW_BYTES : 0),
                          linear8_shared_bytes(k, n, depth, m, n_workers) +
                              (w->in.fine ? 2 : 1) * m * depth };
}

/* ---- depthwise convolutions -------------------------------------------------------------- */

typedef struct dw8_job {
    const fv_ops *ops;
    uint8_t *y; /* [height / stride, width / stride, channels * mult] */
    const fv_u8 *to;
    const uint8_t *x; /* [height, width, channels] */
    fv_map_shape shape;
    const fv_dw *dw;
    unsigned stride;
    fv_act act;
} dw8_job;

/* Columns [x0, x1) of `rows` output rows (1 or 2) from row at on; y [rows, x1 - x0, n_out]. Two
 * rows share most of the input rows that they read. */
static void dw8_rows(const dw8_job *j, uint8_t *y, size_t at, unsigned rows, size_t x0, size_t x1,
                     void *scratch)
{
    const fv_dw *dw = j->dw;
    size_t n_out = dw->channels * dw->mult;
    fv_dwconv_u8_args args = { .rows = rows,
                               .width = j->shape.width,
                               .src_ld = dw->channels,
                               .channels = dw->channels,
                               .k = dw->kernel,
                               .stride = j->stride,
                               .mult = dw->mult,
                               .src_zero = dw->in.zero,
                               .weight = j->ops->shared,
                               .mul = dw->mul,
                               .bias = dw->bias,
                               .act = j->act,
                               .x0 = x0,
                               .x1 = x1,
                               .dst = y,
                               .dst_ld = n_out,
                               .dst_row = (x1 - x0) * n_out,
                               .inv = j->to->inv,
                               .zero = j->to->zero,
                               .scratch = scratch };
    for (unsigned i = 0; i < dw->kernel + (rows - 1) * j->stride; i++) {
        size_t row = at * j->stride + i; /* the input's row + kernel / 2 */
        if (row >= dw->kernel / 2 && row - dw->kernel / 2 < j->shape.height)
            args.src[i] = j->x + (row - dw->kernel / 2) * j->shape.width * dw->channels;
    }
    j->ops->k->dwconv_u8.run(&args);
}

static size_t dw8_packed_bytes(const fv_kernels *k, const fv_dw *dw)
{
    return fv_round_up(k->dwconv_u8.packed_bytes(dw->channels, dw->kernel, dw->mult), 64);
}

/* Two output rows. */
static void dw8_task(void *user, size_t task, unsigned worker)
{
    dw8_job *j = user;
    size_t width = j->shape.width / j->stride, height = j->shape.height / j->stride, at = 2 * task;
    dw8_rows(j, j->y + at * width * j->dw->channels * j->dw->mult, at, at + 1 < height ? 2 : 1, 0,
             width, fv_ops_worker(j->ops, worker));
}

void fv_dw_run_int8(const fv_ops *ops, fv_rows y, fv_rows x, fv_map_shape shape, const fv_dw *dw,
                    unsigned stride, fv_act act)
{
    assert(y.type == FV_TYPE_U8);
    dw8_job j = { .ops = ops,
                  .y = y.data,
                  .to = y.to_int8,
                  .x = rows_u8(ops, x, &dw->in, ops->shared + dw8_packed_bytes(ops->k, dw),
                               shape.height * shape.width, dw->channels),
                  .shape = shape,
                  .dw = dw,
                  .stride = stride,
                  .act = act };
    ops->k->dwconv_u8.pack(ops->shared, dw->w8, dw->channels, dw->kernel, dw->mult);
    fv_pool_run(ops->pool, (shape.height / stride + 1) / 2, dw8_task, &j);
}

fv_ops_need fv_dw_need_int8(const fv_kernels *k, const fv_dw *dw, fv_map_shape shape)
{
    return (fv_ops_need){ fv_dwconv_u8_scratch_bytes(),
                          dw8_packed_bytes(k, dw) + shape.height * shape.width * dw->channels };
}

/* ---- FFN: tiles through all three layers ------------------------------------------------- */

typedef struct ffn8_plan {
    bool fused;           /* all weights packed in shared: dw, fc1, fc2; behind them x as u8 */
    size_t width, height; /* of a tile */
    size_t packed_dw, packed1, packed2; /* bytes */
    size_t t_bytes, h_bytes;            /* a tile behind dw, behind fc1 */
} ffn8_plan;

/* Two tiles a thread at least: else threads would wait for one tile, and layer by layer is as
 * good. */
static ffn8_plan ffn8_plan_tiles(const fv_kernels *k, unsigned n_workers, const fv_ffn *f,
                                 fv_map_shape shape)
{
    size_t c = f->dw.channels, hidden = f->fc1.n, n = shape.width * shape.height;
    ffn8_plan p = { .packed_dw = dw8_packed_bytes(k, &f->dw),
                    .packed1 = panel8_bytes(k, hidden, c),
                    .packed2 = panel8_bytes(k, c, hidden) };
    p.width = FV_MIN(shape.width, (size_t)BLOCK_WIDTH);
    p.height = FV_MIN(fv_round_up(FV_MAX(BLOCK_PIXELS / p.width, (size_t)2), 2),
                      (size_t)BLOCK_HEIGHT);
    p.fused = p.packed1 + p.packed2 <= TALL_BYTES && n >= 2 * p.width * p.height * n_workers;
    p.t_bytes = fv_round_up(p.width * p.height * c, 64);
    p.h_bytes = fv_round_up(p.width * p.height * hidden, 64);
    return p;
}

typedef struct ffn8_job {
    ffn8_plan plan;
    dw8_job dw; /* its y is the tile's */
    const fv_ops *ops;
    float *y;       /* [height * width, c] */
    const float *x; /* the same */
    fv_map_shape shape;
    const fv_ffn *ffn;
} ffn8_job;

/* A tile of p->width x p->height pixels, less at the right and lower edges. */
static void ffn8_tile_task(void *user, size_t task, unsigned worker)
{
    ffn8_job *j = user;
    const fv_ffn *f = j->ffn;
    const ffn8_plan *p = &j->plan;
    size_t c = f->dw.channels, hidden = f->fc1.n,
           across = (j->shape.width + p->width - 1) / p->width;
    size_t x0 = task % across * p->width, y0 = task / across * p->height;
    size_t width = FV_MIN(p->width, j->shape.width - x0),
           height = FV_MIN(p->height, j->shape.height - y0);
    uint8_t *scratch = fv_ops_worker(j->ops, worker), *t = scratch + fv_dwconv_u8_scratch_bytes(),
            *h = t + p->t_bytes;
    const uint8_t *packed1 = j->ops->shared + p->packed_dw, *packed2 = packed1 + p->packed1;

    /* t = DW7x7(x), to u8 for fc1                             [height, width, c] */
    for (size_t row = 0; row < height; row += 2)
        dw8_rows(&j->dw, t + row * width * c, y0 + row, row + 1 < height ? 2 : 1, x0, x0 + width,
                 scratch);
    /* h = gelu(t W1^T + b1), to u8 for fc2                    [height, width, hidden] */
    fv_linear up = { .w = &f->fc1,
                     .y = h,
                     .ldy = hidden,
                     .y_type = FV_TYPE_U8,
                     .y_to_int8 = &f->fc2.in,
                     .act = FV_ACT_GELU };
    fv_gemm_u8_args args = linear8_args(&up, t, c, 0, width * height, 0, hidden, packed1);
    j->ops->k->gemm_u8.run(&args);
    /* y = x + scale * (h W2^T + b2), f32: row by row, as a tile's rows lie apart in the map, unless
     * it is as wide as the map                                [height, width, c] */
    bool whole = width == j->shape.width;
    for (size_t row = 0; row < height; row += whole ? height : 1) {
        size_t at = ((y0 + row) * j->shape.width + x0) * c;
        fv_linear down = { .w = &f->fc2,
                           .y = j->y + at,
                           .ldy = c,
                           .y_type = FV_TYPE_F32,
                           .scale = f->scale,
                           .residual = j->x + at,
                           .ldr = c };
        args = linear8_args(&down, h + row * width * hidden, hidden, 0,
                            whole ? width * height : width, 0, c, packed2);
        j->ops->k->gemm_u8.run(&args);
    }
}

bool fv_ffn_run_tiles_int8(const fv_ops *ops, float *y, fv_rows x, fv_map_shape shape,
                           const fv_ffn *f)
{
    const ffn8_plan p = ffn8_plan_tiles(ops->k, ops->n_workers, f, shape);
    size_t c = f->dw.channels;
    if (!p.fused)
        return false;
    uint8_t *packed1 = ops->shared + p.packed_dw, *packed2 = packed1 + p.packed1;
    dw8_job dw = { .ops = ops,
                   .to = &f->fc1.in,
                   .x = rows_u8(ops, x, &f->dw.in, packed2 + p.packed2, shape.height * shape.width,
                                c),
                   .shape = shape,
                   .dw = &f->dw,
                   .stride = 1 };
    ffn8_job j = { p, dw, ops, y, x.data, shape, f };
    ops->k->dwconv_u8.pack(ops->shared, f->dw.w8, c, f->dw.kernel, f->dw.mult);
    panels8_pack_all(ops, packed1, &f->fc1);
    panels8_pack_all(ops, packed2, &f->fc2);
    size_t across = (shape.width + p.width - 1) / p.width,
           down = (shape.height + p.height - 1) / p.height;
    fv_pool_run(ops->pool, across * down, ffn8_tile_task, &j);
    return true;
}

bool fv_ffn_need_tiles_int8(fv_ops_need *need, const fv_kernels *k, unsigned n_workers,
                            const fv_ffn *f, fv_map_shape shape)
{
    const ffn8_plan p = ffn8_plan_tiles(k, n_workers, f, shape);
    *need = (fv_ops_need){ fv_dwconv_u8_scratch_bytes() + p.t_bytes + p.h_bytes,
                           p.packed_dw + p.packed1 + p.packed2 +
                               shape.height * shape.width * f->dw.channels };
    return p.fused;
}

/* ---- FFN with 16-bit rows: runs of pixels through all three layers ------------------------- */

/* A worker's scratch, in this order. */
typedef struct ffn16_plan {
    bool fused;   /* both weights packed in shared */
    size_t block; /* pixels */
    size_t packed1;
    size_t t_bytes, x_bytes, h_bytes; /* t in f32, t in 16 bits, the hidden layer in 16 bits */
    size_t part_bytes;                /* FINE_COLUMNS columns of the hidden layer in f32 */
} ffn16_plan;

static ffn16_plan ffn16_plan_blocks(const fv_kernels *k, unsigned n_workers, const fv_ffn *f,
                                    fv_map_shape shape)
{
    const size_t c = f->fc1.k, hidden = f->fc1.n, wanted = FINE_HIDDEN_BYTES / (2 * hidden);
    ffn16_plan p = { .packed1 = panel8_bytes(k, hidden, c) };
    p.block = FV_MIN(FV_MAX(wanted, (size_t)FINE_LEAST_PIXELS), (size_t)FINE_ROWS);
    p.fused = p.packed1 + panel8_bytes(k, c, hidden) <= TALL_BYTES &&
              shape.width * shape.height >= p.block * n_workers;
    p.t_bytes = fv_round_up(p.block * c * sizeof(float), 64);
    p.x_bytes = fv_round_up(2 * p.block * c, 64);
    p.h_bytes = fv_round_up(2 * p.block * hidden, 64);
    p.part_bytes = p.block * FINE_COLUMNS * sizeof(float);
    return p;
}

typedef struct ffn16_job {
    ffn16_plan plan;
    const fv_ops *ops;
    float *y;       /* [height * width, c] */
    const float *x; /* the same */
    fv_map_shape shape;
    const fv_ffn *ffn;
} ffn16_job;

static void ffn16_block_task(void *user, size_t task, unsigned worker)
{
    const ffn16_job *j = user;
    const fv_ffn *f = j->ffn;
    const ffn16_plan *p = &j->plan;
    const fv_kernels *k = j->ops->k;
    const size_t c = f->fc1.k, hidden = f->fc1.n, width = j->shape.width;
    const size_t first = task * p->block, n = FV_MIN(p->block, j->shape.height * width - first);
    uint8_t *scratch = fv_ops_worker(j->ops, worker), *x = scratch + p->t_bytes,
            *h = x + p->x_bytes;
    float *t = (float *)(void *)scratch, *part = (float *)(void *)(h + p->h_bytes);
    int32_t *low = (int32_t *)(void *)(h + p->h_bytes + p->part_bytes);

    /* t = DW7x7(x) + b, to 16 bits for fc1                    [n, c] */
    for (size_t at = first; at < first + n;) {
        const size_t row = at / width, x0 = at % width, x1 = FV_MIN(width, x0 + (first + n - at));
        fv_dw_row(k, t + (at - first) * c, c, FV_TYPE_F32, j->x, j->shape, &f->dw, 1, FV_ACT_NONE,
                  row, x0, x1);
        at += x1 - x0;
    }
    k->quantize_u16(x, x + n * c, c, t, c, f->fc1.in.inv, f->fc1.in.zero, n, c);
    /* h = gelu(t W1^T + b1), to 16 bits for fc2               [n, hidden] */
    for (size_t col = 0; col < hidden; col += FINE_COLUMNS) {
        const size_t columns = FV_MIN((size_t)FINE_COLUMNS, hidden - col);
        const fv_gemm_u8_args up = {
            .m = n,
            .n = columns,
            .k = c,
            .a = x,
            .lda = c,
            .b = j->ops->shared + fv_packed_u8_bytes(&k->gemm_u8, col, c),
            .c = part,
            .ldc = columns,
            .c_type = FV_TYPE_F32,
            .act = FV_ACT_GELU,
            .bias = f->fc1.bias8 + col,
            .mul = f->fc1.mul + col,
        };
        product16(k, &up, n * c, low);
        k->quantize_u16(h + col, h + n * hidden + col, hidden, part, columns, f->fc2.in.inv + col,
                        f->fc2.in.zero, n, columns);
    }
    /* y = x + scale * (h W2^T + b2)                           [n, c] */
    const fv_linear down = { .w = &f->fc2,
                             .y = j->y + first * c,
                             .ldy = c,
                             .y_type = FV_TYPE_F32,
                             .scale = f->scale,
                             .residual = j->x + first * c,
                             .ldr = c };
    linear16_run(k, &down, h, n * hidden, 0, n, 0, c, j->ops->shared + p->packed1, low);
}

bool fv_ffn_run_fine(const fv_ops *ops, float *y, const float *x, fv_map_shape shape,
                     const fv_ffn *f)
{
    const ffn16_plan p = ffn16_plan_blocks(ops->k, ops->n_workers, f, shape);
    ffn16_job j = { p, ops, y, x, shape, f };
    if (!p.fused)
        return false;
    panels8_pack_all(ops, ops->shared, &f->fc1);
    panels8_pack_all(ops, ops->shared + p.packed1, &f->fc2);
    fv_pool_run(ops->pool, (shape.height * shape.width + p.block - 1) / p.block, ffn16_block_task,
                &j);
    return true;
}

bool fv_ffn_need_fine(fv_ops_need *need, const fv_kernels *k, unsigned n_workers, const fv_ffn *f,
                      fv_map_shape shape)
{
    const ffn16_plan p = ffn16_plan_blocks(k, n_workers, f, shape);
    *need = (fv_ops_need){ p.t_bytes + p.x_bytes + p.h_bytes + p.part_bytes + LOW_BYTES,
                           p.packed1 + panel8_bytes(k, f->fc2.n, f->fc2.k) };
    return p.fused;
}
