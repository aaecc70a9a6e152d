/* batch: a token for each of several sessions, the decoder's weights read once for all.
 *
 *     prompts      of sessions whose turn was just written, together: fv_decoder_run_prompts
 *     step         every pending token through the layers together: fv_decoder_step
 *     choice       per session, as fv_session_next does it
 *
 * Prompts that begin alike do not compute the beginning twice: one goes first and gives its rows of
 * the cache to the others, whose rest follows together. Prompts and the step use the buffers and
 * threads of the first session that takes part in them. */
#include <math.h>

#include "base/sized.h"
#include "engine/session.h"

enum {
    /* A pass over the weights takes as long as so many rows in it: 45 ms for 2, 364 for 280, of the
     * 0.5B in 8 bits on two cores with AMX. */
    PASS_ROWS = 40,
    FEW_ROWS = 4 /* of a decoder's buffers, enough for any prompt */
};

static fv_piece *piece_at(fv_piece *pieces, size_t i)
{
    return (fv_piece *)(void *)((char *)pieces + i * pieces->size); /* the caller's sizeof */
}

static fv_status batch_check(fv_session *const *sessions, size_t n, const fv_piece *pieces,
                             fv_error *err)
{
    if (n == 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n is 0; expected 1 session or more");
    FV_REQUIRE(sessions, err);
    FV_REQUIRE(pieces, err);
    for (size_t i = 0; i < n; i++) {
        if (!sessions[i])
            return fv_fail(err, FV_ERR_ARGUMENT, i, "sessions[%zu] is NULL", i);
        if (sessions[i]->engine != sessions[0]->engine)
            return fv_fail(err, FV_ERR_ARGUMENT, i,
                           "sessions[%zu] has another engine than sessions[0]", i);
    }
    FV_TRY(FV_RESULT_CHECK(pieces, fv_piece, err));
    for (size_t i = 1; i < n; i++)
        if (piece_at((fv_piece *)pieces, i)->size != pieces->size)
            return fv_fail(err, FV_ERR_ARGUMENT, i,
                           "pieces[%zu].size is %zu, pieces[0].size %zu; expected sizeof(fv_piece) "
                           "in each",
                           i, piece_at((fv_piece *)pieces, i)->size, pieces->size);
    return FV_OK;
}

static void batch_leave(fv_session *const *sessions, size_t n)
{
    for (size_t i = 0; i < n; i++)
        atomic_store(&sessions[i]->busy, false);
}

/* Marks all sessions busy, or none. */
static fv_status batch_enter(fv_session *const *sessions, size_t n, fv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!atomic_exchange(&sessions[i]->busy, true))
            continue;
        size_t first = 0;
        while (sessions[first] != sessions[i])
            first++;
        batch_leave(sessions, i);
        if (first < i)
            return fv_fail(err, FV_ERR_ARGUMENT, i,
                           "sessions[%zu] and sessions[%zu] are the same session", first, i);
        return fv_fail(err, FV_ERR_STATE, i, "sessions[%zu] is in a call already", i);
    }
    return FV_OK;
}

/* The first failure among the sessions is the call's, should all of them fail. */
static void batch_note(fv_session *s, fv_status status, fv_status *first, const fv_error *own,
                       fv_error *err)
{
    s->step_status = status;
    if (status == FV_OK || *first != FV_OK)
        return;
    *first = status;
    if (err)
        *err = *own;
}

static void batch_begin(fv_session *const *sessions, size_t n, fv_status *first, fv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        fv_error own;
        batch_note(sessions[i], fv_session_next_begin(sessions[i], &own), first, &own, err);
    }
}

/* Sessions whose rows do not go through the engine's decoder. */
static void batch_step_others(fv_session *const *sessions, size_t n, fv_status *first,
                              fv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        fv_session *s = sessions[i];
        fv_error own;
        if (s->other && s->step_status == FV_OK && s->step != FV_STEP_END)
            batch_note(s, fv_session_next_step(s, &own), first, &own, err);
    }
}

/* ---- prompts ---- */

static bool batch_prompts(const fv_session *s)
{
    return s->step_status == FV_OK && s->step == FV_STEP_PROMPT && !s->other;
}

/* Of the prompts before it that wait for nobody, the one that begins most like that of s. Rows that
 * are there already are taken at once. */
static void batch_find_giver(fv_session *s, fv_session *const *before, size_t n)
{
    fv_place held = fv_content_end(&s->held), given = held;
    const fv_session *giver = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!batch_prompts(before[i]) || before[i]->giver)
            continue;
        fv_place shared = fv_session_shared(s, before[i]);
        if (shared.n_rows > given.n_rows) {
            given = shared;
            giver = before[i];
        }
    }
    if (giver && given.n_rows <= giver->held.n_rows) {
        fv_session_share(s, giver, given);
    } else if (giver) {
        s->giver = giver;
        s->given = given;
    }
}

/* Room for as many rows as there are; with less they go in more stretches. */
static fv_status batch_reserve(fv_session *lead, size_t rows, fv_error *err)
{
    fv_status status = fv_decoder_reserve(&lead->decoder, &lead->ops, rows, err);
    if (status != FV_OK && lead->decoder.rows < FEW_ROWS)
        status = fv_decoder_reserve(&lead->decoder, &lead->ops, FEW_ROWS, err);
    return lead->decoder.rows >= FV_MIN(rows, (size_t)FEW_ROWS) ? FV_OK : status;
}

