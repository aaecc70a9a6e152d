/* The public interface in random order, against a model of what each call may return.
 *
 *     test_stress                          seeds from 1 on, 2,000 steps each, for 40 s
 *     test_stress SEED [STEPS [SECONDS]]   one seed, and the next ones while SECONDS are left
 *
 * Sessions of two engines are written to, asked, forced, scored, copied, rewound, saved and loaded;
 * allocations fail, callbacks cancel or call back into their session, arguments are wrong, calls
 * come in the wrong state. The model knows of every session
 *
 *     phase      idle, writing a turn, answering
 *     log        what the conversation was made of, and what each token turned out to be
 *     bounds     positions between turns
 *
 * and says before each call which status must come. A failed call leaves everything as it was, or,
 * where tokens are taken, drops the turn. Now and then a fresh session is given the log: every id,
 * logit, log-probability and byte of text must be the same, whatever went wrong on the way. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/sha256.h"

#define MODEL FV_SOURCE_DIR "/tests/data/variants/base/checkpoint"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

enum {
    N_ENGINES = 2,
    N_SESSIONS = 5,
    N_FEATURES = 3,
    N_BLOBS = 3,
    N_LOG = 512, /* events of a conversation; a longer one is begun anew */
    N_IDS = 24,
    N_TRACE = 40
};

/* ---- chance ------------------------------------------------------------ */

static uint64_t chance_state;

static uint32_t chance(uint32_t n) /* in [0, n) */
{
    chance_state = chance_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(((chance_state >> 32) * n) >> 32);
}

static bool one_in(uint32_t n) { return chance(n) == 0; }

/* ---- what happened, for whoever reads a failure ------------------------------------------- */

static uint64_t seed_now, step_now;
static char trace[N_TRACE][200];

static void note(const char *format, ...) FV_PRINTF(1, 2);
static void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(trace[step_now % N_TRACE], sizeof trace[0], format, args);
    va_end(args);
}

static void broken(const char *format, ...) FV_PRINTF(1, 2);
static void broken(const char *format, ...)
{
    va_list args;
    for (uint64_t i = step_now + 1 > N_TRACE ? step_now + 1 - N_TRACE : 0; i <= step_now; i++)
        fprintf(stderr, "%8" PRIu64 "  %s\n", i, trace[i % N_TRACE]);
    fprintf(stderr, "seed %" PRIu64 ", step %" PRIu64 ": ", seed_now, step_now);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n0 passed, 1 failed\n");
    abort();
}

/* ---- how an answer is chosen ------------------------------------------------------------ */

typedef enum mask_kind { MASK_NONE, MASK_EVEN, MASK_LOOK, MASK_NOTHING } mask_kind;

typedef struct rules {
    float temperature, top_p, min_p, penalty, bias;
    int top_k, max_new, n_logprobs, stop, mask;
    int32_t bias_id;
    uint64_t seed;
    bool given, ignore_end;
} rules;

static const char *const stops[] = { "e", "zzz", "\xc3\xa9", " " };

/* ---- the model of a session ------------------------------------------------------------ */

typedef enum event_kind {
    EVENT_FEATURES,
    EVENT_IMAGE,
    EVENT_TEXT,
    EVENT_IDS,
    EVENT_ANSWER,
    EVENT_NEXT, /* begins with the rules when it is the first of its turn */
    EVENT_FORCE,
    EVENT_SCORE
} event_kind;

typedef struct event {
    event_kind kind;
    int which; /* features, text */
    int n_ids;
    int32_t ids[N_IDS]; /* given, or [0] the one that was chosen */
    bool first;         /* of its turn: the prompt runs here */
    rules rules;
    uint64_t bits; /* of what came out */
} event;

typedef struct bound {
    size_t position;
    int n_log;
} bound;

typedef enum phase { IDLE, WRITING, ANSWERING, ENDING } phase;

typedef struct talk {
    int engine;
    bool exact; /* each of its answers has the bits of a fresh session */
    phase phase;
    size_t position;    /* as the session says */
    size_t least, most; /* rows that the turn being written takes */
    int n_log, n_bounds, turn_log, new_tokens;
    size_t turn_position;
    rules rules; /* for the next answer, or of this one */
    bound bounds[N_LOG];
    event log[N_LOG];
} talk;

typedef struct slot {
    fv_session *s;
    size_t max_context;
    bool exact, tapped;
    talk t;
} slot;

typedef struct blob {
    uint8_t *data;
    size_t n, capacity, max_context;
    talk t;
} blob;

static fv_engine *engines[N_ENGINES];
static fv_features *pool[N_ENGINES][N_FEATURES];
static fv_image *image;
static slot slots[N_SESSIONS];
static blob blobs[N_BLOBS];
static int image_rows, n_vocab[N_ENGINES], d_model;
static fv_error err;

static uint64_t n_calls, n_failed, n_replays, n_tokens, n_by_status[FV_ERR_STATE + 1];

/* ---- bits ------------------------------------------------------------ */

static uint64_t bits_add(uint64_t h, const void *data, size_t n)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t bits_of_piece(const fv_session *s, const fv_piece *p)
{
    size_t n;
    const float *logits = fv_session_logits(s, &n);
    uint64_t h = 0xcbf29ce484222325u;
    h = bits_add(h, &p->id, sizeof p->id);
    h = bits_add(h, p->text, p->n_bytes);
    h = bits_add(h, &p->done, sizeof p->done);
    h = bits_add(h, &p->finish, sizeof p->finish);
    if (p->id >= 0) {
        bool told = !isnan(p->logprob);
        h = bits_add(h, &told, sizeof told);
        if (told)
            h = bits_add(h, &p->logprob, sizeof p->logprob);
        h = bits_add(h, p->top, p->n_top * sizeof *p->top);
        if (!logits)
            broken("a token was chosen, and there are no logits");
        h = bits_add(h, logits, n * sizeof *logits);
    }
    return h;
}

/* ---- trouble ------------------------------------------------------------ */

