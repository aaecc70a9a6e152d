/* The tiny model's decoder with matrices in blocks of 8 or 4 bits: how far the logits move, and
 * that they are the same bits with any number of threads. Its down projections (k 176, not a
 * multiple of 32) stay in floats, so both kinds meet in a layer. The decoder runs alone, over a
 * copy of the model's weight tables, on the rows of the golden prompt. */
#include "support/cm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "nn/decoder.h"
#include "quant/quantize.h"
#include "support/golden.h"

#define GOLDEN FV_SOURCE_DIR "/tests/data/tiny"

enum { MAX_BLOCKS = 64, MAX_LAYERS = 8, STEPS = 6 };

typedef struct mix {
    fv_type layers, value, embed, head; /* F32: as stored */
    bool skip_first;                    /* the first layer stays as stored */
    fv_type kv;
} mix;

/* A decoder whose matrices are its own where the mix has them in blocks, else the model's. */
typedef struct mixed_decoder {
    fv_decoder_weights w;
    fv_decoder_layer layer[MAX_LAYERS];
    void *made[MAX_BLOCKS];
    size_t n_made;
} mixed_decoder;

static void to_blocks(mixed_decoder *d, const fv_kernels *k, fv_mat *m, fv_type type)
{
    if (!fv_type_is_block(type) || m->k % FV_BLOCK || fv_type_is_block(m->type))
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
    assert_true(d->n_made < MAX_BLOCKS);
    d->made[d->n_made++] = blocks;
    m->data = blocks;
    m->type = type;
}

static void mix_decoder(mixed_decoder *d, const fv_model *m, const mix *x)
{
    const int n = m->config.n_layers;
    assert_true(n <= MAX_LAYERS);
    *d = (mixed_decoder){ .w = m->weights.decoder };
    memcpy(d->layer, m->weights.decoder.layer, (size_t)n * sizeof *d->layer);
    d->w.layer = d->layer;
    for (int i = x->skip_first; i < n; i++) {
        fv_decoder_layer *l = &d->layer[i];
        fv_mat *mats[] = { &l->q, &l->k, &l->o, &l->gate, &l->up, &l->down };
        for (size_t j = 0; j < FV_COUNT(mats); j++)
            to_blocks(d, &m->kernels, mats[j], x->layers);
        to_blocks(d, &m->kernels, &l->v, x->value);
    }
    to_blocks(d, &m->kernels, &d->w.embed, x->embed);
    to_blocks(d, &m->kernels, &d->w.head, x->head);
}

/* Logits [1 + STEPS, n_vocab]: behind the golden prompt, then behind each of a few tokens, the same
 * for every mix. stored: what the model's own matrices are read as. */
static float *run_mix(const mix *x, fv_precision stored, int n_threads, size_t *n)
{
    static const int32_t tokens[STEPS] = { 5, 300, 17, 42, 5, 99 };
    fv_model m;
    fv_model_options options = {
        .depth = FV_MODEL_RUN, .vision = FV_PRECISION_F32, .decoder = stored, .n_threads = n_threads
    };
    fv_error err = { 0 };
    mixed_decoder mixed;
    fv_decoder d;
    fv_ops ops;
    fv_sequence s, *sequence = &s;
    const fv_watch watch = { 0 };
    npy rows = npy_read(GOLDEN, "inputs_embeds"); /* [n_rows, d_model] */
    const size_t n_rows = rows.shape[0];
    if (fv_model_open(&m, GOLDEN "/checkpoint", &options, &err) != FV_OK)
        fail_msg("%s", err.message);
    const size_t n_vocab = (size_t)m.config.n_vocab;
    for (size_t i = 0; i < STEPS; i++)
        assert_true(tokens[i] < m.config.n_vocab);
    float *logits = malloc((1 + STEPS) * n_vocab * sizeof *logits);
    assert_non_null(logits);
    mix_decoder(&mixed, &m, x);
    assert_int_equal(fv_ops_init(&ops, &m.kernels, m.pool, &err), FV_OK);
    assert_int_equal(fv_decoder_init(&d, &m.config, &mixed.w, m.decoder, &err), FV_OK);
    assert_int_equal(fv_sequence_init(&s, &m.config, x->kv, &err), FV_OK);
    assert_int_equal(fv_kv_reserve(&s.kv, n_rows + STEPS, &err), FV_OK);
    assert_int_equal(fv_decoder_reserve(&d, &ops, n_rows, &err), FV_OK);
    assert_int_equal(fv_decoder_run(&d, &ops, &s, rows.data, n_rows, &watch, &err), FV_OK);
    memcpy(logits, s.logits, n_vocab * sizeof *logits);
    for (size_t i = 0; i < STEPS; i++) {
        fv_decoder_step(&d, &ops, &sequence, &tokens[i], 1);
        memcpy(logits + (1 + i) * n_vocab, s.logits, n_vocab * sizeof *logits);
    }
    fv_sequence_free(&s);
    fv_decoder_free(&d);
    fv_ops_free(&ops);
    fv_model_close(&m);
    npy_free(&rows);
    while (mixed.n_made)
        free(mixed.made[--mixed.n_made]);
    *n = (1 + STEPS) * n_vocab;
    return logits;
}

