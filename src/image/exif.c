/* The one EXIF tag that matters here, through libexif. */
#ifdef FASTVLM_IMAGE
#include <libexif/exif-data.h>
#include <string.h>

#include "image/image.h"

enum { EXIF_MAX_BYTES = 65533 }; /* what a JPEG segment can hold; libexif reads no more */

/* libexif goes on with less when memory is out; its allocator has no user pointer to say so. */
static _Thread_local bool out_of_memory;

static void *note_failure(void *block)
{
    out_of_memory |= !block;
    return block;
}

/* libexif's realloc does not tell the old size: keep it in front of the block. */
typedef struct block_head {
    _Alignas(64) size_t n_bytes;
} block_head;

static void *exif_alloc(ExifLong n_bytes)
{
    block_head *head = note_failure(fv_alloc_zero((size_t)n_bytes + sizeof *head, 1));
    if (!head)
        return NULL;
    head->n_bytes = n_bytes;
    return head + 1;
}

static void exif_free(void *block)
{
    if (block)
        fv_free((block_head *)block - 1);
}

static void *exif_realloc(void *block, ExifLong n_bytes)
{
    void *grown = exif_alloc(n_bytes);
    if (grown && block) {
        memcpy(grown, block, FV_MIN(((block_head *)block)[-1].n_bytes, (size_t)n_bytes));
        exif_free(block);
    }
    return grown;
}

static int first_orientation(ExifData *exif, const uint8_t *data, size_t n_bytes)
{
    static const uint8_t head[6] = { 'E', 'x', 'i', 'f', 0, 0 };
    uint8_t *with_head = fv_alloc(n_bytes + sizeof head, 1);

    if (!note_failure(with_head))
        return 0;
    memcpy(with_head, head, sizeof head);
    memcpy(with_head + sizeof head, data, n_bytes);
    /* it would invent missing tags */
    exif_data_unset_option(exif, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
    exif_data_load_data(exif, with_head, (unsigned)(n_bytes + sizeof head));
    fv_free(with_head);

    ExifEntry *entry = exif_content_get_entry(exif->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
    if (!entry || entry->format != EXIF_FORMAT_SHORT || entry->components < 1 || entry->size < 2)
        return 0;
    int value = exif_get_short(entry->data, exif_data_get_byte_order(exif));
    return value >= 1 && value <= 8 ? value : 0;
}

bool fv_exif_orientation(int *orientation, const uint8_t *data, size_t n_bytes)
{
    *orientation = 0;
    if (n_bytes >= 6 && memcmp(data, "Exif\0\0", 6) == 0) {
        data += 6;
        n_bytes -= 6;
    }
    out_of_memory = false;
    ExifMem *mem = exif_mem_new(exif_alloc, exif_realloc, exif_free);
    ExifData *exif = mem ? exif_data_new_mem(mem) : NULL;
    if (exif)
        *orientation = first_orientation(exif, data, FV_MIN(n_bytes, (size_t)EXIF_MAX_BYTES - 6));
    exif_data_unref(exif);
    exif_mem_unref(mem);
    return !out_of_memory;
}
#endif
