/* Directories, ELF headers, dlopen and the tables of functions. See qnn_find.h. */
#include "npu/qnn_find.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynlib.h"

enum { MAX_PROVIDERS = 16, ELF_HEAD_BYTES = 64 };

/* ---------------------------------------------------------------- which directory */

/* Where libraries lie below a directory that somebody names: itself, a wheel, an SDK. */
static const char *const places[] = {
    "",
    "onnxruntime_qnn",
#if defined(__x86_64__)
    "lib/x86_64-linux-clang",
#elif defined(__ANDROID__)
    "lib/aarch64-android",
#elif defined(__aarch64__)
    "lib/aarch64-oe-linux-gcc11.2",
    "lib/aarch64-ubuntu-gcc9.4",
#endif
};

static bool dir_has_libraries(const char *dir)
{
    static const char *const names[] = { "libQnnHtp.so", "libQnnSystem.so", "libQnnCpu.so" };
    bool found = false;
    for (size_t i = 0; !found && i < FV_COUNT(names); i++) {
        char *path = fv_path_join(dir, names[i]);
        found = path && fv_is_file(path);
        fv_free(path);
    }
    return found;
}

static fv_status dir_search(char **out, const char *dir, const char *by, fv_error *err)
{
    for (size_t i = 0; i < FV_COUNT(places); i++) {
        char *path = *places[i] ? fv_path_join(dir, places[i]) : fv_strdup(dir);
        if (!path)
            return fv_fail_memory(err, strlen(dir), "a path");
        if (dir_has_libraries(path)) {
            *out = path;
            return FV_OK;
        }
        fv_free(path);
    }
    bool variable = strncmp(by, "qnn_dir", 7) != 0; /* the caller knows what it has set itself */
    return fv_fail(err, FV_ERR_IO, 0,
                   "%s: no QNN library in it%s%s%s; expected libQnnSystem.so and libQnnHtp.so "
                   "there, in onnxruntime_qnn/ or in an SDK's lib/",
                   dir, variable ? " (named by " : "", variable ? by : "", variable ? ")" : "");
}

fv_status fv_qnn_home(char **out, fv_error *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    bool xdg = data && *data == '/'; /* the specification ignores relative ones */
    if (!xdg && !(home && *home))
        return fv_fail(err, FV_ERR_IO, 0,
                       "no directory for data: neither XDG_DATA_HOME nor HOME is set");
    *out = fv_path_join(xdg ? data : home, xdg ? "fastvlm/qnn" : ".local/share/fastvlm/qnn");
    return *out ? FV_OK : fv_fail_memory(err, 32, "a path");
}

bool fv_qnn_version_parse(const char *text, unsigned version[3])
{
    for (int i = 0; i < 3; i++) {
        size_t n = strspn(text, "0123456789");
        if (n == 0 || n > 4 || text[n] != (i < 2 ? '.' : 0))
            return false;
        version[i] = (unsigned)strtoul(text, NULL, 10);
        text += n + (i < 2);
    }
    return true;
}

static bool version_is_newer(const unsigned a[3], const unsigned b[3])
{
    for (int i = 0; i < 3; i++)
        if (a[i] != b[i])
            return a[i] > b[i];
    return false;
}

/* The newest of the versions that are set up; none: *out is NULL. */
static fv_status home_newest(char **out, const char *home, fv_error *err)
{
    unsigned best[3] = { 0 }, version[3];
    DIR *dir = opendir(home);

    *out = NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!fv_qnn_version_parse(entry->d_name, version) ||
            (*out && !version_is_newer(version, best)))
            continue;
        char *path = fv_path_join(home, entry->d_name), *libraries = NULL;
        fv_status status = path ? dir_search(&libraries, path, "", NULL) : FV_ERR_MEMORY;
        fv_free(path);
        if (status == FV_ERR_MEMORY) {
            closedir(dir);
            return fv_fail_memory(err, strlen(home), "a path");
        }
        if (status != FV_OK)
            continue;
        fv_free(*out);
        *out = libraries;
        memcpy(best, version, sizeof best);
    }
    if (dir)
        closedir(dir);
    return FV_OK;
}

fv_status fv_qnn_find(char **out, const char **by, const char *dir, fv_error *err)
{
    const struct {
        const char *by, *dir;
    } named[] = { { "qnn_dir", dir },
                  { "FV_QNN_DIR", getenv("FV_QNN_DIR") },
                  { "QNN_SDK_ROOT", getenv("QNN_SDK_ROOT") } };
    char *home;

    *out = NULL;
    for (size_t i = 0; i < FV_COUNT(named); i++)
        if (named[i].dir && *named[i].dir) {
            *by = named[i].by;
            return dir_search(out, named[i].dir, *by, err);
        }
    *by = "setup";
    FV_TRY(fv_qnn_home(&home, err));
    fv_status status = home_newest(out, home, err);
    if (status == FV_OK && !*out)
        status = fv_fail(err, FV_ERR_IO, 0,
                         "no QNN libraries: FV_QNN_DIR and QNN_SDK_ROOT are not set, and %s has "
                         "none",
                         home);
    fv_free(home);
    return status;
}

/* ---------------------------------------------------------------- what a file is */

static const char *machine_name(unsigned machine)
{
    switch (machine) {
    case 3: return "32-bit x86";
    case 40: return "32-bit Arm";
    case 62: return "x86-64";
    case 164: return "Hexagon";
    case 183: return "64-bit Arm";
    case 243: return "RISC-V";
    default: return "another processor";
    }
}

#if defined(__x86_64__)
enum { OUR_MACHINE = 62 };
#elif defined(__aarch64__)
enum { OUR_MACHINE = 183 };
#else
enum { OUR_MACHINE = 0 };
#endif

