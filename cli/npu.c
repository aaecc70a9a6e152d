/* fastvlm npu: finds the command and runs it; info, socs, setup and check. */
#include "npu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const verb_entry commands[] = {
    { "setup", "fetch Qualcomm's libraries with your pip", npu_setup },
    { "check", "show which libraries there are and what they are", npu_check },
    { "compile", "compile a model's vision encoder for a chip", npu_compile },
    { "run", "run a context binary on raw pixels", npu_run },
    { "eval", "compare a context binary with the model in f32", npu_eval },
    { "info", "show what a context binary contains", npu_info },
    { "socs", "list the chips that can be compiled for", npu_socs },
};

int verb_npu(int argc, char **argv)
{
    static const verb_group group = {
        .name = "npu",
        .what = "command",
        .placeholder = "COMMAND",
        .arguments = "[OPTIONS] ...",
        .about = "The model on Qualcomm's Hexagon NPU, as QNN context binaries. Qualcomm's\n"
                 "libraries are not part of fastvlm; npu setup fetches them.",
        .example = "  fastvlm npu setup\n  fastvlm npu info vision.bin\n",
        .entries = commands,
        .n = sizeof commands / sizeof *commands,
    };
    return run_verb_group(&group, argc, argv);
}

/* ---- info -------------------------------------------------------------------------------- */

static void tensor_print(const char *kind, const fv_npu_tensor_info *t)
{
    print_out("  %-10s ", kind);
    print_out("%s", t->name);
    print_out("  %s [", t->type);
    for (unsigned i = 0; i < t->rank; i++)
        print_out("%s%u", i ? ", " : "", t->dims[i]);
    print_out("]");
    if (t->quantized)
        print_out("  scale %.9g, offset %d", t->scale, t->offset);
    print_out("\n");
}

static void graph_print(const fv_npu_binary *binary, size_t index)
{
    fv_npu_graph_info g = { .size = sizeof g };
    fv_npu_tensor_info t = { .size = sizeof t };

    fv_npu_binary_graph(binary, index, &g);
    print_out("graph        ");
    print_out("%s", g.name);
    if (g.has_htp)
        print_out(": optimisation level %u, VTCM %u MB, spill-fill %.1f MB", g.optimization_level,
                  g.vtcm_mb, (double)g.spill_fill_bytes / 1e6);
    if (g.has_sizes)
        print_out(", constants %.1f MB, shared weights %.1f MB", (double)g.constant_bytes / 1e6,
                  (double)g.shared_weight_bytes / 1e6);
    print_out("\n");
    for (size_t i = 0; fv_npu_binary_tensor(binary, index, FV_NPU_INPUT, i, &t); i++)
        tensor_print("in", &t);
    for (size_t i = 0; fv_npu_binary_tensor(binary, index, FV_NPU_OUTPUT, i, &t); i++)
        tensor_print("out", &t);
}

/* "SM8750 (Snapdragon 8 Elite)", or the number of one that the table lacks. */
static void soc_print(unsigned soc_model)
{
    fv_npu_soc_info soc = { .size = sizeof soc };
    for (size_t i = 0; fv_npu_soc(i, &soc); i++)
        if (soc.soc_model == soc_model) {
            print_out("%s (%s)", soc.name, soc.product);
            return;
        }
    print_out(soc_model ? "SoC model %u" : "SoC not named", soc_model);
}

static int binary_print(const fv_npu_binary *binary, const char *file)
{
    fv_npu_binary_info info = { .size = sizeof info };
    fv_npu_binary_describe(binary, &info);
    print_out("%s: QNN context binary, %.1f MB\n", file, (double)info.file_bytes / 1e6);
    print_out("made by      ");
    print_out("%s", info.build);
    print_out(", QNN API %u.%u\nfor          ", info.api_major, info.api_minor);
    soc_print(info.soc_model);
    if (info.htp_version)
        print_out(", HTP v%u", info.htp_version);
    else
        print_out(", backend %u", info.backend);
    print_out("\n");
    for (size_t i = 0; i < info.n_graphs; i++)
        graph_print(binary, i);
    return end_out();
}

