/* What a file is, by its first bytes; the names in messages of every reader that asks. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/sniff.h"
#include "image/image.h"
#include "io/gguf.h"
#include "io/json.h"
#include "io/tensors.h"
#include "model/model.h"

#define LFS                                                                          \
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e" \
    "0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 1519234567\n"
#define HTML "\n <!DOCTYPE html>\n<html><head><title>504 Gateway Time-out</title></head></html>"

/* A row's bytes, NULs included; what follows them is zero up to n. */
#define ROW(bytes, n, kind, ...)                       \
    {                                                  \
        bytes, sizeof(bytes) - 1, n, kind, __VA_ARGS__ \
    }

static const struct {
    const char *bytes;
    size_t n_given, n;
    fv_file_kind kind;
    const char *name; /* a part of it; NULL: none */
} known[] = {
    ROW("", 0, FV_FILE_EMPTY, NULL),
    ROW("hello", 0, FV_FILE_TEXT, NULL),
    ROW("\1\2\3\4\5", 0, FV_FILE_UNKNOWN, NULL),
    ROW("", 200, FV_FILE_STANDIN, "zero bytes"),

    ROW(LFS, 0, FV_FILE_STANDIN, "Git LFS pointer"),
    ROW("version https://hawser.github.com/spec/v1\n", 0, FV_FILE_STANDIN, "Git LFS pointer"),
    ROW("version https://git-lfs.github.com/spec/v1\r\n", 0, FV_FILE_STANDIN, "Git LFS pointer"),
    ROW("# xet version 0\nfilesize = 5\n", 0, FV_FILE_STANDIN, "Xet"),
    ROW("/annex/objects/SHA256E-s5--x\n", 0, FV_FILE_STANDIN, "git-annex"),
    ROW(HTML, 0, FV_FILE_STANDIN, "HTML page"),
    ROW("<HTML>\r\n<BODY>no</BODY>", 0, FV_FILE_STANDIN, "HTML page"),
    ROW("\xef\xbb\xbf<!doctype HTML>", 0, FV_FILE_STANDIN, "HTML page"),
    ROW("<?xml version=\"1.0\"?><!DOCTYPE html><html>", 0, FV_FILE_STANDIN, "HTML page"),
    ROW("<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code></Error>", 0, FV_FILE_STANDIN,
        "XML document"),
    ROW("<Error><Code>AccessDenied</Code></Error>", 0, FV_FILE_STANDIN, "XML document"),
    ROW("<?xml version=\"1.0\"?>\n<!-- x -->\n<svg xmlns=\"\">", 0, FV_FILE_IMAGE, "SVG"),
    ROW("<svg width=\"1\">", 0, FV_FILE_IMAGE, "SVG"),

    ROW("\xef\xbb\xbf{}", 0, FV_FILE_ENCODED, "byte order mark"),
    ROW("\xff\xfe{\0}\0", 0, FV_FILE_ENCODED, "UTF-16"),
    ROW("\xfe\xff\0{\0}", 0, FV_FILE_ENCODED, "UTF-16"),
    ROW("\xff\xfe\0\0{\0\0\0", 0, FV_FILE_ENCODED, "UTF-32"),
    ROW("\0\0\xfe\xff\0\0\0{", 0, FV_FILE_ENCODED, "UTF-32"),
    ROW("{\0\"\0a\0\"\0:\0001\0}\0", 0, FV_FILE_ENCODED, "UTF-16"),
    ROW("{\0\0\0\"\0\0\0a\0\0\0", 0, FV_FILE_ENCODED, "UTF-32"),
    ROW("\0\0\0{\0\0\0\"\0\0\0a", 0, FV_FILE_ENCODED, "UTF-32"),
    ROW("\xef\xbb\xbf%PDF-1.4", 0, FV_FILE_IMAGE, "PDF"),
    ROW("The wide river", 0, FV_FILE_TEXT, NULL),
    ROW("ID3 tags are in MP3", 0, FV_FILE_TEXT, NULL),
    ROW("\0\0\0\x08"
        "free\0\0\0\0",
        0, FV_FILE_VIDEO, "QuickTime"),
    ROW("\0{\0\"\0a\0\"\0:\0001\0}", 0, FV_FILE_ENCODED, "UTF-16"),
    ROW("\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\0\x10JFIF", 0, FV_FILE_ENCODED,
        "saved as text"),
    ROW("\xef\xbf\xbdPNG\r\n\x1a\n", 0, FV_FILE_ENCODED, "saved as text"),
    ROW("iVBORw0KGgoAAAANSUhEUgAA", 0, FV_FILE_ENCODED, "PNG in base64"),
    ROW("/9j/4AAQSkZJRgABAQ", 0, FV_FILE_ENCODED, "JPEG in base64"),
    ROW("data:image/png;base64,iVBO", 0, FV_FILE_ENCODED, "base64"),

    ROW("\xff\xd8\xff\xe0", 0, FV_FILE_JPEG, "a JPEG"),
    ROW("\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", 0, FV_FILE_PNG, "a PNG"),
    ROW("\x89PNG\r\n\x1a\n\0\0\0\4CgBI", 0, FV_FILE_IMAGE, "Apple"),
    ROW("\x89PNG\n\x1a\n", 0, FV_FILE_ENCODED, "line ends"),
    ROW("RIFF\4\0\0\0WEBPVP8 ", 0, FV_FILE_WEBP, "a WebP"),
    ROW("GIF87a", 20, FV_FILE_GIF, "a GIF"),
    ROW("GIF89a", 20, FV_FILE_GIF, "a GIF"),
    ROW("BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", 54, FV_FILE_BMP, "a BMP"),
    ROW("BM\0\0\0\0\0\0\0\0\x1a\0\0\0\x0c\0\0\0", 26, FV_FILE_BMP, "a BMP"),
    ROW("BMW is a maker of cars and of motorcycles", 0, FV_FILE_TEXT, NULL),
    ROW("P6 2 2 255 ", 0, FV_FILE_PNM, "a PNM"),
    ROW("P5\n#x\n", 0, FV_FILE_PNM, "a PNM"),
    ROW("P3\n1 1\n255\n0 0 0", 0, FV_FILE_IMAGE, "a PPM in plain text (P3)"),
    ROW("\xef\xbb\xbf\x89PNG\r\n\x1a\n", 0, FV_FILE_ENCODED, "an image behind a byte order mark"),
    ROW("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff", 0, FV_FILE_ENCODED,
        "an HTTP answer"),
    ROW("HTTP/2 200\r\n\r\n\x89PNG", 0, FV_FILE_ENCODED, "an HTTP answer"),
    ROW("--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n\xff\xd8", 0, FV_FILE_ENCODED,
        "multipart"),
    ROW("-- a comment in SQL", 0, FV_FILE_TEXT, NULL),
    ROW("\xff\xd8", 0, FV_FILE_JPEG, "a JPEG"),
    ROW("\x01\xda\x01\x01\0\x03", 0, FV_FILE_IMAGE, "SGI"),
    ROW("/* XPM */ static", 0, FV_FILE_IMAGE, "XPM"),
    ROW("P1\n2 2\n0110", 0, FV_FILE_IMAGE, "a PBM in plain text (P1)"),
    ROW("P2 1 1 255 7", 0, FV_FILE_IMAGE, "a PGM in plain text (P2)"),
    ROW("P4\n8 1\n\xff", 0, FV_FILE_IMAGE, "a PBM (P4)"),
    ROW("P7\nWIDTH 1\n", 0, FV_FILE_IMAGE, "a PAM (P7)"),
    ROW("Pf\n1 1\n-1.0\n", 0, FV_FILE_IMAGE, "a PFM"),
    ROW("Poems of the sea", 0, FV_FILE_TEXT, NULL),
    ROW("II*\0\x08\0\0\0\0\0", 0, FV_FILE_TIFF, "a TIFF"),
    ROW("MM\0*\0\0\0\x08\0\0", 0, FV_FILE_TIFF, "a TIFF"),
    ROW("II+\0\x08\0\0\0", 0, FV_FILE_TIFF, "a BigTIFF"),
    ROW("MM\0+\0\x08\0\0", 0, FV_FILE_TIFF, "a BigTIFF"),
    ROW("II*\0\x10\0\0\0CR\2\0", 0, FV_FILE_RAW, "CR2"),
    ROW("\0\0\0\x18"
        "ftypcrx \0\0\0\1crx isom",
        0, FV_FILE_RAW, "CR3"),
    ROW("II*\0\x08\0\0\0\1\0\x12\xc6\1\0\4\0\0\0\1\4\0\0\0\0\0\0", 0, FV_FILE_RAW, "DNG"),
    ROW("IIRO\x08\0\0\0", 0, FV_FILE_RAW, "ORF"),
    ROW("IIRS\x08\0\0\0", 0, FV_FILE_RAW, "ORF"),
    ROW("IIU\0\x18\0\0\0", 0, FV_FILE_RAW, "RW2"),
    ROW("FUJIFILMCCD-RAW 0201FF383501", 0, FV_FILE_RAW, "RAF"),

    ROW("\0\0\0\x18"
        "ftypheic\0\0\0\0mif1heic",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftypheix\0\0\0\0mif1heix",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftyphevc\0\0\0\0msf1hevc",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftyphevx\0\0\0\0msf1hevx",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftypheim\0\0\0\0mif1heim",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftypheis\0\0\0\0mif1heis",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftypmif1\0\0\0\0mif1heic",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x1c"
        "ftypmif1\0\0\0\0mif1miafavif",
        0, FV_FILE_AVIF, "an AVIF"),
    ROW("\0\0\0\x18"
        "ftypmsf1\0\0\0\0msf1avis",
        0, FV_FILE_AVIF, "an AVIF"),
    ROW("\0\0\0\x18"
        "ftypmsf1\0\0\0\0msf1hevc",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftypavif\0\0\0\0mif1avif",
        0, FV_FILE_AVIF, "an AVIF"),
    ROW("\0\0\0\x18"
        "ftypavis\0\0\0\0msf1avis",
        0, FV_FILE_AVIF, "an AVIF"),
    ROW("\0\0\0\x18"
        "ftypabcd\0\0\0\0mif1heic",
        0, FV_FILE_HEIC, "a HEIC"),
    ROW("\0\0\0\x18"
        "ftypisom\0\0\2\0isommp41",
        0, FV_FILE_VIDEO, "video (MP4"),
    ROW("\0\0\0\x1c"
        "ftypmp42\0\0\0\0isommp42",
        0, FV_FILE_VIDEO, "video (MP4"),
    ROW("\0\0\0\x14"
        "ftypqt  \0\0\0\0qt  ",
        0, FV_FILE_VIDEO, "QuickTime"),
    ROW("\0\0\x10\0moov", 0, FV_FILE_VIDEO, "QuickTime"),
    ROW("\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\x82\x84webm", 0, FV_FILE_VIDEO, "WebM"),
    ROW("\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska", 0, FV_FILE_VIDEO, "Matroska"),
    ROW("RIFF\4\0\0\0AVI LIST", 0, FV_FILE_VIDEO, "AVI"),
    ROW("RIFF\4\0\0\0WAVEfmt ", 0, FV_FILE_OTHER, "sound"),

    ROW("\xff\x0a\xfa\1", 0, FV_FILE_IMAGE, "JPEG XL"),
    ROW("\0\0\0\x0cJXL \r\n\x87\n", 0, FV_FILE_IMAGE, "JPEG XL"),
    ROW("\0\0\0\x0cjP  \r\n\x87\n", 0, FV_FILE_IMAGE, "JPEG 2000"),
    ROW("\xff\x4f\xff\x51\0\x2f", 0, FV_FILE_IMAGE, "JPEG 2000"),
    ROW("qoif\0\0\0\1", 0, FV_FILE_IMAGE, "QOI"),
    ROW("8BPS\0\1", 0, FV_FILE_IMAGE, "PSD"),
    ROW("\0\0\1\0\1\0\x10\x10\0\0\1\0", 0, FV_FILE_IMAGE, "ICO"),
    ROW("\0\0\2\0\1\0\x20\x20\0\0\0\0", 0, FV_FILE_IMAGE, "CUR"),
    ROW("%PDF-1.7\n", 0, FV_FILE_IMAGE, "PDF"),

    ROW("PK\3\4\x14\0\0\0\0\0archive/data.pkl", 0, FV_FILE_MODEL, "PyTorch checkpoint (zip)"),
    ROW("\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 0, FV_FILE_MODEL,
        "PyTorch checkpoint (pickle)"),
    ROW("\x80\4\x95\x20\0\0\0\0\0\0\0}", 0, FV_FILE_MODEL, "pickle"),
    ROW("\x08\x08\x12\7pytorch\x1a\5", 0, FV_FILE_MODEL, "ONNX"),
    ROW("\x08\x0a\x3a\x90\1\x0a", 8, FV_FILE_MODEL, "ONNX"),
    ROW("\x89HDF\r\n\x1a\n", 0, FV_FILE_MODEL, "HDF5"),
    ROW("PK\3\4\x14\0\0\0\0\0photo.jpg", 0, FV_FILE_ARCHIVE, "zip archive"),
    ROW("\x1f\x8b\x08\0", 0, FV_FILE_ARCHIVE, "gzip"),
    ROW("\xfd"
        "7zXZ\0\0\4",
        0, FV_FILE_ARCHIVE, "xz"),
    ROW("\x28\xb5\x2f\xfd\4", 0, FV_FILE_ARCHIVE, "zstd"),
    ROW("BZh91AY&SY", 0, FV_FILE_ARCHIVE, "bzip2"),
    ROW("BZhou is a town", 0, FV_FILE_TEXT, NULL),
    ROW("\x5d\0\0\x80\0\xff\xff\xff", 0, FV_FILE_ARCHIVE, "LZMA"),
    ROW("7z\xbc\xaf\x27\x1c", 0, FV_FILE_ARCHIVE, "7z"),

    ROW("GGUF\3\0\0\0", 0, FV_FILE_GGUF, "GGUF"),
    ROW("\x40\0\0\0\0\0\0\0{\"a\"", 0, FV_FILE_SAFETENSORS, "safetensors"),
    /* lengths of headers that look like other formats */
    ROW("\x1f\x8b\x08\0\0\0\0\0{\"a\"", 0, FV_FILE_SAFETENSORS, "safetensors"),
    ROW("BM\0\0\0\0\0\0{\"a\"", 0, FV_FILE_SAFETENSORS, "safetensors"),
    ROW("{\"a\": 1}", 0, FV_FILE_JSON, "JSON"),
    ROW(" \n[1, 2]", 0, FV_FILE_JSON, "JSON"),
};

