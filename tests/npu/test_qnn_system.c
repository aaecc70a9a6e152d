/* npu/qnn_system.c, ctx_info.c and qnn_child.c: a context binary becomes a description, whatever
 * version the library describes it in; libraries that refuse, lie, print, hang or die. */
#include "support/cm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fastvlm_npu.h"
#include "io/json.h"
#include "npu/ctx_info.h"
#include "npu/qnn_child.h"
#include "npu/qnn_system.h"

static char file[64], calls[64];

/* type 1032 is 0x0408, u8; 1046 is 0x0416, u16; 534 is 0x0216, f16 */
static const char binary[] = "FAKEQNN 1\nshared\n"
                             "soc 69\n"
                             "graph vision\n"
                             "in pixels 1032 0.00392156886 0 4 1 64 64 3\n"
                             "out image_features 1046 0.000244140625 -32768 3 1 1 96\n"
                             "graph embed\n"
                             "in ids 50 0 0 2 1 512\n"
                             "out output_0 534 0 0 3 1 512 96\n"
                             "end\n";

static void write_file(const void *data, size_t n)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static int files_make(void **state)
{
    (void)state;
    snprintf(file, sizeof file, "/tmp/fv-test-ctx-XXXXXX");
    snprintf(calls, sizeof calls, "/tmp/fv-test-log-XXXXXX");
    close(mkstemp(file));
    close(mkstemp(calls));
    return 0;
}

static int files_remove(void **state)
{
    (void)state;
    unlink(file);
    unlink(calls);
    return 0;
}

/* $FAKE_QNN: the words, and where calls are logged. */
static void fake_set(const char *words)
{
    char text[300];
    snprintf(text, sizeof text, "log=%s;%s", calls, words);
    setenv("FAKE_QNN", text, 1);
    FILE *f = fopen(calls, "wb");
    assert_non_null(f);
    fclose(f);
}

/* What the stand-in was called with, and that it saw no wrong use. */
static void assert_calls(const char *wanted)
{
    uint8_t *text;
    size_t n;
    assert_int_equal(fv_read_file(&text, &n, calls, 1 << 20, NULL), FV_OK);
    assert_string_equal((char *)text, wanted);
    fv_free(text);
}

static fv_status open_binary(fv_npu_binary **out, fv_error *err)
{
    fv_npu_library_options o = { .size = sizeof o, .qnn_dir = FV_FAKE_QNN };
    return fv_npu_binary_open(out, file, &o, err);
}

#define ALL_CALLS                                                                        \
    "QnnSystemInterface_getProviders\nsystemContextCreate\nsystemContextGetBinaryInfo\n" \
    "systemContextFree\n"

