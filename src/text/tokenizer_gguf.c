/* Tokenizer tables <-> GGUF metadata. See tokenizer_gguf.h. */
#include "text/tokenizer_gguf.h"

#include <stdio.h>
#include <string.h>

#include "text/template.h"
#include "text/tokenizer_tables.h"

#define KEY        "tokenizer.ggml."
#define NORMALIZED "tokenizer.fastvlm.normalized"

/* token_type: [ggml docs/gguf.md] */
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 };

static int32_t type_of_kind(uint8_t kind)
{
    return kind == FV_TOKEN_NORMAL    ? TYPE_NORMAL
           : kind == FV_TOKEN_ADDED   ? TYPE_USER
           : kind == FV_TOKEN_SPECIAL ? TYPE_CONTROL
                                      : TYPE_UNUSED;
}

/* ---- writing ---- */

/* Merges in order of rank; NULL where a rank has none, as when a pair came twice. */
static fv_status sort_merges(const fv_tokenizer *t, const fv_merge_slot ***out, size_t *n_ranks,
                             size_t *n_merges, fv_error *err)
{
    *n_ranks = *n_merges = 0;
    for (size_t i = 0; i <= t->merge_mask; i++) {
        if (t->merges[i].left < 0)
            continue;
        *n_ranks = FV_MAX(*n_ranks, (size_t)t->merges[i].rank + 1);
        ++*n_merges;
    }
    if (*n_ranks > 1 << 24)
        return fv_fail(err, FV_ERR_FORMAT, 0, "the tokenizer has a merge of rank %zu",
                       *n_ranks - 1);
    *out = fv_alloc_zero(*n_ranks, sizeof **out);
    if (!*out)
        return fv_fail_memory(err, *n_ranks * sizeof **out, "the merges");
    for (size_t i = 0; i <= t->merge_mask; i++)
        if (t->merges[i].left >= 0)
            (*out)[t->merges[i].rank] = &t->merges[i];
    return FV_OK;
}

/* UTF-8 of the character that stands for each byte; the other direction is in tokenizer_build.c. */
typedef struct stand_ins {
    char text[256][2];
    uint8_t n[256];
} stand_ins;

static void make_stand_ins(stand_ins *s)
{
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
                      byte >= 0xae;
        unsigned c = itself ? byte : next++;
        s->n[byte] = c < 0x80 ? 1 : 2;
        s->text[byte][0] = (char)(c < 0x80 ? c : 0xc0 | c >> 6);
        s->text[byte][1] = (char)(0x80 | (c & 0x3f));
    }
}

/* The stand-in characters of a token behind to; returns the end. */
static char *gguf_put_token(char *to, const fv_tokenizer *t, int32_t id, const stand_ins *s)
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
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor "
    "%}"
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
    size_t n_ranks, n_merges, n_normalized = 0, n = (size_t)t->n_tokens,
                              room = 4 * t->max_bytes + 64;
    const fv_merge_slot **by_rank = NULL;
    int32_t *types = fv_alloc(n, sizeof *types);
    char *text = fv_alloc(room, 1);
    if (!types || !text) {
        status = fv_fail_memory(err, n * sizeof *types, "the tokenizer");
        goto fail;
    }
    FV_TRY_GOTO(sort_merges(t, &by_rank, &n_ranks, &n_merges, err));
    make_stand_ins(&s);
    fv_gguf_put_string(w, KEY "model", "gpt2", 4);
    fv_gguf_put_string(w, KEY "pre", "qwen2", 5);
    fv_gguf_put_strings(w, KEY "tokens", n);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        types[id] = type_of_kind(t->kind[id]);
        if (t->kind[id] == FV_TOKEN_NORMAL)
            fv_gguf_put_item(w, text, (size_t)(gguf_put_token(text, t, id, &s) - text));
        else if (t->kind[id] == FV_TOKEN_NONE)
            fv_gguf_put_item(w, text, (size_t)snprintf(text, room, "[UNUSED%" PRId32 "]", id));
        else
            fv_gguf_put_item(w, (const char *)t->blob + t->offset[id],
                             t->offset[id + 1] - t->offset[id]);
    }
    fv_gguf_put_array(w, KEY "token_type", FV_GGUF_I32, types, n);
    fv_gguf_put_strings(w, KEY "merges", n_merges);
    for (size_t i = 0; i < n_ranks; i++) {
        if (!by_rank[i])
            continue;
        char *end = gguf_put_token(text, t, by_rank[i]->left, &s);
        *end++ = ' ';
        end = gguf_put_token(end, t, by_rank[i]->right, &s);
        fv_gguf_put_item(w, text, (size_t)(end - text));
    }
    put_special(t, w, KEY "eos_token_id", "<|im_end|>");
    put_special(t, w, KEY "padding_token_id", "<|endoftext|>");
    fv_gguf_put_bool(w, KEY "add_bos_token", false);
    for (int32_t id = 0; id < t->n_tokens; id++)
        if (fv_tokenizer_is_normalized(t, id))
            types[n_normalized++] = id;
    if (n_normalized)
        fv_gguf_put_array(w, NORMALIZED, FV_GGUF_I32, types, n_normalized);
    fv_gguf_put_string(w, "tokenizer.chat_template", chat_template, sizeof chat_template - 1);
