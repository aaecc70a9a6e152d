/* How much memory a model takes, asked for while it is open or estimated before. What is not there
 * yet is measured by taking it, unused, and giving it back: the numbers follow the code. */
#include "base/sized.h"
#include "engine/engine.h"
#include "engine/session.h"

/* What this thread has taken since before. */
static uint64_t memory_since(int64_t before)
{
    int64_t bytes = fv_mem_thread_bytes() - before;
    return bytes > 0 ? (uint64_t)bytes : 0;
}

static fv_status memory_of_session(fv_engine *e, int n_context, uint64_t *bytes, fv_error *err)
{
    int64_t before = fv_mem_thread_bytes();
    fv_session *s = NULL;
    FV_TRY(fv_session_new(&s, e, NULL, err));
    fv_status status = fv_kv_reserve(&s->sequence.kv, (size_t)n_context, err);
    if (status == FV_OK)
        status = fv_decoder_reserve(&s->decoder, &s->ops, (size_t)n_context, err);
    *bytes = memory_since(before);
    fv_session_free(s);
    return status;
}

static fv_status memory_of_engine(fv_engine *e, int n_context, fv_memory *m, fv_error *err)
{
    if (n_context < 0 || n_context > e->model.config.max_context)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "n_context is %d; expected 0 to %d, the model's context length", n_context,
                       e->model.config.max_context);
    *m = (fv_memory){ .mapped_bytes = fv_model_mapped_bytes(&e->model),
                      .engine_bytes = (uint64_t)e->own_bytes };
    FV_TRY(fv_encoder_memory(&e->encoder, &m->encoder_bytes, err));
    return memory_of_session(e, n_context ? n_context : e->model.config.max_context,
                             &m->session_bytes, err);
}

fv_status fv_engine_memory(const fv_engine *engine, fv_memory *out, fv_error *err)
{
    fv_memory m;
    FV_REQUIRE(engine, err);
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_memory, err));
    /* a session takes an engine that is not const, and changes nothing in it */
    FV_TRY(memory_of_engine((fv_engine *)(uintptr_t)engine, 0, &m, err));
    fv_result_out(out, &m, sizeof m);
    return FV_OK;
}

fv_status fv_engine_estimate(const char *path, const fv_engine_options *options, int n_context,
                             fv_memory *out, fv_error *err)
{
    fv_engine_options s;
    fv_callbacks callbacks;
    fv_engine *e = NULL;
    fv_memory m;
    fv_opening opening = fv_opening_begin();
    FV_REQUIRE(path, err);
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_memory, err));
    FV_TRY(fv_engine_take_options(&s, &callbacks, options, err));
    s.prefault = s.lock = false;
    FV_TRY(fv_engine_new(&e, path, NULL, FV_MODEL_LAYOUT, &s, opening, err));
    fv_status status = memory_of_engine(e, n_context, &m, err);
    fv_engine_free(e);
    if (status == FV_OK)
        fv_result_out(out, &m, sizeof m);
    return status;
}

/* Features are shared: an image that several sessions hold counts in each. */
static uint64_t memory_of_images(const fv_content *c)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < c->n_images; i++) {
        size_t n_rows = 0, d_model = 0;
        fv_features_rows(c->images[i], &n_rows, &d_model);
        sum += (uint64_t)n_rows * d_model * sizeof(float);
    }
    return sum;
}

fv_status fv_session_memory(const fv_session *session, fv_memory *out, fv_error *err)
{
    FV_REQUIRE(session, err);
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_memory, err));
    const fv_session *s = session;
    const fv_config *c = &s->engine->model.config;
    fv_memory m = { .session_bytes = sizeof *s + s->sequence.kv.data_bytes +
                                     (uint64_t)c->n_vocab * sizeof(float) +
                                     s->decoder.memory_bytes +
                                     (uint64_t)s->ops.n_workers * s->ops.worker_bytes +
                                     s->ops.shared_bytes + memory_of_images(&s->talk) };
    fv_result_out(out, &m, sizeof m);
    return FV_OK;
}
