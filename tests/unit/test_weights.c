/* model/weights: the walk over steps and parameters, layer groups, and which mixtures of int8 and
 * floats a packed file may have. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/weights.h"

/* A small model of the usual form: stages of RepMixer blocks, then of attention blocks. */
static fv_config small(void)
{
    fv_config c = { .image_size = 64,
                    .n_stages = 3,
                    .stage = { { .depth = 2, .width = 8, .hidden = 16 },
                               { .depth = 1, .width = 16, .hidden = 32, .cpe = 7 },
                               { .depth = 2, .width = 32, .hidden = 64, .attention = true } },
                    .mixer_kernel = 3,
                    .down_kernel = 7,
                    .n_features = 64,
                    .n_squeeze = 4,
                    .d_head_vision = 8,
                    .d_model = 32,
                    .d_ffn = 64,
                    .n_layers = 2,
                    .n_heads = 4,
                    .n_kv_heads = 2,
                    .d_head = 8,
                    .n_vocab = 10 };
    return c;
}

static void test_steps(void **state)
{
    static const fv_vision_step want[] = {
        { FV_VISION_STEM, 0, 0, 0, 1 },       { FV_VISION_REPMIXER, 0, 0, 0, 4 },
        { FV_VISION_REPMIXER, 0, 1, 0, 4 },   { FV_VISION_DOWN, 0, 2, 1, 4 },
        { FV_VISION_CPE, 1, 0, 2, 8 },        { FV_VISION_REPMIXER, 1, 0, 3, 8 },
        { FV_VISION_DOWN, 1, 1, 4, 8 },       { FV_VISION_ATTENTION, 2, 0, 5, 16 },
        { FV_VISION_ATTENTION, 2, 1, 5, 16 }, { FV_VISION_EXPAND, 2, 2, 6, 16 },
        { FV_VISION_PROJECTOR, 2, 2, 6, 16 },
    };
    const fv_config c = small();
    size_t n = 0;
    (void)state;
    for (fv_vision_step s = { 0 }; fv_vision_walk(&c, &s); n++) {
        assert_true(n < FV_COUNT(want));
        assert_int_equal(s.kind, want[n].kind);
        assert_int_equal(s.stage, want[n].stage);
        assert_int_equal(s.block, want[n].block);
        assert_int_equal(s.network, want[n].network);
        assert_int_equal(s.reduction, want[n].reduction);
    }
    assert_int_equal(n, FV_COUNT(want));
    assert_int_equal(fv_vision_block_count(&c), 5);
}

enum { MAX_WEIGHTS = 128 };

typedef struct listing {
    fv_weight weight[MAX_WEIGHTS];
    char name[MAX_WEIGHTS][FV_PACKED_NAME];
    size_t n;
} listing;

static fv_status list_weight(void *user, const fv_weight *t, fv_error *err)
{
    listing *l = user;
    (void)err;
    assert_true(l->n < MAX_WEIGHTS);
    assert_int_equal(t->index, l->n);
    fv_weight_packed_name(l->name[l->n], t, "");
    l->weight[l->n++] = *t;
    return FV_OK;
}

static void list_all(listing *l, fv_weights *w, const fv_config *c)
{
    fv_error err;
    l->n = 0;
    assert_int_equal(fv_weights_walk(w, c, list_weight, l, &err), FV_OK);
}

/* Which layers form a group, by the ends of their names. */
static void test_groups(void **state)
{
    static const char *const want[] = {
        "0.0.convffn.conv 0.0.convffn.fc1 0.0.convffn.fc2",
        "0.1.convffn.conv 0.1.convffn.fc1 0.1.convffn.fc2",
        "1.proj.0.lkb_reparam 1.proj.1.reparam_conv",
        "3.0.convffn.conv 3.0.convffn.fc1 3.0.convffn.fc2",
        "4.proj.0.lkb_reparam 4.proj.1.reparam_conv",
        "5.0.token_mixer.qkv",
        "5.0.token_mixer.proj",
        "5.0.convffn.conv 5.0.convffn.fc1 5.0.convffn.fc2",
        "5.1.token_mixer.qkv",
        "5.1.token_mixer.proj",
        "5.1.convffn.conv 5.1.convffn.fc1 5.1.convffn.fc2",
        "model.mm_projector.0",
        "model.mm_projector.2",
    };
    const fv_config c = small();
    fv_weights w;
    fv_error err;
    static listing l;
    char got[FV_COUNT(want)][256] = { "" };
    (void)state;
    assert_int_equal(fv_weights_alloc(&w, &c, &err), FV_OK);
    list_all(&l, &w, &c);
    for (size_t i = 0; i < l.n; i++) {
        const fv_weight *t = &l.weight[i];
        const char *name = l.name[i];
        if (t->group < 0)
            continue;
        assert_true((size_t)t->group < FV_COUNT(want) && t->part != FV_PART_DECODER);
        if (!strncmp(name, "vision.network.", strlen("vision.network.")))
            name += strlen("vision.network.");
        size_t at = strlen(got[t->group]);
        snprintf(got[t->group] + at, sizeof got[0] - at, "%s%s", at ? " " : "", name);
    }
    for (size_t i = 0; i < FV_COUNT(want); i++)
        assert_string_equal(got[i], want[i]);
    fv_weights_free(&w);
}

