/* Prompts with images and the model's own answers, as rows. See answers.h. */
#include "base/list.h"
#include "pack/answers.h"

#include <string.h>

#include "model/model.h"
#include "nn/decoder.h"
#include "nn/sampler.h"
#include "nn/vision.h"
#include "text/template.h"

enum {
    IMAGES = 16, /* at 1024 x 1024, 256 rows each; of smaller ones up to four times as many */
    ANSWER_TOKENS = 32
};

/* Asked in turn, an image each. */
static const char *const questions[] = {
    "Describe the image.",
    "What is in the picture?",
    "What colours are there?",
    "How many objects are there?",
    "What does the text say?",
    "What is on the left?",
    "Is there a person? Answer yes or no.",
    "What is in the middle of the image?",
};

/* The model in f32. */
typedef struct answerer {
    const fv_config *c;
    const fv_tokenizer *t;
    fv_end_tokens ends;
    fv_ops ops;
    fv_vision vision;
    fv_decoder decoder;
    fv_sequence sequence;
    fv_sampler *sampler;
    float *tokens; /* [T, d_model] of the current image */
    fv_answers *out;
} answerer;

/* The prompt's rows into x, the image's in place of its mark. */
static size_t prompt_embed(const answerer *a, float *x, const fv_ids *ids)
{
    size_t d = (size_t)a->c->d_model, t = (size_t)fv_config_image_tokens(a->c->image_size), n = 0;
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->data[i] == FV_IMAGE_MARK) {
            memcpy(x + n * d, a->tokens, t * d * sizeof *x);
            n += t;
        } else {
            fv_decoder_embed(&a->decoder, &a->ops, x + n++ * d, &ids->data[i], 1);
        }
    }
    return n;
}

/* Appends the rows of the answer, as long as there is room. */
static fv_status answer_run(answerer *a, fv_answer_rows *rows, size_t room, fv_error *err)
{
    const fv_watch watch = { 0 };
    fv_sequence *s = &a->sequence;
    fv_error no_number;
    int32_t id;
    s->kv.n = 0;
    FV_TRY(fv_kv_reserve(&s->kv, room, err));
    FV_TRY(fv_decoder_reserve(&a->decoder, &a->ops, rows->n, err));
    FV_TRY(fv_decoder_run(&a->decoder, &a->ops, s, rows->x, rows->n, &watch, err));
    while (rows->n < room) {
        /* Without a number among the logits a weight is broken; whoever writes it will name it. */
        if (fv_sampler_pick(a->sampler, s->logits, NULL, 0, &id, &no_number) != FV_OK ||
            fv_end_tokens_have(&a->ends, id))
            break;
        float *x = rows->x + rows->n++ * (size_t)a->c->d_model;
        fv_decoder_embed(&a->decoder, &a->ops, x, &id, 1);
        fv_decoder_step(&a->decoder, &a->ops, &s, &id, 1);
    }
    return FV_OK;
}

static fv_status answer_add(answerer *a, const char *question, fv_error *err)
{
    size_t t = (size_t)fv_config_image_tokens(a->c->image_size), d = (size_t)a->c->d_model;
    fv_ids ids = { 0 };
    const fv_turn_part turn[] = {
        { .kind = FV_TURN_IMAGE, .n = 1 },
        { .kind = FV_TURN_TEXT, .text = question, .n = strlen(question) }
    };
    fv_answer_rows *rows = &a->out->list[a->out->n];
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_template_system(&ids, a->t, FV_DEFAULT_SYSTEM, strlen(FV_DEFAULT_SYSTEM), err));
    FV_TRY_GOTO(fv_template_user(&ids, a->t, turn, FV_COUNT(turn), err));
    size_t n_prompt = ids.n - 1 + t, most = (size_t)a->c->max_context;
    if (n_prompt > most) {
        status = fv_fail(
            err, FV_ERR_LIMIT, 0,
            "a prompt of %zu rows exceeds the model's context length of %zu; calibrated "
            "rounding needs more, rounding by search does not",
            n_prompt, most);
        goto fail;
    }
    size_t room = FV_MIN(n_prompt + ANSWER_TOKENS, most);
    rows->x = fv_alloc(room * d, sizeof *rows->x);
    if (!rows->x) {
        status = fv_fail_memory(err, room * d * sizeof *rows->x, "rows for calibration");
        goto fail;
    }
    a->out->n++;
    rows->n = prompt_embed(a, rows->x, &ids);
    FV_TRY_GOTO(answer_run(a, rows, room, err));
    a->out->n_rows += rows->n;
    a->out->longest = FV_MAX(a->out->longest, rows->n);
