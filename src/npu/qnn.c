/* A backend library: opened, asked what it is, given graphs. See qnn.h. */
#include "npu/qnn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"

enum { SAID_BYTES = 240, VTCM_MB = 8, OPTIMIZE_MOST = 3 };

struct fv_qnn {
    fv_qnn_library library;
    const fv_qnn_provider *provider;
    const fv_qnn_api *api;
    const char *build;
    fv_qnn_handle log, backend, device, context, graph;
    bool share;    /* weights, between graphs */
    char name[64]; /* of the current graph, for messages */
};

/* The first error since it was last asked for: those that follow are its consequences. */
static char said[SAID_BYTES];

static void log_take(const char *format, uint32_t level, uint64_t time, va_list args)
{
    char line[1024 + 1];
    (void)time;
    fv_format_list(line, sizeof line - 1, format, args);
    size_t n = strcspn(line, "\n");
    line[n] = 0;
    /* every graph of 2.51, with or without options of ours */
    if (n == 0 || strstr(line, "unexpected GraphHtpSettings option"))
        return;
    if (level == FV_QNN_LOG_ERROR && !said[0])
        snprintf(said, sizeof said, "%.*s", SAID_BYTES - 1, line);
    line[n++] = '\n';
    while (write(STDERR_FILENO, line, n) < 0 && errno == EINTR)
        ;
}

/* ---- errors ------------------------------------------------------------------------------ */

typedef struct qnn_meaning {
    unsigned code;
    fv_status status;
    const char *text;
} qnn_meaning;

static const qnn_meaning meanings[] = {
    { 1002, FV_ERR_MEMORY, "out of memory" },
    { 3110, FV_ERR_UNSUPPORTED, "the operation does not take these types or shapes" },
    { 4000, FV_ERR_UNSUPPORTED, "not supported by this library" },
    { 5000, FV_ERR_UNSUPPORTED,
      "the binary was not made for this library or SoC; expected one of the same or an older "
      "version" },
    { 14001, FV_ERR_UNSUPPORTED, "the library does not know this SoC" },
};

/* what: "compile vision". */
static fv_status qnn_failed(fv_qnn_status code, const char *what, fv_error *err)
{
    const qnn_meaning other = { 0, FV_ERR_UNSUPPORTED, "refused" }, *m = &other;
    for (size_t i = 0; i < FV_COUNT(meanings); i++)
        if (meanings[i].code == fv_qnn_code(code))
            m = &meanings[i];
    fv_status status = fv_fail(err, m->status, 0, "QNN cannot %s: error %u, %s%s%s", what,
                               fv_qnn_code(code), m->text, said[0] ? "; it says: " : "", said);
    said[0] = 0;
    return status;
}

#define QNN_TRY(call, err, ...)                                 \
    do {                                                        \
        fv_qnn_status qnn_status_ = (call);                     \
        if (qnn_status_) {                                      \
            char qnn_what_[200];                                \
            snprintf(qnn_what_, sizeof qnn_what_, __VA_ARGS__); \
            return qnn_failed(qnn_status_, qnn_what_, err);     \
        }                                                       \
    } while (0)

/* ---- opening ----------------------------------------------------------------------------- */

static fv_status backend_check(const fv_qnn *q, fv_error *err)
{
    uint32_t id = q->provider->backend_id;
    if (id == FV_QNN_BACKEND_HTP || id == FV_QNN_BACKEND_CPU)
        return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "%s: is QNN backend %u (%s); expected that of the HTP (%d) or the CPU (%d)",
                   q->library.path, id, q->provider->name ? q->provider->name : "no name",
                   FV_QNN_BACKEND_HTP, FV_QNN_BACKEND_CPU);
}

static fv_status device_open(fv_qnn *q, unsigned soc_model, fv_error *err)
{
    fv_qnn_htp_device soc = { .option = FV_QNN_HTP_DEVICE_SOC,
                              .soc_at_4 = soc_model,
                              .soc_at_8 = soc_model };
    fv_qnn_config config = { .option = FV_QNN_CONFIG_CUSTOM, .custom = &soc };
    const fv_qnn_config *configs[] = { soc_model ? &config : NULL, NULL };
    if (fv_qnn_is_htp(q))
        QNN_TRY(q->api->device_create(q->log, configs, &q->device), err, "open SoC model %u",
                soc_model);
    return FV_OK;
}

static fv_status qnn_start(fv_qnn *q, const char *dir, const char *library, unsigned soc_model,
                           fv_error *err)
{
    FV_TRY(fv_qnn_library_open(&q->library, dir, library, err));
    FV_TRY(fv_qnn_backend_functions(&q->provider, &q->library, err));
    FV_TRY(backend_check(q, err));
    q->api = &q->provider->api;
    if (q->api->build_id(&q->build) != 0 || !q->build)
        q->build = "";
    QNN_TRY(q->api->log_create(log_take, FV_QNN_LOG_ERROR, &q->log), err, "open its log");
    QNN_TRY(q->api->backend_create(q->log, NULL, &q->backend), err, "start %.150s",
            q->library.path);
    return device_open(q, soc_model, err);
}

fv_status fv_qnn_open(fv_qnn **out, const char *dir, const char *library, unsigned soc_model,
                      fv_error *err)
{
    fv_qnn *q = fv_alloc_zero(1, sizeof *q);
    *out = NULL;
    said[0] = 0;
    if (!q)
        return fv_fail_memory(err, sizeof *q, "a library");
    fv_status status = qnn_start(q, dir, library, soc_model, err);
    if (status == FV_OK)
        *out = q;
    else
        fv_qnn_close(q);
    return status;
}

