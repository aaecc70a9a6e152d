/* Depthwise convolutions (forward and both gradients) and GELU on channels-last maps, one thread,
 * for training on a CPU. Maps are bf16 [n][h][w][c], weights and their gradients f32 [k][k][c].
 * Channels in blocks of 16; 2 outputs per input channel (mult 2) are handled by the caller. Uses
 * AVX-512 through GCC vectors. */
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef __m512 V;

static inline V ld16(const uint16_t *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline void st16(uint16_t *p, V v)
{
    __m512i u = _mm512_castps_si512(v);
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)),
                                 _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1)));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}

static float *buf[2];
static size_t cap[2];
static float *scratch(int i, size_t n)
{
    if (n > cap[i]) {
        free(buf[i]);
        buf[i] = aligned_alloc(64, (n * 4 + 63) / 64 * 64);
        cap[i] = n;
    }
    return buf[i];
}

/* one image, 16 channels from c0 -> zero-padded f32 [hp][wp][16]; up spreads pixels `up` apart */
static void gather(const uint16_t *x, int h, int w, int c, int c0, int p, int up, float *o, int hp,
                   int wp)
{
    memset(o, 0, (size_t)hp * wp * 64);
    for (int y = 0; y < h; y++)
        for (int i = 0; i < w; i++)
            _mm512_store_ps(o + ((size_t)(y * up + p) * wp + i * up + p) * 16,
                            ld16(x + ((size_t)y * w + i) * c + c0));
}

static inline __attribute__((always_inline)) void rowconv(const float *in, int wp, int stride,
                                                          const float *wt, int k, int n,
                                                          uint16_t *out, int c, V bias)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        V a0 = bias, a1 = bias, a2 = bias, a3 = bias, a4 = bias, a5 = bias, a6 = bias, a7 = bias;
        for (int ky = 0; ky < k; ky++) {
            const float *r = in + ((size_t)ky * wp + (size_t)i * stride) * 16;
            const int s = stride * 16;
            for (int kx = 0; kx < k; kx++, r += 16) {
                V w = _mm512_load_ps(wt + (ky * k + kx) * 16);
                a0 = _mm512_fmadd_ps(w, _mm512_load_ps(r), a0);
                a1 = _mm512_fmadd_ps(w, _mm512_load_ps(r + s), a1);
                a2 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 2 * s), a2);
                a3 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 3 * s), a3);
                a4 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 4 * s), a4);
                a5 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 5 * s), a5);
                a6 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 6 * s), a6);
                a7 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 7 * s), a7);
            }
        }
        st16(out + (size_t)(i + 0) * c, a0), st16(out + (size_t)(i + 1) * c, a1),
            st16(out + (size_t)(i + 2) * c, a2), st16(out + (size_t)(i + 3) * c, a3);
        st16(out + (size_t)(i + 4) * c, a4), st16(out + (size_t)(i + 5) * c, a5),
            st16(out + (size_t)(i + 6) * c, a6), st16(out + (size_t)(i + 7) * c, a7);
    }
    for (; i + 4 <= n; i += 4) {
        V a0 = bias, a1 = bias, a2 = bias, a3 = bias;
        for (int ky = 0; ky < k; ky++) {
            const float *r = in + ((size_t)ky * wp + (size_t)i * stride) * 16;
            const int s = stride * 16;
            for (int kx = 0; kx < k; kx++, r += 16) {
                V w = _mm512_load_ps(wt + (ky * k + kx) * 16);
                a0 = _mm512_fmadd_ps(w, _mm512_load_ps(r), a0);
                a1 = _mm512_fmadd_ps(w, _mm512_load_ps(r + s), a1);
                a2 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 2 * s), a2);
                a3 = _mm512_fmadd_ps(w, _mm512_load_ps(r + 3 * s), a3);
            }
        }
        st16(out + (size_t)(i + 0) * c, a0), st16(out + (size_t)(i + 1) * c, a1),
            st16(out + (size_t)(i + 2) * c, a2), st16(out + (size_t)(i + 3) * c, a3);
    }
    for (; i < n; i++) {
        V a0 = bias;
        for (int t = 0; t < k * k; t++)
            a0 = _mm512_fmadd_ps(
                _mm512_load_ps(wt + t * 16),
                _mm512_load_ps(in + ((size_t)(t / k) * wp + (size_t)i * stride + t % k) * 16), a0);
        st16(out + (size_t)i * c, a0);
    }
}

