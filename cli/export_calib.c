/* fastvlm export calib: images -> raw tensors and their list. */
#include "export.h"

static const usage use = {
    .synopsis = "export calib [OPTIONS] IMAGES... -o DIR",
    .about = "Writes calibration samples for Qualcomm's converters: images (files and "
             "directories), fitted and scaled as the vision encoder sees them, as "
             "sample_000.raw and so on. input_list.txt lists them; calib.json says where "
             "each came from.\n"
             "\n"
             "Choose the layout of the converted graph. qnn-onnx-converter turns the "
             "input into nhwc; with --preserve_io layout it stays nchw. Both have the "
             "same size, so a wrong choice goes unnoticed.",
    .example = "  fastvlm export calib photos/ -o calib/ --layout nhwc -n 16\n"
               "  fastvlm export calib --random 8 -o calib/ --layout nchw",
};

int export_calib(int argc, char **argv)
{
    export_common e = { 0 };
    fv_calib_options s = { .size = sizeof s };
    fv_export_options options;
    fv_error err;
    int layout = 0, dtype = 0, fit = 0;
    text_list words = { 0 };
    const option_spec table[] = {
        EXPORT_DIR(e),
        { 0, "layout", OPTION_CHOICE, &layout, "nhwc|nchw", "layout of the samples (default: nhwc)",
          0, 0 },
        { 0, "dtype", OPTION_CHOICE, &dtype, "f32|u8",
          "f32: values in [0, 1]; u8: the pixels (default: f32)", 0, 0 },
        { 0, "image-size", OPTION_SIDE, &s.image_size, "N",
          "side of the input in pixels, a multiple of 64 (default: 1024)", 64, 4096 },
        { 0, "fit", OPTION_CHOICE, &fit, "pad|crop|stretch",
          "how images that are not square are fitted (default: pad; the reference "
          "Qualcomm pipeline uses stretch)",
          0, 0 },
        { 'n', "samples", OPTION_INT, &s.max_samples, "N",
          "up to N images, evenly spaced over the sorted list", 1, 100000 },
        { 0, "min", OPTION_INT, &s.min_samples, "N",
          "fail if fewer images are readable (default: 1)", 1, 100000 },
        { 0, "random", OPTION_INT, &s.n_random, "N",
          "N samples of noise instead of images; ranges found with them are meaningless", 1,
          100000 },
        { 0, "seed", OPTION_U64, &s.seed, "N", "random seed of the noise", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0)
        return code;
    if (!s.n_random && !words.n)
        return usage_error(argv[0],
                           "no images given; name files or a directory, or use --random 8");
    if (s.n_random && words.n)
        return usage_error(argv[0], "images and --random exclude each other");
    if ((code = begin_export(argv[0], &e, &words, NULL, &options)) >= 0)
        return code;
    s.paths = words.item;
    s.n_paths = words.n;
    s.layout = (fv_calib_layout)layout;
    s.dtype = (fv_calib_dtype)dtype;
    s.fit = fit == 1 ? FV_FIT_CROP : fit == 2 ? FV_FIT_STRETCH : FV_FIT_PAD;
    return end_export(&e, fv_export_calib(&s, e.out, &options, NULL, &err), &err);
}
