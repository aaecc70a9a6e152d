/* inputs_embeds [1, N, d_model] and a cache -> Qwen2 -> logits and the cache, as a graph.
 * nn/decoder.c is the same, executed; docs/model.md, section 6. The ways to keep the cache:
 * fv_cache_kind. */
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>

/* What every layer needs. */
typedef struct decoder_graph {
    fv_graph *g;
    const fv_config *c;
    const fv_graph_spec *s;
    fv_value *cos, *sin; /* [batch, 1, N, D] */
    fv_value *bias;      /* [batch, 1, 1 or N, positions]: 0 where a row may look; NULL: causal */
    fv_value **past;     /* [n_layers, 2] keys and values; NULL: no cache */
    fv_value **present;
    fv_dim total; /* rows of past and new together */
} decoder_graph;

/* What a forbidden position gets in place of 0. */
static double forbidden_score(fv_type real) { return real == FV_TYPE_F16 ? -65504.0 : -0x1p126; }

/* Angles are positions times f_m = theta^(-2m / D), rounded to f32 as the reference keeps it. */
static void rotary_describe(decoder_graph *d, fv_value *positions)
{
    fv_graph *g = d->g;
    size_t half = (size_t)d->c->d_head / 2;
    float *frequency = fv_graph_take(g, half, sizeof *frequency);
    if (!frequency)
        return;
    for (size_t m = 0; m < half; m++)
        frequency[m] = 1.0f /
                       (float)pow(d->c->rope_theta, (double)((float)(2 * m) / (float)d->c->d_head));
    fv_value *angle = fv_graph_angle(g, positions, frequency, half);
    d->cos = fv_graph_unary(g, FV_OP_COS, angle);
    d->sin = fv_graph_unary(g, FV_OP_SIN, angle);
    d->cos = fv_graph_cast(g, d->cos, d->s->real);
    d->sin = fv_graph_cast(g, d->sin, d->s->real);
}

/* ---- the cache ---- */

/* Past keys and values of every layer as inputs. */
static void past_declare(decoder_graph *d)
{
    fv_graph *g = d->g;
    const fv_graph_spec *s = d->s;
    size_t n = 2 * (size_t)d->c->n_layers, n_read = s->cache_only ? n - 2 : n;
    fv_dim batch = s->free_batch ? FV_FREE("batch_size") : FV_DIM(1);
    fv_dim kv = FV_DIM(d->c->n_kv_heads), head = FV_DIM(d->c->d_head);
    fv_dim rows = s->cache == FV_CACHE_GROWING ? FV_FREE("past_sequence_length")
                                               : FV_DIM(s->cache_len);
    d->past = fv_graph_take(g, n, sizeof *d->past);
    d->present = fv_graph_take(g, n, sizeof *d->present);
    for (size_t i = 0; d->past && d->present && i < n_read; i++) {
        bool turned = s->cache == FV_CACHE_HOST && i % 2 == 0;
        fv_dim dims[] = { batch, kv, turned ? head : rows, turned ? rows : head };
        char name[64];
        snprintf(name, sizeof name, "past_key_values.%zu.%s", i / 2, i % 2 ? "value" : "key");
        d->past[i] = fv_graph_input(g, name, s->real, FV_FORM_HEADS, dims, 4);
    }
}

/* Past and new rows of keys (which 0) or values (1), and what becomes of the cache. */
static fv_value *cache_extend(decoder_graph *d, size_t layer, size_t which, fv_value *fresh)
{
    fv_graph *g = d->g;
    const fv_graph_spec *s = d->s;
    size_t i = 2 * layer + which;
    if (!d->past)
        return fresh;
    bool turned = s->cache == FV_CACHE_HOST && which == 0;
    fv_value *all = fv_graph_concat(g, d->past[i], fresh, turned ? 3 : 2, d->total);
    d->present[i] = s->cache == FV_CACHE_HOST ? fresh
                    : s->cache == FV_CACHE_GROWING
                        ? all
                        : fv_graph_slice(g, all, 2, s->step_len, s->step_len + s->cache_len);
    return all;
}

/* ---- one layer ---- */

/* Keys [batch, kv, N, D] as the cache has them: after RoPE, as the host keeps them [batch, kv, D,
 * N]. */
