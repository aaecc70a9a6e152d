/* The adb client, run once a call. See adb.h.
 *
 * How a command's end is told: the client's exit code is the command's, but also 1 for troubles of
 * its own. So the command prints its exit code as the last line of standard error, which only the
 * phone can have done:
 *
 *     COMMAND                  on the phone
 *     fastvlm-exit=0           the last line of its standard error, taken out here
 */
#include "device/adb.h"

#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/number.h"
#include "base/report.h"
#include "base/utf8_text.h"
#include "device/shell_text.h"

#define MARK          "fastvlm-exit="
#define LIST_HEAD     "List of devices attached"
#define SHORT_TIME_MS 60e3 /* for what takes the phone a moment, server's start included */

enum { MAX_ENTRIES = 256, SAID_BYTES = 256, SHOWN_BYTES = 300 };

/* ---------------------------------------------------------------- the client */

static bool adb_stop(void *user)
{
    const fv_adb *adb = user;
    return adb->stage && fv_progress(adb->callbacks, adb->stage, adb->done, NULL) != FV_OK;
}

/* Runs `adb [-s SERIAL] WORDS...` and keeps what it says; its exit code is no error. */
static fv_status adb_client(const fv_adb *adb, const char *const *words, double timeout_ms,
                            fv_spawn_result *result, fv_error *err)
{
    const char *argv[12];
    size_t n = 0;

    argv[n++] = adb->program;
    if (adb->serial) {
        argv[n++] = "-s";
        argv[n++] = adb->serial;
    }
    while (*words && n + 1 < FV_COUNT(argv))
        argv[n++] = *words++;
    argv[n] = NULL;
    const fv_spawn_options options = { .argv = argv,
                                       .timeout_ms = timeout_ms,
                                       .stop = adb_stop,
                                       .user = (void *)(uintptr_t)adb,
                                       .any_exit_code = true };
    return fv_spawn_run(result, &options, err);
}

/* The line of text that tells most: the client's first error, else the last that is not empty;
 * without what the client puts in front of its own. */
static void said_take(char said[SAID_BYTES], const char *text)
{
    static const char *const prefixes[] = { "adb: error: ", "adb: ", "error: " };
    const char *error = text ? strstr(text, "adb: error: ") : NULL;
    size_t n = error ? (size_t)(error - text) + strcspn(error, "\n") : text ? strlen(text) : 0;
    size_t begin;

    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
        n--;
    for (begin = n; begin > 0 && text[begin - 1] != '\n' && text[begin - 1] != '\r'; begin--)
        ;
    for (size_t i = 0; i < FV_COUNT(prefixes); i++) {
        size_t length = strlen(prefixes[i]);
        if (n - begin >= length && strncmp(text + begin, prefixes[i], length) == 0)
            begin += length;
    }
    n = FV_MIN(n - begin, (size_t)SAID_BYTES - 1);
    if (n > 0)
        memcpy(said, text + begin, n);
    said[n] = '\0';
}

/* ---------------------------------------------------------------- what can be wrong */

const char *fv_adb_state_problem(const char *state)
{
    static const char *const problems[][2] = {
        { "unauthorized",
          "not authorised: unlock the phone and allow debugging by this computer in the dialog it "
          "shows" },
        { "authorizing", "being authorised: unlock the phone, and try again in a moment" },
        { "connecting", "still connecting: try again in a moment" },
        { "offline", "offline: unplug it and plug it in again, or restart adb's server (adb "
                     "kill-server)" },
        { "no permissions",
          "this user may not open the USB device: install Android's udev rules (Debian, Ubuntu: "
          "apt install android-sdk-platform-tools-common), then unplug the phone and plug it in "
          "again" },
        { "bootloader", "in its bootloader: start Android" },
        { "recovery", "in recovery mode: start Android" },
        { "sideload", "in recovery mode (sideload): start Android" },
        { "rescue", "in rescue mode: start Android" },
        { "detached", "detached from adb (adb attach)" },
    };
    if (strcmp(state, "device") == 0)
        return NULL;
    for (size_t i = 0; i < FV_COUNT(problems); i++)
        if (strncmp(state, problems[i][0], strlen(problems[i][0])) == 0)
            return problems[i][1];
    return "in a state that is not known here; expected \"device\" in the output of adb devices";
}

