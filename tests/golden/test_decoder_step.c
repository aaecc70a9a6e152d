/* Prompts of, and a step over, several sequences: every sequence gets the logits, and leaves the
 * keys and values, that it gets alone, whatever the company, the type of the weights and of the
 * cache, and the number of threads. Also run under the thread sanitizer. */
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
static size_t prompt_rows(size_t i) { return i == 6 ? 1 : 1 + (i * 7 + 3) % 23; }
static int32_t token_of(size_t i, size_t step) { return (int32_t)((i * 31 + step * 17 + 5) % 200); }

typedef struct party {
    fv_ops ops;
    fv_decoder decoder;
    fv_sequence seq[MAX_SEQ];
    float *x[MAX_SEQ]; /* its prompt's rows */
    fv_decoder_prompt prompt[MAX_SEQ];
} party;

static const fv_watch nobody = { 0 };

/* Sequences without rows, and a decoder with room for n_rows. */
static void make_party(party *p, const fv_model *m, fv_type act, fv_type kv, size_t n_rows)
{
    const size_t d = (size_t)m->config.d_model;
    must(fv_ops_init(&p->ops, &m->kernels, m->pool, &err));
    must(fv_decoder_init(&p->decoder, &m->config, &m->weights.decoder, act, &err));
    must(fv_decoder_reserve(&p->decoder, &p->ops, n_rows, &err));
    for (size_t i = 0; i < MAX_SEQ; i++) {
        const size_t n = prompt_rows(i);
        must(fv_sequence_init(&p->seq[i], &m->config, kv, &err));
        must(fv_kv_reserve(&p->seq[i].kv, n + STEPS, &err));
        p->x[i] = fv_alloc(n * d, sizeof *p->x[i]);
        assert_non_null(p->x[i]);
        for (size_t j = 0; j < n * d; j++)
            p->x[i][j] = (float)((j * 2654435761u + i * 40503u) % 2001) / 1000 - 1;
        p->prompt[i] =
            (fv_decoder_prompt){ .s = &p->seq[i], .x = p->x[i], .n = n, .watch = &nobody };
    }
}

static void open_party(party *p, const fv_model *m, fv_type act, fv_type kv)
{
    make_party(p, m, act, kv, 32);
    for (size_t i = 0; i < MAX_SEQ; i++)
        must(fv_decoder_run(&p->decoder, &p->ops, &p->seq[i], p->x[i], p->prompt[i].n, &nobody,
                            &err));
}

/* All prompts as one list that begins with that of sequence `first`. */
static void run_prompts(party *p, size_t first)
{
    for (size_t i = 0; i < MAX_SEQ; i++)
        p->prompt[i].next = (i + 1) % MAX_SEQ == first ? NULL : &p->prompt[(i + 1) % MAX_SEQ];
    fv_decoder_run_prompts(&p->decoder, &p->ops, &p->prompt[first]);
}

static void close_party(party *p)
{
    for (size_t i = 0; i < MAX_SEQ; i++) {
        fv_sequence_free(&p->seq[i]);
        fv_free(p->x[i]);
    }
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

/* Prompts that go together, whatever the room: in 5 and 12 rows a cut would leave one over. */
static void check_prompts(const fv_model *m, fv_type act, fv_type kv, const char *what)
{
    static const size_t rooms[] = { 4, 7, 5, 12, 32, 512 };
    party alone = { 0 };
    open_party(&alone, m, act, kv);
    for (size_t r = 0; r < FV_COUNT(rooms); r++) {
        party company = { 0 };
        make_party(&company, m, act, kv, rooms[r]);
        run_prompts(&company, (3 * r + 5) % MAX_SEQ); /* a single row in between */
        for (size_t i = 0; i < MAX_SEQ; i++) {
            assert_int_equal(company.prompt[i].status, FV_OK);
            check_same_sequence(&alone.seq[i], &company.seq[i], (size_t)m->config.n_vocab, what, i,
                                MAX_SEQ);
        }
        close_party(&company);
    }
    close_party(&alone);
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
        check_prompts(&m, act, kv, what);
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
    check_packed(FV_PRECISION_W8A8, false, FV_TYPE_F16, "w8a8");
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

/* ---- prompts that are given up ---- */

typedef struct quitter {
    int asked, most;
} quitter;

static bool quit_later(void *user, const char *stage, double done)
{
    quitter *q = user;
    (void)stage;
    (void)done;
    return ++q->asked > q->most;
}

/* Some prompts are given up at layers and in stretches of their own: the others have the bits that
 * they have alone, and those that were given up hold what they held, and can run again. */
static void test_given_up(void **state)
{
    (void)state;
    enum { ROWS = 16 };
    static const int most[MAX_SEQ] = { 0, -1, 4, 3, -1, 2, -1, 5, 1 }; /* -1: no limit */
    fv_model m;
    const fv_model_options o = { .depth = FV_MODEL_RUN,
                                 .decoder = FV_PRECISION_BF16,
                                 .n_threads = 2 };
    must(fv_model_open(&m, TINY, &o, &err));
    for (size_t first = 0; first < MAX_SEQ; first++) {
        party alone = { 0 }, company = { 0 };
        quitter quitters[MAX_SEQ];
        fv_callbacks callbacks[MAX_SEQ];
        fv_watch watch[MAX_SEQ];
        open_party(&alone, &m, FV_TYPE_BF16, FV_TYPE_F16);
        make_party(&company, &m, FV_TYPE_BF16, FV_TYPE_F16, ROWS);
        for (size_t i = 0; i < MAX_SEQ; i++) {
            quitters[i] = (quitter){ .most = most[i] };
            callbacks[i] = (fv_callbacks){ .size = sizeof callbacks[i],
                                           .progress = quit_later,
                                           .user = &quitters[i] };
            watch[i] = (fv_watch){ .callbacks = most[i] < 0 ? NULL : &callbacks[i] };
            company.prompt[i].watch = &watch[i];
        }
        run_prompts(&company, first);
        for (size_t i = 0; i < MAX_SEQ; i++) {
            /* at least; a prompt that the end of a stretch cuts is asked again in the next */
            const int asks = m.config.n_layers * (prompt_rows(i) > ROWS ? 2 : 1);
            const bool given_up = company.prompt[i].status == FV_ERR_CANCELLED;
            assert_true(given_up ? most[i] >= 0 : most[i] < 0 || most[i] >= asks);
            if (given_up) {
                assert_int_equal(company.prompt[i].err.status, FV_ERR_CANCELLED);
                assert_int_equal(company.seq[i].kv.n, 0);
                assert_int_equal(quitters[i].asked, most[i] + 1);
                company.prompt[i].watch = &nobody;
                company.prompt[i].next = NULL;
                fv_decoder_run_prompts(&company.decoder, &company.ops, &company.prompt[i]);
            }
            assert_int_equal(company.prompt[i].status, FV_OK);
            check_same_sequence(&alone.seq[i], &company.seq[i], (size_t)m.config.n_vocab,
                                "given up", i, MAX_SEQ);
        }
        close_party(&alone);
        close_party(&company);
    }
    fv_model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_floats),
                                        cmocka_unit_test(test_blocks),
                                        cmocka_unit_test(test_little_room),
                                        cmocka_unit_test(test_given_up) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
