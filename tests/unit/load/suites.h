/* The suites of test_load: each runs one cmocka group and returns its number of failures. */
#ifndef TEST_LOAD_SUITES_H
#define TEST_LOAD_SUITES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int suite_hist(void);
int suite_arrivals(void);
int suite_spec(void);
int suite_sse(void);
int suite_stream(void);
int suite_prompts(void);
int suite_scrape(void);
int suite_meter(void);

#endif
