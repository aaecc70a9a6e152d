/* fastvlm run: images and a question in, the answer on stdout. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "lines.h"
#include "npu.h"
#include "fastvlm_tools.h"

#define DEFAULT_PROMPT "Describe the image."

typedef struct run_options {
    model_options model;
    answer_options answer;
    const char *prompt, *prompt_file, *dump, *profile;
    char *prompt_text; /* of prompt_file */
    answer_schema schema;
    text_list images;
    bool no_image, json, quiet;
} run_options;

/* ---- arguments --------------------------------------------------------------------------- */

/* What fits together, whatever the files hold. */
static int run_check(const run_options *o)
{
    size_t n_stdin = o->prompt_file && !strcmp(o->prompt_file, "-");
    if (!o->images.n && !o->prompt && !o->prompt_file)
        return usage_error("run", "no image and no prompt given");
    if (o->prompt && o->prompt_file)
        return usage_error("run", "more than one prompt: \"%s\" and the file %s", o->prompt,
                           o->prompt_file);
    if (o->no_image && o->images.n)
        return usage_error("run", "--no-image and the image %s exclude each other",
                           o->images.item[0]);
    if (!o->no_image && !o->images.n)
        return usage_error("run",
                           "no image given; name one, or use --no-image to ask without an image");
    for (size_t i = 0; i < o->images.n; i++)
        n_stdin += !strcmp(o->images.item[i], "-");
    n_stdin += o->schema.path && !strcmp(o->schema.path, "-");
    if (n_stdin > 1)
        return usage_error("run", "standard input (-) is given more than once");
    int code = schema_check("run", &o->schema, &o->answer);
    if (code < 0)
        code = check_prompt("run", o->prompt);
    return code < 0 && o->prompt ? check_marks(o->prompt, o->images.n) : code;
}

static int run_parse(int argc, char **argv, run_options *o)
{
    static const usage use = {
        "run [OPTIONS] [MODEL] IMAGE... [PROMPT]",
        "Answers a question about one or more images. The answer is streamed to "
        "standard output; timings go to standard error. Without MODEL the built-in "
        "demonstration model answers; fastvlm pull apple/FastVLM-0.5B fetches a real "
        "one.\n"
        "\n"
        "Positional arguments are classified by content: a directory or GGUF file is "
        "the model; image files, and - for standard input, are images; other text is "
        "the prompt. What looks like a path or an address but is no file is an error, "
        "not the prompt. <image> in the prompt places an image there; otherwise images "
        "come first.",
        "  fastvlm run image.png \"What shape is red?\"\n"
        "  fastvlm run FastVLM-0.5B photo.jpg \"What is in the picture?\"",
    };
    const option_spec options[] = {
        MODEL_OPTIONS_NPU(o->model),
        { 'i', "image", OPTION_LIST, &o->images, "FILE", "an image; may be repeated", 0, 0 },
        { 'p', "prompt", OPTION_TEXT, &o->prompt, "TEXT",
          "question to ask (default \"" DEFAULT_PROMPT "\")", 0, 0 },
        { 0, "prompt-file", OPTION_TEXT, &o->prompt_file, "FILE",
          "take the question from a file in UTF-8; -: from standard input", 0, 0 },
        { 0, "no-image", OPTION_FLAG, &o->no_image, NULL, "ask without an image", 0, 0 },
        ANSWER_OPTIONS(o->answer),
        SCHEMA_OPTION(o->schema),
        { 0, "json", OPTION_FLAG, &o->json, NULL, "print one JSON object instead of text", 0, 0 },
        { 0, "dump", OPTION_TEXT, &o->dump, "DIR",
          "write every stage as .npy into DIR when the answer is complete", 0, 0 },
        { 0, "profile", OPTION_TEXT, &o->profile, "FILE",
          "write what --json prints into FILE when the answer is complete", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &o->quiet, NULL, "no progress and no timings", 0, 0 },
    };
    text_list words = { 0 };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code < 0)
        code = sort_words("run", &words, &o->model.model, &o->images, &o->prompt);
    if (code < 0)
        code = check_answer_options("run", &o->answer);
    if (code < 0)
        code = run_check(o);
    if (code < 0 && o->model.npu_decoder && o->dump)
        return usage_error("run", "--dump shows the CPU's decoder; it excludes --decoder npu:FILE");
    return code < 0 ? check_model("run", &o->model, o->quiet) : code;
}

/* ---- the prompt from a file -------------------------------------------------------------- */

enum { MAX_PROMPT_BYTES = 16 << 20 };

