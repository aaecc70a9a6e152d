/* unicode: the two things the tokenizer needs from Unicode: NFC, and cutting text into words.
 *
 * Categories and compositions are utf8proc's, so both follow one version of Unicode. */
#ifndef FV_UNICODE_H
#define FV_UNICODE_H

#include "base/base.h"

/* True when text (valid UTF-8) is certainly in NFC; false means that it has to be normalised to
 * know. */
bool fv_is_nfc_quick(const char *text, size_t n_bytes);

/* A buffer that grows; zero-initialise, fv_nfc_free when done. */
typedef struct fv_nfc {
    char *text;
    int32_t *chars;
    size_t n_text, text_capacity, chars_capacity;
} fv_nfc;

/* Puts the NFC of valid UTF-8 into nfc->text. Time is n log n at worst. */
fv_status fv_nfc_normalize(fv_nfc *nfc, const char *text, size_t n_bytes, fv_error *err);
void fv_nfc_free(fv_nfc *nfc);

/* Length in bytes of the word that text (valid UTF-8, n_bytes >= 1) begins with: the first match of
 *
 *     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*
 *     |\s*[\r\n]+|\s+(?!\S)|\s+
 *
 * whose alternatives cover every character, so that words follow each other without gaps. text must
 * be the rest of its piece: the lookahead asks whether something follows. */
size_t fv_word_length(const char *text, size_t n_bytes);

#endif
