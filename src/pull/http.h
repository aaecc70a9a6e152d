/* http: HTTPS requests over libcurl, several at once in one thread.
 *
 * A job asks for one URL, whole or a range, follows redirects itself and ends with an outcome:
 *
 *     fv_http_start(http, &job, err);                   the job stays the caller's, at its place
 *     while ((done = fv_http_wait(http, 100)) == NULL)  or whatever else is to be done
 *         ;
 *     if (done->outcome == FV_HTTP_OK) ...
 *
 * libcurl's own redirects are not used: whether the token goes along is decided here, for every
 * hop, by comparing scheme, host and port with the endpoint's. */
#ifndef FV_HTTP_H
#define FV_HTTP_H

#include "base/base.h"

typedef struct fv_http fv_http;
typedef struct fv_http_job fv_http_job;

/* endpoint "https://host[:port][/path]"; token and ca_file may be NULL. Everything is copied. */
fv_status fv_http_new(fv_http **out, const char *endpoint, const char *token, const char *ca_file,
                      fv_error *err);
void fv_http_free(fv_http *http); /* drops what still runs */

/* text with everything but letters, digits, "-._~" (and "/" when keep_slash) as %XX; false when it
 * does not fit. */
bool fv_http_escape(char *out, size_t capacity, const char *text, bool keep_slash);

typedef enum fv_http_outcome {
    FV_HTTP_OK,
    /* cut off, busy, failing: may work later; wait_s says when the server said so */
    FV_HTTP_AGAIN,
    FV_HTTP_NO_RANGES, /* the server sends the whole file whatever range is asked for */
    FV_HTTP_REFUSED,   /* 401, 403, 404, 410, 416: code says which */
    FV_HTTP_FAILED     /* no use trying again */
} fv_http_outcome;

enum { FV_HTTP_URL = 4096 };

struct fv_http_job {
    /* The question. */
    char url[FV_HTTP_URL];
    uint64_t begin, end; /* bytes wanted */
    /* of the whole file: begin == 0 and end == size asks without a range; 0: not known */
    uint64_t size;
    /* Takes body bytes of a good answer; false stops the job with FV_HTTP_FAILED, and the reason is
     * the taker's to know. Exactly end - begin bytes come, or the outcome is not FV_HTTP_OK. */
    bool (*take)(void *user, const uint8_t *data, size_t n_bytes);
    void *user;

    /* The answer. */
    fv_http_outcome outcome;
    int code;           /* of HTTP, 0 when none came */
    double wait_s;      /* from Retry-After, negative when absent */
    char code_name[64]; /* the hub's X-Error-Code: "GatedRepo", or "" */
    char message[400];  /* host and what went wrong; never a query string, never the token */
    bool unknown;       /* the host's name is not found: no network, or a wrong name */

    /* While it runs. */
    void *easy, *headers;
    struct fv_http *http;
    struct fv_http_job *next;
    int hops;
    bool running, checked, encoded;
    /* Content-Range, end exclusive; 0 when absent */
    uint64_t n_taken, range_begin, range_end, range_size;
    int64_t length;   /* Content-Length, -1 when absent */
    char detail[256]; /* libcurl's error buffer */
};

fv_status fv_http_start(fv_http *http, fv_http_job *job, fv_error *err);
/* Moves bytes for up to ms milliseconds; a finished job, or NULL when none has finished. */
fv_http_job *fv_http_wait(fv_http *http, int ms);
void fv_http_drop(fv_http *http, fv_http_job *job); /* takes a running job back */

#endif
