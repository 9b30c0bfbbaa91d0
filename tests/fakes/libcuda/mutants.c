/*
 * FAKE_MUTANTS=file: many faults, each of them tried in one run of a test that is green. The file
 * has a line a fault: a kernel, a line of its module's PTX and the text for it, by tabs.
 *
 * A launch of such a kernel runs as it is, and then, from the same memory, with each fault whose
 * line that just executed. Where that leaves the same bytes in all memory of the device, nobody can
 * see the fault yet. Where it does not, or the machine stops it, the process forks: the child goes
 * on with the fault in, and how it ends is what the suite says. As it ran all that was left, its
 * word is the last. With FAKE_PATIENCE=n it gives up after n further launches of the kernel; a
 * later launch may plant the fault again, for three children in all. Verdicts are appended to
 * FAKE_VERDICTS, a line each: sum of the text, kernel, line, text, verdict.
 */
#include "tests/fakes/libcuda/fake.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_SECONDS = 300, CHILD_WALL_SECONDS = 3600, CHILDREN = 3, GAVE_UP = 42 };

typedef struct mutant {
    char *kernel, *text;
    int line;
    uint64_t sum;
    const char *verdict; /* so far: "never" ran, or left the "same" bytes */
    bool settled;
    int children;       /* that gave up */
    ptx_module *module; /* its kernel alone; NULL: not yet */
    ptx_kernel *code;
} mutant;

static mutant *mutants;
static size_t n_mutants, n_open;
static mutant *planted; /* in a child */
static long patience;   /* of this child, in launches; 0: no end */
static bool is_read;

static _Noreturn void die(const char *what, const char *name)
{
    fprintf(stderr, "libcuda_fake: FAKE_MUTANTS: %s '%s'\n", what, name);
    _Exit(99);
}

/* ---- the file, and the verdicts ---- */

static mutant read_line(char *line)
{
    mutant m = {.kernel = line, .verdict = "never"};
    char *number = strchr(line, '\t'), *text = number ? strchr(number + 1, '\t') : NULL;
    if (!text)
        die("not kernel, line and text, by tabs:", line);
    *number = *text = 0;
    m.line = (int)strtol(number + 1, NULL, 10);
    m.text = text + 1;
    m.text[strcspn(m.text, "\n")] = 0;
    return m;
}

static void read_mutants(const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t size = 0, cap = 0;
    if (!f)
        die("cannot read", path);
    while (getline(&line, &size, f) > 0) {
        if (n_mutants == cap) {
            cap = cap ? 2 * cap : 256;
            mutants = realloc(mutants, cap * sizeof *mutants);
            if (!mutants)
                die("no memory for", path);
        }
        mutants[n_mutants++] = read_line(line);
        line = NULL;
    }
    n_open = n_mutants;
    free(line);
    fclose(f);
}

/* One write: what processes append does not mix. */
static void write_verdict(const mutant *m)
{
    const char *path = getenv("FAKE_VERDICTS");
    char line[1024];
    int n = snprintf(line, sizeof line, "%016llx\t%s\t%d\t%s\t%s\n", (unsigned long long)m->sum,
                     m->kernel, m->line, m->text, m->verdict);
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (file < 0 || n >= (int)sizeof line || write(file, line, (size_t)n) != n)
        die("cannot write a verdict to", path ? path : "FAKE_VERDICTS");
    close(file);
}

static void settle(mutant *m, const char *verdict)
{
    m->verdict = verdict;
    m->settled = true;
    n_open--;
    write_verdict(m);
    ptx_unload(m->module);
    m->module = NULL;
}

void fake_mutants_end(void)
{
    for (size_t i = 0; !planted && i < n_mutants; i++) {
        if (!mutants[i].settled)
            write_verdict(&mutants[i]);
    }
}

/* ---- the device's memory, before and after ---- */

typedef struct bytes {
    unsigned char *at;
    size_t n, cap;
} bytes;

static bytes before, after;

static void take(bytes *b)
{
    b->n = 0;
    for (const fake_memory_range *m = fake.ranges; m; m = m->next)
        b->n += m->host && m->address ? m->n : 0;
    if (b->n > b->cap) {
        free(b->at);
        b->at = fake_new(b->n);
        b->cap = b->n;
    }
    size_t at = 0;
    for (const fake_memory_range *m = fake.ranges; m; m = m->next) {
        if (m->host && m->address) {
            memcpy(b->at + at, m->host, m->n);
            at += m->n;
        }
    }
}

static void restore(const bytes *b)
{
    size_t at = 0;
    for (const fake_memory_range *m = fake.ranges; m; m = m->next) {
        if (m->host && m->address) {
            memcpy(m->host, b->at + at, m->n);
            at += m->n;
        }
    }
}

static bool equal(const bytes *b)
{
    size_t at = 0;
    for (const fake_memory_range *m = fake.ranges; m; m = m->next) {
        if (m->host && m->address) {
            if (memcmp(m->host, b->at + at, m->n) != 0)
                return false;
            at += m->n;
        }
    }
    return true;
}

/* ---- a fault ---- */

/* What stands before the first kernel, and the kernel with the line exchanged. */
static char *faulty_text(const mutant *m, const char *text)
{
    char sign[192], *out = NULL;
    size_t n = 0;
    snprintf(sign, sizeof sign, "\n.visible .entry %s(", m->kernel);
    const char *first = strstr(text, "\n.visible .entry "), *at = strstr(text, sign);
    const char *end = at ? strstr(at, "\n}\n") : NULL;
    FILE *f = open_memstream(&out, &n);
    if (!end || !f)
        die("no kernel", m->kernel);
    int line = 1;
    for (const char *c = text; c <= at; c++)
        line += *c == '\n';
    fwrite(text, 1, (size_t)(first - text), f);
    for (const char *c = at + 1; c < end + 3; line++) {
        const char *next = strchr(c, '\n') + 1;
        if (line == m->line)
            fprintf(f, "\n%s\n", m->text);
        else
            fwrite(c, 1, (size_t)(next - c), f);
        c = next;
    }
    fclose(f);
    return out;
}