fv_status fv_elf_check(const uint8_t *head, size_t n, const char *path, fv_error *err)
{
    if (n < 4 || memcmp(head, "\177ELF", 4) != 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       n ? "%s: not a library: expected an ELF file" : "%s: the file is empty",
                       path);
    if (n < ELF_HEAD_BYTES)
        return fv_fail(err, FV_ERR_FORMAT, n,
                       "%s: truncated: an ELF header has %d bytes, found %zu", path, ELF_HEAD_BYTES,
                       n);
    unsigned kind = head[16] | (unsigned)head[17] << 8;
    unsigned machine = head[18] | (unsigned)head[19] << 8;
    if (head[5] != 1) /* big endian: its fields read as something else */
        return fv_fail(err, FV_ERR_UNSUPPORTED, 5, "%s: for a big-endian processor", path);
    if (machine != OUR_MACHINE || head[4] != 2)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 18, "%s: for %s, expected %s", path,
                       machine_name(machine), machine_name(OUR_MACHINE));
    if (kind != 3)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 16,
                       "%s: not a shared library (ELF type %u, expected 3)", path, kind);
    return FV_OK;
}

static fv_status file_check(const char *path, fv_error *err)
{
    uint8_t head[ELF_HEAD_BYTES];
    FILE *f = fopen(path, "rb");
    if (!f)
        return fv_fail(err, FV_ERR_IO, 0, "%s: %s", path,
                       errno == ENOENT ? "no such library" : strerror(errno));
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    return fv_elf_check(head, n, path, err);
}

/* ---------------------------------------------------------------- opening */

/* What dlopen says is the file, or one that it needs, and why: the library that is missing is named
 * first. */
static fv_status open_fail(const char *path, const char *why, fv_error *err)
{
    static const char absent[] = ": cannot open shared object file";
    const char *end = strstr(why, absent);
    size_t n = end ? (size_t)(end - why) : 0;
    if (!end || strncmp(why, path, n) == 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot be loaded: %s", path, why);
    return fv_fail(err, FV_ERR_IO, 0, "%s needs the library %.*s, which is not there%s", path,
                   (int)n, why,
                   strncmp(why, "libc++", 6) == 0 || strncmp(why, "libunwind", 9) == 0
                       ? "; it comes with the wheel, in onnxruntime_qnn.libs beside this directory"
                       : "");
}

fv_status fv_qnn_library_open(fv_qnn_library *out, const char *dir, const char *name, fv_error *err)
{
    *out = (fv_qnn_library){ .handle = NULL };
    if ((size_t)snprintf(out->path, sizeof out->path, "%s/%s", dir, name) >= sizeof out->path)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", dir);
    FV_TRY(file_check(out->path, err));
    char why[FV_DYNLIB_PROBLEM] = "";
    out->handle = fv_dynlib_load(out->path, why);
    return out->handle ? FV_OK : open_fail(out->path, why, err);
}

/* ---------------------------------------------------------------- its functions */

typedef fv_qnn_status get_fn(const void ***list, uint32_t *n);

/* The list of what a library offers. */
static fv_status providers_get(const fv_qnn_library *library, const char *symbol,
                               const void ***list, uint32_t *n, fv_error *err)
{
    get_fn *get = NULL;
    void *address = fv_dynlib_function_of(library->handle, symbol);

    *list = NULL;
    *n = 0;
    if (!address)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: has no function %s: not the library we need", library->path, symbol);
    memcpy(&get, &address, sizeof get);
    fv_qnn_status code = get(list, n);
    if (code)
        return fv_fail(err, FV_ERR_IO, 0, "%s: %s: error %u", library->path, symbol,
                       fv_qnn_code(code));
    if (*n == 0 || *n > MAX_PROVIDERS || !*list)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: offers %u interfaces, expected 1 to %d",
                       library->path, *n, MAX_PROVIDERS);
    for (uint32_t i = 0; i < *n; i++)
        if (!(*list)[i])
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: its interface %u is NULL",
                           library->path, i);
    return FV_OK;
}

fv_status fv_qnn_backend_functions(const fv_qnn_provider **out, const fv_qnn_library *library,
                                   fv_error *err)
{
    const void **list;
    uint32_t n;

    *out = NULL;
    FV_TRY(providers_get(library, FV_QNN_PROVIDERS, &list, &n, err));
    const fv_qnn_provider *first = list[0];
    for (uint32_t i = 0; i < n; i++) {
        const fv_qnn_provider *p = list[i];
        if (p->core.major == FV_QNN_API_MAJOR && p->core.minor >= FV_QNN_API_MINOR) {
            *out = p;
            return FV_OK;
        }
    }
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "%s: QNN API %u.%u.%u, expected %d.%d or a later one of version %d: use "
                   "libraries of another QAIRT",
                   library->path, first->core.major, first->core.minor, first->core.patch,
                   FV_QNN_API_MAJOR, FV_QNN_API_MINOR, FV_QNN_API_MAJOR);
}

fv_status fv_qnn_system_functions(const fv_qnn_system **out, const fv_qnn_library *library,
                                  fv_error *err)
{
    const void **list;
    uint32_t n;

    *out = NULL;
    FV_TRY(providers_get(library, FV_QNN_SYSTEM_PROVIDERS, &list, &n, err));
    const fv_qnn_system *first = list[0];
    for (uint32_t i = 0; i < n; i++) {
        const fv_qnn_system *s = list[i];
        if (s->version.major == FV_QNN_SYSTEM_API_MAJOR) {
            *out = s;
            return FV_OK;
        }
    }
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: QNN system API %u.%u.%u, expected version %d",
                   library->path, first->version.major, first->version.minor, first->version.patch,
                   FV_QNN_SYSTEM_API_MAJOR);
}
