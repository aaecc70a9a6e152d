/* Layer by layer: the NPU's values against f32, on its emulator. See fastvlm_npu.h.
 *
 * Values become outputs of the graph, as many at a time as memory allows: a graph is compiled for
 * each piece. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/report.h"
#include "base/sized.h"
#include "image/image_list.h"
#include "npu/npu_socs.h"
#include "npu/npu_vision.h"
#include "npu/qnn_job.h"
#include "quant/depth_plot.h"

enum { PIECE_VALUES = 48 << 20 }; /* numbers of an image that are outputs at a time */

/* What is known of a value, over all images. */
typedef struct layer_sums {
    double aa, bb, ab, off; /* a: f32, b: the NPU's */
} layer_sums;

struct fv_npu_layers {
    fv_npu_layer_info *info;
    char **name; /* of each, to fv_free */
    size_t n, n_images, n_skipped;
    fv_npu_precision precision;
};

typedef struct layers_run {
    fv_npu_layers *out;
    fv_npu_vision vision;
    fv_image_list files;
    fv_npu_soc_info soc;
    char *qnn_dir;
    const fv_callbacks *callbacks;
    size_t n_total;    /* images to run */
    size_t *listed;    /* [out->n] indices of the values that are compared, in order */
    layer_sums *sums;  /* [out->n] */
    bool *show;        /* by index of the value: in the current piece */
    const float **got; /* by index of the value: what the NPU made of it; NULL: not shown */
    float *pixels;
    uint8_t *u8;
    double done; /* of all pieces and images */
    fv_error *err;
} layers_run;

/* ---- which values ------------------------------------------------------------------------ */

/* What a GELU reads is seen in what it makes of it. */
static bool value_is_listed(const fv_value *v)
{
    return fv_qnn_can_show(v) && v->type == FV_TYPE_F32 &&
           !(v->n_uses == 1 && v->last_use->op == FV_OP_GELU);
}

static double value_macs(const fv_value *v)
{
    const fv_node *n = v->from;
    double macs = v == n->out ? fv_npu_macs(n) : 0;
    return n->op == FV_OP_GELU ? macs + fv_npu_macs(n->in[0]->from) : macs;
}

static fv_status layers_list(layers_run *r)
{
    const fv_graph *g = &r->vision.graph;
    fv_npu_layers *out = r->out;
    out->info = fv_alloc_zero(g->n_values, sizeof *out->info);
    out->name = fv_alloc_zero(g->n_values, sizeof *out->name);
    r->listed = fv_alloc(g->n_values, sizeof *r->listed);
    r->sums = fv_alloc_zero(g->n_values, sizeof *r->sums);
    r->show = fv_alloc_zero(g->n_values, sizeof *r->show);
    r->got = fv_alloc_zero(g->n_values, sizeof *r->got);
    if (!out->info || !out->name || !r->listed || !r->sums || !r->show || !r->got)
        return fv_fail_memory(r->err, g->n_values * sizeof *out->info, "layers");
    for (size_t i = 0; i < g->n_values; i++) {
        const fv_value *v = g->value[i];
        if (!value_is_listed(v))
            continue;
        unsigned width = r->vision.plan.width[v->index];
        if (!(out->name[out->n] = fv_strdup(v->name)))
            return fv_fail_memory(r->err, strlen(v->name), "a name");
        out->info[out->n] = (fv_npu_layer_info){ .size = sizeof *out->info,
                                                 .name = out->name[out->n],
                                                 .bits = width == FV_NPU_FLOAT ? 0 : width,
                                                 .macs = value_macs(v) };
        r->listed[out->n++] = i;
    }
    return FV_OK;
}

/* ---- comparing --------------------------------------------------------------------------- */

/* fv_graph_observer.value */
static fv_status layer_compare(void *user, const fv_value *v, const float *want)
{
    layers_run *r = user;
    const float *got = r->got[v->index];
    if (!got)
        return FV_OK;
    size_t at = 0;
    while (r->listed[at] != v->index)
        at++;
    layer_sums *s = &r->sums[at];
    for (size_t i = 0; i < fv_value_elems(v); i++) {
        double a = (double)want[i], b = (double)got[i];
        s->aa += a * a;
        s->bb += b * b;
        s->ab += a * b;
        s->off += (a - b) * (a - b);
    }
    return FV_OK;
}

