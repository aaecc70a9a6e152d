/* x86/attn_amx.c on the model of the tile instructions. */
#if defined(__x86_64__)

#define FV_AMX_MODEL
#define fv_attn_init_amx fv_attn_init_amx_model
#include "kernels/x86/attn_amx.c" /* NOLINT: the kernel itself */

#endif
