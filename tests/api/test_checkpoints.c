/* Checkpoints as people have them: tensors that nobody uses, JSON as Python writes it, end tokens,
 * images of another processor, a directory in another encoding; and memory that runs out while one
 * is opened. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "fastvlm_tools.h"
#include "model/model.h"
#include "support/golden.h"

#define DATA   FV_SOURCE_DIR "/tests/data/"
#define TINY   DATA "tiny/checkpoint"
#define FAST   DATA "variants/fast_vlm/checkpoint"
#define SHARDS DATA "variants/sharded/checkpoint"
#define IMAGE  DATA "tiny/image.png"

static char *work;

static int make_work(void **state)
{
    (void)state;
    work = temp_dir();
    return 0;
}

static int remove_work(void **state)
{
    (void)state;
    temp_remove(work);
    return 0;
}

/* ---- a copy of a checkpoint with one thing changed ---- */

static const char *const files[] = { "config.json",
                                     "generation_config.json",
                                     "preprocessor_config.json",
                                     "processor_config.json",
                                     "special_tokens_map.json",
                                     "added_tokens.json",
                                     "tokenizer_config.json",
                                     "tokenizer.json",
                                     "vocab.json",
                                     "merges.txt",
                                     "model.safetensors",
                                     "model.safetensors.index.json",
                                     "model-00001-of-00003.safetensors",
                                     "model-00002-of-00003.safetensors",
                                     "model-00003-of-00003.safetensors" };

static void put_file(const char *dir, const char *name, const void *data, size_t n)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

/* A file of dir with a NUL behind it, in a block to fv_free; NULL: there is none. */
static uint8_t *get_file(const char *dir, const char *name, size_t *n)
{
    char path[1200];
    uint8_t *data = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (fv_is_file(path))
        assert_int_equal(fv_read_file(&data, n, path, 64 << 20, NULL), FV_OK);
    return data;
}

/* In work, under this name; the copy before it is overwritten. */
static const char *copy_of(const char *from, const char *name)
{
    static char dir[1100];
    snprintf(dir, sizeof dir, "%s/%s", work, name);
    mkdir(dir, 0755);
    for (size_t i = 0; i < FV_COUNT(files); i++) {
        char path[1200];
        size_t n = 0;
        uint8_t *data = get_file(from, files[i], &n);
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
        if (data)
            put_file(dir, files[i], data, n);
        fv_free(data);
    }
    return dir;
}

/* The first `from` in a file becomes `to`. */
static void replace(const char *dir, const char *name, const char *from, const char *to)
{
    size_t n = 0, n_to = strlen(to), n_from = strlen(from);
    uint8_t *data = get_file(dir, name, &n);
    assert_non_null(data);
    char *found = memmem(data, n, from, n_from);
    if (!found)
        fail_msg("%s has no %s", name, from);
    size_t before = (size_t)(found - (char *)data);
    char *changed = malloc(n - n_from + n_to);
    memcpy(changed, data, before);
    memcpy(changed + before, to, n_to);
    memcpy(changed + before + n_to, data + before + n_from, n - before - n_from);
    put_file(dir, name, changed, n - n_from + n_to);
    free(changed);
    fv_free(data);
}

/* Another header of model.safetensors: entry goes in front of the first, n_data zeros behind the
 * data; @ in it is where they begin. Or, with from, a piece of the header replaced by as many
 * bytes. */
