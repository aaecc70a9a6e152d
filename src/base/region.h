/* region: many small pieces of memory with one lifetime, freed together. */
#ifndef FV_REGION_H
#define FV_REGION_H

#include "base/base.h"

typedef struct fv_region {
    struct region_block *blocks; /* the newest first; NULL: empty */
} fv_region;

/* count * size zeroed bytes, aligned to 16; NULL when memory is out. The product must not
 * overflow. */
void *fv_region_take(fv_region *r, size_t count, size_t size) FV_MUST_CHECK;
/* A copy of formatted text of any length; NULL when memory is out. */
char *fv_region_text(fv_region *r, const char *format, va_list args) FV_MUST_CHECK;
void fv_region_free(fv_region *r);

#endif