void fv_qnn_close(fv_qnn *q)
{
    if (!q)
        return;
    if (q->context)
        q->api->context_free(q->context, NULL);
    if (q->device)
        q->api->device_free(q->device);
    if (q->backend)
        q->api->backend_free(q->backend);
    if (q->log)
        q->api->log_free(q->log);
    /* the library stays loaded: its threads may still be there */
    fv_free(q);
}

bool fv_qnn_is_htp(const fv_qnn *q) { return q->provider->backend_id == FV_QNN_BACKEND_HTP; }
const char *fv_qnn_build(const fv_qnn *q) { return q->build; }

/* ---- building ---------------------------------------------------------------------------- */

void fv_qnn_share_weights(fv_qnn *q) { q->share = fv_qnn_is_htp(q); }

static fv_status context_make(fv_qnn *q, fv_error *err)
{
    fv_qnn_htp_context record = { .option = FV_QNN_HTP_CONTEXT_SHARE_WEIGHTS, .on = true };
    fv_qnn_config config = { .option = FV_QNN_CONFIG_CUSTOM, .custom = &record };
    const fv_qnn_config *configs[] = { &config, NULL };
    QNN_TRY(q->api->context_create(q->backend, q->device, q->share ? configs : NULL, &q->context),
            err, "make a context");
    return FV_OK;
}

fv_status fv_qnn_graph_begin(fv_qnn *q, const char *name, bool f16, fv_error *err)
{
    fv_qnn_htp_graph record[] = {
        { .option = FV_QNN_HTP_GRAPH_VTCM_MB, .u32 = VTCM_MB },
        { .option = FV_QNN_HTP_GRAPH_OPTIMIZE,
          .optimize = { FV_QNN_HTP_OPTIMIZE_LEVEL, OPTIMIZE_MOST } },
        { .option = FV_QNN_HTP_GRAPH_PRECISION, .u32 = 1 },
    };
    fv_qnn_config config[FV_COUNT(record)];
    const fv_qnn_config *configs[FV_COUNT(record) + 1] = { 0 };
    size_t n = !fv_qnn_is_htp(q) ? 0 : f16 ? 3 : 2;
    for (size_t i = 0; i < n; i++) {
        config[i] = (fv_qnn_config){ .option = FV_QNN_CONFIG_CUSTOM, .custom = &record[i] };
        configs[i] = &config[i];
    }
    snprintf(q->name, sizeof q->name, "%.63s", name);
    if (!q->context)
        FV_TRY(context_make(q, err));
    QNN_TRY(q->api->graph_create(q->context, name, n ? configs : NULL, &q->graph), err,
            "begin the graph %s", name);
    return FV_OK;
}

fv_status fv_qnn_tensor_create(fv_qnn *q, fv_qnn_tensor *t, fv_error *err)
{
    QNN_TRY(q->api->tensor_create(q->graph, t), err, "make the tensor %.150s", t->name);
    return FV_OK;
}

fv_status fv_qnn_node_add(fv_qnn *q, const fv_qnn_op *op, fv_error *err)
{
    QNN_TRY(q->api->validate(q->backend, *op), err, "take the %s %.130s", op->type, op->name);
    QNN_TRY(q->api->node_add(q->graph, *op), err, "add the %s %.130s", op->type, op->name);
    return FV_OK;
}

fv_status fv_qnn_finalize(fv_qnn *q, fv_error *err)
{
    QNN_TRY(q->api->finalize(q->graph, NULL, NULL), err, "compile the graph %s", q->name);
    return FV_OK;
}

fv_status fv_qnn_binary(fv_qnn *q, void **data, size_t *n_bytes, fv_error *err)
{
    uint64_t size = 0, written = 0;
    *data = NULL;
    QNN_TRY(q->api->binary_size(q->context, &size), err, "measure the context binary");
    void *bytes = fv_alloc(size, 1);
    if (!bytes)
        return fv_fail_memory(err, size, "a context binary");
    fv_qnn_status code = q->api->binary(q->context, bytes, size, &written);
    if (code || written > size) {
        fv_free(bytes);
        return qnn_failed(code, "write the context binary", err);
    }
    *data = bytes;
    *n_bytes = written;
    return FV_OK;
}

/* ---- running ----------------------------------------------------------------------------- */

fv_status fv_qnn_load(fv_qnn *q, const void *data, size_t n_bytes, const char *graph, fv_error *err)
{
    QNN_TRY(q->api->context_load(q->backend, q->device, NULL, data, n_bytes, &q->context, NULL),
            err, "load the context binary");
    return fv_qnn_switch(q, graph, err);
}

fv_status fv_qnn_switch(fv_qnn *q, const char *graph, fv_error *err)
{
    snprintf(q->name, sizeof q->name, "%.63s", graph);
    QNN_TRY(q->api->graph_retrieve(q->context, graph, &q->graph), err, "find the graph %.63s",
            graph);
    return FV_OK;
}

fv_status fv_qnn_execute(fv_qnn *q, const fv_qnn_tensor *in, size_t n_in, fv_qnn_tensor *out,
                         size_t n_out, fv_error *err)
{
    QNN_TRY(q->api->execute(q->graph, in, (uint32_t)n_in, out, (uint32_t)n_out, NULL, NULL), err,
            "run the graph %s", q->name);
    return FV_OK;
}