static void test_description(void **state)
{
    (void)state;
    fv_npu_binary *b;
    fv_npu_binary_info info = { .size = sizeof info };
    fv_npu_graph_info g = { .size = sizeof g };
    fv_npu_tensor_info t = { .size = sizeof t };
    fv_error err;

    write_file(binary, sizeof binary - 1);
    fake_set("chat=systemContextGetBinaryInfo"); /* on standard output: not in our answer */
    if (open_binary(&b, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_calls(ALL_CALLS);
    fv_npu_binary_describe(b, &info);
    assert_string_equal(info.build, "v2.99.0.fake");
    assert_true(info.backend == 6 && info.api_major == 2 && info.api_minor == 40);
    assert_true(info.soc_model == 69 && info.htp_version == 79);
    assert_true(info.file_bytes == sizeof binary - 1 && info.n_graphs == 2);

    assert_true(fv_npu_binary_graph(b, 0, &g));
    assert_string_equal(g.name, "vision");
    assert_true(g.n_inputs == 1 && g.n_outputs == 1 && g.has_htp && g.has_sizes);
    assert_true(g.spill_fill_bytes == 123456 && g.vtcm_mb == 8 && g.optimization_level == 3 &&
                g.n_hvx_threads == 4);
    assert_true(g.io_bytes == 1000 && g.op_bytes == 2000 && g.constant_bytes == 3000 &&
                g.ddr_bytes == 4000 && g.shared_weight_bytes == 5000);
    assert_true(fv_npu_binary_tensor(b, 0, FV_NPU_INPUT, 0, &t));
    assert_string_equal(t.name, "pixels");
    assert_string_equal(t.type, "u8");
    assert_true(t.rank == 4 && t.dims[1] == 64 && t.dims[3] == 3 && t.n_bytes == 64 * 64 * 3);
    assert_true(t.quantized && (float)t.scale == 0.00392156886f && t.offset == 0 && t.id == 1);
    assert_true(fv_npu_binary_tensor(b, 0, FV_NPU_OUTPUT, 0, &t));
    assert_string_equal(t.type, "u16");
    assert_true(t.quantized && t.scale == 0.000244140625 && t.offset == -32768);
    assert_true(fv_npu_binary_tensor(b, 1, FV_NPU_INPUT, 0, &t));
    assert_string_equal(t.type, "i32");
    assert_false(t.quantized);
    assert_true(fv_npu_binary_tensor(b, 1, FV_NPU_OUTPUT, 0, &t));
    assert_true(!strcmp(t.type, "f16") && t.n_bytes == 512 * 96 * 2);

    assert_false(fv_npu_binary_graph(b, 2, &g));
    assert_false(fv_npu_binary_tensor(b, 2, FV_NPU_INPUT, 0, &t));
    assert_false(fv_npu_binary_tensor(b, 0, FV_NPU_INPUT, 1, &t));
    assert_false(fv_npu_binary_tensor(b, 0, (fv_npu_tensor_kind)2, 0, &t));
    t.size = 0;
    assert_false(fv_npu_binary_tensor(b, 0, FV_NPU_INPUT, 0, &t));
    fv_npu_binary_free(b);
    fv_npu_binary_free(NULL);
}

/* What the reference Qualcomm pipeline reads to turn bytes back into numbers. */
static void test_json_as_the_utility_writes_it(void **state)
{
    (void)state;
    fv_npu_binary *b;
    fv_json *doc;
    const fv_json_value *info, *graph, *tensor, *quant, *pair;
    const char *text;
    double scale;
    int64_t value;
    fv_error err;

    write_file(binary, sizeof binary - 1);
    fake_set("");
    assert_int_equal(open_binary(&b, &err), FV_OK);
    const char *json = fv_npu_binary_json(b);
    assert_int_equal(fv_json_parse(&doc, json, strlen(json), "json", &err), FV_OK);
    assert_int_equal(fv_json_object(doc, fv_json_root(doc), "info", &info, &err), FV_OK);
    graph = fv_json_member(fv_json_at(fv_json_member(info, "graphs"), 0), "info");
    assert_int_equal(fv_json_string(doc, graph, "graphName", &text, &err), FV_OK);
    assert_string_equal(text, "vision");
    tensor = fv_json_member(fv_json_at(fv_json_member(graph, "graphOutputs"), 0), "info");
    assert_int_equal(fv_json_string(doc, tensor, "dataType", &text, &err), FV_OK);
    assert_string_equal(text, "QNN_DATATYPE_UFIXED_POINT_16");
    quant = fv_json_member(tensor, "quantizeParams");
    assert_int_equal(fv_json_string(doc, quant, "definition", &text, &err), FV_OK);
    assert_string_equal(text, "QNN_DEFINITION_DEFINED");
    assert_int_equal(fv_json_string(doc, quant, "quantizationEncoding", &text, &err), FV_OK);
    assert_string_equal(text, "QNN_QUANTIZATION_ENCODING_SCALE_OFFSET");
    assert_int_equal(fv_json_object(doc, quant, "scaleOffset", &pair, &err), FV_OK);
    assert_int_equal(fv_json_number(doc, pair, "scale", 0, 1, &scale, &err), FV_OK);
    assert_true(scale == 0.000244140625);
    assert_int_equal(fv_json_int(doc, pair, "offset", -70000, 0, &value, &err), FV_OK);
    assert_int_equal(value, -32768);
    pair = fv_json_member(fv_json_member(graph, "graphBlobInfo"), "info");
    assert_int_equal(fv_json_int(doc, pair, "vtcmSize", 0, 99, &value, &err), FV_OK);
    assert_int_equal(value, 8); /* MB */
    pair = fv_json_member(fv_json_member(info, "contextMetadata"), "info");
    assert_int_equal(fv_json_int(doc, pair, "dspArch", 0, 99, &value, &err), FV_OK);
    assert_int_equal(value, 79);
    fv_json_free(doc);
    fv_npu_binary_free(b);
}

static void test_older_descriptions(void **state)
{
    (void)state;
    fv_npu_binary *b;
    fv_npu_binary_info info = { .size = sizeof info };
    fv_npu_graph_info g = { .size = sizeof g };
    fv_npu_tensor_info t = { .size = sizeof t };
    fv_error err;

    write_file(binary, sizeof binary - 1);
    for (int version = 1; version <= 2; version++) {
        char words[64];
        snprintf(words, sizeof words, "info=%d;tensor=2", version);
        fake_set(words);
        if (open_binary(&b, &err) != FV_OK)
            fail_msg("%s", err.message);
        fv_npu_binary_describe(b, &info);
        assert_true(info.soc_model == 0 && info.htp_version == 0 && info.n_graphs == 2);
        assert_true(fv_npu_binary_graph(b, 1, &g));
        assert_string_equal(g.name, "embed");
        assert_false(g.has_htp);
        assert_true(fv_npu_binary_tensor(b, 0, FV_NPU_OUTPUT, 0, &t));
        assert_true(t.offset == -32768 && t.dims[2] == 96);
        fv_npu_binary_free(b);
    }
}

static void assert_open_fails(const char *words, fv_status status, const char *message)
{
    fv_npu_binary *b = (fv_npu_binary *)file;
    fv_error err = { 0 };
    fake_set(words);
    assert_int_equal(open_binary(&b, &err), status);
    assert_null(b);
    if (!strstr(err.message, message))
        fail_msg("%s: \"%s\" lacks \"%s\"", words, err.message, message);
}

static void test_refusals(void **state)
{
    (void)state;
    write_file(binary, sizeof binary - 1);
    assert_open_fails("info=4", FV_ERR_UNSUPPORTED, "describes it in version 4, expected 1 to 3");
    assert_open_fails("tensor=7", FV_ERR_UNSUPPORTED, ": a tensor of version 7, expected 1 or 2");
    assert_open_fails("system_api=2.0", FV_ERR_UNSUPPORTED, "QNN system API 2.0.0");
    assert_open_fails("fail=systemContextCreate:1002", FV_ERR_UNSUPPORTED,
                      "cannot be started: QNN error 1002");
    assert_open_fails("fail=systemContextGetBinaryInfo:1000", FV_ERR_UNSUPPORTED,
                      "libQnnSystem cannot read it: QNN error 1000");
    assert_open_fails("die=systemContextGetBinaryInfo", FV_ERR_IO,
                      ": libQnnSystem: ended with signal 11 (SIGSEGV)");
}

static void test_damaged_files(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        fv_status status;
        const char *message;
    } cases[] = {
        { "", FV_ERR_FORMAT, ": the file is empty, expected a QNN context binary" },
        { "GGUF....", FV_ERR_FORMAT, ": looks like a GGUF file, expected a QNN context binary" },
        { "\177ELF....", FV_ERR_FORMAT, ": looks like a library or program, expected a QNN" },
        { "PK\3\4....", FV_ERR_FORMAT, ": looks like a zip or DLC file, expected a QNN" },
        { "{\"info\": 1}", FV_ERR_FORMAT, ": looks like JSON, expected a QNN context binary" },
        { "something else", FV_ERR_FORMAT,
          ": not a QNN context binary, or truncated, or made by libraries newer than those in " },
        { "FAKEQNN 1\nsoc 69\ngraph a\nin x 1032 1 0 1 4294967295\nout y 99 nan 0 0\nend\n",
          FV_ERR_FORMAT, "tensor y: its scale is not finite" },
    };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        write_file(cases[i].bytes, strlen(cases[i].bytes));
        assert_open_fails("", cases[i].status, cases[i].message);
    }
    /* Cut anywhere, it is refused. */
    for (size_t n = 1; n + 1 < sizeof binary - 1; n += 7) {
        write_file(binary, n);
        assert_open_fails("", FV_ERR_FORMAT, "(QNN error 30010, ");
    }
    unlink(file);
    assert_open_fails("", FV_ERR_IO, "");
    write_file("", 0);
    assert_int_equal(truncate(file, (off_t)9 << 30), 0); /* sparse */
    assert_open_fails("", FV_ERR_LIMIT, "more than any context binary has");
}

