/*
 * Credential helpers: programs docker-credential-NAME that keep secrets elsewhere (a key ring, a
 * cloud's own service). They are asked as docker asks them (docker-credential-helpers, the "get"
 * command). The server's name goes to standard input, and standard output says
 *
 *     {"ServerURL":"https://ghcr.io","Username":"David","Secret":"passw0rd1"}
 *
 * Any thread; a call blocks until the program has ended or its time is over.
 */
#ifndef CP_LOADER_OCI_REMOTE_HELPER_H
#define CP_LOADER_OCI_REMOTE_HELPER_H

#include "loader/oci/remote/credential.h"

/* docker-credential-<helper> get, `server` on its standard input. False: out->from says why. */
bool cp_credential_helper(const char *helper, const char *server, int timeout_ms,
                          cp_credential *out);

#endif
