/* Fetching context binaries. See aihub_work.h. */
#include "qairt/aihub_work.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/outfile.h"
#include "base/outpart.h"
#include "base/report.h"

typedef struct download {
    fv_aihub *h;
    const char *name;
    fv_aihub_job job;
    fv_outdir out;
    char target[FV_AIHUB_ID]; /* id of what was compiled */
    char file[FV_AIHUB_TEXT]; /* job_J_optimized_bin_T.bin */
    char sha256[FV_AIHUB_HASH];
    uint64_t n_bytes;
} download;

static void download_answer(void *user, const fv_aihub_said *said)
{
    download *d = user;
    memcpy(d->target, said->model_id, sizeof d->target);
}

/* Is what the ledger tells of there, unchanged? */
static fv_status download_is_there(const download *d, const char *dir, bool *there, fv_error *err)
{
    char sha256[FV_AIHUB_HASH];
    struct stat st;
    *there = false;
    char *path = d->job.file[0] ? fv_path_join(dir, d->job.file) : NULL;
    if (!path)
        return FV_OK;
    uint64_t n_bytes = 0;
    fv_status status = FV_OK;
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == d->job.file_bytes)
        status = fv_aihub_hash(d->h, path, sha256, &n_bytes, err);
    *there = status == FV_OK && n_bytes && strcmp(sha256, d->job.file_sha256) == 0;
    fv_free(path);
    return status;
}

/* A page that says what is wrong is not a context binary. */
static fv_status binary_head_check(const char *path, fv_error *err)
{
    char head[64] = "";
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(head, 1, sizeof head - 1, file) : 0;
    if (file)
        fclose(file);
    if (n == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0, "what was downloaded is empty");
    if (head[0] == '<' || head[0] == '{')
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "what was downloaded is text (\"%.40s\"); expected a context binary", head);
    return FV_OK;
}

/* With Qualcomm's libraries, what they say of it; without them only that. */
static fv_status binary_check(const download *d, const char *path, fv_error *err)
{
    const fv_aihub *h = d->h;
    fv_npu_binary *binary;
    fv_npu_binary_info info = { .size = sizeof info };
    fv_npu_library_options o = { .size = sizeof o,
                                 .qnn_dir = h->o.qnn_dir,
                                 .callbacks = h->o.callbacks };
    fv_error why;

    FV_TRY(binary_head_check(path, err));
    fv_status status = fv_npu_binary_open(&binary, path, &o, &why);
    if (status == FV_ERR_CANCELLED)
        return fv_fail(err, status, 0, "%s", why.message);
    if (status != FV_OK) {
        size_t n = strlen(path); /* where it will not stay */
        const char *text = strncmp(why.message, path, n) == 0 && why.message[n] == ':'
                               ? why.message + n + 2
                               : why.message;
        if (status == FV_ERR_FORMAT && !h->o.force)
            return fv_fail(err, status, 0, "%s: not kept: %s", d->file, text);
        fv_log(h->o.callbacks, status == FV_ERR_FORMAT ? FV_LOG_WARNING : FV_LOG_INFO,
               "%s: its content is not checked: %s", d->file, text);
        return FV_OK;
    }
    fv_npu_binary_describe(binary, &info);
    fv_npu_binary_free(binary);
    if (info.soc_model && info.soc_model != h->soc.soc_model)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "what was downloaded is for SoC model %u; expected %u (%s)", info.soc_model,
                       h->soc.soc_model, h->soc.name);
    if (info.htp_version && info.htp_version != h->soc.htp_version)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "what was downloaded is for Hexagon v%u; expected v%u (%s)",
                       info.htp_version, h->soc.htp_version, h->soc.name);
    return FV_OK;
}

/* A file of that name that differs stays as it is, unless the caller says otherwise. */
static fv_status download_compare(const download *d, fv_error *err)
{
    char sha256[FV_AIHUB_HASH];
    uint64_t n_bytes;
    char *there = fv_path_join(d->out.place, d->file);
    if (!there)
        return fv_fail_memory(err, strlen(d->file), "a path");
    fv_status status = FV_OK;
    if (fv_is_there(there) && !d->h->o.force) {
        status = fv_aihub_hash(d->h, there, sha256, &n_bytes, err);
        if (status == FV_OK && strcmp(sha256, d->sha256) != 0)
            status = fv_fail(err, FV_ERR_IO, 0,
                             "%s: there is such a file already, and it differs from what the "
                             "service gives",
                             there);
    }
    fv_free(there);
    return status;
}

