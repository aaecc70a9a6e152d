/* fastvlm npu compile, run, eval: a model as a context binary, and what that gives. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fastvlm_tools.h"
#include "npu.h"

#define PRECISIONS "w8a16|w8a8|mixed|f16"

/* ---- compile ----------------------------------------------------------------------------- */

static json_t *compiled_json(const fv_npu_compile_report *r, const char *dir)
{
    return json_pack(
        "{s:o, s:o, s:o, s:I, s:I, s:I, s:f, s:f, s:f, s:i, s:i, s:i, s:i, s:i, s:o, s:i, s:b}",
        "directory", json_text(dir), "file", json_text(r->file), "library", json_text(r->build),
        "file_bytes", (json_int_t)r->file_bytes, "spill_fill_bytes",
        (json_int_t)r->spill_fill_bytes, "peak_bytes", (json_int_t)r->peak_bytes, "calibrate_ms",
        r->calibrate_ms, "build_ms", r->build_ms, "compile_ms", r->compile_ms, "nodes",
        (int)r->n_nodes, "tensors", (int)r->n_tensors, "converts", (int)r->n_converts, "transposes",
        (int)r->n_transposes, "floats", (int)r->n_floats, "share_8x8", json_number(r->share_8x8),
        "images", (int)r->n_images, "built_in_scenes", (int)r->synthetic_images);
}

static int compiled_print(const fv_npu_compile_report *r, const char *dir)
{
    print_out("%s/%s: %.1f MB, made by QNN %s\n", dir, r->file, (double)r->file_bytes / 1e6,
              r->build);
    print_out("  %zu nodes (%zu in floats, %zu transpositions, %zu changes of width), %.1f %% of "
              "multiplications\n  8 x 8 bits, spill-fill %.1f MB\n",
              r->n_nodes, r->n_floats, r->n_transposes, r->n_converts, 100 * r->share_8x8,
              (double)r->spill_fill_bytes / 1e6);
    if (r->n_images)
        print_out("  calibrated with %zu %s in %.1f s; ", r->n_images,
                  r->synthetic_images ? "built-in scenes" : "images", r->calibrate_ms / 1e3);
    else
        print_out("  ");
    print_out("compiled in %.1f s, %.0f MB of memory\n", (r->build_ms + r->compile_ms) / 1e3,
              (double)r->peak_bytes / 1e6);
    return end_out();
}

/* The parts in a list such as "vision,embed,decoder", up to 3 of them; 0 for another text. */
static size_t parts_parse(const char *text, fv_npu_part parts[3])
{
    static const char *const names[] = { "vision", "decoder", "embed" };
    size_t n = 0;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ","), part = 0;
        while (part < 3 && (strlen(names[part]) != length || strncmp(names[part], at, length)))
            part++;
        for (size_t i = 0; i < n; i++)
            if (parts[i] == (fv_npu_part)part)
                return 0;
        if (part == 3 || n == 3)
            return 0;
        parts[n++] = (fv_npu_part)part;
        at += length;
        if (!*at)
            return n;
    }
}

/* Where several parts are compiled each takes what comes next to the precision asked for. */
static fv_npu_precision part_precision(fv_npu_part part, int precision)
{
    if (precision < 0)
        return part == FV_NPU_EMBED ? FV_NPU_F16 : FV_NPU_W8A16;
    return part == FV_NPU_VISION || precision == FV_NPU_F16 ? (fv_npu_precision)precision
                                                            : FV_NPU_W8A16;
}

/* Compiles one part after the other. */
static int parts_compile(const char *model, const char *dir, fv_npu_compile_options *o,
                         const fv_npu_part *parts, size_t n, int precision, bool unshared,
                         bool json)
{
    json_t *all = json_array();
    fv_error err;
    int code = EXIT_OK;
    for (size_t i = 0; i < n && code == EXIT_OK; i++) {
        fv_npu_compile_report r = { .size = sizeof r };
        o->part = parts[i];
        o->unshared = unshared && parts[i] == FV_NPU_DECODER;
        o->precision = n == 1 && precision >= 0 ? (fv_npu_precision)precision
                                                : part_precision(parts[i], precision);
        fv_status status = fv_npu_compile(model, dir, o, &r, &err);
        clear_line();
        if (status != FV_OK)
            code = report(&err);
        else if (json)
            json_array_append_new(all, compiled_json(&r, dir));
        else
            code = compiled_print(&r, dir);
    }
    if (json && code == EXIT_OK)
        code = print_json(json_incref(n == 1 ? json_array_get(all, 0) : all), 0);
    json_decref(all);
    return code;
}

