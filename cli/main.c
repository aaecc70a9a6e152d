/* fastvlm: the program. Finds the verb and runs it. */
#include "cli.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const verb_entry verbs[] = {
    { "run", "answer a question about images", verb_run },
    { "chat", "hold a conversation in the terminal", verb_chat },
    { "serve", "serve the model over HTTP, by OpenAI's protocol", verb_serve },
    { "batch", "answer a question about each of many images, into one file", verb_batch },
    { "info", "show what a model contains", verb_info },
    { "bench", "time every stage on this machine", verb_bench },
    { "pack", "pack a checkpoint into one file, optionally quantised", verb_pack },
    { "verify", "check that a packed file is intact", verb_verify },
    { "eval", "measure what a precision costs; score a test", verb_eval },
    { "export", "export for other runtimes: ONNX, GGUF, Genie, transformers", verb_export },
    { "npu", "the model on Qualcomm's Hexagon NPU", verb_npu },
    { "qairt", "the tools of Qualcomm's SDK", verb_qairt },
    { "genie", "the decoder on Qualcomm's Genie", verb_genie },
    { "hub", "fp16 context binaries, made at Qualcomm AI Hub", verb_hub },
    { "handoff", "make all that a Snapdragon phone needs, in one command", verb_handoff },
    { "device", "a phone at adb: push, run, bench", verb_device },
    { "pull", "fetch a checkpoint from the Hugging Face hub", verb_pull },
    { "doctor", "show what this machine offers and what is missing", verb_doctor },
};

static void print_usage(void (*print)(const char *format, ...))
{
    print("fastvlm %s: runs Apple's FastVLM vision-language models on CPUs\n\nusage: fastvlm "
          "COMMAND [OPTIONS] ...\n\n",
          fv_version());
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        print("  %-8s %s\n", verbs[i].name, verbs[i].summary);
    print("\n"
          "fastvlm COMMAND --help shows the options of a command.\n"
          "\n"
          "examples:\n"
          "  fastvlm run image.png                      built-in demonstration model\n"
          "  fastvlm pull apple/FastVLM-0.5B            fetch a real one\n"
          "  fastvlm run FastVLM-0.5B photo.jpg \"What is in the picture?\"\n");
}

/* What was printed is worth nothing when it could not be written. A verb that failed has said
 * why. */
static int end(int code) { return code == EXIT_OK ? end_out() : code; }

/* With a standard descriptor closed, the next file to be opened would take its number, and what is
 * printed would go there. /dev/null the wrong way round keeps the number and its errors. */
static void hold_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(EXIT_FAILED);
}

static int run_verb(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(print_err);
        return EXIT_USAGE;
    }
    help_move(argc, argv);
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        print_usage(print_out);
        return end(EXIT_OK);
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V") || !strcmp(argv[1], "version")) {
        print_out("fastvlm %s\n", fv_version());
        return end(EXIT_OK);
    }
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (!strcmp(argv[1], verbs[i].name))
            return end(verbs[i].run(argc - 1, argv + 1));
    print_err("fastvlm: unknown command \"%s\"; fastvlm --help lists the commands\n", argv[1]);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    hold_descriptors();
    catch_bus_error();
    return run_with_stack(run_verb, argc, argv);
}
