/* session: one conversation. The whole product in one file:
 *
 *     add_image   file -> pixels -> features -> image tokens       kept for the turn
 *     add_text    the user's words                                 kept for the turn
 *     next        turn -> ids -> rows, image tokens spliced in -> decoder -> logits
 *                 logits -> id -> bytes -> text                    one token a call
 */
#include <string.h>

#include "engine/session.h"
#include "base/sized.h"
#include "base/outfile.h"
#include "engine/engine.h"
#include "image/image.h"
#include "io/npy.h"
#include "nn/decoder.h"
#include "nn/sampler.h"
#include "nn/vision.h"
#include "nn/watch.h"
#include "text/template.h"
#include "text/utf8.h"

typedef enum phase {
    PHASE_IDLE,      /* nothing written */
    PHASE_WRITING,   /* a user turn is being written */
    PHASE_ANSWERING, /* the prompt is in the cache */
    PHASE_ENDING     /* the last token is out, the end of the answer is not */
} phase;

struct fv_session {
    const fv_engine *engine;
    fv_session_options options;
    char *system, *dump_dir; /* copies */
    fv_callbacks callbacks;
    fv_watch watch;
    fv_outdir dump; /* being filled for the next complete answer */
    size_t max_context;
    phase phase;

    /* the turn being written */
    char *text;
    size_t n_text, text_capacity;
    float *image_rows; /* [n_images * T, d_model] */
    size_t n_images, image_capacity;
    double turn_start;

    /* the conversation */
    fv_ids history;  /* ids in the cache and chosen, FV_IMAGE_MARK for a picture */
    int32_t pending; /* chosen, not yet in the cache; -1: none */
    bool begun;      /* the system part is in the cache */

    /* the model's working parts */
    fv_ops ops;
    fv_vision vision; /* memory taken with the first picture */
    bool has_vision;
    uint8_t *pixels_u8;
    float *pixels;
    fv_decoder decoder;
    fv_sequence sequence;
    fv_sampler *sampler;
    fv_stream *stream;

    float *steps; /* dump: logits of every step */
    size_t n_steps;
    fv_stats stats;
};

static fv_status check_options(const fv_engine *e, const fv_session_options *o, fv_error *err)
{
    if (o->max_new_tokens < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "max_new_tokens is %d; expected 0 (automatic) or more", o->max_new_tokens);
    if (o->max_context < 0 || o->max_context > e->model.config.max_context)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "max_context is %d; expected 0 to %d, the model's limit", o->max_context,
                       e->model.config.max_context);
    if ((unsigned)o->fit > FV_FIT_STRETCH)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "unknown fit; expected pad, crop or stretch");
    return FV_OK;
}

static fv_status init_parts(fv_session *s, const fv_session_options *o, fv_error *err)
{
    const fv_engine *e = s->engine;
    fv_type act = e->model.decoder == FV_TYPE_BF16 ? FV_TYPE_BF16 : FV_TYPE_F32;
    static const fv_type kv_types[] = { FV_TYPE_F16, FV_TYPE_F32, FV_TYPE_F16, FV_TYPE_I8 };
    fv_type kv = e->kv == FV_KV_AUTO && e->model.decoder == FV_TYPE_F32 ? FV_TYPE_F32
                                                                        : kv_types[e->kv];
    fv_sampler_options sampling = { .temperature = o->temperature,
                                    .top_k = o->top_k,
                                    .top_p = o->top_p ? o->top_p : 1.0f,
                                    .min_p = o->min_p,
                                    .repetition_penalty = o->repetition_penalty
                                                              ? o->repetition_penalty
                                                              : 1.0f,
                                    .seed = o->seed };
    FV_TRY(fv_ops_init(&s->ops, &e->model.kernels, e->model.pool, err));
    FV_TRY(fv_decoder_init(&s->decoder, &e->model.config, &e->model.weights.decoder, act, err));
    FV_TRY(fv_sequence_init(&s->sequence, &e->model.config, kv, err));
    FV_TRY(fv_sampler_new(&s->sampler, &sampling, (size_t)e->model.config.n_vocab,
                          (size_t)fv_tokenizer_size(e->model.tokenizer), err));
    for (int32_t id = 0; id < fv_tokenizer_size(e->model.tokenizer); id++)
        if (!fv_tokenizer_has(e->model.tokenizer, id))
            fv_sampler_forbid(s->sampler, id);
    if (e->image_token >= 0)
        fv_sampler_forbid(s->sampler, e->image_token);
    FV_TRY(fv_stream_new(&s->stream, fv_tokenizer_max_bytes(e->model.tokenizer), o->stop, o->n_stop,
                         err));
    s->system = o->system ? fv_alloc(o->n_system_bytes + 1, 1) : NULL;
    if (s->system) {
        memcpy(s->system, o->system, o->n_system_bytes);
        s->system[o->n_system_bytes] = 0;
    }
    s->dump_dir = o->dump_dir ? fv_strdup(o->dump_dir) : NULL;
    if ((o->system && !s->system) || (o->dump_dir && !s->dump_dir))
        return fv_fail_memory(err, o->n_system_bytes, "a session");
    return FV_OK;
}

