/* checkpoint -> vision encoder, embedding and decoder as ONNX files. */
#include <stdio.h>
#include <string.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/report.h"
#include "fastvlm_tools.h"
#include "model/precision.h"
#include "onnx/onnx_backend.h"
#include "onnx/onnx_js.h"
#include "onnx/onnx_plan.h"
#include "onnx/onnx_write.h"

enum { WHOLE = FV_ONNX_VISION | FV_ONNX_EMBED | FV_ONNX_DECODER };

typedef struct onnx_export {
    fv_onnx_plan plan;
    fv_model model;
    char dir[4096], shown[4096]; /* the folder being filled; where it will be */
    const fv_callbacks *callbacks;
    unsigned outside; /* the parts whose weights are in a file of their own */
} onnx_export;

static fv_status part_write(onnx_export *x, const fv_onnx_file *file, fv_error *err)
{
    const fv_onnx_options *s = &x->plan.s;
    fv_graph part;
    fv_onnx_graph g;
    bool outside = false;
    fv_graph_begin(&part, file->name, err);
    fv_onnx_plan_graph(&x->plan, &part, file->part, &x->model.config, &x->model.weights);
    fv_onnx_begin(&g, file->name, x->plan.spec.real, s->opset, s->ops == FV_ONNX_FUSED, err);
    g.qdq = s->qdq;
    fv_status status = fv_onnx_lower(&g, &part);
    if (status == FV_OK)
        status = fv_onnx_write(&g, x->dir, x->shown, file->name, s->external_data,
                               &x->model.kernels, x->callbacks, &outside, err);
    x->outside |= outside ? file->part : 0;
    fv_onnx_end(&g);
    fv_graph_end(&part);
    return status;
}

/* The files' names say in which type values are stored, not how exact they are. */
static void rounded_warn(const onnx_export *x)
{
    const fv_weights *w = &x->model.weights;
    unsigned parts = x->plan.s.parts;
    fv_type decoder = w->decoder.layer[0].q.type;
    bool int8 = parts & FV_ONNX_VISION && !x->plan.s.qdq &&
                fv_vision_has_int8(&x->model.config, &w->vision, true);
    bool blocks = parts & FV_ONNX_DECODER && fv_type_is_block(decoder);
    if (int8 || blocks)
        fv_log(x->callbacks, FV_LOG_WARNING,
               "%s: the weights are packed (%s%s%s%s); the graphs hold the rounded values, only a "
               "checkpoint gives exact ones",
               x->model.name, int8 ? "encoder int8" : "", int8 && blocks ? ", " : "",
               blocks ? "decoder " : "",
               blocks ? fv_precision_type_name(decoder, FV_PART_DECODER) : "");
}

fv_status fv_export_onnx(const char *model, const fv_onnx_options *onnx, const char *dir,
                         const fv_export_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_export_options o;
    fv_callbacks callbacks;
    onnx_export x = { .callbacks = &callbacks };
    fv_outdir out = { 0 };
    fv_status status = FV_OK;
    FV_REQUIRE(model, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(fv_onnx_plan_begin(&x.plan, onnx, err));
    FV_TRY(fv_model_open(&x.model, model,
                         &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = o.callbacks },
                         err));
    if (x.plan.s.qdq && !fv_vision_has_int8(&x.model.config, &x.model.weights.vision, false)) {
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "%s: the encoder is not in int8, no layer group of it; qdq needs one "
                         "that is",
                         model);
        goto fail;
    }
    fv_onnx_plan_end(&x.plan, &x.model.config, fv_tokenizer_size(x.model.tokenizer),
                     fv_onnx_js_image_token(&x.model));
    rounded_warn(&x);
    bool js = x.plan.s.target == FV_ONNX_TRANSFORMERS_JS && x.plan.s.parts == WHOLE;
    const char *folder = x.plan.folder, *slash = *folder ? "/" : "";
    FV_TRY_GOTO(fv_outdir_open(&out, dir, o.force, o.callbacks, err));
    if (*folder)
        FV_TRY_GOTO(fv_outdir_sub(&out, folder, err));
    snprintf(x.shown, sizeof x.shown, "%s%s%s", out.place, slash, folder);
    if (snprintf(x.dir, sizeof x.dir, "%s%s%s", out.stage, slash, folder) >= (int)sizeof x.dir) {
        status = fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", dir);
        goto fail;
    }
    for (size_t i = 0; i < x.plan.n_files; i++)
        FV_TRY_GOTO(part_write(&x, &x.plan.file[i], err));
    if (js)
        FV_TRY_GOTO(
            fv_onnx_js_files(&x.model, x.plan.spec.real == FV_TYPE_F16, x.outside, out.stage, err));
    FV_TRY_GOTO(fv_outdir_commit(&out, err));
    if (js)
        fv_log(o.callbacks, FV_LOG_INFO,
               "%s: config.json, generation_config.json, tokenizer and processor files", dir);
fail:
    fv_outdir_abandon(&out);
    fv_model_close(&x.model);
    return status;
}
