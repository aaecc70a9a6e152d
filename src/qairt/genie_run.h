/* genie_run: genie-t2t-run on a runner. */
#ifndef FV_GENIE_RUN_H
#define FV_GENIE_RUN_H

#include "io/json_write.h"
#include "qairt/genie_answer.h"
#include "qairt/qairt_tool.h"
#include "qairt/run_output.h"
#include "qairt/runner.h"

/* Paths are the runner's. */
typedef struct fv_genie_call {
    fv_runner *runner;
    const char *dialog;
    const char *prompt;             /* or */
    const char *embeddings, *table; /* rows in f32; LUT.bin */
    const char *profile;            /* must not be there yet; NULL: none */
    fv_qairt_text_fn *text;         /* NULL: none */
    void *text_user;
    const fv_qairt_options *options; /* callbacks, timeout_s */
    fv_json_text *log;               /* lines of what was run and said; may be NULL */
} fv_genie_call;

/* *answer: zero before, to fv_genie_answer_free in any case; *text, borrowed from it, its text.
 * FV_ERR_IO: it failed, and its last words. */
fv_status fv_genie_run(fv_genie_answer *answer, const char **text, size_t *n_bytes,
                       const fv_genie_call *call, fv_error *err);

/* One program of the SDK on a runner, its lines to the log. FV_ERR_IO: an exit code other than 0,
 * or a line with [ ERROR ]; the message quotes it. */
fv_status fv_runner_tool(fv_runner *runner, const fv_args *args, const fv_qairt_options *options,
                         fv_json_text *log, fv_error *err);

fv_qairt_profile fv_qairt_profile_of(const fv_run_profile *profile);

#endif
