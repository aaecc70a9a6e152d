/** \file fastvlm_pull.h
 * fastvlm_pull: fetch a released checkpoint from the Hugging Face hub.
 *
 *     fv_pull_options o;  fv_pull *pull;
 *     fv_pull_options_default(&o);
 *     o.repo = "apple/FastVLM-0.5B";
 *     fv_pull_open(&pull, &o, &err);     asks the hub what there is, changes nothing
 *     fv_pull_run(pull, &err);           fetches what is missing, checks every hash
 *     fv_pull_free(pull);
 *
 * A download that is interrupted, cancelled or killed continues where it stopped: call again. A
 * file is NAME.part until its size and hash match those the hub states, and is then renamed.
 * libcurl is loaded when first needed; without it, or in a build without this part, the calls fail
 * with FV_ERR_UNSUPPORTED. Environment variables are not read here: the caller passes endpoint and
 * token. One thread at a time may use an fv_pull. The process should ignore SIGPIPE: a dropped
 * connection may raise it. The conventions of fastvlm.h apply. */
#ifndef FASTVLM_PULL_H
#define FASTVLM_PULL_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fv_pull fv_pull;

/** Strings are copied by fv_pull_open. */
typedef struct fv_pull_options {
    size_t size;
    const char *repo;     /**< "apple/FastVLM-0.5B", or the address of its page; required */
    const char *revision; /**< branch, tag or commit; NULL: "main" */
    const char *dir;      /**< NULL: the last part of repo, in the current directory */
    const char *endpoint; /**< NULL: "https://huggingface.co" */
    /** NULL: none. Sent to the endpoint's host only, never over plain http except to this
     * machine */
    const char *token;
    const char *ca_file;           /**< a PEM file; NULL: the system's certificates */
    int connections;               /**< at once, 1 to 16; 0: 4 */
    int retries;                   /**< of a request, without progress, 1 to 20; 0: 5; -1: none */
    const fv_callbacks *callbacks; /**< asked about ten times a second, see fv_pull_run */
} fv_pull_options;

FV_DEFINE_DEFAULT(fv_pull_options)

/** Asks the hub for the revision's files and looks at what the directory holds. On failure *out is
 *  NULL. Progress stage "hub". */
FV_API fv_status fv_pull_open(fv_pull **out, const fv_pull_options *options, fv_error *err);
FV_API void fv_pull_free(fv_pull *pull);

/** Fetches and checks every file of the plan. After FV_OK the directory holds the checkpoint.
 *  Progress stages "check" (hashing a file that was there already) and "fetch"; a callback may call
 *  fv_pull_describe and fv_pull_file. After FV_ERR_CANCELLED what was fetched is kept for the next
 *  run. */
FV_API fv_status fv_pull_run(fv_pull *pull, fv_error *err);

typedef struct fv_pull_info {
    size_t size;
    const char *repo, *revision, *dir;
    const char *commit;       /**< 40 hexadecimal digits */
    const char *license;      /**< as the model card names it; "" when it does not */
    const char *license_file; /**< among the files; "" when there is none */
    bool gated;               /**< the licence has to be accepted on the hub */
    size_t n_files;
    uint64_t total_bytes;
    uint64_t have_bytes;     /**< of them: in the directory, whole or in part */
    uint64_t received_bytes; /**< by fv_pull_run */
    const char *current;     /**< name of the file being worked on, or "" */
} fv_pull_info;

typedef struct fv_pull_file_info {
    size_t size;
    const char *name;
    uint64_t n_bytes, have_bytes;
    const char *hash; /**< as the hub states it, hexadecimal */
    bool sha256;      /**< else the SHA-1 of the git blob */
} fv_pull_file_info;

/** Does nothing when a pointer is NULL or out->size 0. Strings are borrowed from pull. */
FV_API void fv_pull_describe(const fv_pull *pull, fv_pull_info *out);
/** false when index is past the last one, a pointer is NULL or out->size 0. */
FV_API bool fv_pull_file(const fv_pull *pull, size_t index, fv_pull_file_info *out);

#ifdef __cplusplus
}
#endif
#endif
