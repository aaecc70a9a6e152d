/* Two models, images -> what the second loses against the first.
 *
 *     image     both encode it; every stage of the vision encoder is compared as it comes
 *     prompt    both run it; every layer of the decoder is compared
 *     answer    the reference chooses greedily; the test model is given the same tokens, and its
 *               distribution of each is compared with the reference's
 *
 * The test model runs prompt and answer with its own image tokens and once more with the
 * reference's: the second shows what its decoder alone loses. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/report.h"
#include "base/list.h"
#include "eval/result.h"
#include "eval/stages.h"
#include "image/image_list.h"

typedef struct divergences {
    double *kl; /* of every token */
    size_t n, capacity;
    size_t n_agree;
} divergences;

typedef struct comparison {
    const fv_eval_options *options;
    const char *prompt;
    size_t n_prompt;
    fv_engine *engine_ref, *engine_test;
    /* the first also encodes the images; the second NULL: not asked for */
    fv_session *ref, *test[FV_WITH_BOTH];
    bool wanted[FV_WITH_BOTH];
    fv_stages stages;
    fv_callbacks callbacks;
    int max_new_tokens;
    divergences text[FV_WITH_BOTH];
    int32_t *allowed; /* ids that can be chosen */
    size_t n_allowed;
    float *want, *got; /* their logits */
    char *answer;      /* of the image compared now */
    size_t n_answer, answer_capacity;
    size_t at, n_images; /* progress */
    fv_eval *result;
    fv_eval_image_info *images;
} comparison;

/* ---- what can be compared ---- */

static fv_status check_same(const char *what, int a, int b, fv_error *err)
{
    return a == b ? FV_OK
                  : fv_fail(
                        err, FV_ERR_ARGUMENT, 0,
                        "%s is %d in the reference and %d in the test model; both must be the same "
                        "model in different precisions",
                        what, a, b);
}

static fv_status check_models(const fv_model_info *x, const fv_model_info *y, fv_error *err)
{
    FV_TRY(check_same("the image size", x->image_size, y->image_size, err));
    FV_TRY(check_same("the number of vision stages", x->vision_stages, y->vision_stages, err));
    for (int i = 0; i < x->vision_stages; i++) {
        FV_TRY(check_same("the depth of a vision stage", x->vision_layers[i], y->vision_layers[i],
                          err));
        FV_TRY(check_same("the width of a vision stage", x->vision_widths[i], y->vision_widths[i],
                          err));
    }
    FV_TRY(check_same("the number of features", x->n_features, y->n_features, err));
    FV_TRY(check_same("d_model", x->d_model, y->d_model, err));
    FV_TRY(check_same("the number of layers", x->n_layers, y->n_layers, err));
    FV_TRY(check_same("the size of the vocabulary", x->vocab_rows, y->vocab_rows, err));
    return check_same("the number of tokens", x->n_tokens, y->n_tokens, err);
}

/* The tokens a sampler may choose: no rows of padding, no "<image>". */
static fv_status list_allowed(comparison *c, size_t n, fv_error *err)
{
    c->allowed = fv_alloc(n, sizeof *c->allowed);
    c->want = fv_alloc(n, sizeof *c->want);
    c->got = fv_alloc(n, sizeof *c->got);
    if (!c->allowed || !c->want || !c->got)
        return fv_fail_memory(err, 3 * n * sizeof *c->want, "logits");
    for (int32_t id = 0; id < (int32_t)n; id++) {
        size_t n_bytes;
        const char *text = fv_engine_token_text(c->engine_ref, id, &n_bytes);
        if (text && !(n_bytes == 7 && !memcmp(text, "<image>", 7)))
            c->allowed[c->n_allowed++] = id;
    }
    return FV_OK;
}

/* ---- text ---- */

static void take_allowed(const comparison *c, float *to, const float *logits)
{
    for (size_t i = 0; i < c->n_allowed; i++)
        to[i] = logits[c->allowed[i]];
}

static fv_status keep_divergence(divergences *d, double kl, bool agree, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(d->kl, d->n, d->capacity, 1, err));
    d->kl[d->n++] = kl;
    d->n_agree += agree;
    return FV_OK;
}

/* Sorts the values from first on. */
static fv_eval_text sum_up(divergences *d, size_t first, size_t agreed_before)
{
    fv_eval_text t = { .n_tokens = d->n - first, .n_agree = d->n_agree - agreed_before };
    for (size_t i = first; i < d->n; i++) {
        t.mean += d->kl[i] / (double)t.n_tokens;
        t.max = fmax(t.max, d->kl[i]);
    }
    if (t.n_tokens)
        t.median = fv_median(d->kl + first, t.n_tokens);
    return t;
}

