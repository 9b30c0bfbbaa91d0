/*
 * An API that nothing of the server knows: bodies {"say":"...","count":N,"stream":bool}, streams of
 * lines in place of events, errors of a form of their own.
 */
#include "server/call.h"
#include "server/emit.h"

#include <jansson.h>

extern const cp_api cp_api_toy;

static const cp_field rows[] = {
    {"say", CP_OF_AGENTS, 1, CP_FIELD_HAND, .required = 1, .empty = "\"\"", .change = "\"b\""},
    {"count", CP_OF_AGENTS, 1, CP_FIELD_INT, .min = 1, .max = 9,
     .to = offsetof(cp_params, max_tokens), .empty = "!\"\"", .change = "2"},
    {"stream", CP_OF_AGENTS, 1, CP_FIELD_BOOL, .to = offsetof(cp_params, stream), .empty = "!\"\"",
     .dflt = "false", .change = "true"},
};
static const cp_field_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static cp_code parse(cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "say");
    if (!json_is_string(v))
        return cp_fail_param(err, v ? CP_INVALID_VALUE : CP_MISSING_FIELD, "say",
                             "'say' must be a string");
    cp_prompt *p = cp_arena_alloc(ps->arena, sizeof(*p));
    if (!p)
        return cp_parser_full(err);
    ps->out->prompts = p;
    ps->out->n_prompts = 1;
    return cp_parser_prompt(ps, v, "say", p, err);
}

static void begin(cp_call *c)
{
    (void)c;
}

static void event(cp_call *c, cp_part *p, int choice, const cp_said *said, cp_buf *out)
{
    (void)p;
    if (said->kind == CP_SAID_FINISH) {
        cp_buf_printf(out, "{\"why\":%d}\n", (int)c->choices[choice].finish);
        return;
    }
    cp_buf_adds(out, "{\"more\":");
    cp_emit_str(out, said->text, said->n);
    cp_buf_adds(out, "}\n");
}

static void end(cp_call *c, cp_buf *out)
{
    cp_buf_printf(out, "{\"tokens\":%d}\n", c->choices[0].n_tokens);
}

static void whole(cp_call *c, cp_buf *out)
{
    cp_buf_adds(out, "{\"all\":");
    cp_emit_str(out, c->choices[0].shown.p, c->choices[0].shown.n);
    cp_buf_adds(out, "}");
}

static void error(const cp_told *told, cp_buf *out)
{
    cp_buf_printf(out, "{\"oops\":\"%s\"}%s", cp_code_info(told->code)->slug,
                  told->streamed ? "\n" : "");
}

static const char *const texts[] = {"say", NULL};

const cp_api cp_api_toy = {.name = "toy",
                           .fields = &table,
                           .at = 1,
                           .texts = texts,
                           .parse = parse,
                           .prompt_field = "say",
                           .id_prefix = "toy-",
                           .top_field = "",
                           .stream_type = "application/x-ndjson",
                           .begin = begin,
                           .event = event,
                           .end = end,
                           .whole = whole,
                           .error = error};
