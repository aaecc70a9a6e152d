/* A wanted and a given answer -> right or wrong. See score.h.
 *
 * The same verdicts as tools/train/score.py, whose text is Unicode: lower-casing, spaces, digits
 * and word boundaries are Python's. One exception: a capital sigma at the end of a word gives
 * sigma, not final sigma. */
#include "eval/score.h"

#include <string.h>
#include <utf8proc.h>

typedef struct letters {
    int32_t *at;
    size_t n;
} letters;

enum { N_COLORS = 11, N_SHAPES = 10 };

static const char *const colors[N_COLORS] = { "red",  "orange", "yellow", "green", "blue", "purple",
                                              "pink", "brown",  "black",  "white", "gray" };
static const char *const shapes[N_SHAPES] = {
    "circle", "square", "triangle", "rectangle", "star",
    "heart",  "cross",  "hexagon",  "moon",      "arrow"
};

/* ---- text ---- */

static fv_status read_lower(letters *out, const char *text, fv_error *err)
{
    size_t n = strlen(text), at = 0;
    out->at = fv_alloc(2 * n + 1, sizeof *out->at);
    if (!out->at)
        return fv_fail_memory(err, 2 * n * sizeof *out->at, "an answer");
    while (at < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                 (utf8proc_ssize_t)(n - at), &c);
        if (step <= 0)
            return fv_fail(err, FV_ERR_FORMAT, at, "an answer is not valid UTF-8 at byte %zu", at);
        at += (size_t)step;
        if (c == 0x130) { /* the one letter whose lower case is two: i and a dot above */
            out->at[out->n++] = 'i';
            out->at[out->n++] = 0x307;
        } else {
            out->at[out->n++] = utf8proc_tolower(c);
        }
    }
    return FV_OK;
}

static bool is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool is_digit(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }

/* Letters, numbers and the underscore. */
static bool is_word(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

static bool starts_word(const letters *t, size_t at) { return at == 0 || !is_word(t->at[at - 1]); }
static bool ends_word(const letters *t, size_t at) { return at == t->n || !is_word(t->at[at]); }

/* The length of text when it stands at `at`, else 0. */
static size_t match(const letters *t, size_t at, const char *text)
{
    size_t n = strlen(text);
    if (n > t->n - at)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (t->at[at + i] != text[i])
            return 0;
    return n;
}

static bool same(const int32_t *a, size_t n, const int32_t *b, size_t m)
{
    return n == m && !memcmp(a, b, n * sizeof *a);
}

/* ---- the same words ---- */

/* One space between words, none outside, no full stop at the end. */
static void normalise(letters *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (!is_space(t->at[i]))
            t->at[n++] = t->at[i];
        else if (n && t->at[n - 1] != ' ')
            t->at[n++] = ' ';
    }
    n -= n && t->at[n - 1] == ' ';
    if (n && t->at[n - 1] == '.') {
        n--;
        n -= n && t->at[n - 1] == ' ';
    }
    t->n = n;
}

/* ---- the same facts ---- */

typedef struct facts {
    size_t shown[N_COLORS][N_SHAPES]; /* "red circle" */
    letters plain;                    /* the text with "" for every quotation */
    letters quotes; /* lengths and letters of the quotations, one after the other */
    size_t n_quotes;
    letters counts; /* the same of the numbers before " shapes", in order */
    bool empty;
} facts;

static void score_keep(letters *list, const int32_t *from, size_t n)
{
    list->at[list->n++] = (int32_t)n;
    memcpy(list->at + list->n, from, n * sizeof *from);
    list->n += n;
}

/* A quotation goes from a quotation mark to the next; an odd one is left over. */
static void take_quotes(facts *f, const letters *t)
{
    for (size_t i = 0; i < t->n; i++) {
        f->plain.at[f->plain.n++] = t->at[i];
        if (t->at[i] != '"')
            continue;
        size_t end = i + 1;
        while (end < t->n && t->at[end] != '"')
            end++;
        if (end == t->n)
            continue;
        score_keep(&f->quotes, t->at + i + 1, end - i - 1);
        f->n_quotes++;
        f->plain.at[f->plain.n++] = '"';
        i = end;
    }
}

