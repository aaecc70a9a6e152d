/* engine: a loaded model. Immutable after fv_engine_open; sessions share it. */
#ifndef FV_ENGINE_H
#define FV_ENGINE_H

#include "base/base.h"
#include "io/tensors.h"
#include "kernels/kernels.h"
#include "nn/config.h"
#include "nn/weights.h"
#include "text/tokenizer.h"

enum { FV_ENGINE_EOS = FV_MAX_EOS + 2 };

struct fv_engine {
    char         *path;
    fv_config     config;
    fv_tensors   *tensors;
    fv_weights    weights;
    fv_tokenizer *tokenizer;
    fv_kernels    kernels;
    unsigned      cpu;
    fv_pool      *pool;
    fv_type       vision, decoder;  /* precision: F32, BF16 or F16 */
    int           image_size;
    int32_t       eos[FV_ENGINE_EOS];
    int           n_eos;
    int32_t       image_token;      /* the id of "<image>", -1: none */
    const char   *weights_type;
    double        load_ms;
};

#endif
