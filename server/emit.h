/*
 * emit: writes JSON text straight into a cp_buf, without a tree and without any allocation beyond
 * the buffer. The caller writes the punctuation, and these functions write what needs care. Any
 * thread may call them.
 */
#ifndef CP_SERVER_EMIT_H
#define CP_SERVER_EMIT_H

#include "base/code.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

/* The characters of a JSON string without its quotes; bytes that are not UTF-8 become U+FFFD. */
void cp_emit_chars(cp_buf *b, const char *s, size_t n);
/* A quoted JSON string. */
void cp_emit_str(cp_buf *b, const char *s, size_t n);
/* ,"key":"value" */
void cp_emit_member(cp_buf *b, const char *key, const char *value);
/* A token's bytes where only a string may name it: what is no UTF-8 is spelled "bytes:\\xHH...". */
void cp_emit_token(cp_buf *b, const char *s, size_t n);
/* The same as [byte, ...]. */
void cp_emit_bytes(cp_buf *b, const char *s, size_t n);
void cp_emit_int(cp_buf *b, int64_t v);
/* JSON has no infinities: -9999 stands for minus infinity, as elsewhere. */
void cp_emit_logprob(cp_buf *b, float v);

#endif
