/* fastvlm handoff: from a checkpoint to the files that a Snapdragon phone needs. */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "fastvlm_handoff.h"

#define VISION_CHOICES "mixed|w8a8|w8a16"

typedef struct handoff_view {
    const char *dir;
    bool dry_run, quiet, one_step;
    json_t *json; /* a list of steps; NULL: text */
    size_t n_files, n_missing, n_listed, n_listed_missing;
    progress_line line;
} handoff_view;

static void handoff_log(void *user, fv_log_level level, const char *message)
{
    handoff_view *v = user;
    clear_line();
    if (level == FV_LOG_WARNING)
        print_err("fastvlm: warning: %s\n", message);
    else if (!v->quiet && !v->json)
        print_err("%s\n", message);
}

static bool handoff_progress(void *user, const char *stage, double done)
{
    handoff_view *v = user;
    return show_progress(&v->line, stage, done);
}

static json_t *handoff_file_json(const fv_handoff_file *f)
{
    json_t *o = json_object();
    json_set_text(o, "path", f->path);
    if (f->sha256) {
        json_object_set_new(o, "bytes", json_integer((json_int_t)f->n_bytes));
        json_set_text(o, "sha256", f->sha256);
    }
    if (f->reason)
        json_set_text(o, "reason", f->reason);
    if (f->command)
        json_set_text(o, "command", f->command);
    return o;
}

static void handoff_step_json(json_t *list, const fv_handoff_step *s, bool dry_run)
{
    json_t *files = json_array(), *missing = json_array();
    for (size_t i = 0; i < s->n_files + s->n_missing; i++) {
        const fv_handoff_file *f = &s->file[i];
        json_array_append_new(f->sha256 || (dry_run && !f->reason) ? files : missing,
                              handoff_file_json(f));
    }
    json_array_append_new(list,
                          json_pack("{s:i, s:s, s:s, s:s, s:b, s:f, s:o, s:o}", "step", s->step,
                                    "name", s->name, "way", s->way, "state", s->state, "kept",
                                    (int)s->kept, "ms", s->ms, "files", files, "missing", missing));
}

/* "a/models" and "../handoff/x": "a/handoff/x" */
static void handoff_path_show(char *text, size_t size, const char *dir, const char *path)
{
    const char *last = strrchr(dir, '/'), *name = last ? last + 1 : dir;
    if (!strncmp(path, "../", 3) && *name && *name != '.')
        snprintf(text, size, "%.*s%s", (int)(name - dir), dir, path + 3);
    else
        snprintf(text, size, "%s/%s", dir, path);
}

static void handoff_file_print(const handoff_view *v, const fv_handoff_file *f)
{
    char path[4200];
    handoff_path_show(path, sizeof path, v->dir, f->path);
    if (f->sha256)
        print_out("    %s  %.1f MB%s%s\n", path, (double)f->n_bytes / 1e6, f->reason ? ", " : "",
                  f->reason ? f->reason : "");
    else if (!f->reason)
        print_out("    %s\n", path);
    else
        print_out("    missing: %s\n        %s\n", path, f->reason);
}

static const char *handoff_state_text(const char *state)
{
    if (!strcmp(state, "kept"))
        return "kept as it was: no QNN libraries now; fastvlm npu setup fetches them";
    if (!strcmp(state, "left out"))
        return "left out: no QNN libraries; fastvlm npu setup fetches them";
    return "not needed without the AI Hub";
}

/* Several files may come from one command: it is shown once, behind the last of them. */
static void handoff_step_print(const handoff_view *v, const fv_handoff_step *s)
{
    size_t n = s->n_files + s->n_missing;
    if (!strcmp(s->state, "planned"))
        print_out("%d %-10s %s, to be made\n", s->step, s->name, s->way);
    else if (!strcmp(s->state, "made") || !strcmp(s->state, "complete"))
        print_out("%d %-10s %s, %s, %.1f s\n", s->step, s->name, s->way,
                  s->kept ? "complete already, checked" : "done", s->ms / 1e3);
    else
        print_out("%d %-10s %s\n", s->step, s->name, handoff_state_text(s->state));
    for (size_t i = 0; i < n && !v->quiet; i++) {
        const fv_handoff_file *f = &s->file[i];
        handoff_file_print(v, f);
        bool again = i + 1 < n && f->command && s->file[i + 1].command &&
                     !strcmp(f->command, s->file[i + 1].command);
        if (f->command && !again)
            print_out("        $ %s\n", f->command);
    }
}

static void handoff_show(void *user, const fv_handoff_step *s)
{
    handoff_view *v = user;
    clear_line();
    v->n_files += s->n_files;
    v->n_missing += s->n_missing;
    v->n_listed = s->n_listed;
    v->n_listed_missing = s->n_listed_missing;
    if (v->json)
        handoff_step_json(v->json, s, v->dry_run);
    else
        handoff_step_print(v, s);
}

static int handoff_end(handoff_view *v)
{
    if (v->json)
        return print_json(json_pack("{s:o, s:O}", "directory", json_text(v->dir), "steps", v->json),
                          0);
    if (v->one_step && !v->dry_run)
        print_out("this step: %zu files, %zu missing\n", v->n_files, v->n_missing);
    if (!v->dry_run)
        print_out("%s/manifest.json: %zu files, %zu missing\n", v->dir, v->n_listed,
                  v->n_listed_missing);
    return end_out();
}

