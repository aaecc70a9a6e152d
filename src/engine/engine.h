/* engine: a loaded model. Immutable after fv_engine_open; sessions share it. */
#ifndef FV_ENGINE_H
#define FV_ENGINE_H

#include <stdatomic.h>

#include "base/base.h"
#include "engine/encoder.h"
#include "model/model.h"

enum { FV_ENGINE_EOS = FV_MAX_EOS + 2, FV_RECORD_TEXT = 128 };

struct fv_engine {
    atomic_int refs; /* its owner, its sessions, calls at work */
    fv_model model;
    char (*record)[2][FV_RECORD_TEXT]; /* how a packed file came to be */
    size_t n_records;
    fv_kv_type kv;
    int image_size;
    int32_t eos[FV_ENGINE_EOS];
    int n_eos;
    int32_t image_token; /* the id of "<image>", -1: none */
    double load_ms;
    fv_encoder encoder;
};

/* One reference more; fv_engine_free gives one back. */
fv_engine *fv_engine_ref(fv_engine *e);

#endif
