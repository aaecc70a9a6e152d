/* fastvlm export hf, gguf: the weights for transformers and for llama.cpp. */
#include "export.h"

int export_hf(int argc, char **argv)
{
    static const usage use = {
        .synopsis = "export hf [OPTIONS] MODEL -o DIR",
        .about = "Writes a checkpoint directory that transformers loads: model.safetensors, "
                 "config.json, tokenizer and processor files. fast_vlm is the layout of "
                 "transformers' own class, llava_qwen2 the one Apple publishes. Training-time "
                 "convolutions are fused; what needs no change is copied bit by bit.",
        .example = "  fastvlm export hf FastVLM-0.5B -o FastVLM-0.5B-hf --layout fast_vlm",
    };
    export_common e = { 0 };
    fv_hf_options s = { .size = sizeof s };
    fv_export_options options;
    fv_error err;
    const char *model;
    int layout = 0, dtype = 0;
    text_list words = { 0 };
    const option_spec table[] = {
        EXPORT_DIR(e),
        { 0, "layout", OPTION_CHOICE, &layout, "fast_vlm|llava_qwen2",
          "layout to write (default: fast_vlm)", 0, 0 },
        { 0, "dtype", OPTION_CHOICE, &dtype, "auto|f32|bf16|f16",
          "type of the weights (auto: as stored)", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0 || (code = begin_export(argv[0], &e, &words, &model, &options)) >= 0)
        return code;
    s.layout = layout == 0 ? FV_HF_FAST_VLM : FV_HF_LLAVA_QWEN2;
    s.dtype = (fv_precision)dtype;
    return end_export(&e, fv_export_hf(model, &s, e.out, &options, &err), &err);
}

int export_gguf(int argc, char **argv)
{
    static const usage use = {
        .synopsis = "export gguf [OPTIONS] MODEL -o FILE",
        .about = "Writes only the decoder and the tokenizer, as a GGUF file of architecture "
                 "qwen2 for llama.cpp. It answers text only: llama.cpp has no FastVLM vision "
                 "encoder, so there is no mmproj file. In q4_0 the embedding and the output "
                 "head are q8_0.",
        .example = "  fastvlm export gguf FastVLM-0.5B -o decoder-q8_0.gguf --type q8_0",
    };
    export_common e = { 0 };
    fv_export_options options;
    fv_error err;
    const char *model;
    int type = 0;
    text_list words = { 0 };
    const option_spec table[] = {
        EXPORT_FILE(e),
        { 0, "type", OPTION_CHOICE, &type, "f16|q8_0|q4_0|bf16|f32",
          "type of the matrices (default: f16)", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0 || (code = begin_export(argv[0], &e, &words, &model, &options)) >= 0)
        return code;
    return end_export(&e, fv_export_gguf(model, (fv_decoder_type)type, e.out, &options, &err),
                      &err);
}
