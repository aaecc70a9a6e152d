/* answerer: rows with image tokens -> text, several rows together.
 *
 * Rows that are ready at the same time have their prompts run together; from then on the rows that
 * are being answered take a token each in one step. An answer depends neither on the others in its
 * batch nor on the session it is given: only rows of the KV cache that are bit-identical to
 * computing them again are kept from one row to the next. */
#include <string.h>

#include "batch/batch_run.h"
#include "base/cond.h"
#include "base/list.h"
#include "openai/request.h"

/* A session, and the row that it answers; NULL: none. */
typedef struct seat {
    fv_session *session;
    void *constraint; /* of the grammar; NULL: the answer may be any text */
    bool own_system;  /* the session's system prompt is that of its row */
    fv_slot *slot;
} seat;

typedef struct seats {
    seat seat[FV_BATCH_MAX_TOGETHER];
    size_t n, n_taken;
} seats;

/* fv_progress_fn: asks the caller on the way. */
static bool seat_progress(void *user, const char *stage, double done)
{
    (void)stage;
    (void)done;
    fv_batch *b = user;
    return atomic_load(&b->stop) || !fv_batch_tell(b, false);
}

/* ---- one row ----------------------------------------------------------------------------- */

static fv_status seat_open(seat *s, fv_batch *b, fv_error *err)
{
    const fv_callbacks callbacks = { .size = sizeof callbacks,
                                     .progress = seat_progress,
                                     .user = b };
    const char *system = s->slot && s->slot->row.request ? s->slot->row.request->system : NULL;
    const fv_session_options o = { .size = sizeof o,
                                   .max_context = b->options.max_context,
                                   .system = system ? system : b->options.system,
                                   .n_system_bytes = system ? strlen(system)
                                                            : b->options.n_system_bytes,
                                   .exact_reuse = true,
                                   .callbacks = &callbacks };
    if (s->session && !system && !s->own_system) {
        fv_session_reset(s->session);
        return FV_OK;
    }
    fv_session_free(s->session);
    s->session = NULL;
    s->own_system = system != NULL;
    return fv_session_new(&s->session, b->engine, &o, err);
}

static fv_status seat_write_turn(seat *s, fv_error *err)
{
    const fv_slot *slot = s->slot;
    size_t n_images = 0;
    for (size_t i = 0; i < slot->row.n_parts; i++) {
        const fv_row_part *part = &slot->row.parts[i];
        switch (part->kind) {
        case FV_ROW_IMAGE:
            FV_TRY(fv_session_add_features(s->session, slot->features[n_images++], err));
            break;
        case FV_ROW_TEXT: FV_TRY(fv_session_add_text(s->session, part->text, part->n, err)); break;
        case FV_ROW_ANSWER:
            FV_TRY(fv_session_add_answer(s->session, part->text, part->n, err));
            break;
        }
    }
    return FV_OK;
}

static fv_status seat_take(seat *s, const fv_piece *piece, fv_error *err)
{
    fv_slot *slot = s->slot;
    FV_TRY(FV_LIST_ROOM(slot->text, slot->n_text, slot->capacity, piece->n_bytes + 1, err));
    if (piece->n_bytes)
        memcpy(slot->text + slot->n_text, piece->text, piece->n_bytes);
    slot->n_text += piece->n_bytes;
    slot->finish = piece->finish;
    return FV_OK;
}

/* A request says all itself, but for the limit and the seed where it names none. */
static fv_answer_options seat_options(const seat *s, const fv_batch *b)
{
    const fv_request *request = s->slot->row.request;
    fv_answer_options answer = request ? request->answer : b->answer;
    if (request && !answer.max_new_tokens)
        answer.max_new_tokens = b->answer.max_new_tokens;
    if (request && request->random_seed)
        answer.seed = b->answer.seed;
    return answer;
}

/* ---- JSON by a schema ---- */