fail:
    fv_free(by_rank);
    fv_free(types);
    fv_free(text);
    return status;
}

#define BYTES   "tokenizer.bytes"
#define OFFSETS "tokenizer.offsets"
#define MERGES  "tokenizer.merges"

void fv_tokenizer_list_tables(const fv_tokenizer *t, fv_gguf_writer *w)
{
    uint64_t n_bytes = t->offset[t->n_tokens], n_offsets = (uint64_t)t->n_tokens + 1,
             slots[2] = { t->merge_mask + 1, 4 };
    fv_gguf_add_tensor(w, BYTES, FV_TYPE_I8, &n_bytes, 1);
    fv_gguf_add_tensor(w, OFFSETS, FV_TYPE_I32, &n_offsets, 1);
    fv_gguf_add_tensor(w, MERGES, FV_TYPE_I32, slots, 2);
}

fv_status fv_tokenizer_write_tables(const fv_tokenizer *t, fv_gguf_writer *w, fv_error *err)
{
    FV_TRY(fv_gguf_write(w, t->blob, t->offset[t->n_tokens], err));
    FV_TRY(fv_gguf_write(w, t->offset, ((size_t)t->n_tokens + 1) * sizeof *t->offset, err));
    return fv_gguf_write(w, t->merges, (t->merge_mask + 1) * sizeof *t->merges, err);
}

/* The same merges in the same order, and b's table finds each. */
static bool same_merges(const fv_merge_slot *const *a, size_t n_a, const fv_tokenizer *b,
                        const fv_merge_slot *const *order, size_t n_b)
{
    size_t i = 0, j = 0;
    for (;;) {
        while (i < n_a && !a[i])
            i++;
        while (j < n_b && !order[j])
            j++;
        if (i == n_a || j == n_b)
            return i == n_a && j == n_b;
        if (a[i]->left != order[j]->left || a[i]->right != order[j]->right ||
            a[i]->merged != order[j]->merged || fv_merge_at(b, a[i]->left, a[i]->right) != order[j])
            return false;
        i++;
        j++;
    }
}

fv_status fv_tokenizer_same(const fv_tokenizer *a, const fv_tokenizer *b, bool *same, fv_error *err)
{
    size_t n = (size_t)a->n_tokens, n_a, n_b, n_merges_a, n_merges_b;
    const fv_merge_slot **order_a = NULL, **order_b = NULL;
    fv_status status = FV_OK;
    *same = a->n_tokens == b->n_tokens && !memcmp(a->kind, b->kind, n) &&
            !memcmp(a->offset, b->offset, (n + 1) * sizeof *a->offset) &&
            !memcmp(a->blob, b->blob, a->offset[n]) &&
            !memcmp(a->byte_id, b->byte_id, sizeof a->byte_id) &&
            a->normalized.n == b->normalized.n;
    for (size_t i = 0; *same && i < a->normalized.n; i++)
        *same = a->normalized.list[i].id == b->normalized.list[i].id;
    FV_TRY_GOTO(sort_merges(a, &order_a, &n_a, &n_merges_a, err));
    FV_TRY_GOTO(sort_merges(b, &order_b, &n_b, &n_merges_b, err));
    *same = *same && n_merges_a == n_merges_b && same_merges(order_a, n_a, b, order_b, n_b);
fail:
    fv_free(order_a);
    fv_free(order_b);
    return status;
}

