/*
 * Test helper: JSON text to a tree of cp_val made with the public functions, as the server makes it
 * from a request. Strings and keys are marked as input, except the values of "role", "bos_token"
 * and "eos_token".
 */
#ifndef CP_TESTS_UNIT_CHAT_VALS_H
#define CP_TESTS_UNIT_CHAT_VALS_H

#include "chat/jinja/value.h"

/* NULL: malformed JSON, or the arena is full. */
cp_val *cp_test_vals(cp_arena *a, const char *json, size_t n, bool mark);

#endif