/* What the grammar's function gave, and why; one that says nothing has failed all the same. */
static fv_status grammar_end(fv_status status, const fv_error *why, fv_error *err)
{
    if (status == FV_OK)
        return FV_OK;
    if (why->status != status)
        return fv_fail(err, status, 0, "the grammar failed: %s", fv_status_name(status));
    *err = *why;
    return status;
}

/* When the first schema comes. */
static fv_status grammar_ready(fv_batch *b, fv_error *err)
{
    fv_error why = { 0 };
    if (!b->grammar_open && b->grammar.open)
        FV_TRY(grammar_end(b->grammar.open(b->grammar.user, &why), &why, err));
    b->grammar_open = true;
    return FV_OK;
}

static fv_status grammar_constrain(const fv_batch *b, const char *schema, size_t n,
                                   fv_answer_options *answer, void **constraint, fv_error *err)
{
    fv_error why = { 0 };
    return grammar_end(b->grammar.constrain(b->grammar.user, schema, n, answer, constraint, &why),
                       &why, err);
}

static fv_status grammar_check(const fv_batch *b, const void *constraint, fv_error *err)
{
    fv_error why = { 0 };
    return grammar_end(b->grammar.check(constraint, &why), &why, err);
}

/* A schema in force: a request's own, or that of all rows. What the grammar lacks on this machine
 * is the run's failure, not the row's: another machine would answer the row. */
static fv_status seat_constrain(seat *s, fv_batch *b, fv_answer_options *answer, fv_error *err)
{
    const fv_batch_options *o = &b->options;
    const fv_request *request = s->slot->row.request;
    const char *own = request ? fv_request_schema(request) : NULL;
    fv_error why;
    if (!own && !o->schema)
        return FV_OK;
    if (grammar_ready(b, &why) != FV_OK) {
        fv_batch_fail(b, &why);
        *err = why;
        return why.status;
    }
    if (!own)
        return grammar_constrain(b, o->schema, o->n_schema_bytes, answer, &s->constraint, err);
    return grammar_constrain(b, own, strlen(own), answer, &s->constraint, &why) == FV_OK
               ? FV_OK
               : fv_request_refuse_schema(&why, err);
}

/* After a token: could the next ones be computed? With the last one: is it JSON? An answer to a
 * request that was cut off says so itself, as the server's do. */
static fv_status seat_check_json(const seat *s, fv_batch *b, bool done, fv_error *err)
{
    const fv_slot *slot = s->slot;
    fv_error why;
    if (!s->constraint)
        return FV_OK;
    if (grammar_check(b, s->constraint, &why) != FV_OK) {
        if (slot->row.request)
            return fv_request_refuse_schema(&why, err);
        *err = why;
        return why.status;
    }
    if (!done || slot->row.request || slot->finish != FV_FINISH_LENGTH ||
        b->grammar.is_complete(s->constraint))
        return FV_OK;
    return fv_fail(err, FV_ERR_LIMIT, 0,
                   "the answer was cut off before its JSON was complete; expected it to end within "
                   "max_new_tokens and the context");
}

static void seat_release_constraint(seat *s, const fv_batch *b)
{
    if (s->constraint)
        b->grammar.release(s->constraint);
    s->constraint = NULL;
}

/* ---- its answer ---- */

/* All but the prompt's run. */
static fv_status seat_ask(seat *s, fv_batch *b, const fv_answer_options *answer, fv_error *err)
{
    FV_TRY(seat_open(s, b, err));
    FV_TRY(seat_write_turn(s, err));
    return fv_session_begin(s->session, answer, err);
}

/* A row's failure in its own words. err is about the first of n prompts that failed: one that is
 * too long is asked again alone, which computes nothing and says so. */
