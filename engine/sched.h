/*
 * sched: one model's scheduler, private to engine/ (and to the simulation in tests/sim).
 *
 * A cp_sched belongs to the engine thread. It is pure: no clock (time is an argument), no I/O, no
 * allocation after open. Each step is one transaction: cp_sched_sweep (cancel flags, deadlines),
 * cp_sched_plan (fork, grant rows, preempt, admit), then the batch runs, then cp_sched_commit.
 *
 * Words: a "live" is a request inside the engine; a cp_seq is one choice of it, in a slot from
 * admission to its end. n_known tokens are known, n_done positions are computed; a step hands out
 * rows until done catches up. Waiting entries are requests with choices that have not started, and
 * preempted sequences, oldest first. The rules are numbered in docs/INVARIANTS.md (sched-*).
 */
#ifndef CP_ENGINE_SCHED_H
#define CP_ENGINE_SCHED_H

#include "engine/engine.h"
#include "kv-cache/kv.h"
#include "kv-cache/plant.h"

enum {
    CP_MAX_CHOICES = 128,
    CP_MAX_BANNED = 512,    /* stop ids + end-of-generation ids of a request */
    CP_ADMIT_SCAN = 256,    /* waiting entries looked at in a step */
    CP_CHECKPOINT_PAGES = 8 /* STATE groups: a checkpoint every so many pages */
};

typedef enum cp_seq_state { CP_SEQ_FREE, CP_SEQ_RUNNING, CP_SEQ_PREEMPTED } cp_seq_state;
typedef struct cp_live cp_live;
typedef struct cp_seq cp_seq;

/* An entry of the waiting list. */
typedef struct cp_wait {
    struct cp_wait *prev, *next;
    uint64_t order; /* age: arrival << 8 | choice */
    cp_live *live;
    cp_seq *seq;       /* the preempted sequence; NULL: choices that have not started */
    int64_t needs;     /* pages that it would take, when it last did not fit; -1: not tried */
    int target, until; /* waits for slot `target` to have done `until` positions; target -1: no */
    uint64_t target_gen;
} cp_wait;

struct cp_seq {
    cp_seq_state state;
    cp_live *live;
    cp_kv_seq kv; /* -1 unless RUNNING */
    int slot, choice;
    int n_prompt, n_known, n_done;
    bool forked;          /* has given the request's other choices their chance to fork off */
    bool blocked;         /* its ring has no room in this plan */
    int rows, outs, out0; /* granted in this plan; index of its first output row */
    uint32_t outstanding; /* pages that its prompt will still take; 0 when all its rows are given */
    uint64_t gen;         /* counts the slot's tenants */
    int64_t last_ns;      /* when its latest token came */
    int32_t *tokens;      /* [ctx] prompt and output */
    int32_t banned[CP_MAX_BANNED];
    int n_banned; /* all; the first n_banned_eog of them stay banned with ignore_eos */
    int n_banned_eog;
    cp_wait wait; /* linked while PREEMPTED; its order is the sequence's age, always */
};

struct cp_live {
    cp_request *r;
    cp_wait wait; /* linked while choices have not started */
    bool waiting; /* wait is linked */
    uint64_t arrival;
    int next_choice; /* first choice that has not started */
    int n_finished;
    uint64_t finished[CP_MAX_CHOICES / 64]; /* choices that have ended, a bit each */
    int n_cached; /* prompt positions of the first admission's hit; -1: not admitted yet */
    int n_scored; /* next prompt position whose log-probability is to be emitted */
    int n_generated;
    int reserved; /* ring records promised in this plan */
    bool ended, touched;
    int64_t submit_ns;
    cp_live *prev, *next; /* all lives; next: the free list */
    cp_live *touch_next;
};

/* What waits in the queue in front of the schedulers; shared with submitters. */
typedef struct cp_queue_count {
    _Atomic int requests;
    _Atomic int64_t tokens;
} cp_queue_count;