static void edit_header(const char *dir, const char *name, const char *entry, size_t n_data)
{
    size_t n = 0;
    uint8_t *data = get_file(dir, name, &n);
    uint64_t header = 0;
    char text[600], begin[24];
    assert_non_null(data);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | data[i];
    snprintf(begin, sizeof begin, "%zu,%zu", n - 8 - (size_t)header,
             n - 8 - (size_t)header + n_data);
    const char *at = strchr(entry, '@');
    int n_text = at ? snprintf(text, sizeof text, "{%.*s%s%s,", (int)(at - entry), entry, begin,
                               at + 1)
                    : snprintf(text, sizeof text, "{%s,", entry);
    size_t n_more = (size_t)n_text - 1, padded = (n_more + 7) / 8 * 8;
    uint8_t *out = calloc(n + padded + n_data, 1);
    uint64_t length = header + padded;
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(length >> (8 * i));
    memcpy(out + 8, text, (size_t)n_text);
    memset(out + 8 + n_text, ' ', padded - n_more);
    memcpy(out + 8 + n_text + (padded - n_more), data + 9, n - 9);
    put_file(dir, name, out, n + padded + n_data);
    free(out);
    fv_free(data);
}

static answer ask_tiny(const char *dir, const char *prompt, int n)
{
    ask a = { .dir = dir,
              .image = IMAGE,
              .prompt = prompt,
              .vision = FV_PRECISION_F32,
              .decoder = FV_PRECISION_F32,
              .max_new = n };
    return run_ask(&a);
}

static void same_answer(const answer *got, const answer *want, const char *what)
{
    if (got->n != want->n || memcmp(got->ids, want->ids, got->n * sizeof *got->ids))
        fail_msg("%s: another answer", what);
}

static void opens_not(const char *dir, fv_status wanted, const char *part)
{
    fv_engine *e = NULL;
    fv_error err = { 0 };
    fv_status status = fv_engine_open(&e, dir, NULL, &err);
    if (status != wanted || !strstr(err.message, part))
        fail_msg("status %s, \"%s\"; expected \"%s\"", fv_status_name(status), err.message, part);
}

/* ---- tensors that nobody uses ---- */

#define UNUSED(dtype, shape) \
    "\"some.buffer\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[@]}"

static const struct unused {
    const char *entry;
    size_t n_data;
} unused[] = {
    { UNUSED("BOOL", "8"), 8 },      { UNUSED("F64", "2,4"), 64 },
    { UNUSED("U64", "1"), 8 },       { UNUSED("I16", "4"), 8 },
    { UNUSED("U32", ""), 4 },        { UNUSED("F8_E4M3", "16"), 16 },
    { UNUSED("F8_E5M2", "16"), 16 }, { UNUSED("F4", "16"), 8 },
    { UNUSED("C64", "3"), 24 },      { UNUSED("I8", "5,1"), 5 },
    { UNUSED("F99_NEW", "7"), 13 },  { UNUSED("F32", "1,2,1,2,1"), 16 },
    { UNUSED("BF16", "0"), 0 },      { UNUSED("F16", "1,1,1,1,1,1,1,1,1,3"), 6 },
    { UNUSED("I32", "9,0,4"), 0 },   { UNUSED("F32", "16"), 64 }, /* inv_freq of old ones */
};

static void test_unused_tensors(void **state)
{
    (void)state;
    answer want = ask_tiny(TINY, "What is it?", 6);
    for (size_t i = 0; i < FV_COUNT(unused); i++) {
        const char *dir = copy_of(TINY, "unused");
        edit_header(dir, "model.safetensors", unused[i].entry, unused[i].n_data);
        answer got = ask_tiny(dir, "What is it?", 6);
        same_answer(&got, &want, unused[i].entry);
        /* and it is packed, and shown */
        char packed[1200];
        fv_error err = { 0 };
        snprintf(packed, sizeof packed, "%s/unused.gguf", work);
        if (i < 3 && fv_pack(dir, packed, NULL, NULL, &err) != FV_OK)
            fail_msg("%s: %s", unused[i].entry, err.message);
        fv_engine *e = NULL;
        fv_tensor_info t = { .size = sizeof t };
        assert_int_equal(fv_engine_open(&e, dir, NULL, &err), FV_OK);
        bool found = false;
        for (size_t k = 0; !found && fv_engine_tensor(e, k, &t); k++)
            found = !strcmp(t.name, "some.buffer");
        assert_true(found && !t.used && t.n_dims <= 4);
        fv_model_info info = { .size = sizeof info };
        fv_engine_info(e, &info);
        assert_string_equal(info.weights_type, "BF16");
        fv_engine_free(e);
    }
    /* in a shard */
    want = ask_tiny(SHARDS, "What is it?", 6);
    const char *dir = copy_of(SHARDS, "unused");
    edit_header(dir, "model-00002-of-00003.safetensors", UNUSED("BOOL", "8"), 8);
    answer got = ask_tiny(dir, "What is it?", 6);
    same_answer(&got, &want, "a shard");
}

