/*
 * Values: constructors, lists, ordered dicts, the budget of a rendering, and the public cp_val
 * functions.
 *
 * A dict keeps its entries in insertion order and grows an open-addressing index once it has eight
 * of them, so a client cannot make a long object quadratic. The hash is mixed with an address of
 * the running process, which a client does not know; a look-up charges the bytes of its key and the
 * entries that it passes, so a template that finds keys which collide pays for them. Removed
 * entries leave holes that the next growth squeezes out; who walks a dict charges holes, too.
 */
#include "chat/jinja/value.h"

#include <stdio.h>
#include <string.h>

enum { INDEX_FROM = 8, LIST_FIRST = 4 };

const cp_val cp_jj_none = {.type = JJ_NONE};
const cp_val cp_jj_true = {.type = JJ_BOOL, .u.b = true};
const cp_val cp_jj_false = {.type = JJ_BOOL, .u.b = false};
const cp_val cp_jj_undef = {.type = JJ_UNDEF, .u.s = {.p = "the value is undefined", .n = 22}};
const cp_val cp_jj_empty = {.type = JJ_STR, .u.s = {.p = "", .n = 0}};

/* ---- failures and budget ---- */

void cp_jj_fail(jj_ctx *x, const char *fmt, ...)
{
    if (x->code != CP_OK)
        return;
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    x->code = x->line ? cp_fail(x->err, CP_TEMPLATE, "line %u: %s", x->line, msg)
                      : cp_fail(x->err, CP_TEMPLATE, "%s", msg);
}

void cp_jj_fail_memory(jj_ctx *x)
{
    if (x->code == CP_OK)
        x->code = cp_fail(x->err, CP_NO_MEMORY,
                          "chat template: the memory of the request is used up (%zu bytes)",
                          cp_arena_used(x->a));
}

bool cp_jj_step(jj_ctx *x, size_t n)
{
    if (x->code != CP_OK)
        return false;
    uint64_t most = JJ_MAX_STEPS + x->more_steps;
    if (n > most - x->steps) {
        x->steps = most;
        cp_jj_fail(x, "the template takes more than %llu steps", (unsigned long long)most);
        return false;
    }
    x->steps += n;
    return true;
}

bool cp_jj_work(jj_ctx *x, size_t n, size_t weight)
{
    size_t work;
    if (!cp_mul(n, weight, &work) || !cp_add(work, x->work, &work))
        work = SIZE_MAX;
    x->work = work % JJ_STEP_BYTES;
    return cp_jj_step(x, work / JJ_STEP_BYTES);
}

bool cp_jj_work_items(jj_ctx *x, size_t n)
{
    return cp_jj_work(x, n, sizeof(void *));
}

void *cp_jj_alloc(jj_ctx *x, size_t n)
{
    if (x->code != CP_OK)
        return NULL;
    void *p = cp_arena_alloc(x->a, n);
    if (!p)
        cp_jj_fail_memory(x);
    return p;
}

/* ---- scalars ---- */

static cp_val *make(jj_ctx *x, jj_type type)
{
    cp_val *v = cp_jj_alloc(x, sizeof(*v));
    if (v)
        v->type = type;
    return v;
}

const cp_val *cp_jj_undefined(jj_ctx *x, const char *fmt, ...)
{
    char msg[160];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(msg) ? (size_t)n : sizeof(msg) - 1;
    cp_val *v = make(x, JJ_UNDEF);
    char *p = v ? cp_jj_alloc(x, len + 1) : NULL;
    if (!p)
        return NULL;
    memcpy(p, msg, len);
    v->u.s = (jj_str){.p = p, .n = len};
    return v;
}

const cp_val *cp_jj_bool(bool b)
{
    return b ? &cp_jj_true : &cp_jj_false;
}

const cp_val *cp_jj_int(jj_ctx *x, int64_t i)
{
    cp_val *v = make(x, JJ_INT);
    if (v)
        v->u.i = i;
    return v;
}

const cp_val *cp_jj_float(jj_ctx *x, double f)
{
    cp_val *v = make(x, JJ_FLOAT);
    if (v)
        v->u.f = f;
    return v;
}