/* The phone does not answer as it did. said is what the client wrote about it. */
static fv_status adb_trouble(const fv_adb *adb, const char *said, fv_error *err)
{
    static const char *const states[][2] = {
        { "unauthorized", "unauthorized" },
        { "still authorizing", "authorizing" },
        { "device offline", "offline" },
        { "permissions", "no permissions" },
    };
    const char *serial = adb->serial ? adb->serial : adb->program;

    for (size_t i = 0; i < FV_COUNT(states); i++)
        if (strstr(said, states[i][0]))
            return fv_fail(err, FV_ERR_IO, 0, "%s: %s", serial, fv_adb_state_problem(states[i][1]));
    if (strstr(said, "cannot connect to daemon") || strstr(said, "failed to start daemon") ||
        strstr(said, "failed to check server version") || strstr(said, "protocol fault"))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: its server cannot be reached, or was ended while it worked (%s); try "
                       "again",
                       adb->program, said);
    bool gone = strstr(said, "not found") || strstr(said, "no devices") || strstr(said, "closed") ||
                strstr(said, "read from device") || strstr(said, "failed to read") || !*said;
    return fv_fail(err, FV_ERR_IO, 0,
                   gone ? "%s: the connection to the phone is gone: unplugged, or adb's server was "
                          "ended%s%s%s"
                        : "%s: adb failed%s%s%s",
                   serial, *said ? " (" : "", said, *said ? ")" : "");
}

/* ---------------------------------------------------------------- the list */

/* The word behind `key` in a line of the list: " model:SM_S938B ". */
static void word_after(char *to, const char *line, size_t n, const char *key)
{
    size_t length = strlen(key);
    to[0] = '\0';
    for (size_t i = 0; i + length < n; i++) {
        if (strncmp(line + i, key, length) != 0)
            continue;
        size_t begin = i + length, end = begin;
        while (end < n && line[end] != ' ')
            end++;
        end = FV_MIN(end, begin + FV_ADB_NAME - 1);
        memcpy(to, line + begin, end - begin);
        to[end - begin] = '\0';
        return;
    }
}

/* Up to where a state of several words ends: "no permissions (why); see [address] usb:1-4". */
static size_t state_end(const char *line, size_t begin, size_t n)
{
    static const char *const keys[] = { " usb:", " product:", " model:", " device:",
                                        " transport_id:" };
    for (size_t i = begin; i < n; i++)
        for (size_t k = 0; k < FV_COUNT(keys); k++)
            if (n - i >= strlen(keys[k]) && strncmp(line + i, keys[k], strlen(keys[k])) == 0)
                return i;
    return n;
}

/* "SERIAL  STATE [usb:...] [product:...] [model:...] [device:...] [transport_id:...]" */
static fv_status entry_parse(fv_adb_entries *entries, const char *line, size_t n, fv_error *err)
{
    fv_adb_entry entry;
    size_t serial, begin, end;

    for (serial = 0; serial < n && line[serial] != ' ' && line[serial] != '\t'; serial++)
        ;
    for (begin = serial; begin < n && (line[begin] == ' ' || line[begin] == '\t'); begin++)
        ;
    for (end = state_end(line, begin, n); end > begin && line[end - 1] == ' '; end--)
        ;
    if (serial == 0 || serial >= FV_ADB_NAME || begin == end || entries->n == MAX_ENTRIES ||
        !fv_utf8_valid(line, n, NULL))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "adb devices: line %zu is not a serial number and a state", entries->n + 1);
    memcpy(entry.serial, line, serial);
    entry.serial[serial] = '\0';
    end = FV_MIN(end, begin + FV_ADB_NAME - 1);
    memcpy(entry.state, line + begin, end - begin);
    entry.state[end - begin] = '\0';
    word_after(entry.model, line + begin, n - begin, " model:");
    FV_TRY(FV_LIST_ROOM(entries->list, entries->n, entries->capacity, 1, err));
    entries->list[entries->n++] = entry;
    return FV_OK;
}

