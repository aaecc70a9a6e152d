/* Linear layers of many rows of which some weights are in blocks of 8 or 4 bits. The rows of x are
 * quantised once, into the shared scratch, and meet panels that every task packs for its columns.
 * Matrices that are not in blocks use x itself. (A row by itself: ops_vector.c.)
 *
 * Where every row of weights has one scale (fv_mat.mul), a row of x has one, too, and products are
 * those of the encoder's int8 layers: sums of i32 over all of k, without a conversion for every 32.
 * Rows of x that would lose too much so, because few values are far larger than the others, have
 * eight more binary digits, whose product is added to theirs. */
#include "nn/ops_split.h"

#include <math.h>
#include <string.h>

#include "kernels/blocks.h"

enum {
    TASK_COLUMNS = 128,   /* of a product at most: its sums stay in L2 */
    TASKS_PER_WORKER = 7, /* at least, while there are columns: 896 columns are 2 x 7 x 64 */
    QUANTISE_ROWS = 8,    /* a task; fewer rows are quantised sooner than a thread wakes */
    /* A row has 16 bits if the square of its step exceeds the mean square of those that its blocks
     * of 32 would have by so much: 12 dB. Rows of normal deviates are at 4 dB. */
    FINE_RATIO = 16,
    FINE_ROWS = 64 /* low bytes of so many rows are multiplied at once */
};

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

bool fv_has_blocks(const fv_linear *layers, size_t n_layers)
{
    for (size_t i = 0; i < n_layers; i++)
        if (fv_type_is_block(layers[i].w->type))
            return true;
    return false;
}

/* Of all layers one scale a row. */
static bool rows_have_scales(const fv_linear *layers, size_t n_layers)
{
    for (size_t i = 0; i < n_layers; i++)
        if (layers[i].w->type != FV_TYPE_Q8_0 || !layers[i].w->mul)
            return false;
    return true;
}

/* Rows with one scale each, in ops->shared. */
typedef struct rows8 {
    uint8_t *high; /* [m, k] u8 with a zero of 128 */
    uint8_t *low;  /* [m, k] low bytes of those of 16 bits, first at their row, then [n_fine, k] */
    float *scale;  /* [m] */
    float *low_scale; /* [m] of those of 16 bits scale / 256, else 0; then [n_fine] */
    uint32_t *row;    /* [n_fine] where they are */
} rows8;

static rows8 rows8_at(uint8_t *shared, size_t m, size_t k)
{
    const size_t plane = round_up(m * k, 64);
    rows8 r = { .high = shared,
                .low = shared + plane,
                .scale = (float *)(void *)(shared + 2 * plane) };
    r.low_scale = r.scale + m;
    r.row = (uint32_t *)(void *)(r.low_scale + m);
    return r;
}

static size_t rows8_bytes(size_t m, size_t k)
{
    return 2 * round_up(m * k, 64) + m * (2 * sizeof(float) + sizeof(uint32_t));
}

