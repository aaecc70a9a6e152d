/* questions.jsonl and images -> answers -> how many are right. The test that
 * tools/train/make_test.py writes; one JSON object a line:
 *
 *     {"image": "images/00010.jpg", "kind": "followup", "question": "What color is it?",
 *      "answer": "Purple", "history": [["Where is the star?", "Bottom left"]]}
 *
 * history holds earlier turns of the conversation, question and answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/report.h"
#include "base/list.h"
#include "eval/score.h"
#include "eval/task.h"
#include "io/json.h"
#include "io/json_write.h"

enum { MAX_FILE = 1 << 28, MAX_ANSWER = 96 };

/* A file of JSON objects, one a line, blank lines skipped. */
typedef struct json_lines {
    fv_json **doc;
    size_t n, capacity;
} json_lines;

typedef struct question {
    const char *image, *kind, *text, *wanted; /* borrowed from the line */
    const fv_json_value *history;             /* [[question, answer], ...] or NULL */
} question;

typedef struct task {
    json_lines lines;
    question *question;
    size_t n;
    fv_task *result;
    fv_task_answer *answer;
} task;

/* ---- reading ---- */

static fv_status keep_line(json_lines *l, const char *text, size_t n_bytes, const char *path,
                           size_t number, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(l->doc, l->n, l->capacity, 1, err));
    char name[512];
    snprintf(name, sizeof name, "%s, line %zu", path, number);
    FV_TRY(fv_json_parse(&l->doc[l->n], text, n_bytes, name, err));
    l->n++;
    if (fv_json_type_of(fv_json_root(l->doc[l->n - 1])) != FV_JSON_OBJECT)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: expected an object, found %s", name,
                       fv_json_type_name(fv_json_root(l->doc[l->n - 1])));
    return FV_OK;
}

static fv_status read_lines(json_lines *l, const char *path, fv_error *err)
{
    uint8_t *data;
    size_t n, number = 1;
    fv_status status = FV_OK;
    FV_TRY(fv_read_file(&data, &n, path, MAX_FILE, err));
    for (size_t at = 0, end; at < n && status == FV_OK; at = end + 1, number++) {
        const uint8_t *stop = memchr(data + at, '\n', n - at);
        end = stop ? (size_t)(stop - data) : n;
        if (strspn((const char *)data + at, " \t\r") < end - at)
            status = keep_line(l, (const char *)data + at, end - at, path, number, err);
    }
    fv_free(data);
    return status;
}

static void free_lines(json_lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        fv_json_free(l->doc[i]);
    fv_free(l->doc);
}

static fv_status check_history(const fv_json *doc, const fv_json_value *history, fv_error *err)
{
    const char *text;
    for (size_t i = 0; i < fv_json_count(history); i++) {
        const fv_json_value *turn = fv_json_at(history, i);
        if (fv_json_type_of(turn) != FV_JSON_ARRAY || fv_json_count(turn) != 2 ||
            !fv_json_as_string(fv_json_at(turn, 0), &text) ||
            !fv_json_as_string(fv_json_at(turn, 1), &text) || !*text)
            return fv_fail(
                err, FV_ERR_FORMAT, 0,
                "%s: history: turn %zu is not a pair of a question and a non-empty answer",
                fv_json_name(doc), i);
    }
    return FV_OK;
}

static fv_status read_question(question *q, const fv_json *doc, fv_error *err)
{
    const fv_json_value *root = fv_json_root(doc);
    FV_TRY(fv_json_string(doc, root, "image", &q->image, err));
    FV_TRY(fv_json_string(doc, root, "kind", &q->kind, err));
    FV_TRY(fv_json_string(doc, root, "question", &q->text, err));
    FV_TRY(fv_json_string(doc, root, "answer", &q->wanted, err));
    FV_TRY(fv_json_opt_array(doc, root, "history", &q->history, err));
    return check_history(doc, q->history, err);
}

