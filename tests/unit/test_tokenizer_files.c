/* text/tokenizer_files.c: the layouts of a checkpoint's tokenizer, and files that are not one. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "text/tokenizer.h"
#include "text/tokenizer_gguf.h"

static const char tiny[] = FV_SOURCE_DIR "/tests/data/tiny/checkpoint";

/* ---- a folder to write into ---- */

static char dir[64];
static const char *const names[] = { "vocab.json",        "merges.txt",
                                     "added_tokens.json", "tokenizer_config.json",
                                     "tokenizer.json",    "special_tokens_map.json" };

static void drop(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void write_bytes(const char *name, const void *data, size_t n)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

static void copy(const char *name)
{
    char path[512];
    uint8_t *data;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", tiny, name);
    assert_int_equal(fv_read_file(&data, &n, path, 1 << 24, NULL), FV_OK);
    write_bytes(name, data, n);
    fv_free(data);
}

/* Text of the tiny checkpoint's file with the first `from` replaced. */
static void write_changed(const char *name, const char *from, const char *to)
{
    char path[512];
    uint8_t *data;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", tiny, name);
    assert_int_equal(fv_read_file(&data, &n, path, 1 << 24, NULL), FV_OK);
    char *found = strstr((char *)data, from);
    assert_non_null(found);
    size_t before = (size_t)(found - (char *)data), n_to = strlen(to),
           after = n - before - strlen(from);
    char *changed = malloc(before + n_to + after);
    memcpy(changed, data, before);
    memcpy(changed + before, to, n_to);
    memcpy(changed + before + n_to, found + strlen(from), after);
    write_bytes(name, changed, before + n_to + after);
    free(changed);
    fv_free(data);
}

static void clean(void)
{
    for (size_t i = 0; i < FV_COUNT(names); i++)
        drop(names[i]);
}

/* vocab.json, merges.txt and added_tokens.json of the tiny checkpoint. */
static void fresh(void)
{
    clean();
    for (size_t i = 0; i < 3; i++)
        copy(names[i]);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/fv-tokenizer-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    clean();
    return rmdir(dir);
}

static void check_fails(fv_status want, const char *message)
{
    fv_tokenizer *t;
    fv_error err = { 0 };
    int64_t live = fv_mem_live();

    assert_int_equal(fv_tokenizer_load_dir(&t, dir, NULL, &err), want);
    assert_null(t);
    assert_int_equal(err.status, want);
    assert_int_equal(fv_mem_live(), live);
    if (message)
        assert_string_equal(err.message, message);
}

static fv_tokenizer *load(const char *from)
{
    fv_tokenizer *t;
    fv_error err;

    if (fv_tokenizer_load_dir(&t, from, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    return t;
}

/* The same ids, bytes and kinds, and the same ids for a text. */
static void check_same(const fv_tokenizer *a, const fv_tokenizer *b)
{
    static const char text[] =
        "Describe the image, it's 12 caf\xc3\xa9s <|im_end|>\n and the rest of it";
    fv_ids x = { 0 }, y = { 0 };

    assert_int_equal(fv_tokenizer_size(a), fv_tokenizer_size(b));
    for (int32_t id = 0; id < fv_tokenizer_size(a); id++) {
        size_t n, m;
        const char *p = fv_tokenizer_bytes(a, id, &n), *q = fv_tokenizer_bytes(b, id, &m);
        assert_int_equal(n, m);
        if (n)
            assert_memory_equal(p, q, n);
        assert_int_equal(fv_tokenizer_is_special(a, id), fv_tokenizer_is_special(b, id));
    }
    assert_int_equal(fv_tokenizer_encode(a, text, sizeof text - 1, &x, NULL), FV_OK);
    assert_int_equal(fv_tokenizer_encode(b, text, sizeof text - 1, &y, NULL), FV_OK);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.data, y.data, x.n * sizeof *x.data);
    fv_ids_free(&x);
    fv_ids_free(&y);
}

/* ---- layouts ---- */

static void test_layouts_agree(void **state)
{
    (void)state;
    fv_tokenizer *want = load(tiny), *t;

    fresh();
    t = load(dir); /* without tokenizer_config.json */
    check_same(want, t);
    fv_tokenizer_free(t);

    drop("added_tokens.json");
    copy("tokenizer_config.json"); /* added_tokens_decoder instead */
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    clean();
    copy("tokenizer.json");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);
    fv_tokenizer_free(want);
}

static void test_merges_as_pairs_and_escapes(void **state)
{
    (void)state;
    fv_tokenizer *want = load(tiny), *t;

    clean();
    write_changed("tokenizer.json", "\"h e\"", "[ \"\\u0068\" , \"e\" ]");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    fresh();
    write_changed("vocab.json", "\"A\":", " \"\\u0041\" :\n");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    fresh(); /* lines that end in CR LF, an empty line */
    write_changed("merges.txt", "h e\n", "h e\r\n\n");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    fresh(); /* no version line */
    write_changed("merges.txt", "#version: 0.2\n", "");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);
    fv_tokenizer_free(want);
}