static void kinds(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(known); i++) {
        size_t n = FV_MAX(known[i].n, known[i].n_given);
        uint8_t *exact = fv_alloc_zero(n, 1); /* as long as the bytes: ASan sees a read past them */
        assert_non_null(exact);
        memcpy(exact, known[i].bytes, known[i].n_given);
        fv_sniff found = fv_sniff_bytes(exact, n);
        bool named = known[i].name ? found.name && strstr(found.name, known[i].name) : !found.name;
        if (found.kind != known[i].kind || !named)
            fail_msg("row %zu (%.16s): kind %d \"%s\", expected %d \"%s\"", i, known[i].bytes,
                     (int)found.kind, found.name ? found.name : "", (int)known[i].kind,
                     known[i].name ? known[i].name : "");
        for (size_t cut = 0; cut < n; cut++) { /* any beginning: no read past the end */
            uint8_t *part = fv_alloc(cut, 1);
            assert_non_null(part);
            memcpy(part, exact, cut);
            fv_sniff_bytes(part, cut);
            fv_free(part);
        }
        fv_free(exact);
    }
}

static void tar_and_dicom(void **state)
{
    (void)state;
    uint8_t bytes[600] = "folder/file";
    memcpy(bytes + 257, "ustar", 5);
    assert_string_equal(fv_sniff_bytes(bytes, sizeof bytes).name, "a tar archive");
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes + 128, "DICM", 4);
    assert_string_equal(fv_sniff_bytes(bytes, sizeof bytes).name, "a DICOM image");
}

