/* ifd: the first directory of a TIFF structure, which EXIF data, TIFF files and most cameras' raw
 * files begin with.
 *
 *     "II*\0" | "MM\0*"  offset of the directory (4)
 *     count (2)  entries: tag (2)  type (2)  count (4)  value or its offset (4)
 */
#ifndef FV_IFD_H
#define FV_IFD_H

#include "base/base.h"

typedef struct fv_ifd {
    const uint8_t *data;
    size_t n_bytes;
    bool big;         /* big-endian */
    size_t at;        /* of the first entry */
    size_t n_entries; /* that the bytes hold */
} fv_ifd;

typedef struct fv_ifd_entry {
    uint16_t tag, type;
    uint32_t count;
    const uint8_t *value; /* [n_bytes]; NULL when it lies outside */
    size_t n_bytes;
} fv_ifd_entry;

/* False when data is not such a structure. */
bool fv_ifd_open(fv_ifd *ifd, const uint8_t *data, size_t n_bytes);
fv_ifd_entry fv_ifd_at(const fv_ifd *ifd, size_t index);
/* The last entry with this tag, as Pillow takes it; false when there is none. */
bool fv_ifd_find(const fv_ifd *ifd, uint16_t tag, fv_ifd_entry *entry);
/* The first number of an entry, of any numeric type but BYTE; false for BYTE, text and raw bytes.
 * May be infinite or NaN. */
bool fv_ifd_number(const fv_ifd *ifd, const fv_ifd_entry *entry, double *value);

#endif
