/* libQnnSystem's records become JSON. See qnn_system.h. */
#include "npu/qnn_system.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "npu/qnn_child.h"
#include "npu/qnn_types.h"

/* What a library says is believed up to here. */
enum {
    MAX_GRAPHS = 1024,
    MAX_TENSORS = 65536,
    MAX_RANK = 16,
    MAX_AXIS = 1 << 20,
    MAX_JSON_BYTES = 256 << 20
};
#define MAX_FILE_BYTES  (UINT64_C(8) << 30) /* the NPU addresses less than 4 GiB */
#define READ_TIMEOUT_MS 120000.0

/* ---------------------------------------------------------------- any version, one view */

typedef struct binary_view {
    fv_qnn_version blob;
    uint64_t blob_bytes;
    uint32_t n_graphs;
    const fv_qnn_graph_info *graphs;
    uint32_t soc_model, htp_version; /* 0: not said */
} binary_view;

static fv_status binary_see(binary_view *v, const fv_qnn_binary_info *info, const char *name,
                            fv_error *err)
{
    const fv_qnn_binary_info2 *old = (const void *)info;
    *v = (binary_view){ 0 };
    switch (info->version) {
    case 1:
    case 2:
        v->blob = old->blob;
        v->blob_bytes = old->blob_bytes;
        v->n_graphs = old->n_graphs;
        v->graphs = old->graphs;
        break;
    case 3:
        v->blob = info->blob;
        v->blob_bytes = info->blob_bytes;
        v->n_graphs = info->n_graphs;
        v->graphs = info->graphs;
        v->soc_model = info->soc_model;
        if (info->metadata && info->metadata_bytes >= 2 * sizeof(uint32_t) &&
            info->metadata[0] == 1 && info->backend_id == FV_QNN_BACKEND_HTP)
            v->htp_version = info->metadata[1];
        break;
    default:
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: libQnnSystem describes it in version %u, expected 1 to 3", name,
                       info->version);
    }
    if (v->n_graphs > MAX_GRAPHS || (v->n_graphs && !v->graphs))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %u graphs, expected up to %d", name,
                       v->n_graphs, MAX_GRAPHS);
    return FV_OK;
}

/* ---------------------------------------------------------------- tensors */

static const char *encoding_label(uint32_t kind)
{
    switch (kind) {
    case FV_QNN_SCALE_OFFSET: return "QNN_QUANTIZATION_ENCODING_SCALE_OFFSET";
    case FV_QNN_AXIS_SCALE_OFFSET: return "QNN_QUANTIZATION_ENCODING_AXIS_SCALE_OFFSET";
    case FV_QNN_BITS_SCALE_OFFSET: return "QNN_QUANTIZATION_ENCODING_BW_SCALE_OFFSET";
    case FV_QNN_BITS_AXIS_SCALE_OFFSET: return "QNN_QUANTIZATION_ENCODING_BW_AXIS_SCALE_OFFSET";
    default: return "QNN_QUANTIZATION_ENCODING_UNDEFINED";
    }
}

static fv_status encoding_write(fv_json_text *j, const char *key, fv_qnn_encoding e,
                                const char *tensor, fv_error *err)
{
    if (!isfinite(e.scale))
        return fv_fail(err, FV_ERR_FORMAT, 0, "tensor %s: its scale is not finite", tensor);
    fv_json_begin_row(j, key, '{');
    fv_json_put_real(j, "scale", (double)e.scale);
    fv_json_put_int(j, "offset", e.offset);
    fv_json_end(j);
    return FV_OK;
}

