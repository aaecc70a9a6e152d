/* Requests over TCP by libmicrohttpd. See web.h. */
#if defined(FASTVLM_SERVE)
#include "serve/web.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cond.h"
#include "serve/microhttpd_load.h"

enum {
    SPARE_CONNECTIONS = 16,      /* beyond the limit: they are told so */
    CONNECTION_BYTES = 64 << 10, /* headers of a request, and what is read at once of a body */
    THREAD_STACK_BYTES = 4 << 20,
    STREAM_BLOCK = 32 << 10,
    SEND_BUFFER_BYTES = 128 << 10,
    WATCH_MS = 250
};

/* What the watch knows of a connection. */
struct serve_connection {
    serve_connection *next, *previous;
    int fd;
    bool over;      /* one more than there may be, when it came */
    double late_ms; /* cut when the clock is past it; 0: it may take its time */
};

struct serve_http {
    const serve_mhd *mhd;
    struct MHD_Daemon *daemon;
    serve_http_options options;
    int listener;
    pthread_t watch;
    bool watching;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    serve_connection *connections;
    bool closing;
    atomic_size_t n_connections, n_calls, body_bytes;
};

/* ---- deadlines ---- */

static void connection_allow(serve_http *http, serve_connection *c, int seconds)
{
    if (!c)
        return;
    pthread_mutex_lock(&http->lock);
    c->late_ms = seconds ? fv_now_ms() + seconds * 1e3 : 0;
    pthread_mutex_unlock(&http->lock);
}

/* A socket is closed by libmicrohttpd after it has left the list. */
static void *connections_watch(void *user)
{
    serve_http *http = user;
    pthread_mutex_lock(&http->lock);
    while (!http->closing) {
        fv_cond_wait_until(&http->wake, &http->lock, fv_now_ms() + WATCH_MS);
        double now = fv_now_ms();
        for (serve_connection *c = http->connections; c; c = c->next)
            if (c->late_ms > 0 && now > c->late_ms) {
                c->late_ms = 0;
                shutdown(c->fd, SHUT_RDWR);
            }
    }
    pthread_mutex_unlock(&http->lock);
    return NULL;
}

static void connection_notify(void *user, struct MHD_Connection *mhd, void **context,
                              enum MHD_ConnectionNotificationCode code)
{
    serve_http *http = user;
    serve_connection *c = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = http->mhd->get_connection_info(
            mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        bool over = atomic_fetch_add(&http->n_connections, 1) >= http->options.max_connections;
        c = fv_alloc_zero(1, sizeof *c);
        *context = c;
        if (!c)
            return; /* its requests are refused */
        c->over = over;
        c->fd = info->connect_fd;
        c->late_ms = fv_now_ms() + http->options.header_s * 1e3;
        /* An answer is written as it comes; one that is not read fills no more than this. */
        setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &(int){ SEND_BUFFER_BYTES }, sizeof(int));
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
        pthread_mutex_lock(&http->lock);
        c->next = http->connections;
        if (c->next)
            c->next->previous = c;
        http->connections = c;
        pthread_mutex_unlock(&http->lock);
        return;
    }
    atomic_fetch_sub(&http->n_connections, 1);
    *context = NULL;
    if (!c)
        return;
    pthread_mutex_lock(&http->lock);
    *(c->previous ? &c->previous->next : &http->connections) = c->next;
    if (c->next)
        c->next->previous = c->previous;
    pthread_mutex_unlock(&http->lock);
    fv_free(c);
}

bool serve_call_over(const serve_call *call)
{
    serve_connection *c = call->connection;
    if (c && atomic_load(&call->http->n_connections) <= call->http->options.max_connections)
        c->over = false; /* there is room meanwhile */
    return c && c->over;
}

bool serve_call_gone(const void *user)
{
    const serve_call *call = user;
    if (!call->connection)
        return true;
#if defined(POLLRDHUP)
    struct pollfd p = { .fd = call->connection->fd, .events = POLLRDHUP };
    return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL);
#else
    char byte;
    ssize_t n = recv(call->connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
#endif
}

/* ---- answers ---- */

void serve_header(serve_call *call, const char *name, const char *value)
{
    if (call->n_headers < SERVE_MAX_HEADERS) {
        call->header[2 * call->n_headers] = name;
        call->header[2 * call->n_headers++ + 1] = value;
    }
}

/* The answer's headers; sent now, or behind the rest of a body that is passed over. */
static void response_send(serve_call *call, int status, const char *type,
                          struct MHD_Response *response)
{
    const serve_mhd *mhd = call->http->mhd;
    if (!response)
        return; /* memory is out: the connection is closed */
    mhd->add_response_header(response, "Content-Type", type);
    mhd->add_response_header(response, "Cache-Control", "no-store");
    mhd->add_response_header(response, "X-Content-Type-Options", "nosniff");
    for (size_t i = 0; i < call->n_headers; i++)
        mhd->add_response_header(response, call->header[2 * i], call->header[2 * i + 1]);
    call->status = status;
    call->response = response;
}

