/*
 * The tar parser: what writers write, where members lie, and everything hostile. Each archive is
 * read from memory with its length known and again as a stream of short reads; both must agree.
 */
#include "loader/oci/content/extract.h"
#include "tests/unit/loader/make_tar.h"
#include "tests/unit/loader/suites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct dribble {
    cp_tar_memory m;
    unsigned step;
} dribble;

/* One to seven bytes at a time. */
static cp_code dribble_read(void *arg, void *p, size_t n, size_t *got, cp_err *err)
{
    dribble *d = arg;
    cp_tar_source s = cp_tar_from_memory(&d->m);
    size_t k = 1 + d->step++ % 7;
    return s.read(&d->m, p, n < k ? n : k, got, err);
}

/* Every member as a line "KIND offset size path", or the error. */
static void walk(const cp_tar_source *source, cp_buf *out)
{
    cp_tar t;
    cp_tar_member m;
    cp_err err = {0};
    bool end = false;
    cp_tar_init(&t, source);
    cp_code code;
    while ((code = cp_tar_next(&t, &m, &end, &err)) == CP_OK && !end)
        cp_buf_printf(out, "%c %" PRIu64 " %" PRIu64 " %s\n",
                      m.kind == CP_TAR_FILE  ? 'f'
                      : m.kind == CP_TAR_DIR ? 'd'
                                             : m.type,
                      m.offset, m.size, m.path);
    if (code)
        cp_buf_printf(out, "%s: %s\n", cp_code_info(code)->name, err.msg);
    cp_tar_fini(&t);
}

static void both(const cp_buf *tar, cp_buf *out)
{
    cp_tar_memory memory = {.p = (const uint8_t *)tar->p, .n = tar->n};
    cp_tar_source s = cp_tar_from_memory(&memory);
    dribble d = {.m = {.p = (const uint8_t *)tar->p, .n = tar->n}};
    cp_tar_source stream = {.read = dribble_read, .arg = &d, .limit = UINT64_MAX};
    cp_buf streamed = {0};
    walk(&s, out);
    walk(&stream, &streamed);
    /* A stream learns later that bytes are missing: the same members, then the same class of
     * error. */
    size_t n = out->n;
    char *error = strstr(out->p ? out->p : "", ": ");
    while (error && error > out->p && error[-1] != '\n')
        error--;
    if (error)
        n = (size_t)(error - out->p);
    if (error ? strncmp(out->p, streamed.p, n) != 0 || !strstr(streamed.p, ": tar")
              : strcmp(out->p ? out->p : "", streamed.p ? streamed.p : "") != 0)
        fail_msg("mapped:\n%s\nstreamed:\n%s", out->p, streamed.p);
    cp_buf_fini(&streamed);
}

static void expect(cp_buf *tar, const char *want)
{
    cp_buf have = {0};
    both(tar, &have);
    if (want[0] == '\0' ? have.n != 0 : !have.p || strstr(have.p, want) != have.p)
        fail_msg("have\n%swanted\n%s", have.p, want);
    cp_buf_fini(&have);
    cp_buf_clear(tar);
}

/* The error is somewhere in what walk prints. */
static void refuse(cp_buf *tar, const char *text)
{
    cp_buf have = {0};
    both(tar, &have);
    if (!have.p || !strstr(have.p, text))
        fail_msg("have\n%swanted\n%s", have.p, text);
    cp_buf_fini(&have);
    cp_buf_clear(tar);
}

static void plain(void **state)
{
    (void)state;
    cp_buf t = {0};
    cp_mk_tar_member(&t, "dir/", '5', "", 0);
    cp_mk_tar_file(&t, "dir/a", "hello");
    cp_mk_tar_member(&t, "old", '\0', "x", 1);
    cp_mk_tar_member(&t, "oldfolder/", '0', "", 0);
    cp_mk_tar_member(&t, "contiguous", '7', "yz", 2);
    cp_mk_tar_member(&t, "link", '2', "", 0);
    cp_mk_tar_end(&t);
    expect(&t, "d 512 0 dir/\nf 1024 5 dir/a\nf 2048 1 old\nd 3072 0 oldfolder/\n"
               "f 3584 2 contiguous\n2 4608 0 link\n");
    cp_mk_tar_end(&t); /* no members at all is an archive, no bytes at all is none */
    expect(&t, "");
    refuse(&t, "CORRUPT: tar: it is empty");
    cp_buf_fini(&t);
}

