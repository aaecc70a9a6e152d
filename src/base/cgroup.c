/* What a container or a service manager lets this process have of processors and memory: the
 * smallest limit from its control group up to the topmost one that can be seen.
 *
 *     /proc/self/cgroup      this process's group: version 2 "0::/system.slice/a.service",
 *                            version 1 "4:cpu,cpuacct:/docker/1f2e"
 *     /proc/self/mountinfo   which group (4th field) stands at which directory (5th):
 *                            "36 25 0:29 /docker/1f2e /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
 *     cpu.max                version 2: "150000 100000" or "max 100000", microseconds and period
 *     cpu.cfs_quota_us       version 1: "150000" or "-1"; the period in cpu.cfs_period_us
 *     memory.max, .high      version 2: bytes or "max"; beyond the second a process is slowed down
 *     memory.limit_in_bytes  version 1: bytes, 2^63 less a page where there is no limit
 *     memory.stat            how much of what is used the system can drop; version 1 also has the
 *                            limit of groups above, which a container does not see
 *
 * Both versions may be mounted side by side; the one that has a controller counts, the other has no
 * such files. A quota that is not a whole number of processors is rounded up: threads that
 * are too many wait a little, which costs less than one that is missing. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

enum { MAX_LINE = 4096, MAX_PATH = 4096, MAX_CPUS = 8192 };

#define NO_LIMIT (UINT64_C(1) << 60) /* bytes from which on a limit is none */

/* Which hierarchy: each controller of version 1 has its own. */
typedef enum group_kind { GROUP_CPU, GROUP_MEMORY, GROUP_SECOND, N_GROUPS } group_kind;

typedef struct cgroup_search {
    const char *root;               /* of the file system, "" */
    char group[N_GROUPS][MAX_PATH]; /* this process's group; "": none */
    fv_cgroup found;                /* the smallest limits so far; 0: none */
} cgroup_search;

/* The numbers of a file that begins with one or two; "max" and what cannot be read is -1. */
static void quota_read(const char *folder, const char *name, long long value[2])
{
    char path[MAX_PATH + 64], text[64] = "";

    value[0] = value[1] = -1;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fgets(text, sizeof text, file) && sscanf(text, "%lld %lld", &value[0], &value[1]) < 1 &&
        sscanf(text, "max %lld", &value[1]) < 1)
        value[1] = -1;
    fclose(file);
}

static void quota_take(cgroup_search *s, long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return;
    long long cpus = quota / period + (quota % period != 0);
    cpus = FV_MIN(cpus, (long long)MAX_CPUS);
    if (s->found.cpus == 0 || cpus < s->found.cpus)
        s->found.cpus = (int)cpus;
}

/* The number behind key in memory.stat; 0: there is none. */
static uint64_t memory_stat(const char *folder, const char *key)
{
    char path[MAX_PATH + 64], line[MAX_LINE];
    uint64_t value = 0;
    size_t n = strlen(key);

    snprintf(path, sizeof path, "%s/memory.stat", folder);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, n) == 0 && line[n] == ' ')
            value = strtoull(line + n, NULL, 10);
    if (file)
        fclose(file);
    return value;
}

/* What a limit leaves: pages of files can be dropped, so they do not count as used. */
static void memory_take(cgroup_search *s, const char *folder, uint64_t limit, bool second)
{
    long long used[2];

    if (limit == 0 || limit >= NO_LIMIT)
        return;
    quota_read(folder, second ? "memory.current" : "memory.usage_in_bytes", used);
    uint64_t held = used[0] > 0 ? (uint64_t)used[0] : 0;
    uint64_t files = second
                         ? memory_stat(folder, "inactive_file") + memory_stat(folder, "active_file")
                         : memory_stat(folder, "total_inactive_file") +
                               memory_stat(folder, "total_active_file");
    held -= FV_MIN(held, files);
    uint64_t left = limit - FV_MIN(limit, held);
    if (s->found.memory_bytes == 0 || left < s->found.memory_left)
        s->found.memory_left = left;
    if (s->found.memory_bytes == 0 || limit < s->found.memory_bytes)
        s->found.memory_bytes = limit;
}

static void folder_take(cgroup_search *s, const char *folder, group_kind kind)
{
    static const char *const second[] = { "memory.max", "memory.high" };
    long long value[2], period[2];

    if (kind == GROUP_SECOND) {
        quota_read(folder, "cpu.max", value);
        quota_take(s, value[0], value[1]);
        for (size_t i = 0; i < FV_COUNT(second); i++) {
            quota_read(folder, second[i], value);
            memory_take(s, folder, value[0] > 0 ? (uint64_t)value[0] : 0, true);
        }
    } else if (kind == GROUP_CPU) {
        quota_read(folder, "cpu.cfs_quota_us", value);
        quota_read(folder, "cpu.cfs_period_us", period);
        quota_take(s, value[0], period[0]);
    } else {
        quota_read(folder, "memory.limit_in_bytes", value);
        memory_take(s, folder, value[0] > 0 ? (uint64_t)value[0] : 0, false);
        memory_take(s, folder, memory_stat(folder, "hierarchical_memory_limit"), false);
    }
}

