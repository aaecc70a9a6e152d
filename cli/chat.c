/* fastvlm chat: turns in a terminal, or lines from a pipe. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"

typedef struct turn {
    char *user, *model;
} turn;

typedef struct chat {
    fv_session *session;
    fv_engine *engine;
    const answer_options *answer;
    progress_line *progress;
    turn *history;
    size_t n_turns;
    fv_image *images[64]; /* of the next question */
    size_t n_images;
    bool figures, quiet;
    size_t n_failed; /* questions and images */
} chat;

static const char commands[] = "/image FILE  add an image to the next question\n"
                               "/history     show the conversation\n"
                               "/reset       start a new conversation\n"
                               "/help        show this list\n"
                               "/quit        quit (or Ctrl-D)\n";

static void show_history(const chat *c)
{
    for (size_t i = 0; i < c->n_turns; i++)
        fprintf(stderr, "you:   %s\nmodel: %s\n", c->history[i].user, c->history[i].model);
    if (!c->n_turns)
        fprintf(stderr, "the conversation is empty\n");
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
    c->n_turns = 0;
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

static void chat_ask(chat *c, const char *text)
{
    fv_error err;
    fv_stats stats = { .size = sizeof stats };
    answer_text a = { 0 };
    size_t position = fv_session_position(c->session);
    const turn_images images = { .read = c->images, .n = c->n_images };
    bool answered = write_turn(c->session, &images, text, c->answer, c->progress) < 0;
    if (!answered)
        fv_session_rewind(c->session, position, &err); /* drops what of the turn is there */
    if (answered && begin_answer(c->session, c->answer, &err) != FV_OK)
        answered = report(&err) < 0;
    answered = answered && take_answer(c->session, &a, true, c->progress) < 0;
    if (answered) {
        answered = write_out("\n", 1) || end_out() == EXIT_OK;
        remember(c, text, &a);
        if (c->figures) {
            fv_session_stats(c->session, &stats);
            print_profile(c->engine, &stats);
        }
    }
    c->n_failed += !answered;
    drop_images(c);
    answer_free(&a);
}

static int chat_add_image(chat *c, const char *path)
{
    fv_error err;
    if (c->n_images == sizeof c->images / sizeof *c->images) {
        fprintf(stderr, "fastvlm: more than %zu images in one question\n", c->n_images);
        return EXIT_FAILED;
    }
    fv_image *image = open_picture(path, c->answer, &err);
    if (!image)
        return report(&err);
    c->images[c->n_images++] = image;
    return -1;
}

/* False when the conversation is to end. */
static bool command(chat *c, char *line)
{
    char *rest = line + strcspn(line, " ");
    while (*rest == ' ')
        *rest++ = 0;
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit"))
        return false;
    if (!strcmp(line, "/history"))
        show_history(c);
    else if (!strcmp(line, "/reset")) {
        fv_session_reset(c->session);
        forget(c);
    } else if (!strcmp(line, "/image") && !*rest) {
        fprintf(stderr, "/image needs a file: /image FILE adds it to the next question\n");
        c->n_failed++;
    } else if (!strcmp(line, "/image")) {
        if (chat_add_image(c, rest) >= 0)
            c->n_failed++;
        else if (!c->quiet)
            fprintf(stderr, "image %zu of the next question: %s\n", c->n_images, rest);
    } else {
        if (strcmp(line, "/help"))
            fprintf(stderr, "unknown command %s\n", line);
        fputs(commands, stderr);
    }
    return true;
}

static void converse(chat *c)
{
    char *line = NULL;
    size_t capacity = 0;
    bool prompt = is_terminal(0) && is_terminal(2);
    if (prompt && !c->quiet)
        fprintf(stderr, "type /help for the commands\n");
    while (!interrupted()) {
        if (prompt)
            fputs("> ", stderr);
        ssize_t n = getline(&line, &capacity, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = 0;
        if (*line == '/') {
            if (!command(c, line))
                break;
        } else if (n > 0) {
            chat_ask(c, line);
        }
    }
    if (prompt)
        fputs("\n", stderr);
    free(line);
}

int verb_chat(int argc, char **argv)
{
    static const usage use = {
        "chat [OPTIONS] [MODEL] [IMAGE]...",
        "Holds a conversation about images. Every input line is a question; answers "
        "go to standard output. Earlier turns stay in the KV cache and are not "
        "computed again. Without MODEL the built-in demonstration model answers.\n"
        "\n"
        "Commands: /image FILE, /history, /reset, /help and /quit. The exit code is "
        "1 if a question or an image failed.",
        "  fastvlm chat FastVLM-0.5B photo.jpg",
    };
    model_options model = { 0 };
    answer_options answer = ANSWER_DEFAULTS;
    bool figures = false, quiet = false;
    const char *prompt = NULL;
    text_list words, images = { 0 };
    const option_spec options[] = {
        MODEL_OPTIONS(model),
        { 'i', "image", OPTION_LIST, &images, "FILE",
          "an image for the first question; may be repeated", 0, 0 },
        ANSWER_OPTIONS(answer),
        { 0, "figures", OPTION_FLAG, &figures, NULL,
          "print the timings of every answer to standard error", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no progress and no notices", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code < 0)
        code = sort_words("chat", &words, &model.model, &images, &prompt);
    if (code < 0)
        code = check_answer_options("chat", &answer);
    if (code < 0)
        code = check_model("chat", &model, quiet);
    if (code >= 0)
        return code;

    progress_line progress = { .enabled = !quiet && is_terminal(2) };
    chat c = { .answer = &answer, .progress = &progress, .figures = figures, .quiet = quiet };
    fv_session_options so;
    fv_error err;
    catch_interrupt();
    code = open_engine(&c.engine, &model);
    fv_callbacks callbacks = line_callbacks(&progress);
    session_options(&so, &answer, &callbacks);
    if (code < 0 && fv_session_new(&c.session, c.engine, &so, &err) != FV_OK)
        code = report(&err);
    for (size_t i = 0; i < images.n && code < 0; i++)
        code = chat_add_image(&c, images.item[i]);
    if (code < 0) {
        if (prompt)
            chat_ask(&c, prompt);
        converse(&c);
        code = c.n_failed ? EXIT_FAILED : EXIT_OK;
    }
    forget(&c);
    fv_session_free(c.session);
    fv_engine_free(c.engine);
    return code;
}
