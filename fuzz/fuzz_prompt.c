/* Bytes as a prompt for the tiny vocabulary. Invalid UTF-8 is refused; of anything else the tokens'
 * bytes are the NFC of the text, however long the words are, and the stream gives them
 * unchanged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "text/template.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static fv_tokenizer *tiny;

static void load_tiny(void)
{
    fv_error err;

    /* Runs from the root of the repository, as tools/fuzz.sh and the replay do. */
    if (fv_tokenizer_load_dir(&tiny, "tests/data/tiny/checkpoint", NULL, &err) != FV_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
}

/* The ids' bytes through a stream, cut as the tokens are. */
static char *decode(const fv_ids *ids, size_t *n_text)
{
    fv_stream *s;
    size_t n, used = 0;
    const char *text;
    char *all = malloc(ids->n * fv_tokenizer_max_bytes(tiny) * 3 + 16);

    if (fv_stream_new(&s, fv_tokenizer_max_bytes(tiny), NULL, 0, NULL) != FV_OK)
        abort();
    for (size_t i = 0; i < ids->n; i++) {
        size_t n_bytes;
        const char *bytes = fv_tokenizer_bytes(tiny, ids->data[i], &n_bytes);
        fv_stream_push(s, bytes, n_bytes, &text, &n);
        memcpy(all + used, text, n);
        used += n;
    }
    fv_stream_finish(s, &text, &n);
    memcpy(all + used, text, n);
    *n_text = used + n;
    fv_stream_free(s);
    return all;
}

/* Whatever a user says, the only control tokens of its turn are the template's three. */
static void check_turn(const char *text, size_t n_bytes, bool valid)
{
    fv_ids ids = { 0 };
    const fv_turn_part parts[] = { { .kind = FV_TURN_IMAGE, .n = 1 },
                                   { .kind = FV_TURN_TEXT, .text = text, .n = n_bytes } };
    size_t n_special = 0;

    if ((fv_template_user(&ids, tiny, parts, 2, NULL) == FV_OK) != valid)
        abort();
    for (size_t i = 0; i < ids.n; i++)
        n_special += ids.data[i] == FV_IMAGE_MARK || fv_tokenizer_is_special(tiny, ids.data[i]);
    if (valid && n_special != 4)
        abort();
    fv_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *text = (const char *)data;
    fv_ids ids = { 0 };
    bool valid = fv_utf8_valid(text, n_bytes, NULL), added = false;
    size_t n;

    if (!tiny)
        load_tiny();
    if ((fv_tokenizer_encode(tiny, text, n_bytes, &ids, NULL) == FV_OK) != valid)
        abort();
    check_turn(text, n_bytes, valid);
    if (!valid)
        return 0;
    for (size_t i = 0; i < ids.n; i++)
        added |= fv_tokenizer_is_special(tiny, ids.data[i]);
    char *got = decode(&ids, &n);
    if (!added && n_bytes > 0) { /* around an added token NFC works on the parts */
        utf8proc_uint8_t *want = NULL;
        utf8proc_ssize_t n_want = utf8proc_map(data, (utf8proc_ssize_t)n_bytes, &want,
                                               UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (n_want < 0 || n != (size_t)n_want || memcmp(got, want, n) != 0)
            abort();
        free(want);
    }
    free(got);
    fv_ids_free(&ids);
    return 0;
}
