/* Matrix-vector products: linear layers of one row, or of a few rows each of which gets the bits
 * that it gets alone. A task takes a run of weight rows and takes all rows of x through it,
 * FV_GEMV_ROWS at a time, so that memory gives every weight once; x is in the caches. Weights of
 * any type: those in blocks meet rows quantised into the shared scratch, others x itself. */
#include <string.h>

#include "nn/ops_split.h"

/* Weights of a task, at least: runs that are shorter are read more slowly. */
enum { VECTOR_TASK_BYTES = 128 << 10 };

static size_t round_up_8(size_t x) { return (x + 7) / 8 * 8; }

/* Rows of weights in a task: enough tasks that no thread waits long for the others, none too
 * short. */
static size_t vector_columns(const fv_linear *layers, size_t n_layers, unsigned n_workers)
{
    size_t n = 0, row_bytes = fv_row_bytes(layers->w->type, layers->w->k);
    for (size_t i = 0; i < n_layers; i++)
        n += layers[i].w->n;
    size_t share = round_up_8((n + n_workers - 1) / n_workers),
           run = VECTOR_TASK_BYTES / row_bytes + 1;
    size_t rows = FV_MIN(FV_MAX(n / (64 * n_workers), run), share);
    return FV_MIN(round_up_8(rows), (size_t)FV_VECTOR_COLUMNS);
}

typedef struct vector_job {
    const fv_ops *ops;
    const fv_linear *layer; /* [n_layers] */
    size_t n_layers;
    const fv_mat *gate, *up; /* of a gated layer, in place of layer */
    float *y;                /* [m, gate->n] of a gated layer */
    const float *x;          /* [m, ldx] */
    size_t ldx, m;
    size_t columns; /* rows of weights in a task */
} vector_job;

/* y [m, ldy] = rows `first` .. of x times rows [col, col + n) of w; m at most FV_GEMV_ROWS. */
static void vector_product(const vector_job *j, float *y, size_t ldy, const fv_mat *w, size_t first,
                           size_t m, size_t col, size_t n)
{
    const fv_kernels *k = j->ops->k;
    const float *x = j->x + first * j->ldx, *bias = w->bias ? w->bias + col : NULL;
    const void *rows = fv_mat_row(w, col);
    if (fv_type_is_block(w->type)) {
        const uint8_t *quantised = j->ops->shared + first * fv_quantized_row_bytes(w->k);
        if (m == 1)
            k->gemv_q[w->type](y, rows, quantised, bias, n, w->k);
        else
            k->gemv_q_rows[w->type](y, ldy, rows, quantised, bias, m, n, w->k);
    } else if (m == 1) {
        k->gemv[w->type](y, rows, w->k, x, bias, n, w->k);
    } else {
        k->gemv_rows[w->type](y, ldy, rows, w->k, x, j->ldx, bias, m, n, w->k);
    }
}

static void vector_task(void *user, size_t task, unsigned worker)
{
    const vector_job *j = user;
    size_t col, rows;
    const fv_linear *l = fv_find_columns(j->layer, j->n_layers, j->columns, task, &col);
    size_t n = FV_MIN(j->columns, l->w->n - col);
    for (size_t first = 0; first < j->m; first += rows) {
        rows = FV_MIN(j->m - first, (size_t)FV_GEMV_ROWS);
        float *y = l->y_rows ? NULL : (float *)l->y + first * l->ldy + col;
        if (y && !l->residual) {
            vector_product(j, y, l->ldy, l->w, first, rows, col, n);
            continue;
        }
        float *sum = fv_ops_worker(j->ops, worker); /* [rows, n] */
        vector_product(j, sum, n, l->w, first, rows, col, n);
        for (size_t i = 0; i < rows; i++, sum += n) {
            float *to = y ? y + i * l->ldy : l->y_rows[first + i] + col;
            const float *residual = l->residual ? l->residual + (first + i) * l->ldr + col : NULL;
            if (!residual) {
                memcpy(to, sum, n * sizeof *to);
                continue;
            }
            if (to != residual)
                memmove(to, residual, n * sizeof *to);
            j->ops->k->add(to, sum, n);
        }
    }
}

void fv_linear_run_vectors(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                           const float *x, size_t ldx, size_t m)
{
    fv_ops_observe(ops, layers->w, x, FV_TYPE_F32, m, layers->w->k);
    vector_job j = {
        .ops = ops, .layer = layers, .n_layers = n_layers, .x = x, .ldx = ldx, .m = m
    };
    if (fv_has_blocks(layers, n_layers))
        fv_quantise_rows(ops, x, ldx, m, layers->w->k);
    j.columns = vector_columns(layers, n_layers, ops->n_workers);
    fv_pool_run(ops->pool, fv_count_columns(layers, n_layers, j.columns), vector_task, &j);
}

void fv_linear_run_each(const fv_ops *ops, const fv_linear *layers, size_t n_layers, const float *x,
                        size_t ldx, size_t m)
{
    const double start = fv_op_start(ops);
    fv_linear_run_vectors(ops, layers, n_layers, x, ldx, m);
    fv_time_linear(ops, start, "linear", layers, n_layers, FV_TYPE_F32, m);
}

/* The gate's values of a run stay in scratch until up's are there. */
static void gated_vector_task(void *user, size_t task, unsigned worker)
{
    const vector_job *j = user;
    size_t col = task * j->columns, ldy = j->gate->n, n = FV_MIN(j->columns, ldy - col), rows;
    float *gate = fv_ops_worker(j->ops, worker); /* [rows, n] */
    for (size_t first = 0; first < j->m; first += rows) {
        rows = FV_MIN(j->m - first, (size_t)FV_GEMV_ROWS);
        float *y = j->y + first * ldy + col;
        vector_product(j, gate, n, j->gate, first, rows, col, n);
        vector_product(j, y, ldy, j->up, first, rows, col, n);
        for (size_t i = 0; i < rows; i++)
            j->ops->k->swiglu(y + i * ldy, gate + i * n, y + i * ldy, n);
    }
}

void fv_gated_run_vectors(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                          const float *x, size_t m)
{
    fv_ops_observe(ops, gate, x, FV_TYPE_F32, m, gate->k);
    const fv_linear both[2] = { { .w = gate }, { .w = up } };
    vector_job j = { .ops = ops, .gate = gate, .up = up, .y = y, .x = x, .ldx = gate->k, .m = m };
    if (fv_has_blocks(both, 2))
        fv_quantise_rows(ops, x, gate->k, m, gate->k);
    j.columns = vector_columns(both, 1, ops->n_workers);
    fv_pool_run(ops->pool, (gate->n + j.columns - 1) / j.columns, gated_vector_task, &j);
}

void fv_gated_run_each(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                       const float *x, size_t m)
{
    const double start = fv_op_start(ops);
    const fv_linear both[2] = { { .w = gate }, { .w = up } };
    fv_gated_run_vectors(ops, gate, up, y, x, m);
    fv_time_linear(ops, start, "gated", both, 2, FV_TYPE_F32, m);
}
