/* Running the user's AI Hub client. See aihub_client.h. */
#include "qairt/aihub_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"
#include "base/report.h"
#include "base/spawn.h"
#include "qairt/qairt_tool.h"

enum {
    CONFIG_BYTES = 64 << 10,
    HEAD_BYTES = 1024,
    WORDS = 16,
    DEFAULT_WAIT_S = 10,
    DEFAULT_RETRIES = 3,
    TICK_US = 50000
};

#define LONGEST_WAIT_MS 60e3

/* ---- our Python programs ------------------------------------------------------------------- */

/* Nothing is imported from the current directory. What the client prints goes to standard error:
 * standard output is for answers, the last of which is an exception, if there is one. */
#define PYTHON_ANSWER                                                \
    "import sys\n"                                                   \
    "sys.path = [p for p in sys.path if p]\n"                        \
    "import json\n"                                                  \
    "out, sys.stdout = sys.stdout, sys.stderr\n"                     \
    "say = lambda **o: print(json.dumps(o), file=out, flush=True)\n" \
    "sys.excepthook = lambda kind, e, trace: say(error=kind.__name__, message=str(e))\n"
#define PYTHON_HEAD                                \
    PYTHON_ANSWER                                  \
    "import qai_hub as hub\n"                      \
    "from qai_hub import public_rest_api as api\n" \
    "client, words = hub.Client(), sys.argv[1:]\n"

static const char *const python_programs[] = {
    [FV_AIHUB_VERSION] = PYTHON_ANSWER "from importlib.metadata import version\n"
                                       "say(version=version('qai-hub'))\n",

    [FV_AIHUB_CHECK] = PYTHON_HEAD
    "say(user=api.get_auth_user(client.config).email, version=str(hub.__version__))\n",

    /* get_models does not tell whether a model's file has come, the call below it does. */
    [FV_AIHUB_MODELS] = PYTHON_HEAD
    "name, since = words[0], int(words[1])\n"
    "me = api.get_auth_user(client.config).id\n"
    "for at in range(0, 2000, 50):\n"
    "    page = api.get_model_list(client.config, offset=at, limit=50).models\n"
    "    for m in page:\n"
    "        if (m.name == name and m.creation_time.seconds >= since and not m.producer_id\n"
    "                and m.file_upload_complete and m.owner.id in (0, me)):\n"
    "            say(model_id=m.model_id, time=m.creation_time.seconds)\n"
    "    if len(page) < 50 or page[-1].creation_time.seconds < since:\n"
    "        break\n",

    [FV_AIHUB_SUBMIT] = PYTHON_HEAD
    "model, name, device, os, options = words\n"
    "job = client.submit_compile_job(client.get_model(model), hub.Device(device, os),\n"
    "                                name=name, options=options)\n"
    "say(job_id=job.job_id, url=job.url)\n",

    [FV_AIHUB_JOBS] = PYTHON_HEAD
    "name, since = words[0], int(words[1])\n"
    "for at in range(0, 2000, 50):\n"
    "    page = client.get_job_summaries(at, 50, type=hub.JobType.COMPILE)\n"
    "    for s in page:\n"
    "        if s.name == name and s.date.timestamp() >= since:\n"
    "            j = client.get_job(s.job_id)\n"
    "            say(job_id=j.job_id, model_id=j.model.model_id, options=j.options,\n"
    "                device=j.device.name, url=j.url, time=int(s.date.timestamp()))\n"
    "    if len(page) < 50 or page[-1].date.timestamp() < since:\n"
    "        break\n",

    [FV_AIHUB_STATUS] = PYTHON_HEAD
    "for id in words:\n"
    "    j = client.get_job(id)\n"
    "    s = j.get_status()\n"
    "    say(job_id=id, status=s.code, message=s.message or '', url=j.url)\n",

    /* download_results would take the file's name, folders and all, from the service. The size that
     * the service announces is only told to the progress bar; with an older urllib3 the client
     * takes what comes for the whole. */
    [FV_AIHUB_DOWNLOAD] = PYTHON_HEAD
    "import os\n"
    "from qai_hub import api_utils\n"
    "sizes, bar = [0], api_utils.get_progress_bar\n"
    "def bar_of(name, size, *more):\n"
    "    sizes.append(size)\n"
    "    return bar(name, size, *more)\n"
    "api_utils.get_progress_bar = bar_of\n"
    "target = client.get_job(words[0]).get_target_model()\n"
    "if target is None:\n"
    "    raise ValueError('the job has no compiled model')\n"
    "path = target.download(words[1])\n"
    "size = os.path.getsize(path)\n"
    "if sizes[-1] and size != sizes[-1]:\n"
    "    raise ConnectionError('%d of %d bytes have come' % (size, sizes[-1]))\n"
    "if not path.endswith('.bin'):\n"
    "    raise ValueError('expected a context binary, the service gave ' + path)\n"
    "os.replace(path, words[1])\n"
    "say(model_id=target.model_id)\n",
};

