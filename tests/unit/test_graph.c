/* The graph of each part: names, shapes and uses of values, signatures, and the numbers of
 * docs/model.md, section 11, counted by a backend of twenty lines. */
#include "support/cm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "graph/graph.h"

/* FastVLM-0.5B */
static const fv_config half_billion = {
    .image_size = 1024,
    .n_stages = 5,
    .stage = { { .depth = 2, .width = 96, .hidden = 384 },
               { .depth = 12, .width = 192, .hidden = 768 },
               { .depth = 24, .width = 384, .hidden = 1536 },
               { .depth = 4, .width = 768, .hidden = 3072, .attention = true, .cpe = 7 },
               { .depth = 2, .width = 1536, .hidden = 6144, .attention = true, .cpe = 7 } },
    .mixer_kernel = 3,
    .down_kernel = 7,
    .n_features = 3072,
    .n_squeeze = 192,
    .d_head_vision = 32,
    .d_model = 896,
    .d_ffn = 4864,
    .n_layers = 24,
    .n_heads = 14,
    .n_kv_heads = 2,
    .d_head = 64,
    .n_vocab = 151936,
    .rope_theta = 1e6,
    .rms_eps = 1e-6,
    .tied = true,
};

static const fv_graph_spec plain = {
    .image_size = 1024, .seq_len = 40, .step_len = 280, .cache = FV_CACHE_NONE
};

typedef struct parts {
    fv_weights weights;
    fv_graph vision, embed, decoder;
    fv_error err;
} parts;

static void parts_build(parts *p, const fv_graph_spec *s)
{
    *p = (parts){ 0 };
    assert_int_equal(fv_graph_outline(&p->weights, &half_billion, &p->err), FV_OK);
    fv_graph_begin(&p->vision, "vision", &p->err);
    fv_graph_vision(&p->vision, &half_billion, &p->weights.vision, s);
    fv_graph_begin(&p->embed, "embed", &p->err);
    fv_graph_embed(&p->embed, &half_billion, &p->weights.decoder, s);
    fv_graph_begin(&p->decoder, "decoder", &p->err);
    fv_graph_decoder(&p->decoder, &half_billion, &p->weights.decoder, s);
    assert_int_equal(fv_graph_status(&p->vision), FV_OK);
    assert_int_equal(fv_graph_status(&p->embed), FV_OK);
    assert_int_equal(fv_graph_status(&p->decoder), FV_OK);
}

static void parts_free(parts *p)
{
    fv_graph_end(&p->vision);
    fv_graph_end(&p->embed);
    fv_graph_end(&p->decoder);
    fv_weights_free(&p->weights);
}

/* ---- a backend that counts multiply-accumulates ---- */

typedef struct counts {
    double pointwise, attention_linear, attention, depthwise7, depthwise3, stem, down, cpe, squeeze;
    double total;
} counts;

static fv_status count_conv(void *user, const fv_node *n)
{
    counts *c = user;
    c->stem += (double)fv_value_elems(n->out) * (double)n->conv.w->k;
    return FV_OK;
}

static fv_status count_depthwise(void *user, const fv_node *n)
{
    counts *c = user;
    const fv_dw *w = n->depthwise.w;
    double *kind = w->kernel == 3                ? &c->depthwise3
                   : n->depthwise.stride == 2    ? &c->down
                   : strstr(n->layer, "convffn") ? &c->depthwise7
                                                 : &c->cpe;
    *kind += (double)fv_value_elems(n->out) * w->kernel * w->kernel;
    return FV_OK;
}

static fv_status count_linear(void *user, const fv_node *n)
{
    counts *c = user;
    double *kind = strstr(n->layer, "token_mixer") ? &c->attention_linear
                   : strstr(n->layer, "se.")       ? &c->squeeze
                                                   : &c->pointwise;
    *kind += (double)fv_value_elems(n->out) * (double)n->linear.w->k;
    return FV_OK;
}

static fv_status count_attention(void *user, const fv_node *n)
{
    counts *c = user;
    const fv_value *scores = n->op == FV_OP_SELF_ATTENTION ? n->self_attention.scores
                                                           : n->attention.scores;
    double width = (double)fv_value_cols(n->out) / (double)scores->dim[1].n;
    c->attention += 2 * (double)fv_value_elems(scores) * width;
    return FV_OK;
}

static fv_status count_nothing(void *user, const fv_node *n)
{
    (void)user;
    (void)n;
    return FV_OK;
}

