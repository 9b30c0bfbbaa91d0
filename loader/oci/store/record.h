/*
 * Records: "this file, in this state, had this digest". They save hashing gigabytes at every start.
 *
 * A record is one small text file in a place's records/ (places.h): digest, size, mtime_ns,
 * ctime_ns, inode. It is believed while all of them still match the open file, and only if nobody
 * but this user and root could have written it. Any process may write; a record is replaced by
 * rename, so it is whole or absent. Losing one costs a re-hash, so failing to write one is no
 * error.
 */
#ifndef CP_LOADER_OCI_STORE_RECORD_H
#define CP_LOADER_OCI_STORE_RECORD_H

#include "base/code.h"
#include "base/digest.h"
#include "loader/loader.h"
#include "loader/oci/store/places.h"

enum { CP_RECORD_NAME = CP_DIR_MAX };

typedef struct cp_verify {
    const cp_places *places;   /* NULL: no records */
    const char *what;          /* the file in messages */
    const uint8_t *want;       /* digest that the file must have, or NULL: any */
    bool always;               /* hash although a record matches */
    char name[CP_RECORD_NAME]; /* what is recorded, see cp_record_name_* */
    cp_progress_fn *progress;
    void *arg;
} cp_verify;

/* The file name that the record of a file extracted from a layer has in every place. */
void cp_record_key_extracted(char key[CP_HEX_STR], const char *layer_hex, int number);
/* Is this the name of a record, or of one in the making? */
bool cp_record_is_name(const char *name);
/* Remove what writers that were killed a minute ago or more left in folder dir of records. */
void cp_record_temps_sweep(int dir);
/* What is recorded: a blob of the places' layout; a file extracted from a layer. A file elsewhere
 * goes by its absolute path. */
void cp_record_name_blob(char name[CP_RECORD_NAME], const uint8_t digest[32]);
void cp_record_name_extracted(char name[CP_RECORD_NAME], const char *layer_hex, int number);

/*
 * The digest of the regular file fd, from a matching record or by hashing it (then a record is
 * written). CP_CORRUPT: it is not v->want, its bytes changed although its record matched, or it
 * changed while being hashed. *hashed (may be NULL) tells whether bytes were read.
 */
cp_code cp_verify_file(const cp_verify *v, int fd, uint8_t digest[32], bool *hashed, cp_err *err);
/* Write the record of fd, whose digest the caller has just computed. */
void cp_record_write(const cp_places *p, const char *name, int fd, const uint8_t digest[32]);
/* Does a record of `name` match fd, and what digest does it hold? */
bool cp_record_match(const cp_places *p, const char *name, int fd, uint8_t digest[32]);

#endif