static void weights(const float *w, int k, int c, int c0, int flip, float *o)
{
    for (int t = 0; t < k * k; t++)
        _mm512_store_ps(o + t * 16,
                        _mm512_loadu_ps(w + (size_t)(flip ? k * k - 1 - t : t) * c + c0));
}

/* out [n][h/s][w/s][c]; bias may be null */
void dw_forward(const uint16_t *x, const float *w, const float *bias, uint16_t *out, int n, int h,
                int wd, int c, int k, int s)
{
    int p = k / 2, hp = h + 2 * p, wp = wd + 2 * p, ho = (h + 2 * p - k) / s + 1,
        wo = (wd + 2 * p - k) / s + 1;
    float *b = scratch(0, (size_t)hp * wp * 16);
    _Alignas(64) float wt[49 * 16];
    for (int c0 = 0; c0 < c; c0 += 16) {
        weights(w, k, c, c0, 0, wt);
        V bv = bias ? _mm512_loadu_ps(bias + c0) : _mm512_setzero_ps();
        for (int i = 0; i < n; i++) {
            gather(x + (size_t)i * h * wd * c, h, wd, c, c0, p, 1, b, hp, wp);
            for (int y = 0; y < ho; y++) {
                uint16_t *o = out + ((size_t)i * ho + y) * wo * c + c0;
                const float *r = b + (size_t)y * s * wp * 16;
                if (k == 7)
                    rowconv(r, wp, s, wt, 7, wo, o, c, bv);
                else
                    rowconv(r, wp, s, wt, 3, wo, o, c, bv);
            }
        }
    }
}

/* dx from dy (h, w: of x; c of both), dw [k][k][c] and db [c] are added to */
static inline __attribute__((always_inline)) void wgrad(const float *xb, int wp, const float *g,
                                                        int gs, int ho, int wo, int s, int k,
                                                        int ky, float *acc)
{
    V a[7];
    for (int i = 0; i < k; i++)
        a[i] = _mm512_load_ps(acc + i * 16);
    for (int y = 0; y < ho; y++) {
        const float *r = xb + (size_t)(y * s + ky) * wp * 16, *q = g + (size_t)y * gs * 16;
        for (int x = 0; x < wo; x++, r += 16 * s, q += 16 * s) {
            V d = _mm512_load_ps(q);
            for (int i = 0; i < k; i++)
                a[i] = _mm512_fmadd_ps(d, _mm512_load_ps(r + i * 16), a[i]);
        }
    }
    for (int i = 0; i < k; i++)
        _mm512_store_ps(acc + i * 16, a[i]);
}

void dw_backward(const uint16_t *x, const float *w, const uint16_t *dy, uint16_t *dx, float *dw,
                 float *db, int n, int h, int wd, int c, int k, int s)
{
    int p = k / 2, hp = h + 2 * p + s, wp = wd + 2 * p + s, ho = (h + 2 * p - k) / s + 1,
        wo = (wd + 2 * p - k) / s + 1;
    float *b = scratch(0, (size_t)hp * wp * 16), *g = scratch(1, (size_t)hp * wp * 16);
    _Alignas(64) float wt[49 * 16], acc[49 * 16];
    for (int c0 = 0; c0 < c; c0 += 16) {
        weights(w, k, c, c0, 1, wt);
        memset(acc, 0, sizeof acc);
        V sum = _mm512_setzero_ps();
        for (int i = 0; i < n; i++) {
            const uint16_t *d = dy + (size_t)i * ho * wo * c;
            gather(x + (size_t)i * h * wd * c, h, wd, c, c0, p, 1, b, hp, wp);
            gather(d, ho, wo, c, c0, p, s, g, hp, wp);
            const float *g0 = g + ((size_t)p * wp + p) * 16;
            for (int ky = 0; ky < k; ky++) {
                if (k == 7)
                    wgrad(b, wp, g0, wp * s, ho, wo, s, 7, ky, acc + ky * 7 * 16);
                else
                    wgrad(b, wp, g0, wp * s, ho, wo, s, 3, ky, acc + ky * 3 * 16);
            }
            if (db)
                for (int t = 0; t < ho * wo; t++)
                    sum = _mm512_add_ps(sum, ld16(d + (size_t)t * c + c0));
            if (dx)
                for (int y = 0; y < h; y++) {
                    uint16_t *o = dx + ((size_t)i * h + y) * wd * c + c0;
                    const float *r = g + (size_t)y * wp * 16;
                    if (k == 7)
                        rowconv(r, wp, 1, wt, 7, wd, o, c, _mm512_setzero_ps());
                    else
                        rowconv(r, wp, 1, wt, 3, wd, o, c, _mm512_setzero_ps());
                }
        }
        for (int t = 0; t < k * k; t++)
            _mm512_storeu_ps(dw + (size_t)t * c + c0, _mm512_load_ps(acc + t * 16));
        if (db)
            _mm512_storeu_ps(db + c0, sum);
    }
}

