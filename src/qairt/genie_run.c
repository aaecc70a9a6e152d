/* Programs of the SDK on a runner: qnn-net-run and the like by lines, genie-t2t-run as it prints.
 * See genie_run.h. */
#include "qairt/genie_run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/outfile.h"
#include "base/report.h"
#include "base/sized.h"
#include "io/json.h"
#include "qairt/run_output.h"
#include "qairt/runner_host.h"

#define DEFAULT_TIMEOUT_S 21600.0

enum { SAID_BYTES = 300, DIALOG_BYTES = 1 << 20 };

/* ---------------------------------------------------------------- what both say */

typedef struct runner_talk {
    const char *name;
    const fv_qairt_options *options;
    fv_json_text *log;
    char last[SAID_BYTES];  /* its last line that is not empty */
    char error[SAID_BYTES]; /* the last that is marked as one */
    bool said_error;
    /* genie-t2t-run */
    const fv_genie_call *call;
    fv_genie_answer *answer;
    fv_status status; /* of taking its answer */
    fv_error err;
} runner_talk;

static void talk_note_line(runner_talk *t, const char *line, size_t n)
{
    while (n && (line[n - 1] == '\r' || line[n - 1] == ' '))
        n--;
    if (!n)
        return;
    snprintf(t->last, sizeof t->last, "%.*s", (int)FV_MIN(n, sizeof t->last - 1), line);
    if (strstr(t->last, "[ ERROR ]") || strstr(t->last, "[ERROR]")) {
        t->said_error = true;
        memcpy(t->error, t->last, sizeof t->error);
    }
    fv_log(t->options->callbacks, FV_LOG_INFO, "%s: %s", t->name, t->last);
    if (t->log)
        fv_json_line(t->log, line, n);
}

static void talk_line(void *user, bool is_error, const char *line, size_t n)
{
    (void)is_error;
    talk_note_line(user, line, n);
}

static bool talk_stop(void *user)
{
    const runner_talk *t = user;
    return t->status != FV_OK || fv_progress(t->options->callbacks, t->name, 0, NULL) != FV_OK;
}

/* Says what is run, and runs it. */
static fv_status talk_run(runner_talk *t, fv_runner *runner, const fv_args *args, bool raw,
                          fv_spawn_line_fn *line, int *exit_code, fv_error *err)
{
    const char *const *argv = (const char *const *)args->list;
    FV_TRY(fv_args_done(args, err));
    const char *slash = strrchr(argv[0], '/');
    t->name = slash ? slash + 1 : argv[0];
    FV_TRY(fv_args_show(argv, runner->environment, t->options->callbacks, t->log, err));
    double timeout_s = t->options->timeout_s > 0 ? t->options->timeout_s : DEFAULT_TIMEOUT_S;
    fv_runner_call call = { .argv = argv,
                            .timeout_ms = timeout_s * 1e3,
                            .line = line,
                            .raw = raw,
                            .stop = talk_stop,
                            .user = t };
    return runner->run(runner, &call, exit_code, err);
}

fv_status fv_runner_tool(fv_runner *runner, const fv_args *args, const fv_qairt_options *options,
                         fv_json_text *log, fv_error *err)
{
    runner_talk t = { .options = options, .log = log };
    int code = 0;
    FV_TRY(talk_run(&t, runner, args, false, talk_line, &code, err));
    if (code != 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s on %s: exit code %d%s%s", t.name, runner->name, code,
                       t.last[0] ? ": " : "", t.error[0] ? t.error : t.last);
    if (t.said_error)
        return fv_fail(err, FV_ERR_IO, 0, "%s on %s: ended with exit code 0 but says: %s", t.name,
                       runner->name, t.error);
    return FV_OK;
}

/* ---------------------------------------------------------------- genie-t2t-run */

static void talk_take_answer(runner_talk *t, const char *data, size_t n)
{
    const char *text;
    size_t n_text;
    if (t->status == FV_OK)
        t->status = fv_genie_answer_add(t->answer, data, n, &t->err);
    while (t->status == FV_OK && t->call->text && fv_genie_answer_next(t->answer, &text, &n_text))
        if ((t->status = t->call->text(t->call->text_user, text, n_text)) != FV_OK)
            fv_fail(&t->err, t->status, 0, "genie-t2t-run: cancelled");
}

static void talk_raw(void *user, bool is_error, const char *data, size_t n)
{
    runner_talk *t = user;
    if (!is_error) {
        talk_take_answer(t, data, n);
        return;
    }
    for (const char *end; n > 0; n -= FV_MIN(n, (size_t)(end - data) + 1), data = end + 1) {
        end = memchr(data, '\n', n);
        end = end ? end : data + n;
        talk_note_line(t, data, (size_t)(end - data));
    }
}

