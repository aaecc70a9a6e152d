/* fastvlm doctor, second half: what the way to a Snapdragon phone needs. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "doctor.h"
#include "fastvlm_qairt.h"
#include "npu.h"

/* What is asked in other processes must answer in this time: a line never hangs. */
#define ANSWER_SECONDS 15

/* fv_progress_fn; user: when the asking began. */
static bool answer_overdue(void *user, const char *stage, double done)
{
    (void)stage;
    (void)done;
    return interrupted() || time(NULL) - *(time_t *)user > ANSWER_SECONDS;
}

static fv_callbacks answer_callbacks(time_t *began)
{
    *began = time(NULL);
    return (
        fv_callbacks){ .size = sizeof(fv_callbacks), .progress = answer_overdue, .user = began };
}

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

/* The program that device push and device run would send. */
static void arm_program_line(doctor *d)
{
    const char *named = getenv("FASTVLM_PHONE_PROGRAM");
    char *built = arm_program_find();
    if (named && *named)
        doctor_find(d, "program", access(named, R_OK) == 0, "%s (FASTVLM_PHONE_PROGRAM)%s", named,
                    access(named, R_OK) == 0 ? ", for the phone" : ": no such file");
    else if (built)
        doctor_find(d, "program", true, "%s, for the phone", built);
    else
        doctor_find(d, "program", false, "none is built for the phone");
    if (!(named && *named) && !built)
        doctor_note(d, "make arm64 builds it; make android, with an NDK, one that also uses the "
                       "NPU");
    free(built);
}

/* adb, and exactly one phone that lets us in; its NPU. */
static void phone_lines(doctor *d)
{
    time_t began;
    fv_callbacks callbacks = answer_callbacks(&began);
    fv_device_options o = { .size = sizeof o,
                            .serial = getenv("ANDROID_SERIAL"),
                            .callbacks = &callbacks };
    fv_device_info i = { .size = sizeof i };
    fv_device *phone;
    fv_error err;
    if (o.serial && !*o.serial)
        o.serial = NULL;
    if (fv_device_open(&phone, &o, &err) != FV_OK) {
        doctor_find(d, "phone", false, "%s", err.message);
        if (strstr(err.message, "adb: program not found"))
            doctor_note(d, "apt install adb (Debian, Ubuntu), or put Android's platform-tools on "
                           "PATH");
        else if (strstr(err.message, "none is chosen"))
            doctor_note(d, "export ANDROID_SERIAL=SERIAL, with that of one of them");
        return;
    }
    fv_device_describe(phone, &i);
    doctor_find(d, "phone", true, "%s: %s %s, Android %s, %.1f GB free in %s", i.serial, i.maker,
                i.model, i.android, (double)i.free_bytes / 1e9, i.dir);
    doctor_find(d, "htp", *i.chip != 0, "%s%s%s",
                *i.chip ? i.chip : "not of a chip that is known: ", *i.chip ? ", " : "",
                *i.chip ? i.product : i.soc);
    char soc[32];
    size_t n = 0;
    for (; i.chip[n] && n + 1 < sizeof soc; n++) /* as it is typed */
        soc[n] = (char)tolower((unsigned char)i.chip[n]);
    soc[n] = '\0';
    if (*i.chip)
        doctor_note(d, "Hexagon v%u; context binaries for it: fastvlm npu compile --soc %s",
                    i.htp_version, soc);
    else
        doctor_note(d, "fastvlm npu socs lists those that can be compiled for; the CPU answers on "
                       "any phone");
    fv_device_close(phone);
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
    time_t began;
    fv_callbacks callbacks = answer_callbacks(&began);
    bool ok = npu_summary(text, sizeof text, &callbacks);
    doctor_find(d, "npu", ok, "%s", text);
}

