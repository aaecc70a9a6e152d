/* A decoder's context binary at work: rows -> its cache, logits. See fastvlm_npu.h and
 * npu_decoder.h.
 *
 *     session -> lm_run: rows -> shared memory -> child: embeddings, cos, sin, bias -> graph
 *                        logits <- shared memory <-        new keys and values -> cache
 *
 * The cache lives in the child, as inputs of the graphs that stay where they are. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/report.h"
#include "base/sized.h"
#include "engine/session.h"
#include "npu/npu_decoder.h"
#include "npu/qnn_backend.h"
#include "npu/qnn_child.h"
#include "npu/qnn_signature.h"

enum {
    STEP,
    CHUNK,
    N_GRAPHS,
    MAX_LAYERS = 256,
    MAX_TENSORS = 2 * MAX_LAYERS + 4,
    MAX_ROWS = 1 << 16,
    MAX_WIDTH = 1 << 24,
    FEW_ROWS = 4 /* fewer are steps: a chunk computes all its rows, however few are asked for */
};

/* What a row may not see, where the bias is in floats. In fixed point it is the lowest value. */
#define FORBIDDEN (-20000.0f)

/* One graph with its tensors; in the child they have buffers. */
typedef struct lm_graph {
    const char *name;
    size_t index; /* in the binary */
    fv_qnn_tensor *in, *out;
    size_t n_in, n_out, rows;
    fv_qnn_tensor *embeds, *cos, *sin, *bias, *logits; /* logits: of STEP */
    fv_qnn_tensor *past[2 * MAX_LAYERS],
        *present[2 * MAX_LAYERS]; /* keys, values, layer by layer */
} lm_graph;

struct fv_npu_lm {
    fv_map file;
    fv_npu_binary *binary;
    fv_npu_binary_info info;
    char *qnn_dir, *name; /* of the libraries; the file's */
    lm_graph graph[N_GRAPHS];
    size_t n_layers, n_kv, d_head, cache_len, d_model, n_vocab;
    float *frequency; /* [d_head / 2] of RoPE; NULL: no session has been attached yet */
    fv_decoder_ops ops;
    bool attached, closed;
    fv_qnn_server *server; /* NULL: not started yet */
    fv_region region;

    /* the child's */
    fv_qnn *q;
    size_t current; /* graph */
    float *values;  /* a tensor's numbers, of the largest one */
};

/* A call: n rows behind those that the cache holds. Rows and logits follow. */
typedef struct lm_call {
    size_t at, n;
    double done; /* of the caller's rows, before this call */
} lm_call;

static float *call_rows(lm_call *c) { return (float *)(c + 1); }
static float *call_logits(const fv_npu_lm *lm, lm_call *c)
{
    return call_rows(c) + lm->graph[CHUNK].rows * lm->d_model;
}

/* ---- opening ----------------------------------------------------------------------------- */

/* The tensor of that name; NULL: none. */
static fv_qnn_tensor *tensor_find(fv_qnn_tensor *t, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(t[i].name, name))
            return &t[i];
    return NULL;
}

static fv_qnn_tensor *layer_tensor_find(fv_qnn_tensor *t, size_t n, const char *stem, size_t i)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%zu.%s", stem, i / 2, i % 2 ? "value" : "key");
    return tensor_find(t, n, name);
}

static fv_status graph_find(fv_npu_lm *lm, lm_graph *g, const char *name, fv_error *err)
{
    fv_npu_graph_info info = { .size = sizeof info };
    while (fv_npu_binary_graph(lm->binary, g->index, &info) && strcmp(info.name, name) != 0)
        g->index++;
    if (!fv_npu_binary_graph(lm->binary, g->index, &info))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: no graph %s; expected a decoder that fastvlm has compiled", lm->name,
                       name);
    if (info.n_inputs > MAX_TENSORS || info.n_outputs > MAX_TENSORS)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s takes %zu and gives %zu tensors; expected %d at most", lm->name,
                       name, info.n_inputs, info.n_outputs, MAX_TENSORS);
