/* kernels: the arithmetic, on pointers and sizes. No tensors, files, threads or model names.
 *
 * One table of function pointers; fv_kernels_init fills it for a processor. Every slot has a
 * portable version in ref/, which is the oracle: a faster version agrees with it within the
 * bound stated on the typedef. All kernels are single-threaded and allocate nothing; nn/ops.c
 * splits work over threads.
 *
 * Common rules: activations are row-major, a row holds the channels of one pixel or one token
 * ("channels last"). Sizes and strides count elements. Every version of a kernel computes each
 * output element by the same sequence of operations whatever m, n and the position of the
 * element in its tile are, so the way work is split never changes a bit. Inputs are read
 * exactly, never past their end; pointers need no alignment unless stated. */
#ifndef FV_KERNELS_H
#define FV_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/types.h"

/* ---- matrix times matrix ----------------------------------------------------------------- */

typedef enum fv_act { FV_ACT_NONE = 0, FV_ACT_GELU } fv_act;

/* C = epilogue(A B^T), B being weights [n, k] that fv_pack_fn has put into panels.
 *
 *     y = sum_k a[i,k] b[j,k]
 *     y = y + bias[j]                    when bias
 *     y = gelu(y)                        when act == FV_ACT_GELU (exact: 0.5 y (1 + erf(y/sqrt 2)))
 *     y = y * silu(gate[i,j])            when gate
 *     y = y * scale[j]                   when scale
 *     y = y + residual[i,j]              when residual (may be c itself)
 *     c[i,j] = (c_type) y                f16: saturating
 *
 * k > 0. The kernel of 16-bit operands needs k to be a multiple of kg (2).
 * Accumulation in f32, in order of k. Bound of the sum: 2 k eps sum |a b|; GELU and SiLU:
 * absolute error <= 1e-6 * max(1, |y|).
 *
 * Instructions that multiply bf16 have rules of their own. Products of two bf16 are exact in f32,
 * but numbers below 2^-126, operands or sums, are taken for zero: at most 2^-126 (1 + |a| + |b|) a
 * product, which the bound leaves room for unless all of a sum is as small. AMX adds the even and
 * the odd elements of 32 of k apart, each from zero and in order, then both to one another and that
 * to the sum: fewer roundings in a chain than the bound allows for. */
typedef struct fv_gemm_args {
    size_t m, n, k;
    const void *a; /* [m, lda], type of the kernel */
    size_t lda;
    const void *b; /* packed panels of n columns */
    void *c;       /* [m, ldc] */
    size_t ldc;
    fv_type c_type; /* F32, BF16 or F16 */
    fv_act act;
    const float *bias;  /* [n] or NULL */
    const float *scale; /* [n] or NULL */
    const float *gate;  /* [m, ldg] or NULL */
    size_t ldg;
    const float *residual; /* [m, ldr] or NULL */
    size_t ldr;
} fv_gemm_args;

typedef void fv_gemm_fn(const fv_gemm_args *args);

/* Packs n rows of weights w [n, ld] with k elements each into panels of nr columns: panel p is
 * [ceil(k / kg)][nr][kg], its columns past n and its elements past k are zero. dst is 64-byte
 * aligned and has fv_packed_elems() elements. Exact when dst's type holds the source's values;
 * otherwise rounded to nearest even. */
typedef void fv_pack_fn(void *dst, const void *w, size_t ld, size_t n, size_t k);

typedef struct fv_gemm_kernel {
    fv_type type;        /* of A and of the panels: F32 or BF16 */
    unsigned mr, nr, kg; /* rows and columns of a register tile; k per group */
    fv_gemm_fn *run;
    fv_pack_fn *pack[FV_TYPE_COUNT]; /* by the type of the weights: F32, F16, BF16 */
} fv_gemm_kernel;

static inline size_t fv_packed_elems(const fv_gemm_kernel *g, size_t n, size_t k)
{
    return (n + g->nr - 1) / g->nr * g->nr * ((k + g->kg - 1) / g->kg * g->kg);
}

/* ---- matrix times vector ----------------------------------------------------------------- */