/* What will go wrong in the next call, by chance. */
typedef struct trouble {
    uint64_t fail_after; /* allocations; UINT64_MAX: none fails */
    int cancel_at;       /* which callback says stop; -1: none */
    bool intrude;        /* callbacks call back */
    bool mask_nothing;
} trouble;

static trouble now;
static int n_heard;
static slot *at_work; /* whose callbacks may come */

static fv_status no_write(void *user, const void *data, size_t n)
{
    (void)user, (void)data, (void)n;
    return FV_OK;
}

/* A call into the session that is at work: refused, and nothing happens. */
static void intrude(fv_session *s)
{
    fv_error e;
    fv_piece p = { .size = sizeof p };
    fv_score score = { .size = sizeof score };
    fv_session *copy = NULL;
    fv_status status = FV_ERR_STATE;
    switch (chance(14)) {
    case 0: status = fv_session_add_text(s, "x", 1, &e); break;
    case 1: status = fv_session_add_image(s, image, NULL, &e); break;
    case 2: status = fv_session_add_tokens(s, (int32_t[]){ 1 }, 1, &e); break;
    case 3: status = fv_session_add_answer(s, "x", 1, &e); break;
    case 4: status = fv_session_begin(s, NULL, &e); break;
    case 5: status = fv_session_next(s, &p, &e); break;
    case 6: status = fv_session_force(s, 1, &e); break;
    case 7: status = fv_session_score(s, "x", 1, &score, &e); break;
    case 8: status = fv_session_copy(&copy, s, &e); break;
    case 9: status = fv_session_rewind(s, 0, &e); break;
    case 10: status = fv_session_save(s, no_write, NULL, &e); break;
    case 11: status = fv_session_load(s, "x", 1, &e); break;
    case 12: fv_session_reset(s); break;
    default: fv_session_free(s);
    }
    if (status != FV_ERR_STATE || copy)
        broken("from inside a callback: %s, expected state", fv_status_name(status));
}

/* True: go on. */
static bool hear(void)
{
    if (now.intrude && at_work && one_in(8))
        intrude(at_work->s);
    return n_heard++ != now.cancel_at;
}

static bool on_progress(void *user, const char *stage, double done)
{
    (void)user, (void)stage;
    if (!(done >= 0 && done <= 1))
        broken("progress of %s is %g", stage, done);
    return !hear();
}

static bool on_tap(void *user, const char *name, const float *x, const size_t *shape, int n_dims)
{
    (void)user, (void)x;
    for (int i = 0; i < n_dims; i++)
        if (!shape[i])
            broken("%s has no values", name);
    return hear();
}

static void on_mask(void *user, uint32_t *mask, size_t n)
{
    const rules *r = user;
    for (size_t i = 0; i < (n + 31) / 32; i++)
        mask[i] &= r->mask == MASK_EVEN ? 0x55555555 : r->mask == MASK_NOTHING ? 0 : UINT32_MAX;
    hear();
}

static void on_chosen(void *user, int32_t id)
{
    (void)user, (void)id;
    hear();
}

static void trouble_choose(void)
{
    now = (trouble){ .fail_after = UINT64_MAX, .cancel_at = -1, .intrude = one_in(6) };
    if (one_in(6))
        now.fail_after = chance(one_in(3) ? 60 : 8);
    if (one_in(5))
        now.cancel_at = (int)chance(30);
    n_heard = 0;
}

static void trouble_begin(slot *of)
{
    at_work = of;
    err = (fv_error){ 0 };
    fv_mem_fail_after(now.fail_after);
}

static void trouble_end(void)
{
    fv_mem_fail_after(UINT64_MAX);
    at_work = NULL;
}

#define WITH_TROUBLE(slot, status, call) \
    do {                                 \
        trouble_begin(slot);             \
        (status) = (call);               \
        trouble_end();                   \
    } while (0)

/* ---- what may come ------------------------------------------------------------ */

enum { EITHER = 1 << 8 }; /* besides `must`: FV_OK or FV_ERR_LIMIT, by how long text turns out */

/* Judges a status: `must` where nothing goes wrong, FV_ERR_MEMORY where an allocation failed,
 * FV_ERR_CANCELLED where a callback said so. */
static void judge(const char *call, fv_status got, int must)
{
    bool memory = now.fail_after != UINT64_MAX && got == FV_ERR_MEMORY;
    bool cancelled = now.cancel_at >= 0 && n_heard > now.cancel_at && got == FV_ERR_CANCELLED;
    bool either = (must & EITHER) && (got == FV_OK || got == FV_ERR_LIMIT);
    n_calls++;
    n_failed += got != FV_OK;
    n_by_status[got]++;
    if ((int)got != (must & 0xff) && !memory && !cancelled && !either)
        broken("%s gave %s (%s), expected %s", call, fv_status_name(got), err.message,
               fv_status_name((fv_status)(must & 0xff)));
    if (got != FV_OK && (err.status != got || !err.message[0]))
        broken("%s gave %s, the error says %s \"%s\"", call, fv_status_name(got),
               fv_status_name(err.status), err.message);
}

/* ---- rules ------------------------------------------------------------ */

static rules rules_choose(void)
{
    rules r = { .given = true, .stop = -1, .seed = chance(1000), .ignore_end = one_in(2) };
    r.max_new = one_in(3) ? 0 : 1 + (int)chance(6);
    if (one_in(2))
        r.temperature = 0.1f * (float)(1 + chance(20));
    if (one_in(4))
        r.top_k = 1 + (int)chance(20);
    if (one_in(4))
        r.top_p = 0.1f * (float)chance(11);
    if (one_in(6))
        r.min_p = 0.1f * (float)chance(11);
    if (one_in(4))
        r.penalty = 1 + 0.1f * (float)chance(10);
    if (one_in(3))
        r.n_logprobs = (int)chance(21);
    if (one_in(4))
        r.stop = (int)chance(FV_COUNT(stops));
    if (one_in(4)) {
        static const float biases[] = { 1, -3, 100, -INFINITY, INFINITY, 3e38f };
        r.bias_id = (int32_t)chance(280);
        r.bias = biases[chance(FV_COUNT(biases))];
    }
    r.mask = one_in(4) ? 1 + (int)chance(one_in(6) ? 3 : 2) : MASK_NONE;
    return r;
}

