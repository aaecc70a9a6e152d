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

#define ONNX_DIR    "fastvlm-onnx-fp32"
#define CALIB_DIR   "fastvlm-calib-raw"
#define FP16_DIR    "fastvlm-qaihub-fp16-context"
#define QNN_DIR     "fastvlm-qnn-int8"
#define GENIE_DIR   "fastvlm-genie"
#define INT8_DIR    GENIE_DIR "/local_context/vision_int8_qnnmodel"
#define INT8_MODEL  "vision_encoder_int8_qnnmodel"
#define INT8_BINARY INT8_DIR "/output/fastvlm_vision_encoder_int8_htp.bin"
#define INT8_INFO   INT8_DIR "/vision_int8_ctx_info.json"
#define HUB_IDS     "../handoff/qaihub-model-ids.txt"
#define HUB_JOBS    "../handoff/qaihub-fp16-jobs.txt"

enum { N_NOISE = 8, N_SAMPLES = 8 }; /* as many as the pipeline's script takes */

/* The pipeline's names of the graphs: NAME.onnx is a file, "fastvlm_" NAME the Hub's name. */
static const char *const graph_names[] = { "vision_encoder_fp32", "embed_tokens_fp32",
                                           "decoder_fixed_kv_fp32" };

/* ---- what the steps say ---- */

static fv_status missing_add(fv_handoff_run *run, const char *path, const char *reason,
                             const char *command, fv_error *err)
{
    fv_handoff_entry e = { .path = path, .reason = reason, .command = command };
    return fv_handoff_add(&run->record, &e, err);
}

static fv_status planned_add(fv_handoff_run *run, const char *path, fv_error *err)
{
    fv_handoff_entry e = { .path = path };
    return fv_handoff_add(&run->record, &e, err);
}

/* A word of a command as a shell reads it back. */
static const char *shell_word(fv_handoff_run *run, const char *word)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "-_./:,=+@%";
    char text[4200];
    size_t n = 0;
    if (*word && strspn(word, safe) == strlen(word))
        return word;
    text[n++] = '\'';
    for (; *word && n + 6 < sizeof text; word++) {
        if (*word == '\'')
            n += (size_t)snprintf(text + n, sizeof text - n, "'\\''");
        else
            text[n++] = *word;
    }
    text[n++] = '\'';
    return fv_handoff_text(&run->state, "%.*s", (int)n, text);
}

/* A file of the handoff in a command: its absolute path. */
static const char *place_word(fv_handoff_run *run, const char *path)
{
    const char *whole = fv_handoff_text(&run->state, "%s/%s", run->place, path);
    return whole ? shell_word(run, whole) : NULL;
}

/* Where a file of the stage goes; its folders are made. To fv_free. */
static fv_status stage_path(fv_handoff_run *run, const char *name, char **path, fv_error *err)
{
    size_t n_made;
    if (!(*path = fv_path_join(run->out.stage, name)))
        return fv_fail_memory(err, strlen(name), "a path");
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
        for (size_t i = 0; i < FV_COUNT(graph_names); i++)
            FV_TRY(planned_add(
                run, fv_handoff_text(&run->state, ONNX_DIR "/%s.onnx", graph_names[i]), err));
        return FV_OK;
    }
    fv_onnx_options_default(&s);
    s.image_size = run->o.image_size;
    FV_TRY(stage_path(run, ONNX_DIR, &dir, err));
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
        FV_TRY(planned_add(run, CALIB_DIR "/input_list.txt", err));
        return planned_add(run, CALIB_DIR "/sample_*.raw", err);
    }
    fv_calib_options_default(&s);
    s.paths = run->o.paths;
    s.n_paths = run->o.n_paths;
    s.n_random = s.n_paths ? 0 : run->o.max_images ? run->o.max_images : N_NOISE;
    s.max_samples = s.n_random ? 0 : run->o.max_images ? run->o.max_images : N_SAMPLES;
    s.image_size = run->image_size;
    FV_TRY(stage_path(run, CALIB_DIR, &dir, err));
    s.list_root = fv_handoff_text(&run->state, "%s/" CALIB_DIR, run->place);
    fv_status status = fv_export_calib_for(&run->recipe, &s, dir, &into, NULL, err);
    fv_free(dir);
    return status;
}

/* ---- 3: the AI Hub ---- */

static const char *upload_command(fv_handoff_run *run, const char *graph)
{
    char file[128];
    snprintf(file, sizeof file, ONNX_DIR "/%s.onnx", graph);
    return fv_handoff_text(&run->state, "qai-hub upload-model --model %s --name fastvlm_%s",
                           place_word(run, file), graph);
}