/* umoci stops after the last member's bytes; others after its padding, or after one zero block. */
static void ends(void **state)
{
    (void)state;
    cp_buf t = {0};
    static const size_t cuts[] = {512 + 5, 512 + 6, 1023, 1024, 1025, 1536, 1537, 2048};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        cp_mk_tar_file(&t, "a", "hello");
        cp_mk_tar_end(&t);
        t.n = cuts[i];
        expect(&t, "f 512 5 a\n");
    }
    for (size_t cut = 513; cut < 512 + 5; cut++) {
        cp_mk_tar_file(&t, "a", "hello");
        t.n = cut;
        refuse(&t, "CORRUPT: tar: ");
    }
    for (size_t cut = 1; cut < 512; cut += 50) {
        cp_mk_tar_file(&t, "a", "hello");
        t.n = cut;
        refuse(&t, "CORRUPT: tar: no header at 0");
    }
    cp_mk_tar_file(&t, "a", "hello");
    cp_mk_tar_end(&t);
    cp_mk_tar_file(&t, "hidden", "behind the end");
    refuse(&t, "CORRUPT: tar: more than zeros");
    cp_mk_tar_file(&t, "a", "hello");
    for (int i = 0; i < 12; i++) /* a blocking factor's worth */
        cp_mk_tar_end(&t);
    expect(&t, "f 512 5 a\n");
    cp_mk_tar_file(&t, "a", "hello");
    for (int i = 0; i < CP_TAR_TAIL_MAX / 1024 + 2; i++)
        cp_mk_tar_end(&t);
    refuse(&t, "CORRUPT: tar: more than zeros");
    cp_buf_fini(&t);
}

static void long_names(void **state)
{
    (void)state;
    cp_buf t = {0}, pax = {0}, want = {0};
    char name[301], field[155];
    memset(name, 'n', 300);
    name[300] = '\0';
    cp_mk_tar_pax(&pax, "mtime", "1.5");
    cp_mk_tar_pax(&pax, "path", name);
    cp_mk_tar_pax(&pax, "size", "3");
    cp_mk_tar_member(&t, "PaxHeaders/x", 'x', pax.p, pax.n);
    cp_mk_tar_member(&t, "short", '0', "abc", 3);
    cp_mk_tar_member(&t, "././@LongLink", 'L', name, 301);
    cp_mk_tar_member(&t, "././@LongLink", 'K', name, 301); /* of a link target: passed over */
    cp_mk_tar_file(&t, "short", "x");
    cp_mk_tar_file(&t, "after", "y"); /* and gone again */
    cp_mk_tar_end(&t);
    cp_buf_printf(&want, "f 1536 3 %s\n", name);
    cp_buf_printf(&want, "f 4608 1 %s\nf 5632 1 after\n", name);
    expect(&t, want.p);
    /* ustar's prefix; GNU keeps other things in that field. */
    memset(field, 'p', sizeof(field));
    cp_mk_tar_file(&t, "base", "x");
    memcpy(t.p + 345, field, sizeof(field));
    cp_mk_tar_checksum(&t, 0);
    cp_buf_clear(&want);
    cp_buf_printf(&want, "f 512 1 %.155s/base\n", field);
    expect(&t, want.p);
    cp_mk_tar_file(&t, "base", "x");
    memcpy(t.p + 345, field, sizeof(field));
    memcpy(t.p + 257, "ustar  ", 8);
    cp_mk_tar_checksum(&t, 0);
    expect(&t, "f 512 1 base\n");
    /* A name that fills its field has no NUL. */
    cp_mk_tar_file(&t, name, "x");
    cp_buf_clear(&want);
    cp_buf_printf(&want, "f 512 1 %.100s\n", name);
    expect(&t, want.p);
    cp_buf_fini(&t);
    cp_buf_fini(&pax);
    cp_buf_fini(&want);
}

