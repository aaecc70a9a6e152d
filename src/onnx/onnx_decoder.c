/* inputs_embeds [1, N, d_model] and a cache -> Qwen2 as an ONNX graph -> logits and the cache.
 *
 * Three ways to keep the cache, one decoder:
 *
 *     fixed    past [kv, C, D], present = the last C of past and new: the newest in slot C - 1,
 *              unused slots at the left, zero and masked
 *     npu      keys past [kv, D, C], values [kv, C, D]; present holds the new entries only and the
 *              host writes them where the mask says
 *     growing  past [kv, P, D] -> present [kv, P + N, D]
 *
 * Keys are kept after RoPE. Query heads that share a key head are folded into rows, so that keys
 * and values are never repeated. */
#include "onnx/onnx_model.h"

#include <math.h>
#include <stdio.h>

/* What every layer needs. */
typedef struct decoder {
    fv_onnx_graph *g;
    const fv_config *c;
    const fv_onnx_shape *s;
    fv_value cos, sin; /* [batch, 1, N, D] */
    /* [batch, 1, 1 or N, positions]: 0 where a row may look, very small elsewhere */
    fv_value bias;
} decoder;

/* position_ids [batch, N] -> angles [batch, N, D / 2] in f32, twice in a row -> cos and sin. */
static void rotary(decoder *d, fv_value positions)
{
    fv_onnx_graph *g = d->g;
    size_t half = (size_t)d->c->d_head / 2;
    float *frequency = fv_onnx_take(g, half, sizeof *frequency);
    if (!frequency)
        return;
    for (size_t m = 0; m < half; m++)
        frequency[m] = 1.0f /
                       (float)pow(d->c->rope_theta, (double)((float)(2 * m) / (float)d->c->d_head));
    fv_onnx_weight *f = fv_onnx_weights(g, "frequency", frequency, FV_TYPE_F32, FV_SHAPE(half));
    f->type = FV_TYPE_F32;
    fv_value rows = fv_onnx_unsqueeze(g, fv_onnx_cast(g, positions, FV_TYPE_F32), FV_INTS(1, 3));
    fv_value angle = fv_onnx(g, "Mul", rows, f->name);
    angle = fv_onnx(g, "Concat", angle, angle);
    fv_onnx_int(g, "axis", -1);
    d->cos = fv_onnx(g, "Cos", angle);
    d->sin = fv_onnx(g, "Sin", angle);
    if (g->real != FV_TYPE_F32) {
        d->cos = fv_onnx_cast(g, d->cos, g->real);
        d->sin = fv_onnx_cast(g, d->sin, g->real);
    }
}

static double forbidden(const fv_onnx_graph *g)
{
    return g->real == FV_TYPE_F16 ? -65504.0 : -0x1p126;
}

/* attention_mask of fixed length, 1 = may be looked at; with several new rows also causal among
 * them. */
static void fixed_bias(decoder *d, fv_value mask)
{
    fv_onnx_graph *g = d->g;
    size_t n = (size_t)d->s->step_len, total = (size_t)d->s->cache_len + n;
    fv_value seen = fv_onnx_cast(g, mask, g->real);
    if (!d->s->npu)
        seen = fv_onnx_unsqueeze(g, seen, FV_INTS(1, 2));
    if (n > 1) {
        float *causal = fv_onnx_take(g, n * total, sizeof *causal);
        for (size_t i = 0; causal && i < n; i++)
            for (size_t j = 0; j <= total - n + i; j++)
                causal[i * total + j] = 1;
        fv_onnx_weight *t = fv_onnx_weights(g, "causal", causal, FV_TYPE_F32,
                                            FV_SHAPE(1, 1, n, total));
        seen = fv_onnx(g, "Mul", seen, t->name);
    }
    fv_value one = fv_onnx_scalar(g, g->real, 1), low = fv_onnx_scalar(g, g->real, forbidden(g));
    d->bias = fv_onnx(g, "Mul", fv_onnx(g, "Sub", one, seen), low);
}

