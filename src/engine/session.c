/* session: one conversation. The whole product in one file:
 *
 *     add_image   image -> features                                    kept for the turn
 *     add_text    the user's words                                     kept for the turn
 *     next        turn -> ids -> rows, features spliced in -> decoder -> logits
 *                 logits -> id -> bytes -> text                        one token a call
 *
 * What a prompt shares with what the KV cache holds is not run again. Copies and saved sessions are
 * in session_state.c. */
#include "engine/session.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/list.h"
#include "base/fpenv.h"
#include "base/sized.h"
#include "image/image.h"

enum {
    ANSWER_ROOM = 512, /* rows reserved with a prompt, so that a usual answer moves no cache */
    /* A prompt is run as at least two rows: a row by itself goes through other kernels, which sum
     * in another order than the fresh run of a longer prompt. */
    LEAST_ROWS = 2
};

/* ---- a call ------------------------------------------------------------------------------ */

fv_status fv_session_enter(fv_session *s, fv_fpenv *caller, fv_error *err)
{
    if (atomic_exchange(&s->busy, true))
        return fv_fail(err, FV_ERR_STATE, 0,
                       "the session is at work: it was called from one of its callbacks, or from "
                       "two threads at once");
    *caller = fv_fpenv_enter();
    return FV_OK;
}

void fv_session_leave(fv_session *s, const fv_fpenv *caller)
{
    fv_fpenv_leave(caller);
    atomic_store(&s->busy, false);
}

/* A public function around the one that does the work. */
#define SESSION_CALL(session, work)                           \
    do {                                                      \
        fv_fpenv caller_;                                     \
        FV_TRY(fv_session_enter((session), &caller_, (err))); \
        fv_status status_ = (work);                           \
        fv_session_leave((session), &caller_);                \
        return status_;                                       \
    } while (0)

/* ---- making one -------------------------------------------------------------------------- */

static fv_status session_check_options(const fv_engine *e, const fv_session_options *o,
                                       fv_error *err)
{
    size_t bad;
    if (o->max_context < 0 || o->max_context > e->model.config.max_context)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "max_context is %d; expected 0 to %d, the model's limit", o->max_context,
                       e->model.config.max_context);
    if (o->n_threads < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_threads is %d; expected 0 (all) or more",
                       o->n_threads);
    if (o->system && !fv_utf8_valid(o->system, o->n_system_bytes, &bad))
        return fv_fail(err, FV_ERR_FORMAT, bad, "system is not valid UTF-8 at byte %zu", bad);
    return FV_OK;
}

static fv_status session_forbid_tokens(fv_session *s, fv_error *err)
{
    const fv_engine *e = s->engine;
    int32_t n_tokens = fv_tokenizer_size(e->model.tokenizer);
    FV_TRY(
        fv_sampler_new(&s->sampler, NULL, (size_t)e->model.config.n_vocab, (size_t)n_tokens, err));
    for (int32_t id = 0; id < n_tokens; id++)
        if (!fv_tokenizer_has(e->model.tokenizer, id))
            fv_sampler_forbid(s->sampler, id);
    if (e->image_token >= 0)
        fv_sampler_forbid(s->sampler, e->image_token);
    return FV_OK;
}

static fv_status session_init(fv_session *s, const fv_session_options *o, fv_error *err)
{
    static const fv_type kv_types[] = { FV_TYPE_F16, FV_TYPE_F32, FV_TYPE_F16, FV_TYPE_I8 };
    const fv_engine *e = s->engine;
    const fv_model *m = &e->model;
    fv_type act = m->decoder == FV_TYPE_BF16 ? FV_TYPE_BF16 : FV_TYPE_F32;
    fv_type kv = e->kv == FV_KV_AUTO && m->decoder == FV_TYPE_F32 ? FV_TYPE_F32 : kv_types[e->kv];
    s->max_context = (size_t)(o->max_context ? o->max_context : m->config.max_context);
    s->exact_reuse = o->exact_reuse;
    s->n_threads = o->n_threads;
    s->pool = fv_pool_limit(m->pool, o->n_threads);
    s->callbacks = *o->callbacks;
    s->watch = (fv_watch){ .callbacks = &s->callbacks,
                           .tap = o->tap,
                           .tap_user = o->tap_user,
                           .all_logits = o->tap && o->tap_prompt_logits };
    FV_TRY(fv_layer_clock_init(&s->clock, m, o->layer, o->layer_user, err));
    fv_layer_clock_watch(&s->clock, &s->watch);
    s->pending = -1;
    if (o->system) {
        s->system = fv_alloc(o->n_system_bytes + 1, 1);
        if (!s->system)
            return fv_fail_memory(err, o->n_system_bytes, "the system prompt");
        memcpy(s->system, o->system, o->n_system_bytes);
        s->n_system = o->n_system_bytes;
    }
    FV_TRY(fv_ops_init(&s->ops, &m->kernels, &s->pool, err));
    s->ops.timed = s->watch.timed;
    s->ops.timed_user = s->watch.timed_user;
    FV_TRY(fv_decoder_init(&s->decoder, &m->config, &m->weights.decoder, act, err));
    FV_TRY(fv_sequence_init(&s->sequence, &m->config, kv, err));
    return session_forbid_tokens(s, err);
}