/* A type that weights cannot have is refused where a tensor is bound, by name. */
static void test_bound_tensors(void **state)
{
    (void)state;
    static const char *const types[] = { "I16 ", "U16 ", "F99 " };
    for (size_t i = 0; i < FV_COUNT(types); i++) {
        const char *dir = copy_of(TINY, "bound");
        char to[80], part[80];
        /* the same length, so that everything stays where it is */
        snprintf(to, sizeof to, "\"model.norm.weight\":{\"dtype\":%s\"%.3s\"", " ", types[i]);
        replace(dir, "model.safetensors", "\"model.norm.weight\":{\"dtype\":\"BF16\"", to);
        snprintf(part, sizeof part,
                 "tensor model.norm.weight has %.3s [64], expected F32, F16 or BF16", types[i]);
        opens_not(dir, FV_ERR_FORMAT, part);
    }
}

/* ---- JSON as Python writes it ---- */

static void test_json_of_python(void **state)
{
    (void)state;
    static const char *const values[] = { "1000000000000000019884624838656",
                                          "-99999999999999999999",
                                          "Infinity",
                                          "-Infinity",
                                          "NaN",
                                          "1e999",
                                          "\"\\ud83d\"",
                                          "\"a\\u0000b\"",
                                          "[NaN, {\"a\": 18446744073709551616}]" };
    static const struct place {
        const char *from, *file;
    } places[] = {
        { TINY, "config.json" },
        { TINY, "tokenizer_config.json" },
        { TINY, "special_tokens_map.json" },
        { TINY, "tokenizer.json" },
        { FAST, "config.json" },
        { FAST, "generation_config.json" },
        { FAST, "preprocessor_config.json" },
        { FAST, "processor_config.json" },
        { SHARDS, "model.safetensors.index.json" },
    };
    for (size_t p = 0; p < FV_COUNT(places); p++) {
        answer want = ask_tiny(places[p].from, "What is it?", 3);
        for (size_t v = 0; v < FV_COUNT(values); v++) {
            char member[160];
            const char *dir = copy_of(places[p].from, "python");
            snprintf(member, sizeof member, "{\"some_key\": %s,", values[v]);
            replace(dir, places[p].file, "{", member);
            answer got = ask_tiny(dir, "What is it?", 3);
            same_answer(&got, &want, member);
        }
    }
    const char *dir = copy_of(TINY, "python");
    edit_header(dir, "model.safetensors",
                "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[@],\"y\":[NaN,1e999]}", 1);
    answer want = ask_tiny(TINY, "What is it?", 3), got = ask_tiny(dir, "What is it?", 3);
    same_answer(&got, &want, "a header");
    /* used: refused, by file and key */
    dir = copy_of(TINY, "python");
    replace(dir, "config.json", "\"hidden_size\": 64",
            "\"hidden_size\": 1000000000000000019884624838656");
    opens_not(dir, FV_ERR_FORMAT,
              "config.json: hidden_size: expected an integer in [2, 65536], found "
              "1000000000000000019884624838656");
    dir = copy_of(TINY, "python");
    replace(dir, "config.json", "\"rope_theta\": 1000000.0", "\"rope_theta\": Infinity");
    opens_not(dir, FV_ERR_FORMAT,
              "config.json: rope_theta: expected a number in [1, 1e+12], found Infinity");
}

/* ---- the place of an image ---- */

