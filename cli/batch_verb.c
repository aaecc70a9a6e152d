/* fastvlm batch: a question about each of many images, into one file. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "answer.h"
#include "fastvlm_batch.h"

#define DEFAULT_PROMPT "Describe the image."

enum { DEFAULT_NEW_TOKENS = 512, BAR_WIDTH = 24 };

typedef struct batch_options {
    model_options model;
    answer_options answer;
    answer_schema schema;
    const char *output, *prompt, *root, *shard;
    uint64_t shard_index, n_shards;
    int format, together, readers;
    bool force, json, quiet;
    const char **inputs; /* [n_inputs], behind the model in argv */
    size_t n_inputs;
} batch_options;

/* ---- arguments --------------------------------------------------------------------------- */

/* A directory with a config.json, or a model's file: a directory of images is an input. */
static bool batch_is_model(const char *word)
{
    struct stat st;
    const char *path;
    char *config;
    if (stat(word, &st) != 0 || !S_ISDIR(st.st_mode))
        return word_classify(word, &path) == WORD_MODEL;
    size_t n = strlen(word) + sizeof "/config.json";
    if (!(config = malloc(n)))
        return false;
    snprintf(config, n, "%s/config.json", word);
    bool is_model = stat(config, &st) == 0;
    free(config);
    return is_model;
}

/* "2/8" */
static int batch_read_shard(batch_options *o)
{
    unsigned long long index = 0, n = 1;
    int end = 0;
    if (o->shard && (sscanf(o->shard, "%llu/%llu%n", &index, &n, &end) != 2 || o->shard[end] ||
                     strpbrk(o->shard, "+- ") || index >= n))
        return usage_error("batch", "--shard: expected K/N, K from 0 to N - 1, found \"%s\"",
                           o->shard);
    o->shard_index = index;
    o->n_shards = n;
    return -1;
}

static int batch_sort_words(int argc, char **argv, batch_options *o)
{
    int at = optind;
    if (!o->model.model && at < argc && strcmp(argv[at], "-") != 0 && batch_is_model(argv[at]))
        o->model.model = argv[at++];
    o->inputs = (const char **)(void *)(argv + at);
    o->n_inputs = (size_t)(argc - at);
    if (!o->n_inputs)
        return usage_error("batch", "no input given; expected directories, images or lists");
    for (size_t i = 0; i < o->n_inputs; i++) {
        if (!strcmp(o->inputs[i], "-")) {
            o->inputs[i] = "/dev/stdin";
            if (o->schema.path && !strcmp(o->schema.path, "-"))
                return usage_error("batch", "standard input (-) is given more than once");
        } else if (!*o->inputs[i])
            return usage_error("batch", "an argument is blank; expected a directory, an image or a "
                                        "list");
    }
    return -1;
}

static int batch_parse(int argc, char **argv, batch_options *o)
{
    static const usage use = {
        "batch [OPTIONS] [MODEL] INPUT... -o FILE",
        "Answers a question about each of many images and writes a line of JSON for each, in the "
        "order of the inputs. An INPUT is a directory of images, an image, a tar file as "
        "WebDataset's shards are, or a list, - being standard input: each line of a list is the "
        "path of an image, or an object such as "
        "{\"image\": \"a.jpg\", \"prompt\": \"How many?\", \"id\": \"7\"}, or a "
        "request of OpenAI's batch files.\n"
        "\n"
        "A row that cannot be answered says why, and the others go on. A run that was stopped or "
        "killed continues where it was when the same command is given again, and writes the same "
        "bytes; FILE appears when all rows are finished. The answers do not depend on the number "
        "of threads. Answers end after 512 tokens unless --max-new-tokens is given, and by "
        "--json-schema they are JSON.",
        "  fastvlm batch photos/ -o captions.jsonl\n"
        "  find . -name '*.jpg' | fastvlm batch FastVLM-0.5B - -o a.jsonl\n"
        "  fastvlm batch FastVLM-0.5B rows.jsonl --shard 3/16 -o rows-3.jsonl",
    };
    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &o->output, "FILE",
          "the file to write; with --format txt the directory", 0, 0 },
        { 0, "format", OPTION_CHOICE, &o->format, "jsonl|txt|tar|openai",
          "a file of JSON lines, a directory with a text file for each image, a tar file with "
          "the inputs' keys, or results as OpenAI's batches have them",
          0, 0 },
        { 'p', "prompt", OPTION_TEXT, &o->prompt, "TEXT",
          "question of rows without one (default \"" DEFAULT_PROMPT "\")", 0, 0 },
        { 0, "root", OPTION_TEXT, &o->root, "DIR",
          "where relative paths in lists begin (default: the working directory)", 0, 0 },
        { 0, "shard", OPTION_TEXT, &o->shard, "K/N",
          "only rows K, K + N ... of the inputs, K from 0; tar files as wholes", 0, 0 },
        { 0, "force", OPTION_FLAG, &o->force, NULL,
          "replace an output that was made in another way", 0, 0 },
        { 0, "together", OPTION_INT, &o->together, "N",
          "answers that are decoded together (default 8)", 1, 64 },
        { 0, "readers", OPTION_INT, &o->readers, "N",
          "threads that read images (default: one per physical core)", 1, 64 },
        MODEL_OPTIONS(o->model),
        ANSWER_OPTIONS(o->answer),
        SCHEMA_OPTION(o->schema),
        { 0, "json", OPTION_FLAG, &o->json, NULL, "print the figures of the run as JSON", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &o->quiet, NULL, "no progress and no figures", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, NULL);
    if (code < 0)
        code = batch_sort_words(argc, argv, o);
    if (code < 0 && !o->output)
        return usage_error("batch", "no output given; name a file with -o");
    if (code < 0)
        code = batch_read_shard(o);
    if (code < 0)
        code = check_prompt("batch", o->prompt);
    if (code < 0)
        code = check_answer_options("batch", &o->answer);
    if (code < 0)
        code = schema_check("batch", &o->schema, &o->answer);
    return code < 0 ? check_model("batch", &o->model, o->quiet) : code;
}

