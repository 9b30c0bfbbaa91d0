/*
 * ld, st, atom, red, cvta: each row on 16 bytes a lane of its state space. The bytes all have their
 * top bit set, so that an extension shows; lanes that do not take part change nothing; what a store
 * does not name stays.
 */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>

/* An opcode text taken apart. */
typedef struct access {
    const ptx_row *row;
    const char *space; /* global, shared, local, param, generic */
    char type;         /* b u s f */
    int bytes, count, width;
    bool half, window; /* window: of generic addresses, those of shared memory */
} access;

static bool has(const char *text, const char *part)
{
    const size_t n = strlen(part);
    for (const char *at = text; (at = strstr(at, part)); at++) {
        if (at > text && at[-1] == '.' && (at[n] == '.' || at[n] == '\0' || at[n] == ':'))
            return true;
    }
    return false;
}

static access access_of(const ptx_row *row)
{
    const char *type = strrchr(row->text, '.') + 1;
    return (access){
        .row = row,
        .space = has(row->text, "shared")                              ? "shared"
                 : has(row->text, "local")                             ? "local"
                 : has(row->text, "param")                             ? "param"
                 : has(row->text, "global") || has(row->text, "const") ? "global"
                                                                       : "generic",
        .type = *type,
        .bytes = (int)strtol(type + 1, NULL, 10) / 8,
        .count = has(row->text, "v4")   ? 4
                 : has(row->text, "v2") ? 2
                                        : 1,
    };
}

/* %rd4: the lane's 16 bytes in the row's space, with what lies at in + 16 lane; %rd2, %rd3: the
 * lane's places in the buffers (16 and 64 bytes a lane). */
static void prepare(rowtest_text *t, const access *a)
{
    rowtest_add(t,
                "mul.wide.u32 %%rd2, %%r0, 16;\nmul.wide.u32 %%rd3, %%r0, 64;\n"
                "mov.u64 %%rd5, %s;\nadd.s64 %%rd5, %%rd5, %%rd2;\n"
                "add.s64 %%rd2, %%rd0, %%rd2;\nadd.s64 %%rd3, %%rd1, %%rd3;\n"
                "and.b32 %%r2, %%r0, 1;\nsetp.eq.u32 %%p1, %%r2, 0;\n",
                strcmp(a->space, "local") == 0 ? "lo" : "sh");
    const char *filled = a->window ? "shared" : a->space;
    if (strcmp(filled, "global") == 0 || strcmp(filled, "generic") == 0)
        rowtest_add(t, "mov.b64 %%rd4, %%rd2;\n");
    else if (strcmp(filled, "param") == 0)
        rowtest_add(t, "mov.b64 %%rd4, k_in;\n");
    else
        rowtest_add(t, "mov.b64 %%rd4, %s;\n", strcmp(filled, "shared") == 0 ? "%rd5" : "lo");
    if (strcmp(filled, "shared") == 0 || strcmp(filled, "local") == 0)
        rowtest_add(t,
                    "ld.global.b64 %%rd6, [%%rd2];\nld.global.b64 %%rd7, [%%rd2+8];\n"
                    "st.%s.b64 [%%rd4], %%rd6;\nst.%s.b64 [%%rd4+8], %%rd7;\n",
                    filled, filled);
    if (a->window)
        rowtest_add(t, "cvta.shared.u64 %%rd4, %%rd4;\n");
}

/* The lane's 16 bytes to out + 48. */
static void dump(rowtest_text *t, const access *a)
{
    char space[16] = "";
    if (strcmp(a->space, "generic") != 0)
        snprintf(space, sizeof space, ".%s", a->space);
    rowtest_add(t,
                "ld%s.b64 %%rd6, [%%rd4];\nld%s.b64 %%rd7, [%%rd4+8];\n"
                "st.global.b64 [%%rd3+48], %%rd6;\nst.global.b64 [%%rd3+56], %%rd7;\n",
                space, space);
}

static const char *prefix(int width)
{
    return width == 2 ? "rs" : width == 4 ? "r" : "rd";
}

