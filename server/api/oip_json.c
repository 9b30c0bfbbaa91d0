/*
 * /v2/models/{model}/infer: the Open Inference Protocol's tensors, for text.
 *
 * An inference is a completion that is spelled in tensors: text_input holds the prompts, and every
 * other tensor, or member of `parameters`, is a field of /v1/completions. So the body becomes one
 * of /v1/completions, which reads and checks it.
 *
 *   {"inputs":[{"name":"text_input","datatype":"BYTES","shape":[1],"data":["Hi"]},
 *              {"name":"max_tokens","datatype":"INT32","shape":[1],"data":[8]}]}
 *   {"model_name":"m","model_version":"1","id":"infer-0a","outputs":[
 *     {"name":"text_output","datatype":"BYTES","shape":[1],"data":["..."]}, ...]}
 *
 * With n > 1 a prompt's choices stand together. A tensor's data may follow the JSON as bytes
 * (binary_data_size, header Inference-Header-Content-Length); answers are JSON alone.
 */
#include "server/api/oip.h"

#include "server/api/openai.h"
#include "server/emit.h"

#include <jansson.h>
#include <string.h>

enum {
    INPUTS_MAX = 64,
    OUTPUTS_MAX = 16,
    DATA_DEPTH = 8,
    ELEMENT_BYTES = 96 /* of the tree, beside a string's own */
};

/* ---- tensors ---- */

typedef struct datatype {
    const char *name;
    int bytes;  /* of an element; 0: each has its length in front */
    char class; /* B bytes, b bool, i int, u unsigned int, f float */
} datatype;

static const datatype datatypes[] = {
    {"BYTES", 0, 'B'},  {"BOOL", 1, 'b'},   {"INT8", 1, 'i'},  {"INT16", 2, 'i'},
    {"INT32", 4, 'i'},  {"INT64", 8, 'i'},  {"UINT8", 1, 'u'}, {"UINT16", 2, 'u'},
    {"UINT32", 4, 'u'}, {"UINT64", 8, 'u'}, {"FP32", 4, 'f'},  {"FP64", 8, 'f'},
};
enum { N_DATATYPES = sizeof(datatypes) / sizeof(datatypes[0]) };

/* A tensor of `inputs`. */
typedef struct tensor {
    const char *name;
    const datatype *type;
    size_t n; /* elements */
    char field[32];
} tensor;

typedef struct infer {
    const cp_parser *ps;
    cp_str tail;  /* the bytes after the JSON that no tensor has taken yet */
    size_t taken; /* from the account, for what was made of such bytes */
    json_t *text; /* the body of /v1/completions */
} infer;

static cp_code bad(cp_err *err, const char *field, const json_t *v, const char *allowed)
{
    char say[64];
    if (!v)
        return cp_fail_param(err, CP_MISSING_FIELD, field, "'%s' is missing; give %s", field,
                             allowed);
    return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' is %s; allowed: %s", field,
                         cp_json_say(v, say, sizeof(say)), allowed);
}

static const datatype *datatype_of(const json_t *v)
{
    size_t i = 0;
    while (i < N_DATATYPES && !cp_json_is(v, datatypes[i].name))
        i++;
    return i < N_DATATYPES ? &datatypes[i] : NULL;
}

/* t->n by `shape`. */
static cp_code read_shape(tensor *t, const json_t *shape, cp_err *err)
{
    char field[64], allowed[64];
    size_t rank = json_array_size(shape);
    cp_snprintf(field, sizeof(field), "%s.shape", t->field);
    if (!json_is_array(shape) || rank == 0 || rank > DATA_DEPTH)
        return bad(err, field, shape, "a list of 1 to 8 dimensions");
    cp_snprintf(allowed, sizeof(allowed), "0 to %d, and no more elements in all", CP_JSON_VALUES);
    t->n = 1;
    for (size_t i = 0; i < rank; i++) {
        const json_t *v = json_array_get(shape, i);
        int64_t k;
        bool good = cp_json_integer(v, &k) && k >= 0 && k <= CP_JSON_VALUES;
        t->n *= good ? (size_t)k : 1;
        if (good && t->n <= CP_JSON_VALUES)
            continue;
        cp_snprintf(field, sizeof(field), "%s.shape[%zu]", t->field, i);
        return bad(err, field, v, allowed);
    }
    return CP_OK;
}

