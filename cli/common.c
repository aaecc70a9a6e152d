/* Opening the model, the built-in one, telling arguments apart, progress, Ctrl-C, memory. See
 * cli.h. */
#include "cli.h"
#include "program/sniff.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool cancelled_is_muted;

void mute_cancelled(void) { cancelled_is_muted = true; }

int report(const fv_error *err)
{
    if (err->status == FV_ERR_CANCELLED && cancelled_is_muted)
        return EXIT_FAILED;
    const char *hint = hint_for(err);
    fprintf(stderr, "fastvlm: %s%s%s\n", err->message, hint ? "; " : "", hint ? hint : "");
    return EXIT_FAILED;
}

void log_line(void *user, fv_log_level level, const char *message)
{
    if (user)
        clear_progress(user);
    fprintf(stderr, "fastvlm: %s%s\n", level == FV_LOG_WARNING ? "warning: " : "", message);
}

fv_precision chosen_precision(const char *choices, int index)
{
    char name[16];
    fv_precision precision = FV_PRECISION_AUTO;
    for (; index > 0; index--)
        choices = strchr(choices, '|') + 1;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(choices, "|"), choices);
    fv_precision_parse(name, &precision);
    return precision;
}

fv_callbacks line_callbacks(progress_line *p)
{
    return (fv_callbacks){
        .size = sizeof(fv_callbacks), .log = log_line, .progress = show_progress, .user = p
    };
}

int open_engine(fv_engine **out, const model_options *m)
{
    fv_engine_options s;
    fv_error err;
    fv_engine_options_default(&s);
    s.n_threads = m->threads;
    s.vision = chosen_precision(VISION_PRECISIONS, m->vision);
    s.decoder = chosen_precision(DECODER_PRECISIONS, m->decoder);
    s.image_size = m->image_size;
    s.kv = (fv_kv_type)m->kv;
    s.callbacks = &(fv_callbacks){ .size = sizeof(fv_callbacks), .log = log_line };
    const void *data;
    size_t n_bytes;
    fv_status status = !m->model && demo_model(&data, &n_bytes)
                           ? fv_engine_open_memory(out, data, n_bytes, &s, &err)
                           : fv_engine_open(out, m->model, &s, &err);
    return status == FV_OK ? -1 : report(&err);
}

/* ---- the demonstration model ------------------------------------------------------------- */

#ifdef FASTVLM_DEMO_MODEL
extern const unsigned char demo_model_begin[], demo_model_end[]; /* demo_model.S */

bool demo_model(const void **data, size_t *n_bytes)
{
    *data = demo_model_begin;
    *n_bytes = (size_t)((uintptr_t)demo_model_end - (uintptr_t)demo_model_begin);
    return true;
}
#else
bool demo_model(const void **data, size_t *n_bytes)
{
    *data = NULL;
    *n_bytes = 0;
    return false;
}
#endif

const char *model_name(const model_options *m)
{
    return m->model ? m->model : "built-in demonstration model";
}

int check_model(const char *verb, const model_options *m, bool quiet)
{
    const void *data;
    size_t n_bytes;
    if (m->model)
        return -1;
    if (!demo_model(&data, &n_bytes))
        return usage_error(
            verb, "no model given; expected a checkpoint directory or a packed file (fastvlm "
                  "pull apple/FastVLM-0.5B fetches a checkpoint)");
    if (!quiet)
        fprintf(stderr, "using the built-in demonstration model, which knows only drawn shapes and "
                        "printed words; fastvlm pull apple/FastVLM-0.5B fetches a real one\n");
    return -1;
}

/* ---- images ------------------------------------------------------------------------------ */

enum { MAX_INPUT_BYTES = 1 << 30 };

