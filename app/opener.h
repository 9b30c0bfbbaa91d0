/*
 * opener: opens files for a server that has given that right away (base/sandbox.h).
 *
 * It is a process, forked before the server has threads, which stays outside of the sandbox. The
 * server cannot ask it for a path: it asks by number for its own configuration and key file, for
 * its audit log, a template that its configuration names or that looks like one, for the files of a
 * model, which begin like a model, and for packed weights in the folders of models that it was
 * given. Pulling, the store, digests and archives are worked on there; what is parsed out of
 * weights is parsed in the server.
 *
 * A cp_opener is the server's side. Any thread may use it; models are asked for one at a time, and
 * everything else passes by them. Where there is none (NULL), this process does the same itself.
 */
#ifndef CP_APP_OPENER_H
#define CP_APP_OPENER_H

#include "base/mem.h"
#include "base/options.h"
#include "kernels/panel_file.h"
#include "loader/found.h"

typedef struct cp_opener cp_opener;

/* Before there are threads; o must outlive it. CP_IO. */
cp_code cp_opener_start(cp_opener **out, const cp_options *o, cp_err *err);
/* Nobody may be asking any more. NULL is fine. */
void cp_opener_stop(cp_opener *op);

/* Files that are read again while the server runs, as the options and the configuration file say
 * now where they lie. */
typedef enum cp_opener_file { CP_FILE_CONFIG, CP_FILE_KEYS } cp_opener_file;
/* Append the whole file (CP_CONFIG_BYTES at most). CP_NOT_FOUND, CP_IO, CP_TOO_LARGE. */
cp_code cp_opener_read(cp_opener *op, cp_opener_file which, const char *path, cp_buf *out,
                       cp_err *err);
/* The same of a chat template. CP_TEMPLATE: neither the options nor the configuration file name it,
 * and it does not look like one. */
cp_code cp_opener_template(cp_opener *op, const char *path, cp_buf *out, cp_err *err);

/* For cp_append_config: the file of --audit-log. opener is not NULL. */
cp_code cp_opener_audit(void *opener, const char *path, int *fd, cp_err *err);

/* Find ref, pulled first where it is a name that is not here. progress is told of every phase. */
cp_code cp_opener_find(cp_opener *op, cp_found **out, const char *ref, const cp_options *o,
                       cp_progress_fn *progress, void *arg, cp_err *err);

/* For a backend's configuration, as long as the opener. NULL: this process opens them. */
const cp_panel_door *cp_opener_panels(cp_opener *op);

#endif
