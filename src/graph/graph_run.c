/* Nodes -> f32 values, one after the other. See graph_run.h.
 *
 * A value's memory is taken when its node comes and given back after its last use. Elements are
 * computed by the same operations in the same order as in nn/, which fuses them: a convolution's
 * GELU, a gate, a residual that is added. Since kernels compute each element alike wherever it
 * lies and keep f32 between those steps, values agree to the last bit where nn/ works in f32. */
#include "graph/graph_run.h"

#include <math.h>
#include <string.h>

enum {
    RUN_ROWS = 64,         /* rows of a task */
    WIDE_BYTES = 64 << 20, /* of weights widened at a time */
    ROWS_OF_STEM = 8 << 10 /* pixels of the stem whose taps are laid out at a time */
};

typedef struct graph_run {
    const fv_graph *g;
    fv_ops *ops;
    const fv_graph_io *io;
    const fv_graph_observer *observer; /* may be NULL */
    void **data;                       /* by the index of a value; NULL: not there */
    float *ones;                       /* as many as the widest row has */
    const fv_value *read;              /* whose data is a copy for the current node; or NULL */
    void *original;                    /* of that value */
    fv_error *err;
} graph_run;

/* ---- values in memory -------------------------------------------------------------------- */

static float *value_data(const graph_run *r, const fv_value *v) { return r->data[v->index]; }
static const float *input_data(const graph_run *r, const fv_node *n, size_t i)
{
    return r->data[n->in[i]->index];
}
static const int64_t *input_ids(const graph_run *r, const fv_node *n, size_t i)
{
    return r->data[n->in[i]->index];
}

/* Memory for a value; input nodes bring theirs. */
static fv_status value_take(graph_run *r, const fv_value *v)
{
    size_t n = fv_value_elems(v);
    if (!(r->data[v->index] = fv_alloc(n, sizeof(float))))
        return fv_fail_memory(r->err, n * sizeof(float), v->name);
    return FV_OK;
}

static void value_drop(graph_run *r, const fv_value *v)
{
    if (v->from->op != FV_OP_INPUT)
        fv_free(r->data[v->index]);
    r->data[v->index] = NULL;
}

static fv_status value_show(const graph_run *r, const fv_value *v)
{
    return r->observer && r->observer->value && v->type == FV_TYPE_F32
               ? r->observer->value(r->observer->user, v, value_data(r, v))
               : FV_OK;
}

/* ---- rows split over the pool ------------------------------------------------------------ */

/* Rows [first, last) of node n. */
typedef void rows_fn(const graph_run *r, const fv_node *n, size_t first, size_t last,
                     void *worker_memory);

typedef struct rows_job {
    const graph_run *r;
    const fv_node *n;
    rows_fn *fn;
    size_t n_rows, each;
} rows_job;

static void rows_task(void *user, size_t task, unsigned worker)
{
    rows_job *j = user;
    size_t first = task * j->each;
    j->fn(j->r, j->n, first, FV_MIN(first + j->each, j->n_rows), fv_ops_worker(j->r->ops, worker));
}

static fv_status rows_split(graph_run *r, const fv_node *n, size_t n_rows, size_t each, rows_fn *fn)
{
    rows_job j = { r, n, fn, n_rows, each };
    fv_pool_run(r->ops->pool, (n_rows + each - 1) / each, rows_task, &j);
    return FV_OK;
}

/* Over all rows of the result. */
static fv_status rows_split_all(graph_run *r, const fv_node *n, rows_fn *fn)
{
    return rows_split(r, n, fv_value_rows(n->out), RUN_ROWS, fn);
}

/* ---- where values come from -------------------------------------------------------------- */

static fv_status input_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    for (size_t i = 0; i < r->io->n_in; i++)
        if (!strcmp(r->io->in[i].name, n->out->name)) {
            r->data[n->out->index] = (void *)(uintptr_t)r->io->in[i].data; /* only read */
            return FV_OK;
        }
    return fv_fail(r->err, FV_ERR_ARGUMENT, 0, "%s: input %s is missing", r->g->name, n->out->name);
}

static fv_status constant_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    float *y = value_data(r, n->out);
    if (n->constant.data)
        memcpy(y, n->constant.data, fv_value_elems(n->out) * sizeof *y);
    else
        *y = (float)n->constant.x;
    return FV_OK;
}

