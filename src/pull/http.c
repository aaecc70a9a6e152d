/* HTTPS requests over libcurl's multi interface. See http.h. */
#if defined(FASTVLM_PULL)
#include "pull/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "pull/curl_load.h"

enum { MAX_HOPS = 8, CONNECT_S = 20, STALL_S = 30, STALL_BYTES = 64 };

typedef struct origin {
    char scheme[8], host[256], port[8];
} origin;

struct fv_http {
    const fv_curl *curl;
    CURLM *multi;
    origin home;         /* where the token may go */
    char *authorization; /* "Authorization: Bearer ...", or NULL */
    char *ca_file;       /* or NULL */
    fv_http_job *running;
};

/* ---- addresses --------------------------------------------------------------------------- */

bool fv_http_escape(char *out, size_t capacity, const char *text, bool keep_slash)
{
    static const char digit[] = "0123456789ABCDEF";
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-._~", *p) || (keep_slash && *p == '/');
        if (n + 4 > capacity)
            return false;
        if (plain) {
            out[n++] = (char)*p;
        } else {
            out[n++] = '%';
            out[n++] = digit[*p >> 4];
            out[n++] = digit[*p & 15];
        }
    }
    if (n + 1 > capacity)
        return false;
    out[n] = 0;
    return true;
}

static bool copy_part(const fv_curl *curl, CURLU *url, CURLUPart part, unsigned flags, char *out,
                      size_t capacity)
{
    char *text = NULL;
    bool ok = curl->url_get(url, part, &text, flags) == CURLUE_OK && strlen(text) < capacity;
    if (ok)
        memcpy(out, text, strlen(text) + 1);
    curl->free(text);
    return ok;
}

/* Scheme, host and port of an address; false for anything but http and https, or with a user name
 * in it. */
static bool parse_origin(const fv_curl *curl, const char *address, origin *out)
{
    CURLU *url = curl->url();
    char user[8];
    bool ok = url && curl->url_set(url, CURLUPART_URL, address, 0) == CURLUE_OK &&
              copy_part(curl, url, CURLUPART_SCHEME, 0, out->scheme, sizeof out->scheme) &&
              copy_part(curl, url, CURLUPART_HOST, 0, out->host, sizeof out->host) &&
              copy_part(curl, url, CURLUPART_PORT, CURLU_DEFAULT_PORT, out->port, sizeof out->port);
    if (ok) {
        char *name = NULL;
        ok = (!strcmp(out->scheme, "https") || !strcmp(out->scheme, "http")) && *out->host &&
             curl->url_get(url, CURLUPART_USER, &name, 0) == CURLUE_NO_USER &&
             !copy_part(curl, url, CURLUPART_PASSWORD, 0, user, sizeof user);
        curl->free(name);
    }
    if (url)
        curl->url_cleanup(url);
    return ok;
}

static bool same_origin(const origin *a, const origin *b)
{
    return !strcmp(a->scheme, b->scheme) && fv_ascii_same(a->host, b->host) &&
           !strcmp(a->port, b->port);
}

static bool is_this_machine(const origin *o)
{
    return fv_ascii_same(o->host, "localhost") || !strcmp(o->host, "127.0.0.1") ||
           !strcmp(o->host, "[::1]");
}

/* ---- open and close ---------------------------------------------------------------------- */

static fv_status take_token(fv_http *http, const char *token, fv_error *err)
{
    static const char prefix[] = "Authorization: Bearer ";
    for (const char *p = token; *p; p++)
        if (*p <= ' ' || *p > '~')
            return fv_fail(
                err, FV_ERR_ARGUMENT, 0,
                "the access token contains a blank or an invalid character; set it again");
    if (!strcmp(http->home.scheme, "http") && !is_this_machine(&http->home))
        return fv_fail(
            err, FV_ERR_ARGUMENT, 0,
            "the access token would travel unencrypted to http://%s; use https, or no token",
            http->home.host);
    size_t n = sizeof prefix + strlen(token);
    http->authorization = fv_alloc(n, 1);
    if (!http->authorization)
        return fv_fail_memory(err, n, "the access token");
    snprintf(http->authorization, n, "%s%s", prefix, token);
    return FV_OK;
}