/* Into the stage, under the name that it will have. */
static fv_status download_fetch(download *d, fv_error *err)
{
    fv_aihub *h = d->h;
    char *path = fv_aihub_path(d->out.stage, "context.bin"), *named = NULL;
    char *temporary = fv_path_join(d->out.stage, "tmp");
    const char *const words[] = { d->job.job_id, path, NULL };
    fv_aihub_call call = { .stage = "download",
                           .timeout_s = FV_AIHUB_TRANSFER_S,
                           .temporary = temporary,
                           .answer = download_answer,
                           .user = d };
    fv_log(h->o.callbacks, FV_LOG_INFO, "%s: fetching what job %s has made", d->name,
           d->job.job_id);
    fv_status status = path && temporary ? fv_outdir_sub(&d->out, "tmp", err)
                                         : fv_fail_memory(err, 16, "a path");
    if (status == FV_OK)
        status = fv_aihub_ask(&h->client, &call, FV_AIHUB_DOWNLOAD, words, NULL, err);
    if (status == FV_OK && rmdir(temporary) != 0)
        status = fv_out_errno(err, temporary, "remove");
    if (status == FV_OK && (!d->target[0] || !fv_is_file(path)))
        status = fv_fail(err, FV_ERR_FORMAT, 0,
                         "job %s: qai_hub has downloaded nothing; expected a context binary",
                         d->job.job_id);
    snprintf(d->file, sizeof d->file, "job_%s_optimized_bin_%s.bin", d->job.job_id, d->target);
    if (status == FV_OK && !(named = fv_path_join(d->out.stage, d->file)))
        status = fv_fail_memory(err, 16, "a path");
    if (status == FV_OK && rename(path, named) != 0)
        status = fv_out_errno(err, named, "rename");
    if (status == FV_OK)
        status = fv_aihub_hash(h, named, d->sha256, &d->n_bytes, err);
    if (status == FV_OK)
        status = binary_check(d, named, err);
    if (status == FV_OK)
        status = download_compare(d, err);
    fv_free(path);
    fv_free(temporary);
    fv_free(named);
    return status;
}

static fv_status download_run(download *d, const char *dir, fv_error *err)
{
    fv_aihub *h = d->h;
    char now[FV_AIHUB_TIME];
    FV_TRY(fv_outdir_open(&d->out, dir, true, h->o.callbacks, err));
    fv_status status = download_fetch(d, err);
    if (status != FV_OK) {
        fv_outdir_abandon(&d->out);
        return status;
    }
    FV_TRY(fv_outdir_commit(&d->out, err));
    fv_aihub_time(now);
    FV_TRY(fv_aihub_ledger_add(
        &h->jobs, err, "# fastvlm download %s job_id=%s bytes=%" PRIu64 " sha256=%s file=%s at=%s",
        d->name, d->job.job_id, d->n_bytes, d->sha256, d->file, now));
    fv_log(h->o.callbacks, FV_LOG_INFO, "%s: %s, %.1f MB", d->name, d->file,
           (double)d->n_bytes / 1e6);
    return FV_OK;
}

static fv_status download_show(const download *d, const char *dir, fv_error *err)
{
    fv_aihub *h = d->h;
    bool transient;
    char *path = fv_aihub_path(dir, "context.bin");
    if (!path)
        return fv_fail_memory(err, 16, "a path");
    const char *const words[] = { d->job.job_id[0] ? d->job.job_id : "JOB_ID", path, NULL };
    fv_aihub_call call = { .stage = "download" };
    fv_status status = fv_aihub_ask_once(&h->client, &call, FV_AIHUB_DOWNLOAD, words, &transient,
                                         err);
    fv_free(path);
    return status;
}

static fv_status download_part(fv_aihub *h, int part, fv_error *err)
{
    download d = { .h = h, .name = fv_aihub_names[part].name };
    bool there = false;

    fv_aihub_job_find(&d.job, &h->jobs, d.name);
    if (!h->o.dry_run && !d.job.job_id[0])
        return fv_fail(err, FV_ERR_STATE, 0, "%s: has no job of %s; expected it compiled",
                       h->jobs.path, d.name);
    if (!h->o.dry_run && strcmp(d.job.status, "SUCCESS") != 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s: job %s is %s%s%s; expected SUCCESS", d.name,
                       d.job.job_id, d.job.status, d.job.message[0] ? ": " : "", d.job.message);
    char *dir = fv_path_join(h->o.output_dir, d.name);
    if (!dir)
        return fv_fail_memory(err, strlen(d.name), "a path");
    fv_status status = download_is_there(&d, dir, &there, err);
    if (status == FV_OK && there && !h->o.force)
        fv_log(h->o.callbacks, FV_LOG_INFO, "%s: %s is there", d.name, d.job.file);
    else if (status == FV_OK && h->o.dry_run)
        status = download_show(&d, dir, err);
    else if (status == FV_OK)
        status = download_run(&d, dir, err);
    fv_free(dir);
    return status;
}

fv_status fv_aihub_download(const fv_aihub_options *options, fv_error *err)
{
    fv_aihub h;
    size_t n_over, n_jobs;
    FV_TRY(fv_aihub_open(&h, options, FV_AIHUB_WORKS, err));
    fv_status status = h.o.dry_run ? FV_OK : fv_aihub_look(&h, &n_over, &n_jobs, NULL, err);
    for (int i = 0; i < FV_AIHUB_PARTS && status == FV_OK; i++)
        if (fv_aihub_wants(&h, i))
            status = download_part(&h, i, err);
    fv_aihub_close(&h);
    return status;
}
