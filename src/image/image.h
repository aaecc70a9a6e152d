/* image: a file or pixels in, the encoder's input out.
 *
 *     file        decode.c           bytes, format by their first bytes
 *                 decode_jpeg.c ...  u8 [h, w, 3]
 *                 orient.c           turned as EXIF says
 *     or borrowed pixels.c           the caller's pixels, in any format, row by row
 *     image     preprocess.c       pad, crop or stretch
 *                 resize.c           u8 [S, S, 3]
 *     pixels      preprocess.c       f32 [S, S, 3], as the checkpoint's recipe says
 */
#ifndef FV_IMAGE_H
#define FV_IMAGE_H

#include "base/base.h"
#include "base/recipe.h"
#include "kernels/kernels.h"

struct fv_image {
    int width, height;  /* turned as it is to stand */
    uint8_t *rgb;       /* [height, width, 3]; NULL: the caller's pixels */
    fv_pixels pixels;   /* borrowed, as stored; when rgb is NULL */
    const char *format; /* static string */
    double decode_ms;   /* reading, decoding and turning */
};

double fv_image_decode_ms(const fv_image *image);

/* ---- decoding ---------------------------------------------------------------------------- */

enum { FV_IMAGE_MAX_SIDE = 65535 };

typedef struct fv_image_file {
    const char *name; /* for messages */
    const uint8_t *data;
    size_t size;
    uint64_t max_pixels;
} fv_image_file;

/* What messages say is read. */
#define FV_IMAGE_FORMATS "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or binary PNM (P5, P6)"

/* Ends of messages that say what to do. */
#define FV_CUT_OFF      "; the file is cut off: copy or download it again"
#define FV_TAKE_ANOTHER "; save it again or use another copy"
#define FV_CONVERT      "; convert it to an 8-bit JPEG or PNG first"

/* A decoder's own words, LIBRARY and what it says, where it has nothing else. */
#define FV_REPORTS(library) library " reports \"%s\""

/* Decodes into *image, which is zero, and sets *orientation when the file has one (1..8).
 * On failure the caller releases what image->rgb holds. */
typedef fv_status fv_decode_fn(fv_image *image, int *orientation, const fv_image_file *file,
                               fv_error *err);

fv_decode_fn fv_decode_jpeg, fv_decode_png, fv_decode_webp, fv_decode_pnm, fv_decode_bmp;
fv_decode_fn fv_decode_gif, fv_decode_tiff, fv_decode_heif;

/* Whether the library of a format is on this machine, which opens it when it is first needed. */
fv_status fv_gif_check(fv_error *err);
fv_status fv_tiff_check(fv_error *err);
fv_status fv_heic_check(fv_error *err);
fv_status fv_avif_check(fv_error *err);

/* FV_ERR_LIMIT when a coded image inside a HEIC or AVIF names more than max_pixels. */
fv_status fv_heif_check_sizes(const fv_image_file *file, const char *format, fv_error *err);

/* rgb [width, 3] from cmyk [width, 4] as Adobe stores it in JPEG: 255 is no ink. */
void fv_rgb_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, size_t width);

/* Checks the size against the limits, then sets width, height and allocates rgb. */
fv_status fv_image_allocate(fv_image *image, const fv_image_file *file, uint64_t width,
                            uint64_t height, fv_error *err);

/* Pixels [height, width, 3] of an fv_image and one byte more, so that a pixel can be read as four
 * bytes; NULL when memory is out. */
uint8_t *fv_pixels_alloc(size_t width, size_t height) FV_MUST_CHECK;
void fv_pixels_free(uint8_t *rgb, size_t width, size_t height);

/* Orientation 1..8 of a TIFF structure as EXIF has it, with or without "Exif\0\0" before it;
 * 0 when it names none. */
int fv_exif_orientation(const uint8_t *data, size_t n_bytes);

/* Which way a stored image is mirrored, and whether rows and columns change places after that. */
typedef struct fv_orient {
    bool flip_x, flip_y, transpose;
} fv_orient;
fv_orient fv_orient_of(int orientation); /* 1 and values out of range: none */

/* Turns the pixels so that they stand as orientation says; 1 and values out of range do nothing. */
fv_status fv_image_turn(fv_image *image, int orientation, fv_error *err);

/* ---- rows -------------------------------------------------------------------------------- */

enum { FV_IMAGE_ROWS = 4 };

/* Rows [y, y + m) as RGB, *row_bytes from one to the next: where they lie, or in scratch
 * [FV_IMAGE_ROWS, width, 3]. m is at most FV_IMAGE_ROWS when the image is not plain. */
const uint8_t *fv_image_rows(const fv_image *image, size_t y, size_t m, uint8_t *scratch,
                             size_t *row_bytes);
/* Whether rows are read where they lie: scratch may be NULL. */
bool fv_image_is_plain(const fv_image *image);

/* ---- preprocessing ----------------------------------------------------------------------- */

/* One direction of a resampling: the image lies at [offset, offset + length) on a line of
 * `in` pixels, black elsewhere; the line is scaled to `out` pixels, of which [first, first +
 * count) are wanted. Those outside [0, out) are black. */
typedef struct fv_axis {
    int64_t in, out;
    int64_t offset, length;
    int64_t first, count;
    fv_filter filter;
} fv_axis;

/* dst [y->count, x->count, 3] from the image, x->length by y->length pixels, as Pillow's 8-bit
 * filters would have it. pool may be NULL. */
fv_status fv_resize_u8(uint8_t *dst, const fv_image *image, const fv_axis *x, const fv_axis *y,
                       fv_pool *pool, const fv_kernels *kernels, fv_error *err);

/* dst [size, size, 3]; recipe->fit must not be FV_FIT_AUTO; pool may be NULL. */
fv_status fv_fit_u8(uint8_t *dst, const fv_image *image, const fv_recipe *recipe, int size,
                    fv_pool *pool, const fv_kernels *kernels, fv_error *err);

/* n pixels [n, 3] as the recipe's numbers. */
void fv_pixels_f32(float *dst, const uint8_t *src, size_t n, const fv_recipe *recipe);

/* Both steps: pixels [size, size, 3] f32. u8 [size, size, 3] takes the step between; it may be
 * NULL. */
fv_status fv_preprocess(float *pixels, uint8_t *u8, const fv_image *image, const fv_recipe *recipe,
                        int size, fv_pool *pool, const fv_kernels *kernels, fv_error *err);

#endif
