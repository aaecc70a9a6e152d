/* Pillow's 8-bit filters, bit for bit: two passes, along rows first, each rounded to u8.
 *
 * The image may lie inside a larger black line (padding to a square): black adds nothing to a
 * sum, so its taps are left out and no padded image is ever made. Rows are resampled along
 * into a ring that holds what one output row needs, then across; both stay in cache:
 *
 *     src rows  --resize_h, 4 at a time-->  ring [n_ring, n_out * 3]  --resize_v-->  dst row
 */
#include <math.h>
#include <string.h>

#include "image/image.h"

enum { PRECISION_BITS = 22, ROW_BLOCK = FV_IMAGE_ROWS, MIN_STRIP = 16 };

/* ---- weights ----------------------------------------------------------------------------- */

/* Each filter over |x| in units of a pixel of the wider grid, in Pillow's order of operations. */

static const double pi = 3.14159265358979323846;

static double filter_box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

static double filter_bilinear(double x) { return fabs(x) < 1.0 ? 1.0 - fabs(x) : 0.0; }

static double filter_hamming(double x)
{
    x = fabs(x);
    if (x == 0.0)
        return 1.0;
    if (x >= 1.0)
        return 0.0;
    x *= pi;
    return sin(x) / x * (0.54 + 0.46 * cos(x));
}

/* Keys' cubic, a = -0.5. */
static double filter_bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x *= pi;
    return sin(x) / x;
}

