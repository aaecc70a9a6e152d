/* Attention: against softmax in double precision, and the same bits for a row whatever rows it is
 * called with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/half.h"
#include "check.h"
#include "kernels/blocks.h"

/* Element c of row j of keys or values. */
static double kv_at(const void *p, const fv_attn_args *a, size_t ld, size_t j, size_t c)
{
    if (a->kv_type != FV_TYPE_I8)
        return check_get(p, a->kv_type, j * ld + c);
    const int8_t *row = (const int8_t *)p + j * ld;
    return (double)fv_kv_scales(row, a->d)[c / FV_BLOCK] * row[c];
}

static void fill_kv(fv_check *c, void *p, const fv_attn_args *a, size_t ld, float lo, float hi)
{
    if (a->kv_type != FV_TYPE_I8) {
        check_fill(c, p, a->kv_type, (a->n_kv - 1) * ld + a->d, lo, hi);
        return;
    }
    for (size_t j = 0; j < a->n_kv; j++) {
        int8_t *row = (int8_t *)p + j * ld;
        for (size_t i = 0; i < a->d; i++)
            row[i] = (int8_t)(check_rand(c) % 4   ? (int)check_below(c, 255) - 127
                              : check_rand(c) % 2 ? 127
                                                  : -127);
        for (size_t i = 0; i < (a->d + FV_BLOCK - 1) / FV_BLOCK; i++)
            ((float *)fv_kv_scales(row, a->d))[i] = check_uniform(c, 0, hi / 127);
    }
}

static double to_bf16(double x) { return fv_bf16_to_f32(fv_f32_to_bf16((float)x)); }

/* want[c] of row i, and the norm and relative bound of its error: an error e of a score moves its
 * weight by e of itself, so the bound grows with the products behind the scores. pairs: of
 * attn_bf16, whose operands are rounded here, too, q after it was scaled for powers of two; what is
 * left is the rounding of the weights. */
static void want_row(const fv_attn_args *a, bool pairs, size_t i, double *want, double *norm,
                     double *bound)
{
    const float scale = a->scale * 1.44269504f;
    size_t n = a->causal ? a->n_visible + i : a->n_kv;
    double *s = malloc(n * sizeof *s), top = -INFINITY, sum = 0, most = 0,
           spread[FV_ATTN_MAX_D] = { 0 };
    for (size_t j = 0; j < n; j++) {
        double size = 0;
        s[j] = 0;
        for (size_t c = 0; c < a->d; c++) {
            const double q = a->q[i * a->ldq + c], k = kv_at(a->k, a, a->ldk, j, c);
            double p = pairs ? to_bf16((float)q * scale) * to_bf16(k) * M_LN2 : a->scale * q * k;
            s[j] += p;
            size += fabs(p);
        }
        top = fmax(top, s[j]);
        most = fmax(most, size);
    }
    for (size_t c = 0; c < a->d; c++)
        want[c] = 0;
    for (size_t j = 0; j < n; j++) {
        double p = exp(s[j] - top);
        sum += p;
        for (size_t c = 0; c < a->d; c++) {
            double v = kv_at(a->v, a, a->ldv, j, c);
            if (pairs)
                v = to_bf16(v);
            want[c] += p * v;
            spread[c] += p * fabs(v);
        }
    }
    *norm = 0;
    for (size_t c = 0; c < a->d; c++) {
        want[c] /= sum;
        *norm += spread[c] / sum * (spread[c] / sum);
    }
    *norm = sqrt(*norm);
    *bound = 1e-6 + 4 * 0x1p-24 * most + (pairs ? 0x1p-8 + 1e-4 : 0);
    free(s);
}

