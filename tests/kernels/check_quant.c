/* Checks and timings of weights in blocks of 8 or 4 bits: every level gives the portable version's
 * bits; that one is judged against double precision. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "base/half.h"
#include "kernels/blocks.h"

static const double EPS = 0x1p-24;
static const fv_type types[2] = { FV_TYPE_Q8_0, FV_TYPE_Q4_0 };

static const char *name_of(const char *stem, fv_type type)
{
    static char name[40];
    snprintf(name, sizeof name, "%s_%s", stem, type == FV_TYPE_Q8_0 ? "q8" : "q4");
    return name;
}

/* Every byte is a legal value: the ends are -128 and 127, -8 and 7. */
static void fill_weights(fv_check *c, void *w, fv_type type, size_t n_blocks)
{
    const size_t bytes = fv_row_bytes(type, FV_BLOCK);
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t *block = (uint8_t *)w + b * bytes;
        uint16_t d = fv_f32_to_f16(check_rand(c) % 16 ? check_uniform(c, -0.25f, 0.25f)
                                                      : check_uniform(c, -1e-6f, 1e-6f));
        memcpy(block, &d, 2);
        for (size_t i = 2; i < bytes; i++) {
            uint8_t least = type == FV_TYPE_Q8_0 ? 0x80 : 0,
                    most = type == FV_TYPE_Q8_0 ? 0x7f : 0xff;
            switch (c->mode) {
            case CHECK_MIN: block[i] = least; break;
            case CHECK_MAX: block[i] = most; break;
            case CHECK_ALTERNATE: block[i] = i % 2 ? least : most; break;
            case CHECK_SPARSE:
                block[i] = (uint8_t)(check_rand(c) % 8 ? type == FV_TYPE_Q8_0 ? 0 : 0x88
                                                       : check_rand(c));
                break;
            default: block[i] = (uint8_t)check_rand(c);
            }
        }
    }
}

/* q of element i, and the scale of its block */
static int value(const void *row, fv_type type, size_t i, float *d)
{
    size_t b = i / FV_BLOCK, at = i % FV_BLOCK;
    if (type == FV_TYPE_Q8_0) {
        const fv_q8_block *block = (const fv_q8_block *)row + b;
        *d = fv_f16_to_f32(block->d);
        return block->q[at];
    }
    const fv_q4_block *block = (const fv_q4_block *)row + b;
    *d = fv_f16_to_f32(block->d);
    return (at < 16 ? block->q[at] & 15 : block->q[at - 16] >> 4) - 8;
}

/* Sum of products of two rows, and of their magnitudes. */
static double product(const void *w, fv_type type, const void *x, size_t k, double *magnitude)
{
    double sum = 0;
    *magnitude = 0;
    for (size_t i = 0; i < k; i++) {
        float d;
        int q = value(w, type, i, &d);
        double t = (double)d * q * (double)fv_qrow_d(x, k / FV_BLOCK)[i / FV_BLOCK] *
                   fv_qrow_q(x)[i];
        sum += t;
        *magnitude += fabs(t);
    }
    return sum;
}

/* ---- activations ------------------------------------------------------------------------- */

