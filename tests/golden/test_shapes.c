/*
 * Tensors of experts whose shapes are not what the metadata says: a tiny model's file with a few
 * bytes changed is refused before anything is read by them.
 */
#include "base/io.h"
#include "tests/support/cmocka.h"
#include "tests/support/forward.h"

#include "base/mem.h"
#include "model/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL CP_GOLDEN_DIR "/qwen3moe.gguf" /* 7 experts of 44, 60 wide */

typedef struct change {
    const char *name; /* of a tensor, or a key of a u32 */
    uint64_t ne[3];   /* its new dimensions, as many bytes as the old ones had; 0: as they were */
    uint32_t value;   /* of the key; 0: it is a tensor */
    bool rename;      /* the last letter of the name becomes x */
    const char *says;
} change;

/* A tensor's entry is its name, u32 number of dimensions, u64 dimensions; a key's is its name, u32
 * type, value. */
static void apply(cp_buf *file, const change *c)
{
    size_t n = strlen(c->name);
    char *at = memmem(file->p, file->n, c->name, n);
    assert_non_null(at);
    if (c->rename)
        at[n - 1] = 'x';
    if (c->value)
        memcpy(at + n + 4, &c->value, sizeof c->value);
    for (size_t i = 0; i < 3; i++)
        if (c->ne[i])
            memcpy(at + n + 4 + 8 * i, &c->ne[i], sizeof c->ne[i]);
}

static void shapes_that_differ_are_refused(void **state)
{
    (void)state;
    static const change rows[] = {
        {"blk.0.ffn_gate_exps.weight",
         {60, 7, 44},
         0,
         false,
         "tensor 'blk.0.ffn_gate_exps.weight' has shape [60, 7, 44, 1], expected [60, 44, 7]"},
        {"blk.1.ffn_up_exps.weight",
         {60, 308, 1},
         0,
         false,
         "tensor 'blk.1.ffn_up_exps.weight' has shape [60, 308, 1, 1], expected [60, 44, 7]"},
        {"blk.1.ffn_down_exps.weight",
         {60, 44, 7},
         0,
         false,
         "tensor 'blk.1.ffn_down_exps.weight' has shape [60, 44, 7, 1], expected [44, 60, 7]"},
        {"blk.0.ffn_gate_inp.weight",
         {7, 60, 0},
         0,
         false,
         "tensor 'blk.0.ffn_gate_inp.weight' has shape [7, 60, 1, 1], expected [60, 7]"},
        {"blk.0.ffn_down_exps.weight",
         {0},
         0,
         true,
         "tensor 'blk.0.ffn_down_exps.weight' is missing"},
        {"blk.0.ffn_gate_exps.weight",
         {0, 0, UINT64_C(1) << 60},
         0,
         false,
         "blk.0.ffn_gate_exps.weight"},
        {"qwen3moe.expert_count",
         {0},
         6,
         false,
         "tensor 'blk.0.ffn_gate_inp.weight' has shape [60, 7, 1, 1], expected [60, 6]"},
        {"qwen3moe.expert_count",
         {0},
         513,
         false,
         "key 'qwen3moe.expert_count' is 513, allowed: 0 to 512"},
        {"qwen3moe.expert_used_count",
         {0},
         8,
         false,
         "key 'qwen3moe.expert_used_count' is 8, allowed: 1 to 7"},
        {"qwen3moe.expert_feed_forward_length",
         {0},
         1 << 20,
         false,
         "tensor 'blk.0.ffn_gate_exps.weight' has shape [60, 44, 7, 1], expected [60, 1048576, 7]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[] = "/tmp/cp-shapes-XXXXXX.gguf";
        cp_err err = {0};
        cp_buf file;
        cp_forward *f;
        memset(&file, 0, sizeof file);
        assert_int_equal(cp_file_read(MODEL, 1 << 24, &file, &err), CP_OK);
        apply(&file, &rows[i]);
        int fd = mkstemps(path, 5);
        assert_true(fd >= 0);
        assert_true(cp_io_pwrite(fd, (const uint8_t *)file.p, file.n, 0));
        close(fd);
        cp_forward_config cfg = {.path = path,
                                 .backend = "ref",
                                 .kv_type = CP_DTYPE_BF16,
                                 .threads = 1,
                                 .max_rows = 4,
                                 .max_positions = 64};
        assert_true(cp_forward_open(&f, &cfg, &err) != CP_OK);
        if (!strstr(err.msg, rows[i].says))
            fail_msg("%s: wanted: %s", err.msg, rows[i].says);
        unlink(path);
        cp_buf_fini(&file);
    }
}

/* As many layers as a file may have, each with every optional bias, are more weights than there are
 * places; the limit is the file's to reach, so it is refused, by the name of what is too much. */
static void weights_beyond_the_places_are_refused(void **state)
{
    (void)state;
    cp_loader_options lo = {0};
    cp_err err = {0};
    cp_loaded *file;
    assert_int_equal(cp_loader_open(&file, MODEL, &lo, &err), CP_OK);
    int64_t n_vocab = cp_loaded_find(file, "token_embd.weight")->ne[1];
    cp_program g = {.weights = cp_xcalloc(CP_BUILD_WEIGHTS, sizeof *g.weights),
                    .n_weights = CP_BUILD_WEIGHTS - 1};
    cp_build b = {.g = &g, .file = file, .err = &err};
    cp_wref last = cp_build_weight(&b, "token_embd.weight", CP_ROLE_EMBED, 60, n_vocab, true);
    assert_int_equal(last, CP_BUILD_WEIGHTS - 1);
    assert_int_equal(b.rc, CP_OK);
    assert_int_equal(cp_build_weight(&b, "output_norm.weight", CP_ROLE_VECTOR, 60, 0, true), -1);
    assert_int_equal(b.rc, CP_UNSUPPORTED);
    assert_string_equal(err.msg,
                        "tensor 'output_norm.weight': more than 16384 weights in the layers");
    free(g.weights);
    cp_loaded_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_that_differ_are_refused),
        cmocka_unit_test(weights_beyond_the_places_are_refused),
    };
    return cmocka_run_group_tests_name("shapes", tests, NULL, NULL);
}
