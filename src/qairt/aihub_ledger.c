/* The ledgers of the AI Hub. See aihub_ledger.h. */
#include "qairt/aihub_ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/number.h"
#include "base/outfile.h"

enum { LEDGER_BYTES = 8 << 20, LINE_BYTES = 4096 };

bool fv_aihub_is_id(const char *text, char letter)
{
    size_t n = strlen(text);
    return n > 1 && n < FV_AIHUB_ID && text[0] == letter &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == n;
}

/* ---- time ---------------------------------------------------------------------------------- */

void fv_aihub_time(char text[FV_AIHUB_TIME])
{
    struct tm utc;
    time_t now = time(NULL);
    gmtime_r(&now, &utc);
    strftime(text, FV_AIHUB_TIME, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

int64_t fv_aihub_time_read(const char *text)
{
    struct tm utc = { 0 };
    int end = 0;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &utc.tm_year, &utc.tm_mon, &utc.tm_mday,
               &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &end) != 6 ||
        end != 20 || text[20] || utc.tm_year < 1970 || utc.tm_mon < 1 || utc.tm_mon > 12)
        return -1;
    utc.tm_year -= 1900;
    utc.tm_mon--;
    return (int64_t)timegm(&utc);
}

/* ---- the file ------------------------------------------------------------------------------ */

static fv_status ledger_read(fv_aihub_ledger *l, fv_error *err)
{
    uint8_t *data;
    size_t n;
    if (!fv_is_there(l->path)) {
        n = 0;
        data = fv_alloc_zero(1, 1);
        if (!data)
            return fv_fail_memory(err, 1, "a ledger");
    } else {
        FV_TRY(fv_read_file(&data, &n, l->path, LEDGER_BYTES, err));
    }
    fv_free(l->text);
    l->text = (char *)data;
    l->n_bytes = n;
    if (memchr(data, 0, n))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: not a text file", l->path);
    return FV_OK;
}

fv_status fv_aihub_ledger_open(fv_aihub_ledger *l, const char *dir, const char *name, fv_error *err)
{
    *l = (fv_aihub_ledger){ .path = fv_path_join(dir, name) };
    fv_status status = l->path ? FV_OK : fv_fail_memory(err, strlen(dir), "a path");
    if (status == FV_OK)
        status = ledger_read(l, err);
    if (status != FV_OK)
        fv_aihub_ledger_free(l);
    return status;
}

void fv_aihub_ledger_free(fv_aihub_ledger *l)
{
    fv_free(l->path);
    fv_free(l->text);
    *l = (fv_aihub_ledger){ 0 };
}

fv_status fv_aihub_ledger_add(fv_aihub_ledger *l, fv_error *err, const char *format, ...)
{
    char line[LINE_BYTES];
    fv_outfile f;
    va_list args;

    va_start(args, format);
    int n = fv_format_list(line, sizeof line, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line || memchr(line, '\n', (size_t)n))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: a line of it would be too long, or two",
                       l->path);
    line[n] = '\n';
    FV_TRY(ledger_read(l, err)); /* what a person may have added */
    FV_TRY(fv_outfile_open(&f, l->path, err));
    fv_status status = fv_outfile_write(&f, l->text, l->n_bytes, err);
    if (status == FV_OK && l->n_bytes && l->text[l->n_bytes - 1] != '\n')
        status = fv_outfile_write(&f, "\n", 1, err);
    if (status == FV_OK)
        status = fv_outfile_write(&f, line, (size_t)n + 1, err);
    if (status == FV_OK)
        status = fv_outfile_commit(&f, err);
    else
        fv_outfile_abandon(&f);
    FV_TRY(status);
    return ledger_read(l, err);
}

/* ---- lines --------------------------------------------------------------------------------- */

typedef struct ledger_lines {
    const char *at; /* NULL: none left */
    size_t number;  /* of the line that was taken last, from 1 */
    char line[LINE_BYTES];
} ledger_lines;

/* The next line without blanks at its ends; of one that is too long, the beginning. */
static bool ledger_next(ledger_lines *l)
{
    static const char blank[] = " \t\r";
    if (!l->at || !*l->at)
        return false;
    size_t n = strcspn(l->at, "\n"), skip = strspn(l->at, blank);
    const char *text = l->at;
    l->at += n + (l->at[n] == '\n');
    l->number++;
    skip = FV_MIN(skip, n);
    while (n > skip && strchr(blank, text[n - 1]))
        n--;
    snprintf(l->line, sizeof l->line, "%.*s", (int)FV_MIN(n - skip, sizeof l->line - 1),
             text + skip);
    return true;
}

