/* qnn_find: where Qualcomm's libraries are, and opening one so that a failure says what is wrong.
 *
 *     options.qnn_dir          given by the caller
 *     $FV_QNN_DIR              given by the user
 *     $QNN_SDK_ROOT            an SDK: its lib/ for this machine
 *     data directory           what `setup` has made: fastvlm/qnn/VERSION, the newest
 *
 * The first that is set is the one; it may be the directory of the libraries itself, an unpacked
 * wheel (onnxruntime_qnn/ in it) or an SDK. */
#ifndef FV_QNN_FIND_H
#define FV_QNN_FIND_H

#include "base/base.h"
#include "npu/qnn_abi.h"

/* The directory that holds libQnn*.so, in a block to fv_free; *by is who named it, static. dir may
 * be NULL. FV_ERR_IO when nothing names one, or the one named holds no such library. */
fv_status fv_qnn_find(char **out, const char **by, const char *dir, fv_error *err);

/* Where `setup` puts its directories, one a version: $XDG_DATA_HOME/fastvlm/qnn. In a block to
 * fv_free; FV_ERR_IO when neither XDG_DATA_HOME nor HOME is set. */
fv_status fv_qnn_home(char **out, fv_error *err);
/* "2.7.0": three numbers of up to four digits. */
bool fv_qnn_version_parse(const char *text, unsigned version[3]);

/* Whether the first n bytes of a file are those of a shared library for this machine: FV_ERR_FORMAT
 * and FV_ERR_UNSUPPORTED say what they are instead. path is for messages. */
fv_status fv_elf_check(const uint8_t *head, size_t n, const char *path, fv_error *err);

/* An open library. Never closed: the libraries have threads and exit handlers of their own. */
typedef struct fv_qnn_library {
    char path[1024];
    void *handle;
} fv_qnn_library;

/* FV_ERR_IO: absent; a library that it needs is absent (the message says which); FV_ERR_FORMAT,
 * FV_ERR_UNSUPPORTED: not a library for this machine. */
fv_status fv_qnn_library_open(fv_qnn_library *out, const char *dir, const char *name,
                              fv_error *err);
/* Its functions, if it offers the interface that we were written for. */
fv_status fv_qnn_backend_functions(const fv_qnn_provider **out, const fv_qnn_library *library,
                                   fv_error *err);
fv_status fv_qnn_system_functions(const fv_qnn_system **out, const fv_qnn_library *library,
                                  fv_error *err);

#endif
