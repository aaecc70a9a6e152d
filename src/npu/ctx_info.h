/* ctx_info: the JSON description of a context binary, read. See qnn_system.h for its shape.
 *
 * The text comes from a child process that a damaged binary may have led astray, so it is read as
 * any other file. Graphs and tensors may stand in an "info" of their own, as Qualcomm's utility
 * writes them, or without it. */
#ifndef FV_CTX_INFO_H
#define FV_CTX_INFO_H

#include "base/base.h"
#include "fastvlm_npu.h"

/* json: n_bytes and a NUL, of a block of fv_alloc: taken over on success. name: the binary's, for
 * messages. */
fv_status fv_ctx_info_parse(fv_npu_binary **out, char *json, size_t n_bytes, const char *name,
                            fv_error *err);

#endif