static fv_status comparison_keep(comparison *c, const fv_piece *piece, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(c->answer, c->n_answer, c->answer_capacity, piece->n_bytes + 1, err));
    memcpy(c->answer + c->n_answer, piece->text, piece->n_bytes);
    c->n_answer += piece->n_bytes;
    c->answer[c->n_answer] = 0;
    return FV_OK;
}

/* One token: led along, compared. *kl and *agree are what came out. */
static fv_status lead(comparison *c, int with, int32_t id, double *kl, bool *agree, fv_error *err)
{
    c->stages.with = with;
    FV_TRY(fv_session_force(c->test[with == FV_WITH_BOTH ? FV_WITH_OWN : with], id, err));
    take_allowed(c, c->got,
                 fv_session_logits(c->test[with == FV_WITH_BOTH ? FV_WITH_OWN : with], NULL));
    *kl = fv_kl_divergence(c->want, c->got, c->n_allowed);
    *agree = fv_largest(c->want, c->n_allowed) == fv_largest(c->got, c->n_allowed);
    if (!isfinite(*kl))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "a logit of the test model or of the reference is NaN or infinite");
    return FV_OK;
}

/* equal: both see the same image tokens, so that one run says both. */
static fv_status compare_answer(comparison *c, bool equal, fv_error *err)
{
    fv_piece piece = { .size = sizeof piece };
    double kl = 0;
    bool agree = false;
    c->n_answer = 0;
    while (!piece.done) {
        FV_TRY(fv_session_next(c->ref, &piece, err));
        FV_TRY(comparison_keep(c, &piece, err));
        if (piece.id < 0)
            break;
        take_allowed(c, c->want, fv_session_logits(c->ref, NULL));
        if (equal && c->wanted[FV_WITH_OWN] && c->wanted[FV_WITH_REF]) {
            FV_TRY(lead(c, FV_WITH_BOTH, piece.id, &kl, &agree, err));
            for (int with = 0; with < FV_WITH_BOTH; with++)
                FV_TRY(keep_divergence(&c->text[with], kl, agree, err));
        } else {
            for (int with = 0; with < FV_WITH_BOTH; with++)
                if (c->wanted[with]) {
                    FV_TRY(lead(c, with, piece.id, &kl, &agree, err));
                    FV_TRY(keep_divergence(&c->text[with], kl, agree, err));
                }
        }
        fv_stages_drop(&c->stages);
    }
    return FV_OK;
}

/* ---- images ---- */

/* The image's features by both models; every stage of the encoder is compared. */
static fv_status encode_both(comparison *c, const fv_image *image, fv_features *f[2],
                             fv_eval_image_info *out, fv_error *err)
{
    fv_encode_options o = { .size = sizeof o,
                            .fit = c->options->fit,
                            .callbacks = &c->callbacks,
                            .tap = fv_stages_keep,
                            .tap_user = &c->stages };
    c->stages.with = FV_WITH_OWN;
    FV_TRY(fv_encode(c->engine_ref, image, &o, &f[0], err));
    o.tap = fv_stages_compare;
    FV_TRY(fv_encode(c->engine_test, image, &o, &f[1], err));
    fv_stages_drop(&c->stages);
    out->features = (fv_eval_loss){ fv_distance_sqnr(&c->stages.features),
                                    fv_distance_cosine(&c->stages.features) };
    out->tokens = (fv_eval_loss){ fv_distance_sqnr(&c->stages.tokens),
                                  fv_distance_cosine(&c->stages.tokens) };
    return FV_OK;
}

static fv_status comparison_ask(comparison *c, fv_session *s, fv_features *f, fv_error *err)
{
    fv_session_reset(s);
    FV_TRY(fv_session_add_features(s, f, err));
    return fv_session_add_text(s, c->prompt, c->n_prompt, err);
}

static fv_status compare_features(comparison *c, fv_features *f[2], fv_eval_image_info *out,
                                  fv_error *err)
{
    fv_answer_options answer = { .size = sizeof answer, .max_new_tokens = c->max_new_tokens };
    fv_session *given = c->test[FV_WITH_REF];
    size_t first[FV_WITH_BOTH], agreed[FV_WITH_BOTH], n_rows, d;
    const float *rows = fv_features_rows(f[0], &n_rows, &d);
    bool equal = !memcmp(rows, fv_features_rows(f[1], NULL, NULL), n_rows * d * sizeof *rows);
    FV_TRY(comparison_ask(c, c->ref, f[0], err));
    FV_TRY(fv_session_begin(c->ref, &answer, err));
    FV_TRY(comparison_ask(c, c->test[FV_WITH_OWN], f[1], err));
    if (given)
        FV_TRY(comparison_ask(c, given, f[0], err));
    for (int with = 0; with < FV_WITH_BOTH; with++) {
        first[with] = c->text[with].n;
        agreed[with] = c->text[with].n_agree;
    }
    FV_TRY(compare_answer(c, equal, err));
    out->own = sum_up(&c->text[FV_WITH_OWN], first[FV_WITH_OWN], agreed[FV_WITH_OWN]);
    out->ref = sum_up(&c->text[FV_WITH_REF], first[FV_WITH_REF], agreed[FV_WITH_REF]);
    out->n_answer_bytes = c->n_answer;
    if (!(out->answer = fv_strdup(c->answer)))
        return fv_fail_memory(err, c->n_answer, "an answer");
    return FV_OK;
}

