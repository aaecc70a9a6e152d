/* What an argument or a line of a conversation is: a file that is there, an address, a path to
 * nothing, or text. See cli.h.
 *
 * An image that is not there must not become the question: whatever could be a path or an address
 * is an error rather than text, and --prompt says that it is text after all. */
#include "cli.h"
#include "program/sniff.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"
#define BLANKS  " \t\r\n\v\f"

/* ---- files that are there ---------------------------------------------------------------- */

static const char *const image_endings[] = { "jpg",  "jpeg", "jfif", "png", "webp", "ppm",  "pgm",
                                             "pbm",  "pnm",  "gif",  "bmp", "tif",  "tiff", "heic",
                                             "heif", "hif",  "avif", "jxl", "jp2",  "j2k",  "ico",
                                             "icns", "svg",  "psd",  "qoi", "tga",  "exr",  "hdr",
                                             "pcx",  "dng",  "cr2",  "cr3", "nef",  "arw",  "orf",
                                             "raf",  "rw2",  "pdf",  NULL };
static const char *const model_endings[] = { "gguf", "safetensors", NULL };
/* of files that are neither, but no questions either */
static const char *const file_endings[] = { "mp4", "mov",  "m4v", "mkv", "avi",  "webm", "zip",
                                            "gz",  "tar",  "txt", "pt",  "pth",  "bin",  "onnx",
                                            "npy", "json", "csv", "htm", "html", NULL };