fail:
    fv_ids_free(&ids);
    return status;
}

/* fv_calibrate_fn: an image becomes image tokens, a prompt, an answer. */
static fv_status image_answer(void *user, const float *pixels, size_t at, size_t n, fv_error *err)
{
    answerer *a = user;
    const fv_watch watch = { 0 };
    fv_answers *out = a->out;
    (void)n;
    FV_TRY(FV_LIST_ROOM(out->list, out->n, out->capacity, 1, err));
    FV_TRY(fv_vision_run(&a->vision, &a->ops, pixels, &watch, err));
    FV_TRY(fv_projector_run(&a->vision, &a->ops, a->tokens, &watch, err));
    return answer_add(a, questions[at % FV_COUNT(questions)], err);
}

static fv_status answerer_init(answerer *a, const fv_weights *w, const fv_kernels *k, fv_pool *pool,
                               fv_error *err)
{
    const fv_config *c = a->c;
    size_t n = (size_t)fv_config_image_tokens(c->image_size) * (size_t)c->d_model,
           n_tokens = (size_t)fv_tokenizer_size(a->t);
    a->tokens = fv_alloc(n, sizeof *a->tokens);
    if (!a->tokens)
        return fv_fail_memory(err, n * sizeof *a->tokens, "image tokens");
    FV_TRY(fv_sampler_new(&a->sampler, NULL, (size_t)c->n_vocab, n_tokens, err));
    for (int32_t id = 0; id < fv_tokenizer_size(a->t); id++)
        if (!fv_tokenizer_has(a->t, id))
            fv_sampler_forbid(a->sampler, id);
    fv_sampler_forbid(a->sampler, fv_tokenizer_find(a->t, FV_IMAGE_TEXT));
    FV_TRY(fv_ops_init(&a->ops, k, pool, err));
    FV_TRY(fv_decoder_init(&a->decoder, c, &w->decoder, FV_TYPE_F32, err));
    FV_TRY(fv_sequence_init(&a->sequence, c, FV_TYPE_F32, err));
    return fv_vision_init(&a->vision, c, &w->vision, c->image_size, FV_TYPE_F32, &a->ops, err);
}

fv_status fv_answers_collect(fv_answers *out, const fv_config *c, const fv_weights *w,
                             const fv_tokenizer *t, const fv_kernels *k, fv_pool *pool,
                             const fv_calibrate_options *options, fv_error *err)
{
    answerer a = { .c = c, .t = t, .ends = fv_end_tokens_of(c, t), .out = out };
    *out = (fv_answers){ 0 };
    fv_status status = answerer_init(&a, w, k, pool, err);
    if (status == FV_OK)
        status = fv_calibrate_images(&out->seen, options, IMAGES, IMAGES, c, k, pool, image_answer,
                                     &a, err);
    fv_vision_free(&a.vision);
    fv_sequence_free(&a.sequence);
    fv_decoder_free(&a.decoder);
    fv_ops_free(&a.ops);
    fv_sampler_free(a.sampler);
    fv_free(a.tokens);
    return status;
}

void fv_answers_free(fv_answers *a)
{
    for (size_t i = 0; i < a->n; i++)
        fv_free(a->list[i].x);
    fv_free(a->list);
    *a = (fv_answers){ 0 };
}
