/* Conversations through the public interface: turns, several pictures, placement, limits,
 * cancelling, stop strings, errors that leave the session usable. */
#include "support/cm.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fastvlm_tools.h"

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

/* Answers of this test: as long as asked for. */
static fv_answer_options options(int max_new)
{
    return (fv_answer_options){ .size = sizeof(fv_answer_options), .max_new_tokens = max_new };
}

static fv_session *start(const fv_session_options *o)
{
    fv_session *s = NULL;
    fv_error err;
    if (fv_session_new(&s, engine, o, &err) != FV_OK)
        fail_msg("%s", err.message);
    return s;
}

static void say(fv_session *s, const char *text, const fv_image *picture)
{
    fv_error err;
    if (picture && fv_session_add_image(s, picture, NULL, &err) != FV_OK)
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

static result listen(fv_session *s, const fv_answer_options *o)
{
    result r = { 0 };
    fv_piece p = { .size = sizeof p };
    fv_error err;
    if (fv_session_begin(s, o, &err) != FV_OK)
        fail_msg("%s", err.message);
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
    fv_answer_options o = options(6);
    fv_session *s = start(NULL), *fresh = start(NULL);
    fv_stats stats = { .size = sizeof stats };
    say(s, "What do you see?", image);
    result first = listen(s, &o);
    assert_int_equal(first.n, 6);
    fv_session_stats(s, &stats);
    int used = stats.context_used;
    assert_int_equal(used, 47 + 5); /* the last token has not gone through the decoder yet */
    say(s, "And there?", NULL);
    result second = listen(s, &o);
    fv_session_stats(s, &stats);
    assert_true(stats.prompt_tokens < 40);
    assert_int_equal(stats.context_used, used + stats.prompt_tokens + 5);
    /* the same conversation again gives the same answers */
    say(fresh, "What do you see?", image);
    listen(fresh, &o);
    say(fresh, "And there?", NULL);
    result again = listen(fresh, &o);
    assert_int_equal(again.n, second.n);
    assert_memory_equal(again.ids, second.ids, second.n * sizeof *second.ids);
    /* and after a reset the first one does */
    fv_session_reset(s);
    say(s, "What do you see?", image);
    result anew = listen(s, &o);
    assert_memory_equal(anew.ids, first.ids, first.n * sizeof *first.ids);
    fv_session_free(s);
    fv_session_free(fresh);
}

/* Pieces stand in the order of the calls; an image before any text is followed by a newline. */
static void test_order(void **state)
{
    (void)state;
    fv_answer_options o = options(4);
    fv_stats stats = { .size = sizeof stats };
    fv_error err;
    fv_session *s = start(NULL);
    say(s, "What do you see?", image);
    result front = listen(s, &o);
    fv_session_stats(s, &stats);
    int rows = stats.prompt_tokens;
    fv_session_reset(s);
    assert_int_equal(fv_session_add_image(s, image, NULL, &err), FV_OK);
    for (const char *c = "What do you see?"; *c; c++) /* in pieces: the same */
        assert_int_equal(fv_session_add_text(s, c, 1, &err), FV_OK);
    result pieces = listen(s, &o);
    assert_memory_equal(front.ids, pieces.ids, 4 * sizeof *front.ids);
    fv_session_reset(s);
    assert_int_equal(fv_session_add_text(s, "What do you see?", 16, &err), FV_OK);
    assert_int_equal(fv_session_add_image(s, image, NULL, &err), FV_OK);
    result behind = listen(s, &o);
    fv_session_stats(s, &stats);
    assert_int_equal(stats.prompt_tokens, rows - 1); /* no newline */
    assert_memory_not_equal(front.ids, behind.ids, 4 * sizeof *front.ids);
    fv_session_reset(s);
    say(s, "What do you see?", image);
    say(s, "", image);
    listen(s, &o);
    fv_session_stats(s, &stats);
    assert_int_equal(stats.image_tokens, 32);
    fv_session_free(s);
}

static void test_context_limit(void **state)
{
    (void)state;
    fv_answer_options o = options(0);
    fv_error err;
    fv_piece p = { .size = sizeof p };
    fv_stats stats = { .size = sizeof stats };
    fv_session_options so = { .size = sizeof so, .max_context = 56 }; /* the prompt has 47 rows */
    fv_session *s = start(&so);
    say(s, "What do you see?", image);
    result r = listen(s, &o);
    assert_int_equal(r.finish, FV_FINISH_LENGTH);
    fv_session_stats(s, &stats);
    assert_true(stats.context_used <= 56);
    assert_int_equal(r.n, 9);
    assert_int_equal(fv_session_add_text(s, "And there?", 10, &err), FV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "context holds 56 tokens"));
    fv_session_reset(s);
    say(s, "What do you see?", image);
    say(s, "And there, and where, and then what else?", NULL);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_LIMIT); /* with the template around it */
    assert_non_null(strstr(err.message, "context holds 56 tokens"));
    fv_session_free(s);
    so.max_context = 100000;
    s = NULL;
    assert_int_equal(fv_session_new(&s, engine, &so, &err), FV_ERR_ARGUMENT);
    assert_null(s);
    so.max_context = 20;
    s = start(&so);
    say(s, "", image);
    assert_int_equal(fv_session_add_image(s, image, NULL, &err), FV_ERR_LIMIT);
    /* text that cannot fit is refused before any work, and cheaply */
    enum { LONG = 8 << 20 };
    char *text = malloc(LONG);
    assert_non_null(text);
    memset(text, 'a', LONG);
    assert_int_equal(fv_session_add_text(s, text, LONG, &err), FV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "no room for the text"));
    free(text);
    fv_session_free(s);
}

