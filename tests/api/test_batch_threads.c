/* fv_batch_run from C: cancelled at every row, with memory that runs out anywhere, and its
 * arguments. Whatever happens, the next run writes the bytes of one that ran through. Also run
 * under the thread sanitizer. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "fastvlm_batch.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

enum { ROWS = 12 };

static fv_error err;
static fv_engine *engine;
static char folder[64], output[96], list[96];
static const char *inputs[] = { list };
static const fv_answer_options answer = { .size = sizeof answer, .max_new_tokens = 3 };

static fv_batch_options usual(void)
{
    return (fv_batch_options){ .size = sizeof(fv_batch_options),
                               .inputs = inputs,
                               .n_inputs = 1,
                               .output = output,
                               .answer = &answer,
                               .model = "tiny",
                               .n_together = 3,
                               .n_readers = 2 };
}

static void path_of(char *to, size_t size, const char *name)
{
    snprintf(to, size, "%s/%s", folder, name);
}

static char *read_output(void)
{
    uint8_t *data;
    size_t n;
    if (fv_read_file(&data, &n, output, 1 << 20, &err) != FV_OK)
        fail_msg("%s", err.message);
    return (char *)data;
}

static void remove_output(void)
{
    char path[128];
    unlink(output);
    snprintf(path, sizeof path, "%s.manifest.json", output);
    unlink(path);
    snprintf(path, sizeof path, "%s.partial", output);
    unlink(path);
}

static void run_ok(const fv_batch_options *o, fv_batch_report *r)
{
    *r = (fv_batch_report){ .size = sizeof *r };
    fv_status status = fv_batch_run(engine, o, r, &err);
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

/* The output of a run that nothing disturbs, which is removed. */
static char *undisturbed(void)
{
    fv_batch_options o = usual();
    fv_batch_report r;
    run_ok(&o, &r);
    assert_int_equal(r.n_rows, ROWS);
    assert_int_equal(r.n_failed, 1);
    assert_int_equal(r.n_resumed, 0);
    assert_false(r.was_complete);
    assert_true(r.done == 1 && r.ms > 0 && r.n_tokens > 0);
    char *text = read_output();
    remove_output();
    return text;
}

static void same_output(char *want)
{
    char *found = read_output();
    assert_string_equal(found, want);
    fv_free(found);
    fv_free(want);
    remove_output();
}

static bool stop_at_a_row(void *user, const fv_batch_report *so_far)
{
    return so_far->n_rows >= *(uint64_t *)user;
}

static void test_cancelled(void **state)
{
    (void)state;
    char *want = undisturbed();
    fv_batch_report r = { .size = sizeof r };
    fv_batch_options o = usual();
    uint64_t at = 0, before = 0;
    o.progress = stop_at_a_row;
    o.progress_user = &at;
    for (int i = 0; i < 100; i++) {
        at = before + 1;
        fv_status status = fv_batch_run(engine, &o, &r, &err);
        if (status == FV_OK)
            break;
        assert_int_equal(status, FV_ERR_CANCELLED);
        assert_true(r.n_rows >= before && r.n_resumed <= r.n_rows);
        before = r.n_rows;
    }
    o.progress = NULL;
    run_ok(&o, &r);
    same_output(want);
}

static void test_memory(void **state)
{
    (void)state;
    char *want = undisturbed();
    fv_batch_report r;
    fv_batch_options o = usual();
    int n_failed = 0;
    for (uint64_t at = 0; at < 400; at += 1 + at / 8) {
        r = (fv_batch_report){ .size = sizeof r };
        fv_mem_fail_after(at);
        fv_status status = fv_batch_run(engine, &o, &r, &err);
        fv_mem_fail_after(UINT64_MAX);
        if (status != FV_OK && status != FV_ERR_MEMORY)
            fail_msg("after %d allocations: %s: %s", (int)at, fv_status_name(status), err.message);
        n_failed += status != FV_OK;
    }
    assert_true(n_failed > 10);
    run_ok(&o, &r);
    same_output(want);
}

/* ---- a grammar ---- */

/* Answers in three tokens of one id; counts what is alive. */
typedef struct held {
    int live, opened;
    fv_status open, schema; /* what they give */
    int check_fails_at;     /* token; 0: never */
    bool silent;            /* and do not say why */
} held;

typedef struct held_answer {
    held *of;
    int n;
} held_answer;

static fv_status held_open(void *user, fv_error *e)
{
    held *h = user;
    h->opened++;
    assert_true(e->status == FV_OK && !e->message[0]);
    if (h->silent)
        return h->open;
    return h->open == FV_OK ? FV_OK : fv_fail(e, h->open, 0, "no grammar here");
}

static void held_mask(void *user, uint32_t *mask, size_t n)
{
    (void)user;
    for (size_t i = 0; i < (n + 31) / 32; i++)
        mask[i] &= i == 0 ? 1u << 5 : 0;
}

