/* The files that a list of paths names. See image_list.h. */
#include "image/image_list.h"
#include "base/list.h"
#include "base/number.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 1 << 20 };

static fv_status add_path(fv_image_list *l, const char *path, fv_error *err)
{
    if (l->n == MAX_FILES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "more than %d images", MAX_FILES);
    FV_TRY(FV_LIST_ROOM(l->path, l->n, l->capacity, 1, err));
    if (!(l->path[l->n] = fv_strdup(path)))
        return fv_fail_memory(err, strlen(path), "a path");
    l->n++;
    return FV_OK;
}

void fv_image_list_free(fv_image_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        fv_free(l->path[i]);
    fv_free(l->path);
}

bool fv_image_name_is(const char *path)
{
    static const char *const endings[] = { ".jpg",  ".jpeg", ".png",  ".webp", ".gif",
                                           ".bmp",  ".tif",  ".tiff", ".heic", ".heif",
                                           ".avif", ".ppm",  ".pgm",  ".pnm" };
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < FV_COUNT(endings); i++)
        if (fv_ascii_same(dot, endings[i]))
            return *name != '.';
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The images of a folder in the order of their names; folders inside are not entered. */
static fv_status add_folder(fv_image_list *l, const char *folder, fv_error *err)
{
    size_t first = l->n;
    fv_status status = FV_OK;
    DIR *dir = opendir(folder);
    if (!dir)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot read the directory", folder);
    for (struct dirent *e; status == FV_OK && (e = readdir(dir));) {
        char *path = fv_image_name_is(e->d_name) ? fv_path_join(folder, e->d_name) : NULL;
        if (path && fv_is_file(path))
            status = add_path(l, path, err);
        fv_free(path);
    }
    closedir(dir);
    FV_TRY(status);
    if (l->n == first)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: the directory contains no images; expected .jpg, .png, .webp, .gif, "
                       ".bmp, .tif, .heic, .avif or .ppm files",
                       folder);
    qsort(l->path + first, l->n - first, sizeof *l->path, by_name);
    return FV_OK;
}

fv_status fv_image_list_collect(fv_image_list *l, const char *const *paths, size_t n_paths,
                                fv_error *err)
{
    *l = (fv_image_list){ 0 };
    for (size_t i = 0; i < n_paths; i++) {
        if (fv_is_dir(paths[i]))
            FV_TRY(add_folder(l, paths[i], err));
        else if (fv_is_file(paths[i]))
            FV_TRY(add_path(l, paths[i], err));
        else {
            FV_TRY(fv_path_check(paths[i], err));
            return fv_fail(err, FV_ERR_IO, 0, "%s: no such image or directory", paths[i]);
        }
    }
    return FV_OK;
}
