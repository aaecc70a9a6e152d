/* eval through the public header: a model against itself, against bf16 and z8, and what is
 * refused. */
#include "support/cm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "eval/result.h"
#include "eval/task.h"
#include "support/golden.h"

#define GOLDEN  FV_SOURCE_DIR "/tests/data/"
#define TINY    GOLDEN "tiny/checkpoint"
#define PICTURE GOLDEN "tiny/image.png"
#define DEMO    FV_SOURCE_DIR "/tests/data/demo"

static fv_error err;

static fv_engine *open_model(const char *path, fv_precision vision, fv_precision decoder)
{
    fv_engine_options s;
    fv_engine *e;
    fv_engine_options_default(&s);
    s.n_threads = 2;
    s.vision = vision;
    s.decoder = decoder;
    if (fv_engine_open(&e, path, &s, &err) != FV_OK)
        fail_msg("%s", err.message);
    return e;
}

static fv_eval *compare(fv_engine *ref, fv_engine *test, fv_eval_features features)
{
    static const char *const paths[] = { PICTURE, DEMO "/images" };
    fv_eval_options s = { .size = sizeof s,
                          .paths = paths,
                          .n_paths = 2,
                          .max_images = 3,
                          .max_new_tokens = 6,
                          .features = features };
    fv_eval *e;
    if (fv_eval_run(&e, ref, test, &s, &err) != FV_OK)
        fail_msg("%s", err.message);
    return e;
}

static const fv_eval_stage_info *stage(const fv_eval *e, const char *name)
{
    for (size_t i = 0; i < e->info.n_stages; i++)
        if (!strcmp(e->stages[i].name, name))
            return &e->stages[i];
    fail_msg("no stage %s", name);
    return NULL;
}

static void test_itself(void **state)
{
    (void)state;
    fv_engine *m = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32);
    fv_eval *e = compare(m, m, FV_EVAL_BOTH);
    assert_int_equal(e->info.n_images, 3);
    assert_int_equal(e->info.n_skipped, 0);
    assert_true(e->info.own.n_tokens > 0 && e->info.own.n_tokens <= 18);
    assert_int_equal(e->info.own.n_agree, e->info.own.n_tokens);
    assert_int_equal(e->info.ref.n_tokens, e->info.own.n_tokens);
    assert_true(e->info.own.max < 1e-12);
    assert_true(e->info.least_features == 1 && e->info.least_tokens == 1);
    for (size_t i = 0; i < e->info.n_stages; i++)
        assert_true(isinf(e->stages[i].own.sqnr) && e->stages[i].own.cosine == 1);
    assert_true(isnan(stage(e, "vision.stem.0")->ref.sqnr)); /* the decoder's only */
    assert_string_equal(e->stages[0].name, "vision.stem.0");
    assert_string_equal(e->stages[e->info.n_stages - 1].name, "decoder.norm");
    stage(e, "vision.network.4.0");
    stage(e, "vision.conv_exp");
    stage(e, "image_tokens");
    fv_eval_free(e);
    fv_engine_free(m);
}

static void assert_between(const char *what, double x, double low, double high)
{
    if (!(x >= low && x <= high))
        fail_msg("%s is %g, expected %g to %g", what, x, low, high);
}

