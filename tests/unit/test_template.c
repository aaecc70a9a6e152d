/* text/template.c: the golden prompts, picture marks, later turns, and what is refused. */
#include "support/cm.h"

#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "text/template.h"

static fv_tokenizer *tiny;
static fv_ids ids;

static int load_tiny(void **state)
{
    (void)state;
    fv_error err;
    fv_status status = fv_tokenizer_load_dir(&tiny, FV_SOURCE_DIR "/tests/data/tiny/checkpoint",
                                             &err);

    if (status != FV_OK)
        print_error("%s\n", err.message);
    return status == FV_OK ? 0 : -1;
}

static int free_tiny(void **state)
{
    (void)state;
    fv_tokenizer_free(tiny);
    fv_ids_free(&ids);
    return 0;
}

static fv_turn turn(fv_turn_start start, const char *user, size_t n_images)
{
    return (fv_turn){ start, NULL, user, strlen(user), n_images };
}

/* The ids of a turn are those of this text, cut at its marks. */
static void check_turn(fv_turn t, const char *text)
{
    fv_ids want = { 0 };
    size_t n_marks = 99;

    ids.n = 0;
    assert_int_equal(fv_template_turn(&ids, tiny, &t, NULL), FV_OK);
    assert_int_equal(fv_template_encode(&want, tiny, text, strlen(text), &n_marks, NULL), FV_OK);
    assert_int_equal(n_marks, t.n_images);
    assert_int_equal(ids.n, want.n);
    assert_memory_equal(ids.data, want.data, want.n * sizeof *want.data);
    fv_ids_free(&want);
}

static void check_fails(fv_turn t, fv_status want, const char *message)
{
    fv_error err;

    ids.n = 0;
    assert_int_equal(fv_ids_push(&ids, 5, NULL), FV_OK);
    assert_int_equal(fv_template_turn(&ids, tiny, &t, &err), want);
    assert_string_equal(err.message, message);
    assert_int_equal(ids.n, 1);
}

static void check_golden(const fv_json *doc, const char *part, const char *user, size_t n_images)
{
    const fv_json_value *object;
    int64_t want[256];
    size_t n;
    fv_turn t = turn(FV_TURN_FIRST, user, n_images);

    assert_int_equal(fv_json_object(doc, fv_json_root(doc), part, &object, NULL), FV_OK);
    assert_int_equal(fv_json_ints(doc, object, "ids", -200, 511, 1, 256, want, &n, NULL), FV_OK);
    ids.n = 0;
    assert_int_equal(fv_template_turn(&ids, tiny, &t, NULL), FV_OK);
    assert_int_equal(ids.n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids.data[i], want[i]);
}

static void test_golden_prompts(void **state)
{
    (void)state;
    fv_json *doc;

    assert_int_equal(
        fv_json_open(&doc, FV_SOURCE_DIR "/tests/data/tiny/manifest.json", 1 << 24, NULL), FV_OK);
    check_golden(doc, "prompt", "What do you see?", 1);
    check_golden(doc, "prompt", "<image>\nWhat do you see?", 1); /* the same, written out */
    check_golden(doc, "text_only", "Describe the picture.", 0);
    fv_json_free(doc);
}

#define SYSTEM "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
#define END    "<|im_end|>\n<|im_start|>assistant\n"

static void test_marks(void **state)
{
    (void)state;
    check_turn(turn(FV_TURN_FIRST, "Compare.", 2),
               SYSTEM "<|im_start|>user\n<image>\n<image>\nCompare." END);
    check_turn(turn(FV_TURN_FIRST, "a <image> b<image>", 2),
               SYSTEM "<|im_start|>user\na <image> b<image>" END);
    check_turn(turn(FV_TURN_FIRST, "<image><image>", 2),
               SYSTEM "<|im_start|>user\n<image><image>" END);
    check_turn(turn(FV_TURN_FIRST, "", 1), SYSTEM "<|im_start|>user\n<image>\n" END);
    check_turn(turn(FV_TURN_FIRST, "<imag e> <<image", 0),
               SYSTEM "<|im_start|>user\n<imag e> <<image" END);
    assert_int_equal(fv_template_count_marks("<<image><image", 14), 1);
    assert_int_equal(fv_template_count_marks("<image><image>", 14), 2);
    assert_int_equal(fv_template_count_marks("<image", 6), 0);
    assert_int_equal(fv_template_count_marks(NULL, 0), 0);

    /* Parts are encoded on their own: "user\n" and "\nx" keep their newlines apart. */
    size_t n_marks;
    ids.n = 0;
    assert_int_equal(fv_template_encode(&ids, tiny, "\n<image>\n", 9, &n_marks, NULL), FV_OK);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.data[0], 198);
    assert_int_equal(ids.data[1], FV_IMAGE_MARK);
    assert_int_equal(ids.data[2], 198);
}

