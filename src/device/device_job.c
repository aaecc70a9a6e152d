/* A program of ours on the phone, from start to end. See phone.h.
 *
 * The phone's shell starts it in the background and waits, so that the signal with which the daemon
 * answers a client's end (SIGHUP, to the shell alone) reaches it. run.pid stays until the program
 * is gone: one that takes its time is ended, and so is one that the signal has not reached. */
#include <string.h>

#include "base/report.h"
#include "device/phone.h"
#include "device/shell_text.h"

#define PID "run.pid"

/* Ends the process that run.pid names, if its command line says that it is of this directory. */
static fv_status job_end_text(fv_shell_text *t, const fv_device *d, fv_error *err)
{
    fv_shell_add(t,
                 "if cd %s 2>/dev/null && [ -f " PID " ]; then\n"
                 "pid=$(cat " PID ")\n"
                 "case \"$(tr '\\0' ' ' 2>/dev/null </proc/$pid/cmdline)\" in\n"
                 "*%s/*) kill $pid 2>/dev/null && echo \"ended $pid\"\n"
                 "  for i in 1 2 3 4 5 6 7 8 9 10; do\n"
                 "    kill -0 $pid 2>/dev/null && sleep 0.2\n"
                 "  done\n"
                 "  kill -9 $pid 2>/dev/null;;\n"
                 "esac\n"
                 "rm -f " PID "\n"
                 "fi; true",
                 d->dir, d->dir);
    return fv_shell_done(t, err);
}

/* *ended, which may be NULL: there was one. Cannot be cancelled. */
static fv_status job_end(const fv_device *d, bool *ended, fv_error *err)
{
    const fv_adb adb = { .program = d->adb.program, .serial = d->adb.serial };
    fv_shell_text text = { 0 };
    char *answer = NULL;

    fv_status status = job_end_text(&text, d, err);
    if (status == FV_OK)
        status = fv_adb_ask(&adb, text.text, "an earlier run cannot be ended", &answer, err);
    if (ended)
        *ended = status == FV_OK && strncmp(answer, "ended", 5) == 0;
    fv_free(answer);
    fv_shell_text_free(&text);
    return status;
}

fv_status fv_device_job_end(fv_device *d, fv_error *err)
{
    bool ended;
    FV_TRY(job_end(d, &ended, err));
    if (ended)
        fv_log(d->adb.callbacks, FV_LOG_WARNING,
               "%s: a run that an earlier command had left on the phone was ended", d->adb.serial);
    return FV_OK;
}

fv_status fv_device_job_run(fv_device *d, const fv_device_job *job, int *exit_code, fv_error *err)
{
    fv_shell_text text = { 0 };
    fv_spawn_result result;

    fv_shell_add(&text,
                 "cd %s && {\n%s </dev/null &\n"
                 "pid=$!\n"
                 "trap \"kill $pid\" HUP INT TERM\n"
                 "echo $pid >%s/" PID "\n"
                 "wait $pid\n"
                 "fv_end=$?\n"
                 "kill -0 $pid 2>/dev/null || rm -f %s/" PID "\n"
                 "(exit $fv_end)\n"
                 "}",
                 d->dir, job->command, d->dir, d->dir);
    fv_status status = fv_shell_done(&text, err);
    const fv_adb_call call = { .command = text.text,
                               .timeout_ms = job->timeout_ms,
                               .line = job->line,
                               .raw = job->raw,
                               .stop = job->stop,
                               .user = job->user };
    fv_adb adb = d->adb;
    adb.stage = job->stage;
    *exit_code = -1;
    if (status == FV_OK) {
        status = fv_adb_shell(&adb, &call, &result, err);
        *exit_code = result.exit_code;
        fv_spawn_result_free(&result);
        if (status != FV_OK)
            job_end(d, NULL, NULL);
    }
    fv_shell_text_free(&text);
    return status;
}
