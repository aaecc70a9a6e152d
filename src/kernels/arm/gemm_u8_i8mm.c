/* Matrix product of u8 and i8: SUDOT takes i8 and u8 as they are. A word of A, four elements of k,
 * is a lane. */
#define SIGNED 0
#include "kernels/arm/gemm_u8_neon.h"

static void tile(int32_t *sum, const uint8_t *const a[MR], size_t at, const int8_t *b, size_t n)
{
    int32x4_t s[MR][2];
    FV_UNROLL
    for (size_t r = 0; r < MR; r++) {
        s[r][0] = vld1q_s32(sum + r * NR);
        s[r][1] = vld1q_s32(sum + r * NR + 4);
    }
    for (size_t q = 0; q < n; q++, at += STEP, b += STEP * NR) {
        uint8x16_t x[MR];
        FV_UNROLL
        for (size_t r = 0; r < MR; r++)
            x[r] = vld1q_u8(a[r] + at);
#define WORD(w)                                                \
    do {                                                       \
        const int8x16_t b0 = vld1q_s8(b + (w)*4 * NR);         \
        const int8x16_t b1 = vld1q_s8(b + (w)*4 * NR + 16);    \
        FV_UNROLL                                              \
        for (size_t r = 0; r < MR; r++) {                      \
            s[r][0] = vsudotq_laneq_s32(s[r][0], b0, x[r], w); \
            s[r][1] = vsudotq_laneq_s32(s[r][1], b1, x[r], w); \
        }                                                      \
    } while (0)
        WORD(0);
        WORD(1);
        WORD(2);
        WORD(3);
#undef WORD
    }
    FV_UNROLL
    for (size_t r = 0; r < MR; r++) {
        vst1q_s32(sum + r * NR, s[r][0]);
        vst1q_s32(sum + r * NR + 4, s[r][1]);
    }
}

static void gemm_u8_8x8__i8mm(const fv_gemm_u8_args *g) { gemm(g); }
static void pack_u8__i8mm(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, n, k);
}

void fv_gemm_u8_init_i8mm(fv_kernels *k);
void fv_gemm_u8_init_i8mm(fv_kernels *k)
{
    k->gemm_u8 =
        (fv_gemm_u8_kernel){ .mr = MR, .nr = NR, .run = gemm_u8_8x8__i8mm, .pack = pack_u8__i8mm };
}
