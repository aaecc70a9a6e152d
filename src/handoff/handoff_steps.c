/* The six steps, by fastvlm itself.
 *
 *     1 export     fastvlm-onnx-fp32/       three ONNX graphs
 *     2 calibrate  fastvlm-calib-raw/       images, or noise, as raw tensors
 *     3 upload     ../handoff/              the AI Hub's ids of the graphs: an account's, not ours
 *     4 fp16       fastvlm-qaihub-fp16-context/
 *     5 int8       fastvlm-qnn-int8/, fastvlm-genie/local_context/vision_int8_qnnmodel/
 *     6 genie      fastvlm-genie/           tables and configurations of Genie's decoder
 *
 * Every name is the reference Qualcomm pipeline's, as its later steps look for it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/outpart.h"
#include "base/report.h"
#include "export/calib_export.h"
#include "handoff/handoff_run.h"

enum { N_NOISE = 8, N_SAMPLES = 8 }; /* as many as the pipeline's script takes */

const char *const fv_handoff_graphs[FV_HANDOFF_GRAPHS] = { "vision_encoder_fp32",
                                                           "embed_tokens_fp32",
                                                           "decoder_fixed_kv_fp32" };
const char *const fv_handoff_decoders[FV_HANDOFF_DECODERS] = { "fastvlm_model.bin",
                                                               "fastvlm_model_z8.bin",
                                                               "fastvlm_model_q4.bin" };

/* ---- what the steps say ---- */

fv_status fv_handoff_miss(fv_handoff_run *run, const char *path, const char *reason,
                          const char *command, fv_error *err)
{
    fv_handoff_entry e = { .path = path, .reason = reason, .command = command };
    return fv_handoff_add(&run->record, &e, err);
}

fv_status fv_handoff_plan(fv_handoff_run *run, const char *path, const char *command, fv_error *err)
{
    fv_handoff_entry e = { .path = path, .command = command };
    return fv_handoff_add(&run->record, &e, err);
}

fv_status fv_handoff_stage_path(fv_handoff_run *run, const char *name, char **path, fv_error *err)
{
    size_t n_made;
    if (!(*path = fv_path_join(run->o.dry_run ? run->place : run->out.stage, name)))
        return fv_fail_memory(err, strlen(name), "a path");
    if (run->o.dry_run)
        return FV_OK;
    fv_status status = fv_out_make_parents(*path, &n_made, err);
    if (status != FV_OK) {
        fv_free(*path);
        *path = NULL;
    }
    return status;
}

static fv_export_options into_stage(fv_handoff_run *run)
{
    return (fv_export_options){ .size = sizeof(fv_export_options),
                                .force = true,
                                .callbacks = &run->stage_callbacks };
}

/* ---- 1: ONNX graphs ---- */

static fv_status export_make(fv_handoff_run *run, fv_error *err)
{
    fv_export_options into = into_stage(run);
    fv_onnx_options s;
    char *dir;
    if (run->o.dry_run) {
        for (size_t i = 0; i < FV_COUNT(fv_handoff_graphs); i++)
            FV_TRY(fv_handoff_plan(
                run, fv_handoff_text(&run->state, FV_ONNX_FOLDER "/%s.onnx", fv_handoff_graphs[i]),
                NULL, err));
        return FV_OK;
    }
    fv_onnx_options_default(&s);
    s.image_size = run->o.image_size;
    FV_TRY(fv_handoff_stage_path(run, FV_ONNX_FOLDER, &dir, err));
    fv_status status = fv_export_onnx(run->model, &s, dir, &into, err);
    fv_free(dir);
    return status;
}

/* ---- 2: calibration samples ---- */

