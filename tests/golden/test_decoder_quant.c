/* The tiny checkpoint with its decoder's matrices in blocks of 8 or 4 bits, made in memory: how far
 * the logits move, and that they are the same bits with any number of threads. Its down projections
 * (k 176, no multiple of 32) stay f32, so both kinds meet in a layer. */
#include "support/cm.h"
#include "fastvlm_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "quant/quantize.h"
#include "support/golden.h"

#define GOLDEN FV_SOURCE_DIR "/tests/data/tiny"

enum { MAX_BLOCKS = 64, STEPS = 6 };

static void *made[MAX_BLOCKS];
static size_t n_made;

static void to_blocks(const fv_kernels *k, fv_mat *m, fv_type type)
{
    if (m->k % FV_BLOCK || fv_type_is_block(m->type))
        return;
    const size_t row = fv_row_bytes(type, m->k);
    uint8_t *blocks = malloc(m->n * row);
    float *wide = malloc(m->k * sizeof *wide);
    assert_non_null(blocks);
    assert_non_null(wide);
    for (size_t j = 0; j < m->n; j++) {
        k->convert[FV_TYPE_F32][m->type](
            wide, (const uint8_t *)m->data + j * m->k * fv_type_size(m->type), m->k);
        fv_quantize_weights(type, blocks + j * row, wide, m->k);
    }
    free(wide);
    assert_true(n_made < MAX_BLOCKS);
    made[n_made++] = blocks;
    m->data = blocks;
    m->type = type;
}

typedef struct mix {
    fv_type layers, value, embed, head; /* F32: as stored */
    bool skip_first;                    /* the first layer stays as stored */
    fv_kv_type kv;
} mix;

static void quantize_decoder(fv_engine *e, const mix *x)
{
    fv_decoder_weights *w = &e->model.weights.decoder;
    for (int i = x->skip_first; i < e->model.config.n_layers; i++) {
        fv_decoder_layer *l = &w->layer[i];
        fv_mat *mats[] = { &l->q, &l->k, &l->o, &l->gate, &l->up, &l->down };
        for (size_t m = 0; m < FV_COUNT(mats) && fv_type_is_block(x->layers); m++)
            to_blocks(&e->model.kernels, mats[m], x->layers);
        if (fv_type_is_block(x->value))
            to_blocks(&e->model.kernels, &l->v, x->value);
    }
    if (fv_type_is_block(x->embed))
        to_blocks(&e->model.kernels, &w->embed, x->embed);
    if (fv_type_is_block(x->head))
        to_blocks(&e->model.kernels, &w->head, x->head);
}

