/* The ONNX export, read back: well-formed graphs, the promised signatures, weights in the right
 * order. What the graphs compute is checked in ONNX Runtime by tests/interop. */
#include "support/cm.h"

#include <onnx.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/half.h"
#include "fastvlm_tools.h"
#include "io/tensors.h"
#include "support/golden.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define BASE FV_SOURCE_DIR "/tests/data/variants/base/checkpoint"

static const fv_export_options force = { .size = sizeof force, .force = true };

static Onnx__ModelProto *read_model(const char *dir, const char *name)
{
    char path[1024];
    uint8_t *bytes;
    size_t n;
    fv_error err;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (fv_read_file(&bytes, &n, path, 1 << 28, &err) != FV_OK)
        fail_msg("%s", err.message);
    Onnx__ModelProto *m = onnx__model_proto__unpack(NULL, n, bytes);
    fv_free(bytes);
    assert_non_null(m);
    assert_non_null(m->graph);
    return m;
}

static void free_model(Onnx__ModelProto *m) { onnx__model_proto__free_unpacked(m, NULL); }

static const Onnx__TensorProto *find(const Onnx__ModelProto *m, const char *name)
{
    for (size_t i = 0; i < m->graph->n_initializer; i++)
        if (!strcmp(m->graph->initializer[i]->name, name))
            return m->graph->initializer[i];
    fail_msg("no initialiser %s", name);
    return NULL;
}

static void export(const char *model, fv_onnx_options *s, const char *dir)
{
    fv_error err;
    if (fv_export_onnx(model, s, dir, &force, &err) != FV_OK)
        fail_msg("%s", err.message);
}

/* ---- structure ---- */

static bool is_defined(const Onnx__GraphProto *g, const char *name, size_t n_nodes)
{
    for (size_t i = 0; i < g->n_input; i++)
        if (!strcmp(g->input[i]->name, name))
            return true;
    for (size_t i = 0; i < g->n_initializer; i++)
        if (!strcmp(g->initializer[i]->name, name))
            return true;
    for (size_t i = 0; i < n_nodes; i++)
        for (size_t j = 0; j < g->node[i]->n_output; j++)
            if (!strcmp(g->node[i]->output[j], name))
                return true;
    return false;
}

static void check_structure(const Onnx__ModelProto *m, int opset)
{
    const Onnx__GraphProto *g = m->graph;
    assert_string_equal(m->producer_name, "fastvlm");
    assert_int_equal(m->n_opset_import, 1);
    assert_int_equal(m->opset_import[0]->version, opset);
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t j = 0; j < g->node[i]->n_input; j++)
            if (!is_defined(g, g->node[i]->input[j], i))
                fail_msg("%s reads %s, which nothing before it writes", g->node[i]->name,
                         g->node[i]->input[j]);
        for (size_t j = 0; j < g->node[i]->n_output; j++)
            if (is_defined(g, g->node[i]->output[j], i))
                fail_msg("%s is written twice", g->node[i]->output[j]);
    }
    for (size_t i = 0; i < g->n_output; i++)
        assert_true(is_defined(g, g->output[i]->name, g->n_node));
    for (size_t i = 0; i < g->n_initializer; i++) {
        const Onnx__TensorProto *t = g->initializer[i];
        size_t n = t->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16 ? 2
                   : t->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__INT64 ? 8
                                                                          : 4;
        for (size_t j = 0; j < t->n_dims; j++)
            n *= (size_t)t->dims[j];
        if (!t->n_external_data)
            assert_int_equal(t->raw_data.len, n);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(t->name, g->initializer[j]->name);
    }
}

