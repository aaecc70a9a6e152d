/* outpart: names beside a place, PATH.part-PID, and the folders on the way to it. */
#ifndef FV_OUTPART_H
#define FV_OUTPART_H

#include "base/base.h"

#define FV_OUT_PART ".part-"

/* errno as an error; a full disk says what to do. */
fv_status fv_out_errno(fv_error *err, const char *path, const char *verb);

/* path without slashes at its end, then text; NULL when memory is out. */
char *fv_out_path(const char *path, const char *text);
/* path as its folder and the name in it; false when memory is out. Both to fv_free. */
bool fv_out_split(const char *path, char **folder, char **name);

/* What was renamed in the folder, or to the path, survives a power cut from here on. Where a folder
 * cannot be synced, that is no error. */
void fv_out_sync_folder(const char *folder);
void fv_out_sync_parent(const char *path);

fv_status fv_out_make_folder(const char *path, fv_error *err); /* which may be there already */
/* Every missing folder in front of the last name of path, which is as before afterwards. *n_made:
 * for the removal of those that were made, as long as they are empty, which cuts path. */
fv_status fv_out_make_parents(char *path, size_t *n_made, fv_error *err);
void fv_out_remove_parents(char *path, size_t n_made);

/* The process in "<before>PID<after>"; 0: name is not of that form. */
long fv_out_pid(const char *name, const char *before, const char *after);
/* Is there no process of this number that this one can see? */
bool fv_out_is_gone(long pid);

void fv_out_warn(const fv_callbacks *callbacks, const char *folder, const char *name,
                 const char *what);

#endif
