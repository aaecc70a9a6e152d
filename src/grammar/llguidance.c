/* The library's places, dlopen and the version. See llguidance.h. */
#include "grammar/llguidance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dynlib.h"

#define LIBRARY   "libfastvlm_grammar.so"
#define INSTALLED "../libexec/fastvlm/" LIBRARY

/* The directory of the running program, with a slash at its end; "" where the system does not
 * say. */
static void program_dir_find(char *out, size_t capacity)
{
    ssize_t n = readlink("/proc/self/exe", out, capacity - 1);
    out[n > 0 ? n : 0] = 0;
    char *slash = strrchr(out, '/');
    if (slash)
        slash[1] = 0;
    else
        out[0] = 0;
}

/* A path that dlopen does not look for in the system's directories. */
static fv_status library_find(char *out, size_t capacity, fv_error *err)
{
    static const char *const places[] = { LIBRARY, INSTALLED };
    const char *named = getenv("FV_LLGUIDANCE");
    char dir[1024];

    if (named && *named) {
        FV_TRY(fv_file_check(named, err));
        snprintf(out, capacity, "%s%s", strchr(named, '/') ? "" : "./", named);
        return FV_OK;
    }
    program_dir_find(dir, sizeof dir);
    for (size_t i = 0; *dir && i < FV_COUNT(places); i++) {
        snprintf(out, capacity, "%s%s", dir, places[i]);
        if (fv_is_file(out))
            return FV_OK;
    }
    return fv_fail(err, FV_ERR_IO, 0,
                   "JSON schemas need llguidance: expected " LIBRARY " in %s or in %s, or the file "
                   "in FV_LLGUIDANCE",
                   *dir ? dir : "the program's directory", INSTALLED);
}

fv_status fv_llg_open(fv_llg *out, fv_error *err)
{
#define ROW(name)                                   \
    {                                               \
        "llg_" #name, offsetof(fv_llg, name), false \
    }
    static const fv_dynlib_function functions[] = {
        { "fastvlm_grammar_version", offsetof(fv_llg, fastvlm_grammar_version), false },
        ROW(new_tokenizer_v2),
        ROW(free_tokenizer),
        ROW(constraint_init_set_defaults),
        ROW(new_matcher),
        ROW(matcher_get_error),
        ROW(matcher_compute_mask_into),
        ROW(matcher_consume_token),
        ROW(matcher_is_accepting),
        ROW(free_matcher),
    };
#undef ROW
    char path[1200], problem[FV_DYNLIB_PROBLEM];
    const char *file = path;

    FV_TRY(library_find(path, sizeof path, err));
    if (!fv_dynlib_open(out, &file, 1, functions, FV_COUNT(functions), problem))
        return fv_fail(err, FV_ERR_IO, 0, "%s: not usable as llguidance: %s", path, problem);
    const char *version = out->fastvlm_grammar_version();
    if (strcmp(version, FV_LLG_VERSION) != 0)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: llguidance %s; expected version " FV_LLG_VERSION, path, version);
    return FV_OK;
}
