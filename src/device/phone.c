/* Choosing a phone, its description, and files from it. See fastvlm_device.h. */
#include "device/phone.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/number.h"
#include "base/sized.h"
#include "device/shell_text.h"

#define DEFAULT_DIR "/data/local/tmp/fastvlm"

enum { MAX_DIR_BYTES = 200 };

char *fv_device_path(const fv_device *device, const char *name)
{
    return *name == '/' ? fv_strdup(name) : fv_path_join(device->dir, name);
}

/* ---------------------------------------------------------------- the list */

struct fv_device_list {
    fv_adb_entries entries;
};

fv_status fv_device_list_open(fv_device_list **out, const fv_device_options *options, fv_error *err)
{
    fv_device_options o;
    fv_callbacks callbacks;

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_TRY(FV_OPTIONS_IN(&o, fv_device_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    const fv_adb adb = { .program = o.adb ? o.adb : "adb",
                         .callbacks = o.callbacks,
                         .stage = "phone" };
    fv_device_list *list = fv_alloc_zero(1, sizeof *list);
    if (!list)
        return fv_fail_memory(err, sizeof *list, "a list of phones");
    fv_status status = fv_adb_list(&list->entries, &adb, err);
    if (status == FV_OK)
        *out = list;
    else
        fv_device_list_free(list);
    return status;
}

void fv_device_list_free(fv_device_list *list)
{
    if (!list)
        return;
    fv_adb_entries_free(&list->entries);
    fv_free(list);
}

bool fv_device_list_entry(const fv_device_list *list, size_t index, fv_device_entry *out)
{
    if (!list || index >= list->entries.n)
        return false;
    const fv_adb_entry *e = &list->entries.list[index];
    const fv_device_entry entry = { .size = sizeof entry,
                                    .serial = e->serial,
                                    .state = e->state,
                                    .model = e->model,
                                    .problem = fv_adb_state_problem(e->state) };
    return fv_result_out(out, &entry, sizeof entry);
}

/* ---------------------------------------------------------------- one phone */

/* Paths on the phone are never quoted by the tools of the SDK, and some is removed later. */
static fv_status dir_check(const char *dir, fv_error *err)
{
    size_t n = strlen(dir);
    bool plain = n > 1 && n < MAX_DIR_BYTES && dir[0] == '/' && dir[n - 1] != '/';
    for (const char *c = dir; *c && plain; c++)
        plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                strchr("._-/", *c);
    if (plain && !strstr(dir, "/..") && !strstr(dir, "//"))
        return FV_OK;
    return fv_fail(err, FV_ERR_ARGUMENT, 0,
                   "dir: expected an absolute path on the phone of letters, digits and ._-/, found "
                   "\"%s\"",
                   dir);
}

static fv_status device_take(fv_device *d, const fv_device_options *o, fv_error *err)
{
    const char *dir = o->dir ? o->dir : DEFAULT_DIR;

    FV_TRY(dir_check(dir, err));
    d->program = fv_strdup(o->adb ? o->adb : "adb");
    d->dir = fv_strdup(dir);
    if (!d->program || !d->dir)
        return fv_fail_memory(err, strlen(dir), "a path");
    d->adb = (fv_adb){
        .program = d->program, .serial = o->serial, .callbacks = o->callbacks, .stage = "phone"
    };
    fv_status status = fv_adb_choose(&d->adb, &d->serial, err);
    d->adb.serial = d->serial;
    if (status == FV_OK)
        status = fv_device_facts_ask(&d->facts, &d->adb, d->dir, err);
    d->adb.callbacks = NULL;
    return status;
}

fv_status fv_device_open(fv_device **out, const fv_device_options *options, fv_error *err)
{
    fv_device_options o;
    fv_callbacks callbacks;

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_TRY(FV_OPTIONS_IN(&o, fv_device_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    fv_device *d = fv_alloc_zero(1, sizeof *d);
    if (!d)
        return fv_fail_memory(err, sizeof *d, "a phone");
    fv_status status = device_take(d, &o, err);
    if (status == FV_OK)
        *out = d;
    else
        fv_device_close(d);
    return status;
}

void fv_device_close(fv_device *d)
{
    if (!d)
        return;
    fv_free(d->program);
    fv_free(d->serial);
    fv_free(d->dir);
    fv_free(d);
}

void fv_device_describe(const fv_device *d, fv_device_info *out)
{
    if (!d)
        return;
    const fv_device_facts *f = &d->facts;
    const fv_device_info info = {
        .size = sizeof info,
        .serial = d->serial,
        .dir = d->dir,
        .model = f->model,
        .maker = f->maker,
        .android = f->android,
        .api_level = f->api_level,
        .abi = f->abi,
        .machine = f->machine,
        .soc = f->soc,
        .board = f->platform,
        .chip = f->has_chip ? f->chip.name : "",
        .product = f->has_chip ? f->chip.product : "",
        .htp_version = f->has_chip ? f->chip.htp_version : 0,
        .page_bytes = f->page_bytes,
        .memory_bytes = f->memory_bytes,
        .memory_available_bytes = f->memory_available_bytes,
        .free_bytes = f->free_bytes,
    };
    fv_result_out(out, &info, sizeof info);
}

/* ---------------------------------------------------------------- pull */

/* What the phone has of a file: its hash. */
static fv_status remote_hash(const fv_device *d, const char *remote,
                             char sha256[2 * FV_SHA256_BYTES + 1], fv_error *err)
{
    fv_shell_text text = { 0 };
    char *answer = NULL;

    fv_shell_add(&text, "if [ -f ");
    fv_shell_quote(&text, remote);
    fv_shell_add(&text, " ]; then sha256sum ");
    fv_shell_quote(&text, remote);
    fv_shell_add(&text, "; else echo 'no such file' >&2; false; fi");
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(&d->adb, text.text, remote, &answer, err);
    if (status == FV_OK && strspn(answer, "0123456789abcdef") != 2 * FV_SHA256_BYTES)
        status = fv_fail(err, FV_ERR_FORMAT, 0, "%s: %s: sha256sum there gave no hash",
                         d->adb.serial, remote);
    if (status == FV_OK)
        fv_format(sha256, 2 * FV_SHA256_BYTES + 1, "%.64s", answer);
    fv_free(answer);
    fv_shell_text_free(&text);
    return status;
}

static fv_status pull_to(const fv_device *d, const char *remote, const char *part,
                         const char *local, fv_error *err)
{
    char expected[2 * FV_SHA256_BYTES + 1];
    fv_push_set got = { 0 };

    FV_TRY(remote_hash(d, remote, expected, err));
    FV_TRY(fv_adb_pull(&d->adb, remote, part, err));
    fv_status status = fv_push_add(&got, part, "pulled", false, d->adb.callbacks, err);
    if (status == FV_OK && strcmp(got.list[0].sha256, expected) != 0)
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: %s: arrived with other bytes than the phone has (by SHA-256)",
                         d->adb.serial, remote);
    if (status == FV_OK && rename(part, local) != 0)
        status = fv_fail(err, FV_ERR_IO, 0, "%s: %s", local, strerror(errno));
    fv_push_set_free(&got);
    return status;
}

fv_status fv_device_pull(fv_device *d, const char *remote, const char *local,
                         const fv_callbacks *callbacks, fv_error *err)
{
    fv_callbacks copy;
    fv_shell_text part = { 0 };

    FV_REQUIRE(d, err);
    FV_REQUIRE(remote, err);
    FV_REQUIRE(local, err);
    FV_TRY(fv_callbacks_in(&copy, &callbacks, err));
    if (fv_is_dir(local))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a directory, expected the name of a file", local);
    char *from = fv_device_path(d, remote);
    fv_shell_add(&part, "%s.part-%ld", local, (long)getpid());
    fv_status status = from ? fv_shell_done(&part, err)
                            : fv_fail_memory(err, strlen(remote), "a path");
    d->adb.callbacks = callbacks;
    d->adb.stage = "pull";
    if (status == FV_OK)
        status = pull_to(d, from, part.text, local, err);
    if (status != FV_OK && part.text)
        unlink(part.text);
    d->adb.callbacks = NULL;
    fv_free(from);
    fv_shell_text_free(&part);
    return status;
}

/* ---------------------------------------------------------------- clean */

fv_status fv_device_clean(fv_device *d, uint64_t *n_bytes, fv_error *err)
{
    fv_shell_text text = { 0 };
    char *answer = NULL;

    FV_REQUIRE(d, err);
    FV_TRY(fv_device_job_end(d, err));
    /* Only what is ours: the directory may be one that others use, too. */
    fv_shell_add(&text,
                 "if [ ! -d %s ]; then echo 0; elif cd %s && [ -f " FV_DEVICE_MANIFEST " ]; then\n"
                 "du -sk . && rm -rf " FV_DEVICE_DIRS " run.pid " FV_DEVICE_MANIFEST "* && cd / && "
                 "{ rmdir %s 2>/dev/null; true; }\n"
                 "else echo 'it has no manifest of ours, nothing is removed' >&2; false; fi",
                 d->dir, d->dir, d->dir);
    fv_status status = fv_shell_done(&text, err);
    d->adb.stage = "clean";
    if (status == FV_OK)
        status = fv_adb_ask(&d->adb, text.text, d->dir, &answer, err);
    if (status == FV_OK && n_bytes)
        *n_bytes = (uint64_t)strtoull(answer, NULL, 10) << 10;
    fv_free(answer);
    fv_shell_text_free(&text);
    return status;
}
