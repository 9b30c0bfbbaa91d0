/* The suites of the registry client, one function a file; each returns the number of failed tests.
 */
#ifndef CP_TESTS_LOADER_NET_SUITES_H
#define CP_TESTS_LOADER_NET_SUITES_H

#include "tests/support/cmocka.h"

int cp_suite_challenge(void);
int cp_suite_credentials(void);
int cp_suite_http(void);
int cp_suite_policy(void);
int cp_suite_registry(void);

#endif