static fv_status upload_make(fv_handoff_run *run, fv_error *err)
{
    const char *all = fv_handoff_text(
        &run->state, "%s && %s && %s", upload_command(run, graph_names[0]),
        upload_command(run, graph_names[1]), upload_command(run, graph_names[2]));
    return missing_add(run, HUB_IDS,
                       "the AI Hub gives these ids to an account; context binaries that are "
                       "compiled here need none",
                       all, err);
}

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
    FV_TRY(stage_path(run, ".compile", &scratch, err));
    fv_status status = fv_npu_compile(run->model, scratch, o, &report, &why);
    if (status == FV_ERR_UNSUPPORTED) {
        fv_free(scratch);
        return missing_add(run, otherwise, fv_handoff_text(&run->state, "%s", why.message), command,
                           err);
    }
    if (status != FV_OK) {
        fv_fail(err, status, why.at, "%s", why.message);
        goto fail;
    }
    snprintf(name, sizeof name, "%.*s_ctx_info.json", (int)strcspn(report.file, "."), report.file);
    from[0] = fv_path_join(scratch, report.file);
    from[1] = fv_path_join(scratch, name);
    FV_TRY_GOTO(stage_path(run, binary, &to[0], err));
    FV_TRY_GOTO(stage_path(run, info, &to[1], err));
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

static const char *hub_compile_command(fv_handoff_run *run, const char *graph)
{
    return fv_handoff_text(
        &run->state,
        "qai-hub submit-compile-job --model MODEL_ID --device 'Snapdragon 8 Elite QRD' --device-os "
        "15 --name fastvlm_%s_qnn_context_fp16 --compile_options ' --target_runtime "
        "qnn_context_binary --quantize_full_type float16 --truncate_64bit_io' --wait",
        graph);
}

static fv_status fp16_make(fv_handoff_run *run, fv_error *err)
{
    static const fv_npu_part parts[] = { FV_NPU_VISION, FV_NPU_EMBED, FV_NPU_DECODER };
    for (size_t i = 0; i < FV_COUNT(graph_names); i++) {
        fv_npu_compile_options o;
        fv_npu_compile_options_default(&o);
        o.precision = FV_NPU_F16;
        o.part = parts[i];
        const char *name = graph_names[i], *command = hub_compile_command(run, name);
        const char *folder = fv_handoff_text(&run->state, FP16_DIR "/fastvlm_%s", name);
        const char *binary = fv_handoff_text(&run->state, "%s/job_native_optimized_bin_%s.bin",
                                             folder, run->soc_name);
        const char *hub = fv_handoff_text(&run->state, "%s/job_<job>_optimized_bin_<target>.bin",
                                          folder);
        const char *info = i == 0 ? FP16_DIR "/vision_ctx_info_unified.json"
                                  : fv_handoff_text(&run->state,
                                                    "%s/job_native_optimized_bin_%s_ctx_info.json",
                                                    folder, run->soc_name);
        if (!folder || !binary || !hub || !info || !command)
            return fv_fail_memory(err, 1, "a path");
        if (!*run->qnn_build)
            FV_TRY(missing_add(run, hub, run->qnn_problem, command, err));
        else if (run->o.dry_run)
            FV_TRY(planned_add(run, binary, err));
        else
            FV_TRY(binary_make(run, &o, binary, info, hub, command, err));
    }
    return missing_add(
        run, HUB_JOBS,
        "a record of the AI Hub's jobs; context binaries that are compiled here have "
        "none",
        NULL, err);
}

/* ---- 5: the int8 vision encoder ---- */

static const char *converter_command(fv_handoff_run *run)
{
    return fv_handoff_text(
        &run->state,
        "qnn-onnx-converter --input_network %s --input_dim pixel_values 1,3,%d,%d --input_layout "
        "pixel_values NCHW --input_list %s --act_bitwidth 8 --weights_bitwidth 8 --bias_bitwidth 8 "
        "--act_quantizer tf --act_quantizer_calibration min-max --act_quantizer_schema asymmetric "
        "--param_quantizer_calibration min-max --param_quantizer_schema asymmetric "
        "--float_bitwidth 32 --float_bias_bitwidth 32 --out_node image_features -o %s",
        place_word(run, ONNX_DIR "/vision_encoder_fp32.onnx"), run->image_size, run->image_size,
        place_word(run, CALIB_DIR "/input_list.txt"), place_word(run, QNN_DIR "/" INT8_MODEL));
}

static const char *library_command(fv_handoff_run *run)
{
    return fv_handoff_text(&run->state,
                           "qnn-model-lib-generator -c %s -b %s -t aarch64-android "
                           "x86_64-linux-clang -l " INT8_MODEL " -o %s",
                           place_word(run, QNN_DIR "/" INT8_MODEL ".cpp"),
                           place_word(run, QNN_DIR "/" INT8_MODEL ".bin"),
                           place_word(run, INT8_DIR));
}