typedef struct cp_sched_config {
    cp_kv *kv;                 /* borrowed */
    const cp_kv_group *groups; /* borrowed */
    int n_groups, page_positions;
    int ctx, max_seqs, prefill_chunk, max_out, max_lives;
    int model_index; /* for probes */
    bool prefix_cache;
    cp_queue_count *queue; /* may be NULL */
    cp_metrics *metrics;   /* may be NULL: latencies are observed there */
} cp_sched_config;

typedef struct cp_sched_stats {
    uint64_t steps, rows, preemptions, waits, forks, out_of_memory;
    uint64_t prompt_tokens, prompt_cached, generated;
    /* each choice that has ended, under one of them (sched-22) */
    uint64_t finished_stop, finished_length, finished_cancelled, finished_error;
    uint64_t cancelled; /* of those, by the client: gone, stop string met, deadline */
} cp_sched_stats;

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
    cp_live *lives, *free_lives, all; /* pool; free list; sentinel of the list of all */
    int n_lives;
    cp_live *touched; /* has events to announce, or has ended */
    uint64_t arrivals;
    /* of the plan at hand */
    int rows_left, outs_left;
    bool preempted_now;
    int64_t spare; /* pages that were left for newcomers when all had been asked; may be < 0 */
    cp_seq **plan; /* [max_seqs] oldest first */
    int n_plan, plan_rows, plan_outs;
    cp_seq **order;   /* [max_seqs] scratch */
    cp_kv_seq *takes; /* [max_seqs] scratch */
    int64_t now_ns;
    cp_sched_stats stats;
} cp_sched;

cp_code cp_sched_open(cp_sched **out, const cp_sched_config *cfg, cp_err *err);
void cp_sched_close(cp_sched *s); /* every live must have ended; NULL is fine */
/* False: no room for another live; the caller keeps the request. */
bool cp_sched_submit(cp_sched *s, cp_request *r, int64_t now_ns);
/* End what was cancelled or is past its deadline. Returns the earliest deadline left, 0: none. */
int64_t cp_sched_sweep(cp_sched *s, int64_t now_ns);
/* Decide the next step; returns its rows. 0: nothing can run now (see cp_sched_busy). */
int cp_sched_plan(cp_sched *s, int row_budget);
/* The step ran: results[plan_outs]. Appends tokens, emits events, ends choices. */
void cp_sched_commit(cp_sched *s, const cp_sample_out *results, int64_t now_ns);
/* The step failed: its requests end with `code`; no result is used. */
void cp_sched_fail_plan(cp_sched *s, cp_code code);
void cp_sched_fail_all(cp_sched *s, cp_code code);
/* Requests exist. After a plan of 0 rows: all of them are held up by full rings (sched-9). */
bool cp_sched_busy(const cp_sched *s);
/* Announce: push each request with new events to `ready` unless it is there, ended ones for the
 * last time: with them goes the scheduler's reference. NULL: nobody listens, the references are
 * dropped here. Returns how many were touched. */
int cp_sched_flush(cp_sched *s, cp_mpsc *ready);
/* Invariants sched-*, O(sequences + waiting); aborts with the number. planned: between plan and
 * commit. */
void cp_sched_check(const cp_sched *s, bool planned);
/* The last request has gone: nothing is held any more (kv-3, sched-16, sched-20). O(1). */
void cp_sched_check_idle(const cp_sched *s);

