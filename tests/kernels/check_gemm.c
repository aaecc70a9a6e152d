/* Checks and timings of the matrix products, their packing, and the matrix-vector products. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/half.h"

static const double EPS = 0x1p-24;

/* ---- definitions in double --------------------------------------------------------------- */

static double gelu(double x)
{
    return isinf(x) && x < 0 ? 0 : 0.5 * x * erfc(-x * 0.70710678118654752440);
}
static double silu(double x) { return x < -700 ? 0 : x / (1 + exp(-x)); }

static double clamp_to(fv_type type, double y)
{
    return type == FV_TYPE_F16 && fabs(y) > 65504 ? copysign(65504, y) : y;
}

/* A rounded value is right when it lies within bound and one rounding of the exact one. */
static double stored_bound(fv_type type, double want, double bound)
{
    return bound + check_half_ulp(type, fabs(want) + bound);
}

/* ---- GEMM -------------------------------------------------------------------------------- */

enum { BIAS = 1, GELU = 2, GATE = 4, SCALE = 8, RESIDUAL = 16, IN_PLACE = 32, EPILOGUES = 64 };

typedef struct gemm_case {
    size_t m, n, k;
    unsigned epilogue;
    fv_type c_type;
    size_t extra; /* elements between rows of everything */
    float range;  /* of A; weights lie in [-1, 1] */
} gemm_case;

static void pack_weights(const fv_gemm_kernel *g, void *packed, const void *w, size_t ld, size_t n,
                         size_t k)
{
    g->pack[g->type](packed, w, ld, n, k);
}