static const mix plain = { FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, false, FV_TYPE_F32 };
static const mix z8 = {
    FV_TYPE_Q8_0, FV_TYPE_Q8_0, FV_TYPE_Q8_0, FV_TYPE_Q8_0, false, FV_TYPE_F32
};
static const mix q4 = {
    FV_TYPE_Q4_0, FV_TYPE_Q4_0, FV_TYPE_Q8_0, FV_TYPE_Q8_0, false, FV_TYPE_F32
};
static const mix pure4 = { FV_TYPE_Q4_0, FV_TYPE_Q4_0, FV_TYPE_Q4_0,
                           FV_TYPE_Q4_0, false,        FV_TYPE_F32 };
static const mix mixed = {
    FV_TYPE_Q4_0, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_Q8_0, true, FV_TYPE_F32
};
static const mix only_head = { FV_TYPE_F32,  FV_TYPE_F32, FV_TYPE_Q4_0,
                               FV_TYPE_Q8_0, false,       FV_TYPE_F32 };
static const mix kv_f16 = {
    FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, false, FV_TYPE_F16
};
static const mix kv_q8 = { FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, FV_TYPE_F32, false, FV_TYPE_I8 };

/* expected: as measured. Levels from ref to amx are within 1 % of it: products of blocks are
 * exact. */
static void check_distance(const char *name, const mix *x, fv_precision stored, double expected)
{
    size_t n, m;
    float *want = run_mix(&plain, FV_PRECISION_F32, 2, &n), *got = run_mix(x, stored, 2, &m);
    assert_int_equal(n, m);
    double rel = relative_l2(got, want, n);
    free(want);
    free(got);
    if (!(rel >= 0.9 * expected && rel <= 1.1 * expected))
        fail_msg("%s: relative L2 of the logits %.5f, expected %.5f within a tenth", name, rel,
                 expected);
}

/* The random model multiplies errors: z8's weights alone, which are off by 0.4 %, move its logits
 * by 2 %. */
static void test_distances(void **state)
{
    (void)state;
    check_distance("z8", &z8, FV_PRECISION_F32, 0.03253);
    check_distance("q4", &q4, FV_PRECISION_F32, 0.34223);
    check_distance("q4 throughout", &pure4, FV_PRECISION_F32, 0.35204);
    check_distance("mixed", &mixed, FV_PRECISION_F32, 0.09203);
    check_distance("mixed with f16", &mixed, FV_PRECISION_F16, 0.09203);
    check_distance("mixed with bf16", &mixed, FV_PRECISION_BF16, 0.09203);
    check_distance("KV cache f16", &kv_f16, FV_PRECISION_F32, 0.00061);
    check_distance("KV cache q8", &kv_q8, FV_PRECISION_F32, 0.01185);
    check_distance("head and embedding only", &only_head, FV_PRECISION_F32, 0.07676);
}

static void test_threads(void **state)
{
    static const mix *const mixes[] = { &plain, &z8, &pure4, &mixed, &kv_q8 };
    (void)state;
    for (size_t x = 0; x < FV_COUNT(mixes); x++) {
        size_t n, m;
        float *first = run_mix(mixes[x], FV_PRECISION_F32, 1, &n);
        static const int threads[] = { 2, 3, 5 };
        for (size_t t = 0; t < FV_COUNT(threads); t++) {
            float *other = run_mix(mixes[x], FV_PRECISION_F32, threads[t], &m);
            if (n != m || memcmp(first, other, n * sizeof *first))
                fail_msg("mix %zu: other bits with %d threads than with 1", x, threads[t]);
            free(other);
        }
        free(first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_distances),
                                        cmocka_unit_test(test_threads) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