/* Whether word stands in a list such as "rw,cpu,cpuacct". */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ',') && (at[n] == ',' || at[n] == '\0'))
            return true;
    return false;
}

/* From the process's group, which lies below the group that is mounted, up to that one. */
static void mount_take(cgroup_search *s, const char *mounted, const char *point, group_kind kind)
{
    char folder[3 * MAX_PATH];
    const char *group = s->group[kind];
    size_t n = strlen(mounted), top;

    if (!*group)
        return;
    if (strcmp(mounted, "/") == 0)
        n = 0;
    /* A group that the mount does not show: what is mounted limits it, too, or nothing does. */
    bool below = strncmp(group, mounted, n) == 0 && (group[n] == '/' || group[n] == '\0') &&
                 !strstr(group, "/..");
    top = (size_t)snprintf(folder, sizeof folder, "%s%s", s->root, point);
    if (below)
        snprintf(folder + top, sizeof folder - top, "%s", group + n);
    for (;;) {
        folder_take(s, folder, kind);
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= top || !slash || (size_t)(slash - folder) < top)
            return;
        *slash = '\0';
    }
}

/* Spaces and the like stand in mountinfo as \040. */
static void escapes_undo(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned code;
        if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1 && code < 256 &&
            strspn(from + 1, "01234567") >= 3) {
            *to = (char)code;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static void group_line(cgroup_search *s, char *line)
{
    char *controllers = strchr(line, ':'),
         *path = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!path)
        return;
    *path++ = '\0';
    controllers++;
    const bool in[N_GROUPS] = {
        [GROUP_CPU] = list_has(controllers, "cpu"),
        [GROUP_MEMORY] = list_has(controllers, "memory"),
        [GROUP_SECOND] = *controllers == '\0' && strncmp(line, "0:", 2) == 0,
    };
    for (int kind = 0; kind < N_GROUPS; kind++)
        if (in[kind])
            snprintf(s->group[kind], sizeof s->group[kind], "%s", path);
}

static void mount_line(cgroup_search *s, char *line)
{
    char mounted[MAX_PATH], point[MAX_PATH], type[32], options[MAX_LINE];
    const char *rest = strstr(line, " - ");

    if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, point) != 2 ||
        sscanf(rest + 3, "%31s %*s %4095s", type, options) != 2)
        return;
    escapes_undo(mounted);
    escapes_undo(point);
    if (strcmp(type, "cgroup2") == 0)
        mount_take(s, mounted, point, GROUP_SECOND);
    if (strcmp(type, "cgroup") == 0 && list_has(options, "cpu"))
        mount_take(s, mounted, point, GROUP_CPU);
    if (strcmp(type, "cgroup") == 0 && list_has(options, "memory"))
        mount_take(s, mounted, point, GROUP_MEMORY);
}

static void lines_read(cgroup_search *s, const char *name, void (*take)(cgroup_search *, char *))
{
    char path[MAX_PATH], line[MAX_LINE];

    snprintf(path, sizeof path, "%s%s", s->root, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        take(s, line);
    }
    fclose(file);
}

fv_cgroup fv_cgroup_limits(const char *root)
{
    cgroup_search *s = fv_alloc_zero(1, sizeof *s);
    fv_cgroup found = { 0 };

    if (!s)
        return found;
    s->root = root;
    lines_read(s, "/proc/self/cgroup", group_line);
    lines_read(s, "/proc/self/mountinfo", mount_line);
    found = s->found;
    fv_free(s);
    return found;
}

/* ---- the machine's memory, no more than that ---------------------------------------------- */

/* /proc/meminfo: "MemTotal:       16318412 kB" */
static uint64_t meminfo_bytes(const char *root, const char *key)
{
    char path[MAX_PATH], line[128];
    uint64_t bytes = 0;
    size_t n = strlen(key);

    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, n) == 0 && line[n] == ':')
            bytes = strtoull(line + n + 1, NULL, 10) * 1024;
    if (file)
        fclose(file);
    return bytes;
}

fv_memory_limits fv_memory_of_process(const char *root)
{
    fv_cgroup group = fv_cgroup_limits(root);
    fv_memory_limits m = { meminfo_bytes(root, "MemTotal"), meminfo_bytes(root, "MemAvailable"),
                           false };
#if defined(__APPLE__)
    size_t size = sizeof m.total_bytes;
    if (sysctlbyname("hw.memsize", &m.total_bytes, &size, NULL, 0) != 0)
        m.total_bytes = 0;
    m.available_bytes = m.total_bytes; /* not known */
#endif
    if (group.memory_bytes && (!m.total_bytes || group.memory_bytes < m.total_bytes)) {
        m.available_bytes = m.total_bytes ? FV_MIN(m.available_bytes, group.memory_left)
                                          : group.memory_left;
        m.total_bytes = group.memory_bytes;
        m.limited = true;
    }
    return m;
}