static fv_status quant_write(fv_json_text *j, const fv_qnn_quant *q, const char *tensor,
                             fv_error *err)
{
    bool defined = q->defined == FV_QNN_DEFINED;
    fv_json_begin(j, "quantizeParams", '{');
    fv_json_put_text(j, "definition",
                     defined ? "QNN_DEFINITION_DEFINED" : "QNN_DEFINITION_UNDEFINED");
    fv_json_put_text(j, "quantizationEncoding",
                     encoding_label(defined ? q->kind : (uint32_t)FV_QNN_UNDEFINED));
    if (defined && q->kind == FV_QNN_SCALE_OFFSET)
        FV_TRY(encoding_write(j, "scaleOffset", q->one, tensor, err));
    if (defined && q->kind == FV_QNN_BITS_SCALE_OFFSET) {
        fv_json_put_int(j, "bitwidth", q->bits.n_bits);
        FV_TRY(encoding_write(j, "scaleOffset", q->bits.encoding, tensor, err));
    }
    if (defined && q->kind == FV_QNN_AXIS_SCALE_OFFSET) {
        if (q->axis.n > MAX_AXIS || (q->axis.n && !q->axis.list))
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "tensor %s: %u scales, expected up to %d",
                           tensor, q->axis.n, MAX_AXIS);
        fv_json_begin(j, "axisScaleOffset", '{');
        fv_json_put_int(j, "axis", q->axis.axis);
        fv_json_put_int(j, "numScaleOffsets", q->axis.n);
        fv_json_begin(j, "scaleOffset", '[');
        for (uint32_t i = 0; i < q->axis.n; i++)
            FV_TRY(encoding_write(j, NULL, q->axis.list[i], tensor, err));
        fv_json_end(j);
        fv_json_end(j);
    }
    fv_json_end(j);
    return FV_OK;
}

static fv_status tensor_write(fv_json_text *j, const fv_qnn_tensor *t, fv_error *err)
{
    char label[FV_QNN_LABEL];

    if (t->version != 1 && t->version != 2)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "a tensor of version %u, expected 1 or 2",
                       t->version);
    const char *name = t->name ? t->name : "";
    if (t->rank > MAX_RANK || (t->rank && !t->dims))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "tensor %s: %u dimensions, expected up to %d",
                       name, t->rank, MAX_RANK);
    fv_json_begin(j, NULL, '{');
    fv_json_begin(j, "info", '{');
    fv_json_put_int(j, "id", t->id);
    fv_json_put_text(j, "name", name);
    fv_json_put_text(j, "type",
                     t->kind == FV_QNN_INPUT    ? "QNN_TENSOR_TYPE_APP_WRITE"
                     : t->kind == FV_QNN_OUTPUT ? "QNN_TENSOR_TYPE_APP_READ"
                                                : "QNN_TENSOR_TYPE_UNDEFINED");
    fv_json_put_int(j, "dataFormat", t->format);
    fv_qnn_type_label(t->type, label);
    fv_json_put_text(j, "dataType", label);
    FV_TRY(quant_write(j, &t->quant, name, err));
    fv_json_put_int(j, "rank", t->rank);
    fv_json_begin_row(j, "dimensions", '[');
    for (uint32_t i = 0; i < t->rank; i++)
        fv_json_put_int(j, NULL, t->dims[i]);
    fv_json_end(j);
    fv_json_end(j);
    fv_json_put_int(j, "version", t->version);
    fv_json_end(j);
    return FV_OK;
}

static fv_status tensors_write(fv_json_text *j, const char *key, const fv_qnn_tensor *list,
                               uint32_t n, fv_error *err)
{
    if (n > MAX_TENSORS || (n && !list))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%u tensors as %s, expected up to %d", n, key,
                       MAX_TENSORS);
    fv_json_begin(j, key, '[');
    for (uint32_t i = 0; i < n; i++)
        FV_TRY(tensor_write(j, &list[i], err));
    fv_json_end(j);
    return FV_OK;
}

/* ---------------------------------------------------------------- graphs */

/* Bytes in new libraries, MB in old ones; the utility prints MB. */
static uint32_t vtcm_mb(uint32_t vtcm) { return vtcm >= 1 << 20 ? vtcm >> 20 : vtcm; }

