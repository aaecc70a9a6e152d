/* Conversations through the public interface: turns, several pictures, placement, limits,
 * cancelling, stop strings, errors that leave the session usable. */
#include "support/cm.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fastvlm.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

static fv_engine *engine;
static fv_image *image;

static int open_all(void **state)
{
    fv_error err;
    fv_engine_options s;
    (void)state;
    fv_engine_options_default(&s);
    s.n_threads = 2;
    s.vision = s.decoder = FV_PRECISION_F32;
    if (fv_engine_open(&engine, TINY, &s, &err) != FV_OK ||
        fv_image_open(&image, IMAGE, NULL, &err) != FV_OK) {
        fprintf(stderr, "%s\n", err.message);
        return -1;
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    fv_image_free(image);
    fv_engine_free(engine);
    return 0;
}

static fv_session *start(const fv_session_options *o)
{
    fv_session *s = NULL;
    fv_error err;
    if (fv_session_new(&s, engine, o, &err) != FV_OK)
        fail_msg("%s", err.message);
    return s;
}

static fv_session_options options(int max_new)
{
    fv_session_options o;
    fv_session_options_default(&o);
    o.max_new_tokens = max_new;
    return o;
}

static void say(fv_session *s, const char *text, const fv_image *picture)
{
    fv_error err;
    if (picture && fv_session_add_image(s, picture, &err) != FV_OK)
        fail_msg("%s", err.message);
    if (fv_session_add_text(s, text, strlen(text), &err) != FV_OK)
        fail_msg("%s", err.message);
}

typedef struct result {
    int32_t ids[64];
    size_t n, n_bytes;
    char text[4096];
    fv_finish finish;
} result;

static result listen(fv_session *s)
{
    result r = { 0 };
    fv_piece p = { .size = sizeof p };
    fv_error err;
    while (!p.done) {
        if (fv_session_next(s, &p, &err) != FV_OK)
            fail_msg("%s", err.message);
        if (p.id >= 0)
            r.ids[r.n++] = p.id;
        memcpy(r.text + r.n_bytes, p.text, p.n_bytes);
        r.n_bytes += p.n_bytes;
    }
    r.finish = p.finish;
    return r;
}

/* A second turn continues from the cache with the same answer as a session that is given both. */
static void test_turns(void **state)
{
    (void)state;
    fv_session_options o = options(6);
    fv_session *s = start(&o), *fresh = start(&o);
    fv_stats stats = { .size = sizeof stats };
    say(s, "What do you see?", image);
    result first = listen(s);
    assert_int_equal(first.n, 6);
    fv_session_stats(s, &stats);
    int used = stats.context_used;
    assert_int_equal(used, 47 + 5); /* the last token has not gone through the decoder yet */
    say(s, "And there?", NULL);
    result second = listen(s);
    fv_session_stats(s, &stats);
    assert_true(stats.prompt_tokens < 40);
    assert_int_equal(stats.context_used, used + stats.prompt_tokens + 5);
    /* the same conversation again gives the same answers */
    say(fresh, "What do you see?", image);
    listen(fresh);
    say(fresh, "And there?", NULL);
    result again = listen(fresh);
    assert_int_equal(again.n, second.n);
    assert_memory_equal(again.ids, second.ids, second.n * sizeof *second.ids);
    /* and after a reset the first one does */
    fv_session_reset(s);
    say(s, "What do you see?", image);
    result anew = listen(s);
    assert_memory_equal(anew.ids, first.ids, first.n * sizeof *first.ids);
    fv_session_free(s);
    fv_session_free(fresh);
}

/* "<image>" in the text places a picture; two pictures take two marks; a wrong number is an
 * error. */
static void test_pictures(void **state)
{
    (void)state;
    fv_session_options o = options(4);
    fv_error err;
    fv_piece p = { .size = sizeof p };
    fv_stats stats = { .size = sizeof stats };
    fv_session *s = start(&o);
    say(s, "What do you see?", image);
    result front = listen(s);
    fv_session_reset(s);
    say(s, "<image>\nWhat do you see?", image);
    result marked = listen(s);
    assert_memory_equal(front.ids, marked.ids, 4 * sizeof *front.ids);
    fv_session_reset(s);
    say(s, "What do you see?", image);
    say(s, "", image);
    listen(s);
    fv_session_stats(s, &stats);
    assert_int_equal(stats.image_tokens, 32);
    fv_session_reset(s);
    say(s, "Left <image> right <image> and <image>?", image);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "<image>"));
    /* the failed turn is dropped, the session goes on */
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_STATE);
    say(s, "What do you see?", image);
    result after = listen(s);
    assert_memory_equal(front.ids, after.ids, 4 * sizeof *front.ids);
    fv_session_free(s);
}