/* Members of 8 GiB and more: sizes in pax records and in base 256. The bytes are not there. */
static void large_sizes(void **state)
{
    (void)state;
    cp_buf t = {0}, pax = {0};
    cp_mk_tar_pax(&pax, "size", "9663676416");
    cp_mk_tar_member(&t, "x", 'x', pax.p, pax.n);
    cp_mk_tar_header(&t, "big", '0', 0);
    refuse(&t, "member 'big' claims 9663676416 bytes, 0 are left");
    static const uint8_t nine_gib[12] = {0x80, 0, 0, 0, 0, 0, 0, 2, 0x40, 0, 0, 0};
    cp_mk_tar_header(&t, "big", '0', 0);
    memcpy(t.p + 124, nine_gib, 12);
    cp_mk_tar_checksum(&t, 0);
    refuse(&t, "member 'big' claims 9663676416 bytes, 0 are left");
    static const uint8_t bad[][12] = {
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe}, /* -2 */
        {0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},                                  /* 2^64 */
        {'1', '2', 'x', '4'},
        {'9'},
        {'-', '1'},
        {'1', ' ', '1'},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cp_mk_tar_header(&t, "big", '0', 0);
        memcpy(t.p + 124, bad[i], 12);
        cp_mk_tar_checksum(&t, 0);
        refuse(&t, "no header at 0");
    }
    cp_buf_fini(&t);
    cp_buf_fini(&pax);
}

static void hostile_pax(void **state)
{
    (void)state;
    static const struct {
        char type;
        const char *text, *error;
    } rows[] = {
        {'x', "99 path=x\n", "wrong length"},
        {'x', "9 path=x", "wrong length"}, /* no newline at its end */
        {'x', "0 \n", "wrong length"},
        {'x', " path=x\n", "wrong length"},
        {'x', "5\n", "wrong length"},
        {'x', "999999999 path=x\n", "wrong length"},
        {'x', "8 pathx\n", "no '='"},
        {'x', "21 size=9999999999999\n", "wrong length"},
        {'x', "30 size=99999999999999999999\n", "wrong length"},
        {'x', "29 size=99999999999999999999\n", "no number"},
        {'x', "11 size=-1\n", "no number"},
        {'x', "12 size=0x1\n", "no number"},
        {'x', "9 size=1\n9 size=1\n", "twice"},
        {'x', "9 path=a\n9 path=a\n", "twice"},
        {'g', "9 path=a\n", "for all members"},
        {'x', "22 GNU.sparse.major=1\n", "sparse"},
    };
    cp_buf t = {0};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_mk_tar_member(&t, "x", rows[i].type, rows[i].text, strlen(rows[i].text));
        cp_mk_tar_file(&t, "a", "b");
        refuse(&t, rows[i].error);
    }
    cp_mk_tar_member(&t, "x", 'x', "10 path=a\0\n", 11);
    cp_mk_tar_file(&t, "a", "b");
    refuse(&t, "wrong length");
    cp_mk_tar_member(&t, "x", 'x', "11 path=a\0\n", 11);
    cp_mk_tar_file(&t, "a", "b");
    refuse(&t, "or a NUL");
    cp_buf_fini(&t);
}

