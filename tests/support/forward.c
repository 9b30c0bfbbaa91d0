/* Plain forwards for tests: see forward.h. */
#include "tests/support/forward.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct cp_forward {
    cp_loaded *file;
    cp_model *model;
    cp_program program; /* the model's, with operations of its own: see regroup */
    cp_pool *pool;
    cp_backend *backend;
    cp_prepared *prepared;
    int positions; /* a page */
    int max_rows, n_entries, n_done;
    uint32_t n_pages;
    uint32_t *all_pages; /* [n_pages - 1] */
    bool zero;           /* the next step begins with zeroed pages */
    uint32_t *page[CP_MAX_GROUPS];
    const uint32_t *tables[CP_MAX_GROUPS];
    int32_t *pos, *row_seq, *out_rows;
    cp_sample_in *in;
    cp_sample_out *res;
};

/* Spreads the attention layers over groups of `size` layers (0: leaves them), the last of a kind
 * perhaps with places that no layer uses. */
static void regroup(cp_forward *f, int size)
{
    cp_program *g = &f->program;
    *g = *cp_model_program(f->model);
    g->ops = cp_xcalloc((size_t)g->n_ops, sizeof *g->ops);
    memcpy(g->ops, cp_model_program(f->model)->ops, (size_t)g->n_ops * sizeof *g->ops);
    if (size == 0) {
        return;
    }
    int count[2] = {0}, seen[2] = {0}, first[2], window = 0;
    for (int i = 0; i < g->n_ops; i++) {
        if (g->ops[i].kind == CP_OP_ATTENTION) {
            count[g->ops[i].u.attention.window > 0]++;
            window += g->ops[i].u.attention.window ? g->ops[i].u.attention.window - window : 0;
        }
    }
    cp_kv_group like = g->groups[0];
    like.n_layers = size;
    g->n_groups = 0;
    for (int w = 0; w < 2; w++) {
        first[w] = g->n_groups;
        for (int left = count[w]; left > 0; left -= size) {
            like.kind = w ? CP_GROUP_WINDOW : CP_GROUP_FULL;
            like.window = w ? window : 0;
            g->groups[g->n_groups++] = like;
        }
    }
    for (int i = 0; i < g->n_ops; i++) {
        cp_op *op = &g->ops[i];
        if (op->kind == CP_OP_ATTENTION) {
            int w = op->u.attention.window > 0, at = seen[w]++;
            op->u.attention.group = first[w] + at / size;
            op->u.attention.layer_in_group = at % size;
        }
    }
}

static void shuffle_pages(cp_forward *f, unsigned seed)
{
    const cp_program *g = &f->program;
    uint32_t *ids = cp_xcalloc(f->n_pages, sizeof *ids);
    uint64_t s = seed * 2654435761u + 1;
    for (uint32_t i = 1; i < f->n_pages; i++) {
        ids[i] = i;
    }
    for (uint32_t i = f->n_pages - 1; i > 1; i--) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        uint32_t j = 1 + (uint32_t)((s >> 33) % i), t = ids[i];
        ids[i] = ids[j];
        ids[j] = t;
    }
    uint32_t next = 1;
    for (int k = 0; k < g->n_groups; k++) {
        f->page[k] = cp_xcalloc((size_t)f->n_entries, sizeof(uint32_t));
        f->tables[k] = f->page[k];
        for (int i = 0; i < f->n_entries && g->groups[k].kind != CP_GROUP_STATE; i++) {
            f->page[k][i] = ids[next++];
        }
    }
    free(ids);
}

