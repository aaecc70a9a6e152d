/* Files: mapped, read whole, or asked about. */
#include "base/base.h"
#include "base/list.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HUGE_MAP_BYTES = 8 << 20 }; /* from which a map asks for huge pages */

static fv_status fail_errno(fv_error *err, const char *path, const char *verb)
{
    return fv_fail(err, FV_ERR_IO, 0, "%s: cannot %s: %s", path, verb, strerror(errno));
}

/* Opens path for reading and refuses a directory by name. */
static fv_status open_file(int *fd, struct stat *st, const char *path, fv_error *err)
{
    do
        *fd = open(path, O_RDONLY | O_CLOEXEC);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0)
        return fail_errno(err, path, "open");
    if (fstat(*fd, st) != 0) {
        fv_status status = fail_errno(err, path, "stat");
        close(*fd);
        return status;
    }
    if (S_ISDIR(st->st_mode)) {
        close(*fd);
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a directory, expected a file", path);
    }
    return FV_OK;
}

fv_status fv_map_open(fv_map *map, const char *path, fv_error *err)
{
    int fd;
    struct stat st;

    *map = (fv_map){ 0 };
    FV_TRY(open_file(&fd, &st, path, err));
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return fv_fail(err, FV_ERR_IO, 0, "%s: not a regular file, cannot be mapped", path);
    }
    if ((uint64_t)st.st_size > SIZE_MAX) {
        close(fd);
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %" PRIu64 " bytes do not fit the address space",
                       path, (uint64_t)st.st_size);
    }
    if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            fv_status status = fail_errno(err, path, "map");
            close(fd);
            return status;
        }
        map->data = data;
        map->size = (size_t)st.st_size;
#if defined(MADV_HUGEPAGE)
        if (map->size >= HUGE_MAP_BYTES)
            /* a hint for what is not in memory yet; refusal costs speed only */
            madvise(data, map->size, MADV_HUGEPAGE);
#endif
    }
    close(fd);
    return FV_OK;
}

void fv_map_close(fv_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (fv_map){ 0 };
}

void fv_map_advise(const fv_map *map, size_t offset, size_t n_bytes, bool will_need)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (!map->data || offset >= map->size)
        return;
    n_bytes = FV_MIN(n_bytes, map->size - offset);
    size_t end = offset + n_bytes;
    if (will_need) {
        size_t begin = offset / page * page;
        posix_madvise((void *)(uintptr_t)(map->data + begin), end - begin, POSIX_MADV_WILLNEED);
        return;
    }
    /* Whole pages only: the neighbours at both ends are someone else's. Unlike
     * posix_madvise, which glibc ignores here, madvise really drops them; the data comes back from
     * the file. */
    size_t begin = (offset + page - 1) / page * page;
    if (end < map->size)
        end = end / page * page;
    if (begin < end)
        madvise((void *)(uintptr_t)(map->data + begin), end - begin, MADV_DONTNEED);
}

/* Reads fd to its end. hint is the expected size, 0 when unknown. */
static fv_status read_all(int fd, uint8_t **data, size_t *n_bytes, size_t hint, const char *path,
                          size_t max_bytes, fv_error *err)
{
    fv_status status = FV_OK;
    size_t used = 0, capacity = (hint ? FV_MIN(hint, max_bytes) : 65536 - 2) + 2;
    uint8_t *buffer = fv_alloc(capacity, 1);

    if (!buffer)
        return fv_fail_memory(err, capacity, path);
    for (;;) {
        /* One byte stays free for the NUL. */
        if (used + 1 == capacity)
            FV_TRY_GOTO(FV_LIST_ROOM(buffer, used, capacity, 2, err));
        ssize_t n = read(fd, buffer + used, capacity - used - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            status = fail_errno(err, path, "read");
            goto fail;
        }
        if (n == 0)
            break;
        used += (size_t)n;
        if (used > max_bytes) {
            status = fv_fail(err, FV_ERR_LIMIT, 0, "%s: more than the %zu bytes allowed", path,
                             max_bytes);
            goto fail;
        }
    }
    buffer[used] = 0;
    *data = buffer;
    *n_bytes = used;
    return FV_OK;

fail:
    fv_free(buffer);
    return status;
}

fv_status fv_read_file(uint8_t **data, size_t *n_bytes, const char *path, size_t max_bytes,
                       fv_error *err)
{
    int fd;
    struct stat st;

    *data = NULL;
    *n_bytes = 0;
    max_bytes = FV_MIN(max_bytes, SIZE_MAX - 2);
    if (strcmp(path, "-") == 0)
        return read_all(STDIN_FILENO, data, n_bytes, 0, "standard input", max_bytes, err);
    FV_TRY(open_file(&fd, &st, path, err));
    fv_status status;
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max_bytes)
        status = fv_fail(err, FV_ERR_LIMIT, 0, "%s: %" PRIu64 " bytes, at most %zu are allowed",
                         path, (uint64_t)st.st_size, max_bytes);
    else
        status = read_all(fd, data, n_bytes, S_ISREG(st.st_mode) ? (size_t)st.st_size : 0, path,
                          max_bytes, err);
    close(fd);
    return status;
}

char *fv_path_join(const char *dir, const char *name)
{
    size_t n_dir = strlen(dir), n_name = strlen(name);
    bool slash = n_dir > 0 && dir[n_dir - 1] != '/';
    char *path = fv_alloc(n_dir + n_name + 2, 1);

    if (!path)
        return NULL;
    memcpy(path, dir, n_dir);
    if (slash)
        path[n_dir] = '/';
    memcpy(path + n_dir + slash, name, n_name + 1);
    return path;
}

bool fv_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool fv_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}
