/* Taps of two models -> distances by stage. See stages.h. */
#include "eval/stages.h"
#include "base/list.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static size_t shape_count(const size_t *shape, int n_dims)
{
    size_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= shape[i];
    return n;
}

static bool is_stage(const char *name)
{
    return strcmp(name, "pixels_u8") && strncmp(name, "logits_", 7);
}

static fv_status stage_keep(fv_stages *s, const char *name, const float *x, size_t n, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(s->kept, s->n_kept, s->kept_capacity, 1, err));
    fv_kept_stage *k = &s->kept[s->n_kept];
    *k = (fv_kept_stage){ .n = n, .x = fv_alloc(n, sizeof *x) };
    if (!k->x)
        return fv_fail_memory(err, n * sizeof *x, "a stage");
    snprintf(k->name, sizeof k->name, "%s", name);
    memcpy(k->x, x, n * sizeof *x);
    s->n_kept++;
    return FV_OK;
}

bool fv_stages_keep(void *stages, const char *name, const float *x, const size_t *shape, int n_dims)
{
    fv_stages *s = stages;
    return !is_stage(name) ||
           stage_keep(s, name, x, shape_count(shape, n_dims), &s->error) == FV_OK;
}

static fv_status find_sum(fv_stages *s, fv_stage_sum **out, const char *name, fv_error *err)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->sum[i].name, name)) {
            *out = &s->sum[i];
            return FV_OK;
        }
    FV_TRY(FV_LIST_ROOM(s->sum, s->n, s->capacity, 1, err));
    *out = &s->sum[s->n++];
    **out = (fv_stage_sum){ 0 };
    snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    return FV_OK;
}

/* The runs of a long prompt give a stage several times: the first that was not compared yet. */
static fv_kept_stage *find_kept(fv_stages *s, const char *name)
{
    for (size_t i = 0; i < s->n_kept; i++)
        if (!strcmp(s->kept[i].name, name) &&
            !s->kept[i].compared[s->with == FV_WITH_BOTH ? FV_WITH_OWN : s->with])
            return &s->kept[i];
    return NULL;
}

static fv_status stage_compare(fv_stages *s, const char *name, const float *x, size_t n,
                               fv_error *err)
{
    fv_kept_stage *k = find_kept(s, name);
    fv_stage_sum *sum = NULL;
    fv_distance d = { 0 };
    if (!k)
        return FV_OK;
    if (k->n != n)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "%s has %zu values in the reference and %zu in the test model; both "
                       "must be the same model in different precisions",
                       name, k->n, n);
    fv_distance_add(&d, k->x, x, n);
    if (!isfinite(d.noise))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s contains NaN or infinite values in the %s", name,
                       isfinite(d.want2) ? "test model" : "reference");
    FV_TRY(find_sum(s, &sum, name, err));
    for (int with = 0; with < FV_WITH_BOTH; with++)
        if (s->with == with || s->with == FV_WITH_BOTH) {
            fv_distance_join(&sum->with[with], &d);
            k->compared[with] = true;
        }
    if (!strcmp(name, "vision.features"))
        s->features = d;
    else if (!strcmp(name, "image_tokens"))
        s->tokens = d;
    return FV_OK;
}

bool fv_stages_compare(void *stages, const char *name, const float *x, const size_t *shape,
                       int n_dims)
{
    fv_stages *s = stages;
    return !is_stage(name) ||
           stage_compare(s, name, x, shape_count(shape, n_dims), &s->error) == FV_OK;
}

void fv_stages_drop(fv_stages *s)
{
    for (size_t i = 0; i < s->n_kept; i++)
        fv_free(s->kept[i].x);
    s->n_kept = 0;
}

void fv_stages_free(fv_stages *s)
{
    fv_stages_drop(s);
    fv_free(s->kept);
    fv_free(s->sum);
    *s = (fv_stages){ 0 };
}
