/* Host, Origin and key of a request. See guard.h. */
#include "serve/guard.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/number.h"
#include "base/sha256.h"
#include "serve/serve.h"

/* "name:port", "1.2.3.4", "[::1]:80" without the port; false when it is too long or no such. */
static bool host_name(const char *host, char *name, size_t size)
{
    const char *begin = *host == '[' ? host + 1 : host;
    const char *end = begin + strcspn(begin, *host == '[' ? "]" : ":");
    const char *port = *end == ']' ? end + 1 : end;
    if ((*host == '[' && *end != ']') ||
        (*port && (*port != ':' || port[1 + strspn(port + 1, "0123456789")])))
        return false;
    size_t n = (size_t)(end - begin);
    if (!n || n >= size)
        return false;
    memcpy(name, begin, n);
    name[n] = 0;
    return true;
}

bool serve_is_name(const char *text)
{
    return *text && !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789-._")];
}

bool serve_host_allowed(const char *host, const char *const *hosts, size_t n_hosts)
{
    char name[256];
    struct in6_addr address;
    if (!host || !host_name(host, name, sizeof name))
        return false;
    if (inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1 ||
        fv_ascii_same(name, "localhost"))
        return true;
    for (size_t i = 0; i < n_hosts; i++)
        if (fv_ascii_same(name, hosts[i]))
            return true;
    return false;
}

bool serve_origin_allowed(const char *origin, const char *host)
{
    if (!origin)
        return true;
    const char *rest = fv_ascii_begins(origin, "http://")    ? origin + 7
                       : fv_ascii_begins(origin, "https://") ? origin + 8
                                                             : NULL;
    return rest && host && fv_ascii_same(rest, host);
}

/* Digests are compared, so that neither length nor place of a difference shows. */
bool serve_key_allowed(const char *authorization, const char *const *keys, size_t n_keys)
{
    uint8_t given[FV_SHA256_BYTES], wanted[FV_SHA256_BYTES];
    bool found = false;
    fv_sha256 sha;
    if (!authorization || !fv_ascii_begins(authorization, "Bearer "))
        return false;
    const char *key = authorization + 7;
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, key, strlen(key));
    fv_sha256_end(&sha, given);
    for (size_t i = 0; i < n_keys; i++) {
        unsigned difference = 0;
        fv_sha256_begin(&sha);
        fv_sha256_add(&sha, keys[i], strlen(keys[i]));
        fv_sha256_end(&sha, wanted);
        for (size_t j = 0; j < FV_SHA256_BYTES; j++)
            difference |= (unsigned)(given[j] ^ wanted[j]);
        found |= !difference;
    }
    return found;
}

bool serve_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (!strcmp(host, "localhost"))
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}
