/* Jobs that compile what was uploaded, and how they are doing. See aihub_work.h. */
#include "qairt/aihub_work.h"

#include <stdio.h>
#include <string.h>

#include "base/report.h"

#define JOB_SUFFIX "_qnn_context_fp16"

enum { DEFAULT_TIMEOUT_S = 7200 };

/* ---- submitting ---------------------------------------------------------------------------- */

static bool job_is_over(const fv_aihub_job *j)
{
    return strcmp(j->status, "SUCCESS") == 0 || strcmp(j->status, "FAILED") == 0;
}

static bool job_has_failed(const fv_aihub_job *j) { return strcmp(j->status, "FAILED") == 0; }

static fv_status job_write(fv_aihub *h, const char *name, const fv_aihub_job *j, fv_error *err)
{
    bool why = job_has_failed(j) && j->message[0];
    return fv_aihub_ledger_add(&h->jobs, err, "%s: model_id=%s job_id=%s status=%s%s%s%s url=%s",
                               name, j->model_id, j->job_id, j->status, why ? " (" : "",
                               why ? j->message : "", why ? ")" : "", j->url);
}

typedef struct submission {
    fv_aihub *h;
    const char *name;
    const char *model_id;
    char job_name[128];
    bool found;
    fv_status status;
    fv_error err;
} submission;

static void submission_take(submission *s, const fv_aihub_said *said, const char *verb)
{
    fv_aihub_job j = { 0 };
    if (s->found || s->status != FV_OK || !said->job_id[0])
        return;
    memcpy(j.model_id, s->model_id, strlen(s->model_id) + 1);
    memcpy(j.job_id, said->job_id, sizeof j.job_id);
    memcpy(j.url, said->url, sizeof j.url);
    snprintf(j.status, sizeof j.status, "CREATED");
    s->found = true;
    s->status = job_write(s->h, s->name, &j, &s->err);
    fv_log(s->h->o.callbacks, FV_LOG_INFO, "%s: %s as %s, %s", s->name, verb, j.job_id, j.url);
}

static void submission_answer(void *user, const fv_aihub_said *said)
{
    submission_take(user, said, "submitted");
}

/* Of the jobs that the service names, the newest of this model with these options that is not
 * written down. */
static void submission_match(void *user, const fv_aihub_said *said)
{
    submission *s = user;
    if (fv_aihub_ledger_has_job(&s->h->jobs, s->name, said->job_id))
        return;
    if (strcmp(said->model_id, s->model_id) == 0 && strcmp(said->options, s->h->options) == 0 &&
        (!said->device[0] || strcmp(said->device, s->h->device) == 0))
        submission_take(s, said, "found at the service");
}

/* Does the ledger's last job do what is asked for now? */
static bool job_fits(const fv_aihub *h, const fv_aihub_job *j, const char *model_id)
{
    return j->job_id[0] && strcmp(j->model_id, model_id) == 0 &&
           strcmp(j->device, h->device) == 0 && strcmp(j->os, h->os) == 0 &&
           strcmp(j->options, h->options) == 0;
}

static fv_status submission_recover(submission *s, fv_error *err)
{
    fv_aihub_job j;
    char since[24];
    fv_aihub_job_find(&j, &s->h->jobs, s->name);
    if (!j.pending || strcmp(j.pending_model, s->model_id) != 0 || s->h->o.dry_run)
        return FV_OK;
    fv_aihub_since(since, j.pending_time);
    const char *const words[] = { s->job_name, since, NULL };
    fv_aihub_call call = {
        .stage = "ask", .timeout_s = FV_AIHUB_QUESTION_S, .answer = submission_match, .user = s
    };
    FV_TRY(fv_aihub_ask(&s->h->client, &call, FV_AIHUB_JOBS, words, NULL, err));
    if (s->status != FV_OK)
        *err = s->err;
    return s->status;
}

/* The device and options that hold from here on, where they change, and what is about to happen. */
static fv_status submission_intent(submission *s, fv_error *err)
{
    fv_aihub *h = s->h;
    fv_aihub_job header;
    char now[FV_AIHUB_TIME];

    if (h->o.dry_run)
        return FV_OK;
    fv_aihub_job_header(&header, &h->jobs);
    if (strcmp(header.device, h->device) != 0 || strcmp(header.os, h->os) != 0)
        FV_TRY(fv_aihub_ledger_add(&h->jobs, err, "device=%s os=%s", h->device, h->os));
    if (strcmp(header.options, h->options) != 0)
        FV_TRY(fv_aihub_ledger_add(&h->jobs, err, "compile_options=%s", h->options));
    fv_aihub_time(now);
    return fv_aihub_ledger_add(&h->jobs, err, "# fastvlm submit %s model_id=%s at=%s", s->name,
                               s->model_id, now);
}