static fv_status read_questions(task *t, const char *dir, const fv_task_options *s, fv_error *err)
{
    if (s->max_questions < 0 || s->max_new_tokens < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "max_questions is %d, max_new_tokens %d; expected 0 or more",
                       s->max_questions, s->max_new_tokens);
    if (!fv_is_dir(dir))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: no such directory; expected one with questions.jsonl and images, such "
                       "as tests/data/demo",
                       dir);
    char *path = fv_path_join(dir, "questions.jsonl");
    if (!path)
        return fv_fail_memory(err, strlen(dir), "a path");
    fv_status status = read_lines(&t->lines, path, err);
    if (status == FV_OK && t->lines.n == 0)
        status = fv_fail(err, FV_ERR_FORMAT, 0, "%s: contains no questions", path);
    fv_free(path);
    FV_TRY(status);
    t->n = s->max_questions ? FV_MIN((size_t)s->max_questions, t->lines.n) : t->lines.n;
    t->result = fv_alloc_zero(1, sizeof *t->result);
    if (!t->result)
        return fv_fail_memory(err, sizeof *t->result, "a result");
    t->question = fv_alloc_zero(t->n, sizeof *t->question);
    t->result->answers = t->answer = fv_alloc_zero(t->n, sizeof *t->answer);
    if (!t->question || !t->answer)
        return fv_fail_memory(err, t->n * sizeof *t->answer, "questions");
    for (size_t i = 0; i < t->n; i++)
        FV_TRY(read_question(&t->question[i], t->lines.doc[i], err));
    return FV_OK;
}

/* ---- scoring ---- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Scores answer i, text[0, n), without the spaces around it. */
static fv_status task_keep(task *t, size_t i, const char *text, size_t n, fv_error *err)
{
    const question *q = &t->question[i];
    fv_task_answer *a = &t->answer[i];
    while (n && is_space(text[n - 1]))
        n--;
    while (n && is_space(*text))
        text++, n--;
    char *copy = fv_alloc(n + 1, 1);
    a->answer = copy;
    t->result->n = i + 1; /* fv_task_free releases it from now on */
    if (!copy)
        return fv_fail_memory(err, n, "an answer");
    memcpy(copy, text, n);
    copy[n] = 0;
    a->image = fv_strdup(q->image);
    a->kind = fv_strdup(q->kind);
    a->question = fv_strdup(q->text);
    a->wanted = fv_strdup(q->wanted);
    if (!a->image || !a->kind || !a->question || !a->wanted)
        return fv_fail_memory(err, strlen(q->text), "a question");
    FV_TRY(fv_score_answer(&a->correct, a->kind, a->wanted, a->answer, err));
    t->result->n_correct += a->correct;
    t->result->n_unanswered += !a->correct && n == 0;
    return FV_OK;
}

static int by_kind(const void *a, const void *b)
{
    return strcmp(((const fv_task_kind *)a)->kind, ((const fv_task_kind *)b)->kind);
}

static fv_status count_kinds(task *t, fv_error *err)
{
    fv_task *r = t->result;
    fv_task_kind *kinds = fv_alloc(t->n, sizeof *kinds);
    r->kinds = kinds;
    if (!kinds)
        return fv_fail_memory(err, t->n * sizeof *kinds, "kinds of questions");
    for (size_t i = 0; i < r->n; i++) {
        size_t k = 0;
        while (k < r->n_kinds && strcmp(kinds[k].kind, r->answers[i].kind))
            k++;
        if (k == r->n_kinds)
            kinds[r->n_kinds++] = (fv_task_kind){ .kind = r->answers[i].kind };
        kinds[k].n++;
        kinds[k].n_correct += r->answers[i].correct;
    }
    qsort(kinds, r->n_kinds, sizeof *kinds, by_kind);
    return FV_OK;
}

/* ---- asking ---- */

