/* A test's questions and images -> answers -> how many are right. tools/train/make_test.py writes
 * such tests; questions.h has the format. */
#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/report.h"
#include "base/list.h"
#include "eval/questions.h"
#include "eval/score.h"
#include "eval/task.h"
#include "io/json_write.h"

enum { MAX_ANSWER = 96 };

typedef struct task {
    fv_task result;         /* first: what the caller holds */
    fv_questions questions; /* the result's texts are borrowed from them, but for the answers */
    fv_task_answer *answer; /* result.answers, room for all */
} task;

static fv_status task_new(task **out, const char *dir, const fv_task_options *o, fv_error *err)
{
    *out = NULL;
    if (o->max_questions < 0 || o->max_new_tokens < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "max_questions is %d, max_new_tokens %d; expected 0 or more",
                       o->max_questions, o->max_new_tokens);
    if (!fv_is_dir(dir))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: no such directory; expected one with questions.jsonl and images, such "
                       "as tests/data/demo",
                       dir);
    task *t = fv_alloc_zero(1, sizeof *t);
    if (!t)
        return fv_fail_memory(err, sizeof *t, "a test");
    char *path = fv_path_join(dir, "questions.jsonl");
    fv_status status = path ? fv_questions_read(&t->questions, path, (size_t)o->max_questions, err)
                            : fv_fail_memory(err, strlen(dir), "a path");
    fv_free(path);
    FV_TRY_GOTO(status);
    t->result.answers = t->answer = fv_alloc_zero(t->questions.n_asked, sizeof *t->answer);
    if (!t->answer)
        status = fv_fail_memory(err, t->questions.n_asked * sizeof *t->answer, "answers");
fail:
    if (status != FV_OK)
        fv_task_free(&t->result);
    else
        *out = t;
    return status;
}

/* ---- scoring ---- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Scores the next answer, text[0, n), without the spaces around it: that of turn `turn` of
 * conversation `at`. */
static fv_status task_keep(task *t, size_t at, size_t turn, const char *text, size_t n,
                           fv_error *err)
{
    const fv_talk *talk = &t->questions.talks[at];
    const fv_talk_turn *asked = &talk->turns[turn];
    fv_task_answer *a = &t->answer[t->result.n];
    while (n && is_space(text[n - 1]))
        n--;
    while (n && is_space(*text))
        text++, n--;
    char *copy = fv_alloc(n + 1, 1);
    if (!copy)
        return fv_fail_memory(err, n, "an answer");
    memcpy(copy, text, n);
    copy[n] = 0;
    *a = (fv_task_answer){ .image = talk->image,
                           .images = talk->images,
                           .n_images = talk->n_images,
                           .conversation = at + 1,
                           .turn = turn + 1,
                           .kind = asked->kind,
                           .question = asked->question,
                           .wanted = asked->wanted,
                           .answer = copy };
    t->result.n++; /* fv_task_free releases it from now on */
    FV_TRY(fv_score_answer(&a->correct, a->kind, a->wanted, a->answer, err));
    t->result.n_correct += a->correct;
    t->result.n_unanswered += !a->correct && n == 0;
    return FV_OK;
}

static void share_add(fv_task_share *s, bool correct)
{
    s->n++;
    s->n_correct += correct;
}

static int by_kind(const void *a, const void *b)
{
    return strcmp(((const fv_task_kind *)a)->kind, ((const fv_task_kind *)b)->kind);
}

static fv_status task_count(task *t, fv_error *err)
{
    fv_task *r = &t->result;
    for (size_t i = 0; i < r->n; i++)
        r->n_turns = FV_MAX(r->n_turns, r->answers[i].turn);
    fv_task_kind *kinds = fv_alloc(r->n, sizeof *kinds);
    fv_task_share *turns = fv_alloc_zero(r->n_turns, sizeof *turns);
    r->kinds = kinds;
    r->turns = turns;
    if (!kinds || !turns)
        return fv_fail_memory(err, r->n * sizeof *kinds, "kinds of questions");
    for (size_t i = 0; i < r->n; i++) {
        const fv_task_answer *a = &r->answers[i];
        size_t k = 0;
        while (k < r->n_kinds && strcmp(kinds[k].kind, a->kind))
            k++;
        if (k == r->n_kinds)
            kinds[r->n_kinds++] = (fv_task_kind){ .kind = a->kind };
        share_add(&kinds[k].share, a->correct);
        share_add(&turns[a->turn - 1], a->correct);
    }
    qsort(kinds, r->n_kinds, sizeof *kinds, by_kind);
    r->has_conversations = t->questions.has_turns;
    return FV_OK;
}

/* ---- asking ---- */

/* An image that a conversation shows. */
typedef struct shown_image {
    fv_features *features;
    const char *name;
} shown_image;

typedef struct asking {
    task *t;
    fv_engine *engine;
    fv_session *session;
    const char *dir;
    shown_image shown[FV_TALK_MAX_IMAGES]; /* of the last conversation */
    size_t n_shown;
    const fv_task_options *options;
    fv_callbacks callbacks;
    char *text; /* the answer, and how much room there is */
    size_t n, capacity;
} asking;

