/* fv_sessions_next: answers that are taken together have the bits that each has alone, whatever
 * the company; what becomes of sessions that end, fail or are cancelled beside others. Also run
 * under the thread sanitizer. */
#include "support/cm.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "fastvlm_tools.h"
#include "support/golden.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define DEMO  FV_SOURCE_DIR "/models/demo/demo.gguf"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

enum { MOST = 8, TURNS = 2, ROOM = 64 /* tokens of an answer at most */ };

static fv_error err;
static char *work;

static void ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

static void refused(fv_status status, fv_status want, const char *part)
{
    if (status != want || err.status != want || !strstr(err.message, part))
        fail_msg("%s: %s; expected %s and \"%s\"", fv_status_name(status), err.message,
                 fv_status_name(want), part);
}

typedef struct model {
    fv_engine *engine;
    fv_features *features;
} model;

static model open_model(const char *path, fv_precision decoder, fv_kv_type kv, int n_threads)
{
    model m = { NULL, NULL };
    fv_image *image;
    fv_engine_options o = {
        .size = sizeof o, .decoder = decoder, .kv = kv, .n_threads = n_threads
    };
    ok(fv_engine_open(&m.engine, path, &o, &err));
    ok(fv_image_open(&image, IMAGE, NULL, &err));
    ok(fv_encode(m.engine, image, NULL, &m.features, &err));
    fv_image_free(image);
    return m;
}

static void close_model(model *m)
{
    fv_features_free(m->features);
    fv_engine_free(m->engine);
}

/* ---- conversations that are unlike one another --------------------------------------------- */

static const char *const words[] = {
    "What do you see?",
    ("Is there a cat? Answer yes or no, and then say why you think "
     "so, in a sentence that is longer than the others."),
    "Count.",
    "Describe the image.",
    "a",
    "What is on the left, and what is on the right?",
    "Which colours are there?",
    "What does the text say?"
};

static fv_session *conversation_new(const model *m, size_t i)
{
    fv_session *s;
    fv_session_options o = { .size = sizeof o, .exact_reuse = i % 3 == 1 };
    if (i == 5) {
        o.system = "Be brief.";
        o.n_system_bytes = strlen(o.system);
    }
    ok(fv_session_new(&s, m->engine, &o, &err));
    return s;
}

static void turn_write(const model *m, fv_session *s, size_t i, size_t turn)
{
    static const char *const stops[] = { "e", "\n" };
    const char *text = words[(i + 3 * turn) % FV_COUNT(words)];
    fv_answer_options o = { .size = sizeof o,
                            .max_new_tokens = 3 + (int)((i * 5 + turn * 4) % 11),
                            .ignore_end = i % 4 != 3 };
    if (i % 2) {
        o.temperature = 0.7f + 0.1f * (float)i;
        o.top_k = i == 3 ? 20 : 0;
        o.top_p = i == 5 ? 0.9f : 1;
        o.seed = 7 * i + turn;
    }
    if (i == 2)
        o.repetition_penalty = 1.3f;
    if (i == 4)
        o.n_logprobs = 3;
    if (i == 6) {
        o.stop = stops;
        o.n_stop = 2;
    }
    for (size_t image = 0; image < (turn == 0 ? i % 3 : 0); image++)
        ok(fv_session_add_features(s, m->features, &err));
    ok(fv_session_add_text(s, text, strlen(text), &err));
    ok(fv_session_begin(s, &o, &err));
}

/* All that a session says of its tokens, and the logits they were chosen from, as a hash. */
typedef struct heard {
    size_t n;
    int32_t ids[ROOM];
    float logprobs[ROOM];
    uint64_t logits[ROOM];
    char text[4096];
    size_t n_text;
    fv_finish finish;
    int new_tokens, prompt_tokens, context_used;
} heard;

static void hear(heard *h, const fv_session *s, const fv_piece *piece)
{
    size_t n;
    const float *logits = fv_session_logits(s, &n);
    if (piece->id >= 0) {
        assert_true(h->n < ROOM);
        assert_non_null(logits);
        uint64_t hash = 1469598103934665603u;
        for (size_t i = 0; i < n * sizeof *logits; i++)
            hash = (hash ^ ((const uint8_t *)logits)[i]) * 1099511628211u;
        h->logits[h->n] = hash;
        h->logprobs[h->n] = isnan(piece->logprob) ? 0 : piece->logprob;
        h->ids[h->n++] = piece->id;
    }
    assert_true(h->n_text + piece->n_bytes < sizeof h->text);
    memcpy(h->text + h->n_text, piece->text, piece->n_bytes);
    h->n_text += piece->n_bytes;
    if (!piece->done)
        return;
    fv_stats stats = { .size = sizeof stats };
    fv_session_stats(s, &stats);
    h->finish = piece->finish;
    h->new_tokens = stats.new_tokens;
    h->prompt_tokens = stats.prompt_tokens;
    h->context_used = stats.context_used;
}