/* "qairt,hub" -> flags; 0: not understood */
static unsigned ways_parse(const char *list)
{
    if (!strcmp(list, "qairt"))
        return FV_HANDOFF_QAIRT;
    if (!strcmp(list, "hub"))
        return FV_HANDOFF_HUB;
    return !strcmp(list, "qairt,hub") || !strcmp(list, "hub,qairt")
               ? FV_HANDOFF_QAIRT | FV_HANDOFF_HUB
               : 0;
}

int verb_handoff(int argc, char **argv)
{
    static const usage use = {
        "handoff [OPTIONS] CHECKPOINT",
        "Makes from a checkpoint directory or packed file what a Snapdragon phone needs, in the "
        "six steps of the reference Qualcomm pipeline, with its names: ONNX graphs, calibration "
        "samples, fp16 context binaries, the int8 vision encoder, Genie's files. Needs no SDK; "
        "with Qualcomm's libraries (npu setup) it compiles for the NPU. Files that only a tool of "
        "Qualcomm's writes are listed with the reason and the command that makes them. Run again, "
        "it continues where it stopped: steps whose files are intact are skipped.",
        "  fastvlm handoff FastVLM-0.5B --images photos/",
    };
    static const fv_npu_precision precisions[] = { FV_NPU_MIXED, FV_NPU_W8A8, FV_NPU_W8A16 };
    handoff_view v = { .dir = "models" };
    fv_handoff_options o;
    fv_error err;
    text_list words, images = { 0 };
    const char *with = NULL;
    int vision = -1;
    bool json = false;
    fv_callbacks callbacks = {
        .size = sizeof callbacks, .log = handoff_log, .progress = handoff_progress, .user = &v
    };

    fv_handoff_options_default(&o);
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &v.dir, "DIR", "directory to write (default: models)", 0, 0 },
        { 'i', "images", OPTION_LIST, &images, "PATH",
          "image or directory to calibrate with; may be repeated (default: noise, and built-in "
          "scenes for the NPU)",
          0, 0 },
        { 'n', "samples", OPTION_INT, &o.max_images, "N", "use at most N of them", 1, 100000 },
        { 0, "soc", OPTION_TEXT, &o.soc, "SOC", "chip (default sm8750); npu socs lists them", 0,
          0 },
        { 0, "vision", OPTION_CHOICE, &vision, VISION_CHOICES,
          "bits of the int8 vision encoder (default mixed; by the SDK's tools w8a8, as the "
          "pipeline)",
          0, 0 },
        { 0, "image-size", OPTION_SIDE, &o.image_size, "N",
          "side of the encoder's input in pixels, a multiple of 64 (default: the model's)", 64,
          4096 },
        { 0, "with", OPTION_TEXT, &with, "LIST",
          "qairt: steps 5 and 6 by the SDK's tools; hub: steps 3 and 4 by the AI Hub; or both", 0,
          0 },
        { 0, "sdk", OPTION_TEXT, &o.sdk, "DIR", "the SDK (default: as qairt check finds it)", 0,
          0 },
        { 0, "venv", OPTION_TEXT, &o.venv, "DIR", "Python environment of the SDK's converters", 0,
          0 },
        { 0, "step", OPTION_INT, &o.step, "N", "only this step: 1 to 6", 1, FV_HANDOFF_STEPS },
        { 0, "dry-run", OPTION_FLAG, &o.dry_run, NULL,
          "make nothing: say which steps are complete, and of the others the files and every "
          "command of Qualcomm's tools",
          0, 0 },
        { 0, "qnn", OPTION_TEXT, &o.qnn_dir, "DIR", "directory of Qualcomm's libraries", 0, 0 },
        { 0, "force", OPTION_FLAG, &o.force, NULL,
          "replace files of the same names that no handoff made", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &v.quiet, NULL, "no progress, only the result", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1)
        return usage_error(argv[0], "expected one model, found %zu arguments", words.n);
    if (with && !(o.with = ways_parse(with)))
        return usage_error(argv[0], "--with: expected qairt, hub or qairt,hub, found \"%s\"", with);
    v.dry_run = o.dry_run;
    v.one_step = o.step != 0;
    v.line.enabled = !v.quiet;
    v.json = json ? json_array() : NULL;
    o.paths = images.item;
    o.n_paths = images.n;
    if ((o.sdk || o.venv) && !(o.with & FV_HANDOFF_QAIRT))
        return usage_error(argv[0], "%s is for --with qairt", o.sdk ? "--sdk" : "--venv");
    o.vision = vision >= 0                 ? precisions[vision]
               : o.with & FV_HANDOFF_QAIRT ? FV_NPU_W8A8
                                           : FV_NPU_MIXED;
    o.callbacks = &callbacks;
    catch_interrupt();
    fv_status status = fv_handoff(words.item[0], v.dir, &o, handoff_show, &v, &err);
    clear_line();
    code = status == FV_OK ? handoff_end(&v) : report(&err);
    json_decref(v.json);
    return code;
}
