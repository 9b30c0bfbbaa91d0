/*
 * Lanes together: shfl, vote, redux, match, activemask; and flow: branches, barriers, cp.async.
 * What each lane must get is written down, by the ISA's text.
 */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

#include <stdio.h>

static uint32_t in[32], out[32][4];

/* %rd2: the lane's word of in, in %r8; %rd3: the lane's four words of out. */
#define HEAD                                                                                       \
    "mul.wide.u32 %rd2, %r0, 4;\nadd.s64 %rd2, %rd0, %rd2;\nld.global.b32 %r8, [%rd2];\n"          \
    "mul.wide.u32 %rd3, %r0, 16;\nadd.s64 %rd3, %rd1, %rd3;\n"

static const char *run(const char *body)
{
    char text[2048];
    memset(out, 0xee, sizeof out);
    snprintf(text, sizeof text, "%s%s", HEAD, body);
    return rowtest_run(text, in, sizeof in, out, sizeof out);
}

static void tried(const char *text)
{
    size_t n_found = 0;
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        if (strcmp(rowtest_row(n)->text, text) == 0) {
            rowtest_tried(rowtest_row(n));
            n_found++;
        }
    }
    if (n_found == 0)
        fail_msg("%s: a test without a row", text);
}

/* ---- shfl: from which lane each lane's value comes, and the predicate ---- */

typedef struct shuffle {
    const char *mode;
    uint32_t b, c;
    uint8_t from[32];
    uint32_t inside;
} shuffle;
static const shuffle shuffles[] = {
    /* whole warp, by 1, 5, 33 (counts as 1) */
    {"up",
     1,
     0,
     {0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
      15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30},
     0xfffffffe},
    {"up",
     33,
     0,
     {0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
      15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30},
     0xfffffffe},
    /* segments of 8 (c = 0x1800): the first two lanes keep theirs */
    {"up",
     2,
     0x1800,
     {0,  1,  0,  1,  2,  3,  4,  5,  8,  9,  8,  9,  10, 11, 12, 13,
      16, 17, 16, 17, 18, 19, 20, 21, 24, 25, 24, 25, 26, 27, 28, 29},
     0xfcfcfcfc},
    {"down",
     2,
     0x1f,
     {2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17,
      18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 30, 31},
     0x3fffffff},
    {"down",
     3,
     0x181f,
     {3,  4,  5,  6,  7,  5,  6,  7,  11, 12, 13, 14, 15, 13, 14, 15,
      19, 20, 21, 22, 23, 21, 22, 23, 27, 28, 29, 30, 31, 29, 30, 31},
     0x1f1f1f1f},
    /* clamp 20: no lane takes from above it */
    {"down",
     4,
     20,
     {4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
      20, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31},
     0x0001ffff},
    {"bfly",
     1,
     0x1f,
     {1,  0,  3,  2,  5,  4,  7,  6,  9,  8,  11, 10, 13, 12, 15, 14,
      17, 16, 19, 18, 21, 20, 23, 22, 25, 24, 27, 26, 29, 28, 31, 30},
     0xffffffff},
    {"bfly",
     16,
     0x1f,
     {16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
      0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15},
     0xffffffff},
    /* segments of 4: by 4 lies in the next segment for the lower ones, below it for the upper */
    {"bfly",
     4,
     0x1c1f,
     {0,  1,  2,  3,  0,  1,  2,  3,  8,  9,  10, 11, 8,  9,  10, 11,
      16, 17, 18, 19, 16, 17, 18, 19, 24, 25, 26, 27, 24, 25, 26, 27},
     0xf0f0f0f0},
    {"idx",
     3,
     0x1f,
     {3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
      3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3},
     0xffffffff},
    {"idx",
     9,
     0x181f,
     {1,  1,  1,  1,  1,  1,  1,  1,  9,  9,  9,  9,  9,  9,  9,  9,
      17, 17, 17, 17, 17, 17, 17, 17, 25, 25, 25, 25, 25, 25, 25, 25},
     0xffffffff},
    /* clamp 5: lane 9 is beyond it */
    {"idx",
     9,
     5,
     {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
      16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31},
     0},
};

