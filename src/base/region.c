/* Small pieces of memory with one lifetime. See region.h. */
#include "base/region.h"

#include "base/number.h"

enum { REGION_BYTES = 1 << 16, REGION_ALIGN = 16 };

typedef struct region_block {
    struct region_block *next;
    size_t used, size;
    _Alignas(REGION_ALIGN) uint8_t data[];
} region_block;

void *fv_region_take(fv_region *r, size_t count, size_t size)
{
    size_t n_bytes = (count * size + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
    region_block *b = r->blocks;
    if (!b || b->size - b->used < n_bytes) {
        size_t room = FV_MAX(n_bytes, (size_t)REGION_BYTES);
        if (!(b = fv_alloc_zero(1, sizeof *b + room)))
            return NULL;
        b->size = room;
        b->next = r->blocks;
        r->blocks = b;
    }
    b->used += n_bytes;
    return b->data + b->used - n_bytes;
}

char *fv_region_text(fv_region *r, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = fv_format_list(NULL, 0, format, again);
    va_end(again);
    char *text = n < 0 ? NULL : fv_region_take(r, (size_t)n + 1, 1);
    if (text)
        fv_format_list(text, (size_t)n + 1, format, args);
    return text;
}

void fv_region_free(fv_region *r)
{
    for (region_block *b = r->blocks, *next; b; b = next) {
        next = b->next;
        fv_free(b);
    }
    r->blocks = NULL;
}
