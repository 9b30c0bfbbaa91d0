/*
 * Modules and launches. A text of PTX is parsed once a process, however often it is loaded, so
 * that the counts of its lines are all in one place; they are written at exit.
 */
#include "tests/fakes/libcuda/fake.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Parsed, by its text. Never unloaded: reports at exit want it. */
struct fake_image {
    fake_image *next;
    ptx_module *ptx;
    uint64_t sum;
    size_t n;
    char *text;
};

static fake_image *images;

/* The PTX ISA that each driver knows at most ("PTX ISA", release notes). */
static const struct {
    int driver, major, minor;
} isas[] = {
    {13010, 9, 1}, {13000, 9, 0}, {12090, 8, 8}, {12080, 8, 7}, {12070, 8, 6},
    {12050, 8, 5}, {12040, 8, 4}, {12030, 8, 3}, {12020, 8, 2}, {12010, 8, 1},
    {12000, 8, 0}, {11080, 7, 8}, {11000, 7, 0},
};

static uint64_t sum_of(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

static CUresult check_text(const char *text)
{
    int major, minor, target;
    const char *version = strstr(text, ".version "), *sm = strstr(text, ".target sm_");
    if (!version || !sm || sscanf(version, ".version %d.%d", &major, &minor) != 2 ||
        sscanf(sm, ".target sm_%d", &target) != 1)
        return fake_wrong(CUDA_ERROR_INVALID_IMAGE, "an image that is neither PTX nor a binary");
    size_t i = 0, n = sizeof isas / sizeof *isas;
    while (i < n && isas[i].driver > fake.driver)
        i++;
    if (i == n || major > isas[i].major || (major == isas[i].major && minor > isas[i].minor))
        return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    return target > fake.cc ? CUDA_ERROR_NO_BINARY_FOR_GPU : CUDA_SUCCESS;
}

/* ELF, or a fatbin: this device runs PTX alone, as one does whose machine code is not in there. */
static bool is_binary(const void *image)
{
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    return magic == 0x464c457f || magic == 0xba55ed50 || magic == 0x466243b1;
}

static fake_image *image_of(const char *text, char *err, size_t n_err)
{
    size_t n = strlen(text);
    for (fake_image *i = images; i; i = i->next) {
        if (i->n == n && !memcmp(i->text, text, n))
            return i;
    }
    ptx_module *ptx;
    if (!ptx_load(&ptx, text, err, n_err))
        return NULL;
    fake_image *i = fake_new(sizeof *i);
    i->ptx = ptx;
    i->n = n;
    i->sum = sum_of(text);
    i->text = strdup(text);
    i->next = images;
    images = i;
    return i;
}

static CUresult load(CUmodule *out, const void *image, char *log, size_t n_log)
{
    if (!out || !image)
        return CUDA_ERROR_INVALID_VALUE;
    if (is_binary(image))
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    CUresult r = check_text(image);
    if (r)
        return r;
    char err[512], *mutant = fake_mutant(image);
    fake_image *found = image_of(mutant ? mutant : image, err, sizeof err);
    free(mutant);
    if (!found) {
        snprintf(log, n_log, "%s", err);
        return fake_wrong(CUDA_ERROR_INVALID_PTX, "%s", err);
    }
    fake_module *m = fake_new(sizeof *m);
    m->device = fake_here();
    m->image = found;
    m->next = fake.modules;
    fake.modules = m;
    *out = (CUmodule)(void *)m;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *out, const void *image)
{
    CUresult r = fake_enter(FAKE_cuModuleLoadData);
    char log[1];
    return fake_leave(r ? r : load(out, image, log, sizeof log));
}

CUresult cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned int n_options,
                            CUjit_option *options, void **values)
{
    CUresult r = fake_enter(FAKE_cuModuleLoadDataEx);
    char none[1], *log = none;
    size_t n_log = 1;
    for (unsigned i = 0; i < n_options; i++) {
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER)
            log = values[i];
        else if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            n_log = (size_t)(uintptr_t)values[i];
    }
    if (log == none)
        n_log = 1;
    return fake_leave(r ? r : load(out, image, log, n_log));
}

