/*
 * version: names the version of this build. The strings are constant, and any thread may read them.
 */
#ifndef CP_BASE_VERSION_H
#define CP_BASE_VERSION_H

const char *cp_version(void); /* "0.1.0" */
const char *
cp_version_commit(void); /* short commit, "-dirty" appended; "unknown" outside a checkout */

#endif
