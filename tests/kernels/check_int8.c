/* Checks and timings of the 8-bit vision kernels: exact at every level, but for GELU. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "base/half.h"

static double gelu(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }

static uint8_t to_u8(double x, int zero)
{
    if (isnan(x))
        return 0;
    double q = nearbyint(x) + zero;
    return (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q);
}

static uint16_t to_u16(double x, int zero)
{
    if (isnan(x))
        return 0;
    double q = nearbyint(x) + 256 * zero;
    return (uint16_t)(q < 0 ? 0 : q > 65535 ? 65535 : q);
}

static float clamped(double x, int zero) { return (float)fmin(fmax(x + zero, 0), 255); }

/* Bytes of the whole range, signed ones when low is -128. */
static void fill_bytes(fv_check *c, void *p, size_t n, int low)
{
    for (size_t i = 0; i < n; i++) {
        int v = (int)check_below(c, 256);
        switch (c->mode) {
        case CHECK_MIN: v = 0; break;
        case CHECK_MAX: v = 255; break;
        case CHECK_ALTERNATE: v = i % 2 ? 255 : 0; break;
        case CHECK_SPARSE: v = check_below(c, 4) ? -low : v; break;
        default: break;
        }
        ((uint8_t *)p)[i] = (uint8_t)(v + low);
    }
}

