/* nn: linear layers with weights in floats, int8 and blocks, by every way that fv_linear_run has:
 * wide, tall, one row; several layers that share their input; on one to four threads. */
#include "ops/ops_case.h"

enum { MARGIN = 3 }; /* columns that belong to nobody, between rows */

typedef struct epilogue {
    bool gelu, scale, residual, in_place;
} epilogue;

static const epilogue epilogues[] = {
    { false, false, false, false }, { true, false, false, false }, { false, true, true, false },
    { false, false, true, true },   { true, true, true, false },
};

typedef struct linear_case {
    size_t m, n, k;
    fv_type weights, x_type, y_type;
    epilogue e;
} linear_case;

static const char *text_of(const linear_case *l, int level, int threads)
{
    static char text[256];
    snprintf(text, sizeof text, "%s, %d threads: m=%zu n=%zu k=%zu weights %s x %s y %s%s%s%s%s",
             level_name(level), threads, l->m, l->n, l->k, fv_type_name(l->weights),
             fv_type_name(l->x_type), fv_type_name(l->y_type), l->e.gelu ? " gelu" : "",
             l->e.scale ? " scale" : "", l->e.residual ? " residual" : "",
             l->e.in_place ? " in place" : "");
    return text;
}

/* A layer with its output and all that the epilogue reads. */
typedef struct layer {
    fv_linear l;
    fv_mat w;
    fv_u8 to;
    float *residual; /* what it was before the run */
    size_t y_bytes;
} layer;

static void make_layer(layer *a, const linear_case *c)
{
    const size_t ldy = c->y_type == FV_TYPE_U8 ? c->n : c->n + MARGIN;
    *a = (layer){ .w = make_mat(c->weights, c->n, c->k), .to = make_u8(c->n) };
    a->y_bytes = c->m * ldy * fv_type_size(c->y_type);
    a->l = (fv_linear){ .w = &a->w,
                        .y = case_alloc(a->y_bytes),
                        .ldy = ldy,
                        .y_type = c->y_type,
                        .y_to_int8 = c->y_type == FV_TYPE_U8 ? &a->to : NULL,
                        .act = c->e.gelu ? FV_ACT_GELU : FV_ACT_NONE,
                        .scale = c->e.scale ? make_floats(c->n, -1.5f, 1.5f) : NULL };
    if (!c->e.residual)
        return;
    a->l.ldr = ldy;
    a->residual = make_floats(c->m * ldy, -2, 2);
    a->l.residual = a->residual;
    if (c->e.in_place) {
        memcpy(a->l.y, a->residual, a->y_bytes);
        a->l.residual = a->l.y;
    }
}

static void check_margin(const layer *a, const linear_case *c, const char *text)
{
    for (size_t i = 0; i < c->m; i++) {
        for (size_t j = c->n; j < a->l.ldy; j++) {
            const size_t size = fv_type_size(c->y_type), at = (i * a->l.ldy + j) * size;
            static const uint8_t poison[4] = { 0xa5, 0xa5, 0xa5, 0xa5 };
            const void *want = c->e.in_place ? (const void *)((uint8_t *)a->residual + at) : poison;
            if (memcmp((const uint8_t *)a->l.y + at, want, size))
                fail_msg("%s: written between rows, at [%zu, %zu]", text, i, j);
        }
    }
}

/* ---- floats, against double ------------------------------------------------------------------ */

/* y[i, j] and how far off it may be: 2 k eps sum |x w| of the sum (kernels.h); GELU's 1e-6, with
 * its slope of at most 1.13; half a step of y's type; an ulp of f32 for each step of the
 * epilogue. */
