/* Answers of /tokenize: capstan and vLLM say a count, llama-server has the tokens alone. */
#include "bench/load/ask.h"

#include <jansson.h>

uint64_t cp_load_tokens_read(const char *json, size_t n)
{
    json_t *doc = json_loadb(json, n, 0, NULL);
    json_int_t count = json_integer_value(json_object_get(doc, "count"));
    size_t tokens = json_array_size(json_object_get(doc, "tokens"));
    json_decref(doc);
    return count > 0 ? (uint64_t)count : tokens;
}
