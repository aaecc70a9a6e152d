/* device_program: can this ELF program run on that phone? */
#ifndef FV_DEVICE_PROGRAM_H
#define FV_DEVICE_PROGRAM_H

#include "device/device_facts.h"

/* Its machine, how it is linked and how its segments are aligned, against what the phone says of
 * itself. FV_ERR_FORMAT: not a program; FV_ERR_UNSUPPORTED: not one for this phone. name is the
 * file's, for messages. */
fv_status fv_device_program_check(const uint8_t *data, size_t n_bytes, const char *name,
                                  const fv_device_facts *facts, fv_error *err);

#endif
