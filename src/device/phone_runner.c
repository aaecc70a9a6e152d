/* A phone as a runner. See phone_runner.h. */
#include "device/phone_runner.h"

#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/number.h"
#include "device/shell_text.h"

/* ---------------------------------------------------------------- files */

static fv_phone_runner *phone_of(fv_runner *r) { return r->user; }

/* A path on the phone as one under its directory. */
static fv_status phone_path_under(const fv_device *d, const char *remote, const char **name,
                                  fv_error *err)
{
    size_t n = strlen(d->dir);
    if (strncmp(remote, d->dir, n) != 0 || remote[n] != '/' || strstr(remote, "/.."))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: is not under %s", remote, d->dir);
    *name = remote + n + 1;
    return FV_OK;
}

/* The file as name under the phone's directory, unless the same bytes are there. */
static fv_status phone_have(const fv_phone_runner *p, const char *local, const char *name,
                            bool send, fv_error *err)
{
    const fv_device *d = p->device;
    fv_push_set set = { 0 };

    fv_status status = fv_push_add(&set, local, name, false, d->adb.callbacks, err);
    if (status == FV_OK)
        status = fv_push_look(&set, &d->adb, d->dir, false, err);
    if (status == FV_OK && !send && !set.list[0].there)
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: %s/%s is missing or is not %s, and nothing is to be sent",
                         d->adb.serial, d->dir, name, local);
    if (status == FV_OK)
        status = fv_push_send(&set, &d->adb, d->dir, d->facts.free_bytes, err);
    fv_push_set_free(&set);
    return status;
}

static fv_status phone_put(fv_runner *r, const char *local, const char *remote, fv_error *err)
{
    const char *name;
    FV_TRY(phone_path_under(phone_of(r)->device, remote, &name, err));
    return phone_have(phone_of(r), local, name, true, err);
}

static fv_status phone_place(fv_runner *r, const char *local, const char *name,
                             char path[FV_RUNNER_PATH], fv_error *err)
{
    fv_phone_runner *p = phone_of(r);
    char *plain = fv_push_name(name), *remote = plain ? fv_path_join("qairt", plain) : NULL;

    fv_status status = remote ? phone_have(p, local, remote, !p->skip_push, err)
                              : fv_fail_memory(err, strlen(name), "a path");
    if (status == FV_OK)
        fv_format(path, FV_RUNNER_PATH, "%s/%s", p->device->dir, remote);
    fv_free(remote);
    fv_free(plain);
    return status;
}

static fv_status phone_get(fv_runner *r, const char *remote, const char *local, fv_error *err)
{
    const fv_device *d = phone_of(r)->device;
    return fv_device_pull(phone_of(r)->device, remote, local, d->adb.callbacks, err);
}

static int phone_name_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The lines of text in order, each with its NUL, in a block of their own. */
static fv_status phone_names_sort(char *text, char **names, size_t *n_names, fv_error *err)
{
    char **list = NULL;
    size_t n = 0, capacity = 0, n_bytes = strlen(text), at = 0;
    fv_status status = FV_OK;

    for (char *line = text; *line && status == FV_OK;) {
        size_t length = strcspn(line, "\n");
        bool more = line[length] == '\n';
        line[length] = '\0';
        if (length > 0 && (status = FV_LIST_ROOM(list, n, capacity, 1, err)) == FV_OK)
            list[n++] = line;
        line += length + more;
    }
    if (status == FV_OK && !(*names = fv_alloc(n_bytes + n + 1, 1)))
        status = fv_fail_memory(err, n_bytes, "names");
    if (n > 0)
        qsort(list, n, sizeof *list, phone_name_compare);
    for (size_t i = 0; i < n && status == FV_OK; i++) {
        size_t length = strlen(list[i]) + 1;
        memcpy(*names + at, list[i], length);
        at += length;
    }
    *n_names = status == FV_OK ? n : 0;
    fv_free(list);
    return status;
}

static fv_status phone_list(fv_runner *r, const char *remote, char **names, size_t *n_names,
                            fv_error *err)
{
    fv_shell_text text = { 0 };
    char *answer = NULL;

    *names = NULL;
    *n_names = 0;
    fv_shell_add(&text, "if cd ");
    fv_shell_quote(&text, remote);
    fv_shell_add(&text, " 2>/dev/null; then ls -1; fi");
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(&phone_of(r)->device->adb, text.text, remote, &answer, err);
    if (status == FV_OK)
        status = phone_names_sort(answer, names, n_names, err);
    fv_free(answer);
    fv_shell_text_free(&text);
    return status;
}