#if defined(__x86_64__)
    if (info.has_sizes && info.shared_weight_bytes)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: its graphs share weights, which the emulator cannot load; expected a "
                       "decoder compiled unshared",
                       lm->name);
#endif
    g->name = name;
    g->n_in = info.n_inputs;
    g->n_out = info.n_outputs;
    return FV_OK;
}

static fv_status graph_tensors_take(fv_npu_lm *lm, lm_graph *g, fv_error *err)
{
    g->in = fv_region_take(&lm->region, g->n_in + g->n_out + 1, sizeof *g->in);
    if (!g->in)
        return fv_fail_memory(err, (g->n_in + g->n_out) * sizeof *g->in, "tensors");
    g->out = g->in + g->n_in;
    for (size_t i = 0; i < g->n_in + g->n_out; i++) {
        bool input = i < g->n_in;
        FV_TRY(fv_qnn_tensor_take(&g->in[i], lm->binary, g->index,
                                  input ? FV_NPU_INPUT : FV_NPU_OUTPUT, input ? i : i - g->n_in,
                                  &lm->region, lm->name, err));
    }
    g->embeds = tensor_find(g->in, g->n_in, "inputs_embeds");
    g->cos = tensor_find(g->in, g->n_in, "position_cos");
    g->sin = tensor_find(g->in, g->n_in, "position_sin");
    g->bias = tensor_find(g->in, g->n_in, "attention_bias");
    g->logits = tensor_find(g->out, g->n_out, "logits");
    for (size_t i = 0; i < 2 * MAX_LAYERS; i++) {
        g->past[i] = layer_tensor_find(g->in, g->n_in, "past_key_values", i);
        g->present[i] = layer_tensor_find(g->out, g->n_out, "present", i);
    }
    return FV_OK;
}

/* The last n dimensions, others being 1. */
static bool tensor_is(const fv_qnn_tensor *t, size_t n, const size_t *dims)
{
    size_t at = 0;
    if (!t || t->rank < n)
        return false;
    for (; at < t->rank - n; at++)
        if (t->dims[at] != 1)
            return false;
    for (size_t i = 0; i < n; i++)
        if (t->dims[at + i] != dims[i])
            return false;
    return true;
}

#define TENSOR_IS(t, ...) \
    tensor_is((t), sizeof((size_t[]){ __VA_ARGS__ }) / sizeof(size_t), (size_t[]){ __VA_ARGS__ })

static bool same_encoding(const fv_qnn_tensor *a, const fv_qnn_tensor *b)
{
    return a->type == b->type && a->quant.defined == b->quant.defined &&
           (a->quant.defined != FV_QNN_DEFINED || (a->quant.one.scale == b->quant.one.scale &&
                                                   a->quant.one.offset == b->quant.one.offset));
}

/* The cache's sides, from the first layer of the step. */
static bool sizes_take(fv_npu_lm *lm)
{
    const lm_graph *s = &lm->graph[STEP], *c = &lm->graph[CHUNK];
    const fv_qnn_tensor *key = s->past[0];
    if (!key || key->rank != 4 || !s->embeds || !s->embeds->rank || !s->logits ||
        !s->logits->rank || !c->embeds || c->embeds->rank < 2)
        return false;
    lm->n_kv = key->dims[1];
    lm->d_head = key->dims[2];
    lm->cache_len = key->dims[3];
    lm->d_model = s->embeds->dims[s->embeds->rank - 1];
    lm->n_vocab = s->logits->dims[s->logits->rank - 1];
    lm->graph[STEP].rows = 1;
    lm->graph[CHUNK].rows = c->embeds->dims[c->embeds->rank - 2];
    while (lm->n_layers < MAX_LAYERS && s->past[2 * lm->n_layers])
        lm->n_layers++;
    return lm->cache_len <= MAX_ROWS && lm->graph[CHUNK].rows <= MAX_ROWS &&
           lm->d_model <= MAX_WIDTH && lm->n_vocab <= MAX_WIDTH && lm->n_kv <= MAX_ROWS &&
           lm->d_head <= MAX_ROWS && lm->d_head % 2 == 0 && lm->d_head && lm->cache_len;
}

