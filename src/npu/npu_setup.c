/* Fetching Qualcomm's libraries with the user's pip: the wheel onnxruntime-qnn, from the index that
 * pip is configured for, unpacked as it is. Nothing of it is kept, changed or passed on by us.
 *
 *     PYTHON -m pip download --no-deps ... -d STAGE/wheel onnxruntime-qnn==VERSION
 *     PYTHON -m zipfile -e STAGE/wheel/X.whl STAGE
 *     STAGE becomes DIR: onnxruntime_qnn/libQnn*.so, onnxruntime_qnn.libs/, the licence
 *
 * The wheel's tags name a Python and a C library; the libraries inside need only the latter, so the
 * user's Python may be any that has pip. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#if defined(__GLIBC__)
#include <gnu/libc-version.h>
#endif

#include "base/outfile.h"
#include "base/report.h"
#include "base/sized.h"
#include "base/spawn.h"
#include "fastvlm_npu.h"
#include "npu/qnn_find.h"

#define PACKAGE         "onnxruntime-qnn"
#define DEFAULT_VERSION "2.7.0"
#define PYTHON_TAG      "3.12" /* wheels for 3.11 to 3.14 hold the same libraries */

#if defined(__x86_64__)
#define MACHINE "x86_64"
#elif defined(__aarch64__)
#define MACHINE "aarch64"
#endif

enum { GLIBC_MINOR = 35 };
#define NEEDED_BYTES   (UINT64_C(500) << 20) /* the wheel, 100 MB, and what is in it, 260 MB */
#define PIP_TIMEOUT_MS 3600e3

typedef struct setup {
    const char *version, *python;
    const fv_callbacks *callbacks;
    fv_outdir out;
    double done;
    bool no_network;
    char said[300]; /* pip's first error */
} setup;

/* ---------------------------------------------------------------- what must be there first */

static fv_status machine_check(fv_error *err)
{
#if defined(__linux__) && defined(MACHINE) && defined(__GLIBC__)
    const char *found = gnu_get_libc_version();
    unsigned major = 0, minor = 0;
    if (sscanf(found, "%u.%u", &major, &minor) == 2 && major == 2 && minor < GLIBC_MINOR)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "Qualcomm's libraries need glibc 2.%d or later, this system has %s",
                       GLIBC_MINOR, found);
    return FV_OK;
#else
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "Qualcomm's wheels are for Linux with glibc on x86-64 and 64-bit Arm; elsewhere "
                   "use the SDK's libraries");
#endif
}

static fv_status disk_check(const char *dir, fv_error *err)
{
    struct statvfs fs;
    if (statvfs(dir, &fs) != 0 || fs.f_blocks == 0) /* a system that does not say */
        return FV_OK;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes < NEEDED_BYTES)
        return fv_fail(err, FV_ERR_IO, 0, "%s: %.0f MB free, %.0f MB needed", dir,
                       (double)free_bytes / 1e6, (double)NEEDED_BYTES / 1e6);
    return FV_OK;
}

/* ---------------------------------------------------------------- running Python */

static bool setup_stop(void *user)
{
    const setup *s = user;
    return fv_progress(s->callbacks, "setup", s->done, NULL) != FV_OK;
}

static void setup_line(void *user, bool is_error, const char *line, size_t n)
{
    static const char error[] = "ERROR: ";
    setup *s = user;
    char text[sizeof s->said];

    (void)is_error;
    if (n == 0)
        return;
    snprintf(text, sizeof text, "%.*s", (int)FV_MIN(n, sizeof text - 1), line);
    if (strncmp(text, "WARNING: Retrying", 17) == 0)
        s->no_network = true;
    if (!s->said[0] && strncmp(text, error, sizeof error - 1) == 0)
        memcpy(s->said, text + sizeof error - 1, strlen(text + sizeof error - 1) + 1);
    fv_log(s->callbacks, FV_LOG_INFO, "%s", text);
}

static fv_status python_run(setup *s, const char *const *argv, fv_error *err)
{
    char temporary[1200];
    fv_spawn_result result;

    snprintf(temporary, sizeof temporary, "TMPDIR=%s/tmp", s->out.stage ? s->out.stage : "");
    const char *const environment[] = { "PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1",
                                        "LC_ALL=C.UTF-8", s->out.stage ? temporary : NULL, NULL };
    fv_spawn_options options = { .argv = argv,
                                 .environment = environment,
                                 .timeout_ms = PIP_TIMEOUT_MS,
                                 .line = setup_line,
                                 .stop = setup_stop,
                                 .user = s };
    fv_status status = fv_spawn_run(&result, &options, err);
    fv_spawn_result_free(&result);
    return status;
}

static fv_status pip_check(setup *s, fv_error *err)
{
    fv_error why;
    const char *const argv[] = { s->python, "-m", "pip", "--version", NULL };
    fv_status status = python_run(s, argv, &why);
    if (status == FV_OK || status == FV_ERR_CANCELLED)
        return status == FV_OK ? status : fv_fail(err, status, 0, "%s", why.message);
    return fv_fail(err, status, 0,
                   strstr(why.message, "No module named pip")
                       ? "%s has no pip (%s); expected a Python 3 with pip"
                       : "%s -m pip does not run (%s); expected a Python 3 with pip",
                   s->python, why.message);
}

