/* quant/quantize: the search beats rounding, its error is what it says, and the blocks are
 * GGUF's. */
#include "support/cm.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/blocks.h"
#include "kernels/kernels.h"
#include "quant/quantize.h"

enum { K = 32 * 64 };

static uint64_t seed = 1;

static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / (float)(1 << 24) - 0.5f;
}

/* Bell-shaped, as weights are. */
static void fill(float *x, size_t n, float size)
{
    for (size_t i = 0; i < n; i++)
        x[i] = size * (uniform() + uniform() + uniform() + uniform());
}

static double squared_error(fv_type type, const void *blocks, const float *x, size_t k)
{
    float back[K];
    double error = 0;
    fv_dequantize_weights(type, back, blocks, k);
    for (size_t i = 0; i < k; i++)
        error += ((double)x[i] - back[i]) * ((double)x[i] - back[i]);
    return error;
}

static const fv_type types[2] = { FV_TYPE_Q8_0, FV_TYPE_Q4_0 };

static void check_search(fv_type type, double most)
{
    float x[K];
    uint8_t blocks[K * 2], rounded[K * 2], again[K * 2];
    fill(x, K, 0.05f);
    double error = fv_quantize_weights(type, blocks, x, K),
           plain = fv_quantize_weights_plain(type, rounded, x, K), sum = 0;
    assert_true(fabs(squared_error(type, blocks, x, K) - error) <= 1e-5 * error);
    if (!(error < most * plain))
        fail_msg("%s: squared error %g, by rounding %g: ratio %.3f, expected below %.3f",
                 fv_type_name(type), error, plain, error / plain, most);
    for (size_t b = 0; b < K / FV_BLOCK; b++) { /* the same again, and block by block */
        double e = fv_quantize_weights(type, again + b * fv_row_bytes(type, FV_BLOCK),
                                       x + b * FV_BLOCK, FV_BLOCK);
        assert_true(e <= fv_quantize_weights_plain(type, rounded, x + b * FV_BLOCK, FV_BLOCK));
        sum += e;
    }
    assert_memory_equal(blocks, again, fv_row_bytes(type, K));
    assert_true(fabs(sum - error) <= 1e-9 * error);
}

static void test_search(void **state)
{
    (void)state;
    check_search(FV_TYPE_Q8_0, 0.97);
    check_search(FV_TYPE_Q4_0, 0.90);
}

/* One scale for all blocks; no worse than the scale of the largest value. */
static void test_row_scale(void **state)
{
    (void)state;
    float x[K], scale;
    uint8_t row[K * 2], zeros[K * 2];
    int32_t offset, sum = 0;
    double plain = 0;
    fill(x, K, 0.05f);
    x[7] = 0.21f;
    const double error = fv_quantize_row(row, x, K);
    assert_true(fabs(squared_error(FV_TYPE_Q8_0, row, x, K) - error) <= 1e-4 * error);
    fv_row_scale_read(row, K, &scale, &offset);
    const float d = fv_f16_to_f32(fv_f32_to_f16(0.21f / 127));
    assert_true(scale > 0.6f * d && scale <= d);
    for (size_t i = 0; i < K; i++) {
        uint16_t half;
        memcpy(&half, row + i / FV_BLOCK * FV_Q8_BLOCK_BYTES, 2);
        assert_true(fv_f16_to_f32(half) == scale);
        sum += (int8_t)row[fv_q8_at(i)];
        const double off = (double)x[i] - (double)d * nearbyint((double)(x[i] / d));
        plain += off * off;
    }
    assert_int_equal(offset, -128 * sum);
    assert_true(error <= 1.001 * plain);

    memset(x, 0, sizeof x);
    assert_true(fv_quantize_row(row, x, K) == 0);
    fv_row_scale_read(row, K, &scale, &offset);
    assert_true(scale == 0 && offset == 0);
    x[3] = NAN; /* stored as zeros, as said */
    memset(zeros, 0, sizeof zeros);
    assert_true(isinf(fv_quantize_row(row, x, K)));
    assert_memory_equal(row, zeros, fv_row_bytes(FV_TYPE_Q8_0, K));
}

