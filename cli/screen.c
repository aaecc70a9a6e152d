/* The one door to standard output and standard error. See cli.h.
 *
 * Nothing else in cli/ prints (tests/cli/test_terminal.sh looks), so text of strangers, be it an
 * answer, a tensor's name or the name of a file in a message, passes here. */
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

/* The beginning of a character whose rest comes with the next piece. */
typedef struct screen {
    char held[4];
    size_t n_held;
} screen;

static screen out_screen;

bool is_terminal(int fd) { return isatty(fd) == 1; }

bool can_redraw(void)
{
    const char *term = getenv("TERM");
    return is_terminal(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* ---- characters -------------------------------------------------------------------------- */

size_t character_read(const char *text, size_t n_bytes, uint32_t *code)
{
    utf8proc_int32_t found;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n_bytes,
                                          &found);
    *code = n > 0 ? (uint32_t)found : 0;
    return n > 0 ? (size_t)n : 0;
}

bool is_text(const char *text, size_t n_bytes, size_t *bad_at)
{
    uint32_t code;
    for (size_t at = 0, n; at < n_bytes; at += n)
        if ((n = character_read(text + at, n_bytes - at, &code)) == 0) {
            *bad_at = at;
            return false;
        }
    return true;
}

/* May the n bytes, which are no character, become one when more follow? */
static bool character_is_begun(const char *text, size_t n)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t wanted = c[0] >= 0xf5 ? 0 : c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : c[0] >= 0xc2 ? 2 : 0;
    for (size_t i = 1; i < n; i++)
        if ((c[i] & 0xc0) != 0x80)
            return false;
    return n < wanted;
}

bool is_control(uint32_t code)
{
    bool turns = (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || turns;
}

/* ---- printing ---------------------------------------------------------------------------- */

static void character_show(FILE *to, uint32_t code)
{
    fprintf(to, code < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)code);
}

/* more: text goes on with the next call, so that a character cut off at the end is held back. */
static void text_show(FILE *to, screen *s, const char *text, size_t n_bytes, bool more)
{
    size_t n;
    uint32_t code;
    for (size_t at = 0; at < n_bytes; at += n) {
        n = character_read(text + at, n_bytes - at, &code);
        if (n && (!is_control(code) || code == '\n' || code == '\t')) {
            fwrite(text + at, 1, n, to);
        } else if (n) {
            character_show(to, code);
        } else if (more && character_is_begun(text + at, n_bytes - at)) {
            s->n_held = n_bytes - at;
            memcpy(s->held, text + at, s->n_held);
            return;
        } else {
            fprintf(to, "\\x%02x", (unsigned char)text[at]);
            n = 1;
        }
    }
}

/* What was held back, and text behind it. */
static void screen_put(FILE *to, screen *s, const char *text, size_t n_bytes, bool more)
{
    size_t n_held = s->n_held;
    s->n_held = 0;
    if (!is_terminal(fileno(to))) {
        fwrite(text, 1, n_bytes, to);
        return;
    }
    char *joined = n_held ? malloc(n_held + n_bytes) : NULL;
    if (joined) {
        memcpy(joined, s->held, n_held);
        memcpy(joined + n_held, text, n_bytes);
        text_show(to, s, joined, n_held + n_bytes, more);
    } else {
        text_show(to, s, s->held, n_held, false);
        text_show(to, s, text, n_bytes, more);
    }
    free(joined);
}

static void screen_print(FILE *to, screen *s, const char *format, va_list args)
{
    char line[1024], *text = line;
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(line, sizeof line, format, args);
    if (n >= (int)sizeof line && (text = malloc((size_t)n + 1)))
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    if (!text) { /* out of memory: what fits */
        text = line;
        n = (int)sizeof line - 1;
    }
    if (n > 0)
        screen_put(to, s, text, (size_t)n, false);
    if (text != line)
        free(text);
}

void print_out(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    screen_print(stdout, &out_screen, format, args);
    va_end(args);
}

void print_err(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_err_list(format, args);
    va_end(args);
}

void print_err_list(const char *format, va_list args)
{
    screen none = { .n_held = 0 };
    screen_print(stderr, &none, format, args);
}

bool write_out(const char *text, size_t n_bytes)
{
    screen_put(stdout, &out_screen, text, n_bytes, true);
    return fflush(stdout) == 0 && !ferror(stdout);
}

int end_out(void)
{
    print_out("%s", "");
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_OK;
    print_err("fastvlm: cannot write to standard output: it is closed or full\n");
    return EXIT_FAILED;
}

/* ---- a line that changes ----------------------------------------------------------------- */

static bool line_shown;

void show_line(const char *format, ...)
{
    va_list args;
    if (!can_redraw())
        return;
    fputc('\r', stderr);
    va_start(args, format);
    print_err_list(format, args);
    va_end(args);
    fputs("\033[K", stderr);
    line_shown = true;
}

void clear_line(void)
{
    if (line_shown)
        fputs("\r\033[K", stderr);
    line_shown = false;
}