static fake_module *module_of(CUmodule handle)
{
    for (fake_module *m = fake.modules; m; m = m->next) {
        if ((CUmodule)(void *)m == handle)
            return !m->dead && m->device == fake_here() ? m : NULL;
    }
    return NULL;
}

CUresult cuModuleUnload(CUmodule module)
{
    CUresult r = fake_enter(FAKE_cuModuleUnload);
    if (r)
        return fake_leave(r);
    fake_module *m = module_of(module);
    if (!m)
        return fake_leave(fake_wrong(CUDA_ERROR_INVALID_HANDLE, "cuModuleUnload: no module"));
    if (fake_in_use(NULL, m))
        fake_wrong(CUDA_SUCCESS, "cuModuleUnload: work in a stream runs its kernels");
    m->dead = true;
    return fake_leave(CUDA_SUCCESS);
}

/* ---- functions ---- */

/* Parameters of an entry, from the module's text. */
static int count_parameters(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = text; (at = strstr(at, ".entry")) != NULL; at++) {
        const char *p = at + 6;
        p += strspn(p, " \t\n");
        if (strncmp(p, name, n) != 0 || !strchr("( \t\n", p[n]))
            continue;
        int count = 0;
        for (p += n; *p && *p != ')' && *p != '{'; p++)
            count += !strncmp(p, ".param", 6);
        return count;
    }
    return 0;
}

CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    CUresult r = fake_enter(FAKE_cuModuleGetFunction);
    if (r)
        return fake_leave(r);
    fake_module *m = module_of(module);
    if (!m || !out || !name)
        return fake_leave(fake_wrong(CUDA_ERROR_INVALID_HANDLE, "cuModuleGetFunction: no module"));
    fake_function **at = &m->functions;
    while (*at && strcmp(ptx_name((*at)->kernel), name) != 0)
        at = &(*at)->next;
    if (!*at) {
        ptx_kernel *k = ptx_find(m->image->ptx, name);
        if (!k)
            return fake_leave(CUDA_ERROR_NOT_FOUND);
        fake_function *f = fake_new(sizeof *f);
        f->kernel = k;
        f->module = m;
        f->parameters = count_parameters(m->image->text, name);
        *at = f;
    }
    *out = (CUfunction)(void *)*at;
    return fake_leave(CUDA_SUCCESS);
}

static fake_function *function_of(CUfunction handle)
{
    for (fake_module *m = fake.modules; m; m = m->next) {
        for (fake_function *f = m->functions; f; f = f->next) {
            if ((CUfunction)(void *)f == handle)
                return !m->dead && m->device == fake_here() ? f : NULL;
        }
    }
    return NULL;
}

static size_t dynamic_max(const fake_function *f)
{
    size_t otherwise = FAKE_SHARED - ptx_shared_bytes(f->kernel);
    return f->dynamic_max > otherwise ? f->dynamic_max : otherwise;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value)
{
    CUresult r = fake_enter(FAKE_cuFuncSetAttribute);
    if (r)
        return fake_leave(r);
    fake_function *f = function_of(function);
    if (!f)
        return fake_leave(fake_wrong(CUDA_ERROR_INVALID_HANDLE, "cuFuncSetAttribute: no function"));
    if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
        (size_t)value > FAKE_SHARED_OPTIN - ptx_shared_bytes(f->kernel))
        return fake_leave(fake_wrong(CUDA_ERROR_INVALID_VALUE, "cuFuncSetAttribute: %d = %d of %s",
                                     (int)which, value, ptx_name(f->kernel)));
    f->dynamic_max = (size_t)value;
    return fake_leave(CUDA_SUCCESS);
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function)
{
    CUresult r = fake_enter(FAKE_cuFuncGetAttribute);
    if (r)
        return fake_leave(r);
    const fake_function *f = function_of(function);
    if (!f)
        return fake_leave(fake_wrong(CUDA_ERROR_INVALID_HANDLE, "cuFuncGetAttribute: no function"));
    switch ((int)which) {
    case 0: /* MAX_THREADS_PER_BLOCK */
        *value = (int)ptx_max_threads(f->kernel);
        break;
    case 1: /* SHARED_SIZE_BYTES */
        *value = (int)ptx_shared_bytes(f->kernel);
        break;
    case 3: /* LOCAL_SIZE_BYTES */
        *value = (int)ptx_local_bytes(f->kernel);
        break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = (int)dynamic_max(f);
        break;
    default: /* registers, say: PTX has no number of them */
        r = fake_wrong(CUDA_ERROR_INVALID_VALUE, "cuFuncGetAttribute: %d has no row", (int)which);
    }
    return fake_leave(r);
}

