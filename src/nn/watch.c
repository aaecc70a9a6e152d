/* Progress, cancelling, taps. See watch.h. */
#include "nn/watch.h"

#include "base/report.h"

fv_status fv_watch_step(const fv_watch *w, const char *stage, double done, fv_error *err)
{
    return fv_progress(w->callbacks, stage, done, err);
}

static fv_status tap_show(const fv_watch *w, const char *name, const float *x, const size_t *shape,
                          int n_dims, fv_error *err)
{
    return w->tap(w->tap_user, name, x, shape, n_dims)
               ? FV_OK
               : fv_fail(err, FV_ERR_CANCELLED, 0, "the tap stopped at %s", name);
}

fv_status fv_watch_rows(const fv_watch *w, const char *name, const float *x, size_t rows,
                        size_t cols, fv_error *err)
{
    return w->tap ? tap_show(w, name, x, (size_t[]){ rows, cols }, 2, err) : FV_OK;
}

fv_status fv_watch_map(const fv_watch *w, const char *name, const float *x, size_t height,
                       size_t width, size_t channels, fv_error *err)
{
    if (!w->tap)
        return FV_OK;
    size_t n = height * width;
    float *planes = fv_alloc(n * channels, sizeof *planes);
    if (!planes)
        return fv_fail_memory(err, n * channels * sizeof *planes, "a tapped value");
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < channels; c++)
            planes[c * n + i] = x[i * channels + c];
    fv_status status = tap_show(w, name, planes, (size_t[]){ channels, height, width }, 3, err);
    fv_free(planes);
    return status;
}

fv_status fv_watch_bytes(const fv_watch *w, const char *name, const uint8_t *x, const size_t *shape,
                         int n_dims, fv_error *err)
{
    size_t n = 1;
    if (!w->tap)
        return FV_OK;
    for (int i = 0; i < n_dims; i++)
        n *= shape[i];
    float *values = fv_alloc(n, sizeof *values);
    if (!values)
        return fv_fail_memory(err, n * sizeof *values, "a tapped value");
    for (size_t i = 0; i < n; i++)
        values[i] = x[i];
    fv_status status = tap_show(w, name, values, shape, n_dims, err);
    fv_free(values);
    return status;
}
