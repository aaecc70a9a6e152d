/* Which files the phone needs, and the call that makes it have them. See phone.h. */
#include <string.h>

#include "base/number.h"
#include "base/report.h"
#include "base/sized.h"
#include "device/phone.h"
#include "device/device_program.h"
#include "device/device_sdk.h"

/* A file that goes to dir/NAME. */
static fv_status files_add(fv_push_set *set, const char *local, const char *dir, const char *name,
                           bool program, const fv_callbacks *callbacks, fv_error *err)
{
    char *own = name ? NULL : fv_push_name(local);
    char *remote = name || own ? fv_path_join(dir, name ? name : own) : NULL;
    fv_status status = remote ? fv_push_add(set, local, remote, program, callbacks, err)
                              : fv_fail_memory(err, strlen(local), "a path");
    fv_free(remote);
    fv_free(own);
    return status;
}

static fv_status program_check(const char *path, const fv_device_facts *facts, fv_error *err)
{
    fv_map map;
    FV_TRY(fv_map_open(&map, path, err));
    fv_status status = fv_device_program_check(map.data, map.size, path, facts, err);
    fv_map_close(&map);
    return status;
}

/* A context binary is for one Hexagon. What it says is asked of it where libQnnSystem is at hand;
 * otherwise the phone's own library will. */
static fv_status phone_binary_check(const char *path, const fv_device *d,
                                    const fv_callbacks *callbacks, fv_error *err)
{
    const fv_npu_library_options o = { .size = sizeof o, .callbacks = callbacks };
    fv_npu_binary_info info = { .size = sizeof info };
    fv_npu_binary *binary;
    fv_error why;

    fv_status status = fv_npu_binary_open(&binary, path, &o, &why);
    if (status == FV_ERR_IO && strstr(why.message, "no QNN libraries")) {
        fv_log(callbacks, FV_LOG_WARNING,
               "%s: which Hexagon it is for is not known without QNN libraries on this machine",
               path);
        return FV_OK;
    }
    if (status != FV_OK)
        return fv_fail(err, status, 0, "%s", why.message);
    fv_npu_binary_describe(binary, &info);
    fv_npu_binary_free(binary);
    if (!d->facts.has_chip || !info.htp_version || info.htp_version == d->facts.chip.htp_version)
        return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: for Hexagon v%u; the phone is %s with v%u",
                   path, info.htp_version, d->facts.chip.name, d->facts.chip.htp_version);
}

fv_status fv_device_files(fv_push_set *set, const fv_device *d, const fv_device_push_options *o,
                          fv_error *err)
{
    FV_TRY(program_check(o->program, &d->facts, err));
    FV_TRY(files_add(set, o->program, "bin", "fastvlm", true, o->callbacks, err));
    if (o->model && fv_is_dir(o->model))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: is a directory; the phone needs a packed file",
                       o->model);
    if (o->model)
        FV_TRY(files_add(set, o->model, "models", NULL, false, o->callbacks, err));
    if (!o->npu)
        return FV_OK;
    if (!d->facts.has_chip)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: the phone's chip (%s, board %s) is not one whose Hexagon is known",
                       d->adb.serial, d->facts.soc[0] ? d->facts.soc : "not named",
                       d->facts.platform[0] ? d->facts.platform : "not named");
    FV_TRY(phone_binary_check(o->npu, d, o->callbacks, err));
    FV_TRY(files_add(set, o->npu, "npu", NULL, false, o->callbacks, err));
    return fv_device_sdk_libraries(set, o->sdk, d->facts.chip.htp_version, "lib", o->callbacks,
                                   err);
}

static fv_status absent_report(const fv_push_set *set, const fv_device *d, fv_error *err)
{
    for (size_t i = 0; i < set->n; i++)
        if (!set->list[i].there)
            return fv_fail(err, FV_ERR_IO, 0,
                           "%s: %s/%s is missing or is not %s, and nothing is to be sent",
                           d->adb.serial, d->dir, set->list[i].remote, set->list[i].local);
    return FV_OK;
}

fv_status fv_device_set_send(fv_device *d, fv_push_set *set, bool skip, fv_error *err)
{
    FV_TRY(fv_push_look(set, &d->adb, d->dir, false, err));
    return skip ? absent_report(set, d, err)
                : fv_push_send(set, &d->adb, d->dir, d->facts.free_bytes, err);
}

fv_status fv_device_files_send(fv_device *d, const fv_device_push_options *o, bool skip,
                               fv_device_push_report *report, fv_error *err)
{
    fv_push_set set = { 0 };
    double begin = fv_now_ms();

    d->adb.callbacks = o->callbacks;
    d->adb.stage = "push";
    d->adb.done = 0;
    fv_status status = fv_device_files(&set, d, o, err);
    if (status == FV_OK)
        status = fv_push_look(&set, &d->adb, d->dir, o->verify, err);
    report->n_files = set.n;
    report->n_bytes = fv_push_bytes(&set, &report->n_sent);
    for (size_t i = 0; i < set.n && status == FV_OK; i++)
        if (!set.list[i].there && !skip)
            fv_log(o->callbacks, FV_LOG_INFO, "%s%s -> %s/%s, %.1f MB",
                   o->dry_run ? "would send " : "", set.list[i].local, d->dir, set.list[i].remote,
                   (double)set.list[i].n_bytes / 1e6);
    if (status == FV_OK && skip)
        status = absent_report(&set, d, err);
    else if (status == FV_OK && !o->dry_run)
        status = fv_push_send(&set, &d->adb, d->dir, d->facts.free_bytes, err);
    fv_push_set_free(&set);
    report->ms = fv_now_ms() - begin;
    return status;
}

fv_status fv_device_push(fv_device *d, const fv_device_push_options *options,
                         fv_device_push_report *out, fv_error *err)
{
    fv_device_push_report report = { .size = sizeof report };
    fv_device_push_options o;
    fv_callbacks callbacks;

    FV_REQUIRE(d, err);
    if (out)
        FV_TRY(FV_RESULT_CHECK(out, fv_device_push_report, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_device_push_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (!o.program)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "program is NULL");
    FV_TRY(fv_device_files_send(d, &o, false, &report, err));
    fv_result_out(out, &report, sizeof report);
    return FV_OK;
}
