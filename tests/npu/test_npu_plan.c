/* A model on its way to the NPU, as far as no library of Qualcomm's is needed: evened weights are
 * the same model, rounded ones nearly, widths are chosen by what they cost. */
#include "support/cm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "npu/npu_mixed.h"
#include "npu/npu_simulate.h"
#include "npu/npu_weights.h"
#include "quant/cosine.h"
#include "support/golden.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define BASE FV_SOURCE_DIR "/tests/data/variants/base/checkpoint"

enum { SCENES = 2, SIZE = 128 };

static const fv_calibrate_options scenes = { .max_images = SCENES };

static float *any_pixels(const fv_npu_vision *v)
{
    size_t n = fv_npu_vision_pixels(v);
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i * 2654435761u >> 8 & 255) / 255.0f * (float)(i / 97 % 3) / 2;
    return x;
}

static void vision_open(fv_npu_vision *v)
{
    fv_error err;
    if (fv_npu_vision_open(v, TINY, SIZE, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
}

static fv_npu_vision in_8_bits; /* W8A8; tests put back what they change */

static int in_8_bits_open(void **state)
{
    fv_error err;
    (void)state;
    vision_open(&in_8_bits);
    return fv_npu_vision_plan(&in_8_bits, FV_NPU_W8A8, 0, &scenes, &err);
}

static int in_8_bits_close(void **state)
{
    (void)state;
    fv_npu_vision_close(&in_8_bits);
    return 0;
}

static float *tokens_of(fv_npu_vision *v, const float *pixels)
{
    fv_error err;
    float *tokens = malloc(fv_npu_vision_tokens(v) * sizeof *tokens);
    if (fv_npu_vision_run(v, pixels, tokens, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    return tokens;
}

/* Every pair and every stream is divided in front and multiplied behind. */
static void test_evened_is_the_same_model(void **state)
{
    fv_npu_vision v;
    fv_error err;
    (void)state;
    vision_open(&v);
    float *pixels = any_pixels(&v), *before = tokens_of(&v, pixels);
    assert_int_equal(fv_npu_vision_plan(&v, FV_NPU_W8A16, 0, &scenes, &err), FV_OK);
    float *after = tokens_of(&v, pixels);
    assert_ptr_not_equal(v.even.w.vision.stage[0].block[0].ffn.fc1.data,
                         v.model.weights.vision.stage[0].block[0].ffn.fc1.data);
    double off = relative_l2(after, before, fv_npu_vision_tokens(&v));
    if (!(off < 1e-5))
        fail_msg("relative error %g", off);
    free(pixels);
    free(before);
    free(after);
    fv_npu_vision_close(&v);
}

/* 0 is exact, ends are there, the middle is where a product wants it, 8 bits fit into 16. */
static void test_encodings(void **state)
{
    (void)state;
    fv_qnn_encoding e = fv_npu_encode_range(-1, 3, 255);
    assert_true(fabsf((float)(0 + e.offset) * e.scale - -1) <= e.scale);
    assert_true(fabsf((float)(255 + e.offset) * e.scale - 3) <= e.scale);
    fv_qnn_encoding wide = fv_npu_encode_widened(e);
    for (int q = 0; q < 256; q++)
        assert_true(fabsf((float)(q + e.offset) * e.scale -
                          (float)(q * 257 + wide.offset) * wide.scale) < 1e-5f);
    e = fv_npu_encode_range(2, 3, 255); /* 0 is always in it */
    assert_int_equal(e.offset, 0);
    assert_int_equal(fv_npu_encode_middle(5).offset, -32768);
    float x[] = { -9, -0.001f, 0, 0.5f, 9 };
    e = fv_npu_encode_range(-1, 1, 255);
    fv_npu_round_values(x, 5, e);
    assert_true(x[0] >= -1.01f && x[4] <= 1.01f && x[2] == 0 && fabsf(x[3] - 0.5f) <= e.scale / 2);
}

/* A column's scale loses no more than that of its largest weight; a bias always fits. */
static void test_weights(void **state)
{
    enum { ROWS = 60, N = 37 };
    float w[ROWS * N], bias[N] = { 0 }, scale[N];
    int8_t w8[ROWS * N];
    (void)state;
    for (size_t i = 0; i < ROWS * N; i++)
        w[i] = (float)((double)(i * 2654435761u % 1000) / 500 - 1) * (float)(1 + i % N);
    bias[3] = 1e6f;
    fv_npu_quantize(w, ROWS, N, NULL, 1, w8, scale);
    for (size_t o = 0; o < N; o++) {
        double most = 0, off = 0, plain = 0;
        for (size_t i = 0; i < ROWS; i++)
            most = fmax(most, fabs((double)w[i * N + o]));
        for (size_t i = 0; i < ROWS; i++) {
            double x = (double)w[i * N + o], q = (double)(w8[i * N + o] * scale[o]);
            double p = rint(x / most * 127) * most / 127;
            off += (x - q) * (x - q);
            plain += (x - p) * (x - p);
        }
        assert_true(off <= plain * 1.0001);
    }
    float before = scale[3];
    fv_npu_quantize(w, ROWS, N, bias, 1e-9f, w8, scale);
    assert_true(scale[3] > before);
    assert_true(fabsf(bias[3] / (scale[3] * 1e-9f)) <= 0x1p31f);
}

/* Depthwise convolutions with two outputs a channel, and linear layers: the mean output of rounded
 * weights and a rounded input is that of the weights and the input. */
static void test_bias_correction(void **state)
{
    const float w[] = { 0.4f, -0.3f, 0.26f, 0.9f }, mean[] = { 2, 5 }, rounded[] = { 3, 5 };
    const int8_t w8[] = { 1, 0, 1, 2 };
    const float scale[] = { 0.5f, 0.5f };
    const fv_npu_means exact = { mean, mean, { 1, 1 } }, off = { mean, rounded, { 1, 1 } },
                       padded = { mean, mean, { 1, 0.5f } }, none = { 0 };
    float bias[2] = { 0 };
    (void)state;
    fv_npu_bias_correct(w, w8, scale, bias, &exact, 2, 2, 0, 2); /* [2 inputs, 2 outputs] */
    assert_true(fabsf(bias[0] - (-0.1f * 2 - 0.24f * 5)) < 1e-5f);
    assert_true(fabsf(bias[1] - (-0.3f * 2 - 0.1f * 5)) < 1e-5f);
    bias[0] = bias[1] = 0;
    fv_npu_bias_correct(w, w8, scale, bias, &off, 2, 2, 0,
                        2); /* the input's mean is one more, too */
    assert_true(fabsf(bias[0] - (-0.1f * 2 - 0.24f * 5 - 0.5f)) < 1e-5f);
    assert_true(fabsf(bias[1] - (-0.3f * 2 - 0.1f * 5)) < 1e-5f);
    bias[0] = bias[1] = 0;
    fv_npu_bias_correct(w, w8, scale, bias, &exact, 2, 1, 2, 2); /* both outputs read channel 0 */
    assert_true(fabsf(bias[0] - (-0.1f - 0.24f) * 2) < 1e-5f);
    bias[0] = 0;
    fv_npu_bias_correct(w, w8, scale, bias, &padded, 2, 1, 2, 2); /* half of the second tap's */
    assert_true(fabsf(bias[0] - (-0.1f - 0.12f) * 2) < 1e-5f);
    bias[0] = 7;
    fv_npu_bias_correct(w, w8, scale, bias, &none, 2, 2, 0, 2);
    assert_true(bias[0] == 7);
}

/* A layer's result for a mean input, and the squared weights that read each channel: a linear layer
 * with a layer scale, the stem, a depthwise convolution with two outputs a channel. */
static void test_layer_apply(void **state)
{
    fv_kernels k;
    fv_error err;
    fv_value x = { .n_dims = 4, .dim = { { 1, NULL }, { 4, NULL }, { 4, NULL }, { 2, NULL } } },
             out = { .n_dims = 4, .dim = { { 1, NULL }, { 2, NULL }, { 2, NULL }, { 4, NULL } } };
    float w[54], y[4], squares[3];
    const float scale[] = { 2, 3 }, mean[] = { 10, 100, 1000 };
    (void)state;
    fv_kernels_init(&k, 0);
    for (int i = 0; i < 54; i++)
        w[i] = (float)(i + 1);
    fv_mat m = { .data = w, .type = FV_TYPE_F32, .n = 2, .k = 2 };
    fv_node n = { .op = FV_OP_LINEAR, .in = { &x }, .out = &out, .linear = { &m, scale } };
    assert_int_equal(fv_npu_layer_apply(&n, mean, y, squares, &k, &err), FV_OK);
    assert_true(y[0] == 2 * (1 * 10 + 2 * 100) && y[1] == 3 * (3 * 10 + 4 * 100));
    assert_true(squares[0] == 4 * 1 + 9 * 9 && squares[1] == 4 * 4 + 9 * 16);
    fv_dw d = { .w = w, .channels = 2, .mult = 2, .kernel = 3 }; /* [9 taps, 4 outputs] */
    n = (fv_node){ .op = FV_OP_DEPTHWISE, .in = { &x }, .out = &out, .depthwise = { &d, 2 } };
    assert_int_equal(fv_npu_layer_apply(&n, mean, y, squares, &k, &err), FV_OK);
    double taps = 0, squared = 0;
    for (int i = 0; i < 9; i++) {
        /* of output 2; the first row and column of taps lie outside for one of two outputs */
        taps += (4 * i + 1 + 2) * (i / 3 ? 1 : 0.5) * (i % 3 ? 1 : 0.5);
        squared += (4 * i + 3) * (4 * i + 3) + (4 * i + 4) * (4 * i + 4);
    }
    assert_true(y[2] == (float)(taps * 100) && squares[1] == (float)squared);
    x.dim[3].n = 3;
    fv_mat stem = { .data = w, .type = FV_TYPE_F32, .n = 2, .k = 27 };
    n = (fv_node){ .op = FV_OP_CONV, .in = { &x }, .out = &out, .conv = { &stem } };
    assert_int_equal(fv_npu_layer_apply(&n, mean, y, NULL, &k, &err), FV_OK);
    double sum = 0;
    for (int i = 0; i < 27; i++)
        sum += (double)w[i] * (double)mean[i % 3] * (i / 9 ? 1 : 0.5) * (i / 3 % 3 ? 1 : 0.5);
    assert_true(y[0] == (float)sum);
}

/* A plan knows what rounding makes of the means of what layers read; which of them a layer's bias
 * is corrected with follows the widths. */
static void test_means(void **state)
{
    fv_npu_vision *v = &in_8_bits;
    const fv_npu_fit fit = v->plan.fit;
    fv_error err;
    size_t made = 0;
    (void)state;
    for (size_t i = 0; i < v->graph.n_nodes; i++) {
        const fv_node *n = v->graph.node[i];
        if (!fv_node_weight(n) || n->op == FV_OP_CONV)
            continue;
        const fv_value *x = n->in[0];
        const fv_npu_value_means *m = &v->plan.mean[x->index];
        const float half = v->plan.of[x->index].u8.scale / 2;
        const fv_value_range *r = fv_ranges_of(v->ranges, x);
        double exact = 0, narrow = 0;
        fv_qnn_encoding e = v->plan.of[x->index].u8;
        for (size_t k = 0; k < r->n_rows; k++) {
            float one = r->rows[k * r->n_channels];
            exact += (double)one / (double)r->n_rows;
            fv_npu_round_values(&one, 1, e);
            narrow += (double)one / (double)r->n_rows;
        }
        assert_true(fabs(exact - (double)m->exact[0]) < 1e-3 + (double)half / 10);
        assert_true(fabs(narrow - (double)m->narrow[0]) < 1e-3 + (double)half / 10);
        made += memcmp(m->made, m->narrow, r->n_channels * sizeof *m->made) != 0;
        assert_true((memcmp(m->made, m->narrow, r->n_channels * sizeof *m->made) == 0) ==
                    (x->from->op != FV_OP_GELU));
        v->plan.fit.corrected = true;
        const uint8_t in_before = v->plan.width[x->index];
        uint8_t *in = &v->plan.width[x->index], *out = &v->plan.width[n->out->index];
        *in = *out = FV_NPU_WIDE;
        assert_ptr_equal(fv_npu_plan_read_as(&v->plan, n), m->exact);
        *out = FV_NPU_NARROW;
        assert_ptr_equal(fv_npu_plan_read_as(&v->plan, n), m->narrow);
        *in = FV_NPU_NARROW;
        fv_npu_means means;
        assert_int_equal(fv_npu_plan_means(&means, &v->plan, n, &err), FV_OK);
        assert_ptr_equal(means.rounded, m->made);
        assert_ptr_equal(means.mean, m->exact);
        v->plan.fit.corrected = false;
        assert_ptr_equal(fv_npu_plan_read_as(&v->plan, n), m->exact);
        *out = FV_NPU_NARROW;
        *in = in_before;
    }
    assert_true(made > 5);
    v->plan.fit = fit;
}

/* Asked for more, MIXED has fewer layers in 8 bits; asked for all, none; for nothing, every one. */
static void test_mixed_follows_the_goal(void **state)
{
    const double goal[] = { 1e-9, 0.99, 1 };
    double share[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        fv_npu_vision v;
        fv_error err;
        vision_open(&v);
        if (fv_npu_vision_plan(&v, FV_NPU_MIXED, goal[i], &scenes, &err) != FV_OK)
            fail_msg("%s", err.message);
        share[i] = fv_npu_plan_share(&v.plan);
        fv_npu_vision_close(&v);
    }
    assert_true(share[0] > 0.8 && share[1] <= share[0] && share[2] == 0);
}

static void test_widths(void **state)
{
    fv_npu_vision of[2];
    const fv_npu_vision *v[] = { &in_8_bits, &of[0], &of[1] };
    const fv_npu_precision precision[] = { FV_NPU_W8A16, FV_NPU_F16 };
    const uint8_t want[] = { 8, 16, 32 };
    fv_error err;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        vision_open(&of[i]);
        assert_int_equal(fv_npu_vision_plan(&of[i], precision[i], 0, &scenes, &err), FV_OK);
    }
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < v[k]->graph.n_values; i++)
            if (v[k]->graph.value[i]->from->op != FV_OP_INPUT)
                assert_int_equal(v[k]->plan.width[i], want[k]);
        assert_true(fv_npu_plan_share(&v[k]->plan) == (k == 0 ? 1 : 0));
    }
    for (size_t i = 0; i < 2; i++)
        fv_npu_vision_close(&of[i]);
}

/* ---- ranges ------------------------------------------------------------------------------ */

/* Rows of two channels into a layer that reads only the first; the second reaches a hundred times
 * as far. */
static void test_ranges_follow_the_reader(void **state)
{
    enum { ROWS = 256 };
    static const float weights[] = { 1, 0, 0.5f, 0, 2, 0 };
    const fv_dim dims[] = { FV_DIM(1), FV_DIM(ROWS), FV_DIM(2) };
    const fv_mat w = { .data = weights, .type = FV_TYPE_F32, .n = 3, .k = 2 };
    float x[ROWS * 2];
    fv_npu_vision v; /* for its kernels */
    fv_graph g;
    fv_ranges *ranges;
    fv_npu_plan plan;
    fv_error err;
    (void)state;
    vision_open(&v);
    for (size_t i = 0; i < ROWS; i++) {
        x[2 * i] = (float)(i % 17) / 8 - 1;
        x[2 * i + 1] = (float)(i % 13) * 8;
    }
    fv_graph_begin(&g, "rows", &err);
    fv_graph_scope(&g, "rows", "%s", "");
    fv_value *in = fv_graph_input(&g, "x", FV_TYPE_F32, FV_FORM_ROWS, dims, 3);
    fv_value *y = fv_graph_linear(&g, in, "layer", &w, NULL);
    fv_graph_output(&g, y, "y");
    const fv_ranges_options o = { .n_runs = 1, .sample_rows = 128, .histograms = true };
    const fv_run_input input = { "x", x };
    assert_int_equal(fv_ranges_new(&ranges, &g, &o, &err), FV_OK);
    assert_int_equal(fv_ranges_run(ranges, &v.ops, &(fv_graph_io){ &input, 1, NULL, 0 }, &err),
                     FV_OK);
    assert_int_equal(fv_npu_plan_make(&plan, &g, ranges, FV_NPU_W8A8, &v.model.kernels, &err),
                     FV_OK);
    fv_qnn_encoding e = plan.of[in->index].u8, wide = plan.of[in->index].u16;
    assert_true(e.scale * 255 < 10);
    assert_true((float)e.offset * e.scale <= -0.9f && (float)(e.offset + 255) * e.scale >= 0.9f);
    assert_true((float)(wide.offset + 65535) * wide.scale > 96 * 1.9f); /* room for other images */
    fv_npu_plan_free(&plan);
    fv_ranges_free(ranges);
    fv_graph_end(&g);
    fv_npu_vision_close(&v);
}

/* Scores of attention are not cut off, other values are where that loses less. */
static void test_ranges_cut(void **state)
{
    const fv_npu_vision *v = &in_8_bits;
    size_t cut = 0, scores = 0;
    (void)state;
    for (size_t i = 0; i < v->graph.n_values; i++) {
        const fv_value *x = v->graph.value[i];
        const fv_value_range *r = fv_ranges_of(v->ranges, x);
        fv_qnn_encoding e = v->plan.of[i].u8;
        bool whole = (float)e.offset * e.scale <= fminf(r->min, 0) + e.scale &&
                     (float)(e.offset + 255) * e.scale >= r->max - e.scale;
        const fv_node *n = x->from;
        if (n->op == FV_OP_SELF_ATTENTION && x == n->self_attention.scores) {
            assert_true(whole);
            scores++;
        } else if (fv_node_weight(n)) {
            cut += !whole;
        }
    }
    assert_true(scores > 0 && cut > 5);
}

/* ---- the simulation ---------------------------------------------------------------------- */

typedef struct bench {
    fv_npu_vision v;
    fv_npu_simulation s;
    float *pixels, *want, *got;
} bench;

static void bench_open_at(bench *b, const char *model, int size, fv_npu_precision precision)
{
    fv_error err;
    if (fv_npu_vision_open(&b->v, model, size, NULL, &err) != FV_OK ||
        fv_npu_vision_plan(&b->v, precision, 0.99, &scenes, &err) != FV_OK ||
        fv_npu_simulation_open(&b->s, &b->v.plan, &b->v.even.w, &b->v.config, &b->v.ops,
                               &b->v.model.kernels, &err) != FV_OK)
        fail_msg("%s", err.message);
    b->pixels = any_pixels(&b->v);
    b->want = tokens_of(&b->v, b->pixels);
    b->got = malloc(fv_npu_vision_tokens(&b->v) * sizeof *b->got);
}

static void bench_open(bench *b, fv_npu_precision precision)
{
    bench_open_at(b, TINY, SIZE, precision);
}

static void bench_close(bench *b)
{
    fv_npu_simulation_close(&b->s);
    fv_npu_vision_close(&b->v);
    free(b->pixels);
    free(b->want);
    free(b->got);
}

static double bench_loss(bench *b, bool round_weights)
{
    fv_error err;
    if (fv_npu_simulation_run(&b->s, b->pixels, b->got, round_weights, &err) != FV_OK)
        fail_msg("%s", err.message);
    return 1 - fv_cosine(b->want, b->got, fv_npu_vision_tokens(&b->v));
}

static void widths_fill(bench *b, uint8_t width)
{
    for (size_t i = 0; i < b->v.graph.n_values; i++)
        if (b->v.graph.value[i]->from->op != FV_OP_INPUT)
            b->v.plan.width[i] = width;
}

/* Nothing in 8 bits, nothing lost; weights alone; activations; both. */
static void test_simulation_adds_up(void **state)
{
    bench b;
    (void)state;
    bench_open(&b, FV_NPU_W8A16);
    assert_true(bench_loss(&b, false) < 1e-12);
    double weights = bench_loss(&b, true);
    widths_fill(&b, FV_NPU_NARROW);
    double values = bench_loss(&b, false), both = bench_loss(&b, true);
    assert_true(weights > 1e-7 && values > 1e-7);
    assert_true(both > FV_MAX(weights, values) * 0.7 && both < 0.2);
    bench_close(&b);
}

/* Each way in which 8 bits enter shows: inside attention, in q, k and v by encodings of their own,
 * in what a layer alone reads. */
static void test_simulation_rounds(void **state)
{
    bench b;
    (void)state;
    bench_open(&b, FV_NPU_W8A16);
    for (size_t i = 0; i < b.v.graph.n_nodes; i++) {
        const fv_node *n = b.v.graph.node[i];
        const fv_value *x = n->n_in ? n->in[0] : NULL;
        if (n->op == FV_OP_SELF_ATTENTION) {
            size_t scores = n->self_attention.scores->index;
            b.v.plan.width[n->out->index] = FV_NPU_NARROW;
            double attention = bench_loss(&b, false);
            b.v.plan.of[scores].u8.scale *= 30;
            double coarse = bench_loss(&b, false);
            b.v.plan.of[scores].u8.scale /= 30;
            b.v.plan.width[n->out->index] = FV_NPU_WIDE;
            b.v.plan.width[x->index] = FV_NPU_NARROW;
            double qkv = bench_loss(&b, false);
            b.v.plan.width[x->index] = FV_NPU_WIDE;
            if (!(attention > 1e-12 && attention < 0.01 && coarse > 2 * attention && qkv > 1e-12 &&
                  qkv < 0.001))
                fail_msg("%s: attention %g, coarse scores %g, q, k and v %g", n->out->name,
                         attention, coarse, qkv);
        }
        if (n->op == FV_OP_DEPTHWISE && x->from->op == FV_OP_ADD) {
            b.v.plan.width[n->out->index] = FV_NPU_NARROW;
            double plain = bench_loss(&b, false);
            b.v.plan.of[x->index].u8.scale *= 50;
            double coarse = bench_loss(&b, false);
            b.v.plan.of[x->index].u8.scale /= 50;
            b.v.plan.width[n->out->index] = FV_NPU_WIDE;
            if (!(coarse > 2 * plain))
                fail_msg("%s: %g, coarser input %g", n->out->name, plain, coarse);
        }
    }
    bench_close(&b);
}

/* What a correction says is taken from a layer's result: here from the last one's. */
static void test_simulation_corrects(void **state)
{
    bench b;
    (void)state;
    bench_open(&b, FV_NPU_W8A16);
    size_t last = b.v.graph.n_nodes - 1;
    while (b.v.graph.node[last]->op != FV_OP_LINEAR)
        last--;
    const fv_value *y = b.v.graph.node[last]->out;
    float *off = b.s.corrections[y->index].by[0][FV_NPU_EXACT];
    size_t n = fv_value_cols(y);
    for (size_t i = 0; i < n; i++)
        off[i] = (float)(i % 5);
    bench_loss(&b, false);
    for (size_t i = 0; i < fv_npu_vision_tokens(&b.v); i++)
        assert_true(fabsf(b.want[i] - b.got[i] - (float)(i % n % 5)) < 1e-4f);
    bench_close(&b);
}

/* The fit that is chosen loses least, on the images that it is judged by. */
static void test_fit(void **state)
{
    static const fv_npu_fit usual = { 2, false }, others[] = { { 2, true }, { 1, false } };
    bench b;
    fv_error err;
    (void)state;
    bench_open(&b, FV_NPU_W8A8);
    const fv_kernels *k = &b.v.model.kernels;
    assert_int_equal(fv_npu_plan_refit(&b.v.plan, b.v.ranges, usual, k, &err), FV_OK);
    assert_int_equal(fv_npu_fit_choose(&b.v, b.pixels, 1, NULL, &err), FV_OK);
    fv_npu_fit chosen = b.v.plan.fit;
    assert_int_equal(fv_npu_simulation_learn(&b.s, &err), FV_OK);
    double loss = bench_loss(&b, true);
    for (size_t i = 0; i < 3; i++) {
        fv_npu_fit fit = i < 2 ? others[i] : usual;
        assert_int_equal(fv_npu_plan_refit(&b.v.plan, b.v.ranges, fit, k, &err), FV_OK);
        assert_int_equal(fv_npu_simulation_learn(&b.s, &err), FV_OK);
        double other = bench_loss(&b, true);
        bool same = fit.exponent == chosen.exponent && fit.corrected == chosen.corrected;
        if (!(same ? other == loss : other >= loss))
            fail_msg("exponent %g, corrected %d: %g; chosen: exponent %g, corrected %d: %g",
                     fit.exponent, fit.corrected, other, chosen.exponent, chosen.corrected, loss);
    }
    bench_close(&b);
}

/* What was asked for is reached on the images that it is judged by, and not far exceeded. */
static void test_mixed_reaches_the_goal(void **state)
{
    bench b;
    fv_error err;
    (void)state;
    bench_open(&b, FV_NPU_MIXED);
    widths_fill(&b, FV_NPU_NARROW);
    double narrow = bench_loss(&b, true);
    widths_fill(&b, FV_NPU_WIDE);
    double wide = bench_loss(&b, true), goal = wide + (narrow - wide) * 0.3;
    if (fv_npu_mixed_choose(&b.v, b.pixels, 1, 1 - goal, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(fv_npu_simulation_learn(&b.s, &err), FV_OK); /* the fit is another one */
    double chosen = bench_loss(&b, true), share = fv_npu_plan_share(&b.v.plan);
    if (!(chosen <= goal && chosen > goal * 0.3 && share > 0.5 && share < 1))
        fail_msg("lost %g of %g, %g with all in 8 bits; share %g", chosen, goal, narrow, share);
    bench_close(&b);
}

/* Where most is measured on smaller images, the goal is still that of whole ones; by default it
 * allows for what the weights lose. */
static void test_mixed_of_large_images(void **state)
{
    bench b;
    fv_error err;
    (void)state;
    bench_open_at(&b, BASE, 512, FV_NPU_W8A16);
    double wide = bench_loss(&b, true);
    widths_fill(&b, FV_NPU_NARROW);
    double narrow = bench_loss(&b, true);
    const double goal[] = { wide + (narrow - wide) * 0.3,
                            FV_MAX(1 - FV_NPU_MIXED_COSINE, wide * 1.5), wide * 0.9 };
    const double min_cosine[] = { 1 - goal[0], 0, 1 - goal[2] };
    for (size_t i = 0; i < 3; i++) {
        widths_fill(&b, FV_NPU_WIDE);
        if (fv_npu_mixed_choose(&b.v, b.pixels, 1, min_cosine[i], NULL, &err) != FV_OK)
            fail_msg("%s", err.message);
        assert_int_equal(fv_npu_simulation_learn(&b.s, &err), FV_OK);
        double chosen = bench_loss(&b, true), share = fv_npu_plan_share(&b.v.plan);
        if (i < 2 ? !(chosen <= goal[i] && share > 0.05) : share != 0)
            fail_msg("lost %g of %g; %g to %g; share %g", chosen, goal[i], wide, narrow, share);
    }
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evened_is_the_same_model),
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_bias_correction),
        cmocka_unit_test(test_layer_apply),
        cmocka_unit_test(test_means),
        cmocka_unit_test(test_mixed_follows_the_goal),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_ranges_follow_the_reader),
        cmocka_unit_test(test_ranges_cut),
        cmocka_unit_test(test_simulation_adds_up),
        cmocka_unit_test(test_simulation_rounds),
        cmocka_unit_test(test_simulation_corrects),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_mixed_reaches_the_goal),
        cmocka_unit_test(test_mixed_of_large_images),
    };
    return cmocka_run_group_tests(tests, in_8_bits_open, in_8_bits_close);
}