int npu_compile(int argc, char **argv)
{
    static const usage use = {
        "npu compile [OPTIONS] MODEL -o DIR",
        "Compiles parts of a checkpoint directory or packed file for a chip, by default the vision "
        "encoder with the projector: QNN context binaries, each with its description, "
        "NAME_ctx_info.json. In 8 and 16 bits it calibrates with --images: give some like those "
        "that the model will see; the decoder with questions about them and the model's answers. "
        "Needs Qualcomm's libraries (npu setup), no SDK.",
        "  fastvlm npu compile FastVLM-0.5B -o npu --precision mixed --images photos/\n"
        "  fastvlm npu compile FastVLM-0.5B -o npu --part vision,decoder --images photos/",
    };
    fv_npu_compile_options o;
    fv_npu_part parts[3];
    text_list words, images = { 0 };
    const char *dir = NULL, *part = "vision";
    int precision = -1;
    bool json = false, unshared = false, decoder = false;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_npu_compile_options_default(&o);
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &dir, "DIR", "directory to write (required)", 0, 0 },
        { 0, "soc", OPTION_TEXT, &o.soc, "SOC", "chip (default sm8750); npu socs lists them", 0,
          0 },
        { 0, "part", OPTION_TEXT, &part, "PART",
          "vision, embed or decoder, or several with commas between (default vision)", 0, 0 },
        { 'p', "precision", OPTION_CHOICE, &precision, PRECISIONS,
          "bits of weights and activations (default w8a16, of the embedding f16); of several "
          "parts, "
          "decoder and embedding are in w8a16 where the encoder is in 8 bits",
          0, 0 },
        { 0, "image-size", OPTION_SIDE, &o.image_size, "N",
          "side of the encoder's input in pixels, a multiple of 64", 0, 4096 },
        { 0, "cache", OPTION_INT, &o.cache_len, "N", "rows of the decoder's cache (default 512)", 0,
          32768 },
        { 0, "unshared", OPTION_FLAG, &unshared, NULL,
          "the decoder's graphs with weights of their own, which a computer without the NPU can "
          "emulate",
          0, 0 },
        { 'i', "images", OPTION_LIST, &images, "PATH",
          "image or directory to calibrate with; may be repeated (default: built-in scenes)", 0,
          0 },
        { 0, "max-images", OPTION_INT, &o.max_images, "N", "use at most N of them", 0, 1e6 },
        { 'f', "force", OPTION_FLAG, &o.force, NULL, "replace files of the same names", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL,
          "print one JSON object, of several parts an array of them", 0, 0 },
        QNN_OPTION(o.qnn_dir),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1)
        return usage_error(argv[0], "expected one model, found %zu arguments", words.n);
    if (!dir)
        return usage_error(argv[0], "no output directory: -o DIR");
    size_t n = parts_parse(part, parts);
    if (!n)
        return usage_error(argv[0],
                           "--part: expected vision, embed or decoder, each once at most, with "
                           "commas between, found \"%s\"",
                           part);
    for (size_t i = 0; i < n; i++)
        decoder = decoder || parts[i] == FV_NPU_DECODER;
    if ((o.cache_len || unshared) && !decoder)
        return usage_error(argv[0], "%s is for --part decoder",
                           unshared ? "--unshared" : "--cache");
    o.paths = images.item;
    o.n_paths = images.n;
    o.callbacks = &callbacks;
    catch_interrupt();
    return parts_compile(words.item[0], dir, &o, parts, n, precision, unshared, json);
}

/* ---- run --------------------------------------------------------------------------------- */

/* Little-endian f32 of exactly n values; NULL after saying why. */
static float *raw_read(const char *path, size_t n)
{
    float *values = malloc(n * sizeof *values);
    FILE *f = fopen(path, "rb");
    size_t got = f && values ? fread(values, sizeof *values, n, f) : 0;
    bool more = f && got == n && fgetc(f) != EOF;
    if (!f)
        print_err("fastvlm: %s: %s\n", path, strerror(errno));
    else if (got != n || more)
        print_err("fastvlm: %s: %s than the %zu bytes of the graph's input in f32\n", path,
                  more ? "more" : "fewer", n * sizeof *values);
    if (f)
        fclose(f);
    if (f && got == n && !more)
        return values;
    free(values);
    return NULL;
}

