/* tests/npu/fake_qnn.c: right use passes, and each kind of wrong use is noticed. What it accepts by
 * mistake, the tests that stand on it would accept, too. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "npu/qnn_child.h"
#include "npu/qnn_find.h"

enum { WRONG_USE = 1004, REFUSED = 3110 };

/* Everything a small graph is made of; tests spoil one thing. */
typedef struct bench {
    const fv_qnn_api *api;
    fv_qnn_handle log, backend, device, context, graph;
    fv_qnn_tensor x, w, b, stride, y;
    uint32_t x_dims[4], w_dims[4], b_dims[1], two[1];
    uint8_t weights[3 * 3 * 2 * 4];
    int32_t bias[4];
    uint32_t strides[2];
    fv_qnn_encoding per_channel[4];
    fv_qnn_param params[1];
    fv_qnn_tensor operands[3];
    fv_qnn_op op;
} bench;

static void quiet(const char *format, uint32_t level, uint64_t time, va_list args)
{
    (void)format, (void)level, (void)time, (void)args;
}

static fv_qnn_tensor tensor(const char *name, uint32_t kind, uint32_t type, uint32_t rank,
                            uint32_t *dims, float scale, int32_t offset)
{
    fv_qnn_tensor t = { .version = 1,
                        .name = name,
                        .kind = kind,
                        .type = type,
                        .rank = rank,
                        .dims = dims,
                        .quant = { .defined = FV_QNN_UNDEFINED, .kind = FV_QNN_UNDEFINED } };
    if (scale != 0) {
        t.quant.defined = FV_QNN_DEFINED;
        t.quant.kind = FV_QNN_SCALE_OFFSET;
        t.quant.one = (fv_qnn_encoding){ scale, offset };
    }
    return t;
}

static void bench_fill(bench *k)
{
    memset(k, 0, sizeof *k);
    memcpy(k->x_dims, (uint32_t[]){ 1, 8, 8, 2 }, sizeof k->x_dims);
    memcpy(k->w_dims, (uint32_t[]){ 3, 3, 2, 4 }, sizeof k->w_dims);
    k->b_dims[0] = 4;
    k->two[0] = 2;
    k->strides[0] = k->strides[1] = 1;
    k->x = tensor("x", FV_QNN_INPUT, FV_QNN_UQ8, 4, k->x_dims, 0.01f, -128);
    k->w = tensor("w", FV_QNN_STATIC, FV_QNN_SQ8, 4, k->w_dims, 0, 0);
    for (int i = 0; i < 4; i++)
        k->per_channel[i].scale = 0.01f;
    k->w.quant.defined = FV_QNN_DEFINED;
    k->w.quant.kind = FV_QNN_AXIS_SCALE_OFFSET;
    k->w.quant.axis.axis = 3;
    k->w.quant.axis.n = 4;
    k->w.quant.axis.list = k->per_channel;
    k->w.buffer = (fv_qnn_buffer){ k->weights, sizeof k->weights };
    k->b = tensor("b", FV_QNN_STATIC, FV_QNN_SQ32, 1, k->b_dims, 0.0001f, 0);
    k->b.buffer = (fv_qnn_buffer){ k->bias, sizeof k->bias };
    k->stride = tensor("stride", FV_QNN_STATIC, FV_QNN_U32, 1, k->two, 0, 0);
    k->stride.buffer = (fv_qnn_buffer){ k->strides, sizeof k->strides };
    k->y = tensor("y", FV_QNN_OUTPUT, FV_QNN_UQ8, 4, k->w_dims, 0.02f, 0);
    k->op =
        (fv_qnn_op){ .version = 1, .name = "conv", .package = FV_QNN_PACKAGE, .type = "Conv2d" };
}

