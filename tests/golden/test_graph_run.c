/* The two descriptions of the model against each other: nn/ as it runs, and graph/ executed by
 * graph_run. Every stage that nn/ shows, of every golden checkpoint; the decoder with a cache, as
 * exported graphs keep it, against the decoder without. */
#include "support/cm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph_run.h"
#include "model/model.h"
#include "nn/decoder.h"
#include "nn/vision.h"
#include "support/golden.h"

#define DATA FV_SOURCE_DIR "/tests/data"

enum { MAX_STAGES = 128, PROMPT = 21 };

typedef struct kept {
    char name[64];
    float *x;
    size_t rows, cols;
    bool compared;
} kept;

typedef struct stages {
    kept stage[MAX_STAGES];
    size_t n;
    size_t n_values, n_inner;
    double worst;          /* relative L2 */
    bool same_bits, exact; /* exact: they have to be */
    double limit;
    char last_layer[64]; /* of a decoder: from there on a prompt's last row goes by itself in nn/ */
} stages;

/* A tap; what it is given as [channels, height, width] is kept as rows of channels. */
static bool stage_keep(void *user, const char *name, const float *x, const size_t *shape,
                       int n_dims)
{
    stages *s = user;
    bool map = n_dims == 3;
    size_t rows = map ? shape[1] * shape[2] : shape[0], cols = map ? shape[0] : shape[1];
    assert_true(s->n < MAX_STAGES);
    kept *k = &s->stage[s->n++];
    snprintf(k->name, sizeof k->name, "%s", name);
    k->x = malloc(rows * cols * sizeof *x);
    assert_non_null(k->x);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            k->x[r * cols + c] = map ? x[c * rows + r] : x[r * cols + c];
    k->rows = rows;
    k->cols = cols;
    return true;
}

static void stage_compare(stages *s, const char *name, const fv_value *v, const float *x)
{
    for (size_t i = 0; name && i < s->n; i++) {
        kept *k = &s->stage[i];
        if (strcmp(k->name, name))
            continue;
        assert_int_equal(k->rows, fv_value_rows(v));
        assert_int_equal(k->cols, fv_value_cols(v));
        double rel = relative_l2(x, k->x, k->rows * k->cols);
        if (!(rel < s->limit))
            fail_msg("%s: relative L2 %g, expected < %g", name, rel, s->limit);
        s->worst = fmax(s->worst, rel);
        const bool ends = !strcmp(name, s->last_layer) || !strcmp(name, "decoder.norm") ||
                          !strcmp(name, "logits_prefill");
        const size_t rows = k->rows - ends;
        s->same_bits = s->same_bits && !memcmp(x, k->x, rows * k->cols * sizeof *x);
        k->compared = true;
    }
}

static fv_status value_compare(void *user, const fv_value *v, const float *x)
{
    stages *s = user;
    s->n_values++;
    s->n_inner += strstr(v->name, ".scores") || strstr(v->name, ".weights");
    stage_compare(s, v->name, v, x);
    stage_compare(s, v->alias, v, x);
    return FV_OK;
}

static void stages_done(stages *s, const char *what)
{
    if (s->exact && !s->same_bits)
        fail_msg("%s: other bits than nn/, relative L2 up to %g", what, s->worst);
    for (size_t i = 0; i < s->n; i++) {
        if (!s->stage[i].compared)
            fail_msg("%s: the graph has no value %s", what, s->stage[i].name);
        free(s->stage[i].x);
    }
    if (getenv("VERBOSE"))
        printf("%s: %zu stages, %zu values, relative L2 up to %.1e, %s\n", what, s->n, s->n_values,
               s->worst, s->same_bits ? "the same bits" : "other bits");
}

/* ---- a model and what it is fed ---- */

typedef struct subject {
    fv_model m;
    fv_ops ops;
    fv_error err;
} subject;

static void subject_open(subject *t, const char *path)
{
    fv_model_options o = { .depth = FV_MODEL_RUN,
                           .vision = FV_PRECISION_F32,
                           .decoder = FV_PRECISION_F32,
                           .n_threads = 2 };
    if (!strstr(path, "checkpoint"))
        o.vision = o.decoder = FV_PRECISION_AUTO;
    if (fv_model_open(&t->m, path, &o, &t->err) != FV_OK ||
        fv_ops_init(&t->ops, &t->m.kernels, t->m.pool, &t->err) != FV_OK)
        fail_msg("%s", t->err.message);
}

