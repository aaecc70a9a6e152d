/* What a host application has around the library: threads that engines share, threads with small
 * stacks, children of fork. */
#include "support/cm.h"
#include "support/sanitized.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "base/fpenv.h"
#include "fastvlm.h"
#include "fastvlm_tools.h"
#include "support/golden.h"
#include "support/host_fpenv.h"

#define TINY   FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define IMAGE  FV_SOURCE_DIR "/tests/data/tiny/image.png"
#define PROMPT "What do you see?"

enum { N_NEW = 8 };

typedef struct reply {
    fv_status status;
    fv_error err;
    size_t n;
    int32_t ids[N_NEW];
    float logits[N_NEW][8]; /* of the first ids of the vocabulary, at every step */
} reply;

static fv_status ask_engine(reply *r, fv_engine *engine, int n_new)
{
    fv_session_options options;
    fv_session *session = NULL;
    fv_image *image = NULL;
    fv_piece piece = { .size = sizeof piece };

    fv_session_options_default(&options);
    fv_answer_options rules = { .size = sizeof rules, .max_new_tokens = n_new, .ignore_end = true };
    fv_status status = fv_session_new(&session, engine, &options, &r->err);
    if (status == FV_OK)
        status = fv_image_open(&image, IMAGE, NULL, &r->err);
    if (status == FV_OK)
        status = fv_session_add_image(session, image, NULL, &r->err);
    if (status == FV_OK)
        status = fv_session_add_text(session, PROMPT, strlen(PROMPT), &r->err);
    if (status == FV_OK)
        status = fv_session_begin(session, &rules, &r->err);
    while (status == FV_OK && !piece.done) {
        status = fv_session_next(session, &piece, &r->err);
        if (status != FV_OK || piece.id < 0 || r->n == N_NEW)
            continue;
        size_t n_logits;
        const float *logits = fv_session_logits(session, &n_logits);
        memcpy(r->logits[r->n], logits, sizeof r->logits[0]);
        r->ids[r->n++] = piece.id;
    }
    fv_image_free(image);
    fv_session_free(session);
    return status;
}

static void assert_answers(const reply *want, fv_engine *engine)
{
    reply got = { 0 };
    if (ask_engine(&got, engine, N_NEW) != FV_OK)
        fail_msg("%s", got.err.message);
    assert_int_equal(got.n, N_NEW);
    if (want)
        assert_memory_equal(got.ids, want->ids, sizeof got.ids);
}

static fv_engine *open_engine(const char *path, fv_threads *threads, int n_threads)
{
    fv_engine_options options;
    fv_engine *engine;
    fv_error err;

    fv_engine_options_default(&options);
    options.threads = threads;
    options.n_threads = n_threads;
    if (fv_engine_open(&engine, path, &options, &err) != FV_OK)
        fail_msg("%s", err.message);
    return engine;
}

/* ---- shared threads ---------------------------------------------------------------------- */

static void test_engines_share_threads(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    fv_threads_options options;
    fv_threads *threads;
    fv_model_info info = { .size = sizeof info };
    reply want = { 0 };

    fv_engine *own = open_engine(TINY, NULL, 1);
    assert_int_equal(ask_engine(&want, own, N_NEW), FV_OK);
    fv_engine_free(own);

    fv_threads_options_default(&options);
    options.n_threads = 3;
    assert_int_equal(fv_threads_new(&threads, &options, NULL), FV_OK);
    fv_engine *a = open_engine(TINY, threads, 77), *b = open_engine(TINY, threads, 0);
    fv_threads_free(threads); /* the engines keep theirs */
    fv_engine_info(a, &info);
    assert_int_equal(info.n_threads, 3); /* n_threads of the engine does not count */
    assert_answers(&want, a);
    fv_engine_free(a);
    assert_answers(&want, b);
    fv_engine_free(b);
    assert_int_equal(fv_mem_live(), live);
}

/* ---- fork -------------------------------------------------------------------------------- */

typedef struct talker {
    fv_engine *engine;
    atomic_bool over;
    fv_status status;
} talker;

static void *talk_on(void *arg)
{
    talker *t = arg;
    while (!atomic_load(&t->over) && t->status == FV_OK) {
        reply r = { 0 };
        t->status = ask_engine(&r, t->engine, N_NEW);
    }
    return NULL;
}