fv_status fv_http_new(fv_http **out, const char *endpoint, const char *token, const char *ca_file,
                      fv_error *err)
{
    fv_status status = FV_OK;
    const fv_curl *curl;
    *out = NULL;
    FV_TRY(fv_curl_load(&curl, err));
    fv_http *http = fv_alloc_zero(1, sizeof *http);
    if (!http)
        return fv_fail_memory(err, sizeof *http, "a connection");
    http->curl = curl;
    if (!parse_origin(curl, endpoint, &http->home)) {
        status = fv_fail(err, FV_ERR_ARGUMENT, 0,
                         "the hub's address is not a plain https:// address (put a token into "
                         "HF_TOKEN)");
        goto fail;
    }
    if (token && *token)
        FV_TRY_GOTO(take_token(http, token, err));
    http->multi = curl->multi_init();
    if (!http->multi || (ca_file && !(http->ca_file = fv_strdup(ca_file)))) {
        status = fv_fail_memory(err, 1, "a connection");
        goto fail;
    }
    *out = http;
    return FV_OK;

fail:
    fv_http_free(http);
    return status;
}

void fv_http_free(fv_http *http)
{
    if (!http)
        return;
    while (http->running)
        fv_http_drop(http, http->running);
    if (http->multi)
        http->curl->multi_cleanup(http->multi);
    if (http->authorization) /* leave no copy behind */
        memset(http->authorization, 0, strlen(http->authorization));
    fv_free(http->authorization);
    fv_free(http->ca_file);
    fv_free(http);
}

/* ---- one request ------------------------------------------------------------------------- */

static bool wants_range(const fv_http_job *job)
{
    return job->size > 0 && !(job->begin == 0 && job->end == job->size);
}

static void complain(fv_http_job *job, fv_http_outcome outcome, const char *format, ...)
    FV_PRINTF(3, 4);
static void complain(fv_http_job *job, fv_http_outcome outcome, const char *format, ...)
{
    va_list args;
    job->outcome = outcome;
    va_start(args, format);
    fv_format_list(job->message, sizeof job->message, format, args);
    va_end(args);
}

/* Where "name:" begins a header line, its value without blanks, copied and cut to capacity. */
static bool header_value(const char *line, size_t n, const char *name, char *value, size_t capacity)
{
    size_t at = strlen(name);
    if (n <= at || !fv_ascii_begins(line, name) || line[at] != ':')
        return false;
    for (at++; at < n && (line[at] == ' ' || line[at] == '\t'); at++)
        ;
    while (n > at && (unsigned char)line[n - 1] <= ' ')
        n--;
    size_t length = FV_MIN(n - at, capacity - 1);
    memcpy(value, line + at, length);
    value[length] = 0;
    return true;
}

static void forget_answer(fv_http_job *job)
{
    job->length = -1;
    job->range_begin = job->range_end = job->range_size = 0;
    job->wait_s = -1;
    job->code_name[0] = 0;
    job->checked = job->encoded = false;
}

static bool whole_number(const char *text, char **end, uint64_t *out)
{
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoull(text, end, 10);
    return errno == 0 && *out <= INT64_MAX;
}

static void read_content_range(fv_http_job *job, const char *value)
{
    uint64_t first, last, size;
    char *at;
    if (!fv_ascii_begins(value, "bytes ") || !whole_number(value + 6, &at, &first) || *at != '-' ||
        !whole_number(at + 1, &at, &last) || *at != '/' || !whole_number(at + 1, &at, &size) ||
        *at || last < first)
        return;
    job->range_begin = first;
    job->range_end = last + 1;
    job->range_size = size;
}