/* The prompts that wait for another's rows, or those that do not, through the decoder together. */
static void batch_run_prompts(fv_session *const *sessions, size_t n, bool waiting, fv_status *first,
                              fv_error *err)
{
    fv_session *lead = NULL;
    fv_decoder_prompt *list = NULL, **end = &list;
    size_t rows = 0;
    fv_error own;
    for (size_t i = 0; i < n; i++) {
        fv_session *s = sessions[i];
        if (!batch_prompts(s) || (s->giver != NULL) != waiting)
            continue;
        if (s->giver && s->giver->step_status == FV_OK)
            fv_session_share(s, s->giver, s->given);
        fv_status status = fv_session_prompt(s, &s->prompt, &own);
        if (status != FV_OK) {
            fv_session_next_fail(s);
            batch_note(s, status, first, &own, err);
            continue;
        }
        lead = lead ? lead : s;
        rows += s->prompt.n;
        *end = &s->prompt;
        end = &s->prompt.next;
    }
    if (!lead)
        return;
    fv_status status = batch_reserve(lead, rows, &own);
    if (status == FV_OK)
        fv_decoder_run_prompts(&lead->decoder, &lead->ops, list);
    for (size_t i = 0; i < n; i++) {
        fv_session *s = sessions[i];
        if (!batch_prompts(s) || (s->giver != NULL) != waiting)
            continue;
        fv_status of = status != FV_OK ? status : s->prompt.status;
        if (of != FV_OK)
            fv_session_next_fail(s);
        batch_note(s, of, first, status != FV_OK ? &own : &s->prompt.err, err);
    }
}

static void batch_run_all_prompts(fv_session *const *sessions, size_t n, fv_status *first,
                                  fv_error *err)
{
    size_t n_given = 0;
    for (size_t i = 0; i < n; i++) {
        fv_session *s = sessions[i];
        if (batch_prompts(s))
            batch_find_giver(s, sessions, i);
        n_given += s->giver ? s->given.n_rows - s->held.n_rows : 0;
    }
    for (size_t i = 0; i < n && n_given < PASS_ROWS; i++)
        sessions[i]->giver = NULL;
    batch_run_prompts(sessions, n, false, first, err);
    batch_run_prompts(sessions, n, true, first, err);
}

/* ---- a step ---- */

/* Pending tokens through the decoder, FV_STEP_ROWS at a time. When there is no memory for so many
 * rows the decoder takes them in stretches. */
static void batch_step(fv_session *const *sessions, size_t n)
{
    fv_sequence *sequence[FV_STEP_ROWS];
    int32_t id[FV_STEP_ROWS];
    fv_session *lead = NULL;
    size_t rows = 0;
    const double start = fv_now_ms(); /* behind the prompts, which are no time of these */
    for (size_t i = 0; i <= n; i++) {
        if (rows && (i == n || rows == FV_STEP_ROWS)) {
            fv_error unused;
            if (rows > lead->decoder.rows)
                (void)fv_decoder_reserve(&lead->decoder, &lead->ops, rows, &unused);
            fv_decoder_step(&lead->decoder, &lead->ops, sequence, id, rows);
            rows = 0;
        }
        if (i == n || sessions[i]->step_status != FV_OK || sessions[i]->step != FV_STEP_RUN ||
            sessions[i]->other)
            continue;
        lead = lead ? lead : sessions[i];
        sessions[i]->step_start = start;
        sequence[rows] = &sessions[i]->sequence;
        id[rows++] = sessions[i]->pending;
    }
}

static void batch_end(fv_session *const *sessions, size_t n, fv_piece *pieces, fv_status *first,
                      fv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const fv_piece none = { .text = "", .id = -1, .logprob = NAN };
        fv_session *s = sessions[i];
        fv_piece piece = none;
        fv_error own;
        if (s->step_status == FV_OK)
            batch_note(s, fv_session_next_end(s, &piece, &own), first, &own, err);
        fv_piece *out = piece_at(pieces, i);
        fv_result_out(out, s->step_status == FV_OK ? &piece : &none, sizeof piece);
    }
}

fv_status fv_sessions_next(fv_session *const *sessions, size_t n, fv_piece *pieces,
                           fv_status *statuses, fv_error *err)
{
    fv_status first = FV_OK;
    size_t n_good = 0;
    FV_TRY(batch_check(sessions, n, pieces, err));
    FV_TRY(batch_enter(sessions, n, err));
    fv_fpenv caller = fv_fpenv_enter();
    for (size_t i = 0; i < n; i++) {
        sessions[i]->step = FV_STEP_NONE;
        sessions[i]->step_status = FV_OK;
        sessions[i]->giver = NULL;
    }
    batch_begin(sessions, n, &first, err);
    batch_step_others(sessions, n, &first, err);
    batch_run_all_prompts(sessions, n, &first, err);
    batch_step(sessions, n);
    batch_end(sessions, n, pieces, &first, err);
    for (size_t i = 0; i < n; i++) {
        n_good += sessions[i]->step_status == FV_OK;
        if (statuses)
            statuses[i] = sessions[i]->step_status;
    }
    fv_fpenv_leave(&caller);
    batch_leave(sessions, n);
    return n_good ? FV_OK : first;
}