/* Old and new rows of one layer's keys (which 0) or values (1). */
static bool cache_fits(const fv_npu_lm *lm, const lm_graph *g, size_t i)
{
    const size_t kv = lm->n_kv, d = lm->d_head, c = lm->cache_len, n = g->rows;
    const fv_qnn_tensor *past = g->past[i], *present = g->present[i];
    const fv_qnn_tensor *kept = lm->graph[STEP].past[i];
    bool keys = i % 2 == 0, last_of_chunk = i / 2 == lm->n_layers - 1 && g == &lm->graph[CHUNK];
    if (past ? !(keys ? TENSOR_IS(past, kv, d, c) : TENSOR_IS(past, kv, c, d)) : !last_of_chunk)
        return false;
    return (keys ? TENSOR_IS(present, kv, d, n) : TENSOR_IS(present, kv, n, d)) &&
           same_encoding(present, kept) && (!past || same_encoding(past, kept));
}

static bool graph_fits(const fv_npu_lm *lm, const lm_graph *g)
{
    const size_t n = g->rows;
    size_t n_past = 0;
    for (size_t i = 0; i < 2 * lm->n_layers; i++) {
        if (!cache_fits(lm, g, i))
            return false;
        n_past += g->past[i] != NULL;
    }
    return g->n_in == n_past + 4 && g->n_out == 2 * lm->n_layers + (g->logits ? 1 : 0) &&
           TENSOR_IS(g->embeds, n, lm->d_model) && TENSOR_IS(g->cos, n, lm->d_head) &&
           TENSOR_IS(g->sin, n, lm->d_head) && TENSOR_IS(g->bias, n, lm->cache_len + n) &&
           (g != &lm->graph[STEP] || TENSOR_IS(g->logits, n, lm->n_vocab));
}

static fv_status lm_take(fv_npu_lm *lm, const char *file, const fv_npu_library_options *o,
                         fv_error *err)
{
    static const char *const names[] = { FV_NPU_STEP_GRAPH, FV_NPU_CHUNK_GRAPH };
    const char *by;
    lm->info.size = sizeof lm->info;
    if (!(lm->name = fv_strdup(file)))
        return fv_fail_memory(err, strlen(file), "a path");
    FV_TRY(fv_map_open(&lm->file, file, err));
    FV_TRY(fv_qnn_find(&lm->qnn_dir, &by, o->qnn_dir, err));
    FV_TRY(fv_npu_binary_open(&lm->binary, file, o, err));
    fv_npu_binary_describe(lm->binary, &lm->info);
    if (lm->info.backend != FV_QNN_BACKEND_HTP)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: is for QNN backend %u; expected a graph for the NPU (%d)", file,
                       lm->info.backend, FV_QNN_BACKEND_HTP);
    for (size_t i = 0; i < N_GRAPHS; i++) {
        FV_TRY(graph_find(lm, &lm->graph[i], names[i], err));
        FV_TRY(graph_tensors_take(lm, &lm->graph[i], err));
    }
    if (!sizes_take(lm) || !graph_fits(lm, &lm->graph[STEP]) || !graph_fits(lm, &lm->graph[CHUNK]))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: tensors of its graphs do not fit together; expected a decoder that "
                       "this version of fastvlm has compiled",
                       file);
    return FV_OK;
}

static void lm_free(fv_npu_lm *lm)
{
    fv_qnn_server_close(lm->server);
    fv_map_close(&lm->file);
    fv_npu_binary_free(lm->binary);
    fv_region_free(&lm->region);
    fv_free(lm->frequency);
    fv_free(lm->qnn_dir);
    fv_free(lm->name);
    fv_free(lm);
}

fv_status fv_npu_lm_open(fv_npu_lm **out, const char *file, const fv_npu_library_options *options,
                         fv_error *err)
{
    fv_npu_library_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_npu_library_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    fv_npu_lm *lm = fv_alloc_zero(1, sizeof *lm);
    if (!lm)
        return fv_fail_memory(err, sizeof *lm, "a context binary");
    fv_status status = lm_take(lm, file, &o, err);
    if (status == FV_OK)
        *out = lm;
    else
        lm_free(lm);
    return status;
}