static cp_val *make_str(jj_ctx *x, const char *s, size_t n, bool marked)
{
    size_t size;
    cp_val *v = make(x, JJ_STR);
    if (!v)
        return NULL;
    char *p = cp_add(n, 1, &size) ? cp_jj_alloc(x, size) : NULL;
    if (!p) {
        cp_jj_fail_memory(x);
        return NULL;
    }
    if (n)
        memcpy(p, s, n);
    v->u.s = (jj_str){.p = p, .n = n, .all = marked && n};
    return v;
}

const cp_val *cp_jj_str(jj_ctx *x, const char *s, size_t n)
{
    return make_str(x, s, n, false);
}

const char *cp_jj_type_name(const cp_val *v)
{
    static const char *const names[] = {"Undefined", "NoneType", "bool",      "int",
                                        "float",     "str",      "list",      "tuple",
                                        "dict",      "view",     "generator", "range",
                                        "Namespace", "Macro",    "function",  "LoopContext"};
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    return v->type == JJ_VIEW ? views[v->u.view.kind] : names[v->type];
}

/* ---- lists ---- */

jj_list *cp_jj_list_new(jj_ctx *x, size_t cap)
{
    jj_list *l = cp_jj_alloc(x, sizeof(*l));
    size_t bytes;
    if (!l || !cap)
        return l;
    if (!cp_mul(cap, sizeof(*l->v), &bytes)) {
        cp_jj_fail_memory(x);
        return NULL;
    }
    l->v = cp_jj_alloc(x, bytes);
    l->cap = cap;
    return l->v ? l : NULL;
}

bool cp_jj_list_push(jj_ctx *x, jj_list *l, const cp_val *v)
{
    if (!v || !l)
        return false;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : LIST_FIRST;
        const cp_val **grown = cp_jj_alloc(x, cap * sizeof(*grown));
        if (!grown)
            return false;
        if (l->n)
            memcpy(grown, l->v, l->n * sizeof(*grown));
        l->v = grown;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return true;
}

const cp_val *cp_jj_list(jj_ctx *x, jj_type type, jj_list *list)
{
    cp_val *v = list ? make(x, type) : NULL;
    if (v)
        v->u.list = list;
    return v;
}

const cp_val *cp_jj_pair(jj_ctx *x, const cp_val *a, const cp_val *b)
{
    jj_list *l = cp_jj_list_new(x, 2);
    return l && cp_jj_list_push(x, l, a) && cp_jj_list_push(x, l, b) ? cp_jj_list(x, JJ_TUPLE, l)
                                                                     : NULL;
}

const cp_val *cp_jj_gen(jj_ctx *x, jj_list *items)
{
    cp_val *v = items ? make(x, JJ_GEN) : NULL;
    jj_gen *g = v ? cp_jj_alloc(x, sizeof(*g)) : NULL;
    if (!g)
        return NULL;
    g->items = items;
    v->u.gen = g;
    return v;
}

/* ---- dicts ---- */

const cp_val *cp_jj_dict(jj_ctx *x, jj_type type, jj_dict *dict)
{
    cp_val *v = dict ? make(x, type) : NULL;
    if (v)
        v->u.dict = dict;
    return v;
}

jj_dict *cp_jj_dict_new(jj_ctx *x)
{
    return cp_jj_alloc(x, sizeof(jj_dict));
}

__extension__ typedef unsigned __int128 u128;

static uint64_t mix(uint64_t a, uint64_t b)
{
    u128 m = (u128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t cp_jj_secret(void)
{
    return (uint64_t)(uintptr_t)&cp_jj_none * 0x9fb21c651e98df25u;
}

/* One product alone is not enough: its factor holds the secret, and one secret in a thousand makes
 * a factor whose multiples of 1, 2, 3, ... crowd in the low bits. */
uint64_t cp_jj_hash_int(uint64_t i, uint64_t secret)
{
    return cp_jj_spread(mix(i ^ 0xa0761d6478bd642fu ^ secret, 0x9e3779b97f4a7c15u ^ secret));
}

uint64_t cp_jj_hash_bytes(const char *p, size_t n, uint64_t secret)
{
    const uint64_t k0 = 0xa0761d6478bd642fu ^ secret, k1 = 0xe7037ed1a0b428dbu ^ secret;
    uint64_t h = mix(k0, n ^ k1), w;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&w, p, 8);
        h = mix(h ^ w ^ k0, k1);
    }
    w = 0;
    if (n)
        memcpy(&w, p, n);
    return cp_jj_spread(mix(h ^ w ^ k1, k0));
}