static bool raw_write(const char *path, const float *values, size_t n)
{
    FILE *f = fopen(path, "wb");
    bool written = f && fwrite(values, sizeof *values, n, f) == n;
    if ((f && fclose(f) != 0) || !written) {
        print_err("fastvlm: %s: %s\n", path, strerror(errno));
        return false;
    }
    return true;
}

static int npu_run_file(fv_npu *npu, const char *input, const char *output,
                        const fv_callbacks *callbacks)
{
    fv_npu_shape s = { .size = sizeof s };
    fv_error err;
    double ms = 0;
    fv_npu_describe(npu, &s);
    size_t n = s.n_rows * s.d_model;
    float *pixels = raw_read(input, (size_t)s.image_size * (size_t)s.image_size * 3);
    float *tokens = malloc(n * sizeof *tokens);
    int code = pixels && tokens ? -1 : EXIT_FAILED;
    if (code < 0 && fv_npu_run(npu, pixels, 1, tokens, &ms, callbacks, &err) != FV_OK) {
        clear_line();
        code = report(&err);
    }
    clear_line();
    if (code < 0)
        code = raw_write(output, tokens, n) ? EXIT_OK : EXIT_FAILED;
    if (code == EXIT_OK)
        print_err("%s: [%zu, %zu] in f32, %.0f ms\n", output, s.n_rows, s.d_model, ms);
    free(pixels);
    free(tokens);
    return code;
}

/* All rows of n values that a file has; NULL after saying why there are none. */
static float *rows_read(const char *path, size_t n, size_t *n_rows)
{
    struct stat st;
    size_t each = n * sizeof(float);
    if (stat(path, &st) == 0 && (!st.st_size || (size_t)st.st_size % each)) {
        print_err("fastvlm: %s: has %lld bytes; expected rows of %zu, %zu values in f32\n", path,
                  (long long)st.st_size, each, n);
        return NULL;
    }
    *n_rows = (size_t)st.st_size / each;
    return raw_read(path, *n_rows * n);
}

static int npu_run_decoder(fv_npu_lm *lm, const fv_engine *engine, const char *input,
                           const char *output, const fv_callbacks *callbacks)
{
    fv_npu_lm_shape s = { .size = sizeof s };
    fv_error err;
    size_t n_rows = 0;
    fv_npu_lm_describe(lm, &s);
    float *rows = rows_read(input, s.d_model, &n_rows);
    float *logits = malloc(s.n_vocab * sizeof *logits);
    int code = rows && logits ? -1 : EXIT_FAILED;
    if (code < 0 && fv_npu_lm_run(lm, engine, rows, n_rows, logits, callbacks, &err) != FV_OK) {
        clear_line();
        code = report(&err);
    }
    clear_line();
    if (code < 0)
        code = raw_write(output, logits, s.n_vocab) ? EXIT_OK : EXIT_FAILED;
    if (code == EXIT_OK)
        print_err("%s: [%zu] in f32, behind %zu rows\n", output, s.n_vocab, n_rows);
    free(rows);
    free(logits);
    return code;
}

/* binary is a decoder, model what it was compiled from */
static int npu_run_with(const char *binary, const char *model, const fv_npu_library_options *o,
                        const char *input, const char *output)
{
    const model_options m = { .model = model };
    fv_engine *engine = NULL;
    fv_npu_lm *lm = NULL;
    fv_error err;
    int code = open_engine(&engine, &m);
    if (code < 0 && fv_npu_lm_open(&lm, binary, o, &err) != FV_OK) {
        clear_line();
        code = report(&err);
    }
    if (code < 0)
        code = npu_run_decoder(lm, engine, input, output, o->callbacks);
    fv_npu_lm_close(lm);
    fv_engine_free(engine);
    return code;
}

