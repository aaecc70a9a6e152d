/* fake_qnn: a stand-in for Qualcomm's libraries, built as libQnnHtp.so, libQnnCpu.so and
 * libQnnSystem.so, so that what calls them is tested on every machine.
 *
 * It checks, strictly: the order of calls and that handles are alive and of the right kind; struct
 * versions; configuration records; tensors (unique names, types with encodings that fit them,
 * dimensions, data of static ones) created before the nodes that use them and described alike
 * there; values produced once and before they are read; static data, names and dimensions unchanged
 * until graphFinalize; the combinations of types that the real compiler was seen to accept (Conv2d,
 * FullyConnected, MatMul, LayerNorm, conversions); buffers of graphExecute. Wrong use is answered
 * with error 1004, a line "VIOLATION ..." in the log, and at the end of the process exit code 88.
 *
 * It cannot prove: that the declarations of qnn_abi.h are the vendor's (it is compiled against
 * them), that the real compiler takes a graph, or any value: graphExecute writes zeros. For those
 * there is tools/test-npu.sh.
 *
 * Its context binary is text; see binary_write. $FAKE_QNN holds words, separated by ';':
 *
 *     log=FILE             every call, one a line
 *     fail=FUNCTION:CODE   that function gives CODE (fail=FUNCTION:CODE:3: its third call)
 *     die=FUNCTION         ends the process with SIGSEGV there
 *     hang=FUNCTION        waits there until it is killed
 *     chat=FUNCTION        prints a line on standard output there, as the real ones do
 *     api=2.10             core API version; system_api=0.9 that of libQnnSystem
 *     providers=0          offers none
 *     info=4               version of what libQnnSystem says of a binary (default 3)
 *     tensor=2             version of the tensors in it */
#include <dlfcn.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "npu/qnn_abi.h"

#define EXPORT __attribute__((visibility("default")))

enum { MAX_NODES = 4096, MAX_TENSORS = 16384, MAX_IO = 512, OK = 0, WRONG_USE = 1004 };

/* ---- what the test asks for ---- */

/* The word KEY=... of $FAKE_QNN in text; false when it is not there. */
static bool fake_word(const char *key, char text[256])
{
    const char *at = getenv("FAKE_QNN");
    size_t n = strlen(key);
    while (at && *at) {
        size_t length = strcspn(at, ";");
        if (length > n && strncmp(at, key, n) == 0 && at[n] == '=') {
            snprintf(text, 256, "%.*s", (int)(length - n - 1), at + n + 1);
            return true;
        }
        at += length + (at[length] == ';');
    }
    return false;
}

static bool fake_word_is(const char *key, const char *value)
{
    char text[256];
    return fake_word(key, text) && strcmp(text, value) == 0;
}

