/* What a phone says of itself. See device_facts.h. */
#include "device/device_facts.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/utf8_text.h"
#include "device/shell_text.h"

/* ---------------------------------------------------------------- the answer */

static const struct text_fact {
    const char *key;
    size_t at;
} text_facts[] = {
    { "ro.product.model", offsetof(fv_device_facts, model) },
    { "ro.product.manufacturer", offsetof(fv_device_facts, maker) },
    { "ro.build.version.release", offsetof(fv_device_facts, android) },
    { "ro.product.cpu.abi", offsetof(fv_device_facts, abi) },
    { "ro.soc.model", offsetof(fv_device_facts, soc) },
    { "ro.board.platform", offsetof(fv_device_facts, platform) },
    { "machine", offsetof(fv_device_facts, machine) },
};

/* A number and what stands behind it, "5678 kB". */
static uint64_t fact_number(const char *value)
{
    char *end;
    unsigned long long number = strtoull(value, &end, 10);
    return end == value || *value == '-' ? 0 : (uint64_t)number;
}

/* KiB as bytes; 0 when that is too large to be true. */
static uint64_t fact_kib(const char *value)
{
    uint64_t kib = fact_number(value);
    return kib > UINT64_MAX >> 11 ? 0 : kib << 10;
}

/* "/dev/block/dm-56 115343360 40265318 75078042 35% /data": what is before the percentage. A line
 * that a long name has broken has the numbers all the same. */
static uint64_t df_free_bytes(const char *value)
{
    const char *percent = strchr(value, '%'), *at = percent;
    while (at && at > value && at[-1] != ' ')
        at--;
    while (at && at > value && at[-1] == ' ')
        at--;
    while (at && at > value && at[-1] != ' ')
        at--;
    return at ? fact_kib(at) : 0;
}

static void fact_take(fv_device_facts *f, const char *key, const char *value)
{
    for (size_t i = 0; i < FV_COUNT(text_facts); i++) {
        char *to = (char *)f + text_facts[i].at;
        if (strcmp(key, text_facts[i].key) == 0 && fv_utf8_valid(value, strlen(value), NULL)) {
            size_t n = FV_MIN(strlen(value), (size_t)FV_FACT_BYTES - 1);
            memcpy(to, value, n);
            to[n] = '\0';
        }
    }
    uint64_t number = fact_number(value);
    if (strcmp(key, "ro.build.version.sdk") == 0)
        f->api_level = number > 10000 ? 0 : (int)number;
    else if (strcmp(key, "page") == 0 && number > 0)
        f->page_bytes = number;
    else if (strcmp(key, "MemTotal") == 0)
        f->memory_bytes = fact_kib(value);
    else if (strcmp(key, "MemAvailable") == 0)
        f->memory_available_bytes = fact_kib(value);
    else if (strcmp(key, "df") == 0)
        f->free_bytes = FV_MAX(f->free_bytes, df_free_bytes(value));
}

/* By the name of the chip, whose first six characters count ("SM8750P"), else by the name that
 * Qualcomm gives its board. */
static void chip_find(fv_device_facts *f)
{
    static const char *const boards[][2] = {
        { "kalama", "SM8550" },
        { "pineapple", "SM8650" },
        { "sun", "SM8750" },
        { "canoe", "SM8850" },
    };
    char name[7];

    f->chip.size = sizeof f->chip;
    fv_format(name, sizeof name, "%.6s", f->soc);
    f->has_chip = fv_npu_soc_find(name, &f->chip);
    for (size_t i = 0; i < FV_COUNT(boards) && !f->has_chip && !f->soc[0]; i++)
        if (strcmp(f->platform, boards[i][0]) == 0)
            f->has_chip = fv_npu_soc_find(boards[i][1], &f->chip);
}

fv_status fv_device_facts_parse(fv_device_facts *facts, const char *text, size_t n_bytes,
                                fv_error *err)
{
    char line[512], *value;
    bool whole = false;

    *facts = (fv_device_facts){ 0 };
    while (n_bytes > 0) {
        const char *end = memchr(text, '\n', n_bytes);
        size_t n = end ? (size_t)(end - text) : n_bytes, step = n + (end != NULL);
        if (n > 0 && text[n - 1] == '\r')
            n--;
        n = FV_MIN(n, sizeof line - 1);
        memcpy(line, text, n);
        line[n] = '\0';
        if ((value = strchr(line, '='))) {
            *value++ = '\0';
            value += strspn(value, " \t");
            fact_take(facts, line, value);
        }
        whole = whole || strcmp(line, "end") == 0;
        text += step;
        n_bytes -= step;
    }
    chip_find(facts);
    return whole
               ? FV_OK
               : fv_fail(err, FV_ERR_FORMAT, 0, "the phone's answer about itself is not complete");
}

/* ---------------------------------------------------------------- the question */

fv_status fv_device_facts_ask(fv_device_facts *facts, const fv_adb *adb, const char *dir,
                              fv_error *err)
{
    static const char question[] =
        "for name in ro.product.model ro.product.manufacturer ro.build.version.release "
        "ro.build.version.sdk ro.product.cpu.abi ro.soc.model ro.board.platform; do\n"
        "  echo \"$name=$(getprop $name 2>/dev/null)\"\n"
        "done\n"
        "echo \"machine=$(uname -m)\"\n"
        "sed -nE 's/^KernelPageSize: *([0-9]+) kB/\\1/p' /proc/self/smaps 2>/dev/null | head -n 1 "
        "| "
        "while read kib; do echo \"page=$((kib * 1024))\"; done\n"
        "echo \"page=$(getconf PAGE_SIZE 2>/dev/null)\"\n"
        "sed -nE 's/^(MemTotal|MemAvailable): */\\1=/p' /proc/meminfo\n"
        "at=";
    fv_shell_text text = { 0 };
    char *answer = NULL;

    fv_shell_add(&text, "%s", question);
    fv_shell_quote(&text, dir);
    /* The directory may not be there yet. */
    fv_shell_add(&text,
                 "\nwhile [ ! -d \"$at\" ] && [ \"$at\" != \"${at%%/*}\" ]; do at=${at%%/*}; "
                 "done\ndf -k \"${at:-/}\" | while read line; do echo \"df=$line\"; done\n"
                 "echo end");
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(adb, text.text, "it does not say what it is", &answer, err);
    if (status == FV_OK)
        status = fv_device_facts_parse(facts, answer, strlen(answer), err);
    fv_free(answer);
    fv_shell_text_free(&text);
    return status;
}
