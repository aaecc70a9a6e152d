/* The scheduler of the server, with clients that are functions: what a client that goes away costs,
 * that an image which is being encoded stops nobody's tokens, that answers decode together and have
 * the bits that each has alone. No case looks at a clock. Also run under the thread sanitizer. */
#include "support/cm.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "serve/scheduler.h"

#define DEMO  FV_SOURCE_DIR "/models/demo/demo.gguf"
#define IMAGE FV_SOURCE_DIR "/examples/images/sign.png"

enum { ANSWERS = 4, TOKENS = 24 };

static fv_engine *engine;
static fv_error err;

static void ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

static serve_scheduler *scheduler_start_context(int n_parallel, size_t max_queued, int max_context)
{
    serve_scheduler *s;
    const serve_scheduler_options options = { .n_parallel = n_parallel,
                                              .max_queued = max_queued,
                                              .max_context = max_context,
                                              .cache_bytes = 1 << 20 };
    ok(serve_scheduler_new(&s, &options, &err));
    ok(serve_scheduler_start(s, engine, &err));
    return s;
}

static serve_scheduler *scheduler_start(int n_parallel, size_t max_queued)
{
    return scheduler_start_context(n_parallel, max_queued, 0);
}

static serve_counters counters_of(serve_scheduler *s)
{
    serve_counters counters;
    serve_cache_counts cache;
    serve_scheduler_count(s, &counters, &cache);
    return counters;
}

static void scheduler_end(serve_scheduler *s)
{
    serve_scheduler_drain(s, 0);
    serve_counters c = counters_of(s);
    assert_int_equal(c.taken, c.done + c.failed + c.cancelled);
    assert_int_equal(c.queued + c.running, 0);
    serve_scheduler_free(s);
}

/* ---- a client ---- */

typedef struct client {
    fv_request request;
    fv_request_item item[2];
    serve_job job;
    atomic_int n_asked; /* how often it was looked whether the client is there */
    atomic_int n_chosen;
    int leaves_after; /* tokens; 0: it stays */
    void (*looks)(struct client *c);
    void (*chooses)(struct client *c, int n);
    struct client *other;
} client;

static bool client_gone(const void *user)
{
    client *c = (client *)(uintptr_t)user;
    atomic_fetch_add(&c->n_asked, 1);
    if (c->looks)
        c->looks(c);
    return c->leaves_after && atomic_load(&c->n_chosen) >= c->leaves_after;
}

/* Never the end: an answer has the length that was asked for. */
static void client_mask(void *user, uint32_t *mask, size_t n_tokens)
{
    fv_model_info info = { .size = sizeof info };
    (void)user;
    (void)n_tokens;
    fv_engine_info(engine, &info);
    for (int i = 0; i < info.n_end_tokens; i++)
        mask[info.end_tokens[i] / 32] &= ~(1u << info.end_tokens[i] % 32);
}

static void client_chosen(void *user, int32_t id)
{
    client *c = user;
    (void)id;
    int n = atomic_fetch_add(&c->n_chosen, 1) + 1;
    if (c->chooses)
        c->chooses(c, n);
}

static void client_open(client *c, const char *question, int n_tokens)
{
    memset(c, 0, sizeof *c);
    fv_answer_options_default(&c->request.answer);
    c->request.answer.max_new_tokens = n_tokens;
    c->request.answer.n_logprobs = 1;
    c->request.items = c->item;
    c->request.n_items = 1;
    c->item[0] =
        (fv_request_item){ .kind = FV_REQUEST_TEXT, .text = question, .n_bytes = strlen(question) };
    memcpy(c->item[0].digest, question, FV_MIN(strlen(question), sizeof c->item[0].digest));
    c->job = (serve_job){ .request = &c->request,
                          .gone = client_gone,
                          .client = c,
                          .mask = client_mask,
                          .chosen = client_chosen,
                          .mask_user = c };
}

static void client_add_image(client *c, const char *name)
{
    fv_request_item *item = &c->item[c->request.n_items++];
    *item = (fv_request_item){ .kind = FV_REQUEST_IMAGE };
    snprintf(item->place, sizeof item->place, "messages[0].content[1]");
    item->digest[0] = (uint8_t)*name;
    ok(fv_read_file(&item->image, &item->n_image, IMAGE, 1 << 20, &err));
}

static void client_close(client *c)
{
    serve_job_leave(&c->job);
    for (size_t i = 0; i < c->request.n_items; i++)
        fv_free(c->item[i].image);
}

/* Latches, for threads to wait for one another. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static int stage;

static void stage_reach(int n)
{
    pthread_mutex_lock(&lock);
    stage = FV_MAX(stage, n);
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static void stage_wait(int n)
{
    pthread_mutex_lock(&lock);
    while (stage < n)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
}

/* ---- clients that go away ---- */

