/*
 * machine: what the functions of instructions see of the PTX machine. Internal to tests/ptxvm.
 *
 * A row of a table names one full opcode text (with every modifier), the function that executes
 * it for a warp, and the shape of its operands. There is no other way to an instruction: a text
 * that no row has, or operands that fit the shape of no row of that text, fail the load.
 *
 * A warp has 32 lanes. A register is one array of 32 values of its declared width (a predicate is
 * one 32-bit word, a bit a lane); constants and special registers are such arrays too, so that an
 * operand is always a place in the warp's register file. A function computes all 32 lanes (those
 * that do not take part hold anything: no trap, no undefined behaviour may come of it) and stores
 * with ptx_put, which touches the lanes of the mask alone.
 */
#ifndef CP_PTXVM_MACHINE_H
#define CP_PTXVM_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { PTX_OPERANDS = 14, PTX_LITERALS = 3 };

/* Lane values as they lie in the register file: the same bytes are read as several types (all of
 * the tree is built with -fno-strict-aliasing). */
typedef uint8_t ptx_u8;
typedef uint16_t ptx_u16;
typedef uint32_t ptx_u32;
typedef uint64_t ptx_u64;
typedef int16_t ptx_s16;
typedef int32_t ptx_s32;
typedef int64_t ptx_s64;
typedef float ptx_f32;
typedef double ptx_f64;

typedef struct ptx_inst ptx_inst;
typedef struct ptx_warp ptx_warp;
typedef void ptx_fn(ptx_warp *w, const ptx_inst *i);

/* What the machine itself does at an instruction; rows_flow.c alone has other than PTX_PLAIN. */
typedef enum ptx_flow {
    PTX_PLAIN,
    PTX_BRANCH,
    PTX_BRANCH_UNI,
    PTX_EXIT,
    PTX_BARRIER,
    PTX_TRAP
} ptx_flow;

/*
 * shape: a word an operand, separated by spaces, in the order of the text:
 *
 *     [=][|][count]kind[+]      kind: p predicate, h 16, w 32, l 64 bits, b 8 bits (in a register
 *                               of 16 bits or more), # an integer literal, m [register + offset],
 *                               t a label
 *     0     the literal 0, and no place
 *     =     written by the instruction
 *     |     may be left out; comes after a '|' in the text (setp p|q, shfl d|p)
 *     ?     may be left out; comes last (cp.async's source size)
 *     count that many registers in braces (a brace is optional around one)
 *     +     the register may be wider than the kind (ld, st, cvt): look at width[]
 *
 * Each register takes one place of op[] (so "=4w 4w 2w 4w" fills op[0..13]); m takes one for its
 * base and one literal for its offset; # takes one literal. What is left out and written goes to a
 * sink; what is left out and read has width 0. A source p may be written !p: see ptx_pred. h, w
 * and l accept literals (integers, 0f and 0d forms) as sources, w and l also names of variables.
 */
typedef struct ptx_row {
    const char *text;
    ptx_fn *fn;
    const char *shape;
    int arg; /* the function's own, to serve several rows */
    ptx_flow flow;
} ptx_row;

struct ptx_inst {
    ptx_fn *fn;
    const ptx_row *row;
    int64_t literal[PTX_LITERALS];
    uint32_t op[PTX_OPERANDS];   /* bytes from the start of the warp's register file */
    uint8_t width[PTX_OPERANDS]; /* bytes of a lane: 2, 4, 8; 0: predicate, or left out */
    uint16_t negated;            /* bit n: operand n is written !p */
    uint8_t n_op;
    uint8_t flow;
    bool guarded, guard_negated;
    uint32_t guard; /* as op */
    int32_t target; /* of a branch: index of an instruction */
    int32_t line;   /* of the PTX text, from 1 */
};

typedef struct ptx_block ptx_block; /* run.h */

/* What every instruction may use; the machine's own part of a warp follows it in run.h. */
struct ptx_warp {
    unsigned char *regs; /* 64-byte aligned */
    uint32_t mask;       /* the lanes that execute this instruction; never 0 */
    uint32_t live;       /* the lanes of the warp that have not left the kernel */
    ptx_block *block;
};

/* Ends the launch with a message to which kernel, block, warp and PTX line are added. The first
 * fault counts. The function returns as soon as it can. */
void ptx_fault(ptx_warp *w, const ptx_inst *i, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* mma, ldmatrix: every lane of the warp must be here. False: a fault was reported. */
bool ptx_aligned(ptx_warp *w, const ptx_inst *i);
/* shfl, vote, redux .sync: the lanes of member masks (an operand) must be here together. */
bool ptx_together(ptx_warp *w, const ptx_inst *i, int op_members);

#define PTX_LANES for (int l = 0; l < 32; l++)

/* The 32 values of operand n: ptx_src(ptx_f32, 1). */
#define ptx_src(type, n) ((const type *)(const void *)(w->regs + i->op[n]))
#define ptx_dst(type, n) ((type *)(void *)(w->regs + i->op[n]))

static inline uint32_t ptx_pred(const ptx_warp *w, const ptx_inst *i, int n)
{
    uint32_t v = *ptx_src(ptx_u32, n);
    return i->negated >> n & 1 ? ~v : v;
}

static inline void ptx_put_pred(ptx_warp *w, const ptx_inst *i, int n, uint32_t v)
{
    ptx_u32 *d = ptx_dst(ptx_u32, n);
    *d = (*d & ~w->mask) | (v & w->mask);
}

/* values: 32 of size bytes (a constant 2, 4 or 8). */
static inline void ptx_put(ptx_warp *w, const ptx_inst *i, int n, const void *values, size_t size)
{
    unsigned char *d = w->regs + i->op[n];
    if (w->mask == 0xffffffffu) {
        memcpy(d, values, 32 * size);
        return;
    }
    const unsigned char *v = (const unsigned char *)values;
    for (size_t l = 0; l < 32; l++) {
        if (w->mask >> l & 1)
            memcpy(d + l * size, v + l * size, size);
    }
}

/* Operand n whatever its width: zero-extended, and cut to the register's width. For conversions and
 * others that take registers wider than their type. */
void ptx_read(const ptx_warp *w, const ptx_inst *i, int n, uint64_t values[32]);
void ptx_write(ptx_warp *w, const ptx_inst *i, int n, const uint64_t values[32]);

/* The tables, each ended by a row whose text is NULL; tables.c lists them. Memory (ld, st, atom,
 * red, cvta, fences), async (cp.async) and flow (bra, ret, bar, bar.warp.sync, trap,
 * griddepcontrol) belong to the machine's core, the others to the opcode files. */
extern const ptx_row ptx_rows_memory[], ptx_rows_async[], ptx_rows_flow[];
extern const ptx_row ptx_rows_warp[];    /* shfl, vote, redux, match, ldmatrix */
extern const ptx_row ptx_rows_move[];    /* mov, selp, prmt, shf, cvt, ... */
extern const ptx_row ptx_rows_integer[]; /* add, mad, bfe, lop3, setp of integers and bits, ... */
extern const ptx_row ptx_rows_float[];   /* f32, f64, f16x2, setp of floats, ex2, ... */
extern const ptx_row ptx_rows_matrix[];  /* mma, dp4a */
/* All tables; ended by NULL. */
const ptx_row *const *ptx_tables(void);

#endif
