/* shell_text: a command for a phone's shell, as text that grows.
 *
 *     fv_shell_text t = { 0 };
 *     fv_shell_add(&t, "mv -f ");
 *     fv_shell_quote(&t, "a b");                        'a b'
 *     FV_TRY_GOTO(fv_shell_done(&t, err));              memory was enough
 *     ... t.text ...
 *     fv_shell_text_free(&t);
 */
#ifndef FV_SHELL_TEXT_H
#define FV_SHELL_TEXT_H

#include "base/base.h"

typedef struct fv_shell_text {
    char *text; /* with a NUL; NULL while nothing was added */
    size_t n, capacity;
    bool failed; /* memory was out */
} fv_shell_text;

void fv_shell_add(fv_shell_text *t, const char *format, ...) FV_PRINTF(2, 3);
/* One word whatever it holds: 'it'\''s' */
void fv_shell_quote(fv_shell_text *t, const char *word);
fv_status fv_shell_done(const fv_shell_text *t, fv_error *err);
void fv_shell_text_free(fv_shell_text *t);

#endif
