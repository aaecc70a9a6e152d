/* A context binary at work: images -> image tokens; and how far they are from f32. See
 * fastvlm_npu.h. */
#include <math.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/region.h"
#include "base/report.h"
#include "base/sized.h"
#include "engine/engine.h"
#include "image/image_list.h"
#include "npu/npu_vision.h"
#include "npu/qnn_job.h"
#include "npu/qnn_signature.h"
#include "quant/cosine.h"

struct fv_npu {
    fv_map file;
    fv_npu_binary *binary;
    fv_npu_binary_info info;
    fv_qnn_signature signature;
    fv_npu_shape shape;
    char *qnn_dir, *name;  /* of the libraries; the file's */
    fv_qnn_loaded *loaded; /* has the binary loaded; NULL: not yet, or it has failed */
    fv_region region;
};

/* ---- opening ----------------------------------------------------------------------------- */

/* [1, S, S, 3] -> [1, rows, columns] or [1, height, width, columns] */
static fv_status npu_shape_take(fv_npu *n, fv_error *err)
{
    const fv_qnn_tensor *in = &n->signature.in, *out = &n->signature.out;
    fv_npu_graph_info g = { .size = sizeof g };
    fv_npu_binary_graph(n->binary, 0, &g);
    if (g.n_inputs != 1 || g.n_outputs != 1 || in->rank != 4 || in->dims[1] != in->dims[2] ||
        in->dims[0] != 1 || in->dims[3] != 3 || out->rank < 2 || in->dims[1] > 4096 ||
        fv_qnn_tensor_elems(out) > UINT32_MAX || !fv_qnn_tensor_elems(out))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: the graph %s takes %zu and gives %zu tensors; expected an image "
                       "[1, S, S, 3] and rows of image tokens",
                       n->name, g.name, g.n_inputs, g.n_outputs);
    n->shape = (fv_npu_shape){ .size = sizeof n->shape,
                               .image_size = (int)in->dims[1],
                               .d_model = out->dims[out->rank - 1] };
    n->shape.n_rows = fv_qnn_tensor_elems(out) / n->shape.d_model;
    return FV_OK;
}

static fv_status npu_take(fv_npu *n, const char *file, const fv_npu_library_options *o,
                          fv_error *err)
{
    fv_npu_graph_info graph = { .size = sizeof graph };
    const char *by;
    n->info.size = sizeof n->info;
    if (!(n->name = fv_strdup(file)))
        return fv_fail_memory(err, strlen(file), "a path");
    FV_TRY(fv_map_open(&n->file, file, err));
    FV_TRY(fv_qnn_find(&n->qnn_dir, &by, o->qnn_dir, err));
    FV_TRY(fv_npu_binary_open(&n->binary, file, o, err));
    fv_npu_binary_describe(n->binary, &n->info);
    if (n->info.backend != FV_QNN_BACKEND_HTP || !fv_npu_binary_graph(n->binary, 0, &graph))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: is for QNN backend %u; expected a graph for the NPU (%d)", file,
                       n->info.backend, FV_QNN_BACKEND_HTP);
    n->signature.graph = graph.name;
    FV_TRY(
        fv_qnn_tensor_take(&n->signature.in, n->binary, 0, FV_NPU_INPUT, 0, &n->region, file, err));
    FV_TRY(fv_qnn_tensor_take(&n->signature.out, n->binary, 0, FV_NPU_OUTPUT, 0, &n->region, file,
                              err));
    return npu_shape_take(n, err);
}

fv_status fv_npu_open(fv_npu **out, const char *file, const fv_npu_library_options *options,
                      fv_error *err)
{
    fv_npu_library_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_npu_library_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    fv_npu *n = fv_alloc_zero(1, sizeof *n);
    if (!n)
        return fv_fail_memory(err, sizeof *n, "a context binary");
    fv_status status = npu_take(n, file, &o, err);
    if (status == FV_OK)
        *out = n;
    else
        fv_npu_close(n);
    return status;
}

void fv_npu_close(fv_npu *npu)
{
    if (!npu)
        return;
    fv_qnn_loaded_close(npu->loaded);
    fv_map_close(&npu->file);
    fv_npu_binary_free(npu->binary);
    fv_region_free(&npu->region);
    fv_free(npu->qnn_dir);
    fv_free(npu->name);
    fv_free(npu);
}

void fv_npu_describe(const fv_npu *npu, fv_npu_shape *out)
{
    if (npu)
        fv_result_out(out, &npu->shape, sizeof npu->shape);
}

/* ---- images ------------------------------------------------------------------------------ */

