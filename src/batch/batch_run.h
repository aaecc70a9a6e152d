/* batch_run: the rows of a batch on their way through the machine.
 *
 *     reader       inputs -> rows                     one thread
 *     openers      files -> pixels                    n_readers threads
 *     encoder      pixels -> image tokens             one thread, and the engine's
 *     answerer     image tokens -> text               the caller, and the engine's threads
 *     writer       rows, in order -> the journal      one thread
 *
 * Rows lie in a ring, row k of the run in slot k modulo its size; each step takes the first row
 * that is ready for it. How far the ring goes ahead is bounded by what the slots hold: rows that
 * wait to be opened, pixels, image tokens. */
#ifndef FV_BATCH_RUN_H
#define FV_BATCH_RUN_H

#include <pthread.h>
#include <stdatomic.h>

#include "batch/journal.h"
#include "batch/row_source.h"
#include "fastvlm_batch.h"

enum { FV_BATCH_MAX_TOGETHER = 64, FV_BATCH_MAX_READERS = 64, FV_BATCH_SLOTS = 1024 };

typedef enum fv_slot_state {
    FV_SLOT_FREE,
    FV_SLOT_READ,      /* a row that can be answered, it seems */
    FV_SLOT_OPENING,   /* by an opener */
    FV_SLOT_OPENED,    /* has its pixels */
    FV_SLOT_ENCODING,  /* by the encoder */
    FV_SLOT_ENCODED,   /* has its image tokens */
    FV_SLOT_ANSWERING, /* by the answerer */
    FV_SLOT_DONE,      /* has an answer, or a row that failed */
    FV_SLOT_STATES
} fv_slot_state;

typedef struct fv_slot {
    fv_slot_state state;
    fv_row row;
    fv_image *image[FV_ROW_MAX_IMAGES];
    fv_features *features[FV_ROW_MAX_IMAGES];
    size_t n_images;
    uint64_t n_waiting_bytes; /* of what waits to be opened */
    char *text;               /* the answer */
    size_t n_text, capacity;
    fv_finish finish;
    int prompt_tokens, image_tokens, new_tokens;
} fv_slot;

typedef struct fv_batch {
    fv_engine *engine;
    fv_batch_options options;
    fv_answer_options answer;
    fv_image_options image;
    fv_batch_grammar grammar; /* zero: there is none */
    bool grammar_open;        /* the caller's thread */
    bool resuming;            /* likewise: it reads rows itself */
    fv_callbacks quiet;       /* of the row source, which may wait for long */
    fv_row_source *source;
    fv_journal journal;
    double started_ms, told_ms; /* told_ms: when progress was called last; the caller's thread */

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    fv_slot *slots;
    uint64_t n_read, n_written; /* rows that have entered and left the ring */
    size_t n_in[FV_SLOT_STATES];
    uint64_t n_waiting_bytes; /* of images that rows in READ and OPENING bring */
    bool read_all;
    atomic_bool stop; /* every thread ends; also read without the lock */
    fv_status status; /* why */
    fv_error err;
    fv_batch_report report;
} fv_batch;

/* Sets the run up, and the journal; b is zero. fv_batch_end also after a failure. */
fv_status fv_batch_begin(fv_batch *b, fv_error *err);
/* Rows that earlier runs have finished; the first one that none has is in slot 0. */
fv_status fv_batch_resume(fv_batch *b, fv_error *err);
/* All rows into the journal. */
fv_status fv_batch_answer(fv_batch *b, fv_error *err);
/* Options that no session takes, and a schema that no grammar takes, are the run's failure, not
 * that of every row. */
fv_status fv_batch_check_answer(fv_batch *b, fv_error *err);
/* Could the output be written? Nothing is left there. */
fv_status fv_batch_check_output(const fv_batch_options *o, fv_error *err);
/* The rows of the journal become the output. */
fv_status fv_batch_finish(fv_batch *b, fv_error *err);
void fv_batch_end(fv_batch *b);

/* ---- shared by the files of the run ---- */

/* The row's line up to its status, and with status, answer and line end. Free it with
 * fv_json_text_free, also after a failure. */
fv_status fv_batch_row_head(const fv_batch *b, const fv_row *row, fv_json_text *j, fv_error *err);
fv_status fv_batch_row_line(const fv_batch *b, const fv_slot *slot, fv_json_text *j, fv_error *err);

/* Tells the caller how far it is, several times a second; false when it wants to stop. On the
 * caller's thread, without the lock. */
bool fv_batch_tell(fv_batch *b, bool now);
/* The first failure is the run's; every thread ends. Without the lock. */
void fv_batch_fail(fv_batch *b, const fv_error *err);
/* Moves a slot on. With the lock, which all wait for. */
void fv_batch_move(fv_batch *b, fv_slot *slot, fv_slot_state state);
/* The first slot in this state; NULL: there is none. With the lock. */
fv_slot *fv_batch_first(fv_batch *b, fv_slot_state state);
/* Answers ENCODED rows until all are answered, on the caller's thread. */
void fv_batch_answer_rows(fv_batch *b);
/* Does this failure end the run, or is it the row's? */
bool fv_batch_is_fatal(fv_status status);

#endif