/* ASCII letters only: a locale must not decide what .GIF is. */
static bool ending_is(const char *ending, size_t n, const char *name)
{
    if (strlen(name) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((ending[i] >= 'A' && ending[i] <= 'Z' ? ending[i] + 32 : ending[i]) != name[i])
            return false;
    return true;
}

static bool has_ending(const char *word, size_t n, const char *const *endings)
{
    size_t dot = n;
    while (dot > 0 && word[dot - 1] != '.')
        dot--;
    for (; dot && *endings; endings++)
        if (ending_is(word + dot, n - dot, *endings))
            return true;
    return false;
}

static fv_file_kind sniff_file(const char *path)
{
    unsigned char b[FV_SNIFF_BYTES];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(b, 1, sizeof b, f) : 0;
    if (f)
        fclose(f);
    return fv_sniff_bytes(b, n).kind;
}

/* WORD_TEXT: there is no such file. What a dangling link or a file that is no image is, the library
 * says: only text, and what it does not know either, may be meant as the prompt. */
static word_kind file_kind(const char *path)
{
    struct stat st;
    size_t length = strlen(path);
    bool model = has_ending(path, length, model_endings);
    if (stat(path, &st) != 0)
        return lstat(path, &st) != 0 ? WORD_TEXT : model ? WORD_MODEL : WORD_IMAGE;
    if (S_ISDIR(st.st_mode) || model)
        return WORD_MODEL;
    if (!S_ISREG(st.st_mode)) /* a pipe, say, of which nothing must be taken here */
        return WORD_IMAGE;
    switch (sniff_file(path)) {
    case FV_FILE_GGUF:
    case FV_FILE_SAFETENSORS: return WORD_MODEL;
    case FV_FILE_EMPTY:
    case FV_FILE_UNKNOWN:
    case FV_FILE_TEXT:
    case FV_FILE_JSON:
        return has_ending(path, length, image_endings) ? WORD_IMAGE : WORD_OTHER_FILE;
    default: return WORD_IMAGE;
    }
}

/* ---- words that name no file ------------------------------------------------------------- */

static bool word_begins(const char *word, const char *prefix)
{
    for (; *prefix; word++, prefix++)
        if ((*word >= 'A' && *word <= 'Z' ? *word + 32 : *word) != *prefix)
            return false;
    return true;
}

/* "https://host/image.jpg": a scheme of letters, digits, '+', '-' and '.', as RFC 3986 has it. */
static bool is_address(const char *word)
{
    size_t n = strspn(word, LETTERS DIGITS "+-.");
    if (word_begins(word, "http://") || word_begins(word, "https://"))
        return true;
    if (strpbrk(word, BLANKS))
        return false;
    return word_begins(word, "data:") || word_begins(word, "www.") ||
           (n > 1 && strchr(LETTERS, *word) && !strncmp(word + n, "://", 3));
}

/* A lone word "name.end", "name.end?query": up to the question mark it ends like a file. */
static bool is_file_name(const char *word, size_t n)
{
    size_t end = strcspn(word, "?#");
    end = end < n ? end : n;
    size_t dot = end;
    while (dot > 0 && word[dot - 1] != '.')
        dot--;
    size_t after = end - dot;
    bool plain = dot > 1 && after > 0 && after <= 12 && strspn(word + dot, LETTERS DIGITS) >= after;
    /* "Is it 3.14?" and "e.g." are none */
    return plain && (end == n || end + 1 < n);
}

/* One word with a slash, or with digits and a dash, dot or underscore inside, names a model or a
 * file rather than asks for something. */
static bool names_a_model(const char *word)
{
    const char *mark = strpbrk(word, "-._");
    if (strpbrk(word, BLANKS "?!"))
        return false;
    return strchr(word, '/') || (strpbrk(word, DIGITS) && mark && mark > word && mark[1]);
}

/* Is there a letter or a digit, of any script, behind the slash that the word begins with? */
static bool names_something(const char *word)
{
    return word[1] && (strchr(LETTERS DIGITS "._~/", word[1]) || (unsigned char)word[1] >= 0x80);
}

/* A lone word that ends like a file up to the marks behind it, such as "photo.png,". */
static bool is_marked_name(const char *word, size_t n)
{
    while (n && (strchr(",;:.!)]>*'\"", word[n - 1]) || (unsigned char)word[n - 1] >= 0x80))
        n--;
    return has_ending(word, n, image_endings) || has_ending(word, n, model_endings);
}

/* What a word is that names no file; n bytes without blanks and quotes around it. */
static word_kind missing_kind(const char *word, size_t n)
{
    bool lone = strcspn(word, BLANKS) >= n;
    bool drive = n > 2 && strchr(LETTERS, word[0]) && word[1] == ':' && strchr("\\/", word[2]);
    if (!n)
        return WORD_TEXT;
    if (has_ending(word, n, image_endings) || has_ending(word, n, model_endings))
        return WORD_MISSING;
    if (lone && (has_ending(word, n, file_endings) || is_marked_name(word, n)))
        return WORD_MISSING;
    if (lone && *word == '$' && strchr(LETTERS "_{", word[1])) /* a variable that is not set */
        return WORD_MISSING;
    if ((*word == '/' && names_something(word)) || word_begins(word, "./") ||
        word_begins(word, "../") || word_begins(word, "~/") || word_begins(word, ".\\") ||
        word_begins(word, "\\\\") || word_begins(word, "file:") || drive)
        return WORD_MISSING;
    if (!lone)
        return WORD_TEXT;
    if (names_a_model(word))
        return WORD_NO_MODEL;
    return is_file_name(word, n) ? WORD_MISSING : WORD_LONE;
}

/* ---- paths as they are pasted ------------------------------------------------------------ */

/* Text that is kept as long as the program runs: lists of words point to it. */
static const char *text_keep(const char *text, size_t n)
{
    static struct kept {
        struct kept *before;
        char text[];
    } * last;
    struct kept *k = malloc(sizeof *k + n + 1);
    if (!k) {
        print_err("fastvlm: out of memory\n");
        exit(EXIT_FAILED);
    }
    k->before = last;
    memcpy(k->text, text, n);
    k->text[n] = 0;
    last = k;
    return k->text;
}

static bool is_there(const char *path)
{
    struct stat st;
    return *path && stat(path, &st) == 0;
}

/* Blanks, and what comes along unseen when a path is copied: no-break and zero-width spaces, marks
 * of direction. */
static bool is_around(uint32_t code)
{
    return (code && code < 0x80 && strchr(BLANKS, (int)code)) || code == 0xa0 || code == 0xfeff ||
           (code >= 0x200b && code <= 0x200f) || (code >= 0x20 && is_control(code));
}

const char *text_trim(const char *text)
{
    uint32_t code;
    size_t n, length = strlen(text);
    while (length && (n = character_read(text, length, &code)) && is_around(code)) {
        text += n;
        length -= n;
    }
    while (length) {
        size_t at = length - 1;
        while (at && (text[at] & 0xc0) == 0x80)
            at--;
        if (!character_read(text + at, length - at, &code) || !is_around(code))
            break;
        length = at;
    }
    return text_keep(text, length);
}

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *at;
    c = c >= 'A' && c <= 'F' ? (char)(c + 32) : c;
    return c && (at = strchr(digits, c)) ? (int)(at - digits) : -1;
}

/* %20 as a blank; NULL when there is nothing to decode, or no path comes out. */
static const char *percent_decode(const char *text)
{
    const char *decoded = text_keep(text, strlen(text));
    char *to = (char *)decoded;
    bool some = false;
    for (const char *at = text; *at; at++) {
        int high = *at == '%' ? hex_value(at[1]) : -1, low = high < 0 ? -1 : hex_value(at[2]);
        if (low >= 0) {
            *to++ = (char)(high * 16 + low);
            at += 2;
            some = true;
        } else {
            *to++ = *at;
        }
    }
    *to = 0;
    return some && strlen(decoded) == (size_t)(to - decoded) ? decoded : NULL;
}

