/* tensors_write: the header of a safetensors file; the data follows it in the order of the list. */
#ifndef FV_TENSORS_WRITE_H
#define FV_TENSORS_WRITE_H

#include "base/outfile.h"
#include "io/tensors.h"

/* Writes the header for n tensors, of which name, type, shape and n_bytes are used. It is padded so
 * that the data starts at a multiple of 64 bytes: tensors sorted by falling size of their type are
 * then aligned to it. */
fv_status fv_tensors_write_header(fv_outfile *f, const fv_tensor *list, size_t n, fv_error *err);

#endif