static void run_alone(const model *m, heard all[MOST][TURNS])
{
    for (size_t i = 0; i < MOST; i++) {
        fv_session *s = conversation_new(m, i);
        for (size_t turn = 0; turn < TURNS; turn++) {
            fv_piece piece = { .size = sizeof piece };
            turn_write(m, s, i, turn);
            for (piece.done = false; !piece.done;) {
                ok(fv_session_next(s, &piece, &err));
                hear(&all[i][turn], s, &piece);
            }
        }
        fv_session_free(s);
    }
}

/* Conversations [first, first + n), which join one after the other, `late` calls apart, and begin
 * their second turn as soon as they may; so prompts, tokens and ends fall into the same calls. */
static void run_together(const model *m, heard all[MOST][TURNS], size_t first, size_t n,
                         size_t late)
{
    fv_session *s[MOST];
    size_t turn[MOST] = { 0 }, n_done = 0;
    for (size_t i = 0; i < n; i++)
        s[i] = conversation_new(m, first + i);
    for (size_t call = 0; n_done < n; call++) {
        fv_session *now[MOST];
        size_t who[MOST], n_now = 0;
        for (size_t k = 0; k < n; k++) {
            size_t i = (k + call) % n; /* in another order every time */
            if (call == i * late)
                turn_write(m, s[i], first + i, 0);
            if (call >= i * late && turn[i] < TURNS) {
                now[n_now] = s[i];
                who[n_now++] = i;
            }
        }
        if (!n_now)
            continue;
        fv_piece pieces[MOST];
        fv_status statuses[MOST];
        for (size_t k = 0; k < n_now; k++)
            pieces[k].size = sizeof pieces[k];
        ok(fv_sessions_next(now, n_now, pieces, call % 2 ? statuses : NULL, &err));
        for (size_t k = 0; k < n_now; k++) {
            size_t i = who[k];
            if (call % 2)
                assert_int_equal(statuses[k], FV_OK);
            hear(&all[first + i][turn[i]], now[k], &pieces[k]);
            if (!pieces[k].done)
                continue;
            if (++turn[i] < TURNS)
                turn_write(m, s[i], first + i, turn[i]);
            else
                n_done++;
        }
    }
    for (size_t i = 0; i < n; i++)
        fv_session_free(s[i]);
}

static void check_model(const char *path, fv_precision decoder, fv_kv_type kv, const char *name)
{
    static heard alone[MOST][TURNS], together[MOST][TURNS];
    static const struct {
        int n_threads;
        size_t first, n, late;
    } company[] = { { 2, 0, 8, 0 }, { 2, 0, 8, 2 }, { 1, 0, 1, 0 }, { 3, 3, 2, 1 },
                    { 1, 2, 3, 0 }, { 4, 1, 4, 1 }, { 2, 3, 5, 3 }, { 3, 0, 7, 1 } };
    memset(alone, 0, sizeof alone);
    model m = open_model(path, decoder, kv, 2);
    run_alone(&m, alone);
    close_model(&m);
    size_t n_tokens = 0;
    for (size_t c = 0; c < FV_COUNT(company); c++) {
        memset(together, 0, sizeof together);
        m = open_model(path, decoder, kv, company[c].n_threads);
        run_together(&m, together, company[c].first, company[c].n, company[c].late);
        close_model(&m);
        for (size_t i = company[c].first; i < company[c].first + company[c].n; i++) {
            for (size_t turn = 0; turn < TURNS; turn++) {
                n_tokens += alone[i][turn].n;
                if (memcmp(&alone[i][turn], &together[i][turn], sizeof(heard)))
                    fail_msg("%s, company %zu: answer %zu of conversation %zu is \"%s\", alone it "
                             "is \"%s\"",
                             name, c, turn, i, together[i][turn].text, alone[i][turn].text);
            }
        }
    }
    assert_true(n_tokens > 300);
}

static char *packed(const char *name, fv_precision decoder, bool pure)
{
    static char path[600];
    fv_pack_options o = { .size = sizeof o, .decoder = decoder, .pure = pure };
    o.rounding = decoder == FV_PRECISION_Q4 ? FV_ROUNDING_SEARCH : FV_ROUNDING_AUTO;
    snprintf(path, sizeof path, "%s/%s", work, name);
    ok(fv_pack(TINY, path, &o, NULL, &err));
    return path;
}

