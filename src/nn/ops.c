/* Scratch, linear layers with float weights, gated layers; split over the pool. See ops.h.
 *
 * A matrix product packs its weights as it goes, so that they are read once and nothing is kept
 * beside the mapped file. Two splits:
 *
 *   wide  a task packs a few panels of columns into its own scratch and runs all rows over them:
 *         for few rows and many weights (prefill, the encoder's last stages)
 *   tall  all panels are packed first, into the shared scratch, then a task runs a block of rows
 *         over all of them: for many rows and few weights (the encoder's first stages) */
#include "nn/ops.h"

#include <assert.h>
#include <string.h>

#include "nn/ops_split.h"

/* Chosen for, and measured on, the machine of docs/performance.md: Zen 4, 1 MB of L2 a core. */
enum {
    /* Packed panels that every thread reads over and over: more do not stay in the shared cache. */
    TALL_PACKED_BYTES = 6 << 20,
    /* Panels of one task, read once for every block of rows: with those rows and the sums they fit
     * into L2. */
    WIDE_PACKED_BYTES = 640 << 10,
    /* A tall task's rows: 12 register tiles of 8, enough for the panels to pay for their way from
     * the shared cache; few enough for the last tasks of a map to end together. */
    ROWS_PER_TASK = 96
};

fv_status fv_ops_init(fv_ops *ops, const fv_kernels *k, fv_pool *pool, fv_error *err)
{
    *ops = (fv_ops){ .k = k, .pool = pool, .n_workers = fv_pool_threads(pool) };
    const fv_ops_need need = fv_attention_need(); /* of whatever model */
    return fv_ops_reserve(ops, &need, err);
}

void fv_ops_free(fv_ops *ops)
{
    fv_pages_free(ops->worker_scratch, ops->worker_bytes * ops->n_workers);
    fv_pages_free(ops->shared, ops->shared_bytes);
    *ops = (fv_ops){ 0 };
}

/* Contents are lost: nothing in the scratch outlives an operation. */
static fv_status scratch_grow(uint8_t **block, size_t *have, size_t n_blocks, size_t need,
                              fv_error *err)
{
    if (*have >= need)
        return FV_OK;
    need = fv_round_up(need, 4096);
    uint8_t *fresh = fv_pages_alloc(need * n_blocks);
    if (!fresh)
        return fv_fail_memory(err, need * n_blocks, "scratch memory");
    fv_pages_free(*block, *have * n_blocks);
    *block = fresh;
    *have = need;
    return FV_OK;
}

fv_status fv_ops_reserve(fv_ops *ops, const fv_ops_need *need, fv_error *err)
{
    FV_TRY(scratch_grow(&ops->worker_scratch, &ops->worker_bytes, ops->n_workers,
                        need->worker_bytes, err));
    return scratch_grow(&ops->shared, &ops->shared_bytes, 1, need->shared_bytes, err);
}

/* ---- packing ----------------------------------------------------------------------------- */

size_t fv_panel_bytes(const fv_gemm_kernel *g, size_t n, size_t k)
{
    return fv_round_up(fv_packed_elems(g, n, k) * fv_type_size(g->type), 64);
}

/* The kernels read weights as panels of nr columns (kernels.h): what a register tile multiplies
 * with lies together, in the operands' type. */
typedef struct panels_job {
    const fv_gemm_kernel *g;
    const fv_mat *w; /* [n, k] */
    uint8_t *dst;    /* [n / nr, k, nr] */
    size_t columns;  /* a task */
} panels_job;

static void panels_pack(const fv_gemm_kernel *g, uint8_t *dst, const fv_mat *w, size_t first,
                        size_t n)
{
    g->pack[w->type](dst, fv_mat_row(w, first), w->k, n, w->k);
}

static void panels_task(void *user, size_t task, unsigned worker)
{
    panels_job *j = user;
    size_t first = task * j->columns, n = FV_MIN(j->columns, j->w->n - first);
    (void)worker;
    panels_pack(j->g, j->dst + fv_packed_elems(j->g, first, j->w->k) * fv_type_size(j->g->type),
                j->w, first, n);
}

void fv_panels_pack_all(const fv_ops *ops, const fv_gemm_kernel *g, uint8_t *dst, const fv_mat *w)
{
    panels_job j = { g, w, dst, g->nr };
    fv_pool_run(ops->pool, (w->n + j.columns - 1) / j.columns, panels_task, &j);
}

/* ---- linear layers ----------------------------------------------------------------------- */