/* One product, judged against double precision, for odd places split in m and n against itself. */
static void check_product(fv_check *c, const fv_gemm_kernel *g, const gemm_case *p)
{
    if (!check_case(c, "m=%zu n=%zu k=%zu c=%s%s%s%s%s%s%s rows +%zu", p->m, p->n, p->k,
                    fv_type_name(p->c_type), p->epilogue & BIAS ? " bias" : "",
                    p->epilogue & GELU ? " gelu" : "", p->epilogue & GATE ? " gate" : "",
                    p->epilogue & SCALE ? " scale" : "", p->epilogue & RESIDUAL ? " residual" : "",
                    p->epilogue & IN_PLACE ? " in place" : "", p->extra))
        return;
    const size_t size = fv_type_size(g->type), c_size = fv_type_size(p->c_type);
    const size_t lda = p->k + p->extra, ldc = p->n + p->extra, ldg = p->n + 2 * p->extra,
                 ldr = p->n + 3 * p->extra;
    const size_t m = p->m, n = p->n, k = p->k;
    const bool in_place = (p->epilogue & IN_PLACE) && (p->epilogue & RESIDUAL) &&
                          p->c_type == FV_TYPE_F32;
    void *a = check_in(c, m ? ((m - 1) * lda + k) * size : 0, size);
    void *w = check_in(c, n * k * size, size);
    void *b = check_in(c, fv_packed_elems(g, n, k) * size, 64);
    float *bias = check_in(c, n * 4, 4), *scale = check_in(c, n * 4, 4);
    float *gate = check_in(c, m ? ((m - 1) * ldg + n) * 4 : 0, 4);
    float *residual = check_in(c, m ? ((m - 1) * ldr + n) * 4 : 0, 4);
    const size_t c_elems = m ? (m - 1) * ldc + n : 0;
    void *got = check_out(c, c_elems * c_size, c_size);
    void *again = check_out(c, c_elems * c_size, c_size);
    check_fill(c, a, g->type, m ? (m - 1) * lda + k : 0, -p->range, p->range);
    check_fill(c, w, g->type, n * k, -1, 1);
    check_fill(c, bias, FV_TYPE_F32, n, -2, 2);
    check_fill(c, scale, FV_TYPE_F32, n, -1.5f, 1.5f);
    check_fill(c, gate, FV_TYPE_F32, m ? (m - 1) * ldg + n : 0, -9, 9);
    check_fill(c, residual, FV_TYPE_F32, m ? (m - 1) * ldr + n : 0, -3, 3);
    pack_weights(g, b, w, k, n, k);

    fv_gemm_args args = { .m = m,
                          .n = n,
                          .k = k,
                          .a = a,
                          .lda = lda,
                          .b = b,
                          .c = got,
                          .ldc = ldc,
                          .c_type = p->c_type,
                          .act = p->epilogue & GELU ? FV_ACT_GELU : FV_ACT_NONE,
                          .bias = p->epilogue & BIAS ? bias : NULL,
                          .scale = p->epilogue & SCALE ? scale : NULL,
                          .gate = p->epilogue & GATE ? gate : NULL,
                          .ldg = ldg,
                          .residual = p->epilogue & RESIDUAL ? residual : NULL,
                          .ldr = ldr };
    if (in_place) {
        for (size_t i = 0; i < m; i++) {
            memcpy((float *)got + i * ldc, residual + i * ldr, n * 4);
            memcpy((float *)again + i * ldc, residual + i * ldr, n * 4);
        }
        args.residual = got;
        args.ldr = ldc;
    }
    g->run(&args);

    bool good = true;
    for (size_t i = 0; i < m && good; i++) {
        for (size_t j = 0; j < n && good; j++) {
            double sum = 0, magnitude = 0;
            for (size_t q = 0; q < k; q++) {
                double t = check_get(a, g->type, i * lda + q) * check_get(w, g->type, j * k + q);
                sum += t;
                magnitude += fabs(t);
            }
            double y = sum, bound = 2 * (double)k * EPS * magnitude;
            if (args.bias) {
                y += bias[j];
                bound += EPS * (fabs(y) + bound);
            }
            if (args.act == FV_ACT_GELU) {
                y = gelu(y); /* its slope is at most 1.13 */
                bound = 1.13 * bound + 1e-6 * fmax(1, fabs(y));
            }
            if (args.gate) {
                double s = silu(gate[i * ldg + j]);
                bound = bound * fabs(s) + (fabs(y) + bound) * 1e-6 * fmax(1, fabs(s));
                y *= s;
                bound += EPS * fabs(y);
            }
            if (args.scale) {
                y *= scale[j];
                bound = bound * fabs(scale[j]) + EPS * fabs(y);
            }
            if (args.residual) {
                y += residual[i * ldr + j];
                bound += EPS * (fabs(y) + bound);
            }
            y = clamp_to(p->c_type, y);
            bound = p->c_type == FV_TYPE_F32 ? bound * (1 + 2 * EPS)
                                             : stored_bound(p->c_type, y, bound);
            good = check_near(c, "c", i * ldc + j, y, check_get(got, p->c_type, i * ldc + j),
                              bound);
        }
    }
    check_gaps(c, "c", got, c_size, m, n, ldc);

    /* The same in two parts, cut at a row and at a panel: the same bits. */
    size_t row = check_below(c, m + 1), column = check_below(c, n / g->nr + 1) * g->nr;
    for (int part = 0; part < 4; part++) {
        fv_gemm_args s = args;
        size_t i = part & 1 ? row : 0, j = part & 2 ? column : 0;
        s.m = part & 1 ? m - row : row;
        s.n = part & 2 ? n - column : column;
        s.a = (const char *)a + i * lda * size;
        /* k need not be a multiple of kg */
        s.b = (const char *)b + fv_packed_elems(g, j, k) * size;
        s.c = (char *)again + (i * ldc + j) * c_size;
        if (!s.m || !s.n)
            continue;
        if (s.bias)
            s.bias += j;
        if (s.scale)
            s.scale += j;
        if (s.gate)
            s.gate += i * ldg + j;
        if (s.residual)
            s.residual = in_place ? (const float *)s.c : s.residual + i * ldr + j;
        g->run(&s);
    }
    check_same(c, "c computed in parts", got, again, c_elems * c_size);
    check_done(c);
}

