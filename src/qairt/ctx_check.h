/* ctx_check: what a context binary is, from its ctx_info, against what was wanted of it. */
#ifndef FV_CTX_CHECK_H
#define FV_CTX_CHECK_H

#include "fastvlm_npu.h"
#include "qairt/qairt_tool.h"

/* A ctx_info file, of qnn-context-binary-utility or of ours. */
fv_status fv_ctx_info_open(fv_npu_binary **out, const char *path, fv_error *err);

/* Runs qnn-context-binary-utility on binary, an absolute path; its JSON in a block to fv_free. In a
 * dry run *json is NULL. */
fv_status fv_ctx_info_make(char **json, size_t *n_bytes, const fv_sdk *sdk, const char *binary,
                           const fv_qairt_options *options, fv_error *err);

#endif
