/*
 * The suites of test_base: each runs one cmocka group and returns its number of failures. Shared
 * includes that every cmocka test needs stand here.
 */
#ifndef TEST_BASE_SUITES_H
#define TEST_BASE_SUITES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int suite_append(void);
int suite_budget(void);
int suite_code(void);
int suite_fault(void);
int suite_io(void);
int suite_map(void);
int suite_mem(void);
int suite_memory(void);
int suite_log(void);
int suite_digest(void);
int suite_meta(void);
int suite_queue(void);
int suite_jobs(void);
int suite_pool(void);
int suite_toml(void);
int suite_trust(void);
int suite_utf8(void);
int suite_options(void);
int suite_metrics(void);

/* A fresh file with this text, its path in `path`; the caller unlinks it. */
void temp_file(char path[64], const char *text);

#endif
