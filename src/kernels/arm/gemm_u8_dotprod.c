/* Matrix product of u8 and i8: SDOT, on a - 128. A word of A, four elements of k, is a lane. */
#define SIGNED 1
#define DEPTH  4
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
        int8x16_t x[MR];
        FV_UNROLL
        for (size_t r = 0; r < MR; r++)
            x[r] = veorq_s8(vreinterpretq_s8_u8(vld1q_u8(a[r] + at)), vdupq_n_s8(-128));
#define WORD(w)                                              \
    do {                                                     \
        const int8x16_t b0 = vld1q_s8(b + (w)*4 * NR);       \
        const int8x16_t b1 = vld1q_s8(b + (w)*4 * NR + 16);  \
        FV_UNROLL                                            \
        for (size_t r = 0; r < MR; r++) {                    \
            s[r][0] = vdotq_laneq_s32(s[r][0], b0, x[r], w); \
            s[r][1] = vdotq_laneq_s32(s[r][1], b1, x[r], w); \
        }                                                    \
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

static void gemm_u8_8x8__dotprod(const fv_gemm_u8_args *g) { gemm(g); }
static void pack_u8__dotprod(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, false, n, k);
}

static void pack_u8_q8__dotprod(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, fv_row_bytes(FV_TYPE_Q8_0, k), true, n, k);
}

void fv_gemm_u8_init_dotprod(fv_kernels *k);
void fv_gemm_u8_init_dotprod(fv_kernels *k)
{
    k->gemm_u8 = (fv_gemm_u8_kernel){ .mr = MR,
                                      .nr = NR,
                                      .run = gemm_u8_8x8__dotprod,
                                      .pack = pack_u8__dotprod,
                                      .pack_q8 = pack_u8_q8__dotprod };
}
