/* run_output: the folder that a run leaves, the same for the native and for the qairt way.
 *
 *     run_outputs/20261127_221530/
 *         pixel_values.raw                       what the encoder was given
 *         vision_input_list.txt, embed_input_list.txt
 *         input_ids.raw, tokens.json             ids of the text; the embedder's input
 *         vision_out/Result_0/...raw             what the encoder gave, as it gave it
 *         embed_out/Result_0/...raw              what the embedder gave
 *         combined_embeddings_fp32.raw           f32 [rows, d_model]: what the decoder was given
 *         fastvlm_genie_device_config.json       the dialog
 *         answer.txt                             UTF-8, without a newline at its end
 *         profile.json                           see below
 *         run.log                                what was run, and what it said
 *
 * Names are those of the reference Qualcomm pipeline. The native way writes what it has:
 * answer.txt, profile.json, and what its caller asks for. The folder appears when complete. */
#ifndef FV_RUN_OUTPUT_H
#define FV_RUN_OUTPUT_H

#include "base/outfile.h"

/* profile.json has the shape of Genie's own profile, with the values that it calls the same:
 *
 *     metadata.{timestamp,way,runner,soc,vision,decoder}
 *     components[0]: type "dialog", events GenieDialog_create (init-time) and GenieDialog_query
 *         (num-prompt-tokens, prompt-processing-rate, time-to-first-token, num-generated-tokens,
 *         token-generation-rate, token-generation-time)
 *     components[1]: type "pipeline", one event with a duration for each stage that ran: "prepare",
 *         "vision", "embed", "splice", "decode", "total"
 *
 * Durations are in microseconds. What Genie wrote itself is beside it as genie_profile.json. */
typedef struct fv_run_profile {
    const char *way;              /* "native", "qairt" */
    const char *runner;           /* fv_runner's name */
    const char *soc;              /* NULL: none */
    const char *vision, *decoder; /* precisions: "int8", "fp16", "cpu"; "fp32", "int8", "int4" */
    double init_us;               /* opening the decoder; a negative time or rate: not known */
    double first_token_us;        /* from the prompt's start to the first token */
    double generation_us;         /* of the tokens behind it */
    double prompt_rate, generation_rate; /* tokens per second */
    int64_t n_prompt_tokens, n_generated;
    double prepare_ms, vision_ms, embed_ms, splice_ms, decode_ms, total_ms; /* wall clock */
} fv_run_profile;

/* All times and rates not known. */
fv_run_profile fv_run_profile_none(void);
/* A file that genie-t2t-run --profile wrote: init_us to n_generated. Events are chosen by type,
 * never by position. FV_ERR_FORMAT when it has no GenieDialog_query. */
fv_status fv_run_profile_read(fv_run_profile *profile, const char *path, fv_error *err);
/* The same from memory; name is what messages call it. */
fv_status fv_run_profile_parse(fv_run_profile *profile, const void *text, size_t n_bytes,
                               const char *name, fv_error *err);
/* A few lines for a terminal, each ended by a newline, in a block to fv_free; NULL: memory. */
char *fv_run_profile_text(const fv_run_profile *profile);

typedef struct fv_run_folder {
    fv_outdir dir; /* dir.stage is filled, dir.place is where it appears */
} fv_run_folder;

/* A folder under base ("run_outputs"), named by the local time; when there is one of that second
 * already, with "_2" and so on behind it. callbacks may be NULL. */
fv_status fv_run_folder_open(fv_run_folder *out, const char *base, const fv_callbacks *callbacks,
                             fv_error *err);
/* Path of a file to be filled, its folder made ("vision_out/Result_0/x.raw"); to fv_free. */
fv_status fv_run_folder_path(const fv_run_folder *out, const char *name, char **path,
                             fv_error *err);
fv_status fv_run_folder_put(const fv_run_folder *out, const char *name, const void *data,
                            size_t n_bytes, fv_error *err);
/* Writes answer.txt and profile.json; the folder takes its place. *place, which may be NULL: its
 * path, to fv_free. Releases out, also on failure. */
fv_status fv_run_folder_commit(fv_run_folder *out, const char *answer, size_t n_answer_bytes,
                               const fv_run_profile *profile, char **place, fv_error *err);
/* Does nothing after a commit or on zero. */
void fv_run_folder_abandon(fv_run_folder *out);

#endif
