/* A graph -> an ONNX file, streamed.
 *
 * protobuf-c packs the nodes, which are small. Weights are read where the checkpoint is mapped,
 * converted some megabytes at a time and written into the stream as protobuf wants them:
 *
 *     ModelProto   ir_version, producer_name, producer_version, opset_import
 *       7: graph, its length
 *         GraphProto   node, name, input, output             packed by protobuf-c
 *           5: initializer, its length                       for every weight
 *             TensorProto   dims, data_type, name            packed by protobuf-c
 *               9: raw_data, its length, the values          from the weight
 *
 * Lengths are known beforehand, so nothing is written twice. A protobuf message holds less than
 * 2 GiB; beyond that the values go to NAME.onnx_data, each at a multiple of a page (so that a
 * runtime can map them), and the TensorProto says where. */
#include "onnx/onnx_write.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/outfile.h"
#include "base/report.h"

#define MESSAGE_LIMIT ((uint64_t)INT32_MAX)
enum { CHUNK = 1 << 20, STRIP = 32, EXTERNAL_MIN = 1024, EXTERNAL_ALIGN = 4096 };
enum { FIELD_GRAPH = 7, FIELD_INITIALIZER = 5, FIELD_RAW_DATA = 9, WIRE_BYTES = 2 };

typedef struct writer {
    fv_outfile file, data;
    bool external;
    const char *name, *data_name;
    const fv_kernels *k;
    const fv_callbacks *callbacks;
    uint64_t at, data_at, total, done; /* bytes of weights */
    fv_error *err;
} writer;

static uint64_t weight_elems(const fv_onnx_weight *w)
{
    uint64_t n = 1;
    for (int i = 0; i < w->n_dims; i++)
        n *= w->shape[i];
    return n;
}

static uint64_t weight_bytes(const fv_onnx_weight *w)
{
    return weight_elems(w) * fv_type_size(w->type);
}

/* ---- protobuf's wire format -------------------------------------------------------------- */

static size_t varint_put(uint8_t *p, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        p[n++] = (uint8_t)(value | 0x80);
    p[n++] = (uint8_t)value;
    return n;
}

/* The key of a field of bytes, and how many follow. */
static size_t head_put(uint8_t p[16], unsigned field, uint64_t length)
{
    size_t n = varint_put(p, field << 3 | WIRE_BYTES);
    return n + varint_put(p + n, length);
}

static uint64_t head_size(unsigned field, uint64_t length)
{
    uint8_t p[16];
    return head_put(p, field, length);
}

static fv_status head_write(writer *w, unsigned field, uint64_t length)
{
    uint8_t p[16];
    return fv_outfile_write(&w->file, p, head_put(p, field, length), w->err);
}

static fv_status message_write(writer *w, const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = fv_alloc(n, 1);
    if (!packed)
        return fv_fail_memory(w->err, n, "an ONNX message");
    protobuf_c_message_pack(message, packed);
    fv_status status = fv_outfile_write(&w->file, packed, n, w->err);
    fv_free(packed);
    return status;
}

/* ---- the values of a weight -------------------------------------------------------------- */

static fv_status values_put(writer *w, const void *data, size_t n_bytes)
{
    w->done += n_bytes;
    FV_TRY(fv_outfile_write(w->external ? &w->data : &w->file, data, n_bytes, w->err));
    return fv_progress(w->callbacks, w->name, w->total ? (double)w->done / (double)w->total : 1,
                       w->err);
}

static void value_store(void *dst, fv_type type, size_t i, float value)
{
    if (type == FV_TYPE_F16) {
        uint16_t half = fv_f32_to_f16_sat(value);
        memcpy((uint8_t *)dst + 2 * i, &half, 2);
    } else {
        memcpy((uint8_t *)dst + 4 * i, &value, 4);
    }
}

static float weight_load(const fv_onnx_weight *t, uint64_t i)
{
    const uint8_t *p = t->data;
    float f;
    uint16_t h;
    if (t->from == FV_TYPE_I8)
        return (int8_t)p[i];
    if (t->from == FV_TYPE_F32) {
        memcpy(&f, p + 4 * i, 4);
        return f;
    }
    memcpy(&h, p + 2 * i, 2);
    return t->from == FV_TYPE_F16 ? fv_f16_to_f32(h) : fv_bf16_to_f32(h);
}

