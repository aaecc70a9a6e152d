/* A step over several sequences: every sequence gets the logits, and leaves the keys and values,
 * that it gets alone, whatever the company, the type of the weights and of the cache, and the
 * number of threads. Also run under the thread sanitizer. */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "fastvlm_tools.h"
#include "model/model.h"
#include "nn/decoder.h"
#include "support/golden.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny/checkpoint"

enum { MAX_SEQ = 9, STEPS = 4 };

static fv_error err;

static void must(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s", err.message);
}

/* Sequence i has a prompt of its own length and content, and then says tokens of its own. */
static size_t prompt_rows(size_t i) { return 1 + (i * 7 + 3) % 23; }
static int32_t token_of(size_t i, size_t step) { return (int32_t)((i * 31 + step * 17 + 5) % 200); }

typedef struct party {
    fv_ops ops;
    fv_decoder decoder;
    fv_sequence seq[MAX_SEQ];
} party;

static void open_party(party *p, const fv_model *m, fv_type act, fv_type kv)
{
    const fv_watch nobody = { 0 };
    const size_t d = (size_t)m->config.d_model;
    must(fv_ops_init(&p->ops, &m->kernels, m->pool, &err));
    must(fv_decoder_init(&p->decoder, &m->config, &m->weights.decoder, act, &err));
    must(fv_decoder_reserve(&p->decoder, &p->ops, 32, &err));
    for (size_t i = 0; i < MAX_SEQ; i++) {
        const size_t n = prompt_rows(i);
        must(fv_sequence_init(&p->seq[i], &m->config, kv, &err));
        must(fv_kv_reserve(&p->seq[i].kv, n + STEPS, &err));
        float *x = fv_alloc(n * d, sizeof *x);
        assert_non_null(x);
        for (size_t j = 0; j < n * d; j++)
            x[j] = (float)((j * 2654435761u + i * 40503u) % 2001) / 1000 - 1;
        must(fv_decoder_run(&p->decoder, &p->ops, &p->seq[i], x, n, &nobody, &err));
        fv_free(x);
    }
}

static void close_party(party *p)
{
    for (size_t i = 0; i < MAX_SEQ; i++)
        fv_sequence_free(&p->seq[i]);
    fv_decoder_free(&p->decoder);
    fv_ops_free(&p->ops);
}

/* All steps of sequences [first, first + n), together at steps that `together` has a bit for. */
static void run_steps(party *p, size_t first, size_t n, unsigned together)
{
    fv_sequence *s[MAX_SEQ];
    int32_t ids[MAX_SEQ];
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < n; i++) {
            /* the order of the company is another one at every step */
            const size_t who = first + (i + step) % n;
            s[i] = &p->seq[who];
            ids[i] = token_of(who, step);
        }
        if (together >> step & 1)
            fv_decoder_step(&p->decoder, &p->ops, s, ids, n);
        else
            for (size_t i = 0; i < n; i++)
                fv_decoder_step(&p->decoder, &p->ops, &s[i], &ids[i], 1);
    }
}

static void check_same_sequence(const fv_sequence *a, const fv_sequence *b, size_t n_vocab,
                                const char *what, size_t i, size_t n)
{
    assert_int_equal(a->kv.n, b->kv.n);
    if (memcmp(a->logits, b->logits, n_vocab * sizeof *a->logits))
        fail_msg("%s: sequence %zu of %zu has other logits than alone", what, i, n);
    for (size_t layer = 0; layer < a->kv.n_layers; layer++)
        for (size_t head = 0; head < a->kv.n_heads; head++)
            for (int part = 0; part < 2; part++)
                if (memcmp(fv_kv_rows(&a->kv, layer, (fv_kv_part)part, head),
                           fv_kv_rows(&b->kv, layer, (fv_kv_part)part, head),
                           a->kv.n * a->kv.row_bytes))
                    fail_msg("%s: sequence %zu of %zu has other rows in its cache", what, i, n);
}

