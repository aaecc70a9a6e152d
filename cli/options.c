/* Options from a table: parsing by getopt_long, help from the same rows. See cli.h. */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE_STEP = 64, MAX_OPTIONS = 48, FIRST_CODE = 256, HELP_CODE = 1024 };

int usage_error(const char *verb, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_err("fastvlm %s: ", verb);
    print_err_list(format, args);
    print_err("\nfastvlm %s --help shows its usage\n", verb);
    va_end(args);
    return EXIT_USAGE;
}

int check_text(const char *verb, const char *what, const char *text)
{
    size_t bad;
    return !text || is_text(text, strlen(text), &bad)
               ? -1
               : usage_error(verb, "%s: not valid UTF-8 at byte %zu", what, bad);
}

/* Prints words from column on, wrapped at 80 columns; continued lines begin at indent. A newline in
 * the text stays one. */
static void print_wrapped(const char *text, size_t column, size_t indent)
{
    while (*text) {
        size_t n = strcspn(text, " \n");
        if (column > indent && column + 1 + n > 80) {
            print_out("\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            print_out(" ");
            column++;
        }
        print_out("%.*s", (int)n, text);
        column += n;
        for (text += n; *text == '\n'; text++) {
            print_out("\n");
            column = 0;
        }
        text += strspn(text, " ");
    }
    print_out("\n");
}

static void print_option(const char *left, const char *help)
{
    enum { HELP_COLUMN = 26 };
    size_t n = strlen(left) + 2;
    print_out("  %s", left);
    if (n + 2 > HELP_COLUMN) { /* the help below */
        print_out("\n");
        n = 0;
    }
    print_out("%*s", (int)(HELP_COLUMN - n), "");
    print_wrapped(help, HELP_COLUMN, HELP_COLUMN);
}

static void print_help(const usage *use, const option_spec *options, size_t n)
{
    size_t verb = strcspn(use->synopsis, " ");
    print_out("usage: fastvlm %.*s", (int)verb, use->synopsis);
    print_wrapped(use->synopsis + verb + 1, sizeof "usage: fastvlm" + verb,
                  sizeof "usage: fastvlm" + verb - 1);
    print_out("\n");
    print_wrapped(use->about, 0, 0);
    print_out("\noptions:\n");
    for (size_t i = 0; i < n; i++) {
        char left[64];
        const option_spec *o = &options[i];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", o->short_name ? '-' : ' ',
                 o->short_name ? o->short_name : ' ', o->short_name ? "," : " ", o->name,
                 o->arg ? " " : "", o->arg ? o->arg : "");
        print_option(left, o->help);
    }
    print_option("-h, --help", "show this help");
    print_out("\nexample:\n%s\n", use->example);
}

static int parse_choice(const char *choices, const char *text)
{
    int index = 0;
    size_t n = strlen(text);
    for (const char *at = choices;; index++) {
        const char *bar = strchr(at, '|');
        size_t length = bar ? (size_t)(bar - at) : strlen(at);
        if (length == n && !strncmp(at, text, n))
            return index;
        if (!bar)
            return -1;
        at = bar + 1;
    }
}

static int bad_value(const char *verb, const option_spec *o, const char *text, const char *wanted);

static int take_half(const char *verb, const option_spec *o, const char *text)
{
    model_options *m = o->value;
    const bool vision = o->kind == OPTION_VISION;
    int index = parse_choice(vision ? VISION_PRECISIONS : DECODER_PRECISIONS, text);
    bool npu = !strncmp(text, "npu:", 4) && text[4];
    if (index < 0 && !npu)
        return bad_value(verb, o, text, o->arg);
    *(vision ? &m->vision : &m->decoder) = npu ? 0 : index;
    *(vision ? &m->npu_vision : &m->npu_decoder) = npu ? text + 4 : NULL;
    return -1;
}

static int bad_value(const char *verb, const option_spec *o, const char *text, const char *expected)
{
    return usage_error(verb, "--%s: expected %s, found \"%s\"", o->name, expected, text);
}

