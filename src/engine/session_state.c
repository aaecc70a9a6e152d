/* A conversation as a value: copies, positions to come back to, bytes.
 *
 * A saved session, numbers as the machine has them (another byte order is another model):
 *
 *     8 bytes            FVSESS, two digits of the version
 *     32 bytes           SHA-256 of what the rows depend on: model, type of the cache
 *     u64 [6]            ids, images, bounds, ids in the cache, exact rows, bytes of all of it
 *     i32 [ids]          the conversation, FV_IMAGE_MARK for an image
 *     u64 [bounds]       ids before each turn
 *     images             u64 rows, f32 [rows, d_model] each
 *     cache              [layer][keys, values][head] rows
 *     32 bytes           SHA-256 of everything before
 */
#include <string.h>

#include "base/sha256.h"
#include "base/sized.h"
#include "engine/session.h"

static const char magic[8] = { 'F', 'V', 'S', 'E', 'S', 'S', '0', '1' };

enum { N_COUNTS = 6, HEAD_BYTES = 8 + FV_SHA256_BYTES + N_COUNTS * 8 };

/* ---- copies and positions ---------------------------------------------------------------- */

static fv_status state_copy(fv_session *to, const fv_session *from, fv_error *err)
{
    FV_TRY(fv_content_append(&to->talk, from->talk.ids.data, from->talk.ids.n, from->talk.images,
                             err));
    FV_TRY(fv_content_append(&to->held, from->held.ids.data, from->held.ids.n, from->held.images,
                             err));
    FV_TRY(fv_turn_copy(&to->turn, &from->turn, err));
    FV_TRY(fv_kv_reserve(&to->sequence.kv, from->held.n_rows, err));
    to->bounds = fv_alloc(from->n_bounds, sizeof *to->bounds);
    if (!to->bounds)
        return fv_fail_memory(err, from->n_bounds * sizeof *to->bounds, "a session");
    if (from->n_bounds)
        memcpy(to->bounds, from->bounds, from->n_bounds * sizeof *to->bounds);
    to->n_bounds = to->bounds_capacity = from->n_bounds;
    fv_kv_copy(&to->sequence.kv, &from->sequence.kv, from->held.n_rows);
    to->phase = from->phase;
    to->turn_start = from->turn_start;
    to->turn_at = from->turn_at;
    to->asked = from->asked;
    to->n_exact = from->n_exact;
    to->foreign = from->foreign;
    to->stats = from->stats;
    return FV_OK;
}

/* Copies and saved sessions hold the cache of keys and values. */
static fv_status cache_check(const fv_session *s, fv_error *err)
{
    return s->other ? fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                              "the session's keys and values are in a neural processor; it can be "
                              "neither copied nor saved nor loaded")
                    : FV_OK;
}

static bool is_answering(const fv_session *s)
{
    return s->phase == FV_PHASE_ANSWERING || s->phase == FV_PHASE_ENDING;
}

static fv_status session_copy(fv_session **out, const fv_session *s, fv_error *err)
{
    fv_session_options o = { .size = sizeof o,
                             .max_context = (int)s->max_context,
                             .n_threads = s->n_threads,
                             .system = s->system,
                             .n_system_bytes = s->n_system,
                             .exact_reuse = s->exact_reuse,
                             .callbacks = &s->callbacks,
                             .tap = s->watch.tap,
                             .tap_user = s->watch.tap_user,
                             .tap_prompt_logits = s->watch.all_logits,
                             .layer = s->clock.fn,
                             .layer_user = s->clock.user };
    fv_session *copy;
    if (is_answering(s))
        return fv_fail(err, FV_ERR_STATE, 0, "an answer is in progress; copy between turns");
    FV_TRY(cache_check(s, err));
    FV_TRY(fv_session_new(&copy, s->engine, &o, err));
    fv_status status = state_copy(copy, s, err);
    if (status != FV_OK) {
        fv_session_free(copy);
        return status;
    }
    *out = copy;
    return FV_OK;
}

fv_status fv_session_copy(fv_session **out, const fv_session *session, fv_error *err)
{
    fv_fpenv caller;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(session, err);
    fv_session *s = (fv_session *)session; /* only marked busy */
    FV_TRY(fv_session_enter(s, &caller, err));
    fv_status status = session_copy(out, s, err);
    fv_session_leave(s, &caller);
    return status;
}

