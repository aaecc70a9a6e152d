/* The stream of an answer's text.
 *
 * It has two stages that each hold something back:
 *
 *     token bytes -> [character being built] -> [possible start of a stop string] -> text
 *
 * Stop strings are matched byte by byte with one Knuth-Morris-Pratt automaton each (Knuth, Morris,
 * Pratt 1977): after every byte state[i] is the length of the longest beginning of stop[i] that the
 * text ends with, so max(state) bytes must wait and nothing is ever scanned twice. */
#include "text/utf8.h"

#include <assert.h>
#include <string.h>

/* ---- stream ---- */

typedef struct stop_string {
    char *text;
    uint32_t *back; /* [n]: back[i] is the state to fall back to from state i + 1 */
    size_t n;
    size_t state; /* bytes of text that the answer ends with now, < n */
} stop_string;

struct fv_stream {
    stop_string *stop;
    size_t n_stop;
    uint8_t pending[4]; /* a character that is not complete */
    size_t n_pending;
    char *text; /* held back from the last call, then what this call adds */
    size_t n_text, capacity;
    size_t n_given; /* beginning of text that the last call gave out */
    size_t max_piece;
    bool stopped;
};

static void build_automaton(stop_string *s)
{
    size_t k = 0;

    s->back[0] = 0;
    for (size_t i = 1; i < s->n; i++) {
        while (k > 0 && s->text[i] != s->text[k])
            k = s->back[k - 1];
        if (s->text[i] == s->text[k])
            k++;
        s->back[i] = (uint32_t)k;
    }
}

fv_status fv_stream_new(fv_stream **out, size_t max_piece_bytes, const char *const *stop,
                        size_t n_stop, fv_error *err)
{
    fv_status status = FV_OK;
    size_t longest = 0, room;

    *out = NULL;
    if (n_stop > 0 && !stop)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "stop strings: n_stop is %zu, but stop is NULL",
                       n_stop);
    if (max_piece_bytes > SIZE_MAX / 16)
        return fv_fail_memory(err, max_piece_bytes, "text stream");
    fv_stream *s = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "text stream");
    s->stop = fv_alloc_zero(n_stop, sizeof *s->stop);
    if (!s->stop) {
        status = fv_fail_memory(err, n_stop * sizeof *s->stop, "stop strings");
        goto fail;
    }
    s->n_stop = n_stop;
    for (size_t i = 0; i < n_stop; i++) {
        stop_string *one = &s->stop[i];
        size_t bad_at;
        if (!stop[i] || !stop[i][0]) {
            status = fv_fail(err, FV_ERR_ARGUMENT, 0, "stop string %zu is empty", i + 1);
            goto fail;
        }
        one->n = strlen(stop[i]);
        if (one->n > UINT32_MAX / 16 || !fv_utf8_valid(stop[i], one->n, &bad_at)) {
            status = fv_fail(err, FV_ERR_ARGUMENT, 0, "stop string %zu is not valid UTF-8", i + 1);
            goto fail;
        }
        one->text = fv_strdup(stop[i]);
        one->back = fv_alloc(one->n, sizeof *one->back);
        if (!one->text || !one->back) {
            status = fv_fail_memory(err, one->n * 5, "stop string");
            goto fail;
        }
        build_automaton(one);
        longest = FV_MAX(longest, one->n);
    }
    /* Held back text, and each new or pending byte as U+FFFD at worst. */
    room = longest + (max_piece_bytes + sizeof s->pending) * 3;
    s->text = fv_alloc(room, 1);
    if (!s->text) {
        status = fv_fail_memory(err, room, "text stream");
        goto fail;
    }
    s->capacity = room;
    s->max_piece = max_piece_bytes;
    *out = s;
    return FV_OK;
fail:
    fv_stream_free(s);
    return status;
}

void fv_stream_free(fv_stream *stream)
{
    if (!stream)
        return;
    for (size_t i = 0; stream->stop && i < stream->n_stop; i++) {
        fv_free(stream->stop[i].text);
        fv_free(stream->stop[i].back);
    }
    fv_free(stream->stop);
    fv_free(stream->text);
    fv_free(stream);
}

void fv_stream_reset(fv_stream *stream)
{
    for (size_t i = 0; i < stream->n_stop; i++)
        stream->stop[i].state = 0;
    stream->n_pending = stream->n_text = stream->n_given = 0;
    stream->stopped = false;
}

/* Appends bytes of text; true, with the stop string cut off, when one is complete. */
static bool put_text(fv_stream *s, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t cut = 0;
        assert(s->n_text < s->capacity);
        s->text[s->n_text++] = (char)bytes[i];
        for (size_t k = 0; k < s->n_stop; k++) {
            stop_string *one = &s->stop[k];
            while (one->state > 0 && one->text[one->state] != (char)bytes[i])
                one->state = one->back[one->state - 1];
            if (one->text[one->state] == (char)bytes[i])
                one->state++;
            if (one->state == one->n)
                cut = FV_MAX(cut, one->n);
        }
        if (cut > 0) {
            s->n_text -= cut;
            s->stopped = true;
            return true;
        }
    }
    return false;
}

/* Takes whole characters from the pending bytes; at the end of the answer a cut one as well. */
static bool take_characters(fv_stream *s, bool last)
{
    static const uint8_t replacement[3] = { 0xef, 0xbf, 0xbd };

    while (s->n_pending > 0) {
        bool complete, truncated;
        size_t n = fv_utf8_step(s->pending, s->n_pending, &complete, &truncated);
        if (truncated && !last)
            return false;
        bool stopped = complete ? put_text(s, s->pending, n) : put_text(s, replacement, 3);
        s->n_pending -= n;
        memmove(s->pending, s->pending + n, s->n_pending);
        if (stopped)
            return true;
    }
    return false;
}

static void drop_given(fv_stream *s)
{
    s->n_text -= s->n_given;
    memmove(s->text, s->text + s->n_given, s->n_text);
    s->n_given = 0;
}

bool fv_stream_push(fv_stream *stream, const char *bytes, size_t n_bytes, const char **text,
                    size_t *n_text)
{
    fv_stream *s = stream;
    size_t hold = 0;

    assert(n_bytes <= s->max_piece);
    drop_given(s);
    for (size_t i = 0; i < n_bytes && !s->stopped; i++) {
        s->pending[s->n_pending++] = (uint8_t)bytes[i];
        take_characters(s, false);
    }
    for (size_t k = 0; k < s->n_stop && !s->stopped; k++)
        hold = FV_MAX(hold, s->stop[k].state);
    s->n_given = s->n_text - hold;
    *text = s->text;
    *n_text = s->n_given;
    return s->stopped;
}

bool fv_stream_finish(fv_stream *stream, const char **text, size_t *n_text)
{
    fv_stream *s = stream;

    drop_given(s);
    if (!s->stopped)
        take_characters(s, true);
    s->n_given = s->n_text;
    *text = s->text;
    *n_text = s->n_text;
    return s->stopped;
}
