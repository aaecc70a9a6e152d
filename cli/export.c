/* fastvlm export: finds the artefact and hands over. One file per artefact: export_<name>.c. */
#include "cli.h"
#include "export.h"

#include <stdio.h>
#include <string.h>

static const verb_entry artefacts[] = {
    { "onnx", "vision encoder, embedding and decoder as ONNX graphs", export_onnx },
};

static void print_usage(FILE *to)
{
    fprintf(to, "usage: fastvlm export ARTEFACT [OPTIONS] CHECKPOINT -o DIR\n\n"
                "Writes what other runtimes load, from the same checkpoint.\n\nartefacts:\n");
    for (size_t i = 0; i < sizeof artefacts / sizeof *artefacts; i++)
        fprintf(to, "  %-8s %s\n", artefacts[i].name, artefacts[i].summary);
    fprintf(to, "\nfastvlm export ARTEFACT --help shows its options.\n\nexample:\n"
                "  fastvlm export onnx FastVLM-0.5B -o onnx/\n");
}

int verb_export(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_usage(stdout);
        return EXIT_OK;
    }
    for (size_t i = 0; i < sizeof artefacts / sizeof *artefacts; i++)
        if (!strcmp(argv[1], artefacts[i].name)) {
            char name[32];
            snprintf(name, sizeof name, "export %s", artefacts[i].name);
            argv[1] = name;
            return artefacts[i].run(argc - 1, argv + 1);
        }
    return usage_error("export", "unknown artefact \"%s\"", argv[1]);
}