fv_status fv_session_new(fv_session **out, fv_engine *engine, const fv_session_options *options,
                         fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_session_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(engine, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_session_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(session_check_options(engine, &o, err));
    fv_session *s = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "a session");
    s->engine = fv_engine_ref(engine);
    fv_status status = session_init(s, &o, err);
    if (status != FV_OK) {
        fv_session_free(s);
        return status;
    }
    *out = s;
    return FV_OK;
}

void fv_session_free(fv_session *s)
{
    if (!s || atomic_load(&s->busy))
        return;
    if (s->other)
        s->other->release(s->other_context);
    fv_turn_free(&s->turn);
    fv_content_free(&s->talk);
    fv_content_free(&s->held);
    fv_free(s->bounds);
    fv_decoder_free(&s->decoder);
    fv_sequence_free(&s->sequence);
    fv_ops_free(&s->ops);
    fv_layer_clock_free(&s->clock);
    fv_sampler_free(s->sampler);
    fv_stream_free(s->stream);
    fv_free(s->bias);
    fv_free(s->rows);
    fv_free(s->system);
    fv_engine_free(s->engine);
    fv_free(s);
}

fv_status fv_session_set_decoder(fv_session *s, const fv_decoder_ops *ops, void *context,
                                 fv_error *err)
{
    if (s->other || s->held.n_rows)
        return fv_fail(err, FV_ERR_STATE, 0,
                       "the session has run rows already; another decoder needs a new one");
    s->other = ops;
    s->other_context = context;
    s->max_context = FV_MIN(s->max_context, ops->max_rows);
    return FV_OK;
}

/* ---- how the next answer is chosen ------------------------------------------------------- */

static fv_status answer_check_options(const fv_session *s, const fv_answer_options *o,
                                      fv_error *err)
{
    if (o->max_new_tokens < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "max_new_tokens is %d; expected 0 (what the context leaves) or more",
                       o->max_new_tokens);
    if (o->n_stop)
        FV_REQUIRE(o->stop, err);
    for (size_t i = 0; i < o->n_stop; i++)
        if (!o->stop[i])
            return fv_fail(err, FV_ERR_ARGUMENT, 0, "stop[%zu] is NULL", i);
    if (o->n_bias)
        FV_REQUIRE(o->bias, err);
    for (size_t i = 0; i < o->n_bias; i++)
        if (o->bias[i].id < 0 || o->bias[i].id >= s->engine->model.config.n_vocab ||
            isnan(o->bias[i].bias))
            return fv_fail(err, FV_ERR_ARGUMENT, 0,
                           "bias[%zu] is %g for token %d; expected a number and a token up to %d",
                           i, (double)o->bias[i].bias, o->bias[i].id,
                           s->engine->model.config.n_vocab - 1);
    return FV_OK;
}

/* o: by the border's rules. On failure the rules are as they were. */
static fv_status rules_set(fv_session *s, const fv_answer_options *o, fv_error *err)
{
    fv_stream *stream = NULL;
    FV_TRY(answer_check_options(s, o, err));
    fv_logit_bias *bias = fv_alloc(o->n_bias, sizeof *bias);
    if (!bias)
        return fv_fail_memory(err, o->n_bias * sizeof *bias, "the bias");
    if (o->n_bias)
        memcpy(bias, o->bias, o->n_bias * sizeof *bias);
    fv_sampler_options sampling = { .temperature = o->temperature,
                                    .top_k = o->top_k,
                                    .top_p = o->top_p != 0 ? o->top_p : 1,
                                    .min_p = o->min_p,
                                    .repetition_penalty = o->repetition_penalty != 0
                                                              ? o->repetition_penalty
                                                              : 1,
                                    .seed = o->seed,
                                    .bias = bias,
                                    .n_bias = o->n_bias,
                                    .mask = o->mask,
                                    .chosen = o->chosen,
                                    .mask_user = o->mask_user,
                                    .n_top = o->n_logprobs };
    fv_status status = fv_stream_new(&stream, fv_tokenizer_max_bytes(s->engine->model.tokenizer),
                                     o->stop, o->n_stop, err);
    if (status == FV_OK)
        status = fv_sampler_set(s->sampler, &sampling, err);
    if (status != FV_OK) {
        fv_stream_free(stream);
        fv_free(bias);
        return status;
    }
    fv_stream_free(s->stream);
    fv_free(s->bias);
    s->stream = stream;
    s->bias = bias;
    s->max_new_tokens = o->max_new_tokens;
    s->ignore_end = o->ignore_end;
    return FV_OK;
}

static fv_status session_begin(fv_session *s, const fv_answer_options *options, fv_error *err)
{
    fv_answer_options o;
    if (s->phase == FV_PHASE_ANSWERING || s->phase == FV_PHASE_ENDING)
        return fv_fail(err, FV_ERR_STATE, 0,
                       "an answer is in progress; take it to its end, or add the next turn first");
    FV_TRY(FV_OPTIONS_IN(&o, fv_answer_options, options, err));
    FV_TRY(rules_set(s, &o, err));
    s->rules_given = true;
    return FV_OK;
}

