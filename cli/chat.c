/* fastvlm chat: turns in a terminal, or lines from a pipe. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "lines.h"
#include "npu.h"

typedef struct turn {
    char *user, *model;
} turn;

typedef struct chat {
    fv_session *session;
    fv_engine *engine;
    const answer_options *answer;
    progress_line *progress;
    line_reader lines;
    turn *history;
    size_t n_turns;
    fv_image *images[64]; /* of the next question */
    size_t n_images;
    size_t n_seen; /* images of the conversation before */
    bool figures, quiet;
    bool told;       /* that there is no image */
    bool blocked;    /* a piped conversation lacks what failed: no question is answered */
    size_t n_failed; /* questions, images, commands and lines */
} chat;

static const char commands[] =
    "/image FILE...  add images to the next question\n"
    "/history        show the conversation\n"
    "/reset          start a new conversation\n"
    "/help           show this list\n"
    "/quit           quit (or Ctrl-D)\n"
    "A line that is the path of an image adds it; one that begins with a blank is a question.\n";

/* Something failed that the next question builds on. A person sees it and decides; what is piped in
 * would be answered without it, and so is not until a new conversation begins. */
static void chat_fail(chat *c)
{
    c->n_failed++;
    if (c->lines.typed || c->blocked)
        return;
    c->blocked = true;
    print_err("fastvlm: line %zu failed; what follows is not answered without it, up to /reset\n",
              c->lines.number);
}

static void show_history(const chat *c)
{
    for (size_t i = 0; i < c->n_turns; i++)
        print_err("you:   %s\nmodel: %s\n", c->history[i].user, c->history[i].model);
    if (!c->n_turns)
        print_err("the conversation is empty\n");
}

static void drop_images(chat *c)
{
    while (c->n_images)
        fv_image_free(c->images[--c->n_images]);
}

static void forget(chat *c)
{
    for (size_t i = 0; i < c->n_turns; i++) {
        free(c->history[i].user);
        free(c->history[i].model);
    }
    free(c->history);
    c->history = NULL;
    c->n_turns = c->n_seen = 0;
    c->told = c->blocked = false;
    drop_images(c);
}

static void remember(chat *c, const char *user, const answer_text *a)
{
    turn *grown = realloc(c->history, (c->n_turns + 1) * sizeof *grown);
    if (!grown)
        return;
    c->history = grown;
    c->history[c->n_turns] = (turn){ strdup(user), strdup(a->text ? a->text : "") };
    c->n_turns++;
}

/* The turn and its answer; false when there is none. */
static bool chat_answer(chat *c, const char *text, answer_text *a)
{
    fv_error err;
    size_t position = fv_session_position(c->session);
    const turn_images images = { .read = c->images, .n = c->n_images };
    if (write_turn(c->session, &images, text, c->answer) >= 0) {
        fv_session_rewind(c->session, position, &err); /* drops what of the turn is there */
        return false;
    }
    if (begin_answer(c->session, c->answer, &err) != FV_OK)
        return report(&err) < 0;
    return take_answer(c->session, a, true, c->progress) < 0;
}

static void chat_ask(chat *c, const char *text)
{
    fv_stats stats = { .size = sizeof stats };
    answer_text a = { 0 };
    if (c->blocked)
        return;
    if (!c->n_images && !c->n_seen && !c->told) {
        print_err("fastvlm: warning: no image yet: answering from the text alone; /image FILE adds "
                  "one\n");
        c->told = true;
    }
    bool answered = chat_answer(c, text, &a), stopped = interrupted();
    if (answered) {
        if (!write_out("\n", 1))
            c->n_failed += end_out() != EXIT_OK;
        c->n_failed += stopped && !c->lines.typed;
        remember(c, text, &a);
        c->n_seen += c->n_images;
        drop_images(c);
        if (c->figures) {
            fv_session_stats(c->session, &stats);
            print_profile(c->engine, &stats);
        }
    } else if (c->n_images && c->lines.typed) {
        print_err("the image%s for the next question\n", c->n_images > 1 ? "s stay" : " stays");
    } else if (c->n_images) {
        chat_fail(c);
    } else {
        c->n_failed++;
    }
    answer_free(&a);
}

static bool chat_add_image(chat *c, const char *path)
{
    fv_error err;
    if (c->n_images == sizeof c->images / sizeof *c->images) {
        print_err("fastvlm: more than %zu images in one question\n", c->n_images);
        return false;
    }
    fv_image *image = open_picture(path, c->answer, &err);
    if (!image) {
        report(&err);
        return false;
    }
    c->images[c->n_images++] = image;
    return true;
}

/* All of the images or none. */
static bool chat_add_images(chat *c, const text_list *paths)
{
    size_t before = c->n_images;
    for (size_t i = 0; i < paths->n; i++)
        if (!chat_add_image(c, paths->item[i])) {
            while (c->n_images > before)
                fv_image_free(c->images[--c->n_images]);
            return false;
        }
    for (size_t i = 0; i < paths->n && !c->quiet; i++)
        print_err("image %zu of the next question: %s\n", before + i + 1, paths->item[i]);
    return true;
}

