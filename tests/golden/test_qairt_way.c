/* The qairt way on a scripted runner, against the reference implementation's recorded values: what
 * the encoder is given, and the rows that the decoder is given; every call of the runner and every
 * allocation made to fail. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/outpart.h"
#include "fastvlm_tools.h"
#include "model/model.h"
#include "qairt/qairt_way.h"
#include "support/golden.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny"
#define MODEL TINY "/checkpoint"

enum { SIDE = 256, ROWS = 16, WIDTH = 64 };

/* Encoding of the image tokens in u8. */
#define TOKEN_SCALE  0.02
#define TOKEN_OFFSET (-128)

static const char info[] =
    "{\"info\": {\"backendId\": 6, \"graphs\": [{\"info\": {\"graphName\": \"vision\", "
    "\"graphInputs\": [{\"info\": {\"id\": 1, \"name\": \"pixel_values\", \"dimensions\": [1, 256, "
    "256, 3], \"dataType\": \"QNN_DATATYPE_UFIXED_POINT_8\", \"quantizeParams\": {\"scaleOffset\": "
    "{\"scale\": 0.00392156862745098, \"offset\": 0}}}}], \"graphOutputs\": [{\"info\": {\"id\": "
    "2, \"name\": \"/proj/out put\", \"dimensions\": [1, 16, 64], \"dataType\": "
    "\"QNN_DATATYPE_UFIXED_POINT_8\", \"quantizeParams\": {\"scaleOffset\": {\"scale\": 0.02, "
    "\"offset\": -128}}}}]}}]}}";

/* A phone whose files are a directory here. */
typedef struct script {
    fv_runner runner;
    const char *dir; /* of the test: what is given, and the phone's files */
    char root[300];
    npy tokens; /* what the encoder gives */
    int calls, fail_at;
    bool cleared; /* the results' directory is empty */
} script;

static void path_print(char path[400], const char *dir, const char *name)
{
    snprintf(path, 400, "%s/%s", dir, name);
}

/* path, its folders made. Allocations fail in one of the tests. */
static fv_status file_put(const char *path, const void *data, size_t n, fv_error *err)
{
    size_t made;
    char *copy = fv_strdup(path);
    fv_status status = copy ? fv_out_make_parents(copy, &made, err)
                            : fv_fail_memory(err, strlen(path), "a path");
    fv_free(copy);
    return status == FV_OK ? fv_outfile_put(path, data, n, err) : status;
}

static void given_put(const char *dir, const char *name, const void *data, size_t n)
{
    char path[400];
    path_print(path, dir, name);
    assert_int_equal(file_put(path, data, n, NULL), FV_OK);
}

static fv_status script_step(fv_runner *r, fv_error *err)
{
    script *s = r->user;
    return ++s->calls == s->fail_at ? fv_fail(err, FV_ERR_IO, 0, "the phone is gone") : FV_OK;
}

static fv_status script_copy(const char *from, const char *to, fv_error *err)
{
    fv_map map;
    FV_TRY(fv_map_open(&map, from, err));
    fv_status status = file_put(to, map.data, map.size, err);
    fv_map_close(&map);
    return status;
}

static fv_status script_put(fv_runner *r, const char *local, const char *remote, fv_error *err)
{
    FV_TRY(script_step(r, err));
    assert_int_equal(strncmp(remote, r->root, strlen(r->root)), 0);
    return script_copy(local, remote, err);
}

static fv_status script_place(fv_runner *r, const char *local, const char *name,
                              char path[FV_RUNNER_PATH], fv_error *err)
{
    FV_TRY(script_step(r, err));
    snprintf(path, FV_RUNNER_PATH, "%s/%s", r->root, name);
    return script_copy(local, path, err);
}

static fv_status script_get(fv_runner *r, const char *remote, const char *local, fv_error *err)
{
    FV_TRY(script_step(r, err));
    return script_copy(remote, local, err);
}

/* Everything in Result_0, and another's file. */
static fv_status script_list(fv_runner *r, const char *remote, char **names, size_t *n,
                             fv_error *err)
{
    static const char all[] = "_proj_out_put_native.raw\0other.raw";
    FV_TRY(script_step(r, err));
    assert_non_null(strstr(remote, "/outputs/vision_out/Result_0"));
    *names = fv_alloc(sizeof all, 1);
    if (!*names)
        return fv_fail_memory(err, sizeof all, "names");
    memcpy(*names, all, sizeof all);
    *n = 2;
    return FV_OK;
}

static fv_status script_clear(fv_runner *r, const char *remote, fv_error *err)
{
    script *s = r->user;
    FV_TRY(script_step(r, err));
    fv_folder_remove(remote);
    s->cleared = s->cleared || strstr(remote, "/outputs/vision_out");
    return FV_OK;
}

static const char *argument_of(const fv_runner_call *call, const char *name)
{
    for (size_t i = 1; call->argv[i]; i++)
        if (!strcmp(call->argv[i], name))
            return call->argv[i + 1];
    return NULL;
}