static unsigned fake_number(const char *key, unsigned otherwise)
{
    char text[256];
    return fake_word(key, text) ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void fake_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fake_log(const char *format, ...)
{
    char path[256], line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (!fake_word("log", path))
        return;
    FILE *f = fopen(path, "a");
    if (f) {
        fprintf(f, "%s\n", line);
        fclose(f);
    }
}

/* ---- wrong use ---- */

static unsigned n_violations;
static fv_qnn_log_fn *log_fn;

static void say(uint32_t level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (log_fn)
        log_fn(format, level, 0, args);
    va_end(args);
}

static void fake_at_exit(void)
{
    if (n_violations)
        _exit(88);
}

static fv_qnn_status violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
static fv_qnn_status violation(const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fake_log("VIOLATION %s", text);
    fprintf(stderr, "fake_qnn: wrong use: %s\n", text);
    if (n_violations++ == 0)
        atexit(fake_at_exit);
    return WRONG_USE;
}

#define EXPECT(condition, ...)             \
    do {                                   \
        if (!(condition))                  \
            return violation(__VA_ARGS__); \
    } while (0)

/* Notes the call; whether it is to fail, and how. */
static fv_qnn_status fake_called(const char *function)
{
    static struct {
        char name[40];
        unsigned calls;
    } seen[32];
    char text[256];
    unsigned calls = 0;

    fake_log("%s", function);
    for (size_t i = 0; i < 32; i++)
        if (!seen[i].name[0] || strcmp(seen[i].name, function) == 0) {
            snprintf(seen[i].name, sizeof seen[i].name, "%s", function);
            calls = ++seen[i].calls;
            break;
        }
    if (fake_word_is("die", function))
        raise(SIGSEGV);
    while (fake_word_is("hang", function))
        pause();
    if (fake_word_is("chat", function)) {
        printf("# LIBNATIVE: %s\n", function);
        fflush(stdout);
    }
    size_t n = strlen(function);
    if (fake_word("fail", text) && strncmp(text, function, n) == 0 && text[n] == ':') {
        char *end;
        unsigned long code = strtoul(text + n + 1, &end, 10);
        if (*end != ':' || strtoul(end + 1, NULL, 10) == calls) {
            say(FV_QNN_LOG_ERROR, "fake_qnn: %s fails as it was asked to", function);
            return code;
        }
    }
    return OK;
}

#define CALLED(function)                                \
    do {                                                \
        fv_qnn_status called_ = fake_called(#function); \
        if (called_)                                    \
            return called_;                             \
    } while (0)

/* ---- what has been made ---- */

typedef enum object_kind {
    OBJECT_LOG = 1,
    OBJECT_BACKEND,
    OBJECT_DEVICE,
    OBJECT_CONTEXT,
    OBJECT_GRAPH,
    OBJECT_SYSTEM,
    OBJECT_PROFILE
} object_kind;

typedef struct fake_tensor {
    fv_qnn_tensor t; /* as it was given, name and dims copied */
    uint64_t hash;   /* of static data */
    const char *name;
    const uint32_t *dims; /* the caller's */
    bool written, read;
} fake_tensor;

typedef struct fake_object {
    object_kind kind;
    bool alive;
    struct fake_object *parent, *next;
    unsigned n_children;
    unsigned soc;   /* of a device */
    bool shares;    /* a context: weights between its graphs */
    char name[128]; /* of a graph, from here */
    bool finalized, loaded;
    fake_tensor *tensors;
    uint32_t n_tensors, n_nodes;
    char (*nodes)[128];
    void *text; /* of a system handle, what it gave away */
} fake_object;

static fake_object *objects;

static fake_object *object_make(object_kind kind, fake_object *parent)
{
    fake_object *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    o->kind = kind;
    o->alive = true;
    o->parent = parent;
    o->next = objects;
    objects = o;
    if (parent)
        parent->n_children++;
    return o;
}

static fake_object *object_find(fv_qnn_handle handle, object_kind kind)
{
    for (fake_object *o = objects; o; o = o->next)
        if (o == handle)
            return o->kind == kind && o->alive ? o : NULL;
    return NULL;
}

static fv_qnn_status object_free(fv_qnn_handle handle, object_kind kind, const char *what)
{
    fake_object *o = object_find(handle, kind);
    EXPECT(o, "%s: freed twice, or never made", what);
    EXPECT(o->n_children == 0, "%s: freed before what was made of it", what);
    o->alive = false;
    if (o->parent)
        o->parent->n_children--;
    return OK;
}

/* A graph goes with its context. */
static void graphs_end(fake_object *context)
{
    for (fake_object *o = objects; o; o = o->next)
        if (o->kind == OBJECT_GRAPH && o->alive && o->parent == context) {
            o->alive = false;
            context->n_children--;
        }
}

static bool is_htp(void)
{
    Dl_info info;
    return !dladdr((void *)(uintptr_t)is_htp, &info) || !info.dli_fname ||
           !strstr(info.dli_fname, "Cpu");
}

/* ---- log, backend, device, context ---- */

static fv_qnn_status fake_log_create(fv_qnn_log_fn *fn, uint32_t level, fv_qnn_handle *log)
{
    CALLED(logCreate);
    EXPECT(fn && log, "logCreate: NULL");
    EXPECT(level >= 1 && level <= 5, "logCreate: level %u", level);
    log_fn = fn;
    *log = object_make(OBJECT_LOG, NULL);
    return OK;
}

static fv_qnn_status fake_log_free(fv_qnn_handle log)
{
    CALLED(logFree);
    for (fake_object *o = objects; o; o = o->next)
        EXPECT(o->kind == OBJECT_LOG || o->kind == OBJECT_SYSTEM || !o->alive,
               "logFree: something that logs is alive");
    log_fn = NULL;
    return object_free(log, OBJECT_LOG, "logFree");
}

static fv_qnn_status fake_build_id(const char **id)
{
    CALLED(backendGetBuildId);
    EXPECT(id, "backendGetBuildId: NULL");
    *id = "v2.99.0.fake";
    return OK;
}

static fv_qnn_status fake_backend_create(fv_qnn_handle log, const fv_qnn_config **configs,
                                         fv_qnn_handle *backend)
{
    CALLED(backendCreate);
    EXPECT(!log || object_find(log, OBJECT_LOG), "backendCreate: not a log");
    EXPECT(!configs || !configs[0], "backendCreate: configurations that are not known here");
    EXPECT(backend, "backendCreate: NULL");
    *backend = object_make(OBJECT_BACKEND, NULL);
    return OK;
}

static fv_qnn_status fake_backend_free(fv_qnn_handle backend)
{
    CALLED(backendFree);
    return object_free(backend, OBJECT_BACKEND, "backendFree");
}

static fv_qnn_status device_config(const fv_qnn_config *config, unsigned *soc)
{
    EXPECT(config->option == FV_QNN_CONFIG_CUSTOM && config->custom,
           "deviceCreate: a configuration that is not custom");
    const fv_qnn_htp_device *d = config->custom;
    EXPECT(d->option == FV_QNN_HTP_DEVICE_SOC, "deviceCreate: option %u", d->option);
    EXPECT(d->soc_at_4 == d->soc_at_8,
           "deviceCreate: SoC %u for libraries before API 2.36, %u for later ones", d->soc_at_4,
           d->soc_at_8);
    for (size_t i = 0; i < sizeof d->zero / sizeof *d->zero; i++)
        EXPECT(d->zero[i] == 0, "deviceCreate: rest of the record is not zero");
    *soc = d->soc_at_8;
    return OK;
}

static fv_qnn_status fake_device_create(fv_qnn_handle log, const fv_qnn_config **configs,
                                        fv_qnn_handle *device)
{
    static const unsigned known[] = { 43, 57, 69, 87 };
    unsigned soc = 0;
    CALLED(deviceCreate);
    EXPECT(!log || object_find(log, OBJECT_LOG), "deviceCreate: not a log");
    EXPECT(device, "deviceCreate: NULL");
    EXPECT(is_htp(), "deviceCreate: the CPU backend has no device");
    for (size_t i = 0; configs && configs[i]; i++) {
        fv_qnn_status code = device_config(configs[i], &soc);
        if (code)
            return code;
    }
    bool found = soc == 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        found = found || known[i] == soc;
    if (!found) {
        say(FV_QNN_LOG_ERROR, "unknown custom config socModel %u", soc);
        return 14001;
    }
    fake_object *o = object_make(OBJECT_DEVICE, NULL);
    o->soc = soc;
    *device = o;
    return OK;
}

static fv_qnn_status fake_device_free(fv_qnn_handle device)
{
    CALLED(deviceFree);
    return object_free(device, OBJECT_DEVICE, "deviceFree");
}

/* The context's object, below its device or, on the CPU, below its backend. */
static fv_qnn_status context_begin(fv_qnn_handle backend, fv_qnn_handle device,
                                   fake_object **context)
{
    fake_object *b = object_find(backend, OBJECT_BACKEND);
    fake_object *d = object_find(device, OBJECT_DEVICE);
    EXPECT(b, "context: not a backend");
    EXPECT(d || !is_htp(), "context: the HTP needs a device");
    *context = object_make(OBJECT_CONTEXT, d ? d : b);
    (*context)->soc = d ? d->soc : 0;
    return OK;
}

static fv_qnn_status context_config(const fv_qnn_config *config, bool *shares)
{
    EXPECT(config->option == FV_QNN_CONFIG_CUSTOM && config->custom,
           "contextCreate: a configuration that is not custom");
    const fv_qnn_htp_context *c = config->custom;
    EXPECT(c->option == FV_QNN_HTP_CONTEXT_SHARE_WEIGHTS, "contextCreate: option %u", c->option);
    *shares = c->on;
    return OK;
}

static fv_qnn_status fake_context_create(fv_qnn_handle backend, fv_qnn_handle device,
                                         const fv_qnn_config **configs, fv_qnn_handle *context)
{
    fake_object *o;
    bool shares = false;
    CALLED(contextCreate);
    EXPECT(context, "contextCreate: NULL");
    for (size_t i = 0; configs && configs[i]; i++) {
        fv_qnn_status code = context_config(configs[i], &shares);
        if (code)
            return code;
    }
    fv_qnn_status code = context_begin(backend, device, &o);
    if (code == OK)
        o->shares = shares;
    *context = o;
    return code;
}

static fv_qnn_status fake_context_free(fv_qnn_handle context, fv_qnn_handle profile)
{
    CALLED(contextFree);
    (void)profile;
    fake_object *o = object_find(context, OBJECT_CONTEXT);
    EXPECT(o, "contextFree: freed twice, or never made");
    graphs_end(o);
    return object_free(context, OBJECT_CONTEXT, "contextFree");
}

/* ---- tensors ---- */

static unsigned type_bytes(uint32_t type)
{
    switch (type & 0xff) {
    case 0x08: return 1;
    case 0x16: return 2;
    case 0x32: return 4;
    case 0x64: return 8;
    default: return 0;
    }
}

static bool type_is_fixed(uint32_t type) { return (type >> 8) == 3 || (type >> 8) == 4; }

static uint64_t tensor_bytes(const fv_qnn_tensor *t)
{
    uint64_t n = type_bytes(t->type);
    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

static uint64_t bytes_hash(const void *data, size_t n)
{
    const uint8_t *at = data;
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ at[i]) * 1099511628211u;
    return hash;
}

static fv_qnn_status encoding_check(const fv_qnn_tensor *t, fv_qnn_encoding e)
{
    int64_t most = (t->type >> 8) == 4 ? ((int64_t)1 << 8 * type_bytes(t->type)) - 1 : 0;
    EXPECT(isfinite(e.scale) && e.scale > 0, "tensor %s: scale %g", t->name, (double)e.scale);
    EXPECT(e.offset <= 0 && e.offset >= -most, "tensor %s: offset %d, expected -%lld to 0", t->name,
           e.offset, (long long)most);
    return OK;
}

static fv_qnn_status quant_check(const fv_qnn_tensor *t)
{
    const fv_qnn_quant *q = &t->quant;
    if (!type_is_fixed(t->type)) {
        EXPECT(q->defined == FV_QNN_UNDEFINED && q->kind == FV_QNN_UNDEFINED,
               "tensor %s: an encoding, though its type 0x%x is not fixed point", t->name, t->type);
        return OK;
    }
    EXPECT(q->defined == FV_QNN_DEFINED, "tensor %s: fixed point without an encoding", t->name);
    if (q->kind == FV_QNN_SCALE_OFFSET)
        return encoding_check(t, q->one);
    EXPECT(q->kind == FV_QNN_AXIS_SCALE_OFFSET, "tensor %s: encoding %u", t->name, q->kind);
    EXPECT(t->kind == FV_QNN_STATIC, "tensor %s: scales per channel of a value", t->name);
    EXPECT(q->axis.axis >= 0 && (uint32_t)q->axis.axis < t->rank,
           "tensor %s: scales along axis %d of %u", t->name, q->axis.axis, t->rank);
    EXPECT(q->axis.list && q->axis.n == t->dims[q->axis.axis],
           "tensor %s: %u scales along an axis of %u", t->name, q->axis.n, t->dims[q->axis.axis]);
    for (uint32_t i = 0; i < q->axis.n; i++) {
        fv_qnn_status code = encoding_check(t, q->axis.list[i]);
        if (code)
            return code;
        EXPECT(q->axis.list[i].offset == 0, "tensor %s: an offset per channel", t->name);
    }
    return OK;
}

static fv_qnn_status tensor_check(const fv_qnn_tensor *t)
{
    EXPECT(t->version == 1, "a tensor of version %u", t->version);
    EXPECT(t->name && *t->name, "a tensor without a name");
    EXPECT(t->kind == FV_QNN_INPUT || t->kind == FV_QNN_OUTPUT || t->kind == FV_QNN_NATIVE ||
               t->kind == FV_QNN_STATIC,
           "tensor %s: kind %u", t->name, t->kind);
    EXPECT(t->format == 0, "tensor %s: format %u", t->name, t->format);
    EXPECT(type_bytes(t->type), "tensor %s: type 0x%x", t->name, t->type);
    EXPECT(t->rank >= 1 && t->rank <= 5 && t->dims, "tensor %s: %u dimensions", t->name, t->rank);
    for (uint32_t i = 0; i < t->rank; i++)
        EXPECT(t->dims[i] > 0, "tensor %s: dimension %u is 0", t->name, i);
    EXPECT(t->memory_type == FV_QNN_RAW, "tensor %s: memory type %u", t->name, t->memory_type);
    return quant_check(t);
}

static fake_tensor *tensor_named(fake_object *g, const char *name)
{
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if (strcmp(g->tensors[i].t.name, name) == 0)
            return &g->tensors[i];
    return NULL;
}

static fv_qnn_status fake_tensor_create(fv_qnn_handle graph, fv_qnn_tensor *t)
{
    CALLED(tensorCreateGraphTensor);
    fake_object *g = object_find(graph, OBJECT_GRAPH);
    EXPECT(g, "tensorCreateGraphTensor: not a graph");
    EXPECT(!g->finalized, "tensorCreateGraphTensor: the graph is finalized");
    EXPECT(t, "tensorCreateGraphTensor: NULL");
    fv_qnn_status code = tensor_check(t);
    if (code)
        return code;
    EXPECT(!tensor_named(g, t->name), "tensor %s: a second one of that name", t->name);
    if (t->kind == FV_QNN_STATIC) {
        EXPECT(t->buffer.data, "tensor %s: static without data", t->name);
        EXPECT(t->buffer.n_bytes == tensor_bytes(t), "tensor %s: %u bytes, expected %llu", t->name,
               t->buffer.n_bytes, (unsigned long long)tensor_bytes(t));
    } else {
        EXPECT(!t->buffer.data && !t->buffer.n_bytes, "tensor %s: data, though not static",
               t->name);
    }
    EXPECT(g->n_tensors < MAX_TENSORS, "more tensors than this stand-in holds");
    t->id = ++g->n_tensors;
    fake_tensor *f = &g->tensors[t->id - 1];
    *f = (fake_tensor){ .t = *t, .name = t->name, .dims = t->dims };
    f->t.name = strdup(t->name);
    f->t.dims = malloc(t->rank * sizeof *t->dims);
    memcpy(f->t.dims, t->dims, t->rank * sizeof *t->dims);
    f->written = t->kind == FV_QNN_INPUT || t->kind == FV_QNN_STATIC;
    if (t->kind == FV_QNN_STATIC)
        f->hash = bytes_hash(t->buffer.data, t->buffer.n_bytes);
    return OK;
}

/* The tensor that a record names: created before, in this graph, with the same description. */
static fv_qnn_status tensor_of(fake_object *g, const fv_qnn_tensor *t, const char *node,
                               fake_tensor **out)
{
    EXPECT(t->id >= 1 && t->id <= g->n_tensors, "node %s: a tensor that was not created", node);
    fake_tensor *f = &g->tensors[t->id - 1];
    EXPECT(t->version == 1 && t->name && strcmp(t->name, f->t.name) == 0,
           "node %s: tensor %u is %s, not %s", node, t->id, f->t.name, t->name ? t->name : "NULL");
    EXPECT(t->type == f->t.type && t->rank == f->t.rank && t->kind == f->t.kind && t->dims &&
               memcmp(t->dims, f->t.dims, t->rank * sizeof *t->dims) == 0,
           "node %s: tensor %s is not described as it was created", node, t->name);
    *out = f;
    return OK;
}

/* ---- which types an operation takes ---- */

static unsigned operand_width(const fv_qnn_tensor *t)
{
    return t->type == FV_QNN_F16 || t->type == FV_QNN_F32 ? 32 : 8 * type_bytes(t->type);
}

static fv_qnn_status types_refuse(const fv_qnn_op *op, const char *why)
{
    say(FV_QNN_LOG_ERROR, "%s (%s): %s", op->name, op->type, why);
    return 3110;
}

/* What the compiler for SM8750 refused, in 2.47 and 2.51 alike. */
static fv_qnn_status types_check(const fv_qnn_op *op)
{
    bool product = strcmp(op->type, "Conv2d") == 0 || strcmp(op->type, "DepthWiseConv2d") == 0 ||
                   strcmp(op->type, "FullyConnected") == 0 || strcmp(op->type, "MatMul") == 0;
    bool norm = strcmp(op->type, "LayerNorm") == 0;
    if (!product && !norm)
        return OK;
    if (op->n_in < 2 || op->n_out != 1)
        return types_refuse(op, "needs two operands and has one output");
    const fv_qnn_tensor *x = &op->in[0], *w = &op->in[1];
    unsigned width = operand_width(x);
    if (operand_width(&op->out[0]) != width)
        return types_refuse(op, "its output is wider or narrower than its input");
    if (width == 8 && operand_width(w) != 8)
        return types_refuse(op, "8-bit input with wider weights");
    if (width == 32 && operand_width(w) != 32)
        return types_refuse(op, "float input with weights in fixed point");
    for (uint32_t i = 1; i < op->n_in && width == 32; i++)
        if (op->in[i].type != x->type || op->out[0].type != x->type)
            return types_refuse(op, "floats of two types");
    if (width == 16 && w->type == FV_QNN_UQ16 && w->quant.one.offset != -32768)
        return types_refuse(op, "16-bit second operand whose offset is not -32768");
    if (op->n_in > 2 && width != 32 && op->in[2].type != FV_QNN_SQ32 &&
        !(norm && width == 8 && op->in[2].type == FV_QNN_UQ8))
        return types_refuse(op, "bias in another type than s32");
    return OK;
}

/* ---- nodes ---- */

static fv_qnn_status op_check(const fv_qnn_op *op)
{
    static const char *const known[] = { "Conv2d",
                                         "DepthWiseConv2d",
                                         "FullyConnected",
                                         "MatMul",
                                         "LayerNorm",
                                         "RmsNorm",
                                         "Gelu",
                                         "Relu",
                                         "Sigmoid",
                                         "Softmax",
                                         "ElementWiseAdd",
                                         "ElementWiseMultiply",
                                         "Transpose",
                                         "Reshape",
                                         "Split",
                                         "ReduceMean",
                                         "Gather",
                                         "Convert",
                                         "Quantize",
                                         "Dequantize",
                                         "Cast",
                                         "Concat",
                                         "StridedSlice",
                                         "ScatterNd",
                                         "ElementWiseDivide",
                                         "ElementWiseRsqrt",
                                         "ElementWiseSubtract" };
    EXPECT(op->version == 1, "a node of version %u", op->version);
    EXPECT(op->name && *op->name, "a node without a name");
    EXPECT(op->package && strcmp(op->package, FV_QNN_PACKAGE) == 0, "node %s: package %s", op->name,
           op->package ? op->package : "NULL");
    EXPECT(op->type && *op->type, "node %s: no type", op->name);
    EXPECT(op->n_in >= 1 && op->in && op->n_out >= 1 && op->out && (!op->n_params || op->params),
           "node %s: operands, outputs or parameters are NULL", op->name);
    for (uint32_t i = 0; i < op->n_params; i++)
        EXPECT(op->params[i].name && *op->params[i].name && op->params[i].kind <= 1,
               "node %s: parameter %u", op->name, i);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], op->type) == 0)
            return OK;
    return types_refuse(op, "this operation is not known");
}

