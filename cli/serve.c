/* fastvlm serve: a model over HTTP. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli.h"
#include "program/serve.h"

enum { MAX_KEYS = 64, MAX_KEY_BYTES = 512, DRAIN_S = 30 };

typedef struct serve_arguments {
    model_options model;
    serve_options serve;
    const char *key_file, *access_log;
    text_list hosts;
    int drain_s;
    bool quiet;
    char key_text[MAX_KEYS][MAX_KEY_BYTES + 2];
    const char *keys[MAX_KEYS];
    char name[128]; /* of the model */
    FILE *log;
} serve_arguments;

/* ---- keys ---- */

/* One a line; blank lines and those that begin with # are passed over. */
static int keys_read(serve_arguments *a)
{
    char line[MAX_KEY_BYTES + 2];
    struct stat st;
    FILE *f = fopen(a->key_file, "r");
    if (!f) {
        print_err("fastvlm: %s: cannot read: %s\n", a->key_file, strerror(errno));
        return EXIT_FAILED;
    }
    if (fstat(fileno(f), &st) == 0 && st.st_mode & (S_IRGRP | S_IROTH))
        print_err("fastvlm: warning: %s: other users may read it; chmod 600 keeps it to you\n",
                  a->key_file);
    int code = -1;
    while (code < 0 && fgets(line, sizeof line, f)) {
        size_t n = strcspn(line, "\r\n");
        if (n > MAX_KEY_BYTES || a->serve.n_keys == MAX_KEYS) {
            print_err("fastvlm: %s: expected up to %d keys of up to %d bytes, one a line\n",
                      a->key_file, MAX_KEYS, MAX_KEY_BYTES);
            code = EXIT_FAILED;
        }
        line[n] = 0;
        if (code >= 0 || !n || *line == '#')
            continue;
        snprintf(a->key_text[a->serve.n_keys], sizeof *a->key_text, "%s", line);
        a->keys[a->serve.n_keys] = a->key_text[a->serve.n_keys];
        a->serve.n_keys++;
    }
    fclose(f);
    memset(line, 0, sizeof line);
    if (code < 0 && !a->serve.n_keys) {
        print_err("fastvlm: %s: holds no key; expected one a line\n", a->key_file);
        code = EXIT_FAILED;
    }
    a->serve.keys = a->keys;
    return code;
}

/* ---- arguments ---- */

/* The model's file or directory without its place and ending. */
static void name_choose(serve_arguments *a)
{
    const char *path = a->model.model ? a->model.model : "fastvlm-demo";
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t from = n;
    while (from && path[from - 1] != '/')
        from--;
    if (n - from > 5 && !strncmp(path + n - 5, ".gguf", 5))
        n -= 5;
    snprintf(a->name, sizeof a->name, "%.*s", (int)(n - from), path + from);
    a->serve.model = a->name;
}

