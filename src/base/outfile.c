/* Files that appear complete or not at all. See outfile.h. */
#include "base/outfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/outpart.h"

/* Also what a write starts at a multiple of: what is written in whole huge pages, Linux keeps in
 * such pages, and a map of the file then reads them through one entry of the page table instead of
 * 512. */
enum { BUFFER_BYTES = 2 << 20 };

/* ---- opening ----------------------------------------------------------------------------- */

/* Where path leads: itself, or what a link points at. */
static fv_status outfile_place(fv_outfile *f, const char *path, fv_error *err)
{
    struct stat st;
    char *target = NULL;
    bool is_link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return fv_fail(err, FV_ERR_IO, 0,
                           "%s: is a directory; expected the name of a file to write", path);
        if (!S_ISREG(st.st_mode)) /* would be replaced by a file */
            return fv_fail(err, FV_ERR_IO, 0,
                           "%s: is a device or a pipe; expected the name of a file to write", path);
        f->mode = st.st_mode & 07777;
    } else if (is_link) {
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: is a link to something that does not exist; expected the name of a "
                       "file to write",
                       path);
    }
    if (is_link && !(target = realpath(path, NULL))) /* from malloc, not from fv_alloc */
        return fv_out_errno(err, path, "follow the link");
    f->place = fv_strdup(target ? target : path);
    free(target);
    return f->place ? FV_OK : fv_fail_memory(err, strlen(path) + 1, "a path");
}

/* A file without a name in the folder of place; -1 where the system has none. */
static int outfile_open_nameless(const fv_outfile *f)
{
    int fd = -1;
#ifdef O_TMPFILE
    char *folder, *name;
    if (fv_out_split(f->place, &folder, &name) && access("/proc/self/fd", X_OK) == 0)
        fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    fv_free(folder);
    fv_free(name);
#endif
    return fd;
}

