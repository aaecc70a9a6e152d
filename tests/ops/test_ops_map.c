/* nn: depthwise convolutions, the FFN, LayerNorm and attention over maps; floats against double,
 * int8 against scalar code, fused against the same layers one by one. */
#include "ops/ops_case.h"

static fv_rows rows_of(void *data, fv_type type) { return (fv_rows){ .data = data, .type = type }; }

/* ---- depthwise convolutions ------------------------------------------------------------------ */

typedef struct dw_case {
    size_t height, width, channels;
    unsigned mult, kernel, stride;
    bool gelu;
} dw_case;

static const dw_case dw_cases[] = {
    { 1, 1, 1, 1, 3, 1, false },   { 1, 5, 3, 1, 7, 1, true },    { 5, 1, 4, 2, 3, 1, false },
    { 7, 9, 17, 1, 3, 1, false },  { 6, 11, 33, 1, 7, 1, true },  { 9, 13, 16, 2, 3, 1, false },
    { 8, 6, 16, 2, 7, 2, true },   { 2, 2, 5, 2, 7, 2, true },    { 10, 14, 31, 1, 7, 2, false },
    { 3, 66, 8, 1, 7, 1, false },  { 4, 130, 24, 2, 7, 2, true }, { 16, 16, 65, 1, 3, 1, false },
    { 16, 10, 48, 1, 3, 2, true },
};

static size_t dw_outputs(const dw_case *c)
{
    return c->height / c->stride * (c->width / c->stride) * c->channels * c->mult;
}

static const char *text_of(const dw_case *c, int level, int threads)
{
    static char text[256];
    snprintf(text, sizeof text,
             "%s, %d threads: map %zu x %zu x %zu, mult %u, kernel %u, stride %u%s",
             level_name(level), threads, c->height, c->width, c->channels, c->mult, c->kernel,
             c->stride, c->gelu ? ", gelu" : "");
    return text;
}

/* Input element of tap t for output pixel (y, x), or false outside the map. */
static bool tap_at(const dw_case *c, size_t y, size_t x, unsigned t, size_t *at)
{
    const size_t row = y * c->stride + t / c->kernel, column = x * c->stride + t % c->kernel,
                 half = c->kernel / 2;
    if (row < half || row - half >= c->height || column < half || column - half >= c->width)
        return false;
    *at = ((row - half) * c->width + column - half) * c->channels;
    return true;
}

static void check_dw_float(const dw_case *c, fv_type y_type, bool beside, int level, int threads)
{
    ops_case o;
    const char *text = text_of(c, level, threads);
    const size_t n = dw_outputs(c), n_out = c->channels * c->mult, width = c->width / c->stride;
    case_open(&o, level, threads);
    const fv_dw dw = make_dw(false, c->channels, c->mult, c->kernel);
    const fv_u8 to = make_u8(n_out);
    float *x = make_floats(c->height * c->width * c->channels, -1, 1);
    uint8_t *y = case_alloc(n * fv_type_size(y_type) + CANARY), *y8 = case_alloc(n + CANARY);
    const fv_map_shape shape = { c->height, c->width };
    case_reserve(&o, fv_dw_need(&o.ops, &dw, shape));
    fv_dw_run(&o.ops, beside ? fv_rows_beside(&to, (float *)(void *)y, y8) : rows_of(y, y_type),
              fv_rows_f32(x), shape, &dw, c->stride, c->gelu ? FV_ACT_GELU : FV_ACT_NONE);
    for (size_t i = 0; i < n; i++) {
        const size_t channel = i % n_out, pixel = i / n_out;
        double sum = (double)dw.bias[channel], size = fabs(sum);
        for (unsigned t = 0; t < c->kernel * c->kernel; t++) {
            size_t at;
            if (!tap_at(c, pixel / width, pixel % width, t, &at))
                continue;
            double product = (double)x[at + channel / c->mult] * (double)dw.w[t * n_out + channel];
            sum += product;
            size += fabs(product);
        }
        double bound = 2 * (double)(c->kernel * c->kernel) * 0x1p-24 * size; /* kernels.h */
        if (c->gelu) {
            sum = gelu(sum);
            bound = 1.13 * bound + 1e-6 * fmax(1, fabs(sum));
        }
        bound += half_step(y_type, fabs(sum) + bound);
        if (!(fabs(get(y, y_type, i) - sum) <= bound))
            fail_msg("%s, %s: element %zu is %.9g, expected %.9g within %.2g", text,
                     fv_type_name(y_type), i, get(y, y_type, i), sum, bound);
        if (beside)
            assert_int_equal(y8[i],
                             to_u8((float)get(y, FV_TYPE_F32, i) * to.inv[channel], to.zero));
    }
    check_canary(y + n * fv_type_size(y_type), text);
    check_canary(y8 + (beside ? n : 0), text);
    case_check(&o);
    case_close(&o);
}

