/*
 * oip: what the Open Inference Protocol says of a model, beside its inferences (oip_json.c).
 *
 * Models have one version. Any thread.
 */
#ifndef CP_SERVER_API_OIP_H
#define CP_SERVER_API_OIP_H

#include "base/mem.h"

#define CP_OIP_VERSION "1"

/* Members "inputs" and "outputs" of a model's metadata, without braces. */
void cp_oip_tensors(cp_buf *out);

#endif