static size_t on_header(char *line, size_t one, size_t n, void *user)
{
    fv_http_job *job = user;
    char value[128], *end;
    uint64_t number;
    (void)one;
    if (n > 5 && !strncmp(line, "HTTP/", 5))
        forget_answer(job); /* a proxy's or an interim answer came before */
    else if (header_value(line, n, "Content-Length", value, sizeof value)) {
        if (whole_number(value, &end, &number) && !*end)
            job->length = (int64_t)number;
    } else if (header_value(line, n, "Content-Range", value, sizeof value))
        read_content_range(job, value);
    else if (header_value(line, n, "Content-Encoding", value, sizeof value))
        job->encoded = !fv_ascii_same(value, "identity");
    else if (header_value(line, n, "Retry-After", value, sizeof value)) {
        /* the other form, a date, counts as absent */
        if (whole_number(value, &end, &number) && !*end)
            job->wait_s = (double)number;
    } else if (header_value(line, n, "X-Error-Code", value, sizeof value)) {
        size_t used = 0;
        for (const char *p = value; *p && used + 1 < sizeof job->code_name; p++)
            if (*p > ' ' && *p <= '~')
                job->code_name[used++] = *p;
        job->code_name[used] = 0;
    }
    return n;
}

static long answer_code(const fv_http_job *job)
{
    long code = 0;
    job->http->curl->easy_getinfo(job->easy, CURLINFO_RESPONSE_CODE, &code);
    return code;
}

/* Whether a good answer's headers are the bytes asked for; says what is wrong otherwise. */
static bool check_answer(fv_http_job *job, long code)
{
    if (job->checked)
        return true;
    if (job->encoded) {
        complain(job, FV_HTTP_FAILED, "the server sends an encoding that was not requested");
        return false;
    }
    if (code == 206 && wants_range(job)) {
        if (job->range_size != job->size || job->range_begin != job->begin ||
            job->range_end != job->end) {
            complain(job, FV_HTTP_FAILED,
                     "requested bytes %" PRIu64 " to %" PRIu64 " of %" PRIu64
                     ", the server sends %" PRIu64 " to %" PRIu64 " of %" PRIu64,
                     job->begin, job->end, job->size, job->range_begin, job->range_end,
                     job->range_size);
            return false;
        }
    } else if (code == 200 && wants_range(job)) {
        complain(job, FV_HTTP_NO_RANGES, "the server does not support ranges");
        return false;
    } else if (code != 200) {
        complain(job, FV_HTTP_FAILED, "the server answers %ld", code);
        return false;
    } else if (job->size > 0 && job->length >= 0 && (uint64_t)job->length != job->size) {
        complain(job, FV_HTTP_FAILED, "the hub states %" PRIu64 " bytes, the server sends %" PRId64,
                 job->size, job->length);
        return false;
    }
    return job->checked = true;
}

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    fv_http_job *job = user;
    long code = answer_code(job);
    (void)one;
    if (code != 200 && code != 206)
        return n; /* an error page or the text beside a redirect */
    if (!check_answer(job, code))
        return 0;
    if (job->size > 0 && n > job->end - job->begin - job->n_taken) {
        complain(job, FV_HTTP_FAILED,
                 "the server sends more than the %" PRIu64 " bytes that the hub states",
                 job->end - job->begin);
        return 0;
    }
    if (!job->take(job->user, (const uint8_t *)data, n)) {
        if (!job->message[0])
            complain(job, FV_HTTP_FAILED, "stopped");
        return 0;
    }
    job->n_taken += n;
    return n;
}

/* Sets the address and the headers that belong to it. */
static bool aim(fv_http *http, fv_http_job *job)
{
    const fv_curl *curl = http->curl;
    struct curl_slist *headers = NULL, *longer;
    origin target;

    if (!parse_origin(curl, job->url, &target)) {
        complain(job, FV_HTTP_FAILED, "redirected to an address that is not http or https");
        return false;
    }
    if (!strcmp(target.scheme, "http") && strcmp(http->home.scheme, "http")) {
        complain(job, FV_HTTP_FAILED, "redirected from https to unencrypted http://%s",
                 target.host);
        return false;
    }
    headers = curl->slist_append(NULL, "Accept: */*");
    if (headers && http->authorization && same_origin(&target, &http->home)) {
        longer = curl->slist_append(headers, http->authorization);
        if (!longer) {
            curl->slist_free_all(headers);
            headers = NULL;
        } else
            headers = longer;
    }
    if (!headers) {
        complain(job, FV_HTTP_FAILED, "out of memory");
        return false;
    }
    curl->easy_setopt(job->easy, CURLOPT_HTTPHEADER, headers);
    curl->slist_free_all(job->headers);
    job->headers = headers;
    curl->easy_setopt(job->easy, CURLOPT_URL, job->url);
    forget_answer(job);
    return true;
}

