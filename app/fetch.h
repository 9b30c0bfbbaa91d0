/*
 * fetch: finds a model wherever it is. A child process, the same program's `pull`, pulls a name
 * that the store does not hold, so that this process opens no outbound connection and never sees a
 * credential; the child ends with this process. One thread calls it, any one, which must outlive
 * the call.
 */
#ifndef CP_APP_FETCH_H
#define CP_APP_FETCH_H

#include "base/options.h"
#include "loader/found.h"

/* Find the files of ref, pulled first where it is a name that is not here. progress is told of
 * every phase. */
cp_code cp_app_file_find(cp_found **out, const char *ref, const cp_options *o,
                         cp_progress_fn *progress, void *arg, cp_err *err);
/* The same, mapped and parsed. */
cp_code cp_app_file_open(cp_loaded **out, const char *ref, const cp_options *o,
                         cp_progress_fn *progress, void *arg, cp_err *err);

#endif