static void test_bf16(void **state)
{
    (void)state;
    fv_engine *ref = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32),
              *test = open_model(TINY, FV_PRECISION_BF16, FV_PRECISION_BF16);
    fv_eval *e = compare(ref, test, FV_EVAL_BOTH);
    assert_between("features", stage(e, "vision.features")->own.sqnr, 30, 70);
    assert_between("cosine", stage(e, "vision.features")->own.cosine, 0.999, 0.9999999);
    assert_between("a picture's features", e->images[0].features.sqnr, 30, 70);
    assert_between("the worst picture's", e->info.least_features, 0.999, 0.9999999);
    assert_between("last layer", stage(e, "decoder.layer.2")->own.sqnr, 25, 65);
    assert_true(stage(e, "decoder.layer.2")->ref.sqnr > stage(e, "decoder.layer.2")->own.sqnr);
    assert_true(isinf(stage(e, "inputs_embeds")->ref.sqnr) &&
                isfinite(stage(e, "inputs_embeds")->own.sqnr));
    assert_between("KL, own", e->info.own.mean, 1e-7, 1e-3);
    assert_between("KL, ref", e->info.ref.mean, 1e-7, 1e-3);
    assert_true(e->info.own.max >= e->info.own.mean && e->info.own.max >= e->info.own.median &&
                e->info.own.median > 0);
    assert_true(e->info.own.mean != e->info.ref.mean);
    fv_eval_free(e);
    /* each alone gives the same figures */
    fv_eval *own = compare(ref, test, FV_EVAL_OWN), *given = compare(ref, test, FV_EVAL_REF),
            *both = compare(ref, test, FV_EVAL_BOTH);
    assert_true(own->info.ref.n_tokens == 0 && given->info.own.n_tokens == 0);
    assert_true(own->info.own.mean == both->info.own.mean &&
                given->info.ref.mean == both->info.ref.mean);
    assert_true(isnan(stage(own, "decoder.norm")->ref.sqnr) &&
                isnan(stage(given, "decoder.norm")->own.sqnr));
    assert_true(stage(given, "vision.features")->own.sqnr ==
                stage(both, "vision.features")->own.sqnr);
    fv_eval_free(own);
    fv_eval_free(given);
    fv_eval_free(both);
    fv_engine_free(ref);
    fv_engine_free(test);
}

/* The same vision encoder: the decoder's loss is all there is, and both ways are one. */
static void test_packed(void **state)
{
    (void)state;
    char *dir = temp_dir(), file[600];
    fv_pack_options o;
    snprintf(file, sizeof file, "%s/z8.gguf", dir);
    fv_pack_options_default(&o);
    o.vision = FV_PRECISION_F32;
    o.decoder = FV_PRECISION_Z8;
    assert_int_equal(fv_pack(TINY, file, &o, NULL, &err), FV_OK);
    fv_engine *ref = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32),
              *test = open_model(file, FV_PRECISION_AUTO, FV_PRECISION_AUTO);
    fv_eval *e = compare(ref, test, FV_EVAL_BOTH);
    assert_true(isinf(stage(e, "image_tokens")->own.sqnr));
    assert_between("layer", stage(e, "decoder.layer.1")->own.sqnr, 20, 50);
    assert_true(stage(e, "decoder.layer.1")->ref.sqnr == stage(e, "decoder.layer.1")->own.sqnr);
    assert_between("KL", e->info.own.mean, 1e-5, 0.05);
    assert_true(e->info.own.mean == e->info.ref.mean);

    snprintf(file, sizeof file, "%s/plot.svg", dir);
    assert_int_equal(fv_eval_plot(e, "a < b & c", 9, file, &err), FV_OK);
    FILE *f = fopen(file, "r");
    static char text[1 << 16];
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_non_null(strstr(text, "a &lt; b &amp; c"));
    assert_non_null(strstr(text, ">vision.stem.0<"));
    assert_non_null(strstr(text, "</svg>"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    snprintf(file, sizeof file, "%s/none/plot.svg", dir);
    assert_int_equal(fv_eval_plot(e, NULL, 0, file, &err), FV_ERR_IO);
    fv_eval_free(e);
    fv_engine_free(ref);
    fv_engine_free(test);
    temp_remove(dir);
}

static void refuse(fv_engine *ref, fv_engine *test, const fv_eval_options *s, fv_status status,
                   const char *says)
{
    fv_eval *e = (fv_eval *)1;
    assert_int_equal(fv_eval_run(&e, ref, test, s, &err), status);
    assert_null(e);
    if (!strstr(err.message, says))
        fail_msg("\"%s\" does not say \"%s\"", err.message, says);
}

static bool stop(void *user, const char *name, double done)
{
    (void)name;
    (void)done;
    return --*(int *)user < 0;
}

static void test_refused(void **state)
{
    (void)state;
    fv_engine *tiny = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32);
    fv_engine *other = open_model(FV_SOURCE_DIR "/models/demo", FV_PRECISION_F32, FV_PRECISION_F32);
    const char *picture = PICTURE, *text = GOLDEN "tiny/README.md", *none = "/none";
    refuse(tiny, other,
           &(fv_eval_options){ .size = sizeof(fv_eval_options), .paths = &picture, .n_paths = 1 },
           FV_ERR_ARGUMENT, "the same model in different precisions");
    refuse(tiny, tiny,
           &(fv_eval_options){ .size = sizeof(fv_eval_options), .paths = &text, .n_paths = 1 },
           FV_ERR_IO, "none of 1 images can be read");
    refuse(tiny, tiny,
           &(fv_eval_options){ .size = sizeof(fv_eval_options), .paths = &none, .n_paths = 1 },
           FV_ERR_IO, "/none");
    refuse(tiny, tiny, &(fv_eval_options){ .size = sizeof(fv_eval_options) }, FV_ERR_ARGUMENT,
           "n_paths");
    refuse(tiny, tiny,
           &(fv_eval_options){ .size = sizeof(fv_eval_options),
                               .paths = &picture,
                               .n_paths = 1,
                               .max_new_tokens = -1 },
           FV_ERR_ARGUMENT, "max_new_tokens -1");
    for (int calls = 0; calls < 8; calls += 3) {
        int left = calls;
        refuse(tiny, tiny,
               &(fv_eval_options){ .size = sizeof(fv_eval_options),
                                   .paths = &picture,
                                   .n_paths = 1,
                                   .callbacks = &(fv_callbacks){ .size = sizeof(fv_callbacks),
                                                                 .progress = stop,
                                                                 .user = &left } },
               FV_ERR_CANCELLED, "cancelled");
    }
    fv_engine_free(tiny);
    fv_engine_free(other);
}

