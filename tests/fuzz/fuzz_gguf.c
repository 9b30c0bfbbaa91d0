// deps: loader
/*
 * Fuzz target: GGUF bytes. What the parser accepts is walked whole: every key and array element by
 * the typed getters, every tensor's first and last byte, every name through the index.
 */
#include "base/dtype.h"
#include "base/meta.h"
#include "loader/formats/format.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static unsigned walk_kv(const cp_meta_kv *kv)
{
    unsigned sum = 0;
    cp_str s = {0};
    int64_t i;
    double f;
    if (kv->type == CP_META_STRING)
        s = kv->v.s;
    for (size_t k = 0; k < s.n; k++)
        sum += (uint8_t)s.p[k];
    if (kv->type != CP_META_ARRAY)
        return sum;
    for (uint64_t e = 0; e < kv->count; e++) {
        if (cp_meta_arr_str(kv, e, &s))
            sum += s.n ? (uint8_t)s.p[s.n - 1] : 0;
        if (cp_meta_arr_i64(kv, e, &i))
            sum += (unsigned)i;
        if (cp_meta_arr_f64(kv, e, &f))
            sum += f > 0;
    }
    check(!cp_meta_arr_i64(kv, kv->count, &i) && !cp_meta_arr_str(kv, kv->count, &s));
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cp_weights *w;
    cp_err err = {0};
    volatile unsigned sum = 0;
    cp_code code = cp_gguf_read(&w, data, size, &err);
    if (code) {
        check(!w && err.code == code && err.msg[0]);
        check(code == CP_CORRUPT || code == CP_UNSUPPORTED);
        return 0;
    }
    for (size_t k = 0; k < cp_meta_count(w->meta); k++)
        sum += walk_kv(cp_meta_at(w->meta, k));
    for (size_t k = 0; k < w->n_tensors; k++) {
        const cp_tensor *t = &w->tensors[k];
        const uint8_t *p = t->data;
        check(t->bytes > 0 && p >= data && t->bytes <= (size_t)(data + size - p));
        sum += p[0] + p[t->bytes - 1];
        check(cp_name_index_find(&w->index, w->tensors, t->name) == (int64_t)k);
        check(strlen(t->name) < 64 && t->ne[0] > 0 && cp_tensor_row_bytes(t) > 0);
    }
    check(cp_weights_quant(w) != NULL);
    (void)sum;
    cp_weights_free(w);
    return 0;
}
