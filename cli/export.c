/* fastvlm export: finds the artefact and hands over; what the artefacts share. */
#include "export.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const verb_entry artefacts[] = {
    { "onnx", "vision encoder, embedding and decoder as ONNX graphs", export_onnx },
    { "calib", "images as raw tensors, for calibration in a converter", export_calib },
    { "lut", "the embedding as f32 rows: Genie's LUT.bin", export_lut },
    { "tokenizer", "tokenizer.json for Hugging Face tokenizers and Genie", export_tokenizer },
    { "genie", "Genie's architecture and dialog configurations", export_genie },
    { "gguf", "the decoder only, for llama.cpp", export_gguf },
    { "hf", "a checkpoint directory in either layout, for transformers", export_hf },
    { "all", "everything, with a manifest; same as fastvlm export --all", export_all },
};

static void log_export(void *user, fv_log_level level, const char *message)
{
    export_common *e = user;
    clear_line();
    if (level == FV_LOG_WARNING || !e->quiet)
        print_err("%s%s\n", level == FV_LOG_WARNING ? "fastvlm: warning: " : "", message);
}

static bool show_export(void *user, const char *stage, double done)
{
    export_common *e = user;
    return show_progress(&e->progress, stage, done);
}

int begin_export(const char *verb, export_common *e, const text_list *words, const char **model,
                 fv_export_options *options)
{
    if (model && words->n != 1)
        return usage_error(verb, words->n ? "more than one model: %s and %s" : "no model given",
                           words->item[0], words->item[1]);
    if (!e->out)
        return usage_error(verb, "no output given; use -o");
    if (model)
        *model = words->item[0];
    e->progress.enabled = !e->quiet;
    e->callbacks = (fv_callbacks){
        .size = sizeof e->callbacks, .log = log_export, .progress = show_export, .user = e
    };
    *options = (fv_export_options){ .size = sizeof *options,
                                    .force = e->force,
                                    .callbacks = &e->callbacks };
    catch_interrupt();
    return -1;
}

static bool holds_files(const char *path)
{
    DIR *dir = opendir(path);
    size_t n = 0;
    while (dir && n < 3 && readdir(dir)) /* "." and ".." are always there */
        n++;
    if (dir)
        closedir(dir);
    return n > 2;
}

int end_export(export_common *e, fv_status status, const fv_error *err)
{
    clear_line();
    if (status == FV_OK)
        return EXIT_OK;
    int code = report(err);
    if (status == FV_ERR_IO && !e->force && holds_files(e->out))
        print_err("--force replaces files of the same names in it\n");
    return code;
}

int verb_export(int argc, char **argv)
{
    static const verb_group group = {
        .name = "export",
        .what = "artefact",
        .placeholder = "ARTEFACT",
        .arguments = "[OPTIONS] MODEL -o OUT",
        .about = "Writes a model in the formats that other runtimes load.",
        .example = "  fastvlm export onnx FastVLM-0.5B -o onnx/\n"
                   "  fastvlm export --all FastVLM-0.5B -o artefacts/\n",
        .entries = artefacts,
        .n = sizeof artefacts / sizeof *artefacts,
    };
    static char all[] = "all";
    if (argc > 1 && !strcmp(argv[1], "--all"))
        argv[1] = all;
    return run_verb_group(&group, argc, argv);
}