static void test_floats(void **state)
{
    (void)state;
    check_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, "f32");
    check_model(TINY, FV_PRECISION_F32, FV_KV_Q8, "f32, kv q8");
    check_model(TINY, FV_PRECISION_BF16, FV_KV_F16, "bf16");
    check_model(TINY, FV_PRECISION_F16, FV_KV_F16, "f16");
}

static void test_blocks(void **state)
{
    (void)state;
    check_model(packed("z8.gguf", FV_PRECISION_Z8, false), FV_PRECISION_AUTO, FV_KV_AUTO, "z8");
    check_model(packed("q4.gguf", FV_PRECISION_Q4, false), FV_PRECISION_AUTO, FV_KV_AUTO, "q4");
    check_model(packed("w8a8.gguf", FV_PRECISION_W8A8, false), FV_PRECISION_AUTO, FV_KV_AUTO,
                "w8a8");
    check_model(packed("pure.gguf", FV_PRECISION_Q4, true), FV_PRECISION_AUTO, FV_KV_Q8,
                "q4 throughout, kv q8");
    check_model(DEMO, FV_PRECISION_AUTO, FV_KV_AUTO, "demo");
}

/* ---- sessions that do not go on -------------------------------------------------------------- */

static void pose(fv_session *s, const char *text, int n_new)
{
    fv_answer_options o = { .size = sizeof o, .max_new_tokens = n_new, .ignore_end = true };
    ok(fv_session_add_text(s, text, strlen(text), &err));
    ok(fv_session_begin(s, &o, &err));
}

/* The greedy answer of n tokens to a question, alone. */
static void answer_alone(const model *m, const char *text, int32_t *ids, int n)
{
    fv_session *s = conversation_new(m, 0);
    fv_piece piece = { .size = sizeof piece };
    pose(s, text, n);
    for (int i = 0; i < n; i++) {
        ok(fv_session_next(s, &piece, &err));
        ids[i] = piece.id;
    }
    fv_session_free(s);
}

static bool cancel_at_third(void *user, const char *stage, double done)
{
    int *n = user;
    (void)done;
    return !strcmp(stage, "decode") && ++*n == 3;
}

static void test_statuses(void **state)
{
    (void)state;
    enum { N = 5, CALLS = 8 };
    int32_t want[CALLS];
    model m = open_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, 2);
    answer_alone(&m, "What do you see?", want, CALLS);

    int n_steps = 0;
    const fv_callbacks cancel = { .size = sizeof cancel,
                                  .progress = cancel_at_third,
                                  .user = &n_steps };
    fv_session_options small = { .size = sizeof small, .max_context = 16 },
                       watched = { .size = sizeof watched, .callbacks = &cancel };
    fv_session *s[N] = { conversation_new(&m, 0), conversation_new(&m, 0) };
    ok(fv_session_new(&s[2], m.engine, &small, &err));
    ok(fv_session_new(&s[3], m.engine, &watched, &err));
    s[4] = conversation_new(&m, 0);
    pose(s[0], "What do you see?", CALLS); /* goes on to its end */
    pose(s[1], "Count.", 2);               /* ends early */
    pose(s[2], "This prompt is longer than the context of its session is.", 4);
    pose(s[3], "Describe the image.", CALLS); /* is cancelled at its third step */
    /* nobody asked s[4] */
    for (int call = 0; call < CALLS; call++) {
        fv_piece pieces[N];
        fv_status statuses[N];
        for (int i = 0; i < N; i++)
            pieces[i].size = sizeof pieces[i];
        ok(fv_sessions_next(s, N, pieces, statuses, &err));
        const fv_status expected[N] = { FV_OK, call < 3 ? FV_OK : FV_ERR_STATE,
                                        call == 0 ? FV_ERR_LIMIT : FV_ERR_STATE,
                                        call < 3    ? FV_OK
                                        : call == 3 ? FV_ERR_CANCELLED
                                                    : FV_ERR_STATE,
                                        FV_ERR_STATE };
        for (int i = 0; i < N; i++) {
            if (statuses[i] != expected[i])
                fail_msg("call %d, session %d: %s, expected %s", call, i,
                         fv_status_name(statuses[i]), fv_status_name(expected[i]));
            if (statuses[i] != FV_OK) {
                assert_int_equal(pieces[i].id, -1);
                assert_false(pieces[i].done);
                assert_int_equal(pieces[i].n_bytes, 0);
            }
        }
        assert_int_equal(pieces[0].id, want[call]);
        assert_int_equal(pieces[1].done, call == 2);
        assert_int_equal(err.status, call == 0 ? FV_ERR_LIMIT : FV_ERR_STATE);
    }
    /* The one that was cancelled answers the next turn as the others do. */
    fv_session_reset(s[3]);
    pose(s[3], "What do you see?", 2);
    fv_piece piece = { .size = sizeof piece };
    ok(fv_sessions_next(&s[3], 1, &piece, NULL, &err));
    assert_int_equal(piece.id, want[0]);
    for (int i = 0; i < N; i++)
        fv_session_free(s[i]);
    close_model(&m);
}