static double exact_float(const layer *a, const linear_case *c, const void *x, size_t i, size_t j,
                          double *bound)
{
    double sum = 0, size = 0;
    for (size_t q = 0; q < c->k; q++) {
        double w = mat_value(&a->w, j, q), v = get(x, c->x_type, i * c->k + q);
        if (c->x_type == FV_TYPE_BF16) /* packed as what the operands are */
            w = (double)fv_bf16_to_f32(fv_f32_to_bf16((float)w));
        sum += w * v;
        size += fabs(w * v);
    }
    *bound = 2 * (double)c->k * 0x1p-24 * size;
    if (a->w.bias) {
        sum += (double)a->w.bias[j];
        *bound += 0x1p-23 * fabs(sum);
    }
    if (c->e.gelu) {
        sum = gelu(sum);
        *bound = 1.13 * *bound + 1e-6 * fmax(1, fabs(sum));
    }
    if (c->e.scale) {
        sum *= (double)a->l.scale[j];
        *bound = *bound * fabs((double)a->l.scale[j]) + 0x1p-23 * fabs(sum);
    }
    if (c->e.residual) {
        double r = (double)a->residual[i * a->l.ldy + j];
        sum += r;
        *bound += 0x1p-23 * (fabs(sum) + fabs(r));
    }
    *bound += half_step(c->y_type, fabs(sum) + *bound);
    return sum;
}

static void check_float(const linear_case *c, int level, int threads)
{
    ops_case o;
    layer a;
    const char *text = text_of(c, level, threads);
    case_open(&o, level, threads);
    void *x = make_values(c->x_type, c->m * c->k, -1, 1);
    make_layer(&a, c);
    case_reserve(&o, fv_mat_need(&o.ops, &a.w, c->m, c->x_type));
    fv_linear_run(&o.ops, &a.l, 1, x, c->x_type, c->k, c->m);
    /* all rows of a small case, of a large one the ends and some between */
    for (size_t i = 0; i < c->m; i += i + 9 < c->m && i > 9 ? 1 + c->m / 40 : 1) {
        for (size_t j = 0; j<c->n; j += c->n> 100 && j > 9 && j + 9 < c->n ? 7 : 1) {
            double bound, want = exact_float(&a, c, x, i, j, &bound),
                          got = get(a.l.y, c->y_type, i * a.l.ldy + j);
            if (!(fabs(got - want) <= bound))
                fail_msg("%s: [%zu, %zu] is %.9g, expected %.9g within %.2g", text, i, j, got, want,
                         bound);
        }
    }
    check_margin(&a, c, text);
    case_check(&o);
    case_close(&o);
}

static void test_float_types(void **state)
{
    static const fv_type types[] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t w = 0; w < 3; w++)
            for (size_t x = 0; x < 3; x++)
                for (size_t y = 0; y < 3; y++)
                    for (size_t e = 0; e < FV_COUNT(epilogues); e++)
                        if (!epilogues[e].in_place || types[y] == FV_TYPE_F32)
                            check_float(&(linear_case){ 7, 67, 34, types[w], types[x], types[y],
                                                        epilogues[e] },
                                        level, 1 + (int)(w + x + y + e) % MAX_THREADS);
}

/* The split is tall from 4 x 96 rows a thread on: rows around that, around blocks of 96, and
 * few. */
static void test_float_rows(void **state)
{
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (int threads = 1; threads <= MAX_THREADS; threads++) {
            const size_t limit = 384 * (size_t)threads;
            const size_t rows[] = { 1, 2, 3, 5, 64, 95, 96, 97, limit - 1, limit, limit + 1 };
            for (size_t i = 0; i < FV_COUNT(rows); i++) {
                linear_case c = { rows[i],     21 + i,          20, FV_TYPE_F32, FV_TYPE_F32,
                                  FV_TYPE_F32, epilogues[i % 5] };
                check_float(&c, level, threads);
                c.weights = c.x_type = FV_TYPE_BF16;
                check_float(&c, level, threads);
                c.weights = c.x_type = FV_TYPE_F16; /* widened in front of the product */
                check_float(&c, level, threads);
            }
        }
    }
}