fv_status fv_session_begin(fv_session *session, const fv_answer_options *options, fv_error *err)
{
    FV_REQUIRE(session, err);
    SESSION_CALL(session, session_begin(session, options, err));
}

/* ---- writing a turn ---------------------------------------------------------------------- */

/* An answer that is not taken further is part of the conversation as far as it came. */
void fv_session_settle(fv_session *s)
{
    if (s->phase == FV_PHASE_ANSWERING || s->phase == FV_PHASE_ENDING)
        s->rules_given = false;
    s->phase = FV_PHASE_IDLE;
    s->pending = -1;
    fv_turn_clear(&s->turn);
}

static void rows_drop(fv_session *s)
{
    fv_free(s->rows);
    s->rows = NULL;
}

/* The answer failed: the conversation is what it was before its turn. */
static void turn_fail(fv_session *s)
{
    rows_drop(s);
    fv_content_cut(&s->talk, s->turn_at);
    s->asked = s->asked.n_ids > s->turn_at.n_ids ? s->turn_at : s->asked;
    fv_session_settle(s);
    s->rules_given = false;
    s->has_logits = false;
    s->stats.context_used = (int)FV_MIN(s->held.n_rows, s->talk.n_rows);
}

/* Before the first piece of a turn: room to remember where it began. */
static fv_status turn_prepare(fv_session *s, fv_error *err)
{
    if (s->phase == FV_PHASE_WRITING)
        return FV_OK;
    return FV_LIST_ROOM(s->bounds, s->n_bounds, s->bounds_capacity, 1, err);
}

/* The first add_* after an answer begins a turn, whose first piece is there already. Cannot fail
 * after turn_prepare. */
static void turn_start(fv_session *s, double now)
{
    if (s->phase == FV_PHASE_WRITING)
        return;
    int used = s->stats.context_used;
    if (s->phase != FV_PHASE_IDLE) /* an answer is cut */
        s->rules_given = false;
    s->pending = -1;
    s->phase = FV_PHASE_WRITING;
    s->turn_at = fv_content_end(&s->talk);
    if (!s->n_bounds || s->bounds[s->n_bounds - 1].n_ids != s->turn_at.n_ids)
        s->bounds[s->n_bounds++] = s->turn_at;
    s->turn_start = now;
    s->stats = (fv_stats){ .context_used = used };
    s->has_logits = false;
}

/* Refuses what cannot fit however short the rest is. */
static fv_status turn_check_room(const fv_session *s, size_t n_rows, const char *what,
                                 fv_error *err)
{
    const fv_turn *t = &s->turn;
    bool writing = s->phase == FV_PHASE_WRITING;
    size_t held = s->talk.n_rows + (writing ? t->image_rows + t->ids.n : 0);
    if (n_rows < s->max_context && held + n_rows < s->max_context)
        return FV_OK;
    return fv_fail(
        err, FV_ERR_LIMIT, 0,
        "no room for %s: the context holds %zu tokens, %zu are in use, at least %zu more "
        "are needed and one must stay free for the answer; start a new conversation",
        what, s->max_context, held, FV_MAX(n_rows, (size_t)1));
}

/* Rows that n bytes of text take at least: NFC shortens it to a third at most. */
static size_t text_least_rows(const fv_session *s, size_t n_bytes)
{
    return n_bytes / 4 / FV_MAX(fv_tokenizer_max_bytes(s->engine->model.tokenizer), (size_t)1);
}

static fv_status session_add_features(fv_session *s, fv_features *f, double start, fv_error *err)
{
    if (f->d_model != (size_t)s->engine->model.config.d_model)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "the features have %zu values a row; expected %d, the model's d_model",
                       f->d_model, s->engine->model.config.d_model);
    FV_TRY(turn_check_room(s, f->n_rows, "an image", err));
    FV_TRY(turn_prepare(s, err));
    FV_TRY(fv_turn_add_image(&s->turn, f, err));
    turn_start(s, start);
    return FV_OK;
}

static fv_status session_add_image(fv_session *s, const fv_image *image,
                                   const fv_encode_options *options, fv_error *err)
{
    fv_encode_options o;
    fv_callbacks callbacks;
    fv_features *f = NULL;
    double start = fv_now_ms();
    FV_TRY(FV_OPTIONS_IN(&o, fv_encode_options, options, err));
    if (!o.callbacks)
        o.callbacks = &s->callbacks;
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (!o.tap) {
        o.tap = s->watch.tap;
        o.tap_user = s->watch.tap_user;
    }
    if (!o.layer) {
        o.layer = s->clock.fn;
        o.layer_user = s->clock.user;
    }
    if (!o.n_threads)
        o.n_threads = s->n_threads;
    FV_TRY(
        turn_check_room(s, (size_t)fv_config_image_tokens(s->engine->image_size), "an image", err));
    FV_TRY(fv_encoder_encode(&s->engine->encoder, image, &o, &f, err));
    fv_status status = session_add_features(s, f, start, err);
    if (status == FV_OK) {
        s->stats.image_ms += f->times.image;
        s->stats.preprocess_ms += f->times.preprocess;
        s->stats.vision_ms += f->times.vision;
        s->stats.projector_ms += f->times.projector;
    }
    fv_features_free(f);
    return status;
}

