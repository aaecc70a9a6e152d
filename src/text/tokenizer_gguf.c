/* Tokenizer tables <-> GGUF metadata. See tokenizer_gguf.h. */
#include "text/tokenizer_gguf.h"

#include <stdio.h>
#include <string.h>

#include "text/template.h"
#include "text/tokenizer_tables.h"

#define KEY "tokenizer.ggml."

/* token_type: [ggml docs/gguf.md] */
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 };

static int32_t type_of_kind(uint8_t kind)
{
    return kind == FV_TOKEN_NORMAL ? TYPE_NORMAL : kind == FV_TOKEN_ADDED ? TYPE_USER : kind == FV_TOKEN_SPECIAL ? TYPE_CONTROL
                                                                                                     : TYPE_UNUSED;
}

/* ---- writing ---- */

/* UTF-8 of the character that stands for each byte; the other direction is in tokenizer_build.c. */
typedef struct stand_ins { char text[256][2]; uint8_t n[256]; } stand_ins;

static void make_stand_ins(stand_ins *s)
{
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        unsigned c = itself ? byte : next++;
        s->n[byte] = c < 0x80 ? 1 : 2;
        s->text[byte][0] = (char)(c < 0x80 ? c : 0xc0 | c >> 6);
        s->text[byte][1] = (char)(0x80 | (c & 0x3f));
    }
}

/* The stand-in characters of a token behind to; returns the end. */
static char *put_token(char *to, const fv_tokenizer *t, int32_t id, const stand_ins *s)
{
    for (uint32_t i = t->offset[id]; i < t->offset[id + 1]; i++) {
        memcpy(to, s->text[t->blob[i]], 2);
        to += s->n[t->blob[i]];
    }
    return to;
}

static const char chat_template[] =
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" FV_DEFAULT_SYSTEM "<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

static void put_special(const fv_tokenizer *t, fv_gguf_writer *w, const char *key, const char *text)
{
    int32_t id = fv_tokenizer_find(t, text);
    if (id >= 0)
        fv_gguf_put_u32(w, key, (uint32_t)id);
}

fv_status fv_tokenizer_write_gguf(const fv_tokenizer *t, fv_gguf_writer *w, fv_error *err)
{
    stand_ins s;
    fv_status status = FV_OK;
    size_t n_ranks = 0, n_merges = 0, n = (size_t)t->n_tokens, room = 4 * t->max_bytes + 64;
    for (size_t i = 0; i <= t->merge_mask; i++) {
        if (t->merges[i].left < 0)
            continue;
        n_ranks = FV_MAX(n_ranks, (size_t)t->merges[i].rank + 1);
        n_merges++;
    }
    const fv_merge_slot **by_rank = fv_alloc_zero(n_ranks, sizeof *by_rank);
    int32_t *types = fv_alloc(n, sizeof *types);
    char *text = fv_alloc(room, 1);
    if (!by_rank || !types || !text) {
        status = fv_fail_memory(err, n_ranks * sizeof *by_rank, "the tokenizer");
        goto fail;
    }
    make_stand_ins(&s);
    for (size_t i = 0; i <= t->merge_mask; i++)
        if (t->merges[i].left >= 0)
            by_rank[t->merges[i].rank] = &t->merges[i];
    fv_gguf_put_string(w, KEY "model", "gpt2", 4);
    fv_gguf_put_string(w, KEY "pre", "qwen2", 5);
    fv_gguf_put_strings(w, KEY "tokens", n);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        types[id] = type_of_kind(t->kind[id]);
        if (t->kind[id] == FV_TOKEN_NORMAL)
            fv_gguf_put_item(w, text, (size_t)(put_token(text, t, id, &s) - text));
        else if (t->kind[id] == FV_TOKEN_NONE)
            fv_gguf_put_item(w, text, (size_t)snprintf(text, room, "[UNUSED%" PRId32 "]", id));
        else
            fv_gguf_put_item(w, (const char *)t->blob + t->offset[id], t->offset[id + 1] - t->offset[id]);
    }
    fv_gguf_put_array(w, KEY "token_type", FV_GGUF_I32, types, n);
    fv_gguf_put_strings(w, KEY "merges", n_merges);
    for (size_t i = 0; i < n_ranks; i++) {
        if (!by_rank[i])
            continue;
        char *end = put_token(text, t, by_rank[i]->left, &s);
        *end++ = ' ';
        end = put_token(end, t, by_rank[i]->right, &s);
        fv_gguf_put_item(w, text, (size_t)(end - text));
    }
    put_special(t, w, KEY "eos_token_id", "<|im_end|>");
    put_special(t, w, KEY "padding_token_id", "<|endoftext|>");
    fv_gguf_put_bool(w, KEY "add_bos_token", false);
    fv_gguf_put_string(w, "tokenizer.chat_template", chat_template, sizeof chat_template - 1);
