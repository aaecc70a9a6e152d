/* fv_npu_binary: parsing and the public functions about it. See ctx_info.h. */
#include "npu/ctx_info.h"

#include <float.h>
#include <string.h>

#include "base/sized.h"
#include "io/json.h"
#include "npu/qnn_find.h"
#include "npu/qnn_system.h"
#include "npu/qnn_types.h"

enum { MAX_GRAPHS = 1024, MAX_TENSORS = 65536, MAX_RANK = 16 };

typedef struct ctx_graph {
    fv_npu_graph_info info;
    fv_npu_tensor_info *tensors[2]; /* by fv_npu_tensor_kind; names belong to the document */
    uint32_t *dims[2];              /* [n][MAX_RANK] */
} ctx_graph;

struct fv_npu_binary {
    char *text;
    fv_json *doc; /* names are borrowed from it */
    fv_npu_binary_info info;
    ctx_graph *graphs;
};

/* ---------------------------------------------------------------- parsing */

/* An object's "info", or itself when it has none. */
static const fv_json_value *value_unwrap(const fv_json_value *object)
{
    const fv_json_value *inner = fv_json_member(object, "info");
    return fv_json_type_of(inner) == FV_JSON_OBJECT ? inner : object;
}

static fv_status unsigned_get(const fv_json *doc, const fv_json_value *object, const char *key,
                              unsigned *out, fv_error *err)
{
    int64_t value = *out;
    FV_TRY(fv_json_opt_int(doc, object, key, 0, UINT32_MAX, &value, err));
    *out = (unsigned)value;
    return FV_OK;
}

static fv_status bytes_get(const fv_json *doc, const fv_json_value *object, const char *key,
                           uint64_t *out, fv_error *err)
{
    int64_t value = (int64_t)*out;
    FV_TRY(fv_json_opt_int(doc, object, key, 0, INT64_MAX, &value, err));
    *out = (uint64_t)value;
    return FV_OK;
}

/* scaleOffset; older releases of the utility call it scaleOffsetEncoding. */
static fv_status quant_parse(fv_npu_tensor_info *t, const fv_json *doc, const fv_json_value *tensor,
                             fv_error *err)
{
    const fv_json_value *quant = NULL, *pair = NULL;
    int64_t offset = 0;

    FV_TRY(fv_json_opt_object(doc, tensor, "quantizeParams", &quant, err));
    FV_TRY(fv_json_opt_object(doc, quant, "scaleOffset", &pair, err));
    if (!pair)
        FV_TRY(fv_json_opt_object(doc, quant, "scaleOffsetEncoding", &pair, err));
    if (!pair)
        return FV_OK;
    FV_TRY(fv_json_number(doc, pair, "scale", -FLT_MAX, FLT_MAX, &t->scale, err));
    FV_TRY(fv_json_int(doc, pair, "offset", INT32_MIN, INT32_MAX, &offset, err));
    t->offset = (int32_t)offset;
    t->quantized = t->scale != 0;
    return FV_OK;
}

static fv_status tensor_parse(fv_npu_tensor_info *t, uint32_t *dims, const fv_json *doc,
                              const fv_json_value *value, fv_error *err)
{
    const fv_json_value *tensor = value_unwrap(value);
    const char *label = "";
    int64_t sizes[MAX_RANK];
    size_t rank;

    FV_TRY(fv_json_string(doc, tensor, "name", &t->name, err));
    FV_TRY(fv_json_string(doc, tensor, "dataType", &label, err));
    FV_TRY(unsigned_get(doc, tensor, "id", &t->id, err));
    FV_TRY(fv_json_ints(doc, tensor, "dimensions", 0, UINT32_MAX, 0, MAX_RANK, sizes, &rank, err));
    for (size_t i = 0; i < rank; i++)
        dims[i] = (uint32_t)sizes[i];
    fv_qnn_tensor like = { .type = fv_qnn_type_of_label(label),
                           .rank = (uint32_t)rank,
                           .dims = dims };
    t->type = fv_qnn_type_name(like.type);
    t->rank = (unsigned)rank;
    t->dims = dims;
    t->n_bytes = fv_qnn_tensor_bytes(&like);
    return quant_parse(t, doc, tensor, err);
}

