/* This file divides what the machine's meters say among models and requests: see meter.h. */
#include "server/meter.h"

static const int64_t interval_ns = 1000000000;

/* Joules a row of m, and its readings: moved on where it has computed rows since. */
static void note(cp_served *m, uint64_t took_uj, int64_t all_rows)
{
    int64_t rows = cp_metric_get(m->metrics, CP_M_STEP_ROWS), n = rows - m->meter.rows;
    if (n <= 0)
        return;
    double uj = (double)took_uj * (double)n / (double)all_rows;
    m->meter.rows = rows;
    m->meter.uj += uj;
    m->meter.row_uj = uj / (double)n;
    int64_t more = (int64_t)m->meter.uj - cp_metric_get(m->metrics, CP_M_ENERGY);
    cp_metric_add(m->metrics, CP_M_ENERGY, more > 0 ? more : 0);
}

void cp_meter_tick(cp_server *s, int64_t now_ns)
{
    if (!s->energy || now_ns - s->energy_ns < interval_ns)
        return;
    cp_energy_sums now;
    cp_served *models[CP_SERVED_MAX];
    int64_t rows = 0;
    int n = cp_served_all(&s->models, 1u << CP_MODEL_READY | 1u << CP_MODEL_DRAINING, models);
    cp_energy_read(s->energy, &now);
    uint64_t took = now.package_uj + now.dram_uj - s->energy_uj;
    for (int i = 0; i < n; i++)
        rows += cp_metric_get(models[i]->metrics, CP_M_STEP_ROWS) - models[i]->meter.rows;
    for (int i = 0; i < n && rows > 0; i++)
        note(models[i], took, rows);
    cp_served_put_all(&s->models, models, n);
    cp_metric_add(s->metrics, CP_M_ENERGY_PACKAGE,
                  (int64_t)now.package_uj - cp_metric_get(s->metrics, CP_M_ENERGY_PACKAGE));
    cp_metric_add(s->metrics, CP_M_ENERGY_DRAM,
                  (int64_t)now.dram_uj - cp_metric_get(s->metrics, CP_M_ENERGY_DRAM));
    s->energy_uj = now.package_uj + now.dram_uj;
    s->energy_ns = now_ns;
}

void cp_meter_begin(cp_call *c)
{
    c->meter.rows = c->m->meter.rows;
    c->meter.uj = c->m->meter.uj;
}

/* Rows that were computed for the call: of a prompt those that no cache had, and one for each token
 * but the last, which nothing follows. */
static int64_t rows_of(const cp_call *c)
{
    int64_t rows = c->n_prompt_tokens;
    for (int i = 0; i < c->n_parts; i++)
        rows -= c->parts[i].n_cached;
    for (int i = 0; i < c->n_choices; i++)
        rows += c->choices[i].n_tokens > 1 ? c->choices[i].n_tokens - 1 : 0;
    return rows > 0 ? rows : 0;
}

void cp_meter_end(cp_call *c)
{
    const cp_served *m = c->m;
    if (!c->s->energy || !m || m->meter.row_uj <= 0)
        return;
    /* shorter than an interval: what a row took in the last one that had any */
    double row_uj = m->meter.rows > c->meter.rows
                        ? (m->meter.uj - c->meter.uj) / (double)(m->meter.rows - c->meter.rows)
                        : m->meter.row_uj;
    c->joules = row_uj * (double)rows_of(c) * 1e-6;
    cp_metric_observe(m->metrics, CP_M_REQUEST_ENERGY, c->joules);
}
