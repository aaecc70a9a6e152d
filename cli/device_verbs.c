/* fastvlm device push, run, bench: what goes to the phone, and what it does there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device_qairt.h"
#include "fastvlm_tools.h"

/* Both names of a precision: the reference Qualcomm pipeline's, and ours. */
#define DECODERS "auto|fp32|int8|int4|f32|z8|q4|bf16|f16"

/* What goes to the phone. */
typedef struct cargo {
    fv_device_push_options push;
    char *program, *packed; /* found here, packed here */
    const char *vision;     /* "cpu", "int8", "fp16", "npu:FILE" */
    const char *packed_dir;
    int decoder;
    fv_precision vision_precision, decoder_precision;
    bool skip;
} cargo;

/* clang-format off */
#define CARGO_OPTIONS(c)                                                                          \
    { 'm', "model", OPTION_TEXT, &(c).push.model, "FILE",                                         \
      "packed file, or a checkpoint directory, which is packed first (default: the built-in "     \
      "demonstration model)", 0, 0 },                                                             \
    { 0, "decoder", OPTION_CHOICE, &(c).decoder, DECODERS,                                        \
      "precision of the decoder: int8 is z8, int4 is q4", 0, 0 },                                 \
    { 0, "vision", OPTION_TEXT, &(c).vision, "cpu|int8|fp16|npu:FILE",                            \
      "vision encoder: as packed, in int8 or f16 on the CPU, or a context binary on the NPU",     \
      0, 0 },                                                                                     \
    { 0, "packed", OPTION_TEXT, &(c).packed_dir, "DIR",                                           \
      "where packed checkpoints are kept (default models/fastvlm-native)", 0, 0 },                \
    { 0, "program", OPTION_TEXT, &(c).push.program, "FILE",                                       \
      "fastvlm built for the phone (default: $FASTVLM_PHONE_PROGRAM, else what make arm64 or "    \
      "make android left)", 0, 0 },                                                               \
    { 0, "sdk", OPTION_TEXT, &(c).push.sdk, "DIR",                                                \
      "Qualcomm's SDK, for the NPU's libraries (default: $QNN_SDK_ROOT)", 0, 0 }
/* clang-format on */

/* ---- the program ------------------------------------------------------------------------- */

/* dir/name if there is such a file; to free. */
static char *file_beside(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = malloc(n);
    struct stat info;
    if (!path)
        return NULL;
    snprintf(path, n, "%s/%s", dir, name);
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode))
        return path;
    free(path);
    return NULL;
}

/* Where this program is; "" when that is not known. */
static void own_path(char path[1024])
{
    ssize_t n = readlink("/proc/self/exe", path, 1023);
    path[n > 0 ? n : 0] = '\0';
}

char *arm_program_find(void)
{
    static const char *const builds[] = { "fastvlm-arm64", "../android/fastvlm",
                                          "../arm64-static/fastvlm" };
    char own[1024], *found = NULL;
    own_path(own);
    char *slash = strrchr(own, '/');
    if (slash)
        *slash = '\0';
    for (size_t k = 0; slash && !found && k < sizeof builds / sizeof *builds; k++)
        found = file_beside(own, builds[k]);
    return found;
}

/* This program itself where the phone has the same processor; else that for Arm. */
static char *phone_program_find(const fv_device *device)
{
#if defined(__x86_64__)
    char own[1024];
    fv_device_info i = { .size = sizeof i };
    fv_device_describe(device, &i);
    if (!strcmp(i.machine, "x86_64")) {
        own_path(own);
        return strdup(own);
    }
#else
    (void)device;
#endif
    return arm_program_find();
}

static int program_take(cargo *c, const fv_device *device)
{
    const char *named = getenv("FASTVLM_PHONE_PROGRAM");
    if (!c->push.program && named && *named)
        c->push.program = named;
    if (!c->push.program)
        c->push.program = c->program = phone_program_find(device);
    if (c->push.program)
        return -1;
    print_err("fastvlm: no fastvlm for the phone: make arm64 builds one, --program names it\n");
    return EXIT_FAILED;
}

/* ---- the model --------------------------------------------------------------------------- */

