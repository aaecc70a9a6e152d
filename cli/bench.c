/* fastvlm bench: every stage timed separately, several repetitions, median and best. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "bench_company.h"
#include "bench_layers.h"
#include "fastvlm_tools.h"

enum { MAX_REPS = 1000, COMPANY_TOKENS = 8 /* a session, in a repetition, at most */ };

enum {
    LOAD,
    PREPROCESS,
    VISION,
    PROJECTOR,
    PREFILL,
    DECODE,
    FIRST_TOKEN,
    SESSIONS_1, /* a token for each of so many sessions, in one call */
    SESSIONS_2,
    SESSIONS_4,
    SESSIONS_8,
    BESIDE_IMAGE, /* decode, while another thread encodes images */
    N_STAGES
};

static const char *const stage_names[N_STAGES] = { "load",        "preprocess", "vision",
                                                   "projector",   "prefill",    "decode",
                                                   "first_token", "sessions_1", "sessions_2",
                                                   "sessions_4",  "sessions_8", "beside_image" };
#define STAGES                                                                      \
    "load, preprocess, vision, projector, prefill, decode, first_token, sessions, " \
    "beside_image"

/* Sessions that a stage decodes together. */
static size_t sessions_of(int stage)
{
    return stage >= SESSIONS_1 && stage <= SESSIONS_8 ? (size_t)1 << (stage - SESSIONS_1) : 0;
}

typedef struct bench {
    model_options model;
    const char *image, *stages, *svg;
    bool layers;
    int reps, tokens, form;
    int asked, fill; /* --prompt-tokens, and those of them that are not the template's; or 0 */
    bool wanted[N_STAGES];
    double ms[N_STAGES][MAX_REPS]; /* decode: of one token */
    size_t n[N_STAGES];
    int prompt_tokens;
} bench;

/* Stages that a prompt of --prompt-tokens has. */
static bool without_image(int stage)
{
    return stage == LOAD || stage == PREFILL || stage == DECODE || stage == FIRST_TOKEN;
}

static int parse_stages(bench *b)
{
    char text[256];
    if (!b->stages) {
        for (int i = 0; i < N_STAGES; i++)
            b->wanted[i] = !b->asked || without_image(i);
        return -1;
    }
    snprintf(text, sizeof text, "%s", b->stages);
    for (char *save = NULL, *word = strtok_r(text, ",", &save); word;
         word = strtok_r(NULL, ",", &save)) {
        bool known = false;
        for (int i = 0; i < N_STAGES; i++) {
            if (strcmp(word, stage_names[i]) && (strcmp(word, "sessions") || !sessions_of(i)))
                continue;
            if (b->asked && !without_image(i))
                return usage_error("bench",
                                   "--prompt-tokens: a prompt without an image; it has no "
                                   "stage \"%s\"",
                                   word);
            b->wanted[i] = known = true;
        }
        if (!known)
            return usage_error("bench", "--stages: unknown stage \"%s\"; expected " STAGES, word);
    }
    return -1;
}

static int bench_parse(int argc, char **argv, bench *b)
{
    static const usage use = {
        "bench [OPTIONS] [MODEL]",
        "Times every stage of a model on this machine. Each repetition encodes an "
        "image (a drawn one by default), runs the prompt \"Describe the image.\" and "
        "decodes --tokens tokens, ignoring the end token. --prompt-tokens runs a prompt of that "
        "length instead, for long contexts. sessions_N: one token for each "
        "of N sessions at once; beside_image: decode while another thread encodes "
        "images. A warm-up repetition runs first and is not counted. --layers shows every "
        "layer instead, and how close it comes to what the processor and the memory allow. "
        "Without MODEL the built-in demonstration model is timed.",
        "  fastvlm bench FastVLM-0.5B --vision bf16 --reps 5\n"
        "  fastvlm bench fastvlm-0.5b-q4.gguf --layers --svg layers.svg",
    };
    bool json = false;
    const option_spec options[] = {
        MODEL_OPTIONS(b->model),
        { 'i', "image", OPTION_TEXT, &b->image, "FILE", "an image to use instead of the drawn one",
          0, 0 },
        { 'r', "reps", OPTION_INT, &b->reps, "N", "number of timed repetitions (default 5)", 1,
          MAX_REPS },
        { 'n', "tokens", OPTION_INT, &b->tokens, "N",
          "tokens to decode per repetition (default 32)", 2, 100000 },
        { 0, "prompt-tokens", OPTION_INT, &b->asked, "N",
          "a prompt of N tokens, text alone, instead of the image and the question", 1, 10000000 },
        { 0, "stages", OPTION_TEXT, &b->stages, "LIST",
          "only these, separated by commas; sessions: all of sessions_N", 0, 0 },
        { 0, "layers", OPTION_FLAG, &b->layers, NULL,
          "time every layer of an image, a prompt and a token", 0, 0 },
        { 0, "svg", OPTION_TEXT, &b->svg, "FILE", "with --layers: a picture of them", 0, 0 },
        { 'f', "format", OPTION_CHOICE, &b->form, "text|json|csv", "output format", 0, 0 },
        { 0, "json", OPTION_FLAG, &json, NULL, "same as --format json", 0, 0 },
    };
    text_list words, images = { 0 };
    const char *prompt = NULL;
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code < 0)
        code = sort_words("bench", &words, &b->model.model, &images, &prompt);
    if (code >= 0)
        return code;
    if (json)
        b->form = 1;
    if (images.n + (b->image != NULL) > 1)
        return usage_error("bench", "more than one image; one is encoded again and again");
    if (images.n)
        b->image = images.item[0];
    if (prompt)
        return usage_error(
            "bench", "%s: no such model; expected a checkpoint directory or a packed file", prompt);
    if (b->layers && b->stages)
        return usage_error("bench", "--stages and --layers exclude each other");
    if (b->asked && (b->layers || b->image))
        return usage_error("bench", "--prompt-tokens and %s exclude each other",
                           b->layers ? "--layers" : "an image");
    if (b->svg && !b->layers)
        return usage_error("bench", "--svg is for --layers");
    code = parse_stages(b);
    return code < 0 ? check_model("bench", &b->model, false) : code;
}