static double filter_lanczos(double x)
{
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

/* NEAREST has no kernel: it takes one pixel. */
static const struct kernel {
    double (*at)(double x);
    double support;
} kernels_of[FV_FILTER_COUNT] = {
    [FV_FILTER_BICUBIC] = { filter_bicubic, 2.0 }, [FV_FILTER_NEAREST] = { filter_box, 0.5 },
    [FV_FILTER_BOX] = { filter_box, 0.5 },         [FV_FILTER_BILINEAR] = { filter_bilinear, 1.0 },
    [FV_FILTER_HAMMING] = { filter_hamming, 1.0 }, [FV_FILTER_LANCZOS] = { filter_lanczos, 3.0 },
};

/* The centre of an output for NEAREST. Pillow adds up steps, which rounds differently from a
 * product, so outputs are asked for in order. Begins as zero. */
typedef struct nearest {
    int64_t n; /* steps so far */
    double at;
} nearest;

static int64_t nearest_at(nearest *s, const fv_axis *axis, int64_t o)
{
    double step = (double)axis->in / (double)axis->out;

    if (s->n == 0)
        s->at = step * 0.5;
    for (; s->n < o; s->n++)
        s->at += step;
    return FV_MIN((int64_t)s->at, axis->in - 1);
}

/* The inputs [begin, end) under the kernel of one output; shrinking widens the kernel. */
typedef struct window {
    double center, filter_scale;
    int64_t begin, end;
} window;

static window window_at(const fv_axis *axis, int64_t o, nearest *s)
{
    double scale = (double)axis->in / (double)axis->out;
    window v = { .center = ((double)o + 0.5) * scale, .filter_scale = scale < 1.0 ? 1.0 : scale };
    double support = kernels_of[axis->filter].support * v.filter_scale;

    if (o < 0 || o >= axis->out) { /* black */
        v.begin = v.end = 0;
        return v;
    }
    /* Pillow leaves the pass out when sizes are the same; one tap of weight 1 does what it does */
    if (axis->in == axis->out || axis->filter == FV_FILTER_NEAREST) {
        v.begin = axis->in == axis->out ? o : nearest_at(s, axis, o);
        v.end = v.begin + 1;
        v.center = (double)v.begin + 0.5;
        v.filter_scale = 1.0;
        return v;
    }
    v.begin = FV_MAX((int64_t)(v.center - support + 0.5), (int64_t)0);
    v.end = FV_MIN((int64_t)(v.center + support + 0.5), axis->in);
    return v;
}

/* k and w hold end - begin values. */
static void fill_weights(int32_t *w, double *k, const window *v, fv_filter filter)
{
    double sum = 0.0, inverse = 1.0 / v->filter_scale;
    int64_t n = v->end - v->begin;

    for (int64_t i = 0; i < n; i++) {
        k[i] = kernels_of[filter].at(((double)(i + v->begin) - v->center + 0.5) * inverse);
        sum += k[i];
    }
    for (int64_t i = 0; i < n; i++) {
        double y = sum != 0.0 ? k[i] / sum : k[i];
        w[i] = (int32_t)(y * (1 << PRECISION_BITS) + (y < 0 ? -0.5 : 0.5));
    }
}

/* ---- one direction ----------------------------------------------------------------------- */

typedef struct plan {
    /* of the outputs [lo, hi): those that see the image; the others are black */
    fv_resize_taps taps;
    int64_t lo, hi;
    void *block; /* owns what taps points to */
} plan;

/* The part of the window that lies on the image, as indices into the image. */
static void visible_part(int64_t *begin, int64_t *end, const fv_axis *axis, const window *v)
{
    *begin = FV_MIN(FV_MAX(v->begin - axis->offset, (int64_t)0), axis->length);
    *end = FV_MIN(FV_MAX(v->end - axis->offset, (int64_t)0), axis->length);
}

/* Sets sizes; returns the widest window, the padding's part included. */
static int64_t measure(plan *p, const fv_axis *axis)
{
    int64_t widest = 0, n_taps = 1;
    nearest s = { 0 };

    p->lo = p->hi = 0;
    for (int64_t o = 0; o < axis->count; o++) {
        window v = window_at(axis, axis->first + o, &s);
        int64_t begin, end;
        visible_part(&begin, &end, axis, &v);
        if (begin == end)
            continue;
        if (p->hi == 0)
            p->lo = o;
        p->hi = o + 1;
        widest = FV_MAX(widest, v.end - v.begin);
        n_taps = FV_MAX(n_taps, end - begin);
    }
    p->taps.n_in = (size_t)axis->length;
    p->taps.n_out = (size_t)(p->hi - p->lo);
    p->taps.n_taps = (size_t)n_taps;
    p->taps.n_groups = ((size_t)n_taps + 3) / 4;
    return widest;
}

static void split_weights(const fv_resize_taps *t, int16_t *w16, int8_t *w8)
{
    for (size_t g = 0; g < t->n_out * t->n_groups; g++, w16 += 8, w8 += 16)
        for (size_t i = 0; i < 4; i++) {
            int32_t w = t->w[g * 4 + i];
            w16[i] = (int16_t)(w & 0x7fff);
            w16[4 + i] = (int16_t)(w >> 15);
            w8[i] = (int8_t)w;
            w = (w - w8[i]) >> 8;
            w8[4 + i] = (int8_t)w;
            w8[8 + i] = (int8_t)((w - w8[4 + i]) >> 8);
            w8[12 + i] = 0;
        }
}

static fv_status make_plan(plan *p, const fv_axis *axis, fv_error *err)
{
    size_t widest = (size_t)measure(p, axis);
    fv_resize_taps *t = &p->taps;
    size_t n = t->n_out * t->n_groups;
    fv_arena arena = { 0 };
    nearest s = { 0 };
    int32_t *first, *w, *window_w;
    int16_t *w16;
    int8_t *w8;
    double *k;

    for (int carve = 0; carve < 2; carve++) {
        if (carve) {
            p->block = fv_alloc_zero(arena.used, 1);
            if (arena.overflow || !p->block)
                return fv_fail_memory(err, arena.used, "the resampler's weights");
            arena = (fv_arena){ .base = p->block, .capacity = arena.used };
        }
        first = fv_arena_take(&arena, t->n_out, sizeof *first);
        w = fv_arena_take(&arena, n, 4 * sizeof *w);
        w16 = fv_arena_take(&arena, n, 8 * sizeof *w16);
        w8 = fv_arena_take(&arena, n, 16 * sizeof *w8);
        window_w = fv_arena_take(&arena, widest, sizeof *window_w);
        k = fv_arena_take(&arena, widest, sizeof *k);
    }
    for (int64_t o = p->lo; o < p->hi; o++) {
        window v = window_at(axis, axis->first + o, &s);
        int64_t begin, end, i = o - p->lo;
        visible_part(&begin, &end, axis, &v);
        fill_weights(window_w, k, &v, axis->filter);
        /* Every output has n_taps inputs; near the end its own are the last of them. */
        first[i] = (int32_t)FV_MIN(begin, axis->length - (int64_t)t->n_taps);
        memcpy(w + i * (int64_t)t->n_groups * 4 + (begin - first[i]),
               window_w + (begin + axis->offset - v.begin), (size_t)(end - begin) * sizeof *w);
    }
    t->first = first;
    t->w = w;
    split_weights(t, w16, w8);
    t->w16 = w16;
    t->w8 = w8;
    return FV_OK;
}

/* ---- both passes ------------------------------------------------------------------------- */

typedef struct resize_job {
    uint8_t *dst; /* of row y.lo */
    size_t dst_ld;
    const fv_image *image;
    plan x, y;
    size_t n_tasks;
    size_t n_ring, ring_ld; /* rows kept, bytes from one to the next */
    uint8_t *rings;         /* [worker, n_ring, ring_ld] */
    const uint8_t **rows;   /* [worker, y.taps.n_taps] */
    uint8_t *converted;     /* [worker, ROW_BLOCK, width, 3]; NULL for a plain image */
    const fv_kernels *kernels;
} resize_job;

static void resize_strip(void *user, size_t task, unsigned worker)
{
    const resize_job *job = user;
    const fv_resize_taps *x = &job->x.taps, *y = &job->y.taps;
    uint8_t *ring = job->rings + worker * job->n_ring * job->ring_ld;
    const uint8_t **rows = job->rows + worker * y->n_taps;
    uint8_t *converted = job->converted ? job->converted + worker * ROW_BLOCK * x->n_in * 3 : NULL;
    size_t begin = y->n_out * task / job->n_tasks, end = y->n_out * (task + 1) / job->n_tasks;
    if (begin == end)
        return;
    size_t origin = (size_t)y->first[begin], next = origin; /* next source row to be resampled */
    size_t left = (size_t)job->x.lo * 3, n = x->n_out * 3;

    for (size_t o = begin; o < end; o++) {
        size_t first = (size_t)y->first[o];
        for (; next < first + y->n_taps; next += ROW_BLOCK) {
            size_t m = FV_MIN((size_t)ROW_BLOCK, y->n_in - next);
            size_t src_ld;
            const uint8_t *src = fv_image_rows(job->image, next, m, converted, &src_ld);
            job->kernels->resize_h(ring + (next - origin) % job->n_ring * job->ring_ld,
                                   job->ring_ld, src, src_ld, m, x);
        }
        for (size_t i = 0; i < y->n_taps; i++)
            rows[i] = ring + (first + i - origin) % job->n_ring * job->ring_ld;
        uint8_t *dst = job->dst + o * job->dst_ld;
        memset(dst, 0, left);
        job->kernels->resize_v(dst + left, rows, n, y, o);
        memset(dst + left + n, 0, job->dst_ld - left - n);
    }
}

fv_status fv_resize_u8(uint8_t *dst, const fv_image *image, const fv_axis *x, const fv_axis *y,
                       fv_pool *pool, const fv_kernels *kernels, fv_error *err)
{
    size_t n_workers = pool ? fv_pool_threads(pool) : 1;
    bool plain = fv_image_is_plain(image);
    resize_job job = { .dst_ld = (size_t)x->count * 3, .image = image, .kernels = kernels };
    fv_status status;

    FV_TRY_GOTO(make_plan(&job.x, x, err));
    FV_TRY_GOTO(make_plan(&job.y, y, err));
    size_t n_rows = job.y.taps.n_out;
    job.dst = dst + (size_t)job.y.lo * job.dst_ld;
    job.n_tasks = n_workers == 1 ? 1 : FV_MAX(FV_MIN(n_workers * 4, n_rows / MIN_STRIP), (size_t)1);
    /* Blocks of ROW_BLOCK never wrap, and one may reach past what an output needs. */
    job.n_ring = (job.y.taps.n_taps + 2 * ROW_BLOCK - 2) / ROW_BLOCK * ROW_BLOCK;
    job.ring_ld = (job.x.taps.n_out * 3 + 63) / 64 * 64;
    job.rings = fv_alloc(n_workers * job.n_ring, job.ring_ld);
    job.rows = fv_alloc(n_workers * job.y.taps.n_taps, sizeof *job.rows);
    if (!plain)
        job.converted = fv_alloc(n_workers * ROW_BLOCK, job.x.taps.n_in * 3);
    if (!job.rings || !job.rows || (!plain && !job.converted)) {
        status = fv_fail_memory(err, n_workers * job.n_ring * job.ring_ld, "resampling the image");
        goto fail;
    }
    memset(dst, 0, (size_t)job.y.lo * job.dst_ld);
    memset(dst + (size_t)job.y.hi * job.dst_ld, 0, (size_t)(y->count - job.y.hi) * job.dst_ld);
    if (pool)
        fv_pool_run(pool, job.n_tasks, resize_strip, &job);
    else
        resize_strip(&job, 0, 0);
    status = FV_OK;
fail:
    fv_free(job.converted);
    fv_free(job.rows);
    fv_free(job.rings);
    fv_free(job.y.block);
    fv_free(job.x.block);
    return status;
}
