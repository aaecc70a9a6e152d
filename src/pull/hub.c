/* Reads the hub's description of a revision. See hub.h. */
#include "pull/hub.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"

#define MAX_FILE_BYTES (INT64_C(1) << 50)

static bool is_hex(const char *text, size_t n)
{
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

bool fv_hub_repo_ok(const char *repo)
{
    const char *slash = strchr(repo, '/');
    size_t n = strlen(repo);
    if (n == 0 || n > 96 || (slash && strchr(slash + 1, '/')) || strstr(repo, "..") ||
        strstr(repo, "--"))
        return false;
    if (strspn(repo, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/") != n)
        return false;
    for (const char *part = repo; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL) {
        size_t length = strcspn(part, "/");
        if (length == 0 || strchr("-.", part[0]) || strchr("-.", part[length - 1]))
            return false;
    }
    return true;
}

/* A path as git can hold it: relative, no empty part, no "." and "..", nothing that some system
 * takes for a separator, a device or a command to the terminal. */
static bool path_ok(const char *path)
{
    if (!*path || strlen(path) > 1024)
        return false;
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        if (*p < 0x20 || *p == 0x7f || *p == '\\' || *p == ':')
            return false;
    for (const char *part = path;; part++) {
        size_t n = strcspn(part, "/");
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part += n;
        if (!*part)
            return true;
    }
}

static bool is_shard(const char *name)
{
    unsigned at, of;
    int n = 0;
    return sscanf(name, "model-%5u-of-%5u.safetensors%n", &at, &of, &n) == 2 &&
           n == (int)strlen(name);
}

static bool is_license(const char *name)
{
    return !strncmp(name, "LICENSE", 7) || !strncmp(name, "LICENCE", 7) ||
           !strcmp(name, "license.txt") || !strcmp(name, "license.md") ||
           !strcmp(name, "ACKNOWLEDGEMENTS") || !strcmp(name, "NOTICE");
}

/* Of the names that a repository may hold: those of a checkpoint. Others, however strange, are
 * passed over and never touch the disk. */
static bool is_needed(const char *path, bool shards)
{
    static const char *const names[] = {
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.json",
        "chat_template.jinja",
        "README.md",
        "model.safetensors",
    };
    size_t n = strlen(path);
    /* NAME.part is NAME on its way */
    if (!path_ok(path) || strchr(path, '/') || n > 200 ||
        (n >= 5 && !strcmp(path + n - 5, ".part")))
        return false;
    for (size_t i = 0; i < FV_COUNT(names); i++)
        if (!strcmp(path, names[i]))
            return true;
    return is_license(path) ||
           (shards && (is_shard(path) || !strcmp(path, "model.safetensors.index.json")));
}

static void copy_printable(char *out, size_t capacity, const char *text)
{
    size_t n = 0;
    for (; text[n] && n + 1 < capacity; n++)
        out[n] = text[n] < ' ' || text[n] > '~' ? '?' : text[n];
    out[n] = 0;
}

/* The card names a licence, or a list of them, or "other" with a name of its own. */
static void read_license(fv_hub_listing *out, const fv_json_value *root)
{
    const fv_json_value *card = fv_json_member(root, "cardData"),
                        *license = fv_json_member(card, "license");
    const char *text = "", *own = "";
    if (fv_json_type_of(license) == FV_JSON_ARRAY)
        license = fv_json_at(license, 0);
    fv_json_as_string(license, &text);
    fv_json_as_string(fv_json_member(card, "license_name"), &own);
    copy_printable(out->license, sizeof out->license,
                   *own && (!*text || !strcmp(text, "other")) ? own : text);
    const fv_json_value *tags = fv_json_member(root, "tags");
    for (size_t i = 0; !out->license[0] && i < fv_json_count(tags); i++)
        if (fv_json_as_string(fv_json_at(tags, i), &text) && !strncmp(text, "license:", 8))
            copy_printable(out->license, sizeof out->license, text + 8);
}

static fv_status read_file_entry(const fv_json *doc, const fv_json_value *entry, const char *name,
                                 fv_hub_file *f, const char *repo, fv_error *err)
{
    const fv_json_value *lfs = NULL;
    const char *hash = NULL;
    int64_t size = 0, lfs_size;

    snprintf(f->name, sizeof f->name, "%s", name);
    FV_TRY(fv_json_int(doc, entry, "size", 0, MAX_FILE_BYTES, &size, err));
    FV_TRY(fv_json_opt_object(doc, entry, "lfs", &lfs, err));
    f->sha256 = lfs != NULL;
    if (lfs) {
        lfs_size = size;
        FV_TRY(fv_json_opt_int(doc, lfs, "size", 0, MAX_FILE_BYTES, &lfs_size, err));
        if (lfs_size != size)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: the hub states two sizes of %s, %" PRId64 " and %" PRId64, repo,
                           name, size, lfs_size);
        FV_TRY(fv_json_string(doc, lfs, "sha256", &hash, err));
    } else
        FV_TRY(fv_json_string(doc, entry, "blobId", &hash, err));
    if (!is_hex(hash, lfs ? 64 : 40))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the hub does not state the %s of %s, found \"%.80s\"", repo,
                       lfs ? "SHA-256" : "blob hash", name, hash);
    f->size = (uint64_t)size;
    snprintf(f->hash, sizeof f->hash, "%s", hash);
    return FV_OK;
}

static const fv_hub_file *find(const fv_hub_listing *l, const char *name)
{
    for (size_t i = 0; i < l->n_files; i++)
        if (!strcmp(l->files[i].name, name))
            return &l->files[i];
    return NULL;
}

static fv_status read_siblings(fv_hub_listing *out, const fv_json *doc, const char *repo,
                               fv_error *err)
{
    const fv_json_value *list = NULL;
    const char *name;
    bool single = false;

    FV_TRY(fv_json_array(doc, fv_json_root(doc), "siblings", &list, err));
    size_t n = fv_json_count(list), n_needed = 0;
    for (size_t i = 0; i < n; i++) {
        const fv_json_value *entry = fv_json_at(list, i);
        if (fv_json_type_of(entry) != FV_JSON_OBJECT)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the hub's list of files contains %s", repo,
                           fv_json_type_name(entry));
        if (!fv_json_as_string(fv_json_member(entry, "rfilename"), &name))
            continue;
        single |= !strcmp(name, "model.safetensors");
        n_needed += is_needed(name, true);
    }
    if (n_needed > FV_HUB_MAX_FILES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu files, up to %d are allowed", repo, n_needed,
                       FV_HUB_MAX_FILES);
    out->files = fv_alloc_zero(n_needed, sizeof *out->files);
    if (!out->files)
        return fv_fail_memory(err, n_needed * sizeof *out->files, "the list of files");
    for (size_t i = 0; i < n; i++) {
        const fv_json_value *entry = fv_json_at(list, i);
        if (!fv_json_as_string(fv_json_member(entry, "rfilename"), &name) ||
            !is_needed(name, !single))
            continue;
        if (find(out, name))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the hub lists %s twice", repo, name);
        FV_TRY(read_file_entry(doc, entry, name, &out->files[out->n_files], repo, err));
        if (is_license(name) && !out->license_file[0])
            snprintf(out->license_file, sizeof out->license_file, "%s", name);
        out->n_files++;
    }
    if (!find(out, "config.json") || !(single || find(out, "model.safetensors.index.json")))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s does not contain a checkpoint: expected config.json and "
                       "model.safetensors (or model.safetensors.index.json) among its %zu files",
                       repo, n);
    return FV_OK;
}

