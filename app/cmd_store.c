/* pack, list, inspect, rm: handle the local store from the command line. */
#include "app/command.h"
#include "app/emit_json.h"
#include "app/progress.h"
#include "app/recognised.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cp_cmd_pack(const cp_options *o)
{
    cp_loader_options lo = cp_app_loader_options(o);
    cp_progress p;
    char digest[72];
    cp_err err = {0};
    const char *format = o->format == CP_FORMAT_DOCKER ? "docker" : "modelpack";
    cp_progress_init(&p, o->tag, false);
    cp_code rc =
        cp_store_pack(&lo, o->args.p[0], o->tag, format, cp_progress_report, &p, digest, &err);
    cp_progress_end(&p);
    if (rc) {
        return cp_app_fail(&err);
    }
    puts(digest);
    return 0;
}

int cp_cmd_list(const cp_options *o)
{
    cp_loader_options lo = cp_app_loader_options(o);
    cp_store_entry *e;
    size_t n;
    cp_err err = {0};
    if (cp_store_list(&lo, &e, &n, &err)) {
        return cp_app_fail(&err);
    }
    if (o->json) {
        cp_emit_entries(stdout, e, n);
    } else {
        printf("%-40s %-12s %-8s %-10s %10s  %s\n", "NAME", "FORMAT", "ARCH", "QUANT", "MIB",
               "DIGEST");
        for (size_t i = 0; i < n; i++) {
            printf("%-40s %-12s %-8s %-10s %10.1f  %.19s\n", e[i].name, e[i].format, e[i].arch,
                   e[i].quant, (double)e[i].bytes / 1048576.0, e[i].digest);
        }
    }
    cp_store_entries_free(e, n);
    return 0;
}

static void look(void *arg, const cp_meta *meta)
{
    cp_recognised **r = arg;
    *r = cp_xmalloc(sizeof **r);
    cp_recognise(*r, meta);
}

/* What the weights say of themselves, a line each; nothing where they could not be read. */
static void print_recognised(const cp_recognised *r)
{
    char text[1024];
    const cp_hparams *h = &r->h;
    if (r->refused[0]) {
        printf("refused %s\n", r->refused);
    }
    if (h->n_experts) {
        printf("experts %d, %d used, %d shared\n", h->n_experts, h->n_experts_used,
               h->n_experts_shared);
    }
    if (h->n_window_layers) {
        printf("windows %d positions in %d of %d layers\n", h->window, h->n_window_layers,
               h->n_layers);
    }
    if (h->n_state_layers) {
        printf("state   %zu bytes a sequence in %d of %d layers\n", h->state_bytes,
               h->n_state_layers, h->n_layers);
    }
    if (h->n_mtp) {
        printf("skipped %d MTP block%s\n", h->n_mtp, h->n_mtp == 1 ? "" : "s");
    }
    cp_recognised_templates(r, text, sizeof text);
    printf("template %s\n", text);
}

static void print_entry(const cp_store_entry *e, const cp_recognised *r)
{
    printf("name    %s\ndigest  %s\nbytes   %" PRIu64 "\nformat  %s\narch    %s\nquant   %s\n",
           e->name, e->digest, e->bytes, e->format, e->arch, e->quant);
    if (r) {
        print_recognised(r);
    }
    for (size_t i = 0; i < e->n_ignored; i++) {
        printf("ignored %s\n", e->ignored[i]);
    }
    for (size_t i = 0; i < e->n_layers; i++) {
        printf("layer   %s %" PRIu64 " %s %s\n", e->layers[i].digest, e->layers[i].bytes,
               e->layers[i].media_type, e->layers[i].filepath);
    }
}

int cp_cmd_inspect(const cp_options *o)
{
    cp_recognised *r = NULL;
    cp_loader_options lo = cp_app_loader_options(o);
    cp_store_entry *e;
    cp_err err = {0};
    lo.look = look;
    lo.look_arg = &r;
    if (cp_store_inspect(&lo, o->args.p[0], &e, &err)) {
        free(r);
        return cp_app_fail(&err);
    }
    if (o->json) {
        cp_emit_entry(stdout, e, r);
    } else {
        print_entry(e, r);
    }
    free(r);
    cp_store_entries_free(e, 1);
    return 0;
}

int cp_cmd_rm(const cp_options *o)
{
    cp_loader_options lo = cp_app_loader_options(o);
    uint64_t freed = 0;
    cp_err err = {0};
    if (cp_store_rm(&lo, o->args.p[0], &freed, &err)) {
        return cp_app_fail(&err);
    }
    if (o->json) {
        fputs("{\"name\":", stdout);
        cp_emit_string(stdout, o->args.p[0], strlen(o->args.p[0]));
        printf(",\"freed_bytes\":%" PRIu64 "}\n", freed);
    } else {
        fprintf(stderr, "removed %s, %.1f MiB freed\n", o->args.p[0], (double)freed / 1048576.0);
    }
    return 0;
}