static void hostile_headers(void **state)
{
    (void)state;
    cp_buf t = {0}, pax = {0};
    cp_mk_tar_file(&t, "a", "b");
    t.p[0] ^= 1;
    refuse(&t, "no header at 0");
    cp_mk_tar_header(&t, "", '0', 0);
    refuse(&t, "without a name");
    cp_mk_tar_header(&t, "s", 'S', 0);
    refuse(&t, "UNSUPPORTED: tar: a sparse member");
    cp_mk_tar_header(&t, "s", 'M', 0);
    refuse(&t, "UNSUPPORTED: tar: a multi-volume member");
    static const char header_only[] = "123456";
    for (size_t i = 0; i < 6; i++) {
        cp_mk_tar_member(&t, "l", header_only[i], "12345", 5);
        refuse(&t, "has 5 bytes");
    }
    cp_mk_tar_header(&t, "x", 'x', CP_TAR_META_MAX + 1);
    refuse(&t, "extended header of 1048577 bytes");
    cp_mk_tar_header(&t, "x", 'x', 100);
    refuse(&t, "ends within an extended header");
    cp_mk_tar_pax(&pax, "path", "a");
    cp_mk_tar_member(&t, "x", 'x', pax.p, pax.n);
    cp_mk_tar_end(&t);
    refuse(&t, "an extended header without a member");
    cp_mk_tar_member(&t, "x", 'x', pax.p, pax.n);
    refuse(&t, "an extended header without a member");
    for (int i = 0; i < 20; i++)
        cp_mk_tar_member(&t, "x", 'K', "k", 2);
    refuse(&t, "extended headers of one");
    cp_mk_tar_member(&t, "x", 'L', "", 1);
    refuse(&t, "a long name of 0 bytes");
    cp_buf_clear(&pax);
    for (int i = 0; i <= CP_TAR_PATH_MAX; i++)
        cp_buf_addc(&pax, 'p');
    cp_mk_tar_member(&t, "x", 'L', pax.p, pax.n);
    refuse(&t, "a long name of 4097 bytes");
    cp_buf_fini(&t);
    cp_buf_fini(&pax);
}

static void plain_paths(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"a", "a"},   {"./a", "a"},   {".//a/./b//", "a/b"}, {".", ""},
        {"./", ""},   {"...", "..."}, {"..a/b", "..a/b"},    {"/a", NULL},
        {"..", NULL}, {"a/..", NULL}, {"a/../b", NULL},      {"./../b", NULL},
    };
    char out[CP_TAR_PATH_MAX + 1];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_code code = cp_tar_plain_path(rows[i].in, out, NULL);
        assert_int_equal(code, rows[i].out ? CP_OK : CP_CORRUPT);
        if (rows[i].out)
            assert_string_equal(out, rows[i].out);
    }
}

/* ---- which members count ---- */

static void members(const cp_buf *tar, bool image, const char *want)
{
    cp_members *m;
    cp_err err = {0};
    cp_buf have = {0};
    cp_code code = cp_members_of_tar(&m, (const uint8_t *)tar->p, tar->n, image, &err);
    for (size_t i = 0; !code && i < m->n; i++)
        cp_buf_printf(&have, "%c%s %s\n", "fdwol"[m->v[i].kind], m -> v[i].gguf ? "g" : "",
                      m->v[i].path);
    if (code)
        cp_buf_printf(&have, "%s: %s\n", cp_code_info(code)->name, err.msg);
    if (!have.p)
        cp_buf_adds(&have, "");
    if (!strstr(have.p, want) || (!code && strlen(want) != have.n))
        fail_msg("have\n%swanted\n%s", have.p, want);
    cp_members_free(m);
    cp_buf_fini(&have);
}

