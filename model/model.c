/*
 * cp_model: hyper-parameters, rope frequencies and the program of one loaded file.
 */
#include "model/model.h"

#include "base/mem.h"
#include "model/arch.h"
#include "model/builder.h"

#include <stdlib.h>
#include <string.h>

struct cp_model {
    cp_model_params p;
    cp_program program;
    float *inv_full, *inv_window; /* [n_rot / 2], [n_rot_window / 2] */
};

/* What cp_rope_frequencies() writes, to be freed. */
static float *frequencies(int n_rot, double base, double scale, const cp_tensor *factors,
                          const cp_yarn *yarn)
{
    float *inv = cp_xcalloc((size_t)n_rot / 2 + 1, sizeof *inv);
    cp_rope_frequencies(inv, n_rot, base, scale, factors, yarn);
    return inv;
}

static cp_code read_vocab(cp_model_params *p, const cp_loaded *file, cp_err *err)
{
    const cp_tensor *embd = cp_loaded_find(file, "token_embd.weight");
    if (!embd) {
        return cp_fail(err, CP_CORRUPT, "tensor 'token_embd.weight' is missing");
    }
    if (embd->ne[1] < 1 || embd->ne[1] > 1 << 24) {
        return cp_fail(err, CP_CORRUPT,
                       "tensor 'token_embd.weight' has %lld rows, allowed: 1 to 16777216",
                       (long long)embd->ne[1]);
    }
    p->pub.n_vocab = (int)embd->ne[1];
    const cp_meta_kv *tokens = cp_meta_find(cp_loaded_meta(file), "tokenizer.ggml.tokens");
    if (tokens && tokens->count != (uint64_t)p->pub.n_vocab) {
        return cp_fail(err, CP_CORRUPT,
                       "tokenizer.ggml.tokens has %llu entries, token_embd.weight %d rows",
                       (unsigned long long)tokens->count, p->pub.n_vocab);
    }
    for (size_t i = 0; i < cp_loaded_n_tensors(file); i++) {
        const cp_tensor *t = cp_loaded_tensor(file, i);
        p->pub.n_params += (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    }
    return CP_OK;
}

/* What the layers are, once they are in groups. */
static void count_layers(cp_model_params *p, const cp_program *g)
{
    for (int i = 0; i < p->pub.n_layers; i++) {
        p->pub.n_window_layers += p->layer[i].window;
    }
    p->pub.window = p->pub.n_window_layers ? p->window : 0;
    for (int i = 0; i < g->n_groups; i++) {
        p->pub.n_state_layers += g->groups[i].kind == CP_GROUP_STATE ? g->groups[i].n_layers : 0;
    }
    p->pub.state_bytes = cp_program_state_at(g, g->n_groups);
}

cp_code cp_model_recognise(cp_hparams *out, const cp_meta *meta, cp_err *err)
{
    cp_model_params *p = cp_xcalloc(1, sizeof *p);
    cp_program *g = cp_xcalloc(1, sizeof *g);
    int(*place)[2] = cp_xcalloc(CP_MAX_LAYERS, sizeof *place);
    cp_code rc = cp_params_read(p, meta, err);
    rc = rc ? rc : cp_layer_groups(g, p, place, err);
    if (rc == CP_OK) {
        count_layers(p, g);
    }
    *out = p->pub;
    free(place);
    free(g);
    free(p);
    return rc;
}

/* An MTP sidecar has its model's metadata, its last blocks, and none of its layers. */
static cp_code refuse_drafter(const cp_loaded *file, cp_err *err)
{
    const char *block = NULL;
    for (size_t i = 0; i < cp_loaded_n_tensors(file); i++) {
        const char *name = cp_loaded_tensor(file, i)->name;
        if (strncmp(name, "blk.0.", 6) == 0) {
            return CP_OK;
        }
        block = strstr(name, ".nextn.") ? name : block;
    }
    if (!block) {
        return CP_OK;
    }
    return cp_fail(err, CP_UNSUPPORTED,
                   "tensor '%s', but none of layer 0: the file is a drafter (MTP), which lies "
                   "beside a model, not a model; give the model's own file",
                   block);
}

cp_code cp_model_open(cp_model **out, const cp_loaded *file, cp_err *err)
{
    *out = NULL;
    if (cp_loaded_n_tensors(file) == 0) {
        return cp_fail(err, CP_CORRUPT, "has no tensors: a vocabulary only");
    }
    cp_model *m = cp_xcalloc(1, sizeof *m);
    const cp_tensor *factors = NULL;
    cp_code rc = refuse_drafter(file, err);
    rc = rc ? rc : cp_params_read(&m->p, cp_loaded_meta(file), err);
    if (rc == CP_OK) {
        rc = read_vocab(&m->p, file, err);
    }
    if (rc == CP_OK) {
        factors = cp_loaded_find(file, "rope_freqs.weight");
        if (factors && (factors->type != CP_DTYPE_F32 || factors->ne[0] != m->p.n_rot / 2)) {
            rc = cp_fail(err, CP_CORRUPT, "tensor 'rope_freqs.weight' must be F32 with %d elements",
                         m->p.n_rot / 2);
        }
    }
    if (rc == CP_OK) {
        static const cp_yarn none = {0};
        const cp_model_params *p = &m->p;
        m->inv_full = frequencies(p->n_rot, p->freq_base, p->freq_scale, factors, &p->yarn);
        m->inv_window = frequencies(p->n_rot_window, p->freq_base_swa, 1.0, NULL, &none);
        rc = cp_program_build(&m->program, &m->p, file, m->inv_full, m->inv_window, err);
    }
    if (rc == CP_OK) {
        count_layers(&m->p, &m->program);
    }
    if (rc) {
        cp_model_close(m);
        return rc;
    }
    *out = m;
    return CP_OK;
}

void cp_model_close(cp_model *m)
{
    if (m) {
        cp_program_fini(&m->program);
        free(m->inv_full);
        free(m->inv_window);
        free(m);
    }
}

const cp_hparams *cp_model_hparams(const cp_model *m)
{
    return &m->p.pub;
}

const cp_program *cp_model_program(const cp_model *m)
{
    return &m->program;
}
