/* Our graphs on Qualcomm's own libraries against graph_run. Run by tools/test-npu.sh:
 *
 *     FV_QNN_DIR        libQnnHtp.so, which emulates the NPU: f16
 *     FV_QNN_CPU_DIR    libQnnCpu.so: f32 */
#include "support/cm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npu/npu_decoder.h"
#include "npu/npu_embed.h"
#include "npu/npu_selfcheck.h"
#include "npu/npu_vision.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define DEMO FV_SOURCE_DIR "/models/demo"

enum { SM8750 = 69, MAX_VALUES = 200 };

static const char *directory(const char *variable)
{
    const char *dir = getenv(variable);
    if (!dir)
        fail_msg("%s is not set", variable);
    return dir;
}

static fv_qnn_job job_of(bool htp, const fv_npu_plan *const *plan, const fv_kernels *k,
                         const float *input)
{
    return (fv_qnn_job){ .dir = directory(htp ? "FV_QNN_DIR" : "FV_QNN_CPU_DIR"),
                         .library = htp ? FV_QNN_HTP_LIBRARY : FV_QNN_CPU_LIBRARY,
                         .soc_model = htp ? SM8750 : 0,
                         .title = "test",
                         .stage = "npu",
                         .plans = plan,
                         .n_plans = 1,
                         .kernels = k,
                         .model = { .f16 = htp },
                         .input = input,
                         .n_runs = 1 };
}

/* The largest difference, of the largest value. */
static double worst_of(const float *want, const float *got, size_t n)
{
    double most = 0, off = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)want[i]));
        off = fmax(off, fabs((double)want[i] - (double)got[i]));
    }
    return off / (most + 1e-300);
}

/* ---- vision ------------------------------------------------------------------------------ */

