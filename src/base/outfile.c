/* Files and folders that appear complete or not at all. See outfile.h. */
#include "base/outfile.h"

#include "base/report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Also what a write starts at a multiple of: what is written in whole huge pages, Linux keeps in
 * such pages, and a map of the file then reads them through one entry of the page table instead of
 * 512. */
enum { BUFFER_BYTES = 2 << 20 };

static fv_status fail_errno(fv_error *err, const char *path, const char *verb)
{
    if (errno == ENOSPC || errno == EDQUOT)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot %s: %s; make room or choose another place",
                       path, verb, strerror(errno));
    return fv_fail(err, FV_ERR_IO, 0, "%s: cannot %s: %s", path, verb, strerror(errno));
}

/* path without slashes at its end, then text; NULL when memory is out. */
static char *path_with(const char *path, const char *text)
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

static fv_status sync_and_close(int fd, const char *path, fv_error *err)
{
    fv_status status = FV_OK;
    if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS) /* pipes and the like cannot */
        status = fail_errno(err, path, "write");
    if (close(fd) != 0 && status == FV_OK)
        status = fail_errno(err, path, "write");
    return status;
}

/* ---- a file ------------------------------------------------------------------------------ */

fv_status fv_outfile_open(fv_outfile *f, const char *path, fv_error *err)
{
    char suffix[32];
    struct stat st;
    fv_status status = FV_OK;
    *f = (fv_outfile){ .fd = -1 };
    if (fv_is_dir(path))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a folder; expected the name of a file to write",
                       path);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* would be replaced by a file */
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: is a device or a pipe; expected the name of a file to write", path);
    snprintf(suffix, sizeof suffix, ".part-%ld", (long)getpid());
    f->place = fv_strdup(path);
    f->part = path_with(path, suffix);
    f->buffer = fv_alloc(BUFFER_BYTES, 1);
    if (!f->place || !f->part || !f->buffer) {
        status = fv_fail_memory(err, BUFFER_BYTES, "a file to write");
        goto fail;
    }
    f->fd = open(f->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd >= 0)
        return FV_OK;
    status = fail_errno(err, path, "create");
fail:
    fv_free(f->place);
    fv_free(f->part);
    fv_free(f->buffer);
    *f = (fv_outfile){ .fd = -1 };
    return status;
}

static fv_status write_all(fv_outfile *f, const uint8_t *data, size_t n, fv_error *err)
{
    while (n > 0) {
        ssize_t done = write(f->fd, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return fail_errno(err, f->place, "write");
        data += done;
        n -= (size_t)done;
    }
    return FV_OK;
}

static fv_status flush(fv_outfile *f, fv_error *err)
{
    size_t n = f->used;
    f->used = 0;
    return write_all(f, f->buffer, n, err);
}

fv_status fv_outfile_write(fv_outfile *f, const void *data, size_t n_bytes, fv_error *err)
{
    const uint8_t *from = data;
    f->n_bytes += n_bytes;
    while (n_bytes > 0) {
        size_t n = n_bytes / BUFFER_BYTES * BUFFER_BYTES;
        if (f->used == 0 && n > 0) {
            FV_TRY(write_all(f, from, n, err));
        } else {
            n = FV_MIN(n_bytes, BUFFER_BYTES - f->used);
            memcpy(f->buffer + f->used, from, n);
            f->used += n;
            if (f->used == BUFFER_BYTES)
                FV_TRY(flush(f, err));
        }
        from += n;
        n_bytes -= n;
    }
    return FV_OK;
}

static void release(fv_outfile *f)
{
    fv_free(f->place);
    fv_free(f->part);
    fv_free(f->buffer);
    *f = (fv_outfile){ .fd = -1 };
}

fv_status fv_outfile_commit(fv_outfile *f, fv_error *err)
{
    fv_status status = flush(f, err);
    if (status == FV_OK) {
        status = sync_and_close(f->fd, f->place, err);
        f->fd = -1;
    }
    if (status == FV_OK && rename(f->part, f->place) != 0)
        status = fail_errno(err, f->place, "rename the finished file to this name");
    if (status != FV_OK)
        fv_outfile_abandon(f);
    else
        release(f);
    return status;
}

void fv_outfile_abandon(fv_outfile *f)
{
    if (!f->part)
        return;
    if (f->fd >= 0)
        close(f->fd);
    unlink(f->part);
    release(f);
}

fv_status fv_outfile_put(const char *path, const void *data, size_t n_bytes, fv_error *err)
{
    fv_outfile f;
    FV_TRY(fv_outfile_open(&f, path, err));
    fv_status status = fv_outfile_write(&f, data, n_bytes, err);
    if (status == FV_OK)
        return fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    return status;
}

/* ---- what killed processes left ---------------------------------------------------------- */

static void warn(const fv_callbacks *callbacks, const char *folder, const char *name,
                 const char *what)
{
    size_t n = strlen(folder);
    fv_log(callbacks, FV_LOG_WARNING, "%s%s%s: %s", strcmp(folder, ".") ? folder : "",
           strcmp(folder, ".") && folder[n - 1] != '/' ? "/" : "", name, what);
}

/* The process in "<before>PID<after>"; 0: name is not of that form. */
static long pid_in(const char *name, const char *before, size_t n_before, const char *after)
{
    char *end;
    if (strncmp(name, before, n_before) || name[n_before] < '1' || name[n_before] > '9')
        return 0;
    errno = 0;
    long pid = strtol(name + n_before, &end, 10);
    return errno || strcmp(end, after) || pid > INT32_MAX ? 0 : pid;
}

static bool is_gone(long pid) { return kill((pid_t)pid, 0) != 0 && errno == ESRCH; }

/* path as its folder and the name in it; false when memory is out. */
static bool split(const char *path, char **folder, char **name)
{
    char *whole = path_with(path, ""), *slash = whole ? strrchr(whole, '/') : NULL;
    *name = whole ? fv_strdup(slash ? slash + 1 : whole) : NULL;
    if (slash)
        slash[slash == whole] = 0;
    *folder = slash ? whole : fv_strdup(".");
    if (!slash)
        fv_free(whole);
    return *folder && *name;
}

void fv_outfile_leftovers(const char *path, const fv_callbacks *callbacks)
{
    char *folder = NULL, *name = NULL;
    DIR *dir = callbacks && callbacks->log && split(path, &folder, &name) ? opendir(folder) : NULL;
    size_t n = name ? strlen(name) : 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct stat st;
        if (strncmp(e->d_name, name, n))
            continue;
        long pid = pid_in(e->d_name + n, ".part-", 6, "");
        pid = pid ? pid : pid_in(e->d_name + n, ".", 1, ".part");
        if (pid && is_gone(pid) && fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode))
            warn(callbacks, folder, e->d_name,
                 "a run that did not end seems to have left this file; remove it");
    }
    if (dir)
        closedir(dir);
    fv_free(folder);
    fv_free(name);
}