static void genie_args(fv_args *a, const fv_genie_call *c)
{
    fv_args_format(a, "%s/genie-t2t-run", c->runner->programs);
    fv_args_add2(a, "--config", c->dialog);
    if (c->prompt)
        fv_args_add2(a, "--prompt", c->prompt);
    if (c->embeddings) {
        fv_args_add2(a, "--embedding_file", c->embeddings);
        fv_args_add2(a, "--embedding_table", c->table);
        /* "token" has been seen to crash. */
        fv_args_add2(a, "--embedding_query_output_type", "text");
    }
    if (c->profile)
        fv_args_add2(a, "--profile", c->profile);
}

/* The last line of the output in front of the answer, or at all: where a runner merges streams. */
static void answer_last_words(const fv_genie_answer *a, char said[SAID_BYTES])
{
    size_t n = a->n;
    while (n && (a->output[n - 1] == '\n' || a->output[n - 1] == '\r' || a->output[n - 1] == ' '))
        n--;
    size_t at = n;
    while (at && a->output[at - 1] != '\n' && n - at < SAID_BYTES - 1)
        at--;
    snprintf(said, SAID_BYTES, "%.*s", (int)(n - at), n ? a->output + at : "");
}

fv_status fv_genie_run(fv_genie_answer *answer, const char **text, size_t *n_bytes,
                       const fv_genie_call *call, fv_error *err)
{
    runner_talk t = { .options = call->options, .log = call->log, .call = call, .answer = answer };
    fv_args args = { 0 };
    int code = 0;
    *text = "";
    *n_bytes = 0;
    genie_args(&args, call);
    fv_status status = talk_run(&t, call->runner, &args, true, talk_raw, &code, err);
    fv_args_free(&args);
    if (call->log && answer->output)
        fv_json_line(call->log, answer->output, answer->n);
    if (t.status != FV_OK)
        return fv_fail(err, t.status, 0, "%s", t.err.message);
    FV_TRY(status);
    if (code != 0) {
        char said[SAID_BYTES];
        answer_last_words(answer, said);
        return fv_fail(err, FV_ERR_IO, 0, "genie-t2t-run on %s: exit code %d%s%s",
                       call->runner->name, code, t.last[0] || said[0] ? ": " : "",
                       t.last[0] ? t.last : said);
    }
    return fv_genie_answer_end(answer, text, n_bytes, err);
}

/* ---------------------------------------------------------------- fastvlm_qairt.h */

static fv_status file_bytes(const char *path, uint64_t *n, fv_error *err)
{
    fv_map map;
    FV_TRY(fv_map_open(&map, path, err));
    *n = map.size;
    fv_map_close(&map);
    return FV_OK;
}

/* What genie-t2t-run answers with a crash or an exception: files that do not fit the dialog. */
static fv_status dialog_check_files(const fv_qairt_genie_options *g, fv_error *err)
{
    fv_json *doc = NULL;
    const fv_json_value *dialog, *embedding = NULL, *context;
    int64_t width = 0, size = 0, n_vocab = 0;
    uint64_t n_rows = 0, n_table = 0;
    fv_status status = fv_json_open(&doc, g->dialog, DIALOG_BYTES, err);
    FV_TRY(status);
    FV_TRY_GOTO(fv_json_object(doc, fv_json_root(doc), "dialog", &dialog, err));
    FV_TRY_GOTO(fv_json_object(doc, dialog, "context", &context, err));
    FV_TRY_GOTO(fv_json_int(doc, context, "size", 1, INT32_MAX, &size, err));
    FV_TRY_GOTO(fv_json_int(doc, context, "n-vocab", 1, INT32_MAX, &n_vocab, err));
    if (!g->embeddings)
        goto fail;
    FV_TRY_GOTO(fv_json_object(doc, dialog, "embedding", &embedding, err));
    FV_TRY_GOTO(fv_json_int(doc, embedding, "size", 1, 1 << 20, &width, err));
    FV_TRY_GOTO(file_bytes(g->embeddings, &n_rows, err));
    FV_TRY_GOTO(file_bytes(g->table, &n_table, err));
    uint64_t row = (uint64_t)width * sizeof(float);
    if (!n_rows || n_rows % row)
        status = fv_fail(err, FV_ERR_FORMAT, 0,
                         "%s: has %" PRIu64 " bytes; expected rows of %" PRIu64 ", the dialog's "
                         "embedding.size in f32",
                         g->embeddings, n_rows, row);
    else if (n_rows / row >= (uint64_t)size)
        status = fv_fail(err, FV_ERR_LIMIT, 0,
                         "%s: the prompt has %" PRIu64 " rows; the dialog's context holds %" PRId64
                         ", and one must stay free for the answer",
                         g->embeddings, n_rows / row, size);
    else if (n_table != (uint64_t)n_vocab * row)
        status = fv_fail(err, FV_ERR_FORMAT, 0,
                         "%s: has %" PRIu64 " bytes; expected %" PRIu64 ", n-vocab rows of f32",
                         g->table, n_table, (uint64_t)n_vocab * row);
fail:
    fv_json_free(doc);
    return status;
}