static fv_backend counter(void)
{
    fv_backend b = { .name = "counter" };
    for (size_t i = 0; i < FV_OP_COUNT; i++)
        b.op[i] = count_nothing;
    b.op[FV_OP_CONV] = count_conv;
    b.op[FV_OP_DEPTHWISE] = count_depthwise;
    b.op[FV_OP_LINEAR] = count_linear;
    b.op[FV_OP_SELF_ATTENTION] = b.op[FV_OP_ATTENTION] = count_attention;
    return b;
}

static void assert_giga(double got, double want)
{
    if (fabs(got * 1e-9 - want) > 0.0006)
        fail_msg("%.4f GMAC, docs/model.md has %.3f", got * 1e-9, want);
}

static void test_work(void **state)
{
    parts p;
    fv_backend b = counter();
    counts c = { 0 };
    (void)state;
    parts_build(&p, &plain);
    assert_int_equal(fv_graph_lower(&p.vision, &b, &c, &p.err), FV_OK);
    assert_giga(c.pointwise, 215.621 + 0.910); /* the projector, too */
    assert_giga(c.attention_linear, 14.496);
    assert_giga(c.attention, 6.845);
    assert_giga(c.depthwise7, 4.509);
    assert_giga(c.depthwise3, 0.856);
    assert_giga(c.stem, 0.679);
    assert_giga(c.down, 0.289);
    assert_giga(c.cpe, 0.058);
    assert_giga(c.squeeze, 0.001);
    c = (counts){ 0 };
    assert_int_equal(fv_graph_lower(&p.decoder, &b, &c, &p.err), FV_OK);
    assert_giga(c.pointwise / 10, (100.19 + 280 * 0.136134656) / 10); /* the head for every row */
    b.op[FV_OP_ROPE] = NULL;
    assert_int_equal(fv_graph_lower(&p.decoder, &b, &c, &p.err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(p.err.message, "counter has no operation rope"));
    parts_free(&p);
}

/* ---- values ---- */

static void check_values(const fv_graph *g)
{
    for (size_t i = 0; i < g->n_values; i++) {
        const fv_value *v = g->value[i];
        size_t uses = 0, last = 0;
        assert_int_equal(v->index, i);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(v->name, g->value[j]->name);
            if (v->alias)
                assert_string_not_equal(v->alias, g->value[j]->name);
        }
        for (size_t j = 0; j < g->n_nodes; j++)
            for (size_t k = 0; k < g->node[j]->n_in; k++)
                if (g->node[j]->in[k] == v) {
                    assert_true(v->from != g->node[j]);
                    uses++;
                    last = j;
                }
        assert_int_equal(v->n_uses, uses);
        assert_ptr_equal(v->last_use, uses ? g->node[last] : NULL);
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        assert_ptr_equal(g->node[i]->out->from, g->node[i]);
}

static void check_shape(const fv_graph *g, const char *name, fv_form form, const int64_t *dims,
                        int n)
{
    const fv_value *v = fv_graph_find(g, name);
    if (!v)
        fail_msg("%s: no value %s", g->name, name);
    assert_int_equal(v->form, form);
    assert_int_equal(v->n_dims, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(v->dim[i].n, dims[i]);
}

#define DIMS(...) (const int64_t[]){ __VA_ARGS__ }, (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / 8)

static void test_values(void **state)
{
    parts p;
    (void)state;
    parts_build(&p, &plain);
    check_values(&p.vision);
    check_values(&p.embed);
    check_values(&p.decoder);
    /* stages, one under two names; what lies between them; inside attention */
    check_shape(&p.vision, "vision.stem.0", FV_FORM_MAP, DIMS(1, 512, 512, 96));
    check_shape(&p.vision, "vision.network.2.11", FV_FORM_MAP, DIMS(1, 128, 128, 192));
    assert_ptr_equal(fv_graph_find(&p.vision, "vision.network.2"),
                     fv_graph_find(&p.vision, "vision.network.2.11"));
    check_shape(&p.vision, "vision.network.4.3.convffn.fc1.gelu", FV_FORM_MAP,
                DIMS(1, 64, 64, 1536));
    check_shape(&p.vision, "vision.network.7.0.token_mixer.attention.scores", FV_FORM_OTHER,
                DIMS(1, 24, 1024, 1024));
    check_shape(&p.vision, "vision.conv_exp.se.reduce", FV_FORM_MAP, DIMS(1, 1, 1, 192));
    check_shape(&p.vision, "vision.features", FV_FORM_ROWS, DIMS(1, 256, 3072));
    check_shape(&p.vision, "image_tokens", FV_FORM_ROWS, DIMS(1, 256, 896));
    check_shape(&p.decoder, "decoder.layer.23", FV_FORM_ROWS, DIMS(1, 280, 896));
    check_shape(&p.decoder, "decoder.layers.0.self_attn.k_proj.heads.rope", FV_FORM_HEADS,
                DIMS(1, 2, 280, 64));
    check_shape(&p.decoder, "decoder.layers.5.self_attn.attention.weights", FV_FORM_OTHER,
                DIMS(1, 14, 280, 280));
    check_shape(&p.decoder, "logits", FV_FORM_ROWS, DIMS(1, 280, 151936));
    assert_null(fv_graph_find(&p.decoder, "decoder.layer.24"));

    const fv_value *v = fv_graph_find(&p.vision, "vision.network.7.0.convffn.fc2");
    assert_ptr_equal(fv_node_weight(v->from), &p.weights.vision.stage[3].block[0].ffn.fc2);
    assert_int_equal(fv_value_rows(v), 1024);
    assert_int_equal(fv_value_cols(v), 768);
    parts_free(&p);
}

/* ---- signatures ---- */

static void check_io(fv_value *const *list, size_t n, bool output, const char *want)
{
    char text[8192] = "";
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s[", i ? " " : "",
                               output ? list[i]->output : list[i]->name);
        for (int d = 0; d < list[i]->n_dims; d++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", d ? "," : "",
                                   (int)list[i]->dim[d].n);
        at += (size_t)snprintf(text + at, sizeof text - at, "]");
    }
    if (strncmp(text, want, strlen(want)))
        fail_msg("%.300s, expected %s", text, want);
}

/* What an NPU takes: a step, and 128 rows of a prompt with the same cache. */
static void test_signatures(void **state)
{
    parts p;
    fv_graph_spec s = plain;
    (void)state;
    s.cache = FV_CACHE_HOST;
    s.cache_len = 1023;
    s.step_len = 1;
    parts_build(&p, &s);
    check_values(&p.decoder);
    assert_int_equal(p.decoder.n_inputs, 3 + 48);
    assert_int_equal(p.decoder.n_outputs, 1 + 48);
    check_io(p.vision.input, 1, false, "pixel_values[1,1024,1024,3]");
    check_io(p.vision.output, 1, true, "image_features[1,256,896]");
    check_io(p.embed.input, 1, false, "input_ids[1,40]");
    check_io(p.embed.output, 1, true, "inputs_embeds[1,40,896]");
    check_io(p.decoder.input, p.decoder.n_inputs, false,
             "inputs_embeds[1,1,896] attention_mask[1,1,1,1024] position_ids[1,1] "
             "past_key_values.0.key[1,2,64,1023] past_key_values.0.value[1,2,1023,64] past");
    check_io(p.decoder.output, p.decoder.n_outputs, true,
             "logits[1,1,151936] present.0.key[1,2,64,1] present.0.value[1,2,1,64] present.1.key");
    parts_free(&p);

    s.step_len = 128;
    parts_build(&p, &s);
    check_shape(&p.decoder, "attention_mask.mask", FV_FORM_OTHER, DIMS(1, 1, 128, 1151));
    check_shape(&p.decoder, "decoder.layers.0.self_attn.attention.scores", FV_FORM_OTHER,
                DIMS(1, 14, 128, 1151));
    check_io(p.decoder.output, p.decoder.n_outputs, true,
             "logits[1,128,151936] present.0.key[1,2,64,128] present.0.value[1,2,128,64]");
    parts_free(&p);

    s.cache = FV_CACHE_FIXED;
    s.cache_len = 512;
    parts_build(&p, &s);
    check_values(&p.decoder);
    check_io(p.decoder.output, p.decoder.n_outputs, true,
             "logits[1,128,151936] present.0.key[1,2,512,64] present.0.value[1,2,512,64]");
    parts_free(&p);

    s.cache = FV_CACHE_NONE;
    parts_build(&p, &s);
    assert_int_equal(p.decoder.n_inputs, 2);
    assert_int_equal(p.decoder.n_outputs, 1);
    parts_free(&p);
}

/* ---- memory ---- */

static void test_memory_runs_out(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    fv_graph_spec s = plain;
    s.cache = FV_CACHE_FIXED;
    s.sink = true;
    bool done = false;
    for (uint64_t i = 0; !done; i++) {
        fv_weights w;
        fv_graph g;
        fv_error err;
        assert_true(i < 1000);
        fv_mem_fail_after(i);
        fv_status status = fv_graph_outline(&w, &half_billion, &err);
        if (status == FV_OK) {
            fv_graph_begin(&g, "decoder", &err);
            fv_graph_decoder(&g, &half_billion, &w.decoder, &s);
            status = fv_graph_status(&g);
            fv_graph_end(&g);
            fv_weights_free(&w);
        }
        fv_mem_fail_after(UINT64_MAX);
        done = status == FV_OK;
        if (!done)
            assert_int_equal(status, FV_ERR_MEMORY);
        assert_int_equal(fv_mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
