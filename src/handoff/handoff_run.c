/* Six steps into one directory, and the manifest that lets them continue. See fastvlm_handoff.h.
 *
 * A step fills a stage beside the directory and writes the manifest as it will be into the same
 * stage; both move in together or not at all (base/outfile.h). Whenever the process ends, the
 * manifest says exactly which steps are complete. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
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
#include "qairt/qairt_tool.h"

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

/* One that cannot be read is skipped later; there must be another. */
static fv_status images_try(const fv_image_list *files, fv_error *err)
{
    fv_status status = FV_OK;
    for (size_t i = 0; i < files->n; i++) {
        fv_image *image = NULL;
        status = fv_image_open(&image, files->path[i], NULL, err);
        fv_image_free(image);
        if (status == FV_OK || status == FV_ERR_MEMORY)
            return status;
    }
    return status;
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
    if (status == FV_OK)
        status = images_try(&files, err);
    fv_image_list_free(&files);
    return status;
}

/* Qualcomm's tools that steps 5 and 6 run. */
static fv_status sdk_check(fv_handoff_run *run, fv_error *err)
{
    static const struct {
        const char *name;
        int step;
    } needed[] = {
        { "qnn-onnx-converter", 5 },
        { "qnn-model-lib-generator", 5 },
        { "qnn-context-binary-generator", 5 },
        { "qnn-context-binary-utility", 5 },
        { "qnn-genai-transformer-composer", 6 },
    };
    fv_qairt_options o = { .size = sizeof o, .sdk = run->o.sdk, .venv = run->o.venv };
    fv_qairt_info info = { .size = sizeof info };
    fv_qairt_tool_info tool = { .size = sizeof tool };
    FV_TRY(fv_qairt_check(&info, &o, err));
    for (size_t k = 0; fv_qairt_tool(info.dir, k, &tool); k++)
        for (size_t i = 0; i < FV_COUNT(needed); i++)
            if (!tool.there && !strcmp(tool.name, needed[i].name) &&
                (!run->o.step || run->o.step == needed[i].step))
                return fv_fail(err, FV_ERR_IO, 0, "%s: has no %s; expected it in a QAIRT SDK",
                               info.dir, tool.name);
    if (!*info.python_version)
        return fv_fail(err, FV_ERR_IO, 0, "%s: %s; expected the Python of Qualcomm's converters",
                       info.python, info.python_problem);
    if (*info.python_problem)
        fv_log(run->callbacks, FV_LOG_WARNING, "%s: %s", info.python, info.python_problem);
    return FV_OK;
}

/* What Qualcomm's tools need, before anything is made that only leads to them. */
static fv_status tools_check(fv_handoff_run *run, fv_error *err)
{
    const fv_handoff_options *o = &run->o;
    if (o->with & FV_HANDOFF_QAIRT && (!o->step || o->step >= 5)) {
        if (o->step != 6 && o->vision == FV_NPU_MIXED)
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                           "vision is mixed, which Qualcomm's converter does not make; expected "
                           "w8a8 or w8a16");
        if (o->step != 5 && !fv_is_dir(run->model))
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                           "%s: a packed file; expected a checkpoint directory, which the composer "
                           "reads",
                           run->model);
        FV_TRY(fv_tool_path_check(run->place, err));
        FV_TRY(sdk_check(run, err));
    }
    if (o->with & FV_HANDOFF_HUB && (!o->step || o->step == 3 || o->step == 4)) {
        fv_aihub_options hub = { .size = sizeof hub };
        fv_aihub_account account = { .size = sizeof account };
        FV_TRY(fv_aihub_find(&account, &hub, err));
        if (!*account.client)
            return fv_fail(err, FV_ERR_IO, 0,
                           "qai-hub: program not found; expected the AI Hub's client, the Python "
                           "package qai-hub");
    }
    return FV_OK;
}