/* Row i of N sees the columns up to past + i of attention_mask [batch, total]. */
static void growing_bias(decoder *d, fv_value x, fv_value mask)
{
    fv_onnx_graph *g = d->g;
    fv_value zero = fv_onnx_i64_scalar(g, 0), one = fv_onnx_i64_scalar(g, 1);
    fv_value total = fv_onnx(g, "Gather", fv_onnx(g, "Shape", mask), one);
    fv_value n = fv_onnx(g, "Gather", fv_onnx(g, "Shape", x), one);
    fv_value column = fv_onnx(g, "Range", zero, total, one);
    fv_value row = fv_onnx(g, "Range", fv_onnx(g, "Sub", total, n), total, one);
    fv_value later = fv_onnx(g, "Greater", column, fv_onnx_unsqueeze(g, row, FV_INTS(1)));
    fv_value hidden = fv_onnx(g, "Equal", fv_onnx_unsqueeze(g, mask, FV_INTS(1, 2)), zero);
    fv_value low = fv_onnx_scalar(g, g->real, forbidden(g)),
             nothing = fv_onnx_scalar(g, g->real, 0);
    d->bias = fv_onnx(g, "Where", fv_onnx(g, "Or", later, hidden), low, nothing);
}

/* [batch, N, heads D] -> [batch, heads, N, D] */
static fv_value split_heads(const decoder *d, fv_value x, int heads)
{
    x = fv_onnx_reshape(d->g, x, FV_INTS(0, 0, heads, d->c->d_head));
    return fv_onnx_transpose(d->g, x, FV_INTS(0, 2, 1, 3));
}

/* x cos + rotate_half(x) sin */
static fv_value rotate(const decoder *d, fv_value x)
{
    fv_onnx_graph *g = d->g;
    int64_t half = d->c->d_head / 2;
    fv_value first = fv_onnx_slice(g, x, 0, half, 3),
             second = fv_onnx_slice(g, x, half, 2 * half, 3);
    fv_value turned = fv_onnx(g, "Concat", fv_onnx(g, "Neg", second), first);
    fv_onnx_int(g, "axis", -1);
    return fv_onnx(g, "Add", fv_onnx(g, "Mul", x, d->cos), fv_onnx(g, "Mul", turned, d->sin));
}

static const char *cache_name(fv_onnx_graph *g, bool past, int layer, bool value)
{
    return fv_onnx_text(g, "%s.%d.%s", past ? "past_key_values" : "present", layer,
                        value ? "value" : "key");
}

/* past and new, and present under its name. fresh [batch, kv, N, D], for the npu's keys [batch, kv,
 * D, N]. */
static fv_value extend(const decoder *d, int layer, bool value, fv_value fresh)
{
    fv_onnx_graph *g = d->g;
    bool turned = d->s->npu && !value;
    const char *past = cache_name(g, true, layer, value),
               *present = cache_name(g, false, layer, value);
    if (d->s->free_batch)
        fv_onnx_call_next(g, present);
    fv_value all = fv_onnx(g, "Concat", past, fresh);
    fv_onnx_int(g, "axis", turned ? 3 : 2);
    if (!d->s->free_batch && !d->s->npu) {
        int64_t n = d->s->step_len, end = d->s->cache_len + n;
        fv_value from = fv_onnx_i64(g, &n, 1), to = fv_onnx_i64(g, &end, 1),
                 axis = fv_onnx_i64(g, FV_INTS(2));
        fv_onnx_call_next(g, present);
        fv_onnx(g, "Slice", all, from, to, axis);
    }
    return all;
}

