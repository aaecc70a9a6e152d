/* cli: what the verbs share. The program uses only the headers in include/ of the library.
 *
 * Answers go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 usage. */
#ifndef FV_CLI_H
#define FV_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastvlm.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct verb_entry {
    const char *name, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the verb */
} verb_entry;

int verb_run(int argc, char **argv);
int verb_chat(int argc, char **argv);
int verb_info(int argc, char **argv);
int verb_bench(int argc, char **argv);
int verb_pack(int argc, char **argv);
int verb_verify(int argc, char **argv);
int verb_doctor(int argc, char **argv);
int verb_export(int argc, char **argv);
int verb_pull(int argc, char **argv);
int verb_eval(int argc, char **argv);
int verb_npu(int argc, char **argv);

/* ---- options.c: a table of options per verb ---------------------------------------------- */

typedef enum option_kind {
    OPTION_FLAG,  /* bool */
    OPTION_INT,   /* int in [min, max] */
    OPTION_U64,   /* uint64_t */
    OPTION_FLOAT, /* float in [min, max] */
    OPTION_TEXT,  /* const char * */
    OPTION_LIST,  /* text_list: may come several times */
    OPTION_CHOICE /* int: index in choices, "a|b|c" */
} option_kind;

typedef struct option_spec {
    char short_name; /* 0: none */
    const char *name;
    option_kind kind;
    void *value;
    const char *arg; /* "N", "DIR"; the choices of OPTION_CHOICE */
    const char *help;
    double min, max;
} option_spec;

typedef struct text_list {
    const char *item[64];
    size_t n;
} text_list;

typedef struct usage {
    const char *synopsis; /* "run [OPTIONS] [MODEL] IMAGE... [PROMPT]" */
    const char *about;
    const char *example; /* lines */
} usage;

/* Fills the options' values and *words with everything that is no option. Returns -1 to go on, or
 * an exit code: after --help, or after saying what is wrong. */
int parse_options(int argc, char **argv, const usage *use, const option_spec *options,
                  size_t n_options, text_list *words);
int usage_error(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- common.c ---------------------------------------------------------------------------- */

/* The options every verb with a model has. */
typedef struct model_options {
    const char *model;
    int threads, vision, decoder, image_size, kv;
} model_options;

#define VISION_PRECISIONS  "auto|f32|bf16|f16|int8"
#define DECODER_PRECISIONS "auto|f32|bf16|f16|z8|q4"
/* The precision at this index of an option's choices. */
fv_precision chosen_precision(const char *choices, int index);

/* clang-format off */
#define MODEL_OPTIONS(m)                                                                          \
    { 'm', "model", OPTION_TEXT, &(m).model, "FILE",                                              \
      "checkpoint directory or packed file", 0, 0 },                                              \
    { 't', "threads", OPTION_INT, &(m).threads, "N",                                              \
      "threads (default: one per physical core)", 0, 1024 },                                      \
    { 0, "vision", OPTION_CHOICE, &(m).vision, VISION_PRECISIONS,                                 \
      "precision of the vision encoder", 0, 0 },                                                  \
    { 0, "decoder", OPTION_CHOICE, &(m).decoder, DECODER_PRECISIONS,                              \
      "precision of the decoder", 0, 0 },                                                         \
    { 0, "kv", OPTION_CHOICE, &(m).kv, "auto|f32|f16|q8", "precision of the KV cache", 0, 0 },    \
    { 0, "image-size", OPTION_INT, &(m).image_size, "N",                                          \
      "side of the vision encoder's input in pixels, a multiple of 64", 0, 4096 }
/* clang-format on */

/* Prints "fastvlm: MESSAGE", with a hint where there is one, and gives EXIT_FAILED. */
int report(const fv_error *err);
/* From now on a cancelled call is not reported: its reason has been. */
void mute_cancelled(void);
/* What a user can do about it, in options and verbs; NULL: nothing more to say. hints.c */
const char *hint_for(const fv_error *err);
/* Opens m->model; where that is NULL, the demonstration model. */
int open_engine(fv_engine **out, const model_options *m);

/* The demonstration model inside the program (FASTVLM_DEMO_MODEL), which verbs use when none is
 * named. */
bool demo_model(const void **data, size_t *n_bytes); /* false: this program has none */
const char *model_name(const model_options *m);      /* the path, or that it is the built-in one */
/* Where no model is named: -1 after saying on stderr, unless quiet, that the demonstration model
 * answers; a usage error in a program without it. */
int check_model(const char *verb, const model_options *m, bool quiet);

typedef enum word_kind { WORD_MODEL, WORD_IMAGE, WORD_PROMPT, WORD_ERROR } word_kind;
/* What a bare argument is; WORD_ERROR has said why. */
/* fv_image_open, and standard input for "-". */
fv_status open_image(fv_image **out, const char *path, const fv_image_options *options,
                     fv_error *err);

word_kind classify_word(const char *verb, const char *word);

/* Sorts bare arguments into model, images and prompt. -1, or an exit code. */
int sort_words(const char *verb, const text_list *words, const char **model, text_list *images,
               const char **prompt);

void catch_interrupt(void); /* Ctrl-C sets a flag; a closed pipe becomes a write error */
bool interrupted(void);
uint64_t peak_rss_bytes(void);
const char *cpu_model(void); /* "AMD EPYC", from the system; static */
bool is_terminal(int fd);

/* A line on stderr while the library works, when that is a terminal. fv_progress_fn; user is a
 * progress_line. Also how Ctrl-C reaches the library. */
typedef struct progress_line {
    bool enabled, shown;
    double started;
} progress_line;
bool show_progress(void *user, const char *stage, double done);
void clear_progress(progress_line *p);
/* fv_log_fn: "fastvlm: warning: MESSAGE" on stderr; user is NULL or a progress_line. */
void log_line(void *user, fv_log_level level, const char *message);
/* Both, for the library's calls. */
fv_callbacks line_callbacks(progress_line *p);

/* Writes all bytes to stdout at once; false when that failed, which end_out says. */
bool write_out(const char *text, size_t n_bytes);
/* EXIT_OK, or EXIT_FAILED after saying that something printed could not be written. */
int end_out(void);
/* Prints and releases root, reals with n_digits (0: all); an exit code. */
int print_json(json_t *root, unsigned n_digits);

#endif