/* ---- dumps: the files of an answer appear when it is complete ---------------------------- */

static fv_status begin_dump(fv_session *s, fv_error *err)
{
    if (!s->dump_dir || s->dump.stage)
        return FV_OK;
    FV_TRY(fv_outdir_open(&s->dump, s->dump_dir, true, NULL, err));
    s->watch.dump_dir = s->dump.stage;
    return FV_OK;
}

static fv_status end_dump(fv_session *s, fv_error *err)
{
    s->watch.dump_dir = NULL;
    return s->dump.stage ? fv_outdir_commit(&s->dump, err) : FV_OK;
}

static void drop_dump(fv_session *s)
{
    s->watch.dump_dir = NULL;
    fv_outdir_abandon(&s->dump);
}

fv_status fv_session_new(fv_session **out, fv_engine *engine, const fv_session_options *options,
                         fv_error *err)
{
    fv_session_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(engine, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_session_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(check_options(engine, &o, err));
    fv_session *s = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "a session");
    s->engine = engine;
    s->options = o;
    s->pending = -1;
    s->max_context = (size_t)(o.max_context ? o.max_context : engine->model.config.max_context);
    s->callbacks = callbacks;
    s->watch = (fv_watch){ .callbacks = &s->callbacks };
    fv_status status = init_parts(s, &o, err);
    if (status == FV_OK)
        status = begin_dump(s, err);
    if (status != FV_OK) {
        fv_session_free(s);
        return status;
    }
    *out = s;
    return FV_OK;
}

void fv_session_free(fv_session *s)
{
    if (!s)
        return;
    drop_dump(s);
    fv_vision_free(&s->vision);
    fv_decoder_free(&s->decoder);
    fv_sequence_free(&s->sequence);
    fv_ops_free(&s->ops);
    fv_sampler_free(s->sampler);
    fv_stream_free(s->stream);
    fv_ids_free(&s->history);
    fv_free(s->pixels_u8);
    fv_free(s->pixels);
    fv_free(s->image_rows);
    fv_free(s->text);
    fv_free(s->system);
    fv_free(s->dump_dir);
    fv_free(s->steps);
    fv_free(s);
}

/* ---- writing a turn ---------------------------------------------------------------------- */

/* The first add_* after an answer starts a turn. An answer that was not taken to its end is cut. */
static void start_turn(fv_session *s)
{
    if (s->phase == PHASE_WRITING)
        return;
    int used = s->stats.context_used;
    s->phase = PHASE_WRITING;
    s->n_text = 0;
    s->n_images = 0;
    s->turn_start = fv_now_ms();
    s->stats = (fv_stats){ .context_used = used };
}

static void drop_turn(fv_session *s)
{
    s->phase = PHASE_IDLE;
    s->n_text = 0;
    s->n_images = 0;
}

