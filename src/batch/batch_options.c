/* fv_batch_run: what is asked for, the manifest that says so, and the run. See fastvlm_batch.h. */
#include <string.h>

#include "base/file_hash.h"
#include "base/report.h"
#include "base/sha256.h"
#include "base/sized.h"
#include "batch/batch_run.h"

#define DEFAULT_PROMPT "Describe the image."

enum { DEFAULT_TOGETHER = 8 };

/* ---- options ----------------------------------------------------------------------------- */

static fv_status count_check(const char *name, int value, int most, fv_error *err)
{
    return value >= 0 && value <= most
               ? FV_OK
               : fv_fail(err, FV_ERR_ARGUMENT, 0, "%s is %d; expected 0 to %d", name, value, most);
}

static fv_status batch_options_check(const fv_batch_options *o, fv_error *err)
{
    if (!o->inputs || !o->n_inputs)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "inputs is empty; expected one path or more");
    for (size_t i = 0; i < o->n_inputs; i++)
        if (!o->inputs[i])
            return fv_fail(err, FV_ERR_ARGUMENT, i, "inputs[%zu] is NULL", i);
    if (!o->output || !*o->output)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "output is %s; expected the name of a file",
                       o->output ? "empty" : "NULL");
    if (!o->model)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "model is NULL; expected what identifies it");
    if ((int)o->format < FV_BATCH_JSONL || o->format > FV_BATCH_OPENAI)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "format is %d; expected FV_BATCH_JSONL, _TEXT, _TAR or _OPENAI",
                       (int)o->format);
    if (o->prompt && fv_prompt_is_blank(o->prompt, o->n_prompt_bytes))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "prompt is blank; expected a question");
    FV_TRY(count_check("n_together", o->n_together, FV_BATCH_MAX_TOGETHER, err));
    FV_TRY(count_check("n_readers", o->n_readers, FV_BATCH_MAX_READERS, err));
    if (o->n_shards ? o->shard >= o->n_shards : o->shard > 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "shard is %" PRIu64 " of %" PRIu64 "; expected 0 to n_shards - 1", o->shard,
                       o->n_shards);
    return FV_OK;
}

static fv_status batch_answer_check(const fv_answer_options *a, bool json, fv_error *err)
{
    const char *name = a->mask ? "mask" : a->chosen ? "chosen" : "n_logprobs";
    if (a->mask || a->chosen || a->n_logprobs)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "answer.%s is set; rows have none", name);
    if (json && (a->n_stop || a->ignore_end))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "answer.%s is set; expected none beside a schema, whose JSON it would break",
                       a->n_stop ? "stop" : "ignore_end");
    return FV_OK;
}

static fv_status batch_take_grammar(fv_batch *b, fv_error *err)
{
    fv_batch_grammar *g = &b->grammar;
    const fv_batch_options *o = &b->options;
    if (o->schema && !o->grammar)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "grammar is NULL; expected one for the schema");
    if (!o->grammar)
        return FV_OK;
    FV_TRY(FV_OPTIONS_IN(g, fv_batch_grammar, o->grammar, err));
    const char *missing = !g->constrain     ? "constrain"
                          : !g->check       ? "check"
                          : !g->is_complete ? "is_complete"
                          : !g->release     ? "release"
                                            : NULL;
    return missing ? fv_fail(err, FV_ERR_ARGUMENT, 0, "grammar.%s is NULL", missing) : FV_OK;
}

static fv_status batch_take_options(fv_batch *b, const fv_batch_options *options, fv_error *err)
{
    fv_model_info m = { .size = sizeof m };
    fv_batch_options *o = &b->options;
    FV_TRY(FV_OPTIONS_IN(o, fv_batch_options, options, err));
    FV_TRY(batch_options_check(o, err));
    FV_TRY(FV_OPTIONS_IN(&b->answer, fv_answer_options, o->answer, err));
    FV_TRY(FV_OPTIONS_IN(&b->image, fv_image_options, o->image, err));
    FV_TRY(batch_take_grammar(b, err));
    FV_TRY(batch_answer_check(&b->answer, o->schema != NULL, err));
    fv_engine_info(b->engine, &m);
    if (!o->prompt) {
        o->prompt = DEFAULT_PROMPT;
        o->n_prompt_bytes = strlen(DEFAULT_PROMPT);
    }
    o->n_shards = o->n_shards ? o->n_shards : 1;
    o->n_together = o->n_together ? o->n_together : DEFAULT_TOGETHER;
    o->n_readers = o->n_readers ? o->n_readers : FV_MIN(m.n_threads, FV_BATCH_MAX_READERS);
    return FV_OK;
}

