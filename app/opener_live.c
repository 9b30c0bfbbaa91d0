/*
 * The opener's own side: see opener.h and opener_wire.h. Two threads, one for models and one for
 * everything else, each with its socket; the process ends when the server has closed the latter.
 *
 * The server may be in somebody else's hands, so what it asks for is looked at here. Paths come
 * from the options that this process was forked with, and from the configuration file as it is now.
 * A model's files begin like a model (loader/found.c), and a template that an administrator's
 * request names has a template's marks in it. Packed weights lie in folders that this process has
 * named itself, under names that only packed weights have.
 */
#include "app/fetch.h"
#include "app/opener.h"
#include "app/opener_wire.h"
#include "base/append.h"
#include "base/io.h"
#include "base/log.h"
#include "base/toml.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDERS_MAX = 1024 };

typedef struct opener {
    const cp_options *o;
    int files, models; /* sockets */
    pthread_mutex_t lock;
    char *folder[FOLDERS_MAX]; /* of packed weights, as named to the server; guarded by lock */
    size_t next;
    cp_panel_new making; /* one at a time: loads take turns; of the thread of files */
    bool is_making;
} opener;

/* What goes back with CP_SAY_DONE. */
typedef struct reply {
    cp_say say;
    int fds[CP_PARTS_MAX + 1];
    size_t n_fds;
} reply;

/* ---- what may be asked for ---- */

/* A key of the configuration file as it is now; false: the file does not say it. */
static bool config_says(const opener *op, const char *key, cp_toml **doc, const char **value)
{
    cp_buf b = {0};
    *doc = NULL;
    if (op->o->config && cp_file_read(op->o->config, CP_WIRE_FILE_BYTES, &b, NULL) == CP_OK) {
        (void)cp_toml_parse(doc, op->o->config, b.p ? b.p : "", b.n, NULL); /* NULL: it is broken */
    }
    cp_buf_fini(&b);
    const cp_toml_entry *e = *doc ? cp_toml_find(cp_toml_root(*doc), key) : NULL;
    bool said = e && e->value->type == CP_TOML_STRING;
    *value = said ? e->value->v.s : NULL;
    return said;
}

/* The path of a file that is asked for by number, a copy; NULL: there is none. What a flag or the
 * environment says stays; otherwise the configuration file says it. */
static char *path_of(const opener *op, uint32_t which)
{
    const cp_options *o = op->o;
    cp_toml *doc = NULL;
    const char *path = which == CP_FILE_CONFIG ? o->config
                       : which == CP_FILE_KEYS ? o->api_key_file
                                               : NULL;
    bool fixed = o->source[CP_OPT_api_key_file] == CP_FROM_FLAG ||
                 o->source[CP_OPT_api_key_file] == CP_FROM_ENV;
    const char *now;
    if (which == CP_FILE_KEYS && !fixed && config_says(op, "api_key_file", &doc, &now)) {
        path = now;
    }
    char *copy = path && *path ? cp_xstrdup(path) : NULL;
    cp_toml_free(doc);
    return copy;
}

static bool is_path(const char *path, const char *candidate)
{
    return candidate && strcmp(path, candidate) == 0;
}

/* Is it a template's path by the options, or by the file, for all models or for one? */
static bool is_template(const opener *op, const char *path)
{
    const cp_options *o = op->o;
    bool yes = is_path(path, o->chat_template_file);
    for (int i = 0; i < o->n_models; i++) {
        yes = yes || is_path(path, o->models[i].chat_template_file);
    }
    cp_toml *doc;
    const char *now;
    (void)config_says(op, "chat_template_file", &doc, &now);
    yes = yes || is_path(path, now);
    const cp_toml_entry *e = doc ? cp_toml_find(cp_toml_root(doc), "model") : NULL;
    const cp_toml_value *m = e && e->value->type == CP_TOML_ARRAY ? e->value->v.array.first : NULL;
    for (; m && !yes; m = m->next) {
        const cp_toml_entry *t = cp_toml_find(m, "chat_template_file");
        yes = t && t->value->type == CP_TOML_STRING && is_path(path, t->value->v.s);
    }
    cp_toml_free(doc);
    return yes;
}

static void grant_folder(opener *op, const char *dir)
{
    pthread_mutex_lock(&op->lock);
    size_t i = 0;
    while (i < FOLDERS_MAX && op->folder[i] && strcmp(op->folder[i], dir) != 0) {
        i++;
    }
    if (*dir && (i == FOLDERS_MAX || !op->folder[i])) {
        free(op->folder[op->next]); /* the one named longest ago */
        op->folder[op->next] = cp_xstrdup(dir);
        op->next = (op->next + 1) % FOLDERS_MAX;
    }
    pthread_mutex_unlock(&op->lock);
}

static bool is_granted(opener *op, const char *dir)
{
    bool found = false;
    pthread_mutex_lock(&op->lock);
    for (size_t i = 0; i < FOLDERS_MAX && op->folder[i] && !found; i++) {
        found = strcmp(op->folder[i], dir) == 0;
    }
    pthread_mutex_unlock(&op->lock);
    return found;
}

