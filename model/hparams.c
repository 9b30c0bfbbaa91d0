/*
 * Hyper-parameters from metadata. Sizes come from an untrusted file: every number is range-checked
 * here, so that the builder may multiply ints freely (all products of two stay below 2^62 in int64
 * arithmetic). Unknown keys are ignored.
 */
#include "model/hparams.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

typedef struct reader {
    const cp_meta *meta;
    const char *arch;
    cp_err *err;
} reader;

static const char *full_key(const reader *r, const char *key, char buf[160])
{
    cp_snprintf(buf, 160, "%s.%s", r->arch, key);
    return buf;
}

/* A required or optional integer in [min, max]; *out keeps its value when an optional key is
 * absent. */
static cp_code get_int(const reader *r, const char *key, bool required, int64_t min, int64_t max,
                       int *out)
{
    char k[160];
    const cp_meta_kv *kv = cp_meta_find(r->meta, full_key(r, key, k));
    if (!kv) {
        return required ? cp_fail(r->err, CP_CORRUPT, "key '%s' is missing", k) : CP_OK;
    }
    int64_t v;
    if (!cp_meta_i64(r->meta, k, &v)) {
        return cp_fail(r->err, CP_CORRUPT, "key '%s' is not an integer", k);
    }
    if (v < min || v > max) {
        return cp_fail(r->err, CP_CORRUPT, "key '%s' is %lld, allowed: %lld to %lld", k,
                       (long long)v, (long long)min, (long long)max);
    }
    *out = (int)v;
    return CP_OK;
}

static cp_code get_f64(const reader *r, const char *key, bool required, double *out)
{
    char k[160];
    if (!cp_meta_find(r->meta, full_key(r, key, k))) {
        return required ? cp_fail(r->err, CP_CORRUPT, "key '%s' is missing", k) : CP_OK;
    }
    double v;
    if (!cp_meta_f64(r->meta, k, &v) || !(v >= -1e30 && v <= 1e30)) {
        return cp_fail(r->err, CP_CORRUPT, "key '%s' is not a finite number", k);
    }
    *out = v;
    return CP_OK;
}

/* A scalar or one number a layer. */
static cp_code get_per_layer(const reader *r, const char *key, bool required, int64_t min,
                             int64_t max, int n, int *out)
{
    char k[160];
    const cp_meta_kv *kv = cp_meta_find(r->meta, full_key(r, key, k));
    if (!kv || kv->type != CP_META_ARRAY) {
        int v = out[0];
        cp_code rc = get_int(r, key, required, min, max, &v);
        for (int i = 0; rc == CP_OK && kv && i < n; i++) {
            out[i] = v;
        }
        return rc;
    }
    if (kv->count < (uint64_t)n) {
        return cp_fail(r->err, CP_CORRUPT, "key '%s' has %llu elements for %d layers", k,
                       (unsigned long long)kv->count, n);
    }
    for (int i = 0; i < n; i++) {
        int64_t v;
        if (!cp_meta_arr_i64(kv, (uint64_t)i, &v) || v < min || v > max) {
            return cp_fail(r->err, CP_CORRUPT, "key '%s': element %d is not in %lld to %lld", k, i,
                           (long long)min, (long long)max);
        }
        out[i] = (int)v;
    }
    return CP_OK;
}

/* Head sizes of window layers, where they differ from full ones. */
typedef struct window_heads {
    int k_swa, v_swa;
} window_heads;

static cp_code read_heads(cp_model_params *p, const reader *r, window_heads *w)
{
    cp_code rc;
    p->head_dim_k = p->pub.d_model / p->layer[0].n_heads;
    if ((rc = get_int(r, "attention.key_length", false, 2, 1024, &p->head_dim_k))) {
        return rc;
    }
    p->head_dim_v = p->head_dim_k;
    if ((rc = get_int(r, "attention.value_length", false, 2, 1024, &p->head_dim_v))) {
        return rc;
    }
    *w = (window_heads){p->head_dim_k, p->head_dim_v};
    if ((rc = get_int(r, "attention.key_length_swa", false, 2, 1024, &w->k_swa)) ||
        (rc = get_int(r, "attention.value_length_swa", false, 2, 1024, &w->v_swa))) {
        return rc;
    }
    if (p->head_dim_k < 2 || p->head_dim_k % 2 || p->head_dim_v % 2 || w->k_swa % 2 ||
        w->v_swa % 2) {
        return cp_fail(r->err, CP_UNSUPPORTED,
                       "head sizes %d and %d, of windows %d and %d: only even ones are supported",
                       p->head_dim_k, p->head_dim_v, w->k_swa, w->v_swa);
    }
    return CP_OK;
}

