/* Memory: every allocation of opening and running fails once; no token allocates. */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"

#define MODEL FV_SOURCE_DIR "/tests/data/variants/base/checkpoint"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

/* Open, one picture, two tokens; the first status that is not FV_OK. */
static fv_status run_all(fv_error *err)
{
    fv_engine *engine = NULL;
    fv_session *session = NULL;
    fv_image *image = NULL;
    fv_engine_options settings;
    fv_session_options options;
    fv_piece piece = { .size = sizeof piece };
    fv_engine_options_default(&settings);
    settings.n_threads = 2;
    settings.image_size = 64;
    settings.vision = FV_PRECISION_F16; /* converts its matrices: more allocations */
    fv_session_options_default(&options);
    options.system = "Be brief.";
    options.n_system_bytes = 9;
    fv_answer_options rules = { .size = sizeof rules,
                                .max_new_tokens = 2,
                                .stop = (const char *const[]){ "zzz" },
                                .n_stop = 1 };
    fv_status status = fv_engine_open(&engine, MODEL, &settings, err);
    if (status == FV_OK)
        status = fv_session_new(&session, engine, &options, err);
    if (status == FV_OK)
        status = fv_image_open(&image, IMAGE, NULL, err);
    if (status == FV_OK)
        status = fv_session_add_image(session, image, NULL, err);
    if (status == FV_OK)
        status = fv_session_add_text(session, "Look at the left side.",
                                     strlen("Look at the left side."), err);
    if (status == FV_OK)
        status = fv_session_begin(session, &rules, err);
    while (status == FV_OK && !piece.done)
        status = fv_session_next(session, &piece, err);
    fv_image_free(image);
    fv_session_free(session);
    fv_engine_free(engine);
    return status;
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    fv_error err = { 0 };
    int64_t live = fv_mem_live();
    uint64_t before = fv_mem_taken();
    assert_int_equal(run_all(&err), FV_OK);
    uint64_t n = fv_mem_taken() - before;
    assert_int_equal(fv_mem_live(), live);
    assert_true(n > 100);
    for (uint64_t i = 0; i < n; i++) {
        err = (fv_error){ 0 };
        fv_mem_fail_after(i);
        fv_status status = run_all(&err);
        fv_mem_fail_after(UINT64_MAX);
        if (status != FV_ERR_MEMORY || !strstr(err.message, "memory"))
            fail_msg("allocation %d of %d: status %s, message \"%s\"", (int)i, (int)n,
                     fv_status_name(status), err.message);
        if (fv_mem_live() != live)
            fail_msg("allocation %d of %d: %d blocks are lost", (int)i, (int)n,
                     (int)(fv_mem_live() - live));
    }
}

static void test_no_token_allocates(void **state)
{
    (void)state;
    fv_engine *engine = NULL;
    fv_session *session = NULL;
    fv_session_options options;
    fv_piece piece = { .size = sizeof piece };
    fv_error err;
    fv_session_options_default(&options);
    fv_answer_options rules = { .size = sizeof rules,
                                .ignore_end = true,
                                .max_new_tokens = 40,
                                .temperature = 0.8f,
                                .top_k = 20,
                                .top_p = 0.9f,
                                .repetition_penalty = 1.1f,
                                .n_logprobs = 5 };
    assert_int_equal(fv_engine_open(&engine, MODEL, NULL, &err), FV_OK);
    assert_int_equal(fv_session_new(&session, engine, &options, &err), FV_OK);
    assert_int_equal(fv_session_add_text(session, "Look at the left side.",
                                         strlen("Look at the left side."), &err),
                     FV_OK);
    assert_int_equal(fv_session_begin(session, &rules, &err), FV_OK);
    assert_int_equal(fv_session_next(session, &piece, &err), FV_OK); /* the prompt */
    uint64_t before = fv_mem_taken();
    for (int i = 1; i < 40; i++)
        assert_int_equal(fv_session_next(session, &piece, &err), FV_OK);
    assert_int_equal(fv_mem_taken(), before);
    fv_session_free(session);
    fv_engine_free(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_allocation_fails),
                                        cmocka_unit_test(test_no_token_allocates) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
