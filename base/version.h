/* The version of this build. Any thread; the strings are constant. */
#ifndef CP_BASE_VERSION_H
#define CP_BASE_VERSION_H

const char *cp_version(void); /* "0.1.0" */
const char *
cp_version_commit(void); /* short commit, "-dirty" appended; "unknown" outside a checkout */

#endif