/* yarn by `factor`. A negative share counts as absent, as writers leave it so. */
static cp_code read_yarn(cp_model_params *p, const reader *r, double factor)
{
    cp_code rc;
    double given = 0.0, times = 1.0, log_multiplier = 0.0;
    cp_yarn y = {.factor = factor,
                 .ext = -1.0,
                 .beta_fast = 32.0,
                 .beta_slow = 1.0,
                 .old_ctx = p->pub.ctx_train,
                 .exact = p->arch->yarn_exact};
    if ((rc = get_int(r, "rope.scaling.original_context_length", false, 1, 1 << 26, &y.old_ctx)) ||
        (rc = get_f64(r, "rope.scaling.yarn_ext_factor", false, &y.ext)) ||
        (rc = get_f64(r, "rope.scaling.yarn_attn_factor", false, &given)) ||
        (rc = get_f64(r, "rope.scaling.attn_factor", false, &times)) ||
        (rc = get_f64(r, "rope.scaling.yarn_beta_fast", false, &y.beta_fast)) ||
        (rc = get_f64(r, "rope.scaling.yarn_beta_slow", false, &y.beta_slow)) ||
        (rc = get_f64(r, "rope.scaling.yarn_log_multiplier", false, &log_multiplier))) {
        return rc;
    }
    y.ext = y.ext < 0.0 ? 1.0 : y.ext;
    if (factor < 1.0 || y.ext > 1.0 || y.beta_slow <= 0.0 || y.beta_fast < y.beta_slow ||
        p->freq_base <= 1.0 || given < 0.0 || times <= 0.0) {
        return cp_fail(r->err, CP_CORRUPT,
                       "rope.scaling: yarn with factor %g (1 or more), yarn_ext_factor %g (at most "
                       "1), yarn_beta_fast %g and yarn_beta_slow %g (positive, the slow one not "
                       "above), attn_factor %g and %g (positive), freq_base %g (above 1)",
                       factor, y.ext, y.beta_fast, y.beta_slow, times, given, p->freq_base);
    }
    if (log_multiplier != 0.0) {
        return cp_fail(r->err, CP_UNSUPPORTED,
                       "rope.scaling.yarn_log_multiplier is %g; supported: 0", log_multiplier);
    }
    y.attn = times * (given > 0.0 ? given : y.ext > 0.0 ? 0.1 * log(factor) + 1.0 : 1.0);
    p->yarn = y;
    return CP_OK;
}

/* None, linear or yarn. */
static cp_code read_scaling(cp_model_params *p, const reader *r)
{
    cp_code rc;
    char k[160];
    cp_str type = {"linear", 6};
    double factor = 1.0;
    if (!cp_meta_str(r->meta, full_key(r, "rope.scaling.type", k), &type) &&
        cp_meta_find(r->meta, k)) {
        return cp_fail(r->err, CP_CORRUPT, "key '%s' is not a text", k);
    }
    if ((rc = get_f64(r, "rope.scaling.factor", false, &factor)) ||
        (rc = get_f64(r, "rope.scale_linear", false, &factor))) {
        return rc;
    }
    if (type.n == 6 && memcmp(type.p, "linear", 6) == 0) {
        p->freq_scale = factor > 0 ? 1.0 / factor : 1.0;
        return CP_OK;
    }
    if (type.n == 4 && memcmp(type.p, "none", 4) == 0) {
        return CP_OK;
    }
    if (type.n == 4 && memcmp(type.p, "yarn", 4) == 0) {
        return read_yarn(p, r, factor);
    }
    return cp_fail(r->err, CP_UNSUPPORTED,
                   "rope.scaling.type '%.*s' is not supported; supported: none, linear, yarn",
                   (int)(type.n < 32 ? type.n : 32), type.p);
}

