/* fastvlm qairt: finds the command and runs it; check, run. */
#include "qairt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const verb_entry commands[] = {
    { "check", "show which SDK there is and which tools it has", qairt_check },
    { "convert", "convert an ONNX encoder, quantised to 8 bits", qairt_convert },
    { "quantize", "quantise a converted encoder (DLC)", qairt_quantize },
    { "lib", "build the converter's code as a library", qairt_lib },
    { "context", "compile a library or DLC for a chip", qairt_context },
    { "info", "write what a context binary contains as JSON", qairt_info },
    { "run", "answer a question about an image with the SDK's programs", qairt_run },
};

int verb_qairt(int argc, char **argv)
{
    static const verb_group group = {
        .name = "qairt",
        .what = "command",
        .placeholder = "COMMAND",
        .arguments = "[OPTIONS] ...",
        .about = "The tools of Qualcomm's SDK (QAIRT), called as the reference Qualcomm pipeline\n"
                 "calls them. The SDK is yours; fastvlm npu needs none.",
        .example = "  fastvlm qairt check --sdk 2.42.0.251225\n"
                   "  fastvlm qairt convert encoder.onnx -i calib/input_list.txt -o int8/\n",
        .entries = commands,
        .n = sizeof commands / sizeof *commands,
    };
    return run_verb_group(&group, argc, argv);
}

/* What the tools say, as it is; warnings are ours. */
static void qairt_log(void *user, fv_log_level level, const char *message)
{
    (void)user;
    clear_line();
    print_err(level == FV_LOG_WARNING ? "fastvlm: warning: %s\n" : "%s\n", message);
}

static void qairt_log_quiet(void *user, fv_log_level level, const char *message)
{
    if (level == FV_LOG_WARNING)
        qairt_log(user, level, message);
}

void qairt_begin(qairt_common *c, bool show_tools)
{
    c->options.size = sizeof c->options;
    c->options.timeout_s = c->timeout_s;
    c->callbacks = line_callbacks(&c->line);
    c->callbacks.log = show_tools || c->options.dry_run ? qairt_log : qairt_log_quiet;
    c->options.callbacks = &c->callbacks;
    catch_interrupt();
}

fv_status qairt_write_text(void *user, const char *text, size_t n_bytes)
{
    (void)user;
    clear_line();
    return write_out(text, n_bytes) ? FV_OK : FV_ERR_CANCELLED;
}

/* ---- check ------------------------------------------------------------------------------- */

/* What the user set. */
static const char *sdk_named_by(const fv_qairt_info *i)
{
    return !strcmp(i->named_by, "sdk") ? "--sdk" : i->named_by;
}

static json_t *sdk_json(const fv_qairt_info *i)
{
    fv_qairt_tool_info t = { .size = sizeof t };
    json_t *tools = json_array();
    for (size_t k = 0; fv_qairt_tool(i->dir, k, &t); k++)
        json_array_append_new(tools, json_pack("{s:s, s:b, s:b}", "name", t.name, "there",
                                               (int)t.there, "for_phone", (int)t.there_for_phone));
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "dir", json_text(i->dir),
                     "named_by", sdk_named_by(i), "version", json_text(i->version), "python",
                     json_text(i->python), "python_version", json_text(i->python_version),
                     "python_problem", json_text(i->python_problem), "ndk", json_text(i->ndk),
                     "tools", tools);
}

static void sdk_print(const fv_qairt_info *i)
{
    fv_qairt_tool_info t = { .size = sizeof t };
    print_out("%-30s %s (named by %s)\n", "directory", i->dir, sdk_named_by(i));
    print_out("%-30s %s\n", "version", i->version);
    print_out("%-30s %s", "python", i->python);
    print_out("%s%s\n", *i->python_version ? ", " : "", i->python_version);
    if (*i->python_problem)
        print_out("%-30s %s\n", "", i->python_problem);
    print_out("%-30s %s\n", "NDK",
              *i->ndk ? i->ndk : "ANDROID_NDK_ROOT is not set: no model library for the phone");
    for (size_t k = 0; fv_qairt_tool(i->dir, k, &t); k++)
        print_out("%-30s %s%s (%s)\n", t.name, t.there ? "present" : "missing",
                  t.phone ? t.there_for_phone ? ", also for the phone" : ", not for the phone" : "",
                  t.purpose);
}