int npu_run(int argc, char **argv)
{
    static const usage use = {
        "npu run [OPTIONS] BINARY --input FILE -o FILE",
        "Runs a context binary on raw pixels: [S, S, 3] in f32, as fastvlm export calib --dtype "
        "f32 writes them, to image tokens in f32. With --model the binary is a decoder, its input "
        "a conversation's rows in f32, its output the logits behind the last. On x86-64 Qualcomm's "
        "library emulates the NPU, which --emulate confirms; a large image takes minutes there.",
        "  fastvlm npu run npu/vision.bin --input a.raw -o tokens.raw --emulate\n"
        "  fastvlm npu run npu/decoder.bin --model FastVLM-0.5B --emulate \\\n"
        "    -o logits.raw --input combined_embeddings_fp32.raw",
    };
    fv_npu_library_options o;
    fv_npu *npu = NULL;
    fv_error err;
    text_list words;
    const char *input = NULL, *output = NULL, *model = NULL;
    bool emulate = false;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_npu_library_options_default(&o);
    const option_spec options[] = {
        { 0, "input", OPTION_TEXT, &input, "FILE", "raw pixels or rows in f32 (required)", 0, 0 },
        { 'o', "output", OPTION_TEXT, &output, "FILE", "where the result goes (required)", 0, 0 },
        { 'm', "model", OPTION_TEXT, &model, "FILE",
          "of a decoder: the model that it was compiled from", 0, 0 },
        { 0, "emulate", OPTION_FLAG, &emulate, NULL, "on a computer without the NPU", 0, 0 },
        QNN_OPTION(o.qnn_dir),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1 || !input || !output)
        return usage_error(argv[0], "expected one context binary, --input FILE and -o FILE");
#if defined(__x86_64__)
    if (!emulate)
        return usage_error(argv[0], "this computer has no Hexagon NPU; --emulate emulates it");
#endif
    o.callbacks = &callbacks;
    if ((code = find_input(argv[0], &input)) >= 0)
        return code;
    if (fv_output_check(output, &err) != FV_OK) /* an emulated image takes minutes */
        return report(&err);
    catch_interrupt();
    if (model)
        return npu_run_with(words.item[0], model, &o, input, output);
    if (fv_npu_open(&npu, words.item[0], &o, &err) != FV_OK) {
        clear_line();
        return report(&err);
    }
    code = npu_run_file(npu, input, output, &callbacks);
    fv_npu_close(npu);
    return code;
}

/* ---- eval -------------------------------------------------------------------------------- */

static int evaluated_print(const fv_npu_eval_report *r)
{
    print_out(
        "%zu images: cosine of image tokens %.6f, least %.6f; SQNR %.1f dB; %.0f ms an image\n",
        r->n_images, r->cosine, r->least_cosine, r->sqnr, r->ms);
    return end_out();
}

static int compare_binary(const text_list *words, const fv_npu_library_options *lo,
                          fv_npu_eval_options *o, bool json)
{
    fv_npu_eval_report r = { .size = sizeof r };
    fv_npu *npu = NULL;
    fv_error err;
    o->paths = words->item + 2;
    o->n_paths = words->n - 2;
    fv_status status = fv_npu_open(&npu, words->item[1], lo, &err);
    if (status == FV_OK)
        status = fv_npu_eval(npu, words->item[0], o, &r, &err);
    clear_line();
    fv_npu_close(npu);
    if (status != FV_OK)
        return report(&err);
    return json ? print_json(json_pack("{s:i, s:i, s:o, s:o, s:o, s:f}", "images", (int)r.n_images,
                                       "skipped", (int)r.n_skipped, "cosine", json_number(r.cosine),
                                       "least_cosine", json_number(r.least_cosine), "sqnr",
                                       json_number(r.sqnr), "ms", r.ms),
                             0)
                : evaluated_print(&r);
}

static int layers_print(const fv_npu_layers *layers, bool json)
{
    fv_npu_layer_info l = { .size = sizeof l };
    json_t *list = json_array();
    double all = 0;
    for (size_t i = 0; fv_npu_layers_at(layers, i, &l); i++)
        all += l.macs;
    if (!json)
        print_out("%-52s %4s %6s %8s %10s\n", "value", "bits", "MACs %", "SQNR dB", "cosine");
    for (size_t i = 0; fv_npu_layers_at(layers, i, &l); i++) {
        double share = all > 0 ? l.macs / all : 0;
        if (json) {
            json_array_append_new(list,
                                  json_pack("{s:o, s:i, s:f, s:o, s:o}", "name", json_text(l.name),
                                            "bits", (int)l.bits, "share", share, "sqnr",
                                            json_number(l.sqnr), "cosine", json_number(l.cosine)));
            continue;
        }
        print_out("%-52s", l.name);
        print_out(l.bits ? " %4u" : "  f16", l.bits);
        print_out(" %6.1f %8.1f %10.6f\n", 100 * share, l.sqnr, l.cosine);
    }
    if (json)
        return print_json(
            json_pack("{s:i, s:o}", "images", (int)fv_npu_layers_images(layers), "layers", list),
            9);
    json_decref(list);
    return end_out();
}

