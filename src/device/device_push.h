/* device_push: files that are to be on the phone, of which those that have changed are sent.
 *
 * What is there is known from a manifest in the phone's directory: a line for each file that was
 * sent and verified there. It is believed while size and time of a file are as they were then;
 * otherwise the phone hashes the file.
 *
 *     SHA-256 in 64 digits  size  time of change in s  path       the last line of a path counts
 *
 * A file is sent as PATH.part, hashed there, renamed, and entered: an interrupted push continues
 * with the first file that is not entered. */
#ifndef FV_DEVICE_PUSH_H
#define FV_DEVICE_PUSH_H

#include "base/sha256.h"
#include "device/adb.h"

#define FV_DEVICE_MANIFEST "manifest"

typedef struct fv_push_file {
    char *local, *remote; /* a path here; under the phone's directory: "bin/fastvlm" */
    uint64_t n_bytes;
    char sha256[2 * FV_SHA256_BYTES + 1];
    bool program; /* may be executed */
    bool there;   /* the phone has the same bytes; from fv_push_look on */
} fv_push_file;

typedef struct fv_push_set {
    fv_push_file *list;
    size_t n, capacity;
} fv_push_set;

/* Hashes the file. remote: letters, digits and ._-/ only. */
fv_status fv_push_add(fv_push_set *set, const char *local, const char *remote, bool program,
                      const fv_callbacks *callbacks, fv_error *err);
void fv_push_set_free(fv_push_set *set);
/* A file's name for the phone, without what its paths may not hold; to fv_free. */
char *fv_push_name(const char *local);

/* Which files are there; with verify the phone hashes all of them. dir is the phone's directory. */
fv_status fv_push_look(fv_push_set *set, const fv_adb *adb, const char *dir, bool verify,
                       fv_error *err);
/* What the phone answers to that; for fv_push_look. unsure[i]: size is right, the rest unknown. */
fv_status fv_push_answer_parse(fv_push_set *set, bool *unsure, const char *text, size_t n_bytes,
                               fv_error *err);
uint64_t fv_push_bytes(const fv_push_set *set, size_t *n_files); /* of those that are not there */

/* Sends those that are not there. free_bytes: on the phone, 0: not known. Progress stage "push". */
fv_status fv_push_send(fv_push_set *set, const fv_adb *adb, const char *dir, uint64_t free_bytes,
                       fv_error *err);

#endif