/* ---- prompts that run together --------------------------------------------------------------- */

/* Runs of a layer over prompts, and their rows. */
typedef struct runs {
    int n;
    uint64_t rows[8];
} runs;

static void count_run(void *user, const fv_layer *layer)
{
    runs *r = user;
    if (!strstr(layer->name, "layers.0.mlp.down_proj"))
        return;
    if (r->n < (int)FV_COUNT(r->rows))
        r->rows[r->n] = layer->n_rows;
    r->n++;
}

static fv_session *counted_new(const model *m, runs *r, const char *system)
{
    fv_session *s;
    fv_session_options o = { .size = sizeof o,
                             .system = system,
                             .n_system_bytes = system ? strlen(system) : 0,
                             .layer = count_run,
                             .layer_user = r };
    ok(fv_session_new(&s, m->engine, &o, &err));
    return s;
}

static void pose_image(const model *m, fv_session *s, const char *text)
{
    ok(fv_session_add_features(s, m->features, &err));
    pose(s, text, 2);
}

static fv_stats stats_of(const fv_session *s)
{
    fv_stats stats = { .size = sizeof stats };
    fv_session_stats(s, &stats);
    return stats;
}

static uint64_t rows_run(const fv_session *s)
{
    fv_stats stats = stats_of(s);
    return (uint64_t)(stats.prompt_tokens - stats.reused_tokens);
}

static void hear_next(heard *h, fv_session *s)
{
    fv_piece piece = { .size = sizeof piece };
    memset(h, 0, sizeof *h);
    ok(fv_session_next(s, &piece, &err));
    hear(h, s, &piece);
}

/* The same token, from the same logits. */
static void check_piece(const heard *want, const fv_session *s, const fv_piece *piece)
{
    heard h = { 0 };
    hear(&h, s, piece);
    assert_int_equal(h.ids[0], want->ids[0]);
    assert_true(h.logits[0] == want->logits[0]);
}

static void sizes_set(fv_piece *pieces, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pieces[i].size = sizeof *pieces;
}

/* Prompts that are unlike from their first words on. */
static void test_prompts_in_one_pass(void **state)
{
    (void)state;
    enum { N = 3 };
    static const char *const systems[N] = { "Be brief.", "You see.", "" };
    model m = open_model(TINY, FV_PRECISION_BF16, FV_KV_AUTO, 2);
    runs r[N] = { 0 };
    fv_session *s[N];
    fv_piece pieces[N];
    uint64_t n_rows = 0;
    sizes_set(pieces, N);
    for (int i = 0; i < N; i++) {
        s[i] = counted_new(&m, &r[i], systems[i]);
        pose(s[i], words[i], 1);
    }
    ok(fv_sessions_next(s, N, pieces, NULL, &err));
    for (int i = 0; i < N; i++)
        n_rows += (uint64_t)stats_of(s[i]).prompt_tokens;
    assert_int_equal(r[0].n, 1);
    assert_int_equal(r[0].rows[0], n_rows);
    assert_int_equal(r[1].n + r[2].n, 0);
    for (int i = 0; i < N; i++)
        fv_session_free(s[i]);
    close_model(&m);
}

/* Of prompts about one image the first computes the image's rows, the others theirs behind them in
 * a second pass. Of prompts beside one whose session has the image's rows already, all run their
 * last rows in one. */
