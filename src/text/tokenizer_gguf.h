/* tokenizer_gguf: a tokenizer as metadata of a packed model, and back, in the keys that GGUF has for
 * byte-level BPE: tokenizer.ggml.tokens, .token_type and .merges. */
#ifndef FV_TOKENIZER_GGUF_H
#define FV_TOKENIZER_GGUF_H

#include "io/gguf.h"
#include "text/tokenizer.h"

fv_status fv_tokenizer_read_gguf(fv_tokenizer **out, const fv_gguf *g, fv_error *err);
fv_status fv_tokenizer_write_gguf(const fv_tokenizer *t, fv_gguf_writer *w, fv_error *err);

#endif