static fv_qnn_status fake_validate(fv_qnn_handle backend, fv_qnn_op op)
{
    CALLED(backendValidateOpConfig);
    EXPECT(object_find(backend, OBJECT_BACKEND), "backendValidateOpConfig: not a backend");
    fv_qnn_status code = op_check(&op);
    return code ? code : types_check(&op);
}

static fv_qnn_status operands_take(fake_object *g, const fv_qnn_op *op)
{
    fake_tensor *f;
    fv_qnn_status code;
    for (uint32_t i = 0; i < op->n_in; i++) {
        if ((code = tensor_of(g, &op->in[i], op->name, &f)))
            return code;
        EXPECT(f->written, "node %s: reads %s, which nothing has written", op->name, f->t.name);
        f->read = true;
    }
    for (uint32_t i = 0; i < op->n_out; i++) {
        if ((code = tensor_of(g, &op->out[i], op->name, &f)))
            return code;
        EXPECT(f->t.kind == FV_QNN_NATIVE || f->t.kind == FV_QNN_OUTPUT, "node %s: writes %s",
               op->name, f->t.name);
        EXPECT(!f->written, "node %s: writes %s a second time", op->name, f->t.name);
        f->written = true;
    }
    for (uint32_t i = 0; i < op->n_params; i++)
        if (op->params[i].kind == FV_QNN_PARAM_TENSOR) {
            if ((code = tensor_of(g, &op->params[i].tensor, op->name, &f)))
                return code;
            EXPECT(f->t.kind == FV_QNN_STATIC, "node %s: parameter %s is not static", op->name,
                   op->params[i].name);
        }
    return OK;
}

