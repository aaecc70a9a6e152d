/* Bytes as a tar shard of a batch: every sample is a question about an image, or says why not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch/tar_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check_sample(const fv_row *row)
{
    if (row->status != FV_OK) {
        if (row->n_parts || !row->problem || !row->problem[0])
            abort();
        return;
    }
    size_t n_images = 0;
    for (size_t i = 0; i < row->n_parts; i++)
        n_images += row->parts[i].kind == FV_ROW_IMAGE && row->parts[i].data;
    if (n_images != 1 || row->n_parts < 2 || !row->id || !row->image || row->image[0] == '/' ||
        strstr(row->image, "/../"))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const fv_row_defaults defaults = { .prompt = "What?", .n_prompt = 5 };
    char path[32];
    bool more = true;
    double share = 0;
    fv_error err = { 0 };
    fv_tar_reader *tar = NULL;
    FILE *f = tmpfile();
    if (!f)
        return 0;
    if (n_bytes)
        fwrite(data, 1, n_bytes, f);
    rewind(f);
    snprintf(path, sizeof path, "/dev/fd/%d", fileno(f));
    if (fv_tar_open(&tar, path, n_bytes, &err) != FV_OK)
        more = false;
    for (uint64_t i = 0; more; i++) {
        fv_row row = { .index = i };
        if (fv_tar_next(tar, &row, &defaults, &more, &share, &err) != FV_OK)
            abort();
        if (more)
            check_sample(&row);
        fv_row_free(&row);
        if (i > n_bytes || share < 0 || share > 1)
            abort();
    }
    fv_tar_close(tar);
    fclose(f);
    return 0;
}
