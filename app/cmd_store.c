/* pack, list, inspect, rm: handle the local store from the command line. */
#include "app/command.h"
#include "app/emit_json.h"
#include "app/progress.h"

#include <inttypes.h>
#include <stdio.h>
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
        cp_emit_entries(stdout, e, n, true);
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

int cp_cmd_inspect(const cp_options *o)
{
    cp_loader_options lo = cp_app_loader_options(o);
    cp_store_entry *e;
    cp_err err = {0};
    if (cp_store_inspect(&lo, o->args.p[0], &e, &err)) {
        return cp_app_fail(&err);
    }
    if (o->json) {
        cp_emit_entries(stdout, e, 1, false);
    } else {
        printf("name    %s\ndigest  %s\nbytes   %" PRIu64 "\nformat  %s\narch    %s\nquant   %s\n",
               e->name, e->digest, e->bytes, e->format, e->arch, e->quant);
        for (size_t i = 0; i < e->n_layers; i++) {
            printf("layer   %s %" PRIu64 " %s %s\n", e->layers[i].digest, e->layers[i].bytes,
                   e->layers[i].media_type, e->layers[i].filepath);
        }
    }
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
