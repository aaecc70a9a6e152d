/* Folders that appear complete or not at all. See outfile.h.
 *
 * The mark in a folder that is being filled is the first thing to come and the last to go, so that
 * whenever the process is killed, what it leaves is empty or bears the mark: the next one may
 * remove it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/list.h"
#include "base/outfile.h"
#include "base/outpart.h"

#define MARK     ".fastvlm-part"
#define REPLACED ".fastvlm-replaced" /* in the stage: links to files that were replaced */

static bool is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }
static bool is_own(const char *name) { return !strcmp(name, MARK) || !strcmp(name, REPLACED); }

/* ---- removing ---------------------------------------------------------------------------- */

/* Everything in the folder but a mark, by file descriptors, so that it works when memory is out.
 * Takes fd. */
static void outdir_empty(int fd)
{
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (is_dot(e->d_name) || !strcmp(e->d_name, MARK) || unlinkat(fd, e->d_name, 0) == 0)
            continue;
        outdir_empty(openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        unlinkat(fd, e->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

/* The folder name in the folder at: its content, then its mark, then itself. */
static bool outdir_remove(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        outdir_empty(dup(fd));
        unlinkat(fd, MARK, 0);
        close(fd);
    }
    return unlinkat(at, name, AT_REMOVEDIR) == 0;
}

/* ---- what killed processes left ---------------------------------------------------------- */

/* The mark in the folder fd, of this user and locked by no process (also none in another
 * container, whose numbers this one does not see): opened and locked, or -1. */
static int mark_take(int fd)
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

/* One folder of the right name; true when it was removed, *marked when it could have been. */
static bool leftover_remove(int folder, const char *name, bool *marked)
{
    struct stat st;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int mark = fd < 0 ? -1 : mark_take(fd);
    bool ours = fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid();
    *marked = mark >= 0;
    /* an empty one has no mark yet, or no longer */
    bool gone = mark >= 0 ? outdir_remove(folder, name)
                          : ours && unlinkat(folder, name, AT_REMOVEDIR) == 0;
    if (mark >= 0)
        close(mark);
    if (fd >= 0)
        close(fd);
    return gone;
}

/* Removes the folders "<prefix>PID" in folder that killed processes have left. */
static void outdir_sweep(const char *folder, const char *prefix, const fv_callbacks *callbacks)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        bool marked;
        long pid = fv_out_pid(e->d_name, prefix, "");
        if (!pid || (pid != (long)getpid() && !fv_out_is_gone(pid)))
            continue;
        if (leftover_remove(dirfd(dir), e->d_name, &marked))
            fv_out_warn(callbacks, folder, e->d_name, "left behind by a killed run; removed");
        else if (marked)
            fv_out_warn(callbacks, folder, e->d_name,
                        "left behind by a killed run; it cannot be removed");
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
        outdir_sweep(d->place, FV_OUT_PART, callbacks);
        int fd = open(d->place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int mark = fd < 0 ? -1 : mark_take(fd);
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

static fv_status outdir_make(const char *path, fv_error *err)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && fv_is_dir(path)))
        return FV_OK;
    return fv_out_errno(err, path, "create the directory");
}

/* Every folder in front of the last name of the stage; remembers the first that was missing. */
static fv_status outdir_make_parents(fv_outdir *d, fv_error *err)
{
    fv_status status = FV_OK;
    size_t there = 0;
    for (char *slash = strchr(d->stage + 1, '/'); slash && status == FV_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (!fv_is_dir(d->stage)) {
            status = outdir_make(d->stage, err);
            if (!d->n_parents)
                d->n_parents = there + 1;
        }
        there = (size_t)(slash - d->stage);
        *slash = '/';
    }
    return status;
}

/* Parents that this run made go again, as long as they are empty. */
static void outdir_remove_parents(fv_outdir *d)
{
    for (char *slash; d->n_parents && (slash = strrchr(d->stage, '/')) &&
                      (size_t)(slash - d->stage) >= d->n_parents;) {
        *slash = 0;
        if (rmdir(d->stage) != 0)
            return;
    }
}

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
    snprintf(suffix, sizeof suffix, "%s" FV_OUT_PART "%ld", d->merge ? "/" : "", (long)getpid());
    d->place = fv_out_path(path, "");
    d->stage = fv_out_path(path, suffix);
    if (!d->place || !d->stage) {
        status = fv_fail_memory(err, strlen(path), "a path");
        goto fail;
    }
    outdir_sweep_for(d, callbacks);
    if (d->merge && !force && !outdir_is_empty(path)) {
        status = fv_fail(
            err, FV_ERR_IO, 0,
            "%s: the directory is not empty; choose another, or allow files of the same "
            "names to be replaced",
            path);
        goto fail;
    }
    FV_TRY_GOTO(outdir_make_parents(d, err));
    FV_TRY_GOTO(outdir_make_stage(d, err));
fail:
    if (status != FV_OK) {
        if (d->stage)
            outdir_remove_parents(d);
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
    fv_status status = outdir_make(path, err);
    fv_free(path);
    return status;
}