/* Widths and depths that fit no tile, and enough columns for many tasks. */
static void test_float_sizes(void **state)
{
    static const size_t n[] = { 1, 2, 15, 16, 17, 31, 63, 65, 500, 1031 },
                        k[] = { 1, 2, 3, 31, 33, 127, 258 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (size_t i = 0; i < FV_COUNT(n); i++) {
            for (size_t j = 0; j < FV_COUNT(k); j++) {
                linear_case c = {
                    6, n[i], k[j], FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, epilogues[(i + j) % 5]
                };
                check_float(&c, level, 1 + (int)(i + j) % MAX_THREADS);
                c.weights = c.x_type = FV_TYPE_BF16;
                c.k = (k[j] + 1) / 2 * 2; /* the kernel takes pairs */
                check_float(&c, level, 1 + (int)j % MAX_THREADS);
            }
        }
    }
}

/* One row of f32, no activation, no scale: the matrix-vector kernels; with weights of every
 * type. */
static void test_one_row(void **state)
{
    static const fv_type types[] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t t = 0; t < 3; t++)
            for (size_t n = 1; n < 3000; n = n * 3 + 1)
                for (size_t e = 0; e < 4; e += 3)
                    check_float(&(linear_case){ 1, n, 65, types[t], FV_TYPE_F32, FV_TYPE_F32,
                                                epilogues[e] },
                                level, 1 + (int)n % MAX_THREADS);
}

/* ---- int8, exact --------------------------------------------------------------------------- */

/* The contract of gemm_u8 in kernels.h, a step at a time. x: bytes, or numbers of 16 bits. */
static float exact_int8(const layer *a, const linear_case *c, const uint16_t *x, size_t i, size_t j,
                        double *with_gelu)
{
    const int8_t *w = (const int8_t *)a->w.data + j * c->k;
    int32_t s = a->w.bias8[j], low = 0;
    for (size_t q = 0; q < c->k; q++) {
        const int at = x[i * c->k + q];
        s += (a->w.in.fine ? at >> 8 : at) * w[q];
        low += a->w.in.fine ? (at & 255) * w[q] : 0;
    }
    if (c->y_type == FV_TYPE_U8 && !c->e.gelu && !c->e.scale && !c->e.residual)
        return (float)s * (a->w.mul[j] * a->to.inv[j]);
    float y = fmaf((float)low, 0x1p-8f, (float)s) * a->w.mul[j];
    *with_gelu = gelu((double)y);
    if (c->e.scale) {
        y *= a->l.scale[j];
        *with_gelu *= (double)a->l.scale[j];
    }
    if (c->e.residual) {
        y += a->residual[i * a->l.ldy + j];
        *with_gelu += (double)a->residual[i * a->l.ldy + j];
    }
    return c->y_type == FV_TYPE_U8 ? y * a->to.inv[j] : y;
}

static void check_bytes(const linear_case *c, bool fine, int level, int threads)
{
    ops_case o;
    layer a;
    const char *text = text_of(c, level, threads);
    case_open(&o, level, threads);
    make_layer(&a, c);
    a.w.in.fine = fine;
    void *x = make_values(c->x_type, c->m * c->k, -1.5f, 1.5f);
    uint16_t *q = case_alloc(c->m * c->k * sizeof *q);
    for (size_t i = 0; i < c->m * c->k; i++) {
        const float inv = a.w.in.inv[i % c->k];
        q[i] = c->x_type == FV_TYPE_U8 ? ((uint8_t *)x)[i]
               : a.w.in.fine           ? to_u16(((float *)x)[i] * (256 * inv), a.w.in.zero)
                                       : to_u8(((float *)x)[i] * inv, a.w.in.zero);
    }
    case_reserve(&o, fv_mat_need(&o.ops, &a.w, c->m, FV_TYPE_F32));
    fv_linear_run(&o.ops, &a.l, 1, x, c->x_type, c->k, c->m);
    for (size_t i = 0; i<c->m; i += c->m> 100 && i > 9 && i + 9 < c->m ? 1 + c->m / 40 : 1) {
        for (size_t j = 0; j < c->n; j++) {
            double smooth = 0, got = get(a.l.y, c->y_type, i * a.l.ldy + j), bound = 0, want;
            float y = exact_int8(&a, c, q, i, j, &smooth);
            if (c->e.gelu && c->y_type == FV_TYPE_U8) { /* GELU to 3e-4, then it is rounded */
                want = fmin(fmax(smooth * (double)a.to.inv[j] + a.to.zero, 0), 255);
                bound = 0.5 + (3e-4 * 2.5 + 1e-5) * (double)a.to.inv[j];
            } else if (c->e.gelu) {
                want = smooth;
                bound = 3e-6 * fmax(1, fabs(smooth)) + half_step(c->y_type, smooth);
            } else if (c->y_type == FV_TYPE_U8) {
                want = to_u8(y, a.to.zero);
            } else {
                float stored;
                set(&stored, c->y_type, 0, y);
                want = get(&stored, c->y_type, 0);
            }
            if (!(fabs(got - want) <= bound))
                fail_msg("%s%s: [%zu, %zu] is %.9g, expected %.9g within %.2g", text,
                         fine ? ", rows of 16 bits" : "", i, j, got, want, bound);
        }
    }
    check_margin(&a, c, text);
    case_check(&o);
    case_close(&o);
}

