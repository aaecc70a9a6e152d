/* The sizes that the coded images inside a HEIC or AVIF name themselves, checked before libheif
 * sees the file: its decoders allocate by these, whatever the container says, so that 11 kB could
 * ask for 25 GB.
 *
 *     "meta"  "iprp" "ipco"  "hvcC"  parameter sets of HEVC, each behind its length
 *                            "av1C"  OBUs of AV1
 *             "iloc"                 where the items lie: NAL units or OBUs
 *             "idat"                 data of small items
 *
 * What does not parse is passed: libheif refuses it with more to say. Names are those of ISO/IEC
 * 14496-12 and -15, ITU-T H.265 7.3.2.2 and AV1 5.5.1. */
#ifdef FASTVLM_HEIF
#include <string.h>

#include "image/image.h"

enum { SPS_NAL = 33, SEQUENCE_HEADER_OBU = 1, MAX_UNITS = 1 << 20 };

typedef struct sizes_job {
    const fv_image_file *file;
    bool hevc, av1;  /* which configurations the file has */
    size_t n_length; /* bytes of a NAL unit's length */
    const uint8_t *idat;
    size_t idat_bytes;
    size_t n_units;         /* looked at: boxes, items, NAL units, OBUs */
    uint64_t width, height; /* of the first image that is too large */
} sizes_job;

typedef struct byte_range {
    const uint8_t *data;
    size_t n;
} byte_range;

/* ---- bits -------------------------------------------------------------------------------- */

typedef struct bit_reader {
    byte_range range;
    size_t at;    /* in bits */
    bool escapes; /* 00 00 03 stands for 00 00, as in a NAL unit */
    bool ended;
} bit_reader;

static unsigned bits_one(bit_reader *b)
{
    size_t byte = b->at / 8;
    if (b->escapes && b->at % 8 == 0 && byte >= 2 && byte < b->range.n &&
        b->range.data[byte] == 3 && !b->range.data[byte - 1] && !b->range.data[byte - 2]) {
        b->at += 8;
        byte++;
    }
    if (byte >= b->range.n) {
        b->ended = true;
        return 0;
    }
    unsigned bit = b->range.data[byte] >> (7 - b->at % 8) & 1;
    b->at++;
    return bit;
}

static uint64_t bits_take(bit_reader *b, unsigned n)
{
    uint64_t v = 0;
    while (n-- > 0)
        v = v << 1 | bits_one(b);
    return v;
}

/* Exp-Golomb code, ue(v). */
static uint64_t bits_golomb(bit_reader *b)
{
    unsigned n = 0;
    while (!bits_one(b) && !b->ended && n < 32)
        n++;
    return (1ull << n) - 1 + bits_take(b, n);
}

/* ---- coded images ------------------------------------------------------------------------ */

/* Coded sizes are multiples of up to 64, so a little more than allowed is not too much. */
static void sizes_note(sizes_job *job, const bit_reader *b, uint64_t width, uint64_t height)
{
    uint64_t w = width > 64 ? width - 64 : 1, h = height > 64 ? height - 64 : 1;
    if (b->ended || job->width || w <= job->file->max_pixels / h)
        return;
    job->width = width;
    job->height = height;
}

static void sizes_read_sps(sizes_job *job, byte_range nal)
{
    bit_reader b = { .range = nal, .escapes = true };
    bool profile[8] = { 0 }, level[8] = { 0 };

    bits_take(&b, 16 + 4); /* header, sps_video_parameter_set_id */
    unsigned n_sub = (unsigned)bits_take(&b, 3);
    bits_take(&b, 1 + 88 + 8); /* nesting, general profile and level */
    for (unsigned i = 0; i < n_sub; i++) {
        profile[i] = bits_one(&b);
        level[i] = bits_one(&b);
    }
    for (unsigned i = n_sub; n_sub > 0 && i < 8; i++)
        bits_take(&b, 2);
    for (unsigned i = 0; i < n_sub; i++)
        bits_take(&b, (profile[i] ? 88 : 0) + (level[i] ? 8 : 0));
    bits_golomb(&b);          /* sps_seq_parameter_set_id */
    if (bits_golomb(&b) == 3) /* chroma_format_idc */
        bits_one(&b);         /* separate_colour_plane_flag */
    uint64_t width = bits_golomb(&b);
    sizes_note(job, &b, width, bits_golomb(&b));
}

