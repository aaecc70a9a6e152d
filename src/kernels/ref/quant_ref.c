/* Weights in blocks of 8 or 4 bits times activations in 8 bits, portable: the oracle. */
#include "kernels/blocks.h"
#include "kernels/ref/gemm_ref.h"

enum { MR = 4, NR = 8 };

static float weight_scale(const void *row, fv_type type, size_t b)
{
    return fv_f16_to_f32(type == FV_TYPE_Q8_0 ? ((const fv_q8_block *)row)[b].d
                                              : ((const fv_q4_block *)row)[b].d);
}

static int weight(const void *row, fv_type type, size_t i)
{
    size_t b = i / FV_BLOCK, at = i % FV_BLOCK;
    if (type == FV_TYPE_Q8_0)
        return ((const fv_q8_block *)row)[b].q[at];
    uint8_t pair = ((const fv_q4_block *)row)[b].q[at % 16];
    return (at < 16 ? pair & 15 : pair >> 4) - 8;
}

static void quantize_row__ref(void *dst, const float *x, size_t k)
{
    size_t nb = k / FV_BLOCK;
    int8_t *q = dst;
    int32_t *part = (int32_t *)fv_qrow_part(dst, nb), *part4 = (int32_t *)fv_qrow_part4(dst, nb);
    int8_t *q4 = (int8_t *)fv_qrow_q4(dst, nb);
    int32_t *sum = (int32_t *)fv_qrow_sum(dst, nb);
    float *d = (float *)fv_qrow_d(dst, nb);
    for (size_t b = 0; b < nb; b++, x += FV_BLOCK, q += FV_BLOCK, part += 8, part4 += 4) {
        uint32_t largest = 0;
        float inv;
        for (int i = 0; i < FV_BLOCK; i++) {
            uint32_t bits = fv_bits_of_f32(x[i]) & 0x7fffffff;
            largest = bits > largest ? bits : largest;
        }
        d[b] = fv_qrow_scale(largest, &inv);
        sum[b] = 0;
        memset(part, 0, 8 * sizeof *part);
        for (int i = 0; i < FV_BLOCK; i++) {
            q[i] = inv > 0 ? (int8_t)lrintf(x[i] * inv) : 0;
            part[i / 4] -= 128 * q[i];
            sum[b] -= 128 * q[i];
        }
        for (int i = 0; i < 4; i++)
            part4[i] = (part[i] + part[i + 4]) / 16;
        memcpy(q4 + fv_qrow_at4(b), q, FV_BLOCK / 2);
        memcpy(q4 + fv_qrow_at4(b) + 64, q + FV_BLOCK / 2, FV_BLOCK / 2);
    }
    fv_qrow_fill(dst, nb);
}

/* 16 sums of f32, in order of b, then halves are added to halves. 8 bits: sum 8 (b % 2) + i takes
 * the four products from element 4 i of block b on. 4 bits: sum 4 (b % 4) + i takes those and the
 * four of the second half whose weights share their bytes. */
static void gemv(float *y, const void *w, fv_type type, const void *x, const float *bias, size_t n,
                 size_t k)
{
    size_t nb = k / FV_BLOCK;
    const int8_t *q = fv_qrow_q(x);
    const float *d = fv_qrow_d(x, nb);
    for (size_t j = 0; j < n; j++) {
        const void *row = (const char *)w + j * fv_row_bytes(type, k);
        float s[16] = { 0 };
        for (size_t b = 0; b < nb; b++) {
            float scale = weight_scale(row, type, b) * d[b];
            const size_t lanes = type == FV_TYPE_Q4_0 ? 4 : 8;
            for (size_t i = 0; i < lanes; i++) {
                int32_t products = 0;
                for (size_t four = b * FV_BLOCK + 4 * i; four < (b + 1) * FV_BLOCK;
                     four += 4 * lanes)
                    for (size_t e = four; e < four + 4; e++)
                        products += weight(row, type, e) * q[e];
                float *to = &s[b % (16 / lanes) * lanes + i];
                *to = fmaf((float)products, scale, *to);
            }
        }
        for (int half = 8; half; half /= 2)
            for (int i = 0; i < half; i++)
                s[i] += s[i + half];
        y[j] = bias ? s[0] + bias[j] : s[0];
    }
}

#define GEMV(name, type)                                                                  \
    static void name(float *y, const void *w, const void *x, const float *bias, size_t n, \
                     size_t k)                                                            \
    {                                                                                     \
        gemv(y, w, type, x, bias, n, k);                                                  \
    }
GEMV(gemv_q8__ref, FV_TYPE_Q8_0)
GEMV(gemv_q4__ref, FV_TYPE_Q4_0)

#define GEMV_ROWS(name, type)                                                                    \
    static void name(float *y, size_t ldy, const void *w, const void *x, const float *bias,      \
                     size_t m, size_t n, size_t k)                                               \
    {                                                                                            \
        for (size_t i = 0; i < m; i++)                                                           \
            gemv(y + i * ldy, w, type, (const char *)x + i * fv_quantized_row_bytes(k), bias, n, \
                 k);                                                                             \
    }
GEMV_ROWS(gemv_rows_q8__ref, FV_TYPE_Q8_0)
GEMV_ROWS(gemv_rows_q4__ref, FV_TYPE_Q4_0)

