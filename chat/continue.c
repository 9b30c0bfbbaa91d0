/*
 * A conversation whose last message the model goes on with: transformers' continue_final_message.
 *
 * The text must end where that message's content ends, and only the template knows where. So a tag
 * is put behind the content, the template renders it with everything else, and the text is cut at
 * the last tag. Templates that trim contents take the tag's last blank with what stood before it;
 * then the text is trimmed as well. For {{ m.content|trim }}<|im_end|> and "It is ":
 *
 *   It is CONTINUE_FINAL_MESSAGE_TAG<|im_end|>   "It is"
 */
#include "chat/chat.h"

#include "chat/jinja/value.h"

#include <string.h>

static const char TAG[] = "CONTINUE_FINAL_MESSAGE_TAG ";
static const char FIELD[] = "continue_final_message";
enum { TAG_BARE = sizeof(TAG) - 2, TAG_WHOLE = sizeof(TAG) - 1 };

/* A copy of d with another value for one of its keys. */
static const cp_val *dict_but(jj_ctx *x, const jj_dict *d, const char *key, const cp_val *value)
{
    jj_dict *copy = cp_jj_dict_new(x);
    bool ok = copy != NULL;
    for (size_t i = 0; ok && i < d->n; i++)
        ok = cp_jj_dict_set(x, copy, d->e[i].key, d->e[i].val);
    return ok && cp_jj_dict_set(x, copy, cp_jj_str(x, key, strlen(key)), value)
               ? cp_jj_dict(x, JJ_DICT, copy)
               : NULL;
}

/* The last message, NULL: there is none with a text for content. */
static const cp_val *last_message(jj_ctx *x, const cp_val *vars, const cp_val **messages,
                                  const cp_val **content)
{
    const cp_val *m = cp_jj_dict_gets(x, vars->u.dict, "messages", 8);
    if (!m || m->type != JJ_LIST || !m->u.list->n)
        return NULL;
    const cp_val *last = m->u.list->v[m->u.list->n - 1];
    *messages = m;
    *content = last->type == JJ_DICT ? cp_jj_dict_gets(x, last->u.dict, "content", 7) : NULL;
    return *content && (*content)->type == JJ_STR ? last : NULL;
}

/* The variables with the tag behind the last message's content; NULL: a failure. */
static const cp_val *tagged(jj_ctx *x, const cp_val *vars, const cp_val *messages,
                            const cp_val *last, const cp_val *content)
{
    const cp_val *tag = cp_jj_str(x, TAG, TAG_WHOLE);
    const cp_val *text = tag ? cp_jj_concat(x, content, tag) : NULL;
    const cp_val *with = text ? dict_but(x, last->u.dict, "content", text) : NULL;
    jj_list *list = with ? cp_jj_items(x, messages) : NULL;
    if (!list)
        return NULL;
    list->v[list->n - 1] = with;
    const cp_val *all = cp_jj_list(x, JJ_LIST, list);
    return all ? dict_but(x, vars->u.dict, "messages", all) : NULL;
}

/* Cut the text, and with it the marks; false: what the message says is not in it (or a failure). */
static bool cut(jj_ctx *x, const jj_str *content, cp_rendered *out)
{
    const jj_str text = {.p = out->text.p, .n = out->text.n};
    const jj_str tag = {.p = TAG, .n = TAG_BARE};
    size_t begin, end, at;
    cp_jj_strip(x, content, NULL, 3, &begin, &end);
    const jj_str said = {.p = content->p + begin, .n = end - begin};
    at = cp_jj_rfind(x, &text, text.n, &tag);
    if (at >= text.n || (said.n && cp_jj_find(x, &text, 0, &said) >= text.n) || x->code != CP_OK)
        return false;
    if (text.n - at < TAG_WHOLE || memcmp(text.p + at, TAG, TAG_WHOLE) != 0) {
        const jj_str head = {.p = text.p, .n = at};
        cp_jj_strip(x, &head, NULL, 2, &begin, &at);
    }
    out->text.n = at;
    out->text.p[at] = '\0';
    while (out->n_input && out->input[out->n_input - 1].begin >= at)
        out->n_input--;
    if (out->n_input && out->input[out->n_input - 1].end > at)
        out->input[out->n_input - 1].end = at;
    return x->code == CP_OK;
}

cp_code cp_template_continue(const cp_template *t, cp_arena *a, const cp_val *vars, int64_t now,
                             cp_rendered *out, cp_err *err)
{
    jj_ctx x = {.a = a, .err = err};
    const cp_val *messages, *content;
    *out = (cp_rendered){0};
    CP_ASSERT(vars->type == JJ_DICT);
    const cp_val *last = last_message(&x, vars, &messages, &content);
    if (!last && x.code == CP_OK)
        return cp_fail_param(err, CP_INVALID_VALUE, FIELD,
                             "'%s' needs a last message with a text to go on with", FIELD);
    const cp_val *with = last ? tagged(&x, vars, messages, last, content) : NULL;
    if (!with)
        return x.code;
    cp_code code = cp_template_render(t, a, with, now, out, err);
    if (code != CP_OK || cut(&x, &content->u.s, out))
        return code;
    cp_rendered_fini(out);
    if (x.code != CP_OK)
        return x.code;
    return cp_fail_param(err, CP_INVALID_VALUE, FIELD,
                         "'%s': the model's chat template does not show the last message's content "
                         "as it is; send 'add_generation_prompt': true instead",
                         FIELD);
}
