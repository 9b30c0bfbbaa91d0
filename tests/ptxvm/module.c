/* What is asked of a loaded module, and the index of the tables' rows by text. */
#include "tests/ptxvm/run.h"

#include <pthread.h>
#include <stdlib.h>

void *ptx_zeroed(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        abort();
    return p;
}

void *ptx_more(void *array, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return array;
    *cap = n < 8 ? 16 : n * 2;
    void *p = realloc(array, *cap * size);
    if (!p)
        abort();
    return p;
}

/* ---- rows ---- */

static const ptx_row **sorted;
static size_t n_sorted;

/* Rows of one text keep their order, which is the order in which they are tried. */
static int by_text(const void *a, const void *b)
{
    const ptx_row *x = *(const ptx_row *const *)a, *y = *(const ptx_row *const *)b;
    int c = strcmp(x->text, y->text);
    return c ? c : (x > y) - (x < y);
}

static void sort_rows(void)
{
    size_t cap = 0;
    for (const ptx_row *const *t = ptx_tables(); *t; t++) {
        for (const ptx_row *r = *t; r->text; r++) {
            sorted = ptx_more(sorted, &cap, n_sorted, sizeof *sorted);
            sorted[n_sorted++] = r;
        }
    }
    qsort(sorted, n_sorted, sizeof *sorted, by_text);
}

const ptx_row *const *ptx_rows_of(const char *text, size_t n_text, size_t *n_rows)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, sort_rows);
    size_t low = 0, high = n_sorted;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int c = strncmp(sorted[mid]->text, text, n_text);
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *n_rows = 0;
    while (low + *n_rows < n_sorted && strlen(sorted[low + *n_rows]->text) == n_text &&
           memcmp(sorted[low + *n_rows]->text, text, n_text) == 0)
        ++*n_rows;
    return *n_rows ? &sorted[low] : NULL;
}

/* ---- modules ---- */

void ptx_unload(ptx_module *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_kernels; i++) {
        ptx_kernel *k = m->kernels[i];
        free(k->name);
        free(k->code);
        free(k->executed);
        free(k->constants);
        free(k);
    }
    for (size_t i = 0; i < m->n_data; i++) {
        ptx_memory_remove(m->data[i].device);
        free(m->data[i].host);
    }
    free(m->kernels);
    free(m->data);
    free(m->text);
    free(m);
}

ptx_kernel *ptx_find(ptx_module *m, const char *name)
{
    for (size_t i = 0; i < m->n_kernels; i++) {
        if (strcmp(m->kernels[i]->name, name) == 0)
            return m->kernels[i];
    }
    return NULL;
}

size_t ptx_n_kernels(const ptx_module *m)
{
    return m->n_kernels;
}

ptx_kernel *ptx_kernel_at(ptx_module *m, size_t n)
{
    return m->kernels[n];
}

const char *ptx_name(const ptx_kernel *k)
{
    return k->name;
}

size_t ptx_param_bytes(const ptx_kernel *k)
{
    return k->param_bytes;
}

size_t ptx_shared_bytes(const ptx_kernel *k)
{
    return k->shared_bytes;
}

size_t ptx_local_bytes(const ptx_kernel *k)
{
    return k->local_bytes;
}

unsigned ptx_max_threads(const ptx_kernel *k)
{
    return k->max_threads;
}

size_t ptx_n_lines(const ptx_kernel *k)
{
    return k->n_code;
}

ptx_line ptx_line_at(const ptx_kernel *k, size_t n)
{
    return (ptx_line){k->code[n].line, k->code[n].row->text, k->executed[n]};
}