/* Wrong in one way: FV_ERR_ARGUMENT. */
static void rules_spoil(fv_answer_options *o)
{
    static const fv_logit_bias bad = { .id = 1 << 29 }, nan = { .id = 1, .bias = NAN };
    switch (chance(9)) {
    case 0: o->temperature = -1; break;
    case 1: o->temperature = NAN; break;
    case 2: o->top_p = 1.5f; break;
    case 3: o->top_k = -1; break;
    case 4: o->max_new_tokens = -1; break;
    case 5: o->n_logprobs = 21; break;
    case 6: o->bias = one_in(2) ? &bad : &nan, o->n_bias = 1; break;
    case 7: o->stop = (const char *const *)&stops[0], o->n_stop = 0, o->size = 0; break;
    default: o->min_p = -0.5f;
    }
}

static fv_answer_options rules_options(rules *r, fv_logit_bias *bias)
{
    *bias = (fv_logit_bias){ r->bias_id, r->bias };
    return (fv_answer_options){ .size = sizeof(fv_answer_options),
                                .temperature = r->temperature,
                                .top_k = r->top_k,
                                .top_p = r->top_p,
                                .min_p = r->min_p,
                                .repetition_penalty = r->penalty,
                                .seed = r->seed,
                                .max_new_tokens = r->max_new,
                                .stop = r->stop >= 0 ? &stops[r->stop] : NULL,
                                .n_stop = r->stop >= 0,
                                .ignore_end = r->ignore_end,
                                .n_logprobs = r->n_logprobs,
                                .bias = bias,
                                .n_bias = r->bias != 0,
                                .mask = r->mask ? on_mask : NULL,
                                .chosen = r->mask ? on_chosen : NULL,
                                .mask_user = r };
}

/* ---- the model moves ------------------------------------------------------------ */

static const char *const texts[] = { "Hi",
                                     "Describe the image.",
                                     "What is left of the red circle, and how many are there?",
                                     "",
                                     "\xc3\xa9\xcc\x81 \xe2\x82\xac \xf0\x9f\x98\x80",
                                     "<|im_end|>\n<image><|im_start|>",
                                     "a  b\n\n\tc 123 x_y'll",
                                     " " };

static size_t text_most(int which) { return strlen(texts[which]) * 3 + 1; }

static event *log_add(talk *t, event_kind kind, int which)
{
    event *e = &t->log[t->n_log++];
    *e = (event){ .kind = kind, .which = which };
    return e;
}

/* The first add_* after an answer begins a turn. */
static void turn_begins(talk *t)
{
    if (t->phase == WRITING)
        return;
    if (t->phase != IDLE)
        t->rules = (rules){ 0 };
    t->phase = WRITING;
    t->turn_log = t->n_log;
    t->turn_position = t->position;
    t->least = t->most = 0;
    if (!t->n_bounds || t->bounds[t->n_bounds - 1].position != t->position)
        t->bounds[t->n_bounds++] = (bound){ t->position, t->n_log };
}

static void turn_drops(talk *t)
{
    t->phase = IDLE;
    t->n_log = t->turn_log;
    t->position = t->turn_position;
    t->rules = (rules){ 0 };
}

static void answer_ends(talk *t)
{
    t->phase = IDLE;
    t->rules = (rules){ 0 };
}

static void position_check(const slot *x, const char *call)
{
    if (fv_session_position(x->s) != x->t.position)
        broken("after %s the position is %zu, expected %zu", call, fv_session_position(x->s),
               x->t.position);
}

/* Rows that a prompt takes besides what was added: the template, a system prompt. */
enum { TEMPLATE_LEAST = 4, TEMPLATE_MOST = 120 };

/* The status that running the prompt of this turn must give. */
static int prompt_must(const slot *x, size_t more)
{
    const talk *t = &x->t;
    if (t->position + t->most + more + TEMPLATE_MOST < x->max_context)
        return FV_OK;
    if (t->position + t->least + TEMPLATE_LEAST + 1 > x->max_context)
        return FV_ERR_LIMIT;
    return FV_OK | EITHER;
}

/* ---- again from the start ------------------------------------------------------------ */

static void must_ok(const char *what, fv_status status)
{
    if (status != FV_OK)
        broken("again: %s: %s: %s", what, fv_status_name(status), err.message);
}

static void again_begin(fv_session *s, event *e)
{
    fv_logit_bias bias;
    fv_answer_options o = rules_options(&e->rules, &bias);
    if (e->first && e->rules.given)
        must_ok("begin", fv_session_begin(s, &o, &err));
}

static uint64_t again_one(fv_session *s, int engine, event *e)
{
    fv_piece p = { .size = sizeof p };
    fv_score score = { .size = sizeof score };
    const char *text = texts[e->which % (int)FV_COUNT(texts)];
    switch (e->kind) {
    case EVENT_FEATURES:
        must_ok("features", fv_session_add_features(s, pool[engine][e->which], &err));
        return 0;
    case EVENT_IMAGE: must_ok("image", fv_session_add_image(s, image, NULL, &err)); return 0;
    case EVENT_TEXT: must_ok("text", fv_session_add_text(s, text, strlen(text), &err)); return 0;
    case EVENT_IDS:
        must_ok("tokens", fv_session_add_tokens(s, e->ids, (size_t)e->n_ids, &err));
        return 0;
    case EVENT_ANSWER:
        must_ok("answer", fv_session_add_answer(s, text, strlen(text), &err));
        return 0;
    case EVENT_NEXT:
        again_begin(s, e);
        must_ok("next", fv_session_next(s, &p, &err));
        return bits_of_piece(s, &p);
    case EVENT_FORCE:
        again_begin(s, e);
        must_ok("force", fv_session_force(s, e->ids[0], &err));
        return 0;
    default:
        again_begin(s, e);
        must_ok("score", fv_session_score(s, text, strlen(text), &score, &err));
        return bits_add(bits_add(1, &score.logprob, sizeof score.logprob), &score.n_greedy,
                        sizeof score.n_greedy);
    }
}

