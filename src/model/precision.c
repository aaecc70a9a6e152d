/* The table of precisions. See precision.h. */
#include "model/precision.h"

#include <stdio.h>
#include <string.h>

static const struct precision {
    const char *name;
    fv_type type;
    bool vision, decoder; /* the projector follows the vision encoder */
} precisions[] = {
    [FV_PRECISION_AUTO] = { "auto", FV_TYPE_COUNT, false, false },
    [FV_PRECISION_F32] = { "f32", FV_TYPE_F32, true, true },
    [FV_PRECISION_BF16] = { "bf16", FV_TYPE_BF16, true, true },
    [FV_PRECISION_F16] = { "f16", FV_TYPE_F16, true, true },
    [FV_PRECISION_Z8] = { "z8", FV_TYPE_Q8_0, false, true },
    [FV_PRECISION_Q4] = { "q4", FV_TYPE_Q4_0, false, true },
    [FV_PRECISION_INT8] = { "int8", FV_TYPE_I8, true, false },
    [FV_PRECISION_W8A8] = { "w8a8", FV_TYPE_I8, false, true },
};

/* ---- the public interface ---- */

const char *fv_precision_name(fv_precision precision)
{
    return (size_t)precision < FV_COUNT(precisions) ? precisions[precision].name : "unknown";
}

bool fv_precision_parse(const char *name, fv_precision *out)
{
    for (size_t i = 0; i < FV_COUNT(precisions); i++) {
        if (!strcmp(name, precisions[i].name)) {
            *out = (fv_precision)i;
            return true;
        }
    }
    return false;
}

/* ---- types ---- */

fv_type fv_precision_type(fv_precision precision, fv_type stored)
{
    return precision == FV_PRECISION_AUTO ? stored : precisions[precision].type;
}

const char *fv_precision_type_name(fv_type type, fv_part part)
{
    for (size_t i = 0; i < FV_COUNT(precisions); i++)
        if (precisions[i].type == type && fv_precision_fits((fv_precision)i, part))
            return precisions[i].name;
    return precisions[FV_PRECISION_F32].name;
}

/* ---- parts ---- */

bool fv_precision_fits(fv_precision precision, fv_part part)
{
    if ((size_t)precision >= FV_COUNT(precisions))
        return false;
    const struct precision *p = &precisions[precision];
    return part == FV_PART_DECODER ? p->decoder : p->vision;
}

bool fv_precision_is_float(fv_precision precision)
{
    return fv_precision_fits(precision, FV_PART_VISION) &&
           fv_precision_fits(precision, FV_PART_DECODER);
}

const char *fv_precision_list(char text[FV_PRECISION_LIST], fv_part part)
{
    size_t last = FV_COUNT(precisions), at = 0;
    while (last > 0 && !fv_precision_fits((fv_precision)(last - 1), part))
        last--;
    for (size_t i = 0; i < last; i++)
        if (fv_precision_fits((fv_precision)i, part))
            at += (size_t)snprintf(text + at, FV_PRECISION_LIST - at, "%s%s",
                                   !at             ? ""
                                   : i + 1 == last ? " or "
                                                   : ", ",
                                   precisions[i].name);
    return text;
}

fv_status fv_precision_check(fv_precision precision, const char *field, fv_part part, fv_error *err)
{
    char list[FV_PRECISION_LIST];
    return precision == FV_PRECISION_AUTO || fv_precision_fits(precision, part)
               ? FV_OK
               : fv_fail(err, FV_ERR_ARGUMENT, 0, "%s is %s; expected auto, %s", field,
                         fv_precision_name(precision), fv_precision_list(list, part));
}