static void sizes_read_sequence_header(sizes_job *job, byte_range obu)
{
    bit_reader b = { .range = obu };
    unsigned delay_bits = 0;

    bits_take(&b, 3 + 1); /* seq_profile, still_picture */
    if (bits_one(&b)) {   /* reduced_still_picture_header */
        bits_take(&b, 5);
    } else {
        bool model = false;
        if (bits_one(&b)) { /* timing_info_present_flag */
            bits_take(&b, 64);
            if (bits_one(&b))
                bits_golomb(&b); /* uvlc, as long */
            if ((model = bits_one(&b))) {
                delay_bits = (unsigned)bits_take(&b, 5) + 1;
                bits_take(&b, 32 + 5 + 5);
            }
        }
        bool display_delay = bits_one(&b);
        unsigned n_points = (unsigned)bits_take(&b, 5) + 1;
        for (unsigned i = 0; i < n_points; i++) {
            bits_take(&b, 12);
            if (bits_take(&b, 5) > 7)
                bits_one(&b);
            if (model && bits_one(&b))
                bits_take(&b, 2 * delay_bits + 1);
            if (display_delay && bits_one(&b))
                bits_take(&b, 4);
        }
    }
    unsigned width_bits = (unsigned)bits_take(&b, 4) + 1;
    unsigned height_bits = (unsigned)bits_take(&b, 4) + 1;
    uint64_t width = bits_take(&b, width_bits) + 1;
    sizes_note(job, &b, width, bits_take(&b, height_bits) + 1);
}

/* Whether another unit may be looked at: a file of a gigabyte must not take minutes. */
static bool sizes_go_on(sizes_job *job) { return !job->width && ++job->n_units <= MAX_UNITS; }

/* ---- bytes ------------------------------------------------------------------------------- */

static uint64_t range_be(const byte_range *r, size_t at, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | r->data[at + i];
    return v;
}

static byte_range range_from(const byte_range *r, size_t at)
{
    at = FV_MIN(at, r->n);
    return (byte_range){ r->data + at, r->n - at };
}

static void sizes_read_nals(sizes_job *job, byte_range r, size_t n_length)
{
    while (r.n > n_length + 2 && sizes_go_on(job)) {
        uint64_t n = range_be(&r, 0, n_length);
        r = range_from(&r, n_length);
        if (n < 2 || n > r.n)
            return;
        if ((r.data[0] >> 1 & 63) == SPS_NAL)
            sizes_read_sps(job, (byte_range){ r.data, (size_t)n });
        r = range_from(&r, (size_t)n);
    }
}

static void sizes_read_obus(sizes_job *job, byte_range r)
{
    while (r.n > 2 && sizes_go_on(job)) {
        unsigned type = r.data[0] >> 3 & 15, extended = r.data[0] >> 2 & 1;
        uint64_t n = 0;
        size_t at = 1 + extended;

        if (r.data[0] & 0x80)
            return;
        if (r.data[0] & 2) { /* obu_has_size_field, leb128 */
            for (unsigned shift = 0; shift < 56; shift += 7) {
                if (at >= r.n)
                    return;
                n |= (uint64_t)(r.data[at] & 127) << shift;
                if (!(r.data[at++] & 128))
                    break;
            }
        } else {
            n = at < r.n ? r.n - at : 0; /* to the end */
        }
        r = range_from(&r, at);
        if (n > r.n)
            return;
        if (type == SEQUENCE_HEADER_OBU)
            sizes_read_sequence_header(job, (byte_range){ r.data, (size_t)n });
        r = range_from(&r, (size_t)n);
    }
}

/* hvcC: 21 bytes, the length's size, the number of arrays; of each the type and its NAL units. */
static void sizes_read_hvcc(sizes_job *job, byte_range r)
{
    if (r.n < 23)
        return;
    job->hevc = true;
    job->n_length = (size_t)(r.data[21] & 3) + 1;
    unsigned n_arrays = r.data[22];
    r = range_from(&r, 23);
    for (unsigned a = 0; a < n_arrays && r.n >= 3 && sizes_go_on(job); a++) {
        uint64_t n_nals = range_be(&r, 1, 2);
        r = range_from(&r, 3);
        for (uint64_t i = 0; i < n_nals && r.n >= 2 && sizes_go_on(job); i++) {
            size_t n = (size_t)range_be(&r, 0, 2);
            r = range_from(&r, 2);
            if (n > r.n)
                return;
            if (n >= 2 && (r.data[0] >> 1 & 63) == SPS_NAL)
                sizes_read_sps(job, (byte_range){ r.data, n });
            r = range_from(&r, n);
        }
    }
}

/* ---- boxes ------------------------------------------------------------------------------- */

typedef void box_fn(sizes_job *job, const char *kind, byte_range content);

static void boxes_walk(sizes_job *job, byte_range r, box_fn *fn)
{
    while (r.n >= 8 && sizes_go_on(job)) {
        uint64_t n = range_be(&r, 0, 4);
        size_t head = 8;
        if (n == 1 && r.n >= 16) {
            n = range_be(&r, 8, 8);
            head = 16;
        } else if (n == 0) {
            n = r.n;
        }
        if (n < head || n > r.n)
            n = r.n; /* cut off, or damaged */
        fn(job, (const char *)r.data + 4, (byte_range){ r.data + head, (size_t)n - head });
        r = range_from(&r, (size_t)n);
    }
}