static void test_broken_picture_is_skipped(void **state)
{
    (void)state;
    fv_engine *tiny = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32);
    const char *paths[] = { GOLDEN "tiny/README.md", PICTURE };
    fv_eval_options s = { .size = sizeof s, .paths = paths, .n_paths = 2, .max_new_tokens = 2 };
    fv_eval *e;
    assert_int_equal(fv_eval_run(&e, tiny, tiny, &s, &err), FV_OK);
    assert_int_equal(e->info.n_images, 1);
    assert_int_equal(e->info.n_skipped, 1);
    assert_string_equal(e->images[0].path, PICTURE);
    fv_eval_free(e);
    fv_engine_free(tiny);
}

/* A session led along another's tokens, with that one's image tokens, computes the same bits. */
static void test_forced(void **state)
{
    (void)state;
    fv_engine *tiny = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32);
    fv_session_options o;
    fv_session *free_one, *led;
    fv_features *features;
    fv_image *image;
    fv_piece piece = { .size = sizeof piece };
    fv_model_info info = { .size = sizeof info };
    fv_engine_info(tiny, &info);
    size_t n_bytes = (size_t)info.vocab_rows * sizeof(float);
    fv_session_options_default(&o);
    fv_answer_options rules = { .size = sizeof rules, .max_new_tokens = 5 };
    assert_int_equal(fv_image_open(&image, PICTURE, NULL, &err), FV_OK);
    assert_int_equal(fv_session_new(&free_one, tiny, &o, &err), FV_OK);
    assert_int_equal(fv_session_new(&led, tiny, &o, &err), FV_OK);
    assert_int_equal(fv_session_force(led, 0, &err), FV_ERR_STATE);
    assert_int_equal(fv_encode(tiny, image, NULL, &features, &err), FV_OK);
    assert_int_equal(fv_session_add_features(free_one, features, &err), FV_OK);
    assert_int_equal(fv_session_add_features(led, features, &err), FV_OK);
    fv_features_free(features);
    for (int turn = 0; turn < 3; turn++) { /* the answers end when five tokens are out */
        assert_int_equal(
            fv_session_add_text(free_one, "What is this?", strlen("What is this?"), &err), FV_OK);
        assert_int_equal(fv_session_add_text(led, "What is this?", strlen("What is this?"), &err),
                         FV_OK);
        assert_int_equal(fv_session_begin(free_one, &rules, &err), FV_OK);
        assert_int_equal(fv_session_force(led, -1, &err), FV_ERR_ARGUMENT);
        for (piece.done = false; !piece.done;) {
            assert_int_equal(fv_session_next(free_one, &piece, &err), FV_OK);
            if (piece.id < 0 || (piece.done && piece.finish == FV_FINISH_STOP))
                continue;
            assert_int_equal(fv_session_force(led, piece.id, &err), FV_OK);
            assert_memory_equal(fv_session_logits(led, NULL), fv_session_logits(free_one, NULL),
                                n_bytes);
        }
    }
    fv_image_free(image);
    fv_session_free(free_one);
    fv_session_free(led);
    fv_engine_free(tiny);
}