static fv_status vision_run(script *s, const fv_runner_call *call, fv_error *err)
{
    static const char said[] = "qnn-net-run: fine";
    uint8_t out[ROWS * WIDTH];
    char path[FV_RUNNER_PATH + 64];
    const char *dir = argument_of(call, "--output_dir");
    assert_non_null(dir);
    assert_true(s->cleared); /* or a result of another run might be taken for new */
    for (size_t i = 0; i < ROWS * WIDTH; i++) {
        double q = s->tokens.data[i] / TOKEN_SCALE - TOKEN_OFFSET;
        out[i] = (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q + 0.5);
    }
    snprintf(path, sizeof path, "%s/Result_0/_proj_out_put_native.raw", dir);
    call->line(call->user, false, said, sizeof said - 1);
    return file_put(path, out, sizeof out, err);
}

static fv_status decoder_run(const fv_runner_call *call, fv_error *err)
{
    static const char output[] =
        "Using libGenie.so version 1.13.0\n\n[BEGIN]: yes \xe2\x82\xac[END]\n";
    static const char profile[] =
        "{\"components\": [{\"events\": [{\"type\": \"GenieDialog_query\", "
        "\"num-generated-tokens\": {\"value\": 3, \"unit\": \"\"}}]}]}";
    const char *to = argument_of(call, "--profile");
    assert_non_null(to);
    assert_true(call->raw);
    assert_int_not_equal(access(to, F_OK), 0);
    for (size_t i = 0; i < sizeof output - 1; i += 5)
        call->line(call->user, false, output + i, FV_MIN((size_t)5, sizeof output - 1 - i));
    return file_put(to, profile, sizeof profile - 1, err);
}

static fv_status script_run(fv_runner *r, const fv_runner_call *call, int *code, fv_error *err)
{
    script *s = r->user;
    FV_TRY(script_step(r, err));
    *code = 0;
    return strstr(call->argv[0], "qnn-net-run") ? vision_run(s, call, err) : decoder_run(call, err);
}

static fv_status text_take(void *user, const char *text, size_t n)
{
    strncat(user, text, n);
    return FV_OK;
}

static void script_begin(script *s)
{
    snprintf(s->root, sizeof s->root, "%s/phone", s->dir);
    s->runner = (fv_runner){ .name = "a phone",
                             .soc = "SM8750",
                             .root = s->root,
                             .programs = s->root,
                             .backend = "libQnnHtp.so",
                             .put = script_put,
                             .place = script_place,
                             .run = script_run,
                             .get = script_get,
                             .list = script_list,
                             .clear = script_clear,
                             .user = s };
    s->calls = 0;
    s->cleared = false;
}

typedef struct way_test {
    script s;
    char vision[400], vision_info[400], decoder[400], output[400], shown[64];
    fv_image *image;
    fv_qairt_run_options run;
    fv_qairt_options options;
} way_test;

static void way_test_open(way_test *t)
{
    *t = (way_test){ .s = { .dir = temp_dir() } };
    path_print(t->vision, t->s.dir, "vision.bin");
    path_print(t->vision_info, t->s.dir, "vision_ctx_info.json");
    path_print(t->decoder, t->s.dir, "fastvlm_model_z8.bin");
    path_print(t->output, t->s.dir, "out");
    given_put(t->s.dir, "phone/x", "", 0);
    given_put(t->s.dir, "vision.bin", "binary", 6);
    given_put(t->s.dir, "vision_ctx_info.json", info, sizeof info - 1);
    given_put(t->s.dir, "fastvlm_model_z8.bin", "decoder", 7);
    given_put(t->s.dir, "tokenizer.json", "{}", 2);
    char lut[400];
    path_print(lut, t->s.dir, "LUT.bin");
    assert_int_equal(fv_export_lut(MODEL, lut, NULL, NULL), FV_OK);
    t->s.tokens = npy_read(TINY, "image_tokens");
    assert_int_equal(fv_image_open(&t->image, TINY "/image.png", NULL, NULL), FV_OK);
    t->run = (fv_qairt_run_options){ .size = sizeof t->run,
                                     .model = MODEL,
                                     .vision = t->vision,
                                     .decoder = t->decoder,
                                     .output = t->output,
                                     .text = text_take,
                                     .text_user = t->shown };
    t->options.size = sizeof t->options;
}

static void way_test_close(way_test *t)
{
    fv_image_free(t->image);
    npy_free(&t->s.tokens);
    temp_remove((char *)(uintptr_t)t->s.dir);
}

static fv_status way_test_run(way_test *t, const char *prompt, fv_qairt_run_report *r,
                              fv_error *err)
{
    script_begin(&t->s);
    t->shown[0] = 0;
    fv_qairt_way way = {
        .npu = &t->s.runner, .cpu = &t->s.runner, .run = &t->run, .options = &t->options
    };
    return fv_qairt_way_run(&way, t->image, prompt, strlen(prompt), r, err);
}

/* The only directory in out. */
static void place_find(char place[500], const char *out)
{
    char command[500];
    snprintf(command, sizeof command, "ls -d %s/*", out);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_non_null(fgets(place, 500, f));
    place[strcspn(place, "\n")] = 0;
    assert_null(fgets(command, sizeof command, f));
    pclose(f);
}

