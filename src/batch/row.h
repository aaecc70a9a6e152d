/* row: one row of a batch, what is to be asked and about which images.
 *
 *     a.jpg                                                    the path of an image
 *     {"image": "a.jpg", "prompt": "How many?", "id": "7"}     JSON
 *     {"custom_id": "7", "body": {"messages": ...}}             OpenAI's: see openai_row.h
 *
 * A row that cannot be read is a row all the same: its status says so. */
#ifndef FV_ROW_H
#define FV_ROW_H

#include "base/base.h"

typedef enum fv_row_part_kind { FV_ROW_IMAGE, FV_ROW_TEXT, FV_ROW_ANSWER } fv_row_part_kind;

/* A part of the conversation, in the order in which the model sees them. All is owned. */
typedef struct fv_row_part {
    fv_row_part_kind kind;
    char *text; /* TEXT and ANSWER: n bytes of UTF-8 and a NUL; IMAGE: a path, NULL: data */
    size_t n;
    uint8_t *data; /* the bytes of an image file */
    size_t n_data;
} fv_row_part;

typedef struct fv_row {
    uint64_t index;             /* in the inputs, before they are dealt to shards */
    char *id;                   /* that the row brings itself; NULL: none */
    bool is_key;                /* the id is: rows are told apart by it */
    char *image;                /* how the output calls its image; NULL: it does not */
    char *model;                /* that it names, likewise */
    struct fv_request *request; /* of OpenAI's: how it is to be answered, without the conversation;
                                   NULL: as all */
    fv_row_part *parts;
    size_t n_parts, capacity;
    fv_status status; /* FV_OK, or why it cannot be answered */
    bool too_long;    /* with FV_ERR_LIMIT: for the context, and not in bytes, pixels or numbers */
    bool begun;       /* its answer had, when it failed */
    char *problem;
    double at; /* share of the inputs that lies before it or is it */
} fv_row;

enum {
    FV_ROW_MAX_IMAGES = 64,
    FV_ROW_MAX_PATH = 4096,
    FV_ROW_MAX_BYTES = 64 << 20 /* of a line: images may be in it, in base64 */
};

void fv_row_free(fv_row *row); /* leaves it zero */
/* Once it is answered: what it asks for may be large. */
void fv_row_drop_parts(fv_row *row);

/* Adds a part; takes nothing, copies n bytes of text. */
fv_status fv_row_add(fv_row *row, fv_row_part_kind kind, const char *text, size_t n, fv_error *err);
/* Nothing but blanks, which is no question. */
bool fv_prompt_is_blank(const char *prompt, size_t n);
/* The user's turn: the images at `first` and behind it, which are there already, and the prompt.
 * Every "<image>" in the prompt is the place of the next of them; without such a mark they stay
 * in front of it. A blank prompt is FV_ERR_ARGUMENT. */
fv_status fv_row_add_prompt(fv_row *row, size_t first, const char *prompt, size_t n, fv_error *err);

/* Makes it a row that failed: err's status and message. FV_ERR_MEMORY fails the run instead. */
fv_status fv_row_fail(fv_row *row, fv_error *err);

/* Its name as a file: its id without "./" in front, or that of its image without directories and
 * ending; to fv_free.
 * *name NULL: it has none. Fails when memory is out. */
fv_status fv_row_name(char **name, const char *id, const char *image, fv_error *err);
/* Could a file of that name, without its ending, be written below a directory? Directories on the
 * way end in none of the endings that files of the output have: "a.txt/b" beside "a". */
bool fv_row_name_is_safe(const char *name);
/* And be the key of a sample, which ends at the first dot of the last part? */
bool fv_row_name_is_key(const char *name);

/* What stands in every row: where relative paths begin, and what is asked where a row does not
 * say. */
typedef struct fv_row_defaults {
    const char *root; /* NULL: the working directory */
    const char *prompt;
    size_t n_prompt;
    size_t n_tokens; /* ids of the model's vocabulary */
    bool grammar;    /* rows may ask for JSON by a schema */
    bool json;       /* and are all held to one */
} fv_row_defaults;

/* A line of a list, without its end. row is zero but for its index, and is filled; only memory that
 * is out is a failure. */
fv_status fv_row_read_line(fv_row *row, const char *line, size_t n_bytes,
                           const fv_row_defaults *defaults, fv_error *err);
/* The row of one image's path, as the list of a directory names it. Fails when memory is out, or
 * for the default prompt. */
fv_status fv_row_of_image(fv_row *row, const char *path, const fv_row_defaults *defaults,
                          fv_error *err);

#endif