/* ---- reading ---- */

static bool kind_of_type(const uint8_t *type, uint8_t *kind)
{
    switch (type[0] | (uint32_t)type[1] << 8 | (uint32_t)type[2] << 16 | (uint32_t)type[3] << 24) {
    case TYPE_NORMAL: *kind = FV_TOKEN_NORMAL; return true;
    case TYPE_CONTROL: *kind = FV_TOKEN_SPECIAL; return true;
    case TYPE_USER: *kind = FV_TOKEN_ADDED; return true;
    case TYPE_UNUSED: *kind = FV_TOKEN_NONE; return true;
    default: return false;
    }
}

static fv_status bad_type(size_t i, const uint8_t *type, const char *name, fv_error *err)
{
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "%s: " KEY
                   "token_type[%zu] is %u (its low byte), expected 1 (normal), 3 (control), "
                   "4 (user defined) or 5 (unused)",
                   name, i, type[0]);
}

static fv_status check_model(const fv_gguf *g, fv_error *err)
{
    if (fv_gguf_string_is(g, KEY "model", "gpt2") && fv_gguf_string_is(g, KEY "pre", "qwen2"))
        return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "%s: " KEY "model and .pre are not \"gpt2\" and \"qwen2\"", fv_gguf_name(g));
}

/* The ids of added tokens that are looked for after NFC, in increasing order, in a block to
 * fv_free. */
static fv_status get_normalized(const fv_gguf *g, int32_t **out, size_t *n, fv_error *err)
{
    const fv_gguf_value *v = fv_gguf_find(g, NORMALIZED);
    *out = NULL;
    *n = 0;
    if (!v)
        return FV_OK;
    FV_TRY(fv_gguf_array(g, NORMALIZED, FV_GGUF_I32, &v, err));
    if (!(*out = fv_alloc((size_t)v->n, sizeof **out)))
        return fv_fail_memory(err, (size_t)v->n * sizeof **out, "the tokenizer");
    for (; *n < v->n; ++*n) {
        const uint8_t *at = v->data + 4 * *n;
        (*out)[*n] = (int32_t)((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
                               (uint32_t)at[3] << 24);
    }
    return FV_OK;
}

static fv_status read_tokens(fv_token_source *tokens, const fv_gguf_value *texts,
                             const fv_gguf_value *types, const char *name, fv_error *err)
{
    const uint8_t *at = texts->data, *type = types->data;
    for (size_t i = 0; i < texts->n; i++, type += 4) {
        tokens[i].text.data = fv_gguf_next(&at, &tokens[i].text.n);
        if (!kind_of_type(type, &tokens[i].kind))
            return bad_type(i, type, name, err);
    }
    return FV_OK;
}

static fv_status gguf_read_merges(fv_merge_source *merges, const fv_gguf_value *texts,
                                  const char *name, fv_error *err)
{
    const uint8_t *at = texts->data;
    for (size_t i = 0; i < texts->n; i++) {
        fv_slice line;
        line.data = fv_gguf_next(&at, &line.n);
        if (!fv_merge_split(line, &merges[i]))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: " KEY "merges[%zu]: expected \"left right\"",
                           name, i);
    }
    return FV_OK;
}

