/* What only the encoder has: depthwise convolutions, the FFN, LayerNorm and attention over maps.
 * See ops.h. int8 weights: ops_int8.c. */
#include <assert.h>

#include "nn/ops_split.h"

/* Chosen for, and measured on, the machine of docs/performance.md: Zen 4, 1 MB of L2 a core. */
enum {
    /* Packed weights of a fused FFN: more do not stay in the shared cache, from where every block
     * of pixels reads them. The encoder's first three stages fit, at 1024 x 1024 those with most
     * pixels. */
    FFN_PACKED_BYTES = 6 << 20,
    /* A block's hidden values, the largest thing between the layers: with the rows around them they
     * fit into L2. */
    FFN_HIDDEN_BYTES = 384 << 10,
    /* Pixels of a block: below, the panels are not used often enough for each trip from the shared
     * cache; above, nothing is gained. */
    FFN_LEAST_PIXELS = 32,
    FFN_MOST_PIXELS = 128,
    NORM_ROWS = 64 /* a task: of 768 channels 196 KB, still in L2 when they are quantised */
};

#define LN_EPS 1e-5f /* docs/model.md, section 3 */

/* ---- depthwise convolution --------------------------------------------------------------- */

/* A row of outputs reads `kernel` rows of inputs around it; those outside the map are NULL, which
 * dwconv takes as zeros. */
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
    fv_rows y;      /* [height / stride, width / stride, channels * mult] */
    const float *x; /* [height, width, channels] */
    fv_map_shape shape;
    const fv_dw *dw;
    unsigned stride;
    fv_act act;
} dw_job;

/* One output row [width, n_out]; beside it as u8 while it is in the cache. */
static void dw_row_task(void *user, size_t task, unsigned worker)
{
    dw_job *j = user;
    size_t width = j->shape.width / j->stride, n_out = j->dw->channels * j->dw->mult;
    uint8_t *row = (uint8_t *)j->y.data + task * width * n_out * fv_type_size(j->y.type);
    (void)worker;
    fv_dw_row(j->ops->k, row, n_out, j->y.type, j->x, j->shape, j->dw, j->stride, j->act, task, 0,
              width);
    if (j->y.beside)
        j->ops->k->quantize_u8(j->y.beside + task * width * n_out, n_out, (float *)(void *)row,
                               n_out, j->y.to_int8->inv, j->y.to_int8->zero, width, n_out);
}

void fv_dw_run(const fv_ops *ops, fv_rows y, fv_rows x, fv_map_shape shape, const fv_dw *dw,
               unsigned stride, fv_act act)
{
    const double start = fv_op_start(ops);
    fv_ops_observe(ops, dw, x.data, x.type, shape.height * shape.width, dw->channels);
    if (dw->w8) {
        fv_dw_run_int8(ops, y, x, shape, dw, stride, act);
    } else {
        assert(x.type == FV_TYPE_F32 && y.type != FV_TYPE_U8);
        assert(!y.beside || y.type == FV_TYPE_F32);
        dw_job j = { ops, y, x.data, shape, dw, stride, act };
        fv_pool_run(ops->pool, shape.height / stride, dw_row_task, &j);
    }
    fv_time_dw(ops, start, dw, shape.height / stride * (shape.width / stride));
}

fv_ops_need fv_dw_need(const fv_ops *ops, const fv_dw *dw, fv_map_shape shape)
{
    return dw->w8 ? fv_dw_need_int8(ops->k, dw, shape) : (fv_ops_need){ 0, 0 };
}

/* ---- FFN: dw 7x7, fc1 with GELU, fc2, scale, residual ------------------------------------ */

/* In floats, fused: blocks of pixels that follow each other go through all three layers; t and h
 * never exist as whole maps. */
typedef struct ffn_plan {
    bool fused;              /* both weights packed in shared */
    size_t block;            /* pixels */
    size_t packed1, packed2; /* bytes */
    size_t t_bytes, h_bytes; /* a block behind dw [block, c]; the hidden block [block, hidden] */
    size_t wide_bytes;       /* the larger of both widened to f32, for F16 */
} ffn_plan;