/* After the token at which the client goes none is chosen. */
static void test_gone_within_a_token(void **state)
{
    (void)state;
    static client c;
    serve_scheduler *s = scheduler_start(2, 8);
    for (int n = 1; n < 6; n++) {
        client_open(&c, "What is it?", 500);
        c.leaves_after = n;
        ok(serve_job_submit(s, &c.job, &err));
        serve_job_wait(&c.job);
        assert_int_equal(c.job.status, FV_ERR_CANCELLED);
        assert_int_equal(atomic_load(&c.n_chosen), n);
        client_close(&c);
    }
    assert_int_equal(counters_of(s).cancelled, 5);
    scheduler_end(s);
}

/* The third look at the client happens inside the encoder. */
static void goes_at_third_look(client *c)
{
    if (atomic_load(&c->n_asked) >= 3) {
        atomic_store(&c->n_chosen, 1);
        c->leaves_after = 1;
    }
}

static void test_gone_within_a_block(void **state)
{
    (void)state;
    static client c;
    serve_scheduler *s = scheduler_start(2, 8);
    client_open(&c, "What is it?", 5);
    client_add_image(&c, "a");
    c.looks = goes_at_third_look;
    ok(serve_job_submit(s, &c.job, &err));
    serve_job_wait(&c.job);
    assert_int_equal(c.job.status, FV_ERR_CANCELLED);
    assert_int_equal(atomic_load(&c.n_asked), 3); /* and it was not looked again: nothing ran */
    assert_int_equal(counters_of(s).images_encoded, 0);
    client_close(&c);
    scheduler_end(s);
}

/* One that waits in the queue is never begun. */
static void waits_for_stage_one(client *c, int n)
{
    (void)c;
    if (n == 2)
        stage_wait(1);
}

static void test_gone_from_the_queue(void **state)
{
    (void)state;
    static client first, second, third;
    serve_scheduler *s = scheduler_start(1, 1);
    stage = 0;
    client_open(&first, "What is it?", 4);
    first.chooses = waits_for_stage_one;
    ok(serve_job_submit(s, &first.job, &err));
    assert_non_null(serve_job_next(&first.job, NULL)); /* it has the only session */
    client_open(&second, "And this?", 4);
    ok(serve_job_submit(s, &second.job, &err));
    client_open(&third, "And that?", 4);
    assert_int_equal(serve_job_submit(s, &third.job, &err), FV_ERR_LIMIT);
    client_close(&third);
    atomic_store(&second.n_chosen, 1); /* it has gone, and so leaves its place to another */
    second.leaves_after = 1;
    client_open(&third, "And that?", 4);
    ok(serve_job_submit(s, &third.job, &err));
    assert_int_equal(second.job.status, FV_ERR_CANCELLED);
    client_close(&second);
    client_close(&third); /* leaves while the first still answers */
    assert_int_equal(atomic_load(&third.n_chosen), 0);
    stage_reach(1);
    serve_job_wait(&first.job);
    assert_int_equal(first.job.status, FV_OK);
    assert_int_equal(atomic_load(&first.n_chosen), 4);
    client_close(&first);
    scheduler_end(s);
}

/* Where nobody may wait, a request is taken when it can be answered now. */
static void test_no_queue(void **state)
{
    (void)state;
    static client first, second;
    serve_scheduler *s = scheduler_start(1, 0);
    stage = 0;
    client_open(&first, "What is it?", 4);
    first.chooses = waits_for_stage_one;
    ok(serve_job_submit(s, &first.job, &err));
    client_open(&second, "And this?", 4);
    assert_int_equal(serve_job_submit(s, &second.job, &err), FV_ERR_LIMIT);
    client_close(&second);
    stage_reach(1);
    serve_job_wait(&first.job);
    assert_int_equal(first.job.status, FV_OK);
    client_close(&first);
    client_open(&second, "And this?", 4);
    ok(serve_job_submit(s, &second.job, &err));
    serve_job_wait(&second.job);
    assert_int_equal(second.job.status, FV_OK);
    client_close(&second);
    scheduler_end(s);
}

/* ---- an image beside answers ---- */

/* In the midst of the encoder, until the other's answer is complete. */
static void encodes_until_answered(client *c)
{
    if (atomic_load(&c->n_asked) == 3)
        serve_job_wait(&c->other->job);
}

static void test_image_stops_nobody(void **state)
{
    (void)state;
    static client image, words;
    serve_scheduler *s = scheduler_start(2, 8);
    client_open(&words, "Tell me more.", TOKENS);
    client_open(&image, "What is it?", 5);
    client_add_image(&image, "b");
    image.looks = encodes_until_answered;
    image.other = &words;
    ok(serve_job_submit(s, &words.job, &err));
    ok(serve_job_submit(s, &image.job, &err));
    serve_job_wait(&image.job);
    assert_int_equal(image.job.status, FV_OK);
    assert_int_equal(words.job.status, FV_OK);
    assert_int_equal(words.job.stats.new_tokens, TOKENS);
    client_close(&words);
    client_close(&image);
    scheduler_end(s);
}

