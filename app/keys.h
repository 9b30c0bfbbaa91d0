/*
 * keys: the API keys that options name, from the command line and out of a file.
 */
#ifndef CP_APP_KEYS_H
#define CP_APP_KEYS_H

#include "app/opener.h"
#include "server/server.h"

typedef struct cp_key_list {
    cp_api_key *p; /* [n], to be freed by cp_app_keys_free */
    size_t n;
} cp_key_list;

/* Errors name file and line, never a key. opener: who opens the file; NULL: this process. Any
 * thread. */
cp_code cp_app_keys(const cp_options *o, cp_opener *opener, cp_key_list *out, cp_err *err);
void cp_app_keys_free(cp_key_list *k);

#endif