static fv_status gather_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    const fv_mat *w = n->gather.table;
    const int64_t *ids = input_ids(r, n, 0);
    for (size_t i = 0; i < fv_value_rows(n->out); i++) {
        int64_t last = n->gather.last_id ? n->gather.last_id : INT64_MAX, id = FV_MIN(ids[i], last);
        if (id < 0 || (uint64_t)id >= w->n)
            return fv_fail(r->err, FV_ERR_ARGUMENT, i, "%s: id %" PRId64 " of %zu rows",
                           n->out->name, id, w->n);
        fv_graph_mat_rows(r->ops->k, w, (size_t)id, 1, value_data(r, n->out) + i * w->k, NULL);
    }
    return FV_OK;
}

/* ---- layers ------------------------------------------------------------------------------ */

/* Rows first to first + n of a matrix in a float type: as they are, or widened into memory, which
 * has room for their bias behind them. */
static void mat_widen(const graph_run *r, const fv_mat *w, size_t first, size_t n, float *wide,
                      fv_mat *out)
{
    float *bias = wide + n * w->k;
    *out = (fv_mat){ .data = wide, .type = FV_TYPE_F32, .n = n, .k = w->k };
    if (w->type == FV_TYPE_I8 || fv_type_is_block(w->type)) {
        fv_graph_mat_rows(r->ops->k, w, first, n, wide, bias);
        out->bias = w->bias || w->type == FV_TYPE_I8 ? bias : NULL;
        return;
    }
    out->bias = w->bias ? w->bias + first : NULL;
    out->data = (const uint8_t *)w->data + first * fv_row_bytes(w->type, w->k);
    out->type = w->type;
}

/* y [m, w->n] = scale (W x + b). A matrix that is not a float one goes through in pieces. */
static fv_status linear_apply(graph_run *r, const fv_mat *w, const float *scale, float *y,
                              const float *x, size_t m)
{
    bool plain = w->type != FV_TYPE_I8 && !fv_type_is_block(w->type);
    size_t most = WIDE_BYTES / ((w->k + 1) * sizeof(float)),
           rows = plain ? w->n : FV_MIN(w->n, most);
    fv_ops_need need = fv_linear_need(r->ops->k, r->ops->n_workers, rows, w->k, m, FV_TYPE_F32);
    FV_TRY(fv_ops_reserve(r->ops, &need, r->err));
    float *wide = plain ? NULL : fv_alloc(rows * (w->k + 1), sizeof *wide);
    if (!plain && !wide)
        return fv_fail_memory(r->err, rows * (w->k + 1) * sizeof *wide, "widened weights");
    for (size_t first = 0; first < w->n; first += rows) {
        fv_mat part;
        mat_widen(r, w, first, FV_MIN(rows, w->n - first), wide, &part);
        fv_linear l = { .w = &part,
                        .y = y + first,
                        .ldy = w->n,
                        .y_type = FV_TYPE_F32,
                        .scale = scale ? scale + first : NULL };
        fv_linear_run(r->ops, &l, 1, x, FV_TYPE_F32, w->k, m);
    }
    fv_free(wide);
    return FV_OK;
}

static fv_status linear_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    return linear_apply(r, n->linear.w, n->linear.scale, value_data(r, n->out), input_data(r, n, 0),
                        fv_value_rows(n->out));
}

/* The 27 values that output pixel `at` of the stem reads, over (y, x, rgb); 0 outside. */
static void stem_taps(float *taps, const float *map, size_t height, size_t width, size_t at)
{
    size_t half = width / 2, y = at / half, x = at % half;
    for (size_t dy = 0; dy < 3; dy++)
        for (size_t dx = 0; dx < 3; dx++, taps += 3) {
            size_t row = 2 * y + dy, column = 2 * x + dx; /* of the map with a border of one */
            if (row < 1 || column < 1 || row > height || column > width)
                memset(taps, 0, 3 * sizeof *taps);
            else
                memcpy(taps, map + ((row - 1) * width + column - 1) * 3, 3 * sizeof *taps);
        }
}

