/*
 * Memory of the device and pinned memory. Addresses are never used twice, so that what is freed is
 * known for good; what stands in new memory is 0xff, which is no number, no index and no pointer.
 */
#include "tests/fakes/libcuda/fake.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { POISON = 0xff, POISON_BYTES = 2 << 20 };
/* Behind a range are no others. Kernels that are code of the host (tests/fibers) need its
 * addresses, between which there are no gaps. */
#ifdef FAKE_HOST_ADDRESSES
enum { GAP = 0, HOST_ADDRESSES = 1 };
#else
enum { GAP = 4096, HOST_ADDRESSES = 0 };
#endif

/* Large ranges are views of one small file, of which a page is copied when it is written. */
static bool poison_views(unsigned char *at, size_t n)
{
    static int file = -1;
    if (file < 0) {
        file = memfd_create("poison", MFD_CLOEXEC);
        if (file < 0 || ftruncate(file, POISON_BYTES))
            return false;
        unsigned char *p = mmap(NULL, POISON_BYTES, PROT_WRITE, MAP_SHARED, file, 0);
        if (p == MAP_FAILED)
            return false;
        memset(p, POISON, POISON_BYTES);
        munmap(p, POISON_BYTES);
    }
    for (size_t done = 0; done < n; done += POISON_BYTES) {
        size_t part = n - done < POISON_BYTES ? n - done : POISON_BYTES;
        if (mmap(at + done, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0) ==
            MAP_FAILED)
            return false;
    }
    return true;
}

static fake_memory_range *pinned_ranges;

static fake_memory_range *range_new(size_t n, bool pinned)
{
    size_t mapped = (n + 4095) & ~(size_t)4095;
    unsigned char *host = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (host == MAP_FAILED)
        return NULL;
    if (n >= 2 * POISON_BYTES ? !poison_views(host, mapped) : !memset(host, POISON, mapped)) {
        munmap(host, mapped);
        return NULL;
    }
    fake_memory_range *m = fake_new(sizeof *m);
    m->device = fake_here();
    m->host = host;
    m->n = n;
    m->mapped = mapped;
    m->pinned = pinned;
    m->next = fake.ranges;
    fake.ranges = m;
    if (pinned) {
        m->pinned_next = pinned_ranges;
        pinned_ranges = m;
    }
    return m;
}

static void range_end(fake_memory_range *m)
{
    for (fake_memory_range **p = &pinned_ranges; *p; p = &(*p)->pinned_next) {
        if (*p == m) {
            *p = m->pinned_next;
            break;
        }
    }
    if (m->address)
        ptx_memory_remove(m->address);
    munmap(m->host, m->mapped);
    m->host = NULL;
}

/* Multiples of 256, as is promised, and of no more. */
static bool range_map(fake_memory_range *m)
{
    uint64_t at = (fake.next_address + 511) / 512 * 512 + 256;
    if (HOST_ADDRESSES)
        at = (uintptr_t)m->host;
    if (!ptx_memory_add(at, m->host, m->n))
        return false;
    m->address = at;
    fake.next_address = at + m->n + GAP;
    return true;
}

uint64_t fake_leaked_ranges(bool pinned)
{
    uint64_t n = 0;
    for (const fake_memory_range *m = fake.ranges; m; m = m->next)
        n += m->host && m->pinned == pinned;
    return n;
}

fake_memory_range *fake_range_of_host(const void *host, size_t n, bool *partly)
{
    uintptr_t at = (uintptr_t)host;
    *partly = false;
    for (fake_memory_range *m = pinned_ranges; m; m = m->pinned_next) {
        uintptr_t first = (uintptr_t)m->host, end = first + m->n;
        if (at >= end || at + n <= first)
            continue;
        if (at >= first && n <= end - at)
            return m;
        *partly = true;
    }
    return NULL;
}

void *fake_bytes(CUdeviceptr at, size_t n, const char *what)
{
    for (const fake_memory_range *m = fake.ranges; m; m = m->next) {
        if (!m->address || at < m->address || at - m->address >= m->n + GAP)
            continue;
        uint64_t off = at - m->address;
        if (m->host && off <= m->n && n <= m->n - off)
            return m->host + off;
        fake_wrong(CUDA_SUCCESS, "%s: %zu bytes from byte %llu of an allocation of %zu%s", what, n,
                   (unsigned long long)off, m->n, m->host ? "" : ", which was freed");
        return NULL;
    }
    fake_wrong(CUDA_SUCCESS, "%s: %zu bytes at %#llx, which is no device memory", what, n,
               (unsigned long long)at);
    return NULL;
}

