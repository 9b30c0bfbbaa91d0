/*
 * rows: how the files of opcode rows write their functions and tables. Internal to tests/ptxvm.
 *
 * The files are compiled twice, plain and for x86-64-v3 (fma and wide integer code make the machine
 * several times faster); tables.c chooses. Every function computes the same bits at both levels.
 */
#ifndef CP_PTXVM_ROWS_H
#define CP_PTXVM_ROWS_H

#include "tests/ptxvm/machine.h"

#ifdef PTX_V3
#define PTX_TABLE(name) name##_v3
#else
#define PTX_TABLE(name) name
#endif

/* A function of 1, 2 or 3 sources that works a lane at a time: value is an expression in a, b, c.
 */
#define PTX_FN1(name, D, A, value)                                                                 \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const A *as = ptx_src(A, 1);                                                               \
        D t[32];                                                                                   \
        PTX_LANES                                                                                  \
        {                                                                                          \
            const A a = as[l];                                                                     \
            t[l] = (D)(value);                                                                     \
        }                                                                                          \
        ptx_put(w, i, 0, t, sizeof(D));                                                            \
    }
#define PTX_FN2(name, D, A, B, value)                                                              \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const A *as = ptx_src(A, 1);                                                               \
        const B *bs = ptx_src(B, 2);                                                               \
        D t[32];                                                                                   \
        PTX_LANES                                                                                  \
        {                                                                                          \
            const A a = as[l];                                                                     \
            const B b = bs[l];                                                                     \
            t[l] = (D)(value);                                                                     \
        }                                                                                          \
        ptx_put(w, i, 0, t, sizeof(D));                                                            \
    }
#define PTX_FN3(name, D, A, B, C, value)                                                           \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const A *as = ptx_src(A, 1);                                                               \
        const B *bs = ptx_src(B, 2);                                                               \
        const C *cs = ptx_src(C, 3);                                                               \
        D t[32];                                                                                   \
        PTX_LANES                                                                                  \
        {                                                                                          \
            const A a = as[l];                                                                     \
            const B b = bs[l];                                                                     \
            const C c = cs[l];                                                                     \
            t[l] = (D)(value);                                                                     \
        }                                                                                          \
        ptx_put(w, i, 0, t, sizeof(D));                                                            \
    }

/* setp: the comparison `value` of two sources of type T, then the row's Boolean operator with a
 * third (arg: none, and, or, xor). */
enum { PTX_NONE, PTX_AND, PTX_OR, PTX_XOR };
#define PTX_SETP(name, T, value)                                                                   \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        const T *as = ptx_src(T, 2), *bs = ptx_src(T, 3);                                          \
        uint32_t m = 0;                                                                            \
        PTX_LANES                                                                                  \
        {                                                                                          \
            const T a = as[l], b = bs[l];                                                          \
            m |= (value) ? 1u << l : 0;                                                            \
        }                                                                                          \
        ptx_put_compare(w, i, m);                                                                  \
    }
#define PTX_SETP_ROWS(text, type, fn, kind)                                                        \
    {"setp." text "." type, fn, "=p =|p " kind " " kind, PTX_NONE, PTX_PLAIN},                     \
        {"setp." text ".and." type, fn, "=p =|p " kind " " kind " p", PTX_AND, PTX_PLAIN},         \
        {"setp." text ".or." type, fn, "=p =|p " kind " " kind " p", PTX_OR, PTX_PLAIN},           \
    {                                                                                              \
        "setp." text ".xor." type, fn, "=p =|p " kind " " kind " p", PTX_XOR, PTX_PLAIN            \
    }

/* p = BoolOp(t, c), q = BoolOp(!t, c) */
static inline void ptx_put_compare(ptx_warp *w, const ptx_inst *i, uint32_t p)
{
    uint32_t q = ~p;
    if (i->row->arg != PTX_NONE) {
        const uint32_t c = ptx_pred(w, i, 4);
        p = i->row->arg == PTX_AND ? p & c : i->row->arg == PTX_OR ? p | c : p ^ c;
        q = i->row->arg == PTX_AND ? q & c : i->row->arg == PTX_OR ? q | c : q ^ c;
    }
    ptx_put_pred(w, i, 0, p);
    ptx_put_pred(w, i, 1, q);
}

#define PTX_ROW(text, fn, shape)                                                                   \
    {                                                                                              \
        text, fn, shape, 0, PTX_PLAIN                                                              \
    }
#define PTX_ARG(text, fn, shape, arg)                                                              \
    {                                                                                              \
        text, fn, shape, arg, PTX_PLAIN                                                            \
    }
#define PTX_END                                                                                    \
    {                                                                                              \
        NULL, NULL, NULL, 0, PTX_PLAIN                                                             \
    }

#endif
