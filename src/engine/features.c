/* Image tokens as values. See features.h. */
#include "engine/features.h"

#include <string.h>

#include "base/sized.h"
#include "engine/engine.h"

fv_status fv_features_alloc(fv_features **out, size_t n_rows, size_t d_model, fv_error *err)
{
    *out = NULL;
    if (n_rows > SIZE_MAX / 16 / d_model)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%zu rows of %zu values are too many", n_rows,
                       d_model);
    size_t n_bytes = sizeof(fv_features) + n_rows * d_model * sizeof(float);
    fv_features *f = fv_alloc(n_bytes, 1);
    if (!f)
        return fv_fail_memory(err, n_bytes, "image tokens");
    atomic_init(&f->refs, 1);
    f->n_rows = n_rows;
    f->d_model = d_model;
    f->times = (fv_encode_times){ 0 };
    *out = f;
    return FV_OK;
}

fv_status fv_features_new(const fv_engine *engine, const float *rows, size_t n_rows, size_t d_model,
                          fv_features **out, fv_error *err)
{
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(engine, err);
    FV_REQUIRE(rows, err);
    if (d_model != (size_t)engine->model.config.d_model)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "d_model is %zu; expected %d, the model's", d_model,
                       engine->model.config.d_model);
    if (n_rows < 1 || n_rows > (size_t)engine->model.config.max_context)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "n_rows is %zu; expected 1 to %d, the model's context", n_rows,
                       engine->model.config.max_context);
    FV_TRY(fv_features_alloc(out, n_rows, d_model, err));
    memcpy((*out)->rows, rows, n_rows * d_model * sizeof *rows);
    return FV_OK;
}

fv_features *fv_features_ref(fv_features *f)
{
    if (f)
        atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    return f;
}

void fv_features_free(fv_features *f)
{
    if (f && atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) == 1)
        fv_free(f);
}

const float *fv_features_rows(const fv_features *f, size_t *n_rows, size_t *d_model)
{
    if (n_rows)
        *n_rows = f ? f->n_rows : 0;
    if (d_model)
        *d_model = f ? f->d_model : 0;
    return f ? f->rows : NULL;
}

bool fv_features_equal(const fv_features *a, const fv_features *b)
{
    return a == b || (a->n_rows == b->n_rows && a->d_model == b->d_model &&
                      !memcmp(a->rows, b->rows, a->n_rows * a->d_model * sizeof *a->rows));
}