static void vector_of(rowtest_text *t, const access *a)
{
    rowtest_add(t, "%s", a->count > 1 ? "{" : "");
    for (int k = 0; k < a->count; k++)
        rowtest_add(t, "%s%%%s%d", k ? ", " : "", prefix(a->width), 8 + k);
    rowtest_add(t, "%s", a->count > 1 ? "}" : "");
}

static uint8_t in[32][16], out[32][64];

static void run(const access *a, rowtest_text *t)
{
    dump(t, a);
    memset(out, 0, sizeof out);
    for (int l = 0; l < 32; l++) {
        for (int k = 0; k < 16; k++)
            in[l][k] = (uint8_t)(0x80 + 7 * l + 3 * k) | 0x80;
    }
    const char *err = rowtest_run(t->at, in, sizeof in, out, sizeof out);
    if (err)
        fail_msg("%s: %s", a->row->text, err);
    free(t->at);
}

/* The lane's bytes as they were before. */
static void before(const access *a, int lane, uint8_t bytes[16])
{
    const uint64_t params[2] = {ROWTEST_IN, ROWTEST_OUT};
    for (int k = 0; k < 16; k++)
        bytes[k] = (uint8_t)(0x80 + 7 * lane + 3 * k) | 0x80;
    if (strcmp(a->space, "param") == 0)
        memcpy(bytes, params, 16);
}

#define OLD 0x1122334455667788u

static void try_load(const access *a)
{
    rowtest_text t = {0};
    prepare(&t, a);
    rowtest_add(&t, "sub.s64 %%rd8, %%rd4, 32;\nmov.b64 %%rd9, %%rd8;\n");
    rowtest_add(&t,
                "mov.b64 %%rd20, %llu;\ncvt.u32.u64 %%r20, %%rd20;\ncvt.u16.u64 %%rs20, %%rd20;\n",
                (unsigned long long)OLD);
    rowtest_add(&t, "mov.b64 %%rd21, %%rd8;\n");
    for (int k = 0; k < a->count; k++)
        rowtest_add(&t, "mov.b%d %%%s%d, %%%s20;\n", 8 * a->width, prefix(a->width), 8 + k,
                    prefix(a->width));
    rowtest_add(&t, "%s%s ", a->half ? "@%p1 " : "", a->row->text);
    vector_of(&t, a);
    rowtest_add(&t, ", [%%rd21+32];\n");
    for (int k = 0; k < a->count; k++)
        rowtest_add(&t, "st.global.b%d [%%rd3+%d], %%%s%d;\n", 8 * a->width, 8 * k,
                    prefix(a->width), 8 + k);
    run(a, &t);
    for (int l = 0; l < 32; l++) {
        uint8_t bytes[16];
        before(a, l, bytes);
        for (int k = 0; k < a->count; k++) {
            uint64_t want = 0, got = 0;
            memcpy(&got, out[l] + 8 * k, 8);
            memcpy(&want, bytes + k * a->bytes, (size_t)a->bytes);
            if (a->type == 's' && want >> (8 * a->bytes - 1) & 1 && a->bytes < 8)
                want |= ~(uint64_t)0 << 8 * a->bytes;
            if (a->half && l % 2)
                want = OLD;
            if (a->width < 8)
                want &= ((uint64_t)1 << 8 * a->width) - 1;
            if (got != want)
                fail_msg("%s, width %d, lane %d, element %d: %#llx, not %#llx", a->row->text,
                         a->width, l, k, (unsigned long long)got, (unsigned long long)want);
        }
        assert_memory_equal(out[l] + 48, bytes, 16);
    }
}