/* ---- the manifest ------------------------------------------------------------------------ */

static void manifest_put_answer(const fv_answer_options *a, fv_json_text *j)
{
    fv_json_put_int(j, "max_new_tokens", a->max_new_tokens);
    fv_json_put_real(j, "temperature", (double)a->temperature);
    fv_json_put_int(j, "top_k", a->top_k);
    fv_json_put_real(j, "top_p", (double)a->top_p);
    fv_json_put_real(j, "min_p", (double)a->min_p);
    fv_json_put_real(j, "repetition_penalty", (double)a->repetition_penalty);
    fv_json_put_int(j, "seed", (int64_t)a->seed);
    fv_json_put_bool(j, "ignore_end", a->ignore_end);
    fv_json_begin_row(j, "stop", '[');
    for (size_t i = 0; i < a->n_stop; i++)
        fv_json_put_text(j, NULL, a->stop[i]);
    fv_json_end(j);
    fv_json_begin_row(j, "bias", '[');
    for (size_t i = 0; i < a->n_bias; i++) {
        fv_json_put_int(j, NULL, a->bias[i].id);
        fv_json_put_real(j, NULL, (double)a->bias[i].bias);
    }
    fv_json_end(j);
}

static void schema_hash(char text[FV_HASH_TEXT], const fv_batch_options *o)
{
    uint8_t digest[FV_SHA256_BYTES];
    fv_sha256 sha;
    fv_sha256_begin(&sha);
    if (o->schema)
        fv_sha256_add(&sha, o->schema, o->n_schema_bytes);
    fv_sha256_end(&sha, digest);
    fv_hex(text, digest, sizeof digest);
}

/* Everything that decides the bytes of the output, and nothing else: no times, no threads. Last,
 * once there is an output, of n_bytes: what is in it. */
static fv_status manifest_make(const fv_batch *b, const uint64_t *n_bytes, fv_json_text *j,
                               fv_error *err)
{
    const fv_batch_options *o = &b->options;
    static const char *const formats[] = { "jsonl", "txt", "tar", "openai" };
    fv_model_info m = { .size = sizeof m };
    char schema[FV_HASH_TEXT];
    schema_hash(schema, o);
    fv_engine_info(b->engine, &m);
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "fastvlm", fv_version());
    fv_json_put_text(j, "model", o->model);
    fv_json_put_text(j, "format", formats[o->format]);
    fv_json_put_text(j, "cpu_level", m.cpu_level); /* sums are in another order at another one */
    fv_json_put_text(j, "vision", m.vision_precision);
    fv_json_put_text(j, "decoder", m.decoder_precision);
    fv_json_put_int(j, "image_size", m.image_size);
    fv_json_put_bytes(j, "prompt", o->prompt, o->n_prompt_bytes);
    if (o->system)
        fv_json_put_bytes(j, "system", o->system, o->n_system_bytes);
    else
        fv_json_put_text(j, "system", NULL);
    fv_json_put_text(j, "schema_sha256", o->schema ? schema : NULL);
    fv_json_put_bool(j, "grammar", o->grammar != NULL); /* without one, requests for JSON fail */
    fv_json_put_int(j, "max_context", o->max_context);
    manifest_put_answer(&b->answer, j);
    fv_json_put_int(j, "fit", (int64_t)o->fit);
    fv_json_put_bool(j, "ignore_exif", b->image.ignore_exif);
    fv_json_put_int(j, "max_pixels", (int64_t)b->image.max_pixels);
    fv_json_put_text(j, "root", o->root);
    fv_json_put_int(j, "shard", (int64_t)o->shard);
    fv_json_put_int(j, "shards", (int64_t)o->n_shards);
    fv_row_source_describe(b->source, j);
    if (n_bytes) {
        fv_json_begin_row(j, "output", '{');
        fv_json_put_int(j, "rows", (int64_t)b->report.n_rows);
        fv_json_put_int(j, "failed", (int64_t)b->report.n_failed);
        fv_json_put_int(j, "bytes", (int64_t)*n_bytes);
        fv_json_end(j);
    }
    fv_json_end(j);
    return fv_json_done(j, err);
}

