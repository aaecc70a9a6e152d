/* batch: a token for each of several sessions, the decoder's weights read once for all.
 *
 *     prompts      of sessions whose turn was just written, one after the other
 *     step         every pending token through the layers together: fv_decoder_step
 *     choice       per session, as fv_session_next does it
 *
 * The step uses the buffers and threads of the first session that takes part in it. */
#include <math.h>

#include "base/sized.h"
#include "engine/session.h"

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

/* Prompts first: nobody's token waits for them in the middle of a step. */
static void batch_begin(fv_session *const *sessions, size_t n, fv_status *first, fv_error *err)
{
    for (int prompts = 1; prompts >= 0; prompts--) {
        for (size_t i = 0; i < n; i++) {
            fv_session *s = sessions[i];
            fv_error own;
            if (s->step_status == FV_OK && s->step == FV_STEP_NONE &&
                (s->phase == FV_PHASE_WRITING || !prompts))
                batch_note(s, fv_session_next_begin(s, &own), first, &own, err);
        }
    }
}

/* Sessions whose rows do not go through the engine's decoder step by themselves. */
static void batch_step_others(fv_session *const *sessions, size_t n, fv_status *first,
                              fv_error *err)
{
    for (size_t i = 0; i < n; i++) {
        fv_session *s = sessions[i];
        fv_error own;
        if (s->other && s->step_status == FV_OK && s->step == FV_STEP_RUN)
            batch_note(s, fv_session_next_step(s, &own), first, &own, err);
    }
}

/* Pending tokens through the decoder, FV_STEP_ROWS at a time. When there is no memory for so many
 * rows the decoder takes them in stretches. */
static void batch_step(fv_session *const *sessions, size_t n)
{
    fv_sequence *sequence[FV_STEP_ROWS];
    int32_t id[FV_STEP_ROWS];
    fv_session *lead = NULL;
    size_t rows = 0;
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
    }
    batch_begin(sessions, n, &first, err);
    batch_step_others(sessions, n, &first, err);
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
