/* npu: what the commands of fastvlm npu share. */
#ifndef FV_CLI_NPU_H
#define FV_CLI_NPU_H

#include "cli.h"
#include "fastvlm_npu.h"

int npu_info(int argc, char **argv);
int npu_socs(int argc, char **argv);
int npu_setup(int argc, char **argv);
int npu_check(int argc, char **argv);
int npu_compile(int argc, char **argv);
int npu_run(int argc, char **argv);
int npu_eval(int argc, char **argv);

/* The context binaries that a verb's options name. */
typedef struct npu_parts {
    fv_npu *vision;
    fv_npu_lm *decoder;
} npu_parts;
/* -1, or an exit code after saying what is wrong; close_npu_parts in any case. */
int open_npu_parts(npu_parts *out, const model_options *m, const fv_callbacks *callbacks);
void close_npu_parts(npu_parts *p); /* after the sessions */

/* A line for fastvlm doctor: the libraries that would be used, or how to get them. false: there are
 * none that can be used. callbacks: as fv_npu_library_options. */
bool npu_summary(char *text, size_t n_bytes, const fv_callbacks *callbacks);

#define QNN_OPTION(dir)                                                                 \
    {                                                                                   \
        0, "qnn", OPTION_TEXT, &(dir), "DIR",                                           \
            "directory of Qualcomm's libraries, an unpacked wheel or an SDK (default: " \
            "$FV_QNN_DIR, $QNN_SDK_ROOT, then what npu setup fetched)",                 \
            0, 0                                                                        \
    }

#endif