int npu_info(int argc, char **argv)
{
    static const usage use = {
        "npu info [OPTIONS] FILE",
        "Shows what a QNN context binary contains, whoever made it: graphs, inputs and outputs "
        "with types and encodings, and the chip it is for. Read with Qualcomm's libQnnSystem, in a "
        "process of its own.",
        "  fastvlm npu info vision_w8a16_sm8750.bin",
    };
    fv_npu_library_options o;
    fv_npu_binary *binary = NULL;
    fv_error err;
    text_list words;
    bool json = false;
    progress_line line = { .enabled = true };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_npu_library_options_default(&o);
    const option_spec options[] = {
        { 0, "json", OPTION_FLAG, &json, NULL,
          "print JSON in the shape of Qualcomm's qnn-context-binary-utility", 0, 0 },
        QNN_OPTION(o.qnn_dir),
    };
    int code = parse_options(argc, argv, &use, options, sizeof options / sizeof *options, &words);
    if (code >= 0)
        return code;
    if (words.n != 1)
        return usage_error(argv[0], "expected one context binary, found %zu arguments", words.n);
    o.callbacks = &callbacks;
    catch_interrupt();
    fv_status status = fv_npu_binary_open(&binary, words.item[0], &o, &err);
    clear_line();
    if (status != FV_OK)
        return report(&err);
    if (json) {
        const char *text = fv_npu_binary_json(binary);
        code = write_out(text, strlen(text)) ? EXIT_OK : end_out();
    } else {
        code = binary_print(binary, words.item[0]);
    }
    fv_npu_binary_free(binary);
    return code;
}

/* ---- socs -------------------------------------------------------------------------------- */

int npu_socs(int argc, char **argv)
{
    static const usage use = { "npu socs [--json]",
                               "Lists the chips that context binaries can be compiled for.",
                               "  fastvlm npu socs" };
    fv_npu_soc_info soc = { .size = sizeof soc };
    text_list words;
    bool json = false;
    const option_spec options[] = {
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON array", 0, 0 },
    };
    int code = parse_options(argc, argv, &use, options, 1, &words);
    if (code >= 0)
        return code;
    if (words.n)
        return usage_error(argv[0], "unexpected argument %s", words.item[0]);
    if (json) {
        json_t *list = json_array();
        for (size_t i = 0; fv_npu_soc(i, &soc); i++)
            json_array_append_new(
                list, json_pack("{s:o, s:o, s:i, s:i, s:i}", "name", json_text(soc.name), "product",
                                json_text(soc.product), "soc_model", (int)soc.soc_model,
                                "htp_version", (int)soc.htp_version, "vtcm_mb", (int)soc.vtcm_mb));
        return print_json(list, 0);
    }
    print_out("%-8s %-26s %9s  %-4s %s\n", "SoC", "product", "soc_model", "HTP", "VTCM");
    for (size_t i = 0; fv_npu_soc(i, &soc); i++)
        print_out("%-8s %-26s %9u  v%-3u %u MB\n", soc.name, soc.product, soc.soc_model,
                  soc.htp_version, soc.vtcm_mb);
    return end_out();
}

/* ---- check ------------------------------------------------------------------------------- */

static void library_print(const char *name, bool usable, const char *found, const char *purpose,
                          const char *problem)
{
    print_out("%-16s %s (%s)\n", name, usable ? found : "cannot be used", purpose);
    if (!usable)
        print_out("%-16s %s\n", "", problem);
}

/* What the user set, or did. */
static const char *named_by(const fv_npu_library_info *i)
{
    if (!i->named_by)
        return "";
    return !strcmp(i->named_by, "qnn_dir") ? "--qnn"
           : !strcmp(i->named_by, "setup") ? "npu setup"
                                           : i->named_by;
}

static int check_print(const fv_npu_library_info *i)
{
    char htp[128];
    snprintf(htp, sizeof htp, "%s, QNN API %u.%u", i->build[0] ? i->build : "present", i->api_major,
             i->api_minor);
    print_out("%-16s %s (named by %s)\n", "directory", i->dir, named_by(i));
    library_print("libQnnHtp.so", i->htp, htp, "compiles, and emulates the NPU", i->htp_problem);
    library_print("libQnnSystem.so", i->system, "present", "reads context binaries",
                  i->system_problem);
    if (i->cpu || !strstr(i->cpu_problem, "no such library"))
        library_print("libQnnCpu.so", i->cpu, "present", "float reference, optional",
                      i->cpu_problem);
    if (strstr(i->system_problem, "libatomic"))
        print_out("%-16s apt install libatomic1 (Debian, Ubuntu), dnf install libatomic (Fedora)\n",
                  "");
    int code = end_out();
    return i->htp && i->system ? code : EXIT_FAILED;
}