typedef struct linear_job {
    const fv_ops *ops;
    const fv_gemm_kernel *g;
    const fv_linear *layer; /* [n_layers] with the same input */
    size_t n_layers, m;
    size_t rows, columns; /* a task: of a tall split, of a wide one */
    const void *x;        /* [m, ldx] in the kernel's type */
    size_t ldx;
} linear_job;

/* Columns [col, col + n) of rows [row, row + m); x and packed are where those begin. */
static fv_gemm_args linear_args(const fv_linear *l, const void *x, size_t ldx, size_t row, size_t m,
                                size_t col, size_t n, const void *packed)
{
    return (fv_gemm_args){
        .m = m,
        .n = n,
        .k = l->w->k,
        .a = x,
        .lda = ldx,
        .b = packed,
        .c = (uint8_t *)l->y + (row * l->ldy + col) * fv_type_size(l->y_type),
        .ldc = l->ldy,
        .c_type = l->y_type,
        .act = l->act,
        .bias = l->w->bias ? l->w->bias + col : NULL,
        .scale = l->scale ? l->scale + col : NULL,
        .residual = l->residual ? l->residual + row * l->ldr + col : NULL,
        .ldr = l->ldr,
    };
}

const fv_linear *fv_find_columns(const fv_linear *layers, size_t n_layers, size_t columns,
                                 size_t task, size_t *col)
{
    for (size_t i = 0; i < n_layers; i++) {
        size_t here = (layers[i].w->n + columns - 1) / columns;
        if (task < here) {
            *col = task * columns;
            return &layers[i];
        }
        task -= here;
    }
    return NULL;
}

size_t fv_count_columns(const fv_linear *layers, size_t n_layers, size_t columns)
{
    size_t n = 0;
    for (size_t i = 0; i < n_layers; i++)
        n += (layers[i].w->n + columns - 1) / columns;
    return n;
}

/* All rows over columns [col, col + n) of one of the layers. */
static void linear_wide_task(void *user, size_t task, unsigned worker)
{
    linear_job *j = user;
    size_t col;
    const fv_linear *l = fv_find_columns(j->layer, j->n_layers, j->columns, task, &col);
    size_t n = FV_MIN(j->columns, l->w->n - col);
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    panels_pack(j->g, packed, l->w, col, n);
    fv_gemm_args args = linear_args(l, j->x, j->ldx, 0, j->m, col, n, packed);
    j->g->run(&args);
}

/* Rows [row, row + m) over all columns. */
static void linear_tall_task(void *user, size_t task, unsigned worker)
{
    linear_job *j = user;
    size_t row = task * j->rows, m = FV_MIN(j->rows, j->m - row);
    (void)worker;
    fv_gemm_args args = linear_args(j->layer,
                                    (const uint8_t *)j->x + row * j->ldx * fv_type_size(j->g->type),
                                    j->ldx, row, m, 0, j->layer->w->n, j->ops->shared);
    j->g->run(&args);
}

/* Columns of a wide task: up to 8 whole panels and WIDE_PACKED_BYTES, and so few that there are
 * four tasks a thread where there are columns enough: threads then end together. */
static size_t linear_wide_columns(const fv_gemm_kernel *g, size_t n, size_t k, unsigned n_workers)
{
    size_t most = WIDE_PACKED_BYTES / fv_panel_bytes(g, g->nr, k),
           even = n / g->nr / (4 * n_workers);
    most = FV_MIN(FV_MAX(most, (size_t)1), FV_MAX(even, (size_t)1));
    return FV_MIN(most, (size_t)8) * g->nr;
}

/* ---- rows in another type ---- */

typedef struct rows_job {
    const fv_kernels *k;
    uint8_t *dst; /* [m, cols] of type to */
    fv_type to;
    const uint8_t *src; /* [m, ld] of type from */
    fv_type from;
    size_t m, cols, ld;
} rows_job;

static void rows_convert_task(void *user, size_t task, unsigned worker)
{
    rows_job *j = user;
    (void)worker;
    for (size_t row = task * ROWS_PER_TASK; row < FV_MIN(j->m, (task + 1) * ROWS_PER_TASK); row++)
        j->k->convert[j->to][j->from](j->dst + row * j->cols * fv_type_size(j->to),
                                      j->src + row * j->ld * fv_type_size(j->from), j->cols);
}

static void rows_convert(const fv_ops *ops, rows_job *j)
{
    fv_pool_run(ops->pool, (j->m + ROWS_PER_TASK - 1) / ROWS_PER_TASK, rows_convert_task, j);
}

