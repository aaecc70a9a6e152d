/* Attention in the vocabulary of a vec_*.h and the transpose_*.h of its width.
 *
 * Lanes are query rows. With the queries of a call transposed once, both products of a block of
 * keys are outer products of a broadcast element with a vector of rows, maxima and sums are
 * lane by lane, and no row ever meets another:
 *
 *     scores  s[j][row]  = sum_c k[j][c] q[c][row]        ATTN_KEYS keys, q scaled by log2(e)
 *     top     t[row]     = max(t, max_j s[j][row]);  keep = 2^(t before - t)
 *     weights s[j][row]  = 2^(s - t);                sum = sum keep + sum_j s
 *     values  o[c][row]  = o keep + sum_j v[j][c] s[j][row]
 *
 * Blocks begin at key 0, and every sum runs over c or j in order: a row's bits do not depend on
 * the other rows or on the number of lanes. A masked key has weight 0 (its value must be
 * finite).
 *
 * A file that defines ATTN_PAIRS says itself what the elements of the products are (attn_elem,
 * attn_set, attn_load, attn_mac): pairs of bf16, of which c or j are then the numbers. */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "kernels/blocks.h"
#include "kernels/kernels.h"

enum {
    ATTN_KEYS = 64,
    ATTN_PANEL = 4096 /* floats: with the rest of what a block works on, it stays in a 32 KiB L1 */
};

typedef struct attn_scratch {
    float top[FV_ATTN_MAX_Q], sum[FV_ATTN_MAX_Q], keep[FV_ATTN_MAX_Q];
    float s[ATTN_KEYS * FV_ATTN_MAX_Q];     /* [key][row] scores, then weights */
    float q[FV_ATTN_MAX_D * FV_ATTN_MAX_Q]; /* [c][row] */
    /* [c][row]; rows are padded to whole vectors in all of them */
    float o[FV_ATTN_MAX_D * FV_ATTN_MAX_Q];
    float panel[ATTN_PANEL]; /* [key][c] of keys, then of values, widened */
} attn_scratch;
_Static_assert(sizeof(attn_scratch) <= (size_t)1 << 19, "fv_attn_scratch_bytes");

#ifndef ATTN_PAIRS
typedef float attn_elem;
static inline vec attn_set(attn_elem x) { return vec_set(x); }
static inline vec attn_load(const attn_elem *p) { return vec_load(p); }
static inline vec attn_mac(vec a, vec b, vec c) { return vec_fma(a, b, c); }
#endif

typedef enum outer_start { OUTER_ZERO, OUTER_ADD, OUTER_KEEP } outer_start;

/* z[a][row] = 0, z or z keep  +  sum_t x[a, t] y[t][row] for n_a rows of z and n_v vectors; element
 * (a, t) of x is at x[a * step_a + t * step_t]. */
static inline __attribute__((always_inline)) void outer_tile(float *z, outer_start start,
                                                             const float *keep, const attn_elem *x,
                                                             size_t step_a, size_t step_t,
                                                             const attn_elem *y, size_t ld,
                                                             size_t n_t, const unsigned n_a,
                                                             const unsigned n_v)
{
    vec acc[16][4], row[4];
    UNROLL
    for (unsigned a = 0; a < n_a; a++) {
        UNROLL
        for (unsigned v = 0; v < n_v; v++) {
            acc[a][v] = start == OUTER_ZERO ? vec_zero() : vec_load(z + a * ld + v * VEC_W);
            if (start == OUTER_KEEP)
                acc[a][v] = vec_mul(acc[a][v], vec_load(keep + v * VEC_W));
        }
    }
    for (size_t t = 0; t < n_t; t++) {
        UNROLL
        for (unsigned v = 0; v < n_v; v++)
            row[v] = attn_load(y + t * ld + v * VEC_W);
        UNROLL
        for (unsigned a = 0; a < n_a; a++) {
            vec b = attn_set(x[a * step_a + t * step_t]);
            UNROLL
            for (unsigned v = 0; v < n_v; v++)
                acc[a][v] = attn_mac(b, row[v], acc[a][v]);
        }
    }
    UNROLL
    for (unsigned a = 0; a < n_a; a++) {
        UNROLL
        for (unsigned v = 0; v < n_v; v++)
            vec_store(z + a * ld + v * VEC_W, acc[a][v]);
    }
}