/* In the order in which they lie. */
static fv_status plain_write(writer *w, const fv_onnx_weight *t)
{
    uint64_t n = weight_elems(t), row = t->n_dims ? n / t->shape[0] : 1;
    fv_status status = FV_OK;
    if (t->from == t->type && !t->row_scale) {
        for (uint64_t at = 0, size = fv_type_size(t->type); at < n; at += CHUNK)
            FV_TRY(values_put(w, (const uint8_t *)t->data + at * size,
                              (size_t)(FV_MIN(n - at, (uint64_t)CHUNK) * size)));
        return FV_OK;
    }
    float *values = fv_alloc(2 * CHUNK, sizeof *values), *out = values + CHUNK;
    if (!values)
        return fv_fail_memory(w->err, 2 * CHUNK * sizeof *values, "a buffer for weights");
    for (uint64_t at = 0; at < n; at += CHUNK) {
        size_t m = (size_t)FV_MIN(n - at, (uint64_t)CHUNK);
        w->k->convert[FV_TYPE_F32][t->from](
            values, (const uint8_t *)t->data + fv_row_bytes(t->from, (size_t)at), m);
        for (size_t i = 0; t->row_scale && i < m; i++)
            values[i] *= t->row_scale[(at + i) / row];
        w->k->convert[t->type][FV_TYPE_F32](out, values, m);
        FV_TRY_GOTO(values_put(w, out, m * fv_type_size(t->type)));
    }
fail:
    fv_free(values);
    return status;
}

/* A matrix stored as [n, k] written as [k, n]: STRIP rows of the result at a time, each read from
 * all rows of the source. */
static fv_status transposed_write(writer *w, const fv_onnx_weight *t)
{
    size_t k = (size_t)t->shape[0], n = (size_t)t->shape[1], size = fv_type_size(t->type);
    size_t row_bytes = fv_row_bytes(t->from, k);
    fv_status status = FV_OK;
    uint8_t *out = fv_alloc(STRIP * n, size);
    if (!out)
        return fv_fail_memory(w->err, STRIP * n * size, "a buffer for weights");
    for (size_t j0 = 0; j0 < k; j0 += STRIP) {
        size_t m = FV_MIN((size_t)STRIP, k - j0);
        float strip[16][STRIP];
        for (size_t i0 = 0; i0 < n; i0 += 16) {
            size_t rows = FV_MIN((size_t)16, n - i0);
            for (size_t i = 0; i < rows; i++)
                w->k->convert[FV_TYPE_F32][t->from](
                    strip[i],
                    (const uint8_t *)t->data + (i0 + i) * row_bytes + fv_row_bytes(t->from, j0), m);
            for (size_t j = 0; j < m; j++)
                for (size_t i = 0; i < rows; i++)
                    value_store(out, t->type, j * n + i0 + i, strip[i][j]);
        }
        FV_TRY_GOTO(values_put(w, out, m * n * size));
    }
fail:
    fv_free(out);
    return status;
}

/* Any order, element by element: small convolutions, int8 widened. */
static fv_status strided_write(writer *w, const fv_onnx_weight *t)
{
    uint64_t n = weight_elems(t), index[FV_ONNX_DIMS] = { 0 };
    size_t size = fv_type_size(t->type);
    uint8_t *out = fv_alloc((size_t)n, size);
    if (!out)
        return fv_fail_memory(w->err, (size_t)n * size, "a buffer for weights");
    for (uint64_t i = 0; i < n; i++) {
        uint64_t from = 0;
        for (int d = 0; d < t->n_dims; d++)
            from += index[d] * t->stride[d];
        if (t->type == FV_TYPE_I8)
            out[i] = ((const uint8_t *)t->data)[from];
        else
            value_store(out, t->type, (size_t)i,
                        weight_load(t, from) * (t->row_scale ? t->row_scale[index[0]] : 1) *
                            (t->column_scale ? t->column_scale[index[1]] : 1));
        for (int d = t->n_dims - 1; d >= 0 && ++index[d] == t->shape[d]; d--)
            index[d] = 0;
    }
    fv_status status = values_put(w, out, (size_t)n * size);
    fv_free(out);
    return status;
}

