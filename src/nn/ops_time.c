/* What an operation took: its products, the bytes it read and its time. Only where somebody asked;
 * otherwise an operation tests a pointer and goes on. */
#include "nn/ops_split.h"

void fv_op_end(const fv_ops *ops, double start, const fv_op_time *op)
{
    if (!ops->timed)
        return;
    fv_op_time timed = *op;
    timed.ms = fv_now_ms() - start;
    ops->timed(ops->timed_user, &timed);
}

/* What products of rows of x_type with weights of w_type are made in. */
static fv_type product_type(const fv_mat *w, fv_type x_type, size_t m)
{
    if (w->type == FV_TYPE_Q8_0 && w->mul && m > 1)
        return FV_TYPE_I8;
    if (w->type == FV_TYPE_I8 || fv_type_is_block(w->type))
        return w->type;
    return x_type == FV_TYPE_BF16 ? FV_TYPE_BF16 : FV_TYPE_F32;
}

void fv_time_linear(const fv_ops *ops, double start, const char *kind, const fv_linear *layers,
                    size_t n_layers, fv_type x_type, size_t m)
{
    fv_op_time op = { .kind = kind,
                      .n_rows = m,
                      .type = product_type(layers->w, x_type, m),
                      .fine = layers->w->in.fine };
    for (size_t i = 0; i < n_layers; i++) {
        const fv_mat *w = layers[i].w;
        if (i < FV_COUNT(op.site))
            op.site[i] = w;
        op.macs += (double)m * (double)w->n * (double)w->k;
        op.bytes += (double)w->n * (double)fv_row_bytes(w->type, w->k);
    }
    fv_op_end(ops, start, &op);
}

static double dw_macs(const fv_dw *dw, size_t n_pixels)
{
    return (double)n_pixels * (double)(dw->channels * dw->mult * dw->kernel * dw->kernel);
}

static double dw_bytes(const fv_dw *dw)
{
    return (double)(dw->channels * dw->mult * dw->kernel * dw->kernel) *
           (double)(dw->w8 ? 1 : sizeof *dw->w);
}

void fv_time_dw(const fv_ops *ops, double start, const fv_dw *dw, size_t n_pixels)
{
    fv_op_end(ops, start,
              &(fv_op_time){ .kind = "convolution",
                             .site = { dw },
                             .type = dw->w8 ? FV_TYPE_I8 : FV_TYPE_F32,
                             .n_rows = n_pixels,
                             .macs = dw_macs(dw, n_pixels),
                             .bytes = dw_bytes(dw) });
}

void fv_time_ffn(const fv_ops *ops, double start, const fv_ffn *f, fv_type operand, size_t n_pixels)
{
    const double weights = (double)f->fc1.n * (double)f->fc1.k +
                           (double)f->fc2.n * (double)f->fc2.k;
    fv_op_end(
        ops, start,
        &(fv_op_time){ .kind = "ffn",
                       .site = { &f->dw, &f->fc1, &f->fc2 },
                       .type = product_type(&f->fc1, operand, n_pixels),
                       .fine = f->fc1.in.fine,
                       .n_rows = n_pixels,
                       .macs = dw_macs(&f->dw, n_pixels) + (double)n_pixels * weights,
                       .bytes = dw_bytes(&f->dw) + weights * (double)fv_type_size(f->fc1.type) });
}