static fv_status layers_image(layers_run *r, fv_qnn_loaded *loaded, float *values)
{
    const fv_graph_observer observer = { .user = r, .value = layer_compare, .inner = true };
    float *tokens = values; /* not asked for, but in front */
    FV_TRY(fv_progress(r->callbacks, "layers", r->done, r->err));
    FV_TRY(fv_qnn_loaded_run(loaded, r->pixels, values, NULL, r->callbacks, r->err));
    const float *at = tokens + fv_npu_vision_tokens(&r->vision);
    for (size_t i = 0; i < r->vision.graph.n_values; i++) {
        r->got[i] = r->show[i] ? at : NULL;
        at += r->show[i] ? fv_value_elems(r->vision.graph.value[i]) : 0;
    }
    return fv_npu_vision_run(&r->vision, r->pixels, tokens, &observer, r->err);
}

/* All images, one after the other, with this piece's values as outputs. */
static fv_status layers_piece(layers_run *r, size_t n_values, double share)
{
    fv_npu_vision *v = &r->vision;
    const fv_npu_plan *plans[] = { &v->plan };
    size_t n_out = fv_npu_vision_tokens(v) + n_values;
    float *values = fv_alloc(n_out, sizeof *values);
    fv_qnn_loaded *loaded = NULL;
    fv_qnn_job job = { .dir = r->qnn_dir,
                       .library = FV_QNN_HTP_LIBRARY,
                       .soc_model = r->soc.soc_model,
                       .title = "layers",
                       .stage = "npu",
                       .callbacks = r->callbacks,
                       .plans = plans,
                       .n_plans = 1,
                       .kernels = &v->model.kernels,
                       .model = { .f16 = r->out->precision == FV_NPU_F16, .show = r->show } };
    fv_status status = values ? FV_OK : fv_fail_memory(r->err, n_out * sizeof *values, "values");
    if (status == FV_OK)
        status = fv_qnn_loaded_open(&loaded, &job, fv_npu_vision_pixels(v), n_out, r->err);
    r->out->n_images = r->out->n_skipped = 0;
    for (size_t i = 0; i < r->n_total && status == FV_OK; i++) {
        bool taken;
        const char *path = r->files.path[i * r->files.n / r->n_total];
        status = fv_npu_vision_read(v, path, r->pixels, r->u8, &taken, r->callbacks, r->err);
        if (status == FV_OK && taken)
            status = layers_image(r, loaded, values);
        r->out->n_images += taken;
        r->out->n_skipped += !taken;
        r->done += share / (double)r->n_total;
    }
    fv_qnn_loaded_close(loaded);
    fv_free(values);
    if (status == FV_OK && !r->out->n_images)
        status = fv_fail(r->err, FV_ERR_FORMAT, 0, "none of %zu images could be read", r->n_total);
    return status;
}

static fv_status layers_pieces(layers_run *r)
{
    const fv_graph *g = &r->vision.graph;
    double all = 0;
    for (size_t i = 0; i < r->out->n; i++)
        all += (double)fv_value_elems(g->value[r->listed[i]]);
    for (size_t i = 0; i < r->out->n;) {
        size_t n = 0;
        memset(r->show, 0, g->n_values * sizeof *r->show);
        do {
            r->show[r->listed[i]] = true;
            n += fv_value_elems(g->value[r->listed[i++]]);
        } while (i < r->out->n && n + fv_value_elems(g->value[r->listed[i]]) <= PIECE_VALUES);
        FV_TRY(layers_piece(r, n, (double)n / all));
    }
    for (size_t i = 0; i < r->out->n; i++) {
        const layer_sums *s = &r->sums[i];
        r->out->info[i].cosine = s->aa > 0 && s->bb > 0 ? s->ab / sqrt(s->aa * s->bb)
                                                        : (s->off > 0 ? 0 : 1);
        r->out->info[i].sqnr = s->off > 0 ? 10 * log10(s->aa / s->off) : INFINITY;
    }
    return FV_OK;
}

/* ---- the whole --------------------------------------------------------------------------- */

