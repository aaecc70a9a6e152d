/* tokenizer_gguf: a tokenizer as metadata of a packed model, and back, in the keys that GGUF has
 * for byte-level BPE: tokenizer.ggml.tokens, .token_type and .merges. */
#ifndef FV_TOKENIZER_GGUF_H
#define FV_TOKENIZER_GGUF_H

#include "io/gguf.h"
#include "text/tokenizer.h"

/* Ready tables beside them make loading a look at each entry: tensors tokenizer.bytes, .offsets and
 * .merges, which are the arrays of tokenizer_tables.h. A file without them is read from the
 * keys. */
/* g must outlive *out */
fv_status fv_tokenizer_open_gguf(fv_tokenizer **out, const fv_gguf *g, fv_error *err);
/* From the keys alone. */
fv_status fv_tokenizer_read_gguf(fv_tokenizer **out, const fv_gguf *g, fv_error *err);
/* Do two tokenizers do the same? */
fv_status fv_tokenizer_same(const fv_tokenizer *a, const fv_tokenizer *b, bool *same,
                            fv_error *err);

/* The metadata; the tensors, to list and, when their turn comes, to write. */
fv_status fv_tokenizer_write_gguf(const fv_tokenizer *t, fv_gguf_writer *w, fv_error *err);
enum { FV_TOKENIZER_TENSORS = 3 };
void fv_tokenizer_list_tables(const fv_tokenizer *t, fv_gguf_writer *w);
fv_status fv_tokenizer_write_tables(const fv_tokenizer *t, fv_gguf_writer *w, fv_error *err);

#endif
