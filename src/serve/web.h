/* web: requests over TCP, and their answers. The one file that knows libmicrohttpd.
 *
 *     socket --libmicrohttpd, a thread per connection--> check (headers) --> handle (whole body)
 *                                                                              |
 *                                            serve_reply, or serve_stream <----+
 *
 * What a client may take is bounded here: connections, bytes of one body and of all of them, and
 * seconds: for headers, for the body, and for taking an answer that is ready. A thread watches the
 * clock and cuts what is late; a client that sends a byte now and then is late, too. */
#ifndef FV_SERVE_WEB_H
#define FV_SERVE_WEB_H

#include "base/base.h"

typedef struct serve_http serve_http;
typedef struct serve_connection serve_connection;
struct MHD_Connection;

enum { SERVE_MAX_HEADERS = 8 };

/* One request. Text is borrowed from the connection. */
typedef struct serve_call {
    const char *method, *path;
    const char *host, *origin, *authorization, *content_type; /* NULL: not sent */
    char *body;                                               /* with a NUL behind it; NULL: none */
    size_t n_body;
    double began_ms;  /* fv_now_ms, when its headers were there */
    int status;       /* of the answer; 0: none yet */
    size_t n_sent;    /* bytes of the answer's body, so far */
    bool over_limit;  /* the body is longer than allowed and was dropped */
    bool no_memory;   /* all bodies together are */
    void *job;        /* the handler's; see serve_http_options.end */
    serve_http *http; /* the rest is web.c's */
    struct MHD_Connection *mhd;
    serve_connection *connection;
    size_t body_capacity;
    bool checked, refused;
    const char *header[2 * SERVE_MAX_HEADERS]; /* of the answer: names and values, static */
    size_t n_headers;
    struct MHD_Response *response; /* of a refusal, until the body has been passed over */
    size_t (*read)(void *user, char *to, size_t capacity);
    void *read_user;
} serve_call;

typedef struct serve_http_options {
    size_t max_connections, max_body_bytes, max_bodies_bytes;
    int header_s, body_s, send_s; /* seconds for headers, for the body, and to take an answer */
    /* With the headers, before the body is read: answers the request to refuse it. */
    void (*check)(void *user, serve_call *call);
    /* With the body: answers it. May block. */
    void (*handle)(void *user, serve_call *call);
    /* After the last byte, or when the client went away: frees call->job. */
    void (*end)(void *user, serve_call *call);
    void *user;
} serve_http_options;

/* Listens at a numeric address, or "localhost". port 0: one that is free; *port is what it is. */
fv_status serve_http_open(serve_http **out, const char *host, int *port,
                          const serve_http_options *options, fv_error *err);
/* Takes no more connections. */
void serve_http_quiesce(serve_http *http);
size_t serve_http_connections(serve_http *http);
size_t serve_http_calls(serve_http *http); /* requests whose answer is not yet sent */
/* Cuts the connections that are left. Handlers must not block any more. NULL is fine. */
void serve_http_close(serve_http *http);

/* A header of the answer; both static. */
void serve_header(serve_call *call, const char *name, const char *value);
/* The answer, copied. */
void serve_reply(serve_call *call, int status, const char *type, const void *body, size_t n);
/* An answer in parts: read gives up to capacity bytes, may block, and 0 at the end. */
void serve_stream(serve_call *call, const char *type,
                  size_t (*read)(void *user, char *to, size_t capacity), void *user);
/* Whether the client has closed the connection. Any thread, until `end` returns. */
bool serve_call_gone(const void *call);
/* Whether its connection came when as many were open as may be, and still are. */
bool serve_call_over(const serve_call *call);

#endif
