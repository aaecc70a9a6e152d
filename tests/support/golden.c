
#include "support/golden.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fastvlm_tools.h"

#include "support/cm.h"

static void convert(npy *a, FILE *f, const char *descr, const char *path)
{
    uint8_t *raw = malloc(a->n * 4 + 1);
    size_t size = !strcmp(descr, "|u1") ? 1 : 4;
    assert_non_null(raw);
    if (fread(raw, size, a->n, f) != a->n)
        fail_msg("%s: too short", path);
    for (size_t i = 0; i < a->n; i++) {
        int32_t v;
        if (size == 1)
            a->data[i] = raw[i];
        else if (!strcmp(descr, "<f4"))
            memcpy(&a->data[i], raw + 4 * i, 4);
        else {
            memcpy(&v, raw + 4 * i, 4);
            a->data[i] = (float)v;
        }
    }
    free(raw);
}

npy npy_read(const char *dir, const char *name)
{
    char path[1024], header[1024] = { 0 }, descr[8] = { 0 };
    uint8_t start[10];
    npy a = { 0 };
    snprintf(path, sizeof path, "%s/%s.npy", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: missing", path);
    assert_int_equal(fread(start, 1, 10, f), 10);
    size_t length = start[8] + 256u * start[9];
    assert_true(length < sizeof header);
    assert_int_equal(fread(header, 1, length, f), length);
    const char *d = strstr(header, "'descr': '"), *s = strstr(header, "'shape': (");
    assert_non_null(d);
    assert_non_null(s);
    memcpy(descr, d + 10, 3);
    a.n = 1;
    for (s += 10; *s && *s != ')';) {
        char *end;
        size_t dim = strtoul(s, &end, 10);
        if (end == s) {
            s++;
            continue;
        }
        a.shape[a.n_dims++] = dim;
        a.n *= dim;
        s = end;
    }
    a.data = malloc(a.n * sizeof *a.data + 1);
    assert_non_null(a.data);
    convert(&a, f, descr, path);
    fclose(f);
    return a;
}

void npy_free(npy *a)
{
    free(a->data);
    *a = (npy){ 0 };
}

double relative_l2(const float *got, const float *want, size_t n)
{
    double d = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        w += (double)want[i] * want[i];
    }
    return sqrt(d / (w > 0 ? w : 1));
}

double max_abs_diff(const float *got, const float *want, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (!(d <= worst))
            worst = d;
    }
    return worst;
}

char *temp_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *path = malloc(1024);
    assert_non_null(path);
    snprintf(path, 1024, "%s/fastvlm-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(path))
        fail_msg("%s: cannot create", path);
    return path;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st;
    (void)flag;
    (void)at;
    return remove(path);
}

void temp_remove(char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}

answer run_ask(const ask *a)
{
    answer out = { .stats.size = sizeof out.stats };
    fv_error err = { 0 };
    fv_engine *engine = NULL;
    fv_session *session = NULL;
    fv_image *image = NULL;
    fv_engine_options settings;
    fv_session_options options;
    fv_piece piece = { .size = sizeof piece };
    size_t at = 0;
    fv_engine_options_default(&settings);
    settings.vision = a->vision;
    settings.decoder = a->decoder;
    settings.n_threads = a->n_threads ? a->n_threads : 2;
    fv_session_options_default(&options);
    fv_answer_options rules = { .size = sizeof rules,
                                .max_new_tokens = a->max_new,
                                .ignore_end = a->ignore_eos };
    fv_encode_options encode = { .size = sizeof encode, .fit = a->fit };
    fv_dump *dump = NULL;
    if (a->dump_dir) {
        if (fv_dump_open(&dump, a->dump_dir, &err) != FV_OK)
            fail_msg("%s", err.message);
        options.tap = fv_dump_tap;
        options.tap_user = dump;
        options.tap_prompt_logits = true;
    }
    if (fv_engine_open(&engine, a->dir, &settings, &err) != FV_OK ||
        fv_session_new(&session, engine, &options, &err) != FV_OK)
        fail_msg("%s", err.message);
    if (a->image) {
        if (fv_image_open(&image, a->image, NULL, &err) != FV_OK ||
            fv_session_add_image(session, image, &encode, &err) != FV_OK)
            fail_msg("%s", err.message);
    }
    if (fv_session_add_text(session, a->prompt, strlen(a->prompt), &err) != FV_OK)
        fail_msg("%s", err.message);
    if (fv_session_begin(session, &rules, &err) != FV_OK)
        fail_msg("%s", err.message);
    while (!piece.done) {
        if (fv_session_next(session, &piece, &err) != FV_OK)
            fail_msg("%s", err.message);
        if (piece.id >= 0)
            out.ids[out.n++] = piece.id;
        memcpy(out.text + at, piece.text, piece.n_bytes);
        at += piece.n_bytes;
    }
    out.finish = piece.finish;
    fv_session_stats(session, &out.stats);
    if (dump && fv_dump_commit(dump, &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_dump_free(dump);
    fv_image_free(image);
    fv_session_free(session);
    fv_engine_free(engine);
    return out;
}
