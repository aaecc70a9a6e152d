/* Compiling and running in a child process. See qnn_job.h. */
#include "npu/qnn_job.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/report.h"
#include "npu/qnn_child.h"

enum { REPLY_BYTES = 1 << 20 }; /* beside the values */

/* What the child sends first; values follow. */
typedef struct job_reply {
    double build_ms, compile_ms, run_ms;
    uint64_t n_nodes, n_tensors, n_converts, n_transposes, n_floats, binary_bytes, n_values;
    char library[64];
} job_reply;

typedef struct job_child {
    const fv_qnn_job *job;
    fv_qnn_child *child;
    fv_qnn *q;
    fv_qnn_model model;      /* of the first graph */
    fv_qnn_tensor *in, *out; /* the model's or the signature's, with buffers */
    size_t n_in, n_out;
    job_reply reply;
    fv_region region;
    fv_error *err;
} job_child;

/* ---- in the child ------------------------------------------------------------------------ */

static fv_status job_compile(job_child *c)
{
    const fv_qnn_job *j = c->job;
    fv_qnn_weights weights = { 0 };
    fv_qnn_model_options options = j->model;
    if (j->share_weights)
        fv_qnn_share_weights(c->q);
    if (j->n_plans > 1)
        options.weights = &weights;
    for (size_t i = 0; i < j->n_plans; i++) {
        fv_qnn_model other = { 0 }, *m = i ? &other : &c->model;
        double start = fv_now_ms();
        FV_TRY(fv_qnn_model_build(m, c->q, j->plans[i], j->kernels, &options, c->err));
        double between = fv_now_ms();
        c->reply.build_ms += between - start;
        c->reply.n_nodes += m->n_nodes;
        c->reply.n_tensors += m->n_tensors;
        c->reply.n_converts += m->n_converts;
        c->reply.n_transposes += m->n_transposes;
        c->reply.n_floats += m->n_floats;
        fv_status status = fv_qnn_finalize(c->q, c->err);
        if (i)
            fv_qnn_model_free(&other);
        if (status != FV_OK)
            return status;
        c->reply.compile_ms += fv_now_ms() - between;
    }
    fv_qnn_weights_free(&weights);
    c->in = c->model.in;
    c->n_in = c->model.n_in;
    c->out = c->model.out;
    c->n_out = c->model.n_out;
    return FV_OK;
}

static fv_status binary_write(job_child *c)
{
    const char *path = c->job->binary_path;
    void *data;
    size_t n;
    FV_TRY(fv_qnn_binary(c->q, &data, &n, c->err));
    FILE *f = fopen(path, "wb");
    bool written = f && fwrite(data, 1, n, f) == n;
    int why = errno;
    if (f && fclose(f) != 0 && written) {
        why = errno;
        written = false;
    }
    fv_free(data);
    c->reply.binary_bytes = n;
    return written ? FV_OK
                   : fv_fail(c->err, FV_ERR_IO, 0, "%s: cannot write: %s", path, strerror(why));
}

static fv_status job_load(job_child *c)
{
    const fv_qnn_signature *s = c->job->signature;
    double start = fv_now_ms();
    FV_TRY(fv_qnn_load(c->q, c->job->binary, c->job->n_binary_bytes, s->graph, c->err));
    c->reply.compile_ms = fv_now_ms() - start;
    c->in = fv_region_take(&c->region, 2, sizeof *c->in);
    if (!c->in)
        return fv_fail_memory(c->err, 2 * sizeof *c->in, "an input");
    c->in[0] = s->in;
    c->in[1] = s->out;
    c->out = c->in + 1;
    c->n_in = c->n_out = 1;
    return FV_OK;
}

static fv_status buffer_take(job_child *c, fv_qnn_tensor *t)
{
    size_t n = fv_qnn_tensor_bytes(t);
    void *data = n && n <= UINT32_MAX ? fv_region_take(&c->region, n, 1) : NULL;
    if (!data)
        return fv_fail_memory(c->err, n, t->name);
    t->memory_type = FV_QNN_RAW;
    t->buffer = (fv_qnn_buffer){ data, (uint32_t)n };
    return FV_OK;
}

/* Buffers for n tensors; adds up their elements, widens *most to the largest. */
static fv_status tensor_buffers_take(job_child *c, fv_qnn_tensor *t, size_t n, size_t *total,
                                     size_t *most)
{
    for (size_t i = 0; i < n; i++) {
        FV_TRY(buffer_take(c, &t[i]));
        *total += fv_qnn_tensor_elems(&t[i]);
        *most = FV_MAX(*most, fv_qnn_tensor_elems(&t[i]));
    }
    return FV_OK;
}

static void inputs_pack(const job_child *c, const float *from)
{
    for (size_t i = 0; i < c->n_in; i++) {
        size_t n = fv_qnn_tensor_elems(&c->in[i]);
        fv_qnn_pack(&c->in[i], c->in[i].buffer.data, from, n);
        from += n;
    }
}