/* A byte order mark before it and a line end behind it are the file's, not the question's. */
static int run_take_prompt(run_options *o)
{
    size_t n;
    if (!o->prompt_file)
        return -1;
    const char *name = "standard input";
    if (strcmp(o->prompt_file, "-") != 0) {
        int code = find_input("run", &o->prompt_file);
        if (code >= 0)
            return code;
        name = o->prompt_file;
    }
    char *text = o->prompt_text = text_read(o->prompt_file, "prompt", MAX_PROMPT_BYTES, &n);
    if (!text || !text_check(name, text, n))
        return EXIT_FAILED;
    text += bom_bytes(text, n);
    n = strlen(text);
    n -= n > 0 && text[n - 1] == '\n';
    n -= n > 0 && text[n - 1] == '\r';
    text[n] = 0;
    if (!*text_trim(text)) {
        print_err("fastvlm: %s: is %s; expected a question\n", name, n ? "blank" : "empty");
        return EXIT_FAILED;
    }
    o->prompt = text;
    return check_marks(text, o->images.n) < 0 ? -1 : EXIT_FAILED;
}

/* ---- the answer -------------------------------------------------------------------------- */

static const char *finish_name(fv_finish finish)
{
    return finish == FV_FINISH_STOP          ? "stop"
           : finish == FV_FINISH_STOP_STRING ? "stop_string"
                                             : "length";
}

static json_t *run_model_json(const fv_engine *engine, const model_options *model)
{
    fv_model_info m = { .size = sizeof m };
    fv_engine_info(engine, &m);
    return json_pack("{s:o, s:b, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:i, s:s}", "path",
                     json_text(model_name(model)), "demonstration", !model->model, "layout",
                     m.layout, "weights", m.weights_type, "vision", m.vision_precision, "decoder",
                     m.decoder_precision, "image_size", m.image_size, "parameters",
                     (json_int_t)m.n_parameters, "weight_bytes", (json_int_t)m.weight_bytes,
                     "threads", m.n_threads, "cpu_level", m.cpu_level);
}

static json_t *run_answer_json(const fv_engine *engine, const run_options *o, const answer_text *a,
                               const fv_stats *s)
{
    double total_ms = fv_engine_load_ms(engine) + s->image_ms + s->first_token_ms + s->decode_ms;
    json_t *ids = json_array();
    for (size_t i = 0; i < a->n_ids; i++)
        json_array_append_new(ids, json_integer(a->ids[i]));
    json_t *timings = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "load",
                                fv_engine_load_ms(engine), "image", s->image_ms, "preprocess",
                                s->preprocess_ms, "vision", s->vision_ms, "projector",
                                s->projector_ms, "prefill", s->prefill_ms, "first_token",
                                s->first_token_ms, "decode", s->decode_ms, "total", total_ms);
    double prefill = s->prefill_ms > 0 ? s->prompt_tokens / s->prefill_ms * 1e3 : 0;
    double decode = s->decode_ms > 0 ? (s->new_tokens - 1) / s->decode_ms * 1e3 : 0;
    return json_pack("{s:o, s:o, s:s, s:i, s:i, s:o, s:{s:f, s:f}, s:I, s:o}", "text",
                     json_text_n(a->text ? a->text : "", a->n_bytes), "token_ids", ids,
                     "finish_reason", finish_name(a->finish), "prompt_tokens", s->prompt_tokens,
                     "image_tokens", s->image_tokens, "timings_ms", timings, "tokens_per_second",
                     "prefill", prefill, "decode", decode, "peak_rss_bytes",
                     (json_int_t)peak_rss_bytes(), "model", run_model_json(engine, &o->model));
}

/* Every value as a file, when the answer is complete. The dump knows why a tap stopped a call. */
static int end_dump(fv_dump *dump, int code)
{
    fv_error err;
    if (!dump)
        return code;
    if (code == EXIT_OK && fv_dump_commit(dump, &err) != FV_OK)
        code = report(&err);
    fv_dump_free(dump);
    return code;
}

/* A file that cannot be written stops the call; why is said here, and the call's own message is
 * about that only. */
static bool run_dump_value(void *user, const char *name, const float *data, const size_t *shape,
                           int n_dims)
{
    fv_error err;
    if (fv_dump_tap(user, name, data, shape, n_dims))
        return true;
    if (fv_dump_commit(user, &err) != FV_OK)
        report(&err);
    mute_cancelled();
    return false;
}

