/* The conversation template as text, and text with picture marks as ids. */
#include "text/template.h"

#include <string.h>

#include "text/utf8.h"

static const char mark[] = FV_IMAGE_TEXT;
enum { MARK_BYTES = sizeof mark - 1 };

/* The next mark in text[at, n_bytes), or n_bytes. */
static size_t find_mark(const char *text, size_t n_bytes, size_t at)
{
    while (at < n_bytes) {
        const char *open = memchr(text + at, mark[0], n_bytes - at);
        if (!open)
            return n_bytes;
        at = (size_t)(open - text);
        if (n_bytes - at >= MARK_BYTES && memcmp(open, mark, MARK_BYTES) == 0)
            return at;
        at++;
    }
    return n_bytes;
}

size_t fv_template_count_marks(const char *text, size_t n_bytes)
{
    size_t n = 0;

    for (size_t at = find_mark(text, n_bytes, 0); at < n_bytes;
         at = find_mark(text, n_bytes, at + MARK_BYTES))
        n++;
    return n;
}

fv_status fv_template_encode(fv_ids *ids, const fv_tokenizer *t, const char *text, size_t n_bytes,
                             size_t *n_marks, fv_error *err)
{
    fv_status status = FV_OK;
    size_t n_before = ids->n, at = 0, n = 0, bad_at;

    /* All of it first, so that the offset is that of the whole text. */
    if (!fv_utf8_valid(text, n_bytes, &bad_at))
        return fv_fail(err, FV_ERR_FORMAT, bad_at,
                       "the text is not valid UTF-8: byte 0x%02x at offset %zu",
                       (unsigned)(uint8_t)text[bad_at], bad_at);
    for (;;) {
        size_t end = find_mark(text, n_bytes, at);
        FV_TRY_GOTO(fv_tokenizer_encode(t, text + at, end - at, ids, err));
        if (end == n_bytes)
            break;
        FV_TRY_GOTO(fv_ids_push(ids, FV_IMAGE_MARK, err));
        n++;
        at = end + MARK_BYTES;
    }
    if (n_marks)
        *n_marks = n;
    return FV_OK;
fail:
    ids->n = n_before;
    return status;
}

/* ---- a turn ---- */

static char *put(char *to, const char *text, size_t n)
{
    if (n > 0)
        memcpy(to, text, n);
    return to + n;
}

static char *put_string(char *to, const char *text) { return put(to, text, strlen(text)); }

fv_status fv_template_turn(fv_ids *ids, const fv_tokenizer *t, const fv_turn *turn, fv_error *err)
{
    const char *system = turn->system ? turn->system : FV_DEFAULT_SYSTEM;
    size_t n_system = turn->start == FV_TURN_FIRST ? strlen(system) : 0, bad_at;
    size_t n_marks = fv_template_count_marks(turn->user, turn->n_user_bytes);

    /* Here and not only when encoding, so that the offset is that of the caller's text. */
    if (!fv_utf8_valid(turn->user, turn->n_user_bytes, &bad_at))
        return fv_fail(err, FV_ERR_FORMAT, bad_at,
                       "the prompt is not valid UTF-8: byte 0x%02x at offset %zu",
                       (unsigned)(uint8_t)turn->user[bad_at], bad_at);
    if (!fv_utf8_valid(system, n_system, &bad_at))
        return fv_fail(err, FV_ERR_FORMAT, bad_at,
                       "the system text is not valid UTF-8: byte 0x%02x at offset %zu",
                       (unsigned)(uint8_t)system[bad_at], bad_at);
    if (fv_template_count_marks(system, n_system) > 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "the system text holds \"" FV_IMAGE_TEXT
                       "\": pictures belong to user turns");
    if (n_marks > 0 && n_marks != turn->n_images)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "the prompt has %zu \"" FV_IMAGE_TEXT "\" mark%s for %zu picture%s", n_marks,
                       n_marks == 1 ? "" : "s", turn->n_images, turn->n_images == 1 ? "" : "s");

    size_t n_front = n_marks == 0 ? turn->n_images : 0;
    if (n_front > 1u << 20 || turn->n_user_bytes > SIZE_MAX / 4 || n_system > SIZE_MAX / 4)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%zu pictures and %zu bytes of text are too many",
                       turn->n_images, turn->n_user_bytes);
    size_t room = 128 + n_system + n_front * (MARK_BYTES + 1) + turn->n_user_bytes;
    char *text = fv_alloc(room, 1), *to = text;
    if (!text)
        return fv_fail_memory(err, room, "prompt");

    switch (turn->start) {
    case FV_TURN_FIRST:
        to = put_string(to, "<|im_start|>system\n");
        to = put(to, system, n_system);
        to = put_string(to, "<|im_end|>\n");
        break;
    case FV_TURN_AFTER_CUT:
        to = put_string(to, "<|im_end|>");
        /* fall through */
    case FV_TURN_AFTER_END: to = put_string(to, "\n"); break;
    }
    to = put_string(to, "<|im_start|>user\n");
    /* several pictures: one mark and newline each, in order, as LLaVA writes them */
    for (size_t i = 0; i < n_front; i++)
        to = put_string(to, FV_IMAGE_TEXT "\n");
    to = put(to, turn->user, turn->n_user_bytes);
    to = put_string(to, "<|im_end|>\n<|im_start|>assistant\n");

    fv_status status = fv_template_encode(ids, t, text, (size_t)(to - text), NULL, err);
    fv_free(text);
    return status;
}