/* Not numbers: a NaN or an infinity in A or in a weight reaches exactly its row or column. */
static void check_nonfinite(fv_check *c, const fv_gemm_kernel *g, size_t k, fv_type c_type,
                            fv_act act)
{
    enum { M = 19, N = 37 };
    if (!check_case(c, "NaN and infinity, k=%zu c=%s%s", k, fv_type_name(c_type),
                    act ? " gelu" : ""))
        return;
    const size_t size = fv_type_size(g->type), c_size = fv_type_size(c_type);
    void *a = check_in(c, M * k * size, size), *w = check_in(c, N * k * size, size);
    void *b = check_in(c, fv_packed_elems(g, N, k) * size, 64),
         *got = check_out(c, M * N * c_size, c_size);
    for (size_t i = 0; i < M * k; i++) {
        size_t row = i / k, q = i % k;
        float x = row == 3 && q == k - 1 ? NAN
                  : row == 16 && q == 0  ? INFINITY
                  : row == 17 && q == 0  ? -INFINITY
                                         : 1;
        if (g->type == FV_TYPE_F32)
            ((float *)a)[i] = x;
        else
            ((uint16_t *)a)[i] = fv_f32_to_bf16(x);
    }
    for (size_t i = 0; i < N * k; i++) {
        float x = i / k == 33 && i % k == k / 2 ? NAN : 0.5f;
        if (g->type == FV_TYPE_F32)
            ((float *)w)[i] = x;
        else
            ((uint16_t *)w)[i] = fv_f32_to_bf16(x);
    }
    pack_weights(g, b, w, k, N, k);
    g->run(&(fv_gemm_args){ .m = M,
                            .n = N,
                            .k = k,
                            .a = a,
                            .lda = k,
                            .b = b,
                            .c = got,
                            .ldc = N,
                            .c_type = c_type,
                            .act = act });
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j < N; j++) {
            double y = i == 3 || j == 33 ? (double)NAN
                       : i == 16         ? (double)INFINITY
                       : i == 17         ? -(double)INFINITY
                                         : 0.5 * (double)k;
            /* -inf: 0 is right, NaN is what the formula says */
            if (act == FV_ACT_GELU && i == 17 && !isnan(y)) {
                double z = check_get(got, c_type, i * N + j);
                if (!isnan(z))
                    check_near(c, "c", i * N + j, 0, z, 1e-6);
                continue;
            }
            y = act ? gelu(y) : y;
            y = clamp_to(c_type, y);
            check_near(c, "c", i * N + j, y, check_get(got, c_type, i * N + j),
                       isfinite(y) ? stored_bound(c_type, y, 1e-6 * (fabs(y) + 1)) : 0);
        }
    }
    check_done(c);
}

static void check_products(fv_check *c, const char *name, const fv_gemm_kernel *g)
{
    if (!check_slot(c, name, true))
        return;
    static const fv_type c_types[3] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    const size_t kg = g->kg, mr = g->mr, nr = g->nr;
    unsigned e = 0;
    /* every m and n up to two tiles and one, with epilogues and types in turn */
    for (size_t m = 0; m <= 2 * mr + 1; m++) {
        for (size_t n = 0; n <= 2 * nr + 1; n += n + 2 < nr || n > nr + 1 ? 3 : 1) {
            size_t k = kg * (1 + check_below(c, 40));
            k = m % 7 == 3 ? kg : k;
            check_product(
                c, g, &(gemm_case){ m, n, k, e % EPILOGUES, c_types[e % 3], e % 4 ? e % 5 : 0, 1 });
            e++;
        }
    }
    /* every k up to a few steps; every epilogue in every type */
    for (size_t k = kg; k <= 40 * kg; k += kg)
        check_product(c, g, &(gemm_case){ mr + 1, nr + 1, k, 0, FV_TYPE_F32, 0, 1 });
    for (unsigned i = 0; i < EPILOGUES; i++)
        for (unsigned t = 0; t < 3; t++)
            check_product(c, g,
                          &(gemm_case){ 2 * mr + 3, nr + 5, 8 * kg, i, c_types[t], i % 3,
                                        i % 2 ? 4 : 0.25f });
    /* blocks of rows, pieces of k, rows that collide in a cache (4096 bytes apart), sums beyond
     * f16 */
    static const size_t large[][4] = { { 130, 70, 1600, 0 },   { 67, 96, 2600, 0 },
                                       { 45, 33, 4098, 0 },    { 30, 64, 1024, 0 },
                                       { 61, 32, 2048, 0 },    { 250, 40, 640, 0 },
                                       { 29, 48, 1000, 24 },   { 29, 48, 1000, 1048 },
                                       { 113, 32, 3074, 1022 } };
    for (size_t i = 0; i < FV_COUNT(large); i++)
        for (unsigned t = 0; t < 3; t++)
            check_product(c, g,
                          &(gemm_case){ large[i][0], large[i][1], large[i][2],
                                        t == 0   ? 0
                                        : t == 1 ? BIAS | SCALE | RESIDUAL | IN_PLACE
                                                 : BIAS | GELU,
                                        c_types[(t + i) % 3], large[i][3], t == 2 ? 0.05f : 1 });
    for (unsigned t = 0; t < 3; t++) {
        check_product(c, g, &(gemm_case){ mr + 2, nr + 3, 64 * kg, 0, c_types[t], 0, 4000 });
        check_product(
            c, g, &(gemm_case){ mr + 2, nr + 3, 64 * kg, BIAS | RESIDUAL, c_types[t], 1, 4000 });
        for (size_t k = kg; k <= 64 * kg; k += 9 * kg) {
            check_nonfinite(c, g, k, c_types[t], FV_ACT_NONE);
            check_nonfinite(c, g, k, c_types[t], FV_ACT_GELU);
        }
    }
}

