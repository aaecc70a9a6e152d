/* What a user can do about a failure. The library names fields and files; options and verbs are the
 * program's, so the program says them. tests/cli/test_hints.sh, tests/hub for those of fastvlm hub
 * and tests/cli/batch_cases.py for those of fastvlm batch provoke every row. */
#include "cli.h"

#include <string.h>

static const struct hint {
    fv_status status;
    const char *about; /* part of the library's message */
    const char *text;
} hints[] = {
    { FV_ERR_UNSUPPORTED, " needs a packed file",
      "make one with fastvlm pack CHECKPOINT -o FILE.gguf" },
    { FV_ERR_UNSUPPORTED, " is packed in ",
      "omit --vision and --decoder, or pack the checkpoint again" },
    { FV_ERR_UNSUPPORTED, ".format_version is ", "pack the checkpoint again with this program" },
    { FV_ERR_UNSUPPORTED, ": general.architecture is ",
      "fastvlm pack makes such a file from a checkpoint directory" },
    { FV_ERR_UNSUPPORTED, ": the encoder is not in int8",
      "make one with fastvlm pack CHECKPOINT -o FILE.gguf --vision int8" },
    { FV_ERR_IO, ": the directory is not empty", "--force replaces files of the same names in it" },
    { FV_ERR_IO, ": there is such a file already", "--force replaces it" },
    { FV_ERR_STATE, ".manifest.json: made with another cpu_level",
      "FV_CPU in the environment chooses a level; --force begins again" },
    { FV_ERR_STATE, ".manifest.json: made with ",
      "--force begins again; -o with another name keeps both" },
    { FV_ERR_STATE, ": the inputs have changed: ", "--force begins again" },
    { FV_ERR_STATE, ": was changed since it was complete: ", "--force answers again" },
    { FV_ERR_STATE, ": rows of a run whose manifest is missing", "--force begins again" },
    { FV_ERR_IO, "no QNN libraries: ",
      "fastvlm npu setup fetches them; FV_QNN_DIR, or --qnn of the npu commands, names a directory "
      "that has them" },
    { FV_ERR_IO, "needs the library libatomic",
      "apt install libatomic1 (Debian, Ubuntu) or dnf install libatomic (Fedora)" },
    { FV_ERR_IO, "expected a Python 3 with pip",
      "apt install python3-pip (Debian, Ubuntu), or name another Python with --python" },
    { FV_ERR_IO, "no QAIRT SDK: ",
      "unpack one here, or name it with --sdk DIR; fastvlm npu compile needs none" },
    { FV_ERR_FORMAT, ": f32 of an image_size of ",
      "--image-size (default: 1024) is the side that encoder and samples were exported with" },
    { FV_ERR_UNSUPPORTED, "which the composer reads",
      "fastvlm export hf makes one of a packed file" },
    { FV_ERR_IO, "expected the AI Hub's client",
      "pip install qai-hub==0.56.0, or name it with --client of hub" },
    { FV_ERR_IO, "expected the API token of a Qualcomm AI Hub account",
      "copy the token from https://workbench.aihub.qualcomm.com/account/, then qai-hub configure "
      "--api_token TOKEN" },
    { FV_ERR_IO, " refuses the API token in ",
      "copy a new one from https://workbench.aihub.qualcomm.com/account/, then qai-hub configure "
      "--api_token TOKEN" },
    { FV_ERR_IO, "expected the Python that runs ", "name it with --python" },
    { FV_ERR_IO, "; expected the ONNX file of ", "fastvlm export onnx --precision f32 writes it" },
    { FV_ERR_STATE, "; expected it uploaded", "fastvlm hub upload does that" },
    { FV_ERR_STATE, "; expected it compiled", "fastvlm hub compile does that" },
    { FV_ERR_STATE, "another process is working with the ledgers",
      "fastvlm hub status --offline shows what they say" },
    { FV_ERR_IO, "; expected SUCCESS", "fastvlm hub status asks how it is doing" },
    { FV_ERR_FORMAT, ".bin: not kept: ", "--force keeps it all the same" },
    { FV_ERR_IO, ", and it differs from what the service gives", "--force replaces it" },
    { FV_ERR_UNSUPPORTED, "expected a decoder compiled unshared",
      "fastvlm npu compile --part decoder --unshared makes one; on the phone take the other" },
    { FV_ERR_IO, "adb: program not found on PATH",
      "apt install adb (Debian, Ubuntu), or install Android's platform-tools; --adb names it" },
    { FV_ERR_IO, " phones, and none is chosen: ", "--serial chooses one, or ANDROID_SERIAL" },
    { FV_ERR_IO, ", and nothing is to be sent", "omit --skip-push and SKIP_PUSH" },
    { FV_ERR_IO, "no SDK is named; the phone's NPU", "name it with --sdk DIR or QNN_SDK_ROOT" },
    { FV_ERR_UNSUPPORTED, "which Android does not have; expected a static program",
      "make arm64 builds one" },
    { FV_ERR_IO, "JSON schemas need llguidance",
      "make builds it where cargo is installed, Rust 1.87 or newer: https://rustup.rs" },
    { FV_ERR_LIMIT, "raise max_pixels", "--max-megapixels sets it" },
};

const char *hint_for(const fv_error *err)
{
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (hints[i].status == err->status && strstr(err->message, hints[i].about))
            return hints[i].text;
    return NULL;
}
