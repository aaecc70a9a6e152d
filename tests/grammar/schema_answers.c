/* schema_answers: many answers by one JSON schema, a line each, for tools/test-schema.sh.
 *
 *     schema_answers MODEL SCHEMA COUNT IMAGE...
 *
 * Sampled at a high temperature, so that what holds an answer to the schema is the mask and not the
 * model; several at once, with one set of masks each. An answer that is cut off at 200 tokens, or
 * whose masks fail, ends the program with exit code 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar.h"

enum { TOGETHER = 8, MAX_IMAGES = 16, MAX_TEXT = 4096 };

typedef struct answer_lane {
    fv_session *session;
    fv_constraint *constraint;
    char text[MAX_TEXT];
    size_t n;
    bool busy;
} answer_lane;

static void answers_fail(const fv_error *err)
{
    fprintf(stderr, "schema_answers: %s\n", err->message);
    exit(1);
}

static void answer_begin(answer_lane *lane, const fv_grammar *grammar, const char *schema,
                         fv_features *features, size_t number)
{
    static const char question[] = "Describe the image.";
    fv_answer_options o = {
        .size = sizeof o, .temperature = 1.5f, .seed = number, .max_new_tokens = 200
    };
    fv_error err;
    if (fv_constraint_new(&lane->constraint, grammar, schema, strlen(schema), &err) != FV_OK)
        answers_fail(&err);
    fv_constraint_apply(lane->constraint, &o);
    fv_session_reset(lane->session);
    if (fv_session_add_features(lane->session, features, &err) != FV_OK ||
        fv_session_add_text(lane->session, question, strlen(question), &err) != FV_OK ||
        fv_session_begin(lane->session, &o, &err) != FV_OK)
        answers_fail(&err);
    lane->n = 0;
    lane->busy = true;
}

static void answer_take(answer_lane *lane, const fv_piece *piece)
{
    fv_error err;
    if (fv_constraint_check(lane->constraint, &err) != FV_OK)
        answers_fail(&err);
    if (lane->n + piece->n_bytes > MAX_TEXT) {
        fprintf(stderr, "schema_answers: an answer of more than %d bytes\n", MAX_TEXT);
        exit(1);
    }
    memcpy(lane->text + lane->n, piece->text, piece->n_bytes);
    lane->n += piece->n_bytes;
    if (!piece->done)
        return;
    if (piece->finish != FV_FINISH_STOP || !fv_constraint_complete(lane->constraint)) {
        fprintf(stderr, "schema_answers: cut off: %.*s\n", (int)lane->n, lane->text);
        exit(1);
    }
    printf("%.*s\n", (int)lane->n, lane->text);
    fv_constraint_free(lane->constraint);
    lane->busy = false;
}

/* A token for every lane that has an answer to give. */
static void answers_step(answer_lane *lanes)
{
    fv_session *sessions[TOGETHER];
    answer_lane *taking[TOGETHER];
    fv_piece pieces[TOGETHER];
    fv_error err;
    size_t n = 0;
    for (size_t i = 0; i < TOGETHER; i++)
        if (lanes[i].busy) {
            taking[n] = &lanes[i];
            sessions[n] = lanes[i].session;
            pieces[n++] = (fv_piece){ .size = sizeof *pieces };
        }
    if (fv_sessions_next(sessions, n, pieces, NULL, &err) != FV_OK)
        answers_fail(&err);
    for (size_t i = 0; i < n; i++)
        answer_take(taking[i], &pieces[i]);
}

static void answers_run(fv_engine *engine, const fv_grammar *grammar, const char *schema,
                        size_t count, fv_features *const *features, size_t n_features)
{
    answer_lane lanes[TOGETHER] = { 0 };
    size_t begun = 0, busy = 0;
    fv_error err;
    for (size_t i = 0; i < TOGETHER; i++)
        if (fv_session_new(&lanes[i].session, engine, NULL, &err) != FV_OK)
            answers_fail(&err);
    do {
        for (size_t i = 0; i < TOGETHER; i++)
            if (!lanes[i].busy && begun < count) {
                answer_begin(&lanes[i], grammar, schema, features[begun % n_features], begun);
                begun++;
            }
        answers_step(lanes);
        busy = 0;
        for (size_t i = 0; i < TOGETHER; i++)
            busy += lanes[i].busy;
    } while (busy || begun < count);
    for (size_t i = 0; i < TOGETHER; i++)
        fv_session_free(lanes[i].session);
}

int main(int argc, char **argv)
{
    fv_engine *engine;
    fv_grammar *grammar;
    fv_features *features[MAX_IMAGES];
    fv_error err;
    size_t n = 0;
    if (argc < 5 || argc > 4 + MAX_IMAGES) {
        fprintf(stderr, "usage: schema_answers MODEL SCHEMA COUNT IMAGE...\n");
        return 2;
    }
    if (fv_engine_open(&engine, argv[1], NULL, &err) != FV_OK ||
        fv_grammar_open(&grammar, engine, &err) != FV_OK)
        answers_fail(&err);
    for (int i = 4; i < argc; i++) {
        fv_image *image;
        if (fv_image_open(&image, argv[i], NULL, &err) != FV_OK ||
            fv_encode(engine, image, NULL, &features[n++], &err) != FV_OK)
            answers_fail(&err);
        fv_image_free(image);
    }
    answers_run(engine, grammar, argv[2], strtoul(argv[3], NULL, 10), features, n);
    while (n > 0)
        fv_features_free(features[--n]);
    fv_grammar_free(grammar);
    fv_engine_free(engine);
    return 0;
}