/* ---- messages of the readers ------------------------------------------------------------- */

typedef enum reader { READ_JSON, READ_SAFETENSORS, READ_GGUF, READ_IMAGE } reader;

static fv_status read_as(reader how, const char *bytes, size_t n, fv_error *err)
{
    fv_json *doc;
    fv_tensors *tensors;
    fv_gguf *gguf;
    fv_image *image;
    switch (how) {
    case READ_JSON: return fv_json_parse(&doc, bytes, n, "the file", err);
    case READ_SAFETENSORS: return fv_tensors_read(&tensors, bytes, n, "the file", err);
    case READ_GGUF: return fv_gguf_read(&gguf, bytes, n, "the file", err);
    default: return fv_image_read(&image, bytes, n, NULL, err);
    }
}

#define SAYS(reader, bytes, status, ...)                          \
    {                                                             \
        reader, bytes, sizeof(bytes) - 1, status, { __VA_ARGS__ } \
    }

static const struct {
    reader how;
    const char *bytes;
    size_t n;
    fv_status status;
    const char *says[3];
} messages[] = {
    SAYS(READ_JSON, LFS, FV_ERR_FORMAT, "this is a Git LFS pointer, not JSON", "git lfs pull"),
    SAYS(READ_JSON, HTML, FV_ERR_FORMAT, "this is an HTML page, not JSON", "download again"),
    SAYS(READ_JSON, "\xef\xbb\xbf{}", FV_ERR_FORMAT, "byte order mark", "without the mark"),
    SAYS(READ_JSON, "\xff\xfe{\0}\0", FV_ERR_FORMAT, "text in UTF-16, not JSON", "as UTF-8"),
    SAYS(READ_JSON, "\x1f\x8b\x08\0", FV_ERR_FORMAT, "compressed with gzip", "unpack it"),
    SAYS(READ_JSON, "PK\3\4\x14\0\0\0a.txt", FV_ERR_FORMAT, "a zip archive, not JSON"),
    SAYS(READ_SAFETENSORS, LFS, FV_ERR_FORMAT, "a Git LFS pointer, not a safetensors file",
         "git lfs pull"),
    SAYS(READ_SAFETENSORS, "Entry not found", FV_ERR_FORMAT,
         "text that starts with \"Entry not found\", not a safetensors file"),
    SAYS(READ_SAFETENSORS, "{\"error\":\"Repository not found\"}", FV_ERR_FORMAT, "this is JSON"),
    SAYS(READ_SAFETENSORS, "PK\3\4\x14\0\0\0archive/data.pkl", FV_ERR_FORMAT,
         "a PyTorch checkpoint (zip), not a safetensors file", "convert"),
    SAYS(READ_SAFETENSORS, "\x80\2}q\1(X\1\0\0\0a", FV_ERR_FORMAT, "a Python pickle"),
    SAYS(READ_SAFETENSORS, "GGUF\3\0\0\0\0\0\0\0", FV_ERR_FORMAT, "a GGUF file, not a safet"),
    SAYS(READ_GGUF, LFS, FV_ERR_FORMAT, "a Git LFS pointer, not a GGUF file", "git lfs pull"),
    SAYS(READ_GGUF, "\x40\0\0\0\0\0\0\0{\"a\": 1}", FV_ERR_FORMAT, "a safetensors file, not a GG"),
    SAYS(READ_GGUF, "\x08\x08\x12\7pytorch\x1a\5", FV_ERR_FORMAT, "an ONNX model, not a GGUF"),
    SAYS(READ_GGUF, HTML, FV_ERR_FORMAT, "an HTML page"),
    SAYS(READ_IMAGE, LFS, FV_ERR_FORMAT, "this is a Git LFS pointer", "git lfs pull"),
    SAYS(READ_IMAGE, HTML, FV_ERR_FORMAT, "this is an HTML page", "download again"),
    SAYS(READ_IMAGE, "\x40\0\0\0\0\0\0\0{\"a\": 1}", FV_ERR_FORMAT, "this is a safetensors file",
         "a model is no image"),
    SAYS(READ_IMAGE, "GGUF\3\0\0\0", FV_ERR_FORMAT, "this is a GGUF file"),
    SAYS(READ_IMAGE, "\x08\x08\x12\7pytorch\x1a\5", FV_ERR_FORMAT, "this is an ONNX model"),
    SAYS(READ_IMAGE, "<svg width=\"1\">", FV_ERR_UNSUPPORTED, "an SVG drawing", "convert it"),
    SAYS(READ_IMAGE, "%PDF-1.7", FV_ERR_UNSUPPORTED, "this is a PDF", "convert it"),
    SAYS(READ_IMAGE, "IIU\0\x18\0\0\0", FV_ERR_UNSUPPORTED, "Panasonic raw", "export it as JPEG"),
    SAYS(READ_IMAGE,
         "\0\0\0\x14"
         "ftypqt  \0\0\0\0qt  ",
         FV_ERR_UNSUPPORTED, "QuickTime", "a frame"),
    SAYS(READ_IMAGE, "iVBORw0KGgoAAAANSUhEUgAA", FV_ERR_FORMAT, "PNG in base64", "decode it first"),
    SAYS(READ_IMAGE, "{\"error\": 1}", FV_ERR_FORMAT, "this is JSON"),
    SAYS(READ_IMAGE, "Entry not found", FV_ERR_FORMAT, "text that starts with \"Entry not found\""),
    SAYS(READ_IMAGE, "\1\2\3\4", FV_ERR_FORMAT, "starts with the bytes 01 02 03 04"),
};

