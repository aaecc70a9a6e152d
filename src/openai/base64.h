/* base64: RFC 4648, the alphabet with + and /. */
#ifndef FV_BASE64_H
#define FV_BASE64_H

#include "base/base.h"

/* The bytes that text means, in a block to fv_free; *n of them. Padding may be missing; anything
 * else that is not of the alphabet is FV_ERR_FORMAT with its offset in err->at. */
fv_status fv_base64_read(const char *text, size_t n_text, uint8_t **out, size_t *n, fv_error *err);
/* Room in `to` for (n + 2) / 3 * 4 characters and a NUL. */
void fv_base64_write(char *to, const uint8_t *bytes, size_t n);

#endif
