/* The tests of this binary; test_tokenizer.c lists them. */
#ifndef TEST_TOKENIZER_TESTS_H
#define TEST_TOKENIZER_TESTS_H

void test_utf8_is_strict(void **state);
void test_byte_spelling_is_a_bijection(void **state);
void test_nfc_vectors(void **state);
void test_nfc_of_hostile_text(void **state);
void test_pretok_vectors(void **state);
void test_pretok_work(void **state);
void test_detok_holds_back_partial_characters(void **state);
void test_detok_drops_the_first_space(void **state);

#endif
