/* One engine, several threads with a session each: the same answers as one after the other, at
 * every number of threads. Also run under the thread sanitizer. */
#include "support/cm.h"

#include <pthread.h>
#include <string.h>

#include "fastvlm.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny"

enum { N_NEW = 12, N_SESSIONS = 3 };

static const char *const questions[N_SESSIONS] = { "What do you see?", "Describe the image.",
                                                   "Is there a cat?" };

typedef struct conversation {
    pthread_t thread;
    fv_engine *engine;
    const char *question;
    bool opens_image; /* decodes the picture itself, or goes without */
    fv_status status;
    fv_error err;
    size_t n_ids;
    int32_t ids[2 * N_NEW];
} conversation;

static fv_status talk(conversation *c)
{
    fv_session_options options;
    fv_session *session = NULL;
    fv_image *image = NULL;

    fv_session_options_default(&options);
    fv_answer_options rules = { .size = sizeof rules, .max_new_tokens = N_NEW, .ignore_end = true };
    fv_status status = fv_session_new(&session, c->engine, &options, &c->err);
    if (status == FV_OK && c->opens_image)
        status = fv_image_open(&image, TINY "/image.png", NULL, &c->err);
    for (int turn = 0; status == FV_OK && turn < 2; turn++) {
        fv_piece piece = { .size = sizeof piece };
        if (turn == 0 && image)
            status = fv_session_add_image(session, image, NULL, &c->err);
        if (status == FV_OK)
            status = fv_session_add_text(session, c->question, strlen(c->question), &c->err);
        if (status == FV_OK)
            status = fv_session_begin(session, &rules, &c->err);
        while (status == FV_OK && !piece.done) {
            status = fv_session_next(session, &piece, &c->err);
            if (status == FV_OK && piece.id >= 0 && c->n_ids < 2 * N_NEW)
                c->ids[c->n_ids++] = piece.id;
        }
    }
    fv_image_free(image);
    fv_session_free(session);
    return status;
}

static void *talk_thread(void *arg)
{
    conversation *c = arg;
    c->status = talk(c);
    return NULL;
}

static fv_engine *open_engine(int n_threads)
{
    fv_engine_options settings;
    fv_engine *engine;
    fv_error err;

    fv_engine_options_default(&settings);
    settings.n_threads = n_threads;
    settings.vision = settings.decoder = FV_PRECISION_F32;
    if (fv_engine_open(&engine, TINY "/checkpoint", &settings, &err) != FV_OK)
        fail_msg("%s", err.message);
    return engine;
}

static void start(conversation *c, fv_engine *engine, int i)
{
    memset(c, 0, sizeof *c);
    c->engine = engine;
    c->question = questions[i];
    c->opens_image = i != 2;
}

static void test_same_answers(void **state)
{
    (void)state;
    static const int n_threads[] = { 1, 2, 3, 5 };
    static conversation alone[N_SESSIONS], together[N_SESSIONS];

    for (size_t t = 0; t < sizeof n_threads / sizeof n_threads[0]; t++) {
        fv_engine *engine = open_engine(n_threads[t]);
        for (int i = 0; i < N_SESSIONS && t == 0; i++) {
            start(&alone[i], engine, i);
            talk_thread(&alone[i]);
            if (alone[i].status != FV_OK)
                fail_msg("%s", alone[i].err.message);
            assert_int_equal(alone[i].n_ids, 2 * N_NEW);
        }
        for (int i = 0; i < N_SESSIONS; i++) {
            start(&together[i], engine, i);
            assert_int_equal(pthread_create(&together[i].thread, NULL, talk_thread, &together[i]),
                             0);
        }
        for (int i = 0; i < N_SESSIONS; i++)
            pthread_join(together[i].thread, NULL);
        for (int i = 0; i < N_SESSIONS; i++) {
            if (together[i].status != FV_OK)
                fail_msg("%s", together[i].err.message);
            assert_int_equal(together[i].n_ids, alone[i].n_ids);
            assert_memory_equal(together[i].ids, alone[i].ids, sizeof alone[i].ids);
        }
        fv_engine_free(engine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_same_answers) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