static void test_added_tokens_that_are_shown(void **state)
{
    (void)state;
    fv_tokenizer *t;

    fresh(); /* Qwen2.5's <tool_call> is added, but not special */
    write_text("added_tokens.json", "{\"<|im_end|>\": 471, \"<tool_call>\": 480}");
    write_text("tokenizer_config.json", "{\"added_tokens_decoder\": {\"480\": {\"content\": "
                                        "\"<tool_call>\", \"special\": false}}}");
    t = load(dir);
    assert_int_equal(fv_tokenizer_size(t), 481);
    assert_true(fv_tokenizer_is_special(t, 471));
    assert_false(fv_tokenizer_is_special(t, 480));
    assert_false(fv_tokenizer_has(t, 470));
    assert_int_equal(fv_tokenizer_find(t, "<tool_call>"), 480);
    fv_tokenizer_free(t);

    fresh(); /* no added tokens at all is a tokenizer too */
    drop("added_tokens.json");
    t = load(dir);
    assert_int_equal(fv_tokenizer_size(t), 469);
    fv_tokenizer_free(t);

    fresh(); /* a token of the vocabulary declared as added */
    write_changed("vocab.json", "\"A\":32", "\"<pad>\":473,\"A\":32");
    write_text("added_tokens.json", "{\"<pad>\": 473, \"<image>\": 472}");
    t = load(dir);
    assert_true(fv_tokenizer_is_special(t, 473));
    assert_int_equal(fv_tokenizer_find(t, "<image>"), 472);
    fv_tokenizer_free(t);
}

/* ---- settings of tokenizer.json ---- */

#define NFC    "\"normalizer\":{\"type\":\"NFC\"}"
#define POST   "\"post_processor\":{\"type\":\"ByteLevel\""
#define DECODE "\"decoder\":{\"type\":\"ByteLevel\""
#define END    "}],\"pair\":[],\"special_tokens\":{}},\"x\":{\"type\":\"\""

/* A piece of the file and what stands there instead; a part of the message, or NULL: the ids of
 * Hugging Face's tokenizers 0.23.3 do not change. [tried with transformers 5.24, whose
 * PreTrainedTokenizerFast reads the file as it is; truncation and padding it switches off] */
static const struct setting_case {
    const char *from, *to, *message;
} setting_cases[] = {
    { NFC, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}", NULL },
    { NFC,
      "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
      "{\"type\":\"Lowercase\"}]}",
      "tokenizer.json: normalizer.normalizers.1.type is \"Lowercase\"; expected \"NFC\"" },
    { NFC, "\"normalizer\":{\"type\":\"NFKC\"}", "normalizer.type is \"NFKC\"; expected \"NFC\"" },
    { NFC, "\"normalizer\":null", "normalizer is null; expected NFC" },
    { NFC, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[]}",
      "normalizer is {...}; expected NFC" },
    { NFC, "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"_\"}",
      "normalizer.type is \"Prepend\"" },
    { "\"Isolated\"", "\"Removed\"",
      "pre_tokenizer.pretokenizers.0.behavior is \"Removed\"; expected \"Isolated\"" },
    { "\"invert\":false", "\"invert\":true", "pretokenizers.0.invert is true; expected false" },
    { "\\\\p{N}|", "\\\\p{N}{1,3}|", "pretokenizers.0.pattern.Regex is \"(?i:'s|'t" },
    { "\"Regex\"", "\"String\"", "pretokenizers.0.pattern.Regex is null; expected Qwen2's" },
    { "\"add_prefix_space\":false", "\"add_prefix_space\":true",
      "pre_tokenizer.pretokenizers.1.add_prefix_space is true; expected false" },
    { "\"use_regex\":false", "\"use_regex\":true", "pretokenizers.1.use_regex is true" },
    { ",\"use_regex\":false", "", "pretokenizers.1.use_regex is null; expected false" },
    { "\"trim_offsets\":false", "\"trim_offsets\":true", NULL },
    { "{\"type\":\"Split\"", "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Split\"",
      "pretokenizers.0.type is \"Digits\"; expected \"Split\"" },
    { POST, "\"post_processor\":null,\"x\":{\"type\":\"ByteLevel\"", NULL },
    { POST,
      "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\","
      "\"type_id\":0}" END,
      NULL },
    { POST,
      "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
      "\"<|endoftext|>\",\"type_id\":0}" END,
      "post_processor.single is [{...}]; expected no special token" },
    { POST, "\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"</s>\",2]",
      "post_processor.type is \"RobertaProcessing\"; expected \"ByteLevel\"" },
    { DECODE, "\"decoder\":{\"type\":\"Metaspace\"", "decoder.type is \"Metaspace\"" },
    { DECODE, "\"decoder\":null,\"x\":{\"type\":\"ByteLevel\"", "decoder is null; expected" },
    { "\"truncation\":null",
      "\"truncation\":{\"direction\":\"Right\",\"max_length\":3,\"strategy\":\"LongestFirst\","
      "\"stride\":0}",
      NULL },
    { "\"padding\":null",
      "\"padding\":{\"strategy\":{\"Fixed\":80},\"direction\":\"Right\",\"pad_id\":0}", NULL },
    { "\"dropout\":null", "\"dropout\":0.1", "model.dropout is 0.1; expected 0" },
    { "\"dropout\":null", "\"dropout\":0.0", NULL },
    { "\"unk_token\":null", "\"unk_token\":\"<unk>\"", NULL },
    { "\"byte_fallback\":false", "\"byte_fallback\":true", NULL }, /* every byte has a token */
    { "\"fuse_unk\":false", "\"fuse_unk\":true", NULL },
    { "\"continuing_subword_prefix\":\"\"", "\"continuing_subword_prefix\":\"##\"",
      "model.continuing_subword_prefix is \"##\"; expected \"\"" },
    { "\"end_of_word_suffix\":\"\"", "\"end_of_word_suffix\":\"</w>\"",
      "model.end_of_word_suffix is \"</w>\"" },
    { "\"end_of_word_suffix\":\"\"", "\"end_of_word_suffix\":null", NULL },
    { "\"fuse_unk\":false", "\"ignore_merges\":true", "model.ignore_merges is true" },
    { "\"single_word\":false", "\"single_word\":true",
      "added_tokens.0.single_word is true; expected false" },
    { "\"lstrip\":false", "\"lstrip\":true", "added_tokens.0.lstrip is true; expected false" },
};