/* ---- packing ----------------------------------------------------------------------------- */

static void check_packing(fv_check *c, const fv_gemm_kernel *g, fv_type from)
{
    char name[32];
    snprintf(name, sizeof name, "pack_%s_%s", g->type == FV_TYPE_F32 ? "f32" : "bf16",
             from == FV_TYPE_F32   ? "f32"
             : from == FV_TYPE_F16 ? "f16"
                                   : "bf16");
    if (!check_slot(c, name, true))
        return;
    const size_t size = fv_type_size(g->type), from_size = fv_type_size(from), nr = g->nr,
                 kg = g->kg;
    for (size_t n = 0; n <= 2 * nr + 1; n += n % nr < 3 || n % nr + 3 > nr ? 1 : 5) {
        for (size_t k = 0; k <= 67; k += k < 35 ? 1 : 16) {
            size_t extra = check_below(c, 2) * check_below(c, 9), ld = k + extra;
            if (!check_case(c, "n=%zu k=%zu rows +%zu", n, k, extra))
                continue;
            size_t in_elems = n ? (n - 1) * ld + k : 0, elems = fv_packed_elems(g, n, k),
                   groups = (k + kg - 1) / kg;
            void *w = check_in(c, in_elems * from_size, from_size),
                 *got = check_out(c, elems * size, 64);
            check_fill(c, w, from, in_elems, -3, 3);
            if (from == FV_TYPE_F16) /* any number: subnormals too */
                for (size_t i = 0; i < in_elems; i++)
                    if (((uint16_t *)w)[i] % 8 == 0)
                        ((uint16_t *)w)[i] &= 0x83ff;
            g->pack[from](got, w, ld, n, k);
            bool good = true;
            for (size_t at = 0; at < elems && good; at++) {
                size_t panel = at / (groups * nr * kg), in = at % (groups * nr * kg);
                size_t j = panel * nr + in % (nr * kg) / kg, q = in / (nr * kg) * kg + in % kg;
                float want = j < n && q < k ? (float)check_get(w, from, j * ld + q) : 0;
                if (g->type == FV_TYPE_F32) {
                    float x = ((float *)got)[at];
                    good = check_same(c, "packed value (by bytes)", &want, &x, 4);
                } else {
                    uint16_t bits = fv_f32_to_bf16(want);
                    good = check_same(c, "packed value (by bytes)", &bits, (uint16_t *)got + at, 2);
                }
                if (!good)
                    check_fail(c, "at %zu: column %zu, k %zu", at, j, q);
            }
            check_done(c);
        }
    }
}

/* ---- matrix times vector ----------------------------------------------------------------- */

