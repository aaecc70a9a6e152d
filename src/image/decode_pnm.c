/* PGM and PPM (P5, P6) -> RGB. https://netpbm.sourceforge.net/doc/ppm.html
 *
 *     "P6" space width space height space maxval one-space samples
 *
 * A sample has one byte when maxval < 256, otherwise two, high byte first. A comment runs from
 * '#' to the end of its line. Only the first image of a file is read. */
#include <math.h>
#include <string.h>

#include "image/image.h"

typedef struct pnm_header {
    uint64_t width, height, maxval;
    size_t at;           /* of the first sample */
    unsigned n_channels; /* 1 or 3 */
} pnm_header;

static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next number; false when there is none. Numbers past a million stay there: no limit is
 * near. */
static bool read_number(uint64_t *value, const fv_image_file *file, size_t *at)
{
    while (*at < file->size && (is_space(file->data[*at]) || file->data[*at] == '#')) {
        if (file->data[*at] == '#')
            while (*at < file->size && file->data[*at] != '\n' && file->data[*at] != '\r')
                ++*at;
        else
            ++*at;
    }
    size_t begin = *at;
    for (*value = 0; *at < file->size && file->data[*at] >= '0' && file->data[*at] <= '9'; ++*at)
        *value = FV_MIN(*value * 10 + (file->data[*at] - '0'), (uint64_t)1000000);
    return *at > begin;
}

static fv_status read_header(pnm_header *h, const fv_image_file *file, fv_error *err)
{
    uint64_t *const number[3] = { &h->width, &h->height, &h->maxval };
    static const char *const what[3] = { "width", "height", "maximum value" };

    h->n_channels = file->data[1] == '6' ? 3 : 1;
    h->at = 2;
    for (int i = 0; i < 3; i++)
        if (!read_number(number[i], file, &h->at))
            return fv_fail(
                err, FV_ERR_FORMAT, h->at,
                "%s: damaged PNM: expected a number, the %s, at byte %zu" FV_TAKE_ANOTHER,
                file->name, what[i], h->at);
    if (h->at >= file->size || !is_space(file->data[h->at]))
        return fv_fail(err, FV_ERR_FORMAT, h->at,
                       "%s: damaged PNM: expected a blank after the maximum value" FV_TAKE_ANOTHER,
                       file->name);
    h->at++;
    if (h->maxval < 1 || h->maxval > 65535)
        return fv_fail(err, FV_ERR_FORMAT, h->at,
                       "%s: damaged PNM: the maximum value is %" PRIu64
                       "; expected 1 to 65535" FV_TAKE_ANOTHER,
                       file->name, h->maxval);
    return FV_OK;
}

/* to_u8[v] = v scaled to 0..255, halves to even as Pillow's reader rounds; larger v saturate. */
static void fill_table(uint8_t *to_u8, size_t n, uint64_t maxval)
{
    for (size_t v = 0; v < n; v++)
        to_u8[v] = v >= maxval ? 255 : (uint8_t)nearbyint((double)v / (double)maxval * 255);
}

static void convert_row(uint8_t *rgb, const uint8_t *sample, const pnm_header *h,
                        const uint8_t *to_u8)
{
    size_t n_bytes = h->maxval > 255 ? 2 : 1;

    for (size_t i = 0; i < h->width * 3; i++) {
        const uint8_t *s = sample + (h->n_channels == 3 ? i : i / 3) * n_bytes;
        rgb[i] = to_u8[n_bytes == 2 ? s[0] << 8 | s[1] : s[0]];
    }
}

fv_status fv_decode_pnm(fv_image *image, int *orientation, const fv_image_file *file, fv_error *err)
{
    pnm_header h;

    (void)orientation;
    FV_TRY(read_header(&h, file, err));
    FV_TRY(fv_image_allocate(image, file, h.width, h.height, err));
    size_t row = (size_t)h.width * h.n_channels * (h.maxval > 255 ? 2 : 1);
    if (file->size - h.at < row * h.height)
        return fv_fail(err, FV_ERR_FORMAT, file->size,
                       "%s: PNM ends early: %zu of %zu bytes of pixels are present" FV_CUT_OFF,
                       file->name, file->size - h.at, row * (size_t)h.height);

    if (h.maxval == 255 && h.n_channels == 3) {
        memcpy(image->rgb, file->data + h.at, row * (size_t)h.height);
        return FV_OK;
    }
    size_t n_table = h.maxval > 255 ? 65536 : 256;
    uint8_t *to_u8 = fv_alloc(n_table, 1);
    if (!to_u8)
        return fv_fail_memory(err, n_table, file->name);
    fill_table(to_u8, n_table, h.maxval);
    for (size_t y = 0; y < h.height; y++)
        convert_row(image->rgb + y * h.width * 3, file->data + h.at + y * row, &h, to_u8);
    fv_free(to_u8);
    return FV_OK;
}