static void one_case(fv_check *c, fv_attn_fn *fn, size_t d, size_t n_q, size_t n_kv, bool causal,
                     size_t n_visible, fv_type kv_type)
{
    const bool pairs = fn == c->now->attn_bf16;
    fv_type out_type = (fv_type[]){ FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F16,
                                    FV_TYPE_BF16 }[check_below(c, 4)];
    size_t elem = fv_type_size(out_type), kv_elem = fv_type_size(kv_type);
    fv_attn_args a = { .n_q = n_q,
                       .ldq = d + check_below(c, 3) * 9,
                       .n_kv = n_kv,
                       .ldk = d + check_below(c, 3) * 10,
                       .ldv = d + check_below(c, 2) * 6,
                       .kv_type = kv_type,
                       .d = d,
                       .causal = causal,
                       .scale = 1.0f / sqrtf((float)d),
                       .n_visible = n_visible,
                       .ldo = d + check_below(c, 3) * 11,
                       .out_type = out_type };
    size_t row = d;
    if (kv_type == FV_TYPE_I8) {
        row = fv_kv_row_bytes(kv_type, d);
        a.ldk = row + check_below(c, 3) * 8;
        a.ldv = row + check_below(c, 2) * 4;
    }
    size_t nq = (n_q - 1) * a.ldq + d, nk = (n_kv - 1) * a.ldk + row, nv = (n_kv - 1) * a.ldv + row;
    size_t kv_align = kv_type == FV_TYPE_I8 ? 4 : kv_elem;
    float *q = check_in(c, nq * sizeof *q, sizeof *q);
    void *k = check_in(c, nk * kv_elem, kv_align), *v = check_in(c, nv * kv_elem, kv_align);
    check_fill(c, q, FV_TYPE_F32, nq, -2, 2);
    fill_kv(c, k, &a, a.ldk, -2, 2);
    fill_kv(c, v, &a, a.ldv, -3, 3);
    a.q = q;
    a.k = k;
    a.v = v;
    a.scratch = check_out(c, fv_attn_scratch_bytes(), 64);
    memset(a.scratch, 0xff, fv_attn_scratch_bytes()); /* NaN */
    size_t n_out = (n_q - 1) * a.ldo + d;
    uint8_t *out = check_out(c, n_out * elem, elem), *part = check_out(c, n_out * elem, elem);
    a.out = out;
    fn(&a);
    for (size_t i = 0; i < n_q; i++) {
        double want[FV_ATTN_MAX_D], norm, bound, error = 0;
        want_row(&a, pairs, i, want, &norm, &bound);
        for (size_t o = 0; o < d; o++) {
            double off = fabs(check_get(out, out_type, i * a.ldo + o) - want[o]);
            if (out_type != FV_TYPE_F32)
                off = fmax(0, off - check_half_ulp(out_type, fabs(want[o]) + bound * norm));
            error += off * off;
        }
        check_near(c, "row error", i, 0, sqrt(error), bound * norm);
    }
    check_gaps(c, "out", out, elem, n_q, d, a.ldo);

    for (size_t i = 0; i < n_q;) {
        size_t n = 1 + check_below(c, n_q - i);
        fv_attn_args b = a;
        b.q = q + i * a.ldq;
        b.n_q = n;
        b.n_visible = n_visible + i;
        b.out = part + i * a.ldo * elem;
        fn(&b);
        i += n;
    }
    check_same(c, "rows apart", out, part, n_out * elem);
}

static void check_rope(fv_check *c)
{
    for (size_t half = 1; half <= 64; half += half < 40 ? 1 : 24) {
        size_t d = 2 * half, n = 3;
        if (!check_case(c, "heads=%zu d=%zu", n, d))
            continue;
        float *cosine = check_in(c, half * sizeof *cosine, sizeof *cosine);
        float *sine = check_in(c, half * sizeof *sine, sizeof *sine);
        float *x = check_out(c, n * d * sizeof *x, sizeof *x),
              *before = check_out(c, n * d * sizeof *x, sizeof *x);
        check_fill(c, cosine, FV_TYPE_F32, half, -1, 1);
        check_fill(c, sine, FV_TYPE_F32, half, -1, 1);
        check_fill(c, x, FV_TYPE_F32, n * d, -100, 100);
        memcpy(before, x, n * d * sizeof *x);
        c->now->rope(x, cosine, sine, n, d);
        for (size_t i = 0; i < n * d; i++) {
            size_t m = i % half, h = i / d * d;
            double a = before[h + m], b = before[h + m + half], p, r;
            p = i % d < half ? a * cosine[m] : b * cosine[m];
            r = i % d < half ? -b * sine[m] : a * sine[m];
            check_near(c, "x", i, p + r, x[i], 0x1p-23 * (fabs(p) + fabs(r)));
        }
        check_done(c);
    }
}

/* keys: that the first row can see, of them or all but one or two where it is causal. turn and
 * type_turn choose whether it is, and the type of the cache. */
static void attn_case(fv_check *c, fv_attn_fn *fn, size_t d, size_t n_q, size_t keys, size_t turn,
                      size_t type_turn)
{
    const bool causal = turn % 2;
    const size_t n_kv = causal ? n_q - 1 + keys : keys;
    const fv_type type = (fv_type[]){ FV_TYPE_F16, FV_TYPE_F32, FV_TYPE_I8 }[type_turn % 3];
    if (!check_case(c, "d=%zu n_q=%zu n_kv=%zu %s%s", d, n_q, n_kv, fv_type_name(type),
                    causal ? " causal" : ""))
        return;
    size_t n_visible = causal ? keys - check_below(c, FV_MIN(keys, (size_t)3)) : 0;
    one_case(c, fn, d, n_q, n_kv, causal, n_visible, type);
    check_done(c);
}

