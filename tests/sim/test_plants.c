/*
 * test_plants: each numbered invariant has a planted bug that turns the simulation red.
 *
 * The sources of kv-cache and scheduler are compiled into this binary with CP_PLANTS. For every
 * row a child runs the simulation with that bug and must abort, naming the invariant. Rows 0 and
 * 200 must stay green: no bug, and page keys of one byte, which only the comparison of tokens
 * saves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/pages.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int cp_plant;

static const struct row {
    int plant;
    const char *invariant, *bug;
} rows[] = {
    {1, "kv-1", "a window page is let go while later rows still see it"},
    {2, "kv-2", "the null page is on the free stack"},
    {3, "kv-3", "closing a sequence forgets a page"},
    {4, "kv-4", "an indexed page without holder is handed out as free"},
    {5, "kv-5", "an evicted page stays in the index"},
    {6, "kv-6", "handed-out pages are not zeroed"},
    {7, "kv-7", "a shared partial page is written in place"},
    {8, "kv-8", "the copy of a shared partial page is not made"},
    {9, "kv-9", "a hit trusts the key and compares no tokens"},
    {10, "kv-10", "a hit needs one page of a window group"},
    {11, "kv-11", "the salt does not enter the keys"},
    {12, "kv-12", "the source of a queued copy is not pinned"},
    {13, "kv-13", "closing a sequence forgets its state slot"},
    {14, "kv-14", "a shared state or checkpoint is written in place"},
    {15, "kv-15", "a checkpoint is saved off the page borders"},
    {16, "kv-16", "the latest cached page is evicted first"},
    {17, "kv-17", "what a step in flight touches is handed out"},
    {18, "kv-18", "drafts are published before they are judged"},
    {19, "kv-19", "truncated drafts keep their pages"},
    {20, "kv-20", "a passing checkpoint stays when its sequence leaves the next"},
    {21, "kv-21", "a checkpoint outlives the page before it"},
    {101, "sched-1", "done runs ahead of what was computed"},
    {102, "sched-2", "beside one that decodes a prompt takes more rows than its chunk"},
    {103, "sched-3", "rows carry wrong positions"},
    {104, "sched-4", "rows are granted although there are no pages"},
    {105, "sched-5", "the run list is not kept by age"},
    {106, "sched-6", "preemption loses a token"},
    {107, "sched-7", "a sequence waits for one that has gone"},
    {108, "sched-8", "the last event of a request with choices is missing"},
    {109, "sched-9", "what does not fit alone neither runs nor fails"},
    {110, "sched-10", "a cancelled request keeps its sequences"},
    {111, "sched-11", "rows are granted without room in the ring"},
    {112, "sched-12", "choices compute the prompt again instead of forking"},
    {113, "sched-13", "the queue's count drifts"},
    {114, "sched-14", "prompt tokens count again after a preemption"},
    {115, "sched-15", "a chunk runs over a wanted checkpoint"},
    {116, "sched-16", "a slot is lost when a choice ends"},
    {117, "sched-17", "the oldest is preempted instead of the youngest"},
    {118, "sched-18", "a younger request overtakes one that lacks pages"},
    {119, "sched-19", "who did not fit waits on although reservations have gone"},
    {120, "sched-20", "the sum of what prompts will still take forgets one that stops"},
    {121, "sched-21", "slow readers lose their pages to a newcomer that still does not fit"},
    {122, "sched-22", "a deadline is counted as cancelled and as an error"},
    {123, "sched-23", "a prompt keeps to its chunk although nothing decodes"},
    {124, "sched-24", "where time is short, one that decodes goes without its row"},
    {125, "sched-25", "a slot's new tenant has the epoch of the one before"},
    {126, "sched-26", "a token stays pending when its step has been committed"},
    {127, "sched-27", "results of a sequence that was preempted are used"},
    {128, "sched-28", "drafts are taken for right"},
    {129, "sched-29", "the next token is sampled before the host has seen the last"},
    {130, "sched-30", "somebody is preempted for pages that a step in flight gives back"},
    {131, "sched-31", "the border that an answer passes is not saved"},
};

/* Shape i with a pool that fits, with one that some requests do not fit, and without a scheduler.
 */
static void run_shape(int i, const sim_config *shape)
{
    sim_config cfg = *shape;
    sim_result r;
    pages_result pages;
    cfg.seed = 4;
    cfg.n_steps = 20000;
    sim_run(&cfg, &r);
    cfg.may_run_out = true;
    cfg.n_steps = 4000;
    cfg.n_pages = sim_pages_for(&cfg, i == 1 ? 20 : 48);
    sim_many_states(&cfg);
    sim_run(&cfg, &r);
    pages_run(shape, cfg.in_order, 4, 2000, &pages);
}

static void run(int plant)
{
    cp_plant = plant;
    for (int i = 0; sim_shape(i); i++) {
        sim_config cfg = *sim_shape(i);
        run_shape(i, &cfg);
        sim_overlap(&cfg, false);
        run_shape(i, &cfg);
        sim_overlap(&cfg, true);
        run_shape(i, &cfg);
    }
}

/* Runs the simulation with a bug in a child; its stderr goes to text. Returns the wait status. */
static int run_child(int plant, char *text, size_t size)
{
    int fds[2], status;
    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], 2);
        close(fds[0]);
        close(fds[1]);
        run(plant);
        _exit(0);
    }
    close(fds[1]);
    size_t n = 0;
    for (ssize_t got; n + 1 < size && (got = read(fds[0], text + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Whether text names the invariant, and not merely one whose number begins like it. */
static bool names(const char *text, const char *invariant)
{
    size_t n = strlen(invariant);
    for (const char *p = text; (p = strstr(p, invariant)) != NULL; p += n) {
        bool before = p > text && (p[-1] == '"' || p[-1] == ' ');
        if (before && (p[n] == '"' || p[n] == ' '))
            return true;
    }
    return false;
}

static void every_planted_bug_is_found(void **state)
{
    (void)state;
    int missed = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char text[4096];
        int status = run_child(rows[i].plant, text, sizeof(text));
        bool red = WIFSIGNALED(status) && names(text, rows[i].invariant);
        print_message("%-8s %-66s %s\n", rows[i].invariant, rows[i].bug, red ? "red" : "MISSED");
        if (!red)
            print_message("  status %x: %s\n", (unsigned)status, text);
        missed += !red;
    }
    assert_int_equal(missed, 0);
}

static void sound_code_stays_green(void **state)
{
    (void)state;
    char text[4096];
    assert_int_equal(run_child(0, text, sizeof(text)), 0);
    assert_int_equal(run_child(200, text, sizeof(text)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_planted_bug_is_found),
        cmocka_unit_test(sound_code_stays_green),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