static void check_int8(const linear_case *c, int level, int threads)
{
    check_bytes(c, false, level, threads);
}

static void test_int8_types(void **state)
{
    static const fv_type x[] = { FV_TYPE_U8, FV_TYPE_F32 },
                         y[] = { FV_TYPE_U8, FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t i = 0; i < 2; i++)
            for (size_t j = 0; j < 4; j++)
                for (size_t e = 0; e < FV_COUNT(epilogues); e++)
                    if (!epilogues[e].in_place || y[j] == FV_TYPE_F32)
                        check_int8(
                            &(linear_case){ 7, 67, 39, FV_TYPE_I8, x[i], y[j], epilogues[e] },
                            level, 1 + (int)(i + j + e) % MAX_THREADS);
}

static void test_int8_rows(void **state)
{
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (int threads = 1; threads <= MAX_THREADS; threads++) {
            const size_t limit = 384 * (size_t)threads;
            const size_t rows[] = { 1, 2, 3, 5, 63, 64, 65, 96, 97, limit - 1, limit, limit + 1 };
            for (size_t i = 0; i < FV_COUNT(rows); i++)
                check_int8(&(linear_case){ rows[i], 21 + i, 20 + i % 5, FV_TYPE_I8,
                                           i % 2 ? FV_TYPE_U8 : FV_TYPE_F32,
                                           i % 3 ? FV_TYPE_U8 : FV_TYPE_F32, epilogues[0] },
                           level, threads);
        }
    }
}

/* Rows of 16 bits: all epilogues; both splits; rows and columns around those of a block (128, 256),
 * depths that fill no word. */
static void test_fine(void **state)
{
    static const fv_type y[] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    static const size_t sizes[][3] = { { 1, 1, 1 },      { 2, 3, 2 },     { 127, 31, 63 },
                                       { 128, 256, 64 }, { 129, 257, 5 }, { 300, 500, 130 },
                                       { 385, 33, 20 },  { 900, 300, 7 } };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (size_t j = 0; j < FV_COUNT(y); j++)
            for (size_t e = 0; e < FV_COUNT(epilogues); e++)
                if (!epilogues[e].in_place || y[j] == FV_TYPE_F32)
                    check_bytes(
                        &(linear_case){ 7, 67, 39, FV_TYPE_I8, FV_TYPE_F32, y[j], epilogues[e] },
                        true, level, 1 + (int)(j + e) % MAX_THREADS);
        for (size_t i = 0; i < FV_COUNT(sizes); i++)
            check_bytes(&(linear_case){ sizes[i][0], sizes[i][1], sizes[i][2], FV_TYPE_I8,
                                        FV_TYPE_F32, FV_TYPE_F32, epilogues[0] },
                        true, level, 1 + (int)(i % 2));
    }
}

static void test_int8_sizes(void **state)
{
    static const size_t n[] = { 1, 2, 15, 16, 17, 31, 63, 65, 500, 1031 },
                        k[] = { 1, 2, 3, 4, 5, 63, 130 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t i = 0; i < FV_COUNT(n); i++)
            for (size_t j = 0; j < FV_COUNT(k); j++)
                check_int8(&(linear_case){ 6, n[i], k[j], FV_TYPE_I8, FV_TYPE_F32,
                                           j % 2 ? FV_TYPE_U8 : FV_TYPE_F32, epilogues[0] },
                           level, 1 + (int)(i + j) % MAX_THREADS);
}

