/* fastvlm device: finds the command and runs it; list, info, pull, clean. */
#include "device.h"
#include "fastvlm_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const verb_entry commands[] = {
    { "list", "list the phones that adb knows", device_list },
    { "info", "show what a phone is and how much room it has", device_info },
    { "push", "send program and model, as far as they have changed", device_push },
    { "run", "answer a question about an image on the phone", device_run },
    { "bench", "time every stage on the phone", device_bench },
    { "pull", "fetch a file from the phone", device_pull },
    { "clean", "end what runs on the phone and remove what was sent", device_clean },
};

int verb_device(int argc, char **argv)
{
    static const verb_group group = {
        .name = "device",
        .what = "command",
        .placeholder = "COMMAND",
        .arguments = "[OPTIONS] ...",
        .about = "A phone at the end of a cable, through your adb: the program and a model are\n"
                 "sent there once, then images and questions.",
        .example = "  fastvlm device list\n  fastvlm device run photo.jpg \"What is this?\"\n",
        .entries = commands,
        .n = sizeof commands / sizeof *commands,
    };
    return run_verb_group(&group, argc, argv);
}

int open_device(fv_device **out, fv_device_options *p, const fv_callbacks *callbacks)
{
    fv_error err;
    const char *serial = getenv("ANDROID_SERIAL");
    p->callbacks = callbacks;
    if (!p->serial && serial && *serial)
        p->serial = serial;
    catch_interrupt();
    fv_status status = fv_device_open(out, p, &err);
    clear_line();
    return status == FV_OK ? -1 : report(&err);
}

/* ---- list -------------------------------------------------------------------------------- */

static int list_json(const fv_device_list *list)
{
    fv_device_entry e = { .size = sizeof e };
    json_t *root = json_array();
    for (size_t i = 0; fv_device_list_entry(list, i, &e); i++) {
        json_t *entry = json_pack("{s:o, s:o, s:o}", "serial", json_text(e.serial), "state",
                                  json_text(e.state), "model", json_text(e.model));
        json_object_set_new(entry, "problem", e.problem ? json_text(e.problem) : json_null());
        json_array_append_new(root, entry);
    }
    bool some = json_array_size(root) > 0;
    int code = print_json(root, 0);
    return some ? code : EXIT_FAILED;
}

static int list_print(const fv_device_list *list)
{
    fv_device_entry e = { .size = sizeof e };
    size_t n = 0;
    for (; fv_device_list_entry(list, n, &e); n++) {
        print_out("%-24s %-14s %s\n", e.serial, e.state, e.model);
        if (e.problem)
            print_out("%-24s %s\n", "", e.problem);
    }
    if (n == 0)
        print_err("fastvlm: adb lists no phone: plug one in whose developer options have USB "
                  "debugging on, and unlock it\n");
    return n ? end_out() : EXIT_FAILED;
}

int device_list(int argc, char **argv)
{
    static const usage use = {
        "device list [OPTIONS]",
        "Lists the phones that adb knows, and what is wrong with those that cannot be used.",
        "  fastvlm device list",
    };
    fv_device_options p = { .size = sizeof p };
    fv_device_list *list;
    fv_error err;
    bool json = false;
    progress_line line = { 0 };
    fv_callbacks callbacks = line_callbacks(&line);

    const option_spec options[] = {
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON array", 0, 0 },
        ADB_OPTION(p),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    p.callbacks = &callbacks;
    catch_interrupt();
    if (fv_device_list_open(&list, &p, &err) != FV_OK)
        return report(&err);
    code = json ? list_json(list) : list_print(list);
    fv_device_list_free(list);
    return code;
}

/* ---- info -------------------------------------------------------------------------------- */

json_t *device_json(const fv_device *device)
{
    fv_device_info i = { .size = sizeof i };
    fv_device_describe(device, &i);
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:I, s:I, s:I, s:I}",
        "serial", json_text(i.serial), "dir", json_text(i.dir), "model", json_text(i.model),
        "maker", json_text(i.maker), "android", json_text(i.android), "api_level", i.api_level,
        "abi", json_text(i.abi), "machine", json_text(i.machine), "soc", json_text(i.soc), "board",
        json_text(i.board), "chip", json_text(i.chip), "product", json_text(i.product),
        "htp_version", (int)i.htp_version, "page_bytes", (json_int_t)i.page_bytes, "memory_bytes",
        (json_int_t)i.memory_bytes, "memory_available_bytes", (json_int_t)i.memory_available_bytes,
        "free_bytes", (json_int_t)i.free_bytes);
}

