/* Hosts that have set a locale: files, records and messages are the same bytes under C, de_DE.UTF-8
 * (a decimal comma) and tr_TR.UTF-8 (whose i is another letter than ASCII's). The locales are made
 * for the test where the system lacks them; where that is impossible, the test fails. */
#include "support/cm.h"

#include <dirent.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/number.h"
#include "base/spawn.h"
#include "fastvlm_tools.h"
#include "support/golden.h"

#define TINY    FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define BASE    FV_SOURCE_DIR "/tests/data/variants/base/checkpoint"
#define PICTURE FV_SOURCE_DIR "/tests/data/tiny/image.png"

enum { N_LOCALES = 3 };
static const char *const names[N_LOCALES] = { "C", "de_DE.UTF-8", "tr_TR.UTF-8" };

static char *dir, *locales;
static fv_error err;

static const char *in(const char *folder, const char *name)
{
    static char path[4][600];
    static int next;
    char *p = path[next++ % 4];
    assert_in_range(snprintf(p, sizeof path[0], "%s/%s", folder, name), 1, sizeof path[0] - 1);
    return p;
}

static void ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

static void locale_set(const char *name)
{
    if (!setlocale(LC_ALL, name))
        fail_msg("%s: no such locale", name);
}

static void locale_make(const char *name)
{
    char language[16], path[1200];
    snprintf(language, sizeof language, "%.5s", name);
    snprintf(path, sizeof path, "%s/%s", locales, name);
    const char *const argv[] = { "localedef", "--no-archive", "-i", language,
                                 "-f",        "UTF-8",        path, NULL };
    fv_spawn_options how = { .argv = argv, .any_exit_code = true }; /* warnings count */
    fv_spawn_result result;
    fv_status status = fv_spawn_run(&result, &how, &err);
    if (status != FV_OK || !fv_is_dir(path))
        fail_msg("%s: the system has no such locale, and localedef does not make it (%s); install "
                 "the package locales",
                 name, status == FV_OK ? result.err : err.message);
    fv_spawn_result_free(&result);
}

/* The system's locales, or ours of these names. */
static int setup(void **state)
{
    (void)state;
    bool there = true;
    dir = temp_dir();
    locales = temp_dir();
    for (int i = 0; i < N_LOCALES; i++)
        there = there && setlocale(LC_ALL, names[i]);
    for (int i = 1; i < N_LOCALES && !there; i++)
        locale_make(names[i]);
    if (!there)
        setenv("LOCPATH", locales, 1);
    setlocale(LC_ALL, "C");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    setlocale(LC_ALL, "C");
    unsetenv("LOCPATH");
    temp_remove(dir);
    temp_remove(locales);
    return 0;
}

/* ---- the locales are what the test needs ---------------------------------------------------- */

