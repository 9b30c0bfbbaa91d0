/*
 * Does an endpoint speak TLS or plain HTTP? It is found out where nothing says it (loopback
 * without a flag), and where what answers speaks the other one. No other host is asked in the
 * clear to find out. Works on jobs (job.h); their thread.
 */
#ifndef CP_LOADER_OCI_REMOTE_SCHEME_H
#define CP_LOADER_OCI_REMOTE_SCHEME_H

#include "loader/oci/remote/job.h"

/* The attempt has ended. True: that told something, and the job was started again. */
bool cp_scheme_find(cp_job *j);
/* Who answered speaks the other scheme: note so as the job's failure, and what to do about it. */
void cp_scheme_fail(cp_job *j, const char *why);

#endif
