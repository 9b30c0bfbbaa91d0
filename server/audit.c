/* This file writes the audit line of a request: see audit.h. */
#include "server/audit.h"

#include "base/clock.h"
#include "server/access_log.h"
#include "server/emit.h"

/* {"time":"..." */
static void begin(cp_buf *b)
{
    char when[CP_CLOCK_TEXT];
    cp_clock_text(when);
    cp_buf_printf(b, "{\"time\":\"%s\"", when);
}

/* How many choices ended by which reason. */
static void finish_reasons(const cp_call *c, cp_buf *b)
{
    enum { REASONS = CP_FINISH_LENGTH + 1 };
    int n[REASONS] = {0};
    const char *sep = "";
    for (int i = 0; i < c->n_choices; i++)
        n[c->choices[i].finish]++;
    cp_buf_adds(b, ",\"finish_reasons\":{");
    for (int i = 0; i < REASONS; i++) {
        if (n[i] == 0)
            continue;
        cp_buf_printf(b, "%s\"%s\":%d", sep, cp_access_finish(c, (cp_finish)i), n[i]);
        sep = ",";
    }
    cp_buf_addc(b, '}');
}

static void generation(const cp_call *c, cp_buf *b)
{
    if (!cp_access_generates(c))
        return;
    if (c->first_ns)
        cp_buf_printf(b, ",\"ttft_ms\":%.1f", (double)(c->first_ns - cp_http_since(c->q)) / 1e6);
    if (c->joules > 0)
        cp_buf_printf(b, ",\"joules\":%.6f", c->joules);
    finish_reasons(c, b);
}

void cp_audit(const cp_call *c)
{
    const cp_server *s = c->s;
    if (!s->audit || (c->route && c->route->scope == 0))
        return;
    char client[CP_PEER_TEXT];
    cp_buf b = {0};
    begin(&b);
    if (*c->key)
        cp_emit_member(&b, "key", c->key);
    cp_http_peer(c->q, client);
    cp_emit_member(&b, "client", client);
    cp_emit_member(&b, "route", c->route ? c->route->path : c->path);
    cp_access_facts(c, &b);
    if (c->told != CP_OK)
        cp_emit_member(&b, "error", cp_code_info(c->told)->slug);
    generation(c, &b);
    cp_buf_addc(&b, '}');
    if (!b.failed)
        cp_append_line(s->audit, b.p, b.n);
    cp_buf_fini(&b);
}