void serve_reply(serve_call *call, int status, const char *type, const void *body, size_t n)
{
    call->n_sent = n;
    response_send(call, status, type,
                  call->http->mhd->create_response_from_buffer(n, (void *)(uintptr_t)body,
                                                               MHD_RESPMEM_MUST_COPY));
}

static ssize_t answer_stream_read(void *user, uint64_t at, char *to, size_t capacity)
{
    serve_call *call = user;
    (void)at;
    connection_allow(call->http, call->connection, 0); /* now the model is waited for */
    size_t n = call->read(call->read_user, to, capacity);
    connection_allow(call->http, call->connection, call->http->options.send_s);
    call->n_sent += n;
    return n ? (ssize_t)n : MHD_CONTENT_READER_END_OF_STREAM;
}

void serve_stream(serve_call *call, const char *type,
                  size_t (*read)(void *user, char *to, size_t capacity), void *user)
{
    call->read = read;
    call->read_user = user;
    response_send(call, 200, type,
                  call->http->mhd->create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK,
                                                                 answer_stream_read, call, NULL));
}

static enum MHD_Result response_queue(serve_call *call)
{
    if (!call->response)
        return MHD_NO;
    connection_allow(call->http, call->connection, call->http->options.send_s);
    enum MHD_Result result = call->http->mhd->queue_response(call->mhd, (unsigned)call->status,
                                                             call->response);
    call->http->mhd->destroy_response(call->response); /* the connection has its own reference */
    call->response = NULL;
    return result;
}

/* ---- requests ---- */

static const char *call_value(serve_call *call, const char *name)
{
    return call->http->mhd->lookup_connection_value(call->mhd, MHD_HEADER_KIND, name);
}

static void call_end(void *user, struct MHD_Connection *mhd, void **context,
                     enum MHD_RequestTerminationCode code)
{
    serve_http *http = user;
    serve_call *call = *context;
    (void)mhd;
    (void)code;
    *context = NULL;
    if (!call)
        return;
    http->options.end(http->options.user, call);
    connection_allow(http, call->connection, http->options.header_s); /* for the next request */
    if (call->response)
        http->mhd->destroy_response(call->response);
    atomic_fetch_sub(&http->body_bytes, call->body_capacity);
    atomic_fetch_sub(&http->n_calls, 1);
    fv_free(call->body);
    fv_free(call);
}

/* The headers are there: a new call, and whether the request will be answered. */
static enum MHD_Result call_begin(serve_http *http, struct MHD_Connection *mhd, const char *path,
                                  const char *method, void **context)
{
    serve_call *call = fv_alloc_zero(1, sizeof *call);
    if (!call)
        return MHD_NO;
    const union MHD_ConnectionInfo *info = http->mhd->get_connection_info(
        mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    *context = call;
    atomic_fetch_add(&http->n_calls, 1);
    call->http = http;
    call->mhd = mhd;
    call->connection = info ? info->socket_context : NULL;
    call->method = method;
    call->path = path;
    call->began_ms = fv_now_ms();
    call->host = call_value(call, "Host");
    call->origin = call_value(call, "Origin");
    call->authorization = call_value(call, "Authorization");
    call->content_type = call_value(call, "Content-Type");
    connection_allow(http, call->connection, http->options.body_s);
    if (!call->connection)
        return MHD_NO;
    const char *length = call_value(call, "Content-Length");
    size_t digits = length ? strspn(length, "0123456789") : 0;
    unsigned long long n = 0;
    if (digits &&
        (digits > 18 || sscanf(length, "%18llu", &n) != 1 || n > http->options.max_body_bytes))
        call->over_limit = true;
    http->options.check(http->options.user, call);
    if (!call->response)
        return MHD_YES;
    call->refused = true;
    /* A body that is far too long is not waited for: the connection is closed behind the answer. */
    return call->over_limit ? response_queue(call) : MHD_YES;
}

static void body_add(serve_call *call, const char *data, size_t n)
{
    serve_http *http = call->http;
    if (call->refused || call->over_limit || call->no_memory || strcmp(call->method, "POST") != 0)
        return; /* nobody reads it; what needs no key is no POST */
    if (n > http->options.max_body_bytes - call->n_body) {
        call->over_limit = true;
        return;
    }
    size_t wanted = call->n_body + n + 1, capacity = call->body_capacity;
    if (wanted > capacity) {
        capacity = FV_MAX(wanted, FV_MIN(2 * capacity, http->options.max_body_bytes + 1));
        size_t more = capacity - call->body_capacity;
        if (atomic_fetch_add(&http->body_bytes, more) + more > http->options.max_bodies_bytes) {
            atomic_fetch_sub(&http->body_bytes, more);
            call->no_memory = true;
            return;
        }
        char *grown = fv_grow(call->body, call->n_body, capacity, 1);
        if (!grown) {
            atomic_fetch_sub(&http->body_bytes, more);
            call->no_memory = true;
            return;
        }
        call->body = grown;
        call->body_capacity = capacity;
    }
    memcpy(call->body + call->n_body, data, n);
    call->n_body += n;
    call->body[call->n_body] = 0;
}

static enum MHD_Result call_step(void *user, struct MHD_Connection *mhd, const char *path,
                                 const char *method, const char *version, const char *data,
                                 size_t *n_data, void **context)
{
    serve_http *http = user;
    serve_call *call = *context;
    (void)version;
    if (!call)
        return call_begin(http, mhd, path, method, context);
    if (*n_data) {
        body_add(call, data, *n_data);
        *n_data = 0;
        return MHD_YES;
    }
    if (!call->refused) {
        connection_allow(http, call->connection, 0);
        http->options.handle(http->options.user, call);
    }
    return response_queue(call);
}

/* ---- the listener ---- */

static fv_status address_parse(const char *host, int port, struct sockaddr_storage *out,
                               socklen_t *n, fv_error *err)
{
    struct sockaddr_in *v4 = (void *)out;
    struct sockaddr_in6 *v6 = (void *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *n = sizeof *v4;
        return FV_OK;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *n = sizeof *v6;
        return FV_OK;
    }
    return fv_fail(err, FV_ERR_ARGUMENT, 0,
                   "host is \"%s\"; expected a numeric address such as 127.0.0.1, ::1 or 0.0.0.0",
                   host);
}

static fv_status listener_open(int *out, const char *host, int *port, fv_error *err)
{
    struct sockaddr_storage address;
    socklen_t n;
    FV_TRY(address_parse(host, *port, &address, &n, err));
    int fd = socket(address.ss_family, SOCK_STREAM, 0);
    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
    }
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, n) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &n) != 0) {
        int number = errno;
        if (fd >= 0)
            close(fd);
        return fv_fail(err, FV_ERR_IO, 0, "%s port %d: cannot listen: %s", host, *port,
                       strerror(number));
    }
    *port = ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                               : ((struct sockaddr_in6 *)&address)->sin6_port);
    *out = fd;
    return FV_OK;
}

