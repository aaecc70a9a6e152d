/* Opens a library and finds its functions. See dynlib.h. */
#include "base/dynlib.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

bool fv_dynlib_open(void *table, const char *const *files, size_t n_files,
                    const fv_dynlib_function *functions, size_t n_functions,
                    char problem[FV_DYNLIB_PROBLEM])
{
    void *library = NULL;

    for (size_t i = 0; !library && i < n_files; i++)
        library = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        snprintf(problem, FV_DYNLIB_PROBLEM, "%s", why ? why : "dlopen failed");
        return false;
    }
    for (size_t i = 0; i < n_functions; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function && !functions[i].optional) {
            snprintf(problem, FV_DYNLIB_PROBLEM, "it has no %s", functions[i].name);
            return false;
        }
        memcpy((char *)table + functions[i].at, &function, sizeof function);
    }
    return true;
}
