/* answer: the options of an answer, and taking one from a session. Shared by run and chat. */
#ifndef FV_CLI_ANSWER_H
#define FV_CLI_ANSWER_H

#include "cli.h"
#include "fastvlm_npu.h"
#include "program/grammar.h"

/* What encodes images in place of the engine. */
typedef struct turn_npu {
    fv_npu *npu;
    const fv_engine *engine;
    const fv_callbacks *callbacks;
} turn_npu;

typedef struct answer_options {
    float temperature, top_p, min_p, repetition_penalty;
    int top_k, max_new_tokens, max_context, fit, max_megapixels;
    bool greedy, no_exif, ignore_eos;
    uint64_t seed;
    const char *system;
    text_list stop;
    turn_npu *npu;             /* NULL: the engine encodes */
    fv_constraint *constraint; /* NULL: the answer may be any text */
} answer_options;

#define ANSWER_DEFAULTS                                                  \
    {                                                                    \
        .top_p = 1.0f, .repetition_penalty = 1.0f, .max_megapixels = 268 \
    }

/* clang-format off */
#define ANSWER_OPTIONS(a)                                                                         \
    { 's', "system", OPTION_TEXT, &(a).system, "TEXT", "system prompt", 0, 0 },                   \
    { 'n', "max-new-tokens", OPTION_INT, &(a).max_new_tokens, "N",                                \
      "maximum length of the answer in tokens; 0: as much as the context allows", 0, 1e6 },       \
    { 0, "context", OPTION_INT, &(a).max_context, "N",                                            \
      "context length in tokens; 0: the model's limit", 0, 1e7 },                                 \
    { 0, "greedy", OPTION_FLAG, &(a).greedy, NULL,                                                \
      "always choose the most likely token (default)", 0, 0 },                                    \
    { 0, "temperature", OPTION_FLOAT, &(a).temperature, "T",                                      \
      "sample at this temperature; 0: greedy", 0, 100 },                                          \
    { 0, "top-k", OPTION_INT, &(a).top_k, "N",                                                    \
      "sample from the N most likely tokens; 0: off", 0, 1e9 },                                   \
    { 0, "top-p", OPTION_FLOAT, &(a).top_p, "P",                                                  \
      "sample from the fewest tokens with total probability P; 1: off", 0, 1 },                   \
    { 0, "min-p", OPTION_FLOAT, &(a).min_p, "P",                                                  \
      "ignore tokens less than P times as likely as the best; 0: off", 0, 1 },                    \
    { 0, "repetition-penalty", OPTION_FLOAT, &(a).repetition_penalty, "R",                        \
      "penalise tokens that occurred before; 1: off", 0.01, 100 },                                \
    { 0, "seed", OPTION_U64, &(a).seed, "N", "random seed for sampling (default 0)", 0, 0 },      \
    { 0, "stop", OPTION_LIST, &(a).stop, "TEXT",                                                  \
      "end the answer before this text; may be repeated", 0, 0 },                                 \
    { 0, "fit", OPTION_CHOICE, &(a).fit, "auto|pad|crop|stretch",                                 \
      "how images are fitted to the square input", 0, 0 },                                        \
    { 0, "no-exif", OPTION_FLAG, &(a).no_exif, NULL,                                              \
      "ignore the EXIF orientation of images", 0, 0 },                                            \
    { 0, "max-megapixels", OPTION_INT, &(a).max_megapixels, "N",                                  \
      "refuse larger images (default 268)", 1, 4294 },                                            \
    { 0, "ignore-eos", OPTION_FLAG, &(a).ignore_eos, NULL,                                        \
      "continue past the end token (for timing)", 0, 0 }
/* clang-format on */

/* schema.c: a JSON schema that answers are held to, from a file. */
typedef struct answer_schema {
    const char *path; /* "-": standard input; NULL: there is none */
    char *text;       /* [n], to free */
    size_t n;
} answer_schema;

/* clang-format off */
#define SCHEMA_OPTION(s)                                                                          \
    { 0, "json-schema", OPTION_TEXT, &(s).path, "FILE",                                           \
      "answer with JSON that is valid by this JSON schema", 0, 0 }
/* clang-format on */

/* Beside the options of the answer, and the file's text. -1, or an exit code after saying what is
 * wrong. */
int schema_check(const char *verb, const answer_schema *s, const answer_options *a);
int schema_read(const char *verb, answer_schema *s);
/* All of a file of text, or of standard input, with a NUL behind it; NULL after saying what is
 * wrong. what: "prompt" */
char *text_read(const char *path, const char *what, size_t max_bytes, size_t *n_bytes);

/* -1, or an exit code after saying what is wrong. */
int check_answer_options(const char *verb, const answer_options *a);
/* callbacks outlive *out. */
void session_options(fv_session_options *out, const answer_options *a,
                     const fv_callbacks *callbacks);
/* How an answer is chosen; borrows from a. */
void fill_answer(fv_answer_options *out, const answer_options *a);
/* How the next answer is chosen. */
fv_status begin_answer(fv_session *session, const answer_options *a, fv_error *err);

/* NULL: *err says why. */
fv_image *open_picture(const char *path, const answer_options *a, fv_error *err);
/* Images of a turn: read already, or read one by one as they are encoded. */
typedef struct turn_images {
    fv_image *const *read;   /* NULL: by their paths */
    const char *const *path; /* NULL: read */
    size_t n;
} turn_images;

/* "<image>" in a prompt: how often. */
size_t count_marks(const char *prompt);
/* -1 when there is none, or one for each image; else an exit code after saying what is wrong. */
int check_marks(const char *prompt, size_t n_images);
/* The user's turn, images encoded: every "<image>" in the prompt is replaced by the next of them;
 * without such a mark images come first. -1, or an exit code after saying what is wrong; then the
 * session may hold a part of the turn. */
int write_turn(fv_session *session, const turn_images *images, const char *prompt,
               const answer_options *a);

typedef struct answer_text {
    char *text;
    size_t n_bytes, capacity;
    int32_t *ids;
    size_t n_ids, ids_capacity;
    fv_finish finish;
} answer_text;

/* Takes an answer to its end, writing its text to stdout as it comes when stream is true.
 * -1, or an exit code after saying what is wrong. With progress->keep_answer Ctrl-C ends the answer
 * where it is, with finish FV_FINISH_NONE. */
int take_answer(fv_session *session, answer_text *out, bool stream, const progress_line *progress);
void answer_free(answer_text *a);

/* The lines of figures on stderr. */
void print_profile(const fv_engine *engine, const fv_stats *stats);

#endif
