/*
 * state: what one model's scheduler knows, as data; the files above it hold the verbs.
 *
 * Words: a "task" is a request inside the engine; a cp_seq is one choice of it, in a slot from
 * admission to its end. Waiting entries are tasks with choices that have not started, and preempted
 * sequences, oldest first.
 *
 * Four numbers say where a sequence stands. n_known tokens are known. n_pending come after them:
 * steps in flight sample them, so that there will be so many is known and their values are not.
 * n_spec drafts come after the known ones: guesses that its next step judges. n_done positions are
 * computed, or being computed by a step in flight. A step hands out rows until done catches up with
 * the others. A step is in flight from cp_sched_sent to its commit; what it has to do with a
 * sequence is a cp_seq_step.
 *
 * Floors, each over those before it: state · engine_metrics, sampler, goal · events · seqs · tasks,
 * room · grant · admit · sched · batch, sched_check. A file includes and calls what lies below it
 * only (lint cycles).
 */
#ifndef CP_ENGINE_STATE_H
#define CP_ENGINE_STATE_H

#include "engine/engine.h"
#include "kv-cache/kv.h"
#include "kv-cache/plant.h"

enum {
    CP_MAX_CHOICES = 128,
    CP_MAX_BANNED = 512, /* stop ids + end-of-generation ids of a request */
    CP_ADMIT_SCAN = 256, /* waiting entries that a step considers */
    /* Tokens at a prompt's end that a template may leave out once the answer has become history;
     * "<think>\n" is two. */
    CP_OPENING = 8
};

typedef enum cp_seq_state { CP_SEQ_FREE, CP_SEQ_RUNNING, CP_SEQ_PREEMPTED } cp_seq_state;
typedef struct cp_task cp_task;
typedef struct cp_seq cp_seq;

/* An entry of the waiting list. */
typedef struct cp_wait {
    struct cp_wait *prev, *next;
    uint64_t order; /* age: arrival << 8 | choice */
    cp_task *task;
    cp_seq *seq;       /* the preempted sequence; NULL: choices that have not started */
    int64_t needs;     /* pages that it would take, when it last did not fit; -1: not tried */
    int target, until; /* waits for slot `target` to have done `until` positions; target -1: no */
    uint64_t target_gen;
} cp_wait;

struct cp_seq {
    cp_seq_state state;
    cp_task *task;
    cp_kv_seq kv; /* -1 unless RUNNING */
    int slot, choice;
    int n_prompt, n_known, n_pending, n_spec, n_done;
    bool forked;          /* has given the request's other choices their chance to fork off */
    bool blocked;         /* its ring has no room in this plan */
    int rows, outs, out0; /* scheduled in this plan; index of its first output row */
    int in_flight;        /* parts of steps in flight that are its */
    int reserved;         /* ring records that its rows, planned and in flight, may need */
    uint32_t outstanding; /* pages that its prompt will still take; 0 when all its rows are given */
    uint64_t gen;         /* counts starts in this slot, one after a preemption too */
    int64_t first_ns, last_ns; /* when its first and its latest token came; 0: none has */
    int n_generated;           /* tokens sampled, with the one that ended it */
    int32_t *tokens; /* [ctx] prompt, output, then CP_TOK_PREV of pending ones, or drafts */
    cp_wait wait;    /* linked while PREEMPTED; its order is the sequence's age, always */
};

struct cp_task {
    cp_request *r;
    cp_wait wait; /* linked while choices have not started */
    bool waiting; /* wait is linked */
    uint64_t arrival;
    int next_choice; /* first choice that has not started */
    int n_finished;
    uint64_t finished[CP_MAX_CHOICES / 64]; /* choices that have ended, a bit each */
    int n_cached; /* prompt positions of the first admission's hit; -1: not admitted yet */
    int n_scored; /* next prompt position whose log-probability is to be emitted */
    int n_generated, n_longest; /* tokens sampled, of all choices and of the longest one */
    int reserved;               /* ring records that its sequences' rows may need, in all */
    bool ended, has_news;
    int64_t submit_ns, admit_ns, first_ns; /* first_ns: its first token of all; 0: none yet */
    cp_task *prev, *next;                  /* all tasks; next: the free list */
    cp_task *news_next;
    int n_banned,
        n_banned_eog; /* below min_tokens all, else with ignore_eos the first n_banned_eog */
    int32_t banned[CP_MAX_BANNED];
};