static void test_prompts_that_begin_alike(void **state)
{
    (void)state;
    enum { N = 4 };
    model m = open_model(TINY, FV_PRECISION_BF16, FV_KV_AUTO, 2);
    runs r[N] = { 0 }, none = { 0 };
    fv_session *s[N];
    fv_piece pieces[N];
    heard want[N];
    uint64_t n_rows = 0;
    sizes_set(pieces, N);
    for (int i = 0; i < N; i++) {
        s[i] = counted_new(&m, &none, NULL);
        pose_image(&m, s[i], words[i]);
        hear_next(&want[i], s[i]);
        fv_session_free(s[i]);
        s[i] = counted_new(&m, &r[i], NULL);
        pose_image(&m, s[i], words[i]);
    }
    ok(fv_sessions_next(s, N, pieces, NULL, &err));
    for (int i = 0; i < N; i++) {
        check_piece(&want[i], s[i], &pieces[i]);
        n_rows += i ? rows_run(s[i]) : 0;
        assert_true(i == 0 || stats_of(s[i]).reused_tokens > stats_of(s[i]).image_tokens);
    }
    assert_int_equal(r[0].n, 1);
    assert_int_equal(r[0].rows[0], stats_of(s[0]).prompt_tokens);
    assert_int_equal(r[1].n, 1);
    assert_int_equal(r[1].rows[0], n_rows);
    assert_int_equal(r[2].n + r[3].n, 0);

    memset(r, 0, sizeof r);
    fv_session_reset(s[0]);
    pose_image(&m, s[0], words[0]);
    for (int i = 1; i < N; i++) {
        fv_session_free(s[i]);
        s[i] = counted_new(&m, &r[i], NULL);
        pose_image(&m, s[i], words[i]);
    }
    ok(fv_sessions_next(s, N, pieces, NULL, &err));
    n_rows = 0;
    for (int i = 0; i < N; i++) {
        check_piece(&want[i], s[i], &pieces[i]);
        n_rows += rows_run(s[i]);
        fv_session_free(s[i]);
    }
    assert_int_equal(r[0].n, 1);
    assert_int_equal(r[0].rows[0], n_rows);
    assert_int_equal(r[1].n + r[2].n + r[3].n, 0);
    close_model(&m);
}

/* The rows of an answer were summed in another order than a prompt's: they are given to nobody who
 * would compute them, and who keeps them gets none behind them. */
static void test_answers_rows_are_not_given(void **state)
{
    (void)state;
    model m = open_model(TINY, FV_PRECISION_BF16, FV_KV_AUTO, 2);
    heard want[2];
    for (int round = 0; round < 3; round++) { /* alone; together, one or the other first */
        fv_session *s[2], *now[2];
        fv_piece pieces[2];
        sizes_set(pieces, 2);
        for (int i = 0; i < 2; i++) {
            fv_session_options o = { .size = sizeof o, .exact_reuse = i == 1 };
            ok(fv_session_new(&s[i], m.engine, &o, &err));
            pose(s[i], "What do you see?", 40);
            for (pieces[i].done = false; !pieces[i].done;)
                ok(fv_session_next(s[i], &pieces[i], &err));
            pose(s[i],
                 "Describe the image, and then say what is beside it and why it is there, or what "
                 "else would be, had nobody put it there before anybody else came to see it.",
                 2);
            if (round == 0)
                hear_next(&want[i], s[i]);
        }
        if (round == 0) {
            assert_true(want[0].logits[0] != want[1].logits[0]); /* or nothing is tested here */
        } else {
            const int at = round - 1;
            now[at] = s[0];
            now[1 - at] = s[1];
            ok(fv_sessions_next(now, 2, pieces, NULL, &err));
            check_piece(&want[0], s[0], &pieces[at]);
            check_piece(&want[1], s[1], &pieces[1 - at]);
        }
        fv_session_free(s[0]);
        fv_session_free(s[1]);
    }
    close_model(&m);
}

typedef struct delay {
    double ms; /* so far */
} delay;

static bool delay_prefill(void *user, const char *stage, double done)
{
    delay *d = user;
    const double start = fv_now_ms();
    (void)done;
    if (!strcmp(stage, "prefill"))
        usleep(20000);
    d->ms += fv_now_ms() - start;
    return false;
}

/* The time of a prompt in the same call is no time of a token. */
static void test_times(void **state)
{
    (void)state;
    model m = open_model(TINY, FV_PRECISION_BF16, FV_KV_AUTO, 2);
    delay d = { 0 };
    const fv_callbacks callbacks = { .size = sizeof callbacks,
                                     .progress = delay_prefill,
                                     .user = &d };
    fv_session_options o = { .size = sizeof o, .callbacks = &callbacks };
    fv_session *s[2] = { conversation_new(&m, 0) };
    fv_piece pieces[2];
    sizes_set(pieces, 2);
    ok(fv_session_new(&s[1], m.engine, &o, &err));
    pose(s[0], words[0], 4);
    ok(fv_session_next(s[0], &pieces[0], &err));
    pose(s[1], words[1], 4);
    const double start = fv_now_ms();
    ok(fv_sessions_next(s, 2, pieces, NULL, &err));
    const double all = fv_now_ms() - start, decode = stats_of(s[0]).decode_ms;
    assert_true(d.ms > 0 && decode > 0);
    if (decode + d.ms > all)
        fail_msg("a token of %g ms beside %g ms of a prompt, in %g ms", decode, d.ms, all);
    assert_true(stats_of(s[1]).prefill_ms >= d.ms);
    fv_session_free(s[0]);
    fv_session_free(s[1]);
    close_model(&m);
}

