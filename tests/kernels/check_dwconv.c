/* Depthwise convolution: every shape of kernel, stride and multiplicity against double precision,
 * and the same bits however a row is cut into segments. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "check.h"

static double gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }

/* want[x - x0][o], and the sum of magnitudes that bounds its error */
static void want_of(const fv_dwconv_args *d, size_t x, size_t o, double *want, double *size)
{
    size_t n_out = d->channels * d->mult;
    double y = d->bias ? d->bias[o] : 0, sum = fabs(y);
    for (unsigned dy = 0; dy < d->k; dy++) {
        for (unsigned dx = 0; dx < d->k; dx++) {
            size_t at = x * d->stride + dx;
            if (!d->src[dy] || at < d->k / 2 || at - d->k / 2 >= d->width)
                continue;
            double p = (double)d->src[dy][(at - d->k / 2) * d->src_ld + o / d->mult] *
                       d->weight[(dy * d->k + dx) * n_out + o];
            y += p;
            sum += fabs(p);
        }
    }
    *want = y;
    *size = sum;
}

static void one_case(fv_check *c, unsigned k, unsigned stride, unsigned mult, size_t width,
                     size_t channels)
{
    size_t out_width = (width - 1) / stride + 1, n_out = channels * mult;
    fv_type type = (fv_type[]){ FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F16,
                                FV_TYPE_BF16 }[check_below(c, 4)];
    size_t elem = fv_type_size(type);
    fv_dwconv_args d = { .width = width,
                         .src_ld = channels + check_below(c, 3) * 5,
                         .channels = channels,
                         .k = k,
                         .stride = stride,
                         .mult = mult,
                         .act = check_below(c, 2) ? FV_ACT_GELU : FV_ACT_NONE,
                         .dst_type = type,
                         .dst_ld = n_out + check_below(c, 3) * 7 };
    for (unsigned dy = 0; dy < k; dy++) {
        if (check_below(c, 6) == 0)
            continue; /* outside the map */
        size_t n = (width - 1) * d.src_ld + channels;
        float *row = check_in(c, n * sizeof *row, sizeof *row);
        check_fill(c, row, FV_TYPE_F32, n, -4, 4);
        d.src[dy] = row;
    }
    float *weight = check_in(c, k * k * n_out * sizeof *weight, sizeof *weight);
    check_fill(c, weight, FV_TYPE_F32, k * k * n_out, -1, 1);
    d.weight = weight;
    if (check_below(c, 3)) {
        float *bias = check_in(c, n_out * sizeof *bias, sizeof *bias);
        check_fill(c, bias, FV_TYPE_F32, n_out, -2, 2);
        d.bias = bias;
    }

    size_t n_dst = (out_width - 1) * d.dst_ld + n_out;
    uint8_t *dst = check_out(c, n_dst * elem, elem);
    d.dst = dst;
    d.x1 = out_width;
    c->now->dwconv(&d);
    for (size_t x = 0; x < out_width; x++) {
        for (size_t o = 0; o < n_out; o++) {
            double want, size;
            want_of(&d, x, o, &want, &size);
            double bound = 2.0 * k * k * 0x1p-24 * size;
            if (d.act == FV_ACT_GELU) {
                want = gelu(want);
                bound = 1.2 * bound + 1e-6 * fmax(1, fabs(want));
            }
            if (type == FV_TYPE_F16 && fabs(want) > 65504)
                want = copysign(65504, want);
            bound += check_half_ulp(type, fabs(want) + bound);
            check_near(c, "y", x * n_out + o, want, check_get(dst, type, x * d.dst_ld + o), bound);
        }
    }
    check_gaps(c, "y", dst, elem, out_width, n_out, d.dst_ld);

    /* in segments */
    uint8_t *part = check_out(c, n_dst * elem, elem);
    for (size_t x = 0; x < out_width;) {
        size_t n = 1 + check_below(c, FV_MIN(out_width - x, (size_t)21));
        d.x0 = x;
        d.x1 = x + n;
        d.dst = part + x * d.dst_ld * elem;
        c->now->dwconv(&d);
        x += n;
    }
    check_same(c, "segments", dst, part, n_dst * elem);
}

