/* Checks of the 8-bit resampler: exact at every level. */
#include "check.h"

#include "base/base.h"

/* Weights of every size the contract allows, in all their forms, first anywhere in order. */
static fv_resize_taps make_taps(fv_check *c, size_t n_in, size_t n_out, size_t n_taps)
{
    size_t n_groups = (n_taps + 3) / 4, n = n_out * n_groups * 4;
    int32_t *first = check_in(c, n_out * sizeof *first, sizeof *first),
            *w = check_in(c, n * sizeof *w, sizeof *w);
    int16_t *w16 = check_in(c, n * 2 * sizeof *w16, sizeof *w16);
    int8_t *w8 = check_in(c, n * 4, 1);

    for (size_t o = 0; o < n_out; o++)
        first[o] = n_out == 1 ? 0 : (int32_t)(o * (n_in - n_taps) / (n_out - 1));
    for (size_t i = 0; i < n; i++) {
        float ends = c->mode == CHECK_MIN ? -1.0f : 1.0f;
        float u = c->mode == CHECK_RANDOM      ? check_uniform(c, -1, 1)
                  : c->mode == CHECK_ALTERNATE ? (i & 1 ? -1.0f : 1.0f)
                  : c->mode == CHECK_SPARSE ? (check_below(c, 4) ? 0.0f : check_uniform(c, -1, 1))
                                            : ends;
        w[i] = i % (n_groups * 4) < n_taps ? (int32_t)(u * (float)((1 << 23) - 1)) : 0;
        if (w[i] >= 8355711) /* 127 * 2^16 + 127 * 2^8 + 127: what three signed digits hold */
            w[i] = 8355711;
        int16_t *s = w16 + i / 4 * 8 + i % 4;
        int8_t *d = w8 + i / 4 * 16 + i % 4;
        s[0] = (int16_t)(w[i] & 0x7fff);
        s[4] = (int16_t)(w[i] >> 15);
        d[0] = (int8_t)w[i];
        d[4] = (int8_t)((w[i] - d[0]) >> 8);
        d[8] = (int8_t)((((w[i] - d[0]) >> 8) - d[4]) >> 8);
        d[12] = 0;
    }
    return (fv_resize_taps){ .n_in = n_in,
                             .n_out = n_out,
                             .n_taps = n_taps,
                             .n_groups = n_groups,
                             .first = first,
                             .w = w,
                             .w16 = w16,
                             .w8 = w8 };
}

static void fill_bytes(fv_check *c, uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = c->mode == CHECK_MIN || c->mode == CHECK_MAX ? 255 : (uint8_t)check_rand(c);
}

static void check_h(fv_check *c, size_t m, size_t n_in, size_t n_out, size_t n_taps)
{
    if (!check_case(c, "m=%zu n_in=%zu n_out=%zu n_taps=%zu", m, n_in, n_out, n_taps))
        return;
    fv_resize_taps taps = make_taps(c, n_in, n_out, n_taps);
    size_t src_ld = n_in * 3 + check_below(c, 7), dst_ld = n_out * 3 + check_below(c, 7);
    size_t n_src = (m - 1) * src_ld + n_in * 3, n_dst = (m - 1) * dst_ld + n_out * 3;
    uint8_t *src = check_in(c, n_src, 1), *want = check_out(c, n_dst, 1),
            *got = check_out(c, n_dst, 1);
    fill_bytes(c, src, n_src);
    c->ref->resize_h(want, dst_ld, src, src_ld, m, &taps);
    c->now->resize_h(got, dst_ld, src, src_ld, m, &taps);
    for (size_t row = 0; row < m; row++)
        check_same(c, "row", want + row * dst_ld, got + row * dst_ld, n_out * 3);
    check_gaps(c, "dst", got, 1, m, n_out * 3, dst_ld);
    check_done(c);
}