/* Its weights are looked for as well, so that a checkpoint that lacks some is refused here. */
static fv_status model_look(fv_handoff_run *run, fv_error *err)
{
    fv_model s;
    FV_TRY(fv_model_open(
        &s, run->model,
        &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = run->callbacks }, err));
    run->image_size = run->o.image_size ? run->o.image_size : s.config.image_size;
    run->recipe = fv_config_recipe(&s.config, FV_FIT_AUTO, run->image_size);
    fv_model_close(&s);
    return FV_OK;
}

/* Are there Qualcomm's libraries? Not having them is no error, unless the caller names them. */
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
    if (run->o.qnn_dir && *run->qnn_problem)
        return fv_fail(err, status != FV_OK ? status : FV_ERR_IO, 0, "%s", run->qnn_problem);
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

/* One handoff at a time: a lock on the directory, which is made for it. */
static fv_status place_lock(fv_handoff_run *run, fv_error *err)
{
    FV_TRY(fv_out_make_parents(run->place, &run->n_parents, err));
    FV_TRY(fv_out_make_folder(run->place, err));
    run->lock = open(run->place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run->lock < 0)
        return fv_out_errno(err, run->place, "open");
    if (flock(run->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return fv_fail(err, FV_ERR_STATE, 0, "another handoff is working in %s", run->place);
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

/* Can this run make none of the files of step i that Qualcomm's libraries make? */
static bool step_lacks_libraries(const fv_handoff_run *run, int i, const char *way)
{
    return (i == 3 || i == 4) && !strcmp(way, "native") && !*run->qnn_build;
}

/* A hash of what the files depend on; NULL: memory is out. */
static const char *step_hash(fv_handoff_run *run, int i, const char *way, bool builds)
{
    fv_sha256 sha;
    uint8_t digest[FV_SHA256_BYTES];
    char hex[FV_HASH_TEXT];
    const char *depends = fv_handoff_depends(run, i, way, builds);
    const char *text = depends ? fv_handoff_text(&run->state, "fastvlm %s\nmodel %s\n%s\n",
                                                 builds ? fv_version() : "", run->source.sha256,
                                                 depends)
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

/* A file that this run cannot make may be there, made by a tool. An empty one is none. */
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

static const fv_handoff_entry *record_find(const fv_handoff_record *r, const char *path)
{
    for (size_t k = 0; k < r->n; k++)
        if (r->entry[k].sha256 && !strcmp(r->entry[k].path, path))
            return &r->entry[k];
    return NULL;
}

/* A file of the user's is not replaced, unless it has the same bytes. */
static fv_status stranger_refuse(fv_handoff_run *run, const fv_handoff_entry *made, fv_error *err)
{
    fv_handoff_entry there = { .path = made->path };
    for (int i = 0; i < FV_HANDOFF_STEPS; i++) {
        const fv_handoff_entry *e = record_find(&run->state.step[i], made->path);
        if (e && !e->found)
            return FV_OK;
    }
    char *path = fv_path_join(run->place, made->path);
    bool is_there = path && fv_is_there(path), is_file = path && fv_is_file(path);
    fv_free(path);
    if (run->o.force || !is_there)
        return FV_OK;
    if (is_file)
        FV_TRY(entry_hash(run, &there, run->place, err));
    if (is_file && !strcmp(there.sha256, made->sha256))
        return FV_OK;
    return fv_fail(err, FV_ERR_IO, 0, "%s/%s: there is such a file already, and no handoff made it",
                   run->place, made->path);
}

/* What is said of a file that the step did not make again. */
static const char *carried_note(fv_handoff_run *run, int i, const fv_handoff_entry *e)
{
    const char *basis = step_hash(run, i, e->way, false);
    bool native = !strcmp(e->way, "native");
    if (strcmp(e->model, run->source.sha256) != 0)
        return native ? "stale: of another model"
                      : "stale: of another model; only a tool of Qualcomm's makes it";
    if (!basis || strcmp(e->basis, basis) != 0)
        return native ? "stale: made from other images or with other options"
                      : "stale: made from other images or with other options; only a tool of "
                        "Qualcomm's makes it";
    return native ? "kept: made earlier; Qualcomm's libraries are not there now"
                  : "kept: made earlier by a tool of Qualcomm's";
}

/* A file of an earlier run that this one did not make again. What it could make is gone, so that
 * what is there is what the manifest lists; what only a tool of Qualcomm's makes, or this run
 * cannot, stays: *carried has its path then. What was missing in noted because of it is no longer.
 */
static fv_status old_settle(fv_handoff_run *run, int i, const fv_handoff_entry *e,
                            fv_handoff_record *noted, fv_handoff_entry *carried, fv_error *err)
{
    const fv_handoff_record *old = &run->state.step[i];
    const char *way = e->note ? e->way : old->way;
    bool keep = e->found || strcmp(way, "native") != 0 || run->cannot;
    *carried = (fv_handoff_entry){ 0 };
    char *path = fv_path_join(run->place, e->path);
    if (!path)
        return fv_fail_memory(err, strlen(e->path), "a path");
    bool there = fv_is_file(path);
    for (size_t k = 0; k < noted->n; k++)
        keep = keep || fv_handoff_fits(e->path, noted->entry[k].path);
    if (!keep)
        unlink(path);
    fv_free(path);
    if (!keep || !there)
        return FV_OK;
    fv_handoff_entry now = { .path = e->path, .found = e->found };
    FV_TRY(entry_hash(run, &now, run->place, err));
    if (!now.n_bytes)
        return FV_OK;
    if (!now.found && !strcmp(now.sha256, e->sha256)) {
        now.way = way;
        now.basis = e->note ? e->basis : old->basis;
        now.model = e->note ? e->model : old->model;
        now.note = carried_note(run, i, &now);
    } else
        now.found = true; /* somebody has put another in its place */
    size_t n = 0;
    for (size_t k = 0; k < noted->n; k++)
        if (!fv_handoff_fits(e->path, noted->entry[k].path))
            noted->entry[n++] = noted->entry[k];
        else
            now.command = noted->entry[k].command;
    noted->n = n;
    *carried = now;
    return FV_OK;
}

static fv_status olds_settle(fv_handoff_run *run, int i, fv_handoff_record *noted, fv_error *err)
{
    const fv_handoff_record *old = &run->state.step[i];
    for (size_t k = 0; k < old->n; k++) {
        const fv_handoff_entry *e = &old->entry[k];
        fv_handoff_entry carried;
        bool again = !e->sha256 || record_find(&run->record, e->path);
        for (size_t m = 0; m < noted->n && !again; m++)
            again = noted->entry[m].placed && !strcmp(noted->entry[m].path, e->path);
        if (again)
            continue;
        FV_TRY(old_settle(run, i, e, noted, &carried, err));
        if (carried.path)
            FV_TRY(fv_handoff_add(&run->record, &carried, err));
    }
    return FV_OK;
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
            status = stranger_refuse(run, &e, err);
        if (status == FV_OK)
            status = fv_handoff_add(&run->record, &e, err);
    }
    if (status == FV_OK)
        status = olds_settle(run, i, &noted, err);
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

/* The stage's names are gone when they are read: their places in their stead. */
static void stage_names_drop(char *text)
{
    for (char *at = strstr(text, FV_OUT_PART); at; at = strstr(at, FV_OUT_PART)) {
        size_t n = strlen(FV_OUT_PART), digits = strspn(at + n, "0123456789");
        bool folder = at > text && at[-1] == '/' && at[n + digits] == '/';
        if (digits)
            memmove(at, at + n + digits + folder, strlen(at + n + digits + folder) + 1);
        else
            at += n;
    }
}

static void stage_log(void *user, fv_log_level level, const char *message)
{
    fv_handoff_run *run = user;
    char *text = fv_strdup(message);
    if (text)
        stage_names_drop(text);
    if (run->callbacks && run->callbacks->log) /* not fv_log, which cuts long ones */
        run->callbacks->log(run->callbacks->user, level, text ? text : message);
    fv_free(text);
}

static bool stage_progress(void *user, const char *stage, double done)
{
    const fv_handoff_run *run = user;
    return fv_progress(run->callbacks, stage, done, NULL) != FV_OK;
}

static fv_status step_make(fv_handoff_run *run, int i, fv_error *err)
{
    fv_handoff_make_fn *make;
    const char *way = step_way(run, i, &make), *key = step_hash(run, i, way, true);
    const char *basis = step_hash(run, i, way, false);
    fv_status status = FV_OK;
    if (!key || !basis)
        return fv_fail_memory(err, FV_HASH_TEXT, "a hash");
    FV_TRY(fv_outdir_open(&run->out, run->place, true, run->callbacks, err));
    run->named = (fv_callbacks){
        .size = sizeof run->named, .log = stage_log, .progress = stage_progress, .user = run
    };
    run->staged = (fv_staged){ .folder = run->out.stage, .callbacks = &run->named };
    run->stage_callbacks = fv_staged_callbacks(&run->staged);
    run->cannot = step_lacks_libraries(run, i, way);
    FV_TRY_GOTO(make(run, err));
    FV_TRY_GOTO(record_complete(run, i, err));
    run->record.there = true;
    run->record.way = way;
    run->record.key = key;
    run->record.basis = basis;
    run->record.model = run->source.sha256;
    fv_handoff_forget(&run->state.step[i]);
    run->state.step[i] = run->record;
    run->record = (fv_handoff_record){ 0 };
    FV_TRY_GOTO(manifest_write(run, err));
    return fv_outdir_commit(&run->out, err);
fail:
    fv_outdir_abandon(&run->out);
    fv_handoff_forget(&run->record);
    if (err)
        stage_names_drop(err->message);
    return status;
}

/* In a word. */
static const char *step_state(const fv_handoff_run *run, const fv_handoff_record *r, int i,
                              const char *way, bool kept)
{
    bool native = !strcmp(way, "native");
    size_t n_own = 0, n_carried = 0;
    for (size_t k = 0; k < r->n; k++) {
        n_own += r->entry[k].sha256 && !r->entry[k].found && !r->entry[k].note;
        n_carried += r->entry[k].sha256 && r->entry[k].note;
    }
    if (native && i == 2)
        return "not needed";
    if (step_lacks_libraries(run, i, way))
        return n_own + n_carried ? "kept" : "left out";
    return kept ? "complete" : run->o.dry_run ? "planned" : "made";
}

static const char *file_reason(const fv_handoff_entry *e, bool lacks)
{
    if (e->found)
        return "was there, not checked";
    if (e->note)
        return e->note;
    return e->sha256 && lacks ? "kept: made earlier; Qualcomm's libraries are not there now"
                              : e->reason;
}

static fv_status step_tell(fv_handoff_run *run, const fv_handoff_record *r, int i, const char *way,
                           bool kept, double ms, fv_handoff_step_fn *fn, void *user, fv_error *err)
{
    fv_handoff_step step = { .size = sizeof step,
                             .step = i + 1,
                             .name = fv_handoff_names[i],
                             .way = way,
                             .kept = kept,
                             .ms = ms,
                             .state = step_state(run, r, i, way, kept) };
    bool lacks = step_lacks_libraries(run, i, way);
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
                                      .reason = file_reason(e, lacks),
                                      .command = e->found ? NULL : e->command };
        step.n_files += e->sha256 != NULL;
        step.n_missing += e->sha256 == NULL;
    }
    for (int k = 0; k < FV_HANDOFF_STEPS; k++)
        for (size_t m = 0; m < run->state.step[k].n; m++) {
            bool there = run->state.step[k].entry[m].sha256 != NULL;
            step.n_listed += there;
            step.n_listed_missing += !there;
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
    /* without the libraries, which build of them made the files does not count */
    bool builds = !step_lacks_libraries(run, i, r->way);
    const char *key = step_hash(run, i, r->way, builds);
    if (!key)
        return fv_fail_memory(err, FV_HASH_TEXT, "a hash");
    return strcmp(builds ? r->key : r->basis, key)
               ? FV_OK
               : fv_handoff_verify(r, run->place, run->callbacks, kept, err);
}

/* What would be made, and by which commands. */
static fv_status step_plan(fv_handoff_run *run, int i, fv_handoff_step_fn *fn, void *user,
                           fv_error *err)
{
    fv_handoff_make_fn *make;
    const char *way = step_way(run, i, &make);
    const fv_handoff_record *old = &run->state.step[i];
    if (step_lacks_libraries(run, i, way) && old->there) /* its files would stay */
        return step_tell(run, old, i, old->way, false, 0, fn, user, err);
    fv_handoff_listen(run);
    fv_status status = make(run, err);
    for (size_t k = 0; status == FV_OK && k < run->record.n; k++)
        if (run->record.entry[k].reason)
            status = found_look(run, &run->record.entry[k], err);
    if (status == FV_OK)
        status = step_tell(run, &run->record, i, way, false, 0, fn, user, err);
    fv_handoff_forget(&run->record);
    return status;
}

static fv_status step_run(fv_handoff_run *run, int i, fv_handoff_step_fn *fn, void *user,
                          fv_error *err)
{
    double start = fv_now_ms();
    bool kept = false;
    const fv_handoff_record *r = &run->state.step[i];
    FV_TRY(step_is_kept(run, i, &kept, err));
    if (!kept && run->o.dry_run)
        return step_plan(run, i, fn, user, err);
    if (!kept)
        FV_TRY(step_make(run, i, err));
    return step_tell(run, r, i, r->way, kept, fv_now_ms() - start, fn, user, err);
}

/* An end on the way says where it continues. */
static fv_status step_run_or_say(fv_handoff_run *run, int i, fv_handoff_step_fn *fn, void *user,
                                 fv_error *err)
{
    fv_error why = { 0 };
    fv_status status = step_run(run, i, fn, user, &why);
    if (status == FV_ERR_CANCELLED)
        return fv_fail(err, status, 0, "%s; run again to continue at step %d", why.message, i + 1);
    return status == FV_OK ? FV_OK : fv_fail(err, status, why.at, "%s", why.message);
}

fv_status fv_handoff(const char *model, const char *dir, const fv_handoff_options *options,
                     fv_handoff_step_fn *fn, void *user, fv_error *err)
{
    fv_handoff_run run = { .model = model, .dir = dir, .lock = -1 };
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
    FV_TRY_GOTO(tools_check(&run, err));
    FV_TRY_GOTO(images_identify(&run, err));
    FV_TRY_GOTO(libraries_look(&run, err));
    if (!run.o.dry_run) {
        FV_TRY_GOTO(place_lock(&run, err));
        FV_TRY_GOTO(place_recover(&run, err));
    }
    FV_TRY_GOTO(fv_source_read(&run.source, model, "hash", run.callbacks, err));
    FV_TRY_GOTO(fv_handoff_state_read(&run.state, run.place, err));
    for (int i = 0; i < FV_HANDOFF_STEPS; i++)
        if (!run.o.step || run.o.step == i + 1)
            FV_TRY_GOTO(step_run_or_say(&run, i, fn, user, err));
fail:
    if (run.lock >= 0) {
        if (status != FV_OK && rmdir(run.place) == 0)
            fv_out_remove_parents(run.place, run.n_parents);
        close(run.lock);
    }
    fv_handoff_state_free(&run.state);
    fv_source_free(&run.source);
    fv_free(run.place);
    return status;
}