/* A word without quotes as the path that it means: itself, a file: address, "~/" for the home
 * directory, or with %20 decoded; NULL when none of them is there. */
static const char *path_find(const char *word)
{
    const char *home = getenv("HOME"), *path = word;
    char joined[4096];
    if (is_there(word))
        return word;
    if (word_begins(word, "file:")) {
        path += strlen("file:");
        if (word_begins(path, "//localhost/"))
            path += strlen("//localhost");
        else if (!strncmp(path, "///", 3))
            path += 2;
        else if (*path != '/' || path[1] == '/')
            return NULL;
        if (is_there(path))
            return path;
    } else if (!strncmp(word, "~/", 2) && home &&
               snprintf(joined, sizeof joined, "%s%s", home, word + 1) < (int)sizeof joined) {
        if (is_there(joined))
            return text_keep(joined, strlen(joined));
    }
    path = percent_decode(path);
    return path && is_there(path) ? path : NULL;
}

/* The next word as a shell would read it, without its quotes and backslashes; NULL: there is none,
 * or a quote is left open. */
static const char *word_take(const char **at)
{
    const char *from = *at + strspn(*at, BLANKS);
    const char *word = text_keep(from, strlen(from));
    char *to = (char *)word, quote = 0;
    if (!*from)
        return NULL;
    for (; *from && (quote || !strchr(BLANKS, *from)); from++) {
        if (quote == *from)
            quote = 0;
        else if (!quote && strchr("'\"", *from))
            quote = *from;
        else if (*from == '\\' && from[1] &&
                 (!quote || (quote == '"' && strchr("\\\"$`", from[1]))))
            *to++ = *++from;
        else
            *to++ = *from;
    }
    *to = 0;
    *at = from;
    return quote ? NULL : word;
}

/* The paths that text begins with, as words; what follows them. only: WORD_IMAGE stops at anything
 * else, WORD_TEXT takes all. */
static const char *words_find(const char *text, word_kind only, text_list *out)
{
    const char *rest = text;
    out->n = 0;
    while (rest[strspn(rest, BLANKS)] && out->n < sizeof out->item / sizeof *out->item) {
        const char *at = rest, *word = word_take(&at), *path = word ? path_find(word) : NULL;
        if (!path || (only != WORD_TEXT && file_kind(path) != only))
            break;
        out->item[out->n++] = path;
        rest = at;
    }
    return rest + strspn(rest, BLANKS);
}

bool paths_find(const char *text, text_list *out)
{
    const char *path = path_find(text), *trimmed = text_trim(text);
    size_t n = strlen(trimmed);
    if (!path)
        path = path_find(trimmed);
    /* quotes around, with an apostrophe inside that is not escaped */
    if (!path && n > 2 && strchr("'\"", *trimmed) && trimmed[n - 1] == *trimmed)
        path = path_find(text_keep(trimmed + 1, n - 2));
    *out = (text_list){ .item = { path }, .n = path != NULL };
    return path || (!*words_find(trimmed, WORD_TEXT, out) && out->n > 0);
}

const char *image_name_leading(const char *line)
{
    const char *at = line, *word = word_take(&at);
    return word && at[strspn(at, BLANKS)] && has_ending(word, strlen(word), image_endings) ? word
                                                                                           : NULL;
}

const char *images_leading(const char *line, text_list *out)
{
    const char *rest = words_find(line, WORD_IMAGE, out);
    return out->n ? rest : NULL;
}

/* ---- arguments --------------------------------------------------------------------------- */

word_kind word_classify(const char *word, const char **path)
{
    text_list found;
    *path = word;
    if (!strcmp(word, "-"))
        return WORD_IMAGE;
    word_kind kind = file_kind(word);
    if (kind != WORD_TEXT)
        return kind;
    if (paths_find(word, &found) && found.n == 1) {
        *path = found.item[0];
        return file_kind(*path);
    }
    const char *bare = text_trim(word);
    size_t n = strlen(bare);
    while (n > 1 && strchr("'\"", *bare) && bare[n - 1] == *bare) {
        bare++;
        n -= 2;
    }
    *path = word = text_keep(bare, n);
    return is_address(word) && !word_begins(word, "file:") ? WORD_ADDRESS : missing_kind(word, n);
}

