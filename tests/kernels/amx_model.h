/* AMX's tile instructions in C, for machines that lack them: kernels/x86/tiles_amx.h takes these
 * when FV_AMX_MODEL is defined. What the processor would fault on ends the program. One thread. */
#ifndef FV_AMX_MODEL_H
#define FV_AMX_MODEL_H

void amx_model_configure(const tile_config *config);
void amx_model_release(void);
void amx_model_zero(int t);
void amx_model_load(int t, const void *p, size_t stride);
void amx_model_store(int t, void *p, size_t stride);
void amx_model_pairs_bf16(int sum, int a, int b);
void amx_model_fours(int sum, int a, int b, int a_signed);

static inline void tiles_configure(const tile_config *config) { amx_model_configure(config); }

static inline void tiles_release(void) { amx_model_release(); }

#define TILE_ZERO(t)                amx_model_zero(t)
#define TILE_LOAD(t, p, stride)     amx_model_load(t, p, stride)
#define TILE_STORE(t, p, stride)    amx_model_store(t, p, stride)
#define TILE_PAIRS_BF16(sum, a, b)  amx_model_pairs_bf16(sum, a, b)
/* one operand is signed, the other is not */
#define TILE_FOURS_U8_I8(sum, a, b) amx_model_fours(sum, a, b, 0)
#define TILE_FOURS_I8_U8(sum, a, b) amx_model_fours(sum, a, b, 1)

#endif