size_t fv_session_position(const fv_session *s) { return s ? s->talk.n_rows : 0; }

static fv_status session_rewind(fv_session *s, size_t position, fv_error *err)
{
    size_t n = s->n_bounds;
    while (n && s->bounds[n - 1].n_rows > position)
        n--;
    bool between = n && s->bounds[n - 1].n_rows == position;
    bool at_end = !is_answering(s) && position == s->talk.n_rows;
    if (!between && !at_end && position != 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "position is %zu; expected one that was taken between turns", position);
    fv_place place = between  ? s->bounds[n - 1]
                     : at_end ? fv_content_end(&s->talk)
                              : (fv_place){ 0 };
    fv_session_settle(s);
    fv_content_cut(&s->talk, place);
    s->n_bounds = n;
    s->turn_at = place;
    if (s->asked.n_ids > place.n_ids)
        s->asked = place;
    s->has_logits = false;
    s->stats = (fv_stats){ .context_used = (int)FV_MIN(s->held.n_rows, place.n_rows) };
    return FV_OK;
}

fv_status fv_session_rewind(fv_session *session, size_t position, fv_error *err)
{
    fv_fpenv caller;
    FV_REQUIRE(session, err);
    FV_TRY(fv_session_enter(session, &caller, err));
    fv_status status = session_rewind(session, position, err);
    fv_session_leave(session, &caller);
    return status;
}

/* ---- what the rows depend on ------------------------------------------------------------- */

static void model_hash(uint8_t digest[FV_SHA256_BYTES], const fv_session *s)
{
    const fv_config *c = &s->engine->model.config;
    const fv_decoder_weights *w = &s->engine->model.weights.decoder;
    size_t d = (size_t)c->d_model;
    int32_t facts[] = { 0x01020304, /* the byte order */
                        c->d_model,
                        c->d_ffn,
                        c->n_layers,
                        c->n_heads,
                        c->n_kv_heads,
                        c->d_head,
                        c->n_vocab,
                        fv_tokenizer_size(s->engine->model.tokenizer),
                        (int32_t)s->engine->model.decoder,
                        (int32_t)s->sequence.kv.type };
    double numbers[] = { c->rope_theta, c->rms_eps };
    fv_sha256 sha;
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, facts, sizeof facts);
    fv_sha256_add(&sha, numbers, sizeof numbers);
    /* of the weights the norms, which differ between models of one shape */
    for (int i = 0; i < c->n_layers; i++) {
        fv_sha256_add(&sha, w->layer[i].norm1, d * sizeof(float));
        fv_sha256_add(&sha, w->layer[i].norm2, d * sizeof(float));
    }
    fv_sha256_add(&sha, w->norm, d * sizeof(float));
    fv_sha256_end(&sha, digest);
}

/* Calls fn for every stretch of n rows in the order of the file. */
typedef fv_status stretch_fn(void *user, uint8_t *rows, size_t n_bytes);

static fv_status cache_walk(const fv_kv_cache *kv, size_t n, stretch_fn *fn, void *user)
{
    for (size_t layer = 0; layer < kv->n_layers && n; layer++)
        for (int part = FV_KV_KEYS; part <= FV_KV_VALUES; part++)
            for (size_t head = 0; head < kv->n_heads; head++)
                FV_TRY(fn(user, fv_kv_rows(kv, layer, (fv_kv_part)part, head), n * kv->row_bytes));
    return FV_OK;
}

static size_t cache_bytes(const fv_kv_cache *kv, size_t n)
{
    return kv->n_layers * 2 * kv->n_heads * n * kv->row_bytes;
}

/* ---- saving ------------------------------------------------------------------------------ */

typedef struct state_writer {
    fv_write_fn *write;
    void *user;
    fv_sha256 sha;
    fv_error *err;
} state_writer;

static fv_status state_put(state_writer *w, const void *data, size_t n_bytes)
{
    if (!n_bytes)
        return FV_OK;
    fv_sha256_add(&w->sha, data, n_bytes);
    fv_status status = w->write(w->user, data, n_bytes);
    return status == FV_OK ? FV_OK
                           : fv_fail(w->err, status, 0, "writing the session failed: %s",
                                     fv_status_name(status));
}