/* What to type for the Python of the SDK's converters; python: the one there is, or NULL. */
static void python_notes(doctor *d, const fv_qairt_info *i)
{
    if (i && !strncmp(i->python_version, "3.10.", 5) && strchr(i->python, '/')) {
        doctor_note(d, "%s -m pip install numpy onnx pyyaml", i->python);
    } else {
        doctor_note(d, "python3.10 -m venv qnn_env && qnn_env/bin/pip install numpy onnx pyyaml");
        doctor_note(d, "export VIRTUAL_ENV=$PWD/qnn_env");
    }
    doctor_note(d, "for the rest of its modules: bin/check-python-dependency in the SDK");
}

/* The SDK and the Python that its converters run with. */
static void sdk_lines(doctor *d)
{
    fv_qairt_info i = { .size = sizeof i };
    fv_error err;
    fv_status status = fv_qairt_check(&i, NULL, &err);
    if (status != FV_OK) {
        doctor_find(d, "sdk", false, "%s", err.message);
        doctor_note(d, "only for fastvlm qairt and genie, handoff and device run --with qairt, and "
                       "the phone's NPU: unpack QAIRT " FV_QAIRT_OLDEST " or newer, then");
        doctor_note(d, "export QNN_SDK_ROOT=$HOME/qairt/" FV_QAIRT_OLDEST);
        doctor_find(d, "python", false,
                    "not looked for without an SDK, whose converters need 3.10");
        python_notes(d, NULL);
        return;
    }
    doctor_find(d, "sdk", !i.n_absent, "QAIRT %s in %s (named by %s)", i.version, i.dir,
                i.named_by);
    if (i.n_absent)
        doctor_note(d, "%zu of its %zu tools %s missing; fastvlm qairt check names %s", i.n_absent,
                    i.n_tools, i.n_absent == 1 ? "is" : "are", i.n_absent == 1 ? "it" : "them");
    doctor_find(d, "python", !*i.python_problem, "%s%s%s, for the SDK's converters", i.python,
                *i.python_version ? ", " : "", i.python_version);
    if (*i.python_problem) {
        doctor_note(d, "%s", i.python_problem);
        python_notes(d, &i);
    }
}

/* The AI Hub's client and whether it has a token, which is never shown. */
static void hub_line(doctor *d)
{
    time_t began;
    fv_callbacks callbacks = answer_callbacks(&began);
    fv_aihub_options o = { .size = sizeof o, .retries = -1, .callbacks = &callbacks };
    fv_aihub_account a = { .size = sizeof a };
    fv_error err;
    if (fv_aihub_find(&a, &o, &err) != FV_OK) {
        doctor_find(d, "hub", false, "%s", err.message);
    } else if (!*a.client) {
        doctor_find(d, "hub", false, "no qai-hub on PATH; %s token in %s",
                    a.has_token ? "there is a" : "no", a.config);
        doctor_note(d, "only for fastvlm hub, see docs/hub.md:");
        doctor_note(d, "python3 -m venv hub-env && hub-env/bin/pip install qai-hub==0.56.0");
        if (!a.has_token)
            doctor_note(d, "hub-env/bin/qai-hub configure --api_token TOKEN");
        doctor_note(d, "export PATH=$PWD/hub-env/bin:$PATH");
    } else if (!*a.version) {
        doctor_find(d, "hub", false, "%s is there, but not its package in %s", a.client,
                    *a.python ? a.python : "its Python");
        doctor_note(d, "%s -m pip install qai-hub==0.56.0", *a.python ? a.python : "python3");
    } else if (!a.has_token) {
        doctor_find(d, "hub", false, "qai-hub %s, without a token in %s", a.version, a.config);
        doctor_note(d, "qai-hub configure --api_token TOKEN, with yours of the AI Hub's settings");
    } else {
        doctor_find(d, "hub", true, "qai-hub %s, with a token in %s", a.version, a.config);
    }
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
    sdk_lines(d);
    ndk_line(d);
    phone_lines(d);
    arm_program_line(d);
    hub_line(d);
    disk_line(d);
}