static fv_status submission_run(submission *s, fv_error *err)
{
    fv_aihub *h = s->h;
    const char *const words[] = { s->model_id, s->job_name, h->device, h->os, h->options, NULL };
    fv_aihub_call call = {
        .stage = "submit", .timeout_s = FV_AIHUB_QUESTION_S, .answer = submission_answer, .user = s
    };
    for (int n = 1;; n++) {
        bool transient;
        fv_error why;
        FV_TRY(submission_intent(s, err));
        fv_status status = fv_aihub_ask_once(&h->client, &call, FV_AIHUB_SUBMIT, words, &transient,
                                             &why);
        if (s->status != FV_OK) {
            *err = s->err;
            return s->status;
        }
        if (s->found || (status == FV_OK && h->o.dry_run))
            return FV_OK;
        if (status == FV_OK)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: qai_hub names no job; expected its id",
                           s->name);
        if (!transient || n > fv_aihub_retries(&h->client))
            return fv_fail(err, status, 0, "%s (%s): %s", s->name, s->model_id, why.message);
        fv_log(h->o.callbacks, FV_LOG_INFO, "%s: %s", s->name, why.message);
        FV_TRY(fv_aihub_wait(&h->client, "submit", n, err));
        FV_TRY(submission_recover(s, err));
        if (s->found)
            return FV_OK;
    }
}

static fv_status submit_part(fv_aihub *h, int part, fv_error *err)
{
    fv_aihub_model m;
    fv_aihub_job j;
    submission s = { .h = h, .name = fv_aihub_names[part].name };

    FV_TRY(fv_aihub_model_find(&m, &h->models, s.name, err));
    if (!m.model_id[0] && h->o.dry_run)
        snprintf(m.model_id, sizeof m.model_id, "MODEL_ID");
    if (!m.model_id[0])
        return fv_fail(err, FV_ERR_STATE, 0, "%s: has no model id of %s; expected it uploaded",
                       h->models.path, s.name);
    s.model_id = m.model_id;
    snprintf(s.job_name, sizeof s.job_name, "%s" JOB_SUFFIX, s.name);
    if (!h->o.force) {
        FV_TRY(submission_recover(&s, err));
        fv_aihub_job_find(&j, &h->jobs, s.name);
        if (job_fits(h, &j, m.model_id) && !job_has_failed(&j)) {
            fv_log(h->o.callbacks, FV_LOG_INFO, "%s: job %s, %s", s.name, j.job_id, j.status);
            return FV_OK;
        }
    }
    return s.found ? FV_OK : submission_run(&s, err);
}

/* ---- how jobs are doing -------------------------------------------------------------------- */

typedef struct look {
    fv_aihub *h;
    fv_status status;
    fv_error err;
} look;

static void look_answer(void *user, const fv_aihub_said *said)
{
    look *l = user;
    for (int i = 0; i < FV_AIHUB_PARTS && l->status == FV_OK; i++) {
        const char *name = fv_aihub_names[i].name;
        fv_aihub_job j;
        fv_aihub_job_find(&j, &l->h->jobs, name);
        if (!said->status[0] || strcmp(j.job_id, said->job_id) != 0 ||
            strcmp(j.status, said->status) == 0)
            continue;
        memcpy(j.status, said->status, sizeof j.status);
        memcpy(j.message, said->message, sizeof j.message);
        if (said->url[0])
            memcpy(j.url, said->url, sizeof j.url);
        l->status = job_write(l->h, name, &j, &l->err);
        fv_log(l->h->o.callbacks, FV_LOG_INFO, "%s: job %s, %s", name, j.job_id, j.status);
    }
}

