/* Lines of a conversation. See lines.h. */
#include "lines.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>

static const char prompt[] = "> ";
enum { MAX_LINE_BYTES = 16 << 20 };

void line_reader_open(line_reader *r)
{
    *r = (line_reader){ .typed = is_terminal(0) && is_terminal(2) };
    if (r->typed)
        r->edit = line_edit_open(prompt);
}

void line_reader_close(line_reader *r)
{
    line_edit_close(r->edit);
    free(r->text);
    *r = (line_reader){ 0 };
}

static bool line_room(line_reader *r, size_t n)
{
    if (r->n_bytes + n < r->capacity)
        return true;
    size_t capacity = (r->n_bytes + n) * 2 + 256;
    char *grown = realloc(r->text, capacity);
    if (!grown) {
        print_err("fastvlm: out of memory: line %zu\n", r->number);
        return false;
    }
    r->text = grown;
    r->capacity = capacity;
    return true;
}

static bool line_append(line_reader *r, const char *text, size_t n)
{
    if (!line_room(r, n))
        return false;
    memcpy(r->text + r->n_bytes, text, n);
    r->n_bytes += n;
    r->text[r->n_bytes] = 0;
    return true;
}

static line_kind line_take_edited(line_reader *r)
{
    const char *text;
    size_t n;
    line_kind kind = line_edit_read(r->edit, &text, &n);
    if (kind != LINE_TEXT)
        return kind;
    return line_append(r, text, n) ? LINE_TEXT : LINE_FAILED;
}

bool line_wait(void)
{
    sigset_t stops, before;
    fd_set input;
    int n;
    sigemptyset(&stops);
    sigaddset(&stops, SIGINT);
    sigaddset(&stops, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stops, &before);
    do {
        FD_ZERO(&input);
        FD_SET(0, &input);
        n = interrupted() ? -1 : pselect(1, &input, NULL, NULL, NULL, &before);
    } while (n < 0 && !interrupted() && errno == EINTR);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !interrupted();
}

static line_kind line_take(line_reader *r)
{
    if (r->typed)
        print_err("%s", prompt);
    if (r->typed && !line_wait())
        return LINE_STOPPED;
    for (int c = 0; c != '\n';) {
        errno = 0;
        c = getc(stdin);
        if (c == EOF && ferror(stdin)) {
            bool stopped = errno == EINTR;
            if (!stopped)
                print_err("fastvlm: standard input: cannot be read: %s\n", strerror(errno));
            clearerr(stdin);
            return stopped ? LINE_STOPPED : LINE_FAILED;
        }
        if (c == EOF) {
            clearerr(stdin); /* Ctrl-D ends a line in a terminal, too */
            return r->n_bytes ? LINE_TEXT : LINE_END;
        }
        if (r->n_bytes == MAX_LINE_BYTES) {
            print_err("fastvlm: line %zu: longer than %d bytes\n", r->number, MAX_LINE_BYTES);
            return LINE_FAILED;
        }
        if (!line_append(r, &(char){ (char)c }, 1))
            return LINE_FAILED;
    }
    return LINE_TEXT;
}

/* ASCII in 16 bits: every other byte is a NUL. */
static bool is_utf16(const char *text, size_t n)
{
    if (n > 1 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)))
        return true;
    return n >= 4 && !text[0] != !text[1] && !text[0] == !text[2] && !text[1] == !text[3];
}

bool text_check(const char *what, const char *text, size_t n)
{
    size_t bad;
    const char *nul = memchr(text, 0, n);
    if (is_utf16(text, n))
        print_err("fastvlm: %s: looks like UTF-16; expected UTF-8\n", what);
    else if (nul)
        print_err("fastvlm: %s: byte %zu is a NUL; expected text in UTF-8\n", what,
                  (size_t)(nul - text));
    else if (!is_text(text, n, &bad))
        print_err("fastvlm: %s: not valid UTF-8 at byte %zu\n", what, bad);
    else
        return true;
    return false;
}

size_t bom_bytes(const char *text, size_t n)
{
    return n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
}

line_kind line_read(line_reader *r)
{
    char what[48];
    r->n_bytes = 0;
    r->number++;
    line_kind kind = r->edit ? line_take_edited(r) : line_take(r);
    if (kind != LINE_TEXT)
        return kind;
    size_t bom = r->number == 1 ? bom_bytes(r->text, r->n_bytes) : 0;
    memmove(r->text, r->text + bom, r->n_bytes + 1 - bom);
    r->n_bytes -= bom;
    while (r->n_bytes && (r->text[r->n_bytes - 1] == '\n' || r->text[r->n_bytes - 1] == '\r'))
        r->text[--r->n_bytes] = 0;
    snprintf(what, sizeof what, "line %zu", r->number);
    return text_check(what, r->text, r->n_bytes) ? LINE_TEXT : LINE_REFUSED;
}