static void test_image_token(void **state)
{
    (void)state;
    const char *dir = copy_of(FAST, "image");
    replace(dir, "config.json", "\"image_token_index\": 283", "\"image_token_index\": 72");
    opens_not(dir, FV_ERR_FORMAT, "image_token_index is 72; expected 283, the tokenizer's <image>");
    dir = copy_of(FAST, "image"); /* under its other name */
    replace(dir, "config.json", "\"image_token_index\"", "\"image_token_id\"");
    answer want = ask_tiny(FAST, "What?", 3), got = ask_tiny(dir, "What?", 3);
    same_answer(&got, &want, "image_token_id");
}

/* ---- end tokens ---- */

static void test_end_tokens(void **state)
{
    (void)state;
    static const char prompt[] = "What?";
    answer fast = ask_tiny(FAST, prompt, 6), tiny = ask_tiny(TINY, prompt, 6);
    assert_int_equal(fast.n, 6);
    for (int list = 0; list < 2; list++) {
        char eos[80];
        const char *dir = copy_of(FAST, "eos");
        snprintf(eos, sizeof eos, list ? "\"eos_token_id\": [282, %d]" : "\"eos_token_id\": %d",
                 (int)fast.ids[2]);
        replace(dir, "generation_config.json", "\"eos_token_id\": 282", eos);
        answer got = ask_tiny(dir, prompt, 6);
        assert_int_equal(got.finish, FV_FINISH_STOP);
        if (got.n > 3 || got.n < 2 || memcmp(got.ids, fast.ids, 2 * sizeof *got.ids))
            fail_msg("%zu tokens", got.n);
        /* the same from a packed file */
        char packed[1200];
        fv_error err = { 0 };
        fv_pack_options o;
        fv_pack_options_default(&o);
        o.vision = o.decoder = FV_PRECISION_BF16;
        snprintf(packed, sizeof packed, "%s/eos.gguf", work);
        if (fv_pack(dir, packed, &o, NULL, &err) != FV_OK)
            fail_msg("%s", err.message);
        answer again = ask_tiny(packed, prompt, 6);
        same_answer(&again, &got, "packed");
    }
    /* Apple's program moves that file out of the way */
    char eos[80];
    const char *dir = copy_of(TINY, "eos");
    snprintf(eos, sizeof eos, "{\"eos_token_id\": %d,", (int)tiny.ids[2]);
    replace(dir, "generation_config.json", "{", eos);
    answer got = ask_tiny(dir, prompt, 6);
    same_answer(&got, &tiny, "llava_qwen2");
}

/* ---- a packed file computes what its checkpoint does ---- */

static void test_recipe_is_packed(void **state)
{
    (void)state;
    static const struct edit {
        const char *from, *to;
    } edits[] = {
        { "\"resample\": 3", "\"resample\": 2" },
        { "\"rescale_factor\": 0.00392156862745098", "\"rescale_factor\": 0.0078125" },
        { "\"shortest_edge\": 256", "\"shortest_edge\": 300" },
        { "\"do_normalize\": true", "\"do_normalize\": true, \"x\": NaN" },
        { "\"image_std\": [\n    1.0", "\"image_std\": [\n    0.27" },
    };
    answer plain = ask_tiny(FAST, "What?", 6);
    for (size_t i = 0; i < FV_COUNT(edits); i++) {
        const char *dir = copy_of(FAST, "recipe");
        char packed[1200];
        fv_error err = { 0 };
        fv_pack_options o;
        fv_pack_options_default(&o);
        o.vision = o.decoder = FV_PRECISION_F32;
        snprintf(packed, sizeof packed, "%s/recipe.gguf", work);
        replace(dir, "preprocessor_config.json", edits[i].from, edits[i].to);
        if (fv_pack(dir, packed, &o, NULL, &err) != FV_OK)
            fail_msg("%s", err.message);
        answer a = ask_tiny(dir, "What?", 6), b = ask_tiny(packed, "What?", 6);
        same_answer(&b, &a, edits[i].to);
        if (i == 1 || i == 4) /* no small change */
            assert_memory_not_equal(a.ids, plain.ids, sizeof a.ids);
        if (i == 3)
            same_answer(&a, &plain, "a key that nobody reads");
    }
}

