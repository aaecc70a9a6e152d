/* Bytes as what a phone and adb say: the list of phones, facts, the answer about files, a program's
 * head, an answer in pieces. The first byte chooses, the second cuts. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8_text.h"
#include "device/device_program.h"
#include "device/device_push.h"
#include "device/device_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void status_see(fv_status status, const fv_error *err)
{
    if (status != FV_OK && (err->status != status || !err->message[0]))
        abort();
}

static void phones_try(const char *text, size_t n_bytes, fv_error *err)
{
    fv_adb_entries entries = { 0 };
    size_t index;

    fv_status status = fv_adb_entries_parse(&entries, text, n_bytes, err);
    status_see(status, err);
    for (size_t i = 0; i < entries.n; i++)
        if (!entries.list[i].serial[0] || !entries.list[i].state[0] ||
            strlen(entries.list[i].model) >= FV_ADB_NAME)
            abort();
    if (status == FV_OK) {
        status_see(fv_adb_pick(&entries, NULL, &index, err), err);
        status_see(fv_adb_pick(&entries, entries.n ? entries.list[0].serial : "x", &index, err),
                   err);
    }
    fv_adb_entries_free(&entries);
}

static void facts_try(const char *text, size_t n_bytes, fv_error *err)
{
    fv_device_facts facts;
    status_see(fv_device_facts_parse(&facts, text, n_bytes, err), err);
    if (strlen(facts.model) >= FV_FACT_BYTES || facts.api_level < 0)
        abort();
}

static void files_try(const char *text, size_t n_bytes, fv_error *err)
{
    static const char *const names[] = { "bin/fastvlm", "models/a.gguf" };
    fv_push_file files[2] = { { .n_bytes = 7 }, { .n_bytes = 0 } };
    fv_push_set set = { .list = files, .n = 2 };
    bool unsure[2] = { false, false };

    for (size_t i = 0; i < 2; i++) {
        files[i].remote = (char *)(uintptr_t)names[i];
        memset(files[i].sha256, '0', sizeof files[i].sha256 - 1);
    }
    status_see(fv_push_answer_parse(&set, unsure, text, n_bytes, err), err);
    for (size_t i = 0; i < 2; i++)
        if (files[i].there && unsure[i])
            abort();
}

static void program_try(const uint8_t *data, size_t n_bytes, fv_error *err)
{
    const fv_device_facts facts = { .machine = "aarch64", .android = "15", .page_bytes = 4096 };
    status_see(fv_device_program_check(data, n_bytes, "program", &facts, err), err);
}

static void answer_try(const char *text, size_t n_bytes, size_t cut, fv_error *err)
{
    fv_device_stream whole = { 0 }, pieces = { 0 };

    fv_device_stream_add(&whole, text, n_bytes);
    cut = n_bytes ? cut % n_bytes : 0;
    fv_device_stream_add(&pieces, text, cut);
    fv_device_stream_add(&pieces, text + cut, n_bytes - cut);
    if (fv_device_stream_end(&whole, err) == FV_OK && fv_device_stream_end(&pieces, err) == FV_OK &&
        (whole.n != pieces.n || memcmp(whole.kept, pieces.kept, whole.n) != 0 ||
         !fv_utf8_valid(whole.kept, whole.n, NULL)))
        abort();
    fv_device_stream_free(&whole);
    fv_device_stream_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_error err = { 0 };

    if (n_bytes < 2)
        return 0;
    const char *text = (const char *)data + 2;
    switch (data[0] % 5) {
    case 0: phones_try(text, n_bytes - 2, &err); break;
    case 1: facts_try(text, n_bytes - 2, &err); break;
    case 2: files_try(text, n_bytes - 2, &err); break;
    case 3: program_try(data + 2, n_bytes - 2, &err); break;
    default: answer_try(text, n_bytes - 2, data[1], &err); break;
    }
    return 0;
}
