/*
 * bench serve: puts load on a server that speaks OpenAI's API, and measures what it takes
 * (bench/load).
 *
 * Progress goes to stderr where that is a terminal. Ctrl-C ends the run: what was measured so far
 * is reported and the exit code is 130; pressed again while it is reported, it ends the process.
 */
#include "app/command.h"
#include "app/compose.h"
#include "base/io.h"
#include "bench/load/load.h"
#include "loader/oci/remote/authorities.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_INTERRUPTED = 130, PEM_MAX = 16 << 20 };

/* ---- progress ---- */

static bool is_terminal(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* One line that is written over itself, cut to the terminal's width. */
static void show(void *arg, const cp_load_progress *p)
{
    (void)arg;
    struct winsize ws;
    char line[200], run[64] = "";
    if (p->run)
        cp_snprintf(run, sizeof(run), " %.3g/s (run %u)", p->rate, p->run);
    else if (p->rate > 0)
        cp_snprintf(run, sizeof(run), " %.3g/s", p->rate);
    if (p->total == 0) {
        fprintf(stderr, "\r\033[K%s", p->phase);
        fflush(stderr);
        return;
    }
    size_t n = cp_snprintf(line, sizeof(line), "%s%s: %llu of %llu, %u out", p->phase, run,
                           (unsigned long long)p->done, (unsigned long long)p->total, p->in_flight);
    if (p->failed)
        n +=
            cp_snprintf(line + n, sizeof(line) - n, ", %llu failed", (unsigned long long)p->failed);
    cp_snprintf(line + n, sizeof(line) - n, ", %.0f tokens/s, %.0f s", p->output_tok_s, p->seconds);
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 1 ? ws.ws_col - 1 : 79;
    fprintf(stderr, "\r\033[K%.*s", width, line);
    fflush(stderr);
}

/* ---- what the generator is given ---- */

/* The command line without the key. */
static cp_code command_line(const cp_options *o, cp_buf *out, cp_err *err)
{
    cp_strings flags = {0};
    cp_code code = cp_options_forward(o, CP_CMD_BENCH_SERVE, o->arena, &flags, err);
    cp_buf_adds(out, "capstan bench serve");
    for (int i = 0; i < flags.n && !code; i++) {
        if (!cp_has_prefix(flags.p[i], "--api-key="))
            cp_buf_printf(out, " %s", flags.p[i]);
    }
    return code;
}

/* The authorities that --ca-file and the environment name; empty: libcurl's own. */
static cp_code authorities(const cp_options *o, cp_buf *pem, cp_err *err)
{
    cp_authorities a;
    if (!cp_has_prefix(o->url, "https://"))
        return CP_OK;
    cp_authorities_find(&a);
    if (o->ca_file)
        return cp_authorities_join(&a, o->ca_file, pem, err);
    cp_code code = a.given ? cp_authorities_check(&a, err) : CP_OK;
    return !code && a.given && a.file ? cp_file_read(a.file, PEM_MAX, pem, err) : code;
}

/* Is this one of the options with which JSON also holds the requests one by one? */
static bool wants_rows(const cp_options *o)
{
    static const cp_option more[] = {CP_OPT_api_key, CP_OPT_ca_file,      CP_OPT_endpoint,
                                     CP_OPT_dataset, CP_OPT_dataset_file, CP_OPT_burstiness,
                                     CP_OPT_ramp,    CP_OPT_warmup,       CP_OPT_slo,
                                     CP_OPT_sweep,   CP_OPT_html};
    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        if (cp_option_given(o, more[i]))
            return true;
    }
    return false;
}

static cp_load_config config_of(const cp_options *o)
{
    return (cp_load_config){
        .url = o->url,
        .model = o->model,
        .api_key = o->api_key.n ? o->api_key.p[o->api_key.n - 1] : NULL,
        .completions = o->endpoint == CP_ENDPOINT_COMPLETIONS,
        .dataset = (cp_load_dataset)o->dataset,
        .dataset_file = o->dataset_file,
        .input_len = o->input_len,
        .output_len = o->output_len,
        .prefix_len = o->prefix_len,
        .prefix_groups = o->prefix_groups,
        .turns = o->turns,
        .concurrency = o->concurrency,
        .rate = o->rate,
        .burstiness = o->burstiness,
        .ramp = o->ramp,
        .slo = o->slo,
        .sweep = o->sweep,
        .requests = o->requests,
        .warmup = o->warmup,
        .timeout_ms = o->timeout,
        .seed = (uint64_t)o->seed,
        .watch = is_terminal() ? show : NULL,
        .version = cp_app_version(),
        .rows = wants_rows(o),
    };
}

