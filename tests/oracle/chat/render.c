/*
 * Renders templates for the oracle: a JSON object a line on stdin, {"template", "vars", "now",
 * "continue"}; a JSON object a line on stdout, {"text", "input": [[begin, end], ...]} or {"error"}.
 * The Python side compares with jinja2.
 */
#include "chat/jinja/value.h"
#include "tests/unit/chat/vals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_json(cp_arena *a, const char *p, size_t n)
{
    cp_err err = {0};
    jj_ctx x = {.a = a, .err = &err};
    jj_sb b = {0};
    const jj_json_opts o = {.ensure_ascii = true};
    const cp_val *v = cp_jj_str(&x, p, n);
    if (v && cp_jj_sb_json(&x, &b, v, &o))
        fwrite(b.p, 1, b.n, stdout);
    else
        printf("\"?\"");
    cp_jj_sb_fini(&b);
}

static void render_line(const char *line, size_t n)
{
    cp_arena *a = cp_arena_new((size_t)1 << 30);
    cp_err err = {0};
    jj_ctx x = {.a = a, .err = &err};
    jj_str text = {.p = line, .n = n};
    const cp_val *job = cp_jj_json_parse(&x, &text);
    const cp_val *src = job ? cp_jj_dict_gets(&x, job->u.dict, "template", 8) : NULL;
    const cp_val *vars = job ? cp_jj_dict_gets(&x, job->u.dict, "vars", 4) : NULL;
    const cp_val *now = job ? cp_jj_dict_gets(&x, job->u.dict, "now", 3) : NULL;
    const cp_val *go_on = job ? cp_jj_dict_gets(&x, job->u.dict, "continue", 8) : NULL;
    jj_sb json = {.a = a};
    const jj_json_opts o = {0};
    cp_template *t = NULL;
    cp_rendered out = {0};
    cp_val *tree = NULL;
    if (src && vars && cp_jj_sb_json(&x, &json, vars, &o))
        tree = cp_test_vals(a, json.p, json.n, true);
    cp_code code = tree ? cp_template_open(&t, src->u.s.p, src->u.s.n, &err) : CP_INTERNAL;
    if (code == CP_OK)
        code = (go_on && cp_jj_truth(go_on) ? cp_template_continue : cp_template_render)(
            t, a, tree, now ? now->u.i : 0, &out, &err);
    if (code == CP_OK) {
        printf("{\"text\": ");
        put_json(a, out.text.p ? out.text.p : "", out.text.n);
        printf(", \"input\": [");
        for (size_t i = 0; i < out.n_input; i++)
            printf("%s[%zu, %zu]", i ? ", " : "", out.input[i].begin, out.input[i].end);
        printf("]}\n");
    } else {
        printf("{\"error\": ");
        put_json(a, err.msg, strlen(err.msg));
        printf("}\n");
    }
    cp_rendered_fini(&out);
    cp_template_close(t);
    cp_arena_free(a);
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        render_line(line, (size_t)n);
        fflush(stdout);
    }
    free(line);
    return 0;
}