/* One child for all images; one that has ended is replaced. */
static fv_status npu_load(fv_npu *n, size_t n_pixels, size_t n_tokens,
                          const fv_callbacks *callbacks, fv_error *err)
{
    if (n->loaded && !fv_qnn_loaded_ended(n->loaded))
        return FV_OK;
    fv_qnn_loaded_close(n->loaded);
    n->loaded = NULL;
    fv_qnn_job job = { .dir = n->qnn_dir,
                       .library = FV_QNN_HTP_LIBRARY,
                       .soc_model = n->info.soc_model,
                       .title = n->name,
                       .stage = "npu",
                       .callbacks = callbacks,
                       .binary = n->file.data,
                       .n_binary_bytes = n->file.size,
                       .signature = &n->signature };
    return fv_qnn_loaded_open(&n->loaded, &job, n_pixels, n_tokens, err);
}

fv_status fv_npu_run(fv_npu *npu, const float *pixels, size_t n, float *tokens, double *ms,
                     const fv_callbacks *callbacks, fv_error *err)
{
    fv_callbacks copy;
    double all_ms = 0;
    FV_REQUIRE(npu, err);
    FV_REQUIRE(pixels, err);
    FV_REQUIRE(tokens, err);
    FV_TRY(fv_callbacks_in(&copy, &callbacks, err));
    size_t side = (size_t)npu->shape.image_size, n_pixels = side * side * 3,
           n_tokens = npu->shape.n_rows * npu->shape.d_model;
    for (size_t i = 0; i < n; i++) {
        double image_ms;
        FV_TRY(npu_load(npu, n_pixels, n_tokens, callbacks, err));
        FV_TRY(fv_qnn_loaded_run(npu->loaded, pixels + i * n_pixels, tokens + i * n_tokens,
                                 &image_ms, callbacks, err));
        all_ms += image_ms;
    }
    if (ms && n)
        *ms = all_ms / (double)n;
    return FV_OK;
}

static fv_status npu_encode_pixels(fv_npu *npu, const fv_engine *engine, const fv_image *image,
                                   const fv_encode_options *o, float *pixels, uint8_t *u8,
                                   float *tokens, fv_error *err)
{
    const fv_model *m = &engine->model;
    fv_pool pool = fv_pool_limit(m->pool, o->n_threads);
    fv_recipe recipe = fv_config_recipe(&m->config, o->fit, npu->shape.image_size);
    FV_TRY(
        fv_preprocess(pixels, u8, image, &recipe, npu->shape.image_size, &pool, &m->kernels, err));
    return fv_npu_run(npu, pixels, 1, tokens, NULL, o->callbacks, err);
}

fv_status fv_npu_encode(fv_npu *npu, const fv_engine *engine, const fv_image *image,
                        const fv_encode_options *options, fv_features **out, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_encode_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(npu, err);
    FV_REQUIRE(engine, err);
    FV_REQUIRE(image, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_encode_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (npu->shape.d_model != (size_t)engine->model.config.d_model)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "%s: gives image tokens of %zu numbers; the model's have %d", npu->name,
                       npu->shape.d_model, engine->model.config.d_model);
    size_t n = (size_t)npu->shape.image_size * (size_t)npu->shape.image_size * 3,
           t = npu->shape.n_rows * npu->shape.d_model;
    float *pixels = fv_alloc(n + t, sizeof *pixels);
    uint8_t *u8 = fv_alloc(n, 1);
    fv_status status = pixels && u8
                           ? npu_encode_pixels(npu, engine, image, &o, pixels, u8, pixels + n, err)
                           : fv_fail_memory(err, (n + t) * sizeof *pixels, "an image");
    if (status == FV_OK)
        status = fv_features_new(engine, pixels + n, npu->shape.n_rows, npu->shape.d_model, out,
                                 err);
    fv_free(pixels);
    fv_free(u8);
    return status;
}

/* ---- against f32 ------------------------------------------------------------------------- */

enum { EVAL_IMAGES = 16 }; /* at a time, so that a binary is loaded once for them */

typedef struct npu_eval {
    fv_npu *npu;
    fv_npu_vision vision;
    fv_image_list files;
    const fv_callbacks *callbacks;
    size_t n_pixels, n_tokens, n_total;
    float *pixels, *want, *got; /* of EVAL_IMAGES images */
    uint8_t *u8;
    double signal, noise;
    fv_npu_eval_report report;
} npu_eval;

