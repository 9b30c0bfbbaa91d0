/* One kernel from a few lines of PTX, run over a buffer of device memory. */
#ifndef CP_PTXVM_HARNESS_H
#define CP_PTXVM_HARNESS_H

#include "tests/ptxvm/ptxvm.h"
#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER = 4096 };
static const uint64_t DEVICE = ((uint64_t)1 << 52) + 256;
static const uint64_t FAR = ((uint64_t)1 << 52) + 64 * BUFFER; /* k_a's first word */

typedef struct harness {
    unsigned blocks, threads;
    size_t shared;
    ptx_options options;
    ptx_stats stats;
    unsigned char buffer[BUFFER]; /* at DEVICE */
    char err[512];
    ptx_module *module;
} harness;

/*
 * body stands in a kernel with %d0 the buffer, %r0 the thread, %r1 the block, %r2 4 times the
 * thread, %d1 the buffer's word of the thread, s 1,024 bytes of shared memory, l 16 local bytes.
 */
static inline char *kernel_text(const char *body)
{
    static const char head[] =
        ".version 9.0\n.target sm_80\n.address_size 64\n"
        ".extern .shared .align 16 .b8 dyn[];\n"
        ".const .align 4 .u32 table[4] = {10, 20, 30, 40};\n"
        ".visible .entry k(.param .u64 k_p, .param .align 8 .b8 k_a[16])\n.maxntid 256, 1, 1\n{\n"
        ".reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<40>;\n.reg .b64 %d<20>;\n"
        ".reg .f32 %f<20>;\n"
        ".shared .align 16 .b8 s[1024];\n.local .align 8 .b8 l[16];\n"
        "ld.param.u64 %d0, [k_p];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\n"
        "shl.b32 %r2, %r0, 2;\nmul.wide.u32 %d1, %r0, 4;\nadd.s64 %d1, %d1, %d0;\n";
    size_t n = sizeof head + strlen(body) + 16;
    char *text = malloc(n);
    assert_non_null(text);
    snprintf(text, n, "%s%s\nret;\n}\n", head, body);
    return text;
}

static inline bool harness_load(harness *h, const char *body)
{
    char *text = kernel_text(body);
    bool good = ptx_load(&h->module, text, h->err, sizeof h->err);
    free(text);
    return good;
}

static inline bool harness_launch(harness *h)
{
    unsigned grid[3] = {h->blocks, 1, 1}, block[3] = {h->threads, 1, 1};
    uint64_t params[3] = {DEVICE, FAR, 7};
    return ptx_launch(ptx_find(h->module, "k"), grid, block, h->shared, params, sizeof params,
                      &h->options, &h->stats, h->err, sizeof h->err);
}

/* Load, launch, unload. False: h->err. */
static inline bool run_body(harness *h, const char *body)
{
    if (!harness_load(h, body))
        return false;
    assert_true(ptx_memory_add(DEVICE, h->buffer, BUFFER));
    bool good = harness_launch(h);
    ptx_memory_remove(DEVICE);
    ptx_unload(h->module);
    return good;
}

#endif
