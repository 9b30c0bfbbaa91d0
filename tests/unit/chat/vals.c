/*
 * Test helper: JSON text to public cp_val trees. The JSON reader is the engine's own (from_json);
 * its tree is copied through the public constructors, so that these are exercised, and the copy is
 * read-only for templates.
 */
#include "tests/unit/chat/vals.h"

#include <string.h>

static bool is_ours(const jj_str *key)
{
    return cp_jj_str_is(key, "role") || cp_jj_str_is(key, "bos_token") ||
           cp_jj_str_is(key, "eos_token");
}

static cp_val *copy(cp_arena *a, const cp_val *v, bool mark)
{
    cp_val *r = NULL;
    switch (v->type) {
    case JJ_NONE:
        return cp_val_none(a);
    case JJ_BOOL:
        return cp_val_bool(a, v->u.b);
    case JJ_INT:
        return cp_val_int(a, v->u.i);
    case JJ_FLOAT:
        return cp_val_float(a, v->u.f);
    case JJ_STR:
        return cp_val_str(a, v->u.s.p, v->u.s.n, mark);
    case JJ_LIST:
        r = cp_val_list(a);
        for (size_t i = 0; r && i < v->u.list->n; i++) {
            cp_val *item = copy(a, v->u.list->v[i], mark);
            if (!item || !cp_val_push(a, r, item))
                return NULL;
        }
        return r;
    default:
        r = cp_val_dict(a);
        for (size_t i = 0; r && i < v->u.dict->n; i++) {
            const jj_entry *e = &v->u.dict->e[i];
            const jj_str *k = &e->key->u.s;
            cp_val *item = copy(a, e->val, mark && !is_ours(k));
            if (!item || !cp_val_setn(a, r, k->p, k->n, mark, item))
                return NULL;
        }
        return r;
    }
}

cp_val *cp_test_vals(cp_arena *a, const char *json, size_t n, bool mark)
{
    jj_ctx x = {.a = a};
    jj_str text = {.p = json, .n = n};
    const cp_val *v = cp_jj_json_parse(&x, &text);
    return v ? copy(a, v, mark) : NULL;
}
