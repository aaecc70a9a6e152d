/* A conversation as a value: copies, positions, saved bytes; and bytes that are not a session. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/sha256.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define BASE  FV_SOURCE_DIR "/tests/data/variants/base/checkpoint"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

enum { N_NEW = 5 };

static fv_error err;
static fv_engine *engine;
static fv_features *features;

static void ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

static fv_engine *open_model(const char *path, fv_kv_type kv)
{
    fv_engine *e;
    fv_engine_options o = { .size = sizeof o, .n_threads = 2, .kv = kv };
    ok(fv_engine_open(&e, path, &o, &err));
    return e;
}

static int open_all(void **state)
{
    fv_image *image;
    (void)state;
    engine = open_model(TINY, FV_KV_F16);
    ok(fv_image_open(&image, IMAGE, NULL, &err));
    ok(fv_encode(engine, image, NULL, &features, &err));
    fv_image_free(image);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    fv_features_free(features);
    fv_engine_free(engine);
    return 0;
}

static fv_session *start(fv_engine *e)
{
    fv_session *s;
    ok(fv_session_new(&s, e, NULL, &err));
    return s;
}

typedef struct heard {
    int32_t ids[N_NEW];
    int rows;
} heard;

static heard ask(fv_session *s, const char *text)
{
    heard h = { 0 };
    fv_piece p = { .size = sizeof p };
    fv_stats stats = { .size = sizeof stats };
    fv_answer_options o = { .size = sizeof o, .max_new_tokens = N_NEW, .ignore_end = true };
    size_t n = 0;
    if (text)
        ok(fv_session_add_text(s, text, strlen(text), &err));
    ok(fv_session_begin(s, &o, &err));
    while (!p.done) {
        ok(fv_session_next(s, &p, &err));
        if (p.id >= 0)
            h.ids[n++] = p.id;
    }
    fv_session_stats(s, &stats);
    h.rows = stats.prompt_tokens - stats.reused_tokens;
    return h;
}

static fv_session *talked(void)
{
    fv_session *s = start(engine);
    ok(fv_session_add_features(s, features, &err));
    ask(s, "What do you see?");
    return s;
}

static void same(heard a, heard b)
{
    assert_memory_equal(a.ids, b.ids, sizeof a.ids);
    assert_int_equal(a.rows, b.rows);
}

static void test_copy(void **state)
{
    (void)state;
    fv_piece p = { .size = sizeof p };
    fv_session *s = talked(), *copy, *third;
    ok(fv_session_add_text(s, "And ", 4, &err));
    ok(fv_session_copy(&copy, s, &err)); /* with the turn being written */
    assert_int_equal(fv_session_position(copy), fv_session_position(s));
    heard a = ask(s, "there?"), b = ask(copy, "there?");
    same(a, b);
    assert_true(a.rows < 40); /* the cache was copied, too */
    size_t position = fv_session_position(copy);
    ask(copy, "Something else"); /* what one is told the other does not hear */
    heard more = ask(s, "More?");
    ok(fv_session_rewind(copy, position, &err));
    assert_memory_equal(ask(copy, "More?").ids, more.ids, sizeof more.ids);
    ok(fv_session_add_text(s, "x", 1, &err));
    ok(fv_session_next(s, &p, &err));
    assert_int_equal(fv_session_copy(&third, s, &err), FV_ERR_STATE);
    assert_null(third);
    fv_session_free(s);
    fv_session_free(copy);
}

static void test_rewind(void **state)
{
    (void)state;
    fv_session *s = talked();
    size_t position = fv_session_position(s);
    assert_true(position > 16);
    heard first = ask(s, "And there?");
    size_t later = fv_session_position(s);
    assert_true(later > position);
    ask(s, "And more?");
    assert_int_equal(fv_session_rewind(s, position + 1, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_session_rewind(s, later + 1000, &err), FV_ERR_ARGUMENT);
    ok(fv_session_add_text(s, "dropped", 7, &err));
    ok(fv_session_rewind(s, position, &err));
    assert_int_equal(fv_session_position(s), position);
    heard again = ask(s, "And there?");
    assert_memory_equal(first.ids, again.ids, sizeof first.ids);
    assert_true(again.rows <= first.rows); /* what is still in the cache is not run again */
    assert_int_equal(fv_session_position(s), later);
    ok(fv_session_rewind(s, later, &err)); /* where it is */
    assert_int_equal(fv_session_rewind(s, 3, &err), FV_ERR_ARGUMENT);
    ok(fv_session_rewind(s, 0, &err));
    assert_int_equal(fv_session_position(s), 0);
    fv_session_free(s);
}

typedef struct bytes {
    uint8_t *data;
    size_t n, room, limit;
} bytes;

static fv_status keep(void *user, const void *data, size_t n)
{
    bytes *b = user;
    if (b->limit && b->n + n > b->limit)
        return FV_ERR_IO;
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n);
        b->data = realloc(b->data, b->room);
        assert_non_null(b->data);
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
    return FV_OK;
}

static bytes saved(const fv_session *s)
{
    bytes b = { 0 };
    ok(fv_session_save(s, keep, &b, &err));
    return b;
}

