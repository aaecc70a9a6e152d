/* Folders that appear complete or not at all. See outfile.h.
 *
 *     PATH.part-PID/                or PATH/.part-PID/ where PATH exists
 *         .fastvlm-part             the mark, locked while the process lives
 *         .fastvlm-moves            while entries move into PATH: which, and what they are
 *         .fastvlm-replaced/N       what entry N of that list takes the place of
 *
 * The mark is the first thing to come and the last to go, so that whenever the process is killed,
 * what it leaves is empty or bears the mark: the next one may remove it. Where it finds the list of
 * moves, it takes them back first: the list goes when all entries have moved. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#if defined(__linux__)
#include <sys/utsname.h>
#include <sys/vfs.h>
#endif
#include <unistd.h>

#include "base/list.h"
#include "base/outfile.h"
#include "base/outpart.h"

#define MARK     ".fastvlm-part"
#define MOVES    ".fastvlm-moves"
#define REPLACED ".fastvlm-replaced"

enum { MOVES_BYTES = 1 << 30 }; /* of a list that is read: of some million files */

static bool is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }
static bool is_own(const char *name)
{
    return !strcmp(name, MARK) || !strcmp(name, MOVES) || !strcmp(name, REPLACED);
}

/* ---- removing ---------------------------------------------------------------------------- */

/* Everything in the folder but its mark, by file descriptors, so that it works when memory is out.
 * Folders in it may have been filled in the same way and have marks: those go. Takes fd. */
static void outdir_empty(int fd, bool top)
{
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (is_dot(e->d_name) || (top && !strcmp(e->d_name, MARK)) ||
            unlinkat(fd, e->d_name, 0) == 0)
            continue;
        outdir_empty(openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), false);
        unlinkat(fd, e->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

/* The folder name in the folder at: its content, then its mark, then itself. */
static bool outdir_remove(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        outdir_empty(dup(fd), true);
        unlinkat(fd, MARK, 0);
        close(fd);
    }
    return unlinkat(at, name, AT_REMOVEDIR) == 0;
}

bool fv_folder_remove(const char *path) { return outdir_remove(AT_FDCWD, path); }

