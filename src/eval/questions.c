/* What a test asks. See questions.h. */
#include "eval/questions.h"

#include <stdio.h>
#include <string.h>

#include "base/list.h"

enum { MAX_FILE = 1 << 28 };

/* ---- lines ---- */

static fv_status lines_add(fv_json_lines *l, const char *text, size_t n_bytes, const char *file,
                           size_t number, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(l->doc, l->n, l->capacity, 1, err));
    char name[512];
    snprintf(name, sizeof name, "%s, line %zu", file, number);
    FV_TRY(fv_json_parse(&l->doc[l->n], text, n_bytes, name, err));
    l->n++;
    if (fv_json_type_of(fv_json_root(l->doc[l->n - 1])) != FV_JSON_OBJECT)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: expected an object, found %s", name,
                       fv_json_type_name(fv_json_root(l->doc[l->n - 1])));
    return FV_OK;
}

fv_status fv_json_lines_parse(fv_json_lines *l, const void *text, size_t n_bytes, const char *name,
                              fv_error *err)
{
    const char *from = text;
    for (size_t at = 0, end, number = 1; at < n_bytes; at = end + 1, number++) {
        const char *stop = memchr(from + at, '\n', n_bytes - at);
        size_t blank = at;
        end = stop ? (size_t)(stop - from) : n_bytes;
        while (blank < end && strchr(" \t\r", from[blank]) && from[blank])
            blank++;
        if (blank < end)
            FV_TRY(lines_add(l, from + at, end - at, name, number, err));
    }
    return FV_OK;
}

fv_status fv_json_lines_read(fv_json_lines *l, const char *path, fv_error *err)
{
    uint8_t *data;
    size_t n;
    FV_TRY(fv_read_file(&data, &n, path, MAX_FILE, err));
    fv_status status = fv_json_lines_parse(l, data, n, path, err);
    fv_free(data);
    return status;
}

void fv_json_lines_free(fv_json_lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        fv_json_free(l->doc[i]);
    fv_free(l->doc);
    *l = (fv_json_lines){ 0 };
}

/* ---- a line as a conversation ---- */

static fv_status talk_read_images(fv_talk *t, const fv_json_value *root, fv_error *err)
{
    const fv_json_value *list = NULL;
    const char *name = fv_json_name(t->doc);
    FV_TRY(fv_json_opt_string(t->doc, root, "image", &t->image, err));
    FV_TRY(fv_json_opt_array(t->doc, root, "images", &list, err));
    if (!t->image == !list)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: expected either image or images, found %s (images may be empty)", name,
                       list ? "both" : "neither");
    size_t n = list ? fv_json_count(list) : 1;
    if (n > FV_TALK_MAX_IMAGES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: images: expected up to %d, found %zu", name,
                       FV_TALK_MAX_IMAGES, n);
    t->images = fv_alloc(n, sizeof *t->images);
    if (!t->images)
        return fv_fail_memory(err, n * sizeof *t->images, "the names of images");
    if (!list)
        t->images[t->n_images++] = t->image;
    for (; t->n_images < n; t->n_images++)
        if (!fv_json_as_string(fv_json_at(list, t->n_images), &t->images[t->n_images]))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: images.%zu: expected a string, found %s",
                           name, t->n_images, fv_json_type_name(fv_json_at(list, t->n_images)));
    return FV_OK;
}

static fv_status talk_make_turns(fv_talk *t, size_t n, fv_error *err)
{
    t->turns = fv_alloc_zero(n, sizeof *t->turns);
    return t->turns ? FV_OK : fv_fail_memory(err, n * sizeof *t->turns, "the turns of a question");
}

static fv_status talk_ask(fv_talk *t, const fv_json_value *object, fv_error *err)
{
    fv_talk_turn *turn = &t->turns[t->n_turns];
    FV_TRY(fv_json_string(t->doc, object, "kind", &turn->kind, err));
    FV_TRY(fv_json_string(t->doc, object, "question", &turn->question, err));
    FV_TRY(fv_json_string(t->doc, object, "answer", &turn->wanted, err));
    t->n_turns++;
    t->n_asked++;
    return FV_OK;
}

