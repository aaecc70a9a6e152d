/* fastvlm hub: the reference pipeline's uploads and fp16 context binaries at Qualcomm AI Hub. */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "fastvlm_qairt.h"
#include "npu.h"

typedef struct hub_line {
    progress_line line; /* first: the library's callbacks get it */
    bool quiet, dry_run;
} hub_line;

typedef struct hub_options {
    fv_aihub_options o;
    fv_callbacks callbacks;
    hub_line line;
    text_list only;
    float timeout_min, wait_s;
    int retries;
    bool json;
} hub_options;

static void hub_log(void *user, fv_log_level level, const char *message)
{
    const hub_line *line = user;
    if (line->dry_run) {
        print_out("%s\n", message);
    } else if (level == FV_LOG_WARNING || !line->quiet) {
        clear_line();
        print_err("fastvlm hub: %s%s\n", level == FV_LOG_WARNING ? "warning: " : "", message);
    }
}

static bool hub_progress(void *user, const char *stage, double done)
{
    hub_line *line = user;
    line->line.enabled = !line->quiet && done > 0;
    return show_progress(&line->line, stage, done);
}

static void hub_begin(hub_options *h)
{
    *h = (hub_options){ .retries = 3 };
    fv_aihub_options_default(&h->o);
    h->callbacks = (fv_callbacks){
        .size = sizeof h->callbacks, .log = hub_log, .progress = hub_progress, .user = &h->line
    };
    h->o.callbacks = &h->callbacks;
}

/* clang-format off */
#define HUB_CLIENT(h)                                                                             \
    { 0, "client", OPTION_TEXT, &(h).o.client, "FILE",                                            \
      "the program qai-hub (default: the one on PATH)", 0, 0 },                                   \
    { 0, "python", OPTION_TEXT, &(h).o.python, "FILE",                                            \
      "the Python that has its package (default: the one that runs qai-hub)", 0, 0 },             \
    { 0, "retries", OPTION_INT, &(h).retries, "N",                                                \
      "retries of a request that may go well the next time (default: 3)", 0, 20 },                \
    { 0, "wait", OPTION_FLOAT, &(h).wait_s, "SECONDS",                                            \
      "before the second look at a job or try at a request (default: 10); grows to a minute",     \
      0.01, 3600 },                                                                               \
    { 0, "dry-run", OPTION_FLAG, &(h).o.dry_run, NULL,                                            \
      "print every command that would be run, and run none", 0, 0 },                              \
    { 0, "json", OPTION_FLAG, &(h).json, NULL, "print the result as JSON", 0, 0 },                \
    { 'q', "quiet", OPTION_FLAG, &(h).line.quiet, NULL, "print only the result", 0, 0 }
#define HUB_PARTS(h)                                                                              \
    { 0, "only", OPTION_LIST, &(h).only, "PART",                                                  \
      "vision, embed or decoder; may come several times (default: all)", 0, 0 },                  \
    { 0, "ledgers", OPTION_TEXT, &(h).o.ledger_dir, "DIR",                                        \
      "directory of qaihub-model-ids.txt and qaihub-fp16-jobs.txt (default: handoff)", 0, 0 }
#define HUB_PLACE(h)                                                                              \
    { 'o', "output", OPTION_TEXT, &(h).o.output_dir, "DIR",                                       \
      "directory of context binaries (default: models/fastvlm-qaihub-fp16-context)", 0, 0 }
/* clang-format on */

static const char *const part_words[FV_AIHUB_PARTS] = { "vision", "embed", "decoder" };

/* What the options say beyond their values; -1, or an exit code. */
static int hub_ready(hub_options *h, const char *verb)
{
    for (size_t i = 0; i < h->only.n; i++) {
        int part = 0;
        while (part < FV_AIHUB_PARTS && strcmp(h->only.item[i], part_words[part]) != 0)
            part++;
        if (part == FV_AIHUB_PARTS)
            return usage_error(verb, "--only: expected vision, embed or decoder, found %s",
                               h->only.item[i]);
        h->o.parts |= 1u << part;
    }
    h->o.retries = h->retries ? h->retries : -1;
    h->o.wait_s = (double)h->wait_s;
    h->o.timeout_s = (double)h->timeout_min * 60;
    h->line.dry_run = h->o.dry_run;
    catch_interrupt();
    return -1;
}

/* ---- results ------------------------------------------------------------------------------ */

static json_t *item_json(const fv_aihub_item_info *i)
{
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:I}", "name", i->name, "model_id",
                     json_text(i->model_id), "job_id", json_text(i->job_id), "status",
                     json_text(i->job_status), "message", json_text(i->message), "url",
                     json_text(i->url), "file", json_text(i->file), "bytes",
                     (json_int_t)i->file_bytes);
}

static void item_print(const fv_aihub_item_info *i)
{
    print_out("%s\n", i->name);
    print_out("  model  %s\n", i->model_id[0] ? i->model_id : "not uploaded");
    if (!i->job_id[0]) {
        print_out("  job    none\n");
        return;
    }
    print_out("  job    %s, %s%s%s\n", i->job_id, i->job_status, i->message[0] ? ": " : "",
              i->message);
    print_out("         %s\n", i->url);
    if (i->file[0])
        print_out("  file   %s, %.1f MB\n", i->file, (double)i->file_bytes / 1e6);
}

