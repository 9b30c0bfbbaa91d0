/*
 * jobs: a small pool of threads parses, renders templates and tokenizes.
 *
 * The queue is bounded, and jobs run in FIFO order on any worker. Whoever opened a cp_jobs owns it;
 * any thread may submit.
 */
#ifndef CP_BASE_JOBS_H
#define CP_BASE_JOBS_H

#include "base/code.h"

#include <stdbool.h>

typedef struct cp_jobs cp_jobs;
typedef void cp_job_fn(void *arg);
cp_code cp_jobs_open(cp_jobs **out, int threads, int max_queued, cp_err *err);
void cp_jobs_close(cp_jobs *j);                            /* runs what is queued, then joins */
bool cp_jobs_submit(cp_jobs *j, cp_job_fn *fn, void *arg); /* false: queue full */

#endif
