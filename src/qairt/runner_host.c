/* This machine as a runner. See runner_host.h. */
#include "qairt/runner_host.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/list.h"
#include "base/outpart.h"

/* ---------------------------------------------------------------- files */

static fv_status host_copy(const char *from, const char *to, fv_error *err)
{
    fv_map map;
    FV_TRY(fv_map_open(&map, from, err));
    fv_status status = fv_outfile_put(to, map.data, map.size, err);
    fv_map_close(&map);
    return status;
}

static fv_status host_put(fv_runner *r, const char *local, const char *remote, fv_error *err)
{
    size_t n_made;
    (void)r;
    char *path = fv_strdup(remote);
    fv_status status = path ? fv_out_make_parents(path, &n_made, err)
                            : fv_fail_memory(err, strlen(remote), "a path");
    if (status == FV_OK)
        status = host_copy(local, remote, err);
    fv_free(path);
    return status;
}

/* Used where it lies, unless the tools cannot take its path: then through a link. */
static fv_status host_place(fv_runner *r, const char *local, const char *name,
                            char path[FV_RUNNER_PATH], fv_error *err)
{
    char *absolute, *link_path = NULL;
    FV_TRY(fv_path_absolute(&absolute, local, err));
    const char *use = absolute;
    fv_status status = FV_OK;
    if (!fv_is_file(local))
        status = fv_fail(err, FV_ERR_IO, 0, "%s: no such file", local);
    if (status == FV_OK && fv_tool_path_check(absolute, NULL) != FV_OK) {
        if (!(link_path = fv_path_join(r->root, name)))
            status = fv_fail_memory(err, strlen(name), "a path");
        else if ((unlink(link_path) != 0 && errno != ENOENT) || symlink(absolute, link_path) != 0)
            status = fv_out_errno(err, link_path, "link");
        use = link_path;
    }
    if (status == FV_OK && snprintf(path, FV_RUNNER_PATH, "%s", use) >= FV_RUNNER_PATH)
        status = fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", use);
    fv_free(absolute);
    fv_free(link_path);
    return status;
}

static fv_status host_get(fv_runner *r, const char *remote, const char *local, fv_error *err)
{
    (void)r;
    if (!fv_is_file(remote))
        return fv_fail(err, FV_ERR_IO, 0, "%s: no such file", remote);
    return host_copy(remote, local, err);
}

static int host_name_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The entries' names sorted, one behind the other. */
static char *host_names_join(char **list, size_t n, size_t n_bytes)
{
    char *names = fv_alloc(n_bytes + 1, 1);
    size_t at = 0;
    if (n)
        qsort(list, n, sizeof *list, host_name_compare);
    for (size_t i = 0; names && i < n; i++) {
        size_t length = strlen(list[i]) + 1;
        memcpy(names + at, list[i], length);
        at += length;
    }
    return names;
}

static fv_status host_list(fv_runner *r, const char *remote, char **names, size_t *n_names,
                           fv_error *err)
{
    char **list = NULL;
    size_t n = 0, capacity = 0, n_bytes = 0;
    fv_status status = FV_OK;
    DIR *dir = opendir(remote);
    (void)r;
    *names = NULL;
    *n_names = 0;
    for (struct dirent *e; dir && status == FV_OK && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        status = FV_LIST_ROOM(list, n, capacity, 1, err);
        if (status == FV_OK && !(list[n] = fv_strdup(e->d_name)))
            status = fv_fail_memory(err, strlen(e->d_name), "a name");
        if (status == FV_OK)
            n_bytes += strlen(list[n++]) + 1;
    }
    if (dir)
        closedir(dir);
    if (status == FV_OK && !(*names = host_names_join(list, n, n_bytes)))
        status = fv_fail_memory(err, n_bytes, "names");
    if (status == FV_OK)
        *n_names = n;
    for (size_t i = 0; i < n; i++)
        fv_free(list[i]);
    fv_free(list);
    return status;
}

static fv_status host_clear(fv_runner *r, const char *remote, fv_error *err)
{
    size_t n_made;
    (void)r;
    fv_folder_remove(remote);
    char *path = fv_path_join(remote, "x");
    fv_status status = path ? fv_out_make_parents(path, &n_made, err)
                            : fv_fail_memory(err, strlen(remote), "a path");
    fv_free(path);
    return status;
}

/* ---------------------------------------------------------------- programs */

static void host_drop_line(void *user, bool is_error, const char *line, size_t n)
{
    (void)user;
    (void)is_error;
    (void)line;
    (void)n;
}

static fv_status host_run(fv_runner *r, const fv_runner_call *call, int *exit_code, fv_error *err)
{
    const char *environment[32];
    const char *const *lists[] = { r->environment, call->environment };
    size_t n = 0;
    fv_spawn_result result;
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; lists[k] && lists[k][i]; i++) {
            if (n + 1 == FV_COUNT(environment))
                return fv_fail(err, FV_ERR_LIMIT, 0, "more than %zu variables for %s",
                               FV_COUNT(environment) - 1, call->argv[0]);
            environment[n++] = lists[k][i];
        }
    environment[n] = NULL;
    fv_spawn_options o = { .argv = call->argv,
                           .environment = environment,
                           .directory = call->directory ? call->directory : r->root,
                           .timeout_ms = call->timeout_ms,
                           .line = call->line ? call->line : host_drop_line,
                           .raw = call->raw,
                           .stop = call->stop,
                           .user = call->user,
                           .any_exit_code = true };
    fv_status status = fv_spawn_run(&result, &o, err);
    *exit_code = result.exit_code;
    fv_spawn_result_free(&result);
    return status;
}

/* ---------------------------------------------------------------- open, close */

static char *host_variable(const char *name, const char *value)
{
    size_t n = strlen(name) + strlen(value) + 2;
    char *text = fv_alloc(n, 1);
    if (text)
        snprintf(text, n, "%s=%s", name, value);
    return text;
}

fv_status fv_runner_host_open(fv_runner_host *h, const fv_sdk *sdk, fv_error *err)
{
    *h = (fv_runner_host){ 0 };
    FV_TRY(fv_scratch_make(&h->root, err));
    h->backend = fv_path_join(sdk->libraries, "libQnnHtp.so");
    /* Only the SDK's: libraries of others under the same names would be taken. */
    h->variables[0] = host_variable("LD_LIBRARY_PATH", sdk->libraries);
    h->variables[1] = host_variable("QNN_SDK_ROOT", sdk->dir);
    if (!h->backend || !h->variables[0] || !h->variables[1]) {
        fv_runner_host_close(h);
        return fv_fail_memory(err, strlen(sdk->libraries), "a path");
    }
    for (size_t i = 0; i < 2; i++)
        h->environment[i] = h->variables[i];
    h->runner = (fv_runner){ .name = "this machine",
                             .root = h->root,
                             .programs = sdk->programs,
                             .backend = h->backend,
                             .environment = h->environment,
                             .put = host_put,
                             .place = host_place,
                             .run = host_run,
                             .get = host_get,
                             .list = host_list,
                             .clear = host_clear };
    return FV_OK;
}

void fv_runner_host_close(fv_runner_host *h)
{
    fv_scratch_remove(h->root);
    fv_free(h->backend);
    for (size_t i = 0; i < FV_COUNT(h->variables); i++)
        fv_free(h->variables[i]);
    *h = (fv_runner_host){ 0 };
}