static void check_vector_products(fv_check *c, fv_type type)
{
    static const char *const name[FV_TYPE_COUNT] = { "gemv_f32", "gemv_f16", "gemv_bf16" };
    fv_gemv_fn *fn = c->now->gemv[type];
    if (!check_slot(c, name[type], fn != c->below->gemv[type]))
        return;
    const size_t size = fv_type_size(type);
    for (size_t n = 0; n <= 19; n++) {
        for (size_t k = 0; k <= 400; k += k < 70 ? 1 + check_below(c, 3) : 33) {
            size_t extra = n % 3 ? n % 5 : 0, ld = k + extra;
            if (!check_case(c, "n=%zu k=%zu rows +%zu", n, k, extra))
                continue;
            size_t elems = n ? (n - 1) * ld + k : 0;
            void *w = check_in(c, elems * size, size);
            float *x = check_in(c, k * 4, 4), *bias = check_in(c, n * 4, 4),
                  *y = check_out(c, n * 4, 4);
            check_fill(c, w, type, elems, -2, 2);
            check_fill(c, x, FV_TYPE_F32, k, -3, 3);
            check_fill(c, bias, FV_TYPE_F32, n, -1, 1);
            bool with_bias = check_rand(c) % 2;
            fn(y, w, ld, x, with_bias ? bias : NULL, n, k);
            for (size_t j = 0; j < n; j++) {
                double sum = 0, magnitude = 0;
                for (size_t q = 0; q < k; q++) {
                    double t = check_get(w, type, j * ld + q) * x[q];
                    sum += t;
                    magnitude += fabs(t);
                }
                double bound = 2 * (double)k * EPS * magnitude;
                if (with_bias)
                    sum += bias[j];
                if (!check_near(c, "y", j, sum, y[j], bound + EPS * fabs(sum)))
                    break;
            }
            if (n > 1) { /* a row alone: the same bits */
                size_t j = check_below(c, n);
                float alone;
                fn(&alone, (char *)w + j * ld * size, ld, x, with_bias ? bias + j : NULL, 1, k);
                check_same(c, "y of a row alone", &y[j], &alone, 4);
            }
            check_done(c);
        }
    }
}

/* Each of m rows has the bits that the level's product of one row gives it. */
static void check_vectors_products(fv_check *c, fv_type type)
{
    static const char *const name[FV_TYPE_COUNT] = { "gemv_rows_f32", "gemv_rows_f16",
                                                     "gemv_rows_bf16" };
    fv_gemv_rows_fn *fn = c->now->gemv_rows[type];
    if (!check_slot(c, name[type],
                    fn != c->below->gemv_rows[type] || c->now->gemv[type] != c->below->gemv[type]))
        return;
    const size_t size = fv_type_size(type);
    for (size_t m = 1; m <= FV_GEMV_ROWS; m++) {
        for (size_t k = 0; k <= 2400; k += k < 70 ? 1 + check_below(c, 3) : k < 400 ? 33 : 371) {
            const size_t n = check_below(c, 12), ld = k + check_below(c, 3),
                         ldx = k + check_below(c, 3), ldy = n + check_below(c, 3);
            if (!check_case(c, "m=%zu n=%zu k=%zu ld=%zu ldx=%zu ldy=%zu", m, n, k, ld, ldx, ldy))
                continue;
            const size_t elems = n ? (n - 1) * ld + k : 0, x_elems = (m - 1) * ldx + k,
                         y_elems = (m - 1) * ldy + n;
            void *w = check_in(c, elems * size, size);
            float *x = check_in(c, x_elems * 4, 4), *bias = check_in(c, n * 4, 4);
            float *want = check_out(c, n * 4, 4), *got = check_out(c, y_elems * 4, 4);
            check_fill(c, w, type, elems, -2, 2);
            check_fill(c, x, FV_TYPE_F32, x_elems, -3, 3);
            check_fill(c, bias, FV_TYPE_F32, n, -1, 1);
            const float *add = check_rand(c) % 2 ? bias : NULL;
            fn(got, ldy, w, ld, x, ldx, add, m, n, k);
            for (size_t i = 0; i < m; i++) {
                c->now->gemv[type](want, w, ld, x + i * ldx, add, n, k);
                check_same(c, "row of y", want, got + i * ldy, n * 4);
            }
            check_gaps(c, "y", got, 4, m, n, ldy);
            check_done(c);
        }
    }
}

