/*
 * Recorded manifests, one quirk a file: tests/unit/loader/manifests/NAME.json is read, planned and
 * compared with NAME.plan, whose first line says where the manifest comes from. An error is a plan
 * too. CP_REGOLD=1 rewrites the plans (look at them).
 */
#include "base/io.h"
#include "loader/packagings/packaging.h"
#include "tests/unit/loader/suites.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER CP_SOURCE_DIR "/tests/unit/loader/manifests"

enum { AT_LEAST = 50 };

static void describe(const cp_manifest *m, cp_buf *out)
{
    static const char *const roles[] = {"ignored", "weights", "template", "params"};
    static const char *const forms[] = {"raw", "tar", "tar+gzip", "tar+zstd", "by its bytes"};
    const cp_packaging *row;
    cp_plan plan;
    cp_err err = {0};
    cp_code code = cp_packaging_plan(m, &row, &plan, &err);
    cp_buf_printf(out, "%s\n", row ? row->name : "no packaging");
    if (code)
        cp_buf_printf(out, "%s: %s\n", cp_code_info(code)->name, err.msg);
    if (plan.image)
        cp_buf_adds(out, "layers stack\n");
    for (size_t i = 0; i < plan.n; i++) {
        const cp_plan_layer *p = &plan.layer[i];
        assert_true(p->layer == i && cp_plan_needs(&plan, i) == (p->role != CP_ROLE_IGNORED));
        assert_true((p->note != NULL) == (p->role == CP_ROLE_IGNORED));
        cp_buf_printf(out, "%zu %s", i, roles[p->role]);
        if (p->role != CP_ROLE_IGNORED)
            cp_buf_printf(out, ", %s", forms[p->form]);
        if (m->layer[i].filepath[0])
            cp_buf_printf(out, ", %s", m->layer[i].filepath);
        cp_buf_printf(out, "%s%s\n", p->note ? ": " : "", p->note ? p->note : "");
    }
    assert_false(cp_plan_needs(&plan, plan.n));
    cp_plan_fini(&plan);
}

static void read_text(const char *name, const char *suffix, cp_buf *out)
{
    char path[512];
    cp_err err = {0};
    snprintf(path, sizeof(path), "%s/%s%s", FOLDER, name, suffix);
    if (cp_file_read(path, 1 << 20, out, &err))
        fail_msg("%s", err.msg);
}

static void check_one(const char *name)
{
    cp_buf json = {0}, want = {0}, have = {0};
    cp_manifest *m;
    cp_err err = {0};
    read_text(name, ".json", &json);
    read_text(name, ".plan", &want);
    size_t head = strcspn(want.p, "\n") + 1;
    assert_true(want.p[0] == '#' && head > 4);
    cp_buf_add(&have, want.p, head);
    cp_code code = cp_manifest_parse(&m, json.p, json.n, &err);
    if (code)
        cp_buf_printf(&have, "%s: %s\n", cp_code_info(code)->name, err.msg);
    else
        describe(m, &have);
    cp_manifest_free(m);
    if (getenv("CP_REGOLD")) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s.plan", FOLDER, name);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fwrite(have.p, 1, have.n, f);
        fclose(f);
    } else if (strcmp(have.p, want.p) != 0) {
        fail_msg("%s: have\n%swanted\n%s", name, have.p, want.p);
    }
    cp_buf_fini(&json);
    cp_buf_fini(&want);
    cp_buf_fini(&have);
}

static void recorded(void **state)
{
    (void)state;
    DIR *d = opendir(FOLDER);
    assert_non_null(d);
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char name[256];
        size_t k = strlen(e->d_name);
        if (k < 6 || strcmp(e->d_name + k - 5, ".json") != 0)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(k - 5), e->d_name);
        check_one(name);
        n++;
    }
    closedir(d);
    assert_true(n >= AT_LEAST);
}

int cp_suite_manifests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded),
    };
    return cmocka_run_group_tests_name("manifests", tests, NULL, NULL);
}
