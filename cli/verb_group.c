/* A verb that has verbs of its own: fastvlm export ARTEFACT, fastvlm npu COMMAND. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

static void group_print_usage(const verb_group *g, void (*print)(const char *format, ...))
{
    print("usage: fastvlm %s %s %s\n\n%s\n\n%ss:\n", g->name, g->placeholder, g->arguments,
          g->about, g->what);
    for (size_t i = 0; i < g->n; i++)
        print("  %-12s %s\n", g->entries[i].name, g->entries[i].summary);
    print("\nfastvlm %s %s --help shows its options.\n\nexample:\n%s", g->name, g->placeholder,
          g->example);
}

/* "help" and "-h" become "--help", and "help NAME ..." becomes "NAME ... --help". */
void help_move(int argc, char **argv)
{
    static char help[] = "--help";
    if (strcmp(argv[1], "help") && strcmp(argv[1], "-h") && strcmp(argv[1], help))
        return;
    for (int i = 1; i < argc - 1; i++)
        argv[i] = argv[i + 1];
    argv[argc - 1] = help;
}

int run_verb_group(const verb_group *g, int argc, char **argv)
{
    if (argc < 2) {
        group_print_usage(g, print_err);
        return EXIT_USAGE;
    }
    help_move(argc, argv);
    if (!strcmp(argv[1], "--help")) {
        group_print_usage(g, print_out);
        return EXIT_OK;
    }
    for (size_t i = 0; i < g->n; i++)
        if (!strcmp(argv[1], g->entries[i].name)) {
            char name[32];
            snprintf(name, sizeof name, "%s %s", g->name, g->entries[i].name);
            argv[1] = name;
            return g->entries[i].run(argc - 1, argv + 1);
        }
    return usage_error(g->name, "unknown %s \"%s\"", g->what, argv[1]);
}