static void try_shuffle(const shuffle *s)
{
    char body[512], text[32];
    snprintf(text, sizeof text, "shfl.sync.%s.b32", s->mode);
    snprintf(body, sizeof body,
             "%s %%r9|%%p1, %%r8, %u, %u, -1;\nselp.b32 %%r10, 1, 0, %%p1;\n"
             "%s %%r11, %%r8, %u, %u, 0xffffffff;\n"
             "st.global.v2.b32 [%%rd3], {%%r9, %%r10};\nst.global.b32 [%%rd3+8], %%r11;\n",
             text, s->b, s->c, text, s->b, s->c);
    const char *err = run(body);
    if (err)
        fail_msg("%s by %u, %#x: %s", text, s->b, s->c, err);
    for (int l = 0; l < 32; l++) {
        if (out[l][0] != in[s->from[l]] || out[l][2] != in[s->from[l]] ||
            out[l][1] != (s->inside >> l & 1))
            fail_msg("%s by %u, %#x: lane %d got %#x, predicate %u; not lane %u's, %u", text, s->b,
                     s->c, l, out[l][0], out[l][1], s->from[l], s->inside >> l & 1);
    }
    tried(text);
}

/* ---- one result for the members ---- */

typedef struct together {
    const char *text, *body; /* body: the result to %r9, of the lane in %r0 and the value in %r8 */
    uint32_t even, odd;      /* for lanes with even and odd numbers */
} together;
#define PRED  "setp.lt.u32 %p1, %r0, 5;\n"
#define TO_R9 "selp.b32 %r9, 1, 0, %p2;\n"
#define HALVES                                                                                     \
    "mov.b32 %r10, 0x55555555;\nshl.b32 %r11, %r10, 1;\nand.b32 %r12, %r0, 1;\n"                   \
    "setp.eq.u32 %p3, %r12, 0;\nselp.b32 %r10, %r10, %r11, %p3;\n"