/* y[j] = sum_k w[j,k] x[k] + bias[j], j < n; weights of the slot's type widened exactly, all
 * else f32. Several partial sums a row are allowed; their number is fixed per version.
 * Bound: 2 k eps sum |w x|. bias may be NULL. */
typedef void fv_gemv_fn(float *y, const void *w, size_t ld, const float *x, const float *bias,
                        size_t n, size_t k);

enum { FV_GEMV_ROWS = 8 };

/* The same for m rows x [m, ldx], 1 <= m <= FV_GEMV_ROWS, into y [m, ldy], with every weight read
 * once. Exact: each row gets the bits that the level's fv_gemv_fn gives it. */
typedef void fv_gemv_rows_fn(float *y, size_t ldy, const void *w, size_t ld, const float *x,
                             size_t ldx, const float *bias, size_t m, size_t n, size_t k);

/* ---- weights in blocks of 8 or 4 bits (GGUF Q8_0, Q4_0) times activations in 8 bits ---- */

/* k is a multiple of FV_BLOCK here. Rows of weights are fv_row_bytes(type, k) apart, aligned to 2
 * bytes. Sums of products are in i32 and exact, sums of blocks in f32 by fused multiply-adds in an
 * order that the portable version states: every level gives the same bits. */

/* A row of activations in blocks: d = max |x| / 127 in f32, q = round(x (127 / max |x|)) to nearest
 * even. A block with an infinity or NaN has d = NaN, one below 2^-100 is zero. Rows are opaque
 * outside the kernels but for their d (blocks.h), one layout for all levels; dst is 64-byte
 * aligned. Exact. */
typedef void fv_quantize_row_fn(void *dst, const float *x, size_t k);

/* From one row to the next: an odd number of lines of 64 bytes. */
static inline size_t fv_quantized_row_bytes(size_t k)
{
    return (((k / FV_BLOCK + 3) / 4 * 4 * 120 + 63) / 64 | 1) * 64;
}

/* y[j] = sum over blocks of (d_w d_x) sum_i q_w q_x, + bias[j] when bias, j < n. x: a quantised
 * row. */
typedef void fv_gemv_q_fn(float *y, const void *w, const void *x, const float *bias, size_t n,
                          size_t k);

/* The same for m quantised rows fv_quantized_row_bytes(k) apart, 1 <= m <= FV_GEMV_ROWS, into y [m,
 * ldy], with every weight read once. The same bits. */
typedef void fv_gemv_q_rows_fn(float *y, size_t ldy, const void *w, const void *x,
                               const float *bias, size_t m, size_t n, size_t k);

/* fv_gemm_fn (k > 0) with A: m quantised rows (lda: bytes from one to the next, a multiple of 64),
 * panels packed from Q8_0 or Q4_0. The epilogue is fv_gemm_args'. */
typedef struct fv_gemm_q_kernel {
    unsigned mr, nr;
    bool halves; /* panels have a byte for each half of a weight of 8 bits */
    /* by the type of the weights: Q8_0, Q4_0; may be one function */
    fv_gemm_fn *run[FV_TYPE_COUNT];
    fv_pack_fn *pack[FV_TYPE_COUNT]; /* ld is unused */
} fv_gemm_q_kernel;

/* a column's share of a panel: values in bytes, an f32 scale; halves of 8 bits: 32 bytes more */
enum { FV_PACKED_Q_BLOCK_BYTES = 36 };

static inline size_t fv_packed_q_bytes(const fv_gemm_q_kernel *g, fv_type type, size_t n, size_t k)
{
    const size_t block = FV_PACKED_Q_BLOCK_BYTES +
                         (g->halves && type == FV_TYPE_Q8_0 ? FV_BLOCK : 0);
    return (n + g->nr - 1) / g->nr * g->nr * (k / FV_BLOCK) * block;
}

/* ---- 8-bit vision: u8 activations, i8 weights -------------------------------------------- */

/* A float becomes u8: clamp(round(x) + zero, 0, 255), to nearest even; NaN becomes 0. zero lies in
 * 0 .. 255. */

/* m rows of c: u8 of x inv[c]. Exact. */
typedef void fv_quantize_u8_fn(uint8_t *dst, size_t dst_ld, const float *src, size_t src_ld,
                               const float *inv, int zero, size_t m, size_t c);