/* What the ledgers say of the parts that were asked for. */
static int items_print(const hub_options *h)
{
    fv_error err;
    json_t *list = h->json ? json_array() : NULL;
    for (int part = 0; part < FV_AIHUB_PARTS; part++) {
        fv_aihub_item_info i = { .size = sizeof i };
        if (h->o.parts && !(h->o.parts >> part & 1))
            continue;
        if (fv_aihub_item(&i, (fv_aihub_part)part, &h->o, &err) != FV_OK) {
            json_decref(list);
            return report(&err);
        }
        if (h->json)
            json_array_append_new(list, item_json(&i));
        else
            item_print(&i);
    }
    return h->json ? print_json(list, 0) : end_out();
}

/* The end of a verb: its failure and how to continue, or what there is now. */
static int hub_end(const hub_options *h, fv_status status, const fv_error *err, const char *again)
{
    clear_line();
    if (status == FV_OK)
        return h->o.dry_run ? end_out() : items_print(h);
    int code = report(err);
    if (status == FV_ERR_CANCELLED || status == FV_ERR_LIMIT)
        print_err("fastvlm hub: %s\n", again);
    return code;
}

/* ---- login-check -------------------------------------------------------------------------- */

/* Fails when something is missing that the other commands need. */
static int account_print(const fv_aihub_account *a, bool json)
{
    bool whole = a->client[0] && a->version[0] && a->has_token;
    int code;
    if (json) {
        code = print_json(json_pack("{s:o, s:o, s:o, s:o, s:b, s:o}", "client",
                                    json_text(a->client), "python", json_text(a->python), "version",
                                    json_text(a->version), "config", json_text(a->config), "token",
                                    a->has_token ? 1 : 0, "user", json_text(a->user)),
                          0);
    } else {
        print_out("client   %s\n",
                  a->client[0] ? a->client : "no qai-hub on PATH; pip install qai-hub==0.56.0");
        if (a->client[0])
            print_out("python   %s, %s%s\n", a->python,
                      a->version[0] ? "qai-hub " : "without qai-hub", a->version);
        print_out("config   %s, %s\n", a->config,
                  a->has_token ? "with a token"
                               : "without a token; qai-hub configure --api_token TOKEN");
        if (a->user[0])
            print_out("account  %s\n", a->user);
        code = end_out();
    }
    return whole ? code : EXIT_FAILED;
}

