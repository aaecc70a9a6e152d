/* fastvlm pack: a checkpoint as one file. fastvlm verify: is it intact. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "fastvlm_tools.h"

int verb_pack(int argc, char **argv)
{
    static const usage use = {
        "pack [OPTIONS] CHECKPOINT [IMAGES...] -o FILE",
        "Packs a checkpoint directory into one GGUF file that every command accepts in "
        "its place. It contains the weights, fused and in the types they run in, the "
        "tokenizer, conversation template, preprocessing settings and hashes, and "
        "opens instantly, without conversion.\n"
        "\n"
        "z8 and q4 store blocks of 32 weights with one scale, 8.5 and 4.5 bits per weight. w8a8 "
        "has one scale for every row of weights and for every token of a prompt: prompts run "
        "faster, and more is lost. int8 and calibrated rounding use IMAGES (files and "
        "directories) or, if there are none, built-in scenes. Layer groups that cost too much "
        "accuracy in int8 get activations of 16 bits (w8a16), and stay in bf16 where the 8-bit "
        "weights are what costs; if all do, the file says bf16.",
        "  fastvlm pack FastVLM-0.5B -o fastvlm-0.5b.gguf --vision bf16 --decoder z8",
    };
    fv_pack_options o;
    fv_pack_report r = { .size = sizeof r };
    fv_error err;
    text_list words;
    const char *out = NULL;
    int v = 0, d = 0, rounding = 0;
    float min_cosine = -1; /* not given */
    bool quiet = false;
    fv_pack_options_default(&o);
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &out, "FILE", "file to write", 0, 0 },
        { 0, "vision", OPTION_CHOICE, &v, VISION_PRECISIONS,
          "type of the vision encoder (auto: as stored)", 0, 0 },
        { 0, "decoder", OPTION_CHOICE, &d, DECODER_PRECISIONS,
          "type of the decoder (auto: as stored)", 0, 0 },
        { 0, "max-images", OPTION_INT, &o.max_images, "N",
          "calibrate with up to N images, or with N scenes (default: 32 images, 16 for "
          "rounding, or 16 scenes; below 1024 px four times as many)",
          0, 100000 },
        { 0, "min-cosine", OPTION_FLOAT, &min_cosine, "X",
          "move layer groups from int8 to w8a16 or bf16 until the feature cosine against f32 "
          "reaches X (default 0.9993)",
          0, 1 },
        { 0, "rounding", OPTION_CHOICE, &rounding, "auto|search|calibrated",
          "rounding of z8, q4 and w8a8: minimise the error of the weights, or of the layers' "
          "outputs (auto: calibrated for q4). calibrated: of an int8 encoder, too, which takes "
          "longer",
          0, 0 },
        { 0, "pure", OPTION_FLAG, &o.pure, NULL,
          "with q4: store the embedding in q4, too, instead of z8", 0, 0 },
        { 't', "threads", OPTION_INT, &o.n_threads, "N", "threads (default: one per physical core)",
          0, 1024 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no progress and no summary", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (!words.n)
        return usage_error("pack", "no checkpoint directory given");
    if (min_cosine == 0 || min_cosine >= 1)
        return usage_error("pack", "--min-cosine must be above 0 and below 1");
    if (!out)
        return usage_error("pack", "no output given; use -o FILE.gguf");
    o.vision = chosen_precision(VISION_PRECISIONS, v);
    o.decoder = chosen_precision(DECODER_PRECISIONS, d);
    o.paths = (const char *const *)words.item + 1;
    o.n_paths = words.n - 1;
    o.min_cosine = min_cosine > 0 ? min_cosine : 0;
    o.rounding = (fv_rounding)rounding;
    bool blocks = o.decoder == FV_PRECISION_Z8 || o.decoder == FV_PRECISION_Q4 ||
                  o.decoder == FV_PRECISION_W8A8;
    bool compensated = o.vision == FV_PRECISION_INT8 && o.rounding == FV_ROUNDING_CALIBRATED;
    if (rounding && !blocks && !compensated)
        return usage_error("pack",
                           "--rounding needs --decoder z8, q4 or w8a8; calibrated works with "
                           "--vision int8, too");
    bool calibrates = o.vision == FV_PRECISION_INT8 || o.rounding == FV_ROUNDING_CALIBRATED ||
                      (o.decoder == FV_PRECISION_Q4 && o.rounding != FV_ROUNDING_SEARCH);
    if (o.n_paths && !calibrates)
        return usage_error(
            "pack",
            "images need --vision int8, --decoder q4 or --rounding calibrated; found %zu "
            "arguments",
            words.n);
    if (min_cosine > 0 && o.vision != FV_PRECISION_INT8)
        return usage_error("pack", "--min-cosine needs --vision int8");
    if (o.max_images > 0 && !calibrates)
        return usage_error("pack", "--max-images needs --vision int8, --decoder q4 or --rounding "
                                   "calibrated");
    if (o.pure && o.decoder != FV_PRECISION_Q4)
        return usage_error("pack", "--pure needs --decoder q4");
    catch_interrupt();
    progress_line line = { .enabled = !quiet, .tells_left = true };
    fv_callbacks callbacks = line_callbacks(&line);
    o.callbacks = &callbacks;
    fv_status status = fv_pack(words.item[0], out, &o, &r, &err);
    clear_line();
    if (status != FV_OK)
        return report(&err);
    bool no_int8 = r.n_groups && r.n_wide == r.n_groups;
    if (no_int8)
        print_err(
            "fastvlm: warning: with any layer group in int8 or w8a16 the feature cosine stays "
            "below %.7g, so the vision encoder was packed in bf16; a lower --min-cosine "
            "allows int8\n",
            o.min_cosine > 0 ? o.min_cosine : 0.9993);
    if (quiet)
        return EXIT_OK;
    print_err("%s: %zu tensors, %.1f million weights, %.1f MB in %.1f s", out, r.n_tensors,
              (double)r.n_parameters / 1e6, (double)r.file_bytes / 1e6, r.ms / 1e3);
    if (isinf(r.worst_sqnr))
        print_err("; nothing lost\n");
    else
        print_err("; %s lost most, %.1f dB\n", r.worst_name, (double)r.worst_sqnr);
    if (r.n_groups && !no_int8) {
        print_err("int8%s calibrated with %zu %s%s; on some of them, cosine against f32: "
                  "features %.5f, image tokens %.5f (%.1f dB); of %zu layer groups %zu are in "
                  "w8a16, %zu stay in bf16\n",
                  compensated ? " and its rounding" : "", r.n_images,
                  r.synthetic_images ? "built-in scene" : "image", r.n_images == 1 ? "" : "s",
                  r.feature_cosine, r.token_cosine, r.token_sqnr, r.n_groups, r.n_w8a16, r.n_wide);
    }
    if (r.n_rounding_rows)
        print_err("rounding calibrated with %zu rows from %zu %s%s and the model's answers\n",
                  r.n_rounding_rows, r.n_rounding_images,
                  r.synthetic_images ? "built-in scene" : "image",
                  r.n_rounding_images == 1 ? "" : "s");
    if (r.n_skipped)
        print_err("%zu unreadable images skipped\n", r.n_skipped);
    if (r.synthetic_images)
        print_err("for better calibration, give images like those the model will see: fastvlm "
                  "pack CHECKPOINT IMAGES...; fastvlm eval measures the effect\n");
    return EXIT_OK;
}

int verb_verify(int argc, char **argv)
{
    static const usage use = {
        "verify [OPTIONS] FILE",
        "Checks a packed file: its hashes, that every tensor of the model is present "
        "in a usable type and shape, that the tokenizer can be built, and that no "
        "value is NaN or infinite. Prints \"intact\", or what is wrong.",
        "  fastvlm verify fastvlm-0.5b.gguf",
    };
    fv_error err;
    text_list words;
    bool quiet = false;
    const option_spec options[] = {
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "no output, only the exit code", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1)
        return usage_error("verify", "expected one file, found %zu arguments", words.n);
    catch_interrupt();
    progress_line line = { .enabled = !quiet };
    fv_callbacks callbacks = line_callbacks(&line);
    fv_verify_options o = { .size = sizeof o, .callbacks = &callbacks };
    fv_status status = fv_verify(words.item[0], &o, &err);
    clear_line();
    if (status != FV_OK)
        return quiet ? EXIT_FAILED : report(&err);
    if (!quiet)
        print_out("%s: intact\n", words.item[0]);
    return EXIT_OK;
}
