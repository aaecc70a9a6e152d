/* bench_company: decoding in company, for bench: several sessions in one call, and a session beside
 * a thread that encodes images. */
#ifndef FV_CLI_BENCH_COMPANY_H
#define FV_CLI_BENCH_COMPANY_H

#include "cli.h"

enum { COMPANY_MOST = 8 };

typedef struct company {
    fv_engine *engine;
    const fv_image *image;
    const fv_callbacks *callbacks;
    fv_session *asked; /* an image and a question, their rows in the cache; copied for every run */
} company;

/* Runs the prompt once. On failure *c is closed. */
fv_status company_open(company *c, fv_engine *engine, const fv_image *image,
                       const fv_callbacks *callbacks, fv_error *err);
void company_close(company *c);

/* n sessions, n_tokens each: *ms of a call, which gives a token to every session. */
fv_status company_together(const company *c, size_t n, int n_tokens, double *ms, fv_error *err);

/* A session of n_tokens, while another thread encodes the image over and over: *ms of a token. */
fv_status company_beside(const company *c, int n_tokens, double *ms, fv_error *err);

#endif