/* The same with eight more binary digits, q = clamp(round(256 x inv) + 256 zero, 0, 65535): q / 256
 * into high, q % 256 into low, both [m, dst_ld]. Exact. */
typedef void fv_quantize_u16_fn(uint8_t *high, uint8_t *low, size_t dst_ld, const float *src,
                                size_t src_ld, const float *inv, int zero, size_t m, size_t c);

/* C = epilogue(A B^T): A u8 [m, lda], B i8 panels, any k with 0 < k <= 65536.
 *
 *     s = bias[j] + sum_k a[i,k] b[j,k]          in i32, exact (bias holds the zero point's part)
 *     s = s + floor(low[i,j] / 256)              when low
 *     y = s                                      f32 from here on, rounded at each step
 *     y = fma(low[i,j] mod 256, 2^-8, y)         when low
 *     y = y * mul[j]
 *     y = y * row[i]                             when row
 *     y = y + add[j]                             when add
 *     y = gelu(y)                                when act == FV_ACT_GELU
 *     y = y * scale[j]                           when scale
 *     y = y + residual[i,j]                      when residual (may be c itself)
 *     c[i,j] = y                                 c_type F32, F16 (saturating) or BF16
 *     c[i,j] = u8 of y inv[j]                    c_type U8; or u8 of s (mul[j] inv[j]) at once
 *     c[i,j] = s                                 c_type I32; the epilogue's arguments are NULL, 0
 *
 * Rows of 16 bits are two calls: their low bytes into sums of I32, without a bias, then their high
 * bytes with these as `low`. Where a level has run16 it is one call, with the same bits: a is the
 * high bytes, a_low the low ones, and low is NULL.
 *
 * The caller keeps |s| below 2^31. Exact without GELU: every version gives the same bits. GELU:
 * absolute error <= 1e-6 * max(1, |y|); for c_type U8 <= 3e-4, far less than a step. */
typedef struct fv_gemm_u8_args {
    size_t m, n, k;
    const uint8_t *a;
    const uint8_t *a_low; /* [m, lda]; run16 */
    size_t lda;
    const void *b;
    void *c;
    size_t ldc;
    fv_type c_type;
    fv_act act;
    const int32_t *bias; /* [n] or NULL: 0 */
    const int32_t *low;  /* [m, ldl] or NULL; c_type F32, F16, BF16 */
    size_t ldl;
    const float *mul;      /* [n] */
    const float *row;      /* [m] or NULL; c_type F32, F16, BF16 */
    const float *add;      /* [n] or NULL; the same */
    const float *scale;    /* [n] or NULL */
    const float *residual; /* [m, ldr] or NULL */
    size_t ldr;
    const float *inv; /* [n], c_type U8 */
    int zero;
} fv_gemm_u8_args;

typedef void fv_gemm_u8_fn(const fv_gemm_u8_args *args);

typedef struct fv_gemm_u8_kernel {
    unsigned mr, nr;
    fv_gemm_u8_fn *run;
    fv_gemm_u8_fn *run16; /* c_type F32, F16 or BF16; NULL: two calls of run are as fast */
    /* from i8 [n, ld]; into panels [ceil(k / 4)][nr][4] of nr columns, zeros past n and k; dst is
     * 64-byte aligned. eights: [2][nr][8] for every 16 of k, what is left of k as before */
    fv_pack_fn *pack;
    fv_pack_fn *pack_q8; /* the same from rows of Q8_0, without their scales; ld is unused */
    bool eights;
} fv_gemm_u8_kernel;

/* Where element q of a row of Q8_0 lies: bytes from the row's first. */
static inline size_t fv_q8_at(size_t q) { return 2 * (q / FV_BLOCK + 1) + q; }

static inline size_t fv_packed_u8_bytes(const fv_gemm_u8_kernel *g, size_t n, size_t k)
{
    return (n + g->nr - 1) / g->nr * g->nr * ((k + 3) / 4 * 4);
}