static void test_dw_float(void **state)
{
    static const fv_type types[] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (size_t i = 0; i < FV_COUNT(dw_cases); i++) {
            const int threads = 1 + (int)i % MAX_THREADS;
            for (size_t t = 0; t < FV_COUNT(types); t++)
                check_dw_float(&dw_cases[i], types[t], false, level, threads);
            check_dw_float(&dw_cases[i], FV_TYPE_F32, true, level, threads);
        }
    }
}

typedef enum input {
    AS_U8,
    AS_F32,
    BESIDE,
    N_INPUTS,
    FINE /* f32, between matrices 16 bits */
} input;

/* The input of an int8 layer in each of the forms that it may have; x8: what it is as u8. */
static fv_rows make_input(input form, const fv_u8 *in, size_t n, size_t channels, uint8_t **x8)
{
    float *x = make_floats(n * channels, -1.5f, 1.5f);
    *x8 = case_alloc(n * channels);
    for (size_t i = 0; i < n * channels; i++)
        (*x8)[i] = to_u8(x[i] * in->inv[i % channels], in->zero);
    return form == AS_U8    ? fv_rows_for(in, *x8, FV_TYPE_F32)
           : form == AS_F32 ? fv_rows_f32(x)
                            : fv_rows_beside(in, x, *x8);
}

/* The contract of dwconv_u8 in kernels.h: exact, but for GELU (3e-4). */
static void check_dw_int8(const dw_case *c, input form, int level, int threads)
{
    ops_case o;
    uint8_t *x8;
    const char *text = text_of(c, level, threads);
    const size_t n = dw_outputs(c), n_out = c->channels * c->mult, width = c->width / c->stride;
    case_open(&o, level, threads);
    const fv_dw dw = make_dw(true, c->channels, c->mult, c->kernel);
    const fv_u8 to = make_u8(n_out);
    const fv_rows x = make_input(form, &dw.in, c->height * c->width, c->channels, &x8);
    uint8_t *y = case_alloc(n + CANARY);
    const fv_map_shape shape = { c->height, c->width };
    case_reserve(&o, fv_dw_need(&o.ops, &dw, shape));
    fv_dw_run(&o.ops, fv_rows_for(&to, y, FV_TYPE_F32), x, shape, &dw, c->stride,
              c->gelu ? FV_ACT_GELU : FV_ACT_NONE);
    for (size_t i = 0; i < n; i++) {
        const size_t channel = i % n_out, pixel = i / n_out;
        int32_t s = 0;
        size_t at;
        for (unsigned t = 0; t < c->kernel * c->kernel; t++)
            if (tap_at(c, pixel / width, pixel % width, t, &at))
                s += (x8[at + channel / c->mult] - dw.in.zero) * dw.w8[t * n_out + channel];
        double want, bound = 0;
        if (c->gelu) {
            want = gelu((double)fmaf((float)s, dw.mul[channel], dw.bias[channel]));
            want = fmin(fmax(want * (double)to.inv[channel] + to.zero, 0), 255);
            bound = 0.5 + (3e-4 + 1e-5) * (double)to.inv[channel];
        } else {
            want = to_u8(fmaf((float)s, dw.mul[channel] * to.inv[channel],
                              dw.bias[channel] * to.inv[channel]),
                         to.zero);
        }
        if (!(fabs(y[i] - want) <= bound))
            fail_msg("%s, input %d: element %zu is %d, expected %.3f within %.2f", text, form, i,
                     y[i], want, bound);
    }
    check_canary(y + n, text);
    case_check(&o);
    case_close(&o);
}

static void test_dw_int8(void **state)
{
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t i = 0; i < FV_COUNT(dw_cases); i++)
            for (input form = AS_U8; form < N_INPUTS; form++)
                check_dw_int8(&dw_cases[i], form, level, 1 + (int)(i + form) % MAX_THREADS);
}