/* A session that it is attached to keeps it. */
void fv_npu_lm_close(fv_npu_lm *lm)
{
    if (lm && lm->attached)
        lm->closed = true;
    else if (lm)
        lm_free(lm);
}

void fv_npu_lm_describe(const fv_npu_lm *lm, fv_npu_lm_shape *out)
{
    if (!lm)
        return;
    const fv_npu_lm_shape shape = { .size = sizeof shape,
                                    .cache_len = lm->cache_len,
                                    .chunk_len = lm->graph[CHUNK].rows,
                                    .n_layers = lm->n_layers,
                                    .d_model = lm->d_model,
                                    .n_vocab = lm->n_vocab };
    fv_result_out(out, &shape, sizeof shape);
}

/* ---- in the child ------------------------------------------------------------------------ */

static fv_status lm_buffer_take(fv_npu_lm *lm, fv_qnn_tensor *t, size_t *most, fv_error *err)
{
    size_t n = fv_qnn_tensor_bytes(t);
    void *data = n && n <= UINT32_MAX ? fv_region_take(&lm->region, n, 1) : NULL;
    if (!data)
        return fv_fail_memory(err, n, t->name);
    t->memory_type = FV_QNN_RAW;
    t->buffer = (fv_qnn_buffer){ data, (uint32_t)n };
    *most = FV_MAX(*most, fv_qnn_tensor_elems(t));
    return FV_OK;
}

/* The chunk reads the step's cache. */
static fv_status lm_buffers_take(fv_npu_lm *lm, fv_error *err)
{
    size_t most = 0;
    for (size_t k = 0; k < N_GRAPHS; k++) {
        lm_graph *g = &lm->graph[k];
        for (size_t i = 0; k == CHUNK && i < 2 * lm->n_layers; i++)
            if (g->past[i]) {
                g->past[i]->memory_type = FV_QNN_RAW;
                g->past[i]->buffer = lm->graph[STEP].past[i]->buffer;
            }
        for (size_t i = 0; i < g->n_in + g->n_out; i++)
            if (!g->in[i].buffer.data)
                FV_TRY(lm_buffer_take(lm, &g->in[i], &most, err));
    }
    lm->values = fv_region_take(&lm->region, most, sizeof *lm->values);
    return lm->values ? FV_OK : fv_fail_memory(err, most * sizeof *lm->values, "values");
}

static fv_status lm_child_open(void *user, fv_qnn_child *child, fv_error *err)
{
    fv_npu_lm *lm = user;
    (void)child;
    FV_TRY(fv_qnn_open(&lm->q, lm->qnn_dir, FV_QNN_HTP_LIBRARY, lm->info.soc_model, err));
    FV_TRY(fv_qnn_load(lm->q, lm->file.data, lm->file.size, lm->graph[STEP].name, err));
    return lm_buffers_take(lm, err);
}

static void embeds_fill(const fv_npu_lm *lm, const lm_graph *g, const float *rows, size_t n)
{
    size_t d = lm->d_model;
    memcpy(lm->values, rows, n * d * sizeof *rows);
    memset(lm->values + n * d, 0, (g->rows - n) * d * sizeof *rows);
    fv_qnn_pack(g->embeds, g->embeds->buffer.data, lm->values, g->rows * d);
}

/* cos and sin [rows, d_head]: the angles twice, the first sine of each negative. */
static void angles_fill(const fv_npu_lm *lm, const lm_graph *g, size_t at)
{
    size_t half = lm->d_head / 2;
    for (size_t which = 0; which < 2; which++) {
        const fv_qnn_tensor *t = which ? g->sin : g->cos;
        for (size_t i = 0; i < g->rows; i++)
            for (size_t m = 0; m < half; m++) {
                float angle = (float)(at + i) * lm->frequency[m],
                      *y = lm->values + 2 * half * i + m;
                y[half] = which ? sinf(angle) : cosf(angle);
                y[0] = which ? -y[half] : y[half];
            }
        fv_qnn_pack(t, t->buffer.data, lm->values, g->rows * 2 * half);
    }
}