static fv_qnn_status fake_node_add(fv_qnn_handle graph, fv_qnn_op op)
{
    CALLED(graphAddNode);
    fake_object *g = object_find(graph, OBJECT_GRAPH);
    EXPECT(g, "graphAddNode: not a graph");
    EXPECT(!g->finalized, "graphAddNode: the graph is finalized");
    fv_qnn_status code = op_check(&op);
    if (code || (code = types_check(&op)))
        return code;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        EXPECT(strcmp(g->nodes[i], op.name) != 0, "node %s: a second one of that name", op.name);
    EXPECT(g->n_nodes < MAX_NODES && strlen(op.name) < sizeof g->nodes[0],
           "node %s: more or longer than this stand-in holds", op.name);
    snprintf(g->nodes[g->n_nodes++], sizeof g->nodes[0], "%s", op.name);
    return operands_take(g, &op);
}

/* ---- graphs ---- */

static fv_qnn_status graph_config(const fv_qnn_config *config)
{
    EXPECT(config->option == FV_QNN_CONFIG_CUSTOM && config->custom,
           "graphCreate: a configuration that is not custom");
    EXPECT(is_htp(), "graphCreate: HTP's configuration on the CPU");
    const fv_qnn_htp_graph *c = config->custom;
    switch (c->option) {
    case FV_QNN_HTP_GRAPH_OPTIMIZE:
        EXPECT(c->optimize.kind == FV_QNN_HTP_OPTIMIZE_LEVEL && c->optimize.value >= 1 &&
                   c->optimize.value <= 3,
               "graphCreate: optimisation %u, %g", c->optimize.kind, (double)c->optimize.value);
        return OK;
    case FV_QNN_HTP_GRAPH_PRECISION:
        EXPECT(c->u32 <= 1, "graphCreate: precision %u", c->u32);
        return OK;
    case FV_QNN_HTP_GRAPH_VTCM_MB:
        EXPECT(c->u32 >= 1 && c->u32 <= 8, "graphCreate: VTCM of %u MB", c->u32);
        return OK;
    default: return violation("graphCreate: option %u", c->option);
    }
}