static fv_status conv_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    const fv_value *x = n->in[0];
    size_t pixels = fv_value_rows(n->out), each = FV_MIN(pixels, (size_t)ROWS_OF_STEM);
    fv_status status = FV_OK;
    float *taps = fv_alloc(each * 27, sizeof *taps);
    if (!taps)
        return fv_fail_memory(r->err, each * 27 * sizeof *taps, "the stem's taps");
    for (size_t at = 0; status == FV_OK && at < pixels; at += each) {
        size_t m = FV_MIN(each, pixels - at);
        for (size_t i = 0; i < m; i++)
            stem_taps(taps + i * 27, input_data(r, n, 0), (size_t)x->dim[1].n, (size_t)x->dim[2].n,
                      at + i);
        status = linear_apply(r, n->conv.w, NULL, value_data(r, n->out) + at * n->conv.w->n, taps,
                              m);
    }
    fv_free(taps);
    return status;
}

static fv_status depthwise_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    const fv_value *x = n->in[0];
    fv_dw dw = *n->depthwise.w;
    size_t outputs = dw.channels * dw.mult, taps = (size_t)dw.kernel * dw.kernel;
    float *wide = NULL;
    if (dw.w8) {
        if (!(wide = fv_alloc(taps * outputs, sizeof *wide)))
            return fv_fail_memory(r->err, taps * outputs * sizeof *wide, "widened weights");
        fv_graph_dw_taps(&dw, wide);
        dw = (fv_dw){ .w = wide,
                      .bias = dw.bias,
                      .channels = dw.channels,
                      .mult = dw.mult,
                      .kernel = dw.kernel };
    }
    fv_map_shape shape = { (size_t)x->dim[1].n, (size_t)x->dim[2].n };
    fv_ops_need need = fv_dw_need(r->ops, &dw, shape);
    fv_status status = fv_ops_reserve(r->ops, &need, r->err);
    if (status == FV_OK)
        fv_dw_run(r->ops, fv_rows_f32(value_data(r, n->out)), fv_rows_f32(input_data(r, n, 0)),
                  shape, &dw, n->depthwise.stride, FV_ACT_NONE);
    fv_free(wide);
    return status;
}

static void norm_rows(const graph_run *r, const fv_node *n, size_t first, size_t last, void *memory)
{
    size_t c = fv_value_cols(n->out), at = first * c;
    const float *x = input_data(r, n, 0) + at;
    float *y = value_data(r, n->out) + at;
    (void)memory;
    if (n->op == FV_OP_CHANNEL_NORM)
        r->ops->k->layernorm(y, FV_TYPE_F32, c, x, c, n->norm.weight, n->norm.bias, last - first, c,
                             (float)n->norm.eps);
    else
        r->ops->k->rmsnorm(y, FV_TYPE_F32, c, x, c, n->norm.weight, last - first, c,
                           (float)n->norm.eps);
}

static fv_status norm_run(void *user, const fv_node *n)
{
    return rows_split_all(user, n, norm_rows);
}

/* ---- element by element ------------------------------------------------------------------ */

static void unary_rows(const graph_run *r, const fv_node *n, size_t first, size_t last,
                       void *memory)
{
    size_t c = fv_value_cols(n->out), count = (last - first) * c;
    const float *x = input_data(r, n, 0) + first * c;
    float *y = value_data(r, n->out) + first * c;
    (void)memory;
    switch (n->op) {
    case FV_OP_GELU: r->ops->k->scale_gelu(y, c, x, c, r->ones, last - first, c); break;
    case FV_OP_SILU:
        for (size_t i = first; i < last; i++, x += c, y += c)
            r->ops->k->swiglu(y, x, r->ones, c);
        break;
    case FV_OP_RELU:
        for (size_t i = 0; i < count; i++)
            y[i] = fmaxf(x[i], 0.0f);
        break;
    case FV_OP_SIGMOID:
        for (size_t i = 0; i < count; i++)
            y[i] = 1.0f / (1.0f + expf(-x[i]));
        break;
    case FV_OP_COS:
        for (size_t i = 0; i < count; i++)
            y[i] = cosf(x[i]);
        break;
    default:
        for (size_t i = 0; i < count; i++)
            y[i] = sinf(x[i]);
    }
}

static fv_status unary_run(void *user, const fv_node *n)
{
    return rows_split_all(user, n, unary_rows);
}

