/* Attention with operands in bf16 on AMX tiles: a tile of 16 keys, or of 16 columns, times 16 query
 * rows. What is left of the time is the weights', which are the vector units' work. */
#include "kernels/x86/attn_pairs_avx512.h"
#include "kernels/x86/tiles_amx.h"
#include "kernels/x86/transpose_avx512.h"

enum { PAIRS = TILE_ROW_BYTES / 4, LANES = VEC_W };

static void pairs_scores(float *s, const attn_elem *keys, const attn_elem *q, size_t ld, size_t n,
                         size_t width)
{
    const size_t key_bytes = width * 2, row_bytes = ld * 4;
    for (size_t j = 0; j < n; j += 2 * TILE_ROWS)
        for (size_t v = 0; v < ld; v += LANES) {
            TILE_ZERO(0);
            TILE_ZERO(1);
            for (size_t t = 0; t < width / 2; t += PAIRS) {
                TILE_LOAD(6, q + t * ld + v, row_bytes);
                TILE_LOAD(4, keys + j * (width / 2) + t, key_bytes);
                TILE_PAIRS_BF16(0, 4, 6);
                TILE_LOAD(5, keys + (j + TILE_ROWS) * (width / 2) + t, key_bytes);
                TILE_PAIRS_BF16(1, 5, 6);
            }
            TILE_STORE(0, s + j * ld + v, row_bytes);
            TILE_STORE(1, s + (j + TILE_ROWS) * ld + v, row_bytes);
        }
}

/* [c][key / 2]: rows of block / 2 pairs */
static void values_pack(attn_elem *to, const float *v, size_t ldv, size_t n, size_t d, size_t width,
                        size_t block)
{
    for (size_t j = 0; j < n; j += 2 * PAIRS)
        for (size_t c = 0; c < width; c += TILE_ROWS) {
            const size_t left = c < d ? FV_MIN(d - c, (size_t)VEC_W) : 0;
            __m512i r[16];
            for (size_t i = 0; i < PAIRS; i++) {
                const size_t first = j + 2 * i;
                const float *at = v + first * ldv + c;
                r[i] = pairs_of(first < n ? vec_load_n(at, left) : vec_zero(),
                                first + 1 < n ? vec_load_n(at + ldv, left) : vec_zero());
            }
            transpose(r);
            for (size_t i = 0; i < TILE_ROWS; i++)
                _mm512_storeu_si512(to + (c + i) * (block / 2) + j / 2, r[i]);
        }
}

static void pairs_values(float *o, const float *keep, const attn_elem *values, const attn_elem *p,
                         size_t ld, size_t n, size_t width, size_t block)
{
    const size_t column_bytes = block * 2, row_bytes = ld * 4;
    for (size_t v = 0; v < ld; v += LANES)
        for (size_t c = 0; c < width; c += 2 * TILE_ROWS) {
            for (size_t i = c; i < c + 2 * TILE_ROWS; i++)
                vec_store(o + i * ld + v, vec_mul(vec_load(o + i * ld + v), vec_load(keep + v)));
            TILE_LOAD(0, o + c * ld + v, row_bytes);
            TILE_LOAD(1, o + (c + TILE_ROWS) * ld + v, row_bytes);
            for (size_t t = 0; t < (n + 1) / 2; t += PAIRS) {
                TILE_LOAD(6, p + t * ld + v, row_bytes);
                TILE_LOAD(4, values + c * (block / 2) + t, column_bytes);
                TILE_PAIRS_BF16(0, 4, 6);
                TILE_LOAD(5, values + (c + TILE_ROWS) * (block / 2) + t, column_bytes);
                TILE_PAIRS_BF16(1, 5, 6);
            }
            TILE_STORE(0, o + c * ld + v, row_bytes);
            TILE_STORE(1, o + (c + TILE_ROWS) * ld + v, row_bytes);
        }
}

static void attn_bf16__amx(const fv_attn_args *a)
{
    tile_config config = { .palette = 1 };
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = TILE_ROW_BYTES;
        config.rows[t] = TILE_ROWS;
    }
    tiles_configure(&config);
    pairs_run(a);
    tiles_release();
}

void fv_attn_init_amx(fv_kernels *k);
void fv_attn_init_amx(fv_kernels *k) { k->attn_bf16 = attn_bf16__amx; }