static cp_code read_rope(cp_model_params *p, const reader *r, const window_heads *heads)
{
    cp_code rc;
    p->freq_base = 10000.0;
    p->freq_scale = 1.0;
    p->n_rot = p->head_dim_k;
    if ((rc = get_f64(r, "rope.freq_base", false, &p->freq_base)) ||
        (rc = get_int(r, "rope.dimension_count", false, 0, p->head_dim_k, &p->n_rot))) {
        return rc;
    }
    p->freq_base_swa = p->arch->freq_base_swa > 0 ? p->arch->freq_base_swa : p->freq_base;
    if ((rc = get_f64(r, "rope.freq_base_swa", false, &p->freq_base_swa))) {
        return rc;
    }
    p->n_rot_window = heads->k_swa == p->head_dim_k ? p->n_rot : heads->k_swa;
    if ((rc = get_int(r, "rope.dimension_count_swa", false, 0, heads->k_swa, &p->n_rot_window))) {
        return rc;
    }
    if (p->n_rot % 2 || p->n_rot_window % 2 || p->freq_base <= 0 || p->freq_base_swa <= 0) {
        return cp_fail(r->err, CP_CORRUPT,
                       "rope: dimension_count %d and %d (even), freq_base %g and %g (positive)",
                       p->n_rot, p->n_rot_window, p->freq_base, p->freq_base_swa);
    }
    return read_scaling(p, r);
}

static cp_code read_windows(cp_model_params *p, const reader *r)
{
    if (!p->arch->window_period) {
        return CP_OK;
    }
    cp_code rc = get_int(r, "attention.sliding_window", true, 1, 1 << 24, &p->window);
    if (rc) {
        return rc;
    }
    char k[160];
    const cp_meta_kv *kv =
        cp_meta_find(r->meta, full_key(r, "attention.sliding_window_pattern", k));
    int period = p->arch->window_period;
    if (kv && kv->type != CP_META_ARRAY &&
        (rc = get_int(r, "attention.sliding_window_pattern", false, 1, CP_MAX_LAYERS, &period))) {
        return rc;
    }
    for (int i = 0; i < p->pub.n_layers; i++) {
        int64_t v;
        if (kv && kv->type == CP_META_ARRAY) {
            if (!cp_meta_arr_i64(kv, (uint64_t)i, &v)) {
                return cp_fail(r->err, CP_CORRUPT, "key '%s' has no element for layer %d", k, i);
            }
            p->layer[i].window = v != 0;
        } else {
            p->layer[i].window = i % period != period - 1;
        }
    }
    return CP_OK;
}

/* Which layers read the K and V of another: the last `attention.shared_kv_layers`, those of the
 * last earlier layer of their kind. */
static cp_code read_sharing(cp_model_params *p, const reader *r, const window_heads *heads)
{
    int n = p->pub.n_layers, shared = 0, last[2] = {-1, -1};
    cp_code rc = get_int(r, "attention.shared_kv_layers", false, 0, n - 1, &shared);
    p->first_reader = n;
    for (int i = 0; i < n && rc == CP_OK; i++) {
        cp_layer_params *l = &p->layer[i];
        l->k_dim = l->window ? heads->k_swa : p->head_dim_k;
        l->v_dim = l->window ? heads->v_swa : p->head_dim_v;
        l->kv_from = i;
        if (l->mixer != CP_MIXER_ATTENTION) {
            continue;
        }
        if (i < n - shared) {
            last[l->window] = i;
            continue;
        }
        l->kv_from = last[l->window];
        if (l->kv_from < 0 || p->layer[l->kv_from].n_kv != l->n_kv) {
            rc = cp_fail(r->err, CP_CORRUPT,
                         "layer %d shares a cache; no earlier layer of its kind has one for %d KV "
                         "heads",
                         i, l->n_kv);
        }
    }
    while (rc == CP_OK && p->layer[p->first_reader - 1].kv_from != p->first_reader - 1) {
        p->first_reader--;
    }
    return rc;
}

