/*
 * Choosing among the files of one artifact. Names are cut into a stem, a quantization and a
 * shard's number (shard.h); files of one stem are one alternative. Each alternative becomes an
 * entry of an index in memory, and variant.c chooses among them by the rules that it has for
 * indexes. For example,
 *
 *     m-Q4_K_M.gguf                                       quant Q4_K_M
 *     m-Q8_0-00001-of-00002.gguf  m-Q8_0-00002-of-...     quant Q8_0, both or none
 *
 * are two alternatives of which a wish "Q8_0", or the memory, takes one.
 */
#include "loader/oci/content/choice.h"
#include "loader/oci/content/shard.h"
#include "loader/oci/store/blobs.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { STEM = 256, QUANT = 32 };

/* An alternative; its strings back the traits. */
typedef struct group {
    char stem[STEM]; /* the path without .gguf and shard number */
    char quant[QUANT];
    const char *file; /* the first one's name */
    cp_trait trait[2];
    uint64_t bytes;
    bool here;
} group;

static bool is_digits(const char *s, size_t n)
{
    return strspn(s, "0123456789") >= n;
}

/* path without .gguf, and without -00001-of-00003 before it. False: no *.gguf, or too long. */
static bool stem_of(const char *path, char out[STEM])
{
    const char *note;
    size_t n = strlen(path), n_prefix;
    unsigned no, count;
    if (cp_name_kind_of(path, &note) != CP_NAME_GGUF || n - 5 >= STEM)
        return false;
    n = cp_shard_name(path, &n_prefix, &no, &count) ? n_prefix : n - 5;
    memcpy(out, path, n);
    out[n] = '\0';
    return true;
}

/* The last quantization in a name: Q4_K_M, iq4_xs, TQ1_0, MXFP4, BF16, f16; "" when there is none.
 */
static void quant_of(const char *name, char out[QUANT])
{
    static const char *const starts[] = {"Q#", "IQ#", "TQ#", "MXFP#", "NVFP#", "BF#", "FP#", "F#"};
    out[0] = '\0';
    for (const char *p = name; *p; p++) {
        if (p > name && !strchr("-._ ", p[-1]))
            continue;
        for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
            size_t k = strlen(starts[i]) - 1, n = strcspn(p, "-. ");
            if (strncasecmp(p, starts[i], k) != 0 || !is_digits(p + k, 1) || n >= QUANT)
                continue;
            memcpy(out, p, n);
            out[n] = '\0';
        }
    }
}

static size_t find(const group *g, size_t n, const char *stem)
{
    size_t i = 0;
    while (i < n && strcmp(g[i].stem, stem) != 0)
        i++;
    return i;
}

/* The files' alternatives; of[i] is file i's, or SIZE_MAX. */
static size_t gather(const cp_choice_file *f, size_t n, group *g, size_t *of)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        char stem[STEM];
        of[i] = SIZE_MAX;
        if (!stem_of(f[i].path, stem))
            continue;
        of[i] = find(g, k, stem);
        group *x = &g[of[i]];
        if (of[i] == k) {
            k++;
            cp_strcopy(x->stem, STEM, stem);
            quant_of(cp_path_base(x->stem), x->quant);
            x->file = cp_path_base(f[i].path);
            x->here = true;
        }
        x->bytes += f[i].size;
        x->here = x->here && f[i].here;
    }
    return k;
}

static cp_descriptor entry(group *g)
{
    g->trait[0] = (cp_trait){.key = "file", .value = g->file};
    g->trait[1] = (cp_trait){.key = "quant", .value = g->quant};
    return (cp_descriptor){.media_type = "",
                           .artifact_type = "",
                           .ref_name = cp_path_base(g->stem),
                           .filepath = g->stem,
                           .os = "",
                           .arch = "",
                           .cpu = "",
                           .trait = g->trait,
                           .n_traits = g->quant[0] ? 2 : 1,
                           .model_bytes = g->bytes};
}

