/* sniff: what a file is, by its first bytes, asked before any parser speaks: a pointer of Git LFS,
 * a server's error page or a PyTorch checkpoint is then called by its name. A part of the program,
 * too, which finds this header as program/sniff.h. */
#ifndef FV_SNIFF_H
#define FV_SNIFF_H

#include "fastvlm.h"

typedef enum fv_file_kind {
    FV_FILE_UNKNOWN = 0,
    FV_FILE_EMPTY,
    /* what src/image reads */
    FV_FILE_JPEG,
    FV_FILE_PNG,
    FV_FILE_WEBP,
    FV_FILE_GIF,
    FV_FILE_BMP,
    FV_FILE_TIFF,
    FV_FILE_HEIC,
    FV_FILE_AVIF,
    FV_FILE_PNM,
    /* what src/io reads */
    FV_FILE_SAFETENSORS,
    FV_FILE_GGUF,
    FV_FILE_JSON,
    FV_FILE_TEXT, /* of no known kind */
    /* what nothing here reads */
    FV_FILE_IMAGE, /* an image or drawing in another format */
    FV_FILE_RAW,   /* a camera's raw file */
    FV_FILE_VIDEO,
    FV_FILE_MODEL, /* weights in another format */
    FV_FILE_ARCHIVE,
    FV_FILE_STANDIN, /* stands where the file should be: a pointer, an error page */
    FV_FILE_ENCODED, /* text in another encoding, or bytes as text */
    FV_FILE_OTHER
} fv_file_kind;

typedef struct fv_sniff {
    fv_file_kind kind;
    const char *name;   /* "a Git LFS pointer"; NULL: unknown, empty or text */
    const char *advice; /* what to do about it, whatever was expected; or NULL */
} fv_sniff;

/* The more bytes, the better: 4 KiB tell everything but raw photographs, whose directory may be at
 * the end of the file. */
enum { FV_SNIFF_BYTES = 4096 };
fv_sniff fv_sniff_bytes(const void *data, size_t n_bytes);

/* Whether src/image reads this kind, given the libraries. */
static inline bool fv_file_is_image(fv_file_kind kind)
{
    return kind >= FV_FILE_JPEG && kind <= FV_FILE_PNM;
}

/* Whether a directory holds images and nothing of a model; then the first name among them. */
bool fv_sniff_images(const char *dir, char name[256]);

/* What the bytes are, for a message: the kind's name, or how they begin, as text when they are text
 * and in hexadecimal otherwise. */
enum { FV_DESCRIPTION = 96 };
void fv_describe_bytes(char out[FV_DESCRIPTION], const void *data, size_t n_bytes);

/* Refuses, by name, bytes that are known to be something else than `wanted`. Passes what is unknown
 * or empty, which the reader refuses with more to say, and where text is wanted any text.
 * `expected` is for the message: "a safetensors file". */
fv_status fv_refuse_foreign(const void *data, size_t n_bytes, const char *name, fv_file_kind wanted,
                            const char *expected, fv_error *err);

#endif
