/* Rows of a batch. See row.h. */
#include "batch/row.h"

#include <stdio.h>
#include <string.h>

#include "base/list.h"
#include "base/number.h"
#include "base/utf8_text.h"
#include "batch/openai_row.h"
#include "io/json.h"
#include "openai/request.h"

#define MARK "<image>"

/* ---- a row ------------------------------------------------------------------------------- */

static void row_part_free(fv_row_part *part)
{
    fv_free(part->text);
    fv_free(part->data);
}

void fv_row_drop_parts(fv_row *row)
{
    for (size_t i = 0; i < row->n_parts; i++)
        row_part_free(&row->parts[i]);
    fv_free(row->parts);
    row->parts = NULL;
    row->n_parts = row->capacity = 0;
    if (row->request)
        fv_request_free(row->request);
    fv_free(row->request);
    row->request = NULL;
}

void fv_row_free(fv_row *row)
{
    fv_row_drop_parts(row);
    fv_free(row->id);
    fv_free(row->image);
    fv_free(row->model);
    fv_free(row->problem);
    *row = (fv_row){ 0 };
}

/* n bytes with a NUL behind them; NULL when memory is out. */
static char *row_text(const char *text, size_t n)
{
    char *copy = fv_alloc(n + 1, 1);
    if (copy && n)
        memcpy(copy, text, n);
    if (copy)
        copy[n] = 0;
    return copy;
}

fv_status fv_row_add(fv_row *row, fv_row_part_kind kind, const char *text, size_t n, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(row->parts, row->n_parts, row->capacity, 1, err));
    fv_row_part part = { .kind = kind, .text = row_text(text, n), .n = n };
    if (!part.text)
        return fv_fail_memory(err, n, "a row");
    row->parts[row->n_parts++] = part;
    return FV_OK;
}

fv_status fv_row_fail(fv_row *row, fv_error *err)
{
    if (err->status == FV_ERR_MEMORY)
        return err->status;
    fv_row_drop_parts(row);
    fv_free(row->problem);
    row->status = err->status;
    row->problem = fv_strdup(err->message);
    return row->problem ? FV_OK : fv_fail_memory(err, sizeof err->message, "a row");
}

fv_status fv_row_name(char **name, const char *id, const char *image, fv_error *err)
{
    const char *slash = image && !id ? strrchr(image, '/') : NULL;
    const char *text = id ? id : slash ? slash + 1 : image;
    const char *dot = text && !id ? strrchr(text, '.') : NULL;
    *name = NULL;
    if (!text)
        return FV_OK;
    while (id && !strncmp(text, "./", 2)) /* as tar names what is in the working directory */
        text += 2;
    *name = row_text(text, dot && dot > text ? (size_t)(dot - text) : strlen(text));
    return *name ? FV_OK : fv_fail_memory(err, strlen(text), "a name");
}

/* The file of another row may have that name. */
static bool part_is_file(const char *part, size_t n)
{
    static const char *const endings[] = { ".txt", ".json", ".jsonl" };
    char end[8];
    for (size_t i = 0; i < FV_COUNT(endings); i++) {
        size_t n_ending = strlen(endings[i]);
        snprintf(end, sizeof end, "%.*s", (int)n_ending, n >= n_ending ? part + n - n_ending : "");
        if (fv_ascii_same(end, endings[i]))
            return true;
    }
    return false;
}

bool fv_row_name_is_safe(const char *name)
{
    enum { MOST_BYTES = 200, MOST_PARTS = 16 };
    size_t n_parts = 0;
    for (const char *part = name;; part++) {
        size_t n = strcspn(part, "/");
        if (!n || *part == '.' || n > MOST_BYTES || ++n_parts > MOST_PARTS)
            return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)part[i] < 0x20 || part[i] == 0x7f)
                return false;
        if (part[n] == '/' && part_is_file(part, n))
            return false;
        part += n;
        if (!*part)
            return true;
    }
}

bool fv_row_name_is_key(const char *name)
{
    const char *slash = strrchr(name, '/');
    return fv_row_name_is_safe(name) && !strchr(slash ? slash : name, '.') &&
           strncmp(name, "__", 2) != 0; /* as which readers of samples skip members */
}

/* ---- the prompt -------------------------------------------------------------------------- */