/* JSON is UTF-8: what is not in a name becomes a mark. */
static void test_names_that_are_not_utf8(void **state)
{
    (void)state;
    static const char latin[] = "FAKEQNN 1\nsoc 69\ngraph a\xe4\nin x 1032 1 0 1 4\nend\n";
    fv_npu_binary *b;
    fv_npu_graph_info g = { .size = sizeof g };
    fv_error err;
    write_file(latin, sizeof latin - 1);
    fake_set("");
    assert_int_equal(open_binary(&b, &err), FV_OK);
    assert_true(fv_npu_binary_graph(b, 0, &g));
    assert_string_equal(g.name, "a\xef\xbf\xbd");
    fv_npu_binary_free(b);
}

static bool progress_stops(void *user, const char *stage, double done)
{
    unsigned *asked = user;
    assert_string_equal(stage, "read");
    assert_true(done >= 0 && done <= 1);
    return ++*asked > 5;
}

static void test_interrupted_read(void **state)
{
    (void)state;
    unsigned asked = 0;
    fv_callbacks callbacks = { .size = sizeof callbacks,
                               .progress = progress_stops,
                               .user = &asked };
    fv_npu_library_options o = { .size = sizeof o,
                                 .qnn_dir = FV_FAKE_QNN,
                                 .callbacks = &callbacks };
    fv_npu_binary *b;
    fv_error err;
    write_file(binary, sizeof binary - 1);
    fake_set("hang=systemContextGetBinaryInfo");
    assert_int_equal(fv_npu_binary_open(&b, file, &o, &err), FV_ERR_CANCELLED);
    assert_non_null(strstr(err.message, "cancelled"));
    assert_true(asked > 5);
}