/* ---- a folder ---------------------------------------------------------------------------- */

#define MARK ".fastvlm-part"

static fv_status make_dir(const char *path, fv_error *err)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && fv_is_dir(path)))
        return FV_OK;
    return fail_errno(err, path, "create the folder");
}

/* Every folder in front of the last name of path. */
static fv_status make_parents(char *path, fv_error *err)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        fv_status status = fv_is_dir(path) ? FV_OK : make_dir(path, err);
        *slash = '/';
        FV_TRY(status);
    }
    return FV_OK;
}

static bool is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

static bool is_empty_dir(const char *path)
{
    bool empty = true;
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    for (struct dirent *e; empty && (e = readdir(dir));)
        empty = is_dot(e->d_name);
    closedir(dir);
    return empty;
}

/* By file descriptors, so that it works when memory is out. Takes fd. */
static void empty_folder(int fd)
{
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (is_dot(e->d_name) || unlinkat(fd, e->d_name, 0) == 0)
            continue;
        empty_folder(openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        unlinkat(fd, e->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

/* A folder of ours, by its mark, whose lock nobody holds: also no process that this one cannot see,
 * as in another container. Gives the mark, locked, or -1. */
static int take_abandoned(int fd)
{
    struct stat st;
    int mark = openat(fd, MARK, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (mark >= 0 && (fstat(mark, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
                      flock(mark, LOCK_EX | LOCK_NB) != 0)) {
        close(mark);
        mark = -1;
    }
    return mark;
}

/* Removes the folders "<prefix>PID" in folder that killed processes have left. */
static void sweep(const char *folder, const char *prefix, const fv_callbacks *callbacks)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        long pid = pid_in(e->d_name, prefix, strlen(prefix), "");
        if (!pid || (pid != (long)getpid() && !is_gone(pid)))
            continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int mark = fd < 0 ? -1 : take_abandoned(fd);
        if (mark < 0) {
            if (fd >= 0)
                close(fd);
            continue;
        }
        empty_folder(fd);
        bool gone = unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) == 0;
        warn(callbacks, folder, e->d_name,
             gone ? "left by a run that was killed; removed"
                  : "left by a run that was killed; it cannot be removed");
        close(mark);
    }
    if (dir)
        closedir(dir);
}

static void sweep_for(const fv_outdir *d, const fv_callbacks *callbacks)
{
    char *folder = NULL, *name = NULL, *prefix = NULL;
    if (split(d->place, &folder, &name) && (prefix = path_with(name, ".part-")))
        sweep(folder, prefix, callbacks);
    if (d->merge)
        sweep(d->place, ".part-", callbacks);
    fv_free(folder);
    fv_free(name);
    fv_free(prefix);
}

static fv_status make_stage(fv_outdir *d, fv_error *err)
{
    static const char text[] = "fastvlm fills this folder and gives it its name at the end.\n";
    if (mkdir(d->stage, 0777) != 0)
        return fail_errno(err, d->stage, "create the folder");
    char *mark = fv_path_join(d->stage, MARK);
    d->lock = mark ? open(mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    fv_status status = d->lock >= 0 ? FV_OK
                       : mark       ? fail_errno(err, mark, "create")
                                    : fv_fail_memory(err, strlen(d->stage), "a path");
    if (d->lock >= 0)
        flock(d->lock, LOCK_EX | LOCK_NB); /* where there are no locks, nothing is ever removed */
    if (d->lock >= 0 && write(d->lock, text, sizeof text - 1) != sizeof text - 1) {
        status = fail_errno(err, mark, "write");
        close(d->lock);
        unlink(mark);
    }
    if (status != FV_OK)
        rmdir(d->stage);
    fv_free(mark);
    return status;
}

fv_status fv_outdir_open(fv_outdir *d, const char *path, bool force, const fv_callbacks *callbacks,
                         fv_error *err)
{
    char suffix[32];
    struct stat st;
    fv_status status = FV_OK;
    *d = (fv_outdir){ 0 };
    if (!*path)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "the name of the folder to write is empty");
    if (lstat(path, &st) == 0 && !fv_is_dir(path))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a file; expected a folder to write into", path);
    d->merge = fv_is_dir(path);
    snprintf(suffix, sizeof suffix, "%s.part-%ld", d->merge ? "/" : "", (long)getpid());
    d->place = path_with(path, "");
    d->stage = path_with(path, suffix);
    if (!d->place || !d->stage) {
        status = fv_fail_memory(err, strlen(path), "a path");
        goto fail;
    }
    sweep_for(d, callbacks);
    if (d->merge && !force && !is_empty_dir(path)) {
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: the folder is not empty; choose another, or have files of the same "
                         "names replaced",
                         path);
        goto fail;
    }
    FV_TRY_GOTO(make_parents(d->stage, err));
    FV_TRY_GOTO(make_stage(d, err));
fail:
    if (status != FV_OK) {
        fv_free(d->place);
        fv_free(d->stage);
        *d = (fv_outdir){ 0 };
    }
    return status;
}

fv_status fv_outdir_sub(const fv_outdir *d, const char *name, fv_error *err)
{
    char *path = fv_path_join(d->stage, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_status status = make_dir(path, err);
    fv_free(path);
    return status;
}

/* Calls rename for every entry of from; folders that exist in to are entered. */
static fv_status move_entries(const char *from, const char *to, fv_error *err)
{
    fv_status status = FV_OK;
    DIR *dir = opendir(from);
    if (!dir)
        return fail_errno(err, from, "read the folder");
    for (struct dirent *e; status == FV_OK && (e = readdir(dir));) {
        if (is_dot(e->d_name))
            continue;
        char *a = fv_path_join(from, e->d_name), *b = fv_path_join(to, e->d_name);
        if (!a || !b)
            status = fv_fail_memory(err, strlen(e->d_name), "a path");
        else if (fv_is_dir(a) && fv_is_dir(b))
            status = move_entries(a, b, err);
        else if (rename(a, b) != 0)
            status = fail_errno(err, b, "rename the finished file to this name");
        fv_free(a);
        fv_free(b);
    }
    closedir(dir);
    return status;
}

static fv_status remove_mark(const fv_outdir *d, fv_error *err)
{
    char *mark = fv_path_join(d->stage, MARK);
    if (!mark)
        return fv_fail_memory(err, strlen(d->stage), "a path");
    fv_status status = unlink(mark) == 0 || errno == ENOENT ? FV_OK
                                                            : fail_errno(err, mark, "remove");
    fv_free(mark);
    return status;
}

fv_status fv_outdir_commit(fv_outdir *d, fv_error *err)
{
    fv_status status = remove_mark(d, err);
    if (status == FV_OK && d->merge)
        status = move_entries(d->stage, d->place, err);
    else if (status == FV_OK && rename(d->stage, d->place) != 0)
        status = fail_errno(err, d->place, "rename the finished folder to this name");
    if (status == FV_OK && !d->merge) {
        close(d->lock);
        fv_free(d->place);
        fv_free(d->stage);
        *d = (fv_outdir){ 0 };
    } else {
        fv_outdir_abandon(d);
    }
    return status;
}

void fv_outdir_abandon(fv_outdir *d)
{
    if (d->stage) {
        empty_folder(open(d->stage, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        rmdir(d->stage);
        close(d->lock);
    }
    fv_free(d->place);
    fv_free(d->stage);
    *d = (fv_outdir){ 0 };
}
