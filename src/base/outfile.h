/* outfile: files and folders that appear complete or not at all.
 *
 * A file is written without a name, or beside its place as PATH.part-PID where the system has no
 * files without one; it is flushed to the disk and then takes its place in one step. A folder is
 * filled beside its place as PATH.part-PID, which carries a mark; into a folder that exists its
 * entries are moved at the end, all of them or none.
 *
 * A process that is killed leaves at most a PATH.part-PID. The next one that writes to the same
 * place removes it once the lock on the mark, or on the file itself, is free. Had entries begun to
 * move, it takes them back first, and what they replaced is there again. */
#ifndef FV_OUTFILE_H
#define FV_OUTFILE_H

#include "base/base.h"

typedef struct fv_outfile {
    char *place, *part; /* where it goes; the name beside it */
    int fd;             /* valid while part is not NULL */
    bool named;         /* part exists */
    unsigned mode;      /* of the file that it replaces; 0: none */
    uint8_t *buffer;
    size_t used;
    uint64_t n_bytes; /* written so far */
} fv_outfile;

/* path must not exist, or be a regular file; its folder must exist. The file that is replaced gives
 * its mode; a link is followed, so that it still points at the new file. On failure *f is zero. */
fv_status fv_outfile_open(fv_outfile *f, const char *path, fv_error *err);
fv_status fv_outfile_write(fv_outfile *f, const void *data, size_t n_bytes, fv_error *err);
/* Bytes again that have been written before, as a header that is known last. */
fv_status fv_outfile_rewrite(fv_outfile *f, uint64_t at, const void *data, size_t n_bytes,
                             fv_error *err);
fv_status fv_outfile_commit(fv_outfile *f, fv_error *err); /* releases f, also on failure */
void fv_outfile_abandon(fv_outfile *f); /* does nothing after a commit or on zero */

/* Could a file be written to path? Nothing is left there: for what is computed long before. */
fv_status fv_outfile_check(const char *path, fv_error *err);

/* A whole small file at once. */
fv_status fv_outfile_put(const char *path, const void *data, size_t n_bytes, fv_error *err);

/* Removes every PATH.part-PID that a killed process has left, with a warning, and warns of every
 * PATH.PID.part, as older versions named them. callbacks may be NULL. */
void fv_outfile_leftovers(const char *path, const fv_callbacks *callbacks);

typedef struct fv_outdir {
    char *place;
    char *stage;      /* the folder to fill; NULL when there is nothing to release */
    bool merge;       /* place exists: entries are moved into it */
    bool force;       /* and may hold files */
    bool unsynced;    /* holds files of fv_outdir_put */
    int lock;         /* on the mark in it; once it is free, the folder may be removed */
    size_t n_parents; /* of fv_out_make_parents: folders on the way that were made */
} fv_outdir;

/* path must not exist, or be an empty folder; with force a folder that holds files will do, whose
 * files of the same names are replaced at the end. Missing parents are made, and removed again when
 * nothing comes of it. Folders that killed processes left on the way to the same place are removed,
 * with a warning; callbacks may be NULL. */
fv_status fv_outdir_open(fv_outdir *d, const char *path, bool force, const fv_callbacks *callbacks,
                         fv_error *err);
/* makes stage/name */
fv_status fv_outdir_sub(const fv_outdir *d, const char *name, fv_error *err);
/* stage/name, a whole small file, in a folder that is there: like fv_outfile_put but for the disk,
 * which all files of the stage reach at once, before the first takes its place. For many. */
fv_status fv_outdir_put(fv_outdir *d, const char *name, const void *data, size_t n_bytes,
                        fv_error *err);
/* All entries take their places, or, after a failure, none has; there for good when it returns.
 * Releases d. */
fv_status fv_outdir_commit(fv_outdir *d, fv_error *err);
void fv_outdir_abandon(fv_outdir *d);

/* Removes a folder and what is in it; links are removed, not followed. False: it is still there. */
bool fv_folder_remove(const char *path);

#endif