/* All of standard input; NULL, and why in *err, when it cannot be read or is too long. */
static unsigned char *stdin_read(size_t *n, fv_error *err)
{
    unsigned char *data = NULL;
    size_t capacity = 0;
    *err = (fv_error){ .status = FV_OK };
    for (*n = 0; !err->status && !feof(stdin);) {
        if (*n == capacity) {
            capacity = capacity ? capacity * 2 : 1 << 16;
            unsigned char *grown = realloc(data, capacity);
            if (!grown) {
                *err = (fv_error){ .status = FV_ERR_MEMORY,
                                   .message = "out of memory: reading standard input" };
                break;
            }
            data = grown;
        }
        *n += fread(data + *n, 1, capacity - *n, stdin);
        if (ferror(stdin))
            *err = (fv_error){ .status = FV_ERR_IO, .message = "standard input: cannot be read" };
        else if (*n > MAX_INPUT_BYTES)
            *err =
                (fv_error){ .status = FV_ERR_LIMIT,
                            .message = "standard input: more than 1 GiB, too long for an image" };
    }
    if (err->status) {
        free(data);
        data = NULL;
    }
    return data;
}

fv_status open_image(fv_image **out, const char *path, const fv_image_options *options,
                     fv_error *err)
{
    static const char library_name[] = "image in memory";
    size_t n;
    if (strcmp(path, "-") != 0)
        return fv_image_open(out, path, options, err);
    *out = NULL;
    unsigned char *data = stdin_read(&n, err);
    if (!data)
        return err->status;
    fv_status status = fv_image_read(out, data, n, options, err);
    free(data);
    if (status != FV_OK && !strncmp(err->message, library_name, sizeof library_name - 1)) {
        char rest[sizeof err->message];
        snprintf(rest, sizeof rest, "%s", err->message + sizeof library_name - 1);
        snprintf(err->message, sizeof err->message, "standard input%.*s",
                 (int)(sizeof err->message - sizeof "standard input"), rest);
    }
    return status;
}

/* ---- what an argument is ----------------------------------------------------------------- */

static bool has_ending(const char *word, const char *const *endings)
{
    const char *dot = strrchr(word, '.');
    for (; dot && *endings; endings++)
        if (!strcasecmp(dot, *endings))
            return true;
    return false;
}

static fv_file_kind file_kind(const char *path)
{
    unsigned char b[FV_SNIFF_BYTES];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(b, 1, sizeof b, f) : 0;
    if (f)
        fclose(f);
    return fv_sniff_bytes(b, n).kind;
}

/* One word with a slash, or with digits and a dash or dot inside, names a model rather than asks
 * for something. */
static bool names_a_model(const char *word)
{
    bool one = !strpbrk(word, " \t\n?!"), digits = strpbrk(word, "0123456789") != NULL;
    const char *mark = strpbrk(word, "-.");
    return one && (strchr(word, '/') || (digits && mark && mark > word && mark[1]));
}

word_kind classify_word(const char *verb, const char *word)
{
    static const char *const pictures[] = { ".jpg",  ".jpeg", ".png",  ".webp", ".ppm",
                                            ".pgm",  ".pnm",  ".gif",  ".bmp",  ".tif",
                                            ".tiff", ".heic", ".heif", ".avif", NULL };
    static const char *const models[] = { ".gguf", ".safetensors", NULL };
    struct stat st;
    if (!strcmp(word, "-"))
        return WORD_IMAGE;
    if (stat(word, &st) != 0 && lstat(word, &st) == 0) /* the library names the dangling link */
        return has_ending(word, models) ? WORD_MODEL : WORD_IMAGE;
    if (stat(word, &st) != 0) {
        if (has_ending(word, pictures) || has_ending(word, models) || !strncmp(word, "./", 2) ||
            *word == '/') {
            fprintf(stderr,
                    "fastvlm %s: %s: no such file; if it is the prompt, use --prompt \"%s\"\n",
                    verb, word, word);
            return WORD_ERROR;
        }
        if (names_a_model(word)) {
            fprintf(stderr,
                    "fastvlm %s: %s: no such model (fastvlm pull fetches one); if it is the "
                    "prompt, use --prompt \"%s\"\n",
                    verb, word, word);
            return WORD_ERROR;
        }
        return WORD_PROMPT;
    }
    if (S_ISDIR(st.st_mode) || has_ending(word, models))
        return WORD_MODEL;
    if (S_ISFIFO(st.st_mode))
        return WORD_IMAGE;
    switch (file_kind(word)) {
    case FV_FILE_GGUF:
    case FV_FILE_SAFETENSORS: return WORD_MODEL;
    case FV_FILE_UNKNOWN:
    case FV_FILE_TEXT:
    case FV_FILE_JSON:
        if (has_ending(word, pictures))
            return WORD_IMAGE;
        break;
    default: return WORD_IMAGE; /* what it is, the library says */
    }
    fprintf(stderr,
            "fastvlm %s: %s is a file but not an image (JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, "
            "AVIF or PNM); use --image %s or --prompt \"%s\"\n",
            verb, word, word, word);
    return WORD_ERROR;
}

