/* device_facts: what a phone says of itself, and which chip of fv_npu_soc it has.
 *
 * One command asks for everything and prints lines of "key=value". What a phone does not say stays
 * empty or 0; a value may be anything. */
#ifndef FV_DEVICE_FACTS_H
#define FV_DEVICE_FACTS_H

#include "device/adb.h"
#include "fastvlm_npu.h"

enum { FV_FACT_BYTES = 96 };

typedef struct fv_device_facts {
    char model[FV_FACT_BYTES];    /* "SM-S938B" */
    char maker[FV_FACT_BYTES];    /* "samsung" */
    char android[FV_FACT_BYTES];  /* "15"; "": not Android */
    int api_level;                /* 35 */
    char abi[FV_FACT_BYTES];      /* "arm64-v8a" */
    char machine[FV_FACT_BYTES];  /* of uname: "aarch64" */
    char soc[FV_FACT_BYTES];      /* as the phone names it: "SM8750P" */
    char platform[FV_FACT_BYTES]; /* of its board: "sun" */
    bool has_chip;                /* the table of fv_npu_soc has it: */
    fv_npu_soc_info chip;
    uint64_t page_bytes, memory_bytes, memory_available_bytes;
    uint64_t free_bytes; /* of the file system that has the directory */
} fv_device_facts;

fv_status fv_device_facts_parse(fv_device_facts *facts, const char *text, size_t n_bytes,
                                fv_error *err);
fv_status fv_device_facts_ask(fv_device_facts *facts, const fv_adb *adb, const char *dir,
                              fv_error *err);

#endif
