/*
 * program: the operations of a forward pass and the flat list of records made of them. Part of
 * kernels' public face.
 *
 * A cp_program is built once per model (room model/) and immutable afterwards: any thread may read
 * it. What records read and write are f32 matrices [rows, width] in a backend's step arena
 * (`cp_mat`); rows is the batch's n_rows or n_out. ref is the definition of right: cpu gives the
 * same bits at every ISA level without bf16 dot instructions (ARCHITECTURE §5, rules 1-10), and
 * those of level amx where its name is asked of ref.
 *
 * Arithmetic, fixed here for all backends:
 * - lane tree (sums of squares, softmax sums): 64 partial sums, element i into partial i % 64,
 * ascending, by fmaf (sums of squares) or add; then h = 32, 16, 8, 4, 2, 1: p[j] += p[j + h].
 * 64 is final: measured beside 16 it costs no level anything (docs/BENCHMARKS.md) and shortens the
 * chains of a GPU.
 * - linears: K in segments of CP_SEGMENT. In each the accumulator acc starts at +0 and takes the
 * segment's inputs as below; the output is segment 0, then ascending out = out + acc.
 * - rmsnorm: r = 1 / sqrtf(sum / n + eps); y = (x * r) * w, without a weight y = x * r.
 * - int8 activations: blocks of 32, d = amax / 127, q = rint(x * (127 / amax)) (0 when amax is 0),
 * RNE; per block: exact int32 dot with the weights' integers, then acc = fmaf((float)dot, wd * d,
 * acc) in block order; types with a minimum add acc = fmaf(wm, d * (float)sum_q, acc) after it.
 * Types with 16-element scale groups do this per group of 16.
 * - f32/f16 weights: f32 activations, acc = fmaf(w, x, acc), K ascending. bf16 weights: activations
 * rounded to bf16.
 * - bf16 and f16 weights at level amx: both factors rounded to bf16, 32 inputs at a time: even
 * inputs are one chain of fmaf from +0, odd ones another, t = even + odd, acc = acc + t; what is
 * subnormal, factor, step or sum, counts as zero of its sign. The last 32 end in zeros.
 * - attention: per (row, head): per absolute split of 512 positions: s = scale * dot (fmaf over
 * dims ascending), softcap, masked keys give p = 0, m = max, p = exp(s - m), l = lane tree over the
 * split's 512 positions, o[d] = fmaf(p, v, o) ascending from 0; splits merge ascending: m' = max(m,
 * ms), o = o*exp(m-m') + os*exp(ms-m'), l alike; a sink merges last, as a split with ms = its
 * logit, ls = 1 and os = 0; out = o / l, gated: out * sigmoid(gate).
 * - attention at level amx, over bf16 pages: the same, but both dots are sums as its bf16 weights'
 * are, with q and p rounded to bf16: dims by 32 from 0 on, positions by 32 from multiples of 32,
 * where masked keys are zeros. l sums p before it is rounded. Over f16 pages nothing differs.
 * - recurrent layers (shortconv, deltaprep, deltanet): the recurrence, row by row from the state,
 * at every row count; no form for many rows that sums otherwise. A convolution: y = fmaf over taps
 * ascending from 0.
 * - deltaprep: y = silu(convolution); the heads of q and k are divided by their length, r = 1 /
 * sqrtf(lane tree of squares + eps), k = y * r, q = (y * r) * scale; decay = exp(a * softplus(alpha
 * + dt)), beta = sigmoid(b).
 * - deltanet, per v head, column j of its state S[k_dim][v_dim] and row: sums over i of k_dim are
 * CP_DELTA_PARTIALS partial sums, i into partial i % 4, ascending by fmaf from 0, then p0 += p2, p1
 * += p3, p0 += p1. m = sum k[i] S[i][j]; d = beta * fmaf(-decay, m, v[j]); S[i][j] = fmaf(k[i], d,
 * decay * S[i][j]); o[j] = sum q[i] S[i][j] of the new S. Then out = rmsnorm(o) * silu(z).
 * - route, of one row's logits x: p = by softmax exp(x - max) / sum, the sum a lane tree over the
 * experts; by sigmoid 1 / (1 + exp(-x)); by CP_GATE_SELECTED x; by sqrt-softplus
 * sqrtf(x > 20 ? x : log(1 + exp(x))). Score = p (+ bias). With groups: of each the sum of its two
 * best scores (its only one), the best n_groups_used groups stay, the experts of others are -inf.
 * NaN, of logits and of scores, counts as -inf. The n_used best scores are ranks 0, 1, ...; equal
 * scores, and equal groups, go to the lowest id. w_j = p of rank j; CP_GATE_SELECTED: w_j = exp(p_j
 * - max) / sum, the sum by ranks ascending; normalize: w_j / max(sum by ranks ascending, 2^-14);
 * then w_j * scale, then w_j * expert_scale.
 * - experts: the arithmetic of linears, expert by expert: a row's bits depend on no other row.
 * - sum: y = fmaf(w_j, in_j, y) over ranks ascending from 0; then fmaf(1 / (1 + exp(-gate)),
 * shared, y), without a gate y + shared; with norms rmsnorm(y) + rmsnorm(shared).
 * - gates: sigmoid(x) = 1 / (1 + exp(-x)), silu(x) = x / (1 + exp(-x)).
 */
