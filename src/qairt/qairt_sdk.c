/* Finding the SDK, its version and Python, and the environment of its tools. See qairt_tool.h.
 *
 * Qualcomm's bin/envsetup.sh, which users source, sets the same variables; here they are set for
 * the child alone. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sized.h"
#include "qairt/qairt_tool.h"

enum { HEAD_BYTES = 1 << 20 };

static const struct tool {
    const char *name, *purpose;
    bool python, phone;
} tools[] = {
    { "qnn-onnx-converter", "ONNX to a quantised model as C++", true, false },
    { "qnn-model-lib-generator", "that model as a library", true, false },
    { "qairt-converter", "ONNX to a DLC", true, false },
    { "qairt-quantizer", "a DLC quantised", true, false },
    { "qnn-context-binary-generator", "a model compiled for an NPU", false, false },
    { "qnn-context-binary-utility", "what a context binary contains", false, false },
    { "qnn-net-run", "runs a context binary", false, true },
    { "qnn-profile-viewer", "reads its profiles", false, false },
    { "qnn-genai-transformer-composer", "a decoder for Genie's CPU engine", true, false },
    { "genie-t2t-run", "runs a decoder", false, true },
};

/* ---------------------------------------------------------------- versions */

bool fv_sdk_version_parse(const char *text, unsigned numbers[4])
{
    size_t i = 0;
    memset(numbers, 0, 4 * sizeof *numbers);
    text += *text == 'v';
    for (;;) {
        size_t n = strspn(text, "0123456789");
        if (n == 0)
            return false;
        /* A build's date may be followed by a time: the first six digits say which day. */
        char digits[8] = "";
        memcpy(digits, text, FV_MIN(n, (size_t)6));
        numbers[i++] = (unsigned)strtoul(digits, NULL, 10);
        text += n;
        if (i == 4 || *text != '.')
            break;
        text++;
    }
    return i >= 3;
}

static int sdk_version_compare(const unsigned a[4], const unsigned b[4])
{
    for (int i = 0; i < 4; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}

int fv_sdk_release_compare(const unsigned a[4], const unsigned b[4])
{
    const unsigned x[4] = { a[0], a[1], a[2] }, y[4] = { b[0], b[1], b[2] };
    return sdk_version_compare(x, y);
}

/* Behind the first `key` in the file dir/name, up to a blank, quote or the line's end. */
static bool sdk_word_read(const char *dir, const char *name, const char *key, char word[32])
{
    uint8_t *text = NULL;
    size_t n = 0;
    char *path = fv_path_join(dir, name);
    bool found = false;
    if (path && fv_is_file(path) && fv_read_file(&text, &n, path, HEAD_BYTES, NULL) == FV_OK) {
        const char *at = strstr((const char *)text, key);
        if (at) {
            at += strlen(key);
            at += strspn(at, " \t\"'v");
            size_t length = strcspn(at, " \t\r\n\"'");
            found = length > 0 && length < 32;
            if (found)
                snprintf(word, 32, "%.*s", (int)length, at);
        }
    }
    fv_free(text);
    fv_free(path);
    return found;
}

/* Where a release says what it is: sdk.yaml, a header, the name that its archive unpacks to. */
static fv_status sdk_version_find(fv_sdk *s, fv_error *err)
{
    const char *slash = strrchr(s->dir, '/'), *name = slash ? slash + 1 : s->dir;
    char word[32];
    unsigned numbers[4], oldest[4];
    bool found = (sdk_word_read(s->dir, "sdk.yaml", "version:", word) &&
                  fv_sdk_version_parse(word, numbers)) ||
                 (sdk_word_read(s->dir, "include/QNN/QnnSdkBuildId.h", "QNN_SDK_BUILD_ID", word) &&
                  fv_sdk_version_parse(word, numbers));
    if (!found && strlen(name) < sizeof word) {
        snprintf(word, sizeof word, "%s", name);
        found = fv_sdk_version_parse(word, numbers);
    }
    if (!found)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: its version is not known: expected one in sdk.yaml, in "
                       "include/QNN/QnnSdkBuildId.h or as the directory's name",
                       s->dir);
    snprintf(s->version, sizeof s->version, "%s", word);
    memcpy(s->numbers, numbers, sizeof numbers);
    fv_sdk_version_parse(FV_QAIRT_OLDEST, oldest);
    if (sdk_version_compare(numbers, oldest) < 0)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: this SDK is QAIRT %s; expected " FV_QAIRT_OLDEST " or newer", s->dir,
                       s->version);
    return FV_OK;
}