static fv_value *keys_describe(const decoder_graph *d, fv_value *k)
{
    k = fv_graph_rope(d->g, k, d->cos, d->sin);
    return d->s->cache == FV_CACHE_HOST ? fv_graph_transpose(d->g, k) : k;
}

/* Of a layer behind which nothing is wanted, what the cache gets. */
static void cache_describe(decoder_graph *d, size_t layer, fv_value *x, const fv_decoder_layer *w)
{
    fv_graph *g = d->g;
    size_t kv = (size_t)d->c->n_kv_heads;
    x = fv_graph_norm(g, FV_OP_RMS_NORM, x, "input_layernorm", w->norm1, NULL, d->c->rms_eps);
    fv_value *k = fv_graph_heads(g, fv_graph_linear(g, x, "self_attn.k_proj", &w->k, NULL), kv);
    d->present[2 * layer] = keys_describe(d, k);
    d->present[2 * layer + 1] = fv_graph_heads(
        g, fv_graph_linear(g, x, "self_attn.v_proj", &w->v, NULL), kv);
}

/* Softmax(rope(q) rope(k)^T / sqrt(D)) v: q [batch, heads, N, D], k and v [batch, kv, ., D] */
static fv_value *decoder_attention_describe(decoder_graph *d, size_t layer, fv_value *x,
                                            const fv_decoder_layer *w)
{
    fv_graph *g = d->g;
    size_t heads = (size_t)d->c->n_heads, kv = (size_t)d->c->n_kv_heads;
    bool turned = d->s->cache == FV_CACHE_HOST;
    fv_value *scale = fv_graph_scalar(g, d->s->real, "self_attn.scale",
                                      1 / sqrt((double)d->c->d_head));
    /* [batch, heads, N, D], [batch, kv, N, D] twice */
    fv_value *q = fv_graph_heads(g, fv_graph_linear(g, x, "self_attn.q_proj", &w->q, NULL), heads);
    fv_value *k = fv_graph_heads(g, fv_graph_linear(g, x, "self_attn.k_proj", &w->k, NULL), kv);
    q = fv_graph_mul(g, fv_graph_rope(g, q, d->cos, d->sin), scale, "self_attn.q");
    k = keys_describe(d, k);
    fv_value *v = fv_graph_heads(g, fv_graph_linear(g, x, "self_attn.v_proj", &w->v, NULL), kv);
    k = cache_extend(d, layer, 0, k);
    v = cache_extend(d, layer, 1, v);
    x = fv_graph_attention(g, q, k, v, d->bias, "self_attn.attention", turned);
    return fv_graph_linear(g, x, "self_attn.o_proj", &w->o, NULL);
}

/* down(SiLU(gate(x)) * up(x)): [batch, N, d_model], inside [batch, N, d_ffn] */
static fv_value *mlp_describe(fv_graph *g, fv_value *x, const fv_decoder_layer *w)
{
    fv_value *gate = fv_graph_unary(g, FV_OP_SILU,
                                    fv_graph_linear(g, x, "mlp.gate_proj", &w->gate, NULL));
    fv_value *up = fv_graph_linear(g, x, "mlp.up_proj", &w->up, NULL);
    return fv_graph_linear(g, fv_graph_mul(g, gate, up, "mlp.product"), "mlp.down_proj", &w->down,
                           NULL);
}

/* x = x + attention(norm(x)); x = x + MLP(norm(x)) */
static fv_value *layer_describe(decoder_graph *d, size_t layer, fv_value *x,
                                const fv_decoder_layer *w)
{
    fv_graph *g = d->g;
    double eps = d->c->rms_eps;
    fv_value *h = fv_graph_norm(g, FV_OP_RMS_NORM, x, "input_layernorm", w->norm1, NULL, eps);
    x = fv_graph_add(g, x, decoder_attention_describe(d, layer, h, w), "self_attn.sum");
    h = fv_graph_norm(g, FV_OP_RMS_NORM, x, "post_attention_layernorm", w->norm2, NULL, eps);
    x = fv_graph_add(g, x, mlp_describe(g, h, w), "mlp.sum");
    fv_graph_stage(g, x, "decoder.layer.%zu", layer);
    return x;
}

/* ---- the whole ---- */

/* Ids without a token are never answers, nor is "<image>", which only stands for something in a
 * prompt: their logits sink. The engine does the same when it chooses. [docs/model.md, section
 * 7] */