/* The same index is the same weight, in memory of its own. */
static void test_share(void **state)
{
    const fv_config c = small();
    fv_weights w, shared;
    fv_error err;
    static listing l, twins;
    (void)state;
    assert_int_equal(fv_weights_alloc(&w, &c, &err), FV_OK);
    list_all(&l, &w, &c);
    for (size_t i = 0; i < l.n; i++)
        if (fv_weight_is_matrix(&l.weight[i]))
            ((fv_mat *)l.weight[i].slot)->n = i + 1;
    assert_int_equal(fv_weights_share_vision(&shared, &w, &c, &err), FV_OK);
    list_all(&twins, &shared, &c);
    assert_int_equal(l.weight[twins.n].part, FV_PART_DECODER);
    for (size_t i = 0; i < twins.n; i++) {
        assert_string_equal(twins.name[i], l.name[i]);
        assert_ptr_not_equal(twins.weight[i].slot, l.weight[i].slot);
        if (fv_weight_is_matrix(&l.weight[i]))
            assert_int_equal(((fv_mat *)twins.weight[i].slot)->n, i + 1);
    }
    fv_weights_free(&shared);
    fv_weights_free(&w);
}

/* ---- binding ---- */

enum { MAX_TENSORS = 5 * MAX_WEIGHTS, DATA_BYTES = 1 << 20 };

typedef struct maker {
    fv_tensor tensor[MAX_TENSORS];
    char name[MAX_TENSORS][FV_PACKED_NAME];
    size_t n, used;
    const char *const *int8; /* ends of names, up to NULL */
    bool fine;               /* their matrices are in w8a16 */
    bool both;               /* with the zero of int8 besides */
} maker;

static uint8_t zeros[DATA_BYTES];

static void put_tensor(maker *m, const fv_weight *t, const char *suffix, fv_type type, size_t rows,
                       size_t columns)
{
    size_t n = rows * (columns ? columns : 1), bytes = fv_row_bytes(type, n);
    assert_true(m->n < MAX_TENSORS && m->used + bytes <= DATA_BYTES);
    fv_weight_packed_name(m->name[m->n], t, suffix);
    m->tensor[m->n] = (fv_tensor){ .name = m->name[m->n],
                                   .type = type,
                                   .n_dims = columns ? 2 : 1,
                                   .shape = { rows, columns },
                                   .data = zeros + m->used,
                                   .n_elems = n,
                                   .n_bytes = bytes };
    m->used += (bytes + 3) / 4 * 4;
    m->n++;
}

static bool is_wanted_int8(const maker *m, const fv_weight *t)
{
    char name[FV_PACKED_NAME];
    fv_weight_packed_name(name, t, "");
    for (const char *const *end = m->int8; *end; end++)
        if (strlen(name) >= strlen(*end) && !strcmp(name + strlen(name) - strlen(*end), *end))
            return true;
    return false;
}

/* The tensors of a weight as a packed file has them. */
static fv_status make_weight(void *user, const fv_weight *t, fv_error *err)
{
    maker *m = user;
    const bool depthwise = fv_weight_is_depthwise(t), int8 = is_wanted_int8(m, t);
    const size_t taps = t->kernel * t->kernel;
    (void)err;
    if (t->kind == FV_WEIGHT_VECTOR) {
        put_tensor(m, t, "", FV_TYPE_F32, t->n, 0);
        return FV_OK;
    }
    const fv_type type = int8 ? FV_TYPE_I8 : FV_TYPE_F32;
    if (depthwise)
        put_tensor(m, t, ".weight", type, taps, t->n);
    else
        put_tensor(m, t, ".weight", type, t->n, t->k * (t->kind == FV_WEIGHT_STEM ? taps : 1));
    if (int8 || t->kind != FV_WEIGHT_MATRIX)
        put_tensor(m, t, ".bias", int8 && !depthwise ? FV_TYPE_I32 : FV_TYPE_F32, t->n, 0);
    if (int8) {
        put_tensor(m, t, ".scale", FV_TYPE_F32, t->n, 0);
        put_tensor(m, t, ".inv", FV_TYPE_F32, t->k, 0);
        put_tensor(m, t, m->fine && !depthwise ? ".zero16" : ".zero", FV_TYPE_I32, 1, 0);
        if (m->both)
            put_tensor(m, t, ".zero", FV_TYPE_I32, 1, 0);
    }
    return FV_OK;
}

static bool both_zeros; /* in what check_kinds binds */

