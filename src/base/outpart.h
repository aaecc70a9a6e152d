/* outpart: the names beside a place, PATH.part-PID, shared by outfile.c and outdir.c. */
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

/* The process in "<before>PID<after>"; 0: name is not of that form. */
long fv_out_pid(const char *name, const char *before, const char *after);
/* Is there no process of this number that this one can see? */
bool fv_out_is_gone(long pid);

void fv_out_warn(const fv_callbacks *callbacks, const char *folder, const char *name,
                 const char *what);

#endif