fv_status fv_adb_entries_parse(fv_adb_entries *entries, const char *text, size_t n_bytes,
                               fv_error *err)
{
    bool head = false;

    while (n_bytes > 0) {
        const char *end = memchr(text, '\n', n_bytes);
        size_t n = end ? (size_t)(end - text) : n_bytes, whole = n + (end != NULL);
        if (n > 0 && text[n - 1] == '\r')
            n--;
        bool is_head = n >= sizeof LIST_HEAD - 1 &&
                       strncmp(text, LIST_HEAD, sizeof LIST_HEAD - 1) == 0;
        if (head && n > 0 && text[0] != '*')
            FV_TRY(entry_parse(entries, text, n, err));
        head = head || is_head;
        text += whole;
        n_bytes -= whole;
    }
    return head ? FV_OK
                : fv_fail(err, FV_ERR_FORMAT, 0,
                          "adb devices: expected \"" LIST_HEAD "\", found something else");
}

fv_status fv_adb_list(fv_adb_entries *entries, const fv_adb *adb, fv_error *err)
{
    static const char *const words[] = { "devices", "-l", NULL };
    fv_adb any = *adb;
    fv_spawn_result result;
    char said[SAID_BYTES];

    any.serial = NULL;
    fv_status status = adb_client(&any, words, SHORT_TIME_MS, &result, err);
    if (status == FV_OK && result.exit_code != 0) {
        said_take(said, result.n_err ? result.err : result.out);
        status = adb_trouble(&any, said, err);
    }
    if (status == FV_OK)
        status = fv_adb_entries_parse(entries, result.out, result.n_out, err);
    fv_spawn_result_free(&result);
    return status;
}

void fv_adb_entries_free(fv_adb_entries *entries)
{
    fv_free(entries->list);
    *entries = (fv_adb_entries){ 0 };
}

/* "R5CX123ABC (SM_S938B), emulator-5554 (offline)" */
static void entries_show(char shown[SHOWN_BYTES], const fv_adb_entries *entries)
{
    size_t used = 0;
    shown[0] = '\0';
    for (size_t i = 0; i < entries->n && used < SHOWN_BYTES; i++) {
        const fv_adb_entry *e = &entries->list[i];
        bool ready = strcmp(e->state, "device") == 0;
        const char *more = ready ? e->model : e->state;
        int n = fv_format(shown + used, SHOWN_BYTES - used, "%s%.60s%s%.60s%s", i ? ", " : "",
                          e->serial, *more ? " (" : "", more, *more ? ")" : "");
        used += n > 0 ? (size_t)n : 0;
    }
}

fv_status fv_adb_pick(const fv_adb_entries *entries, const char *serial, size_t *index,
                      fv_error *err)
{
    char shown[SHOWN_BYTES];
    size_t found = entries->n;

    entries_show(shown, entries);
    for (size_t i = 0; serial && i < entries->n; i++)
        if (strcmp(entries->list[i].serial, serial) == 0)
            found = i;
    if (serial && found == entries->n)
        return fv_fail(err, FV_ERR_IO, 0, "%s: adb knows no such phone; it lists %s", serial,
                       entries->n ? shown : "none");
    if (!serial && entries->n == 0)
        return fv_fail(err, FV_ERR_IO, 0,
                       "adb lists no phone: plug one in whose developer options have USB debugging "
                       "on, and unlock it");
    if (!serial && entries->n > 1)
        return fv_fail(err, FV_ERR_IO, 0, "adb lists %zu phones, and none is chosen: %s",
                       entries->n, shown);
    *index = serial ? found : 0;
    const fv_adb_entry *e = &entries->list[*index];
    const char *problem = fv_adb_state_problem(e->state);
    return problem ? fv_fail(err, FV_ERR_IO, 0, "%s: %s", e->serial, problem) : FV_OK;
}