static fv_status state_put_rows(void *user, uint8_t *rows, size_t n_bytes)
{
    return state_put(user, rows, n_bytes);
}

static fv_status state_write(const fv_session *s, state_writer *w)
{
    const fv_content *talk = &s->talk;
    const fv_kv_cache *kv = &s->sequence.kv;
    fv_place held = fv_content_common(talk, &s->held);
    uint8_t digest[FV_SHA256_BYTES];
    uint64_t n_bytes = HEAD_BYTES + talk->ids.n * sizeof(int32_t) + s->n_bounds * 8 +
                       cache_bytes(kv, held.n_rows) + FV_SHA256_BYTES;
    for (size_t i = 0; i < talk->n_images; i++)
        n_bytes += 8 + talk->images[i]->n_rows * talk->images[i]->d_model * sizeof(float);
    const uint64_t counts[N_COUNTS] = {
        talk->ids.n, talk->n_images, s->n_bounds, held.n_ids, FV_MIN(s->n_exact, held.n_rows),
        n_bytes
    };
    fv_sha256_begin(&w->sha);
    FV_TRY(state_put(w, magic, sizeof magic));
    model_hash(digest, s);
    FV_TRY(state_put(w, digest, sizeof digest));
    FV_TRY(state_put(w, counts, sizeof counts));
    FV_TRY(state_put(w, talk->ids.data, talk->ids.n * sizeof(int32_t)));
    for (size_t i = 0; i < s->n_bounds; i++)
        FV_TRY(state_put(w, &(uint64_t){ s->bounds[i].n_ids }, 8));
    for (size_t i = 0; i < talk->n_images; i++) {
        const fv_features *f = talk->images[i];
        FV_TRY(state_put(w, &(uint64_t){ f->n_rows }, 8));
        FV_TRY(state_put(w, f->rows, f->n_rows * f->d_model * sizeof *f->rows));
    }
    FV_TRY(cache_walk(kv, held.n_rows, state_put_rows, w));
    fv_sha256_end(&w->sha, digest);
    fv_status status = w->write(w->user, digest, sizeof digest);
    return status == FV_OK ? FV_OK
                           : fv_fail(w->err, status, 0, "writing the session failed: %s",
                                     fv_status_name(status));
}

static fv_status session_save(const fv_session *s, fv_write_fn *write, void *user, fv_error *err)
{
    state_writer w = { .write = write, .user = user, .err = err };
    if (s->phase != FV_PHASE_IDLE)
        return fv_fail(err, FV_ERR_STATE, 0,
                       "a turn is being written or answered; save between turns");
    FV_TRY(cache_check(s, err));
    return state_write(s, &w);
}

fv_status fv_session_save(const fv_session *session, fv_write_fn *write, void *user, fv_error *err)
{
    fv_fpenv caller;
    FV_REQUIRE(session, err);
    FV_REQUIRE(write, err);
    fv_session *s = (fv_session *)session; /* only marked busy */
    FV_TRY(fv_session_enter(s, &caller, err));
    fv_status status = session_save(s, write, user, err);
    fv_session_leave(s, &caller);
    return status;
}

/* ---- loading ----------------------------------------------------------------------------- */

/* What a file holds, before it becomes the session's. */
typedef struct state {
    fv_content talk, held;
    fv_place *bounds;
    size_t n_bounds, n_exact;
    fv_kv_cache kv;
} state;

typedef struct state_reader {
    const uint8_t *at, *end;
    fv_error *err;
} state_reader;

static fv_status state_bad(const state_reader *r, const char *what)
{
    return fv_fail(r->err, FV_ERR_FORMAT, 0, "a saved session: %s", what);
}

static fv_status state_get(state_reader *r, void *to, uint64_t n_bytes)
{
    if (n_bytes > (uint64_t)(r->end - r->at))
        return state_bad(r, "it is truncated");
    if (n_bytes)
        memcpy(to, r->at, (size_t)n_bytes);
    r->at += n_bytes;
    return FV_OK;
}

static fv_status state_get_rows(void *user, uint8_t *rows, size_t n_bytes)
{
    return state_get(user, rows, n_bytes);
}

