/* Linear layers of many rows of which some weights are in blocks of 8 or 4 bits. The rows of x are
 * quantised once, into the shared scratch, and meet panels that every task packs for its columns.
 * Matrices that are not in blocks use x itself. (A row by itself: ops_vector.c.) */
#include "nn/ops_split.h"

enum {
    TASK_COLUMNS = 128,   /* of a product at most: its sums stay in L2 */
    TASKS_PER_WORKER = 7, /* at least, while there are columns: 896 columns are 2 x 7 x 64 */
    QUANTISE_ROWS = 8     /* a task; fewer rows are quantised sooner than a thread wakes */
};

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

bool fv_has_blocks(const fv_linear *layers, size_t n_layers)
{
    for (size_t i = 0; i < n_layers; i++)
        if (fv_type_is_block(layers[i].w->type))
            return true;
    return false;
}

static size_t product_columns(const fv_kernels *k, size_t n, unsigned n_workers)
{
    size_t nr = k->gemm_q.nr, panels = n / nr / (TASKS_PER_WORKER * n_workers);
    return FV_MIN(FV_MAX(panels, (size_t)1) * nr, (size_t)TASK_COLUMNS);
}

static size_t quant_panel_bytes(const fv_kernels *k, size_t columns, size_t depth)
{
    size_t blocks = fv_packed_q_bytes(&k->gemm_q, FV_TYPE_Q8_0, columns, depth),
           plain = fv_packed_elems(&k->gemm_f32, columns, depth) * 4;
    return round_up(FV_MAX(blocks, plain), 64);
}

/* worker: packed panels, then the gate's sums [m, columns]; shared: the quantised rows [m]. */
fv_ops_need fv_quant_need(const fv_kernels *k, unsigned n_workers, size_t n, size_t depth, size_t m)
{
    size_t columns = FV_MIN(round_up(n, k->gemm_q.nr), (size_t)TASK_COLUMNS);
    (void)n_workers;
    fv_ops_need need = { quant_panel_bytes(k, columns, depth) + m * columns * sizeof(float),
                         m * fv_quantized_row_bytes(depth) };
    need.worker_bytes = FV_MAX(need.worker_bytes, (size_t)FV_VECTOR_BYTES);
    return need;
}

/* ---- the rows ---------------------------------------------------------------------------- */

typedef struct quantise_job {
    const fv_ops *ops;
    const float *x; /* [m, ldx] */
    size_t ldx, m, k;
} quantise_job;

static void quantise_task(void *user, size_t task, unsigned worker)
{
    quantise_job *j = user;
    (void)worker;
    for (size_t row = task * QUANTISE_ROWS; row < FV_MIN(j->m, (task + 1) * QUANTISE_ROWS); row++)
        j->ops->k->quantize_row(j->ops->shared + row * fv_quantized_row_bytes(j->k),
                                j->x + row * j->ldx, j->k);
}

void fv_quantise_rows(const fv_ops *ops, const float *x, size_t ldx, size_t m, size_t k)
{
    quantise_job j = { ops, x, ldx, m, k };
    if (m <= QUANTISE_ROWS)
        quantise_task(&j, 0, 0);
    else
        fv_pool_run(ops->pool, (m + QUANTISE_ROWS - 1) / QUANTISE_ROWS, quantise_task, &j);
}

/* ---- products ---------------------------------------------------------------------------- */

/* args.m rows times columns [col, col + args.n) of w. args: all but k, a, b and bias; packed:
 * quant_panel_bytes of scratch. */
static void panel_product(const fv_ops *ops, fv_gemm_args args, const fv_mat *w, const float *x,
                          size_t ldx, size_t col, void *packed)
{
    args.k = w->k;
    args.b = packed;
    args.bias = w->bias ? w->bias + col : NULL;
    if (fv_type_is_block(w->type)) {
        args.a = ops->shared;
        args.lda = fv_quantized_row_bytes(w->k);
        ops->k->gemm_q.pack[w->type](packed, fv_mat_row(w, col), 0, args.n, w->k);
        ops->k->gemm_q.run[w->type](&args);
    } else {
        args.a = x;
        args.lda = ldx;
        ops->k->gemm_f32.pack[w->type](packed, fv_mat_row(w, col), w->k, args.n, w->k);
        ops->k->gemm_f32.run(&args);
    }
}

/* ---- linear layers ----------------------------------------------------------------------- */

typedef struct quant_job {
    const fv_ops *ops;
    const fv_linear *layer; /* [n_layers] */
    size_t n_layers, m;
    size_t columns; /* a task */
    const float *x; /* [m, ldx] */
    size_t ldx;
} quant_job;

static void quant_task(void *user, size_t task, unsigned worker)
{
    quant_job *j = user;
    size_t col;
    const fv_linear *l = fv_find_columns(j->layer, j->n_layers, j->columns, task, &col);
    fv_gemm_args args = { .m = j->m,
                          .n = FV_MIN(j->columns, l->w->n - col),
                          .c = (float *)l->y + col,
                          .ldc = l->ldy,
                          .c_type = FV_TYPE_F32,
                          .scale = l->scale ? l->scale + col : NULL,
                          .residual = l->residual ? l->residual + col : NULL,
                          .ldr = l->ldr };
    panel_product(j->ops, args, l->w, j->x, j->ldx, col, fv_ops_worker(j->ops, worker));
}

void fv_linear_run_quant(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                         const float *x, size_t ldx, size_t m)
{
    quant_job j = { ops, layers, n_layers, m, 0, x, ldx };
    fv_quantise_rows(ops, x, ldx, m, layers->w->k);
    j.columns = product_columns(ops->k, layers->w->n, ops->n_workers);
    fv_pool_run(ops->pool, fv_count_columns(layers, n_layers, j.columns), quant_task, &j);
}

/* ---- gated layer ------------------------------------------------------------------------- */

typedef struct gated_quant_job {
    const fv_ops *ops;
    const fv_mat *gate, *up;
    float *y;       /* [m, gate->n] */
    const float *x; /* [m, gate->k] */
    size_t m;
    size_t columns; /* a task */
} gated_quant_job;

/* The gate's values for all rows stay in scratch; the product with up uses them. */
static void gated_quant_task(void *user, size_t task, unsigned worker)
{
    gated_quant_job *j = user;
    size_t col = task * j->columns, n = FV_MIN(j->columns, j->gate->n - col);
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    float *gate = (float *)(packed + quant_panel_bytes(j->ops->k, j->columns, j->gate->k));
    fv_gemm_args args = { .m = j->m, .n = n, .c = gate, .ldc = j->columns, .c_type = FV_TYPE_F32 };
    panel_product(j->ops, args, j->gate, j->x, j->gate->k, col, packed);
    args.c = j->y + col;
    args.ldc = j->gate->n;
    args.gate = gate;
    args.ldg = j->columns;
    panel_product(j->ops, args, j->up, j->x, j->up->k, col, packed);
}

void fv_gated_run_quant(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                        const float *x, size_t m)
{
    gated_quant_job j = { ops, gate, up, y, x, m, 0 };
    fv_quantise_rows(ops, x, gate->k, m, gate->k);
    j.columns = product_columns(ops->k, gate->n, ops->n_workers);
    fv_pool_run(ops->pool, (gate->n + j.columns - 1) / j.columns, gated_quant_task, &j);
}
