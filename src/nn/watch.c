/* Progress, cancelling, dumps, taps. See watch.h. */
#include "nn/watch.h"

#include "base/report.h"
#include "io/npy.h"

fv_status fv_watch_step(const fv_watch *w, const char *stage, double done, fv_error *err)
{
    return fv_progress(w->callbacks, stage, done, err);
}

fv_status fv_watch_rows(const fv_watch *w, const char *name, const float *x, size_t rows,
                        size_t cols, fv_error *err)
{
    if (w->tap)
        FV_TRY(w->tap(w->tap_user, name, x, rows, cols, err));
    if (!w->dump_dir)
        return FV_OK;
    return fv_npy_write(w->dump_dir, name, FV_TYPE_F32, x, (size_t[]){ rows, cols }, 2, err);
}

fv_status fv_watch_map(const fv_watch *w, const char *name, const float *x, size_t height,
                       size_t width, size_t channels, fv_error *err)
{
    if (w->tap)
        FV_TRY(w->tap(w->tap_user, name, x, height * width, channels, err));
    if (!w->dump_dir)
        return FV_OK;
    size_t n = height * width;
    float *planes = fv_alloc(n * channels, sizeof *planes);
    if (!planes)
        return fv_fail_memory(err, n * channels * sizeof *planes, "a dump");
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < channels; c++)
            planes[c * n + i] = x[i * channels + c];
    fv_status status = fv_npy_write(w->dump_dir, name, FV_TYPE_F32, planes,
                                    (size_t[]){ channels, height, width }, 3, err);
    fv_free(planes);
    return status;
}
