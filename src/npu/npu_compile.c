/* Model -> context binary and its description. See fastvlm_npu.h. */
#include <stdio.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/number.h"
#include "base/outfile.h"
#include "base/sized.h"
#include "image/image_list.h"
#include "npu/npu_decoder.h"
#include "npu/npu_embed.h"
#include "npu/npu_selfcheck.h"
#include "npu/npu_socs.h"
#include "npu/npu_vision.h"
#include "npu/qnn_job.h"
#include "npu/qnn_system.h"

static const char *const part_names[] = { "vision", "decoder", "embed" };
static const char *const precision_names[] = { "w8a16", "w8a8", "mixed", "f16" };

/* What a part can be compiled in. */
static const struct {
    const char *text;
    unsigned can; /* bits 1 << precision */
} part_precisions[] = {
    { "w8a16, w8a8, mixed or f16", ~0u },
    { "w8a16 or f16", 1u << FV_NPU_W8A16 | 1u << FV_NPU_F16 },
    { "w8a16, w8a8 or f16", 1u << FV_NPU_W8A16 | 1u << FV_NPU_W8A8 | 1u << FV_NPU_F16 },
};

typedef struct npu_compile {
    fv_npu_compile_options o;
    fv_callbacks callbacks;
    fv_npu_soc_info soc;
    fv_npu_vision vision;
    fv_npu_decoder decoder;
    fv_npu_embed embed;
    const fv_npu_plan *plans[2]; /* of the part */
    size_t n_plans;
    const fv_kernels *kernels;
    fv_outdir out;
    char *qnn_dir, *path; /* of the libraries; of the binary in the stage */
    char name[64];        /* "vision_w8a16_sm8750" */
    fv_npu_compile_report report;
} npu_compile;

static fv_status compile_check(npu_compile *c, fv_error *err)
{
    const fv_npu_compile_options *o = &c->o;
    const char *soc = o->soc ? o->soc : "sm8750";
    FV_TRY(fv_npu_soc_take(&c->soc, soc, err));
    if ((unsigned)o->precision >= FV_COUNT(precision_names))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "precision is %d; expected a FV_NPU_ constant",
                       (int)o->precision);
    if ((unsigned)o->part >= FV_COUNT(part_names))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "part is %d; expected a FV_NPU_ constant",
                       (int)o->part);
    if (!(part_precisions[o->part].can >> o->precision & 1))
        return fv_fail(
            err, FV_ERR_ARGUMENT, 0, "precision is %s; the part %s can be compiled in %s",
            precision_names[o->precision], part_names[o->part], part_precisions[o->part].text);
    if (o->unshared && o->part != FV_NPU_DECODER)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "unshared: the part %s is one graph",
                       part_names[o->part]);
    if (o->cache_len < 0 || o->cache_len > 32768)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "cache_len is %d; expected 0 to 32768",
                       o->cache_len);
    if (o->image_size % 64 || o->image_size < 0 || o->image_size > 4096)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of 64 up to 4096, or 0",
                       o->image_size);
    size_t n = (size_t)snprintf(c->name, sizeof c->name, "%s_%s_%s%s", part_names[o->part],
                                precision_names[o->precision], c->soc.name,
                                o->unshared ? "_unshared" : "");
    for (size_t i = 0; i < n; i++)
        c->name[i] = fv_ascii_lower(c->name[i]);
    return FV_OK;
}

/* The model and the images, before Qualcomm's libraries are looked for. */
static fv_status inputs_check(const npu_compile *c, const char *model, fv_error *err)
{
    const fv_model_options options = { .depth = FV_MODEL_TEXT };
    fv_image_list list;
    fv_model m;
    FV_TRY(fv_model_open(&m, model, &options, err));
    fv_model_close(&m);
    fv_status status = fv_image_list_collect(&list, c->o.paths, c->o.n_paths, err);
    fv_image_list_free(&list);
    return status;
}