/* A row sees the cache's first `at` rows and, of its own call, itself and those before it. */
static void bias_fill(const fv_npu_lm *lm, const lm_graph *g, size_t at)
{
    size_t c = lm->cache_len, total = c + g->rows;
    for (size_t i = 0; i < g->rows; i++)
        for (size_t j = 0; j < total; j++)
            lm->values[i * total + j] = j < at || (j >= c && j - c <= i) ? 0 : FORBIDDEN;
    fv_qnn_pack(g->bias, g->bias->buffer.data, lm->values, g->rows * total);
}

/* The first n new rows go behind the cache's first `at`. */
static void cache_put(const fv_npu_lm *lm, const lm_graph *g, size_t at, size_t n)
{
    size_t d = lm->d_head, c = lm->cache_len, each = fv_qnn_type_bytes(g->present[0]->type);
    for (size_t i = 0; i < 2 * lm->n_layers; i++) {
        uint8_t *to = lm->graph[STEP].past[i]->buffer.data;
        const uint8_t *from = g->present[i]->buffer.data;
        bool keys = i % 2 == 0;
        size_t lines = keys ? lm->n_kv * d : lm->n_kv, width = keys ? 1 : d;
        for (size_t k = 0; k < lines; k++)
            memcpy(to + (k * c + at) * width * each, from + k * g->rows * width * each,
                   n * width * each);
    }
}

static fv_status lm_child_answer(void *user, fv_qnn_child *child, unsigned what, fv_error *err)
{
    fv_npu_lm *lm = user;
    lm_call *c = fv_qnn_child_shared(child);
    lm_graph *g = &lm->graph[what];
    fv_qnn_child_tell(child, c->done);
    if (lm->current != what)
        FV_TRY(fv_qnn_switch(lm->q, g->name, err));
    lm->current = what;
    embeds_fill(lm, g, call_rows(c), c->n);
    angles_fill(lm, g, c->at);
    bias_fill(lm, g, c->at);
    FV_TRY(fv_qnn_execute(lm->q, g->in, g->n_in, g->out, g->n_out, err));
    cache_put(lm, g, c->at, c->n);
    if (what == STEP)
        fv_qnn_unpack(g->logits, call_logits(lm, c), g->logits->buffer.data, lm->n_vocab);
    return FV_OK;
}

/* ---- in the parent ----------------------------------------------------------------------- */

/* A child that holds n_kept rows, or a new one when none are wanted. */
static fv_status lm_ready(fv_npu_lm *lm, size_t n_kept, const fv_callbacks *callbacks,
                          fv_error *err)
{
    const fv_qnn_server_options o = {
        .open = lm_child_open,
        .answer = lm_child_answer,
        .user = lm,
        .name = lm->name,
        .stage = "npu",
        .shared_bytes = sizeof(lm_call) +
                        (lm->graph[CHUNK].rows * lm->d_model + lm->n_vocab) * sizeof(float)
    };
    if (lm->server && !fv_qnn_server_ended(lm->server))
        return FV_OK;
    if (lm->server && n_kept)
        return fv_fail(err, FV_ERR_STATE, 0, "%s: its process has ended, with keys and values",
                       lm->name);
    fv_qnn_server_close(lm->server);
    return fv_qnn_server_open(&lm->server, &o, callbacks, err);
}

/* Rows in chunks, the last one as a step. */
static fv_status lm_run(void *context, size_t n_kept, const float *x, size_t n, float *logits,
                        const fv_callbacks *callbacks, fv_error *err)
{
    fv_npu_lm *lm = context;
    if (n > lm->cache_len || n_kept > lm->cache_len - n)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu rows; its cache holds %zu", lm->name,
                       n_kept + n, lm->cache_len);
    FV_TRY(lm_ready(lm, n_kept, callbacks, err));
    lm_call *c = fv_qnn_server_shared(lm->server);
    for (size_t at = 0, rows; at < n; at += rows) {
        rows = FV_MIN(lm->graph[CHUNK].rows, n - at - 1);
        bool chunk = rows >= FEW_ROWS;
        rows = chunk ? rows : 1;
        *c = (lm_call){ .at = n_kept + at, .n = rows, .done = (double)at / (double)n };
        memcpy(call_rows(c), x + at * lm->d_model, rows * lm->d_model * sizeof *x);
        FV_TRY(fv_qnn_server_call(lm->server, chunk ? CHUNK : STEP, callbacks, err));
    }
    memcpy(logits, call_logits(lm, c), lm->n_vocab * sizeof *logits);
    return FV_OK;
}