static void held_chosen(void *user, int32_t id)
{
    held_answer *a = user;
    assert_int_equal(id, 5);
    a->n++;
}

static fv_status held_constrain(void *user, const char *schema, size_t n, fv_answer_options *to,
                                void **constraint, fv_error *e)
{
    held *h = user;
    assert_true(h->opened && n == 2 && !memcmp(schema, "{}", 2));
    assert_true(e->status == FV_OK && !e->message[0]);
    if (h->schema != FV_OK)
        return h->silent ? h->schema : fv_fail(e, h->schema, 0, "no such schema");
    held_answer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->of = h;
    h->live++;
    to->mask = held_mask;
    to->chosen = held_chosen;
    to->mask_user = *constraint = a;
    return FV_OK;
}

static fv_status held_check(const void *constraint, fv_error *e)
{
    const held_answer *a = constraint;
    if (!a->of->check_fails_at || a->n < a->of->check_fails_at)
        return FV_OK;
    return a->of->silent ? FV_ERR_LIMIT : fv_fail(e, FV_ERR_LIMIT, 0, "too much");
}

static bool held_is_complete(const void *constraint)
{
    return ((const held_answer *)constraint)->n == 3;
}

static void held_release(void *constraint)
{
    held_answer *a = constraint;
    a->of->live--;
    free(a);
}

/* What became of the rows with an image: "ok", or their status. */
static void held_expect(const char *status, uint64_t n_failed, const fv_batch_options *o)
{
    fv_batch_report r;
    char part[128];
    run_ok(o, &r);
    assert_int_equal(r.n_failed, n_failed);
    char *text = read_output();
    snprintf(part, sizeof part, "\"status\": \"%s\"", status);
    if (!strstr(text, part))
        fail_msg("%s; expected %s", text, part);
    fv_free(text);
    remove_output();
}

static void test_grammar(void **state)
{
    (void)state;
    held h = { 0 };
    const fv_batch_grammar grammar = { .size = sizeof grammar,
                                       .open = held_open,
                                       .constrain = held_constrain,
                                       .check = held_check,
                                       .is_complete = held_is_complete,
                                       .release = held_release,
                                       .user = &h };
    fv_batch_report r = { .size = sizeof r };
    fv_answer_options two = answer;
    fv_batch_options o = usual();
    o.grammar = &grammar;
    held_expect("ok", 1, &o);
    assert_int_equal(h.opened, 0); /* nothing needs it */
    run_ok(&o, &r);
    o.grammar = NULL; /* requests for JSON would fail now */
    assert_int_equal(fv_batch_run(engine, &o, &r, &err), FV_ERR_STATE);
    assert_non_null(
        strstr(err.message, "made with another grammar: it was true, and is false now"));
    remove_output();
    o.grammar = &grammar;
    o.schema = "{}x";
    o.n_schema_bytes = 2;
    held_expect("ok", 1, &o);
    assert_int_equal(h.opened, 1);
    two.max_new_tokens = 2; /* never complete */
    o.answer = &two;
    held_expect("limit", ROWS, &o);
    o.format = FV_BATCH_OPENAI; /* no row is too large */
    run_ok(&o, &r);
    char *text = read_output();
    assert_non_null(strstr(text, "\"status_code\":400"));
    assert_non_null(strstr(text, "complete; expected it to end"));
    assert_null(strstr(text, "\"status_code\":413"));
    assert_null(strstr(text, "context_length_exceeded"));
    fv_free(text);
    remove_output();
    o.format = FV_BATCH_JSONL;
    o.answer = &answer;
    for (h.check_fails_at = 1; h.check_fails_at < 3; h.check_fails_at++) {
        held_expect("limit", ROWS, &o);
        h.silent = true;
        held_expect("limit\", \"error\": \"the grammar failed: limit", ROWS, &o);
        h.silent = false;
    }
    h.check_fails_at = 0;
    h.silent = true;
    h.schema = FV_ERR_UNSUPPORTED;
    assert_int_equal(fv_batch_run(engine, &o, &r, &err), FV_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "the grammar failed: unsupported");
    h.open = FV_ERR_IO;
    assert_int_equal(fv_batch_run(engine, &o, &r, &err), FV_ERR_IO);
    assert_string_equal(err.message, "the grammar failed: io");
    h.silent = false;
    h.open = FV_OK;
    assert_int_equal(fv_batch_run(engine, &o, &r, &err), FV_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "no such schema");
    h.open = FV_ERR_IO;
    assert_int_equal(fv_batch_run(engine, &o, &r, &err), FV_ERR_IO);
    assert_string_equal(err.message, "no grammar here");
    assert_int_equal(access(output, F_OK), -1);
    h = (held){ 0 };
    uint64_t at = 4; /* cancelled while answers are held, unless it is quicker than that */
    o.progress = stop_at_a_row;
    o.progress_user = &at;
    fv_status status = fv_batch_run(engine, &o, &r, &err);
    assert_true(status == FV_OK || status == FV_ERR_CANCELLED);
    assert_int_equal(h.live, 0);
    if (status == FV_OK)
        remove_output();
    o.progress = NULL;
    held_expect("ok", 1, &o);
    assert_int_equal(h.live, 0);
}

