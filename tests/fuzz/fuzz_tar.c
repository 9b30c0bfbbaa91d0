// deps: loader
/*
 * Fuzz target: a tar. The first byte picks how it is read (bit 0: an image's, or a folder's; bit 1:
 * with every block's header checksum made right, so that mutations get past it). Members that
 * are accepted lie within the bytes, in order, without overlap; a stream of short reads finds the
 * same ones; and the list that an extraction keeps of them says the same when it is read back.
 */
#include "loader/oci/content/members.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

typedef struct trickle {
    cp_tar_memory m;
    unsigned step;
} trickle;

static cp_code trickle_read(void *arg, void *p, size_t n, size_t *got, cp_err *err)
{
    trickle *t = arg;
    cp_tar_source s = cp_tar_from_memory(&t->m);
    size_t k = 1 + t->step++ % 600;
    return s.read(&t->m, p, n < k ? n : k, got, err);
}

/* Both readings of the archive, side by side, up to the first error. */
static void compare(const uint8_t *p, size_t n)
{
    cp_tar_memory memory = {.p = p, .n = n};
    trickle slow = {.m = {.p = p, .n = n}};
    cp_tar_source whole = cp_tar_from_memory(&memory),
                  stream = {.read = trickle_read, .arg = &slow, .limit = UINT64_MAX};
    cp_tar a, b;
    cp_tar_member x, y;
    bool end = false, end_b = false;
    uint64_t after = 0;
    cp_tar_init(&a, &whole);
    cp_tar_init(&b, &stream);
    while (!end && cp_tar_next(&a, &x, &end, NULL) == CP_OK && !end) {
        check(cp_tar_next(&b, &y, &end_b, NULL) == CP_OK && !end_b);
        check(strcmp(x.path, y.path) == 0 && x.kind == y.kind && x.offset == y.offset &&
              x.size == y.size);
        check(x.offset >= after + 512 && x.offset <= n && x.size <= n - x.offset);
        after = x.offset + x.size;
        size_t at = 0, got = 1;
        uint8_t chunk[100];
        while ((x.size & 1) && got) { /* the bytes too, of every other one */
            check(cp_tar_data(&b, chunk, sizeof(chunk), &got, NULL) == CP_OK);
            check(memcmp(chunk, p + x.offset + at, got) == 0);
            at += got;
        }
        check(!(x.size & 1) || at == x.size);
    }
    cp_tar_fini(&a);
    cp_tar_fini(&b);
}

static void list_again(const cp_members *m, bool image)
{
    static const char hex[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    cp_buf text = {0};
    cp_members_write(m, hex, image, &text);
    cp_members *back = cp_members_new();
    cp_buf copy = {0};
    cp_buf_add(&copy, text.p, text.n);
    check(!cp_members_read(back, hex, !image, &copy) && back->n == 0);
    check(cp_members_read(back, hex, image, &text) && back->n == m->n);
    for (size_t i = 0; i < m->n; i++) {
        const cp_member *x = &m->v[i], *y = &back->v[i];
        check(x->kind == y->kind && strcmp(x->path, y->path) == 0 &&
              (x->kind != CP_MEMBER_FILE || x->size == y->size) && x->type == y->type);
    }
    cp_members_free(back);
    cp_buf_fini(&text);
    cp_buf_fini(&copy);
}

/* Every block that is not all zeros gets the checksum that a header would have. */
static void repair(uint8_t *p, size_t n)
{
    for (size_t at = 0; at + 512 <= n; at += 512) {
        unsigned sum = 8 * ' ';
        for (size_t i = 0; i < 512; i++)
            sum += i >= 148 && i < 156 ? 0 : p[at + i];
        if (sum == 8 * ' ')
            continue;
        char text[8] = {0};
        cp_snprintf(text, sizeof(text), "%06o", sum);
        memcpy(p + at + 148, text, 8);
    }
}

static void one(const uint8_t *p, size_t n, bool image)
{
    cp_members *m;
    cp_err err = {0};
    compare(p, n);
    cp_code code = cp_members_of_tar(&m, p, n, image, &err);
    if (code) {
        check(!m && err.code == code && err.msg[0]);
        check(code == CP_CORRUPT || code == CP_UNSUPPORTED);
        return;
    }
    for (size_t i = 0; i < m->n; i++) {
        cp_member *e = &m->v[i];
        check(e->path && !strstr(e->path, "//") && strcmp(e->path, "..") != 0 &&
              strncmp(e->path, "../", 3) != 0 && !strstr(e->path, "/../") && e->path[0] != '/');
        check(!image || e->kind == CP_MEMBER_WHITEOUT || e->kind == CP_MEMBER_OPAQUE ||
              strncmp(e->path, "models", 6) == 0);
        if (e->kind == CP_MEMBER_FILE && i % 3 == 0)
            e->number = (int)i; /* as if extracted */
    }
    list_again(m, image);
    cp_members_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *copy = malloc(size > 1 ? size - 1 : 1); /* exact: a read past the end is seen */
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 2)
        repair(copy, size - 1);
    one(copy, size - 1, data[0] & 1);
    free(copy);
    return 0;
}
