/*
 * The opener: what it hands over, what it does not, whoever asks, and what is left when it is gone.
 * Each test has a folder of its own with a configuration file, and an opener.
 */
#include "tests/support/cmocka.h"

#include "app/child.h"
#include "app/opener.h"
#include "app/opener_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TINY CP_SOURCE_DIR "/tests/golden/tiny/llama.gguf"

typedef struct room {
    char dir[64], config[96];
    cp_options *o;
    cp_opener *op;
    cp_buf text;
    cp_err err;
} room;

static void save(const room *r, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void config(const room *r, const char *keys, const char *template)
{
    char text[1024];
    snprintf(text, sizeof text,
             "api_key_file = \"%s/%s\"\n[[model]]\nref = \"%s\"\nchat_template_file = \"%s/%s\"\n",
             r->dir, keys, TINY, r->dir, template);
    save(r, "c.toml", text);
}

static int set_up(void **state)
{
    room *r = calloc(1, sizeof *r);
    cp_strcopy(r->dir, sizeof r->dir, "/tmp/cp_opener_XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    setenv("XDG_CACHE_HOME", r->dir, 1);
    setenv("XDG_DATA_HOME", r->dir, 1);
    snprintf(r->config, sizeof r->config, "%s/c.toml", r->dir);
    config(r, "keys", "template");
    save(r, "keys", "one\n");
    save(r, "other-keys", "two\n");
    save(r, "template", "{{ 1 }}");
    save(r, "other-template", "{{ 2 }}");
    char *const words[] = {(char[]){"capstan"}, (char[]){"serve"}, (char[]){"--config"}, r->config};
    assert_int_equal(cp_options_parse(&r->o, 4, words, NULL, &r->err), CP_OK);
    assert_int_equal(cp_opener_start(&r->op, r->o, &r->err), CP_OK);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    room *r = *state;
    char command[128];
    cp_opener_stop(r->op);
    cp_options_free(r->o);
    cp_buf_fini(&r->text);
    snprintf(command, sizeof command, "rm -rf '%s'", r->dir);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
    free(r);
    return 0;
}

static const char *path(const room *r, const char *name)
{
    static char out[128];
    snprintf(out, sizeof out, "%s/%s", r->dir, name);
    return out;
}

static cp_code read_keys(room *r)
{
    cp_buf_clear(&r->text);
    return cp_opener_read(r->op, CP_FILE_KEYS, "the key file", &r->text, &r->err);
}

static cp_code read_template(room *r, const char *name)
{
    cp_buf_clear(&r->text);
    return cp_opener_template(r->op, path(r, name), &r->text, &r->err);
}

static void no_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)phase;
    (void)done;
    (void)total;
}

static cp_code find(room *r, cp_found **f, const char *ref)
{
    return cp_opener_find(r->op, f, ref, r->o, no_progress, NULL, &r->err);
}

static void files_are_those_that_the_configuration_names_now(void **state)
{
    room *r = *state;
    assert_int_equal(cp_opener_read(r->op, CP_FILE_CONFIG, "the file", &r->text, &r->err), CP_OK);
    assert_non_null(strstr(r->text.p, "api_key_file"));
    assert_int_equal(read_keys(r), CP_OK);
    assert_string_equal(r->text.p, "one\n");
    config(r, "other-keys", "template");
    assert_int_equal(read_keys(r), CP_OK);
    assert_string_equal(r->text.p, "two\n");
    save(r, "c.toml", "what is this?"); /* then what was said at the start holds */
    assert_int_equal(read_keys(r), CP_OK);
    assert_string_equal(r->text.p, "one\n");
    unlink(path(r, "keys"));
    assert_int_equal(read_keys(r), CP_NOT_FOUND);
    assert_non_null(strstr(r->err.msg, "/keys: No such file"));
    assert_int_equal(mkfifo(path(r, "keys"), 0600), 0);
    assert_int_equal(read_keys(r), CP_IO); /* and it does not wait */
}

static void a_template_is_named_or_looks_like_one(void **state)
{
    room *r = *state;
    assert_int_equal(read_template(r, "template"), CP_OK);
    assert_string_equal(r->text.p, "{{ 1 }}");
    assert_int_equal(read_template(r, "other-template"), CP_OK); /* of a request */
    assert_string_equal(r->text.p, "{{ 2 }}");
    assert_int_equal(read_template(r, "keys"), CP_TEMPLATE);
    assert_non_null(strstr(r->err.msg, "keys: not opened: it has no {{ and no {% in it"));
    assert_int_equal(read_template(r, "none"), CP_NOT_FOUND);
    config(r, "keys", "keys");
    assert_int_equal(read_template(r, "keys"), CP_OK); /* the operator says so */
    assert_string_equal(r->text.p, "one\n");
}

static void a_model_s_files_begin_like_a_model(void **state)
{
    room *r = *state;
    cp_found *f;
    cp_loaded *m;
    assert_int_equal(find(r, &f, TINY), CP_OK);
    assert_int_equal(cp_loader_map(&m, f, NULL), CP_OK);
    assert_true(cp_loaded_n_tensors(m) > 10);
    cp_loaded_close(m);
    assert_int_equal(find(r, &f, "/etc/passwd"), CP_CORRUPT);
    assert_non_null(strstr(r->err.msg, "is no GGUF file"));
    assert_int_equal(find(r, &f, path(r, "keys")), CP_CORRUPT);
    assert_int_equal(find(r, &f, path(r, "none.gguf")), CP_NOT_FOUND);
    assert_int_equal(find(r, &f, r->dir), CP_UNSUPPORTED);
}

