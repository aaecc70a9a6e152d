/* JPEG -> RGB with libjpeg-turbo, at its defaults (accurate integer DCT, smooth upsampling),
 * which is what Pillow uses: the same library gives the same bits.
 *
 * Everything libjpeg reports comes through the two callbacks below. Warnings that mean lost
 * pixels (the file ends early, a code that is none) are errors here: half an image would be
 * answered about as if it were whole. */
#ifdef FASTVLM_IMAGE
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "image/image.h"

/* A progressive file of a few kilobytes can ask for thousands of passes over a huge image. */
enum { MAX_SCANS = 500 };

typedef struct jpeg_job {
    struct jpeg_error_mgr errors; /* first: libjpeg hands back a pointer to it */
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    jmp_buf escape;
    const fv_image_file *file;
    fv_image *image;
    int *orientation;
    uint8_t *cmyk; /* one row, when the file has four channels */
    fv_error *err;
    fv_status status;
} jpeg_job;

/* ---- callbacks --------------------------------------------------------------------------- */

static jpeg_job *job_of(j_common_ptr common) { return (jpeg_job *)(void *)common->err; }

static size_t offset_of(const jpeg_job *job)
{
    return job->jpeg.src ? job->file->size - FV_MIN(job->jpeg.src->bytes_in_buffer, job->file->size)
                         : 0;
}

static _Noreturn void stop(jpeg_job *job, fv_status status)
{
    job->status = status;
    longjmp(job->escape, 1);
}

static _Noreturn void fail_damaged(j_common_ptr common)
{
    jpeg_job *job = job_of(common);
    char what[JMSG_LENGTH_MAX];

    common->err->format_message(common, what);
    stop(job,
         fv_fail(job->err, FV_ERR_FORMAT, offset_of(job),
                 "%s: damaged JPEG: " FV_REPORTS("libjpeg") " (byte %zu of %zu)" FV_TAKE_ANOTHER,
                 job->file->name, what, offset_of(job), job->file->size));
}

static _Noreturn void fail_precision(jpeg_job *job, int n_bits)
{
    stop(job, fv_fail(job->err, FV_ERR_UNSUPPORTED, offset_of(job),
                      "%s: JPEG with %d bits per sample; expected 8" FV_CONVERT, job->file->name,
                      n_bits));
}

static void jpeg_on_error(j_common_ptr common)
{
    jpeg_job *job = job_of(common);
    char what[JMSG_LENGTH_MAX];

    switch (common->err->msg_code) {
    case JERR_OUT_OF_MEMORY:
        stop(job,
             fv_fail(job->err, FV_ERR_MEMORY, 0, "out of memory: decoding %s", job->file->name));
    case JERR_BAD_PRECISION: fail_precision(job, common->err->msg_parm.i[0]);
    case JERR_SOF_UNSUPPORTED:
    case JERR_ARITH_NOTIMPL:
    case JERR_CCIR601_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_NOT_COMPILED:
        common->err->format_message(common, what);
        stop(job, fv_fail(job->err, FV_ERR_UNSUPPORTED, offset_of(job),
                          "%s: JPEG that cannot be read: " FV_REPORTS("libjpeg") FV_CONVERT,
                          job->file->name, what));
    default: fail_damaged(common);
    }
}

/* level < 0: a warning; others are tracing. */
static void on_message(j_common_ptr common, int level)
{
    jpeg_job *job = job_of(common);

    if (level >= 0)
        return;
    switch (common->err->msg_code) {
    case JWRN_JPEG_EOF:
        if (!job->jpeg.image_height)
            stop(job, fv_fail(job->err, FV_ERR_FORMAT, job->file->size,
                              "%s: JPEG ends early, at byte %zu" FV_CUT_OFF, job->file->name,
                              job->file->size));
        stop(job, fv_fail(job->err, FV_ERR_FORMAT, job->file->size,
                          "%s: JPEG ends early: %zu bytes hold %u of %u rows" FV_CUT_OFF,
                          job->file->name, job->file->size, job->jpeg.output_scanline,
                          job->jpeg.image_height));
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
#ifdef D_ARITH_CODING_SUPPORTED
    case JWRN_ARITH_BAD_CODE:
#endif
        fail_damaged(common);
    default: /* a spare byte, an odd version number: nothing is lost */ break;
    }
}