/* ---- the demonstration test ---- */

static char *dir;

static int setup(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_remove(dir);
    return 0;
}

static const char *write_file(const char *name, const char *text)
{
    static char path[2][600];
    static int next;
    char *p = path[next++ % 2];
    snprintf(p, 600, "%s/%s", dir, name);
    FILE *f = fopen(p, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return p;
}

static void test_task(void **state)
{
    (void)state;
    fv_engine *demo = open_model(FV_SOURCE_DIR "/models/demo", FV_PRECISION_F32, FV_PRECISION_F32);
    fv_task_options s = { .size = sizeof s, .max_questions = 22 };
    fv_task *t, *again;
    assert_int_equal(fv_task_run(&t, demo, DEMO, &s, &err), FV_OK);
    assert_int_equal(t->n, 22);
    assert_int_equal(t->n_kinds, 11);
    size_t n = 0, correct = 0;
    for (size_t i = 0; i < t->n_kinds; i++) {
        n += t->kinds[i].share.n;
        correct += t->kinds[i].share.n_correct;
        assert_true(i == 0 || strcmp(t->kinds[i - 1].kind, t->kinds[i].kind) < 0);
    }
    assert_int_equal(n, t->n);
    assert_int_equal(correct, t->n_correct);
    /* All 22 in f32, at every instruction level; a retrained model may miss one of them. */
    assert_true(t->n_correct >= 21);

    char *path = strdup(write_file("answers.jsonl", ""));
    assert_int_equal(fv_task_save(t, path, &err), FV_OK);
    assert_int_equal(fv_task_score(&again, DEMO, path, &s, &err), FV_OK);
    assert_int_equal(again->n_correct, t->n_correct);
    for (size_t i = 0; i < t->n; i++)
        assert_string_equal(again->answers[i].answer, t->answers[i].answer);
    free(path);
    fv_task_free(again);
    fv_task_free(t);
    fv_engine_free(demo);
}

/* The text of a picture's earlier turns, put into the model's mouth, is what it would see had it
 * said them itself. */
static void test_history(void **state)
{
    (void)state;
    fv_engine *demo = open_model(FV_SOURCE_DIR "/models/demo", FV_PRECISION_F32, FV_PRECISION_F32);
    fv_session *session;
    fv_image *image;
    fv_piece piece = { .size = sizeof piece };
    fv_task *t;
    fv_task_options s = { .size = sizeof s };
    char first[512] = "", second[512] = "", line[2048], picture[600];
    snprintf(picture, sizeof picture, "%s/images/00010.jpg", DEMO);
    assert_int_equal(fv_image_open(&image, picture, NULL, &err), FV_OK);
    assert_int_equal(fv_session_new(&session, demo, NULL, &err), FV_OK);
    assert_int_equal(fv_session_add_image(session, image, NULL, &err), FV_OK);
    for (int turn = 0; turn < 2; turn++) {
        char *to = turn ? second : first;
        assert_int_equal(fv_session_add_text(session,
                                             turn ? "What color is it?" : "Where is the star?",
                                             turn ? 17 : 18, &err),
                         FV_OK);
        for (piece.done = false; !piece.done;) {
            assert_int_equal(fv_session_next(session, &piece, &err), FV_OK);
            strncat(to, piece.text, piece.n_bytes);
        }
    }
    fv_session_free(session);
    fv_image_free(image);
    snprintf(line, sizeof line,
             "{\"image\": \"%s\", \"kind\": \"followup\", \"question\": \"What color is it?\", "
             "\"answer\": \"%s\", "
             "\"history\": [[\"Where is the star?\", \"%s\"]]}\n",
             "00010.jpg", second, first);
    write_file("questions.jsonl", line);
    snprintf(line, sizeof line, "%s/00010.jpg", dir);
    assert_int_equal(symlink(picture, line), 0);
    assert_int_equal(fv_task_run(&t, demo, dir, &s, &err), FV_OK);
    assert_string_equal(t->answers[0].answer, second);
    assert_true(t->answers[0].correct);
    fv_task_free(t);
    fv_engine_free(demo);
}

/* Earlier turns change what a model of random weights says to every question. */
static void test_history_matters(void **state)
{
    (void)state;
    static char with[1 << 16], without[1 << 16];
    char line[4096], link[600];
    FILE *f = fopen(DEMO "/questions.jsonl", "r");
    assert_non_null(f);
    *with = *without = 0;
    while (fgets(line, sizeof line, f)) {
        char *history = strstr(line, "\"history\": [[");
        if (!history)
            continue;
        strcat(with, line);
        strcpy(history, "\"history\": []}\n");
        strcat(without, line);
    }
    fclose(f);
    snprintf(link, sizeof link, "%s/images", dir);
    assert_int_equal(symlink(DEMO "/images", link), 0);
    fv_engine *tiny = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32);
    fv_task_options settings = { .size = sizeof settings, .max_new_tokens = 12 };
    fv_task *t[2];
    size_t other = 0;
    for (int i = 0; i < 2; i++) {
        write_file("questions.jsonl", i ? without : with);
        assert_int_equal(fv_task_run(&t[i], tiny, dir, &settings, &err), FV_OK);
    }
    for (size_t i = 0; i < t[0]->n; i++)
        other += strcmp(t[0]->answers[i].answer, t[1]->answers[i].answer) != 0;
    assert_true(t[0]->n >= 10 && other > t[0]->n / 2);
    fv_task_free(t[0]);
    fv_task_free(t[1]);
    fv_engine_free(tiny);
}

