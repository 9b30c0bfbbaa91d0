/*
 * run: generates one completion, or chats in the terminal, through the real engine. A turn renders
 * the whole conversation again and lets the prefix cache do the rest. Ctrl-C ends the answer; at
 * the prompt it drops the line, and never ends a chat. While the model is loaded it ends the
 * program.
 */
#include "app/command.h"
#include "app/compose.h"
#include "app/defaults.h"
#include "app/emit_json.h"
#include "app/lines.h"
#include "app/local.h"
#include "app/progress.h"
#include "app/stdio.h"
#include "server/prompt.h"
#include "server/sampling.h"
#include "server/text.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* What a shell says of a command that SIGINT ended. */
enum { EXIT_INTERRUPTED = 130 };

typedef struct runner {
    const cp_options *o;
    int interrupts; /* signalfd of SIGINT, not blocking */
    cp_stack stack;
    cp_app_model m;
    cp_local *local;
    cp_arena *arena;       /* of what follows */
    cp_params params;      /* as a request's whose fields are the flags */
    const cp_stops *stops; /* NULL: none */
} runner;

typedef struct answer {
    cp_buf text;
    int n_prompt, n_generated;
    cp_finish reason;
    bool interrupted;
} answer;

typedef struct turn {
    char *role, *content;
} turn;

static cp_code encode_raw(const runner *r, const char *text, size_t n, cp_ids *ids, cp_err *err)
{
    return cp_tokenizer_encode(r->m.tokenizer, text, n, true, true, NULL, 0, ids, err);
}

/* Append a message; what was typed is marked, so that no special token is parsed in it. */
static bool add_message(cp_arena *a, cp_val *messages, const turn *t)
{
    cp_val *m = cp_val_dict(a);
    return m && cp_val_set(a, m, "role", cp_val_str(a, t->role, strlen(t->role), false)) &&
           cp_val_set(a, m, "content", cp_val_str(a, t->content, strlen(t->content), true)) &&
           cp_val_push(a, messages, m);
}

static cp_code encode_chat(const runner *r, const turn *turns, int n_turns, cp_ids *ids,
                           cp_err *err)
{
    const cp_template *t = cp_templates_pick(&r->m.templates, false, false);
    if (!t) {
        return cp_fail(err, CP_NO_TEMPLATE,
                       "%s has no chat template; use --prompt with --raw, or "
                       "--chat-template-file",
                       r->m.ref);
    }
    cp_arena *a = cp_arena_new((size_t)256 << 20);
    cp_val *messages = cp_val_list(a), *vars = cp_val_dict(a);
    bool ok = messages && vars;
    for (int i = 0; ok && i < n_turns; i++) {
        ok = add_message(a, messages, &turns[i]);
    }
    cp_rendered out = {0};
    const cp_conversation chat = {.vars = vars, .messages = messages, .generate = true};
    cp_code rc = ok ? cp_prompt_render(t, r->m.tokenizer, a, &chat, &out, err) : CP_NO_MEMORY;
    if (rc == CP_OK) {
        rc = cp_prompt_encode(r->m.tokenizer, &out, a, ids, err);
    }
    if (rc == CP_NO_MEMORY) {
        cp_fail(err, rc, "the conversation does not fit into 256 MiB");
    }
    cp_rendered_fini(&out);
    cp_arena_free(a);
    return rc;
}

/* Flags, else what models.toml, packaging and file say, as a request's parameters. */
static cp_code set_params(runner *r, const cp_sampling_defaults *d, cp_err *err)
{
    const cp_options *o = r->o;
    cp_params *p = &r->params;
    r->arena = cp_arena_new((size_t)1 << 20);
    cp_params_init(p, d);
    cp_code rc = cp_params_default_stops(p, d, r->arena) ? CP_OK : CP_NO_MEMORY;
    if (cp_option_given(o, CP_OPT_temp)) {
        p->temperature = o->temp;
    }
    if (cp_option_given(o, CP_OPT_top_p)) {
        p->top_p = o->top_p;
    }
    if (cp_option_given(o, CP_OPT_seed)) {
        p->seed = o->seed;
        p->has_seed = true;
    }
    if (cp_option_given(o, CP_OPT_max_tokens)) {
        p->max_tokens = o->max_tokens;
    }
    if (rc == CP_OK && p->n_stop > 0 && !(r->stops = cp_stops_new(r->arena, p->stop, p->n_stop))) {
        rc = CP_NO_MEMORY;
    }
    return rc ? cp_fail(err, rc, "out of memory") : rc;
}