fv_rows fv_convert_run(const fv_ops *ops, fv_rows as, const float *x, size_t n, size_t c)
{
    if (as.type == FV_TYPE_F32)
        return fv_rows_f32(x);
    if (as.type == FV_TYPE_U8) {
        fv_quantise_run(ops, as.data, x, n, c, as.to_int8);
    } else {
        rows_job j = { ops->k, as.data, as.type, (const uint8_t *)x, FV_TYPE_F32, n, c, c };
        rows_convert(ops, &j);
    }
    return as;
}

/* Operands in the kernel's type: x itself, or a copy behind the packed weights in shared. */
static const void *rows_widen(const fv_ops *ops, const fv_gemm_kernel *g, const void *x,
                              fv_type x_type, size_t *ldx, size_t m, size_t k, size_t packed)
{
    if (x_type == g->type)
        return x;
    rows_job j = { ops->k, ops->shared + packed, FV_TYPE_F32, x, x_type, m, k, *ldx };
    rows_convert(ops, &j);
    *ldx = k;
    return j.dst;
}

/* ---- which way ---- */

/* Fewer rows than four tasks a thread leave threads without work at the end. */
static bool linear_is_tall(const fv_gemm_kernel *g, size_t n, size_t k, size_t m,
                           unsigned n_workers)
{
    return fv_panel_bytes(g, n, k) <= TALL_PACKED_BYTES &&
           m >= (size_t)ROWS_PER_TASK * n_workers * 4;
}

static void layers_run(const fv_ops *ops, const fv_linear *layers, size_t n_layers, const void *x,
                       fv_type x_type, size_t ldx, size_t m)
{
    if (layers->w->type == FV_TYPE_I8) {
        assert(n_layers == 1 && ldx == layers->w->k);
        fv_linear_run_int8(ops, layers, x, x_type, m);
        return;
    }
    assert(layers->y_type != FV_TYPE_U8 && x_type != FV_TYPE_U8);
    if (m == 1 && x_type == FV_TYPE_F32 && layers->y_type == FV_TYPE_F32 && !layers->scale &&
        !layers->act) {
        fv_linear_run_vectors(ops, layers, n_layers, x, ldx, 1);
        return;
    }
    fv_ops_observe(ops, layers->w, x, x_type, m, layers->w->k);
    if (fv_has_blocks(layers, n_layers)) {
        assert(x_type == FV_TYPE_F32);
        fv_linear_run_quant(ops, layers, n_layers, x, ldx, m);
        return;
    }
    linear_job j = { .ops = ops,
                     .g = fv_gemm_of(ops->k, x_type),
                     .layer = layers,
                     .n_layers = n_layers,
                     .m = m,
                     .x = x,
                     .ldx = ldx };
    size_t n = layers->w->n, k = layers->w->k;
    bool tall = n_layers == 1 && linear_is_tall(j.g, n, k, m, ops->n_workers);
    j.x = rows_widen(ops, j.g, x, x_type, &j.ldx, m, k, tall ? fv_panel_bytes(j.g, n, k) : 0);
    if (tall) {
        fv_panels_pack_all(ops, j.g, ops->shared, layers->w);
        j.rows = fv_round_up(ROWS_PER_TASK, j.g->mr);
        fv_pool_run(ops->pool, (m + j.rows - 1) / j.rows, linear_tall_task, &j);
    } else {
        j.columns = linear_wide_columns(j.g, n, k, ops->n_workers);
        fv_pool_run(ops->pool, fv_count_columns(layers, n_layers, j.columns), linear_wide_task, &j);
    }
}

void fv_linear_run(const fv_ops *ops, const fv_linear *layers, size_t n_layers, const void *x,
                   fv_type x_type, size_t ldx, size_t m)
{
    const double start = fv_op_start(ops);
    layers_run(ops, layers, n_layers, x, x_type, ldx, m);
    fv_time_linear(ops, start, "linear", layers, n_layers, x_type, m);
}

fv_ops_need fv_linear_need(const fv_kernels *kernels, unsigned n_workers, size_t n, size_t k,
                           size_t m, fv_type x_type)
{
    const fv_gemm_kernel *g = fv_gemm_of(kernels, x_type);
    fv_ops_need need = { fv_panel_bytes(g, linear_wide_columns(g, n, k, n_workers), k), 64 };
    need.worker_bytes = FV_MAX(need.worker_bytes, (size_t)FV_VECTOR_BYTES);
    if (linear_is_tall(g, n, k, m, n_workers))
        need.shared_bytes = fv_panel_bytes(g, n, k);
    if (x_type != g->type)
        need.shared_bytes += fv_round_up(m * k * sizeof(float), 64);
    return need;
}

