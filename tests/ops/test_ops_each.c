/* nn: rows that know nothing of each other (fv_linear_run_each, fv_gated_run_each). Any number of
 * rows, on any number of threads: each has the bits of a run with that row alone. */
#include "ops/ops_case.h"

enum { MARGIN = 3 /* values that belong to nobody, between rows */ };

static const size_t row_counts[] = { 1, 2, 3, 4, 5, 7, 8, 9, 17 };

/* How the layers write. */
typedef enum goes_to { TO_Y, TO_RESIDUAL, IN_PLACE, TO_ROWS, TO_ROWS_RESIDUAL, N_WAYS } goes_to;

typedef struct each_case {
    fv_type types[3]; /* of the layers, which share x */
    size_t n[3], n_layers, k, m;
    goes_to to;
} each_case;

static fv_ops_need case_need(const ops_case *o, const each_case *c)
{
    fv_ops_need need = { 0 };
    for (size_t i = 0; i < c->n_layers; i++) {
        need = fv_ops_max(
            need, fv_linear_need(o->ops.k, o->ops.n_workers, c->n[i], c->k, 1, FV_TYPE_F32));
        if (fv_type_is_block(c->types[i]))
            need = fv_ops_max(need, fv_quant_need(o->ops.k, o->ops.n_workers, c->n[i], c->k, c->m));
    }
    return need;
}

static void check_each(const each_case *c, int level, int threads)
{
    ops_case o;
    fv_mat w[3];
    fv_linear layers[3], alone[3];
    float *residual[3], *rows[3][17];
    case_open(&o, level, threads);
    case_reserve(&o, case_need(&o, c));
    const size_t ldx = c->k + MARGIN, most = 17;
    float *x = make_floats(c->m * ldx, -2, 3);
    for (size_t i = 0; i < c->n_layers; i++) {
        const size_t ldy = c->n[i] + MARGIN;
        const bool adds = c->to == TO_RESIDUAL || c->to == IN_PLACE || c->to == TO_ROWS_RESIDUAL;
        w[i] = make_mat(c->types[i], c->n[i], c->k);
        float *y = case_alloc(most * ldy * sizeof *y);
        residual[i] = make_floats(most * ldy, -2, 2);
        if (c->to == IN_PLACE)
            memcpy(y, residual[i], most * ldy * sizeof *y);
        layers[i] = (fv_linear){ .w = &w[i], .y = y, .ldy = ldy };
        if (adds) {
            layers[i].residual = c->to == IN_PLACE ? y : residual[i];
            layers[i].ldr = ldy;
        }
        for (size_t r = 0; r < c->m; r++) /* in another order, to see that it is followed */
            rows[i][r] = y + (c->m - 1 - r) * ldy;
        if (c->to == TO_ROWS || c->to == TO_ROWS_RESIDUAL)
            layers[i].y_rows = rows[i];
        alone[i] = (fv_linear){ .w = &w[i], .y = case_alloc(ldy * sizeof *y), .ldy = ldy };
    }
    fv_linear_run_each(&o.ops, layers, c->n_layers, x, ldx, c->m);
    for (size_t r = 0; r < c->m; r++) {
        for (size_t i = 0; i < c->n_layers; i++)
            if (layers[i].residual)
                alone[i].residual = residual[i] + r * layers[i].ldr;
        fv_linear_run(&o.ops, alone, c->n_layers, x + r * ldx, FV_TYPE_F32, ldx, 1);
        for (size_t i = 0; i < c->n_layers; i++) {
            const float *got = layers[i].y_rows ? rows[i][r]
                                                : (float *)layers[i].y + r * layers[i].ldy;
            if (memcmp(got, alone[i].y, c->n[i] * sizeof *got))
                fail_msg("%s, %d threads: row %zu of %zu, layer %zu (%s, n=%zu k=%zu, way %d) is "
                         "not what it is alone",
                         level_name(level), threads, r, c->m, i, fv_type_name(c->types[i]), c->n[i],
                         c->k, (int)c->to);
            const float *gap = c->to == IN_PLACE ? residual[i] + r * layers[i].ldy + c->n[i] : NULL;
            static const uint8_t poison[MARGIN * 4] = { 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5,
                                                        0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5 };
            if (memcmp(got + c->n[i], gap ? (const void *)gap : poison, sizeof poison))
                fail_msg("way %d: written between rows, behind row %zu", (int)c->to, r);
        }
    }
    case_check(&o);
    case_close(&o);
}