static void subject_close(subject *t)
{
    fv_ops_free(&t->ops);
    fv_model_close(&t->m);
}

/* The golden image's pixels, again and again until the side is filled. */
static float *pixels_of(int size)
{
    npy u8 = npy_read(DATA "/tiny", "pixels_u8");
    size_t side = u8.shape[1], s = (size_t)size;
    float *x = malloc(s * s * 3 * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < s * s; i++)
        for (size_t c = 0; c < 3; c++)
            x[i * 3 + c] = u8.data[(i / s % side * side + i % s % side) * 3 + c] * (1 / 255.0f);
    npy_free(&u8);
    return x;
}

static void ran(subject *t, fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s", t->err.message);
}

/* ---- the encoder ---- */

static void check_vision(const char *what, subject *t, int size, double limit)
{
    /* one token alone goes through other kernels: its GELUs are fused in nn/ */
    stages s = { .same_bits = true, .exact = limit <= 1e-5 && size > 64, .limit = limit };
    fv_vision v;
    fv_graph g;
    const fv_config *c = &t->m.config;
    fv_watch watch = { .tap = stage_keep, .tap_user = &s };
    float *pixels = pixels_of(size);
    size_t n = (size_t)fv_config_image_tokens(size) * (size_t)c->d_model;
    float *tokens = malloc(n * sizeof *tokens), *got = malloc(n * sizeof *got);
    ran(t, fv_vision_init(&v, c, &t->m.weights.vision, size, FV_TYPE_F32, &t->ops, &t->err));
    ran(t, fv_vision_run(&v, &t->ops, pixels, &watch, &t->err));
    ran(t, fv_projector_run(&v, &t->ops, tokens, &watch, &t->err));

    fv_graph_begin(&g, "vision", &t->err);
    fv_graph_vision(&g, c, &t->m.weights.vision, &(fv_graph_spec){ .image_size = size });
    fv_graph_io io = { &(fv_run_input){ "pixel_values", pixels }, 1,
                       &(fv_run_output){ "image_features", got }, 1 };
    fv_graph_observer o = { .user = &s, .value = value_compare, .inner = size <= 256 };
    ran(t, fv_graph_run(&g, &t->ops, &io, &o, &t->err));
    assert_true(relative_l2(got, tokens, n) < limit);
    size_t n_attention = 0;
    for (size_t i = 0; i < g.n_nodes; i++)
        n_attention += g.node[i]->op == FV_OP_SELF_ATTENTION;
    assert_int_equal(s.n_values, g.n_values - (o.inner ? 0 : 2 * n_attention));
    assert_int_equal(s.n_inner, o.inner ? 2 * n_attention : 0);
    stages_done(&s, what);
    fv_graph_end(&g);
    fv_vision_free(&v);
    free(pixels);
    free(tokens);
    free(got);
}

/* ---- the decoder ---- */

typedef struct prompt {
    int64_t ids[PROMPT], positions[PROMPT];
    float *rows;   /* [PROMPT, d_model] */
    float *logits; /* [PROMPT, n_vocab] */
} prompt;

static void prompt_embed(prompt *p, subject *t)
{
    const fv_config *c = &t->m.config;
    fv_graph g;
    fv_graph_begin(&g, "embed", &t->err);
    fv_graph_embed(&g, c, &t->m.weights.decoder, &(fv_graph_spec){ .seq_len = PROMPT });
    for (int i = 0; i < PROMPT; i++) {
        p->ids[i] = (i * 7919 + 11) % c->n_vocab;
        p->positions[i] = i;
    }
    p->rows = malloc(PROMPT * (size_t)c->d_model * sizeof *p->rows);
    p->logits = malloc(PROMPT * (size_t)c->n_vocab * sizeof *p->logits);
    fv_graph_io io = { &(fv_run_input){ "input_ids", p->ids }, 1,
                       &(fv_run_output){ "inputs_embeds", p->rows }, 1 };
    ran(t, fv_graph_run(&g, &t->ops, &io, NULL, &t->err));
    p->ids[3] = c->n_vocab;
    assert_int_equal(fv_graph_run(&g, &t->ops, &io, NULL, &t->err), FV_ERR_ARGUMENT);
    fv_graph_end(&g);
}

