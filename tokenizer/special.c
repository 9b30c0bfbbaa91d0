/*
 * Special tokens: which ids end a generation, which are shown, and how they are found in text.
 *
 * The file gives a type a token; some roles are known by spelling alone (EOG, FIM and PLAIN below).
 * User-defined tokens are of two kinds that the file does not tell apart. Some are text (runs of
 * white space, words): ids of any text need them. Others steer the model (<think>, <tool_call>,
 * [INST]) and must not come out of what a client wrote. The spelling decides: a token of
 * several characters with anything but letters, numbers and white space in it is a marker. An HTML
 * tag such as <table> is one too then: in a client's text it is the pieces that it is spelled with.
 * Search is a trie walked from every position whose byte begins some special token, longest match
 * first: leftmost-longest, O(n * longest special token), and no state between positions.
 */
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Spellings that end a generation whatever their type says; the first is an HTML tag as well (a
 * plain token of Gemma and Qwen) and counts only where the file calls it a control token. */
enum { EOG_HTML = 0 };
static const char *const EOG[] = {
    "</s>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<eos>",
    "<end_of_utterance>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
};

/* Fill-in-the-middle markers are control tokens; pad, repository and separator end a generation. */
typedef struct fim_row {
    const char *key; /* metadata key that names the id; absent: the first spelling found */
    bool eog;
    const char *text[10];
} fim_row;