/* ---- FFN ----------------------------------------------------------------------------------- */

/* y = x + scale fc2(gelu(fc1(dw x))) by the operations for single layers, whose results the other
 * tests compare with scalar code: the same bits are expected. */
static void ffn_one_by_one(ops_case *o, float *y, fv_rows x, fv_map_shape shape, const fv_ffn *f,
                           fv_type operand)
{
    const size_t n = shape.height * shape.width, c = f->dw.channels, hidden = f->fc1.n;
    const fv_rows t = fv_rows_for(&f->fc1.in, case_alloc(n * c * 4), operand),
                  h = fv_rows_for(&f->fc2.in, case_alloc(n * hidden * 4), operand);
    fv_ops_need need = fv_dw_need(&o->ops, &f->dw, shape);
    need = fv_ops_max(need, fv_mat_need(&o->ops, &f->fc1, n, operand));
    case_reserve(o, fv_ops_max(need, fv_mat_need(&o->ops, &f->fc2, n, operand)));
    fv_dw_run(&o->ops, t, x, shape, &f->dw, 1, FV_ACT_NONE);
    fv_linear up = { .w = &f->fc1,
                     .y = h.data,
                     .ldy = hidden,
                     .y_type = h.type,
                     .y_to_int8 = h.to_int8,
                     .act = FV_ACT_GELU };
    fv_linear_run(&o->ops, &up, 1, t.data, t.type, c, n);
    fv_linear down = {
        .w = &f->fc2, .y = y, .ldy = c, .scale = f->scale, .residual = x.data, .ldr = c
    };
    fv_linear_run(&o->ops, &down, 1, h.data, h.type, hidden, n);
    case_check(o);
}

typedef struct seen {
    const void *site[3];
    const float *x;
    size_t n[3], c[3], count;
} seen;

static void see_input(void *user, const void *site, const void *x, fv_type type, size_t n, size_t c)
{
    seen *s = user;
    assert_int_equal(type, FV_TYPE_F32);
    assert_true(s->count < 3);
    s->site[s->count] = site;
    s->n[s->count] = n;
    s->c[s->count] = c;
    if (s->count == 0)
        s->x = x;
    s->count++;
}

static void check_ffn(fv_type weights, fv_type operand, fv_map_shape shape, size_t c, size_t hidden,
                      input form, int level, int threads)
{
    ops_case o;
    uint8_t *x8;
    const size_t n = shape.height * shape.width;
    case_open(&o, level, threads);
    fv_ffn f = make_ffn(weights, c, hidden);
    fv_rows x = fv_rows_f32(make_floats(n * c, -1, 1));
    if (form == FINE) {
        f.dw = make_dw(false, c, 1, 7);
        f.fc1.in.fine = f.fc2.in.fine = true;
    } else if (weights == FV_TYPE_I8)
        x = make_input(form, &f.dw.in, n, c, &x8);
    float *fused = case_alloc(n * c * 4 + CANARY), *plain = case_alloc(n * c * 4),
          *observed = case_alloc(n * c * 4);
    case_reserve(&o, fv_ffn_need(&o.ops, &f, shape, operand));
    fv_ffn_run(&o.ops, fused, x, shape, &f, operand);
    check_canary((uint8_t *)(fused + n * c), "the FFN's map");
    case_check(&o);
    ffn_one_by_one(&o, plain, x, shape, &f, operand);
    for (size_t i = 0; i < n * c; i++)
        if (memcmp(&fused[i], &plain[i], sizeof *fused))
            fail_msg(
                "%s, %d threads: FFN %s between %s, map %zu x %zu x %zu, hidden %zu, input %d: "
                "pixel %zu, channel %zu is %.9g, layer by layer %.9g",
                level_name(level), threads, fv_type_name(weights), fv_type_name(operand),
                shape.height, shape.width, c, hidden, form, i / c, i % c, (double)fused[i],
                (double)plain[i]);
    if (fv_ffn_in_place(&f)) {
        case_reserve(&o, fv_ffn_need(&o.ops, &f, shape, operand));
        fv_ffn_run(&o.ops, x.data, x, shape, &f, operand);
        case_check(&o);
        assert_memory_equal(x.data, plain, n * c * sizeof *plain);
    }
    if (operand == FV_TYPE_F32 && weights != FV_TYPE_I8) { /* looked at: the same bits again */
        seen s = { .count = 0 };
        o.ops.observe = see_input;
        o.ops.observe_user = &s;
        case_reserve(&o, fv_ffn_need(&o.ops, &f, shape, operand));
        fv_ffn_run(&o.ops, observed, x, shape, &f, operand);
        case_check(&o);
        assert_memory_equal(observed, fused, n * c * sizeof *fused);
        assert_int_equal(s.count, 3);
        assert_true(s.site[0] == &f.dw && s.site[1] == &f.fc1 && s.site[2] == &f.fc2);
        assert_true(s.n[0] == n && s.n[1] == n && s.n[2] == n && s.x == (const float *)x.data);
        assert_true(s.c[0] == c && s.c[1] == c && s.c[2] == hidden);
    }
    case_close(&o);
}

