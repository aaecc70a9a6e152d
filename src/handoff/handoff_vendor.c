/* The steps by Qualcomm's tools: 3 and 4 by the AI Hub, 5 and 6 by the SDK's. src/qairt runs them;
 * here is what goes where.
 *
 * The SDK's tools write into the stage, as fastvlm's own steps do. The Hub's part keeps ledgers and
 * continues by itself after an interruption; it writes to the files' places. */
#include <stdio.h>
#include <string.h>

#include "base/outpart.h"
#include "handoff/handoff_run.h"

/* ---- the SDK ---- */

static fv_qairt_options sdk_options(fv_handoff_run *run)
{
    return (fv_qairt_options){ .size = sizeof(fv_qairt_options),
                               .sdk = run->o.sdk,
                               .venv = run->o.venv,
                               .dry_run = run->o.dry_run,
                               .callbacks = &run->stage_callbacks };
}

/* Earlier steps' files are inputs here. A dry run of all steps plans those first. */
static fv_status steps_need(const fv_handoff_run *run, int step, int first, int last, fv_error *err)
{
    for (int i = first; i <= last; i++)
        if (!run->state.step[i - 1].there && !(run->o.dry_run && !run->o.step))
            return fv_fail(err, FV_ERR_STATE, 0,
                           "%s: step %d with Qualcomm's tools needs the files of step %d, which is "
                           "not complete",
                           run->place, step, i);
    return FV_OK;
}

/* In a dry run: files that the commands since the last call make. */
static fv_status commands_plan(fv_handoff_run *run, const char *const *files, size_t n,
                               fv_error *err)
{
    const char *said = run->o.dry_run ? fv_handoff_said(run) : NULL;
    for (size_t i = 0; run->o.dry_run && i < n; i++)
        FV_TRY(fv_handoff_plan(run, files[i], said, err));
    return FV_OK;
}

static fv_status int8_convert(fv_handoff_run *run, fv_error *err)
{
    static const char *const made[] = { FV_QNN_FOLDER "/" FV_INT8_NAME ".bin",
                                        FV_QNN_FOLDER "/" FV_INT8_NAME ".cpp",
                                        FV_QNN_FOLDER "/" FV_INT8_NAME "_net.json" };
    fv_qairt_options sdk = sdk_options(run);
    fv_qairt_convert_options convert = { .size = sizeof convert,
                                         .image_size = run->image_size,
                                         .activation_bits = run->o.vision == FV_NPU_W8A16 ? 16 : 8,
                                         .force = true };
    char *onnx = fv_path_join(run->place, FV_ONNX_FOLDER "/vision_encoder_fp32.onnx");
    char *list = fv_path_join(run->place, FV_CALIB_FOLDER "/input_list.txt"), *dir = NULL;
    convert.input_list = list;
    fv_status status = onnx && list ? fv_handoff_stage_path(run, FV_QNN_FOLDER, &dir, err)
                                    : fv_fail_memory(err, strlen(run->place), "a path");
    if (status == FV_OK)
        status = fv_qairt_convert(onnx, dir, &convert, &sdk, err);
    if (status == FV_OK)
        status = commands_plan(run, made, FV_COUNT(made), err);
    fv_free(onnx);
    fv_free(list);
    fv_free(dir);
    return status;
}

/* The phone's library is not made without an NDK, and not needed. */
static fv_status int8_library(fv_handoff_run *run, fv_error *err)
{
    static const char *const made[] = { FV_INT8_FOLDER "/x86_64-linux-clang/lib" FV_INT8_NAME ".so",
                                        FV_INT8_FOLDER "/aarch64-android/lib" FV_INT8_NAME ".so" };
    fv_qairt_options sdk = sdk_options(run);
    fv_qairt_lib_options lib = { .size = sizeof lib, .force = true };
    char *cpp = NULL, *folder = NULL, *phone = NULL;
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_handoff_stage_path(run, FV_QNN_FOLDER "/" FV_INT8_NAME ".cpp", &cpp, err));
    FV_TRY_GOTO(fv_handoff_stage_path(run, FV_INT8_FOLDER, &folder, err));
    FV_TRY_GOTO(fv_qairt_lib(cpp, folder, &lib, &sdk, err));
    FV_TRY_GOTO(fv_handoff_stage_path(run, made[1], &phone, err));
    bool for_phone = run->o.dry_run ? run->said && strstr(run->said, " aarch64-android ")
                                    : fv_is_file(phone);
    FV_TRY_GOTO(commands_plan(run, made, for_phone ? 2 : 1, err));
    if (!for_phone)
        status = fv_handoff_miss(run, made[1],
                                 "ANDROID_NDK_ROOT is not set; the context binary does not need it",
                                 fv_handoff_again(run, "qairt"), err);
