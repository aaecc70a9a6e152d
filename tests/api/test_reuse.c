/* What a conversation shares with the one before is not computed again: how many rows a prompt
 * runs, and that the bits are those of a fresh run, for every type of decoder. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastvlm_tools.h"
#include "support/golden.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define DEMO  FV_SOURCE_DIR "/models/demo/demo.gguf"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

enum { N_NEW = 6, ROOM = 1 << 18 };

static fv_error err;
static char *work;

static void ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

typedef struct model {
    fv_engine *engine;
    fv_features *features;
} model;

static model open_model(const char *path, fv_precision decoder, fv_kv_type kv)
{
    model m = { NULL, NULL };
    fv_image *image;
    fv_engine_options o = { .size = sizeof o, .decoder = decoder, .kv = kv, .n_threads = 2 };
    ok(fv_engine_open(&m.engine, path, &o, &err));
    ok(fv_image_open(&image, IMAGE, NULL, &err));
    ok(fv_encode(m.engine, image, NULL, &m.features, &err));
    fv_image_free(image);
    return m;
}

static void close_model(model *m)
{
    fv_features_free(m->features);
    fv_engine_free(m->engine);
}

static fv_session *start(const model *m, bool exact)
{
    fv_session *s;
    fv_session_options o = { .size = sizeof o, .exact_reuse = exact };
    ok(fv_session_new(&s, m->engine, &o, &err));
    return s;
}

static void say(fv_session *s, const char *text)
{
    ok(fv_session_add_text(s, text, strlen(text), &err));
}

typedef struct heard {
    int32_t ids[N_NEW];
    size_t n;
    char text[512];
    size_t n_text;
    float *first; /* logits behind the prompt */
    size_t n_logits;
    int rows, reused; /* of the prompt */
} heard;

/* The whole answer, its end token ignored. */
static heard listen(fv_session *s)
{
    heard h = { 0 };
    fv_piece p = { .size = sizeof p };
    fv_stats stats = { .size = sizeof stats };
    fv_answer_options o = { .size = sizeof o, .max_new_tokens = N_NEW, .ignore_end = true };
    ok(fv_session_begin(s, &o, &err));
    while (!p.done) {
        ok(fv_session_next(s, &p, &err));
        if (!h.first) {
            const float *logits = fv_session_logits(s, &h.n_logits);
            h.first = malloc(h.n_logits * sizeof *logits);
            assert_non_null(h.first);
            memcpy(h.first, logits, h.n_logits * sizeof *logits);
        }
        if (p.id >= 0)
            h.ids[h.n++] = p.id;
        memcpy(h.text + h.n_text, p.text, p.n_bytes);
        h.n_text += p.n_bytes;
    }
    fv_session_stats(s, &stats);
    h.rows = stats.prompt_tokens - stats.reused_tokens;
    h.reused = stats.reused_tokens;
    return h;
}

static void same(const heard *a, const heard *b, const char *what)
{
    if (a->n != b->n || memcmp(a->ids, b->ids, a->n * sizeof *a->ids))
        fail_msg("%s: other tokens", what);
    if (memcmp(a->first, b->first, a->n_logits * sizeof *a->first))
        fail_msg("%s: other bits", what);
}

static void forget(heard *h) { free(h->first); }

/* The first turn and its answer as a client has them, then a second question. */
static void tell(fv_session *s, const model *m, const heard *said, const char *question)
{
    fv_session_reset(s);
    ok(fv_session_add_features(s, m->features, &err));
    say(s, "What do you see?");
    ok(fv_session_add_answer(s, said->text, said->n_text, &err));
    say(s, question);
}

static void check_second_turn(const model *m, bool exact, const char *name)
{
    char what[128];
    fv_session *s = start(m, exact), *fresh = start(m, exact);
    ok(fv_session_add_features(s, m->features, &err));
    say(s, "What do you see?");
    heard first = listen(s);
    assert_int_equal(first.reused, 0);

    tell(fresh, m, &first, "And what else?");
    heard want = listen(fresh);
    assert_int_equal(want.reused, 0);
    tell(s, m, &first, "And what else?");
    heard got = listen(s);
    snprintf(what, sizeof what, "%s, exact %d", name, exact);
    /* the prompt of the first turn is there, and without `exact` its answer; of a text that does
     * not become the very tokens that were chosen, only its beginning */
    assert_true(got.reused >= first.rows - 1);
    assert_int_equal(got.rows + got.reused, want.rows);
    if (exact)
        same(&want, &got, what);

    /* the same question again: nearly nothing is left to do */
    tell(s, m, &first, "And what else?");
    heard again = listen(s);
    assert_true(again.rows <= 2);
    if (exact) {
        same(&want, &again, what);
        /* another question about the same image */
        fv_session_reset(fresh);
        fv_session_reset(s);
        fv_session *new_one = start(m, true), *sessions[] = { s, new_one };
        heard h[2];
        for (int i = 0; i < 2; i++) {
            ok(fv_session_add_features(sessions[i], m->features, &err));
            say(sessions[i], "Where is it, please?");
            h[i] = listen(sessions[i]);
        }
        assert_true(h[0].reused > h[0].rows && h[1].reused == 0);
        same(&h[1], &h[0], "another question");
        forget(&h[0]);
        forget(&h[1]);
        fv_session_free(new_one);
    }
    forget(&first);
    forget(&want);
    forget(&got);
    forget(&again);
    fv_session_free(s);
    fv_session_free(fresh);
}