/* ---- finding the client -------------------------------------------------------------------- */

/* The path in  #!/home/u/venv/bin/python3  or, where that would be too long for the system,
 * #!/bin/sh  '''exec' "/home/u/.../python3" "$0" "$@"  in the first lines of a script. */
static bool script_python(char *out, size_t size, const char *head)
{
    size_t n = strcspn(head, "\n");
    const char *second = head + n + (head[n] == '\n'), *at = head + 2;
    static const char exec[] = "'''exec' ";

    if (strncmp(head, "#!", 2) != 0)
        return false;
    if (strncmp(second, exec, sizeof exec - 1) == 0) {
        at = second + sizeof exec - 1;
        bool quoted = *at == '"';
        at += quoted;
        n = strcspn(at, quoted ? "\"\n" : " \n");
    } else {
        at += strspn(at, " ");
        n = strcspn(at, " \r\n");
        if (n == 12 && memcmp(at, "/usr/bin/env", 12) == 0) {
            at += 12;
            at += strspn(at, " ");
            n = strcspn(at, " \r\n");
        }
    }
    snprintf(out, size, "%.*s", (int)FV_MIN(n, size - 1), at);
    const char *name = strrchr(out, '/') ? strrchr(out, '/') + 1 : out;
    return n < size && strncmp(name, "python", 6) == 0;
}

/* The Python that runs the program, else the one beside it, else the one on PATH. */
static fv_status python_find(fv_aihub_client *c, fv_error *err)
{
    char head[HEAD_BYTES + 1], path[HEAD_BYTES];
    FILE *file = fopen(c->program, "rb");
    size_t n = file ? fread(head, 1, HEAD_BYTES, file) : 0;
    const char *slash = strrchr(c->program, '/');

    if (file)
        fclose(file);
    head[n] = '\0';
    if (!script_python(path, sizeof path, head)) {
        int length = slash ? snprintf(path, sizeof path, "%.*s/python3", (int)(slash - c->program),
                                      c->program)
                           : 0;
        if (length <= 0 || (size_t)length >= sizeof path || access(path, X_OK) != 0)
            snprintf(path, sizeof path, "python3");
    }
    c->python = fv_strdup(path);
    return c->python ? FV_OK : fv_fail_memory(err, sizeof path, "a path");
}

/* As the client does: QAIHUB_CLIENT_INI, else ~/.qai_hub/client.ini. */
static fv_status config_find(fv_aihub_client *c, fv_error *err)
{
    const char *home = getenv("HOME"), *named = getenv("QAIHUB_CLIENT_INI");
    const char *in_home = !named ? ".qai_hub/client.ini"
                                 : (strncmp(named, "~/", 2) == 0 ? named + 2 : NULL);
    if (in_home && !(home && *home))
        return fv_fail(err, FV_ERR_IO, 0,
                       "HOME is not set; expected the home directory that holds %s", in_home);
    c->config = in_home ? fv_path_join(home, in_home) : fv_strdup(named);
    return c->config ? FV_OK : fv_fail_memory(err, 16, "a path");
}

static fv_status config_read(fv_aihub_client *c, fv_error *err)
{
    uint8_t *text;
    size_t n;
    if (!fv_is_there(c->config))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: not found; expected the API token of a Qualcomm AI Hub account in it",
                       c->config);
    FV_TRY(fv_read_file(&text, &n, c->config, CONFIG_BYTES, err));
    c->token = fv_aihub_config_value((const char *)text, "api_token");
    fv_free(text);
    if (!c->token)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: no api_token in section [api]; expected the API token of a Qualcomm "
                       "AI Hub account",
                       c->config);
    return FV_OK;
}

static fv_status program_look(fv_aihub_client *c, const char *name, fv_error *err)
{
    if (fv_program_find(&c->program, name, NULL) != FV_OK || access(c->program, X_OK) != 0) {
        fv_free(c->program);
        c->program = NULL;
        return FV_OK;
    }
    if (!c->options->python)
        return python_find(c, err);
    c->python = fv_strdup(c->options->python);
    return c->python ? FV_OK : fv_fail_memory(err, strlen(c->options->python), "a path");
}

