/* dynlib: a library of the system that is opened when it is first needed, so that a program without
 * need of it neither loads nor requires it. It stays open. */
#ifndef FV_DYNLIB_H
#define FV_DYNLIB_H

#include "base/base.h"

typedef struct fv_dynlib_function {
    const char *name;
    size_t at;     /* in the table of pointers */
    bool optional; /* NULL where the library has none */
} fv_dynlib_function;

enum { FV_DYNLIB_PROBLEM = 1280 };

/* A library and a function of it; NULL when there is none. problem says why; "" on success. A
 * program that is linked statically (FASTVLM_STATIC) has no loader and opens none. */
void *fv_dynlib_load(const char *file, char problem[FV_DYNLIB_PROBLEM]);
void *fv_dynlib_function_of(void *library, const char *name);

/* Opens the first of the files that is found and sets every pointer of the table; false with the
 * reason when one is missing. */
bool fv_dynlib_open(void *table, const char *const *files, size_t n_files,
                    const fv_dynlib_function *functions, size_t n_functions,
                    char problem[FV_DYNLIB_PROBLEM]);

#endif
