/** \file fastvlm_npu.h
 * fastvlm_npu: the model for Qualcomm's Hexagon NPU, as QNN context binaries.
 *
 * Qualcomm's libraries are opened when they are needed; none is linked to or comes with fastvlm.
 * Where they are: qnn_dir of the options. They run in a child process, because they write to
 * standard output, cannot be interrupted, and may end the process they are in. On x86-64 libQnnHtp
 * is the compiler and an emulator of the NPU, on a phone it drives the real one. The conventions of
 * fastvlm.h apply. */
#ifndef FASTVLM_NPU_H
#define FASTVLM_NPU_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- compile */

typedef enum fv_npu_precision {
    FV_NPU_W8A16 = 0, /**< weights of 8 bits, a scale per output; activations of 16 */
    FV_NPU_W8A8,      /**< both of 8 bits */
    /** 8 bits in most layers, 16-bit activations where the calibration set says they are needed */
    FV_NPU_MIXED,
    FV_NPU_F16
} fv_npu_precision;

enum { FV_NPU_VISION = 1, FV_NPU_EMBED = 2, FV_NPU_DECODER = 4 };

#ifdef __cplusplus
}
#endif
#endif