static void check_rows_quantised(fv_check *c)
{
    if (!check_slot(c, "quantize_row", c->now->quantize_row != c->below->quantize_row))
        return;
    static const float range[] = { 1, 3e4f, 1e-20f, 1e-38f, 3e38f };
    for (size_t k = 0; k <= 40 * FV_BLOCK; k += FV_BLOCK) {
        for (unsigned e = 0; e < 2 * FV_COUNT(range); e++) {
            if (!check_case(c, "k=%zu range %g%s", k, (double)range[e / 2],
                            e % 2 ? " ties, odd values" : ""))
                continue;
            const size_t bytes = fv_quantized_row_bytes(k), nb = k / FV_BLOCK;
            float *x = check_in(c, k * 4, 4);
            void *want = check_out(c, bytes, 64), *got = check_out(c, bytes, 64);
            check_fill(c, x, FV_TYPE_F32, k, -range[e / 2], range[e / 2]);
            if (e % 2 && k) {
                for (size_t i = 0; i < k; i++)
                    /* x (127 / 127) is a tie */
                    x[i] = i % FV_BLOCK ? ((float)check_below(c, 508) - 253.5f) / 2 : 127;
                if (nb > 1)
                    x[FV_BLOCK + check_below(c, FV_BLOCK)] = NAN;
                if (nb > 2)
                    x[2 * FV_BLOCK + check_below(c, FV_BLOCK)] = check_rand(c) % 2 ? INFINITY
                                                                                   : -INFINITY;
                if (nb > 3)
                    memset(x + 3 * FV_BLOCK, 0, FV_BLOCK * sizeof *x);
            }
            c->ref->quantize_row(want, x, k);
            c->now->quantize_row(got, x, k);
            check_same(c, "row", want, got, bytes);
            for (size_t i = 0; i < k; i++) { /* the definition */
                float d = fv_qrow_d(got, nb)[i / FV_BLOCK], largest = 0;
                bool finite = true;
                for (size_t j = i / FV_BLOCK * FV_BLOCK; j < i / FV_BLOCK * FV_BLOCK + FV_BLOCK;
                     j++) {
                    largest = fmaxf(largest, fabsf(x[j]));
                    finite = finite && isfinite(x[j]);
                }
                if (!finite) {
                    if (!isnan(d))
                        check_fail(c, "block %zu is not finite, its scale is", i / FV_BLOCK);
                } else if (largest < 0x1p-100f) {
                    check_near(c, "d", i / FV_BLOCK, 0, d, 0);
                } else {
                    check_near(c, "x", i, x[i], (double)d * fv_qrow_q(got)[i],
                               0.5001 * (double)largest / 127);
                }
            }
            check_done(c);
        }
    }
}

/* ---- matrix times vector ----------------------------------------------------------------- */

static void check_vector(fv_check *c, fv_type type)
{
    if (!check_slot(c, name_of("gemv", type), c->now->gemv_q[type] != c->below->gemv_q[type]))
        return;
    for (size_t n = 0; n <= 9; n++) {
        for (size_t nb = 0; nb <= 45; nb += nb < 13 ? 1 : 4) {
            if (!check_case(c, "n=%zu k=%zu", n, nb * FV_BLOCK))
                continue;
            const size_t k = nb * FV_BLOCK, row = fv_row_bytes(type, k);
            void *w = check_in(c, n * row, 2), *qx = check_out(c, fv_quantized_row_bytes(k), 64);
            float *x = check_in(c, k * 4, 4), *bias = check_in(c, n * 4, 4);
            float *want = check_out(c, n * 4, 4), *got = check_out(c, n * 4, 4);
            fill_weights(c, w, type, n * nb);
            check_fill(c, x, FV_TYPE_F32, k, -3, 3);
            check_fill(c, bias, FV_TYPE_F32, n, -1, 1);
            c->ref->quantize_row(qx, x, k);
            const float *add = check_rand(c) % 2 ? bias : NULL;
            c->ref->gemv_q[type](want, w, qx, add, n, k);
            c->now->gemv_q[type](got, w, qx, add, n, k);
            check_same(c, "y", want, got, n * 4);
            for (size_t j = 0; j < n; j++) {
                double magnitude, sum = product((char *)w + j * row, type, qx, k, &magnitude);
                sum += add ? (double)add[j] : 0;
                check_near(c, "y", j, sum, got[j],
                           EPS * (((double)nb + 6) * magnitude + fabs(sum)));
            }
            if (n > 1) {
                size_t j = check_below(c, n);
                float alone;
                c->now->gemv_q[type](&alone, (char *)w + j * row, qx, add ? add + j : NULL, 1, k);
                check_same(c, "y of a row alone", &got[j], &alone, 4);
            }
            if (type == FV_TYPE_Q8_0 && c->now->gemv_q8_ahead) {
                c->now->gemv_q8_ahead(got, w, qx, add, n, k);
                check_same(c, "y, weights asked for ahead", want, got, n * 4);
            }
            check_done(c);
        }
    }
}

