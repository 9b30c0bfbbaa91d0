/*
 * The members of a layer: what its tar holds and what of it matters, whether the tar lies in the
 * blob as it is or was extracted (extract.h).
 *
 * A cp_members owns its strings. It is filled by cp_members_of_tar or member by member
 * (cp_members_add, which extract.c does as bytes come out of a decompressor) and immutable from
 * then on. An extracted folder keeps it as a text, its list. One thread; nothing here opens a file.
 */
#ifndef CP_LOADER_OCI_CONTENT_MEMBERS_H
#define CP_LOADER_OCI_CONTENT_MEMBERS_H

#include "base/digest.h"
#include "loader/oci/content/tarmap.h"

enum {
    CP_MEMBERS_MAX = 16384,  /* of one layer that are kept */
    CP_MEMBER_IN_PLACE = -1, /* cp_member.number: it lies in the blob */
    CP_MEMBER_SKIPPED = -2,  /* it was not worth a file */
};

typedef enum cp_member_kind {
    CP_MEMBER_FILE,
    CP_MEMBER_DIR,
    CP_MEMBER_WHITEOUT, /* path is gone from the layers below */
    CP_MEMBER_OPAQUE,   /* all below path is gone from the layers below */
    CP_MEMBER_LEFT_OUT, /* a link or a special file: it has the path, and no bytes */
} cp_member_kind;

typedef struct cp_member {
    cp_member_kind kind;
    const char *path; /* plain (tarmap.h), printable */
    uint64_t offset, size;
    int number;         /* extracted file's name, or one of the two above */
    bool gguf;          /* its first bytes say so */
    char type;          /* of one that is left out: its tar type, one of "12346?" */
    uint8_t digest[32]; /* of an extracted file */
} cp_member;

typedef struct cp_members {
    cp_arena *arena;
    cp_member *v;
    size_t n;
} cp_members;

cp_members *cp_members_new(void);
void cp_members_free(cp_members *m);
/* What a member that is left out is: "a symbolic link". Static. */
const char *cp_member_left_out(char type);

/*
 * The members of the uncompressed tar p[n]. image: only members under models/ count, with the
 * whiteouts that concern them; otherwise all do. Links and special files are members without
 * bytes: nothing is followed. CP_CORRUPT: no tar; an odd path where members count; a file twice.
 */
cp_code cp_members_of_tar(cp_members **out, const uint8_t *p, size_t n, bool image, cp_err *err);

/* Add a tar's member if it counts; *out is it (valid until the next one), or NULL. */
cp_code cp_members_add(cp_members *m, bool image, const cp_tar_member *from, cp_member **out,
                       cp_err *err);
/* After the last one: CP_CORRUPT when a file is there twice, or a link has its name. */
cp_code cp_members_check(const cp_members *m, cp_err *err);
/* The text of layer hex's list, and back (text is used up). False: it is not whole, of another
 * layer or of the other kind. */
void cp_members_write(const cp_members *m, const char *hex, bool image, cp_buf *out);
bool cp_members_read(cp_members *m, const char *hex, bool image, cp_buf *text);

#endif