/* What waits in the queue in front of the schedulers; shared with submitters. */
typedef struct cp_queue_count {
    _Atomic int requests;
    _Atomic int64_t tokens;
} cp_queue_count;

/* What a step in flight does for a sequence. */
typedef struct cp_seq_step {
    cp_seq *seq; /* NULL: it was preempted or has ended, its results are nobody's */
    int pos0, rows, outs, out0;
    int n_spec;   /* drafts among its rows: the last so many of them */
    bool samples; /* its last row makes a token that is pending until the commit */
    int reserved;
} cp_seq_step;

typedef struct cp_sched_config {
    cp_kv *kv; /* borrowed */
    int page_positions;
    int ctx, max_seqs, prefill_chunk, max_out, max_tasks;
    bool in_order; /* the backend keeps the order of steps: see cp_kv_step_done */
    bool prefix_cache;
    int checkpoint_every;  /* STATE groups: positions, a multiple of the page's */
    size_t state_bytes;    /* of a state slot, for metrics */
    cp_queue_count *queue; /* may be NULL */
    cp_metrics *metrics;   /* may be NULL: latencies are observed there */
} cp_sched_config;

typedef struct cp_sched_stats {
    uint64_t steps, rows, preemptions, waits, forks, out_of_memory;
    uint64_t prompt_tokens, prompt_cached, generated;
    uint64_t prefix_asked; /* prompt tokens that were looked up in the prefix cache */
    uint64_t corrupted;    /* requests that failed over a logit that was no number */
    /* each choice that has ended, under one of them (sched-22) */
    uint64_t finished_stop, finished_length, finished_cancelled, finished_error;
    uint64_t cancelled; /* of those, by the client: gone, stop string met, deadline */
    uint64_t pending;   /* rows whose token was sampled by a step in flight */
    uint64_t discarded; /* parts of steps in flight whose sequence had gone at their commit */
    uint64_t drafted, accepted; /* drafts that were judged; that were right */
    uint64_t checkpoint_hits;   /* starts from a state checkpoint */
} cp_sched_stats;

/* One model's scheduler. It belongs to the engine thread; nothing in it grows after open. */
typedef struct cp_sched {
    cp_sched_config cfg;
    cp_kv *kv;
    cp_seq *seqs; /* [max_seqs] */
    int n_free_slots;
    cp_seq **run; /* [max_seqs] RUNNING, oldest first */
    int n_run;
    uint64_t outstanding; /* the sum over those that run: pages that a newcomer must leave alone */
    cp_wait waiting;      /* sentinel */
    int n_waiting, n_preempted;
    int n_deferred; /* entries that the last plan passed by: they wait for a prefix */
    cp_task *tasks, *free_tasks, all; /* pool; free list; sentinel of the list of all */
    int n_tasks;
    cp_task *news; /* have events to announce, or have ended */
    uint64_t arrivals;
    /* of the plan at hand */
    int rows_left, outs_left;
    bool preempted_now;
    int64_t spare; /* pages that were left for newcomers when all had been asked; may be < 0 */
    uint32_t spare_states;  /* and state slots, before checkpoints took theirs */
    const cp_wait *refused; /* for want of pages; with it the search for newcomers ended */
    cp_seq **plan;          /* [max_seqs] oldest first */
    int n_plan, plan_rows, plan_outs;
    /* steps in flight, the oldest first */
    struct cp_flight {
        int n_parts;
        cp_seq_step *parts; /* [max_seqs] */
    } flights[CP_KV_MAX_DEPTH];
    int n_flights, depth; /* depth: as many as the kv-cache allows */
    cp_seq **order;       /* [max_seqs] scratch */
    cp_kv_seq *takes;     /* [max_seqs] scratch */
    int64_t now_ns;
    cp_sched_stats stats;
} cp_sched;

#endif