static bool cancel_second_layer(void *user, const char *stage, double done)
{
    int *n = user;
    (void)done;
    return !strcmp(stage, "prefill") && ++*n == 2;
}

/* A prompt that is given up fails alone, also when others wait for its rows. */
static void test_prompt_given_up(void **state)
{
    (void)state;
    enum { N = 4 };
    model m = open_model(TINY, FV_PRECISION_BF16, FV_KV_AUTO, 2);
    runs none = { 0 };
    heard want[N];
    for (int i = 0; i < N; i++) {
        fv_session *s = counted_new(&m, &none, NULL);
        pose_image(&m, s, words[i]);
        hear_next(&want[i], s);
        fv_session_free(s);
    }
    for (int who = 0; who < N; who++) {
        int asked = -1000; /* not yet */
        fv_session *s[N];
        fv_piece pieces[N];
        fv_status statuses[N];
        const fv_callbacks callbacks = { .size = sizeof callbacks,
                                         .progress = cancel_second_layer,
                                         .user = &asked };
        sizes_set(pieces, N);
        for (int i = 0; i < N; i++) {
            fv_session_options o = { .size = sizeof o, .callbacks = i == who ? &callbacks : NULL };
            ok(fv_session_new(&s[i], m.engine, &o, &err));
            for (int n = 0; i == who && n < 4; n++) /* rows of something else in its cache */
                ok(fv_session_add_text(s[i], words[1], strlen(words[1]), &err));
            if (i == who)
                ok(fv_session_next(s[i], &pieces[i], &err));
            fv_session_reset(s[i]);
            pose_image(&m, s[i], words[i]);
        }
        asked = 0;
        ok(fv_sessions_next(s, N, pieces, statuses, &err));
        assert_int_equal(err.status, FV_ERR_CANCELLED);
        for (int i = 0; i < N; i++) {
            assert_int_equal(statuses[i], i == who ? FV_ERR_CANCELLED : FV_OK);
            if (i != who)
                check_piece(&want[i], s[i], &pieces[i]);
        }
        assert_int_equal(asked, 2);
        pose_image(&m, s[who], words[who]);
        ok(fv_session_next(s[who], &pieces[who], &err));
        check_piece(&want[who], s[who], &pieces[who]);
        for (int i = 0; i < N; i++)
            fv_session_free(s[i]);
    }
    close_model(&m);
}

/* Every allocation of the first call of sessions that begin alike fails once. */
static void test_memory_of_prompts(void **state)
{
    (void)state;
    enum { N = 3 };
    size_t n_whole = 0;
    model m = open_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, 2);
    runs none = { 0 };
    heard want[N];
    for (int i = 0; i < N; i++) {
        fv_session *s = counted_new(&m, &none, NULL);
        pose_image(&m, s, words[i]);
        hear_next(&want[i], s);
        fv_session_free(s);
    }
    for (uint64_t fail_at = 0; fail_at < 80; fail_at++) {
        fv_session *s[N];
        fv_piece pieces[N];
        fv_status statuses[N];
        size_t n_good = 0;
        sizes_set(pieces, N);
        for (int i = 0; i < N; i++) {
            s[i] = counted_new(&m, &none, NULL);
            pose_image(&m, s[i], words[i]);
        }
        fv_mem_fail_after(fail_at);
        fv_status status = fv_sessions_next(s, N, pieces, statuses, &err);
        fv_mem_fail_after(UINT64_MAX);
        for (int i = 0; i < N; i++) {
            assert_true(statuses[i] == FV_OK || statuses[i] == FV_ERR_MEMORY);
            if (statuses[i] == FV_OK)
                check_piece(&want[i], s[i], &pieces[i]);
            n_good += statuses[i] == FV_OK;
            fv_session_free(s[i]);
        }
        assert_int_equal(status, n_good ? FV_OK : FV_ERR_MEMORY);
        n_whole += n_good == N;
    }
    assert_true(n_whole > 0);
    close_model(&m);
}

/* ---- arguments ------------------------------------------------------------------------------- */

typedef struct caller {
    fv_session *const *sessions;
    fv_status status;
    fv_error err;
} caller;

static bool call_again(void *user, const char *stage, double done)
{
    caller *c = user;
    fv_piece pieces[2] = { { .size = sizeof *pieces }, { .size = sizeof *pieces } };
    (void)stage;
    (void)done;
    c->status = fv_sessions_next(c->sessions, 2, pieces, NULL, &c->err);
    return false;
}