/* 1600 x 1200: gradients, rings and noise, so that no stage sees constant input. */
static fv_status draw_image(fv_image **out, fv_error *err)
{
    enum { W = 1600, H = 1200 };
    static uint8_t rgb[W * H * 3];
    uint32_t noise = 1;
    for (int y = 0; y < H; y++) {
        for (int x = 0; x < W; x++) {
            uint8_t *p = rgb + ((size_t)y * W + (size_t)x) * 3;
            int dx = x - W / 3, dy = y - H / 2;
            noise = noise * 1664525u + 1013904223u;
            p[0] = (uint8_t)(x * 255 / W);
            p[1] = (uint8_t)(y * 255 / H);
            p[2] = (uint8_t)(((dx * dx + dy * dy) >> 9 & 127) + (noise >> 26));
        }
    }
    fv_pixels pixels = { .size = sizeof pixels, .width = W, .height = H, .plane = { rgb } };
    return fv_image_wrap(out, &pixels, err);
}

static void add(bench *b, int stage, double ms, int rep)
{
    if (rep >= 0 && b->wanted[stage] && b->n[stage] < MAX_REPS)
        b->ms[stage][b->n[stage]++] = ms;
}

/* The turn that is timed: the image and a question, or n tokens. */
static fv_status bench_ask(fv_session *session, const fv_image *image, int n, fv_error *err)
{
    static const char question[] = "Describe the image.";
    enum { ROWS = 256 }; /* the words of every vocabulary begin with the bytes */
    fv_status status = FV_OK;
    if (!n) {
        status = fv_session_add_image(session, image, NULL, err);
        return status == FV_OK ? fv_session_add_text(session, question, strlen(question), err)
                               : status;
    }
    int32_t ids[ROWS];
    for (int i = 0; i < ROWS; i++)
        ids[i] = i * 31 % ROWS;
    for (; n > 0 && status == FV_OK; n -= ROWS)
        status = fv_session_add_tokens(session, ids, n < ROWS ? (size_t)n : ROWS, err);
    return status;
}

/* How many of the tokens of --prompt-tokens the template leaves. */
static fv_status bench_fill(bench *b, fv_engine *engine, fv_error *err)
{
    fv_session *session = NULL;
    fv_piece piece = { .size = sizeof piece };
    fv_stats s = { .size = sizeof s };
    fv_status status = fv_session_new(&session, engine, NULL, err);
    if (status == FV_OK)
        status = bench_ask(session, NULL, 1, err);
    if (status == FV_OK)
        status = fv_session_next(session, &piece, err);
    fv_session_stats(session, &s);
    b->fill = b->asked > s.prompt_tokens ? b->asked - s.prompt_tokens + 1 : 1;
    fv_session_free(session);
    return status;
}