static void eval_compare(npu_eval *e, const float *want, const float *got)
{
    double cosine = fv_cosine(want, got, e->n_tokens);
    for (size_t i = 0; i < e->n_tokens; i++) {
        double a = (double)want[i], off = a - (double)got[i];
        e->signal += a * a;
        e->noise += off * off;
    }
    e->report.cosine += cosine;
    e->report.least_cosine = fmin(e->report.least_cosine, cosine);
    e->report.n_images++;
}

/* A file as pixels and tokens in f32; *taken false: unreadable. */
static fv_status eval_reference(npu_eval *e, const char *path, size_t slot, bool *taken,
                                fv_error *err)
{
    float *pixels = e->pixels + slot * e->n_pixels;
    FV_TRY(fv_npu_vision_read(&e->vision, path, pixels, e->u8, taken, e->callbacks, err));
    e->report.n_skipped += !*taken;
    return *taken ? fv_npu_vision_run(&e->vision, pixels, e->want + slot * e->n_tokens, NULL, err)
                  : FV_OK;
}

static fv_status eval_images(npu_eval *e, fv_error *err)
{
    double ms = 0;
    for (size_t at = 0; at < e->n_total;) {
        size_t n = 0;
        for (; n < EVAL_IMAGES && at < e->n_total; at++) {
            bool taken;
            FV_TRY(fv_progress(e->callbacks, "reference", (double)at / (double)e->n_total, err));
            FV_TRY(eval_reference(e, e->files.path[at * e->files.n / e->n_total], n, &taken, err));
            n += taken;
        }
        FV_TRY(fv_npu_run(e->npu, e->pixels, n, e->got, &ms, e->callbacks, err));
        for (size_t i = 0; i < n; i++)
            eval_compare(e, e->want + i * e->n_tokens, e->got + i * e->n_tokens);
        e->report.ms += ms * (double)n;
    }
    if (!e->report.n_images)
        return fv_fail(err, FV_ERR_FORMAT, 0, "none of %zu images could be read", e->n_total);
    e->report.cosine /= (double)e->report.n_images;
    e->report.ms /= (double)e->report.n_images;
    e->report.sqnr = e->noise > 0 ? 10 * log10(e->signal / e->noise) : INFINITY;
    return FV_OK;
}

static fv_status eval_open(npu_eval *e, const char *model, const fv_npu_eval_options *o,
                           fv_error *err)
{
    FV_TRY(fv_image_list_collect(&e->files, o->paths, o->n_paths, err));
    e->n_total = o->max_images > 0 ? FV_MIN(e->files.n, (size_t)o->max_images) : e->files.n;
    FV_TRY(fv_npu_vision_open(&e->vision, model, e->npu->shape.image_size, o->callbacks, err));
    e->n_pixels = fv_npu_vision_pixels(&e->vision);
    e->n_tokens = fv_npu_vision_tokens(&e->vision);
    if (e->n_tokens != e->npu->shape.n_rows * e->npu->shape.d_model)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: gives %zu numbers for an image; %s gives %zu",
                       e->npu->name, e->npu->shape.n_rows * e->npu->shape.d_model, model,
                       e->n_tokens);
    e->pixels = fv_alloc(EVAL_IMAGES * e->n_pixels, sizeof *e->pixels);
    e->want = fv_alloc(EVAL_IMAGES * e->n_tokens, sizeof *e->want);
    e->got = fv_alloc(EVAL_IMAGES * e->n_tokens, sizeof *e->got);
    e->u8 = fv_alloc(e->n_pixels, 1);
    return e->pixels && e->want && e->got && e->u8
               ? FV_OK
               : fv_fail_memory(err, EVAL_IMAGES * e->n_pixels * sizeof *e->pixels, "images");
}

fv_status fv_npu_eval(fv_npu *npu, const char *model, const fv_npu_eval_options *options,
                      fv_npu_eval_report *report, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_npu_eval_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(npu, err);
    FV_REQUIRE(model, err);
    FV_REQUIRE(report, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_npu_eval_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(FV_RESULT_CHECK(report, fv_npu_eval_report, err));
    npu_eval e = { .npu = npu,
                   .callbacks = o.callbacks,
                   .report = { .size = sizeof e.report, .least_cosine = 1 } };
    fv_status status = eval_open(&e, model, &o, err);
    if (status == FV_OK)
        status = eval_images(&e, err);
    if (status == FV_OK)
        fv_result_out(report, &e.report, sizeof e.report);
    fv_image_list_free(&e.files);
    fv_npu_vision_close(&e.vision);
    fv_free(e.pixels);
    fv_free(e.want);
    fv_free(e.got);
    fv_free(e.u8);
    return status;
}