void check_dwconv(fv_check *c)
{
    static const size_t widths[] = { 1, 2, 3, 4, 7, 8, 16, 17, 19, 22, 33, 38, 65 };
    static const size_t channels[] = { 1, 3, 8, 15, 16, 17, 24, 32, 40 };
    if (!check_slot(c, "dwconv", c->now->dwconv != c->below->dwconv))
        return;
    for (unsigned shape = 0; shape < 8; shape++) {
        unsigned k = shape & 4 ? 7 : 3, stride = 1 + (shape >> 1 & 1), mult = 1 + (shape & 1);
        for (size_t w = 0; w < FV_COUNT(widths); w++) {
            for (size_t n = 0; n < FV_COUNT(channels); n++) {
                if (!check_case(c, "k=%u stride=%u mult=%u width=%zu channels=%zu", k, stride, mult,
                                widths[w], channels[n]))
                    continue;
                one_case(c, k, stride, mult, widths[w], channels[n]);
                check_done(c);
            }
        }
    }
}

/* ---- timing: some rows of a map, one call each; larger than L2, as in the encoder -------- */

typedef struct map_bench {
    fv_dwconv_fn *fn;
    fv_dwconv_args args;
    const float *src;
    uint8_t *dst;
    size_t n_rows; /* of the output */
} map_bench;

static void run_map(void *user)
{
    map_bench *b = user;
    fv_dwconv_args d = b->args;
    for (size_t y = 0; y < b->n_rows; y++) {
        for (unsigned dy = 0; dy < d.k; dy++)
            d.src[dy] = b->src + (y * d.stride + dy) * d.width * d.src_ld;
        d.dst = b->dst + y * d.x1 * d.dst_ld * fv_type_size(d.dst_type);
        b->fn(&d);
    }
}

/* A shape is: width of the input, channels, k, stride, mult, gelu. */
void bench_dwconv(fv_check *c)
{
    bench_shape shape[32];
    if (!check_slot(c, "dwconv", c->now->dwconv != c->below->dwconv))
        return;
    size_t n = bench_shapes(c, "dwconv", shape, FV_COUNT(shape));
    for (size_t i = 0; i < n; i++) {
        const size_t *v = shape[i].v;
        size_t out = v[0] / v[3], n_out = v[1] * v[4];
        size_t n_rows = FV_MIN(out, (size_t)16);
        float *src = bench_buffer(c, FV_TYPE_F32, (n_rows * v[3] + v[2]) * v[0] * v[1]);
        float *weight = bench_buffer(c, FV_TYPE_F32, v[2] * v[2] * n_out);
        float *dst = bench_buffer(c, FV_TYPE_F32, n_rows * out * n_out);
        map_bench b = { .fn = c->now->dwconv,
                        .src = src,
                        .dst = (uint8_t *)dst,
                        .n_rows = n_rows,
                        .args = { .width = v[0],
                                  .src_ld = v[1],
                                  .channels = v[1],
                                  .k = (unsigned)v[2],
                                  .stride = (unsigned)v[3],
                                  .mult = (unsigned)v[4],
                                  .weight = weight,
                                  .bias = weight,
                                  .act = v[5] ? FV_ACT_GELU : FV_ACT_NONE,
                                  .x1 = out,
                                  .dst_ld = n_out } };
        map_bench ref = b;
        ref.fn = c->ref->dwconv;
        ref.n_rows = 1;
        double row = 2.0 * (double)(out * n_out * v[2] * v[2]);
        bench_report(c, shape[i].label, "GFLOP/s", run_map, &b, row * (double)n_rows,
                     c->now->dwconv == c->ref->dwconv ? NULL : run_map, &ref, row);
        bench_free(src);
        bench_free(weight);
        bench_free(dst);
    }
}