static void test_save(void **state)
{
    (void)state;
    fv_session *s = talked(), *other = start(engine), *empty = start(engine);
    fv_piece p = { .size = sizeof p };
    size_t position = fv_session_position(s);
    bytes b = saved(s), none = saved(empty);
    ok(fv_session_load(other, b.data, b.n, &err));
    assert_int_equal(fv_session_position(other), position);
    bytes again = saved(other);
    assert_int_equal(again.n, b.n);
    assert_memory_equal(again.data, b.data, b.n);
    heard want = ask(s, "And there?"), got = ask(other, "And there?");
    same(want, got);
    assert_true(got.rows < 40);
    ok(fv_session_rewind(other, position, &err)); /* positions come along */
    ok(fv_session_rewind(other, 0, &err));
    ok(fv_session_load(other, none.data, none.n, &err));
    assert_int_equal(fv_session_position(other), 0);

    ok(fv_session_add_text(s, "x", 1, &err));
    assert_int_equal(fv_session_save(s, keep, &again, &err), FV_ERR_STATE);
    ok(fv_session_next(s, &p, &err));
    assert_int_equal(fv_session_save(s, keep, &again, &err), FV_ERR_STATE);
    bytes full = { .limit = b.n / 2 };
    assert_int_equal(fv_session_save(other, keep, &full, &err), FV_OK); /* empty: it fits */
    ok(fv_session_load(other, b.data, b.n, &err));
    full.n = 0;
    assert_int_equal(fv_session_save(other, keep, &full, &err), FV_ERR_IO);

    /* of another model, another type of cache, a smaller context */
    fv_engine *q8 = open_model(TINY, FV_KV_Q8), *base = open_model(BASE, FV_KV_F16);
    fv_session *a = start(q8), *c = start(base), *small;
    fv_session_options o = { .size = sizeof o, .max_context = 40 };
    ok(fv_session_new(&small, engine, &o, &err));
    assert_int_equal(fv_session_load(a, b.data, b.n, &err), FV_ERR_UNSUPPORTED);
    assert_int_equal(fv_session_load(c, b.data, b.n, &err), FV_ERR_UNSUPPORTED);
    assert_int_equal(fv_session_load(small, b.data, b.n, &err), FV_ERR_LIMIT);
    fv_session_free(small);
    fv_session_free(a);
    fv_session_free(c);
    fv_engine_free(q8);
    fv_engine_free(base);
    free(b.data), free(none.data), free(again.data), free(full.data);
    fv_session_free(s);
    fv_session_free(other);
    fv_session_free(empty);
}

/* Makes the hash right again, so that what lies behind it is reached. */
static void seal(bytes *b)
{
    fv_sha256 sha;
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, b->data, b->n - FV_SHA256_BYTES);
    fv_sha256_end(&sha, b->data + b->n - FV_SHA256_BYTES);
}

static void test_hostile(void **state)
{
    (void)state;
    enum { COUNTS = 8 + FV_SHA256_BYTES, HEAD = COUNTS + 48 };
    fv_session *s = talked(), *victim = talked();
    size_t position = fv_session_position(victim);
    bytes b = saved(s);
    uint8_t *copy = malloc(b.n + 1);
    assert_non_null(copy);
    /* cut anywhere; a bit changed anywhere */
    for (size_t n = 0; n < b.n; n += 1 + n / 16)
        assert_int_not_equal(fv_session_load(victim, b.data, n, &err), FV_OK);
    for (size_t i = 0; i < b.n; i += 1 + i / 16) {
        b.data[i] ^= 4;
        assert_int_not_equal(fv_session_load(victim, b.data, b.n, &err), FV_OK);
        b.data[i] ^= 4;
    }
    /* with a right hash: counts, tokens, turns and rows that do not fit each other */
    for (size_t i = COUNTS; i < HEAD + 4 * 64 && i < b.n - FV_SHA256_BYTES; i++) {
        static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
        for (size_t k = 0; k < sizeof values; k++) {
            bytes changed = { .data = copy, .n = b.n };
            memcpy(copy, b.data, b.n);
            copy[i] = values[k];
            if (!memcmp(copy, b.data, b.n))
                continue;
            seal(&changed);
            fv_status status = fv_session_load(victim, copy, b.n, &err);
            if (i < HEAD - 16 || (i >= HEAD - 8 && i < HEAD)) /* all but the exact rows */
                assert_int_not_equal(status, FV_OK);
            if (status == FV_OK) /* another token, fewer exact rows: a session all the same */
                ok(fv_session_rewind(victim, 0, &err));
            ok(fv_session_load(victim, b.data, b.n, &err));
        }
    }
    assert_int_equal(fv_session_position(victim), position);
    b.data[6] = '9';
    seal(&b);
    assert_int_equal(fv_session_load(victim, b.data, b.n, &err), FV_ERR_UNSUPPORTED);
    assert_int_equal(fv_session_load(victim, "", 0, &err), FV_ERR_FORMAT);
    same(ask(s, "And there?"), ask(victim, "And there?"));
    free(copy);
    free(b.data);
    fv_session_free(s);
    fv_session_free(victim);
}

