/* Exports: structure of what is written, and what bad input leaves behind: nothing. */
#include "support/cm.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/half.h"
#include "base/outfile.h"
#include "base/sha256.h"
#include "fastvlm_tools.h"
#include "io/gguf.h"
#include "io/json.h"
#include "io/tensors.h"
#include "support/golden.h"

#define GOLDEN        FV_SOURCE_DIR "/tests/data/"
#define VARIANT(name) GOLDEN "variants/" name "/checkpoint"
#define TINY          GOLDEN "tiny/checkpoint"
#define PICTURE       GOLDEN "tiny/image.png"

static char *dir; /* a fresh folder for every test */

static int setup(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_remove(dir);
    return 0;
}

/* A path in the test's folder; up to four at a time. */
static const char *in(const char *name)
{
    static char path[4][600];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, 600, "%s/%s", dir, name);
    return p;
}

static size_t count(const char *folder)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static uint8_t *bytes(const char *path, size_t *n)
{
    fv_error err = { 0 };
    uint8_t *data = NULL;
    if (fv_read_file(&data, n, path, 64 << 20, &err) != FV_OK)
        fail_msg("%s", err.message);
    return data;
}

static void put(const char *path, const char *text)
{
    fv_error err = { 0 };
    assert_int_equal(fv_outfile_put(path, text, strlen(text), &err), FV_OK);
}

static void works(fv_status status, const fv_error *err)
{
    if (status != FV_OK)
        fail_msg("%s", err->message);
}

/* A failed export says part and leaves as many entries in the folder as there were. */
static void fails(fv_status status, fv_status wanted, const fv_error *err, const char *part,
                  size_t entries)
{
    assert_int_equal(status, wanted);
    if (!strstr(err->message, part))
        fail_msg("message \"%s\" does not hold \"%s\"", err->message, part);
    assert_int_equal(count(dir), entries);
}

/* ---- calibration ---- */

static void test_calib_values(void **state)
{
    (void)state;
    fv_error err = { 0 };
    const char *paths[] = { PICTURE };
    npy want = npy_read(GOLDEN "tiny", "pixels_u8");
    assert_int_equal(want.n, 256 * 256 * 3);
    for (int layout = 0; layout < 2; layout++)
        for (int dtype = 0; dtype < 2; dtype++) {
            fv_calib_options s = { .size = sizeof s,
                                   .paths = paths,
                                   .n_paths = 1,
                                   .image_size = 256,
                                   .layout = (fv_calib_layout)layout,
                                   .dtype = (fv_calib_dtype)dtype };
            fv_export_options force = { .size = sizeof force, .force = true };
            fv_calib_report result = { .size = sizeof result };
            size_t n;
            works(fv_export_calib(&s, in("calib"), &force, &result, &err), &err);
            assert_int_equal(result.n_samples, 1);
            assert_int_equal(result.n_skipped, 0);
            uint8_t *got = bytes(in("calib/sample_000.raw"), &n);
            assert_int_equal(n, dtype == FV_CALIB_F32 ? 4 * want.n : want.n);
            for (size_t i = 0; i < want.n; i++) {
                size_t at = layout == FV_CALIB_NCHW ? i % 3 * 65536 + i / 3 : i;
                float f;
                memcpy(&f, got + 4 * (dtype == FV_CALIB_F32 ? at : 0), 4);
                if (dtype == FV_CALIB_F32 ? f != (float)((double)want.data[i] * (1.0 / 255))
                                          : got[at] != (uint8_t)want.data[i])
                    fail_msg("layout %d, dtype %d: value %zu differs", layout, dtype, i);
            }
            fv_free(got);
            char *list = (char *)bytes(in("calib/input_list.txt"), &n), line[700];
            snprintf(line, sizeof line, "%s\n", in("calib/sample_000.raw"));
            assert_string_equal(list, line);
            fv_free(list);
        }
    npy_free(&want);
}