/* ---- calls ---- */

static void add_peak(uint64_t *now, uint64_t *peak, size_t n)
{
    *now += n;
    if (*now > *peak)
        *peak = *now;
}

static size_t taken(size_t n)
{
    return (n + 511) / 512 * 512;
}

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t n)
{
    CUresult r = fake_enter(FAKE_cuMemAlloc_v2);
    if (!r && (!out || !n))
        r = CUDA_ERROR_INVALID_VALUE;
    if (r)
        return fake_leave(r);
    fake_device *d = fake_here();
    if (n > fake.memory || taken(n) > fake.memory - d->used)
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    fake_memory_range *m = range_new(n, false);
    if (!m || !range_map(m)) {
        if (m)
            range_end(m);
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    d->used += taken(n);
    add_peak(&fake.count.memory, &fake.count.memory_peak, taken(n));
    *out = m->address;
    return fake_leave(CUDA_SUCCESS);
}

/* The real one waits for the device; nobody promises that, and this one does not. */
CUresult cuMemFree_v2(CUdeviceptr at)
{
    CUresult r = fake_enter(FAKE_cuMemFree_v2);
    if (r || !at)
        return fake_leave(r);
    for (fake_memory_range *m = fake.ranges; m; m = m->next) {
        if (m->pinned || !m->host || m->address != at)
            continue;
        if (fake_in_use(m, NULL))
            fake_wrong(CUDA_SUCCESS, "cuMemFree: work in a stream uses the memory");
        range_end(m);
        m->device->used -= taken(m->n);
        fake.count.memory -= taken(m->n);
        return fake_leave(CUDA_SUCCESS);
    }
    return fake_leave(fake_wrong(CUDA_ERROR_INVALID_VALUE, "cuMemFree: %#llx is no allocation",
                                 (unsigned long long)at));
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    CUresult r = fake_enter(FAKE_cuMemGetInfo_v2);
    if (!r) {
        *available = fake.memory - fake_here()->used;
        *total = fake.memory;
    }
    return fake_leave(r);
}

CUresult cuMemHostAlloc(void **out, size_t n, unsigned int flags)
{
    CUresult r = fake_enter(FAKE_cuMemHostAlloc);
    if (!r && (!out || !n || flags > 7))
        r = CUDA_ERROR_INVALID_VALUE;
    if (r)
        return fake_leave(r);
    fake_memory_range *m = range_new(n, true);
    if (!m)
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    add_peak(&fake.count.pinned, &fake.count.pinned_peak, n);
    *out = m->host;
    return fake_leave(CUDA_SUCCESS);
}

CUresult cuMemFreeHost(void *host)
{
    CUresult r = fake_enter(FAKE_cuMemFreeHost);
    if (r)
        return fake_leave(r);
    bool partly;
    fake_memory_range *m = fake_range_of_host(host, 1, &partly);
    if (!m || m->host != host)
        return fake_leave(
            fake_wrong(CUDA_ERROR_INVALID_VALUE, "cuMemFreeHost: %p is no pinned memory", host));
    if (fake_in_use(m, NULL))
        fake_wrong(CUDA_SUCCESS, "cuMemFreeHost: work in a stream uses the memory");
    fake.count.pinned -= m->n;
    range_end(m);
    return fake_leave(CUDA_SUCCESS);
}

/* A kernel's address of pinned memory; not the host's, as it may be with a real driver. */
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *host, unsigned int flags)
{
    CUresult r = fake_enter(FAKE_cuMemHostGetDevicePointer_v2);
    if (r)
        return fake_leave(r);
    bool partly;
    fake_memory_range *m = fake_range_of_host(host, 1, &partly);
    if (!out || flags || !m || (!m->address && !range_map(m)))
        return fake_leave(fake_wrong(CUDA_ERROR_INVALID_VALUE,
                                     "cuMemHostGetDevicePointer: %p is no pinned memory", host));
    *out = m->address + (uint64_t)((unsigned char *)host - m->host);
    return fake_leave(CUDA_SUCCESS);
}