fv_status fv_aihub_client_look(fv_aihub_client *c, const fv_aihub_options *options, fv_error *err)
{
    fv_error why;
    *c = (fv_aihub_client){ .options = options, .jitter = (uint32_t)fv_now_ms() };
    fv_status status = program_look(c, options->client ? options->client : "qai-hub", err);
    if (status == FV_OK && config_find(c, &why) == FV_OK)
        config_read(c, &why); /* or there is no token */
    if (status != FV_OK)
        fv_aihub_client_close(c);
    return status;
}

/* What must be there; with dry_run what is not there has its usual name. */
static fv_status client_complete(fv_aihub_client *c, fv_error *err)
{
    const fv_aihub_options *o = c->options;
    const char *name = o->client ? o->client : "qai-hub";

    if (o->dry_run && !c->program) {
        c->program = fv_strdup(name);
        c->python = fv_strdup(o->python ? o->python : "python3");
        return c->program && c->python ? FV_OK : fv_fail_memory(err, strlen(name), "a path");
    }
    if (!c->program)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: program not found; expected the AI Hub's client, the Python package "
                       "qai-hub",
                       name);
    if (o->dry_run || c->token)
        return FV_OK;
    return c->config ? config_read(c, err) : config_find(c, err);
}

fv_status fv_aihub_client_open(fv_aihub_client *c, const fv_aihub_options *options, fv_error *err)
{
    FV_TRY(fv_aihub_client_look(c, options, err));
    fv_status status = client_complete(c, err);
    if (status != FV_OK)
        fv_aihub_client_close(c);
    return status;
}

void fv_aihub_client_close(fv_aihub_client *c)
{
    fv_free(c->program);
    fv_free(c->python);
    fv_free(c->config);
    fv_free(c->token);
    *c = (fv_aihub_client){ 0 };
}

/* ---- one run ------------------------------------------------------------------------------- */

typedef struct client_run {
    const fv_aihub_client *client;
    const fv_aihub_call *call;
    bool is_upload;
    char model_id[FV_AIHUB_ID]; /* of an upload */
    char error[FV_AIHUB_ID];    /* the exception that ended it */
    char message[FV_AIHUB_TEXT];
    fv_aihub_trace trace;
} client_run;

static bool client_stop(void *user)
{
    const client_run *r = user;
    return fv_progress(r->client->options->callbacks, r->call->stage, r->call->done, NULL) != FV_OK;
}

static void client_line(void *user, bool is_error, const char *line, size_t n)
{
    client_run *r = user;
    fv_aihub_said said;

    if (is_error) {
        fv_aihub_trace_take(&r->trace, line, n, r->client->token);
    } else if (r->is_upload) {
        fv_aihub_upload_read(r->model_id, line, n);
    } else if (fv_aihub_said_read(&said, line, n, r->client->token)) {
        if (said.error[0]) {
            memcpy(r->error, said.error, sizeof r->error);
            memcpy(r->message, said.message, sizeof r->message);
        } else if (r->call->answer) {
            r->call->answer(r->call->user, &said);
        }
    }
}

/* The message for what went wrong; *transient when it may go well the next time. */
static fv_status client_judge(const client_run *r, const char *name, const fv_error *why,
                              bool *transient, fv_error *err)
{
    const fv_aihub_client *c = r->client;
    const char *error = r->error[0] ? r->error : r->trace.error;
    const char *message = r->error[0] ? r->message : r->trace.message;
    char quoted[FV_AIHUB_TEXT];

    *transient = false;
    if (why->status != FV_ERR_IO)
        return fv_fail(err, why->status, 0, "%s", why->message);
    switch (fv_aihub_trouble_of(error, message)) {
    case FV_AIHUB_TOKEN:
        return fv_fail(err, FV_ERR_IO, 0,
                       "Qualcomm AI Hub refuses the API token in %s: it is wrong or has expired",
                       c->config);
    case FV_AIHUB_CONFIG:
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s cannot be used (%s); expected the API token of a Qualcomm AI Hub "
                       "account in it",
                       c->config, message);
    case FV_AIHUB_PACKAGE:
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: has no package qai_hub; expected the Python that runs %s", c->python,
                       c->program);
    case FV_AIHUB_TRANSIENT: *transient = true; break;
    case FV_AIHUB_FINAL: break;
    }
    if (error[0])
        return fv_fail(err, FV_ERR_IO, 0, "%s: %s%s%s", name, error, message[0] ? ": " : "",
                       message);
    fv_aihub_clean(quoted, sizeof quoted, why->message, strlen(why->message), c->token);
    return fv_fail(err, FV_ERR_IO, 0, "%s", quoted);
}

