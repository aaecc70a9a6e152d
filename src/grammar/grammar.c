/* The engine's tokens handed to llguidance, and a schema's masks taken from it. See grammar.h. */
#include "grammar/grammar.h"

#include <stdio.h>
#include <string.h>

#include "base/list.h"
#include "grammar/llguidance.h"
#include "io/json.h"

struct fv_grammar {
    fv_llg llg;
    const fv_engine *engine;
    fv_llg_tokenizer *tokenizer;
    uint32_t n_ids, n_ends;
    uint32_t ends[FV_COUNT(((fv_model_info *)0)->end_tokens)];
};

struct fv_constraint {
    const fv_grammar *grammar;
    fv_llg_matcher *matcher;
    uint32_t *mask; /* [(n_ids + 31) / 32] */
    bool computed;  /* the mask is that of the next token */
    bool failed;
};

/* ---------------------------------------------------------------- the tokens */

/* Every token's bytes, one after the other. */
typedef struct token_table {
    uint32_t *lengths; /* [n_ids] */
    uint8_t *bytes;
    size_t n, capacity;
} token_table;

static bool text_is_token(const fv_engine *engine, int32_t id, const char *text, size_t n_bytes,
                          bool special)
{
    int32_t found = -1;
    size_t n = 0;
    return fv_engine_tokenize(engine, text, n_bytes, special, &found, 1, &n, NULL) == FV_OK &&
           n == 1 && found == id;
}

static bool token_is_end(const fv_grammar *g, int32_t id)
{
    for (uint32_t i = 0; i < g->n_ends; i++)
        if (g->ends[i] == (uint32_t)id)
            return true;
    return false;
}

/* A mark such as <|im_start|>: its text is its own only where marks are looked for. In a string of
 * an answer it would be a mark, not those characters. */
static bool token_is_control(const fv_grammar *g, int32_t id, const char *text, size_t n_bytes)
{
    if (token_is_end(g, id))
        return true;
    return !text_is_token(g->engine, id, text, n_bytes, false) &&
           text_is_token(g->engine, id, text, n_bytes, true);
}

static fv_status tokens_collect(token_table *t, const fv_grammar *g, fv_error *err)
{
    t->lengths = fv_alloc_zero(g->n_ids, sizeof *t->lengths);
    if (!t->lengths)
        return fv_fail_memory(err, g->n_ids * sizeof *t->lengths, "a table of tokens");
    for (uint32_t id = 0; id < g->n_ids; id++) {
        size_t n_bytes = 0;
        const char *text = fv_engine_token_text(g->engine, (int32_t)id, &n_bytes);
        if (!text)
            continue;
        FV_TRY(FV_LIST_ROOM(t->bytes, t->n, t->capacity, n_bytes + 1, err));
        size_t begin = t->n;
        if (token_is_control(g, (int32_t)id, text, n_bytes))
            t->bytes[t->n++] = FV_LLG_CONTROL;
        memcpy(t->bytes + t->n, text, n_bytes);
        t->n += n_bytes;
        t->lengths[id] = (uint32_t)(t->n - begin);
    }
    return FV_OK;
}

static size_t grammar_tokenize(const void *user, const uint8_t *text, size_t n_bytes, uint32_t *ids,
                               size_t capacity)
{
    size_t n = 0;
    fv_status status = fv_engine_tokenize(user, (const char *)text, n_bytes, false, (int32_t *)ids,
                                          capacity, &n, NULL);
    return status == FV_OK ? n : 0;
}

static fv_status grammar_load_tokens(fv_grammar *g, fv_error *err)
{
    token_table table = { 0 };
    char problem[256] = "";
    fv_status status = tokens_collect(&table, g, err);
    if (status == FV_OK) {
        const fv_llg_tokenizer_init init = { .struct_size = sizeof init,
                                             .vocab_size = g->n_ids,
                                             .end = g->ends[0],
                                             .lengths = table.lengths,
                                             .bytes = table.bytes,
                                             .text_only = true,
                                             .tokenize = grammar_tokenize,
                                             .user = g->engine,
                                             .more_ends = g->ends + 1,
                                             .n_more_ends = g->n_ends - 1 };
        g->tokenizer = g->llg.new_tokenizer_v2(&init, problem, sizeof problem);
        if (!g->tokenizer)
            status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                             "the model's tokens cannot be used by llguidance: %s", problem);
    }
    fv_free(table.lengths);
    fv_free(table.bytes);
    return status;
}

