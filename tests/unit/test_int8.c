/* quant/int8: ranges and weights become scales and i8 that stand for the same outputs. The i8 layer
 * is run here in scalar code, by the contract of kernels.h. */
#include "support/cm.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "quant/int8.h"

enum { K = 96, N = 70, ROWS = 200, MULT = 2, TAPS = 9 };

static uint64_t seed = 5;

static float uniform(float lo, float hi)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (float)(seed >> 40) / (float)(1 << 24);
}

static float low[K], high[K], rows[ROWS * K], weights[N * K], bias[N], inv[K], mul[N * 3];
static int8_t w8[N * K * 2];
static int32_t bias8[N];
static float products[K * K], importance[K];

static fv_int8_seen see_rows(size_t k)
{
    fv_int8_seen s = { .k = k, .low = low, .high = high, .rows = rows, .n_rows = ROWS };
    memset(low, 0, sizeof low);
    memset(high, 0, sizeof high);
    fv_int8_see(&s, rows, k, ROWS, 0, k / 2); /* channels by parts, as tasks do */
    fv_int8_see(&s, rows + k / 2, k, ROWS, k / 2, k);
    return s;
}

static void test_ranges(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROWS * 3; i++)
        rows[i] = i % 3 == 0 ? uniform(1, 2) : i % 3 == 1 ? uniform(-4, -3) : uniform(-1, 1);
    rows[3 * 7] = 9;
    rows[3 * 8 + 2] = -5;
    const fv_int8_seen s = see_rows(3);
    assert_true(s.low[0] == 0 && s.high[0] == 9); /* 0 is always in the range */
    assert_true(s.low[1] < -3.9f && s.low[1] >= -4 && s.high[1] == 0);
    assert_true(s.low[2] == -5 && s.high[2] > 0.9f && s.high[2] <= 1);
}

static uint8_t to_u8(float x, int zero)
{
    float q = rintf(x) + (float)zero;
    return (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q);
}

/* SQNR in dB over all rows and outputs: y = mul (bias8 + W q) against W x + bias. */
static double matrix_sqnr(const fv_int8_layer *l, const float *w)
{
    double signal = 0, noise = 0;
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t j = 0; j < N; j++) {
            int32_t s = l->bias8[j];
            double want = (double)bias[j];
            for (size_t c = 0; c < K; c++) {
                s += l->w8[j * K + c] * to_u8(rows[r * K + c] * l->inv[c], l->zero);
                want += (double)w[j * K + c] * (double)rows[r * K + c];
            }
            double off = want - (double)s * (double)l->mul[j];
            signal += want * want;
            noise += off * off;
        }
    }
    return 10 * log10(signal / noise);
}

/* What the rows have in common, column by column, in groups of `width` columns. */
static void see_products(fv_int8_seen *s, size_t width)
{
    s->products = (fv_input_groups){ .k = K,
                                     .width = width,
                                     .n = (K + width - 1) / width,
                                     .h = products,
                                     .importance = importance };
    memset(products, 0, sizeof products);
    for (size_t g = 0; g < s->products.n; g++) {
        const fv_inputs in = fv_input_group(&s->products, g);
        for (size_t r = 0; r < ROWS; r++) {
            const float *x = rows + r * K + g * width;
            for (size_t a = 0; a < in.n; a++)
                for (size_t b = 0; b < in.n; b++)
                    in.h[a * in.n + b] += x[a] * x[b];
        }
    }
}

/* beyond: how far the ranges go past the sample rows, as one value in a million makes them;
 * width: of groups of columns, with the rows' products; 0: without. */