void check_gemm(fv_check *c)
{
    static const fv_type types[3] = { FV_TYPE_F32, FV_TYPE_F16, FV_TYPE_BF16 };
    const fv_kernels *now = c->now, *below = c->below;
    for (int i = 0; i < 3; i++)
        if (now->gemm_f32.pack[types[i]] != below->gemm_f32.pack[types[i]])
            check_packing(c, &now->gemm_f32, types[i]);
    for (int i = 0; i < 3; i++)
        if (now->gemm_bf16.pack[types[i]] &&
            now->gemm_bf16.pack[types[i]] != below->gemm_bf16.pack[types[i]])
            check_packing(c, &now->gemm_bf16, types[i]);
    if (now->gemm_f32.run != below->gemm_f32.run)
        check_products(c, "gemm_f32", &now->gemm_f32);
    if (now->gemm_bf16.run != below->gemm_bf16.run)
        check_products(c, "gemm_bf16", &now->gemm_bf16);
    for (int i = 0; i < 3; i++)
        check_vector_products(c, types[i]);
    for (int i = 0; i < 3; i++)
        check_vectors_products(c, types[i]);
}

/* ---- timing ------------------------------------------------------------------------------ */

typedef struct gemm_run {
    const fv_gemm_kernel *g;
    fv_gemm_args args;
} gemm_run;

static void run_gemm(void *user)
{
    gemm_run *r = user;
    r->g->run(&r->args);
}

enum { PACK_STEP = 128 };

typedef struct pack_run {
    fv_pack_fn *fn;
    void *dst;
    const char *w;
    size_t n, k, size;
} pack_run;

static void run_pack(void *user)
{
    pack_run *r = user;
    /* into the same place, as done for weights that are used once */
    for (size_t j = 0; j < r->n; j += PACK_STEP)
        r->fn(r->dst, r->w + j * r->k * r->size, r->k, PACK_STEP, r->k);
}

typedef struct gemv_run {
    fv_gemv_fn *fn;
    float *y;
    const void *w;
    const float *x;
    size_t n, k;
} gemv_run;

static void run_gemv(void *user)
{
    gemv_run *r = user;
    r->fn(r->y, r->w, r->k, r->x, NULL, r->n, r->k);
}

typedef struct gemv_rows_run {
    fv_gemv_rows_fn *fn;
    float *y;
    const void *w;
    const float *x;
    size_t m, n, k;
} gemv_rows_run;

static void run_gemv_rows(void *user)
{
    gemv_rows_run *r = user;
    r->fn(r->y, r->n, r->w, r->k, r->x, r->k, NULL, r->m, r->n, r->k);
}

/* Plain, then with the epilogues that the model uses: bias + GELU to 16 bits or f32 when n > k,
 * else bias + scale + residual. */
static void bench_products(fv_check *c, const char *name, const fv_gemm_kernel *g,
                           const fv_gemm_kernel *ref)
{
    bench_shape shape[64];
    size_t n_shapes = bench_shapes(c, "gemm", shape, FV_COUNT(shape));
    if (!check_slot(c, name, true))
        return;
    for (size_t i = 0; i < n_shapes; i++) {
        size_t m = FV_MIN(shape[i].v[0], (size_t)8192), n = shape[i].v[1], k = shape[i].v[2];
        void *a = bench_buffer(c, g->type, m * k), *w = bench_buffer(c, g->type, n * k);
        void *b = bench_buffer(c, g->type, fv_packed_elems(g, n, k)),
             *out = bench_buffer(c, FV_TYPE_F32, m * n);
        float *vec = bench_buffer(c, FV_TYPE_F32, n);
        g->pack[g->type](b, w, k, n, k);
        gemm_run r = { g,
                       { .m = m, .n = n, .k = k, .a = a, .lda = k, .b = b, .c = out, .ldc = n } },
                 slow = r;
        slow.g = ref; /* it reads other panels from the same memory: garbage, but as fast */
        slow.args.m = 1;
        slow.args.n = FV_MIN(n, (size_t)64);
        char label[112];
        double flops = 2.0 * (double)m * (double)n * (double)k;
        snprintf(label, sizeof label, "%.40s %zux%zux%zu", shape[i].label, m, n, k);
        bench_report(c, label, "GFLOP/s", run_gemm, &r, flops, g == ref ? NULL : run_gemm, &slow,
                     2.0 * (double)slow.args.n * (double)k);
        r.args.bias = vec;
        if (n > k) {
            r.args.act = FV_ACT_GELU;
            r.args.c_type = g->type;
        } else {
            r.args.scale = vec;
            r.args.residual = out;
            r.args.ldr = n;
        }
        bench_report(c, n > k ? "  + bias, gelu" : "  + bias, scale, residual", "GFLOP/s", run_gemm,
                     &r, flops, NULL, NULL, 1);
        bench_free(a), bench_free(w), bench_free(b), bench_free(out), bench_free(vec);
    }
}