static void each_case_everywhere(each_case c)
{
    for (size_t i = 0; i < FV_COUNT(row_counts); i++) {
        for (int level = 0; level < N_LEVELS; level++) {
            c.m = row_counts[i];
            check_each(&c, level, 1 + (int)(i + (size_t)level) % MAX_THREADS);
        }
    }
}

static void test_types(void **state)
{
    (void)state;
    static const fv_type types[] = { FV_TYPE_F32, FV_TYPE_F16, FV_TYPE_BF16, FV_TYPE_Q8_0,
                                     FV_TYPE_Q4_0 };
    for (size_t t = 0; t < FV_COUNT(types); t++) {
        for (int to = 0; to < N_WAYS; to++) {
            size_t k = fv_type_is_block(types[t]) ? 96 : 77;
            each_case_everywhere((each_case){
                .types = { types[t] }, .n = { 37 }, .n_layers = 1, .k = k, .to = (goes_to)to });
        }
    }
}

/* Queries, keys and values, of which some may be in blocks and some not. */
static void test_layers(void **state)
{
    (void)state;
    each_case_everywhere((each_case){ .types = { FV_TYPE_Q4_0, FV_TYPE_F32, FV_TYPE_Q8_0 },
                                      .n = { 24, 9, 16 },
                                      .n_layers = 3,
                                      .k = 160 });
    each_case_everywhere((each_case){ .types = { FV_TYPE_BF16, FV_TYPE_BF16, FV_TYPE_BF16 },
                                      .n = { 8, 1, 40 },
                                      .n_layers = 3,
                                      .k = 50,
                                      .to = TO_ROWS });
}

/* More weight rows than a task takes, and rows of x that L1 does not hold. */
static void test_large(void **state)
{
    (void)state;
    static const fv_type types[] = { FV_TYPE_BF16, FV_TYPE_Q8_0, FV_TYPE_Q4_0 };
    for (size_t t = 0; t < FV_COUNT(types); t++) {
        for (size_t m = 1; m <= 9; m += 4) {
            each_case c = { .types = { types[t] }, .n = { 2500 }, .n_layers = 1, .k = 64, .m = m };
            check_each(&c, 1, 3);
            c.n[0] = 45;
            c.k = 4864 + 32;
            check_each(&c, 1, 2);
        }
    }
}

static void test_gated(void **state)
{
    (void)state;
    static const fv_type types[][2] = { { FV_TYPE_F32, FV_TYPE_F32 },
                                        { FV_TYPE_BF16, FV_TYPE_BF16 },
                                        { FV_TYPE_F16, FV_TYPE_F16 },
                                        { FV_TYPE_Q8_0, FV_TYPE_Q8_0 },
                                        { FV_TYPE_Q4_0, FV_TYPE_F32 } };
    enum { N = 1100, K = 64 };
    for (size_t t = 0; t < FV_COUNT(types); t++) {
        for (size_t i = 0; i < FV_COUNT(row_counts); i++) {
            const size_t m = row_counts[i];
            ops_case o;
            case_open(&o, 1, 1 + (int)i % MAX_THREADS);
            fv_ops_need need = fv_gated_need(o.ops.k, N, K, 1, FV_TYPE_F32);
            if (fv_type_is_block(types[t][0]))
                need = fv_ops_max(need, fv_quant_need(o.ops.k, o.ops.n_workers, N, K, m));
            case_reserve(&o, need);
            fv_mat gate = make_mat(types[t][0], N, K), up = make_mat(types[t][1], N, K);
            gate.bias = up.bias = NULL;
            float *x = make_floats(m * K, -3, 3), *y = case_alloc(m * N * sizeof *y),
                  *alone = case_alloc(N * sizeof *alone);
            fv_gated_run_each(&o.ops, &gate, &up, y, x, m);
            for (size_t r = 0; r < m; r++) {
                fv_gated_run(&o.ops, &gate, &up, alone, FV_TYPE_F32, x + r * K, FV_TYPE_F32, 1);
                if (memcmp(y + r * N, alone, N * sizeof *y))
                    fail_msg("gate %s: row %zu of %zu is not what it is alone",
                             fv_type_name(types[t][0]), r, m);
            }
            case_check(&o);
            case_close(&o);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_types), cmocka_unit_test(test_layers),
                                        cmocka_unit_test(test_large),
                                        cmocka_unit_test(test_gated) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