fv_status fv_tokenizer_read_gguf(fv_tokenizer **out, const fv_gguf *g, fv_error *err)
{
    const fv_gguf_value *texts, *types, *lines;
    const char *name = fv_gguf_name(g);
    fv_token_source *tokens = NULL;
    fv_merge_source *merges = NULL;
    int32_t *normalized = NULL;
    size_t n_normalized = 0;
    fv_status status = FV_OK;
    *out = NULL;
    FV_TRY(check_model(g, err));
    FV_TRY(fv_gguf_array(g, KEY "tokens", FV_GGUF_STRING, &texts, err));
    FV_TRY(fv_gguf_array(g, KEY "token_type", FV_GGUF_I32, &types, err));
    FV_TRY(fv_gguf_array(g, KEY "merges", FV_GGUF_STRING, &lines, err));
    if (texts->n != types->n)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: " KEY "tokens has %" PRIu64 " elements, .token_type %" PRIu64, name,
                       texts->n, types->n);
    tokens = fv_alloc_zero((size_t)texts->n, sizeof *tokens);
    merges = fv_alloc((size_t)lines->n, sizeof *merges);
    if (!tokens || !merges) {
        status = fv_fail_memory(err, (size_t)texts->n * sizeof *tokens, "the tokenizer");
        goto fail;
    }
    FV_TRY_GOTO(read_tokens(tokens, texts, types, name, err));
    FV_TRY_GOTO(gguf_read_merges(merges, lines, name, err));
    FV_TRY_GOTO(get_normalized(g, &normalized, &n_normalized, err));
    for (size_t i = 0; i < n_normalized; i++)
        if (normalized[i] >= 0 && (uint64_t)normalized[i] < texts->n)
            tokens[normalized[i]].normalized = true;
    FV_TRY_GOTO(
        fv_tokenizer_build(out, tokens, (size_t)texts->n, merges, (size_t)lines->n, name, err));
fail:
    fv_free(normalized);
    fv_free(tokens);
    fv_free(merges);
    return status;
}

/* ---- ready tables ---- */

/* The tensor's bytes where it has this type and number of dimensions; *n: its first dimension. */
static fv_status find_table(const fv_gguf *g, const char *tensor, fv_type type, int n_dims,
                            const void **data, size_t *n, fv_error *err)
{
    char shape[FV_SHAPE_TEXT];
    const fv_tensor *x = fv_tensors_find(fv_gguf_tensors(g), tensor);
    if (!x)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s is missing", fv_gguf_name(g), tensor);
    if (x->type != type || x->n_dims != n_dims || (n_dims == 2 && x->shape[1] != 4) ||
        (uintptr_t)x->data % 4)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s has %s %s, expected %s %s",
                       fv_gguf_name(g), tensor, fv_tensor_type_name(x),
                       fv_shape_text(shape, x->shape, x->n_dims), fv_type_name(type),
                       n_dims == 2 ? "[n, 4]" : "[n]");
    *data = x->data;
    *n = (size_t)x->shape[0];
    return FV_OK;
}

/* Everything that encoding and decoding rely on: texts inside the bytes, ids that exist, an end to
 * every search. That the tables say what the keys say is fv_verify's. */
static fv_status check_tables(const fv_tokenizer *t, size_t n_bytes, const char *name,
                              fv_error *err)
{
    uint32_t n_used = 0, n_tokens = (uint32_t)t->n_tokens,
             bad = t->offset[0] != 0 || t->offset[n_tokens] != n_bytes;
    for (uint32_t i = 0; i < n_tokens; i++)
        bad |= t->offset[i] > t->offset[i + 1];
    if (bad)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: tensor " OFFSETS " does not divide the %zu bytes of " BYTES, name,
                       n_bytes);
    for (size_t i = 0; i <= t->merge_mask; i++) {
        const fv_merge_slot *m = &t->merges[i];
        bool used = m->left >= 0;
        n_used += used;
        bad |= used ? (uint32_t)m->left >= n_tokens || (uint32_t)m->right >= n_tokens ||
                          (uint32_t)m->merged >= n_tokens
                    : m->left != -1 || m->right != -1 || m->merged != -1 || m->rank != UINT32_MAX;
    }
    if (bad || n_used > t->merge_mask)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: tensor " MERGES " names tokens past the last of %" PRIu32
                       ", or is full",
                       name, n_tokens);
    return FV_OK;
}

