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

bool is_control(uint32_t code)
{
    bool turns = (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || turns;
}

/* ---- printing ---------------------------------------------------------------------------- */

static void text_put(FILE *to, const char *text, size_t n_bytes)
{
    size_t n;
    uint32_t code;
    if (!is_terminal(fileno(to))) {
        fwrite(text, 1, n_bytes, to);
        return;
    }
    for (size_t at = 0; at < n_bytes; at += n) {
        n = character_read(text + at, n_bytes - at, &code);
        if (n && (!is_control(code) || code == '\n' || code == '\t')) {
            fwrite(text + at, 1, n, to);
        } else if (n) {
            fprintf(to, code < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)code);
        } else {
            fprintf(to, "\\x%02x", (unsigned char)text[at]);
            n = 1;
        }
    }
}

static void text_print(FILE *to, const char *format, va_list args)
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
        text_put(to, text, (size_t)n);
    if (text != line)
        free(text);
}

void print_out(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_print(stdout, format, args);
    va_end(args);
}

void print_err(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_print(stderr, format, args);
    va_end(args);
}

void print_err_list(const char *format, va_list args) { text_print(stderr, format, args); }

bool write_out(const char *text, size_t n_bytes)
{
    text_put(stdout, text, n_bytes);
    return fflush(stdout) == 0 && !ferror(stdout);
}

int end_out(void)
{
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
