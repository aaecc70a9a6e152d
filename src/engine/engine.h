/* engine: a loaded model. Immutable after fv_engine_open; sessions share it. */
#ifndef FV_ENGINE_H
#define FV_ENGINE_H

#include "base/base.h"
#include "io/gguf.h"
#include "io/tensors.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/weights.h"
#include "text/tokenizer.h"

enum { FV_ENGINE_EOS = FV_MAX_EOS + 2, FV_RECORD_TEXT = 128 };

struct fv_engine {
    char *path;
    fv_config config;
    fv_gguf *gguf;                     /* of a packed file; NULL: a checkpoint directory */
    fv_tensors *checkpoint;            /* of a directory; NULL: a packed file */
    const fv_tensors *tensors;         /* of either */
    char (*record)[2][FV_RECORD_TEXT]; /* how a packed file came to be */
    size_t n_records;
    fv_weights weights;
    fv_tokenizer *tokenizer;
    fv_kernels kernels;
    unsigned cpu;
    fv_pool *pool;
    fv_kv kv;
    fv_type vision, decoder; /* precision: F32, BF16, F16; I8, Q8_0, Q4_0 of a packed file */
    int image_size;
    int32_t eos[FV_ENGINE_EOS];
    int n_eos;
    int32_t image_token; /* the id of "<image>", -1: none */
    const char *weights_type;
    double load_ms;
};

#endif
