/* The model of the tile instructions, after the operation sections of Intel's Software Developer's
 * Manual, and the table of kernels that runs on it. check_amx.c compares it with a real processor
 * where there is one. */
#define FV_AMX_MODEL
#include "kernels/x86/tiles_amx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/half.h"
#include "check.h"
#include "kernels/blocks.h"

#if defined(__x86_64__)

static tile_config config; /* palette 0: the tiles are released */
static uint8_t tile[8][TILE_ROWS][TILE_ROW_BYTES];

static void expect(int good, const char *what)
{
    if (good)
        return;
    printf("amx_model: %s\n", what);
    fflush(stdout);
    abort();
}

static void expect_tile(int t)
{
    expect(config.palette == 1, "tiles are not configured");
    expect(t >= 0 && t < 8 && config.rows[t] && config.row_bytes[t], "no such tile");
}

void amx_model_configure(const tile_config *to)
{
    expect(to->palette == 1 && !to->start_row, "no such palette");
    for (int t = 0; t < 8; t++)
        expect(to->rows[t] <= TILE_ROWS && to->row_bytes[t] <= TILE_ROW_BYTES &&
                   !to->rows[t] == !to->row_bytes[t],
               "a tile is larger than the palette's");
    config = *to;
    memset(tile, 0, sizeof tile);
}

void amx_model_release(void)
{
    memset(&config, 0, sizeof config);
    memset(tile, 0, sizeof tile);
}

void amx_model_zero(int t)
{
    expect_tile(t);
    memset(tile[t], 0, sizeof tile[t]);
}

void amx_model_load(int t, const void *p, size_t stride)
{
    amx_model_zero(t);
    for (size_t r = 0; r < config.rows[t]; r++)
        memcpy(tile[t][r], (const char *)p + r * stride, config.row_bytes[t]);
}

void amx_model_store(int t, void *p, size_t stride)
{
    expect_tile(t);
    for (size_t r = 0; r < config.rows[t]; r++)
        memcpy((char *)p + r * stride, tile[t][r], config.row_bytes[t]);
}

/* The rows of the sums are a's, their columns b's; a word of a's row for every row of b. */
static void expect_product(int sum, int a, int b)
{
    expect_tile(sum);
    expect_tile(a);
    expect_tile(b);
    expect(sum != a && sum != b && a != b, "operands of a product share a tile");
    expect(config.rows[sum] == config.rows[a] && config.row_bytes[sum] == config.row_bytes[b] &&
               config.row_bytes[a] == 4 * config.rows[b] && config.row_bytes[b] % 4 == 0,
           "operands of a product do not fit each other");
}

/* Subnormal numbers count as zero, as operands and as results. */
static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

static float bf16(const uint8_t *p)
{
    const uint32_t bits = (uint32_t)p[1] << 24 | (uint32_t)p[0] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return flushed(x);
}

/* Even and odd elements of k are summed apart, from zero, by fused multiply-adds; then their sum is
 * added to the tile. */
void amx_model_pairs_bf16(int sum, int a, int b)
{
    expect_product(sum, a, b);
    for (size_t i = 0; i < config.rows[sum]; i++) {
        for (size_t j = 0; j < config.row_bytes[sum] / 4; j++) {
            float half[2] = { 0, 0 }, s;
            for (size_t q = 0; q < config.rows[b]; q++)
                for (size_t h = 0; h < 2; h++)
                    half[h] = flushed(fmaf(bf16(&tile[a][i][4 * q + 2 * h]),
                                           bf16(&tile[b][q][4 * j + 2 * h]), half[h]));
            memcpy(&s, &tile[sum][i][4 * j], 4);
            s = flushed(flushed(s) + flushed(half[0] + half[1]));
            memcpy(&tile[sum][i][4 * j], &s, 4);
        }
    }
}

void amx_model_fours(int sum, int a, int b, int a_signed)
{
    expect_product(sum, a, b);
    for (size_t i = 0; i < config.rows[sum]; i++) {
        for (size_t j = 0; j < config.row_bytes[sum] / 4; j++) {
            uint32_t s;
            memcpy(&s, &tile[sum][i][4 * j], 4);
            for (size_t q = 0; q < config.rows[b]; q++)
                for (size_t h = 0; h < 4; h++) {
                    const uint8_t x = tile[a][i][4 * q + h], y = tile[b][q][4 * j + h];
                    s += (uint32_t)(a_signed ? (int8_t)x * y : x * (int8_t)y);
                }
            memcpy(&tile[sum][i][4 * j], &s, 4);
        }
    }
}