/* fv_dwconv_fn on u8, one or two output rows a call (two that lie next to each other share work):
 *
 *    s = sum_{dy, dx} (src - src_zero) weight           i32, exact; outside the map src is src_zero
 *    dst = u8 of fma(s, mul[o] inv[o], bias[o] inv[o])      without act
 *    dst = u8 of gelu(fma(s, mul[o], bias[o])) inv[o]       with it
 *
 * Exact without GELU; with it as fv_gemm_u8_args. */
typedef struct fv_dwconv_u8_args {
    /* k + (rows - 1) stride input rows [width, src_ld]; NULL: the row lies outside the map */
    const uint8_t *src[9];
    unsigned rows; /* 1 or 2 */
    size_t width, src_ld, channels;
    unsigned k, stride, mult;
    int src_zero;
    const void *weight;      /* packed */
    const float *mul, *bias; /* [channels * mult]; bias may be NULL */
    fv_act act;
    size_t x0, x1;
    uint8_t *dst; /* where column x0 of the first row goes; [x1 - x0, dst_ld] */
    size_t dst_ld;
    size_t dst_row;   /* elements from the first output row to the second */
    const float *inv; /* [channels * mult] */
    int zero;
    void *scratch; /* fv_dwconv_u8_scratch_bytes(), 64-byte aligned */
} fv_dwconv_u8_args;

typedef void fv_dwconv_u8_fn(const fv_dwconv_u8_args *args);

typedef struct fv_dwconv_u8_kernel {
    fv_dwconv_u8_fn *run;
    /* from i8 [k * k, channels * mult] into the version's own order; dst is 64-byte aligned */
    void (*pack)(void *dst, const int8_t *weight, size_t channels, unsigned k, unsigned mult);
    size_t (*packed_bytes)(size_t channels, unsigned k, unsigned mult);
} fv_dwconv_u8_kernel;

/* Enough for every version: a piece of the input rows, interleaved. */
static inline size_t fv_dwconv_u8_scratch_bytes(void) { return (size_t)1 << 16; }

/* ---- depthwise convolution --------------------------------------------------------------- */

/* Columns [x0, x1) of one output row of a k x k depthwise convolution, zero padding k / 2:
 *
 *     y[x, o] = bias[o] + sum_{dy, dx} src[dy][x stride + dx - k/2, o / mult] weight[dy k + dx, o]
 *
 * with o < channels * mult; then GELU when act says so; stored as dst_type.
 * Bound: 2 k^2 eps sum |w x|. */
typedef struct fv_dwconv_args {
    const float *src[7];      /* k input rows [width, src_ld]; NULL: the row lies outside the map */
    size_t width, src_ld;     /* input pixels in a row; elements from one to the next */
    size_t channels;          /* of the input */
    unsigned k, stride, mult; /* k 3 or 7; stride 1 or 2; mult 1 or 2 outputs per input channel */
    const float *weight;      /* [k * k, channels * mult] */
    const float *bias;        /* [channels * mult] or NULL */
    fv_act act;
    size_t x0, x1; /* output columns */
    void *dst;     /* where column x0 goes; [x1 - x0, dst_ld] */
    size_t dst_ld;
    fv_type dst_type; /* F32, BF16 or F16 */
} fv_dwconv_args;

typedef void fv_dwconv_fn(const fv_dwconv_args *args);

/* ---- norms ------------------------------------------------------------------------------- */

/* For m rows of c: y = (x - mean) / sqrt(var + eps) * weight + bias, biased variance.
 * Statistics in f32 with at least 8 partial sums or in double. Bound: 1e-5 * |weight| + eps. */
typedef void fv_layernorm_fn(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                             size_t src_ld, const float *weight, const float *bias, size_t m,
                             size_t c, float eps);

/* For m rows of c: y = weight * (x * rsqrt(mean(x^2) + eps)). */
typedef void fv_rmsnorm_fn(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                           size_t src_ld, const float *weight, size_t m, size_t c, float eps);

/* ---- attention --------------------------------------------------------------------------- */

/* softmax(scale q k^T) v for one head and n_q query rows, online over blocks of keys.
 * Row i sees keys j < n_kv when !causal, j < n_visible + i when causal (n_visible >= 1 and
 * n_visible + n_q - 1 <= n_kv). The result for a row does not depend on the other rows.
 * Bound: relative L2 of a row 1e-6 (f32 keys and values). */