static fv_int8_layer solve_matrix_as(fv_type type, const void *w, float beyond, size_t width)
{
    fv_kernels k;
    fv_int8_layer l = { .inv = inv, .w8 = w8, .mul = mul, .bias8 = bias8 };
    fv_int8_seen s = see_rows(K);
    for (size_t c = 0; c < K; c++) {
        low[c] *= beyond;
        high[c] *= beyond;
    }
    if (width)
        see_products(&s, width);
    fv_kernels_init(&k, 0);
    void *scratch = fv_alloc(fv_int8_scratch(&s, &k), 1);
    assert_non_null(scratch);
    fv_int8_matrix(&l, &s, w, type, N, bias, &k, scratch);
    fv_free(scratch);
    assert_true(l.zero >= 0 && l.zero <= 255);
    for (size_t c = 0; c < K; c++)
        assert_true(l.inv[c] > 0 && isfinite(l.inv[c]));
    for (size_t i = 0; i < N * K; i++)
        assert_true(l.w8[i] >= -127);
    return l;
}

static fv_int8_layer solve_matrix(fv_type type, const void *w, float beyond)
{
    return solve_matrix_as(type, w, beyond, 0);
}

static void fill_matrix(float outlier)
{
    for (size_t i = 0; i < ROWS * K; i++)
        rows[i] = uniform(-0.4f, 1) * (i % K == 17 ? outlier : 1);
    for (size_t i = 0; i < N * K; i++)
        weights[i] = uniform(-1, 1);
    for (size_t j = 0; j < N; j++)
        bias[j] = uniform(-1, 1);
}

/* Steps of 1.4 / 255 and 2 / 254 on values of that size: 45 dB, by count of bits. What the solver
 * says is what it measures, on a part of the rows and outputs. */
static void test_matrix(void **state)
{
    (void)state;
    fill_matrix(1);
    fv_int8_layer l = solve_matrix(FV_TYPE_F32, weights, 1);
    const double sqnr = matrix_sqnr(&l, weights);
    assert_true(sqnr > 42 && sqnr < 50);
    assert_true(fabs(sqnr - l.sqnr) < 1);
    l = solve_matrix(FV_TYPE_F32, weights, 1.25f); /* clipped as far as is tried: nearly as good */
    assert_true(matrix_sqnr(&l, weights) > sqnr - 1);

    uint16_t half[N * K]; /* weights as checkpoints store them: the same result */
    int8_t before[N * K];
    for (size_t i = 0; i < N * K; i++) {
        half[i] = fv_f32_to_bf16(weights[i]);
        weights[i] = fv_bf16_to_f32(half[i]);
    }
    solve_matrix(FV_TYPE_F32, weights, 1);
    memcpy(before, w8, sizeof before);
    l = solve_matrix(FV_TYPE_BF16, half, 1);
    assert_memory_equal(before, w8, sizeof before);
}

/* One channel a hundred times as large as the others: with one step for all of them they would have
 * 2 or 3 of the 255, and 20 dB at most. */
static void test_outlier(void **state)
{
    (void)state;
    fill_matrix(100);
    for (size_t j = 0; j < N; j++)
        weights[j * K + 17] *= 0.01f; /* its part of the outputs is like the others' */
    const fv_int8_layer l = solve_matrix(FV_TYPE_F32, weights, 1);
    const double sqnr = matrix_sqnr(&l, weights);
    assert_true(sqnr > 40);
    float most = 0, least = INFINITY;
    for (size_t c = 0; c < K; c++) {
        most = fmaxf(most, l.inv[c]);
        least = fminf(least, l.inv[c]);
    }
    assert_true(least == l.inv[17] && most / least > 30);
}

/* No output is off on average, though the range is clipped. */
static void check_bias(size_t width)
{
    fill_matrix(1);
    for (size_t r = 0; r < ROWS; r += 2) /* values that clipping takes something from */
        rows[r * K + 3] *= 3;
    const fv_int8_layer l = solve_matrix_as(FV_TYPE_F32, weights, 0.8f, width);
    for (size_t j = 0; j < N; j++) {
        double off = 0;
        for (size_t r = 0; r < ROWS; r++) {
            double got = (double)l.bias8[j], want = (double)bias[j];
            for (size_t c = 0; c < K; c++) {
                got += (double)l.w8[j * K + c] * to_u8(rows[r * K + c] * l.inv[c], l.zero);
                want += (double)weights[j * K + c] * (double)rows[r * K + c];
            }
            off += (got * (double)l.mul[j] - want) / ROWS;
        }
        assert_true(fabs(off) < 2 * (double)l.mul[j]); /* the unit to which a bias is rounded */
    }
}

