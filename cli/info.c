/* fastvlm info: what is inside a model. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void shape_text(char *out, size_t size, const fv_tensor_info *t)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < t->n_dims && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%llu", i ? ", " : "",
                               (unsigned long long)t->shape[i]);
    if (at < size)
        snprintf(out + at, size - at, "]");
}

static void print_tensors(const fv_engine *engine)
{
    fv_tensor_info t = { .size = sizeof t };
    char shape[96];
    for (size_t i = 0; fv_engine_tensor(engine, i, &t); i++) {
        shape_text(shape, sizeof shape, &t);
        print_out("%-5s %-20s %12llu bytes  %s  %s%s", t.dtype, shape,
                  (unsigned long long)t.n_bytes, t.file, t.name, t.used ? "" : "  (not used)");
        print_out(isfinite(t.sqnr) ? "  %.1f dB\n" : "\n", (double)t.sqnr);
    }
}

static const char *info_fit_name(fv_fit fit)
{
    return fit == FV_FIT_PAD ? "pad" : fit == FV_FIT_CROP ? "crop" : "stretch";
}

/* What becomes of an image, and of its bytes. */
static void images_print(const fv_model_info *m)
{
    print_out("  images       ");
    if (m->fit == FV_FIT_PAD)
        print_out("padded to a square, scaled to %d x %d", m->image_size, m->image_size);
    else if (m->fit == FV_FIT_STRETCH)
        print_out("stretched to %d x %d", m->image_size, m->image_size);
    else if (m->scaled_short_edge)
        print_out("short edge scaled to %d, cropped to %d x %d", m->scaled_short_edge,
                  m->image_size, m->image_size);
    else if (m->scaled_width)
        print_out("scaled to %d x %d, cropped to %d x %d", m->scaled_width, m->scaled_height,
                  m->image_size, m->image_size);
    else
        print_out("cropped to %d x %d", m->image_size, m->image_size);
    if (m->fit != FV_FIT_CROP || m->scaled_short_edge || m->scaled_width)
        print_out(" (%s)", m->filter);
    print_out("; bytes x %.9g, mean %.9g %.9g %.9g, deviation %.9g %.9g %.9g\n", m->rescale,
              (double)m->image_mean[0], (double)m->image_mean[1], (double)m->image_mean[2],
              (double)m->image_std[0], (double)m->image_std[1], (double)m->image_std[2]);
}

static void end_tokens_print(const fv_engine *engine, const fv_model_info *m)
{
    print_out("  end tokens   ");
    for (int i = 0; i < m->n_end_tokens; i++) {
        size_t n = 0;
        const char *text = fv_engine_token_text(engine, m->end_tokens[i], &n);
        print_out("%s%d", i ? ", " : "", (int)m->end_tokens[i]);
        if (text)
            print_out(" (%.*s)", (int)n, text);
    }
    print_out("\n");
}

static void info_print_text(const fv_engine *engine, const model_options *model)
{
    fv_model_info m = { .size = sizeof m };
    fv_tensor_info t = { .size = sizeof t };
    uint64_t stored = 0;
    size_t n = 0, unused = 0;
    const char *key, *value;
    fv_engine_info(engine, &m);
    for (; fv_engine_tensor(engine, n, &t); n++) {
        stored += t.n_bytes;
        unused += !t.used;
    }
    print_out("%s\n", model_name(model));
    if (!model->model)
        print_out("  %-12s small, trained only on drawn shapes and printed words "
                  "(models/demo/README.md)\n"
                  "  %-12s fastvlm pull apple/FastVLM-0.5B fetches a real one\n",
                  "for", "");
    print_out("  layout       %s in %s, %zu tensors (%zu not used), %.1f MB of %s\n", m.layout,
              m.format, n, unused, (double)stored / 1e6, m.weights_type);
    for (size_t i = 0; fv_engine_record(engine, i, &key, &value); i++)
        print_out("  %-12s %s\n", key, value);
    print_out("  parameters   %.1f million in use, %.1f MB in memory\n",
              (double)m.n_parameters / 1e6, (double)m.weight_bytes / 1e6);
    print_out("  vision       FastViTHD, blocks");
    for (int i = 0; i < m.vision_stages; i++)
        print_out(" %d", m.vision_layers[i]);
    print_out(", widths");
    for (int i = 0; i < m.vision_stages; i++)
        print_out(" %d", m.vision_widths[i]);
    print_out("; input %d x %d, %d image tokens of %d features\n", m.image_size, m.image_size,
              m.n_image_tokens, m.n_features);
    print_out("  decoder      Qwen2, %d layers of %d (feed-forward %d), %d query and %d key-value "
              "heads of %d\n",
              m.n_layers, m.d_model, m.d_ffn, m.n_heads, m.n_kv_heads, m.d_head);
    print_out("  vocabulary   %d tokens, %d rows, output head %s\n", m.n_tokens, m.vocab_rows,
              m.tied_head ? "tied to the embedding" : "separate");
    print_out("  context      %d tokens\n", m.max_context);
    print_out("  precision    vision %s, decoder %s (%d threads, kernels %s)\n", m.vision_precision,
              m.decoder_precision, m.n_threads, m.cpu_level);
    images_print(&m);
    end_tokens_print(engine, &m);
    print_out(
        "  template     "
        "<|im_start|>system\\n{system}<|im_end|>\\n<|im_start|>user\\n<image>\\n{question}<|im_"
        "end|>\\n"
        "<|im_start|>assistant\\n\n");
}