/* Threads and shared memory alone: PTX has no number of registers. */
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                     size_t shared)
{
    CUresult r = fake_enter(FAKE_cuOccupancyMaxActiveBlocksPerMultiprocessor);
    const fake_function *f = r ? NULL : function_of(function);
    if (!r && (!f || threads <= 0 || !blocks))
        r = CUDA_ERROR_INVALID_VALUE;
    if (r)
        return fake_leave(r);
    size_t bytes = ptx_shared_bytes(f->kernel) + shared + 1024; /* the driver's own */
    int by_threads = FAKE_SM_THREADS / ((threads + 31) / 32 * 32);
    int by_shared = (int)(FAKE_SHARED_SM / bytes);
    *blocks = by_threads < by_shared ? by_threads : by_shared;
    if (*blocks > FAKE_SM_BLOCKS)
        *blocks = FAKE_SM_BLOCKS;
    if ((unsigned)threads > ptx_max_threads(f->kernel))
        *blocks = 0;
    return fake_leave(CUDA_SUCCESS);
}

/* ---- launches ---- */

static CUresult code_of(const char *err)
{
    if (strstr(err, "misaligned"))
        return CUDA_ERROR_MISALIGNED_ADDRESS;
    if (strstr(err, "out of bounds"))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    return CUDA_ERROR_LAUNCH_FAILED;
}

static ptx_watch_fn *watch;
static void *watch_arg;

void fake_watch(void (*fn)(void *, uint32_t, const uint64_t *, unsigned), void *arg)
{
    watch = fn;
    watch_arg = arg;
}

static CUresult launch_now(fake_op *op, ptx_kernel *k, const ptx_options *o)
{
    char err[800];
    if (ptx_launch(k, op->grid, op->block, op->shared, op->data, op->n_data, o, &fake.stats, err,
                   sizeof err))
        return CUDA_SUCCESS;
    return fake_wrong(code_of(err), "%s", err);
}

static CUresult run_kernel(fake_op *op)
{
    const fake_function *f = op->f;
    fake.count.kernels++;
    if (fake_hit(FAKE_kernel))
        return fake.fail_code;
    if (f->module->dead)
        return fake_wrong(CUDA_ERROR_LAUNCH_FAILED, "%s: its module was unloaded before it ran",
                          ptx_name(f->kernel));
    ptx_options options = {.seed = fake_random(),
                           .limit = fake.limit,
                           .race = fake.race,
                           .shuffle = true,
                           .watch = watch,
                           .watch_arg = watch_arg};
    const fake_image_text image = {f->module->image->text, f->module->image->sum};
    return fake_mutants_launch(op, launch_now, &options, &image);
}

static CUresult check_launch(const fake_function *f, const unsigned grid[3],
                             const unsigned block[3], size_t shared)
{
    const char *name = ptx_name(f->kernel);
    uint64_t threads = (uint64_t)block[0] * block[1] * block[2];
    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffff || grid[1] > 65535 ||
        grid[2] > 65535 || !threads || block[0] > 1024 || block[1] > 1024 || block[2] > 64 ||
        threads > FAKE_BLOCK_THREADS || threads > ptx_max_threads(f->kernel))
        return fake_wrong(CUDA_ERROR_INVALID_VALUE,
                          "%s: a grid of %ux%ux%u blocks of %ux%ux%u threads (at most %u)", name,
                          grid[0], grid[1], grid[2], block[0], block[1], block[2],
                          ptx_max_threads(f->kernel));
    if (shared > dynamic_max(f))
        return fake_wrong(CUDA_ERROR_INVALID_VALUE,
                          "%s: %zu bytes of dynamic shared memory; at most %zu", name, shared,
                          dynamic_max(f));
    return CUDA_SUCCESS;
}