static fv_status batch_open_journal(fv_batch *b, fv_error *err)
{
    fv_json_text j = { 0 };
    fv_status status = manifest_make(b, NULL, &j, err);
    if (status == FV_OK)
        status = fv_journal_open(&b->journal, b->options.output, j.text, j.n, b->options.force,
                                 b->options.callbacks, err);
    fv_json_text_free(&j);
    return status;
}

static fv_status batch_finish_journal(fv_batch *b, fv_error *err)
{
    fv_json_text j = { 0 };
    uint64_t n_bytes;
    FV_TRY(fv_journal_output_size(&b->journal, &n_bytes, err));
    fv_status status = manifest_make(b, &n_bytes, &j, err);
    if (status == FV_OK)
        status = fv_journal_finish(&b->journal, j.text, j.n, err);
    fv_json_text_free(&j);
    return status;
}

/* ---- the run ----------------------------------------------------------------------------- */

/* fv_progress_fn: while no row comes. Told by the caller's thread only, which otherwise does so
 * itself. */
static bool batch_is_over(void *user, const char *stage, double done)
{
    (void)stage;
    (void)done;
    fv_batch *b = user;
    return atomic_load(&b->stop) || (b->resuming && !fv_batch_tell(b, false));
}

static fv_status batch_do(fv_batch *b, fv_error *err)
{
    const fv_batch_options *o = &b->options;
    fv_model_info m = { .size = sizeof m };
    fv_engine_info(b->engine, &m);
    const fv_row_source_options source = { .inputs = o->inputs,
                                           .n_inputs = o->n_inputs,
                                           .defaults = { .root = o->root,
                                                         .prompt = o->prompt,
                                                         .n_prompt = o->n_prompt_bytes,
                                                         .n_tokens = (size_t)m.n_tokens,
                                                         .grammar = o->grammar != NULL,
                                                         .json = o->schema != NULL },
                                           .quiet = &b->quiet,
                                           .shard = o->shard,
                                           .n_shards = o->n_shards,
                                           .named = o->format == FV_BATCH_TEXT ||
                                                    o->format == FV_BATCH_TAR,
                                           .keyed = o->format == FV_BATCH_TAR };
    b->quiet = (fv_callbacks){ .size = sizeof b->quiet, .progress = batch_is_over, .user = b };
    FV_TRY(fv_batch_check_answer(b, err));
    FV_TRY(fv_batch_check_output(o, err)); /* before hours of answers */
    FV_TRY(fv_row_source_open(&b->source, &source, o->callbacks, err));
    FV_TRY(fv_row_source_check_output(b->source, o->output, o->format == FV_BATCH_TEXT, err));
    FV_TRY(fv_batch_begin(b, err));
    FV_TRY(batch_open_journal(b, err));
    if (b->journal.complete) {
        b->report.was_complete = true;
        b->report.n_rows = b->report.n_resumed = b->journal.n_rows;
        b->report.n_failed = b->journal.n_failed;
        return FV_OK;
    }
    b->resuming = true;
    FV_TRY(fv_batch_resume(b, err));
    b->resuming = false;
    if (!b->read_all)
        FV_TRY(fv_batch_answer(b, err));
    FV_TRY(fv_batch_finish(b, err));
    return batch_finish_journal(b, err);
}

fv_status fv_batch_run(fv_engine *engine, const fv_batch_options *options, fv_batch_report *out,
                       fv_error *err)
{
    fv_error own = { 0 };
    FV_REQUIRE(engine, err);
    FV_REQUIRE(options, err);
    if (out)
        FV_TRY(FV_RESULT_CHECK(out, fv_batch_report, err));
    fv_batch *b = fv_alloc_zero(1, sizeof *b);
    if (!b)
        return fv_fail_memory(err, sizeof *b, "a batch");
    b->engine = engine;
    b->journal.fd = -1;
    b->started_ms = b->told_ms = fv_now_ms();
    fv_status status = batch_take_options(b, options, &own);
    if (status == FV_OK)
        status = batch_do(b, &own);
    if (status != FV_OK && err)
        *err = own;
    if (status == FV_OK)
        b->report.done = 1;
    b->report.ms = fv_now_ms() - b->started_ms;
    if (out)
        fv_result_out(out, &b->report, sizeof b->report);
    fv_batch_end(b);
    fv_free(b);
    return status;
}