static void blobs_write(fv_json_text *j, const fv_qnn_graph_info *g)
{
    fv_qnn_htp_blob one;
    fv_qnn_htp_blob2 two;

    if (!g->blob || g->blob_bytes < sizeof one)
        return;
    memcpy(&one, g->blob, sizeof one);
    if (one.version != 1)
        return;
    fv_json_begin(j, "graphBlobInfo", '{');
    fv_json_begin(j, "info", '{');
    fv_json_put_int(j, "spillFillBufferSize", (int64_t)one.spill_fill_bytes);
    fv_json_put_int(j, "vtcmSize", vtcm_mb(one.vtcm));
    fv_json_put_int(j, "optimizationLevel", one.optimization_level);
    fv_json_put_int(j, "htpDlbc", one.dlbc);
    fv_json_put_int(j, "numHvxThreads", (int64_t)one.n_hvx_threads);
    fv_json_end(j);
    fv_json_put_int(j, "version", one.version);
    fv_json_end(j);
    if (g->blob_bytes < sizeof one + sizeof two)
        return;
    memcpy(&two, (const char *)g->blob + sizeof one, sizeof two);
    if (two.version != 2)
        return;
    fv_json_begin(j, "graphBlobInfoV2", '{');
    fv_json_put_int(j, "version", two.version);
    fv_json_put_int(j, "ioTensorSize", (int64_t)two.io);
    fv_json_put_int(j, "opDataSize", (int64_t)two.op_data);
    fv_json_put_int(j, "constSize", (int64_t)two.constants);
    fv_json_put_int(j, "ddrTensorSize", (int64_t)two.ddr_tensors);
    fv_json_put_int(j, "sharedWeightsSize", (int64_t)two.shared_weights);
    fv_json_end(j);
}

static fv_status graph_write(fv_json_text *j, const fv_qnn_graph_info *g, bool htp, fv_error *err)
{
    if (g->version < 1 || g->version > 3)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "a graph described in version %u, expected 1 to 3", g->version);
    fv_json_begin(j, NULL, '{');
    fv_json_begin(j, "info", '{');
    fv_json_put_text(j, "graphName", g->name ? g->name : "");
    fv_json_put_int(j, "numGraphInputs", g->n_in);
    FV_TRY(tensors_write(j, "graphInputs", g->in, g->n_in, err));
    fv_json_put_int(j, "numGraphOutputs", g->n_out);
    FV_TRY(tensors_write(j, "graphOutputs", g->out, g->n_out, err));
    if (g->version == 3 && htp)
        blobs_write(j, g);
    fv_json_end(j);
    fv_json_put_int(j, "version", g->version);
    fv_json_end(j);
    return FV_OK;
}

static void qnn_version_write(fv_json_text *j, const char *key, fv_qnn_version v)
{
    fv_json_begin_row(j, key, '{');
    fv_json_put_int(j, "major", v.major);
    fv_json_put_int(j, "minor", v.minor);
    fv_json_put_int(j, "patch", v.patch);
    fv_json_end(j);
}

/* Puts the file's name in front of a message about something in it. */
static fv_status in_file(fv_status status, const char *name, fv_error *err)
{
    char inner[sizeof err->message];
    if (status == FV_OK || !err)
        return status;
    snprintf(inner, sizeof inner, "%s", err->message);
    return fv_fail(err, status, err->at, "%s: %s", name, inner);
}

fv_status fv_qnn_info_write(fv_json_text *j, const fv_qnn_binary_info *info, uint64_t file_bytes,
                            const char *name, fv_error *err)
{
    binary_view v;
    FV_TRY(binary_see(&v, info, name, err));
    fv_json_begin(j, NULL, '{');
    fv_json_begin(j, "info", '{');
    fv_json_put_int(j, "backendId", info->backend_id);
    fv_json_put_text(j, "buildId", info->build_id ? info->build_id : "");
    qnn_version_write(j, "coreApiVersion", info->core);
    qnn_version_write(j, "backendApiVersion", info->backend);
    fv_json_put_text(j, "socVersion", info->soc ? info->soc : "");
    fv_json_put_int(j, "socModel", v.soc_model);
    qnn_version_write(j, "contextBlobVersion", v.blob);
    fv_json_put_int(j, "contextBlobSize", (int64_t)v.blob_bytes);
    fv_json_put_int(j, "contextBinarySize", (int64_t)file_bytes);
    if (v.htp_version) {
        fv_json_begin(j, "contextMetadata", '{');
        fv_json_begin_row(j, "info", '{');
        fv_json_put_int(j, "dspArch", v.htp_version);
        fv_json_end(j);
        fv_json_put_int(j, "version", 1);
        fv_json_end(j);
    }
    fv_json_put_int(j, "numGraphs", v.n_graphs);
    fv_json_begin(j, "graphs", '[');
    for (uint32_t i = 0; i < v.n_graphs; i++)
        FV_TRY(in_file(graph_write(j, &v.graphs[i], info->backend_id == FV_QNN_BACKEND_HTP, err),
                       name, err));
    fv_json_end(j);
    fv_json_end(j);
    fv_json_put_int(j, "version", info->version);
    fv_json_end(j);
    return FV_OK;
}

