/* llguidance: where its library is, and opening it.
 *
 *     $FV_LLGUIDANCE                                  the file, given by the user; or
 *     libfastvlm_grammar.so                           beside the program, as built
 *     ../libexec/fastvlm/libfastvlm_grammar.so        from there, as installed */
#ifndef FV_LLGUIDANCE_H
#define FV_LLGUIDANCE_H

#include "base/base.h"
#include "grammar/llguidance_abi.h"

/* Fills *out. It stays open. FV_ERR_IO: there is none, or it cannot be opened; FV_ERR_UNSUPPORTED:
 * it is another version, or another library. */
fv_status fv_llg_open(fv_llg *out, fv_error *err);

#endif