static const char *mark_find(const char *text, const char *end)
{
    const size_t n = strlen(MARK);
    for (; (size_t)(end - text) >= n; text++)
        if (!memcmp(text, MARK, n))
            return text;
    return NULL;
}

static size_t marks_count(const char *text, const char *end)
{
    size_t n = 0;
    for (; (text = mark_find(text, end)); text += strlen(MARK))
        n++;
    return n;
}

/* The images at `first` to their places between the words. */
static fv_status row_place_images(fv_row *row, size_t first, const char *at, const char *end,
                                  fv_error *err)
{
    size_t n_images = row->n_parts - first, next = 0;
    fv_row_part images[FV_ROW_MAX_IMAGES];
    fv_status status = FV_OK;
    memcpy(images, row->parts + first, n_images * sizeof *images);
    row->n_parts = first;
    for (bool words = false; status == FV_OK;) {
        const char *mark = mark_find(at, end), *to = mark ? mark : end;
        if (to > at) {
            status = fv_row_add(row, FV_ROW_TEXT, at, (size_t)(to - at), err);
            words = true;
        }
        if (!mark || status != FV_OK)
            break;
        row->parts[row->n_parts++] = images[next++]; /* there was room for all of them */
        at = mark + strlen(MARK);
        if (!words && at < end && *at == '\n') /* the library adds this newline */
            at++;
    }
    while (next < n_images && status != FV_OK)
        row_part_free(&images[next++]);
    return status;
}

bool fv_prompt_is_blank(const char *prompt, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!prompt[i] || !strchr(" \t\r\n\v\f", prompt[i]))
            return false;
    return true;
}

fv_status fv_row_add_prompt(fv_row *row, size_t first, const char *prompt, size_t n, fv_error *err)
{
    size_t n_images = row->n_parts - first, n_marks = marks_count(prompt, prompt + n), bad;
    if (!fv_utf8_valid(prompt, n, &bad) || memchr(prompt, 0, n))
        return fv_fail(err, FV_ERR_FORMAT, 0, "the prompt is not text");
    if (fv_prompt_is_blank(prompt, n))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "the prompt is blank; expected a question");
    if (!n_marks)
        return fv_row_add(row, FV_ROW_TEXT, prompt, n, err);
    if (n_marks != n_images)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "the prompt has %zu \"" MARK "\" mark%s for %zu image%s", n_marks,
                       n_marks == 1 ? "" : "s", n_images, n_images == 1 ? "" : "s");
    /* room for the words before and between them, and for the images again */
    FV_TRY(FV_LIST_ROOM(row->parts, row->n_parts, row->capacity, n_images + 1, err));
    return row_place_images(row, first, prompt, prompt + n, err);
}

/* ---- images ------------------------------------------------------------------------------ */

static fv_status row_add_image(fv_row *row, const char *path, const fv_row_defaults *d,
                               fv_error *err)
{
    size_t n = strlen(path), n_images = 0;
    for (size_t i = 0; i < row->n_parts; i++)
        n_images += row->parts[i].kind == FV_ROW_IMAGE;
    if (n_images == FV_ROW_MAX_IMAGES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "more than %d images", FV_ROW_MAX_IMAGES);
    if (!n)
        return fv_fail(err, FV_ERR_FORMAT, 0, "the name of the image is empty");
    if (n > FV_ROW_MAX_PATH)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "the name of the image has %zu bytes; expected up to %d", n,
                       FV_ROW_MAX_PATH);
    if (!row->image && !(row->image = fv_strdup(path)))
        return fv_fail_memory(err, n, "a path");
    if (!d->root || *path == '/')
        return fv_row_add(row, FV_ROW_IMAGE, path, n, err);
    char *joined = fv_path_join(d->root, path);
    if (!joined)
        return fv_fail_memory(err, n, "a path");
    fv_status status = fv_row_add(row, FV_ROW_IMAGE, joined, strlen(joined), err);
    fv_free(joined);
    return status;
}

fv_status fv_row_of_image(fv_row *row, const char *path, const fv_row_defaults *d, fv_error *err)
{
    const fv_row_defaults here = { 0 };
    fv_error own = { 0 };
    if (row_add_image(row, path, &here, &own) != FV_OK) {
        if (fv_row_fail(row, &own) == FV_OK)
            return FV_OK;
        if (err)
            *err = own;
        return own.status;
    }
    return fv_row_add_prompt(row, 0, d->prompt, d->n_prompt, err);
}