static bool task_progress(void *user, const char *stage, double done)
{
    const asking *a = user;
    (void)stage;
    (void)done;
    double share = (double)a->t->result.n / (double)a->t->questions.n_asked;
    return fv_progress(a->options->callbacks, "task", share, NULL) != FV_OK;
}

static fv_status image_encode(asking *a, const char *name, fv_features **out, fv_error *err)
{
    fv_image *image = NULL;
    fv_encode_options o = { .size = sizeof o, .callbacks = &a->callbacks };
    char *path = fv_path_join(a->dir, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_status status = fv_image_open(&image, path, NULL, err);
    fv_free(path);
    if (status == FV_OK && a->options->encode)
        status = a->options->encode(a->options->encode_user, a->engine, image, &o, out, err);
    else if (status == FV_OK)
        status = fv_encode(a->engine, image, &o, out, err);
    fv_image_free(image);
    return status;
}

static void shown_drop(asking *a)
{
    while (a->n_shown)
        fv_features_free(a->shown[--a->n_shown].features);
}

/* Conversations about the same images that follow each other encode them once. */
static fv_status images_show(asking *a, const fv_talk *talk, fv_error *err)
{
    bool again = a->n_shown == talk->n_images;
    for (size_t i = 0; again && i < a->n_shown; i++)
        again = !strcmp(a->shown[i].name, talk->images[i]);
    if (!again)
        shown_drop(a);
    for (size_t i = 0; i < talk->n_images; i++) {
        shown_image *s = &a->shown[i];
        if (!again) {
            FV_TRY(image_encode(a, talk->images[i], &s->features, err));
            s->name = talk->images[i];
            a->n_shown = i + 1;
        }
        FV_TRY(fv_session_add_features(a->session, s->features, err));
    }
    return FV_OK;
}

static fv_status talk_listen(asking *a, fv_error *err)
{
    fv_answer_options o = { .size = sizeof o, .max_new_tokens = a->options->max_new_tokens };
    fv_piece piece = { .size = sizeof piece };
    FV_TRY(fv_session_begin(a->session, &o, err));
    for (a->n = 0; !piece.done;) {
        FV_TRY(fv_session_next(a->session, &piece, err));
        /* never NULL, also for an empty answer */
        FV_TRY(FV_LIST_ROOM(a->text, a->n, a->capacity, piece.n_bytes + 1, err));
        if (piece.n_bytes)
            memcpy(a->text + a->n, piece.text, piece.n_bytes);
        a->n += piece.n_bytes;
    }
    return FV_OK;
}

static fv_status talk_hold(asking *a, size_t at, fv_error *err)
{
    const fv_talk *talk = &a->t->questions.talks[at];
    fv_session_reset(a->session);
    FV_TRY(images_show(a, talk, err));
    for (size_t i = 0; i < talk->n_turns; i++) {
        const fv_talk_turn *turn = &talk->turns[i];
        FV_TRY(fv_session_add_text(a->session, turn->question, strlen(turn->question), err));
        if (turn->said) {
            FV_TRY(fv_session_add_answer(a->session, turn->said, strlen(turn->said), err));
            continue;
        }
        FV_TRY(talk_listen(a, err));
        FV_TRY(task_keep(a->t, at, i, a->text, a->n, err));
    }
    return FV_OK;
}

/* What the context has no room for is the test's, not the model's: its line is named. */
static fv_status talk_blame(const fv_talk *talk, fv_status status, fv_error *err)
{
    if (status != FV_ERR_LIMIT || !err)
        return status;
    fv_error e = *err;
    return fv_fail(err, status, e.at, "%s: %s", fv_json_name(talk->doc), e.message);
}

static fv_status task_ask(task *t, fv_engine *engine, const char *dir, const fv_task_options *o,
                          fv_error *err)
{
    asking a = { .t = t, .engine = engine, .dir = dir, .options = o };
    fv_session_options so = { .size = sizeof so, .callbacks = &a.callbacks };
    fv_status status;
    a.callbacks =
        (fv_callbacks){ .size = sizeof a.callbacks, .progress = task_progress, .user = &a };
    FV_TRY(fv_session_new(&a.session, engine, &so, err));
    if (o->prepare)
        FV_TRY_GOTO(o->prepare(o->prepare_user, a.session, err));
    for (size_t i = 0; i < t->questions.n; i++)
        FV_TRY_GOTO(talk_blame(&t->questions.talks[i], talk_hold(&a, i, err), err));
    status = FV_OK;
fail:
    fv_session_free(a.session);
    shown_drop(&a);
    fv_free(a.text);
    return status;
}

/* ---- answers of another engine ---- */

/* The last answer with this image and question, as score.py takes it; "": none. */
static fv_status given_find(const fv_json_lines *l, const fv_talk *talk, const char *question,
                            const char **out, fv_error *err)
{
    for (size_t i = 0; i < l->n; i++) {
        const fv_json_value *root = fv_json_root(l->doc[i]);
        const char *image, *text;
        FV_TRY(fv_json_string(l->doc[i], root, "image", &image, err));
        FV_TRY(fv_json_string(l->doc[i], root, "question", &text, err));
        if (!strcmp(image, talk->image) && !strcmp(text, question))
            FV_TRY(fv_json_string(l->doc[i], root, "answer", out, err));
    }
    return FV_OK;
}

/* The answer of line i; "": there are fewer. */
static fv_status given_read(const fv_json_lines *l, size_t i, const char *question,
                            const char **out, fv_error *err)
{
    if (i >= l->n)
        return FV_OK;
    const fv_json_value *root = fv_json_root(l->doc[i]);
    const char *text = question;
    FV_TRY(fv_json_opt_string(l->doc[i], root, "question", &text, err));
    if (strcmp(text, question))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: answers \"%.100s\"; expected the answer to \"%.100s\", in the test's "
                       "order",
                       fv_json_name(l->doc[i]), text, question);
    return fv_json_string(l->doc[i], root, "answer", out, err);
}

