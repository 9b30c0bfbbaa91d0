/*
 * keys: the API keys that options name, from the command line and out of a file.
 */
#ifndef CP_APP_KEYS_H
#define CP_APP_KEYS_H

#include "base/mem.h"
#include "base/options.h"
#include "server/server.h"

/* How a file is read: cp_file_read, or what reads it later (app/reload.h). */
typedef cp_code cp_app_read_fn(const char *path, size_t max, cp_buf *out, cp_err *err);

typedef struct cp_key_list {
    cp_api_key *p; /* [n], to be freed by cp_app_keys_free */
    size_t n;
} cp_key_list;

/* Errors name file and line, never a key. Any thread. */
cp_code cp_app_keys(const cp_options *o, cp_app_read_fn *read, cp_key_list *out, cp_err *err);
void cp_app_keys_free(cp_key_list *k);

#endif
