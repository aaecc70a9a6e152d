/* sized: how structs cross the border of the library, by the rules of fastvlm.h.
 *
 * Each begins with `size_t size`, the caller's sizeof, so that a caller and a library of different
 * versions understand each other. A field that a later version adds therefore begins at the old
 * sizeof or beyond it, never in padding at the end of the old struct. */
#ifndef FV_SIZED_H
#define FV_SIZED_H

#include "base/base.h"

/* FV_ERR_ARGUMENT by name when a required pointer is NULL. */
#define FV_REQUIRE(pointer, err)                                             \
    do {                                                                     \
        if (!(pointer))                                                      \
            return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s is NULL", #pointer); \
    } while (0)

/* Copies options in: *to, of `size` bytes, gets the caller's fields and zeroes for what the caller
 * did not know; its own size is `size`. from NULL: all zero. name is the struct's, for messages. */
fv_status fv_options_in(void *to, size_t size, const void *from, const char *name, fv_error *err);

/* fv_options_in for the struct that `to` points to. */
#define FV_OPTIONS_IN(to, type, from, err) fv_options_in((to), sizeof(type), (from), #type, (err))

/* The same for the callbacks that options point to, which may be gone after the call: *member
 * points to the copy from now on. */
fv_status fv_callbacks_in(fv_callbacks *copy, const fv_callbacks **member, fv_error *err);

/* FV_ERR_ARGUMENT when the caller did not set the size of a result; before any work. */
fv_status fv_result_check(const void *result, const char *name, fv_error *err);
#define FV_RESULT_CHECK(result, type, err) fv_result_check((result), #type, (err))

/* Copies a result out: what fits of from, a struct of `size` bytes, and zeroes for what only the
 * caller knows. false, and nothing copied, when to is NULL or its size was not set. */
bool fv_result_out(void *to, const void *from, size_t size);

#endif
