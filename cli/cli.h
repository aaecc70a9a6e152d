/* cli: what the verbs share. The program uses only the headers in include/ of the library.
 *
 * Answers go to stdout, everything else to stderr. Exit codes: 0 success; 2 the arguments are wrong
 * whatever the files hold that they name; 1 any other failure. */
#ifndef FV_CLI_H
#define FV_CLI_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastvlm.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct verb_entry {
    const char *name, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the verb */
} verb_entry;

/* A verb whose first argument is a verb again. */
typedef struct verb_group {
    const char *name, *what, *placeholder; /* "export", "artefact", "ARTEFACT" */
    const char *arguments;                 /* behind the placeholder, for its usage */
    const char *about, *example;
    const verb_entry *entries;
    size_t n;
} verb_group;

int run_verb_group(const verb_group *group, int argc, char **argv);
/* Where the first argument asks for help, on itself or on what follows it. argc is 2 or more. */
void help_move(int argc, char **argv);

int verb_run(int argc, char **argv);
int verb_chat(int argc, char **argv);
int verb_serve(int argc, char **argv);
int verb_batch(int argc, char **argv);
int verb_info(int argc, char **argv);
int verb_bench(int argc, char **argv);
int verb_pack(int argc, char **argv);
int verb_verify(int argc, char **argv);
int verb_doctor(int argc, char **argv);
int verb_export(int argc, char **argv);
int verb_pull(int argc, char **argv);
int verb_eval(int argc, char **argv);
int verb_npu(int argc, char **argv);
int verb_qairt(int argc, char **argv);
int verb_genie(int argc, char **argv);
int verb_hub(int argc, char **argv);
int verb_handoff(int argc, char **argv);
int verb_device(int argc, char **argv);

/* ---- a table of options per verb ---------------------------------------------------------- */

typedef enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_INT,    /* int in [min, max] */
    OPTION_SIDE,   /* the same, a multiple of 64: of an image in pixels */
    OPTION_U64,    /* uint64_t */
    OPTION_FLOAT,  /* float in [min, max] */
    OPTION_TEXT,   /* const char * */
    OPTION_LIST,   /* text_list: may come several times */
    OPTION_CHOICE, /* int: index in choices, "a|b|c" */
    OPTION_VISION, /* model_options: a precision, or the file behind "npu:" */
    OPTION_DECODER /* the same */
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

/* ---- screen.c: the one door to standard output and standard error ------------------------- */

/* Like printf, to standard output and standard error. What is printed may hold text of strangers,
 * an answer or the name of a file. On a terminal, control characters other than newline and tab,
 * those that turn the direction of text, and bytes that are not UTF-8 are shown (\x1b, \u202e), not
 * obeyed. Pipes and files get the bytes as they are. */
void print_out(const char *format, ...) __attribute__((format(printf, 1, 2)));
void print_err(const char *format, ...) __attribute__((format(printf, 1, 2)));
void print_err_list(const char *format, va_list args);
/* A piece of an answer, whole characters; flushed. False when that failed, which end_out says. */
bool write_out(const char *text, size_t n_bytes);
/* EXIT_OK, or EXIT_FAILED after saying that something printed could not be written. */
int end_out(void);

bool is_terminal(int fd);
/* Is standard error a terminal that understands escape sequences? */
bool can_redraw(void);
/* A line on such a terminal in place of the one before; and none. */
void show_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void clear_line(void);

/* Bytes of the UTF-8 character at text; 0: there is none that is well-formed. */
size_t character_read(const char *text, size_t n_bytes, uint32_t *code);
bool is_text(const char *text, size_t n_bytes, size_t *bad_at); /* UTF-8 */
/* Does a terminal obey it, or turn text by it, rather than show it? */
bool is_control(uint32_t code);

/* ---- json_out.c: results for programs ----------------------------------------------------- */

