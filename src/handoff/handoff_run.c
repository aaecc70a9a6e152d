/* Six steps into one directory, and the manifest that lets them go on. See fastvlm_handoff.h.
 *
 * A step fills a stage beside the directory and writes the manifest as it will be into the same
 * stage; both move in together or not at all (base/outfile.h). Whenever the process ends, the
 * manifest says exactly which steps are complete. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/number.h"
#include "base/outpart.h"
#include "base/report.h"
#include "base/sha256.h"
#include "base/sized.h"
#include "handoff/handoff_run.h"
#include "image/image_list.h"
#include "model/model.h"
#include "npu/npu_socs.h"

/* ---- what the run is about ---- */

static fv_status handoff_check(fv_handoff_run *run, fv_error *err)
{
    const fv_handoff_options *o = &run->o;
    const char *soc = o->soc ? o->soc : "sm8750";
    if (o->with & ~(unsigned)(FV_HANDOFF_QAIRT | FV_HANDOFF_HUB))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "with has unknown flags");
    if (o->step < 0 || o->step > FV_HANDOFF_STEPS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "step is %d; expected 0 to %d", o->step,
                       FV_HANDOFF_STEPS);
    FV_TRY(fv_npu_soc_take(&run->soc, soc, err));
    for (size_t i = 0; run->soc.name[i] && i < sizeof run->soc_name - 1; i++)
        run->soc_name[i] = fv_ascii_lower(run->soc.name[i]);
    if (o->vision != FV_NPU_W8A16 && o->vision != FV_NPU_W8A8 && o->vision != FV_NPU_MIXED)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "vision is %d; expected FV_NPU_W8A16, FV_NPU_W8A8 or FV_NPU_MIXED",
                       (int)o->vision);
    if (o->image_size % 64 || o->image_size < 0 || o->image_size > 4096)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of 64 up to 4096, or 0",
                       o->image_size);
    if (o->max_images < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "max_images is %d; expected 0 or more",
                       o->max_images);
    return FV_OK;
}

/* One hash over names, sizes and times: photos are many, and whoever changes one changes these. */
static fv_status images_identify(fv_handoff_run *run, fv_error *err)
{
    fv_image_list files = { 0 };
    fv_sha256 sha;
    uint8_t digest[FV_SHA256_BYTES];
    if (!run->o.n_paths)
        return FV_OK;
    fv_status status = fv_image_list_collect(&files, run->o.paths, run->o.n_paths, err);
    fv_sha256_begin(&sha);
    for (size_t i = 0; status == FV_OK && i < files.n; i++) {
        struct stat st = { 0 };
        char line[128];
        if (stat(files.path[i], &st) != 0)
            status = fv_fail(err, FV_ERR_IO, 0, "%s: %s", files.path[i], strerror(errno));
        int n = snprintf(line, sizeof line, "\t%lld\t%lld\n", (long long)st.st_size,
                         (long long)st.st_mtime);
        fv_sha256_add(&sha, files.path[i], strlen(files.path[i]));
        fv_sha256_add(&sha, line, (size_t)n);
    }
    fv_sha256_end(&sha, digest);
    if (status == FV_OK)
        fv_hex(run->images, digest, sizeof digest);
    fv_image_list_free(&files);
    return status;
}

static fv_status model_look(fv_handoff_run *run, fv_error *err)
{
    fv_model s;
    FV_TRY(fv_model_open(&s, run->model,
                         &(fv_model_options){ .depth = FV_MODEL_TEXT, .callbacks = run->callbacks },
                         err));
    run->image_size = run->o.image_size ? run->o.image_size : s.config.image_size;
    run->recipe = fv_config_recipe(&s.config, FV_FIT_AUTO, run->image_size);
    fv_model_close(&s);
    return FV_OK;
}