/* An element's value under a field of /v1/completions. NULL: it does not fit the datatype. */
static json_t *element(const datatype *t, const json_t *v)
{
    int64_t i;
    bool fits = t->class == 'B'   ? json_is_string(v)
                : t->class == 'b' ? json_is_boolean(v)
                : t->class == 'f' ? json_is_number(v)
                                  : cp_json_integer(v, &i) && (t->class == 'i' || i >= 0);
    return fits ? json_incref((json_t *)(uintptr_t)v) : NULL;
}

/* Data nested by the shape, or flat, row-major: every element in its order. */
static bool flatten(const datatype *t, const json_t *v, int depth, json_t *to)
{
    if (!json_is_array(v))
        return json_array_append_new(to, element(t, v)) == 0;
    bool good = depth > 0;
    for (size_t i = 0; i < json_array_size(v) && good; i++)
        good = flatten(t, json_array_get(v, i), depth - 1, to);
    return good;
}

static cp_code read_data(const tensor *t, const json_t *data, json_t *to, cp_err *err)
{
    char field[48];
    cp_snprintf(field, sizeof(field), "%s.data", t->field);
    if (!json_is_array(data))
        return bad(err, field, data, "a list of the tensor's elements");
    if (!flatten(t->type, data, DATA_DEPTH, to))
        return cp_fail_param(err, CP_INVALID_VALUE, field,
                             "'%s' holds what is no %s; allowed: elements of the tensor's "
                             "datatype, nested at most %d deep (BYTES are strings)",
                             field, t->type->name, DATA_DEPTH);
    return CP_OK;
}

/* ---- tensors in binary ---- */

static uint64_t little(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--)
        v = v << 8 | (uint8_t)p[i];
    return v;
}

static json_t *number(const datatype *t, const char *p)
{
    uint64_t u = little(p, t->bytes);
    int shift = 64 - 8 * t->bytes;
    float f;
    double d;
    switch (t->class) {
    case 'b':
        return json_boolean(u);
    case 'i':
        return json_integer((int64_t)(u << shift) >> shift);
    case 'u':
        return u <= INT64_MAX ? json_integer((int64_t)u) : NULL;
    default:
        if (t->bytes == 4) {
            uint32_t w = (uint32_t)u;
            memcpy(&f, &w, sizeof(f));
            d = (double)f;
        } else {
            memcpy(&d, &u, sizeof(d));
        }
        return json_real(d); /* NULL: not finite */
    }
}

/* The next element of bytes[*at..]; NULL: it ends too early, or is no value. */
static json_t *binary_element(const datatype *t, cp_str bytes, size_t *at)
{
    size_t n = t->bytes ? (size_t)t->bytes : 4;
    if (bytes.n - *at < n)
        return NULL;
    const char *p = bytes.p + *at;
    *at += n;
    if (t->bytes)
        return number(t, p);
    n = (size_t)little(p, 4);
    if (bytes.n - *at < n)
        return NULL;
    *at += n;
    return json_stringn(p + 4, n); /* NULL: not UTF-8 */
}

static cp_code read_binary(infer *in, const tensor *t, const json_t *size, json_t *to, cp_err *err)
{
    char field[64];
    int64_t n;
    cp_snprintf(field, sizeof(field), "%s.parameters.binary_data_size", t->field);
    if (!cp_json_integer(size, &n) || n < 0 || (uint64_t)n > in->tail.n)
        return bad(err, field, size,
                   "the bytes of the tensor, of those that follow the JSON (header "
                   "Inference-Header-Content-Length)");
    cp_str bytes = {in->tail.p, (size_t)n};
    size_t at = 0;
    in->tail = (cp_str){in->tail.p + n, in->tail.n - (size_t)n};
    size_t need = (size_t)n + t->n * ELEMENT_BYTES;
    if (in->ps->left->account && !cp_account_take(in->ps->left->account, need))
        return cp_parser_full(err);
    in->taken += need;
    bool good = true;
    for (size_t i = 0; i < t->n && good; i++)
        good = json_array_append_new(to, binary_element(t->type, bytes, &at)) == 0;
    if (!good || at != bytes.n)
        return cp_fail_param(err, CP_INVALID_VALUE, field,
                             "the %lld bytes of '%s' are not %zu elements of %s (little-endian; "
                             "BYTES: UTF-8 with its length as 4 bytes in front)",
                             (long long)n, t->field, t->n, t->type->name);
    return CP_OK;
}