static fv_value attention(const decoder *d, int layer, fv_value x, const fv_decoder_layer *w)
{
    fv_onnx_graph *g = d->g;
    const fv_config *c = d->c;
    bool npu = d->s->npu;
    fv_value scale = fv_onnx_scalar(g, g->real, 1 / sqrt((double)c->d_head));
    fv_value q = split_heads(d, fv_onnx_linear(g, "self_attn.q_proj", x, &w->q, NULL), c->n_heads);
    fv_value k = split_heads(d, fv_onnx_linear(g, "self_attn.k_proj", x, &w->k, NULL),
                             c->n_kv_heads);
    q = fv_onnx(g, "Mul", rotate(d, q), scale);
    k = rotate(d, k);
    if (npu) {
        fv_onnx_call_next(g, cache_name(g, false, layer, false));
        k = fv_onnx_transpose(g, k, FV_INTS(0, 1, 3, 2));
    }
    fv_value v = fv_onnx_linear(g, "self_attn.v_proj", x, &w->v, NULL);
    v = fv_onnx_reshape(g, v, FV_INTS(0, 0, c->n_kv_heads, c->d_head));
    if (npu)
        fv_onnx_call_next(g, cache_name(g, false, layer, true));
    v = fv_onnx_transpose(g, v, FV_INTS(0, 2, 1, 3));
    k = extend(d, layer, false, k);
    v = extend(d, layer, true, v);
    if (!npu)
        k = fv_onnx_transpose(g, k, FV_INTS(0, 1, 3, 2));

    /* [heads, N, .] seen as [kv, heads / kv * N, .] and back */
    q = fv_onnx_reshape(g, q, FV_INTS(0, c->n_kv_heads, -1, c->d_head));
    fv_value scores = fv_onnx_reshape(g, fv_onnx(g, "MatMul", q, k), FV_INTS(0, c->n_heads, -1, 0));
    fv_value weights = fv_onnx(g, "Softmax", fv_onnx(g, "Add", scores, d->bias));
    fv_onnx_int(g, "axis", -1);
    weights = fv_onnx_reshape(g, weights, FV_INTS(0, c->n_kv_heads, -1, 0));
    fv_value y = fv_onnx_reshape(g, fv_onnx(g, "MatMul", weights, v),
                                 FV_INTS(0, c->n_heads, -1, c->d_head));
    y = fv_onnx_reshape(g, fv_onnx_transpose(g, y, FV_INTS(0, 2, 1, 3)),
                        FV_INTS(0, 0, (int64_t)c->n_heads * c->d_head));
    return fv_onnx_linear(g, "self_attn.o_proj", y, &w->o, NULL);
}

/* SiLU(gate) * up, down */
static fv_value mlp(fv_onnx_graph *g, fv_value x, const fv_decoder_layer *w)
{
    fv_value gate = fv_onnx_linear(g, "mlp.gate_proj", x, &w->gate, NULL);
    gate = fv_onnx(g, "Mul", gate, fv_onnx(g, "Sigmoid", gate));
    fv_value up = fv_onnx_linear(g, "mlp.up_proj", x, &w->up, NULL);
    return fv_onnx_linear(g, "mlp.down_proj", fv_onnx(g, "Mul", gate, up), &w->down, NULL);
}

static void declare_cache(const decoder *d)
{
    fv_onnx_graph *g = d->g;
    const fv_onnx_shape *s = d->s;
    fv_onnx_dim kv = FV_DIM(d->c->n_kv_heads), head = FV_DIM(d->c->d_head);
    fv_onnx_dim batch = s->free_batch ? FV_FREE("batch_size") : FV_DIM(1);
    fv_onnx_dim past = s->free_batch ? FV_FREE("past_sequence_length") : FV_DIM(s->cache_len);
    fv_onnx_dim present = s->free_batch ? FV_FREE("total_sequence_length")
                          : s->npu      ? FV_DIM(s->step_len)
                                        : past;
    for (int i = 0; i < d->c->n_layers; i++)
        for (int value = 0; value < 2; value++) {
            bool turned = s->npu && !value;
            fv_onnx_dim in[4] = { batch, kv, turned ? head : past, turned ? past : head };
            fv_onnx_dim out[4] = { batch, kv, turned ? head : present, turned ? present : head };
            fv_onnx_input(g, cache_name(g, true, i, value), g->real, in, 4);
            fv_onnx_output(g, cache_name(g, false, i, value), g->real, out, 4);
        }
}

/* Ids without a token are never answers, nor is "<image>", which only stands for something in a
 * prompt: their logits sink. The engine does the same when it chooses. [docs/model.md, section
 * 7] */
static fv_value sink(const decoder *d, fv_value logits)
{
    size_t n = (size_t)d->c->n_vocab;
    float *low = fv_onnx_take(d->g, n, sizeof *low);
    if (!low)
        return logits;
    for (size_t i = 0; i < n; i++)
        if (i >= (size_t)d->s->n_tokens || i == (size_t)d->s->image_token)
            low[i] = (float)forbidden(d->g) / 2;
    fv_onnx_weight *t = fv_onnx_weights(d->g, "no_token", low, FV_TYPE_F32, FV_SHAPE(n));
    if (d->s->io == d->g->real)
        fv_onnx_call_next(d->g, "logits");
    return fv_onnx(d->g, "Add", logits, t->name);
}