/* ---- panels ------------------------------------------------------------------------------ */

/* The levels below have these panels only on processors with AVX-512 VNNI and BF16. */

enum { COLUMNS = 32 };

static void pack_bf16_bf16__model(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    const uint16_t *from = w;
    uint16_t *to = dst;
    for (size_t p = 0; p < n; p += COLUMNS)
        for (size_t q = 0; q < k; q += 2)
            for (size_t j = p; j < p + COLUMNS; j++)
                for (size_t h = q; h < q + 2; h++)
                    *to++ = j < n && h < k ? from[j * ld + h] : 0;
}

static void pack_bytes(int8_t *to, const int8_t *from, size_t ld, bool blocks, size_t n, size_t k)
{
    for (size_t p = 0; p < n; p += COLUMNS)
        for (size_t q = 0; q < k; q += 4)
            for (size_t j = p; j < p + COLUMNS; j++)
                for (size_t h = q; h < q + 4; h++)
                    *to++ = j < n && h < k ? from[j * ld + (blocks ? fv_q8_at(h) : h)] : 0;
}

static void pack_u8__model(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack_bytes(dst, w, ld, false, n, k);
}

static void pack_u8_q8__model(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack_bytes(dst, w, fv_row_bytes(FV_TYPE_Q8_0, k), true, n, k);
}

/* For each block of k: q + 128 of 32 columns, four of k together, then their scales. */
static void pack_blocks(void *dst, const void *w, fv_type type, size_t n, size_t k)
{
    uint8_t *to = dst;
    for (size_t p = 0; p < n; p += COLUMNS)
        for (size_t b = 0; b < k / FV_BLOCK; b++, to += COLUMNS * FV_PACKED_Q_BLOCK_BYTES)
            for (size_t j = 0; j < COLUMNS; j++) {
                const char *row = (const char *)w + (p + j) * fv_row_bytes(type, k);
                const fv_q8_block *q8 = (const fv_q8_block *)(const void *)row + b;
                const fv_q4_block *q4 = (const fv_q4_block *)(const void *)row + b;
                float scale = 0;
                for (size_t e = 0; e < FV_BLOCK; e++) {
                    int q = 0;
                    if (p + j < n)
                        q = type == FV_TYPE_Q8_0 ? q8->q[e]
                                                 : (q4->q[e % 16] >> e / 16 * 4 & 15) - 8;
                    to[e / 4 * COLUMNS * 4 + j * 4 + e % 4] = (uint8_t)(q + 128);
                }
                if (p + j < n)
                    scale = fv_f16_to_f32(type == FV_TYPE_Q8_0 ? q8->d : q4->d);
                memcpy(to + COLUMNS * FV_BLOCK + 4 * j, &scale, 4);
            }
}

static void pack_q8__model(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack_blocks(dst, w, FV_TYPE_Q8_0, n, k);
}

static void pack_q4__model(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack_blocks(dst, w, FV_TYPE_Q4_0, n, k);
}

void fv_gemm_init_amx_model(fv_kernels *k), fv_gemm_u8_init_amx_model(fv_kernels *k),
    fv_quant_init_amx_model(fv_kernels *k), fv_attn_init_amx_model(fv_kernels *k);

bool amx_model_kernels(fv_kernels *k, unsigned cpu)
{
    if (!(cpu & FV_CPU_AVX512))
        return false;
    k->gemm_bf16 = (fv_gemm_kernel){ .type = FV_TYPE_BF16,
                                     .nr = COLUMNS,
                                     .kg = 2,
                                     .pack = { [FV_TYPE_BF16] = pack_bf16_bf16__model } };
    k->gemm_u8 =
        (fv_gemm_u8_kernel){ .nr = COLUMNS, .pack = pack_u8__model, .pack_q8 = pack_u8_q8__model };
    k->gemm_q = (fv_gemm_q_kernel){
        .nr = COLUMNS, .pack = { [FV_TYPE_Q8_0] = pack_q8__model, [FV_TYPE_Q4_0] = pack_q4__model }
    };
    fv_gemm_init_amx_model(k);
    fv_gemm_u8_init_amx_model(k);
    fv_quant_init_amx_model(k);
    fv_attn_init_amx_model(k);
    return true;
}

#else

bool amx_model_kernels(fv_kernels *k, unsigned cpu)
{
    (void)k;
    (void)cpu;
    return false;
}

#endif
