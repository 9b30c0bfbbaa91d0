/*
 * test_cuda_embed: EMBED of the cuda backend, on the PTX machine behind the fake driver: rows of
 * every kind of panel and float, scaled, of ids that were sampled in the step before, and mixed
 * into a normed matrix. The bits are those of ref.
 */
#include "tests/kernels/pair.h"
#include "tests/kernels/weights.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool is_float(cp_dtype t)
{
    return cp_panel_is_float(cp_panel_kind_of(t));
}

enum { EMBED_VOCAB = 40, EMBED_SEQS = 3 };

/* Two steps of three sequences, in the second of which each one's last id is what it sampled in the
 * first. */
static void embed_steps(rig *r, const cp_mat *outs, const char *what)
{
    static const rig_seq q[EMBED_SEQS] = {{.n_rows = 3}, {.n_rows = 1}, {.n_rows = 5}};
    cp_sample_in in[EMBED_SEQS];
    cp_sample_out ids[EMBED_SEQS];
    rig_batch b;
    r->prog.n_vocab = EMBED_VOCAB;
    r->prog.logits = rig_mat(r, EMBED_VOCAB, CP_ROWS_OUT);
    rig_batch_init(&b, r, q, EMBED_SEQS, false);
    b.b.samples = in;
    b.b.results = ids;
    for (int i = 0; i < EMBED_SEQS; i++) {
        b.seqs[i].slot = 7 - 2 * i;
        in[i] = (cp_sample_in){.repetition = 1.0f, .top_p = 1.0f, .target = -1, .n_top = -1};
    }
    for (int i = 0; i < b.b.n_rows; i++)
        b.tok[i] %= EMBED_VOCAB;
    pair p = pair_open(r, true);
    for (int step = 0; step < 2; step++) {
        pair_batch(&p, &b.b, NULL);
        pair_equal(&p, b.b.n_rows, outs, what);
        for (int i = 0; i < EMBED_SEQS; i++)
            b.tok[b.out_rows[i]] = CP_TOK_PREV;
        assert_false(step == 0 && ids[0].id == ids[1].id && ids[1].id == ids[2].id);
    }
    pair_close(&p);
    rig_batch_fini(&b);
}

/* Every kind of table, rows that end within the first turn of a block's threads, with a turn, and
 * after nine. */
static void embeds(void **state)
{
    (void)state;
    static const int widths_of[][5] = {{256, 2304, -1}, {96, 1024, 1792, 2304, -1}};
    cp_dtype types[CP_PANEL_COUNT];
    int n = cp_test_kinds(types);
    for (int number = 0; number < n; number++)
        for (const int *width = widths_of[is_float(types[number])]; *width >= 0; width++) {
            rig r;
            rig_init(&r, (uint64_t)(number + *width) + 500);
            cp_op *op = rig_op(&r, CP_OP_EMBED, CP_ROWS_ALL);
            op->u.embed.out = rig_mat(&r, *width, CP_ROWS_ALL);
            op->u.embed.table = rig_weight(&r, types[number], *width, EMBED_VOCAB, CP_ROLE_EMBED);
            op->u.embed.scale = number % 2 ? 1.0f : 25.298f;
            cp_mat outs[] = {op->u.embed.out, -1};
            embed_steps(&r, outs, cp_dtype_info((uint32_t)types[number])->name);
            rig_fini(&r);
        }
}

/* A record that mixes its table, of which it returns the weight. */
static cp_wref mixing(rig *r, cp_dtype t, int width, int span, cp_mat out)
{
    cp_op *op = rig_op(r, CP_OP_EMBED, CP_ROWS_ALL);
    op->u.embed.out = out;
    op->u.embed.table = rig_weight(r, t, width, EMBED_VOCAB, CP_ROLE_EMBED);
    op->u.embed.scale = span % 3 ? 1.0f : 25.298f;
    op->u.embed.in = rig_mat(r, width, CP_ROWS_ALL);
    op->u.embed.norm = rig_vector(r, span, 1);
    op->u.embed.eps = 1e-6f;
    op->u.embed.mix = 0.70710678f;
    return op->u.embed.table;
}

/* Two records that mix, in spans of one element a lane and of up to sixteen. A plain record has the
 * second's table, too, which so lies on the device, where the mixing one does not look. */
static void mixed_embeds(void **state)
{
    (void)state;
    static const int spans[] = {2,   24,  48,  64,  96,  128, 160, 200,
                                256, 300, 352, 364, 428, 492, 512};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        rig r;
        rig_init(&r, i + 560);
        int width = (i % 3 ? 32 : 5) * spans[i]; /* of eight warps some have none */
        cp_dtype t = width % CP_QBLOCK ? CP_DTYPE_BF16 : CP_DTYPE_Q5_0;
        cp_mat outs[] = {rig_mat(&r, width, CP_ROWS_ALL), rig_mat(&r, width, CP_ROWS_ALL),
                         rig_mat(&r, width, CP_ROWS_ALL), -1};
        mixing(&r, t, width, spans[i], outs[0]);
        cp_wref table = mixing(&r, t, width, spans[i], outs[1]);
        cp_op *op = rig_op(&r, CP_OP_EMBED, CP_ROWS_ALL);
        op->u.embed.out = outs[2];
        op->u.embed.table = table;
        op->u.embed.scale = 0.5f;
        embed_steps(&r, outs, "mixed");
        rig_fini(&r);
    }
}

int main(void)
{
    if (!pair_is_built())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeds),
        cmocka_unit_test(mixed_embeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