/* A checkpoint whose reference cannot pad, or has other images, is no llava_qwen2 checkpoint. */
static void test_recipe_is_not_llavas(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_hf_options o;
    char out[1200];
    fv_hf_options_default(&o);
    o.layout = FV_HF_LLAVA_QWEN2;
    const char *dir = copy_of(FAST, "recipe");
    snprintf(out, sizeof out, "%s/hf", work);
    replace(dir, "preprocessor_config.json", "\"image_std\": [\n    1.0",
            "\"image_std\": [\n    0.27");
    assert_int_equal(fv_export_hf(dir, &o, out, NULL, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "image_std"));
}

/* ---- chat templates ---- */

static char heard[1000];

static void hear(void *user, fv_log_level level, const char *message)
{
    (void)user;
    if (level == FV_LOG_WARNING)
        snprintf(heard + strlen(heard), sizeof heard - strlen(heard), "%s\n", message);
}

/* One that is not FastVLM's is not carried out, and that is said. */
static void test_chat_templates(void **state)
{
    (void)state;
    static const struct template_case {
        const char *from, *file, *text; /* text NULL: as it is */
        bool warned;
    } table[] = {
        { FAST, "chat_template.jinja", NULL, false },
        { FAST, "chat_template.jinja", "{{ messages[0].content }}", true },
        { FAST, "chat_template.jinja", "", true },
        { FAST, "tokenizer_config.json", "{\"chat_template\": \"{{ 'You are a pirate.' }}\"}",
          true },
        { FAST, "tokenizer_config.json", "{\"chat_template\": null}", false },
        /* the program of llava_qwen2 has its conversation in its code */
        { TINY, "tokenizer_config.json", "{\"chat_template\": \"{{ 'You are a pirate.' }}\"}",
          false },
        { TINY, "chat_template.jinja", "{{ messages[0].content }}", false },
    };
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        const char *dir = copy_of(table[i].from, "template");
        fv_engine *e = NULL;
        fv_engine_options o;
        fv_error err = { 0 };
        size_t n = 0;
        uint8_t *own = get_file(table[i].from, table[i].file, &n);
        if (table[i].text)
            put_file(dir, table[i].file, table[i].text, strlen(table[i].text));
        else
            put_file(dir, table[i].file, own, n);
        fv_free(own);
        fv_engine_options_default(&o);
        o.callbacks = &(fv_callbacks){ .size = sizeof(fv_callbacks), .log = hear };
        heard[0] = 0;
        if (fv_engine_open(&e, dir, &o, &err) != FV_OK)
            fail_msg("%s", err.message);
        fv_engine_free(e);
        if (table[i].warned != (strstr(heard, "chat template is another than FastVLM's") != NULL))
            fail_msg("row %zu: heard \"%s\"", i, heard);
        char path[1200];
        snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
        unlink(path);
    }
}

/* ---- files that llava_qwen2 leaves unread ---- */

/* Apple's program has images and generation in its code. What a file states otherwise is not done,
 * and that is said. */
