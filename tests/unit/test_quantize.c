/* quant/quantize: the search beats rounding, its error is what it says, and the blocks are GGUF's. */
#include "cm.h"

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

static double weighted_error(fv_type type, const void *blocks, const float *x, size_t k, const float *importance)
{
    float back[K];
    double error = 0;
    fv_dequantize_weights(type, back, blocks, k);
    for (size_t i = 0; i < k; i++)
        error += (importance ? (double)importance[i] : 1) * ((double)x[i] - back[i]) * ((double)x[i] - back[i]);
    return error;
}

static const fv_type types[2] = { FV_TYPE_Q8_0, FV_TYPE_Q4_0 };

static void check_search(fv_type type, bool weighted, double most)
{
    float x[K], importance[K];
    uint8_t blocks[K * 2], rounded[K * 2];
    fill(x, K, 0.05f);
    for (size_t i = 0; i < K; i++)
        importance[i] = i % 7 ? 0.1f : 25;
    const float *w = weighted ? importance : NULL;
    double error = fv_quantize_weights(type, blocks, x, K, w), plain = fv_quantize_weights_plain(type, rounded, x, K, w);
    double measured = weighted_error(type, blocks, x, K, w);
    assert_true(fabs(measured - error) <= 1e-5 * error);
    if (!(error < most * plain))
        fail_msg("%s%s: squared error %g, by rounding %g: ratio %.3f, expected below %.3f", fv_type_name(type),
                 weighted ? " weighted" : "", error, plain, error / plain, most);
    /* the same again, and block by block */
    uint8_t again[K * 2];
    double sum = 0;
    for (size_t b = 0; b < K / FV_BLOCK; b++) {
        double e = fv_quantize_weights(type, again + b * fv_row_bytes(type, FV_BLOCK), x + b * FV_BLOCK, FV_BLOCK,
                                       w ? w + b * FV_BLOCK : NULL);
        assert_true(e <= fv_quantize_weights_plain(type, rounded, x + b * FV_BLOCK, FV_BLOCK, w ? w + b * FV_BLOCK : NULL));
        sum += e;
    }
    assert_memory_equal(blocks, again, fv_row_bytes(type, K));
    assert_true(fabs(sum - error) <= 1e-9 * error);
}

static void test_search(void **state)
{
    (void)state;
    check_search(FV_TYPE_Q8_0, false, 0.97);
    check_search(FV_TYPE_Q8_0, true, 0.90);
    check_search(FV_TYPE_Q4_0, false, 0.90);
    check_search(FV_TYPE_Q4_0, true, 0.65);
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
                x[i] = (float)sign * 0.25f * (float)(types[t] == FV_TYPE_Q8_0 ? i * 4 - 127 : i % 16 - 8);
            assert_true(fv_quantize_weights(types[t], blocks, x, 2 * FV_BLOCK, NULL) < 1e-5);
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
        fv_quantize_weights(types[t], blocks, w, K, NULL);
        fv_dequantize_weights(types[t], ours, blocks, K);
        k.convert[FV_TYPE_F32][types[t]](kernels, blocks, K);
        assert_memory_equal(ours, kernels, sizeof ours);
    }
}

/* Zeros, one value, tiny and huge values, weights that do not matter, and what is not a number. */
static void test_edges(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        float x[FV_BLOCK] = { 0 }, back[FV_BLOCK], none[FV_BLOCK] = { 0 };
        uint8_t blocks[FV_Q8_BLOCK_BYTES];
        assert_true(fv_quantize_weights(types[t], blocks, x, FV_BLOCK, NULL) == 0);
        fv_dequantize_weights(types[t], back, blocks, FV_BLOCK);
        assert_memory_equal(back, x, sizeof x);
        assert_true(fv_quantize_weights(types[t], blocks, x, 0, NULL) == 0);
        static const float sizes[] = { 1e-44f, 1e-30f, 1e-7f, 1, 6e4f, 5e5f, 1e38f };
        for (size_t s = 0; s < FV_COUNT(sizes); s++) {
            for (int n = 1; n < FV_BLOCK; n += 30) {
                memset(x, 0, sizeof x);
                for (int i = 0; i < n; i++)
                    x[i] = i % 2 ? -sizes[s] : sizes[s];
                double error = fv_quantize_weights(types[t], blocks, x, FV_BLOCK, NULL);
                assert_true(isfinite(error) && error >= 0);
                fv_quantize_weights(types[t], blocks, x, FV_BLOCK, none);
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
        assert_true(isinf(fv_quantize_weights(types[t], blocks, x, FV_BLOCK, NULL)));
        fv_dequantize_weights(types[t], back, blocks, FV_BLOCK);
        assert_true(back[3] == 0 && back[30] == 0);
        assert_true(fabsf(back[5] - x[5]) < 0.2f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search), cmocka_unit_test(test_exact), cmocka_unit_test(test_layout),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