/* ---- answers ---- */

/* The thread of models shares nothing with the other but the folders. */
typedef struct asked {
    opener *op;
    int socket;
    const cp_ask *ask;
} asked;

static cp_code add_file(reply *r, const char *path, cp_err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return cp_fail(err, errno == ENOENT ? CP_NOT_FOUND : CP_IO, "%s: %s", path,
                       strerror(errno));
    }
    r->fds[r->n_fds++] = fd;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode)
               ? CP_OK
               : cp_fail(err, CP_IO, "%s: is no plain file, which could be read again", path);
}

static cp_code give_file(const asked *a, reply *r, cp_err *err)
{
    char *path = path_of(a->op, a->ask->number);
    cp_code rc =
        path ? add_file(r, path, err) : cp_fail(err, CP_NOT_FOUND, "no such file is configured");
    free(path);
    return rc;
}

/* The path is the options' own, so it is not asked for. */
static cp_code give_audit(const asked *a, reply *r, cp_err *err)
{
    const char *path = a->op->o->audit_log;
    int fd;
    if (!path || !*path) {
        return cp_fail(err, CP_NOT_FOUND, "there is no --audit-log");
    }
    cp_code rc = cp_append_open_path(NULL, path, &fd, err);
    if (rc == CP_OK) {
        r->fds[r->n_fds++] = fd;
    }
    return rc;
}

/* "{{" or "{%": a password file, a key or a program has none, or is no text. */
static cp_code check_marks(const char *path, cp_err *err)
{
    cp_buf b = {0};
    cp_code rc = cp_file_read(path, CP_WIRE_FILE_BYTES, &b, err);
    const char *text = b.p ? b.p : "";
    if (rc == CP_OK && (strlen(text) != b.n || (!strstr(text, "{{") && !strstr(text, "{%")))) {
        rc = cp_fail(err, CP_TEMPLATE,
                     "%s: not opened: it has no {{ and no {%% in it, and neither "
                     "--chat-template-file nor the configuration file names it",
                     path);
    }
    cp_buf_fini(&b);
    return rc;
}

static cp_code give_template(const asked *a, reply *r, cp_err *err)
{
    cp_code rc = add_file(r, a->ask->path, err); /* a plain one: the next reads it */
    return rc || is_template(a->op, a->ask->path) ? rc : check_marks(a->ask->path, err);
}

static void tell(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    const asked *a = arg;
    cp_say say = {.what = CP_SAY_PROGRESS, .done = done, .total = total};
    cp_strcopy(say.text, sizeof say.text, phase);
    (void)cp_wire_send(a->socket, &say, sizeof say, NULL, 0); /* the answer will fail, too */
}

/* The descriptors, and behind them a file in memory with the rest. */
static cp_code add_found(reply *r, const cp_found *f, cp_err *err)
{
    cp_buf b = {0};
    int fd = memfd_create("model", MFD_CLOEXEC);
    bool whole = fd >= 0 && cp_found_write(f, &b) && cp_io_pwrite(fd, b.p, b.n, 0);
    int failed = errno;
    cp_buf_fini(&b);
    for (size_t i = 0; whole && i < f->n_parts; i++) {
        int copy = fcntl(f->parts[i].fd, F_DUPFD_CLOEXEC, 0);
        failed = errno;
        whole = copy >= 0;
        if (whole) {
            r->fds[r->n_fds++] = copy;
        }
    }
    if (!whole) {
        cp_io_close(fd);
        return cp_fail(err, CP_IO, "a model's files cannot be handed over: %s", strerror(failed));
    }
    r->fds[r->n_fds++] = fd;
    return CP_OK;
}

static cp_code give_model(const asked *a, reply *r, cp_err *err)
{
    const cp_ask *ask = a->ask;
    cp_options o = *a->op->o; /* with what is this model's own */
    cp_found *f;
    o.variant = *ask->name ? ask->name : NULL;
    o.platform = *ask->word ? ask->word : NULL;
    o.source[CP_OPT_variant] = o.variant ? CP_FROM_FLAG : CP_FROM_DEFAULT;
    o.source[CP_OPT_platform] = o.platform ? CP_FROM_FLAG : CP_FROM_DEFAULT;
    cp_code rc = cp_app_file_find(&f, ask->path, &o, tell, (void *)(uintptr_t)a, err);
    if (rc) {
        return rc;
    }
    grant_folder(a->op, f->cache_dir);
    grant_folder(a->op, f->cache_dir_made);
    rc = add_found(r, f, err);
    cp_found_free(f);
    return rc;
}

/* A folder that was named to the server, and a file's name that says what is in it. */
static cp_code check_panel(const asked *a, bool named, cp_err *err)
{
    const cp_ask *ask = a->ask;
    if (!is_granted(a->op, ask->path)) {
        return cp_fail(err, CP_USAGE, "%s: is no folder of a model's packed weights", ask->path);
    }
    if (named && (strchr(ask->name, '/') || !cp_has_suffix(ask->name, ".panels"))) {
        return cp_fail(err, CP_USAGE, "%s: is no name of packed weights", ask->name);
    }
    return CP_OK;
}

