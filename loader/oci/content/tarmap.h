/*
 * Tar archives, member by member: where each one's bytes lie, or its bytes as they stream past.
 *
 * A cp_tar is a caller-owned value over a source of bytes (memory, or a decompressor); one thread.
 * It reads ustar, v7, pax (path, size) and GNU (long names, base-256 sizes), and is the only tar
 * parser here, so that a mapped and an extracted archive mean the same. Everything is hostile:
 * numbers by strict grammar, sizes against what is left, counts capped. Sparse members and archives
 * of several volumes are refused; so are bytes after the end that are not zero. An archive that
 * stops within the padding of its last member is whole (umoci writes such).
 */
#ifndef CP_LOADER_OCI_CONTENT_TARMAP_H
#define CP_LOADER_OCI_CONTENT_TARMAP_H

#include "base/code.h"
#include "base/mem.h"

enum {
    CP_TAR_PATH_MAX = 4096,
    CP_TAR_META_MAX = 1 << 20,    /* bytes of one extended header */
    CP_TAR_MEMBERS_MAX = 1 << 20, /* of one archive, extended headers included */
    CP_TAR_TAIL_MAX = 1 << 20,    /* bytes of zeros after the last member */
};

typedef struct cp_tar_source {
    /* Up to n bytes into p; *got == 0 with n > 0: the end. p NULL: pass over them. */
    cp_code (*read)(void *arg, void *p, size_t n, size_t *got, cp_err *err);
    void *arg;
    uint64_t limit; /* bytes there are, when that is known; else UINT64_MAX */
} cp_tar_source;

typedef enum cp_tar_kind {
    CP_TAR_FILE,
    CP_TAR_DIR,
    CP_TAR_OTHER, /* a link, a device, anything else */
} cp_tar_kind;

typedef struct cp_tar_member {
    const char *path; /* as written, NUL-free, not empty; valid until the next call */
    cp_tar_kind kind;
    char type;             /* the header's typeflag, for messages */
    uint64_t offset, size; /* of its bytes in the source */
} cp_tar_member;

typedef struct cp_tar {
    cp_tar_source source;
    uint64_t at;   /* in the source */
    uint64_t left; /* of the current member's bytes */
    unsigned pad;  /* after them */
    size_t n;      /* headers seen */
    cp_buf meta;   /* an extended header's bytes */
    char path[CP_TAR_PATH_MAX + 1];
    char long_path[CP_TAR_PATH_MAX + 1]; /* from extended headers; "" = none */
    bool has_size;
    uint64_t long_size;
} cp_tar;

void cp_tar_init(cp_tar *t, const cp_tar_source *source);
void cp_tar_fini(cp_tar *t);
/* The next member (what is left of the last one is passed over); *end: there is none. CP_CORRUPT,
 * CP_UNSUPPORTED (sparse), or the source's error. */
cp_code cp_tar_next(cp_tar *t, cp_tar_member *out, bool *end, cp_err *err);
/* The next bytes of the current member; *got == 0 with n > 0: it is complete. */
cp_code cp_tar_data(cp_tar *t, void *p, size_t n, size_t *got, cp_err *err);

/* A source over bytes in memory. */
typedef struct cp_tar_memory {
    const uint8_t *p;
    size_t n, at;
} cp_tar_memory;
cp_tar_source cp_tar_from_memory(cp_tar_memory *m);

/*
 * A member's path in plain form: no "./", "//" or "/" at the end; "" is the top itself. CP_CORRUPT:
 * absolute, or with "..".
 */
cp_code cp_tar_plain_path(const char *path, char out[CP_TAR_PATH_MAX + 1], cp_err *err);

#endif
