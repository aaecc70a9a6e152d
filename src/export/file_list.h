/* file_list: the files of a folder in the order of their names, and those of a model with their
 * hashes. */
#ifndef FV_FILE_LIST_H
#define FV_FILE_LIST_H

#include "base/file_hash.h"
#include "io/json_write.h"

typedef struct fv_file_list {
    char **name; /* behind the folder */
    size_t n, capacity;
} fv_file_list;

/* The folder's files whose names begin with no dot; deep: those of the folders in it, too. Call
 * fv_file_list_free also after a failure. */
fv_status fv_file_list_collect(fv_file_list *out, const char *folder, bool deep, fv_error *err);
void fv_file_list_free(fv_file_list *list);

/* A model's files: the folder's, or the one file. */
typedef struct fv_source {
    const char *path;          /* the model's; borrowed */
    char sha256[FV_HASH_TEXT]; /* over the lines "HASH  NAME" that sha256sum prints of them */
    fv_file_list files;
    struct fv_source_hash {
        uint64_t n_bytes;
        char sha256[FV_HASH_TEXT];
    } * hash; /* [files.n] */
} fv_source;

fv_status fv_source_read(fv_source *out, const char *model, const char *stage,
                         const fv_callbacks *callbacks, fv_error *err);
void fv_source_free(fv_source *source);
/* The member "source". */
void fv_source_put(fv_json_text *j, const fv_source *source);

#endif
