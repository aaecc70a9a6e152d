/* aihub_said: what the AI Hub's client prints, read. Whatever it is: it comes from a service. */
#ifndef FV_AIHUB_SAID_H
#define FV_AIHUB_SAID_H

#include "qairt/aihub_ledger.h"

/* Text for a message on one line: without the boxes that the client draws around its messages,
 * without what follows "?" in an address (a signature that gives access), and with "***" for the
 * secret, which may be NULL. Cut where `to`, of size bytes, is full. */
void fv_aihub_clean(char *to, size_t size, const char *text, size_t n_bytes, const char *secret);

/* One answer of our Python programs, a JSON object on a line; "" and 0 for what it does not say. */
typedef struct fv_aihub_said {
    char model_id[FV_AIHUB_ID], job_id[FV_AIHUB_ID]; /* ids, or "" */
    char status[FV_AIHUB_ID];                        /* A-Z and _ */
    char url[FV_AIHUB_TEXT], device[FV_AIHUB_TEXT], options[FV_AIHUB_TEXT];
    char user[FV_AIHUB_TEXT], version[FV_AIHUB_ID];
    char error[FV_AIHUB_ID];     /* class of the exception that ended the program */
    char message[FV_AIHUB_TEXT]; /* of the exception, or why a job failed; cleaned */
    int64_t time;                /* seconds since 1970 */
} fv_aihub_said;

/* false: not an answer. */
bool fv_aihub_said_read(fv_aihub_said *out, const char *line, size_t n_bytes, const char *secret);

/* `qai-hub upload-model`: "model_id    : mabc123" somewhere in its output. false: another line. */
bool fv_aihub_upload_read(char model_id[FV_AIHUB_ID], const char *line, size_t n_bytes);

/* The exception that ends a Python program, from the lines of its standard error. */
typedef struct fv_aihub_trace {
    bool begun, taking;
    char error[FV_AIHUB_ID]; /* "UserError" */
    char message[FV_AIHUB_TEXT];
} fv_aihub_trace;

void fv_aihub_trace_take(fv_aihub_trace *trace, const char *line, size_t n_bytes,
                         const char *secret);

/* What an exception means for us. */
typedef enum fv_aihub_trouble {
    FV_AIHUB_FINAL = 0,
    FV_AIHUB_TRANSIENT, /* the same again may go well */
    FV_AIHUB_TOKEN,     /* refused */
    FV_AIHUB_CONFIG,    /* the client's configuration is not there or not whole */
    FV_AIHUB_PACKAGE    /* this Python has no qai_hub */
} fv_aihub_trouble;

fv_aihub_trouble fv_aihub_trouble_of(const char *error, const char *message);

/* A value of the client's configuration, section [api]; NULL: it is not there. To fv_free. */
char *fv_aihub_config_value(const char *text, const char *key);

#endif
