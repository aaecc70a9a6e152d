/* Opens a library and finds its functions. See dynlib.h. */
#include "base/dynlib.h"

#include <stdio.h>
#include <string.h>

#ifdef FASTVLM_STATIC

void *fv_dynlib_load(const char *file, char problem[FV_DYNLIB_PROBLEM])
{
    (void)file;
    snprintf(problem, FV_DYNLIB_PROBLEM,
             "this program is linked statically and opens no libraries");
    return NULL;
}

void *fv_dynlib_function_of(void *library, const char *name)
{
    (void)library;
    (void)name;
    return NULL;
}

#else

#include <dlfcn.h>

void *fv_dynlib_load(const char *file, char problem[FV_DYNLIB_PROBLEM])
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    const char *why = library ? "" : dlerror();
    snprintf(problem, FV_DYNLIB_PROBLEM, "%s", why ? why : "dlopen failed");
    return library;
}

void *fv_dynlib_function_of(void *library, const char *name) { return dlsym(library, name); }

#endif

bool fv_dynlib_open(void *table, const char *const *files, size_t n_files,
                    const fv_dynlib_function *functions, size_t n_functions,
                    char problem[FV_DYNLIB_PROBLEM])
{
    void *library = NULL;

    for (size_t i = 0; !library && i < n_files; i++)
        library = fv_dynlib_load(files[i], problem);
    if (!library)
        return false;
    for (size_t i = 0; i < n_functions; i++) {
        void *function = fv_dynlib_function_of(library, functions[i].name);
        if (!function && !functions[i].optional) {
            snprintf(problem, FV_DYNLIB_PROBLEM, "it has no %s", functions[i].name);
            return false;
        }
        memcpy((char *)table + functions[i].at, &function, sizeof function);
    }
    return true;
}