static void test_stop_string(void **state)
{
    (void)state;
    fv_answer_options o = options(24);
    fv_session *s = start(NULL);
    say(s, "What do you see?", image);
    result whole = listen(s, &o);
    fv_session_free(s);
    const char *stop[] = { "man" }; /* the golden answer holds "...What\xef\xbf\xbdmanmage..." */
    const char *at = strstr(whole.text, "man");
    assert_non_null(at);
    o.stop = stop;
    o.n_stop = 1;
    s = start(NULL);
    say(s, "What do you see?", image);
    result cut = listen(s, &o);
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
    fv_answer_options o = options(4);
    fv_error err;
    fv_piece p = { .size = sizeof p };
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = cancel_at, .user = &c };
    fv_session_options so = { .size = sizeof so, .callbacks = &callbacks };
    fv_session *s = start(&so);
    assert_int_equal(fv_session_add_image(s, image, NULL, &err), FV_ERR_CANCELLED);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_STATE); /* nothing was written */
    c.stage = "prefill";
    say(s, "What do you see?", image);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_CANCELLED);
    c.stage = NULL;
    say(s, "What do you see?", image);
    assert_int_equal(listen(s, &o).n, 4);
    assert_true(c.calls > 20);
    c.stage = "decode";
    say(s, "And there?", NULL);
    assert_int_equal(fv_session_next(s, &p, &err), FV_OK);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_CANCELLED);
    c.stage = NULL;
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_STATE); /* the answer is over */
    say(s, "And there?", NULL); /* the turn can be written again */
    assert_int_equal(listen(s, &o).n, 4);
    fv_session_free(s);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    const fv_answer_options bad[] = {
        { .size = sizeof *bad, .max_new_tokens = -1 },
        { .size = sizeof *bad, .top_p = 2, .temperature = 1 },
        { .size = sizeof *bad, .n_logprobs = 21 },
        { .size = sizeof *bad, .n_stop = 1 },
        { .size = sizeof *bad, .stop = (const char *const[]){ NULL }, .n_stop = 1 },
        { .size = sizeof *bad, .stop = (const char *const[]){ "" }, .n_stop = 1 },
        { .size = sizeof *bad, .bias = &(fv_logit_bias){ -1, 0 }, .n_bias = 1 },
        { .size = sizeof *bad, .bias = &(fv_logit_bias){ 1 << 30, 0 }, .n_bias = 1 },
    };
    fv_error err;
    fv_piece p = { .size = sizeof p };
    fv_session *s = start(NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fv_session_begin(s, &bad[i], &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_session_next(s, &p, &err), FV_ERR_STATE);
    assert_int_equal(fv_session_add_text(s, "bad \xc3( here", 11, &err), FV_ERR_FORMAT);
    assert_int_equal(err.at, 4);
    assert_non_null(strstr(err.message, "UTF-8"));
    fv_session_free(s);
}

