/* emit_json: prints on stdout what commands say with --json, through jansson. */
#ifndef CP_APP_EMIT_JSON_H
#define CP_APP_EMIT_JSON_H

#include "app/recognised.h"
#include "loader/loader.h"

#include <stdio.h>

/* A JSON string of s[0, n); bytes that are not UTF-8 become U+FFFD. */
void cp_emit_string(FILE *f, const char *s, size_t n);
/* Entries of the store, an array (list). */
void cp_emit_entries(FILE *f, const cp_store_entry *e, size_t n);
/* One with what is recognised in its weights (inspect); r may be NULL. */
void cp_emit_entry(FILE *f, const cp_store_entry *e, const cp_recognised *r);

#endif