int sort_words(const char *verb, const text_list *words, const char **model, text_list *images,
               const char **prompt)
{
    for (size_t i = 0; i < words->n; i++) {
        const char *word = words->item[i];
        switch (classify_word(verb, word)) {
        case WORD_ERROR: return EXIT_USAGE;
        case WORD_MODEL:
            if (*model)
                return usage_error(
                    verb, "more than one model: %s and %s; if one is the prompt, use --prompt",
                    *model, word);
            *model = word;
            break;
        case WORD_IMAGE:
            if (images->n == sizeof images->item / sizeof *images->item)
                return usage_error(verb, "more than %zu images", images->n);
            images->item[images->n++] = word;
            break;
        case WORD_PROMPT:
            if (*prompt)
                return usage_error(verb,
                                   "more than one prompt: \"%s\" and \"%s\"; quote the prompt",
                                   *prompt, word);
            *prompt = word;
        }
    }
    return -1;
}

/* ---- signals and terminals --------------------------------------------------------------- */

static volatile sig_atomic_t stop_asked;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (stop_asked)
        _exit(EXIT_FAILED); /* the second time at once */
    stop_asked = 1;
}

void catch_interrupt(void)
{
    struct sigaction action = { .sa_handler = on_interrupt };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* so does a limit on the size of files */
}

bool interrupted(void) { return stop_asked != 0; }
bool is_terminal(int fd) { return isatty(fd) == 1; }

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

bool show_progress(void *user, const char *stage, double done)
{
    progress_line *p = user;
    if (!p->enabled || !strcmp(stage, "decode"))
        return interrupted();
    if (p->started == 0)
        p->started = now_ms();
    if (p->shown || now_ms() - p->started > 300) {
        fprintf(stderr, "\r%s %3.0f %%\033[K", stage, done * 100);
        p->shown = true;
    }
    return interrupted();
}

void clear_progress(progress_line *p)
{
    if (p->shown)
        fprintf(stderr, "\r\033[K");
    p->shown = false;
}

bool write_out(const char *text, size_t n_bytes)
{
    return fwrite(text, 1, n_bytes, stdout) == n_bytes && fflush(stdout) == 0;
}

int end_out(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_OK;
    fprintf(stderr, "fastvlm: cannot write to standard output: it is closed or full\n");
    return EXIT_FAILED;
}

int print_json(json_t *root, unsigned n_digits)
{
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(n_digits)) : NULL;
    json_decref(root);
    if (!text) {
        fprintf(stderr,
                "fastvlm: cannot write the result as JSON: a name in it is not valid UTF-8, "
                "or out of memory\n");
        return EXIT_FAILED;
    }
    bool ok = write_out(text, strlen(text)) && write_out("\n", 1);
    free(text);
    return ok ? EXIT_OK : end_out();
}

/* ---- the machine ------------------------------------------------------------------------- */

uint64_t peak_rss_bytes(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
#ifdef __APPLE__
    return (uint64_t)use.ru_maxrss;
#else
    return (uint64_t)use.ru_maxrss * 1024;
#endif
}

const char *cpu_model(void)
{
    static char name[128];
    char line[256];
    FILE *f = *name ? NULL : fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (colon && (!strncmp(line, "model name", 10) || !strncmp(line, "Hardware", 8))) {
            snprintf(name, sizeof name, "%s", colon + 2);
            name[strcspn(name, "\n")] = 0;
            break;
        }
    }
    if (f)
        fclose(f);
    if (!*name)
        snprintf(name, sizeof name, "unknown processor");
    return name;
}