static void test_arguments(void **state)
{
    (void)state;
    model m = open_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, 1),
          other = open_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, 1);
    fv_session *s[3] = { conversation_new(&m, 0), conversation_new(&m, 0),
                         conversation_new(&other, 0) };
    fv_piece pieces[3] = { { .size = sizeof *pieces },
                           { .size = sizeof *pieces },
                           { .size = sizeof *pieces } };
    fv_status statuses[3];
    int32_t want[1];
    answer_alone(&m, "Count.", want, 1);
    for (int i = 0; i < 3; i++)
        pose(s[i], "Count.", 4);

    refused(fv_sessions_next(s, 0, pieces, NULL, &err), FV_ERR_ARGUMENT, "n is 0");
    refused(fv_sessions_next(NULL, 2, pieces, NULL, &err), FV_ERR_ARGUMENT, "sessions is NULL");
    refused(fv_sessions_next(s, 2, NULL, NULL, &err), FV_ERR_ARGUMENT, "pieces is NULL");
    refused(fv_sessions_next((fv_session *[]){ s[0], NULL }, 2, pieces, NULL, &err),
            FV_ERR_ARGUMENT, "sessions[1] is NULL");
    refused(fv_sessions_next((fv_session *[]){ s[0], s[1], s[0] }, 3, pieces, NULL, &err),
            FV_ERR_ARGUMENT, "sessions[0] and sessions[2] are the same session");
    refused(fv_sessions_next(s, 3, pieces, NULL, &err), FV_ERR_ARGUMENT,
            "sessions[2] has another engine");
    pieces[0].size = 0;
    refused(fv_sessions_next(s, 2, pieces, NULL, &err), FV_ERR_ARGUMENT, "fv_piece");
    pieces[0].size = sizeof *pieces;
    pieces[1].size = sizeof *pieces - 8;
    refused(fv_sessions_next(s, 2, pieces, NULL, &err), FV_ERR_ARGUMENT, "pieces[1].size");
    pieces[1].size = sizeof *pieces;

    /* Nothing of that changed anything. */
    ok(fv_sessions_next(s, 2, pieces, statuses, &err));
    assert_int_equal(pieces[0].id, want[0]);
    assert_int_equal(pieces[1].id, want[0]);

    /* All failed: so does the call. */
    fv_session_reset(s[0]);
    fv_session_reset(s[1]);
    refused(fv_sessions_next(s, 2, pieces, statuses, &err), FV_ERR_STATE, "nothing to answer");
    assert_int_equal(statuses[0], FV_ERR_STATE);
    assert_int_equal(statuses[1], FV_ERR_STATE);

    /* From a callback of a session that is at work. */
    fv_session *both[2] = { s[1], NULL };
    caller c = { .sessions = both };
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = call_again, .user = &c };
    fv_session_options o = { .size = sizeof o, .callbacks = &callbacks };
    ok(fv_session_new(&both[1], m.engine, &o, &err));
    pose(both[0], "Count.", 2);
    pose(both[1], "Count.", 2);
    ok(fv_sessions_next(both, 2, pieces, NULL, &err));
    err = c.err;
    refused(c.status, FV_ERR_STATE, "sessions[0] is in a call already");
    assert_int_equal(pieces[0].id, want[0]);
    assert_int_equal(pieces[1].id, want[0]);
    fv_session_free(both[1]);
    for (int i = 0; i < 3; i++)
        fv_session_free(s[i]);
    close_model(&m);
    close_model(&other);
}

/* A caller whose fv_piece is larger than the library's: pieces lie as far apart as it says. */
static void test_piece_size(void **state)
{
    (void)state;
    struct {
        fv_piece piece;
        uint64_t later;
    } pieces[2];
    int32_t want[1];
    model m = open_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, 1);
    answer_alone(&m, "Count.", want, 1);
    fv_session *s[2] = { conversation_new(&m, 0), conversation_new(&m, 0) };
    for (int i = 0; i < 2; i++) {
        pose(s[i], "Count.", 2);
        memset(&pieces[i], 0xff, sizeof pieces[i]);
        pieces[i].piece.size = sizeof pieces[i];
    }
    ok(fv_sessions_next(s, 2, &pieces[0].piece, NULL, &err));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pieces[i].piece.id, want[0]);
        assert_int_equal(pieces[i].later, 0);
        fv_session_free(s[i]);
    }
    close_model(&m);
}

/* Every allocation of a step over four sessions fails once: sessions fail by themselves or go on
 * with the bits they would have had. */
