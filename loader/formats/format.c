/*
 * What all weight file formats share. The table of formats is asked by a file's first bytes,
 * "GGUF" for example. The index from tensor names to positions hashes with a random seed, so that
 * a hostile file cannot choose names that collide. The name of a file's quantization is what
 * general.file_type says, else the type of most of its bytes.
 */
#include "loader/formats/format.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const cp_format formats[] = {
    {"gguf", "GGUF", 4, cp_gguf_read},
};

/* See format.h. */
const cp_format *cp_format_of(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (n >= formats[i].n_magic && memcmp(p, formats[i].magic, formats[i].n_magic) == 0)
            return &formats[i];
    return NULL;
}

/* See format.h. */
void cp_weights_free(cp_weights *w)
{
    if (!w)
        return;
    cp_meta_free(w->meta);
    cp_name_index_fini(&w->index);
    for (size_t i = 0; i < w->n_owned; i++)
        free(w->owned[i]);
    free(w->owned);
    free(w->tensors);
    free(w->names);
    free(w);
}

/* Multiply-and-fold over 8-byte words; not cryptographic, but its seed is random. */
static uint64_t hash_name(uint64_t seed, const char *s)
{
    size_t n = strlen(s);
    uint64_t h = seed ^ n;
    while (n > 0) {
        uint64_t word = 0;
        size_t k = n < 8 ? n : 8;
        memcpy(&word, s, k);
        __extension__ typedef unsigned __int128 wide;
        wide m = (wide)(h ^ word) * 0x9e3779b97f4a7c15u;
        h = (uint64_t)m ^ (uint64_t)(m >> 64) ^ seed;
        s += k;
        n -= k;
    }
    return h ^ (h >> 29);
}

/* See format.h. */
bool cp_name_index_init(cp_name_index *x, size_t n)
{
    size_t slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    x->slot = calloc(slots, sizeof(*x->slot));
    x->mask = slots - 1;
    if (getrandom(&x->seed, sizeof(x->seed), GRND_NONBLOCK) != sizeof(x->seed))
        x->seed = (uint64_t)(uintptr_t)x->slot; /* early boot: the address must do */
    return x->slot != NULL;
}

/* See format.h. */
void cp_name_index_fini(cp_name_index *x)
{
    free(x->slot);
    *x = (cp_name_index){0};
}

/* The slot that holds `name`, or the free one where it belongs. At most half of the slots are
 * taken. */
static size_t probe(const cp_name_index *x, const cp_tensor *t, const char *name)
{
    size_t i = (size_t)hash_name(x->seed, name) & x->mask;
    while (x->slot[i] && strcmp(t[x->slot[i] - 1].name, name) != 0)
        i = (i + 1) & x->mask;
    return i;
}

/* See format.h. */
int64_t cp_name_index_find(const cp_name_index *x, const cp_tensor *t, const char *name)
{
    return x->slot ? (int64_t)x->slot[probe(x, t, name)] - 1 : -1;
}

/* See format.h. */
bool cp_name_index_add(cp_name_index *x, const cp_tensor *t, size_t i)
{
    size_t s = probe(x, t, t[i].name);
    if (x->slot[s])
        return false;
    x->slot[s] = (uint32_t)(i + 1);
    return true;
}

/* general.file_type's values: enum llama_ftype of llama.cpp's include/llama.h. */
static const char *const file_type_names[] = {
    [0] = "F32",      [1] = "F16",      [2] = "Q4_0",       [3] = "Q4_1",    [7] = "Q8_0",
    [8] = "Q5_0",     [9] = "Q5_1",     [10] = "Q2_K",      [11] = "Q3_K_S", [12] = "Q3_K_M",
    [13] = "Q3_K_L",  [14] = "Q4_K_S",  [15] = "Q4_K_M",    [16] = "Q5_K_S", [17] = "Q5_K_M",
    [18] = "Q6_K",    [19] = "IQ2_XXS", [20] = "IQ2_XS",    [21] = "Q2_K_S", [22] = "IQ3_XS",
    [23] = "IQ3_XXS", [24] = "IQ1_S",   [25] = "IQ4_NL",    [26] = "IQ3_S",  [27] = "IQ3_M",
    [28] = "IQ2_S",   [29] = "IQ2_M",   [30] = "IQ4_XS",    [31] = "IQ1_M",  [32] = "BF16",
    [36] = "TQ1_0",   [37] = "TQ2_0",   [38] = "MXFP4_MOE", [39] = "NVFP4",  [40] = "Q1_0",
    [41] = "Q2_0",
};

/* See format.h. */
const char *cp_weights_quant(const cp_weights *w)
{
    uint64_t ft;
    if (cp_meta_u64(w->meta, "general.file_type", &ft)) {
        ft &= ~(uint64_t)1024; /* llama.cpp's "guessed" bit */
        if (ft < sizeof(file_type_names) / sizeof(file_type_names[0]) && file_type_names[ft])
            return file_type_names[ft];
    }
    uint64_t bytes[CP_DTYPE_LIMIT] = {0}, most = 0;
    const char *name = "";
    for (size_t i = 0; i < w->n_tensors; i++) {
        const cp_tensor *t = &w->tensors[i];
        if ((bytes[t->type] += t->bytes) >= most) {
            most = bytes[t->type];
            name = cp_dtype_info((uint32_t)t->type)->name;
        }
    }
    return name;
}
