/* The first directory of a TIFF structure. See ifd.h. */
#include "base/ifd.h"

#include <string.h>

enum { HEAD_BYTES = 8, ENTRY_BYTES = 12 };

enum {
    IFD_SHORT = 3,
    IFD_LONG = 4,
    IFD_RATIONAL = 5,
    IFD_SBYTE = 6,
    IFD_SSHORT = 8,
    IFD_SLONG = 9,
    IFD_SRATIONAL = 10,
    IFD_FLOAT = 11,
    IFD_DOUBLE = 12,
    IFD_IFD = 13,
    IFD_LONG8 = 16
};

static uint64_t ifd_number(const fv_ifd *ifd, const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[ifd->big ? i : n - 1 - i];
    return v;
}

bool fv_ifd_open(fv_ifd *ifd, const uint8_t *data, size_t n_bytes)
{
    *ifd = (fv_ifd){ .data = data, .n_bytes = n_bytes };
    if (n_bytes < HEAD_BYTES || (memcmp(data, "II*\0", 4) != 0 && memcmp(data, "MM\0*", 4) != 0))
        return false;
    ifd->big = data[0] == 'M';
    uint64_t at = ifd_number(ifd, data + 4, 4);
    if (at > n_bytes || n_bytes - at < 2)
        return false;
    ifd->at = (size_t)at + 2;
    ifd->n_entries = FV_MIN((size_t)ifd_number(ifd, data + at, 2),
                            (n_bytes - ifd->at) / ENTRY_BYTES);
    return true;
}

fv_ifd_entry fv_ifd_at(const fv_ifd *ifd, size_t index)
{
    static const uint8_t sizes[17] = { 0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8 };
    const uint8_t *p = ifd->data + ifd->at + index * ENTRY_BYTES;
    fv_ifd_entry entry = { .tag = (uint16_t)ifd_number(ifd, p, 2),
                           .type = (uint16_t)ifd_number(ifd, p + 2, 2),
                           .count = (uint32_t)ifd_number(ifd, p + 4, 4) };
    uint64_t size = entry.type < FV_COUNT(sizes) ? (uint64_t)sizes[entry.type] * entry.count : 0;
    uint64_t offset = ifd_number(ifd, p + 8, 4);

    if (size == 0)
        return entry;
    if (size <= 4)
        entry.value = p + 8;
    else if (offset <= ifd->n_bytes && size <= ifd->n_bytes - offset)
        entry.value = ifd->data + offset;
    entry.n_bytes = entry.value ? (size_t)size : 0;
    return entry;
}

bool fv_ifd_find(const fv_ifd *ifd, uint16_t tag, fv_ifd_entry *entry)
{
    for (size_t i = ifd->n_entries; i-- > 0;) {
        *entry = fv_ifd_at(ifd, i);
        if (entry->tag == tag && entry->value)
            return true;
    }
    return false;
}

static double ifd_float(const fv_ifd *ifd, const uint8_t *p, size_t n)
{
    uint64_t bits = ifd_number(ifd, p, n);
    uint32_t low = (uint32_t)bits;
    float single;
    double v;

    if (n == 4) {
        memcpy(&single, &low, sizeof single);
        return single;
    }
    memcpy(&v, &bits, sizeof v);
    return v;
}

bool fv_ifd_number(const fv_ifd *ifd, const fv_ifd_entry *entry, double *value)
{
    const uint8_t *p = entry->value;

    switch (entry->type) {
    case IFD_SBYTE: *value = (int8_t)p[0]; return true;
    case IFD_SHORT: *value = (uint16_t)ifd_number(ifd, p, 2); return true;
    case IFD_SSHORT: *value = (int16_t)ifd_number(ifd, p, 2); return true;
    case IFD_LONG:
    case IFD_IFD: *value = (uint32_t)ifd_number(ifd, p, 4); return true;
    case IFD_SLONG: *value = (int32_t)ifd_number(ifd, p, 4); return true;
    case IFD_LONG8: *value = (double)ifd_number(ifd, p, 8); return true;
    case IFD_RATIONAL:
        *value = (double)(uint32_t)ifd_number(ifd, p, 4) / (uint32_t)ifd_number(ifd, p + 4, 4);
        return true;
    case IFD_SRATIONAL:
        *value = (double)(int32_t)ifd_number(ifd, p, 4) / (int32_t)ifd_number(ifd, p + 4, 4);
        return true;
    case IFD_FLOAT: *value = ifd_float(ifd, p, 4); return true;
    case IFD_DOUBLE: *value = ifd_float(ifd, p, 8); return true;
    default: return false;
    }
}
