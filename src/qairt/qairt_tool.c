/* Argument lists, and running a tool with its checks. See qairt_tool.h. */
#include "qairt/qairt_tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/number.h"
#include "base/outpart.h"
#include "base/report.h"

#define DEFAULT_TIMEOUT_S 21600.0
#define LOW_DISK_BYTES    (UINT64_C(16) << 20)

/* ---------------------------------------------------------------- words */

static void args_take(char **list, size_t *n, bool *failed, char *word)
{
    if (word && *n < FV_ARGS)
        list[(*n)++] = word;
    else
        *failed = true;
    if (*failed && !(*n && list[*n - 1] == word))
        fv_free(word);
}

void fv_args_add(fv_args *args, const char *word)
{
    args_take(args->list, &args->n, &args->failed, fv_strdup(word));
    args->list[args->n] = NULL;
}

void fv_args_add2(fv_args *args, const char *word, const char *next)
{
    fv_args_add(args, word);
    fv_args_add(args, next);
}

void fv_args_format(fv_args *args, const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int n = fv_format_list(NULL, 0, format, list);
    char *word = n >= 0 ? fv_alloc((size_t)n + 1, 1) : NULL;
    if (word)
        fv_format_list(word, (size_t)n + 1, format, again);
    va_end(again);
    va_end(list);
    args_take(args->list, &args->n, &args->failed, word);
    args->list[args->n] = NULL;
}

void fv_args_expect(fv_args *args, const char *path)
{
    args_take(args->expected, &args->n_expected, &args->failed, fv_strdup(path));
}

fv_status fv_args_done(const fv_args *args, fv_error *err)
{
    return args->failed ? fv_fail_memory(err, FV_ARGS, "a command") : FV_OK;
}

void fv_args_free(fv_args *args)
{
    for (size_t i = 0; i < args->n; i++)
        fv_free(args->list[i]);
    for (size_t i = 0; i < args->n_expected; i++)
        fv_free(args->expected[i]);
    *args = (fv_args){ 0 };
}

/* Bytes of word as a shell would need it; to, which may be NULL, gets them. */
static size_t args_quote(char *to, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=.,:/@%";
    size_t n = 0;
    bool quote = !*word || strspn(word, plain) != strlen(word);
    if (quote) {
        if (to)
            to[n] = '\'';
        n++;
    }
    for (; *word; word++) {
        const char *part = *word == '\'' ? "'\\''" : word;
        size_t length = *word == '\'' ? 4 : 1;
        if (to)
            memcpy(to + n, part, length);
        n += length;
    }
    if (quote) {
        if (to)
            to[n] = '\'';
        n++;
    }
    return n;
}

char *fv_args_text(const char *const *argv, const char *const *environment)
{
    size_t size = 1, at = 0;
    const char *const *lists[] = { environment, argv };
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; lists[k] && lists[k][i]; i++)
            size += args_quote(NULL, lists[k][i]) + 1;
    char *text = fv_alloc(size, 1);
    for (size_t k = 0; text && k < 2; k++)
        for (size_t i = 0; lists[k] && lists[k][i]; i++) {
            if (!k && !strchr(lists[k][i], '=')) /* a variable that is removed */
                continue;
            if (at)
                text[at++] = ' ';
            at += args_quote(text + at, lists[k][i]);
        }
    if (text)
        text[at] = 0;
    return text;
}

/* Not fv_log, which cuts what is long: a command is for copying. */
fv_status fv_args_show(const char *const *argv, const char *const *environment,
                       const fv_callbacks *callbacks, fv_json_text *kept, fv_error *err)
{
    char *text = fv_args_text(argv, environment);
    size_t n = text ? strlen(text) + 3 : 0;
    char *line = text ? fv_alloc(n, 1) : NULL;
    if (line) {
        snprintf(line, n, "$ %s", text);
        if (callbacks && callbacks->log)
            callbacks->log(callbacks->user, FV_LOG_INFO, line);
        if (kept)
            fv_json_line(kept, line, n - 1);
    }
    bool made = line != NULL;
    fv_free(text);
    fv_free(line);
    return made ? FV_OK : fv_fail_memory(err, 1, "a command");
}

