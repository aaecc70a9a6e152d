/* lines: what is typed or piped into a conversation, line by line. */
#ifndef FV_CLI_LINES_H
#define FV_CLI_LINES_H

#include "cli.h"

typedef enum line_kind {
    LINE_TEXT,
    LINE_REFUSED, /* not UTF-8, or with a NUL; why has been said */
    LINE_STOPPED, /* Ctrl-C instead of a line */
    LINE_END,
    LINE_FAILED /* cannot be read, or has no end; why has been said */
} line_kind;

typedef struct line_reader {
    bool typed;             /* by a person in a terminal, who is shown a prompt */
    struct line_edit *edit; /* arrow keys and history; NULL: the terminal's own editing */
    char *text;             /* the last line, without its end; with a NUL behind */
    size_t n_bytes, capacity;
    size_t number; /* of the line, from 1 */
} line_reader;

void line_reader_open(line_reader *r);
/* UTF-8 without a NUL, in r->text; a byte order mark before the first line is dropped. */
line_kind line_read(line_reader *r);
void line_reader_close(line_reader *r);

/* Until something can be read from standard input: false when Ctrl-C came first, also one that came
 * before this call. */
bool line_wait(void);

/* Is text UTF-8 without a NUL? Otherwise says what is wrong with it, which what names. */
bool text_check(const char *what, const char *text, size_t n);
size_t bom_bytes(const char *text, size_t n); /* of the byte order mark before text: 3 or 0 */

/* ---- line_edit.c: libedit, where it is ---------------------------------------------------- */

typedef struct line_edit line_edit;
/* On standard input and standard error; NULL without libedit or a terminal that it can draw on. */
line_edit *line_edit_open(const char *prompt);
/* LINE_TEXT: *text, borrowed until the next call, ends with a newline unless the input ends there.
 */
line_kind line_edit_read(line_edit *e, const char **text, size_t *n_bytes);
void line_edit_close(line_edit *e);

#endif