static fv_status outfile_open_part(fv_outfile *f, fv_error *err)
{
    f->fd = outfile_open_nameless(f);
    if (f->fd < 0) {
        f->fd = open(f->part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        f->named = f->fd >= 0;
    }
    if (f->fd < 0)
        return fv_out_errno(err, f->place, "create");
    flock(f->fd, LOCK_EX | LOCK_NB); /* for fv_outfile_leftovers */
    if (f->mode && fchmod(f->fd, f->mode) != 0)
        return fv_out_errno(err, f->place, "set the mode of the file that it replaces");
    return FV_OK;
}

static void outfile_release(fv_outfile *f)
{
    fv_free(f->place);
    fv_free(f->part);
    fv_free(f->buffer);
    *f = (fv_outfile){ .fd = -1 };
}

fv_status fv_outfile_open(fv_outfile *f, const char *path, fv_error *err)
{
    char suffix[32];
    fv_status status = FV_OK;
    *f = (fv_outfile){ .fd = -1 };
    FV_TRY(outfile_place(f, path, err));
    snprintf(suffix, sizeof suffix, FV_OUT_PART "%ld", (long)getpid());
    f->part = fv_out_path(f->place, suffix);
    f->buffer = fv_alloc(BUFFER_BYTES, 1);
    if (!f->part || !f->buffer)
        status = fv_fail_memory(err, BUFFER_BYTES, "a file to write");
    else
        status = outfile_open_part(f, err);
    if (status != FV_OK) {
        if (f->part)
            fv_outfile_abandon(f);
        else
            outfile_release(f);
    }
    return status;
}

/* ---- writing ----------------------------------------------------------------------------- */

/* at: a place in the file, or -1 for its end. */
static fv_status outfile_write_through(fv_outfile *f, off_t at, const uint8_t *data, size_t n,
                                       fv_error *err)
{
    while (n > 0) {
        ssize_t done = at < 0 ? write(f->fd, data, FV_MIN(n, (size_t)1 << 30))
                              : pwrite(f->fd, data, FV_MIN(n, (size_t)1 << 30), at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done ? errno : ENOSPC;
            return fv_out_errno(err, f->place, "write");
        }
        data += done;
        n -= (size_t)done;
        at += at < 0 ? 0 : done;
    }
    return FV_OK;
}

static fv_status outfile_flush(fv_outfile *f, fv_error *err)
{
    size_t n = f->used;
    f->used = 0;
    return outfile_write_through(f, -1, f->buffer, n, err);
}

fv_status fv_outfile_write(fv_outfile *f, const void *data, size_t n_bytes, fv_error *err)
{
    const uint8_t *from = data;
    f->n_bytes += n_bytes;
    while (n_bytes > 0) {
        size_t n = n_bytes / BUFFER_BYTES * BUFFER_BYTES;
        if (f->used == 0 && n > 0) {
            FV_TRY(outfile_write_through(f, -1, from, n, err));
        } else {
            n = FV_MIN(n_bytes, BUFFER_BYTES - f->used);
            memcpy(f->buffer + f->used, from, n);
            f->used += n;
            if (f->used == BUFFER_BYTES)
                FV_TRY(outfile_flush(f, err));
        }
        from += n;
        n_bytes -= n;
    }
    return FV_OK;
}

fv_status fv_outfile_rewrite(fv_outfile *f, uint64_t at, const void *data, size_t n_bytes,
                             fv_error *err)
{
    if (at > f->n_bytes || n_bytes > f->n_bytes - at)
        return fv_fail(err, FV_ERR_STATE, 0, "%s: bytes that were never written cannot be replaced",
                       f->place);
    FV_TRY(outfile_flush(f, err));
    return outfile_write_through(f, (off_t)at, data, n_bytes, err);
}

/* ---- taking the place -------------------------------------------------------------------- */

/* Its bytes into a file that has the name beside the place, and that file in its stead. */
static fv_status outfile_copy_named(fv_outfile *f, fv_error *err)
{
    ssize_t n = 0;
    int nameless = f->fd;
    f->fd = open(f->part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    f->named = f->fd >= 0;
    fv_status status = f->named ? FV_OK : fv_out_errno(err, f->place, "create");
    if (f->named)
        flock(f->fd, LOCK_EX | LOCK_NB);
    for (off_t at = 0; status == FV_OK; at += n) {
        n = pread(nameless, f->buffer, BUFFER_BYTES, at);
        if (n <= 0)
            break;
        status = outfile_write_through(f, at, f->buffer, (size_t)n, err);
    }
    if (status == FV_OK && (n < 0 || (f->mode && fchmod(f->fd, f->mode) != 0) ||
                            (fsync(f->fd) != 0 && errno != EINVAL && errno != EROFS)))
        status = fv_out_errno(err, f->place, "write");
    close(nameless);
    return status;
}

/* The name beside the place, for a file without one. Android lets no process link files. */
static fv_status outfile_give_name(fv_outfile *f, fv_error *err)
{
    char self[64];
    if (f->named)
        return FV_OK;
    snprintf(self, sizeof self, "/proc/self/fd/%d", f->fd);
    unlink(f->part); /* of an earlier process with this number */
    if (linkat(AT_FDCWD, self, AT_FDCWD, f->part, AT_SYMLINK_FOLLOW) == 0)
        f->named = true;
    else if (errno == EACCES || errno == EPERM || errno == ENOENT || errno == ENOSYS)
        return outfile_copy_named(f, err);
    else
        return fv_out_errno(err, f->place, "create");
    return FV_OK;
}

static fv_status outfile_take_place(fv_outfile *f, fv_error *err)
{
    FV_TRY(outfile_flush(f, err));
    if (fsync(f->fd) != 0 && errno != EINVAL && errno != EROFS) /* pipes and the like cannot */
        return fv_out_errno(err, f->place, "write");
    FV_TRY(outfile_give_name(f, err));
    /* Open, and so locked, until it has its place: nobody takes it for a leftover. What close could
     * report, fsync has. */
    if (rename(f->part, f->place) != 0)
        return fv_out_errno(err, f->place, "rename the finished file to this name");
    f->named = false;
    fv_out_sync_parent(f->place);
    return FV_OK;
}

fv_status fv_outfile_commit(fv_outfile *f, fv_error *err)
{
    fv_status status = outfile_take_place(f, err);
    fv_outfile_abandon(f); /* removes nothing once it has its place */
    return status;
}

void fv_outfile_abandon(fv_outfile *f)
{
    if (!f->part)
        return;
    if (f->fd >= 0)
        close(f->fd);
    if (f->named)
        unlink(f->part);
    outfile_release(f);
}

fv_status fv_outfile_check(const char *path, fv_error *err)
{
    fv_outfile f;
    FV_TRY(fv_outfile_open(&f, path, err));
    fv_outfile_abandon(&f);
    return FV_OK;
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

/* A file of this user that no process has locked, opened and locked; -1: there is none. Locks are
 * seen across containers, where process numbers are not. */
static int leftover_take(int folder, const char *name)
{
    struct stat st;
    int fd = openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
                    flock(fd, LOCK_EX | LOCK_NB) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool leftover_is_file(int folder, const char *name)
{
    struct stat st;
    return fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

void fv_outfile_leftovers(const char *path, const fv_callbacks *callbacks)
{
    char *target = realpath(path, NULL), *folder = NULL, *name = NULL;
    DIR *dir = fv_out_split(target ? target : path, &folder, &name) ? opendir(folder) : NULL;
    size_t n = name ? strlen(name) : 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strncmp(e->d_name, name, n))
            continue;
        long pid = fv_out_pid(e->d_name + n, FV_OUT_PART, "");
        bool free_number = pid == (long)getpid() || (pid && fv_out_is_gone(pid));
        int fd = free_number ? leftover_take(dirfd(dir), e->d_name) : -1;
        if (fd >= 0) {
            bool gone = unlinkat(dirfd(dir), e->d_name, 0) == 0;
            fv_out_warn(callbacks, folder, e->d_name,
                        gone ? "left behind by a killed run; removed"
                             : "left behind by a killed run; it cannot be removed");
            close(fd);
        }
        pid = fv_out_pid(e->d_name + n, ".", ".part");
        if (pid && fv_out_is_gone(pid) && leftover_is_file(dirfd(dir), e->d_name))
            fv_out_warn(callbacks, folder, e->d_name,
                        "apparently left behind by an unfinished run; remove it");
    }
    if (dir)
        closedir(dir);
    fv_free(folder);
    fv_free(name);
    free(target);
}