fv_status fv_hub_parse(fv_hub_listing *out, const void *text, size_t n_bytes, const char *repo,
                       fv_error *err)
{
    fv_status status;
    fv_json *doc = NULL;
    const char *commit;

    memset(out, 0, sizeof *out);
    FV_TRY_GOTO(fv_json_parse(&doc, text, n_bytes, "the hub's answer", err));
    const fv_json_value *root = fv_json_root(doc), *gated;
    if (fv_json_type_of(root) != FV_JSON_OBJECT) {
        status = fv_fail(err, FV_ERR_FORMAT, 0, "the hub's answer: expected an object, found %s",
                         fv_json_type_name(root));
        goto fail;
    }
    FV_TRY_GOTO(fv_json_string(doc, root, "sha", &commit, err));
    if (!is_hex(commit, 40)) {
        status = fv_fail(err, FV_ERR_FORMAT, 0,
                         "the hub's answer: sha: expected 40 hexadecimal digits, found \"%.60s\"",
                         commit);
        goto fail;
    }
    memcpy(out->commit, commit, 41);
    gated = fv_json_member(root, "gated");
    if (!fv_json_as_bool(gated, &out->gated))
        out->gated = fv_json_type_of(gated) == FV_JSON_STRING;
    read_license(out, root);
    FV_TRY_GOTO(read_siblings(out, doc, repo, err));
    fv_json_free(doc);
    return FV_OK;

fail:
    fv_json_free(doc);
    fv_hub_free(out);
    return status;
}

void fv_hub_free(fv_hub_listing *listing)
{
    fv_free(listing->files);
    memset(listing, 0, sizeof *listing);
}
