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

static fv_status map_errno(fv_error *err, const char *path, const char *verb)
{
    return fv_fail(err, errno == ENOMEM ? FV_ERR_MEMORY : FV_ERR_IO, 0, "%s: cannot %s: %s", path,
                   verb, strerror(errno));
}

/* "https://", "s3://", "file://", "data:image/...": letters and digits, a colon. */
static bool path_is_address(const char *path)
{
    size_t n = 0;
    while ((path[n] >= 'a' && path[n] <= 'z') || (path[n] >= 'A' && path[n] <= 'Z') ||
           (n > 0 && path[n] >= '0' && path[n] <= '9'))
        n++;
    return n > 1 && path[n] == ':' &&
           (strncmp(path + n, "://", 3) == 0 || !strncmp(path, "data:", 5));
}

fv_status fv_path_check(const char *path, fv_error *err)
{
    struct stat st;
    char target[200];

    if (stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR))
        return FV_OK; /* what is wrong, open says */
    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a dangling link: %s does not exist", path,
                       target);
    }
    if (path_is_address(path))
        return fv_fail(err, FV_ERR_IO, 0,
                       strncmp(path, "file:", 5)
                           ? "%.200s: is an address, expected a file: download it first"
                           : "%.200s: is an address, expected a path: leave out file://",
                       path);
    return FV_OK;
}

/* Opens path for reading and refuses a directory by name. */
static fv_status open_file(int *fd, struct stat *st, const char *path, fv_error *err)
{
    do
        *fd = open(path, O_RDONLY | O_CLOEXEC);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0) {
        int why = errno;
        FV_TRY(fv_path_check(path, err));
        errno = why;
        return map_errno(err, path, "open");
    }
    if (fstat(*fd, st) != 0) {
        fv_status status = map_errno(err, path, "stat");
        close(*fd);
        return status;
    }
    if (S_ISDIR(st->st_mode)) {
        close(*fd);
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a directory, expected a file", path);
    }
    return FV_OK;
}

fv_status fv_file_check(const char *path, fv_error *err)
{
    struct stat st;
    int fd;
    FV_TRY(open_file(&fd, &st, path, err));
    close(fd);
    return FV_OK;
}

/* The part [offset, offset + n_bytes) of a file of file_bytes. */
static fv_status map_range(fv_map *map, int fd, uint64_t offset, uint64_t n_bytes, const char *name,
                           fv_error *err)
{
    size_t skip = (size_t)(offset % (uint64_t)sysconf(_SC_PAGESIZE));
    if (n_bytes > SIZE_MAX - skip || offset - skip > INT64_MAX)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %" PRIu64 " bytes exceed the address space", name,
                       n_bytes);
    if (!n_bytes)
        return FV_OK;
    uint8_t *pages = mmap(NULL, (size_t)n_bytes + skip, PROT_READ, MAP_PRIVATE, fd,
                          (off_t)(offset - skip));
    if (pages == MAP_FAILED)
        return map_errno(err, name, "map");
    *map = (fv_map){ .data = pages + skip, .size = (size_t)n_bytes, .skip = skip };
#if defined(MADV_HUGEPAGE)
    if (map->size >= HUGE_MAP_BYTES)
        /* a hint for what is not in memory yet; refusal costs speed only */
        madvise(pages, map->size + skip, MADV_HUGEPAGE);
#endif
    return FV_OK;
}

fv_status fv_map_open_fd(fv_map *map, int fd, uint64_t offset, uint64_t n_bytes, const char *name,
                         fv_error *err)
{
    struct stat st;

    *map = (fv_map){ 0 };
    if (fstat(fd, &st) != 0)
        return map_errno(err, name, "stat");
    if (!S_ISREG(st.st_mode))
        return fv_fail(err, FV_ERR_IO, 0, "%s: not a regular file, cannot be mapped", name);
    uint64_t size = (uint64_t)st.st_size;
    if (offset > size || n_bytes > size - offset)
        return fv_fail(err, FV_ERR_IO, offset,
                       "%s: bytes %" PRIu64 " to %" PRIu64 " are asked for, the file has %" PRIu64,
                       name, offset, n_bytes > UINT64_MAX - offset ? UINT64_MAX : offset + n_bytes,
                       size);
    return map_range(map, fd, offset, n_bytes ? n_bytes : size - offset, name, err);
}