/* ---- the body ---- */

/* What stands for a field in the body of /v1/completions. */
static cp_code put_field(infer *in, const tensor *t, json_t *values, cp_err *err)
{
    bool prompts = strcmp(t->name, "text_input") == 0;
    if (prompts && (t->type->class != 'B' || t->n == 0 || t->n > CP_PROMPTS_MAX))
        return cp_fail_param(err, CP_INVALID_VALUE, t->field,
                             "'%s' (text_input) has %zu elements of %s; allowed: 1 to %d of BYTES",
                             t->field, t->n, t->type->name, CP_PROMPTS_MAX);
    const char *key = prompts ? "prompt" : t->name;
    if (json_object_get(in->text, key))
        return cp_fail_param(err, CP_INVALID_VALUE, t->field,
                             "'%s' gives what another tensor or 'parameters' gives, too; give it "
                             "once",
                             t->field);
    json_object_set(in->text, key, prompts || t->n != 1 ? values : json_array_get(values, 0));
    return CP_OK;
}

static cp_code read_tensor(infer *in, const json_t *v, size_t i, cp_err *err)
{
    tensor t = {0};
    char field[48];
    cp_snprintf(t.field, sizeof(t.field), "inputs[%zu]", i);
    if (!json_is_object(v))
        return bad(err, t.field, v, "a tensor: an object");
    const json_t *name = json_object_get(v, "name"), *size = NULL;
    cp_snprintf(field, sizeof(field), "%s.name", t.field);
    t.name = json_string_value(name);
    if (!t.name || strcmp(t.name, "prompt") == 0 || strcmp(t.name, "model") == 0)
        return bad(err, field, name,
                   "text_input, or a field of /v1/completions such as max_tokens");
    cp_snprintf(field, sizeof(field), "%s.datatype", t.field);
    t.type = datatype_of(json_object_get(v, "datatype"));
    if (!t.type)
        return bad(err, field, json_object_get(v, "datatype"),
                   "BYTES, BOOL, INT8 to INT64, UINT8 to UINT64, FP32, FP64");
    cp_code code = read_shape(&t, json_object_get(v, "shape"), err);
    if (code != CP_OK)
        return code;
    json_t *values = json_array();
    const json_t *data = json_object_get(v, "data");
    if (!data)
        size = json_object_get(json_object_get(v, "parameters"), "binary_data_size");
    code = size ? read_binary(in, &t, size, values, err) : read_data(&t, data, values, err);
    cp_snprintf(field, sizeof(field), "%s.shape", t.field);
    if (code == CP_OK && json_array_size(values) != t.n)
        code = cp_fail_param(err, CP_INVALID_VALUE, field,
                             "'%s' is of %zu elements, the data has %zu; both must agree", field,
                             t.n, json_array_size(values));
    code = code ? code : put_field(in, &t, values, err);
    json_decref(values);
    return code;
}

static cp_code read_inputs(infer *in, cp_err *err)
{
    const json_t *v = cp_parser_get(in->ps, "inputs");
    size_t n = json_array_size(v);
    if (!json_is_array(v) || n == 0 || n > INPUTS_MAX)
        return bad(err, "inputs", v, "a list of 1 to 64 tensors");
    cp_code code = CP_OK;
    for (size_t i = 0; i < n && code == CP_OK; i++)
        code = read_tensor(in, json_array_get(v, i), i, err);
    if (code == CP_OK && !json_object_get(in->text, "prompt"))
        code = cp_fail_param(err, CP_MISSING_FIELD, "inputs",
                             "'inputs' has no tensor text_input (BYTES), which holds the prompts");
    if (code == CP_OK && in->tail.n > 0)
        code = cp_fail_param(err, CP_INVALID_VALUE, "inputs",
                             "%zu bytes after the JSON belong to no tensor's binary_data_size",
                             in->tail.n);
    return code;
}

/* Fields that concern the protocol, and are none of /v1/completions. */
static bool protocol_parameter(const char *key)
{
    return strcmp(key, "binary_data_output") == 0 || strcmp(key, "model") == 0 ||
           strcmp(key, "prompt") == 0;
}

