/* session: the inside of a conversation, for session.c and session_state.c.
 *
 *     turn    what the user is writing
 *     talk    the conversation: turns that were asked, answers
 *     held    what the rows of the KV cache were computed from
 *
 * talk and held agree from the start on as far as they go, except after a reset, a rewind or a
 * failure: then held is what is left of the past, and the next prompt keeps of it what it
 * shares. */
#ifndef FV_SESSION_H
#define FV_SESSION_H

#include <stdatomic.h>

#include "base/fpenv.h"
#include "engine/content.h"
#include "engine/engine.h"
#include "engine/turn.h"
#include "nn/decoder.h"
#include "nn/sampler.h"
#include "text/utf8.h"

typedef enum fv_phase {
    FV_PHASE_IDLE,      /* between turns */
    FV_PHASE_WRITING,   /* a user's turn is being written */
    FV_PHASE_ANSWERING, /* the prompt is in the cache */
    FV_PHASE_ENDING     /* the last token is out, the end of the answer is not */
} fv_phase;

/* What a token still takes, between fv_session_next_begin and _end. */
typedef enum fv_step {
    FV_STEP_NONE,   /* nothing done yet */
    FV_STEP_END,    /* no token: the answer's end */
    FV_STEP_PROMPT, /* the prompt's rows go through the decoder first */
    FV_STEP_RUN     /* the pending token does */
} fv_step;

/* What runs rows through the decoder in place of the CPU, with a cache of keys and values of its
 * own: a neural processor's. Handed in, so that the engine knows none. */
typedef struct fv_decoder_ops {
    size_t max_rows; /* of its cache */
    /* Keeps the first n_kept rows that it has seen, appends n rows x [n, d_model] and computes the
     * logits [n_vocab] that follow the last one. On failure it keeps nothing. */
    fv_status (*run)(void *context, size_t n_kept, const float *x, size_t n, float *logits,
                     const fv_callbacks *callbacks, fv_error *err);
    void (*release)(void *context); /* with the session */
} fv_decoder_ops;

struct fv_session {
    fv_engine *engine; /* a reference */
    atomic_bool busy;  /* a call is at work */
    char *system;      /* NULL: the default one */
    size_t n_system, max_context;
    int n_threads;
    bool exact_reuse;
    fv_callbacks callbacks;
    fv_watch watch;
    fv_layer_clock clock;

    fv_phase phase;
    fv_turn turn;
    double turn_start; /* ms */
    fv_place turn_at;  /* where in talk it will stand */
    fv_content talk, held;
    size_t n_exact;   /* rows of held, from the start on, that a fresh run gives the same bits */
    bool foreign;     /* rows of held came from a file: of other kernels, or other weights */
    fv_place *bounds; /* [n_bounds] where turns began, ascending */
    size_t n_bounds, bounds_capacity;
    fv_place asked;  /* of talk: the end of the last prompt or of what was run since */
    int32_t pending; /* chosen, at the end of talk, not yet in held; -1: none */

    /* a call of fv_session_next or fv_sessions_next */
    fv_step step;
    double step_start; /* ms */
    float *rows;       /* [n, d_model] of the prompt behind what is held, while it runs */
    /* of fv_sessions_next */
    fv_status step_status;          /* so far */
    fv_decoder_prompt prompt;       /* among those that run together */
    const struct fv_session *giver; /* whose prompt runs first, for this one takes rows of it ... */
    fv_place given;                 /* ... up to here; NULL: none */

    /* how the answer is chosen */
    bool rules_given; /* by fv_session_begin */
    int max_new_tokens;
    bool ignore_end;
    fv_logit_bias *bias;
    fv_stream *stream;
    fv_sampler *sampler;

    /* the model's working parts */
    fv_pool pool; /* the engine's, limited */
    fv_ops ops;
    fv_decoder decoder;
    fv_sequence sequence;
    const fv_decoder_ops *other; /* runs rows instead; NULL: the decoder above does, and then
                                    sequence.kv holds rows, otherwise only their number */
    void *other_context;
    bool has_logits;
    fv_stats stats;
};

/* A public call: marks the session busy, FV_ERR_STATE when it is already, and sets the
 * floating-point environment. */
fv_status fv_session_enter(fv_session *s, fv_fpenv *caller, fv_error *err);
void fv_session_leave(fv_session *s, const fv_fpenv *caller);

/* One token, before and after the decoder's work. Between them the prompt of a session with
 * FV_STEP_PROMPT, the pending token of one with FV_STEP_RUN, goes through a decoder of the
 * engine's: the session's own, or one that takes those of others with it. A failure ends the
 * answer. */
fv_status fv_session_next_begin(fv_session *s, fv_error *err);
/* The decoder's work for a session by itself. On failure the answer has ended. */
fv_status fv_session_next_step(fv_session *s, fv_error *err);
fv_status fv_session_next_end(fv_session *s, fv_piece *out, fv_error *err);
/* What was between them has failed: the answer ends. */
void fv_session_next_fail(fv_session *s);

/* FV_STEP_PROMPT, with others: fills in *out, which borrows rows from s until _end. */
fv_status fv_session_prompt(fv_session *s, fv_decoder_prompt *out, fv_error *err);
/* Up to where the prompt could go on from rows that `from` has, or has when its prompt has run, and
 * that are the bits which s would compute; the end of what s holds where they are none. */
fv_place fv_session_shared(const fv_session *s, const fv_session *from);
/* Takes the rows up to there. */
void fv_session_share(fv_session *s, const fv_session *from, fv_place shared);

/* From now on rows go through another decoder, which the session releases. FV_ERR_STATE once there
 * are rows, or when it has one already. */
fv_status fv_session_set_decoder(fv_session *s, const fv_decoder_ops *ops, void *context,
                                 fv_error *err);

/* Ends the conversation's last answer, as far as it goes, and drops the turn being written. */
void fv_session_settle(fv_session *s);

#endif
