// deps: loader
/*
 * Fuzz target: JSON of manifests and indexes. The first byte picks manifest or index. A manifest
 * that parses is planned; an index that parses is chosen from, edited, and what was written parses
 * again.
 */
#include "base/digest.h"
#include "loader/oci/content/choice.h"
#include "loader/packagings/packaging.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void walk(const cp_descriptor *d)
{
    uint8_t raw[32];
    check(d->media_type && d->artifact_type && d->ref_name && d->filepath && d->os && d->arch);
    check(d->filepath[0] != '/' && strcmp(d->filepath, "..") != 0 &&
          strncmp(d->filepath, "../", 3) != 0 && !strstr(d->filepath, "/../"));
    /* a digest of another algorithm is kept as it was written */
    check(d->sha256 ? cp_digest_parse(d->digest, raw) && memcmp(raw, d->raw, sizeof(raw)) == 0
                    : !cp_digest_parse(d->digest, raw));
    check(d->n_traits <= CP_TRAITS_MAX);
    for (size_t i = 0; i < d->n_traits; i++)
        check(d->trait[i].key && d->trait[i].value);
}

/* What packing would write of such a manifest parses again. */
static void written(const cp_manifest *m)
{
    static const char *const formats[] = {"modelpack", "docker"};
    for (size_t i = 0; i < 2; i++) {
        const cp_packaging *row = cp_packaging_named(formats[i]);
        const cp_str text = {m->media_type, strlen(m->media_type)};
        const cp_pack_facts facts = {.digest = m->config.digest,
                                     .bytes = m->bytes,
                                     .n_params = m->bytes,
                                     .arch = m->artifact_type,
                                     .quant = m->config.media_type,
                                     .name = text,
                                     .license = text,
                                     .size_label = i ? text : (cp_str){0}};
        cp_buf config = {0}, json = {0};
        int64_t ignored = 0;
        row->config(&config, &facts);
        check(!config.failed &&
              cp_json_positive(config.p, config.n, NULL, "x", &ignored, NULL) == CP_OK);
        cp_manifest *again = NULL;
        check(
            cp_manifest_write(&json, row->artifact_type, &m->config, m->layer, m->n_layers, NULL) ||
            !m->config.sha256 || cp_manifest_parse(&again, json.p, json.n, NULL) ||
            again->n_layers == m->n_layers);
        cp_manifest_free(again);
        cp_buf_fini(&config);
        cp_buf_fini(&json);
    }
}

static size_t weights_of(const cp_plan *plan)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n; i++)
        n += plan->layer[i].role == CP_ROLE_WEIGHTS;
    return n;
}

/* One of several models in an artifact: some weights stay, never more than there were. */
static void among_layers(const cp_manifest *m)
{
    static const cp_variant_wish wishes[] = {
        {0}, {.variant = "q8_0"}, {.variant = "quant=q4_0", .memory_budget = 5000}};
    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
        const cp_packaging *row;
        cp_plan plan;
        char why[256];
        cp_err err = {0};
        if (cp_packaging_plan(m, &row, &plan, NULL))
            return;
        size_t before = weights_of(&plan);
        cp_code code = cp_choice_of_layers(&plan, m, NULL, &wishes[i], why, &err);
        size_t after = weights_of(&plan);
        check(code ? err.code == code && err.msg[0] && after == before
                   : after > 0 && (after < before) == (why[0] != '\0'));
        cp_plan_fini(&plan);
    }
}

static void manifest(const char *p, size_t n)
{
    cp_manifest *m;
    cp_err err = {0};
    int64_t positive = 0;
    cp_code code = cp_manifest_parse(&m, p, n, &err);
    check((code == CP_OK) == (m != NULL));
    if (cp_json_positive(p, n, "config", "size", &positive, NULL) == CP_OK)
        check(positive >= 0 && positive <= INT32_MAX);
    if (code) {
        check(err.code == code && err.msg[0] && code == CP_CORRUPT);
        return;
    }
    const cp_packaging *row;
    cp_plan plan;
    bool weights = false;
    walk(&m->config);
    for (size_t i = 0; i < m->n_layers; i++)
        walk(&m->layer[i]);
    code = cp_packaging_plan(m, &row, &plan, &err);
    check(code == CP_OK || (code == err.code && err.msg[0] && plan.n == 0 && !plan.layer));
    check(code == CP_OK || code == CP_UNSUPPORTED || code == CP_CORRUPT);
    check(code || (row && plan.n == m->n_layers));
    for (size_t i = 0; i < plan.n; i++) {
        const cp_plan_layer *l = &plan.layer[i];
        check(l->layer == i && (l->note != NULL) == (l->role == CP_ROLE_IGNORED));
        weights = weights || l->role == CP_ROLE_WEIGHTS;
    }
    check(code || weights);
    among_layers(m);
    if (m->n_layers < 8)
        written(m);
    cp_plan_fini(&plan);
    cp_manifest_free(m);
}

static void choose(cp_index *x, const cp_variant_wish *w)
{
    char why[256];
    size_t item = x->n;
    cp_err err = {0};
    cp_code code = cp_variant_choose(x, w, &item, why, &err);
    check(code ? err.code == code && err.msg[0] != '\0' : item < x->n);
    for (size_t i = 0; i < x->n && i < 8; i++)
        if (cp_variant_needs_bytes(x, w, i))
            x->item[i].model_bytes = 1 + 1000 * i;
    check(cp_variant_choose(x, w, &item, why, NULL) || item < x->n);
}

static void index_of(const char *p, size_t n)
{
    cp_index *x, *again;
    cp_err err = {0};
    cp_code code = cp_index_parse(&x, p, n, &err);
    check((code == CP_OK) == (x != NULL));
    cp_layout_version_check(p, n, NULL);
    if (code) {
        check(err.code == code && err.msg[0] && code == CP_CORRUPT);
        return;
    }
    static const cp_variant_wish wishes[] = {{0},
                                             {.os = "linux", .arch = "amd64"},
                                             {.variant = "q4_0"},
                                             {.variant = "a=b", .memory_budget = 5000}};
    for (size_t i = 0; i < x->n; i++)
        walk(&x->item[i]);
    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++)
        choose(x, &wishes[i]);
    cp_buf put = {0}, dropped = {0};
    const cp_descriptor d = {.media_type = "m", .digest = "sha256:0", .size = 1};
    bool *drop = calloc(x->n + 1, sizeof(*drop));
    check(drop != NULL);
    for (size_t i = 0; i < x->n; i += 2)
        drop[i] = true;
    if (cp_index_drop(&dropped, p, n, drop, NULL) == CP_OK) {
        check(cp_index_parse(&again, dropped.p, dropped.n, NULL) == CP_OK && again->n == x->n / 2);
        cp_index_free(again);
    }
    cp_index_put(&put, p, n, "name", &d, NULL);
    free(drop);
    cp_buf_fini(&put);
    cp_buf_fini(&dropped);
    cp_index_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        index_of((const char *)data + 1, size - 1);
    else
        manifest((const char *)data + 1, size - 1);
    return 0;
}
