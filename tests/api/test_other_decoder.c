/* A session whose rows another decoder runs: here a second sequence of the engine's own decoder, so
 * that every answer must be the same. What it is asked for, what it costs when it fails, and what
 * such a session refuses. */
#include "support/cm.h"

#include <stdlib.h>
#include <string.h>

#include "engine/session.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny/checkpoint"

enum { N_NEW = 6, MAX_ROWS = 120 };

static fv_error err;
static fv_engine *engine;

static void ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

/* The other decoder. */
typedef struct other {
    fv_ops ops;
    fv_decoder decoder;
    fv_sequence sequence;
    size_t n_calls, n_rows, n_kept; /* rows that were run; those that the last call kept */
    size_t fail_at;                 /* the call that fails; 0: none */
    bool released;
} other;

static fv_status other_run_rows(void *context, size_t n_kept, const float *x, size_t n,
                                float *logits, const fv_callbacks *callbacks, fv_error *e)
{
    other *o = context;
    const fv_watch watch = { 0 };
    (void)callbacks;
    if (++o->n_calls == o->fail_at)
        return fv_fail(e, FV_ERR_IO, 0, "it has died");
    assert_true(n_kept <= o->sequence.kv.n && n_kept + n <= MAX_ROWS);
    o->n_kept = n_kept;
    o->n_rows += n;
    o->sequence.kv.n = n_kept;
    FV_TRY(fv_decoder_reserve(&o->decoder, &o->ops, n, e));
    FV_TRY(fv_kv_reserve(&o->sequence.kv, n_kept + n, e));
    FV_TRY(fv_decoder_run(&o->decoder, &o->ops, &o->sequence, x, n, &watch, e));
    memcpy(logits, o->sequence.logits, (size_t)engine->model.config.n_vocab * sizeof *logits);
    return FV_OK;
}

static void other_release(void *context)
{
    other *o = context;
    o->released = true;
    fv_sequence_free(&o->sequence);
    fv_decoder_free(&o->decoder);
    fv_ops_free(&o->ops);
}

static const fv_decoder_ops table = { .max_rows = MAX_ROWS,
                                      .run = other_run_rows,
                                      .release = other_release };

static fv_session *start(void)
{
    fv_session *s;
    ok(fv_session_new(&s, engine, NULL, &err));
    return s;
}

static fv_session *start_other(other *o)
{
    fv_session *s = start();
    const fv_model *m = &engine->model;
    *o = (other){ 0 };
    ok(fv_ops_init(&o->ops, &m->kernels, m->pool, &err));
    ok(fv_decoder_init(&o->decoder, &m->config, &m->weights.decoder, FV_TYPE_F32, &err));
    ok(fv_sequence_init(&o->sequence, &m->config, FV_TYPE_F32, &err));
    ok(fv_session_set_decoder(s, &table, o, &err));
    return s;
}

typedef struct said {
    int32_t ids[N_NEW];
    int reused;
} said;

static fv_status answer(fv_session *s, const char *text, said *out)
{
    fv_piece p = { .size = sizeof p };
    fv_stats stats = { .size = sizeof stats };
    fv_answer_options o = { .size = sizeof o, .max_new_tokens = N_NEW, .ignore_end = true };
    size_t n = 0;
    *out = (said){ 0 };
    ok(fv_session_add_text(s, text, strlen(text), &err));
    ok(fv_session_begin(s, &o, &err));
    while (!p.done) {
        FV_TRY(fv_session_next(s, &p, &err));
        if (p.id >= 0)
            out->ids[n++] = p.id;
    }
    fv_session_stats(s, &stats);
    out->reused = stats.reused_tokens;
    return FV_OK;
}

static void same_answer(fv_session *a, fv_session *b, const char *text)
{
    said x, y;
    ok(answer(a, text, &x));
    ok(answer(b, text, &y));
    assert_memory_equal(x.ids, y.ids, sizeof x.ids);
    assert_int_equal(x.reused, y.reused);
}

