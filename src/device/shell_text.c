/* Commands for a phone's shell. See shell_text.h. */
#include "device/shell_text.h"

#include <string.h>

#include "base/list.h"
#include "base/number.h"

static void shell_text_put(fv_shell_text *t, const char *text, size_t n)
{
    t->failed = t->failed || FV_LIST_ROOM(t->text, t->n, t->capacity, n + 1, NULL) != FV_OK;
    if (t->failed)
        return;
    memcpy(t->text + t->n, text, n);
    t->n += n;
    t->text[t->n] = '\0';
}

void fv_shell_add(fv_shell_text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = fv_format_list(NULL, 0, format, args);
    if (n >= 0 && FV_LIST_ROOM(t->text, t->n, t->capacity, (size_t)n + 1, NULL) == FV_OK) {
        fv_format_list(t->text + t->n, (size_t)n + 1, format, again);
        t->n += (size_t)n;
    } else {
        t->failed = true;
    }
    va_end(again);
    va_end(args);
}

void fv_shell_quote(fv_shell_text *t, const char *word)
{
    shell_text_put(t, "'", 1);
    for (const char *at = word; *at;) {
        size_t n = strcspn(at, "'");
        shell_text_put(t, at, n);
        at += n;
        if (*at) {
            shell_text_put(t, "'\\''", 4);
            at++;
        }
    }
    shell_text_put(t, "'", 1);
}

fv_status fv_shell_done(const fv_shell_text *t, fv_error *err)
{
    return t->failed ? fv_fail_memory(err, t->n, "a command for the phone") : FV_OK;
}

void fv_shell_text_free(fv_shell_text *t)
{
    fv_free(t->text);
    *t = (fv_shell_text){ 0 };
}