/* Each of m rows has the bits that the level's product of one row gives it. */
static void check_vectors(fv_check *c, fv_type type)
{
    fv_gemv_q_rows_fn *fn = c->now->gemv_q_rows[type];
    if (!check_slot(c, name_of("gemv_rows", type),
                    fn != c->below->gemv_q_rows[type] ||
                        c->now->gemv_q[type] != c->below->gemv_q[type]))
        return;
    for (size_t m = 1; m <= FV_GEMV_ROWS; m++) {
        for (size_t nb = 0; nb <= 160; nb += nb < 13 ? 1 : nb < 30 ? 7 : 63) {
            const size_t n = check_below(c, 12), k = nb * FV_BLOCK, row = fv_row_bytes(type, k),
                         x_row = fv_quantized_row_bytes(k);
            const size_t ldy = n + check_below(c, 3), y_elems = (m - 1) * ldy + n;
            if (!check_case(c, "m=%zu n=%zu k=%zu ldy=%zu", m, n, k, ldy))
                continue;
            void *w = check_in(c, n * row, 2);
            char *qx = check_out(c, m * x_row, 64);
            float *x = check_in(c, k * 4, 4), *bias = check_in(c, n * 4, 4);
            float *want = check_out(c, n * 4, 4), *got = check_out(c, y_elems * 4, 4);
            fill_weights(c, w, type, n * nb);
            check_fill(c, bias, FV_TYPE_F32, n, -1, 1);
            const float *add = check_rand(c) % 2 ? bias : NULL;
            for (size_t i = 0; i < m; i++) {
                check_fill(c, x, FV_TYPE_F32, k, -3, (float)i);
                c->ref->quantize_row(qx + i * x_row, x, k);
            }
            fn(got, ldy, w, qx, add, m, n, k);
            for (size_t i = 0; i < m; i++) {
                c->now->gemv_q[type](want, w, qx + i * x_row, add, n, k);
                check_same(c, "row of y", want, got + i * ldy, n * 4);
            }
            check_gaps(c, "y", got, 4, m, n, ldy);
            check_done(c);
        }
    }
}

/* ---- matrix times matrix ----------------------------------------------------------------- */

enum { BIAS = 1, GELU = 2, GATE = 4, SCALE = 8, RESIDUAL = 16, EPILOGUES = 32 };

static double relative(fv_type type)
{
    return type == FV_TYPE_F16 ? 0x1p-11 : type == FV_TYPE_BF16 ? 0x1p-8 : 0;
}