/* Maps with fewer pixels than a block for each thread go layer by layer, others in blocks (floats:
 * runs of 32 to 128 pixels; int8: tiles up to 64 wide). Odd sides leave parts of blocks and
 * tiles. */
static void test_ffn(void **state)
{
    static const fv_map_shape shapes[] = {
        { 1, 1 },  { 3, 5 },   { 8, 8 },   { 13, 11 }, { 16, 16 }, { 7, 37 },
        { 5, 64 }, { 10, 65 }, { 3, 131 }, { 31, 17 }, { 2, 128 }, { 33, 33 },
    };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (size_t i = 0; i < FV_COUNT(shapes); i++) {
            const int threads = 1 + (int)i % MAX_THREADS;
            check_ffn(FV_TYPE_F32, FV_TYPE_F32, shapes[i], 17, 68, AS_F32, level, threads);
            check_ffn(FV_TYPE_BF16, FV_TYPE_BF16, shapes[i], 18, 70, AS_F32, level, threads);
            check_ffn(FV_TYPE_F16, FV_TYPE_F16, shapes[i], 17, 68, AS_F32, level, threads);
            check_ffn(FV_TYPE_F32, FV_TYPE_BF16, shapes[i], 16, 64, AS_F32, level, threads);
            check_ffn(FV_TYPE_I8, FV_TYPE_BF16, shapes[i], 17, 68, AS_F32, level, threads);
            check_ffn(FV_TYPE_I8, FV_TYPE_F32, shapes[i], 16, 64, BESIDE, level, threads);
            check_ffn(FV_TYPE_I8, i % 2 ? FV_TYPE_F32 : FV_TYPE_BF16, shapes[i], 17, 68, FINE,
                      level, threads);
        }
    }
}

/* Around the least number of pixels for blocks: in floats a block a thread (with hidden layers as
 * narrow as these 128 pixels, in whole register tiles), in int8 two tiles a thread (64 x 2 pixels);
 * and weights that are too large to be packed as a whole (7.4 MB in f32, 6.8 MB in int8). */