/* Binaries of several chips and precisions lie in one directory; only the same name is replaced. */
static fv_status names_check(const npu_compile *c, const char *dir, fv_error *err)
{
    static const char *const endings[] = { ".bin", "_ctx_info.json" };
    fv_status status = FV_OK;
    for (size_t i = 0; i < FV_COUNT(endings) && !c->o.force && status == FV_OK; i++) {
        char file[96];
        snprintf(file, sizeof file, "%s%s", c->name, endings[i]);
        char *path = fv_path_join(dir, file);
        if (!path)
            status = fv_fail_memory(err, strlen(dir), "a path");
        else if (fv_is_file(path))
            status = fv_fail(err, FV_ERR_IO, 0,
                             "%s: there is such a file already; choose another directory, or allow "
                             "files of the same names to be replaced",
                             path);
        fv_free(path);
    }
    return status;
}

static fv_status compile_vision(npu_compile *c, const char *model,
                                const fv_calibrate_options *calibrate, fv_error *err)
{
    FV_TRY(fv_npu_vision_open(&c->vision, model, c->o.image_size, c->o.callbacks, err));
    if (c->o.precision == FV_NPU_F16)
        FV_TRY(fv_npu_selfcheck(c->qnn_dir, &c->soc, &c->vision.ops, c->o.callbacks, err));
    FV_TRY(fv_npu_vision_plan(&c->vision, c->o.precision, c->o.min_cosine, calibrate, err));
    c->report.share_8x8 = fv_npu_plan_share(&c->vision.plan);
    c->report.n_images = c->vision.seen.n;
    c->report.synthetic_images = c->vision.seen.synthetic;
    c->plans[c->n_plans++] = &c->vision.plan;
    c->kernels = &c->vision.model.kernels;
    return FV_OK;
}

static fv_status compile_decoder(npu_compile *c, const char *model,
                                 const fv_calibrate_options *calibrate, fv_error *err)
{
    FV_TRY(fv_npu_decoder_open(&c->decoder, model, c->o.cache_len, c->o.callbacks, err));
    FV_TRY(fv_npu_decoder_plan(&c->decoder, c->o.precision, calibrate, err));
    c->report.n_images = c->decoder.seen.n;
    c->report.synthetic_images = c->decoder.seen.synthetic;
    for (size_t i = 0; i < 2; i++)
        c->plans[c->n_plans++] = &c->decoder.plan[i];
    c->kernels = &c->decoder.model.kernels;
    return FV_OK;
}

static fv_status compile_embed(npu_compile *c, const char *model, fv_error *err)
{
    FV_TRY(fv_npu_embed_open(&c->embed, model, c->o.precision, c->o.callbacks, err));
    c->plans[c->n_plans++] = &c->embed.plan;
    c->kernels = &c->embed.model.kernels;
    return FV_OK;
}

static fv_status compile_plan(npu_compile *c, const char *model, fv_error *err)
{
    const fv_calibrate_options calibrate = { .paths = c->o.paths,
                                             .n_paths = c->o.n_paths,
                                             .max_images = c->o.max_images,
                                             .callbacks = c->o.callbacks };
    double start = fv_now_ms();
    switch (c->o.part) {
    case FV_NPU_VISION: FV_TRY(compile_vision(c, model, &calibrate, err)); break;
    case FV_NPU_DECODER: FV_TRY(compile_decoder(c, model, &calibrate, err)); break;
    case FV_NPU_EMBED: FV_TRY(compile_embed(c, model, err)); break;
    }
    c->report.calibrate_ms = fv_now_ms() - start;
    return FV_OK;
}

