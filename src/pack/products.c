/* Sums of products of a matrix's inputs. See products.h. */
#include "pack/products.h"

fv_status fv_products_init(fv_input_groups *p, size_t k, fv_error *err)
{
    *p = fv_input_groups_of(k);
    p->h = fv_alloc_zero(k * p->width, sizeof *p->h);
    p->importance = fv_alloc(k, sizeof *p->importance);
    if (!p->h || !p->importance)
        return fv_fail_memory(err, k * p->width * sizeof *p->h, "the products of a layer's inputs");
    return FV_OK;
}

void fv_products_free(fv_input_groups *p)
{
    fv_free(p->h);
    fv_free(p->importance);
    *p = (fv_input_groups){ 0 };
}

fv_ops_need fv_products_need(const fv_ops *ops, const fv_input_groups *p, size_t n)
{
    return fv_linear_need(ops->k, ops->n_workers, p->width, n, p->width, FV_TYPE_F32);
}

typedef struct transpose_job {
    float *to;
    const float *x;
    size_t n, k;
} transpose_job;

static void transpose_task(void *user, size_t task, unsigned worker)
{
    transpose_job *j = user;
    (void)worker;
    for (size_t c = task * FV_BLOCK; c < FV_MIN((task + 1) * FV_BLOCK, j->k); c++)
        for (size_t i = 0; i < j->n; i++)
            j->to[c * j->n + i] = j->x[i * j->k + c];
}

/* As a linear layer whose weights are the inputs, too. */
void fv_products_add(const fv_input_groups *p, const fv_ops *ops, const float *x, size_t n,
                     float *turned)
{
    transpose_job turn = { turned, x, n, p->k };
    fv_pool_run(ops->pool, (p->k + FV_BLOCK - 1) / FV_BLOCK, transpose_task, &turn);
    for (size_t g = 0; g < p->n; g++) {
        const fv_inputs in = fv_input_group(p, g);
        const fv_mat m = {
            .data = turned + g * p->width * n, .type = FV_TYPE_F32, .n = in.n, .k = n
        };
        const fv_linear sum = { .w = &m, .y = in.h, .ldy = in.n, .residual = in.h, .ldr = in.n };
        fv_linear_run(ops, &sum, 1, m.data, FV_TYPE_F32, n, in.n);
    }
}
