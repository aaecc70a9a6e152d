/* watch: what looks on while the model runs: progress, cancelling, and every stage's values,
 * written to files or given to a function. */
#ifndef FV_WATCH_H
#define FV_WATCH_H

#include "base/base.h"

/* Every stage as it is computed, in the order of the model: rows x cols values, a map as [height *
 * width, channels]. x is only there during the call. A prompt in several runs gives a stage several
 * times. */
typedef fv_status fv_tap_fn(void *user, const char *name, const float *x, size_t rows, size_t cols,
                            fv_error *err);

typedef struct fv_watch {
    const fv_callbacks *callbacks; /* NULL: none */
    const char *dump_dir;          /* NULL: none */
    fv_tap_fn *tap;                /* NULL: none */
    void *tap_user;
} fv_watch;

/* FV_ERR_CANCELLED when the caller wants to stop. */
fv_status fv_watch_step(const fv_watch *w, const char *stage, double done, fv_error *err);

static inline bool fv_watch_dumps(const fv_watch *w) { return w->dump_dir != NULL; }
/* Somebody wants the stages: as files, or by tap. */
static inline bool fv_watch_taps(const fv_watch *w) { return w->dump_dir || w->tap; }

/* Calls the tap and writes DIR/NAME.npy, where there are any. */
fv_status fv_watch_rows(const fv_watch *w, const char *name, const float *x, size_t rows,
                        size_t cols, fv_error *err);
/* A map [height * width, channels]; in the file [channels, height, width]. */
fv_status fv_watch_map(const fv_watch *w, const char *name, const float *x, size_t height,
                       size_t width, size_t channels, fv_error *err);

#endif