static void test_bias(void **state)
{
    (void)state;
    check_bias(0);
    check_bias(K);
}

/* The square of what rounding the weights takes from the outputs, inputs as they are. */
static double weights_noise(const fv_int8_layer *l)
{
    double noise = 0;
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t j = 0; j < N; j++) {
            double off = 0;
            for (size_t c = 0; c < K; c++) {
                const double w = (double)l->w8[j * K + c] * (double)l->mul[j] * (double)l->inv[c];
                off += (w - (double)weights[j * K + c]) * (double)rows[r * K + c];
            }
            noise += off * off;
        }
    }
    return noise;
}

/* Channels that move together, of different size: what rounding one of them costs, others make up
 * for. The scales of the input are the same; NaN leaves weights rounded to the nearest. */
static void test_compensated(void **state)
{
    int8_t nearest[N * K];
    float before[K];
    (void)state;
    fill_matrix(1);
    for (size_t r = 0; r < ROWS; r++) {
        float common[4];
        for (size_t i = 0; i < FV_COUNT(common); i++)
            common[i] = uniform(-1, 1);
        for (size_t c = 0; c < K; c++)
            rows[r * K + c] = (common[c % 4] * 0.9f + uniform(-0.1f, 0.1f)) * (float)(1 + c % 7);
    }
    fv_int8_layer l = solve_matrix(FV_TYPE_F32, weights, 1);
    const double noise = weights_noise(&l), sqnr = l.sqnr;
    memcpy(before, inv, sizeof before);
    static const size_t widths[] = { K, 40 }; /* of groups: one; two and a narrower one */
    for (size_t i = 0; i < FV_COUNT(widths); i++) {
        l = solve_matrix_as(FV_TYPE_F32, weights, 1, widths[i]);
        assert_memory_equal(before, inv, sizeof before);
        assert_true(weights_noise(&l) < 0.2 * noise);
        assert_true(l.sqnr > sqnr + 0.5 && fabs(matrix_sqnr(&l, weights) - l.sqnr) < 1);
    }

    rows[0] = NAN; /* the ranges do not see it, the products do */
    solve_matrix(FV_TYPE_F32, weights, 1);
    memcpy(nearest, w8, sizeof nearest);
    solve_matrix_as(FV_TYPE_F32, weights, 1, K);
    assert_memory_equal(nearest, w8, sizeof nearest);
}

/* No output of a convolution is off on average. */
static void test_bias_depthwise(void **state)
{
    static float w[TAPS * K], out_mul[K], out_bias[K], given[K];
    static int8_t out_w8[TAPS * K];
    fv_int8_layer l = { .inv = inv, .w8 = out_w8, .mul = out_mul, .bias = out_bias };
    (void)state;
    for (size_t i = 0; i < ROWS * K; i++)
        rows[i] = uniform(-0.2f, 1);
    for (size_t i = 0; i < TAPS * K; i++)
        w[i] = uniform(-1, 1);
    for (size_t c = 0; c < K; c++)
        given[c] = uniform(-1, 1);
    const fv_int8_seen s = see_rows(K);
    fv_int8_depthwise(&l, &s, w, given, TAPS, 1);
    for (size_t c = 0; c < K; c++) {
        double off = (double)l.bias[c] - (double)given[c];
        for (size_t r = 0; r < ROWS; r++)
            for (size_t t = 0; t < TAPS; t++) {
                const float x = rows[r * K + c];
                const int q = to_u8(x * l.inv[c], l.zero) - l.zero;
                off += ((double)q * (double)l.w8[t * K + c] * (double)l.mul[c] -
                        (double)x * (double)w[t * K + c]) /
                       ROWS;
            }
        assert_true(fabs(off) < 1e-5);
    }
}