int qairt_check(int argc, char **argv)
{
    static const usage use = {
        "qairt check [OPTIONS]",
        "Shows the SDK that would be used: version, tools, the converters' Python. Fails when a "
        "tool is missing or the Python cannot run the converters.",
        "  fastvlm qairt check --sdk 2.42.0.251225 --venv qnn_env",
    };
    qairt_common c = { 0 };
    fv_qairt_info info = { .size = sizeof info };
    fv_error err;
    bool json = false;
    const option_spec options[] = {
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        { 0, "sdk", OPTION_TEXT, &c.options.sdk, "DIR",
          "directory of the QAIRT SDK (default: $QNN_SDK_ROOT, $QAIRT_SDK_ROOT, then the newest "
          "directory here that is named by a version)",
          0, 0 },
        { 0, "venv", OPTION_TEXT, &c.options.venv, "DIR",
          "Python environment of the SDK's converters (default: $VIRTUAL_ENV, then qnn_env in the "
          "SDK)",
          0, 0 },
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    qairt_begin(&c, false);
    if (fv_qairt_check(&info, &c.options, &err) != FV_OK)
        return report(&err);
    if (json) {
        code = print_json(sdk_json(&info), 0);
    } else {
        sdk_print(&info);
        code = end_out();
    }
    return info.n_absent || *info.python_problem ? EXIT_FAILED : code;
}

/* ---- run --------------------------------------------------------------------------------- */

static json_t *profile_json(const fv_qairt_profile *p)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:I, s:I}", "init_ms", p->init_ms, "first_token_ms",
                     p->first_token_ms, "prompt_rate", p->prompt_rate, "generation_rate",
                     p->generation_rate, "prompt_tokens", (json_int_t)p->n_prompt_tokens,
                     "generated_tokens", (json_int_t)p->n_generated);
}

void qairt_print_profile(const fv_qairt_profile *p)
{
    if (p->n_prompt_tokens >= 0 && p->first_token_ms >= 0)
        print_err("first token after %.0f ms, prompt of %lld tokens", p->first_token_ms,
                  (long long)p->n_prompt_tokens);
    if (p->n_generated >= 0 && p->generation_rate >= 0)
        print_err("; %lld tokens, %.1f a second", (long long)p->n_generated, p->generation_rate);
    print_err("\n");
}

typedef struct collected {
    char *text;
    size_t n;
} collected;

static fv_status collect_text(void *user, const char *text, size_t n_bytes)
{
    collected *c = user;
    char *more = realloc(c->text, c->n + n_bytes + 1);
    if (!more)
        return FV_ERR_MEMORY;
    memcpy(more + c->n, text, n_bytes);
    c->text = more;
    c->n += n_bytes;
    return FV_OK;
}

static int run_json(const fv_qairt_run_report *r, const collected *answer)
{
    return print_json(json_pack("{s:o, s:o, s:i, s:i, s:b, s:f, s:f, s:f, s:f, s:o}", "answer",
                                json_text_n(answer->text ? answer->text : "", answer->n), "output",
                                json_text(r->output), "prompt_tokens", (int)r->n_rows,
                                "image_tokens", (int)r->n_image_rows, "clipped", (int)r->clipped,
                                "vision_ms", r->vision_ms, "embed_ms", r->embed_ms, "decode_ms",
                                r->decode_ms, "total_ms", r->total_ms, "genie",
                                profile_json(&r->genie)),
                      0);
}

static int run_print(const fv_qairt_run_report *r, const fv_qairt_run_options *o)
{
    print_out("\n");
    int code = end_out();
    qairt_print_profile(&r->genie);
    if (o->order == FV_QAIRT_IMAGE_FIRST)
        print_err("image tokens stood in front of the whole conversation (--order pipeline), not "
                  "where the model was trained to see them\n");
    print_err("%s\n", r->output);
    return code;
}