static void check_product(fv_check *c, fv_type type, size_t m, size_t n, size_t nb,
                          unsigned epilogue, fv_type c_type)
{
    if (!check_case(c, "m=%zu n=%zu k=%zu c=%s%s%s%s%s%s", m, n, nb * FV_BLOCK,
                    fv_type_name(c_type), epilogue & BIAS ? " bias" : "",
                    epilogue & GELU ? " gelu" : "", epilogue & GATE ? " gate" : "",
                    epilogue & SCALE ? " scale" : "", epilogue & RESIDUAL ? " residual" : ""))
        return;
    const fv_gemm_q_kernel *g = &c->now->gemm_q, *ref = &c->ref->gemm_q;
    const size_t k = nb * FV_BLOCK, row = fv_row_bytes(type, k), lda = fv_quantized_row_bytes(k),
                 size = fv_type_size(c_type);
    const size_t ldc = n + check_below(c, 3);
    float *x = check_in(c, k * 4, 4);
    void *w = check_in(c, n * row, 2), *a = check_out(c, m * lda, 64);
    void *b = check_out(c, fv_packed_q_bytes(g, type, n, k), 64),
         *b_ref = check_out(c, fv_packed_q_bytes(ref, type, n, k), 64);
    float *bias = check_in(c, n * 4, 4), *scale = check_in(c, n * 4, 4),
          *gate = check_in(c, m * n * 4, 4);
    float *residual = check_in(c, m * n * 4, 4);
    const size_t c_elems = m ? (m - 1) * ldc + n : 0;
    void *want = check_out(c, c_elems * size, size), *got = check_out(c, c_elems * size, size);
    void *again = check_out(c, c_elems * size, size);
    fill_weights(c, w, type, n * nb);
    for (size_t i = 0; i < m; i++) {
        check_fill(c, x, FV_TYPE_F32, k, -3, 3);
        c->ref->quantize_row((char *)a + i * lda, x, k);
    }
    check_fill(c, bias, FV_TYPE_F32, n, -2, 2);
    check_fill(c, scale, FV_TYPE_F32, n, -1.5f, 1.5f);
    check_fill(c, gate, FV_TYPE_F32, m * n, -9, 9);
    check_fill(c, residual, FV_TYPE_F32, m * n, -3, 3);
    g->pack[type](b, w, 0, n, k);
    ref->pack[type](b_ref, w, 0, n, k);
    fv_gemm_args args = { .m = m,
                          .n = n,
                          .k = k,
                          .a = a,
                          .lda = lda,
                          .b = b_ref,
                          .c = want,
                          .ldc = ldc,
                          .c_type = c_type,
                          .act = epilogue & GELU ? FV_ACT_GELU : FV_ACT_NONE,
                          .bias = epilogue & BIAS ? bias : NULL,
                          .scale = epilogue & SCALE ? scale : NULL,
                          .gate = epilogue & GATE ? gate : NULL,
                          .ldg = n,
                          .residual = epilogue & RESIDUAL ? residual : NULL,
                          .ldr = n };
    ref->run[type](&args);
    args.b = b;
    args.c = got;
    g->run[type](&args);
    const bool exact = !(epilogue & (GELU | GATE));
    for (size_t i = 0; i < m; i++) {
        if (exact)
            check_same(c, "row of c", (char *)want + i * ldc * size, (char *)got + i * ldc * size,
                       n * size);
        for (size_t j = 0; j < n && !exact; j++) {
            double y = check_get(want, c_type, i * ldc + j), most = fabs(y) + 10;
            if (!check_near(c, "c", i * ldc + j, y, check_get(got, c_type, i * ldc + j),
                            2e-5 * most + 2 * relative(c_type) * fabs(y)))
                break;
        }
        for (size_t j = 0; j < n && !epilogue && c_type == FV_TYPE_F32; j++) {
            double magnitude,
                sum = product((char *)w + j * row, type, (char *)a + i * lda, k, &magnitude);
            if (!check_near(c, "c", i * ldc + j, sum, check_get(got, c_type, i * ldc + j),
                            EPS * ((double)nb + 2) * magnitude))
                break;
        }
    }
    check_gaps(c, "c", got, size, m, n, ldc);
    if (m > 1) { /* split at a row and at a panel: the same bits */
        size_t row_cut = 1 + check_below(c, m - 1), panel = n > g->nr ? g->nr : 0;
        for (int part = 0; part < 4; part++) {
            size_t i = part / 2 ? row_cut : 0, j = part % 2 ? panel : 0;
            fv_gemm_args p = args;
            p.m = part / 2 ? m - row_cut : row_cut;
            p.n = part % 2 ? n - panel : panel;
            p.a = (char *)a + i * lda;
            p.b = (char *)b + fv_packed_q_bytes(g, type, j, k);
            p.c = (char *)again + (i * ldc + j) * size;
            p.bias = args.bias ? bias + j : NULL;
            p.scale = args.scale ? scale + j : NULL;
            p.gate = args.gate ? gate + i * n + j : NULL;
            p.residual = args.residual ? residual + i * n + j : NULL;
            g->run[type](&p);
        }
        check_same(c, "c in parts", got, again, c_elems * size);
    }
    check_done(c);
}

