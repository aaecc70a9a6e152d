/* Decoding in company. See bench_company.h. */
#include "bench_company.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static const char question[] = "Describe the image.";

static double company_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static fv_status question_add(fv_session *s, fv_features *features, fv_error *err)
{
    fv_status status = fv_session_add_features(s, features, err);
    return status == FV_OK ? fv_session_add_text(s, question, strlen(question), err) : status;
}

void company_close(company *c)
{
    fv_session_free(c->asked);
    *c = (company){ 0 };
}

/* Asks, takes a token and asks the same again: the second prompt finds its rows in the cache. */
fv_status company_open(company *c, fv_engine *engine, const fv_image *image,
                       const fv_callbacks *callbacks, fv_error *err)
{
    fv_features *features = NULL;
    fv_piece piece = { .size = sizeof piece };
    fv_encode_options encode = { .size = sizeof encode, .callbacks = callbacks };
    fv_session_options o = { .size = sizeof o, .callbacks = callbacks };
    *c = (company){ .engine = engine, .image = image, .callbacks = callbacks };
    fv_status status = fv_encode(engine, image, &encode, &features, err);
    if (status == FV_OK)
        status = fv_session_new(&c->asked, engine, &o, err);
    if (status == FV_OK)
        status = question_add(c->asked, features, err);
    if (status == FV_OK)
        status = fv_session_next(c->asked, &piece, err);
    if (status == FV_OK) {
        fv_session_reset(c->asked);
        status = question_add(c->asked, features, err);
    }
    fv_features_free(features);
    if (status != FV_OK)
        company_close(c);
    return status;
}

static void sessions_free(fv_session **s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fv_session_free(s[i]);
}

/* n sessions that have taken two tokens: the first runs the rest of the prompt, the second takes
 * the memory that a step with this company needs. */
static fv_status sessions_begin(const company *c, fv_session **s, size_t n, fv_error *err)
{
    fv_answer_options answer = { .size = sizeof answer, .ignore_end = true };
    fv_piece pieces[COMPANY_MOST];
    fv_status status = FV_OK;
    for (size_t i = 0; i < n && status == FV_OK; i++) {
        pieces[i].size = sizeof pieces[i];
        status = fv_session_copy(&s[i], c->asked, err);
        if (status == FV_OK)
            status = fv_session_begin(s[i], &answer, err);
    }
    for (int i = 0; i < 2 && status == FV_OK; i++)
        status = fv_sessions_next(s, n, pieces, NULL, err);
    return status;
}

fv_status company_together(const company *c, size_t n, int n_tokens, double *ms, fv_error *err)
{
    fv_session *s[COMPANY_MOST] = { 0 };
    fv_piece pieces[COMPANY_MOST];
    fv_status status = sessions_begin(c, s, n, err);
    double start = company_now_ms();
    for (size_t i = 0; i < n; i++)
        pieces[i].size = sizeof pieces[i];
    for (int i = 0; i < n_tokens && status == FV_OK; i++)
        status = fv_sessions_next(s, n, pieces, NULL, err);
    *ms = (company_now_ms() - start) / n_tokens;
    sessions_free(s, n);
    return status;
}

typedef struct encoding {
    const company *c;
    atomic_bool begun, stop;
    fv_status status;
    fv_error err;
} encoding;

static bool encoding_progress(void *user, const char *stage, double done)
{
    encoding *e = user;
    (void)stage;
    (void)done;
    atomic_store(&e->begun, true);
    return atomic_load(&e->stop);
}

static void *encoding_run(void *user)
{
    encoding *e = user;
    const fv_callbacks callbacks = { .size = sizeof callbacks,
                                     .progress = encoding_progress,
                                     .user = e };
    const fv_encode_options o = { .size = sizeof o, .callbacks = &callbacks };
    while (!atomic_load(&e->stop) && e->status == FV_OK) {
        fv_features *features = NULL;
        e->status = fv_encode(e->c->engine, e->c->image, &o, &features, &e->err);
        fv_features_free(features);
    }
    atomic_store(&e->begun, true); /* nobody waits for one that failed */
    return NULL;
}

fv_status company_beside(const company *c, int n_tokens, double *ms, fv_error *err)
{
    fv_session *s = NULL;
    fv_piece piece = { .size = sizeof piece };
    encoding e = { .c = c };
    pthread_t thread;
    fv_status status = sessions_begin(c, &s, 1, err);
    if (status == FV_OK && pthread_create(&thread, NULL, encoding_run, &e)) {
        fv_session_free(s);
        *err = (fv_error){ .status = FV_ERR_LIMIT, .message = "cannot start a thread" };
        return FV_ERR_LIMIT;
    }
    if (status != FV_OK) {
        fv_session_free(s);
        return status;
    }
    const struct timespec moment = { .tv_nsec = 100000 };
    while (!atomic_load(&e.begun))
        nanosleep(&moment, NULL);
    double start = company_now_ms();
    for (int i = 0; i < n_tokens && status == FV_OK; i++)
        status = fv_session_next(s, &piece, err);
    *ms = (company_now_ms() - start) / n_tokens;
    atomic_store(&e.stop, true);
    pthread_join(thread, NULL);
    fv_session_free(s);
    if (status == FV_OK && e.status != FV_OK && e.status != FV_ERR_CANCELLED) {
        *err = e.err;
        return e.status;
    }
    return status;
}
