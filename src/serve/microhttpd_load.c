/* Opens libmicrohttpd and finds its functions. See microhttpd_load.h. */
#if defined(FASTVLM_SERVE)
#include "serve/microhttpd_load.h"

#include <pthread.h>

#include "base/dynlib.h"

static const char *const library_files[] = {
#if defined(__APPLE__)
    "libmicrohttpd.12.dylib",
    "/opt/homebrew/lib/libmicrohttpd.12.dylib",
    "/usr/local/lib/libmicrohttpd.12.dylib",
#else
    "libmicrohttpd.so.12",
#endif
};

#define FUNCTION(name)                                 \
    {                                                  \
        "MHD_" #name, offsetof(serve_mhd, name), false \
    }
static const fv_dynlib_function library_functions[] = {
    FUNCTION(start_daemon),
    FUNCTION(quiesce_daemon),
    FUNCTION(stop_daemon),
    FUNCTION(lookup_connection_value),
    FUNCTION(get_connection_info),
    FUNCTION(create_response_from_buffer),
    FUNCTION(create_response_from_callback),
    FUNCTION(add_response_header),
    FUNCTION(queue_response),
    FUNCTION(destroy_response),
    FUNCTION(http_unescape),
};

static pthread_once_t mhd_once = PTHREAD_ONCE_INIT;
static serve_mhd mhd_table;
static char mhd_problem[FV_DYNLIB_PROBLEM]; /* empty: loaded */

static void mhd_symbols_load(void)
{
    fv_dynlib_open(&mhd_table, library_files, FV_COUNT(library_files), library_functions,
                   FV_COUNT(library_functions), mhd_problem);
}

fv_status serve_mhd_load(const serve_mhd **out, fv_error *err)
{
    pthread_once(&mhd_once, mhd_symbols_load);
    if (mhd_problem[0])
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "the server needs libmicrohttpd 0.9.71 or newer (%s); install it (Debian, "
                       "Ubuntu: apt-get install libmicrohttpd12)",
                       mhd_problem);
    *out = &mhd_table;
    return FV_OK;
}
#else
typedef int fv_microhttpd_load_is_left_out; /* a file needs a declaration */
#endif
