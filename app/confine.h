/*
 * confine: gives away what a serving process does not need, as --sandbox says.
 *
 * A cp_confine is the command's, on the first thread, in this order: begin, while there is no
 * thread (the opener is forked, core dumps are bared); whatever needs files or a port; files, still
 * without a thread; what starts threads; calls, before the first byte of a request or of a model is
 * read. With --sandbox off each of these does nothing. base/sandbox.h has the walls themselves.
 */
#ifndef CP_APP_CONFINE_H
#define CP_APP_CONFINE_H

#include "app/opener.h"
#include "base/metrics.h"
#include "base/options.h"

typedef struct cp_confine {
    const cp_options *o;
    cp_opener *opener; /* NULL: --sandbox off */
    int landlock;      /* its version; 0: not granted */
    bool calls;        /* system calls are filtered */
    cp_err why_files, why_calls;
} cp_confine;

/* CP_IO: there is no opener. */
cp_code cp_confine_begin(cp_confine *c, const cp_options *o, cp_err *err);
/* CP_UNSUPPORTED: --sandbox on, and the kernel does not grant it. */
cp_code cp_confine_files(cp_confine *c, cp_err *err);
/* The same; on_cpu: no GPU's driver works here. The one line in the log. */
cp_code cp_confine_calls(cp_confine *c, bool on_cpu, cp_err *err);
/* Tell a process's metrics what is granted. */
void cp_confine_measure(const cp_confine *c, cp_metrics *m);
/* After the threads have ended. */
void cp_confine_end(cp_confine *c);

/* For tests (CAPSTAN_FAULT=escape:try): this thread, called so, tries what should be refused. */
void cp_confine_try(const char *who);

#endif