fail:
    fv_free(cpp);
    fv_free(folder);
    fv_free(phone);
    return status;
}

/* The library's and the description's names are the pipeline's, the description's place, too. */
static fv_status int8_compile(fv_handoff_run *run, fv_error *err)
{
    static const char *const made[] = { FV_INT8_FOLDER "/output/backend_extensions.json",
                                        FV_INT8_BINARY, FV_INT8_FOLDER "/output/htp_config.json",
                                        FV_INT8_INFO };
    fv_qairt_options sdk = sdk_options(run);
    fv_qairt_context_options context = { .size = sizeof context, .soc = run->o.soc, .force = true };
    fv_qairt_context_report report = { .size = sizeof report };
    char *built = NULL, *output = NULL, *from = NULL, *to = NULL;
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_handoff_stage_path(
        run, FV_INT8_FOLDER "/x86_64-linux-clang/lib" FV_INT8_NAME ".so", &built, err));
    FV_TRY_GOTO(fv_handoff_stage_path(run, FV_INT8_FOLDER "/output", &output, err));
    FV_TRY_GOTO(fv_qairt_context(built, output, &context, &sdk, &report, err));
    FV_TRY_GOTO(commands_plan(run, made, FV_COUNT(made), err));
    if (run->o.dry_run)
        goto fail;
    FV_TRY_GOTO(fv_handoff_stage_path(run, FV_INT8_INFO, &to, err));
    if (!(from = fv_path_join(output, report.info)))
        status = fv_fail_memory(err, strlen(output), "a path");
    else if (rename(from, to) != 0)
        status = fv_out_errno(err, to, "rename the finished file to this name");
fail:
    fv_free(built);
    fv_free(output);
    fv_free(from);
    fv_free(to);
    return status;
}

static fv_status qairt_int8_make(fv_handoff_run *run, fv_error *err)
{
    FV_TRY(steps_need(run, 5, 1, 2, err));
    FV_TRY(int8_convert(run, err));
    FV_TRY(int8_library(run, err));
    return int8_compile(run, err);
}

static fv_status qairt_genie_make(fv_handoff_run *run, fv_error *err)
{
    static const fv_qairt_quantization kinds[FV_HANDOFF_DECODERS] = { FV_QAIRT_FP32, FV_QAIRT_Z8,
                                                                      FV_QAIRT_Q4 };
    fv_qairt_options sdk = sdk_options(run);
    char *dir;
    FV_TRY(run->o.dry_run ? fv_handoff_genie_plan(run, err) : fv_handoff_genie_files(run, err));
    FV_TRY(fv_handoff_stage_path(run, FV_GENIE_FOLDER, &dir, err));
    fv_status status = FV_OK;
    for (size_t i = 0; status == FV_OK && i < FV_HANDOFF_DECODERS; i++) {
        fv_qairt_compose_options compose = { .size = sizeof compose,
                                             .quantization = kinds[i],
                                             .force = true };
        const char *made = fv_handoff_text(&run->state, FV_GENIE_FOLDER "/%s",
                                           fv_handoff_decoders[i]);
        status = fv_qairt_compose(run->model, dir, &compose, &sdk, err);
        if (status == FV_OK)
            status = commands_plan(run, &made, 1, err);
    }
    fv_free(dir);
    return status;
}

fv_handoff_make_fn *const fv_handoff_qairt[FV_HANDOFF_STEPS] = {
    [4] = qairt_int8_make, [5] = qairt_genie_make
};

/* ---- the AI Hub ---- */