static fv_status values_write(writer *w, const fv_onnx_weight *t)
{
    if (!t->stride[0])
        return plain_write(w, t);
    if (t->from != FV_TYPE_I8 && t->n_dims == 2 && t->stride[0] == 1 && t->stride[1] == t->shape[0])
        return transposed_write(w, t);
    return strided_write(w, t);
}

/* ---- the file ---------------------------------------------------------------------------- */

/* TensorProto without its values. */
typedef struct header {
    Onnx__TensorProto tensor;
    Onnx__StringStringEntryProto entry[3], *list[3];
    char offset[24], length[24];
    int64_t dims[FV_ONNX_DIMS];
} header;

static bool weight_is_outside(const fv_onnx_weight *t, bool external)
{
    return external && weight_bytes(t) >= EXTERNAL_MIN;
}

/* offset: in the data file, when the values go there. */
static void header_fill(header *h, const fv_onnx_weight *t, bool outside, const char *data_name,
                        uint64_t offset)
{
    static const char *const keys[3] = { "location", "offset", "length" };
    onnx__tensor_proto__init(&h->tensor);
    for (int i = 0; i < t->n_dims; i++)
        h->dims[i] = (int64_t)t->shape[i];
    h->tensor.n_dims = (size_t)t->n_dims;
    h->tensor.dims = h->dims;
    h->tensor.has_data_type = true;
    h->tensor.data_type = fv_onnx_data_type(t->type);
    h->tensor.name = (char *)(uintptr_t)t->name;
    if (!outside)
        return;
    snprintf(h->offset, sizeof h->offset, "%" PRIu64, offset);
    snprintf(h->length, sizeof h->length, "%" PRIu64, weight_bytes(t));
    const char *values[3] = { data_name, h->offset, h->length };
    for (int i = 0; i < 3; i++) {
        onnx__string_string_entry_proto__init(&h->entry[i]);
        h->entry[i].key = (char *)(uintptr_t)keys[i];
        h->entry[i].value = (char *)(uintptr_t)values[i];
        h->list[i] = &h->entry[i];
    }
    h->tensor.n_external_data = 3;
    h->tensor.external_data = h->list;
    h->tensor.has_data_location = true;
    h->tensor.data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}

static uint64_t tensor_size(const fv_onnx_weight *t, bool outside, const char *data_name,
                            uint64_t offset)
{
    header h;
    header_fill(&h, t, outside, data_name, offset);
    uint64_t n = onnx__tensor_proto__get_packed_size(&h.tensor);
    return outside ? n : n + head_size(FIELD_RAW_DATA, weight_bytes(t)) + weight_bytes(t);
}

static uint64_t page_align(uint64_t at)
{
    return (at + EXTERNAL_ALIGN - 1) / EXTERNAL_ALIGN * EXTERNAL_ALIGN;
}

static uint64_t graph_size(const fv_onnx_graph *g, bool external, const char *data_name)
{
    uint64_t n = onnx__graph_proto__get_packed_size(&g->graph), offset = 0;
    for (const fv_onnx_weight *t = g->weights; t; t = t->next) {
        bool outside = weight_is_outside(t, external);
        uint64_t size = tensor_size(t, outside, data_name, offset);
        n += head_size(FIELD_INITIALIZER, size) + size;
        if (outside)
            offset = page_align(offset + weight_bytes(t));
    }
    return n;
}

