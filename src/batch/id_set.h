/* id_set: which texts have been there, by 128 bits of their SHA-256. */
#ifndef FV_ID_SET_H
#define FV_ID_SET_H

#include "base/base.h"

typedef struct fv_id_set {
    uint64_t (*slot)[2]; /* [capacity], a power of two; [0] is 0: free */
    size_t n, capacity;
} fv_id_set;

/* *is_new: whether text was not there. */
fv_status fv_id_set_add(fv_id_set *set, const char *text, bool *is_new, fv_error *err);
void fv_id_set_free(fv_id_set *set);

#endif