/* Are these models of which one is meant? By their names' quantizations, or by the request. */
static bool alternatives(const cp_index *x, const group *g, const char *variant)
{
    bool all = true, differ = false, named = false, others = false;
    for (size_t i = 0; i < x->n; i++) {
        bool asked = variant && variant[0] && cp_variant_asked(&x->item[i], variant);
        all = all && g[i].quant[0];
        differ = differ || strcasecmp(g[i].quant, g[0].quant) != 0;
        named = named || asked;
        others = others || !asked;
    }
    return x->n > 1 && ((all && differ) || (named && others));
}

/* Without a request, leave those that are here; with none here, all. */
static void keep_here(cp_index *x, group *g, size_t *number)
{
    size_t n = 0;
    for (size_t i = 0; i < x->n; i++)
        if (g[i].here) {
            x->item[n] = x->item[i];
            number[n++] = i;
        }
    if (n > 0)
        x->n = n;
}

/* See choice.h. */
cp_code cp_choice_among(cp_choice_file *f, size_t n, const cp_variant_wish *w, char why[256],
                        cp_err *err)
{
    cp_code code = CP_OK;
    why[0] = '\0';
    for (size_t i = 0; i < n; i++)
        f[i].keep = true;
    if (n < 2 || n > CP_VARIANTS_MAX)
        return CP_OK;
    cp_variant_wish wish = {.variant = w ? w->variant : NULL,
                            .memory_budget = w ? w->memory_budget : 0};
    bool asked = wish.variant && wish.variant[0];
    group *g = cp_xcalloc(n, sizeof(*g));
    size_t *of = cp_xcalloc(n, sizeof(*of)), *number = cp_xcalloc(n, sizeof(*number)), item = 0;
    cp_index x = {.item = cp_xcalloc(n, sizeof(*x.item)), .n = gather(f, n, g, of)};
    bool any_here = false;
    for (size_t i = 0; i < x.n; i++) {
        x.item[i] = entry(&g[i]);
        number[i] = i;
        any_here = any_here || g[i].here;
    }
    if (alternatives(&x, g, wish.variant)) {
        if (!asked)
            keep_here(&x, g, number);
        code = cp_variant_choose(&x, &wish, &item, why, err);
        if (!code && any_here && !g[number[item]].here)
            code = cp_fail(err, CP_NOT_FOUND, "'%.200s' is not here, only others of its artifact",
                           g[number[item]].stem);
        for (size_t i = 0; !code && i < n; i++)
            f[i].keep = of[i] == SIZE_MAX || of[i] == number[item];
    }
    free(x.item);
    free(number);
    free(of);
    free(g);
    return code;
}

/* See choice.h. */
cp_code cp_choice_of_layers(cp_plan *plan, const cp_manifest *m, const cp_layout *l,
                            const cp_variant_wish *w, char why[256], cp_err *err)
{
    cp_choice_file *f = cp_xcalloc(plan->n ? plan->n : 1, sizeof(*f));
    size_t n = 0;
    plan->variant = w ? w->variant : NULL;
    plan->memory_budget = w ? w->memory_budget : 0;
    for (size_t i = 0; i < plan->n; i++) {
        const cp_descriptor *d = &m->layer[plan->layer[i].layer];
        if (plan->layer[i].role == CP_ROLE_WEIGHTS)
            f[n++] = (cp_choice_file){.path = d->filepath,
                                      .size = d->size,
                                      .here = !l || (d->sha256 && cp_blob_here(l, d))};
    }
    cp_code code = cp_choice_among(f, n, w, why, err);
    for (size_t i = 0, k = 0; !code && i < plan->n; i++)
        if (plan->layer[i].role == CP_ROLE_WEIGHTS && !f[k++].keep) {
            plan->layer[i].role = CP_ROLE_IGNORED;
            plan->layer[i].note = CP_CHOICE_NOT_TAKEN;
            plan->layer[i].other = true;
        }
    free(f);
    return code;
}
