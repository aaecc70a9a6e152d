/* The decoder alone as a GGUF file of architecture "qwen2", by llama.cpp's names.
 *
 *     model.embed_tokens  token_embd     model.norm  output_norm     lm_head  output (untied)
 *     layers.{i}.self_attn.{q,k,v}_proj  blk.{i}.attn_{q,k,v}        .o_proj  .attn_output
 *     layers.{i}.mlp.{gate,up,down}_proj blk.{i}.ffn_{gate,up,down}
 *     input_layernorm  attn_norm         post_attention_layernorm  ffn_norm
 *
 * Vectors stay f32. In q4_0 the embedding and the head are q8_0, as llama.cpp's own quantiser has
 * them; a matrix whose rows are no multiple of 32 is f16 in both. [docs/export.md] */
#include <stdio.h>
#include <string.h>

#include "model/model.h"
#include "io/gguf.h"
#include "base/sized.h"
#include "base/outfile.h"
#include "base/report.h"
#include "fastvlm_tools.h"
#include "quant/quantize.h"

enum { CHUNK = 1 << 18 }; /* values, about */

typedef struct gguf_out {
    const fv_model *s;
    const fv_callbacks *callbacks;
    fv_gguf_writer *w;
    fv_type type;
    bool listing;  /* the first pass: names and shapes */
    float *values; /* a chunk */
    uint8_t *converted;
    size_t capacity;
    uint64_t n_written, n_values;
    size_t n_tensors, n_fallback;
} gguf_out;

/* ---- names ---- */

static const char *const layer_names[][2] = {
    { "input_layernorm.weight", "attn_norm.weight" },
    { "post_attention_layernorm.weight", "ffn_norm.weight" },
    { "self_attn.q_proj", "attn_q" },
    { "self_attn.k_proj", "attn_k" },
    { "self_attn.v_proj", "attn_v" },
    { "self_attn.o_proj", "attn_output" },
    { "mlp.gate_proj", "ffn_gate" },
    { "mlp.up_proj", "ffn_up" },
    { "mlp.down_proj", "ffn_down" },
};

static fv_status name_of(char to[FV_GGUF_NAME], const fv_weight *t, fv_error *err)
{
    const char *name = t->name[FV_LAYOUT_LLAVA_QWEN2];
    int layer, used = 0;
    if (!strcmp(name, "model.embed_tokens"))
        snprintf(to, FV_GGUF_NAME, "token_embd");
    else if (!strcmp(name, "model.norm.weight"))
        snprintf(to, FV_GGUF_NAME, "output_norm.weight");
    else if (!strcmp(name, "lm_head"))
        snprintf(to, FV_GGUF_NAME, "output");
    else if (sscanf(name, "model.layers.%d.%n", &layer, &used) == 1 && used)
        for (size_t i = 0; i < FV_COUNT(layer_names); i++)
            if (!strcmp(name + used, layer_names[i][0])) {
                snprintf(to, FV_GGUF_NAME, "blk.%d.%s", layer, layer_names[i][1]);
                return FV_OK;
            }
    return *to ? FV_OK
               : fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s has no counterpart in a qwen2 GGUF file",
                         name);
}

/* ---- tensors ---- */

static fv_type type_of(const gguf_out *g, const fv_weight *t)
{
    if (!fv_type_is_block(g->type))
        return g->type;
    if (t->k % FV_BLOCK)
        return FV_TYPE_F16;
    return t->slot == &g->s->weights.decoder.embed || t->slot == &g->s->weights.decoder.head
               ? FV_TYPE_Q8_0
               : g->type;
}

typedef struct row_job {
    const gguf_out *g;
    const fv_mat *m;
    size_t at;
    fv_type type;
} row_job;