fv_status fv_session_add_image(fv_session *session, const fv_image *image,
                               const fv_encode_options *options, fv_error *err)
{
    FV_REQUIRE(session, err);
    FV_REQUIRE(image, err);
    SESSION_CALL(session, session_add_image(session, image, options, err));
}

fv_status fv_session_add_features(fv_session *session, fv_features *features, fv_error *err)
{
    FV_REQUIRE(session, err);
    FV_REQUIRE(features, err);
    SESSION_CALL(session, session_add_features(session, features, fv_now_ms(), err));
}

static fv_status session_add_text(fv_session *s, const char *text, size_t n_bytes, fv_error *err)
{
    size_t bad, before = s->phase == FV_PHASE_WRITING ? s->turn.n_text : 0;
    FV_TRY(turn_check_room(s, text_least_rows(s, before + n_bytes), "the text", err));
    if (!fv_utf8_valid(text, n_bytes, &bad))
        return fv_fail(err, FV_ERR_FORMAT, bad, "the text is not valid UTF-8 at byte %zu", bad);
    FV_TRY(turn_prepare(s, err));
    FV_TRY(fv_turn_add_text(&s->turn, text, n_bytes, err));
    turn_start(s, fv_now_ms());
    return FV_OK;
}

fv_status fv_session_add_text(fv_session *session, const char *text, size_t n_bytes, fv_error *err)
{
    FV_REQUIRE(session, err);
    if (n_bytes)
        FV_REQUIRE(text, err);
    SESSION_CALL(session, session_add_text(session, text, n_bytes, err));
}

static fv_status session_add_tokens(fv_session *s, const int32_t *ids, size_t n, fv_error *err)
{
    FV_TRY(turn_check_room(s, n, "the tokens", err));
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->engine->model.config.n_vocab)
            return fv_fail(err, FV_ERR_ARGUMENT, 0, "ids[%zu] is %d; expected 0 to %d", i, ids[i],
                           s->engine->model.config.n_vocab - 1);
    FV_TRY(turn_prepare(s, err));
    FV_TRY(fv_turn_add_ids(&s->turn, ids, n, err));
    turn_start(s, fv_now_ms());
    return FV_OK;
}

fv_status fv_session_add_tokens(fv_session *session, const int32_t *ids, size_t n, fv_error *err)
{
    FV_REQUIRE(session, err);
    if (n)
        FV_REQUIRE(ids, err);
    SESSION_CALL(session, session_add_tokens(session, ids, n, err));
}

/* ---- the conversation -------------------------------------------------------------------- */

/* Writes the turn into the conversation, with what stands before it. On failure nothing changed. */
static fv_status talk_add_turn(fv_session *s, fv_error *err)
{
    const fv_tokenizer *t = s->engine->model.tokenizer;
    fv_ids ids = { 0 };
    fv_status status;
    if (!s->talk.ids.n && s->system)
        FV_TRY(turn_check_room(s, text_least_rows(s, s->n_system), "the system prompt", err));
    if (s->talk.ids.n)
        status = fv_template_end(&ids, t, err);
    else if (s->system)
        status = fv_template_system(&ids, t, s->system, s->n_system, err);
    else
        status = fv_template_system(&ids, t, FV_DEFAULT_SYSTEM, strlen(FV_DEFAULT_SYSTEM), err);
    if (status == FV_OK)
        status = fv_turn_encode(&s->turn, t, &ids, err);
    if (status == FV_OK)
        status = fv_content_append(&s->talk, ids.data, ids.n, s->turn.images, err);
    fv_ids_free(&ids);
    return status;
}

static fv_status talk_check_room(const fv_session *s, fv_error *err)
{
    size_t before = s->turn_at.n_rows, n = s->talk.n_rows - before;
    if (s->talk.n_rows + 1 <= s->max_context)
        return FV_OK;
    return fv_fail(err, FV_ERR_LIMIT, 0,
                   "the prompt has %zu tokens, %zu of them image tokens; the context holds %zu "
                   "tokens, %zu are in use, and one must stay free for the answer: shorten the "
                   "prompt or start "
                   "a new conversation",
                   n, s->turn.image_rows, s->max_context, before);
}

/* Text of an answer behind the turn. */
static fv_status talk_add_answer(fv_session *s, const char *text, size_t n_bytes, fv_ids *ids,
                                 fv_error *err)
{
    FV_TRY(talk_add_turn(s, err));
    FV_TRY(fv_template_answer(ids, s->engine->model.tokenizer, text, n_bytes, err));
    FV_TRY(fv_content_append(&s->talk, ids->data, ids->n, NULL, err));
    return talk_check_room(s, err);
}