static void test_unread_files(void **state)
{
    (void)state;
    static const struct unread_case {
        const char *file, *from, *to;
        const char *says; /* NULL: nothing */
    } table[] = {
        { "preprocessor_config.json", "{", "{", NULL },
        { "preprocessor_config.json", "\"resample\": 3", "\"resample\": 2", "resample differs" },
        { "preprocessor_config.json", "0.00392156862745098", "0.0078125",
          "rescale_factor differs" },
        { "preprocessor_config.json", "0.00392156862745098", "0.0039215686274", NULL },
        { "preprocessor_config.json", "\"do_rescale\": true", "\"do_rescale\": false",
          "rescale_factor differs" },
        { "preprocessor_config.json", "\"image_mean\": [\n    0.0", "\"image_mean\": [\n    0.5",
          "image_mean differs" },
        { "preprocessor_config.json", "\"image_std\": [\n    1.0", "\"image_std\": [\n    0.27",
          "image_std differs" },
        { "preprocessor_config.json", "\"shortest_edge\": 256", "\"shortest_edge\": 288",
          "size differs" },
        { "preprocessor_config.json", "\"height\": 256,\n    \"width\": 256",
          "\"height\": 192,\n    \"width\": 192", "crop_size differs" },
        { "preprocessor_config.json", "\"height\": 256,\n    \"width\": 256",
          "\"height\": 224,\n    \"width\": 224", "crop_size is 224; expected a multiple of 64" },
        { "preprocessor_config.json", "\"CLIPImageProcessor\"", "\"ViTImageProcessor\"",
          "image_processor_type is \"ViTImageProcessor\"" },
        { "preprocessor_config.json", "{", "", "preprocessor_config.json: " },
        { "generation_config.json", "{", "{\"eos_token_id\": [471, 469],", NULL },
        { "generation_config.json", "{", "{\"eos_token_id\": 72,", "eos_token_id differs" },
        { "generation_config.json", "{", "{\"eos_token_id\": [471, 7],", "eos_token_id differs" },
        { "generation_config.json", "{", "{\"num_beams\": 4,", "num_beams is 4; expected 1" },
        { "generation_config.json", "{", "{\"repetition_penalty\": 1.1,", NULL },
        { "generation_config.json", "true,", "tru", "generation_config.json: " },
    };
    answer want = ask_tiny(TINY, "What is it?", 3);
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        const char *dir = copy_of(TINY, "unread");
        char begin[1200];
        fv_engine *e = NULL;
        fv_engine_options o;
        fv_error err = { 0 };
        replace(dir, table[i].file, table[i].from, table[i].to);
        fv_engine_options_default(&o);
        o.callbacks = &(fv_callbacks){ .size = sizeof(fv_callbacks), .log = hear };
        heard[0] = 0;
        if (fv_engine_open(&e, dir, &o, &err) != FV_OK)
            fail_msg("row %zu: %s", i, err.message);
        fv_engine_free(e);
        snprintf(begin, sizeof begin, "%s/%s: ", dir, table[i].file);
        if (table[i].says ? strncmp(heard, begin, strlen(begin)) || !strstr(heard, table[i].says) ||
                                !strstr(heard, "the file is not followed, as in Apple's code\n")
                          : heard[0])
            fail_msg("row %zu: heard \"%s\"", i, heard);
        answer got = ask_tiny(dir, "What is it?", 3);
        same_answer(&got, &want, table[i].to);
    }
}

/* ---- what is in force, asked for ---- */