static void on_output(j_common_ptr common) { (void)common; }

static void jpeg_on_progress(j_common_ptr common)
{
    jpeg_job *job = job_of(common);

    if (job->jpeg.input_scan_number > MAX_SCANS)
        stop(job, fv_fail(job->err, FV_ERR_LIMIT, offset_of(job),
                          "%s: progressive JPEG with more than %d scans, too costly to "
                          "decode" FV_TAKE_ANOTHER,
                          job->file->name, MAX_SCANS));
}

/* ---- steps ------------------------------------------------------------------------------- */

static void jpeg_read_orientation(jpeg_job *job)
{
    for (jpeg_saved_marker_ptr m = job->jpeg.marker_list; m; m = m->next) {
        if (m->marker != JPEG_APP0 + 1 || m->data_length < 6 || memcmp(m->data, "Exif\0\0", 6) != 0)
            continue;
        *job->orientation = fv_exif_orientation(m->data, m->data_length);
        return;
    }
}

static void read_rows(jpeg_job *job)
{
    struct jpeg_decompress_struct *jpeg = &job->jpeg;
    size_t row = (size_t)job->image->width * 3;
    JSAMPROW rows[16];

    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *dst = job->image->rgb + jpeg->output_scanline * row;
        if (job->cmyk) {
            jpeg_read_scanlines(jpeg, &job->cmyk, 1);
            fv_rgb_from_cmyk(dst, job->cmyk, (size_t)job->image->width);
            continue;
        }
        unsigned n = FV_MIN((unsigned)FV_COUNT(rows), jpeg->output_height - jpeg->output_scanline);
        for (unsigned i = 0; i < n; i++)
            rows[i] = dst + i * row;
        jpeg_read_scanlines(jpeg, rows, n);
    }
}

/* Holds the setjmp, and no local that changes after it: all state is in *job. */
static void jpeg_run(jpeg_job *job)
{
    struct jpeg_decompress_struct *jpeg = &job->jpeg;

    if (setjmp(job->escape))
        return;
    jpeg_create_decompress(jpeg);
    jpeg->progress = &job->progress;
    jpeg_mem_src(jpeg, job->file->data, (unsigned long)job->file->size);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);

    if (jpeg->data_precision != 8)
        fail_precision(job, jpeg->data_precision);
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        stop(job, fv_fail(job->err, FV_ERR_UNSUPPORTED, 0,
                          "%s: JPEG with %d channels; expected 1, 3 or 4" FV_CONVERT,
                          job->file->name, jpeg->num_components));
    job->status = fv_image_allocate(job->image, job->file, jpeg->image_width, jpeg->image_height,
                                    job->err);
    if (job->status != FV_OK)
        return;
    jpeg_read_orientation(job);

    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
    if (jpeg->num_components == 4) {
        job->cmyk = fv_alloc((size_t)jpeg->image_width, 4);
        if (!job->cmyk)
            stop(job, fv_fail_memory(job->err, (size_t)jpeg->image_width * 4, job->file->name));
    }
    jpeg_start_decompress(jpeg);
    read_rows(job);
    jpeg_finish_decompress(jpeg);
}

fv_status fv_decode_jpeg(fv_image *image, int *orientation, const fv_image_file *file,
                         fv_error *err)
{
    jpeg_job *job = fv_alloc_zero(1, sizeof *job);

    if (!job)
        return fv_fail_memory(err, sizeof *job, file->name);
    job->file = file;
    job->image = image;
    job->orientation = orientation;
    job->err = err;
    job->jpeg.err = jpeg_std_error(&job->errors);
    job->errors.error_exit = jpeg_on_error;
    job->errors.emit_message = on_message;
    job->errors.output_message = on_output;
    job->progress.progress_monitor = jpeg_on_progress;
    jpeg_run(job);
    fv_status status = job->status;
    jpeg_destroy_decompress(&job->jpeg);
    fv_free(job->cmyk);
    fv_free(job);
    return status;
}
#endif