#ifndef CP_KERNELS_PROGRAM_H
#define CP_KERNELS_PROGRAM_H

#include "base/code.h"
#include "base/dtype.h"

#include <stdbool.h>

/* The operations. X(KIND, name): record kind, member of cp_op's union and timer name. */
#define CP_OPS(X)                                                                                  \
    X(EMBED, embed)         /* token ids -> rows */                                                \
    X(ROPE, rope)           /* positions -> cos | sin rows */                                      \
    X(GATHER, gather)       /* keep the rows that want an output */                                \
    X(LINEAR, linear)       /* [add, norm,] quantize, several weights, [act(gate) * up] */         \
    X(ATTENTION, attention) /* [qk-norm,] rope, write K/V to pages, paged attention */             \
    X(SHORTCONV, shortconv) /* gated short convolution over a state slot (lfm2) */                 \
    X(DELTAPREP, deltaprep) /* what DELTANET takes: convolved q, k, v, decays, betas (qwen35) */   \
    X(DELTANET, deltanet)   /* gated delta rule over a state slot, head norms, output gate */      \
    X(ROUTE, route)         /* router logits -> selected experts and their weights */              \
    X(EXPERTS, experts)     /* [norm,] quantize, a linear of each selected expert, [act * up] */   \
    X(SUM, sum)             /* weighted sum of the experts' outputs [and the shared expert's] */   \
    X(SAMPLE, sample)       /* logits rows -> ids and log-probabilities */

typedef enum cp_op_kind {
#define X(kind, name) CP_OP_##kind,
    CP_OPS(X)
#undef X
        CP_OP_COUNT
} cp_op_kind;

typedef int16_t cp_mat;  /* index into cp_program.mats; -1: none */
typedef int16_t cp_wref; /* index into cp_program.weights; -1: none */
typedef enum cp_rows { CP_ROWS_ALL, CP_ROWS_OUT } cp_rows;
/* What joins gate and up: act(gate) * up, and for gpt-oss math.h's swiglu_clamp. */
typedef enum cp_act { CP_ACT_NONE, CP_ACT_SILU, CP_ACT_GELU_TANH, CP_ACT_SWIGLU_CLAMP } cp_act;
/* How router logits become weights; the numbers are GGUF's expert_gating_func. */
typedef enum cp_gate {
    CP_GATE_SOFTMAX = 1,
    CP_GATE_SIGMOID,
    CP_GATE_SELECTED, /* softmax over the selected logits */
    CP_GATE_SQRT_SOFTPLUS
} cp_gate;
typedef enum cp_rope_kind { CP_ROPE_NONE, CP_ROPE_NORM, CP_ROPE_NEOX } cp_rope_kind;