static void test_ffn_limits(void **state)
{
    fv_kernels k;
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        fv_kernels_init(&k, level ? fv_cpu_level(NULL) : 0);
        for (size_t t = 1; t <= MAX_THREADS; t++) {
            for (size_t more = 0; more < 3; more++) {
                const size_t wide = (127 + k.gemm_f32.mr) / k.gemm_f32.mr * k.gemm_f32.mr,
                             half = (127 + k.gemm_bf16.mr) / k.gemm_bf16.mr * k.gemm_bf16.mr;
                const fv_map_shape f32 = { 1, wide * t - 1 + more },
                                   b16 = { 1, half * t - 1 + more },
                                   tiles = { 4 * t - 1 + more, 64 };
                const int threads = (int)t;
                check_ffn(FV_TYPE_F32, FV_TYPE_F32, f32, 8, 32, AS_F32, level, threads);
                check_ffn(FV_TYPE_F16, FV_TYPE_F16, f32, 8, 32, AS_F32, level, threads);
                check_ffn(FV_TYPE_BF16, FV_TYPE_BF16, b16, 8, 32, AS_F32, level, threads);
                check_ffn(FV_TYPE_I8, FV_TYPE_F32, tiles, 8, 32, AS_F32, level, threads);
                check_ffn(FV_TYPE_I8, FV_TYPE_F32, tiles, 8, 32, BESIDE, level, threads);
                check_ffn(FV_TYPE_I8, FV_TYPE_F32, (fv_map_shape){ 1, 128 * t - 1 + more }, 8, 32,
                          FINE, level, threads);
            }
        }
        check_ffn(FV_TYPE_F32, FV_TYPE_F32, (fv_map_shape){ 8, 9 }, 480, 1920, AS_F32, level, 2);
        /* a row of the map much longer than a block, hardly any hidden values behind it */
        check_ffn(FV_TYPE_F32, FV_TYPE_F32, (fv_map_shape){ 3, 901 }, 40, 4, AS_F32, level, 2);
        check_ffn(FV_TYPE_I8, FV_TYPE_F32, (fv_map_shape){ 3, 901 }, 40, 4, AS_F32, level, 2);
        check_ffn(FV_TYPE_I8, FV_TYPE_F32, (fv_map_shape){ 3, 901 }, 40, 4, FINE, level, 2);
        /* blocks of 63 pixels, two pieces of the hidden layer */
        check_ffn(FV_TYPE_I8, FV_TYPE_F32, (fv_map_shape){ 9, 20 }, 21, 2050, FINE, level, 2);
    }
    check_ffn(FV_TYPE_I8, FV_TYPE_F32, (fv_map_shape){ 16, 17 }, 920, 3680, AS_F32, 1, 2);
    check_ffn(FV_TYPE_I8, FV_TYPE_F32, (fv_map_shape){ 16, 17 }, 920, 3680, BESIDE, 1, 2);
    check_ffn(FV_TYPE_I8, FV_TYPE_F32, (fv_map_shape){ 16, 17 }, 920, 3680, FINE, 1, 2);
}

/* ---- LayerNorm ----------------------------------------------------------------------------- */

static void check_layernorm(size_t n, size_t c, fv_type type, int level, int threads)
{
    ops_case o;
    case_open(&o, level, threads);
    const fv_u8 to = make_u8(c);
    float *x = make_floats(n * c, -3, 5), *w = make_floats(c, -2, 2), *b = make_floats(c, -1, 1);
    uint8_t *y = case_alloc(n * c * fv_type_size(type) + CANARY);
    case_reserve(&o, fv_layernorm_need(c));
    fv_layernorm_run(&o.ops,
                     type == FV_TYPE_U8 ? fv_rows_for(&to, y, FV_TYPE_F32) : rows_of(y, type), x, w,
                     b, n, c);
    for (size_t i = 0; i < n; i++) {
        double mean = 0, var = 0;
        for (size_t j = 0; j < c; j++)
            mean += (double)x[i * c + j] / (double)c;
        for (size_t j = 0; j < c; j++)
            var += ((double)x[i * c + j] - mean) * ((double)x[i * c + j] - mean) / (double)c;
        for (size_t j = 0; j < c; j++) {
            double want = ((double)x[i * c + j] - mean) / sqrt(var + 1e-5) * (double)w[j] +
                          (double)b[j],
                   bound = 1e-5 * fabs((double)w[j]) + 1e-6, got = get(y, type, i * c + j);
            if (type == FV_TYPE_U8) {
                want = fmin(fmax(want * (double)to.inv[j] + to.zero, 0), 255);
                bound = 0.5 + bound * (double)to.inv[j];
            } else {
                bound += half_step(type, want);
            }
            if (!(fabs(got - want) <= bound))
                fail_msg("%s, %d threads: LayerNorm of %zu x %zu to %s: [%zu, %zu] is %.9g, "
                         "expected %.9g within %.2g",
                         level_name(level), threads, n, c, fv_type_name(type), i, j, got, want,
                         bound);
        }
    }
    check_canary(y + n * c * fv_type_size(type), "LayerNorm");
    case_check(&o);
    case_close(&o);
}

static void test_layernorm(void **state)
{
    static const fv_type types[] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16, FV_TYPE_U8 };
    static const size_t n[] = { 1, 2, 63, 64, 65, 129, 200 }, c[] = { 2, 3, 17, 64, 131 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t i = 0; i < FV_COUNT(n); i++)
            for (size_t j = 0; j < FV_COUNT(c); j++)
                for (size_t t = 0; t < FV_COUNT(types); t++)
                    check_layernorm(n[i], c[j], types[t], level, 1 + (int)(i + j) % MAX_THREADS);
}

