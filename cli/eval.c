/* fastvlm eval: what a precision costs against a reference, and how many questions of a test come
 * out right. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "fastvlm_tools.h"
#include "npu.h"
#include "program/task.h"

enum { DIGITS = 9 }; /* of the numbers in JSON */

typedef struct eval_options {
    model_options test, ref; /* ref.model and test.model are words */
    const char *prompt, *svg, *task, *answers, *score;
    int max_new_tokens, limit, features, fit;
    float min;
    bool json, quiet, layers;
    text_list words;
} eval_options;

static int eval_parse(int argc, char **argv, eval_options *o)
{
    static const usage use = {
        "eval [OPTIONS] REF TEST IMAGES... | --task DIR [MODEL...] | --layers "
        "CHECKPOINT [IMAGES...]",
        "Measures what a precision costs: compares the model TEST with the model REF "
        "on images (files and directories). Reports SQNR and cosine of every stage, "
        "and KL divergence and top-1 agreement along REF's answers, with TEST's own "
        "image tokens and with REF's. REF and TEST are checkpoints or packed files "
        "of one model.\n"
        "\n"
        "With --task, asks the questions of a test directory, or holds its conversations, and "
        "scores the answers by exact rules. Without MODEL the built-in demonstration model is "
        "tested.\n"
        "\n"
        "With --layers, shows for every layer group of the encoder what int8 or w8a16 "
        "alone would cost, and which of them, or bf16, pack would choose.",
        "  fastvlm eval FastVLM-0.5B fastvlm-0.5b-q4.gguf photos/ --svg loss.svg\n"
        "  fastvlm eval FastVLM-0.5B FastVLM-0.5B photo.jpg --vision bf16 --decoder bf16\n"
        "  fastvlm eval --task tests/data/demo --min 90\n"
        "  fastvlm eval --task tests/data/demo --decoder npu:decoder.bin",
    };
    const option_spec options[] = {
        { 't', "threads", OPTION_INT, &o->test.threads, "N",
          "threads (default: one per physical core)", 0, 1024 },
        { 0, "vision", OPTION_VISION, &o->test, VISION_PRECISIONS "|npu:FILE",
          "precision of TEST's (or MODEL's) vision encoder; for a test directory also a context "
          "binary that encodes on the NPU",
          0, 0 },
        { 0, "decoder", OPTION_DECODER, &o->test, DECODER_PRECISIONS "|npu:FILE",
          "the same of the decoder", 0, 0 },
        { 0, "kv", OPTION_CHOICE, &o->test.kv, "auto|f32|f16|q8",
          "precision of TEST's (or MODEL's) KV cache", 0, 0 },
        { 0, "ref-vision", OPTION_CHOICE, &o->ref.vision, "auto|f32|bf16|f16|int8",
          "precision of REF's vision encoder (auto: f32 for a checkpoint, as stored for a packed "
          "file)",
          0, 0 },
        { 0, "ref-decoder", OPTION_CHOICE, &o->ref.decoder, DECODER_PRECISIONS,
          "precision of REF's decoder (auto: as for vision)", 0, 0 },
        { 0, "image-size", OPTION_SIDE, &o->test.image_size, "N",
          "side of the vision encoder's input in pixels, a multiple of 64", 0, 4096 },
        { 0, "fit", OPTION_CHOICE, &o->fit, "auto|pad|crop|stretch",
          "how images are fitted to the square input", 0, 0 },
        { 'p', "prompt", OPTION_TEXT, &o->prompt, "TEXT",
          "question to ask (default \"Describe the image.\")", 0, 0 },
        { 'n', "max-new-tokens", OPTION_INT, &o->max_new_tokens, "N",
          "maximum length of an answer in tokens (default 32; with --task 96)", 1, 1e6 },
        { 0, "features", OPTION_CHOICE, &o->features, "both|own|ref",
          "whose image tokens TEST's decoder sees", 0, 0 },
        { 0, "layers", OPTION_FLAG, &o->layers, NULL,
          "cost of int8 by layer group; without IMAGES on built-in scenes", 0, 0 },
        { 0, "limit", OPTION_INT, &o->limit, "N",
          "up to N images, evenly spaced (with --layers: or N scenes; with --task: the "
          "first N questions or conversations)",
          1, 1e7 },
        { 0, "task", OPTION_TEXT, &o->task, "DIR", "test directory: questions.jsonl and its images",
          0, 0 },
        { 0, "answers", OPTION_TEXT, &o->answers, "FILE",
          "with --task: write the answers, one JSON object per line", 0, 0 },
        { 0, "score", OPTION_TEXT, &o->score, "FILE",
          "with --task: score the answers in FILE, from any engine, without a model", 0, 0 },
        { 0, "min", OPTION_FLOAT, &o->min, "PERCENT",
          "with --task: exit code 1 if fewer answers are right", 0, 100 },
        { 0, "svg", OPTION_TEXT, &o->svg, "FILE", "plot SQNR by depth", 0, 0 },
        { 0, "json", OPTION_FLAG, &o->json, NULL, "print one JSON object instead of text", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &o->quiet, NULL, "no progress", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options,
                             &o->words);
    if (code < 0)
        code = check_text("eval", "--prompt", o->prompt);
    if (code >= 0)
        return code;
    const bool npu = o->test.npu_vision || o->test.npu_decoder;
    if (npu && (!o->task || o->score || o->words.n > 1))
        return usage_error("eval", "npu:FILE is for --task with one model");
    if (o->layers) {
        if (o->task || o->svg || o->answers || o->score || o->words.n < 1)
            return usage_error(
                "eval", "--layers takes a checkpoint and images, and only --limit and --json");
        return -1;
    }
    if (!o->task) {
        if (o->answers || o->score || o->min > 0)
            return usage_error("eval", "--answers, --score and --min need --task DIR");
        if (o->words.n < 3)
            return usage_error(
                "eval",
                "expected two models and at least one image or directory, found %zu arguments",
                o->words.n);
        return -1;
    }
    if (o->svg || o->prompt || o->features || o->fit || o->ref.vision || o->ref.decoder)
        return usage_error(
            "eval", "--svg, --prompt, --features, --fit, --ref-vision and --ref-decoder cannot "
                    "be used with --task");
    if (o->score && (o->words.n || o->answers))
        return usage_error("eval", "--score excludes MODEL and --answers");
    if (o->answers && o->words.n > 1)
        return usage_error("eval", "--answers needs exactly one model, found %zu", o->words.n);
    return -1;
}

/* ---- two models -------------------------------------------------------------------------- */

static json_t *loss_json(const fv_eval_loss *l)
{
    return json_pack("{s:o, s:o}", "sqnr", json_number(l->sqnr), "cosine", json_number(l->cosine));
}

static json_t *text_json(const fv_eval_text *t)
{
    if (!t->n_tokens)
        return json_null();
    return json_pack("{s:I, s:I, s:f, s:o, s:o, s:o}", "tokens", (json_int_t)t->n_tokens, "agree",
                     (json_int_t)t->n_agree, "agreement", (double)t->n_agree / (double)t->n_tokens,
                     "kl_mean", json_number(t->mean), "kl_median", json_number(t->median), "kl_max",
                     json_number(t->max));
}

static json_t *eval_model_json(const fv_engine *engine, const char *path)
{
    fv_model_info m = { .size = sizeof m };
    fv_engine_info(engine, &m);
    return json_pack("{s:o, s:s, s:s, s:I}", "path", json_text(path), "vision", m.vision_precision,
                     "decoder", m.decoder_precision, "weight_bytes", (json_int_t)m.weight_bytes);
}

static int eval_json(const fv_eval *e, const fv_engine *ref, const fv_engine *test,
                     const eval_options *o)
{
    json_t *stages = json_array(), *images = json_array();
    fv_eval_info info = { .size = sizeof info };
    fv_eval_stage_info s = { .size = sizeof s };
    fv_eval_image_info x = { .size = sizeof x };
    fv_eval_describe(e, &info);
    for (size_t i = 0; fv_eval_stage(e, i, &s); i++) {
        json_t *stage = json_pack("{s:s, s:o}", "name", s.name, "own", loss_json(&s.own));
        if (!isnan(s.ref.sqnr))
            json_object_set_new(stage, "ref", loss_json(&s.ref));
        json_array_append_new(stages, stage);
    }
    for (size_t i = 0; fv_eval_image(e, i, &x); i++)
        json_array_append_new(images,
                              json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "path", json_text(x.path),
                                        "features", loss_json(&x.features), "image_tokens",
                                        loss_json(&x.tokens), "own", text_json(&x.own), "ref",
                                        text_json(&x.ref), "answer",
                                        json_text_n(x.answer, x.n_answer_bytes)));
    return print_json(json_pack("{s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:f}",
                                "reference", eval_model_json(ref, o->ref.model), "test",
                                eval_model_json(test, o->test.model), "pictures",
                                (json_int_t)info.n_images, "skipped", (json_int_t)info.n_skipped,
                                "own", text_json(&info.own), "ref", text_json(&info.ref),
                                "least_features_cosine", json_number(info.least_features),
                                "least_image_tokens_cosine", json_number(info.least_tokens),
                                "stages", stages, "images", images, "ms", info.ms),
                      DIGITS);
}

