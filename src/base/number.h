/* number: text with numbers in it, written and read the same in every locale.
 *
 * A host may have set one whose decimal point is a comma. Whatever prints or reads a real number
 * comes through here, messages included (`make check` looks for others); integers look the same
 * everywhere. */
#ifndef FV_NUMBER_H
#define FV_NUMBER_H

#include "base/base.h"

/* snprintf, vsnprintf and strtod in the C locale. */
int fv_format(char *to, size_t size, const char *format, ...) FV_PRINTF(3, 4);
int fv_format_list(char *to, size_t size, const char *format, va_list args) FV_PRINTF(3, 0);
double fv_number_read(const char *text, char **end);

#endif