static const together togethers[] = {
    {"vote.sync.ballot.b32", PRED "vote.sync.ballot.b32 %r9, %p1, -1;\n", 0x1f, 0x1f},
    {"vote.sync.ballot.b32", PRED "vote.sync.ballot.b32 %r9, !%p1, -1;\n", ~0x1fu, ~0x1fu},
    {"vote.sync.ballot.b32",
     PRED HALVES "@%p3 vote.sync.ballot.b32 %r9, %p1, %r10;\n"
                 "@!%p3 vote.sync.ballot.b32 %r9, %p1, %r10;\n",
     0x15, 0x0a},
    {"vote.sync.any.pred", PRED "vote.sync.any.pred %p2, %p1, -1;\n" TO_R9, 1, 1},
    {"vote.sync.any.pred", "setp.lt.u32 %p1, %r0, 0;\nvote.sync.any.pred %p2, %p1, -1;\n" TO_R9, 0,
     0},
    {"vote.sync.all.pred", PRED "vote.sync.all.pred %p2, %p1, -1;\n" TO_R9, 0, 0},
    {"vote.sync.all.pred", "setp.lt.u32 %p1, %r0, 32;\nvote.sync.all.pred %p2, %p1, -1;\n" TO_R9, 1,
     1},
    {"vote.sync.uni.pred", PRED "vote.sync.uni.pred %p2, %p1, -1;\n" TO_R9, 0, 0},
    {"vote.sync.uni.pred", "setp.lt.u32 %p1, %r0, 32;\nvote.sync.uni.pred %p2, %p1, -1;\n" TO_R9, 1,
     1},
    {"vote.sync.uni.pred", "setp.lt.u32 %p1, %r0, 0;\nvote.sync.uni.pred %p2, %p1, -1;\n" TO_R9, 1,
     1},
    /* 1 << lane; in all: every bit once */
    {"redux.sync.add.u32",
     "mov.b32 %r9, 1;\nshl.b32 %r9, %r9, %r0;\n"
     "redux.sync.add.u32 %r9, %r9, -1;\n",
     0xffffffff, 0xffffffff},
    {"redux.sync.add.s32", "sub.s32 %r9, 0, %r0;\nredux.sync.add.s32 %r9, %r9, -1;\n",
     (uint32_t)-496, (uint32_t)-496},
    {"redux.sync.add.s32",
     HALVES "@%p3 redux.sync.add.s32 %r9, %r0, %r10;\n"
            "@!%p3 redux.sync.add.s32 %r9, %r0, %r10;\n",
     240, 256},
    /* lane - 7, as a signed and an unsigned number */
    {"redux.sync.min.u32", "sub.s32 %r9, %r0, 7;\nredux.sync.min.u32 %r9, %r9, -1;\n", 0, 0},
    {"redux.sync.max.u32", "sub.s32 %r9, %r0, 7;\nredux.sync.max.u32 %r9, %r9, -1;\n", ~0u, ~0u},
    {"redux.sync.min.s32", "sub.s32 %r9, %r0, 7;\nredux.sync.min.s32 %r9, %r9, -1;\n", (uint32_t)-7,
     (uint32_t)-7},
    {"redux.sync.max.s32", "sub.s32 %r9, %r0, 7;\nredux.sync.max.s32 %r9, %r9, -1;\n", 24, 24},
    {"redux.sync.and.b32", "or.b32 %r9, %r0, 0x60;\nredux.sync.and.b32 %r9, %r9, -1;\n", 0x60,
     0x60},
    {"redux.sync.or.b32", "redux.sync.or.b32 %r9, %r0, -1;\n", 31, 31},
    {"redux.sync.xor.b32",
     "setp.eq.u32 %p1, %r0, 3;\nselp.b32 %r9, 0x1234, 0x55, %p1;\n"
     "redux.sync.xor.b32 %r9, %r9, -1;\n",
     0x1234 ^ 0x55, 0x1234 ^ 0x55},
    {"match.any.sync.b32", "and.b32 %r9, %r0, 1;\nmatch.any.sync.b32 %r9, %r9, -1;\n", 0x55555555,
     0xaaaaaaaa},
    {"match.any.sync.b64",
     "and.b32 %r9, %r0, 1;\nmov.b64 %rd8, {%r9, %r9};\n"
     "match.any.sync.b64 %r9, %rd8, -1;\n",
     0x55555555, 0xaaaaaaaa},
    {"match.all.sync.b32", "mov.b32 %r10, 5;\nmatch.all.sync.b32 %r9|%p1, %r10, -1;\n", ~0u, ~0u},
    {"match.all.sync.b32", "match.all.sync.b32 %r9|%p2, %r0, -1;\n@%p2 mov.b32 %r9, 99;\n", 0, 0},
    {"match.all.sync.b64", "mov.b64 %rd8, {%r0, %r0};\nmatch.all.sync.b64 %r9, %rd8, -1;\n", 0, 0},
    {"activemask.b32", "activemask.b32 %r9;\n", ~0u, ~0u},
    {"activemask.b32", HALVES "mov.b32 %r9, 0xaaaaaaaa;\n@%p3 activemask.b32 %r9;\n", 0x55555555,
     0xaaaaaaaa},
    /* flow: a branch that half of the lanes take, one that all take, and none */
    {"bra", HALVES "mov.b32 %r9, 1;\n@%p3 bra L;\nmov.b32 %r9, 2;\nL:\n", 1, 2},
    {"bra", "mov.b32 %r9, 1;\nbra L;\nmov.b32 %r9, 2;\nL:\n", 1, 1},
    {"bra.uni", "mov.b32 %r9, 1;\nbra.uni L;\nmov.b32 %r9, 2;\nL:\n", 1, 1},
    {"ret", HALVES "@%p3 ret;\nmov.b32 %r9, 2;\n", 0xeeeeeeee, 2},
    {"exit", HALVES "@%p3 exit;\nmov.b32 %r9, 2;\n", 0xeeeeeeee, 2},
    /* each lane reads what its neighbour wrote */
    {"bar.sync",
     "mov.u32 %r10, sh;\nmad.lo.u32 %r11, %r0, 4, %r10;\nand.b32 %r12, %r0, 1;\n"
     "st.shared.b32 [%r11], %r12;\nbar.sync 0;\nxor.b32 %r12, %r0, 1;\n"
     "mad.lo.u32 %r11, %r12, 4, %r10;\nld.shared.b32 %r9, [%r11];\n",
     1, 0},
    {"bar.warp.sync",
     "mov.u32 %r10, sh;\nmad.lo.u32 %r11, %r0, 4, %r10;\nand.b32 %r12, %r0, 1;\n"
     "st.shared.b32 [%r11], %r12;\nbar.warp.sync -1;\nxor.b32 %r12, %r0, 1;\n"
     "mad.lo.u32 %r11, %r12, 4, %r10;\nld.shared.b32 %r9, [%r11];\n",
     1, 0},
    {"membar.cta", "mov.b32 %r9, 3;\nmembar.cta;\n", 3, 3},
    {"fence.acq_rel.cta", "mov.b32 %r9, 3;\nfence.acq_rel.cta;\n", 3, 3},
    {"griddepcontrol.wait", "mov.b32 %r9, 3;\ngriddepcontrol.wait;\n", 3, 3},
    {"griddepcontrol.launch_dependents", "mov.b32 %r9, 3;\ngriddepcontrol.launch_dependents;\n", 3,
     3},
};