/* Panels of NR columns: [nb][NR] of these. */
typedef struct packed_block {
    float d;
    int8_t q[FV_BLOCK];
} packed_block;

_Static_assert(sizeof(packed_block) == FV_PACKED_Q_BLOCK_BYTES, "kernels.h counts with this");

static void pack(void *dst, fv_type type, const void *w, size_t n, size_t k)
{
    packed_block *to = dst;
    for (size_t p = 0; p < n; p += NR)
        for (size_t b = 0; b < k / FV_BLOCK; b++)
            for (size_t j = p; j < p + NR; j++, to++) {
                *to = (packed_block){ 0 };
                if (j >= n)
                    continue;
                const void *row = (const char *)w + j * fv_row_bytes(type, k);
                to->d = weight_scale(row, type, b);
                for (size_t i = 0; i < FV_BLOCK; i++)
                    to->q[i] = (int8_t)weight(row, type, b * FV_BLOCK + i);
            }
}

static void pack_q8__ref(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, FV_TYPE_Q8_0, w, n, k);
}

static void pack_q4__ref(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, FV_TYPE_Q4_0, w, n, k);
}

/* One sum of f32 over the blocks, in order. */
static void gemm_q__ref(const fv_gemm_args *g)
{
    size_t nb = g->k / FV_BLOCK;
    for (size_t i = 0; i < g->m; i++) {
        const void *row = (const char *)g->a + i * g->lda;
        const int8_t *q = fv_qrow_q(row);
        const float *d = fv_qrow_d(row, nb);
        for (size_t j = 0; j < g->n; j++) {
            const packed_block *w = (const packed_block *)g->b + j / NR * nb * NR + j % NR;
            float sum = 0;
            for (size_t b = 0; b < nb; b++, w += NR) {
                int32_t products = 0;
                for (size_t e = 0; e < FV_BLOCK; e++)
                    products += w->q[e] * q[b * FV_BLOCK + e];
                sum = fmaf((float)products, w->d * d[b], sum);
            }
            fv_ref_epilogue(g, i, j, sum);
        }
    }
}

static void convert_f32_q8__ref(void *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((float *)dst)[i] = weight_scale(src, FV_TYPE_Q8_0, i / FV_BLOCK) *
                            (float)weight(src, FV_TYPE_Q8_0, i);
}

static void convert_f32_q4__ref(void *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((float *)dst)[i] = weight_scale(src, FV_TYPE_Q4_0, i / FV_BLOCK) *
                            (float)weight(src, FV_TYPE_Q4_0, i);
}

/* A row of the KV cache. Written for the compiler's own vectors, as no level has another
 * version. */
static void convert_i8_f32__ref(void *dst, const void *src, size_t n)
{
    const float *x = src;
    int8_t *q = dst;
    float *scale = (float *)(void *)(q + (n + 3) / 4 * 4);
    memset(q + n / 4 * 4, 0, n % 4 ? 4 : 0);
    for (size_t at = 0; at < n; at += FV_BLOCK) {
        const size_t m = n - at < FV_BLOCK ? n - at : FV_BLOCK;
        uint32_t bits[FV_BLOCK] = { 0 }, largest = 0;
        float inv;
        memcpy(bits, x + at, m * sizeof *x);
        for (size_t i = 0; i < FV_BLOCK; i++) {
            bits[i] &= 0x7fffffff;
            largest = bits[i] > largest ? bits[i] : largest;
        }
        scale[at / FV_BLOCK] = fv_qrow_scale(largest, &inv);
        /* 1.5 x 2^23: the sum is rounded to a whole number, to nearest even */
        for (size_t i = 0; i < m; i++)
            q[at + i] = inv > 0 ? (int8_t)(int32_t)((x[at + i] * inv + 12582912.0f) - 12582912.0f)
                                : 0;
    }
}

static void convert_f32_i8__ref(void *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((float *)dst)[i] = fv_kv_load(src, FV_TYPE_I8, 0, n, 0, i);
}

void fv_quant_init_ref(fv_kernels *k);
void fv_quant_init_ref(fv_kernels *k)
{
    k->quantize_row = quantize_row__ref;
    k->gemv_q[FV_TYPE_Q8_0] = gemv_q8__ref;
    k->gemv_q[FV_TYPE_Q4_0] = gemv_q4__ref;
    k->gemv_q_rows[FV_TYPE_Q8_0] = gemv_rows_q8__ref;
    k->gemv_q_rows[FV_TYPE_Q4_0] = gemv_rows_q4__ref;
    k->gemm_q = (fv_gemm_q_kernel){
        .mr = MR,
        .nr = NR,
        .run = { [FV_TYPE_Q8_0] = gemm_q__ref, [FV_TYPE_Q4_0] = gemm_q__ref },
        .pack = { [FV_TYPE_Q8_0] = pack_q8__ref, [FV_TYPE_Q4_0] = pack_q4__ref }
    };
    k->convert[FV_TYPE_I8][FV_TYPE_F32] = convert_i8_f32__ref;
    k->convert[FV_TYPE_F32][FV_TYPE_I8] = convert_f32_i8__ref;
    k->convert[FV_TYPE_F32][FV_TYPE_Q8_0] = convert_f32_q8__ref;
    k->convert[FV_TYPE_F32][FV_TYPE_Q4_0] = convert_f32_q4__ref;
}