/* ---- the description, as a file that anybody may have written ---- */

static void assert_parses(const char *json, fv_status status, const char *message)
{
    fv_npu_binary *b;
    fv_error err = { 0 };
    char *text = fv_strdup(json);
    assert_non_null(text);
    assert_int_equal(fv_ctx_info_parse(&b, text, strlen(text), "x.json", &err), status);
    if (status == FV_OK) {
        fv_npu_binary_free(b);
        return;
    }
    fv_free(text);
    if (!strstr(err.message, message))
        fail_msg("%s: \"%s\" lacks \"%s\"", json, err.message, message);
}

#define TENSOR(text) \
    "{\"graphs\": [{\"graphName\": \"g\", \"graphInputs\": [" text "], \"graphOutputs\": []}]}"

static void test_descriptions_of_others(void **state)
{
    (void)state;
    /* Without "info", as another tool writes it; scaleOffsetEncoding, as older releases do. */
    assert_parses(TENSOR("{\"name\": \"x\", \"dataType\": \"QNN_DATATYPE_UINT_8\", \"dimensions\": "
                         "[1], \"quantizeParams\": {\"scaleOffsetEncoding\": {\"scale\": 1, "
                         "\"offset\": -3}}}"),
                  FV_OK, "");
    assert_parses(TENSOR("{\"name\": \"x\", \"dataType\": \"QNN_DATATYPE_NEW_77\", \"dimensions\": "
                         "[4294967295, 4294967295, 4294967295]}"),
                  FV_OK, "");
    assert_parses("{\"graphs\": []}", FV_OK, "");
    assert_parses("[]", FV_ERR_FORMAT, "graphs");
    assert_parses("{\"info\": {}}", FV_ERR_FORMAT, "graphs");
    assert_parses("{\"graphs\": [1]}", FV_ERR_FORMAT, "graphName");
    assert_parses("{\"graphs\": [{\"graphName\": 1}]}", FV_ERR_FORMAT, "graphName");
    assert_parses("{\"graphs\": [{\"graphName\": \"g\"}]}", FV_ERR_FORMAT, "graphInputs");
    assert_parses(TENSOR("{}"), FV_ERR_FORMAT, "name");
    assert_parses(TENSOR("{\"name\": \"x\", \"dataType\": \"y\"}"), FV_ERR_FORMAT, "dimensions");
    assert_parses(TENSOR("{\"name\": \"x\", \"dataType\": \"y\", \"dimensions\": [-1]}"),
                  FV_ERR_FORMAT, "dimensions");
    assert_parses(TENSOR("{\"name\": \"x\", \"dataType\": \"y\", \"dimensions\": "
                         "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"),
                  FV_ERR_FORMAT, "dimensions");
    assert_parses(
        TENSOR("{\"name\": \"x\", \"dataType\": \"y\", \"dimensions\": [1], "
               "\"quantizeParams\": {\"scaleOffset\": {\"scale\": 1e39, \"offset\": 0}}}"),
        FV_ERR_FORMAT, "scale");
    assert_parses(TENSOR("{\"name\": \"x\", \"dataType\": \"y\", \"dimensions\": [1], "
                         "\"quantizeParams\": {\"scaleOffset\": {\"scale\": 1, \"offset\": "
                         "2147483648}}}"),
                  FV_ERR_FORMAT, "offset");
}

static void test_description_allocations_fail(void **state)
{
    (void)state;
    static const char json[] = "{\"graphs\": [{\"graphName\": \"g\", \"graphInputs\": [], "
                               "\"graphOutputs\": []}]}";
    int64_t before = fv_mem_live();
    for (unsigned k = 0;; k++) {
        fv_npu_binary *b;
        fv_error err;
        char *text = fv_strdup(json);
        fv_mem_fail_after(k);
        fv_status status = fv_ctx_info_parse(&b, text, sizeof json - 1, "x", &err);
        fv_mem_fail_after(UINT64_MAX);
        if (status == FV_OK) {
            fv_npu_binary_free(b);
            assert_true(k > 2);
            break;
        }
        assert_int_equal(status, FV_ERR_MEMORY);
        fv_free(text);
        assert_true(fv_mem_live() == before);
    }
    assert_true(fv_mem_live() == before);
}