static void test_context_limit(void **state)
{
    (void)state;
    fv_session_options o = options(0);
    fv_error err;
    fv_piece p = { .size = sizeof p };
    fv_stats stats = { .size = sizeof stats };
    o.max_context = 56; /* the prompt has 47 rows */
    fv_session *s = start(&o);
    say(s, "What do you see?", image);
    result r = listen(s);
    assert_int_equal(r.finish, FV_FINISH_LENGTH);
    fv_session_stats(s, &stats);
    assert_true(stats.context_used <= 56);
    assert_int_equal(r.n, 9);
    say(s, "And there?", NULL);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "context of 56 rows"));
    fv_session_free(s);
    o.max_context = 100000;
    s = NULL;
    assert_int_equal(fv_session_new(&s, engine, &o, &err), FV_ERR_ARGUMENT);
    assert_null(s);
    o.max_context = 20;
    s = start(&o);
    say(s, "", image);
    assert_int_equal(fv_session_add_image(s, image, &err), FV_ERR_LIMIT);
    fv_session_free(s);
}

static void test_stop_string(void **state)
{
    (void)state;
    fv_session_options o = options(24);
    fv_session *s = start(&o);
    say(s, "What do you see?", image);
    result whole = listen(s);
    fv_session_free(s);
    const char *stop[] = { "man" }; /* the golden answer holds "...What\xef\xbf\xbdmanmage..." */
    const char *at = strstr(whole.text, "man");
    assert_non_null(at);
    o.stop = stop;
    o.n_stop = 1;
    s = start(&o);
    say(s, "What do you see?", image);
    result cut = listen(s);
    assert_int_equal(cut.finish, FV_FINISH_STOP_STRING);
    assert_int_equal(cut.n_bytes, (size_t)(at - whole.text));
    assert_memory_equal(cut.text, whole.text, cut.n_bytes);
    fv_session_free(s);
}

typedef struct canceller {
    const char *stage;
    int calls;
} canceller;

static bool cancel_at(void *user, const char *stage, double done)
{
    canceller *c = user;
    assert_true(done >= 0 && done <= 1);
    c->calls++;
    return c->stage && !strcmp(stage, c->stage);
}

static void test_cancel(void **state)
{
    (void)state;
    canceller c = { "vision", 0 };
    fv_session_options o = options(4);
    fv_error err;
    fv_piece p = { .size = sizeof p };
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = cancel_at, .user = &c };
    o.callbacks = &callbacks;
    fv_session *s = start(&o);
    assert_int_equal(fv_session_add_image(s, image, &err), FV_ERR_CANCELLED);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_STATE); /* nothing was written */
    c.stage = "prefill";
    say(s, "What do you see?", image);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_CANCELLED);
    c.stage = NULL;
    say(s, "What do you see?", image);
    assert_int_equal(listen(s).n, 4);
    assert_true(c.calls > 20);
    c.stage = "decode";
    say(s, "And there?", NULL);
    assert_int_equal(fv_session_next(s, &p, &err), FV_OK);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_CANCELLED);
    c.stage = NULL;
    assert_int_equal(fv_session_next(s, &p, &err), FV_OK); /* it goes on where it was */
    fv_session_free(s);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    fv_session_options o = options(-1);
    fv_session *s = NULL;
    fv_error err;
    fv_piece p = { .size = sizeof p };
    assert_int_equal(fv_session_new(&s, engine, &o, &err), FV_ERR_ARGUMENT);
    o = options(1);
    o.top_p = 2;
    o.temperature = 1;
    assert_int_equal(fv_session_new(&s, engine, &o, &err), FV_ERR_ARGUMENT);
    o = options(1);
    s = start(&o);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_STATE);
    assert_int_equal(fv_session_add_text(s, "bad \xc3( here", strlen("bad \xc3( here"), &err),
                     FV_ERR_FORMAT);
    assert_int_equal(err.at, 4);
    assert_non_null(strstr(err.message, "UTF-8"));
    fv_session_free(s);
    fv_session_free(NULL);
    fv_engine_free(NULL);
    fv_image_free(NULL);
}