fv_status fv_grammar_check(const char **version, fv_error *err)
{
    fv_llg llg;
    FV_TRY(fv_llg_open(&llg, err));
    if (version)
        *version = FV_LLG_VERSION;
    return FV_OK;
}

fv_status fv_grammar_open(fv_grammar **out, const fv_engine *engine, fv_error *err)
{
    fv_model_info info = { .size = sizeof info };
    fv_status status;

    *out = NULL;
    fv_grammar *g = fv_alloc_zero(1, sizeof *g);
    if (!g)
        return fv_fail_memory(err, sizeof *g, "a grammar");
    fv_engine_info(engine, &info);
    g->engine = engine;
    g->n_ids = (uint32_t)info.n_tokens;
    for (int i = 0; i < info.n_end_tokens; i++)
        g->ends[g->n_ends++] = (uint32_t)info.end_tokens[i];
    FV_TRY_GOTO(fv_llg_open(&g->llg, err));
    FV_TRY_GOTO(grammar_load_tokens(g, err));
    *out = g;
    return FV_OK;
fail:
    fv_grammar_free(g);
    return status;
}

void fv_grammar_free(fv_grammar *g)
{
    if (g && g->tokenizer)
        g->llg.free_tokenizer(g->tokenizer);
    fv_free(g);
}

/* ---------------------------------------------------------------- a schema */

/* llguidance takes its own options from this member of a schema; with another set of them it would
 * pass over what it cannot enforce. */
#define OPTIONS_KEY "x-guidance"
#define OPTIONS     "{\"" OPTIONS_KEY "\":{\"whitespace_flexible\":false}"

/* The schema with our options as its first member, in a block to fv_free. */
static fv_status schema_prepare(char **out, const char *schema, size_t n_bytes, fv_error *err)
{
    fv_json *doc = NULL;
    fv_status status;

    *out = NULL;
    if (n_bytes > FV_SCHEMA_BYTES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "schema: %zu bytes; expected at most %d", n_bytes,
                       FV_SCHEMA_BYTES);
    if (!n_bytes)
        return fv_fail(err, FV_ERR_FORMAT, 0, "schema: empty; expected a JSON object");
    FV_TRY(fv_json_parse(&doc, schema, n_bytes, "schema", err));
    const fv_json_value *root = fv_json_root(doc);
    const char *begin = memchr(schema, '{', n_bytes);
    size_t capacity = n_bytes + sizeof OPTIONS + 1;
    if (fv_json_type_of(root) != FV_JSON_OBJECT || !begin)
        status = fv_fail(err, FV_ERR_FORMAT, 0, "schema: expected an object, found %s",
                         fv_json_type_name(root));
    else if (fv_json_member(root, OPTIONS_KEY))
        status = fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "schema: " OPTIONS_KEY " is set; expected a schema without it, as the "
                         "options of llguidance are fixed");
    else if (!(*out = fv_alloc(capacity, 1)))
        status = fv_fail_memory(err, capacity, "a schema");
    else {
        begin++;
        snprintf(*out, capacity, OPTIONS "%s%.*s", fv_json_count(root) ? "," : "",
                 (int)(schema + n_bytes - begin), begin);
        status = FV_OK;
    }
    fv_json_free(doc);
    return status;
}

/* What llguidance says, on one line and no longer than it needs to be: it may go on with a trace,
 * or with an option that nobody can set here. */
static fv_status schema_refuse(const char *problem, fv_error *err)
{
    static const char *const tails[] = { "<backtrace>", ". Enable 'coerce_one_of'" };
    char text[320] = "";
    size_t n = 0, end = strlen(problem);
    for (size_t i = 0; i < FV_COUNT(tails); i++) {
        const char *tail = strstr(problem, tails[i]);
        end = tail ? FV_MIN(end, (size_t)(tail - problem)) : end;
    }
    for (size_t i = 0; i < end && n < sizeof text; i++) {
        bool blank = strchr(" \t\r\n", problem[i]) != NULL;
        if (!blank || (n > 0 && text[n - 1] != ' '))
            text[n++] = blank ? ' ' : problem[i];
    }
    while (n == sizeof text || (n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80))
        n--; /* not within a character */
    while (n > 0 && (text[n - 1] == '.' || text[n - 1] == ' '))
        n--;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "schema: cannot be enforced: %.*s", (int)n, text);
}

