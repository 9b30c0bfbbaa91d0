/* Traffic: the sectors of global requests, the wavefronts of shared ones. */
#include "tests/ptxvm/run.h"

/* How many different values; they come in any order. */
static unsigned different(const uint64_t *v, unsigned n)
{
    uint64_t table[128];
    uint8_t used[128] = {0};
    unsigned found = n > 0, k = 1;
    while (k < n && v[k] >= v[k - 1]) { /* most come ascending */
        found += v[k] != v[k - 1];
        k++;
    }
    if (k >= n)
        return found;
    found = 0;
    for (k = 0; k < n; k++) {
        unsigned slot = (unsigned)((v[k] * 0x9e3779b97f4a7c15u) >> 57);
        while (used[slot] && table[slot] != v[k])
            slot = (slot + 1) % 128;
        found += !used[slot];
        used[slot] = 1;
        table[slot] = v[k];
    }
    return found;
}

void ptx_count_global(ptx_block *b, uint32_t mask, const uint64_t address[32], unsigned n,
                      ptx_use use)
{
    uint64_t sector[32];
    unsigned lanes = 0;
    PTX_LANES
    {
        if (mask >> l & 1)
            sector[lanes++] = address[l] / 32; /* aligned: never two sectors */
    }
    unsigned sectors = different(sector, lanes);
    ptx_stats *s = &b->stats;
    if (ptx_reads(use)) {
        s->load_requests++;
        s->load_bytes += (uint64_t)lanes * n;
        s->load_bytes_128 += n == 16 ? (uint64_t)lanes * n : 0;
        s->load_sectors += sectors;
    } else {
        s->store_requests++;
        s->store_bytes += (uint64_t)lanes * n;
        s->store_sectors += sectors;
    }
}

/* Requests of 8 and 16 bytes go by half and quarter warps. In each part the different words of a
 * bank come one after another. */
void ptx_count_shared(ptx_block *b, uint32_t mask, const uint64_t address[32], unsigned n)
{
    unsigned lanes = n == 16 ? 8 : n == 8 ? 16 : 32, words = n < 4 ? 1 : n / 4;
    b->stats.shared_requests++;
    for (unsigned first = 0; first < 32; first += lanes) {
        uint64_t banks[32][32];
        unsigned n_bank[32] = {0}, most = 0;
        for (unsigned l = first; l < first + lanes; l++) {
            for (unsigned k = 0; k < words && (mask >> l & 1); k++) {
                uint64_t word = address[l] / 4 + k;
                banks[word % 32][n_bank[word % 32]++] = word;
            }
        }
        for (int bank = 0; bank < 32; bank++) {
            unsigned m = n_bank[bank] > 1 ? different(banks[bank], n_bank[bank]) : n_bank[bank];
            most = m > most ? m : most;
        }
        b->stats.shared_wavefronts += most;
        b->stats.shared_wavefronts_ideal += most > 0;
    }
}