#define MUST(call)                                      \
    do {                                                \
        fv_qnn_status must_ = (call);                   \
        if (must_)                                      \
            fail_msg("%s: %u", #call, (unsigned)must_); \
    } while (0)

static void bench_open(bench *k)
{
    static fv_qnn_library library;
    const fv_qnn_provider *p;
    unsetenv("FAKE_QNN");
    if (!library.handle)
        assert_int_equal(fv_qnn_library_open(&library, FV_FAKE_QNN, "libQnnHtp.so", NULL), FV_OK);
    assert_int_equal(fv_qnn_backend_functions(&p, &library, NULL), FV_OK);
    k->api = &p->api;
    fv_qnn_htp_device soc = { .soc_at_4 = 69, .soc_at_8 = 69 };
    fv_qnn_config config = { .custom = &soc };
    const fv_qnn_config *configs[] = { &config, NULL };
    MUST(k->api->log_create(quiet, 1, &k->log));
    MUST(k->api->backend_create(k->log, NULL, &k->backend));
    MUST(k->api->device_create(k->log, configs, &k->device));
    MUST(k->api->context_create(k->backend, k->device, NULL, &k->context));
    MUST(k->api->graph_create(k->context, "g", NULL, &k->graph));
}

/* The first error of creating all tensors. */
static unsigned bench_tensors(bench *k)
{
    fv_qnn_tensor *all[] = { &k->x, &k->w, &k->b, &k->stride, &k->y };
    for (size_t i = 0; i < FV_COUNT(all); i++) {
        fv_qnn_status code = k->api->tensor_create(k->graph, all[i]);
        if (code)
            return fv_qnn_code(code);
    }
    return 0;
}

static unsigned bench_node(bench *k)
{
    memcpy(k->operands, (fv_qnn_tensor[]){ k->x, k->w, k->b }, sizeof k->operands);
    k->params[0] = (fv_qnn_param){ .kind = 1, .name = "stride", .tensor = k->stride };
    k->op.params = k->params;
    k->op.n_params = 1;
    k->op.in = k->operands;
    k->op.n_in = 3;
    k->op.out = &k->y;
    k->op.n_out = 1;
    fv_qnn_status code = k->api->validate(k->backend, k->op);
    return fv_qnn_code(code ? code : k->api->node_add(k->graph, k->op));
}

static unsigned bench_close(bench *k)
{
    fv_qnn_status code = 0;
    code |= k->api->context_free(k->context, NULL);
    code |= k->api->device_free(k->device);
    code |= k->api->backend_free(k->backend);
    code |= k->api->log_free(k->log);
    return fv_qnn_code(code);
}

/* Runs fn in a child, for a stand-in that has seen wrong use ends its process with 88. */
typedef unsigned bench_fn(bench *k);

static fv_status bench_child(void *user, fv_qnn_child *child, fv_error *err)
{
    bench_fn *fn = *(bench_fn **)user;
    bench k;
    bench_fill(&k);
    bench_open(&k);
    unsigned code = fn(&k);
    return fv_qnn_child_write(child, &code, sizeof code, err);
}

static void assert_code(bench_fn *fn, unsigned wanted, const char *said)
{
    fv_qnn_child_result r;
    fv_error err;
    unsigned code;
    fv_qnn_child_options o = { .run = bench_child, .user = &fn, .name = "bench", .stage = "" };
    if (fv_qnn_child_run(&r, &o, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(r.n_bytes, sizeof code);
    memcpy(&code, r.bytes, sizeof code);
    if (code != wanted || !strstr(r.said, said))
        fail_msg("code %u, expected %u with \"%s\"; said: %s", code, wanted, said, r.said);
    if (wanted == 0 && r.n_said)
        fail_msg("it complains: %s", r.said);
    fv_qnn_child_result_free(&r);
}

#define SPOILED(name, spoil)       \
    static unsigned name(bench *k) \
    {                              \
        spoil;                     \
        return bench_tensors(k);   \
    }

SPOILED(tensor_version, k->x.version = 2)
SPOILED(tensor_name_twice, k->w.name = "x")
SPOILED(tensor_kind, k->x.kind = 2)
SPOILED(tensor_type, k->x.type = 0x7)
SPOILED(tensor_dims, k->x_dims[2] = 0)
SPOILED(tensor_rank, k->x.rank = 6)
SPOILED(tensor_no_encoding, k->x.quant.defined = FV_QNN_UNDEFINED)
SPOILED(tensor_scale, k->x.quant.one.scale = 0)
SPOILED(tensor_offset, k->x.quant.one.offset = 1)
SPOILED(tensor_offset_low, k->x.quant.one.offset = -256)
SPOILED(tensor_float_encoding, k->x.type = FV_QNN_F32)
SPOILED(tensor_axis, k->w.quant.axis.axis = 4)
SPOILED(tensor_axis_count, k->w.quant.axis.n = 3)
SPOILED(tensor_axis_offset, k->per_channel[2].offset = -1)
SPOILED(tensor_no_data, k->w.buffer.data = NULL)
SPOILED(tensor_data_size, k->w.buffer.n_bytes--)
SPOILED(tensor_value_data, k->x.buffer.data = k->weights)
#undef SPOILED

static void test_wrong_tensors(void **state)
{
    (void)state;
    static const struct {
        bench_fn *fn;
        const char *said;
    } cases[] = { { tensor_version, "a tensor of version 2" },
                  { tensor_name_twice, "a second one of that name" },
                  { tensor_kind, "kind 2" },
                  { tensor_type, "type 0x7" },
                  { tensor_dims, "dimension 2 is 0" },
                  { tensor_rank, "6 dimensions" },
                  { tensor_no_encoding, "fixed point without an encoding" },
                  { tensor_scale, "scale 0" },
                  { tensor_offset, "offset 1, expected -255 to 0" },
                  { tensor_offset_low, "offset -256, expected" },
                  { tensor_float_encoding, "is not fixed point" },
                  { tensor_axis, "along axis 4 of 4" },
                  { tensor_axis_count, "3 scales along an axis of 4" },
                  { tensor_axis_offset, "offset -1, expected -0 to 0" },
                  { tensor_no_data, "static without data" },
                  { tensor_data_size, "71 bytes, expected 72" },
                  { tensor_value_data, "data, though not static" } };
    for (size_t i = 0; i < FV_COUNT(cases); i++)
        assert_code(cases[i].fn, WRONG_USE, cases[i].said);
}

/* ---- nodes ---- */

static unsigned node_right(bench *k)
{
    uint8_t in[128], out[72];
    uint64_t size, written;
    char data[1000];
    fv_qnn_handle again;

    unsigned code = bench_tensors(k);
    if (!code)
        code = bench_node(k);
    if (code)
        return code;
    MUST(k->api->finalize(k->graph, NULL, NULL));
    k->x.buffer = (fv_qnn_buffer){ in, sizeof in };
    k->y.buffer = (fv_qnn_buffer){ out, sizeof out };
    MUST(k->api->execute(k->graph, &k->x, 1, &k->y, 1, NULL, NULL));
    MUST(k->api->binary_size(k->context, &size));
    assert_true(size < sizeof data);
    MUST(k->api->binary(k->context, data, size, &written));
    MUST(k->api->context_free(k->context, NULL));
    MUST(k->api->context_load(k->backend, k->device, NULL, data, written, &k->context, NULL));
    MUST(k->api->graph_retrieve(k->context, "g", &again));
    k->x.id = 1;
    k->y.id = 2;
    MUST(k->api->execute(again, &k->x, 1, &k->y, 1, NULL, NULL));
    return bench_close(k);
}

static unsigned node_package(bench *k)
{
    k->op.package = "other";
    return bench_tensors(k) + bench_node(k);
}

static unsigned node_not_created(bench *k)
{
    unsigned code = bench_tensors(k);
    k->x.id = 99;
    return code + bench_node(k);
}

static unsigned node_other_record(bench *k)
{
    unsigned code = bench_tensors(k);
    k->x_dims[1] = 9;
    return code + bench_node(k);
}

static unsigned node_reads_unwritten(bench *k)
{
    k->x.kind = FV_QNN_NATIVE;
    return bench_tensors(k) + bench_node(k);
}

static unsigned node_writes_twice(bench *k)
{
    unsigned code = bench_tensors(k) + bench_node(k);
    k->op.name = "conv2";
    return code + bench_node(k);
}

static unsigned node_name_twice(bench *k)
{
    unsigned code = bench_tensors(k) + bench_node(k);
    return code + bench_node(k);
}

static unsigned node_param_late(bench *k)
{
    fv_qnn_tensor later = k->stride;
    later.name = "later";
    unsigned code = bench_tensors(k);
    k->stride = later; /* never created */
    k->stride.id = 77;
    return code + bench_node(k);
}

static unsigned node_unknown(bench *k)
{
    k->op.type = "Frobnicate";
    return bench_tensors(k) + bench_node(k);
}

static unsigned node_wider_output(bench *k)
{
    k->y.type = FV_QNN_UQ16;
    return bench_tensors(k) + bench_node(k);
}

static unsigned node_wide_weights(bench *k)
{
    k->w = tensor("w", FV_QNN_STATIC, FV_QNN_SQ16, 1, k->b_dims, 0.1f, 0);
    k->w.buffer = (fv_qnn_buffer){ k->weights, 8 };
    return bench_tensors(k) + bench_node(k);
}

static unsigned node_two_floats(bench *k)
{
    uint16_t halves[sizeof k->weights] = { 0 };
    fv_qnn_tensor *all[] = { &k->x, &k->w, &k->b, &k->y };
    for (size_t i = 0; i < FV_COUNT(all); i++) {
        all[i]->type = FV_QNN_F32;
        all[i]->quant.defined = all[i]->quant.kind = FV_QNN_UNDEFINED;
    }
    k->w.type = FV_QNN_F16;
    k->w.buffer = (fv_qnn_buffer){ halves, 2 * sizeof k->weights };
    return bench_tensors(k) + bench_node(k);
}

static void test_nodes(void **state)
{
    (void)state;
    assert_code(node_right, 0, "");
    assert_code(node_package, WRONG_USE, "package other");
    assert_code(node_not_created, WRONG_USE, "a tensor that was not created");
    assert_code(node_other_record, WRONG_USE, "is not described as it was created");
    assert_code(node_reads_unwritten, WRONG_USE, "which nothing has written");
    assert_code(node_writes_twice, WRONG_USE, "a second time");
    assert_code(node_name_twice, WRONG_USE, "a second one of that name");
    assert_code(node_param_late, WRONG_USE, "a tensor that was not created");
    assert_code(node_unknown, REFUSED, "");
    assert_code(node_wider_output, REFUSED, "");
    assert_code(node_wide_weights, REFUSED, "");
    assert_code(node_two_floats, REFUSED, "");
}

/* ---- order, buffers, handles ---- */

static unsigned order_no_node(bench *k)
{
    return bench_tensors(k) + fv_qnn_code(k->api->finalize(k->graph, NULL, NULL));
}

static unsigned order_output_unwritten(bench *k)
{
    static fv_qnn_tensor z;
    z = tensor("z", FV_QNN_OUTPUT, FV_QNN_UQ8, 4, k->w_dims, 0.02f, 0);
    unsigned code = bench_tensors(k) + bench_node(k);
    MUST(k->api->tensor_create(k->graph, &z));
    return code + fv_qnn_code(k->api->finalize(k->graph, NULL, NULL));
}

static unsigned order_data_gone(bench *k)
{
    unsigned code = bench_tensors(k) + bench_node(k);
    k->weights[5] ^= 1; /* as memory that is given to others is */
    return code + fv_qnn_code(k->api->finalize(k->graph, NULL, NULL));
}

static unsigned order_name_gone(bench *k)
{
    char name[8] = "x";
    k->x.name = name;
    unsigned code = bench_tensors(k) + bench_node(k);
    name[0] = 'q';
    return code + fv_qnn_code(k->api->finalize(k->graph, NULL, NULL));
}

static unsigned order_tensor_late(bench *k)
{
    unsigned code = bench_tensors(k) + bench_node(k);
    MUST(k->api->finalize(k->graph, NULL, NULL));
    k->x.name = "late";
    return code + fv_qnn_code(k->api->tensor_create(k->graph, &k->x));
}

static unsigned order_binary_early(bench *k)
{
    uint64_t n;
    return bench_tensors(k) + bench_node(k) + fv_qnn_code(k->api->binary_size(k->context, &n));
}

static unsigned order_execute_early(bench *k)
{
    return bench_tensors(k) + bench_node(k) +
           fv_qnn_code(k->api->execute(k->graph, &k->x, 1, &k->y, 1, NULL, NULL));
}

static unsigned execute_short_buffer(bench *k)
{
    uint8_t in[128], out[72];
    unsigned code = bench_tensors(k) + bench_node(k);
    MUST(k->api->finalize(k->graph, NULL, NULL));
    k->x.buffer = (fv_qnn_buffer){ in, sizeof in };
    k->y.buffer = (fv_qnn_buffer){ out, sizeof out - 1 };
    return code + fv_qnn_code(k->api->execute(k->graph, &k->x, 1, &k->y, 1, NULL, NULL));
}

static unsigned execute_too_few(bench *k)
{
    unsigned code = bench_tensors(k) + bench_node(k);
    MUST(k->api->finalize(k->graph, NULL, NULL));
    return code + fv_qnn_code(k->api->execute(k->graph, &k->x, 0, &k->y, 1, NULL, NULL));
}

static unsigned free_twice(bench *k)
{
    MUST(k->api->context_free(k->context, NULL));
    return fv_qnn_code(k->api->context_free(k->context, NULL));
}

static unsigned free_in_wrong_order(bench *k)
{
    return fv_qnn_code(k->api->device_free(k->device));
}

static unsigned use_after_free(bench *k)
{
    MUST(k->api->context_free(k->context, NULL));
    return bench_tensors(k);
}

static unsigned device_one_offset(bench *k)
{
    fv_qnn_htp_device soc = { .soc_at_8 = 69 };
    fv_qnn_config config = { .custom = &soc };
    const fv_qnn_config *configs[] = { &config, NULL };
    return fv_qnn_code(k->api->device_create(k->log, configs, &k->device));
}

static unsigned device_unknown(bench *k)
{
    fv_qnn_htp_device soc = { .soc_at_4 = 5, .soc_at_8 = 5 };
    fv_qnn_config config = { .custom = &soc };
    const fv_qnn_config *configs[] = { &config, NULL };
    return fv_qnn_code(k->api->device_create(k->log, configs, &k->device));
}

static unsigned graph_vtcm(bench *k)
{
    fv_qnn_htp_graph vtcm = { .option = FV_QNN_HTP_GRAPH_VTCM_MB, .u32 = 16 };
    fv_qnn_config config = { .custom = &vtcm };
    const fv_qnn_config *configs[] = { &config, NULL };
    return fv_qnn_code(k->api->graph_create(k->context, "h", configs, &k->graph));
}

static unsigned graph_name_twice(bench *k)
{
    return fv_qnn_code(k->api->graph_create(k->context, "g", NULL, &k->graph));
}

static void test_order_and_handles(void **state)
{
    (void)state;
    static const struct {
        bench_fn *fn;
        unsigned code;
        const char *said;
    } cases[] = { { order_no_node, WRONG_USE, "no node" },
                  { order_output_unwritten, WRONG_USE, "nothing writes z" },
                  { order_data_gone, WRONG_USE, "data of w have changed" },
                  { order_name_gone, WRONG_USE, "name or dimensions of x have changed" },
                  { order_tensor_late, WRONG_USE, "the graph is finalized" },
                  { order_binary_early, WRONG_USE, "graph g is not finalized" },
                  { order_execute_early, WRONG_USE, "the graph is not finalized" },
                  { execute_short_buffer, WRONG_USE, "a buffer of 71 bytes, expected 72" },
                  { execute_too_few, WRONG_USE, "0 tensors of kind 0, expected 1" },
                  { free_twice, WRONG_USE, "freed twice" },
                  { free_in_wrong_order, WRONG_USE, "freed before what was made of it" },
                  { use_after_free, WRONG_USE, "not a graph" },
                  { device_one_offset, WRONG_USE, "SoC 0 for libraries before API 2.36" },
                  { device_unknown, 14001, "" },
                  { graph_vtcm, WRONG_USE, "VTCM of 16 MB" },
                  { graph_name_twice, WRONG_USE, "a second graph g" } };
    for (size_t i = 0; i < FV_COUNT(cases); i++)
        assert_code(cases[i].fn, cases[i].code, cases[i].said);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_wrong_tensors),
                                        cmocka_unit_test(test_nodes),
                                        cmocka_unit_test(test_order_and_handles) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