static cp_code not_built(cp_err *err, const char *field, const char *instead)
{
    return cp_fail_param(err, CP_UNSUPPORTED_FIELD, field,
                         "'%s' is not supported by this route; %s", field, instead);
}

static cp_code read_parameters(infer *in, cp_err *err)
{
    const json_t *v = cp_parser_get(in->ps, "parameters");
    if (!v)
        return CP_OK;
    if (!json_is_object(v))
        return bad(err, "parameters", v, "an object");
    if (json_is_true(json_object_get(v, "binary_data_output")))
        return not_built(err, "binary_data_output", "answers are JSON: leave it out");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        if (!protocol_parameter(key))
            json_object_set(in->text, key, value);
    }
    return CP_OK;
}

/* ---- what comes back ---- */

typedef enum output {
    OUT_TEXT,
    OUT_FINISH,
    OUT_PROMPT_TOKENS,
    OUT_COMPLETION_TOKENS,
    OUTPUTS
} output;
static const char *const output_names[OUTPUTS][2] = {{"text_output", "BYTES"},
                                                     {"finish_reason", "BYTES"},
                                                     {"prompt_tokens", "INT64"},
                                                     {"completion_tokens", "INT64"}};

static cp_code read_outputs(infer *in, unsigned *mask, cp_err *err)
{
    const json_t *v = cp_parser_get(in->ps, "outputs");
    *mask = (1u << OUTPUTS) - 1;
    if (!v || (json_is_array(v) && json_array_size(v) == 0))
        return CP_OK;
    if (!json_is_array(v) || json_array_size(v) > OUTPUTS_MAX)
        return bad(err, "outputs", v, "a list of up to 16 names of tensors");
    *mask = 0;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *o = json_array_get(v, i), *name = json_object_get(o, "name");
        char field[48];
        unsigned k = 0;
        cp_snprintf(field, sizeof(field), "outputs[%zu].name", i);
        while (k < OUTPUTS && !cp_json_is(name, output_names[k][0]))
            k++;
        if (k == OUTPUTS)
            return bad(err, field, name,
                       "text_output, finish_reason, prompt_tokens, completion_tokens");
        if (json_is_true(json_object_get(json_object_get(o, "parameters"), "binary_data")))
            return not_built(err, "binary_data", "answers are JSON: leave it out");
        *mask |= 1u << k;
    }
    return CP_OK;
}

/* What an answer of tensors has no place for. */
static cp_code check(const cp_params *p, cp_err *err)
{
    if (p->stream)
        return not_built(err, "stream", "streams are at /v1/completions");
    if (p->logprobs >= 0)
        return not_built(err, "logprobs", "log-probabilities are at /v1/completions");
    if (p->echo)
        return not_built(err, "echo", "/v1/completions has it");
    return CP_OK;
}

static cp_code read_id(const cp_parser *ps, cp_str *out, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "id");
    if (v && !json_is_string(v))
        return bad(err, "id", v, "a string");
    return v ? cp_parser_string((cp_parser *)(uintptr_t)ps, v, out, err) : CP_OK;
}

static cp_code parse(cp_parser *ps, cp_err *err)
{
    infer in = {.ps = ps, .tail = ps->tail, .text = json_object()};
    cp_parser text = *ps;
    cp_code code = read_parameters(&in, err);
    code = code ? code : read_inputs(&in, err);
    code = code ? code : read_outputs(&in, &ps->out->outputs, err);
    code = code ? code : read_id(ps, &ps->out->given_id, err);
    text.api = &cp_api_text;
    text.body = in.text;
    code = code ? code : cp_parser_read(&text, err);
    code = code ? code : check(ps->out, err);
    json_decref(in.text);
    if (ps->left->account)
        cp_account_give(ps->left->account, in.taken);
    return code;
}

/* ---- answers ---- */

static void emit_element(const cp_call *c, const cp_part *p, int i, output o, cp_buf *out)
{
    const cp_choice *ch = &c->choices[i];
    if (o == OUT_TEXT)
        cp_emit_str(out, ch->shown.p ? ch->shown.p : "", ch->shown.n);
    else if (o == OUT_FINISH)
        cp_buf_printf(out, "\"%s\"", cp_openai_finish(ch->finish));
    else
        cp_emit_int(out, o == OUT_PROMPT_TOKENS ? p->r.n_prompt : ch->n_tokens);
}

