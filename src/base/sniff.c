/* What a file is, by its first bytes. See sniff.h. */
#include "base/sniff.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base.h"
#include "base/ifd.h"

typedef struct file_start {
    const uint8_t *data;
    size_t n;
} file_start;

static bool start_has(const file_start *s, size_t at, const void *bytes, size_t n)
{
    return s->n >= at && s->n - at >= n && memcmp(s->data + at, bytes, n) == 0;
}
#define HAS(s, at, literal) start_has((s), (at), literal, sizeof(literal) - 1)

/* Whether the bytes occur among the first `within`. */
static bool start_contains(const file_start *s, const char *bytes, size_t within)
{
    size_t n = strlen(bytes);
    for (size_t at = 0; at < within && at + n <= s->n; at++)
        if (memcmp(s->data + at, bytes, n) == 0)
            return true;
    return false;
}

static uint32_t start_le32(const file_start *s, size_t at)
{
    const uint8_t *p = s->data + at;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- text -------------------------------------------------------------------------------- */

static bool byte_is_text(uint8_t c)
{
    return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c != 0x7f);
}

/* Whether the first bytes are text: no control character among them. */
static bool start_is_text(const file_start *s)
{
    size_t n = FV_MIN(s->n, (size_t)512), n_ascii = 0;
    for (size_t i = 0; i < n; i++) {
        if (!byte_is_text(s->data[i]))
            return false;
        n_ascii += s->data[i] < 0x7f;
    }
    return n > 0 && n_ascii * 2 >= n;
}

/* Where text begins: behind a byte order mark and blanks. */
static size_t text_begin(const file_start *s)
{
    size_t at = HAS(s, 0, "\xef\xbb\xbf") ? 3 : 0;
    while (at < s->n && strchr(" \t\r\n", s->data[at]) && s->data[at])
        at++;
    return at;
}

/* Compares without regard to case; `lower` is in lower case. */
static bool text_begins(const file_start *s, size_t at, const char *lower)
{
    for (; *lower; lower++, at++) {
        uint8_t c = at < s->n ? s->data[at] : 0;
        if ((c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c) != (uint8_t)*lower)
            return false;
    }
    return true;
}

static bool text_contains(const file_start *s, const char *lower)
{
    for (size_t at = 0; at < FV_MIN(s->n, (size_t)FV_SNIFF_BYTES); at++)
        if (text_begins(s, at, lower))
            return true;
    return false;
}

static bool is_markup(const file_start *s)
{
    size_t at = text_begin(s);
    return at + 1 < s->n && s->data[at] == '<' &&
           (s->data[at + 1] == '!' || s->data[at + 1] == '?' ||
            (s->data[at + 1] >= 'A' && s->data[at + 1] <= 'Z') ||
            (s->data[at + 1] >= 'a' && s->data[at + 1] <= 'z'));
}

static bool is_svg(const file_start *s) { return is_markup(s) && text_contains(s, "<svg"); }

static bool is_html(const file_start *s)
{
    return is_markup(s) && (text_contains(s, "<html") || text_contains(s, "<!doctype html") ||
                            text_contains(s, "<head") || text_contains(s, "<body"));
}

static bool is_json(const file_start *s)
{
    size_t at = text_begin(s), n = s->n;
    if (at >= n || (s->data[at] != '{' && s->data[at] != '[') || !start_is_text(s))
        return false;
    for (at++; at < n && strchr(" \t\r\n", s->data[at]) && s->data[at];)
        at++;
    return at == n || strchr("\"{[]}-0123456789tfn", s->data[at]);
}

/* Characters of ASCII in units of two or four bytes: one byte of each unit is text, and it is the
 * same one, the others are zero. */
static bool units_are_text(const file_start *s, size_t unit, size_t which)
{
    size_t n = FV_MIN(s->n, (size_t)64) / unit * unit;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = s->data[i];
        if (i % unit == which ? !byte_is_text(c) || c > 0x7e : c != 0)
            return false;
    }
    return n >= 8;
}

static bool is_wide_text(const file_start *s)
{
    return units_are_text(s, 2, 0) || units_are_text(s, 2, 1) || units_are_text(s, 4, 0) ||
           units_are_text(s, 4, 3);
}

/* For signatures that text may begin with, too. */
static bool is_binary(const file_start *s) { return !start_is_text(s); }

/* Binary data that went through a text editor or decoder: what was not UTF-8 became U+FFFD. */
static bool is_replaced(const file_start *s)
{
    return HAS(s, 3, "\xef\xbf\xbd") || HAS(s, 3, "PNG") || HAS(s, 3, "\b\0");
}