/* A Gated DeltaNet layer: n_k heads of q and of k, n_v of v; v head h goes with k head h % n_k. */
typedef struct cp_delta_shape {
    int n_k, n_v, k_dim, v_dim, taps;
} cp_delta_shape;

typedef struct cp_op {
    cp_op_kind kind;
    cp_rows rows; /* which row count this operation runs over */
    int layer;    /* for timers and messages; -1 outside layers */
    union {
        struct { /* out = dequantized row tok of table, times scale; if in >= 0: out = (rmsnorm(in,
                    norm) + out) * mix, each span of norm's length normed by itself. The table is
                    read where its file is mapped and never packed. */
            cp_mat out;
            cp_wref table;
            float scale;
            cp_mat in; /* -1: none */
            cp_wref norm;
            float eps, mix;
        } embed;
        struct { /* out[r] = cos(a_0..) | sin(a_0..), a_i = (float)pos * inv_freq[i] (f32), times
                    mscale */
            cp_mat out; /* width n_rot */
            int n_rot;
            const float *inv_freq; /* n_rot / 2, owned by the model */
            float mscale;
        } rope;
        struct { /* out[i] = in[out_rows[i]] */
            cp_mat in, out;
        } gather;
        struct {
            /* r = in; if add >= 0: r += add_norm >= 0 ? rmsnorm(add, add_norm) : add; r *=
             * in_scale; if x_out >= 0: x_out = r (x_out is never in or add); if norm >= 0: r =
             * rmsnorm(r, norm); out_i = r . W_i^T (+ bias_i). act != NONE: two weights, gate and
             * up: w[0].out = act(gate) * up; or, with mul >= 0, gate alone: w[0].out = act(gate) *
             * mul's columns from mul_at on. */
            cp_mat in, add, x_out;
            cp_wref add_norm, norm;
            float eps, in_scale; /* in_scale 1: none */
            cp_act act;
            cp_mat mul; /* -1: none */
            int mul_at;
            float scale;   /* multiplies every output; 1 = none */
            float softcap; /* outputs: cap * tanh(y / cap); 0 = none */
            int n_w;
            struct {
                cp_wref w, bias;
                cp_mat out;
            } w[4];
        } linear;
        struct {
            cp_mat q, k, v, out; /* widths n_heads*k_dim, n_kv*k_dim, n_kv*v_dim, n_heads*v_dim; v
                                    may be k; both -1: K and V of the place are an earlier record's,
                                    and are only read, by all rows or by output rows */
            cp_mat rope;         /* cos | sin rows, -1: none */
            cp_rope_kind rope_kind;
            int n_rot;
            bool gated;             /* q holds k_dim of q, then v_dim of gate a head */
            cp_wref q_norm, k_norm; /* per-head rmsnorm weights [k_dim] before rope, -1: none */
            bool v_norm;            /* per-head rmsnorm of V, without a weight */
            cp_wref sinks;          /* one logit a head that joins the denominator only, -1: none */
            float eps, scale, softcap;
            int n_heads, n_kv, k_dim, v_dim;
            int window; /* key visible iff pos_q - pos_k < window; 0 = all */
            int group, layer_in_group;
        } attention;
        struct { /* in = b | c | x (3 d): y = conv(b * x) over l_cache taps, out = c * y; state:
                    last l_cache - 1 of b * x */
            cp_mat in, out;
            cp_wref conv; /* ne = {l_cache, d}, F32 */
            int d, l_cache;
            int group, layer_in_group;
        } shortconv;
        struct { /* in, out = q | k | v (cp_delta_channels); gates = decay | beta (2 n_v), of alpha
                    and beta (n_v each) */
            cp_mat in, alpha, beta, out, gates;
            cp_wref conv;  /* ne = {taps, channels}, F32 */
            cp_wref a, dt; /* [n_v]: a is negative */
            float eps, scale;
            cp_delta_shape shape;
            int group, layer_in_group;
        } deltaprep;
        struct { /* in, gates: as DELTAPREP left them; z, out: n_v * v_dim */
            cp_mat in, gates, z, out;
            cp_wref norm; /* [v_dim] */
            float eps;
            cp_delta_shape shape;
            int group, layer_in_group;
        } deltanet;
        struct {                  /* of each row: the n_used best of n_expert, best first */
            cp_mat in;            /* n_expert wide: router logits */
            cp_mat ids, weights;  /* n_used wide; ids are whole numbers in f32 */
            cp_wref bias;         /* [n_expert] of the selection alone, -1: none */
            cp_wref expert_scale; /* [n_expert] of the weights, -1: none */
            cp_gate gate;
            int n_groups, n_groups_used; /* of n_expert / n_groups neighbours; 1, 1: none */
            bool normalize;
            float scale; /* of every weight; 1 = none */
        } route;
        struct { /* of row r and rank j, e = ids[r][j]: x = in[r], or its part j where in is n_used
                    parts wide (by_rank); part j of out[r] = x . W[e]^T (+ bias[e]), where W[e] is
                    outputs [first, first + width / n_used) of expert e's matrix. act != NONE: two
                    weights, gate and up: act(gate) * up. */
            cp_mat in, ids, out;
            bool by_rank;
            cp_wref norm; /* rmsnorm of in[r], not by_rank; -1: none */
            float eps;
            cp_act act;
            struct {
                cp_wref w;    /* ne = {k, outputs, n_expert} */
                cp_wref bias; /* ne = {outputs, n_expert}, -1: none */
                int first;    /* a multiple of 16 */
            } w[2];
        } experts;
        struct { /* out = the sum of in's parts by weights (+ shared, by sigmoid(gate)) */
            cp_mat in, weights, out;   /* n_used * width, n_used, width wide */
            cp_mat shared, gate;       /* width and 1 wide, -1: none */
            cp_wref norm, shared_norm; /* of both summands, beside shared without gate; -1: none */
            float eps;
        } sum;
        struct {
            cp_mat logits;
        } sample;
    } u;
} cp_op;

