/* EXIF orientation: the eight ways a camera can be held. */
#include <string.h>

#include "image/image.h"

/* Turning copies in squares: both sides of a transposition stay in L1. */
enum { TILE = 64 };

typedef struct turn_job {
    uint8_t *dst;
    size_t width, height;     /* of dst */
    const uint8_t *src;       /* of the pixel that becomes dst's first */
    ptrdiff_t step_x, step_y; /* bytes in src for one pixel right, one row down in dst */
} turn_job;

static void turn_tile(const turn_job *t, size_t x0, size_t y0)
{
    size_t x1 = FV_MIN(x0 + TILE, t->width), y1 = FV_MIN(y0 + TILE, t->height);

    for (size_t y = y0; y < y1; y++) {
        uint8_t *d = t->dst + (y * t->width + x0) * 3;
        const uint8_t *s = t->src + (ptrdiff_t)y * t->step_y + (ptrdiff_t)x0 * t->step_x;
        for (size_t x = x0; x + 1 < x1; x++, d += 3, s += t->step_x)
            memcpy(d, s, 4); /* the fourth byte is the next pixel's, which comes next */
        memcpy(d, s, 3);
    }
}

fv_orient fv_orient_of(int orientation)
{
    static const fv_orient turns[9] = {
        [2] = { true, false, false }, [3] = { true, true, false }, [4] = { false, true, false },
        [5] = { false, false, true }, [6] = { false, true, true }, [7] = { true, true, true },
        [8] = { true, false, true },
    };
    return turns[orientation >= 0 && orientation <= 8 ? orientation : 0];
}

fv_status fv_image_turn(fv_image *image, int orientation, fv_error *err)
{
    if (orientation < 2 || orientation > 8)
        return FV_OK;

    size_t w = (size_t)image->width, h = (size_t)image->height;
    fv_orient turn = fv_orient_of(orientation);
    bool flip_x = turn.flip_x, flip_y = turn.flip_y, transpose = turn.transpose;
    ptrdiff_t right = flip_x ? -3 : 3, down = (flip_y ? -3 : 3) * (ptrdiff_t)w;
    turn_job t = {
        .dst = fv_pixels_alloc(w, h),
        .width = transpose ? h : w,
        .height = transpose ? w : h,
        .src = image->rgb + ((flip_x ? w - 1 : 0) + (flip_y ? (h - 1) * w : 0)) * 3,
        .step_x = transpose ? down : right,
        .step_y = transpose ? right : down,
    };
    if (!t.dst)
        return fv_fail_memory(err, w * h * 3, "rotating the image");
    for (size_t y = 0; y < t.height; y += TILE)
        for (size_t x = 0; x < t.width; x += TILE)
            turn_tile(&t, x, y);
    fv_pixels_free(image->rgb, w, h);
    image->rgb = t.dst;
    image->width = (int)t.width;
    image->height = (int)t.height;
    return FV_OK;
}