/* A fresh session lives through what this one did, without what went wrong. */
static void again(slot *x)
{
    fv_session_options o = { .size = sizeof o,
                             .max_context = (int)x->max_context,
                             .exact_reuse = true,
                             .n_threads = 1 + (int)chance(2) };
    fv_session *s;
    now = (trouble){ .fail_after = UINT64_MAX, .cancel_at = -1 };
    must_ok("a session", fv_session_new(&s, engines[x->t.engine], &o, &err));
    for (int i = 0; i < x->t.n_log; i++) {
        event *e = &x->t.log[i];
        uint64_t bits = again_one(s, x->t.engine, e);
        if (bits != e->bits && x->t.exact)
            broken("event %d of %d (kind %d, first %d): other bits in a fresh session", i,
                   x->t.n_log, (int)e->kind, e->first);
    }
    if (fv_session_position(s) != x->t.position)
        broken("a fresh session's position is %zu, expected %zu", fv_session_position(s),
               x->t.position);
    fv_session_free(s);
    n_replays++;
}

/* ---- making and freeing ------------------------------------------------------------ */

static void slot_open(slot *x)
{
    static const fv_callbacks callbacks = { .size = sizeof callbacks, .progress = on_progress };
    int engine = (int)chance(N_ENGINES);
    *x = (slot){ .exact = !one_in(4), .tapped = one_in(3) };
    x->t.engine = engine;
    x->t.exact = x->exact;
    x->max_context = one_in(3) ? 1024 : 100 + chance(300);
    fv_session_options o = { .size = sizeof o,
                             .max_context = (int)x->max_context,
                             .exact_reuse = x->exact,
                             .n_threads = (int)chance(3),
                             .callbacks = &callbacks,
                             .tap = x->tapped ? on_tap : NULL,
                             .tap_prompt_logits = one_in(2) };
    fv_status status;
    bool bad = one_in(10);
    if (bad)
        o.max_context = one_in(2) ? -1 : 1 << 20;
    note("session_new engine %d context %d exact %d", engine, o.max_context, x->exact);
    WITH_TROUBLE(NULL, status, fv_session_new(&x->s, engines[engine], &o, &err));
    judge("fv_session_new", status, bad ? FV_ERR_ARGUMENT : FV_OK);
    if ((status == FV_OK) != (x->s != NULL))
        broken("fv_session_new gave %s and %p", fv_status_name(status), (void *)x->s);
}

static void slot_close(slot *x)
{
    note("session_free");
    fv_session_free(x->s);
    x->s = NULL;
}

/* ---- calls: writing ------------------------------------------------------------ */

static int add_must(const slot *x, size_t n_rows)
{
    const talk *t = &x->t;
    size_t held = t->position + (t->phase == WRITING ? t->least : 0);
    return n_rows < x->max_context && held + n_rows < x->max_context ? FV_OK : FV_ERR_LIMIT;
}

static void add_done(slot *x, fv_status status, event_kind kind, int which, size_t least,
                     size_t most)
{
    if (status == FV_OK) {
        turn_begins(&x->t);
        log_add(&x->t, kind, which);
        x->t.least += least;
        x->t.most += most;
    }
}

static void call_add_features(slot *x)
{
    int which = (int)chance(N_FEATURES), e = x->t.engine;
    size_t n_rows;
    fv_status status;
    fv_features_rows(pool[e][which], &n_rows, NULL);
    note("add_features %d", which);
    WITH_TROUBLE(x, status, fv_session_add_features(x->s, pool[e][which], &err));
    judge("fv_session_add_features", status, add_must(x, n_rows));
    add_done(x, status, EVENT_FEATURES, which, n_rows, n_rows + 1);
}

static void call_add_image(slot *x)
{
    fv_encode_options o = { .size = sizeof o, .n_threads = (int)chance(3) };
    bool bad = one_in(10);
    fv_status status;
    if (bad)
        o.fit = (fv_fit)9;
    note("add_image%s", bad ? ", bad" : "");
    WITH_TROUBLE(x, status, fv_session_add_image(x->s, image, &o, &err));
    int must = add_must(x, (size_t)image_rows);
    judge("fv_session_add_image", status, must == FV_OK && bad ? FV_ERR_ARGUMENT : must);
    add_done(x, status, EVENT_IMAGE, 0, (size_t)image_rows, (size_t)image_rows + 1);
}

static void call_add_text(slot *x)
{
    int which = (int)chance(FV_COUNT(texts));
    fv_status status;
    if (one_in(12)) {
        note("add_text, not UTF-8");
        WITH_TROUBLE(x, status, fv_session_add_text(x->s, "a\xff", 2, &err));
        /* a full context is seen first */
        judge("fv_session_add_text", status,
              add_must(x, 1) == FV_OK  ? FV_ERR_FORMAT
              : status == FV_ERR_LIMIT ? FV_ERR_LIMIT
                                       : FV_ERR_FORMAT);
        return;
    }
    note("add_text %d", which);
    WITH_TROUBLE(x, status, fv_session_add_text(x->s, texts[which], strlen(texts[which]), &err));
    int must = add_must(x, 0);
    if (must == FV_OK && add_must(x, x->t.most + text_most(which)) != FV_OK)
        must |= EITHER;
    judge("fv_session_add_text", status, must);
    add_done(x, status, EVENT_TEXT, which, 0, text_most(which));
}

