/* device_sdk: which files of Qualcomm's SDK a phone needs. */
#ifndef FV_DEVICE_SDK_H
#define FV_DEVICE_SDK_H

#include "device/device_push.h"

/* The libraries that load and run a context binary on a Hexagon of that version. sdk: an SDK, or
 * the directory that has them all. */
fv_status fv_device_sdk_libraries(fv_push_set *set, const char *sdk, unsigned htp_version,
                                  const char *dir, const fv_callbacks *callbacks, fv_error *err);

/* The same with qnn-net-run, genie-t2t-run and what they open besides. */
fv_status fv_device_sdk_programs(fv_push_set *set, const char *sdk, unsigned htp_version,
                                 const char *dir, const fv_callbacks *callbacks, fv_error *err);

#endif