/* Binds the small model with these layers in int8, or fine, matrices in w8a16; part: of the
 * message, NULL: it is bound. */
static void check_kinds(const char *const *int8, bool fine, fv_status expected, const char *part,
                        bool any)
{
    const fv_config c = small();
    static maker m;
    fv_weights w;
    fv_tensors *tensors = NULL;
    fv_error err = { 0 };
    m.n = m.used = 0;
    m.int8 = int8;
    m.fine = fine;
    m.both = both_zeros;
    assert_int_equal(fv_weights_alloc(&w, &c, &err), FV_OK);
    assert_int_equal(fv_weights_walk(&w, &c, make_weight, &m, &err), FV_OK);
    fv_weights_free(&w);
    if (fv_tensors_from_list(&tensors, m.tensor, m.n, "small.gguf", &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_status status = fv_weights_bind(&w, &c, tensors, &err);
    if (status != expected || (part && !strstr(err.message, part)))
        fail_msg("%s: status %s: %s", int8[0] ? int8[0] : "floats", fv_status_name(status),
                 err.message);
    if (status == FV_OK) {
        assert_int_equal(fv_vision_has_int8(&c, &w.vision, false), any);
        assert_int_equal(fv_vision_has_int8(&c, &w.vision, true), int8[0] != NULL);
        fv_weights_free(&w);
    }
    fv_tensors_free(tensors);
}

static void check_bind(const char *const *int8, fv_status expected, const char *part, bool any)
{
    check_kinds(int8, false, expected, part, any);
}

#define INT8(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void test_bind(void **state)
{
    (void)state;
    check_bind((const char *const[]){ NULL }, FV_OK, NULL, false);
    /* whole groups, one of each kind, alone */
    check_bind(INT8("1.proj.0.lkb_reparam", "1.proj.1.reparam_conv"), FV_OK, NULL, true);
    check_bind(INT8("0.1.convffn.conv", "0.1.convffn.fc1", "0.1.convffn.fc2"), FV_OK, NULL, true);
    check_bind(INT8("5.1.convffn.conv", "5.1.convffn.fc1", "5.1.convffn.fc2"), FV_OK, NULL, true);
    check_bind(INT8("5.1.token_mixer.qkv"), FV_OK, NULL, true);
    check_bind(INT8("5.1.token_mixer.proj"), FV_OK, NULL, true);
    check_bind(INT8("mm_projector.0"), FV_OK, NULL, true);
    check_bind(INT8("mm_projector.2"), FV_OK, NULL, true);
    /* parts of groups */
    check_bind(INT8("1.proj.0.lkb_reparam"), FV_ERR_UNSUPPORTED, "1.proj.1.reparam_conv.weight",
               false);
    check_bind(INT8("0.0.convffn.fc1"), FV_ERR_UNSUPPORTED, "0.0.convffn.fc1.weight is in int8",
               false);
    check_bind(INT8("5.0.convffn.conv", "5.0.convffn.fc1"), FV_ERR_UNSUPPORTED,
               "5.0.convffn.fc2.weight is in floats", false);
    /* two groups that lie next to each other do not make up for each other */
    check_bind(INT8("0.0.convffn.conv", "0.0.convffn.fc1", "0.0.convffn.fc2", "0.1.convffn.conv"),
               FV_ERR_UNSUPPORTED, "0.1.convffn.fc1.weight is in floats", false);
    /* in w8a16: the convolution is in f32, and nothing in int8 */
    check_kinds(INT8("0.1.convffn.fc1", "0.1.convffn.fc2"), true, FV_OK, NULL, false);
    check_kinds(INT8("1.proj.1.reparam_conv"), true, FV_OK, NULL, false);
    check_kinds(INT8("5.1.token_mixer.qkv", "5.1.convffn.fc1", "5.1.convffn.fc2"), true, FV_OK,
                NULL, false);
    check_kinds(INT8("0.1.convffn.fc1"), true, FV_ERR_UNSUPPORTED,
                "0.1.convffn.fc2.weight is in floats, other layers of its group are in w8a16",
                false);
    check_kinds(INT8("0.1.convffn.conv", "0.1.convffn.fc1", "0.1.convffn.fc2"), true,
                FV_ERR_UNSUPPORTED,
                "0.1.convffn.fc1.weight is in w8a16, other layers of its group are in int8", false);
    both_zeros = true;
    check_kinds(INT8("mm_projector.0"), true, FV_ERR_FORMAT, "zero16, expected one of them", false);
    both_zeros = false;
    /* layers that have no int8 form */
    static const char *const never[] = { "patch_embed.2.reparam_conv", "conv_exp.se.reduce",
                                         "conv_exp.reparam_conv", "token_mixer.reparam_conv",
                                         "network.2.reparam_conv" };
    for (size_t i = 0; i < FV_COUNT(never); i++)
        check_bind(INT8(never[i]), FV_ERR_FORMAT, "has I8", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_bind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