static void call_add_tokens(slot *x)
{
    event e = { .n_ids = (int)chance(N_IDS) };
    bool bad = one_in(10) && e.n_ids;
    fv_status status;
    for (int i = 0; i < e.n_ids; i++)
        e.ids[i] = (int32_t)chance((uint32_t)n_vocab[x->t.engine]);
    if (bad)
        e.ids[chance((uint32_t)e.n_ids)] = one_in(2) ? -1 : n_vocab[x->t.engine];
    note("add_tokens %d%s", e.n_ids, bad ? ", one bad" : "");
    WITH_TROUBLE(x, status, fv_session_add_tokens(x->s, e.ids, (size_t)e.n_ids, &err));
    int must = add_must(x, (size_t)e.n_ids);
    judge("fv_session_add_tokens", status, must == FV_OK && bad ? FV_ERR_ARGUMENT : must);
    add_done(x, status, EVENT_IDS, 0, (size_t)e.n_ids, (size_t)e.n_ids);
    if (status == FV_OK) {
        event *kept = &x->t.log[x->t.n_log - 1];
        kept->n_ids = e.n_ids;
        memcpy(kept->ids, e.ids, sizeof e.ids);
    }
}

static void call_add_answer(slot *x)
{
    talk *t = &x->t;
    int which = (int)chance(FV_COUNT(texts));
    fv_status status;
    note("add_answer %d", which);
    WITH_TROUBLE(x, status, fv_session_add_answer(x->s, texts[which], strlen(texts[which]), &err));
    judge("fv_session_add_answer", status,
          t->phase != WRITING ? FV_ERR_STATE : prompt_must(x, text_most(which)));
    if (status == FV_OK) {
        log_add(t, EVENT_ANSWER, which);
        t->phase = IDLE;
        t->position = fv_session_position(x->s);
    }
}

static void call_begin(slot *x)
{
    talk *t = &x->t;
    rules r = rules_choose();
    fv_logit_bias bias;
    fv_answer_options o = rules_options(&r, &bias);
    bool bad = one_in(8);
    fv_status status;
    if (bad)
        rules_spoil(&o);
    o.mask_user = &t->rules; /* where they will stand */
    note("begin max %d temperature %.1f bias %g mask %d%s", r.max_new, (double)r.temperature,
         (double)r.bias, r.mask, bad ? ", bad" : "");
    WITH_TROUBLE(x, status, fv_session_begin(x->s, &o, &err));
    judge("fv_session_begin", status,
          t->phase == ANSWERING || t->phase == ENDING ? FV_ERR_STATE
          : bad                                       ? FV_ERR_ARGUMENT
                                                      : FV_OK);
    if (status == FV_OK)
        t->rules = r;
}

/* ---- calls: tokens ------------------------------------------------------------ */

/* What the next token of x must give, its rules considered. */
static int next_must(const slot *x)
{
    const talk *t = &x->t;
    int must = t->phase == IDLE ? FV_ERR_STATE : t->phase == WRITING ? prompt_must(x, 0) : FV_OK;
    bool full = t->phase == ANSWERING && t->position >= x->max_context; /* by forced tokens */
    if (t->rules.mask == MASK_NOTHING && t->phase != ENDING && !full) {
        if (must == FV_OK)
            return FV_ERR_FORMAT;
        if (must & EITHER)
            return -1; /* one or the other failure */
    }
    return must;
}

/* The model after a call that took a token of x; first: the prompt ran. */
static void next_done(slot *x, fv_status status, const fv_piece *p, int must)
{
    talk *t = &x->t;
    bool prompt = t->phase == WRITING;
    if (must == -1)
        must = status == FV_ERR_LIMIT ? FV_ERR_LIMIT : FV_ERR_FORMAT;
    judge("fv_session_next", status, must);
    if (status != FV_OK) {
        if (p->id != -1 || p->n_bytes || p->done)
            broken("a failed next gave a piece");
        if (status != FV_ERR_STATE || t->phase != IDLE)
            turn_drops(t);
        if (t->phase == IDLE && status != FV_ERR_STATE && fv_session_logits(x->s, NULL))
            broken("a failed next left logits");
        position_check(x, "a failed next");
        return;
    }
    n_tokens += p->id >= 0;
    event *e = log_add(t, EVENT_NEXT, 0);
    e->first = prompt;
    if (prompt) {
        e->rules = t->rules;
        t->new_tokens = 0;
        t->phase = ANSWERING;
    }
    e->ids[0] = p->id;
    e->bits = bits_of_piece(x->s, p);
    t->position = fv_session_position(x->s);
    if (t->position > x->max_context)
        broken("the position is %zu, the context %zu", t->position, x->max_context);
    t->new_tokens += p->id >= 0;
    if (p->done != (p->finish != FV_FINISH_NONE))
        broken("done is %d, finish %d", p->done, (int)p->finish);
    if (p->done)
        answer_ends(t);
    else if (t->phase == ENDING)
        broken("an answer goes on past its last token: %d of %d, position %zu of %zu",
               t->new_tokens, t->rules.max_new, t->position, x->max_context);
    else if ((t->rules.max_new && t->new_tokens >= t->rules.max_new) ||
             t->position >= x->max_context)
        t->phase = ENDING;
}

static void call_next(slot *x)
{
    fv_piece p = { .size = sizeof p };
    fv_status status;
    int must = next_must(x);
    if (one_in(30)) {
        p.size = 0;
        note("next, no size");
        WITH_TROUBLE(x, status, fv_session_next(x->s, &p, &err));
        judge("fv_session_next", status, FV_ERR_ARGUMENT);
        return;
    }
    note("next, phase %d", (int)x->t.phase);
    WITH_TROUBLE(x, status, fv_session_next(x->s, &p, &err));
    next_done(x, status, &p, must);
}

