/*
 * host: see host.h.
 */
#include "kernels/host.h"

#include "base/mem.h"
#include "base/memory.h"
#include "kernels/unpack.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

cp_code cp_host_device(const cp_backend *b, cp_err *err)
{
    const char *device = b->cfg.device, *name = b->row->name;
    if (device && strcmp(device, name) != 0)
        return cp_fail(err, CP_USAGE, "device %s: there is one of the kind, %s", device, name);
    return CP_OK;
}

void cp_host_name(const cp_backend *b, char *out, size_t n)
{
    cp_snprintf(out, n, "%s", b->row->name);
}

bool cp_host_supports(const cp_backend *b, cp_role role, cp_dtype t)
{
    (void)b;
    if (role == CP_ROLE_VECTOR)
        return t == CP_DTYPE_F32 || t == CP_DTYPE_F16 || t == CP_DTYPE_BF16;
    return cp_panel_kind_of(t) != CP_PANEL_COUNT;
}

void *cp_host_map(size_t n)
{
    if (!n)
        return NULL;
    void *p =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void cp_host_unmap(void *p, size_t n)
{
    if (p)
        munmap(p, n);
}

cp_code cp_host_take(cp_backend *b, cp_mem *m, size_t n, bool zeroed, cp_err *err)
{
    (void)b;
    (void)zeroed; /* it always is */
    void *p = cp_host_map(n);
    if (!p)
        return cp_fail(err, CP_NO_MEMORY, "%zu bytes cannot be had", n);
    *m = (cp_mem){.at = (cp_addr)(uintptr_t)p, .bytes = n};
    return CP_OK;
}

void cp_host_give(cp_backend *b, cp_mem *m)
{
    (void)b;
    cp_host_unmap(cp_host_at(m->at), m->bytes);
    *m = (cp_mem){0};
}

cp_code cp_host_put(cp_backend *b, cp_addr to, const void *from, size_t n, cp_err *err)
{
    (void)b;
    (void)err;
    memcpy(cp_host_at(to), from, n);
    return CP_OK;
}

cp_code cp_host_get(cp_backend *b, void *to, cp_addr from, size_t n, cp_err *err)
{
    (void)b;
    (void)err;
    memcpy(to, cp_host_at(from), n);
    return CP_OK;
}

cp_code cp_host_memory(const cp_backend *b, uint64_t *total, uint64_t *available, cp_err *err)
{
    (void)b;
    (void)err;
    cp_memory_host(total, available);
    return CP_OK;
}

cp_code cp_host_kv_bytes(const cp_backend *b, uint64_t models, uint64_t *bytes, char *how, size_t n,
                         cp_err *err)
{
    uint64_t total, available;
    (void)b;
    (void)models;
    (void)err;
    cp_memory_host(&total, &available);
    *bytes = available / 4;
    cp_snprintf(how, n, "25 %% of the %.1f MiB of memory that are available",
                (double)available / 1048576.0);
    return CP_OK;
}

void cp_host_ids_init(cp_host_ids *ids, const cp_prepare_config *cfg)
{
    ids->last = cp_xcalloc((size_t)cfg->max_seqs, sizeof(*ids->last));
    ids->tok = cp_xcalloc((size_t)cfg->max_rows, sizeof(*ids->tok));
    for (int i = 0; i < cfg->max_seqs; i++)
        ids->last[i] = CP_TOK_PREV;
}

void cp_host_ids_fini(cp_host_ids *ids)
{
    free(ids->last);
    free(ids->tok);
}

void cp_host_ids_begin(cp_host_ids *ids, const cp_batch *b)
{
    for (int r = 0; r < b->n_rows; r++)
        ids->tok[r] = cp_host_id(b->tok[r], ids->last[b->seqs[b->row_seq[r]].slot]);
}

void cp_host_ids_keep(cp_host_ids *ids, const cp_batch *b)
{
    for (int o = 0; o < b->n_out && b->samples; o++)
        if (b->samples[o].target < 0)
            ids->last[b->seqs[b->row_seq[b->out_rows[o]]].slot] = b->results[o].id;
}