/* ---- progress ---------------------------------------------------------------------------- */

static double per_second(double n, double ms) { return ms > 0 ? n / ms * 1e3 : 0; }

static void batch_time_left(char *to, size_t size, double ms)
{
    double s = ms / 1e3;
    if (s >= 2 * 86400.0)
        snprintf(to, size, "%.1f days", s / 86400);
    else if (s >= 3600)
        snprintf(to, size, "%d h %02d min", (int)(s / 3600), (int)(s / 60) % 60);
    else
        snprintf(to, size, "%d:%02d", (int)(s / 60), (int)s % 60);
}

typedef struct batch_progress {
    bool enabled;
    double begin; /* done when the first row of this run was */
    bool begun;
} batch_progress;

/* fv_batch_progress_fn */
static bool batch_show(void *user, const fv_batch_report *r)
{
    batch_progress *p = user;
    char bar[BAR_WIDTH + 1], left[32] = "";
    uint64_t fresh = r->n_rows - r->n_resumed;
    if (!fresh)
        p->begin = r->done; /* rows of earlier runs tell nothing about the rate */
    if (!p->enabled || r->ms < 300)
        return interrupted();
    int full = (int)(r->done * BAR_WIDTH);
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR_WIDTH] = 0;
    if (fresh && r->done > p->begin)
        batch_time_left(left, sizeof left, r->ms * (1 - r->done) / (r->done - p->begin));
    show_line("[%s] %3.0f %% · %llu rows · %.2f/s%s%s%s", bar, r->done * 100,
              (unsigned long long)r->n_rows, per_second((double)fresh, r->ms), *left ? " · " : "",
              left, *left ? " left" : "");
    return interrupted();
}

/* ---- JSON by a schema -------------------------------------------------------------------- */

typedef struct batch_llguidance {
    const fv_engine *engine;
    fv_grammar *grammar; /* NULL: no row has needed it yet */
} batch_llguidance;

static fv_status batch_open_grammar(void *user, fv_error *err)
{
    batch_llguidance *l = user;
    return fv_grammar_open(&l->grammar, l->engine, err);
}

static fv_status batch_constrain(void *user, const char *schema, size_t n_bytes,
                                 fv_answer_options *answer, void **constraint, fv_error *err)
{
    const batch_llguidance *l = user;
    fv_constraint *c;
    fv_status status = fv_constraint_new(&c, l->grammar, schema, n_bytes, err);
    if (status == FV_OK)
        fv_constraint_apply(c, answer);
    *constraint = c;
    return status;
}

static fv_status batch_check_json(const void *constraint, fv_error *err)
{
    return fv_constraint_check(constraint, err);
}

static bool batch_json_is_complete(const void *constraint)
{
    return fv_constraint_complete(constraint);
}

static void batch_release_constraint(void *constraint) { fv_constraint_free(constraint); }

/* ---- the run ----------------------------------------------------------------------------- */

static int batch_print_json(const batch_options *o, const fv_batch_report *r)
{
    return print_json(json_pack("{s:o, s:o, s:b, s:I, s:I, s:I, s:I, s:f, s:f, s:I}", "output",
                                json_text(o->output), "model", json_text(model_name(&o->model)),
                                "complete_before", r->was_complete, "rows", (json_int_t)r->n_rows,
                                "failed", (json_int_t)r->n_failed, "resumed",
                                (json_int_t)r->n_resumed, "new_tokens", (json_int_t)r->n_tokens,
                                "ms", r->ms, "rows_per_second",
                                per_second((double)(r->n_rows - r->n_resumed), r->ms),
                                "peak_rss_bytes", (json_int_t)peak_rss_bytes()),
                      6);
}