/* What the model says to a turn after those before, taken from the session by hand; without the
 * spaces around it, as the test keeps it. */
static void ask_by_hand(fv_session *session, const char *question, char said[512])
{
    fv_answer_options o = { .size = sizeof o, .max_new_tokens = 12 };
    fv_piece piece = { .size = sizeof piece };
    assert_int_equal(fv_session_add_text(session, question, strlen(question), &err), FV_OK);
    assert_int_equal(fv_session_begin(session, &o, &err), FV_OK);
    for (*said = 0; !piece.done;) {
        assert_int_equal(fv_session_next(session, &piece, &err), FV_OK);
        strncat(said, piece.text, piece.n_bytes);
    }
    size_t n = strlen(said), lead = strspn(said, " \t\n\v\f\r");
    while (n > lead && strchr(" \t\n\v\f\r", said[n - 1]))
        n--;
    said[n] = 0;
    memmove(said, said + lead, n - lead + 1);
}

/* Turns follow the model's own answers, or what is said in their place; images come before the
 * first, in order. */
#define ASKED(kind) "{\"kind\": \"" kind "\", \"question\": \"%s\", \"answer\": \"\"}"

static void test_conversations(void **state)
{
    (void)state;
    static const char *const names[] = { "00000.jpg", "00010.jpg" };
    static const char *const questions[] = { "How many shapes are there?", "What color is it?",
                                             "Where is it?", "What do you see?",
                                             "Describe the picture." };
    /* of random weights: everything before an answer changes it */
    fv_engine *tiny = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32);
    fv_task_options o = { .size = sizeof o, .max_new_tokens = 12 };
    fv_session *session;
    fv_features *features[2];
    fv_task *t, *again;
    char said[5][512], link[600];
    static char test[8192];
    snprintf(link, sizeof link, "%s/images", dir);
    assert_int_equal(symlink(DEMO "/images", link), 0);
    for (int i = 0; i < 2; i++) {
        fv_image *image;
        snprintf(link, sizeof link, DEMO "/images/%s", names[i]);
        assert_int_equal(fv_image_open(&image, link, NULL, &err), FV_OK);
        assert_int_equal(fv_encode(tiny, image, NULL, &features[i], &err), FV_OK);
        fv_image_free(image);
    }
    assert_int_equal(fv_session_new(&session, tiny, NULL, &err), FV_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(fv_session_add_features(session, features[1 - i], &err), FV_OK);
    ask_by_hand(session, questions[0], said[0]);
    ask_by_hand(session, questions[1], said[1]);
    ask_by_hand(session, questions[2], said[2]);
    fv_session_reset(session);
    assert_int_equal(fv_session_add_features(session, features[1], &err), FV_OK);
    assert_int_equal(fv_session_add_text(session, questions[0], strlen(questions[0]), &err), FV_OK);
    assert_int_equal(fv_session_add_answer(session, "7", 1, &err), FV_OK);
    ask_by_hand(session, questions[3], said[3]);
    fv_session_reset(session);
    ask_by_hand(session, questions[4], said[4]);
    snprintf(test, sizeof test,
             "{\"images\": [\"images/00010.jpg\", \"images/00000.jpg\"], \"turns\": [" ASKED(
                 "b") ", " ASKED("a") ", " ASKED("b") "]}\n"
                                                      "{\"image\": \"images/00010.jpg\", "
                                                      "\"turns\": [{\"question\": \"%s\", "
                                                      "\"said\": \"7\"}, " ASKED(
                                                          "a") "]}\n{\"images\": [], \"turns\": "
                                                               "[" ASKED("a") "]}\n",
             questions[0], questions[1], questions[2], questions[0], questions[3], questions[4]);
    write_file("questions.jsonl", test);
    assert_int_equal(fv_task_run(&t, tiny, dir, &o, &err), FV_OK);
    assert_true(t->n == 5 && t->n_kinds == 2 && t->n_turns == 3 && t->has_conversations);
    for (size_t i = 0; i < t->n; i++)
        assert_string_equal(t->answers[i].answer, said[i]);
    assert_true(t->answers[3].conversation == 2 && t->answers[3].turn == 2);
    assert_true(t->turns[0].n == 2 && t->turns[1].n == 2 && t->turns[2].n == 1);

    char *path = strdup(write_file("answers.jsonl", ""));
    assert_int_equal(fv_task_save(t, path, &err), FV_OK);
    assert_int_equal(fv_task_score(&again, dir, path, NULL, &err), FV_OK);
    for (size_t i = 0; i < t->n; i++)
        assert_string_equal(again->answers[i].answer, t->answers[i].answer);
    assert_int_equal(again->n_correct, t->n_correct);
    fv_task_free(again);
    free(path);
    fv_task_free(t);
    fv_session_free(session);
    fv_features_free(features[0]);
    fv_features_free(features[1]);

    /* what the context cannot hold is said with its line */
    size_t n = (size_t)snprintf(test, sizeof test,
                                "\n{\"images\": [], \"turns\": [{\"kind\": \"k\", \"answer\": "
                                "\"a\", \"question\": \"");
    memset(test + n, '?', 4096);
    strcpy(test + n + 4096, "\"}]}");
    write_file("questions.jsonl", test);
    assert_int_equal(fv_task_run(&t, tiny, dir, &o, &err), FV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "questions.jsonl, line 2: "));
    fv_engine_free(tiny);
}

