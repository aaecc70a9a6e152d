/* fastvlm qairt convert, quantize, lib, context, info: one tool of the SDK each. */
#include <stdio.h>
#include <string.h>

#include "qairt.h"

static int qairt_end(const char *what, const qairt_common *c, fv_status status, const fv_error *err)
{
    clear_line();
    if (status != FV_OK)
        return report(err);
    if (!c->options.dry_run)
        print_err("%s\n", what);
    return EXIT_OK;
}

/* clang-format off */
#define CALIBRATION_OPTIONS(o)                                                                    \
    { 'i', "input-list", OPTION_TEXT, &(o).input_list, "FILE",                                    \
      "calibration samples, one path a line, as fastvlm export calib writes it", 0, 0 },          \
    { 0, "image-size", OPTION_SIDE, &(o).image_size, "N",                                         \
      "side of the encoder's input in pixels (default: 1024)", 0, 4096 },                         \
    { 0, "activation-bits", OPTION_INT, &(o).activation_bits, "N", "8 or 16 (default: 8)", 8,     \
      16 },                                                                                       \
    { 0, "weight-bits", OPTION_INT, &(o).weight_bits, "N", "4 or 8 (default: 8)", 4, 8 },         \
    { 0, "per-channel", OPTION_FLAG, &(o).per_channel, NULL,                                      \
      "a scale for each output channel of the weights", 0, 0 },                                   \
    { 0, "name", OPTION_TEXT, &(o).name, "NAME", "of the files and the graph", 0, 0 },            \
    { 'f', "force", OPTION_FLAG, &(o).force, NULL, "replace files of the same names", 0, 0 }
/* clang-format on */

int qairt_convert(int argc, char **argv)
{
    static const usage use = {
        "qairt convert [OPTIONS] ENCODER.onnx -o DIR",
        "Runs qnn-onnx-converter as the reference Qualcomm pipeline does: an ONNX encoder becomes "
        "C++ and weights in 8 bits, calibrated with the samples of --input-list. With --dlc it "
        "runs qairt-converter, which makes a DLC in float for qairt quantize.",
        "  fastvlm export calib photos/ -o calib/\n"
        "  fastvlm qairt convert onnx/vision_encoder_fp32.onnx \\\n"
        "    -i calib/input_list.txt -o int8/",
    };
    qairt_common c = { 0 };
    fv_qairt_convert_options o = { .size = sizeof o };
    fv_error err;
    text_list words;
    const char *dir = NULL;
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &dir, "DIR", "directory to write (required)", 0, 0 },
        CALIBRATION_OPTIONS(o),
        { 0, "bias-bits", OPTION_INT, &o.bias_bits, "N", "8 or 32 (default: 8)", 8, 32 },
        { 0, "keep-layout", OPTION_FLAG, &o.keep_layout, NULL,
          "keep the input as [1, 3, S, S]; samples must be nchw then", 0, 0 },
        { 0, "dlc", OPTION_FLAG, &o.dlc, NULL, "make a DLC in float, with qairt-converter", 0, 0 },
        QAIRT_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1 || !dir)
        return usage_error(argv[0], "expected one ONNX file and -o DIR");
    if (!o.dlc && !o.input_list)
        return usage_error(argv[0], "no calibration samples: --input-list FILE (without it the "
                                    "converter would leave everything in float)");
    qairt_begin(&c, !c.quiet);
    return qairt_end(dir, &c, fv_qairt_convert(words.item[0], dir, &o, &c.options, &err), &err);
}

int qairt_quantize(int argc, char **argv)
{
    static const usage use = {
        "qairt quantize [OPTIONS] ENCODER.dlc -o DIR",
        "Runs qairt-quantizer on a DLC in float (qairt convert --dlc), calibrated with the samples "
        "of --input-list, which are nchw.",
        "  fastvlm qairt quantize dlc/vision_encoder_fp32.dlc \\\n"
        "    -i calib/input_list.txt --activation-bits 16 -o int8/",
    };
    qairt_common c = { 0 };
    fv_qairt_convert_options o = { .size = sizeof o };
    fv_error err;
    text_list words;
    const char *dir = NULL;
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &dir, "DIR", "directory to write (required)", 0, 0 },
        CALIBRATION_OPTIONS(o),
        { 0, "bias-bits", OPTION_INT, &o.bias_bits, "N", "8 or 32 (default: 32)", 8, 32 },
        QAIRT_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1 || !dir || !o.input_list)
        return usage_error(argv[0], "expected one DLC, --input-list FILE and -o DIR");
    qairt_begin(&c, !c.quiet);
    return qairt_end(dir, &c, fv_qairt_quantize(words.item[0], dir, &o, &c.options, &err), &err);
}