static cp_code read_layers(cp_model_params *p, const reader *r)
{
    int n = p->pub.n_layers;
    int heads[CP_MAX_LAYERS] = {0}, kv[CP_MAX_LAYERS], ff[CP_MAX_LAYERS] = {0};
    cp_code rc = get_per_layer(r, "attention.head_count", true, 1, 4096, n, heads);
    if (rc) {
        return rc;
    }
    memcpy(kv, heads, sizeof kv);
    if ((rc = get_per_layer(r, "attention.head_count_kv", false, 0, 4096, n, kv)) ||
        (rc = get_per_layer(r, "feed_forward_length", !p->arch->gate, 1, 1 << 24, n, ff))) {
        return rc;
    }
    for (int i = 0; i < n; i++) {
        if (kv[i] == 0 && !p->arch->short_conv && !p->arch->deltanet) {
            return cp_fail(r->err, CP_UNSUPPORTED,
                           "layer %d has no KV heads; architecture '%s' needs them", i,
                           p->pub.arch);
        }
        if (kv[i] && heads[i] % kv[i]) {
            return cp_fail(r->err, CP_CORRUPT,
                           "layer %d: %d heads are not a multiple of %d KV heads", i, heads[i],
                           kv[i]);
        }
        p->layer[i] = (cp_layer_params){.mixer = kv[i] ? CP_MIXER_ATTENTION : CP_MIXER_SHORTCONV,
                                        .n_heads = heads[i],
                                        .n_kv = kv[i],
                                        .d_ff = ff[i]};
        p->pub.n_heads_max = heads[i] > p->pub.n_heads_max ? heads[i] : p->pub.n_heads_max;
        p->pub.n_kv_max = kv[i] > p->pub.n_kv_max ? kv[i] : p->pub.n_kv_max;
    }
    return CP_OK;
}

/* Where experts may be, a file need not say both widths: each layer has what it needs. */
static cp_code check_widths(const cp_model_params *p, const reader *r)
{
    for (int i = 0; i < p->pub.n_layers; i++) {
        const cp_layer_params *l = &p->layer[i];
        bool dense = l->ffn != CP_FFN_EXPERTS && !l->d_ff;
        if (dense || (l->ffn != CP_FFN_DENSE && !p->experts.d_ff)) {
            return cp_fail(r->err, CP_CORRUPT, "key '%s.%sfeed_forward_length' is missing", r->arch,
                           dense ? "" : "expert_");
        }
    }
    return CP_OK;
}

/* block_count includes the blocks that predict further tokens; nothing of them is needed. */
static cp_code skip_blocks(cp_model_params *p, const reader *r)
{
    int n = p->pub.n_mtp;
    if (n && !p->arch->deltanet) {
        return cp_fail(r->err, CP_UNSUPPORTED,
                       "architecture '%s' with %d prediction layers is not supported", p->pub.arch,
                       n);
    }
    if (n >= p->pub.n_layers) {
        return cp_fail(r->err, CP_CORRUPT, "%d of %d blocks are prediction layers", n,
                       p->pub.n_layers);
    }
    p->pub.n_layers -= n;
    return CP_OK;
}

/* Which layers are full attention: said one by one, or every n-th. */
static cp_code read_recurrent(cp_model_params *p, const reader *r)
{
    char k[160];
    int period = 4;
    const cp_meta_kv *kv = cp_meta_find(r->meta, full_key(r, "attention.recurrent_layers", k));
    cp_code rc = get_int(r, "full_attention_interval", false, 1, CP_MAX_LAYERS, &period);
    if (rc) {
        return rc;
    }
    if (kv && (kv->type != CP_META_ARRAY || kv->count < (uint64_t)p->pub.n_layers)) {
        return cp_fail(r->err, CP_CORRUPT, "key '%s' has no element for each of %d layers", k,
                       p->pub.n_layers);
    }
    for (int i = 0; i < p->pub.n_layers; i++) {
        int64_t recurrent = i % period != period - 1;
        if (kv && !cp_meta_arr_i64(kv, (uint64_t)i, &recurrent)) {
            return cp_fail(r->err, CP_CORRUPT, "key '%s': element %d is not a truth value", k, i);
        }
        if (!recurrent && p->layer[i].n_kv == 0) {
            return cp_fail(r->err, CP_CORRUPT, "layer %d is attention and has no KV heads", i);
        }
        p->layer[i].mixer = recurrent ? CP_MIXER_DELTANET : CP_MIXER_ATTENTION;
    }
    return CP_OK;
}

