/* oneDNN on the model's matrix products: the rate a GEMM of ours is measured against.
 *
 *     cc -O2 -fopenmp bench/gemm_peers.c -o build/gemm_peers -ldnnl   (libdnnl-dev; 2.6 or 3.x)
 *     build/gemm_peers [-t 1,2] [-s SECONDS] [-d f32,bf16,int8] [-m MAX_M] [bench/shapes/gemm.txt]
 *
 * C[M,N] = A[M,K] B[K,N]. B is packed once by oneDNN (format any), as an engine packs its weights;
 * A and C are plain row-major. -m cuts M, as checkkernels --bench does at 8192: taller products
 * only stream more of the same through memory. f32 and bf16 have C in the same type, int8 is u8 *
 * s8 -> u8. One line per product, type and thread count:
 *
 *     name M N K type threads best_us median_us rate
 *                                    rate: G operations/s, 2 M N K per product, best time
 */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define CHECK(x)                                                         \
    do {                                                                 \
        dnnl_status_t s_ = (x);                                          \
        if (s_ != dnnl_success) {                                        \
            fprintf(stderr, "gemm_peers: %s: status %d\n", #x, (int)s_); \
            return false;                                                \
        }                                                                \
    } while (0)

/* ---- what changed between oneDNN 2 and 3: descriptors became handles ---- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
typedef const_dnnl_memory_desc_t const_layout;
#define SIZE_OF(l) dnnl_memory_desc_get_size(l)

static dnnl_status_t layout_init(layout *l, const dnnl_dims_t dims, dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(l, 2, dims, type, tag);
}

static void layout_free(layout l) { dnnl_memory_desc_destroy(l); }

static dnnl_status_t matmul_init(dnnl_primitive_desc_t *pd, layout a, layout b, layout c)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, a, b, NULL, c, NULL);
}
#define AS_CONST(l) (l)
#else
typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *const_layout;
#define SIZE_OF(l)  dnnl_memory_desc_get_size(l)

static dnnl_status_t layout_init(layout *l, const dnnl_dims_t dims, dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(l, 2, dims, type, tag);
}

static void layout_free(layout l) { (void)l; }

static dnnl_status_t matmul_init(dnnl_primitive_desc_t *pd, layout a, layout b, layout c)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t s = dnnl_matmul_desc_init(&d, &a, &b, NULL, &c);
    return s != dnnl_success ? s : dnnl_primitive_desc_create(pd, &d, NULL, engine, NULL);
}
#define AS_CONST(l) (&(l))
#endif

/* ---- one product ---- */

typedef struct operand {
    const char *name; /* of the data types, as printed */
    dnnl_data_type_t a, b, c;
} operand;

static const operand operands[] = {
    { "f32", dnnl_f32, dnnl_f32, dnnl_f32 },
    { "bf16", dnnl_bf16, dnnl_bf16, dnnl_bf16 },
    { "int8", dnnl_u8, dnnl_s8, dnnl_u8 },
};

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Small values that no type finds awkward: zeros would let some machines clock higher. */
static bool fill(dnnl_memory_t m, size_t n_bytes, dnnl_data_type_t type)
{
    void *p;
    CHECK(dnnl_memory_get_data_handle(m, &p));
    for (size_t i = 0; type == dnnl_f32 && i < n_bytes / 4; i++)
        ((float *)p)[i] = 0.01f * (float)(i % 89) - 0.4f;
    for (size_t i = 0; type == dnnl_bf16 && i < n_bytes / 2; i++)
        ((unsigned short *)p)[i] = (unsigned short)(0x3d80 + i % 89 + (i % 2 << 15));
    for (size_t i = 0; type != dnnl_f32 && type != dnnl_bf16 && i < n_bytes; i++)
        ((unsigned char *)p)[i] = (unsigned char)(i % 89);
    return true;
}

static bool matmul(const char *name, long m, long n, long k, const operand *t, int threads,
                   double seconds)
{
    layout la, lb, lc;
    CHECK(layout_init(&la, (dnnl_dims_t){ m, k }, t->a, dnnl_ab));
    CHECK(layout_init(&lb, (dnnl_dims_t){ k, n }, t->b, dnnl_format_tag_any));
    CHECK(layout_init(&lc, (dnnl_dims_t){ m, n }, t->c, dnnl_ab));
    dnnl_primitive_desc_t pd;
    CHECK(matmul_init(&pd, la, lb, lc));
    dnnl_primitive_t prim;
    CHECK(dnnl_primitive_create(&prim, pd));
    const_layout packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_memory_t a, b, c;
    CHECK(dnnl_memory_create(&a, AS_CONST(la), engine, DNNL_MEMORY_ALLOCATE));
    CHECK(dnnl_memory_create(&b, packed, engine, DNNL_MEMORY_ALLOCATE));
    CHECK(dnnl_memory_create(&c, AS_CONST(lc), engine, DNNL_MEMORY_ALLOCATE));
    if (!fill(a, SIZE_OF(AS_CONST(la)), t->a) || !fill(b, SIZE_OF(packed), t->b))
        return false;
    dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, a }, { DNNL_ARG_WEIGHTS, b }, { DNNL_ARG_DST, c } };

    enum { MAX_SAMPLES = 2000 };
    static double sample[MAX_SAMPLES];
    int n_samples = 0;
    CHECK(dnnl_primitive_execute(prim, stream, 3, args)); /* warm up */
    CHECK(dnnl_stream_wait(stream));
    for (double end = now() + seconds; n_samples < MAX_SAMPLES && (n_samples < 5 || now() < end);
         n_samples++) {
        double t0 = now();
        CHECK(dnnl_primitive_execute(prim, stream, 3, args));
        CHECK(dnnl_stream_wait(stream));
        sample[n_samples] = now() - t0;
    }
    qsort(sample, (size_t)n_samples, sizeof *sample, by_value);
    printf("%s %ld %ld %ld %s %d %.1f %.1f %.1f\n", name, m, n, k, t->name, threads,
           sample[0] * 1e6, sample[n_samples / 2] * 1e6,
           2e-9 * (double)m * (double)n * (double)k / sample[0]);
    fflush(stdout);
    dnnl_memory_destroy(a), dnnl_memory_destroy(b), dnnl_memory_destroy(c);
    dnnl_primitive_destroy(prim), dnnl_primitive_desc_destroy(pd);
    layout_free(la), layout_free(lb), layout_free(lc);
    return true;
}

