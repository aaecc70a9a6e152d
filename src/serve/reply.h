/* reply: what goes back to a client. An answer is one JSON object, or a stream of them as its
 * tokens come; which dialect it speaks is a table of three functions. */
#ifndef FV_SERVE_REPLY_H
#define FV_SERVE_REPLY_H

#include "grammar/grammar.h"
#include "io/json_write.h"
#include "serve/scheduler.h"
#include "serve/web.h"

typedef struct serve_answer serve_answer;

typedef struct serve_dialect {
    const char *stream_type;
    /* Adds to answer->out: what a piece of a stream is, and what ends it. */
    void (*piece)(serve_answer *a, const serve_piece *piece);
    void (*end)(serve_answer *a);
    /* The whole of a finished answer. */
    void (*whole)(serve_answer *a);
} serve_dialect;

/* An answer being given: the request, the job, and what is on its way to the client. */
struct serve_answer {
    const serve_dialect *dialect;
    fv_request request;
    serve_job job;
    fv_constraint *constraint; /* NULL: text */
    const fv_engine *engine;   /* for the text of tokens */
    const char *model;
    char id[40];
    int64_t created; /* seconds since 1970 */
    bool generate;   /* Ollama's /api/generate */
    fv_json_text out;
    size_t n_taken;          /* of out */
    const serve_piece *last; /* the last that was sent */
    bool begun, over;
};

/* Text of all pieces, in a block to fv_free with a NUL; NULL: memory is out. */
char *serve_answer_text(const serve_answer *a, size_t *n);
void serve_answer_free(serve_answer *a);

/* Now, as RFC 3339 has it, in UTC. */
void serve_put_time(fv_json_text *j, const char *key);
/* Replies with a JSON text and releases it. */
void serve_reply_json(serve_call *call, int status, fv_json_text *j);
/* Reads one piece after the other as the dialect has it; for serve_stream. */
size_t serve_answer_read(void *user, char *to, size_t capacity);

/* An error in OpenAI's words, or Ollama's: {"error": message}. code may be NULL. */
void serve_reply_error(serve_call *call, int status, const char *code, const char *message);
/* A failure as status, code and message of an HTTP answer. */
void serve_reply_failure(serve_call *call, const fv_error *err);

extern const serve_dialect serve_openai;
extern const serve_dialect serve_ollama;

#endif