int qairt_lib(int argc, char **argv)
{
    static const usage use = {
        "qairt lib [OPTIONS] MODEL.cpp -o DIR",
        "Runs qnn-model-lib-generator: the converter's C++, with MODEL.bin beside it, becomes a "
        "library for this computer, which qairt context compiles, and with ANDROID_NDK_ROOT set "
        "one for the phone.",
        "  fastvlm qairt lib int8/vision_encoder_int8_qnnmodel.cpp -o lib/",
    };
    qairt_common c = { 0 };
    fv_qairt_lib_options o = { .size = sizeof o };
    fv_error err;
    text_list words;
    const char *dir = NULL;
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &dir, "DIR", "directory to write (required)", 0, 0 },
        { 0, "name", OPTION_TEXT, &o.name, "NAME", "of lib<NAME>.so (default: MODEL)", 0, 0 },
        { 0, "host-only", OPTION_FLAG, &o.host_only, NULL, "no library for the phone", 0, 0 },
        { 'f', "force", OPTION_FLAG, &o.force, NULL, "replace files of the same names", 0, 0 },
        QAIRT_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1 || !dir)
        return usage_error(argv[0], "expected one file of C++ and -o DIR");
    qairt_begin(&c, !c.quiet);
    return qairt_end(dir, &c, fv_qairt_lib(words.item[0], dir, &o, &c.options, &err), &err);
}

/* ---- context ----------------------------------------------------------------------------- */

static int context_print(const fv_qairt_context_report *r, const char *dir)
{
    print_out("%s/%s: %.1f MB\n", dir, r->file, (double)r->file_bytes / 1e6);
    print_out("  graph %s", r->graph);
    if (r->htp_version)
        print_out(", HTP v%u", r->htp_version);
    if (r->vtcm_mb)
        print_out(", VTCM %u MB", r->vtcm_mb);
    if (r->optimization_level)
        print_out(", optimisation level %u", r->optimization_level);
    print_out("\n  %s: as asked for, says qnn-context-binary-utility%s\n", r->info,
              r->own_reader ? "; so does libQnnSystem" : "");
    return end_out();
}

int qairt_context(int argc, char **argv)
{
    static const usage use = {
        "qairt context [OPTIONS] MODEL -o DIR",
        "Runs qnn-context-binary-generator: a model library (lib/x86_64-linux-clang/lib*.so) or a "
        "DLC becomes a context binary for a chip. Its description is read back and compared with "
        "what was asked for, because the tool ignores a configuration for another graph without a "
        "word.",
        "  fastvlm qairt context lib/x86_64-linux-clang/libvision_encoder.so -o npu/",
    };
    qairt_common c = { 0 };
    fv_qairt_context_options o = { .size = sizeof o };
    fv_qairt_context_report r = { .size = sizeof r };
    fv_error err;
    text_list words;
    const char *dir = NULL;
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &dir, "DIR", "directory to write (required)", 0, 0 },
        { 0, "file", OPTION_TEXT, &o.file, "NAME",
          "name of the binary (default: fastvlm_vision_encoder_int8_htp.bin)", 0, 0 },
        { 0, "soc", OPTION_TEXT, &o.soc, "SOC", "chip (default sm8750); npu socs lists them", 0,
          0 },
        { 0, "graph", OPTION_TEXT, &o.graph, "NAME", "of the graph (default: from MODEL's name)", 0,
          0 },
        { 'O', "optimization", OPTION_INT, &o.optimization, "N", "level 1 to 3 (default: 3)", 1,
          3 },
        { 0, "vtcm", OPTION_INT, &o.vtcm_mb, "MB", "fast memory (default: the chip's)", 1, 64 },
        { 0, "no-config", OPTION_FLAG, &o.no_config, NULL,
          "give the tool no configuration, as the reference Qualcomm pipeline does: it compiles "
          "for "
          "its own default chip then",
          0, 0 },
        { 'f', "force", OPTION_FLAG, &o.force, NULL, "replace files of the same names", 0, 0 },
        QAIRT_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1 || !dir)
        return usage_error(argv[0], "expected one library or DLC and -o DIR");
    qairt_begin(&c, !c.quiet);
    fv_status status = fv_qairt_context(words.item[0], dir, &o, &c.options, &r, &err);
    clear_line();
    if (status != FV_OK)
        return report(&err);
    return c.options.dry_run ? EXIT_OK : context_print(&r, dir);
}

int qairt_info(int argc, char **argv)
{
    static const usage use = {
        "qairt info [OPTIONS] BINARY -o FILE",
        "Runs qnn-context-binary-utility: what a context binary contains, as JSON. npu info shows "
        "the same without the SDK's tools.",
        "  fastvlm qairt info npu/vision.bin -o vision_int8_ctx_info.json",
    };
    qairt_common c = { 0 };
    fv_error err;
    text_list words;
    const char *file = NULL;
    bool force = false;
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &file, "FILE", "file to write (required)", 0, 0 },
        { 'f', "force", OPTION_FLAG, &force, NULL, "replace it", 0, 0 },
        QAIRT_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1 || !file)
        return usage_error(argv[0], "expected one context binary and -o FILE");
    qairt_begin(&c, !c.quiet);
    return qairt_end(file, &c, fv_qairt_describe(words.item[0], file, force, &c.options, &err),
                     &err);
}