typedef enum cp_role { CP_ROLE_LINEAR, CP_ROLE_EMBED, CP_ROLE_VECTOR } cp_role;
typedef struct cp_weight {
    const cp_tensor *t;
    cp_role role; /* a tied head and embedding are two weights over one tensor */
} cp_weight;

/* How one layer group caches. Pages of all groups of a model have equal size: where layers of two
 * groups differ, the smaller contents leave the end of their pages empty. */
typedef enum cp_group_kind { CP_GROUP_FULL, CP_GROUP_WINDOW, CP_GROUP_STATE } cp_group_kind;
typedef struct cp_kv_group {
    cp_group_kind kind;
    int n_layers;           /* layers in a page of this group */
    int n_kv, k_dim, v_dim; /* a cached row; FULL and WINDOW */
    int window;             /* WINDOW: positions */
    size_t state_bytes;     /* STATE: bytes a layer and state slot, multiple of 64 */
} cp_kv_group;

#define CP_MAX_GROUPS     64
#define CP_SPLIT          512 /* positions an attention split */
#define CP_PARTIALS       64  /* partial sums of a lane tree */
#define CP_SEGMENT        512 /* inputs a segment of a linear's sum; whole super-blocks of panels */
#define CP_TILE_INPUTS    32  /* inputs that a tile of level amx sums apart */
#define CP_CONV_TAPS_MAX  16  /* taps of a convolution */
#define CP_DELTA_DIM_MAX  256 /* widths of a DeltaNet's heads */
#define CP_DELTA_COLUMNS  16  /* columns of S that lie together */
#define CP_DELTA_PARTIALS 4   /* partial sums over the rows of S */
#define CP_EXPERTS_MAX    512 /* experts of a ROUTE */
#define CP_MAX_TOP        20  /* alternatives of a SAMPLE */
/* An id that is not known yet: the one that the slot sampled for this position, in a step before
 * this one. As the id of a row, and at the end of a sequence's tokens. */