static void test_settings_of_tokenizer_json(void **state)
{
    (void)state;
    fv_tokenizer *want = load(tiny), *t;
    for (size_t i = 0; i < FV_COUNT(setting_cases); i++) {
        const struct setting_case *c = &setting_cases[i];
        fv_error err = { 0 };
        clean();
        write_changed("tokenizer.json", c->from, c->to);
        fv_status status = fv_tokenizer_load_dir(&t, dir, NULL, &err);
        if (c->message ? status != FV_ERR_UNSUPPORTED || !strstr(err.message, c->message)
                       : status != FV_OK)
            fail_msg("%s: status %s, \"%s\"", c->to, fv_status_name(status), err.message);
        if (t)
            check_same(want, t);
        fv_tokenizer_free(t);
    }
    fv_tokenizer_free(want);
}

/* Settings of tokenizer_config.json. [transformers 5.24: those without a message change no id] */
static void test_settings_of_tokenizer_config(void **state)
{
    (void)state;
    static const struct config_case {
        const char *text, *message;
    } table[] = {
        { "{\"model_max_length\": 1000000000000000019884624838656}", NULL },
        { "{\"model_max_length\": Infinity, \"x\": NaN}", NULL },
        { "{\"padding_side\": \"left\", \"truncation_side\": \"left\", \"max_length\": 3}", NULL },
        { "{\"clean_up_tokenization_spaces\": true, \"tokenizer_class\": \"LlamaTokenizer\"}",
          NULL },
        { "{\"add_bos_token\": false, \"errors\": \"replace\", \"unk_token\": null}", NULL },
        { "{\"add_prefix_space\": true}",
          "tokenizer_config.json: add_prefix_space is true; expected false" },
        { "{\"split_special_tokens\": true}", "split_special_tokens is true; expected false" },
        { "{\"add_bos_token\": true}", "add_bos_token is true; expected false" },
        { "{\"add_eos_token\": true}", "add_eos_token is true; expected false" },
        { "{\"errors\": \"ignore\"}", "errors is \"ignore\"; expected \"replace\"" },
    };
    fv_tokenizer *want = load(tiny), *t;
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        fv_error err = { 0 };
        fresh();
        write_text("tokenizer_config.json", table[i].text);
        fv_status status = fv_tokenizer_load_dir(&t, dir, NULL, &err);
        if (table[i].message
                ? status != FV_ERR_UNSUPPORTED || !strstr(err.message, table[i].message)
                : status != FV_OK)
            fail_msg("%s: status %s, \"%s\"", table[i].text, fv_status_name(status), err.message);
        if (t)
            check_same(want, t);
        fv_tokenizer_free(t);
    }
    fv_tokenizer_free(want);
}

/* Special tokens that no file gives an id get the next ones. Sizes and ids are those of
 * transformers 5.24's PreTrainedTokenizerFast for tiny's tokenizer.json. */