static fake_object *graph_make(fake_object *context, const char *name)
{
    fake_object *g = object_make(OBJECT_GRAPH, context);
    snprintf(g->name, sizeof g->name, "%s", name);
    g->tensors = calloc(MAX_TENSORS, sizeof *g->tensors);
    g->nodes = calloc(MAX_NODES, sizeof *g->nodes);
    if (!g->tensors || !g->nodes)
        abort();
    return g;
}

static fake_object *graph_named(const fake_object *context, const char *name)
{
    for (fake_object *o = objects; o; o = o->next)
        if (o->kind == OBJECT_GRAPH && o->alive && o->parent == context &&
            strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

static fv_qnn_status fake_graph_create(fv_qnn_handle context, const char *name,
                                       const fv_qnn_config **configs, fv_qnn_handle *graph)
{
    CALLED(graphCreate);
    fake_object *c = object_find(context, OBJECT_CONTEXT);
    EXPECT(c, "graphCreate: not a context");
    EXPECT(!c->loaded, "graphCreate: the context was made from a binary");
    EXPECT(name && *name && graph, "graphCreate: NULL");
    EXPECT(!graph_named(c, name), "graphCreate: a second graph %s", name);
    for (size_t i = 0; configs && configs[i]; i++) {
        fv_qnn_status code = graph_config(configs[i]);
        if (code)
            return code;
    }
    fake_log("graph %s", name);
    *graph = graph_make(c, name);
    return OK;
}

static fv_qnn_status fake_finalize(fv_qnn_handle graph, fv_qnn_handle profile,
                                   fv_qnn_handle signal_handle)
{
    CALLED(graphFinalize);
    fake_object *g = object_find(graph, OBJECT_GRAPH);
    EXPECT(g, "graphFinalize: not a graph");
    EXPECT(!g->finalized, "graphFinalize: a second time");
    EXPECT(!profile || object_find(profile, OBJECT_PROFILE), "graphFinalize: not a profile");
    EXPECT(!signal_handle, "graphFinalize: a signal");
    EXPECT(g->n_nodes > 0, "graphFinalize: no node");
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        fake_tensor *f = &g->tensors[i];
        EXPECT(f->written, "graphFinalize: nothing writes %s", f->t.name);
        EXPECT(strcmp(f->name, f->t.name) == 0 &&
                   memcmp(f->dims, f->t.dims, f->t.rank * sizeof *f->dims) == 0,
               "graphFinalize: name or dimensions of %s have changed", f->t.name);
        EXPECT(f->t.kind != FV_QNN_STATIC ||
                   bytes_hash(f->t.buffer.data, f->t.buffer.n_bytes) == f->hash,
               "graphFinalize: data of %s have changed", f->t.name);
    }
    g->finalized = true;
    return OK;
}

static fv_qnn_status fake_graph_retrieve(fv_qnn_handle context, const char *name,
                                         fv_qnn_handle *graph)
{
    CALLED(graphRetrieve);
    fake_object *c = object_find(context, OBJECT_CONTEXT);
    EXPECT(c && name && graph, "graphRetrieve: not a context, or NULL");
    *graph = graph_named(c, name);
    return *graph ? OK : 6000;
}

static fv_qnn_status io_check(fake_object *g, const fv_qnn_tensor *list, uint32_t n, uint32_t kind)
{
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < g->n_tensors; i++)
        wanted += g->tensors[i].t.kind == kind;
    EXPECT(n == wanted, "graphExecute: %u tensors of kind %u, expected %u", n, kind, wanted);
    for (uint32_t i = 0; i < n; i++) {
        fake_tensor *f;
        fv_qnn_status code = tensor_of(g, &list[i], "graphExecute", &f);
        if (code)
            return code;
        EXPECT(f->t.kind == kind, "graphExecute: %s is of kind %u", f->t.name, f->t.kind);
        EXPECT(list[i].memory_type == FV_QNN_RAW && list[i].buffer.data &&
                   list[i].buffer.n_bytes == tensor_bytes(&f->t),
               "graphExecute: %s: a buffer of %u bytes, expected %llu", f->t.name,
               list[i].buffer.n_bytes, (unsigned long long)tensor_bytes(&f->t));
    }
    return OK;
}

