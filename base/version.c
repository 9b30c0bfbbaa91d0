/*
 * The build defines CP_VERSION and generates version_commit.h (cmake/VersionCommit.cmake); this
 * file makes the version's strings of them.
 */
#include "base/version.h"

#include "version_commit.h"

const char *cp_version(void)
{
    return CP_VERSION;
}

const char *cp_version_commit(void)
{
    return CP_COMMIT;
}