/* The longer question begins as the shorter one does. */
static const char *const questions[] = {
    "What do you see?",
    "What do you see? Say it in a sentence, and then say why you think so, in another one that is "
    "longer than the first, and what is to the left of it and what to the right, above and below, "
    "who put it there, when, and what for, and whether you would have put it there yourself."
};

static void pose(fv_session *s, const char *text)
{
    fv_answer_options o = { .size = sizeof o, .max_new_tokens = 1, .ignore_end = true };
    fv_session_reset(s);
    ok(fv_session_add_features(s, features, &err));
    ok(fv_session_add_text(s, text, strlen(text), &err));
    ok(fv_session_begin(s, &o, &err));
}

/* The logits behind the prompt, to free. */
static float *logits_of(const fv_session *s, size_t *n_bytes)
{
    size_t n;
    const float *logits = fv_session_logits(s, &n);
    assert_non_null(logits);
    *n_bytes = n * sizeof *logits;
    float *copy = malloc(*n_bytes);
    assert_non_null(copy);
    return memcpy(copy, logits, *n_bytes);
}

/* Two sessions that are asked the same, one after the other or together: the same logits either
 * way. Returns the rows that were reused. */
static int company(fv_session *of[2], bool copied)
{
    float *alone[2], *together[2];
    size_t n_bytes = 0;
    fv_session *both[2];
    fv_piece p[2] = { { .size = sizeof p[0] }, { .size = sizeof p[0] } };
    fv_stats stats = { .size = sizeof stats };
    int reused = 0;
    for (int i = 0; i < 2; i++) {
        ok(fv_session_copy(&both[i], of[i], &err));
        pose(both[i], questions[1]);
        ok(fv_session_next(both[i], &p[i], &err));
        alone[i] = logits_of(both[i], &n_bytes);
        fv_session_free(both[i]);
        both[i] = of[i];
        if (copied)
            ok(fv_session_copy(&both[i], of[i], &err));
        pose(both[i], questions[1]);
    }
    ok(fv_sessions_next(both, 2, p, NULL, &err));
    for (int i = 0; i < 2; i++) {
        together[i] = logits_of(both[i], &n_bytes);
        assert_memory_equal(together[i], alone[i], n_bytes);
        fv_session_stats(both[i], &stats);
        reused += stats.reused_tokens;
        free(alone[i]), free(together[i]);
        if (copied)
            fv_session_free(both[i]);
    }
    return reused;
}

/* Rows of a file may have been computed by other kernels: who has them gives none to others and
 * takes none behind them. Here they have other bits. */
static void test_rows_of_a_file(void **state)
{
    (void)state;
    enum { CHANGED = 12 << 10 };
    fv_session *s = start(engine), *empty = start(engine);
    fv_piece p = { .size = sizeof p };
    pose(s, questions[0]);
    while (!p.done)
        ok(fv_session_next(s, &p, &err));
    bytes b = saved(s), none = saved(empty);
    for (size_t i = 0; i < CHANGED; i += 2) /* in layers that others follow */
        b.data[b.n - FV_SHA256_BYTES - CHANGED + i] ^= 2;
    seal(&b);
    for (int order = 0; order < 2; order++) {
        for (int copied = 0; copied < 2; copied++) {
            fv_session *of[2] = { start(engine), start(engine) };
            ok(fv_session_load(of[order], b.data, b.n, &err));
            company(of, copied);
            fv_session_free(of[0]);
            fv_session_free(of[1]);
        }
    }
    fv_session *of[2] = { start(engine), start(engine) };
    ok(fv_session_load(of[0], b.data, b.n, &err));
    ok(fv_session_load(of[0], none.data, none.n, &err)); /* a file without rows */
    assert_true(company(of, false) > 40);
    fv_session_free(of[0]);
    fv_session_free(of[1]);
    free(b.data), free(none.data);
    fv_session_free(s);
    fv_session_free(empty);
}

/* Whichever allocation fails, the session is as it was. */
static void test_memory(void **state)
{
    (void)state;
    fv_session *s = talked(), *other = start(engine), *copy;
    bytes b = saved(s);
    fv_status status = FV_ERR_MEMORY;
    int64_t live = fv_mem_live();
    for (uint64_t k = 0; status != FV_OK; k++) {
        fv_mem_fail_after(k);
        status = fv_session_load(other, b.data, b.n, &err);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || (status == FV_ERR_MEMORY && fv_mem_live() == live));
        assert_int_equal(fv_session_position(other), status == FV_OK ? fv_session_position(s) : 0);
    }
    live = fv_mem_live();
    status = FV_ERR_MEMORY;
    for (uint64_t k = 0; status != FV_OK; k++) {
        fv_mem_fail_after(k);
        status = fv_session_copy(&copy, s, &err);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || (status == FV_ERR_MEMORY && fv_mem_live() == live && !copy));
    }
    free(b.data);
    fv_session_free(copy);
    fv_session_free(s);
    fv_session_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy),           cmocka_unit_test(test_rewind),
        cmocka_unit_test(test_save),           cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_rows_of_a_file), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