static fv_status session_add_answer(fv_session *s, const char *text, size_t n_bytes, fv_error *err)
{
    fv_ids ids = { 0 };
    if (s->phase != FV_PHASE_WRITING)
        return fv_fail(err, FV_ERR_STATE, 0, "there is no user turn before this answer");
    FV_TRY(turn_check_room(s, text_least_rows(s, n_bytes), "the answer", err));
    fv_status status = talk_add_answer(s, text, n_bytes, &ids, err);
    fv_ids_free(&ids);
    if (status != FV_OK)
        fv_content_cut(&s->talk, s->turn_at);
    else
        fv_session_settle(s);
    return status;
}

fv_status fv_session_add_answer(fv_session *session, const char *text, size_t n_bytes,
                                fv_error *err)
{
    FV_REQUIRE(session, err);
    if (n_bytes)
        FV_REQUIRE(text, err);
    SESSION_CALL(session, session_add_answer(session, text, n_bytes, err));
}

/* ---- the prompt -------------------------------------------------------------------------- */

/* Back to where a prompt may go on: its last few rows are always run. */
static fv_place talk_before_last(const fv_session *s, fv_place place, size_t most)
{
    size_t before = s->talk.n_rows > LEAST_ROWS ? s->talk.n_rows - LEAST_ROWS : 0;
    return fv_content_back(&s->talk, place, FV_MIN(most, before));
}

/* What the cache keeps of its rows: those of the conversation, but for the last few. */
static fv_place held_kept(const fv_session *s)
{
    return talk_before_last(s, fv_content_common(&s->talk, &s->held),
                            s->exact_reuse ? s->n_exact : SIZE_MAX);
}

/* rows [n, d_model] of the conversation from `from` on: embeddings, and images' features. */
static void rows_splice(const fv_session *s, float *rows, fv_place from)
{
    size_t d = (size_t)s->engine->model.config.d_model, image = from.n_images;
    for (size_t i = from.n_ids; i < s->talk.ids.n; i++) {
        if (s->talk.ids.data[i] == FV_IMAGE_MARK) {
            const fv_features *f = s->talk.images[image++];
            memcpy(rows, f->rows, f->n_rows * d * sizeof *rows);
            rows += f->n_rows * d;
        } else {
            fv_decoder_embed(&s->decoder, &s->ops, rows, &s->talk.ids.data[i], 1);
            rows += d;
        }
    }
}

/* Rows behind the first n_kept, through the decoder that is not the engine's. What it has seen is
 * lost when it fails. */
static fv_status other_run(fv_session *s, size_t n_kept, const float *rows, size_t n, fv_error *err)
{
    fv_status status = s->other->run(s->other_context, n_kept, rows, n, s->sequence.logits,
                                     &s->callbacks, err);
    s->sequence.kv.n = status == FV_OK ? n_kept + n : 0;
    if (status != FV_OK)
        fv_content_cut(&s->held, (fv_place){ 0 });
    return status;
}

/* Room in the cache for the prompt and what may follow. */
static fv_status cache_reserve(fv_session *s, fv_error *err)
{
    size_t answer = s->max_new_tokens ? (size_t)s->max_new_tokens : ANSWER_ROOM;
    size_t room = FV_MIN(s->max_context, s->talk.n_rows + FV_MIN(answer, (size_t)ANSWER_ROOM));
    return s->other ? FV_OK : fv_kv_reserve(&s->sequence.kv, room, err);
}

/* Everything behind `kept` leaves the cache, and there is room for what comes in its place. */
static fv_status held_prepare(fv_session *s, fv_place kept, fv_error *err)
{
    size_t left = s->max_context - s->talk.n_rows; /* tokens that may follow */
    FV_TRY(cache_reserve(s, err));
    FV_TRY(fv_content_reserve(&s->talk, left, 0, err));
    FV_TRY(fv_content_reserve(&s->held, s->talk.ids.n - kept.n_ids + left,
                              s->talk.n_images - kept.n_images, err));
    fv_content_cut(&s->held, kept);
    s->n_exact = FV_MIN(s->n_exact, kept.n_rows);
    s->foreign = s->foreign && kept.n_rows > 0;
    s->sequence.kv.n = kept.n_rows;
    return FV_OK;
}

/* The rows of the cache are those of the conversation up to `end`. Reserved: cannot fail. */
static void held_extend(fv_session *s, fv_place end)
{
    fv_place from = fv_content_end(&s->held);
    fv_error unused;
    fv_status status = fv_content_append(
        &s->held, s->talk.ids.data + from.n_ids, end.n_ids - from.n_ids,
        s->talk.images ? s->talk.images + from.n_images : NULL, &unused);
    assert(status == FV_OK);
    (void)status;
}

/* The turn joins the conversation; the cache keeps what it shares with it. */
static fv_status prompt_prepare(fv_session *s, fv_error *err)
{
    static const fv_answer_options plain = { .size = sizeof plain };
    s->step_start = fv_now_ms();
    if (!s->rules_given)
        FV_TRY(rules_set(s, &plain, err));
    FV_TRY(talk_add_turn(s, err));
    FV_TRY(talk_check_room(s, err));
    return held_prepare(s, held_kept(s), err);
}

