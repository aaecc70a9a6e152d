/* 8-bit vision for any AArch64 processor: products of signed bytes are added up in pairs. */
#define SIGNED 1
#define DEPTH  4
#include "kernels/arm/gemm_u8_neon.h"

/* Two columns of a word fill a vector of 8 bytes; SMULL, then SADALP adds neighbours, so that a
 * column has two sums. */
static void tile(int32_t *sum, const uint8_t *const a[MR], size_t at, const int8_t *b, size_t n)
{
    for (size_t i = 0; i < MR; i += 2) {
        int32x4_t s[2][4];
        FV_UNROLL
        for (int r = 0; r < 2; r++)
            for (int c = 0; c < 4; c++)
                s[r][c] = vdupq_n_s32(0);
        for (size_t q = 0; q < n * (STEP / 4); q++) {
            int8x8_t x[2];
            FV_UNROLL
            for (size_t r = 0; r < 2; r++) {
                int32_t word;
                memcpy(&word, a[i + r] + at + q * 4, 4);
                x[r] = veor_s8(vreinterpret_s8_s32(vdup_n_s32(word)), vdup_n_s8(-128));
            }
            FV_UNROLL
            for (size_t c = 0; c < 4; c++) {
                const int8x8_t w = vld1_s8(b + q * 4 * NR + c * 8);
                s[0][c] = vpadalq_s16(s[0][c], vmull_s8(w, x[0]));
                s[1][c] = vpadalq_s16(s[1][c], vmull_s8(w, x[1]));
            }
        }
        FV_UNROLL
        for (size_t r = 0; r < 2; r++) {
            int32_t *to = sum + (i + r) * NR;
            vst1q_s32(to, vaddq_s32(vld1q_s32(to), vpaddq_s32(s[r][0], s[r][1])));
            vst1q_s32(to + 4, vaddq_s32(vld1q_s32(to + 4), vpaddq_s32(s[r][2], s[r][3])));
        }
    }
}

static void gemm_u8_8x8__neon(const fv_gemm_u8_args *g) { gemm(g); }
static void pack_u8__neon(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, false, n, k);
}

static void pack_u8_q8__neon(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, fv_row_bytes(FV_TYPE_Q8_0, k), true, n, k);
}

static void quantize_u8__neon(uint8_t *dst, size_t dst_ld, const float *src, size_t src_ld,
                              const float *inv, int zero, size_t m, size_t c)
{
    for (; m; m--, dst += dst_ld, src += src_ld) {
        size_t j = 0;
        for (; j + 8 <= c; j += 8)
            vst1_u8(dst + j,
                    fv_to_u8(vmulq_f32(vld1q_f32(src + j), vld1q_f32(inv + j)),
                             vmulq_f32(vld1q_f32(src + j + 4), vld1q_f32(inv + j + 4)), zero));
        for (; j < c; j += 4) {
            const size_t n = FV_MIN(c - j, (size_t)4);
            fv_put_u8(dst + j, vmulq_f32(fv_ld(src + j, n), fv_ld(inv + j, n)), zero, n);
        }
    }
}

static void quantize_u16__neon(uint8_t *high, uint8_t *low, size_t dst_ld, const float *src,
                               size_t src_ld, const float *inv, int zero, size_t m, size_t c)
{
    const float32x4_t least = vdupq_n_f32(-65536), most = vdupq_n_f32(65536);
    const int32x4_t plus = vdupq_n_s32(256 * zero);
    for (; m; m--, high += dst_ld, low += dst_ld, src += src_ld) {
        for (size_t j = 0; j < c; j += 4) {
            const size_t n = FV_MIN(c - j, (size_t)4);
            const float32x4_t x = vmulq_f32(fv_ld(src + j, n), vmulq_n_f32(fv_ld(inv + j, n), 256));
            /* NaN becomes the least number */
            const int32x4_t q = vcvtnq_s32_f32(vminq_f32(vmaxnmq_f32(x, least), most));
            const uint16x4_t u = vqmovun_s32(vaddq_s32(q, plus));
            const uint16x8_t both = vcombine_u16(u, vshr_n_u16(u, 8));
            uint8_t bytes[8]; /* four low ones, four high ones */
            vst1_u8(bytes, vmovn_u16(both));
            memcpy(low + j, bytes, n);
            memcpy(high + j, bytes + 4, n);
        }
    }
}

void fv_int8_init_neon(fv_kernels *k);
void fv_int8_init_neon(fv_kernels *k)
{
    k->quantize_u8 = quantize_u8__neon;
    k->quantize_u16 = quantize_u16__neon;
    k->gemm_u8 = (fv_gemm_u8_kernel){ .mr = MR,
                                      .nr = NR,
                                      .run = gemm_u8_8x8__neon,
                                      .pack = pack_u8__neon,
                                      .pack_q8 = pack_u8_q8__neon };
}