static bool box_is(const char *kind, const char *name) { return memcmp(kind, name, 4) == 0; }

static void sizes_on_property(sizes_job *job, const char *kind, byte_range content)
{
    if (box_is(kind, "hvcC"))
        sizes_read_hvcc(job, content);
    if (box_is(kind, "av1C")) {
        job->av1 = true;
        sizes_read_obus(job, range_from(&content, 4));
    }
}

static void sizes_on_iprp(sizes_job *job, const char *kind, byte_range content)
{
    if (box_is(kind, "ipco"))
        boxes_walk(job, content, sizes_on_property);
}

static void sizes_read_item(sizes_job *job, byte_range in, uint64_t offset, uint64_t n)
{
    if (!in.data || offset > in.n) /* there may be no idat */
        return;
    byte_range r = range_from(&in, (size_t)offset);
    if (n > 0 && n < r.n)
        r.n = (size_t)n;
    if (job->hevc) /* libheif takes the length's size to be 4, whatever the file says */
        sizes_read_nals(job, r, 4);
    if (job->hevc && job->n_length != 4)
        sizes_read_nals(job, r, job->n_length);
    if (job->av1)
        sizes_read_obus(job, r);
}

/* version and flags (4)  sizes of offset, length, base, index (4 x 4 bits)  items: id, [method],
 * data reference, base offset, extents: [index], offset, length */
static void sizes_read_iloc(sizes_job *job, byte_range r)
{
    if (r.n < 8)
        return;
    unsigned version = r.data[0];
    size_t n_offset = r.data[4] >> 4, n_size = r.data[4] & 15, n_base = r.data[5] >> 4;
    size_t n_index = version > 0 ? r.data[5] & 15 : 0, n_id = version < 2 ? 2 : 4;
    uint64_t n_items = range_be(&r, 6, version < 2 ? 2 : FV_MIN((size_t)4, r.n - 6));
    byte_range whole = { job->file->data, job->file->size };

    if (n_offset > 8 || n_size > 8 || n_base > 8 || n_index > 8)
        return;
    r = range_from(&r, 6 + n_id);
    for (uint64_t i = 0; i < n_items && sizes_go_on(job); i++) {
        size_t head = n_id + (version > 0 ? 2 : 0) + 2 + n_base + 2;
        if (r.n < head)
            return;
        unsigned method = version > 0 ? r.data[n_id + 1] & 15 : 0;
        uint64_t base = range_be(&r, head - 2 - n_base, n_base);
        uint64_t n_extents = range_be(&r, head - 2, 2);
        byte_range in = method == 1 ? (byte_range){ job->idat, job->idat_bytes } : whole;
        r = range_from(&r, head);
        for (uint64_t e = 0; e < n_extents && sizes_go_on(job); e++) {
            if (r.n < n_index + n_offset + n_size)
                return;
            uint64_t offset = base + range_be(&r, n_index, n_offset);
            sizes_read_item(job, in, offset, range_be(&r, n_index + n_offset, n_size));
            r = range_from(&r, n_index + n_offset + n_size);
        }
    }
}

/* Properties and small data before the places of the items. */
static void sizes_on_meta(sizes_job *job, const char *kind, byte_range content)
{
    if (box_is(kind, "iprp"))
        boxes_walk(job, content, sizes_on_iprp);
    if (box_is(kind, "idat")) {
        job->idat = content.data;
        job->idat_bytes = content.n;
    }
}

static void sizes_on_places(sizes_job *job, const char *kind, byte_range content)
{
    if (box_is(kind, "iloc"))
        sizes_read_iloc(job, content);
}

static void sizes_on_top(sizes_job *job, const char *kind, byte_range content)
{
    if (!box_is(kind, "meta"))
        return;
    byte_range boxes = range_from(&content, 4);
    boxes_walk(job, boxes, sizes_on_meta);
    boxes_walk(job, boxes, sizes_on_places);
}

fv_status fv_heif_check_sizes(const fv_image_file *file, const char *format, fv_error *err)
{
    sizes_job job = { .file = file, .n_length = 4 };

    boxes_walk(&job, (byte_range){ file->data, file->size }, sizes_on_top);
    if (job.n_units > MAX_UNITS)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %s with more than %d parts" FV_CONVERT,
                       file->name, format, MAX_UNITS);
    if (!job.width)
        return FV_OK;
    return fv_fail(err, FV_ERR_LIMIT, 0,
                   "%s: a coded image inside this %s has %" PRIu64 " x %" PRIu64
                   " pixels; expected up to %" PRIu64
                   " in all: scale the image down or raise max_pixels",
                   file->name, format, job.width, job.height, file->max_pixels);
}
#endif
