/* precision: what the vision encoder and the decoder compute in. One table ties together the public
 * fv_precision, the element type of a matrix, the name, and which part of the model may have it.
 * The name is what users type, what messages say and what a packed file stores under
 * fastvlm.vision.precision and fastvlm.decoder.precision. */
#ifndef FV_PRECISION_H
#define FV_PRECISION_H

#include "base/base.h"
#include "base/types.h"
#include "model/weights.h"

/* The element type of matrices in this precision; stored for FV_PRECISION_AUTO. */
fv_type fv_precision_type(fv_precision precision, fv_type stored);
/* The other way, by name: "z8" of the decoder's Q8_0; "f32" of types that the part cannot have. */
const char *fv_precision_type_name(fv_type type, fv_part part);

/* May the part be packed in it? False for FV_PRECISION_AUTO. */
bool fv_precision_fits(fv_precision precision, fv_part part);
/* May it be computed from a checkpoint directory, without packing? */
bool fv_precision_is_float(fv_precision precision);

/* What a part may be packed in, for messages: "f32, bf16, f16 or int8". */
enum { FV_PRECISION_LIST = 48 };
const char *fv_precision_list(char text[FV_PRECISION_LIST], fv_part part);

/* FV_ERR_ARGUMENT naming the field when it is neither AUTO nor one that the part may have. */
fv_status fv_precision_check(fv_precision precision, const char *field, fv_part part,
                             fv_error *err);

#endif