/* Strings for JSON; bytes that are not UTF-8 become U+FFFD. */
json_t *json_text(const char *text);
json_t *json_text_n(const char *text, size_t n_bytes);
void json_set_text(json_t *object, const char *key, const char *text);
/* null: not measured, or infinite because nothing differs (then cosine is 1). */
json_t *json_number(double x);
/* Prints and releases root, reals with n_digits (0: all); an exit code. */
int print_json(json_t *root, unsigned n_digits);
int write_json(json_t *root, unsigned n_digits, const char *path); /* the same into a file */

/* ---- options.c ---------------------------------------------------------------------------- */

/* Fills the options' values and *words with everything that is no option. Returns -1 to continue,
 * or an exit code: after --help, or after saying what is wrong. words NULL: there may be any number
 * of them, from argv[optind] (getopt.h) on. */
int parse_options(int argc, char **argv, const usage *use, const option_spec *options,
                  size_t n_options, text_list *words);
/* The same for a command that takes nothing but options. */
int parse_only_options(int argc, char **argv, const usage *use, const option_spec *options,
                       size_t n_options);
int usage_error(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Is text UTF-8? NULL will do. -1, or an exit code after saying what is wrong with what. */
int check_text(const char *verb, const char *what, const char *text);

/* ---- common.c ---------------------------------------------------------------------------- */

/* The options every verb with a model has. */
typedef struct model_options {
    const char *model;
    int threads, vision, decoder, image_size, kv;
    /* context binaries that encode images, and that decode; NULL: the CPU does */
    const char *npu_vision, *npu_decoder;
} model_options;

#define VISION_PRECISIONS  "auto|f32|bf16|f16|int8"
#define DECODER_PRECISIONS "auto|f32|bf16|f16|z8|q4|w8a8"
/* The precision at this index of an option's choices. */
fv_precision chosen_precision(const char *choices, int index);

/* clang-format off */
#define MODEL_OPTIONS_FRONT(m)                                                                    \
    { 'm', "model", OPTION_TEXT, &(m).model, "FILE",                                              \
      "checkpoint directory or packed file", 0, 0 },                                              \
    { 't', "threads", OPTION_INT, &(m).threads, "N",                                              \
      "threads (default: one per physical core)", 0, 1024 }
#define MODEL_OPTIONS_BACK(m)                                                                     \
    { 0, "kv", OPTION_CHOICE, &(m).kv, "auto|f32|f16|q8", "precision of the KV cache", 0, 0 },    \
    { 0, "image-size", OPTION_SIDE, &(m).image_size, "N",                                         \
      "side of the vision encoder's input in pixels, a multiple of 64", 0, 4096 }
#define MODEL_OPTIONS(m)                                                                          \
    MODEL_OPTIONS_FRONT(m),                                                                       \
    { 0, "vision", OPTION_CHOICE, &(m).vision, VISION_PRECISIONS,                                 \
      "precision of the vision encoder; int8: of a packed file", 0, 0 },                          \
    { 0, "decoder", OPTION_CHOICE, &(m).decoder, DECODER_PRECISIONS,                              \
      "precision of the decoder; z8, q4, w8a8: of a packed file", 0, 0 },                         \
    MODEL_OPTIONS_BACK(m)
/* Where an NPU may encode images and decode. */
#define MODEL_OPTIONS_NPU(m)                                                                      \
    MODEL_OPTIONS_FRONT(m),                                                                       \
    { 0, "vision", OPTION_VISION, &(m), VISION_PRECISIONS "|npu:FILE",                            \
      "precision of the vision encoder, or a context binary that encodes on the NPU", 0, 0 },     \
    { 0, "decoder", OPTION_DECODER, &(m), DECODER_PRECISIONS "|npu:FILE",                         \
      "precision of the decoder, or a context binary that decodes on the NPU", 0, 0 },            \
    MODEL_OPTIONS_BACK(m)
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
/* A usage error for options that exclude each other. Where no model is named: -1 after saying on
 * stderr, unless quiet, that the demonstration model answers; a usage error in a program without
 * it. */
int check_model(const char *verb, const model_options *m, bool quiet);

/* fv_image_open, and standard input for "-". */
fv_status open_image(fv_image **out, const char *path, const fv_image_options *options,
                     fv_error *err);

uint64_t peak_rss_bytes(void);
const char *cpu_model(void); /* "AMD EPYC", from the system; static */

/* A line on stderr while the library works, on a terminal. fv_progress_fn; user is a progress_line.
 * Also how Ctrl-C reaches the library. */
typedef struct progress_line {
    bool enabled;
    bool keep_answer; /* Ctrl-C does not cancel a token: the caller ends the answer itself */
    bool tells_left;  /* and what time a stage has left: for stages that go evenly */
    double started;
    char stage[48]; /* the one that is shown, and where it began; callers' names do not last */
    double stage_started, stage_done;
} progress_line;
bool show_progress(void *user, const char *stage, double done);
/* fv_log_fn: "fastvlm: warning: MESSAGE" on stderr */
void log_line(void *user, fv_log_level level, const char *message);
/* Both, for the library's calls. */
fv_callbacks line_callbacks(progress_line *p);

/* ---- words.c: what an argument is --------------------------------------------------------- */

typedef enum word_kind {
    WORD_TEXT,       /* more than one word, and no path */
    WORD_LONE,       /* one word: a question only where there is an image */
    WORD_MODEL,      /* a directory or a model's file */
    WORD_IMAGE,      /* a file that is an image, or "-" */
    WORD_OTHER_FILE, /* a file that is neither */
    WORD_MISSING,    /* a path where nothing is */
    WORD_NO_MODEL,   /* like a model's name, but nothing is there */
    WORD_ADDRESS     /* https://... */
} word_kind;

/* path: what is there, or the word without quotes and blanks around it. Kept until the program
 * ends. */
word_kind word_classify(const char *word, const char **path);
/* Says that word is no question; EXIT_USAGE. */
int word_refuse(const char *verb, word_kind kind, const char *word);
/* A file or directory that is read, *path: a file: address becomes the path it means. -1, or an
 * exit code after saying that it is an address, or not there. */
int find_input(const char *verb, const char **path);
/* The prompt, from wherever, or NULL: EXIT_USAGE after saying that it is blank or not UTF-8. */
int check_prompt(const char *verb, const char *prompt);
/* Sorts positional arguments into model, images and prompt; looks at the images given by option,
 * too. -1, or an exit code. */
int sort_words(const char *verb, const text_list *words, const char **model, text_list *images,
               const char **prompt);

/* Without blanks, and what comes along unseen with copied text, at both ends. Kept until the
 * program ends. */
const char *text_trim(const char *text);
/* The files that text names as terminals and file managers paste paths: as they are, in quotes,
 * with backslashes before blanks, as file: addresses, with blanks around, several. False: not all
 * are there. */
bool paths_find(const char *text, text_list *out);
/* The first of several words, if it ends like an image's name; NULL: it does not. */
const char *image_name_leading(const char *line);
/* The images that a line begins with, in the same forms; what follows them. NULL: none. */
const char *images_leading(const char *line, text_list *out);

/* ---- signals.c ---------------------------------------------------------------------------- */

void catch_interrupt(void); /* Ctrl-C sets a flag; a closed pipe becomes a write error */
bool interrupted(void);
/* An answer has been ended for Ctrl-C: what comes next may run; once: the next Ctrl-C ends the
 * program at once. False after SIGTERM. */
bool interrupt_forgive(bool once);
/* While an editor has the terminal: a signal that ends the program at once puts it back. */
void hold_terminal(bool hold);
/* A model's file that is cut while it is mapped ends the program with one line. */
void catch_bus_error(void);
/* run, on a stack that is large enough whatever the limit is; its exit code. */
int run_with_stack(int (*run)(int argc, char **argv), int argc, char **argv);

#endif
