/* Attention and rotary positions, portable: the oracle. */
#include "kernels/kernels.h"
#include "kernels/ref/scalar.h"

/* One query row at a time, keys in order, with the running maximum m, the running sum of
 * exp(s - m) and the running weighted values (Milakov and Gimelshein, 2018). */
static void attn__ref(const fv_attn_args *a)
{
    float *acc = a->scratch; /* [d] */
    for (size_t i = 0; i < a->n_q; i++) {
        size_t n = a->causal ? a->n_visible + i : a->n_kv;
        float top = -INFINITY, sum = 0;
        memset(acc, 0, a->d * sizeof *acc);
        for (size_t j = 0; j < n; j++) {
            float s = 0;
            for (size_t c = 0; c < a->d; c++)
                s += a->q[i * a->ldq + c] * fv_kv_load(a->k, a->kv_type, a->ldk, a->d, j, c);
            s *= a->scale;
            float higher = fmaxf(top, s), keep = expf(top - higher), p = expf(s - higher);
            sum = sum * keep + p;
            for (size_t c = 0; c < a->d; c++)
                acc[c] = acc[c] * keep + p * fv_kv_load(a->v, a->kv_type, a->ldv, a->d, j, c);
            top = higher;
        }
        for (size_t c = 0; c < a->d; c++)
            fv_ref_store(a->out, a->out_type, i * a->ldo + c, acc[c] / sum);
    }
}

static void rope__ref(float *x, const float *cosine, const float *sine, size_t n_heads, size_t d)
{
    for (size_t h = 0; h < n_heads; h++, x += d) {
        for (size_t m = 0; m < d / 2; m++) {
            float a = x[m], b = x[m + d / 2];
            x[m] = a * cosine[m] - b * sine[m];
            x[m + d / 2] = b * cosine[m] + a * sine[m];
        }
    }
}

void fv_attn_init_ref(fv_kernels *k);
void fv_attn_init_ref(fv_kernels *k)
{
    k->attn = attn__ref;
    k->rope = rope__ref;
}
