/* HEIC and AVIF -> RGB with libheif: the primary image, put together from its tiles, cropped,
 * turned and mirrored as the file says, 10 and 12 bits cut to 8, alpha dropped.
 *
 * Turning is part of these formats (irot, imir), not of EXIF, whose orientation the standard tells
 * readers to ignore: so it happens whatever the caller says about EXIF. libheif works on the
 * caller's thread alone, so that a conversation uses no more threads than it was given. */
#ifdef FASTVLM_HEIF
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <libheif/heif.h>

#include "base/dynlib.h"
#include "image/image.h"

/* ---- the library ------------------------------------------------------------------------- */

typedef struct heif_functions {
    struct heif_error (*init)(struct heif_init_params *);
    __typeof__(&heif_have_decoder_for_format) have_decoder;
    __typeof__(&heif_context_alloc) context_alloc;
    __typeof__(&heif_context_free) context_free;
    __typeof__(&heif_context_set_max_decoding_threads) set_threads;
    __typeof__(&heif_context_read_from_memory_without_copy) read;
    __typeof__(&heif_context_get_primary_image_handle) primary;
    __typeof__(&heif_image_handle_release) handle_release;
    __typeof__(&heif_image_handle_get_width) width;
    __typeof__(&heif_image_handle_get_height) height;
    __typeof__(&heif_decoding_options_alloc) options_alloc;
    __typeof__(&heif_decoding_options_free) options_free;
    __typeof__(&heif_decode_image) decode;
    __typeof__(&heif_image_release) image_release;
    __typeof__(&heif_image_get_width) image_width;
    __typeof__(&heif_image_get_height) image_height;
    __typeof__(&heif_image_get_plane_readonly) plane;
} heif_functions;

static pthread_once_t heif_once = PTHREAD_ONCE_INIT;
static heif_functions heif;
static char heif_problem[FV_DYNLIB_PROBLEM]; /* empty: loaded */

static void heif_load(void)
{
    static const char *const files[] = {
#if defined(__APPLE__)
        "libheif.1.dylib",
        "/opt/homebrew/lib/libheif.1.dylib",
#else
        "libheif.so.1",
#endif
    };
    static const fv_dynlib_function functions[] = {
        { "heif_init", offsetof(heif_functions, init), true },
        { "heif_have_decoder_for_format", offsetof(heif_functions, have_decoder), false },
        { "heif_context_alloc", offsetof(heif_functions, context_alloc), false },
        { "heif_context_free", offsetof(heif_functions, context_free), false },
        { "heif_context_set_max_decoding_threads", offsetof(heif_functions, set_threads), false },
        { "heif_context_read_from_memory_without_copy", offsetof(heif_functions, read), false },
        { "heif_context_get_primary_image_handle", offsetof(heif_functions, primary), false },
        { "heif_image_handle_release", offsetof(heif_functions, handle_release), false },
        { "heif_image_handle_get_width", offsetof(heif_functions, width), false },
        { "heif_image_handle_get_height", offsetof(heif_functions, height), false },
        { "heif_decoding_options_alloc", offsetof(heif_functions, options_alloc), false },
        { "heif_decoding_options_free", offsetof(heif_functions, options_free), false },
        { "heif_decode_image", offsetof(heif_functions, decode), false },
        { "heif_image_release", offsetof(heif_functions, image_release), false },
        { "heif_image_get_width", offsetof(heif_functions, image_width), false },
        { "heif_image_get_height", offsetof(heif_functions, image_height), false },
        { "heif_image_get_plane_readonly", offsetof(heif_functions, plane), false },
    };
    if (fv_dynlib_open(&heif, files, FV_COUNT(files), functions, FV_COUNT(functions),
                       heif_problem) &&
        heif.init)
        heif.init(NULL); /* finds the decoders, which may be libraries of their own */
}

static fv_status heif_check(fv_error *err)
{
    pthread_once(&heif_once, heif_load);
    if (heif_problem[0])
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "HEIC and AVIF need libheif 1.12 or newer (%s); install it (Debian, Ubuntu: "
                       "libheif1)",
                       heif_problem);
    return FV_OK;
}

static fv_status heif_no_decoder(bool avif, fv_error *err)
{
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   avif ? "AVIF needs an AV1 decoder, which this libheif has not; install one "
                          "(Debian, Ubuntu: libheif-plugin-dav1d)"
                        : "HEIC needs an HEVC decoder, which this libheif has not; install one "
                          "(Debian, Ubuntu: libheif-plugin-libde265)");
}

fv_status fv_heic_check(fv_error *err)
{
    FV_TRY(heif_check(err));
    return heif.have_decoder(heif_compression_HEVC) ? FV_OK : heif_no_decoder(false, err);
}

fv_status fv_avif_check(fv_error *err)
{
    FV_TRY(heif_check(err));
    return heif.have_decoder(heif_compression_AV1) ? FV_OK : heif_no_decoder(true, err);
}

