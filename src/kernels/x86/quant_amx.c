/* Products of weights in blocks of 8 or 4 bits for AMX: tdpbsud multiplies a block of 32 of k for
 * 12 x 32 sums of i32. Panels are those of AVX-512 VNNI, below it: weights as q + 128.
 *
 *              panel of B, 32 columns, one block of k
 *              8 words of k -> [ tmm6 | tmm7 ]
 *       A 12 [ tmm4 ]          [ tmm0 | tmm1 ]     the next block's go to tmm2, tmm3
 *
 * A block's sums go through L1 to the vector units: less what q + 128 is too much, converted, times
 * both scales, added to 24 registers of f32 that stay for all of k, in order of k like everywhere.
 * That is 4 instructions for 16 sums of 32 products, twice the VNNI kernel's rate at best. The
 * tiles, with their loads and stores, take about as long. */
#include <string.h>

#include "base/base.h"
#include "kernels/blocks.h"
#include "kernels/x86/gemm_epilogue_avx512.h"
#include "kernels/x86/repeat_rows.h"
#include "kernels/x86/tiles_amx.h"

enum {
    MR = 12,
    NR = 32,
    BLOCK_BYTES = NR * FV_PACKED_Q_BLOCK_BYTES, /* of a panel: u8 [8][32][4], f32 [32] */
    A_BLOCK_BYTES = 384 << 10,                  /* of A per block of rows, to stay in L2 */
    AHEAD = 2                                   /* blocks whose sums the tiles hold ready */
};

/* A tile: nb blocks of k into out [rows, NR]. a, d, much: the first row's values, scales, and what
 * a block's sums are too much. */
typedef void tile_fn(const int8_t *a, const float *d, const int32_t *much, size_t a_ld,
                     const uint8_t *b, size_t nb, float *out);

/* The sums of block q of k, by way of tiles s and t. */
#define PRODUCTS(s, t, q)                        \
    do {                                         \
        const int8_t *aq = a + (q)*FV_BLOCK;     \
        const uint8_t *bq = b + (q)*BLOCK_BYTES; \
        int32_t *to = sums[(q) % AHEAD];         \
        TILE_ZERO(s);                            \
        TILE_ZERO(t);                            \
        TILE_LOAD(4, aq, a_ld);                  \
        TILE_LOAD(6, bq, 128);                   \
        TILE_FOURS_I8_U8(s, 4, 6);               \
        TILE_LOAD(7, bq + 64, 128);              \
        TILE_FOURS_I8_U8(t, 4, 7);               \
        TILE_STORE(s, to, NR * 4);               \
        TILE_STORE(t, to + 16, NR * 4);          \
    } while (0)

#define CLEAR(i) __m512 s##i = _mm512_setzero_ps(), t##i = s##i;
#define ADD(i)                                                                                 \
    {                                                                                          \
        const __m512i more = _mm512_set1_epi32(*(const int32_t *)row_at(much, i, a_ld));       \
        const __m512 x = _mm512_set1_ps(*(const float *)row_at(d, i, a_ld));                   \
        s##i = _mm512_fmadd_ps(                                                                \
            _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_load_si512(from + i * NR), more)),      \
            _mm512_mul_ps(w0, x), s##i);                                                       \
        t##i = _mm512_fmadd_ps(                                                                \
            _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_load_si512(from + i * NR + 16), more)), \
            _mm512_mul_ps(w1, x), t##i);                                                       \
    }
#define STORE(i) _mm512_store_ps(out + i * NR, s##i), _mm512_store_ps(out + i * NR + 16, t##i);

static inline const void *row_at(const void *p, size_t i, size_t ld)
{
    return (const char *)p + i * ld;
}

