/* fv_layer_fn: every layer of an image, a prompt and a token is told, by name and with its
 * products; nothing else changes. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fastvlm.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define DEMO  FV_SOURCE_DIR "/models/demo/demo.gguf"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

enum { MOST = 1024, NAME = 256 };

static fv_error err;

typedef struct told {
    char name[MOST][NAME];
    double linear_macs, bytes, ms; /* linear_macs: of linear and gated layers */
    size_t n;
} told;

static void ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), err.message);
}

static void take(void *user, const fv_layer *l)
{
    told *t = user;
    assert_int_equal(l->size, sizeof *l);
    assert_true(l->ms >= 0 && l->macs >= 0 && l->bytes >= 0 && l->n_rows > 0);
    assert_true((l->macs > 0) == (l->precision[0] != 0));
    assert_true(t->n < MOST);
    snprintf(t->name[t->n++], NAME, "%s", l->name);
    if (!strcmp(l->kind, "linear") || !strcmp(l->kind, "gated"))
        t->linear_macs += l->macs;
    t->bytes += l->bytes;
    t->ms += l->ms;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Times that this word ends a name, by itself or behind " + " or ".". */
static size_t times_named(const told *t, const char *word)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++)
        for (const char *at = t->name[i]; (at = strstr(at, word)); at += strlen(word)) {
            const char *end = at + strlen(word);
            n += (at == t->name[i] || at[-1] == '.' || at[-1] == ' ') && (!*end || *end == ' ');
        }
    return n;
}

static fv_engine *open_model(const char *path)
{
    fv_engine *e;
    fv_engine_options o = { .size = sizeof o, .n_threads = 2 };
    ok(fv_engine_open(&e, path, &o, &err));
    return e;
}

/* Products of so many rows with the decoder's layers: in the last one, only the last row goes
 * further than to its query, key and value. */
static double layer_macs(const fv_model_info *m, double rows)
{
    double d = m->d_model, q = m->n_heads * m->d_head, kv = m->n_kv_heads * m->d_head,
           before = d * q + 2 * d * kv, after = d * q + 3 * d * m->d_ffn;
    return m->n_layers * rows * before + ((m->n_layers - 1) * rows + 1) * after;
}

static void check_decoder(const char *path)
{
    told *image = calloc(1, sizeof *image), *prompt = calloc(1, sizeof *prompt),
         *token = calloc(1, sizeof *token), *all[] = { image, prompt, token };
    assert_true(image && prompt && token);
    fv_engine *e = open_model(path);
    fv_model_info m = { .size = sizeof m };
    fv_features *f;
    fv_image *picture;
    fv_engine_info(e, &m);
    ok(fv_image_open(&picture, IMAGE, NULL, &err));
    fv_encode_options encode = { .size = sizeof encode, .layer = take, .layer_user = image };
    ok(fv_encode(e, picture, &encode, &f, &err));

    told *now = prompt;
    int32_t ids[2][4];
    for (int watched = 1; watched >= 0; watched--) {
        fv_session *s;
        fv_stats stats = { .size = sizeof stats };
        fv_piece piece = { .size = sizeof piece };
        fv_session_options o = { .size = sizeof o, .layer = watched ? take : NULL };
        o.layer_user = prompt;
        ok(fv_session_new(&s, e, &o, &err));
        ok(fv_session_add_features(s, f, &err));
        ok(fv_session_add_text(s, "What do you see?", 16, &err));
        for (int i = 0; i < 4; i++) {
            const size_t before = prompt->n;
            const double macs = prompt->linear_macs, ms = prompt->ms, start = now_ms();
            ok(fv_session_next(s, &piece, &err));
            ids[watched][i] = piece.id;
            if (!watched)
                continue;
            assert_true(prompt->ms - ms <= now_ms() - start); /* no layer counts twice */
            fv_session_stats(s, &stats);
            const double rows = i ? 1 : stats.prompt_tokens;
            const double want = layer_macs(&m, rows) + (double)m.d_model * m.vocab_rows;
            assert_true(prompt->n > before);
            assert_true(prompt->linear_macs - macs == want);
        }
        fv_session_free(s);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_int_equal(times_named(now, "k_proj"), 4 * m.n_layers);
    assert_int_equal(times_named(now, "down_proj"), 4 * m.n_layers);
    assert_int_equal(times_named(now, "up_proj"), 4 * m.n_layers);
    assert_int_equal(times_named(now, "rope"), 4 * m.n_layers);
    assert_int_equal(times_named(now, "lm_head"), 4);
    int blocks = 0, attention = 0;
    for (int i = 0; i < m.vision_stages; i++) {
        blocks += m.vision_layers[i];
        attention += i >= 3 ? m.vision_layers[i] : 0; /* FastViTHD's last two */
    }
    assert_int_equal(times_named(image, "fc1"), blocks);
    assert_int_equal(times_named(image, "fc2"), blocks);
    assert_int_equal(times_named(image, "qkv"), attention);
    assert_int_equal(times_named(image, "attention"), attention);
    assert_string_equal(image->name[image->n - 1], "model.mm_projector.2");
    for (size_t i = 0; i < 3; i++)
        free(all[i]);
    fv_image_free(picture);
    fv_features_free(f);
    fv_engine_free(e);
}

static void test_floats(void **state)
{
    (void)state;
    check_decoder(TINY);
}

static void test_packed(void **state)
{
    (void)state;
    check_decoder(DEMO);
}

static void test_copies_and_images_have_it(void **state)
{
    (void)state;
    told *t = calloc(1, sizeof *t);
    fv_engine *e = open_model(TINY);
    fv_session *s, *copy;
    fv_image *picture;
    fv_piece piece = { .size = sizeof piece };
    fv_session_options o = { .size = sizeof o, .layer = take, .layer_user = t };
    ok(fv_image_open(&picture, IMAGE, NULL, &err));
    ok(fv_session_new(&s, e, &o, &err));
    ok(fv_session_add_image(s, picture, NULL, &err));
    assert_true(times_named(t, "qkv") > 0);
    ok(fv_session_copy(&copy, s, &err));
    const size_t before = t->n;
    ok(fv_session_next(copy, &piece, &err));
    assert_true(t->n > before);
    fv_session_free(copy);
    fv_session_free(s);
    fv_image_free(picture);
    fv_engine_free(e);
    free(t);
}

static void test_limits(void **state)
{
    (void)state;
    fv_engine *e = open_model(TINY);
    fv_limits l = { .size = sizeof l };
    ok(fv_engine_limits(e, &l, &err));
    assert_true(l.f32_macs > 0 && l.bf16_macs > 0 && l.int8_macs > 0 && l.w8a16_macs > 0);
    assert_true(l.z8_macs > 0 && l.q4_macs > 0 && l.read_bytes > 0);
    l.size = 0;
    assert_int_equal(fv_engine_limits(e, &l, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_engine_limits(NULL, &l, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_engine_limits(e, NULL, &err), FV_ERR_ARGUMENT);
    fv_engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_copies_and_images_have_it),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
