/* Matrix product of u8 and i8: USMMLA takes two rows of u8 and two columns of i8, eight elements of
 * k of each, and adds to [row][column]. */
#define SIGNED 0
#define DEPTH  8
#include "kernels/arm/gemm_u8_neon.h"

FV_INLINE int32x4_t low_halves(int32x4_t a, int32x4_t b)
{
    return vreinterpretq_s32_s64(vtrn1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

FV_INLINE int32x4_t high_halves(int32x4_t a, int32x4_t b)
{
    return vreinterpretq_s32_s64(vtrn2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

static void tile(int32_t *sum, const uint8_t *const a[MR], size_t at, const int8_t *b, size_t n)
{
    int32x4_t s[MR / 2][NR / 2];
    FV_UNROLL
    for (size_t p = 0; p < MR / 2; p++) {
        FV_UNROLL
        for (size_t c = 0; c < NR / 2; c += 2) {
            const int32x4_t x = vld1q_s32(sum + 2 * p * NR + 2 * c),
                            y = vld1q_s32(sum + (2 * p + 1) * NR + 2 * c);
            s[p][c] = low_halves(x, y);
            s[p][c + 1] = high_halves(x, y);
        }
    }
    for (size_t q = 0; q < n; q++, at += STEP, b += STEP * NR) {
        uint8x16_t x[MR / 2][2]; /* two rows, eight elements of each */
        FV_UNROLL
        for (size_t p = 0; p < MR / 2; p++) {
            const uint64x2_t first = vreinterpretq_u64_u8(vld1q_u8(a[2 * p] + at)),
                             second = vreinterpretq_u64_u8(vld1q_u8(a[2 * p + 1] + at));
            x[p][0] = vreinterpretq_u8_u64(vtrn1q_u64(first, second));
            x[p][1] = vreinterpretq_u8_u64(vtrn2q_u64(first, second));
        }
        FV_UNROLL
        for (size_t g = 0; g < 2; g++) {
            FV_UNROLL
            for (size_t c = 0; c < NR / 2; c++) {
                const int8x16_t w = vld1q_s8(b + (g * NR + 2 * c) * DEPTH);
                FV_UNROLL
                for (size_t p = 0; p < MR / 2; p++)
                    s[p][c] = vusmmlaq_s32(s[p][c], x[p][g], w);
            }
        }
    }
    FV_UNROLL
    for (size_t p = 0; p < MR / 2; p++) {
        FV_UNROLL
        for (size_t c = 0; c < NR / 2; c += 2) {
            vst1q_s32(sum + 2 * p * NR + 2 * c, low_halves(s[p][c], s[p][c + 1]));
            vst1q_s32(sum + (2 * p + 1) * NR + 2 * c, high_halves(s[p][c], s[p][c + 1]));
        }
    }
}

static void gemm_u8_8x8__i8mm(const fv_gemm_u8_args *g) { gemm(g); }
static void pack_u8__i8mm(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, false, n, k);
}

static void pack_u8_q8__i8mm(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, fv_row_bytes(FV_TYPE_Q8_0, k), true, n, k);
}

void fv_gemm_u8_init_i8mm(fv_kernels *k);
void fv_gemm_u8_init_i8mm(fv_kernels *k)
{
    k->gemm_u8 = (fv_gemm_u8_kernel){ .mr = MR,
                                      .nr = NR,
                                      .run = gemm_u8_8x8__i8mm,
                                      .pack = pack_u8__i8mm,
                                      .pack_q8 = pack_u8_q8__i8mm,
                                      .eights = true };
}