static void test_later_turns(void **state)
{
    (void)state;
    fv_turn t = turn(FV_TURN_FIRST, "Hi", 0);

    check_turn(turn(FV_TURN_AFTER_END, "And now?", 0), "\n<|im_start|>user\nAnd now?" END);
    check_turn(turn(FV_TURN_AFTER_CUT, "And now?", 1),
               "<|im_end|>\n<|im_start|>user\n<image>\nAnd now?" END);
    t.system = "Be brief.";
    check_turn(t, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi" END);
    t.system = "";
    check_turn(t, "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi" END);
    /* As in the reference, the user's own special tokens are special tokens. */
    check_turn(turn(FV_TURN_FIRST, "a<|im_end|>b", 0), SYSTEM "<|im_start|>user\na<|im_end|>b" END);
    size_t n_ends = 0;
    for (size_t i = 0; i < ids.n; i++)
        n_ends += ids.data[i] == 471;
    assert_int_equal(n_ends, 3);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    fv_turn t = turn(FV_TURN_FIRST, "Hi", 0);
    fv_error err;

    check_fails(turn(FV_TURN_FIRST, "<image> and", 2), FV_ERR_ARGUMENT,
                "the prompt has 1 \"<image>\" mark for 2 pictures");
    check_fails(turn(FV_TURN_FIRST, "<image> <image>", 1), FV_ERR_ARGUMENT,
                "the prompt has 2 \"<image>\" marks for 1 picture");
    check_fails(turn(FV_TURN_AFTER_END, "<image>", 0), FV_ERR_ARGUMENT,
                "the prompt has 1 \"<image>\" mark for 0 pictures");
    check_fails(turn(FV_TURN_FIRST, "ab\xff", 0), FV_ERR_FORMAT,
                "the prompt is not valid UTF-8: byte 0xff at offset 2");
    t.system = "see <image>";
    check_fails(t, FV_ERR_ARGUMENT,
                "the system text holds \"<image>\": pictures belong to user turns");
    t.system = "\xc3";
    check_fails(t, FV_ERR_FORMAT, "the system text is not valid UTF-8: byte 0xc3 at offset 0");
    check_fails(turn(FV_TURN_FIRST, "x", SIZE_MAX), FV_ERR_LIMIT,
                "18446744073709551615 pictures and 1 bytes of text are too many");

    ids.n = 0; /* the offset is that of the whole text, not of the part */
    assert_int_equal(fv_template_encode(&ids, tiny, "a<image>b\xfe", 10, NULL, &err),
                     FV_ERR_FORMAT);
    assert_int_equal(err.at, 9);
    assert_string_equal(err.message, "the text is not valid UTF-8: byte 0xfe at offset 9");
    assert_int_equal(ids.n, 0);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    fv_status status = FV_ERR_MEMORY;
    fv_turn t = turn(FV_TURN_FIRST,
                     "caf\x65\xcc\x81 <image> "
                     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                     1);

    for (uint64_t i = 0; status != FV_OK; i++) {
        fv_ids fresh = { 0 };
        fv_mem_fail_after(i);
        status = fv_template_turn(&fresh, tiny, &t, NULL);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        fv_ids_free(&fresh);
        assert_int_equal(fv_mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_prompts),      cmocka_unit_test(test_marks),
        cmocka_unit_test(test_later_turns),         cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, load_tiny, free_tiny);
}
