/* Depthwise convolution, portable: the oracle. */
#include "kernels/kernels.h"
#include "kernels/ref/scalar.h"

static void dwconv__ref(const fv_dwconv_args *d)
{
    size_t n_out = d->channels * d->mult;
    for (size_t x = d->x0; x < d->x1; x++) {
        for (size_t o = 0; o < n_out; o++) {
            float sum = 0;
            for (unsigned dy = 0; dy < d->k; dy++) {
                for (unsigned dx = 0; dx < d->k; dx++) {
                    size_t at = x * d->stride + dx; /* one past the padding: column + k / 2 */
                    if (!d->src[dy] || at < d->k / 2 || at - d->k / 2 >= d->width)
                        continue;
                    sum += d->src[dy][(at - d->k / 2) * d->src_ld + o / d->mult] *
                           d->weight[(dy * d->k + dx) * n_out + o];
                }
            }
            if (d->bias)
                sum += d->bias[o];
            if (d->act == FV_ACT_GELU)
                sum = fv_ref_gelu(sum);
            fv_ref_store(d->dst, d->dst_type, (x - d->x0) * d->dst_ld + o, sum);
        }
    }
}

void fv_dwconv_init_ref(fv_kernels *k);
void fv_dwconv_init_ref(fv_kernels *k) { k->dwconv = dwconv__ref; }