static fv_qnn_status fake_execute(fv_qnn_handle graph, const fv_qnn_tensor *in, uint32_t n_in,
                                  fv_qnn_tensor *out, uint32_t n_out, fv_qnn_handle profile,
                                  fv_qnn_handle signal_handle)
{
    CALLED(graphExecute);
    fake_object *g = object_find(graph, OBJECT_GRAPH);
    EXPECT(g, "graphExecute: not a graph");
    EXPECT(g->finalized, "graphExecute: the graph is not finalized");
    EXPECT(!profile || object_find(profile, OBJECT_PROFILE), "graphExecute: not a profile");
    EXPECT(!signal_handle, "graphExecute: a signal");
    fv_qnn_status code = io_check(g, in, n_in, FV_QNN_INPUT);
    if (code || (code = io_check(g, out, n_out, FV_QNN_OUTPUT)))
        return code;
    for (uint32_t i = 0; i < n_out; i++)
        memset(out[i].buffer.data, 0, out[i].buffer.n_bytes);
    return OK;
}

/* ---- profiles: made and freed, never with events ---- */

static fv_qnn_status fake_profile_create(fv_qnn_handle backend, uint32_t level,
                                         fv_qnn_handle *profile)
{
    CALLED(profileCreate);
    EXPECT(object_find(backend, OBJECT_BACKEND) && level >= 1 && profile, "profileCreate");
    *profile = object_make(OBJECT_PROFILE, NULL);
    return OK;
}

static fv_qnn_status fake_profile_events(fv_qnn_handle profile, const uint64_t **ids, uint32_t *n)
{
    CALLED(profileGetEvents);
    EXPECT(object_find(profile, OBJECT_PROFILE) && ids && n, "profileGetEvents");
    *n = 0;
    return OK;
}

static fv_qnn_status fake_profile_free(fv_qnn_handle profile)
{
    CALLED(profileFree);
    return object_free(profile, OBJECT_PROFILE, "profileFree");
}

/* ---- the binary ---- */

/* Text of lines: FAKEQNN 1, soc N, "shared" where weights are, for every graph "graph NAME" and its
 * "in" and "out" lines NAME TYPE SCALE OFFSET RANK DIMS..., then "end". Returns its length; writes
 * nothing beyond room. */
static size_t binary_write(const fake_object *context, char *text, size_t room)
{
    size_t n = 0;
#define PUT(...)                                                             \
    do {                                                                     \
        n += (size_t)snprintf(text ? text + (n < room ? n : room) : NULL,    \
                              text && n < room ? room - n : 0, __VA_ARGS__); \
    } while (0)
    PUT("FAKEQNN 1\nsoc %u\n%s", context->soc, context->shares ? "shared\n" : "");
    for (const fake_object *g = objects; g; g = g->next) {
        if (g->kind != OBJECT_GRAPH || !g->alive || g->parent != context)
            continue;
        PUT("graph %s\n", g->name);
        for (uint32_t i = 0; i < g->n_tensors; i++) {
            const fv_qnn_tensor *t = &g->tensors[i].t;
            bool scaled = t->quant.kind == FV_QNN_SCALE_OFFSET;
            if (t->kind != FV_QNN_INPUT && t->kind != FV_QNN_OUTPUT)
                continue;
            PUT("%s %s %u %.9g %d %u", t->kind == FV_QNN_INPUT ? "in" : "out", t->name, t->type,
                scaled ? (double)t->quant.one.scale : 0, scaled ? t->quant.one.offset : 0, t->rank);
            for (uint32_t k = 0; k < t->rank; k++)
                PUT(" %u", t->dims[k]);
            PUT("\n");
        }
    }
    PUT("end\n");
#undef PUT
    return n;
}