static fv_status pip_download(setup *s, const char *wheel_dir, fv_error *err)
{
    char wanted[64];
    fv_error why;

    snprintf(wanted, sizeof wanted, PACKAGE "==%s", s->version);
#if defined(MACHINE)
    const char *const argv[] = { s->python,
                                 "-m",
                                 "pip",
                                 "download",
                                 "--no-deps",
                                 "--only-binary=:all:",
                                 "--progress-bar=off",
                                 "--implementation=cp",
                                 "--python-version=" PYTHON_TAG,
                                 "--platform=manylinux_2_35_" MACHINE,
                                 "--platform=manylinux_2_34_" MACHINE,
                                 "--platform=manylinux_2_28_" MACHINE,
                                 "-d",
                                 wheel_dir,
                                 wanted,
                                 NULL };
    fv_status status = python_run(s, argv, &why);
#else
    (void)wheel_dir;
    fv_status status = machine_check(&why);
#endif
    if (status == FV_OK)
        return FV_OK;
    if (status != FV_ERR_IO)
        return fv_fail(err, status, 0, "%s", why.message);
    if (s->no_network)
        return fv_fail(err, FV_ERR_IO, 0,
                       "pip cannot reach the package index (%s); check the network, or pip's "
                       "index-url and proxy",
                       s->said[0] ? s->said : why.message);
    return fv_fail(err, FV_ERR_IO, 0, "pip cannot fetch %s: %s", wanted,
                   s->said[0] ? s->said : why.message);
}

/* The one wheel in the directory, as a path to fv_free. */
static fv_status wheel_find(char **out, const char *dir, fv_error *err)
{
    DIR *d = opendir(dir);
    *out = NULL;
    for (struct dirent *e; d && !*out && (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        if (dot && strcmp(dot, ".whl") == 0)
            *out = fv_path_join(dir, e->d_name);
    }
    if (d)
        closedir(d);
    return *out ? FV_OK : fv_fail(err, FV_ERR_IO, 0, "%s: pip left no wheel in it", dir);
}

static fv_status wheel_unpack(setup *s, const char *wheel_dir, fv_error *err)
{
    char *wheel;
    FV_TRY(wheel_find(&wheel, wheel_dir, err));
    const char *const argv[] = { s->python, "-m", "zipfile", "-e", wheel, s->out.stage, NULL };
    fv_status status = python_run(s, argv, err);
    unlink(wheel);
    fv_free(wheel);
    return status;
}

/* ---------------------------------------------------------------- the directory */

/* Fills s->out.stage. */
static fv_status stage_fill(setup *s, fv_error *err)
{
    char *libraries, *temporary = fv_path_join(s->out.stage, "tmp");
    char *wheels = fv_path_join(s->out.stage, "wheel");
    const char *by;
    fv_status status = temporary && wheels ? FV_OK : fv_fail_memory(err, 16, "a path");

    if (status == FV_OK)
        status = fv_outdir_sub(&s->out, "tmp", err);
    if (status == FV_OK)
        status = fv_outdir_sub(&s->out, "wheel", err);
    if (status == FV_OK)
        status = disk_check(s->out.stage, err);
    if (status == FV_OK)
        status = pip_download(s, wheels, err);
    s->done = 0.8;
    if (status == FV_OK)
        status = wheel_unpack(s, wheels, err);
    if (status == FV_OK) {
        rmdir(wheels);
        rmdir(temporary);
        status = fv_qnn_find(&libraries, &by, s->out.stage, err);
        if (status == FV_OK)
            fv_free(libraries);
    }
    fv_free(wheels);
    fv_free(temporary);
    return status;
}

static fv_status setup_run(setup *s, bool only_look, fv_npu_setup_report *report, fv_error *err)
{
    char *libraries;
    const char *by;

    if (fv_qnn_find(&libraries, &by, report->dir, NULL) == FV_OK) {
        fv_free(libraries);
        report->already = true;
        return FV_OK;
    }
    FV_TRY(machine_check(err));
    if (only_look)
        return FV_OK;
    FV_TRY(pip_check(s, err));
    FV_TRY(fv_outdir_open(&s->out, report->dir, false, s->callbacks, err));
    fv_status status = stage_fill(s, err);
    if (status == FV_OK)
        return fv_outdir_commit(&s->out, err);
    fv_outdir_abandon(&s->out);
    return status;
}

/* Where it goes: dir, or the version's place in the data directory. */
static fv_status setup_place(fv_npu_setup_report *report, const char *dir, const char *version,
                             fv_error *err)
{
    char *home = NULL;
    if (!dir)
        FV_TRY(fv_qnn_home(&home, err));
    int n = snprintf(report->dir, sizeof report->dir, "%s%s%s", dir ? dir : home, dir ? "" : "/",
                     dir ? "" : version);
    fv_free(home);
    if (n < 0 || (size_t)n >= sizeof report->dir)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s...: the path is too long", report->dir);
    return FV_OK;
}

fv_status fv_npu_setup(const fv_npu_setup_options *options, fv_npu_setup_report *out, fv_error *err)
{
    fv_npu_setup_options o;
    fv_npu_setup_report report = { .size = sizeof report };
    fv_callbacks callbacks;
    unsigned numbers[3];

    if (out)
        FV_TRY(FV_RESULT_CHECK(out, fv_npu_setup_report, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_npu_setup_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (!o.version)
        o.version = DEFAULT_VERSION;
    if (!fv_qnn_version_parse(o.version, numbers))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "version: expected three numbers such as " DEFAULT_VERSION ", found \"%s\"",
                       o.version);
    snprintf(report.version, sizeof report.version, "%s", o.version);
    FV_TRY(setup_place(&report, o.dir, o.version, err));
    setup s = { .version = o.version,
                .python = o.python ? o.python : "python3",
                .callbacks = o.callbacks };
    FV_TRY(setup_run(&s, o.only_look, &report, err));
    fv_result_out(out, &report, sizeof report);
    return FV_OK;
}
