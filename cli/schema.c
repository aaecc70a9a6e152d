/* --json-schema: the file, and what fits beside it. See answer.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"

char *text_read(const char *path, const char *what, size_t max_bytes, size_t *n_bytes)
{
    bool is_stdin = !strcmp(path, "-");
    const char *name = is_stdin ? "standard input" : path;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    char *text = f ? malloc(max_bytes + 2) : NULL;
    errno = f && !text ? ENOMEM : errno;
    *n_bytes = text ? fread(text, 1, max_bytes + 1, f) : 0;
    bool failed = !text || ferror(f);
    if (failed)
        print_err("fastvlm: %s: cannot read: %s\n", name, strerror(errno));
    else if (*n_bytes > max_bytes)
        print_err("fastvlm: %s: more than %zu bytes, too long for a %s\n", name, max_bytes, what);
    if (f && !is_stdin)
        fclose(f);
    if (!failed && *n_bytes <= max_bytes) {
        text[*n_bytes] = 0;
        return text;
    }
    free(text);
    return NULL;
}

int schema_check(const char *verb, const answer_schema *s, const answer_options *a)
{
    return s->path && (a->stop.n || a->ignore_eos)
               ? usage_error(verb, "--json-schema and %s exclude each other",
                             a->stop.n ? "--stop" : "--ignore-eos")
               : -1;
}

int schema_read(const char *verb, answer_schema *s)
{
    if (!s->path)
        return -1;
    int code = strcmp(s->path, "-") ? find_input(verb, &s->path) : -1;
    if (code < 0)
        s->text = text_read(s->path, "schema", FV_SCHEMA_BYTES, &s->n);
    return code >= 0 ? code : s->text ? -1 : EXIT_FAILED;
}