/* Row at + task of a matrix in the file's type, into converted. */
static void convert_row(void *user, size_t task, unsigned worker)
{
    const row_job *j = user;
    const gguf_out *g = j->g;
    const fv_mat *m = j->m;
    const uint8_t *from = (const uint8_t *)m->data + (j->at + task) * fv_row_bytes(m->type, m->k);
    uint8_t *to = g->converted + task * fv_row_bytes(j->type, m->k);
    float *values = g->values + task * m->k;
    (void)worker;
    if (j->type == m->type) {
        memcpy(to, from, fv_row_bytes(j->type, m->k));
    } else if (fv_type_is_block(j->type) || fv_type_is_block(m->type)) {
        g->s->kernels.convert[FV_TYPE_F32][m->type](values, from, m->k);
        if (fv_type_is_block(j->type))
            fv_quantize_weights(j->type, to, values, m->k);
        else
            g->s->kernels.convert[j->type][FV_TYPE_F32](to, values, m->k);
    } else {
        g->s->kernels.convert[j->type][m->type](to, from, m->k);
    }
}

static fv_status write_matrix(gguf_out *g, const fv_mat *m, fv_type type, fv_error *err)
{
    size_t rows = FV_MAX((size_t)CHUNK / m->k, (size_t)1);
    for (size_t at = 0; at < m->n; at += rows) {
        size_t n = FV_MIN(rows, m->n - at);
        FV_TRY(
            fv_progress(g->callbacks, "decoder", (double)g->n_written / (double)g->n_values, err));
        row_job job = { g, m, at, type };
        fv_pool_run(g->s->pool, n, convert_row, &job);
        FV_TRY(fv_gguf_write(g->w, g->converted, n * fv_row_bytes(type, m->k), err));
        g->n_written += n * m->k;
    }
    return FV_OK;
}

static fv_status put_vector(gguf_out *g, const char *name, const float *v, size_t n, fv_error *err)
{
    uint64_t shape[1] = { n };
    if (!g->listing)
        return fv_gguf_write(g->w, v, n * sizeof *v, err);
    fv_gguf_add_tensor(g->w, name, FV_TYPE_F32, shape, 1);
    g->n_tensors++;
    return FV_OK;
}

static fv_status put_weight(void *user, const fv_weight *t, fv_error *err)
{
    gguf_out *g = user;
    char base[FV_GGUF_NAME] = "", name[FV_GGUF_NAME + 16];
    if (t->part != FV_PART_DECODER)
        return FV_OK;
    FV_TRY(name_of(base, t, err));
    if (t->kind == FV_WEIGHT_VECTOR)
        return put_vector(g, base, *(const float *const *)t->slot, t->n, err);
    const fv_mat *m = t->slot;
    fv_type type = type_of(g, t);
    if (g->listing) {
        uint64_t shape[2] = { m->n, m->k };
        snprintf(name, sizeof name, "%s.weight", base);
        fv_gguf_add_tensor(g->w, name, type, shape, 2);
        g->n_values += m->n * m->k;
        g->n_tensors++;
        g->n_fallback += fv_type_is_block(g->type) && type == FV_TYPE_F16;
        g->capacity = FV_MAX(g->capacity, FV_MAX((size_t)CHUNK, m->k));
    } else {
        FV_TRY(write_matrix(g, m, type, err));
    }
    if (t->kind != FV_WEIGHT_MATRIX_BIAS)
        return FV_OK;
    snprintf(name, sizeof name, "%s.bias", base);
    return put_vector(g, name, m->bias, m->n, err);
}

/* ---- metadata ---- */

static void put_text(gguf_out *g, const char *key, const char *text)
{
    fv_gguf_put_string(g->w, key, text, strlen(text));
}

/* llama.cpp's numbers for general.file_type and for the kinds of tokens. */
static uint32_t file_type(fv_type type)
{
    return type == FV_TYPE_F16    ? 1
           : type == FV_TYPE_Q4_0 ? 2
           : type == FV_TYPE_Q8_0 ? 7
           : type == FV_TYPE_BF16 ? 32
                                  : 0;
}

enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5 };

static void put_model(gguf_out *g)
{
    const fv_config *c = &g->s->config;
    put_text(g, "general.architecture", "qwen2");
    put_text(g, "general.name", "FastVLM decoder");
    fv_gguf_put_u32(g->w, "general.file_type", file_type(g->type));
    fv_gguf_put_u32(g->w, "general.quantization_version", 2);
    fv_gguf_put_u32(g->w, "qwen2.context_length", (uint32_t)c->max_context);
    fv_gguf_put_u32(g->w, "qwen2.embedding_length", (uint32_t)c->d_model);
    fv_gguf_put_u32(g->w, "qwen2.block_count", (uint32_t)c->n_layers);
    fv_gguf_put_u32(g->w, "qwen2.feed_forward_length", (uint32_t)c->d_ffn);
    fv_gguf_put_u32(g->w, "qwen2.attention.head_count", (uint32_t)c->n_heads);
    fv_gguf_put_u32(g->w, "qwen2.attention.head_count_kv", (uint32_t)c->n_kv_heads);
    fv_gguf_put_f32(g->w, "qwen2.attention.layer_norm_rms_epsilon", (float)c->rms_eps);
    fv_gguf_put_f32(g->w, "qwen2.rope.freq_base", (float)c->rope_theta);
    fv_gguf_put_u32(g->w, "qwen2.vocab_size", (uint32_t)c->n_vocab);
}

/* Rows of the embedding without a token get a name of their own, as llama.cpp's converter does. */
static fv_status put_tokens(gguf_out *g, fv_error *err)
{
    const fv_tokenizer *t = g->s->tokenizer;
    size_t n_rows = (size_t)g->s->config.n_vocab, n_merges,
           room = 2 * fv_tokenizer_max_bytes(t) + 32;
    fv_status status = FV_OK;
    fv_merge_ids *merges = NULL;
    int32_t *kinds = fv_alloc(n_rows, sizeof *kinds);
    char *text = fv_alloc(2, room);
    if (!kinds || !text) {
        status = fv_fail_memory(err, n_rows * sizeof *kinds + 2 * room, "the vocabulary");
        goto fail;
    }
    FV_TRY_GOTO(fv_tokenizer_merges(t, &merges, &n_merges, err));
    fv_gguf_put_strings(g->w, "tokenizer.ggml.tokens", n_rows);
    for (size_t id = 0; id < n_rows; id++) {
        fv_token_kind kind = fv_tokenizer_kind(t, (int32_t)id);
        size_t n = kind == FV_TOKEN_NONE ? (size_t)snprintf(text, room, "[PAD%zu]", id)
                                         : fv_tokenizer_stored_text(t, (int32_t)id, text);
        fv_gguf_put_item(g->w, text, n);
        kinds[id] = kind == FV_TOKEN_NORMAL    ? TOKEN_NORMAL
                    : kind == FV_TOKEN_SPECIAL ? TOKEN_CONTROL
                    : kind == FV_TOKEN_ADDED   ? TOKEN_USER
                                               : TOKEN_UNUSED;
    }
    fv_gguf_put_array(g->w, "tokenizer.ggml.token_type", FV_GGUF_I32, kinds, n_rows);
    fv_gguf_put_strings(g->w, "tokenizer.ggml.merges", n_merges);
    for (size_t i = 0; i < n_merges; i++) {
        size_t n = fv_tokenizer_stored_text(t, merges[i].left, text);
        text[n++] = ' ';
        n += fv_tokenizer_stored_text(t, merges[i].right, text + n);
        fv_gguf_put_item(g->w, text, n);
    }
fail:
    fv_free(merges);
    fv_free(kinds);
    fv_free(text);
    return status;
}

/* The question with a picture in front of it is not something this file can answer; text is. */
static const char chat_template[] =
    "{%- for m in messages -%}"
    "{%- if loop.first and m.role != 'system' -%}{{ '<|im_start|>system\\nYou are a helpful "
    "assistant.<|im_end|>\\n' }}"
    "{%- endif -%}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

