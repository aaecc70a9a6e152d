/* The loops of the matrix products on AMX tiles, for files that define TILE_PRODUCT and
 * finish_rows(). Everything is counted in steps: 64 bytes of k, a whole row of a tile.
 *
 *              panel of B, 32 columns wide
 *              16 words of k -> [ tmm6 | tmm7 ]        a step: 4 loads of 1 KB and 4 products,
 *       A  [ tmm4 ]             [ tmm0 | tmm1 ]        each 16 rows x 16 columns x 64 bytes of k;
 *       32 [ tmm5 ]             [ tmm2 | tmm3 ]        the products take 64 cycles, the loads 32
 *
 * Panels are those of AVX-512: a row of them, 128 bytes, holds a word of k for 32 columns, so that
 * 16 rows are the two tiles of B side by side.
 *
 * From outside in: blocks of rows whose A stays in L2; panels of B; tiles of 32 rows, whose sums
 * stay in registers for all of k. Between the steps of a tile the epilogue of the tile before it is
 * run, a few rows at a time: products are the tile unit's work and the epilogue the vector units',
 * and with bias and GELU one takes as long as the other. Rows that do not fill a tile are left out
 * of its configuration; what is left of k is copied to where zeros follow, because a step reads
 * whole rows of 64 bytes. */
#ifndef FV_GEMM_AMX_H
#define FV_GEMM_AMX_H

#include <immintrin.h>
#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"
#include "kernels/x86/tiles_amx.h"

enum {
    MR = 32,
    NR = 32,
    STEP = TILE_ROW_BYTES,
    B_STEP = 2 * TILE_BYTES,   /* bytes of a panel in a step */
    A_BLOCK_BYTES = 512 << 10, /* of A per block of rows, */
    MIN_ROWS = 128,            /* but not fewer rows: they would read B too often, */
    MAX_ROWS = 256             /* nor more: their last bytes of k wait on the stack */
};

/* One product, whatever its operands are. */
typedef struct tile_product {
    size_t m, n, k_bytes;
    const char *a;
    size_t a_ld;          /* bytes */
    const char *b;        /* panels of ceil(k_bytes / 4) rows */
    const int32_t *start; /* [n] what sums begin with, or NULL: 0 */
    const void *args;     /* finish_rows()'s */
    /* what finish_rows reads and writes, asked for in good time; residual and gate may be NULL */
    const void *c;
    size_t c_row_bytes, c_elem_bytes;
    const float *residual, *gate;
    size_t ldr, ldg;
} tile_product;

/* A tile of sums [32, NR]: rows i .. i + rows, columns j .. j + width of C. */
typedef struct sum_tile {
    size_t i, rows, j, width;
    size_t done; /* rows that finish_rows has had */
    int32_t *sum;
} sum_tile;

/* Writes `rows` rows of C from row i on, their columns j .. j + width, from their sums. */
static void finish_rows(const void *args, size_t i, size_t rows, size_t j, size_t width,
                        const int32_t *sum);

/* At most n more rows. */
static inline void finish_some(const void *args, sum_tile *t, size_t n)
{
    const size_t rows = FV_MIN(n, t->rows - t->done);
    if (!rows)
        return;
    finish_rows(args, t->i + t->done, rows, t->j, t->width, t->sum + t->done * NR);
    t->done += rows;
}

/* The operands of a tile of sums. */
typedef struct tile_operands {
    const char *a;
    size_t a_ld;
    const char *b;
    size_t steps;
    const char *a_tail, *b_tail; /* a last step, rows of A 64 bytes apart; NULL: none */
    const int32_t *start;
} tile_operands;

/* Up to 32 rows into `sum`, and what is left of `before` into C. */
static void tile_32x32(const tile_operands *o, int32_t *sum, const void *args, sum_tile *before)
{
    const char *a = o->a, *b = o->b;
    const size_t half = TILE_ROWS * o->a_ld, steps = o->steps;
    /* an even number of rows a step */
    const size_t share = (before->rows + 2 * steps + 1) / (2 * (steps + 1)) * 2;
    if (o->start) {
        TILE_LOAD(0, o->start, 0);
        TILE_LOAD(1, o->start + 16, 0);
        TILE_LOAD(2, o->start, 0);
        TILE_LOAD(3, o->start + 16, 0);
    } else {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    }
    for (size_t q = 0; q < steps; q++, a += STEP, b += B_STEP) {
        TILE_LOAD(4, a, o->a_ld);
        TILE_LOAD(6, b, 128);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, b + 64, 128);
        TILE_PRODUCT(1, 4, 7);
        TILE_LOAD(5, a + half, o->a_ld);
        TILE_PRODUCT(2, 5, 6);
        TILE_PRODUCT(3, 5, 7);
        finish_some(args, before, share);
    }
    if (o->a_tail) {
        TILE_LOAD(4, o->a_tail, STEP);
        TILE_LOAD(6, o->b_tail, 128);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, o->b_tail + 64, 128);
        TILE_PRODUCT(1, 4, 7);
        TILE_LOAD(5, o->a_tail + TILE_BYTES, STEP);
        TILE_PRODUCT(2, 5, 6);
        TILE_PRODUCT(3, 5, 7);
    }
    finish_some(args, before, MR);
    TILE_STORE(0, sum, NR * 4);
    TILE_STORE(1, sum + 16, NR * 4);
    TILE_STORE(2, sum + 16 * NR, NR * 4);
    TILE_STORE(3, sum + 16 * NR + 16, NR * 4);
}

