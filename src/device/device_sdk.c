/* Files of Qualcomm's SDK for a phone. See device_sdk.h. */
#include "device/device_sdk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "fastvlm_device.h"

/* %u is the Hexagon's version. */
static const struct sdk_file {
    const char *dir, *name;
    bool optional, program;
} libraries[] = {
    { "lib/aarch64-android", "libQnnHtp.so", false, false },
    { "lib/aarch64-android", "libQnnSystem.so", false, false },
    { "lib/aarch64-android", "libQnnHtpV%uStub.so", false, false },
    { "lib/hexagon-v%u/unsigned", "libQnnHtpV%uSkel.so", false, false },
    { "lib/aarch64-android", "libQnnHtpPrepare.so", true,
      false }, /* without it the library warns */
    { "lib/hexagon-v%u/unsigned", "libQnnHtpV%u.so", true, false },
};

static const struct sdk_file programs[] = {
    { "bin/aarch64-android", "qnn-net-run", false, true },
    { "bin/aarch64-android", "genie-t2t-run", false, true },
    { "lib/aarch64-android", "libGenie.so", false, false },
    { "lib/aarch64-android", "libQnnGenAiTransformer.so", false, false },
    { "lib/aarch64-android", "libQnnGenAiTransformerModel.so", false, false },
    { "lib/aarch64-android", "libQnnGenAiTransformerCpuOpPkg.so", false, false },
    { "lib/aarch64-android", "libQnnCpu.so", true, false },
    { "lib/aarch64-android", "libc++_shared.so", true, false }, /* else the NDK's */
};

/* text with the version in place of "%u". */
static void htp_version_put(char *to, size_t capacity, const char *text, unsigned version)
{
    const char *mark = strstr(text, "%u");
    if (mark)
        snprintf(to, capacity, "%.*s%u%s", (int)(mark - text), text, version, mark + 2);
    else
        snprintf(to, capacity, "%s", text);
}

/* Where the SDK has the file in[] / name[]: *path, to fv_free; NULL: one that is optional is not
 * there. */
static fv_status sdk_file_find(char **path, const char *sdk, const struct sdk_file *file,
                               const char *in, const char *name, fv_error *err)
{
    char *folder = fv_path_join(sdk, in);
    *path = folder ? fv_path_join(folder, name) : NULL;
    if (*path && !fv_is_file(*path)) { /* all in one directory */
        fv_free(*path);
        *path = fv_path_join(sdk, name);
    }
    fv_free(folder);
    if (!*path)
        return fv_fail_memory(err, strlen(sdk), "a path");
    if (fv_is_file(*path))
        return FV_OK;
    fv_free(*path);
    *path = NULL;
    return file->optional ? FV_OK
                          : fv_fail(err, FV_ERR_IO, 0,
                                    "%s: neither %s/%s nor %s is in it; expected Qualcomm's SDK "
                                    "(QAIRT), which has Android's libraries",
                                    sdk, in, name, name);
}

static fv_status library_add(fv_push_set *set, const char *sdk, const struct sdk_file *file,
                             unsigned version, const char *dir, const fv_callbacks *callbacks,
                             fv_error *err)
{
    char in[64], name[64], remote[160], *path;

    htp_version_put(in, sizeof in, file->dir, version);
    htp_version_put(name, sizeof name, file->name, version);
    snprintf(remote, sizeof remote, "%s/%s", dir, name);
    fv_status status = sdk_file_find(&path, sdk, file, in, name, err);
    if (status == FV_OK && path)
        status = fv_push_add(set, path, remote, file->program, callbacks, err);
    fv_free(path);
    return status;
}

static fv_status sdk_named(const char *sdk, fv_error *err)
{
    return sdk ? FV_OK
               : fv_fail(err, FV_ERR_IO, 0,
                         "no SDK is named; the phone's NPU needs Android's libraries of Qualcomm's "
                         "SDK (QAIRT)");
}

static fv_status sdk_files_check(const char *sdk, const struct sdk_file *list, size_t n,
                                 fv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        char *path = NULL;
        if (!strchr(list[i].name, '%')) /* that depends on the phone */
            FV_TRY(sdk_file_find(&path, sdk, &list[i], list[i].dir, list[i].name, err));
        fv_free(path);
    }
    return FV_OK;
}

fv_status fv_device_check_sdk(const char *sdk, bool programs_too, fv_error *err)
{
    FV_TRY(sdk_named(sdk, err));
    FV_TRY(sdk_files_check(sdk, libraries, FV_COUNT(libraries), err));
    return programs_too ? sdk_files_check(sdk, programs, FV_COUNT(programs), err) : FV_OK;
}

fv_status fv_device_sdk_libraries(fv_push_set *set, const char *sdk, unsigned htp_version,
                                  const char *dir, const fv_callbacks *callbacks, fv_error *err)
{
    FV_TRY(sdk_named(sdk, err));
    for (size_t i = 0; i < FV_COUNT(libraries); i++)
        FV_TRY(library_add(set, sdk, &libraries[i], htp_version, dir, callbacks, err));
    return FV_OK;
}

/* The C++ library that Genie needs and the phone has not: the SDK brings it, or the NDK does. */
static fv_status cxx_library_add(fv_push_set *set, const char *dir, const fv_callbacks *callbacks,
                                 fv_error *err)
{
    static const char inside[] = "toolchains/llvm/prebuilt/linux-x86_64/sysroot/usr/lib/"
                                 "aarch64-linux-android/libc++_shared.so";
    const char *ndk = getenv("ANDROID_NDK_ROOT");
    char remote[160];

    for (size_t i = 0; i < set->n; i++)
        if (strstr(set->list[i].remote, "libc++_shared.so"))
            return FV_OK;
    snprintf(remote, sizeof remote, "%s/libc++_shared.so", dir);
    char *path = ndk && *ndk ? fv_path_join(ndk, inside) : NULL;
    fv_status status = FV_OK;
    if (path && fv_is_file(path))
        status = fv_push_add(set, path, remote, false, callbacks, err);
    else
        fv_log(callbacks, FV_LOG_WARNING,
               "libc++_shared.so is neither in the SDK nor in an NDK (ANDROID_NDK_ROOT); "
               "genie-t2t-run may not start without it");
    fv_free(path);
    return status;
}

fv_status fv_device_sdk_programs(fv_push_set *set, const char *sdk, unsigned htp_version,
                                 const char *dir, const fv_callbacks *callbacks, fv_error *err)
{
    FV_TRY(fv_device_sdk_libraries(set, sdk, htp_version, dir, callbacks, err));
    for (size_t i = 0; i < FV_COUNT(programs); i++)
        FV_TRY(library_add(set, sdk, &programs[i], htp_version, dir, callbacks, err));
    return cxx_library_add(set, dir, callbacks, err);
}
