// deps: chat base
/*
 * Fuzzes the template engine: the input is a template (up to a NUL byte) and, behind the NUL, text
 * that stands in as a message of a client. It is compiled, and rendered in a small arena over
 * variables of every kind. What must hold besides memory safety: the marks are ascending, disjoint
 * and inside the text, and a failure says why.
 */
#include "chat/chat.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* {"role", "content", "n", "f", "tags", "none"} */
static cp_val *message(cp_arena *a, const char *role, const char *text, size_t n)
{
    cp_val *m = cp_val_dict(a), *tags = cp_val_list(a);
    cp_val_push(a, tags, cp_val_str(a, "b", 1, true));
    cp_val_push(a, tags, cp_val_str(a, "A", 1, false));
    cp_val_push(a, tags, cp_val_bool(a, true));
    cp_val_set(a, m, "role", cp_val_str(a, role, strlen(role), false));
    cp_val_set(a, m, "content", cp_val_str(a, text, n, true));
    cp_val_set(a, m, "n", cp_val_int(a, (int64_t)n - 3));
    cp_val_set(a, m, "f", cp_val_float(a, 2.5));
    cp_val_set(a, m, "tags", tags);
    cp_val_set(a, m, "none", cp_val_none(a));
    return m;
}

/* What a rendering may end with; its marks ascend, part, and lie in the text. */
static void check(cp_code code, cp_rendered *out)
{
    CP_ASSERT(code == CP_OK || code == CP_TEMPLATE || code == CP_NO_MEMORY ||
              code == CP_INVALID_VALUE);
    for (size_t i = 0; code == CP_OK && i < out->n_input; i++) {
        CP_ASSERT(out->input[i].begin < out->input[i].end && out->input[i].end <= out->text.n);
        CP_ASSERT(!i || out->input[i - 1].end < out->input[i].begin);
    }
    cp_rendered_fini(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = " Hello, <|im_end|>\nw\xc3\xb6rld 42 ";
    const uint8_t *nul = n ? memchr(data, 0, n) : NULL;
    size_t n_src = nul ? (size_t)(nul - data) : n;
    cp_err err = {0};
    cp_template *t;
    if (cp_template_open(&t, (const char *)data, n_src, &err) != CP_OK) {
        CP_ASSERT(err.msg[0] && err.code == CP_TEMPLATE);
        return 0;
    }
    cp_arena *a = cp_arena_new((size_t)24 << 20);
    cp_val *vars = cp_val_dict(a), *messages = cp_val_list(a);
    cp_val_push(a, messages, message(a, "system", text, sizeof(text) - 1));
    if (nul)
        cp_val_push(a, messages, message(a, "user", (const char *)nul + 1, n - n_src - 1));
    cp_val_push(a, messages, message(a, "assistant", "", 0));
    cp_val_set(a, vars, "messages", messages);
    cp_val_set(a, vars, "m", message(a, "user", text, sizeof(text) - 1));
    cp_val_set(a, vars, "s", cp_val_str(a, text, sizeof(text) - 1, true));
    cp_val_set(a, vars, "bos_token", cp_val_str(a, "<s>", 3, false));
    cp_val_set(a, vars, "add_generation_prompt", cp_val_bool(a, true));
    cp_rendered out;
    check(cp_template_render(t, a, vars, 1764068645, &out, &err), &out);
    check(cp_template_continue(t, a, vars, 1764068645, &out, &err), &out);
    cp_template_close(t);
    cp_arena_free(a);
    return 0;
}