static void test_calib_selection(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_json *doc;
    size_t n;
    assert_int_equal(mkdir(in("p"), 0777), 0);
    for (int i = 0; i < 7; i++) { /* 3 and 5 are broken, 7 is no picture */
        char name[32], text[32] = "P6\n1 1\n255\nabc";
        snprintf(name, sizeof name, "p/%d.ppm", i);
        put(in(name), i == 3 || i == 5 ? "P6\n9" : text);
    }
    put(in("p/7.txt"), "no picture");
    char folder[600];
    snprintf(folder, sizeof folder, "%s", in("p"));
    const char *paths[] = { folder };
    fv_calib_options s = { .size = sizeof s, .paths = paths, .n_paths = 1, .image_size = 64 };
    fv_calib_report result = { .size = sizeof result };
    works(fv_export_calib(&s, in("all"), NULL, &result, &err), &err);
    assert_int_equal(result.n_samples, 5);
    assert_int_equal(result.n_skipped, 2);
    assert_int_equal(count(in("all")), 7);
    s.max_samples = 2; /* 0 and 3, which is broken */
    works(fv_export_calib(&s, in("two"), NULL, &result, &err), &err);
    assert_int_equal(result.n_samples, 1);
    works(fv_json_open(&doc, in("two/calib.json"), 1 << 20, &err), &err);
    const fv_json_value *samples = fv_json_member(fv_json_root(doc), "samples");
    const char *source = NULL, *hash = NULL;
    assert_int_equal(fv_json_count(samples), 1);
    assert_true(fv_json_as_string(fv_json_member(fv_json_at(samples, 0), "source"), &source));
    assert_string_equal(strrchr(source, '/'), "/0.ppm");
    assert_true(fv_json_as_string(fv_json_member(fv_json_at(samples, 0), "sha256"), &hash));
    uint8_t *data = bytes(in("two/sample_000.raw"), &n), digest[FV_SHA256_BYTES];
    char hex[2 * FV_SHA256_BYTES + 1];
    fv_sha256 sha;
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, data, n);
    fv_sha256_end(&sha, digest);
    fv_hex(hex, digest, sizeof digest);
    assert_string_equal(hash, hex);
    fv_free(data);
    fv_json_free(doc);
    s.max_samples = 0;
    s.min_samples = 6;
    fails(fv_export_calib(&s, in("few"), NULL, NULL, &err), FV_ERR_IO, &err,
          "5 of 7 images can be read, at least 6", 3);
}

static void test_calib_random(void **state)
{
    (void)state;
    fv_error err = { 0 };
    size_t n, m;
    fv_calib_options s = {
        .size = sizeof s, .n_random = 2, .image_size = 64, .layout = FV_CALIB_NCHW
    };
    works(fv_export_calib(&s, in("a"), NULL, NULL, &err), &err);
    works(fv_export_calib(&s, in("b"), NULL, NULL, &err), &err);
    uint8_t *a = bytes(in("a/sample_001.raw"), &n), *b = bytes(in("b/sample_001.raw"), &m);
    assert_int_equal(n, 64 * 64 * 12);
    assert_memory_equal(a, b, n); /* the same every time */
    double sum = 0;
    for (size_t i = 0; i < n / 4; i++) {
        float f;
        memcpy(&f, a + 4 * i, 4);
        assert_true(f >= 0 && f < 1);
        sum += f;
    }
    assert_true(sum / (double)(n / 4) > 0.49 && sum / (double)(n / 4) < 0.51);
    fv_free(b);
    b = bytes(in("a/sample_000.raw"), &m);
    assert_memory_not_equal(a, b, n);
    fv_free(a);
    fv_free(b);
}

