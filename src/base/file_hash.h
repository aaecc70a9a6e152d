/* file_hash: the SHA-256 of a file, as text. */
#ifndef FV_FILE_HASH_H
#define FV_FILE_HASH_H

#include "base/base.h"

enum { FV_HASH_TEXT = 65 };

/* Lower-case digits and a NUL. Progress stage `stage`, a static string; callbacks may be NULL. */
fv_status fv_file_hash(char hex[FV_HASH_TEXT], uint64_t *n_bytes, const char *path,
                       const char *stage, const fv_callbacks *callbacks, fv_error *err);

#endif