static ffn_plan ffn_plan_blocks(const fv_gemm_kernel *g, unsigned n_workers, const fv_ffn *f,
                                size_t n_pixels, fv_type operand)
{
    size_t c = f->dw.channels, hidden = f->fc1.n;
    ffn_plan p = { .packed1 = fv_panel_bytes(g, hidden, c),
                   .packed2 = fv_panel_bytes(g, c, hidden) };
    size_t wanted = FFN_HIDDEN_BYTES / (hidden * fv_type_size(g->type));
    p.block = fv_round_up(FV_MAX(FV_MIN(wanted, (size_t)FFN_MOST_PIXELS), (size_t)FFN_LEAST_PIXELS),
                          g->mr);
    p.fused = p.packed1 + p.packed2 <= FFN_PACKED_BYTES && n_pixels >= p.block * n_workers;
    p.t_bytes = fv_round_up(p.block * c * fv_type_size(operand), 64);
    p.h_bytes = fv_round_up(p.block * hidden * fv_type_size(operand), 64);
    p.wide_bytes = operand == g->type
                       ? 0
                       : fv_round_up(p.block * FV_MAX(c, hidden) * sizeof(float), 64);
    return p;
}

typedef struct ffn_job {
    const fv_ops *ops;
    const fv_gemm_kernel *g;
    ffn_plan plan;
    float *y;       /* [height * width, c] */
    const float *x; /* the same */
    fv_map_shape shape;
    const fv_ffn *ffn;
    fv_type operand;
} ffn_job;

static const void *ffn_widen(const ffn_job *j, const void *x, float *wide, size_t n)
{
    if (j->operand == j->g->type)
        return x;
    j->ops->k->convert[FV_TYPE_F32][j->operand](wide, x, n);
    return wide;
}

static void ffn_block_task(void *user, size_t task, unsigned worker)
{
    ffn_job *j = user;
    const fv_ffn *f = j->ffn;
    size_t c = f->dw.channels, hidden = f->fc1.n, width = j->shape.width;
    size_t first = task * j->plan.block,
           last = FV_MIN(first + j->plan.block, j->shape.height * width);
    uint8_t *t = fv_ops_worker(j->ops, worker), *h = t + j->plan.t_bytes;
    float *wide = (float *)(void *)(h + j->plan.h_bytes);

    /* t = DW7x7(x) + b: the block's pieces of map rows        [block, c] */
    for (size_t p = first; p < last;) {
        size_t y = p / width, x0 = p % width, x1 = FV_MIN(width, x0 + (last - p));
        fv_dw_row(j->ops->k, t + (p - first) * c * fv_type_size(j->operand), c, j->operand, j->x,
                  j->shape, &f->dw, 1, FV_ACT_NONE, y, x0, x1);
        p += x1 - x0;
    }
    /* h = gelu(t W1^T + b1)                                   [block, hidden] */
    fv_gemm_args up = { .m = last - first,
                        .n = hidden,
                        .k = c,
                        .a = ffn_widen(j, t, wide, (last - first) * c),
                        .lda = c,
                        .b = j->ops->shared,
                        .c = h,
                        .ldc = hidden,
                        .c_type = j->operand,
                        .act = FV_ACT_GELU,
                        .bias = f->fc1.bias };
    j->g->run(&up);
    /* y = x + scale * (h W2^T + b2)                           [block, c] */
    fv_gemm_args down = { .m = last - first,
                          .n = c,
                          .k = hidden,
                          .a = ffn_widen(j, h, wide, (last - first) * hidden),
                          .lda = hidden,
                          .b = j->ops->shared + j->plan.packed1,
                          .c = j->y + first * c,
                          .ldc = c,
                          .c_type = FV_TYPE_F32,
                          .bias = f->fc2.bias,
                          .scale = f->scale,
                          .residual = j->x + first * c,
                          .ldr = c };
    j->g->run(&down);
}

/* false: nothing was done, because the weights or the map do not suit it, or somebody wants to see
 * the layers' inputs as a whole. */
static bool ffn_run_blocks(const fv_ops *ops, float *y, const float *x, fv_map_shape shape,
                           const fv_ffn *f, fv_type operand)
{
    const fv_gemm_kernel *g = fv_gemm_of(ops->k, operand);
    size_t n = shape.height * shape.width;
    ffn_job j = { .ops = ops,
                  .g = g,
                  .plan = ffn_plan_blocks(g, ops->n_workers, f, n, operand),
                  .y = y,
                  .x = x,
                  .shape = shape,
                  .ffn = f,
                  .operand = operand };
    if (!j.plan.fused || ops->observe)
        return false;
    fv_panels_pack_all(ops, g, ops->shared, &f->fc1);
    fv_panels_pack_all(ops, g, ops->shared + j.plan.packed1, &f->fc2);
    fv_pool_run(ops->pool, (n + j.plan.block - 1) / j.plan.block, ffn_block_task, &j);
    return true;
}

/* Not fused, the last stages: few pixels, weights that fit no cache. t [n, c] and h [n, hidden] are
 * whole maps, behind what the three layers need of the shared scratch. */
typedef struct ffn_maps {
    fv_ops_need layers;
    size_t t_bytes, h_bytes;
} ffn_maps;

