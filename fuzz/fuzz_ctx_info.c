/* Bytes as the description of a context binary: what parses must be consistent and give the same
 * text again, what does not must say why. And as the head of a library. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "npu/ctx_info.h"
#include "npu/qnn_find.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void tensors_see(const fv_npu_binary *b, size_t graph, fv_npu_tensor_kind kind, size_t n)
{
    fv_npu_tensor_info t = { .size = sizeof t };
    for (size_t i = 0; i < n; i++) {
        uint64_t sum = 0;
        if (!fv_npu_binary_tensor(b, graph, kind, i, &t) || !t.name || !t.type || t.rank > 16 ||
            !isfinite(t.scale))
            abort();
        for (unsigned k = 0; k < t.rank; k++)
            sum += t.dims[k];
        if (sum == UINT64_MAX || strlen(t.name) > (size_t)1 << 30)
            abort();
    }
    if (fv_npu_binary_tensor(b, graph, kind, n, &t))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_npu_binary *b;
    fv_npu_binary_info info = { .size = sizeof info };
    fv_npu_graph_info g = { .size = sizeof g };
    fv_error err = { 0 };

    fv_status status = fv_elf_check(data, n_bytes, "library", &err);
    if (status != FV_OK && (err.status != status || !err.message[0]))
        abort();
    char *text = fv_alloc(n_bytes + 1, 1);
    if (!text)
        return 0;
    memcpy(text, data, n_bytes);
    text[n_bytes] = 0;
    err = (fv_error){ 0 };
    status = fv_ctx_info_parse(&b, text, n_bytes, "description", &err);
    if (status != FV_OK) {
        if (b || err.status != status || !err.message[0])
            abort();
        fv_free(text);
        return 0;
    }
    fv_npu_binary_describe(b, &info);
    for (size_t i = 0; i < info.n_graphs; i++) {
        if (!fv_npu_binary_graph(b, i, &g) || !g.name)
            abort();
        tensors_see(b, i, FV_NPU_INPUT, g.n_inputs);
        tensors_see(b, i, FV_NPU_OUTPUT, g.n_outputs);
    }
    if (memcmp(fv_npu_binary_json(b), data, n_bytes) != 0)
        abort();
    fv_npu_binary_free(b);
    return 0;
}