static fv_status layers_open(layers_run *r, const char *model, const fv_npu_compile_options *c,
                             const fv_npu_eval_options *o)
{
    const char *soc = c->soc ? c->soc : "sm8750", *by;
    fv_calibrate_options calibrate = { .paths = c->paths,
                                       .n_paths = c->n_paths,
                                       .max_images = c->max_images,
                                       .callbacks = o->callbacks };
    FV_TRY(fv_npu_soc_take(&r->soc, soc, r->err));
    FV_TRY(fv_qnn_find(&r->qnn_dir, &by, c->qnn_dir, r->err));
    FV_TRY(fv_image_list_collect(&r->files, o->paths, o->n_paths, r->err));
    r->n_total = o->max_images > 0 ? FV_MIN(r->files.n, (size_t)o->max_images) : r->files.n;
    FV_TRY(fv_npu_vision_open(&r->vision, model, c->image_size, o->callbacks, r->err));
    FV_TRY(fv_npu_vision_plan(&r->vision, c->precision, c->min_cosine, &calibrate, r->err));
    r->pixels = fv_alloc(fv_npu_vision_pixels(&r->vision), sizeof *r->pixels);
    r->u8 = fv_alloc(fv_npu_vision_pixels(&r->vision), 1);
    if (!r->pixels || !r->u8)
        return fv_fail_memory(r->err, fv_npu_vision_pixels(&r->vision) * 5, "an image");
    return FV_OK;
}

fv_status fv_npu_layers_run(fv_npu_layers **out, const char *model,
                            const fv_npu_compile_options *compile,
                            const fv_npu_eval_options *images, fv_error *err)
{
    FV_DEFAULT_FPENV;
    layers_run r = { .err = err };
    fv_npu_compile_options c;
    fv_npu_eval_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(model, err);
    FV_TRY(FV_OPTIONS_IN(&c, fv_npu_compile_options, compile, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_npu_eval_options, images, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (c.precision < FV_NPU_W8A16 || c.precision > FV_NPU_F16)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "precision is %d; expected a FV_NPU_ constant",
                       (int)c.precision);
    r.callbacks = o.callbacks;
    r.out = fv_alloc_zero(1, sizeof *r.out);
    fv_status status = r.out ? FV_OK : fv_fail_memory(err, sizeof *r.out, "layers");
    if (status == FV_OK) {
        r.out->precision = c.precision;
        status = layers_open(&r, model, &c, &o);
    }
    if (status == FV_OK)
        status = layers_list(&r);
    if (status == FV_OK)
        status = layers_pieces(&r);
    if (status == FV_OK)
        *out = r.out;
    else
        fv_npu_layers_free(r.out);
    fv_image_list_free(&r.files);
    fv_npu_vision_close(&r.vision);
    fv_free(r.qnn_dir);
    fv_free(r.listed);
    fv_free(r.sums);
    fv_free(r.show);
    fv_free(r.got);
    fv_free(r.pixels);
    fv_free(r.u8);
    return status;
}

void fv_npu_layers_free(fv_npu_layers *layers)
{
    if (!layers)
        return;
    for (size_t i = 0; i < layers->n; i++)
        fv_free(layers->name[i]);
    fv_free(layers->name);
    fv_free(layers->info);
    fv_free(layers);
}

size_t fv_npu_layers_images(const fv_npu_layers *layers) { return layers ? layers->n_images : 0; }

bool fv_npu_layers_at(const fv_npu_layers *layers, size_t index, fv_npu_layer_info *out)
{
    if (!layers || index >= layers->n || !out || !out->size)
        return false;
    fv_result_out(out, &layers->info[index], sizeof layers->info[index]);
    return true;
}

fv_status fv_npu_layers_plot(const fv_npu_layers *layers, const char *file, fv_error *err)
{
    FV_DEFAULT_FPENV;
    static const char *const names[] = { "w8a16", "w8a8", "mixed", "f16" };
    FV_REQUIRE(layers, err);
    FV_REQUIRE(file, err);
    char title[80];
    fv_depth_point *points = fv_alloc(layers->n, sizeof *points);
    if (!points)
        return fv_fail_memory(err, layers->n * sizeof *points, "a plot");
    for (size_t i = 0; i < layers->n; i++) {
        const fv_npu_layer_info *a = &layers->info[i];
        points[i] = (fv_depth_point){ a->name, { a->sqnr, NAN } };
    }
    int n = snprintf(title, sizeof title, "SQNR by depth: the encoder on the NPU's emulator in %s",
                     names[layers->precision]);
    fv_depth_plot plot = { .title = title,
                           .n_title_bytes = (size_t)n,
                           .n_images = layers->n_images,
                           .line = { names[layers->precision], "" },
                           .points = points,
                           .n = layers->n };
    fv_status status = fv_depth_plot_put(&plot, file, err);
    fv_free(points);
    return status;
}