/* Dumps prefill and STEPS tokens into dir. */
static void run_mix(const mix *x, fv_precision stored, int n_threads, const char *dir)
{
    fv_error err = { 0 };
    fv_engine *engine = NULL;
    fv_session *session = NULL;
    fv_image *image = NULL;
    fv_engine_options settings;
    fv_session_options options;
    fv_engine_options_default(&settings);
    settings.n_threads = n_threads;
    settings.vision = FV_PRECISION_F32;
    settings.decoder = stored;
    settings.kv = x->kv;
    fv_session_options_default(&options);
    fv_answer_options rules = { .size = sizeof rules, .max_new_tokens = STEPS, .ignore_end = true };
    fv_dump *dump = NULL;
    if (fv_dump_open(&dump, dir, &err) != FV_OK)
        fail_msg("%s", err.message);
    options.tap = fv_dump_tap;
    options.tap_user = dump;
    options.tap_prompt_logits = true;
    if (fv_engine_open(&engine, GOLDEN "/checkpoint", &settings, &err) != FV_OK)
        fail_msg("%s", err.message);
    quantize_decoder(engine, x);
    if (fv_session_new(&session, engine, &options, &err) != FV_OK ||
        fv_image_open(&image, GOLDEN "/image.png", NULL, &err) != FV_OK ||
        fv_session_add_image(session, image, NULL, &err) != FV_OK ||
        fv_session_begin(session, &rules, &err) != FV_OK ||
        fv_session_add_text(session, "Describe the picture.", strlen("Describe the picture."),
                            &err) != FV_OK)
        fail_msg("%s", err.message);
    for (fv_piece piece = { .size = sizeof piece }; !piece.done;)
        if (fv_session_next(session, &piece, &err) != FV_OK)
            fail_msg("%s", err.message);
    if (fv_dump_commit(dump, &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_dump_free(dump);
    fv_image_free(image);
    fv_session_free(session);
    fv_engine_free(engine);
    while (n_made)
        free(made[--n_made]);
}

static double distance(const mix *x, fv_precision stored)
{
    static const mix none = {
        FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, false, FV_KV_AUTO
    };
    char *plain = temp_dir(), *dir = temp_dir();
    run_mix(&none, FV_PRECISION_F32, 2, plain);
    run_mix(x, stored, 2, dir);
    npy want = npy_read(plain, "logits_prefill"), got = npy_read(dir, "logits_prefill");
    assert_int_equal(got.n, want.n);
    double rel = relative_l2(got.data, want.data, want.n);
    npy_free(&want);
    npy_free(&got);
    temp_remove(plain);
    temp_remove(dir);
    return rel;
}

static void check_distance(const char *name, const mix *x, fv_precision stored, double least,
                           double most)
{
    double rel = distance(x, stored);
    if (!(rel > least && rel < most))
        fail_msg("%s: relative L2 of the logits %.5f, expected %g to %g", name, rel, least, most);
}

static const mix z8 = { FV_TYPE_Q8_0, FV_TYPE_Q8_0, FV_TYPE_Q8_0, FV_TYPE_Q8_0, false, FV_KV_AUTO };
static const mix q4 = { FV_TYPE_Q4_0, FV_TYPE_Q4_0, FV_TYPE_Q8_0, FV_TYPE_Q8_0, false, FV_KV_AUTO };
static const mix pure4 = {
    FV_TYPE_Q4_0, FV_TYPE_Q4_0, FV_TYPE_Q4_0, FV_TYPE_Q4_0, false, FV_KV_AUTO
};
static const mix mixed = { FV_TYPE_Q4_0, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_Q8_0, true, FV_KV_AUTO };
static const mix only_head = { FV_TYPE_F32,  FV_TYPE_F32, FV_TYPE_Q4_0,
                               FV_TYPE_Q8_0, false,       FV_KV_AUTO };

static const mix kv_f32 = { FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, false, FV_KV_F32 };
static const mix kv_f16 = { FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, false, FV_KV_F16 };
static const mix kv_q8 = { FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, false, FV_KV_Q8 };

static void test_distances(void **state)
{
    (void)state;
    /* The random model multiplies errors: z8's weights alone, which are off by 0.4 %, move its
     * logits by 2 %. */
    check_distance("z8", &z8, FV_PRECISION_F32, 1e-3, 0.05);
    check_distance("q4", &q4, FV_PRECISION_F32, 0.05, 0.35);
    check_distance("q4 throughout", &pure4, FV_PRECISION_F32, 0.05, 0.4);
    check_distance("mixed", &mixed, FV_PRECISION_F32, 0.02, 0.17);
    check_distance("mixed with f16", &mixed, FV_PRECISION_F16, 0.02, 0.17);
    check_distance("mixed with bf16", &mixed, FV_PRECISION_BF16, 0.02, 0.17);
    check_distance("KV cache f32", &kv_f32, FV_PRECISION_F32, -1, 1e-9);
    check_distance("KV cache f16", &kv_f16, FV_PRECISION_F32, 1e-5, 2e-3);
    check_distance("KV cache q8", &kv_q8, FV_PRECISION_F32, 1e-3, 0.03);
    check_distance("head and embedding only", &only_head, FV_PRECISION_BF16, 0.02, 0.25);
}

static void test_threads(void **state)
{
    (void)state;
    static const int threads[] = { 1, 2, 3, 5 };
    static const char *const names[] = { "logits_prefill", "logits_steps" };
    static const mix *const mixes[] = { &z8, &pure4, &mixed, &kv_q8 };
    for (size_t x = 0; x < FV_COUNT(mixes); x++) {
        npy first[2] = { 0 };
        for (size_t t = 0; t < FV_COUNT(threads); t++) {
            char *dir = temp_dir();
            run_mix(mixes[x], FV_PRECISION_F32, threads[t], dir);
            for (size_t i = 0; i < 2; i++) {
                npy got = npy_read(dir, names[i]);
                if (t == 0) {
                    first[i] = got;
                    continue;
                }
                if (got.n != first[i].n ||
                    memcmp(got.data, first[i].data, got.n * sizeof *got.data))
                    fail_msg("mix %zu, %s: other bits with %d threads than with 1", x, names[i],
                             threads[t]);
                npy_free(&got);
            }
            temp_remove(dir);
        }
        npy_free(&first[0]);
        npy_free(&first[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_distances),
                                        cmocka_unit_test(test_threads) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