/* Turns, a rewind, a reset: each row once, behind those that are kept. */
static void test_same_answers(void **state)
{
    other o;
    fv_session *s = start(), *t = start_other(&o);
    (void)state;
    same_answer(s, t, "What is it?");
    assert_int_equal(o.n_calls, N_NEW); /* the prompt, and a token for each but the last */
    size_t position = fv_session_position(s);
    same_answer(s, t, "And that?");
    ok(fv_session_rewind(s, position, &err));
    ok(fv_session_rewind(t, position, &err));
    same_answer(s, t, "Or those?");
    fv_session_reset(s);
    fv_session_reset(t);
    same_answer(s, t, "What is this?");
    assert_true(o.n_kept > 0 && o.sequence.kv.n == t->held.n_rows);
    assert_ptr_equal(t->sequence.kv.data, NULL); /* the session's own cache has no memory */
    fv_session_free(s);
    assert_false(o.released);
    fv_session_free(t);
    assert_true(o.released);
}

/* Sessions of both kinds in one call. */
static void test_together(void **state)
{
    other o;
    fv_session *all[] = { start(), start_other(&o), start() };
    fv_piece p[3] = { { .size = sizeof *p }, { .size = sizeof *p }, { .size = sizeof *p } };
    fv_answer_options rules = { .size = sizeof rules, .ignore_end = true };
    (void)state;
    for (int i = 0; i < 3; i++) {
        ok(fv_session_add_text(all[i], "What is it?", 11, &err));
        ok(fv_session_begin(all[i], &rules, &err));
    }
    for (int k = 0; k < N_NEW; k++) {
        ok(fv_sessions_next(all, 3, p, NULL, &err));
        assert_int_equal(p[0].id, p[1].id);
        assert_int_equal(p[0].id, p[2].id);
    }
    assert_int_equal(o.n_calls, N_NEW);
    fv_status statuses[3];
    o.fail_at = o.n_calls + 1;
    ok(fv_sessions_next(all, 3, p, statuses, &err));
    assert_int_equal(statuses[0], FV_OK);
    assert_int_equal(statuses[1], FV_ERR_IO);
    assert_int_equal(statuses[2], FV_OK);
    for (int i = 0; i < 3; i++)
        fv_session_free(all[i]);
}

/* In the prompt and behind it: the answer ends with the message, and the next one begins anew. */
static void test_failure(void **state)
{
    (void)state;
    for (size_t at = 1; at <= 3; at += 2) {
        other o;
        said x, y;
        fv_session *s = start(), *t = start_other(&o);
        o.fail_at = at;
        assert_int_equal(answer(t, "What is it?", &y), FV_ERR_IO);
        assert_string_equal(err.message, "it has died");
        o.sequence.kv.n = 0; /* nothing is left of it */
        ok(answer(s, "What is it?", &x));
        ok(answer(t, "What is it?", &y));
        assert_memory_equal(x.ids, y.ids, sizeof x.ids);
        assert_int_equal(y.reused, 0);
        fv_session_free(s);
        fv_session_free(t);
    }
}

static fv_status write_nothing(void *user, const void *data, size_t n_bytes)
{
    (void)user, (void)data, (void)n_bytes;
    return FV_OK;
}

static void test_refusals(void **state)
{
    other o, p = { 0 };
    said x;
    fv_session *s = start(), *t = start_other(&o), *copy;
    (void)state;
    assert_int_equal(t->max_context, MAX_ROWS);
    ok(answer(s, "What is it?", &x));
    assert_int_equal(fv_session_set_decoder(s, &table, &p, &err), FV_ERR_STATE);
    assert_int_equal(fv_session_set_decoder(t, &table, &p, &err), FV_ERR_STATE);
    ok(answer(t, "What is it?", &x));
    assert_int_equal(fv_session_copy(&copy, t, &err), FV_ERR_UNSUPPORTED);
    assert_int_equal(fv_session_save(t, write_nothing, NULL, &err), FV_ERR_UNSUPPORTED);
    assert_int_equal(fv_session_load(t, "x", 1, &err), FV_ERR_UNSUPPORTED);
    while (answer(t, "More of the same, and more.", &x) == FV_OK) /* the cache is the limit */
        ;
    assert_int_equal(err.status, FV_ERR_LIMIT);
    fv_session_free(s);
    fv_session_free(t);
}

static int open_engine_f32(void **state)
{
    fv_engine_options options = { .size = sizeof options,
                                  .decoder = FV_PRECISION_F32,
                                  .n_threads = 2 };
    (void)state;
    ok(fv_engine_open(&engine, TINY, &options, &err));
    return 0;
}

static int close_engine(void **state)
{
    (void)state;
    fv_engine_free(engine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answers),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_engine_f32, close_engine);
}