/* ---- between the files of engine/ ---- */
/* requests.c */
int cp_live_room(const cp_live *l); /* records that may still be promised; may be <= 0 */
int cp_live_finish_records(const cp_live *l);
void cp_live_prompt(cp_sched *s, cp_live *l, const cp_sample_out *res);
void cp_live_token(cp_sched *s, cp_seq *q, const cp_sample_out *res);
/* The choice has ended: event, slot and pages back; the last one ends the request. */
void cp_seq_finish(cp_sched *s, cp_seq *q, cp_finish reason);
/* max_tokens = 0: all choices end here, q being the only sequence (or NULL: none started). */
void cp_live_finish_all(cp_sched *s, cp_live *l, cp_seq *q);
void cp_live_fail(cp_sched *s, cp_live *l, cp_code code);
void cp_request_drop(cp_request *r); /* one reference less; frees with the last */
/* sched.c */
void cp_wait_insert(cp_sched *s, cp_wait *w);
void cp_wait_remove(cp_sched *s, cp_wait *w);
cp_seq *cp_seq_take(cp_sched *s, cp_live *l, int choice);
void cp_seq_start(cp_sched *s, cp_seq *q); /* into the run list */
void cp_seq_free(cp_sched *s, cp_seq *q);  /* pages, slot and list entry go */
void cp_seq_preempt(cp_sched *s, cp_seq *q);
void cp_seq_grant(cp_sched *s, cp_seq *q);
/* Whether the plan so far has a row of a sequence that has produced a token and makes the next. */
bool cp_sched_decodes(const cp_sched *s);
/* Count again what q's prompt will still take: after whatever moved its tokens, rows or pages. */
void cp_seq_count_outstanding(cp_sched *s, cp_seq *q);
/* Pages that a sequence of n_known tokens, holding `held`, will still take for its prompt. */
uint32_t cp_sched_prompt_pages(const cp_sched *s, int n_known, uint32_t held);
/* One pass over those that run and have no rows yet: decoding ones (one row to go), or prompts. */
void cp_sched_grant_pass(cp_sched *s, bool decode);
bool cp_seq_fork(cp_sched *s, cp_seq *q);
bool cp_seq_scoring(const cp_seq *q);  /* prompt log-probabilities are still to come */
int cp_seq_goal(const cp_seq *q);      /* positions to be done before something else happens */
int cp_seq_out_first(const cp_seq *q); /* first position whose row wants an output */
bool cp_seq_wants_checkpoint(const cp_sched *s, const cp_seq *q, int end);
int cp_seq_next_checkpoint(const cp_sched *s, const cp_seq *q, int from);
int cp_sched_max_hit(const cp_live *l, int n_known);
/* room.c */
/* Whether a newcomer that will take `need` pages may start beside those that run. */
bool cp_sched_fits(const cp_sched *s, uint64_t need);
/* Room for a newcomer from those whose clients do not read; false: they could not give enough, and
 * keep what they have. */
bool cp_sched_make_room(cp_sched *s, uint64_t need);
/* Whether q may have the pages of positions < end without touching what running prompts, itself
 * included, will still take. */
bool cp_seq_may_take(const cp_sched *s, const cp_seq *q, int end);
/* Pages for q at the cost of somebody else; false: q itself had to go. */
bool cp_seq_make_room(cp_sched *s, cp_seq *q);
/* admit.c */
void cp_sched_admit(cp_sched *s);
/* engine_metrics.c */
void cp_metrics_admitted(cp_sched *s, const cp_live *l);
void cp_metrics_token(cp_sched *s, cp_seq *q);
void cp_metrics_ended(cp_sched *s, const cp_live *l);

/* ---- batch.c, sampler.c: a plan as flat arrays ---- */
typedef struct cp_step {
    cp_batch batch;
    int32_t *tok, *pos, *row_seq, *out_rows; /* [max_rows], out_rows [max_out] */
    cp_batch_seq *seqs;                      /* [max_seqs] */
    cp_sample_in *samples;                   /* [max_out] */
    cp_sample_out *results;                  /* [max_out] */
    cp_request **out_request;                /* [max_out] for probes */
    int32_t *out_choice;
    int max_rows, max_out, max_seqs;
} cp_step;
cp_code cp_step_init(cp_step *b, int max_rows, int max_out, int max_seqs, cp_err *err);
void cp_step_fini(cp_step *b);
/* Gather s's plan; asks the kv-cache for state slots. Valid until the next call. */
void cp_step_build(cp_step *b, cp_sched *s);
/* What the output row at position pos of q wants. */
void cp_sample_fill(cp_sample_in *in, const cp_seq *q, int pos);
/* Collect the ids that q must not sample (min_tokens, ignore_eos). */
void cp_sample_ban(cp_seq *q);
bool cp_sample_stops(const cp_seq *q, int32_t id);

#endif
