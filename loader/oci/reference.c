/*
 * The reference grammar (distribution/reference). Order of the rules: an explicit scheme (oci:,
 * docker://, oci://, file:), those of other tools (refused), then what is surely a path (/ ./ ../
 * or *.gguf), then an existing path with a slash, then a name. A name is cut from its right end:
 * digest, tag, then the components; the first of several is a registry when it has `.` or `:` or
 * is localhost. For example,
 *
 *     localhost:5000/team/m:v1@sha256:6f1e...     at localhost:5000, team/m, tag v1
 *     smollm2                                     docker.io, ai/smollm2, latest
 *     team/m                                      docker.io, team/m, latest
 */
#include "loader/oci/reference.h"
#include "base/digest.h"
#include "base/mem.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Forms of other tools, which would read as a name and a tag or as a path, and what to do. */
static const struct {
    const char *prefix, *remedy;
} foreign[] = {
    {"oci-archive:", "unpack the file (mkdir DIR && tar -xf FILE -C DIR) and name oci:DIR"},
    {"docker-archive:", "skopeo copy docker-archive:FILE oci:DIR, and name oci:DIR"},
    {"dir:", "skopeo copy dir:PATH oci:DIR, and name oci:DIR"},
    {"docker-daemon:", "skopeo copy docker-daemon:NAME:TAG oci:DIR, and name oci:DIR"},
    {"containers-storage:", "skopeo copy containers-storage:NAME oci:DIR, and name oci:DIR"},
    {"ollama://", "name registry.ollama.ai/library/NAME:TAG"},
    {"hf://", "download the .gguf file and give its path"},
    {"huggingface://", "download the .gguf file and give its path"},
    {"https://", "a registry is named HOST[:PORT]/NAME:TAG; a file has to be downloaded first"},
    {"http://",
     "a registry is named HOST[:PORT]/NAME:TAG, and --plain-http HOST[:PORT] beside it; a "
     "file has to be downloaded first"},
    {"oras://", "name HOST[:PORT]/NAME:TAG"},
};

/* SCHEME:// of any other kind. */
static bool has_scheme(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 0 && cp_has_prefix(s + n, "://");
}

/* CP_USAGE where text is of another tool's form. */
static cp_code refuse_foreign(const char *text, cp_err *err)
{
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        if (strncasecmp(text, foreign[i].prefix, strlen(foreign[i].prefix)) == 0)
            return cp_fail(err, CP_USAGE, "reference '%.200s': %s is not taken: %s", text,
                           foreign[i].prefix, foreign[i].remedy);
    if (has_scheme(text))
        return cp_fail(err, CP_USAGE,
                       "reference '%.200s': schemes are docker://NAME, oci://NAME, oci:DIR and "
                       "file:PATH",
                       text);
    return CP_OK;
}

static bool lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
static bool alnum(char c)
{
    return lower_or_digit(c) || (c >= 'A' && c <= 'Z');
}

/* One path component: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* */
static bool component_ok(const char *s, size_t n)
{
    size_t i = 0;
    for (;;) {
        size_t run = i;
        while (i < n && lower_or_digit(s[i]))
            i++;
        if (i == run)
            return false; /* empty, or a separator at an end */
        if (i == n)
            return true;
        size_t sep = i;
        while (i < n && s[i] == s[sep] && (s[i] == '.' || s[i] == '_' || s[i] == '-'))
            i++;
        size_t len = i - sep;
        if (len == 0 || (s[sep] == '.' && len > 1) || (s[sep] == '_' && len > 2))
            return false;
    }
}

static bool repository_ok(const char *s)
{
    for (;;) {
        const char *slash = strchr(s, '/');
        if (!component_ok(s, slash ? (size_t)(slash - s) : strlen(s)))
            return false;
        if (!slash)
            return true;
        s = slash + 1;
    }
}