/* ---- with the inputs in view ---- */

enum { N = 96, ROWS = FV_COMPENSATED_ROWS, SAMPLES = 400 };

/* Inputs that hang together, of different sizes: a few sources mixed into all columns. */
static void correlated(float *x, bool dead)
{
    float mix[8][N];
    fill(&mix[0][0], 8 * N, 1);
    for (size_t i = 0; i < SAMPLES; i++) {
        float source[8];
        fill(source, 8, 1);
        for (size_t c = 0; c < N; c++) {
            float noise;
            fill(&noise, 1, 0.1f);
            x[i * N + c] = noise;
            for (size_t j = 0; j < 8; j++)
                x[i * N + c] += source[j] * mix[j][c];
            x[i * N + c] *= dead && c % 5 == 0 ? 0 : c % 11 == 3 ? 20 : 1;
        }
    }
}

static void sum_products(float *h, const float *x)
{
    for (size_t a = 0; a < N; a++) {
        for (size_t b = 0; b < N; b++) {
            double sum = 0;
            for (size_t i = 0; i < SAMPLES; i++)
                sum += (double)x[i * N + a] * (double)x[i * N + b];
            h[a * N + b] = (float)sum;
        }
    }
}

/* How far the outputs are off, in square, over all samples and rows. */
static double output_error(fv_type type, const uint8_t *blocks, const float *w, const float *x)
{
    double error = 0;
    for (size_t row = 0; row < ROWS; row++) {
        float back[N];
        fv_dequantize_weights(type, back, blocks + row * fv_row_bytes(type, N), N);
        for (size_t i = 0; i < SAMPLES; i++) {
            double off = 0;
            for (size_t c = 0; c < N; c++)
                off += ((double)w[row * N + c] - (double)back[c]) * (double)x[i * N + c];
            error += off * off;
        }
    }
    return error;
}

static float samples[SAMPLES * N], weights[ROWS * N], products[N * N], importance[N];

static bool row_scales; /* one for all blocks of a row */

static void search(fv_type type, uint8_t *blocks)
{
    for (size_t row = 0; row < ROWS; row++, blocks += fv_row_bytes(type, N))
        if (row_scales)
            fv_quantize_row(blocks, weights + row * N, N);
        else
            fv_quantize_weights(type, blocks, weights + row * N, N);
}

static void compensate(fv_type type, uint8_t *blocks, unsigned cpu, size_t rows)
{
    fv_kernels k;
    fv_kernels_init(&k, cpu);
    fv_inputs in = { N, products, importance };
    void *scratch = fv_alloc(fv_compensated_scratch(&k, N), 1);
    assert_true(fv_inputs_factor(&in, &k));
    search(type, blocks); /* for its scales */
    for (size_t row = 0; row < ROWS; row += rows)
        (row_scales ? fv_quantize_row_compensated : fv_quantize_compensated)(
            type, blocks + row * fv_row_bytes(type, N), fv_row_bytes(type, N), weights + row * N, N,
            rows, &in, &k, scratch);
    fv_free(scratch);
}

static void check_compensated(fv_type type, unsigned cpu, bool dead, double most)
{
    uint8_t searched[ROWS * N * 2], blocks[ROWS * N * 2], alone[ROWS * N * 2];
    correlated(samples, dead);
    fill(weights, ROWS * N, 0.05f);
    search(type, searched);
    sum_products(products, samples);
    compensate(type, blocks, cpu, ROWS);
    double before = output_error(type, searched, weights, samples),
           after = output_error(type, blocks, weights, samples);
    if (!(after < most * before))
        fail_msg(
            "%s: the outputs' squared error is %g, by search %g: ratio %.3f, expected below %.3f",
            fv_type_name(type), after, before, after / before, most);
    sum_products(products, samples);
    compensate(type, alone, cpu, 1); /* a row does not see the others */
    assert_memory_equal(blocks, alone, ROWS * fv_row_bytes(type, N));
}

