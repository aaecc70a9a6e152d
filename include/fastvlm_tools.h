/* fastvlm_tools: from a checkpoint to what other runtimes load.
 *
 * Every function writes beside the final name and renames, so that a failure (a full disk, Ctrl-C)
 * leaves what was there before. Rules as in fastvlm.h: a status, *err when err is not NULL, nothing
 * printed. */
#ifndef FASTVLM_TOOLS_H
#define FASTVLM_TOOLS_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- ONNX */

enum { FV_ONNX_VISION = 1, FV_ONNX_EMBED = 2, FV_ONNX_DECODER = 4 };

typedef enum fv_onnx_ops {
    FV_ONNX_PRIMITIVE = 0,      /* Erf, ReduceMean and the like: any converter takes them */
    FV_ONNX_FUSED               /* Gelu, LayerNormalization, RMSNormalization where the opset has them */
} fv_onnx_ops;

typedef enum fv_onnx_target {
    FV_ONNX_GENERIC = 0,        /* fixed shapes, right-aligned cache inside the graph */
    FV_ONNX_NPU,                /* fixed shapes, f16, keys transposed, the host keeps the cache */
    FV_ONNX_TRANSFORMERS_JS     /* free shapes, growing cache, the file names of that package */
} fv_onnx_target;

typedef struct fv_onnx_settings {
    unsigned       parts;       /* FV_ONNX_* flags; 0: all three */
    fv_onnx_target target;
    fv_onnx_ops    ops;
    int            opset;       /* 13 to 24; 0: 14 for primitive operators, 23 for fused ones */
    int            image_size;  /* a multiple of 64; 0: the model's own */
    int            seq_len;     /* ids of embed_tokens; 0: 512 */
    int            step_len;    /* rows of one decoder step; 0: 1 */
    int            cache_len;   /* 0: 512, for the NPU 1023 */
    fv_precision   precision;   /* F32 or F16; AUTO: F32, for the NPU F16 */
    bool           external_data; /* weights in NAME.onnx_data even when one file could hold them */
    fv_log_fn      *log;        /* NULL: silent; one line (FV_LOG_INFO) for every file written */
    void           *log_user;
    fv_progress_fn *progress;   /* NULL: none; true cancels */
    void           *progress_user;
    uint64_t       reserved[8]; /* zero */
} fv_onnx_settings;

FV_API void      fv_onnx_settings_default(fv_onnx_settings *settings);
/* Writes ONNX graphs of the checkpoint directory model into the directory out, which is made when
 * it does not exist. settings may be NULL. */
FV_API fv_status fv_export_onnx(const char *model, const char *out, const fv_onnx_settings *settings, fv_error *err);

#ifdef __cplusplus
}
#endif

#endif