static fv_status prepare_vision(fv_session *s, fv_error *err)
{
    const fv_engine *e = s->engine;
    size_t n = (size_t)e->image_size * (size_t)e->image_size * 3;
    if (s->has_vision)
        return FV_OK;
    if (!s->pixels_u8)
        s->pixels_u8 = fv_alloc(n, 1);
    if (!s->pixels)
        s->pixels = fv_alloc(n, sizeof *s->pixels);
    if (!s->pixels_u8 || !s->pixels)
        return fv_fail_memory(err, n * sizeof *s->pixels, "pixels");
    fv_vision_free(&s->vision);
    FV_TRY(fv_vision_init(&s->vision, &e->model.config, &e->model.weights.vision, e->image_size,
                          e->model.vision, &s->ops, err));
    s->has_vision = true;
    return FV_OK;
}

static fv_status reserve_image(fv_session *s, size_t n, fv_error *err)
{
    size_t rows = (size_t)fv_config_image_tokens(s->engine->image_size),
           d = (size_t)s->engine->model.config.d_model;
    if (n * rows > s->max_context)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "%zu pictures of %zu rows each do not fit the context of %zu rows", n, rows,
                       s->max_context);
    if (n <= s->image_capacity)
        return FV_OK;
    float *grown = fv_grow(s->image_rows, s->n_images * rows * d, n * rows * d, sizeof *grown);
    if (!grown)
        return fv_fail_memory(err, n * rows * d * sizeof *grown, "image tokens");
    s->image_rows = grown;
    s->image_capacity = n;
    return FV_OK;
}

static fv_status see(fv_session *s, const fv_image *image, fv_error *err)
{
    const fv_engine *e = s->engine;
    size_t size = (size_t)e->image_size, rows = (size_t)fv_config_image_tokens(e->image_size);
    fv_fit fit = s->options.fit != FV_FIT_AUTO ? s->options.fit
                 : e->model.config.crop        ? FV_FIT_CROP
                                               : FV_FIT_PAD;
    double start = fv_now_ms();
    FV_TRY(reserve_image(s, (s->phase == PHASE_WRITING ? s->n_images : 0) + 1, err));
    FV_TRY(prepare_vision(s, err));
    FV_TRY(begin_dump(s, err));

    FV_TRY(fv_preprocess(s->pixels, s->pixels_u8, image, fit, e->image_size, e->model.pool,
                         &e->model.kernels, err));
    if (fv_watch_dumps(&s->watch))
        FV_TRY(fv_npy_write(s->watch.dump_dir, "pixels_u8", FV_TYPE_U8, s->pixels_u8,
                            (size_t[]){ size, size, 3 }, 3, err));
    double at_vision = fv_now_ms();
    FV_TRY(fv_vision_run(&s->vision, &s->ops, s->pixels, &s->watch, err));
    double at_projector = fv_now_ms();
    size_t slot = s->phase == PHASE_WRITING ? s->n_images : 0;
    FV_TRY(fv_projector_run(&s->vision, &s->ops,
                            s->image_rows + slot * rows * (size_t)e->model.config.d_model,
                            &s->watch, err));

    if (s->phase != PHASE_WRITING) {
        start_turn(s);
        s->turn_start = start;
    }
    s->n_images++;
    s->stats.image_ms += fv_image_decode_ms(image);
    s->stats.preprocess_ms += at_vision - start;
    s->stats.vision_ms += at_projector - at_vision;
    s->stats.projector_ms += fv_now_ms() - at_projector;
    return FV_OK;
}

fv_status fv_session_add_image(fv_session *session, const fv_image *image, fv_error *err)
{
    fv_session *s = session;
    FV_REQUIRE(session, err);
    FV_REQUIRE(image, err);
    fv_status status = see(s, image, err);
    if (status != FV_OK)
        drop_dump(s);
    return status;
}

fv_status fv_session_add_rows(fv_session *s, const float *rows, fv_error *err)
{
    size_t n = (size_t)fv_config_image_tokens(s->engine->image_size) *
               (size_t)s->engine->model.config.d_model;
    size_t slot = s->phase == PHASE_WRITING ? s->n_images : 0;
    FV_TRY(reserve_image(s, slot + 1, err));
    memcpy(s->image_rows + slot * n, rows, n * sizeof *rows);
    start_turn(s);
    s->n_images++;
    return FV_OK;
}