static fv_status calibrate_make(fv_handoff_run *run, fv_error *err)
{
    fv_export_options into = into_stage(run);
    fv_calib_options s;
    char *dir;
    if (run->o.dry_run) {
        FV_TRY(fv_handoff_plan(run, FV_CALIB_FOLDER "/calib.json", NULL, err));
        FV_TRY(fv_handoff_plan(run, FV_CALIB_FOLDER "/input_list.txt", NULL, err));
        return fv_handoff_plan(run, FV_CALIB_FOLDER "/sample_*.raw", NULL, err);
    }
    fv_calib_options_default(&s);
    s.paths = run->o.paths;
    s.n_paths = run->o.n_paths;
    s.n_random = s.n_paths ? 0 : run->o.max_images ? run->o.max_images : N_NOISE;
    s.max_samples = s.n_random ? 0 : run->o.max_images ? run->o.max_images : N_SAMPLES;
    s.image_size = run->image_size;
    FV_TRY(fv_handoff_stage_path(run, FV_CALIB_FOLDER, &dir, err));
    s.list_root = fv_handoff_text(&run->state, "%s/" FV_CALIB_FOLDER, run->place);
    fv_status status = fv_export_calib_for(&run->recipe, &s, dir, &into, NULL, err);
    fv_free(dir);
    return status;
}

/* ---- 3: the AI Hub ---- */

static fv_status upload_make(fv_handoff_run *run, fv_error *err)
{
    return fv_handoff_miss(run, FV_HUB_IDS,
                           "the AI Hub gives these ids to an account; context binaries that are "
                           "compiled here need none",
                           fv_handoff_again(run, "hub"), err);
}

static const char setup[] = "fastvlm npu setup";

/* ---- context binaries, by Qualcomm's libraries ---- */

/* Compiles; the binary and its description get these names. A model that the NPU does not take is
 * not an error, but a reason why `otherwise`, which command would make, is missing. */
static fv_status binary_make(fv_handoff_run *run, fv_npu_compile_options *o, const char *binary,
                             const char *info, const char *otherwise, const char *command,
                             fv_error *err)
{
    fv_npu_compile_report report = { .size = sizeof report };
    char *scratch, *from[2] = { NULL, NULL }, *to[2] = { NULL, NULL }, name[128];
    fv_error why = { 0 };
    o->soc = run->o.soc;
    o->qnn_dir = run->o.qnn_dir;
    o->image_size = o->part == FV_NPU_VISION ? run->o.image_size : 0;
    o->force = true;
    o->callbacks = &run->stage_callbacks;
    FV_TRY(fv_handoff_stage_path(run, ".compile", &scratch, err));
    fv_status status = fv_npu_compile(run->model, scratch, o, &report, &why);
    if (status == FV_ERR_UNSUPPORTED) {
        fv_free(scratch);
        return fv_handoff_miss(run, otherwise, fv_handoff_text(&run->state, "%s", why.message),
                               command, err);
    }
    if (status != FV_OK) {
        fv_fail(err, status, why.at, "%s", why.message);
        goto fail;
    }
    snprintf(name, sizeof name, "%.*s_ctx_info.json", (int)strcspn(report.file, "."), report.file);
    from[0] = fv_path_join(scratch, report.file);
    from[1] = fv_path_join(scratch, name);
    FV_TRY_GOTO(fv_handoff_stage_path(run, binary, &to[0], err));
    FV_TRY_GOTO(fv_handoff_stage_path(run, info, &to[1], err));
    for (int i = 0; status == FV_OK && i < 2; i++)
        if (!from[i])
            status = fv_fail_memory(err, strlen(scratch), "a path");
        else if (rename(from[i], to[i]) != 0)
            status = fv_out_errno(err, to[i], "rename the finished file to this name");
    if (status == FV_OK)
        rmdir(scratch);
fail:
    for (int i = 0; i < 2; i++) {
        fv_free(from[i]);
        fv_free(to[i]);
    }
    fv_free(scratch);
    return status;
}

/* ---- 4: fp16 ---- */

