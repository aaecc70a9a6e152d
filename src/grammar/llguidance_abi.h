/* llguidance_abi: what we use of llguidance's C interface, as version 1.9.1 has it.
 *
 * llguidance (MIT) turns a JSON schema into the set of tokens that may come next. Its library is
 * built from tools/llguidance and opened when the first schema comes (llguidance.h), so none of its
 * headers is needed here. Its structs do not say their size: FV_LLG_VERSION must be the version of
 * the library, and is asked for before anything else. */
#ifndef FV_LLGUIDANCE_ABI_H
#define FV_LLGUIDANCE_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FV_LLG_VERSION "1.9.1"

typedef struct fv_llg_tokenizer fv_llg_tokenizer; /* immutable, shared by threads */
typedef struct fv_llg_matcher fv_llg_matcher;     /* one thread at a time */

/* Writes at most capacity ids and returns how many there are; on any thread. */
typedef size_t fv_llg_tokenize_fn(const void *user, const uint8_t *text, size_t n_bytes,
                                  uint32_t *ids, size_t capacity);

typedef struct fv_llg_tokenizer_init {
    size_t struct_size;
    uint32_t vocab_size, end;
    const uint32_t *lengths; /* [vocab_size], of the tokens one after the other in bytes */
    const uint8_t *bytes; /* a control token begins with FV_LLG_CONTROL; without bytes: no token */
    const char *tokenizer_json; /* NULL */
    bool text_only;             /* tokenize takes UTF-8 only */
    fv_llg_tokenize_fn *tokenize;
    bool greedy; /* instead of tokenize */
    const void *user;
    const char *const *slices; /* NULL: the default ones */
    const uint32_t *more_ends;
    uint32_t n_more_ends;
} fv_llg_tokenizer_init;

enum { FV_LLG_CONTROL = 0xff };

typedef struct fv_llg_limits {
    size_t max_items_in_row;
    uint64_t initial_lexer_fuel, step_lexer_fuel;
    size_t step_max_items, max_lexer_states, max_grammar_size;
    bool precompute_large_lexemes, verbose_errors;
} fv_llg_limits;

typedef struct fv_llg_init {
    const fv_llg_tokenizer *tokenizer;
    uint32_t log_buffer_level, log_stderr_level; /* 0: none */
    bool forced_tokens, backtrack;               /* not used by matchers */
    fv_llg_limits limits;
} fv_llg_init;

/* The functions, by their names without "llg_" but for the first, which is ours. */
typedef struct fv_llg {
    const char *(*fastvlm_grammar_version)(void);
    fv_llg_tokenizer *(*new_tokenizer_v2)(const fv_llg_tokenizer_init *init, char *problem,
                                          size_t capacity);
    void (*free_tokenizer)(fv_llg_tokenizer *tokenizer);
    void (*constraint_init_set_defaults)(fv_llg_init *init, const fv_llg_tokenizer *tokenizer);
    /* Never NULL; matcher_get_error says whether it can be used. */
    fv_llg_matcher *(*new_matcher)(const fv_llg_init *init, const char *kind, const char *text);
    const char *(*matcher_get_error)(fv_llg_matcher *matcher); /* NULL: none */
    /* (vocab_size + 31) / 32 words; 0 on success */
    int32_t (*matcher_compute_mask_into)(fv_llg_matcher *matcher, uint32_t *mask, size_t n_bytes);
    int32_t (*matcher_consume_token)(fv_llg_matcher *matcher, uint32_t id);
    bool (*matcher_is_accepting)(fv_llg_matcher *matcher); /* may the answer end here? */
    void (*free_matcher)(fv_llg_matcher *matcher);
} fv_llg;

#endif