/* ---- a child ---- */

static fv_status child_work(void *user, fv_qnn_child *child, fv_error *err)
{
    const char *what = user;
    fv_qnn_child_tell(child, 0.25);
    if (strcmp(what, "fail") == 0)
        return fv_fail(err, FV_ERR_LIMIT, 17, "too much of it");
    if (strcmp(what, "exit") == 0)
        exit(0); /* as a library may */
    printf("chatter\n");
    fflush(stdout);
    return fv_qnn_child_write(child, "result", 6, err);
}

static void test_children(void **state)
{
    (void)state;
    char what[16] = "work";
    fv_qnn_child_result r;
    fv_error err;
    fv_qnn_child_options o = {
        .run = child_work, .user = what, .name = "the compiler", .stage = "compile"
    };
    assert_int_equal(fv_qnn_child_run(&r, &o, &err), FV_OK);
    assert_string_equal(r.bytes, "result");
    assert_non_null(strstr(r.said, "chatter\n"));
    assert_true(r.peak_bytes > 100000);
    fv_qnn_child_result_free(&r);
    memcpy(what, "fail", 5);
    assert_int_equal(fv_qnn_child_run(&r, &o, &err), FV_ERR_LIMIT);
    assert_string_equal(err.message, "too much of it");
    assert_int_equal(err.at, 17);
    fv_qnn_child_result_free(&r);
    memcpy(what, "exit", 5);
    assert_int_equal(fv_qnn_child_run(&r, &o, &err), FV_ERR_IO);
    assert_string_equal(err.message, "the compiler: ended before its result");
    fv_qnn_child_result_free(&r);
}

/* ---- what libraries there are ---- */

static void test_library_check(void **state)
{
    (void)state;
    fv_npu_library_options o = { .size = sizeof o, .qnn_dir = FV_FAKE_QNN };
    fv_npu_library_info info = { .size = sizeof info };
    fv_error err;
    fake_set("");
    assert_int_equal(fv_npu_check(&info, &o, &err), FV_OK);
    assert_string_equal(info.dir, FV_FAKE_QNN);
    assert_string_equal(info.named_by, "qnn_dir");
    assert_string_equal(info.build, "v2.99.0.fake");
    assert_true(info.htp && info.system && info.cpu && info.api_minor == 40);

    fake_set("die=backendGetBuildId;system_api=9.0");
    assert_int_equal(fv_npu_check(&info, &o, &err), FV_OK);
    assert_false(info.htp);
    assert_false(info.system);
    assert_non_null(strstr(info.htp_problem, "libQnnHtp.so: ended with signal 11"));
    assert_non_null(strstr(info.system_problem, "QNN system API 9.0.0"));
    info.size = 0;
    assert_int_equal(fv_npu_check(&info, &o, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_npu_check(NULL, &o, &err), FV_ERR_ARGUMENT);
}

static void test_socs(void **state)
{
    (void)state;
    fv_npu_soc_info soc = { .size = sizeof soc };
    size_t n = 0;
    while (fv_npu_soc(n, &soc))
        n++;
    assert_int_equal(n, 4);
    assert_true(fv_npu_soc_find("sm8750", &soc));
    assert_true(soc.soc_model == 69 && soc.htp_version == 79 && soc.vtcm_mb == 8);
    assert_true(fv_npu_soc_find("SM8850", &soc) && soc.soc_model == 87);
    assert_false(fv_npu_soc_find("SM875", &soc));
    assert_false(fv_npu_soc_find("", &soc));
    assert_false(fv_npu_soc_find(NULL, &soc));
    soc.size = 0;
    assert_false(fv_npu_soc(0, &soc));
    assert_false(fv_npu_soc(0, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_description),
        cmocka_unit_test(test_json_as_the_utility_writes_it),
        cmocka_unit_test(test_older_descriptions),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_names_that_are_not_utf8),
        cmocka_unit_test(test_interrupted_read),
        cmocka_unit_test(test_descriptions_of_others),
        cmocka_unit_test(test_description_allocations_fail),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_library_check),
        cmocka_unit_test(test_socs),
    };
    return cmocka_run_group_tests(tests, files_make, files_remove);
}
