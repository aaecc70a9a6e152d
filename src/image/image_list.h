/* image_list: the files that a list of paths names. */
#ifndef FV_IMAGE_LIST_H
#define FV_IMAGE_LIST_H

#include "base/base.h"

typedef struct fv_image_list {
    char **path;
    size_t n, capacity;
} fv_image_list;

/* Files as they are, folders as the images in them by the order of their names (.jpg .jpeg .png
 * .webp .gif .bmp .tif .tiff .heic .heif .avif .ppm .pgm .pnm; folders inside are not entered). A
 * folder without images is an error. Call fv_image_list_free also after a failure. */
fv_status fv_image_list_collect(fv_image_list *out, const char *const *paths, size_t n_paths,
                                fv_error *err);
void fv_image_list_free(fv_image_list *list);
/* Does the last part of the path end as the images of a folder do? */
bool fv_image_name_is(const char *path);

#endif