static void seat_explain(seat *s, fv_batch *b, const fv_answer_options *answer, fv_status status,
                         size_t n, fv_error *err)
{
    fv_piece piece = { .size = sizeof piece };
    if (status == FV_ERR_LIMIT && n > 1 && seat_ask(s, b, answer, err) == FV_OK)
        (void)fv_session_next(s->session, &piece, err);
    if (err->status != status)
        (void)fv_fail(err, status, 0, "the answer ended: %s", fv_status_name(status));
}

/* The first token is there. */
static fv_status seat_begin(seat *s, fv_batch *b, const fv_piece *piece, fv_error *err)
{
    s->slot->row.begun = true;
    FV_TRY(seat_take(s, piece, err));
    return seat_check_json(s, b, piece->done, err);
}

fv_status fv_batch_check_answer(fv_batch *b, fv_error *err)
{
    seat s = { 0 };
    fv_answer_options answer = b->answer;
    fv_status status = FV_OK;
    if (b->options.schema)
        status = grammar_ready(b, err);
    if (b->options.schema && status == FV_OK)
        status = grammar_constrain(b, b->options.schema, b->options.n_schema_bytes, &answer,
                                   &s.constraint, err);
    if (status == FV_OK)
        status = seat_open(&s, b, err);
    if (status == FV_OK)
        status = fv_session_begin(s.session, &answer, err);
    fv_session_free(s.session);
    seat_release_constraint(&s, b);
    return status;
}

/* The row leaves its seat, answered or, with err, failed. */
static void seat_leave(seats *all, seat *s, fv_batch *b, fv_error *err)
{
    fv_slot *slot = s->slot;
    fv_stats stats = { .size = sizeof stats };
    s->slot = NULL;
    all->n_taken--;
    seat_release_constraint(s, b);
    if (err && (atomic_load(&b->stop) || fv_batch_is_fatal(err->status) ||
                fv_row_fail(&slot->row, err) != FV_OK)) {
        fv_batch_fail(b, err);
        return;
    }
    if (!err) {
        fv_session_stats(s->session, &stats);
        slot->prompt_tokens = stats.prompt_tokens;
        slot->image_tokens = stats.image_tokens;
        slot->new_tokens = stats.new_tokens;
        fv_row_drop_parts(&slot->row);
    }
    for (size_t i = 0; i < slot->n_images; i++) {
        fv_features_free(slot->features[i]);
        slot->features[i] = NULL;
    }
    pthread_mutex_lock(&b->lock);
    b->report.n_tokens += (uint64_t)stats.new_tokens;
    fv_batch_move(b, slot, FV_SLOT_DONE);
    pthread_mutex_unlock(&b->lock);
}

/* ---- all of them ------------------------------------------------------------------------- */

/* With the lock: now and then, so that progress is told while nothing happens. */
static void seats_wait(fv_batch *b)
{
    fv_cond_wait_until(&b->changed, &b->lock, fv_now_ms() + 100);
}

/* Rows to free seats. False when there will be no more. */
static bool seats_fill(seats *all, fv_batch *b, seat *fresh[FV_BATCH_MAX_TOGETHER], size_t *n_fresh)
{
    fv_slot *slot;
    *n_fresh = 0;
    pthread_mutex_lock(&b->lock);
    bool more = !b->stop && !(b->read_all && b->n_written == b->n_read);
    if (more && !all->n_taken && !b->n_in[FV_SLOT_ENCODED])
        seats_wait(b);
    for (size_t i = 0; i < all->n && !b->stop; i++) {
        if (all->seat[i].slot)
            continue;
        if (!(slot = fv_batch_first(b, FV_SLOT_ENCODED)))
            break;
        fv_batch_move(b, slot, FV_SLOT_ANSWERING);
        all->seat[i].slot = slot;
        fresh[(*n_fresh)++] = &all->seat[i];
        all->n_taken++;
    }
    pthread_mutex_unlock(&b->lock);
    return more;
}