/* Sampling: the seed decides, ids without a token never come. */
static void test_sampling(void **state)
{
    (void)state;
    fv_session_options o = options(24);
    fv_model_info m = { .size = sizeof m };
    o.temperature = 3;
    o.seed = 7;
    o.ignore_end = true;
    fv_engine_info(engine, &m);
    fv_session *a = start(&o), *b = start(&o);
    say(a, "What do you see?", image);
    say(b, "What do you see?", image);
    result x = listen(a), y = listen(b);
    assert_memory_equal(x.ids, y.ids, 24 * sizeof *x.ids);
    for (size_t i = 0; i < x.n; i++)
        assert_true(x.ids[i] < m.n_tokens);
    fv_session_reset(a);
    say(a, "What do you see?", image);
    y = listen(a);
    assert_memory_equal(x.ids, y.ids, 24 * sizeof *x.ids);
    fv_session_free(a);
    fv_session_free(b);
}

static void test_image_sizes(void **state)
{
    (void)state;
    fv_engine_options st;
    fv_engine *e = NULL;
    fv_session *s = NULL;
    fv_error err;
    fv_piece p = { .size = sizeof p };
    fv_stats stats = { .size = sizeof stats };
    fv_engine_options_default(&st);
    st.image_size = 192;
    st.n_threads = 1;
    assert_int_equal(fv_engine_open(&e, TINY, &st, &err), FV_OK);
    assert_int_equal(fv_session_new(&s, e, NULL, &err), FV_OK);
    assert_int_equal(fv_session_add_image(s, image, &err), FV_OK);
    assert_int_equal(fv_session_next(s, &p, &err), FV_OK); /* a picture alone is a question too */
    fv_session_stats(s, &stats);
    assert_int_equal(stats.image_tokens, 9);
    fv_session_free(s);
    fv_engine_free(e);
    st.image_size = 100;
    assert_int_equal(fv_engine_open(&e, TINY, &st, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "multiple of 64"));
    st.image_size = 0;
    st.kv = (fv_kv_type)9;
    assert_int_equal(fv_engine_open(&e, TINY, &st, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "KV cache"));
}

static size_t count_files(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (d)
        closedir(d);
    return n;
}

/* The files of a dump appear with the end of the answer; what has no end leaves nothing. */
static void test_dump(void **state)
{
    (void)state;
    char parent[] = "/tmp/fastvlm-dump-XXXXXX", dir[64], file[96];
    struct stat first, second;
    fv_error err;
    fv_piece piece = { .size = sizeof piece };
    fv_session_options o = options(2);
    assert_non_null(mkdtemp(parent));
    snprintf(dir, sizeof dir, "%s/d", parent);
    snprintf(file, sizeof file, "%s/logits_steps.npy", dir);
    o.dump_dir = dir;
    o.ignore_end = true;
    fv_session *s = start(&o);
    say(s, "What do you see?", image);
    assert_int_equal(fv_session_next(s, &piece, &err), FV_OK);
    assert_int_not_equal(stat(dir, &first), 0);
    while (!piece.done)
        assert_int_equal(fv_session_next(s, &piece, &err), FV_OK);
    assert_int_equal(count_files(parent), 1);
    size_t n = count_files(dir);
    assert_true(n > 20);
    assert_int_equal(stat(file, &first), 0);
    say(s, "And what else?", NULL); /* a second answer: the steps of both */
    listen(s);
    assert_int_equal(count_files(dir), n);
    assert_int_equal(stat(file, &second), 0);
    assert_true(second.st_size > first.st_size);
    say(s, "And?", image);
    assert_int_equal(fv_session_next(s, &piece, &err), FV_OK);
    fv_session_free(s);
    assert_int_equal(count_files(dir), n);
    assert_int_equal(stat(file, &first), 0);
    assert_int_equal(first.st_size, second.st_size);
    snprintf(dir, sizeof dir, "%s/e", parent);
    s = start(&o);
    say(s, "And?", image);
    fv_session_reset(s);
    assert_int_equal(count_files(parent), 1);
    say(s, "And?", NULL); /* after a reset there are dumps again */
    listen(s);
    fv_session_free(s);
    assert_int_equal(count_files(parent), 2);
    snprintf(file, sizeof file, "rm -r %s", parent);
    assert_int_equal(system(file), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),         cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_context_limit), cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_cancel),        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_sampling),      cmocka_unit_test(test_image_sizes),
        cmocka_unit_test(test_dump),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