/* values: memory for the largest output */
static fv_status outputs_write(const job_child *c, float *values)
{
    for (size_t i = 0; i < c->n_out; i++) {
        size_t n = fv_qnn_tensor_elems(&c->out[i]);
        fv_qnn_unpack(&c->out[i], values, c->out[i].buffer.data, n);
        FV_TRY(fv_qnn_child_write(c->child, values, n * sizeof *values, c->err));
    }
    return FV_OK;
}

static fv_status job_run_all(job_child *c)
{
    const fv_qnn_job *j = c->job;
    size_t n_in = 0, n_out = 0, most = 0;
    FV_TRY(tensor_buffers_take(c, c->in, c->n_in, &n_in, &most));
    FV_TRY(tensor_buffers_take(c, c->out, c->n_out, &n_out, &most));
    c->reply.n_values = n_out;
    float *values = fv_region_take(&c->region, most, sizeof *values);
    if (!values)
        return fv_fail_memory(c->err, most * sizeof *values, "an output");
    FV_TRY(fv_qnn_child_write(c->child, &c->reply, sizeof c->reply, c->err));
    for (size_t r = 0; r < j->n_runs; r++) {
        double start = fv_now_ms();
        inputs_pack(c, j->input + r * n_in);
        FV_TRY(fv_qnn_execute(c->q, c->in, c->n_in, c->out, c->n_out, c->err));
        c->reply.run_ms += fv_now_ms() - start;
        FV_TRY(outputs_write(c, values));
        fv_qnn_child_tell(c->child, (double)(r + 1) / (double)j->n_runs);
    }
    return fv_qnn_child_write(c->child, &c->reply.run_ms, sizeof c->reply.run_ms, c->err);
}

static fv_status job_begin(job_child *c)
{
    const fv_qnn_job *j = c->job;
    FV_TRY(fv_qnn_open(&c->q, j->dir, j->library, j->soc_model, c->err));
    snprintf(c->reply.library, sizeof c->reply.library, "%s", fv_qnn_build(c->q));
    return j->n_plans ? job_compile(c) : job_load(c);
}

/* Memory is the system's to take back. */
static fv_status job_main(void *user, fv_qnn_child *child, fv_error *err)
{
    job_child c = { .job = user, .child = child, .err = err };
    const fv_qnn_job *j = c.job;
    FV_TRY(job_begin(&c));
    if (j->binary_path)
        FV_TRY(binary_write(&c));
    return j->n_runs ? job_run_all(&c) : fv_qnn_child_write(child, &c.reply, sizeof c.reply, err);
}

/* ---- in the parent ----------------------------------------------------------------------- */

static fv_status outcome_take(fv_qnn_outcome *out, const fv_qnn_job *j,
                              const fv_qnn_child_result *result, fv_error *err)
{
    job_reply reply;
    size_t n = j->n_runs, values = 0, expected = sizeof reply;
    if (result->n_bytes < sizeof reply)
        return fv_fail(err, FV_ERR_IO, 0, "%s: its answer is incomplete", j->title);
    memcpy(&reply, result->bytes, sizeof reply);
    reply.library[sizeof reply.library - 1] = 0;
    if (n && (__builtin_mul_overflow(n * sizeof(float), reply.n_values, &values) ||
              __builtin_add_overflow(expected + sizeof reply.run_ms, values, &expected)))
        expected = 0;
    if (result->n_bytes != expected)
        return fv_fail(err, FV_ERR_IO, 0, "%s: its answer has %zu bytes; expected %zu", j->title,
                       result->n_bytes, expected);
    *out = (fv_qnn_outcome){ .build_ms = reply.build_ms,
                             .compile_ms = reply.compile_ms,
                             .n_nodes = reply.n_nodes,
                             .n_tensors = reply.n_tensors,
                             .n_converts = reply.n_converts,
                             .n_transposes = reply.n_transposes,
                             .n_floats = reply.n_floats,
                             .binary_bytes = reply.binary_bytes,
                             .peak_bytes = result->peak_bytes,
                             .n_values = n ? reply.n_values : 0 };
    memcpy(out->library, reply.library, sizeof out->library);
    if (!n)
        return FV_OK;
    if (!(out->values = fv_alloc(values, 1)))
        return fv_fail_memory(err, values, "values of the NPU");
    memcpy(out->values, result->bytes + sizeof reply, values);
    memcpy(&out->run_ms, result->bytes + sizeof reply + values, sizeof out->run_ms);
    return FV_OK;
}

/* Most bytes that the answer may have. */
static size_t answer_room(const fv_qnn_job *j)
{
    const size_t room = (size_t)4 << 30;
    return j->n_runs ? room : REPLY_BYTES;
}

