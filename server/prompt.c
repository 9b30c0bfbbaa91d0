/* This file renders a conversation and turns the text into token ids: see prompt.h. */
#include "server/prompt.h"

#include "base/clock.h"

static cp_code out_of_memory(cp_err *err)
{
    return cp_fail(err, CP_NO_MEMORY, "out of memory");
}

static bool set_token(cp_arena *a, cp_val *vars, const char *name, const cp_tokenizer *t,
                      int32_t id)
{
    if (id < 0)
        return true; /* undefined prints as nothing */
    cp_str s = cp_tokenizer_piece(t, id);
    cp_val *v = cp_val_str(a, s.p ? s.p : "", s.n, false);
    return v && cp_val_set(a, vars, name, v);
}

cp_code cp_prompt_render(const cp_template *t, const cp_tokenizer *tok, cp_arena *a,
                         const cp_conversation *chat, cp_rendered *out, cp_err *err)
{
    cp_val *none = cp_val_none(a), *generates = cp_val_bool(a, chat->generate), *vars = chat->vars;
    cp_val *tools = chat->tools ? chat->tools : none;
    cp_val *documents = chat->documents ? chat->documents : none;
    if (!none || !generates || !cp_val_set(a, vars, "messages", chat->messages) ||
        !cp_val_set(a, vars, "tools", tools) || !cp_val_set(a, vars, "documents", documents) ||
        !cp_val_set(a, vars, "add_generation_prompt", generates) ||
        !set_token(a, vars, "bos_token", tok, cp_tokenizer_bos(tok)) ||
        !set_token(a, vars, "eos_token", tok, cp_tokenizer_eos(tok)))
        return out_of_memory(err);
    return chat->go_on ? cp_template_continue(t, a, vars, cp_wall_sec(), out, err)
                       : cp_template_render(t, a, vars, cp_wall_sec(), out, err);
}

cp_code cp_prompt_encode(const cp_tokenizer *tok, const cp_rendered *r, cp_arena *a, cp_ids *ids,
                         cp_err *err)
{
    cp_span *spans = cp_arena_alloc(a, (r->n_input + 1) * sizeof(*spans));
    if (!spans)
        return out_of_memory(err);
    for (size_t i = 0; i < r->n_input; i++)
        spans[i] = (cp_span){r->input[i].begin, r->input[i].end};
    return cp_tokenizer_encode(tok, r->text.p ? r->text.p : "", r->text.n, false, true, spans,
                               r->n_input, ids, err);
}

bool cp_prompt_text(const cp_tokenizer *tok, const int32_t *ids, int n, bool skip_special,
                    cp_buf *out)
{
    cp_detok d;
    cp_detok_init(&d, tok, true, skip_special);
    for (int i = 0; i < n; i++)
        if (!cp_detok_push(&d, ids[i], out))
            return false;
    return cp_detok_finish(&d, out);
}
