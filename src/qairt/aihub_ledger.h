/* aihub_ledger: the two text files in which the reference Qualcomm pipeline keeps what it has at
 * the AI Hub. What it writes we read, and it reads what we write.
 *
 *     qaihub-model-ids.txt        NAME:MODEL_ID            one upload a line
 *     qaihub-fp16-jobs.txt        device=NAME os=VERSION   of the jobs below, as is
 *                                 compile_options=TEXT
 *                                 NAME: model_id=M job_id=J status=S url=U
 *
 * A name's last line counts. Ours are only ever added, a whole line at a time: the file is written
 * anew beside its place and then takes it, so no crash leaves half a line. In front of what changes
 * something at the service stands a comment that says what is about to happen; as long as no line
 * with the id follows it, the service may have more than we know, and is asked.
 *
 *     # fastvlm upload NAME bytes=N sha256=H at=2026-11-27T21:00:00Z
 *     # fastvlm submit NAME model_id=M at=T
 *     # fastvlm download NAME job_id=J bytes=N sha256=H file=F at=T */
#ifndef FV_AIHUB_LEDGER_H
#define FV_AIHUB_LEDGER_H

#include "base/base.h"

enum { FV_AIHUB_ID = 40, FV_AIHUB_TEXT = 480, FV_AIHUB_HASH = 65, FV_AIHUB_TIME = 24 };

/* "mabc123", "jxyz": letter, then lower-case letters and digits. */
bool fv_aihub_is_id(const char *text, char letter);

typedef struct fv_aihub_ledger {
    char *path;
    char *text; /* with a NUL */
    size_t n_bytes;
} fv_aihub_ledger;

/* A file that is not there is empty. *l is zero on failure. */
fv_status fv_aihub_ledger_open(fv_aihub_ledger *l, const char *dir, const char *name,
                               fv_error *err);
void fv_aihub_ledger_free(fv_aihub_ledger *l);
/* Adds a line to what the file holds by now, and holds it in l. FV_OK: it is on the disk. */
fv_status fv_aihub_ledger_add(fv_aihub_ledger *l, fv_error *err, const char *format, ...)
    FV_PRINTF(3, 4);
/* Does a line of the models' ledger give the name this id? */
bool fv_aihub_ledger_has(const fv_aihub_ledger *l, const char *name, const char *model_id);

/* Now, in UTC: "2026-11-27T21:00:00Z"; and back, in seconds since 1970, -1: not of that form. */
void fv_aihub_time(char text[FV_AIHUB_TIME]);
int64_t fv_aihub_time_read(const char *text);

/* What the models' ledger says of a name. */
typedef struct fv_aihub_model {
    char model_id[FV_AIHUB_ID]; /* "": none */
    char sha256[FV_AIHUB_HASH]; /* of the file that was uploaded; "": not known */
    /* an upload has begun, how it ended is not written down */
    bool pending;
    char pending_sha256[FV_AIHUB_HASH];
    int64_t pending_time; /* seconds since 1970 */
} fv_aihub_model;

/* FV_ERR_FORMAT with the line for one that is neither a comment nor NAME:MODEL_ID. */
fv_status fv_aihub_model_find(fv_aihub_model *out, const fv_aihub_ledger *l, const char *name,
                              fv_error *err);

/* What the jobs' ledger says of a name: its last job. */
typedef struct fv_aihub_job {
    char model_id[FV_AIHUB_ID], job_id[FV_AIHUB_ID]; /* "": none */
    char status[FV_AIHUB_ID];                        /* "SUCCESS", "FAILED", "CREATED" */
    char message[FV_AIHUB_TEXT];                     /* why it failed */
    char url[FV_AIHUB_TEXT];
    char device[FV_AIHUB_TEXT], os[FV_AIHUB_ID], options[FV_AIHUB_TEXT];
    char file[FV_AIHUB_TEXT]; /* what was downloaded: a name without folders; "": nothing */
    uint64_t file_bytes;
    char file_sha256[FV_AIHUB_HASH];
    /* a submission has begun, how it ended is not written down */
    bool pending;
    char pending_model[FV_AIHUB_ID];
    int64_t pending_time;
} fv_aihub_job;

/* Lines of other forms are passed over: the pipeline's own messages may take several. */
void fv_aihub_job_find(fv_aihub_job *out, const fv_aihub_ledger *l, const char *name);
/* Does a line of the jobs' ledger give the name this job? */
bool fv_aihub_ledger_has_job(const fv_aihub_ledger *l, const char *name, const char *job_id);
/* The device and the options that hold at the end of the file; "" when none is named. */
void fv_aihub_job_header(fv_aihub_job *out, const fv_aihub_ledger *l);

#endif
