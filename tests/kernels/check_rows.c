/* Norms, conversions and elementwise operations. Conversions, add, colsum and argmax have one right
 * answer; the others are held against double precision. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "base/half.h"
#include "check.h"

static const fv_type out_types[] = { FV_TYPE_F32, FV_TYPE_F16, FV_TYPE_BF16 };
static const float odd_values[] = { NAN,        -NAN,        INFINITY,    -INFINITY,      0.0f,
                                    -0.0f,      1e-40f,      -1e-40f,     65503.9f,       65504.0f,
                                    65519.9f,   65520.0f,    -65520.0f,   1e30f,          3.4e38f,
                                    -3.4e38f,   5.96e-8f,    2.98e-8f,    2.9802322e-8f,  6.1e-5f,
                                    6.0976e-5f, 1.00390625f, 1.01171875f, 0x1.fffffep127f };

/* ---- norms ------------------------------------------------------------------------------- */

typedef struct norm_case {
    float *src, *weight, *bias;
    size_t m, n, src_ld, dst_ld; /* n: width of a row */
    fv_type type;
    float eps;
} norm_case;

static void run_norm(fv_check *c, const norm_case *t, bool layer, size_t first, size_t m,
                     uint8_t *dst)
{
    const float *src = t->src + first * t->src_ld;
    dst += first * t->dst_ld * fv_type_size(t->type);
    if (layer)
        c->now->layernorm(dst, t->type, t->dst_ld, src, t->src_ld, t->weight, t->bias, m, t->n,
                          t->eps);
    else
        c->now->rmsnorm(dst, t->type, t->dst_ld, src, t->src_ld, t->weight, m, t->n, t->eps);
}

static void judge_norm(fv_check *c, const norm_case *t, bool layer, const uint8_t *dst)
{
    for (size_t i = 0; i < t->m; i++) {
        const float *x = t->src + i * t->src_ld;
        double mean = 0, var = 0;
        for (size_t j = 0; layer && j < t->n; j++)
            mean += x[j] / (double)t->n;
        for (size_t j = 0; j < t->n; j++)
            var += (x[j] - mean) * (x[j] - mean) / (double)t->n;
        for (size_t j = 0; j < t->n; j++) {
            double y = (x[j] - mean) / sqrt(var + t->eps) * t->weight[j];
            double bound = 1e-5 * fabs(t->weight[j]) + 1e-6 * fabs(y) + (double)t->eps * 1e-2;
            y += layer ? t->bias[j] : 0;
            if (t->type == FV_TYPE_F16 && fabs(y) > 65504)
                y = copysign(65504, y);
            check_near(c, "y", i * t->n + j, y, check_get(dst, t->type, i * t->dst_ld + j),
                       bound + check_half_ulp(t->type, fabs(y) + bound));
        }
    }
}

static void check_norm(fv_check *c, bool layer)
{
    for (size_t n = 1; n <= 1537; n += n < 67 ? 1 : n < 200 ? 31 : 447) {
        for (size_t m = 0; m <= 5; m += m < 1 ? 1 : 4) {
            if (!check_case(c, "m=%zu c=%zu", m, n))
                continue;
            norm_case t = { .m = m,
                            .n = n,
                            .src_ld = n + check_below(c, 3) * 5,
                            .dst_ld = n + check_below(c, 3) * 3,
                            .type = out_types[check_below(c, 3)],
                            .eps = check_below(c, 2) ? 1e-5f : 1e-6f };
            size_t n_src = m ? (m - 1) * t.src_ld + n : 0, n_dst = m ? (m - 1) * t.dst_ld + n : 0;
            size_t elem = fv_type_size(t.type);
            float offset = check_below(c, 2) ? 0 : 20;
            t.src = check_in(c, n_src * sizeof *t.src, sizeof *t.src);
            t.weight = check_in(c, n * sizeof *t.weight, sizeof *t.weight);
            t.bias = check_in(c, n * sizeof *t.bias, sizeof *t.bias);
            check_fill(c, t.src, FV_TYPE_F32, n_src, offset - 3, offset + 3);
            check_fill(c, t.weight, FV_TYPE_F32, n, -2, 2);
            check_fill(c, t.bias, FV_TYPE_F32, n, -2, 2);
            /* var = 0 puts rounding over eps */
            if (layer && (c->mode == CHECK_MIN || c->mode == CHECK_MAX)) {
                for (size_t i = 0; i < n_src; i++)
                    t.src[i] = offset;
            }
            uint8_t *dst = check_out(c, n_dst * elem, elem),
                    *part = check_out(c, n_dst * elem, elem);
            run_norm(c, &t, layer, 0, m, dst);
            judge_norm(c, &t, layer, dst);
            check_gaps(c, "y", dst, elem, m, n, t.dst_ld);
            for (size_t i = 0; i < m; i++)
                run_norm(c, &t, layer, i, 1, part);
            check_same(c, "rows apart", dst, part, n_dst * elem);
            check_done(c);
        }
    }
}

