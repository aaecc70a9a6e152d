/* Names beside a place. See outpart.h. */
#include "base/outpart.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/report.h"

fv_status fv_out_errno(fv_error *err, const char *path, const char *verb)
{
    if (errno == ENOSPC || errno == EDQUOT)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot %s: %s; make room or choose another place",
                       path, verb, strerror(errno));
    return fv_fail(err, FV_ERR_IO, 0, "%s: cannot %s: %s", path, verb, strerror(errno));
}

char *fv_out_path(const char *path, const char *text)
{
    size_t n = strlen(path), n_text = strlen(text);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *joined = fv_alloc(n + n_text + 1, 1);
    if (joined) {
        memcpy(joined, path, n);
        memcpy(joined + n, text, n_text + 1);
    }
    return joined;
}

bool fv_out_split(const char *path, char **folder, char **name)
{
    char *whole = fv_out_path(path, ""), *slash = whole ? strrchr(whole, '/') : NULL;
    *name = whole ? fv_strdup(slash ? slash + 1 : whole) : NULL;
    if (slash)
        slash[slash == whole] = 0;
    *folder = slash ? whole : fv_strdup(".");
    if (!slash)
        fv_free(whole);
    return *folder && *name;
}

void fv_out_sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

void fv_out_sync_parent(const char *path)
{
    char *folder, *name;
    if (fv_out_split(path, &folder, &name))
        fv_out_sync_folder(folder);
    fv_free(folder);
    fv_free(name);
}

fv_status fv_out_make_folder(const char *path, fv_error *err)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && fv_is_dir(path)))
        return FV_OK;
    return fv_out_errno(err, path, "create the directory");
}

fv_status fv_out_make_parents(char *path, size_t *n_made, fv_error *err)
{
    fv_status status = FV_OK;
    size_t there = 0;
    *n_made = 0;
    for (char *slash = strchr(path + 1, '/'); slash && status == FV_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (!fv_is_dir(path)) {
            status = fv_out_make_folder(path, err);
            if (status == FV_OK && !*n_made)
                *n_made = there + 1;
        }
        there = (size_t)(slash - path);
        *slash = '/';
    }
    return status;
}

void fv_out_remove_parents(char *path, size_t n_made)
{
    for (char *slash; n_made && (slash = strrchr(path, '/')) && (size_t)(slash - path) >= n_made;) {
        *slash = 0;
        if (rmdir(path) != 0 && errno != ENOENT)
            return;
    }
}

long fv_out_pid(const char *name, const char *before, const char *after)
{
    char *end;
    size_t n = strlen(before);
    if (strncmp(name, before, n) || name[n] < '1' || name[n] > '9')
        return 0;
    errno = 0;
    long pid = strtol(name + n, &end, 10);
    return errno || strcmp(end, after) || pid > INT32_MAX ? 0 : pid;
}

bool fv_out_is_gone(long pid) { return kill((pid_t)pid, 0) != 0 && errno == ESRCH; }

void fv_out_warn(const fv_callbacks *callbacks, const char *folder, const char *name,
                 const char *what)
{
    size_t n = strlen(folder);
    bool here = !strcmp(folder, ".");
    fv_log(callbacks, FV_LOG_WARNING, "%s%s%s: %s", here ? "" : folder,
           here || folder[n - 1] == '/' ? "" : "/", name, what);
}
