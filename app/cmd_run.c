/*
 * run: one completion, or a chat in the terminal, through the real engine. A turn renders the whole
 * conversation again and lets the prefix cache do the rest. Ctrl-C ends the answer; at the prompt
 * it drops the line, and never ends a chat. While the model is loaded it ends the program.
 */
#include "app/command.h"
#include "app/compose.h"
#include "app/defaults.h"
#include "app/emit_json.h"
#include "app/local.h"
#include "app/progress.h"
#include "app/stdio.h"
#include "base/clock.h"
#include "server/stops.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* A line of the chat; 130 is what a shell says of a command that SIGINT ended. */
enum { LINE_BYTES_MAX = 16 << 20, EXIT_INTERRUPTED = 130 };

typedef struct runner {
    const cp_options *o;
    int interrupts; /* signalfd of SIGINT, not blocking */
    cp_stack stack;
    cp_app_model m;
    cp_local *local;
    cp_sampling_defaults defaults;
    cp_arena *arena;       /* of stops */
    const cp_stops *stops; /* NULL: none */
    int32_t *stop_ids;     /* the tokenizer's ends, and stop strings that spell a special token */
    int n_stop_ids;
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

/* Conversation -> template -> ids, with everything that was typed marked so that no special token
 * is parsed in it. */
static cp_code encode_chat(const runner *r, const turn *turns, int n_turns, cp_ids *ids,
                           cp_err *err)
{
    if (!r->m.chat_template) {
        return cp_fail(err, CP_NO_TEMPLATE,
                       "%s has no chat template; use --prompt with --raw, or "
                       "--chat-template-file",
                       r->m.ref);
    }
    const cp_tokenizer *t = r->m.tokenizer;
    cp_arena *a = cp_arena_new((size_t)256 << 20);
    cp_val *messages = cp_val_list(a), *vars = cp_val_dict(a);
    bool ok = messages && vars;
    for (int i = 0; ok && i < n_turns; i++) {
        cp_val *m = cp_val_dict(a);
        ok = m &&
             cp_val_set(a, m, "role", cp_val_str(a, turns[i].role, strlen(turns[i].role), false)) &&
             cp_val_set(a, m, "content",
                        cp_val_str(a, turns[i].content, strlen(turns[i].content), true)) &&
             cp_val_push(a, messages, m);
    }
    const struct {
        const char *name;
        int32_t id;
    } tokens[] = {{"bos_token", cp_tokenizer_bos(t)}, {"eos_token", cp_tokenizer_eos(t)}};
    for (int i = 0; ok && i < 2; i++) {
        cp_str s = tokens[i].id >= 0 ? cp_tokenizer_piece(t, tokens[i].id) : (cp_str){"", 0};
        ok = cp_val_set(a, vars, tokens[i].name, cp_val_str(a, s.p, s.n, false));
    }
    ok = ok && cp_val_set(a, vars, "messages", messages) &&
         cp_val_set(a, vars, "add_generation_prompt", cp_val_bool(a, true));
    cp_rendered out = {0};
    cp_code rc = ok ? cp_template_render(r->m.chat_template, a, vars, cp_wall_sec(), &out, err)
                    : cp_fail(err, CP_NO_MEMORY, "the conversation does not fit into 256 MiB");
    if (rc == CP_OK) {
        cp_span *spans = cp_xcalloc(out.n_input + 1, sizeof *spans);
        for (size_t i = 0; i < out.n_input; i++) {
            spans[i] = (cp_span){out.input[i].begin, out.input[i].end};
        }
        rc = cp_tokenizer_encode(t, out.text.p ? out.text.p : "", out.text.n, false, true, spans,
                                 out.n_input, ids, err);
        free(spans);
    }
    cp_rendered_fini(&out);
    cp_arena_free(a);
    return rc;
}

static void fill_sampling(const runner *r, cp_sampling *s)
{
    const cp_options *o = r->o;
    const cp_sampling_defaults *d = &r->defaults;
    size_t n_eog;
    const int32_t *eog = cp_tokenizer_eogs(r->m.tokenizer, &n_eog);
    s->temperature = (float)(cp_option_given(o, CP_OPT_temp) ? o->temp : d->temperature);
    s->top_p = (float)(cp_option_given(o, CP_OPT_top_p) ? o->top_p : d->top_p);
    s->min_p = (float)d->min_p;
    s->top_k = (int)d->top_k;
    s->repetition = (float)d->repetition_penalty;
    s->presence = (float)d->presence_penalty;
    s->frequency = (float)d->frequency_penalty;
    s->seed = (uint64_t)(cp_option_given(o, CP_OPT_seed) ? o->seed : d->seed);
    if (!cp_option_given(o, CP_OPT_seed) && !d->has_seed &&
        getrandom(&s->seed, sizeof s->seed, 0) != sizeof s->seed) {
        s->seed = (uint64_t)cp_now_ns();
    }
    s->stop_ids = r->stop_ids;
    s->n_stop_ids = r->n_stop_ids;
    s->eog_ids = eog;
    s->n_eog_ids = (int)n_eog;
}

/* The packaging's stop strings: for the text, and those that no text shows for the engine. */
static cp_code set_stops(runner *r, cp_err *err)
{
    const cp_sampling_defaults *d = &r->defaults;
    cp_str list[CP_DEFAULT_STOPS];
    size_t n_eog;
    const int32_t *eog = cp_tokenizer_eogs(r->m.tokenizer, &n_eog);
    r->stop_ids = cp_xcalloc(n_eog + CP_DEFAULT_STOPS, sizeof *r->stop_ids);
    for (size_t i = 0; i < n_eog; i++) {
        r->stop_ids[r->n_stop_ids++] = eog[i];
    }
    if (d->n_stop == 0) {
        return CP_OK;
    }
    for (int i = 0; i < d->n_stop; i++) {
        list[i] = (cp_str){d->stop[i], strlen(d->stop[i])};
    }
    r->n_stop_ids += cp_stops_special(r->m.tokenizer, list, d->n_stop, r->stop_ids + r->n_stop_ids);
    r->arena = cp_arena_new((size_t)1 << 20);
    r->stops = cp_stops_new(r->arena, list, d->n_stop);
    return r->stops ? CP_OK : cp_fail(err, CP_NO_MEMORY, "out of memory");
}

/* The text of one choice on its way: tokens -> bytes -> what the stop strings let through. */
typedef struct flow {
    const cp_stops *stops;
    cp_detok detok;
    cp_stop_state state;
    cp_buf piece; /* bytes that were not fed yet */
    bool met;     /* a stop string: the text is final */
} flow;

static void flow_on(flow *f, bool last, cp_buf *text)
{
    if (last) {
        cp_detok_finish(&f->detok, &f->piece);
    }
    if (!f->stops) {
        cp_buf_add(text, f->piece.p, f->piece.n);
    } else if (!f->met) {
        f->met = cp_stops_feed(f->stops, &f->state, f->piece.p, f->piece.n, false, text);
        if (last && !f->met) {
            cp_stops_flush(&f->state, text);
        }
    }
    cp_buf_clear(&f->piece);
}

/* Was SIGINT sent since the last call? */
static bool interrupted(const runner *r)
{
    struct signalfd_siginfo info;
    return read(r->interrupts, &info, sizeof info) == (ssize_t)sizeof info;
}

/* The flag, else what models.toml or packaging says, and never more than fits. */
static int most_tokens(const runner *r, int room)
{
    int64_t most =
        cp_option_given(r->o, CP_OPT_max_tokens) ? r->o->max_tokens : r->defaults.max_tokens;
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
    fill_sampling(r, &q->sampling);
    cp_code rc = cp_local_submit(r->local, q, err);
    if (rc) {
        return rc;
    }
    cp_event ev;
    flow f = {.stops = r->stops};
    cp_detok_init(&f.detok, r->m.tokenizer, false, true);
    a->n_prompt = (int)ids->n;
    bool done = false, cancelled = false;
    while (!done) {
        bool got = cp_local_next(r->local, 50, &from, &ev);
        a->interrupted = a->interrupted || interrupted(r);
        if ((a->interrupted || f.met || rc) && !cancelled) {
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
            a->n_generated += !f.met;
            cp_detok_push(&f.detok, ev.id, &f.piece);
            flow_on(&f, false, &a->text);
        } else if (ev.type == CP_EV_FINISH) {
            a->n_generated += !f.met && ev.reason == CP_FINISH_STOP; /* the end token */
            flow_on(&f, true, &a->text);
            a->reason = f.met ? CP_FINISH_STOP : (cp_finish)ev.reason;
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
    cp_stop_state_fini(&f.state);
    cp_buf_fini(&f.piece);
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

/* Standard input, cut into lines. */
typedef struct input {
    cp_buf ahead; /* read and not yet taken */
    bool end;
} input;

typedef enum news { NEWS_LINE, NEWS_DROPPED, NEWS_END } news;

/* A line out of what was read, without its newline; the last one may have none. */
static bool take_line(input *in, cp_buf *line)
{
    const char *nl = in->ahead.n ? memchr(in->ahead.p, '\n', in->ahead.n) : NULL;
    size_t n = nl ? (size_t)(nl - in->ahead.p) : in->ahead.n;
    if (!nl && (!in->end || n == 0)) {
        return false;
    }
    cp_buf_add(line, in->ahead.p, n);
    n += nl != NULL;
    memmove(in->ahead.p, in->ahead.p + n, in->ahead.n - n);
    in->ahead.n -= n;
    return true;
}

static cp_code read_ahead(input *in, cp_err *err)
{
    char piece[65536];
    ssize_t n = read(STDIN_FILENO, piece, sizeof piece);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
        return cp_fail(err, CP_IO, "cannot read stdin: %s", strerror(errno));
    }
    in->end = n == 0;
    if (n > 0 && (in->ahead.n > LINE_BYTES_MAX || !cp_buf_add(&in->ahead, piece, (size_t)n))) {
        return cp_fail(err, CP_TOO_LARGE, "a line of stdin is longer than %d bytes",
                       LINE_BYTES_MAX);
    }
    return CP_OK;
}

/* The next line, or news of Ctrl-C, which drops what was typed of it. */
static cp_code read_line(const runner *r, input *in, cp_buf *line, news *what, cp_err *err)
{
    cp_buf_clear(line);
    for (;;) {
        struct pollfd p[] = {{.fd = r->interrupts, .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
        *what = NEWS_LINE;
        if (take_line(in, line)) {
            return CP_OK;
        }
        if (in->end) {
            *what = NEWS_END;
            return CP_OK;
        }
        (void)poll(p, 2, -1);
        if (interrupted(r)) {
            cp_buf_clear(&in->ahead);
            *what = NEWS_DROPPED;
            return CP_OK;
        }
        cp_code rc = p[1].revents ? read_ahead(in, err) : CP_OK;
        if (rc) {
            return rc;
        }
    }
}

/* The line without blanks around it, NUL-terminated within line; NULL: out of memory. */
static char *trim(cp_buf *line)
{
    if (!cp_buf_addc(line, '\0') || line->failed) {
        return NULL;
    }
    char *s = line->p + strspn(line->p, " \t\r\f\v");
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r\f\v", s[n - 1])) {
        n--;
    }
    s[n] = 0;
    return s;
}

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
    input in = {0};
    cp_buf line = {0};
    int rc = 0;
    fprintf(stderr, "chatting with %s; /help lists commands\n", r->m.ref);
    for (;;) {
        news what;
        fputs("> ", stderr);
        if (read_line(r, &in, &line, &what, err)) {
            rc = cp_app_fail(err);
            break;
        }
        if (what != NEWS_LINE) {
            fputc('\n', stderr);
            if (what == NEWS_END) {
                break;
            }
            continue;
        }
        char *text = trim(&line);
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
    cp_buf_fini(&in.ahead);
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
    cp_code rc = cp_stack_open(&r->stack, o, err);
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
    cp_code code = cp_app_model_open(&r.m, o->args.p[0], o->chat_template_file, o,
                                     cp_progress_report, &p, &err);
    cp_progress_end(&p);
    if (code) {
        return cp_app_fail(&err);
    }
    r.defaults = cp_app_sampling_defaults(r.m.file, r.m.ref, CP_DEFAULTS_LLAMA_CPP, configured(o));
    if (set_stops(&r, &err) || open_engine(&r, &err) || read_prompt(o, &prompt, &err) ||
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
    free(r.stop_ids);
    return rc;
}