/* ---- attention ----------------------------------------------------------------------------- */

/* Softmax(q k^T / sqrt d) v of one row and head, in double; how far off it may be: 1e-6, and more
 * the larger the products behind the scores, in parts of the weighted sizes of v. rounding: of
 * every operand, 0 for f32's, which is in these figures. */
static double attend_row(double *out, const float *qkv, size_t n, size_t c, size_t d, size_t row,
                         size_t head, double rounding)
{
    const float *q = qkv + row * 3 * c + head * d;
    double sum = 0, most = 0, spread[FV_ATTN_MAX_D] = { 0 }, norm = 0;
    memset(out, 0, d * sizeof *out);
    for (size_t j = 0; j < n; j++) {
        const float *k = qkv + j * 3 * c + c + head * d, *v = k + c;
        double score = 0, size = 0;
        for (size_t i = 0; i < d; i++) {
            score += (double)q[i] * (double)k[i] / sqrt((double)d);
            size += fabs((double)q[i] * (double)k[i]) / sqrt((double)d);
        }
        double weight = exp(score); /* scores are small here */
        sum += weight;
        most = fmax(most, size);
        for (size_t i = 0; i < d; i++) {
            out[i] += weight * (double)v[i];
            spread[i] += weight * fabs((double)v[i]);
        }
    }
    for (size_t i = 0; i < d; i++) {
        out[i] /= sum;
        norm += spread[i] / sum * (spread[i] / sum);
    }
    return (1e-6 + 4 * 0x1p-24 * most + 2 * rounding * (most + 1)) * sqrt(norm);
}

static void check_attention(size_t n, size_t heads, size_t d, fv_type type, fv_type operand,
                            int level, int threads)
{
    ops_case o;
    double want[FV_ATTN_MAX_D];
    const size_t c = heads * d;
    case_open(&o, level, threads);
    const fv_kernels *k = o.ops.k;
    const bool pairs = operand == FV_TYPE_BF16 && k->fast_bf16 && k->attn_bf16;
    const fv_u8 to = make_u8(c);
    float *qkv = make_floats(n * 3 * c, -2, 2);
    uint8_t *y = case_alloc(n * c * fv_type_size(type) + CANARY);
    case_reserve(&o, fv_attention_need());
    fv_attention_run(&o.ops,
                     type == FV_TYPE_U8 ? fv_rows_for(&to, y, FV_TYPE_F32) : rows_of(y, type), qkv,
                     n, c, d, operand);
    for (size_t row = 0; row < n; row++) {
        for (size_t head = 0; head < heads; head++) {
            const double off = attend_row(want, qkv, n, c, d, row, head, pairs ? 0x1p-8 : 0);
            for (size_t i = 0; i < d; i++) {
                const size_t at = head * d + i;
                double bound = off, got = get(y, type, row * c + at), w = want[i];
                if (type == FV_TYPE_U8) {
                    w = fmin(fmax(w * (double)to.inv[at] + to.zero, 0), 255);
                    bound = 0.5 + (bound + 1e-6) * (double)to.inv[at];
                } else {
                    bound += half_step(type, w);
                }
                if (!(fabs(got - w) <= bound))
                    fail_msg(
                        "%s, %d threads: attention over %zu rows, %zu heads of %zu, to %s: row "
                        "%zu, head %zu, element %zu is %.9g, expected %.9g within %.2g",
                        level_name(level), threads, n, heads, d, fv_type_name(type), row, head, i,
                        got, w, bound);
            }
        }
    }
    check_canary(y + n * c * fv_type_size(type), "attention");
    case_check(&o);
    case_close(&o);
}

static void test_attention(void **state)
{
    static const fv_type types[] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16, FV_TYPE_U8 };
    static const size_t n[] = { 1, 2, 63, 64, 65, 129 }, d[] = { 2, 10, 32, 64 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++) {
        for (size_t i = 0; i < FV_COUNT(n); i++)
            for (size_t j = 0; j < FV_COUNT(d); j++)
                for (size_t t = 0; t < FV_COUNT(types); t++)
                    check_attention(n[i], 1 + (i + j) % 3, d[j], types[t],
                                    (i + j + t) % 2 ? FV_TYPE_BF16 : FV_TYPE_F32, level,
                                    1 + (int)(i + j) % MAX_THREADS);
        check_attention(70, 1, FV_ATTN_MAX_D, FV_TYPE_U8, FV_TYPE_F32, level, 2);
    }
}

