/* Bytes as the hub's answer: what parses must be a list of plain names with hashes that can be
 * checked, what does not must say why. */
#include <stdlib.h>
#include <string.h>

#include "pull/hub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_hub_listing l;
    fv_error err = { 0 };
    fv_status status = fv_hub_parse(&l, data, n_bytes, "owner/name", &err);
    if (status != FV_OK) {
        if (err.status != status || !err.message[0] || l.files)
            abort();
        return 0;
    }
    if (strlen(l.commit) != 40 || l.n_files == 0 || l.n_files > FV_HUB_MAX_FILES)
        abort();
    for (size_t i = 0; i < l.n_files; i++) {
        const fv_hub_file *f = &l.files[i];
        if (!f->name[0] || f->name[0] == '.' || strpbrk(f->name, "/\\:\n") ||
            strlen(f->hash) != (f->sha256 ? 64 : 40) || f->size > (uint64_t)1 << 50)
            abort();
    }
    fv_hub_free(&l);
    return 0;
}