fail:
    fv_free(by_rank);
    fv_free(types);
    fv_free(text);
    return status;
}

/* ---- reading ---- */

static fv_status read_tokens(fv_token_source *tokens, const fv_gguf_value *texts, const fv_gguf_value *types, const char *name,
                             fv_error *err)
{
    const uint8_t *at = texts->data, *type = types->data;
    for (size_t i = 0; i < texts->n; i++, type += 4) {
        uint32_t number = type[0] | (uint32_t)type[1] << 8 | (uint32_t)type[2] << 16 | (uint32_t)type[3] << 24;
        tokens[i].text.data = fv_gguf_next(&at, &tokens[i].text.n);
        switch (number) {
        case TYPE_NORMAL: tokens[i].kind = FV_TOKEN_NORMAL; break;
        case TYPE_CONTROL: tokens[i].kind = FV_TOKEN_SPECIAL; break;
        case TYPE_USER: tokens[i].kind = FV_TOKEN_ADDED; break;
        case TYPE_UNUSED: tokens[i].kind = FV_TOKEN_NONE; break;
        default:
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: " KEY "token_type[%zu] is %" PRId32
                           ", expected 1 (normal), 3 (control), 4 (user defined) or 5 (unused)", name, i, (int32_t)number);
        }
    }
    return FV_OK;
}

static fv_status read_merges(fv_merge_source *merges, const fv_gguf_value *texts, const char *name, fv_error *err)
{
    const uint8_t *at = texts->data;
    for (size_t i = 0; i < texts->n; i++) {
        fv_slice line;
        line.data = fv_gguf_next(&at, &line.n);
        if (!fv_merge_split(line, &merges[i]))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: " KEY "merges[%zu]: expected \"left right\"", name, i);
    }
    return FV_OK;
}

fv_status fv_tokenizer_read_gguf(fv_tokenizer **out, const fv_gguf *g, fv_error *err)
{
    const fv_gguf_value *texts, *types, *lines;
    const char *name = fv_gguf_name(g);
    fv_token_source *tokens = NULL;
    fv_merge_source *merges = NULL;
    fv_status status = FV_OK;
    *out = NULL;
    if (!fv_gguf_string_is(g, KEY "model", "gpt2") || !fv_gguf_string_is(g, KEY "pre", "qwen2"))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: " KEY "model and .pre are not \"gpt2\" and \"qwen2\"", name);
    FV_TRY(fv_gguf_array(g, KEY "tokens", FV_GGUF_STRING, &texts, err));
    FV_TRY(fv_gguf_array(g, KEY "token_type", FV_GGUF_I32, &types, err));
    FV_TRY(fv_gguf_array(g, KEY "merges", FV_GGUF_STRING, &lines, err));
    if (texts->n != types->n)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: " KEY "tokens has %" PRIu64 " elements, .token_type %" PRIu64, name, texts->n,
                       types->n);
    tokens = fv_alloc((size_t)texts->n, sizeof *tokens);
    merges = fv_alloc((size_t)lines->n, sizeof *merges);
    if (!tokens || !merges) {
        status = fv_fail_memory(err, (size_t)texts->n * sizeof *tokens, "the tokenizer");
        goto fail;
    }
    FV_TRY_GOTO(read_tokens(tokens, texts, types, name, err));
    FV_TRY_GOTO(read_merges(merges, lines, name, err));
    FV_TRY_GOTO(fv_tokenizer_build(out, tokens, (size_t)texts->n, merges, (size_t)lines->n, name, err));
fail:
    fv_free(tokens);
    fv_free(merges);
    return status;
}
