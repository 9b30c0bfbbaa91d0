/*
 * Choosing from an index, by narrowing a set of entries: not attestations, then by request, then by
 * platform, then by size. Sources of the shapes: image-spec image-index.md, KitOps' ModelKit index
 * ("modelMetadata"), olot (a ModelPack manifest beside the images, marked unknown/unknown).
 */
#include "loader/oci/variant.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LISTED = 6, LABEL = 96 };

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

static const char *trait(const cp_descriptor *d, const char *key)
{
    for (size_t i = 0; i < d->n_traits; i++)
        if (strcasecmp(d->trait[i].key, key) == 0)
            return d->trait[i].value;
    return NULL;
}

/* "6GB", "4.5 GiB", "800" as bytes; 0: none of that. */
static uint64_t parse_bytes(const char *s)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"KB", 1e3},
                 {"MB", 1e6},
                 {"GB", 1e9},
                 {"TB", 1e12},
                 {"K", 1024},
                 {"M", 1 << 20},
                 {"G", 1 << 30},
                 {"KiB", 1024},
                 {"MiB", 1 << 20},
                 {"GiB", 1 << 30},
                 {"TiB", 1099511627776.0}};
    double v = 0, place = 0;
    const char *p = s;
    int digits = 0;
    for (; ((*p >= '0' && *p <= '9') || (*p == '.' && place == 0)) && digits < 18; p++) {
        if (*p == '.') {
            place = 1;
            continue;
        }
        v = 10 * v + (*p - '0');
        place *= 10;
        digits++;
    }
    if (digits == 0)
        return 0;
    if (place > 1)
        v /= place;
    while (*p == ' ')
        p++;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcasecmp(p, units[i].unit) == 0)
            return v * units[i].bytes < 9e18 ? (uint64_t)(v * units[i].bytes) : 0;
    return 0;
}

