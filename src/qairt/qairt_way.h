/* qairt_way: an image and a prompt to text by Qualcomm's programs, on whatever runs them.
 *
 *     image    fitted, quantised as the graph's input says          pixel_values.raw
 *     pixels   qnn-net-run on `npu`, dequantised by ctx_info        vision_out/
 *     ids      qnn-net-run on `npu`, or rows of the embedding       input_ids.raw, embed_out/
 *     rows     joined                                               combined_embeddings_fp32.raw
 *     text     genie-t2t-run on `cpu`                               answer.txt, profile.json
 *
 * The reference Qualcomm pipeline does the same with both on the phone (npu == cpu), or decodes on
 * the host. */
#ifndef FV_QAIRT_WAY_H
#define FV_QAIRT_WAY_H

#include "qairt/genie_run.h"

typedef struct fv_qairt_way {
    fv_runner *npu, *cpu;            /* may be the same */
    const fv_sdk *sdk;               /* describes binaries without a ctx_info; NULL: they fail */
    const fv_qairt_run_options *run; /* by the border's rules */
    const fv_qairt_options *options; /* by the border's rules */
} fv_qairt_way;

/* Copies run options in and checks them. */
fv_status fv_qairt_run_options_in(fv_qairt_run_options *to, const fv_qairt_run_options *from,
                                  fv_error *err);

/* report may be NULL. */
fv_status fv_qairt_way_run(const fv_qairt_way *way, const fv_image *image, const char *prompt,
                           size_t n_prompt_bytes, fv_qairt_run_report *report, fv_error *err);

#endif