/* The length of "COLOUR SHAPE" as whole words at `at`, else 0. */
static size_t take_shape(facts *f, size_t at)
{
    const letters *t = &f->plain;
    for (size_t c = 0; c < N_COLORS; c++) {
        size_t n = match(t, at, colors[c]);
        if (!n || at + n == t->n || t->at[at + n] != ' ')
            continue;
        for (size_t s = 0; s < N_SHAPES; s++) {
            size_t m = match(t, at + n + 1, shapes[s]);
            if (m && ends_word(t, at + n + 1 + m)) {
                f->shown[c][s]++;
                return n + 1 + m;
            }
        }
    }
    return 0;
}

static size_t take_count(facts *f, size_t at)
{
    const letters *t = &f->plain;
    size_t end = at;
    while (end < t->n && is_digit(t->at[end]))
        end++;
    size_t n = end > at ? match(t, end, " shapes") : 0;
    if (n)
        score_keep(&f->counts, t->at + at, end - at);
    return n ? end + n - at : 0;
}

static fv_status find_facts(facts *f, const letters *t, fv_error *err)
{
    letters *lists[] = { &f->plain, &f->quotes, &f->counts };
    for (size_t i = 0; i < FV_COUNT(lists); i++) {
        lists[i]->at = fv_alloc(2 * t->n + 2, sizeof *lists[i]->at);
        if (!lists[i]->at)
            return fv_fail_memory(err, 2 * t->n * sizeof *t->at, "an answer");
    }
    take_quotes(f, t);
    for (size_t i = 0, n; i < f->plain.n; i += n ? n : 1)
        n = starts_word(&f->plain, i) ? take_shape(f, i) : 0;
    for (size_t i = 0, n; i < f->plain.n; i += n ? n : 1)
        n = starts_word(&f->plain, i) ? take_count(f, i) : 0;
    for (size_t i = 0; i < f->plain.n && !f->empty; i++)
        f->empty = match(&f->plain, i, "empty") > 0;
    return FV_OK;
}

static size_t times_quoted(const facts *f, const int32_t *quote, size_t n)
{
    size_t times = 0;
    for (size_t i = 0; i < f->quotes.n; i += 1 + (size_t)f->quotes.at[i])
        times += same(f->quotes.at + i + 1, (size_t)f->quotes.at[i], quote, n);
    return times;
}

static bool same_facts(const facts *a, const facts *b)
{
    if (memcmp(a->shown, b->shown, sizeof a->shown) || a->empty != b->empty ||
        a->n_quotes != b->n_quotes || !same(a->counts.at, a->counts.n, b->counts.at, b->counts.n))
        return false;
    for (size_t i = 0; i < a->quotes.n; i += 1 + (size_t)a->quotes.at[i]) {
        const int32_t *quote = a->quotes.at + i + 1;
        size_t n = (size_t)a->quotes.at[i];
        if (times_quoted(a, quote, n) != times_quoted(b, quote, n))
            return false;
    }
    return true;
}

static void free_facts(facts *f)
{
    fv_free(f->plain.at);
    fv_free(f->quotes.at);
    fv_free(f->counts.at);
}

fv_status fv_score_answer(bool *correct, const char *kind, const char *wanted, const char *answer,
                          fv_error *err)
{
    letters want = { 0 }, got = { 0 };
    facts in_want = { 0 }, in_got = { 0 };
    fv_status status;
    *correct = false;
    FV_TRY_GOTO(read_lower(&want, wanted, err));
    FV_TRY_GOTO(read_lower(&got, answer, err));
    if (!strcmp(kind, "describe")) {
        FV_TRY_GOTO(find_facts(&in_want, &want, err));
        FV_TRY_GOTO(find_facts(&in_got, &got, err));
        *correct = same_facts(&in_want, &in_got);
    } else {
        normalise(&want);
        normalise(&got);
        *correct = same(want.at, want.n, got.at, got.n);
    }
fail:
    free_facts(&in_want);
    free_facts(&in_got);
    fv_free(want.at);
    fv_free(got.at);
    return status;
}