static fv_status talk_read_question(fv_talk *t, const fv_json_value *root, fv_error *err)
{
    const fv_json_value *history = NULL;
    FV_TRY(fv_json_opt_array(t->doc, root, "history", &history, err));
    size_t n = fv_json_count(history);
    FV_TRY(talk_make_turns(t, n + 1, err));
    for (size_t i = 0; i < n; i++) {
        const fv_json_value *pair = fv_json_at(history, i);
        fv_talk_turn *turn = &t->turns[t->n_turns++];
        if (fv_json_type_of(pair) != FV_JSON_ARRAY || fv_json_count(pair) != 2 ||
            !fv_json_as_string(fv_json_at(pair, 0), &turn->question) ||
            !fv_json_as_string(fv_json_at(pair, 1), &turn->said) || !*turn->said)
            return fv_fail(
                err, FV_ERR_FORMAT, 0,
                "%s: history: turn %zu is not a pair of a question and a non-empty answer",
                fv_json_name(t->doc), i);
    }
    return talk_ask(t, root, err);
}

static fv_status talk_read_turns(fv_talk *t, const fv_json_value *list, fv_error *err)
{
    size_t n = fv_json_count(list);
    const char *name = fv_json_name(t->doc);
    FV_TRY(talk_make_turns(t, n, err));
    for (size_t i = 0; i < n; i++) {
        const fv_json_value *object = fv_json_at(list, i);
        fv_talk_turn *turn = &t->turns[i];
        if (fv_json_type_of(object) != FV_JSON_OBJECT)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: turns.%zu: expected an object, found %s",
                           name, i, fv_json_type_name(object));
        FV_TRY(fv_json_opt_string(t->doc, object, "said", &turn->said, err));
        if (!turn->said) {
            FV_TRY(talk_ask(t, object, err));
            continue;
        }
        if (!*turn->said)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: turns.%zu.said: expected text, found an empty string", name, i);
        FV_TRY(fv_json_string(t->doc, object, "question", &turn->question, err));
        t->n_turns++;
    }
    if (!t->n_asked)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: turns: expected at least one that is to be answered, found %zu, all "
                       "with said",
                       name, n);
    return FV_OK;
}

static fv_status talk_read(fv_talk *t, const fv_json *doc, fv_error *err)
{
    static const char *const alone[] = { "question", "history" };
    const fv_json_value *root = fv_json_root(doc), *turns = NULL;
    t->doc = doc;
    FV_TRY(talk_read_images(t, root, err));
    FV_TRY(fv_json_opt_array(doc, root, "turns", &turns, err));
    t->is_turns = turns != NULL;
    if (!turns)
        return talk_read_question(t, root, err);
    for (size_t i = 0; i < FV_COUNT(alone); i++)
        if (fv_json_member(root, alone[i]))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: expected either turns or %s, found both",
                           fv_json_name(doc), alone[i]);
    return talk_read_turns(t, turns, err);
}

/* ---- all of them ---- */

static fv_status questions_fill(fv_questions *q, const char *name, size_t most, fv_error *err)
{
    if (!q->lines.n)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: contains no questions", name);
    size_t n = most ? FV_MIN(most, q->lines.n) : q->lines.n;
    q->talks = fv_alloc_zero(n, sizeof *q->talks);
    if (!q->talks)
        return fv_fail_memory(err, n * sizeof *q->talks, "questions");
    q->by_name = true;
    for (size_t i = 0; i < n; i++) {
        fv_talk *t = &q->talks[i];
        q->n = i + 1; /* released from now on, however far it is read */
        FV_TRY(talk_read(t, q->lines.doc[i], err));
        q->n_asked += t->n_asked;
        q->has_turns = q->has_turns || t->is_turns;
        q->by_name = q->by_name && t->image && !t->is_turns;
    }
    return FV_OK;
}

fv_status fv_questions_parse(fv_questions *q, const void *text, size_t n_bytes, const char *name,
                             size_t most, fv_error *err)
{
    FV_TRY(fv_json_lines_parse(&q->lines, text, n_bytes, name, err));
    return questions_fill(q, name, most, err);
}

fv_status fv_questions_read(fv_questions *q, const char *path, size_t most, fv_error *err)
{
    FV_TRY(fv_json_lines_read(&q->lines, path, err));
    return questions_fill(q, path, most, err);
}

void fv_questions_free(fv_questions *q)
{
    for (size_t i = 0; i < q->n; i++) {
        fv_free(q->talks[i].images);
        fv_free(q->talks[i].turns);
    }
    fv_free(q->talks);
    fv_json_lines_free(&q->lines);
    *q = (fv_questions){ 0 };
}