static void test_calib_refuses(void **state)
{
    (void)state;
    fv_error err = { 0 };
    assert_int_equal(mkdir(in("empty"), 0777), 0);
    put(in("file"), "x");
    char empty[600];
    snprintf(empty, sizeof empty, "%s", in("empty"));
    const char *missing[] = { "/none/such.png" }, *picture[] = { PICTURE }, *none[] = { empty };
    fv_calib_options s = { .size = sizeof s, .image_size = 64 };
    fails(fv_export_calib(&s, in("o"), NULL, NULL, &err), FV_ERR_ARGUMENT, &err,
          "neither images nor random samples", 2);
    s.paths = none;
    s.n_paths = 1;
    fails(fv_export_calib(&s, in("o"), NULL, NULL, &err), FV_ERR_IO, &err, "contains no images", 2);
    s.paths = missing;
    fails(fv_export_calib(&s, in("o"), NULL, NULL, &err), FV_ERR_IO, &err, "no such image", 2);
    s.paths = picture;
    fails(fv_export_calib(&s, in("file"), NULL, NULL, &err), FV_ERR_IO, &err, "is a file", 2);
    fails(fv_export_calib(&s, in("with space"), NULL, NULL, &err), FV_ERR_ARGUMENT, &err, "space",
          2);
    s.image_size = 100;
    fails(fv_export_calib(&s, in("o"), NULL, NULL, &err), FV_ERR_ARGUMENT, &err, "multiple of 64",
          2);
    s.image_size = 64;
    s.n_random = 1;
    fails(fv_export_calib(&s, in("o"), NULL, NULL, &err), FV_ERR_ARGUMENT, &err,
          "both images and random samples were requested", 2);
}

/* ---- Genie's files ---- */

static void test_lut(void **state)
{
    (void)state;
    fv_error err = { 0 };
    size_t n;
    npy want = npy_read(GOLDEN "tiny", "inputs_embeds"); /* its first row: id 470, <|im_start|> */
    works(fv_export_lut(TINY, in("LUT.bin"), NULL, &err), &err);
    uint8_t *got = bytes(in("LUT.bin"), &n);
    assert_int_equal(n, 512 * 64 * 4);
    assert_memory_equal(got + 470 * 64 * 4, want.data, 64 * 4);
    fv_free(got);
    npy_free(&want);
    fails(fv_export_lut(TINY, dir, NULL, &err), FV_ERR_IO, &err, "is a directory", 1);
    fails(fv_export_lut("/none", in("x"), NULL, &err), FV_ERR_IO, &err, "no such model", 1);
    fails(fv_export_lut(PICTURE, in("x"), NULL, &err), FV_ERR_FORMAT, &err, "image.png", 1);
}

static void test_genie(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_json *doc;
    int64_t x;
    const char *text;
    works(fv_export_genie(TINY, NULL, in("g"), NULL, &err), &err);
    assert_int_equal(count(in("g")), 4);
    works(fv_json_open(&doc, in("g/genie_dialog.json"), 1 << 20, &err), &err);
    const fv_json_value *d = fv_json_member(fv_json_root(doc), "dialog"),
                        *c = fv_json_member(d, "context");
    static const char *const mandatory[] = { "version", "type", "context", "tokenizer", "engine" };
    for (size_t i = 0; i < FV_COUNT(mandatory); i++)
        assert_non_null(fv_json_member(d, mandatory[i]));
    assert_true(fv_json_as_int(fv_json_member(c, "eos-token"), &x) && x == 471);
    assert_true(fv_json_as_int(fv_json_member(c, "n-vocab"), &x) && x == 512);
    const fv_json_value *engine = fv_json_member(d, "engine");
    const fv_json_value *cpu = fv_json_member(fv_json_member(engine, "backend"),
                                              "QnnGenAiTransformer");
    assert_true(fv_json_as_int(fv_json_member(cpu, "n-kv-heads"), &x) && x == 2);
    assert_true(
        fv_json_as_string(fv_json_member(fv_json_member(d, "embedding"), "datatype"), &text));
    assert_string_equal(text, "float32");
    fv_json_free(doc);
    works(fv_json_open(&doc, in("g/genie_model.json"), 1 << 20, &err), &err);
    assert_true(
        fv_json_as_int(fv_json_member(fv_json_root(doc), "operation.rope_num_rotations"), &x) &&
        x == 16);
    fv_json_free(doc);
    works(fv_json_open(&doc, in("g/genie_dialog_htp.json"), 1 << 20, &err), &err);
    engine = fv_json_member(fv_json_member(fv_json_root(doc), "dialog"), "engine");
    const fv_json_value *htp = fv_json_member(fv_json_member(engine, "backend"), "QnnHtp");
    static const char *const of_htp[] = { "version",     "spill-fill-bufsize",
                                          "mmap-budget", "use-mmap",
                                          "cpu-mask",    "poll",
                                          "pos-id-dim",  "kv-dim" };
    for (size_t i = 0; i < FV_COUNT(of_htp); i++)
        assert_non_null(fv_json_member(htp, of_htp[i]));
    fv_json_free(doc);
    fv_genie_options s = { .size = sizeof s, .context = 100000 };
    fails(fv_export_genie(TINY, &s, in("h"), NULL, &err), FV_ERR_ARGUMENT, &err,
          "the context length is 100000", 1);
}

