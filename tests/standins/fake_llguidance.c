/* fake_llguidance: a stand-in for libfastvlm_grammar.so, so that what opens and calls it is tested
 * where there is no Rust.
 *
 * It checks: the tokenizer (sizes, end tokens, control tokens marked, tokenize gives the ids of the
 * text); that a schema begins with our options; the order of calls; that every chosen token was in
 * the last mask; that everything is freed. Wrong use prints "VIOLATION ..." on standard error and
 * ends the process with exit code 88.
 *
 * It cannot prove that llguidance_abi.h is llguidance's interface (it is compiled against it), or
 * anything about schemas: every answer is $FAKE_ANSWER, whatever the schema. For those there is
 * tools/test-schema.sh. $FAKE_LLGUIDANCE is one of
 *
 *     version=1.0.0     its version
 *     tokens=TEXT       refuses the tokens with this message
 *     schema=TEXT       refuses every schema; a "~" in TEXT is a newline
 *     mask=N            fails to compute the mask number N, from 1 on */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "grammar/llguidance_abi.h"

#define EXPORT __attribute__((visibility("default")))

struct fv_llg_tokenizer {
    uint32_t n, *lengths, ends[32], n_ends;
    uint8_t *bytes;
};

struct fv_llg_matcher {
    const fv_llg_tokenizer *tokenizer;
    char answer[512], problem[512];
    size_t at;
    int n_masks;
    uint32_t *mask;
};

static atomic_int live; /* tokenizers and matchers not yet freed */

