/* The fibers themselves: kernels that are right give what they should, and each that is wrong is
 * stopped by name or gives something else. Its kernels are those of try.cu. */
#include "tests/ptxvm/ptxvm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct try_args {
    int32_t *out;
    const int32_t *in;
    int64_t n;
} try_args;

#define ENTRY(name, threads)                                                                       \
    ".visible .entry " #name "(.param .align 8 .b8 " #name "_param_0[24]\n)\n.maxntid " #threads   \
    ", 1, 1\n{\nret;\n}\n"
static const char text[] = ENTRY(k_scan, 128) ENTRY(k_no_barrier, 64) ENTRY(k_divergent, 64)
    ENTRY(k_early, 64) ENTRY(k_mask, 32) ENTRY(k_no_syncwarp, 32) ENTRY(k_async, 32)
        ENTRY(k_behind, 32) ENTRY(k_mma, 32);

static char err[512];

static bool run(const char *name, try_args a, uint64_t seed)
{
    ptx_module *m;
    assert_true(ptx_load(&m, text, err, sizeof(err)));
    ptx_kernel *k = ptx_find(m, name);
    assert_non_null(k);
    const unsigned grid[3] = {1, 1, 1}, block[3] = {ptx_max_threads(k), 1, 1};
    const ptx_options o = {.seed = seed};
    err[0] = 0;
    bool ok = ptx_launch(k, grid, block, 512, &a, sizeof(a), &o, NULL, err, sizeof(err));
    ptx_unload(m);
    return ok;
}

static int32_t in[256], out[256];

static void test_a_scan_adds(void **state)
{
    (void)state;
    for (int i = 0; i < 128; i++)
        in[i] = i * i - 50;
    for (uint64_t seed = 0; seed < 5; seed++) {
        memset(out, 0, sizeof(out));
        assert_true(run("k_scan", (try_args){out, in, 100}, seed));
        for (int i = 0, sum = 0; i < 128; i++) {
            sum += in[i];
            assert_int_equal(out[i], i < 100 ? sum : 0);
        }
    }
}

static void test_an_mma_multiplies(void **state)
{
    (void)state;
    uint8_t *a = (uint8_t *)in;
    int8_t *b = (int8_t *)in + 16 * 32;
    for (int i = 0; i < 16 * 32; i++)
        a[i] = (uint8_t)(i * 37 + i / 32);
    for (int i = 0; i < 8 * 32; i++)
        b[i] = (int8_t)(i * 91 - i / 32 * 5);
    assert_true(run("k_mma", (try_args){out, in, 0}, 1));
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++) {
            int32_t sum = row >= 8 && column % 2; /* the addend */
            for (int k = 0; k < 32; k++)
                sum += a[row * 32 + k] * b[column * 32 + k];
            assert_int_equal(out[row * 8 + column], sum);
        }
}

static void test_shared_memory_starts_as_nan(void **state)
{
    (void)state;
    int wrong = 0;
    for (uint64_t seed = 0; seed < 8; seed++) {
        assert_true(run("k_no_barrier", (try_args){out, in, 0}, seed));
        for (int i = 0; i < 64; i++)
            wrong += out[i] != 2;
    }
    assert_true(wrong > 0);
    assert_true(run("k_no_syncwarp", (try_args){out, in, 0}, 1));
    assert_int_not_equal(out[0] + out[31], 31);
    assert_true(run("k_no_syncwarp", (try_args){out, in, 1}, 1));
    assert_int_equal(out[0], 31);
    assert_int_equal(out[31], 0);
}

static void test_async_copies_come_when_they_are_waited_for(void **state)
{
    (void)state;
    for (int i = 0; i < 128; i++)
        in[i] = 7 * i;
    assert_true(run("k_async", (try_args){out, in, 1}, 1));
    for (int i = 0; i < 128; i++)
        assert_int_equal(out[i], i < 124 ? 7 * i : 0);
    assert_true(run("k_async", (try_args){out, in, 0}, 1));
    for (int i = 0; i < 128; i++)
        assert_int_equal(out[i], -1);
}

static void test_what_is_wrong_is_stopped_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *kernel, *says;
    } rows[] = {{"k_divergent", "wait in two barriers"},
                {"k_early", "threads have ended"},
                {"k_mask", "names lanes that have ended"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_false(run(rows[i].kernel, (try_args){out, in, 40}, 3));
        assert_non_null(strstr(err, rows[i].kernel));
        if (!strstr(err, rows[i].says))
            fail_msg("%s", err);
    }
    assert_true(run("k_scan", (try_args){out, in, 100}, 1)); /* and it goes on after that */
}

#ifdef __SANITIZE_ADDRESS__
/* The sanitizers see a shared array's bounds. */
static void test_an_index_behind_a_shared_array_ends_the_process(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        run("k_behind", (try_args){out, in, 4}, 1);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(status != 0);
    assert_true(run("k_behind", (try_args){out, in, 3}, 1));
}
#endif

int main(void)
{
    const struct CMUnitTest fibers[] = {
        cmocka_unit_test(test_a_scan_adds),
        cmocka_unit_test(test_an_mma_multiplies),
        cmocka_unit_test(test_shared_memory_starts_as_nan),
        cmocka_unit_test(test_async_copies_come_when_they_are_waited_for),
        cmocka_unit_test(test_what_is_wrong_is_stopped_by_name),
#ifdef __SANITIZE_ADDRESS__
        cmocka_unit_test(test_an_index_behind_a_shared_array_ends_the_process),
#endif
    };
    return cmocka_run_group_tests_name("fibers", fibers, NULL, NULL);
}