int word_refuse(const char *verb, word_kind kind, const char *word)
{
    const char *what = kind == WORD_ADDRESS ? "is an address; download the image and name the file"
                       : kind == WORD_MISSING ? "no such file"
                       : kind == WORD_NO_MODEL
                           ? "no such file or model (fastvlm pull fetches models)"
                           : "no such file, and no image that it could ask about";
    print_err("fastvlm %s: %s", verb, word);
    if (kind == WORD_OTHER_FILE)
        print_err(" is a file but neither an image nor a model");
    else
        print_err(": %s", what);
    if (strcmp(verb, "run"))
        print_err("\n");
    else if (kind == WORD_OTHER_FILE)
        print_err("; use --image %s or --prompt \"%s\"\n", word, word);
    else
        print_err("; if it is the prompt, use --prompt \"%s\"\n", word);
    return EXIT_USAGE;
}

/* A path that was given by option, as it is pasted; addresses are refused, and what is not there
 * stays as it is. */
static int path_resolve(const char *verb, const char *what, const char **path)
{
    text_list found;
    if (is_there(*path))
        return -1;
    if (is_address(*path) && !word_begins(*path, "file:"))
        return usage_error(verb, "%s is an address; download the %s and name the file", *path,
                           what);
    if (paths_find(*path, &found) && found.n == 1)
        *path = found.item[0];
    return -1;
}

int find_input(const char *verb, const char **path)
{
    struct stat st;
    int code = path_resolve(verb, "file", path);
    if (code < 0 && stat(*path, &st) != 0) {
        print_err("fastvlm: %s: %s\n", *path,
                  errno == ENOENT && lstat(*path, &st) == 0 ? "a link to a file that is not there"
                                                            : strerror(errno));
        return EXIT_FAILED;
    }
    return code;
}

int check_prompt(const char *verb, const char *prompt)
{
    int code = check_text(verb, "the prompt", prompt);
    return code < 0 && prompt && !*text_trim(prompt)
               ? usage_error(verb, "the prompt is blank; expected a question")
               : code;
}

/* Images that were given by option. */
static int images_check(const char *verb, text_list *images)
{
    int code = -1;
    for (size_t i = 0; i < images->n && code < 0; i++)
        if (strcmp(images->item[i], "-") != 0)
            code = path_resolve(verb, "image", &images->item[i]);
    return code;
}

/* A directory of photographs is no model. */
static int model_check(const char *verb, const char *path)
{
    char image[256];
    bool asks = !strcmp(verb, "run") || !strcmp(verb, "chat");
    if (!fv_sniff_images(path, image))
        return -1;
    return usage_error(verb,
                       asks ? "%s is a directory of images, not a model; name one or more of its "
                              "images, such as %s%s%s"
                            : "%s is a directory of images, not a model; expected a checkpoint "
                              "directory or a packed file",
                       path, path, path[strlen(path) - 1] == '/' ? "" : "/", image);
}

static int word_place(const char *verb, const char *word, const char **model, text_list *images,
                      const char **prompt, bool *lone)
{
    const char *path;
    word_kind kind = word_classify(word, &path);
    if (!*text_trim(word))
        return usage_error(verb, "an argument is blank; expected a model, an image or the prompt");
    switch (kind) {
    case WORD_MODEL:
        if (model_check(verb, path) >= 0)
            return EXIT_USAGE;
        if (*model)
            return usage_error(verb, "more than one model: %s and %s%s", *model, path,
                               strcmp(verb, "run") ? "" : "; if one is the prompt, use --prompt");
        *model = path;
        return -1;
    case WORD_IMAGE:
        if (images->n == sizeof images->item / sizeof *images->item)
            return usage_error(verb, "more than %zu images", images->n);
        images->item[images->n++] = path;
        return -1;
    case WORD_LONE:
    case WORD_TEXT:
        if (*prompt)
            return usage_error(verb, "more than one prompt: \"%s\" and \"%s\"; quote the prompt",
                               *prompt, word);
        *prompt = word;
        *lone = kind == WORD_LONE;
        return -1;
    default: return word_refuse(verb, kind, path);
    }
}

int sort_words(const char *verb, const text_list *words, const char **model, text_list *images,
               const char **prompt)
{
    bool lone = false;
    int code = *model ? path_resolve(verb, "model", model) : -1;
    if (code < 0 && *model)
        code = model_check(verb, *model);
    if (code < 0)
        code = images_check(verb, images);
    for (size_t i = 0; i < words->n && code < 0; i++)
        code = word_place(verb, words->item[i], model, images, prompt, &lone);
    bool asks = !strcmp(verb, "run") || !strcmp(verb, "chat"); /* the others say what they expect */
    return code < 0 && asks && lone && !images->n ? word_refuse(verb, WORD_LONE, *prompt) : code;
}