static fv_status tensors_parse(ctx_graph *g, fv_npu_tensor_kind kind, const fv_json *doc,
                               const fv_json_value *graph, size_t *n, fv_error *err)
{
    const fv_json_value *list;

    FV_TRY(fv_json_array(doc, graph, kind == FV_NPU_INPUT ? "graphInputs" : "graphOutputs", &list,
                         err));
    size_t count = fv_json_count(list);
    if (count > MAX_TENSORS)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu tensors in a graph, expected up to %d",
                       fv_json_name(doc), count, MAX_TENSORS);
    g->tensors[kind] = fv_alloc_zero(count, sizeof *g->tensors[kind]);
    g->dims[kind] = fv_alloc_zero(count, MAX_RANK * sizeof(uint32_t));
    if (!g->tensors[kind] || !g->dims[kind])
        return fv_fail_memory(err, count * sizeof *g->tensors[kind], "a graph's tensors");
    for (size_t i = 0; i < count; i++)
        FV_TRY(tensor_parse(&g->tensors[kind][i], g->dims[kind] + i * MAX_RANK, doc,
                            fv_json_at(list, i), err));
    *n = count;
    return FV_OK;
}

static fv_status blobs_parse(fv_npu_graph_info *info, const fv_json *doc,
                             const fv_json_value *graph, fv_error *err)
{
    const fv_json_value *one = NULL, *two = NULL;

    FV_TRY(fv_json_opt_object(doc, graph, "graphBlobInfo", &one, err));
    FV_TRY(fv_json_opt_object(doc, graph, "graphBlobInfoV2", &two, err));
    if (one) {
        one = value_unwrap(one);
        info->has_htp = true;
        FV_TRY(bytes_get(doc, one, "spillFillBufferSize", &info->spill_fill_bytes, err));
        FV_TRY(unsigned_get(doc, one, "vtcmSize", &info->vtcm_mb, err));
        FV_TRY(unsigned_get(doc, one, "optimizationLevel", &info->optimization_level, err));
        FV_TRY(unsigned_get(doc, one, "numHvxThreads", &info->n_hvx_threads, err));
    }
    if (two) {
        two = value_unwrap(two);
        info->has_sizes = true;
        FV_TRY(bytes_get(doc, two, "ioTensorSize", &info->io_bytes, err));
        FV_TRY(bytes_get(doc, two, "opDataSize", &info->op_bytes, err));
        FV_TRY(bytes_get(doc, two, "constSize", &info->constant_bytes, err));
        FV_TRY(bytes_get(doc, two, "ddrTensorSize", &info->ddr_bytes, err));
        FV_TRY(bytes_get(doc, two, "sharedWeightsSize", &info->shared_weight_bytes, err));
    }
    return FV_OK;
}

static fv_status ctx_graph_parse(ctx_graph *g, const fv_json *doc, const fv_json_value *value,
                                 fv_error *err)
{
    const fv_json_value *graph = value_unwrap(value);
    FV_TRY(fv_json_string(doc, graph, "graphName", &g->info.name, err));
    FV_TRY(tensors_parse(g, FV_NPU_INPUT, doc, graph, &g->info.n_inputs, err));
    FV_TRY(tensors_parse(g, FV_NPU_OUTPUT, doc, graph, &g->info.n_outputs, err));
    return blobs_parse(&g->info, doc, graph, err);
}

static fv_status ctx_head_parse(fv_npu_binary *b, const fv_json_value *info, fv_error *err)
{
    const fv_json_value *api = NULL, *metadata = NULL;
    fv_npu_binary_info *i = &b->info;

    i->build = "";
    FV_TRY(unsigned_get(b->doc, info, "backendId", &i->backend, err));
    FV_TRY(fv_json_opt_string(b->doc, info, "buildId", &i->build, err));
    FV_TRY(fv_json_opt_object(b->doc, info, "coreApiVersion", &api, err));
    FV_TRY(unsigned_get(b->doc, api, "major", &i->api_major, err));
    FV_TRY(unsigned_get(b->doc, api, "minor", &i->api_minor, err));
    FV_TRY(unsigned_get(b->doc, info, "socModel", &i->soc_model, err));
    FV_TRY(bytes_get(b->doc, info, "contextBinarySize", &i->file_bytes, err));
    FV_TRY(fv_json_opt_object(b->doc, info, "contextMetadata", &metadata, err));
    if (metadata)
        FV_TRY(unsigned_get(b->doc, value_unwrap(metadata), "dspArch", &i->htp_version, err));
    return FV_OK;
}

