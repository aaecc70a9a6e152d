/* grammar: answers that are JSON as a schema has it, behind the library's token mask.
 *
 *     JSON schema -> llguidance -> before each token, the ids that keep the answer valid
 *
 * For programs: libfastvlm knows no grammars. llguidance is a library of its own that is opened by
 * fv_grammar_open (llguidance.h); fv_answer_options has the two functions that it works through.
 *
 *     fv_grammar_open(&grammar, engine, &err);                       once for an engine
 *     fv_constraint_new(&constraint, grammar, schema, n, &err);      for each answer
 *     fv_constraint_apply(constraint, &answer_options);
 *     fv_session_begin(session, &answer_options, &err);
 *     ... after each token: fv_constraint_check(constraint, &err)
 *
 * The JSON has no blanks between its tokens: a model that could add any number of them often does
 * so until its answer is cut off. */
#ifndef FV_GRAMMAR_H
#define FV_GRAMMAR_H

#include "fastvlm.h"

typedef struct fv_grammar fv_grammar;       /* an engine's tokens; immutable, shared by threads */
typedef struct fv_constraint fv_constraint; /* of one answer; one thread at a time */

/* Whether there is a library that fits: as fv_grammar_open. *version, which may be NULL: its own, a
 * static string. */
fv_status fv_grammar_check(const char **version, fv_error *err);
/* Opens the library; the engine must outlive the grammar. FV_ERR_IO or FV_ERR_UNSUPPORTED when
 * there is no library that fits. On failure *out is NULL. */
fv_status fv_grammar_open(fv_grammar **out, const fv_engine *engine, fv_error *err);
/* After all its constraints. */
void fv_grammar_free(fv_grammar *grammar);

enum { FV_SCHEMA_BYTES = 1 << 20 }; /* a schema's largest size */

/* schema: JSON, an object, n_bytes of UTF-8; only read during the call. FV_ERR_FORMAT when it is
 * not that, FV_ERR_LIMIT when it is too large, FV_ERR_UNSUPPORTED when an answer could not be held
 * to it: nothing in a schema is passed over but what JSON Schema itself passes over. On failure
 * *out is NULL. Wants 1 MiB of stack or more. llguidance bounds the time and memory it takes. */
fv_status fv_constraint_new(fv_constraint **out, const fv_grammar *grammar, const char *schema,
                            size_t n_bytes, fv_error *err);
void fv_constraint_free(fv_constraint *constraint);

/* Sets mask, chosen and mask_user of the answer's options. The constraint must outlive the
 * answer. */
void fv_constraint_apply(fv_constraint *constraint, fv_answer_options *options);

/* FV_ERR_LIMIT when the next tokens could not be computed, because the schema is too complex. Such
 * an answer ends with the next token and is not valid. */
fv_status fv_constraint_check(const fv_constraint *constraint, fv_error *err);
/* Is the answer as it is now valid JSON? False when it was cut off before its end. */
bool fv_constraint_complete(const fv_constraint *constraint);

#endif
