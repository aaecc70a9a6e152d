/* tar_write: a tar file as WebDataset reads it.
 *
 *     fv_tar_write_member(&file, "0001.txt", text, n, err);  ...  fv_tar_write_end(&file, err);
 *
 * Blocks of 512 bytes: a POSIX ustar header, the bytes, zeros; a pax header in front where a name
 * or a size does not fit, or a name is not ASCII. There is no time, owner or group in it: the same
 * members are the same bytes on every machine, which no library's version promises. */
#ifndef FV_TAR_WRITE_H
#define FV_TAR_WRITE_H

#include "base/outfile.h"

fv_status fv_tar_write_member(fv_outfile *f, const char *name, const void *data, size_t n_bytes,
                              fv_error *err);
/* The two empty blocks that end a tar file. */
fv_status fv_tar_write_end(fv_outfile *f, fv_error *err);

#endif
