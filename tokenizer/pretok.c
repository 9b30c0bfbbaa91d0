/*
 * The table of pre-tokenizers. Names are llama.cpp's (tokenizer.ggml.pre); docs/MODELS.md says how
 * each was checked. Where llama.cpp only comes near the model's own expression (o200k), the row has
 * the model's.
 */
#include "tokenizer/pretok.h"

#include "base/mem.h"
#include "tokenizer/steps.h"

#include <string.h>

#define STEPS(name, ...) static cp_pretok_step *const name[] = {__VA_ARGS__, NULL}

STEPS(GPT2, cp_scan_gpt2);
STEPS(SMOLLM, cp_split_number, cp_scan_gpt2);
STEPS(FALCON, cp_split_signs, cp_scan_gpt2, cp_split_digits3);
STEPS(LLAMA3, cp_scan_llama3);
STEPS(QWEN2, cp_scan_qwen2);
STEPS(QWEN35, cp_scan_qwen35);
STEPS(MINICPM5, cp_split_numbers3, cp_scan_minicpm5);
STEPS(SEED_CODER, cp_scan_seed_coder);
STEPS(O200K, cp_scan_o200k);
STEPS(TEKKEN, cp_scan_tekken);
STEPS(DEEPSEEK3, cp_split_numbers3, cp_split_cjk, cp_scan_deepseek3);
STEPS(DEEPSEEK_LLM, cp_split_newline, cp_split_cased1, cp_split_puncts1, cp_split_tail,
      cp_split_cjk1, cp_split_numbers);
STEPS(DEEPSEEK_CODER, cp_split_newline, cp_split_letters, cp_split_puncts, cp_split_cjk1,
      cp_split_number);
STEPS(LINES, cp_split_lines);

enum { KEY = CP_BOS_KEY, ON = CP_BOS_ON, FORCED = CP_BOS_FORCED };

/* clang-format off */
static const cp_pretok ROWS[] = {
    /* name             steps           ignore_merges nfc    chars  bos */
    {"gpt-2",            GPT2,           false,        false, false, KEY},
    {"mpt",              GPT2,           false,        false, false, KEY},
    {"olmo",             GPT2,           false,        false, false, KEY},
    {"mellum",           GPT2,           false,        false, false, KEY},
    {"a.x-4.0",          GPT2,           false,        false, false, KEY},
    {"trillion",         GPT2,           false,        false, false, KEY},
    {"smollm",           SMOLLM,         false,        false, false, KEY},
    {"starcoder",        SMOLLM,         false,        false, false, KEY},
    {"refact",           SMOLLM,         false,        false, false, KEY},
    {"command-r",        SMOLLM,         false,        false, false, KEY},
    {"minerva-7b",       SMOLLM,         false,        false, false, KEY},
    {"falcon",           FALCON,         false,        false, false, KEY},
    {"llama-bpe",        LLAMA3,         true,         false, false, ON},
    {"llama3",           LLAMA3,         true,         false, false, ON},
    {"llama-v3",         LLAMA3,         true,         false, false, ON},
    {"falcon3",          LLAMA3,         true,         false, false, ON},
    {"pixtral",          LLAMA3,         true,         false, false, ON},
    {"midm-2.0",         LLAMA3,         true,         false, false, ON},
    {"lfm2",             LLAMA3,         true,         false, false, ON},
    {"smaug-bpe",        LLAMA3,         false,        false, false, KEY},
    {"dbrx",             LLAMA3,         false,        false, false, KEY},
    {"minicpm5",         MINICPM5,       true,         false, false, KEY},
    {"seed-coder",       SEED_CODER,     false,        false, false, KEY},
    {"qwen2",            QWEN2,          false,        true,  false, KEY},
    {"deepseek-r1-qwen", QWEN2,          false,        true,  false, KEY},
    {"megrez",           QWEN2,          false,        false, false, KEY},
    {"kormo",            QWEN2,          false,        false, false, KEY},
    {"f2llmv2",          QWEN2,          false,        false, false, KEY},
    {"qwen35",           QWEN35,         false,        true,  false, KEY},
    {"gpt-4o",           O200K,          false,        false, false, KEY},
    {"llama4",           O200K,          false,        false, false, KEY},
    {"tekken",           TEKKEN,         true,         false, false, ON},
    {"deepseek-v3",      DEEPSEEK3,      false,        false, false, KEY},
    {"deepseek-llm",     DEEPSEEK_LLM,   false,        false, false, KEY},
    {"deepseek-coder",   DEEPSEEK_CODER, false,        false, false, KEY},
    {"gemma4",           LINES,          false,        false, true,  FORCED},
};
/* clang-format on */

#define N_ROWS (sizeof ROWS / sizeof ROWS[0])

const cp_pretok *cp_pretok_row(size_t i)
{
    return i < N_ROWS ? &ROWS[i] : NULL;
}

const cp_pretok *cp_pretok_find(cp_str name)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (strlen(ROWS[i].name) == name.n && memcmp(ROWS[i].name, name.p, name.n) == 0)
            return &ROWS[i];
    return NULL;
}

void cp_pretok_list(char *dst, size_t cap)
{
    size_t at = 0;
    for (size_t i = 0; i < N_ROWS && at < cap; i++)
        at += cp_snprintf(dst + at, cap - at, "%s%s", i ? ", " : "", ROWS[i].name);
}

size_t cp_pretok_next(const cp_pretok *p, cp_pretok_at *at, const uint8_t *s, size_t i, size_t n)
{
    size_t end = n;
    for (size_t k = 0; p->step[k]; k++) {
        if (i >= at->stop[k])
            at->stop[k] = p->step[k](s, i, end);
        end = at->stop[k];
    }
    return end;
}
