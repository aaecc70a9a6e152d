/* Uploading the ONNX files. See aihub_work.h. */
#include "qairt/aihub_work.h"

#include <stdio.h>
#include <string.h>

#include "base/outpart.h"
#include "base/report.h"

typedef struct upload {
    fv_aihub *h;
    const char *name;
    char *file;
    char sha256[FV_AIHUB_HASH];
    uint64_t n_bytes;
    fv_status status; /* of writing an answer down */
    fv_error err;
} upload;

static fv_status upload_file(upload *u, const char *onnx, fv_error *err)
{
    char *beside = NULL;
    u->file = fv_aihub_path(u->h->o.onnx_dir, onnx);
    if (!u->file || !(beside = fv_out_path(u->file, "_data")))
        return fv_fail_memory(err, strlen(onnx), "a path");
    bool external = fv_is_there(beside);
    fv_free(beside);
    if (u->h->o.dry_run && !fv_is_there(u->file))
        return FV_OK;
    if (!fv_is_file(u->file))
        return fv_fail(err, FV_ERR_IO, 0, "%s: not found; expected the ONNX file of %s", u->file,
                       u->name);
    if (external)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: keeps its weights in a second file, %s_data; expected one file, which "
                       "is all that the client uploads",
                       u->file, onnx);
    FV_TRY(fv_aihub_hash(u->h, u->file, u->sha256, &u->n_bytes, err));
    if (u->n_bytes == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: is empty", u->file);
    return FV_OK;
}

static void upload_answer(void *user, const fv_aihub_said *said)
{
    upload *u = user;
    fv_aihub_ledger *l = &u->h->models;
    if (u->status != FV_OK || !said->model_id[0] || fv_aihub_ledger_has(l, u->name, said->model_id))
        return;
    fv_aihub_model m;
    u->status = fv_aihub_model_find(&m, l, u->name, &u->err);
    if (u->status != FV_OK)
        return;
    if (m.pending) { /* the newest comes first */
        fv_log(u->h->o.callbacks, FV_LOG_INFO, "%s: found at the service as %s", u->name,
               said->model_id);
        u->status = fv_aihub_ledger_add(l, &u->err, "%s:%s", u->name, said->model_id);
    } else {
        u->status = fv_aihub_ledger_add(l, &u->err, "# fastvlm also %s %s", u->name,
                                        said->model_id);
    }
}

/* What may have been uploaded without our having written it down. */
static fv_status upload_recover(upload *u, fv_error *err)
{
    fv_aihub_model m;
    char since[24];
    FV_TRY(fv_aihub_model_find(&m, &u->h->models, u->name, err));
    if (!m.pending || u->h->o.dry_run)
        return FV_OK;
    fv_aihub_since(since, m.pending_time);
    const char *const words[] = { u->name, since, NULL };
    fv_aihub_call call = {
        .stage = "ask", .timeout_s = FV_AIHUB_QUESTION_S, .answer = upload_answer, .user = u
    };
    FV_TRY(fv_aihub_ask(&u->h->client, &call, FV_AIHUB_MODELS, words, NULL, err));
    if (u->status != FV_OK)
        *err = u->err;
    return u->status;
}

/* Is the file at the service? */
static fv_status upload_is_done(upload *u, bool *done, fv_error *err)
{
    fv_aihub_model m;
    FV_TRY(fv_aihub_model_find(&m, &u->h->models, u->name, err));
    *done = m.model_id[0] && (!m.sha256[0] || strcmp(m.sha256, u->sha256) == 0);
    return FV_OK;
}

static fv_status upload_intent(upload *u, fv_error *err)
{
    char now[FV_AIHUB_TIME];
    if (u->h->o.dry_run)
        return FV_OK;
    fv_aihub_time(now);
    return fv_aihub_ledger_add(&u->h->models, err,
                               "# fastvlm upload %s bytes=%" PRIu64 " sha256=%s at=%s", u->name,
                               u->n_bytes, u->sha256, now);
}

static fv_status upload_run(upload *u, fv_error *err)
{
    fv_aihub *h = u->h;
    for (int n = 1;; n++) {
        char model_id[FV_AIHUB_ID];
        bool transient, done = false;
        fv_error why;
        fv_aihub_call call = { .stage = "upload", .timeout_s = FV_AIHUB_TRANSFER_S };

        FV_TRY(upload_intent(u, err));
        if (!h->o.dry_run)
            fv_log(h->o.callbacks, FV_LOG_INFO, "%s: uploading %s, %.1f MB", u->name, u->file,
                   (double)u->n_bytes / 1e6);
        fv_status status = fv_aihub_upload_once(&h->client, &call, u->file, u->name, model_id,
                                                &transient, &why);
        if (status == FV_OK && h->o.dry_run)
            return FV_OK;
        if (model_id[0]) { /* however the client ended */
            FV_TRY(fv_aihub_ledger_add(&h->models, err, "%s:%s", u->name, model_id));
            fv_log(h->o.callbacks, FV_LOG_INFO, "%s: uploaded as %s", u->name, model_id);
            return status == FV_ERR_CANCELLED ? fv_fail(err, status, 0, "%s", why.message) : FV_OK;
        }
        if (!transient || n > fv_aihub_retries(&h->client))
            return fv_fail(err, status, 0, "%s: %s", u->file, why.message);
        fv_log(h->o.callbacks, FV_LOG_INFO, "%s: %s", u->file, why.message);
        FV_TRY(fv_aihub_wait(&h->client, "upload", n, err));
        FV_TRY(upload_recover(u, err)); /* the service may have it all the same */
        FV_TRY(upload_is_done(u, &done, err));
        if (done)
            return FV_OK;
    }
}

static fv_status upload_part(fv_aihub *h, int part, fv_error *err)
{
    upload u = { .h = h, .name = fv_aihub_names[part].name };
    fv_aihub_model m;
    bool done = false;

    fv_status status = upload_file(&u, fv_aihub_names[part].onnx, err);
    if (status == FV_OK)
        status = upload_recover(&u, err);
    if (status == FV_OK)
        status = fv_aihub_model_find(&m, &h->models, u.name, err);
    if (status == FV_OK)
        status = upload_is_done(&u, &done, err);
    if (status == FV_OK && done && !h->o.force)
        fv_log(h->o.callbacks, FV_LOG_INFO, "%s: already there as %s%s", u.name, m.model_id,
               m.sha256[0] ? "" : ", by a line that does not tell of which file");
    else if (status == FV_OK)
        status = upload_run(&u, err);
    fv_free(u.file);
    return status;
}

fv_status fv_aihub_upload(const fv_aihub_options *options, fv_error *err)
{
    fv_aihub h;
    FV_TRY(fv_aihub_open(&h, options, FV_AIHUB_BEGINS, err));
    fv_status status = FV_OK;
    for (int i = 0; i < FV_AIHUB_PARTS && status == FV_OK; i++)
        if (fv_aihub_wants(&h, i))
            status = upload_part(&h, i, err);
    fv_aihub_close(&h);
    return status;
}