static json_t *check_object(const fv_npu_library_info *i)
{
    return json_pack("{s:o, s:s, s:o, s:i, s:i, s:b, s:o, s:b, s:o, s:b, s:o}", "dir",
                     json_text(i->dir), "named_by", named_by(i), "build", json_text(i->build),
                     "api_major", (int)i->api_major, "api_minor", (int)i->api_minor, "htp",
                     (int)i->htp, "htp_problem", json_text(i->htp_problem), "system",
                     (int)i->system, "system_problem", json_text(i->system_problem), "cpu",
                     (int)i->cpu, "cpu_problem", json_text(i->cpu_problem));
}

static int check_json(const fv_npu_library_info *i)
{
    int code = print_json(check_object(i), 0);
    return i->htp && i->system ? code : EXIT_FAILED;
}

/* There are no libraries at all: the same members, and why. */
static int check_json_none(const fv_error *err)
{
    fv_npu_library_info none = { .size = sizeof none };
    json_t *root = check_object(&none);
    json_object_set_new(root, "problem", json_text(err->message));
    print_json(root, 0);
    return EXIT_FAILED;
}

int npu_check(int argc, char **argv)
{
    static const usage use = {
        "npu check [OPTIONS]",
        "Shows which of Qualcomm's libraries there are, opens each and says what it is or why it "
        "cannot be used. Fails when those that compile and read are not usable.",
        "  fastvlm npu check",
    };
    fv_npu_library_options o;
    fv_npu_library_info info = { .size = sizeof info };
    fv_error err;
    bool json = false;

    fv_npu_library_options_default(&o);
    const option_spec options[] = {
        { 0, "json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0 },
        QNN_OPTION(o.qnn_dir),
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    if (fv_npu_check(&info, &o, &err) != FV_OK) {
        code = report(&err);
        return json && code == EXIT_FAILED ? check_json_none(&err) : code;
    }
    return json ? check_json(&info) : check_print(&info);
}

int open_npu_parts(npu_parts *out, const model_options *m, const fv_callbacks *callbacks)
{
    const fv_npu_library_options o = { .size = sizeof o, .callbacks = callbacks };
    fv_error err;
    fv_status status = FV_OK;
    *out = (npu_parts){ 0 };
    if (m->npu_vision)
        status = fv_npu_open(&out->vision, m->npu_vision, &o, &err);
    if (status == FV_OK && m->npu_decoder)
        status = fv_npu_lm_open(&out->decoder, m->npu_decoder, &o, &err);
    clear_line();
    return status == FV_OK ? -1 : report(&err);
}

void close_npu_parts(npu_parts *p)
{
    fv_npu_close(p->vision);
    fv_npu_lm_close(p->decoder);
}

bool npu_summary(char *text, size_t n_bytes, const fv_callbacks *callbacks)
{
    const fv_npu_library_options o = { .size = sizeof o, .callbacks = callbacks };
    fv_npu_library_info i = { .size = sizeof i };
    fv_error err;
    fv_status status = fv_npu_check(&i, &o, &err);
    if (status == FV_ERR_CANCELLED)
        snprintf(text, n_bytes, "%s", err.message);
    else if (status != FV_OK)
        snprintf(text, n_bytes, "no QNN libraries; fastvlm npu setup fetches them");
    else if (!i.htp || !i.system)
        snprintf(text, n_bytes, "the libraries in %s cannot be used; fastvlm npu check says why",
                 i.dir);
    else
        return snprintf(text, n_bytes, "QNN %s in %s", i.build, i.dir) > 0;
    return false;
}

/* ---- setup ------------------------------------------------------------------------------- */

/* Qualcomm's release inside a version of the package; "" for others. */
static const char *release_of(const char *version)
{
    static const char *const releases[][2] = { { "2.3.0", " (QAIRT 2.47.0)" },
                                               { "2.4.0", " (QAIRT 2.48.40)" },
                                               { "2.5.0", " (QAIRT 2.49.40)" },
                                               { "2.6.0", " (QAIRT 2.50.40)" },
                                               { "2.7.0", " (QAIRT 2.51.0)" } };
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++)
        if (!strcmp(version, releases[i][0]))
            return releases[i][1];
    return "";
}

static void notice_print(const fv_npu_setup_report *r)
{
    print_err("onnxruntime-qnn %s%s, about 100 MB from your pip's package index,\n"
              "unpacked into %s, about 260 MB.\n"
              "\n"
              "It contains Qualcomm's QNN libraries. They are Qualcomm's, under the Qualcomm AI\n"
              "Stack License: free of charge, for developing software; not to be redistributed on\n"
              "their own, reverse engineered or taken apart. The full text will be in that\n"
              "directory, onnxruntime_qnn/Qualcomm_LICENSE.pdf. The package around them is under\n"
              "the MIT licence. fastvlm calls the libraries and never passes them on.\n",
              r->version, release_of(r->version), r->dir);
}

static bool accepted(void)
{
    char answer[16] = "";
    print_err("\nFetch and use them under that licence? [y/N] ");
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static int setup_end(const fv_npu_setup_report *r)
{
    fv_npu_library_options o = { .size = sizeof o, .qnn_dir = r->dir };
    fv_npu_library_info info = { .size = sizeof info };
    fv_error err;

    print_out("%s: %s\n", r->dir, r->already ? "already there, nothing fetched" : "complete");
    if (fv_npu_check(&info, &o, &err) != FV_OK)
        return report(&err);
    print_out("licence: %s/Qualcomm_LICENSE.pdf\n", info.dir);
    return check_print(&info);
}

/* The library's lines are pip's. */
static void setup_log(void *user, fv_log_level level, const char *message)
{
    (void)user;
    clear_line();
    print_err(level == FV_LOG_WARNING ? "fastvlm: warning: %s\n" : "pip: %s\n", message);
}

int npu_setup(int argc, char **argv)
{
    static const usage use = {
        "npu setup [OPTIONS]",
        "Fetches Qualcomm's QNN libraries: shows their licence, has your Python's pip download "
        "the package onnxruntime-qnn, and unpacks it. Linux on x86-64 or 64-bit Arm; any Python 3 "
        "with pip. Run again, it says what is there.",
        "  fastvlm npu setup\n  fastvlm npu setup --version 2.3.0 -o qnn-2.3.0 --yes",
    };
    fv_npu_setup_options o;
    fv_npu_setup_report r = { .size = sizeof r };
    fv_error err;
    bool yes = false, quiet = false;
    progress_line line = { 0 };
    fv_callbacks callbacks = line_callbacks(&line);

    fv_npu_setup_options_default(&o);
    const option_spec options[] = {
        { 0, "version", OPTION_TEXT, &o.version, "X.Y.Z", "of the package (default: 2.7.0)", 0, 0 },
        { 'o', "output", OPTION_TEXT, &o.dir, "DIR",
          "directory to write (default: fastvlm/qnn/X.Y.Z in your data directory, where the other "
          "commands find it)",
          0, 0 },
        { 0, "python", OPTION_TEXT, &o.python, "FILE", "Python with pip (default: python3)", 0, 0 },
        { 'y', "yes", OPTION_FLAG, &yes, NULL, "accept the licence without being asked", 0, 0 },
        { 'q', "quiet", OPTION_FLAG, &quiet, NULL, "do not show what pip says", 0, 0 },
    };
    int code = parse_only_options(argc, argv, &use, options, sizeof options / sizeof *options);
    if (code >= 0)
        return code;
    callbacks.log = quiet ? NULL : setup_log;
    o.callbacks = &callbacks;
    catch_interrupt();
    o.only_look = true;
    if (fv_npu_setup(&o, &r, &err) != FV_OK)
        return report(&err);
    if (!r.already) {
        notice_print(&r);
        if (!yes && !is_terminal(STDIN_FILENO))
            return usage_error(argv[0], "the licence is not accepted; --yes accepts it");
        if (!yes && !accepted()) {
            print_err("fastvlm: nothing fetched\n");
            return EXIT_FAILED;
        }
        o.only_look = false;
        if (fv_npu_setup(&o, &r, &err) != FV_OK)
            return report(&err);
    }
    return setup_end(&r);
}