static void refused(const fv_batch_options *o, const char *part)
{
    fv_batch_report r = { .size = sizeof r };
    assert_int_equal(fv_batch_run(engine, o, &r, &err), FV_ERR_ARGUMENT);
    if (!strstr(err.message, part))
        fail_msg("%s; expected \"%s\"", err.message, part);
}

static void mask_nothing(void *user, uint32_t *mask, size_t n)
{
    (void)user;
    (void)mask;
    (void)n;
}

static void test_arguments(void **state)
{
    (void)state;
    const char *const nothing[] = { NULL };
    fv_batch_options o = usual();
    fv_answer_options with_mask = { .size = sizeof with_mask, .mask = mask_nothing };
    fv_answer_options with_logprobs = { .size = sizeof with_logprobs, .n_logprobs = 1 };
    const fv_answer_options with_end = { .size = sizeof with_end, .ignore_end = true };
    const fv_batch_grammar empty = { .size = sizeof empty };
    fv_batch_report unsized = { 0 };
    assert_int_equal(fv_batch_run(NULL, &o, NULL, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_batch_run(engine, NULL, NULL, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_batch_run(engine, &o, &unsized, &err), FV_ERR_ARGUMENT);
#define REFUSED(field, value, part) \
    do {                            \
        o = usual();                \
        o.field = value;            \
        refused(&o, part);          \
    } while (0)
    REFUSED(size, 0, "size");
    REFUSED(inputs, NULL, "inputs is empty");
    REFUSED(n_inputs, 0, "inputs is empty");
    REFUSED(inputs, nothing, "inputs[0] is NULL");
    REFUSED(output, NULL, "output is NULL");
    REFUSED(output, "", "output is empty");
    REFUSED(model, NULL, "model is NULL");
    REFUSED(prompt, "", "prompt is blank; expected a question");
    REFUSED(n_together, 65, "n_together is 65; expected 0 to 64");
    REFUSED(n_readers, -1, "n_readers is -1");
    REFUSED(shard, 1, "shard is 1 of 0");
    REFUSED(answer, &with_mask, "answer.mask");
    REFUSED(answer, &with_logprobs, "answer.n_logprobs");
    REFUSED(schema, "{}", "grammar is NULL; expected one for the schema");
    REFUSED(grammar, &empty, "grammar.constrain is NULL");
#undef REFUSED
    o = usual();
    o.schema = "{}";
    o.n_schema_bytes = 2;
    o.answer = &with_end;
    const fv_batch_grammar whole = { .size = sizeof whole,
                                     .constrain = held_constrain,
                                     .check = held_check,
                                     .is_complete = held_is_complete,
                                     .release = held_release };
    o.grammar = &whole;
    refused(&o, "answer.ignore_end is set; expected none beside a schema");
    assert_int_equal(access(output, F_OK), -1);
}

static void test_model_id(void **state)
{
    (void)state;
    char id[FV_BATCH_MODEL_ID_BYTES], other[FV_BATCH_MODEL_ID_BYTES];
    assert_int_equal(fv_batch_model_id(id, NULL, "abc", 3, NULL, &err), FV_OK);
    assert_string_equal(id, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(fv_batch_model_id(id, TINY, NULL, 0, NULL, &err), FV_OK);
    assert_int_equal(fv_batch_model_id(other, IMAGE, NULL, 0, NULL, &err), FV_OK);
    assert_int_equal(strlen(id), 64);
    assert_string_not_equal(id, other);
    assert_int_equal(fv_batch_model_id(id, "none", NULL, 0, NULL, &err), FV_ERR_IO);
    assert_int_equal(fv_batch_model_id(id, NULL, NULL, 0, NULL, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_batch_model_id(NULL, TINY, NULL, 0, NULL, &err), FV_ERR_ARGUMENT);
}

static int setup(void **state)
{
    (void)state;
    const fv_engine_options o = { .size = sizeof o, .n_threads = 2 };
    snprintf(folder, sizeof folder, "/tmp/fv_batch_XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    path_of(output, sizeof output, "out.jsonl");
    path_of(list, sizeof list, "list");
    FILE *f = fopen(list, "w");
    for (int i = 0; f && i < ROWS; i++)
        fprintf(f, "%s\n", i == 5 ? "none.png" : IMAGE);
    return f && fclose(f) == 0 && fv_engine_open(&engine, TINY, &o, &err) == FV_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    fv_engine_free(engine);
    unlink(list);
    return rmdir(folder); /* nothing else is left there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancelled), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_grammar),   cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_model_id),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
