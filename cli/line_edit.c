/* Arrow keys and history in a conversation, through libedit. See lines.h.
 *
 * Opened when a person sits at a terminal, as libcurl is when something is fetched: the program
 * starts without it, and works without it. Nothing is written to a file: a conversation's lines are
 * forgotten with it. */
#include "lines.h"

#if defined(FASTVLM_EDIT)
#include <dlfcn.h>
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

static const char *const edit_library_names[] = {
#if defined(__APPLE__)
    "/usr/lib/libedit.3.dylib",
#else
    "libedit.so.2", /* Debian's name */
    "libedit.so.0",
#endif
};

enum { HISTORY_LINES = 1000, STOP_KEY = 3 /* ^C */ };

struct line_edit {
    EditLine *(*init)(const char *, FILE *, FILE *, FILE *);
    void (*end)(EditLine *);
    const char *(*gets)(EditLine *, int *);
    int (*set)(EditLine *, int, ...);
    int (*source)(EditLine *, const char *);
    const LineInfo *(*line)(EditLine *);
    History *(*history_init)(void);
    void (*history_end)(History *);
    int (*history)(History *, HistEvent *, int, ...);
    EditLine *el;
    History *lines;
    locale_t locale; /* UTF-8, for libedit only: the program's own is "C" */
    const char *prompt;
    bool stopped; /* Ctrl-C */
};

static const struct {
    const char *name;
    size_t at;
} edit_functions[] = {
    { "el_init", offsetof(line_edit, init) },
    { "el_end", offsetof(line_edit, end) },
    { "el_gets", offsetof(line_edit, gets) },
    { "el_set", offsetof(line_edit, set) },
    { "el_source", offsetof(line_edit, source) },
    { "el_line", offsetof(line_edit, line) },
    { "history_init", offsetof(line_edit, history_init) },
    { "history_end", offsetof(line_edit, history_end) },
    { "history", offsetof(line_edit, history) },
};

static line_edit the_edit; /* libedit's callbacks have no user pointer */

static bool edit_library_load(line_edit *e)
{
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof edit_library_names / sizeof *edit_library_names; i++)
        library = dlopen(edit_library_names[i], RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; library && i < sizeof edit_functions / sizeof *edit_functions; i++) {
        void *function = dlsym(library, edit_functions[i].name);
        if (!function)
            return false;
        memcpy((char *)e + edit_functions[i].at, &function, sizeof function);
    }
    return library != NULL;
}

/* A locale in UTF-8, the user's or any; 0: there is none. */
static locale_t utf8_locale(void)
{
    static const char *const names[] = { "", "C.UTF-8", "en_US.UTF-8" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        locale_t l = newlocale(LC_CTYPE_MASK, names[i], (locale_t)0);
        locale_t before = l ? uselocale(l) : (locale_t)0;
        bool wide = l && MB_CUR_MAX > 1;
        if (l)
            uselocale(before);
        if (wide)
            return l;
        if (l)
            freelocale(l);
    }
    return (locale_t)0;
}

static char *edit_prompt(EditLine *el)
{
    (void)el;
    return (char *)the_edit.prompt;
}

/* A key. Ctrl-C stays a signal, as it is before libedit takes the terminal and after it gives it
 * back, so that none falls between; here it becomes the key that gives the line up. */
static int edit_take_key(EditLine *el, wchar_t *key)
{
    mbstate_t state = { 0 };
    (void)el;
    for (;;) {
        char byte;
        if (!line_wait()) {
            *key = STOP_KEY;
            return interrupt_forgive(false) ? 1 : 0; /* SIGTERM ends the input */
        }
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(key, &byte, 1, &state);
        if (used == (size_t)-1) { /* not UTF-8: the character may begin here */
            state = (mbstate_t){ 0 };
            used = mbrtowc(key, &byte, 1, &state);
        }
        if (used == (size_t)-1)
            state = (mbstate_t){ 0 };
        else if (used != (size_t)-2)
            return 1;
    }
}

/* Gives the line up. */
static unsigned char edit_stop(EditLine *el, int key)
{
    (void)el;
    (void)key;
    the_edit.stopped = true;
    return CC_NEWLINE;
}

static void edit_set_up(line_edit *e)
{
    HistEvent event;
    e->history(e->lines, &event, H_SETSIZE, HISTORY_LINES);
    e->history(e->lines, &event, H_SETUNIQUE, 1);
    e->set(e->el, EL_PROMPT, edit_prompt);
    e->set(e->el, EL_GETCFN, edit_take_key);
    e->set(e->el, EL_EDITOR, "emacs");
    e->set(e->el, EL_HIST, e->history, e->lines);
    e->set(e->el, EL_ADDFN, "fastvlm-stop", "Give up the line", edit_stop);
    e->source(e->el, NULL); /* ~/.editrc */
    e->set(e->el, EL_BIND, "^C", "fastvlm-stop", NULL);
    e->set(e->el, EL_BIND, "^I", "ed-insert", NULL);
}

line_edit *line_edit_open(const char *prompt)
{
    line_edit *e = &the_edit;
    *e = (line_edit){ .prompt = prompt };
    if (!can_redraw() || !edit_library_load(e) || !(e->locale = utf8_locale()))
        return NULL;
    locale_t before = uselocale(e->locale);
    e->el = e->init("fastvlm", stdin, stderr, stderr);
    e->lines = e->el ? e->history_init() : NULL;
    if (e->lines)
        edit_set_up(e);
    uselocale(before);
    if (e->lines)
        return e;
    line_edit_close(e);
    return NULL;
}

line_kind line_edit_read(line_edit *e, const char **text, size_t *n_bytes)
{
    int n = 0;
    HistEvent event;
    locale_t before = uselocale(e->locale);
    e->stopped = false;
    hold_terminal(true);
    *text = e->gets(e->el, &n);
    hold_terminal(false);
    bool typed = *text && n > 0;
    if (typed && !e->stopped && (*text)[strspn(*text, " \t\r\n")])
        e->history(e->lines, &event, H_ENTER, *text);
    uselocale(before);
    if (e->stopped) {
        print_err("^C\n");
        *text = "";
        *n_bytes = 0;
        return typed ? LINE_TEXT : LINE_STOPPED;
    }
    *n_bytes = typed ? (size_t)n : 0;
    return typed ? LINE_TEXT : LINE_END;
}

void line_edit_close(line_edit *e)
{
    if (!e)
        return;
    if (e->lines)
        e->history_end(e->lines);
    if (e->el)
        e->end(e->el);
    if (e->locale)
        freelocale(e->locale);
    *e = (line_edit){ 0 };
}
#else
line_edit *line_edit_open(const char *prompt)
{
    (void)prompt;
    return NULL;
}

line_kind line_edit_read(line_edit *e, const char **text, size_t *n_bytes)
{
    (void)e;
    *text = "";
    *n_bytes = 0;
    return LINE_END;
}

void line_edit_close(line_edit *e) { (void)e; }
#endif