static void refuse_score(const char *questions, const char *answers, fv_status status,
                         const char *says)
{
    fv_task *t = (fv_task *)1;
    write_file("questions.jsonl", questions);
    assert_int_equal(fv_task_score(&t, dir, write_file("answers.jsonl", answers), NULL, &err),
                     status);
    assert_null(t);
    if (!strstr(err.message, says))
        fail_msg("\"%s\" does not say \"%s\"", err.message, says);
}

#define Q(image, wanted)                                                                     \
    "{\"image\": \"" image "\", \"kind\": \"k\", \"question\": \"q\", \"answer\": \"" wanted \
    "\", \"history\": []}\n"

#define SAID(answer) "{\"question\": \"s\", \"said\": \"" answer "\"}"
#define TALK                                                                                       \
    "{\"images\": [\"a\", \"b\"], \"turns\": [{\"kind\": \"k\", \"question\": \"q\", \"answer\": " \
    "\"1\"}, " SAID("b") ", {\"kind\": \"k\", \"question\": \"r\", \"answer\": \"2\"}]}\n"

static void test_score(void **state)
{
    (void)state;
    fv_task *t;
    write_file("questions.jsonl", Q("a", "1") "\n" Q("b", "2") Q("c", "3"));
    /* in order; what is missing is wrong */
    assert_int_equal(
        fv_task_score(&t, dir, write_file("a.jsonl", "{\"answer\": \"1\"}\n{\"answer\": \"3\"}"),
                      NULL, &err),
        FV_OK);
    assert_true(t->n == 3 && t->n_correct == 1 && t->answers[0].correct && t->n_unanswered == 1);
    fv_task_free(t);
    /* by name, the last one counts */
    const char *named = "{\"image\": \"c\", \"question\": \"q\", \"answer\": \"3\"}\n{\"image\": "
                        "\"b\", \"question\": \"q\", \"answer\": \"2\"}\n"
                        "{\"image\": \"b\", \"question\": \"q\", \"answer\": \"4\"}\n{\"image\": "
                        "\"a\", \"question\": \"?\", \"answer\": \"1\"}\n";
    assert_int_equal(fv_task_score(&t, dir, write_file("a.jsonl", named), NULL, &err), FV_OK);
    assert_true(t->n_correct == 1 && t->answers[2].correct && t->n_unanswered == 1);
    assert_string_equal(t->answers[1].answer, "4");
    fv_task_free(t);
    assert_int_equal(
        fv_task_score(&t, dir, write_file("a.jsonl", "{\"answer\": \" \"}"), NULL, &err), FV_OK);
    assert_true(t->n_correct == 0 && t->n_unanswered == 3);
    fv_task_free(t);
    /* conversations in order, whatever names their answers have */
    write_file("questions.jsonl", TALK Q("c", "3"));
    named = "{\"image\": \"x\", \"question\": \"q\", \"answer\": \"1\"}\n{\"question\": \"r\", "
            "\"answer\": \"0\"}\n{\"answer\": \"3\"}\n";
    assert_int_equal(fv_task_score(&t, dir, write_file("a.jsonl", named), NULL, &err), FV_OK);
    assert_true(t->n == 3 && t->n_correct == 2 && t->n_turns == 3);
    assert_true(t->turns[0].n == 2 && t->turns[1].n == 0 && t->turns[2].n == 1);
    assert_true(t->turns[0].n_correct == 2 && t->turns[2].n_correct == 0);
    fv_task_free(t);
    refuse_score("", "", FV_ERR_FORMAT, "contains no questions");
    refuse_score("[]", "", FV_ERR_FORMAT, "line 1: expected an object");
    refuse_score(Q("a", "1") "{\"image\": \"a\"", "", FV_ERR_FORMAT, "line 2");
    refuse_score("{\"image\": \"a\", \"kind\": \"k\", \"question\": 1, \"answer\": \"\"}", "",
                 FV_ERR_FORMAT, "question: expected a string");
    refuse_score("{\"image\": \"a\", \"kind\": \"k\", \"question\": \"\", \"answer\": \"\", "
                 "\"history\": [[\"a\", \"\"]]}",
                 "", FV_ERR_FORMAT, "history: turn 0");
    refuse_score(Q("a", "1"), "{\"text\": \"1\"}", FV_ERR_FORMAT, "answer");
    refuse_score("{\"kind\": \"k\", \"question\": \"q\", \"answer\": \"\"}", "", FV_ERR_FORMAT,
                 "either image or images, found neither");
    refuse_score("{\"image\": \"a\", \"images\": [], \"turns\": []}", "", FV_ERR_FORMAT,
                 "found both");
    refuse_score("{\"images\": [\"a\", 2], \"turns\": []}", "", FV_ERR_FORMAT,
                 "images.1: expected");
    refuse_score("{\"images\": [], \"turns\": []}", "", FV_ERR_FORMAT,
                 "at least one that is to be");
    refuse_score("{\"images\": [], \"turns\": [" SAID("b") "]}", "", FV_ERR_FORMAT,
                 "at least one that is to be");
    refuse_score("{\"images\": [], \"turns\": [" SAID("") "]}", "", FV_ERR_FORMAT, "turns.0.said");
    refuse_score("{\"images\": [], \"turns\": [1]}", "", FV_ERR_FORMAT,
                 "turns.0: expected an object");
    refuse_score("{\"images\": [], \"turns\": [" SAID("b") ", {\"kind\": \"k\", \"question\": "
                                                           "\"q\"}]}",
                 "", FV_ERR_FORMAT, "turns.1.answer is missing");
    refuse_score("{\"images\": [], \"turns\": [1], \"history\": []}", "", FV_ERR_FORMAT,
                 "either turns or history");
    refuse_score(TALK,
                 "{\"question\": \"q\", \"answer\": \"1\"}\n{\"question\": \"no\", "
                 "\"answer\": \"\"}",
                 FV_ERR_FORMAT, "answers \"no\"; expected the answer to \"r\"");
    assert_int_equal(fv_task_score(&t, "/none", "x", NULL, &err), FV_ERR_IO);
    assert_int_equal(fv_task_score(&t, dir, "/none", NULL, &err), FV_ERR_IO);
}

