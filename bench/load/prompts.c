/*
 * Prompts by index. Lengths in words are lengths in tokens over what a word costs; a text begins
 * with words of its own, so that no two requests share the first page of a prefix cache unless they
 * are meant to.
 */
#include "bench/load/prompts.h"

#include "bench/load/trace.h"
#include "bench/load/words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct cp_load_prompts {
    cp_load_dataset dataset;
    bool chat;
    cp_load_lengths input, output;
    bool has_output; /* --output-len was given */
    uint32_t prefix_len, prefix_groups, turns;
    uint64_t seed;
    double tokens_per_word;
    cp_load_trace *trace; /* NULL: synthetic */
    uint32_t *order;      /* of the trace's talks, shuffled */
};

/* Bytes of text a token, where nobody counts: English in today's vocabularies. */
static const double bytes_per_token = 4;

static cp_code check(const cp_load_config *cfg, cp_err *err)
{
    bool reads = cfg->dataset == CP_LOAD_SHAREGPT || cfg->dataset == CP_LOAD_TURNS;
    if (cfg->dataset == CP_LOAD_SHAREGPT && !cfg->dataset_file)
        return cp_fail(err, CP_USAGE, "--dataset sharegpt: needs --dataset-file FILE");
    if (cfg->dataset_file && !reads)
        return cp_fail(err, CP_USAGE,
                       "--dataset-file: got '%.200s'; allowed with: --dataset sharegpt, turns",
                       cfg->dataset_file);
    if (cfg->dataset == CP_LOAD_TURNS && cfg->completions)
        return cp_fail(err, CP_USAGE,
                       "--dataset turns: got it with --endpoint completions; allowed with: chat");
    return CP_OK;
}

/* Fisher and Yates, by the seed. */
static void shuffle(cp_load_prompts *p)
{
    size_t n = p->trace->n_talks;
    cp_load_rng r = cp_load_rng_for(p->seed, CP_LOAD_FOR_ORDER, 0);
    p->order = cp_xcalloc(n, sizeof(*p->order));
    for (size_t i = 0; i < n; i++) {
        size_t j = cp_load_rng_below(&r, i + 1);
        p->order[i] = p->order[j];
        p->order[j] = (uint32_t)i;
    }
}

cp_code cp_load_prompts_open(cp_load_prompts **out, const cp_load_config *cfg, cp_err *err)
{
    cp_load_prompts *p = cp_xcalloc(1, sizeof(*p));
    p->dataset = cfg->dataset;
    p->chat = !cfg->completions;
    p->seed = cfg->seed;
    p->tokens_per_word = 1;
    p->has_output = cfg->output_len != NULL;
    p->prefix_len = (uint32_t)cfg->prefix_len;
    p->prefix_groups = (uint32_t)cfg->prefix_groups;
    p->turns = (uint32_t)cfg->turns;
    cp_code code = check(cfg, err);
    if (!code)
        code = cp_load_lengths_parse(&p->input, "--input-len", cfg->input_len, err);
    if (!code)
        code = cp_load_lengths_parse(&p->output, "--output-len",
                                     cfg->output_len ? cfg->output_len : "128", err);
    if (!code && cfg->dataset_file)
        code = cp_load_trace_open(&p->trace, cfg->dataset_file, err);
    if (!code && p->trace)
        shuffle(p);
    if (code)
        cp_load_prompts_close(p);
    else
        *out = p;
    return code;
}

void cp_load_prompts_close(cp_load_prompts *p)
{
    if (!p)
        return;
    cp_load_trace_close(p->trace);
    free(p->order);
    free(p);
}

void cp_load_prompts_rate(cp_load_prompts *p, double tokens_per_word)
{
    p->tokens_per_word = tokens_per_word;
}

bool cp_load_prompts_synthetic(const cp_load_prompts *p)
{
    return !p->trace;
}

static const cp_load_talk *talk_of(const cp_load_prompts *p, uint64_t talk)
{
    return &p->trace->talks[p->order[talk % p->trace->n_talks]];
}

uint32_t cp_load_prompts_turns(const cp_load_prompts *p, uint64_t talk)
{
    if (p->dataset != CP_LOAD_TURNS)
        return 1;
    return p->trace ? talk_of(p, talk)->turns : p->turns;
}

/* ---- words ---- */