static void test_special_tokens(void **state)
{
    (void)state;
    static const struct special_case {
        const char *text;
        int size, a, b, c, d; /* -1: no such token */
        int special[5], n_special;
    } table[] = {
        { "{\"bos_token\": \"<a>\"}", 473, 472, -1, -1, -1, { 472 }, 1 },
        { "{\"eos_token\": \"<a>\", \"bos_token\": \"<b>\"}",
          474,
          473,
          472,
          -1,
          -1,
          { 472, 473 },
          2 },
        { "{\"additional_special_tokens\": [\"<a>\", \"<b>\"], \"pad_token\": \"<c>\"}",
          475,
          473,
          474,
          472,
          -1,
          { 472, 473, 474 },
          3 },
        { "{\"extra_special_tokens\": {\"x_token\": \"<a>\", \"y_token\": \"<b>\"}}",
          474,
          472,
          473,
          -1,
          -1,
          { 472, 473 },
          2 },
        { "{\"extra_special_tokens\": [\"<b>\", \"<a>\"]}",
          474,
          473,
          472,
          -1,
          -1,
          { 472, 473 },
          2 },
        { "{\"unk_token\": {\"content\": \"<a>\", \"lstrip\": false}}",
          473,
          472,
          -1,
          -1,
          -1,
          { 472 },
          1 },
        { "{\"mask_token\": \"<a>\", \"cls_token\": \"<b>\", \"sep_token\": \"<c>\","
          " \"unk_token\": \"<d>\"}",
          476,
          475,
          474,
          473,
          472,
          { 472, 473, 474, 475 },
          4 },
        { "{\"bos_token\": null, \"additional_special_tokens\": []}",
          472,
          -1,
          -1,
          -1,
          -1,
          { 0 },
          0 },
        { "{\"added_tokens_decoder\": {\"472\": {\"content\": \"<a>\", \"special\": false}}}",
          473,
          472,
          -1,
          -1,
          -1,
          { 0 },
          0 },
        { "{\"added_tokens_decoder\": {\"472\": {\"content\": \"<a>\", \"special\": false}},"
          " \"pad_token\": \"<a>\"}",
          473,
          472,
          -1,
          -1,
          -1,
          { 472 },
          1 },
    };
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        const struct special_case *c = &table[i];
        for (int map = 0; map < 2; map++) { /* special_tokens_map.json says the same */
            clean();
            copy("tokenizer.json");
            write_text(map ? "special_tokens_map.json" : "tokenizer_config.json", c->text);
            if (map && strstr(c->text, "added_tokens_decoder"))
                continue;
            fv_tokenizer *t = load(dir);
            assert_int_equal(fv_tokenizer_size(t), c->size);
            assert_int_equal(fv_tokenizer_find(t, "<a>"), c->a);
            assert_int_equal(fv_tokenizer_find(t, "<b>"), c->b);
            assert_int_equal(fv_tokenizer_find(t, "<c>"), c->c);
            assert_int_equal(fv_tokenizer_find(t, "<d>"), c->d);
            for (int k = 0, id = 472; id < c->size; id++)
                assert_int_equal(fv_tokenizer_is_special(t, id),
                                 k < c->n_special && c->special[k] == id ? (k++, true) : false);
            fv_tokenizer_free(t);
        }
    }
    clean(); /* the last word on what is special is tokenizer_config.json's */
    copy("tokenizer.json");
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"471\": {\"content\": \"<|im_end|>\","
               " \"special\": false}}}");
    fv_tokenizer *t = load(dir);
    assert_false(fv_tokenizer_is_special(t, 471));
    assert_true(fv_tokenizer_is_special(t, 470));
    fv_tokenizer_free(t);
}

/* Added tokens that are looked for after NFC. The ids are those of Hugging Face's tokenizers
 * 0.23.3. */
#define ADDED(content, id, normalized)                                                    \
    ",{\"id\":" id ",\"content\":\"" content "\",\"single_word\":false,\"lstrip\":false," \
    "\"rstrip\":false,\"normalized\":" normalized ",\"special\":false}"

static const struct normalized_case {
    const char *text;
    int32_t ids[10];
    size_t n;
} normalized_cases[] = {
    { "<tool>", { 474, 78, 75, 29 }, 4 },
    { "a<tool>b", { 64, 474, 78, 75, 29, 65 }, 6 },
    { "a<tool>\314\270b", { 64, 474, 78, 75, 158, 231, 107, 65 }, 8 },
    { "\342\204\2529", { 473 }, 1 },
    { "x\342\204\2529y", { 87, 473, 88 }, 3 },
    { "K9K9", { 473, 473 }, 2 },
    { "K\314\2009", { 42, 136, 222, 24 }, 4 },
    { "<tool><to", { 474, 78, 75, 29, 474 }, 5 },
    { "<tox", { 474, 87 }, 2 },
    { "<to=x", { 474, 475 }, 2 },
    { "=x\314\270", { 475, 136, 116 }, 3 },
    { "=\314\270x", { 158, 231, 254, 87 }, 4 },
    { "<|im_end|><tool>", { 471, 474, 78, 75, 29 }, 5 },
    { "e\314\201<tool>e\314\201", { 127, 102, 474, 78, 75, 29, 127, 102 }, 8 },
    { "<TOOL>", { 27, 51, 46, 46, 43, 29 }, 6 },
};