static void check_model(const char *path, fv_precision decoder, fv_type act, fv_type kv,
                        const char *what)
{
    static const int threads[] = { 1, 2, 3, 5 };
    for (size_t t = 0; t < FV_COUNT(threads); t++) {
        fv_model m;
        const fv_model_options o = { .depth = FV_MODEL_RUN,
                                     .vision = FV_PRECISION_AUTO,
                                     .decoder = decoder,
                                     .n_threads = threads[t] };
        must(fv_model_open(&m, path, &o, &err));
        for (size_t n = 1; n <= MAX_SEQ; n++) {
            party alone = { 0 }, company = { 0 };
            open_party(&alone, &m, act, kv);
            open_party(&company, &m, act, kv);
            run_steps(&alone, 0, MAX_SEQ, 0);
            run_steps(&company, MAX_SEQ - n, n, n % 2 ? ~0u : 0xau);
            for (size_t i = MAX_SEQ - n; i < MAX_SEQ; i++)
                check_same_sequence(&alone.seq[i], &company.seq[i], (size_t)m.config.n_vocab, what,
                                    i, n);
            close_party(&alone);
            close_party(&company);
        }
        fv_model_close(&m);
    }
}

static void test_floats(void **state)
{
    (void)state;
    check_model(TINY, FV_PRECISION_F32, FV_TYPE_F32, FV_TYPE_F32, "f32");
    check_model(TINY, FV_PRECISION_BF16, FV_TYPE_BF16, FV_TYPE_F16, "bf16");
    check_model(TINY, FV_PRECISION_F16, FV_TYPE_F32, FV_TYPE_I8, "f16, cache in 8 bits");
}

static void check_packed(fv_precision decoder, bool pure, fv_type kv, const char *what)
{
    fv_pack_options o;
    char *dir = temp_dir(), path[1200];
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    fv_pack_options_default(&o);
    o.decoder = decoder;
    o.rounding = FV_ROUNDING_SEARCH;
    o.pure = pure;
    must(fv_pack(TINY, path, &o, NULL, &err));
    check_model(path, FV_PRECISION_AUTO, FV_TYPE_F32, kv, what);
    temp_remove(dir);
}

static void test_blocks(void **state)
{
    (void)state;
    check_packed(FV_PRECISION_Z8, false, FV_TYPE_F16, "z8");
    check_packed(FV_PRECISION_Q4, false, FV_TYPE_F16, "q4");
    check_packed(FV_PRECISION_Q4, true, FV_TYPE_I8, "q4 throughout, cache in 8 bits");
}

/* A decoder with room for fewer rows than there are sequences takes them in stretches. */
static void test_little_room(void **state)
{
    (void)state;
    fv_model m;
    party wide = { 0 }, narrow = { 0 };
    const fv_model_options o = { .depth = FV_MODEL_RUN,
                                 .decoder = FV_PRECISION_F32,
                                 .n_threads = 2 };
    must(fv_model_open(&m, TINY, &o, &err));
    open_party(&wide, &m, FV_TYPE_F32, FV_TYPE_F16);
    open_party(&narrow, &m, FV_TYPE_F32, FV_TYPE_F16);
    fv_decoder_free(&narrow.decoder);
    must(fv_decoder_init(&narrow.decoder, &m.config, &m.weights.decoder, FV_TYPE_F32, &err));
    must(fv_decoder_reserve(&narrow.decoder, &narrow.ops, 2, &err));
    run_steps(&wide, 0, MAX_SEQ, ~0u);
    run_steps(&narrow, 0, MAX_SEQ, ~0u);
    for (size_t i = 0; i < MAX_SEQ; i++)
        check_same_sequence(&wide.seq[i], &narrow.seq[i], (size_t)m.config.n_vocab, "two rows", i,
                            MAX_SEQ);
    close_party(&wide);
    close_party(&narrow);
    fv_model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_floats),
                                        cmocka_unit_test(test_blocks),
                                        cmocka_unit_test(test_little_room) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
