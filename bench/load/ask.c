/* The questions before a run. Servers that do not know a field of ours answer 400: it is left out
 * then, and the report says so. */
#include "bench/load/ask.h"

#include "base/clock.h"
#include "bench/load/words.h"

#include <string.h>

enum {
    ANSWER_MAX = 8 << 20,
    TRIES = 5, /* of a server that is full or loading */
    PAUSE_MS = 1000,
    FEW = 16,
    MANY = 528, /* words of which the server counts the tokens */
    FETCH_MS = 30000
};

const char *cp_load_path(const cp_load_config *cfg)
{
    return cfg->completions ? "/v1/completions" : "/v1/chat/completions";
}

void cp_load_body(cp_buf *out, const cp_load_config *cfg, const cp_load_shape *shape,
                  const cp_buf *history, const cp_load_ask *ask)
{
    cp_buf_clear(out);
    cp_buf_adds(out, "{\"model\":\"");
    cp_load_escape(out, cfg->model, strlen(cfg->model));
    cp_buf_adds(out, cfg->completions ? "\",\"prompt\":\"" : "\",\"messages\":[");
    cp_buf_add(out, history->p ? history->p : "", history->n);
    cp_buf_printf(out, "%s,\"max_tokens\":%u,\"temperature\":0,\"stream\":true",
                  cfg->completions ? "\"" : "]", ask->max_tokens);
    if (ask->tools)
        cp_buf_printf(out, ",\"tools\":%s", ask->tools);
    if (shape->include_usage)
        cp_buf_adds(out, ",\"stream_options\":{\"include_usage\":true}");
    if (ask->exact && shape->ignore_eos)
        cp_buf_adds(out, ",\"ignore_eos\":true");
    cp_buf_addc(out, '}');
}

/* ---- one exchange, waited for ---- */

typedef struct fetch {
    cp_buf *out;
    cp_load_stream *stream; /* in place of out */
    cp_load_ending how;
    bool over;
} fetch;

static bool fetch_data(cp_load_call *call, const char *p, size_t n, int64_t now_ns)
{
    fetch *f = call->arg;
    if (f->stream)
        return cp_load_stream_feed(f->stream, call->status, call->events, p, n, now_ns);
    return cp_buf_add(f->out, p, n);
}

static void fetch_end(cp_load_call *call, cp_load_ending how, int64_t now_ns)
{
    (void)now_ns;
    fetch *f = call->arg;
    f->how = how;
    f->over = true;
}

static bool fetch_wait(cp_load_client *client, cp_load_call *call, fetch *f)
{
    call->data = fetch_data;
    call->end = fetch_end;
    call->arg = f;
    cp_load_client_start(client, call);
    while (!f->over) {
        if (cp_load_client_wait(client, INT64_MAX) && !f->over) {
            cp_load_client_cancel(client, call);
            return false;
        }
    }
    return true;
}

bool cp_load_fetch(cp_load_client *client, cp_load_call *call, cp_buf *out, cp_load_ending *how)
{
    fetch f = {.out = out};
    out->max = ANSWER_MAX;
    bool ok = fetch_wait(client, call, &f);
    *how = f.how;
    return ok;
}

/* False: the interrupt came. */
static bool pause_ms(cp_load_client *client, int64_t ms)
{
    int64_t until = cp_now_ns() + ms * 1000000;
    while (cp_now_ns() < until) {
        if (cp_load_client_wait(client, until))
            return false;
    }
    return true;
}

/* ---- does it answer? ---- */

/* What came of a request of a few words and one token. */
typedef struct probe {
    cp_load_outcome outcome;
    cp_load_stream stream;
    cp_load_call call;
} probe;

static bool probe_once(cp_load_client *client, const cp_load_config *cfg,
                       const cp_load_shape *shape, uint32_t words, probe *p)
{
    cp_buf history = {0}, body = {0}, text = {0};
    cp_load_rng r = cp_load_rng_for(cfg->seed, CP_LOAD_FOR_WORDS, UINT64_MAX);
    cp_load_ask ask = {.max_tokens = 1, .exact = true};
    cp_load_words(&text, &r, words);
    cp_buf_printf(&history, cfg->completions ? "%s" : "{\"role\":\"user\",\"content\":\"%s\"}",
                  text.p);
    cp_load_body(&body, cfg, shape, &history, &ask);
    cp_load_stream_begin(&p->stream, false, NULL, NULL);
    fetch f = {.stream = &p->stream};
    p->call.path = cp_load_path(cfg);
    p->call.body = body.p;
    p->call.n_body = body.n;
    p->call.timeout_ms = cfg->timeout_ms;
    bool ok = fetch_wait(client, &p->call, &f);
    p->outcome = cp_load_stream_end(&p->stream, p->call.status, f.how, p->call.problem);
    cp_buf_fini(&history);
    cp_buf_fini(&body);
    cp_buf_fini(&text);
    return ok;
}