static fv_status int8_make(fv_handoff_run *run, fv_error *err)
{
    static const char *const converted[] = { QNN_DIR "/" INT8_MODEL ".cpp",
                                             QNN_DIR "/" INT8_MODEL ".bin" };
    static const char *const libraries[] = { INT8_DIR "/aarch64-android/lib" INT8_MODEL ".so",
                                             INT8_DIR "/x86_64-linux-clang/lib" INT8_MODEL ".so" };
    fv_npu_compile_options o;
    fv_npu_compile_options_default(&o);
    o.precision = run->o.vision;
    o.paths = run->o.paths;
    o.n_paths = run->o.n_paths;
    o.max_images = run->o.max_images;
    if (!*run->qnn_build)
        FV_TRY(missing_add(run, INT8_BINARY, run->qnn_problem, NULL, err));
    else if (run->o.dry_run) {
        FV_TRY(planned_add(run, INT8_BINARY, err));
        FV_TRY(planned_add(run, INT8_INFO, err));
    } else
        FV_TRY(binary_make(run, &o, INT8_BINARY, INT8_INFO, INT8_BINARY, NULL, err));
    for (size_t i = 0; i < FV_COUNT(converted); i++)
        FV_TRY(missing_add(run, converted[i],
                           "only Qualcomm's converter writes it (QAIRT SDK); the context binary "
                           "that is compiled here does not need it",
                           converter_command(run), err));
    for (size_t i = 0; i < FV_COUNT(libraries); i++)
        FV_TRY(missing_add(run, libraries[i],
                           "only Qualcomm's generator builds it (QAIRT SDK); the context binary "
                           "that is compiled here does not need it",
                           library_command(run), err));
    return FV_OK;
}

/* ---- 6: Genie's decoder ---- */

static const char *composer_command(fv_handoff_run *run, const char *file, const char *quantize)
{
    char path[128];
    snprintf(path, sizeof path, GENIE_DIR "/%s", file);
    return fv_handoff_text(&run->state,
                           "qnn-genai-transformer-composer --model %s --config_file %s --outfile "
                           "%s --dump_lut --export_tokenizer_json%s%s",
                           shell_word(run, run->model),
                           place_word(run, GENIE_DIR "/genie_model.json"), place_word(run, path),
                           *quantize ? " --quantize " : "", quantize);
}

static fv_status genie_make(fv_handoff_run *run, fv_error *err)
{
    static const char *const decoders[][2] = { { "fastvlm_model.bin", "" },
                                               { "fastvlm_model_z8.bin", "Z8" },
                                               { "fastvlm_model_q4.bin", "Q4" } };
    fv_export_options into = into_stage(run);
    char *dir = NULL, *lut = NULL, *tokenizer = NULL;
    fv_status status = FV_OK;
    if (run->o.dry_run) {
        FV_TRY(planned_add(run, GENIE_DIR "/LUT.bin", err));
        FV_TRY(planned_add(run, GENIE_DIR "/tokenizer.json", err));
        FV_TRY(planned_add(run, GENIE_DIR "/genie_model.json", err));
    } else {
        FV_TRY_GOTO(stage_path(run, GENIE_DIR, &dir, err));
        FV_TRY_GOTO(fv_export_genie(run->model, NULL, dir, &into, err));
        FV_TRY_GOTO(stage_path(run, GENIE_DIR "/LUT.bin", &lut, err));
        FV_TRY_GOTO(fv_export_lut(run->model, lut, &into, err));
        FV_TRY_GOTO(stage_path(run, GENIE_DIR "/tokenizer.json", &tokenizer, err));
        FV_TRY_GOTO(fv_export_tokenizer(run->model, tokenizer, &into, err));
    }
    for (size_t i = 0; i < FV_COUNT(decoders); i++)
        FV_TRY_GOTO(missing_add(
            run, fv_handoff_text(&run->state, GENIE_DIR "/%s", decoders[i][0]),
            "only Qualcomm's composer writes Genie's own format (QAIRT SDK); on the phone fastvlm "
            "decodes from the model itself",
            composer_command(run, decoders[i][0], decoders[i][1]), err));
fail:
    fv_free(dir);
    fv_free(lut);
    fv_free(tokenizer);
    return status;
}

/* ---- all of them ---- */

fv_handoff_make_fn *const fv_handoff_make[FV_HANDOFF_STEPS] = { export_make, calibrate_make,
                                                                upload_make, fp16_make,
                                                                int8_make,   genie_make };

const char *fv_handoff_depends(fv_handoff_run *run, int i)
{
    const fv_handoff_options *o = &run->o;
    switch (i) {
    case 0: return fv_handoff_text(&run->state, "image %d", run->image_size);
    case 1:
        return fv_handoff_text(&run->state, "image %d images %s of %d in %s", run->image_size,
                               run->images, o->max_images, run->place);
    case 3:
        return fv_handoff_text(&run->state, "image %d soc %s qnn %s", run->image_size,
                               run->soc_name, run->qnn_build);
    case 4:
        return fv_handoff_text(&run->state, "image %d images %s of %d soc %s precision %d qnn %s",
                               run->image_size, run->images, o->max_images, run->soc_name,
                               (int)o->vision, run->qnn_build);
    default: return "";
    }
}
