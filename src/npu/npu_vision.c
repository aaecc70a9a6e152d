/* From a model to the plan of its encoder. See npu_vision.h. */
#include "npu/npu_vision.h"

#include <string.h>

#include "base/report.h"
#include "image/image.h"
#include "npu/npu_mixed.h"

#define INPUT  "pixel_values"
#define OUTPUT "image_features"

enum {
    SAMPLE_ROWS = 512,
    JUDGED_IMAGES = 24,      /* up to, for MIXED and W8A8, */
    JUDGED_VALUES = 9 << 20, /* or until there are so many numbers; one at least */
};

static fv_status graph_make(fv_npu_vision *v, const fv_vision_weights *w, fv_error *err)
{
    fv_graph_spec spec = { .real = FV_TYPE_F32,
                           .io = FV_TYPE_F32,
                           .image_size = v->config.image_size };
    fv_graph_begin(&v->graph, "vision", err);
    fv_graph_vision(&v->graph, &v->config, w, &spec);
    return fv_graph_status(&v->graph);
}

fv_status fv_npu_vision_open(fv_npu_vision *v, const char *model, int image_size,
                             const fv_callbacks *callbacks, fv_error *err)
{
    fv_model_options options = { .depth = FV_MODEL_STORED, .callbacks = callbacks };
    fv_status status;
    *v = (fv_npu_vision){ 0 };
    FV_TRY(fv_model_open(&v->model, model, &options, err));
    v->config = v->model.config;
    if (image_size)
        v->config.image_size = image_size;
    FV_TRY_GOTO(fv_ops_init(&v->ops, &v->model.kernels, v->model.pool, err));
    FV_TRY_GOTO(graph_make(v, &v->model.weights.vision, err));
    return FV_OK;
fail:
    fv_npu_vision_close(v);
    return status;
}

void fv_npu_vision_close(fv_npu_vision *v)
{
    fv_npu_plan_free(&v->plan);
    fv_ranges_free(v->ranges);
    fv_graph_end(&v->graph);
    fv_npu_even_free(&v->even);
    fv_ops_free(&v->ops);
    fv_model_close(&v->model);
    *v = (fv_npu_vision){ 0 };
}

fv_status fv_npu_vision_run(fv_npu_vision *v, const float *pixels, float *tokens,
                            const fv_graph_observer *observer, fv_error *err)
{
    fv_run_input in = { INPUT, pixels };
    fv_run_output out = { OUTPUT, tokens };
    fv_graph_io io = { &in, 1, &out, 1 };
    return fv_graph_run(&v->graph, &v->ops, &io, observer, err);
}

fv_status fv_npu_vision_read(const fv_npu_vision *v, const char *path, float *pixels, uint8_t *u8,
                             bool *taken, const fv_callbacks *callbacks, fv_error *err)
{
    fv_image *image = NULL;
    fv_error why;
    *taken = fv_image_open(&image, path, NULL, &why) == FV_OK;
    if (!*taken) {
        fv_log(callbacks, FV_LOG_WARNING, "%s", why.message);
        return FV_OK;
    }
    fv_status status = fv_preprocess(pixels, u8, image, &v->config.recipe, v->config.image_size,
                                     v->model.pool, &v->model.kernels, err);
    fv_image_free(image);
    return status;
}

size_t fv_npu_vision_pixels(const fv_npu_vision *v) { return fv_value_elems(v->graph.input[0]); }
size_t fv_npu_vision_tokens(const fv_npu_vision *v) { return fv_value_elems(v->graph.output[0]); }

/* ---- calibration ------------------------------------------------------------------------- */

/* Images that MIXED and W8A8 are judged by. */
typedef struct judged_images {
    float *pixels; /* [most, S, S, 3] */
    size_t n, most;
} judged_images;

typedef struct range_pass {
    fv_npu_vision *v;
    fv_ranges **ranges;
    fv_ranges_options o;
    judged_images *judged; /* NULL: none are kept */
} range_pass;