static int parse_number(const char *verb, const option_spec *o, const char *text)
{
    char expected[96], *end;
    errno = 0;
    double value = o->kind == OPTION_FLOAT ? strtod(text, &end) : (double)strtol(text, &end, 10);
    snprintf(expected, sizeof expected,
             o->kind == OPTION_FLOAT ? "a number from %g to %g" : "an integer from %.0f to %.0f",
             o->min, o->max);
    if (end == text || *end || errno || !(value >= o->min && value <= o->max))
        return bad_value(verb, o, text, expected);
    if (o->kind == OPTION_SIDE && (int)value % SIDE_STEP) {
        snprintf(expected, sizeof expected, "a multiple of %d up to %g", SIDE_STEP, o->max);
        return bad_value(verb, o, text, expected);
    }
    if (o->kind == OPTION_FLOAT)
        *(float *)o->value = (float)value;
    else
        *(int *)o->value = (int)value;
    return -1;
}

static int take_value(const char *verb, const option_spec *o, const char *text)
{
    text_list *list = o->value;
    char *end;
    bool is_path = o->arg && (!strcmp(o->arg, "FILE") || !strcmp(o->arg, "DIR"));
    if (is_path && !*text)
        return bad_value(verb, o, text,
                         strcmp(o->arg, "DIR") ? "the name of a file" : "the name of a directory");
    if (is_path && !strcmp(o->name, "output") && !strcmp(text, "-"))
        return bad_value(verb, o, text, "a name: standard output cannot be written to");
    switch (o->kind) {
    case OPTION_FLAG: *(bool *)o->value = true; return -1;
    case OPTION_INT:
    case OPTION_SIDE:
    case OPTION_FLOAT: return parse_number(verb, o, text);
    case OPTION_U64:
        errno = 0;
        *(uint64_t *)o->value = strtoull(text, &end, 10);
        return end == text || *end || errno || *text == '-'
                   ? bad_value(verb, o, text, "a whole number")
                   : -1;
    case OPTION_LIST:
        if (list->n == sizeof list->item / sizeof *list->item)
            return usage_error(verb, "--%s: given more than %zu times", o->name, list->n);
        list->item[list->n++] = text;
        return -1;
    case OPTION_CHOICE: {
        int index = parse_choice(o->arg, text);
        if (index < 0)
            return bad_value(verb, o, text, o->arg);
        *(int *)o->value = index;
        return -1;
    }
    case OPTION_VISION:
    case OPTION_DECODER: return take_half(verb, o, text);
    default: *(const char **)o->value = text; return -1;
    }
}

int parse_options(int argc, char **argv, const usage *use, const option_spec *options, size_t n,
                  text_list *words)
{
    struct option longs[MAX_OPTIONS + 2] = { 0 };
    char shorts[2 * MAX_OPTIONS + 8] = ":h";
    size_t at = 2;
    const char *verb = argv[0];
    for (size_t i = 0; i < n; i++) {
        bool has_arg = options[i].kind != OPTION_FLAG;
        longs[i] = (struct option){ options[i].name, has_arg ? required_argument : no_argument,
                                    NULL, FIRST_CODE + (int)i };
        if (options[i].short_name) {
            shorts[at++] = options[i].short_name;
            if (has_arg)
                shorts[at++] = ':';
        }
    }
    longs[n] = (struct option){ "help", no_argument, NULL, HELP_CODE };
    optind = 1;
    opterr = 0;
    for (int code; (code = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const char *word = argv[optind - 1];
        if (code == HELP_CODE || code == 'h') {
            print_help(use, options, n);
            return EXIT_OK;
        }
        if (code == '?' && optopt >= FIRST_CODE) /* one that there is */
            return usage_error(verb, "--%.*s takes no value", (int)strcspn(word + 2, "="),
                               word + 2);
        if (code == '?')
            return usage_error(verb, "unknown option %s", word);
        if (code == ':')
            return usage_error(verb, "%s needs a value", word);
        const option_spec *o = NULL;
        for (size_t i = 0; i < n; i++)
            if (code == FIRST_CODE + (int)i ||
                (options[i].short_name && code == options[i].short_name))
                o = &options[i];
        int code_or_go = o ? take_value(verb, o, optarg) : -1;
        if (code_or_go >= 0)
            return code_or_go;
    }
    if (!words)
        return -1;
    words->n = 0;
    for (int i = optind; i < argc; i++) {
        if (words->n == sizeof words->item / sizeof *words->item)
            return usage_error(verb, "more than %zu arguments", words->n);
        words->item[words->n++] = argv[i];
    }
    return -1;
}

int parse_only_options(int argc, char **argv, const usage *use, const option_spec *options,
                       size_t n)
{
    text_list words;
    int code = parse_options(argc, argv, use, options, n, &words);
    return code >= 0 || !words.n ? code
                                 : usage_error(argv[0], "unexpected argument %s", words.item[0]);
}