static void emit_tensor(const cp_call *c, output o, cp_buf *out)
{
    cp_buf_printf(out, "{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[%d],\"data\":[",
                  output_names[o][0], output_names[o][1], c->n_choices);
    for (int k = 0; k < c->n_parts; k++) {
        const cp_part *p = &c->parts[k];
        for (int i = p->first; i < p->first + p->r.n; i++) {
            if (i > 0)
                cp_buf_addc(out, ',');
            emit_element(c, p, i, o, out);
        }
    }
    cp_buf_adds(out, "]}");
}

static void whole(cp_call *c, cp_buf *out)
{
    cp_buf_adds(out, "{\"model_name\":");
    cp_emit_str(out, c->m->id, strlen(c->m->id));
    cp_buf_adds(out, ",\"model_version\":\"" CP_OIP_VERSION "\",\"id\":");
    if (c->p.given_id.p)
        cp_emit_str(out, c->p.given_id.p, c->p.given_id.n);
    else
        cp_emit_str(out, c->id, strlen(c->id));
    cp_buf_adds(out, ",\"outputs\":[");
    const char *comma = "";
    for (int o = 0; o < OUTPUTS; o++) {
        if (!(c->p.outputs & 1u << o))
            continue;
        cp_buf_adds(out, comma);
        emit_tensor(c, (output)o, out);
        comma = ",";
    }
    cp_buf_adds(out, "]}");
}

void cp_oip_tensors(cp_buf *out)
{
    cp_buf_adds(out, "\"inputs\":[{\"name\":\"text_input\",\"datatype\":\"BYTES\",\"shape\":[-1]}],"
                     "\"outputs\":[");
    for (int o = 0; o < OUTPUTS; o++)
        cp_buf_printf(out, "%s{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[-1]}", o ? "," : "",
                      output_names[o][0], output_names[o][1]);
    cp_buf_addc(out, ']');
}

/* There are no streams here. */
static void nothing(cp_call *c, cp_buf *out)
{
    (void)c;
    (void)out;
}

static void begin(cp_call *c)
{
    (void)c;
}

static void no_event(cp_call *c, cp_part *p, int choice, const cp_said *said, cp_buf *out)
{
    (void)c, (void)p, (void)choice, (void)said, (void)out;
}

static void error(const cp_told *told, cp_buf *out)
{
    const cp_code_row *row = cp_code_info(told->code);
    /* An internal error's words are for the log. */
    const char *msg =
        row->http == 500 || !told->err || !told->err->msg[0] ? "internal error" : told->err->msg;
    cp_buf_adds(out, "{\"error\":");
    cp_emit_str(out, msg, strlen(msg));
    cp_buf_addc(out, '}');
}

/* ---- the table ---- */

enum { AT = 1 };
static const cp_field rows[] = {
    {"Open Inference Protocol", .kind = CP_FIELD_FAMILY},
    {"inputs", CP_OF_KSERVE, AT, CP_FIELD_HAND, .empty = "![]", .good = "!7",
     .change = "[{\"name\":\"text_input\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"b\"]}]",
     .required = AT},
    {"outputs", CP_OF_KSERVE, AT, CP_FIELD_HAND, .empty = "[]", .good = "!7",
     .change = "[{\"name\":\"text_output\"}]"},
    {"parameters", CP_OF_KSERVE, AT, CP_FIELD_HAND, .empty = "{}", .good = "!7",
     .change = "{\"max_tokens\":2}"},
    {"id", CP_OF_KSERVE, AT, CP_FIELD_HAND, .empty = "\"\"", .good = "!7", .change = "\"x\""},
};
static const cp_field_table fields = {rows, sizeof(rows) / sizeof(rows[0])};
static const char *const texts[] = {"inputs", "parameters", NULL};

const cp_api cp_api_infer = {
    .name = "infer",
    .fields = &fields,
    .at = AT,
    .texts = texts,
    .binary = true,
    .parse = parse,
    .prompt_field = "inputs",
    .id_prefix = "infer-",
    .operation = "text_completion",
    .top_field = "logprobs",
    .max_tokens = 16,
    .token_bytes = 80,
    .top_bytes = 40,
    .stream_type = "application/json",
    .begin = begin,
    .event = no_event,
    .end = nothing,
    .whole = whole,
    .error = error,
};
