/* server: what the routes share. */
#ifndef FV_SERVE_SERVER_H
#define FV_SERVE_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "serve/reply.h"
#include "serve/scheduler.h"
#include "serve/serve.h"
#include "serve/web.h"

struct serve {
    serve_options options;
    serve_http *http; /* for opening and closing: requests come before it is set */
    serve_scheduler *scheduler;
    fv_engine *engine; /* NULL until serve_start; read when the scheduler is ready */
    fv_model_info info;
    fv_grammar *grammar; /* NULL until the first answer by a schema */
    pthread_mutex_t grammar_lock;
    int64_t created; /* seconds since 1970 */
    atomic_ullong n_answers;
    atomic_ullong n_status[6]; /* answers 1xx to 5xx; [0]: the client went away before */
};

typedef struct serve_route {
    const char *method, *path; /* a path that ends with * stands for all that begin so */
    void (*handle)(serve *s, serve_call *call);
    bool open; /* needs no key */
} serve_route;

/* The row for a request; NULL, and *allow the methods of its path, or NULL: no such path. */
const serve_route *serve_route_find(const char *method, const char *path, const char **allow);

/* Chat: from a body to an answer that is under way. Replies by itself when that fails. */
typedef fv_status serve_reader(fv_request *out, const char *body, size_t n_body,
                               const fv_request_limits *limits, fv_error *err);
void serve_route_chat(serve *s, serve_call *call, serve_reader *read, const serve_dialect *dialect,
                      bool generate);

/* A line of the access log. */
void serve_log_call(const serve *s, const serve_call *call);

#endif
