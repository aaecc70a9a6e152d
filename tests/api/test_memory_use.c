/* What fv_engine_memory and fv_engine_estimate say, against the allocator and the mapping. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base.h"
#include "engine/session.h"
#include "fastvlm_tools.h"
#include "support/golden.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define DEMO  FV_SOURCE_DIR "/models/demo"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

static char *work, packed[1200], blocks[1200];

static void pack_to(const char *path, fv_precision vision, fv_precision decoder)
{
    fv_pack_options o;
    fv_error err = { 0 };
    fv_pack_options_default(&o);
    o.vision = vision;
    o.decoder = decoder;
    o.max_images = 2;
    o.min_cosine = 0.01;
    if (fv_pack(TINY, path, &o, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
}

static int make_work(void **state)
{
    (void)state;
    work = temp_dir();
    snprintf(packed, sizeof packed, "%s/bf16.gguf", work);
    snprintf(blocks, sizeof blocks, "%s/blocks.gguf", work);
    pack_to(packed, FV_PRECISION_BF16, FV_PRECISION_BF16);
    pack_to(blocks, FV_PRECISION_INT8, FV_PRECISION_Z8);
    return 0;
}

static int remove_work(void **state)
{
    (void)state;
    temp_remove(work);
    return 0;
}

/* Within a part of it and what the allocator rounds some dozens of blocks up by, which depends on
 * what was freed before. */
static void expect_near(const char *what, uint64_t got, int64_t wanted, double off)
{
    double slack = (double)wanted * off + 1024;
    if (wanted < 0 || (double)got < (double)wanted - slack || (double)got > (double)wanted + slack)
        fail_msg("%s: %llu bytes, measured %lld", what, (unsigned long long)got, (long long)wanted);
}

static fv_engine_options with_precision(fv_precision precision)
{
    fv_engine_options o;
    fv_engine_options_default(&o);
    o.vision = o.decoder = precision;
    o.n_threads = 2;
    return o;
}

/* The same model in types that leave it mapped and that convert all of it; packed; in blocks. */
static const struct kind {
    const char *path; /* NULL: packed; "": blocks */
    fv_precision precision;
} kinds[] = {
    { TINY, FV_PRECISION_F32 },  { TINY, FV_PRECISION_F16 }, { TINY, FV_PRECISION_BF16 },
    { NULL, FV_PRECISION_BF16 }, { NULL, FV_PRECISION_F32 }, { "", FV_PRECISION_AUTO },
};

static const char *path_of(const struct kind *k)
{
    return !k->path ? packed : *k->path ? k->path : blocks;
}

static void test_engine(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(kinds); i++) {
        fv_error err = { 0 };
        fv_engine_options o = with_precision(kinds[i].precision);
        fv_memory estimate = { .size = sizeof estimate }, memory = { .size = sizeof memory };
        fv_engine *e = NULL;
        struct stat st;
        int64_t live = fv_mem_live(), before = fv_mem_thread_bytes();
        if (fv_engine_estimate(path_of(&kinds[i]), &o, 0, &estimate, &err) != FV_OK)
            fail_msg("%s", err.message);
        assert_int_equal(fv_mem_live(), live);
        assert_int_equal(fv_mem_thread_bytes(), before);
        if (fv_engine_open(&e, path_of(&kinds[i]), &o, &err) != FV_OK)
            fail_msg("%s", err.message);
        int64_t taken = fv_mem_thread_bytes() - before;
        live = fv_mem_live();
        if (fv_engine_memory(e, &memory, &err) != FV_OK)
            fail_msg("%s", err.message);
        assert_int_equal(fv_mem_live(), live); /* what was measured has been given back */
        assert_int_equal(memory.engine_bytes, taken);
        expect_near("estimate of the engine", estimate.engine_bytes, taken, 0.01);
        expect_near("encoder", estimate.encoder_bytes, (int64_t)memory.encoder_bytes, 0.01);
        expect_near("session", estimate.session_bytes, (int64_t)memory.session_bytes, 0.01);
        assert_int_equal(estimate.mapped_bytes, memory.mapped_bytes);
        const char *file = path_of(&kinds[i]);
        char weights[1300];
        snprintf(weights, sizeof weights, "%s/model.safetensors", file);
        assert_int_equal(stat(fv_is_dir(file) ? weights : file, &st), 0);
        assert_int_equal(memory.mapped_bytes, st.st_size);
        fv_engine_free(e);
        assert_int_equal(fv_mem_thread_bytes(), before);
    }
}

