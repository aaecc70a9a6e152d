/* The SoCs we compile for. Numbers are Qualcomm's, as its libraries and tools take them; that a
 * binary for soc_model N is marked with htp_version is checked by tools/test-npu.sh. */
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/sized.h"
#include "npu/npu_socs.h"

static const fv_npu_soc_info socs[] = {
    { 0, "SM8550", "Snapdragon 8 Gen 2", 43, 73, 8 },
    { 0, "SM8650", "Snapdragon 8 Gen 3", 57, 75, 8 },
    { 0, "SM8750", "Snapdragon 8 Elite", 69, 79, 8 },
    { 0, "SM8850", "Snapdragon 8 Elite Gen 5", 87, 81, 8 },
};

bool fv_npu_soc(size_t index, fv_npu_soc_info *out)
{
    return index < FV_COUNT(socs) && fv_result_out(out, &socs[index], sizeof socs[index]);
}

fv_status fv_npu_soc_take(fv_npu_soc_info *out, const char *name, fv_error *err)
{
    char list[40 * FV_COUNT(socs)] = "";
    out->size = sizeof *out;
    if (fv_npu_soc_find(name, out))
        return FV_OK;
    for (size_t i = 0; i < FV_COUNT(socs); i++) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s (%s)", i ? ", " : "", socs[i].name,
                 socs[i].product);
    }
    return fv_fail(err, FV_ERR_ARGUMENT, 0, "soc is \"%s\"; expected one of %s", name, list);
}

bool fv_npu_soc_find(const char *name, fv_npu_soc_info *out)
{
    for (size_t i = 0; name && i < FV_COUNT(socs); i++)
        if (fv_ascii_same(name, socs[i].name))
            return fv_npu_soc(i, out);
    return false;
}