/* ---- Ctrl-C ---- */

static int open_interrupts(sigset_t *old)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, old);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* From here on Ctrl-C ends the process; the one that was heard is taken. */
static void close_interrupts(int fd, const sigset_t *old)
{
    struct signalfd_siginfo si;
    while (fd >= 0 && read(fd, &si, sizeof(si)) > 0)
        continue;
    cp_io_close(fd);
    sigprocmask(SIG_SETMASK, old, NULL);
}

/* ---- the page ---- */

/* Opened before the run, so that hours are not measured for a page that cannot be written; what
 * the file holds stays until there is another one. *fd is -1 without --html. */
static cp_code open_page(const char *path, int *fd, cp_err *err)
{
    *fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (path && *fd < 0)
        return cp_fail(err, CP_USAGE, "--html: '%s' cannot be written: %s", path, strerror(errno));
    return CP_OK;
}

static cp_code write_page(const char *path, int fd, const cp_load_result *r, cp_err *err)
{
    cp_buf page = {0};
    if (fd < 0)
        return CP_OK;
    cp_load_report_html(r, &page);
    (void)!ftruncate(fd, 0); /* not of pipes */
    bool whole = !page.failed && cp_io_write(fd, page.p, page.n);
    cp_buf_fini(&page);
    return whole ? CP_OK
                 : cp_fail(err, CP_IO, "--html: '%s' cannot be written: %s", path, strerror(errno));
}

/* Nothing was measured: a file that was made for the page goes. */
static void take_page_back(const char *path, int fd)
{
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
        unlink(path);
}

/* ---- the command ---- */

static int report(const cp_options *o, const cp_load_result *r)
{
    cp_buf text = {0};
    const cp_load_run *last = &r->runs[r->n_runs - 1];
    if (o->json) {
        cp_load_report_json(r, &text);
        cp_buf_addc(&text, '\n');
    } else {
        cp_load_report_text(r, &text);
    }
    bool whole = !text.failed && fwrite(text.p, 1, text.n, stdout) == text.n;
    cp_buf_fini(&text);
    if (!whole)
        return 1; /* what could not be written is said by cp_stdio_close */
    if (last->interrupted)
        return EXIT_INTERRUPTED;
    for (size_t i = 0; i < r->n_runs; i++) {
        if (r->runs[i].completed)
            return 0;
    }
    fprintf(stderr, "capstan: no request was completed%s%s\n", r->n_notes ? "; " : "",
            r->n_notes ? r->notes[r->n_notes - 1] : "");
    return 1;
}

int cp_cmd_bench_serve(const cp_options *o)
{
    cp_err err = {0};
    cp_buf pem = {.max = PEM_MAX}, command = {0};
    cp_load_result *result = NULL;
    sigset_t old;
    int rc = 0, page = -1;
    cp_code code = command_line(o, &command, &err);
    if (!code)
        code = authorities(o, &pem, &err);
    if (!code)
        code = open_page(o->html, &page, &err);
    if (!code) {
        cp_load_config cfg = config_of(o);
        cfg.command = command.p;
        cfg.ca_pem = pem.p;
        cfg.n_ca_pem = pem.n;
        cfg.interrupt_fd = open_interrupts(&old);
        code = cp_load_measure(&cfg, &result, &err);
        if (cfg.watch)
            fputs("\r\033[K", stderr);
        close_interrupts(cfg.interrupt_fd, &old);
    }
    if (code) {
        take_page_back(o->html, page);
        rc = code == CP_CANCELLED ? (cp_app_fail(&err), EXIT_INTERRUPTED) : cp_app_fail(&err);
    } else {
        rc = report(o, result);
        if (write_page(o->html, page, result, &err))
            rc = cp_app_fail(&err);
    }
    cp_io_close(page);
    cp_load_result_free(result);
    cp_buf_fini(&command);
    cp_buf_fini(&pem);
    return rc;
}