static void chat_image(chat *c, const char *text)
{
    text_list paths;
    const char *path;
    if (!*text) {
        print_err("/image needs a file: /image FILE adds it to the next question\n");
        chat_fail(c);
        return;
    }
    if (!paths_find(text, &paths)) { /* the message names what was looked for */
        if (word_classify(text, &path) == WORD_ADDRESS) {
            word_refuse("chat", WORD_ADDRESS, path);
            chat_fail(c);
            return;
        }
        paths = (text_list){ .item = { path }, .n = 1 };
    }
    if (!chat_add_images(c, &paths))
        chat_fail(c);
}

typedef enum command_kind {
    COMMAND_NONE, /* not the name of one */
    COMMAND_IMAGE,
    COMMAND_HISTORY,
    COMMAND_RESET,
    COMMAND_HELP,
    COMMAND_QUIT
} command_kind;

/* The command that a line begins with; *rest: what follows it. */
static command_kind command_find(const char *line, const char **rest)
{
    static const struct {
        const char *name;
        command_kind kind;
    } names[] = { { "/image", COMMAND_IMAGE },     { "/images", COMMAND_IMAGE },
                  { "/history", COMMAND_HISTORY }, { "/reset", COMMAND_RESET },
                  { "/help", COMMAND_HELP },       { "/?", COMMAND_HELP },
                  { "/quit", COMMAND_QUIT },       { "/exit", COMMAND_QUIT },
                  { "/bye", COMMAND_QUIT } };
    size_t n = strcspn(line, " \t");
    *rest = line + n + strspn(line + n, " \t");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i].name) == n && !strncmp(line, names[i].name, n))
            return names[i].kind;
    return COMMAND_NONE;
}

/* May a line that begins like this be a path, or a command? */
static bool begins_as_path(const char *line)
{
    return strchr("/~'\"", *line) || !strncmp(line, "./", 2) || !strncmp(line, "../", 3) ||
           !strncmp(line, "file:", 5);
}

static void chat_refuse(chat *c, const char *line, const char *what)
{
    print_err("%s: %s; to ask it as a question, begin the line with a blank\n", line, what);
    chat_fail(c);
}

/* A line that is no command: an image's path, something that looks like a path or a command and is
 * neither, or a question. */