/* 1 / scale for every value, and the row in blocks. */
static size_t quantise8_bytes(size_t k)
{
    return round_up(k * sizeof(float), 64) + fv_quantized_row_bytes(k);
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

/* worker: packed panels, products of low bytes [FINE_ROWS, columns], the gate's [m, columns]; or
 * what quantising a row takes. shared: the quantised rows [m]. */
fv_ops_need fv_quant_need(const fv_kernels *k, unsigned n_workers, size_t n, size_t depth, size_t m)
{
    size_t columns = FV_MIN(round_up(n, k->gemm_q.nr), (size_t)TASK_COLUMNS);
    (void)n_workers;
    fv_ops_need need = { quant_panel_bytes(k, columns, depth) +
                             (m + FINE_ROWS) * columns * sizeof(float),
                         FV_MAX(m * fv_quantized_row_bytes(depth), rows8_bytes(m, depth)) };
    need.worker_bytes = FV_MAX(need.worker_bytes, (size_t)FV_VECTOR_BYTES);
    need.worker_bytes = FV_MAX(need.worker_bytes, quantise8_bytes(depth));
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

/* n times x, without a store for each. */
static void fill(float *to, float x, size_t n)
{
    size_t done = FV_MIN(n, (size_t)16);
    for (size_t i = 0; i < done; i++)
        to[i] = x;
    for (; done < n; done *= 2)
        memcpy(to + done, to, FV_MIN(done, n - done) * sizeof *to);
}

/* The largest of the scales of a row's blocks, and the sum of their squares. */
static float scales_sum(const float *d, size_t n_blocks, double *squares)
{
    enum { LANES = 4 }; /* of which there are whole ones, with zeros behind (blocks.h) */
    float largest[LANES] = { 0 };
    double sum[LANES] = { 0 };
    for (size_t b = 0; b < n_blocks; b += LANES)
        for (size_t i = 0; i < LANES; i++) {
            largest[i] = FV_MAX(largest[i], d[b + i]);
            sum[i] += (double)d[b + i] * d[b + i];
        }
    *squares = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    return FV_MAX(FV_MAX(largest[0], largest[1]), FV_MAX(largest[2], largest[3]));
}

/* Row `row` of r from x, by way of its blocks: their scales say how large its values are. */
static void quantise8_row(const fv_ops *ops, const rows8 *r, size_t row, const float *x, size_t k,
                          uint8_t *scratch)
{
    const size_t nb = k / FV_BLOCK;
    float *inv = (float *)(void *)scratch;
    double squares;
    void *blocks = scratch + round_up(k * sizeof *inv, 64);
    ops->k->quantize_row(blocks, x, k);
    const float largest = scales_sum(fv_qrow_d(blocks, nb), nb, &squares);
    const bool good = isfinite(squares); /* else a value is not */
    fill(inv, good && largest > 0 ? 1 / largest : 0, k);
    r->scale[row] = good ? largest : NAN;
    const bool fine = (double)largest * largest * (double)nb > FINE_RATIO * squares;
    r->low_scale[row] = fine ? largest / 256 : 0;
    if (fine)
        ops->k->quantize_u16(r->high + row * k, r->low + row * k, k, x, k, inv, 128, 1, k);
    else
        ops->k->quantize_u8(r->high + row * k, k, x, k, inv, 128, 1, k);
}

static void quantise8_task(void *user, size_t task, unsigned worker)
{
    const quantise_job *j = user;
    const rows8 r = rows8_at(j->ops->shared, j->m, j->k);
    for (size_t row = task * QUANTISE_ROWS; row < FV_MIN(j->m, (task + 1) * QUANTISE_ROWS); row++)
        quantise8_row(j->ops, &r, row, j->x + row * j->ldx, j->k, fv_ops_worker(j->ops, worker));
}

/* Returns how many rows have 16 bits. */
static size_t quantise8_rows(const fv_ops *ops, const float *x, size_t ldx, size_t m, size_t k)
{
    quantise_job j = { ops, x, ldx, m, k };
    const rows8 r = rows8_at(ops->shared, m, k);
    size_t n_fine = 0;
    fv_pool_run(ops->pool, (m + QUANTISE_ROWS - 1) / QUANTISE_ROWS, quantise8_task, &j);
    for (size_t row = 0; row < m; row++) {
        if (r.low_scale[row] == 0)
            continue;
        memmove(r.low + n_fine * k, r.low + row * k, k);
        r.low_scale[n_fine] = r.low_scale[row];
        r.row[n_fine++] = (uint32_t)row;
    }
    return n_fine;
}

/* ---- products ---------------------------------------------------------------------------- */

/* What panel_product does, of weights with a scale a row. */
static void panel_product8(const fv_ops *ops, const fv_gemm_args *args, const fv_mat *w,
                           size_t n_fine, size_t col, uint8_t *packed)
{
    const rows8 x = rows8_at(ops->shared, args->m, w->k);
    float *part = (float *)(void *)(packed + quant_panel_bytes(ops->k, args->n, w->k)),
          *y = args->c;
    ops->k->gemm_u8.pack_q8(packed, fv_mat_row(w, col), 0, args->n, w->k);
    fv_gemm_u8_args g = { .m = args->m,
                          .n = args->n,
                          .k = w->k,
                          .a = x.high,
                          .lda = w->k,
                          .b = packed,
                          .c = y,
                          .ldc = args->ldc,
                          .c_type = FV_TYPE_F32,
                          .bias = w->bias8 + col,
                          .mul = w->mul + col,
                          .row = x.scale,
                          .add = w->bias ? w->bias + col : NULL,
                          .scale = args->scale,
                          .residual = args->residual,
                          .ldr = args->ldr };
    ops->k->gemm_u8.run(&g);
    for (size_t i = 0; i < n_fine; i += FINE_ROWS) {
        g.m = FV_MIN(n_fine - i, (size_t)FINE_ROWS);
        g.a = x.low + i * w->k;
        g.c = part;
        g.ldc = args->n;
        g.row = x.low_scale + i;
        g.bias = NULL;
        g.add = g.residual = NULL;
        ops->k->gemm_u8.run(&g);
        for (size_t r = 0; r < g.m; r++)
            ops->k->add(y + x.row[i + r] * args->ldc, part + r * args->n, args->n);
    }
    for (size_t i = 0; args->gate && i < args->m; i++)
        ops->k->swiglu(y + i * args->ldc, args->gate + i * args->ldg, y + i * args->ldc, args->n);
}

/* Rows of x for the products of some layers. */
typedef struct quant_rows {
    bool row_scales;
    size_t n_fine;  /* with row_scales: of 16 bits */
    const float *x; /* [m, ldx] for weights that are not in blocks */
    size_t ldx;
} quant_rows;

static quant_rows rows_quantise(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                                const float *x, size_t ldx, size_t m)
{
    quant_rows r = { .row_scales = rows_have_scales(layers, n_layers), .x = x, .ldx = ldx };
    if (r.row_scales)
        r.n_fine = quantise8_rows(ops, x, ldx, m, layers->w->k);
    else
        fv_quantise_rows(ops, x, ldx, m, layers->w->k);
    return r;
}

/* args.m rows times columns [col, col + args.n) of w. args: all but k, a, b and bias; packed:
 * quant_panel_bytes of scratch, behind them FINE_ROWS rows of columns in f32. */
static void panel_product(const fv_ops *ops, fv_gemm_args args, const fv_mat *w,
                          const quant_rows *rows, size_t col, void *packed)
{
    if (rows->row_scales) {
        panel_product8(ops, &args, w, rows->n_fine, col, packed);
        return;
    }
    args.k = w->k;
    args.b = packed;
    args.bias = w->bias ? w->bias + col : NULL;
    if (fv_type_is_block(w->type)) {
        args.a = ops->shared;
        args.lda = fv_quantized_row_bytes(w->k);
        ops->k->gemm_q.pack[w->type](packed, fv_mat_row(w, col), 0, args.n, w->k);
        ops->k->gemm_q.run[w->type](&args);
    } else {
        args.a = rows->x;
        args.lda = rows->ldx;
        ops->k->gemm_f32.pack[w->type](packed, fv_mat_row(w, col), w->k, args.n, w->k);
        ops->k->gemm_f32.run(&args);
    }
}

/* ---- linear layers ----------------------------------------------------------------------- */

typedef struct quant_job {
    const fv_ops *ops;
    const fv_linear *layer; /* [n_layers] */
    size_t n_layers, m;
    quant_rows rows;
    size_t columns; /* a task */
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
    panel_product(j->ops, args, l->w, &j->rows, col, fv_ops_worker(j->ops, worker));
}

void fv_linear_run_quant(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                         const float *x, size_t ldx, size_t m)
{
    quant_job j = { ops, layers, n_layers, m, rows_quantise(ops, layers, n_layers, x, ldx, m), 0 };
    j.columns = product_columns(ops->k, layers->w->n, ops->n_workers);
    fv_pool_run(ops->pool, fv_count_columns(layers, n_layers, j.columns), quant_task, &j);
}

/* ---- gated layer ------------------------------------------------------------------------- */

typedef struct gated_quant_job {
    const fv_ops *ops;
    const fv_mat *gate, *up;
    float *y; /* [m, gate->n] */
    size_t m;
    quant_rows rows;
    size_t columns; /* a task */
} gated_quant_job;

/* The gate's values for all rows stay in scratch; the product with up uses them. */
static void gated_quant_task(void *user, size_t task, unsigned worker)
{
    gated_quant_job *j = user;
    size_t col = task * j->columns, n = FV_MIN(j->columns, j->gate->n - col);
    uint8_t *packed = fv_ops_worker(j->ops, worker);
    float *gate = (float *)(packed + quant_panel_bytes(j->ops->k, j->columns, j->gate->k)) +
                  FINE_ROWS * j->columns;
    fv_gemm_args args = { .m = j->m, .n = n, .c = gate, .ldc = j->columns, .c_type = FV_TYPE_F32 };
    panel_product(j->ops, args, j->gate, &j->rows, col, packed);
    args.c = j->y + col;
    args.ldc = j->gate->n;
    args.gate = gate;
    args.ldg = j->columns;
    panel_product(j->ops, args, j->up, &j->rows, col, packed);
}

void fv_gated_run_quant(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                        const float *x, size_t m)
{
    const fv_linear both[2] = { { .w = gate }, { .w = up } };
    gated_quant_job j = { ops, gate, up, y, m, rows_quantise(ops, both, 2, x, gate->k, m), 0 };
    j.columns = product_columns(ops->k, gate->n, ops->n_workers);
    fv_pool_run(ops->pool, (gate->n + j.columns - 1) / j.columns, gated_quant_task, &j);
}