/* The images, then the ids that they stand in. */
static fv_status state_read_images(state_reader *r, const fv_session *s, fv_features **images,
                                   size_t n, fv_error *err)
{
    size_t d = (size_t)s->engine->model.config.d_model;
    for (size_t i = 0; i < n; i++) {
        uint64_t n_rows = 0;
        FV_TRY(state_get(r, &n_rows, 8));
        if (n_rows < 1 || n_rows > s->max_context)
            return state_bad(r, "an image has more rows than the context");
        if (n_rows * d * sizeof(float) > (uint64_t)(r->end - r->at))
            return state_bad(r, "it is truncated");
        FV_TRY(fv_features_alloc(&images[i], (size_t)n_rows, d, err));
        FV_TRY(state_get(r, images[i]->rows, n_rows * d * sizeof(float)));
    }
    return FV_OK;
}

static fv_status state_check_ids(const state_reader *r, const fv_session *s, const int32_t *ids,
                                 size_t n, size_t n_images)
{
    size_t marks = 0;
    for (size_t i = 0; i < n; i++) {
        marks += ids[i] == FV_IMAGE_MARK;
        if (ids[i] != FV_IMAGE_MARK && (ids[i] < 0 || ids[i] >= s->engine->model.config.n_vocab))
            return state_bad(r, "a token is outside the vocabulary");
    }
    return marks == n_images ? FV_OK : state_bad(r, "its images do not match its tokens");
}

/* The place behind the first n ids. */
static fv_place place_behind(const fv_content *c, size_t n)
{
    fv_place p = { 0 };
    for (; p.n_ids < n; p.n_ids++)
        p.n_rows += c->ids.data[p.n_ids] == FV_IMAGE_MARK ? c->images[p.n_images++]->n_rows : 1;
    return p;
}

static fv_status state_read_bounds(state *st, state_reader *r, const uint64_t *n_ids)
{
    for (size_t i = 0; i < st->n_bounds; i++) {
        uint64_t n;
        memcpy(&n, n_ids + i, 8);
        if (n > st->talk.ids.n || (i && n <= st->bounds[i - 1].n_ids))
            return state_bad(r, "its turns are not in order");
        st->bounds[i] = place_behind(&st->talk, (size_t)n);
    }
    return FV_OK;
}

/* counts: ids, images, bounds, ids in the cache, exact rows, bytes. */
static fv_status state_read(state *st, state_reader *r, const fv_session *s,
                            const uint64_t counts[N_COUNTS], fv_error *err)
{
    uint64_t left = (uint64_t)(r->end - r->at);
    if (counts[0] > left / 4 || counts[1] > counts[0] || counts[2] > left / 8 ||
        counts[2] > counts[0] + 1 || counts[3] > counts[0])
        return state_bad(r, "its counts do not match its size");
    size_t n_ids = (size_t)counts[0], n_images = (size_t)counts[1];
    fv_status status = FV_OK;
    int32_t *ids = fv_alloc(n_ids, sizeof *ids);
    fv_features **images = fv_alloc_zero(n_images, sizeof *images);
    uint64_t *bounds = fv_alloc((size_t)counts[2], sizeof *bounds);
    st->n_bounds = (size_t)counts[2];
    st->bounds = fv_alloc(st->n_bounds, sizeof *st->bounds);
    if (!ids || !images || !bounds || !st->bounds) {
        status = fv_fail_memory(err, n_ids * sizeof *ids, "a saved session");
        goto fail;
    }
    FV_TRY_GOTO(state_get(r, ids, n_ids * sizeof *ids));
    FV_TRY_GOTO(state_get(r, bounds, st->n_bounds * sizeof *bounds));
    FV_TRY_GOTO(state_check_ids(r, s, ids, n_ids, n_images));
    FV_TRY_GOTO(state_read_images(r, s, images, n_images, err));
    FV_TRY_GOTO(fv_content_append(&st->talk, ids, n_ids, images, err));
    if (st->talk.n_rows > s->max_context) {
        status = fv_fail(err, FV_ERR_LIMIT, 0,
                         "the saved session has %zu tokens; the context holds %zu", st->talk.n_rows,
                         s->max_context);
        goto fail;
    }
    FV_TRY_GOTO(state_read_bounds(st, r, bounds));
    fv_place held = place_behind(&st->talk, (size_t)counts[3]);
    if (counts[4] > held.n_rows ||
        (uint64_t)(r->end - r->at) != cache_bytes(&st->kv, held.n_rows)) {
        status = state_bad(r, "its KV cache does not match its tokens");
        goto fail;
    }
    st->n_exact = (size_t)counts[4];
    FV_TRY_GOTO(fv_content_append(&st->held, ids, held.n_ids, images, err));
    FV_TRY_GOTO(fv_kv_reserve(&st->kv, held.n_rows, err));
    FV_TRY_GOTO(cache_walk(&st->kv, held.n_rows, state_get_rows, r));
    st->kv.n = held.n_rows;
fail:
    for (size_t i = 0; images && i < n_images; i++)
        fv_features_free(images[i]);
    fv_free(images);
    fv_free(ids);
    fv_free(bounds);
    return status;
}

