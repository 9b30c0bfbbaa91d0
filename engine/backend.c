/*
 * backend: the engine's table of backend functions, filled with the real ones.
 *
 * Apart from engine.c so that a test which brings its own table does not link kernels/ and loader/.
 */
#include "base/clock.h"
#include "engine/models.h"
#include "engine/resident.h"

static const cp_engine_backend real = {
    .page_positions = cp_backend_page_positions,
    .depth = cp_backend_depth,
    .prepare = cp_backend_prepare,
    .prepared_free = cp_prepared_free,
    .submit = cp_backend_submit,
    .collect = cp_backend_collect,
    .op_time = cp_prepared_op_time,
    .poisoned = cp_loaded_poisoned,
    .now_ns = cp_now_ns,
};

cp_code cp_engine_open(cp_engine **out, const cp_engine_config *cfg, cp_err *err)
{
    return cp_engine_open_with(out, cfg, &real, err);
}

static cp_engine_desc describe(const cp_engine *e, const cp_engine_model *m)
{
    int P = e->backend->page_positions(cp_engine_backend_of(e, m));
    const cp_program *prog = cp_model_program(m->model);
    return (cp_engine_desc){
        .program = prog,
        .ctx_train = cp_model_hparams(m->model)->ctx_train,
        .page_bytes = cp_program_page_bytes(prog, P),
        .state_bytes = cp_program_state_at(prog, prog->n_groups),
        .digest = m->file ? cp_loaded_digest(m->file) : NULL,
        .cache_read_dir = m->file ? cp_loaded_cache_dir_made(m->file) : NULL,
        .cache_dir = m->file ? cp_loaded_cache_dir(m->file) : NULL,
    };
}

cp_code cp_engine_load(cp_engine *e, const cp_engine_model *m, cp_resident **out, cp_err *err)
{
    cp_engine_desc d = describe(e, m);
    return cp_engine_load_program(e, m, &d, out, err);
}

cp_code cp_engine_default_kv(cp_engine *e, const cp_engine_model *m, uint64_t *bytes, char *how,
                             size_t n, cp_err *err)
{
    cp_backend *b = cp_engine_backend_of(e, m);
    cp_engine_desc d = describe(e, m);
    cp_prepare_config cfg = cp_resident_prepare_config(m, &d, cp_backend_page_positions(b));
    uint64_t taken, total, available;
    cp_code code = cp_backend_model_bytes(b, d.program, &cfg, &taken, err);
    if (code == CP_OK)
        code = cp_backend_memory(b, &total, &available, err);
    if (code != CP_OK)
        return code;
    taken += d.page_bytes + d.state_bytes; /* the null page and slot */
    if (m->kv_sharers > 1)
        taken += available - available / (uint64_t)m->kv_sharers;
    return cp_backend_kv_bytes(b, taken, bytes, how, n, err);
}