/* Several sessions, now and then the same twice or of two engines. */
static void call_sessions_next(void)
{
    fv_session *list[N_SESSIONS + 1];
    slot *of[N_SESSIONS + 1];
    fv_piece pieces[N_SESSIONS + 1];
    fv_status statuses[N_SESSIONS + 1], status;
    int musts[N_SESSIONS + 1], engine = (int)chance(N_ENGINES);
    size_t n = 0, n_good = 0;
    bool mixed = one_in(10), twice = false, two_engines = false;
    for (int i = 0; i < N_SESSIONS; i++)
        if (slots[i].s && slots[i].t.n_log + 2 < N_LOG && (mixed || slots[i].t.engine == engine) &&
            !one_in(4))
            of[n++] = &slots[i];
    if (n && one_in(12))
        of[n] = of[chance((uint32_t)n)], n++, twice = true;
    for (size_t i = 0; i < n; i++) {
        list[i] = of[i]->s;
        pieces[i] = (fv_piece){ .size = sizeof *pieces };
        musts[i] = next_must(of[i]);
        two_engines |= of[i]->t.engine != of[0]->t.engine;
    }
    note("sessions_next %zu%s%s", n, twice ? ", one twice" : "", two_engines ? ", mixed" : "");
    WITH_TROUBLE(n ? of[0] : NULL, status, fv_sessions_next(list, n, pieces, statuses, &err));
    if (!n || twice || two_engines) {
        judge("fv_sessions_next", status, FV_ERR_ARGUMENT);
        return;
    }
    fv_error whole = err;
    for (size_t i = 0; i < n; i++) {
        err = (fv_error){ .status = statuses[i], .message = "of one session" };
        n_good += statuses[i] == FV_OK;
        next_done(of[i], statuses[i], &pieces[i], musts[i]);
    }
    err = whole;
    if ((n_good > 0) != (status == FV_OK))
        broken("fv_sessions_next gave %s, %zu of %zu succeeded", fv_status_name(status), n_good, n);
}

static void call_force(slot *x)
{
    talk *t = &x->t;
    int32_t id = (int32_t)chance((uint32_t)n_vocab[t->engine]);
    bool bad = one_in(12), prompt = t->phase == WRITING;
    bool full = t->phase == ANSWERING && t->position >= x->max_context;
    fv_status status;
    if (bad)
        id = one_in(2) ? -1 : n_vocab[t->engine];
    note("force %d, phase %d", id, (int)t->phase);
    WITH_TROUBLE(x, status, fv_session_force(x->s, id, &err));
    judge("fv_session_force", status,
          bad                                      ? FV_ERR_ARGUMENT
          : t->phase == IDLE || t->phase == ENDING ? FV_ERR_STATE
          : full                                   ? FV_ERR_LIMIT
          : prompt                                 ? prompt_must(x, 0)
                                                   : FV_OK);
    if (status == FV_OK) {
        event *e = log_add(t, EVENT_FORCE, 0);
        e->ids[0] = id;
        e->first = prompt;
        if (prompt) {
            e->rules = t->rules;
            t->new_tokens = 0;
        }
        t->phase = ANSWERING;
        t->position = fv_session_position(x->s);
    } else if (status != FV_ERR_STATE && !bad && !full) {
        turn_drops(t);
    }
    position_check(x, "force");
}

static void call_score(slot *x)
{
    talk *t = &x->t;
    int which = (int)chance(FV_COUNT(texts));
    fv_score score = { .size = sizeof score };
    fv_status status;
    note("score %d, phase %d", which, (int)t->phase);
    WITH_TROUBLE(x, status,
                 fv_session_score(x->s, texts[which], strlen(texts[which]), &score, &err));
    judge("fv_session_score", status,
          t->phase != WRITING ? FV_ERR_STATE : prompt_must(x, text_most(which)));
    if (status == FV_OK) {
        event *e = log_add(t, EVENT_SCORE, which);
        e->first = true;
        e->rules = t->rules;
        e->bits = bits_add(bits_add(1, &score.logprob, sizeof score.logprob), &score.n_greedy,
                           sizeof score.n_greedy);
        answer_ends(t);
        t->position = fv_session_position(x->s);
    } else if (status != FV_ERR_STATE) {
        turn_drops(t);
    }
    position_check(x, "score");
}

/* ---- calls: conversations ------------------------------------------------------------ */

static void call_reset(slot *x)
{
    note("reset");
    fv_session_reset(x->s);
    x->t = (talk){ .engine = x->t.engine, .exact = x->exact };
    position_check(x, "reset");
}

static void call_copy(slot *x, slot *to)
{
    talk *t = &x->t;
    fv_status status;
    note("copy, phase %d", (int)t->phase);
    if (to->s)
        slot_close(to);
    WITH_TROUBLE(x, status, fv_session_copy(&to->s, x->s, &err));
    judge("fv_session_copy", status,
          t->phase == ANSWERING || t->phase == ENDING ? FV_ERR_STATE : FV_OK);
    if ((status == FV_OK) != (to->s != NULL))
        broken("fv_session_copy gave %s and %p", fv_status_name(status), (void *)to->s);
    if (status == FV_OK) {
        fv_session *made = to->s;
        *to = *x;
        to->s = made;
        to->t.rules = (rules){ 0 }; /* how the next answer is chosen is not part of it */
        position_check(to, "copy");
    }
}

static void call_rewind(slot *x)
{
    talk *t = &x->t;
    bool answering = t->phase == ANSWERING || t->phase == ENDING;
    size_t position = one_in(3) ? chance(60)
                      : t->n_bounds && !one_in(3)
                          ? t->bounds[chance((uint32_t)t->n_bounds)].position
                          : t->position;
    const bound *found = NULL;
    fv_status status;
    for (int i = 0; i < t->n_bounds; i++)
        if (t->bounds[i].position == position)
            found = &t->bounds[i];
    bool at_end = !answering && position == t->position;
    note("rewind %zu, phase %d", position, (int)t->phase);
    WITH_TROUBLE(x, status, fv_session_rewind(x->s, position, &err));
    judge("fv_session_rewind", status, found || at_end || position == 0 ? FV_OK : FV_ERR_ARGUMENT);
    if (status == FV_OK) {
        int n_log = found    ? found->n_log
                    : at_end ? t->phase == WRITING ? t->turn_log : t->n_log
                             : 0;
        t->n_log = n_log;
        t->position = position;
        if (answering)
            t->rules = (rules){ 0 };
        t->phase = IDLE;
        while (t->n_bounds && t->bounds[t->n_bounds - 1].position > position)
            t->n_bounds--;
    }
    position_check(x, "rewind");
}

typedef struct sink {
    blob *b;
    int fail_at, n; /* which write fails; -1: none */
} sink;

