/* The one EXIF tag that matters here. Which types of it count is Pillow's choice, taken from what
 * ImageOps.exif_transpose does with each: a BYTE, text or raw bytes turn nothing. */
#include <string.h>

#include "base/ifd.h"
#include "image/image.h"

enum { TAG_ORIENTATION = 0x0112 };

int fv_exif_orientation(const uint8_t *data, size_t n_bytes)
{
    fv_ifd ifd;
    fv_ifd_entry entry;
    double value;

    while (n_bytes >= 6 && memcmp(data, "Exif\0\0", 6) == 0) {
        data += 6;
        n_bytes -= 6;
    }
    if (!fv_ifd_open(&ifd, data, n_bytes) || !fv_ifd_find(&ifd, TAG_ORIENTATION, &entry) ||
        !fv_ifd_number(&ifd, &entry, &value))
        return 0;
    return value >= 1 && value <= 8 && value == (int)value ? (int)value : 0;
}
