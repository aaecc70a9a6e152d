/* fastvlm doctor: what this machine offers, and what to do about what is missing. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"
#include "program/grammar.h"
#include "program/serve.h"

static void finding_print(const char *name, const char *format, va_list args)
{
    print_out("%-16s ", name);
    char *text = NULL;
    if (vasprintf(&text, format, args) >= 0)
        print_out("%s\n", text);
    free(text);
}

static void finding_append(doctor *d, const char *key, const char *format, va_list args)
{
    char *text = NULL;
    json_t *last = json_array_get(d->json, json_array_size(d->json) - 1);
    if (vasprintf(&text, format, args) < 0)
        return;
    if (!json_object_get(last, key))
        json_object_set_new(last, key, json_array());
    json_array_append_new(json_object_get(last, key), json_text(text));
    free(text);
}

void doctor_find(doctor *d, const char *name, bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (d->json) {
        json_array_append_new(d->json, json_pack("{s:s, s:b}", "name", name, "ok", (int)ok));
        finding_append(d, "found", format, args);
    } else {
        finding_print(name, format, args);
    }
    va_end(args);
}

void doctor_note(doctor *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (d->json)
        finding_append(d, "notes", format, args);
    else
        finding_print("", format, args);
    va_end(args);
}

/* The formats of images that can be read; what the others lack. */
static void image_lines(doctor *d)
{
    char text[512] = "";
    const char *name;
    fv_error err;
    fv_status status;
    bool all = true;
    for (size_t i = 0; (status = fv_image_format_check(i, &name, &err)) != FV_ERR_ARGUMENT; i++) {
        all = all && status == FV_OK;
        if (status == FV_OK)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", *text ? ", " : "",
                     name);
    }
    doctor_find(d, "images", all, "%s", text);
    text[0] = '\0';
    for (size_t i = 0; (status = fv_image_format_check(i, &name, &err)) != FV_ERR_ARGUMENT; i++) {
        if (status == FV_OK || !strcmp(text, err.message)) /* two formats of one library */
            continue;
        doctor_note(d, "%s", err.message);
        snprintf(text, sizeof text, "%s", err.message);
    }
}

/* Libraries that are opened when they are first needed. */
static void library_lines(doctor *d)
{
    fv_error err;
    const char *version;
    bool there = serve_check(&err) == FV_OK;
    doctor_find(d, "server", there, "%s",
                there ? "libmicrohttpd, which fastvlm serve needs" : err.message);
    there = fv_grammar_check(&version, &err) == FV_OK;
    if (there)
        doctor_find(d, "json schemas", true, "llguidance %s", version);
    else
        doctor_find(d, "json schemas", false, "%s", err.message);
    if (!there)
        doctor_note(d, "make builds it where cargo is installed (Rust 1.87 or newer)");
}

static void machine_lines(doctor *d, const fv_system *s)
{
    bool lowered = !s->cpu_unknown && strcmp(s->cpu_level, s->cpu_best) != 0;
    doctor_find(d, "fastvlm", true, "%s", fv_version());
    doctor_find(d, "processor", true, "%s, %d physical cores for this process", cpu_model(),
                s->n_cores);
    doctor_find(d, "kernels", !s->cpu_unknown, "%s%s%s", s->cpu_level,
                lowered ? ", lowered by FV_CPU from " : "", lowered ? s->cpu_best : "");
    if (s->cpu_unknown)
        doctor_note(d,
                    "FV_CPU=%s is not a level of this build and processor; unset it, or use ref "
                    "or a level up to %s",
                    getenv("FV_CPU"), s->cpu_best);
    doctor_find(d, "bf16", true, "%s (%s)",
                s->fast_bf16 ? "the default for bf16 checkpoints" : "f32 is the default",
                s->bf16_reason);
    if (s->memory_bytes > 0)
        doctor_find(
            d, "memory", true,
            "%.1f GB%s, %.1f GB available (FastVLM-0.5B needs about 1.6, 1.5B 4.2, 7B 15.8)",
            (double)s->memory_bytes / 1e9, s->memory_limited ? " in this container or service" : "",
            (double)s->memory_available_bytes / 1e9);
    image_lines(d);
    library_lines(d);
}

/* -1, or an exit code when the model does not open. */
static int model_lines(doctor *d, const fv_system *s, const model_options *model)
{
    fv_engine *engine = NULL;
    fv_model_info m = { .size = sizeof m };
    fv_memory memory = { .size = sizeof memory };
    fv_error err;
    if (!model->model) {
        const void *data;
        size_t n_bytes;
        doctor_find(d, "model", true,
                    "none given; fastvlm doctor MODEL opens one and says whether it fits");
        doctor_note(d, "%s",
                    demo_model(&data, &n_bytes)
                        ? "without a model, commands use the built-in demonstration model"
                        : "this program has no built-in demonstration model");
        doctor_note(d, "fastvlm pull apple/FastVLM-0.5B fetches a real one");
        return -1;
    }
    int code = open_engine(&engine, model);
    if (code >= 0)
        return code;
    fv_engine_info(engine, &m);
    bool known = fv_engine_memory(engine, &memory, &err) == FV_OK;
    double need = (double)memory.mapped_bytes + (double)memory.engine_bytes +
                  (double)memory.encoder_bytes + (double)memory.session_bytes;
    double there = (double)s->memory_available_bytes;
    bool tight = known && s->memory_bytes > 0 && need > there;
    doctor_find(d, "model", !tight,
                "%s opens in %.0f ms: %.0f MB of weights, vision %s, decoder %s", model->model,
                fv_engine_load_ms(engine), (double)m.weight_bytes / 1e6, m.vision_precision,
                m.decoder_precision);
    if (known && s->memory_bytes > 0)
        doctor_note(d,
                    "it takes up to %.2f GB with an image and the longest conversation: it %s, "
                    "%.2f GB are available%s",
                    need / 1e9, tight ? "may not fit" : "fits", there / 1e9,
                    tight ? "; close other programs, or pack it in fewer bits (fastvlm pack)" : "");
    fv_engine_free(engine);
    return -1;
}

int verb_doctor(int argc, char **argv)
{
    static const usage use = {
        "doctor [MODEL]",
        "Shows what this machine offers the engine and how to fix what is missing; also what the "
        "way to a Snapdragon phone needs. "
        "With a model, also opens it and says whether it fits into memory.",
        "  fastvlm doctor FastVLM-0.5B",
    };
    fv_system s = { .size = sizeof s };
    text_list words, images = { 0 };
    model_options model = { 0 };
    const char *prompt = NULL;
    bool json = false;
    const option_spec options[] = {
        MODEL_OPTIONS(model),
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
    };
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
    doctor d = { .json = json ? json_array() : NULL };
    machine_lines(&d, &s);
    code = model_lines(&d, &s, &model);
    if (code >= 0) {
        json_decref(d.json);
        return code;
    }
    doctor_phone(&d);
    return json ? print_json(json_pack("{s:o}", "findings", d.json), 0) : EXIT_OK;
}