static void test_settings_in_force(void **state)
{
    (void)state;
    const char *dir = copy_of(FAST, "settings");
    fv_engine *e = NULL;
    fv_error err = { 0 };
    replace(dir, "preprocessor_config.json", "\"resample\": 3", "\"resample\": 2");
    replace(dir, "preprocessor_config.json", "0.00392156862745098", "0.0078125");
    replace(dir, "preprocessor_config.json", "\"image_mean\": [\n    0.0",
            "\"image_mean\": [\n    0.5");
    replace(dir, "preprocessor_config.json", "\"shortest_edge\": 256", "\"shortest_edge\": 320");
    replace(dir, "generation_config.json", "\"eos_token_id\": 282",
            "\"eos_token_id\": [72, 282, 280]");
    for (int side = 256; side <= 512; side += 256) {
        fv_model_info m = { .size = sizeof m };
        fv_engine_options o;
        fv_engine_options_default(&o);
        o.image_size = side;
        if (fv_engine_open(&e, dir, &o, &err) != FV_OK)
            fail_msg("%s", err.message);
        fv_engine_info(e, &m);
        assert_int_equal(m.fit, FV_FIT_CROP);
        assert_string_equal(m.filter, "bilinear");
        assert_int_equal(m.scaled_short_edge, 320 * side / 256);
        assert_int_equal(m.scaled_width + m.scaled_height, 0);
        assert_true(m.rescale == 0.0078125);
        assert_true(m.image_mean[0] == 0.5f && m.image_mean[1] == 0);
        assert_true(m.image_std[0] == 1);
        assert_int_equal(m.n_end_tokens, 3);
        assert_int_equal(m.end_tokens[0], 72);
        assert_int_equal(m.end_tokens[1], 282);
        assert_int_equal(m.end_tokens[2], 280);
        fv_engine_free(e);
    }
    fv_model_info m = { .size = sizeof m };
    assert_int_equal(fv_engine_open(&e, TINY, NULL, &err), FV_OK);
    fv_engine_info(e, &m);
    assert_true(m.fit == FV_FIT_PAD && !strcmp(m.filter, "bicubic") && !m.scaled_short_edge);
    assert_true(m.rescale == 1.0 / 255 && m.image_mean[2] == 0 && m.image_std[2] == 1);
    fv_engine_free(e);
}

/* ---- parts that the configuration does not have, and that no file has ---- */

static void test_layers(void **state)
{
    (void)state;
    const char *dir = copy_of(TINY, "layers");
    fv_engine *e = NULL;
    fv_engine_options o;
    fv_error err = { 0 };
    fv_engine_options_default(&o);
    o.callbacks = &(fv_callbacks){ .size = sizeof(fv_callbacks), .log = hear };
    for (int less = 0; less < 2; less++) {
        if (less)
            replace(dir, "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
        heard[0] = 0;
        if (fv_engine_open(&e, dir, &o, &err) != FV_OK)
            fail_msg("%s", err.message);
        fv_engine_free(e);
        bool said = strstr(heard, "num_hidden_layers is 2; the checkpoint has a layer 2");
        if (said != less || (heard[0] && !less))
            fail_msg("heard \"%s\"", heard);
    }
}

static void test_missing_parts(void **state)
{
    (void)state;
    char path[1200], begin[1200];
    const char *dir = copy_of(TINY, "missing");
    fv_engine *e = NULL;
    fv_error err = { 0 };
    replace(dir, "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    snprintf(begin, sizeof begin, "%s: tensor model.layers.3.", dir);
    opens_not(dir, FV_ERR_FORMAT, begin);
    static const char *const tokenizer[] = { "tokenizer.json", "vocab.json" };
    for (size_t i = 0; i < FV_COUNT(tokenizer); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, tokenizer[i]);
        unlink(path);
    }
    assert_int_equal(fv_engine_open(&e, dir, NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, ": no tokenizer; expected tokenizer.json, or vocab.json"));
}

/* ---- messages name a file with its directory ---- */

static void test_files_by_path(void **state)
{
    (void)state;
    static const struct file_case {
        const char *from, *file, *old, *new;
    } table[] = {
        { TINY, "config.json", "\"hidden_size\": 64", "\"hidden_size\": \"64\"" },
        { TINY, "tokenizer_config.json", "{", "{\"add_bos_token\": true," },
        { TINY, "added_tokens.json", "{", "" },
        { FAST, "generation_config.json", "{", "{\"num_beams\": 4," },
        { FAST, "preprocessor_config.json", "\"resample\": 3", "\"resample\": 9" },
        { FAST, "processor_config.json", "LlavaProcessor", "OtherProcessor" },
        { SHARDS, "model.safetensors.index.json", "{", "" },
        { SHARDS, "model-00002-of-00003.safetensors", "\"shape\"", "\"shapf\"" },
        { FAST, "preprocessor_config.json", "\"height\": 256,\n    \"width\": 256",
          "\"height\": 100,\n    \"width\": 100" },
    };
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        const char *dir = copy_of(table[i].from, "by path");
        char begin[1200];
        fv_engine *e = NULL;
        fv_error err = { 0 };
        replace(dir, table[i].file, table[i].old, table[i].new);
        snprintf(begin, sizeof begin, "%s/%s: ", dir, table[i].file);
        if (fv_engine_open(&e, dir, NULL, &err) == FV_OK ||
            strncmp(err.message, begin, strlen(begin)) != 0)
            fail_msg("row %zu: \"%s\"; expected \"%s\"", i, err.message, begin);
    }
}

