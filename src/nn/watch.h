/* watch: what looks on while the model runs: progress, cancelling, and the dump of every stage. */
#ifndef FV_WATCH_H
#define FV_WATCH_H

#include "base/base.h"

/* Sees what goes into a layer, f32 [n, c]; site is the layer's fv_mat or fv_dw. */
typedef void fv_observe_fn(void *user, const void *site, const float *x, size_t n, size_t c);

typedef struct fv_watch {
    fv_progress_fn *progress;  /* NULL: none */
    void *user;
    const char *dump_dir;      /* NULL: none */
    fv_observe_fn *observe;    /* NULL: none; wants an encoder in f32 */
    void *observe_user;
} fv_watch;

static inline void fv_watch_observe(const fv_watch *w, const void *site, const float *x, size_t n, size_t c)
{
    if (w->observe)
        w->observe(w->observe_user, site, x, n, c);
}

/* FV_ERR_CANCELLED when the caller wants to stop. */
fv_status fv_watch_step(const fv_watch *w, const char *stage, double done, fv_error *err);

static inline bool fv_watch_dumps(const fv_watch *w) { return w->dump_dir != NULL; }

/* Writes DIR/NAME.npy; nothing without a dump directory. */
fv_status fv_watch_rows(const fv_watch *w, const char *name, const float *x, size_t rows, size_t cols, fv_error *err);
/* A map [height * width, channels] as [channels, height, width]. */
fv_status fv_watch_map(const fv_watch *w, const char *name, const float *x, size_t height, size_t width,
                       size_t channels, fv_error *err);

#endif
