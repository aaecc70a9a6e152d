/* What a container or a service manager lets this process have of the processors: the smallest
 * quota from its control group up to the topmost one that can be seen.
 *
 *     /proc/self/cgroup      this process's group: version 2 "0::/system.slice/a.service",
 *                            version 1 "4:cpu,cpuacct:/docker/1f2e"
 *     /proc/self/mountinfo   which group (4th field) stands at which directory (5th):
 *                            "36 25 0:29 /docker/1f2e /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
 *     cpu.max                version 2: "150000 100000" or "max 100000", microseconds and period
 *     cpu.cfs_quota_us       version 1: "150000" or "-1"; the period in cpu.cfs_period_us
 *
 * Both versions may be mounted side by side; the one that has the cpu controller counts, the other
 * has no such files. A quota that is not a whole number of processors is rounded up: threads that
 * are too many wait a little, which costs less than one that is missing. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

enum { MAX_LINE = 4096, MAX_PATH = 4096, MAX_CPUS = 8192 };

typedef struct cgroup_search {
    const char *root;        /* of the file system, "" */
    char group[2][MAX_PATH]; /* [version 1, version 2]: this process's group; "": none */
    int cpus;                /* the smallest quota so far; 0: none */
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
    if (s->cpus == 0 || cpus < s->cpus)
        s->cpus = (int)cpus;
}

static void folder_take(cgroup_search *s, const char *folder, bool second)
{
    long long quota[2], period[2];

    if (second) {
        quota_read(folder, "cpu.max", quota);
        quota_take(s, quota[0], quota[1]);
    } else {
        quota_read(folder, "cpu.cfs_quota_us", quota);
        quota_read(folder, "cpu.cfs_period_us", period);
        quota_take(s, quota[0], period[0]);
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
static void mount_take(cgroup_search *s, const char *mounted, const char *point, bool second)
{
    char folder[3 * MAX_PATH];
    const char *group = s->group[second];
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
        folder_take(s, folder, second);
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
    bool second = *controllers == '\0' && strncmp(line, "0:", 2) == 0;
    if (second || list_has(controllers, "cpu"))
        snprintf(s->group[second], sizeof s->group[second], "%s", path);
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
        mount_take(s, mounted, point, true);
    else if (strcmp(type, "cgroup") == 0 && list_has(options, "cpu"))
        mount_take(s, mounted, point, false);
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

int fv_cgroup_cpus(const char *root)
{
    cgroup_search *s = fv_alloc_zero(1, sizeof *s);
    int cpus = 0;

    if (!s)
        return 0;
    s->root = root;
    lines_read(s, "/proc/self/cgroup", group_line);
    lines_read(s, "/proc/self/mountinfo", mount_line);
    cpus = s->cpus;
    fv_free(s);
    return cpus;
}