void fv_onnx_decoder(fv_onnx_graph *g, const fv_config *c, const fv_decoder_weights *w,
                     const fv_onnx_shape *s)
{
    decoder d = { .g = g, .c = c, .s = s };
    bool free = s->free_batch;
    int64_t total = (int64_t)s->cache_len + s->step_len;
    fv_onnx_dim batch = free ? FV_FREE("batch_size") : FV_DIM(1);
    fv_onnx_dim rows = free ? FV_FREE("sequence_length") : FV_DIM(s->step_len);
    fv_onnx_dim embeds[3] = { batch, rows, FV_DIM(c->d_model) },
                logits[3] = { batch, rows, FV_DIM(c->n_vocab) };
    fv_onnx_dim seen[4] = { batch, free ? FV_FREE("total_sequence_length") : FV_DIM(total) };
    if (s->npu) {
        seen[1] = seen[2] = FV_DIM(1);
        seen[3] = FV_DIM(total);
    }
    fv_value x = fv_onnx_input(g, "inputs_embeds", s->io, embeds, 3);
    fv_value mask = fv_onnx_input(g, "attention_mask", FV_TYPE_I64, seen, s->npu ? 4 : 2);
    fv_value positions = fv_onnx_input(g, "position_ids", FV_TYPE_I64, embeds, 2);
    fv_value keep = free ? fv_onnx_input(g, "num_logits_to_keep", FV_TYPE_I64, NULL, 0) : NULL;
    if (free)
        logits[1] = FV_FREE("num_logits");
    fv_onnx_output(g, "logits", s->io, logits, 3);
    declare_cache(&d);

    if (s->io != g->real)
        x = fv_onnx_cast(g, x, g->real);
    rotary(&d, positions);
    if (free)
        growing_bias(&d, x, mask);
    else
        fixed_bias(&d, mask);
    for (int i = 0; i < c->n_layers; i++) {
        const fv_decoder_layer *l = &w->layer[i];
        fv_onnx_scope(g, "layers.%d", i);
        fv_value h = fv_onnx_rms_norm(g, "input_layernorm", x, l->norm1, (size_t)c->d_model,
                                      c->rms_eps);
        x = fv_onnx(g, "Add", x, attention(&d, i, h, l));
        h = fv_onnx_rms_norm(g, "post_attention_layernorm", x, l->norm2, (size_t)c->d_model,
                             c->rms_eps);
        x = fv_onnx(g, "Add", x, mlp(g, h, l));
    }
    fv_onnx_scope(g, "%s", "");
    if (keep) { /* the last rows; all when it is 0, as -0 is the beginning */
        fv_value from = fv_onnx_reshape(g, fv_onnx(g, "Neg", keep), FV_INTS(1));
        fv_value to = fv_onnx_i64(g, FV_INTS(INT64_MAX)), axis = fv_onnx_i64(g, FV_INTS(1));
        x = fv_onnx(g, "Slice", x, from, to, axis);
    }
    x = fv_onnx_rms_norm(g, "norm", x, w->norm, (size_t)c->d_model, c->rms_eps);
    x = fv_onnx_linear(g, "lm_head", x, &w->head, s->io == g->real && !free ? "logits" : NULL);
    if (free)
        x = sink(&d, x);
    if (s->io != g->real) {
        fv_onnx_call_next(g, "logits");
        fv_onnx_cast(g, x, s->io);
    }
}

void fv_onnx_embed(fv_onnx_graph *g, const fv_config *c, const fv_decoder_weights *w,
                   const fv_onnx_shape *s)
{
    fv_onnx_dim dims[3] = { s->free_batch ? FV_FREE("batch_size") : FV_DIM(1),
                            s->free_batch ? FV_FREE("sequence_length") : FV_DIM(s->seq_len),
                            FV_DIM(c->d_model) };
    fv_value ids = fv_onnx_input(g, "input_ids", FV_TYPE_I64, dims, 2);
    /* looked up before the picture takes its place */
    if (s->free_batch && s->image_token >= c->n_vocab) {
        fv_value last = fv_onnx_i64_scalar(g, c->n_vocab - 1);
        ids = fv_onnx(g, "Min", ids, last);
    }
    fv_onnx_weight *table = fv_onnx_weights(g, "embed_tokens.weight", w->embed.data, w->embed.type,
                                            FV_SHAPE(w->embed.n, w->embed.k));
    if (s->io == g->real)
        fv_onnx_call_next(g, "inputs_embeds");
    fv_value x = fv_onnx(g, "Gather", table->name, ids);
    if (s->io != g->real) {
        fv_onnx_call_next(g, "inputs_embeds");
        fv_onnx_cast(g, x, s->io);
    }
    fv_onnx_output(g, "inputs_embeds", s->io, dims, 3);
}