static void check_normalized(const fv_tokenizer *t)
{
    for (size_t i = 0; i < FV_COUNT(normalized_cases); i++) {
        const struct normalized_case *c = &normalized_cases[i];
        fv_ids ids = { 0 };
        assert_int_equal(fv_tokenizer_encode(t, c->text, strlen(c->text), &ids, NULL), FV_OK);
        if (ids.n != c->n || memcmp(ids.data, c->ids, c->n * sizeof *c->ids))
            fail_msg("%s", c->text);
        fv_ids_free(&ids);
    }
    assert_int_equal(fv_tokenizer_find(t, "<tool>"), 472);
    assert_int_equal(fv_tokenizer_find(t, "<to"), 474);
}

static void test_normalized_tokens(void **state)
{
    (void)state;
    clean();
    write_changed("tokenizer.json", "],\"normalizer\"",
                  ADDED("<tool>", "472", "true") ADDED("K9", "473", "true")
                      ADDED("<to", "474", "false") ADDED("=x", "475", "true") "],\"normalizer\"");
    fv_tokenizer *t = load(dir), *again = NULL;
    check_normalized(t);
    /* written down again, and from a packed file */
    char *text = NULL;
    size_t n = 0;
    fv_error err = { 0 };
    assert_int_equal(fv_tokenizer_write(t, FV_FILE_TOKENIZER_JSON, NULL, NULL, &text, &n, &err),
                     FV_OK);
    write_bytes("tokenizer.json", text, n);
    fv_free(text);
    again = load(dir);
    check_normalized(again);
    fv_tokenizer_free(again);
    for (int tables = 0; tables < 2; tables++) {
        char *path = fv_path_join(dir, "x.gguf");
        fv_gguf_writer *w = NULL;
        fv_gguf *g = NULL;
        bool same = false;
        assert_int_equal(fv_gguf_writer_new(&w, path, &err), FV_OK);
        assert_int_equal(fv_tokenizer_write_gguf(t, w, &err), FV_OK);
        if (tables)
            fv_tokenizer_list_tables(t, w);
        assert_int_equal(fv_gguf_begin_data(w, &err), FV_OK);
        if (tables)
            assert_int_equal(fv_tokenizer_write_tables(t, w, &err), FV_OK);
        assert_int_equal(fv_gguf_finish(w, &err), FV_OK);
        fv_gguf_writer_free(w);
        assert_int_equal(fv_gguf_open(&g, path, &err), FV_OK);
        if (fv_tokenizer_open_gguf(&again, g, &err) != FV_OK)
            fail_msg("%s", err.message);
        check_normalized(again);
        assert_int_equal(fv_tokenizer_same(t, again, &same, &err), FV_OK);
        assert_true(same);
        fv_tokenizer_free(again);
        fv_gguf_free(g);
        drop("x.gguf");
        fv_free(path);
    }
    fv_tokenizer_free(t);
    clean();
    write_changed("tokenizer.json", "],\"normalizer\"",
                  ADDED("e\\u0301", "472", "true") "],\"normalizer\"");
    check_fails(FV_ERR_UNSUPPORTED, NULL);
}

/* ---- two sources of one tokenizer ---- */

static char said[2000];

static void hear(void *user, fv_log_level level, const char *message)
{
    (void)user;
    assert_int_equal(level, FV_LOG_WARNING);
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", message);
}

/* Loads dir; what is said must hold this (NULL: nothing is said). */
static fv_tokenizer *load_hearing(const char *part)
{
    const fv_callbacks callbacks = { .size = sizeof callbacks, .log = hear };
    fv_tokenizer *t;
    fv_error err;
    said[0] = 0;
    if (fv_tokenizer_load_dir(&t, dir, &callbacks, &err) != FV_OK)
        fail_msg("%s", err.message);
    if (part ? !strstr(said, part) : said[0] != 0)
        fail_msg("said: \"%s\"; expected \"%s\"", said, part ? part : "");
    return t;
}