static fv_status task_score(task *t, const fv_json_lines *l, fv_error *err)
{
    const fv_questions *q = &t->questions;
    const fv_json_value *first = l->n ? fv_json_root(l->doc[0]) : NULL;
    bool named = q->by_name && fv_json_member(first, "image") && fv_json_member(first, "question");
    for (size_t i = 0; i < q->n; i++)
        for (size_t k = 0; k < q->talks[i].n_turns; k++) {
            const fv_talk_turn *turn = &q->talks[i].turns[k];
            const char *answer = "";
            if (turn->said)
                continue;
            FV_TRY(named ? given_find(l, &q->talks[i], turn->question, &answer, err)
                         : given_read(l, t->result.n, turn->question, &answer, err));
            FV_TRY(task_keep(t, i, k, answer, strlen(answer), err));
        }
    return FV_OK;
}

/* ---- the whole ---- */

static fv_status task_finish(fv_task **out, task *t, double start, fv_status status, fv_error *err)
{
    if (status == FV_OK)
        status = task_count(t, err);
    if (status != FV_OK) {
        fv_task_free(&t->result);
        return status;
    }
    t->result.ms = fv_now_ms() - start;
    *out = &t->result;
    return FV_OK;
}

fv_status fv_task_run(fv_task **out, fv_engine *engine, const char *dir,
                      const fv_task_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    task *t;
    fv_task_options o;
    fv_callbacks callbacks;
    double start = fv_now_ms();
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(engine, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_task_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (!o.max_new_tokens)
        o.max_new_tokens = MAX_ANSWER;
    FV_TRY(task_new(&t, dir, &o, err));
    return task_finish(out, t, start, task_ask(t, engine, dir, &o, err), err);
}

fv_status fv_task_score(fv_task **out, const char *dir, const char *answers,
                        const fv_task_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    task *t;
    fv_json_lines lines = { 0 };
    fv_task_options o;
    double start = fv_now_ms();
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(dir, err);
    FV_REQUIRE(answers, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_task_options, options, err));
    FV_TRY(task_new(&t, dir, &o, err));
    fv_status status = fv_json_lines_read(&lines, answers, err);
    if (status == FV_OK)
        status = task_score(t, &lines, err);
    fv_json_lines_free(&lines);
    return task_finish(out, t, start, status, err);
}

fv_status fv_task_save(const fv_task *t, const char *file, fv_error *err)
{
    FV_DEFAULT_FPENV;
    const task *whole = (const task *)t;
    fv_json_text j = { 0 };
    for (size_t i = 0; i < t->n; i++) {
        const fv_task_answer *a = &t->answers[i];
        fv_json_begin_row(&j, NULL, '{');
        if (a->image)
            fv_json_put_text(&j, "image", a->image);
        else
            fv_json_begin_row(&j, "images", '[');
        for (size_t k = 0; !a->image && k < a->n_images; k++)
            fv_json_put_text(&j, NULL, a->images[k]);
        if (!a->image)
            fv_json_end(&j);
        if (whole->questions.talks[a->conversation - 1].is_turns)
            fv_json_put_int(&j, "turn", (int64_t)a->turn);
        fv_json_put_text(&j, "question", a->question);
        fv_json_put_text(&j, "answer", a->answer);
        fv_json_end(&j);
        if (i + 1 < t->n)
            fv_json_line(&j, "", 0);
    }
    fv_status status = fv_json_done(&j, err);
    if (status == FV_OK)
        status = fv_outfile_put(file, j.text, j.n, err);
    fv_json_text_free(&j);
    return status;
}

void fv_task_free(fv_task *t)
{
    task *whole = (task *)t;
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        fv_free((char *)t->answers[i].answer);
    fv_free(whole->answer);
    fv_free((fv_task_kind *)t->kinds);
    fv_free((fv_task_share *)t->turns);
    fv_questions_free(&whole->questions);
    fv_free(whole);
}
