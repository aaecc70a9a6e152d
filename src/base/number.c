/* Numbers and letters that know no locale. See number.h. */
#include "base/number.h"

#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

static pthread_once_t number_once = PTHREAD_ONCE_INIT;
static locale_t number_locale; /* "C", for good; 0 when memory was out */

static void number_begin(void) { number_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

/* Of this thread only; returns what it had. */
static locale_t number_enter(void)
{
    pthread_once(&number_once, number_begin);
    return number_locale ? uselocale(number_locale) : (locale_t)0;
}

static void number_leave(locale_t before)
{
    if (before)
        uselocale(before);
}

int fv_format_list(char *to, size_t size, const char *format, va_list args)
{
    locale_t before = number_enter();
    int n = vsnprintf(to, size, format, args);
    number_leave(before);
    return n;
}

int fv_format(char *to, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = fv_format_list(to, size, format, args);
    va_end(args);
    return n;
}

double fv_number_read(const char *text, char **end)
{
    locale_t before = number_enter();
    double value = strtod(text, end);
    number_leave(before);
    return value;
}

char fv_ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

bool fv_ascii_begins(const char *text, const char *with)
{
    for (; *with; text++, with++)
        if (fv_ascii_lower(*text) != fv_ascii_lower(*with))
            return false; /* at the NUL of a shorter text, too */
    return true;
}

bool fv_ascii_same(const char *a, const char *b)
{
    return fv_ascii_begins(a, b) && strlen(a) == strlen(b);
}