static json_t *images_json(const fv_model_info *m)
{
    json_t *scaled = m->scaled_short_edge ? json_pack("{s:i}", "short_edge", m->scaled_short_edge)
                     : m->scaled_width ? json_pack("{s:i, s:i}", "width", m->scaled_width, "height",
                                                   m->scaled_height)
                                       : json_null();
    json_t *mean = json_array(), *deviation = json_array();
    for (int i = 0; i < 3; i++) {
        json_array_append_new(mean, json_number((double)m->image_mean[i]));
        json_array_append_new(deviation, json_number((double)m->image_std[i]));
    }
    return json_pack("{s:s, s:s, s:o, s:f, s:o, s:o}", "fit", info_fit_name(m->fit), "filter",
                     m->filter, "scaled", scaled, "rescale", m->rescale, "mean", mean, "std",
                     deviation);
}

static json_t *end_tokens_json(const fv_engine *engine, const fv_model_info *m)
{
    json_t *list = json_array();
    for (int i = 0; i < m->n_end_tokens; i++) {
        size_t n = 0;
        const char *text = fv_engine_token_text(engine, m->end_tokens[i], &n);
        json_array_append_new(list, json_pack("{s:i, s:o}", "id", (int)m->end_tokens[i], "text",
                                              text ? json_text_n(text, n) : json_null()));
    }
    return list;
}

static int print_model(const fv_engine *engine, const model_options *model, bool tensors)
{
    fv_model_info m = { .size = sizeof m };
    fv_tensor_info t = { .size = sizeof t };
    fv_engine_info(engine, &m);
    json_t *layers = json_array(), *widths = json_array();
    for (int i = 0; i < m.vision_stages; i++) {
        json_array_append_new(layers, json_integer(m.vision_layers[i]));
        json_array_append_new(widths, json_integer(m.vision_widths[i]));
    }
    json_t *root = json_pack(
        "{s:o, s:b, s:s, s:s, s:s, s:I, s:I, s:{s:o, s:o, s:i, s:i, s:i, s:s}, s:{s:i, s:i, s:i, "
        "s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:s}}",
        "path", json_text(model_name(model)), "demonstration", !model->model, "layout", m.layout,
        "format", m.format, "weights", m.weights_type, "parameters", (json_int_t)m.n_parameters,
        "weight_bytes", (json_int_t)m.weight_bytes, "vision", "layers", layers, "widths", widths,
        "image_size", m.image_size, "image_tokens", m.n_image_tokens, "features", m.n_features,
        "precision", m.vision_precision, "decoder", "layers", m.n_layers, "d_model", m.d_model,
        "d_ffn", m.d_ffn, "heads", m.n_heads, "kv_heads", m.n_kv_heads, "d_head", m.d_head,
        "vocab_rows", m.vocab_rows, "tokens", m.n_tokens, "max_context", m.max_context, "tied_head",
        m.tied_head ? 1 : 0, "precision", m.decoder_precision);
    const char *key, *value;
    json_t *record = json_object();
    for (size_t i = 0; fv_engine_record(engine, i, &key, &value); i++)
        json_set_text(record, key, value);
    json_object_set_new(root, "record", record);
    json_object_set_new(root, "images", images_json(&m));
    json_object_set_new(root, "end_tokens", end_tokens_json(engine, &m));
    if (tensors) {
        json_t *list = json_array();
        for (size_t i = 0; fv_engine_tensor(engine, i, &t); i++) {
            json_t *shape = json_array();
            for (int d = 0; d < t.n_dims; d++)
                json_array_append_new(shape, json_integer((json_int_t)t.shape[d]));
            json_t *one = json_pack("{s:o, s:o, s:o, s:I, s:o, s:b}", "name", json_text(t.name),
                                    "dtype", json_text(t.dtype), "shape", shape, "bytes",
                                    (json_int_t)t.n_bytes, "file", json_text(t.file), "used",
                                    t.used ? 1 : 0);
            if (isfinite(t.sqnr))
                json_object_set_new(one, "sqnr_db", json_real((double)t.sqnr));
            json_array_append_new(list, one);
        }
        json_object_set_new(root, "tensors", list);
    }
    return print_json(root, 0);
}

int verb_info(int argc, char **argv)
{
    static const usage use = {
        "info [OPTIONS] [MODEL]",
        "Shows what a model contains: layout, sizes, what becomes of an image, the tokens that "
        "end an answer, conversation template, and the precision each part would run in. For a "
        "packed file, also how it was made "
        "and, with --tensors, what each tensor lost in dB. Without MODEL the "
        "built-in demonstration model is shown.",
        "  fastvlm info FastVLM-0.5B --tensors",
    };
    model_options model = { 0 };
    bool tensors = false, json = false;
    text_list words, images = { 0 };
    const char *prompt = NULL;
    fv_engine *engine = NULL;
    const option_spec options[] = {
        MODEL_OPTIONS(model),
        { 0, "tensors", OPTION_FLAG, &tensors, NULL, "list every tensor", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object instead of text", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code < 0)
        code = sort_words("info", &words, &model.model, &images, &prompt);
    if (code >= 0)
        return code;
    if (images.n || prompt)
        return usage_error(
            "info",
            prompt ? "%s: no such model; expected a checkpoint directory or a packed file"
                   : "%s is an image; expected a checkpoint directory or a packed file",
            prompt ? prompt : images.item[0]);
    code = check_model("info", &model, true);
    if (code >= 0)
        return code;
    catch_interrupt();
    code = open_engine(&engine, &model);
    if (code < 0) {
        code = EXIT_OK;
        if (json)
            code = print_model(engine, &model, tensors);
        else {
            info_print_text(engine, &model);
            if (tensors)
                print_tensors(engine);
        }
    }
    fv_engine_free(engine);
    return code;
}