static void batch_print_text(const batch_options *o, const fv_batch_report *r)
{
    if (r->was_complete) {
        print_err("%s is complete", o->output);
        if (r->n_rows)
            print_err(": %llu row%s, %llu failed", (unsigned long long)r->n_rows,
                      r->n_rows == 1 ? "" : "s", (unsigned long long)r->n_failed);
        print_err("; --force answers again\n");
        return;
    }
    print_err("%s: %llu row%s, %llu failed", o->output, (unsigned long long)r->n_rows,
              r->n_rows == 1 ? "" : "s", (unsigned long long)r->n_failed);
    if (r->n_resumed)
        print_err(", %llu from earlier runs", (unsigned long long)r->n_resumed);
    print_err(" · %.1f s, %.2f rows/s, %.1f tok/s · peak memory %.0f MB\n", r->ms / 1e3,
              per_second((double)(r->n_rows - r->n_resumed), r->ms),
              per_second((double)r->n_tokens, r->ms), (double)peak_rss_bytes() / 1e6);
}

/* The hash of the model; with the type of the KV cache, where one was chosen. */
static int batch_identify(char *to, size_t size, const batch_options *o, progress_line *line)
{
    static const char *const kv[] = { "", ", KV cache f32", ", KV cache f16", ", KV cache q8" };
    char id[FV_BATCH_MODEL_ID_BYTES];
    const void *data = NULL;
    size_t n_bytes = 0;
    fv_error err;
    fv_callbacks callbacks = line_callbacks(line);
    if (!o->model.model)
        demo_model(&data, &n_bytes);
    if (fv_batch_model_id(id, o->model.model, data, n_bytes, &callbacks, &err) != FV_OK)
        return report(&err);
    snprintf(to, size, "sha256 %s%s", id, kv[o->model.kv]);
    return -1;
}

static int batch_run(fv_engine *engine, const batch_options *o, progress_line *line)
{
    char model[128];
    fv_error err;
    batch_progress progress = { .enabled = !o->quiet };
    fv_callbacks callbacks = line_callbacks(line);
    fv_batch_report r = { .size = sizeof r };
    fv_answer_options answer;
    fill_answer(&answer, &o->answer);
    batch_llguidance llguidance = { .engine = engine };
    const fv_batch_grammar grammar = { .size = sizeof grammar,
                                       .open = batch_open_grammar,
                                       .constrain = batch_constrain,
                                       .check = batch_check_json,
                                       .is_complete = batch_json_is_complete,
                                       .release = batch_release_constraint,
                                       .user = &llguidance };
    const fv_image_options image = { .size = sizeof image,
                                     .ignore_exif = o->answer.no_exif,
                                     .max_pixels = (uint64_t)o->answer.max_megapixels * 1000000 };
    const fv_batch_options b = {
        .size = sizeof b,
        .inputs = o->inputs,
        .n_inputs = o->n_inputs,
        .root = o->root,
        .output = o->output,
        .format = (fv_batch_format)o->format,
        .prompt = o->prompt,
        .n_prompt_bytes = o->prompt ? strlen(o->prompt) : 0,
        .system = o->answer.system,
        .n_system_bytes = o->answer.system ? strlen(o->answer.system) : 0,
        .answer = &answer,
        .fit = (fv_fit)o->answer.fit,
        .image = &image,
        .max_context = o->answer.max_context,
        .model = model,
        .n_together = o->together,
        .n_readers = o->readers,
        .shard = o->shard_index,
        .n_shards = o->n_shards,
        .force = o->force,
        .callbacks = &callbacks,
        .progress = batch_show,
        .progress_user = &progress,
        .grammar = &grammar,
        .schema = o->schema.text,
        .n_schema_bytes = o->schema.n,
    };
    int code = batch_identify(model, sizeof model, o, line);
    if (code >= 0)
        return code;
    fv_status status = fv_batch_run(engine, &b, &r, &err);
    fv_grammar_free(llguidance.grammar);
    clear_line();
    if (status == FV_ERR_CANCELLED) {
        print_err("fastvlm: stopped after %llu row%s; the same command continues from there\n",
                  (unsigned long long)r.n_rows, r.n_rows == 1 ? "" : "s");
        return EXIT_FAILED;
    }
    if (status != FV_OK)
        return report(&err);
    if (!o->quiet)
        batch_print_text(o, &r);
    return o->json ? batch_print_json(o, &r) : EXIT_OK;
}

int verb_batch(int argc, char **argv)
{
    batch_options o = { .answer = ANSWER_DEFAULTS };
    o.answer.max_new_tokens = DEFAULT_NEW_TOKENS;
    fv_engine *engine = NULL;
    int code = batch_parse(argc, argv, &o);
    if (code >= 0)
        return code;
    catch_interrupt();
    progress_line line = { .enabled = !o.quiet };
    code = schema_read("batch", &o.schema);
    if (code < 0)
        code = open_engine(&engine, &o.model);
    if (code < 0)
        code = batch_run(engine, &o, &line);
    fv_engine_free(engine);
    free(o.schema.text);
    return code;
}