/* ---- answers that decode together ---- */

typedef struct trace {
    int32_t id[TOKENS];
    float logprob[TOKENS];
    int n;
} trace;

static void trace_take(trace *t, client *c)
{
    t->n = 0;
    for (const serve_piece *p = NULL; (p = serve_job_next(&c->job, p));) {
        if (p->id < 0)
            continue; /* the end, which the limit on tokens has set */
        assert_true(t->n < TOKENS);
        t->id[t->n] = p->id;
        t->logprob[t->n++] = p->logprob;
    }
    if (c->job.status != FV_OK)
        fail_msg("%s", c->job.err.message);
    assert_int_equal(t->n, TOKENS);
}

static const char *const questions[ANSWERS] = { "What is it?", "Tell me more about the red one.",
                                                "Why?", "How many are there, and of what kind?" };

static atomic_int n_begun;

/* Nobody gets a second token before all have the first. */
static void decodes_in_company(client *c, int n)
{
    (void)c;
    if (n == 1 && atomic_fetch_add(&n_begun, 1) + 1 == ANSWERS)
        stage_reach(2);
    if (n == 2)
        stage_wait(2);
}

static void test_together_as_alone(void **state)
{
    (void)state;
    static client c[ANSWERS];
    static trace alone[ANSWERS], together;
    serve_scheduler *s = scheduler_start(1, 8);
    for (int i = 0; i < ANSWERS; i++) {
        client_open(&c[i], questions[i], TOKENS);
        ok(serve_job_submit(s, &c[i].job, &err));
        trace_take(&alone[i], &c[i]);
        client_close(&c[i]);
    }
    serve_counters counters = counters_of(s);
    assert_int_equal(counters.decode_rows, counters.decode_steps);
    scheduler_end(s);

    s = scheduler_start(ANSWERS, 8);
    stage = 0;
    atomic_store(&n_begun, 0);
    for (int i = 0; i < ANSWERS; i++) {
        client_open(&c[i], questions[i], TOKENS);
        c[i].chooses = decodes_in_company;
        ok(serve_job_submit(s, &c[i].job, &err));
    }
    for (int i = 0; i < ANSWERS; i++) {
        trace_take(&together, &c[i]);
        assert_memory_equal(&together, &alone[i], sizeof together);
        client_close(&c[i]);
    }
    counters = counters_of(s);
    assert_int_equal(counters.decode_rows, ANSWERS * TOKENS);
    /* the first three at least: the fourth has its first token then, and joins when it may */
    assert_true(counters.decode_rows - counters.decode_steps >= 2 * (TOKENS - 2));
    scheduler_end(s);
}

/* ---- prompts that run together ---- */

/* In the midst of its prompt, until the others wait behind it. */
static void prompts_when_queued(client *c)
{
    if (atomic_load(&c->n_asked) == 3)
        stage_wait(1);
}

/* What waited while a prompt ran goes together then, and each answer is as alone. Two are too long
 * for the context, and one has gone: each fails in its own words. */
static void test_prompts_together(void **state)
{
    (void)state;
    enum { LONG = 2, CONTEXT = 128 };
    static client first, gone, c[ANSWERS], too_long[LONG];
    static trace alone[ANSWERS], together;
    static char words[LONG][400];
    serve_scheduler *s = scheduler_start(1, 8);
    for (int i = 0; i < ANSWERS; i++) {
        client_open(&c[i], questions[i], TOKENS);
        ok(serve_job_submit(s, &c[i].job, &err));
        trace_take(&alone[i], &c[i]);
        client_close(&c[i]);
    }
    scheduler_end(s);

    s = scheduler_start_context(ANSWERS + LONG + 2, 8, CONTEXT);
    stage = 0;
    client_open(&first, "What is it that one sees here?", 2);
    first.looks = prompts_when_queued;
    ok(serve_job_submit(s, &first.job, &err));
    while (atomic_load(&first.n_asked) < 3) /* its prompt runs: nobody goes with it */
        sched_yield();
    for (int i = 0; i < LONG; i++) {
        for (int n = 0; n < CONTEXT + 10 * i; n++)
            memcpy(words[i] + 2 * n, "a ", 2);
        client_open(&too_long[i], words[i], 2);
        ok(serve_job_submit(s, &too_long[i].job, &err));
    }
    for (int i = 0; i < ANSWERS; i++) {
        client_open(&c[i], questions[i], TOKENS);
        ok(serve_job_submit(s, &c[i].job, &err));
    }
    client_open(&gone, "Where is it?", 2);
    gone.leaves_after = 1;
    atomic_store(&gone.n_chosen, 1);
    ok(serve_job_submit(s, &gone.job, &err));
    stage_reach(1);
    for (int i = 0; i < ANSWERS; i++) {
        trace_take(&together, &c[i]);
        assert_memory_equal(&together, &alone[i], sizeof together);
        client_close(&c[i]);
    }
    int n_tokens[LONG];
    for (int i = 0; i < LONG; i++) {
        serve_job_wait(&too_long[i].job);
        assert_int_equal(too_long[i].job.status, FV_ERR_LIMIT);
        if (sscanf(too_long[i].job.err.message, "the prompt has %d tokens", &n_tokens[i]) != 1)
            fail_msg("%s", too_long[i].job.err.message);
        client_close(&too_long[i]);
    }
    assert_int_equal(n_tokens[1] - n_tokens[0], 10);
    serve_job_wait(&gone.job);
    assert_int_equal(gone.job.status, FV_ERR_CANCELLED);
    serve_job_wait(&first.job);
    assert_int_equal(first.job.status, FV_OK);
    serve_counters counters = counters_of(s);
    assert_int_equal(counters.prompt_batches, 2);
    assert_int_equal(counters.prompts, 1 + LONG + ANSWERS);
    client_close(&gone);
    client_close(&first);
    scheduler_end(s);
}