/* ---- blocks: against double, x rounded to 8 bits in blocks --------------------------------- */

/* A block of x is off by at most half a step d = max |x| / 127; products and sums are f32. */
static double exact_blocks(const fv_mat *w, const float *x, size_t j, double *bound)
{
    double sum = w->bias ? (double)w->bias[j] : 0, size = fabs(sum);
    *bound = 0;
    for (size_t b = 0; b < w->k; b += FV_BLOCK) {
        double most = 0, weights = 0;
        for (size_t i = b; i < FV_MIN(b + FV_BLOCK, w->k); i++) {
            double v = mat_value(w, j, i);
            sum += v * (double)x[i];
            size += fabs(v * (double)x[i]);
            weights += fabs(v);
            most = fmax(most, fabs((double)x[i]));
        }
        *bound += fv_type_is_block(w->type) ? 0.5001 * most / 127 * weights : 0;
    }
    *bound += (double)w->k * 0x1p-22 * size;
    return sum;
}

/* Layers that share their input, some of them in floats, as in the decoder. */
static void check_blocks(const fv_type *types, bool row_scaled, size_t m, size_t k, bool residual,
                         int level, int threads)
{
    static const size_t widths[3] = { 65, 30, 131 };
    ops_case o;
    fv_mat w[3];
    fv_linear l[3];
    float *add[3];
    case_open(&o, level, threads);
    float *x = make_floats(m * k, -2, 2);
    for (size_t i = 0; i < 3; i++) {
        w[i] = row_scaled && types[i] == FV_TYPE_Q8_0 ? make_row_scaled(widths[i], k)
                                                      : make_mat(types[i], widths[i], k);
        add[i] = make_floats(m * widths[i], -1, 1);
        l[i] = (fv_linear){ .w = &w[i],
                            .y = case_alloc(m * widths[i] * sizeof(float)),
                            .ldy = widths[i],
                            .residual = residual ? add[i] : NULL,
                            .ldr = widths[i] };
    }
    case_reserve(&o, fv_ops_max(fv_quant_need(o.ops.k, o.ops.n_workers, 131, k, m),
                                fv_linear_need(o.ops.k, o.ops.n_workers, 131, k, m, FV_TYPE_F32)));
    fv_linear_run(&o.ops, l, 3, x, FV_TYPE_F32, k, m);
    for (size_t i = 0; i < 3; i++) {
        for (size_t row = 0; row < m; row++) {
            for (size_t j = 0; j < widths[i]; j++) {
                double bound, want = exact_blocks(&w[i], x + row * k, j, &bound),
                              got = (double)((float *)l[i].y)[row * widths[i] + j];
                want += residual ? (double)add[i][row * widths[i] + j] : 0;
                if (!(fabs(got - want) <= bound + 1e-6 * fabs(want)))
                    fail_msg("%s, %d threads: %s m=%zu k=%zu: [%zu, %zu] is %.9g, expected %.9g "
                             "within %.2g",
                             level_name(level), threads, fv_type_name(types[i]), m, k, row, j, got,
                             want, bound);
            }
        }
    }
    case_check(&o);
    case_close(&o);
}

static void test_blocks(void **state)
{
    static const fv_type mixes[][3] = { { FV_TYPE_Q8_0, FV_TYPE_Q8_0, FV_TYPE_Q8_0 },
                                        { FV_TYPE_Q4_0, FV_TYPE_Q4_0, FV_TYPE_Q4_0 },
                                        { FV_TYPE_Q4_0, FV_TYPE_Q8_0, FV_TYPE_F32 },
                                        { FV_TYPE_BF16, FV_TYPE_F16, FV_TYPE_Q4_0 } };
    static const size_t m[] = { 1, 2, 7, 8, 9, 40 }, k[] = { 32, 96, 160, 256 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t x = 0; x < FV_COUNT(mixes); x++)
            for (size_t i = 0; i < FV_COUNT(m); i++)
                for (size_t j = 0; j < FV_COUNT(k); j++)
                    check_blocks(mixes[x], x == 2 && j % 2, m[i], k[j], (i + j) % 2, level,
                                 1 + (int)(i + j + x) % MAX_THREADS);
}