static const fim_row FIM[] = {
    {"tokenizer.ggml.fim_pre_token_id",
     false,
     {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
      "<|code_prefix|>", "<|prefix|>"}},
    {"tokenizer.ggml.fim_suf_token_id",
     false,
     {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
      "<|code_suffix|>", "<|suffix|>"}},
    {"tokenizer.ggml.fim_mid_token_id",
     false,
     {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
      "<|code_middle|>", "<|middle|>"}},
    {"tokenizer.ggml.fim_pad_token_id",
     true,
     {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
    {"tokenizer.ggml.fim_rep_token_id",
     true,
     {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
    {"tokenizer.ggml.fim_sep_token_id", true, {"<|file_sep|>"}},
};

static int32_t find_z(const cp_tokenizer *t, const char *s)
{
    return cp_tokenizer_find(t, s, strlen(s));
}

static void set_control(cp_tokenizer *t, int32_t id, bool eog)
{
    uint8_t f = t->flags[id];
    t->flags[id] =
        (uint8_t)((f & ~CP_TF_ADDED) | CP_TF_HIDDEN | CP_TF_SPECIAL | (eog ? CP_TF_EOG : 0));
}

/* An id of the metadata: -1 when absent or "none" (all ones), CP_CORRUPT when outside the
 * vocabulary. */
static cp_code meta_id(const cp_tokenizer *t, const cp_meta *meta, const char *key, int32_t absent,
                       int32_t *out, cp_err *err)
{
    int64_t v;
    *out = absent < t->n ? absent : -1;
    if (!cp_meta_find(meta, key))
        return CP_OK;
    if (!cp_meta_i64(meta, key, &v))
        return cp_fail(err, CP_CORRUPT, "%s is not an integer", key);
    if (v == -1 || v == UINT32_MAX) {
        *out = -1;
        return CP_OK;
    }
    if (v < 0 || v >= t->n)
        return cp_fail(err, CP_CORRUPT, "%s is %lld, outside the vocabulary of %d", key,
                       (long long)v, t->n);
    *out = (int32_t)v;
    return CP_OK;
}

static bool name_has(const cp_meta *meta, const char *key, const char *part)
{
    cp_str s;
    size_t k = strlen(part);
    if (!cp_meta_str(meta, key, &s))
        return false;
    for (size_t i = 0; i + k <= s.n; i++) {
        size_t j = 0;
        while (j < k && tolower((unsigned char)s.p[i + j]) == part[j])
            j++;
        if (j == k)
            return true;
    }
    return false;
}

/* GGUF keeps no strip flags: they are known by model, as in llama.cpp. */
static void strip_flags(cp_tokenizer *t, const cp_meta *meta)
{
    static const char *const PLAIN[] = {"<unk>", "<s>", "<|endoftext|>"};
    if (!name_has(meta, "general.name", "phi-3") && !name_has(meta, "general.name", "phi3"))
        return;
    int32_t id = find_z(t, "</s>");
    for (int32_t i = 0; i < t->n; i++)
        if (i == id || (t->flags[i] & (CP_TF_ADDED | CP_TF_SPECIAL)))
            t->flags[i] |= CP_TF_RSTRIP;
    for (size_t i = 0; i < sizeof PLAIN / sizeof PLAIN[0]; i++)
        if ((id = find_z(t, PLAIN[i])) >= 0)
            t->flags[id] &= (uint8_t)~CP_TF_RSTRIP;
}

static void flags_by_type(cp_tokenizer *t)
{
    for (int32_t i = 0; i < t->n; i++) {
        uint8_t f = 0;
        switch (t->type[i]) {
        case CP_TT_CONTROL:
        case CP_TT_UNKNOWN:
            f = CP_TF_HIDDEN | CP_TF_SPECIAL | CP_TF_NO_TEXT;
            break;
        case CP_TT_USER:
            f = CP_TF_ADDED;
            break;
        case CP_TT_BYTE:
            f = CP_TF_NO_TEXT;
            break;
        default:
            break;
        }
        t->flags[i] = f;
    }
}

/* Harmony and its kin: <|end|> ends a message, not the generation, and the message frame is visible
 * text. */
static void harmony(cp_tokenizer *t)
{
    static const char *const FRAME[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    int32_t end = find_z(t, "<|end|>");
    bool call = find_z(t, "<|call|>") >= 0, is_harmony = find_z(t, "<|return|>") >= 0 && call;
    bool is_solar = find_z(t, "<|flush|>") >= 0 && (call || find_z(t, "<|calls|>") >= 0);
    if (end >= 0 && (is_harmony || is_solar))
        t->flags[end] &= (uint8_t)~CP_TF_EOG;
    for (size_t i = 0; is_harmony && i < sizeof FRAME / sizeof FRAME[0]; i++) {
        int32_t id = find_z(t, FRAME[i]);
        if (id >= 0)
            t->flags[id] &= (uint8_t)~CP_TF_HIDDEN;
    }
}

/* One character, or nothing but letters, numbers and white space. */
static bool looks_like_text(const cp_str *s)
{
    enum { SPM_SPACE = 0x2581 };
    size_t n_chars = 0;
    bool text = true;
    for (size_t i = 0; i < s->n; n_chars++) {
        uint32_t cp;
        i += cp_uni_decode((const uint8_t *)s->p + i, s->n - i, &cp);
        text = text && (cp == SPM_SPACE ||
                        (cp_uni_class(cp) & (CP_UNI_LETTER | CP_UNI_NUMBER | CP_UNI_SPACE)));
    }
    return text || n_chars == 1;
}

/* Merging does not make markers either; where they are trusted they are found before it. */
static void mark_markers(cp_tokenizer *t)
{
    for (int32_t i = 0; i < t->n; i++)
        if ((t->flags[i] & CP_TF_ADDED) && !looks_like_text(&t->text[i]))
            t->flags[i] |= CP_TF_MARKER | CP_TF_NO_TEXT;
}

static cp_code list_eogs(cp_tokenizer *t, cp_err *err)
{
    size_t n = 0;
    for (int32_t i = 0; i < t->n; i++)
        n += (t->flags[i] & CP_TF_EOG) != 0;
    t->eog = malloc((n + 1) * sizeof *t->eog);
    if (!t->eog)
        return cp_fail(err, CP_NO_MEMORY, "tokenizer: out of memory");
    for (int32_t i = 0; i < t->n; i++)
        if (t->flags[i] & CP_TF_EOG)
            t->eog[t->n_eog++] = i;
    return CP_OK;
}

cp_code cp_tok_special_flags(cp_tokenizer *t, const cp_meta *meta, cp_err *err)
{
    int32_t eot, eom, id;
    cp_code rc;
    flags_by_type(t);
    /* SentencePiece's classic ids are defaults; byte-level vocabularies have none. */
    if ((rc = meta_id(t, meta, "tokenizer.ggml.bos_token_id", t->spm ? 1 : -1, &t->bos, err)) ||
        (rc = meta_id(t, meta, "tokenizer.ggml.eos_token_id", t->spm ? 2 : -1, &t->eos, err)) ||
        (rc = meta_id(t, meta, "tokenizer.ggml.unknown_token_id", t->spm ? 0 : -1, &t->unk, err)) ||
        (rc = meta_id(t, meta, "tokenizer.ggml.eot_token_id", -1, &eot, err)) ||
        (rc = meta_id(t, meta, "tokenizer.ggml.eom_token_id", -1, &eom, err)))
        return rc;
    for (size_t i = 0; i < sizeof FIM / sizeof FIM[0]; i++) {
        if ((rc = meta_id(t, meta, FIM[i].key, -1, &id, err)))
            return rc;
        if (id >= 0 && FIM[i].eog)
            t->flags[id] |= CP_TF_EOG;
        for (size_t k = 0;
             id < 0 && k < sizeof FIM[i].text / sizeof FIM[i].text[0] && FIM[i].text[k]; k++) {
            id = find_z(t, FIM[i].text[k]);
            if (id >= 0)
                set_control(t, id, FIM[i].eog);
        }
    }
    for (size_t i = 0; i < sizeof EOG / sizeof EOG[0]; i++)
        if ((id = find_z(t, EOG[i])) >= 0 && (t->type[id] == CP_TT_CONTROL || i != EOG_HTML))
            set_control(t, id, true);
    const int32_t named[] = {t->eos, eot, eom};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (named[i] >= 0)
            t->flags[named[i]] |= CP_TF_EOG;
    harmony(t);
    strip_flags(t, meta);
    mark_markers(t);
    return list_eogs(t, err);
}

/* The slot of edge (from, byte): the edge itself or the free slot where it belongs. */
static cp_tok_edge *edge_slot(const cp_tokenizer *t, uint32_t from, uint32_t byte)
{
    uint32_t h = (uint32_t)cp_tok_hash2(from, byte) & t->edge_mask;
    while (t->edge[h].to != 0 && (t->edge[h].from != from || t->edge[h].byte != byte))
        h = (h + 1) & t->edge_mask;
    return &t->edge[h];
}

cp_code cp_tok_special_trie(cp_tokenizer *t, cp_err *err)
{
    size_t bytes = 0, cap = 16;
    for (int32_t i = 0; i < t->n; i++)
        if (t->flags[i] & (CP_TF_ADDED | CP_TF_SPECIAL))
            bytes += t->text[i].n;
    if (bytes >= UINT32_MAX / 4)
        return cp_fail(err, CP_CORRUPT, "special tokens hold %zu bytes", bytes);
    while (cap < 2 * bytes)
        cap *= 2;
    t->edge = calloc(cap, sizeof *t->edge);
    t->node_id = malloc((bytes + 1) * sizeof *t->node_id);
    if (!t->edge || !t->node_id)
        return cp_fail(err, CP_NO_MEMORY, "tokenizer: out of memory");
    t->edge_mask = (uint32_t)cap - 1;
    t->node_id[0] = -1;
    t->n_nodes = 1;
    for (int32_t i = 0; i < t->n; i++) {
        if (!(t->flags[i] & (CP_TF_ADDED | CP_TF_SPECIAL)) || t->text[i].n == 0)
            continue;
        const uint8_t *s = (const uint8_t *)t->text[i].p;
        uint32_t node = 0;
        t->special_first[s[0]] = true;
        for (size_t k = 0; k < t->text[i].n; k++) {
            cp_tok_edge *e = edge_slot(t, node, s[k]);
            if (e->to == 0) {
                t->node_id[t->n_nodes] = -1;
                *e = (cp_tok_edge){node, s[k], t->n_nodes++};
            }
            node = e->to;
        }
        if (t->node_id[node] < 0)
            t->node_id[node] = i;
    }
    return CP_OK;
}

/* Whether the match that ends at `end` overlaps a span; f->at is the first span that ends after its
 * begin. */
static bool touches(const cp_tok_finder *f, size_t end)
{
    return f->at < f->n_span && f->span[f->at].begin < end;
}

bool cp_tok_special_find(const cp_tokenizer *t, cp_tok_finder *f, const char *text, size_t n,
                         size_t from, cp_tok_match *m)
{
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = from; i < n; i++) {
        if (!t->special_first[s[i]])
            continue;
        while (f->at < f->n_span && f->span[f->at].end <= i)
            f->at++;
        int32_t best = -1;
        size_t best_end = 0;
        uint32_t node = 0;
        for (size_t k = i; k < n; k++) {
            node = edge_slot(t, node, s[k])->to;
            if (node == 0)
                break;
            int32_t id = t->node_id[node];
            if (id < 0)
                continue;
            bool trusted = !touches(f, k + 1);
            if (t->flags[id] & CP_TF_ADDED ? trusted || !(t->flags[id] & CP_TF_MARKER)
                                           : trusted && f->parse_special) {
                best = id;
                best_end = k + 1;
            }
        }
        if (best >= 0) {
            *m = (cp_tok_match){i, best_end, best};
            return true;
        }
    }
    return false;
}
