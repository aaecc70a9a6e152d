/* Commands of Qualcomm's tools, as the reference pipeline calls them: what is said of files that
 * fastvlm cannot make. What runs them is src/qairt. */
#include <stdio.h>
#include <string.h>

#include "handoff/handoff_run.h"

/* A word of a command as a shell reads it back. */
static const char *shell_word(fv_handoff_run *run, const char *word)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "-_./:,=+@%";
    char text[4200];
    size_t n = 0;
    if (*word && strspn(word, safe) == strlen(word))
        return word;
    text[n++] = '\'';
    for (; *word && n + 6 < sizeof text; word++) {
        if (*word == '\'')
            n += (size_t)snprintf(text + n, sizeof text - n, "'\\''");
        else
            text[n++] = *word;
    }
    text[n++] = '\'';
    return fv_handoff_text(&run->state, "%.*s", (int)n, text);
}

/* A file of the handoff in a command: its absolute path. */
static const char *place_word(fv_handoff_run *run, const char *path)
{
    const char *whole = fv_handoff_text(&run->state, "%s/%s", run->place, path);
    return whole ? shell_word(run, whole) : NULL;
}

const char *fv_handoff_upload_command(fv_handoff_run *run, const char *graph)
{
    char file[128];
    snprintf(file, sizeof file, FV_ONNX_FOLDER "/%s.onnx", graph);
    return fv_handoff_text(&run->state, "qai-hub upload-model --model %s --name fastvlm_%s",
                           place_word(run, file), graph);
}

const char *fv_handoff_hub_command(fv_handoff_run *run, const char *graph)
{
    return fv_handoff_text(
        &run->state,
        "qai-hub submit-compile-job --model MODEL_ID --device 'Snapdragon 8 Elite QRD' --device-os "
        "15 --name fastvlm_%s_qnn_context_fp16 --compile_options ' --target_runtime "
        "qnn_context_binary --quantize_full_type float16 --truncate_64bit_io' --wait",
        graph);
}

const char *fv_handoff_converter_command(fv_handoff_run *run)
{
    return fv_handoff_text(
        &run->state,
        "qnn-onnx-converter --input_network %s --input_dim pixel_values 1,3,%d,%d --input_layout "
        "pixel_values NCHW --input_list %s --act_bitwidth 8 --weights_bitwidth 8 --bias_bitwidth 8 "
        "--act_quantizer tf --act_quantizer_calibration min-max --act_quantizer_schema asymmetric "
        "--param_quantizer_calibration min-max --param_quantizer_schema asymmetric "
        "--float_bitwidth 32 --float_bias_bitwidth 32 --out_node image_features -o %s",
        place_word(run, FV_ONNX_FOLDER "/vision_encoder_fp32.onnx"), run->image_size,
        run->image_size, place_word(run, FV_CALIB_FOLDER "/input_list.txt"),
        place_word(run, FV_QNN_FOLDER "/" FV_INT8_NAME));
}

const char *fv_handoff_library_command(fv_handoff_run *run)
{
    return fv_handoff_text(&run->state,
                           "qnn-model-lib-generator -c %s -b %s -t aarch64-android "
                           "x86_64-linux-clang -l " FV_INT8_NAME " -o %s",
                           place_word(run, FV_QNN_FOLDER "/" FV_INT8_NAME ".cpp"),
                           place_word(run, FV_QNN_FOLDER "/" FV_INT8_NAME ".bin"),
                           place_word(run, FV_INT8_FOLDER));
}

const char *fv_handoff_context_command(fv_handoff_run *run)
{
    return fv_handoff_text(
        &run->state,
        "qnn-context-binary-generator --backend libQnnHtp.so --model %s --output_dir %s "
        "--binary_file fastvlm_vision_encoder_int8_htp.bin --config_file htp.json",
        place_word(run, FV_INT8_FOLDER "/x86_64-linux-clang/lib" FV_INT8_NAME ".so"),
        place_word(run, FV_INT8_FOLDER "/output"));
}

const char *fv_handoff_describe_command(fv_handoff_run *run)
{
    return fv_handoff_text(&run->state,
                           "qnn-context-binary-utility --context_binary %s --json_file %s",
                           place_word(run, FV_INT8_BINARY), place_word(run, FV_INT8_INFO));
}

const char *fv_handoff_composer_command(fv_handoff_run *run, size_t decoder)
{
    const char *const *d = fv_handoff_decoders[decoder];
    char path[128];
    snprintf(path, sizeof path, FV_GENIE_FOLDER "/%s", d[0]);
    return fv_handoff_text(&run->state,
                           "qnn-genai-transformer-composer --model %s --config_file %s --outfile "
                           "%s --dump_lut --export_tokenizer_json%s%s",
                           shell_word(run, run->model),
                           place_word(run, FV_GENIE_FOLDER "/genie_model.json"),
                           place_word(run, path), *d[1] ? " --quantize " : "", d[1]);
}