/* The child frees what it inherited while the parent goes on. */
static void test_child_frees(void **state)
{
    (void)state;
    fv_engine *engine = open_engine(TINY, NULL, 3);
    talker t = { .engine = engine };
    fv_session *session;
    pthread_t thread;
    assert_int_equal(fv_session_new(&session, engine, NULL, NULL), FV_OK);
    assert_int_equal(pthread_create(&thread, NULL, talk_on, &t), 0);
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            alarm(60);
            fv_session_free(session);
            fv_engine_free(engine);
            _exit(0);
        }
        int status = -1;
        while (waitpid(child, &status, 0) < 0)
            ;
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    atomic_store(&t.over, true);
    pthread_join(thread, NULL);
    assert_int_equal(t.status, FV_OK);
    fv_session_free(session);
    fv_engine_free(engine);
}

/* ---- floating-point environment ---------------------------------------------------------- */

typedef struct outcome {
    reply answer;
    uint8_t *packed, *exported;
    size_t n_packed, n_exported;
    bool kept; /* the host's environment is as it was */
} outcome;

/* All that computes: weights are fused, packed, calibrated and exported, an image is encoded,
 * tokens are chosen. kind < 0: the default environment. Nothing of the test's own computes in
 * between. */
static outcome work_with(int kind, const char *dir)
{
    outcome o = { 0 };
    char packed[1200], exported[1200];
    fv_pack_options pack;
    fv_engine *engine = NULL;
    fv_engine_options options;
    snprintf(packed, sizeof packed, "%s/packed.gguf", dir);
    snprintf(exported, sizeof exported, "%s/exported.gguf", dir);
    fv_pack_options_default(&pack);
    pack.vision = FV_PRECISION_INT8;
    pack.decoder = FV_PRECISION_Q4;
    pack.n_threads = 2;
    pack.max_images = 2;
    fv_engine_options_default(&options);
    options.n_threads = 2;

    fv_fpenv plain = fv_fpenv_enter();
    if (kind >= 0)
        host_fpenv_set(kind);
    uint64_t before = host_fpenv_modes();
    fv_status status = fv_pack(TINY, packed, &pack, NULL, &o.answer.err);
    if (status == FV_OK)
        status = fv_export_gguf(TINY, FV_DECODER_Q4_0, exported, NULL, &o.answer.err);
    if (status == FV_OK)
        status = fv_engine_open(&engine, TINY, &options, &o.answer.err);
    if (status == FV_OK)
        status = ask_engine(&o.answer, engine, N_NEW);
    fv_engine_free(engine);
    o.kept = host_fpenv_modes() == before;
    fv_fpenv_leave(&plain);
    if (status != FV_OK)
        fail_msg("%s", o.answer.err.message);
    assert_int_equal(fv_read_file(&o.packed, &o.n_packed, packed, 1 << 28, NULL), FV_OK);
    assert_int_equal(fv_read_file(&o.exported, &o.n_exported, exported, 1 << 28, NULL), FV_OK);
    return o;
}

static void outcome_free(outcome *o)
{
    fv_free(o->packed);
    fv_free(o->exported);
}

/* The same bits whatever the host has set, and the host finds it as it was. */
static void test_rounding_and_denormals_of_the_host(void **state)
{
    (void)state;
    char *dir = temp_dir();
    outcome want = work_with(-1, dir);
    for (int kind = 0; kind < HOST_FPENV_KINDS; kind++) {
        outcome got = work_with(kind, dir);
        const char *name = host_fpenv_name(kind);
        if (!got.kept)
            fail_msg("%s: the host's environment has changed", name);
        if (memcmp(got.answer.logits, want.answer.logits, sizeof want.answer.logits) != 0 ||
            memcmp(got.answer.ids, want.answer.ids, sizeof want.answer.ids) != 0)
            fail_msg("%s: another answer", name);
        if (got.n_packed != want.n_packed || memcmp(got.packed, want.packed, want.n_packed) != 0)
            fail_msg("%s: another packed file", name);
        if (got.n_exported != want.n_exported ||
            memcmp(got.exported, want.exported, want.n_exported) != 0)
            fail_msg("%s: another exported file", name);
        outcome_free(&got);
    }
    outcome_free(&want);
    temp_remove(dir);
}