static fv_status fp16_make(fv_handoff_run *run, fv_error *err)
{
    static const fv_npu_part parts[] = { FV_NPU_VISION, FV_NPU_EMBED, FV_NPU_DECODER };
    for (size_t i = 0; i < FV_COUNT(fv_handoff_graphs); i++) {
        fv_npu_compile_options o;
        fv_npu_compile_options_default(&o);
        o.precision = FV_NPU_F16;
        o.part = parts[i];
        const char *name = fv_handoff_graphs[i], *command = fv_handoff_again(run, "hub");
        const char *folder = fv_handoff_text(&run->state, FV_FP16_FOLDER "/fastvlm_%s", name);
        const char *binary = fv_handoff_text(&run->state, "%s/job_native_optimized_bin_%s.bin",
                                             folder, run->soc_name);
        const char *hub = fv_handoff_text(&run->state, "%s/job_<job>_optimized_bin_<target>.bin",
                                          folder);
        const char *info = i == 0 ? FV_FP16_FOLDER "/vision_ctx_info_unified.json"
                                  : fv_handoff_text(&run->state,
                                                    "%s/job_native_optimized_bin_%s_ctx_info.json",
                                                    folder, run->soc_name);
        if (!folder || !binary || !hub || !info || !command)
            return fv_fail_memory(err, 1, "a path");
        if (!*run->qnn_build)
            FV_TRY(fv_handoff_miss(run, hub, run->qnn_problem, setup, err));
        else if (!run->o.dry_run)
            FV_TRY(binary_make(run, &o, binary, info, hub, command, err));
        else {
            FV_TRY(fv_handoff_plan(run, binary, NULL, err));
            FV_TRY(fv_handoff_plan(run, info, NULL, err));
        }
    }
    return fv_handoff_miss(
        run, FV_HUB_JOBS,
        "a record of the AI Hub's jobs; context binaries that are compiled here have "
        "none",
        fv_handoff_again(run, "hub"), err);
}

/* ---- 5: the int8 vision encoder ---- */

static fv_status int8_make(fv_handoff_run *run, fv_error *err)
{
    static const char *const converted[] = { FV_QNN_FOLDER "/" FV_INT8_NAME ".cpp",
                                             FV_QNN_FOLDER "/" FV_INT8_NAME ".bin" };
    static const char *const libraries[] = { FV_INT8_FOLDER "/aarch64-android/lib" FV_INT8_NAME
                                                            ".so",
                                             FV_INT8_FOLDER "/x86_64-linux-clang/lib" FV_INT8_NAME
                                                            ".so" };
    const char *with_sdk = fv_handoff_again(run, "qairt");
    fv_npu_compile_options o;
    fv_npu_compile_options_default(&o);
    o.precision = run->o.vision;
    o.paths = run->o.paths;
    o.n_paths = run->o.n_paths;
    o.max_images = run->o.max_images;
    if (!*run->qnn_build) {
        FV_TRY(fv_handoff_miss(run, FV_INT8_BINARY, run->qnn_problem, setup, err));
        FV_TRY(fv_handoff_miss(run, FV_INT8_INFO, run->qnn_problem, setup, err));
    } else if (run->o.dry_run) {
        FV_TRY(fv_handoff_plan(run, FV_INT8_BINARY, NULL, err));
        FV_TRY(fv_handoff_plan(run, FV_INT8_INFO, NULL, err));
    } else
        FV_TRY(binary_make(run, &o, FV_INT8_BINARY, FV_INT8_INFO, FV_INT8_BINARY, NULL, err));
    for (size_t i = 0; i < FV_COUNT(converted); i++)
        FV_TRY(
            fv_handoff_miss(run, converted[i],
                            "only Qualcomm's converter writes it (QAIRT SDK); the context binary "
                            "that is compiled here does not need it",
                            with_sdk, err));
    for (size_t i = 0; i < FV_COUNT(libraries); i++)
        FV_TRY(
            fv_handoff_miss(run, libraries[i],
                            "only Qualcomm's generator builds it (QAIRT SDK); the context binary "
                            "that is compiled here does not need it",
                            with_sdk, err));
    return FV_OK;
}

