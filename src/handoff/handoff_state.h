/* handoff_state: what manifest.json says of a handoff: its steps, their files, what is missing.
 *
 *     { "fastvlm": "0.2.0", "source": {...}, "soc": "sm8750",
 *       "steps": [ { "step": 1, "name": "export", "way": "native", "key": "...",
 *                    "basis": "...", "model": "...",
 *                    "files": [ { "path": ..., "bytes": ..., "sha256": ..., "found": false } ],
 *                    "missing": [ { "path": ..., "reason": ..., "command": ... } ] } ] }
 *
 * key is a hash of everything that the step's files depend on, basis of all that but the builds of
 * fastvlm and of Qualcomm's libraries. Files that an earlier run left and that the step did not
 * make again have "note", and "way", "basis" and "model" of their own. Paths are from the
 * manifest's directory on. */
#ifndef FV_HANDOFF_STATE_H
#define FV_HANDOFF_STATE_H

#include "base/file_hash.h"
#include "base/region.h"
#include "fastvlm_handoff.h"
#include "io/json_write.h"

typedef struct fv_handoff_entry {
    const char *path;
    uint64_t n_bytes;
    const char *sha256; /* NULL: missing */
    bool found;         /* it was there: not made by a handoff */
    bool placed;        /* while it is made: it is in its place already, not in the stage */
    const char *reason, *command;
    /* of a file that an earlier run left and the step did not make again: what is said of it, and
     * who made it from what, as of a record; or NULL */
    const char *note, *way, *basis, *model;
} fv_handoff_entry;

typedef struct fv_handoff_record {
    bool there; /* the step was completed */
    const char *way, *key;
    const char *basis, *model; /* key without builds; SHA-256 of the model */
    fv_handoff_entry *entry;   /* files before what is missing */
    size_t n, capacity;
} fv_handoff_record;

typedef struct fv_handoff_state {
    fv_handoff_record step[FV_HANDOFF_STEPS];
    fv_region region; /* of all texts */
} fv_handoff_state;

/* The names that steps have in the manifest and elsewhere. */
extern const char *const fv_handoff_names[FV_HANDOFF_STEPS];

/* From the text of a manifest. After a failure *s is empty. */
fv_status fv_handoff_state_parse(fv_handoff_state *s, const void *text, size_t n_bytes,
                                 fv_error *err);
/* Reads dir/manifest.json; without such a file no step is there. FV_ERR_FORMAT: it is not of a
 * handoff. */
fv_status fv_handoff_state_read(fv_handoff_state *s, const char *dir, fv_error *err);
void fv_handoff_state_free(fv_handoff_state *s);

/* A copy in the state's memory; never NULL but when memory is out. */
const char *fv_handoff_text(fv_handoff_state *s, const char *format, ...) FV_PRINTF(2, 3);
/* Adds to a step; path, reason and command are kept as they are. */
fv_status fv_handoff_add(fv_handoff_record *r, const fv_handoff_entry *entry, fv_error *err);
/* Forgets what a step was. */
void fv_handoff_forget(fv_handoff_record *r);

/* Is path that of the pattern, in which "<job>" stands for any text? */
bool fv_handoff_fits(const char *path, const char *pattern);
/* A file at path below dir that is not empty, in which "<job>" stands for any text, and only in its
 * name: its path below dir in *found, to fv_free; NULL: there is none. */
fv_status fv_handoff_find(const char *dir, const char *path, char **found, fv_error *err);
/* Has every file of the step its size and hash, and is none that was missing there now? *whole says
 * so; the status is that of the caller's progress. */
fv_status fv_handoff_verify(const fv_handoff_record *r, const char *dir,
                            const fv_callbacks *callbacks, bool *whole, fv_error *err);

/* The members "steps" of the manifest. */
void fv_handoff_put_steps(fv_json_text *j, const fv_handoff_state *s);

#endif