static void test_two_sources(void **state)
{
    (void)state;
    static const struct pair_case {
        const char *name, *from, *to; /* from NULL: the file is `to`; both NULL: there is none */
        const char *said;             /* NULL: nothing */
    } table[] = {
        { "added_tokens.json", NULL, NULL, NULL },
        { "merges.txt", NULL, NULL, NULL },
        { "vocab.json", NULL, NULL, NULL },
        { "vocab.json", "\"A\":32,", "", "vocab.json has nothing for id 32" },
        { "vocab.json", "\"A\":32", "\"\\u0120zz\":32",
          "contradict tokenizer.json, which is used" },
        { "vocab.json", "\"A\":32", "\"A\":32,\"zz\":600", "vocab.json has \"zz\" for id 600" },
        { "vocab.json", NULL, "{", "vocab.json: the text ends at byte 1" },
        { "vocab.json", NULL, "",
          "vocab.json: the file is empty; tokenizer.json is whole, and used" },
        { "merges.txt", "h e\n", "", "merges.txt has another merge 2" },
        { "merges.txt", NULL, "#version: 0.2\n", "merges.txt has 0 merges, not" },
        { "added_tokens.json", NULL, "{\"<|im_end|>\": 470, \"<|im_start|>\": 471}",
          "\"<|im_end|>\" has the id 470, and 471 in another file, which counts" },
        { "added_tokens.json", NULL, "{\"<|endoftext|>\": 469}", NULL },
        { "tokenizer_config.json", NULL,
          "{\"added_tokens_decoder\": {\"3\": {\"content\": \"<|im_end|>\"}}}",
          "\"<|im_end|>\" has the id 3, and 471 in another file" },
        { "tokenizer_config.json", NULL,
          "{\"added_tokens_decoder\": {\"3\": {\"content\": \"<new>\"}}}",
          "id 3 is \"<new>\", and \"$\" in another file" },
        /* where the one that is whole is not, the others are */
        { "tokenizer.json", NULL, "version https://git-lfs.github.com/spec/v1\n",
          "vocab.json and merges.txt are used instead" },
        { "tokenizer.json", NULL, "", "the file is empty; vocab.json and merges.txt are used" },
        { "tokenizer.json", "\"h e\",", "", "merges.txt has another merge 2" },
    };
    fv_tokenizer *want = load(tiny);
    for (size_t i = 0; i < FV_COUNT(table); i++) {
        const struct pair_case *c = &table[i];
        bool stale = !strcmp(c->name, "tokenizer.json") && c->from; /* then it is what counts */
        fresh();
        copy("tokenizer.json");
        if (!c->to)
            drop(c->name);
        else if (c->from)
            write_changed(c->name, c->from, c->to);
        else
            write_text(c->name, c->to);
        fv_tokenizer *t = load_hearing(c->said);
        if (!stale)
            check_same(want, t);
        fv_tokenizer_free(t);
    }
    /* another kind of tokenizer is refused, whatever stands beside it */
    fresh();
    write_changed("tokenizer.json", "\"type\":\"BPE\"", "\"type\":\"Unigram\"");
    check_fails(FV_ERR_UNSUPPORTED, "tokenizer.json: model.type is \"Unigram\"; expected \"BPE\"");
    /* a special token that words are made of */
    fresh();
    write_text("tokenizer_config.json", "{\"pad_token\": \"A\"}");
    fv_tokenizer *t = load_hearing("the special token \"A\" is one that words are made of");
    check_same(want, t);
    fv_tokenizer_free(t);
    fv_tokenizer_free(want);
}

/* ---- bad files ---- */

static void test_missing_files(void **state)
{
    (void)state;
    fv_tokenizer *t;
    fv_error err;

    clean();
    check_fails(FV_ERR_IO, NULL);
    assert_int_equal(fv_tokenizer_load_dir(&t, "/nowhere/at/all", NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "vocab.json"));
    fresh();
    drop("merges.txt");
    check_fails(FV_ERR_IO, NULL);
}

static void test_empty_files(void **state)
{
    (void)state;
    fresh();
    write_text("vocab.json", "");
    check_fails(FV_ERR_FORMAT, "vocab.json: the file is empty");
    fresh();
    write_text("merges.txt", "");
    check_fails(FV_ERR_FORMAT, "merges.txt: the file is empty");
    fresh();
    write_text("added_tokens.json", "");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: the file is empty, expected JSON");
    clean();
    write_text("tokenizer.json", "");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: the file is empty");
    fresh();
    write_text("vocab.json", "{}");
    check_fails(FV_ERR_FORMAT, NULL);
}