fv_status fv_qnn_job_run(fv_qnn_outcome *out, const fv_qnn_job *job, fv_error *err)
{
    fv_qnn_child_result result;
    fv_qnn_child_options options = { .run = job_main,
                                     .user = (void *)(uintptr_t)job,
                                     .name = job->title,
                                     .stage = job->stage,
                                     .callbacks = job->callbacks,
                                     .max_bytes = answer_room(job) };
    *out = (fv_qnn_outcome){ 0 };
    fv_status status = fv_qnn_child_run(&result, &options, err);
    if (status == FV_OK)
        status = outcome_take(out, job, &result, err);
    else
        fv_qnn_said_log(job->callbacks, result.said);
    fv_qnn_child_result_free(&result);
    if (status != FV_OK)
        fv_qnn_outcome_free(out);
    return status;
}

void fv_qnn_outcome_free(fv_qnn_outcome *out)
{
    fv_free(out->values);
    *out = (fv_qnn_outcome){ 0 };
}

/* ---- a graph that stays loaded ----------------------------------------------------------- */

/* What both processes see: this, then the numbers that the graph takes, then those it gives. */
typedef struct loaded_page {
    double ms;
    float numbers[];
} loaded_page;

struct fv_qnn_loaded {
    fv_qnn_server *server;
    char *title;
    size_t n_input, n_output;
    fv_qnn_job job;
    job_child child; /* the child's */
};

/* fv_qnn_child_fn */
static fv_status loaded_open(void *user, fv_qnn_child *child, fv_error *err)
{
    fv_qnn_loaded *l = user;
    job_child *c = &l->child;
    size_t n_in = 0, n_out = 0, most = 0;
    *c = (job_child){ .job = &l->job, .child = child, .err = err };
    FV_TRY(job_begin(c));
    FV_TRY(tensor_buffers_take(c, c->in, c->n_in, &n_in, &most));
    FV_TRY(tensor_buffers_take(c, c->out, c->n_out, &n_out, &most));
    if (n_in != l->n_input || n_out != l->n_output)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: takes %zu numbers and gives %zu; expected %zu and %zu", l->title, n_in,
                       n_out, l->n_input, l->n_output);
    return FV_OK;
}

/* fv_qnn_answer_fn: a run */
static fv_status loaded_run(void *user, fv_qnn_child *child, unsigned what, fv_error *err)
{
    fv_qnn_loaded *l = user;
    job_child *c = &l->child;
    loaded_page *page = fv_qnn_child_shared(child);
    float *at = page->numbers + l->n_input;
    double start = fv_now_ms();
    (void)what;
    c->err = err;
    inputs_pack(c, page->numbers);
    FV_TRY(fv_qnn_execute(c->q, c->in, c->n_in, c->out, c->n_out, err));
    page->ms = fv_now_ms() - start;
    for (size_t i = 0; i < c->n_out; i++) {
        size_t n = fv_qnn_tensor_elems(&c->out[i]);
        fv_qnn_unpack(&c->out[i], at, c->out[i].buffer.data, n);
        at += n;
    }
    return FV_OK;
}

fv_status fv_qnn_loaded_open(fv_qnn_loaded **out, const fv_qnn_job *job, size_t n_input,
                             size_t n_output, fv_error *err)
{
    fv_qnn_loaded *l = fv_alloc_zero(1, sizeof *l);
    *out = NULL;
    if (!l)
        return fv_fail_memory(err, sizeof *l, "a process");
    l->job = *job;
    l->n_input = n_input;
    l->n_output = n_output;
    l->job.title = l->title = fv_strdup(job->title);
    const fv_qnn_server_options o = { .open = loaded_open,
                                      .answer = loaded_run,
                                      .user = l,
                                      .name = l->title,
                                      .stage = job->stage,
                                      .shared_bytes = sizeof(loaded_page) +
                                                      (n_input + n_output) * sizeof(float) };
    fv_status status = l->title ? fv_qnn_server_open(&l->server, &o, job->callbacks, err)
                                : fv_fail_memory(err, strlen(job->title), "a title");
    if (status == FV_OK)
        *out = l;
    else
        fv_qnn_loaded_close(l);
    return status;
}

fv_status fv_qnn_loaded_run(fv_qnn_loaded *l, const float *input, float *output, double *ms,
                            const fv_callbacks *callbacks, fv_error *err)
{
    loaded_page *page = fv_qnn_server_shared(l->server);
    memcpy(page->numbers, input, l->n_input * sizeof *input);
    FV_TRY(fv_qnn_server_call(l->server, 0, callbacks, err));
    memcpy(output, page->numbers + l->n_input, l->n_output * sizeof *output);
    if (ms)
        *ms = page->ms;
    return FV_OK;
}

bool fv_qnn_loaded_ended(fv_qnn_loaded *l) { return fv_qnn_server_ended(l->server); }

void fv_qnn_loaded_close(fv_qnn_loaded *l)
{
    if (!l)
        return;
    fv_qnn_server_close(l->server);
    fv_free(l->title);
    fv_free(l);
}
