/* Every allocation of decoding fails once, inside the libraries too: an error, no leak, no crash.
 * This program brings its own malloc, which only glibc lets it do in so few lines, and which the
 * sanitizers need for themselves. */
#include "support/cm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(SANITIZED)
#define OWN_MALLOC 1

void *__libc_malloc(size_t n_bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t n_bytes);
void *__libc_memalign(size_t alignment, size_t n_bytes);
void __libc_free(void *block);

static bool armed;         /* counting */
static long until_failure; /* calls that still succeed; LONG_MAX: all */
static long n_live;

static bool refuse(void) { return armed && until_failure-- == 0; }

static void *taken(void *block)
{
    n_live += armed && block;
    return block;
}

void *malloc(size_t n_bytes) { return refuse() ? NULL : taken(__libc_malloc(n_bytes)); }
void *calloc(size_t count, size_t size)
{
    return refuse() ? NULL : taken(__libc_calloc(count, size));
}

void *realloc(void *block, size_t n_bytes)
{
    if (refuse())
        return NULL;
    void *moved = __libc_realloc(block, n_bytes);
    n_live += armed && !block && moved;
    return moved;
}

int posix_memalign(void **block, size_t alignment, size_t n_bytes)
{
    *block = refuse() ? NULL : taken(__libc_memalign(alignment, n_bytes));
    return *block ? 0 : ENOMEM;
}

void free(void *block)
{
    n_live -= armed && block;
    __libc_free(block);
}

static void sweep(const char *name)
{
    char path[512];
    uint8_t *data;
    size_t size;
    fv_status status;
    long n = 0;

    snprintf(path, sizeof path, FV_SOURCE_DIR "/tests/data/images/accept/%s", name);
    assert_int_equal(fv_read_file(&data, &size, path, 1 << 20, NULL), FV_OK);
    fv_image *want, *image;
    assert_int_equal(fv_image_read(&want, data, size, NULL, NULL), FV_OK);
    long n_refused = 0;
    do {
        fv_error err = { .message = "" };
        n_live = 0;
        until_failure = n++;
        armed = true;
        status = fv_image_read(&image, data, size, NULL, &err);
        bool asked_all = until_failure >= 0;
        bool same = status == FV_OK && image->width == want->width &&
                    memcmp(image->rgb, want->rgb, (size_t)want->width * (size_t)want->height * 3) ==
                        0;
        fv_image_free(image);
        armed = false;
        if (n_live != 0)
            fail_msg("%s: allocation %ld refused: %ld blocks leak", name, n, n_live);
        if (status != FV_OK && (status != FV_ERR_MEMORY || !strstr(err.message, "out of memory")))
            fail_msg("%s: allocation %ld refused: %s, \"%s\"", name, n, fv_status_name(status),
                     err.message);
        if (status == FV_OK && !same)
            fail_msg("%s: allocation %ld refused: other pixels", name, n);
        n_refused += status != FV_OK;
        if (asked_all)
            break;
    } while (n < 10000);
    assert_int_equal(status, FV_OK);
    assert_true(n_refused >= 2);
    fv_image_free(want);
    fv_free(data);
}

static void decoding_survives_refusals(void **state)
{
    (void)state;
    static const char *const names[] = {
        "jpeg_420.jpg",
        "jpeg_progressive.jpg",
        "jpeg_ycck.jpg",
        "jpeg_exif6.jpg",
        "png_rgb8.png",
        "png_palette4_trns_interlaced.png",
        "png_rgba16_interlaced.png",
        "png_exif6.png",
        /* No lossless WebP and none with alpha: libwebp 1.2.4 follows an uninitialised pointer when
         * its Huffman tables cannot be allocated, so whether it crashes depends on old stack
         * bytes. */
        "webp_lossy.webp",
        "webp_exif3.webp",
        "pnm_p6_max1000.ppm",
        "bmp_rle8.bmp",
        "bmp_32_v4_alpha.bmp",
        /* No TIFF: libtiff 4.5.0 follows NULL when it cannot allocate a directory's arrays. No HEIC
         * and no AVIF: libheif is C++ and ends the process. */
        "gif_interlaced.gif",
        "gif_local_colours.gif",
    };
    for (size_t i = 0; i < FV_COUNT(names); i++)
        sweep(names[i]);
}
#else
static void decoding_survives_refusals(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(decoding_survives_refusals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