/* argv as it is. */
static fv_status client_run_once(client_run *r, const char *const *argv, const char *name,
                                 bool *transient, fv_error *err)
{
    const fv_aihub_client *c = r->client;
    char temporary[HEAD_BYTES];
    fv_spawn_result result;
    fv_error why = { 0 };

    *transient = false;
    if (c->options->dry_run)
        return fv_args_show(argv, NULL, c->options->callbacks, NULL, err);
    snprintf(temporary, sizeof temporary, "TMPDIR=%s",
             r->call->temporary ? r->call->temporary : "");
    /* The client draws with characters that a plain locale does not have. */
    const char *const environment[] = { "PYTHONIOENCODING=utf-8", "PYTHONUNBUFFERED=1",
                                        r->call->temporary ? temporary : NULL, NULL };
    fv_spawn_options options = { .argv = argv,
                                 .environment = environment,
                                 .timeout_ms = r->call->timeout_s * 1e3,
                                 .line = client_line,
                                 .stop = client_stop,
                                 .user = r };
    fv_status status = fv_spawn_run(&result, &options, &why);
    fv_spawn_result_free(&result);
    return status == FV_OK ? FV_OK : client_judge(r, name, &why, transient, err);
}

fv_status fv_aihub_ask_once(fv_aihub_client *c, const fv_aihub_call *call, fv_aihub_program program,
                            const char *const *words, bool *transient, fv_error *err)
{
    const char *argv[WORDS] = { c->python, "-c", python_programs[program] };
    client_run r = { .client = c, .call = call };
    for (size_t n = 3; *words && n + 1 < WORDS; words++)
        argv[n++] = *words;
    return client_run_once(&r, argv, "qai_hub", transient, err);
}

fv_status fv_aihub_ask(fv_aihub_client *c, const fv_aihub_call *call, fv_aihub_program program,
                       const char *const *words, bool *transient, fv_error *err)
{
    for (int n = 1;; n++) {
        bool again;
        fv_error why;
        fv_status status = fv_aihub_ask_once(c, call, program, words, &again, &why);
        if (transient)
            *transient = again;
        if (status == FV_OK)
            return FV_OK;
        if (!again || n > fv_aihub_retries(c))
            return fv_fail(err, status, 0, "%s", why.message);
        fv_log(c->options->callbacks, FV_LOG_INFO, "%s", why.message);
        FV_TRY(fv_aihub_wait(c, call->stage, n, err));
    }
}

fv_status fv_aihub_upload_once(fv_aihub_client *c, const fv_aihub_call *call, const char *file,
                               const char *name, char model_id[FV_AIHUB_ID], bool *transient,
                               fv_error *err)
{
    const char *const argv[] = {
        c->program, "upload-model", "--model", file, "--name", name, NULL
    };
    client_run r = { .client = c, .call = call, .is_upload = true };
    fv_status status = client_run_once(&r, argv, "qai-hub", transient, err);
    memcpy(model_id, r.model_id, FV_AIHUB_ID);
    if (status == FV_OK && !r.model_id[0] && !c->options->dry_run)
        return fv_fail(
            err, FV_ERR_FORMAT, 0,
            "qai-hub upload-model: ended with exit code 0 but names no model; expected a "
            "line \"model_id : m...\"");
    return status;
}

/* ---- waiting ------------------------------------------------------------------------------- */

int fv_aihub_retries(const fv_aihub_client *c)
{
    int retries = c->options->retries;
    return retries < 0 ? 0 : retries ? retries : DEFAULT_RETRIES;
}

fv_status fv_aihub_wait(fv_aihub_client *c, const char *stage, int n, fv_error *err)
{
    double ms = 1e3 * (c->options->wait_s > 0 ? c->options->wait_s : DEFAULT_WAIT_S);
    double longest = FV_MAX(ms, LONGEST_WAIT_MS);
    for (int i = 1; i < n && ms < longest; i++)
        ms *= 1.5;
    c->jitter = c->jitter * 1664525u + 1013904223u;
    ms = FV_MIN(ms, longest) * (0.8 + 0.4 * (double)(c->jitter >> 8) / (double)(1 << 24));
    for (double until = fv_now_ms() + ms; fv_now_ms() < until;) {
        FV_TRY(fv_progress(c->options->callbacks, stage, 0, err));
        usleep(TICK_US);
    }
    return FV_OK;
}