/* Sampling: the seed decides, ids without a token never come. */
static void test_sampling(void **state)
{
    (void)state;
    fv_answer_options o = options(24);
    fv_model_info m = { .size = sizeof m };
    o.temperature = 3;
    o.seed = 7;
    o.ignore_end = true;
    fv_engine_info(engine, &m);
    fv_session *a = start(NULL), *b = start(NULL);
    say(a, "What do you see?", image);
    say(b, "What do you see?", image);
    result x = listen(a, &o), y = listen(b, &o);
    assert_memory_equal(x.ids, y.ids, 24 * sizeof *x.ids);
    for (size_t i = 0; i < x.n; i++)
        assert_true(x.ids[i] < m.n_tokens);
    fv_session_reset(a); /* the seed is the answer's: again */
    say(a, "What do you see?", image);
    y = listen(a, &o);
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
    assert_int_equal(fv_session_add_image(s, image, NULL, &err), FV_OK);
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

static off_t size_of(const char *dir, const char *name)
{
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s.npy", dir, name);
    return stat(path, &st) == 0 ? st.st_size : -1;
}

/* The files of a dump appear with its commit; what has none leaves nothing; an answer's files hold
 * that answer alone. */
static void test_dump(void **state)
{
    (void)state;
    char parent[] = "/tmp/fastvlm-dump-XXXXXX", dir[64], command[96];
    fv_error err;
    fv_answer_options o = options(2);
    fv_dump *dump;
    assert_non_null(mkdtemp(parent));
    snprintf(dir, sizeof dir, "%s/d", parent);
    assert_int_equal(fv_dump_open(&dump, dir, &err), FV_OK);
    fv_session_options so = {
        .size = sizeof so, .tap = fv_dump_tap, .tap_user = dump, .tap_prompt_logits = true
    };
    o.ignore_end = true;
    fv_session *s = start(&so);
    say(s, "What do you see?", image);
    listen(s, &o);
    assert_int_equal(size_of(dir, "logits_steps"), -1);
    assert_int_equal(fv_dump_commit(dump, &err), FV_OK);
    assert_int_equal(count_files(parent), 1);
    size_t n = count_files(dir);
    assert_true(n > 20);
    off_t steps = size_of(dir, "logits_steps"), all = size_of(dir, "logits_prefill");
    assert_true(steps > 0 && all > steps);
    say(s, "And what else?", NULL); /* a second answer: its own two steps, not four */
    listen(s, &o);
    assert_int_equal(fv_dump_commit(dump, &err), FV_OK);
    assert_int_equal(count_files(dir), n);
    assert_int_equal(size_of(dir, "logits_steps"), steps);
    say(s, "And?", image);
    listen(s, &o);
    fv_dump_free(dump); /* not committed */
    assert_int_equal(count_files(parent), 1);
    assert_int_equal(count_files(dir), n);
    fv_session_free(s);

    /* a folder that cannot be written: the call stops, the dump knows why */
    snprintf(command, sizeof command, "%s/d/pixels_u8.npy/x", parent);
    assert_int_not_equal(fv_dump_open(&dump, command, &err), FV_OK);
    assert_null(dump);
    assert_int_equal(fv_dump_open(&dump, dir, &err), FV_OK);
    assert_false(fv_dump_tap(dump, "x", (float[]){ 1 }, (size_t[]){ 1 }, 9));
    assert_false(fv_dump_tap(dump, "y", (float[]){ 1 }, (size_t[]){ 1 }, 1));
    assert_int_equal(fv_dump_commit(dump, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "dimensions"));
    assert_int_equal(fv_dump_commit(dump, &err), FV_OK); /* and is of use again */
    fv_dump_free(dump);
    snprintf(command, sizeof command, "rm -r %s", parent);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),         cmocka_unit_test(test_order),
        cmocka_unit_test(test_context_limit), cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_cancel),        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_sampling),      cmocka_unit_test(test_image_sizes),
        cmocka_unit_test(test_dump),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