/* Hash of a key; false: not hashable (or a failure). Numbers that are equal hash alike, whatever
 * their type. */
static bool hash_key(jj_ctx *x, const cp_val *v, int depth, uint64_t *h)
{
    uint64_t bits;
    double f;
    if (!cp_jj_work(x, v->type == JJ_STR ? v->u.s.n : JJ_PIECE, JJ_COPY))
        return false;
    switch (v->type) {
    case JJ_STR:
        *h = cp_jj_hash_bytes(v->u.s.p, v->u.s.n, cp_jj_secret());
        return true;
    case JJ_BOOL:
        *h = cp_jj_hash_int(v->u.b, cp_jj_secret());
        return true;
    case JJ_INT:
        *h = cp_jj_hash_int((uint64_t)v->u.i, cp_jj_secret());
        return true;
    case JJ_FLOAT:
        f = v->u.f;
        if (f >= -9.2e18 && f <= 9.2e18 && (double)(int64_t)f == f) {
            *h = cp_jj_hash_int((uint64_t)(int64_t)f, cp_jj_secret());
            return true;
        }
        memcpy(&bits, &f, sizeof(bits));
        *h = cp_jj_hash_int(~bits, cp_jj_secret());
        return true;
    case JJ_TUPLE:
        *h = v->u.list->n;
        for (size_t i = 0; i < v->u.list->n; i++) {
            if (depth >= JJ_MAX_DEPTH || !hash_key(x, v->u.list->v[i], depth + 1, &bits))
                return false;
            *h = mix(*h ^ bits, 0xe7037ed1a0b428dbu);
        }
        return true;
    case JJ_LIST:
    case JJ_DICT:
    case JJ_VIEW:
        return false;
    case JJ_NONE:
    case JJ_UNDEF:
        *h = (uint64_t)v->type;
        return true;
    case JJ_FUNC:
        *h = cp_jj_spread((uint64_t)(uintptr_t)v->u.func.row);
        return true;
    default:
        *h = cp_jj_spread((uint64_t)(uintptr_t)v);
        return true;
    }
}

uint64_t cp_jj_hash(jj_ctx *x, const cp_val *v)
{
    uint64_t h = 0;
    if (!hash_key(x, v, 0, &h)) /* does nothing after a failure */
        cp_jj_fail(x, "a %s cannot be a key", cp_jj_type_name(v));
    return h;
}

/* The entry of key; NULL: absent or failed. */
static jj_entry *dict_find(jj_ctx *x, const jj_dict *d, const cp_val *key, uint64_t h)
{
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++) {
            if (d->e[i].hash == h && cp_jj_equal(x, d->e[i].key, key))
                return &d->e[i];
        }
        return NULL;
    }
    for (size_t i = h & (d->n_index - 1); d->index[i]; i = (i + 1) & (d->n_index - 1)) {
        jj_entry *e = &d->e[d->index[i] - 1];
        if (!cp_jj_work(x, JJ_PIECE, JJ_COPY))
            return NULL;
        if (e->hash == h && cp_jj_equal(x, e->key, key))
            return e;
    }
    return NULL;
}

/* Room for one more entry: double the arrays, rebuild the index at twice the entries. */
static bool dict_grow(jj_ctx *x, jj_dict *d)
{
    size_t cap = d->n < LIST_FIRST ? LIST_FIRST : d->n * 2;
    jj_entry *e = cp_jj_alloc(x, cap * sizeof(*e));
    if (!e)
        return false;
    if (d->n)
        memcpy(e, d->e, d->n * sizeof(*e));
    uint32_t *index = NULL;
    size_t n_index = 0;
    if (cap >= INDEX_FROM) {
        for (n_index = 16; n_index < cap * 2;)
            n_index *= 2;
        if (n_index > UINT32_MAX / 2 || !(index = cp_jj_alloc(x, n_index * sizeof(*index))))
            return false;
        for (size_t k = 0; k < d->n; k++) {
            size_t i = e[k].hash & (n_index - 1);
            while (index[i])
                i = (i + 1) & (n_index - 1);
            index[i] = (uint32_t)(k + 1);
        }
    }
    d->e = e;
    d->cap = cap;
    d->index = index;
    d->n_index = n_index;
    return true;
}

