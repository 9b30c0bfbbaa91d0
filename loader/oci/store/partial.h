/*
 * A blob in the making: STORE/capstan/partial/<hex>, which becomes blobs/sha256/<hex>.
 *
 * A cp_partial is held by one process at a time (a lock file beside it); what it has survives the
 * process. It counts units of 1 MiB: a unit is marked once all of its bytes were written. Marks are
 * kept in a sidecar file and trusted while the machine has not rebooted; after a reboot only those
 * that a cp_partial_sync covered. One thread writes, marks and asks; another may sync and publish
 * at the same time. It hides files, locks and the sidecar's form.
 */
#ifndef CP_LOADER_OCI_STORE_PARTIAL_H
#define CP_LOADER_OCI_STORE_PARTIAL_H

#include "loader/oci/store/layout.h"

enum { CP_UNIT = 1 << 20 };
#define CP_BLOB_MAX (UINT64_C(1) << 44) /* bytes of one blob: 16 TiB, a sidecar of 4 MiB */

typedef struct cp_partial cp_partial;

/*
 * Take up the blob that d names (digest and size), or begin it; space for all of it is reserved.
 * *busy, and *out is NULL: another process holds it. CP_IO: no space, among others. CP_CORRUPT:
 * d's size is absurd.
 */
cp_code cp_partial_open(cp_partial **out, const cp_layout *l, const cp_descriptor *d, bool *busy,
                        cp_err *err);
/* Let go; the files stay and can be taken up again. NULL is fine. */
void cp_partial_close(cp_partial *p);
/* Let go and remove the files. */
void cp_partial_remove(cp_partial *p);

int cp_partial_fd(const cp_partial *p); /* for reading what was written */
uint64_t cp_partial_units(const cp_partial *p);
bool cp_partial_has(const cp_partial *p, uint64_t unit);
uint64_t cp_partial_done(const cp_partial *p); /* bytes in marked units */

cp_code cp_partial_write(cp_partial *p, uint64_t at, const void *bytes, size_t n, cp_err *err);
/* All bytes of the unit were written. */
cp_code cp_partial_mark(cp_partial *p, uint64_t unit, cp_err *err);
/* Make what is marked so far survive a power cut. Blocks until the disk has it. */
cp_code cp_partial_sync(cp_partial *p, cp_err *err);
/* Forget all marks: the bytes were wrong. */
cp_code cp_partial_reset(cp_partial *p, cp_err *err);
/*
 * The caller found the digest right: the file becomes the blob, durably, and gets its record. A
 * blob that is there with a matching record is kept instead. p must still be closed.
 */
cp_code cp_partial_publish(cp_partial *p, const cp_places *places, cp_err *err);

/* What another process (or a dead one) has of a blob: bytes marked, and space taken on the disk. */
void cp_partial_peek(const cp_layout *l, const cp_descriptor *d, uint64_t *done,
                     uint64_t *allocated);

/* For gc: remove from folder dir (-1: none) the partial files named <hex> unless a process holds
 * them; their size is added to *bytes. keep: only look. True: there was something that nobody
 * holds. */
bool cp_partial_sweep(int dir, const char *hex, bool keep, uint64_t *bytes);

#endif