/* ---- conversions ------------------------------------------------------------------------- */

static void check_convert(fv_check *c, fv_type to, fv_type from)
{
    size_t in = fv_type_size(from), out = fv_type_size(to);
    for (size_t n = 0; n <= 70; n++) {
        if (!check_case(c, "n=%zu", n))
            continue;
        size_t count = n < 70 ? n : 65536;
        uint8_t *src = check_in(c, count * in, in);
        uint8_t *want = check_out(c, count * out, out), *got = check_out(c, count * out, out);
        for (size_t i = 0; i < count; i++) {
            /* all 16-bit patterns at the end */
            uint64_t bits = n < 70 ? check_rand(c) : i | check_rand(c) << 16;
            uint32_t u = (uint32_t)bits;
            uint16_t h = (uint16_t)bits;
            if (in == 4 && check_below(c, 4) == 0)
                u = fv_bits_of_f32(odd_values[check_below(c, FV_COUNT(odd_values))]);
            else if (in == 4 && check_below(c, 2)) /* exponents that f16 has */
                u = (u & 0x807fffffu) | (uint32_t)(127 - 26 + check_below(c, 44)) << 23;
            if (in == 4)
                memcpy(src + i * 4, &u, 4);
            else
                memcpy(src + i * 2, &h, 2);
        }
        c->ref->convert[to][from](want, src, count);
        c->now->convert[to][from](got, src, count);
        for (size_t i = 0; i < count; i++) { /* which NaN does not matter */
            double w = check_get(want, to, i), g = check_get(got, to, i);
            if ((isnan(w) && isnan(g)) || !memcmp(want + i * out, got + i * out, out))
                continue;
            check_fail(c, "value %zu: want %.9g, got %.9g", i, w, g);
        }
        check_done(c);
    }
}

/* ---- elementwise ------------------------------------------------------------------------- */

static double gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }
static double silu(double x) { return x / (1 + exp(-x)); }

static float odd_or(fv_check *c, float x)
{
    return check_below(c, 20) ? x : odd_values[check_below(c, FV_COUNT(odd_values))];
}

static void check_swiglu(fv_check *c)
{
    for (size_t n = 0; n <= 70; n++) {
        if (!check_case(c, "n=%zu", n))
            continue;
        float *gate = check_in(c, n * sizeof *gate, sizeof *gate),
              *up = check_in(c, n * sizeof *up, sizeof *up);
        float *y = check_out(c, n * sizeof *y, sizeof *y);
        float range = check_below(c, 2) ? 4.0f : 200.0f;
        check_fill(c, gate, FV_TYPE_F32, n, -range, range);
        check_fill(c, up, FV_TYPE_F32, n, -4, 4);
        for (size_t i = 0; i < n; i++)
            gate[i] = odd_or(c, gate[i]);
        c->now->swiglu(y, gate, up, n);
        for (size_t i = 0; i < n; i++) {
            double s = gate[i] == -INFINITY ? NAN : silu(gate[i]), want = s * up[i];
            if (isinf(want) || isnan(want) || fabs(want) > 3.4e38) {
                if (isnan(want) && !isnan(y[i]) && gate[i] != -INFINITY)
                    check_near(c, "y", i, want, y[i], 0);
                continue;
            }
            check_near(c, "y", i, want, y[i], 3e-7 * fmax(1, fabs(s)) * fabs(up[i]) + 1e-45);
        }
        check_done(c);
    }
}

