/* .npy: "\x93NUMPY", version, header length, a Python dictionary as text, the data. See npy.h. */
#include "io/npy.h"

#include <stdio.h>
#include <string.h>

#include "base/outfile.h"

fv_status fv_npy_write(const char *dir, const char *name, fv_type type, const void *data,
                       const size_t *shape, int n_dims, fv_error *err)
{
    const char *descr = type == FV_TYPE_F32 ? "<f4" : type == FV_TYPE_U8 ? "|u1" : "<i8";
    char header[256] = "\x93NUMPY\x01", text[128];
    size_t n = fv_type_size(type);
    int at = 0;
    for (int i = 0; i < n_dims; i++) {
        n *= shape[i];
        at += snprintf(text + at, sizeof text - (size_t)at, "%zu,%s", shape[i],
                       i + 1 < n_dims ? " " : "");
    }
    int length = snprintf(header + 10, sizeof header - 10,
                          "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, text);
    size_t total = (10 + (size_t)length + 1 + 63) / 64 * 64; /* the data is aligned to 64 */
    memset(header + 10 + length, ' ', total - 10 - (size_t)length);
    header[total - 1] = '\n';
    header[8] = (char)((total - 10) & 255);
    header[9] = (char)((total - 10) >> 8);

    char path[4096];
    fv_outfile f;
    if (snprintf(path, sizeof path, "%s/%s.npy", dir, name) >= (int)sizeof path)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", dir);
    FV_TRY(fv_outfile_open(&f, path, err));
    fv_status status = fv_outfile_write(&f, header, total, err);
    if (status == FV_OK)
        status = fv_outfile_write(&f, data, n, err);
    if (status == FV_OK)
        return fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    return status;
}
