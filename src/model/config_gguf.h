/* config_gguf: an fv_config as metadata of a packed model, and back. The keys: docs/format.md. */
#ifndef FV_CONFIG_GGUF_H
#define FV_CONFIG_GGUF_H

#include "io/gguf.h"
#include "model/config.h"

#define FV_ARCHITECTURE "fastvlm"
/* 2: with settings for images that version 1 does not have; written only where there are any. */
enum { FV_FORMAT_VERSION = 1, FV_FORMAT_VERSION_2 = 2 };

/* Refuses files of another architecture by name. Checks every value and how they go together, so
 * that products of them cannot overflow later. */
fv_status fv_config_read_gguf(fv_config *out, const fv_gguf *g, fv_error *err);
void fv_config_write_gguf(const fv_config *c, fv_gguf_writer *w);

#endif