/* The second operand again for every row (a vector, a map of one pixel), for every element (a
 * scalar), or row by row. */
static void binary_rows(const graph_run *r, const fv_node *n, size_t first, size_t last,
                        void *memory)
{
    size_t c = fv_value_cols(n->out), elems = fv_value_elems(n->in[1]);
    size_t row_step = elems == fv_value_elems(n->in[0]) ? c : 0, step = elems == 1 ? 0 : 1;
    (void)memory;
    for (size_t i = first; i < last; i++) {
        const float *a = input_data(r, n, 0) + i * c, *b = input_data(r, n, 1) + i * row_step;
        float *y = value_data(r, n->out) + i * c;
        if (n->op == FV_OP_ADD)
            for (size_t j = 0; j < c; j++)
                y[j] = a[j] + b[j * step];
        else
            for (size_t j = 0; j < c; j++)
                y[j] = a[j] * b[j * step];
    }
}

static fv_status binary_run(void *user, const fv_node *n)
{
    return rows_split_all(user, n, binary_rows);
}

static fv_status mean_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t c = fv_value_cols(n->out), pixels = fv_value_rows(n->in[0]);
    float *y = value_data(r, n->out);
    memset(y, 0, c * sizeof *y);
    r->ops->k->colsum(y, input_data(r, n, 0), c, pixels, c);
    for (size_t i = 0; i < c; i++)
        y[i] /= (float)pixels;
    return FV_OK;
}

/* ---- attention --------------------------------------------------------------------------- */

/* Queries, keys and values wherever they lie: head h of row i is at + h * head + i * row. */
typedef struct head_rows {
    const float *at;
    size_t head, row, step; /* step: from one element of a row to the next */
} head_rows;

typedef struct attend_job {
    head_rows q, k, v;
    const float *bias;       /* [1 or n, n_keys], or NULL */
    size_t heads, group;     /* group: queries' heads that share one of the keys' */
    size_t n, n_keys, width; /* rows; keys; of a head */
    size_t bias_step;        /* from a row's bias to the next one's */
    bool causal;             /* row i sees keys 0 .. i */
    float scale;
    float *scores, *weights; /* [heads, n, n_keys] each; may be NULL */
    float *out;              /* [n, heads * width], or NULL */
} attend_job;

enum { SUMS = 8 }; /* side by side: each addition waits for the one before it */

static float strided_dot(const float *a, size_t a_step, const float *b, size_t b_step, size_t n)
{
    float sum[SUMS] = { 0 }, all = 0;
    size_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (size_t lane = 0; lane < SUMS; lane++)
            sum[lane] += a[(i + lane) * a_step] * b[(i + lane) * b_step];
    for (; i < n; i++)
        all += a[i * a_step] * b[i * b_step];
    for (size_t lane = 0; lane < SUMS; lane++)
        all += sum[lane];
    return all;
}

/* One row of one head: scores [n_keys], */
static void row_score(const attend_job *j, size_t head, size_t row, float *scores)
{
    const float *q = j->q.at + head * j->q.head + row * j->q.row;
    const float *k = j->k.at + head / j->group * j->k.head;
    bool plain = j->q.step == 1 && j->k.step == 1; /* then the loops need no products */
    for (size_t t = 0; t < j->n_keys; t++)
        scores[t] = j->scale *
                    (plain ? strided_dot(q, 1, k + t * j->k.row, 1, j->width)
                           : strided_dot(q, j->q.step, k + t * j->k.row, j->k.step, j->width));
}

/* weights in place of them, */
static void row_softmax(const attend_job *j, size_t row, float *w)
{
    size_t seen = j->causal ? row + 1 : j->n_keys;
    float most = -INFINITY, sum = 0;
    for (size_t t = 0; t < seen; t++)
        most = fmaxf(most, w[t]);
    for (size_t t = 0; t < j->n_keys; t++) {
        w[t] = t < seen ? expf(w[t] - most) : 0;
        sum += w[t];
    }
    for (size_t t = 0; t < j->n_keys; t++)
        w[t] /= sum;
}

/* and values added up with those. */
static void row_mix(const attend_job *j, size_t head, size_t row, const float *w)
{
    const float *v = j->v.at + head / j->group * j->v.head;
    float *out = j->out + (row * j->heads + head) * j->width;
    memset(out, 0, j->width * sizeof *out);
    for (size_t t = 0; t < j->n_keys; t++)
        for (size_t d = 0; d < j->width; d++)
            out[d] += w[t] * v[t * j->v.row + d * j->v.step];
}

