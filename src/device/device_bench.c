/* fastvlm bench on the phone, between two looks at its temperatures and clocks. See
 * fastvlm_device.h. */
#include <string.h>

#include "base/number.h"
#include "base/sized.h"
#include "device/phone.h"
#include "device/shell_text.h"
#include "io/json.h"
#include "io/json_write.h"

struct fv_device_bench {
    fv_json_text json;
};

enum { SAID_BYTES = 256 };

/* ---------------------------------------------------------------- the phone's state */

/* Lines of "key value"; what the phone does not let its shell read is missing. */
static const char state_question[] =
    "for zone in /sys/class/thermal/thermal_zone*; do\n"
    "  [ -r $zone/temp ] && echo \"temperature $(cat $zone/type 2>/dev/null) $(cat $zone/temp "
    "2>/dev/null)\"\n"
    "done\n"
    "for cpu in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do\n"
    "  [ -r $cpu/scaling_governor ] && echo \"clock ${cpu#/sys/devices/system/cpu/} $(cat "
    "$cpu/scaling_governor 2>/dev/null) $(cat $cpu/scaling_cur_freq 2>/dev/null) $(cat "
    "$cpu/scaling_max_freq 2>/dev/null)\"\n"
    "done\n"
    "echo end";

enum { N_WORDS = 5, LINE_BYTES = 256 };

/* Is it a line of that kind? Its words, split at blanks in a copy; "" for each that is missing. */
static bool words_split(char copy[LINE_BYTES], const char *line, size_t n, const char *kind,
                        char *words[N_WORDS])
{
    fv_format(copy, LINE_BYTES, "%.*s", (int)FV_MIN(n, (size_t)LINE_BYTES), line);
    for (size_t i = 0; i < N_WORDS; i++) {
        words[i] = copy;
        copy += strcspn(copy, " ");
        if (*copy)
            *copy++ = '\0';
    }
    return strcmp(words[0], kind) == 0;
}

/* Millidegrees, mostly; degrees or their tenths on some phones. */
static double temperature_of(const char *text)
{
    double value = fv_number_read(text, NULL);
    return value > 1000 || value < -1000 ? value / 1000 : value > 150 ? value / 10 : value;
}

static void temperatures_put(fv_json_text *j, const char *answer)
{
    char copy[LINE_BYTES], *words[N_WORDS];
    double hottest = -1000;

    fv_json_begin(j, "temperatures", '[');
    for (size_t n; *answer; answer += n + (answer[n] == '\n')) {
        n = strcspn(answer, "\n");
        if (!words_split(copy, answer, n, "temperature", words))
            continue;
        double celsius = temperature_of(words[2]);
        hottest = FV_MAX(hottest, celsius);
        fv_json_begin_row(j, NULL, '{');
        fv_json_put_text(j, "zone", words[1]);
        fv_json_put_real(j, "celsius", celsius);
        fv_json_end(j);
    }
    fv_json_end(j);
    if (hottest > -1000)
        fv_json_put_real(j, "hottest_celsius", hottest);
}

static void clocks_put(fv_json_text *j, const char *answer)
{
    char copy[LINE_BYTES], *words[N_WORDS];

    fv_json_begin(j, "clocks", '[');
    for (size_t n; *answer; answer += n + (answer[n] == '\n')) {
        n = strcspn(answer, "\n");
        if (!words_split(copy, answer, n, "clock", words))
            continue;
        words[1][strcspn(words[1], "/")] = '\0'; /* "cpu0/cpufreq" */
        fv_json_begin_row(j, NULL, '{');
        fv_json_put_text(j, "cpu", words[1]);
        fv_json_put_text(j, "governor", words[2]);
        fv_json_put_real(j, "mhz", fv_number_read(words[3], NULL) / 1000);
        fv_json_put_real(j, "max_mhz", fv_number_read(words[4], NULL) / 1000);
        fv_json_end(j);
    }
    fv_json_end(j);
}

static fv_status state_ask(fv_json_text *j, const char *key, const fv_device *d, fv_error *err)
{
    char *answer;
    FV_TRY(fv_adb_ask(&d->adb, state_question, "its state cannot be read", &answer, err));
    fv_json_begin(j, key, '{');
    temperatures_put(j, answer);
    clocks_put(j, answer);
    fv_json_end(j);
    fv_free(answer);
    return FV_OK;
}

/* ---------------------------------------------------------------- the run */

typedef struct bench_run {
    fv_shell_text out;
    char said[SAID_BYTES];
} bench_run;

static void bench_line(void *user, bool is_error, const char *data, size_t n)
{
    bench_run *r = user;
    if (!is_error)
        fv_shell_add(&r->out, "%.*s", (int)n, data);
    else if (n > 1)
        fv_format(r->said, sizeof r->said, "%.*s", (int)FV_MIN(n - 1, sizeof r->said), data);
}