fv_place fv_session_shared(const fv_session *s, const fv_session *from)
{
    fv_place held = fv_content_end(&s->held);
    if (s->n_exact < held.n_rows || from->n_exact < from->held.n_rows || s->foreign ||
        from->foreign || s->other || from->other ||
        fv_watch_taps(&s->watch)) /* who looks on sees every row */
        return held;
    fv_place shared = talk_before_last(s, fv_content_common(&s->talk, &from->talk), SIZE_MAX);
    return shared.n_rows > held.n_rows ? shared : held;
}

void fv_session_share(fv_session *s, const fv_session *from, fv_place shared)
{
    fv_kv_copy(&s->sequence.kv, &from->sequence.kv, shared.n_rows);
    held_extend(s, shared);
    s->n_exact = shared.n_rows;
}

fv_status fv_session_prompt(fv_session *s, fv_decoder_prompt *out, fv_error *err)
{
    size_t d = (size_t)s->engine->model.config.d_model, n = s->talk.n_rows - s->held.n_rows;
    s->rows = fv_alloc(n * d, sizeof *s->rows);
    if (!s->rows)
        return fv_fail_memory(err, n * d * sizeof *s->rows, "the prompt's rows");
    rows_splice(s, s->rows, fv_content_end(&s->held));
    *out = (fv_decoder_prompt){ .s = &s->sequence, .x = s->rows, .n = n, .watch = &s->watch };
    return fv_watch_rows(&s->watch, "inputs_embeds", s->rows, n, d, err);
}

/* The prompt alone. */
static fv_status prompt_step(fv_session *s, fv_error *err)
{
    FV_TRY(fv_session_prompt(s, &s->prompt, err));
    if (s->other)
        return other_run(s, s->held.n_rows, s->rows, s->prompt.n, err);
    FV_TRY(fv_decoder_reserve(&s->decoder, &s->ops, s->prompt.n, err));
    fv_decoder_run_prompts(&s->decoder, &s->ops, &s->prompt);
    if (s->prompt.status != FV_OK && err)
        *err = s->prompt.err;
    return s->prompt.status;
}

/* The prompt has gone through a decoder. */
static void prompt_settle(fv_session *s)
{
    size_t before = s->asked.n_rows, kept = s->held.n_rows;
    fv_place end = fv_content_end(&s->talk);
    held_extend(s, end);
    if (s->n_exact == kept && end.n_rows - kept >= LEAST_ROWS && !s->other)
        s->n_exact = end.n_rows;
    s->has_logits = true;
    s->stats.prompt_tokens = (int)(end.n_rows - before);
    s->stats.reused_tokens = kept > before ? (int)(kept - before) : 0;
    s->stats.image_tokens = 0;
    for (size_t i = s->asked.n_images; i < end.n_images; i++)
        s->stats.image_tokens += (int)s->talk.images[i]->n_rows;
    s->stats.context_used = (int)end.n_rows;
    s->stats.prefill_ms = fv_now_ms() - s->step_start;
    s->asked = end;
    rows_drop(s);
    fv_turn_clear(&s->turn);
    fv_stream_reset(s->stream);
    s->phase = FV_PHASE_ANSWERING;
}

static fv_status prompt_run(fv_session *s, fv_error *err)
{
    FV_TRY(prompt_prepare(s, err));
    FV_TRY(prompt_step(s, err));
    prompt_settle(s);
    return FV_OK;
}

/* ---- the answer -------------------------------------------------------------------------- */

static fv_status logits_tap(fv_session *s, fv_error *err)
{
    return fv_watch_rows(&s->watch, "logits_steps", s->sequence.logits, 1,
                         (size_t)s->engine->model.config.n_vocab, err);
}

/* The token chosen last goes through the decoder: room for it, and whether it may; the step itself;
 * what has changed then. fv_sessions_next takes the step of several sessions at once. */
static fv_status pending_prepare(fv_session *s, fv_error *err)
{
    FV_TRY(fv_watch_step(&s->watch, "decode", 0, err));
    if (!s->other) {
        FV_TRY(fv_decoder_reserve(&s->decoder, &s->ops, 1, err));
        FV_TRY(fv_kv_reserve(&s->sequence.kv, s->sequence.kv.n + 1, err));
    }
    return fv_content_reserve(&s->held, 1, 0, err);
}

static fv_status pending_embed_run(fv_session *s, fv_error *err)
{
    size_t d = (size_t)s->engine->model.config.d_model;
    float *row = fv_alloc(d, sizeof *row);
    if (!row)
        return fv_fail_memory(err, d * sizeof *row, "a row");
    fv_decoder_embed(&s->decoder, &s->ops, row, &s->pending, 1);
    fv_status status = other_run(s, s->sequence.kv.n, row, 1, err);
    fv_free(row);
    return status;
}