/* ---- a directory in another encoding ---- */

static void test_name_in_another_encoding(void **state)
{
    (void)state;
    static const char *const names[] = { "mod\377\351l", "caf\351", "\300\257x" };
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        const char *dir = copy_of(TINY, names[i]);
        char packed[1200];
        fv_error err = { 0 };
        fv_engine *e = NULL;
        snprintf(packed, sizeof packed, "%s/named.gguf", work);
        if (fv_pack(dir, packed, NULL, NULL, &err) != FV_OK ||
            fv_engine_open(&e, packed, NULL, &err) != FV_OK)
            fail_msg("%s", err.message);
        fv_engine_free(e);
        assert_int_equal(fv_verify(packed, NULL, &err), FV_OK);
    }
}

/* ---- memory runs out ---- */

static fv_status open_and_free(const char *path, fv_error *err)
{
    fv_engine *e = NULL;
    fv_engine_options o;
    fv_engine_options_default(&o);
    o.n_threads = 1;
    o.image_size = 64;
    fv_status status = fv_engine_open(&e, path, &o, err);
    fv_engine_free(e);
    return status;
}

/* The k-th allocation fails, alone or with all behind it: memory is out, the file is not corrupt.
 * */
static void test_every_allocation_while_opening(void **state)
{
    (void)state;
    char packed[1200];
    fv_error err = { 0 };
    snprintf(packed, sizeof packed, "%s/sweep.gguf", work);
    assert_int_equal(fv_pack(TINY, packed, NULL, NULL, &err), FV_OK);
    const char *const paths[] = { TINY,
                                  FAST,
                                  SHARDS,
                                  DATA "variants/tokenizer_json/checkpoint",
                                  DATA "variants/unfused/checkpoint",
                                  packed };
    for (size_t i = 0; i < FV_COUNT(paths); i++) {
        int64_t live = fv_mem_live();
        uint64_t before = fv_mem_taken();
        assert_int_equal(open_and_free(paths[i], &err), FV_OK);
        uint64_t n = fv_mem_taken() - before;
        for (uint64_t k = 0; k < n; k++)
            for (int once = 0; once < 2; once++) {
                err = (fv_error){ 0 };
                once ? fv_mem_fail_once(k) : fv_mem_fail_after(k);
                fv_status status = open_and_free(paths[i], &err);
                fv_mem_fail_after(UINT64_MAX);
                /* one that fails alone may be asked for again, or be done without */
                if (status != FV_ERR_MEMORY && !(once && status == FV_OK))
                    fail_msg("%s, allocation %d of %d: status %s, \"%s\"", paths[i], (int)k, (int)n,
                             fv_status_name(status), err.message);
                assert_int_equal(fv_mem_live(), live);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unused_tensors),
        cmocka_unit_test(test_bound_tensors),
        cmocka_unit_test(test_json_of_python),
        cmocka_unit_test(test_image_token),
        cmocka_unit_test(test_end_tokens),
        cmocka_unit_test(test_recipe_is_packed),
        cmocka_unit_test(test_recipe_is_not_llavas),
        cmocka_unit_test(test_unread_files),
        cmocka_unit_test(test_settings_in_force),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_missing_parts),
        cmocka_unit_test(test_files_by_path),
        cmocka_unit_test(test_chat_templates),
        cmocka_unit_test(test_name_in_another_encoding),
        cmocka_unit_test(test_every_allocation_while_opening),
    };
    return cmocka_run_group_tests(tests, make_work, remove_work);
}
