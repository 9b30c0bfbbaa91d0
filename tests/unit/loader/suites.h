/*
 * The loader's test suites, one function a file; each returns the number of failed tests. cmocka.h
 * needs the headers in front of it.
 */
#ifndef CP_TESTS_LOADER_SUITES_H
#define CP_TESTS_LOADER_SUITES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int cp_suite_extract(void);
int cp_suite_files(void);
int cp_suite_gguf(void);
int cp_suite_index(void);
int cp_suite_manifests(void);
int cp_suite_packagings(void);
int cp_suite_reference(void);
int cp_suite_store(void);
int cp_suite_tar(void);
int cp_suite_variant(void);

#endif
