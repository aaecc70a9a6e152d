/* base/cgroup.c on trees made up for it. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base.h"
#include "support/golden.h"

static char *root;

static void put(const char *path, const char *text)
{
    char full[2048];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* Files of a tree, in pairs of path and text, and what they allow. */
typedef struct tree {
    const char *name;
    const char *file[20];
    int cpus;
    uint64_t memory, left;
} tree;

#define SELF   "/proc/self/cgroup"
#define MOUNTS "/proc/self/mountinfo"
#define SECOND "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define FIRST(r) \
    "33 25 0:30 " r " /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
#define MEMORY(r) "34 25 0:31 " r " /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n"
#define CPU1      "/sys/fs/cgroup/cpu,cpuacct"
#define CGM       "/sys/fs/cgroup/memory"
#define CG2       "/sys/fs/cgroup/"

static const tree trees[] = {
    { "no control groups", { NULL }, .cpus = 0 },
    { "version 2, the root", { SELF, "0::/\n", MOUNTS, SECOND }, .cpus = 0 },
    { "version 2 in a container",
      { SELF, "0::/\n", MOUNTS, SECOND, "/sys/fs/cgroup/cpu.max", "200000 100000\n" },
      .cpus = 2 },
    { "version 2, no limit",
      { SELF, "0::/a\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/cpu.max", "max 100000\n" },
      .cpus = 0 },
    { "version 2 below the root, as systemd-run makes it",
      { SELF, "0::/user.slice/run-1.scope\n", MOUNTS, SECOND,
        "/sys/fs/cgroup/user.slice/run-1.scope/cpu.max", "150000 100000\n",
        "/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n" },
      .cpus = 2 },
    { "version 2, the parent is narrower",
      { SELF, "0::/a/b/c\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n",
        "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n", "/sys/fs/cgroup/a/cpu.max", "30000 10000\n" },
      .cpus = 3 },
    { "version 2, another group's quota is none of ours",
      { SELF, "0::/a/b\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/bb/cpu.max", "100000 100000\n",
        "/sys/fs/cgroup/a/b/c/cpu.max", "100000 100000\n" },
      .cpus = 0 },
    { "version 2, half a processor",
      { SELF, "0::/a\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/cpu.max", "50000 100000\n" },
      .cpus = 1 },
    { "version 1",
      { SELF, "5:memory:/a\n4:cpu,cpuacct:/docker/1f2e\n1:name=systemd:/x\n", MOUNTS, FIRST("/"),
        CPU1 "/docker/1f2e/cpu.cfs_quota_us", "400000\n", CPU1 "/docker/1f2e/cpu.cfs_period_us",
        "100000\n", CPU1 "/docker/cpu.cfs_quota_us", "-1\n", CPU1 "/docker/cpu.cfs_period_us",
        "100000\n" },
      .cpus = 4 },
    { "version 1 in a container: its own group is what is mounted",
      { SELF, "4:cpu,cpuacct:/docker/1f2e\n", MOUNTS, FIRST("/docker/1f2e"),
        CPU1 "/cpu.cfs_quota_us", "250000\n", CPU1 "/cpu.cfs_period_us", "100000\n" },
      .cpus = 3 },
    { "version 1 in a container, a group below its own",
      { SELF, "4:cpu,cpuacct:/docker/1f2e/job\n", MOUNTS, FIRST("/docker/1f2e"),
        CPU1 "/job/cpu.cfs_quota_us", "200000\n", CPU1 "/job/cpu.cfs_period_us", "100000\n",
        CPU1 "/cpu.cfs_quota_us", "900000\n", CPU1 "/cpu.cfs_period_us", "100000\n" },
      .cpus = 2 },
    { "version 1, a group that the mount does not show",
      { SELF, "4:cpu,cpuacct:/../other\n", MOUNTS, FIRST("/docker/1f2e"), CPU1 "/cpu.cfs_quota_us",
        "600000\n", CPU1 "/cpu.cfs_period_us", "100000\n" },
      .cpus = 6 },
    { "both versions, cpu in the first",
      { SELF, "4:cpu,cpuacct:/a\n0::/a\n", MOUNTS,
        FIRST("/") "41 25 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        CPU1 "/a/cpu.cfs_quota_us", "500000\n", CPU1 "/a/cpu.cfs_period_us", "100000\n" },
      .cpus = 5 },
    { "cpuacct and cpuset are other controllers",
      { SELF, "4:cpuacct:/a\n3:cpuset:/a\n", MOUNTS,
        "33 25 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n",
        "/sys/fs/cgroup/cpuacct/a/cpu.cfs_quota_us", "100000\n",
        "/sys/fs/cgroup/cpuacct/a/cpu.cfs_period_us", "100000\n" },
      .cpus = 0 },
    { "a blank in a mount point",
      { SELF, "0::/a\n", MOUNTS, "25 1 0:22 / /cg\\040two rw - cgroup2 cgroup2 rw\n",
        "/cg two/a/cpu.max", "200000 100000\n" },
      .cpus = 2 },
    { "numbers that make no sense",
      { SELF, "0::/a/b/c\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/b/c/cpu.max", "-5 100000\n",
        "/sys/fs/cgroup/a/b/cpu.max", "100000 0\n", "/sys/fs/cgroup/a/cpu.max", "hello\n" },
      .cpus = 0 },
    { "more than there can be",
      { SELF, "0::/a\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/cpu.max", "9223372036854775807 1\n" },
      .cpus = 8192 },
    { "memory, version 2, the smallest of three; what files take does not count",
      { SELF, "0::/a.slice/b/c.scope\n", MOUNTS, SECOND, CG2 "a.slice/b/c.scope/memory.max",
        "max\n", CG2 "a.slice/b/c.scope/memory.high", "900000000\n",
        CG2 "a.slice/b/c.scope/memory.current", "500000000\n", CG2 "a.slice/b/c.scope/memory.stat",
        "anon 1\ninactive_file 300000000\nactive_file 100000000\n", CG2 "a.slice/b/memory.max",
        "700000000\n", CG2 "a.slice/b/memory.current", "600000000\n", CG2 "a.slice/memory.max",
        "800000000\n" },
      .memory = 700000000,
      .left = 100000000 },
    { "memory, version 2, under systemd-run -p MemoryMax=1G in a user's session",
      { SELF, "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u1.scope\n", MOUNTS,
        SECOND,
        CG2 "user.slice/user-1000.slice/user@1000.service/app.slice/run-u1.scope/memory.max",
        "1073741824\n",
        CG2 "user.slice/user-1000.slice/user@1000.service/app.slice/run-u1.scope/cpu.max",
        "max 100000\n", CG2 "user.slice/memory.max", "max\n" },
      .memory = 1073741824,
      .left = 1073741824 },
    { "memory, version 2 in a container: the root of the mount is its group",
      { SELF, "0::/\n", MOUNTS, SECOND, "/sys/fs/cgroup/memory.max", "2147483648\n",
        "/sys/fs/cgroup/memory.current", "3000000000\n" },
      .memory = 2147483648,
      .left = 0 },
    { "memory, version 1, nested, each controller with a group of its own",
      { SELF, "7:memory:/docker/1f2e/job\n4:cpu,cpuacct:/docker\n", MOUNTS, FIRST("/") MEMORY("/"),
        CGM "/docker/1f2e/job/memory.limit_in_bytes", "9223372036854771712\n",
        CGM "/docker/1f2e/memory.limit_in_bytes", "500000000\n",
        CGM "/docker/1f2e/memory.usage_in_bytes", "200000000\n", CGM "/docker/1f2e/memory.stat",
        "total_inactive_file 50000000\ntotal_active_file 0\n", CGM "/docker/memory.limit_in_bytes",
        "600000000\n", CPU1 "/docker/cpu.cfs_quota_us", "400000\n" },
      .memory = 500000000,
      .left = 350000000 },
    { "memory, version 1 in a container: a limit of groups that it does not see",
      { SELF, "7:memory:/kubepods/pod1/c1\n", MOUNTS, MEMORY("/kubepods/pod1/c1"),
        CGM "/memory.limit_in_bytes", "9223372036854771712\n", CGM "/memory.stat",
        "cache 5\nhierarchical_memory_limit 300000000\n" },
      .memory = 300000000,
      .left = 300000000 },
    { "memory, version 1 beside version 2 without controllers",
      { SELF, "7:memory:/a\n0::/a\n", MOUNTS,
        MEMORY("/") "41 25 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        CGM "/a/memory.limit_in_bytes", "400000000\n" },
      .memory = 400000000,
      .left = 400000000 },
    { "memory: numbers that make no sense",
      { SELF, "0::/a/b\n", MOUNTS, SECOND, CG2 "a/b/memory.max", "-1\n", CG2 "a/memory.max",
        "hello\n", CG2 "a/b/memory.high", "" },
      .cpus = 0 },
    { "lines that are none",
      { SELF, "\n:\n0:\n0::\nx\n", MOUNTS, "\n - \n1 2 3 4 5 6 - cgroup2\n - cgroup2 a b\n" },
      .cpus = 0 },
};

static void test_trees(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(trees); i++) {
        root = temp_dir();
        for (size_t k = 0; k < FV_COUNT(trees[i].file) && trees[i].file[k]; k += 2)
            put(trees[i].file[k], trees[i].file[k + 1]);
        fv_cgroup found = fv_cgroup_limits(root);
        if (found.cpus != trees[i].cpus || found.memory_bytes != trees[i].memory ||
            found.memory_left != trees[i].left)
            fail_msg("%s: %d processors, %" PRIu64 " bytes, %" PRIu64 " left; expected %d, %" PRIu64
                     ", %" PRIu64,
                     trees[i].name, found.cpus, found.memory_bytes, found.memory_left,
                     trees[i].cpus, trees[i].memory, trees[i].left);
        temp_remove(root);
    }
}

/* The machine's memory, and what a container leaves of it. */
static void test_memory(void **state)
{
    (void)state;
    static const struct {
        const char *name, *limit;
        uint64_t total, available;
        bool limited;
    } cases[] = {
        { "no limit", "max\n", 16000ull << 10, 9000ull << 10, false },
        { "more than there is", "999999999999\n", 16000ull << 10, 9000ull << 10, false },
        { "less", "8000000\n", 8000000, 7000000, true },
        { "less than is available", "12000000\n", 12000000, 9000ull << 10, true },
    };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        root = temp_dir();
        put("/proc/meminfo", "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:  9000 kB\n");
        put(SELF, "0::/a\n");
        put(MOUNTS, SECOND);
        put("/sys/fs/cgroup/a/memory.max", cases[i].limit);
        put("/sys/fs/cgroup/a/memory.current", "1000000\n");
        fv_memory_limits m = fv_memory_of_process(root);
        if (m.total_bytes != cases[i].total || m.available_bytes != cases[i].available ||
            m.limited != cases[i].limited)
            fail_msg("%s: %" PRIu64 ", %" PRIu64 " available, limited %d", cases[i].name,
                     m.total_bytes, m.available_bytes, m.limited);
        temp_remove(root);
    }
    root = temp_dir(); /* nothing can be read */
    fv_memory_limits none = fv_memory_of_process(root);
    assert_true(none.total_bytes == 0 && none.available_bytes == 0 && !none.limited);
    temp_remove(root);
}

static void test_this_process(void **state)
{
    (void)state;
    int cpus = fv_cgroup_limits("").cpus;
    fv_system s = { .size = sizeof s };
    fv_system_info(&s);
    assert_true(s.memory_bytes > 0 && s.memory_available_bytes <= s.memory_bytes);
    assert_in_range(cpus, 0, 8192);
    if (cpus)
        assert_true(fv_cpu_cores() <= cpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