/* "name:type[dims] ..." of inputs or outputs */
static void describe(char *text, size_t room, Onnx__ValueInfoProto **list, size_t n)
{
    size_t at = 0;
    *text = 0;
    for (size_t i = 0; i < n && at < room; i++) {
        const Onnx__TypeProto__Tensor *t = list[i]->type->tensor_type;
        at += (size_t)snprintf(text + at, room - at, "%s%s:%d[", i ? " " : "", list[i]->name,
                               t->elem_type);
        for (size_t j = 0; j < t->shape->n_dim && at < room; j++) {
            const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[j];
            if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM)
                at += (size_t)snprintf(text + at, room - at, "%s%s", j ? "," : "", d->dim_param);
            else
                at += (size_t)snprintf(text + at, room - at, "%s%d", j ? "," : "",
                                       (int)d->dim_value);
        }
        at += (size_t)snprintf(text + at, room - at, "]");
    }
}

static void check_signature(const Onnx__ModelProto *m, const char *inputs, const char *outputs)
{
    char text[4096];
    describe(text, sizeof text, m->graph->input, m->graph->n_input);
    assert_string_equal(text, inputs);
    describe(text, sizeof text, m->graph->output, m->graph->n_output);
    assert_string_equal(text, outputs);
}

/* float is type 1, float16 10, int64 7; tiny: d_model 64, 3 layers, 2 heads of 16 for keys, 512
 * rows */
static void test_signatures(void **state)
{
    (void)state;
    char *dir = temp_dir();
    fv_onnx_options s;
    fv_onnx_options_default(&s);
    s.seq_len = 40;
    s.cache_len = 30;
    export(TINY, &s, dir);
    Onnx__ModelProto *m = read_model(dir, "vision_encoder_fp32.onnx");
    check_structure(m, 14);
    check_signature(m, "pixel_values:1[1,3,256,256]", "image_features:1[1,16,64]");
    free_model(m);
    m = read_model(dir, "embed_tokens_fp32.onnx");
    check_structure(m, 14);
    check_signature(m, "input_ids:7[1,40]", "inputs_embeds:1[1,40,64]");
    free_model(m);
    m = read_model(dir, "decoder_fixed_kv_fp32.onnx");
    check_structure(m, 14);
    check_signature(m,
                    "inputs_embeds:1[1,1,64] attention_mask:7[1,31] position_ids:7[1,1] "
                    "past_key_values.0.key:1[1,2,30,16] past_key_values.0.value:1[1,2,30,16] "
                    "past_key_values.1.key:1[1,2,30,16] past_key_values.1.value:1[1,2,30,16] "
                    "past_key_values.2.key:1[1,2,30,16] past_key_values.2.value:1[1,2,30,16]",
                    "logits:1[1,1,512] present.0.key:1[1,2,30,16] present.0.value:1[1,2,30,16] "
                    "present.1.key:1[1,2,30,16] present.1.value:1[1,2,30,16] "
                    "present.2.key:1[1,2,30,16] present.2.value:1[1,2,30,16]");
    free_model(m);

    s.target = FV_ONNX_NPU;
    s.parts = FV_ONNX_DECODER;
    s.ops = FV_ONNX_FUSED;
    export(TINY, &s, dir);
    m = read_model(dir, "decoder_npu_fp16.onnx");
    check_structure(m, 23);
    check_signature(m,
                    "inputs_embeds:10[1,1,64] attention_mask:7[1,1,1,31] position_ids:7[1,1] "
                    "past_key_values.0.key:10[1,2,16,30] past_key_values.0.value:10[1,2,30,16] "
                    "past_key_values.1.key:10[1,2,16,30] past_key_values.1.value:10[1,2,30,16] "
                    "past_key_values.2.key:10[1,2,16,30] past_key_values.2.value:10[1,2,30,16]",
                    "logits:10[1,1,512] present.0.key:10[1,2,16,1] present.0.value:10[1,2,1,16] "
                    "present.1.key:10[1,2,16,1] present.1.value:10[1,2,1,16] "
                    "present.2.key:10[1,2,16,1] present.2.value:10[1,2,1,16]");
    free_model(m);

    s.target = FV_ONNX_TRANSFORMERS_JS;
    s.precision = FV_PRECISION_F16;
    s.opset = 17;
    export(TINY, &s, dir);
    m = read_model(dir, "onnx/decoder_model_merged_fp16.onnx");
    check_structure(m, 17);
#define PAST  "batch_size,2,past_sequence_length,16"
#define TOTAL "batch_size,2,total_sequence_length,16"
    check_signature(m,
                    "inputs_embeds:1[batch_size,sequence_length,64] "
                    "attention_mask:7[batch_size,total_sequence_length] "
                    "position_ids:7[batch_size,sequence_length] num_logits_to_keep:7[] "
                    "past_key_values.0.key:10[" PAST "] past_key_values.0.value:10[" PAST "] "
                    "past_key_values.1.key:10[" PAST "] past_key_values.1.value:10[" PAST "] "
                    "past_key_values.2.key:10[" PAST "] past_key_values.2.value:10[" PAST "]",
                    "logits:1[batch_size,num_logits,512] present.0.key:10[" TOTAL
                    "] present.0.value:10[" TOTAL "] "
                    "present.1.key:10[" TOTAL "] present.1.value:10[" TOTAL "] "
                    "present.2.key:10[" TOTAL "] present.2.value:10[" TOTAL "]");
    free_model(m);
    temp_remove(dir);
}