bool cp_jj_dict_set(jj_ctx *x, jj_dict *d, const cp_val *key, const cp_val *v)
{
    if (!key || !v || !d)
        return false;
    uint64_t h = cp_jj_hash(x, key);
    jj_entry *e = x->code == CP_OK ? dict_find(x, d, key, h) : NULL;
    if (x->code != CP_OK)
        return false;
    if (e) {
        e->val = v;
        return true;
    }
    if (d->n == d->cap && !dict_grow(x, d))
        return false;
    if (d->index) {
        size_t i = h & (d->n_index - 1);
        while (d->index[i])
            i = (i + 1) & (d->n_index - 1);
        d->index[i] = (uint32_t)(d->n + 1);
    }
    d->e[d->n++] = (jj_entry){.key = key, .val = v, .hash = h};
    return true;
}

const cp_val *cp_jj_dict_get(jj_ctx *x, const jj_dict *d, const cp_val *key)
{
    uint64_t h = cp_jj_hash(x, key);
    jj_entry *e = x->code == CP_OK ? dict_find(x, d, key, h) : NULL;
    return e && x->code == CP_OK ? e->val : NULL;
}

const cp_val *cp_jj_dict_gets(jj_ctx *x, const jj_dict *d, const char *key, size_t n)
{
    const cp_val k = {.type = JJ_STR, .u.s = {.p = key, .n = n}};
    return cp_jj_dict_get(x, d, &k);
}

jj_list *cp_jj_dict_list(jj_ctx *x, const jj_dict *d, jj_view_kind kind)
{
    bool paid = cp_jj_work_items(x, d->n) && cp_jj_step(x, d->n);
    jj_list *l = paid ? cp_jj_list_new(x, d->n) : NULL;
    for (size_t i = 0; l && i < d->n; i++) {
        const jj_entry *e = &d->e[i];
        const cp_val *v = kind == JJ_KEYS     ? e->key
                          : kind == JJ_VALUES ? e->val
                                              : cp_jj_pair(x, e->key, e->val);
        if (!cp_jj_list_push(x, l, v))
            return NULL;
    }
    return l;
}

/* ---- the public constructors ---- */

cp_val *cp_val_none(cp_arena *a)
{
    return make(&(jj_ctx){.a = a}, JJ_NONE);
}

cp_val *cp_val_bool(cp_arena *a, bool b)
{
    cp_val *v = make(&(jj_ctx){.a = a}, JJ_BOOL);
    if (v)
        v->u.b = b;
    return v;
}

cp_val *cp_val_int(cp_arena *a, int64_t i)
{
    cp_val *v = make(&(jj_ctx){.a = a}, JJ_INT);
    if (v)
        v->u.i = i;
    return v;
}

cp_val *cp_val_float(cp_arena *a, double f)
{
    cp_val *v = make(&(jj_ctx){.a = a}, JJ_FLOAT);
    if (v)
        v->u.f = f;
    return v;
}

cp_val *cp_val_str(cp_arena *a, const char *s, size_t n, bool is_input)
{
    return make_str(&(jj_ctx){.a = a}, s, n, is_input);
}

cp_val *cp_val_list(cp_arena *a)
{
    jj_ctx x = {.a = a};
    cp_val *v = make(&x, JJ_LIST);
    if (v)
        v->u.list = cp_jj_list_new(&x, 0);
    return v && v->u.list ? v : NULL;
}

bool cp_val_push(cp_arena *a, cp_val *list, cp_val *item)
{
    CP_ASSERT(list->type == JJ_LIST);
    return cp_jj_list_push(&(jj_ctx){.a = a}, list->u.list, item);
}

cp_val *cp_val_dict(cp_arena *a)
{
    jj_ctx x = {.a = a};
    cp_val *v = make(&x, JJ_DICT);
    if (v)
        v->u.dict = cp_jj_dict_new(&x);
    return v && v->u.dict ? v : NULL;
}

bool cp_val_set(cp_arena *a, cp_val *dict, const char *key, cp_val *v)
{
    return cp_val_setn(a, dict, key, strlen(key), false, v);
}

bool cp_val_setn(cp_arena *a, cp_val *dict, const char *key, size_t n, bool is_input, cp_val *v)
{
    CP_ASSERT(dict->type == JJ_DICT);
    jj_ctx x = {.a = a};
    return cp_jj_dict_set(&x, dict->u.dict, make_str(&x, key, n, is_input), v);
}