static fv_status image_compare(comparison *c, const fv_image *image, fv_eval_image_info *out,
                               fv_error *err)
{
    fv_features *f[2] = { NULL, NULL };
    fv_status status = encode_both(c, image, f, out, err);
    if (status == FV_OK)
        status = compare_features(c, f, out, err);
    fv_features_free(f[0]);
    fv_features_free(f[1]);
    return status;
}

static fv_status image_take(comparison *c, const char *path, fv_error *first_problem, fv_error *err)
{
    fv_image *image = NULL;
    fv_error why = { 0 };
    fv_status status = fv_image_open(&image, path, NULL, &why);
    if (status == FV_ERR_MEMORY)
        return fv_fail(err, status, 0, "%s", why.message);
    if (status != FV_OK) {
        if (c->result->info.n_skipped++ == 0)
            *first_problem = why;
        fv_log(c->options->callbacks, FV_LOG_WARNING, "skipped: %s", why.message);
        return FV_OK;
    }
    fv_eval_image_info *out = &c->images[c->result->info.n_images];
    status = (out->path = fv_strdup(path)) ? FV_OK : fv_fail_memory(err, strlen(path), "a path");
    if (status == FV_OK) {
        c->result->info.n_images++; /* from now on fv_eval_free releases it */
        status = image_compare(c, image, out, err);
    }
    fv_image_free(image);
    return status;
}

static fv_status images_run(comparison *c, fv_error *err)
{
    const fv_eval_options *s = c->options;
    fv_image_list files = { 0 };
    fv_error problem = { 0 };
    fv_status status;
    FV_TRY_GOTO(fv_image_list_collect(&files, s->paths, s->n_paths, err));
    c->n_images = s->max_images > 0 ? FV_MIN((size_t)s->max_images, files.n) : files.n;
    c->result->images = c->images = fv_alloc_zero(c->n_images, sizeof *c->images);
    if (!c->images) {
        status = fv_fail_memory(err, c->n_images * sizeof *c->images, "the list of images");
        goto fail;
    }
    for (c->at = 0; c->at < c->n_images; c->at++)
        FV_TRY_GOTO(image_take(c, files.path[c->at * files.n / c->n_images], &problem, err));
    if (c->result->info.n_images == 0)
        status = fv_fail(err, FV_ERR_IO, 0, "none of %zu images can be read; the first: %s",
                         c->n_images, problem.message);
fail:
    fv_image_list_free(&files);
    return status;
}

/* ---- the whole ---- */

static bool comparison_progress(void *user, const char *stage, double done)
{
    const comparison *c = user;
    (void)stage;
    (void)done;
    return fv_progress(c->options->callbacks, "eval", (double)c->at / (double)c->n_images, NULL) !=
           FV_OK;
}

static fv_status open_sessions(comparison *c, fv_error *err)
{
    fv_session_options o = {
        .size = sizeof o, .callbacks = &c->callbacks, .tap = fv_stages_keep, .tap_user = &c->stages
    };
    c->max_new_tokens = c->options->max_new_tokens ? c->options->max_new_tokens : 32;
    c->callbacks =
        (fv_callbacks){ .size = sizeof c->callbacks, .progress = comparison_progress, .user = c };
    c->wanted[FV_WITH_OWN] = c->options->features != FV_EVAL_REF;
    c->wanted[FV_WITH_REF] = c->options->features != FV_EVAL_OWN;
    FV_TRY(fv_session_new(&c->ref, c->engine_ref, &o, err));
    o.tap = fv_stages_compare;
    FV_TRY(fv_session_new(&c->test[FV_WITH_OWN], c->engine_test, &o, err));
    if (c->wanted[FV_WITH_REF])
        FV_TRY(fv_session_new(&c->test[FV_WITH_REF], c->engine_test, &o, err));
    return FV_OK;
}

static fv_eval_loss loss_of(const fv_distance *d)
{
    return d->n ? (fv_eval_loss){ fv_distance_sqnr(d), fv_distance_cosine(d) }
                : (fv_eval_loss){ NAN, NAN };
}

