/*
 * rowtest: what the tests of rows share: small kernels made of text, run once, and which rows have
 * been tried. Internal to tests/ptxvm.
 */
#ifndef CP_PTXVM_ROWTEST_H
#define CP_PTXVM_ROWTEST_H

#include "tests/ptxvm/machine.h"
#include "tests/ptxvm/ptxvm.h"

/* Where the kernel's two buffers lie on the device. */
#define ROWTEST_IN  ((uint64_t)1 << 52)
#define ROWTEST_OUT ((uint64_t)1 << 52 | 1 << 20)

/* Text that grows. */
typedef struct rowtest_text {
    char *at;
    size_t n, cap;
} rowtest_text;
void rowtest_add(rowtest_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * body as a kernel `k` of one warp, run with %rd0 = in, %rd1 = out, %r0 = the lane, and registers
 * %p<16> %rs<40> %r<40> %rd<40>, a shared array `sh` of 1,024 bytes and a local one, `lo`. Returns
 * NULL, or the message of the load or the launch (static).
 */
const char *rowtest_run(const char *body, void *in, size_t n_in, void *out, size_t n_out);

/* The rows that a test ran; index counts over ptx_tables(). */
size_t rowtest_n_rows(void);
const ptx_row *rowtest_row(size_t index);
void rowtest_tried(const ptx_row *row);
bool rowtest_is_tried(size_t index);

/* One word of a row's shape, taken apart. */
typedef struct rowtest_operand {
    char kind;
    bool written, after_bar, wider, optional;
    int count;
} rowtest_operand;
/* The shape's words; their number. */
int rowtest_shape(const char *shape, rowtest_operand operands[8]);

/* A module with an instruction of each row, on the standard output. */
void rowtest_print(void);

/* The files' tests; each ends by failing its own assertions. */
void rowtest_values(void **state);
void rowtest_setp(void **state);
void rowtest_matrices(void **state);
void rowtest_warps(void **state);
void rowtest_memory(void **state);
void rowtest_refusals(void **state);

#endif