static void try_store(const access *a)
{
    rowtest_text t = {0};
    prepare(&t, a);
    rowtest_add(&t, "sub.s64 %%rd21, %%rd4, 32;\n");
    for (int k = 0; k < a->count; k++)
        rowtest_add(&t,
                    "mov.b64 %%rd20, %llu;\nadd.s64 %%rd20, %%rd20, %%rd2;\n"
                    "cvt.u32.u64 %%r20, %%rd20;\ncvt.u16.u64 %%rs20, %%rd20;\n"
                    "mov.b%d %%%s%d, %%%s20;\n",
                    (unsigned long long)(OLD + (uint64_t)k * 0x0101010101010101u), 8 * a->width,
                    prefix(a->width), 8 + k, prefix(a->width));
    rowtest_add(&t, "%s%s [%%rd21+32], ", a->half ? "@%p1 " : "", a->row->text);
    vector_of(&t, a);
    rowtest_add(&t, ";\n");
    run(a, &t);
    for (int l = 0; l < 32; l++) {
        uint8_t bytes[16];
        before(a, l, bytes);
        for (int k = 0; k < a->count && !(a->half && l % 2); k++) {
            const uint64_t v =
                OLD + (uint64_t)k * 0x0101010101010101u + ROWTEST_IN + 16 * (uint64_t)l;
            memcpy(bytes + k * a->bytes, &v, (size_t)a->bytes);
        }
        if (memcmp(out[l] + 48, bytes, 16) != 0)
            fail_msg("%s, width %d, lane %d: other bytes than were stored", a->row->text, a->width,
                     l);
    }
}

/* ---- atom, red ---- */

typedef struct update {
    const char *op, *types;
    uint64_t old, b, c, after;
} update;
static const update updates[] = {
    {"add", "u32 s32", 0xffffffff, 3, 0, 2},
    {"add", "u64", 0xffffffffffffffff, 3, 0, 2},
    {"add", "u64", 0xffffffff, 1, 0, 0x100000000},
    {"min", "u32", 0xffffffff, 3, 0, 3},
    {"min", "s32", 0xffffffff, 3, 0, 0xffffffff},
    {"min", "u64", 0xffffffffffffffff, 3, 0, 3},
    {"min", "s64", 0xffffffffffffffff, 3, 0, 0xffffffffffffffff},
    {"max", "u32", 0xffffffff, 3, 0, 0xffffffff},
    {"max", "s32", 0xffffffff, 3, 0, 3},
    {"max", "u64", 0xffffffffffffffff, 3, 0, 0xffffffffffffffff},
    {"max", "s64", 0xffffffffffffffff, 3, 0, 3},
    {"and", "b32", 0xff00ff00, 0x0ff00ff0, 0, 0x0f000f00},
    {"or", "b32", 0xff00ff00, 0x0ff00ff0, 0, 0xfff0fff0},
    {"xor", "b32", 0xff00ff00, 0x0ff00ff0, 0, 0xf0f0f0f0},
    {"exch", "b32", 0xff00ff00, 5, 0, 5},
    {"exch", "b64", 0xff00ff0000000000, 5, 0, 5},
    {"cas", "b32", 7, 7, 9, 9},
    {"cas", "b32", 7, 8, 9, 7},
    {"cas", "b64", 0x700000000, 0x700000000, 9, 9},
    {"cas", "b64", 0x700000000, 0, 9, 0x700000000},
};

/* Each lane its own place; or, shared: all lanes the place of lane 0 (sums alone, so that the order
 * does not count). */
static void try_update(const access *a, const update *u, bool one_place)
{
    rowtest_text t = {0};
    const bool gives = a->row->text[0] == 'a';
    const char *r = a->bytes == 8 ? "rd" : "r";
    prepare(&t, a);
    rowtest_add(&t,
                "mov.b%d %%%s8, %llu;\nmov.b%d %%%s9, %llu;\nmov.b%d %%%s10, %llu;\n"
                "mov.b%d %%%s11, 77;\nst.%s.b%d [%%rd4], %%%s8;\nbar.sync 0;\n",
                8 * a->bytes, r, (unsigned long long)u->old, 8 * a->bytes, r,
                (unsigned long long)u->b, 8 * a->bytes, r, (unsigned long long)u->c, 8 * a->bytes,
                r, a->space, 8 * a->bytes, r);
    rowtest_add(&t, "mov.b64 %%rd22, %%rd4;\n");
    if (one_place)
        rowtest_add(&t, "mul.wide.u32 %%rd23, %%r0, 16;\nsub.s64 %%rd22, %%rd4, %%rd23;\n");
    rowtest_add(&t, "%s%s ", a->half ? "@%p1 " : "", a->row->text);
    if (gives)
        rowtest_add(&t, "%%%s11, ", r);
    rowtest_add(&t, "[%%rd22], %%%s9%s%s%s;\nbar.sync 0;\nst.global.b%d [%%rd3], %%%s11;\n", r,
                strcmp(u->op, "cas") == 0 ? ", %" : "", strcmp(u->op, "cas") == 0 ? r : "",
                strcmp(u->op, "cas") == 0 ? "10" : "", 8 * a->bytes, r);
    run(a, &t);
    const uint64_t mask = a->bytes == 8 ? UINT64_MAX : UINT32_MAX;
    for (int l = 0; l < 32; l++) {
        uint64_t after = 0, given = 0;
        const bool acts = !a->half || l % 2 == 0;
        uint64_t want = acts && !one_place ? u->after : u->old;
        memcpy(&after, out[l] + 48, (size_t)a->bytes);
        memcpy(&given, out[l], (size_t)a->bytes);
        if (one_place && l == 0)
            want = (u->old + u->b * (a->half ? 16 : 32)) & mask;
        if (after != want)
            fail_msg("%s, lane %d: leaves %#llx, not %#llx", a->row->text, l,
                     (unsigned long long)after, (unsigned long long)want);
        if (gives && !one_place && given != (acts ? u->old : 77))
            fail_msg("%s, lane %d: gives %#llx", a->row->text, l, (unsigned long long)given);
    }
}