const float *fv_session_rows(const fv_session *s)
{
    size_t n = (size_t)fv_config_image_tokens(s->engine->image_size) *
               (size_t)s->engine->model.config.d_model;
    return s->phase == PHASE_WRITING && s->n_images ? s->image_rows + (s->n_images - 1) * n : NULL;
}

fv_status fv_session_add_text(fv_session *session, const char *text, size_t n_bytes, fv_error *err)
{
    fv_session *s = session;
    FV_REQUIRE(session, err);
    if (n_bytes)
        FV_REQUIRE(text, err);
    size_t n = n_bytes, bad, before = s->phase == PHASE_WRITING ? s->n_text : 0;
    if (!fv_utf8_valid(text, n, &bad))
        return fv_fail(err, FV_ERR_FORMAT, bad, "the text is not valid UTF-8 at byte %zu", bad);
    if (before + n + 1 > s->text_capacity) {
        char *grown = fv_grow(s->text, before, before + n + 1, 1);
        if (!grown)
            return fv_fail_memory(err, before + n + 1, "the prompt");
        s->text = grown;
        s->text_capacity = before + n + 1;
    }
    start_turn(s);
    if (n)
        memcpy(s->text + before, text, n);
    s->text[before + n] = 0;
    s->n_text = before + n;
    return FV_OK;
}

/* ---- the prompt -------------------------------------------------------------------------- */

/* rows [n, d_model]: embeddings, and for every mark the rows of the next picture. */
static void splice(fv_session *s, float *rows, const fv_ids *ids)
{
    size_t d = (size_t)s->engine->model.config.d_model,
           t = (size_t)fv_config_image_tokens(s->engine->image_size), image = 0;
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->data[i] == FV_IMAGE_MARK) {
            memcpy(rows, s->image_rows + image++ * t * d, t * d * sizeof *rows);
            rows += t * d;
        } else {
            fv_decoder_embed(&s->decoder, &s->ops, rows, &ids->data[i], 1);
            rows += d;
        }
    }
}

static fv_status push_history(fv_session *s, const fv_ids *ids, fv_error *err)
{
    size_t before = s->history.n;
    for (size_t i = 0; i < ids->n; i++) {
        fv_status status = fv_ids_push(&s->history, ids->data[i], err);
        if (status != FV_OK) {
            s->history.n = before;
            return status;
        }
    }
    return FV_OK;
}

/* Reserves room in the history so that choosing a token does not allocate. */
static fv_status reserve_history(fv_session *s, size_t n, fv_error *err)
{
    size_t before = s->history.n;
    for (size_t i = 0; i < n; i++)
        FV_TRY(fv_ids_push(&s->history, 0, err));
    s->history.n = before;
    return FV_OK;
}

static fv_status run_ids(fv_session *s, const fv_ids *ids, fv_error *err)
{
    size_t d = (size_t)s->engine->model.config.d_model,
           t = (size_t)fv_config_image_tokens(s->engine->image_size);
    size_t n = ids->n - s->n_images + s->n_images * t, held = s->sequence.kv.n;
    fv_status status = FV_OK;
    float *rows = NULL;
    if (held + n + 1 > s->max_context)
        return fv_fail(
            err, FV_ERR_LIMIT, 0,
            "the prompt has %zu rows, %zu of them of pictures; the context of %zu rows holds %zu "
            "already and one "
            "must stay free for the answer: shorten the prompt or start a new conversation",
            n, s->n_images * t, s->max_context, held);
    size_t answer = s->options.max_new_tokens ? (size_t)s->options.max_new_tokens : 512;
    size_t room = FV_MIN(s->max_context, held + n + FV_MIN(answer, (size_t)512));
    rows = fv_alloc(n * d, sizeof *rows);
    if (!rows)
        return fv_fail_memory(err, n * d * sizeof *rows, "the prompt's rows");
    FV_TRY_GOTO(fv_kv_reserve(&s->sequence.kv, room, err));
    FV_TRY_GOTO(fv_decoder_reserve(&s->decoder, &s->ops, n, err));
    splice(s, rows, ids);
    FV_TRY_GOTO(fv_watch_rows(&s->watch, "inputs_embeds", rows, n, d, err));
    FV_TRY_GOTO(fv_decoder_run(&s->decoder, &s->ops, &s->sequence, rows, n, &s->watch, err));
    s->stats.prompt_tokens = (int)n;
    s->stats.image_tokens = (int)(s->n_images * t);
fail:
    fv_free(rows);
    return status;
}