/* ---- a line ------------------------------------------------------------------------------ */

/* "image": a path; or an array of them. */
static fv_status row_read_images(fv_row *row, const fv_json *doc, const fv_json_value *object,
                                 const fv_row_defaults *d, fv_error *err)
{
    const fv_json_value *image = fv_json_member(object, "image");
    const char *path;
    if (fv_json_type_of(image) == FV_JSON_NULL)
        return FV_OK;
    if (fv_json_type_of(image) != FV_JSON_ARRAY) {
        FV_TRY(fv_json_string(doc, object, "image", &path, err));
        return row_add_image(row, path, d, err);
    }
    for (size_t i = 0; i < fv_json_count(image); i++) {
        if (!fv_json_as_string(fv_json_at(image, i), &path))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: image[%zu]: expected a string, found %s",
                           fv_json_name(doc), i, fv_json_type_name(fv_json_at(image, i)));
        FV_TRY(row_add_image(row, path, d, err));
    }
    return FV_OK;
}

/* "id": text, or a whole number. */
static fv_status row_read_id(fv_row *row, const fv_json *doc, const fv_json_value *object,
                             fv_error *err)
{
    const char *text = NULL;
    char number[24];
    int64_t value;
    if (fv_json_as_int(fv_json_member(object, "id"), &value)) {
        snprintf(number, sizeof number, "%" PRId64, value);
        text = number;
    } else {
        FV_TRY(fv_json_opt_string(doc, object, "id", &text, err));
    }
    if (text && !(row->id = fv_strdup(text)))
        return fv_fail_memory(err, strlen(text), "a row");
    return FV_OK;
}

static fv_status row_read_json(fv_row *row, const fv_json *doc, const fv_row_defaults *d,
                               fv_error *err)
{
    const fv_json_value *root = fv_json_root(doc);
    const char *prompt = NULL;
    FV_TRY(row_read_id(row, doc, root, err));
    FV_TRY(row_read_images(row, doc, root, d, err));
    FV_TRY(fv_json_opt_string(doc, root, "prompt", &prompt, err));
    if (!row->n_parts && !prompt)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: neither \"image\" nor \"prompt\"; expected one of them or both",
                       fv_json_name(doc));
    return prompt ? fv_row_add_prompt(row, 0, prompt, strlen(prompt), err)
                  : fv_row_add_prompt(row, 0, d->prompt, d->n_prompt, err);
}

static bool line_is_json(const char *line, size_t n)
{
    size_t at = 0;
    while (at < n && (line[at] == ' ' || line[at] == '\t'))
        at++;
    return at < n && line[at] == '{';
}

static fv_status row_read_any(fv_row *row, const char *line, size_t n, const fv_row_defaults *d,
                              fv_error *err)
{
    char name[32];
    fv_json *doc;
    if (!line_is_json(line, n)) {
        char *path = row_text(line, n);
        if (!path)
            return fv_fail_memory(err, n, "a path");
        fv_status status = strlen(path) == n
                               ? row_add_image(row, path, d, err)
                               : fv_fail(err, FV_ERR_FORMAT, strlen(path),
                                         "a NUL byte in the line; expected the path of an image");
        fv_free(path);
        FV_TRY(status);
        return fv_row_add_prompt(row, 0, d->prompt, d->n_prompt, err);
    }
    snprintf(name, sizeof name, "row %" PRIu64, row->index);
    FV_TRY(fv_json_parse_up_to(&doc, line, n, FV_REQUEST_MAX_VALUES, name, err));
    if (fv_openai_row_is(fv_json_root(doc)))
        return fv_openai_row_read(row, doc, d, err);
    fv_status status = row_read_json(row, doc, d, err);
    fv_json_free(doc);
    return status;
}

fv_status fv_row_read_line(fv_row *row, const char *line, size_t n_bytes, const fv_row_defaults *d,
                           fv_error *err)
{
    fv_error own = { 0 };
    if (row_read_any(row, line, n_bytes, d, &own) == FV_OK || fv_row_fail(row, &own) == FV_OK)
        return FV_OK;
    if (err)
        *err = own;
    return own.status;
}
