/*
 * One repository on one registry (with its mirrors), as a client sees it.
 *
 * A cp_registry is owned by one thread, the pull's; every call and every callback happens there. It
 * hides libcurl and all of the protocol's moods: tokens and credentials (401 -> challenge -> token,
 * also in mid-blob), redirects (credentials dropped when host, port or scheme changes; https never
 * to http; link-local addresses never; a blob's next range begins where the last one was had),
 * retries of 429, 5xx and lost connections (Retry-After, else jittered exponential back-off, capped
 * in count and time), mirrors (blobs and manifests by digest from mirrors first, tags resolved
 * upstream; upstream credentials never go to a mirror). Bytes are checked for range and size, a
 * manifest asked for by digest also for its digest; a blob's digest
 * is the caller's to check.
 */
#ifndef CP_LOADER_OCI_REMOTE_REGISTRY_H
#define CP_LOADER_OCI_REMOTE_REGISTRY_H

#include "base/code.h"
#include "base/mem.h"
#include "loader/oci/reference.h"
#include "loader/oci/remote/request.h"

/* For the registry and repository of a CP_REF_NAME reference. Makes no connection yet. CP_USAGE: an
 * option that makes no sense (names it), CP_NO_MEMORY. */
cp_code cp_registry_open(cp_registry **out, const cp_ref *ref, const cp_registry_options *opt,
                         cp_err *err);
/* Fetches that still run end without their `done`. NULL is fine. */
void cp_registry_close(cp_registry *r);

/*
 * GET /v2/<name>/manifests/<reference>; reference is a tag or "sha256:...". body gets the raw bytes
 * (at most CP_MANIFEST_MAX_BYTES), media_type the Content-Type without parameters ("" absent). A
 * digest is verified here; a tag's digest is computed by the caller. Blocks; running fetches go on
 * meanwhile, their callbacks included. CP_NOT_FOUND, CP_NETWORK, CP_CORRUPT (digest, too long).
 */
cp_code cp_registry_manifest(cp_registry *r, const char *reference, cp_buf *body,
                             char media_type[128], cp_err *err);

/* Start. f stays in place until `done` or cancel. More fetches than connections wait their turn.
 * CP_USAGE: a range outside of the blob, no sha256 digest. */
cp_code cp_registry_fetch(cp_registry *r, cp_fetch *f, cp_err *err);
/* `done` is not called. A fetch that does not run (impl NULL) is left alone. */
void cp_registry_cancel(cp_registry *r, cp_fetch *f);
/* Drive all transfers: waits up to timeout_ms for something to happen (a back-off counts as
 * waiting). *running: fetches that are not done. */
cp_code cp_registry_step(cp_registry *r, int timeout_ms, int *running, cp_err *err);

/* Body bytes received in all, repeated and refused ones included. */
uint64_t cp_registry_received(const cp_registry *r);
/* "registry/repository", and the host that sent the last answer ("" none yet), for logs. */
const char *cp_registry_name(const cp_registry *r);
const char *cp_registry_host(const cp_registry *r);

#endif
