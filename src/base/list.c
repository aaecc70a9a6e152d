/* Arrays that grow. See list.h. */
#include "base/list.h"

#include <string.h>

enum { FIRST_BYTES = 512 }; /* of a list that was empty */

fv_status fv_list_room(void *pointer, size_t n, size_t *capacity, size_t more, size_t n_bytes,
                       fv_error *err)
{
    size_t wanted;
    void *list;
    if (more <= *capacity - n)
        return FV_OK;
    if (__builtin_add_overflow(n, more, &wanted) || *capacity > SIZE_MAX / 2)
        return fv_fail_memory(err, SIZE_MAX, "a list");
    wanted = FV_MAX(wanted, FV_MAX(2 * *capacity, FIRST_BYTES / n_bytes + 1));
    memcpy(&list, pointer, sizeof list); /* whatever it points to: all pointers look alike here */
    void *grown = fv_grow(list, n, wanted, n_bytes);
    if (!grown)
        return fv_fail_memory(err, wanted > SIZE_MAX / n_bytes ? SIZE_MAX : wanted * n_bytes,
                              "a list");
    memcpy(pointer, &grown, sizeof grown);
    *capacity = wanted;
    return FV_OK;
}