static fv_status pending_step(fv_session *s, fv_error *err)
{
    fv_sequence *sequence = &s->sequence;
    if (s->other)
        return pending_embed_run(s, err);
    fv_decoder_step(&s->decoder, &s->ops, &sequence, &s->pending, 1);
    return FV_OK;
}

static fv_status pending_settle(fv_session *s, fv_error *err)
{
    FV_TRY(fv_content_append(&s->held, &s->pending, 1, NULL, err));
    s->pending = -1;
    s->asked = fv_content_end(&s->talk);
    s->stats.context_used = (int)s->held.n_rows;
    return FV_OK;
}

static fv_status pending_run(fv_session *s, fv_error *err)
{
    FV_TRY(pending_prepare(s, err));
    FV_TRY(pending_step(s, err));
    return pending_settle(s, err);
}

static fv_status pending_set(fv_session *s, int32_t id, fv_error *err)
{
    FV_TRY(fv_content_append(&s->talk, &id, 1, NULL, err));
    s->pending = id;
    return FV_OK;
}

/* Logits for the next token: those behind the prompt, or behind the token chosen last. */
static fv_status logits_ready(fv_session *s, fv_error *err)
{
    FV_TRY(s->phase == FV_PHASE_WRITING ? prompt_run(s, err) : pending_run(s, err));
    return logits_tap(s, err);
}

/* Ends the answer; the stream may still hold text back (none after a stop string). */
static fv_status answer_end(fv_session *s, fv_piece *out, fv_finish why)
{
    if (why != FV_FINISH_STOP_STRING && fv_stream_finish(s->stream, &out->text, &out->n_bytes))
        why = FV_FINISH_STOP_STRING;
    out->done = true;
    out->finish = why;
    fv_session_settle(s);
    return FV_OK;
}

static fv_status token_choose(fv_session *s, fv_piece *out, double start, fv_error *err)
{
    const fv_tokenizer *t = s->engine->model.tokenizer;
    size_t n_bytes = 0;
    FV_TRY(fv_sampler_pick(s->sampler, s->sequence.logits, s->talk.ids.data, s->talk.ids.n,
                           &out->id, err));
    out->logprob = fv_sampler_logprob(s->sampler);
    out->top = fv_sampler_top(s->sampler, &out->n_top);
    double now = fv_now_ms();
    if (s->stats.new_tokens++ == 0)
        s->stats.first_token_ms = now - s->turn_start;
    else
        s->stats.decode_ms += now - start;
    if (!s->ignore_end && fv_end_tokens_have(&s->engine->ends, out->id))
        return answer_end(s, out, FV_FINISH_STOP);
    FV_TRY(pending_set(s, out->id, err));
    const char *bytes = fv_tokenizer_bytes(t, out->id, &n_bytes);
    if (!fv_tokenizer_is_special(t, out->id) &&
        fv_stream_push(s->stream, bytes, n_bytes, &out->text, &out->n_bytes))
        return answer_end(s, out, FV_FINISH_STOP_STRING);
    if ((s->max_new_tokens && s->stats.new_tokens >= s->max_new_tokens) ||
        s->held.n_rows + 1 >= s->max_context)
        s->phase = FV_PHASE_ENDING;
    return FV_OK;
}

fv_status fv_session_next_begin(fv_session *s, fv_error *err)
{
    fv_status status = FV_OK;
    s->step_start = fv_now_ms();
    if (s->phase == FV_PHASE_IDLE)
        return fv_fail(err, FV_ERR_STATE, 0, "there is nothing to answer: add an image or text");
    bool full = s->phase == FV_PHASE_ANSWERING && s->held.n_rows + 1 >= s->max_context;
    if (s->phase == FV_PHASE_ENDING || full) { /* forced tokens may have filled the context */
        s->step = FV_STEP_END;
    } else if (s->phase == FV_PHASE_WRITING) {
        status = prompt_prepare(s, err);
        s->step = FV_STEP_PROMPT;
    } else {
        status = pending_prepare(s, err);
        s->step = FV_STEP_RUN;
    }
    if (status != FV_OK)
        turn_fail(s);
    return status;
}

fv_status fv_session_next_step(fv_session *s, fv_error *err)
{
    fv_status status = s->step == FV_STEP_PROMPT ? prompt_step(s, err) : pending_step(s, err);
    if (status != FV_OK)
        turn_fail(s);
    return status;
}

fv_status fv_session_next_end(fv_session *s, fv_piece *out, fv_error *err)
{
    fv_status status = FV_OK;
    if (s->step == FV_STEP_END)
        return answer_end(s, out, FV_FINISH_LENGTH);
    if (s->step == FV_STEP_PROMPT)
        prompt_settle(s);
    else
        status = pending_settle(s, err);
    if (status == FV_OK)
        status = logits_tap(s, err);
    if (status == FV_OK)
        status = token_choose(s, out, s->step_start, err);
    if (status != FV_OK)
        turn_fail(s);
    return status;
}

void fv_session_next_fail(fv_session *s) { turn_fail(s); }