static int compare_layers(const text_list *words, const fv_npu_compile_options *c,
                          fv_npu_eval_options *o, const char *svg, bool json)
{
    fv_npu_layers *layers = NULL;
    fv_error err;
    o->paths = words->item + 1;
    o->n_paths = words->n - 1;
    fv_status status = fv_npu_layers_run(&layers, words->item[0], c, o, &err);
    clear_line();
    int code = status == FV_OK ? layers_print(layers, json) : report(&err);
    if (status == FV_OK && svg && fv_npu_layers_plot(layers, svg, &err) != FV_OK)
        code = report(&err);
    fv_npu_layers_free(layers);
    return code;
}

int npu_eval(int argc, char **argv)
{
    static const usage use = {
        "npu eval [OPTIONS] MODEL BINARY IMAGES... | --layers MODEL IMAGES...",
        "Compares the image tokens of a context binary with those of the model in f32: mean and "
        "least cosine, signal to noise. Take other images than it was calibrated with. On x86-64 "
        "Qualcomm's library emulates the NPU.\n"
        "\n"
        "With --layers, compiles MODEL's encoder with its inner values as outputs, and shows what "
        "each of them has lost: where a precision loses what it loses. How many questions of a "
        "test come out right with the NPU's image tokens, fastvlm eval --task DIR MODEL --vision "
        "npu:BINARY says.",
        "  fastvlm npu eval FastVLM-0.5B npu/vision_mixed_sm8750.bin photos/\n"
        "  fastvlm npu eval --layers --precision mixed --calibration photos/ \\\n"
        "    FastVLM-0.5B cat.jpg",
    };
    fv_npu_library_options lo;
    fv_npu_eval_options o;
    fv_npu_compile_options c;
    fv_error err;
    text_list words, calibration = { 0 };
    const char *svg = NULL;
    int precision = -1;
    bool json = false, layers = false;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_npu_library_options_default(&lo);
    fv_npu_eval_options_default(&o);
    fv_npu_compile_options_default(&c);
    const option_spec options[] = {
        { 0, "max-images", OPTION_INT, &o.max_images, "N", "use at most N images", 0, 1e6 },
        { 0, "layers", OPTION_FLAG, &layers, NULL, "compare value by value", 0, 0 },
        { 'p', "precision", OPTION_CHOICE, &precision, PRECISIONS,
          "with --layers: as of npu compile (default w8a16)", 0, 0 },
        { 0, "calibration", OPTION_LIST, &calibration, "PATH",
          "with --layers: image or directory to calibrate with; may be repeated (default: built-in "
          "scenes)",
          0, 0 },
        { 0, "image-size", OPTION_SIDE, &c.image_size, "N",
          "with --layers: side of the encoder's input in pixels, a multiple of 64", 0, 4096 },
        { 0, "soc", OPTION_TEXT, &c.soc, "SOC", "with --layers: chip (default sm8750)", 0, 0 },
        { 0, "svg", OPTION_TEXT, &svg, "FILE", "with --layers: plot SQNR by depth", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        QNN_OPTION(lo.qnn_dir),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (!layers && (precision >= 0 || calibration.n || c.image_size || c.soc || svg))
        return usage_error(argv[0], "--precision, --calibration, --image-size, --soc and --svg are "
                                    "for --layers; a context binary has all that already");
    if (words.n < (layers ? 2 : 3))
        return usage_error(argv[0], layers ? "expected a model and images"
                                           : "expected a model, a context binary and images");
    for (size_t i = 0; i < words.n; i++) /* before Qualcomm's libraries are looked for */
        if ((code = find_input(argv[0], &words.item[i])) >= 0)
            return code;
    for (size_t i = 0; i < calibration.n; i++)
        if ((code = find_input(argv[0], &calibration.item[i])) >= 0)
            return code;
    if (svg && fv_output_check(svg, &err) != FV_OK) /* before minutes of emulation */
        return report(&err);
    lo.callbacks = o.callbacks = c.callbacks = &callbacks;
    c.qnn_dir = lo.qnn_dir;
    c.precision = precision < 0 ? FV_NPU_W8A16 : (fv_npu_precision)precision;
    c.paths = calibration.item;
    c.n_paths = calibration.n;
    catch_interrupt();
    return layers ? compare_layers(&words, &c, &o, svg, json)
                  : compare_binary(&words, &lo, &o, json);
}
