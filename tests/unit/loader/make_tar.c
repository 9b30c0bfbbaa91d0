/*
 * Tars for tests.
 */
#include "tests/unit/loader/make_tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* See make_tar.h. */
void cp_mk_tar_checksum(cp_buf *out, size_t at)
{
    unsigned sum = 0;
    memset(out->p + at + 148, ' ', 8);
    for (size_t i = 0; i < 512; i++)
        sum += (unsigned char)out->p[at + i];
    snprintf(out->p + at + 148, 8, "%06o", sum);
}

/* See make_tar.h. */
void cp_mk_tar_header(cp_buf *out, const char *path, char type, uint64_t size)
{
    char h[512] = {0}, size_text[13];
    size_t n = strlen(path), at = out->n;
    memcpy(h, path, n < 100 ? n : 100);
    memcpy(h + 100, "0000644", 7);
    memcpy(h + 108, "0000000", 7);
    memcpy(h + 116, "0000000", 7);
    snprintf(size_text, sizeof(size_text), "%011" PRIo64, size);
    memcpy(h + 124, size_text, 11);
    memcpy(h + 136, "00000000000", 11);
    h[156] = type;
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    cp_buf_add(out, h, sizeof(h));
    cp_mk_tar_checksum(out, at);
}

/* See make_tar.h. */
void cp_mk_tar_member(cp_buf *out, const char *path, char type, const void *p, size_t n)
{
    static const char zeros[512];
    cp_mk_tar_header(out, path, type, n);
    cp_buf_add(out, p, n);
    cp_buf_add(out, zeros, (512 - n % 512) % 512);
}

/* See make_tar.h. */
void cp_mk_tar_file(cp_buf *out, const char *path, const char *text)
{
    cp_mk_tar_member(out, path, '0', text, strlen(text));
}

/* See make_tar.h. */
void cp_mk_tar_end(cp_buf *out)
{
    static const char zeros[1024];
    cp_buf_add(out, zeros, sizeof(zeros));
}

/* See make_tar.h. */
void cp_mk_tar_pax(cp_buf *out, const char *key, const char *value)
{
    char digits[16];
    size_t body = strlen(key) + strlen(value) + 3, n = body + 1;
    while (n != body + (size_t)snprintf(digits, sizeof(digits), "%zu", n))
        n = body + strlen(digits);
    cp_buf_printf(out, "%zu %s=%s\n", n, key, value);
}

/* See make_tar.h. */
void cp_mk_compress(cp_buf *out, const cp_buf *in, const char *filter)
{
    size_t cap = in->n + 65536, used = 0;
    char *p = malloc(cap);
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    archive_write_set_format_raw(a);
    archive_write_add_filter_by_name(a, filter);
    archive_write_set_bytes_in_last_block(a, 1);
    archive_entry_set_pathname(e, "x");
    archive_entry_set_filetype(e, AE_IFREG);
    if (!p || archive_write_open_memory(a, p, cap, &used) != ARCHIVE_OK ||
        archive_write_header(a, e) != ARCHIVE_OK ||
        archive_write_data(a, in->p, in->n) != (la_ssize_t)in->n ||
        archive_write_close(a) != ARCHIVE_OK)
        abort();
    cp_buf_add(out, p, used);
    archive_entry_free(e);
    archive_write_free(a);
    free(p);
}
