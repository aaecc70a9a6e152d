/* qairt: what the verbs share that drive tools of Qualcomm's SDK. */
#ifndef FV_CLI_QAIRT_H
#define FV_CLI_QAIRT_H

#include "cli.h"
#include "fastvlm_qairt.h"

typedef struct qairt_common {
    fv_qairt_options options;
    bool quiet;
    int timeout_s;
    progress_line line;
    fv_callbacks callbacks;
} qairt_common;

/* clang-format off */
#define QAIRT_OPTIONS(c)                                                                          \
    { 0, "sdk", OPTION_TEXT, &(c).options.sdk, "DIR",                                             \
      "directory of the QAIRT SDK (default: $QNN_SDK_ROOT, $QAIRT_SDK_ROOT, then the newest "     \
      "directory here that is named by a version)", 0, 0 },                                       \
    { 0, "venv", OPTION_TEXT, &(c).options.venv, "DIR",                                           \
      "Python environment of the SDK's converters (default: $VIRTUAL_ENV, then qnn_env in the "   \
      "SDK)", 0, 0 },                                                                             \
    { 0, "timeout", OPTION_INT, &(c).timeout_s, "S",                                              \
      "end a tool that takes longer than S seconds (default: six hours)", 1, 1e6 },               \
    { 0, "dry-run", OPTION_FLAG, &(c).options.dry_run, NULL,                                      \
      "show the commands, run nothing", 0, 0 },                                                   \
    { 'q', "quiet", OPTION_FLAG, &(c).quiet, NULL, "do not show what the tools say", 0, 0 }
/* The same where there is nothing to show without running it. */
#define QAIRT_RUN_OPTIONS(c)                                                                      \
    { 0, "sdk", OPTION_TEXT, &(c).options.sdk, "DIR",                                             \
      "directory of the QAIRT SDK (default: $QNN_SDK_ROOT, $QAIRT_SDK_ROOT, then the newest "     \
      "directory here that is named by a version)", 0, 0 },                                       \
    { 0, "timeout", OPTION_INT, &(c).timeout_s, "S",                                              \
      "end a tool that takes longer than S seconds (default: six hours)", 1, 1e6 },               \
    { 'v', "verbose", OPTION_FLAG, &(c).quiet, NULL, "show the commands and what they say", 0, 0 }
/* clang-format on */

/* After the options are parsed: callbacks, Ctrl-C. */
void qairt_begin(qairt_common *c, bool show_tools);
/* fv_qairt_text_fn: to standard output. */
fv_status qairt_write_text(void *user, const char *text, size_t n_bytes);

void qairt_print_profile(const fv_qairt_profile *p);

int qairt_check(int argc, char **argv);
int qairt_convert(int argc, char **argv);
int qairt_quantize(int argc, char **argv);
int qairt_lib(int argc, char **argv);
int qairt_context(int argc, char **argv);
int qairt_info(int argc, char **argv);
int qairt_run(int argc, char **argv);

#endif