static void check_products(fv_check *c, fv_type type)
{
    if (!check_slot(c, name_of("gemm", type),
                    c->now->gemm_q.pack[type] != c->below->gemm_q.pack[type] ||
                        c->now->gemm_q.run[type] != c->below->gemm_q.run[type]))
        return;
    static const fv_type c_types[3] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    const size_t mr = c->now->gemm_q.mr, nr = c->now->gemm_q.nr;
    unsigned e = 0;
    for (size_t m = 0; m <= 2 * mr + 1; m++)
        for (size_t n = 0; n <= 2 * nr + 1; n += n + 2 < nr || n > nr + 1 ? 5 : 1, e++)
            check_product(c, type, m, n, 1 + check_below(c, 5), e % 3 ? e % EPILOGUES : 0,
                          c_types[e / 3 % 3]);
    for (size_t nb = 1; nb <= 70; nb += nb < 20 ? 1 : 10)
        check_product(c, type, mr + 1, nr + 3, nb, 0, FV_TYPE_F32);
    for (unsigned i = 0; i < EPILOGUES; i++)
        for (unsigned t = 0; t < 3; t++)
            check_product(c, type, mr + 3, nr + 5, 3, i, c_types[t]);
    check_product(c, type, 150, 5 * nr + 1, 18, 0, FV_TYPE_F32);
    check_product(c, type, 30, 5 * nr + 1, 130, BIAS | RESIDUAL, FV_TYPE_F32);
}

/* ---- widening ---------------------------------------------------------------------------- */

static void check_widening(fv_check *c, fv_type type)
{
    fv_convert_fn *fn = c->now->convert[FV_TYPE_F32][type];
    if (!check_slot(c, name_of("convert_f32", type), fn != c->below->convert[FV_TYPE_F32][type]))
        return;
    for (size_t nb = 0; nb <= 40; nb++) {
        if (!check_case(c, "n=%zu", nb * FV_BLOCK))
            continue;
        void *w = check_in(c, nb * fv_row_bytes(type, FV_BLOCK), 2);
        float *got = check_out(c, nb * FV_BLOCK * 4, 4);
        fill_weights(c, w, type, nb);
        fn(got, w, nb * FV_BLOCK);
        for (size_t i = 0; i < nb * FV_BLOCK; i++) {
            float d;
            int q = value(w, type, i, &d);
            check_near(c, "x", i, d * (float)q, got[i], 0);
        }
        check_done(c);
    }
}

/* Rows of the KV cache in 8 bits. */
static void check_kv_rows(fv_check *c)
{
    fv_convert_fn *to = c->now->convert[FV_TYPE_I8][FV_TYPE_F32],
                  *from = c->now->convert[FV_TYPE_F32][FV_TYPE_I8];
    if (!check_slot(c, "convert_i8", to != c->below->convert[FV_TYPE_I8][FV_TYPE_F32]))
        return;
    for (size_t d = 2; d <= FV_ATTN_MAX_D; d += d < 70 ? 2 : 62) {
        for (unsigned e = 0; e < 6; e++) {
            if (!check_case(c, "d=%zu %u", d, e))
                continue;
            const size_t bytes = fv_kv_row_bytes(FV_TYPE_I8, d);
            float *x = check_in(c, d * 4, 4), *back = check_out(c, d * 4, 4);
            void *row = check_out(c, bytes, 4);
            check_fill(c, x, FV_TYPE_F32, d, -30, 20);
            if (e == 5)
                x[check_below(c, d)] = NAN;
            to(row, x, d);
            from(back, row, d);
            for (size_t i = 0; i < d; i++) {
                float largest = 0;
                bool finite = true;
                for (size_t j = i / FV_BLOCK * FV_BLOCK;
                     j < FV_MIN(i / FV_BLOCK * FV_BLOCK + FV_BLOCK, d); j++) {
                    largest = fmaxf(largest, fabsf(x[j]));
                    finite = finite && isfinite(x[j]);
                }
                if (finite)
                    check_near(c, "x", i, x[i], back[i], 0.5001 * (double)largest / 127);
                else if (!isnan(back[i]))
                    check_fail(c, "x[%zu]: a block with a NaN became a number", i);
            }
            check_done(c);
        }
    }
}

