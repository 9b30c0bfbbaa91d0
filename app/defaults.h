/*
 * defaults: finds the sampling defaults of a model.
 *
 * What models.toml says wins over what the model's packaging brought, and that over
 * general.sampling.* of its file. What nobody says is temperature 1, top_p 1 and everything else
 * off, or, as llama.cpp has it, temperature 0.8, top_k 40, top_p 0.95, min_p 0.05.
 */
#ifndef CP_APP_DEFAULTS_H
#define CP_APP_DEFAULTS_H

#include "base/options.h"
#include "loader/loader.h"
#include "server/server.h"

/* whose: CP_DEFAULTS_*, where nothing else says. toml may be NULL. Values of file and packaging
 * outside a request's ranges, and options that are not built, are ignored with a log line that
 * begins with `name`. */
cp_sampling_defaults cp_app_sampling_defaults(const cp_loaded *file, const char *name, int whose,
                                              const cp_sampling_options *toml);

/* Sampling options of a packaging, a JSON object in Ollama's names, hostile, into d; what cannot be
 * honoured is logged. num_ctx is the loader's (cp_loaded_context_size). */
void cp_app_params_apply(const char *json, const char *name, cp_sampling_defaults *d);

#endif