void check_attn(fv_check *c)
{
    static const size_t widths[] = { 2, 6, 8, 16, 24, 32, 40, 64, 128, 256 };
    static const size_t rows[] = { 1, 2, 6, 7, 8, 9, 15, 16, 17, 24, 33, 48, 49, 64 };
    static const size_t keys[] = { 1, 2, 3, 5, 16, 63, 64, 65, 130, 257 };
    if (check_slot(c, "attn", c->now->attn != c->below->attn)) {
        for (size_t d = 0; d < FV_COUNT(widths); d++) {
            for (size_t r = 0; r < FV_COUNT(rows); r++) {
                for (size_t k = 0; k < FV_COUNT(keys); k++)
                    attn_case(c, c->now->attn, widths[d], rows[r], keys[k], d + r + k, r + k / 2);
            }
        }
    }
    if (check_slot(c, "attn_bf16", c->now->attn_bf16 && c->now->attn_bf16 != c->below->attn_bf16)) {
        static const size_t pair_widths[] = { 2, 6, 16, 32, 40, 64, 130, 250, 256 };
        for (size_t d = 0; d < FV_COUNT(pair_widths); d++) {
            for (size_t r = 0; r < FV_COUNT(rows); r++) {
                for (size_t k = 0; k < FV_COUNT(keys); k++)
                    attn_case(c, c->now->attn_bf16, pair_widths[d], rows[r], keys[k], d + r + k,
                              r + k / 2);
            }
        }
    }
    if (check_slot(c, "rope", c->now->rope != c->below->rope))
        check_rope(c);
}

/* ---- timing ------------------------------------------------------------------------------ */

typedef struct attn_bench {
    fv_attn_fn *fn;
    fv_attn_args args;
} attn_bench;

static void run_attn(void *user)
{
    attn_bench *b = user;
    b->fn(&b->args);
}

typedef struct rope_bench {
    fv_rope_fn *fn;
    float *x, *cosine, *sine;
    size_t n, d;
} rope_bench;

static void run_rope(void *user)
{
    rope_bench *b = user;
    b->fn(b->x, b->cosine, b->sine, b->n, b->d);
}

/* A shape is: d, rows of the call, keys, elements from key to key, bytes of an element, causal.
 * Causal: the last rows of a prefill. GFLOP/s of both products; for a single position look at the
 * GB/s. */
void bench_attn(fv_check *c)
{
    bench_shape shape[32];
    const struct {
        const char *slot;
        fv_attn_fn *fn, *below;
    } slots[] = { { "attn", c->now->attn, c->below->attn },
                  { "attn_bf16", c->now->attn_bf16, c->below->attn_bf16 } };
    for (size_t s = 0; s < FV_COUNT(slots); s++) {
        if (!check_slot(c, slots[s].slot, slots[s].fn && slots[s].fn != slots[s].below))
            continue;
        size_t n = bench_shapes(c, "attn", shape, FV_COUNT(shape));
        for (size_t i = 0; i < n; i++) {
            const size_t *v = shape[i].v;
            if (s == 1 && v[1] < 16) /* it is for images and prompts */
                continue;
            fv_type type = v[4] == 2 ? FV_TYPE_F16 : FV_TYPE_F32;
            void *k = bench_buffer(c, type, v[2] * v[3]),
                 *values = bench_buffer(c, type, v[2] * v[3]);
            float *q = bench_buffer(c, FV_TYPE_F32, v[1] * v[3]),
                  *out = bench_buffer(c, FV_TYPE_F32, v[1] * v[3]);
            attn_bench b = { .fn = slots[s].fn,
                             .args = { .q = q,
                                       .n_q = v[1],
                                       .ldq = v[3],
                                       .k = k,
                                       .v = values,
                                       .n_kv = v[2],
                                       .ldk = v[3],
                                       .ldv = v[3],
                                       .kv_type = type,
                                       .d = v[0],
                                       .scale = 1.0f / sqrtf((float)v[0]),
                                       .causal = v[5] != 0,
                                       .n_visible = v[2] - v[1] + 1,
                                       .out = out,
                                       .ldo = v[3],
                                       .scratch = bench_buffer(c, FV_TYPE_F32,
                                                               fv_attn_scratch_bytes() / 4) } };
            attn_bench ref = b;
            ref.fn = c->ref->attn;
            bool is_ref = slots[s].fn == c->ref->attn;
            double keys = (double)v[2] - (v[5] ? (double)(v[1] - 1) / 2 : 0),
                   work = 4 * keys * (double)(v[0] * v[1]);
            bench_report(c, shape[i].label, "GFLOP/s", run_attn, &b, work, is_ref ? NULL : run_attn,
                         &ref, work);
            if (v[1] < 16)
                bench_report(c, shape[i].label, "GB/s", run_attn, &b,
                             2.0 * (double)(v[2] * v[0] * v[4]), NULL, NULL, 0);
            bench_free(b.args.scratch);
            bench_free(k);
            bench_free(values);
            bench_free(q);
            bench_free(out);
        }
    }
    if (check_slot(c, "rope", c->now->rope != c->below->rope)) {
        rope_bench b = { c->now->rope,
                         bench_buffer(c, FV_TYPE_F32, 14 * 64),
                         bench_buffer(c, FV_TYPE_F32, 32),
                         bench_buffer(c, FV_TYPE_F32, 32),
                         14,
                         64 };
        memset(b.sine, 0, 32 * sizeof *b.sine); /* repeated in place: must not grow */
        rope_bench ref = b;
        ref.fn = c->ref->rope;
        bench_report(c, "14x64", "GB/s", run_rope, &b, 14 * 64 * 8,
                     c->now->rope == c->ref->rope ? NULL : run_rope, &ref, 14 * 64 * 8);
        bench_free(b.x);
        bench_free(b.cosine);
        bench_free(b.sine);
    }
}
