/*
 * stdio: takes the three standard descriptors as a command may find them. They may be closed (a
 * daemon manager, `<&-`), and then the next file or socket that opens takes their numbers; what is
 * printed may not arrive (a full disk, a closed descriptor). main opens and closes them, any
 * command reads.
 */
#ifndef CP_APP_STDIO_H
#define CP_APP_STDIO_H

#include "base/code.h"
#include "base/mem.h"

/*
 * Before anything else opens: each of 0, 1 and 2 that is closed is put on /dev/null. 0 then reads
 * as empty, 1 refuses to be written, so that data is never lost without a word, and what goes to 2
 * is dropped. CP_IO: there is no /dev/null.
 */
cp_code cp_stdio_open(cp_err *err);
/* All of standard input appended to out. CP_IO: "cannot read stdin: ..."; CP_TOO_LARGE above max
 * bytes. */
cp_code cp_stdio_read(size_t max, cp_buf *out, cp_err *err);
/* CP_IO when something printed on stdout so far cannot be written; flushes. */
cp_code cp_stdio_flush(cp_err *err);
/* Close stdout and check that everything printed was written, at the end of a command whose exit
 * code is rc: rc, or 1 with a line on stderr. */
int cp_stdio_close(int rc);

#endif