/* ---------------------------------------------------------------- in the child */

typedef struct read_job {
    const char *file, *dir;
    fv_map map;
} read_job;

/* Formats that are handed to us by mistake. */
static const char *known_format(const fv_map *map)
{
    static const struct {
        const char *begin, *name;
        size_t n;
    } formats[] = {
        { "\177ELF", "a library or program", 4 }, { "GGUF", "a GGUF file", 4 },
        { "PK\3\4", "a zip or DLC file", 4 },     { "{", "JSON", 1 },
        { "\x89PNG", "a PNG image", 4 },          { "\xff\xd8\xff", "a JPEG image", 3 }
    };
    for (size_t i = 0; i < FV_COUNT(formats); i++)
        if (map->size >= formats[i].n && memcmp(map->data, formats[i].begin, formats[i].n) == 0)
            return formats[i].name;
    return NULL;
}

static fv_status read_fail(const read_job *job, fv_qnn_status code, fv_error *err)
{
    const char *format = known_format(&job->map);
    if (format)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: looks like %s, expected a QNN context binary",
                       job->file, format);
    if (fv_qnn_code(code) == 30010)
        return fv_fail(
            err, FV_ERR_FORMAT, 0,
            "%s: not a QNN context binary, or truncated, or made by libraries newer than "
            "those in %s (QNN error 30010, %zu bytes)",
            job->file, job->dir, job->map.size);
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: libQnnSystem cannot read it: QNN error %u",
                   job->file, fv_qnn_code(code));
}

static fv_status system_child(void *user, fv_qnn_child *child, fv_error *err)
{
    const read_job *job = user;
    fv_qnn_library library;
    const fv_qnn_system *system;
    const fv_qnn_binary_info *info = NULL;
    fv_qnn_handle handle = NULL;
    fv_json_text json = { 0 };
    uint64_t info_bytes = 0;

    FV_TRY(fv_qnn_library_open(&library, job->dir, "libQnnSystem.so", err));
    FV_TRY(fv_qnn_system_functions(&system, &library, err));
    fv_qnn_status code = system->api.create(&handle);
    if (code)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: cannot be started: QNN error %u",
                       library.path, fv_qnn_code(code));
    code = system->api.binary_info(handle, (void *)(uintptr_t)job->map.data, job->map.size, &info,
                                   &info_bytes);
    if (code || !info) {
        system->api.free(handle);
        return read_fail(job, code, err);
    }
    fv_status status = fv_qnn_info_write(&json, info, job->map.size, job->file, err);
    if (status == FV_OK)
        status = fv_json_done(&json, err);
    if (status == FV_OK)
        status = fv_qnn_child_write(child, json.text, json.n, err);
    fv_json_text_free(&json);
    system->api.free(handle);
    return status;
}

/* ---------------------------------------------------------------- in the parent */

fv_status fv_qnn_system_read(char **json, size_t *n_bytes, const char *file, const char *dir,
                             const fv_callbacks *callbacks, fv_error *err)
{
    read_job job = { .file = file, .dir = dir };
    fv_qnn_child_result result;
    char name[600];

    *json = NULL;
    FV_TRY(fv_map_open(&job.map, file, err));
    fv_status status;
    if (job.map.size == 0)
        status = fv_fail(err, FV_ERR_FORMAT, 0,
                         "%s: the file is empty, expected a QNN context binary", file);
    else if (job.map.size > MAX_FILE_BYTES)
        status = fv_fail(err, FV_ERR_LIMIT, 0,
                         "%s: %zu bytes, more than any context binary has (8 GiB)", file,
                         job.map.size);
    else {
        snprintf(name, sizeof name, "%s: libQnnSystem", file);
        fv_qnn_child_options options = { .run = system_child,
                                         .user = &job,
                                         .name = name,
                                         .stage = "read",
                                         .callbacks = callbacks,
                                         .timeout_ms = READ_TIMEOUT_MS,
                                         .max_bytes = MAX_JSON_BYTES };
        status = fv_qnn_child_run(&result, &options, err);
        if (status == FV_OK) {
            *json = result.bytes;
            *n_bytes = result.n_bytes;
            result.bytes = NULL;
        }
        fv_qnn_child_result_free(&result);
    }
    fv_map_close(&job.map);
    return status;
}