static void test_tokenizer(void **state)
{
    (void)state;
    fv_error err = { 0 };
    size_t n, m;
    /* from a packed file, which has no tokenizer.json to copy */
    works(fv_pack(TINY, in("m.gguf"), NULL, NULL, &err), &err);
    works(fv_export_tokenizer(in("m.gguf"), in("t.json"), NULL, &err), &err);
    uint8_t *got = bytes(in("t.json"), &n), *want = bytes(TINY "/tokenizer.json", &m);
    assert_int_equal(n, m);
    assert_memory_equal(got, want, n);
    fv_free(got);
    fv_free(want);
}

/* ---- checkpoints ---- */

static void same_tensors(const char *got_dir, const char *want_dir, const char *except)
{
    fv_error err = { 0 };
    fv_tensors *got, *want;
    works(fv_tensors_open(&got, got_dir, &err), &err);
    works(fv_tensors_open(&want, want_dir, &err), &err);
    for (size_t i = 0; i < fv_tensors_count(want); i++) {
        const fv_tensor *w = fv_tensors_at(want, i), *g = fv_tensors_find(got, w->name);
        if (!g)
            fail_msg("%s is missing", w->name);
        if (except && strstr(w->name, except))
            continue;
        if (g->type != w->type || g->n_dims != w->n_dims ||
            memcmp(g->shape, w->shape, sizeof(uint64_t) * (size_t)w->n_dims) ||
            memcmp(g->data, w->data, w->n_bytes))
            fail_msg("%s differs", w->name);
        if ((uintptr_t)g->data % (g->type == FV_TYPE_I64 ? 8 : 4) && g->n_elems > 1 &&
            g->type != FV_TYPE_BF16)
            fail_msg("%s is not aligned", w->name);
    }
    assert_int_equal(fv_tensors_count(got), fv_tensors_count(want));
    fv_tensors_free(got);
    fv_tensors_free(want);
}

static void same_answer(const char *model, const char *reference)
{
    ask a = { .dir = model,
              .image = PICTURE,
              .prompt = "What do you see?",
              .max_new = 12,
              .n_threads = 2,
              .fit = FV_FIT_PAD,
              .vision = FV_PRECISION_F32,
              .decoder = FV_PRECISION_F32 };
    answer got = run_ask(&a);
    a.dir = reference;
    answer want = run_ask(&a);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.ids, want.ids, got.n * sizeof *got.ids);
}