/* The same for at most 16 rows. */
static void tile_16x32(const tile_operands *o, int32_t *sum, const void *args, sum_tile *before)
{
    const char *a = o->a, *b = o->b;
    finish_some(args, before, MR);
    if (o->start) {
        TILE_LOAD(0, o->start, 0);
        TILE_LOAD(1, o->start + 16, 0);
    } else {
        TILE_ZERO(0);
        TILE_ZERO(1);
    }
    for (size_t q = 0; q < o->steps; q++, a += STEP, b += B_STEP) {
        TILE_LOAD(4, a, o->a_ld);
        TILE_LOAD(6, b, 128);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, b + 64, 128);
        TILE_PRODUCT(1, 4, 7);
    }
    if (o->a_tail) {
        TILE_LOAD(4, o->a_tail, STEP);
        TILE_LOAD(6, o->b_tail, 128);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, o->b_tail + 64, 128);
        TILE_PRODUCT(1, 4, 7);
    }
    TILE_STORE(0, sum, NR * 4);
    TILE_STORE(1, sum + 16, NR * 4);
}

/* Tiles for `rows` rows of A, 1 to 32. */
static void configure_rows(size_t rows)
{
    const uint8_t upper = (uint8_t)FV_MIN(rows, (size_t)TILE_ROWS),
                  lower = rows > TILE_ROWS ? (uint8_t)(rows - TILE_ROWS) : TILE_ROWS;
    const tile_config config = {
        .palette = 1,
        .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
        .rows = { upper, upper, lower, lower, upper, lower, TILE_ROWS, TILE_ROWS },
    };
    tiles_configure(&config);
}

static inline void fetch_rows(const void *p, size_t row_bytes, size_t elem_bytes, size_t i,
                              size_t rows, size_t j)
{
    const char *at = (const char *)p + i * row_bytes + j * elem_bytes;
    for (size_t r = 0; r < rows; r++, at += row_bytes) {
        __builtin_prefetch(at, 1);
        if (elem_bytes > 2)
            __builtin_prefetch(at + 64, 1);
    }
}

static inline void fetch_results(const tile_product *p, const sum_tile *t)
{
    fetch_rows(p->c, p->c_row_bytes, p->c_elem_bytes, t->i, t->rows, t->j);
    if (p->residual && p->residual != p->c)
        fetch_rows(p->residual, p->ldr * 4, 4, t->i, t->rows, t->j);
    if (p->gate)
        fetch_rows(p->gate, p->ldg * 4, 4, t->i, t->rows, t->j);
}

/* The last `left` bytes of k of each row, and zeros. */
static void copy_tails(char *to, const char *from, size_t ld, size_t rows, size_t left)
{
    memset(to, 0, rows * STEP);
    for (size_t r = 0; r < rows; r++)
        memcpy(to + r * STEP, from + r * ld, left);
}

static void product_run(const tile_product *p)
{
    const size_t words = (p->k_bytes + 3) / 4, steps = p->k_bytes / STEP, left = p->k_bytes % STEP,
                 panel_bytes = words * NR * 4;
    const size_t fit = A_BLOCK_BYTES / p->k_bytes / MR * MR;
    const size_t block = FV_MIN(FV_MAX(fit, (size_t)MIN_ROWS), (size_t)MAX_ROWS);
    int32_t sums[2][MR * NR] __attribute__((aligned(64)));
    int32_t start[NR] __attribute__((aligned(64))) = { 0 };
    char a_tail[MAX_ROWS * STEP] __attribute__((aligned(64)));
    char b_tail[B_STEP] __attribute__((aligned(64)));
    size_t configured = 0, turn = 0;
    sum_tile before = { 0 };

    for (size_t i0 = 0; i0 < p->m; i0 += block) {
        const size_t i1 = FV_MIN(p->m, i0 + block);
        if (left)
            copy_tails(a_tail, p->a + i0 * p->a_ld + steps * STEP, p->a_ld, i1 - i0, left);
        for (size_t j = 0; j < p->n; j += NR) {
            tile_operands o = { .a_ld = p->a_ld,
                                .b = p->b + j / NR * panel_bytes,
                                .steps = steps,
                                .b_tail = b_tail,
                                .start = p->start ? p->start + j : NULL };
            const size_t width = FV_MIN((size_t)NR, p->n - j);
            if (o.start && width < NR)
                o.start = memcpy(start, o.start, width * sizeof *start);
            if (left) {
                const size_t n = panel_bytes - steps * B_STEP;
                memcpy(b_tail, o.b + steps * B_STEP, n);
                memset(b_tail + n, 0, B_STEP - n);
            }
            for (size_t i = i0; i < i1; i += MR) {
                sum_tile now = { i, FV_MIN((size_t)MR, i1 - i), j, width, 0, sums[turn++ % 2] };
                o.a = p->a + i * p->a_ld;
                o.a_tail = left ? a_tail + (i - i0) * STEP : NULL;
                if (now.rows != configured)
                    configure_rows(configured = now.rows);
                fetch_results(p, &now);
                if (now.rows > TILE_ROWS)
                    tile_32x32(&o, now.sum, p->args, &before);
                else
                    tile_16x32(&o, now.sum, p->args, &before);
                before = now;
            }
        }
    }
    finish_some(p->args, &before, MR);
    tiles_release();
}

#endif
