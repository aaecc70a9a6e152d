/* See limits.h. The rates are those of whole kernels, not of single instructions: what a layer that
 * waits for nothing would reach. */
#include "kernels/limits.h"

#include <string.h>

enum {
    TRIES = 6,
    SHARES = 16, /* tasks a thread: one that wakes late does fewer */
    ROWS = 96,   /* operands: ROWS x DEPTH and COLUMNS x DEPTH, at most 230 KB, within L2 */
    COLUMNS = 192,
    DEPTH = 256,
    READ_TRIES = 8,
    READ_PIECE = 4 << 20 /* a task */
};

static const double TRY_MS = 12; /* long enough for all threads to be awake */
static const size_t READ_BYTES = (size_t)256 << 20;

typedef struct product {
    const fv_kernels *k;
    fv_type type; /* F32, BF16, I8, Q8_0 or Q4_0 */
    bool sixteen; /* I8: rows of 16 bits */
    uint8_t *memory;
    size_t each; /* bytes of memory for a worker */
    size_t calls;
    const void *packed; /* shared: a few panels */
} product;

/* Of the widest operand. */
static size_t rows_bytes(void)
{
    return ROWS * FV_MAX(fv_quantized_row_bytes(DEPTH), DEPTH * sizeof(float));
}

static void product_run(const product *p, uint8_t *a, void *c)
{
    static const float ones[COLUMNS];
    static const int32_t zeros[COLUMNS];
    if (p->type == FV_TYPE_I8) {
        fv_gemm_u8_args args = { .m = ROWS,
                                 .n = COLUMNS,
                                 .k = DEPTH,
                                 .a = a,
                                 .lda = DEPTH,
                                 .b = p->packed,
                                 .c = c,
                                 .ldc = COLUMNS,
                                 .c_type = FV_TYPE_F32,
                                 .bias = zeros,
                                 .mul = ones };
        if (p->sixteen && p->k->gemm_u8.run16) {
            args.a_low = a;
            p->k->gemm_u8.run16(&args);
            return;
        }
        for (int i = 0; i < (p->sixteen ? 2 : 1); i++)
            p->k->gemm_u8.run(&args);
        return;
    }
    const bool blocks = fv_type_is_block(p->type);
    const fv_gemm_args args = { .m = ROWS,
                                .n = COLUMNS,
                                .k = DEPTH,
                                .a = a,
                                .lda = blocks ? fv_quantized_row_bytes(DEPTH) : DEPTH,
                                .b = p->packed,
                                .c = c,
                                .ldc = COLUMNS,
                                .c_type = FV_TYPE_F32 };
    if (blocks)
        p->k->gemm_q.run[p->type](&args);
    else if (p->type == FV_TYPE_BF16)
        p->k->gemm_bf16.run(&args);
    else
        p->k->gemm_f32.run(&args);
}

static void product_task(void *user, size_t task, unsigned worker)
{
    const product *p = user;
    uint8_t *a = p->memory + worker * p->each;
    (void)task;
    for (size_t i = 0; i < p->calls; i++)
        product_run(p, a, a + rows_bytes());
}

static size_t packed_bytes(const fv_kernels *k)
{
    size_t n = fv_packed_elems(&k->gemm_f32, COLUMNS, DEPTH) * sizeof(float);
    n = FV_MAX(n, fv_packed_elems(&k->gemm_bf16, COLUMNS, DEPTH) * 2);
    n = FV_MAX(n, fv_packed_u8_bytes(&k->gemm_u8, COLUMNS, DEPTH));
    return FV_MAX(n, fv_packed_q_bytes(&k->gemm_q, FV_TYPE_Q8_0, COLUMNS, DEPTH));
}

/* Operands are all zeros: processors take the same time for them. */
static double product_rate(product *p, const fv_pool *pool, unsigned n)
{
    const double macs = (double)ROWS * COLUMNS * DEPTH;
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
        const double start = fv_now_ms();
        fv_pool_run(pool, SHARES * n, product_task, p);
        const double ms = fv_now_ms() - start;
        best = FV_MAX(best, (double)(SHARES * n) * (double)p->calls * macs / ms * 1e3);
        /* after the first try the next ones take about TRY_MS */
        p->calls = FV_MAX((size_t)((double)p->calls * TRY_MS / FV_MAX(ms, 1e-3)), (size_t)1);
    }
    return best;
}

typedef struct reading {
    const uint64_t *words;
    size_t n;
    bool ahead;
    uint64_t sum; /* of what all tasks read: it must be read */
} reading;

/* Asking a page ahead is faster on some processors and slower on others. */
static void read_task(void *user, size_t task, unsigned worker)
{
    reading *r = user;
    const size_t n = READ_PIECE / sizeof *r->words;
    const uint64_t *p = r->words + task * n;
    uint64_t sum[8] = { 0 };
    (void)worker;
    for (size_t i = 0; i < n; i += 8) {
        if (r->ahead)
            __builtin_prefetch(p + i + 4096 / sizeof *p);
        for (size_t j = 0; j < 8; j++)
            sum[j] ^= p[i + j];
    }
    for (size_t j = 1; j < 8; j++)
        sum[0] ^= sum[j];
    __atomic_fetch_add(&r->sum, sum[0], __ATOMIC_RELAXED);
}

static double read_rate(const void *memory, const fv_pool *pool)
{
    reading r = { .words = memory };
    double best = 0;
    for (int i = 0; i < READ_TRIES; i++) {
        const double start = fv_now_ms();
        r.ahead = i % 2;
        fv_pool_run(pool, READ_BYTES / READ_PIECE, read_task, &r);
        best = FV_MAX(best, (double)READ_BYTES / (fv_now_ms() - start) * 1e3);
    }
    return best;
}

fv_status fv_limits_measure(fv_limits *out, const fv_kernels *k, const fv_pool *pool, fv_error *err)
{
    const unsigned n = fv_pool_threads(pool);
    const size_t each = rows_bytes() + (size_t)ROWS * COLUMNS * sizeof(float);
    struct {
        fv_type type;
        bool sixteen;
        double *rate;
    } const kinds[] = {
        { FV_TYPE_F32, false, &out->f32_macs }, { FV_TYPE_BF16, false, &out->bf16_macs },
        { FV_TYPE_I8, false, &out->int8_macs }, { FV_TYPE_I8, true, &out->w8a16_macs },
        { FV_TYPE_Q8_0, false, &out->z8_macs }, { FV_TYPE_Q4_0, false, &out->q4_macs },
    };
    const size_t bytes = (FV_MAX(READ_BYTES, n * each) + 63) / 64 * 64 + packed_bytes(k);
    uint8_t *memory = fv_pages_alloc(bytes); /* huge ones, as those of weights */
    if (!memory)
        return fv_fail_memory(err, bytes, "measuring the machine's limits");
    memset(memory, 0, bytes);
    for (size_t i = 0; i < FV_COUNT(kinds); i++) {
        product p = { .k = k,
                      .type = kinds[i].type,
                      .sixteen = kinds[i].sixteen,
                      .memory = memory,
                      .each = each,
                      .calls = 1,
                      .packed = memory + (bytes - packed_bytes(k)) };
        *kinds[i].rate = product_rate(&p, pool, n);
    }
    memset(memory, 1, READ_BYTES); /* pages of its own, not the system's page of zeros */
    out->read_bytes = read_rate(memory, pool);
    fv_pages_free(memory, bytes);
    return FV_OK;
}