fv_status fv_tool_path_check(const char *path, fv_error *err)
{
    const unsigned char *at = (const unsigned char *)path;
    for (; *at; at++)
        if (*at <= ' ' || *at == ',' || *at == '\'' || *at == '"' || *at == '\\' || *at == 0x7f)
            return fv_fail(err, FV_ERR_ARGUMENT, 0,
                           "%s: Qualcomm's tools take no path with a blank, comma, quote or "
                           "backslash in it; choose another directory",
                           path);
    return FV_OK;
}

/* ---------------------------------------------------------------- files and directories */

bool fv_tool_has(const char *path, const fv_qairt_options *o)
{
    return !o->dry_run || fv_is_there(path);
}

fv_status fv_tool_paths(char **absolute, const char *input, const char *output,
                        const fv_qairt_options *o, fv_error *err)
{
    *absolute = NULL;
    FV_TRY(fv_path_check(input, err));
    if (fv_tool_has(input, o) && !fv_is_file(input))
        return fv_fail(err, FV_ERR_IO, 0, "%s: no such file", input);
    FV_TRY(fv_tool_path_check(input, err));
    FV_TRY(fv_tool_path_check(output, err));
    return fv_path_absolute(absolute, input, err);
}

fv_status fv_tool_stage_open(fv_outdir *out, char **stage, const char *dir, bool force,
                             const fv_qairt_options *o, fv_error *err)
{
    *out = (fv_outdir){ 0 };
    *stage = NULL;
    if (o->dry_run)
        return fv_path_absolute(stage, dir, err);
    FV_TRY(fv_outdir_open(out, dir, force, o->callbacks, err));
    fv_status status = fv_path_absolute(stage, out->stage, err);
    if (status != FV_OK)
        fv_outdir_abandon(out);
    return status;
}

fv_status fv_tool_stage_close(fv_outdir *out, char *stage, fv_status status, fv_error *err)
{
    fv_free(stage);
    if (!out->stage)
        return status;
    if (status == FV_OK)
        return fv_outdir_commit(out, err);
    fv_outdir_abandon(out);
    return status;
}

fv_status fv_scratch_make(char **dir, fv_error *err)
{
    const char *given = getenv("TMPDIR"), *base = given && *given == '/' ? given : "/tmp";
    *dir = NULL;
    FV_TRY(fv_tool_path_check(base, err));
    char *path = fv_path_join(base, "fastvlm-XXXXXX");
    if (!path)
        return fv_fail_memory(err, strlen(base), "a path");
    if (!mkdtemp(path)) {
        fv_status status = fv_out_errno(err, path, "create the directory");
        fv_free(path);
        return status;
    }
    *dir = path;
    return FV_OK;
}

void fv_scratch_remove(char *dir)
{
    if (dir)
        fv_folder_remove(dir);
    fv_free(dir);
}

/* ---------------------------------------------------------------- a run */

typedef struct tool_run {
    const char *name;
    const fv_callbacks *callbacks;
    char error[256]; /* the last line that says it is one */
    bool said_error; /* [ ERROR ], which these tools print and may still give 0 */
} tool_run;

static void tool_line(void *user, bool is_error, const char *line, size_t n)
{
    tool_run *r = user;
    char text[512];
    (void)is_error;
    while (n && (line[n - 1] == '\r' || line[n - 1] == ' '))
        n--;
    if (!n)
        return;
    snprintf(text, sizeof text, "%.*s", (int)FV_MIN(n, sizeof text - 1), line);
    bool marked = strstr(text, "[ ERROR ]") || strstr(text, "[ERROR]");
    r->said_error = r->said_error || marked;
    if (marked || !strncmp(text, "ERROR", 5) || strstr(text, "Error: ") || strstr(text, "rror:"))
        snprintf(r->error, sizeof r->error, "%.*s", (int)sizeof r->error - 1, text);
    fv_log(r->callbacks, FV_LOG_INFO, "%s: %s", r->name, text);
}

