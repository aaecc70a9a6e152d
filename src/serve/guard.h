/* guard: which requests a browser or a stranger must not make. Functions of text. */
#ifndef FV_SERVE_GUARD_H
#define FV_SERVE_GUARD_H

#include "base/base.h"

/* Whether Host names this server: an address, localhost, or one of hosts, with any port. A page
 * of another site that has its name resolve to this machine (DNS rebinding) sends that name. */
bool serve_host_allowed(const char *host, const char *const *hosts, size_t n_hosts);
/* Whether Origin, which browsers send along, is the page of this server itself: http or https at
 * host. NULL, no browser: true. */
bool serve_origin_allowed(const char *origin, const char *host);
/* "Bearer KEY", one of keys; takes the same time whichever it is and however much is right. */
bool serve_key_allowed(const char *authorization, const char *const *keys, size_t n_keys);

#endif
