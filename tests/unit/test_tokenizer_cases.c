/* Strings of many scripts with the ids that Hugging Face's `tokenizers` gives them.
 *
 *     test_tokenizer_cases               checks tests/data/tokenizer/tiny_cases.json
 *     test_tokenizer_cases encode DIR    hexadecimal lines -> lines of ids, with the tokenizer
 *                                        in DIR: for tools/reference/tokenizer_crosscheck.py */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "text/tokenizer.h"

static const char cases_path[] = FV_SOURCE_DIR "/tests/data/tokenizer/tiny_cases.json";
static const char checkpoint[] = FV_SOURCE_DIR "/tests/data/tiny/checkpoint";

static void test_cases(void **state)
{
    (void)state;
    fv_error err;
    fv_json *doc;
    fv_tokenizer *t;
    fv_ids ids = { 0 };

    if (fv_json_open(&doc, cases_path, 16 << 20, &err) != FV_OK ||
        fv_tokenizer_load_dir(&t, checkpoint, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    size_t n_cases = fv_json_count(fv_json_root(doc));
    assert_true(n_cases >= 290);
    for (size_t i = 0; i < n_cases; i++) {
        const fv_json_value *one = fv_json_at(fv_json_root(doc), i), *want = fv_json_at(one, 1);
        const char *text;
        assert_true(fv_json_as_string(fv_json_at(one, 0), &text));
        ids.n = 0;
        assert_int_equal(fv_tokenizer_encode(t, text, strlen(text), &ids, NULL), FV_OK);
        bool same = ids.n == fv_json_count(want);
        for (size_t k = 0; same && k < ids.n; k++) {
            int64_t id = -1;
            same = fv_json_as_int(fv_json_at(want, k), &id) && id == ids.data[k];
        }
        if (!same)
            fail_msg("case %zu: \"%s\"", i, text);
    }
    fv_ids_free(&ids);
    fv_tokenizer_free(t);
    fv_json_free(doc);
}

static int encode_lines(const char *dir)
{
    char *line = NULL;
    size_t capacity = 0;
    fv_error err;
    fv_tokenizer *t;
    fv_ids ids = { 0 };

    if (fv_tokenizer_load_dir(&t, dir, NULL, &err) != FV_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (ssize_t n; (n = getline(&line, &capacity, stdin)) > 0;) {
        size_t n_bytes = 0;
        for (ssize_t i = 0; i + 1 < n; i += 2) { /* in place: a byte is shorter than its digits */
            char digits[3] = { line[i], line[i + 1], '\0' };
            line[n_bytes++] = (char)strtol(digits, NULL, 16);
        }
        ids.n = 0;
        if (fv_tokenizer_encode(t, line, n_bytes, &ids, &err) != FV_OK) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
        for (size_t i = 0; i < ids.n; i++)
            printf("%s%d", i ? " " : "", (int)ids.data[i]);
        putchar('\n');
    }
    free(line);
    fv_ids_free(&ids);
    fv_tokenizer_free(t);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
    };
    if (argc == 3 && strcmp(argv[1], "encode") == 0)
        return encode_lines(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