/* ---- one file ---------------------------------------------------------------------------- */

typedef struct heif_job {
    const fv_image_file *file;
    fv_image *image;
    struct heif_context *context;
    struct heif_image_handle *handle;
    struct heif_decoding_options *options;
    struct heif_image *decoded;
    fv_error *err;
} heif_job;

static fv_status heif_fail(const heif_job *job, struct heif_error e)
{
    const char *name = job->file->name, *format = job->image->format;
    char what[160];
    fv_error why;

    snprintf(what, sizeof what, "%s", e.message ? e.message : "unknown error");
    what[strcspn(what, "\n")] = '\0'; /* some end a line */

    if (e.subcode == heif_suberror_Security_limit_exceeded)
        return fv_fail(
            job->err, FV_ERR_LIMIT, 0,
            "%s: %s beyond libheif's limits: " FV_REPORTS("libheif") "; scale the image down", name,
            format, what);
    if (e.code == heif_error_Memory_allocation_error)
        return fv_fail(job->err, FV_ERR_MEMORY, 0, "out of memory: decoding %s", name);
    if (e.subcode == heif_suberror_Unsupported_codec) {
        fv_status status = fv_heic_check(&why);
        if (status == FV_OK)
            status = fv_avif_check(&why);
        return fv_fail(job->err, FV_ERR_UNSUPPORTED, 0, "%s: %s", name,
                       status == FV_OK ? what : why.message);
    }
    if (e.code == heif_error_Unsupported_filetype) /* read() has seen 12 bytes at least */
        return fv_fail(job->err, FV_ERR_UNSUPPORTED, 8,
                       "%s: %s of brand \"%.4s\" without a still image, as sequences are; save one "
                       "of its images as JPEG first",
                       name, format, (const char *)job->file->data + 8);
    if (e.code == heif_error_Unsupported_feature)
        return fv_fail(job->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s that cannot be read: " FV_REPORTS("libheif") FV_CONVERT, name,
                       format, what);
    return fv_fail(job->err, FV_ERR_FORMAT, 0,
                   "%s: damaged %s: " FV_REPORTS("libheif") FV_TAKE_ANOTHER, name, format, what);
}

#define HEIF_TRY(job, call)                   \
    do {                                      \
        struct heif_error heif_e_ = (call);   \
        if (heif_e_.code != heif_error_Ok)    \
            return heif_fail((job), heif_e_); \
    } while (0)

static fv_status heif_run(heif_job *job)
{
    const fv_image_file *file = job->file;
    int stride = 0;

    FV_TRY(fv_heif_check_sizes(file, job->image->format, job->err));
    HEIF_TRY(job, heif.read(job->context, file->data, file->size, NULL));
    HEIF_TRY(job, heif.primary(job->context, &job->handle));
    int width = heif.width(job->handle), height = heif.height(job->handle);
    FV_TRY(fv_image_allocate(job->image, file, (uint64_t)FV_MAX(width, 0),
                             (uint64_t)FV_MAX(height, 0), job->err));
    if (job->options->version >= 2)
        job->options->convert_hdr_to_8bit = 1;
#if LIBHEIF_HAVE_VERSION(1, 15, 0)
    if (job->options->version >= 3)
        job->options->strict_decoding = 1; /* half an image is none */
#endif
    HEIF_TRY(job, heif.decode(job->handle, &job->decoded, heif_colorspace_RGB,
                              heif_chroma_interleaved_RGB, job->options));
    const uint8_t *rgb = heif.plane(job->decoded, heif_channel_interleaved, &stride);
    if (!rgb || heif.image_width(job->decoded, heif_channel_interleaved) != width ||
        heif.image_height(job->decoded, heif_channel_interleaved) != height)
        return fv_fail(
            job->err, FV_ERR_FORMAT, 0,
            "%s: damaged %s: the image is not %d x %d pixels as its header says" FV_TAKE_ANOTHER,
            file->name, job->image->format, width, height);
    for (size_t y = 0; y < (size_t)height; y++)
        memcpy(job->image->rgb + y * (size_t)width * 3, rgb + y * (size_t)stride,
               (size_t)width * 3);
    return FV_OK;
}

fv_status fv_decode_heif(fv_image *image, int *orientation, const fv_image_file *file,
                         fv_error *err)
{
    (void)orientation;
    FV_TRY(heif_check(err));
    heif_job job = { .file = file, .image = image, .err = err };
    fv_status status = FV_ERR_MEMORY;

    job.context = heif.context_alloc();
    job.options = heif.options_alloc();
    if (job.context && job.options) {
        heif.set_threads(job.context, 0);
        status = heif_run(&job);
    } else {
        fv_fail_memory(err, sizeof job, file->name);
    }
    if (job.decoded)
        heif.image_release(job.decoded);
    if (job.options)
        heif.options_free(job.options);
    if (job.handle)
        heif.handle_release(job.handle);
    if (job.context)
        heif.context_free(job.context);
    return status;
}
#endif