static int usage(void)
{
    fprintf(
        stderr,
        "usage: gemm_peers [-t THREADS,...] [-s SECONDS] [-d f32,bf16,int8] [-m MAX_M] [SHAPES]\n"
        "example: gemm_peers -t 1,2 bench/shapes/gemm.txt\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *threads = "1,2", *path = "bench/shapes/gemm.txt", *types = "f32,bf16";
    double seconds = 0.5;
    long max_m = 1L << 30;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-')
            path = argv[i];
        else if (i + 1 == argc)
            return usage();
        else if (!strcmp(argv[i], "-t"))
            threads = argv[++i];
        else if (!strcmp(argv[i], "-s"))
            seconds = atof(argv[++i]);
        else if (!strcmp(argv[i], "-d"))
            types = argv[++i];
        else if (!strcmp(argv[i], "-m"))
            max_m = atol(argv[++i]);
        else
            return usage();
    }
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "gemm_peers: cannot open %s\n", path);
        return 1;
    }
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success) {
        fprintf(stderr, "gemm_peers: oneDNN has no CPU engine here\n");
        return 1;
    }
    const dnnl_version_t *v = dnnl_version();
    printf("# oneDNN %d.%d.%d, isa %d; name M N K type threads best_us median_us Gop/s\n", v->major,
           v->minor, v->patch, (int)dnnl_get_effective_cpu_isa());
    bool ok = true;
    char line[256], name[64];
    while (fgets(line, sizeof line, f)) {
        long m, n, k;
        if (line[strspn(line, " \t")] == '#' ||
            sscanf(line, "%63s %ld %ld %ld", name, &m, &n, &k) != 4)
            continue;
        m = m < max_m ? m : max_m;
        for (size_t i = 0; i < sizeof operands / sizeof *operands; i++) {
            if (!strstr(types, operands[i].name))
                continue;
            for (const char *t = threads; t; t = strchr(t, ',') ? strchr(t, ',') + 1 : NULL) {
                int n_threads = atoi(t) < 1 ? 1 : atoi(t);
                omp_set_num_threads(n_threads);
                ok &= matmul(name, m, n, k, &operands[i], n_threads, seconds);
            }
        }
    }
    fclose(f);
    return ok ? 0 : 1;
}
