/* GIF -> RGB with giflib: the first frame, as Pillow shows it. What the frame does not cover has
 * the transparent colour when there is one, else the first; transparency itself is dropped, as
 * alpha is.
 *
 *     "GIF89a"  screen's size  [colours]  extensions ...
 *     frame's place and size  [colours]  LZW data ...
 */
#ifdef FASTVLM_GIF
#include <gif_lib.h>
#include <pthread.h>
#include <string.h>

#include "base/dynlib.h"
#include "image/image.h"

/* ---- the library ------------------------------------------------------------------------- */

typedef struct gif_functions {
    __typeof__(&DGifOpen) open;
    __typeof__(&DGifCloseFile) close;
    __typeof__(&DGifGetRecordType) record_type;
    __typeof__(&DGifGetImageDesc) image_desc;
    __typeof__(&DGifGetLine) line;
    __typeof__(&DGifGetExtension) extension;
    __typeof__(&DGifGetExtensionNext) extension_next;
    __typeof__(&GifErrorString) error_string;
} gif_functions;

static pthread_once_t gif_once = PTHREAD_ONCE_INIT;
static gif_functions gif;
static char gif_problem[FV_DYNLIB_PROBLEM]; /* empty: loaded */

static void gif_load(void)
{
    static const char *const files[] = {
#if defined(__APPLE__)
        "libgif.dylib",
        "/opt/homebrew/lib/libgif.dylib",
#else
        "libgif.so.7",
#endif
    };
    static const fv_dynlib_function functions[] = {
        { "DGifOpen", offsetof(gif_functions, open), false },
        { "DGifCloseFile", offsetof(gif_functions, close), false },
        { "DGifGetRecordType", offsetof(gif_functions, record_type), false },
        { "DGifGetImageDesc", offsetof(gif_functions, image_desc), false },
        { "DGifGetLine", offsetof(gif_functions, line), false },
        { "DGifGetExtension", offsetof(gif_functions, extension), false },
        { "DGifGetExtensionNext", offsetof(gif_functions, extension_next), false },
        { "GifErrorString", offsetof(gif_functions, error_string), false },
    };
    fv_dynlib_open(&gif, files, FV_COUNT(files), functions, FV_COUNT(functions), gif_problem);
}

fv_status fv_gif_check(fv_error *err)
{
    pthread_once(&gif_once, gif_load);
    if (gif_problem[0])
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "GIF needs giflib 5 (%s); install it (Debian, Ubuntu: libgif7)",
                       gif_problem);
    return FV_OK;
}

/* ---- one file ---------------------------------------------------------------------------- */

typedef struct gif_job {
    const fv_image_file *file;
    size_t at; /* bytes read */
    fv_image *image;
    GifFileType *gif;
    int transparent; /* index, -1: none */
    uint8_t *line;   /* one row of indices */
    fv_error *err;
} gif_job;

static int gif_on_read(GifFileType *g, GifByteType *out, int n)
{
    gif_job *job = g->UserData;
    size_t n_bytes = FV_MIN((size_t)n, job->file->size - job->at);

    memcpy(out, job->file->data + job->at, n_bytes);
    job->at += n_bytes;
    return (int)n_bytes;
}

static fv_status gif_fail(const gif_job *job, int code)
{
    const char *what = gif.error_string(code);

    /* DGifOpen says that there is no screen when its colours cannot be allocated, too. */
    bool no_memory = code == D_GIF_ERR_NOT_ENOUGH_MEM ||
                     (code == D_GIF_ERR_NO_SCRN_DSCR && job->at < job->file->size);

    if (no_memory)
        return fv_fail(job->err, FV_ERR_MEMORY, 0, "out of memory: decoding %s", job->file->name);
    if (job->at == job->file->size)
        return fv_fail(job->err, FV_ERR_FORMAT, job->at,
                       "%s: GIF ends early, at byte %zu" FV_CUT_OFF, job->file->name, job->at);
    return fv_fail(job->err, FV_ERR_FORMAT, job->at,
                   "%s: damaged GIF: " FV_REPORTS("giflib") " (byte %zu of %zu)" FV_TAKE_ANOTHER,
                   job->file->name, what ? what : "unknown error", job->at, job->file->size);
}