static fv_status weight_write(writer *w, const fv_onnx_weight *t)
{
    static const uint8_t zeros[EXTERNAL_ALIGN];
    header h;
    bool outside = w->external;
    w->external = weight_is_outside(t, outside);
    header_fill(&h, t, w->external, w->data_name, w->data_at);
    fv_status status = FV_OK;
    FV_TRY_GOTO(
        head_write(w, FIELD_INITIALIZER, tensor_size(t, w->external, w->data_name, w->data_at)));
    FV_TRY_GOTO(message_write(w, &h.tensor.base));
    if (w->external) {
        uint64_t end = w->data_at + weight_bytes(t);
        FV_TRY_GOTO(values_write(w, t));
        w->data_at = t->next ? page_align(end) : end;
        FV_TRY_GOTO(fv_outfile_write(&w->data, zeros, (size_t)(w->data_at - end), w->err));
    } else {
        FV_TRY_GOTO(head_write(w, FIELD_RAW_DATA, weight_bytes(t)));
        FV_TRY_GOTO(values_write(w, t));
    }
fail:
    w->external = outside;
    return status;
}

/* The newest version of the file format that existed when the operator set did. */
static int ir_version(int opset)
{
    return opset <= 14 ? 7 : opset <= 18 ? 8 : opset <= 20 ? 9 : opset <= 22 ? 10 : 11;
}

static fv_status model_write(writer *w, const fv_onnx_graph *g)
{
    Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
    Onnx__OperatorSetIdProto set = ONNX__OPERATOR_SET_ID_PROTO__INIT, *sets[1] = { &set };
    static char producer[] = "fastvlm", version[] = FV_VERSION, domain[] = "";
    set.domain = domain;
    set.has_version = true;
    set.version = g->opset;
    model.has_ir_version = true;
    model.ir_version = ir_version(g->opset);
    model.producer_name = producer;
    model.producer_version = version;
    model.n_opset_import = 1;
    model.opset_import = sets;
    FV_TRY(message_write(w, &model.base));
    FV_TRY(head_write(w, FIELD_GRAPH, graph_size(g, w->external, w->data_name)));
    FV_TRY(message_write(w, &g->graph.base));
    for (const fv_onnx_weight *t = g->weights; t; t = t->next)
        FV_TRY(weight_write(w, t));
    return FV_OK;
}

static fv_status outfile_open_in(fv_outfile *f, const char *dir, const char *name, fv_error *err)
{
    char *path = fv_path_join(dir, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_status status = fv_outfile_open(f, path, err);
    fv_free(path);
    return status;
}

fv_status fv_onnx_write(const fv_onnx_graph *g, const char *dir, const char *shown,
                        const char *name, bool external, const fv_kernels *kernels,
                        const fv_callbacks *callbacks, bool *outside, fv_error *err)
{
    char file_name[FV_ONNX_NAME], data_name[FV_ONNX_NAME];
    FV_TRY(fv_onnx_status(g));
    snprintf(file_name, sizeof file_name, "%s.onnx", name);
    snprintf(data_name, sizeof data_name, "%s.onnx_data", name);
    writer w = {
        .name = file_name, .data_name = data_name, .k = kernels, .callbacks = callbacks, .err = err
    };
    for (const fv_onnx_weight *t = g->weights; t; t = t->next)
        w.total += weight_bytes(t);
    w.external = external || graph_size(g, false, data_name) + 256 > MESSAGE_LIMIT;
    fv_status status = FV_OK;
    FV_TRY_GOTO(outfile_open_in(&w.file, dir, file_name, err));
    if (w.external)
        FV_TRY_GOTO(outfile_open_in(&w.data, dir, data_name, err));
    FV_TRY_GOTO(model_write(&w, g));
    uint64_t n = w.file.n_bytes, n_data = w.data.n_bytes;
    if (w.external)
        FV_TRY_GOTO(fv_outfile_commit(&w.data, err));
    FV_TRY_GOTO(fv_outfile_commit(&w.file, err));
    *outside = w.external;
    if (w.external)
        fv_log(callbacks, FV_LOG_INFO, "%s/%s: %.1f MB, weights in %s: %.1f MB", shown, file_name,
               (double)n / 1e6, data_name, (double)n_data / 1e6);
    else
        fv_log(callbacks, FV_LOG_INFO, "%s/%s: %.1f MB", shown, file_name, (double)n / 1e6);
    return FV_OK;
fail:
    fv_outfile_abandon(&w.file);
    fv_outfile_abandon(&w.data);
    return status;
}