static bool set_options(fv_http *http, fv_http_job *job)
{
    const fv_curl *curl = http->curl;
    CURL *easy = job->easy;
    unsigned bad = 0;
    char range[64];

    bad |= curl->easy_setopt(easy, CURLOPT_PRIVATE, job);
    bad |= curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    bad |= curl->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
#if LIBCURL_VERSION_NUM >= 0x075500
    bad |= curl->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    bad |= curl->easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    bad |= curl->easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    bad |= curl->easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    bad |= curl->easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (http->ca_file)
        bad |= curl->easy_setopt(easy, CURLOPT_CAINFO, http->ca_file);
    /* One connection a job: over HTTP/2 all ranges would share one, and its window. */
    bad |= curl->easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    /* the token is not the proxy's */
    bad |= curl->easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    bad |= curl->easy_setopt(easy, CURLOPT_USERAGENT, "fastvlm/" FV_VERSION);
    bad |= curl->easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    bad |= curl->easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
    bad |= curl->easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    bad |= curl->easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
    bad |= curl->easy_setopt(easy, CURLOPT_ERRORBUFFER, job->detail);
    bad |= curl->easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    bad |= curl->easy_setopt(easy, CURLOPT_HEADERDATA, job);
    bad |= curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl->easy_setopt(easy, CURLOPT_WRITEDATA, job);
    if (wants_range(job)) {
        snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, job->begin, job->end - 1);
        bad |= curl->easy_setopt(easy, CURLOPT_RANGE, range);
    }
    return bad == 0;
}

fv_status fv_http_start(fv_http *http, fv_http_job *job, fv_error *err)
{
    job->http = http;
    job->headers = NULL;
    job->hops = 0;
    job->code = 0;
    job->n_taken = 0;
    job->unknown = false;
    job->message[0] = job->detail[0] = 0;
    job->easy = http->curl->easy_init();
    if (!job->easy || !set_options(http, job)) {
        if (job->easy)
            http->curl->easy_cleanup(job->easy);
        return fv_fail(err, FV_ERR_MEMORY, 0, "libcurl cannot set up a request");
    }
    if (!aim(http, job) || http->curl->multi_add_handle(http->multi, job->easy) != CURLM_OK) {
        http->curl->easy_cleanup(job->easy);
        http->curl->slist_free_all(job->headers);
        return fv_fail(err, FV_ERR_IO, 0, "%s",
                       job->message[0] ? job->message : "libcurl accepts no request");
    }
    job->running = true;
    job->next = http->running;
    http->running = job;
    return FV_OK;
}

void fv_http_drop(fv_http *http, fv_http_job *job)
{
    fv_http_job **link = &http->running;
    if (!job->running)
        return;
    while (*link && *link != job)
        link = &(*link)->next;
    if (*link)
        *link = job->next;
    http->curl->multi_remove_handle(http->multi, job->easy);
    http->curl->easy_cleanup(job->easy);
    http->curl->slist_free_all(job->headers);
    job->easy = job->headers = NULL;
    job->running = false;
}

/* ---- how it ended ------------------------------------------------------------------------ */

static void judge_transport(const fv_http *http, fv_http_job *job, CURLcode result,
                            const char *host)
{
    const char *why = job->detail[0] ? job->detail : http->curl->easy_strerror(result);
    switch (result) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        job->unknown = true;
        complain(job, FV_HTTP_AGAIN,
                 "%s: host not found; is there a network, and is the name right?", host);
        break;
    case CURLE_COULDNT_CONNECT:
        complain(job, FV_HTTP_AGAIN, "%s: no connection (%s)", host, why);
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        complain(job, FV_HTTP_FAILED,
                 "%s: TLS failed (%s); check the clock and the package ca-certificates, or "
                 "set SSL_CERT_FILE to the certificates to trust",
                 host, why);
        break;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT: complain(job, FV_HTTP_FAILED, "%s: %s", host, why); break;
    case CURLE_OPERATION_TIMEDOUT:
        complain(job, FV_HTTP_AGAIN, "%s: no data for %d s", host, STALL_S);
        break;
    default: /* cut off in one of many ways */ complain(job, FV_HTTP_AGAIN, "%s: %s", host, why);
    }
}