/* ---- nodes ---- */

static size_t count_nodes(const Onnx__ModelProto *m, const char *scope, const char *op)
{
    size_t n = 0;
    for (size_t i = 0; i < m->graph->n_node; i++)
        n += !strncmp(m->graph->node[i]->name, scope, strlen(scope)) &&
             (!op || !strcmp(m->graph->node[i]->op_type, op));
    return n;
}

/* A block with attention, as docs/onnx.md draws it, and the norms of the decoder. */
static void test_operators(void **state)
{
    (void)state;
    char *dir = temp_dir();
    fv_onnx_options s;
    fv_onnx_options_default(&s);
    export(TINY, &s, dir);
    Onnx__ModelProto *m = read_model(dir, "vision_encoder_fp32.onnx");
    assert_int_equal(count_nodes(m, "network.7.0/", NULL), 31);
    assert_int_equal(count_nodes(m, "network.7.0/", "Conv"), 5);
    assert_int_equal(count_nodes(m, "network.7.0/", "Transpose"), 3);
    assert_int_equal(count_nodes(m, "", "GlobalAveragePool"), 1);
    free_model(m);
    m = read_model(dir, "decoder_fixed_kv_fp32.onnx");
    assert_int_equal(count_nodes(m, "", "Sqrt"), 2 * 3 + 1);
    assert_int_equal(count_nodes(m, "", "Cos"), 1);
    assert_int_equal(count_nodes(m, "", "RMSNormalization"), 0);
    free_model(m);
    s.ops = FV_ONNX_FUSED;
    export(TINY, &s, dir);
    m = read_model(dir, "vision_encoder_fp32.onnx");
    assert_int_equal(count_nodes(m, "network.7.0/", NULL), 21);
    assert_int_equal(count_nodes(m, "network.7.0/", "LayerNormalization"), 1);
    assert_int_equal(count_nodes(m, "", "Erf"), 0);
    free_model(m);
    m = read_model(dir, "decoder_fixed_kv_fp32.onnx");
    assert_int_equal(count_nodes(m, "", "Sqrt"), 0);
    assert_int_equal(count_nodes(m, "", "RMSNormalization"), 2 * 3 + 1);
    free_model(m);
    temp_remove(dir);
}

/* ---- weights ---- */

static float f32_at(const Onnx__TensorProto *t, size_t i)
{
    float f;
    memcpy(&f, t->raw_data.data + 4 * i, 4);
    return f;
}

/* A bf16 tensor of the checkpoint. */
static const fv_tensor *stored(const fv_tensors *t, const char *name)
{
    const fv_tensor *x = fv_tensors_find(t, name);
    assert_non_null(x);
    assert_int_equal(x->type, FV_TYPE_BF16);
    return x;
}

