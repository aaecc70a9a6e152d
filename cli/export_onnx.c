/* fastvlm export onnx: checkpoint -> ONNX graphs. */
#include "export.h"

#include <string.h>

static const usage use = {
    .synopsis = "export onnx [OPTIONS] MODEL -o DIR",
    .about = "Writes vision_encoder, embed_tokens and decoder as ONNX graphs into DIR; "
             "docs/onnx.md has their signatures. BatchNorm is folded. The same model and "
             "options always give the same bytes.",
    .example = "  fastvlm export onnx FastVLM-0.5B -o onnx/\n"
               "  fastvlm export onnx FastVLM-0.5B -o js/ --for transformers.js --precision f16",
};

/* "vision,embed" -> flags; 0: not understood */
static unsigned onnx_parts_parse(const char *list)
{
    static const struct {
        const char *name;
        unsigned flag;
    } parts[] = { { "vision", FV_ONNX_VISION },
                  { "embed", FV_ONNX_EMBED },
                  { "decoder", FV_ONNX_DECODER } };
    unsigned flags = 0;
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, ",");
        unsigned flag = 0;
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (strlen(parts[i].name) == n && !strncmp(parts[i].name, at, n))
                flag = parts[i].flag;
        if (!flag)
            return 0;
        flags |= flag;
        at += n;
        if (!*at)
            return flags;
    }
}

int export_onnx(int argc, char **argv)
{
    export_common e = { 0 };
    fv_onnx_options s;
    fv_export_options options;
    fv_error err;
    const char *model, *only = NULL;
    bool external = false;
    int ops = 0, target = 0, precision = 0;
    text_list words = { 0 };
    fv_onnx_options_default(&s);
    const option_spec table[] = {
        EXPORT_DIR(e),
        { 0, "only", OPTION_TEXT, &only, "LIST", "only these of vision,embed,decoder", 0, 0 },
        { 0, "for", OPTION_CHOICE, &target, "generic|npu|transformers.js",
          "runtime whose signatures and file names to use", 0, 0 },
        { 0, "ops", OPTION_CHOICE, &ops, "primitive|fused",
          "norms and GELU as primitive or fused operators", 0, 0 },
        { 0, "opset", OPTION_INT, &s.opset, "N", "operator set version (default: 14; fused: 23)",
          13, 24 },
        { 0, "precision", OPTION_CHOICE, &precision, "auto|f32|f16",
          "precision of weights and arithmetic (auto: f32; npu: f16)", 0, 0 },
        { 0, "image-size", OPTION_SIDE, &s.image_size, "N",
          "side of the input in pixels, a multiple of 64 (default: the model's)", 64, 4096 },
        { 0, "seq-len", OPTION_INT, &s.seq_len, "N", "ids per call of embed_tokens (default: 512)",
          1, 1 << 17 },
        { 0, "step-len", OPTION_INT, &s.step_len, "N", "rows of one decoder step (default: 1)", 1,
          4096 },
        { 0, "cache-len", OPTION_INT, &s.cache_len, "N",
          "rows of the decoder's cache (default: 512; npu: 1023)", 1, 1 << 17 },
        { 0, "qdq", OPTION_FLAG, &s.qdq, NULL,
          "write an int8 encoder (pack --vision int8) with QuantizeLinear and "
          "DequantizeLinear",
          0, 0 },
        { 0, "external-data", OPTION_FLAG, &external, NULL,
          "put weights into a separate file even below 2 GB", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0)
        return code;
    if (only && !(s.parts = onnx_parts_parse(only)))
        return usage_error(argv[0], "--only: expected some of vision,embed,decoder, found \"%s\"",
                           only);
    if ((code = begin_export(argv[0], &e, &words, &model, &options)) >= 0)
        return code;
    s.target = (fv_onnx_target)target;
    s.ops = (fv_onnx_ops)ops;
    s.precision = chosen_precision("auto|f32|f16", precision);
    s.external_data = external;
    return end_export(&e, fv_export_onnx(model, &s, e.out, &options, &err), &err);
}