static fv_status compile_binary(npu_compile *c, fv_error *err)
{
    fv_qnn_outcome made;
    char file[80];
    snprintf(file, sizeof file, "%s.bin", c->name);
    if (!(c->path = fv_path_join(c->out.stage, file)))
        return fv_fail_memory(err, strlen(c->out.stage), "a path");
    fv_qnn_job job = { .dir = c->qnn_dir,
                       .library = FV_QNN_HTP_LIBRARY,
                       .soc_model = c->soc.soc_model,
                       .title = file,
                       .stage = "compile",
                       .callbacks = c->o.callbacks,
                       .plans = c->plans,
                       .n_plans = c->n_plans,
                       .kernels = c->kernels,
                       .model = { .f16 = c->o.precision == FV_NPU_F16 },
                       .share_weights = c->n_plans > 1 && !c->o.unshared,
                       .binary_path = c->path };
    FV_TRY(fv_qnn_job_run(&made, &job, err));
    fv_npu_compile_report *r = &c->report;
    snprintf(r->file, sizeof r->file, "%.63s", file);
    memcpy(r->build, made.library, sizeof r->build);
    r->file_bytes = made.binary_bytes;
    r->peak_bytes = made.peak_bytes;
    r->build_ms = made.build_ms;
    r->compile_ms = made.compile_ms;
    r->n_nodes = made.n_nodes;
    r->n_tensors = made.n_tensors;
    r->n_converts = made.n_converts;
    r->n_transposes = made.n_transposes;
    r->n_floats = made.n_floats;
    fv_qnn_outcome_free(&made);
    return FV_OK;
}

/* NAME_ctx_info.json, as libQnnSystem reads the binary back. */
static fv_status compile_describe(npu_compile *c, fv_error *err)
{
    fv_npu_library_options o = { .size = sizeof o,
                                 .qnn_dir = c->qnn_dir,
                                 .callbacks = c->o.callbacks };
    fv_npu_binary *binary;
    fv_npu_graph_info graph = { .size = sizeof graph };
    char file[96];
    FV_TRY(fv_npu_binary_open(&binary, c->path, &o, err));
    for (size_t i = 0; fv_npu_binary_graph(binary, i, &graph); i++) /* they run one at a time */
        c->report.spill_fill_bytes = FV_MAX(c->report.spill_fill_bytes, graph.spill_fill_bytes);
    snprintf(file, sizeof file, "%s_ctx_info.json", c->name);
    char *path = fv_path_join(c->out.stage, file);
    const char *json = fv_npu_binary_json(binary);
    fv_status status = path ? fv_outfile_put(path, json, strlen(json), err)
                            : fv_fail_memory(err, strlen(c->out.stage), "a path");
    fv_free(path);
    fv_npu_binary_free(binary);
    return status;
}

fv_status fv_npu_compile(const char *model, const char *dir, const fv_npu_compile_options *options,
                         fv_npu_compile_report *report, fv_error *err)
{
    FV_DEFAULT_FPENV;
    npu_compile c = { .report.size = sizeof c.report };
    const char *by;
    fv_status status;
    FV_REQUIRE(model, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&c.o, fv_npu_compile_options, options, err));
    FV_TRY(fv_callbacks_in(&c.callbacks, &c.o.callbacks, err));
    if (report)
        FV_TRY(FV_RESULT_CHECK(report, fv_npu_compile_report, err));
    FV_TRY(compile_check(&c, err));
    FV_TRY_GOTO(names_check(&c, dir, err));
    FV_TRY_GOTO(inputs_check(&c, model, err));
    FV_TRY_GOTO(fv_qnn_find(&c.qnn_dir, &by, c.o.qnn_dir, err));
    FV_TRY_GOTO(fv_outdir_open(&c.out, dir, true, c.o.callbacks, err));
    FV_TRY_GOTO(compile_plan(&c, model, err));
    FV_TRY_GOTO(compile_binary(&c, err));
    FV_TRY_GOTO(compile_describe(&c, err));
    FV_TRY_GOTO(fv_outdir_commit(&c.out, err));
    fv_result_out(report, &c.report, sizeof c.report);
fail:
    fv_outdir_abandon(&c.out);
    fv_npu_vision_close(&c.vision);
    fv_npu_decoder_close(&c.decoder);
    fv_npu_embed_close(&c.embed);
    fv_free(c.qnn_dir);
    fv_free(c.path);
    return status;
}