static float stored_at(const fv_tensor *x, size_t i)
{
    uint16_t h;
    memcpy(&h, (const uint8_t *)x->data + 2 * i, 2);
    return fv_bf16_to_f32(h);
}

#define TOWER "model.vision_tower.vision_tower.model."

static void test_weights(void **state)
{
    (void)state;
    char *dir = temp_dir();
    fv_error err;
    fv_tensors *t;
    fv_onnx_options s;
    fv_onnx_options_default(&s);
    export(TINY, &s, dir);
    assert_int_equal(fv_tensors_open(&t, TINY, &err), FV_OK);

    Onnx__ModelProto *m = read_model(dir, "embed_tokens_fp32.onnx");
    const Onnx__TensorProto *w = find(m, "embed_tokens.weight");
    const fv_tensor *x = stored(t, "model.embed_tokens.weight");
    for (size_t i = 0; i < x->n_elems; i++)
        assert_true(f32_at(w, i) == stored_at(x, i));
    free_model(m);

    m = read_model(dir, "decoder_fixed_kv_fp32.onnx");
    w = find(m, "layers.1.mlp.up_proj.weight"); /* transposed: [64, 176] of [176, 64] */
    x = stored(t, "model.layers.1.mlp.up_proj.weight");
    assert_int_equal(w->dims[0], 64);
    assert_int_equal(w->dims[1], 176);
    for (size_t i = 0; i < 64; i++)
        for (size_t j = 0; j < 176; j++)
            assert_true(f32_at(w, i * 176 + j) == stored_at(x, j * 64 + i));
    free_model(m);

    m = read_model(dir, "vision_encoder_fp32.onnx");
    w = find(m, "patch_embed.0.weight"); /* the order of the checkpoint again */
    x = stored(t, TOWER "patch_embed.0.reparam_conv.weight");
    for (size_t i = 0; i < x->n_elems; i++)
        assert_true(f32_at(w, i) == stored_at(x, i));
    w = find(m, "network.0.0.token_mixer.weight");
    x = stored(t, TOWER "network.0.0.token_mixer.reparam_conv.weight");
    for (size_t i = 0; i < x->n_elems; i++)
        assert_true(f32_at(w, i) == stored_at(x, i));
    w = find(m, "network.0.0.convffn.fc2.weight"); /* times the layer scale */
    x = stored(t, TOWER "network.0.0.convffn.fc2.weight");
    const fv_tensor *scale = stored(t, TOWER "network.0.0.layer_scale");
    for (size_t i = 0; i < x->n_elems; i++)
        assert_true(f32_at(w, i) ==
                    stored_at(x, i) * stored_at(scale, i / (x->n_elems / scale->n_elems)));
    free_model(m);
    fv_tensors_free(t);
    temp_remove(dir);
}

static const char *external(const Onnx__TensorProto *t, const char *key)
{
    for (size_t i = 0; i < t->n_external_data; i++)
        if (!strcmp(t->external_data[i]->key, key))
            return t->external_data[i]->value;
    fail_msg("%s: no %s", t->name, key);
    return NULL;
}

