/* WebP -> RGB with libwebp; alpha dropped; of an animation the first frame on black.
 *
 *     "RIFF" size "WEBP" chunks        https://developers.google.com/speed/webp/docs/riff_container
 *       VP8  | VP8L                    a plain image
 *       VP8X [ALPH] VP8 | VP8L [EXIF]  extended: the canvas's size comes first
 *       VP8X ANIM ANMF... [EXIF]       animated; an ANMF holds [ALPH] VP8 | VP8L
 *
 * The chunks are walked here, so that a truncated file can be told from a damaged one and from
 * memory running out; libwebp decodes the one frame. */
#ifdef FASTVLM_IMAGE
#include <string.h>

#include <webp/decode.h>

#include "image/image.h"

enum { CHUNK_HEAD = 8, RIFF_HEAD = 12, ANMF_HEAD = 16, VP8X_BYTES = 10 };

typedef struct webp_chunk {
    const uint8_t *head, *data;
    size_t size; /* of data, without padding */
} webp_chunk;

typedef struct webp_layout {
    const uint8_t *frame; /* first chunk of the image's bits */
    size_t frame_size;    /* to the end of its last chunk */
    bool lossless;        /* VP8L */
    bool extended;
    uint32_t width, height; /* canvas, when extended */
    uint32_t x, y;          /* the frame's place on it */
    webp_chunk exif;
} webp_layout;

static uint32_t le24(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16; }
static uint32_t le32(const uint8_t *p) { return le24(p) | (uint32_t)p[3] << 24; }

static bool chunk_is(const webp_chunk *chunk, const char *name)
{
    return memcmp(chunk->head, name, 4) == 0;
}

/* The chunk at *at of [0, end), which moves past it. */
static fv_status next_chunk(webp_chunk *chunk, size_t *at, size_t end, const fv_image_file *file,
                            fv_error *err)
{
    if (end - *at < CHUNK_HEAD)
        return fv_fail(err, FV_ERR_FORMAT, *at,
                       "%s: damaged WebP: %zu spare bytes after the last chunk" FV_TAKE_ANOTHER,
                       file->name, end - *at);
    chunk->head = file->data + *at;
    chunk->data = chunk->head + CHUNK_HEAD;
    chunk->size = le32(chunk->head + 4);
    if (chunk->size > end - *at - CHUNK_HEAD)
        return fv_fail(err, FV_ERR_FORMAT, *at,
                       "%s: damaged WebP: the chunk at byte %zu claims %zu bytes, %zu are "
                       "left" FV_TAKE_ANOTHER,
                       file->name, *at, chunk->size, end - *at - CHUNK_HEAD);
    *at += CHUNK_HEAD + chunk->size;
    if (*at < end)
        *at += chunk->size & 1; /* chunks begin at even places */
    return FV_OK;
}

/* Notes a chunk of image bits; the first ALPH, VP8 or VP8L begins the frame, the latter two end
 * it. */
static bool take_bits(webp_layout *l, const webp_chunk *chunk, bool *complete)
{
    bool bits = chunk_is(chunk, "VP8 ") || chunk_is(chunk, "VP8L");
    if (*complete || (!bits && !chunk_is(chunk, "ALPH")))
        return false;
    if (!l->frame)
        l->frame = chunk->head;
    l->frame_size = (size_t)(chunk->data + chunk->size - l->frame);
    l->lossless = chunk_is(chunk, "VP8L");
    *complete = bits;
    return true;
}

static fv_status take_animation_frame(webp_layout *l, const webp_chunk *anmf, bool *complete,
                                      const fv_image_file *file, fv_error *err)
{
    size_t at = (size_t)(anmf->data - file->data), end = at + anmf->size;

    if (anmf->size < ANMF_HEAD)
        return fv_fail(err, FV_ERR_FORMAT, at,
                       "%s: damaged WebP: an ANMF chunk of %zu bytes" FV_TAKE_ANOTHER, file->name,
                       anmf->size);
    l->x = 2 * le24(anmf->data);
    l->y = 2 * le24(anmf->data + 3);
    for (at += ANMF_HEAD; at < end && !*complete;) {
        webp_chunk chunk;
        FV_TRY(next_chunk(&chunk, &at, end, file, err));
        take_bits(l, &chunk, complete);
    }
    return FV_OK;
}

