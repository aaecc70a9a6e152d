/* part: one file on its way.
 *
 *     NAME.part    the bytes at their places | 4,096 bytes that say what they are
 *
 * The record behind the data names the hash and the size that the bytes belong to and the ranges
 * that are there, and ends with its own SHA-256. It is written again every second or so; a record
 * that is torn or of another file counts as absent. Bytes that a power cut kept from the disk are
 * found by the hash in the end. */
#ifndef FV_PART_H
#define FV_PART_H

#include "base/base.h"
#include "pull/sha1.h"
#include "base/sha256.h"
#include "pull/hub.h"

enum { FV_PART_RANGES = 64, FV_PART_RECORD = 4096 };

typedef struct fv_range {
    uint64_t begin, end;
} fv_range;

typedef struct fv_part {
    const fv_hub_file *file;
    char *path, *final;            /* DIR/NAME.part, DIR/NAME */
    int fd;                        /* -1: not open */
    fv_range have[FV_PART_RANGES]; /* ascending, apart */
    size_t n_have;
    bool resumed;      /* some of it is an earlier run's */
    bool dirty;        /* the record is behind */
    uint64_t n_hashed; /* of the beginning */
    fv_sha256 sha256;
    fv_sha1 sha1;
} fv_part;

/* No file is touched before fv_part_open; fv_part_look reads the record of an earlier run into
 * have[]. */
fv_status fv_part_init(fv_part *part, const char *dir, const fv_hub_file *file, fv_error *err);
void fv_part_look(fv_part *part);
void fv_part_close(fv_part *part); /* writes the record, closes, frees the names */

fv_status fv_part_open(fv_part *part, fv_error *err); /* reserves the disk space too */
fv_status fv_part_write(fv_part *part, uint64_t at, const void *data, size_t n_bytes,
                        fv_error *err);
fv_status fv_part_save(fv_part *part, fv_error *err);
void fv_part_restart(fv_part *part); /* forgets every byte */
uint64_t fv_part_have(const fv_part *part);
uint64_t fv_part_disk(const fv_part *part); /* bytes the file takes on the disk already */

/* The first bytes at or after `from` that are not there: false when all are. */
bool fv_part_gap(const fv_part *part, uint64_t from, fv_range *out);

/* Hashes up to max_bytes more of the beginning; *done when the whole file is hashed. fd: -1 for the
 * part, else a finished file. */
fv_status fv_part_hash(fv_part *part, int fd, uint64_t max_bytes, bool *done, fv_error *err);
void fv_part_hash_begin(fv_part *part);
/* The digest of what was hashed, as the hub writes it. Ends the hash. */
void fv_part_digest(fv_part *part, char hex[65]);

/* Cuts the record off, makes the bytes last, gives the file its name. */
fv_status fv_part_finish(fv_part *part, fv_error *err);
void fv_part_remove(fv_part *part);

#endif
