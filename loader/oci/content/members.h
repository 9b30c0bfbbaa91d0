/*
 * The members of a layer (extract.h) in the making: added one by one from a tar, written as an
 * extracted folder's list, read back. For extract.c and members.c only.
 */
#ifndef CP_LOADER_OCI_CONTENT_MEMBERS_H
#define CP_LOADER_OCI_CONTENT_MEMBERS_H

#include "base/digest.h"
#include "loader/oci/content/extract.h"

cp_members *cp_members_new(void);
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