static fv_status tell_history(fv_session *s, const fv_json_value *history, fv_error *err)
{
    for (size_t i = 0; i < fv_json_count(history); i++) {
        const char *text = "", *said = "";
        fv_json_as_string(fv_json_at(fv_json_at(history, i), 0), &text);
        fv_json_as_string(fv_json_at(fv_json_at(history, i), 1), &said);
        FV_TRY(fv_session_add_text(s, text, strlen(text), err));
        FV_TRY(fv_session_add_answer(s, said, strlen(said), err));
    }
    return FV_OK;
}

typedef struct asking {
    task *t;
    fv_engine *engine;
    fv_session *session;
    const char *dir;
    fv_features *features; /* of the last image, */
    const char *image;     /* and its name; NULL: none yet */
    const fv_task_options *options;
    fv_callbacks callbacks;
    size_t at;
} asking;

static bool task_progress(void *user, const char *stage, double done)
{
    const asking *a = user;
    (void)stage;
    (void)done;
    return fv_progress(a->options->callbacks, "task", (double)a->at / (double)a->t->n, NULL) !=
           FV_OK;
}

/* Questions about the same image that follow each other encode it once. */
static fv_status show_image(asking *a, const char *name, fv_error *err)
{
    fv_image *image = NULL;
    fv_encode_options o = { .size = sizeof o, .callbacks = &a->callbacks };
    if (a->image && !strcmp(a->image, name))
        return fv_session_add_features(a->session, a->features, err);
    char *path = fv_path_join(a->dir, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_status status = fv_image_open(&image, path, NULL, err);
    fv_free(path);
    fv_features_free(a->features);
    a->features = NULL;
    a->image = NULL;
    if (status == FV_OK && a->options->encode)
        status = a->options->encode(a->options->encode_user, a->engine, image, &o, &a->features,
                                    err);
    else if (status == FV_OK)
        status = fv_encode(a->engine, image, &o, &a->features, err);
    fv_image_free(image);
    FV_TRY(status);
    a->image = name;
    return fv_session_add_features(a->session, a->features, err);
}

static fv_status question_ask(asking *a, size_t i, char **text, size_t *n, size_t *capacity,
                              fv_error *err)
{
    const question *q = &a->t->question[i];
    fv_piece piece = { .size = sizeof piece };
    fv_session_reset(a->session);
    FV_TRY(show_image(a, q->image, err));
    FV_TRY(tell_history(a->session, q->history, err));
    FV_TRY(fv_session_add_text(a->session, q->text, strlen(q->text), err));
    fv_answer_options answer = { .size = sizeof answer,
                                 .max_new_tokens = a->options->max_new_tokens };
    FV_TRY(fv_session_begin(a->session, &answer, err));
    for (*n = 0; !piece.done;) {
        FV_TRY(fv_session_next(a->session, &piece, err));
        /* never NULL, also for an empty answer */
        FV_TRY(FV_LIST_ROOM(*text, *n, *capacity, piece.n_bytes + 1, err));
        if (piece.n_bytes)
            memcpy(*text + *n, piece.text, piece.n_bytes);
        *n += piece.n_bytes;
    }
    return task_keep(a->t, i, *text, *n, err);
}

static fv_status ask_all(task *t, fv_engine *engine, const char *dir, const fv_task_options *o,
                         fv_error *err)
{
    asking a = { .t = t, .engine = engine, .dir = dir, .options = o };
    fv_session_options so = { .size = sizeof so, .callbacks = &a.callbacks };
    fv_status status;
    size_t n = 0, capacity = 0;
    char *text = NULL;
    a.callbacks =
        (fv_callbacks){ .size = sizeof a.callbacks, .progress = task_progress, .user = &a };
    FV_TRY(fv_session_new(&a.session, engine, &so, err));
    if (o->prepare)
        FV_TRY_GOTO(o->prepare(o->prepare_user, a.session, err));
    for (a.at = 0; a.at < t->n; a.at++)
        FV_TRY_GOTO(question_ask(&a, a.at, &text, &n, &capacity, err));
    status = FV_OK;
fail:
    fv_session_free(a.session);
    fv_features_free(a.features);
    fv_free(text);
    return status;
}

/* ---- answers of another engine ---- */

/* The last answer with this image and question, as score.py takes it; NULL: none. */
static fv_status find_answer(const json_lines *l, const question *q, const char **out,
                             fv_error *err)
{
    *out = "";
    for (size_t i = 0; i < l->n; i++) {
        const fv_json_value *root = fv_json_root(l->doc[i]);
        const char *image, *text;
        FV_TRY(fv_json_string(l->doc[i], root, "image", &image, err));
        FV_TRY(fv_json_string(l->doc[i], root, "question", &text, err));
        if (!strcmp(image, q->image) && !strcmp(text, q->text))
            FV_TRY(fv_json_string(l->doc[i], root, "answer", out, err));
    }
    return FV_OK;
}

static fv_status score_all(task *t, const json_lines *l, fv_error *err)
{
    const fv_json_value *first = l->n ? fv_json_root(l->doc[0]) : NULL;
    bool named = fv_json_member(first, "image") && fv_json_member(first, "question");
    for (size_t i = 0; i < t->n; i++) {
        const char *answer = "";
        if (named)
            FV_TRY(find_answer(l, &t->question[i], &answer, err));
        else if (i < l->n)
            FV_TRY(fv_json_string(l->doc[i], fv_json_root(l->doc[i]), "answer", &answer, err));
        FV_TRY(task_keep(t, i, answer, strlen(answer), err));
    }
    return FV_OK;
}

/* ---- the whole ---- */

static fv_status task_finish(fv_task **out, task *t, double start, fv_status status, fv_error *err)
{
    if (status == FV_OK)
        status = count_kinds(t, err);
    if (status != FV_OK) {
        fv_task_free(t->result);
        t->result = NULL;
    } else {
        t->result->ms = fv_now_ms() - start;
    }
    *out = t->result;
    free_lines(&t->lines);
    fv_free(t->question);
    return status;
}

fv_status fv_task_run(fv_task **out, fv_engine *engine, const char *dir,
                      const fv_task_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    task t = { 0 };
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
    fv_status status = read_questions(&t, dir, &o, err);
    if (status == FV_OK)
        status = ask_all(&t, engine, dir, &o, err);
    return task_finish(out, &t, start, status, err);
}

fv_status fv_task_score(fv_task **out, const char *dir, const char *answers,
                        const fv_task_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    task t = { 0 };
    json_lines lines = { 0 };
    fv_task_options o;
    double start = fv_now_ms();
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(dir, err);
    FV_REQUIRE(answers, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_task_options, options, err));
    fv_status status = read_questions(&t, dir, &o, err);
    if (status == FV_OK)
        status = read_lines(&lines, answers, err);
    if (status == FV_OK)
        status = score_all(&t, &lines, err);
    free_lines(&lines);
    return task_finish(out, &t, start, status, err);
}

fv_status fv_task_save(const fv_task *t, const char *file, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_json_text j = { 0 };
    for (size_t i = 0; i < t->n; i++) {
        fv_json_begin_row(&j, NULL, '{');
        fv_json_put_text(&j, "image", t->answers[i].image);
        fv_json_put_text(&j, "question", t->answers[i].question);
        fv_json_put_text(&j, "answer", t->answers[i].answer);
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
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++) {
        fv_free((char *)t->answers[i].image);
        fv_free((char *)t->answers[i].kind);
        fv_free((char *)t->answers[i].question);
        fv_free((char *)t->answers[i].wanted);
        fv_free((char *)t->answers[i].answer);
    }
    fv_free((fv_task_answer *)t->answers);
    fv_free((fv_task_kind *)t->kinds);
    fv_free(t);
}
