/* Structs with a size, copied in and out. See sized.h. */
#include "base/sized.h"

#include <string.h>

static size_t size_of(const void *sized)
{
    size_t size;
    memcpy(&size, sized, sizeof size);
    return size;
}

fv_status fv_options_in(void *to, size_t size, const void *from, const char *name, fv_error *err)
{
    memset(to, 0, size);
    if (from) {
        size_t given = size_of(from);
        if (given < sizeof given)
            return fv_fail(err, FV_ERR_ARGUMENT, 0,
                           "%s: size is %zu; call %s_default first, or set it to sizeof", name,
                           given, name);
        for (size_t i = size; i < given; i++)
            if (((const uint8_t *)from)[i])
                return fv_fail(err, FV_ERR_ARGUMENT, 0,
                               "%s: byte %zu is set, which this library (%s, %zu bytes) does not "
                               "know",
                               name, i, FV_VERSION, size);
        memcpy(to, from, FV_MIN(given, size));
    }
    memcpy(to, &size, sizeof size);
    return FV_OK;
}

fv_status fv_callbacks_in(fv_callbacks *copy, const fv_callbacks **member, fv_error *err)
{
    const fv_callbacks *given = *member;
    *member = copy;
    return FV_OPTIONS_IN(copy, fv_callbacks, given, err);
}

fv_status fv_result_check(const void *result, const char *name, fv_error *err)
{
    return size_of(result) >= sizeof(size_t)
               ? FV_OK
               : fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: size is %zu; set it to sizeof", name,
                         size_of(result));
}

bool fv_result_out(void *to, const void *from, size_t size)
{
    size_t wanted = to ? size_of(to) : 0, known = FV_MIN(wanted, size);
    if (wanted < sizeof wanted)
        return false;
    memcpy((uint8_t *)to + sizeof wanted, (const uint8_t *)from + sizeof wanted,
           known - sizeof wanted);
    memset((uint8_t *)to + known, 0, wanted - known);
    return true;
}