static bool is_image_behind_mark(const file_start *s)
{
    return HAS(s, 3, "\xff\xd8\xff") || HAS(s, 3, "\x89PNG") || HAS(s, 3, "RIFF") ||
           HAS(s, 3, "GIF8");
}

static bool is_cut_there(const file_start *s) { return s->n == 2; }

static bool is_form_data(const file_start *s)
{
    return start_contains(s, "Content-Disposition: form-data", 512);
}

static bool is_zeros(const file_start *s)
{
    size_t n = FV_MIN(s->n, (size_t)FV_SNIFF_BYTES);
    for (size_t i = 0; i < n; i++)
        if (s->data[i])
            return false;
    return n >= 64;
}

/* ---- containers -------------------------------------------------------------------------- */

/* A header of JSON behind its length, less than 4 GiB. */
static bool is_safetensors(const file_start *s)
{
    return HAS(s, 4, "\0\0\0\0{") && start_le32(s, 0) >= 2;
}

/* "BM" begins many a text: the size of the header that follows says more. */
static bool is_bmp(const file_start *s)
{
    static const uint8_t sizes[] = { 12, 16, 40, 52, 56, 64, 108, 124 };
    if (s->n < 18)
        return s->n > 2 && !start_is_text(s);
    for (size_t i = 0; i < FV_COUNT(sizes); i++)
        if (start_le32(s, 14) == sizes[i])
            return true;
    return false;
}

static bool is_icon(const file_start *s)
{
    return s->n >= 6 && s->data[5] == 0 && s->data[4] > 0 && (s->n < 10 || s->data[9] == 0);
}

static bool is_pnm(const file_start *s)
{
    return s->n >= 3 && strchr(" \t\n\r\v\f#", s->data[2]) && s->data[2];
}

static bool is_apple_png(const file_start *s) { return HAS(s, 12, "CgBI"); }
static bool is_avi(const file_start *s) { return HAS(s, 8, "AVI "); }
static bool is_webp(const file_start *s) { return HAS(s, 8, "WEBP"); }
static bool is_transport_stream(const file_start *s)
{
    return HAS(s, 188, "G") && HAS(s, 376, "G") && !start_is_text(s);
}

static bool is_bzip2(const file_start *s)
{
    return HAS(s, 4, "1AY&SY") || HAS(s, 4, "\x17\x72\x45");
}
static bool is_tar(const file_start *s) { return HAS(s, 257, "ustar"); }
static bool is_torch_zip(const file_start *s) { return start_contains(s, "data.pkl", 512); }
static bool is_numpy_zip(const file_start *s) { return start_contains(s, ".npy", 128); }
static bool is_office(const file_start *s)
{
    return start_contains(s, "[Content_Types].xml", 128) || start_contains(s, "mimetypeapp", 64);
}

/* Protocols 2 to 5 of Python's pickle; torch.save's old format pickles its magic number first. */
static bool is_torch_pickle(const file_start *s)
{
    return s->n >= 14 && s->data[1] >= 2 && s->data[1] <= 5 &&
           (HAS(s, 4, "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") ||
            start_contains(s, "torch", FV_SNIFF_BYTES));
}

static bool is_pickle(const file_start *s)
{
    return s->n >= 3 && s->data[1] >= 2 && s->data[1] <= 5 &&
           strchr("}](c\x95\x8aXqKM", s->data[2]) && s->data[2];
}

/* Protobuf without a signature: ir_version first, then the producer, the graph or the operators. */
static bool is_onnx(const file_start *s)
{
    if (s->n < 8 || s->data[1] < 3 || s->data[1] > 20)
        return false;
    if (s->data[2] == 0x12 || s->data[2] == 0x1a) { /* producer_name, producer_version */
        size_t n = s->data[3];
        for (size_t i = 4; i < 4 + n && i < s->n; i++)
            if (s->data[i] < 0x20 || s->data[i] > 0x7e)
                return false;
        return true;
    }
    return s->data[2] == 0x3a || s->data[2] == 0x42;
}

/* ---- TIFF and its kin -------------------------------------------------------------------- */

enum {
    TAG_SUBFILE_TYPE = 254,
    TAG_PHOTOMETRIC = 262,
    TAG_MAKE = 271,
    TAG_SUB_IFDS = 330,
    TAG_DNG_VERSION = 50706,
    PHOTOMETRIC_CFA = 32803,
    PHOTOMETRIC_LINEAR_RAW = 34892
};

static double ifd_tag(const fv_ifd *ifd, uint16_t tag)
{
    fv_ifd_entry entry;
    double value;
    return fv_ifd_find(ifd, tag, &entry) && fv_ifd_number(ifd, &entry, &value) ? value : -1;
}

