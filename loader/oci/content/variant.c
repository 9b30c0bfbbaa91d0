/*
 * Choosing from an index narrows a set of entries: attestations go first, then what the request
 * does not name, then other platforms, then what does not fit; of what is left the largest is
 * taken. Sources of the shapes: image-spec image-index.md (platform), KitOps' ModelKit index
 * ("modelMetadata"), olot (a ModelPack manifest beside the images, marked unknown/unknown). For
 * example, of the entries
 *
 *     {"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}
 *     {"modelMetadata":{"quantization":"Q4_K_M","size":"4.5 GB"}}
 *     {"annotations":{"precision":"bf16"}}
 *
 * --platform linux/arm64 means the first, --variant q4_k_m or quantization=Q4_K_M the second.
 */
#include "loader/oci/content/variant.h"

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

/* Architectures by the names that machines give them, and the variant that a plain name means.
 * Source: containerd/platforms database.go. */
static const struct {
    const char *arch, *also, *plain;
} arches[] = {
    {"amd64", "x86_64", "v1"},
    {"arm64", "aarch64", "v8"},
    {"arm", "armhf", "v7"},
};
enum { N_ARCHES = sizeof(arches) / sizeof(arches[0]) };

static const char *plain_arch(const char *arch)
{
    for (size_t i = 0; i < N_ARCHES; i++)
        if (strcmp(arch, arches[i].also) == 0)
            return arches[i].arch;
    return arch;
}

/* cpu, or what an architecture without one means; "8" is "v8" without its v. */
static const char *plain_cpu(const char *arch, const char *cpu)
{
    for (size_t i = 0; !cpu[0] && i < N_ARCHES; i++)
        if (strcmp(arch, arches[i].arch) == 0)
            cpu = arches[i].plain;
    return cpu[0] == 'v' ? cpu + 1 : cpu;
}

/* See variant.h. */
cp_code cp_variant_platform(cp_variant_wish *w, char buf[64], const char *platform, cp_err *err)
{
    if (!platform || !*platform)
        return CP_OK;
    char *rest = buf, *part[4] = {NULL};
    size_t n = 0;
    bool ok = cp_strcopy(buf, 64, platform);
    while (ok && rest && n < 4) {
        part[n] = strsep(&rest, "/");
        ok = part[n++][0] != '\0';
    }
    if (!ok || n < 2 || n > 3)
        return cp_fail(err, CP_USAGE, "platform '%s' is not of the form os/arch or os/arch/variant",
                       platform);
    w->os = part[0];
    w->arch = plain_arch(part[1]);
    w->cpu = part[2];
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
        cp_snprintf(out, LABEL, "%.20s/%.20s%s%.10s", d->os, d->arch, d->cpu[0] ? "/" : "", d->cpu);
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

/* LIKE: another variant of the architecture; a model is data, so it will do. */
typedef enum platform_kind { FOREIGN, UNKNOWN, NONE, LIKE, WANTED } platform_kind;

static platform_kind platform_of(const cp_descriptor *d, const cp_variant_wish *w)
{
    const char *arch = plain_arch(d->arch);
    if (d->os[0] == '\0')
        return NONE;
    if (strcmp(d->os, "unknown") == 0)
        return UNKNOWN;
    if (strcmp(d->os, w->os) != 0 || strcmp(arch, w->arch) != 0)
        return FOREIGN;
    if (strcmp(plain_cpu(arch, d->cpu), plain_cpu(arch, w->cpu ? w->cpu : "")) == 0)
        return WANTED;
    return w->cpu ? FOREIGN : LIKE;
}

/* The platform that is wanted, in words. */
static void platform_text(const cp_variant_wish *w, char out[64])
{
    cp_snprintf(out, 64, "%.20s/%.20s%s%.10s", w->os, w->arch, w->cpu ? "/" : "",
                w->cpu ? w->cpu : "");
}

static size_t count(const bool *in, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += in[i];
    return k;
}

/* w with the platform that stands in for none. */
static cp_variant_wish with_platform(const cp_variant_wish *w)
{
    cp_variant_wish full = *w;
    if (!w->os) {
        full.os = "linux";
        full.arch = machine;
        full.cpu = NULL;
    }
    return full;
}

/* Narrow to what may be meant. */
static cp_code narrow(const cp_index *x, const cp_variant_wish *w, bool *in, cp_err *err)
{
    const cp_variant_wish full = with_platform(w);
    char text[300], platform[64];
    platform_kind best = FOREIGN;
    platform_text(&full, platform);
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
        platform_kind k = in[i] ? platform_of(&x->item[i], &full) : FOREIGN;
        best = k > best ? k : best;
    }
    if (best == FOREIGN || (best == UNKNOWN && w->os)) {
        size_t all = list(x, in, text, sizeof(text));
        return cp_fail(err, CP_NOT_FOUND, "no entry for %s%s%s", platform,
                       all ? "; there are: " : ", nor any other", text);
    }
    for (size_t i = 0; i < x->n; i++)
        in[i] = in[i] && platform_of(&x->item[i], &full) == best;
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

/* Why entry i is the one that is left: what narrowed the choice to it. */
static void say_why(const cp_index *x, const cp_variant_wish *w, size_t i, char why[256])
{
    const cp_variant_wish full = with_platform(w);
    const platform_kind kind = platform_of(&x->item[i], &full);
    const bool named = w->variant && w->variant[0];
    char name[LABEL], platform[64];
    bool others = false; /* does the request leave entries for other platforms? */
    for (size_t k = 0; k < x->n; k++) {
        if (is_attestation(&x->item[k]) || (named && !cp_variant_asked(&x->item[k], w->variant)))
            continue;
        others = others || platform_of(&x->item[k], &full) != kind;
    }
    why[0] = '\0';
    if (x->n == 1 && kind != FOREIGN)
        return; /* there was no choice */
    label(&x->item[i], name);
    platform_text(&full, platform);
    size_t n = cp_snprintf(why, 256, "variant %s taken of %zu: %s", name, x->n,
                           named ? "named by --variant" : "");
    if (others)
        cp_snprintf(why + n, 256 - n, "%s%s%s", named ? ", " : "",
                    kind >= LIKE ? "for " : "the only one for any platform",
                    kind >= LIKE ? platform : "");
    else if (!named)
        cp_snprintf(why + n, 256 - n, "the only one%s%s", kind == FOREIGN ? "; it is not for " : "",
                    kind == FOREIGN ? platform : "");
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
        *item = 0;
        while (!in[*item])
            ++*item;
        say_why(x, w, *item, why);
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