/* host[:port] or [v6][:port] */
static bool registry_ok(const char *s)
{
    const char *p = s;
    if (*p == '[') {
        for (p++; (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f') ||
                  (*p >= 'A' && *p <= 'F') || *p == ':' || *p == '.';
             p++)
            ;
        if (*p != ']' || p == s + 1)
            return false;
        p++;
    } else {
        for (;; p++) { /* labels */
            size_t n = strcspn(p, ".:");
            if (n == 0 || p[0] == '-' || p[n - 1] == '-')
                return false;
            for (size_t i = 0; i < n; i++)
                if (!alnum(p[i]) && p[i] != '-')
                    return false;
            p += n;
            if (*p != '.')
                break;
        }
    }
    if (*p == '\0')
        return true;
    size_t digits = strspn(p + 1, "0123456789");
    return *p == ':' && digits >= 1 && digits <= 5 && p[1 + digits] == '\0';
}

static bool tag_ok(const char *s)
{
    size_t n = strlen(s);
    if (n < 1 || n > 128 || (!alnum(s[0]) && s[0] != '_'))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
            return false;
    return true;
}

static cp_code too_long(cp_err *err)
{
    return cp_fail(err, CP_USAGE, "reference is longer than %d characters", CP_REF_NAME_MAX - 1);
}

/* A name in the making: `name` is shortened from both ends. */
typedef struct parts {
    const char *text; /* for messages */
    char name[CP_REF_NAME_MAX + sizeof(((cp_ref *)0)->digest)];
    cp_ref *out;
} parts;

/* "@sha256:..." at the end. */
static cp_code cut_digest(parts *p, cp_err *err)
{
    char *at = strchr(p->name, '@');
    uint8_t raw[32];
    if (!at)
        return CP_OK;
    if (!cp_digest_parse(at + 1, raw))
        return cp_fail(err, CP_USAGE, "reference '%s': digest must be sha256: and 64 hex digits",
                       p->text);
    cp_strcopy(p->out->digest, sizeof(p->out->digest), at + 1);
    *at = '\0';
    return CP_OK;
}

/* ":v1" at the end; a colon before a slash is a port's. */
static cp_code cut_tag(parts *p, cp_err *err)
{
    char *slash = strrchr(p->name, '/'), *colon = strrchr(slash ? slash : p->name, ':');
    if (colon && !tag_ok(colon + 1))
        return cp_fail(err, CP_USAGE,
                       "reference '%s': a tag is 1 to 128 of A-Z a-z 0-9 _ . -, not first . or -",
                       p->text);
    cp_strcopy(p->out->tag, sizeof(p->out->tag), colon ? colon + 1 : "latest");
    if (colon)
        *colon = '\0';
    return CP_OK;
}

/* The registry in front of several components; what follows is the repository. */
static cp_code cut_registry(parts *p, const char **repository, cp_err *err)
{
    char *first = strchr(p->name, '/');
    *repository = p->name;
    if (first) {
        *first = '\0';
        bool registry = strpbrk(p->name, ".:") || strcmp(p->name, "localhost") == 0;
        if (registry && !registry_ok(p->name))
            return cp_fail(err, CP_USAGE, "reference '%s': '%s' is no registry host", p->text,
                           p->name);
        if (registry && !cp_strcopy(p->out->registry, sizeof(p->out->registry), p->name))
            return too_long(err);
        if (registry)
            *repository = first + 1;
        else
            *first = '/';
    }
    if (!repository_ok(*repository))
        return cp_fail(err, CP_USAGE,
                       "reference '%s': a name is [registry/]name[:tag][@sha256:...] with "
                       "lower-case components "
                       "of a-z 0-9 and single . _ - between; a path begins with / ./ ../ or file:",
                       p->text);
    return CP_OK;
}

/* What is not said gets its default; typed has the name as it stood in the text, without its tag.
 */
static cp_code complete(cp_ref *out, const char *repository, const char *default_registry,
                        cp_err *err)
{
    const char *prefix = out->registry[0] || strchr(repository, '/') ? "" : "ai/";
    if (!out->registry[0] && !cp_strcopy(out->registry, sizeof(out->registry),
                                         default_registry ? default_registry : "docker.io"))
        return too_long(err);
    if (strcmp(out->registry, "index.docker.io") == 0 ||
        strcmp(out->registry, "registry-1.docker.io") == 0)
        cp_strcopy(out->registry, sizeof(out->registry), "docker.io");
    size_t typed = strlen(out->typed);
    size_t need = strlen(out->registry) + 1 + strlen(prefix) + strlen(repository);
    if (need > 255 || need + 1 + strlen(out->tag) >= sizeof(out->canonical) ||
        typed + 1 + strlen(out->tag) >= sizeof(out->typed))
        return too_long(err);
    cp_snprintf(out->repository, sizeof(out->repository), "%s%s", prefix, repository);
    cp_snprintf(out->typed + typed, sizeof(out->typed) - typed, ":%s", out->tag);
    cp_snprintf(out->canonical, sizeof(out->canonical), "%s/%s:%s", out->registry, out->repository,
                out->tag);
    return CP_OK;
}

/* See reference.h. */
cp_code cp_ref_parse_name(cp_ref *out, const char *text, const char *default_registry, cp_err *err)
{
    *out = (cp_ref){.kind = CP_REF_NAME};
    parts p = {.text = text, .out = out};
    const char *s = text, *repository;
    if (cp_has_prefix(s, "docker://"))
        s += strlen("docker://");
    else if (cp_has_prefix(s, "oci://"))
        s += strlen("oci://");
    else if (refuse_foreign(s, err))
        return CP_USAGE;
    if (!cp_strcopy(p.name, sizeof(p.name), s))
        return cp_fail(err, CP_USAGE, "reference is longer than %zu characters",
                       sizeof(p.name) - 1);
    cp_code code = cut_digest(&p, err);
    if (!code)
        code = cut_tag(&p, err);
    bool fits = cp_strcopy(out->typed, sizeof(out->typed), p.name);
    if (!code)
        code = cut_registry(&p, &repository, err);
    if (!code && !fits)
        code = too_long(err);
    return code ? code : complete(out, repository, default_registry, err);
}

static cp_code as_path(cp_ref *out, const char *path, cp_err *err)
{
    *out = (cp_ref){.kind = CP_REF_PATH};
    if (*path == '\0')
        return cp_fail(err, CP_USAGE, "reference: the path is empty");
    if (!cp_strcopy(out->path, sizeof(out->path), path))
        return cp_fail(err, CP_USAGE, "reference: path is longer than %d bytes",
                       CP_REF_PATH_MAX - 1);
    return CP_OK;
}

/* DIR[:REFNAME] behind "oci:". */
static cp_code as_layout(cp_ref *out, const char *s, cp_err *err)
{
    *out = (cp_ref){.kind = CP_REF_LAYOUT};
    const char *colon = strchr(s, ':');
    size_t n = colon ? (size_t)(colon - s) : strlen(s);
    if (n == 0 || (colon && colon[1] == '\0'))
        return cp_fail(err, CP_USAGE, "reference 'oci:%s': it must read oci:DIR or oci:DIR:REFNAME",
                       s);
    if (n >= sizeof(out->path) ||
        (colon && !cp_strcopy(out->ref_name, sizeof(out->ref_name), colon + 1)))
        return cp_fail(err, CP_USAGE, "reference 'oci:...': directory or name is too long");
    memcpy(out->path, s, n);
    out->path[n] = '\0';
    return CP_OK;
}

static bool path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* See reference.h. */
cp_code cp_ref_parse(cp_ref *out, const char *text, const char *default_registry,
                     cp_path_exists_fn *exists, cp_err *err)
{
    if (cp_has_prefix(text, "docker://") || cp_has_prefix(text, "oci://"))
        return cp_ref_parse_name(out, text, default_registry, err);
    if (cp_has_prefix(text, "oci:"))
        return as_layout(out, text + strlen("oci:"), err);
    if (cp_has_prefix(text, "file:///"))
        return as_path(out, text + strlen("file://"), err);
    if (cp_has_prefix(text, "file:"))
        return as_path(out, text + strlen("file:"), err);
    if (refuse_foreign(text, err))
        return CP_USAGE;
    if (text[0] == '/' || cp_has_prefix(text, "./") || cp_has_prefix(text, "../") ||
        cp_has_suffix(text, ".gguf"))
        return as_path(out, text, err);
    if (strchr(text, '/') && (exists ? exists : path_exists)(text))
        return as_path(out, text, err);
    return cp_ref_parse_name(out, text, default_registry, err);
}
