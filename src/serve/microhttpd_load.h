/* microhttpd_load: libmicrohttpd, opened when a server starts.
 *
 * It is not linked: it brings GnuTLS and what that needs, which every `fastvlm run` would load. */
#ifndef FV_MICROHTTPD_LOAD_H
#define FV_MICROHTTPD_LOAD_H

#include <microhttpd.h>

#include "base/base.h"

typedef struct serve_mhd {
    struct MHD_Daemon *(*start_daemon)(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback apc,
                                       void *apc_cls, MHD_AccessHandlerCallback dh, void *dh_cls,
                                       ...);
    MHD_socket (*quiesce_daemon)(struct MHD_Daemon *daemon);
    void (*stop_daemon)(struct MHD_Daemon *daemon);
    const char *(*lookup_connection_value)(struct MHD_Connection *connection,
                                           enum MHD_ValueKind kind, const char *key);
    const union MHD_ConnectionInfo *(*get_connection_info)(struct MHD_Connection *connection,
                                                           enum MHD_ConnectionInfoType type, ...);
    struct MHD_Response *(*create_response_from_buffer)(size_t n, void *buffer,
                                                        enum MHD_ResponseMemoryMode mode);
    struct MHD_Response *(*create_response_from_callback)(uint64_t size, size_t block_size,
                                                          MHD_ContentReaderCallback read,
                                                          void *user,
                                                          MHD_ContentReaderFreeCallback free);
    enum MHD_Result (*add_response_header)(struct MHD_Response *response, const char *header,
                                           const char *content);
    enum MHD_Result (*queue_response)(struct MHD_Connection *connection, unsigned status,
                                      struct MHD_Response *response);
    void (*destroy_response)(struct MHD_Response *response);
    size_t (*http_unescape)(char *text);
} serve_mhd;

/* The one table of this process, filled at the first call; never unloaded. */
fv_status serve_mhd_load(const serve_mhd **out, fv_error *err);

#endif
