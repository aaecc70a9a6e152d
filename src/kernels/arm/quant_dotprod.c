/* Weights in blocks of 8 or 4 bits with SDOT: sums of four products at once. */
#include "kernels/arm/vmath_neon.h"

#define QUANT_ISA(name) name##__dotprod
#define QUANT_DOT
enum { GROUP = 4 };

FV_INLINE int32x4_t dot16(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }

#define GROUP_OF(lane)                                           \
    do {                                                         \
        const int8x16_t b0 = vld1q_s8(b), b1 = vld1q_s8(b + 16); \
        FV_UNROLL                                                \
        for (size_t r = 0; r < rows; r++) {                      \
            s[r][0] = vdotq_laneq_s32(s[r][0], b0, x[r], lane);  \
            s[r][1] = vdotq_laneq_s32(s[r][1], b1, x[r], lane);  \
        }                                                        \
        b += 32;                                                 \
    } while (0)

/* 16 of k: a load for each row, then four groups of four, lane by lane. */
FV_INLINE void add_block(int32x4_t s[8][2], const int8_t *a, size_t lda, const int8_t *b,
                         size_t rows)
{
    for (size_t h = 0; h < 2; h++, a += 16) {
        int8x16_t x[8];
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            x[r] = vld1q_s8(a + r * lda);
        GROUP_OF(0);
        GROUP_OF(1);
        GROUP_OF(2);
        GROUP_OF(3);
    }
}

#include "kernels/arm/quant_neon.h"

void fv_quant_init_dotprod(fv_kernels *k);
void fv_quant_init_dotprod(fv_kernels *k) { fill_slots(k); }