static fv_qnn_status fake_binary_size(fv_qnn_handle context, uint64_t *n_bytes)
{
    CALLED(contextGetBinarySize);
    fake_object *c = object_find(context, OBJECT_CONTEXT);
    EXPECT(c && n_bytes, "contextGetBinarySize: not a context, or NULL");
    for (fake_object *g = objects; g; g = g->next)
        EXPECT(g->kind != OBJECT_GRAPH || !g->alive || g->parent != c || g->finalized,
               "contextGetBinarySize: graph %s is not finalized", g->name);
    *n_bytes = binary_write(c, NULL, 0) + 1; /* an upper bound, as the real one's */
    return OK;
}

static fv_qnn_status fake_binary(fv_qnn_handle context, void *data, uint64_t n_bytes,
                                 uint64_t *written)
{
    CALLED(contextGetBinary);
    fake_object *c = object_find(context, OBJECT_CONTEXT);
    EXPECT(c && data && written, "contextGetBinary: not a context, or NULL");
    EXPECT(n_bytes > binary_write(c, NULL, 0), "contextGetBinary: %llu bytes of room",
           (unsigned long long)n_bytes);
    *written = binary_write(c, data, n_bytes);
    return OK;
}

/* One graph's inputs and outputs, as a binary's text has them. */
typedef struct parsed_graph {
    char name[128];
    fv_qnn_tensor in[MAX_IO], out[MAX_IO];
    uint32_t n_in, n_out;
} parsed_graph;

typedef struct parsed_binary {
    unsigned soc, n_graphs;
    bool shared;
    parsed_graph *graphs;
} parsed_binary;

static bool tensor_line(parsed_graph *g, const char *line, bool input)
{
    char name[128];
    unsigned type, rank, dims[5];
    float scale;
    int offset, used;
    if (sscanf(line, "%*s %127s %u %f %d %u%n", name, &type, &scale, &offset, &rank, &used) != 5 ||
        rank > 5)
        return false;
    for (unsigned i = 0; i < rank; i++) {
        int more;
        if (sscanf(line + used, "%u%n", &dims[i], &more) != 1)
            return false;
        used += more;
    }
    uint32_t *n = input ? &g->n_in : &g->n_out;
    if (*n == MAX_IO)
        return false;
    fv_qnn_tensor *t = (input ? g->in : g->out) + (*n)++;
    *t = (fv_qnn_tensor){ .version = fake_number("tensor", 1),
                          .id = g->n_in + g->n_out,
                          .name = strdup(name),
                          .kind = input ? FV_QNN_INPUT : FV_QNN_OUTPUT,
                          .type = type,
                          .rank = rank,
                          .dims = malloc(5 * sizeof *t->dims),
                          .quant = { .defined = FV_QNN_UNDEFINED, .kind = FV_QNN_UNDEFINED } };
    memcpy(t->dims, dims, rank * sizeof *dims);
    if (scale != 0) {
        t->quant.defined = FV_QNN_DEFINED;
        t->quant.kind = FV_QNN_SCALE_OFFSET;
        t->quant.one = (fv_qnn_encoding){ scale, offset };
    }
    return true;
}

/* false: truncated, or not such a binary. */
static bool binary_parse(parsed_binary *b, const void *data, size_t n)
{
    char *text = strndup(data, n), *rest = text;
    bool complete = false, good = n > 10 && strncmp(text, "FAKEQNN 1\n", 10) == 0;
    b->n_graphs = 0;
    b->shared = false;
    b->graphs = calloc(16, sizeof *b->graphs);
    for (char *line; good && (line = strsep(&rest, "\n"));) {
        parsed_graph *g = b->n_graphs ? &b->graphs[b->n_graphs - 1] : NULL;
        if (strncmp(line, "soc ", 4) == 0)
            b->soc = (unsigned)strtoul(line + 4, NULL, 10);
        else if (strcmp(line, "shared") == 0)
            b->shared = true;
        else if (strncmp(line, "graph ", 6) == 0 && b->n_graphs < 16)
            snprintf(b->graphs[b->n_graphs++].name, sizeof g->name, "%s", line + 6);
        else if (g && strncmp(line, "in ", 3) == 0)
            good = tensor_line(g, line, true);
        else if (g && strncmp(line, "out ", 4) == 0)
            good = tensor_line(g, line, false);
        else if (strcmp(line, "end") == 0)
            complete = true;
    }
    free(text);
    return good && complete;
}

static fv_qnn_status fake_context_load(fv_qnn_handle backend, fv_qnn_handle device,
                                       const fv_qnn_config **configs, const void *data,
                                       uint64_t n_bytes, fv_qnn_handle *context,
                                       fv_qnn_handle profile)
{
    fake_object *c;
    parsed_binary b = { 0 };
    CALLED(contextCreateFromBinary);
    EXPECT(!configs || !configs[0], "contextCreateFromBinary: configurations");
    EXPECT(data && n_bytes && context, "contextCreateFromBinary: NULL");
    EXPECT(!profile || object_find(profile, OBJECT_PROFILE), "contextCreateFromBinary: profile");
    fv_qnn_status code = context_begin(backend, device, &c);
    if (code)
        return code;
    if (!binary_parse(&b, data, n_bytes) || (b.soc && c->soc && b.soc != c->soc)) {
        say(FV_QNN_LOG_ERROR, b.soc ? "made for another SoC" : "not a binary of this stand-in");
        object_free(c, OBJECT_CONTEXT, "contextCreateFromBinary");
        return 5000;
    }
    c->loaded = true;
    for (unsigned i = 0; i < b.n_graphs; i++) {
        fake_object *g = graph_make(c, b.graphs[i].name);
        g->finalized = true;
        for (uint32_t k = 0; k < b.graphs[i].n_in + b.graphs[i].n_out; k++) {
            parsed_graph *p = &b.graphs[i];
            fv_qnn_tensor *t = k < p->n_in ? &p->in[k] : &p->out[k - p->n_in];
            t->version = 1;
            g->n_tensors++;
            g->tensors[t->id - 1] = (fake_tensor){ .t = *t, .written = true };
        }
    }
    *context = c;
    return OK;
}

/* ---- libQnnSystem ---- */

static fv_qnn_status fake_system_create(fv_qnn_handle *system)
{
    CALLED(systemContextCreate);
    EXPECT(system, "systemContextCreate: NULL");
    *system = object_make(OBJECT_SYSTEM, NULL);
    return OK;
}

