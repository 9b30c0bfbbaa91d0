/*
 * gpu: see gpu.h. The library is looked for by its name, or where CAPSTAN_LIBCUDA says; from there
 * on everything goes through the table in driver.h.
 */
#include "kernels/cuda/gpu.h"

#include "kernels/cuda/images.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LEAST_CAPABILITY = 80 };

/* ---- errors ---- */

/* The symbol of a call as it is spelled here, "memory_take(&at, n)". */
static const char *symbol_of(const char *call)
{
    static const struct call_name {
        const char *member, *symbol;
    } names[] = {
#define X(member, symbol, parameters) {#member, #symbol},
        CUDA_DRIVER(X)
#undef X
    };
    size_t n = strcspn(call, "(");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strlen(names[i].member) == n && strncmp(names[i].member, call, n) == 0)
            return names[i].symbol;
    return call;
}

cp_code cp_cuda_check(const cuda_gpu *gpu, CUresult result, const char *call, cp_err *err)
{
    if (result == CUDA_SUCCESS)
        return CP_OK;
    const char *name = NULL, *text = NULL;
    gpu->api.error_name(result, &name);
    gpu->api.error_string(result, &text);
    cp_code code = result == CUDA_ERROR_OUT_OF_MEMORY ? CP_NO_MEMORY : CP_DEVICE_FAILED;
    char device[24] = "";
    if (gpu->ordinal >= 0)
        cp_snprintf(device, sizeof(device), "cuda:%d: ", gpu->ordinal);
    return cp_fail(err, code, "%s%s: %s (%s)", device, symbol_of(call),
                   name ? name : "unknown error", text ? text : "no text");
}

cp_code cp_cuda_enter(const cuda_gpu *gpu, cp_err *err)
{
    CUDA_TRY(gpu, context_set(gpu->context), err);
    return CP_OK;
}

/* ---- the library ---- */

