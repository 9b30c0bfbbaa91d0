/* This file says what a model's metadata tells: see recognised.h. */
#include "app/recognised.h"

#include <stdio.h>
#include <string.h>

static void add_template(cp_recognised *r, const char *name, size_t n)
{
    if (r->n_templates < CP_TEMPLATES_MAX) {
        char *to = r->templates[r->n_templates++];
        cp_snprintf(to, sizeof r->templates[0], "%.*s", n < 63 ? (int)n : 63, name);
        cp_printable(to);
    }
}

static void find_templates(cp_recognised *r, const cp_meta *meta)
{
    static const char key[] = "tokenizer.chat_template", dot[] = "tokenizer.chat_template.";
    if (cp_meta_find(meta, key)) {
        add_template(r, "default", strlen("default"));
    }
    for (size_t i = 0; i < cp_meta_count(meta); i++) {
        const cp_meta_kv *kv = cp_meta_at(meta, i);
        size_t k = sizeof dot - 1;
        if (kv->key.n > k && memcmp(kv->key.p, dot, k) == 0) {
            add_template(r, kv->key.p + k, kv->key.n - k);
        }
    }
}

void cp_recognise(cp_recognised *r, const cp_meta *meta)
{
    cp_err err = {0};
    memset(r, 0, sizeof *r);
    if (cp_model_recognise(&r->h, meta, &err)) {
        cp_strcopy(r->refused, sizeof r->refused, err.msg);
        cp_printable(r->refused); /* it may hold a text of the file */
    }
    find_templates(r, meta);
}

void cp_recognised_traits(const cp_hparams *h, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    if (h->n_experts) {
        n +=
            cp_snprintf(out + n, cap - n, "; %d experts, %d used", h->n_experts, h->n_experts_used);
    }
    if (h->n_experts_shared) {
        n += cp_snprintf(out + n, cap - n, ", %d shared", h->n_experts_shared);
    }
    if (h->n_window_layers) {
        n += cp_snprintf(out + n, cap - n, "; windows of %d in %d of %d layers", h->window,
                         h->n_window_layers, h->n_layers);
    }
    if (h->n_state_layers) {
        n += cp_snprintf(out + n, cap - n, "; states of %zu bytes a sequence in %d of %d layers",
                         h->state_bytes, h->n_state_layers, h->n_layers);
    }
    if (h->n_mtp) {
        cp_snprintf(out + n, cap - n, "; %d MTP block%s skipped", h->n_mtp,
                    h->n_mtp == 1 ? "" : "s");
    }
}

void cp_recognised_templates(const cp_recognised *r, char *out, size_t cap)
{
    size_t n = r->n_templates ? 0 : cp_snprintf(out, cap, "none");
    for (size_t i = 0; i < r->n_templates; i++) {
        n += cp_snprintf(out + n, cap - n, "%s%s", i ? ", " : "", r->templates[i]);
    }
}