static fv_status sink_write(void *user, const void *data, size_t n)
{
    sink *to = user;
    blob *b = to->b;
    if (to->n++ == to->fail_at)
        return FV_ERR_IO;
    if (b->n + n > b->capacity) {
        b->capacity = 2 * (b->n + n);
        b->data = realloc(b->data, b->capacity);
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
    return FV_OK;
}

static void call_save(slot *x)
{
    talk *t = &x->t;
    blob *b = &blobs[chance(N_BLOBS)];
    sink to = { b, one_in(4) ? (int)chance(20) : -1, 0 };
    fv_status status;
    b->n = 0;
    note("save, phase %d", (int)t->phase);
    WITH_TROUBLE(x, status, fv_session_save(x->s, sink_write, &to, &err));
    bool failed = to.fail_at >= 0 && to.n > to.fail_at;
    judge("fv_session_save", status, t->phase != IDLE ? FV_ERR_STATE : failed ? FV_ERR_IO : FV_OK);
    b->t = *t;
    b->max_context = x->max_context;
    if (status != FV_OK)
        b->n = 0;
    position_check(x, "save");
}

static void call_load(slot *x)
{
    const blob *b = &blobs[chance(N_BLOBS)];
    fv_status status;
    if (!b->n)
        return;
    bool damaged = one_in(4);
    size_t n = b->n;
    uint8_t *data = malloc(n);
    memcpy(data, b->data, n);
    if (damaged) {
        if (one_in(2))
            n = chance((uint32_t)n);
        else
            data[chance((uint32_t)n)] ^= (uint8_t)(1u << chance(8));
    }
    note("load %zu bytes%s, phase %d", n, damaged ? ", damaged" : "", (int)x->t.phase);
    WITH_TROUBLE(x, status, fv_session_load(x->s, data, n, &err));
    bool other = b->t.engine != x->t.engine;
    int must = other ? FV_ERR_UNSUPPORTED : b->t.position > x->max_context ? FV_ERR_LIMIT : FV_OK;
    if (damaged) {
        if (status == FV_OK)
            broken("a damaged session was loaded");
        must = status == FV_ERR_UNSUPPORTED ? FV_ERR_UNSUPPORTED : FV_ERR_FORMAT;
    }
    judge("fv_session_load", status, must);
    free(data);
    if (status == FV_OK) {
        x->t = b->t;
        /* answers may have ended at another context's end */
        x->t.exact = x->t.exact && x->exact && b->max_context == x->max_context;
        x->t.rules = (rules){ 0 };
    }
    position_check(x, "load");
}

static void call_memory(slot *x)
{
    fv_memory m = { .size = sizeof m };
    fv_stats stats = { .size = sizeof stats };
    fv_status status;
    note("memory");
    WITH_TROUBLE(x, status, fv_session_memory(x->s, &m, &err));
    judge("fv_session_memory", status, FV_OK);
    WITH_TROUBLE(x, status, fv_engine_memory(engines[x->t.engine], &m, &err));
    judge("fv_engine_memory", status, FV_OK);
    fv_session_stats(x->s, &stats);
    if (stats.context_used < 0 || (size_t)stats.context_used > x->max_context ||
        stats.reused_tokens > stats.prompt_tokens)
        broken("context_used %d, prompt %d, reused %d", stats.context_used, stats.prompt_tokens,
               stats.reused_tokens);
}

/* ---- calls without a session ------------------------------------------------------------ */

static void call_open_engine(void)
{
    static const char *const paths[] = { MODEL, FV_SOURCE_DIR, IMAGE, "/nonexistent/model" };
    int which = one_in(2) ? 0 : 1 + (int)chance(3);
    fv_engine_options o = { .size = sizeof o, .n_threads = 1 + (int)chance(2), .image_size = 64 };
    fv_engine *e = NULL;
    fv_status status;
    if (one_in(2))
        now.fail_after = chance(700);
    note("engine_open %d", which);
    WITH_TROUBLE(NULL, status, fv_engine_open(&e, paths[which], &o, &err));
    /* a directory without a model, a file of another kind, nothing */
    int must = which == 0 ? FV_OK : status;
    judge("fv_engine_open", status, must);
    if ((status == FV_OK) != (e != NULL) || (which && status == FV_OK))
        broken("fv_engine_open of %s gave %s and %p", paths[which], fv_status_name(status),
               (void *)e);
    if (which && status != FV_ERR_IO && status != FV_ERR_FORMAT && status != FV_ERR_UNSUPPORTED &&
        status != FV_ERR_MEMORY)
        broken("fv_engine_open of %s gave %s", paths[which], fv_status_name(status));
    fv_engine_free(e);
}

static void call_encode(void)
{
    int engine = (int)chance(N_ENGINES);
    fv_encode_options o = { .size = sizeof o,
                            .n_threads = (int)chance(3),
                            .callbacks = &(fv_callbacks){ .size = sizeof(fv_callbacks),
                                                          .progress = on_progress },
                            .tap = one_in(4) ? on_tap : NULL };
    fv_features *f = NULL;
    size_t n, n_want, d;
    fv_status status;
    note("encode");
    WITH_TROUBLE(NULL, status, fv_encode(engines[engine], image, &o, &f, &err));
    judge("fv_encode", status, FV_OK);
    if ((status == FV_OK) != (f != NULL))
        broken("fv_encode gave %s and %p", fv_status_name(status), (void *)f);
    const float *got = fv_features_rows(f, &n, &d);
    const float *want = fv_features_rows(pool[engine][0], &n_want, NULL);
    if (f && (n != n_want || memcmp(got, want, n * d * sizeof *got)))
        broken("an image was encoded to other bits");
    fv_features_free(f);
}

static void call_image(void)
{
    fv_image *i = NULL;
    fv_status status;
    bool there = !one_in(4);
    note("image_open");
    WITH_TROUBLE(NULL, status,
                 fv_image_open(&i, there ? IMAGE : "/nonexistent/image.png", NULL, &err));
    judge("fv_image_open", status, there ? FV_OK : FV_ERR_IO);
    if ((status == FV_OK) != (i != NULL))
        broken("fv_image_open gave %s and %p", fv_status_name(status), (void *)i);
    fv_image_free(i);
}

static void call_tokenize(void)
{
    int which = (int)chance(FV_COUNT(texts)), engine = (int)chance(N_ENGINES);
    int32_t ids[64];
    size_t n, capacity = chance(64);
    bool bad = one_in(6);
    fv_status status;
    const char *text = bad ? "a\xed\xa0\x80" : texts[which];
    note("tokenize");
    WITH_TROUBLE(NULL, status,
                 fv_engine_tokenize(engines[engine], text, strlen(text), one_in(2), ids, capacity,
                                    &n, &err));
    judge("fv_engine_tokenize", status, bad ? FV_ERR_FORMAT : FV_OK);
}

/* ---- steps ------------------------------------------------------------ */

static slot *slot_any(void)
{
    slot *x = &slots[chance(N_SESSIONS)];
    if (!x->s)
        slot_open(x);
    return x->s ? x : NULL;
}

static void session_step(slot *x)
{
    /* what makes sense three times out of four */
    uint32_t what = x->t.phase == IDLE && !one_in(4) ? chance(23) : chance(40);
    switch (what) {
    case 0:
    case 1:
    case 2: call_add_text(x); break;
    case 3:
    case 4: call_add_features(x); break;
    case 5: call_add_image(x); break;
    case 6:
    case 7: call_add_tokens(x); break;
    case 8: call_add_answer(x); break;
    case 9:
    case 10:
    case 11: call_begin(x); break;
    case 12:
    case 13: call_force(x); break;
    case 14: call_score(x); break;
    case 15: call_reset(x); break;
    case 16:
        call_copy(x, &slots[chance(N_SESSIONS)] == x ? &slots[(x - slots + 1) % N_SESSIONS]
                                                     : &slots[(x - slots + 2) % N_SESSIONS]);
        break;
    case 17:
    case 18: call_rewind(x); break;
    case 19: call_save(x); break;
    case 20: call_load(x); break;
    case 21: call_memory(x); break;
    case 22:
        if (x->t.exact)
            again(x);
        break;
    default: call_next(x);
    }
}

static void step(void)
{
    trouble_choose();
    note("-");
    switch (chance(60)) {
    case 0: call_open_engine(); return;
    case 1: call_encode(); return;
    case 2: call_image(); return;
    case 3: call_tokenize(); return;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8: call_sessions_next(); return;
    default: break;
    }
    slot *x = slot_any();
    if (!x)
        return;
    if (x->t.n_log + 2 >= N_LOG || x->t.n_bounds + 2 >= N_LOG || one_in(300)) {
        if (x->t.exact)
            again(x);
        slot_close(x);
        return;
    }
    session_step(x);
}

/* ---- a world ------------------------------------------------------------ */

static void world_open(void)
{
    fv_engine_options o[N_ENGINES] = {
        { .size = sizeof *o, .n_threads = 2, .image_size = 64 },
        { .size = sizeof *o,
          .n_threads = 2,
          .image_size = 64,
          .decoder = FV_PRECISION_F32,
          .kv = FV_KV_Q8 },
    };
    must_ok("image", fv_image_open(&image, IMAGE, NULL, &err));
    for (int i = 0; i < N_ENGINES; i++) {
        fv_model_info info = { .size = sizeof info };
        must_ok("engine", fv_engine_open(&engines[i], MODEL, &o[i], &err));
        fv_engine_info(engines[i], &info);
        image_rows = info.n_image_tokens;
        n_vocab[i] = info.vocab_rows;
        d_model = info.d_model;
        must_ok("encode", fv_encode(engines[i], image, NULL, &pool[i][0], &err));
        for (int k = 1; k < N_FEATURES; k++) {
            size_t n_rows = k == 1 ? 3 : 40, n = n_rows * (size_t)d_model;
            float *rows = malloc(n * sizeof *rows);
            for (size_t at = 0; at < n; at++)
                rows[at] = 0.01f * (float)((at * 37 + (size_t)k) % 101) - 0.5f;
            must_ok("features",
                    fv_features_new(engines[i], rows, n_rows, (size_t)d_model, &pool[i][k], &err));
            free(rows);
        }
    }
}

static void world_close(void)
{
    for (int i = 0; i < N_SESSIONS; i++) {
        if (slots[i].s && slots[i].t.exact)
            again(&slots[i]);
        fv_session_free(slots[i].s);
        slots[i].s = NULL;
    }
    for (int i = 0; i < N_BLOBS; i++) {
        free(blobs[i].data);
        blobs[i] = (blob){ 0 };
    }
    for (int i = 0; i < N_ENGINES; i++) {
        for (int k = 0; k < N_FEATURES; k++)
            fv_features_free(pool[i][k]);
        fv_engine_free(engines[i]);
    }
    fv_image_free(image);
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 10) : 2000;
    double seconds = argc > 3 ? strtod(argv[3], NULL) : argc > 1 ? 0 : 40, start = fv_now_ms();
    uint64_t total = 0;
    for (seed_now = first; seed_now == first || fv_now_ms() - start < seconds * 1e3; seed_now++) {
        int64_t live = fv_mem_live();
        chance_state = seed_now * 0x9e3779b97f4a7c15u;
        now = (trouble){ .fail_after = UINT64_MAX, .cancel_at = -1 };
        world_open();
        for (step_now = 0; step_now < steps; step_now++)
            step();
        total += steps;
        world_close();
        if (fv_mem_live() != live)
            broken("%d blocks are lost", (int)(fv_mem_live() - live));
    }
    printf("%" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " steps in %.0f s: %" PRIu64
           " calls, %" PRIu64 " failed",
           seed_now - first, first, total, (fv_now_ms() - start) / 1e3, n_calls, n_failed);
    for (int i = 1; i <= FV_ERR_STATE; i++)
        printf("%s%" PRIu64 " %s", i == 1 ? " (" : ", ", n_by_status[i],
               fv_status_name((fv_status)i));
    printf("), %" PRIu64 " tokens, %" PRIu64 " conversations again\n1 passed, 0 failed\n", n_tokens,
           n_replays);
    return 0;
}
