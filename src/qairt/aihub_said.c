/* Reading what the AI Hub's client prints. See aihub_said.h. */
#include "qairt/aihub_said.h"

#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/utf8_text.h"
#include "io/json.h"

/* ---- text for messages --------------------------------------------------------------------- */

typedef struct clean_text {
    char *to;
    size_t n, size;
    bool blank; /* a blank is due before the next character */
} clean_text;

static void clean_put(clean_text *c, const char *text, size_t n)
{
    size_t blank = c->blank && c->n > 0;
    if (c->n + blank + n >= c->size) {
        c->size = c->n + 1; /* whole characters only: nothing comes behind what did not fit */
        return;
    }
    if (blank)
        c->to[c->n++] = ' ';
    memcpy(c->to + c->n, text, n);
    c->n += n;
    c->blank = false;
}

/* Of an address: what is not shown. */
static size_t clean_query(const char *at, const char *end)
{
    const char *stop = at;
    while (stop < end && (unsigned char)*stop > ' ' && !strchr("\"'<>)", *stop))
        stop++;
    return (size_t)(stop - at);
}

static bool is_box(const uint8_t *at, size_t n) /* U+2500 to U+257F, or "|" */
{
    return *at == '|' || (n == 3 && at[0] == 0xe2 && (at[1] == 0x94 || at[1] == 0x95));
}

void fv_aihub_clean(char *to, size_t size, const char *text, size_t n_bytes, const char *secret)
{
    clean_text c = { .to = to, .size = size };
    const char *end = text + n_bytes;
    size_t n_secret = secret ? strlen(secret) : 0;
    bool address = false;

    for (const char *at = text; at < end;) {
        bool complete, truncated;
        size_t n = fv_utf8_step((const uint8_t *)at, (size_t)(end - at), &complete, &truncated);
        if (n_secret && (size_t)(end - at) >= n_secret && memcmp(at, secret, n_secret) == 0) {
            clean_put(&c, "***", 3);
            at += n_secret;
            continue;
        }
        if ((size_t)(end - at) > 3 && memcmp(at, "://", 3) == 0)
            address = true;
        if ((unsigned char)*at <= ' ' || *at == 0x7f) {
            c.blank = true;
            address = false;
        } else if (complete && is_box((const uint8_t *)at, n)) {
            c.blank = true;
        } else if (*at == '?' && (address || memchr(at, '=', clean_query(at, end)))) {
            clean_put(&c, "?...", 4);
            n = clean_query(at, end);
        } else if (complete) {
            clean_put(&c, at, n);
        } else {
            clean_put(&c, FV_UTF8_REPLACEMENT, 3);
        }
        at += n;
    }
    to[c.n] = '\0';
}

/* ---- answers of our Python programs -------------------------------------------------------- */

static void said_text(char *out, size_t size, const fv_json_value *root, const char *key,
                      const char *secret)
{
    const char *text;
    if (fv_json_as_string(fv_json_member(root, key), &text))
        fv_aihub_clean(out, size, text, strlen(text), secret);
}

static void said_id(char out[FV_AIHUB_ID], const fv_json_value *root, const char *key, char letter)
{
    const char *text;
    if (fv_json_as_string(fv_json_member(root, key), &text) && fv_aihub_is_id(text, letter))
        memcpy(out, text, strlen(text) + 1);
}