static cp_code read_deltanet(cp_model_params *p, const reader *r)
{
    cp_delta_shape *s = &p->delta;
    int inner = 0;
    cp_code rc;
    if ((rc = get_int(r, "ssm.conv_kernel", true, 2, CP_CONV_TAPS_MAX, &s->taps)) ||
        (rc = get_int(r, "ssm.state_size", true, 1, CP_DELTA_DIM_MAX, &s->k_dim)) ||
        (rc = get_int(r, "ssm.group_count", true, 1, 1024, &s->n_k)) ||
        (rc = get_int(r, "ssm.time_step_rank", true, 1, 1024, &s->n_v)) ||
        (rc = get_int(r, "ssm.inner_size", true, 1, 1024 * CP_DELTA_DIM_MAX, &inner))) {
        return rc;
    }
    s->v_dim = inner / s->n_v;
    if (s->n_v % s->n_k || inner % s->n_v || s->v_dim < 1 || s->v_dim > CP_DELTA_DIM_MAX) {
        return cp_fail(r->err, CP_CORRUPT,
                       "ssm: %d v heads (a multiple of %d k heads) in an inner size of %d (1 to %d "
                       "a head)",
                       s->n_v, s->n_k, inner, CP_DELTA_DIM_MAX);
    }
    return read_recurrent(p, r);
}

/* What is absent keeps its value. */
static cp_code get_bool(const reader *r, const char *key, bool *out)
{
    char k[160];
    if (!cp_meta_find(r->meta, full_key(r, key, k)))
        return CP_OK;
    if (!cp_meta_bool(r->meta, k, out))
        return cp_fail(r->err, CP_CORRUPT, "key '%s' is not true or false", k);
    return CP_OK;
}

/* How n experts are chosen, and what comes of them. */
static cp_code read_routing(cp_expert_params *e, int n, const reader *r)
{
    int gate = (int)e->gate;
    double scale = 1.0;
    cp_code rc;
    e->n_groups = e->n_groups_used = 1;
    if ((rc = get_int(r, "expert_used_count", true, 1, n, &e->n_used)) ||
        (rc = get_int(r, "expert_gating_func", false, 0, CP_GATE_SQRT_SOFTPLUS, &gate)) ||
        (rc = get_int(r, "expert_group_count", false, 0, n, &e->n_groups)) ||
        (rc = get_int(r, "expert_group_used_count", false, 0, n, &e->n_groups_used)) ||
        (rc = get_bool(r, "expert_weights_norm", &e->normalize)) ||
        (rc = get_f64(r, "expert_weights_scale", false, &scale))) {
        return rc;
    }
    e->gate = gate ? (cp_gate)gate : e->gate; /* 0: the architecture's */
    e->scale = scale != 0.0 ? (float)scale : 1.0f;
    if (e->n_groups <= 1) {
        e->n_groups = e->n_groups_used = 1;
    }
    int used = e->n_groups_used;
    if (n % e->n_groups || used < 1 || used > e->n_groups || e->n_used > n / e->n_groups * used) {
        return cp_fail(r->err, CP_CORRUPT,
                       "expert_group_count %d and expert_group_used_count %d: %d experts of which "
                       "%d are used cannot be grouped so",
                       e->n_groups, used, n, e->n_used);
    }
    return CP_OK;
}