static void try_together(const together *t)
{
    char body[1024];
    snprintf(body, sizeof body, "%sst.global.b32 [%%rd3], %%r9;\n", t->body);
    const char *err = run(body);
    if (err)
        fail_msg("%s: %s", t->text, err);
    for (int l = 0; l < 32; l++) {
        const uint32_t want = l % 2 ? t->odd : t->even;
        if (out[l][0] != want)
            fail_msg("%s:\n%slane %d got %#x, not %#x", t->text, t->body, l, out[l][0], want);
    }
    tried(t->text);
}

/* ---- cp.async: 16 (8, 4) bytes a lane, and zeros where the source's size is 0 ---- */

#define ADDRESSES                                                                                  \
    "mov.u32 %r10, sh;\nmad.lo.u32 %r11, %r0, 16, %r10;\nmov.b32 %r12, -1;\n"                      \
    "st.shared.v4.b32 [%r11], {%r12, %r12, %r12, %r12};\nshl.b32 %r13, %r0, 4;\n"                  \
    "and.b32 %r13, %r13, 64;\ncvt.u64.u32 %rd8, %r13;\nadd.s64 %rd8, %rd0, %rd8;\n"
#define BACK                                                                                       \
    "ld.shared.v4.b32 {%r20, %r21, %r22, %r23}, [%r11];\n"                                         \
    "st.global.v4.b32 [%rd3], {%r20, %r21, %r22, %r23};\n"