static void test_hf_layouts(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_hf_options llava = { .size = sizeof llava, .layout = FV_HF_LLAVA_QWEN2 },
                  fast = { .size = sizeof fast, .layout = FV_HF_FAST_VLM };
    works(fv_export_hf(VARIANT("base"), &llava, in("same"), NULL, &err), &err);
    same_tensors(in("same"), VARIANT("base"), NULL);
    works(fv_export_hf(VARIANT("base"), &fast, in("fast"), NULL, &err), &err);
    same_tensors(in("fast"), VARIANT("fast_vlm"), "embed_tokens"); /* that one has grown rows */
    same_answer(in("fast"), VARIANT("base"));
    works(fv_export_hf(VARIANT("fast_vlm"), &llava, in("back"), NULL, &err), &err);
    same_answer(in("back"), VARIANT("base"));
    works(fv_export_hf(VARIANT("stored_head"), &llava, in("head"), NULL, &err), &err);
    same_tensors(in("head"), VARIANT("stored_head"), NULL);
    works(fv_export_hf(VARIANT("sharded"), &fast, in("shards"), NULL, &err), &err);
    same_tensors(in("shards"), in("fast"), NULL);
    works(fv_export_hf(VARIANT("shape"), &fast, in("shape"), NULL, &err), &err);
    same_answer(in("shape"), VARIANT("shape"));
}

static void test_hf_fuses_and_unpacks(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_hf_options llava = { .size = sizeof llava, .layout = FV_HF_LLAVA_QWEN2 },
                  fast = { .size = sizeof fast, .layout = FV_HF_FAST_VLM };
    works(fv_export_hf(VARIANT("unfused"), &llava, in("fused"), NULL, &err), &err);
    same_answer(in("fused"), VARIANT("unfused"));
    works(fv_pack(VARIANT("base"), in("m.gguf"), NULL, NULL, &err), &err);
    works(fv_export_hf(in("m.gguf"), &fast, in("unpacked"), NULL, &err), &err);
    same_answer(in("unpacked"), VARIANT("base"));
    works(fv_export_hf(in("m.gguf"), &llava, in("unpacked2"), NULL, &err), &err);
    same_answer(in("unpacked2"), VARIANT("base"));
}

static float *floats_of(const fv_tensors *t, const char *name, size_t *n)
{
    const fv_tensor *x = fv_tensors_find(t, name);
    if (!x)
        fail_msg("%s is missing", name);
    float *f = malloc(x->n_elems * sizeof *f);
    *n = x->n_elems;
    for (size_t i = 0; i < *n; i++) {
        if (x->type == FV_TYPE_F32) {
            memcpy(&f[i], (const char *)x->data + 4 * i, 4);
        } else {
            uint16_t h;
            memcpy(&h, (const char *)x->data + 2 * i, 2);
            f[i] = x->type == FV_TYPE_BF16 ? fv_bf16_to_f32(h) : fv_f16_to_f32(h);
        }
    }
    return f;
}

/* int8 layers come back as the floats they stand for. */
static void test_hf_unpacks_int8(void **state)
{
    (void)state;
    static const char *const names[] = { "stages.1.blocks.0.mlp.fc1.weight",
                                         "stages.1.blocks.0.mlp.fc1.bias",
                                         "stages.2.blocks.0.mlp.fc2.weight",
                                         "stages.2.blocks.0.mlp.fc2.bias" };
    fv_error err = { 0 };
    const char *pictures[] = { PICTURE };
    fv_pack_options options;
    fv_hf_options fast = { .size = sizeof fast, .layout = FV_HF_FAST_VLM };
    fv_tensors *got, *want;
    fv_pack_options_default(&options);
    options.vision = FV_PRECISION_INT8;
    options.min_cosine = 0.5; /* this encoder is noise: keep all of it in int8 */
    options.paths = pictures;
    options.n_paths = 1;
    works(fv_pack(VARIANT("base"), in("m.gguf"), &options, NULL, &err), &err);
    works(fv_export_hf(in("m.gguf"), &fast, in("out"), NULL, &err), &err);
    works(fv_tensors_open(&got, in("out"), &err), &err);
    works(fv_tensors_open(&want, VARIANT("fast_vlm"), &err), &err);
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        char name[160];
        size_t n, m;
        snprintf(name, sizeof name, "model.vision_tower.timm_model.%s", names[i]);
        float *g = floats_of(got, name, &n), *w = floats_of(want, name, &m);
        assert_int_equal(n, m);
        /* The scale of every input channel is in the weights, too. What outputs lack on average is
         * in the biases: of this encoder, which is noise, a quarter of them. */
        double d = relative_l2(g, w, n), most = strstr(name, "bias") ? 0.5 : 0.1;
        if (!(d > 1e-6 && d < most))
            fail_msg("%s: relative L2 %g", name, d);
        free(g);
        free(w);
    }
    fv_tensors_free(got);
    fv_tensors_free(want);
}