static void prompt_free(prompt *p)
{
    free(p->rows);
    free(p->logits);
}

/* All rows at once: every layer against nn/decoder.c, the last row's logits too. */
static void check_prefill(const char *what, subject *t, prompt *p, double limit)
{
    stages s = { .same_bits = true, .limit = limit };
    snprintf(s.last_layer, sizeof s.last_layer, "decoder.layer.%d", t->m.config.n_layers - 1);
    /* the kernel multiplies scores with 1 / sqrt(d), the graph queries: alike if that is 2^-n */
    s.exact = limit <= 1e-5 && (t->m.config.d_head == 16 || t->m.config.d_head == 64);
    fv_decoder d;
    fv_sequence seq;
    fv_graph g;
    const fv_config *c = &t->m.config;
    size_t v = (size_t)c->n_vocab;
    fv_watch watch = { .tap = stage_keep, .tap_user = &s };
    ran(t, fv_decoder_init(&d, c, &t->m.weights.decoder, FV_TYPE_F32, &t->err));
    ran(t, fv_sequence_init(&seq, c, FV_TYPE_F32, &t->err));
    ran(t, fv_kv_reserve(&seq.kv, PROMPT, &t->err));
    ran(t, fv_decoder_reserve(&d, &t->ops, PROMPT, &t->err));
    ran(t, fv_decoder_run(&d, &t->ops, &seq, p->rows, PROMPT, &watch, &t->err));

    fv_graph_begin(&g, "decoder", &t->err);
    fv_graph_decoder(&g, c, &t->m.weights.decoder, &(fv_graph_spec){ .step_len = PROMPT });
    fv_run_input in[] = { { "inputs_embeds", p->rows }, { "position_ids", p->positions } };
    fv_graph_io io = { in, 2, &(fv_run_output){ "logits", p->logits }, 1 };
    fv_graph_observer o = { .user = &s, .value = value_compare, .inner = true };
    ran(t, fv_graph_run(&g, &t->ops, &io, &o, &t->err));
    double rel = relative_l2(p->logits + (PROMPT - 1) * v, seq.logits, v);
    if (!(rel < limit))
        fail_msg("%s: logits: relative L2 %g, expected < %g", what, rel, limit);
    assert_int_equal(s.n_inner, 2 * c->n_layers);
    stages_done(&s, what);
    fv_graph_end(&g);
    fv_sequence_free(&seq);
    fv_decoder_free(&d);
}

/* In steps of step_len rows with a cache of cache_len, the host writing it where `kind` has it do
 * so: the logits that all rows at once gave. */