static void bench_packing(fv_check *c, const char *name, const fv_gemm_kernel *g)
{
    static const fv_type types[3] = { FV_TYPE_F32, FV_TYPE_F16, FV_TYPE_BF16 };
    if (!check_slot(c, name, true))
        return;
    static const size_t shape[3][2] = { { 65536, 896 }, { 8192, 4864 }, { PACK_STEP, 896 } };
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < 3; i++) {
            size_t n = shape[i][0], k = shape[i][1], size = fv_type_size(types[t]);
            void *w = bench_buffer(c, types[t], n * k),
                 *dst = bench_buffer(c, g->type, PACK_STEP * k);
            pack_run r = { g->pack[types[t]], dst, w, n, k, size };
            char label[112];
            snprintf(label, sizeof label, "from %s, 128 of %zux%zu", fv_type_name(types[t]), n, k);
            bench_report(c, label, "GB/s read", run_pack, &r, (double)(n * k * size), NULL, NULL,
                         1);
            bench_free(w), bench_free(dst);
        }
    }
}

void bench_gemm(fv_check *c)
{
    static const fv_type types[3] = { FV_TYPE_F32, FV_TYPE_F16, FV_TYPE_BF16 };
    static const char *const name[FV_TYPE_COUNT] = { "gemv_f32", "gemv_f16", "gemv_bf16" };
    const fv_kernels *now = c->now, *below = c->below;
    if (now->gemm_f32.run != below->gemm_f32.run && now != c->ref && strcmp(c->level, "ref")) {
        bench_packing(c, "pack_f32", &now->gemm_f32);
        bench_products(c, "gemm_f32", &now->gemm_f32, &c->ref->gemm_f32);
    }
    if (now->gemm_bf16.run != below->gemm_bf16.run && strcmp(c->level, "ref")) {
        bench_packing(c, "pack_bf16", &now->gemm_bf16);
        bench_products(c, "gemm_bf16", &now->gemm_bf16, &c->ref->gemm_bf16);
    }
    bench_shape shape[16];
    for (int t = 0; t < 3; t++) {
        fv_gemv_fn *fn = now->gemv[types[t]];
        if (fn == below->gemv[types[t]] || !strcmp(c->level, "ref") ||
            !check_slot(c, name[types[t]], true))
            continue;
        size_t n_shapes = bench_shapes(c, "gemv", shape, FV_COUNT(shape));
        for (size_t i = 0; i < n_shapes; i++) {
            size_t n = shape[i].v[0], k = shape[i].v[1];
            void *w = bench_buffer(c, types[t], n * k);
            float *x = bench_buffer(c, FV_TYPE_F32, FV_GEMV_ROWS * k),
                  *y = bench_buffer(c, FV_TYPE_F32, FV_GEMV_ROWS * n);
            gemv_run r = { fn, y, w, x, n, k },
                     slow = { c->ref->gemv[types[t]], y, w, x, FV_MIN(n, (size_t)64), k };
            char label[112];
            snprintf(label, sizeof label, "%.40s %zux%zu", shape[i].label, n, k);
            double bytes = (double)fv_type_size(types[t]) * (double)k;
            bench_report(c, label, "GB/s", run_gemv, &r, bytes * (double)n, run_gemv, &slow,
                         bytes * (double)slow.n);
            gemv_rows_run rows = { now->gemv_rows[types[t]], y, w, x, 2, n, k };
            for (; rows.m <= FV_GEMV_ROWS; rows.m += 2) {
                snprintf(label, sizeof label, "%.40s %zux%zu, %zu rows", shape[i].label, n, k,
                         rows.m);
                bench_report(c, label, "GB/s", run_gemv_rows, &rows, bytes * (double)n, NULL, NULL,
                             1);
            }
            bench_free(w), bench_free(x), bench_free(y);
        }
    }
}
