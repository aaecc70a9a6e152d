/* qnn_system: what libQnnSystem reads in a context binary, as JSON.
 *
 *     file bytes --libQnnSystem--> fv_qnn_binary_info --here--> JSON --ctx_info--> fv_npu_binary
 *     \______________ in a child process ________________________/      \___ in the parent ___/
 *
 * The JSON has the shape of Qualcomm's qnn-context-binary-utility, so that whatever reads its
 * output (the reference Qualcomm pipeline does, to dequantise) reads ours:
 *
 *     info.contextMetadata.info.dspArch
 *     info.graphs[].info.graphName
 *     info.graphs[].info.graphInputs[].info.{id,name,dimensions,dataType,quantizeParams}
 *     info.graphs[].info.graphOutputs[].info...
 *         quantizeParams.{definition,quantizationEncoding,scaleOffset.{scale,offset}}
 *     info.graphs[].info.graphBlobInfo.info.{spillFillBufferSize,vtcmSize,...}     vtcmSize in MB
 *     info.graphs[].info.graphBlobInfoV2.{ioTensorSize,constSize,sharedWeightsSize,...} */
#ifndef FV_QNN_SYSTEM_H
#define FV_QNN_SYSTEM_H

#include "io/json_write.h"
#include "npu/qnn_find.h"

/* info: any version that we know; FV_ERR_UNSUPPORTED names another. name is for messages. */
fv_status fv_qnn_info_write(fv_json_text *json, const fv_qnn_binary_info *info, uint64_t file_bytes,
                            const char *name, fv_error *err);

/* A file through libQnnSystem of this directory, in a child process: JSON text to fv_free. */
fv_status fv_qnn_system_read(char **json, size_t *n_bytes, const char *file, const char *dir,
                             const fv_callbacks *callbacks, fv_error *err);

#endif