static fv_status bench_command(fv_shell_text *c, const fv_device *d,
                               const fv_device_bench_options *o, const fv_device_push_options *push,
                               fv_error *err)
{
    fv_shell_add(c, "%s/bin/fastvlm bench --json", d->dir);
    if (push->model) {
        char *name = fv_push_name(push->model);
        fv_shell_add(c, " --model models/%s", name ? name : "");
        c->failed = c->failed || !name;
        fv_free(name);
    }
    if (o->vision != FV_PRECISION_AUTO)
        fv_shell_add(c, " --vision %s", fv_precision_name(o->vision));
    if (o->decoder != FV_PRECISION_AUTO)
        fv_shell_add(c, " --decoder %s", fv_precision_name(o->decoder));
    if (o->reps)
        fv_shell_add(c, " --reps %d", o->reps);
    if (o->tokens)
        fv_shell_add(c, " --tokens %d", o->tokens);
    if (o->n_threads)
        fv_shell_add(c, " --threads %d", o->n_threads);
    if (o->stages) {
        fv_shell_add(c, " --stages ");
        fv_shell_quote(c, o->stages);
    }
    return fv_shell_done(c, err);
}

static void device_put(fv_json_text *j, const fv_device *d)
{
    fv_device_info i = { .size = sizeof i };
    fv_device_describe(d, &i);
    fv_json_begin(j, "device", '{');
    fv_json_put_text(j, "serial", i.serial);
    fv_json_put_text(j, "model", i.model);
    fv_json_put_text(j, "maker", i.maker);
    fv_json_put_text(j, "android", i.android);
    fv_json_put_text(j, "soc", i.soc[0] ? i.soc : i.chip);
    fv_json_put_int(j, "memory_bytes", (int64_t)i.memory_bytes);
    fv_json_end(j);
}

/* What it printed must be JSON: it becomes part of a larger one. */
static fv_status bench_result(fv_json_text *j, const fv_device *d, const bench_run *r, int code,
                              fv_error *err)
{
    fv_json *doc;
    if (code != 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s: the program on the phone failed (exit code %d): %s",
                       d->serial, code, r->said);
    FV_TRY(
        fv_json_parse(&doc, r->out.text ? r->out.text : "", r->out.n, "bench on the phone", err));
    fv_json_free(doc);
    size_t n = r->out.n;
    while (n > 0 && strchr(" \r\n", r->out.text[n - 1]))
        n--;
    fv_json_put_json(j, "bench", r->out.text, n);
    return FV_OK;
}

static fv_status bench_work(fv_device_bench *b, fv_device *d, const fv_device_bench_options *o,
                            const fv_device_push_options *push, fv_shell_text *command,
                            bench_run *r, fv_error *err)
{
    fv_device_push_report pushed = { .size = sizeof pushed };
    fv_json_text *j = &b->json;
    int code;

    FV_TRY(fv_device_files_send(d, push, o->skip_push, &pushed, err));
    d->adb.callbacks = o->callbacks;
    d->adb.stage = "bench";
    FV_TRY(fv_device_job_end(d, err));
    FV_TRY(bench_command(command, d, o, push, err));
    fv_json_begin(j, NULL, '{');
    device_put(j, d);
    FV_TRY(state_ask(j, "before", d, err));
    const fv_device_job job = {
        .command = command->text, .stage = "bench", .raw = true, .line = bench_line, .user = r
    };
    FV_TRY(fv_device_job_run(d, &job, &code, err));
    FV_TRY(state_ask(j, "after", d, err));
    FV_TRY(bench_result(j, d, r, code, err));
    fv_json_end(j);
    return fv_json_done(j, err);
}

fv_status fv_device_bench_run(fv_device *d, const fv_device_bench_options *options,
                              fv_device_bench **out, fv_error *err)
{
    fv_device_bench_options o;
    fv_device_push_options push;
    fv_callbacks callbacks;
    fv_shell_text command = { 0 };
    bench_run r = { 0 };

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(d, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_device_bench_options, options, err));
    FV_TRY(FV_OPTIONS_IN(&push, fv_device_push_options, o.push, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    push.callbacks = o.callbacks;
    if (!push.program)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "push->program is NULL");
    if (push.npu)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "push->npu: bench times the CPU only");
    fv_device_bench *b = fv_alloc_zero(1, sizeof *b);
    if (!b)
        return fv_fail_memory(err, sizeof *b, "a report");
    fv_status status = bench_work(b, d, &o, &push, &command, &r, err);
    d->adb.callbacks = NULL;
    fv_shell_text_free(&command);
    fv_shell_text_free(&r.out);
    if (status == FV_OK)
        *out = b;
    else
        fv_device_bench_free(b);
    return status;
}

void fv_device_bench_free(fv_device_bench *b)
{
    if (!b)
        return;
    fv_json_text_free(&b->json);
    fv_free(b);
}

const char *fv_device_bench_json(const fv_device_bench *b)
{
    return b && b->json.text ? b->json.text : "";
}
