/*
 * What answers mean. The bytes of a success are passed on after its headers were judged; redirects
 * are followed; refusals are answered with a token, another try, another endpoint or the job's
 * end. Works on jobs (job.h), on their thread.
 */
#ifndef CP_LOADER_OCI_REMOTE_ANSWERS_H
#define CP_LOADER_OCI_REMOTE_ANSWERS_H

#include "loader/oci/remote/job.h"

/* cp_exchange's callbacks; x->arg is the job. */
bool cp_answer_body(cp_exchange *x, const void *p, size_t n);
void cp_answer_done(cp_exchange *x);

#endif