/* Whichever allocation fails, it is said and nothing is kept. */
static void test_out_of_memory(void **state)
{
    (void)state;
    static const char *const paths[] = { PICTURE };
    fv_eval_options s = { .size = sizeof s, .paths = paths, .n_paths = 1, .max_new_tokens = 2 };
    fv_engine *ref = open_model(TINY, FV_PRECISION_F32, FV_PRECISION_F32),
              *test = open_model(TINY, FV_PRECISION_BF16, FV_PRECISION_BF16);
    fv_eval *e = NULL;
    fv_task *t = NULL;
    assert_int_equal(fv_eval_run(&e, ref, test, &s, &err),
                     FV_OK); /* engines keep their encoder's */
    fv_eval_free(e);
    int64_t held = fv_mem_live();
    fv_status status;
    uint64_t n = 0;
    do {
        fv_mem_fail_after(n);
        status = fv_eval_run(&e, ref, test, &s, &err);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        assert_true(status == FV_OK || (!e && fv_mem_live() == held));
        n += 1 + n / 32;
    } while (status != FV_OK);
    assert_true(n > 100);
    fv_mem_fail_after(UINT64_MAX);
    fv_eval_free(e);
    write_file("questions.jsonl", Q("a", "1") TALK);
    const char *answers = write_file("answers.jsonl", "{\"answer\": \"1\"}\n{\"answer\": \"3\"}");
    n = 0;
    do {
        fv_mem_fail_after(n++);
        status = fv_task_score(&t, dir, answers, NULL, &err);
        assert_true(status == FV_OK || (status == FV_ERR_MEMORY && !t && fv_mem_live() == held));
    } while (status != FV_OK);
    fv_mem_fail_after(UINT64_MAX);
    fv_task_free(t);
    assert_int_equal(fv_mem_live(), held);
    fv_engine_free(ref);
    fv_engine_free(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_itself),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_broken_picture_is_skipped),
        cmocka_unit_test(test_forced),
        cmocka_unit_test_setup_teardown(test_task, setup, teardown),
        cmocka_unit_test_setup_teardown(test_history, setup, teardown),
        cmocka_unit_test_setup_teardown(test_history_matters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conversations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_score, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