static fv_status session_next(fv_session *s, fv_piece *out, fv_error *err)
{
    FV_TRY(fv_session_next_begin(s, err));
    if (s->step != FV_STEP_END)
        FV_TRY(fv_session_next_step(s, err));
    return fv_session_next_end(s, out, err);
}

fv_status fv_session_next(fv_session *session, fv_piece *out, fv_error *err)
{
    fv_piece piece = { .text = "", .id = -1, .logprob = NAN };
    fv_fpenv caller;
    FV_REQUIRE(session, err);
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_piece, err));
    FV_TRY(fv_session_enter(session, &caller, err));
    fv_status status = session_next(session, &piece, err);
    fv_session_leave(session, &caller);
    if (status != FV_OK)
        piece = (fv_piece){ .text = "", .id = -1, .logprob = NAN };
    fv_result_out(out, &piece, sizeof piece);
    return status;
}

static fv_status session_force(fv_session *s, int32_t id, fv_error *err)
{
    if (id < 0 || id >= s->engine->model.config.n_vocab)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "id is %d; expected 0 to %d", id,
                       s->engine->model.config.n_vocab - 1);
    if (s->phase != FV_PHASE_WRITING && s->phase != FV_PHASE_ANSWERING)
        return fv_fail(err, FV_ERR_STATE, 0, "there is no turn that a token could answer");
    if (s->phase == FV_PHASE_ANSWERING && s->held.n_rows + 1 >= s->max_context)
        return fv_fail(err, FV_ERR_LIMIT, 0, "the context of %zu tokens is full", s->max_context);
    fv_status status = logits_ready(s, err);
    if (status == FV_OK)
        status = pending_set(s, id, err);
    if (status != FV_OK)
        turn_fail(s);
    return status;
}

fv_status fv_session_force(fv_session *session, int32_t id, fv_error *err)
{
    FV_REQUIRE(session, err);
    SESSION_CALL(session, session_force(session, id, err));
}

const float *fv_session_logits(const fv_session *s, size_t *n)
{
    bool there = s && s->has_logits;
    if (n)
        *n = there ? (size_t)s->engine->model.config.n_vocab : 0;
    return there ? s->sequence.logits : NULL;
}

/* One token of an answer that is scored. */
static fv_status score_token(fv_session *s, int32_t id, fv_score *score, fv_error *err)
{
    bool greedy = false;
    if (s->phase == FV_PHASE_ANSWERING && s->held.n_rows + 1 >= s->max_context)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "the answer does not fit into the context of %zu tokens", s->max_context);
    FV_TRY(logits_ready(s, err));
    score->logprob += fv_sampler_score(s->sampler, s->sequence.logits, id, &greedy);
    score->n_greedy += greedy;
    score->n_tokens++;
    return FV_OK;
}

static fv_status score_answer(fv_session *s, const fv_ids *ids, fv_score *score, fv_error *err)
{
    for (size_t i = 0; i < ids->n; i++) {
        FV_TRY(score_token(s, ids->data[i], score, err));
        FV_TRY(pending_set(s, ids->data[i], err));
    }
    return score_token(s, fv_tokenizer_find(s->engine->model.tokenizer, "<|im_end|>"), score, err);
}

static fv_status session_score(fv_session *s, const char *answer, size_t n_bytes, fv_score *score,
                               fv_error *err)
{
    fv_ids ids = { 0 };
    if (s->phase != FV_PHASE_WRITING)
        return fv_fail(err, FV_ERR_STATE, 0, "there is no user turn before this answer");
    fv_status status = turn_check_room(s, text_least_rows(s, n_bytes), "the answer", err);
    if (status == FV_OK)
        status = fv_template_answer(&ids, s->engine->model.tokenizer, answer, n_bytes, err);
    if (status == FV_OK)
        status = score_answer(s, &ids, score, err);
    fv_ids_free(&ids);
    if (status != FV_OK)
        turn_fail(s);
    else
        fv_session_settle(s);
    return status;
}

fv_status fv_session_score(fv_session *session, const char *answer, size_t n_bytes, fv_score *out,
                           fv_error *err)
{
    fv_score score = { 0 };
    fv_fpenv caller;
    FV_REQUIRE(session, err);
    if (n_bytes)
        FV_REQUIRE(answer, err);
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_score, err));
    FV_TRY(fv_session_enter(session, &caller, err));
    fv_status status = session_score(session, answer, n_bytes, &score, err);
    fv_session_leave(session, &caller);
    if (status == FV_OK)
        fv_result_out(out, &score, sizeof score);
    return status;
}

/* ---- another conversation ---------------------------------------------------------------- */

void fv_session_reset(fv_session *s)
{
    if (!s || atomic_load(&s->busy))
        return;
    fv_session_settle(s);
    fv_content_cut(&s->talk, (fv_place){ 0 });
    s->n_bounds = 0;
    s->asked = s->turn_at = (fv_place){ 0 };
    s->rules_given = false;
    s->has_logits = false;
    s->stats = (fv_stats){ 0 };
}

void fv_session_stats(const fv_session *s, fv_stats *out)
{
    if (s)
        fv_result_out(out, &s->stats, sizeof s->stats);
}