static inline V vexp(V x)
{ /* exp for x <= 0, |error| about 1e-7 relative */
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    V t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    V f = _mm512_roundscale_ps(t, 0);
    V r = _mm512_sub_ps(t, f);
    V q = _mm512_set1_ps(1.5403530e-4f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.3333558e-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(9.6181291e-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(5.5504109e-2f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(2.4022651e-1f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(6.9314718e-1f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(q, f);
}
/* Phi(x) by Abramowitz & Stegun 7.1.26 (error 1.5e-7) and e = exp(-x^2/2) */
static inline V phi(V x, V *e)
{
    V ax = _mm512_abs_ps(x);
    *e = vexp(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f)));
    V t = _mm512_div_ps(
        _mm512_set1_ps(1.0f),
        _mm512_fmadd_ps(ax, _mm512_set1_ps(0.3275911f * 0.70710678f), _mm512_set1_ps(1.0f)));
    V q = _mm512_set1_ps(1.061405429f);
    q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(-1.453152027f));
    q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(1.421413741f));
    q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(-0.284496736f));
    q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(0.254829592f));
    /* 0.5 erfc(|x|/sqrt2) */
    V half = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(q, t), *e), _mm512_set1_ps(0.5f));
    __mmask16 neg = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(_mm512_sub_ps(_mm512_set1_ps(1.0f), half), neg, half);
}
void gelu_forward(const uint16_t *x, uint16_t *y, long n)
{
    long i = 0;
    for (; i + 16 <= n; i += 16) {
        V v = ld16(x + i), e;
        st16(y + i, _mm512_mul_ps(v, phi(v, &e)));
    }
    if (i < n) {
        uint16_t a[16] = { 0 };
        V e;
        memcpy(a, x + i, (n - i) * 2);
        V v = ld16(a);
        st16(a, _mm512_mul_ps(v, phi(v, &e)));
        memcpy(y + i, a, (n - i) * 2);
    }
}
void gelu_backward(const uint16_t *x, const uint16_t *dy, uint16_t *dx, long n)
{
    for (long i = 0; i < n; i += 16) {
        uint16_t a[16] = { 0 }, b[16] = { 0 };
        int full = i + 16 <= n;
        if (!full)
            memcpy(a, x + i, (n - i) * 2), memcpy(b, dy + i, (n - i) * 2);
        V v = ld16(full ? x + i : a), g = ld16(full ? dy + i : b), e;
        V f = phi(v, &e);
        f = _mm512_fmadd_ps(_mm512_mul_ps(v, e), _mm512_set1_ps(0.39894228f), f);
        st16(full ? dx + i : a, _mm512_mul_ps(g, f));
        if (!full)
            memcpy(dx + i, a, (n - i) * 2);
    }
}

/* ---- decoder: attention over packed rows, heads of width 32, rotary positions inside. A query at
 * row p sees the rows [0, min(P, p + 1)) and, beyond the common prefix of P rows, [start[p], p] of
 * its own conversation. */
static float vmaxr(V v) { return _mm512_reduce_max_ps(v); }
static inline void rope(V *a, V *b, const float *c, const float *s, float sign)
{
    V cc = _mm512_loadu_ps(c), ss = _mm512_mul_ps(_mm512_loadu_ps(s), _mm512_set1_ps(sign));
    V x = *a, y = *b;
    *a = _mm512_fnmadd_ps(y, ss, _mm512_mul_ps(x, cc));
    *b = _mm512_fmadd_ps(x, ss, _mm512_mul_ps(y, cc));
}
enum { MAXN = 1024 };
static __attribute__((aligned(64))) float Kr[MAXN * 32], Vr[MAXN * 32], Kt[32 * (MAXN + 32)],
    Vt[32 * (MAXN + 32)], dK[MAXN * 32], dV[MAXN * 32];

