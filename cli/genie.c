/* fastvlm genie: build, config, run: the decoder on Genie's engines. */
#include <stdio.h>
#include <string.h>

#include "export.h"
#include "qairt.h"

static int genie_build(int argc, char **argv);
static int genie_run(int argc, char **argv);

/* "config" is the exporter's verb, by the name under which a user of Genie looks for it. */
static const verb_entry commands[] = {
    { "build", "compose a decoder for Genie's CPU engine", genie_build },
    { "config", "write the architecture and the dialogs", export_genie },
    { "run", "answer with genie-t2t-run on this computer", genie_run },
};

int verb_genie(int argc, char **argv)
{
    static const verb_group group = {
        .name = "genie",
        .what = "command",
        .placeholder = "COMMAND",
        .arguments = "[OPTIONS] ...",
        .about = "Qualcomm's Genie, which decodes on a phone's CPU in the reference Qualcomm\n"
                 "pipeline. Its tools are part of the QAIRT SDK.",
        .example = "  fastvlm genie build FastVLM-0.5B --quantize Z8 -o genie/\n",
        .entries = commands,
        .n = sizeof commands / sizeof *commands,
    };
    return run_verb_group(&group, argc, argv);
}

/* ---- build ------------------------------------------------------------------------------- */

static int genie_build(int argc, char **argv)
{
    static const usage use = {
        "genie build [OPTIONS] CHECKPOINT -o DIR",
        "Runs qnn-genai-transformer-composer on a checkpoint directory: the decoder for Genie's "
        "CPU engine, LUT.bin, which is compared with the model's embedding, and tokenizer.json. "
        "fastvlm export lut and export tokenizer write the last two without the SDK.",
        "  fastvlm genie build FastVLM-0.5B -o genie/\n"
        "  fastvlm genie build FastVLM-0.5B --quantize Z8 -o genie/ --force",
    };
    qairt_common c = { 0 };
    fv_qairt_compose_options o = { .size = sizeof o };
    fv_error err;
    text_list words;
    const char *dir = NULL;
    int quantization = 0;
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &dir, "DIR", "directory to write (required)", 0, 0 },
        { 0, "quantize", OPTION_CHOICE, &quantization, "fp32|Z8|Z4|Q4",
          "of the weights (default: fp32)", 0, 0 },
        { 0, "config", OPTION_TEXT, &o.config, "FILE",
          "architecture (default: made from the checkpoint)", 0, 0 },
        { 0, "file", OPTION_TEXT, &o.file, "NAME",
          "name of the decoder (default: fastvlm_model.bin, fastvlm_model_z8.bin, ...)", 0, 0 },
        { 'f', "force", OPTION_FLAG, &o.force, NULL, "replace files of the same names", 0, 0 },
        QAIRT_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1 || !dir)
        return usage_error(argv[0], "expected one checkpoint directory and -o DIR");
    o.quantization = (fv_qairt_quantization)quantization;
    qairt_begin(&c, !c.quiet);
    fv_status status = fv_qairt_compose(words.item[0], dir, &o, &c.options, &err);
    clear_line();
    if (status != FV_OK)
        return report(&err);
    if (!c.options.dry_run)
        print_err("%s\n", dir);
    return EXIT_OK;
}

/* ---- run --------------------------------------------------------------------------------- */

static int genie_run(int argc, char **argv)
{
    static const usage use = {
        "genie run [OPTIONS] DIALOG.json [PROMPT]",
        "Runs genie-t2t-run on this computer with a prompt, which it takes as it is, or with the "
        "rows of --embeddings, as qairt run leaves them in combined_embeddings_fp32.raw. Prints "
        "the answer; what it measured goes to standard error.",
        "  fastvlm genie run dialog.json --lut genie/LUT.bin \\\n"
        "    -e combined_embeddings_fp32.raw",
    };
    qairt_common c = { 0 };
    fv_qairt_genie_options o = { .size = sizeof o };
    fv_qairt_profile profile = { .size = sizeof profile };
    fv_error err;
    text_list words;
    const option_spec options[] = {
        { 'e', "embeddings", OPTION_TEXT, &o.embeddings, "FILE", "the prompt as rows in f32", 0,
          0 },
        { 0, "lut", OPTION_TEXT, &o.table, "FILE", "LUT.bin, with --embeddings", 0, 0 },
        { 0, "profile", OPTION_TEXT, &o.profile, "FILE", "file for what Genie measured", 0, 0 },
        { 'f', "force", OPTION_FLAG, &o.force, NULL, "replace that file", 0, 0 },
        QAIRT_RUN_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n < 1 || words.n > 2 || (words.n == 2) == (o.embeddings != NULL))
        return usage_error(argv[0], "expected a dialog, and a prompt or --embeddings FILE");
    if (o.embeddings && !o.table)
        return usage_error(argv[0], "--embeddings needs --lut FILE");
    o.dialog = words.item[0];
    o.prompt = words.n == 2 ? words.item[1] : NULL;
    if ((code = check_text(argv[0], "the prompt", o.prompt)) >= 0)
        return code;
    o.text = qairt_write_text;
    c.line.enabled = !c.quiet;
    qairt_begin(&c, c.quiet);
    fv_status status = fv_qairt_genie(&o, &c.options, &profile, &err);
    clear_line();
    if (status != FV_OK)
        return report(&err);
    print_out("\n");
    code = end_out();
    qairt_print_profile(&profile);
    return code;
}
