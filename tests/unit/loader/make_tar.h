/*
 * Tars for tests, header by header, so that any field can be wrong; and their compressed forms.
 */
#ifndef CP_TESTS_LOADER_MAKE_TAR_H
#define CP_TESTS_LOADER_MAKE_TAR_H

#include "base/mem.h"

/* A header alone: ustar, right checksum. */
void cp_mk_tar_header(cp_buf *out, const char *path, char type, uint64_t size);
/* Header, bytes, padding. */
void cp_mk_tar_member(cp_buf *out, const char *path, char type, const void *p, size_t n);
void cp_mk_tar_file(cp_buf *out, const char *path, const char *text);
void cp_mk_tar_end(cp_buf *out);
/* Set the checksum of the header at offset `at` again, after a test has changed a field. */
void cp_mk_tar_checksum(cp_buf *out, size_t at);
/* One pax record into a record buffer. */
void cp_mk_tar_pax(cp_buf *out, const char *key, const char *value);
/* Append `in` to out through libarchive's filter: "gzip" or "zstd". */
void cp_mk_compress(cp_buf *out, const cp_buf *in, const char *filter);

#endif