static void load_kv(const uint16_t *k, const uint16_t *v, const int *pos, const float *cs,
                    const float *sn, int n, int KV, int g, int vt)
{
    int ld = MAXN + 32;
    for (int j = 0; j < n; j++) {
        const uint16_t *kp = k + ((size_t)j * KV + g) * 32, *vp = v + ((size_t)j * KV + g) * 32;
        V a = ld16(kp), b = ld16(kp + 16);
        rope(&a, &b, cs + pos[j] * 16, sn + pos[j] * 16, 1);
        _mm512_store_ps(Kr + j * 32, a), _mm512_store_ps(Kr + j * 32 + 16, b);
        _mm512_store_ps(Vr + j * 32, ld16(vp)), _mm512_store_ps(Vr + j * 32 + 16, ld16(vp + 16));
        for (int d = 0; d < 32; d++)
            Kt[d * ld + j] = Kr[j * 32 + d];
        if (vt)
            for (int d = 0; d < 32; d++)
                Vt[d * ld + j] = Vr[j * 32 + d];
    }
}
/* o[j-a] = q . T[:,j], overruns up to 15 */
static void dots(const float *q, const float *T, int a, int b, float *o)
{
    for (int j = a; j < b; j += 16) {
        V s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
        const float *t = T + j;
        for (int d = 0; d < 32; d += 4, t += 4 * (MAXN + 32)) {
            s0 = _mm512_fmadd_ps(_mm512_set1_ps(q[d]), _mm512_loadu_ps(t), s0);
            s1 = _mm512_fmadd_ps(_mm512_set1_ps(q[d + 1]), _mm512_loadu_ps(t + (MAXN + 32)), s1);
            s2 = _mm512_fmadd_ps(_mm512_set1_ps(q[d + 2]), _mm512_loadu_ps(t + 2 * (MAXN + 32)),
                                 s2);
            s3 = _mm512_fmadd_ps(_mm512_set1_ps(q[d + 3]), _mm512_loadu_ps(t + 3 * (MAXN + 32)),
                                 s3);
        }
        _mm512_storeu_ps(o + (j - a), _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
    }
}
/* A token sees the first `seen` of the row, and from its conversation's start to itself. */
#define RANGES                                                                               \
    int p = qi[(size_t)b * m + i], n0 = seen[(size_t)b * n + p], a1 = st[(size_t)b * n + p]; \
    int n1 = p + 1 - a1, L = n0 + n1;                                                        \
    (void)L

void attn_forward(const uint16_t *q, const uint16_t *k, const uint16_t *v, const int *qi,
                  const int *st, const int *seen, const int *pos, const float *cs, const float *sn,
                  uint16_t *o, float *lse, int B, int m, int n, int H, int KV)
{
    float sc[MAXN + 64] __attribute__((aligned(64))), qv[32] __attribute__((aligned(64)));
    const V scale = _mm512_set1_ps(0.17677669529663687f);
    for (int b = 0; b < B; b++)
        for (int g = 0; g < KV; g++) {
            load_kv(k + (size_t)b * n * KV * 32, v + (size_t)b * n * KV * 32, pos + (size_t)b * n,
                    cs, sn, n, KV, g, 0);
            for (int h = g * (H / KV); h < (g + 1) * (H / KV); h++)
                for (int i = 0; i < m; i++) {
                    RANGES;
                    const uint16_t *qp = q + (((size_t)b * m + i) * H + h) * 32;
                    V x = ld16(qp), y = ld16(qp + 16);
                    rope(&x, &y, cs + pos[(size_t)b * n + p] * 16, sn + pos[(size_t)b * n + p] * 16,
                         1);
                    _mm512_store_ps(qv, _mm512_mul_ps(x, scale)),
                        _mm512_store_ps(qv + 16, _mm512_mul_ps(y, scale));
                    dots(qv, Kt, 0, n0, sc);
                    dots(qv, Kt, a1, p + 1, sc + n0);
                    for (int j = L; j < ((L + 15) & ~15); j++)
                        sc[j] = -1e30f;
                    V mx = _mm512_set1_ps(-1e30f);
                    for (int j = 0; j < L; j += 16)
                        mx = _mm512_max_ps(mx, _mm512_load_ps(sc + j));
                    float mm = vmaxr(mx);
                    V sum = _mm512_setzero_ps(), o0 = sum, o1 = sum;
                    for (int j = 0; j < L; j += 16) {
                        V e = vexp(_mm512_sub_ps(_mm512_load_ps(sc + j), _mm512_set1_ps(mm)));
                        sum = _mm512_add_ps(sum, e);
                        _mm512_store_ps(sc + j, e);
                    }
                    for (int j = 0; j < L; j++) {
                        const float *vr = Vr + (j < n0 ? j : a1 + j - n0) * 32;
                        V e = _mm512_set1_ps(sc[j]);
                        o0 = _mm512_fmadd_ps(e, _mm512_load_ps(vr), o0),
                        o1 = _mm512_fmadd_ps(e, _mm512_load_ps(vr + 16), o1);
                    }
                    float tot = _mm512_reduce_add_ps(sum);
                    V inv = _mm512_set1_ps(1.0f / tot);
                    uint16_t *op = o + (((size_t)b * m + i) * H + h) * 32;
                    st16(op, _mm512_mul_ps(o0, inv)), st16(op + 16, _mm512_mul_ps(o1, inv));
                    lse[((size_t)b * m + i) * H + h] = mm + __builtin_logf(tot);
                }
        }
}

void attn_backward(const uint16_t *q, const uint16_t *k, const uint16_t *v, const int *qi,
                   const int *st, const int *seen, const int *pos, const float *cs, const float *sn,
                   const uint16_t *o, const float *lse, const uint16_t *dout, uint16_t *dq,
                   uint16_t *dk, uint16_t *dv, int B, int m, int n, int H, int KV)
{
    float sc[MAXN + 64] __attribute__((aligned(64))), dp[MAXN + 64] __attribute__((aligned(64))),
        qv[32] __attribute__((aligned(64))), go[32] __attribute__((aligned(64)));
    const float scale = 0.17677669529663687f;
    for (int b = 0; b < B; b++)
        for (int g = 0; g < KV; g++) {
            load_kv(k + (size_t)b * n * KV * 32, v + (size_t)b * n * KV * 32, pos + (size_t)b * n,
                    cs, sn, n, KV, g, 1);
            memset(dK, 0, (size_t)n * 128), memset(dV, 0, (size_t)n * 128);
            for (int h = g * (H / KV); h < (g + 1) * (H / KV); h++)
                for (int i = 0; i < m; i++) {
                    RANGES;
                    size_t at = (((size_t)b * m + i) * H + h);
                    V g0 = ld16(dout + at * 32), g1 = ld16(dout + at * 32 + 16);
                    const float *pc = cs + pos[(size_t)b * n + p] * 16,
                                *ps = sn + pos[(size_t)b * n + p] * 16;
                    V x = ld16(q + at * 32), y = ld16(q + at * 32 + 16);
                    rope(&x, &y, pc, ps, 1);
                    x = _mm512_mul_ps(x, _mm512_set1_ps(scale)),
                    y = _mm512_mul_ps(y, _mm512_set1_ps(scale));
                    _mm512_store_ps(qv, x), _mm512_store_ps(qv + 16, y), _mm512_store_ps(go, g0),
                        _mm512_store_ps(go + 16, g1);
                    float D = _mm512_reduce_add_ps(_mm512_fmadd_ps(
                        g0, ld16(o + at * 32), _mm512_mul_ps(g1, ld16(o + at * 32 + 16))));
                    dots(qv, Kt, 0, n0, sc), dots(qv, Kt, a1, p + 1, sc + n0);
                    dots(go, Vt, 0, n0, dp), dots(go, Vt, a1, p + 1, dp + n0);
                    for (int j = 0; j < L; j += 16) {
                        V e = vexp(_mm512_min_ps(
                            _mm512_sub_ps(_mm512_load_ps(sc + j), _mm512_set1_ps(lse[at])),
                            _mm512_setzero_ps()));
                        _mm512_store_ps(sc + j, e);
                        _mm512_store_ps(dp + j,
                                        _mm512_mul_ps(e, _mm512_sub_ps(_mm512_load_ps(dp + j),
                                                                       _mm512_set1_ps(D))));
                    }
                    V q0 = _mm512_setzero_ps(), q1 = q0;
                    for (int j = 0; j < L; j++) {
                        int r = (j < n0 ? j : a1 + j - n0) * 32;
                        V e = _mm512_set1_ps(sc[j]), d = _mm512_set1_ps(dp[j]);
                        q0 = _mm512_fmadd_ps(d, _mm512_load_ps(Kr + r), q0),
                        q1 = _mm512_fmadd_ps(d, _mm512_load_ps(Kr + r + 16), q1);
                        _mm512_store_ps(dK + r, _mm512_fmadd_ps(d, x, _mm512_load_ps(dK + r)));
                        _mm512_store_ps(dK + r + 16,
                                        _mm512_fmadd_ps(d, y, _mm512_load_ps(dK + r + 16)));
                        _mm512_store_ps(dV + r, _mm512_fmadd_ps(e, g0, _mm512_load_ps(dV + r)));
                        _mm512_store_ps(dV + r + 16,
                                        _mm512_fmadd_ps(e, g1, _mm512_load_ps(dV + r + 16)));
                    }
                    q0 = _mm512_mul_ps(q0, _mm512_set1_ps(scale)),
                    q1 = _mm512_mul_ps(q1, _mm512_set1_ps(scale));
                    rope(&q0, &q1, pc, ps, -1);
                    st16(dq + at * 32, q0), st16(dq + at * 32 + 16, q1);
                }
            for (int j = 0; j < n; j++) {
                size_t at = (((size_t)b * n + j) * KV + g) * 32;
                V x = _mm512_load_ps(dK + j * 32), y = _mm512_load_ps(dK + j * 32 + 16);
                rope(&x, &y, cs + pos[(size_t)b * n + j] * 16, sn + pos[(size_t)b * n + j] * 16,
                     -1);
                st16(dk + at, x), st16(dk + at + 16, y);
                st16(dv + at, _mm512_load_ps(dV + j * 32)),
                    st16(dv + at + 16, _mm512_load_ps(dV + j * 32 + 16));
            }
        }
}

/* ---- RMS norm: f32 [n][h] -> bf16; and SwiGLU on bf16 */
void rms_forward(const float *x, const float *w, uint16_t *y, float *rs, int n, int h)
{
    for (int i = 0; i < n; i++) {
        const float *r = x + (size_t)i * h;
        V s = _mm512_setzero_ps();
        for (int j = 0; j < h; j += 16) {
            V a = _mm512_loadu_ps(r + j);
            s = _mm512_fmadd_ps(a, a, s);
        }
        float k = 1.0f / __builtin_sqrtf(_mm512_reduce_add_ps(s) / h + 1e-6f);
        rs[i] = k;
        for (int j = 0; j < h; j += 16)
            st16(y + (size_t)i * h + j,
                 _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(r + j), _mm512_set1_ps(k)),
                               _mm512_loadu_ps(w + j)));
    }
}
void rms_backward(const float *x, const float *w, const float *rs, const uint16_t *dy, float *dx,
                  float *dw, int n, int h)
{
    for (int i = 0; i < n; i++) {
        const float *r = x + (size_t)i * h;
        const uint16_t *g = dy + (size_t)i * h;
        V s = _mm512_setzero_ps(), k = _mm512_set1_ps(rs[i]);
        for (int j = 0; j < h; j += 16) {
            V a = _mm512_loadu_ps(r + j), d = ld16(g + j);
            s = _mm512_fmadd_ps(_mm512_mul_ps(a, d), _mm512_loadu_ps(w + j), s);
            _mm512_storeu_ps(dw + j,
                             _mm512_fmadd_ps(_mm512_mul_ps(a, k), d, _mm512_loadu_ps(dw + j)));
        }
        V c = _mm512_set1_ps(_mm512_reduce_add_ps(s) / h * rs[i] * rs[i]);
        for (int j = 0; j < h; j += 16) {
            V a = _mm512_loadu_ps(r + j), d = _mm512_mul_ps(ld16(g + j), _mm512_loadu_ps(w + j));
            _mm512_storeu_ps(dx + (size_t)i * h + j, _mm512_mul_ps(k, _mm512_fnmadd_ps(a, c, d)));
        }
    }
}
static inline V sigm(V x)
{
    V e = vexp(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
    V s = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(_mm512_set1_ps(1.0f), e));
    return _mm512_mask_mul_ps(s, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), s, e);
}
void swiglu_forward(const uint16_t *g, const uint16_t *u, uint16_t *y, long n)
{
    for (long i = 0; i < n; i += 16) {
        V a = ld16(g + i);
        st16(y + i, _mm512_mul_ps(_mm512_mul_ps(a, sigm(a)), ld16(u + i)));
    }
}
void swiglu_backward(const uint16_t *g, const uint16_t *u, const uint16_t *dy, uint16_t *dg,
                     uint16_t *du, long n)
{
    for (long i = 0; i < n; i += 16) {
        V a = ld16(g + i), s = sigm(a), d = ld16(dy + i), f = _mm512_mul_ps(a, s);
        st16(du + i, _mm512_mul_ps(d, f));
        V t = _mm512_fmadd_ps(f, _mm512_sub_ps(_mm512_set1_ps(1.0f), s), s); /* s + f (1 - s) */
        st16(dg + i, _mm512_mul_ps(_mm512_mul_ps(d, ld16(u + i)), t));
    }
}