/* ---- entries into a folder that exists: all or none -------------------------------------- */

typedef struct move {
    char *from, *to;
    char *kept; /* a link to the file that was at to; NULL: there was none */
    bool done;
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

static fv_status moves_collect(moves *m, const fv_outdir *d, const char *from, const char *to,
                               fv_error *err);

/* One entry: a folder is entered where its place is a folder, too. What cannot take its place is an
 * error before anything moves. Takes from and to. */
static fv_status moves_add(moves *m, const fv_outdir *d, char *from, char *to, fv_error *err)
{
    char name[48];
    struct stat st;
    fv_status status = FV_OK;
    bool there = to && lstat(to, &st) == 0;
    if (!from || !to) {
        status = fv_fail_memory(err, strlen(d->place), "a path");
    } else if (fv_is_dir(from) && there && fv_is_dir(to)) {
        status = moves_collect(m, d, from, to, err);
    } else if (there && S_ISDIR(st.st_mode) != fv_is_dir(from)) {
        status = fv_fail(err, FV_ERR_IO, 0, "%s: is a %s; it is not replaced by a %s", to,
                         S_ISDIR(st.st_mode) ? "directory" : "file",
                         S_ISDIR(st.st_mode) ? "file" : "directory");
    } else if ((status = FV_LIST_ROOM(m->list, m->n, m->capacity, 1, err)) == FV_OK) {
        snprintf(name, sizeof name, REPLACED "/%zu", m->n);
        char *kept = there ? fv_path_join(d->stage, name) : NULL;
        if (there && !kept)
            status = fv_fail_memory(err, strlen(d->stage), "a path");
        else
            m->list[m->n++] = (move){ from, to, kept, false };
        if (status == FV_OK)
            return FV_OK;
    }
    fv_free(from);
    fv_free(to);
    return status;
}

static fv_status moves_collect(moves *m, const fv_outdir *d, const char *from, const char *to,
                               fv_error *err)
{
    fv_status status = FV_OK;
    DIR *dir = opendir(from);
    if (!dir)
        return fv_out_errno(err, from, "read the directory");
    for (struct dirent *e; status == FV_OK && (e = readdir(dir));)
        if (!is_dot(e->d_name) && !is_own(e->d_name))
            status = moves_add(m, d, fv_path_join(from, e->d_name), fv_path_join(to, e->d_name),
                               err);
    closedir(dir);
    return status;
}

/* A file that is replaced stays reachable by a second name until all have moved, and gives its
 * mode. */
static fv_status move_do(move *x, fv_error *err)
{
    struct stat st;
    if (x->kept && lstat(x->to, &st) == 0 && S_ISREG(st.st_mode))
        chmod(x->from, st.st_mode & 07777);
    if (x->kept && link(x->to, x->kept) != 0) {
        fv_free(x->kept); /* a system without links: this one cannot be undone */
        x->kept = NULL;
    }
    if (rename(x->from, x->to) != 0)
        return fv_out_errno(err, x->to, "rename the finished file to this name");
    x->done = true;
    return FV_OK;
}

static void moves_undo(const moves *m)
{
    for (size_t i = m->n; i-- > 0;) {
        const move *x = &m->list[i];
        if (x->done && x->kept)
            rename(x->kept, x->to);
        else if (x->done)
            rename(x->to, x->from);
    }
}

static fv_status outdir_merge(const fv_outdir *d, fv_error *err)
{
    moves m = { 0 };
    fv_status status = FV_OK;
    FV_TRY_GOTO(moves_collect(&m, d, d->stage, d->place, err));
    FV_TRY_GOTO(fv_outdir_sub(d, REPLACED, err));
    for (size_t i = 0; i < m.n && status == FV_OK; i++)
        status = move_do(&m.list[i], err);
    if (status != FV_OK)
        moves_undo(&m);
fail:
    moves_free(&m);
    return status;
}

/* ---- the end ----------------------------------------------------------------------------- */

static void outdir_release(fv_outdir *d)
{
    fv_free(d->place);
    fv_free(d->stage);
    *d = (fv_outdir){ 0 };
}

fv_status fv_outdir_commit(fv_outdir *d, fv_error *err)
{
    fv_status status = d->merge ? outdir_merge(d, err) : FV_OK;
    if (status == FV_OK && !d->merge) {
        if (rename(d->stage, d->place) == 0) { /* with the mark, which goes last */
            char *mark = fv_path_join(d->place, MARK);
            if (mark)
                unlink(mark);
            fv_free(mark);
            close(d->lock);
            outdir_release(d);
            return FV_OK;
        }
        status = fv_out_errno(err, d->place, "rename the finished directory to this name");
    }
    fv_outdir_abandon(d);
    return status;
}

void fv_outdir_abandon(fv_outdir *d)
{
    if (d->stage) {
        outdir_remove(AT_FDCWD, d->stage);
        close(d->lock);
        outdir_remove_parents(d);
    }
    outdir_release(d);
}