cp_code cp_forward_open(cp_forward **out, const cp_forward_config *cfg, cp_err *err)
{
    *out = NULL;
    cp_forward *f = cp_xcalloc(1, sizeof *f);
    cp_loader_options lo = {0};
    cp_code rc = cp_loader_open(&f->file, cfg->path, &lo, err);
    if (rc || (rc = cp_model_open(&f->model, f->file, err)) ||
        (rc = cp_pool_open(&f->pool, cfg->threads, err))) {
        goto done;
    }
    cp_backend_config bc = {.device = cfg->backend,
                            .exact = cfg->exact,
                            .gemm = cfg->gemm,
                            .pool = f->pool,
                            .isa_cap = cfg->level,
                            .act_f32 = cfg->act_f32};
    if ((rc = cp_backend_open(&f->backend, &bc, err))) {
        goto done;
    }
    regroup(f, cfg->layers_per_page);
    const cp_program *g = &f->program;
    f->positions = cp_backend_page_positions(f->backend);
    f->max_rows = cfg->max_rows;
    f->n_entries = (cfg->max_positions + f->positions - 1) / f->positions;
    f->n_pages = (uint32_t)(f->n_entries * g->n_groups) + 1;
    cp_prepare_config pc = {.max_rows = cfg->max_rows,
                            .max_out = cfg->max_rows,
                            .max_seqs = 1,
                            .page_positions = f->positions,
                            .n_pages = f->n_pages,
                            .n_state_slots = 2,
                            .kv_type = cfg->kv_type};
    if ((rc = cp_backend_prepare(f->backend, g, &pc, &f->prepared, err))) {
        goto done;
    }
    shuffle_pages(f, cfg->seed);
    f->all_pages = cp_xcalloc(f->n_pages, sizeof *f->all_pages);
    for (uint32_t i = 1; i < f->n_pages; i++) {
        f->all_pages[i - 1] = i;
    }
    size_t n = (size_t)cfg->max_rows;
    f->pos = cp_xcalloc(n, sizeof *f->pos);
    f->row_seq = cp_xcalloc(n, sizeof *f->row_seq);
    f->out_rows = cp_xcalloc(n, sizeof *f->out_rows);
    f->in = cp_xcalloc(n, sizeof *f->in);
    f->res = cp_xcalloc(n, sizeof *f->res);
    *out = f;
    return CP_OK;
done:
    cp_forward_close(f);
    return rc;
}

void cp_forward_close(cp_forward *f)
{
    if (!f) {
        return;
    }
    cp_prepared_free(f->prepared);
    cp_backend_close(f->backend);
    cp_pool_close(f->pool);
    free(f->program.ops);
    cp_model_close(f->model);
    cp_loaded_close(f->file);
    for (int k = 0; k < CP_MAX_GROUPS; k++) {
        free(f->page[k]);
    }
    free(f->all_pages);
    free(f->pos);
    free(f->row_seq);
    free(f->out_rows);
    free(f->in);
    free(f->res);
    free(f);
}

const cp_model *cp_forward_model(const cp_forward *f)
{
    return f->model;
}

const cp_backend *cp_forward_backend(const cp_forward *f)
{
    return f->backend;
}

void cp_forward_reset(cp_forward *f)
{
    f->zero = true;
    f->n_done = 0;
}

void cp_forward_truncate(cp_forward *f, int n)
{
    CP_ASSERT(n <= f->n_done);
    f->n_done = n;
}

cp_code cp_forward_run(cp_forward *f, const int32_t *tokens, int n, int chunk, float *logits,
                       cp_err *err)
{
    size_t vocab = (size_t)cp_model_hparams(f->model)->n_vocab;
    for (int i = 0; i < n;) {
        int rows = n - i < chunk ? n - i : chunk;
        CP_ASSERT(rows <= f->max_rows && f->n_done + rows <= f->n_entries * f->positions);
        for (int r = 0; r < rows; r++) {
            f->pos[r] = f->n_done + r;
            f->row_seq[r] = 0;
            f->out_rows[r] = r;
            f->in[r] = (cp_sample_in){.target = -1, .n_top = -1};
        }
        cp_batch_seq seq = {.n_rows = rows,
                            .pos0 = f->n_done,
                            .pages = f->tables,
                            .state_in = f->n_done ? 1 : 0,
                            .state_out = 1,
                            .adapter = -1};
        cp_batch b = {.n_rows = rows,
                      .n_seqs = 1,
                      .n_out = rows,
                      .tok = tokens + i,
                      .pos = f->pos,
                      .row_seq = f->row_seq,
                      .out_rows = f->out_rows,
                      .seqs = &seq,
                      .zero_pages = f->all_pages,
                      .n_zero_pages = f->zero ? (int)f->n_pages - 1 : 0,
                      .samples = f->in,
                      .results = f->res,
                      .logits_copy = logits + (size_t)i * vocab};
        cp_code rc = cp_backend_submit(f->prepared, &b, err);
        if (rc || (rc = cp_backend_collect(f->prepared, err))) {
            return rc;
        }
        f->zero = false;
        f->n_done += rows;
        i += rows;
    }
    return CP_OK;
}
