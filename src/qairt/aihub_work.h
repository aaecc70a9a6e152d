/* aihub_work: what the calls of fastvlm_qairt.h for Qualcomm AI Hub share.
 *
 *     aihub_work.c       options, ledgers and client opened; the account; what the ledgers say
 *     aihub_upload.c     ONNX files -> model ids
 *     aihub_compile.c    model ids -> jobs, and how they are doing
 *     aihub_download.c   jobs -> context binaries
 *     aihub_client.c     the user's client, run; aihub_said.c reads what it prints
 *     aihub_ledger.c     what is at the service, in two text files
 *
 * Whatever changes something at the service goes in three steps: an intent in the ledger, the
 * change, its id in the ledger. After an intent without an id the service is asked what there is
 * before anything is changed again. */
#ifndef FV_AIHUB_WORK_H
#define FV_AIHUB_WORK_H

#include "fastvlm_npu.h"
#include "fastvlm_qairt.h"
#include "qairt/aihub_client.h"
#include "qairt/aihub_ledger.h"

enum {
    FV_AIHUB_QUESTION_S = 300,   /* for a question; the client itself gives up before */
    FV_AIHUB_TRANSFER_S = 86400, /* for an upload or a download */
    FV_AIHUB_CLOCK_S = 600       /* that our clock may be ahead of the service's */
};

typedef struct fv_aihub_name {
    const char *name, *onnx; /* at the service; the file */
} fv_aihub_name;

extern const fv_aihub_name fv_aihub_names[FV_AIHUB_PARTS];

typedef struct fv_aihub {
    fv_aihub_options o; /* directories are never NULL, parts never 0 */
    fv_callbacks callbacks;
    fv_aihub_client client;
    fv_aihub_ledger models, jobs;
    int lock; /* on the ledgers' folder; -1: none */
    fv_npu_soc_info soc;
    const char *device, *os;
    char options[FV_AIHUB_TEXT]; /* of a job, as the client sends them */
} fv_aihub;

/* What a call needs: the ledgers, as they are; also the client, and that no other process works
 * with the ledgers; also a folder for them. */
typedef enum fv_aihub_need { FV_AIHUB_READS, FV_AIHUB_WORKS, FV_AIHUB_BEGINS } fv_aihub_need;

/* On failure *h is zero. */
fv_status fv_aihub_open(fv_aihub *h, const fv_aihub_options *options, fv_aihub_need need,
                        fv_error *err);
void fv_aihub_close(fv_aihub *h);
bool fv_aihub_wants(const fv_aihub *h, int part);
/* Seconds since 1970 from which on the service is asked, as text. */
void fv_aihub_since(char text[24], int64_t time);

/* SHA-256 and size of a file. */
fv_status fv_aihub_hash(const fv_aihub *h, const char *path, char hex[FV_AIHUB_HASH],
                        uint64_t *n_bytes, fv_error *err);
/* "dir/name" for the client, which takes "~" for a home directory and "-" for an option: then with
 * "./" in front. To fv_free; NULL: memory. */
char *fv_aihub_path(const char *dir, const char *name);

/* Asks for the jobs that are not over, and writes down what has changed. *n_over of *n_jobs, those
 * of the parts that are wanted, are over by then, also on failure. transient, which may be NULL: as
 * fv_aihub_ask. */
fv_status fv_aihub_look(fv_aihub *h, size_t *n_over, size_t *n_jobs, bool *transient,
                        fv_error *err);

#endif