static void test_memory(void **state)
{
    (void)state;
    enum { N = 4, CALLS = 3 };
    int32_t want[CALLS];
    size_t n_whole = 0;
    model m = open_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, 2);
    answer_alone(&m, "What do you see?", want, CALLS);
    for (uint64_t fail_at = 0; fail_at < 40; fail_at++) {
        fv_session *s[N];
        fv_status statuses[N];
        fv_piece pieces[N];
        for (int i = 0; i < N; i++) {
            s[i] = conversation_new(&m, 0);
            pose(s[i], "What do you see?", CALLS);
            pieces[i].size = sizeof pieces[i];
            if (i) /* the prompts of the others have run: the step is the first with company */
                ok(fv_sessions_next(&s[i], 1, &pieces[i], NULL, &err));
        }
        ok(fv_sessions_next(&s[0], 1, &pieces[0], NULL, &err));
        fv_mem_fail_after(fail_at);
        fv_status status = fv_sessions_next(s, N, pieces, statuses, &err);
        fv_mem_fail_after(UINT64_MAX);
        size_t n_good = 0;
        for (int i = 0; i < N; i++) {
            assert_true(statuses[i] == FV_OK || statuses[i] == FV_ERR_MEMORY);
            if (statuses[i] != FV_OK)
                continue;
            n_good++;
            assert_int_equal(pieces[i].id, want[1]);
            ok(fv_session_next(s[i], &pieces[i], &err));
            assert_int_equal(pieces[i].id, want[2]);
        }
        assert_int_equal(status, n_good ? FV_OK : FV_ERR_MEMORY);
        n_whole += n_good == N;
        for (int i = 0; i < N; i++)
            fv_session_free(s[i]);
    }
    assert_true(n_whole > 0);
    close_model(&m);
}

/* ---- beside an encoder ----------------------------------------------------------------------- */

enum { IMAGES = 3, ANSWERS = 3 };

typedef struct encoding {
    const model *m;
    const fv_image *image;
    const float *want; /* the features' values */
    size_t n_want;
    atomic_int n_images;
    atomic_bool stop, differs, failed;
    fv_status status;
    fv_error err;
} encoding;

static void *encode_on(void *user)
{
    encoding *e = user;
    while (e->status == FV_OK && !atomic_load(&e->stop)) {
        fv_features *f = NULL;
        size_t n_rows, d;
        e->status = fv_encode(e->m->engine, e->image, NULL, &f, &e->err);
        if (e->status != FV_OK) {
            atomic_store(&e->failed, true);
            break;
        }
        const float *rows = fv_features_rows(f, &n_rows, &d);
        if (n_rows * d != e->n_want || memcmp(rows, e->want, e->n_want * sizeof *rows))
            atomic_store(&e->differs, true);
        fv_features_free(f);
        atomic_fetch_add(&e->n_images, 1);
    }
    return NULL;
}

/* Sessions answer while another thread encodes: both get on, and to the same bits. */
static void test_beside_encoder(void **state)
{
    (void)state;
    enum { N = 3, TOKENS = 8 };
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        int32_t want[TOKENS];
        size_t n_rows, d;
        pthread_t thread;
        fv_image *image;
        model m = open_model(TINY, FV_PRECISION_F32, FV_KV_AUTO, n_threads);
        answer_alone(&m, "What do you see?", want, TOKENS);
        ok(fv_image_open(&image, IMAGE, NULL, &err));
        encoding e = { .m = &m, .image = image };
        e.want = fv_features_rows(m.features, &n_rows, &d);
        e.n_want = n_rows * d;
        assert_int_equal(pthread_create(&thread, NULL, encode_on, &e), 0);
        for (int n = 0;
             n < ANSWERS || (atomic_load(&e.n_images) < IMAGES && !atomic_load(&e.failed)); n++) {
            fv_session *s[N];
            fv_piece pieces[N];
            for (int i = 0; i < N; i++) {
                s[i] = conversation_new(&m, 0);
                pose(s[i], "What do you see?", TOKENS);
                pieces[i].size = sizeof pieces[i];
            }
            for (int call = 0; call < TOKENS; call++) {
                ok(fv_sessions_next(s, N, pieces, NULL, &err));
                for (int i = 0; i < N; i++)
                    assert_int_equal(pieces[i].id, want[call]);
            }
            for (int i = 0; i < N; i++)
                fv_session_free(s[i]);
        }
        atomic_store(&e.stop, true);
        pthread_join(thread, NULL);
        err = e.err;
        ok(e.status);
        assert_false(e.differs);
        assert_true(atomic_load(&e.n_images) >= IMAGES);
        fv_image_free(image);
        close_model(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_beside_encoder),
        cmocka_unit_test(test_piece_size),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_prompts_in_one_pass),
        cmocka_unit_test(test_prompts_that_begin_alike),
        cmocka_unit_test(test_answers_rows_are_not_given),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_prompt_given_up),
        cmocka_unit_test(test_memory_of_prompts),
    };
    work = temp_dir();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(work);
    return failed;
}
