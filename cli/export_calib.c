/* fastvlm export calib: pictures -> raw tensors and their list. */
#include "export.h"

static const usage use = {
    .synopsis = "export calib [OPTIONS] PICTURES... -o DIR",
    .about = "Writes pictures, fitted and scaled as the encoder sees them, as sample_000.raw ... "
             "with input_list.txt for\n"
             "Qualcomm's converters, and calib.json, which says where each came from. PICTURES are "
             "files and folders.\n"
             "The legacy converter turns the graph's input into nhwc; with --preserve_io layout it "
             "stays nchw. The two\n"
             "have the same size, so a wrong choice is not noticed: say which one you convert for.",
    .example = "  fastvlm export calib photos/ -o calib/ --layout nhwc -n 16\n"
               "  fastvlm export calib --random 8 -o calib/ --layout nchw      as the hand-off's "
               "scripts did",
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
        { 0, "layout", OPTION_CHOICE, &layout, "nhwc|nchw", "order of the values (default: nhwc)",
          0, 0 },
        { 0, "dtype", OPTION_CHOICE, &dtype, "f32|u8", "values in [0, 1] or the pixels themselves",
          0, 0 },
        { 0, "image-size", OPTION_INT, &s.image_size, "N", "side, a multiple of 64 (default: 1024)",
          64, 4096 },
        { 0, "fit", OPTION_CHOICE, &fit, "pad|crop|stretch",
          "a picture that is not square (the hand-off: stretch)", 0, 0 },
        { 'n', "samples", OPTION_INT, &s.max_samples, "N",
          "at most so many, evenly over the sorted list", 1, 100000 },
        { 0, "min", OPTION_INT, &s.min_samples, "N",
          "fewer readable pictures are an error (default: 1)", 1, 100000 },
        { 0, "random", OPTION_INT, &s.n_random, "N",
          "N samples of noise instead; their ranges mean nothing", 1, 100000 },
        { 0, "seed", OPTION_U64, &s.seed, "N", "seed of the noise", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0)
        return code;
    if (!s.n_random && !words.n)
        return usage_error(argv[0], "no pictures; name files or a folder, or say --random 8");
    if (s.n_random && words.n)
        return usage_error(argv[0], "pictures and --random contradict each other");
    if ((code = begin_export(argv[0], &e, &words, NULL, &options)) >= 0)
        return code;
    s.paths = words.item;
    s.n_paths = words.n;
    s.layout = (fv_calib_layout)layout;
    s.dtype = (fv_calib_dtype)dtype;
    s.fit = fit == 1 ? FV_FIT_CROP : fit == 2 ? FV_FIT_STRETCH : FV_FIT_PAD;
    return end_export(&e, fv_export_calib(&s, e.out, &options, NULL, &err), &err);
}