static ffn_maps ffn_plan_maps(const fv_ops *ops, const fv_ffn *f, fv_map_shape shape,
                              fv_type operand)
{
    size_t n = shape.height * shape.width, size = f->dw.w8         ? 1
                                                  : f->fc1.in.fine ? sizeof(float)
                                                                   : fv_type_size(operand);
    fv_ops_need layers = fv_dw_need(ops, &f->dw, shape);
    layers = fv_ops_max(layers, fv_mat_need(ops, &f->fc1, n, operand));
    layers = fv_ops_max(layers, fv_mat_need(ops, &f->fc2, n, operand));
    layers.shared_bytes = fv_round_up(layers.shared_bytes, 64);
    return (ffn_maps){ layers, fv_round_up(n * f->dw.channels * size, 64),
                       fv_round_up(n * f->fc1.n * size, 64) };
}

static void ffn_run_maps(const fv_ops *ops, float *y, fv_rows x, fv_map_shape shape,
                         const fv_ffn *f, fv_type operand)
{
    size_t n = shape.height * shape.width, c = f->dw.channels, hidden = f->fc1.n;
    ffn_maps p = ffn_plan_maps(ops, f, shape, operand);
    assert(ops->shared_bytes >= p.layers.shared_bytes + p.t_bytes + p.h_bytes);
    uint8_t *at = ops->shared + p.layers.shared_bytes;
    fv_rows t = fv_rows_for(&f->fc1.in, at, operand),
            h = fv_rows_for(&f->fc2.in, at + p.t_bytes, operand);
    fv_dw_run(ops, t, x, shape, &f->dw, 1, FV_ACT_NONE); /* t = DW7x7(x) + b */
    fv_linear up = { .w = &f->fc1,
                     .y = h.data,
                     .ldy = hidden,
                     .y_type = h.type,
                     .y_to_int8 = h.to_int8,
                     .act = FV_ACT_GELU };
    fv_linear_run(ops, &up, 1, t.data, t.type, c, n); /* h = gelu(t W1^T + b1) */
    fv_linear down = { .w = &f->fc2,
                       .y = y,
                       .ldy = c,
                       .y_type = FV_TYPE_F32,
                       .scale = f->scale,
                       .residual = x.data,
                       .ldr = c };
    fv_linear_run(ops, &down, 1, h.data, h.type, hidden, n); /* y = x + scale * (h W2^T + b2) */
}

void fv_ffn_run(const fv_ops *ops, float *y, fv_rows x, fv_map_shape shape, const fv_ffn *f,
                fv_type operand)
{
    assert(x.type == FV_TYPE_F32 && (x.data != y || fv_ffn_in_place(f)));
    assert(f->fc1.type == FV_TYPE_I8 ? !f->dw.w8 == f->fc1.in.fine : !f->dw.w8);
    assert((f->fc1.type == FV_TYPE_I8) == (f->fc2.type == FV_TYPE_I8));
    assert(f->fc1.in.fine == f->fc2.in.fine);
    const double start = fv_op_start(ops);
    if (f->dw.w8         ? fv_ffn_run_tiles_int8(ops, y, x, shape, f)
        : f->fc1.in.fine ? fv_ffn_run_fine(ops, y, x.data, shape, f)
                         : ffn_run_blocks(ops, y, x.data, shape, f, operand))
        fv_time_ffn(ops, start, f, operand, shape.height * shape.width);
    else
        ffn_run_maps(ops, y, x, shape, f, operand); /* layer by layer, and so is its time */
}

fv_ops_need fv_ffn_need(const fv_ops *ops, const fv_ffn *f, fv_map_shape shape, fv_type operand)
{
    fv_ops_need tiles;
    if (f->dw.w8 && fv_ffn_need_tiles_int8(&tiles, ops->k, ops->n_workers, f, shape))
        return tiles;
    if (f->fc1.in.fine && fv_ffn_need_fine(&tiles, ops->k, ops->n_workers, f, shape))
        return tiles;
    if (f->fc1.type != FV_TYPE_I8 && !ops->observe) {
        ffn_plan p = ffn_plan_blocks(fv_gemm_of(ops->k, operand), ops->n_workers, f,
                                     shape.height * shape.width, operand);
        if (p.fused)
            return (fv_ops_need){ p.t_bytes + p.h_bytes + p.wide_bytes, p.packed1 + p.packed2 };
    }
    ffn_maps p = ffn_plan_maps(ops, f, shape, operand);
    p.layers.shared_bytes += p.t_bytes + p.h_bytes;
    return p.layers;
}

/* ---- LayerNorm --------------------------------------------------------------------------- */