static void test_compensated(void **state)
{
    unsigned levels[] = { 0, fv_cpu_level(NULL) };
    (void)state;
    for (size_t i = 0; i < FV_COUNT(levels); i++) {
        check_compensated(FV_TYPE_Q8_0, levels[i], false, 0.15);
        check_compensated(FV_TYPE_Q4_0, levels[i], false, 0.15);
        check_compensated(FV_TYPE_Q8_0, levels[i], true, 0.15);
        check_compensated(FV_TYPE_Q4_0, levels[i], true, 0.15);
        row_scales = true;
        check_compensated(FV_TYPE_Q8_0, levels[i], false, 0.15);
        check_compensated(FV_TYPE_Q8_0, levels[i], true, 0.15);
        row_scales = false;
    }
}

/* R R^T = H + damping, and R is upper triangular. */
static void test_factor(void **state)
{
    static float h[N * N];
    fv_kernels k;
    fv_inputs in = { N, products, importance };
    double trace = 0, sum = 0;
    (void)state;
    fv_kernels_init(&k, 0);
    correlated(samples, false);
    sum_products(products, samples);
    memcpy(h, products, sizeof h);
    assert_true(fv_inputs_factor(&in, &k));
    for (size_t i = 0; i < N; i++)
        trace += (double)h[i * N + i];
    /* importance is R[l][l]^2 up to a factor, which the last column tells: R[n-1][n-1]^2 =
     * H[n-1][n-1] */
    double damping = FV_DAMPING * trace / N,
           unit = ((double)h[N * N - 1] + damping) / (double)importance[N - 1];
    for (size_t a = 0; a < N; a++) {
        sum += (double)importance[a] / N;
        for (size_t b = a; b < N; b++) {
            double got = 0;
            for (size_t l = b; l < N; l++)
                got += (l == a ? 1 : (double)products[a * N + l]) *
                       (l == b ? 1 : (double)products[b * N + l]) * (double)importance[l] * unit;
            double want = (double)h[a * N + b] + (a == b ? damping : 0);
            assert_true(fabs(got - want) <= 1e-3 * damping + 1e-4 * fabs(want));
            assert_true(a == b || products[a * N + b] == products[b * N + a]);
        }
    }
    assert_true(fabs(sum - 1) < 1e-5);
}

/* Columns that do not hang together, and nothing at all: never worse than the search. NaN is
 * said. */
static void test_no_correlation(void **state)
{
    fv_kernels k;
    fv_inputs in = { N, products, importance };
    (void)state;
    fv_kernels_init(&k, 0);
    fill(weights, ROWS * N, 0.05f);
    for (int t = 0; t < 2; t++) {
        for (int size = 0; size < 3; size++) {
            uint8_t blocks[ROWS * N * 2], searched[N * 2];
            size_t n_same = 0; /* blocks, of ROWS * N / FV_BLOCK */
            memset(products, 0, sizeof products);
            for (size_t i = 0; i < N; i++)
                products[i * N + i] = (float[]){ 0, 1, 1e6f }[size];
            compensate(types[t], blocks, 0, ROWS);
            for (size_t i = 0; i < N; i++)
                assert_true(importance[i] == 1);
            for (size_t row = 0; row < ROWS; row++) {
                const uint8_t *at = blocks + row * fv_row_bytes(types[t], N);
                double error = fv_quantize_weights(types[t], searched, weights + row * N, N);
                assert_true(squared_error(types[t], at, weights + row * N, N) <=
                            error * (1 + 1e-6));
                for (size_t b = 0; b < N; b += FV_BLOCK)
                    n_same += !memcmp(at + fv_row_bytes(types[t], b),
                                      searched + fv_row_bytes(types[t], b),
                                      fv_row_bytes(types[t], FV_BLOCK));
            }
            assert_true(n_same > ROWS * N / FV_BLOCK * 9 / 10); /* 96 % */
        }
    }
    for (int bad = 0; bad < 2; bad++) {
        memset(products, 0, sizeof products);
        products[5 * N + 5] = bad ? NAN : INFINITY;
        assert_false(fv_inputs_factor(&in, &k));
    }
}

