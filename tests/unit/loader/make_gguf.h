/*
 * A writer of GGUF bytes for tests, which can also write wrong ones.
 *
 * A cp_mk is caller-owned: cp_mk_init, then keys, then tensors, then cp_mk_finish; cp_mk_fini
 * frees. Tensor offsets follow the padded sum unless a test overrides them.
 */
#ifndef CP_TESTS_LOADER_MAKE_GGUF_H
#define CP_TESTS_LOADER_MAKE_GGUF_H

#include "base/mem.h"
#include "base/meta.h"

typedef struct cp_mk {
    cp_buf b;
    uint64_t n_kv, n_tensors, data, align;
} cp_mk;

void cp_mk_init(cp_mk *m, uint32_t version);
void cp_mk_fini(cp_mk *m);
void cp_mk_u(cp_mk *m, uint64_t v, int bytes); /* little endian */
void cp_mk_text(cp_mk *m, const char *s);      /* u64 length + bytes */
void cp_mk_key(cp_mk *m, const char *key, uint32_t type);
void cp_mk_kv_u32(cp_mk *m, const char *key, uint32_t v);
void cp_mk_kv_u16(cp_mk *m, const char *key, uint32_t v);
void cp_mk_kv_str(cp_mk *m, const char *key, const char *v);
void cp_mk_array(cp_mk *m, const char *key, uint32_t elem, uint64_t count); /* elements follow */
/* A tensor of ne[n_dims] at the running offset; its bytes are counted for the data section. */
void cp_mk_tensor(cp_mk *m, const char *name, uint32_t type, int n_dims, const uint64_t *ne);
/* Counts into the header, padding, data section (byte i holds i * 7 + 1). */
void cp_mk_finish(cp_mk *m);
/* A small whole file: arch, name, file type, tokens, two tensors. `salt` makes files differ. */
void cp_mk_tiny(cp_mk *m, uint32_t salt);
/* Write m's bytes to a file; asserts that it worked. */
void cp_mk_save(const cp_mk *m, const char *path);

#endif
