/* fastvlm export onnx: checkpoint -> ONNX graphs. */
#include "cli.h"
#include "export.h"
#include "fastvlm_tools.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const usage use = {
    .synopsis = "export onnx [OPTIONS] CHECKPOINT -o DIR",
    .about = "Writes vision_encoder, embed_tokens and decoder as ONNX graphs into DIR. docs/export.md has their\n"
             "signatures. BatchNorm is folded; the same checkpoint and options always give the same bytes.",
    .example = "  fastvlm export onnx FastVLM-0.5B -o onnx/\n"
               "  fastvlm export onnx FastVLM-0.5B -o site/model --for transformers.js --precision f16",
};

/* "vision,embed" -> flags; 0: not understood */
static unsigned parse_parts(const char *list)
{
    static const struct { const char *name; unsigned flag; } parts[] = {
        { "vision", FV_ONNX_VISION }, { "embed", FV_ONNX_EMBED }, { "decoder", FV_ONNX_DECODER } };
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

static void log_line(void *user, fv_log_level level, const char *message)
{
    clear_progress(user);
    fprintf(stderr, "%s%s\n", level == FV_LOG_WARNING ? "fastvlm: warning: " : "", message);
}

int export_onnx(int argc, char **argv)
{
    const char *out = NULL, *only = NULL;
    bool quiet = false, external = false;
    int ops = 0, target = 0, precision = 0, image_size = -1, seq_len = -1, step_len = -1, cache_len = -1, opset = -1;
    text_list words = { 0 };
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &out, "DIR", "where to write; made when it does not exist", 0, 0 },
        { 0, "only", OPTION_TEXT, &only, "LIST", "some of vision,embed,decoder", 0, 0 },
        { 0, "for", OPTION_CHOICE, &target, "generic|npu|transformers.js", "whose signatures and file names", 0, 0 },
        { 0, "ops", OPTION_CHOICE, &ops, "primitive|fused", "norms and GELU as plain or as fused operators", 0, 0 },
        { 0, "opset", OPTION_INT, &opset, "N", "operator set, 13 to 24 (default: 14; fused: 23)", 0, 1000 },
        { 0, "precision", OPTION_CHOICE, &precision, "auto|f32|f16", "of weights and arithmetic (auto: f32; npu: f16)", 0, 0 },
        { 0, "image-size", OPTION_INT, &image_size, "N", "side of the picture, a multiple of 64 (default: the model's)", 0, 65536 },
        { 0, "seq-len", OPTION_INT, &seq_len, "N", "ids that embed_tokens takes (default: 512)", 0, 1 << 20 },
        { 0, "step-len", OPTION_INT, &step_len, "N", "rows of one decoder step (default: 1)", 0, 1 << 20 },
        { 0, "cache-len", OPTION_INT, &cache_len, "N", "rows of the decoder's cache (default: 512; npu: 1023)", 0, 1 << 20 },
        { 0, "external-data", OPTION_FLAG, &external, NULL, "weights in a file of their own even below 2 GB", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no list of what was written", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1)
        return usage_error(argv[0], words.n ? "more than one checkpoint" : "no checkpoint directory");
    if (!out)
        return usage_error(argv[0], "no output directory; say -o DIR");

    progress_line progress = { .enabled = !quiet && is_terminal(STDERR_FILENO) };
    fv_onnx_settings s;
    fv_error err;
    fv_onnx_settings_default(&s);
    if (only && !(s.parts = parse_parts(only)))
        return usage_error(argv[0], "--only: expected some of vision,embed,decoder, found \"%s\"", only);
    s.target = (fv_onnx_target)target;
    s.ops = (fv_onnx_ops)ops;
    s.precision = precision == 2 ? FV_PRECISION_F16 : precision == 1 ? FV_PRECISION_F32 : FV_PRECISION_AUTO;
    if (opset == 0 || image_size == 0 || seq_len == 0 || step_len == 0 || cache_len == 0)
        return usage_error(argv[0], "--%s is 0; expected at least %s",
                           opset == 0 ? "opset" : image_size == 0 ? "image-size" : seq_len == 0 ? "seq-len" :
                           step_len == 0 ? "step-len" : "cache-len",
                           opset == 0 ? "13" : image_size == 0 ? "64" : "1");
    s.opset = opset > 0 ? opset : 0;
    s.image_size = image_size > 0 ? image_size : 0;
    s.seq_len = seq_len > 0 ? seq_len : 0;
    s.step_len = step_len > 0 ? step_len : 0;
    s.cache_len = cache_len > 0 ? cache_len : 0;
    s.external_data = external;
    s.log = quiet ? NULL : log_line;
    s.log_user = &progress;
    s.progress = show_progress;
    s.progress_user = &progress;
    catch_interrupt();
    fv_status status = fv_export_onnx(words.item[0], out, &s, &err);
    clear_progress(&progress);
    return status == FV_OK ? EXIT_OK : report(&err);
}