static void assert_vision_near(const char *model, bool htp, double most)
{
    fv_npu_vision v;
    fv_error err;
    fv_qnn_outcome made;
    if (fv_npu_vision_open(&v, model, 0, NULL, &err) != FV_OK ||
        fv_npu_vision_plan(&v, FV_NPU_F16, 0, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    size_t n = fv_npu_vision_pixels(&v), t = fv_npu_vision_tokens(&v);
    float *pixels = malloc(n * sizeof *pixels), *want = malloc(t * sizeof *want);
    for (size_t i = 0; i < n; i++)
        pixels[i] = (float)((uint32_t)(i / 3 / 16) * 2654435761u >> 24) / 255.0f;
    const fv_npu_plan *plan = &v.plan;
    fv_qnn_job job = job_of(htp, &plan, &v.model.kernels, pixels);
    if (fv_npu_vision_run(&v, pixels, want, NULL, &err) != FV_OK ||
        fv_qnn_job_run(&made, &job, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(made.n_values, t);
    double worst = worst_of(want, made.values, t);
    if (!(worst <= most))
        fail_msg("%s: off by %g of the largest, at most %g", model, worst, most);
    print_message("           %s: off by %.2g of the largest value\n", model, worst);
    fv_qnn_outcome_free(&made);
    free(pixels);
    free(want);
    fv_npu_vision_close(&v);
}

static void test_vision_on_cpu(void **state)
{
    (void)state;
    assert_vision_near(TINY, false, 1e-5);
    assert_vision_near(DEMO, false, 1e-5);
}

static void test_vision_in_f16(void **state)
{
    (void)state;
    assert_vision_near(TINY, true, 0.02);
    assert_vision_near(DEMO, true, 0.05);
}

static void test_selfcheck(void **state)
{
    fv_npu_soc_info soc = { .size = sizeof soc };
    fv_npu_decoder d; /* for its kernels */
    fv_ops ops;
    fv_error err;
    (void)state;
    assert_int_equal(fv_npu_decoder_open(&d, TINY, 64, NULL, &err), FV_OK);
    assert_int_equal(fv_ops_init(&ops, &d.model.kernels, d.model.pool, &err), FV_OK);
    for (size_t i = 0; fv_npu_soc(i, &soc); i++)
        if (fv_npu_selfcheck(directory("FV_QNN_DIR"), &soc, &ops, NULL, &err) != FV_OK)
            fail_msg("%s", err.message);
    fv_ops_free(&ops);
    fv_npu_decoder_close(&d);
}

/* ---- RMS norm ---------------------------------------------------------------------------- */

/* Rows of ever smaller numbers: what epsilon a library's node has, by what it makes of each. */
static void rms_norms(bool htp, double eps, double *seen, size_t n)
{
    enum { C = 64 };
    const fv_dim dims[] = { FV_DIM(1), FV_DIM(n), FV_DIM(C) };
    float weight[C], *x = malloc(n * C * sizeof *x);
    fv_npu_decoder d; /* for its kernels */
    fv_npu_plan plan;
    fv_qnn_outcome made;
    fv_graph g;
    fv_error err;
    assert_int_equal(fv_npu_decoder_open(&d, TINY, 64, NULL, &err), FV_OK);
    for (size_t i = 0; i < n * C; i++)
        x[i] = (i % 2 ? 1.0f : -1.0f) * powf(10, -(float)(i / C) / 2);
    for (size_t i = 0; i < C; i++)
        weight[i] = 1;
    fv_graph_begin(&g, "norms", &err);
    fv_graph_scope(&g, "norms", "%s", "");
    fv_value *v = fv_graph_input(&g, "x", FV_TYPE_F32, FV_FORM_ROWS, dims, 3);
    fv_graph_output(&g, fv_graph_norm(&g, FV_OP_RMS_NORM, v, "norm", weight, NULL, eps), "y");
    assert_int_equal(fv_npu_plan_make(&plan, &g, NULL, FV_NPU_F16, NULL, &err), FV_OK);
    const fv_npu_plan *plans = &plan;
    fv_qnn_job job = job_of(htp, &plans, &d.model.kernels, x);
    if (fv_qnn_job_run(&made, &job, &err) != FV_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < n; i++) { /* y = x / sqrt(x^2 + eps) */
        double a = (double)x[i * C], b = (double)made.values[i * C];
        seen[i] = a * a / (b * b) - a * a;
    }
    fv_qnn_outcome_free(&made);
    fv_npu_plan_free(&plan);
    fv_graph_end(&g);
    fv_npu_decoder_close(&d);
    free(x);
}

/* The emulator's node, and what the backend makes of a norm for the CPU's library, whose own node
 * adds epsilon behind the root. Larger rows say little of epsilon in f16. */
static void test_rms_norm_epsilon(void **state)
{
    double seen[11];
    (void)state;
    for (int htp = 0; htp < 2; htp++)
        for (double eps = 1e-6; eps < 2e-4; eps *= 100) {
            rms_norms(htp, eps, seen, FV_COUNT(seen));
            for (size_t i = 5; i < FV_COUNT(seen); i++)
                if (!(fabs(seen[i] / eps - 1) < 0.01))
                    fail_msg("%s: epsilon %g is %g for rows of 10^-%.1f",
                             htp ? "emulator" : "libQnnCpu", eps, seen[i], (double)i / 2);
        }
}

/* ---- embedding --------------------------------------------------------------------------- */

/* Each id's row, to a step of the table's type. */
static void assert_rows_near(fv_npu_precision precision, double most)
{
    fv_npu_embed e;
    fv_error err;
    fv_qnn_outcome made;
    float ids[FV_NPU_IDS];
    if (fv_npu_embed_open(&e, DEMO, precision, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    const fv_mat *table = &e.model.weights.decoder.embed;
    float *want = malloc(FV_NPU_IDS * table->k * sizeof *want);
    for (size_t i = 0; i < FV_NPU_IDS; i++) {
        ids[i] = (float)(i * 7919 % table->n);
        fv_graph_mat_rows(&e.model.kernels, table, i * 7919 % table->n, 1, want + i * table->k,
                          NULL);
    }
    const fv_npu_plan *plan = &e.plan;
    fv_qnn_job job = job_of(true, &plan, &e.model.kernels, ids);
    job.model.f16 = precision == FV_NPU_F16;
    if (fv_qnn_job_run(&made, &job, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(made.n_values, FV_NPU_IDS * table->k);
    double worst = worst_of(want, made.values, made.n_values);
    if (!(worst <= most))
        fail_msg("off by %g of the largest, at most %g", worst, most);
    fv_qnn_outcome_free(&made);
    free(want);
    fv_npu_embed_close(&e);
}

static void test_embedding(void **state)
{
    (void)state;
    assert_rows_near(FV_NPU_F16, 0x1p-11);
    assert_rows_near(FV_NPU_W8A16, 0x1p-15);
    assert_rows_near(FV_NPU_W8A8, 0x1p-7);
}

/* ---- decoder ----------------------------------------------------------------------------- */

/* A decoder's call: what graph_run takes and gives, and the same as the NPU takes it. */
typedef struct call {
    const fv_graph *g;
    fv_run_input in[MAX_VALUES];
    fv_run_output out[MAX_VALUES];
    float *npu; /* inputs of the NPU's graph, one after the other */
    size_t n_npu;
} call;

static void npu_add(call *c, const float *x, size_t n)
{
    c->npu = realloc(c->npu, (c->n_npu + n) * sizeof *x);
    memcpy(c->npu + c->n_npu, x, n * sizeof *x);
    c->n_npu += n;
}

/* fv_graph_observer.value: the order of what is given; RoPE's sin with its first half negative. */
static fv_status value_give(void *user, const fv_value *v, const float *x)
{
    call *c = user;
    size_t n = fv_value_elems(v), d = fv_value_cols(v), at = c->n_npu;
    fv_op op = v->from->op;
    if (op == FV_OP_INPUT || op == FV_OP_COS || op == FV_OP_SIN || op == FV_OP_MASK)
        npu_add(c, x, n);
    for (size_t i = 0; i < n; i++) {
        if (op == FV_OP_SIN && i % d < d / 2)
            c->npu[at + i] *= -1;
        if (op == FV_OP_MASK)
            c->npu[at + i] = fmaxf(c->npu[at + i], -20000);
    }
    return FV_OK;
}

/* Rows of the embedding behind a cache that is half full. */
static void call_make(call *c, const fv_npu_decoder *d, const fv_graph *g)
{
    size_t cache = (size_t)g->input[3]->dim[3].n, filled = cache / 2;
    *c = (call){ .g = g };
    for (size_t i = 0; i < g->n_inputs; i++) {
        const fv_value *v = g->input[i];
        size_t n = fv_value_elems(v);
        float *x = malloc(n * sizeof *x);
        int64_t *ids = malloc(n * sizeof *ids);
        bool is_mask = strstr(v->name, "mask") != NULL;
        for (size_t k = 0; k < n; k++) {
            x[k] = (float)((k * 2654435761u >> 8) % 2000) / 1000.0f - 1;
            ids[k] = is_mask ? k >= cache - filled : (int64_t)(filled + k);
        }
        for (size_t row = 0; !strcmp(v->name, "inputs_embeds") && row < fv_value_rows(v); row++)
            fv_graph_mat_rows(&d->model.kernels, &d->model.weights.decoder.embed,
                              (row * 37 + 5) % 400, 1, x + row * fv_value_cols(v), NULL);
        c->in[i] = (fv_run_input){ v->name, v->type == FV_TYPE_I64 ? (void *)ids : (void *)x };
        free(v->type == FV_TYPE_I64 ? (void *)x : (void *)ids);
    }
    for (size_t i = 0; i < g->n_outputs; i++)
        c->out[i] = (fv_run_output){ g->output[i]->output,
                                     malloc(fv_value_elems(g->output[i]) * sizeof(float)) };
}

static void call_free(call *c)
{
    for (size_t i = 0; i < c->g->n_inputs; i++)
        free((void *)(uintptr_t)c->in[i].data);
    for (size_t i = 0; i < c->g->n_outputs; i++)
        free(c->out[i].data);
    free(c->npu);
}

static void assert_decoder_near(const char *model, bool htp, size_t which, double most)
{
    fv_npu_decoder d;
    fv_ops ops;
    fv_error err;
    fv_qnn_outcome made;
    call c;
    if (fv_npu_decoder_open(&d, model, 64, NULL, &err) != FV_OK ||
        fv_npu_decoder_plan(&d, FV_NPU_F16, NULL, &err) != FV_OK ||
        fv_ops_init(&ops, &d.model.kernels, d.model.pool, &err) != FV_OK)
        fail_msg("%s", err.message);
    const fv_graph *g = &d.graph[which];
    const fv_npu_plan *plan = &d.plan[which];
    call_make(&c, &d, g);
    fv_graph_observer o = { .user = &c, .value = value_give };
    fv_graph_io io = { c.in, g->n_inputs, c.out, g->n_outputs };
    if (fv_graph_run(g, &ops, &io, &o, &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_qnn_job job = job_of(htp, &plan, &d.model.kernels, c.npu);
    if (fv_qnn_job_run(&made, &job, &err) != FV_OK)
        fail_msg("%s", err.message);
    const float *at = made.values;
    double largest = 0;
    for (size_t i = 0; i < g->n_outputs; i++) {
        size_t n = fv_value_elems(g->output[i]);
        double worst = worst_of(c.out[i].data, at, n);
        largest = fmax(largest, worst);
        if (!(worst <= most))
            fail_msg("%s: off by %g of the largest, at most %g", c.out[i].name, worst, most);
        at += n;
    }
    print_message("           %s of %s: off by %.2g of the largest value\n", g->name, model,
                  largest);
    fv_qnn_outcome_free(&made);
    call_free(&c);
    fv_ops_free(&ops);
    fv_npu_decoder_close(&d);
}

static void test_decoder_on_cpu(void **state)
{
    (void)state;
    for (size_t which = 0; which < 2; which++) {
        assert_decoder_near(TINY, false, which, 1e-5);
        assert_decoder_near(DEMO, false, which, 1e-5);
    }
}

static void test_decoder_in_f16(void **state)
{
    (void)state;
    assert_decoder_near(DEMO, true, 0, 0.02);
    assert_decoder_near(DEMO, true, 1, 0.02);
}

/* ---- the decoder in a session ------------------------------------------------------------ */

/* Kullback-Leibler divergence of the next token, nats. */
static double divergence(const float *want, const float *got, size_t n)
{
    double a = 0, b = 0, most = -INFINITY, kld = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fmax((double)want[i], (double)got[i]));
    for (size_t i = 0; i < n; i++) {
        a += exp((double)want[i] - most);
        b += exp((double)got[i] - most);
    }
    for (size_t i = 0; i < n; i++) {
        double p = exp((double)want[i] - most) / a;
        kld += p * ((double)want[i] - (double)got[i] - log(a) + log(b));
    }
    return kld;
}

static int32_t likeliest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

/* Along the answer that the engine gives in f32: every token's divergence. */
typedef struct divergences {
    double sum, most;
    size_t n, n_agree;
} divergences;

static void turn_write(fv_session *s, fv_features *image, const char *question)
{
    fv_error err;
    fv_session_reset(s);
    if (image)
        assert_int_equal(fv_session_add_features(s, image, &err), FV_OK);
    assert_int_equal(fv_session_add_text(s, question, strlen(question), &err), FV_OK);
}

static void answers_compare(divergences *d, fv_session *cpu, fv_session *npu, fv_features *image,
                            const char *question)
{
    enum { TOKENS = 12 };
    const fv_answer_options rules = { .size = sizeof rules, .ignore_end = true };
    fv_piece piece = { .size = sizeof piece };
    fv_error err;
    turn_write(cpu, image, question);
    turn_write(npu, image, question);
    assert_int_equal(fv_session_begin(cpu, &rules, &err), FV_OK);
    for (int t = 0; t < TOKENS; t++) {
        size_t n;
        if (fv_session_next(cpu, &piece, &err) != FV_OK ||
            fv_session_force(npu, piece.id, &err) != FV_OK)
            fail_msg("%s", err.message);
        const float *want = fv_session_logits(cpu, &n), *got = fv_session_logits(npu, &n);
        double kld = divergence(want, got, n);
        d->sum += kld;
        d->most = fmax(d->most, kld);
        d->n_agree += likeliest(want, n) == likeliest(got, n);
        d->n++;
    }
}

/* Compiled, loaded, attached: answers about held-out images, and a prompt of several chunks. */
static void assert_answers_near(fv_npu_precision precision, double most)
{
    static const char *const questions[] = { "What do you see?", "What colours are there?",
                                             "How many shapes are there?" };
    const char *calibration[] = { DEMO "/calibration" };
    char dir[] = "/tmp/fastvlm-npu-XXXXXX", path[256], words[2000] = "";
    fv_npu_compile_options co = { .size = sizeof co,
                                  .part = FV_NPU_DECODER,
                                  .precision = precision,
                                  .unshared = true,
                                  .qnn_dir = directory("FV_QNN_DIR"),
                                  .paths = calibration,
                                  .n_paths = 1,
                                  .force = true };
    fv_npu_library_options lo = { .size = sizeof lo, .qnn_dir = co.qnn_dir };
    fv_engine_options eo = {
        .size = sizeof eo, .vision = FV_PRECISION_F32, .decoder = FV_PRECISION_F32, .kv = FV_KV_F32
    };
    fv_npu_compile_report made = { .size = sizeof made };
    fv_engine *engine;
    fv_session *cpu, *npu;
    fv_npu_lm *lm;
    fv_error err;
    divergences d = { 0 }, longer = { 0 };
    assert_non_null(mkdtemp(dir));
    if (fv_npu_compile(DEMO, dir, &co, &made, &err) != FV_OK)
        fail_msg("%s", err.message);
    snprintf(path, sizeof path, "%s/%s", dir, made.file);
    if (fv_engine_open(&engine, DEMO, &eo, &err) != FV_OK ||
        fv_npu_lm_open(&lm, path, &lo, &err) != FV_OK ||
        fv_session_new(&cpu, engine, NULL, &err) != FV_OK ||
        fv_session_new(&npu, engine, NULL, &err) != FV_OK ||
        fv_npu_lm_attach(lm, npu, &err) != FV_OK)
        fail_msg("%s", err.message);
    for (int i = 0; i < 6; i++) {
        fv_image *image;
        fv_features *features;
        char file[256];
        snprintf(file, sizeof file, FV_SOURCE_DIR "/tests/data/demo/images/%05d.jpg", i);
        assert_int_equal(fv_image_open(&image, file, NULL, &err), FV_OK);
        assert_int_equal(fv_encode(engine, image, NULL, &features, &err), FV_OK);
        answers_compare(&d, cpu, npu, features, questions[i % 3]);
        fv_image_free(image);
        fv_features_free(features);
    }
    for (int i = 0; i < 60; i++)
        strcat(words, "a red star and a blue circle, ");
    answers_compare(&longer, cpu, npu, NULL, words);
    fv_stats stats = { .size = sizeof stats };
    fv_session_stats(npu, &stats);
    assert_true(stats.context_used > 2 * FV_NPU_CHUNK + 12);
    print_message(
        "           divergence of the next token: mean %.2g, most %.2g, %zu of %zu agree; "
        "%d rows: mean %.2g\n",
        d.sum / (double)d.n, d.most, d.n_agree, d.n, stats.context_used,
        longer.sum / (double)longer.n);
    assert_true(d.sum / (double)d.n <= most);
    assert_true(longer.sum / (double)longer.n <= 5 * most);
    fv_session_free(npu);
    fv_session_free(cpu);
    fv_npu_lm_close(lm);
    fv_engine_free(engine);
    snprintf(words, sizeof words, "rm -r %s", dir);
    assert_int_equal(system(words), 0);
}

static void test_answers_in_f16(void **state)
{
    (void)state;
    assert_answers_near(FV_NPU_F16, 1e-4);
}

static void test_answers_in_w8a16(void **state)
{
    (void)state;
    assert_answers_near(FV_NPU_W8A16, 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vision_on_cpu),    cmocka_unit_test(test_vision_in_f16),
        cmocka_unit_test(test_rms_norm_epsilon), cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_selfcheck),        cmocka_unit_test(test_decoder_on_cpu),
        cmocka_unit_test(test_decoder_in_f16),   cmocka_unit_test(test_answers_in_f16),
        cmocka_unit_test(test_answers_in_w8a16),
    };
    cmocka_set_test_filter(getenv("TEST_FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
