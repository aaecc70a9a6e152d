/* Rows on their way through the machine. See batch_run.h. */
#include "batch/batch_run.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cond.h"
#include "base/utf8_text.h"
#include "batch/openai_row.h"

enum {
    TELL_MS = 100,
    STACK_BYTES = 8 << 20,
    MOST_WAITING_BYTES = 128 << 20 /* of images; the row that passes it still comes in */
};

/* ---- what all steps share ---------------------------------------------------------------- */

bool fv_batch_is_fatal(fv_status status)
{
    return status == FV_ERR_MEMORY || status == FV_ERR_CANCELLED || status == FV_ERR_STATE;
}

void fv_batch_fail(fv_batch *b, const fv_error *err)
{
    pthread_mutex_lock(&b->lock);
    if (b->status == FV_OK) {
        b->status = err->status;
        b->err = *err;
    }
    atomic_store(&b->stop, true);
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

bool fv_batch_tell(fv_batch *b, bool now)
{
    double ms = fv_now_ms();
    if (!b->options.progress || (!now && ms - b->told_ms < TELL_MS))
        return true;
    b->told_ms = ms;
    pthread_mutex_lock(&b->lock);
    fv_batch_report report = b->report;
    pthread_mutex_unlock(&b->lock);
    report.ms = ms - b->started_ms;
    if (!b->options.progress(b->options.progress_user, &report))
        return true;
    fv_error err;
    (void)fv_fail(&err, FV_ERR_CANCELLED, 0, "cancelled");
    fv_batch_fail(b, &err);
    return false;
}

void fv_batch_move(fv_batch *b, fv_slot *slot, fv_slot_state state)
{
    b->n_in[slot->state]--;
    b->n_in[state]++;
    slot->state = state;
    pthread_cond_broadcast(&b->changed);
}

fv_slot *fv_batch_first(fv_batch *b, fv_slot_state state)
{
    if (b->n_in[state])
        for (uint64_t i = b->n_written; i < b->n_read; i++)
            if (b->slots[i % FV_BATCH_SLOTS].state == state)
                return &b->slots[i % FV_BATCH_SLOTS];
    return NULL;
}

static void slot_drop_images(fv_slot *slot)
{
    for (size_t i = 0; i < slot->n_images; i++) {
        fv_image_free(slot->image[i]);
        slot->image[i] = NULL;
    }
}

static void slot_clear(fv_slot *slot)
{
    slot_drop_images(slot);
    for (size_t i = 0; i < slot->n_images; i++)
        fv_features_free(slot->features[i]);
    fv_free(slot->text);
    fv_row_free(&slot->row);
    *slot = (fv_slot){ .state = slot->state };
}

/* ---- reader ------------------------------------------------------------------------------ */

/* With the lock: may one more row come in? */
static bool reader_has_room(const fv_batch *b)
{
    return b->n_read - b->n_written < FV_BATCH_SLOTS && b->n_waiting_bytes < MOST_WAITING_BYTES &&
           b->n_in[FV_SLOT_READ] < 2 * (size_t)b->options.n_readers + 2;
}

/* With the lock. */
static void slot_enter(fv_batch *b, fv_slot *slot)
{
    for (size_t i = 0; i < slot->row.n_parts; i++)
        slot->n_waiting_bytes += slot->row.parts[i].n_data;
    b->n_waiting_bytes += slot->n_waiting_bytes;
    b->n_read++;
    fv_batch_move(b, slot, slot->row.status == FV_OK ? FV_SLOT_READ : FV_SLOT_DONE);
}

static void *reader_run(void *user)
{
    fv_batch *b = user;
    fv_error err;
    bool more = true;
    pthread_mutex_lock(&b->lock);
    while (more) {
        while (!b->stop && !reader_has_room(b))
            pthread_cond_wait(&b->changed, &b->lock);
        if (b->stop)
            break;
        fv_slot *slot = &b->slots[b->n_read % FV_BATCH_SLOTS];
        pthread_mutex_unlock(&b->lock);
        fv_status status = fv_row_source_next(b->source, &slot->row, &more, &err);
        if (status != FV_OK)
            fv_batch_fail(b, &err);
        pthread_mutex_lock(&b->lock);
        if (status != FV_OK)
            break;
        if (more)
            slot_enter(b, slot);
    }
    b->read_all = !more;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* ---- openers ----------------------------------------------------------------------------- */

/* A member of a tar file, by its name in messages. */
static fv_status opener_read_member(fv_image **out, const fv_row_part *part,
                                    const fv_image_options *o, fv_error *err)
{
    static const char unnamed[] = "image in memory";
    fv_status status = fv_image_read(out, part->data, part->n_data, o, err);
    if (status != FV_OK && !strncmp(err->message, unnamed, sizeof unnamed - 1)) {
        char rest[sizeof err->message];
        snprintf(rest, sizeof rest, "%s", err->message + sizeof unnamed - 1);
        (void)fv_fail(err, status, err->at, "%s%s", part->text, rest);
    }
    return status;
}

static fv_status slot_open_image(fv_batch *b, fv_slot *slot, fv_row_part *part, fv_error *err)
{
    struct stat st;
    fv_image **out = &slot->image[slot->n_images];
    fv_status status;
    if (part->data)
        status = opener_read_member(out, part, &b->image, err);
    else if (stat(part->text, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: is a device or a pipe; expected the file of an image", part->text);
    else
        status = fv_image_open(out, part->text, &b->image, err);
    slot->n_images += status == FV_OK;
    fv_free(part->data);
    part->data = NULL;
    return status;
}

static fv_status slot_open_images(fv_batch *b, fv_slot *slot, fv_error *err)
{
    for (size_t i = 0; i < slot->row.n_parts; i++) {
        fv_row_part *part = &slot->row.parts[i];
        if (part->kind != FV_ROW_IMAGE || slot_open_image(b, slot, part, err) == FV_OK)
            continue;
        if (slot->row.request) { /* as the server says it */
            char message[sizeof err->message];
            snprintf(message, sizeof message, "%s", err->message);
            (void)fv_fail(err, err->status, err->at, "request: %s", message);
        }
        return fv_row_fail(&slot->row, err);
    }
    return FV_OK;
}

/* Takes rows from one state to the next, or to DONE when they fail, until the run is over. */
typedef struct stage {
    fv_slot_state from, at, to;
    /* FV_ERR_*: of the run */
    fv_status (*work)(fv_batch *b, fv_slot *slot, fv_error *err);
} stage;

/* With the lock: how many rows may be on the way to `to` or there: what bounds memory. */
static bool stage_has_room(const fv_batch *b, const stage *s)
{
    size_t n = b->n_in[s->at] + b->n_in[s->to];
    return n < (s->to == FV_SLOT_OPENED ? (size_t)b->options.n_readers + 1
                                        : 2 * (size_t)b->options.n_together);
}

static void stage_run(fv_batch *b, const stage *s)
{
    fv_slot *slot;
    fv_error err;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->stop && !(b->read_all && b->n_written == b->n_read) &&
               !(stage_has_room(b, s) && b->n_in[s->from]))
            pthread_cond_wait(&b->changed, &b->lock);
        if (b->stop || !(slot = fv_batch_first(b, s->from)))
            break;
        fv_batch_move(b, slot, s->at);
        pthread_mutex_unlock(&b->lock);
        fv_status status = s->work(b, slot, &err);
        if (status != FV_OK)
            fv_batch_fail(b, &err);
        if (slot->row.status != FV_OK) /* it may wait for its turn for long */
            slot_drop_images(slot);
        pthread_mutex_lock(&b->lock);
        b->n_waiting_bytes -= slot->n_waiting_bytes;
        slot->n_waiting_bytes = 0;
        if (status == FV_OK)
            fv_batch_move(b, slot, slot->row.status == FV_OK ? s->to : FV_SLOT_DONE);
    }
    pthread_mutex_unlock(&b->lock);
}

static void *opener_run(void *user)
{
    const stage s = { FV_SLOT_READ, FV_SLOT_OPENING, FV_SLOT_OPENED, slot_open_images };
    stage_run(user, &s);
    return NULL;
}

/* ---- encoder ----------------------------------------------------------------------------- */

/* fv_progress_fn */
static bool encoder_progress(void *user, const char *name, double done)
{
    (void)name;
    (void)done;
    return atomic_load(&((fv_batch *)user)->stop);
}

static fv_status encoder_encode(fv_batch *b, fv_slot *slot, fv_error *err)
{
    const fv_callbacks callbacks = { .size = sizeof callbacks,
                                     .progress = encoder_progress,
                                     .user = b };
    const fv_encode_options o = { .size = sizeof o,
                                  .fit = b->options.fit,
                                  .callbacks = &callbacks };
    for (size_t i = 0; i < slot->n_images; i++) {
        fv_status status = fv_encode(b->engine, slot->image[i], &o, &slot->features[i], err);
        if (fv_batch_is_fatal(status))
            return status;
        if (status != FV_OK)
            return fv_row_fail(&slot->row, err);
    }
    slot_drop_images(slot);
    return FV_OK;
}

static void *encode_rows_run(void *user)
{
    const stage s = { FV_SLOT_OPENED, FV_SLOT_ENCODING, FV_SLOT_ENCODED, encoder_encode };
    stage_run(user, &s);
    return NULL;
}

/* ---- writer ------------------------------------------------------------------------------ */

static const char *finish_word(fv_finish finish)
{
    return finish == FV_FINISH_STOP          ? "stop"
           : finish == FV_FINISH_STOP_STRING ? "stop_string"
                                             : "length";
}

static fv_status row_memory(const fv_json_text *j, fv_error *err)
{
    return j->failed ? fv_fail_memory(err, j->capacity, "a row of the output") : FV_OK;
}

fv_status fv_batch_row_head(const fv_batch *b, const fv_row *row, fv_json_text *j, fv_error *err)
{
    if (b->options.format == FV_BATCH_OPENAI) {
        fv_openai_row_put_head(row, j);
        return row_memory(j, err);
    }
    fv_json_begin_row(j, NULL, '{');
    fv_json_put_int(j, "row", (int64_t)row->index);
    if (row->id)
        fv_json_put_text(j, "id", row->id);
    if (row->image)
        fv_json_put_text(j, "image", row->image);
    return row_memory(j, err);
}

static void row_put_answer(const fv_batch *b, const fv_slot *slot, const char *text, size_t n,
                           fv_json_text *j)
{
    if (b->options.format == FV_BATCH_OPENAI) {
        fv_openai_row_put_answer(slot, text, n, b->options.model, j);
        return;
    }
    fv_json_put_text(j, "status", "ok");
    fv_json_put_bytes(j, "text", text, n);
    fv_json_put_text(j, "finish", finish_word(slot->finish));
    fv_json_put_int(j, "prompt_tokens", slot->prompt_tokens);
    fv_json_put_int(j, "new_tokens", slot->new_tokens);
    fv_json_end(j);
}

static void row_put_failure(const fv_batch *b, const fv_row *row, fv_json_text *j)
{
    if (b->options.format == FV_BATCH_OPENAI) {
        fv_openai_row_put_failure(row, j);
        return;
    }
    fv_json_put_text(j, "status", fv_status_name(row->status));
    fv_json_put_text(j, "error", row->problem);
    fv_json_end(j);
}

/* A NUL in an answer becomes U+FFFD: files of text and readers of JSON take it for the end. */
static fv_status row_put_clean_answer(const fv_batch *b, const fv_slot *slot, fv_json_text *j,
                                      fv_error *err)
{
    if (!slot->n_text || !memchr(slot->text, 0, slot->n_text)) {
        row_put_answer(b, slot, slot->n_text ? slot->text : "", slot->n_text, j);
        return FV_OK;
    }
    char *text = fv_alloc(slot->n_text, 3);
    if (!text)
        return fv_fail_memory(err, slot->n_text, "an answer");
    row_put_answer(b, slot, text, fv_utf8_replace(text, slot->text, slot->n_text), j);
    fv_free(text);
    return FV_OK;
}

fv_status fv_batch_row_line(const fv_batch *b, const fv_slot *slot, fv_json_text *j, fv_error *err)
{
    FV_TRY(fv_batch_row_head(b, &slot->row, j, err));
    if (slot->row.status == FV_OK)
        FV_TRY(row_put_clean_answer(b, slot, j, err));
    else
        row_put_failure(b, &slot->row, j);
    return fv_json_done(j, err);
}

static fv_status writer_put(fv_batch *b, const fv_slot *slot, fv_error *err)
{
    fv_json_text j = { 0 };
    fv_status status = fv_batch_row_line(b, slot, &j, err);
    if (status == FV_OK)
        status = fv_journal_append(&b->journal, j.text, j.n, err);
    fv_json_text_free(&j);
    return status;
}

static void *writer_run(void *user)
{
    fv_batch *b = user;
    fv_error err;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        fv_slot *slot = &b->slots[b->n_written % FV_BATCH_SLOTS];
        while (!b->stop && !(b->read_all && b->n_written == b->n_read) &&
               slot->state != FV_SLOT_DONE)
            pthread_cond_wait(&b->changed, &b->lock);
        if (b->stop || slot->state != FV_SLOT_DONE)
            break;
        pthread_mutex_unlock(&b->lock);
        bool failed = slot->row.status != FV_OK;
        double at = slot->row.at;
        fv_status status = writer_put(b, slot, &err);
        if (status != FV_OK)
            fv_batch_fail(b, &err);
        pthread_mutex_lock(&b->lock);
        slot_clear(slot); /* others look at its state */
        if (status != FV_OK)
            break;
        b->n_written++;
        b->report.n_rows++;
        b->report.n_failed += failed;
        b->report.done = at;
        fv_batch_move(b, slot, FV_SLOT_FREE);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* ---- all of them ------------------------------------------------------------------------- */

fv_status fv_batch_begin(fv_batch *b, fv_error *err)
{
    b->slots = fv_alloc_zero(FV_BATCH_SLOTS, sizeof *b->slots);
    if (!b->slots)
        return fv_fail_memory(err, FV_BATCH_SLOTS * sizeof *b->slots, "the rows of a batch");
    b->n_in[FV_SLOT_FREE] = FV_BATCH_SLOTS;
    pthread_mutex_init(&b->lock, NULL);
    fv_cond_init(&b->changed);
    return FV_OK;
}

void fv_batch_end(fv_batch *b)
{
    for (size_t i = 0; b->slots && i < FV_BATCH_SLOTS; i++)
        slot_clear(&b->slots[i]);
    if (b->slots) {
        pthread_mutex_destroy(&b->lock);
        pthread_cond_destroy(&b->changed);
    }
    fv_free(b->slots);
    fv_row_source_free(b->source);
    fv_journal_close(&b->journal);
}

/* One row of an earlier run. */
static fv_status batch_count_row(fv_batch *b, const fv_row *row, bool *finished, fv_error *err)
{
    const char *good = b->options.format == FV_BATCH_OPENAI ? ",\"response\":{\"status_code\":200,"
                                                            : ", \"status\": \"ok\"";
    fv_json_text head = { 0 };
    const char *line;
    size_t n;
    fv_status status = fv_batch_row_head(b, row, &head, err);
    if (status == FV_OK)
        status = fv_journal_next(&b->journal, head.text, head.n, &line, &n, err);
    *finished = status == FV_OK && line;
    if (*finished) {
        b->report.n_rows++;
        b->report.n_resumed++;
        b->report.n_failed += n < head.n + strlen(good) ||
                              memcmp(line + head.n, good, strlen(good)) != 0;
        b->report.done = row->at;
    }
    fv_json_text_free(&head);
    return status;
}

fv_status fv_batch_resume(fv_batch *b, fv_error *err)
{
    fv_slot *slot = &b->slots[0];
    for (;;) {
        bool more, finished;
        FV_TRY(fv_row_source_next(b->source, &slot->row, &more, err));
        if (!more) {
            b->read_all = true;
            return fv_journal_end(&b->journal, err);
        }
        FV_TRY(batch_count_row(b, &slot->row, &finished, err));
        if (!finished) {
            slot_enter(b, slot);
            return FV_OK;
        }
        fv_row_free(&slot->row);
        if (!fv_batch_tell(b, false)) {
            *err = b->err;
            return b->status;
        }
    }
}

fv_status fv_batch_answer(fv_batch *b, fv_error *err)
{
    pthread_t thread[FV_BATCH_MAX_READERS + 3];
    size_t n = 0, n_wanted = (size_t)b->options.n_readers + 3;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (; n < n_wanted; n++) {
        void *(*run)(void *) = n == 0   ? writer_run
                               : n == 1 ? reader_run
                               : n == 2 ? encode_rows_run
                                        : opener_run;
        if (pthread_create(&thread[n], &attr, run, b) != 0) {
            (void)fv_fail(err, FV_ERR_LIMIT, 0, "cannot start a thread");
            fv_batch_fail(b, err);
            break;
        }
    }
    pthread_attr_destroy(&attr);
    fv_batch_answer_rows(b);
    while (n-- > 0)
        pthread_join(thread[n], NULL);
    if (b->status != FV_OK)
        *err = b->err;
    return b->status;
}
