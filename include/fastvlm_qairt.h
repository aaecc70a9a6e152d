/** \file fastvlm_qairt.h
 * fastvlm_qairt: Qualcomm's own tools, those of the QAIRT SDK and of Genie, run for the caller.
 *
 * The tools are the user's; none is part of fastvlm. Each runs as a child process with an
 * environment made here, so that nothing has to be sourced or activated before. What it writes goes
 * to a fresh directory beside its place and appears there once the tool has succeeded and every
 * file that was expected is there. The conventions of fastvlm.h apply. */
#ifndef FASTVLM_QAIRT_H
#define FASTVLM_QAIRT_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- the SDK */

/** The oldest release whose tools are known to be called rightly. */
#define FV_QAIRT_OLDEST "2.42.0.251225"

typedef struct fv_qairt_options {
    size_t size;
    /** directory of the SDK; NULL: what QNN_SDK_ROOT, else QAIRT_SDK_ROOT names, else the newest
     *  directory in the current one that is named by a version, such as 2.42.0.251225 */
    const char *sdk;
    /** Python environment of the converters and the composer; NULL: VIRTUAL_ENV, else qnn_env in
     *  the SDK, else the python3 on PATH */
    const char *venv;
    double timeout_s; /**< of one tool; 0: six hours */
    bool dry_run;     /**< log what would be run, run nothing and write nothing */
    /** log: every command, and what it says; progress: a tool's name as stage, to cancel it */
    const fv_callbacks *callbacks;
} fv_qairt_options;

FV_DEFINE_DEFAULT(fv_qairt_options)

/** What is there. */
typedef struct fv_qairt_info {
    size_t size;
    char dir[1024];
    const char *named_by;     /**< "sdk", "QNN_SDK_ROOT", "QAIRT_SDK_ROOT", "current directory" */
    char version[32];         /**< "2.42.0.251225" */
    char python[1024];        /**< the converters' python3 */
    char python_version[16];  /**< "3.10.12"; "" when it does not run */
    char python_problem[496]; /**< "" when nothing is wrong */
    char ndk[1024];           /**< ANDROID_NDK_ROOT; "" when it is not set */
    size_t n_tools, n_absent; /**< that fv_qairt_tool lists; of them missing in the SDK */
} fv_qairt_info;

/** Finds an SDK and looks at it. FV_ERR_IO: none is named, or it is not an SDK; FV_ERR_UNSUPPORTED:
 *  its release is older than FV_QAIRT_OLDEST. */
FV_API fv_status fv_qairt_check(fv_qairt_info *out, const fv_qairt_options *options, fv_error *err);

typedef struct fv_qairt_tool_info {
    size_t size;
    const char *name;    /**< "qnn-onnx-converter" */
    const char *purpose; /**< static */
    bool python;         /**< a Python script; otherwise a native program */
    bool phone;          /**< for the phone as well: bin/aarch64-android */
    bool there, there_for_phone;
} fv_qairt_tool_info;

/** A tool in the SDK `dir` (of fv_qairt_info). false when index is past the last one, a pointer is
 *  NULL or out->size 0. */
FV_API bool fv_qairt_tool(const char *dir, size_t index, fv_qairt_tool_info *out);

#ifdef __cplusplus
}
#endif
#endif
