/* The output of genie-t2t-run. See genie_answer.h. */
#include "qairt/genie_answer.h"

#include <string.h>

#include "base/list.h"

#define BEGIN_MARK "[BEGIN]: "
#define END_MARK   "[END]"

enum { END_BYTES = sizeof END_MARK - 1 };

fv_status fv_genie_answer_add(fv_genie_answer *a, const char *data, size_t n, fv_error *err)
{
    if (n > FV_GENIE_MAX_OUTPUT - a->n)
        return fv_fail(err, FV_ERR_LIMIT, 0, "genie-t2t-run: printed more than %d bytes",
                       FV_GENIE_MAX_OUTPUT);
    FV_TRY(FV_LIST_ROOM(a->output, a->n, a->capacity, n + 1, err));
    memcpy(a->output + a->n, data, n);
    a->n += n;
    a->output[a->n] = 0;
    return FV_OK;
}

/* A NUL in the output must not hide what follows it. */
static const char *answer_find(const char *in, size_t n, const char *what)
{
    return n ? memmem(in, n, what, strlen(what)) : NULL;
}

/* The last END_MARK in it. */
static const char *answer_find_last(const char *in, size_t n)
{
    for (size_t at = n; at >= END_BYTES; at--)
        if (!memcmp(in + at - END_BYTES, END_MARK, END_BYTES))
            return in + at - END_BYTES;
    return NULL;
}

/* Behind the first BEGIN_MARK; NULL: not there yet. */
static const char *answer_begin(const fv_genie_answer *a, size_t *n)
{
    const char *at = answer_find(a->output, a->n, BEGIN_MARK);
    if (!at)
        return NULL;
    at += strlen(BEGIN_MARK);
    *n = a->n - (size_t)(at - a->output);
    return at;
}

/* Bytes at the end that may be the beginning of END_MARK. */
static size_t answer_held_mark(const char *text, size_t n)
{
    for (size_t k = FV_MIN(n, (size_t)END_BYTES - 1); k > 0; k--)
        if (!memcmp(text + n - k, END_MARK, k))
            return k;
    return 0;
}

/* Bytes at the end that begin a UTF-8 character which is not complete. */
static size_t answer_held_character(const char *text, size_t n)
{
    for (size_t k = 1; k <= FV_MIN(n, (size_t)3); k++) {
        unsigned char c = (unsigned char)text[n - k];
        if ((c & 0xc0) == 0x80)
            continue;
        size_t whole = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return whole > k ? k : 0;
    }
    return 0;
}

bool fv_genie_answer_next(fv_genie_answer *a, const char **text, size_t *n_bytes)
{
    size_t n;
    const char *begin = answer_begin(a, &n), *end = begin ? answer_find_last(begin, n) : NULL;
    if (!begin)
        return false;
    if (end)
        n = (size_t)(end - begin);
    else {
        n -= answer_held_mark(begin, n);
        n -= answer_held_character(begin, n);
    }
    if (n <= a->shown)
        return false;
    *text = begin + a->shown;
    *n_bytes = n - a->shown;
    a->shown = n;
    return true;
}

fv_status fv_genie_answer_end(fv_genie_answer *a, const char **text, size_t *n_bytes, fv_error *err)
{
    size_t n;
    const char *begin = answer_begin(a, &n), *end;
    *text = "";
    *n_bytes = 0;
    if (!begin && answer_find(a->output, a->n, END_MARK))
        return FV_OK; /* the first token was the end */
    if (!begin)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "genie-t2t-run: printed no answer; expected " BEGIN_MARK "... " END_MARK);
    *text = begin;
    *n_bytes = n;
    if (!(end = answer_find_last(begin, n)))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "genie-t2t-run: the answer has no end; expected " END_MARK);
    *n_bytes = (size_t)(end - begin);
    return FV_OK;
}

void fv_genie_answer_free(fv_genie_answer *a)
{
    fv_free(a->output);
    *a = (fv_genie_answer){ 0 };
}