/* The daemon's features, a line each. */
static fv_status features_check(const fv_adb *adb, fv_error *err)
{
    static const char *const words[] = { "features", NULL };
    fv_spawn_result result;
    char said[SAID_BYTES];

    fv_status status = adb_client(adb, words, SHORT_TIME_MS, &result, err);
    if (status == FV_OK && result.exit_code != 0) {
        said_take(said, result.err);
        status = adb_trouble(adb, said, err);
    }
    if (status == FV_OK && !strstr(result.out, "shell_v2"))
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "%s: its adb daemon is too old to give exit codes; expected Android 7 or "
                         "later",
                         adb->serial);
    fv_spawn_result_free(&result);
    return status;
}

fv_status fv_adb_choose(const fv_adb *adb, char **serial, fv_error *err)
{
    fv_adb_entries entries = { 0 };
    size_t index = 0;

    *serial = NULL;
    fv_status status = fv_adb_list(&entries, adb, err);
    if (status == FV_OK)
        status = fv_adb_pick(&entries, adb->serial, &index, err);
    if (status == FV_OK && !(*serial = fv_strdup(entries.list[index].serial)))
        status = fv_fail_memory(err, FV_ADB_NAME, "a serial number");
    fv_adb_entries_free(&entries);
    if (status == FV_OK) {
        fv_adb one = *adb;
        one.serial = *serial;
        status = features_check(&one, err);
    }
    if (status != FV_OK) {
        fv_free(*serial);
        *serial = NULL;
    }
    return status;
}

/* ---------------------------------------------------------------- commands */

/* A call whose output goes to its caller while it runs. */
typedef struct live_call {
    const fv_adb *adb;
    const fv_adb_call *call;
    char *part; /* standard error behind its last newline: the mark may come in pieces */
    size_t n_part, capacity;
    char said[SAID_BYTES]; /* its last line */
    int exit_code;         /* -1: no mark has come */
    fv_status status;
} live_call;

static bool live_stop(void *user)
{
    const live_call *l = user;
    return (l->call->stop && l->call->stop(l->call->user)) || adb_stop((void *)(uintptr_t)l->adb);
}

/* What has come of a line of standard error: the mark, or the caller's. */
static void live_error_line(live_call *l)
{
    size_t mark = sizeof MARK - 1;

    if (l->n_part == 0)
        return;
    if (strncmp(l->part, MARK, mark) == 0) {
        l->exit_code = atoi(l->part + mark);
    } else {
        said_take(l->said, l->part);
        l->call->line(l->call->user, true, l->part, l->n_part - !l->call->raw);
    }
    l->n_part = 0;
}

/* The client's output in pieces; standard error goes on in lines, whose newline is kept if raw. */
static void live_take(void *user, bool is_error, const char *data, size_t n)
{
    live_call *l = user;

    if (!is_error) {
        l->call->line(l->call->user, false, data, n);
        return;
    }
    while (n > 0 && l->status == FV_OK) {
        const char *end = memchr(data, '\n', n);
        size_t part = end ? (size_t)(end - data) + 1 : n;
        l->status = FV_LIST_ROOM(l->part, l->n_part, l->capacity, part + 1, NULL);
        if (l->status != FV_OK)
            return;
        memcpy(l->part + l->n_part, data, part);
        l->n_part += part;
        l->part[l->n_part] = '\0';
        if (end)
            live_error_line(l);
        data += part;
        n -= part;
    }
}

/* Lines come without their newline. */
static void live_line(void *user, bool is_error, const char *line, size_t n)
{
    live_take(user, is_error, line, n);
    if (is_error)
        live_take(user, true, "\n", 1);
}

/* Takes the mark out of the standard error that was kept; -1: there is none. */
static int exit_mark_take(fv_spawn_result *result)
{
    char *at = NULL, *end;

    for (char *found = result->err; found && (found = strstr(found, MARK)); found++)
        if (found == result->err || found[-1] == '\n')
            at = found;
    if (!at)
        return -1;
    long code = strtol(at + sizeof MARK - 1, &end, 10);
    if (end == at + sizeof MARK - 1 || (*end && *end != '\n' && *end != '\r') || code < 0 ||
        code > 255)
        return -1;
    *at = '\0';
    result->n_err = (size_t)(at - result->err);
    return (int)code;
}