/* What is asked for, and never more than fits. */
static int most_tokens(const runner *r, int room)
{
    const cp_params *p = &r->params;
    int64_t most = p->max_tokens >= 0 ? p->max_tokens : p->default_max_tokens;
    return most > 0 && most < room ? (int)most : room;
}

/* Generate after ids; text goes to stdout as it comes (unless --json) and into a. */
static cp_code generate(runner *r, const cp_ids *ids, answer *a, cp_err *err)
{
    int room = r->m.ctx - (int)ids->n;
    if (ids->n == 0) {
        return cp_fail(err, CP_INVALID_VALUE, "the prompt is empty");
    }
    if (room < 1) {
        return cp_fail(err, CP_CONTEXT_LENGTH,
                       "the prompt has %zu tokens, the context %d: %s, or raise --ctx", ids->n,
                       r->m.ctx,
                       r->o->prompt ? "shorten it" : "say less, or /quit and begin a new chat");
    }
    cp_request *q = cp_local_request(r->local, 256, -1, -1), *from;
    q->model = r->m.engine;
    q->prompt = ids->id;
    q->n_prompt = (int)ids->n;
    q->max_tokens = most_tokens(r, room);
    cp_arena *lists = cp_arena_new((size_t)1 << 20); /* of ids, for as long as the request */
    cp_code rc = cp_sampling_make(&r->params, r->m.tokenizer, lists, &q->sampling, err);
    rc = rc ? rc : cp_local_submit(r->local, q, err);
    if (rc) {
        cp_arena_free(lists);
        return rc;
    }
    cp_event ev;
    cp_text text;
    cp_buf piece = {0};
    cp_text_init(&text, r->m.tokenizer, r->stops, false, true);
    a->n_prompt = (int)ids->n;
    bool done = false, cancelled = false, met = false;
    while (!done) {
        bool got = cp_local_next(r->local, 50, &from, &ev);
        a->interrupted = a->interrupted || cp_interrupted(r->interrupts);
        if ((a->interrupted || met || rc) && !cancelled) {
            cancelled = true;
            if (!(got && (ev.type == CP_EV_END || ev.type == CP_EV_ERROR))) {
                cp_local_cancel(r->local, q);
            }
        }
        if (!got) {
            continue;
        }
        size_t at = a->text.n;
        if (ev.type == CP_EV_TOKEN) {
            a->n_generated += !met;
            met = met || cp_text_push(&text, ev.id, false, &piece, &a->text);
        } else if (ev.type == CP_EV_FINISH) {
            a->n_generated += !met && ev.reason == CP_FINISH_STOP; /* the end token */
            met = met || cp_text_end(&text, false, &piece, &a->text);
            a->reason = met ? CP_FINISH_STOP : (cp_finish)ev.reason;
        } else {
            done = true;
            if (ev.type == CP_EV_ERROR && !cancelled) {
                rc = cp_fail(err, (cp_code)ev.code, "generation failed: %s",
                             cp_code_info((cp_code)ev.code)->slug);
            }
        }
        if (!r->o->json && a->text.n > at && rc == CP_OK) {
            fwrite(a->text.p + at, 1, a->text.n - at, stdout);
            rc = cp_stdio_flush(err); /* where it fails nobody sees the rest */
        }
    }
    cp_text_fini(&text);
    cp_buf_fini(&piece);
    cp_arena_free(lists);
    return rc;
}

static int run_once(runner *r, const cp_buf *prompt, cp_err *err)
{
    cp_ids ids = {0};
    answer a = {0};
    turn t = {(char[]){"user"}, prompt->p ? prompt->p : (char[]){""}};
    cp_code rc = r->o->raw ? encode_raw(r, t.content, prompt->n, &ids, err)
                           : encode_chat(r, &t, 1, &ids, err);
    if (rc == CP_OK) {
        rc = generate(r, &ids, &a, err);
    }
    if (rc == CP_OK && r->o->json) {
        fputs("{\"text\":", stdout);
        cp_emit_string(stdout, a.text.p ? a.text.p : "", a.text.n);
        printf(",\"finish_reason\":\"%s\",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,"
               "\"total_tokens\":%d}}\n",
               a.interrupted                ? "cancelled"
               : a.reason == CP_FINISH_STOP ? "stop"
                                            : "length",
               a.n_prompt, a.n_generated, a.n_prompt + a.n_generated);
    } else if (rc == CP_OK) {
        putchar('\n');
    }
    cp_buf_fini(&a.text);
    cp_ids_fini(&ids);
    return rc ? cp_app_fail(err) : a.interrupted ? EXIT_INTERRUPTED : 0;
}