static void check_v(fv_check *c, size_t n, size_t n_taps)
{
    if (!check_case(c, "n=%zu n_taps=%zu", n, n_taps))
        return;
    fv_resize_taps taps = make_taps(c, n_taps + 2, 3, n_taps);
    uint8_t *src = check_in(c, n * n_taps, 1), *want = check_out(c, n, 1),
            *got = check_out(c, n, 1);
    const uint8_t **rows = check_in(c, n_taps * sizeof *rows, sizeof *rows);
    size_t o = check_below(c, 3);

    fill_bytes(c, src, n * n_taps);
    for (size_t i = 0; i < n_taps; i++)
        /* the first tap's row is the one before the unreadable page */
        rows[i] = src + (n_taps - 1 - i) * n;
    c->ref->resize_v(want, rows, n, &taps, o);
    c->now->resize_v(got, rows, n, &taps, o);
    check_same(c, "dst", want, got, n);
    check_done(c);
}

void check_resize(fv_check *c)
{
    static const size_t taps[] = { 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 260 };

    if (check_slot(c, "resize_h", c->now->resize_h != c->below->resize_h))
        for (size_t t = 0; t < FV_COUNT(taps); t++)
            for (size_t m = 1; m <= 9; m++)
                for (size_t n_out = 1; n_out <= 13; n_out++)
                    check_h(c, m, taps[t] + check_below(c, 3) * check_below(c, 20), n_out, taps[t]);
    if (check_slot(c, "resize_v", c->now->resize_v != c->below->resize_v))
        for (size_t t = 0; t < FV_COUNT(taps); t++)
            for (size_t n = 1; n <= 131; n++)
                check_v(c, n, taps[t]);
}

/* ---- timing ------------------------------------------------------------------------------ */

typedef struct bench {
    const fv_kernels *kernels;
    fv_resize_taps taps;
    size_t m; /* rows in the first pass, rows out of the second */
    const uint8_t *src;
    uint8_t *dst;
} bench;

static void run_h(void *user)
{
    const bench *b = user;
    size_t src_ld = b->taps.n_in * 3, dst_ld = b->taps.n_out * 3;

    /* the output stays in cache, as it does in the engine */
    for (size_t row = 0; row < b->m; row += 4)
        b->kernels->resize_h(b->dst, dst_ld, b->src + row * src_ld, src_ld,
                             FV_MIN(b->m - row, (size_t)4), &b->taps);
}

static void run_v(void *user)
{
    const bench *b = user;
    size_t n = b->taps.n_in; /* here the bytes of a row */
    const uint8_t *rows[512];

    for (size_t i = 0; i < b->taps.n_taps; i++)
        rows[i] = b->src + i * n;
    for (size_t row = 0; row < b->m; row++)
        b->kernels->resize_v(b->dst, rows, n, &b->taps, row % b->taps.n_out);
}

static void bench_pass(fv_check *c, const char *label, bench_fn *run, size_t m, size_t n_in,
                       size_t n_out, size_t n_taps, double n_macs)
{
    bench b = { .kernels = c->now,
                .m = m,
                .src = bench_buffer(c, FV_TYPE_U8, m * n_in * 3),
                .dst = bench_buffer(c, FV_TYPE_U8, FV_MAX(n_in, n_out) * 12) };

    check_case(c, "%s", label);
    b.taps = make_taps(c, n_in, n_out, n_taps);
    bench ref = b;
    ref.kernels = c->ref;
    ref.m = FV_MIN(m, (size_t)16);
    bench_report(c, label, "GMAC/s", run, &b, n_macs, c->now == c->ref ? NULL : run, &ref,
                 n_macs * (double)ref.m / (double)m);
    check_done(c);
    bench_free(b.dst);
    bench_free((void *)(uintptr_t)b.src);
}

void bench_resize(fv_check *c)
{
    bench_shape shape[16];
    size_t n = bench_shapes(c, "resize", shape, FV_COUNT(shape));

    if (check_slot(c, "resize_h", c->now->resize_h != c->below->resize_h))
        for (size_t i = 0; i < n; i++) {
            size_t w = shape[i].v[0], h = shape[i].v[1], size = shape[i].v[2], taps = shape[i].v[3];
            bench_pass(c, shape[i].label, run_h, h, w, size, taps, (double)(h * size * taps * 3));
        }
    if (check_slot(c, "resize_v", c->now->resize_v != c->below->resize_v))
        for (size_t i = 0; i < n; i++) {
            size_t size = shape[i].v[2], taps = shape[i].v[3];
            bench_pass(c, shape[i].label, run_v, size, size * 3, 4, taps,
                       (double)(size * size * taps * 3));
        }
}