/* memory holds n_keys. */
static void attend_row(const attend_job *j, size_t head, size_t row, float *memory)
{
    size_t at = (head * j->n + row) * j->n_keys;
    float *w = j->weights ? j->weights + at : memory;
    row_score(j, head, row, w);
    if (j->scores)
        memcpy(j->scores + at, w, j->n_keys * sizeof *w);
    for (size_t t = 0; j->bias && t < j->n_keys; t++)
        w[t] += j->bias[row * j->bias_step + t];
    row_softmax(j, row, w);
    if (j->out)
        row_mix(j, head, row, w);
}

typedef struct attend_tasks {
    const attend_job *job;
    float *memory; /* n_keys for each worker */
} attend_tasks;

static void attend_plain_task(void *user, size_t task, unsigned worker)
{
    attend_tasks *t = user;
    attend_row(t->job, task / t->job->n, task % t->job->n, t->memory + worker * t->job->n_keys);
}

static fv_status attend_plain(graph_run *r, const attend_job *j)
{
    attend_tasks t = { j, fv_alloc(r->ops->n_workers * j->n_keys, sizeof *t.memory) };
    if (!t.memory)
        return fv_fail_memory(r->err, r->ops->n_workers * j->n_keys * sizeof *t.memory,
                              "scores of attention");
    fv_pool_run(r->ops->pool, j->heads * j->n, attend_plain_task, &t);
    fv_free(t.memory);
    return FV_OK;
}

/* Computes and shows what lies inside attention. */
static fv_status attend_inside(graph_run *r, attend_job j, const fv_value *scores,
                               const fv_value *weights)
{
    fv_status status = FV_OK;
    if (!r->observer || !r->observer->inner)
        return FV_OK;
    FV_TRY_GOTO(value_take(r, scores));
    FV_TRY_GOTO(value_take(r, weights));
    j.scores = value_data(r, scores);
    j.weights = value_data(r, weights);
    j.out = NULL;
    FV_TRY_GOTO(attend_plain(r, &j));
    FV_TRY_GOTO(value_show(r, scores));
    FV_TRY_GOTO(value_show(r, weights));
fail:
    value_drop(r, scores);
    value_drop(r, weights);
    return status;
}

/* ---- attention that is changed on its way ---- */

static void scores_task(void *user, size_t task, unsigned worker)
{
    const attend_job *j = user;
    (void)worker;
    row_score(j, task / j->n, task % j->n, j->scores + task * j->n_keys);
}

static void weights_task(void *user, size_t task, unsigned worker)
{
    const attend_job *j = user;
    (void)worker;
    row_softmax(j, task % j->n, j->scores + task * j->n_keys);
}

static void mix_task(void *user, size_t task, unsigned worker)
{
    const attend_job *j = user;
    (void)worker;
    row_mix(j, task / j->n, task % j->n, j->scores + task * j->n_keys);
}

static fv_status attend_changed(graph_run *r, attend_job j, const fv_node *n)
{
    const fv_value *scores = n->self_attention.scores, *weights = n->self_attention.weights;
    FV_TRY(value_take(r, scores));
    j.scores = value_data(r, scores);
    j.out = value_data(r, n->out);
    fv_pool_run(r->ops->pool, j.heads * j.n, scores_task, &j);
    r->observer->change(r->observer->user, scores, j.scores);
    fv_pool_run(r->ops->pool, j.heads * j.n, weights_task, &j);
    r->observer->change(r->observer->user, weights, j.scores);
    fv_pool_run(r->ops->pool, j.heads * j.n, mix_task, &j);
    value_drop(r, scores);
    return FV_OK;
}