/* A vocabulary that fills every row has none for "<image>": the embedding grows, by zeros. */
static void test_hf_grows(void **state)
{
    (void)state;
    static const char *const names[] = { "config.json", "model.safetensors", "vocab.json",
                                         "merges.txt" };
    fv_error err = { 0 };
    fv_hf_options fast = { .size = sizeof fast, .layout = FV_HF_FAST_VLM };
    fv_tensors *t, *from;
    assert_int_equal(mkdir(in("full"), 0777), 0);
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        char to[64];
        char *path = fv_path_join(VARIANT("base"), names[i]);
        snprintf(to, sizeof to, "full/%s", names[i]);
        assert_int_equal(symlink(path, in(to)), 0);
        fv_free(path);
    }
    put(in("full/added_tokens.json"), "{\"<|endoftext|>\": 280, \"<|im_start|>\": 281, "
                                      "\"<|im_end|>\": 282, \"<a>\": 283, \"<b>\": 284, "
                                      "\"<c>\": 285, \"<d>\": 286, \"<e>\": 287}");
    works(fv_export_hf(in("full"), &fast, in("grown"), NULL, &err), &err);
    works(fv_tensors_open(&t, in("grown"), &err), &err);
    works(fv_tensors_open(&from, VARIANT("base"), &err), &err);
    const fv_tensor *x = fv_tensors_find(t, "model.language_model.embed_tokens.weight");
    const fv_tensor *y = fv_tensors_find(from, "model.embed_tokens.weight");
    assert_int_equal(x->shape[0], 320);
    assert_memory_equal(x->data, y->data, y->n_bytes);
    for (uint64_t i = y->n_bytes; i < x->n_bytes; i++)
        assert_int_equal(((const uint8_t *)x->data)[i], 0);
    fv_tensors_free(t);
    fv_tensors_free(from);
    ask a = { .dir = in("grown"),
              .image = PICTURE,
              .prompt = "What do you see?",
              .max_new = 4,
              .n_threads = 2 };
    assert_true(run_ask(&a).n > 0);
}

static void test_hf_dtype(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_hf_options s = { .size = sizeof s, .layout = FV_HF_LLAVA_QWEN2, .dtype = FV_PRECISION_F32 };
    fv_tensors *t;
    fv_json *doc;
    const char *text;
    works(fv_export_hf(VARIANT("base"), &s, in("f32"), NULL, &err), &err);
    works(fv_tensors_open(&t, in("f32"), &err), &err);
    for (size_t i = 0; i < fv_tensors_count(t); i++)
        assert_true(fv_tensors_at(t, i)->type == FV_TYPE_F32 ||
                    fv_tensors_at(t, i)->type == FV_TYPE_I64);
    fv_tensors_free(t);
    works(fv_json_open(&doc, in("f32/config.json"), 1 << 20, &err), &err);
    assert_true(fv_json_as_string(fv_json_member(fv_json_root(doc), "torch_dtype"), &text));
    assert_string_equal(text, "float32");
    fv_json_free(doc);
    same_answer(in("f32"), VARIANT("base"));
    s.dtype = (fv_precision)77;
    fails(fv_export_hf(VARIANT("base"), &s, in("x"), NULL, &err), FV_ERR_ARGUMENT, &err,
          "dtype is unknown; expected auto, f32, bf16 or f16", 1);
}

