/*
 * A table of first bytes for files, and one of names for folders. The first row that fits decides,
 * so a tar is called one whatever its first member's name begins with. A safetensors file, for
 * example, begins with the length of its header as eight bytes and then the header, which is JSON:
 *
 *     58 02 00 00 00 00 00 00 7b 22 ...     "a safetensors file": convert it to GGUF
 *
 * Nothing is taken because of these tables; they make the message of a refusal.
 */
#include "loader/formats/foreign.h"
#include "base/mem.h"

#include <dirent.h>
#include <stdbool.h>
#include <string.h>

enum { LISTED_MAX = 4096, NAME_BYTES = 256 };

static const char unpack[] =
    "unpack it, and name the .gguf file, or oci:DIR where it holds a layout "
    "(skopeo copy docker-archive:FILE oci:DIR makes one of docker save's)",
                  decompress[] = "decompress it; a tar within has to be unpacked as well",
                  convert[] = "convert it to GGUF";

/* `at` of the file; rows are tried in order. */
static const struct {
    size_t at, n;
    const char *magic, *what, *remedy;
} kinds[] = {
    {257, 5, "ustar", "a tar archive", unpack},
    {0, 2, "\x1f\x8b", "compressed with gzip", decompress},
    {0, 4, "\x28\xb5\x2f\xfd", "compressed with zstd", decompress},
    {0, 6,
     "\xfd"
     "7zXZ\0",
     "compressed with xz", decompress},
    {0, 3, "BZh", "compressed with bzip2", decompress},
    {0, 4, "PK\3\4", "a zip archive (PyTorch's files are such)",
     "unpack it and name the .gguf file, or convert it to GGUF"},
    {8, 2, "{\"", "a safetensors file", convert},
    {0, 4, "lmgg", "a GGML file, older than GGUF", convert},
    {0, 4, "tjgg", "a GGML file, older than GGUF", convert},
    {0, 23, "version https://git-lfs", "a Git LFS pointer", "git lfs pull brings the file"},
    {0, 9, "<!DOCTYPE", "a web page", "download the file itself"},
    {0, 9, "<!doctype", "a web page", "download the file itself"},
    {0, 5, "<html", "a web page", "download the file itself"},
};
enum { N_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static size_t row_of(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < N_KINDS && (n < kinds[i].at + kinds[i].n ||
                           memcmp(p + kinds[i].at, kinds[i].magic, kinds[i].n) != 0))
        i++;
    return i;
}

/* See foreign.h. */
const char *cp_foreign_kind(const uint8_t *p, size_t n)
{
    size_t row = row_of(p, n);
    return row < N_KINDS ? kinds[row].what : NULL;
}

/* See foreign.h. */
cp_code cp_foreign_file(const uint8_t *p, size_t n, cp_err *err)
{
    size_t row = row_of(p, n);
    if (row < N_KINDS)
        return cp_fail(err, CP_CORRUPT, "is no GGUF file but %s: %s", kinds[row].what,
                       kinds[row].remedy);
    if (n < 4)
        return cp_fail(err, CP_CORRUPT, "is no GGUF file: it has %zu bytes", n);
    return cp_fail(err, CP_CORRUPT,
                   "is no GGUF file: its magic is %02x %02x %02x %02x, not \"GGUF\"", p[0], p[1],
                   p[2], p[3]);
}

/* See foreign.h. */
cp_code cp_foreign_folder(const char *path, cp_code code, cp_err *err)
{
    char gguf[NAME_BYTES] = "";
    bool layout = false, safetensors = false;
    DIR *d = opendir(path);
    struct dirent *e;
    for (int i = 0; d && i < LISTED_MAX && (e = readdir(d)); i++) {
        layout = layout || strcmp(e->d_name, "oci-layout") == 0;
        safetensors = safetensors || cp_has_suffix(e->d_name, ".safetensors");
        if (cp_has_suffix(e->d_name, ".gguf") && (!gguf[0] || strcmp(e->d_name, gguf) < 0))
            cp_strcopy(gguf, sizeof(gguf), e->d_name);
    }
    if (d)
        closedir(d);
    if (layout)
        return cp_fail(err, code, "%.200s is an image layout: name it as oci:%.200s", path, path);
    if (gguf[0])
        return cp_fail(err, code, "%.200s is a directory: name the file in it, %.200s", path, gguf);
    if (safetensors)
        return cp_fail(err, code,
                       "%.200s is a directory of safetensors, which are not taken: convert them to "
                       "GGUF",
                       path);
    return cp_fail(err, code, "%.200s is a directory; a .gguf file or oci:DIR is expected", path);
}