static char *packed(const char *name, fv_precision decoder)
{
    static char path[600];
    fv_pack_options o = { .size = sizeof o, .decoder = decoder, .rounding = FV_ROUNDING_AUTO };
    if (decoder == FV_PRECISION_Q4)
        o.rounding = FV_ROUNDING_SEARCH;
    snprintf(path, sizeof path, "%s/%s", work, name);
    ok(fv_pack(TINY, path, &o, NULL, &err));
    return path;
}

static void check_model(const char *path, fv_precision decoder, fv_kv_type kv, const char *name)
{
    model m = open_model(path, decoder, kv);
    check_second_turn(&m, true, name);
    check_second_turn(&m, false, name);
    close_model(&m);
}

static void test_types(void **state)
{
    (void)state;
    check_model(TINY, FV_PRECISION_F32, FV_KV_F32, "f32");
    check_model(TINY, FV_PRECISION_F32, FV_KV_Q8, "f32, kv q8");
    check_model(TINY, FV_PRECISION_BF16, FV_KV_F16, "bf16");
    check_model(packed("z8.gguf", FV_PRECISION_Z8), FV_PRECISION_AUTO, FV_KV_AUTO, "z8");
    check_model(packed("q4.gguf", FV_PRECISION_Q4), FV_PRECISION_AUTO, FV_KV_AUTO, "q4");
    check_model(packed("w8a8.gguf", FV_PRECISION_W8A8), FV_PRECISION_AUTO, FV_KV_AUTO, "w8a8");
    check_model(DEMO, FV_PRECISION_AUTO, FV_KV_AUTO, "demo");
}

/* Whole conversation, tokens as they were chosen: the second turn costs its own rows only. */
static void test_cost(void **state)
{
    (void)state;
    model m = open_model(DEMO, FV_PRECISION_AUTO, FV_KV_AUTO);
    fv_session *s = start(&m, false), *kept = start(&m, false);
    fv_features *copy;
    size_t n_rows, d;
    ok(fv_session_add_features(kept, m.features, &err));
    say(kept, "What do you see?");
    heard one = listen(kept);
    say(kept, "And what else?");
    heard two = listen(kept); /* the conversation that went on */

    ok(fv_session_add_features(s, m.features, &err));
    say(s, "What do you see?");
    heard first = listen(s);
    same(&one, &first, "first turn");
    fv_session_reset(s);
    /* equal bytes are the same image */
    const float *rows = fv_features_rows(m.features, &n_rows, &d);
    ok(fv_features_new(m.engine, rows, n_rows, d, &copy, &err));
    ok(fv_session_add_features(s, copy, &err));
    fv_features_free(copy);
    say(s, "What do you see?");
    ok(fv_session_add_answer(s, first.text, first.n_text, &err));
    say(s, "And what else?");
    heard got = listen(s);
    /* the last token of the answer had not gone through the decoder */
    assert_int_equal(got.rows, two.rows);
    same(&two, &got, "second turn");
    assert_true(got.reused > (int)n_rows);

    /* another image: nothing behind it is shared */
    float *other = malloc(n_rows * d * sizeof *other);
    assert_non_null(other);
    memcpy(other, rows, n_rows * d * sizeof *other);
    other[n_rows * d - 1] += 1;
    ok(fv_features_new(m.engine, other, n_rows, d, &copy, &err));
    free(other);
    fv_session_reset(s);
    ok(fv_session_add_features(s, copy, &err));
    fv_features_free(copy);
    say(s, "What do you see?");
    heard changed = listen(s);
    assert_true(changed.reused > 0 && changed.reused < 40);
    forget(&one);
    forget(&two);
    forget(&first);
    forget(&got);
    forget(&changed);
    fv_session_free(s);
    fv_session_free(kept);
    close_model(&m);
}

/* A prompt's rows have the same bits however it is cut into stretches, also when one row is left
 * over, which exact reuse rests on. */
static void test_stretches(void **state)
{
    (void)state;
    model m = open_model(DEMO, FV_PRECISION_AUTO, FV_KV_AUTO);
    char *text = malloc(ROOM);
    assert_non_null(text);
    size_t n = 0;
    fv_stats stats = { .size = sizeof stats };
    int wanted = 513;
    /* one word more until the prompt has 513 rows */
    for (int rows = 0; rows < wanted;) {
        fv_session *s = start(&m, true);
        n += (size_t)snprintf(text + n, ROOM - n, " red");
        if (n < 1600) {
            fv_session_free(s);
            continue;
        }
        ok(fv_session_add_text(s, text, n, &err));
        heard h = listen(s);
        fv_session_stats(s, &stats);
        rows = stats.prompt_tokens;
        forget(&h);
        fv_session_free(s);
    }
    assert_int_equal(stats.prompt_tokens, wanted);
    for (size_t cut = 4; cut < n; cut += n / 7) {
        fv_session *s = start(&m, true), *fresh = start(&m, true);
        ok(fv_session_add_text(s, text, cut / 4 * 4, &err));
        heard before = listen(s);
        fv_session_reset(s);
        ok(fv_session_add_text(s, text, n, &err));
        heard got = listen(s);
        ok(fv_session_add_text(fresh, text, n, &err));
        heard want = listen(fresh);
        assert_true(got.reused > 0 && want.reused == 0);
        same(&want, &got, "stretches");
        forget(&before);
        forget(&got);
        forget(&want);
        fv_session_free(s);
        fv_session_free(fresh);
    }
    free(text);
    close_model(&m);
}

static int make_work(void **state)
{
    (void)state;
    work = temp_dir();
    return 0;
}

static int drop_work(void **state)
{
    (void)state;
    temp_remove(work);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_types), cmocka_unit_test(test_cost),
                                        cmocka_unit_test(test_stretches) };
    return cmocka_run_group_tests(tests, make_work, drop_work);
}
