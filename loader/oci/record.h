/*
 * Records: "this file, in this state, had this digest". They save hashing gigabytes at every start.
 *
 * A record is one small text file in a records folder: digest, size, mtime_ns, ctime_ns, inode. It
 * is trusted while all of them still match the open file. Any process may write; a record is
 * replaced by rename, so it is whole or absent. Losing one costs a re-hash, so failing to write one
 * is no error.
 */
#ifndef CP_LOADER_OCI_RECORD_H
#define CP_LOADER_OCI_RECORD_H

#include "base/code.h"
#include "base/digest.h"
#include "loader/loader.h"

typedef struct cp_verify {
    const char *dir;         /* records folder (created on demand); "" = no records */
    const char *what;        /* the file in messages */
    const uint8_t *want;     /* digest that the file must have, or NULL: any */
    bool always;             /* hash although a record matches */
    char key[CP_DIGEST_STR]; /* record's file name, see cp_record_key_* */
    cp_progress_fn *progress;
    void *arg;
} cp_verify;

/* Key of a blob in a store that holds its own records; of a file extracted from a layer; of a file
 * by its absolute path elsewhere. */
void cp_record_key_blob(char key[CP_DIGEST_STR], const uint8_t digest[32]);
void cp_record_key_extracted(char key[CP_DIGEST_STR], const char *layer_hex, int number);
void cp_record_key_path(char key[CP_DIGEST_STR], const char *absolute_path);

/*
 * The digest of the regular file fd, from a matching record or by hashing it (then a record is
 * written). CP_CORRUPT: it is not v->want, its bytes changed although its record matched, or it
 * changed while being hashed. *hashed (may be NULL) tells whether bytes were read.
 */
cp_code cp_verify_file(const cp_verify *v, int fd, uint8_t digest[32], bool *hashed, cp_err *err);
/* Write the record of fd, whose digest the caller has just computed. */
void cp_record_write(const char *dir, const char *key, int fd, const uint8_t digest[32]);
/* Does the record in dir under key match fd, and what digest does it hold? */
bool cp_record_match(const char *dir, const char *key, int fd, uint8_t digest[32]);

#endif
