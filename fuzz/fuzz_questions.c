/* Bytes as the questions of a test: what is read must be whole. */
#include <stdlib.h>
#include <string.h>

#include "eval/questions.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check_talk(const fv_talk *t, size_t n_bytes)
{
    size_t n_asked = 0;
    if (t->n_images > FV_TALK_MAX_IMAGES || (t->image && t->n_images != 1))
        abort();
    for (size_t i = 0; i < t->n_images; i++)
        if (strlen(t->images[i]) > n_bytes)
            abort();
    for (size_t i = 0; i < t->n_turns; i++) {
        const fv_talk_turn *turn = &t->turns[i];
        if (!turn->question || (turn->said ? !*turn->said : !turn->kind || !turn->wanted))
            abort();
        n_asked += !turn->said;
    }
    if (!n_asked || n_asked != t->n_asked || (!t->is_turns && n_asked != 1))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_questions q = { 0 };
    fv_error err = { 0 };
    if (fv_questions_parse(&q, data, n_bytes, "questions.jsonl", 0, &err) == FV_OK) {
        size_t n_asked = 0;
        for (size_t i = 0; i < q.n; i++) {
            check_talk(&q.talks[i], n_bytes);
            n_asked += q.talks[i].n_asked;
        }
        if (!q.n || q.n != q.lines.n || n_asked != q.n_asked)
            abort();
    } else if (!err.message[0]) {
        abort();
    }
    fv_questions_free(&q);
    return 0;
}
