/* doctor: findings, a line each, as text or JSON. */
#ifndef FV_CLI_DOCTOR_H
#define FV_CLI_DOCTOR_H

#include "cli.h"

typedef struct doctor {
    json_t *json; /* a list of findings; NULL: they are printed */
} doctor;

/* A finding. ok: nothing needs to be done about it. */
void doctor_find(doctor *d, const char *name, bool ok, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* More about the last one: what is known, or what to do, where it is not ok. */
void doctor_note(doctor *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What the way to a Snapdragon phone needs. doctor_phone.c */
void doctor_phone(doctor *d);

#endif
