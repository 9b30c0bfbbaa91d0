/*
 * A handful of redirects, looked through from the front. When all rows are taken the oldest gives
 * way. A URL that has expired is harmless: its refusal sends the job back to the endpoint, which
 * redirects anew.
 */
#include "loader/oci/remote/redirects.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static size_t row_of(const cp_redirects *r, const char *digest, size_t endpoint)
{
    size_t i = 0;
    while (i < CP_REDIRECTS_MAX && !(r->row[i].url && r->row[i].endpoint == endpoint &&
                                     strcmp(r->row[i].digest, digest) == 0))
        i++;
    return i;
}

/* See redirects.h. */
const char *cp_redirects_find(const cp_redirects *r, const char *digest, size_t endpoint)
{
    size_t i = row_of(r, digest, endpoint);
    return i < CP_REDIRECTS_MAX ? r->row[i].url : NULL;
}

/* See redirects.h. */
void cp_redirects_put(cp_redirects *r, const char *digest, size_t endpoint, const char *url)
{
    size_t i = row_of(r, digest, endpoint);
    if (i < CP_REDIRECTS_MAX && strcmp(r->row[i].url, url) == 0)
        return;
    if (i == CP_REDIRECTS_MAX)
        i = r->n++ % CP_REDIRECTS_MAX;
    free(r->row[i].url);
    r->row[i].url = cp_xstrdup(url);
    r->row[i].endpoint = endpoint;
    cp_strcopy(r->row[i].digest, sizeof(r->row[i].digest), digest);
}

/* See redirects.h. */
void cp_redirects_fini(cp_redirects *r)
{
    for (size_t i = 0; i < CP_REDIRECTS_MAX; i++)
        free(r->row[i].url);
    *r = (cp_redirects){0};
}
