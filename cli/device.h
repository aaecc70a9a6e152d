/* device: what the commands of fastvlm device share. */
#ifndef FV_CLI_DEVICE_H
#define FV_CLI_DEVICE_H

#include "cli.h"
#include "fastvlm_device.h"

int device_list(int argc, char **argv);
int device_info(int argc, char **argv);
int device_push(int argc, char **argv);
int device_run(int argc, char **argv);
int device_bench(int argc, char **argv);
int device_pull(int argc, char **argv);
int device_clean(int argc, char **argv);

/* Which phone, in an fv_device_options. */
/* clang-format off */
#define ADB_OPTION(p)                                                                             \
    { 0, "adb", OPTION_TEXT, &(p).adb, "FILE", "the adb client (default: adb on PATH)",   \
      0, 0 }
#define PHONE_OPTIONS(p)                                                                          \
    { 's', "serial", OPTION_TEXT, &(p).serial, "SERIAL",                                  \
      "which phone (default: $ANDROID_SERIAL, else the only one)", 0, 0 },                        \
    { 0, "dir", OPTION_TEXT, &(p).dir, "PATH",                                            \
      "directory on the phone (default /data/local/tmp/fastvlm)", 0, 0 },                         \
    ADB_OPTION(p)
/* clang-format on */

/* -1 and a phone, or an exit code after saying what is wrong. */
int open_device(fv_device **out, fv_device_options *p, const fv_callbacks *callbacks);
/* What the build for Arm left beside this program; to free, NULL: nothing. */
char *arm_program_find(void);
json_t *device_json(const fv_device *device);

#endif
