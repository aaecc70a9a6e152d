/* The tile instructions of AMX that the kernels use. A tile register holds 16 rows of 64 bytes;
 * they are named by a literal number, 0 to 7.
 *
 * Instructions, not the compiler's intrinsics: gcc 12's _tile_loadd does not say that it reads
 * memory, so stores that it must see may be moved behind it. Tests define FV_AMX_MODEL, and the
 * same kernels run on a model of these instructions in C (tests/kernels/amx_model.h).
 *
 * A kernel configures the tiles when it is called and releases them when it returns: 60 ns of a
 * call that takes 10 us at least (measured on Emerald Rapids). To remember across calls that a
 * thread has configured them would save that, but nobody could then say when to release, and
 * another library in the process may have configured them its own way in between. Released tiles
 * are in their initial state, which the system need not save: 8 KB less at every context switch. */
#ifndef FV_TILES_AMX_H
#define FV_TILES_AMX_H

#include <stddef.h>
#include <stdint.h>

enum { TILE_ROWS = 16, TILE_ROW_BYTES = 64, TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES };

/* What ldtilecfg reads. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "as ldtilecfg reads it");

#ifdef FV_AMX_MODEL
#include "kernels/amx_model.h"
#else

/* Sets every tile to zero, too. */
static inline void tiles_configure(const tile_config *config)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*config));
}

static inline void tiles_release(void) { __asm__ volatile("tilerelease"); }

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : :)
/* row i from p + i * stride */
#define TILE_LOAD(t, p, stride)                                      \
    __asm__ volatile("tileloadd (%0, %1), %%tmm" #t                  \
                     :                                               \
                     : "r"((const void *)(p)), "r"((size_t)(stride)) \
                     : "memory")
#define TILE_STORE(t, p, stride)                               \
    __asm__ volatile("tilestored %%tmm" #t ", (%0, %1)"        \
                     :                                         \
                     : "r"((void *)(p)), "r"((size_t)(stride)) \
                     : "memory")

/* sum[i][j] += a[i] * b[j], pairs of bf16: a row of b holds a pair of k for each of 16 columns. */
#define TILE_PAIRS_BF16(sum, a, b) \
    __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)
/* The same for fours of bytes: a unsigned and b signed, or a signed and b unsigned. */
#define TILE_FOURS_U8_I8(sum, a, b) \
    __asm__ volatile("tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)
#define TILE_FOURS_I8_U8(sum, a, b) \
    __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)

#endif

#endif