fv_status fv_map_open(fv_map *map, const char *path, fv_error *err)
{
    int fd;
    struct stat st;

    *map = (fv_map){ 0 };
    FV_TRY(open_file(&fd, &st, path, err));
    fv_status status = fv_map_open_fd(map, fd, 0, 0, path, err);
    close(fd);
    return status;
}

void fv_map_close(fv_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)(map->data - map->skip), map->size + map->skip);
    *map = (fv_map){ 0 };
}

/* The pages that a range touches, or those that lie in it whole. */
static void *pages_of(const void *data, size_t n_bytes, bool whole, size_t *length)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data,
              end = begin + n_bytes;
    begin = (whole ? begin + page - 1 : begin) / page * page;
    end = (whole ? end : end + page - 1) / page * page;
    *length = end > begin ? end - begin : 0;
    return (void *)begin;
}

void fv_map_advise(const fv_map *map, size_t offset, size_t n_bytes, bool will_need)
{
    size_t length;

    if (!map->data || offset >= map->size)
        return;
    n_bytes = FV_MIN(n_bytes, map->size - offset);
    const uint8_t *end = map->data + offset + n_bytes;
    /* Only whole pages are dropped, since the bytes around the range are still in use; behind the
     * end of the file there are none. Unlike posix_madvise, which glibc ignores here, madvise
     * really drops them; the data comes back from the file. */
    if (!will_need && end == map->data + map->size)
        n_bytes += (size_t)(-(uintptr_t)end % (uintptr_t)sysconf(_SC_PAGESIZE));
    void *pages = pages_of(map->data + offset, n_bytes, !will_need, &length);
    if (!length)
        return;
    if (will_need)
        posix_madvise(pages, length, POSIX_MADV_WILLNEED);
    else
        madvise(pages, length, MADV_DONTNEED);
}

void fv_pages_touch(const void *data, size_t n_bytes)
{
    const volatile uint8_t *p = data;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < n_bytes; i += page)
        (void)p[i];
    if (n_bytes)
        (void)p[n_bytes - 1];
}

fv_status fv_pages_lock(const void *data, size_t n_bytes, fv_error *err)
{
    size_t length;
    void *pages = pages_of(data, n_bytes, false, &length);

    if (!length || mlock(pages, length) == 0)
        return FV_OK;
    return fv_fail(err, FV_ERR_LIMIT, 0,
                   "%zu bytes cannot be locked in memory: %s (see RLIMIT_MEMLOCK)", length,
                   strerror(errno));
}

void fv_pages_unlock(const void *data, size_t n_bytes)
{
    size_t length;
    void *pages = pages_of(data, n_bytes, false, &length);

    if (length)
        munlock(pages, length);
}

/* Reads fd to its end, never more than a byte past max_bytes. hint is the expected size, 0 when
 * unknown. */
static fv_status file_read_to_end(int fd, uint8_t **data, size_t *n_bytes, size_t hint,
                                  const char *path, size_t max_bytes, fv_error *err)
{
    fv_status status = FV_OK;
    size_t used = 0, capacity = FV_MIN(hint, max_bytes) + 2;

    if (!hint) /* so that doubling ends where max_bytes does */
        for (capacity = max_bytes + 2; capacity > 65536;)
            capacity = capacity / 2 + 1;
    uint8_t *buffer = fv_alloc(capacity, 1);
    if (!buffer)
        return fv_fail_memory(err, capacity, path);
    for (;;) {
        /* One byte stays free for the NUL. */
        if (used + 1 == capacity)
            FV_TRY_GOTO(FV_LIST_ROOM(buffer, used, capacity, 2, err));
        ssize_t n = read(fd, buffer + used, FV_MIN(capacity - used, max_bytes + 2 - used) - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            status = map_errno(err, path, "read");
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
    FV_TRY(open_file(&fd, &st, path, err));
    fv_status status;
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) /* some never end */
        status = fv_fail(err, FV_ERR_IO, 0, "%s: is a device, expected a file", path);
    else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max_bytes)
        status = fv_fail(err, FV_ERR_LIMIT, 0, "%s: %" PRIu64 " bytes, up to %zu are allowed", path,
                         (uint64_t)st.st_size, max_bytes);
    else
        status = file_read_to_end(fd, data, n_bytes, S_ISREG(st.st_mode) ? (size_t)st.st_size : 0,
                                  path, max_bytes, err);
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

bool fv_is_there(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0)
        return S_ISREG(st.st_mode) || S_ISDIR(st.st_mode);
    return lstat(path, &st) == 0;
}

bool fv_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}
