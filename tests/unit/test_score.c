/* eval/score: the verdicts of tools/train/score.py on answers made to fall on either side of its
 * rules. */
#include "support/cm.h"

#include "eval/score.h"

/* What score.py says; tests/cli/test_eval.sh asks it again, and about others. */
static const struct {
    const char *kind, *wanted, *answer;
    bool correct;
} cases[] = {
    { "color", "Red", "red", true },
    { "color", "Red", "Red.", true },
    { "color", "Red", " RED . ", true },
    { "color", "Red", "Red..", false },
    { "color", "Red", "Red!", false },
    { "color", "Red", "", false },
    { "color", "Red", "dark red", false },
    { "text", "9\x0aSN", "9 sn", true },
    { "text", "9\x0aSN", "9\xc2\xa0SN", true },
    { "text", "9\x0aSN", "9\xe3\x80\x80\xe2\x80\x89sn .", true },
    { "text", "9\x0aSN", "9SN", false },
    { "text", "9 SN", "9\xe2\x80\x8bSN", false },
    { "text",
      "a\x1c"
      "b",
      "a b", true },
    { "text", "OK", "\xce\x9f\xe2\x84\xaa", false },
    { "text", "K", "\xe2\x84\xaa", true },
    { "text", "i", "\xc4\xb0", false },
    { "text", "\xc4\xb0", "i\xcc\x87", true },
    { "text", "\xc3\x89T\xc3\x89", "\xc3\xa9t\xc3\xa9", true },
    { "text", "STRASSE",
      "stra\xc3\x9f"
      "e",
      false },
    { "text", ".", "", true },
    { "text", "", ".", true },
    { "text", ". .", " .", false },
    { "count", "1", "one", false },
    { "count", "1", "1.", true },
    { "yesno", "Yes", "Yes", true },
    { "yesno", "Yes", "No", false },
    { "followup", "Bottom left", "bottom  left", true },
    { "followup", "Bottom left", "left bottom", false },
    { "describe", "A medium black cross, the number \"1703\" and the number \"3\".",
      "a large BLACK cross, the number \"3\" and the number \"1703\"", true },
    { "describe", "A medium black cross, the number \"1703\" and the number \"3\".",
      "a black cross, \"3\", \"1703\", \"3\"", false },
    { "describe", "A medium black cross, the number \"1703\" and the number \"3\".",
      "a black cross, \"3\", \"1703", false },
    { "describe", "A medium black cross, the number \"1703\" and the number \"3\".",
      "a white cross, \"3\", \"1703\"", false },
    { "describe", "A red circle and a blue star.", "a blue star and a red circle", true },
    { "describe", "A red circle and a blue star.", "a blue star, a red circle and a red circle",
      false },
    { "describe", "A red circle and a blue star.", "a blue  star and a red circle", false },
    { "describe", "A red circle and a blue star.", "a blue\x0astar and a red circle", false },
    { "describe", "A red circle and a blue star.", "a blue star and a red circles", false },
    { "describe", "A red circle and a blue star.", "a blue star and a tired circle", false },
    { "describe", "A red circle and a blue star.", "blue star,red circle", true },
    { "describe", "A red circle and a blue star.", "blue star_ red circle", false },
    { "describe", "A red circle and a blue star.", "blue star\xc3\xa9 red circle", false },
    { "describe", "A red circle and a blue star.", "blue star\xcc\x81 red circle", true },
    { "describe", "A red circle and a blue star.",
      "\xc3\xa9"
      "blue star red circle",
      false },
    { "describe", "A red circle and a blue star.", "blue star\xc2\xb2 red circle", false },
    { "describe", "A red circle and a blue star.", "blue star-red circle", true },
    { "describe", "A red circle and a blue star.", "blue star red circle \"", true },
    { "describe", "A red circle and a blue star.", "blue star \"red circle\"", false },
    { "describe", "A red circle and a blue star.", "\"\" blue star red circle", false },
    { "describe", "A red circle and a blue star.", "a blue star and a red circle on an empty table",
      false },
    { "describe", "The picture is empty.", "Empty", true },
    { "describe", "The picture is empty.", "emptyish", true },
    { "describe", "The picture is empty.", "it says \"empty\"", false },
    { "describe", "The picture is empty.", "", false },
    { "describe", "There are 12 shapes.", "12 shapes", true },
    { "describe", "There are 12 shapes.", "12 shapesx", true },
    { "describe", "There are 12 shapes.", "a12 shapes", false },
    { "describe", "There are 12 shapes.", "0 12 shapes", true },
    { "describe", "There are 12 shapes.", "012 shapes", false },
    { "describe", "There are 12 shapes.", "12  shapes", false },
    { "describe", "There are 12 shapes.", "-12 shapes", true },
    { "describe", "There are 12 shapes.", "1 shapes 2 shapes", false },
    { "describe", "1 shapes 2 shapes", "2 shapes 1 shapes", false },
    { "describe", "1 shapes 2 shapes", "1 shapes2 shapes", false },
    { "describe", "1 shapes 2 shapes", "1 shapes, 2 shapes", true },
    { "describe", "\xd9\xa1\xd9\xa2 shapes", "\xd9\xa1\xd9\xa2 shapes", true },
    { "describe", "12 shapes", "\xd9\xa1\xd9\xa2 shapes", false },
    { "describe", "12 shapes",
      "\xc2\xb2"
      "12 shapes",
      false },
    { "describe", "\"a\" \"a\" \"b\"", "\"b\" \"a\" \"a\"", true },
    { "describe", "\"a\" \"a\" \"b\"", "\"b\" \"b\" \"a\"", false },
    { "describe", "\"A b\"", "\"a  b\"", false },
    { "describe",
      "\"A\x0a"
      "b\"",
      "\"a\x0a"
      "B\"",
      true },
    { "describe", "\"\"", "\"\"\"\"", false },
    { "describe", "\"x\"y\"z\"", "\"z\" \"x\"", true },
    { "describe", "red red circle", "red circle", true },
    { "describe", "A gray moon", "a grey moon", false },
    { "describe", "black arrow", "blackarrow", false },
    { "describe", "red circle red circle", "red circlered circle", false },
    { "describe", "12 shapes", "12 \"x\" shapes", false },
    { "describe", "red circle", "red\"\" circle", false },
    { "absent", "There is no text.", "there is no text", true },
    { "absent", "There is no text.", "There is no text. Really.", false },
};

static void test_verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool correct;
        fv_error err;
        assert_int_equal(
            fv_score_answer(&correct, cases[i].kind, cases[i].wanted, cases[i].answer, &err),
            FV_OK);
        if (correct != cases[i].correct)
            fail_msg("case %zu: %s, wanted \"%s\", got \"%s\": %s", i, cases[i].kind,
                     cases[i].wanted, cases[i].answer,
                     correct ? "taken as right" : "taken as wrong");
    }
}

static void test_bad_text(void **state)
{
    bool correct = true;
    fv_error err;
    (void)state;
    assert_int_equal(fv_score_answer(&correct, "color", "red", "r\xc3", &err), FV_ERR_FORMAT);
    assert_int_equal(err.at, 1);
    assert_false(correct);
    for (uint64_t n = 0; n < 8; n++) {
        fv_mem_fail_after(n);
        assert_int_equal(fv_score_answer(&correct, "describe", "red circle", "\"a\"", &err),
                         FV_ERR_MEMORY);
    }
    fv_mem_fail_after(8);
    assert_int_equal(fv_score_answer(&correct, "describe", "red circle", "\"a\"", &err), FV_OK);
    fv_mem_fail_after(UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_verdicts),
                                        cmocka_unit_test(test_bad_text) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