/* What follows KEY, up to `end` or the end of the line, in out, cut where it is full; "" and false
 * where there is none. */
static bool ledger_value(char *out, size_t size, const char *line, const char *key, const char *end)
{
    const char *at = strstr(line, key);
    out[0] = '\0';
    if (!at)
        return false;
    at += strlen(key);
    const char *stop = end ? strstr(at, end) : NULL;
    size_t n = stop ? (size_t)(stop - at) : strlen(at);
    snprintf(out, size, "%.*s", (int)FV_MIN(n, size - 1), at);
    return n > 0;
}

static void ledger_id(char out[FV_AIHUB_ID], const char *line, const char *key, char letter)
{
    ledger_value(out, FV_AIHUB_ID, line, key, " ");
    if (!fv_aihub_is_id(out, letter))
        out[0] = '\0';
}

static void ledger_hash(char out[FV_AIHUB_HASH], const char *line)
{
    ledger_value(out, FV_AIHUB_HASH, line, " sha256=", " ");
    if (strspn(out, "0123456789abcdef") != FV_AIHUB_HASH - 1)
        out[0] = '\0';
}

static int64_t ledger_time(const char *line)
{
    char text[FV_AIHUB_TIME];
    ledger_value(text, sizeof text, line, " at=", " ");
    return fv_aihub_time_read(text);
}

/* "# fastvlm VERB NAME ..." */
static bool ledger_says(const char *line, const char *verb, const char *name)
{
    char begin[128];
    int n = snprintf(begin, sizeof begin, "# fastvlm %s %s ", verb, name);
    return strncmp(line, begin, (size_t)n) == 0;
}

/* NAME before the first colon, without blanks; what follows it. NULL: no colon. */
static const char *ledger_name(const char *line, char name[FV_AIHUB_TEXT])
{
    size_t n = strcspn(line, ":"), end = n;
    if (!line[n])
        return NULL;
    while (end > 0 && (line[end - 1] == ' ' || line[end - 1] == '\t'))
        end--;
    snprintf(name, FV_AIHUB_TEXT, "%.*s", (int)FV_MIN(end, (size_t)FV_AIHUB_TEXT - 1), line);
    line += n + 1;
    return line + strspn(line, " \t");
}

/* ---- models -------------------------------------------------------------------------------- */

fv_status fv_aihub_model_find(fv_aihub_model *out, const fv_aihub_ledger *l, const char *name,
                              fv_error *err)
{
    ledger_lines lines = { .at = l->text };
    char found[FV_AIHUB_TEXT];

    *out = (fv_aihub_model){ 0 };
    while (ledger_next(&lines)) {
        if (ledger_says(lines.line, "upload", name)) {
            out->pending = true;
            ledger_hash(out->pending_sha256, lines.line);
            out->pending_time = ledger_time(lines.line);
        }
        if (!lines.line[0] || lines.line[0] == '#')
            continue;
        const char *id = ledger_name(lines.line, found);
        if (!id || !found[0] || !fv_aihub_is_id(id, 'm'))
            return fv_fail(err, FV_ERR_FORMAT, lines.number,
                           "%s: line %zu: expected NAME:MODEL_ID, found \"%.80s\"", l->path,
                           lines.number, lines.line);
        if (strcmp(found, name) != 0)
            continue;
        memcpy(out->model_id, id, strlen(id) + 1);
        out->sha256[0] = '\0';
        if (out->pending)
            memcpy(out->sha256, out->pending_sha256, sizeof out->sha256);
        out->pending = false;
    }
    return FV_OK;
}

bool fv_aihub_ledger_has(const fv_aihub_ledger *l, const char *name, const char *model_id)
{
    ledger_lines lines = { .at = l->text };
    char found[FV_AIHUB_TEXT];
    while (ledger_next(&lines)) {
        const char *id = lines.line[0] == '#' ? NULL : ledger_name(lines.line, found);
        if (id && strcmp(found, name) == 0 && strcmp(id, model_id) == 0)
            return true;
    }
    return false;
}

/* ---- jobs ---------------------------------------------------------------------------------- */

/* device=, compile_options=: what holds for the lines below. */
static bool job_take_header(fv_aihub_job *header, const char *line)
{
    if (strncmp(line, "device=", 7) == 0) {
        ledger_value(header->device, sizeof header->device, line, "device=", " os=");
        ledger_value(header->os, sizeof header->os, line, " os=", NULL);
        return true;
    }
    if (strncmp(line, "compile_options=", 16) == 0)
        return ledger_value(header->options, sizeof header->options, line,
                            "compile_options=", NULL) ||
               true;
    return false;
}