/* ---- 6: Genie's decoder ---- */

fv_status fv_handoff_genie_files(fv_handoff_run *run, fv_error *err)
{
    fv_export_options into = into_stage(run);
    char *dir = NULL, *lut = NULL, *tokenizer = NULL;
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_handoff_stage_path(run, FV_GENIE_FOLDER, &dir, err));
    FV_TRY_GOTO(fv_export_genie(run->model, NULL, dir, &into, err));
    FV_TRY_GOTO(fv_handoff_stage_path(run, FV_GENIE_FOLDER "/LUT.bin", &lut, err));
    FV_TRY_GOTO(fv_export_lut(run->model, lut, &into, err));
    FV_TRY_GOTO(fv_handoff_stage_path(run, FV_GENIE_FOLDER "/tokenizer.json", &tokenizer, err));
    FV_TRY_GOTO(fv_export_tokenizer(run->model, tokenizer, &into, err));
fail:
    fv_free(dir);
    fv_free(lut);
    fv_free(tokenizer);
    return status;
}

fv_status fv_handoff_genie_plan(fv_handoff_run *run, fv_error *err)
{
    static const char *const made[] = { FV_GENIE_FOLDER "/LUT.bin",
                                        FV_GENIE_FOLDER "/genie_dialog.json",
                                        FV_GENIE_FOLDER "/genie_dialog_htp.json",
                                        FV_GENIE_FOLDER "/genie_model.json",
                                        FV_GENIE_FOLDER "/htp_backend.json",
                                        FV_GENIE_FOLDER "/tokenizer.json" };
    for (size_t i = 0; i < FV_COUNT(made); i++)
        FV_TRY(fv_handoff_plan(run, made[i], NULL, err));
    return FV_OK;
}

static fv_status genie_make(fv_handoff_run *run, fv_error *err)
{
    const char *command = fv_is_dir(run->model) ? fv_handoff_again(run, "qairt")
                                                : "fastvlm export hf";
    FV_TRY(run->o.dry_run ? fv_handoff_genie_plan(run, err) : fv_handoff_genie_files(run, err));
    for (size_t i = 0; i < FV_HANDOFF_DECODERS; i++)
        FV_TRY(fv_handoff_miss(
            run, fv_handoff_text(&run->state, FV_GENIE_FOLDER "/%s", fv_handoff_decoders[i]),
            "only Qualcomm's composer writes Genie's own format (QAIRT SDK); on the phone fastvlm "
            "decodes from the model itself",
            command, err));
    return FV_OK;
}

/* ---- all of them ---- */

fv_handoff_make_fn *const fv_handoff_native[FV_HANDOFF_STEPS] = { export_make, calibrate_make,
                                                                  upload_make, fp16_make,
                                                                  int8_make,   genie_make };

const char *fv_handoff_depends(fv_handoff_run *run, int i, const char *way, bool builds)
{
    const fv_handoff_options *o = &run->o;
    bool native = !strcmp(way, "native");
    int tool_bits = o->vision == FV_NPU_W8A16 ? 16 : 8;
    const char *build = native && builds ? run->qnn_build : "";
    switch (i) {
    case 0: return fv_handoff_text(&run->state, "image %d", run->image_size);
    case 1:
        return fv_handoff_text(&run->state, "image %d images %s of %d in %s", run->image_size,
                               run->images, o->max_images, run->place);
    case 3:
        return fv_handoff_text(&run->state, "%s image %d soc %s qnn %s", way, run->image_size,
                               run->soc_name, build);
    case 4:
        return fv_handoff_text(&run->state,
                               "%s image %d images %s of %d soc %s precision %d qnn %s", way,
                               run->image_size, run->images, o->max_images, run->soc_name,
                               native ? (int)o->vision : tool_bits, build);
    default: return way;
    }
}