static void print_loss(const fv_eval_loss *l)
{
    if (isnan(l->sqnr))
        print_out("  %8s %12s", "", "");
    else if (isinf(l->sqnr))
        print_out("  %8s %12s", "equal", "1");
    else
        print_out("  %8.1f %12.9f", l->sqnr, l->cosine);
}

static void eval_print_text(const char *name, const fv_eval_text *t)
{
    if (t->n_tokens)
        print_out("%-28s %6zu %10.3g %10.3g %10.3g %9.2f\n", name, t->n_tokens, t->mean, t->median,
                  t->max, 100 * (double)t->n_agree / (double)t->n_tokens);
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Bytes of up to max, the last character whole. */
static int text_cut(const char *text, int max)
{
    int n = (int)strnlen(text, (size_t)max + 1);
    if (n <= max)
        return n;
    for (n = max; n > 0 && (text[n] & 0xc0) == 0x80;)
        n--;
    return n;
}

static int eval_text(const fv_eval *e, const eval_options *o)
{
    fv_eval_info info = { .size = sizeof info };
    fv_eval_stage_info s = { .size = sizeof s };
    fv_eval_image_info x = { .size = sizeof x };
    fv_eval_describe(e, &info);
    bool ref = info.ref.n_tokens, own = info.own.n_tokens;
    print_out("%-24s  %8s %12s", "stage", "SQNR dB", "cosine");
    print_out(ref ? "  %8s %12s\n" : "\n", "ref: SQNR", "cosine");
    for (size_t i = 0; fv_eval_stage(e, i, &s); i++) {
        print_out("%-24s", s.name);
        print_loss(&s.own);
        if (ref)
            print_loss(&s.ref);
        print_out("\n");
    }
    print_out("\n%-28s  %8s %12s  %8s %12s\n", "image", "features", "cosine", "tokens", "cosine");
    for (size_t i = 0; fv_eval_image(e, i, &x); i++) {
        const char *name = last_part(x.path);
        print_out("%-28.*s", text_cut(name, 28), name);
        print_loss(&x.features);
        print_loss(&x.tokens);
        print_out("\n");
    }
    print_out("%-28s  %8s %12.9f  %8s %12.9f\n\n", "least", "", info.least_features, "",
              info.least_tokens);
    print_out("%-28s %6s %10s %10s %10s %9s\n", "text: KL divergence, nats", "tokens", "mean",
              "median", "max", "agree %");
    if (own)
        eval_print_text("TEST's own image tokens", &info.own);
    if (ref)
        eval_print_text("REF's image tokens", &info.ref);
    print_out("\n"
              "%zu image%s, %zu skipped, %.1f s",
              info.n_images, info.n_images == 1 ? "" : "s", info.n_skipped, info.ms / 1e3);
    print_out("; REF %s, TEST %s\n", o->ref.model, o->test.model);
    return end_out();
}

/* What is compared, as the plot's title. */
static void title(char *to, size_t size, const fv_engine *ref, const fv_engine *test)
{
    fv_model_info a = { .size = sizeof a }, b = { .size = sizeof b };
    fv_engine_info(ref, &a);
    fv_engine_info(test, &b);
    snprintf(to, size, "SQNR by depth: vision %s, decoder %s against vision %s, decoder %s",
             b.vision_precision, b.decoder_precision, a.vision_precision, a.decoder_precision);
}

/* "auto" of a reference is f32 where a checkpoint is opened. */
static void widen_reference(model_options *m)
{
    struct stat st;
    bool folder = stat(m->model, &st) == 0 && S_ISDIR(st.st_mode);
    if (folder && m->vision == 0)
        m->vision = 1;
    if (folder && m->decoder == 0)
        m->decoder = 1;
}

static int compare(eval_options *o, progress_line *progress)
{
    static const fv_eval_features features[] = { FV_EVAL_BOTH, FV_EVAL_OWN, FV_EVAL_REF };
    fv_engine *ref = NULL, *test = NULL;
    fv_eval *e = NULL;
    fv_error err;
    char heading[200];
    o->ref.model = o->words.item[0];
    o->test.model = o->words.item[1];
    o->ref.threads = o->test.threads;
    o->ref.image_size = o->test.image_size;
    widen_reference(&o->ref);
    int code = open_engine(&ref, &o->ref);
    if (code < 0)
        code = open_engine(&test, &o->test);
    if (code < 0) {
        fv_callbacks callbacks = line_callbacks(progress);
        fv_eval_options s = { .size = sizeof s,
                              .paths = o->words.item + 2,
                              .n_paths = o->words.n - 2,
                              .max_images = o->limit,
                              .prompt = o->prompt,
                              .n_prompt_bytes = o->prompt ? strlen(o->prompt) : 0,
                              .max_new_tokens = o->max_new_tokens,
                              .features = features[o->features],
                              .fit = (fv_fit)o->fit,
                              .callbacks = &callbacks };
        fv_status status = fv_eval_run(&e, ref, test, &s, &err);
        clear_line();
        code = status != FV_OK ? (report(&err), EXIT_FAILED) /* models that differ are no usage */
               : o->json       ? eval_json(e, ref, test, o)
                               : eval_text(e, o);
        title(heading, sizeof heading, ref, test);
        if (status == FV_OK && o->svg &&
            fv_eval_plot(e, heading, strlen(heading), o->svg, &err) != FV_OK)
            code = report(&err);
    }
    fv_eval_free(e);
    fv_engine_free(test);
    fv_engine_free(ref);
    return code;
}

/* ---- a test of questions ----------------------------------------------------------------- */

static double percent(size_t n, size_t of) { return of ? 100 * (double)n / (double)of : 0; }

static json_t *share_json(json_t *name, const char *key, const fv_task_share *s)
{
    return json_pack("{s:o, s:I, s:I, s:f}", key, name, "n", (json_int_t)s->n, "correct",
                     (json_int_t)s->n_correct, "percent", percent(s->n_correct, s->n));
}

/* Its images under the name that the test has for them. */
static json_t *answer_json(const fv_task_answer *a)
{
    json_t *images = a->image ? json_text(a->image) : json_array();
    for (size_t i = 0; !a->image && i < a->n_images; i++)
        json_array_append_new(images, json_text(a->images[i]));
    return json_pack("{s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:b}", a->image ? "image" : "images",
                     images, "conversation", (json_int_t)a->conversation, "turn",
                     (json_int_t)a->turn, "kind", json_text(a->kind), "question",
                     json_text(a->question), "wanted", json_text(a->wanted), "answer",
                     json_text(a->answer), "correct", a->correct);
}

/* model: NULL when something else has answered. */
static json_t *task_json(const fv_task *t, const char *model, bool demonstration)
{
    json_t *kinds = json_array(), *turns = json_array(), *answers = json_array();
    for (size_t i = 0; i < t->n_kinds; i++)
        json_array_append_new(kinds,
                              share_json(json_text(t->kinds[i].kind), "kind", &t->kinds[i].share));
    for (size_t i = 0; i < t->n_turns; i++)
        if (t->turns[i].n)
            json_array_append_new(
                turns, share_json(json_integer((json_int_t)i + 1), "turn", &t->turns[i]));
    for (size_t i = 0; i < t->n; i++)
        json_array_append_new(answers, answer_json(&t->answers[i]));
    return json_pack("{s:o, s:b, s:I, s:I, s:I, s:f, s:o, s:o, s:o, s:f}", "model",
                     model ? json_text(model) : json_null(), "demonstration", demonstration, "n",
                     (json_int_t)t->n, "correct", (json_int_t)t->n_correct, "unanswered",
                     (json_int_t)t->n_unanswered, "percent", percent(t->n_correct, t->n), "kinds",
                     kinds, "turns", turns, "answers", answers, "ms", t->ms);
}

static void share_print(const char *name, const fv_task_share *s)
{
    print_out("%-10s %6zu %8zu %8.1f\n", name, s->n, s->n_correct, percent(s->n_correct, s->n));
}

static void task_text(const fv_task *t)
{
    print_out("%-10s %6s %8s %8s\n", "kind", "n", "correct", "%");
    for (size_t i = 0; i < t->n_kinds; i++)
        share_print(t->kinds[i].kind, &t->kinds[i].share);
    for (size_t i = 0; i < t->n_turns && t->has_conversations; i++) {
        char name[32];
        snprintf(name, sizeof name, "turn %zu", i + 1);
        if (t->turns[i].n)
            share_print(name, &t->turns[i]);
    }
    share_print("all", &(fv_task_share){ t->n, t->n_correct });
}

/* fv_task_encode_fn */
static fv_status npu_encode_image(void *user, const fv_engine *engine, const fv_image *image,
                                  const fv_encode_options *o, fv_features **out, fv_error *err)
{
    return fv_npu_encode(user, engine, image, o, out, err);
}

/* fv_task_prepare_fn */
static fv_status npu_attach_session(void *user, fv_session *session, fv_error *err)
{
    return fv_npu_lm_attach(user, session, err);
}

/* One model, NULL being the built-in one; with --score the answers of the file. */
static int take_test(eval_options *o, const char *model, json_t *results, bool *enough,
                     progress_line *progress)
{
    fv_callbacks callbacks = line_callbacks(progress);
    fv_task_options s = { .size = sizeof s,
                          .max_questions = o->limit,
                          .max_new_tokens = o->max_new_tokens,
                          .callbacks = &callbacks };
    fv_engine *engine = NULL;
    npu_parts parts = { 0 };
    fv_task *t = NULL;
    fv_error err;
    fv_status status;
    o->test.model = model;
    int code = o->score ? -1 : check_model("eval", &o->test, o->quiet);
    if (code < 0 && !o->score)
        code = open_engine(&engine, &o->test);
    if (code < 0 && !o->score)
        code = open_npu_parts(&parts, &o->test, &callbacks);
    if (code >= 0)
        goto end;
    if (parts.vision) {
        s.encode = npu_encode_image;
        s.encode_user = parts.vision;
    }
    if (parts.decoder) {
        s.prepare = npu_attach_session;
        s.prepare_user = parts.decoder;
    }
    status = !o->score ? fv_task_run(&t, engine, o->task, &s, &err)
                       : fv_task_score(&t, o->task, o->score, &s, &err);
    clear_line();
    if (status != FV_OK) {
        code = report(&err);
    } else {
        if (t->n_unanswered)
            print_err(
                "fastvlm: warning: %s: no answer to %zu of %zu questions; they count as wrong\n",
                o->score ? o->score : model_name(&o->test), t->n_unanswered, t->n);
        *enough = *enough && percent(t->n_correct, t->n) >= (double)o->min;
        if (o->json) {
            json_array_append_new(
                results, task_json(t, o->score ? NULL : model_name(&o->test), !o->score && !model));
        } else {
            if (o->words.n > 1)
                print_out("%s%s\n", model == o->words.item[0] ? "" : "\n", model);
            task_text(t);
        }
        if (o->answers && fv_task_save(t, o->answers, &err) != FV_OK)
            code = report(&err);
    }
    fv_task_free(t);
end:
    close_npu_parts(&parts);
    fv_engine_free(engine);
    return code;
}

static int take_tests(eval_options *o, progress_line *progress)
{
    json_t *results = json_array();
    bool enough = true;
    int code = -1;
    if (!o->words.n)
        code = take_test(o, NULL, results, &enough, progress);
    for (size_t i = 0; i < o->words.n && code < 0; i++)
        code = take_test(o, o->words.item[i], results, &enough, progress);
    bool failed = code >= 0;
    if (o->json && (!failed || json_array_size(results))) /* what is finished is not lost */
        code = print_json(json_pack("{s:o, s:O}", "task", json_text(o->task), "results", results),
                          DIGITS);
    else if (!failed)
        code = end_out();
    code = failed ? EXIT_FAILED : code;
    json_decref(results);
    if (code == EXIT_OK && !enough) {
        print_err("fastvlm: fewer than %g %% of the answers are right\n", (double)o->min);
        return EXIT_FAILED;
    }
    return code;
}

typedef struct layer_list {
    json_t *json; /* NULL: text */
    progress_line *progress;
    size_t n, n_int8;
} layer_list;

static void take_layer(void *user, const fv_layer_loss *l)
{
    layer_list *list = user;
    if (!list->n++ && !list->json) {
        clear_line();
        print_out("%-48s %9s %10s %10s  %s\n", "layer group", "SQNR dB", "int8", "w8a16", "pack");
    }
    list->n_int8 += l->int8;
    if (list->json)
        json_array_append_new(
            list->json,
            json_pack("{s:o, s:o, s:o, s:o, s:b, s:s}", "name", json_text(l->name), "sqnr",
                      json_number(l->sqnr), "cosine", json_number(l->cosine), "w8a16_cosine",
                      json_number(l->w8a16_cosine), "int8", l->int8, "choice", l->choice));
    else
        print_out("%-48s %9.1f %10.6f %10.6f  %s\n", l->name, l->sqnr, l->cosine, l->w8a16_cosine,
                  l->choice);
}

static int take_layers(eval_options *o, progress_line *progress)
{
    fv_pack_options p;
    fv_error err;
    fv_pack_options_default(&p);
    p.paths = (const char *const *)o->words.item + 1;
    p.n_paths = o->words.n - 1;
    p.max_images = o->limit;
    p.n_threads = o->test.threads;
    fv_callbacks callbacks = line_callbacks(progress);
    p.callbacks = &callbacks;
    layer_list list = { .json = o->json ? json_array() : NULL, .progress = progress };
    fv_status status = fv_eval_layers(o->words.item[0], &p, take_layer, &list, &err);
    clear_line();
    if (status != FV_OK) {
        json_decref(list.json);
        return report(&err);
    }
    if (o->json)
        return print_json(json_pack("{s:o}", "layers", list.json), DIGITS);
    print_out("%zu of %zu layer groups in int8\n", list.n_int8, list.n);
    return EXIT_OK;
}

int verb_eval(int argc, char **argv)
{
    eval_options o = { 0 };
    int code = eval_parse(argc, argv, &o);
    if (code >= 0)
        return code;
    catch_interrupt();
    progress_line progress = { .enabled = !o.quiet };
    if (o.layers)
        return take_layers(&o, &progress);
    const char *file = o.task ? o.answers : o.svg;
    fv_error err;
    if (file && fv_output_check(file, &err) != FV_OK) /* before hours of answers */
        return report(&err);
    return o.task ? take_tests(&o, &progress) : compare(&o, &progress);
}
