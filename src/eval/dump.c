/* Named values -> .npy files that appear together. See fastvlm_tools.h.
 *
 *     NAME.npy          f32 as the tap gave it; given again (a second image, a prompt in several
 *                       runs), the last one stays
 *     pixels_u8.npy     u8
 *     logits_steps.npy  the rows of all tokens of the answer */
#include <string.h>

#include "base/list.h"
#include "base/outfile.h"
#include "base/sized.h"
#include "fastvlm_tools.h"
#include "io/npy.h"

enum { MAX_DIMS = 4 };

struct fv_dump {
    char *dir;
    fv_outdir out;                      /* being filled; stage NULL: nothing has come yet */
    float *steps;                       /* [n_steps, n_logits] */
    size_t n_steps, n_logits, capacity; /* of steps, in values */
    fv_error error;                     /* why the tap gave up */
};

fv_status fv_dump_open(fv_dump **out, const char *dir, fv_error *err)
{
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(dir, err);
    fv_dump *d = fv_alloc_zero(1, sizeof *d);
    if (!d)
        return fv_fail_memory(err, sizeof *d, "a dump");
    if (!(d->dir = fv_strdup(dir))) {
        fv_free(d);
        return fv_fail_memory(err, strlen(dir), "a dump");
    }
    fv_status status = fv_outdir_open(&d->out, dir, true, NULL, err);
    if (status != FV_OK) {
        fv_dump_free(d);
        return status;
    }
    *out = d;
    return FV_OK;
}

static fv_status dump_bytes(fv_dump *d, const char *name, const float *data, const size_t *shape,
                            int n_dims, size_t n)
{
    uint8_t *bytes = fv_alloc(n, 1);
    if (!bytes)
        return fv_fail_memory(&d->error, n, "a dump");
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)data[i];
    fv_status status = fv_npy_write(d->out.stage, name, FV_TYPE_U8, bytes, shape, n_dims,
                                    &d->error);
    fv_free(bytes);
    return status;
}

static fv_status dump_step(fv_dump *d, const float *logits, size_t n)
{
    if (d->n_steps && n != d->n_logits)
        return fv_fail(&d->error, FV_ERR_ARGUMENT, 0, "logits_steps has %zu values, then %zu",
                       d->n_logits, n);
    FV_TRY(FV_LIST_ROOM(d->steps, d->n_steps * n, d->capacity, n, &d->error));
    d->n_logits = n;
    memcpy(d->steps + d->n_steps++ * n, logits, n * sizeof *logits);
    return FV_OK;
}

static fv_status dump_value(fv_dump *d, const char *name, const float *data, const size_t *shape,
                            int n_dims)
{
    size_t n = 1;
    if (n_dims < 1 || n_dims > MAX_DIMS)
        return fv_fail(&d->error, FV_ERR_ARGUMENT, 0, "%s has %d dimensions; expected 1 to %d",
                       name, n_dims, MAX_DIMS);
    for (int i = 0; i < n_dims; i++)
        n *= shape[i];
    if (!d->out.stage)
        FV_TRY(fv_outdir_open(&d->out, d->dir, true, NULL, &d->error));
    if (!strcmp(name, "logits_steps"))
        return dump_step(d, data, n);
    if (!strcmp(name, "pixels_u8"))
        return dump_bytes(d, name, data, shape, n_dims, n);
    return fv_npy_write(d->out.stage, name, FV_TYPE_F32, data, shape, n_dims, &d->error);
}

bool fv_dump_tap(void *dump, const char *name, const float *data, const size_t *shape, int n_dims)
{
    fv_dump *d = dump;
    return d && name && data && shape && d->error.status == FV_OK &&
           dump_value(d, name, data, shape, n_dims) == FV_OK;
}

static void dump_drop(fv_dump *d)
{
    fv_outdir_abandon(&d->out);
    d->n_steps = 0;
    d->error = (fv_error){ 0 };
}

fv_status fv_dump_commit(fv_dump *d, fv_error *err)
{
    FV_REQUIRE(d, err);
    fv_status status = d->error.status;
    if (status != FV_OK && err)
        *err = d->error;
    if (status == FV_OK && d->n_steps)
        status = fv_npy_write(d->out.stage, "logits_steps", FV_TYPE_F32, d->steps,
                              (size_t[]){ d->n_steps, d->n_logits }, 2, err);
    if (status == FV_OK && d->out.stage)
        status = fv_outdir_commit(&d->out, err);
    dump_drop(d);
    return status;
}

void fv_dump_free(fv_dump *d)
{
    if (!d)
        return;
    dump_drop(d);
    fv_free(d->steps);
    fv_free(d->dir);
    fv_free(d);
}