static fv_status comparison_finish(comparison *c, fv_error *err)
{
    fv_eval *r = c->result;
    fv_eval_stage_info *stages = fv_alloc_zero(c->stages.n, sizeof *stages);
    r->stages = stages;
    if (!stages)
        return fv_fail_memory(err, c->stages.n * sizeof *stages, "the stages");
    for (size_t i = 0; i < c->stages.n; i++) {
        const fv_stage_sum *sum = &c->stages.sum[i];
        stages[i] = (fv_eval_stage_info){ .name = fv_strdup(sum->name),
                                          .own = loss_of(&sum->with[FV_WITH_OWN]),
                                          .ref = loss_of(&sum->with[FV_WITH_REF]) };
        r->info.n_stages++;
        if (!stages[i].name)
            return fv_fail_memory(err, strlen(sum->name), "a stage's name");
    }
    r->info.own = sum_up(&c->text[FV_WITH_OWN], 0, 0);
    r->info.ref = sum_up(&c->text[FV_WITH_REF], 0, 0);
    r->info.least_features = r->info.least_tokens = 1;
    for (size_t i = 0; i < r->info.n_images; i++) {
        r->info.least_features = fmin(r->info.least_features, r->images[i].features.cosine);
        r->info.least_tokens = fmin(r->info.least_tokens, r->images[i].tokens.cosine);
    }
    return FV_OK;
}

static fv_status comparison_check(const fv_eval_options *o, fv_error *err)
{
    if (!o->n_paths)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_paths is 0; expected images to compare on");
    FV_REQUIRE(o->paths, err);
    if (o->max_images < 0 || o->max_new_tokens < 0 || (unsigned)o->features > FV_EVAL_REF)
        return fv_fail(
            err, FV_ERR_ARGUMENT, 0,
            "max_images %d, max_new_tokens %d, features %d; expected 0 or more, features up to %d",
            o->max_images, o->max_new_tokens, (int)o->features, FV_EVAL_REF);
    return FV_OK;
}

fv_status fv_eval_run(fv_eval **out, fv_engine *reference, fv_engine *test,
                      const fv_eval_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    static const char describe[] = "Describe the image.";
    fv_eval_options o;
    fv_callbacks callbacks;
    double start = fv_now_ms();
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(reference, err);
    FV_REQUIRE(test, err);
    FV_REQUIRE(options, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_eval_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(comparison_check(&o, err));
    fv_model_info info = { .size = sizeof info }, other = { .size = sizeof other };
    fv_engine_info(reference, &info);
    fv_engine_info(test, &other);
    FV_TRY(check_models(&info, &other, err));
    comparison c = { .options = &o,
                     .prompt = o.prompt ? o.prompt : describe,
                     .n_prompt = o.prompt ? o.n_prompt_bytes : sizeof describe - 1,
                     .engine_ref = reference,
                     .engine_test = test,
                     .n_images = 1,
                     .result = fv_alloc_zero(1, sizeof *c.result) };
    fv_status status;
    if (!c.result)
        return fv_fail_memory(err, sizeof *c.result, "a comparison");
    FV_TRY_GOTO(list_allowed(&c, (size_t)info.n_tokens, err));
    FV_TRY_GOTO(open_sessions(&c, err));
    FV_TRY_GOTO(images_run(&c, err));
    FV_TRY_GOTO(comparison_finish(&c, err));
    c.result->info.ms = fv_now_ms() - start;
    *out = c.result;
fail:
    if (status != FV_OK)
        fv_eval_free(c.result);
    if (status == FV_ERR_CANCELLED && c.stages.error.status != FV_OK) { /* by a tap of ours */
        status = c.stages.error.status;
        if (err)
            *err = c.stages.error;
    }
    fv_session_free(c.ref);
    for (int with = 0; with < FV_WITH_BOTH; with++) {
        fv_session_free(c.test[with]);
        fv_free(c.text[with].kl);
    }
    fv_stages_free(&c.stages);
    fv_free(c.allowed);
    fv_free(c.want);
    fv_free(c.got);
    fv_free(c.answer);
    return status;
}

void fv_eval_free(fv_eval *e)
{
    if (!e)
        return;
    for (size_t i = 0; i < e->info.n_stages; i++)
        fv_free((char *)e->stages[i].name);
    for (size_t i = 0; i < e->info.n_images; i++) {
        fv_free((char *)e->images[i].path);
        fv_free((char *)e->images[i].answer);
    }
    fv_free(e->stages);
    fv_free(e->images);
    fv_free(e);
}

void fv_eval_describe(const fv_eval *e, fv_eval_info *out)
{
    if (e)
        fv_result_out(out, &e->info, sizeof e->info);
}

bool fv_eval_stage(const fv_eval *e, size_t index, fv_eval_stage_info *out)
{
    return e && index < e->info.n_stages &&
           fv_result_out(out, &e->stages[index], sizeof e->stages[index]);
}

bool fv_eval_image(const fv_eval *e, size_t index, fv_eval_image_info *out)
{
    return e && index < e->info.n_images &&
           fv_result_out(out, &e->images[index], sizeof e->images[index]);
}