static fv_status genie_options_check(const fv_qairt_genie_options *g, fv_error *err)
{
    FV_REQUIRE(g->dialog, err);
    if (!g->prompt == !g->embeddings)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "expected either a prompt or embeddings");
    if (g->embeddings && !g->table)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "embeddings need a table, the rows of tokens that are generated");
    if (g->profile && !g->force && fv_is_there(g->profile))
        return fv_fail(err, FV_ERR_IO, 0, "%s: there is such a file already", g->profile);
    if (g->profile)
        FV_TRY(fv_outfile_check(g->profile, err));
    return dialog_check_files(g, err);
}

/* Files by paths that the tool takes; the profile is written to a fresh place. */
static fv_status genie_host_run(const fv_qairt_genie_options *g, fv_runner_host *h,
                                const fv_qairt_options *o, fv_run_profile *profile, fv_error *err)
{
    char dialog[FV_RUNNER_PATH], rows[FV_RUNNER_PATH], table[FV_RUNNER_PATH];
    fv_runner *r = &h->runner;
    fv_genie_answer answer = { 0 };
    const char *text;
    size_t n;
    FV_TRY(r->place(r, g->dialog, "dialog.json", dialog, err));
    if (g->embeddings) {
        FV_TRY(r->place(r, g->embeddings, "embeddings.raw", rows, err));
        FV_TRY(r->place(r, g->table, "LUT.bin", table, err));
    }
    char *written = fv_path_join(h->root, "profile.json");
    if (!written)
        return fv_fail_memory(err, strlen(h->root), "a path");
    fv_genie_call call = { .runner = r,
                           .dialog = dialog,
                           .prompt = g->prompt,
                           .embeddings = g->embeddings ? rows : NULL,
                           .table = g->embeddings ? table : NULL,
                           .profile = written,
                           .text = g->text,
                           .text_user = g->text_user,
                           .options = o };
    fv_status status = fv_genie_run(&answer, &text, &n, &call, err);
    if (status == FV_OK)
        status = fv_run_profile_read(profile, written, err);
    if (status == FV_OK && g->profile)
        status = r->get(r, written, g->profile, err);
    fv_genie_answer_free(&answer);
    fv_free(written);
    return status;
}

fv_qairt_profile fv_qairt_profile_of(const fv_run_profile *p)
{
    return (fv_qairt_profile){ .size = sizeof(fv_qairt_profile),
                               .init_ms = p->init_us >= 0 ? p->init_us / 1e3 : -1,
                               .first_token_ms = p->first_token_us >= 0 ? p->first_token_us / 1e3
                                                                        : -1,
                               .prompt_rate = p->prompt_rate,
                               .generation_rate = p->generation_rate,
                               .n_prompt_tokens = p->n_prompt_tokens,
                               .n_generated = p->n_generated };
}

fv_status fv_qairt_genie(const fv_qairt_genie_options *genie, const fv_qairt_options *options,
                         fv_qairt_profile *profile, fv_error *err)
{
    fv_qairt_genie_options g;
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_runner_host host;
    fv_run_profile measured = fv_run_profile_none();
    FV_TRY(FV_OPTIONS_IN(&g, fv_qairt_genie_options, genie, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    if (profile)
        FV_TRY(FV_RESULT_CHECK(profile, fv_qairt_profile, err));
    FV_TRY(genie_options_check(&g, err));
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    fv_status status = fv_runner_host_open(&host, &sdk, err);
    if (status == FV_OK) {
        status = genie_host_run(&g, &host, &o, &measured, err);
        fv_runner_host_close(&host);
    }
    fv_sdk_close(&sdk);
    if (status == FV_OK) {
        fv_qairt_profile p = fv_qairt_profile_of(&measured);
        fv_result_out(profile, &p, sizeof p);
    }
    return status;
}
