/* fastvlm pull: fetch a checkpoint from the Hugging Face hub. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "fastvlm_pull.h"

typedef struct pull_line {
    bool enabled, moving;
    fv_pull *pull;
    double started; /* s, when bytes began to come */
    uint64_t received_then;
} pull_line;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void show_bytes(pull_line *line, const fv_pull_info *p, bool checking)
{
    if (!line->moving && p->received_bytes > 0) {
        line->moving = true;
        line->started = now_s();
        line->received_then = p->received_bytes;
    }
    double elapsed = line->moving ? now_s() - line->started : 0;
    double rate = elapsed > 0.5 ? (double)(p->received_bytes - line->received_then) / elapsed : 0;
    double left = (double)(p->total_bytes - p->have_bytes);
    char speed[64] = "";
    if (rate > 0)
        snprintf(speed, sizeof speed, ", %.1f MB/s, %.0f:%02.0f left", rate / 1e6,
                 (double)(long)(left / rate / 60), (double)((long)(left / rate) % 60));
    show_line("%s%.1f of %.1f MB%s  %s", checking ? "checking, " : "", (double)p->have_bytes / 1e6,
              (double)p->total_bytes / 1e6, speed, p->current);
}

static bool pull_on_progress(void *user, const char *stage, double done)
{
    pull_line *line = user;
    fv_pull_info info = { .size = sizeof info };
    (void)done;
    if (line->enabled && line->pull) {
        fv_pull_describe(line->pull, &info);
        show_bytes(line, &info, !strcmp(stage, "check"));
    }
    return interrupted();
}

static void on_log(void *user, fv_log_level level, const char *message)
{
    (void)user;
    (void)level;
    clear_line();
    print_err("fastvlm pull: %s\n", message);
}

static void describe(const fv_pull_info *i)
{
    print_err("%s at %.12s: %zu files, %.1f MB, into the directory %s", i->repo, i->commit,
              i->n_files, (double)i->total_bytes / 1e6, i->dir);
    if (i->have_bytes > 0)
        print_err("; %.1f MB already present", (double)i->have_bytes / 1e6);
    print_err("\nlicence: %s%s%s%s\n", i->license[0] ? i->license : "none named in the model card",
              i->license_file[0] ? ", see " : "", i->license_file,
              i->gated ? " (accepted on the hub)" : "");
}

static int print_result(const fv_pull *pull, bool complete)
{
    fv_pull_info i = { .size = sizeof i };
    fv_pull_file_info f = { .size = sizeof f };
    json_t *files = json_array();
    fv_pull_describe(pull, &i);
    for (size_t k = 0; fv_pull_file(pull, k, &f); k++)
        json_array_append_new(files, json_pack("{s:o, s:I, s:I, s:s, s:s}", "name",
                                               json_text(f.name), "bytes", (json_int_t)f.n_bytes,
                                               "have_bytes", (json_int_t)f.have_bytes, "hash_type",
                                               f.sha256 ? "sha256" : "git-sha1", "hash", f.hash));
    json_t *root = json_pack("{s:o, s:o, s:s, s:o, s:o, s:o, s:b, s:b, s:I, s:I, s:o}", "repo",
                             json_text(i.repo), "revision", json_text(i.revision), "commit",
                             i.commit, "dir", json_text(i.dir), "license", json_text(i.license),
                             "license_file", json_text(i.license_file), "gated", i.gated ? 1 : 0,
                             "complete", complete ? 1 : 0, "bytes", (json_int_t)i.total_bytes,
                             "received_bytes", (json_int_t)i.received_bytes, "files", files);
    return print_json(root, 0);
}

static void print_list(const fv_pull *pull)
{
    fv_pull_file_info f = { .size = sizeof f };
    for (size_t k = 0; fv_pull_file(pull, k, &f); k++)
        print_out("%14llu  %-8s %-64s  %s\n", (unsigned long long)f.n_bytes,
                  f.sha256 ? "sha256" : "git-sha1", f.hash, f.name);
}