static cp_code open_panel(const asked *a, reply *r, cp_err *err)
{
    cp_code rc = check_panel(a, true, err);
    int fd = rc ? -1 : cp_panel_file_open(a->ask->path, a->ask->name, (size_t)a->ask->bytes, err);
    if (fd >= 0) {
        r->fds[r->n_fds++] = fd;
    }
    return rc ? rc : fd >= 0 ? CP_OK : err->code;
}

static void forget_panel(opener *op)
{
    if (op->is_making) {
        cp_panel_new_close(&op->making);
        op->is_making = false;
    }
}

static cp_code create_panel(const asked *a, reply *r, cp_err *err)
{
    opener *op = a->op;
    forget_panel(op);
    cp_code rc = check_panel(a, true, err);
    rc =
        rc ? rc
           : cp_panel_new_open(&op->making, a->ask->path, a->ask->name, (size_t)a->ask->bytes, err);
    if (rc) {
        return rc;
    }
    op->is_making = true;
    int copy = fcntl(op->making.fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
        return cp_fail(err, CP_IO, "%s: %s", a->ask->name, strerror(errno));
    }
    r->fds[r->n_fds++] = copy;
    return CP_OK;
}

static cp_code place_panel(const asked *a, reply *r, cp_err *err)
{
    opener *op = a->op;
    (void)err;
    r->say.number = op->is_making ? cp_panel_new_place(&op->making, a->ask->number != 0) : EBADF;
    return CP_OK;
}

static cp_code close_panel(const asked *a, reply *r, cp_err *err)
{
    (void)r;
    (void)err;
    forget_panel(a->op);
    return CP_OK;
}

static cp_code sweep_panels(const asked *a, reply *r, cp_err *err)
{
    (void)r;
    cp_code rc = check_panel(a, false, err);
    if (rc == CP_OK) {
        cp_panel_files_sweep(a->ask->path);
    }
    return rc;
}

typedef cp_code answer_fn(const asked *a, reply *r, cp_err *err);
static answer_fn *const answers[CP_ASK_COUNT] = {
    [CP_ASK_FILE] = give_file,           [CP_ASK_AUDIT] = give_audit,
    [CP_ASK_TEMPLATE] = give_template,   [CP_ASK_MODEL] = give_model,
    [CP_ASK_PANEL_OPEN] = open_panel,    [CP_ASK_PANEL_CREATE] = create_panel,
    [CP_ASK_PANEL_PLACE] = place_panel,  [CP_ASK_PANEL_CLOSE] = close_panel,
    [CP_ASK_PANEL_SWEEP] = sweep_panels,
};

/* ---- the loop ---- */

static void send_reply(int socket, reply *r, cp_code rc, const cp_err *err)
{
    size_t sent = 0;
    r->say.code = (int32_t)rc;
    cp_strcopy(r->say.text, sizeof r->say.text, rc ? err->msg : "");
    while (rc == CP_OK && r->n_fds - sent > CP_WIRE_FDS) {
        const cp_say more = {.what = CP_SAY_FILES};
        (void)cp_wire_send(socket, &more, sizeof more, r->fds + sent, CP_WIRE_FDS);
        sent += CP_WIRE_FDS;
    }
    r->say.what = CP_SAY_DONE;
    (void)cp_wire_send(socket, &r->say, sizeof r->say, r->fds + sent, rc ? 0 : r->n_fds - sent);
    for (size_t i = 0; i < r->n_fds; i++) {
        cp_io_close(r->fds[i]);
    }
}

/* Until the server closes its end. Models are asked for on a socket of their own, and nothing else
 * is. */
static void serve(opener *op, int socket)
{
    cp_ask ask;
    for (;;) {
        cp_err err = {0};
        reply r = {0};
        size_t none = 0;
        if (!cp_wire_receive(socket, &ask, sizeof ask, NULL, &none)) {
            return;
        }
        ask.path[sizeof ask.path - 1] = '\0';
        ask.name[sizeof ask.name - 1] = '\0';
        ask.word[sizeof ask.word - 1] = '\0';
        const asked a = {.op = op, .socket = socket, .ask = &ask};
        bool known =
            ask.what < CP_ASK_COUNT && (ask.what == CP_ASK_MODEL) == (socket == op->models);
        cp_code rc = known ? answers[ask.what](&a, &r, &err)
                           : cp_fail(&err, CP_INTERNAL, "no such question: %u", ask.what);
        send_reply(socket, &r, rc, &err);
    }
}

static void *serve_models(void *arg)
{
    opener *op = arg;
    serve(op, op->models);
    return NULL;
}

int cp_opener_live(int socket, void *arg)
{
    char hello;
    size_t n = 1;
    opener op = {.o = arg, .files = socket, .models = -1, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    if (!cp_wire_receive(socket, &hello, sizeof hello, &op.models, &n) || n != 1 ||
        pthread_create(&thread, NULL, serve_models, &op) != 0) {
        return 1;
    }
    pthread_detach(thread); /* it ends with its socket, or with the process */
    serve(&op, socket);
    forget_panel(&op);
    return 0; /* a search or a pull that is under way ends with the process */
}