/* ---------------------------------------------------------------- which directory */

fv_status fv_path_absolute(char **out, const char *path, fv_error *err)
{
    char here[PATH_MAX];
    *out = *path == '/'                ? fv_strdup(path)
           : getcwd(here, sizeof here) ? fv_path_join(here, path)
                                       : NULL;
    return *out ? FV_OK : fv_fail_memory(err, strlen(path), "a path");
}

/* The newest directory here that is named by a version and has the tools; none: *out NULL. */
static fv_status sdk_search_here(char **out, fv_error *err)
{
    unsigned best[4] = { 0 }, numbers[4];
    fv_status status = FV_OK;
    DIR *dir = opendir(".");
    *out = NULL;
    for (struct dirent *e; dir && status == FV_OK && (e = readdir(dir));) {
        char *programs = NULL;
        if (!fv_sdk_version_parse(e->d_name, numbers) ||
            (*out && sdk_version_compare(numbers, best) <= 0))
            continue;
        programs = fv_path_join(e->d_name, "bin/" FV_SDK_HOST);
        if (programs && fv_is_dir(programs)) {
            fv_free(*out);
            memcpy(best, numbers, sizeof best);
            if (!(*out = fv_strdup(e->d_name)))
                status = fv_fail_memory(err, strlen(e->d_name), "a path");
        }
        fv_free(programs);
    }
    if (dir)
        closedir(dir);
    return status;
}

static fv_status sdk_dir_find(fv_sdk *s, const char *given, fv_error *err)
{
    const struct {
        const char *by, *dir;
    } named[] = { { "sdk", given },
                  { "QNN_SDK_ROOT", getenv("QNN_SDK_ROOT") },
                  { "QAIRT_SDK_ROOT", getenv("QAIRT_SDK_ROOT") } };
    char *here = NULL, *path = NULL;
    fv_status status = FV_OK;
    for (size_t i = 0; i < FV_COUNT(named) && !path; i++)
        if (named[i].dir && *named[i].dir) {
            s->named_by = named[i].by;
            FV_TRY(fv_path_absolute(&path, named[i].dir, err));
        }
    if (!path) {
        s->named_by = "current directory";
        FV_TRY(sdk_search_here(&here, err));
        if (!here)
            return fv_fail(err, FV_ERR_IO, 0,
                           "no QAIRT SDK: QNN_SDK_ROOT and QAIRT_SDK_ROOT are not set, and the "
                           "current directory has none named by its version (such as " //
                           FV_QAIRT_OLDEST ")");
        status = fv_path_absolute(&path, here, err);
        fv_free(here);
        FV_TRY(status);
    }
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    s->dir = path;
    s->programs = fv_path_join(path, "bin/" FV_SDK_HOST);
    s->libraries = fv_path_join(path, "lib/" FV_SDK_HOST);
    if (!s->programs || !s->libraries)
        return fv_fail_memory(err, strlen(path), "a path");
    if (!fv_is_dir(s->programs))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: not a QAIRT SDK%s%s%s; expected bin/" FV_SDK_HOST " in it", path,
                       given && *given ? "" : " (named by ", given && *given ? "" : s->named_by,
                       given && *given ? "" : ")");
    if (strpbrk(path, ": \t\n,'\"\\"))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: the SDK's tools cannot be called from a path with a blank, colon, "
                       "comma, quote or backslash in it; move the SDK",
                       path);
    return FV_OK;
}

/* ---------------------------------------------------------------- Python */

