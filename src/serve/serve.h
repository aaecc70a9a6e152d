/* serve: a model over HTTP, by OpenAI's protocol and a part of Ollama's. What the program needs of
 * this room; docs/server.md has the endpoints. */
#ifndef FV_SERVE_H
#define FV_SERVE_H

#include "fastvlm.h"

typedef struct serve serve;

/* Strings and arrays are borrowed until serve_close. */
typedef struct serve_options {
    const char *host;        /* numeric address to listen at, or "localhost" */
    int port;                /* 0: a free one */
    const char *model;       /* name in requests and answers */
    const char *const *keys; /* one of them is needed, if there are any */
    size_t n_keys;
    const char *const *hosts; /* names besides addresses and localhost that may be in Host */
    size_t n_hosts;
    int max_connections, max_queued, n_parallel, max_context, max_new_tokens, max_images;
    int max_body_mb, cache_mb, max_megapixels;
    int header_s, body_s, send_s; /* seconds for headers, for the body, to take an answer */
    /* A line of JSON for every request, without a newline; any thread. NULL: none. */
    void (*log)(void *user, const char *line, size_t n);
    void *log_user;
    bool log_prompts; /* with what was asked and answered */
} serve_options;

/* Whether this program and machine have what a server needs; FV_ERR_UNSUPPORTED and what is
 * missing. */
fv_status serve_check(fv_error *err);
/* Whether an address is this machine's own, which nobody else reaches. */
bool serve_is_loopback(const char *host);
/* Whether text is the name of a host, as it stands in a request's Host without the port. */
bool serve_is_name(const char *text);
/* Listens, and answers that the model is being loaded. *port: where. */
fv_status serve_open(serve **out, const serve_options *options, int *port, fv_error *err);
/* From now on it answers. The engine is borrowed until serve_close. */
fv_status serve_start(serve *s, fv_engine *engine, fv_error *err);
/* Takes no more requests, waits up to drain_ms for answers to end, ends the rest. NULL is fine. */
void serve_close(serve *s, double drain_ms);

#endif