void check_quant(fv_check *c)
{
    check_kv_rows(c);
    check_rows_quantised(c);
    for (int t = 0; t < 2; t++) {
        check_widening(c, types[t]);
        check_vector(c, types[t]);
        check_vectors(c, types[t]);
        check_products(c, types[t]);
    }
}

/* ---- timing ------------------------------------------------------------------------------ */

typedef struct quant_run {
    const fv_kernels *k;
    fv_type type;
    const char *w;
    float *y;
    const void *x;
    void *packed;
    fv_gemm_args args;
    size_t m, n, depth, columns;
} quant_run;

static void run_vector(void *user)
{
    quant_run *r = user;
    r->k->gemv_q[r->type](r->y, r->w, r->x, NULL, r->n, r->depth);
}

static void run_vectors(void *user)
{
    quant_run *r = user;
    r->k->gemv_q_rows[r->type](r->y, r->n, r->w, r->x, NULL, r->m, r->n, r->depth);
}

static void run_pack(void *user)
{
    quant_run *r = user;
    for (size_t j = 0; j < r->n; j += r->columns)
        r->k->gemm_q.pack[r->type](r->packed, r->w + j * fv_row_bytes(r->type, r->depth), 0,
                                   FV_MIN(r->columns, r->n - j), r->depth);
}

static void run_product(void *user)
{
    quant_run *r = user;
    r->k->gemm_q.run[r->type](&r->args);
}

/* As a task does it: columns are packed, then multiplied while they are in the cache. */
static void run_both(void *user)
{
    quant_run *r = user;
    for (size_t j = 0; j < r->n; j += r->columns) {
        fv_gemm_args args = r->args;
        args.n = FV_MIN(r->columns, r->n - j);
        args.c = r->y + j;
        r->k->gemm_q.pack[r->type](r->packed, r->w + j * fv_row_bytes(r->type, r->depth), 0, args.n,
                                   r->depth);
        r->k->gemm_q.run[r->type](&args);
    }
}

typedef struct row_run {
    const fv_kernels *k;
    void *dst;
    const float *x;
    size_t depth;
} row_run;

static void run_row(void *user)
{
    row_run *r = user;
    r->k->quantize_row(r->dst, r->x, r->depth);
}

static char *make_weights(fv_check *c, fv_type type, size_t n, size_t k)
{
    size_t bytes = fv_row_bytes(type, n * k);
    char *w = bench_buffer(c, FV_TYPE_F32, (bytes + 3) / 4);
    uint16_t d = fv_f32_to_f16(0.01f);
    for (size_t at = 0; at < bytes; at += fv_row_bytes(type, FV_BLOCK))
        memcpy(w + at, &d, 2);
    return w;
}

