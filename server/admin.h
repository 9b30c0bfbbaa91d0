/*
 * admin: what the server says of the models that it has and that come and go.
 *
 * GET /admin/models (server/handlers.h) and the answers of /admin/models/load and unload
 * (server/api/admin_json.c) are made of the same rows. Any thread may write one.
 */
#ifndef CP_SERVER_ADMIN_H
#define CP_SERVER_ADMIN_H

#include "server/core.h"

/* Where fields of these bodies stand: bits that no field of fields.h has. */
enum { CP_AT_LOAD = 1 << 16, CP_AT_UNLOAD = 1 << 17 };

/* What stands behind /admin/models/load and all that loads a model by its options: on a thread that
 * the server's host gave (cp_server_host). The errors are a client's. */
cp_code cp_admin_load(cp_server *s, const cp_model_options *mo, cp_err *err);
/* Likewise of /admin/models/unload. drain_ms 0: as long as it takes. */
cp_code cp_admin_unload(cp_server *s, const char *name, int64_t drain_ms, cp_err *err);
/* The row of the model of this name; false: it has none that takes requests. */
bool cp_admin_emit(cp_server *s, const char *name, cp_buf *out);

#endif