typedef struct copying {
    const char *texts[4], *body;
    int bytes; /* that come from the source; -1: zeros */
} copying;
static const copying copyings[] = {
    {{"cp.async.cg.shared.global", "cp.async.commit_group", "cp.async.wait_group"},
     ADDRESSES "cp.async.cg.shared.global [%r11], [%rd8], 16;\ncp.async.commit_group;\n"
               "cp.async.wait_group 0;\n" BACK,
     16},
    {{"cp.async.ca.shared.global", "cp.async.wait_all"},
     ADDRESSES "cp.async.ca.shared.global [%r11], [%rd8], 16;\ncp.async.wait_all;\n" BACK,
     16},
    {{"cp.async.ca.shared.global", "cp.async.wait_all"},
     ADDRESSES "cp.async.ca.shared.global [%r11], [%rd8], 8;\ncp.async.wait_all;\n" BACK,
     8},
    {{"cp.async.ca.shared.global", "cp.async.wait_all"},
     ADDRESSES "cp.async.ca.shared.global [%r11], [%rd8], 4;\ncp.async.wait_all;\n" BACK,
     4},
    {{"cp.async.cg.shared.global", "cp.async.wait_all"},
     ADDRESSES "mov.b32 %r14, 0;\ncp.async.cg.shared.global [%r11], [%rd8], 16, %r14;\n"
               "cp.async.wait_all;\n" BACK,
     -1},
    /* the first of two groups is there when one may be under way */
    {{"cp.async.wait_group"},
     ADDRESSES "cp.async.cg.shared.global [%r11], [%rd8], 16;\ncp.async.commit_group;\n"
               "cp.async.cg.shared.global [%r11+512], [%rd8], 16;\ncp.async.commit_group;\n"
               "cp.async.wait_group 1;\n" BACK "cp.async.wait_all;\n",
     16},
};

static void try_copying(const copying *c)
{
    const char *err = run(c->body);
    if (err)
        fail_msg("%s: %s", c->texts[0], err);
    for (int l = 0; l < 32; l++) {
        for (int k = 0; k < 4; k++) {
            const uint32_t source = in[(16 * l & 64) / 4 + k];
            const uint32_t want = c->bytes < 0 ? 0 : 4 * k < c->bytes ? source : ~0u;
            if (out[l][k] != want)
                fail_msg("%s\nlane %d, word %d: %#x, not %#x", c->body, l, k, out[l][k], want);
        }
    }
    for (int k = 0; k < 4 && c->texts[k]; k++)
        tried(c->texts[k]);
}

/* ---- what ends the launch ---- */

static const struct fault {
    const char *text, *body, *message;
} faults[] = {
    {"trap", "trap;\n", "trap"},
    {"div.s32", "div.s32 %r9, %r0, %r0;\n", "by zero"},
    {"rem.u64", "cvt.u64.u32 %rd8, %r0;\nrem.u64 %rd8, %rd8, %rd8;\n", "by zero"},
    {"shfl.sync.idx.b32",
     "setp.lt.u32 %p1, %r0, 16;\n@%p1 shfl.sync.idx.b32 %r9, %r8, 20, 31, 0xffff;\n",
     "divergent warp"},
    {"vote.sync.any.pred", "setp.lt.u32 %p1, %r0, 16;\n@%p1 vote.sync.any.pred %p2, %p1, -1;\n",
     "divergent warp"},
    {"redux.sync.add.u32", "setp.lt.u32 %p1, %r0, 16;\n@%p1 redux.sync.add.u32 %r9, %r8, -1;\n",
     "divergent warp"},
    {"redux.sync.add.u32", "redux.sync.add.u32 %r9, %r8, 0xffff;\n", "divergent warp"},
};

void rowtest_warps(void **state)
{
    (void)state;
    for (uint32_t l = 0; l < 32; l++)
        in[l] = 0x12340000 + 17 * l;
    for (size_t k = 0; k < sizeof shuffles / sizeof *shuffles; k++)
        try_shuffle(&shuffles[k]);
    for (size_t k = 0; k < sizeof togethers / sizeof *togethers; k++)
        try_together(&togethers[k]);
    for (size_t k = 0; k < sizeof copyings / sizeof *copyings; k++)
        try_copying(&copyings[k]);
    for (size_t k = 0; k < sizeof faults / sizeof *faults; k++) {
        const char *err = run(faults[k].body);
        if (!err || !strstr(err, faults[k].message))
            fail_msg("%s: no fault that says '%s', but: %s", faults[k].body, faults[k].message,
                     err ? err : "nothing");
        tried(faults[k].text);
    }
}