static void say(fv_session *s, const char *text)
{
    fv_error err = { 0 };
    if (fv_session_add_text(s, text, strlen(text), &err) != FV_OK)
        fail_msg("%s", err.message);
    for (int k = 0; k < 20; k++) {
        fv_piece piece = { .size = sizeof piece };
        if (fv_session_next(s, &piece, &err) != FV_OK)
            fail_msg("%s", err.message);
        if (piece.done)
            break;
    }
}

/* Sessions whose context is about full, without and with an image. */
static void test_conversation(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(kinds); i++) {
        fv_error err = { 0 };
        fv_engine_options o = with_precision(kinds[i].precision);
        fv_session_options so;
        fv_memory m = { .size = sizeof m };
        fv_engine *e = NULL;
        fv_session *s = NULL;
        fv_image *image = NULL;
        if (fv_engine_estimate(path_of(&kinds[i]), &o, 200, &m, &err) != FV_OK ||
            fv_engine_open(&e, path_of(&kinds[i]), &o, &err) != FV_OK ||
            fv_image_open(&image, IMAGE, NULL, &err) != FV_OK)
            fail_msg("%s", err.message);
        /* with the system prompt, the marks, 16 image tokens and the answer: most of 200 rows */
        char prompt[1024] = "";
        size_t n_ids = 0;
        while (n_ids < 120) {
            strcat(prompt, "one ");
            assert_int_equal(
                fv_engine_tokenize(e, prompt, strlen(prompt), false, NULL, 0, &n_ids, &err), FV_OK);
        }
        fv_session_options_default(&so);
        so.max_context = 200;
        for (int with_image = 0; with_image < 2; with_image++) {
            int64_t before = fv_mem_thread_bytes();
            if (fv_session_new(&s, e, &so, &err) != FV_OK ||
                (with_image && fv_session_add_image(s, image, NULL, &err) != FV_OK))
                fail_msg("%s", err.message);
            say(s, prompt);
            int64_t taken = fv_mem_thread_bytes() - before;
            fv_memory own = { .size = sizeof own };
            assert_int_equal(fv_session_memory(s, &own, &err), FV_OK);
            fv_session_free(s);
            int64_t kept = fv_mem_thread_bytes() - before; /* the encoder's, for the next image */
            if (with_image)
                expect_near("encoder", m.encoder_bytes, kept, 0.01);
            else
                assert_int_equal(kept, 0);
            expect_near("session, estimated", m.session_bytes, taken - kept, 0.15);
            expect_near("session, asked", own.session_bytes, taken - kept, 0.1);
        }
        fv_image_free(image);
        fv_engine_free(e);
    }
}

/* More context, more memory; a narrower cache, less. */
static void test_context(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_engine_options o = with_precision(FV_PRECISION_F32);
    fv_memory little = { .size = sizeof little }, much = { .size = sizeof much },
              q8 = { .size = sizeof q8 };
    assert_int_equal(fv_engine_estimate(packed, &o, 1, &little, &err), FV_OK);
    assert_int_equal(fv_engine_estimate(packed, &o, 512, &much, &err), FV_OK);
    assert_true(much.session_bytes > little.session_bytes);
    expect_near("engine", much.engine_bytes, (int64_t)little.engine_bytes, 0.01);
    o.kv = FV_KV_Q8;
    assert_int_equal(fv_engine_estimate(packed, &o, 512, &q8, &err), FV_OK);
    assert_true(q8.session_bytes < much.session_bytes);
    o.image_size = 512;
    assert_int_equal(fv_engine_estimate(packed, &o, 512, &q8, &err), FV_OK);
    assert_true(q8.encoder_bytes > 2 * much.encoder_bytes);
}

static void test_refused(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_memory m = { .size = sizeof m }, unsized = { 0 };
    assert_int_equal(fv_engine_estimate(NULL, NULL, 0, &m, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_engine_estimate(packed, NULL, 0, NULL, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_engine_estimate(packed, NULL, 0, &unsized, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_engine_estimate(packed, NULL, -1, &m, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_engine_estimate(packed, NULL, 513, &m, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "n_context is 513; expected 0 to 512"));
    assert_int_equal(fv_engine_estimate("/none", NULL, 0, &m, &err), FV_ERR_IO);
    assert_int_equal(fv_engine_memory(NULL, &m, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_session_memory(NULL, &m, &err), FV_ERR_ARGUMENT);
    /* memory runs out at any point */
    int64_t live = fv_mem_live();
    for (uint64_t k = 0;; k++) {
        fv_mem_fail_after(k);
        fv_status status = fv_engine_estimate(TINY, NULL, 0, &m, &err);
        fv_mem_fail_after(UINT64_MAX);
        assert_int_equal(fv_mem_live(), live);
        if (status == FV_OK)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine),
        cmocka_unit_test(test_conversation),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, make_work, remove_work);
}
