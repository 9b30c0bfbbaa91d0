/* Sampling defaults of a model: models.toml > the file's general.sampling.* > temperature 1, top_p
 * 1, everything else off. */
#ifndef CP_APP_DEFAULTS_H
#define CP_APP_DEFAULTS_H

#include "base/meta.h"
#include "base/options.h"
#include "server/server.h"

/* toml may be NULL. Values of the file outside a request's ranges are ignored with a log line. */
cp_sampling_defaults cp_app_sampling_defaults(const cp_meta *meta, const cp_sampling_options *toml);

#endif