static fv_status run_prompt(fv_session *s, fv_error *err)
{
    double start = fv_now_ms();
    fv_ids ids = { 0 };
    size_t history = s->history.n;
    fv_turn turn = { .start = s->begun ? FV_TURN_AFTER_CUT : FV_TURN_FIRST,
                     .system = s->system,
                     .user = s->text ? s->text : "",
                     .n_user_bytes = s->n_text,
                     .n_images = s->n_images };
    fv_status status = FV_OK;
    FV_TRY_GOTO(begin_dump(s, err));
    if (s->pending >= 0) /* the last token of a cut answer */
        FV_TRY_GOTO(fv_ids_push(&ids, s->pending, err));
    FV_TRY_GOTO(fv_template_turn(&ids, s->engine->model.tokenizer, &turn, err));
    if (s->pending >= 0) /* it is in the history already */
        s->history.n--;
    status = push_history(s, &ids, err);
    if (status == FV_OK)
        status = reserve_history(s, s->max_context, err);
    if (status == FV_OK)
        status = run_ids(s, &ids, err);
    if (status != FV_OK) {
        s->history.n = history;
        goto fail;
    }
    s->pending = -1;
    s->begun = true;
    s->phase = PHASE_ANSWERING;
    fv_stream_reset(s->stream);
    s->stats.prefill_ms = fv_now_ms() - start;
    s->stats.context_used = (int)s->sequence.kv.n;
fail:
    fv_ids_free(&ids);
    return status;
}

/* ---- the answer -------------------------------------------------------------------------- */

static bool is_end(const fv_session *s, int32_t id)
{
    for (int i = 0; i < s->engine->n_eos && !s->options.ignore_end; i++)
        if (s->engine->eos[i] == id)
            return true;
    return false;
}

static fv_status keep_step(fv_session *s, fv_error *err)
{
    size_t v = (size_t)s->engine->model.config.n_vocab;
    if (!fv_watch_dumps(&s->watch))
        return FV_OK;
    float *grown = fv_grow(s->steps, s->n_steps * v, (s->n_steps + 1) * v, sizeof *grown);
    if (!grown)
        return fv_fail_memory(err, (s->n_steps + 1) * v * sizeof *grown, "a dump");
    s->steps = grown;
    memcpy(s->steps + s->n_steps++ * v, s->sequence.logits, v * sizeof *grown);
    fv_status status = fv_watch_rows(&s->watch, "logits_steps", s->steps, s->n_steps, v, err);
    if (status != FV_OK)
        drop_dump(s);
    return status;
}

/* Ends the answer; the stream may still hold text back (none after a stop string). */
static fv_status finish(fv_session *s, fv_piece *out, fv_finish why, fv_error *err)
{
    if (why != FV_FINISH_STOP_STRING && fv_stream_finish(s->stream, &out->text, &out->n_bytes))
        why = FV_FINISH_STOP_STRING;
    out->done = true;
    out->finish = why;
    drop_turn(s);
    return end_dump(s, err);
}

/* Runs the token chosen last through the decoder. */
static fv_status step(fv_session *s, fv_error *err)
{
    FV_TRY(fv_watch_step(&s->watch, "decode", 0, err));
    FV_TRY(fv_kv_reserve(&s->sequence.kv, s->sequence.kv.n + 1, err));
    fv_decoder_step(&s->decoder, &s->ops, &(fv_sequence *){ &s->sequence }, &s->pending, 1);
    s->pending = -1;
    return FV_OK;
}