/* %00 would end a path early: what is behind it must count. */
static size_t path_unescape(void *user, struct MHD_Connection *connection, char *path)
{
    const serve_http *http = user;
    size_t n = http->mhd->http_unescape(path), at;
    (void)connection;
    while ((at = strlen(path)) < n)
        path[at] = '?';
    return n;
}

fv_status serve_http_open(serve_http **out, const char *host, int *port,
                          const serve_http_options *options, fv_error *err)
{
    const serve_mhd *mhd;
    *out = NULL;
    FV_TRY(serve_mhd_load(&mhd, err));
    serve_http *http = fv_alloc_zero(1, sizeof *http);
    if (!http)
        return fv_fail_memory(err, sizeof *http, "the server");
    http->mhd = mhd;
    http->options = *options;
    http->listener = -1;
    pthread_mutex_init(&http->lock, NULL);
    fv_cond_init(&http->wake);
    fv_status status = listener_open(&http->listener, host, port, err);
    if (status == FV_OK) {
        http->watching = pthread_create(&http->watch, NULL, connections_watch, http) == 0;
        if (http->watching)
            http->daemon = mhd->start_daemon(
                MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
                    MHD_USE_ITC,
                0, NULL, NULL, call_step, http, MHD_OPTION_LISTEN_SOCKET, http->listener,
                MHD_OPTION_CONNECTION_LIMIT,
                (unsigned)(options->max_connections + SPARE_CONNECTIONS),
                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
                MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_BYTES,
                MHD_OPTION_NOTIFY_COMPLETED, call_end, http, MHD_OPTION_NOTIFY_CONNECTION,
                connection_notify, http, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                MHD_OPTION_UNESCAPE_CALLBACK, path_unescape, http, MHD_OPTION_END);
        if (!http->daemon)
            status = fv_fail(err, FV_ERR_IO, 0, "%s port %d: libmicrohttpd cannot start", host,
                             *port);
    }
    if (status != FV_OK)
        serve_http_close(http);
    else
        *out = http;
    return status;
}

size_t serve_http_connections(serve_http *http) { return atomic_load(&http->n_connections); }
size_t serve_http_calls(serve_http *http) { return atomic_load(&http->n_calls); }

void serve_http_quiesce(serve_http *http)
{
    if (http->listener < 0)
        return;
    http->mhd->quiesce_daemon(http->daemon);
    close(http->listener);
    http->listener = -1;
}

void serve_http_close(serve_http *http)
{
    if (!http)
        return;
    if (http->daemon)
        http->mhd->stop_daemon(http->daemon); /* closes the listener that it still has */
    else if (http->listener >= 0)
        close(http->listener);
    if (http->watching) {
        pthread_mutex_lock(&http->lock);
        http->closing = true;
        pthread_cond_signal(&http->wake);
        pthread_mutex_unlock(&http->lock);
        pthread_join(http->watch, NULL);
    }
    pthread_cond_destroy(&http->wake);
    pthread_mutex_destroy(&http->lock);
    fv_free(http);
}
#else
typedef int fv_web_is_left_out; /* a file needs a declaration */
#endif