/* rep -1 warms up. */
static fv_status repeat(bench *b, fv_engine *engine, const fv_image *image, int rep,
                        progress_line *line, fv_error *err)
{
    fv_session_options o;
    fv_session *session = NULL;
    fv_piece piece = { .size = sizeof piece };
    fv_stats s = { .size = sizeof s };
    bool decode = b->wanted[DECODE],
         prefill = decode || b->wanted[PREFILL] || b->wanted[FIRST_TOKEN];
    fv_session_options_default(&o);
    fv_answer_options answer = { .size = sizeof answer,
                                 .max_new_tokens = decode ? b->tokens : 1,
                                 .ignore_end = true };
    fv_callbacks callbacks = line_callbacks(line);
    o.callbacks = &callbacks;
    fv_status status = fv_session_new(&session, engine, &o, err);
    if (status == FV_OK)
        status = bench_ask(session, image, b->fill, err);
    if (status == FV_OK)
        status = fv_session_begin(session, &answer, err);
    while (status == FV_OK && prefill && !piece.done)
        status = fv_session_next(session, &piece, err);
    if (status == FV_OK) {
        fv_session_stats(session, &s);
        add(b, PREPROCESS, s.preprocess_ms, rep);
        add(b, VISION, s.vision_ms, rep);
        add(b, PROJECTOR, s.projector_ms, rep);
        if (prefill) {
            add(b, PREFILL, s.prefill_ms, rep);
            add(b, FIRST_TOKEN, s.first_token_ms, rep);
            b->prompt_tokens = s.prompt_tokens;
        }
        if (decode)
            add(b, DECODE, s.decode_ms / (s.new_tokens - 1), rep);
    }
    fv_session_free(session);
    clear_line();
    return status;
}

/* The stages in company, one after the other, so that they meet the same machine. */
static fv_status repeat_company(bench *b, const company *c, int rep, fv_error *err)
{
    int n_tokens = b->tokens < COMPANY_TOKENS ? b->tokens : COMPANY_TOKENS;
    fv_status status = FV_OK;
    double ms = 0;
    for (int i = SESSIONS_1; i <= BESIDE_IMAGE && status == FV_OK; i++) {
        if (!b->wanted[i])
            continue;
        status = i == BESIDE_IMAGE ? company_beside(c, b->tokens, &ms, err)
                                   : company_together(c, sessions_of(i), n_tokens, &ms, err);
        if (status == FV_OK)
            add(b, i, ms, rep);
    }
    return status;
}

static int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const bench *b, int stage)
{
    size_t n = b->n[stage];
    return n % 2 ? b->ms[stage][n / 2] : (b->ms[stage][n / 2 - 1] + b->ms[stage][n / 2]) / 2;
}

/* Tokens per second at ms, or 0 for stages without tokens. */
static double rate(const bench *b, int stage, double ms)
{
    double tokens = stage == PREFILL                           ? b->prompt_tokens
                    : stage == DECODE || stage == BESIDE_IMAGE ? 1
                                                               : (double)sessions_of(stage);
    return ms > 0 ? tokens / ms * 1e3 : 0;
}

static const char *precision_of(const fv_model_info *m, int stage)
{
    switch (stage) {
    case VISION:
    case PROJECTOR: return m->vision_precision;
    case PREFILL:
    case DECODE:
    case BESIDE_IMAGE: return m->decoder_precision;
    default: return sessions_of(stage) ? m->decoder_precision : "-";
    }
}

#ifndef FASTVLM_COMMIT
#define FASTVLM_COMMIT "unknown"
#endif

static int print_figures(const bench *b, const fv_model_info *m)
{
    struct utsname host;
    json_t *stages = json_array();
    uname(&host);
    for (int i = 0; i < N_STAGES; i++) {
        if (!b->n[i])
            continue;
        json_t *s = json_pack("{s:s, s:s, s:f, s:f, s:i}", "name", stage_names[i], "precision",
                              precision_of(m, i), "best_ms", b->ms[i][0], "median_ms", median(b, i),
                              "repetitions", (int)b->n[i]);
        if (i == PREFILL)
            json_object_set_new(s, "tokens", json_integer(b->prompt_tokens));
        if (sessions_of(i))
            json_object_set_new(s, "sessions", json_integer((json_int_t)sessions_of(i)));
        if (rate(b, i, median(b, i)) > 0)
            json_object_set_new(s, "tokens_per_second", json_real(rate(b, i, median(b, i))));
        json_array_append_new(stages, s);
    }
    json_t *root = json_pack("{s:{s:o, s:s, s:s, s:s}, s:s, s:s, s:o, s:b, s:i, s:i, s:o, s:I}",
                             "machine", "cpu", json_text(cpu_model()), "system", host.sysname,
                             "release", host.release, "kernels", m->cpu_level, "version",
                             fv_version(), "commit", FASTVLM_COMMIT, "model",
                             json_text(model_name(&b->model)), "demonstration", !b->model.model,
                             "threads", m->n_threads, "image_size", m->image_size, "stages", stages,
                             "peak_rss_bytes", (json_int_t)peak_rss_bytes());
    return print_json(root, 6);
}

