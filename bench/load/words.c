/* The words, and JSON's escapes. */
#include "bench/load/words.h"

static const char *const words[] = {
    "the",    "of",      "and",   "to",      "in",     "is",      "that",  "for",    "it",
    "was",    "on",      "are",   "as",      "with",   "his",     "they",  "at",     "be",
    "this",   "have",    "from",  "or",      "one",    "had",     "by",    "word",   "but",
    "not",    "what",    "all",   "were",    "we",     "when",    "your",  "can",    "said",
    "there",  "use",     "an",    "each",    "which",  "she",     "do",    "how",    "their",
    "if",     "will",    "up",    "other",   "about",  "out",     "many",  "then",   "them",
    "these",  "so",      "some",  "her",     "would",  "make",    "like",  "him",    "into",
    "time",   "has",     "look",  "two",     "more",   "write",   "go",    "see",    "number",
    "no",     "way",     "could", "people",  "my",     "than",    "first", "water",  "been",
    "call",   "who",     "now",   "find",    "long",   "down",    "day",   "did",    "get",
    "come",   "made",    "may",   "part",    "over",   "new",     "sound", "take",   "only",
    "little", "work",    "know",  "place",   "year",   "live",    "me",    "back",   "give",
    "most",   "very",    "after", "thing",   "our",    "just",    "name",  "good",   "man",
    "think",  "say",     "great", "where",   "help",   "through", "much",  "before", "line",
    "right",  "too",     "mean",  "old",     "any",    "same",    "tell",  "boy",    "follow",
    "came",   "want",    "show",  "also",    "around", "form",    "three", "small",  "set",
    "put",    "end",     "does",  "another", "well",   "large",   "must",  "big",    "even",
    "such",   "because", "turn",  "here",    "why",    "ask",     "went",  "men",    "read",
    "need",   "land",    "home",  "us",      "move",   "try",     "kind",  "hand",   "again",
    "change", "off",     "play",  "air",     "away",   "house",   "point", "page",   "letter",
    "answer", "found",   "study", "still",   "learn",  "should",  "world"};

void cp_load_words(cp_buf *out, cp_load_rng *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (out->n)
            cp_buf_addc(out, ' ');
        cp_buf_adds(out, words[cp_load_rng_below(r, sizeof(words) / sizeof(words[0]))]);
    }
}

void cp_load_escape(cp_buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            cp_buf_printf(out, "\\%c", c);
        else if (c < 0x20)
            cp_buf_printf(out, "\\u%04x", c);
        else
            cp_buf_addc(out, text[i]);
    }
}
