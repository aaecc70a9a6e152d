/* The parts of a conversation as ids. See template.h. */
#include "text/template.h"

#include <string.h>

#include "base/report.h"
#include "base/sha256.h"
#include "io/json.h"

/* Text of the template's own, in which control tokens are recognised. */
static fv_status put_control(fv_ids *ids, const fv_tokenizer *t, const char *text, fv_error *err)
{
    return fv_tokenizer_encode(t, text, strlen(text), ids, err);
}

/* Words that are encoded together: a newline of the template and the text behind it may share a
 * token. */
typedef struct word_run {
    char *text;
    size_t n;
} word_run;

static void run_add(word_run *run, const char *text, size_t n)
{
    if (n)
        memcpy(run->text + run->n, text, n);
    run->n += n;
}

static fv_status run_flush(word_run *run, fv_ids *ids, const fv_tokenizer *t, fv_error *err)
{
    fv_status status = fv_tokenizer_encode_words(t, run->text, run->n, ids, err);
    run->n = 0;
    return status;
}

static fv_status run_alloc(word_run *run, size_t n, fv_error *err)
{
    *run = (word_run){ .text = fv_alloc(n, 1) };
    return run->text ? FV_OK : fv_fail_memory(err, n, "the prompt");
}

fv_status fv_template_system(fv_ids *ids, const fv_tokenizer *t, const char *text, size_t n_bytes,
                             fv_error *err)
{
    size_t before = ids->n;
    fv_status status = FV_OK;
    word_run run = { 0 };
    FV_TRY_GOTO(run_alloc(&run, n_bytes + 16, err));
    FV_TRY_GOTO(put_control(ids, t, "<|im_start|>", err));
    run_add(&run, "system\n", 7);
    run_add(&run, text, n_bytes);
    FV_TRY_GOTO(run_flush(&run, ids, t, err));
    FV_TRY_GOTO(fv_template_end(ids, t, err));
fail:
    if (status != FV_OK)
        ids->n = before;
    fv_free(run.text);
    return status;
}

fv_status fv_template_user(fv_ids *ids, const fv_tokenizer *t, const fv_turn_part *parts,
                           size_t n_parts, fv_error *err)
{
    size_t before = ids->n, room = 16;
    bool said = false; /* text or ids have come */
    fv_status status = FV_OK;
    word_run run = { 0 };
    for (size_t i = 0; i < n_parts; i++)
        room += parts[i].kind == FV_TURN_TEXT ? parts[i].n : 1;
    FV_TRY_GOTO(run_alloc(&run, room, err));
    FV_TRY_GOTO(put_control(ids, t, "<|im_start|>", err));
    run_add(&run, "user\n", 5);
    for (const fv_turn_part *p = parts; p < parts + n_parts; p++) {
        if (p->kind == FV_TURN_TEXT) {
            run_add(&run, p->text, p->n);
            said = said || p->n;
            continue;
        }
        FV_TRY_GOTO(run_flush(&run, ids, t, err));
        for (size_t i = 0; i < p->n && p->kind == FV_TURN_IDS; i++)
            FV_TRY_GOTO(fv_ids_push(ids, p->ids[i], err));
        if (p->kind == FV_TURN_IMAGE) {
            FV_TRY_GOTO(fv_ids_push(ids, FV_IMAGE_MARK, err));
            if (!said)
                run_add(&run, "\n", 1);
        } else {
            said = said || p->n;
        }
    }
    FV_TRY_GOTO(run_flush(&run, ids, t, err));
    FV_TRY_GOTO(put_control(ids, t, "<|im_end|>\n<|im_start|>assistant\n", err));
fail:
    if (status != FV_OK)
        ids->n = before;
    fv_free(run.text);
    return status;
}

fv_status fv_template_answer(fv_ids *ids, const fv_tokenizer *t, const char *text, size_t n_bytes,
                             fv_error *err)
{
    return fv_tokenizer_encode_words(t, text, n_bytes, ids, err);
}

fv_status fv_template_end(fv_ids *ids, const fv_tokenizer *t, fv_error *err)
{
    return put_control(ids, t, "<|im_end|>\n", err);
}

/* ---- templates of checkpoints ---- */

enum { MAX_TEMPLATE_BYTES = 16 << 20 };

/* SHA-256 of texts, without white space at the end. */
static const char *const known_templates[] = {
    /* transformers models/fast_vlm/convert_fastvlm_weights_to_hf.py */
    "ad809602a44b2c1dda6a63f37d542ecf72ac6be3018c5530c840df4da55f06ab",
    /* export/hf_files.c */
    "a652515846056104522a9c574933fc9e7d7f36cf2883e8d11735a241cbf8a112",
};

static bool template_is_known(const char *text, size_t n)
{
    char hex[2 * FV_SHA256_BYTES + 1];
    uint8_t digest[FV_SHA256_BYTES];
    fv_sha256 sha;

    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, text, n);
    fv_sha256_end(&sha, digest);
    fv_hex(hex, digest, sizeof digest);
    for (size_t i = 0; i < FV_COUNT(known_templates); i++)
        if (!strcmp(hex, known_templates[i]))
            return true;
    return false;
}

static void template_warn(const char *file, const fv_callbacks *callbacks)
{
    fv_log(
        callbacks, FV_LOG_WARNING,
        "%s: the chat template is another than FastVLM's; conversations are written as FastVLM's",
        file);
}

fv_status fv_template_check(const char *dir, const fv_callbacks *callbacks, fv_error *err)
{
    char *jinja = fv_path_join(dir, "chat_template.jinja"),
         *config = fv_path_join(dir, "tokenizer_config.json");
    uint8_t *text = NULL;
    size_t n = 0;
    const char *inside = NULL;
    fv_json *doc = NULL;
    fv_status status = FV_OK;

    if (!jinja || !config) {
        status = fv_fail_memory(err, strlen(dir), "a path");
    } else if (fv_is_file(jinja)) {
        FV_TRY_GOTO(fv_read_file(&text, &n, jinja, MAX_TEMPLATE_BYTES, err));
        if (!template_is_known((const char *)text, n))
            template_warn("chat_template.jinja", callbacks);
    } else if (fv_is_file(config)) {
        FV_TRY_GOTO(fv_json_open(&doc, config, MAX_TEMPLATE_BYTES, err));
        if (fv_json_as_string(fv_json_member(fv_json_root(doc), "chat_template"), &inside) &&
            !template_is_known(inside, strlen(inside)))
            template_warn("tokenizer_config.json", callbacks);
    }
fail:
    fv_json_free(doc);
    fv_free(text);
    fv_free(jinja);
    fv_free(config);
    return status;
}