static void readers_name_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(messages); i++) {
        fv_error err = { .message = "" };
        fv_status status = read_as(messages[i].how, messages[i].bytes, messages[i].n, &err);
        if (status != messages[i].status)
            fail_msg("row %zu: %s \"%s\"", i, fv_status_name(status), err.message);
        for (size_t k = 0; k < FV_COUNT(messages[i].says) && messages[i].says[k]; k++)
            if (!strstr(err.message, messages[i].says[k]))
                fail_msg("row %zu: \"%s\" lacks \"%s\"", i, err.message, messages[i].says[k]);
    }
}

/* ---- paths ------------------------------------------------------------------------------- */

static char work[64];

static const char *in_work(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", work, name);
    return path[turn];
}

static void write_file(const char *name, const char *bytes, size_t n)
{
    FILE *f = fopen(in_work(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void paths(void **state)
{
    (void)state;
    static const struct {
        const char *path, *says;
        bool in_work, image, model;
    } cases[] = {
        { "dangling", "dangling link: /nowhere/blob does not exist", true, true, true },
        { "https://example.com/cat.jpg", "is an address, expected a file: download", false, true,
          true },
        { "http://localhost/x?id=3", "is an address", false, true, true },
        { "s3://bucket/key.png", "is an address", false, true, true },
        { "hf://apple/FastVLM-0.5B", "is an address", false, true, true },
        { "data:image/png;base64,iVBORw0KGgo=", "is an address", false, true, false },
        { "file:///tmp/cat.jpg", "leave out file://", false, true, true },
        { "folder", "is a directory", true, true, false },
        { "nothing", "cannot open: No such file", true, true, false },
        { "nothing", "no such model", true, false, true },
        { "weights.safetensors", "a safetensors file, one file of a checkpoint; expected the dir",
          true, false, true },
        { "config.json", "this is JSON, one file of a checkpoint", true, false, true },
        { "weights.bin", "a PyTorch checkpoint (zip), not a GGUF file", true, false, true },
        { "model.onnx", "an ONNX model, not a GGUF file", true, false, true },
        { "lfs.gguf", "a Git LFS pointer, not a GGUF file", true, false, true },
    };
    assert_int_equal(symlink("/nowhere/blob", in_work("dangling")), 0);
    assert_int_equal(mkdir(in_work("folder"), 0755), 0);
    write_file("weights.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    write_file("config.json", "{}", 2);
    write_file("weights.bin", "PK\3\4\x14\0\0\0archive/data.pkl", 24);
    write_file("model.onnx", "\x08\x08\x12\7pytorch\x1a\5", 13);
    write_file("lfs.gguf", LFS, sizeof LFS - 1);
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        const char *path = cases[i].in_work ? in_work(cases[i].path) : cases[i].path;
        fv_image *image;
        fv_model model;
        const fv_model_options options = { .depth = FV_MODEL_TEXT };
        fv_error err = { .message = "" };
        if (cases[i].image) {
            assert_int_not_equal(fv_image_open(&image, path, NULL, &err), FV_OK);
            if (!strstr(err.message, cases[i].says))
                fail_msg("image %s: \"%s\" lacks \"%s\"", path, err.message, cases[i].says);
        }
        if (cases[i].model) {
            assert_int_not_equal(fv_model_open(&model, path, &options, &err), FV_OK);
            if (!strstr(err.message, cases[i].says))
                fail_msg("model %s: \"%s\" lacks \"%s\"", path, err.message, cases[i].says);
        }
    }
}

/* A checkpoint whose files are links into nowhere, as an incomplete download leaves them. */
static void checkpoint_of_links(void **state)
{
    (void)state;
    static const char *const names[] = { "config.json", "vocab.json", "merges.txt",
                                         "model.safetensors", "preprocessor_config.json" };
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        char command[1024], link[512];
        fv_model model;
        const fv_model_options options = { .depth = FV_MODEL_LAYOUT };
        fv_error err = { .message = "" };
        snprintf(command, sizeof command,
                 "rm -rf %s/m && cp -r " FV_SOURCE_DIR
                 "/tests/data/tiny/checkpoint %s/m && chmod -R "
                 "u+w %s/m && rm -f %s/m/%s",
                 work, work, work, work, names[i]);
        assert_int_equal(system(command), 0);
        snprintf(link, sizeof link, "%s/m/%s", work, names[i]);
        assert_int_equal(symlink("../../blobs/4d7a", link), 0);
        snprintf(link, sizeof link, "%s/m", work);
        assert_int_equal(fv_model_open(&model, link, &options, &err), FV_ERR_IO);
        if (!strstr(err.message, "is a dangling link: ../../blobs/4d7a does not exist") ||
            !strstr(err.message, names[i]))
            fail_msg("%s: \"%s\"", names[i], err.message);
    }
}

/* A pipe in a file's place is waited for by nobody. */
static void checkpoint_of_pipes(void **state)
{
    (void)state;
    fv_model model;
    const fv_model_options options = { .depth = FV_MODEL_LAYOUT };
    fv_error err = { .message = "" };
    assert_int_equal(mkdir(in_work("pipes"), 0755), 0);
    assert_int_equal(mkfifo(in_work("pipes/config.json"), 0644), 0);
    assert_int_equal(fv_model_open(&model, in_work("pipes"), &options, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "no config.json"));
}

static void torch_directory(void **state)
{
    (void)state;
    fv_tensors *tensors;
    fv_error err;
    assert_int_equal(mkdir(in_work("torch"), 0755), 0);
    write_file("torch/pytorch_model.bin", "PK\3\4", 4);
    assert_int_equal(fv_tensors_open(&tensors, in_work("torch"), &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "PyTorch checkpoint (pytorch_model.bin)"));
}

static int work_begin(void **state)
{
    (void)state;
    strcpy(work, "/tmp/test_sniff_XXXXXX");
    return mkdtemp(work) ? 0 : -1;
}

static int work_end(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", work);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds),
        cmocka_unit_test(tar_and_dicom),
        cmocka_unit_test(readers_name_it),
        cmocka_unit_test(paths),
        cmocka_unit_test(checkpoint_of_links),
        cmocka_unit_test(checkpoint_of_pipes),
        cmocka_unit_test(torch_directory),
    };
    return cmocka_run_group_tests(tests, work_begin, work_end);
}
