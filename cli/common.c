/* Opening the model, the built-in one, telling arguments apart, progress, Ctrl-C, memory. See
 * cli.h. */
#include "cli.h"

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

/* ---- what an argument is ----------------------------------------------------------------- */

static bool has_ending(const char *word, const char *const *endings)
{
    const char *dot = strrchr(word, '.');
    for (; dot && *endings; endings++)
        if (!strcasecmp(dot, *endings))
            return true;
    return false;
}

static size_t first_bytes(const char *path, unsigned char b[12])
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(b, 1, 12, f) : 0;
    if (f)
        fclose(f);
    return n;
}

static bool is_packed(const char *path)
{
    unsigned char b[12];
    return first_bytes(path, b) >= 4 && !memcmp(b, "GGUF", 4);
}

static bool is_picture(const char *path)
{
    unsigned char b[12] = { 0 };
    size_t n = first_bytes(path, b);
    if (n >= 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff)
        return true;
    if (n >= 8 && !memcmp(b, "\x89PNG\r\n\x1a\n", 8))
        return true;
    if (n >= 12 && !memcmp(b, "RIFF", 4) && !memcmp(b + 8, "WEBP", 4))
        return true;
    return n >= 3 && b[0] == 'P' && b[1] >= '1' && b[1] <= '6' &&
           (b[2] == ' ' || b[2] == '\n' || b[2] == '\r' || b[2] == '\t');
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
                                            ".tiff", ".heic", ".avif", NULL };
    static const char *const models[] = { ".gguf", ".safetensors", NULL };
    struct stat st;
    if (!strcmp(word, "-"))
        return WORD_IMAGE;
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
    if (S_ISFIFO(st.st_mode) || is_picture(word))
        return WORD_IMAGE;
    if (is_packed(word))
        return WORD_MODEL;
    if (has_ending(word, pictures))
        return WORD_IMAGE;
    fprintf(stderr,
            "fastvlm %s: %s is a file but not a JPEG, PNG, WebP or PNM image; use "
            "--image %s or --prompt \"%s\"\n",
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