fv_ops_need fv_mat_need(const fv_ops *ops, const fv_mat *w, size_t m, fv_type operand)
{
    return w->type == FV_TYPE_I8 ? fv_linear_need_int8(ops->k, ops->n_workers, w, m)
                                 : fv_linear_need(ops->k, ops->n_workers, w->n, w->k, m, operand);
}

/* ---- gated layer ------------------------------------------------------------------------- */

/* Wide tasks over two matrices with the same input; neither product exists as a whole. */
typedef struct gated_job {
    const fv_ops *ops;
    const fv_gemm_kernel *g;
    const fv_mat *gate, *up; /* [n, k] each */
    void *y;                 /* [m, n] of y_type */
    fv_type y_type;
    const void *x; /* [m, ldx] in the kernel's type */
    size_t ldx, m;
    size_t columns; /* a task */
} gated_job;

/* A run of columns: the gate's values for all rows stay in scratch, the up product uses them. */
static void gated_task(void *user, size_t task, unsigned worker)
{
    gated_job *j = user;
    size_t col = task * j->columns, n = FV_MIN(j->columns, j->gate->n - col), ldy = j->gate->n;
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    float *gate = (float *)(packed + fv_panel_bytes(j->g, j->columns, j->gate->k));
    fv_gemm_args args = { .m = j->m,
                          .n = n,
                          .k = j->gate->k,
                          .a = j->x,
                          .lda = j->ldx,
                          .b = packed,
                          .c = gate,
                          .ldc = j->columns,
                          .c_type = FV_TYPE_F32 };
    panels_pack(j->g, packed, j->gate, col, n);
    j->g->run(&args); /* gate = x Wg^T, [m, columns] behind the panels */
    args.c = (uint8_t *)j->y + col * fv_type_size(j->y_type);
    args.ldc = ldy;
    args.c_type = j->y_type;
    args.gate = gate;
    args.ldg = j->columns;
    panels_pack(j->g, packed, j->up, col, n);
    j->g->run(&args); /* y = (x Wu^T) silu(gate), in the epilogue */
}

static void gated_run(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, void *y,
                      fv_type y_type, const void *x, fv_type x_type, size_t m)
{
    if (m == 1 && x_type == FV_TYPE_F32 && y_type == FV_TYPE_F32) {
        fv_gated_run_vectors(ops, gate, up, y, x, 1);
        return;
    }
    fv_ops_observe(ops, gate, x, x_type, m, gate->k);
    if (fv_type_is_block(gate->type) || fv_type_is_block(up->type)) {
        assert(x_type == FV_TYPE_F32 && y_type == FV_TYPE_F32);
        fv_gated_run_quant(ops, gate, up, y, x, m);
        return;
    }
    gated_job j = { .ops = ops,
                    .g = fv_gemm_of(ops->k, x_type),
                    .gate = gate,
                    .up = up,
                    .y = y,
                    .y_type = y_type,
                    .x = x,
                    .ldx = gate->k,
                    .m = m };
    j.x = rows_widen(ops, j.g, x, x_type, &j.ldx, m, gate->k, 0);
    j.columns = linear_wide_columns(j.g, gate->n, gate->k, ops->n_workers);
    fv_pool_run(ops->pool, (gate->n + j.columns - 1) / j.columns, gated_task, &j);
}

void fv_gated_run(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, void *y, fv_type y_type,
                  const void *x, fv_type x_type, size_t m)
{
    const double start = fv_op_start(ops);
    const fv_linear both[2] = { { .w = gate }, { .w = up } };
    gated_run(ops, gate, up, y, y_type, x, x_type, m);
    fv_time_linear(ops, start, "gated", both, 2, x_type, m);
}

fv_ops_need fv_gated_need(const fv_kernels *kernels, size_t n, size_t k, size_t m, fv_type x_type)
{
    const fv_gemm_kernel *g = fv_gemm_of(kernels, x_type);
    size_t columns = linear_wide_columns(g, n, k,
                                         1); /* no task of any number of threads has more */
    fv_ops_need need = { fv_panel_bytes(g, columns, k) + m * columns * sizeof(float), 64 };
    need.worker_bytes = FV_MAX(need.worker_bytes, (size_t)FV_VECTOR_BYTES);
    if (x_type != g->type)
        need.shared_bytes += fv_round_up(m * k * sizeof(float), 64);
    return need;
}