/* A folder's name as one can type it. */
static void print_word(const char *word)
{
    bool plain =
        word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/")] ==
        0;
    if (plain && word[0] != '-') {
        print_out("%s", word);
        return;
    }
    print_out("%s'", word[0] == '-' ? "./" : "");
    for (size_t n; *word; word += n + (word[n] == '\'')) {
        n = strcspn(word, "'");
        print_out("%.*s%s", (int)n, word, word[n] ? "'\\''" : "");
    }
    print_out("'");
}

static int print_end(const fv_pull *pull)
{
    fv_pull_info i = { .size = sizeof i };
    fv_pull_describe(pull, &i);
    print_out("%s: complete, %zu files, %.1f MB, every hash checked%s\nnext:\n  fastvlm run ",
              i.dir, i.n_files, (double)i.total_bytes / 1e6,
              i.received_bytes ? "" : "; nothing to fetch");
    print_word(i.dir);
    print_out(" photo.jpg \"What is in the picture?\"\n");
    return end_out();
}

int verb_pull(int argc, char **argv)
{
    static const usage use = {
        "pull [OPTIONS] REPO",
        "Fetches a checkpoint from the Hugging Face hub: configuration, tokenizer, "
        "weights, licence. Every size and hash is checked against the hub's. Run "
        "again, it resumes an interrupted download and verifies a complete one. "
        "HF_TOKEN holds an access token for gated repositories, HF_ENDPOINT the "
        "address of a mirror.",
        "  fastvlm pull apple/FastVLM-0.5B\n  fastvlm run FastVLM-0.5B photo.jpg \"What is in the "
        "picture?\"",
    };
    fv_pull_options o;
    fv_pull *pull = NULL;
    fv_pull_info info = { .size = sizeof info };
    fv_error err;
    text_list words;
    int retries = 5;
    bool json = false, list = false, quiet = false;
    pull_line line = { .enabled = true };

    fv_pull_options_default(&o);
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &o.dir, "DIR",
          "directory to write (default: the last part of REPO, here ./FastVLM-0.5B)", 0, 0 },
        { 0, "revision", OPTION_TEXT, &o.revision, "NAME", "branch, tag or commit (default: main)",
          0, 0 },
        { 'j', "connections", OPTION_INT, &o.connections, "N", "parallel connections (default: 4)",
          1, 16 },
        { 0, "retries", OPTION_INT, &retries, "N",
          "retries of a request that makes no progress (default: 5)", 0, 20 },
        { 0, "list", OPTION_FLAG, &list, NULL, "list what would be fetched and fetch nothing", 0,
          0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print the result as one JSON object", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no progress", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1)
        return usage_error("pull", "expected one repository such as apple/FastVLM-0.5B, found %zu",
                           words.n);
    o.repo = words.item[0];
    o.endpoint = getenv("HF_ENDPOINT");
    o.token = getenv("HF_TOKEN");
    o.ca_file = getenv("SSL_CERT_FILE");
    line.enabled = line.enabled && !quiet;
    o.retries = retries ? retries : -1;
    fv_callbacks callbacks = {
        .size = sizeof callbacks, .log = on_log, .progress = pull_on_progress, .user = &line
    };
    o.callbacks = &callbacks;
    catch_interrupt();
    if (fv_pull_open(&pull, &o, &err) != FV_OK) {
        clear_line();
        return report(&err);
    }
    line.pull = pull;
    fv_pull_describe(pull, &info);
    if (!quiet)
        describe(&info);
    fv_status status = list ? FV_OK : fv_pull_run(pull, &err);
    clear_line();
    if (status != FV_OK)
        code = report(&err);
    else if (json)
        code = print_result(pull, !list);
    else if (list) {
        print_list(pull);
        code = EXIT_OK;
    } else
        code = print_end(pull);
    fv_pull_free(pull);
    return code;
}