fv_status fv_outdir_sub(const fv_outdir *d, const char *name, fv_error *err)
{
    char *path = fv_path_join(d->stage, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_status status = fv_out_make_folder(path, err);
    fv_free(path);
    return status;
}

/* ---- many small files, to the disk at once ----------------------------------------------- */

static fv_status staged_write(int fd, const char *path, const uint8_t *data, size_t n,
                              fv_error *err)
{
    while (n > 0) {
        ssize_t done = write(fd, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done ? errno : ENOSPC;
            return fv_out_errno(err, path, "write");
        }
        data += done;
        n -= (size_t)done;
    }
    return FV_OK;
}

static fv_status staged_fail_twice(const fv_outdir *d, const char *name, fv_error *err)
{
    return fv_fail(err, FV_ERR_IO, 0,
                   "%s: %s is there already: another file has the same name, or one that differs "
                   "only in case, and this file system ignores case; rename what the files are "
                   "named after, or choose a place where case counts",
                   d->place, name);
}

fv_status fv_outdir_put(fv_outdir *d, const char *name, const void *data, size_t n_bytes,
                        fv_error *err)
{
    char *path = fv_path_join(d->stage, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    d->unsynced = true;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    fv_status status = fd >= 0           ? staged_write(fd, path, data, n_bytes, err)
                       : errno == EEXIST ? staged_fail_twice(d, name, err)
                                         : fv_out_errno(err, path, "create");
    if (fd >= 0 && close(fd) != 0 && errno != EINTR && status == FV_OK) /* of a network's disk */
        status = fv_out_errno(err, path, "write");
    fv_free(path);
    return status;
}

#if defined(__linux__)
/* Does syncfs write this file system to its disk and say what could not be written? Not before
 * Linux 5.8, and nothing is known of those that lie upon others: FUSE, overlayfs, networks. */
static bool folder_syncs_whole(int fd)
{
    static const uint32_t kinds[] = { 0xef53 /* ext4 */, 0x58465342 /* xfs */,
                                      0x9123683e /* btrfs */, 0xf2f52010 /* f2fs */,
                                      0x01021994 /* tmpfs */ };
    struct utsname system;
    struct statfs fs;
    int major = 0, minor = 0;
    if (uname(&system) != 0 || sscanf(system.release, "%d.%d", &major, &minor) != 2 || major < 5 ||
        (major == 5 && minor < 8) || fstatfs(fd, &fs) != 0)
        return false;
    for (size_t i = 0; i < FV_COUNT(kinds); i++)
        if ((uint32_t)fs.f_type == kinds[i])
            return true;
    return false;
}
#endif

/* The whole file system in one call, through a file that was open before anything was written: what
 * failed since then is an error, whoever has heard of it. False: not here, file by file. */
static bool folder_sync_all(int fd, bool *ok)
{
#if defined(__linux__)
    if (!folder_syncs_whole(fd))
        return false;
    *ok = syncfs(fd) == 0;
    return *ok || (errno != ENOSYS && errno != EINVAL);
#else
    (void)fd;
    (void)ok;
    return false;
#endif
}

/* File by file, and the folders that hold them. Takes fd. */
static bool folder_sync_each(int fd)
{
    struct stat st;
    bool ok = true;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    for (struct dirent *e; ok && (errno = 0, (e = readdir(dir)) != NULL);) {
        if (is_dot(e->d_name))
            continue;
        int entry = openat(fd, e->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        ok = entry >= 0 && fstat(entry, &st) == 0;
        if (ok && S_ISDIR(st.st_mode)) {
            ok = folder_sync_each(entry);
            continue;
        }
        ok = ok && (fsync(entry) == 0 || errno == EINVAL || errno == EROFS);
        if (entry >= 0)
            close(entry);
    }
    int why = errno; /* of the entry, or of readdir */
    ok = ok && why == 0;
    if (ok)
        fsync(fd);
    closedir(dir);
    errno = why;
    return ok;
}

/* Everything in the stage, before anything takes its place. */
static fv_status stage_sync(const fv_outdir *d, fv_error *err)
{
    bool ok = false;
    if (!folder_sync_all(d->lock, &ok))
        ok = folder_sync_each(open(d->stage, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return ok ? FV_OK : fv_out_errno(err, d->place, "write");
}

/* ---- entries into a folder that exists: all or none -------------------------------------- */

/* An entry on its way from the stage into the place. Folders are made there and their files move
 * one by one, so that a folder to which somebody has added something is never taken back. */
typedef struct move {
    char *from, *to;
    char *kept; /* where what was at `to` is kept */
    bool is_dir;
    uint64_t inode, n_bytes; /* of the file that moves: still that one? */
    int64_t changed_s, changed_ns;
} move;

typedef struct moves {
    move *list;
    size_t n, capacity;
} moves;

static void moves_free(moves *m)
{
    for (size_t i = 0; i < m->n; i++) {
        fv_free(m->list[i].from);
        fv_free(m->list[i].to);
        fv_free(m->list[i].kept);
    }
    fv_free(m->list);
}

/* What lstat said of a file, into x; false where there is none. */
static bool move_identify(move *x, const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return false;
    x->is_dir = S_ISDIR(st.st_mode);
    x->inode = (uint64_t)st.st_ino;
    x->n_bytes = (uint64_t)st.st_size;
#if defined(__APPLE__)
    x->changed_s = st.st_mtimespec.tv_sec;
    x->changed_ns = st.st_mtimespec.tv_nsec;
#else
    x->changed_s = st.st_mtim.tv_sec;
    x->changed_ns = st.st_mtim.tv_nsec;
#endif
    return true;
}

static bool move_is_same(const move *x, const char *path)
{
    move now = { 0 };
    return move_identify(&now, path) && now.is_dir == x->is_dir && now.inode == x->inode &&
           now.n_bytes == x->n_bytes && now.changed_s == x->changed_s &&
           now.changed_ns == x->changed_ns;
}

/* Takes from and to; x says what moves. */
static fv_status moves_push(moves *m, const char *stage, char *from, char *to, const move *x,
                            fv_error *err)
{
    char name[48];
    snprintf(name, sizeof name, REPLACED "/%zu", m->n);
    char *kept = from && to ? fv_path_join(stage, name) : NULL;
    fv_status status = kept ? FV_LIST_ROOM(m->list, m->n, m->capacity, 1, err)
                            : fv_fail_memory(err, strlen(stage), "a path");
    if (status != FV_OK) {
        fv_free(from);
        fv_free(to);
        fv_free(kept);
        return status;
    }
    m->list[m->n] = *x;
    m->list[m->n].from = from;
    m->list[m->n].to = to;
    m->list[m->n++].kept = kept;
    return FV_OK;
}

static fv_status moves_collect(moves *m, const char *stage, const char *from, const char *to,
                               fv_error *err);

/* One entry, and those in it. What cannot take its place is an error before anything moves. Takes
 * from and to. */
static fv_status moves_add(moves *m, const char *stage, char *from, char *to, fv_error *err)
{
    struct stat st;
    move x = { 0 };
    bool there = to && lstat(to, &st) == 0;
    fv_status status = FV_OK;
    if (!from || !to)
        status = fv_fail_memory(err, strlen(stage), "a path");
    else if (!move_identify(&x, from))
        status = fv_out_errno(err, from, "read");
    else if (there && (x.is_dir ? !fv_is_dir(to) : S_ISDIR(st.st_mode)))
        status = fv_fail(err, FV_ERR_IO, 0, "%s: is a %s; it is not replaced by a %s", to,
                         x.is_dir ? "file" : "directory", x.is_dir ? "directory" : "file");
    if (status != FV_OK || (x.is_dir && there)) {
        if (status == FV_OK)
            status = moves_collect(m, stage, from, to, err);
        fv_free(from);
        fv_free(to);
        return status;
    }
    size_t at = m->n;
    FV_TRY(moves_push(m, stage, from, to, &x, err));
    from = m->list[at].from;
    to = m->list[at].to;
    return x.is_dir ? moves_collect(m, stage, from, to, err) : FV_OK;
}

static fv_status moves_collect(moves *m, const char *stage, const char *from, const char *to,
                               fv_error *err)
{
    fv_status status = FV_OK;
    DIR *dir = opendir(from);
    if (!dir)
        return fv_out_errno(err, from, "read the directory");
    for (struct dirent *e; status == FV_OK && (e = readdir(dir));)
        if (!is_dot(e->d_name) && !is_own(e->d_name))
            status = moves_add(m, stage, fv_path_join(from, e->d_name), fv_path_join(to, e->d_name),
                               err);
    closedir(dir);
    return status;
}

/* The list as a file: "INODE BYTES SECONDS NANOSECONDS f|d PATH", a NUL behind each. On the disk
 * before anything moves. */
static fv_status moves_write(const moves *m, const fv_outdir *d, fv_error *err)
{
    char head[128], *path = fv_path_join(d->stage, MOVES);
    fv_outfile f = { 0 };
    fv_status status = FV_OK;
    if (!path)
        return fv_fail_memory(err, strlen(d->stage), "a path");
    FV_TRY_GOTO(fv_outfile_open(&f, path, err));
    for (size_t i = 0; i < m->n; i++) {
        const move *x = &m->list[i];
        const char *name = x->from + strlen(d->stage) + 1;
        int n = snprintf(head, sizeof head, "%" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 " %c ",
                         x->inode, x->n_bytes, x->changed_s, x->changed_ns, x->is_dir ? 'd' : 'f');
        FV_TRY_GOTO(fv_outfile_write(&f, head, (size_t)n, err));
        FV_TRY_GOTO(fv_outfile_write(&f, name, strlen(name) + 1, err));
    }
    status = fv_outfile_commit(&f, err);
fail:
    fv_outfile_abandon(&f);
    fv_free(path);
    return status;
}

/* A file that is replaced stays reachable by a second name until all have moved, and gives its
 * mode. */
static fv_status move_do(const move *x, fv_error *err)
{
    struct stat st;
    if (x->is_dir)
        return mkdir(x->to, 0777) == 0 ? FV_OK : fv_out_errno(err, x->to, "create the directory");
    if (lstat(x->to, &st) == 0) {
        if (S_ISREG(st.st_mode))
            chmod(x->from, st.st_mode & 07777);
        if (link(x->to, x->kept) != 0 && rename(x->to, x->kept) != 0) /* no links here */
            return fv_out_errno(err, x->to, "rename the finished file to this name");
    }
    return rename(x->from, x->to) == 0
               ? FV_OK
               : fv_out_errno(err, x->to, "rename the finished file to this name");
}

static bool path_is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* By what stands where, so that it can be done again after a kill in the midst of it. */
static bool move_undo(const move *x)
{
    bool kept = path_is_there(x->kept);
    if (x->is_dir)
        return rmdir(x->to) == 0 || errno != EACCES;
    if (path_is_there(x->from)) /* has not moved */
        return !kept || path_is_there(x->to) || rename(x->kept, x->to) == 0;
    if (!move_is_same(x, x->to)) /* taken back already, or somebody has written there since */
        return true;
    return rename(kept ? x->kept : x->to, kept ? x->to : x->from) == 0;
}

/* False when something could not be taken back: then the stage has to stay. */
static bool moves_undo(const moves *m)
{
    bool all = true;
    for (size_t i = m->n; i-- > 0;)
        all = move_undo(&m->list[i]) && all;
    return all;
}

/* The folders in which entries have come to stand; those of one stand together in the list. */
static void moves_sync(const moves *m)
{
    const char *last = "";
    size_t n_last = 0;
    for (size_t i = 0; i < m->n; i++) {
        const char *to = m->list[i].to, *slash = strrchr(to, '/');
        size_t n = slash ? (size_t)(slash - to) : 0;
        if (n != n_last || memcmp(to, last, n) != 0)
            fv_out_sync_parent(to);
        last = to;
        n_last = n;
    }
}

static void stage_unlink(const char *stage, const char *name)
{
    char *path = fv_path_join(stage, name);
    if (path)
        unlink(path);
    fv_free(path);
}

/* *keep: the stage still holds what is needed to undo what has moved. */
static fv_status outdir_merge(const fv_outdir *d, bool *keep, fv_error *err)
{
    moves m = { 0 };
    fv_status status = FV_OK;
    FV_TRY_GOTO(moves_collect(&m, d->stage, d->stage, d->place, err));
    FV_TRY_GOTO(fv_outdir_sub(d, REPLACED, err));
    FV_TRY_GOTO(moves_write(&m, d, err));
    for (size_t i = 0; i < m.n && status == FV_OK; i++)
        status = move_do(&m.list[i], err);
    if (status == FV_OK)
        moves_sync(&m);
    *keep = status != FV_OK && !moves_undo(&m);
    if (!*keep) {
        stage_unlink(d->stage, MOVES); /* from here on all have moved, or none */
        fv_out_sync_folder(d->stage);  /* also after a power cut */
    }
fail:
    moves_free(&m);
    return status;
}

/* One line of the list; false when it is not one that moves_write has written. */
static bool moves_read_one(moves *m, const char *stage, const char *place, const char *line)
{
    fv_error unused;
    move x = { 0 };
    char kind;
    int n = 0;
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNd64 " %c %n", &x.inode, &x.n_bytes,
               &x.changed_s, &x.changed_ns, &kind, &n) != 5 ||
        !n)
        return false;
    const char *name = line + n;
    if (!*name || *name == '/' || !strncmp(name, "../", 3) || strstr(name, "/../"))
        return false;
    x.is_dir = kind == 'd';
    return moves_push(m, stage, fv_path_join(stage, name), fv_path_join(place, name), &x,
                      &unused) == FV_OK;
}

/* Takes back what a killed process has moved from stage into place. False: it could not be. */
static bool moves_recover(const char *stage, const char *place, bool *any)
{
    moves m = { 0 };
    uint8_t *text = NULL;
    size_t n_bytes = 0;
    struct stat st;
    fv_error unused;
    char *path = fv_path_join(stage, MOVES);
    bool ok = path && lstat(path, &st) != 0 && errno == ENOENT;
    *any = false;
    if (!ok && path && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
        fv_read_file(&text, &n_bytes, path, MOVES_BYTES, &unused) == FV_OK) {
        ok = true;
        for (size_t at = 0; at < n_bytes && ok; at += strlen((char *)text + at) + 1)
            ok = moves_read_one(&m, stage, place, (char *)text + at);
        *any = ok = ok && moves_undo(&m);
        if (ok)
            unlink(path);
    }
    moves_free(&m);
    fv_free(text);
    fv_free(path);
    return ok;
}

/* ---- what killed processes left ---------------------------------------------------------- */

/* The mark in the folder fd, of this user and locked by no process: opened and locked, or -1. */
static int mark_take(int fd, off_t *n_bytes)
{
    struct stat st;
    int mark = openat(fd, MARK, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (mark >= 0 && (fstat(mark, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
                      flock(mark, LOCK_EX | LOCK_NB) != 0)) {
        close(mark);
        mark = -1;
    }
    *n_bytes = mark >= 0 ? st.st_size : 0;
    return mark;
}

typedef enum leftover {
    LEFTOVER_NONE,    /* not one, or somebody is at work in it */
    LEFTOVER_REMOVED, /* and nothing of it had reached its place */
    LEFTOVER_UNDONE,  /* removed; what it had moved was taken back */
    LEFTOVER_STAYS    /* it could not be removed */
} leftover;

/* One folder of the right name, at `path`, in the folder that it would have been merged into.
 *
 * The lock says whether its process lives, also in another container, whose numbers this one does
 * not see, and when the number belongs to another process by now. Only between making the folder
 * and locking the mark there is no lock: then the folder is empty or the mark is, and the number
 * counts. */
static leftover leftover_remove(int folder, const char *name, const char *path, const char *place,
                                long pid)
{
    struct stat st;
    off_t n_bytes = 0;
    bool undone = false, number_is_free = pid == (long)getpid() || fv_out_is_gone(pid);
    leftover what = LEFTOVER_NONE;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ours = fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid();
    int mark = ours ? mark_take(fd, &n_bytes) : -1;
    if (mark >= 0 && (n_bytes > 0 || number_is_free)) {
        bool gone = moves_recover(path, place, &undone) && outdir_remove(folder, name);
        what = !gone ? LEFTOVER_STAYS : undone ? LEFTOVER_UNDONE : LEFTOVER_REMOVED;
    } else if (mark < 0 && ours && number_is_free && unlinkat(folder, name, AT_REMOVEDIR) == 0) {
        what = LEFTOVER_REMOVED;
    }
    if (mark >= 0)
        close(mark);
    if (fd >= 0)
        close(fd);
    return what;
}

/* Removes the folders "<prefix>PID" in folder that killed processes have left. */
static void outdir_sweep(const char *folder, const char *prefix, const fv_callbacks *callbacks)
{
    static const char *const said[] = {
        NULL, "left behind by a killed run; removed",
        "left behind by a killed run; removed, and the files that it had replaced are back",
        "left behind by a killed run; it cannot be removed"
    };
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        long pid = fv_out_pid(e->d_name, prefix, "");
        char *path = pid ? fv_path_join(folder, e->d_name) : NULL;
        if (!path)
            continue;
        leftover what = leftover_remove(dirfd(dir), e->d_name, path, folder, pid);
        if (said[what])
            fv_out_warn(callbacks, folder, e->d_name, said[what]);
        fv_free(path);
    }
    if (dir)
        closedir(dir);
}

/* Beside the place, in it, and the mark that came with a folder renamed into it. */
static void outdir_sweep_for(const fv_outdir *d, const fv_callbacks *callbacks)
{
    char *folder = NULL, *name = NULL, *prefix = NULL;
    if (fv_out_split(d->place, &folder, &name) && (prefix = fv_out_path(name, FV_OUT_PART)))
        outdir_sweep(folder, prefix, callbacks);
    if (d->merge) {
        off_t n_bytes;
        outdir_sweep(d->place, FV_OUT_PART, callbacks);
        int fd = open(d->place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int mark = fd < 0 ? -1 : mark_take(fd, &n_bytes);
        if (mark >= 0) {
            unlinkat(fd, MARK, 0);
            close(mark);
        }
        if (fd >= 0)
            close(fd);
    }
    fv_free(folder);
    fv_free(name);
    fv_free(prefix);
}

/* ---- opening ----------------------------------------------------------------------------- */

static bool outdir_is_empty(const char *path)
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

static fv_status outdir_make_stage(fv_outdir *d, fv_error *err)
{
    static const char text[] =
        "fastvlm is writing this directory and renames it when it is complete.\n";
    if (mkdir(d->stage, 0777) != 0)
        return fv_out_errno(err, d->stage, "create the directory");
    char *mark = fv_path_join(d->stage, MARK);
    d->lock = mark ? open(mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    fv_status status = d->lock >= 0 ? FV_OK
                       : mark       ? fv_out_errno(err, mark, "create")
                                    : fv_fail_memory(err, strlen(d->stage), "a path");
    if (d->lock >= 0)
        flock(d->lock, LOCK_EX | LOCK_NB); /* where there are no locks, nothing is ever removed */
    if (d->lock >= 0 && write(d->lock, text, sizeof text - 1) != sizeof text - 1) {
        status = fv_out_errno(err, mark, "write");
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
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "the name of the directory to write is empty");
    if (lstat(path, &st) == 0 && !fv_is_dir(path))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a file; expected a directory to write into",
                       path);
    d->merge = fv_is_dir(path);
    d->force = force;
    snprintf(suffix, sizeof suffix, "%s" FV_OUT_PART "%ld", d->merge ? "/" : "", (long)getpid());
    d->place = fv_out_path(path, "");
    d->stage = fv_out_path(path, suffix);
    if (!d->place || !d->stage) {
        status = fv_fail_memory(err, strlen(path), "a path");
        goto fail;
    }
    outdir_sweep_for(d, callbacks);
    if (d->merge && !force && !outdir_is_empty(path)) {
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: the directory is not empty; expected an empty or a new one", path);
        goto fail;
    }
    FV_TRY_GOTO(fv_out_make_parents(d->stage, &d->n_parents, err));
    FV_TRY_GOTO(outdir_make_stage(d, err));
fail:
    if (status != FV_OK) {
        if (d->stage)
            fv_out_remove_parents(d->stage, d->n_parents);
        fv_free(d->place);
        fv_free(d->stage);
        *d = (fv_outdir){ 0 };
    }
    return status;
}

/* ---- the end ----------------------------------------------------------------------------- */

static void outdir_release(fv_outdir *d)
{
    fv_free(d->place);
    fv_free(d->stage);
    *d = (fv_outdir){ 0 };
}

/* Another run has made the place meanwhile: its files stay, and ours move in beside them. */
static bool outdir_join(fv_outdir *d)
{
    char suffix[32];
    snprintf(suffix, sizeof suffix, "/" FV_OUT_PART "%ld", (long)getpid());
    char *inside = fv_out_path(d->place, suffix);
    d->merge = inside && rename(d->stage, inside) == 0;
    if (d->merge) {
        fv_free(d->stage);
        d->stage = inside;
        d->n_parents = 0; /* they hold what the other has made */
    } else {
        fv_free(inside);
    }
    return d->merge;
}

fv_status fv_outdir_commit(fv_outdir *d, fv_error *err)
{
    bool keep = false;
    fv_status status = d->unsynced ? stage_sync(d, err) : FV_OK;
    if (status != FV_OK) {
        fv_outdir_abandon(d);
        return status;
    }
    if (!d->merge && rename(d->stage, d->place) == 0) { /* with the mark, which goes last */
        stage_unlink(d->place, MARK);
        fv_out_sync_folder(d->place);
        fv_out_sync_parent(d->place);
        close(d->lock);
        outdir_release(d);
        return FV_OK;
    }
    if (!d->merge) {
        int why = errno;
        if (!d->force || (why != ENOTEMPTY && why != EEXIST) || !outdir_join(d)) {
            errno = why;
            status = fv_out_errno(err, d->place, "rename the finished directory to this name");
        }
    }
    if (status == FV_OK)
        status = outdir_merge(d, &keep, err);
    if (keep) { /* the next run to this place tries again */
        close(d->lock);
        outdir_release(d);
        return status;
    }
    fv_outdir_abandon(d);
    return status;
}

void fv_outdir_abandon(fv_outdir *d)
{
    if (d->stage) {
        outdir_remove(AT_FDCWD, d->stage);
        close(d->lock);
        fv_out_remove_parents(d->stage, d->n_parents);
    }
    outdir_release(d);
}