/* The bytes of the parameters: one parameter's, or a buffer that extra names; NULL: neither. */
static const void *parameters_of(const fake_function *f, void **parameters, void **extra)
{
    if (!f->parameters)
        return "";
    if (parameters && !extra)
        return f->parameters == 1 ? parameters[0] : NULL;
    const void *buffer = NULL;
    size_t n = 0;
    for (; extra && !parameters && *extra; extra += 2) {
        if (*extra == (void *)1) /* CU_LAUNCH_PARAM_BUFFER_POINTER */
            buffer = extra[1];
        else if (*extra == (void *)2) /* CU_LAUNCH_PARAM_BUFFER_SIZE */
            n = *(const size_t *)extra[1];
        else
            return NULL;
    }
    return n == ptx_param_bytes(f->kernel) ? buffer : NULL;
}

static CUresult launch(CUfunction function, const unsigned grid[3], const unsigned block[3],
                       size_t shared, CUstream stream, void **parameters, void **extra)
{
    fake_function *f = function_of(function);
    fake_stream *s = fake_stream_of(stream);
    if (!f || !s)
        return fake_wrong(CUDA_ERROR_INVALID_HANDLE, "cuLaunchKernel: no %s of this context",
                          f ? "stream" : "function");
    CUresult r = check_launch(f, grid, block, shared);
    if (r)
        return r;
    const void *bytes = parameters_of(f, parameters, extra);
    if (!bytes)
        return fake_wrong(CUDA_ERROR_INVALID_VALUE,
                          "%s: parameters that do not fit (it has %d; one, or none, can be given)",
                          ptx_name(f->kernel), f->parameters);
    fake_op *op = fake_op_new(run_kernel, ptx_param_bytes(f->kernel));
    op->f = f;
    memcpy(op->grid, grid, sizeof op->grid);
    memcpy(op->block, block, sizeof op->block);
    op->shared = shared;
    memcpy(op->data, bytes, op->n_data);
    fake.count.launches++;
    return fake_push(s, op);
}

CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                        unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                        unsigned int block_z, unsigned int shared, CUstream stream,
                        void **parameters, void **extra)
{
    CUresult r = fake_enter(FAKE_cuLaunchKernel);
    const unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
    return fake_leave(r ? r : launch(function, grid, block, shared, stream, parameters, extra));
}

#ifdef CUDA_H
/* Of the attributes, a programmatic dependency alone, which a device may ignore. */
CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction function, void **parameters,
                          void **extra)
{
    CUresult r = fake_enter(FAKE_cuLaunchKernelEx);
    for (unsigned i = 0; !r && i < c->numAttrs; i++) {
        if (c->attrs[i].id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
            r = fake_wrong(CUDA_ERROR_INVALID_VALUE, "cuLaunchKernelEx: attribute %d has no row",
                           (int)c->attrs[i].id);
    }
    if (r)
        return fake_leave(r);
    const unsigned grid[3] = {c->gridDimX, c->gridDimY, c->gridDimZ};
    const unsigned block[3] = {c->blockDimX, c->blockDimY, c->blockDimZ};
    return fake_leave(
        launch(function, grid, block, c->sharedMemBytes, c->hStream, parameters, extra));
}
#endif

/* ---- coverage ---- */

/* Lines of "sum of the module's text, kernel, line of the text, times it ran, opcode". One write:
 * what processes append does not mix. */
void fake_cover(void)
{
    if (!fake.coverage || !*fake.coverage)
        return;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    for (const fake_image *i = images; f && i; i = i->next) {
        for (size_t k = 0; k < ptx_n_kernels(i->ptx); k++) {
            const ptx_kernel *kernel = ptx_kernel_at(i->ptx, k);
            for (size_t l = 0; l < ptx_n_lines(kernel); l++) {
                ptx_line line = ptx_line_at(kernel, l);
                fprintf(f, "%016llx\t%s\t%d\t%llu\t%s\n", (unsigned long long)i->sum,
                        ptx_name(kernel), line.line, (unsigned long long)line.executed,
                        line.opcode);
            }
        }
    }
    int file = open(fake.coverage, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    bool good = f && !fclose(f) && file >= 0 && write(file, text, n) == (ssize_t)n;
    if (file >= 0)
        close(file);
    free(text);
    if (!good)
        fprintf(stderr, "libcuda_fake: cannot write %s\n", fake.coverage);
}