static void check_steps(subject *t, const prompt *p, fv_cache_kind kind, int step_len,
                        int cache_len)
{
    enum { MAX = 3 + 2 * 8 };
    const fv_config *c = &t->m.config;
    size_t n_cache = 2 * (size_t)c->n_layers, kv = (size_t)c->n_kv_heads, d = (size_t)c->d_head;
    size_t past = (size_t)cache_len, n = (size_t)step_len, v = (size_t)c->n_vocab;
    size_t total = past + n;
    fv_graph g;
    fv_run_input in[MAX];
    fv_run_output out[MAX];
    int64_t *mask = calloc(total, sizeof *mask);
    float *cache[MAX], *fresh[MAX], *logits = malloc(n * v * sizeof *logits);
    assert_true(n_cache + 3 <= MAX);
    fv_graph_begin(&g, "decoder", &t->err);
    fv_graph_decoder(
        &g, c, &t->m.weights.decoder,
        &(fv_graph_spec){ .cache = kind, .step_len = step_len, .cache_len = cache_len });
    for (size_t i = 0; i < n_cache; i++) {
        cache[i] = calloc(kv * past * d, sizeof *cache[i]);
        fresh[i] = calloc(kv * FV_MAX(past, n) * d, sizeof *fresh[i]);
        in[3 + i] = (fv_run_input){ g.input[3 + i]->name, cache[i] };
        out[1 + i] = (fv_run_output){ g.output[1 + i]->output, fresh[i] };
    }
    out[0] = (fv_run_output){ "logits", logits };
    for (size_t at = 0; at + n <= PROMPT; at += n) {
        in[0] = (fv_run_input){ "inputs_embeds", p->rows + at * (size_t)c->d_model };
        in[1] = (fv_run_input){ "attention_mask", mask };
        in[2] = (fv_run_input){ "position_ids", p->positions + at };
        for (size_t i = 0; i < past; i++)
            mask[i] = kind == FV_CACHE_FIXED ? i + at >= past : i < at;
        for (size_t i = past; i < total; i++)
            mask[i] = 1;
        fv_graph_io io = { in, 3 + n_cache, out, 1 + n_cache };
        ran(t, fv_graph_run(&g, &t->ops, &io, NULL, &t->err));
        double rel = relative_l2(logits, p->logits + at * v, n * v);
        if (!(rel < 1e-5))
            fail_msg("steps of %d, cache of %d, row %zu: relative L2 %g, expected < 1e-5", step_len,
                     cache_len, at, rel);
        for (size_t i = 0; i < n_cache; i++) {
            if (kind == FV_CACHE_FIXED) {
                memcpy(cache[i], fresh[i], kv * past * d * sizeof *cache[i]);
                continue;
            }
            for (size_t h = 0; h < kv; h++)
                for (size_t r = 0; r < n; r++)
                    for (size_t e = 0; e < d; e++)
                        if (i % 2) /* values [kv, C, D]; keys [kv, D, C] */
                            cache[i][(h * past + at + r) * d + e] = fresh[i][(h * n + r) * d + e];
                        else
                            cache[i][(h * d + e) * past + at + r] = fresh[i][(h * d + e) * n + r];
        }
    }
    for (size_t i = 0; i < n_cache; i++) {
        free(cache[i]);
        free(fresh[i]);
    }
    free(mask);
    free(logits);
    fv_graph_end(&g);
}

/* Without what lies behind the last layer's keys and values, new rows of the cache are the same, to
 * the last bit, and the last layer's past is not asked for. */
static void check_cache_only(subject *t, const prompt *p)
{
    enum { MAX = 3 + 2 * 8, N = 7, C = 21 };
    const fv_config *c = &t->m.config;
    size_t n_cache = 2 * (size_t)c->n_layers, each = (size_t)(c->n_kv_heads * c->d_head);
    float *past = malloc(each * C * sizeof *past), *fresh[2][MAX];
    int64_t mask[C + N] = { 0 };
    assert_true(n_cache + 3 <= MAX);
    for (size_t i = 0; i < each * C; i++)
        past[i] = (float)((i * 2654435761u >> 8) % 2000) / 1000.0f - 1;
    for (size_t i = 0; i < C + N; i++)
        mask[i] = i < 9 || i >= C;
    for (int only = 0; only < 2; only++) {
        fv_graph g;
        fv_run_input in[MAX] = { { "inputs_embeds", p->rows },
                                 { "attention_mask", mask },
                                 { "position_ids", p->positions } };
        fv_run_output out[MAX];
        fv_graph_begin(&g, "decoder", &t->err);
        fv_graph_decoder(
            &g, c, &t->m.weights.decoder,
            &(fv_graph_spec){
                .cache = FV_CACHE_HOST, .step_len = N, .cache_len = C, .cache_only = only });
        assert_int_equal(g.n_inputs, 3 + n_cache - (only ? 2 : 0));
        assert_int_equal(g.n_outputs, n_cache + (only ? 0 : 1));
        for (size_t i = 3; i < g.n_inputs; i++)
            in[i] = (fv_run_input){ g.input[i]->name, past };
        for (size_t i = 0; i < n_cache; i++) {
            fresh[only][i] = malloc(each * N * sizeof(float));
            out[i] = (fv_run_output){ g.output[i + (only ? 0 : 1)]->output, fresh[only][i] };
        }
        fv_graph_io io = { in, g.n_inputs, out, n_cache };
        ran(t, fv_graph_run(&g, &t->ops, &io, NULL, &t->err));
        fv_graph_end(&g);
    }
    for (size_t i = 0; i < n_cache; i++) {
        assert_memory_equal(fresh[0][i], fresh[1][i], each * N * sizeof(float));
        free(fresh[0][i]);
        free(fresh[1][i]);
    }
    free(past);
}

/* ---- all checkpoints ---- */