/* Tiles of n_a by n_v vectors, then what is left one by one. */
#define OUTER_TILES(n_a, n_v)                                                                    \
    do {                                                                                         \
        size_t a_ = 0;                                                                           \
        for (; a_ + (n_a) <= n; a_ += (n_a))                                                     \
            outer_tile(z + a_ * ld, start, keep, x + a_ * step_a, step_a, step_t, y, ld, n_t,    \
                       (n_a), (n_v));                                                            \
        for (; a_ < n; a_++)                                                                     \
            outer_tile(z + a_ * ld, start, keep, x + a_ * step_a, step_a, step_t, y, ld, n_t, 1, \
                       (n_v));                                                                   \
    } while (0)

static inline __attribute__((always_inline)) void outer(float *z, outer_start start,
                                                        const float *keep, const attn_elem *x,
                                                        size_t step_a, size_t step_t,
                                                        const attn_elem *y, size_t ld, size_t n_t,
                                                        size_t n)
{
    size_t n_vec = ld / VEC_W;
    while (n_vec > 0) {
        size_t group = FV_MIN(n_vec, (size_t)(VEC_REGS == 32 ? 4 : 2));
        switch (group) {
        case 4: OUTER_TILES(4, 4); break;
        case 3: OUTER_TILES(4, 3); break;
        case 2: OUTER_TILES(VEC_REGS == 32 ? 8 : 4, 2); break;
        default: OUTER_TILES(8, 1);
        }
        z += group * VEC_W;
        y += group * VEC_W;
        keep += group * VEC_W;
        n_vec -= group;
    }
}

/* How many rows, from 0 on, do not see key j: row i sees keys below n_visible + i. */
static inline size_t attn_blind(size_t j, size_t n_visible)
{
    return j < n_visible ? 0 : j + 1 - n_visible;
}

#ifndef ATTN_PAIRS
/* s[key][row] of n keys from k [n][ldk] */
static void attn_scores(float *s, const float *k, size_t ldk, const float *q, size_t ld, size_t n,
                        size_t d)
{
    outer(s, OUTER_ZERO, s, k, ldk, 1, q, ld, d, n);
}

static inline void attn_values(float *o, outer_start start, const float *keep, const float *v,
                               size_t ldv, const float *s, size_t ld, size_t n, size_t d)
{
    outer(o, start, keep, v, 1, ldv, s, ld, n, d);
}

/* Scores of keys first .. first + n - 1 to weights; row i sees keys below n_visible + i. */
static void attn_weights(attn_scratch *w, size_t ld, size_t first, size_t n, size_t n_visible)
{
    for (size_t v = 0; v < ld; v += VEC_W) {
        for (size_t j = n_visible > first ? n_visible - first : 0; j < n; j++) {
            size_t blind = attn_blind(first + j, n_visible);
            if (blind > v)
                vec_store(w->s + j * ld + v,
                          vec_first(FV_MIN(blind - v, (size_t)VEC_W), vec_set(-INFINITY),
                                    vec_load(w->s + j * ld + v)));
        }
        vec before = vec_load(w->top + v), top = before;
        for (size_t j = 0; j < n; j++)
            /* a NaN score is passed over here, and met below */
            top = vec_max(vec_load(w->s + j * ld + v), top);
        vec keep = vec_exp2(vec_sub(before, top)), sum = vec_mul(vec_load(w->sum + v), keep);
        for (size_t j = 0; j < n; j++) {
            vec p = vec_exp2(vec_sub(vec_load(w->s + j * ld + v), top));
            vec_store(w->s + j * ld + v, p);
            sum = vec_add(sum, p);
        }
        vec_store(w->top + v, top);
        vec_store(w->keep + v, keep);
        vec_store(w->sum + v, sum);
    }
}

/* n rows of d values, widened, close together */
static void attn_widen(float *to, const void *from, fv_type type, size_t first, size_t n, size_t ld,
                       size_t d)
{
    const size_t whole = d / VEC_W * VEC_W, left = d - whole;
    for (size_t j = 0; j < n; j++, to += d) {
        if (type == FV_TYPE_I8) {
            const int8_t *p = (const int8_t *)from + (first + j) * ld;
            const float *scale = fv_kv_scales(p, d);
            for (size_t b = 0; b < d; b += FV_BLOCK)
                for (size_t c = b; c < FV_MIN(b + FV_BLOCK, d); c++)
                    to[c] = scale[b / FV_BLOCK] * (float)p[c];
        } else if (type == FV_TYPE_F16) {
            const uint16_t *p = (const uint16_t *)from + (first + j) * ld;
            for (size_t c = 0; c < whole; c += VEC_W)
                vec_store(to + c, vec_from_f16(p + c));
            if (left)
                vec_store_n(to + whole, left, vec_from_f16_n(p + whole, left));
        } else {
            const float *p = (const float *)from + (first + j) * ld;
            for (size_t c = 0; c < whole; c += VEC_W)
                vec_store(to + c, vec_load(p + c));
            if (left)
                vec_store_n(to + whole, left, vec_load_n(p + whole, left));
        }
    }
}

