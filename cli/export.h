/* export: the artefacts of `fastvlm export`, one function each; argv[0] is "export NAME". */
#ifndef FV_CLI_EXPORT_H
#define FV_CLI_EXPORT_H

int export_onnx(int argc, char **argv);

#endif