static fv_status self_attention_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t c = fv_value_cols(n->out), rows = fv_value_rows(n->out), d = n->self_attention.width;
    const float *qkv = input_data(r, n, 0);
    const fv_graph_observer *o = r->observer;
    attend_job j = { .q = { qkv, d, 3 * c, 1 },
                     .k = { qkv + c, d, 3 * c, 1 },
                     .v = { qkv + 2 * c, d, 3 * c, 1 },
                     .heads = c / d,
                     .group = 1,
                     .n = rows,
                     .n_keys = rows,
                     .width = d,
                     .scale = 1.0f / sqrtf((float)d) };
    if (o && o->change && o->inside && o->inside(o->user, n))
        return attend_changed(r, j, n);
    fv_attention_run(r->ops, fv_rows_f32(value_data(r, n->out)), qkv, rows, c, d, FV_TYPE_F32);
    return attend_inside(r, j, n->self_attention.scores, n->self_attention.weights);
}

/* Without a mask, by the kernel that the decoder runs: a head and FV_ATTN_MAX_Q rows a task. */
static void attend_causal_task(void *user, size_t task, unsigned worker)
{
    rows_job *j = user;
    const fv_node *n = j->n;
    const fv_value *q = n->in[0];
    size_t heads = (size_t)q->dim[1].n, rows = (size_t)q->dim[2].n, d = (size_t)q->dim[3].n;
    size_t group = heads / (size_t)n->in[2]->dim[1].n, blocks = (rows + j->each - 1) / j->each;
    size_t head = task / blocks, row = task % blocks * j->each;
    fv_attn_args a = { .q = input_data(j->r, n, 0) + (head * rows + row) * d,
                       .n_q = FV_MIN(j->each, rows - row),
                       .ldq = d,
                       .k = input_data(j->r, n, 1) + head / group * rows * d,
                       .v = input_data(j->r, n, 2) + head / group * rows * d,
                       .n_kv = rows,
                       .ldk = d,
                       .ldv = d,
                       .kv_type = FV_TYPE_F32,
                       .d = d,
                       .scale = 1,
                       .causal = true,
                       .n_visible = row + 1,
                       .out = value_data(j->r, n->out) + (row * heads + head) * d,
                       .ldo = heads * d,
                       .out_type = FV_TYPE_F32,
                       .scratch = fv_ops_worker(j->r->ops, worker) };
    j->r->ops->k->attn(&a);
}

static fv_status attention_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    const fv_value *q = n->in[0], *v = n->in[2], *bias = n->n_in > 3 ? n->in[3] : NULL;
    size_t heads = (size_t)q->dim[1].n, rows = (size_t)q->dim[2].n, d = (size_t)q->dim[3].n,
           kv = (size_t)v->dim[1].n, keys = (size_t)v->dim[2].n;
    bool turned = n->attention.transposed;
    attend_job j = { .q = { value_data(r, q), rows * d, d, 1 },
                     .k = { input_data(r, n, 1), keys * d, turned ? 1 : d, turned ? keys : 1 },
                     .v = { value_data(r, v), keys * d, d, 1 },
                     .bias = bias ? value_data(r, bias) : NULL,
                     .bias_step = bias && bias->dim[2].n > 1 ? keys : 0,
                     .heads = heads,
                     .group = heads / kv,
                     .n = rows,
                     .n_keys = keys,
                     .width = d,
                     .causal = !bias,
                     .scale = 1,
                     .out = value_data(r, n->out) };
    if (bias) {
        FV_TRY(attend_plain(r, &j));
    } else {
        size_t each = FV_ATTN_MAX_Q;
        rows_job tasks = { r, n, NULL, rows, each };
        fv_pool_run(r->ops->pool, heads * ((rows + each - 1) / each), attend_causal_task, &tasks);
    }
    return attend_inside(r, j, n->attention.scores, n->attention.weights);
}

static fv_status angle_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t half = fv_value_cols(n->out) / 2;
    float *y = value_data(r, n->out);
    for (size_t i = 0; i < fv_value_rows(n->out); i++, y += 2 * half)
        for (size_t m = 0; m < half; m++)
            y[m] = y[half + m] = (float)input_ids(r, n, 0)[i] * n->angle.frequency[m];
    return FV_OK;
}

static void rope_rows(const graph_run *r, const fv_node *n, size_t first, size_t last, void *memory)
{
    size_t d = fv_value_cols(n->out), rows = (size_t)n->out->dim[2].n;
    (void)memory;
    for (size_t i = first; i < last; i++) {
        float *y = value_data(r, n->out) + i * d;
        memcpy(y, input_data(r, n, 0) + i * d, d * sizeof *y);
        r->ops->k->rope(y, input_data(r, n, 1) + i % rows * d, input_data(r, n, 2) + i % rows * d,
                        1, d);
    }
}

