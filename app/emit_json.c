/* This file prints JSON on stdout: see emit_json.h. */
#include "app/emit_json.h"

#include <jansson.h>

void cp_emit_string(FILE *f, const char *s, size_t n)
{
    cp_buf b = {0};
    json_t *j = json_stringn(s, n);
    if (!j) { /* not UTF-8: keep ASCII, replace the rest */
        for (size_t i = 0; i < n; i++) {
            cp_buf_adds(&b, (unsigned char)s[i] < 128 ? (char[2]){s[i], 0} : "\xEF\xBF\xBD");
        }
        j = json_stringn(b.p ? b.p : "", b.n);
    }
    json_dumpf(j, f, JSON_ENCODE_ANY);
    json_decref(j);
    cp_buf_fini(&b);
}

static json_t *entry(const cp_store_entry *e)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < e->n_layers; i++) {
        const cp_store_layer *l = &e->layers[i];
        json_array_append_new(layers, json_pack("{s:s, s:I, s:s, s:s}", "digest", l->digest,
                                                "bytes", (json_int_t)l->bytes, "media_type",
                                                l->media_type, "filepath", l->filepath));
    }
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:o}", "name", e->name, "digest", e->digest,
                     "bytes", (json_int_t)e->bytes, "format", e->format, "arch", e->arch, "quant",
                     e->quant, "layers", layers);
}

static void print(FILE *f, json_t *j)
{
    json_dumpf(j, f, JSON_INDENT(2));
    fputc('\n', f);
    json_decref(j);
}

void cp_emit_entries(FILE *f, const cp_store_entry *e, size_t n)
{
    json_t *j = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(j, entry(&e[i]));
    }
    print(f, j);
}

/* A text of a file, which need not be UTF-8. */
static json_t *text(const char *s)
{
    json_t *j = json_string(s);
    return j ? j : json_string("(not UTF-8)");
}

static void add_recognised(json_t *j, const cp_recognised *r)
{
    const cp_hparams *h = &r->h;
    json_t *names = json_array();
    for (size_t i = 0; i < r->n_templates; i++) {
        json_array_append_new(names, text(r->templates[i]));
    }
    json_object_set_new(j, "templates", names);
    json_object_set_new(j, "refused", r->refused[0] ? text(r->refused) : json_null());
    json_object_set_new(j, "layers_count", json_integer(h->n_layers));
    json_object_set_new(j, "experts",
                        json_pack("{s:i, s:i, s:i}", "count", h->n_experts, "used",
                                  h->n_experts_used, "shared", h->n_experts_shared));
    json_object_set_new(
        j, "windows",
        json_pack("{s:i, s:i}", "positions", h->window, "layers", h->n_window_layers));
    json_object_set_new(
        j, "state",
        json_pack("{s:I, s:i}", "bytes", (json_int_t)h->state_bytes, "layers", h->n_state_layers));
    json_object_set_new(j, "mtp_blocks_skipped", json_integer(h->n_mtp));
}

void cp_emit_entry(FILE *f, const cp_store_entry *e, const cp_recognised *r)
{
    json_t *j = entry(e), *ignored = json_array();
    for (size_t i = 0; i < e->n_ignored; i++) {
        json_array_append_new(ignored, text(e->ignored[i]));
    }
    json_object_set_new(j, "ignored", ignored);
    if (r) {
        add_recognised(j, r);
    }
    print(f, j);
}
