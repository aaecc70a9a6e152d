/* questions: what a test asks. JSON objects, one a line -> conversations.
 *
 *     {"image": "images/00010.jpg", "kind": "followup", "question": "What color is it?",
 *      "answer": "Purple", "history": [["Where is the star?", "Bottom left"]]}
 *
 *     {"images": ["a.png", "b.png"],
 *      "turns": [{"kind": "two", "question": "What differs?", "answer": "Nothing."},
 *                {"question": "How many stars are in the first image?", "said": "3"},
 *                {"kind": "correction", "question": "Look again.", "answer": "2"}]}
 *
 * The first is one question; history holds the turns before it, question and answer. The second is
 * a conversation, whose later turns follow the model's own answers. An answer that is "said" stands
 * in the conversation as it is given, and is not scored. "images" (none, one or several, shown
 * before the first turn) goes with "question" too, and "image" with "turns". Other keys mean
 * nothing here. */
#ifndef FV_QUESTIONS_H
#define FV_QUESTIONS_H

#include "io/json.h"

enum { FV_TALK_MAX_IMAGES = 64 };

/* A file of JSON objects, one a line, blank lines skipped. */
typedef struct fv_json_lines {
    fv_json **doc;
    size_t n, capacity;
} fv_json_lines;

/* name is what messages call the text: "NAME, line 3". Zero-initialise; free also on failure. */
fv_status fv_json_lines_parse(fv_json_lines *l, const void *text, size_t n_bytes, const char *name,
                              fv_error *err);
fv_status fv_json_lines_read(fv_json_lines *l, const char *path, fv_error *err);
void fv_json_lines_free(fv_json_lines *l);

typedef struct fv_talk_turn {
    const char *question;
    const char *said;          /* not empty; NULL: the model answers, and is scored */
    const char *kind, *wanted; /* NULL beside said */
} fv_talk_turn;

typedef struct fv_talk {
    const char *image; /* what "image" names; NULL: it is "images" */
    const char **images;
    size_t n_images;
    fv_talk_turn *turns;
    size_t n_turns, n_asked; /* of them the model answers, at least one */
    bool is_turns;           /* it is "turns", not "question" */
    const fv_json *doc;
} fv_talk;

typedef struct fv_questions {
    fv_json_lines lines; /* every text above is borrowed from them */
    fv_talk *talks;
    size_t n, n_asked;
    bool has_turns; /* a line has "turns" */
    bool by_name;   /* image and question name every turn that is asked */
} fv_questions;

/* The first `most` lines (0: all). Zero-initialise; free also on failure. */
fv_status fv_questions_parse(fv_questions *q, const void *text, size_t n_bytes, const char *name,
                             size_t most, fv_error *err);
fv_status fv_questions_read(fv_questions *q, const char *path, size_t most, fv_error *err);
void fv_questions_free(fv_questions *q);

#endif
