/* fastvlm export lut, tokenizer, genie: the side files of Qualcomm's Genie. */
#include <string.h>

#include "export.h"

int export_lut(int argc, char **argv)
{
    static const usage use = {
        .synopsis = "export lut [OPTIONS] MODEL -o FILE",
        .about = "Writes the embedding as rows of little-endian f32 without a header, as "
                 "genie-t2t-run reads it.",
        .example = "  fastvlm export lut FastVLM-0.5B -o LUT.bin",
    };
    export_common e = { 0 };
    fv_export_options options;
    fv_error err;
    const char *model;
    text_list words = { 0 };
    const option_spec table[] = { EXPORT_FILE(e) };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0 || (code = begin_export(argv[0], &e, &words, &model, &options)) >= 0)
        return code;
    return end_export(&e, fv_export_lut(model, e.out, &options, &err), &err);
}

int export_tokenizer(int argc, char **argv)
{
    static const usage use = {
        .synopsis = "export tokenizer [OPTIONS] MODEL -o FILE",
        .about = "Writes tokenizer.json: the model's own if it has one, otherwise built from "
                 "vocab.json, merges.txt and the added tokens. Hugging Face tokenizers and "
                 "Genie read it and produce the same ids as this program.",
        .example = "  fastvlm export tokenizer FastVLM-0.5B -o tokenizer.json",
    };
    export_common e = { 0 };
    fv_export_options options;
    fv_error err;
    const char *model;
    text_list words = { 0 };
    const option_spec table[] = { EXPORT_FILE(e) };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0 || (code = begin_export(argv[0], &e, &words, &model, &options)) >= 0)
        return code;
    return end_export(&e, fv_export_tokenizer(model, e.out, &options, &err), &err);
}

#define GENIE_ABOUT                                                              \
    "Writes genie_model.json for qnn-genai-transformer-composer --config_file, " \
    "the dialogs genie_dialog.json (CPU) and genie_dialog_htp.json (NPU) for "   \
    "genie-t2t-run, and htp_backend.json. Answers are greedy unless --sampling " \
    "is given."

/* argv[0]: "export genie", or "genie config", by which name a user of Genie looks for it. */
int export_genie(int argc, char **argv)
{
    static const usage as_export = {
        .synopsis = "export genie [OPTIONS] MODEL -o DIR",
        .about = GENIE_ABOUT,
        .example = "  fastvlm export genie FastVLM-0.5B -o genie/ --context 1024",
    };
    static const usage as_genie = {
        .synopsis = "genie config [OPTIONS] MODEL -o DIR",
        .about = GENIE_ABOUT,
        .example = "  fastvlm genie config FastVLM-0.5B -o genie/ --context 1024",
    };
    const usage *use = strcmp(argv[0], "genie config") != 0 ? &as_export : &as_genie;
    export_common e = { 0 };
    fv_genie_options s = { .size = sizeof s };
    fv_export_options options;
    fv_error err;
    const char *model;
    text_list words = { 0 };
    const option_spec table[] = {
        EXPORT_DIR(e),
        { 0, "context", OPTION_INT, &s.context, "N", "context length in tokens (default: 512)", 2,
          1 << 20 },
        { 0, "max-new-tokens", OPTION_INT, &s.max_new_tokens, "N",
          "maximum length of an answer in tokens (default: 50)", 1, 1 << 20 },
        { 't', "threads", OPTION_INT, &s.n_threads, "N", "threads of the CPU engine (default: 6)",
          1, 64 },
        { 0, "sampling", OPTION_FLAG, &s.sampling, NULL,
          "temperature 0.8, top-k 40, top-p 0.95, as in the reference Qualcomm pipeline", 0, 0 },
        { 0, "seed", OPTION_U64, &s.seed, "N", "random seed for sampling (default: 42)", 0, 0 },
        { 0, "device-dir", OPTION_TEXT, &s.device_dir, "PATH",
          "directory of the files on the phone (default: /data/local/tmp/fastvlm)", 0, 0 },
        { 0, "model-bin", OPTION_TEXT, &s.model_bin, "NAME",
          "name of the composed decoder there (default: fastvlm_model.bin)", 0, 0 },
    };
    int code = parse_options(argc, argv, use, table, sizeof table / sizeof *table, &words);
    if (code >= 0 || (code = begin_export(argv[0], &e, &words, &model, &options)) >= 0)
        return code;
    return end_export(&e, fv_export_genie(model, &s, e.out, &options, &err), &err);
}