static fv_qnn_status fake_system_free(fv_qnn_handle system)
{
    CALLED(systemContextFree);
    return object_free(system, OBJECT_SYSTEM, "systemContextFree");
}

static void graph_tell(fv_qnn_graph_info *to, parsed_graph *g, bool shared)
{
    static struct {
        fv_qnn_htp_blob one;
        fv_qnn_htp_blob2 two;
    } blobs = {
        { .version = 1,
          .spill_fill_bytes = 123456,
          .vtcm = 8 << 20,
          .optimization_level = 3,
          .n_hvx_threads = 4 },
        { .version = 2, .io = 1000, .op_data = 2000, .constants = 3000, .ddr_tensors = 4000 }
    };
    blobs.two.shared_weights = shared ? 5000 : 0;
    *to = (fv_qnn_graph_info){ .version = fake_number("info", 3) < 3 ? fake_number("info", 3) : 3,
                               .name = g->name,
                               .n_in = g->n_in,
                               .in = g->in,
                               .n_out = g->n_out,
                               .out = g->out,
                               .blob_bytes = sizeof blobs,
                               .blob = &blobs };
}

static fv_qnn_status fake_binary_info(fv_qnn_handle system, void *data, uint64_t n_bytes,
                                      const fv_qnn_binary_info **info, uint64_t *info_bytes)
{
    static const uint32_t metadata[2] = { 1, 79 };
    static parsed_binary b;
    static fv_qnn_binary_info now;
    static fv_qnn_binary_info2 before;
    static fv_qnn_graph_info graphs[16];
    unsigned version = fake_number("info", 3);

    CALLED(systemContextGetBinaryInfo);
    EXPECT(object_find(system, OBJECT_SYSTEM), "systemContextGetBinaryInfo: not a system context");
    EXPECT(data && n_bytes && info && info_bytes, "systemContextGetBinaryInfo: NULL");
    if (!binary_parse(&b, data, n_bytes))
        return 30010;
    for (unsigned i = 0; i < b.n_graphs; i++)
        graph_tell(&graphs[i], &b.graphs[i], b.shared);
    now = (fv_qnn_binary_info){ .version = version,
                                .backend_id = FV_QNN_BACKEND_HTP,
                                .build_id = "v2.99.0.fake",
                                .core = { 2, 40, 0 },
                                .blob = { 4, 0, 6 },
                                .blob_bytes = n_bytes,
                                .n_graphs = b.n_graphs,
                                .graphs = graphs,
                                .metadata_bytes = sizeof metadata,
                                .metadata = metadata,
                                .soc_model = b.soc };
    before = (fv_qnn_binary_info2){ .version = version,
                                    .backend_id = FV_QNN_BACKEND_HTP,
                                    .build_id = "v2.99.0.fake",
                                    .core = { 2, 40, 0 },
                                    .hardware = { 9, 9, 9 },
                                    .blob = { 3, 3, 4 },
                                    .blob_bytes = n_bytes,
                                    .n_graphs = b.n_graphs,
                                    .graphs = graphs };
    *info = version < 3 ? (const void *)&before : &now;
    *info_bytes = sizeof now;
    return OK;
}

/* ---- what is offered ---- */

static fv_qnn_version fake_version(const char *key, fv_qnn_version otherwise)
{
    char text[256];
    fv_qnn_version v = otherwise;
    if (fake_word(key, text))
        sscanf(text, "%u.%u", &v.major, &v.minor);
    return v;
}

EXPORT fv_qnn_status QnnInterface_getProviders(const fv_qnn_provider ***list, uint32_t *n);
EXPORT fv_qnn_status QnnInterface_getProviders(const fv_qnn_provider ***list, uint32_t *n)
{
    static fv_qnn_provider provider;
    static const fv_qnn_provider *providers[] = { &provider };
    CALLED(QnnInterface_getProviders);
    provider = (fv_qnn_provider){ .backend_id = is_htp() ? FV_QNN_BACKEND_HTP : FV_QNN_BACKEND_CPU,
                                  .name = is_htp() ? "HTP_FAKE" : "CPU_FAKE",
                                  .core = fake_version("api", (fv_qnn_version){ 2, 40, 0 }),
                                  .backend = { 5, 40, 0 },
                                  .api = { .backend_create = fake_backend_create,
                                           .build_id = fake_build_id,
                                           .validate = fake_validate,
                                           .backend_free = fake_backend_free,
                                           .context_create = fake_context_create,
                                           .binary_size = fake_binary_size,
                                           .binary = fake_binary,
                                           .context_load = fake_context_load,
                                           .context_free = fake_context_free,
                                           .graph_create = fake_graph_create,
                                           .node_add = fake_node_add,
                                           .finalize = fake_finalize,
                                           .graph_retrieve = fake_graph_retrieve,
                                           .execute = fake_execute,
                                           .tensor_create = fake_tensor_create,
                                           .log_create = fake_log_create,
                                           .log_free = fake_log_free,
                                           .profile_create = fake_profile_create,
                                           .profile_events = fake_profile_events,
                                           .profile_free = fake_profile_free,
                                           .device_create = fake_device_create,
                                           .device_free = fake_device_free } };
    *list = providers;
    *n = fake_number("providers", 1);
    return OK;
}

EXPORT fv_qnn_status QnnSystemInterface_getProviders(const fv_qnn_system ***list, uint32_t *n);
EXPORT fv_qnn_status QnnSystemInterface_getProviders(const fv_qnn_system ***list, uint32_t *n)
{
    static fv_qnn_system system;
    static const fv_qnn_system *systems[] = { &system };
    CALLED(QnnSystemInterface_getProviders);
    system = (fv_qnn_system){ .name = "SYSTEM_FAKE",
                              .version = fake_version("system_api", (fv_qnn_version){ 1, 8, 0 }),
                              .api = { .create = fake_system_create,
                                       .binary_info = fake_binary_info,
                                       .free = fake_system_free } };
    *list = systems;
    *n = fake_number("providers", 1);
    return OK;
}