static fv_status sdk_python_find(fv_sdk *s, const char *given, fv_error *err)
{
    const char *active = getenv("VIRTUAL_ENV");
    bool explicit = given && *given;
    char *own = fv_path_join(s->dir, "qnn_env"), *venv = NULL;
    const char *from = explicit ? given : active && *active ? active : own;
    fv_status status = own ? fv_path_absolute(&venv, from, err)
                           : fv_fail_memory(err, strlen(s->dir), "a path");
    if (status == FV_OK && !(s->python = fv_path_join(venv, "bin/python3")))
        status = fv_fail_memory(err, strlen(venv), "a path");
    if (status == FV_OK && access(s->python, X_OK) == 0) {
        s->venv = venv;
        venv = NULL;
    } else if (status == FV_OK && explicit) {
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: not a Python environment; expected bin/python3 in it", given);
    } else if (status == FV_OK) {
        fv_free(s->python);
        if (!(s->python = fv_strdup("python3")))
            status = fv_fail_memory(err, 8, "a path");
    }
    fv_free(venv);
    fv_free(own);
    return status;
}

/* ---------------------------------------------------------------- the environment */

/* NAME=first:second:...:what the caller has. */
static fv_status sdk_variable_add(fv_sdk *s, size_t *n, const char *name, const char *first,
                                  const char *second, const char *third, bool keep, fv_error *err)
{
    const char *before = keep ? getenv(name) : NULL;
    const char *const parts[] = { first, second, third, before };
    size_t size = strlen(name) + 2, at;
    for (size_t i = 0; i < FV_COUNT(parts); i++)
        size += parts[i] && *parts[i] ? strlen(parts[i]) + 1 : 0;
    char *text = fv_alloc(size, 1);
    if (!text)
        return fv_fail_memory(err, size, "a variable");
    at = (size_t)snprintf(text, size, "%s=", name);
    for (size_t i = 0, some = 0; i < FV_COUNT(parts); i++)
        if (parts[i] && *parts[i])
            at += (size_t)snprintf(text + at, size - at, "%s%s", some++ ? ":" : "", parts[i]);
    s->variable[*n] = text;
    s->environment[(*n)++] = text;
    return FV_OK;
}

static fv_status sdk_environment_make(fv_sdk *s, fv_error *err)
{
    const char *ndk = getenv("ANDROID_NDK_ROOT");
    char *modules = fv_path_join(s->dir, "lib/python");
    char *venv_bin = s->venv ? fv_path_join(s->venv, "bin") : fv_strdup("");
    size_t n = 0;
    fv_status status = modules && venv_bin ? FV_OK : fv_fail_memory(err, 16, "a path");
    if (status == FV_OK) /* ndk-build is looked for on PATH */
        status = sdk_variable_add(s, &n, "PATH", venv_bin, s->programs, ndk, true, err);
    if (status == FV_OK)
        status = sdk_variable_add(s, &n, "LD_LIBRARY_PATH", s->libraries, NULL, NULL, true, err);
    if (status == FV_OK)
        status = sdk_variable_add(s, &n, "PYTHONPATH", modules, NULL, NULL, true, err);
    if (status == FV_OK)
        status = sdk_variable_add(s, &n, "QNN_SDK_ROOT", s->dir, NULL, NULL, false, err);
    if (status == FV_OK)
        status = sdk_variable_add(s, &n, "SNPE_ROOT", s->dir, NULL, NULL, false, err);
    if (status == FV_OK && s->venv)
        status = sdk_variable_add(s, &n, "VIRTUAL_ENV", s->venv, NULL, NULL, false, err);
    if (status == FV_OK)
        s->environment[n++] = "PYTHONHOME"; /* removed: it would name another Python's modules */
    s->environment[n] = NULL;
    fv_free(modules);
    fv_free(venv_bin);
    return status;
}

fv_status fv_sdk_open(fv_sdk *sdk, const fv_qairt_options *options, fv_error *err)
{
    *sdk = (fv_sdk){ 0 };
    fv_status status = sdk_dir_find(sdk, options->sdk, err);
    if (status == FV_OK)
        status = sdk_version_find(sdk, err);
    if (status == FV_OK)
        status = sdk_python_find(sdk, options->venv, err);
    if (status == FV_OK)
        status = sdk_environment_make(sdk, err);
    if (status != FV_OK)
        fv_sdk_close(sdk);
    return status;
}