/* ---- a scale for every row of weights and of x (w8a8) -------------------------------------- */

/* A row of x as it is multiplied: multiples of its largest value / 127, or of that / 256 where the
 * square of that step is more than 16 times the mean of its blocks'. Returns whether it has 16
 * bits. */
static bool round_row(double *out, const float *x, size_t k)
{
    float largest = 0;
    double squares = 0;
    for (size_t b = 0; b < k; b += FV_BLOCK) {
        float most = 0;
        for (size_t i = b; i < b + FV_BLOCK; i++)
            most = fmaxf(most, fabsf(x[i]));
        largest = fmaxf(largest, most);
        squares += (double)most * (double)most;
    }
    const float d = largest / 127, inv = d > 0 ? 1 / d : 0;
    const bool fine = (double)largest * (double)largest * (double)(k / FV_BLOCK) > 16 * squares;
    for (size_t i = 0; i < k; i++)
        out[i] = (double)d * (fine ? nearbyint((double)(x[i] * inv * 256)) / 256
                                   : nearbyint((double)(x[i] * inv)));
    return fine;
}

/* Rows of normal size, with one value far larger in every third; of zeros; beside NaN. */
static float *make_outliers(size_t m, size_t k)
{
    float *x = make_floats(m * k, -2, 2);
    for (size_t i = 0; i < m; i++) {
        if (i % 3 == 1)
            x[i * k + case_below(k)] = i % 2 ? 150.0f : -90.0f;
        if (i % 11 == 4)
            memset(x + i * k, 0, k * sizeof *x);
        if (i % 13 == 6)
            x[i * k + case_below(k)] = i % 2 ? NAN : INFINITY;
    }
    return x;
}

static double row_scaled_value(const fv_mat *w, size_t j, const double *x, double *size)
{
    double sum = w->bias ? (double)w->bias[j] : 0;
    *size = fabs(sum);
    for (size_t i = 0; i < w->k; i++) {
        sum += mat_value(w, j, i) * x[i];
        *size += fabs(mat_value(w, j, i) * x[i]);
    }
    return sum;
}

