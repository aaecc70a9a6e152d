/* number: numbers as text, and letters, the same in every locale.
 *
 * A host may have set one whose decimal point is a comma, or where I is not the capital of i.
 * Whatever prints or reads a real number, or compares letters without their case, comes through
 * here, messages included (`make check` looks for others); integers look the same everywhere. */
#ifndef FV_NUMBER_H
#define FV_NUMBER_H

#include "base/base.h"

/* snprintf, vsnprintf and strtod in the C locale. */
int fv_format(char *to, size_t size, const char *format, ...) FV_PRINTF(3, 4);
int fv_format_list(char *to, size_t size, const char *format, va_list args) FV_PRINTF(3, 0);
double fv_number_read(const char *text, char **end);

/* Of ASCII's letters, others are only equal to themselves. */
char fv_ascii_lower(char c);
bool fv_ascii_same(const char *a, const char *b); /* strcasecmp gives 0 */
bool fv_ascii_begins(const char *text, const char *with);

#endif
