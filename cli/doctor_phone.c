/* fastvlm doctor, second half: what the way to a Snapdragon phone needs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "doctor.h"
#include "npu.h"

static bool file_is_in(const char *dir, const char *name)
{
    char path[2048];
    struct stat st;
    return (size_t)snprintf(path, sizeof path, "%s/%s", dir, name) < sizeof path &&
           stat(path, &st) == 0;
}

/* "26.3.11579264" of the NDK's source.properties; false when it says none. */
static bool ndk_revision(const char *ndk, char revision[64])
{
    char path[2048], line[256];
    bool found = false;
    snprintf(path, sizeof path, "%s/source.properties", ndk);
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "Pkg.Revision = %63s", revision) == 1;
    if (f)
        fclose(f);
    return found;
}

static void ndk_line(doctor *d)
{
    const char *ndk = getenv("ANDROID_NDK_ROOT");
    char revision[64] = "of an unknown version";
    if (!ndk || !*ndk) {
        doctor_find(d, "ndk", false, "ANDROID_NDK_ROOT is not set");
        doctor_note(d, "only for make android and for model libraries of the SDK: unpack an "
                       "Android NDK, r26 or later, then");
        doctor_note(d, "export ANDROID_NDK_ROOT=$HOME/android-ndk-r27c");
    } else if (!file_is_in(ndk, "build/cmake/android.toolchain.cmake")) {
        doctor_find(d, "ndk", false,
                    "%s (ANDROID_NDK_ROOT) is no Android NDK: it has no "
                    "build/cmake/android.toolchain.cmake",
                    ndk);
        doctor_note(d, "set ANDROID_NDK_ROOT to the directory that holds ndk-build");
    } else {
        ndk_revision(ndk, revision);
        doctor_find(d, "ndk", true, "%s in %s", revision, ndk);
    }
}

static void npu_line(doctor *d)
{
    char text[1200];
    doctor_find(d, "npu", npu_summary(text, sizeof text), "%s", text);
}

static void disk_line(doctor *d)
{
    enum { NEEDED_MB = 9000 };
    struct statvfs fs;
    if (statvfs(".", &fs) != 0 || fs.f_blocks == 0) /* a system that does not say */
        return;
    double free_mb = (double)fs.f_bavail * (double)fs.f_frsize / 1e6;
    doctor_find(d, "disk", free_mb > NEEDED_MB,
                "%.1f GB free here (fastvlm handoff of FastVLM-0.5B takes up to %.0f)",
                free_mb / 1e3, NEEDED_MB / 1e3);
    if (free_mb <= NEEDED_MB)
        doctor_note(d, "make room, or give fastvlm handoff another disk: -o DIR");
}

void doctor_phone(doctor *d)
{
    npu_line(d);
    ndk_line(d);
    disk_line(d);
}