static int info_print(const fv_device *device)
{
    fv_device_info i = { .size = sizeof i };
    fv_device_describe(device, &i);
    print_out("%-12s %s\n", "phone", i.serial);
    if (*i.model)
        print_out("%-12s %s%s%s\n", "model", i.maker, *i.maker ? " " : "", i.model);
    if (*i.android)
        print_out("%-12s %s (API level %d)\n", "Android", i.android, i.api_level);
    print_out("%-12s %s%s%s, pages of %.0f KB\n", "processor", i.machine, *i.abi ? ", " : "", i.abi,
              (double)i.page_bytes / 1024);
    if (*i.chip)
        print_out("%-12s %s (%s), Hexagon v%u\n", "chip", *i.soc ? i.soc : i.chip, i.product,
                  i.htp_version);
    else
        print_out("%-12s %s, board %s: not one whose NPU is known here (fastvlm npu socs)\n",
                  "chip", *i.soc ? i.soc : "not named", *i.board ? i.board : "not named");
    print_out("%-12s %.1f GB, %.1f GB available\n", "memory", (double)i.memory_bytes / 1e9,
              (double)i.memory_available_bytes / 1e9);
    print_out("%-12s %.1f GB free in %s\n", "storage", (double)i.free_bytes / 1e9, i.dir);
    return end_out();
}

int device_info(int argc, char **argv)
{
    static const usage use = {
        "device info [OPTIONS]",
        "Asks a phone what it is: model, Android, processor, chip and its Hexagon NPU, memory, "
        "free space.",
        "  fastvlm device info",
    };
    fv_device_options p = { .size = sizeof p };
    fv_device *device = NULL;
    bool json = false;
    progress_line line = { 0 };
    fv_callbacks callbacks = line_callbacks(&line);

    const option_spec options[] = {
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        PHONE_OPTIONS(p),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    code = open_device(&device, &p, &callbacks);
    if (code < 0)
        code = json ? print_json(device_json(device), 0) : info_print(device);
    fv_device_close(device);
    return code;
}

/* ---- pull, clean ------------------------------------------------------------------------- */

int device_pull(int argc, char **argv)
{
    static const usage use = {
        "device pull [OPTIONS] FILE",
        "Fetches a file from the phone and compares its SHA-256. FILE is absolute, or in the "
        "phone's directory.",
        "  fastvlm device pull outputs/profile.json -o profile.json",
    };
    fv_device_options p = { .size = sizeof p };
    fv_device *device = NULL;
    fv_error err;
    text_list words;
    const char *output = NULL;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    const option_spec options[] = {
        { 'o', "output", OPTION_TEXT, &output, "FILE",
          "where it goes (default: the same name in the current directory)", 0, 0 },
        PHONE_OPTIONS(p),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1)
        return usage_error(argv[0], "expected one file on the phone, found %zu arguments", words.n);
    const char *slash = strrchr(words.item[0], '/');
    if (!output)
        output = slash ? slash + 1 : words.item[0];
    if (!*output)
        return usage_error(argv[0], "%s: expected a file, not a directory", words.item[0]);
    if (fv_output_check(output, &err) != FV_OK)
        return report(&err);
    code = open_device(&device, &p, &callbacks);
    if (code < 0) {
        fv_status status = fv_device_pull(device, words.item[0], output, &callbacks, &err);
        clear_line();
        code = status == FV_OK ? EXIT_OK : report(&err);
    }
    fv_device_close(device);
    return code;
}

int device_clean(int argc, char **argv)
{
    static const usage use = {
        "device clean [OPTIONS]",
        "Ends what a run has left on the phone and removes everything that was sent there.",
        "  fastvlm device clean",
    };
    fv_device_options p = { .size = sizeof p };
    fv_device *device = NULL;
    fv_error err;
    uint64_t n_bytes = 0;
    progress_line line = { 0 };
    fv_callbacks callbacks = line_callbacks(&line);

    const option_spec options[] = { PHONE_OPTIONS(p) };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    code = open_device(&device, &p, &callbacks);
    if (code < 0) {
        code = fv_device_clean(device, &n_bytes, &err) == FV_OK ? EXIT_OK : report(&err);
        if (code == EXIT_OK)
            print_err("%.1f MB removed from the phone\n", (double)n_bytes / 1e6);
    }
    fv_device_close(device);
    return code;
}