static void test_locales(void **state)
{
    (void)state;
    char text[32];
    locale_set(names[1]);
    snprintf(text, sizeof text, "%.2f", 1.25);
    assert_string_equal(text, "1,25");
    assert_true(strtod("1.25", NULL) == 1);
    fv_format(text, sizeof text, "%.2f %g %d", 1.25, 1e-6, 1000);
    assert_string_equal(text, "1.25 1e-06 1000");
    assert_true(fv_number_read("1.25", NULL) == 1.25);
    snprintf(text, sizeof text, "%.2f", 1.25); /* the host's is what it was */
    assert_string_equal(text, "1,25");
    locale_set(names[2]);
    fv_format(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0.5");
    assert_true(fv_ascii_same("TIF", "tif") && fv_ascii_same("i", "I") && fv_ascii_same("", ""));
    assert_false(fv_ascii_same("tif", "tiff") || fv_ascii_same("tiff", "tif"));
    assert_false(fv_ascii_same("\xc4\xb0", "i") || fv_ascii_same("[", "{"));
    assert_true(fv_ascii_begins("Content-Id: 1", "CONTENT-ID") && fv_ascii_lower('I') == 'i');
    assert_false(fv_ascii_begins("Co", "Content"));
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Every file under a is in b with the same bytes; the number of files. */
static size_t tree_compare(const char *a, const char *b)
{
    size_t n = 0;
    DIR *d = opendir(a);
    if (!d)
        fail_msg("%s: is not there", a);
    for (struct dirent *e; (e = readdir(d));) {
        char x[600], y[600];
        uint8_t *left, *right;
        size_t n_left, n_right;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        assert_in_range(snprintf(x, sizeof x, "%s/%s", a, e->d_name), 1, sizeof x - 1);
        assert_in_range(snprintf(y, sizeof y, "%s/%s", b, e->d_name), 1, sizeof y - 1);
        if (fv_is_dir(x)) {
            n += tree_compare(x, y);
            continue;
        }
        ok(fv_read_file(&left, &n_left, x, 64 << 20, &err));
        ok(fv_read_file(&right, &n_right, y, 64 << 20, &err));
        if (n_left != n_right || memcmp(left, right, n_left))
            fail_msg("%s and %s differ", x, y);
        fv_free(left);
        fv_free(right);
        n++;
    }
    closedir(d);
    return n;
}

/* Everything that writes files, into "out", which then gets the locale's name: some files name the
 * directory that they are in. */
static void everything_write(const char *name)
{
    static const char *const paths[] = { PICTURE };
    fv_calib_options calib = { .size = sizeof calib, .paths = paths, .n_paths = 1 };
    fv_all_options all = { .size = sizeof all, .calib = &calib };
    fv_onnx_options qdq = { .size = sizeof qdq, .qdq = true, .parts = FV_ONNX_VISION };
    fv_pack_options pack = { .size = sizeof pack,
                             .vision = FV_PRECISION_INT8,
                             .decoder = FV_PRECISION_Q4,
                             .n_threads = 2,
                             .max_images = 2,
                             .min_cosine = 0.25 };
    fv_eval_options look = { .size = sizeof look, .paths = paths, .n_paths = 1 };
    fv_engine_options o = { .size = sizeof o, .n_threads = 2 };
    fv_engine *reference, *test;
    fv_eval *eval;
    fv_dump *dump;
    locale_set(name);
    char out[600];
    assert_in_range(snprintf(out, sizeof out, "%s/out", dir), 1, sizeof out - 1);
    ok(fv_export_all(TINY, &all, out, NULL, &err));
    ok(fv_pack(TINY, in(out, "packed.gguf"), &pack, NULL, &err));
    ok(fv_verify(in(out, "packed.gguf"), NULL, &err));
    ok(fv_export_onnx(in(out, "packed.gguf"), &qdq, in(out, "qdq"), NULL, &err));
    ok(fv_export_hf(in(out, "packed.gguf"), NULL, in(out, "hf-of-packed"), NULL, &err));
    ok(fv_engine_open(&reference, TINY, &o, &err));
    ok(fv_engine_open(&test, in(out, "packed.gguf"), &o, &err));
    ok(fv_eval_run(&eval, reference, test, &look, &err));
    ok(fv_eval_plot(eval, "1.5", 3, in(out, "plot.svg"), &err));
    fv_eval_free(eval);

    fv_image *image;
    fv_features *features;
    ok(fv_dump_open(&dump, in(out, "dump"), &err));
    fv_encode_options tapped = { .size = sizeof tapped, .tap = fv_dump_tap, .tap_user = dump };
    ok(fv_image_open(&image, PICTURE, NULL, &err));
    ok(fv_encode(reference, image, &tapped, &features, &err));
    ok(fv_dump_commit(dump, &err));
    fv_dump_free(dump);
    fv_features_free(features);
    fv_image_free(image);

    /* the record of the file, as fv_engine_record gives it */
    const char *key, *value;
    FILE *record = fopen(in(out, "record"), "w");
    for (size_t i = 0; fv_engine_record(test, i, &key, &value); i++)
        fprintf(record, "%s: %s\n", key, value);
    fclose(record);
    fv_engine_free(test);
    fv_engine_free(reference);
    setlocale(LC_ALL, "C");
    assert_int_equal(rename(out, in(dir, name)), 0);
}

static void test_files(void **state)
{
    (void)state;
    for (int i = 0; i < N_LOCALES; i++)
        everything_write(names[i]);
    for (int i = 1; i < N_LOCALES; i++) {
        size_t n = tree_compare(in(dir, names[0]), in(dir, names[i]));
        assert_int_equal(tree_compare(in(dir, names[i]), in(dir, names[0])), n);
        assert_true(n > 60);
    }
}

/* ---- messages ------------------------------------------------------------------------------- */

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        fv_answer_options options;
        const char *part;
    } cases[] = {
        { { .size = sizeof(fv_answer_options), .temperature = -1.5f }, "temperature is -1.5," },
        { { .size = sizeof(fv_answer_options), .top_p = 2.25f }, "top_p is 2.25," },
        { { .size = sizeof(fv_answer_options), .min_p = -0.125f }, "min_p is -0.125," },
    };
    fv_engine *engine;
    fv_session *session;
    fv_engine_options o = { .size = sizeof o, .n_threads = 1 };
    for (int i = 0; i < N_LOCALES; i++) {
        locale_set(names[i]);
        ok(fv_engine_open(&engine, BASE, &o, &err)); /* 1e-06 and 1000000.0 are read */
        ok(fv_session_new(&session, engine, NULL, &err));
        for (size_t k = 0; k < FV_COUNT(cases); k++) {
            assert_int_equal(fv_session_begin(session, &cases[k].options, &err), FV_ERR_ARGUMENT);
            if (!strstr(err.message, cases[k].part))
                fail_msg("%s: \"%s\" does not hold \"%s\"", names[i], err.message, cases[k].part);
        }
        fv_session_free(session);
        fv_engine_free(engine);
    }
}

/* ---- names ---------------------------------------------------------------------------------- */

/* Endings of image files, in capitals with an I. */
static void test_endings(void **state)
{
    (void)state;
    static const char *const files[] = { "A.PNG", "B.JPG", "C.TIF", "d.Gif" };
    char *images = temp_dir();
    for (size_t i = 0; i < FV_COUNT(files); i++) {
        uint8_t *data;
        size_t n;
        ok(fv_read_file(&data, &n, PICTURE, 64 << 20, &err));
        FILE *f = fopen(in(images, files[i]), "wb");
        assert_int_equal(fwrite(data, 1, n, f), n);
        fclose(f);
        fv_free(data);
    }
    size_t n_samples[N_LOCALES];
    for (int i = 0; i < N_LOCALES; i++) {
        const char *const paths[] = { images };
        fv_calib_options calib = {
            .size = sizeof calib, .paths = paths, .n_paths = 1, .image_size = 64
        };
        fv_calib_report report = { .size = sizeof report };
        locale_set(names[i]);
        char name[16];
        snprintf(name, sizeof name, "calib%d", i);
        ok(fv_export_calib(&calib, in(dir, name), NULL, &report, &err));
        n_samples[i] = report.n_samples;
        assert_int_equal(n_samples[i], n_samples[0]);
    }
    assert_true(n_samples[0] >= 2);
    setlocale(LC_ALL, "C");
    temp_remove(images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_locales, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endings, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