static bool parse(mutant *m, const char *text)
{
    char err[512];
    if (m->module)
        return true;
    char *faulty = faulty_text(m, text);
    bool good = ptx_load(&m->module, faulty, err, sizeof err);
    free(faulty);
    if (good)
        m->code = ptx_find(m->module, m->kernel);
    else
        m->module = NULL;
    return good;
}

static void only_thread(const char *kernel)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    if (n != 1)
        die("a process of one thread alone can be forked, and has others for", kernel);
}

static void become_child(mutant *m)
{
    struct rlimit time = {CHILD_SECONDS, CHILD_SECONDS};
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    setrlimit(RLIMIT_CPU, &time);
    alarm(CHILD_WALL_SECONDS);
    unsetenv("FAKE_COVERAGE"); /* the parent's */
    unsetenv("FAKE_REPORT");
    setenv("FAKE_LIMIT", "64M", 0); /* a loop without end takes seconds */
    fake.limit = fake.limit ? fake.limit : UINT64_C(64) << 20;
    const char *text = getenv("FAKE_PATIENCE");
    patience = text ? strtol(text, NULL, 10) : 0;
    fake.coverage = fake.report = NULL;
    fake_lock_in_child();
    planted = m;
}

/* True in the child. */
static bool goes_on(mutant *m)
{
    int status = 0;
    only_thread(m->kernel);
    pid_t child = fork();
    if (child < 0)
        die("cannot fork for", m->kernel);
    if (child == 0) {
        become_child(m);
        return true;
    }
    if (waitpid(child, &status, 0) != child)
        die("lost the child of", m->kernel);
    if (WIFEXITED(status) && WEXITSTATUS(status) == GAVE_UP && ++m->children < CHILDREN) {
        m->verdict = "missed";
        return false;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == GAVE_UP)
        status = 0;
    bool hung = WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU ||
                                        WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGALRM);
    settle(m, hung ? "hung" : status ? "seen" : "missed");
    return false;
}

/* ---- launches ---- */

/* How often each line of the module's text was executed; *n is behind the kernel's last. */
static uint64_t *executed(const ptx_kernel *k, int *n)
{
    size_t lines = ptx_n_lines(k);
    *n = lines ? ptx_line_at(k, lines - 1).line + 1 : 0;
    uint64_t *times = fake_new((size_t)*n * sizeof *times);
    for (size_t i = 0; i < lines; i++) {
        ptx_line l = ptx_line_at(k, i);
        if (l.line < *n)
            times[l.line] = l.executed;
    }
    return times;
}

static bool wanted(const char *kernel)
{
    for (size_t i = 0; i < n_mutants; i++) {
        if (!mutants[i].settled && !strcmp(mutants[i].kernel, kernel))
            return true;
    }
    return false;
}

/* Launches with the faults of lines that the good run executed. True in a child, which goes on;
 * then *answer is the launch's. */
static bool try_each(fake_op *op, fake_launch_fn *run, const ptx_options *o, const uint64_t *lines,
                     int n_lines, const fake_image_text *image, CUresult *answer)
{
    for (size_t i = 0; i < n_mutants; i++) {
        mutant *m = &mutants[i];
        if (m->settled || m->line >= n_lines || !lines[m->line] ||
            strcmp(m->kernel, ptx_name(op->f->kernel)) != 0)
            continue;
        m->sum = image->sum;
        if (!parse(m, image->text)) {
            settle(m, "refused");
            continue;
        }
        m->verdict = m->children ? "missed" : "same";
        restore(&before);
        *answer = run(op, m->code, o);
        if ((*answer || !equal(&after)) && goes_on(m))
            return true;
    }
    return false;
}

/* The parent goes on as if there had been the good run alone. */
static CUresult try_all(fake_op *op, fake_launch_fn *run, const ptx_options *o,
                        const fake_image_text *image)
{
    int n = 0;
    uint64_t *was = executed(op->f->kernel, &n), instructions = fake.stats.warp_instructions;
    take(&before);
    CUresult good = run(op, op->f->kernel, o), other = good;
    take(&after);
    uint64_t *is = executed(op->f->kernel, &n);
    for (int i = 0; i < n; i++)
        is[i] -= was[i];
    ptx_options limited = *o; /* what takes so much longer hangs, as far as anybody can tell */
    limited.limit = 200000 + 8 * (fake.stats.warp_instructions - instructions);
    fake_state *kept = fake_new(sizeof *kept);
    memcpy(kept, &fake, sizeof fake);
    bool child = !good && try_each(op, run, &limited, is, n, image, &other);
    free(was);
    free(is);
    if (child)
        return other;
    memcpy(&fake, kept, sizeof fake);
    free(kept);
    restore(&after);
    if (n_open == 0) /* nobody waits for the rest of the test */
        exit(0);
    return good;
}

CUresult fake_mutants_launch(fake_op *op, fake_launch_fn *run, const ptx_options *o,
                             const fake_image_text *image)
{
    const char *path = getenv("FAKE_MUTANTS"), *name = ptx_name(op->f->kernel);
    if (path && *path && !is_read)
        read_mutants(path);
    is_read = true;
    if (planted && strcmp(planted->kernel, name) != 0)
        return run(op, op->f->kernel, o);
    if (planted && patience && --patience == 0)
        _Exit(GAVE_UP);
    if (planted)
        return run(op, planted->code, o);
    return wanted(name) ? try_all(op, run, o, image) : run(op, op->f->kernel, o);
}