/* Two layers, and a gated one of both, over the same rows. */
static void check_row_scaled(size_t m, size_t k, bool residual, int level, int threads)
{
    enum { N = 131 };
    ops_case o;
    case_open(&o, level, threads);
    fv_mat w[2] = { make_row_scaled(N, k), make_row_scaled(N, k) };
    fv_mat gate = w[0], up = w[1];
    gate.bias = up.bias = NULL;
    float *x = make_outliers(m, k), *add = make_floats(m * N, -1, 1),
          *gated = case_alloc(m * N * sizeof *gated);
    double *rounded = case_alloc(k * sizeof *rounded);
    fv_linear l[2];
    size_t n_fine = 0;
    for (size_t i = 0; i < 2; i++)
        l[i] = (fv_linear){ .w = &w[i],
                            .y = case_alloc(m * N * sizeof(float)),
                            .ldy = N,
                            .residual = residual ? add : NULL,
                            .ldr = N };
    case_reserve(&o, fv_quant_need(o.ops.k, o.ops.n_workers, N, k, m));
    fv_linear_run(&o.ops, l, 2, x, FV_TYPE_F32, k, m);
    fv_gated_run(&o.ops, &gate, &up, gated, FV_TYPE_F32, x, FV_TYPE_F32, m);
    for (size_t row = 0; row < m; row++) {
        const bool odd = row % 13 == 6;
        n_fine += round_row(rounded, x + row * k, k);
        for (size_t j = 0; j < N; j++) {
            double got[3], want[3], size[3];
            for (size_t i = 0; i < 2; i++) {
                got[i] = (double)((float *)l[i].y)[row * N + j];
                want[i] = row_scaled_value(&w[i], j, rounded, &size[i]) +
                          (residual ? (double)add[row * N + j] : 0);
            }
            const double g = row_scaled_value(&gate, j, rounded, &size[2]),
                         u = row_scaled_value(&up, j, rounded, &size[2]);
            got[2] = (double)gated[row * N + j];
            want[2] = g / (1 + exp(-g)) * u;
            size[2] = 1 + fabs(want[2]) + fabs(g) + fabs(u);
            for (size_t i = 0; i < 3; i++)
                if (odd ? !isnan(got[i]) : !(fabs(got[i] - want[i]) <= 3e-6 * (1 + size[i])))
                    fail_msg("%s, %d threads: %s m=%zu k=%zu: [%zu, %zu] is %.9g, expected %.9g",
                             level_name(level), threads, i == 2 ? "gated" : "row scales", m, k, row,
                             j, got[i], odd ? (double)NAN : want[i]);
        }
    }
    /* in two runs of rows: the same bits */
    if (m >= 4) {
        const size_t cut = m / 2, bytes = m * N * sizeof(float);
        float *again = case_alloc(bytes);
        fv_linear part = l[0];
        part.y = again;
        fv_linear_run(&o.ops, &part, 1, x, FV_TYPE_F32, k, cut);
        part.y = again + cut * N;
        part.residual = residual ? add + cut * N : NULL;
        fv_linear_run(&o.ops, &part, 1, x + cut * k, FV_TYPE_F32, k, m - cut);
        if (memcmp(again, l[0].y, bytes))
            fail_msg("m=%zu k=%zu: other bits in two runs of rows", m, k);
    }
    if (m > 8 && k > 16 * FV_BLOCK && (n_fine == 0 || n_fine == m))
        fail_msg("m=%zu k=%zu: %zu rows of 16 bits", m, k, n_fine);
    case_check(&o);
    case_close(&o);
}

static void test_row_scales(void **state)
{
    static const size_t m[] = { 2, 3, 9, 40, 200 }, k[] = { 32, 96, 640, 1312 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t i = 0; i < FV_COUNT(m); i++)
            for (size_t j = 0; j < FV_COUNT(k); j++)
                if (m[i] < 100 || k[j] < 1000)
                    check_row_scaled(m[i], k[j], (i + j) % 2, level,
                                     1 + (int)(i + j) % MAX_THREADS);
}

/* ---- gated layers: silu(gate) up, against double ------------------------------------------- */

static void check_gated(fv_type type, fv_type operand, size_t m, size_t n, size_t k, int level,
                        int threads)
{
    ops_case o;
    case_open(&o, level, threads);
    fv_mat gate = make_mat(type, n, k), up = make_mat(type, n, k);
    gate.bias = up.bias = NULL;
    void *x = make_values(operand, m * k, -1, 1), *y = case_alloc(m * n * fv_type_size(operand));
    float *row = case_alloc(k * sizeof *row);
    case_reserve(&o, fv_type_is_block(type) ? fv_quant_need(o.ops.k, o.ops.n_workers, n, k, m)
                                            : fv_gated_need(o.ops.k, n, k, m, operand));
    fv_gated_run(&o.ops, &gate, &up, y, operand, x, operand, m);
    for (size_t i = 0; i < m; i++) {
        for (size_t q = 0; q < k; q++)
            row[q] = (float)get(x, operand, i * k + q);
        for (size_t j = 0; j < n; j++) {
            double off_gate, off_up,
                g = exact_blocks(&gate, row, j, &off_gate), u = exact_blocks(&up, row, j, &off_up),
                silu = g / (1 + exp(-g)), want = silu * u, got = get(y, operand, i * n + j);
            /* SiLU's slope is at most 1.1 */
            double bound = 1.1 * off_gate * (fabs(u) + off_up) + fabs(silu) * off_up +
                           2e-6 * fmax(1, fabs(want)) + half_step(operand, want);
            if (!(fabs(got - want) <= bound))
                fail_msg("%s, %d threads: gated %s x %s m=%zu n=%zu k=%zu: [%zu, %zu] is %.9g, "
                         "expected %.9g within %.2g",
                         level_name(level), threads, fv_type_name(type), fv_type_name(operand), m,
                         n, k, i, j, got, want, bound);
        }
    }
    case_check(&o);
    case_close(&o);
}