static void chat_text(chat *c, const char *line)
{
    const char *path;
    word_kind kind = word_classify(line, &path);
    size_t letters = *line == '/' ? strspn(line + 1, "abcdefghijklmnopqrstuvwxyz"
                                                     "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
                                  : 0;
    bool lone = !strpbrk(path, " \t");
    /* "/5 of it?" is a question */
    bool as_path = *line == '/' ? strcspn(line + 1, "/.") < strcspn(line + 1, " \t")
                                : begins_as_path(line);
    if (letters && strchr(" \t", line[1 + letters]) && kind != WORD_IMAGE) {
        if (c->lines.typed)
            print_err("%s", commands);
        chat_refuse(c, line, "unknown command");
    } else if (kind == WORD_ADDRESS) {
        chat_refuse(c, path, "is an address; download the image and name the file");
    } else if (kind == WORD_MISSING && (lone || as_path)) {
        chat_refuse(c, path, "no such file");
    } else if ((kind == WORD_IMAGE && strcmp(line, "-")) || kind == WORD_OTHER_FILE ||
               (kind == WORD_MODEL && as_path)) {
        if (!chat_add_images(c, &(text_list){ .item = { path }, .n = 1 }))
            chat_fail(c);
    } else {
        chat_ask(c, line);
    }
}

/* Images' paths, with a question behind them or none. */
static bool chat_takes_images(chat *c, const char *line)
{
    text_list paths;
    const char *name = image_name_leading(line);
    if (!name && !begins_as_path(line))
        return false;
    const char *path, *question = images_leading(line, &paths);
    if (!question && word_classify(line, &path) == WORD_IMAGE) { /* blanks in it, unquoted */
        paths = (text_list){ .item = { path }, .n = 1 };
        question = "";
    }
    if (!question && name) {
        chat_refuse(c, name, "no such file");
        return true;
    }
    if (question && !chat_add_images(c, &paths))
        chat_fail(c);
    else if (question && *question)
        chat_ask(c, question);
    return question;
}

/* False when the conversation is to end. */
static bool chat_line(chat *c, const char *line)
{
    const char *rest, *bare = text_trim(line);
    switch (command_find(bare, &rest)) {
    case COMMAND_QUIT: return false;
    case COMMAND_HISTORY: show_history(c); return true;
    case COMMAND_HELP: print_err("%s", commands); return true;
    case COMMAND_IMAGE: chat_image(c, rest); return true;
    case COMMAND_RESET:
        fv_session_reset(c->session);
        forget(c);
        return true;
    default: break;
    }
    if (!*bare || chat_takes_images(c, bare))
        return true;
    if (strchr(" \t", *line))
        chat_ask(c, line + strspn(line, " \t"));
    else
        chat_text(c, line);
    return true;
}

/* Ctrl-C ends an answer, not the conversation; a second one in a row ends that. */
static void converse(chat *c)
{
    bool pressed = false; /* the last thing that happened was a Ctrl-C */
    bool goes_on = !interrupted() || interrupt_forgive(!c->lines.typed);
    if (c->lines.typed && !c->quiet)
        print_err("type /help for the commands\n");
    while (goes_on) {
        line_kind kind = line_read(&c->lines);
        switch (kind) {
        case LINE_TEXT: goes_on = chat_line(c, c->lines.text); break;
        case LINE_REFUSED:
            if (begins_as_path(c->lines.text))
                chat_fail(c);
            else
                c->n_failed++;
            break;
        case LINE_STOPPED:
            goes_on = c->lines.typed && !pressed;
            c->n_failed += !c->lines.typed;
            break;
        case LINE_FAILED:
            c->n_failed++;
            goes_on = false;
            break;
        default: goes_on = false;
        }
        pressed = kind == LINE_STOPPED || interrupted();
        /* what is piped in has no prompt: the next Ctrl-C ends the program */
        if (interrupted())
            goes_on = interrupt_forgive(!c->lines.typed) && goes_on;
        if (kind == LINE_STOPPED && goes_on)
            print_err("\nCtrl-C again, Ctrl-D or /quit ends the conversation\n");
    }
    c->n_failed += interrupted(); /* SIGTERM */
    if (c->lines.typed)
        print_err("\n");
    if (c->n_images && !c->blocked)
        print_err("fastvlm: warning: %zu image%s and no question after %s\n", c->n_images,
                  c->n_images > 1 ? "s" : "", c->n_images > 1 ? "them" : "it");
}

int verb_chat(int argc, char **argv)
{
    static const usage use = {
        "chat [OPTIONS] [MODEL] [IMAGE]...",
        "Holds a conversation about images. Every input line is a question; answers "
        "go to standard output. Earlier turns stay in the KV cache and are not "
        "computed again. Without MODEL the built-in demonstration model answers.\n"
        "\n"
        "Commands: /image FILE..., /history, /reset, /help and /quit. A line that is the "
        "path of an image adds it, as terminals and file managers paste it: in quotes, "
        "with backslashes, as a file: address. Ctrl-C ends an answer, a second one the "
        "program. In a pipe, a line that fails is not passed over: what follows is not "
        "answered, up to /reset. The exit code is 1 if a question, an image, a command "
        "or a line failed.",
        "  fastvlm chat FastVLM-0.5B photo.jpg",
    };
    model_options model = { 0 };
    answer_options answer = ANSWER_DEFAULTS;
    bool figures = false, quiet = false;
    const char *prompt = NULL;
    text_list words, images = { 0 };
    const option_spec options[] = {
        MODEL_OPTIONS_NPU(model),
        { 'i', "image", OPTION_LIST, &images, "FILE",
          "an image for the first question; may be repeated", 0, 0 },
        ANSWER_OPTIONS(answer),
        { 0, "figures", OPTION_FLAG, &figures, NULL,
          "print the timings of every answer to standard error", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no progress and no notices, only warnings", 0,
          0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code < 0)
        code = sort_words("chat", &words, &model.model, &images, &prompt);
    if (code < 0)
        code = check_answer_options("chat", &answer);
    if (code < 0)
        code = check_prompt("chat", prompt);
    if (code < 0)
        code = check_model("chat", &model, quiet);
    if (code >= 0)
        return code;

    progress_line progress = { .enabled = !quiet, .keep_answer = true };
    chat c = { .answer = &answer, .progress = &progress, .figures = figures, .quiet = quiet };
    fv_session_options so;
    fv_error err;
    catch_interrupt();
    code = open_engine(&c.engine, &model);
    fv_callbacks callbacks = line_callbacks(&progress);
    npu_parts parts = { 0 };
    session_options(&so, &answer, &callbacks);
    if (code < 0)
        code = open_npu_parts(&parts, &model, &callbacks);
    turn_npu npu = { .npu = parts.vision, .engine = c.engine, .callbacks = &callbacks };
    answer.npu = parts.vision ? &npu : NULL;
    if (code < 0 && (fv_session_new(&c.session, c.engine, &so, &err) != FV_OK ||
                     (parts.decoder && fv_npu_lm_attach(parts.decoder, c.session, &err) != FV_OK)))
        code = report(&err);
    for (size_t i = 0; i < images.n && code < 0; i++)
        code = chat_add_image(&c, images.item[i]) ? -1 : EXIT_FAILED;
    if (code < 0) {
        line_reader_open(&c.lines);
        if (prompt)
            chat_ask(&c, prompt);
        converse(&c);
        code = c.n_failed ? EXIT_FAILED : EXIT_OK;
        line_reader_close(&c.lines);
    }
    forget(&c);
    fv_session_free(c.session);
    close_npu_parts(&parts);
    fv_engine_free(c.engine);
    return code;
}