static bool is_dng(const file_start *s)
{
    fv_ifd ifd;
    fv_ifd_entry entry;
    return fv_ifd_open(&ifd, s->data, s->n) && fv_ifd_find(&ifd, TAG_DNG_VERSION, &entry);
}

static bool is_cr2(const file_start *s) { return HAS(s, 8, "CR\2"); }

/* Nikon's, Sony's, Pentax's and others': a TIFF whose first image is the sensor's mosaic, or a
 * small preview of one that stands in a directory below. */
static bool is_raw_tiff(const file_start *s)
{
    fv_ifd ifd;
    fv_ifd_entry entry;

    if (!fv_ifd_open(&ifd, s->data, s->n))
        return false;
    double photometric = ifd_tag(&ifd, TAG_PHOTOMETRIC);
    if (photometric == PHOTOMETRIC_CFA || photometric == PHOTOMETRIC_LINEAR_RAW)
        return true;
    return fv_ifd_find(&ifd, TAG_MAKE, &entry) && fv_ifd_find(&ifd, TAG_SUB_IFDS, &entry) &&
           ifd_tag(&ifd, TAG_SUBFILE_TYPE) == 1;
}

/* ---- boxes: HEIF, MP4 and their kin ------------------------------------------------------ */

typedef enum brand_kind {
    BRAND_OTHER = 0,
    BRAND_HEIF, /* an image in any coding */
    BRAND_HEIC,
    BRAND_AVIF,
    BRAND_JXL,
    BRAND_JP2,
    BRAND_CR3,
    BRAND_QUICKTIME
} brand_kind;

static brand_kind brand_kind_of(const uint8_t *brand)
{
    static const struct {
        char name[5];
        brand_kind kind;
    } brands[] = {
        { "heic", BRAND_HEIC }, { "heix", BRAND_HEIC }, { "heim", BRAND_HEIC },
        { "heis", BRAND_HEIC }, { "hevc", BRAND_HEIC }, { "hevx", BRAND_HEIC },
        { "hevm", BRAND_HEIC }, { "hevs", BRAND_HEIC }, { "avif", BRAND_AVIF },
        { "avis", BRAND_AVIF }, { "avio", BRAND_AVIF }, { "mif1", BRAND_HEIF },
        { "mif2", BRAND_HEIF }, { "msf1", BRAND_HEIF }, { "miaf", BRAND_HEIF },
        { "jxl ", BRAND_JXL },  { "jp2 ", BRAND_JP2 },  { "jpx ", BRAND_JP2 },
        { "jpm ", BRAND_JP2 },  { "crx ", BRAND_CR3 },  { "qt  ", BRAND_QUICKTIME },
    };
    for (size_t i = 0; i < FV_COUNT(brands); i++)
        if (memcmp(brand, brands[i].name, 4) == 0)
            return brands[i].kind;
    return BRAND_OTHER;
}

/* The major brand decides when it is a coding's. A general one, or one that is not known, leaves it
 * to the compatible brands, of which the first that names a coding wins. */
static brand_kind box_brand(const file_start *s)
{
    if (s->n < 12)
        return BRAND_OTHER;
    const uint8_t *p = s->data;
    uint32_t size = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    size_t end = FV_MIN(FV_MIN((size_t)size, s->n), (size_t)FV_SNIFF_BYTES);
    brand_kind kind = brand_kind_of(p + 8);

    for (size_t at = 16; at + 4 <= end && kind <= BRAND_HEIF; at += 4) {
        brand_kind next = brand_kind_of(p + at);
        if (next == BRAND_HEIC || next == BRAND_AVIF || next == BRAND_HEIF)
            kind = next;
    }
    return kind;
}

static bool is_heic(const file_start *s)
{
    brand_kind kind = box_brand(s);
    return kind == BRAND_HEIC || kind == BRAND_HEIF;
}
static bool is_avif(const file_start *s) { return box_brand(s) == BRAND_AVIF; }
static bool is_jxl_brand(const file_start *s) { return box_brand(s) == BRAND_JXL; }
static bool is_jp2_brand(const file_start *s) { return box_brand(s) == BRAND_JP2; }
static bool is_cr3(const file_start *s) { return box_brand(s) == BRAND_CR3; }
static bool is_quicktime(const file_start *s) { return box_brand(s) == BRAND_QUICKTIME; }
static bool is_webm(const file_start *s) { return start_contains(s, "webm", 64); }

/* ---- the table --------------------------------------------------------------------------- */

#define FETCH_LFS  "git lfs pull fetches the file itself"
#define UNPACK     "unpack it first"
#define SAVE_UTF8  "save it as UTF-8"
#define AGAIN      "copy or download it again"
#define AS_WEIGHTS "convert the checkpoint to safetensors, or take a repository that has it"