#define DEFINE_TILE(mr)                                                                      \
    static void tile_##mr(const int8_t *a, const float *d, const int32_t *much, size_t a_ld, \
                          const uint8_t *b, size_t nb, float *out)                           \
    {                                                                                        \
        int32_t sums[AHEAD][MR * NR] __attribute__((aligned(64)));                           \
        ROWS_##mr(CLEAR) for (size_t q = 0; q < AHEAD - 1 && q < nb; q++) PRODUCTS(0, 1, q); \
        for (size_t q = 0; q < nb; q++, d++, much++) {                                       \
            const float *w = (const float *)(const void *)(b + q * BLOCK_BYTES + 1024);      \
            const __m512 w0 = _mm512_load_ps(w), w1 = _mm512_load_ps(w + 16);                \
            const int32_t *from = sums[q % AHEAD];                                           \
            if (q + AHEAD - 1 < nb)                                                          \
                PRODUCTS(2, 3, q + AHEAD - 1);                                               \
            ROWS_##mr(ADD)                                                                   \
        }                                                                                    \
        ROWS_##mr(STORE)                                                                     \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)
DEFINE_TILE(6)
DEFINE_TILE(7)
DEFINE_TILE(8)
DEFINE_TILE(9)
DEFINE_TILE(10)
DEFINE_TILE(11)
DEFINE_TILE(12)

static tile_fn *const tile[MR + 1] = { 0,      tile_1, tile_2, tile_3,  tile_4,  tile_5, tile_6,
                                       tile_7, tile_8, tile_9, tile_10, tile_11, tile_12 };

/* Tiles for `rows` rows of A and one block of k. */
static void configure_rows(size_t rows)
{
    const uint8_t r = (uint8_t)rows;
    const tile_config config = {
        .palette = 1,
        .row_bytes = { 64, 64, 64, 64, FV_BLOCK, 0, 64, 64 },
        .rows = { r, r, r, r, r, 0, FV_BLOCK / 4, FV_BLOCK / 4 },
    };
    tiles_configure(&config);
}

static void fetch_results(const void *p, size_t elem_bytes, size_t ld, size_t i, size_t rows,
                          size_t j)
{
    for (size_t r = 0; r < rows; r++) {
        const char *at = (const char *)p + ((i + r) * ld + j) * elem_bytes;
        __builtin_prefetch(at, 1);
        __builtin_prefetch(at + NR / 2 * elem_bytes, 1);
    }
}

static void gemm_q_12x32__amx(const fv_gemm_args *g)
{
    const size_t nb = g->k / FV_BLOCK;
    const size_t fit = A_BLOCK_BYTES / g->k / MR * MR, block = FV_MAX(fit, (size_t)(4 * MR));
    float sum[MR * NR] __attribute__((aligned(64)));
    size_t configured = 0;
    for (size_t i0 = 0; i0 < g->m; i0 += block) {
        const size_t i1 = FV_MIN(g->m, i0 + block);
        for (size_t j = 0; j < g->n; j += NR) {
            const uint8_t *panel = (const uint8_t *)g->b + j / NR * nb * BLOCK_BYTES;
            for (size_t i = i0; i < i1; i += MR) {
                const size_t rows = FV_MIN((size_t)MR, i1 - i);
                const char *a = (const char *)g->a + i * g->lda;
                if (rows != configured)
                    configure_rows(configured = rows);
                fetch_results(g->c, fv_type_size(g->c_type), g->ldc, i, rows, j);
                if (g->residual && g->residual != g->c)
                    fetch_results(g->residual, 4, g->ldr, i, rows, j);
                if (g->gate)
                    fetch_results(g->gate, 4, g->ldg, i, rows, j);
                tile[rows](fv_qrow_q(a), fv_qrow_d(a, nb), fv_qrow_sum(a, nb), g->lda, panel, nb,
                           sum);
                epilogue(g, i, rows, j, FV_MIN((size_t)NR, g->n - j), sum, NR);
            }
        }
    }
    tiles_release();
}

void fv_quant_init_amx(fv_kernels *k);
void fv_quant_init_amx(fv_kernels *k)
{
    k->gemm_q.run[FV_TYPE_Q8_0] = k->gemm_q.run[FV_TYPE_Q4_0] = gemm_q_12x32__amx;
    k->gemm_q.mr = MR;
}
