/* This file stores records of log-probabilities and hands them out: see records.h. */
#include "server/records.h"

void cp_record_add(cp_buf *b, const cp_event *ev, size_t start, size_t start_chr)
{
    uint32_t n_top = ev->n_top < 0 ? 0 : ev->n_top > CP_MAX_TOP ? CP_MAX_TOP : (uint32_t)ev->n_top;
    cp_logprob_record rec = {.id = ev->id,
                             .logprob = ev->logprob,
                             .n_top = n_top,
                             .start = start,
                             .start_chr = start_chr};
    cp_buf_add(b, &rec, sizeof(rec));
    cp_buf_add(b, ev->top, n_top * sizeof(ev->top[0]));
}

const cp_logprob_record *cp_record_at(const cp_buf *b, size_t at, size_t *next)
{
    const cp_logprob_record *r = (const cp_logprob_record *)(const void *)(b->p + at);
    *next = at + sizeof(*r) + r->n_top * sizeof(struct cp_event_top);
    return r;
}

const struct cp_event_top *cp_record_tops(const cp_logprob_record *r)
{
    return (const struct cp_event_top *)(const void *)(r + 1);
}

cp_records cp_records_take(cp_choice *ch)
{
    cp_records s = {&ch->records, ch->records_at, ch->records_at};
    bool all = ch->finish != CP_FINISH_NONE && !ch->cut;
    while (s.to < ch->records.n) {
        size_t next;
        const cp_logprob_record *r = cp_record_at(&ch->records, s.to, &next);
        if (r->start >= ch->text.n_shown && !all)
            break;
        s.to = next;
    }
    ch->records_at = s.to;
    return s;
}