static cp_code explain(const cp_load_client *client, const cp_load_config *cfg, const probe *p,
                       cp_err *err)
{
    const char *url = cp_load_client_url(client), *why = p->stream.why;
    int status = p->call.status;
    switch (p->outcome) {
    case CP_LOAD_UNREACHED:
        return cp_fail(err, CP_NETWORK, "%.200s: %s%s", url, why,
                       p->call.tls ? "; --ca-file names further authorities" : "");
    case CP_LOAD_TIMEOUT:
        return cp_fail(err, CP_NETWORK, "%.200s: no answer of one token within --timeout: %s", url,
                       why);
    case CP_LOAD_REFUSED:
        return cp_fail(err, CP_NETWORK, "%.200s: %d after %d tries: %s", url, status, TRIES, why);
    case CP_LOAD_CUT:
        return cp_fail(err, CP_NETWORK, "%.200s: %s", url, why);
    default:
        break;
    }
    if (status == 401 || status == 403)
        return cp_fail(err, CP_NETWORK, "%.200s: %d: %s; --api-key or CAPSTAN_API_KEY gives a key",
                       url, status, why);
    if (status == 404)
        return cp_fail(err, CP_MODEL_NOT_FOUND, "%.200s%s: 404: %s (--model %.80s)", url,
                       cp_load_path(cfg), why, cfg->model);
    if (status >= 500)
        return cp_fail(err, CP_NETWORK, "%.200s: %d: %s", url, status, why);
    return cp_fail(err, CP_UNSUPPORTED, "%.200s%s: %d: %s", url, cp_load_path(cfg), status, why);
}

/* Ask, with as many of the fields as it takes. */
static cp_code find_shape(cp_load_client *client, const cp_load_config *cfg, cp_load_shape *shape,
                          probe *p, cp_err *err)
{
    shape->ignore_eos = shape->include_usage = true;
    for (int refused = 0;;) {
        if (!probe_once(client, cfg, shape, FEW, p))
            return cp_fail(err, CP_CANCELLED, "interrupted");
        if (p->outcome == CP_LOAD_OK)
            return CP_OK;
        bool bad_request =
            p->outcome == CP_LOAD_ERROR && (p->call.status == 400 || p->call.status == 422);
        if (p->outcome == CP_LOAD_REFUSED && ++refused < TRIES) {
            if (!pause_ms(client, PAUSE_MS))
                return cp_fail(err, CP_CANCELLED, "interrupted");
        } else if (bad_request && shape->ignore_eos) {
            shape->ignore_eos = false;
        } else if (bad_request && shape->include_usage) {
            shape->include_usage = false;
        } else {
            return explain(client, cfg, p, err);
        }
    }
}

/* ---- how many tokens is a word? ---- */

/* By /tokenize, under the name that a server has for the text; 0: it has no such thing. */
static uint64_t tokenize(cp_load_client *client, const cp_load_config *cfg, const char *field,
                         uint32_t words)
{
    cp_buf body = {0}, answer = {0};
    cp_load_rng r = cp_load_rng_for(cfg->seed, CP_LOAD_FOR_WORDS, UINT64_MAX);
    cp_buf text = {0};
    cp_load_words(&text, &r, words);
    cp_buf_adds(&body, "{\"model\":\"");
    cp_load_escape(&body, cfg->model, strlen(cfg->model));
    cp_buf_printf(&body, "\",\"%s\":\"%s\"}", field, text.p);
    cp_load_call call = {
        .path = "/tokenize", .body = body.p, .n_body = body.n, .timeout_ms = FETCH_MS};
    cp_load_ending how;
    uint64_t n = 0;
    if (cp_load_fetch(client, &call, &answer, &how) && how == CP_LOAD_WHOLE && call.status == 200)
        n = cp_load_tokens_read(answer.p ? answer.p : "", answer.n);
    cp_load_call_fini(&call);
    cp_buf_fini(&body);
    cp_buf_fini(&text);
    cp_buf_fini(&answer);
    return n;
}

/* The difference of two lengths, so that a template and a begin token do not count. */
static void calibrate(cp_load_client *client, const cp_load_config *cfg, cp_load_shape *shape,
                      probe *p)
{
    static const char *const fields[] = {"prompt", "content"};
    uint64_t few = 0, many = 0;
    uint32_t words = MANY;
    for (size_t i = 0; i < 2 && many <= few; i++) {
        few = tokenize(client, cfg, fields[i], FEW);
        many = few ? tokenize(client, cfg, fields[i], MANY) : 0;
    }
    if (many <= few && shape->usage) {
        few = p->stream.prompt_tokens;
        words = MANY / 4; /* a short context should hold it */
        if (probe_once(client, cfg, shape, words, p) && p->outcome == CP_LOAD_OK)
            many = p->stream.prompt_tokens;
    }
    shape->calibrated = many > few;
    shape->tokens_per_word = many > few ? (double)(many - few) / (words - FEW) : 1;
}

cp_code cp_load_ask_server(cp_load_client *client, const cp_load_config *cfg, bool want_rate,
                           cp_load_shape *out, cp_err *err)
{
    probe p = {0};
    *out = (cp_load_shape){.tokens_per_word = 1};
    cp_code code = find_shape(client, cfg, out, &p, err);
    if (!code) {
        cp_strcopy(out->server, sizeof(out->server), p.call.server);
        out->usage = p.stream.usage;
        if (want_rate)
            calibrate(client, cfg, out, &p);
    }
    cp_load_stream_fini(&p.stream);
    cp_load_call_fini(&p.call);
    return code;
}