void bench_quant(fv_check *c)
{
    const fv_kernels *now = c->now;
    char label[112];
    if (!strcmp(c->level, "ref"))
        return;
    if (now->quantize_row != c->below->quantize_row && check_slot(c, "quantize_row", true)) {
        for (int i = 0; i < 2; i++) {
            size_t k = i ? 4864 : 896;
            float *x = bench_buffer(c, FV_TYPE_F32, k);
            void *dst = bench_buffer(c, FV_TYPE_U8, fv_quantized_row_bytes(k));
            row_run r = { now, dst, x, k }, slow = { c->ref, dst, x, k };
            snprintf(label, sizeof label, "%zu", k);
            bench_report(c, label, "GB/s read", run_row, &r, (double)k * 4, run_row, &slow,
                         (double)k * 4);
            bench_free(x), bench_free(dst);
        }
    }
    for (int t = 0; t < 2; t++) {
        const fv_type type = types[t];
        bench_shape shape[64];
        if (now->gemv_q[type] != c->below->gemv_q[type] &&
            check_slot(c, name_of("gemv", type), true)) {
            size_t n_shapes = bench_shapes(c, "gemv", shape, FV_COUNT(shape));
            for (size_t i = 0; i < n_shapes; i++) {
                size_t n = shape[i].v[0], k = shape[i].v[1];
                float *x = bench_buffer(c, FV_TYPE_F32, k),
                      *y = bench_buffer(c, FV_TYPE_F32, FV_GEMV_ROWS * n);
                char *qx = bench_buffer(c, FV_TYPE_U8, FV_GEMV_ROWS * fv_quantized_row_bytes(k));
                char *w = make_weights(c, type, n, k);
                for (size_t m = 0; m < FV_GEMV_ROWS; m++)
                    now->quantize_row(qx + m * fv_quantized_row_bytes(k), x, k);
                quant_run
                    r = { .k = now, .type = type, .w = w, .y = y, .x = qx, .n = n, .depth = k },
                    slow = r;
                slow.k = c->ref;
                slow.n = FV_MIN(n, (size_t)64);
                snprintf(label, sizeof label, "%.40s %zux%zu", shape[i].label, n, k);
                bench_report(c, label, "GB/s", run_vector, &r, (double)fv_row_bytes(type, n * k),
                             run_vector, &slow, (double)fv_row_bytes(type, slow.n * k));
                for (r.m = 2; r.m <= FV_GEMV_ROWS; r.m += 2) {
                    snprintf(label, sizeof label, "%.40s %zux%zu, %zu rows", shape[i].label, n, k,
                             r.m);
                    bench_report(c, label, "GB/s", run_vectors, &r,
                                 (double)fv_row_bytes(type, n * k), NULL, NULL, 1);
                }
                bench_free(x), bench_free(y), bench_free(qx), bench_free(w);
            }
        }
        if (now->gemm_q.run[type] == c->below->gemm_q.run[type] ||
            !check_slot(c, name_of("gemm", type), true))
            continue;
        size_t n_shapes = bench_shapes(c, "gemm_q", shape, FV_COUNT(shape));
        for (size_t i = 0; i < n_shapes; i++) {
            const size_t m = shape[i].v[0], n = shape[i].v[1], k = shape[i].v[2],
                         lda = fv_quantized_row_bytes(k);
            const size_t columns = FV_MIN(n, (size_t)(128 / now->gemm_q.nr * now->gemm_q.nr));
            float *x = bench_buffer(c, FV_TYPE_F32, k), *y = bench_buffer(c, FV_TYPE_F32, m * n);
            char *a = bench_buffer(c, FV_TYPE_U8, m * lda), *w = make_weights(c, type, n, k);
            void *packed = bench_buffer(c, FV_TYPE_U8,
                                        fv_packed_q_bytes(&now->gemm_q, type, columns, k));
            for (size_t j = 0; j < m; j++)
                now->quantize_row(a + j * lda, x, k);
            quant_run r = { .k = now,
                            .type = type,
                            .w = w,
                            .y = y,
                            .packed = packed,
                            .n = n,
                            .depth = k,
                            .columns = columns,
                            .args = { .m = m,
                                      .n = columns,
                                      .k = k,
                                      .a = a,
                                      .lda = lda,
                                      .b = packed,
                                      .c = y,
                                      .ldc = n } };
            now->gemm_q.pack[type](packed, w, 0, columns, k);
            snprintf(label, sizeof label, "%.20s %zux%zux%zu", shape[i].label, m, columns, k);
            bench_report(c, label, "GOP/s", run_product, &r,
                         2.0 * (double)m * (double)columns * (double)k, NULL, NULL, 1);
            snprintf(label, sizeof label, "  packed, %zux%zux%zu", m, n, k);
            bench_report(c, label, "GOP/s", run_both, &r, 2.0 * (double)m * (double)n * (double)k,
                         NULL, NULL, 1);
            snprintf(label, sizeof label, "  packing alone %zux%zu", n, k);
            bench_report(c, label, "GB/s read", run_pack, &r, (double)fv_row_bytes(type, n * k),
                         NULL, NULL, 1);
            bench_free(x), bench_free(y), bench_free(a), bench_free(w), bench_free(packed);
        }
    }
}
