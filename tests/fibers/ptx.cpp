/*
 * ptx: the functions of tests/ptxvm/ptxvm.h over fibers. Of a module's PTX only the names of its
 * kernels and the sizes of their parameters are read; what runs is the function of that name in
 * libfiber_kernels, which g++ made of the same sources. The fake driver that is linked with this
 * instead of the machine gives out addresses of the host.
 */
#include "tests/fibers/launch.cuh"

extern "C" {
#include "tests/ptxvm/ptxvm.h"
}

#include <dlfcn.h>
#include <string>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(at, n)   ((void)0)
#define __asan_unpoison_memory_region(at, n) ((void)0)
#endif

extern "C" void fibers_shared(char **first, char **end); /* of libfiber_kernels */

struct ptx_kernel {
    std::string name;
    size_t n_params;
    unsigned max_threads;
    void *function;
};
struct ptx_module {
    std::vector<ptx_kernel> kernels;
};
struct range {
    uint64_t at;
    size_t n;
};
static std::vector<range> ranges;

/* A structure of 8 N bytes by value. Up to 16 bytes go in registers of integers, so those are
 * refused below. */
template <size_t N> static void call_with(void *function, const void *params)
{
    struct arguments {
        uint64_t word[N];
    };
    ((void (*)(arguments))function)(*(const arguments *)params);
}
enum { MAX_WORDS = 512 }; /* 4 KiB, as CUDA has it */
template <size_t... N> static auto call_of(size_t words, std::index_sequence<N...>)
{
    static void (*const calls[])(void *, const void *) = {call_with<N + 1>...};
    return calls[words - 1];
}

/* The number behind the first `word` of text before end; or none. */
static unsigned long number(const char *text, const char *end, const char *word, unsigned long none)
{
    const char *at = strstr(text, word);
    return at && at < end ? strtoul(at + strlen(word), NULL, 10) : none;
}

/* From the library of kernels that this one was linked with. */
static void *function_of(const char *name)
{
    static void *library;
    Dl_info info;
    if (!library && dladdr((void *)fibers_shared, &info))
        library = dlopen(info.dli_fname, RTLD_LAZY);
    return library ? dlsym(library, name) : NULL;
}

bool ptx_load(ptx_module **out, const char *text, char *err, size_t n_err)
{
    ptx_module *m = new ptx_module;
    for (const char *at = text; (at = strstr(at, ".entry "));) {
        at += 7;
        std::string name(at, strcspn(at, "( \n"));
        const char *body = strchr(at, '{');
        ptx_kernel k = {name, number(at, body, "_param_0[", 0),
                        (unsigned)number(at, body, ".maxntid ", 1024), function_of(name.c_str())};
        if (!k.function || k.n_params <= 16 || k.n_params % 8 || k.n_params / 8 > MAX_WORDS) {
            snprintf(err, n_err, "fibers: kernel %s with %zu bytes of parameters: %s", name.c_str(),
                     k.n_params, k.function ? "wanted are words, more than two" : "not built");
            delete m;
            return false;
        }
        m->kernels.push_back(k);
    }
    *out = m;
    return true;
}

void ptx_unload(ptx_module *m)
{
    delete m;
}

ptx_kernel *ptx_find(ptx_module *m, const char *name)
{
    for (ptx_kernel &k : m->kernels)
        if (k.name == name)
            return &k;
    return NULL;
}

size_t ptx_n_kernels(const ptx_module *m)
{
    return m->kernels.size();
}

ptx_kernel *ptx_kernel_at(ptx_module *m, size_t n)
{
    return &m->kernels[n];
}

const char *ptx_name(const ptx_kernel *k)
{
    return k->name.c_str();
}

size_t ptx_param_bytes(const ptx_kernel *k)
{
    return k->n_params;
}

unsigned ptx_max_threads(const ptx_kernel *k)
{
    return k->max_threads;
}

/* What only the machine knows. */
size_t ptx_shared_bytes(const ptx_kernel *)
{
    return 0;
}

size_t ptx_local_bytes(const ptx_kernel *)
{
    return 0;
}

size_t ptx_n_lines(const ptx_kernel *)
{
    return 0;
}

ptx_line ptx_line_at(const ptx_kernel *, size_t)
{
    return {};
}

/* Bytes behind a range up to its page's end are not to be touched. */
static size_t rest_of_page(size_t n)
{
    return (4096 - n % 4096) % 4096;
}

bool ptx_memory_add(uint64_t device, void *host, size_t n)
{
    if (device != (uintptr_t)host)
        return false;
    __asan_poison_memory_region((char *)host + n, rest_of_page(n));
    ranges.push_back({device, n});
    return true;
}

void ptx_memory_remove(uint64_t device)
{
    for (size_t i = 0; i < ranges.size(); i++)
        if (ranges[i].at == device) {
            __asan_unpoison_memory_region((char *)device + ranges[i].n, rest_of_page(ranges[i].n));
            ranges.erase(ranges.begin() + (long)i);
            return;
        }
}

void *ptx_memory_host(uint64_t device, size_t n)
{
    for (const range &r : ranges)
        if (device >= r.at && n <= r.n && device - r.at <= r.n - n)
            return (void *)device;
    return NULL;
}

bool ptx_launch(ptx_kernel *k, const unsigned grid[3], const unsigned block[3], size_t shared,
                const void *params, size_t n_params, const ptx_options *o, ptx_stats *s, char *err,
                size_t n_err)
{
    fibers_launch l = {};
    l.name = k->name.c_str();
    l.function = k->function;
    l.call = call_of(n_params / 8, std::make_index_sequence<MAX_WORDS>());
    l.params = params;
    l.grid = {grid[0], grid[1], grid[2]};
    l.block = {block[0], block[1], block[2]};
    l.shared = shared;
    l.seed = o ? o->seed : 0;
    fibers_shared(&l.shared_first, &l.shared_end);
    if (s)
        s->blocks += (uint64_t)grid[0] * grid[1] * grid[2];
    return fibers_run(&l, err, n_err);
}