/* Are there Qualcomm's libraries? Not having them is no error. */
static fv_status libraries_look(fv_handoff_run *run, fv_error *err)
{
    fv_npu_library_options o = { .size = sizeof o,
                                 .qnn_dir = run->o.qnn_dir,
                                 .callbacks = run->callbacks };
    fv_npu_library_info info = { .size = sizeof info };
    fv_error why = { 0 };
    fv_status status = fv_npu_check(&info, &o, &why);
    if (status == FV_ERR_CANCELLED || status == FV_ERR_MEMORY)
        return fv_fail(err, status, 0, "%s", why.message);
    if (status == FV_OK && info.htp && info.system)
        snprintf(run->qnn_build, sizeof run->qnn_build, "%s", info.build);
    else
        snprintf(run->qnn_problem, sizeof run->qnn_problem, "%s",
                 status != FV_OK ? why.message
                 : info.htp      ? info.system_problem
                                 : info.htp_problem);
    return FV_OK;
}

static fv_status place_find(fv_handoff_run *run, const char *dir, fv_error *err)
{
    char here[PATH_MAX], *joined = NULL;
    if (*dir != '/' && !getcwd(here, sizeof here))
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot be expressed as an absolute path", dir);
    joined = *dir == '/' ? fv_strdup(dir) : fv_path_join(here, dir);
    run->place = joined ? fv_out_path(joined, "") : NULL;
    fv_free(joined);
    return run->place ? FV_OK : fv_fail_memory(err, strlen(dir), "a path");
}

/* Puts right what a run that was killed has left, before anything of it is believed. */
static fv_status place_recover(fv_handoff_run *run, fv_error *err)
{
    if (!fv_is_dir(run->place))
        return FV_OK;
    FV_TRY(fv_outdir_open(&run->out, run->place, true, run->callbacks, err));
    fv_outdir_abandon(&run->out);
    return FV_OK;
}

/* ---- a step ---- */

/* How this run makes step i, and what makes it so. */
static const char *step_way(const fv_handoff_run *run, int i, fv_handoff_make_fn **make)
{
    if (run->o.with & FV_HANDOFF_QAIRT && (*make = fv_handoff_qairt[i]))
        return "qairt";
    if (run->o.with & FV_HANDOFF_HUB && (*make = fv_handoff_hub[i]))
        return "hub";
    *make = fv_handoff_native[i];
    return "native";
}

static const char *step_key(fv_handoff_run *run, int i, const char *way)
{
    fv_sha256 sha;
    uint8_t digest[FV_SHA256_BYTES];
    char hex[FV_HASH_TEXT];
    const char *depends = fv_handoff_depends(run, i, way);
    const char *text = depends ? fv_handoff_text(&run->state, "fastvlm %s\nmodel %s\n%s\n",
                                                 fv_version(), run->source.sha256, depends)
                               : NULL;
    if (!text)
        return NULL;
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, text, strlen(text));
    fv_sha256_end(&sha, digest);
    fv_hex(hex, digest, sizeof digest);
    return fv_handoff_text(&run->state, "%s", hex);
}

/* path under folder as an entry with its hash. */
static fv_status entry_hash(fv_handoff_run *run, fv_handoff_entry *e, const char *folder,
                            fv_error *err)
{
    char hex[FV_HASH_TEXT], *path = fv_path_join(folder, e->path);
    fv_status status = path ? fv_file_hash(hex, &e->n_bytes, path, "hash", run->callbacks, err)
                            : fv_fail_memory(err, strlen(e->path), "a path");
    fv_free(path);
    FV_TRY(status);
    if (!(e->sha256 = fv_handoff_text(&run->state, "%s", hex)))
        return fv_fail_memory(err, sizeof hex, "a hash");
    return FV_OK;
}

/* A file that this run cannot make may be there, made by a tool. */
static fv_status found_look(fv_handoff_run *run, fv_handoff_entry *e, fv_error *err)
{
    char *path;
    FV_TRY(fv_handoff_find(run->place, e->path, &path, err));
    if (!path)
        return FV_OK;
    e->path = fv_handoff_text(&run->state, "%s", path);
    e->found = true;
    fv_free(path);
    return e->path ? entry_hash(run, e, run->place, err) : fv_fail_memory(err, 1, "a path");
}

/* Files that an earlier run made for this step and this one does not: gone, so that what is there
 * is what the manifest lists. */