/* ---- sessions that are kept ---- */

static int reused(serve_scheduler *s, const char *question)
{
    static client c;
    client_open(&c, question, 2);
    ok(serve_job_submit(s, &c.job, &err));
    serve_job_wait(&c.job);
    assert_int_equal(c.job.status, FV_OK);
    int n = c.job.stats.reused_tokens;
    client_close(&c);
    return n;
}

/* Two conversations that take turns have a session each, and find their own again. */
static void test_sessions_are_found_again(void **state)
{
    (void)state;
    serve_scheduler *s = scheduler_start(2, 8);
    const char *a = "What is the first thing that one would see here?";
    const char *b = "Something that has nothing in common with the other question, and is longer.";
    int other = reused(s, a);
    assert_int_equal(other, 0);
    reused(s, b);
    for (int i = 0; i < 3; i++) {
        int of_a = reused(s, a), of_b = reused(s, b);
        assert_true(of_a > 20 && of_b > 20 && of_a != of_b);
    }
    scheduler_end(s);
}

/* ---- beginning and end ---- */

static void test_states(void **state)
{
    (void)state;
    static client c;
    serve_scheduler *s;
    const serve_scheduler_options options = { .n_parallel = 1, .max_queued = 1 };
    ok(serve_scheduler_new(&s, &options, &err));
    assert_int_equal(serve_scheduler_state(s), SERVE_LOADING);
    client_open(&c, "What is it?", 4);
    assert_int_equal(serve_job_submit(s, &c.job, &err), FV_ERR_STATE);
    client_close(&c);
    ok(serve_scheduler_start(s, engine, &err));
    assert_int_equal(serve_scheduler_state(s), SERVE_READY);
    serve_scheduler_drain(s, 0);
    client_open(&c, "What is it?", 4);
    assert_int_equal(serve_job_submit(s, &c.job, &err), FV_ERR_STATE);
    client_close(&c);
    serve_scheduler_free(s);
}

/* The end cancels what is under way, wherever it is. */
static void test_drain_cancels(void **state)
{
    (void)state;
    static client c[ANSWERS];
    serve_scheduler *s = scheduler_start(2, 8);
    for (int i = 0; i < ANSWERS; i++) {
        client_open(&c[i], questions[i], 900);
        if (i % 2)
            client_add_image(&c[i], questions[i]);
        ok(serve_job_submit(s, &c[i].job, &err));
    }
    serve_scheduler_drain(s, 0);
    for (int i = 0; i < ANSWERS; i++) {
        serve_job_wait(&c[i].job);
        assert_true(c[i].job.status == FV_ERR_CANCELLED || c[i].job.status == FV_OK);
        if (c[i].job.status == FV_ERR_CANCELLED)
            assert_string_equal(c[i].job.err.message, "the server is shutting down");
        client_close(&c[i]);
    }
    serve_scheduler_free(s);
}

int main(void)
{
    fv_engine_options options;
    fv_engine_options_default(&options);
    options.n_threads = 2;
    ok(fv_engine_open(&engine, DEMO, &options, &err));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gone_within_a_token),
        cmocka_unit_test(test_gone_within_a_block),
        cmocka_unit_test(test_gone_from_the_queue),
        cmocka_unit_test(test_no_queue),
        cmocka_unit_test(test_image_stops_nobody),
        cmocka_unit_test(test_together_as_alone),
        cmocka_unit_test(test_prompts_together),
        cmocka_unit_test(test_sessions_are_found_again),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_drain_cancels),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fv_engine_free(engine);
    return failed;
}
