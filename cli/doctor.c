/* fastvlm doctor: what this machine offers, and what to do about what is missing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "npu.h"

static void line(const char *what, const char *found) { print_out("%-16s %s\n", what, found); }

/* The formats of images that can be read; what the others lack. */
static void image_lines(void)
{
    char text[512] = "";
    const char *name;
    fv_error err;
    fv_status status;
    for (size_t i = 0; (status = fv_image_format_check(i, &name, &err)) != FV_ERR_ARGUMENT; i++)
        if (status == FV_OK)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", *text ? ", " : "",
                     name);
    line("images", text);
    text[0] = '\0';
    for (size_t i = 0; (status = fv_image_format_check(i, &name, &err)) != FV_ERR_ARGUMENT; i++) {
        if (status == FV_OK || !strcmp(text, err.message)) /* two formats of one library */
            continue;
        line("", err.message);
        snprintf(text, sizeof text, "%s", err.message);
    }
}

int verb_doctor(int argc, char **argv)
{
    static const usage use = {
        "doctor [MODEL]",
        "Shows what this machine offers the engine and how to fix what is missing. "
        "With a model, also opens it and says whether it fits into memory.",
        "  fastvlm doctor FastVLM-0.5B",
    };
    fv_system s = { .size = sizeof s };
    text_list words, images = { 0 };
    model_options model = { 0 };
    const char *prompt = NULL;
    const option_spec options[] = { MODEL_OPTIONS(model) };
    char text[1200];
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code < 0)
        code = sort_words("doctor", &words, &model.model, &images, &prompt);
    if (code >= 0)
        return code;
    if (images.n || prompt)
        return usage_error("doctor",
                           "%s: no such model; expected a checkpoint directory or a packed file",
                           prompt ? prompt : images.item[0]);
    fv_system_info(&s);
    line("fastvlm", fv_version());
    snprintf(text, sizeof text, "%s, %d physical cores for this process", cpu_model(), s.n_cores);
    line("processor", text);
    snprintf(text, sizeof text, "%s%s%s", s.cpu_level,
             strcmp(s.cpu_level, s.cpu_best) ? ", lowered by FV_CPU from " : "",
             strcmp(s.cpu_level, s.cpu_best) ? s.cpu_best : "");
    line("kernels", text);
    if (s.cpu_unknown)
        line("", "FV_CPU is not a level of this build; unset it or use ref, avx2, avx512, "
                 "avx512bf16, amx, neon, ...");
    snprintf(text, sizeof text, "%s (%s)",
             s.fast_bf16 ? "the default for bf16 checkpoints" : "f32 is the default",
             s.bf16_reason);
    line("bf16", text);
    if (s.memory_bytes > 0) {
        snprintf(text, sizeof text,
                 "%.1f GB%s, %.1f GB available (FastVLM-0.5B needs about 1.6, 1.5B 4.2, 7B 15.8)",
                 (double)s.memory_bytes / 1e9,
                 s.memory_limited ? " in this container or service" : "",
                 (double)s.memory_available_bytes / 1e9);
        line("memory", text);
    }
    npu_summary(text, sizeof text);
    line("npu", text);
    image_lines();
    if (model.model) {
        fv_engine *engine = NULL;
        fv_model_info m = { .size = sizeof m };
        code = open_engine(&engine, &model);
        if (code >= 0)
            return code;
        fv_engine_info(engine, &m);
        snprintf(text, sizeof text,
                 "%s opens in %.0f ms: %.0f MB of weights, vision %s, decoder %s", model.model,
                 fv_engine_load_ms(engine), (double)m.weight_bytes / 1e6, m.vision_precision,
                 m.decoder_precision);
        line("model", text);
        if (s.memory_bytes > 0 && (double)m.weight_bytes + 0.4e9 > (double)s.memory_available_bytes)
            line("", "it may not fit into the available memory: close other programs or use a "
                     "smaller model");
        fv_engine_free(engine);
    } else {
        const void *data;
        size_t n_bytes;
        line("model", "none given; fastvlm doctor MODEL opens one and says whether it fits");
        line("", demo_model(&data, &n_bytes)
                     ? "without a model, verbs use the built-in demonstration model"
                     : "this program has no built-in demonstration model");
        line("", "fastvlm pull apple/FastVLM-0.5B fetches a real one");
    }
    return EXIT_OK;
}
