/* engine: a loaded model. Immutable after fv_engine_open; sessions share it. */
#ifndef FV_ENGINE_H
#define FV_ENGINE_H

#include <stdatomic.h>

#include "base/base.h"
#include "engine/encoder.h"
#include "model/model.h"

enum { FV_RECORD_TEXT = 128 };

struct fv_engine {
    atomic_int refs; /* its owner, its sessions, calls at work */
    fv_model model;
    char (*record)[2][FV_RECORD_TEXT]; /* how a packed file came to be */
    size_t n_records;
    fv_kv_type kv;
    int image_size;
    fv_end_tokens ends;
    int32_t image_token; /* the id of "<image>", -1: none */
    int64_t own_bytes;   /* that opening has taken and kept */
    double load_ms;
    fv_encoder encoder;
};

/* One reference more; fv_engine_free gives one back. */
fv_engine *fv_engine_ref(fv_engine *e);

/* The time, and the bytes of this thread, when opening began. */
typedef struct fv_opening {
    double ms;
    int64_t bytes;
} fv_opening;

static inline fv_opening fv_opening_begin(void)
{
    return (fv_opening){ fv_now_ms(), fv_mem_thread_bytes() };
}

/* From a path, or from a packed file that has been read, which it takes. opening: its beginning.
 * options: by the border's rules already. FV_MODEL_LAYOUT gives an engine that cannot run, but
 * whose memory can be asked for. */
fv_status fv_engine_new(fv_engine **out, const char *path, fv_gguf *packed, fv_model_depth depth,
                        const fv_engine_options *options, fv_opening opening, fv_error *err);
/* Copies options and callbacks in and checks them. */
fv_status fv_engine_take_options(fv_engine_options *s, fv_callbacks *callbacks,
                                 const fv_engine_options *options, fv_error *err);

#endif