static fv_status index_tokens(fv_tokenizer *t, const char *name, fv_error *err)
{
    memset(t->byte_id, -1, sizeof t->byte_id);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        size_t n = t->offset[id + 1] - t->offset[id];
        t->max_bytes = FV_MAX(t->max_bytes, n);
        if ((n == 0) != (t->kind[id] == FV_TOKEN_NONE))
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: token %" PRId32 " has %zu bytes, which contradicts its type", name,
                           id, n);
        if (n == 1 && t->kind[id] == FV_TOKEN_NORMAL)
            t->byte_id[t->blob[t->offset[id]]] = id;
    }
    for (int byte = 0; byte < 256; byte++)
        if (t->byte_id[byte] < 0)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: the vocabulary has no token for the single byte 0x%02x", name,
                           (unsigned)byte);
    return FV_OK;
}

fv_status fv_tokenizer_open_gguf(fv_tokenizer **out, const fv_gguf *g, fv_error *err)
{
    const fv_gguf_value *types;
    const char *name = fv_gguf_name(g);
    const void *blob, *offsets, *merges;
    size_t n_bytes = 0, n_offsets = 0, n_slots = 0, n_normalized = 0;
    int32_t *normalized = NULL;
    fv_status status = FV_OK;
    *out = NULL;
    if (!fv_tensors_find(fv_gguf_tensors(g), MERGES))
        return fv_tokenizer_read_gguf(out, g, err);
    FV_TRY(check_model(g, err));
    FV_TRY(fv_gguf_array(g, KEY "token_type", FV_GGUF_I32, &types, err));
    FV_TRY(find_table(g, BYTES, FV_TYPE_I8, 1, &blob, &n_bytes, err));
    FV_TRY(find_table(g, OFFSETS, FV_TYPE_I32, 1, &offsets, &n_offsets, err));
    FV_TRY(find_table(g, MERGES, FV_TYPE_I32, 2, &merges, &n_slots, err));
    if (types->n > 1 << 20 || types->n + 1 != n_offsets || n_slots == 0 || n_slots > 1 << 23 ||
        n_slots & (n_slots - 1))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: " OFFSETS " has %zu elements for %" PRIu64 " tokens, " MERGES
                       " %zu slots; expected "
                       "one more than tokens, and a power of two",
                       name, n_offsets, types->n, n_slots);
    fv_tokenizer *t = fv_alloc_zero(1, sizeof *t);
    if (!t)
        return fv_fail_memory(err, sizeof *t, "the tokenizer");
    t->mapped = true; /* nothing below writes through these */
    t->blob = (uint8_t *)(uintptr_t)blob;
    t->offset = (uint32_t *)(uintptr_t)offsets;
    t->merges = (fv_merge_slot *)(uintptr_t)merges;
    t->merge_mask = n_slots - 1;
    t->n_tokens = (int32_t)types->n;
    t->kind = fv_alloc((size_t)types->n, 1);
    if (!t->kind) {
        status = fv_fail_memory(err, (size_t)types->n, "the tokenizer");
        goto fail;
    }
    for (size_t i = 0; i < types->n; i++) {
        if (!kind_of_type(types->data + 4 * i, &t->kind[i])) {
            status = bad_type(i, types->data + 4 * i, name, err);
            goto fail;
        }
    }
    FV_TRY_GOTO(check_tables(t, n_bytes, name, err));
    FV_TRY_GOTO(index_tokens(t, name, err));
    FV_TRY_GOTO(get_normalized(g, &normalized, &n_normalized, err));
    FV_TRY_GOTO(fv_tokenizer_add_added(t, normalized, n_normalized, name, err));
fail:
    fv_free(normalized);
    if (status != FV_OK)
        fv_tokenizer_free(t);
    else
        *out = t;
    return status;
}