typedef struct hub_place {
    fv_aihub_options o;
    char *onnx, *ledger, *output;
} hub_place;

static void hub_close(hub_place *h)
{
    fv_free(h->onnx);
    fv_free(h->ledger);
    fv_free(h->output);
}

static fv_status hub_open(hub_place *h, const fv_handoff_run *run, fv_error *err)
{
    *h = (hub_place){ .onnx = fv_path_join(run->place, FV_ONNX_FOLDER),
                      .ledger = fv_path_join(run->place, "../handoff"),
                      .output = fv_path_join(run->place, FV_FP16_FOLDER) };
    h->o = (fv_aihub_options){ .size = sizeof h->o,
                               .onnx_dir = h->onnx,
                               .ledger_dir = h->ledger,
                               .output_dir = h->output,
                               .soc = run->o.soc,
                               .qnn_dir = run->o.qnn_dir,
                               .dry_run = run->o.dry_run,
                               .callbacks = run->o.dry_run ? &run->stage_callbacks
                                                           : run->callbacks };
    return h->onnx && h->ledger && h->output ? FV_OK
                                             : fv_fail_memory(err, strlen(run->place), "a path");
}

static fv_status placed_add(fv_handoff_run *run, const char *path, fv_error *err)
{
    fv_handoff_entry e = { .path = path, .placed = true };
    return fv_handoff_add(&run->record, &e, err);
}

static fv_status hub_upload_make(fv_handoff_run *run, fv_error *err)
{
    static const char *const made[] = { FV_HUB_IDS };
    hub_place h;
    FV_TRY(steps_need(run, 3, 1, 1, err));
    fv_status status = hub_open(&h, run, err);
    if (status == FV_OK)
        status = fv_aihub_upload(&h.o, err);
    hub_close(&h);
    FV_TRY(status);
    return run->o.dry_run ? commands_plan(run, made, 1, err) : placed_add(run, FV_HUB_IDS, err);
}

/* The three context binaries, by what the ledger says. */
static fv_status hub_collect(fv_handoff_run *run, const fv_aihub_options *o, fv_error *err)
{
    for (int part = 0; part < FV_AIHUB_PARTS; part++) {
        fv_aihub_item_info item = { .size = sizeof item };
        FV_TRY(fv_aihub_item(&item, (fv_aihub_part)part, o, err));
        const char *name = strrchr(item.file, '/');
        if (!name)
            return fv_fail(err, FV_ERR_IO, 0, "%s: no context binary has come of it", item.name);
        FV_TRY(placed_add(
            run, fv_handoff_text(&run->state, FV_FP16_FOLDER "/%s%s", item.name, name), err));
    }
    return placed_add(run, FV_HUB_JOBS, err);
}

/* The names of jobs are the Hub's. */
static fv_status hub_collect_plan(fv_handoff_run *run, fv_error *err)
{
    const char *made[FV_HANDOFF_GRAPHS];
    for (size_t i = 0; i < FV_HANDOFF_GRAPHS; i++)
        made[i] = fv_handoff_text(&run->state,
                                  FV_FP16_FOLDER "/fastvlm_%s/job_<job>_optimized_bin_<target>.bin",
                                  fv_handoff_graphs[i]);
    return commands_plan(run, made, FV_HANDOFF_GRAPHS, err);
}

static fv_status hub_compile_make(fv_handoff_run *run, fv_error *err)
{
    static const char *const made[] = { FV_HUB_JOBS };
    hub_place h;
    FV_TRY(steps_need(run, 4, 3, 3, err));
    fv_status status = hub_open(&h, run, err);
    if (status == FV_OK)
        status = fv_aihub_compile(&h.o, err);
    if (status == FV_OK)
        status = commands_plan(run, made, 1, err);
    if (status == FV_OK)
        status = fv_aihub_download(&h.o, err);
    if (status == FV_OK)
        status = run->o.dry_run ? hub_collect_plan(run, err) : hub_collect(run, &h.o, err);
    hub_close(&h);
    return status;
}

fv_handoff_make_fn *const fv_handoff_hub[FV_HANDOFF_STEPS] = {
    [2] = hub_upload_make, [3] = hub_compile_make
};