static fv_status state_open(state *st, const fv_session *s, const uint8_t *data, size_t n_bytes,
                            fv_error *err)
{
    state_reader r = { data, data + n_bytes, err };
    char name[sizeof magic];
    uint8_t want[FV_SHA256_BYTES], got[FV_SHA256_BYTES];
    uint64_t counts[N_COUNTS];
    fv_sha256 sha;
    if (n_bytes < HEAD_BYTES + FV_SHA256_BYTES)
        return state_bad(&r, "it is truncated");
    FV_TRY(state_get(&r, name, sizeof name));
    if (memcmp(name, magic, 6))
        return state_bad(&r, "it does not start with FVSESS");
    if (memcmp(name, magic, sizeof magic))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 6,
                       "a saved session of another version; this library reads %.2s", magic + 6);
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, data, n_bytes - FV_SHA256_BYTES);
    fv_sha256_end(&sha, want);
    if (memcmp(want, data + n_bytes - FV_SHA256_BYTES, sizeof want))
        return state_bad(&r, "its SHA-256 does not match its contents");
    FV_TRY(state_get(&r, got, sizeof got));
    model_hash(want, s);
    if (memcmp(want, got, sizeof want))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 8,
                       "the session was saved with another model, precision or type of KV cache");
    FV_TRY(state_get(&r, counts, sizeof counts));
    if (counts[5] != n_bytes)
        return state_bad(&r, "its size is not the one it states");
    r.end -= FV_SHA256_BYTES;
    return state_read(st, &r, s, counts, err);
}

static void state_free(state *st)
{
    fv_content_free(&st->talk);
    fv_content_free(&st->held);
    fv_free(st->bounds);
    fv_kv_free(&st->kv);
}

static fv_status session_load(fv_session *s, const void *data, size_t n_bytes, fv_error *err)
{
    state st = { 0 };
    FV_TRY(cache_check(s, err));
    fv_kv_init(&st.kv, &s->engine->model.config, s->sequence.kv.type);
    fv_status status = state_open(&st, s, data, n_bytes, err);
    if (status != FV_OK) {
        state_free(&st);
        return status;
    }
    fv_session_settle(s);
    fv_content_free(&s->talk);
    fv_content_free(&s->held);
    fv_free(s->bounds);
    fv_kv_free(&s->sequence.kv);
    s->talk = st.talk;
    s->held = st.held;
    s->sequence.kv = st.kv;
    s->bounds = st.bounds;
    s->n_bounds = s->bounds_capacity = st.n_bounds;
    s->n_exact = st.n_exact;
    s->foreign = s->held.n_rows > 0;
    s->asked = fv_content_end(&s->held);
    s->turn_at = fv_content_end(&s->talk);
    s->rules_given = false;
    s->has_logits = false;
    s->stats = (fv_stats){ .context_used = (int)s->held.n_rows };
    return FV_OK;
}

fv_status fv_session_load(fv_session *session, const void *data, size_t n_bytes, fv_error *err)
{
    fv_fpenv caller;
    FV_REQUIRE(session, err);
    FV_REQUIRE(data, err);
    FV_TRY(fv_session_enter(session, &caller, err));
    fv_status status = session_load(session, data, n_bytes, err);
    fv_session_leave(session, &caller);
    return status;
}
