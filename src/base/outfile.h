/* outfile: files and folders that appear complete or not at all.
 *
 * A file is written beside its place (PATH.part-PID), flushed to the disk and renamed. A folder is
 * filled beside its place in the same way; into a folder that exists its entries are moved one by
 * one at the end. What was not committed leaves nothing behind, unless the process is killed: the
 * next one that writes to the same place removes such a folder and speaks of such a file. */
#ifndef FV_OUTFILE_H
#define FV_OUTFILE_H

#include "base/base.h"

typedef struct fv_outfile {
    char *place, *part; /* where it goes; where it is written */
    int fd;             /* valid while part is not NULL */
    uint8_t *buffer;
    size_t used;
    uint64_t n_bytes; /* written so far */
} fv_outfile;

/* path must not exist, or be a regular file; its folder must exist. On failure *f is zero. */
fv_status fv_outfile_open(fv_outfile *f, const char *path, fv_error *err);
fv_status fv_outfile_write(fv_outfile *f, const void *data, size_t n_bytes, fv_error *err);
fv_status fv_outfile_commit(fv_outfile *f, fv_error *err); /* releases f, also on failure */
void fv_outfile_abandon(fv_outfile *f); /* does nothing after a commit or on zero */

/* A whole small file at once. */
fv_status fv_outfile_put(const char *path, const void *data, size_t n_bytes, fv_error *err);

/* Warns of every PATH.part-PID, and PATH.PID.part as the GGUF writer names it, whose process is no
 * more. callbacks may be NULL. */
void fv_outfile_leftovers(const char *path, const fv_callbacks *callbacks);

typedef struct fv_outdir {
    char *place;
    char *stage; /* the folder to fill; NULL when there is nothing to release */
    bool merge;  /* place exists: entries are moved into it */
    int lock;    /* of the mark in it, which says that it may be removed once nobody holds it */
} fv_outdir;

/* path must not exist, or be an empty folder; with force a folder that holds files will do, whose
 * files of the same names are replaced at the end. Missing parents are made. Folders that killed
 * processes left on the way to the same place are removed, with a warning; callbacks may be NULL. */
fv_status fv_outdir_open(fv_outdir *d, const char *path, bool force, const fv_callbacks *callbacks,
                         fv_error *err);
/* makes stage/name */
fv_status fv_outdir_sub(const fv_outdir *d, const char *name, fv_error *err);
fv_status fv_outdir_commit(fv_outdir *d, fv_error *err);
void fv_outdir_abandon(fv_outdir *d);

#endif