static cp_code open_library(cuda_gpu *gpu, cp_err *err)
{
    const char *named = getenv("CAPSTAN_LIBCUDA"), *path = named && *named ? named : "libcuda.so.1";
    if (path == named)
        cp_log(CP_LOG_WARN, "cuda: the driver is %s, as CAPSTAN_LIBCUDA says", path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        return cp_fail(err, CP_UNSUPPORTED, "no NVIDIA driver: %s", why ? why : path);
    }
    if (!dlsym(library, "cuInit"))
        return cp_fail(err, CP_UNSUPPORTED, "no NVIDIA driver: %s has no cuInit", path);
#define X(member, symbol, parameters)                                                              \
    if (!(gpu->api.member = (cuda_##member##_fn *)(uintptr_t)dlsym(library, #symbol)))             \
        return cp_fail(err, CP_UNSUPPORTED,                                                        \
                       "%s has no " #symbol ": the NVIDIA driver is too old; wanted: one of CUDA " \
                       "%s or newer",                                                              \
                       path, cp_cuda_version);
    CUDA_DRIVER(X)
#undef X
    return CP_OK;
}

/* What hides devices from a process, if it is set. */
static cp_code hidden(cp_code rc, cp_err *err)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!visible || !err)
        return rc;
    cp_err why = *err;
    return cp_fail(err, rc, "%s; CUDA_VISIBLE_DEVICES is '%s'", why.msg, visible);
}

static cp_code no_devices(cp_err *err)
{
    return hidden(cp_fail(err, CP_UNSUPPORTED, "the NVIDIA driver finds no device"), err);
}

static cp_code start_driver(cuda_gpu *gpu, int *n_devices, cp_err *err)
{
    CUresult result = gpu->api.init(0);
    if (result == CUDA_ERROR_NO_DEVICE)
        return no_devices(err);
    cp_code rc = cp_cuda_check(gpu, result, "init", err);
    if (rc != CP_OK)
        return rc;
    CUDA_TRY(gpu, driver_version(&gpu->driver), err);
    CUDA_TRY(gpu, device_count(n_devices), err);
    return *n_devices > 0 ? CP_OK : no_devices(err);
}

/* ---- which device ---- */

static void write_uuid(char *out, size_t n, const CUuuid *uuid)
{
    size_t at = 0;
    for (int i = 0; i < 16; i++)
        at += cp_snprintf(out + at, n - at, "%s%02x",
                          i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                          (unsigned)(unsigned char)uuid->bytes[i]);
}

static cp_code describe(cuda_gpu *gpu, int ordinal, cp_err *err)
{
    int major = 0, minor = 0;
    size_t total = 0;
    CUuuid uuid;
    gpu->ordinal = ordinal;
    CUDA_TRY(gpu, device(&gpu->device, ordinal), err);
    CUDA_TRY(gpu, device_name(gpu->name, sizeof(gpu->name) - 1, gpu->device), err);
    CUDA_TRY(gpu, device_uuid(&uuid, gpu->device), err);
    CUDA_TRY(gpu, device_memory(&total, gpu->device), err);
#define GET(to, attribute)                                                                         \
    CUDA_TRY(gpu, device_attribute(to, CU_DEVICE_ATTRIBUTE_##attribute, gpu->device), err)
    GET(&major, COMPUTE_CAPABILITY_MAJOR);
    GET(&minor, COMPUTE_CAPABILITY_MINOR);
    GET(&gpu->multiprocessors, MULTIPROCESSOR_COUNT);
    GET(&gpu->shared_bytes, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
#undef GET
    gpu->total = total;
    gpu->capability = 10 * major + minor;
    write_uuid(gpu->uuid, sizeof(gpu->uuid), &uuid);
    cp_snprintf(gpu->level, sizeof(gpu->level), "sm_%d", gpu->capability);
    return CP_OK;
}

/* What a configuration may name: a kind of device, one of them, or a UUID. */
typedef struct wish {
    int ordinal;      /* -1: any that will do */
    const char *uuid; /* without "GPU-" or "MIG-"; NULL: none */
} wish;

static cp_code read_wish(wish *w, const char *device, cp_err *err)
{
    *w = (wish){.ordinal = -1};
    if (!device || strcmp(device, "cuda") == 0)
        return CP_OK;
    if (strncmp(device, "GPU-", 4) == 0 || strncmp(device, "MIG-", 4) == 0) {
        w->uuid = device + 4;
        return CP_OK;
    }
    const char *digits = device + strcspn(device, ":");
    digits += *digits == ':';
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 4 || digits[n])
        return cp_fail(err, CP_USAGE, "device %s: wanted: cuda, cuda:N or a device's UUID", device);
    w->ordinal = (int)strtol(digits, NULL, 10);
    return CP_OK;
}

static cp_code too_old(const char *passed, cp_err *err)
{
    return cp_fail(err, CP_UNSUPPORTED,
                   "kernels need compute capability %d.%d or more; there is: %s",
                   LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10, passed);
}

static cp_code no_device(const wish *w, int n_devices, const char *passed, cp_err *err)
{
    if (w->uuid)
        return hidden(cp_fail(err, CP_UNSUPPORTED, "no device has the UUID %s; there are: %s",
                              w->uuid, passed),
                      err);
    if (w->ordinal >= n_devices)
        return hidden(cp_fail(err, CP_UNSUPPORTED, "there is no device cuda:%d; the driver has %d",
                              w->ordinal, n_devices),
                      err);
    return too_old(passed, err);
}

static cp_code choose(cuda_gpu *gpu, const wish *w, int n_devices, cp_err *err)
{
    char passed[256] = "";
    size_t at = 0;
    for (int i = 0; i < n_devices; i++) {
        if (w->ordinal >= 0 && w->ordinal != i)
            continue;
        cp_code rc = describe(gpu, i, err);
        if (rc != CP_OK)
            return rc;
        bool right = !w->uuid || strcasecmp(w->uuid, gpu->uuid) == 0;
        if (right && gpu->capability >= LEAST_CAPABILITY)
            return CP_OK;
        bool meant = right && w->uuid; /* and no other */
        at = meant ? 0 : at;
        if (at < sizeof(passed))
            at += cp_snprintf(passed + at, sizeof(passed) - at, "%scuda:%d (%s, %s, GPU-%s)",
                              at ? ", " : "", i, gpu->name, gpu->level, gpu->uuid);
        if (meant)
            return too_old(passed, err);
    }
    return no_device(w, n_devices, passed, err);
}

/* ---- memory ---- */

/* Bytes of the budget that n bytes are: what the driver deals in. */
static uint64_t rounded(size_t n)
{
    return ((uint64_t)n + CUDA_MEMORY_ALIGN - 1) / CUDA_MEMORY_ALIGN * CUDA_MEMORY_ALIGN;
}

static cp_code count_taken(cuda_gpu *gpu, size_t n, cp_err *err)
{
    uint64_t taken = atomic_load(&gpu->taken);
    do {
        uint64_t left = gpu->cap > taken ? gpu->cap - taken : 0;
        if (n > left || rounded(n) > left)
            return cp_fail(err, CP_NO_MEMORY,
                           "%zu bytes cannot be had: of the %.1f MiB that cuda:%d gives "
                           "(--device-bytes) %.1f MiB are taken",
                           n, (double)gpu->cap / 1048576.0, gpu->ordinal,
                           (double)taken / 1048576.0);
    } while (!atomic_compare_exchange_weak(&gpu->taken, &taken, taken + rounded(n)));
    return CP_OK;
}

static cp_code fill_zero(cuda_gpu *gpu, CUdeviceptr at, size_t n, cp_err *err)
{
    CUDA_TRY(gpu, fill(at, 0, n, gpu->copies), err);
    CUDA_TRY(gpu, stream_wait(gpu->copies), err);
    return CP_OK;
}

cp_code cp_cuda_take(cuda_gpu *gpu, cp_mem *m, size_t n, bool zeroed, cp_err *err)
{
    CUdeviceptr at = 0;
    cp_code rc = count_taken(gpu, n, err);
    if (rc != CP_OK)
        return rc;
    rc = cp_cuda_check(gpu, gpu->api.memory_take(&at, n), "memory_take", err);
    if (rc != CP_OK) {
        atomic_fetch_sub(&gpu->taken, rounded(n));
        return rc == CP_NO_MEMORY ? cp_err_prefix(err, "%zu bytes cannot be had", n) : rc;
    }
    *m = (cp_mem){.at = at, .bytes = n};
    if (zeroed && (rc = fill_zero(gpu, at, n, err)) != CP_OK)
        cp_cuda_give(gpu, m);
    return rc;
}

void cp_cuda_give(cuda_gpu *gpu, cp_mem *m)
{
    gpu->api.memory_give(m->at);
    atomic_fetch_sub(&gpu->taken, rounded(m->bytes));
    *m = (cp_mem){0};
}

cp_code cp_cuda_pinned_take(cuda_gpu *gpu, void **p, size_t n, cp_err *err)
{
    cp_code rc = cp_cuda_check(gpu, gpu->api.pinned_take(p, n, 0), "pinned_take", err);
    return rc == CP_NO_MEMORY ? cp_err_prefix(err, "%zu bytes of pinned memory", n) : rc;
}

void cp_cuda_pinned_give(cuda_gpu *gpu, void *p)
{
    if (p)
        gpu->api.pinned_give(p);
}

cp_code cp_cuda_copy_in(cuda_gpu *gpu, cp_addr to, const void *from, size_t n, cp_err *err)
{
    CUDA_TRY(gpu, copy_in(to, from, n, gpu->copies), err);
    CUDA_TRY(gpu, stream_wait(gpu->copies), err);
    return CP_OK;
}

cp_code cp_cuda_copy_out(cuda_gpu *gpu, void *to, cp_addr from, size_t n, cp_err *err)
{
    CUDA_TRY(gpu, copy_out(to, from, n, gpu->copies), err);
    CUDA_TRY(gpu, stream_wait(gpu->copies), err);
    return CP_OK;
}

/* ---- streams ---- */

static cp_code open_stream(cuda_gpu *gpu, cuda_stream *s, cp_err *err)
{
    CUDA_TRY(gpu, stream_new(&s->stream, CU_STREAM_NON_BLOCKING), err);
    CUDA_TRY(gpu, event_new(&s->done, CU_EVENT_DISABLE_TIMING), err);
    return CP_OK;
}

cp_code cp_cuda_stream_new(cuda_gpu *gpu, cuda_stream **out, cp_err *err)
{
    cuda_stream *s = cp_xcalloc(1, sizeof(*s));
    cp_code rc = open_stream(gpu, s, err);
    if (rc == CP_OK)
        *out = s;
    else
        cp_cuda_stream_free(gpu, s);
    return rc;
}

void cp_cuda_stream_free(cuda_gpu *gpu, cuda_stream *s)
{
    if (!s)
        return;
    if (s->done)
        gpu->api.event_free(s->done);
    if (s->stream)
        gpu->api.stream_free(s->stream);
    free(s);
}

cp_code cp_cuda_stream_mark(cuda_gpu *gpu, cuda_stream *s, cp_err *err)
{
    CUDA_TRY(gpu, event_record(s->done, s->stream), err);
    return CP_OK;
}

/* A nap is a share of what was waited, so that it adds no more than that to a step; one that is
 * shorter than the system's own slack is none. */
cuda_patience cp_cuda_patience(int64_t waited_ns)
{
    static const int64_t share = 64, least = 50000, most = 5000000, hangs = 120000000000;
    int64_t nap = waited_ns / share;
    nap = nap < most ? nap : most;
    return (cuda_patience){.nap_ns = nap < least ? 0 : nap, .beats = waited_ns < hangs};
}

/* The driver's own wait would tell nobody that the device is at work. */
cp_code cp_cuda_stream_await(cuda_gpu *gpu, cuda_stream *s, _Atomic int64_t *beat, cp_err *err)
{
    int64_t start = cp_now_ns();
    CUresult result;
    for (bool said = false; (result = gpu->api.event_query(s->done)) == CUDA_ERROR_NOT_READY;) {
        int64_t now = cp_now_ns();
        cuda_patience patience = cp_cuda_patience(now - start);
        if (patience.beats && beat)
            atomic_store_explicit(beat, now, memory_order_relaxed); /* it orders nothing */
        if (!patience.beats && !said)
            cp_log(CP_LOG_ERROR, "cuda:%d: a step has not ended after %d s: the device hangs",
                   gpu->ordinal, (int)((now - start) / 1000000000));
        said = !patience.beats;
        struct timespec nap = {.tv_nsec = (long)patience.nap_ns};
        if (patience.nap_ns)
            nanosleep(&nap, NULL);
    }
    return cp_cuda_check(gpu, result, "event_query", err);
}

cp_code cp_cuda_stream_drain(cuda_gpu *gpu, cuda_stream *s, cp_err *err)
{
    CUDA_TRY(gpu, stream_wait(s->stream), err);
    return CP_OK;
}

/* ---- kernels ---- */

/* Whether the PTX of a row of the table has it. */
static bool has_entry(const cuda_image *image, const char *name)
{
    char entry[CUDA_NAME + 16];
    cp_snprintf(entry, sizeof(entry), ".entry %s(", name);
    return image->sm == 0 && strstr(image->bytes, entry) != NULL;
}

static cp_code refused(const cuda_gpu *gpu, CUresult result, const cuda_image *image,
                       const char *log, cp_err *err)
{
    cp_code rc = cp_cuda_check(gpu, result, "module_load", err);
    if (result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION || result == CUDA_ERROR_NO_BINARY_FOR_GPU)
        return cp_fail(err, CP_UNSUPPORTED,
                       "cuda:%d (%s, %s): the NVIDIA driver, of CUDA %d.%d, is too old for the "
                       "kernels of this build; wanted: one of CUDA %s or newer",
                       gpu->ordinal, gpu->name, gpu->level, gpu->driver / 1000,
                       gpu->driver % 1000 / 10, cp_cuda_version);
    return *log ? cp_fail(err, rc, "kernels %s: %.300s", image->name, log)
                : cp_err_prefix(err, "kernels %s", image->name);
}

/* The machine code, of those behind an image's PTX, that fits the device best; NULL: none does. */
static const cuda_image *cubin_of(const cuda_gpu *gpu, const cuda_image *ptx)
{
    const cuda_image *best = NULL;
    for (const cuda_image *i = ptx + 1; i->name && strcmp(i->name, ptx->name) == 0; i++)
        if (i->sm / 10 == gpu->capability / 10 && i->sm <= gpu->capability)
            best = i;
    return best;
}

/* A driver that does not take the machine code may still compile the PTX. */
static cp_code load(const cuda_gpu *gpu, const cuda_image *ptx, CUmodule *module, cp_err *err)
{
    char log[512] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)(sizeof(log) - 1)};
    const cuda_image *cubin = cubin_of(gpu, ptx);
    if (cubin && gpu->api.module_load(module, cubin->bytes, 0, NULL, NULL) == CUDA_SUCCESS)
        return CP_OK;
    CUresult result = gpu->api.module_load(module, ptx->bytes, 2, options, values);
    return result == CUDA_SUCCESS ? CP_OK : refused(gpu, result, ptx, log, err);
}

/* The module of an image; with the lock. */
static cp_code module_of(cuda_gpu *gpu, int image, CUmodule *module, cp_err *err)
{
    for (int i = 0; i < gpu->n_modules; i++)
        if (gpu->modules[i].image == image) {
            *module = gpu->modules[i].module;
            return CP_OK;
        }
    CP_ASSERT(gpu->n_modules < CUDA_MODULES);
    cp_code rc = load(gpu, &cp_cuda_images[image], module, err);
    if (rc == CP_OK)
        gpu->modules[gpu->n_modules++] = (cuda_module){*module, image};
    return rc;
}

/* An image that has it is looked for; with the lock. */
static cp_code find_function(cuda_gpu *gpu, const char *name, cuda_kernel *out, cp_err *err)
{
    int image = 0;
    CUmodule module = NULL;
    while (cp_cuda_images[image].name && !has_entry(&cp_cuda_images[image], name))
        image++;
    if (!cp_cuda_images[image].name)
        return cp_fail(err, CP_UNSUPPORTED, "this build has no kernel %s", name);
    cp_code rc = module_of(gpu, image, &module, err);
    if (rc != CP_OK)
        return rc;
    CUDA_TRY(gpu, module_function(out, module, name), err);
    if (gpu->n_known < CUDA_FUNCTIONS) {
        cuda_known *k = &gpu->known[gpu->n_known++];
        cp_strcopy(k->name, sizeof(k->name), name);
        k->function = *out;
    }
    return CP_OK;
}

cp_code cp_cuda_function(cuda_gpu *gpu, const char *name, cuda_kernel *out, cp_err *err)
{
    CP_ASSERT(strlen(name) < CUDA_NAME);
    pthread_mutex_lock(&gpu->lock);
    int i = 0;
    while (i < gpu->n_known && strcmp(gpu->known[i].name, name) != 0)
        i++;
    cp_code rc = CP_OK;
    if (i < gpu->n_known)
        *out = gpu->known[i].function;
    else
        rc = find_function(gpu, name, out, err);
    pthread_mutex_unlock(&gpu->lock);
    return rc;
}

/* ---- open, close ---- */

static cp_code set_budget(cuda_gpu *gpu, uint64_t budget, cp_err *err)
{
    size_t available = 0, total = 0;
    CUDA_TRY(gpu, memory_info(&available, &total), err);
    if (budget > total)
        return cp_fail(err, CP_UNSUPPORTED, "--device-bytes is %.1f MiB, and cuda:%d has %.1f MiB",
                       (double)budget / 1048576.0, gpu->ordinal, (double)total / 1048576.0);
    gpu->cap = budget ? budget : (uint64_t)available / 10 * 9;
    return CP_OK;
}

/* An image is loaded at once: whether the driver takes the kernels of this build is to be known
 * before anything is put on the device. */
static cp_code try_kernels(cuda_gpu *gpu, cp_err *err)
{
    CUmodule module;
    if (!cp_cuda_images[0].name)
        return cp_fail(err, CP_UNSUPPORTED, "this build has no kernels");
    return module_of(gpu, 0, &module, err);
}

static cp_code open_device(cuda_gpu *gpu, const wish *w, uint64_t budget, cp_err *err)
{
    int n_devices = 0;
    cp_code rc = open_library(gpu, err);
    if (rc == CP_OK)
        rc = start_driver(gpu, &n_devices, err);
    if (rc == CP_OK)
        rc = choose(gpu, w, n_devices, err);
    if (rc != CP_OK)
        return rc;
    CUDA_TRY(gpu, context_retain(&gpu->context, gpu->device), err);
    CUDA_TRY(gpu, context_set(gpu->context), err);
    rc = set_budget(gpu, budget, err);
    if (rc != CP_OK)
        return rc;
    CUDA_TRY(gpu, stream_new(&gpu->copies, CU_STREAM_NON_BLOCKING), err);
    return try_kernels(gpu, err);
}

cp_code cp_cuda_gpu_open(cuda_gpu **out, const char *device, uint64_t budget, cp_err *err)
{
    wish w;
    cp_code rc = read_wish(&w, device, err);
    if (rc != CP_OK)
        return rc;
    cuda_gpu *gpu = cp_xcalloc(1, sizeof(*gpu));
    gpu->ordinal = -1; /* none is chosen yet */
    pthread_mutex_init(&gpu->lock, NULL);
    pthread_mutex_init(&gpu->sizes, NULL);
    rc = open_device(gpu, &w, budget, err);
    if (rc == CP_OK)
        *out = gpu;
    else
        cp_cuda_gpu_close(gpu);
    return rc;
}

/* Whatever the device says: it may have failed long ago. The library stays where it is: the driver
 * may have threads of its own in it. */
void cp_cuda_gpu_close(cuda_gpu *gpu)
{
    if (!gpu)
        return;
    if (gpu->context) {
        gpu->api.context_set(gpu->context);
        for (int i = 0; i < gpu->n_modules; i++)
            gpu->api.module_unload(gpu->modules[i].module);
        if (gpu->copies)
            gpu->api.stream_free(gpu->copies);
        gpu->api.context_set(NULL);
        gpu->api.context_release(gpu->device);
    }
    pthread_mutex_destroy(&gpu->lock);
    pthread_mutex_destroy(&gpu->sizes);
    free(gpu);
}
