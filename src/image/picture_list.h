/* picture_list: the pictures that a user's arguments mean, files and folders. */
#ifndef FV_PICTURE_LIST_H
#define FV_PICTURE_LIST_H

#include "base/base.h"

typedef struct fv_picture_list {
    char **path;
    size_t n, capacity;
} fv_picture_list;

/* Appends the files, and of folders the pictures by their names' endings, in the order of the names;
 * folders inside are not entered. A path that is neither, and a folder without pictures, is an error.
 * The list is released by the caller, also then. */
fv_status fv_picture_list_add(fv_picture_list *l, const char *const *paths, size_t n_paths, fv_error *err);
void      fv_picture_list_free(fv_picture_list *l);

#endif