/* What running an entry takes, as far as anything says; 0: nothing does. */
static uint64_t need_of(const cp_descriptor *d)
{
    static const char *const keys[] = {"vram", "memory", "ram", "size"};
    uint64_t most = d->model_bytes;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const char *v = trait(d, keys[i]);
        uint64_t n = v ? parse_bytes(v) : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* An entry in a few words. */
static void label(const cp_descriptor *d, char out[LABEL])
{
    static const char *const keys[] = {"quantization", "precision", "variant",
                                       "org.opencontainers.image.title"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const char *v = trait(d, keys[i]);
        if (v) {
            cp_snprintf(out, LABEL, "%.*s=%.40s", 12, i == 3 ? "title" : keys[i], v);
            return;
        }
    }
    if (d->ref_name[0])
        cp_snprintf(out, LABEL, "%.60s", d->ref_name);
    else if (d->os[0] && strcmp(d->os, "unknown") != 0)
        cp_snprintf(out, LABEL, "%.20s/%.20s", d->os, d->arch);
    else
        cp_snprintf(out, LABEL, "%.19s", d->digest);
}

static size_t list(const cp_index *x, const bool *in, char *out, size_t cap)
{
    size_t n = 0, listed = 0, all = 0;
    out[0] = '\0';
    for (size_t i = 0; i < x->n; i++) {
        char text[LABEL];
        uint64_t bytes = need_of(&x->item[i]);
        if (!in[i])
            continue;
        all++;
        if (listed == LISTED)
            continue;
        label(&x->item[i], text);
        n += cp_snprintf(out + n, cap - n, "%s%s", listed++ ? ", " : "", text);
        if (bytes)
            n += cp_snprintf(out + n, cap - n, " (%" PRIu64 " MiB)", bytes >> 20);
    }
    if (all > listed)
        cp_snprintf(out + n, cap - n, ", ...");
    return all;
}

static bool is_attestation(const cp_descriptor *d)
{
    return trait(d, "vnd.docker.reference.type") != NULL;
}

/* See variant.h. */
bool cp_variant_asked(const cp_descriptor *d, const char *variant)
{
    const char *eq = strchr(variant, '=');
    if (strcasecmp(variant, d->ref_name) == 0 || strcmp(variant, d->digest) == 0)
        return true;
    for (size_t i = 0; i < d->n_traits; i++) {
        const cp_trait *t = &d->trait[i];
        if (strcasecmp(t->value, variant) == 0)
            return true;
        if (eq && strlen(t->key) == (size_t)(eq - variant) &&
            strncasecmp(t->key, variant, (size_t)(eq - variant)) == 0 &&
            strcasecmp(t->value, eq + 1) == 0)
            return true;
    }
    return false;
}

typedef enum platform_kind { FOREIGN, UNKNOWN, NONE, WANTED } platform_kind;

static platform_kind platform_of(const cp_descriptor *d, const char *os, const char *arch)
{
    return d->os[0] == '\0'                                       ? NONE
           : strcmp(d->os, "unknown") == 0                        ? UNKNOWN
           : strcmp(d->os, os) == 0 && strcmp(d->arch, arch) == 0 ? WANTED
                                                                  : FOREIGN;
}

static size_t count(const bool *in, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += in[i];
    return k;
}

/* Narrow to what may be meant; *chosen when exactly one is left. */
static cp_code narrow(const cp_index *x, const cp_variant_wish *w, bool *in, cp_err *err)
{
    const char *os = w->os ? w->os : "linux", *arch = w->arch ? w->arch : machine;
    char text[300];
    platform_kind best = FOREIGN;
    if (x->n > CP_VARIANTS_MAX)
        return cp_fail(err, CP_CORRUPT, "an index of %zu entries; at most %d are chosen from", x->n,
                       CP_VARIANTS_MAX);
    for (size_t i = 0; i < x->n; i++)
        in[i] = !is_attestation(&x->item[i]);
    if (w->variant && w->variant[0]) {
        bool *named = cp_xcalloc(x->n ? x->n : 1, sizeof(*named));
        for (size_t i = 0; i < x->n; i++)
            named[i] = in[i] && cp_variant_asked(&x->item[i], w->variant);
        bool none = count(named, x->n) == 0;
        if (none)
            list(x, in, text, sizeof(text));
        else
            memcpy(in, named, x->n * sizeof(*in));
        free(named);
        if (none)
            return cp_fail(err, CP_NOT_FOUND, "no variant '%.60s'; there are: %s", w->variant,
                           text);
    }
    size_t n = count(in, x->n);
    if (n == 1 && !w->os)
        return CP_OK;
    for (size_t i = 0; i < x->n; i++) {
        platform_kind k = in[i] ? platform_of(&x->item[i], os, arch) : FOREIGN;
        best = k > best ? k : best;
    }
    if (best == FOREIGN || (best != WANTED && best != NONE && w->os)) {
        size_t all = list(x, in, text, sizeof(text));
        return cp_fail(err, CP_NOT_FOUND, "no entry for %s/%s%s%s", os, arch,
                       all ? "; there are: " : ", nor any other", text);
    }
    for (size_t i = 0; i < x->n; i++)
        in[i] = in[i] && platform_of(&x->item[i], os, arch) == best;
    return CP_OK;
}

/* Of several the largest that fits. */
static cp_code by_size(const cp_index *x, uint64_t budget, const bool *in, size_t *item,
                       char why[256], cp_err *err)
{
    char text[300], name[LABEL];
    size_t n = list(x, in, text, sizeof(text)), known = 0, best = x->n;
    for (size_t i = 0; i < x->n; i++) {
        uint64_t need = in[i] ? need_of(&x->item[i]) : 0;
        known += need > 0;
        if (need > 0 && (budget == 0 || need <= budget) &&
            (best == x->n || need > need_of(&x->item[best])))
            best = i;
    }
    if (known == 0)
        return cp_fail(err, CP_USAGE,
                       "%zu entries match and nothing tells their sizes; name one "
                       "as variant: %s",
                       n, text);
    if (best == x->n)
        return cp_fail(err, CP_NO_MEMORY, "none of %zu variants fits into %" PRIu64 " MiB: %s", n,
                       budget >> 20, text);
    *item = best;
    label(&x->item[best], name);
    if (budget)
        cp_snprintf(why, 256,
                    "variant %s taken of %zu: the largest (%" PRIu64 " MiB) that fits into %" PRIu64
                    " MiB",
                    name, n, need_of(&x->item[best]) >> 20, budget >> 20);
    else
        cp_snprintf(why, 256,
                    "variant %s taken of %zu: the largest (%" PRIu64 " MiB), no limit is set", name,
                    n, need_of(&x->item[best]) >> 20);
    return CP_OK;
}

/* See variant.h. */
cp_code cp_variant_choose(const cp_index *x, const cp_variant_wish *w, size_t *item, char why[256],
                          cp_err *err)
{
    static const cp_variant_wish nothing = {0};
    bool *in = cp_xcalloc(x->n ? x->n : 1, sizeof(*in));
    w = w ? w : &nothing;
    why[0] = '\0';
    cp_code code = narrow(x, w, in, err);
    size_t n = code ? 0 : count(in, x->n);
    if (n == 1) {
        char name[LABEL];
        *item = 0;
        while (!in[*item])
            ++*item;
        label(&x->item[*item], name);
        if (x->n > 1)
            cp_snprintf(why, 256, "variant %s taken of %zu: %s", name, x->n,
                        w->variant && w->variant[0]    ? "it was asked for"
                        : x->item[*item].os[0] == '\0' ? "the only one"
                                                       : "the one for this platform");
    } else if (!code) {
        code = by_size(x, w->memory_budget, in, item, why, err);
    }
    free(in);
    return code;
}

/* See variant.h. */
bool cp_variant_needs_bytes(const cp_index *x, const cp_variant_wish *w, size_t i)
{
    static const cp_variant_wish nothing = {0};
    bool *in = cp_xcalloc(x->n ? x->n : 1, sizeof(*in));
    bool needs = narrow(x, w ? w : &nothing, in, NULL) == CP_OK && count(in, x->n) > 1 && in[i] &&
                 x->item[i].model_bytes == 0;
    free(in);
    return needs;
}
