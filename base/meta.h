/*
 * meta: a typed, read-only view shows a model's metadata by key (GGUF's own key names).
 *
 * The loader fills a cp_meta; tokenizer, chat and model read it, so none of them needs the loader.
 * Strings and arrays point into the mapped file or the loader's memory and live as long as the
 * loaded model. It does not change after loading, and any thread may read it.
 */
#ifndef CP_BASE_META_H
#define CP_BASE_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cp_str {
    const char *p; /* not NUL-terminated */
    size_t n;
} cp_str;

typedef enum cp_meta_type { /* GGUF's value types */
                            CP_META_U8,
                            CP_META_I8,
                            CP_META_U16,
                            CP_META_I16,
                            CP_META_U32,
                            CP_META_I32,
                            CP_META_F32,
                            CP_META_BOOL,
                            CP_META_STRING,
                            CP_META_ARRAY,
                            CP_META_U64,
                            CP_META_I64,
                            CP_META_F64
} cp_meta_type;

typedef struct cp_meta_kv {
    cp_str key;
    cp_meta_type type;
    cp_meta_type elem; /* for CP_META_ARRAY */
    uint64_t count;    /* array elements; 1 otherwise */
    union {
        uint64_t u; /* U8..U64, BOOL */
        int64_t i;  /* I8..I64 */
        double f;   /* F32, F64 */
        cp_str s;   /* STRING */
        const void
            *a; /* ARRAY of numbers: little endian, unaligned; of strings: const cp_str[count] */
    } v;
} cp_meta_kv;

typedef struct cp_meta cp_meta;
cp_meta *cp_meta_new(void);
void cp_meta_free(cp_meta *m);
/* Takes a copy of the kv record (not of what it points to). False: the key exists already. */
bool cp_meta_put(cp_meta *m, const cp_meta_kv *kv);
size_t cp_meta_count(const cp_meta *m);
const cp_meta_kv *cp_meta_at(const cp_meta *m, size_t i);          /* in file order */
const cp_meta_kv *cp_meta_find(const cp_meta *m, const char *key); /* NULL: absent */

/* Typed getters: false when absent or of another kind; integers convert when the value fits. out is
 * untouched then. */
bool cp_meta_u64(const cp_meta *m, const char *key, uint64_t *out);
bool cp_meta_i64(const cp_meta *m, const char *key, int64_t *out);
bool cp_meta_f64(const cp_meta *m, const char *key, double *out); /* integers convert */
bool cp_meta_bool(const cp_meta *m, const char *key, bool *out);
bool cp_meta_str(const cp_meta *m, const char *key, cp_str *out);
/* Element i of a numeric, bool or string array. */
bool cp_meta_arr_i64(const cp_meta_kv *kv, uint64_t i, int64_t *out);
bool cp_meta_arr_f64(const cp_meta_kv *kv, uint64_t i, double *out);
bool cp_meta_arr_str(const cp_meta_kv *kv, uint64_t i, cp_str *out);

#endif