/* ---- chat ---- */

typedef enum verdict { SAY, GO_ON, QUIT } verdict;

static const struct {
    const char *word, *help;
    verdict then;
} commands[] = {
    {"/help", "this text", GO_ON},
    {"/quit", "end (so do /exit, /bye and Ctrl-D)", QUIT},
    {"/exit", NULL, QUIT},
    {"/bye", NULL, QUIT},
};

static void help(void)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (commands[i].help) {
            fprintf(stderr, "%-8s %s\n", commands[i].word, commands[i].help);
        }
    }
    fputs("//text   say /text to the model: what begins with one / is a command\n"
          "Ctrl-C   end the answer; at the prompt: drop the line\n",
          stderr);
}

/* *text: trimmed; moves behind a slash that was doubled to be said. */
static verdict obey(char **text)
{
    if (**text == 0) {
        return GO_ON;
    }
    if (**text != '/' || (*text)[1] == '/') {
        *text += **text == '/';
        return SAY;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcasecmp(*text, commands[i].word) == 0) {
            if (commands[i].then == GO_ON) {
                help();
            }
            return commands[i].then;
        }
    }
    char shown[41];
    cp_snprintf(shown, sizeof shown, "%s", *text);
    cp_printable(shown);
    fprintf(stderr, "unknown command '%s'; /help lists them, /%s is said to the model\n", shown,
            shown);
    return GO_ON;
}

typedef struct dialogue {
    turn *turns;
    int n;
} dialogue;

static void add_turn(dialogue *d, const char *role, const char *content)
{
    d->turns = cp_xrealloc(d->turns, (size_t)(d->n + 1) * sizeof *d->turns);
    d->turns[d->n++] = (turn){cp_xstrdup(role), cp_xstrdup(content)};
}

static void drop_turn(dialogue *d)
{
    free(d->turns[--d->n].role);
    free(d->turns[d->n].content);
}

/* One answer to what was said. Where it fails, neither is kept. */
static cp_code converse(runner *r, dialogue *d, const char *text, cp_err *err)
{
    cp_ids ids = {0};
    answer a = {0};
    add_turn(d, "user", text);
    cp_code rc = encode_chat(r, d->turns, d->n, &ids, err);
    if (rc == CP_OK) {
        rc = generate(r, &ids, &a, err);
    }
    putchar('\n');
    if (rc) {
        drop_turn(d);
    } else {
        add_turn(d, "assistant", cp_buf_addc(&a.text, '\0') ? a.text.p : "");
    }
    cp_buf_fini(&a.text);
    cp_ids_fini(&ids);
    return rc;
}

static int chat(runner *r, cp_err *err)
{
    dialogue d = {0};
    cp_lines in = {.interrupts = r->interrupts};
    cp_buf line = {0};
    int rc = 0;
    fprintf(stderr, "chatting with %s; /help lists commands\n", r->m.ref);
    for (;;) {
        cp_news what;
        fputs("> ", stderr);
        if (cp_lines_next(&in, &line, &what, err)) {
            rc = cp_app_fail(err);
            break;
        }
        if (what != CP_NEWS_LINE) {
            fputc('\n', stderr);
            if (what == CP_NEWS_END) {
                break;
            }
            continue;
        }
        char *text = cp_line_trim(&line);
        verdict v = text ? obey(&text) : QUIT;
        if (v == QUIT) {
            break;
        }
        cp_code code = v == SAY ? converse(r, &d, text, err) : CP_OK;
        rc = code ? cp_app_fail(err) : rc;
        if (code == CP_NO_TEMPLATE || ferror(stdout)) {
            break;
        }
    }
    while (d.n) {
        drop_turn(&d);
    }
    free(d.turns);
    cp_lines_fini(&in);
    cp_buf_fini(&line);
    return rc;
}