/* The same values, at multiples of a page in a file of their own. */
static void test_external_data(void **state)
{
    (void)state;
    char *inside = temp_dir(), *outside = temp_dir(), path[1024];
    fv_onnx_options s;
    fv_error err;
    uint8_t *data;
    size_t n, n_outside = 0;
    fv_onnx_options_default(&s);
    s.parts = FV_ONNX_VISION;
    export(TINY, &s, inside);
    s.external_data = true;
    export(TINY, &s, outside);
    Onnx__ModelProto *a = read_model(inside, "vision_encoder_fp32.onnx");
    Onnx__ModelProto *b = read_model(outside, "vision_encoder_fp32.onnx");
    check_structure(b, 14);
    snprintf(path, sizeof path, "%s/vision_encoder_fp32.onnx_data", outside);
    assert_int_equal(fv_read_file(&data, &n, path, 1 << 28, &err), FV_OK);
    assert_int_equal(a->graph->n_initializer, b->graph->n_initializer);
    for (size_t i = 0; i < b->graph->n_initializer; i++) {
        const Onnx__TensorProto *x = a->graph->initializer[i], *y = b->graph->initializer[i];
        assert_string_equal(x->name, y->name);
        if (!y->n_external_data) {
            assert_true(x->raw_data.len < 1024);
            continue;
        }
        assert_string_equal(external(y, "location"), "vision_encoder_fp32.onnx_data");
        size_t offset = (size_t)atoll(external(y, "offset")),
               length = (size_t)atoll(external(y, "length"));
        assert_int_equal(y->data_location, ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL);
        assert_int_equal(offset % 4096, 0);
        assert_int_equal(length, x->raw_data.len);
        assert_true(offset + length <= n);
        assert_memory_equal(data + offset, x->raw_data.data, length);
        n_outside++;
    }
    assert_true(n_outside > 20);
    fv_free(data);
    free_model(a);
    free_model(b);
    temp_remove(inside);
    temp_remove(outside);
}

/* ---- bad input, memory, cancelling ---- */

static void refuses(fv_onnx_options s, const char *part)
{
    char *dir = temp_dir(), path[1024];
    struct stat st;
    fv_error err = { 0 };
    snprintf(path, sizeof path, "%s/x", dir);
    assert_int_equal(fv_export_onnx(BASE, &s, path, NULL, &err), FV_ERR_ARGUMENT);
    if (!strstr(err.message, part))
        fail_msg("message \"%s\" does not hold \"%s\"", err.message, part);
    assert_int_not_equal(stat(path, &st), 0);
    temp_remove(dir);
}

static void test_bad_settings(void **state)
{
    (void)state;
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .opset = 12 },
            "opset is 12; expected 13 to 24");
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .opset = 25 }, "opset is 25");
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .cache_len = -1 },
            "cache_len is -1; expected 1");
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .step_len = 4097 },
            "step_len is 4097");
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .seq_len = -5 }, "seq_len is -5");
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .image_size = 100 },
            "image_size is 100; expected a multiple of 64");
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .precision = FV_PRECISION_BF16 },
            "f32 or f16");
    refuses((fv_onnx_options){ .size = sizeof(fv_onnx_options), .parts = 64 }, "unknown part");
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[1024];
    struct stat st;
    fv_error err;
    int64_t live = fv_mem_live();
    bool done = false;
    fv_onnx_options s;
    fv_onnx_options_default(&s);
    s.target = FV_ONNX_TRANSFORMERS_JS;
    snprintf(path, sizeof path, "%s/x", dir);
    for (uint64_t i = 0; !done; i += i < 100 ? 9 : 41) {
        assert_true(i < 20000);
        fv_mem_fail_after(i);
        fv_status status = fv_export_onnx(BASE, &s, path, &force, &err);
        fv_mem_fail_after(UINT64_MAX);
        done = status == FV_OK;
        if (!done) {
            if (status != FV_ERR_MEMORY)
                fail_msg("failing call %d: %s", (int)i, err.message);
            assert_int_not_equal(stat(path, &st), 0);
        }
        assert_int_equal(fv_mem_live(), live);
    }
    temp_remove(dir);
}

static bool stop_at_decoder(void *user, const char *stage, double done)
{
    (void)user;
    (void)done;
    return strstr(stage, "decoder") != NULL;
}

static void test_cancel(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[1024];
    struct stat st;
    fv_error err;
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = stop_at_decoder };
    fv_export_options o = { .size = sizeof o, .callbacks = &callbacks };
    snprintf(path, sizeof path, "%s/x", dir);
    assert_int_equal(fv_export_onnx(BASE, NULL, path, &o, &err), FV_ERR_CANCELLED);
    assert_int_not_equal(stat(path, &st), 0);
    temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signatures),   cmocka_unit_test(test_operators),
        cmocka_unit_test(test_weights),      cmocka_unit_test(test_external_data),
        cmocka_unit_test(test_bad_settings), cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