/* ---- conversions --------------------------------------------------------------------------- */

static void check_convert(size_t n, size_t c, fv_type type, int level, int threads)
{
    ops_case o;
    case_open(&o, level, threads);
    const fv_u8 to = make_u8(c);
    float *x = make_floats(n * c, -2, 2);
    uint8_t *y = case_alloc(n * c * 4 + CANARY);
    case_reserve(&o, (fv_ops_need){ 0, 0 });
    const fv_rows as = type == FV_TYPE_U8 ? fv_rows_for(&to, y, FV_TYPE_F32) : rows_of(y, type);
    const fv_rows got = fv_convert_run(&o.ops, as, x, n, c);
    assert_int_equal(got.type, type);
    if (type == FV_TYPE_F32) { /* nothing to do */
        assert_ptr_equal(got.data, x);
        check_canary(y, "conversion to f32");
    } else {
        assert_ptr_equal(got.data, y);
        for (size_t i = 0; i < n * c; i++) {
            float want;
            set(&want, type, 0, type == FV_TYPE_U8 ? to_u8(x[i] * to.inv[i % c], to.zero) : x[i]);
            assert_memory_equal(y + i * fv_type_size(type), &want, fv_type_size(type));
        }
        check_canary(y + n * c * fv_type_size(type), "conversion");
    }
    case_check(&o);
    case_close(&o);
}

static void test_convert(void **state)
{
    static const fv_type types[] = { FV_TYPE_F32, FV_TYPE_BF16, FV_TYPE_F16, FV_TYPE_U8 };
    static const size_t n[] = { 1, 63, 64, 65, 95, 96, 97, 200 }, c[] = { 1, 17, 64 };
    (void)state;
    for (int level = 0; level < N_LEVELS; level++)
        for (size_t i = 0; i < FV_COUNT(n); i++)
            for (size_t j = 0; j < FV_COUNT(c); j++)
                for (size_t t = 0; t < FV_COUNT(types); t++)
                    check_convert(n[i], c[j], types[t], level, 1 + (int)(i + j) % MAX_THREADS);
}

/* ---- who takes what ------------------------------------------------------------------------ */

/* Layers in int8 want u8; what writes for them says what it can. */
static void test_rows(void **state)
{
    const float inv[] = { 1 };
    const fv_u8 none = { 0 }, in = { .inv = inv, .zero = 3 },
                fine = { .inv = inv, .zero = 3, .fine = true };
    const fv_mat floats = { .type = FV_TYPE_BF16 }, int8 = { .type = FV_TYPE_I8, .in = in };
    float x[1];
    uint8_t x8[1];
    (void)state;
    assert_int_equal(fv_rows_for(&none, x, FV_TYPE_BF16).type, FV_TYPE_BF16);
    assert_int_equal(fv_rows_for(&in, x, FV_TYPE_BF16).type, FV_TYPE_U8);
    assert_ptr_equal(fv_rows_for(&in, x, FV_TYPE_BF16).to_int8, &in);
    assert_int_equal(fv_rows_for(&fine, x, FV_TYPE_BF16).type, FV_TYPE_F32);
    assert_null(fv_rows_beside(&fine, x, x8).beside);
    assert_null(fv_rows_beside(&none, x, x8).beside);
    assert_ptr_equal(fv_rows_beside(&in, x, x8).beside, x8);
    assert_int_equal(fv_rows_beside(&in, x, x8).type, FV_TYPE_F32);
    assert_int_equal(fv_rows_from(&int8, fv_rows_for(&in, x, FV_TYPE_BF16)).type, FV_TYPE_U8);
    assert_int_equal(fv_rows_from(&floats, fv_rows_for(&in, x, FV_TYPE_BF16)).type, FV_TYPE_F32);
    assert_int_equal(fv_rows_from(&floats, fv_rows_for(&none, x, FV_TYPE_F16)).type, FV_TYPE_F16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dw_float),  cmocka_unit_test(test_dw_int8),
        cmocka_unit_test(test_ffn),       cmocka_unit_test(test_ffn_limits),
        cmocka_unit_test(test_layernorm), cmocka_unit_test(test_attention),
        cmocka_unit_test(test_convert),   cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