typedef struct layernorm_job {
    const fv_ops *ops;
    fv_rows y;                  /* [n, c] */
    const float *x;             /* [n, c] */
    const float *weight, *bias; /* [c] */
    size_t n, c;
} layernorm_job;

static void layernorm_task(void *user, size_t task, unsigned worker)
{
    layernorm_job *j = user;
    const fv_kernels *k = j->ops->k;
    size_t row = task * NORM_ROWS, n = FV_MIN((size_t)NORM_ROWS, j->n - row), c = j->c;
    uint8_t *y = (uint8_t *)j->y.data + row * c * fv_type_size(j->y.type);
    const float *x = j->x + row * c;
    if (j->y.type != FV_TYPE_U8) {
        k->layernorm(y, j->y.type, c, x, c, j->weight, j->bias, n, c, LN_EPS);
        return;
    }
    float *normed = fv_ops_worker(j->ops, worker); /* [n, c], quantised while it is in the cache */
    k->layernorm(normed, FV_TYPE_F32, c, x, c, j->weight, j->bias, n, c, LN_EPS);
    k->quantize_u8(y, c, normed, c, j->y.to_int8->inv, j->y.to_int8->zero, n, c);
}

void fv_layernorm_run(const fv_ops *ops, fv_rows y, const float *x, const float *weight,
                      const float *bias, size_t n, size_t c)
{
    const double start = fv_op_start(ops);
    layernorm_job j = { ops, y, x, weight, bias, n, c };
    fv_pool_run(ops->pool, (n + NORM_ROWS - 1) / NORM_ROWS, layernorm_task, &j);
    fv_op_end(ops, start, &(fv_op_time){ .kind = "norm", .site = { weight }, .n_rows = n });
}

fv_ops_need fv_layernorm_need(size_t c)
{
    return (fv_ops_need){ NORM_ROWS * c * sizeof(float), 0 };
}

/* ---- attention --------------------------------------------------------------------------- */

typedef struct attention_job {
    const fv_ops *ops;
    fv_rows y;        /* [n, c]: heads side by side, d channels each */
    const float *qkv; /* [n, 3c]: q | k | v, heads side by side in each */
    size_t n, c, d;
    fv_attn_fn *fn;
} attention_job;

/* One head and FV_ATTN_MAX_Q queries; the tasks of a head follow each other, so that its keys and
 * values stay in the cache. */
static void attention_task(void *user, size_t task, unsigned worker)
{
    attention_job *j = user;
    size_t blocks = (j->n + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q;
    size_t head = task / blocks, row = task % blocks * FV_ATTN_MAX_Q, at = head * j->d;
    uint8_t *scratch = fv_ops_worker(j->ops, worker),
            *y = (uint8_t *)j->y.data + (row * j->c + at) * fv_type_size(j->y.type);
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
                       .scale = 1.0f / __builtin_sqrtf((float)j->d),
                       .out = y,
                       .ldo = j->c,
                       .out_type = j->y.type,
                       .scratch = scratch };
    if (j->y.type != FV_TYPE_U8) {
        j->fn(&a);
        return;
    }
    /* in f32 first, quantised while it is in the cache */
    float *tile = (float *)(void *)(scratch + fv_attn_scratch_bytes()); /* [n_q, d] */
    a.out = tile;
    a.ldo = j->d;
    a.out_type = FV_TYPE_F32;
    j->fn(&a);
    j->ops->k->quantize_u8(y, j->c, tile, j->d, j->y.to_int8->inv + at, j->y.to_int8->zero, a.n_q,
                           j->d);
}

/* The kernel's own, and a tile of its output that is to become u8. */
fv_ops_need fv_attention_need(void)
{
    size_t tile = FV_ATTN_MAX_Q * FV_ATTN_MAX_D * sizeof(float);
    return (fv_ops_need){ fv_attn_scratch_bytes() + tile, 64 };
}

void fv_attention_run(const fv_ops *ops, fv_rows y, const float *qkv, size_t n, size_t c, size_t d,
                      fv_type operand)
{
    const double start = fv_op_start(ops);
    const fv_kernels *k = ops->k;
    const bool pairs = operand == FV_TYPE_BF16 && k->fast_bf16 && k->attn_bf16;
    attention_job j = { ops, y, qkv, n, c, d, pairs ? k->attn_bf16 : k->attn };
    fv_pool_run(ops->pool, c / d * ((n + FV_ATTN_MAX_Q - 1) / FV_ATTN_MAX_Q), attention_task, &j);
    fv_op_end(ops, start,
              &(fv_op_time){ .kind = "attention",
                             .type = pairs ? FV_TYPE_BF16 : FV_TYPE_F32,
                             .n_rows = n,
                             .macs = 2 * (double)n * (double)n * (double)c });
}