typedef struct fv_attn_args {
    const float *q; /* [n_q, ldq] */
    size_t n_q, ldq;
    const void *k, *v;     /* [n_kv, ldk], [n_kv, ldv] of kv_type */
    size_t n_kv, ldk, ldv; /* I8: bytes from one row to the next */
    fv_type kv_type;       /* F32, F16, or I8: rows of fv_kv_row_bytes */
    size_t d;              /* head width, a multiple of 2, at most 256 */
    float scale;
    bool causal;
    size_t n_visible;
    void *out; /* [n_q, ldo] of out_type */
    size_t ldo;
    fv_type out_type; /* F32, BF16 or F16 */
    void *scratch;    /* fv_attn_scratch_bytes, 64-byte aligned */
} fv_attn_args;

typedef void fv_attn_fn(const fv_attn_args *args);

enum { FV_ATTN_MAX_D = 256, FV_ATTN_MAX_Q = 64 }; /* n_q <= FV_ATTN_MAX_Q a call */

/* A row of d keys or values. In I8, aligned to 4 bytes: i8 q [d], padded to fours; then f32 scales,
 * one for every FV_BLOCK values or what is left of them: x = scale q. */
static inline size_t fv_kv_row_bytes(fv_type type, size_t d)
{
    return type == FV_TYPE_I8 ? (d + 3) / 4 * 4 + (d + FV_BLOCK - 1) / FV_BLOCK * 4
                              : d * fv_type_size(type);
}

/* Enough for every version: a block of scores, packed keys, accumulators. */
static inline size_t fv_attn_scratch_bytes(void) { return (size_t)1 << 19; }

/* Rotates pairs (m, m + d/2) of each of n_heads heads [n_heads, d]:
 * y[m] = x[m] cos[m] - x[m+d/2] sin[m]; y[m+d/2] = x[m+d/2] cos[m] + x[m] sin[m]. In place. */
typedef void fv_rope_fn(float *x, const float *cos, const float *sin, size_t n_heads, size_t d);

/* ---- elementwise ------------------------------------------------------------------------- */

/* n values converted; to f16 saturating at +-65504, both to nearest even, NaN stays NaN. To I8: a
 * row of the KV cache, rounded as fv_quantize_row_fn does (n <= FV_ATTN_MAX_D). */
typedef void fv_convert_fn(void *dst, const void *src, size_t n);

/* y = silu(gate) up */
typedef void fv_swiglu_fn(float *y, const float *gate, const float *up, size_t n);
typedef void fv_add_fn(float *y, const float *x, size_t n); /* y += x */
/* sum[c] += over m rows of x [m, ld], in order of rows */
typedef void fv_colsum_fn(float *sum, const float *x, size_t ld, size_t m, size_t c);
/* y = gelu(x * scale[c]) for m rows; y may be x */
typedef void fv_scale_gelu_fn(float *y, size_t ldy, const float *x, size_t ldx, const float *scale,
                              size_t m, size_t c);
/* largest value, lowest index of it; NaN counts as smaller than everything; n > 0 */
typedef size_t fv_argmax_fn(const float *x, size_t n);

/* ---- 8-bit resampling -------------------------------------------------------------------- */

/* The weights of one direction: output o takes n_taps inputs from first[o] on,
 *
 *     y = clip8((2^21 + sum_i x[first[o] + i] w[o, i]) >> 22)       in wrapping int32
 *
 * with first[o] + n_taps <= n_in, first never falling, |w| < 2^23. Weights come in three forms
 * with the same value, in groups of 4 taps; n_groups = ceil(n_taps / 4), taps past n_taps are 0. */
typedef struct fv_resize_taps {
    size_t n_in, n_out, n_taps, n_groups;
    const int32_t *first; /* [n_out] */
    const int32_t *w;     /* [n_out, n_groups, 4] */
    const int16_t *w16;   /* [n_out, n_groups, 2, 4]: w = w16[1] * 2^15 + w16[0], w16[0] >= 0 */
    /* [n_out, n_groups, 4, 4]: w = w8[2] * 2^16 + w8[1] * 2^8 + w8[0]; w8[3] = 0 */
    const int8_t *w8;
} fv_resize_taps;