static void of_an_image(void **state)
{
    (void)state;
    cp_buf t = {0};
    cp_mk_tar_member(&t, "etc/link", '2', "", 0);
    cp_mk_tar_member(&t, "dev/null", '3', "", 0);
    cp_mk_tar_file(&t, "etc/odd\\name", "x");
    cp_mk_tar_file(&t, "modelsx/y", "x");
    cp_mk_tar_file(&t, "etc/.wh.models", "");
    cp_mk_tar_file(&t, "x/.wh..wh..opq", "");
    cp_mk_tar_member(&t, "./models/", '5', "", 0);
    cp_mk_tar_file(&t, "./models/a.gguf", "GGUF and more");
    cp_mk_tar_file(&t, "models/sub/.wh.b", "");
    cp_mk_tar_file(&t, "models/sub/.wh..wh..opq", "");
    cp_mk_tar_file(&t, "models/.wh..wh..opq", "");
    cp_mk_tar_file(&t, ".wh.models", "");
    cp_mk_tar_file(&t, ".wh..wh..opq", "");
    cp_mk_tar_end(&t);
    members(&t, true,
            "d models\nfg models/a.gguf\nw models/sub/b\no models/sub\no models\nw models\no \n");
    static const char links[] = "123467V";
    for (size_t i = 0; i < 7; i++) {
        cp_buf_clear(&t);
        cp_mk_tar_member(&t, "models/l", links[i], "", 0);
        members(&t, true, links[i] == '7' ? "f models/l\n" : "l models/l\n");
        cp_buf_clear(&t);
        cp_mk_tar_member(&t, "models", links[i], "", 0); /* the folder itself as a link */
        members(&t, true, links[i] == '7' ? "f models\n" : "l models\n");
        cp_buf_clear(&t);
        cp_mk_tar_member(&t, "etc/l", links[i], "", 0);
        members(&t, true, "");
        members(&t, false, links[i] == '7' ? "f etc/l\n" : "l etc/l\n");
    }
    cp_buf_clear(&t);
    cp_mk_tar_member(&t, "models/.wh.x", '1', "", 0);
    cp_mk_tar_member(&t, "models/.wh..wh..opq", '2', "", 0);
    members(&t, true, "w models/x\no models\n");
    cp_buf_clear(&t);
    cp_mk_tar_member(&t, "models/.wh.x", '5', "", 0);
    members(&t, true, "CORRUPT: tar: the whiteout 'models/.wh.x' is a folder");
    cp_buf_clear(&t);
    cp_mk_tar_file(&t, "x/../models/evil.gguf", "x");
    members(&t, true, "CORRUPT: tar: path 'x/../models/evil.gguf' leaves its folder");
    cp_buf_clear(&t);
    cp_mk_tar_file(&t, "/models/evil.gguf", "x");
    members(&t, true, "is absolute");
    cp_buf_clear(&t);
    cp_mk_tar_file(&t, "models/a\nb", "x");
    members(&t, true, "holds the character 0xa");
    cp_buf_clear(&t);
    cp_mk_tar_file(&t, "models/\xC2\x9B", "x");
    members(&t, true, "holds the character 0x9b");
    cp_buf_clear(&t);
    cp_mk_tar_file(&t, "models/a", "x");
    cp_mk_tar_file(&t, "./models//a", "y");
    members(&t, true, "'models/a' is in it twice");
    cp_buf_fini(&t);
}

static void of_a_folder(void **state)
{
    (void)state;
    cp_buf t = {0};
    cp_mk_tar_member(&t, ".", '5', "", 0);
    cp_mk_tar_file(&t, "./a.gguf", "GGUF");
    cp_mk_tar_file(&t, ".wh.x", "GGU"); /* means nothing here */
    members(&t, false, "fg a.gguf\nf .wh.x\n");
    cp_buf_clear(&t);
    cp_mk_tar_file(&t, "./", "not empty");
    members(&t, false, "a file named '.'");
    cp_buf_clear(&t);
    cp_buf_reserve(&t, (size_t)(CP_MEMBERS_MAX + 1) * 512);
    for (int i = 0; i <= CP_MEMBERS_MAX; i++)
        cp_mk_tar_member(&t, "d/", '5', "", 0);
    members(&t, false, "more than 16384 members");
    members(&t, true, "");
    cp_buf_fini(&t);
}

int cp_suite_tar(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),       cmocka_unit_test(ends),
        cmocka_unit_test(long_names),  cmocka_unit_test(large_sizes),
        cmocka_unit_test(hostile_pax), cmocka_unit_test(hostile_headers),
        cmocka_unit_test(plain_paths), cmocka_unit_test(of_an_image),
        cmocka_unit_test(of_a_folder),
    };
    return cmocka_run_group_tests_name("tar", tests, NULL, NULL);
}