void fv_sdk_close(fv_sdk *sdk)
{
    fv_free(sdk->dir);
    fv_free(sdk->programs);
    fv_free(sdk->libraries);
    fv_free(sdk->python);
    fv_free(sdk->venv);
    for (size_t i = 0; i < FV_SDK_VARIABLES; i++)
        fv_free(sdk->variable[i]);
    *sdk = (fv_sdk){ 0 };
}

/* ---------------------------------------------------------------- fastvlm_qairt.h */

/* Its version, and the modules that the converters and the composer import. */
static void sdk_python_check(const fv_sdk *s, fv_qairt_info *info)
{
    static const char script[] =
        "import importlib.util as u, sys\n"
        "print('.'.join(map(str, sys.version_info[:3])))\n"
        "print(' '.join(m for m in ('numpy', 'onnx', 'yaml') if not u.find_spec(m)))\n";
    const char *const argv[] = { s->python, "-c", script, NULL };
    fv_spawn_options options = { .argv = argv, .environment = s->environment, .timeout_ms = 15e3 };
    fv_spawn_result result;
    fv_error why;
    snprintf(info->python, sizeof info->python, "%s", s->python);
    if (fv_spawn_run(&result, &options, &why) != FV_OK) {
        snprintf(info->python_problem, sizeof info->python_problem, "%s", why.message);
    } else {
        size_t n = strcspn(result.out, "\n");
        const char *missing = result.out + n + (result.out[n] == '\n');
        snprintf(info->python_version, sizeof info->python_version, "%.*s", (int)FV_MIN(n, 15u),
                 result.out);
        if (*missing && *missing != '\n')
            snprintf(info->python_problem, sizeof info->python_problem,
                     "it lacks the modules %.*s, which the converters import",
                     (int)strcspn(missing, "\n"), missing);
        else if (strncmp(info->python_version, "3.10", 4) != 0)
            snprintf(info->python_problem, sizeof info->python_problem,
                     "Python %s; the converters are made for 3.10", info->python_version);
    }
    fv_spawn_result_free(&result);
}

static bool sdk_has(const char *dir, const char *target, const char *name)
{
    char *folder = fv_path_join(dir, target), *path = folder ? fv_path_join(folder, name) : NULL;
    bool there = path && fv_is_file(path) && access(path, X_OK) == 0;
    fv_free(folder);
    fv_free(path);
    return there;
}

bool fv_qairt_tool(const char *dir, size_t index, fv_qairt_tool_info *out)
{
    if (!dir || index >= FV_COUNT(tools))
        return false;
    const struct tool *t = &tools[index];
    fv_qairt_tool_info info = { .name = t->name,
                                .purpose = t->purpose,
                                .python = t->python,
                                .phone = t->phone,
                                .there = sdk_has(dir, "bin/" FV_SDK_HOST, t->name),
                                .there_for_phone = t->phone &&
                                                   sdk_has(dir, "bin/" FV_SDK_PHONE, t->name) };
    return fv_result_out(out, &info, sizeof info);
}

fv_status fv_qairt_options_in(fv_qairt_options *to, fv_callbacks *callbacks,
                              const fv_qairt_options *from, fv_error *err)
{
    FV_TRY(FV_OPTIONS_IN(to, fv_qairt_options, from, err));
    FV_TRY(fv_callbacks_in(callbacks, &to->callbacks, err));
    if (!(to->timeout_s >= 0))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "timeout_s: expected 0 or more");
    return FV_OK;
}

fv_status fv_qairt_check(fv_qairt_info *out, const fv_qairt_options *options, fv_error *err)
{
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_qairt_info info = { .n_tools = FV_COUNT(tools) };
    fv_qairt_tool_info tool = { .size = sizeof tool };
    const char *ndk = getenv("ANDROID_NDK_ROOT");
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_qairt_info, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    snprintf(info.dir, sizeof info.dir, "%s", sdk.dir);
    snprintf(info.version, sizeof info.version, "%s", sdk.version);
    snprintf(info.ndk, sizeof info.ndk, "%s", ndk ? ndk : "");
    info.named_by = sdk.named_by;
    for (size_t i = 0; fv_qairt_tool(sdk.dir, i, &tool); i++)
        info.n_absent += !tool.there;
    sdk_python_check(&sdk, &info);
    fv_sdk_close(&sdk);
    fv_result_out(out, &info, sizeof info);
    return FV_OK;
}