static fv_status ctx_parse(fv_npu_binary *b, const char *json, size_t n_bytes, const char *name,
                           fv_error *err)
{
    const fv_json_value *graphs;

    FV_TRY(fv_json_parse(&b->doc, json, n_bytes, name, err));
    const fv_json_value *info = value_unwrap(fv_json_root(b->doc));
    FV_TRY(ctx_head_parse(b, info, err));
    FV_TRY(fv_json_array(b->doc, info, "graphs", &graphs, err));
    size_t n = fv_json_count(graphs);
    if (n > MAX_GRAPHS)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu graphs, expected up to %d", name, n,
                       MAX_GRAPHS);
    if (!(b->graphs = fv_alloc_zero(n, sizeof *b->graphs)))
        return fv_fail_memory(err, n * sizeof *b->graphs, "graphs");
    b->info.n_graphs = n;
    for (size_t i = 0; i < n; i++)
        FV_TRY(ctx_graph_parse(&b->graphs[i], b->doc, fv_json_at(graphs, i), err));
    return FV_OK;
}

fv_status fv_ctx_info_parse(fv_npu_binary **out, char *json, size_t n_bytes, const char *name,
                            fv_error *err)
{
    *out = NULL;
    fv_npu_binary *b = fv_alloc_zero(1, sizeof *b);
    if (!b)
        return fv_fail_memory(err, sizeof *b, "a description");
    fv_status status = ctx_parse(b, json, n_bytes, name, err);
    if (status != FV_OK) {
        fv_npu_binary_free(b);
        return status;
    }
    b->text = json;
    *out = b;
    return FV_OK;
}

/* ---------------------------------------------------------------- fastvlm_npu.h */

fv_status fv_npu_binary_open(fv_npu_binary **out, const char *file,
                             const fv_npu_library_options *options, fv_error *err)
{
    fv_npu_library_options o;
    fv_callbacks callbacks;
    char *dir = NULL, *json = NULL;
    const char *by;
    size_t n_bytes = 0;

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_npu_library_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(fv_file_check(file, err));
    FV_TRY(fv_qnn_find(&dir, &by, o.qnn_dir, err));
    fv_status status = fv_qnn_system_read(&json, &n_bytes, file, dir, o.callbacks, err);
    if (status == FV_OK)
        status = fv_ctx_info_parse(out, json, n_bytes, file, err);
    if (status != FV_OK)
        fv_free(json);
    fv_free(dir);
    return status;
}

void fv_npu_binary_free(fv_npu_binary *b)
{
    if (!b)
        return;
    for (size_t i = 0; b->graphs && i < b->info.n_graphs; i++)
        for (int kind = 0; kind < 2; kind++) {
            fv_free(b->graphs[i].tensors[kind]);
            fv_free(b->graphs[i].dims[kind]);
        }
    fv_free(b->graphs);
    fv_json_free(b->doc);
    fv_free(b->text);
    fv_free(b);
}

void fv_npu_binary_describe(const fv_npu_binary *binary, fv_npu_binary_info *out)
{
    if (binary)
        fv_result_out(out, &binary->info, sizeof binary->info);
}

bool fv_npu_binary_graph(const fv_npu_binary *binary, size_t index, fv_npu_graph_info *out)
{
    if (!binary || index >= binary->info.n_graphs)
        return false;
    return fv_result_out(out, &binary->graphs[index].info, sizeof binary->graphs[index].info);
}

bool fv_npu_binary_tensor(const fv_npu_binary *binary, size_t graph, fv_npu_tensor_kind kind,
                          size_t index, fv_npu_tensor_info *out)
{
    if (!binary || graph >= binary->info.n_graphs ||
        (kind != FV_NPU_INPUT && kind != FV_NPU_OUTPUT))
        return false;
    const ctx_graph *g = &binary->graphs[graph];
    if (index >= (kind == FV_NPU_INPUT ? g->info.n_inputs : g->info.n_outputs))
        return false;
    return fv_result_out(out, &g->tensors[kind][index], sizeof g->tensors[kind][index]);
}

const char *fv_npu_binary_json(const fv_npu_binary *binary) { return binary ? binary->text : NULL; }
