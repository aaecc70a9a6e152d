/* Opening the model, the built-in one, images; progress, memory. See cli.h. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static bool cancelled_is_muted;

void mute_cancelled(void) { cancelled_is_muted = true; }

int report(const fv_error *err)
{
    if (err->status == FV_ERR_CANCELLED && cancelled_is_muted)
        return EXIT_FAILED;
    const char *hint = hint_for(err);
    clear_line();
    print_err("fastvlm: %s%s%s\n", err->message, hint ? "; " : "", hint ? hint : "");
    return err->status == FV_ERR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

void log_line(void *user, fv_log_level level, const char *message)
{
    (void)user;
    clear_line();
    print_err("fastvlm: %s%s\n", level == FV_LOG_WARNING ? "warning: " : "", message);
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
    if (m->npu_vision && m->image_size)
        return usage_error(verb, "--image-size: the context binary has a size of its own");
    if (m->npu_decoder && m->kv)
        return usage_error(verb, "--kv: the context binary has a cache of its own");
    if (m->model)
        return -1;
    if (!demo_model(&data, &n_bytes))
        return usage_error(
            verb, "no model given; expected a checkpoint directory or a packed file (fastvlm "
                  "pull apple/FastVLM-0.5B fetches a checkpoint)");
    if (!quiet)
        print_err("using the built-in demonstration model, which knows only drawn shapes and "
                  "printed words; fastvlm pull apple/FastVLM-0.5B fetches a real one\n");
    return -1;
}

/* ---- images ------------------------------------------------------------------------------ */

enum { MAX_INPUT_BYTES = 1 << 30 };

/* All of standard input; NULL, and why in *err, when it cannot be read or is too long. */
static unsigned char *stdin_read(size_t *n, fv_error *err)
{
    unsigned char *data = NULL;
    size_t capacity = 0, most = (size_t)MAX_INPUT_BYTES + 1; /* a byte more than allowed tells */
    *err = (fv_error){ .status = FV_OK };
    for (*n = 0; !err->status && !feof(stdin);) {
        if (*n == capacity) {
            capacity = !capacity ? 1 << 16 : capacity > most / 2 ? most : capacity * 2;
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

/* ---- progress ---------------------------------------------------------------------------- */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* The time that a stage has left at its pace so far; 0 while that would be a guess. */
static double seconds_left(progress_line *p, const char *stage, double done)
{
    const double now = now_ms();
    if (strncmp(p->stage, stage, sizeof p->stage - 1) != 0) {
        snprintf(p->stage, sizeof p->stage, "%s", stage);
        p->stage_started = now;
        p->stage_done = done;
    }
    const double spent = (now - p->stage_started) / 1e3, part = done - p->stage_done;
    return p->tells_left && spent > 3 && part > 0.05 ? spent * (1 - done) / part : 0;
}

bool show_progress(void *user, const char *stage, double done)
{
    progress_line *p = user;
    bool decode = !strcmp(stage, "decode");
    if (p->started == 0)
        p->started = now_ms();
    if (p->enabled && !decode && now_ms() - p->started > 300) {
        const double left = seconds_left(p, stage, done);
        if (left >= 120)
            show_line("%s %3.0f %%, %.0f min left", stage, done * 100, left / 60);
        else if (left > 0)
            show_line("%s %3.0f %%, %.0f s left", stage, done * 100, left);
        else
            show_line("%s %3.0f %%", stage, done * 100);
    }
    return interrupted() && !(decode && p->keep_answer);
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
