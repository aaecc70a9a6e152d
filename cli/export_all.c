/* fastvlm export --all: every artefact and a manifest. */
#include "export.h"

#include <string.h>

static const usage use = {
    .synopsis = "export --all [OPTIONS] MODEL -o DIR",
    .about = "Writes every artefact into its own directory under DIR, and manifest.json "
             "with the size and SHA-256 of each file and of the model's files. DIR "
             "appears when everything is complete. Without --calib the calibration "
             "samples are noise.",
    .example = "  fastvlm export --all FastVLM-0.5B -o artefacts/ --calib photos/\n"
               "  fastvlm export --all FastVLM-0.5B -o artefacts/ --only genie,gguf",
};

/* "genie,gguf" -> flags; 0: not understood */
static unsigned all_parts_parse(const char *list)
{
    static const struct {
        const char *name;
        unsigned flag;
    } parts[] = { { "onnx", FV_ALL_ONNX },
                  { "npu", FV_ALL_NPU },
                  { "transformers.js", FV_ALL_TRANSFORMERS_JS },
                  { "calib", FV_ALL_CALIB },
                  { "genie", FV_ALL_GENIE },
                  { "gguf", FV_ALL_GGUF },
                  { "hf", FV_ALL_HF } };
    unsigned flags = 0;
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, ",");
        unsigned flag = 0;
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (strlen(parts[i].name) == n && !strncmp(parts[i].name, at, n))
                flag = parts[i].flag;
        if (!flag)
            return 0;
        flags |= flag;
        at += n;
        if (!*at)
            return flags;
    }
}

int export_all(int argc, char **argv)
{
    export_common e = { 0 };
    fv_calib_options c = { .size = sizeof c };
    fv_all_options s = { .size = sizeof s, .calib = &c };
    fv_export_options options;
    fv_error err;
    const char *model, *only = NULL;
    int layout = 0;
    text_list words = { 0 }, pictures = { 0 };
    const option_spec table[] = {
        EXPORT_DIR(e),
        { 0, "only", OPTION_TEXT, &only, "LIST",
          "only these of onnx,npu,transformers.js,calib,genie,gguf,hf", 0, 0 },
        { 0, "calib", OPTION_LIST, &pictures, "DIR",
          "calibration images or directories; may be repeated", 0, 0 },
        { 0, "samples", OPTION_INT, &c.max_samples, "N", "up to N calibration images", 1, 100000 },
        { 0, "layout", OPTION_CHOICE, &layout, "nhwc|nchw", "layout of the samples (default: nhwc)",
          0, 0 },
        { 0, "image-size", OPTION_SIDE, &c.image_size, "N",
          "side of the input in pixels (default: the model's)", 64, 4096 },
    };
    int code = parse_options(argc, argv, &use, table, sizeof table / sizeof *table, &words);
    if (code >= 0)
        return code;
    if (only && !(s.parts = all_parts_parse(only)))
        return usage_error(
            argv[0],
            "--only: expected some of onnx,npu,transformers.js,calib,genie,gguf,hf, found \"%s\"",
            only);
    if ((code = begin_export(argv[0], &e, &words, &model, &options)) >= 0)
        return code;
    c.paths = pictures.item;
    c.n_paths = pictures.n;
    c.layout = (fv_calib_layout)layout;
    return end_export(&e, fv_export_all(model, &s, e.out, &options, &err), &err);
}