static uint32_t words_of(const cp_load_prompts *p, uint32_t tokens)
{
    double n = round(tokens / p->tokens_per_word);
    return n < 1 ? 1 : (uint32_t)n;
}

static void add_synthetic(const cp_load_prompts *p, uint64_t talk, uint32_t turn, cp_buf *history,
                          cp_load_ask *ask)
{
    uint64_t index = talk * 65536 + turn;
    cp_load_rng lengths = cp_load_rng_for(p->seed, CP_LOAD_FOR_LENGTHS, index);
    cp_load_rng words = cp_load_rng_for(p->seed, CP_LOAD_FOR_WORDS, index);
    ask->input_tokens = cp_load_lengths_draw(&p->input, &lengths);
    ask->max_tokens = cp_load_lengths_draw(&p->output, &lengths);
    ask->tools = NULL;
    ask->exact = true;
    cp_buf text = {0};
    if (p->dataset == CP_LOAD_SHARED_PREFIX) {
        cp_load_rng prefix = cp_load_rng_for(p->seed, CP_LOAD_FOR_PREFIXES,
                                             cp_load_rng_below(&lengths, p->prefix_groups));
        cp_load_words(&text, &prefix, words_of(p, p->prefix_len));
        ask->input_tokens += p->prefix_len;
    }
    cp_load_words(
        &text, &words,
        words_of(p, ask->input_tokens - (p->dataset == CP_LOAD_SHARED_PREFIX ? p->prefix_len : 0)));
    if (p->chat)
        cp_buf_printf(history, "%s{\"role\":\"user\",\"content\":\"%s\"}", history->n ? "," : "",
                      text.p);
    else
        cp_buf_add(history, text.p, text.n);
    cp_buf_fini(&text);
}

/* ---- recordings ---- */

static uint32_t tokens_of(uint64_t bytes)
{
    double n = ceil((double)bytes / bytes_per_token);
    return n < 1 ? 1 : n > CP_LOAD_LENGTH_MAX ? CP_LOAD_LENGTH_MAX : (uint32_t)n;
}

/* The index of the message that answers a turn. */
static uint32_t answer_of(const cp_load_talk *t, uint32_t turn)
{
    uint32_t seen = 0;
    for (uint32_t i = 1; i < t->n_messages; i++) {
        if (t->messages[i].asked && seen++ == turn)
            return i;
    }
    return t->n_messages;
}

static void add_recorded(const cp_load_prompts *p, uint64_t talk, uint32_t turn, cp_buf *history,
                         cp_load_ask *ask)
{
    const cp_load_talk *t = talk_of(p, talk);
    uint32_t from = turn ? answer_of(t, turn - 1) + 1 : 0, to = answer_of(t, turn);
    uint64_t bytes = 0;
    for (uint32_t i = from; i < to; i++) {
        const cp_load_message *m = &t->messages[i];
        bytes += m->bytes;
        if (p->chat)
            cp_buf_printf(history, "%s%s", history->n ? "," : "", m->json);
        else
            cp_buf_printf(history, "%s%s", history->n ? "\\n\\n" : "", m->text);
    }
    cp_load_rng r = cp_load_rng_for(p->seed, CP_LOAD_FOR_LENGTHS, talk * 65536 + turn);
    ask->tools = p->chat ? t->tools : NULL;
    bytes += turn == 0 && ask->tools ? strlen(ask->tools) : 0;
    ask->input_tokens = tokens_of(bytes);
    ask->max_tokens =
        p->has_output ? cp_load_lengths_draw(&p->output, &r) : tokens_of(t->messages[to].bytes);
    ask->exact = p->has_output;
}

void cp_load_prompts_turn(const cp_load_prompts *p, uint64_t talk, uint32_t turn, cp_buf *history,
                          cp_load_ask *ask)
{
    if (p->trace)
        add_recorded(p, talk, turn, history, ask);
    else
        add_synthetic(p, talk, turn, history, ask);
}

void cp_load_prompts_answer(const cp_load_prompts *p, uint64_t talk, uint32_t turn,
                            const cp_buf *said, cp_buf *history)
{
    if (p->trace) {
        const cp_load_talk *t = talk_of(p, talk);
        const cp_load_message *m = &t->messages[answer_of(t, turn)];
        if (m->calls) {
            cp_buf_printf(history, ",%s", m->json);
            return;
        }
    }
    cp_buf_printf(history, ",{\"role\":\"assistant\",\"content\":\"%s\"}", said->p ? said->p : "");
}