static bool tool_stop(void *user)
{
    const tool_run *r = user;
    return fv_progress(r->callbacks, r->name, 0, NULL) != FV_OK;
}

static bool tool_disk_is_full(const char *directory)
{
    struct statvfs fs;
    return directory && statvfs(directory, &fs) == 0 && fs.f_blocks &&
           (uint64_t)fs.f_bavail * fs.f_frsize < LOW_DISK_BYTES;
}

/* All files that must be there, written since `start`. Clocks of file systems are coarse. */
static fv_status tool_check_files(const fv_args *args, const char *name, time_t start,
                                  fv_error *err)
{
    for (size_t i = 0; i < args->n_expected; i++) {
        struct stat st;
        const char *path = args->expected[i];
        if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
            return fv_fail(err, FV_ERR_IO, 0, "%s: ended with exit code 0 but has not written %s",
                           name, path);
        if (st.st_size == 0)
            return fv_fail(err, FV_ERR_IO, 0, "%s: ended with exit code 0 but left %s empty", name,
                           path);
        if (st.st_mtime < start - 2)
            return fv_fail(err, FV_ERR_IO, 0,
                           "%s: ended with exit code 0, but %s is older than this run", name, path);
    }
    return FV_OK;
}

static fv_status tool_path_find(const fv_sdk *sdk, fv_args *args, fv_error *err)
{
    char *path = fv_path_join(sdk->programs, args->list[0]);
    if (!path)
        return fv_fail_memory(err, strlen(sdk->programs), "a path");
    if (!fv_is_file(path) || access(path, X_OK) != 0) {
        fv_status status = fv_fail(err, FV_ERR_IO, 0,
                                   "%s: this SDK (QAIRT %s) has no such tool; expected a program",
                                   path, sdk->version);
        fv_free(path);
        return status;
    }
    fv_free(args->list[0]);
    args->list[0] = path;
    return FV_OK;
}

fv_status fv_tool_run(const fv_sdk *sdk, fv_args *args, const char *directory,
                      const fv_qairt_options *options, fv_error *err)
{
    char name[64];
    fv_spawn_result result;
    fv_error why;
    FV_TRY(fv_args_done(args, err));
    snprintf(name, sizeof name, "%s", args->list[0]);
    tool_run run = { .name = name, .callbacks = options->callbacks };
    FV_TRY(tool_path_find(sdk, args, err));
    const char *const *argv = (const char *const *)args->list;
    FV_TRY(fv_args_show(argv, sdk->environment, options->callbacks, NULL, err));
    if (options->dry_run)
        return FV_OK;
    double timeout_s = options->timeout_s > 0 ? options->timeout_s : DEFAULT_TIMEOUT_S;
    fv_spawn_options spawn = { .argv = argv,
                               .environment = sdk->environment,
                               .directory = directory,
                               .timeout_ms = timeout_s * 1e3,
                               .line = tool_line,
                               .stop = tool_stop,
                               .user = &run };
    time_t start = time(NULL);
    fv_status status = fv_spawn_run(&result, &spawn, &why);
    fv_spawn_result_free(&result);
    if (status == FV_OK && run.said_error)
        return fv_fail(err, FV_ERR_IO, 0, "%s: ended with exit code 0 but says: %s", name,
                       run.error);
    if (status == FV_OK)
        return tool_check_files(args, name, start, err);
    if (status == FV_ERR_IO && tool_disk_is_full(directory))
        return fv_fail(err, status, 0, "%s; the disk of %s is full", why.message, directory);
    if (status == FV_ERR_IO && run.error[0] && !strstr(why.message, run.error))
        return fv_fail(err, status, 0, "%s; it says: %s", why.message, run.error);
    return fv_fail(err, status, 0, "%s", why.message);
}