/* What failed before the prompt ran leaves; the others are moved up. Returns how many. */
static size_t seats_ask(seats *all, fv_batch *b, seat **fresh, size_t n_fresh,
                        fv_answer_options *answer)
{
    size_t n = 0;
    for (size_t i = 0; i < n_fresh && !atomic_load(&b->stop); i++) {
        fv_error err;
        seat *s = fresh[i];
        answer[n] = seat_options(s, b);
        fv_status status = seat_constrain(s, b, &answer[n], &err);
        if (status == FV_OK) {
            status = seat_ask(s, b, &answer[n], &err);
            s->slot->row.too_long = status == FV_ERR_LIMIT;
        }
        if (status == FV_OK)
            fresh[n++] = s;
        else
            seat_leave(all, s, b, &err);
    }
    return n;
}

/* Prompts and first tokens. */
static void seats_begin(seats *all, fv_batch *b, seat **fresh, size_t n_fresh)
{
    fv_answer_options answer[FV_BATCH_MAX_TOGETHER];
    fv_session *session[FV_BATCH_MAX_TOGETHER];
    fv_piece piece[FV_BATCH_MAX_TOGETHER];
    fv_status status[FV_BATCH_MAX_TOGETHER];
    fv_error err = { 0 };
    size_t n = seats_ask(all, b, fresh, n_fresh, answer);
    if (!n || atomic_load(&b->stop))
        return;
    for (size_t i = 0; i < n; i++) {
        session[i] = fresh[i]->session;
        piece[i].size = sizeof piece[i];
    }
    (void)fv_sessions_next(session, n, piece, status, &err); /* how each fared is in status */
    for (size_t i = 0; i < n; i++) {
        fv_error own = err;
        fresh[i]->slot->row.too_long = status[i] == FV_ERR_LIMIT;
        if (status[i] != FV_OK)
            seat_explain(fresh[i], b, &answer[i], status[i], n, &own);
        else
            status[i] = seat_begin(fresh[i], b, &piece[i], &own);
        if (status[i] != FV_OK || piece[i].done)
            seat_leave(all, fresh[i], b, status[i] == FV_OK ? NULL : &own);
    }
}

/* A token for every row. */
static void seats_step(seats *all, fv_batch *b)
{
    fv_session *session[FV_BATCH_MAX_TOGETHER];
    seat *taken[FV_BATCH_MAX_TOGETHER];
    fv_piece piece[FV_BATCH_MAX_TOGETHER];
    fv_status status[FV_BATCH_MAX_TOGETHER];
    fv_error err = { 0 };
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++)
        if (all->seat[i].slot) {
            taken[n] = &all->seat[i];
            session[n] = all->seat[i].session;
            piece[n++].size = sizeof piece[0];
        }
    if (!n || atomic_load(&b->stop))
        return;
    (void)fv_sessions_next(session, n, piece, status, &err); /* how each fared is in status */
    for (size_t i = 0; i < n; i++) {
        fv_error own = err; /* of the first that failed */
        if (status[i] != FV_OK)
            own.status = status[i];
        else if ((status[i] = seat_take(taken[i], &piece[i], &own)) == FV_OK)
            status[i] = seat_check_json(taken[i], b, piece[i].done, &own);
        if (status[i] == FV_OK && !piece[i].done)
            continue;
        seat_leave(all, taken[i], b, status[i] == FV_OK ? NULL : &own);
    }
}

void fv_batch_answer_rows(fv_batch *b)
{
    seats all = { .n = (size_t)b->options.n_together };
    seat *fresh[FV_BATCH_MAX_TOGETHER];
    size_t n_fresh;
    while (seats_fill(&all, b, fresh, &n_fresh)) {
        seats_begin(&all, b, fresh, n_fresh);
        seats_step(&all, b);
        if (!fv_batch_tell(b, false))
            break;
    }
    for (size_t i = 0; i < all.n; i++) {
        fv_session_free(all.seat[i].session);
        seat_release_constraint(&all.seat[i], b);
    }
}