bool fv_aihub_said_read(fv_aihub_said *out, const char *line, size_t n_bytes, const char *secret)
{
    fv_json *doc;
    const char *status;

    *out = (fv_aihub_said){ 0 };
    if (n_bytes == 0 || line[0] != '{' ||
        fv_json_parse(&doc, line, n_bytes, "answer", NULL) != FV_OK)
        return false;
    const fv_json_value *root = fv_json_root(doc);
    said_id(out->model_id, root, "model_id", 'm');
    said_id(out->job_id, root, "job_id", 'j');
    if (fv_json_as_string(fv_json_member(root, "status"), &status) &&
        strlen(status) < sizeof out->status &&
        strspn(status, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == strlen(status))
        memcpy(out->status, status, strlen(status) + 1);
    said_text(out->url, sizeof out->url, root, "url", secret);
    said_text(out->device, sizeof out->device, root, "device", secret);
    said_text(out->options, sizeof out->options, root, "options", secret);
    said_text(out->user, sizeof out->user, root, "user", secret);
    said_text(out->version, sizeof out->version, root, "version", secret);
    said_text(out->error, sizeof out->error, root, "error", secret);
    said_text(out->message, sizeof out->message, root, "message", secret);
    fv_json_as_int(fv_json_member(root, "time"), &out->time);
    fv_json_free(doc);
    return true;
}

bool fv_aihub_upload_read(char model_id[FV_AIHUB_ID], const char *line, size_t n_bytes)
{
    char text[128], id[FV_AIHUB_ID];
    int end = 0;
    snprintf(text, sizeof text, "%.*s", (int)FV_MIN(n_bytes, sizeof text - 1), line);
    if (sscanf(text, "model_id : %39s%n", id, &end) != 1 || n_bytes != (size_t)end ||
        !fv_aihub_is_id(id, 'm'))
        return false;
    memcpy(model_id, id, sizeof id);
    return true;
}

/* ---- exceptions ---------------------------------------------------------------------------- */

/* "package.module.SomeError: text": the class's own name; *text what follows. NULL: another line.*/
static const char *trace_class(const char *line, size_t n, size_t *n_name, const char **text)
{
    const char *name = line, *end = line + n, *at = line;
    for (; at < end && *at != ':'; at++) {
        bool letter = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || *at == '_';
        bool digit = *at >= '0' && *at <= '9';
        if (*at == '.')
            name = at + 1;
        else if (!letter && !(digit && at > line))
            return NULL;
    }
    *n_name = (size_t)(at - name);
    *text = at < end ? at + 1 : at;
    return *n_name > 0 && *name >= 'A' && *name <= 'Z' ? name : NULL;
}

static void trace_add(fv_aihub_trace *t, const char *text, size_t n, const char *secret)
{
    size_t used = strlen(t->message);
    size_t blank = used > 0;
    if (used + 2 >= sizeof t->message)
        return;
    fv_aihub_clean(t->message + used + blank, sizeof t->message - used - blank, text, n, secret);
    if (blank && t->message[used + 1])
        t->message[used] = ' ';
}

void fv_aihub_trace_take(fv_aihub_trace *t, const char *line, size_t n, const char *secret)
{
    static const char begin[] = "Traceback (most recent call last):";
    size_t n_name;
    const char *text, *name;

    for (size_t i = n; i > 0; i--) /* behind a bar that was drawn over and over */
        if (line[i - 1] == '\r' && i < n) {
            n -= i;
            line += i;
            break;
        }
    if (n >= sizeof begin - 1 && memcmp(line, begin, sizeof begin - 1) == 0) {
        *t = (fv_aihub_trace){ .begun = true };
    } else if (t->taking) {
        trace_add(t, line, n, secret);
    } else if (t->begun && (name = trace_class(line, n, &n_name, &text))) {
        fv_aihub_clean(t->error, sizeof t->error, name, n_name, secret);
        trace_add(t, text, n - (size_t)(text - line), secret);
        t->taking = true;
    }
}

fv_aihub_trouble fv_aihub_trouble_of(const char *error, const char *message)
{
    static const struct {
        const char *text;
        fv_aihub_trouble trouble;
    } table[] = {
        { "Failed to authenticate", FV_AIHUB_TOKEN },
        { "API authentication failure", FV_AIHUB_TOKEN },
        { "Failed to load configuration file", FV_AIHUB_CONFIG },
        { "Failed to load client configuration file", FV_AIHUB_CONFIG },
        { "Please provide client configuration", FV_AIHUB_CONFIG },
        { "Required fields are missing from your", FV_AIHUB_CONFIG },
        { "No module named 'qai_hub'", FV_AIHUB_PACKAGE },
        { "is unavailable right now", FV_AIHUB_TRANSIENT },
        { "reported errors", FV_AIHUB_TRANSIENT },
        { "Could not connect to", FV_AIHUB_TRANSIENT },
        { "Timeout occurred while communicating", FV_AIHUB_TRANSIENT },
        { "A communication error occurred", FV_AIHUB_TRANSIENT },
        { "Too Many Requests", FV_AIHUB_TRANSIENT },
        { "API request returned status code 5", FV_AIHUB_TRANSIENT },
        { "API request returned status code 429", FV_AIHUB_TRANSIENT },
    };
    static const char *const classes[] = { "RateLimitedError",
                                           "ConnectionError",
                                           "ConnectTimeout",
                                           "ReadTimeout",
                                           "Timeout",
                                           "ChunkedEncodingError",
                                           "RetryError",
                                           "ContentDecodingError",
                                           "EndpointConnectionError" };
    for (size_t i = 0; i < FV_COUNT(table); i++)
        if (strstr(message, table[i].text))
            return table[i].trouble;
    for (size_t i = 0; i < FV_COUNT(classes); i++)
        if (strcmp(error, classes[i]) == 0)
            return FV_AIHUB_TRANSIENT;
    return FV_AIHUB_FINAL;
}

/* ---- the client's configuration ------------------------------------------------------------ */

/* As Python's configparser: keys in either case, "=" or ":", comments on lines of their own. */
char *fv_aihub_config_value(const char *text, const char *key)
{
    static const char blank[] = " \t\r";
    bool inside = false;
    char *found = NULL;

    while (*text) {
        size_t n = strcspn(text, "\n");
        const char *line = text;
        text += n + (text[n] == '\n');
        while (n > 0 && strchr(blank, line[n - 1]))
            n--;
        if (n > 0 && line[0] == '[')
            inside = n == 5 && memcmp(line, "[api]", 5) == 0;
        if (!inside || n == 0 || strchr("#;[ \t", line[0]))
            continue;
        size_t n_key = 0;
        while (n_key < n && !strchr("=: \t", line[n_key]))
            n_key++;
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)FV_MIN(n_key, sizeof name - 1), line);
        size_t at = n_key;
        while (at < n && strchr(" \t", line[at]))
            at++;
        if (!fv_ascii_same(name, key) || at == n || !strchr("=:", line[at]))
            continue;
        for (at++; at < n && strchr(" \t", line[at]); at++)
            ;
        char *value = n > at ? fv_alloc(n - at + 1, 1) : NULL;
        if (value) {
            memcpy(value, line + at, n - at);
            value[n - at] = '\0';
            fv_free(found);
            found = value;
        }
    }
    return found;
}