/* ---- GGUF ---- */

static void test_gguf(void **state)
{
    (void)state;
    static const fv_type types[] = { FV_TYPE_F16, FV_TYPE_Q8_0, FV_TYPE_Q4_0, FV_TYPE_BF16,
                                     FV_TYPE_F32 };
    for (int i = 0; i < 5; i++) {
        fv_error err = { 0 };
        fv_gguf *g;
        const fv_gguf_value *tokens;
        int64_t x;
        works(fv_export_gguf(TINY, (fv_decoder_type)i, in("m.gguf"), NULL, &err), &err);
        works(fv_gguf_open(&g, in("m.gguf"), &err), &err);
        works(fv_gguf_check_hashes(g, NULL, &err), &err);
        assert_true(fv_gguf_string_is(g, "general.architecture", "qwen2"));
        assert_true(fv_gguf_string_is(g, "tokenizer.ggml.pre", "qwen2"));
        works(fv_gguf_int(g, "qwen2.attention.head_count_kv", 2, 2, &x, &err), &err);
        works(fv_gguf_int(g, "tokenizer.ggml.eos_token_id", 471, 471, &x, &err), &err);
        works(fv_gguf_array(g, "tokenizer.ggml.tokens", FV_GGUF_STRING, &tokens, &err), &err);
        assert_int_equal(tokens->n, 512); /* a row each, whether it has a token or not */
        const fv_tensors *t = fv_gguf_tensors(g);
        assert_int_equal(fv_tensors_count(t), 3 + 3 * 12);
        const fv_tensor *embed = fv_tensors_find(t, "token_embd.weight"),
                        *down = fv_tensors_find(t, "blk.2.ffn_down.weight");
        const fv_tensor *q = fv_tensors_find(t, "blk.1.attn_q.weight"),
                        *head = fv_tensors_find(t, "output.weight");
        assert_non_null(fv_tensors_find(t, "blk.0.attn_k.bias"));
        assert_true(embed && down && q && head);
        assert_int_equal(q->type, types[i]);
        assert_int_equal(embed->type, types[i] == FV_TYPE_Q4_0 ? FV_TYPE_Q8_0 : types[i]);
        /* rows of 176 */
        assert_int_equal(down->type, fv_type_is_block(types[i]) ? FV_TYPE_F16 : types[i]);
        assert_int_equal(down->shape[0], 64);
        assert_int_equal(down->shape[1], 176);
        fv_gguf_free(g);
    }
    fv_error err = { 0 };
    fails(fv_export_gguf(TINY, FV_DECODER_F16, dir, NULL, &err), FV_ERR_IO, &err, "is a directory",
          1);
    fails(fv_export_gguf(TINY, (fv_decoder_type)9, in("x"), NULL, &err), FV_ERR_ARGUMENT, &err,
          "unknown type", 1);
    works(fv_export_gguf(VARIANT("base"), FV_DECODER_F16, in("tied.gguf"), NULL, &err), &err);
    fv_gguf *g;
    works(fv_gguf_open(&g, in("tied.gguf"), &err), &err);
    assert_null(fv_tensors_find(fv_gguf_tensors(g), "output.weight"));
    fv_gguf_free(g);
}

/* ---- the lot ---- */

static bool stop_at_once(void *user, const char *stage, double done)
{
    (void)stage;
    (void)done;
    return ++*(int *)user > 20;
}

