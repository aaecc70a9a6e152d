/* cmocka with the headers it wants first. */
#ifndef FV_TESTS_CM_H
#define FV_TESTS_CM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
