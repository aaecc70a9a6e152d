/* What libraries there are and whether they can be used: each is opened in a child process, so that
 * one that ends its process is a line of the answer. */
#include <stdio.h>
#include <string.h>

#include "base/sized.h"
#include "fastvlm_npu.h"
#include "npu/qnn_child.h"
#include "npu/qnn_find.h"

#define CHECK_TIMEOUT_MS 120000.0

/* A library's answer, as the child writes it. */
typedef struct check_answer {
    uint32_t major, minor;
    char build[64];
} check_answer;

typedef struct check_job {
    const char *dir, *name;
    bool is_system;
} check_job;

static fv_status check_child(void *user, fv_qnn_child *child, fv_error *err)
{
    const check_job *job = user;
    fv_qnn_library library;
    const fv_qnn_provider *backend;
    const fv_qnn_system *system;
    check_answer answer = { 0 };
    const char *build = NULL;

    FV_TRY(fv_qnn_library_open(&library, job->dir, job->name, err));
    if (job->is_system) {
        FV_TRY(fv_qnn_system_functions(&system, &library, err));
        answer.major = system->version.major;
        answer.minor = system->version.minor;
    } else {
        FV_TRY(fv_qnn_backend_functions(&backend, &library, err));
        answer.major = backend->core.major;
        answer.minor = backend->core.minor;
        if (backend->api.build_id(&build) == 0 && build)
            snprintf(answer.build, sizeof answer.build, "%s", build);
    }
    return fv_qnn_child_write(child, &answer, sizeof answer, err);
}

/* Whether it can be used; problem [496] says why not. FV_ERR_CANCELLED only when it was. */
static fv_status library_check(const char *dir, const char *name, const fv_callbacks *callbacks,
                               check_answer *answer, bool *usable, char *problem, fv_error *err)
{
    char title[600];
    fv_error why = { 0 };
    fv_qnn_child_result result;
    check_job job = { dir, name, strcmp(name, "libQnnSystem.so") == 0 };
    snprintf(title, sizeof title, "%s/%s", dir, name);
    fv_qnn_child_options options = { .run = check_child,
                                     .user = &job,
                                     .name = title,
                                     .stage = "check",
                                     .callbacks = callbacks,
                                     .timeout_ms = CHECK_TIMEOUT_MS };
    fv_status status = fv_qnn_child_run(&result, &options, &why);
    *usable = status == FV_OK && result.n_bytes == sizeof *answer;
    if (*usable) {
        memcpy(answer, result.bytes, sizeof *answer);
        answer->build[sizeof answer->build - 1] = 0;
    } else {
        snprintf(problem, sizeof why.message, "%s",
                 status == FV_OK ? "its answer is incomplete" : why.message);
    }
    fv_qnn_child_result_free(&result);
    return status == FV_ERR_CANCELLED ? fv_fail(err, status, 0, "%s", why.message) : FV_OK;
}

static fv_status libraries_check(fv_npu_library_info *info, const fv_npu_library_options *o,
                                 fv_error *err)
{
    check_answer htp = { 0 }, other = { 0 };

    FV_TRY(library_check(info->dir, "libQnnHtp.so", o->callbacks, &htp, &info->htp,
                         info->htp_problem, err));
    FV_TRY(library_check(info->dir, "libQnnSystem.so", o->callbacks, &other, &info->system,
                         info->system_problem, err));
    FV_TRY(library_check(info->dir, "libQnnCpu.so", o->callbacks, &other, &info->cpu,
                         info->cpu_problem, err));
    memcpy(info->build, htp.build, sizeof info->build);
    info->api_major = htp.major;
    info->api_minor = htp.minor;
    return FV_OK;
}

fv_status fv_npu_check(fv_npu_library_info *out, const fv_npu_library_options *options,
                       fv_error *err)
{
    fv_npu_library_options o;
    fv_npu_library_info info = { .size = sizeof info, .named_by = "" };
    fv_callbacks callbacks;
    char *dir;

    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_npu_library_info, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_npu_library_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(fv_qnn_find(&dir, &info.named_by, o.qnn_dir, err));
    bool fits = (size_t)snprintf(info.dir, sizeof info.dir, "%s", dir) < sizeof info.dir;
    fv_free(dir);
    if (!fits)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s...: the path is too long", info.dir);
    FV_TRY(libraries_check(&info, &o, err));
    fv_result_out(out, &info, sizeof info);
    return FV_OK;
}