static void judge_code(fv_http_job *job, const char *host)
{
    int code = job->code;
    if (code == 200 || code == 206) {
        if (!check_answer(job, code))
            return;
        if (job->size > 0 && job->n_taken != job->end - job->begin)
            complain(job, FV_HTTP_AGAIN, "%s: the answer ended early", host);
        else
            job->outcome = FV_HTTP_OK;
    } else if (code == 401 || code == 403 || code == 404 || code == 410 || code == 416)
        complain(job, FV_HTTP_REFUSED, "%s answers %d%s%s", host, code,
                 job->code_name[0] ? " " : "", job->code_name);
    else if (code == 429 || code == 408 || code >= 500)
        complain(job, FV_HTTP_AGAIN, "%s answers %d%s", host, code,
                 code == 429 ? " (too many requests)" : "");
    else
        complain(job, FV_HTTP_FAILED, "%s answers %d", host, code);
}

/* Sends the job to where a redirect points; false when the job is over. */
static bool follow(fv_http *http, fv_http_job *job)
{
    char *to = NULL;
    if (http->curl->easy_getinfo(job->easy, CURLINFO_REDIRECT_URL, &to) != CURLE_OK || !to) {
        complain(job, FV_HTTP_FAILED, "a redirect without a target");
        return false;
    }
    if (++job->hops > MAX_HOPS) {
        complain(job, FV_HTTP_FAILED, "more than %d redirects", MAX_HOPS);
        return false;
    }
    if (strlen(to) >= sizeof job->url) {
        complain(job, FV_HTTP_FAILED, "a redirect to an address of %zu characters", strlen(to));
        return false;
    }
    memcpy(job->url, to, strlen(to) + 1);
    http->curl->multi_remove_handle(http->multi, job->easy);
    if (!aim(http, job))
        return false;
    if (http->curl->multi_add_handle(http->multi, job->easy) != CURLM_OK) {
        complain(job, FV_HTTP_FAILED, "libcurl accepts no request");
        return false;
    }
    return true;
}

/* True when the job is over. */
static bool settle(fv_http *http, fv_http_job *job, CURLcode result)
{
    origin at;
    const char *host = parse_origin(http->curl, job->url, &at) ? at.host : "the server";
    job->code = (int)answer_code(job);
    if (result == CURLE_OK && job->code >= 301 && job->code <= 308 && job->code != 304 &&
        follow(http, job))
        return false;
    if (!job->message[0]) { /* nothing has been said yet */
        if (result != CURLE_OK)
            judge_transport(http, job, result, host);
        else
            judge_code(job, host);
    }
    fv_http_drop(http, job);
    return true;
}

static fv_http_job *next_finished(fv_http *http)
{
    int n_left;
    for (CURLMsg *m; (m = http->curl->multi_info_read(http->multi, &n_left));) {
        char *job = NULL;
        CURLcode result = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        http->curl->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &job);
        if (settle(http, (fv_http_job *)(void *)job, result))
            return (fv_http_job *)(void *)job;
    }
    return NULL;
}

fv_http_job *fv_http_wait(fv_http *http, int ms)
{
    int n_running, n_ready;
    fv_http_job *job = next_finished(http);
    if (job)
        return job;
    http->curl->multi_perform(http->multi, &n_running);
    if ((job = next_finished(http)))
        return job;
    http->curl->multi_poll(http->multi, NULL, 0, ms, &n_ready);
    http->curl->multi_perform(http->multi, &n_running);
    return next_finished(http);
}
#else
typedef int fv_http_is_left_out; /* a file needs a declaration */
#endif