static void try_updates(access *a)
{
    char op[8];
    const char *type = strrchr(a->row->text, '.') + 1, *at = type - 1;
    int n = 0;
    while (at[-1] != '.')
        at--;
    snprintf(op, sizeof op, "%.*s", (int)(type - 1 - at), at);
    for (size_t k = 0; k < sizeof updates / sizeof *updates; k++) {
        if (strcmp(updates[k].op, op) != 0 || !strstr(updates[k].types, type))
            continue;
        for (int half = 0; half < 2; half++, n++) {
            a->half = half;
            try_update(a, &updates[k], false);
            if (strcmp(op, "add") == 0)
                try_update(a, &updates[k], true);
        }
    }
    if (n == 0)
        fail_msg("%s: no value in the test", a->row->text);
}

/* ---- cvta: a generic address reaches the space, and comes back ---- */

static void try_address(const ptx_row *row)
{
    access a = access_of(row);
    rowtest_text t = {0};
    const char *name = strrchr(row->text, '.');
    while (name[-1] != '.')
        name--;
    char space[16];
    snprintf(space, sizeof space, "%.*s", (int)(strrchr(row->text, '.') - name), name);
    prepare(&t, &a);
    rowtest_add(&t,
                "cvta.%s.u64 %%rd8, %%rd4;\nld.b64 %%rd9, [%%rd8];\ncvta.to.%s.u64 %%rd10, %%rd8;\n"
                "sub.s64 %%rd10, %%rd10, %%rd4;\n"
                "st.global.b64 [%%rd3], %%rd9;\nst.global.b64 [%%rd3+8], %%rd10;\n",
                space, space);
    run(&a, &t);
    for (int l = 0; l < 32; l++) {
        uint8_t bytes[16];
        uint64_t difference;
        before(&a, l, bytes);
        memcpy(&difference, out[l] + 8, 8);
        if (memcmp(out[l], bytes, 8) != 0 || difference != 0)
            fail_msg("%s: the generic address is another place's", row->text);
    }
}

void rowtest_memory(void **state)
{
    (void)state;
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        const ptx_row *row = rowtest_row(n);
        const bool load = strncmp(row->text, "ld.", 3) == 0;
        if (strncmp(row->text, "cvta.", 5) == 0) {
            try_address(row);
            rowtest_tried(row);
        }
        if (strncmp(row->text, "atom.", 5) == 0 || strncmp(row->text, "red.", 4) == 0) {
            access a = access_of(row);
            try_updates(&a);
            rowtest_tried(row);
        }
        if (!load && strncmp(row->text, "st.", 3) != 0)
            continue;
        access a = access_of(row);
        for (int width = a.bytes < 2 ? 2 : a.bytes; width <= 8; width *= 2) {
            a.width = width;
            for (int turn = 0; turn < 4; turn++) {
                a.half = turn & 1;
                a.window = turn & 2;
                if (!a.window || strcmp(a.space, "generic") == 0)
                    (load ? try_load : try_store)(&a);
            }
        }
        rowtest_tried(row);
    }
}
