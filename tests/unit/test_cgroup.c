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
    const char *file[14];
    int cpus;
} tree;

#define SELF   "/proc/self/cgroup"
#define MOUNTS "/proc/self/mountinfo"
#define SECOND "25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define FIRST(r) \
    "33 25 0:30 " r " /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
#define CPU1 "/sys/fs/cgroup/cpu,cpuacct"

static const tree trees[] = {
    { "no control groups", { NULL }, 0 },
    { "version 2, the root", { SELF, "0::/\n", MOUNTS, SECOND }, 0 },
    { "version 2 in a container",
      { SELF, "0::/\n", MOUNTS, SECOND, "/sys/fs/cgroup/cpu.max", "200000 100000\n" },
      2 },
    { "version 2, no limit",
      { SELF, "0::/a\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/cpu.max", "max 100000\n" },
      0 },
    { "version 2 below the root, as systemd-run makes it",
      { SELF, "0::/user.slice/run-1.scope\n", MOUNTS, SECOND,
        "/sys/fs/cgroup/user.slice/run-1.scope/cpu.max", "150000 100000\n",
        "/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n" },
      2 },
    { "version 2, the parent is narrower",
      { SELF, "0::/a/b/c\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n",
        "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n", "/sys/fs/cgroup/a/cpu.max", "30000 10000\n" },
      3 },
    { "version 2, another group's quota is none of ours",
      { SELF, "0::/a/b\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/bb/cpu.max", "100000 100000\n",
        "/sys/fs/cgroup/a/b/c/cpu.max", "100000 100000\n" },
      0 },
    { "version 2, half a processor",
      { SELF, "0::/a\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/cpu.max", "50000 100000\n" },
      1 },
    { "version 1",
      { SELF, "5:memory:/a\n4:cpu,cpuacct:/docker/1f2e\n1:name=systemd:/x\n", MOUNTS, FIRST("/"),
        CPU1 "/docker/1f2e/cpu.cfs_quota_us", "400000\n", CPU1 "/docker/1f2e/cpu.cfs_period_us",
        "100000\n", CPU1 "/docker/cpu.cfs_quota_us", "-1\n", CPU1 "/docker/cpu.cfs_period_us",
        "100000\n" },
      4 },
    { "version 1 in a container: its own group is what is mounted",
      { SELF, "4:cpu,cpuacct:/docker/1f2e\n", MOUNTS, FIRST("/docker/1f2e"),
        CPU1 "/cpu.cfs_quota_us", "250000\n", CPU1 "/cpu.cfs_period_us", "100000\n" },
      3 },
    { "version 1 in a container, a group below its own",
      { SELF, "4:cpu,cpuacct:/docker/1f2e/job\n", MOUNTS, FIRST("/docker/1f2e"),
        CPU1 "/job/cpu.cfs_quota_us", "200000\n", CPU1 "/job/cpu.cfs_period_us", "100000\n",
        CPU1 "/cpu.cfs_quota_us", "900000\n", CPU1 "/cpu.cfs_period_us", "100000\n" },
      2 },
    { "version 1, a group that the mount does not show",
      { SELF, "4:cpu,cpuacct:/../other\n", MOUNTS, FIRST("/docker/1f2e"), CPU1 "/cpu.cfs_quota_us",
        "600000\n", CPU1 "/cpu.cfs_period_us", "100000\n" },
      6 },
    { "both versions, cpu in the first",
      { SELF, "4:cpu,cpuacct:/a\n0::/a\n", MOUNTS,
        FIRST("/") "41 25 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        CPU1 "/a/cpu.cfs_quota_us", "500000\n", CPU1 "/a/cpu.cfs_period_us", "100000\n" },
      5 },
    { "cpuacct and cpuset are other controllers",
      { SELF, "4:cpuacct:/a\n3:cpuset:/a\n", MOUNTS,
        "33 25 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n",
        "/sys/fs/cgroup/cpuacct/a/cpu.cfs_quota_us", "100000\n",
        "/sys/fs/cgroup/cpuacct/a/cpu.cfs_period_us", "100000\n" },
      0 },
    { "a blank in a mount point",
      { SELF, "0::/a\n", MOUNTS, "25 1 0:22 / /cg\\040two rw - cgroup2 cgroup2 rw\n",
        "/cg two/a/cpu.max", "200000 100000\n" },
      2 },
    { "numbers that make no sense",
      { SELF, "0::/a/b/c\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/b/c/cpu.max", "-5 100000\n",
        "/sys/fs/cgroup/a/b/cpu.max", "100000 0\n", "/sys/fs/cgroup/a/cpu.max", "hello\n" },
      0 },
    { "more than there can be",
      { SELF, "0::/a\n", MOUNTS, SECOND, "/sys/fs/cgroup/a/cpu.max", "9223372036854775807 1\n" },
      8192 },
    { "lines that are none",
      { SELF, "\n:\n0:\n0::\nx\n", MOUNTS, "\n - \n1 2 3 4 5 6 - cgroup2\n - cgroup2 a b\n" },
      0 },
};

static void test_trees(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(trees); i++) {
        root = temp_dir();
        for (size_t k = 0; k < FV_COUNT(trees[i].file) && trees[i].file[k]; k += 2)
            put(trees[i].file[k], trees[i].file[k + 1]);
        int cpus = fv_cgroup_cpus(root);
        if (cpus != trees[i].cpus)
            fail_msg("%s: %d, expected %d", trees[i].name, cpus, trees[i].cpus);
        temp_remove(root);
    }
}

static void test_this_process(void **state)
{
    (void)state;
    int cpus = fv_cgroup_cpus("");
    assert_in_range(cpus, 0, 8192);
    if (cpus)
        assert_true(fv_cpu_cores() <= cpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