#endif

/* Asks for d elements of elem_bytes each. */
static inline void attn_ask(const void *row, size_t d, size_t elem_bytes)
{
    for (size_t i = 0; i < d * elem_bytes; i += 64)
        _mm_prefetch((const char *)row + i, _MM_HINT_T0);
}

static inline vec attn_load_some(const float *p, size_t n)
{
    return n == VEC_W ? vec_load(p) : vec_load_n(p, n);
}

static void attn_begin(attn_scratch *w, const fv_attn_args *a, size_t ld)
{
    const vec scale = vec_set(a->scale * 1.44269504f); /* log2(e) */
    memset(w->o, 0, a->d * ld * sizeof *w->o);
    for (size_t i = 0; i < a->n_q; i++) /* rows lie pages apart: no processor guesses the next */
        attn_ask(a->q + i * a->ldq, a->d, sizeof *a->q);
    for (size_t i = 0; i < ld; i += VEC_W) {
        for (size_t c = 0; c < a->d; c += VEC_W) {
            const size_t n = FV_MIN(a->d - c, (size_t)VEC_W);
            vec r[VEC_W];
            /* lanes past the last row repeat it */
            UNROLL for (size_t l = 0; l < VEC_W; l++) r[l] = vec_mul(
                attn_load_some(a->q + FV_MIN(i + l, a->n_q - 1) * a->ldq + c, n), scale);
            transpose_floats(r);
            for (size_t l = 0; l < n; l++)
                vec_store(w->q + (c + l) * ld + i, r[l]);
        }
        vec_store(w->top + i, vec_set(-INFINITY));
        vec_store(w->sum + i, vec_zero());
    }
}

/* o / sum, as the caller wants it */
static void attn_end(attn_scratch *w, const fv_attn_args *a, size_t ld)
{
    for (size_t i = 0; i < ld; i += VEC_W) {
        const vec sum = vec_load(w->sum + i);
        for (size_t c = 0; c < a->d; c += VEC_W) {
            const size_t n = FV_MIN(a->d - c, (size_t)VEC_W);
            vec r[VEC_W];
            UNROLL for (size_t l = 0; l < VEC_W; l++)
                r[l] = l < n ? vec_div(vec_load(w->o + (c + l) * ld + i), sum) : vec_zero();
            transpose_floats(r);
            for (size_t l = 0; l < FV_MIN(a->n_q - i, (size_t)VEC_W); l++)
                vec_put_n(a->out, a->out_type, (i + l) * a->ldo + c, n, r[l]);
        }
    }
}

#ifndef ATTN_PAIRS
static inline void attn_run(const fv_attn_args *a)
{
    attn_scratch *w = a->scratch;
    const size_t d = a->d, ld = (a->n_q + VEC_W - 1) / VEC_W * VEC_W;
    const size_t n_keys = a->causal ? a->n_visible + a->n_q - 1 : a->n_kv;
    const size_t step = FV_MIN((size_t)ATTN_PANEL / d, (size_t)ATTN_KEYS);

    attn_begin(w, a, ld);
    for (size_t j = 0; j < n_keys; j += ATTN_KEYS) {
        size_t n = FV_MIN(n_keys - j, (size_t)ATTN_KEYS);
        for (size_t p = 0; p < n; p += step) {
            size_t m = FV_MIN(n - p, step);
            attn_widen(w->panel, a->k, a->kv_type, j + p, m, a->ldk, d);
            attn_scores(w->s + p * ld, w->panel, d, w->q, ld, m, d);
        }
        attn_weights(w, ld, j, n, a->causal ? a->n_visible : n_keys);
        for (size_t p = 0; p < n; p += step) {
            size_t m = FV_MIN(n - p, step);
            attn_widen(w->panel, a->v, a->kv_type, j + p, m, a->ldv, d);
            attn_values(w->o, p ? OUTER_ADD : OUTER_KEEP, w->keep, w->panel, d, w->s + p * ld, ld,
                        m, d);
        }
    }
    attn_end(w, a, ld);
}
#endif