/* ---- the command ---- */

/* Sampling of the [[model]] with this ref in the --config file; NULL: none. */
static const cp_sampling_options *configured(const cp_options *o)
{
    for (int i = 0; i < o->n_models; i++) {
        if (strcmp(o->models[i].ref, o->args.p[0]) == 0) {
            return &o->models[i].sampling;
        }
    }
    return NULL;
}

/* SIGINT is for the main thread alone, and there for a descriptor. Others never see it, so they are
 * started while it is blocked. */
static void block_interrupts(bool block)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static cp_code open_interrupts(runner *r, cp_err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    block_interrupts(true);
    r->interrupts = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return r->interrupts >= 0 ? CP_OK : cp_fail(err, CP_IO, "signals: %s", strerror(errno));
}

/* Pool and engine; the model is packed between them, which Ctrl-C ends. */
static cp_code open_engine(runner *r, cp_err *err)
{
    const cp_options *o = r->o;
    cp_engine_model em = {.ctx = (int)o->ctx,
                          .kv_bytes = o->kv_bytes,
                          .max_seqs = 1,
                          .max_batch_rows = (int)o->max_batch_rows,
                          .prefill_chunk = (int)o->prefill_chunk,
                          .kv_type = o->kv_type == CP_KV_TYPE_F16 ? CP_DTYPE_F16 : CP_DTYPE_BF16,
                          .prefix_cache = o->prefix_cache};
    cp_options one = *o;
    one.max_queue = 4;
    one.max_queue_tokens = INT64_MAX;
    block_interrupts(true);
    cp_code rc = cp_stack_open(&r->stack, o, NULL, err);
    block_interrupts(false);
    rc = rc ? rc : cp_stack_engine(&r->stack, &one, NULL, NULL, err);
    return rc ? rc : cp_app_model_add(&r->m, &r->stack, &em, err);
}

static cp_code read_prompt(const cp_options *o, cp_buf *prompt, cp_err *err)
{
    if (o->prompt && strcmp(o->prompt, "-") == 0) {
        return cp_stdio_read((size_t)64 << 20, prompt, err);
    }
    return cp_buf_adds(prompt, o->prompt ? o->prompt : "")
               ? CP_OK
               : cp_fail(err, CP_NO_MEMORY, "out of memory");
}

/* A chat is text in turns: it has no object to print, and each turn is rendered. */
static cp_code check_chat(const cp_options *o, cp_err *err)
{
    return o->prompt || (!o->json && !o->raw)
               ? CP_OK
               : cp_fail(err, CP_USAGE, "run: %s needs --prompt; without one run is a chat",
                         o->json ? "--json" : "--raw");
}

int cp_cmd_run(const cp_options *o)
{
    runner r = {.o = o, .interrupts = -1};
    cp_err err = {0};
    cp_buf prompt = {0};
    int rc;
    cp_progress p;
    if (check_chat(o, &err)) {
        return cp_app_fail(&err);
    }
    cp_progress_init(&p, o->args.p[0], false);
    cp_code code = cp_app_model_open(&r.m, o->args.p[0], o->chat_template_file, o, NULL,
                                     cp_progress_report, &p, &err);
    cp_progress_end(&p);
    if (code) {
        return cp_app_fail(&err);
    }
    const cp_sampling_defaults d =
        cp_app_sampling_defaults(r.m.file, r.m.ref, CP_DEFAULTS_LLAMA_CPP, configured(o));
    if (set_params(&r, &d, &err) || open_engine(&r, &err) || read_prompt(o, &prompt, &err) ||
        open_interrupts(&r, &err) || cp_engine_start(r.stack.engine, &err)) {
        rc = cp_app_fail(&err);
        goto done;
    }
    r.local = cp_local_open(cp_engine_front(r.stack.engine));
    rc = o->prompt ? run_once(&r, &prompt, &err) : chat(&r, &err);
    cp_engine_stop(r.stack.engine);
done:
    cp_local_close(r.local);
    cp_stack_close(&r.stack);
    cp_app_model_close(&r.m);
    if (r.arena) {
        cp_arena_free(r.arena);
    }
    if (r.interrupts >= 0) {
        close(r.interrupts);
    }
    cp_buf_fini(&prompt);
    return rc;
}