static float *fill_floats(fv_check *c, size_t n, float lo, float hi)
{
    float *p = check_in(c, n * sizeof *p, sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = check_uniform(c, lo, hi);
    return p;
}

/* ---- floats to bytes --------------------------------------------------------------------- */

/* To u8, or to 16 bits in two bytes. */
static void check_quantize(fv_check *c, bool sixteen)
{
    for (size_t n = 0; n <= 133; n += n < 40 ? 1 : 3) {
        for (size_t m = 0; m <= 3; m++) {
            if (!check_case(c, "m=%zu c=%zu", m, n))
                continue;
            size_t src_ld = n + check_below(c, 5), dst_ld = n + check_below(c, 5);
            size_t n_src = m ? (m - 1) * src_ld + n : 0, n_dst = m ? (m - 1) * dst_ld + n : 0;
            float *src = check_in(c, n_src * 4, 4), *inv = check_in(c, n * 4, 4);
            uint8_t *dst = check_out(c, n_dst, 1), *low = check_out(c, sixteen ? n_dst : 0, 1);
            int zero = (int)check_below(c, 256);
            check_fill(c, src, FV_TYPE_F32, n_src, -3, 3);
            for (size_t i = 0; i < n; i++)
                inv[i] = (check_below(c, 2) ? 0.5f : check_uniform(c, 0, 100)) *
                         (sixteen && check_below(c, 2) ? 0x1p-8f : 1);
            static const float odd[] = { NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 3e9f, -3e9f };
            for (size_t i = 0; i < n_src; i++) {
                size_t r = check_below(c, 24);
                if (r < 8) /* halves: ties */
                    src[i] = (float)check_below(c, 601) - 300;
                else if (r < 8 + FV_COUNT(odd))
                    src[i] = odd[r - 8];
            }
            if (sixteen)
                c->now->quantize_u16(dst, low, dst_ld, src, src_ld, inv, zero, m, n);
            else
                c->now->quantize_u8(dst, dst_ld, src, src_ld, inv, zero, m, n);
            for (size_t i = 0; i < m; i++) {
                for (size_t j = 0; j < n; j++) {
                    const float x = src[i * src_ld + j];
                    const double want = sixteen ? to_u16(x * (inv[j] * 256), zero)
                                                : to_u8(x * inv[j], zero);
                    const size_t at = i * dst_ld + j;
                    const double got = sixteen ? dst[at] * 256 + low[at] : dst[at];
                    if (!check_near(c, "q", i * n + j, want, got, 0))
                        i = m - 1, j = n;
                }
            }
            check_gaps(c, "q", dst, 1, m, n, dst_ld);
            if (sixteen)
                check_gaps(c, "low", low, 1, m, n, dst_ld);
            check_done(c);
        }
    }
}

/* ---- matrix products --------------------------------------------------------------------- */

enum { GELU = 1, SCALE = 2, RESIDUAL = 4, IN_PLACE = 8, LOW = 16, ROW = 32, EPILOGUES = 64 };

typedef struct product {
    size_t m, n, k;
    unsigned epilogue;
    fv_type c_type;
    size_t extra; /* elements between rows of everything */
    bool sixteen; /* rows of 16 bits */
} product;

/* An output is right when it is what the steps of the contract give, with GELU when it is within
 * bound. */
static bool check_output(fv_check *c, const fv_gemm_u8_args *g, size_t i, size_t j, int32_t s,
                         const float *residual, size_t ldr, const void *got)
{
    const size_t sum_at = i * g->ldc + j;
    if (g->c_type == FV_TYPE_I32)
        return check_near(c, "c", sum_at, s, ((const int32_t *)got)[sum_at], 0);
    const int32_t low = g->low ? g->low[i * g->ldl + j] : 0;
    float y = (float)(s + (low >> 8)) + (float)(low & 255) / 256; /* a product that is exact */
    y *= g->mul[j];
    if (g->row)
        y *= g->row[i];
    if (g->add)
        y += g->add[j];
    double exact = y, bound = 0;
    if (g->act) {
        exact = gelu(y);
        bound = g->c_type == FV_TYPE_U8 ? 3e-4 : 1e-6 * fmax(1, fabs(exact));
    }
    if (g->scale) {
        y *= g->scale[j];
        exact *= g->scale[j];
        bound = (bound + 0x1p-23 * fabs(exact)) * fabs(g->scale[j]);
    }
    if (residual) {
        y += residual[i * ldr + j];
        exact += residual[i * ldr + j];
        bound += 0x1p-23 * (fabs(exact) + fabs(residual[i * ldr + j]));
    }
    size_t at = i * g->ldc + j;
    if (g->c_type == FV_TYPE_U8) {
        uint8_t q = ((const uint8_t *)got)[at];
        if (!g->act && !g->scale && !residual)
            y = (float)s * (g->mul[j] * g->inv[j]);
        else
            y *= g->inv[j];
        if (!g->act)
            return check_near(c, "c", at, to_u8(y, g->zero), q, 0);
        bound = bound * g->inv[j] + 1e-4 + 0.5;
        return check_near(c, "c", at, clamped(exact * g->inv[j], g->zero), q, bound);
    }
    if (g->act) {
        bound += 2 * check_half_ulp(g->c_type, fabs(exact) + bound);
        return check_near(c, "c", at, exact, check_get(got, g->c_type, at), bound);
    }
    double want = g->c_type == FV_TYPE_F16    ? fv_f16_to_f32(fv_f32_to_f16_sat(y))
                  : g->c_type == FV_TYPE_BF16 ? fv_bf16_to_f32(fv_f32_to_bf16(y))
                                              : y;
    return check_near(c, "c", at, want, check_get(got, g->c_type, at), 0);
}

/* Rows of 16 bits, when they have low bytes: in one call or in two by way of low [m, g->ldl]. */
static void product_run(const fv_gemm_u8_kernel *kernel, const fv_gemm_u8_args *g, int32_t *low)
{
    fv_gemm_u8_args args = *g;
    if (!g->a_low) {
        kernel->run(g);
    } else if (kernel->run16) {
        kernel->run16(g);
    } else {
        args.low = low;
        kernel->run(&(fv_gemm_u8_args){ .m = g->m,
                                        .n = g->n,
                                        .k = g->k,
                                        .a = g->a_low,
                                        .lda = g->lda,
                                        .b = g->b,
                                        .c = low,
                                        .ldc = g->ldl,
                                        .c_type = FV_TYPE_I32 });
        kernel->run(&args);
    }
}

static void check_product(fv_check *c, const fv_gemm_u8_kernel *g, const product *p)
{
    const bool sums = p->c_type == FV_TYPE_I32, sixteen = p->sixteen,
               two = !sums && !sixteen && p->c_type != FV_TYPE_U8 && p->epilogue & LOW;
    const bool row_scales = !sums && p->c_type != FV_TYPE_U8 && p->epilogue & ROW;
    if (!check_case(c, "m=%zu n=%zu k=%zu%s c=%s%s%s%s%s%s%s rows +%zu", p->m, p->n, p->k,
                    sixteen ? " 16 bits" : "", fv_type_name(p->c_type), two ? " low" : "",
                    row_scales ? " row" : "", p->epilogue & GELU ? " gelu" : "",
                    p->epilogue & SCALE ? " scale" : "", p->epilogue & RESIDUAL ? " residual" : "",
                    p->epilogue & IN_PLACE ? " in place" : "", p->extra))
        return;
    const size_t m = p->m, n = p->n, k = p->k, c_size = fv_type_size(p->c_type);
    const size_t lda = k + p->extra, ldc = n + p->extra, ldr = n + 3 * p->extra;
    const bool in_place = (p->epilogue & IN_PLACE) && (p->epilogue & RESIDUAL) &&
                          p->c_type == FV_TYPE_F32;
    const size_t a_bytes = m ? (m - 1) * lda + k : 0, c_elems = m ? (m - 1) * ldc + n : 0;
    const size_t r_elems = m ? (m - 1) * ldr + n : 0;
    uint8_t *a = check_in(c, a_bytes, 1);
    int8_t *w = check_in(c, n * k, 1);
    void *b = check_out(c, fv_packed_u8_bytes(g, n, k), 64);
    uint8_t *a_low = check_in(c, sixteen ? a_bytes : 0, 1);
    int32_t *bias = check_in(c, n * 4, 4), *low = check_in(c, two || sixteen ? r_elems * 4 : 0, 4);
    fill_bytes(c, a, a_bytes, 0);
    fill_bytes(c, a_low, sixteen ? a_bytes : 0, 0);
    fill_bytes(c, w, n * k, -128);
    if (c->mode == CHECK_MAX && check_below(c, 2)) /* the ends at once */
        memset(w, -128, n * k);
    for (size_t j = 0; j < n; j++)
        bias[j] = (int32_t)check_below(c, 4000001) - 2000000;
    for (size_t i = 0; two && i < r_elems; i++) /* all of their digits count where sums are small */
        low[i] = (int32_t)check_below(c, (size_t)1 << (8 + i % 23)) - (1 << (7 + i % 23));
    double spread = 12000 * sqrt((double)k) + 1e6;
    float *mul = fill_floats(c, n, -(float)(6 / spread), (float)(6 / spread)),
          *scale = fill_floats(c, n, -1.5f, 1.5f);
    float *residual = fill_floats(c, r_elems, -3, 3), *inv = fill_floats(c, n, 2, 40);
    float *row_scale = fill_floats(c, m, -2, 2), *add = fill_floats(c, n, -5, 5);
    void *got = check_out(c, c_elems * c_size, c_size),
         *again = check_out(c, c_elems * c_size, c_size);
    g->pack(b, w, k, n, k);

    fv_gemm_u8_args args = { .m = m,
                             .n = n,
                             .k = k,
                             .a = a,
                             .a_low = sixteen ? a_low : NULL,
                             .lda = lda,
                             .b = b,
                             .c = got,
                             .ldc = ldc,
                             .c_type = p->c_type,
                             .act = p->epilogue & GELU ? FV_ACT_GELU : FV_ACT_NONE,
                             .bias = p->epilogue & GELU || !sums ? bias : NULL,
                             .low = two ? low : NULL,
                             .ldl = ldr,
                             .mul = sums ? NULL : mul,
                             .row = row_scales && check_below(c, 4) ? row_scale : NULL,
                             .add = row_scales && check_below(c, 4) ? add : NULL,
                             .scale = p->epilogue & SCALE ? scale : NULL,
                             .residual = p->epilogue & RESIDUAL ? residual : NULL,
                             .ldr = ldr,
                             .inv = p->c_type == FV_TYPE_U8 ? inv : NULL,
                             .zero = (int)check_below(c, 256) };
    if (sums) {
        args.act = FV_ACT_NONE;
        args.scale = args.residual = NULL;
    }
    if (in_place) {
        for (size_t i = 0; i < m; i++) {
            memcpy((float *)got + i * ldc, residual + i * ldr, n * 4);
            memcpy((float *)again + i * ldc, residual + i * ldr, n * 4);
        }
        args.residual = got;
        args.ldr = ldc;
    }
    product_run(g, &args, low);
    bool good = true;
    fv_gemm_u8_args judged = args;
    judged.low = two || sixteen ? low : NULL;
    for (size_t i = 0; i < m && good; i++) {
        for (size_t j = 0; j < n && good; j++) {
            int64_t s = args.bias ? bias[j] * (sixteen ? 256 : 1) : 0;
            for (size_t q = 0; q < k; q++)
                s += (sixteen ? a[i * lda + q] * 256 + a_low[i * lda + q] : a[i * lda + q]) *
                     w[j * k + q];
            if (sixteen) {
                low[i * ldr + j] = (int32_t)(s & 255);
                s >>= 8;
            }
            good = check_output(c, &judged, i, j, (int32_t)s, args.residual ? residual : NULL, ldr,
                                got);
        }
    }
    check_gaps(c, "c", got, c_size, m, n, ldc);

    /* The same in parts, cut at a row and at a panel: the same bits. */
    size_t row = check_below(c, m + 1), column = check_below(c, n / g->nr + 1) * g->nr;
    for (int part = 0; part < 4; part++) {
        fv_gemm_u8_args s = args;
        size_t i = part & 1 ? row : 0, j = part & 2 ? column : 0;
        s.m = part & 1 ? m - row : row;
        s.n = part & 2 ? n - column : column;
        if (!s.m || !s.n)
            continue;
        s.a += i * lda;
        if (sixteen)
            s.a_low += i * lda;
        s.b = (const char *)b + fv_packed_u8_bytes(g, j, k);
        s.c = (char *)again + (i * ldc + j) * c_size;
        if (s.bias)
            s.bias += j;
        if (s.mul)
            s.mul += j;
        if (s.row)
            s.row += i;
        if (s.add)
            s.add += j;
        if (s.low)
            s.low += i * ldr + j;
        if (s.scale)
            s.scale += j;
        if (s.inv)
            s.inv += j;
        if (s.residual)
            s.residual = in_place ? (const float *)s.c : s.residual + i * ldr + j;
        product_run(g, &s, low);
    }
    check_same(c, "c computed in parts", got, again, c_elems * c_size);
    check_done(c);
}

static void check_products(fv_check *c, const fv_gemm_u8_kernel *g)
{
    static const fv_type types[5] = { FV_TYPE_U8, FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16,
                                      FV_TYPE_I32 };
    unsigned e = 0;
    for (size_t m = 0; m <= 2 * g->mr + 1; m++) {
        for (size_t n = 0; n <= 2 * g->nr + 1; n += n + 2 < g->nr || n > g->nr + 1 ? 3 : 1) {
            size_t k = m % 7 == 3 ? 1 + m % 4 : 1 + check_below(c, 160);
            check_product(
                c, g,
                &(product){ m, n, k, e % EPILOGUES, types[e / 2 % 5], e % 4 ? e % 5 : 0, false });
            e += 3;
        }
    }
    for (size_t k = 1; k <= 150; k++)
        check_product(
            c, g, &(product){ g->mr + 1, g->nr + 1, k, k % 2 * LOW, types[k % 5], k % 3, false });
    for (unsigned i = 0; i < EPILOGUES; i++)
        for (unsigned t = 0; t < FV_COUNT(types); t++)
            for (size_t k = 61; k <= 64; k += 3)
                check_product(c, g,
                              &(product){ 2 * g->mr + 3, g->nr + 5, k, i, types[t], i % 3, false });
    /* blocks of rows, pieces of k, rows that collide in a cache */
    static const size_t large[][4] = { { 130, 70, 1600, 0 }, { 67, 96, 6145, 0 },
                                       { 45, 33, 16390, 0 }, { 30, 64, 4096, 0 },
                                       { 61, 32, 8192, 0 },  { 250, 40, 640, 0 },
                                       { 29, 48, 4001, 95 }, { 15, 20, 65536, 0 } };
    for (size_t i = 0; i < FV_COUNT(large); i++)
        for (unsigned t = 0; t < 3; t++)
            check_product(c, g,
                          &(product){ large[i][0], large[i][1], large[i][2],
                                      t == 0   ? 0
                                      : t == 1 ? SCALE | RESIDUAL | IN_PLACE | LOW
                                               : GELU,
                                      types[(t + i) % 5], large[i][3], false });
}

static void check_products16(fv_check *c, const fv_gemm_u8_kernel *g)
{
    static const fv_type types[3] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    for (size_t m = 0; m <= 2 * g->mr + 1; m++)
        for (size_t n = 0; n <= 2 * g->nr + 1; n += n % g->nr < 2 ? 1 : g->nr - 2)
            check_product(c, g,
                          &(product){ m, n, 1 + check_below(c, 160), (unsigned)(m + n) % EPILOGUES,
                                      types[m % 3], n % 4, true });
    for (size_t k = 1; k <= 40; k++)
        check_product(c, g, &(product){ g->mr + 1, g->nr + 1, k, 0, types[k % 3], k % 3, true });
    /* blocks of rows and columns, pieces of k */
    static const size_t large[][3] = { { 67, 270, 100 }, { 30, 33, 504 },  { 31, 33, 505 },
                                       { 25, 20, 1008 }, { 50, 33, 1600 }, { 26, 40, 6145 },
                                       { 3, 530, 513 },  { 2, 9, 65000 } };
    for (size_t i = 0; i < FV_COUNT(large); i++)
        for (unsigned t = 0; t < 6; t++) /* every way to fill the operands */
            check_product(c, g,
                          &(product){ large[i][0], large[i][1], large[i][2],
                                      t % 2 ? SCALE | RESIDUAL | IN_PLACE : 0, types[t % 3], t % 2,
                                      true });
}

/* Of rows of i8, or of Q8_0. */
static void check_packing(fv_check *c, const fv_gemm_u8_kernel *g, bool blocks)
{
    const size_t nr = g->nr;
    for (size_t n = 0; n <= 2 * nr + 1; n += n % nr < 3 || n % nr + 3 > nr ? 1 : 5) {
        for (size_t k = blocks ? FV_BLOCK : 1; k <= 160; k += blocks ? FV_BLOCK : k < 70 ? 1 : 16) {
            size_t ld = blocks ? fv_row_bytes(FV_TYPE_Q8_0, k)
                               : k + check_below(c, 2) * check_below(c, 9);
            if (!check_case(c, "n=%zu k=%zu ld=%zu", n, k, ld))
                continue;
            size_t n_in = n ? (n - 1) * ld + (blocks ? ld : k) : 0,
                   n_bytes = fv_packed_u8_bytes(g, n, k);
            int8_t *w = check_in(c, n_in, 1), *got = check_out(c, n_bytes, 64),
                   *want = check_in(c, n_bytes, 1);
            fill_bytes(c, w, n_in, -128);
            for (size_t at = 0; at < n_bytes; at++) {
                size_t panel = nr * ((k + 3) / 4 * 4), in = at % panel;
                size_t g_k = g->eights && in < nr * (k / 16 * 16) ? 8 : 4;
                size_t j = at / panel * nr + in % (nr * g_k) / g_k,
                       q = in / (nr * g_k) * g_k + in % g_k;
                want[at] = j < n && q < k ? w[j * ld + (blocks ? 2 + q / FV_BLOCK * 2 + q : q)] : 0;
            }
            if (blocks)
                g->pack_q8(got, w, 0, n, k);
            else
                g->pack(got, w, ld, n, k);
            check_same(c, "packed", want, got, n_bytes);
            check_done(c);
        }
    }
}

/* ---- depthwise convolution --------------------------------------------------------------- */

static void check_map(fv_check *c, unsigned k, unsigned stride, unsigned mult, size_t width,
                      size_t channels)
{
    const size_t out = (width - 1) / stride + 1, n_out = channels * mult;
    const unsigned rows = 1 + (unsigned)check_below(c, 2), n_src = k + (rows - 1) * stride;
    const fv_dwconv_u8_kernel *kernel = &c->now->dwconv_u8;
    fv_dwconv_u8_args d = { .rows = rows,
                            .width = width,
                            .src_ld = channels + check_below(c, 3) * 5,
                            .channels = channels,
                            .k = k,
                            .stride = stride,
                            .mult = mult,
                            .src_zero = (int)check_below(c, 256),
                            .act = check_below(c, 2) ? FV_ACT_GELU : FV_ACT_NONE,
                            .dst_ld = n_out + check_below(c, 3) * 7,
                            .zero = (int)check_below(c, 256) };
    for (unsigned dy = 0; dy < n_src; dy++) {
        if (check_below(c, 6) == 0)
            continue;
        size_t n = (width - 1) * d.src_ld + channels;
        uint8_t *row = check_in(c, n, 1);
        fill_bytes(c, row, n, 0);
        d.src[dy] = row;
    }
    int8_t *weight = check_in(c, k * k * n_out, 1);
    fill_bytes(c, weight, k * k * n_out, -128);
    void *packed = check_out(c, kernel->packed_bytes(channels, k, mult), 64);
    kernel->pack(packed, weight, channels, k, mult);
    d.weight = packed;
    d.scratch = check_out(c, fv_dwconv_u8_scratch_bytes(), 64);
    /* one buffer: there are not enough of them for each */
    float *each = fill_floats(c, 3 * n_out, -6.0f / 50000 / (float)k, 6.0f / 50000 / (float)k);
    for (size_t o = 0; o < n_out; o++) {
        each[n_out + o] = check_uniform(c, -2, 2);
        each[2 * n_out + o] = check_uniform(c, 2, 40);
    }
    d.mul = each;
    d.bias = check_below(c, 3) ? each + n_out : NULL;
    d.inv = each + 2 * n_out;
    d.dst_row = out * d.dst_ld + check_below(c, 9);
    size_t n_dst = (rows - 1) * d.dst_row + (out - 1) * d.dst_ld + n_out;
    uint8_t *dst = check_out(c, n_dst, 1);
    d.dst = dst;
    d.x1 = out;
    kernel->run(&d);
    bool good = true;
    for (size_t y = 0; y < rows; y++) {
        for (size_t i = 0; i < out * n_out && good; i++) {
            size_t x = i / n_out, o = i % n_out;
            int32_t s = 0;
            for (unsigned t = 0; t < k * k; t++) {
                const uint8_t *row = d.src[y * stride + t / k];
                size_t at = x * stride + t % k;
                if (row && at >= k / 2 && at - k / 2 < width)
                    s += (row[(at - k / 2) * d.src_ld + o / mult] - d.src_zero) *
                         weight[t * n_out + o];
            }
            float bias = d.bias ? d.bias[o] : 0, v = fmaf((float)s, d.mul[o], bias);
            double q = dst[y * d.dst_row + x * d.dst_ld + o];
            if (d.act) {
                double want = gelu(v), bound = 3e-4 * d.inv[o] + 1e-4 + 0.5;
                good = check_near(c, "q", y * out * n_out + i, clamped(want * d.inv[o], d.zero), q,
                                  bound);
            } else {
                good = check_near(
                    c, "q", y * out * n_out + i,
                    to_u8(fmaf((float)s, d.mul[o] * d.inv[o], bias * d.inv[o]), d.zero), q, 0);
            }
        }
        check_gaps(c, "q", dst + y * d.dst_row, 1, out, n_out, d.dst_ld);
    }

    /* in segments, row by row */
    uint8_t *part = check_out(c, n_dst, 1);
    for (size_t x = 0; x < out;) {
        fv_dwconv_u8_args s = d;
        size_t n = 1 + check_below(c, FV_MIN(out - x, (size_t)21));
        s.rows = 1;
        s.x0 = x;
        s.x1 = x + n;
        s.dst = part + x * d.dst_ld;
        kernel->run(&s);
        if (rows == 2) {
            memcpy(s.src, d.src + stride, k * sizeof *s.src);
            s.dst += d.dst_row;
            kernel->run(&s);
        }
        x += n;
    }
    check_same(c, "segments", dst, part, n_dst);
    check_done(c);
}

static void check_maps(fv_check *c)
{
    static const size_t widths[] = { 1, 2, 3, 4, 7, 8, 16, 17, 19, 22, 33, 38, 65, 135 };
    static const size_t channels[] = { 1, 3, 15, 16, 17, 31, 32, 40, 96 };
    for (unsigned shape = 0; shape < 8; shape++) {
        unsigned k = shape & 4 ? 7 : 3, stride = 1 + (shape >> 1 & 1), mult = 1 + (shape & 1);
        for (size_t w = 0; w < FV_COUNT(widths); w++)
            for (size_t n = 0; n < FV_COUNT(channels); n++)
                if (check_case(c, "k=%u stride=%u mult=%u width=%zu channels=%zu", k, stride, mult,
                               widths[w], channels[n]))
                    check_map(c, k, stride, mult, widths[w], channels[n]);
    }
}

void check_int8(fv_check *c)
{
    const fv_kernels *now = c->now, *below = c->below;
    if (check_slot(c, "quantize_u8", now->quantize_u8 != below->quantize_u8))
        check_quantize(c, false);
    if (check_slot(c, "quantize_u16", now->quantize_u16 != below->quantize_u16))
        check_quantize(c, true);
    if (check_slot(c, "pack_u8", now->gemm_u8.pack != below->gemm_u8.pack))
        check_packing(c, &now->gemm_u8, false);
    if (check_slot(c, "pack_u8_q8", now->gemm_u8.pack_q8 != below->gemm_u8.pack_q8))
        check_packing(c, &now->gemm_u8, true);
    if (check_slot(c, "gemm_u8", now->gemm_u8.run != below->gemm_u8.run))
        check_products(c, &now->gemm_u8);
    if (check_slot(c, "gemm16_u8",
                   now->gemm_u8.run != below->gemm_u8.run ||
                       now->gemm_u8.run16 != below->gemm_u8.run16))
        check_products16(c, &now->gemm_u8);
    if (check_slot(c, "dwconv_u8", now->dwconv_u8.run != below->dwconv_u8.run))
        check_maps(c);
}

/* ---- timing ------------------------------------------------------------------------------ */

typedef struct gemm_run {
    const fv_gemm_u8_kernel *g;
    fv_gemm_u8_args args;
    size_t block; /* rows a call */
    int32_t *low; /* [block, n] */
} gemm_run;

static void run_gemm(void *user)
{
    gemm_run *r = user;
    fv_gemm_u8_args g = r->args;
    for (size_t i = 0; i < r->args.m; i += r->block) {
        g.m = FV_MIN(r->block, r->args.m - i);
        g.a = r->args.a + i * r->args.lda;
        g.c = (char *)r->args.c + i * g.ldc * fv_type_size(g.c_type);
        g.residual = r->args.residual ? r->args.residual + i * g.ldr : NULL;
        if (g.a_low)
            g.a_low = g.a;
        product_run(r->g, &g, r->low);
    }
}

/* Blocks of 112 rows, as the encoder does: GELU to u8 when n > k, else scale and residual in f32,
 * plain to u8, and rows of 16 bits to f32. */
static void bench_products(fv_check *c)
{
    bench_shape shape[64];
    const fv_gemm_u8_kernel *g = &c->now->gemm_u8;
    size_t n_shapes = bench_shapes(c, "gemm", shape, FV_COUNT(shape));
    for (size_t i = 0; i < n_shapes; i++) {
        size_t m = FV_MIN(shape[i].v[0], (size_t)1024), n = shape[i].v[1], k = shape[i].v[2];
        uint8_t *a = bench_buffer(c, FV_TYPE_U8, m * k);
        int8_t *w = bench_buffer(c, FV_TYPE_U8, n * k),
               *b = bench_buffer(c, FV_TYPE_U8, fv_packed_u8_bytes(g, n, k));
        float *out = bench_buffer(c, FV_TYPE_F32, m * n), *mul = bench_buffer(c, FV_TYPE_F32, n);
        int32_t *bias = bench_buffer(c, FV_TYPE_F32, n);
        for (size_t q = 0; q < m * k; q++)
            a[q] = (uint8_t)(q * 31);
        for (size_t q = 0; q < n * k; q++)
            w[q] = (int8_t)(q * 17);
        memset(bias, 0, n * 4);
        for (size_t q = 0; q < n; q++)
            mul[q] = 1e-5f;
        g->pack(b, w, k, n, k);
        gemm_run r = { g,
                       { .m = m,
                         .n = n,
                         .k = k,
                         .a = a,
                         .lda = k,
                         .b = b,
                         .c = out,
                         .ldc = n,
                         .c_type = FV_TYPE_U8,
                         .bias = bias,
                         .mul = mul,
                         .inv = mul,
                         .zero = 100 },
                       112,
                       NULL };
        char label[112];
        double ops = 2.0 * (double)m * (double)n * (double)k;
        snprintf(label, sizeof label, "%.40s %zux%zux%zu", shape[i].label, m, n, k);
        gemm_run slow = r;
        slow.g = &c->ref->gemm_u8;
        slow.args.m = 1;
        slow.args.n = FV_MIN(n, (size_t)64);
        bench_report(c, label, "GOP/s", run_gemm, &r, ops, g->run == slow.g->run ? NULL : run_gemm,
                     &slow, 2.0 * (double)slow.args.n * (double)k);
        if (n > k) {
            r.args.act = FV_ACT_GELU;
        } else {
            r.args.c_type = FV_TYPE_F32;
            r.args.scale = mul;
            r.args.residual = out;
            r.args.ldr = n;
        }
        bench_report(c, n > k ? "  gelu" : "  scale, residual, f32", "GOP/s", run_gemm, &r, ops,
                     NULL, NULL, 1);
        r.args.c_type = FV_TYPE_F32;
        r.args.a_low = a;
        r.args.ldl = n;
        r.low = bench_buffer(c, FV_TYPE_F32, 112 * n);
        bench_report(c, n > k ? "  16 bits, gelu" : "  16 bits, scale, residual, f32", "GOP/s",
                     run_gemm, &r, ops, NULL, NULL, 1);
        bench_free(a), bench_free(w), bench_free(b), bench_free(out), bench_free(mul),
            bench_free(bias), bench_free(r.low);
    }
}

typedef struct map_run {
    fv_dwconv_u8_fn *fn;
    fv_dwconv_u8_args args;
    const uint8_t *src;
    uint8_t *dst;
    size_t n_rows;
} map_run;

static void run_map(void *user)
{
    map_run *b = user;
    fv_dwconv_u8_args d = b->args;
    for (size_t y = 0; y < b->n_rows; y += d.rows) {
        d.rows = b->n_rows - y > 1 ? 2 : 1;
        for (unsigned dy = 0; dy < d.k + (d.rows - 1) * d.stride; dy++)
            d.src[dy] = b->src + (y * d.stride + dy) * d.width * d.src_ld;
        d.dst = b->dst + y * d.dst_row;
        b->fn(&d);
    }
}

static void bench_maps(fv_check *c)
{
    bench_shape shape[32];
    const fv_dwconv_u8_kernel *kernel = &c->now->dwconv_u8;
    size_t n = bench_shapes(c, "dwconv", shape, FV_COUNT(shape));
    for (size_t i = 0; i < n; i++) {
        const size_t *v = shape[i].v;
        unsigned k = (unsigned)v[2], stride = (unsigned)v[3], mult = (unsigned)v[4];
        size_t out = v[0] / stride, n_out = v[1] * mult, n_rows = FV_MIN(out, (size_t)16);
        uint8_t *src = bench_buffer(c, FV_TYPE_U8, (n_rows * stride + k) * v[0] * v[1]);
        int8_t *weight = bench_buffer(c, FV_TYPE_U8, k * k * n_out);
        void *packed = bench_buffer(c, FV_TYPE_U8,
                                    FV_MAX(kernel->packed_bytes(v[1], k, mult), k * k * n_out));
        float *each = bench_buffer(c, FV_TYPE_F32, n_out);
        uint8_t *dst = bench_buffer(c, FV_TYPE_U8, n_rows * out * n_out);
        kernel->pack(packed, weight, v[1], k, mult);
        map_run b = { .fn = kernel->run,
                      .src = src,
                      .dst = dst,
                      .n_rows = n_rows,
                      .args = {
                          .width = v[0],
                          .src_ld = v[1],
                          .channels = v[1],
                          .k = k,
                          .stride = stride,
                          .mult = mult,
                          .weight = packed,
                          .mul = each,
                          .bias = each,
                          .inv = each,
                          .x1 = out,
                          .act = v[5] ? FV_ACT_GELU : FV_ACT_NONE,
                          .dst_ld = n_out,
                          .dst_row = out * n_out,
                          .scratch = bench_buffer(c, FV_TYPE_U8, fv_dwconv_u8_scratch_bytes()) } };
        map_run ref = b;
        ref.fn = c->ref->dwconv_u8.run;
        ref.n_rows = 1;
        double row = 2.0 * (double)(out * n_out * k * k);
        bench_report(c, shape[i].label, "GOP/s", run_map, &b, row * (double)n_rows,
                     b.fn == ref.fn ? NULL : run_map, &ref, row);
        bench_free(src), bench_free(weight), bench_free(packed), bench_free(each), bench_free(dst);
        bench_free(b.args.scratch);
    }
}

typedef struct quantize_run {
    fv_quantize_u8_fn *fn;
    uint8_t *dst;
    const float *src, *inv;
    size_t m, c;
} quantize_run;

static void run_quantize(void *user)
{
    quantize_run *r = user;
    r->fn(r->dst, r->c, r->src, r->c, r->inv, 128, r->m, r->c);
}

void bench_int8(fv_check *c)
{
    const fv_kernels *now = c->now, *below = c->below;
    if (!strcmp(c->level, "ref"))
        return;
    if (check_slot(c, "quantize_u8", now->quantize_u8 != below->quantize_u8)) {
        quantize_run r = { now->quantize_u8,
                           bench_buffer(c, FV_TYPE_U8, 64 * 768),
                           bench_buffer(c, FV_TYPE_F32, 64 * 768),
                           bench_buffer(c, FV_TYPE_F32, 768),
                           64,
                           768 },
                     ref = r;
        ref.fn = c->ref->quantize_u8;
        bench_report(c, "64x768", "GB/s read", run_quantize, &r, 64 * 768 * 4, run_quantize, &ref,
                     64 * 768 * 4);
        bench_free(r.dst), bench_free((void *)(uintptr_t)r.src),
            bench_free((void *)(uintptr_t)r.inv);
    }
    if (check_slot(c, "gemm_u8", now->gemm_u8.run != below->gemm_u8.run))
        bench_products(c);
    if (check_slot(c, "dwconv_u8", now->dwconv_u8.run != below->dwconv_u8.run))
        bench_maps(c);
}
