/* An ELF file's header against a phone. See device_program.h.
 *
 *     ELF header   64 bytes: e_machine at 18, e_phoff at 32, e_phentsize at 54, e_phnum at 56
 *     per segment  56 bytes: p_type at 0, p_offset at 8, p_filesz at 32, p_align at 48
 */
#include "device/device_program.h"

#include <string.h>

#include "base/number.h"

enum {
    HEADER_BYTES = 64,
    SEGMENT_BYTES = 56,
    MACHINE_X86_64 = 62,
    MACHINE_AARCH64 = 183,
    SEGMENT_LOAD = 1,
    SEGMENT_INTERPRETER = 3
};

/* Little-endian, of n bytes. */
static uint64_t elf_number(const uint8_t *at, size_t n)
{
    uint64_t value = 0;
    while (n-- > 0)
        value = value << 8 | at[n];
    return value;
}

static const char *elf_machine_name(uint64_t machine)
{
    return machine == MACHINE_AARCH64  ? "64-bit Arm"
           : machine == MACHINE_X86_64 ? "x86-64"
                                       : "another kind of processor";
}

/* The path of the loader that a program asks for; "": it is linked statically. */
static void interpreter_take(char *to, size_t capacity, const uint8_t *data, size_t n_bytes,
                             const uint8_t *segment)
{
    uint64_t offset = elf_number(segment + 8, 8), n = elf_number(segment + 32, 8);
    to[0] = '\0';
    if (offset < n_bytes && n <= n_bytes - offset)
        fv_format(to, capacity, "%.*s", (int)FV_MIN(n, (uint64_t)capacity),
                  (const char *)data + offset);
}

fv_status fv_device_program_check(const uint8_t *data, size_t n_bytes, const char *name,
                                  const fv_device_facts *facts, fv_error *err)
{
    static const uint8_t magic[6] = { 0x7f, 'E', 'L', 'F', 2, 1 };
    char interpreter[96] = "";
    uint64_t align = UINT64_MAX;

    if (n_bytes < HEADER_BYTES || memcmp(data, magic, sizeof magic) != 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: not a 64-bit program; expected fastvlm, built for the phone", name);
    uint64_t machine = elf_number(data + 18, 2), at = elf_number(data + 32, 8);
    uint64_t step = elf_number(data + 54, 2), n = elf_number(data + 56, 2);
    if (step < SEGMENT_BYTES || at > n_bytes || n * step > n_bytes - at)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: its table of segments lies outside the file",
                       name);
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *segment = data + at + i * step;
        uint64_t kind = elf_number(segment, 4);
        if (kind == SEGMENT_INTERPRETER)
            interpreter_take(interpreter, sizeof interpreter, data, n_bytes, segment);
        if (kind == SEGMENT_LOAD)
            align = FV_MIN(align, elf_number(segment + 48, 8));
    }
    bool arm = strcmp(facts->machine, "aarch64") == 0;
    if (machine != (arm ? MACHINE_AARCH64 : MACHINE_X86_64))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: built for %s, the phone is %s", name,
                       elf_machine_name(machine), facts->machine);
    if (facts->android[0] && interpreter[0] && !fv_ascii_begins(interpreter, "/system/"))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: needs the loader %s, which Android does not have; expected a static "
                       "program, or one built for Android",
                       name, interpreter);
    if (facts->page_bytes && align < facts->page_bytes)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: its segments are aligned to %" PRIu64 " bytes, the phone's pages have "
                       "%" PRIu64,
                       name, align, facts->page_bytes);
    return FV_OK;
}