static void test_all(void **state)
{
    (void)state;
    fv_error err = { 0 };
    const char *pictures[] = { PICTURE };
    fv_calib_options calib = {
        .size = sizeof calib, .paths = pictures, .n_paths = 1, .image_size = 64
    };
    fv_all_options s = { .size = sizeof s,
                         .parts = FV_ALL_CALIB | FV_ALL_GENIE | FV_ALL_GGUF | FV_ALL_HF,
                         .calib = &calib };
    fv_json *doc;
    works(fv_export_all(VARIANT("base"), &s, in("lot"), NULL, &err), &err);
    works(fv_json_open(&doc, in("lot/manifest.json"), 1 << 20, &err), &err);
    const fv_json_value *files = fv_json_member(fv_json_root(doc), "files");
    assert_true(fv_json_count(files) > 25);
    for (size_t i = 0; i < fv_json_count(files); i++) {
        const char *name, *hash;
        char path[64 + 64], hex[2 * FV_SHA256_BYTES + 1];
        uint8_t digest[FV_SHA256_BYTES];
        int64_t size;
        size_t n;
        fv_sha256 sha;
        assert_true(fv_json_as_string(fv_json_member(fv_json_at(files, i), "name"), &name));
        assert_true(fv_json_as_string(fv_json_member(fv_json_at(files, i), "sha256"), &hash));
        assert_true(fv_json_as_int(fv_json_member(fv_json_at(files, i), "bytes"), &size));
        snprintf(path, sizeof path, "lot/%s", name);
        uint8_t *data = bytes(in(path), &n);
        assert_int_equal(n, size);
        fv_sha256_begin(&sha);
        fv_sha256_add(&sha, data, n);
        fv_sha256_end(&sha, digest);
        fv_hex(hex, digest, sizeof digest);
        assert_string_equal(hash, hex);
        fv_free(data);
    }
    fv_json_free(doc);
    size_t n;
    /* where the file ended up */
    char *list = (char *)bytes(in("lot/calib/input_list.txt"), &n), line[700];
    snprintf(line, sizeof line, "%s\n", in("lot/calib/sample_000.raw"));
    assert_string_equal(list, line);
    fv_free(list);

    int calls = 0;
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = stop_at_once, .user = &calls };
    fv_export_options cancel = { .size = sizeof cancel, .callbacks = &callbacks };
    fails(fv_export_all(VARIANT("base"), &s, in("other"), &cancel, &err), FV_ERR_CANCELLED, &err,
          "cancelled during", 1);
    fails(fv_export_all(VARIANT("base"), &s, in("lot"), NULL, &err), FV_ERR_IO, &err, "not empty",
          1);
}

/* Every allocation fails once: an error, nothing left behind, nothing leaked. */
static void test_memory(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    fv_hf_options hf = { .size = sizeof hf, .layout = FV_HF_FAST_VLM };
    for (int which = 0; which < 2; which++) {
        fv_status status = FV_ERR_MEMORY;
        for (uint64_t i = 0; status != FV_OK; i += i < 40 ? 1 : 37) {
            fv_error err = { 0 };
            fv_mem_fail_after(i);
            status = which ? fv_export_gguf(VARIANT("base"), FV_DECODER_Q8_0, in("m"), NULL, &err)
                           : fv_export_hf(VARIANT("base"), &hf, in("m"), NULL, &err);
            fv_mem_fail_after(UINT64_MAX);
            assert_int_equal(fv_mem_live(), live);
            assert_int_equal(count(dir), status == FV_OK);
            assert_true(i < 100000);
        }
        temp_remove(dir);
        dir = temp_dir();
        live = fv_mem_live();
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_calib_values),
        TEST(test_calib_selection),
        TEST(test_calib_random),
        TEST(test_calib_refuses),
        TEST(test_lut),
        TEST(test_genie),
        TEST(test_tokenizer),
        TEST(test_hf_layouts),
        TEST(test_hf_fuses_and_unpacks),
        TEST(test_hf_unpacks_int8),
        TEST(test_hf_grows),
        TEST(test_hf_dtype),
        TEST(test_gguf),
        TEST(test_all),
        TEST(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
