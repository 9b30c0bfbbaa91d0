/*
 * Choosing from an index: attestations never, one entry as it is, of several the one for the wanted
 * platform.
 */
#include "loader/oci/variant.h"

#include <string.h>

#if defined(__x86_64__)
static const char machine[] = "amd64";
#elif defined(__aarch64__)
static const char machine[] = "arm64";
#else
static const char machine[] = "unknown";
#endif

/* See variant.h. */
cp_code cp_variant_platform(cp_variant_wish *w, char buf[64], const char *platform, cp_err *err)
{
    if (!platform || !*platform)
        return CP_OK;
    size_t n = strcspn(platform, "/");
    if (n == 0 || platform[n] != '/' || !platform[n + 1] || !cp_strcopy(buf, 64, platform))
        return cp_fail(err, CP_USAGE, "platform '%s' is not of the form os/arch", platform);
    buf[n] = '\0';
    w->os = buf;
    w->arch = buf + n + 1;
    return CP_OK;
}

/* See variant.h. */
cp_code cp_variant_choose(const cp_index *x, const cp_variant_wish *w, size_t *item, char why[256],
                          cp_err *err)
{
    const char *os = w && w->os ? w->os : "linux", *arch = w && w->arch ? w->arch : machine;
    size_t n = 0;
    why[0] = '\0';
    for (size_t i = 0; i < x->n; i++) {
        const cp_descriptor *d = &x->item[i];
        if (strcmp(d->os, "unknown") == 0) /* attestations */
            continue;
        if (strcmp(d->os, os) == 0 && strcmp(d->arch, arch) == 0) {
            *item = i;
            if (x->n > 1)
                cp_snprintf(why, 256, "entry %zu of %zu: for %s/%s", i + 1, x->n, os, arch);
            return CP_OK;
        }
        if (d->os[0] == '\0' || x->n == 1) {
            *item = i;
            n++;
        }
    }
    if (n == 0)
        return cp_fail(err, CP_NOT_FOUND, "the index has no entry for %s/%s", os, arch);
    if (n > 1)
        return cp_fail(err, CP_USAGE,
                       "the index has %zu entries without platform; name one by its digest", n);
    return CP_OK;
}