/* Reads the graphic control block, which names the transparent colour, and skips the others. */
static fv_status gif_read_extension(gif_job *job)
{
    enum { GRAPHIC_CONTROL = 0xf9 };
    int code;
    GifByteType *block; /* its length, then its bytes */

    if (gif.extension(job->gif, &code, &block) != GIF_OK)
        return gif_fail(job, job->gif->Error);
    for (bool first = true; block; first = false) {
        if (first && code == GRAPHIC_CONTROL && block[0] >= 4)
            job->transparent = block[1] & 1 ? block[4] : -1;
        if (gif.extension_next(job->gif, &block) != GIF_OK)
            return gif_fail(job, job->gif->Error);
    }
    return FV_OK;
}

/* Moves to the first frame; its description is in job->gif->Image. */
static fv_status gif_find_frame(gif_job *job)
{
    GifRecordType type;

    for (;;) {
        if (gif.record_type(job->gif, &type) != GIF_OK)
            return gif_fail(job, job->gif->Error);
        if (type == IMAGE_DESC_RECORD_TYPE)
            break;
        if (type == EXTENSION_RECORD_TYPE)
            FV_TRY(gif_read_extension(job));
        if (type == TERMINATE_RECORD_TYPE)
            return fv_fail(job->err, FV_ERR_FORMAT, job->at,
                           "%s: damaged GIF: it contains no image" FV_TAKE_ANOTHER,
                           job->file->name);
    }
    return gif.image_desc(job->gif) == GIF_OK ? FV_OK : gif_fail(job, job->gif->Error);
}

/* As in Pillow, an index past the colours is black, and without any colours it is a grey. */
static void gif_color(uint8_t *rgb, const ColorMapObject *map, int index)
{
    static const GifColorType black;

    if (!map || !map->Colors) {
        memset(rgb, index, 3);
        return;
    }
    const GifColorType *c = index < map->ColorCount ? &map->Colors[index] : &black;
    rgb[0] = c->Red;
    rgb[1] = c->Green;
    rgb[2] = c->Blue;
}

/* Rows of an interlaced frame come as every eighth from 0, every eighth from 4, every fourth from
 * 2, every other from 1. */
static size_t gif_next_row(size_t row, size_t height, int *pass)
{
    static const uint8_t begin[5] = { 0, 4, 2, 1, 0 }, step[5] = { 8, 8, 4, 2, 1 };

    row += step[*pass];
    while (row >= height && *pass < 3)
        row = begin[++*pass];
    return row;
}

static fv_status gif_read_frame(gif_job *job)
{
    const GifImageDesc *frame = &job->gif->Image;
    const ColorMapObject *map = frame->ColorMap ? frame->ColorMap : job->gif->SColorMap;
    size_t left = (size_t)frame->Left, top = (size_t)frame->Top, w = (size_t)frame->Width,
           h = (size_t)frame->Height;
    int pass = frame->Interlace ? 0 : 4;

    /* As Pillow does, a frame that leaves the screen enlarges it. */
    FV_TRY(fv_image_allocate(job->image, job->file,
                             FV_MAX((uint64_t)job->gif->SWidth, (uint64_t)left + w),
                             FV_MAX((uint64_t)job->gif->SHeight, (uint64_t)top + h), job->err));
    if (w == 0 || h == 0)
        return fv_fail(job->err, FV_ERR_FORMAT, job->at,
                       "%s: damaged GIF: a frame without pixels" FV_TAKE_ANOTHER, job->file->name);
    size_t width = (size_t)job->image->width, n = width * (size_t)job->image->height;
    for (size_t i = 0; i < n; i++)
        gif_color(job->image->rgb + i * 3, map, FV_MAX(job->transparent, 0));
    if (!(job->line = fv_alloc(w, 1)))
        return fv_fail_memory(job->err, w, job->file->name);
    for (size_t i = 0, row = 0; i < h; i++, row = gif_next_row(row, h, &pass)) {
        if (gif.line(job->gif, job->line, (int)w) != GIF_OK)
            return gif_fail(job, job->gif->Error);
        uint8_t *rgb = job->image->rgb + ((top + row) * width + left) * 3;
        for (size_t x = 0; x < w; x++)
            gif_color(rgb + x * 3, map, job->line[x]);
    }
    return FV_OK;
}

fv_status fv_decode_gif(fv_image *image, int *orientation, const fv_image_file *file, fv_error *err)
{
    gif_job job = { .file = file, .image = image, .transparent = -1, .err = err };
    int code = 0;

    (void)orientation; /* GIF has none */
    FV_TRY(fv_gif_check(err));
    job.gif = gif.open(&job, gif_on_read, &code);
    if (!job.gif)
        return gif_fail(&job, code);
    fv_status status = gif_find_frame(&job);
    if (status == FV_OK)
        status = gif_read_frame(&job);
    gif.close(job.gif, &code);
    fv_free(job.line);
    return status;
}
#endif