/* Is the answer what the schema asked for? */
static int run_check_json(const fv_constraint *constraint, const answer_text *a)
{
    fv_error err;
    if (fv_constraint_check(constraint, &err) != FV_OK)
        return report(&err);
    if (a->finish == FV_FINISH_STOP || fv_constraint_complete(constraint))
        return EXIT_OK;
    print_err("fastvlm: the answer was cut off after %zu tokens and is not complete JSON; raise "
              "--max-new-tokens or --context, or limit lengths in the schema\n",
              a->n_ids);
    return EXIT_FAILED;
}

static int take_question(fv_engine *engine, fv_session *session, const run_options *o,
                         progress_line *progress)
{
    const turn_images images = { .path = o->images.item, .n = o->images.n };
    fv_error err;
    fv_stats stats = { .size = sizeof stats };
    answer_text a = { 0 };
    int code = write_turn(session, &images, o->prompt ? o->prompt : DEFAULT_PROMPT, &o->answer);
    if (code < 0 && begin_answer(session, &o->answer, &err) != FV_OK)
        code = report(&err);
    if (code < 0)
        code = take_answer(session, &a, !o->json, progress);
    fv_session_stats(session, &stats);
    if (code < 0)
        code = o->json              ? print_json(run_answer_json(engine, o, &a, &stats), 6)
               : write_out("\n", 1) ? EXIT_OK
                                    : end_out();
    if (code == EXIT_OK && o->profile)
        code = write_json(run_answer_json(engine, o, &a, &stats), 6, o->profile);
    if (!o->quiet && code == EXIT_OK)
        print_profile(engine, &stats);
    if (code == EXIT_OK && o->answer.constraint)
        code = run_check_json(o->answer.constraint, &a);
    answer_free(&a);
    return code;
}

/* decoder: an NPU's; NULL: the engine's */
static int answer_question(fv_engine *engine, const run_options *o, fv_npu_lm *decoder,
                           progress_line *progress)
{
    fv_session_options so;
    fv_session *session = NULL;
    fv_dump *dump = NULL;
    fv_error err;
    fv_callbacks callbacks = line_callbacks(progress);
    int code = -1;
    session_options(&so, &o->answer, &callbacks);
    if (o->profile && fv_output_check(o->profile, &err) != FV_OK)
        return report(&err);
    if (o->dump && fv_dump_open(&dump, o->dump, &err) != FV_OK)
        return report(&err);
    if (dump) {
        so.tap = run_dump_value;
        so.tap_user = dump;
        so.tap_prompt_logits = true;
    }
    if (code < 0 && (fv_session_new(&session, engine, &so, &err) != FV_OK ||
                     (decoder && fv_npu_lm_attach(decoder, session, &err) != FV_OK)))
        code = report(&err);
    if (code < 0)
        code = take_question(engine, session, o, progress);
    fv_session_free(session);
    return end_dump(dump, code);
}

/* The schema in force, before anything is computed. */
static int run_open_schema(fv_grammar **grammar, const fv_engine *engine, run_options *o)
{
    fv_error err;
    if (!o->schema.text)
        return -1;
    return fv_grammar_open(grammar, engine, &err) == FV_OK &&
                   fv_constraint_new(&o->answer.constraint, *grammar, o->schema.text, o->schema.n,
                                     &err) == FV_OK
               ? -1
               : report(&err);
}

int verb_run(int argc, char **argv)
{
    run_options o = { .answer = ANSWER_DEFAULTS };
    fv_engine *engine = NULL;
    fv_grammar *grammar = NULL;
    int code = run_parse(argc, argv, &o);
    if (code >= 0)
        return code;
    catch_interrupt();
    progress_line progress = { .enabled = !o.quiet };
    code = run_take_prompt(&o);
    if (code < 0)
        code = schema_read("run", &o.schema);
    if (code < 0)
        code = open_engine(&engine, &o.model);
    if (code < 0)
        code = run_open_schema(&grammar, engine, &o);
    fv_callbacks callbacks = line_callbacks(&progress);
    npu_parts parts = { 0 };
    if (code < 0)
        code = open_npu_parts(&parts, &o.model, &callbacks);
    turn_npu npu = { .npu = parts.vision, .engine = engine, .callbacks = &callbacks };
    o.answer.npu = parts.vision ? &npu : NULL;
    if (code < 0)
        code = answer_question(engine, &o, parts.decoder, &progress);
    close_npu_parts(&parts);
    fv_constraint_free(o.answer.constraint);
    fv_grammar_free(grammar);
    fv_engine_free(engine);
    free(o.schema.text);
    free(o.prompt_text);
    return code;
}
