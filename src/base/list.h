/* list: arrays that grow by doubling, in one way.
 *
 *     typedef struct words { char **list; size_t n, capacity; } words;
 *     FV_TRY(FV_LIST_ROOM(w->list, w->n, w->capacity, 1, err));
 *     w->list[w->n++] = word;
 */
#ifndef FV_LIST_H
#define FV_LIST_H

#include "base/base.h"

/* Makes room for more elements of n_bytes each behind the n that are there: *capacity grows to at
 * least n + more, and the pointer at pointer moves. After FV_ERR_MEMORY the list is as it was. */
fv_status fv_list_room(void *pointer, size_t n, size_t *capacity, size_t more, size_t n_bytes,
                       fv_error *err);

#define FV_LIST_ROOM(list, n, capacity, more, err) \
    fv_list_room(&(list), (n), &(capacity), (more), sizeof *(list), (err))

#endif