static void test_bad_vocabularies(void **state)
{
    (void)state;
    fresh();
    write_changed("vocab.json", "\"A\":32,", "");
    check_fails(FV_ERR_FORMAT,
                "vocab.json, merges.txt: the vocabulary has no token for the single byte 0x41");
    write_changed("vocab.json", "\"A\":32", "\"A\":33");
    check_fails(FV_ERR_FORMAT, "vocab.json: id 33 is assigned to both \"A\" and \"B\"");
    write_changed("vocab.json", "\"A\":32", "\"A\":32,\"A\":500");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: tokens 32 and 500 are both \"A\"");
    write_changed("vocab.json", "\"A\":32", "\"A\":-1");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: byte 220: expected an integer in [0, 1048575], found -1");
    write_changed("vocab.json", "\"A\":32", "\"A\":1048576");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: byte 220: expected an integer in [0, 1048575], found 1048576");
    write_changed("vocab.json", "\"A\":32", "\"A\":99999999999999999999999999");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("vocab.json", "\"A\":32", "\"A\":3.2e1");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: expected an integer, found a real number");
    write_changed("vocab.json", "\"A\":32", "\"A\":032");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: a number starts with 0");
    write_changed("vocab.json", "\"A\":32", "\"A\":\"32\"");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: expected an integer, found '\"'");
    write_changed("vocab.json", "\"A\":32", "\"A\" 32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: expected ':', found '3'");
    write_changed("vocab.json", "\"A\":32", "\"A\":32,");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 223: expected a string, found ','");
    write_changed("vocab.json", "\"A\":32", "\"\":470,\"A\":32");
    check_fails(FV_ERR_FORMAT,
                "added_tokens.json: id 470 is assigned to both \"\" and \"<|im_start|>\"");
    write_changed("vocab.json", "\"A\":32", "\"\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: the text of token 600 is empty");
    write_changed("vocab.json", "\"A\":32", "\"\xe6\x97\xa5\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: token 600 \"\xe6\x97\xa5\" contains a "
                               "character that does not stand for a byte");
    write_changed("vocab.json", "\"A\":32", "\"a\xff\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 218 is not valid UTF-8");
    write_changed("vocab.json", "\"A\":32", "\"\\ud800\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 224: half a surrogate pair");
    write_changed("vocab.json", "\"A\":32", "\"\\q\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 218: expected an escape sequence, found 'q'");
    write_text("vocab.json", "[1, 2]");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 0: expected '{', found '['");
    write_text("vocab.json", "{\"a\": 1} x");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 9: expected the end of the text, found 'x'");
    write_text("vocab.json", "\x7f"
                             "ELF");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: this is a program or library (ELF), not a tokenizer's file");
    write_text("vocab.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    check_fails(FV_ERR_FORMAT, "vocab.json: this is a Git LFS pointer, not a tokenizer's file; git "
                               "lfs pull fetches the file itself");
    write_text("vocab.json", "\xef\xbb\xbf{\"a\": 1}");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: this is text that begins with a byte order mark (UTF-8 BOM), not a "
                "tokenizer's file; save it as UTF-8 without the mark");
    write_text("vocab.json", "\x7f");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 0: expected '{', found byte 0x7f");
    write_text("vocab.json", "{\"a\nb\": 1}");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 3: a string is not closed");
}

static void test_bad_merges(void **state)
{
    (void)state;
    fresh();
    write_changed("merges.txt", "h e\n", "h e x\n");
    check_fails(FV_ERR_FORMAT, "merges.txt: 3: expected \"left right\", found \"h e x\"");
    write_changed("merges.txt", "h e\n", "he\n");
    check_fails(FV_ERR_FORMAT, "merges.txt: 3: expected \"left right\", found \"he\"");
    write_changed("merges.txt", "h e\n", "h qqq\n");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: merge 2 (\"h\" \"qqq\"): the right part "
                               "\"qqq\" is not in the vocabulary");
    write_changed("merges.txt", "h e\n", "q q\n");
    check_fails(
        FV_ERR_FORMAT,
        "vocab.json, merges.txt: merge 2 (\"q\" \"q\"): the merged text is not in the vocabulary");
    write_bytes("merges.txt", "a\0b c\n", 6);
    check_fails(FV_ERR_FORMAT, NULL);
    write_text("merges.txt", "\xff\xfd");
    check_fails(FV_ERR_FORMAT, "merges.txt: byte 0 is not valid UTF-8");
    write_text("merges.txt", "\xff\xfe");
    check_fails(FV_ERR_FORMAT,
                "merges.txt: this is text in UTF-16, not a tokenizer's file; save it as UTF-8");
    write_text("merges.txt", "<html><body>404</body></html>");
    check_fails(FV_ERR_FORMAT,
                "merges.txt: this is an HTML page, not a tokenizer's file; a server sent it "
                "instead, often to report an error: read it, then download again");
}

static void test_bad_added_tokens(void **state)
{
    (void)state;
    fresh();
    write_text("added_tokens.json", "{\"<|im_end|>\": \"x\"}");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: \"<|im_end|>\": expected an id in [0, 1048575]");
    write_text("added_tokens.json", "{\"<|im_end|>\": -5}");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: \"<|im_end|>\": expected an id in [0, 1048575]");
    write_text("added_tokens.json", "{\"<|im_end|>\": 3}");
    check_fails(FV_ERR_FORMAT,
                "added_tokens.json: id 3 is assigned to both \"$\" and \"<|im_end|>\"");
    write_text("added_tokens.json", "{\"a\": 501, \"a\": 502}");
    check_fails(FV_ERR_FORMAT, NULL);
    write_text("added_tokens.json", "[]");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: expected an object, found an array");
    write_text("added_tokens.json", "{\"\": 501}");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: the text of token 501 is empty");
    drop("added_tokens.json");
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"x\": {\"content\": \"<a>\"}}}");
    check_fails(FV_ERR_FORMAT, "tokenizer_config.json: \"x\": expected an id in [0, 1048575]");
    write_text("tokenizer_config.json", "{\"added_tokens_decoder\": {\"501\": 3}}");
    check_fails(
        FV_ERR_FORMAT,
        "tokenizer_config.json: added_tokens_decoder.501: expected an object, found an integer");
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"501\": {\"special\": true}}}");
    check_fails(
        FV_ERR_FORMAT,
        "tokenizer_config.json: added_tokens_decoder.501.content is missing, expected a string");
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"501\": {\"content\": \"<a>\", \"lstrip\": true}}}");
    check_fails(FV_ERR_UNSUPPORTED,
                "tokenizer_config.json: added_tokens_decoder.501.lstrip is true; expected false");
    write_text("tokenizer_config.json", "{\"added_tokens_decoder\": []}");
    check_fails(FV_ERR_FORMAT,
                "tokenizer_config.json: added_tokens_decoder: expected an object, found an array");
}