static void check_scale_gelu(fv_check *c)
{
    for (size_t n = 1; n <= 70; n++) {
        size_t m = n % 4;
        if (!check_case(c, "m=%zu c=%zu", m, n))
            continue;
        size_t ldx = n + check_below(c, 3), ldy = n + check_below(c, 3);
        size_t nx = m ? (m - 1) * ldx + n : 0, ny = m ? (m - 1) * ldy + n : 0;
        float *x = check_in(c, nx * sizeof *x, sizeof *x),
              *scale = check_in(c, n * sizeof *scale, sizeof *scale);
        float *y = check_out(c, ny * sizeof *y, sizeof *y);
        float range = check_below(c, 2) ? 2.0f : 8.0f;
        check_fill(c, x, FV_TYPE_F32, nx, -range, range);
        check_fill(c, scale, FV_TYPE_F32, n, 0.5, 1.5);
        for (size_t i = 0; i < nx; i++)
            x[i] = odd_or(c, x[i]);
        c->now->scale_gelu(y, ldy, x, ldx, scale, m, n);
        for (size_t i = 0; i < m; i++) {
            for (size_t j = 0; j < n; j++) {
                float t = x[i * ldx + j] * scale[j];
                double want = gelu(t);
                if (t == -INFINITY)
                    continue; /* -0 or NaN, as a version likes */
                check_near(c, "y", i * n + j, want, y[i * ldy + j], 1.5e-7 * fmax(1, fabs(want)));
            }
        }
        check_gaps(c, "y", y, sizeof *y, m, n, ldy);
        check_done(c);
    }
}

static void check_add(fv_check *c)
{
    for (size_t n = 0; n <= 70; n++) {
        if (!check_case(c, "n=%zu", n))
            continue;
        float *x = check_in(c, n * sizeof *x, sizeof *x);
        float *y = check_out(c, n * sizeof *y, sizeof *y),
              *want = check_out(c, n * sizeof *y, sizeof *y);
        check_fill(c, x, FV_TYPE_F32, n, -4, 4);
        check_fill(c, y, FV_TYPE_F32, n, -4, 4);
        for (size_t i = 0; i < n; i++)
            want[i] = y[i] + x[i];
        c->now->add(y, x, n);
        check_same(c, "y", want, y, n * sizeof *y);
        check_done(c);
    }
}

static void check_colsum(fv_check *c)
{
    for (size_t n = 1; n <= 140; n++) {
        size_t m = n % 5;
        if (!check_case(c, "m=%zu c=%zu", m, n))
            continue;
        size_t ld = n + check_below(c, 3), nx = m ? (m - 1) * ld + n : 0;
        float *x = check_in(c, nx * sizeof *x, sizeof *x);
        float *sum = check_out(c, n * sizeof *sum, sizeof *sum),
              *want = check_out(c, n * sizeof *sum, sizeof *sum);
        check_fill(c, x, FV_TYPE_F32, nx, -4, 4);
        check_fill(c, sum, FV_TYPE_F32, n, -4, 4);
        for (size_t j = 0; j < n; j++) {
            want[j] = sum[j];
            for (size_t i = 0; i < m; i++)
                want[j] += x[i * ld + j];
        }
        c->now->colsum(sum, x, ld, m, n);
        check_same(c, "sum", want, sum, n * sizeof *sum);
        check_done(c);
    }
}

