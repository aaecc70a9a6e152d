/* qairt_tool: the SDK, and running one of its tools on this machine.
 *
 *     fv_sdk sdk;
 *     fv_args args = { 0 };
 *     FV_TRY(fv_sdk_open(&sdk, options, err));
 *     fv_args_add(&args, "qnn-model-lib-generator"), fv_args_add(&args, "-c"), ...
 *     fv_args_expect(&args, path);                what it must have written
 *     status = fv_tool_run(&sdk, &args, stage, options, err);
 *
 * Success is exit code 0, no line with [ ERROR ], and every expected file there, not empty and
 * written since the start: these tools have been seen to fail with exit code 0. */
#ifndef FV_QAIRT_TOOL_H
#define FV_QAIRT_TOOL_H

#include "base/outfile.h"
#include "base/spawn.h"
#include "fastvlm_qairt.h"
#include "io/json_write.h"

#define FV_SDK_HOST  "x86_64-linux-clang" /* the converters run nowhere else */
#define FV_SDK_PHONE "aarch64-android"

enum { FV_SDK_VARIABLES = 8 };

typedef struct fv_sdk {
    char *dir; /* absolute */
    const char *named_by;
    char version[32];
    unsigned numbers[4];        /* of it */
    char *programs, *libraries; /* bin/ and lib/ of the host */
    char *python;               /* "/home/u/qnn_env/bin/python3", or "python3": on PATH */
    char *venv;                 /* NULL: none */
    char *variable[FV_SDK_VARIABLES];
    const char *environment[FV_SDK_VARIABLES + 1]; /* for fv_spawn_options */
} fv_sdk;

/* On failure *sdk is zero. */
fv_status fv_sdk_open(fv_sdk *sdk, const fv_qairt_options *options, fv_error *err);
void fv_sdk_close(fv_sdk *sdk);
/* "2.42.0.251225": three numbers or four; behind the last one may stand more. */
bool fv_sdk_version_parse(const char *text, unsigned numbers[4]);
/* Below, 0 or above 0: a is the older, they are of one release, b is. Builds of one release do not
 * differ here. */
int fv_sdk_release_compare(const unsigned a[4], const unsigned b[4]);

/* A list of words that grows. Zero-initialise; each word is copied. */
enum { FV_ARGS = 64 };
typedef struct fv_args {
    char *list[FV_ARGS + 1];
    size_t n;
    char *expected[FV_ARGS];
    size_t n_expected;
    bool failed; /* memory or room was out; fv_args_done says so */
} fv_args;

void fv_args_add(fv_args *args, const char *word);
void fv_args_add2(fv_args *args, const char *word, const char *next);
void fv_args_format(fv_args *args, const char *format, ...) FV_PRINTF(2, 3);
void fv_args_expect(fv_args *args, const char *path);
fv_status fv_args_done(const fv_args *args, fv_error *err);
void fv_args_free(fv_args *args);
/* As a shell would read it, in a block to fv_free; NULL: memory. environment may be NULL. */
char *fv_args_text(const char *const *argv, const char *const *environment);
/* The command to the log, "$ ...", and to `kept` if there is one; both may be NULL. */
fv_status fv_args_show(const char *const *argv, const char *const *environment,
                       const fv_callbacks *callbacks, fv_json_text *kept, fv_error *err);

/* args->list[0] is the tool's name, which becomes its path in the SDK; directory is where it works.
 * options->callbacks get the command and every line. */
fv_status fv_tool_run(const fv_sdk *sdk, fv_args *args, const char *directory,
                      const fv_qairt_options *options, fv_error *err);

/* Copies options in, by the rules of the border. */
fv_status fv_qairt_options_in(fv_qairt_options *to, fv_callbacks *callbacks,
                              const fv_qairt_options *from, fv_error *err);
/* Paths in lists and arguments of these tools cannot be quoted: FV_ERR_ARGUMENT when path holds a
 * space, a comma, a quote or a control character. */
fv_status fv_tool_path_check(const char *path, fv_error *err);
/* An absolute path, in a block to fv_free; its last part need not exist. */
fv_status fv_path_absolute(char **out, const char *path, fv_error *err);

/* input must be a file; in a dry run it need not be there, an earlier command may make it. It and
 * output must be in a form that the tools take. *absolute: the input's path, to fv_free; NULL on
 * failure. */
fv_status fv_tool_paths(char **absolute, const char *input, const char *output,
                        const fv_qairt_options *options, fv_error *err);
/* Is path to be looked into? In a dry run it may not be there yet. */
bool fv_tool_has(const char *path, const fv_qairt_options *options);

/* fv_outdir_open, and the path of its stage as the tools need it: absolute. In a dry run the stage
 * is the place itself, and nothing is made. */
fv_status fv_tool_stage_open(fv_outdir *out, char **stage, const char *dir, bool force,
                             const fv_qairt_options *options, fv_error *err);
/* Commits when status, of what was done in it, is FV_OK; abandons it otherwise. */
fv_status fv_tool_stage_close(fv_outdir *out, char *stage, fv_status status, fv_error *err);

/* A directory of its own in $TMPDIR or /tmp, whose path the tools take; to fv_scratch_remove, which
 * removes what is in it and releases it. NULL does nothing. */
fv_status fv_scratch_make(char **dir, fv_error *err);
void fv_scratch_remove(char *dir);

#endif
