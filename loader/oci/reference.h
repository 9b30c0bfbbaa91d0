/*
 * References: what a user types to name a model (docs/MODELS.md, References).
 *
 * A cp_ref is a plain caller-owned value. Parsing touches the file system only to ask whether a
 * name with a slash in it is an existing path. Grammar of names: distribution/reference (lower-case
 * components, `._-` between), checked whole. What other tools' transports and schemes look like
 * (oci-archive:, dir:, https://, ...) is refused with what to do; docker://dir:TAG is a model
 * "dir".
 */
#ifndef CP_LOADER_OCI_REFERENCE_H
#define CP_LOADER_OCI_REFERENCE_H

#include "base/code.h"

#include <stdbool.h>

typedef enum cp_ref_kind {
    CP_REF_PATH,   /* a file: path */
    CP_REF_LAYOUT, /* oci:DIR[:REFNAME]: path, ref_name */
    CP_REF_NAME,   /* [registry/]name[:tag][@digest] */
} cp_ref_kind;

enum { CP_REF_PATH_MAX = 4096, CP_REF_NAME_MAX = 256 };

typedef struct cp_ref {
    cp_ref_kind kind;
    char path[CP_REF_PATH_MAX];
    char ref_name[CP_REF_NAME_MAX]; /* "" = not given */
    char typed[CP_REF_NAME_MAX]; /* as typed, without scheme and digest, ":latest" added without a
                                    tag */
    char canonical[CP_REF_NAME_MAX];  /* registry/repository:tag, what a pull stores */
    char registry[CP_REF_NAME_MAX];   /* "docker.io", "localhost:5000" */
    char repository[CP_REF_NAME_MAX]; /* "ai/smollm2" */
    char tag[132];                    /* "latest" */
    char digest[72];                  /* "sha256:..." or "" */
} cp_ref;

typedef bool cp_path_exists_fn(const char *path);

/*
 * Parse what a user typed. default_registry NULL: docker.io; exists NULL: access(2). Errors:
 * CP_USAGE, which says what the grammar wants.
 */
cp_code cp_ref_parse(cp_ref *out, const char *text, const char *default_registry,
                     cp_path_exists_fn *exists, cp_err *err);
/* As above for a place where only a name makes sense (pack -t): never a path or a layout. */
cp_code cp_ref_parse_name(cp_ref *out, const char *text, const char *default_registry, cp_err *err);

#endif