static void stale_remove(const fv_handoff_run *run, int i)
{
    const fv_handoff_record *old = &run->state.step[i];
    for (size_t k = 0; k < old->n; k++) {
        const fv_handoff_entry *e = &old->entry[k];
        bool again = !e->sha256 || e->found;
        for (size_t m = 0; m < run->record.n && !again; m++)
            again = run->record.entry[m].sha256 && !strcmp(run->record.entry[m].path, e->path);
        char *path = again ? NULL : fv_path_join(run->place, e->path);
        if (path)
            unlink(path);
        fv_free(path);
    }
}

/* The stage's files come in front of what is missing, which the step has noted already. */
static fv_status record_complete(fv_handoff_run *run, int i, fv_error *err)
{
    fv_handoff_record noted = run->record;
    fv_file_list files = { 0 };
    run->record = (fv_handoff_record){ 0 };
    fv_status status = fv_file_list_collect(&files, run->out.stage, true, err);
    for (size_t k = 0; status == FV_OK && k < files.n; k++) {
        fv_handoff_entry e = { .path = fv_handoff_text(&run->state, "%s", files.name[k]) };
        status = entry_hash(run, &e, run->out.stage, err);
        if (status == FV_OK)
            status = fv_handoff_add(&run->record, &e, err);
    }
    if (status == FV_OK)
        stale_remove(run, i);
    for (size_t k = 0; status == FV_OK && k < noted.n; k++)
        status = noted.entry[k].placed ? entry_hash(run, &noted.entry[k], run->place, err)
                                       : found_look(run, &noted.entry[k], err);
    for (int missing = 0; missing < 2; missing++)
        for (size_t k = 0; status == FV_OK && k < noted.n; k++)
            if ((noted.entry[k].sha256 == NULL) == (missing == 1))
                status = fv_handoff_add(&run->record, &noted.entry[k], err);
    fv_file_list_free(&files);
    fv_handoff_forget(&noted);
    return status;
}

static fv_status manifest_write(fv_handoff_run *run, fv_error *err)
{
    fv_json_text j = { 0 };
    char *path = fv_path_join(run->out.stage, "manifest.json");
    fv_json_begin(&j, NULL, '{');
    fv_json_put_text(&j, "fastvlm", fv_version());
    fv_source_put(&j, &run->source);
    fv_json_put_text(&j, "soc", run->soc_name);
    fv_json_put_int(&j, "image_size", run->image_size);
    fv_handoff_put_steps(&j, &run->state);
    fv_json_end(&j);
    fv_status status = fv_json_done(&j, err);
    if (status == FV_OK)
        status = path ? fv_outfile_put(path, j.text, j.n, err)
                      : fv_fail_memory(err, strlen(run->place), "a path");
    fv_free(path);
    fv_json_text_free(&j);
    return status;
}

static fv_status step_make(fv_handoff_run *run, int i, fv_error *err)
{
    fv_handoff_make_fn *make;
    const char *way = step_way(run, i, &make), *key = step_key(run, i, way);
    fv_status status = FV_OK;
    if (!key)
        return fv_fail_memory(err, FV_HASH_TEXT, "a hash");
    FV_TRY(fv_outdir_open(&run->out, run->place, true, run->callbacks, err));
    run->staged = (fv_staged){ .folder = run->out.stage, .callbacks = run->callbacks };
    run->stage_callbacks = fv_staged_callbacks(&run->staged);
    FV_TRY_GOTO(make(run, err));
    FV_TRY_GOTO(record_complete(run, i, err));
    run->record.there = true;
    run->record.way = way;
    run->record.key = key;
    fv_handoff_forget(&run->state.step[i]);
    run->state.step[i] = run->record;
    run->record = (fv_handoff_record){ 0 };
    FV_TRY_GOTO(manifest_write(run, err));
    return fv_outdir_commit(&run->out, err);
fail:
    fv_outdir_abandon(&run->out);
    fv_handoff_forget(&run->record);
    return status;
}