fv_status fv_adb_shell(const fv_adb *adb, const fv_adb_call *call, fv_spawn_result *result,
                       fv_error *err)
{
    fv_shell_text text = { 0 };
    live_call live = { .adb = adb, .call = call, .exit_code = -1 };

    *result = (fv_spawn_result){ .exit_code = -1 };
    fv_shell_add(&text, "%s\nfv_code=$?\necho " MARK "$fv_code >&2\nexit $fv_code", call->command);
    fv_status status = fv_shell_done(&text, err);
    const char *const argv[] = { adb->program, "-s", adb->serial, "shell", "-T", text.text, NULL };
    const fv_spawn_options options = { .argv = argv,
                                       .timeout_ms = call->timeout_ms,
                                       .line = !call->line ? NULL
                                               : call->raw ? live_take
                                                           : live_line,
                                       .raw = call->raw,
                                       .stop = live_stop,
                                       .user = &live,
                                       .any_exit_code = true };
    if (status == FV_OK)
        status = fv_spawn_run(result, &options, err);
    if (status == FV_OK && live.status != FV_OK)
        status = fv_fail_memory(err, live.n_part, "a command's output");
    if (status == FV_OK) {
        live_error_line(&live); /* a last one without a newline */
        result->exit_code = call->line ? live.exit_code : exit_mark_take(result);
        if (!call->line)
            said_take(live.said, result->err);
        if (result->exit_code < 0)
            status = adb_trouble(adb, live.said, err);
    }
    fv_free(live.part);
    fv_shell_text_free(&text);
    return status;
}

fv_status fv_adb_ask(const fv_adb *adb, const char *command, const char *what, char **out,
                     fv_error *err)
{
    const fv_adb_call call = { .command = command, .timeout_ms = SHORT_TIME_MS };
    fv_spawn_result result;
    char said[SAID_BYTES];

    fv_status status = fv_adb_shell(adb, &call, &result, err);
    if (status == FV_OK && result.exit_code != 0) {
        said_take(said, result.n_err ? result.err : result.out);
        status = fv_fail(err, FV_ERR_IO, 0, "%s: %s: %s", adb->serial, what,
                         *said ? said : "failed without a word");
    }
    if (out) {
        *out = status == FV_OK ? result.out : NULL;
        if (status == FV_OK)
            result.out = NULL;
    }
    fv_spawn_result_free(&result);
    return status;
}

/* ---------------------------------------------------------------- files */

/* A name that the client could take for an option gets a directory in front of it. */
static char *path_not_option(const char *path)
{
    return *path == '-' ? fv_path_join(".", path) : fv_strdup(path);
}

static fv_status transfer(const fv_adb *adb, const char *verb, const char *from, const char *to,
                          const char *subject, fv_error *err)
{
    const char *const words[] = { verb, from, to, NULL };
    fv_spawn_result result;
    char said[SAID_BYTES];

    fv_status status = adb_client(adb, words, 0, &result, err);
    if (status == FV_OK && result.exit_code != 0) {
        said_take(said, result.n_err ? result.err : result.out);
        const char *remote = strstr(said, "remote ");
        if (strstr(said, "No space left on device"))
            status = fv_fail(err, FV_ERR_IO, 0, "%s: no space left on the phone for %s",
                             adb->serial, subject);
        else if (remote)
            status = fv_fail(err, FV_ERR_IO, 0, "%s: %s: the phone says: %s", adb->serial, subject,
                             remote + sizeof "remote " - 1);
        else
            status = adb_trouble(adb, said, err);
    }
    fv_spawn_result_free(&result);
    return status;
}

fv_status fv_adb_push(const fv_adb *adb, const char *local, const char *remote, fv_error *err)
{
    char *from = path_not_option(local);
    fv_status status = from ? transfer(adb, "push", from, remote, local, err)
                            : fv_fail_memory(err, strlen(local), "a path");
    fv_free(from);
    return status;
}

fv_status fv_adb_pull(const fv_adb *adb, const char *remote, const char *local, fv_error *err)
{
    char *to = path_not_option(local);
    fv_status status = to ? transfer(adb, "pull", remote, to, remote, err)
                          : fv_fail_memory(err, strlen(local), "a path");
    fv_free(to);
    return status;
}