/* "SUCCESS", "FAILED (why)" */
static void job_take_status(fv_aihub_job *job, const char *text)
{
    size_t n = strcspn(text, " ("), left;
    snprintf(job->status, sizeof job->status, "%.*s", (int)FV_MIN(n, sizeof job->status - 1), text);
    text += n;
    text += strspn(text, " ");
    text += *text == '(';
    left = strlen(text);
    left -= left > 0 && text[left - 1] == ')';
    snprintf(job->message, sizeof job->message, "%.*s", (int)FV_MIN(left, sizeof job->message - 1),
             text);
}

/* "NAME: model_id=M job_id=J status=S url=U"; false: not of that form. */
static bool job_take_line(fv_aihub_job *out, const fv_aihub_job *header, const char *text)
{
    char model_id[FV_AIHUB_ID], job_id[FV_AIHUB_ID], status[FV_AIHUB_TEXT + FV_AIHUB_ID];
    const char *url = NULL; /* the last: what the service says may look like one */
    for (const char *at = text; (at = strstr(at, " url=")); at++)
        url = at;
    ledger_id(model_id, text, "model_id=", 'm');
    ledger_id(job_id, text, " job_id=", 'j');
    if (!model_id[0] || !job_id[0] || !ledger_value(status, sizeof status, text, " status=", url))
        return false;
    if (strcmp(job_id, out->job_id) != 0) {
        fv_aihub_job before = *out;
        *out = *header;
        out->pending = before.pending;
        out->pending_time = before.pending_time;
        memcpy(out->pending_model, before.pending_model, sizeof out->pending_model);
        memcpy(out->model_id, model_id, sizeof out->model_id);
        memcpy(out->job_id, job_id, sizeof out->job_id);
        if (strcmp(model_id, out->pending_model) == 0)
            out->pending = false;
    }
    job_take_status(out, status);
    snprintf(out->url, sizeof out->url, "%s", url ? url + 5 : "");
    return true;
}

static void job_take_file(fv_aihub_job *out, const char *line)
{
    char job_id[FV_AIHUB_ID], number[24];
    ledger_id(job_id, line, " job_id=", 'j');
    if (!job_id[0] || strcmp(job_id, out->job_id) != 0)
        return;
    ledger_value(out->file, sizeof out->file, line, " file=", " at=");
    ledger_value(number, sizeof number, line, " bytes=", " ");
    ledger_hash(out->file_sha256, line);
    out->file_bytes = strtoull(number, NULL, 10);
    if (strchr(out->file, '/') || !out->file_sha256[0])
        out->file[0] = '\0';
}

static void job_read(fv_aihub_job *out, fv_aihub_job *header, const fv_aihub_ledger *l,
                     const char *name)
{
    ledger_lines lines = { .at = l->text };
    char found[FV_AIHUB_TEXT];

    while (ledger_next(&lines)) {
        const char *line = lines.line;
        if (job_take_header(header, line) || !name)
            continue;
        if (ledger_says(line, "submit", name)) {
            out->pending = true;
            ledger_id(out->pending_model, line, " model_id=", 'm');
            out->pending_time = ledger_time(line);
        } else if (ledger_says(line, "download", name)) {
            job_take_file(out, line);
        } else if (line[0] != '#') {
            const char *text = ledger_name(line, found);
            if (text && strcmp(found, name) == 0)
                job_take_line(out, header, text);
        }
    }
}

void fv_aihub_job_find(fv_aihub_job *out, const fv_aihub_ledger *l, const char *name)
{
    fv_aihub_job header = { 0 };
    *out = header;
    job_read(out, &header, l, name);
}

bool fv_aihub_ledger_has_job(const fv_aihub_ledger *l, const char *name, const char *job_id)
{
    ledger_lines lines = { .at = l->text };
    char found[FV_AIHUB_TEXT], id[FV_AIHUB_ID];
    while (ledger_next(&lines)) {
        const char *text = lines.line[0] == '#' ? NULL : ledger_name(lines.line, found);
        if (!text || strcmp(found, name) != 0)
            continue;
        ledger_id(id, text, " job_id=", 'j');
        if (strcmp(id, job_id) == 0)
            return true;
    }
    return false;
}

void fv_aihub_job_header(fv_aihub_job *out, const fv_aihub_ledger *l)
{
    fv_aihub_job none;
    *out = (fv_aihub_job){ 0 };
    job_read(&none, out, l, NULL);
}