static void check_argmax(fv_check *c)
{
    for (size_t n = 1; n <= 200; n++) {
        if (!check_case(c, "n=%zu", n))
            continue;
        float *x = check_in(c, n * sizeof *x, sizeof *x);
        check_fill(c, x, FV_TYPE_F32, n, -4, 4);
        uint64_t kind = check_rand(c) % 8;
        for (size_t i = 0; i < n; i++) {
            if (kind == 0 || (kind < 3 && check_below(c, 3) == 0))
                x[i] = NAN;
            else if (kind == 3 || (kind == 4 && check_below(c, 3)))
                x[i] = -INFINITY;
            else if (kind == 5)
                x[i] = truncf(x[i]); /* ties */
            else if (kind == 6 && check_below(c, n) == 0)
                x[i] = INFINITY;
        }
        size_t want = c->ref->argmax(x, n), got = c->now->argmax(x, n);
        if (want != got)
            check_fail(c, "want %zu (%g), got %zu (%g)", want, x[want], got,
                       got < n ? x[got] : 0.0f);
        check_done(c);
    }
}

void check_rows(fv_check *c)
{
    static const struct {
        const char *name;
        fv_type to, from;
    } pairs[] = {
        { "convert_f32_f16", FV_TYPE_F32, FV_TYPE_F16 },
        { "convert_f32_bf16", FV_TYPE_F32, FV_TYPE_BF16 },
        { "convert_f16_f32", FV_TYPE_F16, FV_TYPE_F32 },
        { "convert_f16_bf16", FV_TYPE_F16, FV_TYPE_BF16 },
        { "convert_bf16_f32", FV_TYPE_BF16, FV_TYPE_F32 },
        { "convert_bf16_f16", FV_TYPE_BF16, FV_TYPE_F16 },
        { "convert_f32_f32", FV_TYPE_F32, FV_TYPE_F32 },
        { "convert_f16_f16", FV_TYPE_F16, FV_TYPE_F16 },
        { "convert_bf16_bf16", FV_TYPE_BF16, FV_TYPE_BF16 },
    };
    const fv_kernels *now = c->now, *below = c->below;
    if (check_slot(c, "layernorm", now->layernorm != below->layernorm))
        check_norm(c, true);
    if (check_slot(c, "rmsnorm", now->rmsnorm != below->rmsnorm))
        check_norm(c, false);
    for (size_t i = 0; i < FV_COUNT(pairs); i++) {
        fv_type to = pairs[i].to, from = pairs[i].from;
        if (check_slot(c, pairs[i].name, now->convert[to][from] != below->convert[to][from]))
            check_convert(c, to, from);
    }
    if (check_slot(c, "swiglu", now->swiglu != below->swiglu))
        check_swiglu(c);
    if (check_slot(c, "add", now->add != below->add))
        check_add(c);
    if (check_slot(c, "colsum", now->colsum != below->colsum))
        check_colsum(c);
    if (check_slot(c, "scale_gelu", now->scale_gelu != below->scale_gelu))
        check_scale_gelu(c);
    if (check_slot(c, "argmax", now->argmax != below->argmax))
        check_argmax(c);
}

/* ---- timing: rows that stay in cache ----------------------------------------------------- */

enum { BENCH_M = 64, BENCH_C = 768 };

typedef struct rows_bench {
    const fv_kernels *k;
    fv_type to, from;
    float *x, *y, *w;
    size_t m, c;
} rows_bench;