static int hub_login_check(int argc, char **argv)
{
    static const usage use = {
        "hub login-check [OPTIONS]",
        "Shows which client, Python and configuration would be used, and asks the service whose "
        "account the API token belongs to. The token itself is never shown.",
        "  fastvlm hub login-check",
    };
    hub_options h;
    fv_error err;
    fv_aihub_account a = { .size = sizeof a };
    bool offline = false;

    hub_begin(&h);
    const option_spec options[] = {
        { 0, "offline", OPTION_FLAG, &offline, NULL, "only what is on this machine", 0, 0 },
        HUB_CLIENT(h),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    code = hub_ready(&h, argv[0]);
    if (code >= 0)
        return code;
    fv_status status = offline ? fv_aihub_find(&a, &h.o, &err) : fv_aihub_check(&a, &h.o, &err);
    if (status != FV_OK)
        return report(&err);
    return h.o.dry_run ? end_out() : account_print(&a, h.json);
}

/* ---- upload ------------------------------------------------------------------------------- */

static int hub_upload(int argc, char **argv)
{
    static const usage use = {
        "hub upload [OPTIONS] [DIR]",
        "Uploads the exported ONNX files in DIR (default: models/fastvlm-onnx-fp32) and notes "
        "their model ids in handoff/qaihub-model-ids.txt. A file that is there already, by its "
        "SHA-256, is not uploaded again. Run again, it continues where it was interrupted.",
        "  fastvlm export onnx FastVLM-0.5B -o models/fastvlm-onnx-fp32 --precision f32\n"
        "  fastvlm hub upload",
    };
    hub_options h;
    fv_error err;
    text_list words;

    hub_begin(&h);
    const option_spec options[] = {
        HUB_PARTS(h),
        { 0, "force", OPTION_FLAG, &h.o.force, NULL, "upload again what is there already", 0, 0 },
        HUB_CLIENT(h),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n > 1)
        return usage_error(argv[0], "expected one directory, found %zu arguments", words.n);
    h.o.onnx_dir = words.n ? words.item[0] : NULL;
    code = hub_ready(&h, argv[0]);
    if (code >= 0)
        return code;
    fv_status status = fv_aihub_upload(&h.o, &err);
    return hub_end(&h, status, &err,
                   "the same command continues: what has reached the service is found again");
}

/* ---- compile ------------------------------------------------------------------------------ */

static int hub_compile(int argc, char **argv)
{
    static const usage use = {
        "hub compile [OPTIONS]",
        "Has the uploaded models compiled to float16 QNN context binaries for the chip, and waits "
        "for the jobs. They are noted in handoff/qaihub-fp16-jobs.txt; run again, it waits for "
        "those that are there.",
        "  fastvlm hub compile --soc sm8750\n  fastvlm hub compile --only vision --qairt-version "
        "2.42",
    };
    hub_options h;
    fv_error err;

    hub_begin(&h);
    const option_spec options[] = {
        HUB_PARTS(h),
        { 0, "soc", OPTION_TEXT, &h.o.soc, "NAME",
          "the phone's chip (default: sm8750); fastvlm npu socs lists them", 0, 0 },
        { 0, "device", OPTION_TEXT, &h.o.device, "NAME",
          "a device as the Hub names it (default: one with that chip)", 0, 0 },
        { 0, "device-os", OPTION_TEXT, &h.o.device_os, "VERSION", "of the device's system", 0, 0 },
        { 0, "qairt-version", OPTION_TEXT, &h.o.qairt_version, "X.Y",
          "compile with that release, the phone's or an older one (default: the Hub's)", 0, 0 },
        { 0, "compile-options", OPTION_TEXT, &h.o.compile_options, "TEXT",
          "in place of the pipeline's", 0, 0 },
        { 0, "no-wait", OPTION_FLAG, &h.o.no_wait, NULL, "submit, and do not wait", 0, 0 },
        { 0, "timeout", OPTION_FLOAT, &h.timeout_min, "MINUTES",
          "stop waiting after that time (default: 120)", 0.001, 10080 },
        { 0, "force", OPTION_FLAG, &h.o.force, NULL, "submit again what is there already", 0, 0 },
        HUB_CLIENT(h),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    code = hub_ready(&h, argv[0]);
    if (code >= 0)
        return code;
    fv_status status = fv_aihub_compile(&h.o, &err);
    return hub_end(
        &h, status, &err,
        "jobs continue at the service: the same command waits for them again, fastvlm hub "
        "status looks at them");
}

/* ---- status ------------------------------------------------------------------------------- */

static int hub_status(int argc, char **argv)
{
    static const usage use = {
        "hub status [OPTIONS]",
        "Shows what the ledgers say of the models, after asking the service about jobs that were "
        "not finished. Fails when a job has.",
        "  fastvlm hub status",
    };
    hub_options h;
    fv_error err;
    bool offline = false;

    hub_begin(&h);
    const option_spec options[] = {
        HUB_PARTS(h),
        HUB_PLACE(h),
        { 0, "offline", OPTION_FLAG, &offline, NULL, "only what the ledgers say", 0, 0 },
        HUB_CLIENT(h),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    code = hub_ready(&h, argv[0]);
    if (code >= 0)
        return code;
    fv_status status = offline ? FV_OK : fv_aihub_refresh(&h.o, &err);
    return hub_end(&h, status, &err, "fastvlm hub status asks again");
}

/* ---- download ----------------------------------------------------------------------------- */

static int hub_download(int argc, char **argv)
{
    static const usage use = {
        "hub download [OPTIONS]",
        "Fetches the context binaries of the jobs that have succeeded, each into a directory of "
        "its model. They are read with Qualcomm's libraries where those are there, and must be for "
        "the chip.",
        "  fastvlm hub download",
    };
    hub_options h;
    fv_error err;

    hub_begin(&h);
    const option_spec options[] = {
        HUB_PARTS(h),
        HUB_PLACE(h),
        { 0, "soc", OPTION_TEXT, &h.o.soc, "NAME", "the phone's chip (default: sm8750)", 0, 0 },
        QNN_OPTION(h.o.qnn_dir),
        { 0, "force", OPTION_FLAG, &h.o.force, NULL, "fetch again, and replace what differs", 0,
          0 },
        HUB_CLIENT(h),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    code = hub_ready(&h, argv[0]);
    if (code >= 0)
        return code;
    fv_status status = fv_aihub_download(&h.o, &err);
    return hub_end(&h, status, &err, "the same command continues with what is missing");
}

/* ------------------------------------------------------------------------------------------- */

int verb_hub(int argc, char **argv)
{
    static const verb_entry commands[] = {
        { "login-check", "show the account that the client would use", hub_login_check },
        { "upload", "upload the exported ONNX files", hub_upload },
        { "compile", "have them compiled for a chip, and wait", hub_compile },
        { "status", "show models and jobs", hub_status },
        { "download", "fetch the context binaries", hub_download },
    };
    static const verb_group group = {
        .name = "hub",
        .what = "command",
        .placeholder = "COMMAND",
        .arguments = "[OPTIONS] ...",
        .about = "The reference Qualcomm pipeline's fp16 context binaries, made at Qualcomm's AI\n"
                 "Hub. Needs an account there and its client: pip install qai-hub==0.56.0.",
        .example = "  fastvlm hub login-check\n  fastvlm hub upload && fastvlm hub compile && "
                   "fastvlm hub download\n",
        .entries = commands,
        .n = sizeof commands / sizeof *commands,
    };
    return run_verb_group(&group, argc, argv);
}