static fv_status put_tokenizer(gguf_out *g, fv_error *err)
{
    int32_t start, end, pad;
    FV_TRY(fv_model_token(g->s, "<|im_start|>", &start, err));
    FV_TRY(fv_model_token(g->s, "<|im_end|>", &end, err));
    FV_TRY(fv_model_token(g->s, "<|endoftext|>", &pad, err));
    put_text(g, "tokenizer.ggml.model", "gpt2");
    put_text(g, "tokenizer.ggml.pre", "qwen2");
    FV_TRY(put_tokens(g, err));
    fv_gguf_put_u32(g->w, "tokenizer.ggml.bos_token_id", (uint32_t)pad);
    fv_gguf_put_u32(g->w, "tokenizer.ggml.eos_token_id", (uint32_t)end);
    fv_gguf_put_u32(g->w, "tokenizer.ggml.padding_token_id", (uint32_t)pad);
    fv_gguf_put_bool(g->w, "tokenizer.ggml.add_bos_token", false);
    put_text(g, "tokenizer.chat_template", chat_template);
    return FV_OK;
}

static fv_status write_all(gguf_out *g, fv_error *err)
{
    fv_model *s = (fv_model *)(uintptr_t)g->s;
    put_model(g);
    FV_TRY(put_tokenizer(g, err));
    g->listing = true;
    FV_TRY(fv_weights_walk(&s->weights, &s->config, put_weight, g, err));
    g->listing = false;
    g->values = fv_alloc(g->capacity, sizeof(float));
    g->converted = fv_alloc(g->capacity, sizeof(float));
    if (!g->values || !g->converted)
        return fv_fail_memory(err, 2 * g->capacity * sizeof(float), "a buffer for weights");
    FV_TRY(fv_gguf_begin_data(g->w, err));
    FV_TRY(fv_weights_walk(&s->weights, &s->config, put_weight, g, err));
    return fv_gguf_finish(g->w, err);
}

fv_status fv_export_gguf(const char *model, fv_decoder_type type, const char *file,
                         const fv_export_options *options, fv_error *err)
{
    static const fv_type types[] = { FV_TYPE_F16, FV_TYPE_Q8_0, FV_TYPE_Q4_0, FV_TYPE_BF16,
                                     FV_TYPE_F32 };
    fv_export_options o;
    fv_callbacks callbacks;
    fv_model s;
    gguf_out g = { .s = &s, .callbacks = &callbacks };
    fv_status status = FV_OK;
    FV_REQUIRE(model, err);
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if ((unsigned)type >= FV_COUNT(types))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "unknown type; expected f16, q8_0, q4_0, bf16 or f32");
    g.type = types[type];
    if (fv_is_dir(file))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: is a directory; expected the name of a file to write", file);
    FV_TRY(fv_model_open(
        &s, model, &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = o.callbacks }, err));
    fv_outfile_leftovers(file, o.callbacks);
    if ((status = fv_gguf_writer_new(&g.w, file, err)) == FV_OK)
        status = write_all(&g, err);
    uint64_t n_bytes = g.w && status == FV_OK ? fv_gguf_total_bytes(g.w) : 0;
    fv_gguf_writer_free(g.w);
    fv_free(g.values);
    fv_free(g.converted);
    if (status == FV_OK && g.n_fallback)
        fv_log(o.callbacks, FV_LOG_INFO,
               "%zu matrices are stored as f16: their row length is not a multiple of 32",
               g.n_fallback);
    if (status == FV_OK)
        fv_log(o.callbacks, FV_LOG_INFO, "%s: %zu tensors, %s, %.1f MB", file, g.n_tensors,
               fv_type_name(g.type), (double)n_bytes / 1e6);
    fv_model_close(&s);
    return status;
}
