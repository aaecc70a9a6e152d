/* The calibration set, given or drawn, as the encoder sees it. See calibrate.h. */
#include "pack/calibrate.h"
#include "base/report.h"
#include "image/image.h"
#include "image/image_list.h"
#include "pack/scenes.h"

typedef struct image_walk {
    const fv_calibrate_options *o;
    const fv_config *c;
    const fv_kernels *k;
    fv_pool *pool;
    float *pixels; /* [S, S, 3] */
    uint8_t *u8;   /* [S, S, 3] */
    size_t n;      /* images, without those skipped so far */
    fv_calibrate_fn *fn;
    void *user;
    fv_seen *seen;
} image_walk;

static fv_status walk_show(image_walk *w, fv_error *err)
{
    FV_TRY(fv_progress(w->o->callbacks, "calibrate", (double)w->seen->n / (double)w->n, err));
    FV_TRY(w->fn(w->user, w->pixels, w->seen->n, w->n, err));
    w->seen->n++;
    return FV_OK;
}

static fv_status walk_scene(image_walk *w, size_t at, fv_error *err)
{
    size_t size = (size_t)w->c->image_size;
    fv_scene_draw(w->u8, w->c->image_size, at);
    fv_pixels_f32(w->pixels, w->u8, size * size, &w->c->recipe);
    return walk_show(w, err);
}

static fv_status walk_file(image_walk *w, const char *path, fv_error *err)
{
    fv_image *image = NULL;
    fv_error why;
    if (fv_image_open(&image, path, NULL, &why) != FV_OK) {
        w->seen->n_skipped++;
        w->n--;
        fv_log(w->o->callbacks, FV_LOG_WARNING, "%s", why.message);
        return FV_OK;
    }
    fv_status status = fv_preprocess(w->pixels, w->u8, image, &w->c->recipe, w->c->image_size,
                                     w->pool, w->k, err);
    fv_image_free(image);
    return status == FV_OK ? walk_show(w, err) : status;
}

fv_status fv_calibrate_images(fv_seen *out, const fv_calibrate_options *o, size_t images,
                              size_t scenes, const fv_config *c, const fv_kernels *k, fv_pool *pool,
                              fv_calibrate_fn *fn, void *user, fv_error *err)
{
    size_t size = (size_t)c->image_size, n = size * size * 3,
           more = FV_MIN((size_t)4, FV_MAX(((size_t)1 << 20) / (size * size), (size_t)1));
    size_t most = o->max_images > 0 ? (size_t)o->max_images : (o->n_paths ? images : scenes) * more;
    image_walk w = { .o = o,
                     .c = c,
                     .k = k,
                     .pool = pool,
                     .pixels = fv_alloc(n, sizeof *w.pixels),
                     .u8 = fv_alloc(n, 1),
                     .fn = fn,
                     .user = user,
                     .seen = out };
    fv_image_list files = { 0 };
    fv_status status = FV_OK;
    *out = (fv_seen){ .synthetic = !o->n_paths };
    if (!w.pixels || !w.u8) {
        status = fv_fail_memory(err, n * sizeof *w.pixels, "an image");
        goto fail;
    }
    if (o->n_paths)
        FV_TRY_GOTO(fv_image_list_collect(&files, o->paths, o->n_paths, err));
    w.n = out->synthetic ? most : FV_MIN(files.n, most);
    for (size_t i = 0, total = w.n; i < total; i++)
        FV_TRY_GOTO(out->synthetic ? walk_scene(&w, i, err)
                                   : walk_file(&w, files.path[i * files.n / total], err));
    if (out->n <= out->n_skipped)
        status = fv_fail(
            err, FV_ERR_FORMAT, 0,
            "only %zu of %zu images could be read; calibration needs more than half of them",
            out->n, out->n + out->n_skipped);
fail:
    fv_image_list_free(&files);
    fv_free(w.pixels);
    fv_free(w.u8);
    return status;
}

int fv_calibrate_small_size(int image_size)
{
    enum { SMALL = 256 };
    while (image_size >= 2 * SMALL && image_size % (2 * FV_PATCH) == 0)
        image_size /= 2;
    return image_size;
}

void fv_calibrate_shrink(float *to, size_t to_size, const float *from, size_t from_size)
{
    size_t times = from_size / to_size;
    for (size_t i = 0; i < to_size * to_size * 3; i++) {
        size_t y = i / 3 / to_size * times, x = i / 3 % to_size * times;
        double sum = 0;
        for (size_t k = 0; k < times * times; k++)
            sum += (double)from[((y + k / times) * from_size + x + k % times) * 3 + i % 3];
        to[i] = (float)(sum / (double)(times * times));
    }
}
