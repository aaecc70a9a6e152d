/* tar_read: samples of a WebDataset shard, a tar file, as rows.
 *
 *     0001.jpg  0001.txt  0001.json  0002.jpg ...
 *
 * Members that follow each other and have the same name up to the first dot behind the last slash,
 * the key, are a sample. Its first image is the row's, the key its id; "prompt" in its json is its
 * question; other members are passed over. libarchive reads the file, and is opened at run time. */
#ifndef FV_TAR_READ_H
#define FV_TAR_READ_H

#include "batch/row.h"

typedef struct fv_tar_reader fv_tar_reader;

enum { FV_TAR_MAX_MEMBER = 256 << 20 /* bytes of a member that is read */ };

/* FV_ERR_UNSUPPORTED where the build or this machine lacks libarchive. */
fv_status fv_tar_check(fv_error *err);
/* n_bytes: of the file, for shares. path is borrowed. On failure *out is NULL. */
fv_status fv_tar_open(fv_tar_reader **out, const char *path, uint64_t n_bytes, fv_error *err);
/* The next sample into a row that is zero but for its index; *more is false at the end. *share: of
 * the file, so far. A file that is damaged or cut off gives a row that says so, the last. Fails
 * only when memory is out. */
fv_status fv_tar_next(fv_tar_reader *tar, fv_row *row, const fv_row_defaults *defaults, bool *more,
                      double *share, fv_error *err);
void fv_tar_close(fv_tar_reader *tar);

#endif
