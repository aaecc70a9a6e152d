/* Products with weights in blocks of 8 or 4 bits with SMMLA: two rows of eight times two columns of
 * eight. */
#include "kernels/arm/vmath_neon.h"

#define QUANT_ISA(name) name##__i8mm
enum { GROUP = 8 };

/* Sums of a pair of rows and a pair of columns, [row][column], until the block ends; then rows of
 * four. An odd last row stands in for its partner. */
FV_INLINE void add_block(int32x4_t s[8][2], const int8_t *a, size_t lda, const int8_t *b,
                         size_t rows)
{
    const size_t pairs = (rows + 1) / 2;
    int32x4_t t[4][4];
    FV_UNROLL
    for (size_t p = 0; p < pairs; p++)
        t[p][0] = t[p][1] = t[p][2] = t[p][3] = vdupq_n_s32(0);
    for (size_t g = 0; g < 4; g++, a += 8, b += 64) {
        const int8x16_t b0 = vld1q_s8(b), b1 = vld1q_s8(b + 16), b2 = vld1q_s8(b + 32),
                        b3 = vld1q_s8(b + 48);
        FV_UNROLL
        for (size_t p = 0; p < pairs; p++) {
            const size_t second = 2 * p + 1 < rows ? 2 * p + 1 : 2 * p;
            const int8x16_t x = vcombine_s8(vld1_s8(a + 2 * p * lda), vld1_s8(a + second * lda));
            t[p][0] = vmmlaq_s32(t[p][0], x, b0);
            t[p][1] = vmmlaq_s32(t[p][1], x, b1);
            t[p][2] = vmmlaq_s32(t[p][2], x, b2);
            t[p][3] = vmmlaq_s32(t[p][3], x, b3);
        }
    }
    FV_UNROLL
    for (size_t r = 0; r < rows; r++) {
        FV_UNROLL
        for (size_t h = 0; h < 2; h++) {
            const int64x2_t left = vreinterpretq_s64_s32(t[r / 2][2 * h]);
            const int64x2_t right = vreinterpretq_s64_s32(t[r / 2][2 * h + 1]);
            s[r][h] = vreinterpretq_s32_s64(r % 2 ? vtrn2q_s64(left, right)
                                                  : vtrn1q_s64(left, right));
        }
    }
}

#include "kernels/arm/quant_neon.h"

void fv_quant_init_i8mm(fv_kernels *k);
void fv_quant_init_i8mm(fv_kernels *k) { fill_slots(k); }