/* Rows without weights keep their bias, channels without values have a scale, all-zero input is
 * fine. */
static void test_matrix_zeros(void **state)
{
    (void)state;
    fill_matrix(1);
    memset(weights + 3 * K, 0, K * sizeof *weights);
    for (size_t r = 0; r < ROWS; r++)
        rows[r * K + 5] = 0;
    fv_int8_layer l = solve_matrix(FV_TYPE_F32, weights, 1);
    assert_true(fabsf((float)l.bias8[3] * l.mul[3] - bias[3]) < 1e-6f);
    assert_true(matrix_sqnr(&l, weights) > 42);
    memset(rows, 0, sizeof rows);
    l = solve_matrix(FV_TYPE_F32, weights, 1);
    for (size_t j = 0; j < N; j++) {
        int32_t s = l.bias8[j];
        for (size_t c = 0; c < K; c++)
            s += l.w8[j * K + c] * to_u8(0, l.zero);
        assert_true(fabs((double)s * (double)l.mul[j] - (double)bias[j]) < 1e-3);
    }
}

/* A convolution: mul sum (q - zero) w8 against sum w x, for the tap sums of single pixels. */
static void test_depthwise(void **state)
{
    static float w[TAPS * K * MULT], out_mul[K * MULT], out_bias[K * MULT];
    static int8_t out_w8[TAPS * K * MULT];
    fv_int8_layer l = { .inv = inv, .w8 = out_w8, .mul = out_mul, .bias = out_bias };
    double signal = 0, noise = 0, inputs = 0, lost = 0;
    (void)state;
    for (size_t i = 0; i < ROWS * K; i++)
        rows[i] = uniform(-1, 1) * (float)(1 + i % K); /* channels of very different size */
    for (size_t i = 0; i < TAPS * K * MULT; i++)
        w[i] = uniform(-1, 1) / (float)(1 + i % (K * MULT));
    const fv_int8_seen s = see_rows(K);
    high[4] = 50; /* once, in a row that is no sample: not worth the others' steps */
    fv_int8_depthwise(&l, &s, w, NULL, TAPS, MULT);
    assert_int_equal(l.zero, 128);
    for (size_t r = 0; r + TAPS <= ROWS; r += TAPS) {
        for (size_t o = 0; o < K * MULT; o++) {
            double want = 0;
            int32_t sum = 0;
            for (size_t t = 0; t < TAPS; t++) {
                const float x = rows[(r + t) * K + o / MULT];
                want += (double)x * (double)w[t * K * MULT + o];
                sum += (to_u8(x * l.inv[o / MULT], l.zero) - l.zero) * l.w8[t * K * MULT + o];
            }
            double off = want - (double)sum * (double)l.mul[o] - (double)l.bias[o];
            signal += want * want;
            noise += off * off;
        }
    }
    assert_true(10 * log10(signal / noise) > 38);
    for (size_t i = 0; i < ROWS * K; i++) {
        const size_t c = i % K;
        float q = (float)(to_u8(rows[i] * l.inv[c], l.zero) - l.zero) / l.inv[c];
        inputs += (double)rows[i] * (double)rows[i];
        lost += ((double)rows[i] - (double)q) * ((double)rows[i] - (double)q);
    }
    assert_true(fabs(10 * log10(inputs / lost) - l.sqnr) < 0.1);
    assert_true(l.inv[4] > 127.0f / 41 && l.inv[4] < 127.0f / 39); /* clipped as far as is tried */
    assert_true(l.inv[5] < 127.0f / 5.5f && l.inv[5] > 127.0f / 6.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),         cmocka_unit_test(test_matrix),
        cmocka_unit_test(test_outlier),        cmocka_unit_test(test_matrix_zeros),
        cmocka_unit_test(test_depthwise),      cmocka_unit_test(test_bias),
        cmocka_unit_test(test_bias_depthwise), cmocka_unit_test(test_compensated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
