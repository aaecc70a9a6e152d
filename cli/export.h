/* export: the artefacts of `fastvlm export`, one function each; argv[0] is "export NAME". */
#ifndef FV_CLI_EXPORT_H
#define FV_CLI_EXPORT_H

#include "cli.h"
#include "fastvlm_tools.h"

int export_onnx(int argc, char **argv);
int export_calib(int argc, char **argv);
int export_lut(int argc, char **argv);
int export_tokenizer(int argc, char **argv);
int export_genie(int argc, char **argv);
int export_hf(int argc, char **argv);
int export_gguf(int argc, char **argv);
int export_all(int argc, char **argv);

/* What the artefacts' options share; model and out are what was given. */
typedef struct export_common {
    const char *out;
    bool force, quiet;
    progress_line progress;
    fv_callbacks callbacks;
} export_common;

/* clang-format off */
#define EXPORT_FILE(e)                                                                            \
    { 'o', "output", OPTION_TEXT, &(e).out, "FILE", "file to write", 0, 0 },                      \
    { 'q', "quiet", OPTION_FLAG, &(e).quiet, NULL,                                                \
      "no progress and no list of what was written", 0, 0 }
/* clang-format off */
#define EXPORT_DIR(e)                                                                             \
    { 'o', "output", OPTION_TEXT, &(e).out, "DIR",                                                \
      "directory to write; created if it does not exist", 0, 0 },                                 \
    { 0, "force", OPTION_FLAG, &(e).force, NULL,                                                  \
      "write into a directory that is not empty and replace files", 0, 0 },                       \
    { 'q', "quiet", OPTION_FLAG, &(e).quiet, NULL,                                                \
      "no progress and no list of what was written", 0, 0 }
/* clang-format on */

/* Checks that there is an output and, with model, exactly one bare argument; fills *options. -1, or
 * an exit code. */
int begin_export(const char *verb, export_common *e, const text_list *words, const char **model,
                 fv_export_options *options);
/* Ends the progress line; the exit code. */
int end_export(export_common *e, fv_status status, const fv_error *err);

#endif
