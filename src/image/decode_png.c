/* PNG -> RGB with libpng: palette and grey expanded, 16 bits cut to the high 8, alpha dropped. */
#ifdef FASTVLM_IMAGE
#include <setjmp.h>
#include <string.h>

#include <png.h>

#include "image/image.h"

enum { IHDR_END = 33, MAX_EXIF_BYTES = 1 << 16 };

typedef struct png_job {
    const fv_image_file *file;
    size_t at; /* bytes read */
    fv_image *image;
    int *orientation;
    png_structp png;
    png_infop info;
    bool no_memory;
    fv_error *err;
    fv_status status;
} png_job;

/* ---- callbacks --------------------------------------------------------------------------- */

static void png_on_error(png_structp png, png_const_charp what)
{
    png_job *job = png_get_error_ptr(png);

    if (job->status == FV_OK)
        job->status = fv_fail(
            job->err, FV_ERR_FORMAT, job->at,
            "%s: damaged PNG: " FV_REPORTS("libpng") " (byte %zu of %zu)" FV_TAKE_ANOTHER,
            job->file->name, what, job->at, job->file->size);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp what)
{
    (void)png;
    (void)what;
}

static void on_read(png_structp png, png_bytep out, size_t n_bytes)
{
    png_job *job = png_get_io_ptr(png);

    if (job->file->size - job->at < n_bytes) {
        job->status = fv_fail(job->err, FV_ERR_FORMAT, job->file->size,
                              "%s: PNG ends early, at byte %zu" FV_CUT_OFF, job->file->name,
                              job->file->size);
        png_error(png, "end of file");
    }
    memcpy(out, job->file->data + job->at, n_bytes);
    job->at += n_bytes;
}

static png_voidp on_alloc(png_structp png, size_t n_bytes)
{
    png_job *job = png_get_mem_ptr(png);
    void *block = fv_alloc(n_bytes, 1);

    job->no_memory |= !block;
    return block;
}

static void on_free(png_structp png, png_voidp block)
{
    (void)png;
    fv_free(block);
}

/* ---- steps ------------------------------------------------------------------------------- */

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | p[2] << 8 | p[3];
}

/* Text, colour profiles and the like are skipped unread; the orientation is not. It is kept as
 * unknown because libpng drops an eXIf that begins with "Exif\0\0", as some programs write it. */
static void keep_only_exif(png_structp png)
{
#ifdef PNG_HANDLE_AS_UNKNOWN_SUPPORTED
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_ALWAYS, (png_const_bytep) "eXIf", 1);
#else
    (void)png;
#endif
}

static void png_read_orientation(png_job *job)
{
#ifdef PNG_STORE_UNKNOWN_CHUNKS_SUPPORTED
    png_unknown_chunkp chunks = NULL;
    int n = png_get_unknown_chunks(job->png, job->info, &chunks);

    for (int i = 0; i < n; i++)
        if (memcmp(chunks[i].name, "eXIf", 4) == 0)
            *job->orientation = fv_exif_orientation(chunks[i].data,
                                                    FV_MIN(chunks[i].size, (size_t)MAX_EXIF_BYTES));
#endif
}

/* Holds the setjmp, and no local that changes after it: all state is in *job. */
static void png_run(png_job *job)
{
    png_structp png = job->png;

    if (setjmp(png_jmpbuf(png)))
        return;
    png_set_read_fn(png, job, on_read);
    png_set_user_limits(png, FV_IMAGE_MAX_SIDE, FV_IMAGE_MAX_SIDE);
    keep_only_exif(png);
    png_read_info(png, job->info);

    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    png_set_gray_to_rgb(png);
    int n_passes = png_set_interlace_handling(png);
    png_read_update_info(png, job->info);
    if (png_get_rowbytes(png, job->info) != (size_t)job->image->width * 3)
        png_error(png, "rows are not RGB");

    for (int pass = 0; pass < n_passes; pass++)
        for (size_t y = 0; y < (size_t)job->image->height; y++)
            png_read_row(png, job->image->rgb + y * (size_t)job->image->width * 3, NULL);
    png_read_end(png, job->info);
    png_read_orientation(job);
}

fv_status fv_decode_png(fv_image *image, int *orientation, const fv_image_file *file, fv_error *err)
{
    /* Sizes are checked here, where the message can name them, before libpng sees them. */
    if (file->size < IHDR_END)
        return fv_fail(err, FV_ERR_FORMAT, file->size, "%s: PNG ends early, at byte %zu" FV_CUT_OFF,
                       file->name, file->size);
    if (memcmp(file->data + 8, "\0\0\0\x0dIHDR", 8) != 0)
        return fv_fail(err, FV_ERR_FORMAT, 8,
                       "%s: damaged PNG: it does not start with an IHDR chunk" FV_TAKE_ANOTHER,
                       file->name);
    FV_TRY(fv_image_allocate(image, file, be32(file->data + 16), be32(file->data + 20), err));

    png_job job = { .file = file, .image = image, .orientation = orientation, .err = err };
    job.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &job, png_on_error, on_warning, &job,
                                       on_alloc, on_free);
    job.info = job.png ? png_create_info_struct(job.png) : NULL;
    bool created = job.info != NULL;
    if (created)
        png_run(&job);
    png_destroy_read_struct(job.png ? &job.png : NULL, job.info ? &job.info : NULL, NULL);
    if (job.no_memory)
        return fv_fail(err, FV_ERR_MEMORY, 0, "out of memory: decoding %s", file->name);
    if (!created)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: libpng at run time does not match the version built with", file->name);
    return job.status;
}
#endif