static void check_checkpoint(const char *path)
{
    subject t;
    prompt p;
    subject_open(&t, path);
    check_vision(path, &t, t.m.config.image_size, 1e-5);
    prompt_embed(&p, &t);
    check_prefill(path, &t, &p, 1e-5);
    check_steps(&t, &p, FV_CACHE_FIXED, 1, 24);
    check_steps(&t, &p, FV_CACHE_HOST, 1, 23);
    prompt_free(&p);
    subject_close(&t);
}

static void test_variants(void **state)
{
    static const char *const names[] = { "base",        "fast_vlm", "sharded", "tokenizer_json",
                                         "stored_head", "f16",      "f32",     "unfused",
                                         "shape" };
    char path[1024];
    (void)state;
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        snprintf(path, sizeof path, DATA "/variants/%s/checkpoint", names[i]);
        check_checkpoint(path);
    }
}

static void test_tiny(void **state)
{
    subject t;
    prompt p;
    (void)state;
    check_checkpoint(DATA "/tiny/checkpoint");
    subject_open(&t, DATA "/tiny/checkpoint");
    check_vision("tiny at 64", &t, 64, 1e-5);
    check_vision("tiny at 448", &t, 448, 1e-5);
    prompt_embed(&p, &t);
    check_prefill("tiny", &t, &p, 1e-5);
    check_steps(&t, &p, FV_CACHE_FIXED, 7, 14);
    check_steps(&t, &p, FV_CACHE_HOST, 7, 21);
    check_cache_only(&t, &p);
    check_steps(&t, &p, FV_CACHE_HOST, PROMPT, PROMPT + 9);
    prompt_free(&p);
    subject_close(&t);
}

/* A packed model: int8 layers and blocks as the values they stand for, so only near to nn/, which
 * rounds activations, too. */
static void test_packed(void **state)
{
    subject t;
    prompt p;
    (void)state;
    subject_open(&t, FV_SOURCE_DIR "/models/demo/demo.gguf");
    check_vision("demo.gguf", &t, t.m.config.image_size, 0.1);
    prompt_embed(&p, &t);
    check_prefill("demo.gguf", &t, &p, 0.03);
    prompt_free(&p);
    subject_close(&t);
}

/* ---- what cannot be run ---- */

static fv_status value_stop(void *user, const fv_value *v, const float *x)
{
    (void)x;
    return !strcmp(v->name, user) ? FV_ERR_CANCELLED : FV_OK;
}

static void test_refusals(void **state)
{
    subject t;
    fv_graph g;
    char stop[] = "vision.network.0.0.convffn.fc1";
    (void)state;
    subject_open(&t, DATA "/tiny/checkpoint");
    const fv_weights *w = &t.m.weights;
    float *pixels = pixels_of(64);
    fv_graph_io io = { &(fv_run_input){ "pixel_values", pixels }, 1, NULL, 0 }, none = { 0 };
    fv_graph_begin(&g, "vision", &t.err);
    fv_graph_vision(&g, &t.m.config, &w->vision, &(fv_graph_spec){ .image_size = 64 });
    assert_int_equal(fv_graph_run(&g, &t.ops, &none, NULL, &t.err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(t.err.message, "input pixel_values is missing"));

    fv_graph_observer o = { .user = stop, .value = value_stop };
    int64_t live = fv_mem_live();
    assert_int_equal(fv_graph_run(&g, &t.ops, &io, &o, &t.err), FV_ERR_CANCELLED);
    assert_int_equal(fv_mem_live(), live);
    bool done = false;
    for (uint64_t i = 0; !done; i += 3) {
        assert_true(i < 1000);
        fv_mem_fail_after(i);
        fv_status status = fv_graph_run(&g, &t.ops, &io, NULL, &t.err);
        fv_mem_fail_after(UINT64_MAX);
        done = status == FV_OK;
        if (!done)
            assert_int_equal(status, FV_ERR_MEMORY);
        assert_int_equal(fv_mem_live(), live);
    }
    fv_graph_end(&g);

    fv_graph_begin(&g, "vision", &t.err);
    fv_graph_vision(&g, &t.m.config, &w->vision,
                    &(fv_graph_spec){ .image_size = 64, .free_batch = true });
    assert_int_equal(fv_graph_run(&g, &t.ops, &io, NULL, &t.err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(t.err.message, "pixel_values has a free dimension"));
    fv_graph_end(&g);
    free(pixels);
    subject_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