fv_status fv_aihub_look(fv_aihub *h, size_t *n_over, size_t *n_jobs, bool *transient, fv_error *err)
{
    fv_aihub_job j[FV_AIHUB_PARTS];
    const char *words[FV_AIHUB_PARTS + 1];
    look l = { .h = h };
    size_t n = 0;

    for (int i = 0; i < FV_AIHUB_PARTS; i++) {
        fv_aihub_job_find(&j[i], &h->jobs, fv_aihub_names[i].name);
        if (fv_aihub_wants(h, i) && h->o.dry_run && !j[i].job_id[0])
            snprintf(j[i].job_id, sizeof j[i].job_id, "JOB_ID");
        if (fv_aihub_wants(h, i) && j[i].job_id[0] && !job_is_over(&j[i]))
            words[n++] = j[i].job_id;
    }
    words[n] = NULL;
    fv_status status = FV_OK;
    if (n > 0) {
        fv_aihub_call call = {
            .stage = "ask", .timeout_s = FV_AIHUB_QUESTION_S, .answer = look_answer, .user = &l
        };
        status = fv_aihub_ask(&h->client, &call, FV_AIHUB_STATUS, words, transient, err);
        if (status == FV_OK && l.status != FV_OK) {
            *err = l.err;
            status = l.status;
        }
    }
    *n_over = *n_jobs = 0;
    for (int i = 0; i < FV_AIHUB_PARTS; i++) {
        fv_aihub_job_find(&j[i], &h->jobs, fv_aihub_names[i].name);
        *n_jobs += fv_aihub_wants(h, i) && j[i].job_id[0];
        *n_over += fv_aihub_wants(h, i) && j[i].job_id[0] && job_is_over(&j[i]);
    }
    return status;
}

/* FV_ERR_IO with the first that has failed. */
static fv_status jobs_judge(const fv_aihub *h, fv_error *err)
{
    fv_status status = FV_OK;
    for (int i = 0; i < FV_AIHUB_PARTS; i++) {
        fv_aihub_job j;
        fv_aihub_job_find(&j, &h->jobs, fv_aihub_names[i].name);
        if (!fv_aihub_wants(h, i) || !job_has_failed(&j))
            continue;
        const char *why = j.message[0] ? j.message : "the service does not say why";
        if (status == FV_OK)
            status = fv_fail(err, FV_ERR_IO, 0, "%s: job %s failed: %s (%s)",
                             fv_aihub_names[i].name, j.job_id, why, j.url);
        else
            fv_log(h->o.callbacks, FV_LOG_WARNING, "%s: job %s failed: %s (%s)",
                   fv_aihub_names[i].name, j.job_id, why, j.url);
    }
    return status;
}

static fv_status jobs_wait(fv_aihub *h, fv_error *err)
{
    double limit_s = h->o.timeout_s > 0 ? h->o.timeout_s : DEFAULT_TIMEOUT_S;
    double until = fv_now_ms() + limit_s * 1e3;
    for (int n = 1;; n++) {
        size_t n_over, n_jobs;
        bool transient = false;
        fv_error why;
        fv_status status = fv_aihub_look(h, &n_over, &n_jobs, &transient, &why);
        if (status != FV_OK && !transient)
            return fv_fail(err, status, 0, "%s", why.message);
        if (status != FV_OK) /* the jobs continue without us */
            fv_log(h->o.callbacks, FV_LOG_WARNING, "%s; waiting on", why.message);
        else if (n_over == n_jobs || h->o.dry_run)
            return FV_OK;
        if (fv_now_ms() >= until)
            return fv_fail(
                err, FV_ERR_LIMIT, 0,
                "%zu of %zu jobs are not finished after %.0f s (timeout_s); they continue "
                "at the service",
                n_jobs - n_over, n_jobs, limit_s);
        FV_TRY(fv_aihub_wait(&h->client, "compile", n, err));
    }
}

fv_status fv_aihub_compile(const fv_aihub_options *options, fv_error *err)
{
    fv_aihub h;
    FV_TRY(fv_aihub_open(&h, options, FV_AIHUB_WORKS, err));
    fv_status status = FV_OK;
    for (int i = 0; i < FV_AIHUB_PARTS && status == FV_OK; i++)
        if (fv_aihub_wants(&h, i))
            status = submit_part(&h, i, err);
    if (status == FV_OK && !h.o.no_wait)
        status = jobs_wait(&h, err);
    if (status == FV_OK && !h.o.no_wait)
        status = jobs_judge(&h, err);
    fv_aihub_close(&h);
    return status;
}

fv_status fv_aihub_refresh(const fv_aihub_options *options, fv_error *err)
{
    fv_aihub h;
    size_t n_over, n_jobs;
    FV_TRY(fv_aihub_open(&h, options, FV_AIHUB_WORKS, err));
    fv_status status = fv_aihub_look(&h, &n_over, &n_jobs, NULL, err);
    fv_aihub_close(&h);
    return status;
}
