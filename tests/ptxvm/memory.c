/* The ranges of device memory that are alive, and the lock of the machine. */
#include "tests/ptxvm/run.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ptx_range *ranges; /* ascending */
static size_t n_ranges, cap_ranges;

void ptx_memory_lock(void)
{
    pthread_mutex_lock(&lock);
}

void ptx_memory_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* The first range that ends behind the address. */
static size_t first_behind(uint64_t address)
{
    size_t low = 0, high = n_ranges;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (ranges[mid].end <= address)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

ptx_range *ptx_range_of(uint64_t first, uint64_t end)
{
    size_t at = first_behind(first);
    bool inside = at < n_ranges && first >= ranges[at].device && end <= ranges[at].end;
    return inside && first <= end ? &ranges[at] : NULL;
}

uint64_t ptx_range_gap(uint64_t address)
{
    size_t at = first_behind(address);
    return at > 0 ? address - ranges[at - 1].end : UINT64_MAX;
}

bool ptx_memory_add(uint64_t device, void *host, size_t n)
{
    const uint64_t top = (uint64_t)1 << 56;
    if (n == 0 || device >= top || n > top - device)
        return false;
    ptx_memory_lock();
    size_t at = first_behind(device);
    bool fits = at == n_ranges || ranges[at].device >= device + n;
    if (fits) {
        ranges = ptx_more(ranges, &cap_ranges, n_ranges, sizeof *ranges);
        memmove(&ranges[at + 1], &ranges[at], (n_ranges - at) * sizeof *ranges);
        ranges[at] = (ptx_range){device, device + n, host, NULL};
        n_ranges++;
    }
    ptx_memory_unlock();
    return fits;
}

void ptx_memory_remove(uint64_t device)
{
    ptx_memory_lock();
    size_t at = first_behind(device);
    if (at < n_ranges && ranges[at].device == device) {
        free(ranges[at].chunks);
        n_ranges--;
        memmove(&ranges[at], &ranges[at + 1], (n_ranges - at) * sizeof *ranges);
        if (n_ranges == 0) {
            free(ranges);
            ranges = NULL;
            cap_ranges = 0;
        }
    }
    ptx_memory_unlock();
}

void *ptx_memory_host(uint64_t device, size_t n)
{
    ptx_memory_lock();
    ptx_range *r = device + n >= device ? ptx_range_of(device, device + n) : NULL;
    void *host = r ? r->host + (device - r->device) : NULL;
    ptx_memory_unlock();
    return host;
}