static int serve_parse(int argc, char **argv, serve_arguments *a)
{
    static const usage use = {
        "serve [OPTIONS] [MODEL]",
        "Serves a model over HTTP: a page to talk with it, at the address in a browser; OpenAI's "
        "chat protocol, POST /v1/chat/completions with images as data: URLs, streamed or whole, "
        "and /v1/embeddings of images; what Ollama's clients use; GET /v1/models, /health, and "
        "/metrics for Prometheus. Without MODEL the built-in demonstration model answers.\n"
        "\n"
        "Other machines reach the server only at another --host, and that needs a key. The "
        "server fetches no address and opens no file for a client. SIGTERM and Ctrl-C let "
        "answers that are under way end. docs/server.md has the protocol, what every limit "
        "protects, nginx and systemd.",
        "  fastvlm serve FastVLM-0.5B --port 8080\n"
        "  curl http://127.0.0.1:8080/v1/models",
    };
    serve_options *s = &a->serve;
    const option_spec options[] = {
        MODEL_OPTIONS(a->model),
        { 0, "host", OPTION_TEXT, &s->host, "ADDRESS",
          "address to listen at (default 127.0.0.1); 0.0.0.0: all of this machine's", 0, 0 },
        { 'p', "port", OPTION_INT, &s->port, "N", "port (default 9931); 0: one that is free", 0,
          65535 },
        { 0, "api-key-file", OPTION_TEXT, &a->key_file, "FILE",
          "keys that clients need, one a line", 0, 0 },
        { 0, "allow-host", OPTION_LIST, &a->hosts, "NAME",
          "a name by which clients reach the server, behind a proxy; may be repeated", 0, 0 },
        { 0, "alias", OPTION_TEXT, &s->model, "NAME",
          "the model's name in requests and answers (default: its file's)", 0, 0 },
        { 0, "parallel", OPTION_INT, &s->n_parallel, "N",
          "answers at once, each with a KV cache (default 4)", 1, 256 },
        { 0, "context", OPTION_INT, &s->max_context, "N",
          "context length of each in tokens; 0: the model's", 0, 1e9 },
        { 'n', "max-new-tokens", OPTION_INT, &s->max_new_tokens, "N",
          "maximum length of an answer in tokens; 0: as much as the context allows", 0, 1e6 },
        { 0, "queue", OPTION_INT, &s->max_queued, "N",
          "requests that may wait for their turn (default 64); 0: none", 0, 100000 },
        { 0, "connections", OPTION_INT, &s->max_connections, "N",
          "connections at once (default 128)", 1, 4096 },
        { 0, "max-body", OPTION_INT, &s->max_body_mb, "MB", "longest request in MiB (default 32)",
          1, 256 },
        { 0, "max-images", OPTION_INT, &s->max_images, "N", "images of a request (default 16)", 0,
          1024 },
        { 0, "max-megapixels", OPTION_INT, &s->max_megapixels, "N",
          "refuse larger images (default 64)", 1, 4294 },
        { 0, "image-cache", OPTION_INT, &s->cache_mb, "MB",
          "memory for encoded images in MiB (default 256); 0: none is kept", 0, 1e6 },
        { 0, "header-timeout", OPTION_INT, &s->header_s, "S",
          "seconds for a request's headers, and between requests (default 30)", 1, 3600 },
        { 0, "body-timeout", OPTION_INT, &s->body_s, "S",
          "seconds for a request's body (default 60)", 1, 3600 },
        { 0, "send-timeout", OPTION_INT, &s->send_s, "S",
          "seconds that a client may take to read what is ready (default 60)", 1, 3600 },
        { 0, "drain", OPTION_INT, &a->drain_s, "S",
          "seconds that answers under way have at the end (default 30)", 0, 3600 },
        { 0, "access-log", OPTION_TEXT, &a->access_log, "FILE",
          "append a line of JSON for every request; -: to standard error", 0, 0 },
        { 0, "log-prompts", OPTION_FLAG, &s->log_prompts, NULL,
          "questions and answers in the access log, too", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &a->quiet, NULL, "say only what is wrong", 0, 0 },
    };
    text_list words;
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code < 0 && words.n > 1)
        code = usage_error("serve", "unexpected argument %s; expected one MODEL", words.item[1]);
    if (code < 0 && words.n)
        a->model.model = words.item[0];
    if (code < 0)
        code = check_text("serve", "--alias", s->model);
    if (code < 0 && s->model && !*s->model)
        code = usage_error("serve",
                           "--alias: is empty; expected the name of the model in requests");
    for (size_t i = 0; i < a->hosts.n && code < 0; i++)
        if (!serve_is_name(a->hosts.item[i]))
            code = usage_error("serve",
                               "--allow-host %s: expected a name without scheme and port, such as "
                               "vision.example.org",
                               a->hosts.item[i]);
    if (code < 0 && !a->key_file && !serve_is_loopback(s->host))
        code = usage_error("serve",
                           "--host %s: other machines could use the server; expected "
                           "--api-key-file as well",
                           s->host);
    if (code < 0 && s->log_prompts && !a->access_log)
        code = usage_error("serve", "--log-prompts needs --access-log");
    if (code < 0)
        code = check_model("serve", &a->model, a->quiet);
    if (code < 0 && !s->model)
        name_choose(a);
    s->hosts = a->hosts.item;
    s->n_hosts = a->hosts.n;
    return code;
}

/* ---- serving ---- */

static void serve_log_line(void *user, const char *line, size_t n)
{
    serve_arguments *a = user;
    flockfile(a->log); /* one line, whole */
    fwrite(line, 1, n, a->log);
    fputc('\n', a->log);
    fflush(a->log);
    funlockfile(a->log);
}

static int log_open(serve_arguments *a)
{
    if (!a->access_log)
        return -1;
    a->log = strcmp(a->access_log, "-") ? fopen(a->access_log, "a") : stderr;
    if (!a->log) {
        print_err("fastvlm: %s: cannot write: %s\n", a->access_log, strerror(errno));
        return EXIT_FAILED;
    }
    a->serve.log = serve_log_line;
    a->serve.log_user = a;
    return -1;
}

/* The port answers while the model is being opened. */
static int serve_until_stopped(serve_arguments *a)
{
    serve *server = NULL;
    fv_engine *engine = NULL;
    fv_error err;
    int port;
    if (serve_open(&server, &a->serve, &port, &err) != FV_OK)
        return report(&err);
    int code = open_engine(&engine, &a->model);
    if (code < 0 && serve_start(server, engine, &err) != FV_OK)
        code = report(&err);
    if (code < 0) {
        bool v6 = strchr(a->serve.host, ':');
        if (!a->quiet)
            print_err("listening on http://%s%s%s:%d, model %s\n", v6 ? "[" : "", a->serve.host,
                      v6 ? "]" : "", port, a->serve.model);
        while (!interrupted())
            nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
        if (!a->quiet)
            print_err("ending; answers under way have %d s\n", a->drain_s);
        code = EXIT_OK;
    }
    serve_close(server, code == EXIT_OK ? a->drain_s * 1e3 : 0);
    fv_engine_free(engine);
    return code;
}

int verb_serve(int argc, char **argv)
{
    static serve_arguments a = {
        .serve = { .host = "127.0.0.1",
                   .port = 9931,
                   .n_parallel = 4,
                   .max_queued = 64,
                   .max_connections = 128,
                   .max_body_mb = 32,
                   .max_images = 16,
                   .max_megapixels = 64,
                   .cache_mb = 256,
                   .header_s = 30,
                   .body_s = 60,
                   .send_s = 60 },
        .drain_s = DRAIN_S,
    };
    int code = serve_parse(argc, argv, &a);
    if (code < 0 && a.key_file)
        code = keys_read(&a);
    if (code < 0)
        code = log_open(&a);
    if (code >= 0)
        return code;
    catch_interrupt();
    code = serve_until_stopped(&a);
    if (a.log && a.log != stderr)
        fclose(a.log);
    return code;
}