/* ---- stack ------------------------------------------------------------------------------- */

/* What the interface promises, and what the test gives, painted, to see how deep it was used. */
enum { STACK_PROMISED = 128 << 10, STACK_GIVEN = 1 << 20, PAINT = 0xa5 };

typedef struct deep_call {
    fv_status (*run)(void *user, fv_error *err);
    void *user;
    fv_status status;
    fv_error err;
} deep_call;

static void *deep_main(void *arg)
{
    deep_call *c = arg;
    c->status = c->run(c->user, &c->err);
    return NULL;
}

/* Bytes of stack that run needs in a thread of its own, what the system puts there included. */
static size_t stack_used(const char *what, fv_status (*run)(void *user, fv_error *err), void *user)
{
    deep_call call = { .run = run, .user = user };
    pthread_attr_t attr;
    pthread_t thread;
    uint8_t *stack = mmap(NULL, STACK_GIVEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
    size_t untouched = 0;
    assert_true(stack != MAP_FAILED);
    memset(stack, PAINT, STACK_GIVEN);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK_GIVEN), 0);
    assert_int_equal(pthread_create(&thread, &attr, deep_main, &call), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    if (call.status != FV_OK)
        fail_msg("%s: %s", what, call.err.message);
    while (untouched < STACK_GIVEN && stack[untouched] == PAINT)
        untouched++;
    munmap(stack, STACK_GIVEN);
    print_message("%-28s %4zu KB of stack\n", what, (STACK_GIVEN - untouched + 1023) >> 10);
    return STACK_GIVEN - untouched;
}

static fv_status answer_from(void *user, fv_error *err)
{
    fv_engine *engine;
    fv_engine_options options;
    reply r = { 0 };
    fv_engine_options_default(&options);
    options.n_threads = 2;
    fv_status status = fv_engine_open(&engine, user, &options, err);
    if (status != FV_OK)
        return status;
    status = ask_engine(&r, engine, N_NEW);
    *err = r.err;
    fv_engine_free(engine);
    return status;
}

typedef struct packing {
    const char *file;
    fv_precision vision, decoder;
} packing;

static fv_status pack_tiny(void *user, fv_error *err)
{
    const packing *p = user;
    fv_pack_options options;
    fv_pack_options_default(&options);
    options.vision = p->vision;
    options.decoder = p->decoder;
    options.n_threads = 2;
    options.max_images = 2;
    fv_status status = fv_pack(TINY, p->file, &options, NULL, err);
    return status == FV_OK ? fv_verify(p->file, NULL, err) : status;
}

static void test_small_stack(void **state)
{
    (void)state;
    char *dir = temp_dir(), file[1200];
    static const struct {
        const char *name;
        fv_precision vision, decoder;
    } cases[] = {
        { "pack, f32", FV_PRECISION_F32, FV_PRECISION_F32 },
        { "pack, bf16", FV_PRECISION_BF16, FV_PRECISION_BF16 },
        { "pack, f16", FV_PRECISION_F16, FV_PRECISION_F16 },
        { "pack, int8 and z8", FV_PRECISION_INT8, FV_PRECISION_Z8 },
        { "pack, int8 and q4", FV_PRECISION_INT8, FV_PRECISION_Q4 },
        { "pack, int8 and w8a8", FV_PRECISION_INT8, FV_PRECISION_W8A8 },
    };
    size_t most = stack_used("answer, checkpoint", answer_from, TINY);
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        snprintf(file, sizeof file, "%s/%zu.gguf", dir, i);
        packing p = { file, cases[i].vision, cases[i].decoder };
        size_t packed = stack_used(cases[i].name, pack_tiny, &p);
        size_t answered = stack_used("  answer", answer_from, file);
        most = FV_MAX(most, FV_MAX(packed, answered));
    }
    if (!SANITIZED) /* which make frames several times as large */
        assert_true(most <= STACK_PROMISED);
    temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines_share_threads),
        cmocka_unit_test(test_child_frees),
        cmocka_unit_test(test_rounding_and_denormals_of_the_host),
        cmocka_unit_test(test_small_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
