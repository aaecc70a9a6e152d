/* decode_rows: rows of embeddings to greedy text, for the stand-in of genie-t2t-run.
 *
 *     decode_rows MODEL ROWS.raw TABLE.bin MAX_NEW_TOKENS END_ID
 *
 * Each token chosen is looked up in TABLE, as Genie does, so a table of another model gives another
 * answer. Prints every piece as it comes; the last line of standard error is "PROMPT GENERATED". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "nn/decoder.h"

static void die(const char *what)
{
    fprintf(stderr, "decode_rows: %s\n", what);
    exit(1);
}

/* The likeliest id that has a token. */
static int32_t choose(const fv_model *m, const float *logits)
{
    int32_t best = -1, n = fv_tokenizer_size(m->tokenizer);
    for (int32_t id = 0; id < n && id < m->config.n_vocab; id++)
        if (fv_tokenizer_has(m->tokenizer, id) && (best < 0 || logits[id] > logits[best]))
            best = id;
    return best;
}

static void run(fv_engine *engine, const fv_map *rows, const fv_map *table, int most, int32_t end)
{
    const fv_model *m = &engine->model;
    const fv_watch watch = { 0 };
    fv_error err;
    fv_decoder d;
    fv_ops ops;
    fv_sequence s;
    size_t width = (size_t)m->config.d_model, n = rows->size / (width * sizeof(float));
    int made = 0;
    fv_type act = m->decoder == FV_TYPE_BF16 ? FV_TYPE_BF16 : FV_TYPE_F32;
    if (!n || rows->size % (width * sizeof(float)) ||
        table->size != (size_t)m->config.n_vocab * width * sizeof(float))
        die("rows or table do not fit the model");
    if (fv_ops_init(&ops, &m->kernels, m->pool, &err) != FV_OK ||
        fv_decoder_init(&d, &m->config, &m->weights.decoder, act, &err) != FV_OK ||
        fv_sequence_init(&s, &m->config, FV_TYPE_F32, &err) != FV_OK ||
        fv_decoder_reserve(&d, &ops, n, &err) != FV_OK ||
        fv_kv_reserve(&s.kv, n + (size_t)most, &err) != FV_OK)
        die(err.message);
    const float *x = (const float *)(const void *)rows->data;
    for (size_t n_rows = n; fv_decoder_run(&d, &ops, &s, x, n_rows, &watch, &err) == FV_OK;
         n_rows = 1) {
        size_t n_bytes;
        int32_t id = choose(m, s.logits);
        if (id == end || made == most)
            break;
        made++;
        const char *bytes = fv_tokenizer_bytes(m->tokenizer, id, &n_bytes);
        if (!fv_tokenizer_is_special(m->tokenizer, id))
            fwrite(bytes, 1, n_bytes, stdout);
        fflush(stdout);
        x = (const float *)(const void *)table->data + (size_t)id * width;
    }
    fprintf(stderr, "%zu %d\n", n, made);
    fv_sequence_free(&s);
    fv_decoder_free(&d);
    fv_ops_free(&ops);
}

int main(int argc, char **argv)
{
    fv_engine *engine;
    fv_map rows, table;
    fv_error err;
    if (argc != 6)
        die("usage: decode_rows MODEL ROWS TABLE MAX_NEW_TOKENS END_ID");
    if (fv_engine_open(&engine, argv[1], NULL, &err) != FV_OK ||
        fv_map_open(&rows, argv[2], &err) != FV_OK || fv_map_open(&table, argv[3], &err) != FV_OK)
        die(err.message);
    run(engine, &rows, &table, atoi(argv[4]), (int32_t)atol(argv[5]));
    fv_map_close(&rows);
    fv_map_close(&table);
    fv_engine_free(engine);
    return 0;
}