static void run_layernorm(void *user)
{
    rows_bench *b = user;
    b->k->layernorm(b->y, b->to, b->c, b->x, b->c, b->w, b->w, b->m, b->c, 1e-5f);
}
static void run_rmsnorm(void *user)
{
    rows_bench *b = user;
    b->k->rmsnorm(b->y, b->to, b->c, b->x, b->c, b->w, b->m, b->c, 1e-5f);
}
static void run_convert(void *user)
{
    rows_bench *b = user;
    b->k->convert[b->to][b->from](b->y, b->x, b->m * b->c);
}
static void run_swiglu(void *user)
{
    rows_bench *b = user;
    b->k->swiglu(b->y, b->x, b->x, b->m * b->c);
}
static void run_add(void *user)
{
    rows_bench *b = user;
    b->k->add(b->y, b->x, b->m * b->c);
}
static void run_colsum(void *user)
{
    rows_bench *b = user;
    b->k->colsum(b->y, b->x, b->c, b->m, b->c);
}
static void run_scale_gelu(void *user)
{
    rows_bench *b = user;
    b->k->scale_gelu(b->y, b->c, b->x, b->c, b->w, b->m, b->c);
}
static void run_argmax(void *user)
{
    rows_bench *b = user;
    ((volatile float *)b->y)[0] = (float)b->k->argmax(b->x, b->m * b->c);
}

static void bench_one(fv_check *c, rows_bench b, const char *name, bench_fn *fn, bool changed,
                      const char *shape, size_t bytes)
{
    if (!check_slot(c, name, changed))
        return;
    rows_bench now = b, ref = b;
    now.k = c->now;
    ref.k = c->ref;
    double work = (double)(b.m * b.c * bytes);
    bench_report(c, shape, "GB/s", fn, &now, work, strcmp(c->level, "ref") ? fn : NULL, &ref, work);
}

/* GB/s counts what is read and written once. */
void bench_rows(fv_check *c)
{
    const fv_kernels *now = c->now, *below = c->below;
    rows_bench b = { .m = BENCH_M,
                     .c = BENCH_C,
                     .x = bench_buffer(c, FV_TYPE_F32, 151936),
                     .y = bench_buffer(c, FV_TYPE_F32, 151936),
                     .w = bench_buffer(c, FV_TYPE_F32, BENCH_C) };
    memset(b.y, 0, 151936 * sizeof *b.y);
#define CHANGED(slot) now->slot != below->slot
    bench_one(c, b, "layernorm", run_layernorm, CHANGED(layernorm), "64x768 f32", 8);
    bench_one(c, b, "rmsnorm", run_rmsnorm, CHANGED(rmsnorm), "64x768 f32", 8);
    b.to = FV_TYPE_BF16;
    bench_one(c, b, "rmsnorm", run_rmsnorm, CHANGED(rmsnorm), "64x768 bf16", 6);
    bench_one(c, b, "convert_bf16_f32", run_convert, CHANGED(convert[FV_TYPE_BF16][FV_TYPE_F32]),
              "49152", 6);
    b.to = FV_TYPE_F16;
    bench_one(c, b, "convert_f16_f32", run_convert, CHANGED(convert[FV_TYPE_F16][FV_TYPE_F32]),
              "49152", 6);
    b.to = FV_TYPE_F32;
    b.from = FV_TYPE_F16;
    bench_one(c, b, "convert_f32_f16", run_convert, CHANGED(convert[FV_TYPE_F32][FV_TYPE_F16]),
              "49152", 6);
    b.from = FV_TYPE_BF16;
    bench_one(c, b, "convert_f32_bf16", run_convert, CHANGED(convert[FV_TYPE_F32][FV_TYPE_BF16]),
              "49152", 6);
    bench_one(c, b, "swiglu", run_swiglu, CHANGED(swiglu), "49152", 12);
    bench_one(c, b, "scale_gelu", run_scale_gelu, CHANGED(scale_gelu), "64x768", 8);
    bench_one(c, b, "colsum", run_colsum, CHANGED(colsum), "64x768", 4);
    memset(b.x, 0, 151936 * sizeof *b.x);
    bench_one(c, b, "add", run_add, CHANGED(add), "49152", 12);
    b.x[151935] = 1;
    b.m = 1;
    b.c = 151936;
    bench_one(c, b, "argmax", run_argmax, CHANGED(argmax), "151936, largest last", 4);
#undef CHANGED
    bench_free(b.x);
    bench_free(b.y);
    bench_free(b.w);
}