typedef struct sniff_rule {
    uint16_t at;
    uint16_t n;
    const char *bytes;
    bool (*also)(const file_start *s); /* or NULL */
    fv_sniff found;
} sniff_rule;

#define RULE(at, literal, also, kind, ...)                                  \
    {                                                                       \
        (at), sizeof(literal) - 1, literal, (also), { (kind), __VA_ARGS__ } \
    }

/* The first row that fits wins. */
static const sniff_rule rules[] = {
    RULE(0, "", is_safetensors, FV_FILE_SAFETENSORS, "a safetensors file", NULL),
    RULE(0, "GGUF", NULL, FV_FILE_GGUF, "a GGUF file", NULL),
    RULE(0, "", is_zeros, FV_FILE_STANDIN, "nothing but zero bytes", AGAIN),

    /* stands for a file that is elsewhere */
    RULE(0, "version https://git-lfs.github.com/", NULL, FV_FILE_STANDIN, "a Git LFS pointer",
         FETCH_LFS),
    RULE(0, "version https://hawser.github.com/", NULL, FV_FILE_STANDIN, "a Git LFS pointer",
         FETCH_LFS),
    RULE(0, "# xet version", NULL, FV_FILE_STANDIN, "a pointer of Xet storage",
         "fetch the file itself from the hub"),
    RULE(0, "/annex/objects/", NULL, FV_FILE_STANDIN, "a git-annex pointer",
         "git annex get fetches the file itself"),
    RULE(0, "", is_svg, FV_FILE_IMAGE, "an SVG drawing", NULL),
    RULE(0, "", is_html, FV_FILE_STANDIN, "an HTML page",
         "a server sent it instead, often to report an error: read it, then download again"),
    RULE(0, "", is_markup, FV_FILE_STANDIN, "an XML document",
         "if a server sent it to report an error, read it, then download again"),

    /* text in another encoding, and binary data as text */
    RULE(0, "\xff\xfe\0\0", NULL, FV_FILE_ENCODED, "text in UTF-32", SAVE_UTF8),
    RULE(0, "\0\0\xfe\xff", NULL, FV_FILE_ENCODED, "text in UTF-32", SAVE_UTF8),
    RULE(0, "\xff\xfe", NULL, FV_FILE_ENCODED, "text in UTF-16", SAVE_UTF8),
    RULE(0, "\xfe\xff", NULL, FV_FILE_ENCODED, "text in UTF-16", SAVE_UTF8),
    RULE(0, "\xef\xbb\xbf%PDF", NULL, FV_FILE_IMAGE, "a PDF", NULL),
    RULE(0, "\xef\xbb\xbf", is_image_behind_mark, FV_FILE_ENCODED,
         "an image behind a byte order mark", AGAIN " as binary"),
    RULE(0, "\xef\xbb\xbf", NULL, FV_FILE_ENCODED,
         "text that begins with a byte order mark (UTF-8 BOM)",
         "save it as UTF-8 without the mark"),
    RULE(0, "\xef\xbf\xbd", is_replaced, FV_FILE_ENCODED,
         "binary data that was saved as text, which destroyed it", AGAIN),
    RULE(0, "HTTP/1.", NULL, FV_FILE_ENCODED, "an HTTP answer with its headers",
         "save what follows the empty line behind them"),
    RULE(0, "HTTP/2", NULL, FV_FILE_ENCODED, "an HTTP answer with its headers",
         "save what follows the empty line behind them"),
    RULE(0, "--", is_form_data, FV_FILE_ENCODED, "a form as browsers send it (multipart)",
         "take the file out of it first"),
    RULE(0, "data:image/", NULL, FV_FILE_ENCODED, "an image as a data: address, in base64",
         "decode it first"),
    RULE(0, "iVBORw0KGgo", NULL, FV_FILE_ENCODED, "a PNG in base64", "decode it first"),
    RULE(0, "/9j/", NULL, FV_FILE_ENCODED, "a JPEG in base64", "decode it first"),

    /* images */
    RULE(0, "\xff\xd8\xff", NULL, FV_FILE_JPEG, "a JPEG", NULL),
    RULE(0, "\xff\xd8", is_cut_there, FV_FILE_JPEG, "a JPEG", NULL),
    RULE(0, "\x89PNG\r\n\x1a\n", is_apple_png, FV_FILE_IMAGE,
         "a PNG as Apple packs it into apps (CgBI), which PNG readers cannot read", NULL),
    RULE(0, "\x89PNG\r\n\x1a\n", NULL, FV_FILE_PNG, "a PNG", NULL),
    RULE(0, "\x89PNG", NULL, FV_FILE_ENCODED, "a PNG with changed line ends", AGAIN " as binary"),
    RULE(0, "RIFF", is_webp, FV_FILE_WEBP, "a WebP", NULL),
    RULE(0, "GIF87a", NULL, FV_FILE_GIF, "a GIF", NULL),
    RULE(0, "GIF89a", NULL, FV_FILE_GIF, "a GIF", NULL),
    RULE(0, "BM", is_bmp, FV_FILE_BMP, "a BMP", NULL),
    RULE(0, "P5", is_pnm, FV_FILE_PNM, "a PNM", NULL),
    RULE(0, "P6", is_pnm, FV_FILE_PNM, "a PNM", NULL),
    RULE(0, "P1", is_pnm, FV_FILE_IMAGE, "a PBM in plain text (P1)", NULL),
    RULE(0, "P2", is_pnm, FV_FILE_IMAGE, "a PGM in plain text (P2)", NULL),
    RULE(0, "P3", is_pnm, FV_FILE_IMAGE, "a PPM in plain text (P3)", NULL),
    RULE(0, "P4", is_pnm, FV_FILE_IMAGE, "a PBM (P4)", NULL),
    RULE(0, "P7", is_pnm, FV_FILE_IMAGE, "a PAM (P7)", NULL),
    RULE(0, "Pf", is_pnm, FV_FILE_IMAGE, "a PFM", NULL),
    RULE(0, "PF", is_pnm, FV_FILE_IMAGE, "a PFM", NULL),
    RULE(0, "II*\0", is_cr2, FV_FILE_RAW, "a Canon raw file (CR2)", NULL),
    RULE(0, "II*\0", is_dng, FV_FILE_RAW, "a DNG (camera raw file)", NULL),
    RULE(0, "MM\0*", is_dng, FV_FILE_RAW, "a DNG (camera raw file)", NULL),
    RULE(0, "II*\0", is_raw_tiff, FV_FILE_RAW, "a camera's raw file (NEF, ARW or similar)", NULL),
    RULE(0, "MM\0*", is_raw_tiff, FV_FILE_RAW, "a camera's raw file (NEF, ARW or similar)", NULL),
    RULE(0, "II*\0", NULL, FV_FILE_TIFF, "a TIFF", NULL),
    RULE(0, "MM\0*", NULL, FV_FILE_TIFF, "a TIFF", NULL),
    RULE(0, "II+\0", NULL, FV_FILE_TIFF, "a BigTIFF", NULL),
    RULE(0, "MM\0+", NULL, FV_FILE_TIFF, "a BigTIFF", NULL),
    RULE(0, "IIRO", NULL, FV_FILE_RAW, "an Olympus raw file (ORF)", NULL),
    RULE(0, "IIRS", NULL, FV_FILE_RAW, "an Olympus raw file (ORF)", NULL),
    RULE(0, "MMOR", NULL, FV_FILE_RAW, "an Olympus raw file (ORF)", NULL),
    RULE(0, "IIU\0", NULL, FV_FILE_RAW, "a Panasonic raw file (RW2)", NULL),
    RULE(0, "FUJIFILMCCD-RAW", NULL, FV_FILE_RAW, "a Fujifilm raw file (RAF)", NULL),
    RULE(6, "HEAPCCDR", NULL, FV_FILE_RAW, "a Canon raw file (CRW)", NULL),
    RULE(0, "FOVb", NULL, FV_FILE_RAW, "a Sigma raw file (X3F)", NULL),
    RULE(0, "\0MRM", NULL, FV_FILE_RAW, "a Minolta raw file (MRW)", NULL),
    RULE(4, "ftyp", is_cr3, FV_FILE_RAW, "a Canon raw file (CR3)", NULL),
    RULE(4, "ftyp", is_heic, FV_FILE_HEIC, "a HEIC", NULL),
    RULE(4, "ftyp", is_avif, FV_FILE_AVIF, "an AVIF", NULL),
    RULE(0, "\xff\x0a", NULL, FV_FILE_IMAGE, "a JPEG XL image", NULL),
    RULE(0, "\0\0\0\x0cJXL ", NULL, FV_FILE_IMAGE, "a JPEG XL image", NULL),
    RULE(4, "ftyp", is_jxl_brand, FV_FILE_IMAGE, "a JPEG XL image", NULL),
    RULE(0, "\0\0\0\x0cjP  ", NULL, FV_FILE_IMAGE, "a JPEG 2000 image", NULL),
    RULE(0, "\xff\x4f\xff\x51", NULL, FV_FILE_IMAGE, "a JPEG 2000 image", NULL),
    RULE(4, "ftyp", is_jp2_brand, FV_FILE_IMAGE, "a JPEG 2000 image", NULL),
    RULE(0, "II\xbc\x01", NULL, FV_FILE_IMAGE, "a JPEG XR image", NULL),
    RULE(0, "qoif", NULL, FV_FILE_IMAGE, "a QOI image", NULL),
    RULE(0, "8BPS", NULL, FV_FILE_IMAGE, "a Photoshop document (PSD)", NULL),
    RULE(0, "\0\0\1\0", is_icon, FV_FILE_IMAGE, "an icon (ICO)", NULL),
    RULE(0, "\0\0\2\0", is_icon, FV_FILE_IMAGE, "a mouse pointer (CUR)", NULL),
    RULE(0, "icns", is_binary, FV_FILE_IMAGE, "an Apple icon (ICNS)", NULL),
    RULE(0, "\x76\x2f\x31\x01", NULL, FV_FILE_IMAGE, "an OpenEXR image", NULL),
    RULE(0, "#?RADIANCE", NULL, FV_FILE_IMAGE, "a Radiance HDR image", NULL),
    RULE(0, "#?RGBE", NULL, FV_FILE_IMAGE, "a Radiance HDR image", NULL),
    RULE(0, "\x01\xda\x01", NULL, FV_FILE_IMAGE, "an SGI image", NULL),
    RULE(0, "\x0a\x05\x01", NULL, FV_FILE_IMAGE, "a PCX image", NULL),
    RULE(0, "/* XPM */", NULL, FV_FILE_IMAGE, "an XPM image", NULL),
    RULE(0, "DDS ", is_binary, FV_FILE_IMAGE, "a DDS texture", NULL),
    RULE(0, "\xabKTX ", NULL, FV_FILE_IMAGE, "a KTX texture", NULL),
    RULE(0, "FLIF", is_binary, FV_FILE_IMAGE, "a FLIF image", NULL),
    RULE(0, "BPG\xfb", NULL, FV_FILE_IMAGE, "a BPG image", NULL),
    RULE(0, "\x8aMNG", NULL, FV_FILE_IMAGE, "an MNG animation", NULL),
    RULE(0, "\x8bJNG", NULL, FV_FILE_IMAGE, "a JNG image", NULL),
    RULE(0, "gimp xcf", NULL, FV_FILE_IMAGE, "a GIMP document (XCF)", NULL),
    RULE(0, "farbfeld", NULL, FV_FILE_IMAGE, "a farbfeld image", NULL),
    RULE(0, "AT&TFORM", NULL, FV_FILE_IMAGE, "a DjVu document", NULL),
    RULE(0, "SIMPLE  =", NULL, FV_FILE_IMAGE, "a FITS image", NULL),
    RULE(128, "DICM", NULL, FV_FILE_IMAGE, "a DICOM image", NULL),
    RULE(0, "\xd7\xcd\xc6\x9a", NULL, FV_FILE_IMAGE, "a Windows metafile (WMF)", NULL),
    RULE(40, " EMF", NULL, FV_FILE_IMAGE, "a Windows metafile (EMF)", NULL),
    RULE(0, "%PDF", NULL, FV_FILE_IMAGE, "a PDF", NULL),
    RULE(0, "%!PS", NULL, FV_FILE_IMAGE, "a PostScript document", NULL),

    /* videos and sound */
    RULE(4, "ftyp", is_quicktime, FV_FILE_VIDEO, "a video (QuickTime)", NULL),
    RULE(4, "ftyp", NULL, FV_FILE_VIDEO, "a video (MP4 or similar)", NULL),
    RULE(4, "moov", is_binary, FV_FILE_VIDEO, "a video (QuickTime)", NULL),
    RULE(4, "mdat", is_binary, FV_FILE_VIDEO, "a video (QuickTime)", NULL),
    RULE(4, "wide", is_binary, FV_FILE_VIDEO, "a video (QuickTime)", NULL),
    RULE(4, "free", is_binary, FV_FILE_VIDEO, "a video (QuickTime)", NULL),
    RULE(4, "skip", is_binary, FV_FILE_VIDEO, "a video (QuickTime)", NULL),
    RULE(0, "\x1a\x45\xdf\xa3", is_webm, FV_FILE_VIDEO, "a video (WebM)", NULL),
    RULE(0, "\x1a\x45\xdf\xa3", NULL, FV_FILE_VIDEO, "a video (Matroska)", NULL),
    RULE(0, "RIFF", is_avi, FV_FILE_VIDEO, "a video (AVI)", NULL),
    RULE(0, "FLV\1", NULL, FV_FILE_VIDEO, "a video (FLV)", NULL),
    RULE(0, "\0\0\1\xba", NULL, FV_FILE_VIDEO, "a video (MPEG)", NULL),
    RULE(0, "\0\0\1\xb3", NULL, FV_FILE_VIDEO, "a video (MPEG)", NULL),
    RULE(0, "G", is_transport_stream, FV_FILE_VIDEO, "a video (MPEG)", NULL),
    RULE(0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11", NULL, FV_FILE_VIDEO, "a video (WMV)", NULL),
    RULE(0, "OggS", NULL, FV_FILE_VIDEO, "a sound or video file (Ogg)", NULL),
    RULE(0, "RIFF", NULL, FV_FILE_OTHER, "a sound or other RIFF file", NULL),
    RULE(0, "ID3", is_binary, FV_FILE_OTHER, "a sound file (MP3)", NULL),
    RULE(0, "fLaC", NULL, FV_FILE_OTHER, "a sound file (FLAC)", NULL),

    /* weights in other formats */
    RULE(0, "PK\3\4", is_torch_zip, FV_FILE_MODEL, "a PyTorch checkpoint (zip)", AS_WEIGHTS),
    RULE(0, "\x80", is_torch_pickle, FV_FILE_MODEL, "a PyTorch checkpoint (pickle)", AS_WEIGHTS),
    RULE(0, "\x80", is_pickle, FV_FILE_MODEL, "a Python pickle", AS_WEIGHTS),
    RULE(0, "\x08", is_onnx, FV_FILE_MODEL, "an ONNX model", NULL),
    RULE(4, "TFL3", NULL, FV_FILE_MODEL, "a TensorFlow Lite model", NULL),
    RULE(0, "\x89HDF\r\n\x1a\n", NULL, FV_FILE_MODEL, "an HDF5 file", NULL),
    RULE(0, "lmgg", NULL, FV_FILE_MODEL, "a GGML file, older than GGUF", NULL),
    RULE(0, "tjgg", NULL, FV_FILE_MODEL, "a GGML file, older than GGUF", NULL),
    RULE(0, "fmgg", NULL, FV_FILE_MODEL, "a GGML file, older than GGUF", NULL),
    RULE(0, "\x93NUMPY", NULL, FV_FILE_MODEL, "a NumPy array", NULL),
    RULE(0, "PK\3\4", is_numpy_zip, FV_FILE_MODEL, "a zip of NumPy arrays", NULL),

    /* archives and the rest */
    RULE(0, "PK\3\4", is_office, FV_FILE_OTHER, "an office document", NULL),
    RULE(0, "PK\3\4", NULL, FV_FILE_ARCHIVE, "a zip archive", UNPACK),
    RULE(0, "PK\5\6", NULL, FV_FILE_ARCHIVE, "an empty zip archive", NULL),
    RULE(0, "PK\7\x08", NULL, FV_FILE_ARCHIVE, "a zip archive", UNPACK),
    RULE(0, "\x1f\x8b", NULL, FV_FILE_ARCHIVE, "compressed with gzip", UNPACK),
    RULE(0,
         "\xfd"
         "7zXZ\0",
         NULL, FV_FILE_ARCHIVE, "compressed with xz", UNPACK),
    RULE(0, "\x28\xb5\x2f\xfd", NULL, FV_FILE_ARCHIVE, "compressed with zstd", UNPACK),
    RULE(0, "BZh", is_bzip2, FV_FILE_ARCHIVE, "compressed with bzip2", UNPACK),
    RULE(0, "\x5d\0\0", is_binary, FV_FILE_ARCHIVE, "compressed with LZMA", UNPACK),
    RULE(0, "\x04\x22\x4d\x18", NULL, FV_FILE_ARCHIVE, "compressed with lz4", UNPACK),
    RULE(0, "\x1f\x9d", NULL, FV_FILE_ARCHIVE, "compressed with compress", UNPACK),
    RULE(0, "7z\xbc\xaf\x27\x1c", NULL, FV_FILE_ARCHIVE, "a 7z archive", UNPACK),
    RULE(0, "Rar!\x1a\7", NULL, FV_FILE_ARCHIVE, "a RAR archive", UNPACK),
    RULE(0, "", is_tar, FV_FILE_ARCHIVE, "a tar archive", UNPACK),
    RULE(0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", NULL, FV_FILE_OTHER, "an office document", NULL),
    RULE(0,
         "\x7f"
         "ELF",
         NULL, FV_FILE_OTHER, "a program or library (ELF)", NULL),
    RULE(0, "\xcf\xfa\xed\xfe", NULL, FV_FILE_OTHER, "a program or library (Mach-O)", NULL),
    RULE(0, "MZ\x90\0", NULL, FV_FILE_OTHER, "a program or library (Windows)", NULL),
    RULE(0, "SQLite format 3", NULL, FV_FILE_OTHER, "an SQLite database", NULL),
    RULE(0, "", is_json, FV_FILE_JSON, "JSON", NULL),
    RULE(0, "", is_wide_text, FV_FILE_ENCODED, "text in UTF-16 or UTF-32", SAVE_UTF8),
};

fv_sniff fv_sniff_bytes(const void *data, size_t n_bytes)
{
    const file_start s = { data, n_bytes };

    if (!n_bytes)
        return (fv_sniff){ .kind = FV_FILE_EMPTY };
    for (size_t i = 0; i < FV_COUNT(rules); i++) {
        const sniff_rule *rule = &rules[i];
        if (start_has(&s, rule->at, rule->bytes, rule->n) && (!rule->also || rule->also(&s)))
            return rule->found;
    }
    return (fv_sniff){ .kind = start_is_text(&s) ? FV_FILE_TEXT : FV_FILE_UNKNOWN };
}

/* ---- messages ---------------------------------------------------------------------------- */

void fv_describe_bytes(char out[FV_DESCRIPTION], const void *data, size_t n_bytes)
{
    fv_sniff found = fv_sniff_bytes(data, n_bytes);
    const uint8_t *bytes = data;
    size_t n = 0;

    if (found.name) {
        snprintf(out, FV_DESCRIPTION, "%s", found.name);
    } else if (found.kind == FV_FILE_EMPTY) {
        snprintf(out, FV_DESCRIPTION, "empty");
    } else if (found.kind == FV_FILE_TEXT) {
        while (n < FV_MIN(n_bytes, (size_t)32) && bytes[n] >= 0x20)
            n++;
        snprintf(out, FV_DESCRIPTION, "text that starts with \"%.*s\"", (int)n, (const char *)data);
    } else {
        int used = snprintf(out, FV_DESCRIPTION, "data that starts with the bytes");
        for (; n < FV_MIN(n_bytes, (size_t)8); n++)
            used += snprintf(out + used, (size_t)(FV_DESCRIPTION - used), " %02x", bytes[n]);
    }
}

fv_status fv_refuse_foreign(const void *data, size_t n_bytes, const char *name, fv_file_kind wanted,
                            const char *expected, fv_error *err)
{
    fv_sniff found = fv_sniff_bytes(data, n_bytes);
    bool text = wanted == FV_FILE_TEXT || wanted == FV_FILE_JSON;
    char what[FV_DESCRIPTION];

    if (found.kind == wanted || found.kind == FV_FILE_UNKNOWN || found.kind == FV_FILE_EMPTY ||
        (text && (found.kind == FV_FILE_TEXT || found.kind == FV_FILE_JSON)))
        return FV_OK;
    fv_describe_bytes(what, data, n_bytes);
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: this is %s, not %s%s%s", name, what, expected,
                   found.advice ? "; " : "", found.advice ? found.advice : "");
}

/* ---- directories ------------------------------------------------------------------------- */

static fv_file_kind sniff_entry(const char *dir, const char *name)
{
    char path[4096];
    uint8_t start[FV_SNIFF_BYTES];
    struct stat st;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path ||
        stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return FV_FILE_UNKNOWN;
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(start, 1, sizeof start, f) : 0;
    if (f)
        fclose(f);
    return fv_sniff_bytes(start, n).kind;
}

/* Photographs may have a JSON each beside them, so only a model's own count. */
static bool name_is_models(const char *name)
{
    static const char *const names[] = { "config.json", "tokenizer.json", "tokenizer_config.json",
                                         "vocab.json", "merges.txt" };
    for (size_t i = 0; i < FV_COUNT(names); i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

bool fv_sniff_images(const char *dir, char name[256])
{
    enum { MAX_ENTRIES = 1000 };
    DIR *entries = opendir(dir);
    bool model = false;

    *name = 0;
    for (int i = 0; entries && i < MAX_ENTRIES && !model; i++) {
        const struct dirent *entry = readdir(entries);
        if (!entry)
            break;
        fv_file_kind kind = sniff_entry(dir, entry->d_name);
        model = kind == FV_FILE_SAFETENSORS || kind == FV_FILE_GGUF || kind == FV_FILE_MODEL ||
                name_is_models(entry->d_name);
        if (fv_file_is_image(kind) && (!*name || strcmp(entry->d_name, name) < 0))
            snprintf(name, 256, "%s", entry->d_name);
    }
    if (entries)
        closedir(entries);
    return *name && !model;
}