static bool nothing_in(const char *out) { return !fv_is_dir(out) || rmdir(out) == 0; }

static void test_rows(void **state)
{
    (void)state;
    way_test t;
    fv_qairt_run_report r = { .size = sizeof r };
    fv_error err = { 0 };
    char place[500], path[600];
    fv_map map;
    way_test_open(&t);
    if (way_test_run(&t, "What do you see?", &r, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_string_equal(t.shown, "yes \xe2\x82\xac");
    assert_int_equal(r.n_rows, 47);
    assert_int_equal(r.n_image_rows, ROWS);
    assert_int_equal(r.genie.n_generated, 3);
    assert_false(r.clipped);
    place_find(place, t.output);
    assert_string_equal(place, r.output);

    /* What the encoder was given: the reference's pixels, byte for byte. */
    npy pixels = npy_read(TINY, "pixels_u8");
    snprintf(path, sizeof path, "%s/pixel_values.raw", place);
    assert_int_equal(fv_map_open(&map, path, &err), FV_OK);
    assert_int_equal(map.size, pixels.n);
    for (size_t i = 0; i < map.size; i++)
        if (map.data[i] != (uint8_t)pixels.data[i])
            fail_msg("pixel %zu is %d, the reference has %g", i, map.data[i], pixels.data[i]);
    fv_map_close(&map);
    npy_free(&pixels);

    /* What the decoder was given: the reference's rows, image rows as close as u8 allows. */
    npy rows = npy_read(TINY, "inputs_embeds");
    snprintf(path, sizeof path, "%s/combined_embeddings_fp32.raw", place);
    assert_int_equal(fv_map_open(&map, path, &err), FV_OK);
    assert_int_equal(map.size, rows.n * sizeof(float));
    const float *got = (const float *)(const void *)map.data;
    for (size_t i = 0; i < rows.n; i++) {
        bool image = i / WIDTH >= 14 && i / WIDTH < 14 + ROWS;
        double off = got[i] - rows.data[i];
        if (image ? off > TOKEN_SCALE * 0.501 || off < -TOKEN_SCALE * 0.501 : off != 0)
            fail_msg("row %zu, value %zu is %g, the reference has %g", i / WIDTH, i % WIDTH,
                     (double)got[i], (double)rows.data[i]);
    }
    fv_map_close(&map);
    npy_free(&rows);
    way_test_close(&t);
}

/* Whatever the phone refuses, the run says so and leaves nothing. */
static void test_every_call_fails(void **state)
{
    (void)state;
    way_test t;
    fv_error err;
    way_test_open(&t);
    assert_int_equal(way_test_run(&t, "x", NULL, &err), FV_OK);
    int n = t.s.calls;
    assert_true(n >= 12);
    assert_true(fv_folder_remove(t.output));
    for (int i = 1; i <= n; i++) {
        t.s.fail_at = i;
        if (way_test_run(&t, "x", NULL, &err) != FV_ERR_IO ||
            !strstr(err.message, "the phone is gone"))
            fail_msg("call %d of %d: %s", i, n, err.message);
        if (!nothing_in(t.output))
            fail_msg("call %d of %d: something is left", i, n);
    }
    way_test_close(&t);
}

static void test_allocations_of_a_run(void **state)
{
    (void)state;
    way_test t;
    fv_error err;
    fv_model m;
    way_test_open(&t);
    uint64_t before = fv_mem_taken();
    assert_int_equal(
        fv_model_open(&m, MODEL, &(fv_model_options){ .depth = FV_MODEL_STORED }, &err), FV_OK);
    uint64_t opening = fv_mem_taken() - before; /* tested elsewhere */
    fv_model_close(&m);
    before = fv_mem_taken();
    assert_int_equal(way_test_run(&t, "x", NULL, &err), FV_OK);
    uint64_t n = fv_mem_taken() - before;
    assert_true(n > opening + 20);
    assert_true(fv_folder_remove(t.output));
    int64_t live = fv_mem_live();
    /* Every third, as each writes to the disk. The last three are for syncing the folders of what
     * was moved and for removing the mark of a finished directory, and may fail unseen. */
    for (uint64_t i = opening; i < n - 3; i += 3) {
        fv_mem_fail_after(i);
        fv_status status = way_test_run(&t, "x", NULL, &err);
        fv_mem_fail_after(UINT64_MAX);
        if (status != FV_ERR_MEMORY || !strstr(err.message, "memory"))
            fail_msg("allocation %d of %d: status %s, message \"%s\"", (int)i, (int)n,
                     fv_status_name(status), err.message);
        if (fv_mem_live() != live)
            fail_msg("allocation %d of %d: %d blocks are lost", (int)i, (int)n,
                     (int)(fv_mem_live() - live));
        if (!nothing_in(t.output))
            fail_msg("allocation %d of %d: something is left", (int)i, (int)n);
    }
    way_test_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows),
                                        cmocka_unit_test(test_every_call_fails),
                                        cmocka_unit_test(test_allocations_of_a_run) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