static fv_value *sink_describe(const decoder_graph *d, fv_value *logits)
{
    size_t n = (size_t)d->c->n_vocab;
    float *low = fv_graph_take(d->g, n, sizeof *low);
    for (size_t i = 0; low && i < n; i++)
        if (i >= (size_t)d->s->n_tokens || i == (size_t)d->s->image_token)
            low[i] = (float)forbidden_score(d->s->real) / 2;
    fv_value *sunk = fv_graph_vector(d->g, d->s->real, "no_token", low, n);
    return fv_graph_add(d->g, logits, sunk, "sunk_logits");
}

/* keep: of how many of the last rows; NULL: all */
static void head_describe(const decoder_graph *d, fv_value *x, fv_value *keep,
                          const fv_decoder_weights *w)
{
    fv_graph *g = d->g;
    if (keep)
        x = fv_graph_tail(g, x, keep, "num_logits");
    x = fv_graph_norm(g, FV_OP_RMS_NORM, x, "norm", w->norm, NULL, d->c->rms_eps);
    x = fv_graph_linear(g, x, "lm_head", &w->head, NULL);
    if (d->s->sink)
        x = sink_describe(d, x);
    fv_graph_stage(g, x, "logits");
    fv_graph_output(g, fv_graph_cast(g, x, d->s->io), "logits");
}

/* attention_mask, of all rows that may be seen; its number of dimensions is the reference Qualcomm
 * pipeline's */
static fv_value *mask_declare(const decoder_graph *d, fv_dim batch)
{
    fv_dim seen[] = { batch, d->total };
    fv_dim seen4[] = { batch, FV_DIM(1), FV_DIM(1), d->total };
    bool host = d->s->cache == FV_CACHE_HOST;
    return fv_graph_input(d->g, "attention_mask", FV_TYPE_I64, FV_FORM_OTHER, host ? seen4 : seen,
                          host ? 4 : 2);
}

void fv_graph_decoder(fv_graph *g, const fv_config *c, const fv_decoder_weights *w,
                      const fv_graph_spec *s)
{
    bool growing = s->cache == FV_CACHE_GROWING;
    decoder_graph d = { .g = g, .c = c, .s = s };
    fv_dim batch = s->free_batch ? FV_FREE("batch_size") : FV_DIM(1);
    fv_dim rows = growing ? FV_FREE("sequence_length") : FV_DIM(s->step_len);
    fv_dim embeds[] = { batch, rows, FV_DIM(c->d_model) };
    fv_value *mask = NULL, *keep = NULL;
    d.total = growing ? FV_FREE("total_sequence_length") : FV_DIM(s->cache_len + s->step_len);
    fv_value *x = fv_graph_input(g, "inputs_embeds", s->io, FV_FORM_ROWS, embeds, 3);
    if (s->cache != FV_CACHE_NONE)
        mask = mask_declare(&d, batch);
    fv_value *positions = fv_graph_input(g, "position_ids", FV_TYPE_I64, FV_FORM_OTHER, embeds, 2);
    if (growing)
        keep = fv_graph_input(g, "num_logits_to_keep", FV_TYPE_I64, FV_FORM_OTHER, NULL, 0);
    if (s->cache != FV_CACHE_NONE)
        past_declare(&d);

    fv_graph_scope(g, "decoder", "%s", "");
    x = fv_graph_cast(g, x, s->real);
    rotary_describe(&d, positions);
    if (mask)
        d.bias = fv_graph_mask(g, mask, x, s->real, growing ? 0 : s->step_len, s->cache_len);
    const size_t n_whole = (size_t)c->n_layers - s->cache_only;
    for (size_t i = 0; i < (size_t)c->n_layers; i++) {
        fv_graph_scope(g, "decoder", "layers.%zu", i);
        if (i < n_whole)
            x = layer_describe(&d, i, x, &w->layer[i]);
        else if (d.present)
            cache_describe(&d, i, x, &w->layer[i]);
    }
    fv_graph_scope(g, "decoder", "%s", "");
    if (!s->cache_only)
        head_describe(&d, x, keep, w);
    for (size_t i = 0; d.present && i < 2 * (size_t)c->n_layers; i++)
        fv_graph_output(g, d.present[i], "present.%zu.%s", i / 2, i % 2 ? "value" : "key");
}