/* Along rows of RGB: src [m, n_in, 3] to dst [m, n_out, 3], rows src_ld and dst_ld bytes apart.
 * Exact. Reads only inside the rows. */
typedef void fv_resize_h_fn(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld,
                            size_t m, const fv_resize_taps *taps);

/* Across rows: dst [n] is output o of taps; rows[i] is the input row first[o] + i, i < n_taps.
 * Exact. */
typedef void fv_resize_v_fn(uint8_t *dst, const uint8_t *const *rows, size_t n,
                            const fv_resize_taps *taps, size_t o);

/* ---- the table --------------------------------------------------------------------------- */

typedef struct fv_kernels {
    fv_gemm_kernel gemm_f32, gemm_bf16;
    /* gemm_bf16 is faster than gemm_f32: as the level lets expect, fv_kernels_open knows better */
    bool fast_bf16;
    fv_gemv_fn *gemv[FV_TYPE_COUNT]; /* by the type of the weights: F32, F16, BF16 */
    fv_gemv_rows_fn *gemv_rows[FV_TYPE_COUNT];
    fv_quantize_row_fn *quantize_row;
    fv_gemv_q_fn *gemv_q[FV_TYPE_COUNT]; /* by the type of the weights: Q8_0, Q4_0 */
    /* gemv_q[FV_TYPE_Q8_0] that asks memory for its weights a page ahead; NULL: the level has none.
     * fv_kernels_open puts it there where it is faster */
    fv_gemv_q_fn *gemv_q8_ahead;
    fv_gemv_q_rows_fn *gemv_q_rows[FV_TYPE_COUNT];
    fv_gemm_q_kernel gemm_q;
    fv_quantize_u8_fn *quantize_u8;
    fv_quantize_u16_fn *quantize_u16;
    fv_gemm_u8_kernel gemm_u8;
    fv_dwconv_u8_kernel dwconv_u8;
    fv_dwconv_fn *dwconv;
    fv_layernorm_fn *layernorm;
    fv_rmsnorm_fn *rmsnorm;
    fv_attn_fn *attn;
    /* all operands of products rounded to bf16; NULL: no faster than attn at this level */
    fv_attn_fn *attn_bf16;
    fv_rope_fn *rope;
    /* [to][from]; F32, F16, BF16; same types copy; F32 from Q8_0, Q4_0, I8; I8 from F32 */
    fv_convert_fn *convert[FV_TYPE_COUNT][FV_TYPE_COUNT];
    fv_swiglu_fn *swiglu;
    fv_add_fn *add;
    fv_colsum_fn *colsum;
    fv_scale_gelu_fn *scale_gelu;
    fv_argmax_fn *argmax;
    fv_resize_h_fn *resize_h;
    fv_resize_v_fn *resize_v;
} fv_kernels;

/* Fills every slot for a processor with these FV_CPU_* flags (base/base.h). Pure. */
void fv_kernels_init(fv_kernels *k, unsigned cpu);

/* Asks every kind of product questions whose answers are known (selfcheck.c) and replaces one that
 * is wrong by the next lower level's that is right. False when there were some: fault then lists
 * them, "gemm_bf16 of level amx by level avx512bf16's, ...". Takes a tenth of a
 * millisecond. */
bool fv_kernels_check(fv_kernels *k, unsigned cpu, char *fault, size_t fault_bytes);

/* Is bf16 faster than f32? Half a millisecond of both in turns. */
bool fv_bf16_measure(const fv_kernels *k);

typedef struct fv_kernels_notes {
    const char *bf16;    /* why fast_bf16 is what it is; static */
    const char *ignored; /* FV_BF16 where it is neither of its words, else NULL */
    char fault[160];     /* fv_kernels_check's, or "" */
} fv_kernels_notes;

/* The table for this processor: fv_kernels_init, fv_kernels_check, and what is faster. bf16: by the
 * environment's FV_BF16 ("fast" or "slow"), by the processor's model, or measured once;
 * gemv_q8_ahead: by its maker. notes may be NULL. */
void fv_kernels_open(fv_kernels *k, unsigned cpu, fv_kernels_notes *notes);

#endif