static fv_status next_token(fv_session *s, fv_piece *out, fv_error *err)
{
    double start = fv_now_ms();
    size_t n_bytes = 0;
    bool stopped = false;
    *out = (fv_piece){ .text = "", .id = -1 };
    if (s->phase == PHASE_IDLE)
        return fv_fail(err, FV_ERR_STATE, 0, "no question to answer: add a picture or text first");
    if (s->phase == PHASE_ENDING)
        return finish(s, out, FV_FINISH_LENGTH, err);
    if (s->phase == PHASE_WRITING) {
        fv_status status = run_prompt(s, err);
        if (status != FV_OK) {
            drop_turn(s);
            drop_dump(s);
            return status;
        }
    } else {
        FV_TRY(step(s, err));
    }
    FV_TRY(keep_step(s, err));
    int32_t id;
    FV_TRY(
        fv_sampler_pick(s->sampler, s->sequence.logits, s->history.data, s->history.n, &id, err));
    out->id = id;
    double now = fv_now_ms();
    if (s->stats.new_tokens++ == 0)
        s->stats.first_token_ms = now - s->turn_start;
    else
        s->stats.decode_ms += now - start;
    s->stats.context_used = (int)s->sequence.kv.n;
    if (is_end(s, id))
        return finish(s, out, FV_FINISH_STOP, err);
    s->pending = id;
    FV_TRY(fv_ids_push(&s->history, id, err));
    const char *bytes = fv_tokenizer_bytes(s->engine->model.tokenizer, id, &n_bytes);
    if (!fv_tokenizer_is_special(s->engine->model.tokenizer, id))
        stopped = fv_stream_push(s->stream, bytes, n_bytes, &out->text, &out->n_bytes);
    if (stopped)
        return finish(s, out, FV_FINISH_STOP_STRING, err);
    if ((s->options.max_new_tokens && s->stats.new_tokens >= s->options.max_new_tokens) ||
        s->sequence.kv.n + 1 >= s->max_context)
        s->phase = PHASE_ENDING;
    return FV_OK;
}

fv_status fv_session_next(fv_session *session, fv_piece *out, fv_error *err)
{
    fv_piece piece;
    FV_REQUIRE(session, err);
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_piece, err));
    fv_status status = next_token(session, &piece, err);
    fv_result_out(out, &piece, sizeof piece);
    return status;
}

fv_status fv_session_force(fv_session *s, int32_t id, fv_error *err)
{
    if (id < 0 || id >= s->engine->model.config.n_vocab)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "token %d; expected 0 to %d", id,
                       s->engine->model.config.n_vocab - 1);
    if (s->phase == PHASE_WRITING) {
        fv_status status = run_prompt(s, err);
        if (status != FV_OK) {
            drop_turn(s);
            drop_dump(s);
            return status;
        }
    } else if (s->phase == PHASE_ANSWERING) {
        if (s->sequence.kv.n + 1 >= s->max_context)
            return fv_fail(err, FV_ERR_LIMIT, 0, "the context of %zu rows is full", s->max_context);
        FV_TRY(step(s, err));
    } else {
        return fv_fail(err, FV_ERR_STATE, 0, "no question that a token could answer");
    }
    s->stats.context_used = (int)s->sequence.kv.n;
    FV_TRY(fv_ids_push(&s->history, id, err));
    s->pending = id;
    return FV_OK;
}

const float *fv_session_logits(const fv_session *s) { return s->sequence.logits; }

void fv_session_tap(fv_session *s, fv_tap_fn *tap, void *user)
{
    s->watch.tap = tap;
    s->watch.tap_user = user;
}

void fv_session_reset(fv_session *s)
{
    if (!s)
        return;
    drop_turn(s);
    drop_dump(s);
    s->sequence.kv.n = 0;
    s->history.n = 0;
    s->pending = -1;
    s->begun = false;
    s->n_steps = 0;
    s->stats = (fv_stats){ 0 };
    fv_sampler_seed(s->sampler, s->options.seed);
}

void fv_session_stats(const fv_session *s, fv_stats *out)
{
    if (s)
        fv_result_out(out, &s->stats, sizeof s->stats);
}