#define CP_TOK_PREV (-1)
typedef struct cp_program {
    cp_op *ops; /* the forward, without SAMPLE; the last op is the head */
    int n_ops;
    struct cp_mat_desc {
        int width;
        cp_rows rows;
    } * mats;
    int n_mats;
    cp_weight *weights;
    int n_weights;
    cp_kv_group groups[CP_MAX_GROUPS];
    int n_groups;
    cp_mat logits; /* [n_out, n_vocab] */
    int n_vocab;
} cp_program;

/*
 * Page layout. A page holds P positions of n_layers layers: for layer l, kv head h:
 *   K block: [P / 16][k_dim / 2][16 positions][2 dims]   16-bit (bf16 or f16)
 *   V block: [P / 2][v_dim][2 positions]                 16-bit
 * blocks ordered l, then h, K before V. P is a multiple of 16 and divides CP_SPLIT. Odd dims are
 * not supported. State slots: [layer][state_bytes].
 */
static inline size_t cp_kv_page_bytes(const cp_kv_group *g, int positions)
{
    return (size_t)g->n_layers * (size_t)g->n_kv * (size_t)(g->k_dim + g->v_dim) *
           (size_t)positions * 2;
}

/*
 * What a DeltaNet layer keeps of a sequence, f32: the last taps - 1 rows of q | k | v before the
 * convolution, oldest first, and at cp_delta_state_at() S of each v head, [n_v][v_dim /
 * CP_DELTA_COLUMNS rounded up][k_dim][CP_DELTA_COLUMNS]; columns behind v_dim run along with v = 0.
 */
static inline size_t cp_delta_channels(const cp_delta_shape *s)
{
    return 2 * (size_t)s->n_k * (size_t)s->k_dim + (size_t)s->n_v * (size_t)s->v_dim;
}

static inline size_t cp_delta_state_at(const cp_delta_shape *s)
{
    return ((size_t)(s->taps - 1) * cp_delta_channels(s) * sizeof(float) + 63) / 64 * 64;
}

static inline int cp_delta_tiles(const cp_delta_shape *s)
{
    return (s->v_dim + CP_DELTA_COLUMNS - 1) / CP_DELTA_COLUMNS;
}

static inline size_t cp_delta_state_bytes(const cp_delta_shape *s)
{
    return cp_delta_state_at(s) + (size_t)s->n_v * (size_t)cp_delta_tiles(s) * (size_t)s->k_dim *
                                      CP_DELTA_COLUMNS * sizeof(float);
}

/* What an ATTENTION record's q holds of a head. */
static inline int cp_attention_q_width(const cp_op *op)
{
    return op->u.attention.k_dim + (op->u.attention.gated ? op->u.attention.v_dim : 0);
}

/* Bytes of a page of a program: its largest group's; 0: no group has pages. */
static inline size_t cp_program_page_bytes(const cp_program *prog, int positions)
{
    size_t most = 0;
    for (int i = 0; i < prog->n_groups; i++) {
        size_t n = prog->groups[i].kind == CP_GROUP_STATE
                       ? 0
                       : cp_kv_page_bytes(&prog->groups[i], positions);
        most = n > most ? n : most;
    }
    return most;
}

/* Where group's part of a state slot begins; of n_groups: the bytes of a slot. */
static inline size_t cp_program_state_at(const cp_program *prog, int group)
{
    size_t at = 0;
    for (int i = 0; i < group; i++)
        if (prog->groups[i].kind == CP_GROUP_STATE)
            at += (size_t)prog->groups[i].n_layers * prog->groups[i].state_bytes;
    return at;
}

#endif