static void lm_release(void *context)
{
    fv_npu_lm *lm = context;
    lm->attached = false;
    if (lm->closed)
        lm_free(lm);
}

static fv_status lm_match(const fv_npu_lm *lm, const fv_config *c, fv_error *err)
{
    const struct {
        const char *what;
        size_t found, expected;
    } sizes[] = { { "layers", lm->n_layers, (size_t)c->n_layers },
                  { "key-value heads", lm->n_kv, (size_t)c->n_kv_heads },
                  { "numbers in a head", lm->d_head, (size_t)c->d_head },
                  { "numbers in a row", lm->d_model, (size_t)c->d_model },
                  { "logits", lm->n_vocab, (size_t)c->n_vocab } };
    for (size_t i = 0; i < FV_COUNT(sizes); i++)
        if (sizes[i].found != sizes[i].expected)
            return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: has %zu %s; the model has %zu", lm->name,
                           sizes[i].found, sizes[i].what, sizes[i].expected);
    return FV_OK;
}

/* A child has the frequencies that were there when it began. */
static fv_status frequency_set(fv_npu_lm *lm, const float *frequency, fv_error *err)
{
    size_t half = lm->d_head / 2;
    if (!lm->frequency && !(lm->frequency = fv_alloc_zero(half, sizeof *frequency)))
        return fv_fail_memory(err, half * sizeof *frequency, "a decoder");
    if (memcmp(lm->frequency, frequency, half * sizeof *frequency) != 0) {
        fv_qnn_server_close(lm->server);
        lm->server = NULL;
    }
    memcpy(lm->frequency, frequency, half * sizeof *frequency);
    return FV_OK;
}

fv_status fv_npu_lm_attach(fv_npu_lm *lm, fv_session *session, fv_error *err)
{
    FV_REQUIRE(lm, err);
    FV_REQUIRE(session, err);
    const fv_config *c = &session->engine->model.config;
    if (lm->attached)
        return fv_fail(err, FV_ERR_STATE, 0, "%s: is attached to another session", lm->name);
    FV_TRY(lm_match(lm, c, err));
    FV_TRY(frequency_set(lm, session->decoder.frequency, err));
    lm->ops = (fv_decoder_ops){ .max_rows = lm->cache_len, .run = lm_run, .release = lm_release };
    FV_TRY(fv_session_set_decoder(session, &lm->ops, lm, err));
    lm->attached = true;
    return FV_OK;
}

fv_status fv_npu_lm_run(fv_npu_lm *lm, const fv_engine *engine, const float *rows, size_t n_rows,
                        float *logits, const fv_callbacks *callbacks, fv_error *err)
{
    fv_callbacks copy;
    fv_decoder d;
    FV_REQUIRE(lm, err);
    FV_REQUIRE(engine, err);
    FV_REQUIRE(rows, err);
    FV_REQUIRE(logits, err);
    FV_TRY(fv_callbacks_in(&copy, &callbacks, err));
    const fv_model *m = &engine->model;
    if (lm->attached)
        return fv_fail(err, FV_ERR_STATE, 0, "%s: is attached to a session", lm->name);
    if (!n_rows)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_rows is 0");
    FV_TRY(lm_match(lm, &m->config, err));
    FV_TRY(fv_decoder_init(&d, &m->config, &m->weights.decoder, FV_TYPE_F32, err));
    fv_status status = frequency_set(lm, d.frequency, err);
    fv_decoder_free(&d);
    return status == FV_OK ? lm_run(lm, 0, rows, n_rows, logits, callbacks, err) : status;
}