/* Experts: all layers but the leading dense ones have them, or every step-th. */
static cp_code read_experts(cp_model_params *p, const reader *r)
{
    cp_expert_params *e = &p->experts;
    int dense = 0, step = 1, shared = 0;
    cp_code rc = get_int(r, "expert_count", false, 0, CP_EXPERTS_MAX, &p->pub.n_experts);
    int n = p->pub.n_experts;
    if (rc || !n) {
        return rc;
    }
    if (!p->arch->gate) {
        return cp_fail(
            r->err, CP_UNSUPPORTED,
            "architecture '%s' with %d experts is not supported; supported: dense layers",
            p->pub.arch, n);
    }
    e->gate = p->arch->gate;
    e->normalize = p->arch->normalize_experts;
    e->d_ff = p->layer[0].d_ff;
    rc = read_routing(e, n, r);
    p->pub.n_experts_used = e->n_used;
    if (rc || (rc = get_int(r, "expert_feed_forward_length", false, 1, 1 << 20, &e->d_ff)) ||
        (rc = get_int(r, "expert_shared_count", false, 0, 64, &shared)) ||
        (rc = get_int(r, "leading_dense_block_count", false, 0, CP_MAX_LAYERS, &dense)) ||
        (rc = get_int(r, "interleave_moe_layer_step", false, 0, CP_MAX_LAYERS, &step))) {
        return rc;
    }
    e->d_ff_shared = shared * e->d_ff;
    if ((rc =
             get_int(r, "expert_shared_feed_forward_length", false, 0, 1 << 24, &e->d_ff_shared))) {
        return rc;
    }
    int64_t width = e->d_ff > p->pub.d_model ? e->d_ff : p->pub.d_model;
    if (width * e->n_used > 1 << 30) {
        return cp_fail(r->err, CP_UNSUPPORTED,
                       "%d experts a token, %lld numbers wide; supported: up to %d numbers in all",
                       e->n_used, (long long)width, 1 << 30);
    }
    for (int i = dense; i < p->pub.n_layers; i++) {
        if (step <= 1 || (i + 1) % step == 0) {
            p->layer[i].ffn = p->arch->dense_too ? CP_FFN_BOTH : CP_FFN_EXPERTS;
        }
    }
    p->pub.n_experts_shared = e->d_ff_shared && !shared ? 1 : shared;
    return CP_OK;
}

cp_code cp_params_read(cp_model_params *p, const cp_meta *meta, cp_err *err)
{
    memset(p, 0, sizeof *p);
    cp_code rc = cp_arch_find(&p->arch, meta, err);
    if (rc) {
        return rc;
    }
    cp_strcopy(p->pub.arch, sizeof p->pub.arch, p->arch->name);
    reader r = {meta, p->pub.arch, err};
    cp_str name;
    if (cp_meta_str(meta, "general.name", &name)) {
        cp_snprintf(p->pub.name, sizeof p->pub.name, "%.*s", (int)(name.n < 120 ? name.n : 120),
                    name.p);
    }
    double eps = 1e-5, scale = 0, softcap = 0;
    if ((rc = get_int(&r, "block_count", true, 1, CP_MAX_LAYERS, &p->pub.n_layers)) ||
        (rc = get_int(&r, "embedding_length", true, 16, 1 << 20, &p->pub.d_model)) ||
        (rc = get_int(&r, "context_length", true, 1, 1 << 26, &p->pub.ctx_train)) ||
        (rc = get_int(&r, "nextn_predict_layers", false, 0, 64, &p->pub.n_mtp)) ||
        (rc = get_f64(&r, "attention.layer_norm_rms_epsilon", true, &eps)) ||
        (rc = get_f64(&r, "attention.scale", false, &scale)) ||
        (rc = get_f64(&r, "final_logit_softcapping", false, &softcap)) ||
        (rc = skip_blocks(p, &r)) || (rc = read_layers(p, &r)) ||
        (p->arch->deltanet && (rc = read_deltanet(p, &r))) || (rc = read_experts(p, &r)) ||
        (rc = check_widths(p, &r))) {
        return rc;
    }
    p->eps = (float)eps;
    window_heads heads;
    if ((rc = read_heads(p, &r, &heads)) || (rc = read_rope(p, &r, &heads)) ||
        (rc = read_windows(p, &r)) || (rc = read_sharing(p, &r, &heads)) ||
        (rc =
             get_int(&r, "embedding_length_per_layer_input", false, 0, 1 << 16, &p->n_per_layer))) {
        return rc;
    }
    if (p->arch->short_conv &&
        (rc = get_int(&r, "shortconv.l_cache", true, 2, CP_CONV_TAPS_MAX, &p->l_cache))) {
        return rc;
    }
    p->attn_scale = (float)scale;
    p->final_softcap = (float)softcap;
    return CP_OK;
}