static fv_status phone_clear(fv_runner *r, const char *remote, fv_error *err)
{
    const fv_device *d = phone_of(r)->device;
    fv_shell_text text = { 0 };
    const char *name;

    FV_TRY(phone_path_under(d, remote, &name, err));
    fv_shell_add(&text, "rm -rf %s && mkdir -p %s", remote, remote);
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(&d->adb, text.text, remote, NULL, err);
    fv_shell_text_free(&text);
    return status;
}

/* ---------------------------------------------------------------- programs */

static void phone_drop_line(void *user, bool is_error, const char *line, size_t n)
{
    (void)user;
    (void)is_error;
    (void)line;
    (void)n;
}

static void variables_add(fv_shell_text *t, const char *const *list)
{
    for (; list && *list; list++) {
        size_t n = strcspn(*list, "=");
        if (!(*list)[n]) {
            fv_shell_add(t, "unset %s\n", *list);
            continue;
        }
        fv_shell_add(t, "export %.*s=", (int)n, *list);
        fv_shell_quote(t, *list + n + 1);
        fv_shell_add(t, "\n");
    }
}

static fv_status phone_run(fv_runner *r, const fv_runner_call *call, int *exit_code, fv_error *err)
{
    fv_shell_text text = { 0 };

    variables_add(&text, r->environment);
    variables_add(&text, call->environment);
    fv_shell_add(&text, "cd ");
    fv_shell_quote(&text, call->directory ? call->directory : r->root);
    fv_shell_add(&text, "\n");
    for (size_t i = 0; call->argv[i]; i++) {
        fv_shell_add(&text, i ? " " : "");
        fv_shell_quote(&text, call->argv[i]);
    }
    fv_status status = fv_shell_done(&text, err);
    const fv_device_job job = { .command = text.text,
                                .stage = "run",
                                .raw = call->raw,
                                .line = call->line ? call->line : phone_drop_line,
                                .stop = call->stop,
                                .user = call->user,
                                .timeout_ms = call->timeout_ms };
    if (status == FV_OK)
        status = fv_device_job_run(phone_of(r)->device, &job, exit_code, err);
    fv_shell_text_free(&text);
    if (status == FV_OK && *exit_code > 128)
        status = fv_fail(err, FV_ERR_IO, 0, "%s: %s: ended by signal %d", r->name, call->argv[0],
                         *exit_code - 128);
    return status;
}

/* ---------------------------------------------------------------- open, close */

static fv_status phone_variables(fv_phone_runner *p, fv_error *err)
{
    const char *dir = p->device->dir;
    fv_shell_text text[4] = { { 0 } };

    fv_shell_add(&text[0], "LD_LIBRARY_PATH=%s/qairt:/vendor/dsp/cdsp:/vendor/lib64", dir);
    fv_shell_add(&text[1],
                 "ADSP_LIBRARY_PATH=%s/qairt;/vendor/dsp/cdsp;/vendor/lib/rfsa/adsp;/system/lib/"
                 "rfsa/adsp;/dsp",
                 dir);
    fv_shell_add(&text[2], "device %s", p->device->serial);
    fv_shell_add(&text[3], "%s/qairt", dir);
    fv_status status = FV_OK;
    for (size_t i = 0; i < FV_COUNT(text) && status == FV_OK; i++)
        status = fv_shell_done(&text[i], err);
    p->variables[0] = text[0].text;
    p->variables[1] = text[1].text;
    p->name = text[2].text;
    p->programs = text[3].text;
    return status;
}

fv_status fv_phone_runner_open(fv_phone_runner *p, fv_device *device, bool skip_push, fv_error *err)
{
    *p = (fv_phone_runner){ .device = device, .skip_push = skip_push };
    fv_status status = phone_variables(p, err);
    if (status != FV_OK) {
        fv_phone_runner_close(p);
        return status;
    }
    for (size_t i = 0; i < FV_COUNT(p->variables); i++)
        p->environment[i] = p->variables[i];
    p->runner = (fv_runner){ .name = p->name,
                             .soc = device->facts.has_chip ? device->facts.chip.name : NULL,
                             .root = p->programs, /* the SDK's programs look beside themselves */
                             .programs = p->programs,
                             .backend = "libQnnHtp.so",
                             .environment = p->environment,
                             .put = phone_put,
                             .place = phone_place,
                             .run = phone_run,
                             .get = phone_get,
                             .list = phone_list,
                             .clear = phone_clear,
                             .user = p };
    return FV_OK;
}

void fv_phone_runner_close(fv_phone_runner *p)
{
    for (size_t i = 0; i < FV_COUNT(p->variables); i++)
        fv_free(p->variables[i]);
    fv_free(p->name);
    fv_free(p->programs);
    *p = (fv_phone_runner){ 0 };
}