static void packed_weights_lie_in_folders_that_it_named(void **state)
{
    room *r = *state;
    const cp_panel_door *d = cp_opener_panels(r->op);
    cp_panel_new n;
    cp_found *f;
    char c = 0;
    assert_int_equal(d->create(d->arg, &n, r->dir, "x.panels", 8, &r->err), CP_USAGE);
    assert_int_equal(find(r, &f, TINY), CP_OK);
    assert_int_equal(d->open(d->arg, f->cache_dir, "x.panels", 8, &r->err), -1);
    assert_int_equal(r->err.code, CP_NOT_FOUND);
    static const char *const names[] = {"../x.panels", "x", "a/x.panels"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(d->create(d->arg, &n, f->cache_dir, names[i], 8, &r->err), CP_USAGE);
        assert_int_equal(d->open(d->arg, f->cache_dir, names[i], 8, &r->err), -1);
        assert_int_equal(r->err.code, CP_USAGE);
    }
    assert_int_equal(d->place(d->arg, &n, false), EBADF); /* nothing is being made */
    assert_int_equal(d->create(d->arg, &n, f->cache_dir, "x.panels", 8, &r->err), CP_OK);
    assert_int_equal(pwrite(n.fd, "weights!", 8, 0), 8);
    assert_int_equal(d->place(d->arg, &n, false), 0);
    d->close(d->arg, &n);
    int fd = d->open(d->arg, f->cache_dir, "x.panels", 8, &r->err);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, 7), 1);
    assert_int_equal(c, '!');
    assert_int_equal(pwrite(fd, "?", 1, 0), -1); /* to be read */
    close(fd);
    assert_int_equal(d->create(d->arg, &n, f->cache_dir, "y.panels", 8, &r->err), CP_OK);
    d->close(d->arg, &n); /* given up: it has no name */
    assert_int_equal(d->open(d->arg, f->cache_dir, "y.panels", 8, &r->err), -1);
    d->sweep(d->arg, f->cache_dir);
    cp_found_free(f);
}

static pid_t only_child(void)
{
    int pid = 0;
    char name[64];
    snprintf(name, sizeof name, "/proc/self/task/%d/children", (int)getpid());
    FILE *children = fopen(name, "r");
    assert_non_null(children);
    /* the youngest: one that an earlier test has ended may still be on its way out */
    for (int one; fscanf(children, "%d", &one) == 1;)
        pid = one;
    assert_true(pid > 0);
    fclose(children);
    return pid;
}

static void gone_it_says_so(void **state)
{
    room *r = *state;
    const cp_panel_door *d = cp_opener_panels(r->op);
    cp_panel_new n;
    cp_found *f;
    kill(only_child(), SIGKILL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(find(r, &f, TINY), CP_IO);
        assert_non_null(strstr(r->err.msg, "the process that opens files for this server has "
                                           "ended: nothing can be loaded"));
        assert_int_equal(read_keys(r), CP_IO);
    }
    assert_int_equal(d->create(d->arg, &n, r->dir, "x.panels", 8, &r->err), CP_IO);
    assert_int_equal(d->place(d->arg, &n, false), EPIPE);
    d->close(d->arg, &n);
    d->sweep(d->arg, r->dir);
}

static cp_say put(int socket, uint32_t what)
{
    static cp_ask ask;
    static cp_say say;
    size_t none = 0;
    memset(&ask, 'x', sizeof ask); /* no text in it ends */
    ask.what = what;
    assert_true(cp_wire_send(socket, &ask, sizeof ask, NULL, 0));
    do {
        assert_true(cp_wire_receive(socket, &say, sizeof say, NULL, &none));
    } while (say.what != CP_SAY_DONE);
    return say;
}

static void no_other_question_is_answered(void **state)
{
    room *r = *state;
    cp_child c;
    int ends[2];
    char end;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    assert_int_equal(cp_child_start(&c, "opener", SOCK_SEQPACKET, cp_opener_live, r->o, &r->err),
                     CP_OK);
    assert_true(cp_wire_send(c.fd, "", 1, &ends[1], 1));
    close(ends[1]);
    assert_int_equal(put(c.fd, CP_ASK_COUNT).code, CP_INTERNAL);
    assert_int_equal(put(c.fd, CP_ASK_MODEL).code, CP_INTERNAL);
    assert_int_equal(put(ends[0], CP_ASK_FILE).code, CP_INTERNAL);
    assert_int_equal(put(c.fd, CP_ASK_FILE).code, CP_NOT_FOUND); /* of no such number */
    assert_int_equal(put(c.fd, CP_ASK_TEMPLATE).code, CP_IO);
    assert_int_equal(put(c.fd, CP_ASK_PANEL_OPEN).code, CP_USAGE);
    assert_int_equal(put(c.fd, CP_ASK_PANEL_SWEEP).code, CP_USAGE);
    assert_int_not_equal(put(ends[0], CP_ASK_MODEL).code, CP_OK);
    assert_true(cp_wire_send(c.fd, "short", 5, NULL, 0)); /* that is the end of the talk */
    assert_int_equal(read(c.fd, &end, 1), 0);
    close(ends[0]);
    cp_child_stop(&c, 10000);
}

int main(void)
{
    alarm(120);
#define ROOM(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        ROOM(files_are_those_that_the_configuration_names_now),
        ROOM(a_template_is_named_or_looks_like_one),
        ROOM(a_model_s_files_begin_like_a_model),
        ROOM(packed_weights_lie_in_folders_that_it_named),
        ROOM(gone_it_says_so),
        ROOM(no_other_question_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