static fv_status rope_run(void *user, const fv_node *n)
{
    return rows_split_all(user, n, rope_rows);
}

/* Low, but finite as in exported graphs: rows that may look nowhere give no NaN. */
static fv_status mask_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t rows = (size_t)n->mask.step_len, total = (size_t)n->mask.cache_len + rows;
    float *y = value_data(r, n->out);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < total; j++)
            y[i * total + j] = input_ids(r, n, 0)[j] && j <= total - rows + i ? 0.0f : -0x1p126f;
    return FV_OK;
}

/* ---- data that moves --------------------------------------------------------------------- */

/* Maps lie as rows do. */
static fv_status same_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    memcpy(value_data(r, n->out), input_data(r, n, 0), fv_value_elems(n->out) * sizeof(float));
    return FV_OK;
}

/* [n, heads, d] -> [heads, n, d] */
static fv_status heads_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t heads = (size_t)n->out->dim[1].n, rows = (size_t)n->out->dim[2].n,
           d = (size_t)n->out->dim[3].n;
    for (size_t i = 0; i < rows; i++)
        for (size_t h = 0; h < heads; h++)
            memcpy(value_data(r, n->out) + (h * rows + i) * d,
                   input_data(r, n, 0) + (i * heads + h) * d, d * sizeof(float));
    return FV_OK;
}

static fv_status transpose_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t rows = (size_t)n->out->dim[n->out->n_dims - 2].n, cols = fv_value_cols(n->out);
    const float *x = input_data(r, n, 0);
    float *y = value_data(r, n->out);
    for (size_t i = 0; i < fv_value_elems(n->out); i++) {
        size_t matrix = i / (rows * cols), row = i / cols % rows, col = i % cols;
        y[i] = x[(matrix * cols + col) * rows + row];
    }
    return FV_OK;
}

/* Elements of a value from an axis on: an entry of the axis before has so many. */
static size_t axis_elems(const fv_value *v, int axis)
{
    size_t n = 1;
    for (int i = axis; i < v->n_dims; i++)
        n *= (size_t)v->dim[i].n;
    return n;
}

static fv_status concat_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t a = axis_elems(n->in[0], n->concat.axis), b = axis_elems(n->in[1], n->concat.axis);
    float *y = value_data(r, n->out);
    for (size_t i = 0; i < fv_value_elems(n->out) / (a + b); i++) {
        memcpy(y + i * (a + b), input_data(r, n, 0) + i * a, a * sizeof *y);
        memcpy(y + i * (a + b) + a, input_data(r, n, 1) + i * b, b * sizeof *y);
    }
    return FV_OK;
}

static fv_status slice_run(void *user, const fv_node *n)
{
    graph_run *r = user;
    size_t from = axis_elems(n->in[0], n->slice.axis), to = axis_elems(n->out, n->slice.axis),
           skip = (size_t)n->slice.begin * axis_elems(n->in[0], n->slice.axis + 1);
    for (size_t i = 0; i < fv_value_elems(n->out) / to; i++)
        memcpy(value_data(r, n->out) + i * to, input_data(r, n, 0) + i * from + skip,
               to * sizeof(float));
    return FV_OK;
}

/* ---- the run ----------------------------------------------------------------------------- */

static fv_status read_begin(graph_run *r, const fv_node *n)
{
    const fv_value *v = n->in[0];
    r->original = r->data[v->index];
    r->read = v;
    FV_TRY(value_take(r, v));
    memcpy(value_data(r, v), r->original, fv_value_elems(v) * sizeof(float));
    r->observer->read(r->observer->user, n, value_data(r, v));
    return FV_OK;
}

static void read_end(graph_run *r)
{
    if (!r->read)
        return;
    fv_free(r->data[r->read->index]);
    r->data[r->read->index] = r->original;
    r->read = NULL;
}

static fv_status node_begin(void *user, const fv_node *n)
{
    graph_run *r = user;
    if (r->observer && r->observer->read && fv_node_weight(n) && n->in[0]->type == FV_TYPE_F32)
        FV_TRY(read_begin(r, n));
    return n->op == FV_OP_INPUT ? FV_OK : value_take(r, n->out);
}