static void constraint_compute(fv_constraint *c)
{
    size_t n_words = (c->grammar->n_ids + 31) / 32;
    if (!c->failed && !c->computed)
        c->failed = c->grammar->llg.matcher_compute_mask_into(c->matcher, c->mask,
                                                              n_words * sizeof *c->mask) != 0;
    c->computed = true;
}

fv_status fv_constraint_new(fv_constraint **out, const fv_grammar *g, const char *schema,
                            size_t n_bytes, fv_error *err)
{
    fv_llg_init init;
    char *text = NULL;
    fv_status status;

    *out = NULL;
    size_t n_words = (g->n_ids + 31) / 32;
    fv_constraint *c = fv_alloc_zero(1, sizeof *c);
    if (!c || !(c->mask = fv_alloc(n_words, sizeof *c->mask))) {
        status = fv_fail_memory(err, n_words * sizeof *c->mask, "a mask of tokens");
        goto fail;
    }
    c->grammar = g;
    FV_TRY_GOTO(schema_prepare(&text, schema, n_bytes, err));
    g->llg.constraint_init_set_defaults(&init, g->tokenizer);
    init.log_stderr_level = init.log_buffer_level = 0;
    init.limits.verbose_errors = false;
    c->matcher = g->llg.new_matcher(&init, "json_schema", text);
    const char *problem = g->llg.matcher_get_error(c->matcher);
    if (problem) {
        status = schema_refuse(problem, err);
        goto fail;
    }
    constraint_compute(c); /* so that what fails at once is refused */
    FV_TRY_GOTO(fv_constraint_check(c, err));
    fv_free(text);
    *out = c;
    return FV_OK;
fail:
    fv_free(text);
    fv_constraint_free(c);
    return status;
}

void fv_constraint_free(fv_constraint *c)
{
    if (!c)
        return;
    if (c->matcher)
        c->grammar->llg.free_matcher(c->matcher);
    fv_free(c->mask);
    fv_free(c);
}

/* ---------------------------------------------------------------- an answer */

/* What is left to choose when there is no mask: the answer ends. */
static void mask_end_only(const fv_constraint *c, size_t n_words)
{
    const fv_grammar *g = c->grammar;
    memset(c->mask, 0, n_words * sizeof *c->mask);
    for (uint32_t i = 0; i < g->n_ends; i++)
        if (g->ends[i] < g->n_ids)
            c->mask[g->ends[i] / 32] |= (uint32_t)1 << g->ends[i] % 32;
}

static void constraint_mask(void *user, uint32_t *mask, size_t n_tokens)
{
    fv_constraint *c = user;
    size_t n_words = (c->grammar->n_ids + 31) / 32;

    constraint_compute(c);
    if (c->failed)
        mask_end_only(c, n_words);
    for (size_t i = 0; i < (n_tokens + 31) / 32; i++)
        mask[i] &= i < n_words ? c->mask[i] : 0;
}

/* A matcher takes no token once nothing can follow, not even an end token. */
static void constraint_chosen(void *user, int32_t id)
{
    fv_constraint *c = user;
    c->computed = false;
    if (!c->failed && !token_is_end(c->grammar, id))
        c->failed = c->grammar->llg.matcher_consume_token(c->matcher, (uint32_t)id) != 0;
}

void fv_constraint_apply(fv_constraint *c, fv_answer_options *options)
{
    options->mask = constraint_mask;
    options->chosen = constraint_chosen;
    options->mask_user = c;
}

fv_status fv_constraint_check(const fv_constraint *c, fv_error *err)
{
    return c->failed ? fv_fail(err, FV_ERR_LIMIT, 0,
                               "schema: too complex: which tokens may come next could not be "
                               "computed")
                     : FV_OK;
}

bool fv_constraint_complete(const fv_constraint *c)
{
    return !c->failed && c->grammar->llg.matcher_is_accepting(c->matcher);
}