static void test_bad_tokenizer_json(void **state)
{
    (void)state;
    clean();
    write_changed("tokenizer.json", "\"type\":\"BPE\"", "\"type\":\"Unigram\"");
    check_fails(FV_ERR_UNSUPPORTED, "tokenizer.json: model.type is \"Unigram\"; expected \"BPE\"");
    write_changed("tokenizer.json", "\"rstrip\":false", "\"rstrip\":true");
    check_fails(FV_ERR_UNSUPPORTED,
                "tokenizer.json: added_tokens.0.rstrip is true; expected false");
    write_changed("tokenizer.json", "\"id\":469,", "");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "[\"h\"]");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "[\"h\",\"e\",\"x\"]");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "[]");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "\"he\"");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: 2: expected \"left right\", found \"he\"");
    write_text("tokenizer.json", "{}");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: model is missing, expected an object");
    write_text("tokenizer.json", "{\"model\": null}");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: byte 10: expected '{', found 'n'");
    char deep[300];
    memset(deep, '[', sizeof deep - 1);
    memcpy(deep, "{\"x\":", 5);
    deep[sizeof deep - 1] = '\0';
    write_text("tokenizer.json", deep);
    check_fails(FV_ERR_FORMAT, "tokenizer.json: the text ends at byte 299, expected a value");
}

/* Every beginning of a file but the whole one fails. */
static void test_truncated_files(void **state)
{
    (void)state;
    static const char *const files[] = { "vocab.json", "tokenizer.json" };
    fv_tokenizer *t;
    fv_error err;
    char path[512];
    uint8_t *data;
    size_t n;

    for (size_t f = 0; f < FV_COUNT(files); f++) {
        snprintf(path, sizeof path, "%s/%s", tiny, files[f]);
        assert_int_equal(fv_read_file(&data, &n, path, 1 << 24, NULL), FV_OK);
        while (n > 0 && data[n - 1] != '}') /* white space at the end may be missing */
            n--;
        for (size_t cut = 0; cut < n; cut++) {
            char *exact = malloc(cut + 1); /* so that a sanitizer sees a byte too far */
            memcpy(exact + 1, data, cut);
            fv_slice text = { exact + 1, cut };
            fv_tokenizer_files only = { 0 };
            *(f == 0 ? &only.vocab_json : &only.tokenizer_json) = text;
            assert_int_equal(fv_tokenizer_load(&t, &only, &err), FV_ERR_FORMAT);
            assert_null(t);
            free(exact);
        }
        fv_free(data);
    }
}

static void test_huge_token(void **state)
{
    (void)state;
    size_t n = 1 << 20;
    char *text = malloc(n + 64), *at = text;
    fv_tokenizer *t;

    fresh();
    at += sprintf(at, "{\"<");
    memset(at, 'x', n);
    at += n;
    at += sprintf(at, "\": 500}");
    write_bytes("added_tokens.json", text, (size_t)(at - text));
    t = load(dir);
    assert_int_equal(fv_tokenizer_max_bytes(t), n + 1);
    fv_tokenizer_free(t);
    free(text);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    for (int layout = 0; layout < 2; layout++) {
        fv_tokenizer *t = NULL;
        int64_t live = fv_mem_live();
        fresh();
        copy("tokenizer_config.json");
        if (layout == 1) {
            clean();
            copy("tokenizer.json");
        }
        for (uint64_t i = 0; !t; i++) {
            fv_mem_fail_after(i);
            fv_status status = fv_tokenizer_load_dir(&t, dir, NULL, NULL);
            fv_mem_fail_after(UINT64_MAX);
            assert_true(i < 200);
            /* A path that cannot be made looks like a file that is not there. */
            assert_true(status == FV_OK || status == FV_ERR_MEMORY || status == FV_ERR_IO);
            if (status != FV_OK)
                assert_int_equal(fv_mem_live(), live);
        }
        fv_tokenizer_free(t);
        assert_int_equal(fv_mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_agree),
        cmocka_unit_test(test_merges_as_pairs_and_escapes),
        cmocka_unit_test(test_added_tokens_that_are_shown),
        cmocka_unit_test(test_settings_of_tokenizer_json),
        cmocka_unit_test(test_settings_of_tokenizer_config),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_normalized_tokens),
        cmocka_unit_test(test_two_sources),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_empty_files),
        cmocka_unit_test(test_bad_vocabularies),
        cmocka_unit_test(test_bad_merges),
        cmocka_unit_test(test_bad_added_tokens),
        cmocka_unit_test(test_bad_tokenizer_json),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_huge_token),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