static fv_status read_layout(webp_layout *l, const fv_image_file *file, fv_error *err)
{
    size_t end = CHUNK_HEAD + (size_t)le32(file->data + 4), at = RIFF_HEAD;
    bool complete = false;

    if (end > file->size)
        return fv_fail(
            err, FV_ERR_FORMAT, file->size,
            "%s: WebP ends early: its header claims %zu bytes, the file has %zu" FV_CUT_OFF,
            file->name, end, file->size);
    while (at < end) {
        webp_chunk chunk;
        FV_TRY(next_chunk(&chunk, &at, end, file, err));
        if (take_bits(l, &chunk, &complete)) {
            if (!l->extended && complete)
                break;
        } else if (chunk_is(&chunk, "VP8X") && chunk.size >= VP8X_BYTES && !l->extended) {
            l->extended = true;
            l->width = le24(chunk.data + 4) + 1;
            l->height = le24(chunk.data + 7) + 1;
        } else if (chunk_is(&chunk, "ANMF") && !complete) {
            FV_TRY(take_animation_frame(l, &chunk, &complete, file, err));
        } else if (chunk_is(&chunk, "EXIF") && !l->exif.data) {
            l->exif = chunk;
        }
    }
    if (!complete)
        return fv_fail(
            err, FV_ERR_FORMAT, at,
            "%s: damaged WebP: it contains no image (neither VP8 nor VP8L)" FV_TAKE_ANOTHER,
            file->name);
    return FV_OK;
}

static fv_status fail_vp8(const fv_image_file *file, const webp_layout *l, VP8StatusCode code,
                          fv_error *err)
{
    const char *coding = l->lossless ? "VP8L, lossless" : "VP8";
    size_t at = (size_t)(l->frame - file->data);

    switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY:
    /* What libwebp says when it cannot allocate its decoder or its rows: we give it neither a
     * parameter of our own nor a callback that could abort. */
    case VP8_STATUS_INVALID_PARAM:
    case VP8_STATUS_USER_ABORT:
        return fv_fail(err, FV_ERR_MEMORY, 0, "out of memory: decoding %s", file->name);
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
        return fv_fail(err, FV_ERR_FORMAT, at,
                       "%s: damaged WebP: the image data (%s) ends early" FV_TAKE_ANOTHER,
                       file->name, coding);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return fv_fail(err, FV_ERR_UNSUPPORTED, at,
                       "%s: WebP of a kind that libwebp does not read" FV_CONVERT, file->name);
    default:
        return fv_fail(err, FV_ERR_FORMAT, at,
                       "%s: damaged WebP: the image data (%s) cannot be decoded" FV_TAKE_ANOTHER,
                       file->name, coding);
    }
}

fv_status fv_decode_webp(fv_image *image, int *orientation, const fv_image_file *file,
                         fv_error *err)
{
    webp_layout l = { 0 };
    WebPDecoderConfig config;

    FV_TRY(read_layout(&l, file, err));
    size_t at = (size_t)(l.frame - file->data);
    if (!WebPInitDecoderConfig(&config))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: libwebp at run time does not match the version built with", file->name);
    VP8StatusCode code = WebPGetFeatures(l.frame, l.frame_size, &config.input);
    if (code != VP8_STATUS_OK)
        return fail_vp8(file, &l, code, err);
    uint32_t w = (uint32_t)config.input.width, h = (uint32_t)config.input.height;
    if (!l.extended) {
        l.width = w;
        l.height = h;
    }
    FV_TRY(fv_image_allocate(image, file, l.width, l.height, err));
    if (l.x > l.width || w > l.width - l.x || l.y > l.height || h > l.height - l.y)
        return fv_fail(err, FV_ERR_FORMAT, at,
                       "%s: damaged WebP: a frame of %" PRIu32 " x %" PRIu32 " at %" PRIu32
                       ", %" PRIu32 " leaves the canvas of %" PRIu32 " x %" PRIu32 FV_TAKE_ANOTHER,
                       file->name, w, h, l.x, l.y, l.width, l.height);

    size_t row = (size_t)l.width * 3;
    if (w != l.width || h != l.height)
        memset(image->rgb, 0, row * l.height);
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = image->rgb + l.y * row + (size_t)l.x * 3;
    config.output.u.RGBA.stride = (int)row;
    config.output.u.RGBA.size = row * l.height - l.y * row - (size_t)l.x * 3;
    code = WebPDecode(l.frame, l.frame_size, &config);
    WebPFreeDecBuffer(&config.output);
    if (code != VP8_STATUS_OK)
        return fail_vp8(file, &l, code, err);
    if (l.exif.data)
        *orientation = fv_exif_orientation(l.exif.data, l.exif.size);
    return FV_OK;
}
#endif
