/* Attention with operands in bf16 on AMX tiles: a tile of 16 keys, or of 16 columns, times 16 query
 * rows. What is left of the time is the weights', which are the vector units' work. */
#include "kernels/x86/attn_pairs_avx512.h"
#include "kernels/x86/tiles_amx.h"

enum { PAIRS = TILE_ROW_BYTES / 4, LANES = VEC_W };

/* 32 rows of z, a vector of lanes: 0 or z, plus the n_t pairs of a's rows times b. a_ld: pairs from
 * row to row of a; ld: from row to row of z and of b */
static inline void two_tiles(float *z, bool more, const attn_elem *a, size_t a_ld,
                             const attn_elem *b, size_t ld, size_t n_t)
{
    if (more) {
        TILE_LOAD(0, z, ld * 4);
        TILE_LOAD(1, z + TILE_ROWS * ld, ld * 4);
    } else {
        TILE_ZERO(0);
        TILE_ZERO(1);
    }
    for (size_t t = 0; t < n_t; t += PAIRS) {
        TILE_LOAD(6, b + t * ld, ld * 4);
        TILE_LOAD(4, a + t, a_ld * 4);
        TILE_PAIRS_BF16(0, 4, 6);
        TILE_LOAD(5, a + TILE_ROWS * a_ld + t, a_ld * 4);
        TILE_PAIRS_BF16(1, 5, 6);
    }
    TILE_STORE(0, z, ld * 4);
    TILE_STORE(1, z + TILE_ROWS * ld, ld * 4);
}

static void pairs_scores(float *s, const attn_elem *keys, const attn_elem *q, size_t ld, size_t n,
                         size_t width)
{
    for (size_t j = 0; j < n; j += 2 * TILE_ROWS)
        for (size_t v = 0; v < ld; v += LANES)
            two_tiles(s + j * ld + v, false, keys + j * (width / 2), width / 2, q + v, ld,
                      width / 2);
}

/* [c][key / 2]: rows of block / 2 pairs */
static void values_pack(attn_elem *to, const fv_attn_args *a, size_t first, size_t n, size_t width,
                        size_t block)
{
    for (size_t j = 0; j < n; j += 2 * PAIRS)
        for (size_t c = 0; c < width; c += TILE_ROWS) {
            __m512i r[16];
            for (size_t i = 0; i < PAIRS; i++) {
                vec pair[2] = { vec_zero(), vec_zero() };
                for (size_t t = j + 2 * i; t < FV_MIN(n, j + 2 * i + 2); t++)
                    pair[t % 2] = kv_load(a->v, a->kv_type, a->ldv, first + t, c, a->d);
                r[i] = pairs_of(pair[0], pair[1]);
            }
            transpose(r);
            for (size_t i = 0; i < TILE_ROWS; i++)
                _mm512_storeu_si512(to + (c + i) * (block / 2) + j / 2, r[i]);
        }
}

static void pairs_values(float *o, const float *keep, const attn_elem *values, const attn_elem *p,
                         size_t ld, size_t n, size_t width, size_t block)
{
    for (size_t v = 0; v < ld; v += LANES)
        for (size_t c = 0; c < width; c += 2 * TILE_ROWS) {
            float *z = o + c * ld + v;
            for (size_t i = 0; i < 2 * TILE_ROWS; i++)
                vec_store(z + i * ld, vec_mul(vec_load(z + i * ld), vec_load(keep + v)));
            two_tiles(z, true, values + c * (block / 2), block / 2, p + v, ld, (n + 1) / 2);
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
