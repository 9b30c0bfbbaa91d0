// deps: load base
/*
 * Fuzz target: streamed answers. Whatever the bytes, whole or one at a time, the same tokens are
 * counted and the same end is seen, in bounded memory.
 */
#include "bench/load/stream.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cp_load_outcome run(cp_load_stream *s, const char *p, size_t n, size_t step)
{
    bool ok = true;
    cp_load_stream_begin(s, true, NULL, NULL);
    for (size_t at = 0; at < n && ok; at += step)
        ok = cp_load_stream_feed(s, 200, true, p + at, n - at < step ? n - at : step, 1000);
    return cp_load_stream_end(s, 200, ok ? CP_LOAD_WHOLE : CP_LOAD_TOO_MUCH, "");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static cp_load_stream whole, slow;
    const char *p = (const char *)data;
    cp_load_outcome a = run(&whole, p, size, size ? size : 1), b = run(&slow, p, size, 1);
    CP_ASSERT(a == b && whole.chunks == slow.chunks && whole.usage == slow.usage);
    CP_ASSERT(whole.prompt_tokens == slow.prompt_tokens && whole.finished == slow.finished);
    CP_ASSERT(whole.answer.n == slow.answer.n && whole.answer.n <= CP_LOAD_ANSWER_MAX);
    CP_ASSERT(whole.answer.n == 0 || memcmp(whole.answer.p, slow.answer.p, whole.answer.n) == 0);
    CP_ASSERT(strcmp(whole.why, slow.why) == 0);
    CP_ASSERT(whole.chunks == 0 || whole.n_gaps == whole.chunks - 1);
    return 0;
}