static void test_gated(void **state)
{
    static const size_t m[] = { 1, 2, 9, 33 }, n[] = { 1, 17, 130, 400 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (size_t i = 0; i < 4; i++) {
            for (size_t j = 0; j < 4; j++) {
                const int threads = 1 + (int)(i + j) % MAX_THREADS;
                check_gated(FV_TYPE_F32, FV_TYPE_F32, m[i], n[j], 37, level, threads);
                check_gated(FV_TYPE_BF16, FV_TYPE_BF16, m[i], n[j], 38, level, threads);
                check_gated(FV_TYPE_F16, FV_TYPE_F16, m[i], n[j], 38, level, threads);
                check_gated(FV_TYPE_Q8_0, FV_TYPE_F32, m[i], n[j], 96, level, threads);
                check_gated(FV_TYPE_Q4_0, FV_TYPE_F32, m[i], n[j], 96, level, threads);
            }
        }
    }
}

/* ---- however the work is cut, the same bits ------------------------------------------------ */

/* The same layer on any number of threads, whole and in two runs of rows. Rows that go another way
 * (tall or wide) get the same bits; a single row of f32 goes through other kernels. */
static void check_bits(fv_type weights, fv_type x_type, size_t m, size_t n, size_t k, int level)
{
    const linear_case c = { m, n, k, weights, x_type, FV_TYPE_F32, epilogues[0] };
    uint8_t *first = NULL;
    size_t bytes = 0;
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        for (size_t cut = 0; cut < m; cut += m / 2) {
            ops_case o;
            layer a;
            case_seed = 77;
            case_open(&o, level, threads);
            void *x = make_values(x_type, m * k, -1, 1);
            make_layer(&a, &c);
            case_reserve(&o, fv_type_is_block(weights)
                                 ? fv_quant_need(o.ops.k, o.ops.n_workers, n, k, m)
                                 : fv_mat_need(&o.ops, &a.w, m, x_type));
            if (cut)
                fv_linear_run(&o.ops, &a.l, 1, x, x_type, k, cut);
            a.l.y = (float *)a.l.y + cut * a.l.ldy;
            fv_linear_run(&o.ops, &a.l, 1, (uint8_t *)x + cut * k * fv_type_size(x_type), x_type, k,
                          m - cut);
            a.l.y = (float *)a.l.y - cut * a.l.ldy;
            if (!first) {
                bytes = a.y_bytes;
                first = malloc(bytes);
                assert_non_null(first);
                memcpy(first, a.l.y, bytes);
            } else if (memcmp(first, a.l.y, bytes)) {
                fail_msg("%s: other bits when cut at row %zu", text_of(&c, level, threads), cut);
            }
            case_close(&o);
        }
    }
    free(first);
}

static void test_bits(void **state)
{
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (size_t m = 4; m <= 804; m += 400) {
            check_bits(FV_TYPE_F32, FV_TYPE_F32, m, 70, 36, level);
            check_bits(FV_TYPE_BF16, FV_TYPE_BF16, m, 70, 36, level);
            check_bits(FV_TYPE_F16, FV_TYPE_F16, m, 70, 36, level);
            check_bits(FV_TYPE_I8, FV_TYPE_U8, m, 70, 36, level);
            check_bits(FV_TYPE_Q8_0, FV_TYPE_F32, FV_MIN(m, (size_t)40), 70, 64, level);
            check_bits(FV_TYPE_Q4_0, FV_TYPE_F32, FV_MIN(m, (size_t)40), 70, 64, level);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_types), cmocka_unit_test(test_float_rows),
        cmocka_unit_test(test_float_sizes), cmocka_unit_test(test_one_row),
        cmocka_unit_test(test_int8_types),  cmocka_unit_test(test_int8_rows),
        cmocka_unit_test(test_int8_sizes),  cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_fine),        cmocka_unit_test(test_row_scales),
        cmocka_unit_test(test_gated),       cmocka_unit_test(test_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