/* What a type holds exactly comes back exactly. */
static void test_exact(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            float x[2 * FV_BLOCK], back[2 * FV_BLOCK];
            uint8_t blocks[128];
            for (int i = 0; i < 2 * FV_BLOCK; i++)
                x[i] = (float)sign * 0.25f *
                       (float)(types[t] == FV_TYPE_Q8_0 ? i * 4 - 127 : i % 16 - 8);
            assert_true(fv_quantize_weights(types[t], blocks, x, 2 * FV_BLOCK) < 1e-5);
            fv_dequantize_weights(types[t], back, blocks, 2 * FV_BLOCK);
            if (types[t] == FV_TYPE_Q4_0)
                assert_memory_equal(back, x, sizeof x);
        }
    }
}

/* The element order of GGUF, and the kernels' reading of it. */
static void test_layout(void **state)
{
    (void)state;
    fv_kernels k;
    fv_kernels_init(&k, 0);
    fv_q4_block b = { .d = fv_f32_to_f16(2) };
    float x[FV_BLOCK];
    b.q[3] = 0xf1;
    fv_dequantize_weights(FV_TYPE_Q4_0, x, &b, FV_BLOCK);
    assert_true(x[3] == 2 * (1 - 8) && x[19] == 2 * (15 - 8) && x[0] == -16);
    for (int t = 0; t < 2; t++) {
        float w[K], ours[K], kernels[K];
        uint8_t blocks[K * 2];
        fill(w, K, 3);
        fv_quantize_weights(types[t], blocks, w, K);
        fv_dequantize_weights(types[t], ours, blocks, K);
        k.convert[FV_TYPE_F32][types[t]](kernels, blocks, K);
        assert_memory_equal(ours, kernels, sizeof ours);
    }
}

/* Zeros, one value, tiny and huge values, and what is not a number. */
static void test_edges(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        float x[FV_BLOCK] = { 0 }, back[FV_BLOCK];
        uint8_t blocks[FV_Q8_BLOCK_BYTES];
        assert_true(fv_quantize_weights(types[t], blocks, x, FV_BLOCK) == 0);
        fv_dequantize_weights(types[t], back, blocks, FV_BLOCK);
        assert_memory_equal(back, x, sizeof x);
        assert_true(fv_quantize_weights(types[t], blocks, x, 0) == 0);
        static const float sizes[] = { 1e-44f, 1e-30f, 1e-7f, 1, 6e4f, 5e5f, 1e38f };
        for (size_t s = 0; s < FV_COUNT(sizes); s++) {
            for (int n = 1; n < FV_BLOCK; n += 30) {
                memset(x, 0, sizeof x);
                for (int i = 0; i < n; i++)
                    x[i] = i % 2 ? -sizes[s] : sizes[s];
                double error = fv_quantize_weights(types[t], blocks, x, FV_BLOCK);
                assert_true(isfinite(error) && error >= 0);
                fv_dequantize_weights(types[t], back, blocks, FV_BLOCK);
                for (int i = 0; i < FV_BLOCK; i++)
                    assert_true(isfinite(back[i]));
                if (n == 1 && sizes[s] > 0.1f && sizes[s] < 1e5f)
                    assert_true(fabsf(back[0] / x[0] - 1) < 1e-3f);
            }
        }
        fill(x, FV_BLOCK, 1);
        x[3] = NAN;
        x[30] = -INFINITY;
        assert_true(isinf(fv_quantize_weights(types[t], blocks, x, FV_BLOCK)));
        fv_dequantize_weights(types[t], back, blocks, FV_BLOCK);
        assert_true(back[3] == 0 && back[30] == 0);
        assert_true(fabsf(back[5] - x[5]) < 0.2f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search), cmocka_unit_test(test_row_scale),
        cmocka_unit_test(test_exact),  cmocka_unit_test(test_layout),
        cmocka_unit_test(test_edges),  cmocka_unit_test(test_compensated),
        cmocka_unit_test(test_factor), cmocka_unit_test(test_no_correlation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
