/* task: the demonstration test. A part of the program that lives in the library, where JSON is; not
 * of the public interface. The program finds this header as program/task.h. */
#ifndef FV_TASK_H
#define FV_TASK_H

#include "fastvlm.h"

/* An image's tokens, made by something else than the engine; as fv_encode. */
typedef fv_status fv_task_encode_fn(void *user, const fv_engine *engine, const fv_image *image,
                                    const fv_encode_options *options, fv_features **out,
                                    fv_error *err);
/* Before the first question: another decoder for the session. */
typedef fv_status fv_task_prepare_fn(void *user, fv_session *session, fv_error *err);

typedef struct fv_task_options {
    size_t size;
    fv_task_encode_fn *encode; /* NULL: the engine does */
    void *encode_user;
    fv_task_prepare_fn *prepare; /* may be NULL */
    void *prepare_user;
    int max_questions;             /**< the first so many lines: questions, conversations; 0: all */
    int max_new_tokens;            /**< 0: 96 */
    const fv_callbacks *callbacks; /**< progress stage "task" */
} fv_task_options;

FV_DEFINE_DEFAULT(fv_task_options)

/* One turn that was to be answered. */
typedef struct fv_task_answer {
    const char *image; /* as "image" names it; NULL: by "images" */
    const char *const *images;
    size_t n_images, conversation, turn; /* both count from 1; conversation: the test's lines */
    const char *kind, *question, *wanted, *answer;
    bool correct;
} fv_task_answer;

typedef struct fv_task_share {
    size_t n, n_correct;
} fv_task_share;

typedef struct fv_task_kind {
    const char *kind;
    fv_task_share share;
} fv_task_kind;

typedef struct fv_task {
    const fv_task_answer *answers;
    const fv_task_kind *kinds;  /* by name */
    const fv_task_share *turns; /* turns[i]: of all turns i + 1; may be of none */
    size_t n, n_correct, n_kinds, n_turns;
    bool has_conversations; /* the test has turns that follow the model's own answers */
    double ms;
    size_t n_unanswered; /* of the wrong ones: the answer is missing or empty */
} fv_task;

/* Asks the questions of the folder dir (questions.jsonl and the images it names: questions.h) and
 * scores the answers by exact rules (docs/evaluation.md). *out is released with fv_task_free. */
fv_status fv_task_run(fv_task **out, fv_engine *engine, const char *dir,
                      const fv_task_options *options, fv_error *err);
/* Scores answers that something else gave: one JSON object with "answer" a line, in the order of
 * the questions, whose "question" must then be the one asked if it has one; or, for tests of single
 * questions, with "image" and "question" to find them by. What is not answered is wrong:
 * n_unanswered counts it. */
fv_status fv_task_score(fv_task **out, const char *dir, const char *answers,
                        const fv_task_options *options, fv_error *err);
/* One line {"image", "question", "answer"} each; of conversations with "turn", and "images" where
 * the test has those. */
fv_status fv_task_save(const fv_task *t, const char *file, fv_error *err);
void fv_task_free(fv_task *t);

#endif