static fv_precision cargo_precision(int choice)
{
    static const fv_precision precisions[] = {
        FV_PRECISION_AUTO, FV_PRECISION_F32, FV_PRECISION_Z8,   FV_PRECISION_Q4, FV_PRECISION_F32,
        FV_PRECISION_Z8,   FV_PRECISION_Q4,  FV_PRECISION_BF16, FV_PRECISION_F16
    };
    return precisions[choice];
}

static bool is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Has nothing in the checkpoint changed since it was packed? */
static bool packed_is_new(const char *packed, const char *checkpoint)
{
    static const char *const names[] = { "config.json", "model.safetensors",
                                         "model.safetensors.index.json", "tokenizer.json",
                                         "preprocessor_config.json" };
    struct stat made, part;
    if (stat(packed, &made) != 0)
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = file_beside(checkpoint, names[i]);
        bool newer = path && stat(path, &part) == 0 && part.st_mtime > made.st_mtime;
        free(path);
        if (newer)
            return false;
    }
    return true;
}

/* Those above path. Returns how many are new. */
static int directories_make(char *path)
{
    int n = 0;
    for (char *at = path + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        n += mkdir(path, 0777) == 0;
        *at = '/';
    }
    return n;
}

/* "models/fastvlm-native/FastVLM-0.5B_int8_z8.gguf" */
static char *packed_name(const cargo *c, fv_precision vision, fv_precision decoder)
{
    const char *dir = c->packed_dir ? c->packed_dir : "models/fastvlm-native";
    size_t end = strlen(c->push.model), begin;
    while (end > 1 && c->push.model[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && c->push.model[begin - 1] != '/'; begin--)
        ;
    size_t n = strlen(dir) + end - begin + 32;
    char *path = malloc(n);
    if (path)
        snprintf(path, n, "%s/%.*s_%s_%s.gguf", dir, (int)(end - begin), c->push.model + begin,
                 fv_precision_name(vision), fv_precision_name(decoder));
    return path;
}

/* A checkpoint directory is packed, once. */
static int model_take(cargo *c, const fv_callbacks *callbacks)
{
    fv_pack_options o;
    fv_error err;
    if (!c->push.model || !is_directory(c->push.model))
        return -1;
    fv_pack_options_default(&o);
    o.vision = c->vision_precision != FV_PRECISION_AUTO ? c->vision_precision : FV_PRECISION_INT8;
    o.decoder = c->decoder_precision != FV_PRECISION_AUTO ? c->decoder_precision : FV_PRECISION_Z8;
    o.callbacks = callbacks;
    if (!(c->packed = packed_name(c, o.vision, o.decoder)))
        return EXIT_FAILED;
    if (!packed_is_new(c->packed, c->push.model)) {
        print_err("packing %s into %s\n", c->push.model, c->packed);
        directories_make(c->packed);
        fv_status status = fv_pack(c->push.model, c->packed, &o, NULL, &err);
        clear_line();
        if (status != FV_OK)
            return report(&err);
    }
    c->push.model = c->packed;
    return -1;
}

/* ---- both -------------------------------------------------------------------------------- */

/* -1, or an exit code after saying that a file is missing; path NULL: none is named. */
static int cargo_file(const char *path, const char *what)
{
    struct stat info;
    if (!path || (stat(path, &info) == 0 && S_ISREG(info.st_mode)))
        return -1;
    print_err("fastvlm: %s: no such file; expected %s\n", path, what);
    return EXIT_FAILED;
}

/* What is wrong on this machine is said before a phone is looked for. */
static int cargo_check(const char *verb, cargo *c)
{
    struct stat info;
    const char *v = c->vision ? c->vision : "cpu", *sdk = getenv("QNN_SDK_ROOT");
    bool npu = !strncmp(v, "npu:", 4) && v[4];
    if (!npu && strcmp(v, "cpu") && strcmp(v, "int8") && strcmp(v, "fp16") && strcmp(v, "f16"))
        return usage_error(verb, "--vision: expected cpu|int8|fp16|npu:FILE, found \"%s\"", v);
    c->push.npu = npu ? v + 4 : NULL;
    c->vision_precision = !strcmp(v, "int8")        ? FV_PRECISION_INT8
                          : strstr(v, "16") && !npu ? FV_PRECISION_F16
                                                    : FV_PRECISION_AUTO;
    c->decoder_precision = cargo_precision(c->decoder);
    if (!c->push.sdk && sdk && *sdk)
        c->push.sdk = sdk;
    if (c->push.model && stat(c->push.model, &info) != 0) {
        print_err("fastvlm: %s: no such model; expected a checkpoint directory or a packed file\n",
                  c->push.model);
        return EXIT_FAILED;
    }
    int code = cargo_file(c->push.npu, "a context binary");
    return code < 0 ? cargo_file(c->push.program, "fastvlm built for the phone") : code;
}

/* Of this program on the phone, whose NPU needs libraries of the SDK. */
static int cargo_check_sdk(const cargo *c)
{
    fv_error err;
    return !c->push.npu || fv_device_check_sdk(c->push.sdk, false, &err) == FV_OK ? -1
                                                                                  : report(&err);
}

/* Everything that goes to the phone, found or made. */
static int cargo_take(cargo *c, const fv_device *device, const fv_callbacks *callbacks)
{
    int code = program_take(c, device);
    c->push.callbacks = callbacks;
    return code < 0 ? model_take(c, callbacks) : code;
}

static void cargo_free(cargo *c)
{
    free(c->program);
    free(c->packed);
}

static bool push_is_skipped(bool asked)
{
    const char *skip = getenv("SKIP_PUSH");
    return asked || (skip && !strcmp(skip, "1"));
}

/* Without the files that are sent. */
static void warning_line(void *user, fv_log_level level, const char *message)
{
    if (level == FV_LOG_WARNING)
        log_line(user, level, message);
}

static void be_quiet(bool quiet, progress_line *line, fv_callbacks *callbacks)
{
    line->enabled = !quiet;
    if (quiet)
        callbacks->log = warning_line;
}

/* ---- push -------------------------------------------------------------------------------- */

static int pushed_print(const fv_device_push_report *r, bool dry_run)
{
    if (r->n_sent == 0)
        print_out("all %zu files are there already\n", r->n_files);
    else
        print_out("%zu of %zu files %s, %.1f MB, %.1f s\n", r->n_sent, r->n_files,
                  dry_run ? "would be sent" : "sent", (double)r->n_bytes / 1e6, r->ms / 1e3);
    return end_out();
}

int device_push(int argc, char **argv)
{
    static const usage use = {
        "device push [OPTIONS]",
        "Sends the program, a model and, with --vision npu:FILE, a context binary with Qualcomm's "
        "libraries, as far as the phone does not have the same bytes. device run does the same; "
        "an interrupted push continues where it stopped.",
        "  fastvlm device push --model FastVLM-0.5B.gguf",
    };
    fv_device_options p = { .size = sizeof p };
    fv_device_push_report r = { .size = sizeof r };
    fv_device *device = NULL;
    fv_error err;
    cargo c = { 0 };
    bool json = false, quiet = false;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_device_push_options_default(&c.push);
    const option_spec options[] = {
        CARGO_OPTIONS(c),
        { 0, "verify", OPTION_FLAG, &c.push.verify, NULL,
          "have the phone hash what it has, instead of going by size and time", 0, 0 },
        { 0, "dry-run", OPTION_FLAG, &c.push.dry_run, NULL, "send nothing, say what would be sent",
          0, 0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no progress, no list of files", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        PHONE_OPTIONS(p),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    be_quiet(quiet, &line, &callbacks);
    code = cargo_check(argv[0], &c);
    if (code < 0)
        code = cargo_check_sdk(&c);
    if (code < 0)
        code = open_device(&device, &p, &callbacks);
    if (code < 0)
        code = cargo_take(&c, device, &callbacks);
    if (code < 0) {
        fv_status status = fv_device_push(device, &c.push, &r, &err);
        clear_line();
        if (status != FV_OK)
            code = report(&err);
        else if (json)
            code = print_json(json_pack("{s:i, s:i, s:I, s:f}", "files", (int)r.n_files, "sent",
                                        (int)r.n_sent, "bytes", (json_int_t)r.n_bytes, "ms", r.ms),
                              0);
        else
            code = pushed_print(&r, c.push.dry_run);
    }
    fv_device_close(device);
    cargo_free(&c);
    return code;
}

/* ---- run --------------------------------------------------------------------------------- */

static void answer_show(void *user, const char *text, size_t n_bytes)
{
    bool *some = user;
    clear_line();
    *some = true;
    write_out(text, n_bytes);
}

static int device_run_print(const fv_device *device, const fv_device_run_report *r,
                            const char *answer, bool json)
{
    double rate = r->decode_ms > 0 ? (r->new_tokens - 1) / r->decode_ms * 1e3 : 0;
    if (!json) {
        print_err("%.1f MB sent in %.1f s · on the phone: load %.0f ms · image %.0f ms · first "
                  "token after %.0f ms · %d tokens, %.1f tok/s · peak memory %.0f MB\n%s\n",
                  (double)r->sent_bytes / 1e6, r->push_ms / 1e3, r->load_ms, r->image_ms,
                  r->first_token_ms, r->new_tokens, rate, (double)r->peak_bytes / 1e6, r->dir);
        return end_out();
    }
    return print_json(
        json_pack("{s:o, s:o, s:o, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "text",
                  json_text(answer ? answer : ""), "directory", json_text(r->dir), "device",
                  device_json(device), "image_tokens", r->image_tokens, "prompt_tokens",
                  r->prompt_tokens, "new_tokens", r->new_tokens, "load_ms", r->load_ms, "image_ms",
                  r->image_ms, "first_token_ms", r->first_token_ms, "decode_ms", r->decode_ms,
                  "push_ms", r->push_ms, "run_ms", r->run_ms, "sent_bytes",
                  (json_int_t)r->sent_bytes, "peak_rss_bytes", (json_int_t)r->peak_bytes),
        6);
}

/* The answer as a whole, for --json. */
typedef struct whole_answer {
    char *text;
    size_t n;
} whole_answer;

static void answer_collect(void *user, const char *text, size_t n_bytes)
{
    whole_answer *a = user;
    char *grown = realloc(a->text, a->n + n_bytes + 1);
    if (!grown)
        return;
    memcpy(grown + a->n, text, n_bytes);
    a->text = grown;
    a->n += n_bytes;
    a->text[a->n] = '\0';
}

/* Can results be written there? The directories that this takes are gone again. */
static int results_check(const char *dir)
{
    char *path = strdup(dir), probe[] = "/.fastvlm-XXXXXX";
    size_t n = strlen(dir) + sizeof probe;
    char *full = malloc(n);
    int code = -1, n_made = 0;
    if (path && full) {
        snprintf(full, n, "%s%s", dir, probe);
        n_made = directories_make(full);
        if (!mkdtemp(full)) {
            print_err("fastvlm: %s: cannot create the directory: %s\n", dir, strerror(errno));
            code = EXIT_FAILED;
        } else {
            rmdir(full);
        }
        for (size_t end = strlen(path); end > 1 && path[end - 1] == '/';)
            path[--end] = '\0';
        for (; n_made > 0 && rmdir(path) == 0; n_made--) {
            char *slash = strrchr(path, '/');
            if (!slash)
                break;
            *slash = '\0';
        }
    }
    free(path);
    free(full);
    return code;
}

/* -1, or an exit code after saying what is wrong with the image or the place of the results. */
static int device_run_check(const char *path, const char *output)
{
    fv_image *image = NULL;
    fv_error err;
    if (open_image(&image, path, NULL, &err) != FV_OK)
        return report(&err);
    fv_image_free(image);
    return results_check(output ? output : "run_outputs");
}

int device_run(int argc, char **argv)
{
    static const usage use = {
        "device run [OPTIONS] IMAGE PROMPT",
        "Answers a question about an image on the phone: sends what is not there yet, runs, and "
        "streams the answer. Results go to a directory of their own: answer.txt, profile.json, "
        "run.log.\n"
        "\n"
        "--with qairt runs Qualcomm's qnn-net-run and genie-t2t-run there, on the files that the "
        "reference Qualcomm pipeline makes in models/; --model gives tokenizer and embedding.",
        "  fastvlm device run photo.jpg \"What is this?\" --model FastVLM-0.5B.gguf",
    };
    fv_device_options p = { .size = sizeof p };
    fv_device_run_options o;
    fv_device_run_report r = { .size = sizeof r };
    fv_device *device = NULL;
    fv_error err;
    text_list words;
    cargo c = { 0 };
    whole_answer whole = { 0 };
    phone_qairt q = { 0 };
    int way = 0;
    bool json = false, quiet = false, some = false;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_device_run_options_default(&o);
    fv_device_push_options_default(&c.push);
    const option_spec options[] = {
        CARGO_OPTIONS(c),
        { 'n', "max-new-tokens", OPTION_INT, &o.max_new_tokens, "N",
          "maximum length of the answer in tokens; 0: as much as the context allows", 0, 1e6 },
        { 0, "image-size", OPTION_SIDE, &o.image_size, "N",
          "side of the vision encoder's input in pixels, a multiple of 64; 0: the model's own", 0,
          4096 },
        { 't', "threads", OPTION_INT, &o.n_threads, "N", "threads on the phone", 0, 1024 },
        { 0, "with", OPTION_CHOICE, &way, "native|qairt", "what runs on the phone", 0, 0 },
        { 0, "models", OPTION_TEXT, &q.models, "DIR",
          "the pipeline's files, for --with qairt (default models)", 0, 0 },
        { 0, "embedder", OPTION_TEXT, &q.embedder, "FILE",
          "context binary of the embedder, for --with qairt (default: the model's own embedding)",
          0, 0 },
        { 0, "skip-push", OPTION_FLAG, &c.skip, NULL,
          "send only image and question; all else is there (also SKIP_PUSH=1)", 0, 0 },
        { 'o', "output", OPTION_TEXT, &o.output, "DIR",
          "where directories of results are made (default run_outputs)", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object instead of text", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no progress and no timings", 0, 0 },
        PHONE_OPTIONS(p),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 2)
        return usage_error(argv[0], "expected an image and a question, found %zu arguments",
                           words.n);
    code = check_text(argv[0], "the question", words.item[1]);
    if (code < 0)
        code = cargo_check(argv[0], &c);
    be_quiet(quiet, &line, &callbacks);
    if (code < 0 && way && (json || !c.push.model))
        code = usage_error(argv[0], json ? "--with qairt prints text, not JSON"
                                         : "--with qairt needs --model, a checkpoint or packed "
                                           "file");
    if (code < 0)
        code = device_run_check(words.item[0], o.output);
    if (code < 0 && !way)
        code = cargo_check_sdk(&c);
    if (code < 0 && way) {
        q.image = words.item[0];
        q.prompt = words.item[1];
        q.model = c.push.model;
        q.vision = c.vision;
        q.sdk = c.push.sdk;
        q.output = o.output;
        q.decoder = c.decoder_precision;
        q.max_new_tokens = o.max_new_tokens;
        q.n_threads = o.n_threads;
        q.skip_push = push_is_skipped(c.skip);
        q.quiet = quiet;
        q.callbacks = &callbacks;
        code = device_find_qairt(&q);
    }
    if (code < 0)
        code = open_device(&device, &p, &callbacks);
    if (way)
        callbacks.log = warning_line; /* not every command of the SDK's programs */
    if (code < 0 && way)
        code = device_run_qairt(device, &q);
    if (code < 0)
        code = cargo_take(&c, device, &callbacks);
    if (code < 0) {
        o.push = &c.push;
        o.skip_push = push_is_skipped(c.skip);
        o.vision = c.vision_precision;
        o.decoder = c.decoder_precision;
        o.text = json ? answer_collect : answer_show;
        o.text_user = json ? (void *)&whole : (void *)&some;
        o.callbacks = &callbacks;
        fv_status status = fv_device_run(device, words.item[0], words.item[1], &o, &r, &err);
        clear_line();
        if (!json && (some || status == FV_OK))
            write_out("\n", 1);
        code = status != FV_OK  ? report(&err)
               : quiet && !json ? end_out()
                                : device_run_print(device, &r, whole.text, json);
    }
    fv_device_close(device);
    cargo_free(&c);
    free(whole.text);
    return code;
}

/* ---- bench ------------------------------------------------------------------------------- */

static void state_show(const json_t *root, const char *when)
{
    const json_t *state = json_object_get(root, when);
    const json_t *hottest = json_object_get(state, "hottest_celsius");
    const json_t *clock = json_array_get(json_object_get(state, "clocks"), 0);
    print_out("%-8s ", when);
    if (hottest)
        print_out("hottest %.1f C", json_number_value(hottest));
    else
        print_out("temperatures cannot be read");
    if (clock)
        print_out(", governor %s", json_string_value(json_object_get(clock, "governor")));
    print_out("\n");
}

static int bench_show(const char *text)
{
    json_error_t why;
    json_t *root = json_loads(text, 0, &why), *stage;
    size_t i;
    if (!root) {
        print_err("fastvlm: the phone's figures are not JSON: %s\n", why.text);
        return EXIT_FAILED;
    }
    state_show(root, "before");
    print_out("%-12s %-6s %10s %10s %10s\n", "stage", "type", "best ms", "median ms", "tokens/s");
    json_array_foreach(json_object_get(json_object_get(root, "bench"), "stages"), i, stage)
    {
        const json_t *rate = json_object_get(stage, "tokens_per_second");
        const char *name = json_string_value(json_object_get(stage, "name"));
        const char *type = json_string_value(json_object_get(stage, "precision"));
        print_out("%-12s %-6s %10.2f %10.2f", name ? name : "", type ? type : "",
                  json_number_value(json_object_get(stage, "best_ms")),
                  json_number_value(json_object_get(stage, "median_ms")));
        if (rate)
            print_out(" %10.1f", json_number_value(rate));
        print_out("\n");
    }
    state_show(root, "after");
    json_decref(root);
    return end_out();
}

int device_bench(int argc, char **argv)
{
    static const usage use = {
        "device bench [OPTIONS]",
        "Times every stage of a model on the phone with fastvlm bench, and shows temperatures and "
        "clocks before and after.",
        "  fastvlm device bench --model FastVLM-0.5B.gguf --reps 5",
    };
    fv_device_options p = { .size = sizeof p };
    fv_device_bench_options o;
    fv_device_bench *bench = NULL;
    fv_device *device = NULL;
    fv_error err;
    cargo c = { 0 };
    bool json = false, quiet = false;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_device_bench_options_default(&o);
    fv_device_push_options_default(&c.push);
    const option_spec options[] = {
        CARGO_OPTIONS(c),
        { 'r', "reps", OPTION_INT, &o.reps, "N", "number of timed repetitions (default 5)", 1,
          1000 },
        { 0, "tokens", OPTION_INT, &o.tokens, "N", "tokens to decode per repetition (default 32)",
          2, 100000 },
        { 0, "stages", OPTION_TEXT, &o.stages, "LIST", "only these, separated by commas", 0, 0 },
        { 't', "threads", OPTION_INT, &o.n_threads, "N", "threads on the phone", 0, 1024 },
        { 0, "skip-push", OPTION_FLAG, &c.skip, NULL, "everything is there (also SKIP_PUSH=1)", 0,
          0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no progress, no list of files", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        PHONE_OPTIONS(p),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    be_quiet(quiet, &line, &callbacks);
    code = cargo_check(argv[0], &c);
    if (code < 0)
        code = cargo_check_sdk(&c);
    if (code < 0)
        code = open_device(&device, &p, &callbacks);
    if (code < 0)
        code = cargo_take(&c, device, &callbacks);
    if (code < 0) {
        o.push = &c.push;
        o.skip_push = push_is_skipped(c.skip);
        o.vision = c.vision_precision;
        o.decoder = c.decoder_precision;
        o.callbacks = &callbacks;
        fv_status status = fv_device_bench_run(device, &o, &bench, &err);
        clear_line();
        if (status != FV_OK)
            code = report(&err);
        else if (json)
            code = write_out(fv_device_bench_json(bench), strlen(fv_device_bench_json(bench)))
                       ? EXIT_OK
                       : end_out();
        else
            code = bench_show(fv_device_bench_json(bench));
    }
    fv_device_bench_free(bench);
    fv_device_close(device);
    cargo_free(&c);
    return code;
}