static int print_table(const bench *b, const fv_model_info *m, bool csv)
{
    if (csv)
        print_out(
            "stage,precision,best_ms,median_ms,tokens_per_second,repetitions,threads,image_size,"
            "kernels,cpu,version,commit\n");
    else
        print_out(
            "%s, %d threads, kernels %s, fastvlm %s (%s)\n%s, %d x %d\n\n%-12s %-6s %10s %10s "
            "%10s\n",
            cpu_model(), m->n_threads, m->cpu_level, fv_version(), FASTVLM_COMMIT,
            model_name(&b->model), m->image_size, m->image_size, "stage", "type", "best ms",
            "median ms", "tokens/s");
    for (int i = 0; i < N_STAGES; i++) {
        if (!b->n[i])
            continue;
        double speed = rate(b, i, median(b, i));
        if (csv)
            print_out("%s,%s,%.3f,%.3f,%.2f,%zu,%d,%d,%s,\"%s\",%s,%s\n", stage_names[i],
                      precision_of(m, i), b->ms[i][0], median(b, i), speed, b->n[i], m->n_threads,
                      m->image_size, m->cpu_level, cpu_model(), fv_version(), FASTVLM_COMMIT);
        else if (speed > 0)
            print_out("%-12s %-6s %10.2f %10.2f %10.1f\n", stage_names[i], precision_of(m, i),
                      b->ms[i][0], median(b, i), speed);
        else
            print_out("%-12s %-6s %10.2f %10.2f\n", stage_names[i], precision_of(m, i), b->ms[i][0],
                      median(b, i));
    }
    if (!csv)
        print_out("\npeak memory %.0f MB\n", (double)peak_rss_bytes() / 1e6);
    return end_out();
}

static int run_company(bench *b, fv_engine *engine, const fv_image *image, progress_line *line)
{
    fv_callbacks callbacks = line_callbacks(line);
    fv_error err;
    company c;
    fv_status status = company_open(&c, engine, image, &callbacks, &err);
    for (int rep = -1; status == FV_OK && rep < b->reps; rep++)
        status = repeat_company(b, &c, rep, &err);
    company_close(&c);
    clear_line();
    return status == FV_OK ? -1 : report(&err);
}

static int run_bench(bench *b, fv_engine **engine, fv_image *image, progress_line *line)
{
    fv_model_info m = { .size = sizeof m };
    fv_error err;
    int code = open_engine(engine, &b->model);
    if (code >= 0)
        return code;
    if (b->layers) {
        const layers_job job = { model_name(&b->model), b->reps, b->tokens, b->form, b->svg };
        return run_bench_layers(&job, *engine, image);
    }
    add(b, LOAD, fv_engine_load_ms(*engine), 0);
    for (int rep = 0; b->wanted[LOAD] && rep + 1 < b->reps; rep++) {
        fv_engine_free(*engine);
        *engine = NULL;
        if ((code = open_engine(engine, &b->model)) >= 0)
            return code;
        add(b, LOAD, fv_engine_load_ms(*engine), 0);
    }
    bool alone = false, in_company = false;
    for (int i = PREPROCESS; i <= FIRST_TOKEN; i++)
        alone = alone || b->wanted[i];
    for (int i = SESSIONS_1; i <= BESIDE_IMAGE; i++)
        in_company = in_company || b->wanted[i];
    if (b->asked && alone && bench_fill(b, *engine, &err) != FV_OK)
        return report(&err);
    for (int rep = -1; alone && rep < b->reps; rep++)
        if (repeat(b, *engine, image, rep, line, &err) != FV_OK)
            return report(&err);
    if (in_company && (code = run_company(b, *engine, image, line)) >= 0)
        return code;
    for (int i = 0; i < N_STAGES; i++)
        qsort(b->ms[i], b->n[i], sizeof b->ms[i][0], bench_compare);
    fv_engine_info(*engine, &m);
    return b->form == 1 ? print_figures(b, &m) : print_table(b, &m, b->form == 2);
}

int verb_bench(int argc, char **argv)
{
    static bench b = { .reps = 5, .tokens = 32 };
    fv_engine *engine = NULL;
    fv_image *image = NULL;
    fv_error err;
    int code = bench_parse(argc, argv, &b);
    if (code >= 0)
        return code;
    if (b.svg && fv_output_check(b.svg, &err) != FV_OK)
        return report(&err);
    catch_interrupt();
    progress_line line = { .enabled = true };
    fv_status status = b.image ? open_image(&image, b.image, NULL, &err) : draw_image(&image, &err);
    code = status == FV_OK ? run_bench(&b, &engine, image, &line) : report(&err);
    fv_image_free(image);
    fv_engine_free(engine);
    return code;
}