static fv_status step_tell(const fv_handoff_record *r, int i, const char *way, bool kept, double ms,
                           fv_handoff_step_fn *fn, void *user, fv_error *err)
{
    fv_handoff_step step = { .size = sizeof step,
                             .step = i + 1,
                             .name = fv_handoff_names[i],
                             .way = way,
                             .kept = kept,
                             .ms = ms };
    if (!fn)
        return FV_OK;
    fv_handoff_file *files = fv_alloc_zero(r->n, sizeof *files);
    if (!files)
        return fv_fail_memory(err, r->n * sizeof *files, "the files of a step");
    for (size_t k = 0; k < r->n; k++) {
        const fv_handoff_entry *e = &r->entry[k];
        files[k] = (fv_handoff_file){ .path = e->path,
                                      .n_bytes = e->n_bytes,
                                      .sha256 = e->sha256,
                                      .reason = e->found ? "it was there" : e->reason,
                                      .command = e->found ? NULL : e->command };
        step.n_files += e->sha256 != NULL;
        step.n_missing += e->sha256 == NULL;
    }
    step.file = files;
    fn(user, &step);
    fv_free(files);
    return FV_OK;
}

/* Is the step complete? What a tool of Qualcomm's made is so for a run without that tool, too. */
static fv_status step_is_kept(fv_handoff_run *run, int i, bool *kept, fv_error *err)
{
    const fv_handoff_record *r = &run->state.step[i];
    fv_handoff_make_fn *make;
    const char *way = step_way(run, i, &make);
    *kept = false;
    if (!r->there || (strcmp(way, "native") && strcmp(way, r->way)))
        return FV_OK;
    const char *key = step_key(run, i, r->way);
    if (!key)
        return fv_fail_memory(err, FV_HASH_TEXT, "a hash");
    return strcmp(r->key, key) ? FV_OK
                               : fv_handoff_verify(r, run->place, run->callbacks, kept, err);
}

static fv_status step_run(fv_handoff_run *run, int i, fv_handoff_step_fn *fn, void *user,
                          fv_error *err)
{
    double start = fv_now_ms();
    bool kept = false;
    const fv_handoff_record *r = &run->state.step[i];
    if (run->o.dry_run) {
        fv_handoff_make_fn *make;
        const char *way = step_way(run, i, &make);
        FV_TRY(make(run, err));
        fv_status status = step_tell(&run->record, i, way, false, 0, fn, user, err);
        fv_handoff_forget(&run->record);
        return status;
    }
    FV_TRY(step_is_kept(run, i, &kept, err));
    if (!kept)
        FV_TRY(step_make(run, i, err));
    return step_tell(r, i, r->way, kept, fv_now_ms() - start, fn, user, err);
}

fv_status fv_handoff(const char *model, const char *dir, const fv_handoff_options *options,
                     fv_handoff_step_fn *fn, void *user, fv_error *err)
{
    fv_handoff_run run = { .model = model };
    fv_callbacks callbacks;
    fv_status status = FV_OK;
    FV_REQUIRE(model, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&run.o, fv_handoff_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &run.o.callbacks, err));
    run.callbacks = run.o.callbacks;
    FV_TRY(handoff_check(&run, err));
    FV_TRY_GOTO(place_find(&run, dir, err));
    FV_TRY_GOTO(model_look(&run, err));
    FV_TRY_GOTO(images_identify(&run, err));
    FV_TRY_GOTO(libraries_look(&run, err));
    if (!run.o.dry_run) {
        FV_TRY_GOTO(place_recover(&run, err));
        FV_TRY_GOTO(fv_source_read(&run.source, model, "hash", run.callbacks, err));
        FV_TRY_GOTO(fv_handoff_state_read(&run.state, run.place, err));
    }
    for (int i = 0; i < FV_HANDOFF_STEPS; i++)
        if (!run.o.step || run.o.step == i + 1)
            FV_TRY_GOTO(step_run(&run, i, fn, user, err));
fail:
    fv_handoff_state_free(&run.state);
    fv_source_free(&run.source);
    fv_free(run.place);
    return status;
}
