/* Records of ShareGPT and OpenAI into one form. One record is parsed at a time, so that a file of
 * half a gigabyte costs its own bytes and what is kept of it. */
#include "base/io.h"
#include "base/mem.h"
#include "bench/load/trace.h"
#include "bench/load/words.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const kept_keys[] = {"role", "content",      "reasoning_content",
                                        "name", "tool_call_id", "tool_calls"};

typedef struct reader {
    cp_load_trace *t;
    const char *path;
    size_t cap;
    cp_err *err;
} reader;

/* Whom ShareGPT calls what; NULL: somebody else. */
static const char *role_of(const char *from)
{
    static const struct {
        const char *from, *role;
    } rows[] = {{"human", "user"},        {"user", "user"},           {"gpt", "assistant"},
                {"chatgpt", "assistant"}, {"assistant", "assistant"}, {"bing", "assistant"},
                {"bard", "assistant"},    {"system", "system"},       {"tool", "tool"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].from, from) == 0)
            return rows[i].role;
    }
    return NULL;
}

static void talk_free(cp_load_talk *talk)
{
    for (uint32_t i = 0; i < talk->n_messages; i++) {
        free(talk->messages[i].json);
        free(talk->messages[i].text);
    }
    free(talk->messages);
    free(talk->tools);
}

/* The message in OpenAI's form out of either; NULL: it is neither. A new reference. */
static json_t *message_of(const json_t *m)
{
    const char *from = json_string_value(json_object_get(m, "from"));
    json_t *value = json_object_get(m, "value"), *out;
    if (from && role_of(from) && json_is_string(value))
        return json_pack("{s:s,s:O}", "role", role_of(from), "content", value);
    if (!json_is_string(json_object_get(m, "role")) || !(out = json_object()))
        return NULL;
    for (size_t i = 0; i < sizeof(kept_keys) / sizeof(kept_keys[0]); i++) {
        json_t *v = json_object_get(m, kept_keys[i]);
        if (v && json_object_set(out, kept_keys[i], v)) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* The bytes of all strings in content and tool calls that a model reads, roughly. */
static size_t bytes_of(const json_t *m)
{
    const json_t *content = json_object_get(m, "content"),
                 *calls = json_object_get(m, "tool_calls");
    size_t n = json_is_string(content) ? json_string_length(content) : 0;
    char *text = json_is_array(content) ? json_dumps(content, JSON_COMPACT) : NULL;
    n += text ? strlen(text) : 0;
    free(text);
    text = json_is_array(calls) ? json_dumps(calls, JSON_COMPACT) : NULL;
    n += text ? strlen(text) : 0;
    free(text);
    return n;
}

/* False: what it is cannot be said in a request. */
static bool take_message(cp_load_talk *talk, const json_t *record)
{
    json_t *m = json_is_object(record) ? message_of(record) : NULL;
    if (!m)
        return false;
    cp_load_message *to = &talk->messages[talk->n_messages];
    const json_t *content = json_object_get(m, "content");
    cp_buf text = {.max = CP_LOAD_MESSAGE_MAX};
    if (json_is_string(content))
        cp_load_escape(&text, json_string_value(content), json_string_length(content));
    size_t bytes = bytes_of(m);
    *to = (cp_load_message){
        .json = json_dumps(m, JSON_COMPACT | JSON_PRESERVE_ORDER),
        .text = text.p ? text.p : cp_xstrdup(""),
        .bytes = (uint32_t)(bytes < CP_LOAD_MESSAGE_MAX ? bytes : CP_LOAD_MESSAGE_MAX),
        .assistant = strcmp(json_string_value(json_object_get(m, "role")), "assistant") == 0,
        .calls = json_array_size(json_object_get(m, "tool_calls")) > 0};
    to->asked = to->assistant && talk->n_messages > 0 && !to[-1].assistant;
    talk->turns += to->asked;
    talk->n_messages++;
    json_decref(m);
    return to->json && !text.failed && bytes < CP_LOAD_MESSAGE_MAX;
}

static bool take_record(reader *r, const json_t *record)
{
    const json_t *messages = json_object_get(record, "messages");
    if (!messages)
        messages = json_object_get(record, "conversations");
    size_t n = json_array_size(messages);
    if (n == 0 || n > CP_LOAD_MESSAGES_MAX)
        return false;
    cp_load_talk talk = {.messages = cp_xcalloc(n, sizeof(*talk.messages))};
    const json_t *tools = json_object_get(record, "tools");
    bool ok = true;
    if (json_array_size(tools) > 0)
        talk.tools = json_dumps(tools, JSON_COMPACT | JSON_PRESERVE_ORDER);
    for (size_t i = 0; i < n && ok; i++)
        ok = take_message(&talk, json_array_get(messages, i));
    if (!ok || talk.turns == 0) {
        talk_free(&talk);
        return false;
    }
    if (r->t->n_talks == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 64;
        r->t->talks = cp_xrealloc(r->t->talks, r->cap * sizeof(*r->t->talks));
    }
    r->t->talks[r->t->n_talks++] = talk;
    return true;
}

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

static cp_code malformed(const reader *r, const char *begin, const char *at, const char *what)
{
    size_t line = 1;
    for (const char *p = begin; p < at; p++)
        line += *p == '\n';
    return cp_fail(r->err, CP_USAGE,
                   "--dataset-file: %s:%zu: %s; allowed: a JSON array, or lines, of objects with "
                   "'messages' or 'conversations'",
                   r->path, line, what);
}

/* Records between blanks (lines of JSON) or, in an array, commas. */
static cp_code read_all(reader *r, const char *begin, size_t n)
{
    const char *end = begin + n, *p = skip_blanks(begin, end);
    bool array = p < end && *p == '[';
    p = skip_blanks(p + array, end);
    while (p < end && r->t->n_talks < CP_LOAD_TALKS_MAX && !(array && *p == ']')) {
        json_error_t e;
        json_t *record =
            json_loadb(p, (size_t)(end - p), JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &e);
        if (!json_is_object(record)) {
            char what[240];
            cp_snprintf(what, sizeof(what), "%s", record ? "a record is no object" : e.text);
            size_t at = record ? 0 : (size_t)e.position;
            json_decref(record);
            return malformed(r, begin, p + at, what);
        }
        r->t->skipped += !take_record(r, record);
        json_decref(record);
        p = skip_blanks(p + e.position, end);
        if (array && p < end && *p == ',')
            p = skip_blanks(p + 1, end);
        else if (array && (p == end || *p != ']'))
            return malformed(r, begin, p, "no ',' or ']' behind a record");
    }
    if (r->t->n_talks == 0)
        return malformed(r, begin, end, "no record with a message and an answer behind it");
    return CP_OK;
}

cp_code cp_load_trace_open(cp_load_trace **out, const char *path, cp_err *err)
{
    cp_buf text = {0};
    reader r = {.t = cp_xcalloc(1, sizeof(*r.t)), .path = path, .err = err};
    cp_code code = cp_file_read(path, (size_t)1 << 30, &text, err);
    if (code)
        cp_err_prefix(err, "--dataset-file");
    else
        code = read_all(&r, text.p ? text.p : "", text.n);
    cp_buf_fini(&text);
    if (code)
        cp_load_trace_close(r.t);
    else
        *out = r.t;
    return code;
}

void cp_load_trace_close(cp_load_trace *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_talks; i++)
        talk_free(&t->talks[i]);
    free(t->talks);
    free(t);
}