int qairt_run(int argc, char **argv)
{
    static const usage use = {
        "qairt run [OPTIONS] -m MODEL --vision BINARY --decoder FILE IMAGE PROMPT",
        "Answers a question about an image with the SDK's programs on this computer: qnn-net-run "
        "for the image, where Qualcomm's library emulates the NPU, genie-t2t-run for the answer. "
        "The model gives tokenizer and embedding. Leaves run_outputs/DATE_TIME/ with what passed "
        "between them and profile.json.",
        "  fastvlm qairt run -m FastVLM-0.5B --vision npu/vision.bin \\\n"
        "    cat.jpg \"What is it?\" --decoder genie/fastvlm_model.bin",
    };
    qairt_common c = { 0 };
    fv_qairt_run_options o = { .size = sizeof o };
    fv_qairt_run_report r = { .size = sizeof r };
    fv_image *image = NULL;
    fv_error err;
    text_list words;
    collected answer = { 0 };
    int order = 0, fit = 0;
    bool json = false;
    const option_spec options[] = {
        { 'm', "model", OPTION_TEXT, &o.model, "FILE",
          "checkpoint directory or packed file (required)", 0, 0 },
        { 0, "vision", OPTION_TEXT, &o.vision, "FILE",
          "context binary of the vision encoder (required)", 0, 0 },
        { 0, "vision-info", OPTION_TEXT, &o.vision_info, "FILE",
          "its description (default: NAME_ctx_info.json beside it, else made with the SDK)", 0, 0 },
        { 0, "embedder", OPTION_TEXT, &o.embedder, "FILE",
          "context binary of the embedder (default: the model's own embedding)", 0, 0 },
        { 0, "embedder-info", OPTION_TEXT, &o.embedder_info, "FILE", "its description", 0, 0 },
        { 0, "decoder", OPTION_TEXT, &o.decoder, "FILE",
          "decoder of Genie's CPU engine, fastvlm_model.bin (required)", 0, 0 },
        { 0, "lut", OPTION_TEXT, &o.table, "FILE", "LUT.bin (default: beside the decoder)", 0, 0 },
        { 0, "tokenizer", OPTION_TEXT, &o.tokenizer, "FILE",
          "tokenizer.json (default: beside the decoder)", 0, 0 },
        { 0, "order", OPTION_CHOICE, &order, "template|pipeline",
          "where image tokens stand: in the conversation as the model was trained (template), or "
          "first, as the reference Qualcomm pipeline has them",
          0, 0 },
        { 0, "fit", OPTION_CHOICE, &fit, "auto|pad|crop|stretch",
          "how an image that is not square is fitted", 0, 0 },
        { 0, "context", OPTION_INT, &o.context, "N", "context length in tokens (default: 512)", 2,
          1 << 20 },
        { 'n', "max-new-tokens", OPTION_INT, &o.max_new_tokens, "N",
          "maximum length of the answer in tokens; 0: what the context leaves", 0, 1 << 20 },
        { 't', "threads", OPTION_INT, &o.n_threads, "N", "threads of Genie (default: 6)", 1, 64 },
        { 0, "sampling", OPTION_FLAG, &o.sampling, NULL,
          "temperature 0.8, top-k 40, top-p 0.95, as in the reference Qualcomm pipeline", 0, 0 },
        { 0, "seed", OPTION_U64, &o.seed, "N", "random seed for sampling (default: 42)", 0, 0 },
        { 0, "profiling", OPTION_FLAG, &o.profiling, NULL,
          "have qnn-net-run measure the encoder, and qnn-profile-viewer say what it found", 0, 0 },
        { 'o', "output", OPTION_TEXT, &o.output, "DIR",
          "directory for the run's directory (default: run_outputs)", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        QAIRT_RUN_OPTIONS(c),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 2 || !o.model || !o.vision || !o.decoder)
        return usage_error(argv[0], "expected -m MODEL, --vision BINARY, --decoder FILE, an image "
                                    "and a prompt");
    if ((code = check_text(argv[0], "the prompt", words.item[1])) >= 0)
        return code;
    o.order = (fv_qairt_order)order;
    o.fit = (fv_fit)fit;
    o.text = json ? collect_text : qairt_write_text;
    o.text_user = &answer;
    c.line.enabled = !c.quiet;
    qairt_begin(&c, c.quiet);
    if (open_image(&image, words.item[0], NULL, &err) != FV_OK)
        return report(&err);
    fv_status status = fv_qairt_run(image, words.item[1], strlen(words.item[1]), &o, &c.options, &r,
                                    &err);
    clear_line();
    fv_image_free(image);
    if (status != FV_OK)
        code = report(&err);
    else
        code = json ? run_json(&r, &answer) : run_print(&r, &o);
    free(answer.text);
    return code;
}