static void fake_violation(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void fake_violation(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "VIOLATION ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    _exit(88);
}

__attribute__((destructor)) static void fake_end(void)
{
    if (live)
        fake_violation("%d objects are not freed", live);
}

/* What $FAKE_LLGUIDANCE says of this; NULL: nothing. */
static const char *fake_word(const char *name)
{
    const char *word = getenv("FAKE_LLGUIDANCE");
    size_t n = strlen(name);
    return word && !strncmp(word, name, n) && word[n] == '=' ? word + n + 1 : NULL;
}

EXPORT const char *fastvlm_grammar_version(void);
EXPORT const char *fastvlm_grammar_version(void)
{
    const char *version = fake_word("version");
    return version ? version : FV_LLG_VERSION;
}

/* ---------------------------------------------------------------- tokens */

static bool fake_is_end(const fv_llg_tokenizer *t, uint32_t id)
{
    for (uint32_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id)
            return true;
    return false;
}

/* Every mark is a control token, and a word is its own id. */
static void fake_check_tokens(const fv_llg_tokenizer_init *init, const fv_llg_tokenizer *t)
{
    const uint8_t *at = t->bytes;
    uint32_t ids[8], n_marks = 0;
    for (uint32_t id = 0; id < t->n; at += t->lengths[id++]) {
        bool control = t->lengths[id] > 0 && at[0] == FV_LLG_CONTROL;
        if (fake_is_end(t, id) && !control)
            fake_violation("end token %u is not marked", id);
        if (t->lengths[id] > 2 && at[0] == '<' && at[1] == '|' && at[t->lengths[id] - 1] == '>')
            fake_violation("token %u, %.*s, is not marked", id, (int)t->lengths[id], at);
        n_marks += control;
    }
    if (n_marks >= t->n / 2)
        fake_violation("%u of %u tokens are control tokens", n_marks, t->n);
    if (init->tokenize(init->user, (const uint8_t *)"a", 1, ids, 8) != 1 || ids[0] >= t->n ||
        t->lengths[ids[0]] != 1)
        fake_violation("tokenize(\"a\") is not one id of that text");
}

EXPORT fv_llg_tokenizer *llg_new_tokenizer_v2(const fv_llg_tokenizer_init *init, char *problem,
                                              size_t capacity);
EXPORT fv_llg_tokenizer *llg_new_tokenizer_v2(const fv_llg_tokenizer_init *init, char *problem,
                                              size_t capacity)
{
    size_t n_bytes = 0;
    if (fake_word("tokens")) {
        snprintf(problem, capacity, "%s", fake_word("tokens"));
        return NULL;
    }
    if (init->struct_size != sizeof *init || init->tokenizer_json || init->slices ||
        !init->text_only)
        fake_violation("struct_size %zu, or an option that is not used", init->struct_size);
    for (uint32_t id = 0; id < init->vocab_size; id++)
        n_bytes += init->lengths[id];
    fv_llg_tokenizer *t = calloc(1, sizeof *t);
    t->n = init->vocab_size;
    t->lengths = malloc(t->n * sizeof *t->lengths);
    t->bytes = malloc(n_bytes);
    memcpy(t->lengths, init->lengths, t->n * sizeof *t->lengths);
    memcpy(t->bytes, init->bytes, n_bytes);
    t->ends[t->n_ends++] = init->end;
    for (uint32_t i = 0; i < init->n_more_ends; i++)
        t->ends[t->n_ends++] = init->more_ends[i];
    fake_check_tokens(init, t);
    live++;
    return t;
}

EXPORT void llg_free_tokenizer(fv_llg_tokenizer *t);
EXPORT void llg_free_tokenizer(fv_llg_tokenizer *t)
{
    if (live != 1)
        fake_violation("the tokenizer is freed with %d matchers alive", live - 1);
    live--;
    free(t->lengths);
    free(t->bytes);
    free(t);
}

/* ---------------------------------------------------------------- matchers */

EXPORT void llg_constraint_init_set_defaults(fv_llg_init *init, const fv_llg_tokenizer *tokenizer);
EXPORT void llg_constraint_init_set_defaults(fv_llg_init *init, const fv_llg_tokenizer *tokenizer)
{
    *init = (fv_llg_init){ .tokenizer = tokenizer, .log_stderr_level = 1 };
}

EXPORT fv_llg_matcher *llg_new_matcher(const fv_llg_init *init, const char *kind, const char *text);
EXPORT fv_llg_matcher *llg_new_matcher(const fv_llg_init *init, const char *kind, const char *text)
{
    const char options[] = "{\"x-guidance\":{\"whitespace_flexible\":false}", *answer;
    size_t n = strlen(text);
    if (strcmp(kind, "json_schema") != 0 || init->log_stderr_level || init->log_buffer_level)
        fake_violation("kind \"%s\", logs %u", kind, init->log_stderr_level);
    if (strncmp(text, options, sizeof options - 1) != 0 ||
        !strchr(",} \n", text[sizeof options - 1]) || strcspn(text + n - 1, "} \n"))
        fake_violation("the schema is \"%.200s\"", text);
    fv_llg_matcher *m = calloc(1, sizeof *m);
    m->tokenizer = init->tokenizer;
    m->mask = calloc((m->tokenizer->n + 31) / 32, sizeof *m->mask);
    answer = getenv("FAKE_ANSWER");
    snprintf(m->answer, sizeof m->answer, "%s", answer ? answer : "{\"a\":1}");
    if (fake_word("schema"))
        snprintf(m->problem, sizeof m->problem, "%s", fake_word("schema"));
    for (char *c = m->problem; *c; c++)
        *c = *c == '~' ? '\n' : *c;
    live++;
    return m;
}

EXPORT const char *llg_matcher_get_error(fv_llg_matcher *m);
EXPORT const char *llg_matcher_get_error(fv_llg_matcher *m)
{
    return *m->problem ? m->problem : NULL;
}

/* The tokens that go on with the answer; behind its last byte the end tokens. */
EXPORT int32_t llg_matcher_compute_mask_into(fv_llg_matcher *m, uint32_t *mask, size_t n_bytes);
EXPORT int32_t llg_matcher_compute_mask_into(fv_llg_matcher *m, uint32_t *mask, size_t n_bytes)
{
    const fv_llg_tokenizer *t = m->tokenizer;
    const uint8_t *bytes = t->bytes;
    size_t left = strlen(m->answer + m->at);
    const char *failing = fake_word("mask");
    if (n_bytes != (t->n + 31) / 32 * sizeof *mask)
        fake_violation("a mask of %zu bytes for %u tokens", n_bytes, t->n);
    if (failing && ++m->n_masks == atoi(failing))
        return -1;
    memset(mask, 0, n_bytes);
    for (uint32_t id = 0; id < t->n; bytes += t->lengths[id++]) {
        size_t n = t->lengths[id];
        bool fits = n > 0 && n <= left && !memcmp(bytes, m->answer + m->at, n);
        if (left ? fits : fake_is_end(t, id))
            mask[id / 32] |= (uint32_t)1 << id % 32;
    }
    memcpy(m->mask, mask, n_bytes);
    return 0;
}

EXPORT int32_t llg_matcher_consume_token(fv_llg_matcher *m, uint32_t id);
EXPORT int32_t llg_matcher_consume_token(fv_llg_matcher *m, uint32_t id)
{
    if (id >= m->tokenizer->n || !(m->mask[id / 32] >> id % 32 & 1))
        fake_violation("token %u is not in the mask", id);
    if (fake_is_end(m->tokenizer, id))
        fake_violation("the end token %u is not for the matcher", id);
    m->at += m->tokenizer->lengths[id];
    return 0;
}

EXPORT bool llg_matcher_is_accepting(fv_llg_matcher *m);
EXPORT bool llg_matcher_is_accepting(fv_llg_matcher *m) { return !m->answer[m->at]; }

EXPORT void llg_free_matcher(fv_llg_matcher *m);
EXPORT void llg_free_matcher(fv_llg_matcher *m)
{
    live--;
    free(m->mask);
    free(m);
}