static fv_status node_end(void *user, const fv_node *n)
{
    graph_run *r = user;
    const fv_value *v = n->out;
    read_end(r);
    if (r->observer && r->observer->change && n->op != FV_OP_INPUT && v->type == FV_TYPE_F32)
        r->observer->change(r->observer->user, v, value_data(r, v));
    FV_TRY(value_show(r, v));
    for (size_t i = 0; v->output && i < r->io->n_out; i++)
        if (!strcmp(r->io->out[i].name, v->output))
            memcpy(r->io->out[i].data, value_data(r, v), fv_value_elems(v) * sizeof(float));
    for (size_t i = 0; i < n->n_in; i++)
        if (n->in[i]->last_use == n)
            value_drop(r, n->in[i]);
    if (!v->n_uses)
        value_drop(r, v);
    return FV_OK;
}

static const fv_backend run_table = {
    .name = "graph_run",
    .before = node_begin,
    .op = {
        [FV_OP_INPUT] = input_run,
        [FV_OP_CONSTANT] = constant_run,
        [FV_OP_GATHER] = gather_run,
        [FV_OP_CONV] = conv_run,
        [FV_OP_DEPTHWISE] = depthwise_run,
        [FV_OP_LINEAR] = linear_run,
        [FV_OP_CHANNEL_NORM] = norm_run,
        [FV_OP_RMS_NORM] = norm_run,
        [FV_OP_GELU] = unary_run,
        [FV_OP_RELU] = unary_run,
        [FV_OP_SIGMOID] = unary_run,
        [FV_OP_SILU] = unary_run,
        [FV_OP_COS] = unary_run,
        [FV_OP_SIN] = unary_run,
        [FV_OP_ADD] = binary_run,
        [FV_OP_MUL] = binary_run,
        [FV_OP_MEAN] = mean_run,
        [FV_OP_SELF_ATTENTION] = self_attention_run,
        [FV_OP_ANGLE] = angle_run,
        [FV_OP_ROPE] = rope_run,
        [FV_OP_MASK] = mask_run,
        [FV_OP_ATTENTION] = attention_run,
        [FV_OP_ROWS] = same_run,
        [FV_OP_HEADS] = heads_run,
        [FV_OP_TRANSPOSE] = transpose_run,
        [FV_OP_CONCAT] = concat_run,
        [FV_OP_SLICE] = slice_run,
    },
    .after = node_end,
};

/* Shapes are numbers, types f32 or ids; the widest row. */
static fv_status graph_check(const fv_graph *g, size_t *widest, fv_error *err)
{
    FV_TRY(fv_graph_status(g));
    *widest = 1;
    for (size_t i = 0; i < g->n_values; i++) {
        const fv_value *v = g->value[i];
        if (!fv_value_elems(v) || (v->type != FV_TYPE_F32 && v->type != FV_TYPE_I64))
            return fv_fail(
                err, FV_ERR_UNSUPPORTED, 0,
                "%s: %s has a free dimension or type %s; graph_run needs numbers and F32", g->name,
                v->name, fv_type_name(v->type));
        *widest = FV_MAX(*widest, fv_value_cols(v));
    }
    return FV_OK;
}

fv_status fv_graph_run(const fv_graph *g, fv_ops *ops, const fv_graph_io *io,
                       const fv_graph_observer *observer, fv_error *err)
{
    size_t widest;
    FV_TRY(graph_check(g, &widest, err));
    graph_run r = { .g = g, .ops = ops, .io = io, .observer = observer, .err = err };
    fv_status status = FV_OK;
    r.data = fv_alloc_zero(g->n_values, sizeof *r.data);
    r.ones = fv_alloc(widest, sizeof *r.ones);
    if (!r.data || !r.ones) {
        status = fv_fail_memory(err, widest * sizeof *r.ones, "running a graph");
        goto fail;
    }
    for (size_t i = 0; i < widest; i++)
        r.ones[i] = 1;
    status = fv_graph_lower(g, &run_table, &r, err);
    read_end(&r);
    for (size_t i = 0; i < g->n_values; i++)
        value_drop(&r, g->value[i]);
fail:
    fv_free(r.data);
    fv_free(r.ones);
    return status;
}