static void judged_image_keep(judged_images *j, const float *pixels, size_t n_pixels, size_t at,
                              size_t n)
{
    if (j->n < j->most && at >= j->n * n / j->most)
        memcpy(j->pixels + j->n++ * n_pixels, pixels, n_pixels * sizeof *pixels);
}

/* fv_calibrate_fn */
static fv_status pass_see(void *user, const float *pixels, size_t at, size_t n, fv_error *err)
{
    range_pass *p = user;
    fv_run_input in = { INPUT, pixels };
    fv_graph_io io = { &in, 1, NULL, 0 };
    if (at == 0 && !*p->ranges) {
        p->o.n_runs = n;
        FV_TRY(fv_ranges_new(p->ranges, &p->v->graph, &p->o, err));
    }
    if (p->judged)
        judged_image_keep(p->judged, pixels, fv_npu_vision_pixels(p->v), at, n);
    return fv_ranges_run(*p->ranges, &p->v->ops, &io, err);
}

static fv_status pass_run(fv_npu_vision *v, fv_ranges **ranges, fv_ranges_options o,
                          judged_images *judged, const fv_calibrate_options *calibrate,
                          fv_error *err)
{
    range_pass pass = { v, ranges, o, judged };
    return fv_calibrate_images(&v->seen, calibrate, FV_CALIBRATE_IMAGES, FV_CALIBRATE_SCENES,
                               &v->config, &v->model.kernels, v->model.pool, pass_see, &pass, err);
}

/* The graph becomes that of the evened weights. */
static fv_status vision_even(fv_npu_vision *v, const fv_calibrate_options *calibrate, fv_error *err)
{
    fv_ranges *first = NULL;
    fv_status status = pass_run(v, &first, (fv_ranges_options){ 0 }, NULL, calibrate, err);
    if (status == FV_OK)
        status = fv_npu_equalize(&v->even, &v->model.weights, &v->config, first, &v->model.kernels,
                                 err);
    fv_ranges_free(first);
    FV_TRY(status);
    fv_graph_end(&v->graph);
    return graph_make(v, &v->even.w.vision, err);
}

/* What is decided by the tokens of some images. */
static fv_status judged_plan(fv_npu_vision *v, fv_npu_precision precision, double min_cosine,
                             const judged_images *judged, const fv_callbacks *callbacks,
                             fv_error *err)
{
    FV_TRY(fv_npu_plan_make(&v->plan, &v->graph, v->ranges, precision, &v->model.kernels, err));
    if (precision == FV_NPU_W8A16)
        return FV_OK;
    if (precision == FV_NPU_W8A8)
        return fv_npu_fit_choose(v, judged->pixels, judged->n, callbacks, err);
    return fv_npu_mixed_choose(v, judged->pixels, judged->n, min_cosine, callbacks, err);
}

fv_status fv_npu_vision_plan(fv_npu_vision *v, fv_npu_precision precision, double min_cosine,
                             const fv_calibrate_options *calibrate, fv_error *err)
{
    const fv_ranges_options o = { .sample_rows = SAMPLE_ROWS, .histograms = true, .inner = true };
    size_t n = fv_npu_vision_pixels(v);
    if (precision == FV_NPU_F16)
        return fv_npu_plan_make(&v->plan, &v->graph, NULL, precision, NULL, err);
    FV_TRY(vision_even(v, calibrate, err));
    judged_images judged = { .most = FV_MAX(FV_MIN(JUDGED_VALUES / n, (size_t)JUDGED_IMAGES),
                                            (size_t)1) };
    if (!(judged.pixels = fv_alloc(judged.most * n, sizeof *judged.pixels)))
        return fv_fail_memory(err, judged.most * n * sizeof *judged.pixels, "judged images");
    fv_status status = pass_run(v, &v->ranges, o, &judged, calibrate, err);
    if (status == FV_OK)
        status = judged_plan(v, precision, min_cosine, &judged, calibrate->callbacks, err);
    fv_free(judged.pixels);
    return status;
}
